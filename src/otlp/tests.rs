//! What the tests of this folder share.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

use super::laws;

pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), key_strindex: 0 }
}

pub(crate) fn span(name: &str) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 3_000,
        attributes: vec![attribute("http.request.method", "GET")],
        ..Span::default()
    }
}

/// Spans of the service `cart`, in one scope called `lib`.
pub(crate) fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "lib".to_owned(), ..InstrumentationScope::default() };
    let of_scope = ScopeSpans { scope: Some(scope), spans, schema_url: String::new() };
    let resource = Resource { attributes: vec![attribute("service.name", "cart")], ..Resource::default() };
    let of_resource = ResourceSpans { resource: Some(resource), scope_spans: vec![of_scope], schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }
}

pub(crate) fn one_span() -> Vec<u8> {
    request(vec![span("GET /cart")]).encode_to_vec()
}

/// What the fuzz targets kept.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_scan_agrees_with_prost_on_the_corpus() {
    let corpus = corpus("scan");
    assert!(!corpus.is_empty());
    for (signal, payload) in corpus.iter().filter_map(|data| laws::signal(data)) {
        laws::scan_agrees_with_prost(signal, payload);
    }
}

#[test]
fn json_comes_back_on_the_corpus() {
    let corpus = corpus("json");
    assert!(!corpus.is_empty());
    for (signal, body) in corpus.iter().filter_map(|data| laws::signal(data)) {
        laws::json_comes_back(signal, body);
    }
}

#[test]
fn edits_change_nothing_else_on_the_corpus() {
    let corpus = corpus("edit");
    assert!(!corpus.is_empty());
    for data in &corpus {
        if let Some((signal, payload)) = laws::signal(data) {
            laws::edits_change_nothing_else(signal, payload, data[0] / 3);
        }
    }
}
