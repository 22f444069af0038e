//! Which items are changed, in all three signals. What matches what is as the Collector 0.155 has it.

use serde_json::{Value, json};

use super::{
    super::testing::{batch, build, error, json_of, processed, read, span_with},
    Config,
};
use crate::{
    config::Level,
    signal::{Context, Signal},
};

fn resource(attributes: Value) -> Value {
    json!({"attributes": attributes})
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Two resources (the second without a service), two scopes each, two items each. Items are named by place: `000` to `111`.
fn request(signal: Signal) -> Value {
    let (envelopes, scopes, items) = match signal {
        Signal::Traces => ("resourceSpans", "scopeSpans", "spans"),
        Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
        Signal::Metrics => ("resourceMetrics", "scopeMetrics", "metrics"),
    };
    let of_item = |r: usize, s: usize, i: usize| {
        let name = format!("{r}{s}{i}");
        let attributes = if i == 0 {
            json!([
                {"key": "i", "value": {"intValue": "7"}},
                {"key": "d", "value": {"doubleValue": 1e21}},
                {"key": "l", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}}},
                {"key": "m", "value": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}, {"key": "b", "value": {"boolValue": true}}]}}},
            ])
        } else {
            json!([])
        };
        match signal {
            Signal::Traces => json!({"name": name, "kind": ([2, 0][i]), "attributes": attributes}),
            Signal::Logs => json!({
                "eventName": name, "severityNumber": ([9, 0][i]), "severityText": (["INFO", ""][i]),
                "body": if i == 0 { json!({"kvlistValue": {"values": [{"key": "k", "value": {"intValue": "1"}}]}}) } else { Value::Null }, "attributes": attributes
            }),
            Signal::Metrics => {
                let kind = ["sum", "gauge", "histogram", "exponentialHistogram", "summary"][(r * 4 + s * 2 + i) % 5];
                json!({"name": name, kind: {"dataPoints": [{"attributes": attributes}]}})
            }
        }
    };
    let of_resource = |r: usize| {
        let list: Vec<Value> = (0..2)
            .map(|s| json!({"scope": {"name": (["lib", "other"][s]), "version": (["1", ""][s])}, items: [of_item(r, s, 0), of_item(r, s, 1)]}))
            .collect();
        let attributes = if r == 0 {
            json!([text("service.name", "shop"), text("host.name", "h1")])
        } else {
            json!([text("host.name", "h2")])
        };
        json!({"resource": resource(attributes), scopes: list})
    };
    json!({envelopes: [of_resource(0), of_resource(1)]})
}

/// The names of the items that a processor with these `include` and `exclude` changes.
#[track_caller]
fn changed(signal: Signal, matching: &str) -> Vec<String> {
    let yaml = format!("{{{matching}, actions: [{{key: touched, action: insert, value: 1}}]}}");
    let processor = build::<Config>(&yaml, signal).unwrap();
    let done = json_of(&processed(&*processor, batch(signal, &request(signal), Context::default())));
    let items: Vec<Value> = match signal {
        Signal::Traces => done["resourceSpans"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|r| r["scopeSpans"].as_array().unwrap())
            .flat_map(|s| s["spans"].as_array().unwrap().clone())
            .collect(),
        Signal::Logs => done["resourceLogs"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|r| r["scopeLogs"].as_array().unwrap())
            .flat_map(|s| s["logRecords"].as_array().unwrap().clone())
            .collect(),
        Signal::Metrics => done["resourceMetrics"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|r| r["scopeMetrics"].as_array().unwrap())
            .flat_map(|s| s["metrics"].as_array().unwrap().clone())
            .collect(),
    };
    assert_eq!(items.len(), 8, "no item is lost");
    let touched = items.iter().filter(|item| item.to_string().contains("touched"));
    touched.map(|item| item.get("name").or(item.get("eventName")).unwrap().as_str().unwrap().to_owned()).collect()
}

const ALL: [&str; 8] = ["000", "001", "010", "011", "100", "101", "110", "111"];

#[test]
fn matches_spans() {
    for (matching, expected) in [
        ("include: {match_type: strict, services: [shop]}", &["000", "001", "010", "011"][..]),
        ("include: {match_type: regexp, services: ['^sh', x]}", &["000", "001", "010", "011"]),
        ("include: {match_type: strict, services: [<nil-service-name>]}", &["100", "101", "110", "111"]),
        ("include: {match_type: strict, span_names: ['000', '111']}", &["000", "111"]),
        ("include: {match_type: regexp, span_names: ['0$']}", &["000", "010", "100", "110"]),
        ("include: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}", &["000", "010", "100", "110"]),
        ("include: {match_type: regexp, span_kinds: [UNSPEC]}", &["001", "011", "101", "111"]),
        (
            "include: {match_type: Strict, services: [shop]}, exclude: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}",
            &["001", "011"],
        ),
        ("exclude: {match_type: strict, services: [shop]}", &["100", "101", "110", "111"]),
    ] {
        assert_eq!(changed(Signal::Traces, matching), expected, "{matching}");
    }
    assert_eq!(changed(Signal::Traces, "include: null"), ALL);
}

#[test]
fn matches_log_records() {
    for (matching, expected) in [
        (r#"include: {match_type: strict, log_bodies: ['{"k":1}']}"#, &["000", "010", "100", "110"][..]),
        ("include: {match_type: regexp, log_bodies: ['^$']}", &["001", "011", "101", "111"]),
        ("include: {match_type: strict, log_severity_texts: [INFO]}", &["000", "010", "100", "110"]),
        ("include: {match_type: strict, log_severity_number: {min: 9}}", &["000", "010", "100", "110"]),
        ("include: {log_severity_number: {min: 10, match_undefined: true}}", &["001", "011", "101", "111"]),
    ] {
        assert_eq!(changed(Signal::Logs, matching), expected, "{matching}");
    }
}

#[test]
fn matches_metrics_by_name_alone() {
    for (matching, expected) in [
        ("include: {match_type: strict, metric_names: ['000']}", &["000"][..]),
        ("include: {match_type: regexp, metric_names: ['^0', '11$']}", &["000", "001", "010", "011", "111"]),
        ("exclude: {match_type: regexp, metric_names: ['^0']}", &["100", "101", "110", "111"]),
        // The Collector checks resources and then forgets them.
        ("include: {match_type: strict, resources: [{key: host.name, value: h1}]}", &ALL),
        (
            "include: {match_type: strict, metric_names: ['000', '100'], resources: [{key: host.name, value: h1}]}",
            &["000", "100"],
        ),
    ] {
        assert_eq!(changed(Signal::Metrics, matching), expected, "{matching}");
    }
}

#[test]
fn matches_attributes_resources_and_libraries() {
    let with = ["000", "010", "100", "110"];
    for signal in [Signal::Traces, Signal::Logs] {
        for (matching, expected) in [
            ("match_type: strict, attributes: [{key: i, value: 7}]", &with[..]),
            ("attributes: [{key: i}]", &with),
            ("match_type: strict, attributes: [{key: i, value: '7'}]", &[]),
            ("match_type: strict, attributes: [{key: i, value: 7.0}]", &[]),
            ("match_type: strict, attributes: [{key: i}, {key: nothing}]", &[]),
            ("match_type: strict, attributes: [{key: l, value: [1, x]}]", &with),
            ("match_type: strict, attributes: [{key: l, value: [1]}]", &[]),
            ("match_type: strict, attributes: [{key: m, value: {b: true, a: 1}}]", &with),
            ("match_type: regexp, attributes: [{key: d, value: '^1000000000000000000000$'}]", &with),
            ("match_type: regexp, attributes: [{key: l, value: x}]", &[]),
            ("match_type: strict, resources: [{key: host.name, value: h1}]", &["000", "001", "010", "011"]),
            ("match_type: strict, libraries: [{name: lib}]", &["000", "001", "100", "101"]),
            ("match_type: strict, libraries: [{name: other, version: ''}]", &["010", "011", "110", "111"]),
            ("match_type: strict, libraries: [{name: lib, version: '2'}]", &[]),
            ("match_type: strict, libraries: [{name: lib}, {name: other}]", &[]),
            ("match_type: regexp, libraries: [{name: l.b, version: '\\d'}], attributes: [{key: i, value: '7'}]", &["000", "100"]),
        ] {
            assert_eq!(changed(signal, &format!("include: {{{matching}}}")), expected, "{signal} {matching}");
        }
    }
}

#[test]
fn a_batch_that_nothing_matches_is_the_same_bytes() {
    for signal in Signal::ALL {
        let list = if signal == Signal::Metrics { "metric_names: [nothing]" } else { "attributes: [{key: i, value: 8}]" };
        for yaml in [
            format!("{{include: {{match_type: strict, {list}}}, actions: [{{key: touched, action: insert, value: 1}}]}}"),
            "{actions: [{key: nothing, action: delete}, {key: nothing, action: update, value: 1}]}".to_owned(),
        ] {
            let before = batch(signal, &request(signal), Context::default());
            let after = processed(&*build::<Config>(&yaml, signal).unwrap(), before.clone());
            assert_eq!(after.payload.as_ptr(), before.payload.as_ptr(), "{signal}: {yaml}");
            assert_eq!(after.items, before.items);
        }
    }
}

#[test]
fn an_index_does_not_outlive_the_bytes_it_was_made_from() {
    let processor = build::<Config>("{actions: [{key: a, action: delete}]}", Signal::Traces).unwrap();
    for (key, kept) in [("a", false), ("b", true)] {
        let mut before = batch(Signal::Traces, &span_with(&json!([text(key, "1")])), Context::default());
        before.index = Some(std::sync::Arc::default());
        assert_eq!(processed(&*processor, before).index.is_some(), kept);
    }
}

#[test]
fn refuses_properties_that_the_signal_does_not_have() {
    for (signal, include, complaint) in [
        (Signal::Traces, "{match_type: strict, log_bodies: [a]}", "`log_bodies` cannot be matched in a traces pipeline"),
        (Signal::Traces, "{match_type: strict, metric_names: [a]}", "`metric_names` cannot be matched"),
        (Signal::Traces, "{match_type: strict}", "says nothing to match"),
        (Signal::Logs, "{match_type: strict, services: [a]}", "`services` cannot be matched in a logs pipeline"),
        (Signal::Logs, "{}", "says nothing to match"),
        (Signal::Metrics, "{attributes: [{key: a}]}", "`attributes` cannot be matched in a metrics pipeline"),
        (Signal::Metrics, "{match_type: strict, libraries: [{name: a}]}", "`libraries` cannot be matched"),
    ] {
        let yaml = format!("{{include: {include}, actions: [{{key: a, action: delete}}]}}");
        let found = build::<Config>(&yaml, signal).err().expect("an error").to_string();
        assert!(found.starts_with("include: ") && found.contains(complaint), "{yaml}: {found}");
    }
}

#[test]
fn refuses_sections_that_cannot_match() {
    for (include, complaint) in [
        ("{services: [a]}", "`match_type` is required"),
        ("{match_type: expr, services: [a]}", "`expr` is no match type"),
        ("{match_type: regexp, services: ['(']}", "the pattern cannot be read"),
        ("{match_type: strict, span_kinds: [SERVER]}", "`SERVER` is no span kind"),
        ("{match_type: strict, attributes: [{value: a}]}", "each of `attributes` needs a `key`"),
        ("{match_type: regexp, attributes: [{key: a, value: 1}]}", "the value of `a` must be text, this is a number"),
        ("{match_type: strict, expressions: [a], metric_names: [a]}", "expressions"),
    ] {
        let found = error::<Config>(&format!("{{include: {include}, actions: [{{key: a, action: delete}}]}}"));
        assert!(found.contains(complaint), "{include}: {found}");
    }
}

#[test]
fn the_cache_of_patterns_is_listed_as_ineffective() {
    let (_, found) = read::<Config>(
        "{include: {match_type: regexp, services: [a], regexp: {cacheenabled: true, cachemaxnumentries: 10}}, actions: [{key: a, action: delete}]}",
    );
    assert_eq!(found.found.iter().map(|one| one.level).collect::<Vec<_>>(), [Level::Ineffective]);
}
