//! Protobuf, delimited: the only format with native histograms in it.
//!
//! Spec: `io.prometheus.client.MetricFamily`, each message after its length as a varint. A family's length stands before it, so a family
//! larger than a chunk is sent as several messages of one name; scrapers read each as it comes.

use super::{
    Bucket, Exemplar, Family, FamilyKind, LabelBlock, NativeHistogram, Span,
    gate::{Gate, Sample},
    numbers::millis,
    page::PageWriter,
    sink::{CHUNK, Gone, Sink},
    text::for_each_label,
};
use crate::otlp::wire::{put_bytes, put_bytes_always, put_double_always, put_message, put_uint, put_uint_always, put_varint};

pub(crate) struct ProtobufPage<'a> {
    sink: Sink<'a>,
    gate: Gate<'a>,
    kind: FamilyKind,
    /// Name, help, type and unit of the family.
    head: Vec<u8>,
    /// Its metrics since the last message.
    body: Vec<u8>,
}

impl<'a> ProtobufPage<'a> {
    pub(crate) fn new(sink: Sink<'a>, gate: Gate<'a>) -> Self {
        Self { sink, gate, kind: FamilyKind::Unknown, head: Vec::new(), body: Vec::new() }
    }

    /// Sends what was collected of the family.
    fn close(&mut self) {
        if !self.body.is_empty() {
            put_varint(&mut self.sink.buffer, (self.head.len() + self.body.len()) as u64);
            self.sink.buffer.extend_from_slice(&self.head);
            self.sink.buffer.append(&mut self.body);
            self.sink.settle();
        }
    }

    fn metric(&mut self, labels: &LabelBlock, time: Option<u64>, value: impl FnOnce(&mut Vec<u8>)) {
        put_message(&mut self.body, 4, |out| {
            for (name, text) in labels.pairs() {
                put_label(out, &name, &text);
            }
            value(out);
            if let Some(time) = time {
                put_uint_always(out, 6, millis(time));
            }
        });
        if self.body.len() >= CHUNK {
            self.close();
        }
    }
}

impl PageWriter for ProtobufPage<'_> {
    fn is_gone(&self) -> bool {
        self.sink.is_gone()
    }

    fn begin(&mut self, family: &Family, name: &str, _stripped: bool, shared: bool) {
        self.close();
        self.gate.begin(name, family.kind, shared);
        self.kind = family.kind;
        self.head.clear();
        put_bytes(&mut self.head, 1, name.as_bytes());
        put_bytes(&mut self.head, 2, family.help.as_bytes());
        let kind = match family.kind {
            FamilyKind::Counter => 0,
            FamilyKind::Gauge | FamilyKind::Info => 1,
            FamilyKind::Summary => 2,
            FamilyKind::Unknown => 3,
            FamilyKind::Histogram => 4,
        };
        put_uint_always(&mut self.head, 3, kind);
        put_bytes(&mut self.head, 5, family.unit.as_bytes());
    }

    fn number(&mut self, labels: &LabelBlock, value: f64, start: u64, exemplar: Option<&Exemplar>, time: Option<u64>) {
        let Some(labels) = self.gate.admit(labels, Sample::Number) else { return };
        let kind = self.kind;
        self.metric(&labels, time, |out| match kind {
            FamilyKind::Counter => put_message(out, 3, |out| {
                put_double_always(out, 1, value);
                if let Some(exemplar) = exemplar {
                    put_message(out, 2, |out| put_exemplar(out, exemplar));
                }
                put_timestamp(out, 3, start);
            }),
            FamilyKind::Unknown => put_message(out, 5, |out| put_double_always(out, 1, value)),
            _ => put_message(out, 2, |out| put_double_always(out, 1, value)),
        });
    }

    fn histogram(
        &mut self,
        labels: &LabelBlock,
        sum: Option<f64>,
        count: f64,
        start: u64,
        buckets: &[Bucket<'_>],
        native: Option<&NativeHistogram>,
        time: Option<u64>,
    ) {
        let Some(labels) = self.gate.admit(labels, Sample::Histogram) else { return };
        self.metric(&labels, time, |out| {
            put_message(out, 7, |out| {
                // One histogram is of whole numbers or of fractions as a whole: readers look at one field to know.
                let whole = is_whole(count)
                    && buckets.iter().all(|bucket| is_whole(bucket.cumulative))
                    && native.is_none_or(is_whole_native);
                put_count(out, 1, 4, count, whole);
                put_double_always(out, 2, sum.unwrap_or(0.0));
                for bucket in buckets {
                    // Readers add +Inf by themselves.
                    if bucket.upper_bound == f64::INFINITY && bucket.exemplar.is_none() {
                        continue;
                    }
                    put_message(out, 3, |out| {
                        put_count(out, 1, 4, bucket.cumulative, whole);
                        put_double_always(out, 2, bucket.upper_bound);
                        if let Some(exemplar) = bucket.exemplar {
                            put_message(out, 3, |out| put_exemplar(out, exemplar));
                        }
                    });
                }
                if let Some(native) = native {
                    put_native(out, native, whole);
                }
                put_timestamp(out, 15, start);
                for exemplar in native.iter().flat_map(|native| &native.exemplars).filter(|exemplar| exemplar.unix_nanos != 0) {
                    put_message(out, 16, |out| put_exemplar(out, exemplar));
                }
            });
        });
    }

    fn summary(&mut self, labels: &LabelBlock, sum: f64, count: f64, start: u64, quantiles: &[(f64, f64)], time: Option<u64>) {
        let Some(labels) = self.gate.admit(labels, Sample::Summary) else { return };
        self.metric(&labels, time, |out| {
            put_message(out, 4, |out| {
                put_uint_always(out, 1, count.max(0.0) as u64);
                put_double_always(out, 2, sum);
                for (quantile, value) in quantiles {
                    put_message(out, 3, |out| {
                        put_double_always(out, 1, *quantile);
                        put_double_always(out, 2, *value);
                    });
                }
                put_timestamp(out, 4, start);
            });
        });
    }

    fn finish(mut self: Box<Self>) -> Result<(), Gone> {
        self.close();
        self.sink.finish()
    }
}

fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    put_message(out, 1, |out| {
        put_bytes_always(out, 1, name.as_bytes());
        put_bytes_always(out, 2, value.as_bytes());
    });
}

fn is_whole(count: f64) -> bool {
    count >= 0.0 && count.fract() == 0.0 && count < 9_007_199_254_740_992.0
}

fn is_whole_native(native: &NativeHistogram) -> bool {
    is_whole(native.zero_count) && native.positive_counts.iter().chain(&native.negative_counts).all(|count| is_whole(*count))
}

/// A count has a field for whole numbers and one for fractions.
fn put_count(out: &mut Vec<u8>, field: u32, float_field: u32, count: f64, whole: bool) {
    if whole {
        put_uint_always(out, field, count as u64);
    } else {
        put_double_always(out, float_field, count);
    }
}

fn put_native(out: &mut Vec<u8>, native: &NativeHistogram, whole: bool) {
    put_uint_always(out, 5, zigzag(i64::from(native.schema)));
    put_double_always(out, 6, native.zero_threshold);
    put_count(out, 7, 8, native.zero_count, whole);
    put_side(out, [9, 10, 11], &native.negative_spans, &native.negative_counts, whole);
    put_side(out, [12, 13, 14], &native.positive_spans, &native.positive_counts, whole);
    if native.positive_spans.is_empty() && native.negative_spans.is_empty() {
        // Without any span an empty native histogram would be taken for a classic one.
        put_span(out, 12, Span { offset: 0, length: 0 });
    }
}

/// Spans, then differences from bucket to bucket for whole numbers, or the counts themselves.
fn put_side(out: &mut Vec<u8>, fields: [u32; 3], spans: &[Span], counts: &[f64], whole: bool) {
    let [span_field, delta_field, count_field] = fields;
    for span in spans {
        put_span(out, span_field, *span);
    }
    if counts.is_empty() {
        return;
    }
    if whole {
        put_message(out, delta_field, |out| {
            let mut before = 0;
            for count in counts {
                let count = *count as i64;
                put_varint(out, zigzag(count - before));
                before = count;
            }
        });
    } else {
        put_message(out, count_field, |out| {
            for count in counts {
                out.extend_from_slice(&count.to_le_bytes());
            }
        });
    }
}

fn put_span(out: &mut Vec<u8>, field: u32, span: Span) {
    put_message(out, field, |out| {
        put_uint_always(out, 1, zigzag(i64::from(span.offset)));
        put_uint_always(out, 2, u64::from(span.length));
    });
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    for_each_label(exemplar, |name, value| put_label(out, name, value));
    put_double_always(out, 2, exemplar.value);
    put_timestamp(out, 3, exemplar.unix_nanos);
}

/// `google.protobuf.Timestamp`; nothing for 0.
fn put_timestamp(out: &mut Vec<u8>, field: u32, unix_nanos: u64) {
    if unix_nanos != 0 {
        put_message(out, field, |out| {
            put_uint(out, 1, unix_nanos / 1_000_000_000);
            put_uint(out, 2, unix_nanos % 1_000_000_000);
        });
    }
}
