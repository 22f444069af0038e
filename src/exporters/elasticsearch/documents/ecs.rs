//! The `ecs` mapping: the Elastic Common Schema's names for what OpenTelemetry's conventions call otherwise.
//!
//! What has no other name keeps its own, at the root. Kibana's Discover and Logs read these; the APM app wants more than an exporter can know.

use super::{
    flat::{Flat, Leaf},
    json::Object,
    metrics::Point,
};
use crate::otlp::view::{AnyValueView, AttributesView, LogRecordView, ResourceView, ScopeView, SpanView};

/// Attributes of a resource, and what they are called; an empty name: it is left out.
fn of_resource(key: &str) -> Option<&'static str> {
    Some(match key {
        "service.instance.id" => "service.node.name",
        "deployment.environment" | "deployment.environment.name" => "service.environment",
        "telemetry.sdk.name" | "telemetry.distro.name" | "telemetry.distro.version" => "",
        "telemetry.sdk.language" => "service.language.name",
        "telemetry.sdk.version" => "service.language.version",
        "cloud.platform" => "cloud.service.name",
        "container.image.tags" => "container.image.tag",
        "host.name" => "host.hostname",
        "host.arch" => "host.architecture",
        "process.executable.path" => "process.executable",
        "process.runtime.name" => "service.runtime.name",
        "process.runtime.version" => "service.runtime.version",
        "os.name" => "host.os.name",
        "os.type" => "host.os.platform",
        "os.description" => "host.os.full",
        "os.version" => "host.os.version",
        "k8s.namespace.name" => "kubernetes.namespace",
        "k8s.node.name" => "kubernetes.node.name",
        "k8s.pod.name" => "kubernetes.pod.name",
        "k8s.pod.uid" => "kubernetes.pod.uid",
        "k8s.container.name" => "kubernetes.container.name",
        "k8s.deployment.name" => "kubernetes.deployment.name",
        "k8s.replicaset.name" => "kubernetes.replicaset.name",
        "k8s.statefulset.name" => "kubernetes.statefulset.name",
        "k8s.daemonset.name" => "kubernetes.daemonset.name",
        "k8s.job.name" => "kubernetes.job.name",
        "k8s.cronjob.name" => "kubernetes.cronjob.name",
        _ => return None,
    })
}

fn of_log(key: &str) -> Option<&'static str> {
    Some(match key {
        "event.name" => "event.action",
        "exception.message" => "error.message",
        "exception.stacktrace" => "error.stack_trace",
        "exception.type" => "error.type",
        "exception.escaped" => "event.error.exception.handled",
        _ => return None,
    })
}

fn of_span(key: &str) -> Option<&'static str> {
    Some(match key {
        "db.system" | "db.system.name" => "span.db.type",
        "db.namespace" | "db.name" => "span.db.instance",
        "db.query.text" | "db.statement" => "span.db.statement",
        "db.user" => "span.db.user.name",
        "messaging.destination.name" => "span.message.queue.name",
        "messaging.operation.name" | "messaging.operation" => "span.action",
        _ => return None,
    })
}

fn mapped<'a>(attributes: AttributesView<'a>, names: fn(&str) -> Option<&'static str>, flat: &mut Flat<'a>) {
    for attribute in attributes.iter() {
        let (key, value) = (attribute.key(), attribute.value());
        if key.starts_with("elasticsearch.") || key == "elastic.mapping.mode" {
            continue;
        }
        match names(key) {
            Some("") => {}
            Some(name) => flat.add("", name, value),
            None => flat.add("", key, value),
        }
    }
}

fn surroundings<'a>(resource: ResourceView<'a>, scope: ScopeView<'a>, flat: &mut Flat<'a>) {
    mapped(resource.attributes, of_resource, flat);
    if let Some(name) = resource.attributes.get("host.name") {
        flat.add("", "host.name", name);
    }
    let os = match (resource.attributes.string("os.name"), resource.attributes.string("os.type")) {
        (Some("Android"), _) => "android",
        (Some("iOS"), _) => "ios",
        (_, Some("linux")) => "linux",
        (_, Some("windows")) => "windows",
        (_, Some("darwin")) => "macos",
        (_, Some("aix" | "hpux" | "solaris")) => "unix",
        _ => "",
    };
    flat.text("host.os.type", os);
    mapped(scope.attributes, |_| None, flat);
}

pub(super) fn log<'a>(
    (resource, scope): (ResourceView<'a>, ScopeView<'a>),
    record: &LogRecordView<'a>,
    time: u64,
    flat: &mut Flat<'a>,
) {
    surroundings(resource, scope, flat);
    mapped(record.attributes, of_log, flat);
    flat.leaf("@timestamp", Leaf::Time(time));
    flat.id("trace.id", record.trace_id);
    flat.id("span.id", record.span_id);
    if record.severity_number != 0 {
        flat.leaf("event.severity", Leaf::Int(i64::from(record.severity_number)));
    }
    flat.text("log.level", record.severity_text);
    flat.text("event.action", record.event_name);
    match record.body() {
        AnyValueView::Empty => {}
        AnyValueView::KeyValues(body) => {
            // What speaks of the message in a structured body is the message; the rest stands beside the attributes.
            for entry in body.iter() {
                flat.add("", entry.key(), entry.value());
            }
        }
        AnyValueView::String(text) => flat.leaf("message", Leaf::Text(text)),
        body => flat.written("message", |out| {
            let mut text = Vec::new();
            super::json::any(body, &mut text);
            crate::otlp::json::scalar::string(&text, out);
        }),
    }
}

pub(super) fn span<'a>((resource, scope): (ResourceView<'a>, ScopeView<'a>), span: &SpanView<'a>, flat: &mut Flat<'a>) {
    surroundings(resource, scope, flat);
    mapped(span.attributes, of_span, flat);
    flat.leaf("@timestamp", Leaf::Time(span.start_unix_nanos));
    flat.id("trace.id", span.trace_id);
    flat.id("span.id", span.span_id);
    flat.id("parent.id", span.parent_span_id);
    flat.text("span.name", span.name);
    flat.text("span.kind", super::none::kind(span.kind).strip_prefix("SPAN_KIND_").unwrap_or_default());
    let micros = span.end_unix_nanos.saturating_sub(span.start_unix_nanos) / 1000;
    flat.leaf("span.duration.us", Leaf::Int(i64::try_from(micros).unwrap_or(i64::MAX)));
    flat.text(
        "event.outcome",
        match span.status.code {
            1 => "success",
            2 => "failure",
            _ => "unknown",
        },
    );
    if span.status.code == 2 {
        flat.text("error.message", span.status.message);
    }
    if span.links().next().is_some() {
        flat.written("span.links", |out| {
            out.push(b'[');
            for (at, link) in span.links().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                let mut object = Object::open(out);
                let mut inner = Object::open(object.field("trace"));
                inner.id("id", link.trace_id);
                inner.close();
                let mut inner = Object::open(object.field("span"));
                inner.id("id", link.span_id);
                inner.close();
                object.close();
            }
            out.push(b']');
        });
    }
    if span.events().next().is_some() {
        flat.written("span.events", |out| {
            out.push(b'[');
            for (at, event) in span.events().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                let mut object = Object::open(out);
                object.time("timestamp", event.time_unix_nanos);
                object.text("name", event.name);
                super::json::attributes(event.attributes, |_| true, object.field("attributes"));
                object.close();
            }
            out.push(b']');
        });
    }
}

pub(super) fn metrics<'a>((resource, scope): (ResourceView<'a>, ScopeView<'a>), group: &[Point<'a>], flat: &mut Flat<'a>) {
    let Some(first) = group.first() else { return };
    surroundings(resource, scope, flat);
    mapped(first.view.attributes(), |_| None, flat);
    flat.leaf("@timestamp", Leaf::Time(first.time()));
    for point in group {
        flat.written(point.metric.name, |out| point.value(out));
    }
}
