//! The second opinion of our tests: requests as prost decodes them, and as our views see them, in prost's types.

#![allow(dead_code, reason = "every test and fuzz target uses a part of it")]

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point, metric, number_data_point, summary_data_point,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};
use prost::{DecodeError, Message};

use crate::{
    otlp::view::{
        AnyValueView, AttributeView, AttributesView, BucketsView, DataView, ExemplarView, ExponentialHistogramPointView,
        HistogramPointView, LogRecordView, LogsView, MetricView, MetricsView, NumberPointView, NumberValue, ResourceItemsView,
        ScopeItemsView, SpanView, SummaryPointView, TracesView, View,
    },
    signal::Signal,
};

/// What prost makes of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// Decodes with prost. What the three signals do not have (indices into a string table) is taken out, because the views do not show it.
pub(crate) fn decode(signal: Signal, payload: &[u8]) -> Result<Request, DecodeError> {
    Ok(match signal {
        Signal::Traces => {
            let mut request = ExportTraceServiceRequest::decode(payload)?;
            for of_resource in &mut request.resource_spans {
                of_resource.resource.iter_mut().for_each(|resource| attributes(&mut resource.attributes));
                for of_scope in &mut of_resource.scope_spans {
                    of_scope.scope.iter_mut().for_each(|scope| attributes(&mut scope.attributes));
                    for span in &mut of_scope.spans {
                        attributes(&mut span.attributes);
                        span.events.iter_mut().for_each(|event| attributes(&mut event.attributes));
                        span.links.iter_mut().for_each(|link| attributes(&mut link.attributes));
                    }
                }
            }
            Request::Traces(request)
        }
        Signal::Metrics => {
            let mut request = ExportMetricsServiceRequest::decode(payload)?;
            for of_resource in &mut request.resource_metrics {
                of_resource.resource.iter_mut().for_each(|resource| attributes(&mut resource.attributes));
                for of_scope in &mut of_resource.scope_metrics {
                    of_scope.scope.iter_mut().for_each(|scope| attributes(&mut scope.attributes));
                    for metric in &mut of_scope.metrics {
                        attributes(&mut metric.metadata);
                        metric_attributes(metric);
                    }
                }
            }
            Request::Metrics(request)
        }
        Signal::Logs => {
            let mut request = ExportLogsServiceRequest::decode(payload)?;
            for of_resource in &mut request.resource_logs {
                of_resource.resource.iter_mut().for_each(|resource| attributes(&mut resource.attributes));
                for of_scope in &mut of_resource.scope_logs {
                    of_scope.scope.iter_mut().for_each(|scope| attributes(&mut scope.attributes));
                    for record in &mut of_scope.log_records {
                        attributes(&mut record.attributes);
                        record.body.iter_mut().for_each(any_value);
                    }
                }
            }
            Request::Logs(request)
        }
    })
}

fn metric_attributes(metric: &mut Metric) {
    match &mut metric.data {
        Some(metric::Data::Gauge(Gauge { data_points }) | metric::Data::Sum(Sum { data_points, .. })) => {
            for point in data_points {
                attributes(&mut point.attributes);
                point.exemplars.iter_mut().for_each(|exemplar| attributes(&mut exemplar.filtered_attributes));
            }
        }
        Some(metric::Data::Histogram(data)) => {
            for point in &mut data.data_points {
                attributes(&mut point.attributes);
                point.exemplars.iter_mut().for_each(|exemplar| attributes(&mut exemplar.filtered_attributes));
            }
        }
        Some(metric::Data::ExponentialHistogram(data)) => {
            for point in &mut data.data_points {
                attributes(&mut point.attributes);
                point.exemplars.iter_mut().for_each(|exemplar| attributes(&mut exemplar.filtered_attributes));
            }
        }
        Some(metric::Data::Summary(data)) => {
            data.data_points.iter_mut().for_each(|point| attributes(&mut point.attributes));
        }
        None => {}
    }
}

fn attributes(list: &mut [KeyValue]) {
    for attribute in list {
        attribute.key_strindex = 0;
        attribute.value.iter_mut().for_each(any_value);
    }
}

fn any_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(any_value::Value::StringValueStrindex(_)) => value.value = None,
        Some(any_value::Value::ArrayValue(array)) => array.values.iter_mut().for_each(any_value),
        Some(any_value::Value::KvlistValue(list)) => attributes(&mut list.values),
        _ => {}
    }
}

/// The same request read through our views.
pub(crate) fn view(signal: Signal, payload: &[u8]) -> Request {
    match signal {
        Signal::Traces => Request::Traces(ExportTraceServiceRequest {
            resource_spans: TracesView::new(payload)
                .resources()
                .map(|of_resource| ResourceSpans {
                    resource: resource(of_resource),
                    schema_url: of_resource.schema_url().to_owned(),
                    scope_spans: of_resource
                        .scopes()
                        .map(|of_scope| ScopeSpans {
                            scope: scope(of_scope),
                            schema_url: of_scope.schema_url().to_owned(),
                            spans: of_scope.items().map(span).collect(),
                        })
                        .collect(),
                })
                .collect(),
        }),
        Signal::Metrics => Request::Metrics(ExportMetricsServiceRequest {
            resource_metrics: MetricsView::new(payload)
                .resources()
                .map(|of_resource| ResourceMetrics {
                    resource: resource(of_resource),
                    schema_url: of_resource.schema_url().to_owned(),
                    scope_metrics: of_resource
                        .scopes()
                        .map(|of_scope| ScopeMetrics {
                            scope: scope(of_scope),
                            schema_url: of_scope.schema_url().to_owned(),
                            metrics: of_scope.items().map(metric).collect(),
                        })
                        .collect(),
                })
                .collect(),
        }),
        Signal::Logs => Request::Logs(ExportLogsServiceRequest {
            resource_logs: LogsView::new(payload)
                .resources()
                .map(|of_resource| ResourceLogs {
                    resource: resource(of_resource),
                    schema_url: of_resource.schema_url().to_owned(),
                    scope_logs: of_resource
                        .scopes()
                        .map(|of_scope| ScopeLogs {
                            scope: scope(of_scope),
                            schema_url: of_scope.schema_url().to_owned(),
                            log_records: of_scope.items().map(log_record).collect(),
                        })
                        .collect(),
                })
                .collect(),
        }),
    }
}

impl Request {
    /// Encoded by prost. Two requests are equal when these are: other than `==` it holds for NaN.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Request::Traces(request) => request.encode_to_vec(),
            Request::Metrics(request) => request.encode_to_vec(),
            Request::Logs(request) => request.encode_to_vec(),
        }
    }

    /// Each item alone, as it stands under its resource, scope and metric, encoded and sorted: what must stay the same however requests are cut.
    pub(crate) fn items(&self) -> Vec<Vec<u8>> {
        let mut items = Vec::new();
        match self {
            Request::Traces(request) => {
                for of_resource in &request.resource_spans {
                    for of_scope in &of_resource.scope_spans {
                        for span in &of_scope.spans {
                            let of_scope = ScopeSpans { spans: vec![span.clone()], ..of_scope.clone() };
                            items.push(ResourceSpans { scope_spans: vec![of_scope], ..of_resource.clone() }.encode_to_vec());
                        }
                    }
                }
            }
            Request::Logs(request) => {
                for of_resource in &request.resource_logs {
                    for of_scope in &of_resource.scope_logs {
                        for record in &of_scope.log_records {
                            let of_scope = ScopeLogs { log_records: vec![record.clone()], ..of_scope.clone() };
                            items.push(ResourceLogs { scope_logs: vec![of_scope], ..of_resource.clone() }.encode_to_vec());
                        }
                    }
                }
            }
            Request::Metrics(request) => {
                for of_resource in &request.resource_metrics {
                    for of_scope in &of_resource.scope_metrics {
                        for metric in of_scope.metrics.iter().flat_map(single_points) {
                            let of_scope = ScopeMetrics { metrics: vec![metric], ..of_scope.clone() };
                            items.push(ResourceMetrics { scope_metrics: vec![of_scope], ..of_resource.clone() }.encode_to_vec());
                        }
                    }
                }
            }
        }
        items.sort();
        items
    }
}

/// The metric once for each of its points.
fn single_points(metric: &Metric) -> Vec<Metric> {
    let with = |data| Metric { data: Some(data), ..metric.clone() };
    match &metric.data {
        None => Vec::new(),
        Some(metric::Data::Gauge(data)) => {
            data.data_points.iter().map(|point| with(metric::Data::Gauge(Gauge { data_points: vec![point.clone()] }))).collect()
        }
        Some(metric::Data::Sum(data)) => data
            .data_points
            .iter()
            .map(|point| with(metric::Data::Sum(Sum { data_points: vec![point.clone()], ..data.clone() })))
            .collect(),
        Some(metric::Data::Histogram(data)) => data
            .data_points
            .iter()
            .map(|point| with(metric::Data::Histogram(Histogram { data_points: vec![point.clone()], ..data.clone() })))
            .collect(),
        Some(metric::Data::ExponentialHistogram(data)) => data
            .data_points
            .iter()
            .map(|point| {
                let data = ExponentialHistogram { data_points: vec![point.clone()], ..data.clone() };
                with(metric::Data::ExponentialHistogram(data))
            })
            .collect(),
        Some(metric::Data::Summary(data)) => data
            .data_points
            .iter()
            .map(|point| with(metric::Data::Summary(Summary { data_points: vec![point.clone()] })))
            .collect(),
    }
}

fn resource<'a, I: View<'a> + 'a>(of_resource: ResourceItemsView<'a, I>) -> Option<Resource> {
    of_resource.resource_bytes()?;
    let view = of_resource.resource();
    Some(Resource {
        attributes: key_values(view.attributes),
        dropped_attributes_count: view.dropped_attributes_count,
        entity_refs: view
            .entity_refs()
            .map(|entity| EntityRef {
                schema_url: entity.schema_url.to_owned(),
                r#type: entity.kind.to_owned(),
                id_keys: entity.id_keys().map(str::to_owned).collect(),
                description_keys: entity.description_keys().map(str::to_owned).collect(),
            })
            .collect(),
    })
}

fn scope<'a, I: View<'a> + 'a>(of_scope: ScopeItemsView<'a, I>) -> Option<InstrumentationScope> {
    of_scope.scope_bytes()?;
    let view = of_scope.scope();
    Some(InstrumentationScope {
        name: view.name.to_owned(),
        version: view.version.to_owned(),
        attributes: key_values(view.attributes),
        dropped_attributes_count: view.dropped_attributes_count,
    })
}

fn key_values(list: AttributesView<'_>) -> Vec<KeyValue> {
    list.iter().map(key_value).collect()
}

fn key_value(view: AttributeView<'_>) -> KeyValue {
    KeyValue { key: view.key().to_owned(), value: view.value_bytes().map(|_| value(view.value())), key_strindex: 0 }
}

fn value(view: AnyValueView<'_>) -> AnyValue {
    let value = match view {
        AnyValueView::Empty => None,
        AnyValueView::String(text) => Some(any_value::Value::StringValue(text.to_owned())),
        AnyValueView::Bool(flag) => Some(any_value::Value::BoolValue(flag)),
        AnyValueView::Int(number) => Some(any_value::Value::IntValue(number)),
        AnyValueView::Double(number) => Some(any_value::Value::DoubleValue(number)),
        AnyValueView::Bytes(bytes) => Some(any_value::Value::BytesValue(bytes.to_vec())),
        AnyValueView::Array(array) => {
            Some(any_value::Value::ArrayValue(ArrayValue { values: array.iter().map(value).collect() }))
        }
        AnyValueView::KeyValues(list) => Some(any_value::Value::KvlistValue(KeyValueList { values: key_values(list) })),
    };
    AnyValue { value }
}

fn span(view: SpanView<'_>) -> Span {
    Span {
        trace_id: view.trace_id.to_vec(),
        span_id: view.span_id.to_vec(),
        trace_state: view.trace_state.to_owned(),
        parent_span_id: view.parent_span_id.to_vec(),
        flags: view.flags,
        name: view.name.to_owned(),
        kind: view.kind,
        start_time_unix_nano: view.start_unix_nanos,
        end_time_unix_nano: view.end_unix_nanos,
        attributes: key_values(view.attributes),
        dropped_attributes_count: view.dropped_attributes_count,
        events: view
            .events()
            .map(|event| span::Event {
                time_unix_nano: event.time_unix_nanos,
                name: event.name.to_owned(),
                attributes: key_values(event.attributes),
                dropped_attributes_count: event.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: view.dropped_events_count,
        links: view
            .links()
            .map(|link| span::Link {
                trace_id: link.trace_id.to_vec(),
                span_id: link.span_id.to_vec(),
                trace_state: link.trace_state.to_owned(),
                attributes: key_values(link.attributes),
                dropped_attributes_count: link.dropped_attributes_count,
                flags: link.flags,
            })
            .collect(),
        dropped_links_count: view.dropped_links_count,
        status: view.status.set.then(|| Status { message: view.status.message.to_owned(), code: view.status.code }),
    }
}

fn log_record(view: LogRecordView<'_>) -> LogRecord {
    LogRecord {
        time_unix_nano: view.time_unix_nanos,
        observed_time_unix_nano: view.observed_unix_nanos,
        severity_number: view.severity_number,
        severity_text: view.severity_text.to_owned(),
        body: view.body_bytes().map(|_| value(view.body())),
        attributes: key_values(view.attributes),
        dropped_attributes_count: view.dropped_attributes_count,
        flags: view.flags,
        trace_id: view.trace_id.to_vec(),
        span_id: view.span_id.to_vec(),
        event_name: view.event_name.to_owned(),
    }
}

fn metric(view: MetricView<'_>) -> Metric {
    let data = match view.data {
        DataView::None => None,
        DataView::Gauge { points } => Some(metric::Data::Gauge(Gauge { data_points: points.iter().map(number_point).collect() })),
        DataView::Sum { points, temporality, monotonic } => Some(metric::Data::Sum(Sum {
            data_points: points.iter().map(number_point).collect(),
            aggregation_temporality: temporality,
            is_monotonic: monotonic,
        })),
        DataView::Histogram { points, temporality } => Some(metric::Data::Histogram(Histogram {
            data_points: points.iter().map(histogram_point).collect(),
            aggregation_temporality: temporality,
        })),
        DataView::ExponentialHistogram { points, temporality } => {
            Some(metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: points.iter().map(exponential_point).collect(),
                aggregation_temporality: temporality,
            }))
        }
        DataView::Summary { points } => {
            Some(metric::Data::Summary(Summary { data_points: points.iter().map(summary_point).collect() }))
        }
    };
    Metric {
        name: view.name.to_owned(),
        description: view.description.to_owned(),
        unit: view.unit.to_owned(),
        metadata: key_values(view.metadata),
        data,
    }
}

fn number_point(view: NumberPointView<'_>) -> NumberDataPoint {
    NumberDataPoint {
        attributes: key_values(view.attributes),
        start_time_unix_nano: view.start_unix_nanos,
        time_unix_nano: view.time_unix_nanos,
        exemplars: view.exemplars().map(exemplar).collect(),
        flags: view.flags,
        value: match view.value {
            NumberValue::None => None,
            NumberValue::Double(number) => Some(number_data_point::Value::AsDouble(number)),
            NumberValue::Int(number) => Some(number_data_point::Value::AsInt(number)),
        },
    }
}

fn histogram_point(view: HistogramPointView<'_>) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: key_values(view.attributes),
        start_time_unix_nano: view.start_unix_nanos,
        time_unix_nano: view.time_unix_nanos,
        count: view.count,
        sum: view.sum,
        bucket_counts: view.bucket_counts.iter().collect(),
        explicit_bounds: view.explicit_bounds.doubles().collect(),
        exemplars: view.exemplars().map(exemplar).collect(),
        flags: view.flags,
        min: view.min,
        max: view.max,
    }
}

fn exponential_point(view: ExponentialHistogramPointView<'_>) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: key_values(view.attributes),
        start_time_unix_nano: view.start_unix_nanos,
        time_unix_nano: view.time_unix_nanos,
        count: view.count,
        sum: view.sum,
        scale: view.scale,
        zero_count: view.zero_count,
        positive: buckets(view.positive),
        negative: buckets(view.negative),
        flags: view.flags,
        exemplars: view.exemplars().map(exemplar).collect(),
        min: view.min,
        max: view.max,
        zero_threshold: view.zero_threshold,
    }
}

fn buckets(view: BucketsView<'_>) -> Option<exponential_histogram_data_point::Buckets> {
    view.set.then(|| exponential_histogram_data_point::Buckets {
        offset: view.offset,
        bucket_counts: view.bucket_counts.iter().collect(),
    })
}

fn summary_point(view: SummaryPointView<'_>) -> SummaryDataPoint {
    SummaryDataPoint {
        attributes: key_values(view.attributes),
        start_time_unix_nano: view.start_unix_nanos,
        time_unix_nano: view.time_unix_nanos,
        count: view.count,
        sum: view.sum,
        quantile_values: view
            .quantiles()
            .map(|at| summary_data_point::ValueAtQuantile { quantile: at.quantile, value: at.value })
            .collect(),
        flags: view.flags,
    }
}

fn exemplar(view: ExemplarView<'_>) -> Exemplar {
    Exemplar {
        filtered_attributes: key_values(view.filtered_attributes),
        time_unix_nano: view.time_unix_nanos,
        span_id: view.span_id.to_vec(),
        trace_id: view.trace_id.to_vec(),
        value: match view.value {
            NumberValue::None => None,
            NumberValue::Double(number) => Some(exemplar::Value::AsDouble(number)),
            NumberValue::Int(number) => Some(exemplar::Value::AsInt(number)),
        },
    }
}
