//! Where a document goes: an index that a person named, one that the data names, or a data stream.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::warn;

use super::names::{DatePiece, NAME_BYTES_MAX, Pattern, Piece, clean, clean_stream_part};
use super::settings::Settings;
use crate::{
    otlp::view::{AnyValueView, AttributesView},
    signal::Signal,
};

/// Services that get an index of their own before the rest share one: each is at least a shard a day, and whoever sends names them.
const SERVICES_MAX: usize = 1000;
/// The one that the rest share.
const OTHERS: &str = "other-services";

/// What attributes say about where a document goes, and how it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Routes<'a> {
    /// `elasticsearch.index`
    pub(super) index: Option<&'a str>,
    /// `data_stream.dataset`
    pub(super) dataset: Option<&'a str>,
    /// `data_stream.namespace`
    pub(super) namespace: Option<&'a str>,
    /// `elasticsearch.document_id`
    pub(super) id: Option<&'a str>,
    /// `elasticsearch.ingest_pipeline`, or `elasticsearch.document_pipeline`
    pub(super) pipeline: Option<&'a str>,
}

/// Attributes that say where a document goes and are no part of it in the `otel` mapping.
pub(super) fn is_routing(key: &str) -> bool {
    matches!(
        key,
        "data_stream.type"
            | "data_stream.dataset"
            | "data_stream.namespace"
            | "elasticsearch.index"
            | "elasticsearch.document_id"
            | "elasticsearch.ingest_pipeline"
            | "elasticsearch.document_pipeline"
            | "elastic.mapping.mode"
    )
}

impl<'a> Routes<'a> {
    pub(super) fn of(attributes: AttributesView<'a>) -> Self {
        let mut routes = Self::default();
        for attribute in attributes.iter() {
            let key = attribute.key();
            if !key.starts_with("elasticsearch.") && !key.starts_with("data_stream.") {
                continue;
            }
            let AnyValueView::String(value) = attribute.value() else { continue };
            let place = match key {
                "elasticsearch.index" => &mut routes.index,
                "data_stream.dataset" => &mut routes.dataset,
                "data_stream.namespace" => &mut routes.namespace,
                "elasticsearch.document_id" => &mut routes.id,
                "elasticsearch.ingest_pipeline" | "elasticsearch.document_pipeline" => &mut routes.pipeline,
                _ => continue,
            };
            if !value.is_empty() && place.is_none() {
                *place = Some(value);
            }
        }
        routes
    }

    /// These, and what the outer ones say where these say nothing.
    pub(super) fn or(self, outer: Self) -> Self {
        Self {
            index: self.index.or(outer.index),
            dataset: self.dataset.or(outer.dataset),
            namespace: self.namespace.or(outer.namespace),
            id: self.id.or(outer.id),
            pipeline: self.pipeline.or(outer.pipeline),
        }
    }
}

/// Where the documents of one exporter go.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// By [`Signal::ordinal`]; `None`: whatever the data says, else a data stream.
    pub(super) indices: [Option<Pattern>; Signal::ALL.len()],
    /// `logstash_format`: what stands behind every name.
    pub(super) suffix: Option<(String, Vec<DatePiece>)>,
    /// What stands for a value that the data does not have, in a pattern.
    pub(super) fallbacks: [String; Signal::ALL.len()],
    /// Data streams' names where the data says nothing.
    pub(super) dataset: String,
    pub(super) namespace: String,
    /// How data streams begin: `logs-`, or `ss4o_logs-`.
    pub(super) stream_prefix: &'static str,
    services: Mutex<hashbrown::HashSet<String>>,
    told: AtomicBool,
}

/// What a document is, as far as its target goes.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) signal: Signal,
    pub(super) routes: Routes<'a>,
    pub(super) scope_name: &'a str,
    pub(super) unix_nanos: u64,
    /// `.otel` in the `otel` mapping.
    pub(super) dataset_suffix: &'static str,
}

/// A data stream's parts, as they stand in the name that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) dataset: (usize, usize),
    pub(super) namespace: (usize, usize),
}

impl Targets {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            indices: settings.indices.clone(),
            suffix: settings.suffix.clone(),
            fallbacks: settings.fallbacks.clone(),
            dataset: settings.dataset.clone(),
            namespace: settings.namespace.clone(),
            stream_prefix: settings.stream_prefix,
            ..Self::default()
        }
    }

    /// Appends the name of the index or data stream; says where its parts lie if it is one.
    pub(super) fn write<'v>(
        &self,
        subject: &Subject<'_>,
        value: impl Fn(&str) -> Option<&'v str>,
        out: &mut Vec<u8>,
    ) -> Option<Stream> {
        let start = out.len();
        let mut stream = None;
        let written = self.indices.get(subject.signal.ordinal()).and_then(Option::as_ref);
        let fallback = self.fallbacks.get(subject.signal.ordinal()).map_or("unknown", String::as_str);
        match (written, subject.routes.index) {
            (Some(pattern), _) if pattern.is_by_service() => {
                let name = |key: &str| value(key).map(|value| self.known(value));
                pattern.write(subject.signal, subject.unix_nanos, fallback, name, out);
            }
            (Some(pattern), _) => pattern.write(subject.signal, subject.unix_nanos, fallback, |_| None, out),
            (None, Some(index)) => clean(index, fallback, out),
            (None, None) => stream = Some(self.stream(subject, out)),
        }
        if let Some((separator, date)) = &self.suffix {
            stream = None;
            out.extend_from_slice(separator.as_bytes());
            Pattern(vec![Piece::Date(date.clone())]).write(subject.signal, subject.unix_nanos, "", |_| None, out);
        }
        out.truncate(start + NAME_BYTES_MAX);
        stream
    }

    fn stream(&self, subject: &Subject<'_>, out: &mut Vec<u8>) -> Stream {
        out.extend_from_slice(self.stream_prefix.as_bytes());
        out.extend_from_slice(subject.signal.as_str().as_bytes());
        out.push(b'-');
        let dataset = out.len();
        clean_stream_part(
            subject.routes.dataset.or_else(|| receiver(subject.scope_name)).unwrap_or_default(),
            &self.dataset,
            true,
            out,
        );
        if !subject.dataset_suffix.is_empty() && !out.ends_with(subject.dataset_suffix.as_bytes()) {
            out.truncate(dataset + 100 - subject.dataset_suffix.len());
            out.extend_from_slice(subject.dataset_suffix.as_bytes());
        }
        let dataset = (dataset, out.len());
        out.push(b'-');
        let namespace = out.len();
        clean_stream_part(subject.routes.namespace.unwrap_or_default(), &self.namespace, false, out);
        Stream { dataset, namespace: (namespace, out.len()) }
    }

    /// The name itself while there are few, and one for all others after that.
    fn known<'v>(&self, name: &'v str) -> &'v str {
        // What is longer is cut in the name, too.
        let key = name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(name);
        let mut services = self.services.lock();
        if services.contains(key) {
            return name;
        }
        if services.len() < SERVICES_MAX {
            services.insert(key.to_owned());
            return name;
        }
        drop(services);
        if !self.told.swap(true, Ordering::Relaxed) {
            warn!(
                services = SERVICES_MAX,
                index = OTHERS,
                "more names of services than may have an index of their own: the others share one"
            );
        }
        OTHERS
    }
}

/// The `hostmetricsreceiver` in a scope's name such as `github.com/…/receiver/hostmetricsreceiver/internal/cpu`.
fn receiver(scope_name: &str) -> Option<&str> {
    let (_, rest) = scope_name.split_once("/receiver/")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    rest.get(..end).filter(|word| word.ends_with("receiver"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Targets {
        Targets { dataset: "generic".to_owned(), namespace: "default".to_owned(), ..Targets::default() }
    }

    fn named(targets: &Targets, routes: Routes<'_>, scope_name: &str, dataset_suffix: &'static str, service: &str) -> String {
        let subject = Subject { signal: Signal::Logs, routes, scope_name, unix_nanos: 1_763_758_800_000_000_000, dataset_suffix };
        let mut out = Vec::new();
        targets.write(&subject, |key| (key == "service.name").then_some(service), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_order_is_index_then_attribute_then_data_stream() {
        let mut targets = targets();
        let routes = Routes { dataset: Some("Nginx-Access"), namespace: Some("eu-1"), ..Routes::default() };
        assert_eq!(named(&targets, Routes::default(), "", ".otel", "x"), "logs-generic.otel-default");
        assert_eq!(named(&targets, routes, "", "", "x"), "logs-nginx_access-eu-1");
        let scope = "github.com/open-telemetry/x/receiver/hostmetricsreceiver/internal/scraper";
        assert_eq!(named(&targets, Routes::default(), scope, ".otel", "x"), "logs-hostmetricsreceiver.otel-default");
        let routes = Routes { index: Some("Mine"), ..routes };
        assert_eq!(named(&targets, routes, "", "", "x"), "mine");
        targets.suffix = Some(("-".to_owned(), super::super::names::date_format("%Y.%m.%d").unwrap()));
        assert_eq!(named(&targets, routes, "", "", "x"), "mine-2025.11.21");
        targets.suffix = None;
        targets.indices[Signal::Logs.ordinal()] = Some(Pattern::parse("{service}-{signal}-%Y.%m.%d").unwrap());
        targets.fallbacks = std::array::from_fn(|_| "unknown".to_owned());
        assert_eq!(named(&targets, routes, "", "", "cart"), "cart-logs-2025.11.21");
    }

    #[test]
    fn the_number_of_services_with_an_index_is_bounded() {
        let mut targets = targets();
        targets.indices[Signal::Logs.ordinal()] = Some(Pattern::parse("{service}-logs").unwrap());
        let names: std::collections::BTreeSet<String> =
            (0..SERVICES_MAX + 500).map(|n| named(&targets, Routes::default(), "", "", &format!("s{n}"))).collect();
        assert_eq!(names.len(), SERVICES_MAX + 1);
        assert!(names.contains("other-services-logs"));
        assert_eq!(named(&targets, Routes::default(), "", "", "s7"), "s7-logs", "who had one keeps it");
    }
}
