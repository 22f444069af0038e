//! A connector without a pipeline, a page as a map, and spans made by hand.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message;

use super::super::{Config, Settings};
use crate::{
    component::{BuildContext, Connector, ConnectorConfig, ConnectorUse, Derived, Extensions, Stateful},
    config::{Diagnostics, Input, Machine, Node, load},
    exposition::{Bucket, Exemplar, Family, Gone, LabelBlock, NativeHistogram, Page, PageSource, PageWriter},
    internal_telemetry::Telemetry,
    journal::{Position, Record, SourceId, TopicId},
    otlp::{ScanLimits, scan},
    runtime::{Clock, Health},
    signal::{Batch, ComponentId, Context, Signal, SpanIndex, UnixNanos},
};

pub(super) const SECOND: u64 = 1_000_000_000;
/// When the first record of a test comes in.
pub(super) const T0: u64 = 1_700_000_000 * SECOND;

pub(super) struct Bench {
    pub(super) connector: Box<dyn Connector>,
    pub(super) page: Option<Arc<dyn PageSource>>,
    pub(super) telemetry: Telemetry,
    with_index: bool,
}

pub(super) fn node(yaml: &str) -> Node {
    let loaded = load(&[Input::Text { name: "test.yaml".to_owned(), text: yaml.to_owned() }], &Machine);
    assert!(!loaded.found.has_errors(), "{:?}", loaded.found);
    loaded.node
}

pub(super) fn settings(yaml: &str) -> Settings {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(yaml), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    config.settings
}

impl Bench {
    pub(super) fn new(yaml: &str, renders: bool, derives: bool) -> Self {
        let telemetry = Telemetry::default();
        let context = BuildContext {
            notes: crate::component::Notes::default(),
            claims: crate::component::Claims::default(),
            sockets: Arc::default(),
            is_reload: false,
            id: ComponentId::parse("span_metrics").unwrap(),
            telemetry: telemetry.clone(),
            health: Arc::new(Health::default()),
            extensions: Arc::new(Extensions::default()),
            clock: Clock::new(|| UnixNanos(T0)),
        };
        let built = Config { settings: settings(yaml) }.build(context, ConnectorUse { derives, renders }).unwrap();
        Self { connector: built.connector, page: built.page, telemetry, with_index: true }
    }

    pub(super) fn rendering(yaml: &str) -> Self {
        Self::new(yaml, true, false)
    }

    pub(super) fn without_index(mut self) -> Self {
        self.with_index = false;
        self
    }

    pub(super) fn take(&mut self, request: &ExportTraceServiceRequest, received: u64) {
        let record = self.record(0, request, received);
        let mut out = Vec::new();
        self.connector.consume(&record, &mut out);
        assert!(out.is_empty());
    }

    /// Takes a record that a reader found at an offset.
    pub(super) fn take_from(&mut self, reader: &str, offset: u64, request: &ExportTraceServiceRequest, received: u64) {
        let record = self.record(offset, request, received);
        self.connector.consume_from(&Arc::from(reader), &record, &mut Vec::new());
    }

    pub(super) fn state(&self) -> Arc<dyn Stateful> {
        self.connector.state().unwrap()
    }

    fn record(&self, offset: u64, request: &ExportTraceServiceRequest, received: u64) -> Record {
        let payload = Bytes::from(request.encode_to_vec());
        let mut index = SpanIndex::default();
        let scanned = scan(Signal::Traces, &payload, &ScanLimits::default(), Some(&mut index)).unwrap();
        let batch = Batch {
            signal: Signal::Traces,
            payload,
            items: scanned.items,
            context: Arc::new(Context::default()),
            index: self.with_index.then(|| Arc::new(index)),
        };
        let position = Position { topic: TopicId(0), shard: 0, offset };
        Record { position, source: SourceId(0), received: UnixNanos(received), batch, derived_from: None }
    }

    pub(super) fn flush(&mut self, now: u64) -> ExportMetricsServiceRequest {
        let mut out: Vec<Derived> = Vec::new();
        self.connector.flush(UnixNanos(now), &mut out);
        read(out)
    }

    /// The last flush.
    pub(super) fn finish(&mut self, now: u64) -> ExportMetricsServiceRequest {
        let mut out: Vec<Derived> = Vec::new();
        self.connector.finish(UnixNanos(now), &mut out);
        read(out)
    }
    /// Series with their values, as a page of text 0.0.4 would show them.
    pub(super) fn scrape(&self) -> BTreeMap<String, f64> {
        self.scrape_all().values
    }

    pub(super) fn scrape_all(&self) -> Scrape {
        let source = self.page.as_ref().unwrap();
        let mut scrape = Scrape::default();
        for (number, family) in source.families().iter().enumerate() {
            scrape.family = family.name.to_string();
            source.render(number, &mut Page::new(&mut scrape));
        }
        scrape
    }

    /// The value of one of weir's own metrics.
    pub(super) fn own(&self, name: &str) -> f64 {
        let families = self.telemetry.registry().gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        family.get_metric().iter().map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }
}

/// Derived records, decoded.
pub(super) fn read(out: Vec<Derived>) -> ExportMetricsServiceRequest {
    let mut all = ExportMetricsServiceRequest::default();
    for derived in out {
        let scanned = scan(Signal::Metrics, &derived.batch.payload, &ScanLimits::default(), None).unwrap();
        assert_eq!(scanned.items, derived.batch.items, "data points are counted right");
        all.resource_metrics.extend(ExportMetricsServiceRequest::decode(derived.batch.payload).unwrap().resource_metrics);
    }
    all
}

#[derive(Default)]
pub(super) struct Scrape {
    family: String,
    pub(super) values: BTreeMap<String, f64>,
    pub(super) exemplars: BTreeMap<String, Exemplar>,
    pub(super) starts: BTreeMap<String, u64>,
    pub(super) natives: BTreeMap<String, NativeHistogram>,
}

impl Scrape {
    fn put(&mut self, name: &str, labels: &str, value: f64, exemplar: Option<&Exemplar>) {
        let series = format!("{name}{{{labels}}}");
        if let Some(exemplar) = exemplar {
            self.exemplars.insert(series.clone(), exemplar.clone());
        }
        assert_eq!(self.values.insert(series.clone(), value), None, "{series} is there once");
    }
}

impl PageWriter for Scrape {
    fn is_gone(&self) -> bool {
        false
    }

    fn begin(&mut self, _family: &Family, _name: &str, _stripped: bool, _shared: bool) {}

    fn finish(self: Box<Self>) -> Result<(), Gone> {
        Ok(())
    }

    fn number(&mut self, labels: &LabelBlock, value: f64, start: u64, exemplar: Option<&Exemplar>, _time: Option<u64>) {
        let family = self.family.clone();
        self.starts.insert(format!("{family}{{{}}}", labels.text()), start);
        self.put(&family, labels.text(), value, exemplar);
    }

    fn histogram(
        &mut self,
        labels: &LabelBlock,
        sum: Option<f64>,
        count: f64,
        start: u64,
        buckets: &[Bucket<'_>],
        native: Option<&NativeHistogram>,
        _time: Option<u64>,
    ) {
        let family = self.family.clone();
        self.starts.insert(format!("{family}{{{}}}", labels.text()), start);
        if let Some(native) = native {
            self.natives.insert(format!("{family}{{{}}}", labels.text()), native.clone());
        }
        self.put(&format!("{family}_sum"), labels.text(), sum.unwrap(), None);
        self.put(&format!("{family}_count"), labels.text(), count, None);
        let mut before = f64::NEG_INFINITY;
        for bucket in buckets {
            assert!(bucket.upper_bound > before, "bounds rise");
            before = bucket.upper_bound;
            let labels = format!("{},le=\"{}\"", labels.text(), bucket.upper_bound);
            self.put(&format!("{family}_bucket"), &labels, bucket.cumulative, bucket.exemplar);
        }
    }

    fn summary(&mut self, _: &LabelBlock, _: f64, _: f64, _: u64, _: &[(f64, f64)], _: Option<u64>) {
        unreachable!("span_metrics has no summaries");
    }
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// A span with ids, of kind SERVER, that took `millis`.
pub(super) fn span(name: &str, millis: u64) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: T0,
        end_time_unix_nano: T0 + millis * 1_000_000,
        status: Some(Status { code: 0, message: String::new() }),
        ..Span::default()
    }
}

pub(super) fn resource_spans(attributes: Vec<KeyValue>, spans: Vec<Span>) -> ResourceSpans {
    let scope = InstrumentationScope { name: "lib".to_owned(), version: "1".to_owned(), ..InstrumentationScope::default() };
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

/// A request of one service's spans.
pub(super) fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: vec![resource_spans(vec![text("service.name", service)], spans)] }
}
