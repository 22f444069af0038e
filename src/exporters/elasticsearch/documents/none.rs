//! The `none` and `raw` mappings: the names of OTLP, flat; `raw` without `Attributes.` and `Events.` before the data's own names.

use super::{
    flat::{Flat, Leaf},
    json::{Object, attributes, tidy},
};
use crate::otlp::{
    json::scalar::string,
    view::{AnyValueView, LogRecordView, ResourceView, ScopeView, SpanView},
};

/// What stands before the names of the data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefixes {
    pub(super) attributes: &'static str,
    pub(super) events: &'static str,
}

pub(super) const NONE: Prefixes = Prefixes { attributes: "Attributes", events: "Events" };
pub(super) const RAW: Prefixes = Prefixes { attributes: "", events: "" };

fn surroundings<'a>(resource: ResourceView<'a>, scope: ScopeView<'a>, flat: &mut Flat<'a>) {
    flat.add_all("Resource", resource.attributes);
    flat.text("Scope.name", scope.name);
    flat.text("Scope.version", scope.version);
    flat.add_all("Scope", scope.attributes);
}

pub(super) fn log<'a>(
    prefixes: Prefixes,
    (resource, scope): (ResourceView<'a>, ScopeView<'a>),
    record: &LogRecordView<'a>,
    time: u64,
    flat: &mut Flat<'a>,
) {
    // First, so that a name of the data does not stand for one of ours.
    flat.add_all(prefixes.attributes, record.attributes);
    flat.leaf("@timestamp", Leaf::Time(time));
    flat.id("TraceId", record.trace_id);
    flat.id("SpanId", record.span_id);
    flat.leaf("TraceFlags", Leaf::Int(i64::from(record.flags & 0xff)));
    flat.text("SeverityText", record.severity_text);
    flat.leaf("SeverityNumber", Leaf::Int(i64::from(record.severity_number)));
    flat.text("EventName", record.event_name);
    if record.body() != AnyValueView::Empty {
        flat.add("", "Body", record.body());
    }
    surroundings(resource, scope, flat);
}

pub(super) fn span<'a>(
    prefixes: Prefixes,
    (resource, scope): (ResourceView<'a>, ScopeView<'a>),
    span: &SpanView<'a>,
    flat: &mut Flat<'a>,
) {
    flat.add_all(prefixes.attributes, span.attributes);
    flat.leaf("@timestamp", Leaf::Time(span.start_unix_nanos));
    flat.leaf("EndTimestamp", Leaf::Time(span.end_unix_nanos));
    flat.id("TraceId", span.trace_id);
    flat.id("SpanId", span.span_id);
    flat.id("ParentSpanId", span.parent_span_id);
    flat.text("Name", span.name);
    flat.leaf("Kind", Leaf::Text(kind(span.kind)));
    flat.leaf("TraceStatus", Leaf::Int(i64::from(span.status.code)));
    flat.text("TraceStatusDescription", span.status.message);
    flat.written("Link", |out| links(span, out));
    for event in span.events() {
        let name = tidy(event.name);
        let mut below = String::with_capacity(prefixes.events.len() + name.len() + 1);
        below.push_str(prefixes.events);
        if !below.is_empty() {
            below.push('.');
        }
        below.push_str(&name);
        flat.leaf_below(&below, "time", Leaf::Time(event.time_unix_nanos));
        flat.add_all(&below, event.attributes);
    }
    let micros = span.end_unix_nanos.saturating_sub(span.start_unix_nanos) / 1000;
    flat.leaf("Duration", Leaf::Int(i64::try_from(micros).unwrap_or(i64::MAX)));
    surroundings(resource, scope, flat);
}

pub(super) const fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "SPAN_KIND_INTERNAL",
        2 => "SPAN_KIND_SERVER",
        3 => "SPAN_KIND_CLIENT",
        4 => "SPAN_KIND_PRODUCER",
        5 => "SPAN_KIND_CONSUMER",
        _ => "SPAN_KIND_UNSPECIFIED",
    }
}

/// A list of links, as JSON inside a text: that is what readers of this mapping know.
fn links(span: &SpanView<'_>, out: &mut Vec<u8>) {
    let mut list = vec![b'['];
    for (at, link) in span.links().enumerate() {
        if at > 0 {
            list.push(b',');
        }
        let mut object = Object::open(&mut list);
        attributes(link.attributes, |_| true, object.field("attribute"));
        object.id("spanID", link.span_id);
        object.id("traceID", link.trace_id);
        object.close();
    }
    list.push(b']');
    string(&list, out);
}
