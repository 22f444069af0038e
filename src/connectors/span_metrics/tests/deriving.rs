//! Derived metrics, decoded by the generated types.

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::{Metric, metric::Data, number_data_point},
    trace::v1::Span,
};

use super::harness::*;

fn metric<'m>(request: &'m ExportMetricsServiceRequest, name: &str) -> &'m Metric {
    let metrics = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
    metrics.into_iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name} in {request:?}"))
}

/// (value, start, time) of the only point of `calls`.
fn calls(request: &ExportMetricsServiceRequest) -> (i64, u64, u64) {
    let Some(Data::Sum(sum)) = &metric(request, "traces.span.metrics.calls").data else { panic!("no sum") };
    assert!(sum.is_monotonic);
    let [point] = &*sum.data_points else { panic!("{:?}", sum.data_points) };
    let Some(number_data_point::Value::AsInt(value)) = point.value else { panic!("not a whole number") };
    (value, point.start_time_unix_nano, point.time_unix_nano)
}

/// (count, sum, start, time) of the only point of `duration`.
fn duration(request: &ExportMetricsServiceRequest) -> (u64, f64, u64, u64) {
    let Some(Data::Histogram(histogram)) = &metric(request, "traces.span.metrics.duration").data else { panic!("no histogram") };
    let [point] = &*histogram.data_points else { panic!("{:?}", histogram.data_points) };
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    (point.count, point.sum.unwrap(), point.start_time_unix_nano, point.time_unix_nano)
}

#[test]
fn cumulative_points_keep_their_start_and_counters_begin_at_zero() {
    let mut bench = Bench::new("", false, true);
    bench.take(&request("cart", vec![span("a", 3), span("a", 4)]), T0);
    let first = bench.flush(T0 + 10 * SECOND);
    assert_eq!(calls(&first), (0, T0, T0 + 10 * SECOND));
    assert_eq!(duration(&first), (2, 7.0, T0, T0 + 10 * SECOND));
    bench.take(&request("cart", vec![span("a", 5)]), T0 + 11 * SECOND);
    let second = bench.flush(T0 + 20 * SECOND);
    assert_eq!(calls(&second), (3, T0, T0 + 20 * SECOND));
    assert_eq!(duration(&second), (3, 12.0, T0, T0 + 20 * SECOND));
    assert_eq!(metric(&second, "traces.span.metrics.duration").unit, "ms");
}

#[test]
fn the_last_flush_tells_real_values() {
    let mut bench = Bench::new("", false, true);
    bench.take(&request("cart", vec![span("a", 3), span("a", 4)]), T0);
    assert_eq!(calls(&bench.finish(T0 + 10 * SECOND)), (2, T0, T0 + 10 * SECOND));
}

#[test]
fn deltas_are_an_unbroken_chain() {
    let mut bench = Bench::new("aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA", false, true);
    bench.take(&request("cart", vec![span("a", 3)]), T0);
    let first = bench.flush(T0 + 10 * SECOND);
    assert_eq!(calls(&first), (1, T0, T0 + 10 * SECOND));
    assert_eq!(bench.flush(T0 + 20 * SECOND).resource_metrics, []);
    bench.take(&request("cart", vec![span("a", 3), span("a", 3)]), T0 + 25 * SECOND);
    let third = bench.flush(T0 + 30 * SECOND);
    assert_eq!(calls(&third), (2, T0 + 10 * SECOND, T0 + 30 * SECOND));
    assert_eq!(duration(&third), (2, 6.0, T0 + 10 * SECOND, T0 + 30 * SECOND));
}

#[test]
fn start_times_beyond_the_cache_are_forgotten() {
    let yaml = "{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, metric_timestamp_cache_size: 1}";
    let mut bench = Bench::new(yaml, false, true);
    bench.take(&request("cart", vec![span("a", 3)]), T0);
    bench.take(&request("cart", vec![span("b", 3)]), T0 + SECOND);
    bench.flush(T0 + 10 * SECOND);
    bench.take(&request("cart", vec![span("a", 3)]), T0 + 15 * SECOND);
    assert_eq!(calls(&bench.flush(T0 + 20 * SECOND)).1, T0 + 15 * SECOND);
}

#[test]
fn each_resource_is_told_of_with_its_attributes_in_one_scope() {
    let mut bench = Bench::new("instance_id: me", false, true);
    let resource = |host: &str| vec![text("service.name", "cart"), text("host.name", host)];
    let parts = ["h1", "h2"].map(|host| resource_spans(resource(host), vec![span("a", 1)]));
    bench.take(&ExportTraceServiceRequest { resource_spans: parts.into() }, T0);
    // The same attributes in another order are the same resource.
    let mut turned = resource("h1");
    turned.reverse();
    bench.take(&ExportTraceServiceRequest { resource_spans: vec![resource_spans(turned, vec![span("a", 1)])] }, T0);
    let told = bench.flush(T0 + SECOND);
    let hosts: Vec<_> = told.resource_metrics.iter().map(|r| r.resource.clone().unwrap().attributes).collect();
    assert_eq!(hosts, [resource("h1"), resource("h2")]);
    let scope = &told.resource_metrics[0].scope_metrics[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "spanmetricsconnector");
    let Some(Data::Histogram(histogram)) = &scope.metrics[1].data else { panic!() };
    let expected = [
        text("service.name", "cart"),
        text("span.name", "a"),
        text("span.kind", "SPAN_KIND_SERVER"),
        text("status.code", "STATUS_CODE_UNSET"),
        text("collector.instance.id", "me"),
    ];
    assert_eq!(histogram.data_points[0].attributes, expected);
    assert_eq!(histogram.data_points[0].count, 2);
}

#[test]
fn fractions_do_not_add_up_to_errors() {
    let mut bench = Bench::new("adjusted_counts: exact", false, true);
    // 1.5 spans each, in different buckets.
    let sampled = |millis| Span { trace_state: "ot=th:55555555555555".to_owned(), ..span("a", millis) };
    bench.take(&request("cart", (0..12).map(|k| sampled(1 << k)).collect()), T0);
    bench.flush(T0 + SECOND);
    let told = bench.flush(T0 + 2 * SECOND);
    let (count, sum, ..) = duration(&told);
    assert_eq!(count, 18);
    assert!((sum - 1.5 * 4095.0).abs() < 1e-6, "{sum}");
}

#[test]
fn exponential_histograms_count_every_span() {
    let mut bench = Bench::new("histogram: {exponential: {max_size: 10}}", false, true);
    let millis = [0, 1, 1, 3, 700, 12_345];
    bench.take(&request("cart", millis.map(|millis| span("a", millis)).into()), T0);
    let told = bench.flush(T0 + SECOND);
    let Some(Data::ExponentialHistogram(histogram)) = &metric(&told, "traces.span.metrics.duration").data else { panic!() };
    let point = &histogram.data_points[0];
    let positive = point.positive.as_ref().unwrap();
    assert_eq!((point.count, point.zero_count, point.min, point.max), (6, 1, Some(0.0), Some(12_345.0)));
    assert!(positive.bucket_counts.len() <= 10);
    // Each value lies in the bucket that its logarithm says.
    let base = 2_f64.powf(2_f64.powi(-point.scale));
    for (at, count) in positive.bucket_counts.iter().enumerate() {
        let low = base.powi(positive.offset + at as i32);
        let within =
            millis.iter().map(|m| *m as f64).filter(|m| *m > low * (1.0 + 1e-9) && *m <= low * base * (1.0 + 1e-9)).count();
        assert_eq!(*count, within as u64, "bucket {at}");
    }
}

#[test]
fn exemplars_are_told_of_once() {
    let mut bench = Bench::new("exemplars: {enabled: true, max_per_data_point: 1}", false, true);
    bench.take(&request("cart", vec![span("a", 3), span("a", 3000)]), T0);
    let exemplars = |told: &ExportMetricsServiceRequest| {
        let Some(Data::Histogram(histogram)) = &metric(told, "traces.span.metrics.duration").data else { panic!() };
        histogram.data_points[0].exemplars.clone()
    };
    let first = exemplars(&bench.flush(T0 + SECOND));
    assert_eq!((first.len(), &*first[0].trace_id, &*first[0].span_id), (1, &[7; 16][..], &[9; 8][..]));
    assert_eq!(exemplars(&bench.flush(T0 + 2 * SECOND)), []);
}

#[test]
fn the_sampling_method_is_told_when_asked() {
    let mut bench = Bench::rendering("{instance_id: 'off', series_identity: service, enable_metrics_sampling_method: true}");
    let sampled = Span { trace_state: "ot=th:8".to_owned(), ..span("a", 1) };
    bench.take(&request("cart", vec![span("a", 1), sampled]), T0);
    let page = bench.scrape();
    let calls = |method: &str| {
        let found = page.iter().find(|(series, _)| series.contains("calls_total") && series.contains(method));
        *found.unwrap_or_else(|| panic!("no {method} in {page:?}")).1
    };
    assert_eq!((calls("sampling_method=\"counted\""), calls("sampling_method=\"extrapolated\"")), (1.0, 2.0));
}
