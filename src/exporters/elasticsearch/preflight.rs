//! Before the first document: what server it is, which mapping works with it, and whether its indices are made as they should be.

use ::http::Method;
use tracing::{info, warn};

use super::{
    documents::Mode,
    endpoints::{Asked, Endpoints},
    facts::{Facts, Product},
    settings::Settings,
};
use crate::{
    component::{Outcome, RetryCause},
    signal::Signal,
    transport::client::Message,
};

/// What was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) facts: Facts,
    /// Of documents for which nothing else is asked.
    pub(super) mode: Mode,
}

/// A request without a body.
pub(super) fn get(path: &str) -> Asked<'_> {
    Asked { method: Method::GET, path, content_type: "application/json", body: Message::default() }
}

/// Asks the server what it is.
///
/// # Errors
/// What it means for the data: nobody answers, the credentials are refused, or it is too old.
pub(super) async fn look(exporter: &str, endpoints: &Endpoints, settings: &Settings) -> Result<Ready, Outcome> {
    let facts = match settings.server {
        Some(stated) => stated,
        None => detect(exporter, endpoints).await?,
    };
    if let Some(problem) = facts.too_old() {
        return Err(Outcome::Retry { reason: problem, after: None, cause: RetryCause::Blocked });
    }
    let mode = pick(exporter, facts, settings);
    Ok(Ready { facts, mode })
}

#[expect(clippy::result_large_err, reason = "what an attempt came to is made once a request")]
async fn detect(exporter: &str, endpoints: &Endpoints) -> Result<Facts, Outcome> {
    let answer = endpoints.call(get("/")).await?;
    let retry = |cause, what: &str| {
        let reason = format!("HTTP {} to the question what server this is{what}", answer.status);
        Err(Outcome::Retry { reason, after: None, cause })
    };
    match answer.status {
        200 => Ok(Facts::read(&answer.body).unwrap_or_else(|| {
            warn!(exporter, "the server does not say what it is: `server: elasticsearch 8.15` (or so) tells weir");
            Facts::UNKNOWN
        })),
        401 => retry(RetryCause::Blocked, ": it wants other credentials"),
        // Who may only write is not told, and needs not be: that is how keys should be.
        403 | 404 => {
            let status = answer.status;
            info!(
                exporter,
                status,
                "the server does not say what it is (the privilege `monitor` is missing); `server: elasticsearch 8.15` tells weir"
            );
            Ok(Facts::UNKNOWN)
        }
        300..=399 => retry(RetryCause::Blocked, ": it redirects, and weir does not follow; set the right `endpoint`"),
        429 | 500..=599 => retry(RetryCause::Passing, ""),
        _ => retry(RetryCause::Blocked, ": is this Elasticsearch or OpenSearch?"),
    }
}

/// The mapping that works with this server.
fn pick(exporter: &str, facts: Facts, settings: &Settings) -> Mode {
    let server = facts.to_string();
    match settings.mode {
        Some(mode) => mode,
        None if facts.has_otel() || facts.product == Product::Unknown => Mode::Otel,
        None => {
            info!(
                exporter,
                server,
                mapping = "ecs",
                "this server has no templates for the mapping `otel`: documents are written in `ecs`; set `mapping: {{mode: otel}}` if you want the other"
            );
            Mode::Ecs
        }
    }
}

/// Takes the nodes that the cluster names; says what stands in the way, and goes on with those that are known.
pub(super) async fn discover(exporter: &str, endpoints: &Endpoints) {
    let answer = endpoints.call(get("/_nodes/http?filter_path=nodes.*.http.publish_address")).await;
    let urls = match &answer {
        Ok(answer) if answer.status == 200 => addresses(&answer.body, endpoints.scheme()),
        _ => Vec::new(),
    };
    if urls.is_empty() {
        warn!(exporter, "the cluster does not name its nodes (it needs the privilege `monitor`): `discover` changes nothing");
        return;
    }
    info!(exporter, nodes = urls.len(), "nodes of the cluster");
    endpoints.replace(&urls);
}

/// `host:port`, or `name/host:port`, of every node that speaks HTTP.
fn addresses(body: &[u8], scheme: &str) -> Vec<String> {
    let nodes: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let nodes = nodes.get("nodes").and_then(|nodes| nodes.as_object()).into_iter().flat_map(|nodes| nodes.values());
    let addresses = nodes.filter_map(|node| node.get("http")?.get("publish_address")?.as_str());
    addresses
        .map(|address| match address.split_once('/') {
            // The certificate is for the name.
            Some((name, address)) => format!("{scheme}://{name}:{}", address.rsplit(':').next().unwrap_or("9200")),
            None => format!("{scheme}://{address}"),
        })
        .collect()
}

/// Says what is missing for data streams to be made: without a template for them, a document makes an index of guessed fields.
pub(super) async fn templates(exporter: &str, endpoints: &Endpoints, settings: &Settings, ready: Ready, signal: Signal) {
    let is_index = settings.indices.get(signal.ordinal()).is_some_and(Option::is_some) || settings.suffix.is_some();
    if is_index || !ready.mode.takes(signal) {
        return;
    }
    let path = "/_index_template?filter_path=index_templates.name,index_templates.index_template.index_patterns,index_templates.index_template.data_stream,index_templates.index_template.priority";
    // Who may not ask is not told; the documents show.
    let Ok(answer) = endpoints.call(get(path)).await else { return };
    if answer.status != 200 {
        return;
    }
    let found: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let (prefix, dataset, namespace) = (settings.stream_prefix, &settings.dataset, &settings.namespace);
    let stream = format!("{prefix}{signal}-{dataset}{}-{namespace}", ready.mode.dataset_suffix());
    if !makes_stream(&found, &stream) {
        warn!(
            exporter,
            stream,
            "no index template makes this a data stream: a plain index with guessed fields would be made of it; `weir elasticsearch setup` installs a template"
        );
    }
}

/// Whether the template that applies to a name, the one with the highest priority, makes a data stream.
fn makes_stream(found: &serde_json::Value, name: &str) -> bool {
    let templates = found.get("index_templates").and_then(|list| list.as_array()).into_iter().flatten();
    let templates = templates.filter_map(|template| template.get("index_template"));
    let applies = templates.filter(|template| {
        let patterns = template.get("index_patterns").and_then(|list| list.as_array()).into_iter().flatten();
        patterns.filter_map(|pattern| pattern.as_str()).any(|pattern| matches(pattern, name))
    });
    let priority = |template: &&serde_json::Value| template.get("priority").and_then(serde_json::Value::as_i64).unwrap_or(0);
    applies.max_by_key(priority).is_some_and(|template| template.get("data_stream").is_some())
}

/// Whether a pattern with `*` is for a name.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_template_with_the_highest_priority_decides() {
        let found = json!({"index_templates": [
            {"name": "logs", "index_template": {"index_patterns": ["logs-*-*"], "data_stream": {}, "priority": 100}},
            {"name": "mine", "index_template": {"index_patterns": ["x", "logs-mine*"], "priority": 300}},
        ]});
        assert!(makes_stream(&found, "logs-generic-default"));
        assert!(!makes_stream(&found, "logs-mine-default"));
        assert!(!makes_stream(&found, "traces-generic-default"));
        assert!(matches("a*b*c", "axxbyyc") && !matches("a*b*c", "axxc") && matches("*", "") && !matches("a", "ab"));
    }

    #[test]
    fn nodes_are_named_by_address_or_by_name() {
        let body = br#"{"nodes":{"a":{"http":{"publish_address":"10.0.0.1:9200"}},"b":{"http":{"publish_address":"es2.example/10.0.0.2:9201"}},"c":{}}}"#;
        assert_eq!(addresses(body, "https"), ["https://10.0.0.1:9200", "https://es2.example:9201"]);
    }
}
