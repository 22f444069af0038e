//! A `prometheus` receiver that only scrapes the Collector's own metrics: weir shows its own without one.
//!
//! Such a receiver is taken out, with the pipelines that live on nothing else, and a warning says where the metrics are.

use crate::{
    component::Tables,
    config::{Diagnostics, Node, Value, collector::Kind},
};

use super::sections::naming;

/// The port of the Collector's own metrics where the file does not say another.
const OWN_PORT: u16 = 8888;

/// The tree without such receivers; `None` where there are none.
pub(super) fn replace(node: &Node, tables: &Tables, found: &mut Diagnostics) -> Option<Node> {
    if naming(tables, Kind::Receiver).iter().any(|row| row.answers_to("prometheus")) {
        return None;
    }
    let port = own_port(node);
    let mut own: Vec<String> = Vec::new();
    for (key, settings) in node.get("receivers")?.entries() {
        let Some(id) = key.word() else { continue };
        let is_prometheus = &**id == "prometheus" || id.starts_with("prometheus/");
        if is_prometheus && scrapes_only(settings, port) {
            found.warning(
                key.origin,
                format!("`{id}` only scrapes the Collector's own metrics: it is left out, weir shows its own without it"),
                Some("they are at `service::telemetry::metrics::readers` (http://localhost:8888/metrics unless set); a periodic reader there sends them by OTLP".to_owned()),
            );
            own.push(id.to_string());
        }
    }
    if own.is_empty() {
        return None;
    }
    let mut node = node.clone();
    for id in &own {
        node.get_mut("receivers").and_then(|receivers| receivers.remove(id));
    }
    let pipelines = node.get_mut("service").and_then(|service| service.get_mut("pipelines")).and_then(Node::entries_mut);
    if let Some(pipelines) = pipelines {
        pipelines.retain_mut(|(key, pipeline)| {
            let Some(receivers) = pipeline.get_mut("receivers").and_then(Node::items_mut) else { return true };
            let before = receivers.len();
            receivers.retain(|item| !item.word().is_some_and(|word| own.iter().any(|id| **id == **word)));
            let empty = receivers.is_empty() && before > 0;
            if empty {
                let id = key.word().map_or("", |word| word);
                found.warning(key.origin, format!("the pipeline `{id}` carried nothing but those metrics: it is left out"), None);
            }
            !empty
        });
    }
    Some(node)
}

/// The port the file gives its own metrics.
fn own_port(node: &Node) -> i64 {
    node.nearest("service::telemetry::metrics::readers")
        .items()
        .iter()
        .find_map(|reader| match reader.nearest("pull::exporter::prometheus::port").value {
            Value::Int(port) => Some(port),
            _ => None,
        })
        .unwrap_or_else(|| i64::from(OWN_PORT))
}

/// Whether every target of every job is this machine's `port`, and there is one. Behind a job that is called after the Collector the
/// host may be any: in a container it is the pod's address or the service's name.
fn scrapes_only(settings: &Node, port: i64) -> bool {
    let Some(jobs) = settings.get("config").and_then(|config| config.get("scrape_configs")) else { return false };
    let mut targets = 0;
    for job in jobs.items() {
        let Some(groups) = job.get("static_configs") else { return false };
        let discovers = job.entries().iter().any(|(key, _)| key.word().is_some_and(|word| word.ends_with("_sd_configs")));
        if discovers {
            return false;
        }
        let name = job.get("job_name").and_then(Node::word).map_or("", |word| word);
        let is_collectors = name.contains("collector") || name.contains("otelcol");
        for target in groups.items().iter().filter_map(|group| group.get("targets")).flat_map(Node::items) {
            targets += 1;
            let Some((host, number)) = target.word().and_then(|word| word.rsplit_once(':')) else { return false };
            let is_here = matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]" | "");
            if !(is_here || is_collectors) || number.parse::<i64>() != Ok(port) {
                return false;
            }
        }
    }
    targets > 0
}
