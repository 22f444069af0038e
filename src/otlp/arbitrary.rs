//! Requests for property tests, drawn from a seed: every field of every message, in the proportions that find mistakes.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric, number_data_point, summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};
use prost::Message as _;

use crate::{
    otlp::{
        rewrite::Parts,
        schema::{Kind, Message as Schema, request},
        wire::{put_bytes_always, put_tag},
    },
    signal::Signal,
};

/// A small generator of numbers; the same seed gives the same requests.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// Small numbers mostly, and the ends of the range.
    fn number(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => self.next() & 0x7f,
            2 => self.next() & 0xffff,
            3 => self.next(),
            _ => u64::MAX,
        }
    }

    fn double(&mut self) -> f64 {
        match self.below(5) {
            0 => 0.0,
            1 => f64::NAN,
            2 => f64::NEG_INFINITY,
            3 => self.next() as f64 / 1e9,
            _ => f64::from_bits(self.next()),
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn text(&mut self) -> String {
        let len = match self.below(8) {
            0 => 0,
            1 => self.below(200),
            2 => 126 + self.below(8),
            _ => self.below(40),
        };
        let letters: &[char] =
            if self.one_in(6) { &['ß', 'é', '中', '😀', 'a', ' '] } else { &['a', 'b', '.', 'z', '_', '9'] };
        (0..len).map(|_| letters[self.below(letters.len())]).collect()
    }

    fn many<T>(&mut self, bound: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(bound)).map(|_| one(self)).collect()
    }

    fn trace_id(&mut self) -> Vec<u8> {
        self.bytes(16)
    }

    fn span_id(&mut self) -> Vec<u8> {
        self.bytes(8)
    }

    fn trace_id_or_none(&mut self) -> Vec<u8> {
        if self.one_in(3) { Vec::new() } else { self.trace_id() }
    }

    fn span_id_or_none(&mut self) -> Vec<u8> {
        if self.one_in(3) { Vec::new() } else { self.span_id() }
    }

    fn value(&mut self, depth: usize) -> AnyValue {
        let value = match self.below(if depth > 0 { 14 } else { 10 }) {
            0 => None,
            1..=4 => Some(any_value::Value::StringValue(self.text())),
            5 => Some(any_value::Value::BoolValue(self.one_in(2))),
            6 | 7 => Some(any_value::Value::IntValue(self.number() as i64)),
            8 => Some(any_value::Value::DoubleValue(self.double())),
            9 => {
                let len = self.below(20);
                Some(any_value::Value::BytesValue(self.bytes(len)))
            }
            10 | 11 => Some(any_value::Value::ArrayValue(ArrayValue { values: self.many(4, |draw| draw.value(depth - 1)) })),
            _ => Some(any_value::Value::KvlistValue(KeyValueList { values: self.many(4, |draw| draw.attribute(depth - 1)) })),
        };
        AnyValue { value }
    }

    fn attribute(&mut self, depth: usize) -> KeyValue {
        let value = if self.one_in(12) { None } else { Some(self.value(depth)) };
        KeyValue { key: self.text(), value, key_strindex: 0 }
    }

    fn attributes(&mut self) -> Vec<KeyValue> {
        self.many(6, |draw| draw.attribute(3))
    }

    fn resource(&mut self) -> Option<Resource> {
        (!self.one_in(5)).then(|| Resource {
            attributes: self.attributes(),
            dropped_attributes_count: self.number() as u32,
            entity_refs: self.many(3, |draw| EntityRef {
                schema_url: draw.text(),
                r#type: draw.text(),
                id_keys: draw.many(3, Self::text),
                description_keys: draw.many(3, Self::text),
            }),
        })
    }

    fn scope(&mut self) -> Option<InstrumentationScope> {
        (!self.one_in(5)).then(|| InstrumentationScope {
            name: self.text(),
            version: self.text(),
            attributes: self.attributes(),
            dropped_attributes_count: self.number() as u32,
        })
    }

    pub(crate) fn span(&mut self) -> Span {
        Span {
            trace_id: self.trace_id(),
            span_id: self.span_id(),
            trace_state: self.text(),
            parent_span_id: self.span_id_or_none(),
            flags: self.number() as u32,
            name: self.text(),
            kind: self.below(8) as i32 - 1,
            start_time_unix_nano: self.number(),
            end_time_unix_nano: self.number(),
            attributes: self.attributes(),
            dropped_attributes_count: self.number() as u32,
            events: self.many(3, |draw| span::Event {
                time_unix_nano: draw.number(),
                name: draw.text(),
                attributes: draw.attributes(),
                dropped_attributes_count: draw.number() as u32,
            }),
            dropped_events_count: self.number() as u32,
            links: self.many(3, |draw| span::Link {
                trace_id: draw.trace_id_or_none(),
                span_id: draw.span_id_or_none(),
                trace_state: draw.text(),
                attributes: draw.attributes(),
                dropped_attributes_count: draw.number() as u32,
                flags: draw.number() as u32,
            }),
            dropped_links_count: self.number() as u32,
            status: (!self.one_in(3)).then(|| Status { message: self.text(), code: self.below(5) as i32 - 1 }),
        }
    }

    fn log_record(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.number(),
            observed_time_unix_nano: self.number(),
            severity_number: self.below(26) as i32,
            severity_text: self.text(),
            body: (!self.one_in(4)).then(|| self.value(4)),
            attributes: self.attributes(),
            dropped_attributes_count: self.number() as u32,
            flags: self.number() as u32,
            trace_id: self.trace_id_or_none(),
            span_id: self.span_id_or_none(),
            event_name: self.text(),
        }
    }

    fn exemplar(&mut self) -> Exemplar {
        Exemplar {
            filtered_attributes: self.attributes(),
            time_unix_nano: self.number(),
            span_id: self.span_id_or_none(),
            trace_id: self.trace_id_or_none(),
            value: match self.below(3) {
                0 => None,
                1 => Some(exemplar::Value::AsDouble(self.double())),
                _ => Some(exemplar::Value::AsInt(self.number() as i64)),
            },
        }
    }

    fn number_point(&mut self) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            exemplars: self.many(3, Self::exemplar),
            flags: self.number() as u32,
            value: match self.below(3) {
                0 => None,
                1 => Some(number_data_point::Value::AsDouble(self.double())),
                _ => Some(number_data_point::Value::AsInt(self.number() as i64)),
            },
        }
    }

    fn perhaps(&mut self) -> Option<f64> {
        (!self.one_in(3)).then(|| self.double())
    }

    fn histogram_point(&mut self) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.perhaps(),
            bucket_counts: self.many(6, Self::number),
            explicit_bounds: self.many(6, Self::double),
            exemplars: self.many(3, Self::exemplar),
            flags: self.number() as u32,
            min: self.perhaps(),
            max: self.perhaps(),
        }
    }

    fn buckets(&mut self) -> Option<Buckets> {
        (!self.one_in(3)).then(|| Buckets { offset: self.number() as i32, bucket_counts: self.many(6, Self::number) })
    }

    fn exponential_point(&mut self) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.perhaps(),
            scale: self.number() as i32,
            zero_count: self.number(),
            positive: self.buckets(),
            negative: self.buckets(),
            flags: self.number() as u32,
            exemplars: self.many(3, Self::exemplar),
            min: self.perhaps(),
            max: self.perhaps(),
            zero_threshold: self.double(),
        }
    }

    fn summary_point(&mut self) -> SummaryDataPoint {
        SummaryDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.double(),
            quantile_values: self.many(4, |draw| ValueAtQuantile { quantile: draw.double(), value: draw.double() }),
            flags: self.number() as u32,
        }
    }

    fn metric(&mut self) -> Metric {
        let aggregation_temporality = self.below(4) as i32;
        let data = match self.below(6) {
            0 => None,
            1 => Some(metric::Data::Gauge(Gauge { data_points: self.many(4, Self::number_point) })),
            2 => Some(metric::Data::Sum(Sum {
                data_points: self.many(4, Self::number_point),
                aggregation_temporality,
                is_monotonic: self.one_in(2),
            })),
            3 => Some(metric::Data::Histogram(Histogram {
                data_points: self.many(4, Self::histogram_point),
                aggregation_temporality,
            })),
            4 => Some(metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.many(4, Self::exponential_point),
                aggregation_temporality,
            })),
            _ => Some(metric::Data::Summary(Summary { data_points: self.many(4, Self::summary_point) })),
        };
        Metric { name: self.text(), description: self.text(), unit: self.text(), metadata: self.attributes(), data }
    }

    /// A request that a correct sender could have sent, encoded by prost.
    pub(crate) fn request(&mut self, signal: Signal) -> Vec<u8> {
        match signal {
            Signal::Traces => ExportTraceServiceRequest {
                resource_spans: self.many(4, |draw| ResourceSpans {
                    resource: draw.resource(),
                    schema_url: draw.text(),
                    scope_spans: draw.many(4, |draw| ScopeSpans {
                        scope: draw.scope(),
                        schema_url: draw.text(),
                        spans: draw.many(5, Self::span),
                    }),
                }),
            }
            .encode_to_vec(),
            Signal::Metrics => ExportMetricsServiceRequest {
                resource_metrics: self.many(4, |draw| ResourceMetrics {
                    resource: draw.resource(),
                    schema_url: draw.text(),
                    scope_metrics: draw.many(4, |draw| ScopeMetrics {
                        scope: draw.scope(),
                        schema_url: draw.text(),
                        metrics: draw.many(5, Self::metric),
                    }),
                }),
            }
            .encode_to_vec(),
            Signal::Logs => ExportLogsServiceRequest {
                resource_logs: self.many(4, |draw| ResourceLogs {
                    resource: draw.resource(),
                    schema_url: draw.text(),
                    scope_logs: draw.many(4, |draw| ScopeLogs {
                        scope: draw.scope(),
                        schema_url: draw.text(),
                        log_records: draw.many(5, Self::log_record),
                    }),
                }),
            }
            .encode_to_vec(),
        }
    }
}

/// What [`Draw::harm`] does to a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Harm {
    /// Joins the bodies of messages of one type, so that sub-messages and members of oneofs come more than once.
    pub(crate) merge: bool,
    /// Gives some ids a wrong length.
    pub(crate) ids: bool,
    /// Puts these bytes into some strings.
    pub(crate) text: Option<&'static [u8]>,
    /// Adds fields that no message has.
    pub(crate) unknown: bool,
}

impl Draw {
    /// Damages a request here and there in ways that protobuf allows.
    pub(crate) fn harm(&mut self, signal: Signal, payload: &[u8], harm: Harm) -> Vec<u8> {
        let mut pool = Vec::new();
        collect(request(signal), payload, &mut pool);
        self.harmed(request(signal), payload, &pool, harm)
    }

    fn harmed(&mut self, schema: &'static Schema, bytes: &[u8], pool: &[(&'static Schema, Vec<u8>)], harm: Harm) -> Vec<u8> {
        let mut out = Vec::new();
        for part in Parts::new(bytes, 0, bytes.len()) {
            let value = part.value(bytes);
            if harm.unknown && self.one_in(20) {
                put_bytes_always(&mut out, 3_000, b"\xff new");
            }
            match schema.field(part.number).kind {
                Kind::Message(inner) => {
                    let mut value = self.harmed(inner, value, pool, harm);
                    if harm.merge && self.one_in(6) {
                        let alike: Vec<_> = pool.iter().filter(|(schema, _)| std::ptr::eq(*schema, inner)).collect();
                        value.extend_from_slice(&alike[self.below(alike.len())].1);
                    }
                    put_bytes_always(&mut out, part.number, &value);
                }
                Kind::TraceId | Kind::SpanId if harm.ids && self.one_in(8) => {
                    let len = self.below(20);
                    put_tag(&mut out, part.number, 2);
                    out.push(len as u8);
                    out.extend(self.bytes(len));
                }
                Kind::String if harm.text.is_some() && self.one_in(8) => {
                    let text = std::str::from_utf8(value).unwrap();
                    let at = text.floor_char_boundary(self.below(text.len() + 1));
                    let value = [&value[..at], harm.text.unwrap_or_default(), &value[at..]].concat();
                    put_bytes_always(&mut out, part.number, &value);
                }
                _ => out.extend_from_slice(&bytes[part.key..part.end]),
            }
        }
        out
    }
}

/// All sub-messages by type.
fn collect(schema: &'static Schema, bytes: &[u8], pool: &mut Vec<(&'static Schema, Vec<u8>)>) {
    for part in Parts::new(bytes, 0, bytes.len()) {
        if let Kind::Message(inner) = schema.field(part.number).kind {
            pool.push((inner, part.value(bytes).to_vec()));
            collect(inner, part.value(bytes), pool);
        }
    }
}
