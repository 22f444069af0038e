//! Items → documents: from the views straight to NDJSON, without a tree between.
//!
//! | mapping | logs | traces | metrics |
//! |---|---|---|---|
//! | `otel` | yes | a span, and a log document an event | points of a moment together |
//! | `ecs` | yes | yes | points of a moment together |
//! | `none`, `raw` | yes | yes | no |
//! | `bodymap` | the body, if it is a map | no | no |
//! | `ss4o` | yes | yes | no |

mod ecs;
mod flat;
mod json;
mod metrics;
mod none;
mod otel;
mod ss4o;
pub(super) mod time;

use serde::Deserialize;

use self::{
    flat::Flat,
    metrics::{Point, groups, points},
    otel::DataStream,
};
use super::{
    bulk::{Collector, Encoded},
    target::{Routes, Stream, Subject, Targets},
};
use crate::{
    component::{Items, Request},
    otlp::{
        json::scalar::{decimal, string},
        view::{
            AnyValueView, AttributesView, BucketsView, LogRecordView, LogsView, MetricsView, ResourceView, ScopeView, SpanView,
            TracesView,
        },
    },
    signal::{Batch, Signal},
};

/// `mapping::mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Otel,
    Ecs,
    None,
    Raw,
    #[serde(alias = "body_map")]
    Bodymap,
    Ss4o,
}

impl Mode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "otel" => Self::Otel,
            "ecs" => Self::Ecs,
            "none" | "no" => Self::None,
            "raw" => Self::Raw,
            "bodymap" => Self::Bodymap,
            "ss4o" => Self::Ss4o,
            _ => return None,
        })
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Otel => "otel",
            Self::Ecs => "ecs",
            Self::None => "none",
            Self::Raw => "raw",
            Self::Bodymap => "bodymap",
            Self::Ss4o => "ss4o",
        }
    }

    pub(super) const fn takes(self, signal: Signal) -> bool {
        match self {
            Self::Otel | Self::Ecs => true,
            Self::None | Self::Raw | Self::Ss4o => !matches!(signal, Signal::Metrics),
            Self::Bodymap => matches!(signal, Signal::Logs),
        }
    }

    /// What stands behind the dataset in a data stream's name.
    pub(super) const fn dataset_suffix(self) -> &'static str {
        if matches!(self, Self::Otel) { ".otel" } else { "" }
    }
}

/// What documents are made by.
pub(super) struct Making<'s> {
    pub(super) targets: &'s Targets,
    /// Where neither scope nor request say another.
    pub(super) mode: Mode,
    /// Those that a scope or a request may choose.
    pub(super) allowed: &'s [Mode],
    pub(super) create: &'static str,
    /// `elasticsearch.document_id` is the id.
    pub(super) dynamic_id: bool,
    /// `elasticsearch.ingest_pipeline` is the pipeline.
    pub(super) dynamic_pipeline: bool,
    /// The server knows `require_data_stream` and `dynamic_templates` in an action, and has the templates of the `otel` mapping.
    pub(super) native_otel: bool,
    pub(super) bytes_max: usize,
    /// What the ids of each part begin with; empty: the backend chooses.
    pub(super) ids: Vec<PartId>,
    /// Now, for what has no time of its own.
    pub(super) now: u64,
}

/// What names the items of one part.
#[derive(Debug, Clone, Default)]
pub(super) struct PartId {
    /// Journal, consumer, shard and offset.
    pub(super) prefix: String,
    /// The items' numbers in their record.
    pub(super) items: Items,
    /// Every document gets an id; otherwise only those of items that become several documents, which could not be sent again otherwise without
    /// those that were taken.
    pub(super) always: bool,
}

/// Fields that documents of one scope share, written once.
#[derive(Default)]
struct Scratch {
    resource: Vec<u8>,
    scope: Vec<u8>,
    index: Vec<u8>,
}

/// Where an item stands.
#[derive(Clone, Copy)]
struct Around<'a> {
    signal: Signal,
    mode: Mode,
    resource: ResourceView<'a>,
    scope: ScopeView<'a>,
    routes: Routes<'a>,
}

/// The documents of a request.
pub(super) fn encode(making: &Making<'_>, request: &Request) -> Encoded {
    let mut encoder =
        Encoder { making, out: Collector::new(making.bytes_max), item: 0, scratch: Scratch::default(), part: PartId::default() };
    for (at, batch) in request.parts.iter().enumerate() {
        encoder.part = making.ids.get(at).cloned().unwrap_or_default();
        let first = encoder.item;
        let mode = making.of_request(batch);
        match request.signal {
            Signal::Logs => encoder.logs(batch, mode),
            Signal::Traces => encoder.traces(batch, mode),
            Signal::Metrics => encoder.metrics(batch, mode),
        }
        encoder.item = first + batch.items;
    }
    encoder.out.finish()
}

impl Making<'_> {
    fn of_request(&self, batch: &Batch) -> Mode {
        let asked = batch.context.metadata("x-elastic-mapping-mode").first().and_then(|mode| Mode::parse(mode));
        asked.filter(|mode| self.allowed.contains(mode)).unwrap_or(self.mode)
    }

    fn of_scope(&self, scope: ScopeView<'_>, request: Mode) -> Mode {
        if scope.attributes.is_empty() {
            return request;
        }
        let asked = scope.attributes.string("elastic.mapping.mode").and_then(Mode::parse);
        asked.filter(|mode| self.allowed.contains(mode)).unwrap_or(request)
    }
}

struct Encoder<'m, 's> {
    making: &'m Making<'s>,
    out: Collector,
    /// The number of the next item.
    item: u64,
    scratch: Scratch,
    part: PartId,
}

/// Which of an item's documents an action line is for.
#[derive(Clone, Copy)]
struct Naming {
    /// Its item's number in the record.
    number: u64,
    /// 0 for the item's own, from 1 on for its events.
    document: usize,
    /// The item becomes several.
    of_several: bool,
}

impl Encoder<'_, '_> {
    fn logs(&mut self, batch: &Batch, mode: Mode) {
        let mut flat = Flat::default();
        let numbers = self.part.items.clone();
        let mut numbers = numbers.numbers();
        for resource_logs in LogsView::new(&batch.payload).resources() {
            let resource = resource_logs.resource();
            let outer = Routes::of(resource.attributes);
            for scope_logs in resource_logs.scopes() {
                let scope = scope_logs.scope();
                let around = self.around(Signal::Logs, mode, resource, scope, outer);
                self.share(around, resource_logs.schema_url(), scope_logs.schema_url());
                for record in scope_logs.items() {
                    let naming = Naming { number: numbers.next().unwrap_or(self.item), document: 0, of_several: false };
                    self.log(around, &record, naming, &mut flat);
                    self.item += 1;
                }
            }
        }
    }

    fn log<'a>(&mut self, around: Around<'a>, record: &LogRecordView<'a>, naming: Naming, flat: &mut Flat<'a>) {
        if !around.mode.takes(Signal::Logs) {
            return self.untaken(around);
        }
        let routes = Routes::of(record.attributes).or(around.routes);
        let time =
            [record.time_unix_nanos, record.observed_unix_nanos].into_iter().find(|time| *time != 0).unwrap_or(self.making.now);
        let stream = self.action(around, routes, time, record.attributes, naming, &[]);
        let surroundings = (around.resource, around.scope);
        flat.clear();
        let out = &mut self.out.body;
        match around.mode {
            Mode::Otel => otel::log(record, time, data_stream("logs", stream, &self.scratch.index), &self.scratch, out),
            Mode::Ecs => {
                ecs::log(surroundings, record, time, flat);
                with_stream("logs", stream, &self.scratch.index, flat, out);
            }
            Mode::None | Mode::Raw => {
                let prefixes = if around.mode == Mode::Raw { none::RAW } else { none::NONE };
                none::log(prefixes, surroundings, record, time, flat);
                flat.write(out);
            }
            Mode::Ss4o => ss4o::log(surroundings, record, time, out),
            Mode::Bodymap if !matches!(record.body(), AnyValueView::KeyValues(_)) => {
                self.out.discard();
                self.out.refuse(self.item, "the body is no map, and the mapping `bodymap` stores nothing else");
                return;
            }
            Mode::Bodymap => json::any(record.body(), out),
        }
        self.out.body.push(b'\n');
        self.out.document([self.item]);
    }

    fn traces(&mut self, batch: &Batch, mode: Mode) {
        let mut flat = Flat::default();
        let numbers = self.part.items.clone();
        let mut numbers = numbers.numbers();
        for resource_spans in TracesView::new(&batch.payload).resources() {
            let resource = resource_spans.resource();
            let outer = Routes::of(resource.attributes);
            for scope_spans in resource_spans.scopes() {
                let scope = scope_spans.scope();
                let around = self.around(Signal::Traces, mode, resource, scope, outer);
                self.share(around, resource_spans.schema_url(), scope_spans.schema_url());
                for span in scope_spans.items() {
                    let number = numbers.next().unwrap_or(self.item);
                    self.span(around, &span, number, &mut flat);
                    self.item += 1;
                }
            }
        }
    }

    fn span<'a>(&mut self, around: Around<'a>, span: &SpanView<'a>, number: u64, flat: &mut Flat<'a>) {
        if !around.mode.takes(Signal::Traces) {
            return self.untaken(around);
        }
        let of_several = around.mode == Mode::Otel && span.events().next().is_some();
        let naming = Naming { number, document: 0, of_several };
        let routes = Routes::of(span.attributes).or(around.routes);
        let stream = self.action(around, routes, span.start_unix_nanos, span.attributes, naming, &[]);
        let surroundings = (around.resource, around.scope);
        flat.clear();
        let out = &mut self.out.body;
        match around.mode {
            Mode::Ecs => {
                ecs::span(surroundings, span, flat);
                with_stream("traces", stream, &self.scratch.index, flat, out);
            }
            Mode::None | Mode::Raw => {
                none::span(if around.mode == Mode::Raw { none::RAW } else { none::NONE }, surroundings, span, flat);
                flat.write(out);
            }
            Mode::Ss4o => ss4o::span(surroundings, span, out),
            _ => otel::span(span, data_stream("traces", stream, &self.scratch.index), &self.scratch, out),
        }
        self.out.body.push(b'\n');
        self.out.document([self.item]);
        if !of_several {
            return;
        }
        for (at, event) in span.events().enumerate() {
            let naming = Naming { document: at + 1, ..naming };
            let routes = Routes { id: None, ..Routes::of(event.attributes).or(routes) };
            let around = Around { signal: Signal::Logs, ..around };
            let stream = self.action(around, routes, event.time_unix_nanos, event.attributes, naming, &[]);
            otel::event(span, &event, data_stream("logs", stream, &self.scratch.index), &self.scratch, &mut self.out.body);
            self.out.body.push(b'\n');
            self.out.document([self.item]);
        }
    }

    fn metrics(&mut self, batch: &Batch, mode: Mode) {
        let numbers: Vec<u64> = self.part.items.numbers().collect();
        let first = self.item;
        for resource_metrics in MetricsView::new(&batch.payload).resources() {
            let resource = resource_metrics.resource();
            let outer = Routes::of(resource.attributes);
            for scope_metrics in resource_metrics.scopes() {
                let scope = scope_metrics.scope();
                let around = self.around(Signal::Metrics, mode, resource, scope, outer);
                self.share(around, resource_metrics.schema_url(), scope_metrics.schema_url());
                let mut all: Vec<Point<'_>> = Vec::new();
                for metric in scope_metrics.items() {
                    let out = &mut self.out;
                    self.item = points(metric, self.item, |item, read| match read {
                        _ if !around.mode.takes(Signal::Metrics) => out.refuse(item, untaken(around)),
                        Ok(Some(point)) => all.push(point),
                        Ok(None) => {}
                        Err(why) => out.refuse(item, why),
                    });
                }
                let mut flat = Flat::default();
                for group in groups(&all, around.mode == Mode::Otel) {
                    let Some(first_point) = group.first() else { continue };
                    let place = usize::try_from(first_point.item - first).unwrap_or(usize::MAX);
                    let number = numbers.get(place).copied().unwrap_or(first_point.item);
                    let naming = Naming { number, document: 0, of_several: false };
                    let attributes = first_point.view.attributes();
                    let routes = Routes::of(attributes).or(around.routes);
                    let stream = self.action(around, routes, first_point.time(), attributes, naming, &group);
                    let out = &mut self.out.body;
                    flat.clear();
                    if around.mode == Mode::Ecs {
                        ecs::metrics((resource, scope), &group, &mut flat);
                        with_stream("metrics", stream, &self.scratch.index, &mut flat, out);
                    } else {
                        metrics::otel(&group, data_stream("metrics", stream, &self.scratch.index), &self.scratch, out);
                    }
                    self.out.body.push(b'\n');
                    self.out.document(group.iter().map(|point| point.item));
                }
            }
        }
    }

    fn around<'a>(
        &self,
        signal: Signal,
        mode: Mode,
        resource: ResourceView<'a>,
        scope: ScopeView<'a>,
        outer: Routes<'a>,
    ) -> Around<'a> {
        let mode = self.making.of_scope(scope, mode);
        Around { signal, mode, resource, scope, routes: Routes::of(scope.attributes).or(outer) }
    }

    /// Writes what the documents of a scope share.
    fn share(&mut self, around: Around<'_>, resource_schema: &str, scope_schema: &str) {
        let Scratch { resource, scope, .. } = &mut self.scratch;
        resource.clear();
        scope.clear();
        if around.mode == Mode::Otel {
            otel::resource(around.resource, resource_schema, resource);
            otel::scope(around.scope, scope_schema, scope);
        }
    }

    fn untaken(&mut self, around: Around<'_>) {
        self.out.refuse(self.item, untaken(around));
    }

    /// Writes the action line; the name of the target stays in the scratch, and where its parts lie comes back if it is a data stream.
    fn action<'a>(
        &mut self,
        around: Around<'a>,
        routes: Routes<'_>,
        time: u64,
        attributes: AttributesView<'a>,
        naming: Naming,
        points: &[Point<'_>],
    ) -> Option<Stream> {
        let Self { making, scratch, out, part, .. } = self;
        let subject = Subject {
            signal: around.signal,
            routes,
            scope_name: around.scope.name,
            unix_nanos: time,
            dataset_suffix: around.mode.dataset_suffix(),
        };
        // Of the item, then its scope, then its resource.
        let value = |key: &str| {
            let of = [attributes, around.scope.attributes, around.resource.attributes];
            of.into_iter().find_map(|attributes| attributes.string(key))
        };
        scratch.index.clear();
        let stream = making.targets.write(&subject, value, &mut scratch.index);
        let out = &mut out.body;
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(making.create.as_bytes());
        out.extend_from_slice(b"\":{\"_index\":");
        string(&scratch.index, out);
        if let Some(id) = routes.id.filter(|_| making.dynamic_id && naming.document == 0) {
            out.extend_from_slice(b",\"_id\":");
            // Longer ones are refused.
            string(id.get(..id.floor_char_boundary(512)).unwrap_or(id).as_bytes(), out);
        } else if !part.prefix.is_empty() && (part.always || naming.of_several) {
            out.extend_from_slice(b",\"_id\":\"");
            out.extend_from_slice(part.prefix.as_bytes());
            out.push(b'-');
            decimal(naming.number, out);
            if naming.document > 0 {
                out.push(b'.');
                decimal(naming.document, out);
            }
            out.push(b'"');
        }
        if let Some(pipeline) = routes.pipeline.filter(|_| making.dynamic_pipeline) {
            out.extend_from_slice(b",\"pipeline\":");
            string(pipeline.as_bytes(), out);
        }
        if making.native_otel && around.mode == Mode::Otel && stream.is_some() {
            out.extend_from_slice(b",\"require_data_stream\":true");
            if !points.is_empty() {
                out.extend_from_slice(b",\"dynamic_templates\":{");
                for (at, point) in points.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(b"\"metrics.");
                    crate::otlp::json::scalar::escape(json::tidy(point.metric.name).as_bytes(), out);
                    out.extend_from_slice(b"\":\"");
                    out.extend_from_slice(point.template().as_bytes());
                    out.push(b'"');
                }
                out.push(b'}');
            }
        }
        out.extend_from_slice(b"}}\n");
        stream
    }
}

fn untaken(around: Around<'_>) -> String {
    format!("the mapping `{}` has no documents for {}", around.mode.as_str(), around.signal)
}

fn data_stream<'a>(kind: &'a str, stream: Option<Stream>, index: &'a [u8]) -> Option<DataStream<'a>> {
    let Stream { dataset, namespace } = stream?;
    Some(DataStream { kind, dataset: index.get(dataset.0..dataset.1)?, namespace: index.get(namespace.0..namespace.1)? })
}

/// Writes a document whose data stream is a part of it.
fn with_stream(kind: &str, stream: Option<Stream>, index: &[u8], flat: &mut Flat<'_>, out: &mut Vec<u8>) {
    if let Some(DataStream { kind, dataset, namespace }) = data_stream(kind, stream, index) {
        flat.written("data_stream.type", |out| string(kind.as_bytes(), out));
        flat.written("data_stream.dataset", |out| string(dataset, out));
        flat.written("data_stream.namespace", |out| string(namespace, out));
    }
    flat.write_nested(out);
}
