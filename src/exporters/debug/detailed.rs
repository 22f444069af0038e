//! `verbosity: detailed`: every field on a line of its own.

use std::fmt::Display;

use super::text::{fixed, hex, number, time, typed, write};
use crate::otlp::view::{
    AttributesView, DataView, ExemplarView, ExponentialHistogramPointView, HistogramPointView, LogRecordView, LogsView,
    MetricView, MetricsView, NumberPointView, NumberValue, ResourceView, ScopeView, SpanView, SummaryPointView, TracesView,
};

pub(super) fn traces(payload: &[u8]) -> String {
    let mut page = Page::default();
    for (i, resource) in TracesView::new(payload).resources().enumerate() {
        page.line("ResourceSpans #", i);
        page.resource(resource.schema_url(), &resource.resource());
        for (j, scope) in resource.scopes().enumerate() {
            page.line("ScopeSpans #", j);
            page.line("ScopeSpans SchemaURL: ", scope.schema_url());
            page.scope(&scope.scope());
            for (k, span) in scope.items().enumerate() {
                page.line("Span #", k);
                page.span(&span);
            }
        }
    }
    page.0
}

pub(super) fn logs(payload: &[u8]) -> String {
    let mut page = Page::default();
    for (i, resource) in LogsView::new(payload).resources().enumerate() {
        page.line("ResourceLog #", i);
        page.resource(resource.schema_url(), &resource.resource());
        for (j, scope) in resource.scopes().enumerate() {
            page.line("ScopeLogs #", j);
            page.line("ScopeLogs SchemaURL: ", scope.schema_url());
            page.scope(&scope.scope());
            for (k, record) in scope.items().enumerate() {
                page.line("LogRecord #", k);
                page.log_record(&record);
            }
        }
    }
    page.0
}

pub(super) fn metrics(payload: &[u8]) -> String {
    let mut page = Page::default();
    for (i, resource) in MetricsView::new(payload).resources().enumerate() {
        page.line("ResourceMetrics #", i);
        page.resource(resource.schema_url(), &resource.resource());
        for (j, scope) in resource.scopes().enumerate() {
            page.line("ScopeMetrics #", j);
            page.line("ScopeMetrics SchemaURL: ", scope.schema_url());
            page.scope(&scope.scope());
            for (k, metric) in scope.items().enumerate() {
                page.line("Metric #", k);
                page.metric(&metric);
            }
        }
    }
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, label: &str, value: impl Display) {
        write(&mut self.0, format_args!("{label}{value}\n"));
    }

    fn id(&mut self, label: &str, id: &[u8]) {
        self.0.push_str(label);
        hex(&mut self.0, id);
        self.0.push('\n');
    }

    fn at(&mut self, label: &str, unix_nanos: u64) {
        self.0.push_str(label);
        time(&mut self.0, unix_nanos);
        self.0.push('\n');
    }

    fn double(&mut self, label: &str, value: f64) {
        self.0.push_str(label);
        fixed(&mut self.0, value);
        self.0.push('\n');
    }

    /// A heading and a line each; nothing when there are none.
    fn attributes(&mut self, heading: &str, indent: &str, attributes: AttributesView<'_>) {
        if attributes.is_empty() {
            return;
        }
        self.line(heading, "");
        for attribute in attributes.iter() {
            write(&mut self.0, format_args!("{indent}-> {}: ", attribute.key()));
            typed(&mut self.0, attribute.value());
            self.0.push('\n');
        }
    }

    fn resource(&mut self, schema_url: &str, resource: &ResourceView<'_>) {
        self.line("Resource SchemaURL: ", schema_url);
        self.attributes("Resource attributes:", "     ", resource.attributes);
    }

    fn scope(&mut self, scope: &ScopeView<'_>) {
        write(&mut self.0, format_args!("InstrumentationScope {} {}\n", scope.name, scope.version));
        self.attributes("InstrumentationScope attributes:", "     ", scope.attributes);
    }

    fn span(&mut self, span: &SpanView<'_>) {
        self.id("    Trace ID       : ", span.trace_id);
        self.id("    Parent ID      : ", span.parent_span_id);
        self.id("    ID             : ", span.span_id);
        self.line("    Name           : ", span.name);
        self.line("    Kind           : ", kind(span.kind));
        if !span.trace_state.is_empty() {
            self.line("    TraceState     : ", span.trace_state);
        }
        self.at("    Start time     : ", span.start_unix_nanos);
        self.at("    End time       : ", span.end_unix_nanos);
        self.line("    Status code    : ", status(span.status.code));
        self.line("    Status message : ", span.status.message);
        self.line("    DroppedAttributesCount: ", span.dropped_attributes_count);
        self.line("    DroppedEventsCount: ", span.dropped_events_count);
        self.line("    DroppedLinksCount: ", span.dropped_links_count);
        self.attributes("Attributes:", "     ", span.attributes);
        for (at, event) in span.events().enumerate() {
            if at == 0 {
                self.line("Events:", "");
            }
            self.line("SpanEvent #", at);
            self.line("     -> Name: ", event.name);
            self.at("     -> Timestamp: ", event.time_unix_nanos);
            self.line("     -> DroppedAttributesCount: ", event.dropped_attributes_count);
            self.attributes("     -> Attributes::", "          ", event.attributes);
        }
        for (at, link) in span.links().enumerate() {
            if at == 0 {
                self.line("Links:", "");
            }
            self.line("SpanLink #", at);
            self.id("     -> Trace ID: ", link.trace_id);
            self.id("     -> ID: ", link.span_id);
            self.line("     -> TraceState: ", link.trace_state);
            self.line("     -> DroppedAttributesCount: ", link.dropped_attributes_count);
            self.attributes("     -> Attributes::", "          ", link.attributes);
        }
    }

    fn log_record(&mut self, record: &LogRecordView<'_>) {
        self.at("ObservedTimestamp: ", record.observed_unix_nanos);
        self.at("Timestamp: ", record.time_unix_nanos);
        self.line("SeverityText: ", record.severity_text);
        write(&mut self.0, format_args!("SeverityNumber: {}({})\n", severity(record.severity_number), record.severity_number));
        if !record.event_name.is_empty() {
            self.line("EventName: ", record.event_name);
        }
        self.0.push_str("Body: ");
        typed(&mut self.0, record.body());
        self.0.push('\n');
        self.attributes("Attributes:", "     ", record.attributes);
        self.id("Trace ID: ", record.trace_id);
        self.id("Span ID: ", record.span_id);
        self.line("Flags: ", record.flags);
    }

    fn metric(&mut self, metric: &MetricView<'_>) {
        self.line("Descriptor:", "");
        self.line("     -> Name: ", metric.name);
        self.line("     -> Description: ", metric.description);
        self.line("     -> Unit: ", metric.unit);
        let (name, temporality, monotonic) = match metric.data {
            DataView::None => ("Empty", None, None),
            DataView::Gauge { .. } => ("Gauge", None, None),
            DataView::Sum { temporality, monotonic, .. } => ("Sum", Some(temporality), Some(monotonic)),
            DataView::Histogram { temporality, .. } => ("Histogram", Some(temporality), None),
            DataView::ExponentialHistogram { temporality, .. } => ("ExponentialHistogram", Some(temporality), None),
            DataView::Summary { .. } => ("Summary", None, None),
        };
        self.line("     -> DataType: ", name);
        if let Some(monotonic) = monotonic {
            self.line("     -> IsMonotonic: ", monotonic);
        }
        if let Some(temporality) = temporality {
            self.line("     -> AggregationTemporality: ", temporality_name(temporality));
        }
        self.attributes("     -> Metadata:", "          ", metric.metadata);
        match metric.data {
            DataView::None => {}
            DataView::Gauge { points } | DataView::Sum { points, .. } => {
                for (at, point) in points.iter().enumerate() {
                    self.number_point(at, &point);
                }
            }
            DataView::Histogram { points, .. } => {
                for (at, point) in points.iter().enumerate() {
                    self.histogram_point(at, &point);
                }
            }
            DataView::ExponentialHistogram { points, .. } => {
                for (at, point) in points.iter().enumerate() {
                    self.exponential_point(at, &point);
                }
            }
            DataView::Summary { points } => {
                for (at, point) in points.iter().enumerate() {
                    self.summary_point(at, &point);
                }
            }
        }
    }

    fn point(&mut self, attributes: AttributesView<'_>, start: u64, time: u64) {
        self.attributes("Data point attributes:", "     ", attributes);
        self.at("StartTimestamp: ", start);
        self.at("Timestamp: ", time);
    }

    fn number_point(&mut self, at: usize, point: &NumberPointView<'_>) {
        self.line("NumberDataPoints #", at);
        self.point(point.attributes, point.start_unix_nanos, point.time_unix_nanos);
        self.value("Value: ", point.value);
        self.exemplars(point.exemplars());
    }

    fn value(&mut self, label: &str, value: NumberValue) {
        if value != NumberValue::None {
            self.0.push_str(label);
            number(&mut self.0, value, fixed);
            self.0.push('\n');
        }
    }

    fn spread(&mut self, sum: Option<f64>, min: Option<f64>, max: Option<f64>) {
        for (label, value) in [("Sum: ", sum), ("Min: ", min), ("Max: ", max)] {
            if let Some(value) = value {
                self.double(label, value);
            }
        }
    }

    fn histogram_point(&mut self, at: usize, point: &HistogramPointView<'_>) {
        self.line("HistogramDataPoints #", at);
        self.point(point.attributes, point.start_unix_nanos, point.time_unix_nanos);
        self.line("Count: ", point.count);
        self.spread(point.sum, point.min, point.max);
        for (bound, value) in point.explicit_bounds.doubles().enumerate() {
            self.double(&format!("ExplicitBounds #{bound}: "), value);
        }
        for (bucket, count) in point.bucket_counts.iter().enumerate() {
            write(&mut self.0, format_args!("Buckets #{bucket}, Count: {count}\n"));
        }
        self.exemplars(point.exemplars());
    }

    fn exponential_point(&mut self, at: usize, point: &ExponentialHistogramPointView<'_>) {
        self.line("ExponentialHistogramDataPoints #", at);
        self.point(point.attributes, point.start_unix_nanos, point.time_unix_nanos);
        self.line("Count: ", point.count);
        self.spread(point.sum, point.min, point.max);
        let mut negative: Vec<_> = exponential(point.scale, point.negative.offset, point.negative.bucket_counts.iter()).collect();
        negative.reverse();
        for (lower, upper, count) in negative {
            self.0.push_str("Bucket [");
            self.bounds(-upper, -lower);
            self.line("), Count: ", count);
        }
        if point.zero_count > 0 {
            self.line("Bucket [0, 0], Count: ", point.zero_count);
        }
        for (lower, upper, count) in exponential(point.scale, point.positive.offset, point.positive.bucket_counts.iter()) {
            self.0.push_str("Bucket (");
            self.bounds(lower, upper);
            self.line("], Count: ", count);
        }
        self.exemplars(point.exemplars());
    }

    fn bounds(&mut self, lower: f64, upper: f64) {
        fixed(&mut self.0, lower);
        self.0.push_str(", ");
        fixed(&mut self.0, upper);
    }

    fn summary_point(&mut self, at: usize, point: &SummaryPointView<'_>) {
        self.line("SummaryDataPoints #", at);
        self.point(point.attributes, point.start_unix_nanos, point.time_unix_nanos);
        self.line("Count: ", point.count);
        self.double("Sum: ", point.sum);
        for (at, quantile) in point.quantiles().enumerate() {
            write(&mut self.0, format_args!("QuantileValue #{at}: Quantile "));
            fixed(&mut self.0, quantile.quantile);
            self.double(", Value ", quantile.value);
        }
    }

    fn exemplars<'a>(&mut self, exemplars: impl Iterator<Item = ExemplarView<'a>>) {
        for (at, exemplar) in exemplars.enumerate() {
            if at == 0 {
                self.line("Exemplars:", "");
            }
            self.line("Exemplar #", at);
            self.id("     -> Trace ID: ", exemplar.trace_id);
            self.id("     -> Span ID: ", exemplar.span_id);
            self.at("     -> Timestamp: ", exemplar.time_unix_nanos);
            self.value("     -> Value: ", exemplar.value);
            self.attributes("     -> FilteredAttributes:", "          ", exemplar.filtered_attributes);
        }
    }
}

/// Bounds and count of each bucket, by the specification's formula: the base is 2 to the 2 to the -scale.
pub(super) fn exponential(scale: i32, offset: i32, counts: impl Iterator<Item = u64>) -> impl Iterator<Item = (f64, f64, u64)> {
    let factor = std::f64::consts::LN_2 * (-f64::from(scale)).exp2();
    counts.enumerate().map(move |(at, count)| {
        let index = f64::from(offset) + at as f64;
        ((index * factor).exp(), ((index + 1.0) * factor).exp(), count)
    })
}

const fn kind(kind: i32) -> &'static str {
    match kind {
        0 => "Unspecified",
        1 => "Internal",
        2 => "Server",
        3 => "Client",
        4 => "Producer",
        5 => "Consumer",
        _ => "",
    }
}

const fn status(code: i32) -> &'static str {
    match code {
        0 => "Unset",
        1 => "Ok",
        2 => "Error",
        _ => "",
    }
}

const fn temporality_name(temporality: i32) -> &'static str {
    match temporality {
        0 => "Unspecified",
        1 => "Delta",
        2 => "Cumulative",
        _ => "",
    }
}

fn severity(number: i32) -> String {
    const GROUPS: [&str; 6] = ["Trace", "Debug", "Info", "Warn", "Error", "Fatal"];
    let Ok(above) = usize::try_from(i64::from(number) - 1) else {
        return if number == 0 { "Unspecified".to_owned() } else { String::new() };
    };
    let step = above % 4 + 1;
    match GROUPS.get(above / 4) {
        Some(group) if step == 1 => (*group).to_owned(),
        Some(group) => format!("{group}{step}"),
        None => String::new(),
    }
}
