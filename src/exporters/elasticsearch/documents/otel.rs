//! The `otel` mapping: close to OTLP, as the templates that Elasticsearch 8.12 and later have for it.

use super::{
    Scratch,
    json::{Object, any, attributes, each_key},
};
use crate::{
    exporters::elasticsearch::target::is_routing,
    otlp::{
        json::scalar::{decimal, string},
        view::{AnyValueView, EventView, LogRecordView, ResourceView, ScopeView, SpanView},
    },
};

/// `data_stream`'s parts.
#[derive(Clone, Copy)]
pub(super) struct DataStream<'a> {
    pub(super) kind: &'a str,
    pub(super) dataset: &'a [u8],
    pub(super) namespace: &'a [u8],
}

/// Writes what all documents of a resource have in common: `"resource":{…}`.
pub(super) fn resource(resource: ResourceView<'_>, schema_url: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"resource\":");
    let mut object = Object::open(out);
    object.text("schema_url", schema_url);
    attributes(resource.attributes, |key| !is_routing(key), object.field("attributes"));
    object.count("dropped_attributes_count", resource.dropped_attributes_count);
    object.close();
}

/// `"scope":{…}`
pub(super) fn scope(scope: ScopeView<'_>, schema_url: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"scope\":");
    let mut object = Object::open(out);
    object.text("name", scope.name);
    object.text("version", scope.version);
    object.text("schema_url", schema_url);
    if !scope.attributes.is_empty() {
        attributes(scope.attributes, |key| !is_routing(key), object.field("attributes"));
    }
    object.count("dropped_attributes_count", scope.dropped_attributes_count);
    object.close();
}

pub(super) fn data_stream(object: &mut Object<'_>, stream: Option<DataStream<'_>>) {
    let Some(DataStream { kind, dataset, namespace }) = stream else { return };
    let mut inner = Object::open(object.field("data_stream"));
    inner.text("type", kind);
    string(dataset, inner.field("dataset"));
    string(namespace, inner.field("namespace"));
    inner.close();
}

pub(super) fn log(record: &LogRecordView<'_>, time: u64, stream: Option<DataStream<'_>>, scratch: &Scratch, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.time("@timestamp", time);
    if record.observed_unix_nanos != 0 {
        object.time("observed_timestamp", record.observed_unix_nanos);
    }
    data_stream(&mut object, stream);
    if record.severity_number != 0 {
        decimal(record.severity_number, object.field("severity_number"));
    }
    object.text("severity_text", record.severity_text);
    let event_name = if record.event_name.is_empty() { record.attributes.string("event.name") } else { Some(record.event_name) };
    object.text("event_name", event_name.unwrap_or_default());
    object.id("trace_id", record.trace_id);
    object.id("span_id", record.span_id);
    attributes(record.attributes, |key| !is_routing(key), object.field("attributes"));
    object.count("dropped_attributes_count", record.dropped_attributes_count);
    object.fields(&scratch.resource);
    object.fields(&scratch.scope);
    body(record.body(), &mut object);
    object.close();
}

/// Text for what is one value, `structured` for the rest: an index has one type a field.
fn body(body: AnyValueView<'_>, object: &mut Object<'_>) {
    if body == AnyValueView::Empty {
        return;
    }
    let mut inner = Object::open(object.field("body"));
    match body {
        AnyValueView::String(text) => string(text.as_bytes(), inner.field("text")),
        AnyValueView::KeyValues(_) => any(body, inner.field("structured")),
        AnyValueView::Array(array) => {
            if array.iter().all(|value| matches!(value, AnyValueView::KeyValues(_))) {
                any(body, inner.field("structured"));
            } else {
                let mut structured = Object::open(inner.field("structured"));
                any(body, structured.field("value"));
                structured.close();
            }
        }
        AnyValueView::Bytes(_) => any(body, inner.field("text")),
        value => {
            let out = inner.field("text");
            out.push(b'"');
            any(value, out);
            out.push(b'"');
        }
    }
    inner.close();
}

pub(super) fn span(span: &SpanView<'_>, stream: Option<DataStream<'_>>, scratch: &Scratch, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.time("@timestamp", span.start_unix_nanos);
    data_stream(&mut object, stream);
    object.id("trace_id", span.trace_id);
    object.id("span_id", span.span_id);
    object.id("parent_span_id", span.parent_span_id);
    object.text("trace_state", span.trace_state);
    object.text("name", span.name);
    object.text("kind", kind(span.kind));
    decimal(span.end_unix_nanos.saturating_sub(span.start_unix_nanos), object.field("duration"));
    attributes(span.attributes, |key| !is_routing(key), object.field("attributes"));
    object.count("dropped_attributes_count", span.dropped_attributes_count);
    object.count("dropped_events_count", span.dropped_events_count);
    if span.links().next().is_some() {
        let out = object.field("links");
        out.push(b'[');
        for (at, link) in span.links().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let mut inner = Object::open(out);
            inner.id("trace_id", link.trace_id);
            inner.id("span_id", link.span_id);
            inner.text("trace_state", link.trace_state);
            attributes(link.attributes, |_| true, inner.field("attributes"));
            inner.count("dropped_attributes_count", link.dropped_attributes_count);
            inner.close();
        }
        out.push(b']');
    }
    object.count("dropped_links_count", span.dropped_links_count);
    if span.status.code != 0 || !span.status.message.is_empty() {
        let mut status = Object::open(object.field("status"));
        status.text(
            "code",
            match span.status.code {
                1 => "Ok",
                2 => "Error",
                _ => "",
            },
        );
        status.text("message", span.status.message);
        status.close();
    }
    object.fields(&scratch.resource);
    object.fields(&scratch.scope);
    object.close();
}

pub(super) const fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "Internal",
        2 => "Server",
        3 => "Client",
        4 => "Producer",
        5 => "Consumer",
        _ => "Unspecified",
    }
}

/// An event is a document among the logs, with the ids of its span.
pub(super) fn event(
    span: &SpanView<'_>,
    event: &EventView<'_>,
    stream: Option<DataStream<'_>>,
    scratch: &Scratch,
    out: &mut Vec<u8>,
) {
    let mut object = Object::open(out);
    object.time("@timestamp", event.time_unix_nanos);
    data_stream(&mut object, stream);
    object.text("event_name", event.name);
    object.id("trace_id", span.trace_id);
    object.id("span_id", span.span_id);
    let mut inner = Object::open(object.field("attributes"));
    if event.attributes.get("event.name").is_none() {
        inner.text("event.name", event.name);
    }
    each_key(event.attributes, |key, value| {
        if !is_routing(key) {
            any(value, inner.named(key));
        }
    });
    inner.close();
    object.count("dropped_attributes_count", event.dropped_attributes_count);
    object.fields(&scratch.resource);
    object.fields(&scratch.scope);
    object.close();
}
