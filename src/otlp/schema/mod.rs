//! The messages of OTLP 1.x that a request can hold, as tables: what the scan, the repair and error messages know about fields.
//!
//! `proto/` says the same in protobuf's own language; a test compares the two, field by field.

#[cfg(test)]
mod tests;

use crate::signal::Signal;

/// A message type.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: &'static str,
    /// Indexed by field number; no message of ours has a number above 16.
    fields: [Field; FIELDS],
    /// Spans, log records and data points: what is counted and may be left out alone.
    pub(crate) item: bool,
    /// An `AnyValue`: what the nesting limit counts.
    pub(crate) value: bool,
    /// A `KeyValue`: what most of a request's bytes are.
    pub(crate) attribute: bool,
}

const FIELDS: usize = 17;

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) label: Label,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Unknown,
    /// bool, enums and all integers that are not fixed.
    Varint,
    Fixed64,
    Fixed32,
    String,
    Bytes,
    /// Bytes that must be 16 or none.
    TraceId,
    /// Bytes that must be 8 or none.
    SpanId,
    Message(&'static Message),
    /// Repeated numbers, packed or one by one.
    Fixed64s,
    Varints,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// At most one; of several numbers or strings the last counts, of several messages the merged one.
    Singular,
    /// A member of the message's oneof: at most one of all the members.
    Oneof,
    Repeated,
}

const UNKNOWN: Field = Field { name: "", kind: Kind::Unknown, label: Label::Singular };

impl Message {
    const fn new(name: &'static str, list: &[(u32, Field)]) -> Self {
        let mut fields = [UNKNOWN; FIELDS];
        let mut rest = list;
        while let [(number, field), tail @ ..] = rest {
            let mut slots: &mut [Field] = &mut fields;
            let mut skip = *number;
            while let Some((first, others)) = slots.split_first_mut() {
                if skip == 0 {
                    *first = *field;
                    break;
                }
                skip -= 1;
                slots = others;
            }
            rest = tail;
        }
        Self { name, fields, item: false, value: false, attribute: false }
    }

    const fn item(self) -> Self {
        Self { item: true, ..self }
    }

    const fn value(self) -> Self {
        Self { value: true, ..self }
    }

    const fn attribute(self) -> Self {
        Self { attribute: true, ..self }
    }

    /// The field of this number; of kind `Unknown` when the message has none.
    #[inline(always)]
    pub(crate) fn field(&self, number: u32) -> &Field {
        self.fields.get(number as usize).unwrap_or(&UNKNOWN)
    }
}

const fn one(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, label: Label::Singular }
}

const fn either(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, label: Label::Oneof }
}

const fn many(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, label: Label::Repeated }
}

/// The request message of a signal's export service.
pub(crate) const fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &EXPORT_TRACES,
        Signal::Metrics => &EXPORT_METRICS,
        Signal::Logs => &EXPORT_LOGS,
    }
}

use Kind::{Bytes, Fixed32, Fixed64, Fixed64s, Message as Nested, SpanId, String, TraceId, Varint, Varints};

// === traces ===

static EXPORT_TRACES: Message =
    Message::new("ExportTraceServiceRequest", &[(1, many("resource_spans", Nested(&RESOURCE_SPANS)))]);

pub(crate) static RESOURCE_SPANS: Message = Message::new(
    "ResourceSpans",
    &[(1, one("resource", Nested(&RESOURCE))), (2, many("scope_spans", Nested(&SCOPE_SPANS))), (3, one("schema_url", String))],
);

pub(crate) static SCOPE_SPANS: Message = Message::new(
    "ScopeSpans",
    &[(1, one("scope", Nested(&SCOPE))), (2, many("spans", Nested(&SPAN))), (3, one("schema_url", String))],
);

pub(crate) static SPAN: Message = Message::new(
    "Span",
    &[
        (1, one("trace_id", TraceId)),
        (2, one("span_id", SpanId)),
        (3, one("trace_state", String)),
        (4, one("parent_span_id", SpanId)),
        (5, one("name", String)),
        (6, one("kind", Varint)),
        (7, one("start_time_unix_nano", Fixed64)),
        (8, one("end_time_unix_nano", Fixed64)),
        (9, many("attributes", Nested(&KEY_VALUE))),
        (10, one("dropped_attributes_count", Varint)),
        (11, many("events", Nested(&EVENT))),
        (12, one("dropped_events_count", Varint)),
        (13, many("links", Nested(&LINK))),
        (14, one("dropped_links_count", Varint)),
        (15, one("status", Nested(&STATUS))),
        (16, one("flags", Fixed32)),
    ],
)
.item();

static EVENT: Message = Message::new(
    "Event",
    &[
        (1, one("time_unix_nano", Fixed64)),
        (2, one("name", String)),
        (3, many("attributes", Nested(&KEY_VALUE))),
        (4, one("dropped_attributes_count", Varint)),
    ],
);

static LINK: Message = Message::new(
    "Link",
    &[
        (1, one("trace_id", TraceId)),
        (2, one("span_id", SpanId)),
        (3, one("trace_state", String)),
        (4, many("attributes", Nested(&KEY_VALUE))),
        (5, one("dropped_attributes_count", Varint)),
        (6, one("flags", Fixed32)),
    ],
);

pub(crate) static STATUS: Message = Message::new("Status", &[(2, one("message", String)), (3, one("code", Varint))]);

// === metrics ===

static EXPORT_METRICS: Message =
    Message::new("ExportMetricsServiceRequest", &[(1, many("resource_metrics", Nested(&RESOURCE_METRICS)))]);

static RESOURCE_METRICS: Message = Message::new(
    "ResourceMetrics",
    &[
        (1, one("resource", Nested(&RESOURCE))),
        (2, many("scope_metrics", Nested(&SCOPE_METRICS))),
        (3, one("schema_url", String)),
    ],
);

static SCOPE_METRICS: Message = Message::new(
    "ScopeMetrics",
    &[(1, one("scope", Nested(&SCOPE))), (2, many("metrics", Nested(&METRIC))), (3, one("schema_url", String))],
);

static METRIC: Message = Message::new(
    "Metric",
    &[
        (1, one("name", String)),
        (2, one("description", String)),
        (3, one("unit", String)),
        (5, either("gauge", Nested(&GAUGE))),
        (7, either("sum", Nested(&SUM))),
        (9, either("histogram", Nested(&HISTOGRAM))),
        (10, either("exponential_histogram", Nested(&EXPONENTIAL_HISTOGRAM))),
        (11, either("summary", Nested(&SUMMARY))),
        (12, many("metadata", Nested(&KEY_VALUE))),
    ],
);

static GAUGE: Message = Message::new("Gauge", &[(1, many("data_points", Nested(&NUMBER_DATA_POINT)))]);

static SUM: Message = Message::new(
    "Sum",
    &[
        (1, many("data_points", Nested(&NUMBER_DATA_POINT))),
        (2, one("aggregation_temporality", Varint)),
        (3, one("is_monotonic", Varint)),
    ],
);

static HISTOGRAM: Message = Message::new(
    "Histogram",
    &[(1, many("data_points", Nested(&HISTOGRAM_DATA_POINT))), (2, one("aggregation_temporality", Varint))],
);

static EXPONENTIAL_HISTOGRAM: Message = Message::new(
    "ExponentialHistogram",
    &[(1, many("data_points", Nested(&EXPONENTIAL_HISTOGRAM_DATA_POINT))), (2, one("aggregation_temporality", Varint))],
);

static SUMMARY: Message = Message::new("Summary", &[(1, many("data_points", Nested(&SUMMARY_DATA_POINT)))]);

static NUMBER_DATA_POINT: Message = Message::new(
    "NumberDataPoint",
    &[
        (2, one("start_time_unix_nano", Fixed64)),
        (3, one("time_unix_nano", Fixed64)),
        (4, either("as_double", Fixed64)),
        (5, many("exemplars", Nested(&EXEMPLAR))),
        (6, either("as_int", Fixed64)),
        (7, many("attributes", Nested(&KEY_VALUE))),
        (8, one("flags", Varint)),
    ],
)
.item();

static HISTOGRAM_DATA_POINT: Message = Message::new(
    "HistogramDataPoint",
    &[
        (2, one("start_time_unix_nano", Fixed64)),
        (3, one("time_unix_nano", Fixed64)),
        (4, one("count", Fixed64)),
        (5, one("sum", Fixed64)),
        (6, many("bucket_counts", Fixed64s)),
        (7, many("explicit_bounds", Fixed64s)),
        (8, many("exemplars", Nested(&EXEMPLAR))),
        (9, many("attributes", Nested(&KEY_VALUE))),
        (10, one("flags", Varint)),
        (11, one("min", Fixed64)),
        (12, one("max", Fixed64)),
    ],
)
.item();

static EXPONENTIAL_HISTOGRAM_DATA_POINT: Message = Message::new(
    "ExponentialHistogramDataPoint",
    &[
        (1, many("attributes", Nested(&KEY_VALUE))),
        (2, one("start_time_unix_nano", Fixed64)),
        (3, one("time_unix_nano", Fixed64)),
        (4, one("count", Fixed64)),
        (5, one("sum", Fixed64)),
        (6, one("scale", Varint)),
        (7, one("zero_count", Fixed64)),
        (8, one("positive", Nested(&BUCKETS))),
        (9, one("negative", Nested(&BUCKETS))),
        (10, one("flags", Varint)),
        (11, many("exemplars", Nested(&EXEMPLAR))),
        (12, one("min", Fixed64)),
        (13, one("max", Fixed64)),
        (14, one("zero_threshold", Fixed64)),
    ],
)
.item();

static BUCKETS: Message = Message::new("Buckets", &[(1, one("offset", Varint)), (2, many("bucket_counts", Varints))]);

static SUMMARY_DATA_POINT: Message = Message::new(
    "SummaryDataPoint",
    &[
        (2, one("start_time_unix_nano", Fixed64)),
        (3, one("time_unix_nano", Fixed64)),
        (4, one("count", Fixed64)),
        (5, one("sum", Fixed64)),
        (6, many("quantile_values", Nested(&VALUE_AT_QUANTILE))),
        (7, many("attributes", Nested(&KEY_VALUE))),
        (8, one("flags", Varint)),
    ],
)
.item();

static VALUE_AT_QUANTILE: Message = Message::new("ValueAtQuantile", &[(1, one("quantile", Fixed64)), (2, one("value", Fixed64))]);

static EXEMPLAR: Message = Message::new(
    "Exemplar",
    &[
        (2, one("time_unix_nano", Fixed64)),
        (3, either("as_double", Fixed64)),
        (4, one("span_id", SpanId)),
        (5, one("trace_id", TraceId)),
        (6, either("as_int", Fixed64)),
        (7, many("filtered_attributes", Nested(&KEY_VALUE))),
    ],
);

// === logs ===

static EXPORT_LOGS: Message = Message::new("ExportLogsServiceRequest", &[(1, many("resource_logs", Nested(&RESOURCE_LOGS)))]);

static RESOURCE_LOGS: Message = Message::new(
    "ResourceLogs",
    &[(1, one("resource", Nested(&RESOURCE))), (2, many("scope_logs", Nested(&SCOPE_LOGS))), (3, one("schema_url", String))],
);

static SCOPE_LOGS: Message = Message::new(
    "ScopeLogs",
    &[(1, one("scope", Nested(&SCOPE))), (2, many("log_records", Nested(&LOG_RECORD))), (3, one("schema_url", String))],
);

static LOG_RECORD: Message = Message::new(
    "LogRecord",
    &[
        (1, one("time_unix_nano", Fixed64)),
        (2, one("severity_number", Varint)),
        (3, one("severity_text", String)),
        (5, one("body", Nested(&ANY_VALUE))),
        (6, many("attributes", Nested(&KEY_VALUE))),
        (7, one("dropped_attributes_count", Varint)),
        (8, one("flags", Fixed32)),
        (9, one("trace_id", TraceId)),
        (10, one("span_id", SpanId)),
        (11, one("observed_time_unix_nano", Fixed64)),
        (12, one("event_name", String)),
    ],
)
.item();

// === common ===

pub(crate) static RESOURCE: Message = Message::new(
    "Resource",
    &[
        (1, many("attributes", Nested(&KEY_VALUE))),
        (2, one("dropped_attributes_count", Varint)),
        (3, many("entity_refs", Nested(&ENTITY_REF))),
    ],
);

static ENTITY_REF: Message = Message::new(
    "EntityRef",
    &[
        (1, one("schema_url", String)),
        (2, one("type", String)),
        (3, many("id_keys", String)),
        (4, many("description_keys", String)),
    ],
);

pub(crate) static SCOPE: Message = Message::new(
    "InstrumentationScope",
    &[
        (1, one("name", String)),
        (2, one("version", String)),
        (3, many("attributes", Nested(&KEY_VALUE))),
        (4, one("dropped_attributes_count", Varint)),
    ],
);

/// A key of the profiles' string table (field 3) may stand in a `KeyValue` too; it has no meaning in our three signals and passes as it is.
pub(crate) static KEY_VALUE: Message =
    Message::new("KeyValue", &[(1, one("key", String)), (2, one("value", Nested(&ANY_VALUE))), (3, one("key_strindex", Varint))])
        .attribute();

static ANY_VALUE: Message = Message::new(
    "AnyValue",
    &[
        (1, either("string_value", String)),
        (2, either("bool_value", Varint)),
        (3, either("int_value", Varint)),
        (4, either("double_value", Fixed64)),
        (5, either("array_value", Nested(&ARRAY_VALUE))),
        (6, either("kvlist_value", Nested(&KEY_VALUE_LIST))),
        (7, either("bytes_value", Bytes)),
        (8, either("string_value_strindex", Varint)),
    ],
)
.value();

static ARRAY_VALUE: Message = Message::new("ArrayValue", &[(1, many("values", Nested(&ANY_VALUE)))]);

static KEY_VALUE_LIST: Message = Message::new("KeyValueList", &[(1, many("values", Nested(&KEY_VALUE)))]);
