//! The lines of a tap: what is wanted of a batch, one item a line or one request a line.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{At, Seen, ask::Wanted};
use crate::{
    otlp::{
        edit::{AttributesWriter, Edit, Editor, Place, edit},
        json, split_by_items,
        view::{
            AnyValueView, DataView, LogRecordView, LogsView, MetricView, MetricsView, NumberValue, PointView, ResourceView,
            ScopeItemsView, SpanView, TracesView,
        },
    },
    signal::{Batch, Signal},
};

/// A text in a row is cut here.
const TEXT_CHARS_MAX: usize = 200;
/// Requests are cut into lines of about this many bytes of OTLP.
const REQUEST_BYTES: usize = 128 << 10;

/// The first line of a tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Of the protocol.
    pub version: u32,
    /// Of this weir.
    pub weir: String,
    pub pid: u32,
}

/// What a tap left out since it said so last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Items that passed faster than they could be looked at; whether they were wanted is not known.
    pub unseen_items: u64,
    /// Lines that the reader was too slow for.
    pub late_lines: u64,
}

/// The last line of a tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// `lines`, `seconds` or `stopping`.
    pub reason: Cow<'static, str>,
}

/// One span, log record or metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row<'a> {
    pub at: At,
    /// `traces`, `metrics`, `logs`.
    pub signal: Cow<'a, str>,
    /// When it was seen.
    pub time_unix_nanos: u64,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub service: Cow<'a, str>,
    /// Of a log record: its text, or its event name.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub name: Cow<'a, str>,
    /// `server`, `client` …; `gauge`, `sum` ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Cow<'a, str>>,
    /// `unset`, `ok`, `error`; of a log record its severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_nanos: Option<u64>,
    /// Data points of a metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<u64>,
    /// Of a metric with one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<Cow<'a, str>>,
    #[serde(flatten)]
    pub way: Way<'a>,
}

/// What is known of a batch as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Way<'a> {
    /// The receiver, or the consumer's component.
    pub component: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Cow<'a, str>>,
    /// Why it was dropped or refused: the word that the metrics have for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'a, str>>,
}

impl<'a> Way<'a> {
    fn of(seen: &'a Seen) -> Self {
        Self {
            component: seen.component.as_str().into(),
            pipeline: seen.pipeline.as_deref().map(Into::into),
            peer: seen.peer.map(|peer| peer.to_string().into()),
            transport: seen.transport.map(Into::into),
            reason: seen.reason.map(Into::into),
            message: seen.message.as_deref().map(Into::into),
        }
    }
}

/// What stands under `weir` in a line of OTLP/JSON.
#[derive(Serialize)]
struct Trailer<'a> {
    at: At,
    time_unix_nanos: u64,
    #[serde(flatten)]
    way: Way<'a>,
}

/// Gives every wanted item as a line to `put`, until that says that it is enough.
pub(super) fn rows(wanted: &Wanted, seen: &Seen, line: &mut Vec<u8>, put: &mut dyn FnMut(&[u8]) -> bool) {
    let way = Way::of(seen);
    let mut give = |row: Row<'_>| {
        line.clear();
        // Into memory, of strings and numbers: it does not fail.
        if serde_json::to_writer(&mut *line, &row).is_err() {
            return true;
        }
        line.push(b'\n');
        put(line)
    };
    let blank = || Row {
        at: seen.at,
        signal: seen.batch.signal.as_str().into(),
        time_unix_nanos: seen.time.0,
        service: "".into(),
        name: "".into(),
        kind: None,
        status: None,
        duration_nanos: None,
        points: None,
        value: None,
        trace_id: None,
        span_id: None,
        way: way.clone(),
    };
    let payload = &seen.batch.payload;
    if seen.at == At::Refused {
        if wanted.is_all() {
            give(blank());
        }
        return;
    }
    if !wanted.may_hold(payload) {
        return;
    }
    match seen.batch.signal {
        Signal::Traces => {
            for resource_spans in TracesView::new(payload).resources() {
                let resource = resource_spans.resource();
                if !wanted.resource(&resource) {
                    continue;
                }
                for span in resource_spans.scopes().flat_map(ScopeItemsView::items).filter(|span| wanted.span(span)) {
                    if !give(Row { service: service(&resource), ..of_span(&span, blank()) }) {
                        return;
                    }
                }
            }
        }
        Signal::Logs => {
            for resource_logs in LogsView::new(payload).resources() {
                let resource = resource_logs.resource();
                if !wanted.resource(&resource) {
                    continue;
                }
                for record in resource_logs.scopes().flat_map(ScopeItemsView::items).filter(|record| wanted.log_record(record)) {
                    if !give(Row { service: service(&resource), ..of_log_record(&record, blank()) }) {
                        return;
                    }
                }
            }
        }
        Signal::Metrics => {
            for resource_metrics in MetricsView::new(payload).resources() {
                let resource = resource_metrics.resource();
                if !wanted.resource(&resource) {
                    continue;
                }
                let metrics = resource_metrics.scopes().flat_map(ScopeItemsView::items);
                for metric in metrics.filter(|metric| wanted.metric(metric) && wanted.has_wanted_point(metric)) {
                    if !give(Row { service: service(&resource), ..of_metric(&metric, blank()) }) {
                        return;
                    }
                }
            }
        }
    }
}

fn service<'a>(resource: &ResourceView<'a>) -> Cow<'a, str> {
    cut(resource.service_name().unwrap_or_default())
}

fn of_span<'a>(span: &SpanView<'a>, blank: Row<'a>) -> Row<'a> {
    let kind = match span.kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    };
    let status = match span.status.code {
        0 => "unset",
        1 => "ok",
        2 => "error",
        _ => "?",
    };
    Row {
        name: cut(span.name),
        kind: Some(kind.into()),
        status: Some(status.into()),
        duration_nanos: Some(span.end_unix_nanos.saturating_sub(span.start_unix_nanos)),
        trace_id: id(span.trace_id),
        span_id: id(span.span_id),
        ..blank
    }
}

fn of_log_record<'a>(record: &LogRecordView<'a>, blank: Row<'a>) -> Row<'a> {
    let body = match record.body() {
        AnyValueView::String(text) => text,
        _ => "",
    };
    let severity = match (record.severity_text, record.severity_number) {
        ("", 0) => None,
        ("", 1..=4) => Some("TRACE"),
        ("", 5..=8) => Some("DEBUG"),
        ("", 9..=12) => Some("INFO"),
        ("", 13..=16) => Some("WARN"),
        ("", 17..=20) => Some("ERROR"),
        ("", _) => Some("FATAL"),
        (text, _) => Some(text),
    };
    Row {
        name: cut(if body.is_empty() { record.event_name } else { body }),
        status: severity.map(cut),
        trace_id: id(record.trace_id),
        span_id: id(record.span_id),
        ..blank
    }
}

fn of_metric<'a>(metric: &MetricView<'a>, blank: Row<'a>) -> Row<'a> {
    let number = |value| match value {
        NumberValue::Double(value) => Some(value),
        NumberValue::Int(value) => Some(value as f64),
        NumberValue::None => None,
    };
    let (kind, points, value) = match metric.data {
        DataView::None => ("none", 0, None),
        DataView::Gauge { points } => {
            ("gauge", points.iter().count(), points.iter().next().and_then(|first| number(first.value)))
        }
        DataView::Sum { points, .. } => {
            ("sum", points.iter().count(), points.iter().next().and_then(|first| number(first.value)))
        }
        DataView::Histogram { points, .. } => ("histogram", points.iter().count(), None),
        DataView::ExponentialHistogram { points, .. } => ("exponential_histogram", points.iter().count(), None),
        DataView::Summary { points } => ("summary", points.iter().count(), None),
    };
    Row {
        name: cut(metric.name),
        kind: Some(kind.into()),
        points: Some(points as u64),
        value: value.filter(|_| points == 1),
        ..blank
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// In lower-case hex; `None` for none.
fn id(bytes: &[u8]) -> Option<Cow<'static, str>> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    (!bytes.is_empty()).then(|| text.into())
}

/// Gives what is wanted as lines of OTLP/JSON to `put`, until that says that it is enough.
pub(super) fn otlp(wanted: &Wanted, seen: &Seen, line: &mut Vec<u8>, put: &mut dyn FnMut(&[u8]) -> bool) {
    let trailer = BTreeMap::from([("weir", Trailer { at: seen.at, time_unix_nanos: seen.time.0, way: Way::of(seen) })]);
    let Ok(trailer) = serde_json::to_vec(&trailer) else { return };
    // Without the brace that opens it.
    let trailer = trailer.get(1..).unwrap_or_default();
    if seen.at == At::Refused {
        if wanted.is_all() {
            line.clear();
            line.push(b'{');
            line.extend_from_slice(trailer);
            line.push(b'\n');
            put(line);
        }
        return;
    }
    if !wanted.may_hold(&seen.batch.payload) {
        return;
    }
    let batch = if wanted.is_all() {
        seen.batch.clone()
    } else {
        let edited = edit(seen.batch.signal, &seen.batch.payload, &mut Only(wanted));
        let items = seen.batch.items.saturating_sub(edited.dropped);
        Batch { payload: edited.payload, items, index: None, ..seen.batch.clone() }
    };
    if batch.items == 0 {
        return;
    }
    for part in in_parts(batch) {
        line.clear();
        if json::encode(part.signal, &part.payload, line).is_err() || line.pop() != Some(b'}') {
            continue;
        }
        if line.len() > 1 {
            line.push(b',');
        }
        line.extend_from_slice(trailer);
        line.push(b'\n');
        if !put(line) {
            return;
        }
    }
}

fn in_parts(batch: Batch) -> Vec<Batch> {
    let parts = batch.payload.len().div_ceil(REQUEST_BYTES) as u64;
    if parts < 2 || batch.items < 2 {
        return vec![batch];
    }
    split_by_items(&batch, batch.items.div_ceil(parts).max(1))
}

/// Leaves only what is wanted.
struct Only<'a>(&'a Wanted);

fn keep(is_wanted: bool) -> Edit {
    if is_wanted { Edit::Keep } else { Edit::Drop }
}

impl Editor for Only<'_> {
    fn resource(&mut self, resource: &ResourceView<'_>, _: &mut AttributesWriter) -> Edit {
        keep(self.0.resource(resource))
    }

    fn span(&mut self, _: &Place<'_>, span: &SpanView<'_>, _: &mut AttributesWriter) -> Edit {
        keep(self.0.span(span))
    }

    fn log_record(&mut self, _: &Place<'_>, record: &LogRecordView<'_>, _: &mut AttributesWriter) -> Edit {
        keep(self.0.log_record(record))
    }

    fn data_point(&mut self, _: &Place<'_>, metric: &MetricView<'_>, point: &PointView<'_>, _: &mut AttributesWriter) -> Edit {
        keep(self.0.metric(metric) && self.0.point(point))
    }
}
