//! Templates and lifecycle: installed once, left alone where a person had a hand in it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    config,
    fake::{Asks, Does, Fake},
};
use crate::{
    component::{BuildContext, Done, Exporter, ExporterConfig as _, Extensions, Extent},
    signal::{ComponentId, Signal},
    transport::client::testing::build_context,
};

fn extent(dry_run: bool, force: bool) -> Extent {
    Extent { signals: Signal::ALL.to_vec(), dry_run, force }
}

type Kept = Arc<Mutex<BTreeMap<String, Value>>>;

/// A server that keeps what it is given, and gives it back as servers do: settings nested and as texts, with what it adds on its own.
fn keeping(kept: &Kept, ism: bool, denies: &'static str) -> Asks {
    let kept = kept.clone();
    Arc::new(move |method, path, body| {
        let path = path.split('?').next().unwrap();
        if !denies.is_empty() && path.starts_with(denies) && method == "PUT" {
            let error = json!({"type": "security_exception", "reason": "action [x] is unauthorized for user [weir]"});
            return Some((403, json!({"error": error, "status": 403})));
        }
        if path.starts_with("/_plugins/_ism") && !ism {
            return Some((400, json!({"error": "no handler found for uri [/_plugins/_ism/policies/weir] and method [GET]"})));
        }
        let name = path.rsplit('/').next().unwrap().to_owned();
        match path.split('/').nth(1).unwrap() {
            "_nodes" => {
                return Some((200, json!({"nodes": {"a": {"roles": ["master", "data_hot", "data_content", "data_cold"]}}})));
            }
            "_ilm" | "_plugins" | "_index_template" | "_component_template" => {}
            _ => return None,
        }
        if method == "PUT" {
            kept.lock().insert(path.to_owned(), body.clone());
            return Some((200, json!({"acknowledged": true})));
        }
        let Some(body) = kept.lock().get(path).cloned() else {
            return Some((404, json!({"error": {"type": "resource_not_found_exception"}, "status": 404})));
        };
        let said = match path.split('/').nth(1).unwrap() {
            "_ilm" => json!({name: {"version": 1, "modified_date": "2026-01-01", "policy": body["policy"]}}),
            "_plugins" => {
                let mut policy = body["policy"].clone();
                policy["policy_id"] = json!(name);
                policy["schema_version"] = json!(21);
                policy["last_updated_time"] = json!(1);
                json!({"_id": name, "_seq_no": 4, "_primary_term": 1, "policy": policy})
            }
            "_index_template" => {
                let mut template = body.clone();
                template["composed_of"] = json!([]);
                if template.get("data_stream").is_some() {
                    template["data_stream"] =
                        json!({"hidden": false, "allow_custom_routing": false, "timestamp_field": {"name": "@timestamp"}});
                }
                json!({"index_templates": [{"name": name, "index_template": template}]})
            }
            _ => json!({"component_templates": [{"name": name, "component_template": body}]}),
        };
        Some((200, said))
    })
}

async fn run(version: &str, asks: Asks, yaml: &str, extent: Extent) -> Vec<(String, Done)> {
    let fake = Fake::with(version, |_, _| Does::well(), asks, usize::MAX).await;
    let exporter: Arc<dyn Exporter> =
        config(&format!("endpoint: {}\n{yaml}", fake.url())).build(build_context(Extensions::default())).unwrap();
    let installed = exporter.install(extent).unwrap().await.unwrap();
    installed.steps.into_iter().map(|step| (step.what, step.done)).collect()
}

fn all_are(steps: &[(String, Done)], wanted: &Done) {
    assert!(!steps.is_empty() && steps.iter().all(|(_, done)| done == wanted), "{steps:#?}");
}

const PATTERN: &str = "logs_index: \"{service}-{signal}-%Y.%m.%d\"";

#[tokio::test]
async fn a_second_run_changes_nothing() {
    for (version, ism) in [("8.15.0", false), ("8.11.0", false), ("opensearch 2.19.1", true)] {
        for yaml in ["", PATTERN, "mapping: {mode: otel}"] {
            let kept = Kept::default();
            let dry = run(version, keeping(&kept, ism, ""), yaml, extent(true, false)).await;
            all_are(&dry, &Done::Created);
            assert!(kept.lock().is_empty(), "a dry run writes nothing");
            all_are(&run(version, keeping(&kept, ism, ""), yaml, extent(false, false)).await, &Done::Created);
            all_are(&run(version, keeping(&kept, ism, ""), yaml, extent(false, false)).await, &Done::Same);
            // Other settings of the same person are weir's to write.
            let yaml = format!("{yaml}\nlifecycle: {{hot: 3d}}");
            let steps = run(version, keeping(&kept, ism, ""), &yaml, extent(false, false)).await;
            assert!(steps.iter().any(|(_, done)| *done == Done::Updated), "{steps:#?}");
            assert!(steps.iter().all(|(_, done)| matches!(done, Done::Updated | Done::Same)), "{steps:#?}");
        }
    }
}

#[tokio::test]
async fn what_a_person_changed_is_kept_unless_it_is_forced() {
    let kept = Kept::default();
    let asks = || keeping(&kept, false, "");
    run("8.11.0", asks(), "", extent(false, false)).await;
    kept.lock().get_mut("/_ilm/policy/weir").unwrap()["policy"]["phases"]["delete"]["min_age"] = json!("10d");
    kept.lock().get_mut("/_index_template/weir-logs").unwrap()["template"]["mappings"]["properties"]["mine"] =
        json!({"type": "ip"});
    let changed = kept.lock().clone();
    for _ in 0..2 {
        let steps = run("8.11.0", asks(), "lifecycle: {hot: 3d}", extent(false, false)).await;
        let kept_ones: Vec<&str> =
            steps.iter().filter(|(_, done)| matches!(done, Done::Kept(_))).map(|(what, _)| what.as_str()).collect();
        assert_eq!(kept_ones, ["lifecycle policy weir", "index template weir-logs"], "{steps:#?}");
    }
    assert_eq!(kept.lock()["/_ilm/policy/weir"], changed["/_ilm/policy/weir"]);
    let steps = run("8.11.0", asks(), "", extent(false, true)).await;
    assert!(steps.iter().all(|(_, done)| matches!(done, Done::Updated | Done::Same)), "{steps:#?}");
    all_are(&run("8.11.0", asks(), "", extent(false, false)).await, &Done::Same);
    // And what another made under the name.
    kept.lock().insert("/_index_template/weir-traces".to_owned(), json!({"index_patterns": ["x"]}));
    let steps = run("8.11.0", asks(), "", extent(false, false)).await;
    assert!(steps.iter().any(|(what, done)| what == "index template weir-traces" && matches!(done, Done::Kept(_))), "{steps:#?}");
}

#[tokio::test]
async fn tiers_without_nodes_are_left_out_and_a_refusal_names_the_privilege() {
    let kept = Kept::default();
    run("8.15.0", keeping(&kept, false, ""), PATTERN, extent(false, false)).await;
    let kept = kept.lock().clone();
    for policy in ["/_ilm/policy/weir", "/_ilm/policy/weir-dated"] {
        let phases = &kept[policy]["policy"]["phases"];
        assert!(phases.get("warm").is_none(), "no node is warm: {phases}");
        assert_eq!((&phases["cold"]["min_age"], &phases["delete"]["min_age"]), (&json!("120d"), &json!("485d")));
    }
    assert!(kept["/_ilm/policy/weir"]["policy"]["phases"]["hot"]["actions"].get("rollover").is_some());
    assert!(kept["/_ilm/policy/weir-dated"]["policy"]["phases"]["hot"]["actions"].get("rollover").is_none());
    assert_eq!(kept["/_index_template/weir-index-logs"]["index_patterns"], json!(["*-logs-*"]));
    assert_eq!(kept["/_component_template/traces-otel@custom"]["template"]["settings"]["index"]["lifecycle"]["name"], "weir");

    let steps = run("8.11.0", keeping(&Kept::default(), false, "/_ilm"), "", extent(false, false)).await;
    let (_, refused) = &steps[0];
    assert!(
        matches!(refused, Done::Refused(words) if words.contains("manage_ilm") && words.contains("unauthorized")),
        "{refused:?}"
    );
    // Without the plugin there is no policy, and the templates are installed all the same.
    let steps = run("opensearch 2.19.1", keeping(&Kept::default(), false, ""), "", extent(false, false)).await;
    assert!(matches!(steps[0].1, Done::Absent(_)), "{steps:#?}");
    assert!(steps.iter().skip(1).all(|(_, done)| *done == Done::Created), "{steps:#?}");
}

/// One name in a cluster, two lifecycles: whoever comes second would write over what the first one wrote.
#[test]
fn two_lifecycles_for_one_policy_are_refused_and_both_are_named() {
    let es = "endpoint: http://es:9200";
    let os = "endpoint: http://os:9200\nserver: opensearch 2.19";
    let dated = |name: &str, days: u32| format!("{os}\nlogs_index: {name}-%Y.%m.%d\nlifecycle: {{hot: {days}d}}");
    let cases = [
        (es.to_owned(), format!("{es}/\nlifecycle: {{hot: 7d}}"), Some("`weir` of http://es:9200")),
        (es.to_owned(), format!("{es}\nlifecycle: {{hot: 30d}}"), None),
        (es.to_owned(), "endpoint: http://other:9200\nlifecycle: {hot: 7d}".to_owned(), None),
        // By another name where indices are named by a person, but for what has no index of its own.
        (dated("a", 7), dated("a", 9), Some("`weir")),
        (
            format!("{es}\nlifecycle: {{hot: 7d, cold: 0d}}"),
            format!("{es}\nlifecycle: {{hot: 7d, cold: 1d}}"),
            Some("7 days hot, 90 warm, 0 cold there"),
        ),
    ];
    for (first, second, expected) in cases {
        let context = |id: &str, of: &BuildContext| BuildContext { id: ComponentId::parse(id).unwrap(), ..of.clone() };
        let around = build_context(Extensions::default());
        config(&first).build(context("elasticsearch/a", &around)).unwrap();
        let built = config(&second).build(context("elasticsearch/b", &around));
        match (built, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                let said = error.to_string();
                assert!(said.contains("`elasticsearch/a`") && said.contains(words), "{said}");
            }
            (built, _) => panic!("{first}\n{second}\n{:?}", built.err()),
        }
    }
}
