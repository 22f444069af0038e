//! The messages of OTLP as JSON sees them: names, numbers, and how a value is written. Both directions walk these tables.
//!
//! Spec: OTLP "JSON Protobuf Encoding" and protobuf's "ProtoJSON Format".

use crate::signal::Signal;

/// A message type.
#[derive(Debug)]
pub(super) struct Message {
    /// In the order in which they are written.
    pub(super) fields: &'static [Field],
    /// An `AnyValue`: what the nesting limit counts.
    pub(super) value: bool,
    /// Field number → place in `fields`, [`NONE`] for numbers we do not know.
    places: [u8; NUMBERS],
}

/// No message of ours has a number above 16.
const NUMBERS: usize = 17;
const NONE: u8 = u8::MAX;

/// No message of ours has more fields than this.
pub(super) const FIELDS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Field {
    /// lowerCamelCase: what is written, and read.
    pub(super) json: &'static str,
    /// As the .proto file has it: read too.
    pub(super) proto: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) label: Label,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    String,
    Bytes,
    /// Trace and span ids: bytes that are written in hex.
    Id,
    Bool,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// The names of the values 0, 1, 2, …
    Enum(&'static [&'static str]),
    Message(&'static Message),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// The default value and absence are the same.
    Implicit,
    /// `optional`: the default value counts as present.
    Optional,
    /// A member of the message's only oneof.
    Oneof,
    Repeated,
}

impl Kind {
    /// Whether a list of these is written as one length-delimited field.
    pub(super) const fn packs(self) -> bool {
        !matches!(self, Self::String | Self::Bytes | Self::Id | Self::Message(_))
    }
}

impl Message {
    const fn new(fields: &'static [Field]) -> Self {
        assert!(fields.len() <= FIELDS_MAX, "a message has more fields than FIELDS_MAX");
        let mut places = [NONE; NUMBERS];
        let mut place = 0;
        let mut rest = fields;
        while let [field, tail @ ..] = rest {
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler: a number out of range does not compile")]
            {
                places[field.number as usize] = place;
            }
            place += 1;
            rest = tail;
        }
        Self { fields, value: false, places }
    }

    const fn value(self) -> Self {
        Self { value: true, ..self }
    }

    /// The place in `fields` of the field with this number.
    pub(super) fn place(&self, number: u32) -> Option<usize> {
        self.places.get(number as usize).copied().filter(|place| *place != NONE).map(usize::from)
    }

    /// The place in `fields` of the field with this name, in either spelling. `hint` is tried first: writers keep an order.
    pub(super) fn named(&self, name: &str, hint: usize) -> Option<usize> {
        if self.fields.get(hint).is_some_and(|field| field.json == name) {
            return Some(hint);
        }
        self.fields
            .iter()
            .position(|field| field.json == name)
            .or_else(|| self.fields.iter().position(|field| field.proto == name))
    }
}

/// The whole body, as if it were the value of a field.
pub(super) const fn body(signal: Signal) -> &'static Field {
    match signal {
        Signal::Traces => &TRACES_BODY,
        Signal::Metrics => &METRICS_BODY,
        Signal::Logs => &LOGS_BODY,
    }
}

/// The request message of a signal.
pub(super) const fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &EXPORT_TRACES,
        Signal::Metrics => &EXPORT_METRICS,
        Signal::Logs => &EXPORT_LOGS,
    }
}

const fn one(number: u32, proto: &'static str, json: &'static str, kind: Kind) -> Field {
    Field { json, proto, number, kind, label: Label::Implicit }
}

const fn optional(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { json: name, proto: name, number, kind, label: Label::Optional }
}

const fn either(number: u32, proto: &'static str, json: &'static str, kind: Kind) -> Field {
    Field { json, proto, number, kind, label: Label::Oneof }
}

const fn many(number: u32, proto: &'static str, json: &'static str, kind: Kind) -> Field {
    Field { json, proto, number, kind, label: Label::Repeated }
}

use Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int32, Int64, Message as Nested, Sfixed64, Sint32, String, Uint32, Uint64,
};

static TRACES_BODY: Field = one(0, "", "", Nested(&EXPORT_TRACES));
static METRICS_BODY: Field = one(0, "", "", Nested(&EXPORT_METRICS));
static LOGS_BODY: Field = one(0, "", "", Nested(&EXPORT_LOGS));

// === traces ===

static EXPORT_TRACES: Message = Message::new(&[many(1, "resource_spans", "resourceSpans", Nested(&RESOURCE_SPANS))]);

static RESOURCE_SPANS: Message = Message::new(&[
    one(1, "resource", "resource", Nested(&RESOURCE)),
    many(2, "scope_spans", "scopeSpans", Nested(&SCOPE_SPANS)),
    one(3, "schema_url", "schemaUrl", String),
]);

static SCOPE_SPANS: Message = Message::new(&[
    one(1, "scope", "scope", Nested(&SCOPE)),
    many(2, "spans", "spans", Nested(&SPAN)),
    one(3, "schema_url", "schemaUrl", String),
]);

static SPAN: Message = Message::new(&[
    one(1, "trace_id", "traceId", Id),
    one(2, "span_id", "spanId", Id),
    one(3, "trace_state", "traceState", String),
    one(4, "parent_span_id", "parentSpanId", Id),
    one(16, "flags", "flags", Fixed32),
    one(5, "name", "name", String),
    one(6, "kind", "kind", Enum(SPAN_KINDS)),
    one(7, "start_time_unix_nano", "startTimeUnixNano", Fixed64),
    one(8, "end_time_unix_nano", "endTimeUnixNano", Fixed64),
    many(9, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(10, "dropped_attributes_count", "droppedAttributesCount", Uint32),
    many(11, "events", "events", Nested(&EVENT)),
    one(12, "dropped_events_count", "droppedEventsCount", Uint32),
    many(13, "links", "links", Nested(&LINK)),
    one(14, "dropped_links_count", "droppedLinksCount", Uint32),
    one(15, "status", "status", Nested(&STATUS)),
]);

const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

static EVENT: Message = Message::new(&[
    one(1, "time_unix_nano", "timeUnixNano", Fixed64),
    one(2, "name", "name", String),
    many(3, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(4, "dropped_attributes_count", "droppedAttributesCount", Uint32),
]);

static LINK: Message = Message::new(&[
    one(1, "trace_id", "traceId", Id),
    one(2, "span_id", "spanId", Id),
    one(3, "trace_state", "traceState", String),
    many(4, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(5, "dropped_attributes_count", "droppedAttributesCount", Uint32),
    one(6, "flags", "flags", Fixed32),
]);

static STATUS: Message = Message::new(&[one(2, "message", "message", String), one(3, "code", "code", Enum(STATUS_CODES))]);

const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

// === metrics ===

static EXPORT_METRICS: Message = Message::new(&[many(1, "resource_metrics", "resourceMetrics", Nested(&RESOURCE_METRICS))]);

static RESOURCE_METRICS: Message = Message::new(&[
    one(1, "resource", "resource", Nested(&RESOURCE)),
    many(2, "scope_metrics", "scopeMetrics", Nested(&SCOPE_METRICS)),
    one(3, "schema_url", "schemaUrl", String),
]);

static SCOPE_METRICS: Message = Message::new(&[
    one(1, "scope", "scope", Nested(&SCOPE)),
    many(2, "metrics", "metrics", Nested(&METRIC)),
    one(3, "schema_url", "schemaUrl", String),
]);

static METRIC: Message = Message::new(&[
    one(1, "name", "name", String),
    one(2, "description", "description", String),
    one(3, "unit", "unit", String),
    either(5, "gauge", "gauge", Nested(&GAUGE)),
    either(7, "sum", "sum", Nested(&SUM)),
    either(9, "histogram", "histogram", Nested(&HISTOGRAM)),
    either(10, "exponential_histogram", "exponentialHistogram", Nested(&EXPONENTIAL_HISTOGRAM)),
    either(11, "summary", "summary", Nested(&SUMMARY)),
    many(12, "metadata", "metadata", Nested(&KEY_VALUE)),
]);

static GAUGE: Message = Message::new(&[many(1, "data_points", "dataPoints", Nested(&NUMBER_DATA_POINT))]);

static SUM: Message = Message::new(&[
    many(1, "data_points", "dataPoints", Nested(&NUMBER_DATA_POINT)),
    one(2, "aggregation_temporality", "aggregationTemporality", Enum(TEMPORALITIES)),
    one(3, "is_monotonic", "isMonotonic", Bool),
]);

static HISTOGRAM: Message = Message::new(&[
    many(1, "data_points", "dataPoints", Nested(&HISTOGRAM_DATA_POINT)),
    one(2, "aggregation_temporality", "aggregationTemporality", Enum(TEMPORALITIES)),
]);

static EXPONENTIAL_HISTOGRAM: Message = Message::new(&[
    many(1, "data_points", "dataPoints", Nested(&EXPONENTIAL_HISTOGRAM_DATA_POINT)),
    one(2, "aggregation_temporality", "aggregationTemporality", Enum(TEMPORALITIES)),
]);

static SUMMARY: Message = Message::new(&[many(1, "data_points", "dataPoints", Nested(&SUMMARY_DATA_POINT))]);

const TEMPORALITIES: &[&str] =
    &["AGGREGATION_TEMPORALITY_UNSPECIFIED", "AGGREGATION_TEMPORALITY_DELTA", "AGGREGATION_TEMPORALITY_CUMULATIVE"];

static NUMBER_DATA_POINT: Message = Message::new(&[
    many(7, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(2, "start_time_unix_nano", "startTimeUnixNano", Fixed64),
    one(3, "time_unix_nano", "timeUnixNano", Fixed64),
    either(4, "as_double", "asDouble", Double),
    either(6, "as_int", "asInt", Sfixed64),
    many(5, "exemplars", "exemplars", Nested(&EXEMPLAR)),
    one(8, "flags", "flags", Uint32),
]);

static HISTOGRAM_DATA_POINT: Message = Message::new(&[
    many(9, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(2, "start_time_unix_nano", "startTimeUnixNano", Fixed64),
    one(3, "time_unix_nano", "timeUnixNano", Fixed64),
    one(4, "count", "count", Fixed64),
    optional(5, "sum", Double),
    many(6, "bucket_counts", "bucketCounts", Fixed64),
    many(7, "explicit_bounds", "explicitBounds", Double),
    many(8, "exemplars", "exemplars", Nested(&EXEMPLAR)),
    one(10, "flags", "flags", Uint32),
    optional(11, "min", Double),
    optional(12, "max", Double),
]);

static EXPONENTIAL_HISTOGRAM_DATA_POINT: Message = Message::new(&[
    many(1, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(2, "start_time_unix_nano", "startTimeUnixNano", Fixed64),
    one(3, "time_unix_nano", "timeUnixNano", Fixed64),
    one(4, "count", "count", Fixed64),
    optional(5, "sum", Double),
    one(6, "scale", "scale", Sint32),
    one(7, "zero_count", "zeroCount", Fixed64),
    one(8, "positive", "positive", Nested(&BUCKETS)),
    one(9, "negative", "negative", Nested(&BUCKETS)),
    one(10, "flags", "flags", Uint32),
    many(11, "exemplars", "exemplars", Nested(&EXEMPLAR)),
    optional(12, "min", Double),
    optional(13, "max", Double),
    one(14, "zero_threshold", "zeroThreshold", Double),
]);

static BUCKETS: Message = Message::new(&[one(1, "offset", "offset", Sint32), many(2, "bucket_counts", "bucketCounts", Uint64)]);

static SUMMARY_DATA_POINT: Message = Message::new(&[
    many(7, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(2, "start_time_unix_nano", "startTimeUnixNano", Fixed64),
    one(3, "time_unix_nano", "timeUnixNano", Fixed64),
    one(4, "count", "count", Fixed64),
    one(5, "sum", "sum", Double),
    many(6, "quantile_values", "quantileValues", Nested(&VALUE_AT_QUANTILE)),
    one(8, "flags", "flags", Uint32),
]);

static VALUE_AT_QUANTILE: Message = Message::new(&[one(1, "quantile", "quantile", Double), one(2, "value", "value", Double)]);

static EXEMPLAR: Message = Message::new(&[
    many(7, "filtered_attributes", "filteredAttributes", Nested(&KEY_VALUE)),
    one(2, "time_unix_nano", "timeUnixNano", Fixed64),
    either(3, "as_double", "asDouble", Double),
    either(6, "as_int", "asInt", Sfixed64),
    one(4, "span_id", "spanId", Id),
    one(5, "trace_id", "traceId", Id),
]);

// === logs ===

static EXPORT_LOGS: Message = Message::new(&[many(1, "resource_logs", "resourceLogs", Nested(&RESOURCE_LOGS))]);

static RESOURCE_LOGS: Message = Message::new(&[
    one(1, "resource", "resource", Nested(&RESOURCE)),
    many(2, "scope_logs", "scopeLogs", Nested(&SCOPE_LOGS)),
    one(3, "schema_url", "schemaUrl", String),
]);

static SCOPE_LOGS: Message = Message::new(&[
    one(1, "scope", "scope", Nested(&SCOPE)),
    many(2, "log_records", "logRecords", Nested(&LOG_RECORD)),
    one(3, "schema_url", "schemaUrl", String),
]);

static LOG_RECORD: Message = Message::new(&[
    one(1, "time_unix_nano", "timeUnixNano", Fixed64),
    one(11, "observed_time_unix_nano", "observedTimeUnixNano", Fixed64),
    one(2, "severity_number", "severityNumber", Enum(SEVERITIES)),
    one(3, "severity_text", "severityText", String),
    one(5, "body", "body", Nested(&ANY_VALUE)),
    many(6, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(7, "dropped_attributes_count", "droppedAttributesCount", Uint32),
    one(8, "flags", "flags", Fixed32),
    one(9, "trace_id", "traceId", Id),
    one(10, "span_id", "spanId", Id),
    one(12, "event_name", "eventName", String),
]);

const SEVERITIES: &[&str] = &[
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];

// === common ===

static RESOURCE: Message = Message::new(&[
    many(1, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(2, "dropped_attributes_count", "droppedAttributesCount", Uint32),
    many(3, "entity_refs", "entityRefs", Nested(&ENTITY_REF)),
]);

static ENTITY_REF: Message = Message::new(&[
    one(1, "schema_url", "schemaUrl", String),
    one(2, "type", "type", String),
    many(3, "id_keys", "idKeys", String),
    many(4, "description_keys", "descriptionKeys", String),
]);

static SCOPE: Message = Message::new(&[
    one(1, "name", "name", String),
    one(2, "version", "version", String),
    many(3, "attributes", "attributes", Nested(&KEY_VALUE)),
    one(4, "dropped_attributes_count", "droppedAttributesCount", Uint32),
]);

static KEY_VALUE: Message = Message::new(&[
    one(1, "key", "key", String),
    one(2, "value", "value", Nested(&ANY_VALUE)),
    one(3, "key_strindex", "keyStrindex", Int32),
]);

static ANY_VALUE: Message = Message::new(&[
    either(1, "string_value", "stringValue", String),
    either(2, "bool_value", "boolValue", Bool),
    either(3, "int_value", "intValue", Int64),
    either(4, "double_value", "doubleValue", Double),
    either(5, "array_value", "arrayValue", Nested(&ARRAY_VALUE)),
    either(6, "kvlist_value", "kvlistValue", Nested(&KEY_VALUE_LIST)),
    either(7, "bytes_value", "bytesValue", Bytes),
    either(8, "string_value_strindex", "stringValueStrindex", Int32),
])
.value();

static ARRAY_VALUE: Message = Message::new(&[many(1, "values", "values", Nested(&ANY_VALUE))]);

static KEY_VALUE_LIST: Message = Message::new(&[many(1, "values", "values", Nested(&KEY_VALUE))]);
