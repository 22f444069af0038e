//! Spellings that the Collector no longer takes, rewritten to today's with a warning each.

use std::sync::Arc;

use super::{Diagnostics, Node, Value};

/// Rewrites what is old in a whole file.
pub(super) fn modernise(node: &mut Node, found: &mut Diagnostics) {
    logging_exporter(node, found);
    metrics_address(node, found);
    memory_ballast(node, found);
}

/// `logging` became `debug`, its `loglevel` became `verbosity`.
fn logging_exporter(node: &mut Node, found: &mut Diagnostics) {
    let mut renamed: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    if let Some(exporters) = node.get_mut("exporters").and_then(Node::entries_mut) {
        let taken: Vec<Arc<str>> = exporters.iter().filter_map(|(key, _)| key.word().cloned()).collect();
        for (key, settings) in exporters {
            let Some(old) = key.word().cloned() else { continue };
            let name = match old.strip_prefix("logging") {
                Some("") => None,
                Some(name) if name.starts_with('/') => Some(name),
                _ => continue,
            };
            let wanted: Arc<str> = format!("debug{}", name.unwrap_or_default()).into();
            let new = if taken.contains(&wanted) { format!("debug/{}", old.replace('/', "-")).into() } else { wanted };
            found.warning(
                key.origin,
                format!("the exporter `{old}` is today's `{new}`, and is read as that"),
                Some(format!("write `{new}`")),
            );
            key.value = Value::String(new.clone());
            loglevel(settings, found);
            renamed.push((old, new));
        }
    }
    if renamed.is_empty() {
        return;
    }
    let pipelines = node.get_mut("service").and_then(|service| service.get_mut("pipelines")).and_then(Node::entries_mut);
    for (_, pipeline) in pipelines.into_iter().flatten() {
        for item in pipeline.get_mut("exporters").and_then(Node::items_mut).into_iter().flatten() {
            if let Some((_, new)) = item.word().and_then(|word| renamed.iter().find(|(old, _)| old == word)) {
                item.value = Value::String(new.clone());
            }
        }
    }
}

fn loglevel(settings: &mut Node, found: &mut Diagnostics) {
    let Some((key, value)) = settings.remove("loglevel") else { return };
    let verbosity = match value.word().map(|word| &**word) {
        Some("debug") => "detailed",
        Some("info") => "normal",
        _ => "basic",
    };
    found.warning(key.origin, "`loglevel` is today's `verbosity`", Some(format!("write `verbosity: {verbosity}`")));
    if settings.get("verbosity").is_none()
        && let Some(entries) = settings.entries_mut()
    {
        entries.push((Node::made_text("verbosity", key.origin), Node::made_text(verbosity, value.origin)));
    }
}

/// `service::telemetry::metrics::address` became a list of readers.
fn metrics_address(node: &mut Node, found: &mut Diagnostics) {
    let metrics = node
        .get_mut("service")
        .and_then(|service| service.get_mut("telemetry"))
        .and_then(|telemetry| telemetry.get_mut("metrics"));
    let Some(metrics) = metrics else { return };
    let Some((key, address)) = metrics.remove("address") else { return };
    let split =
        address.word().and_then(|word| word.rsplit_once(':')).and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let Some((host, port)) = split else {
        found.error(
            address.origin,
            "`address` is `host:port`",
            Some("write a reader: `readers: [{pull: {exporter: {prometheus: {host, port}}}}]`".to_owned()),
        );
        return;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let instead = format!("readers: [{{pull: {{exporter: {{prometheus: {{host: '{host}', port: {port}}}}}}}}}]");
    if metrics.get("readers").is_some() {
        found.warning(
            key.origin,
            "`address` is an older spelling of `readers`, and `readers` is written as well: `address` has no effect",
            Some("remove it".to_owned()),
        );
        return;
    }
    found.warning(key.origin, "`address` is an older spelling, and is read as a reader", Some(format!("write `{instead}`")));
    let at = address.origin;
    let yes = || Node::made(Value::Bool(true), at);
    let prometheus = Node::made_map(
        [
            ("host", Node::made_text(host, at)),
            ("port", Node::made(Value::Int(i64::from(port)), at)),
            ("without_scope_info", yes()),
            ("without_type_suffix", yes()),
            ("without_units", yes()),
        ],
        at,
    );
    let reader = ["prometheus", "exporter", "pull"].into_iter().fold(prometheus, |inner, key| Node::made_map([(key, inner)], at));
    if let Some(entries) = metrics.entries_mut() {
        entries.push((Node::made_text("readers", key.origin), Node::made(Value::List(vec![reader]), at)));
    }
}

/// The ballast of Go's garbage collector: gone from the Collector, and pointless here.
fn memory_ballast(node: &mut Node, found: &mut Diagnostics) {
    let is_ballast =
        |key: &Node| key.word().is_some_and(|word| &**word == "memory_ballast" || word.starts_with("memory_ballast/"));
    if let Some(extensions) = node.get_mut("extensions").and_then(Node::entries_mut) {
        for (key, _) in extensions.iter().filter(|(key, _)| is_ballast(key)) {
            found.warning(
                key.origin,
                "weir has no garbage collector and needs no ballast: it is left out",
                Some("remove it".to_owned()),
            );
        }
        extensions.retain(|(key, _)| !is_ballast(key));
    }
    if let Some(used) = node.get_mut("service").and_then(|service| service.get_mut("extensions")).and_then(Node::items_mut) {
        used.retain(|item| !is_ballast(item));
    }
    for (key, settings) in node.get_mut("processors").and_then(Node::entries_mut).into_iter().flatten() {
        if !key.word().is_some_and(|word| word.starts_with("memory_limiter")) {
            continue;
        }
        for old in ["ballast_size_mib", "ballast_size"] {
            if let Some((key, _)) = settings.remove(old) {
                found.warning(key.origin, format!("weir has no ballast: `{old}` is left out"), Some("remove it".to_owned()));
            }
        }
    }
}
