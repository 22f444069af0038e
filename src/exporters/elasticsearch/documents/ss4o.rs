//! The Simple Schema for Observability, which OpenSearch's dashboards and the Collector's `opensearch` exporter have.

use super::json::{Object, any, attributes};
use crate::otlp::{
    json::scalar::{decimal, string},
    view::{AnyValueView, LogRecordView, ResourceView, ScopeView, SpanView},
};

fn surroundings(resource: ResourceView<'_>, scope: ScopeView<'_>, object: &mut Object<'_>) {
    let mut inner = Object::open(object.field("instrumentationScope"));
    inner.text("name", scope.name);
    inner.text("version", scope.version);
    if !scope.attributes.is_empty() {
        attributes(scope.attributes, |_| true, inner.field("attributes"));
    }
    inner.count("droppedAttributesCount", scope.dropped_attributes_count);
    inner.close();
    attributes(resource.attributes, |_| true, object.field("resource"));
}

pub(super) fn log(
    (resource, scope): (ResourceView<'_>, ScopeView<'_>),
    record: &LogRecordView<'_>,
    time: u64,
    out: &mut Vec<u8>,
) {
    let mut object = Object::open(out);
    object.time("@timestamp", time);
    if record.observed_unix_nanos != 0 {
        object.time("observedTimestamp", record.observed_unix_nanos);
    }
    object.id("traceId", record.trace_id);
    object.id("spanId", record.span_id);
    let mut severity = Object::open(object.field("severity"));
    severity.text("text", record.severity_text);
    if record.severity_number != 0 {
        decimal(record.severity_number, severity.field("number"));
    }
    severity.close();
    match record.body() {
        AnyValueView::Empty => {}
        AnyValueView::String(text) => string(text.as_bytes(), object.field("body")),
        body => {
            let mut text = Vec::new();
            any(body, &mut text);
            string(&text, object.field("body"));
        }
    }
    object.text("eventName", record.event_name);
    attributes(record.attributes, |_| true, object.field("attributes"));
    surroundings(resource, scope, &mut object);
    object.close();
}

pub(super) fn span((resource, scope): (ResourceView<'_>, ScopeView<'_>), span: &SpanView<'_>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.time("@timestamp", span.start_unix_nanos);
    object.time("startTime", span.start_unix_nanos);
    object.time("endTime", span.end_unix_nanos);
    object.id("traceId", span.trace_id);
    object.id("spanId", span.span_id);
    object.id("parentSpanId", span.parent_span_id);
    object.text("traceState", span.trace_state);
    object.text("name", span.name);
    object.text("kind", super::otel::kind(span.kind));
    let mut status = Object::open(object.field("status"));
    status.text(
        "code",
        match span.status.code {
            1 => "Ok",
            2 => "Error",
            _ => "Unset",
        },
    );
    status.text("message", span.status.message);
    status.close();
    attributes(span.attributes, |_| true, object.field("attributes"));
    object.count("droppedAttributesCount", span.dropped_attributes_count);
    list(&mut object, "events", span.events(), |event, inner| {
        inner.time("@timestamp", event.time_unix_nanos);
        inner.text("name", event.name);
        attributes(event.attributes, |_| true, inner.field("attributes"));
        inner.count("droppedAttributesCount", event.dropped_attributes_count);
    });
    object.count("droppedEventsCount", span.dropped_events_count);
    list(&mut object, "links", span.links(), |link, inner| {
        inner.id("traceId", link.trace_id);
        inner.id("spanId", link.span_id);
        inner.text("traceState", link.trace_state);
        attributes(link.attributes, |_| true, inner.field("attributes"));
        inner.count("droppedAttributesCount", link.dropped_attributes_count);
    });
    object.count("droppedLinksCount", span.dropped_links_count);
    surroundings(resource, scope, &mut object);
    object.close();
}

fn list<I>(object: &mut Object<'_>, name: &str, items: impl Iterator<Item = I>, write: impl Fn(I, &mut Object<'_>)) {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return;
    }
    let out = object.field(name);
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let mut inner = Object::open(out);
        write(item, &mut inner);
        inner.close();
    }
    out.push(b']');
}
