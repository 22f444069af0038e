//! What points of each kind become.

use super::{fake::Kept, *};

const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

fn kinds(flags: u32) -> Value {
    let point = |more: Value| {
        let mut point = json!({"startTimeUnixNano": at(-1000), "timeUnixNano": at(0), "flags": flags});
        point.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        point
    };
    let exemplar = json!({"timeUnixNano": at(-5), "asDouble": 0.4, "traceId": "0102030405060708090a0b0c0d0e0f10",
        "spanId": "0102030405060708", "filteredAttributes": attributes(&[("user.id", "u1")])});
    let late = json!({"timeUnixNano": at(-2), "asDouble": 7.0});
    json!([
        {"name": "room.temperature", "unit": "Cel", "description": "How warm.", "gauge": {"dataPoints": [point(json!({"asDouble": 21.5}))]}},
        {"name": "http.requests", "unit": "{request}", "description": "Calls.", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
            "dataPoints": [point(json!({"asInt": "7", "exemplars": [exemplar]}))]}},
        {"name": "queue", "sum": {"aggregationTemporality": 2, "dataPoints": [point(json!({"asInt": "-3"}))]}},
        {"name": "duration", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [point(json!({
            "count": "6", "sum": 12.5, "explicitBounds": [0.5, 1e6], "bucketCounts": ["1", "2", "3"], "exemplars": [late, exemplar]}))]}},
        {"name": "sizes", "unit": "By", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [point(json!({
            "count": "9", "sum": 100.0, "scale": 1, "zeroCount": "2", "zeroThreshold": 0.001,
            "positive": {"offset": 3, "bucketCounts": ["4", "0", "1"]}, "negative": {"offset": -2, "bucketCounts": ["2"]}}))]}},
        {"name": "latency", "summary": {"dataPoints": [point(json!({
            "count": "5", "sum": 2.5, "quantileValues": [{"quantile": 0.5, "value": 0.4}, {"quantile": 0.99, "value": 1.5}]}))]}},
    ])
}

const FLOATS: &[(&str, f64)] = &[
    ("room_temperature_celsius{instance=\"i\",job=\"cart\"}", 21.5),
    ("http_requests_total{instance=\"i\",job=\"cart\"}", 7.0),
    ("queue{instance=\"i\",job=\"cart\"}", -3.0),
    ("duration_seconds_bucket{instance=\"i\",job=\"cart\",le=\"0.5\"}", 1.0),
    ("duration_seconds_bucket{instance=\"i\",job=\"cart\",le=\"1e+06\"}", 3.0),
    ("duration_seconds_bucket{instance=\"i\",job=\"cart\",le=\"+Inf\"}", 6.0),
    ("duration_seconds_sum{instance=\"i\",job=\"cart\"}", 12.5),
    ("duration_seconds_count{instance=\"i\",job=\"cart\"}", 6.0),
    ("latency{instance=\"i\",job=\"cart\",quantile=\"0.5\"}", 0.4),
    ("latency{instance=\"i\",job=\"cart\",quantile=\"0.99\"}", 1.5),
    ("latency_sum{instance=\"i\",job=\"cart\"}", 2.5),
    ("latency_count{instance=\"i\",job=\"cart\"}", 5.0),
];
const NATIVE: &str = "sizes_bytes{instance=\"i\",job=\"cart\"}";

#[tokio::test]
async fn every_kind_is_written_in_both_versions() {
    for version in ["send_metadata: true\n", TWO] {
        let fake = healthy().await;
        let exporter = exporter(&fake, version);
        assert_eq!(send(&exporter, metrics(&kinds(0))).await, Outcome::DELIVERED);
        fake.assert_well_formed();
        let state = fake.state.lock();
        for (name, value) in FLOATS {
            assert_eq!(state.floats(name), [(START, *value)], "{name}");
        }
        assert_eq!(state.stored.len(), FLOATS.len() + 1, "{:#?}", state.stored.keys());
        let [(START, Kept::Native(native))] = &state.stored[NATIVE][..] else { panic!("{:?}", state.stored[NATIVE]) };
        assert_eq!((native.count, native.sum, native.schema, native.zero_count, native.zero_threshold), (9, 100.0, 1, 2, 0.001));
        let spans = |spans: &[messages::BucketSpan]| spans.iter().map(|it| (it.offset, it.length)).collect::<Vec<_>>();
        assert_eq!((spans(&native.positive_spans), native.positive_deltas.clone()), (vec![(4, 3)], vec![4, -4, 1]));
        assert_eq!((spans(&native.negative_spans), native.negative_deltas.clone()), (vec![(-1, 1)], vec![2]));
    }
}

#[tokio::test]
async fn exemplars_go_with_the_bucket_they_fell_into() {
    for version in ["", TWO] {
        let fake = healthy().await;
        assert_eq!(send(&exporter(&fake, version), metrics(&kinds(0))).await, Outcome::DELIVERED);
        let state = fake.state.lock();
        let of = |name: &str| -> Vec<(f64, i64, Vec<String>)> {
            let exemplars = state.exemplars.get(name).into_iter().flatten();
            exemplars
                .map(|it| {
                    let labels = it.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
                    (it.value, it.timestamp, labels)
                })
                .collect()
        };
        let ids = ["trace_id=0102030405060708090a0b0c0d0e0f10", "span_id=0102030405060708", "user_id=u1"].map(str::to_owned);
        assert_eq!(of(FLOATS[1].0), [(0.4, START - 5, ids.to_vec())]);
        assert_eq!(of(FLOATS[3].0), [(0.4, START - 5, ids.to_vec())]);
        assert_eq!(of(FLOATS[4].0), [(7.0, START - 2, Vec::new())]);
        assert_eq!(state.exemplars.len(), 3);
    }
}

#[tokio::test]
async fn metadata_says_what_a_series_is() {
    let fake = healthy().await;
    assert_eq!(send(&exporter(&fake, ""), metrics(&kinds(0))).await, Outcome::DELIVERED);
    assert!(fake.state.lock().metadata.is_empty(), "version 1 says it where it is asked for");
    assert_eq!(send(&exporter(&fake, "send_metadata: true"), metrics(&kinds(0))).await, Outcome::DELIVERED);
    let known = |name: &str| {
        let state = fake.state.lock();
        let metadata = &state.metadata[name];
        (metadata.kind, metadata.help.clone(), metadata.unit.clone())
    };
    assert_eq!(known("room_temperature_celsius"), (2, "How warm.".to_owned(), "celsius".to_owned()));
    assert_eq!(known("http_requests_total"), (1, "Calls.".to_owned(), String::new()));
    assert_eq!((known("duration_seconds").0, known("sizes_bytes").0, known("latency").0), (3, 3, 5));
    assert_eq!(send(&exporter(&fake, TWO), metrics(&kinds(0))).await, Outcome::DELIVERED);
    assert_eq!(known("duration_seconds_bucket"), (3, String::new(), "seconds".to_owned()));
    let state = fake.state.lock();
    assert_eq!((state.starts[FLOATS[1].0], state.starts[FLOATS[0].0], state.starts[NATIVE]), (START - 1000, 0, START - 1000));
}

#[tokio::test]
async fn a_series_that_has_ended_gets_a_stale_marker() {
    let fake = healthy().await;
    assert_eq!(send(&exporter(&fake, ""), metrics(&kinds(1))).await, Outcome::DELIVERED);
    fake.assert_well_formed();
    let state = fake.state.lock();
    for (name, _) in FLOATS {
        let [(START, value)] = state.floats(name)[..] else { panic!("{name}") };
        assert_eq!(value.to_bits(), STALE_BITS, "{name}");
    }
    let [(START, Kept::Native(native))] = &state.stored[NATIVE][..] else { panic!("{:?}", state.stored[NATIVE]) };
    assert_eq!((native.sum.to_bits(), native.count), (STALE_BITS, 0));
}

#[tokio::test]
async fn what_has_no_form_is_told_item_by_item_and_the_rest_is_written() {
    let fake = healthy().await;
    let delta = |name: &str| {
        json!({"name": name, "sum": {"aggregationTemporality": 1, "isMonotonic": true,
            "dataPoints": [{"asInt": "1", "timeUnixNano": at(0)}, {"asInt": "2", "timeUnixNano": at(1)}]}})
    };
    let none = json!({"name": "none", "gauge": {"dataPoints": [{"timeUnixNano": at(0)}]}});
    let coarse = json!({"name": "coarse", "exponentialHistogram": {"aggregationTemporality": 2,
        "dataPoints": [{"timeUnixNano": at(0), "scale": -6, "count": "0"}]}});
    let nameless = gauge("…", &[("a", 0, 1.0)]);
    let ended = json!({"name": "ended", "gauge": {"dataPoints": [{"timeUnixNano": at(0), "flags": 1}]}});
    let request =
        metrics(&json!([gauge("a", &[("a", 0, 1.0)]), delta("d"), gauge("b", &[("a", 0, 2.0)]), none, coarse, nameless, ended]));
    let verdicts = each(send(&exporter(&fake, ""), request).await);
    assert_eq!((verdicts.unsupported, verdicts.rejected, verdicts.again), (vec![1, 2, 4, 5, 6], vec![], None));
    let state = fake.state.lock();
    let names: Vec<&str> = state.stored.keys().map(|name| name.split_once('{').unwrap().0).collect();
    assert_eq!(names, ["a", "b", "ended"]);
}

#[tokio::test]
async fn resources_scopes_and_settings_become_labels() {
    let fake = healthy().await;
    let resource = &[
        ("service.name", "cart"),
        ("service.namespace", "shop"),
        ("k8s.pod.name", "cart-7"),
        ("cloud.region", "eu"),
        ("empty", ""),
    ];
    let point = json!([{"name": "up.time", "gauge": {"dataPoints": [
        {"asInt": "1", "timeUnixNano": at(0), "attributes": attributes(&[("cluster", "own"), ("le", "x"), ("void", "")])}]}}]);
    let settings = "namespace: acme\nexternal_labels: {cluster: eu-1, 'site.name': b}\nadd_metric_suffixes: false\n\
        resource_constant_labels: {included: ['cloud.*']}\ndisable_scope_info: false";
    let mut request = request_of(resource, &point);
    request["resourceMetrics"][0]["scopeMetrics"][0]["scope"] = json!({"name": "lib", "version": "1"});
    let exporter = exporter_of(&fake, settings);
    assert_eq!(send(&exporter, batch(&request)).await, Outcome::DELIVERED);
    fake.assert_well_formed();
    let state = fake.state.lock();
    let names: Vec<&String> = state.stored.keys().collect();
    assert_eq!(
        names,
        [
            "acme_target_info{cloud_region=\"eu\",cluster=\"eu-1\",instance=\"cart-7\",job=\"shop/cart\",k8s_pod_name=\"cart-7\",site_name=\"b\"}",
            "acme_up_time{cloud_region=\"eu\",cluster=\"own\",instance=\"cart-7\",job=\"shop/cart\",le=\"x\",\
                otel_scope_name=\"lib\",otel_scope_version=\"1\",site_name=\"b\"}",
        ]
    );
}

fn exporter_of(fake: &Fake, settings: &str) -> Arc<dyn Exporter> {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(&format!("endpoint: {}\n{settings}", fake.url())), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    config.build(build_context(Extensions::default())).unwrap()
}

#[tokio::test]
async fn target_info_is_said_once_a_minute_of_the_datas_time() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "");
    let resource = &[("service.name", "cart"), ("service.instance.id", "i"), ("cloud.region", "eu")];
    for seconds in [0, 30, 59, 60, 90, 125] {
        let request = request_of(resource, &json!([gauge("a", &[("x", seconds * 1000, 1.0)])]));
        assert_eq!(send(&exporter, batch(&request)).await, Outcome::DELIVERED);
    }
    let name = "target_info{cloud_region=\"eu\",instance=\"i\",job=\"cart\"}";
    assert_eq!(fake.state.lock().floats(name), [(START, 1.0), (START + 60_000, 1.0), (START + 125_000, 1.0)]);
    let quiet = exporter_of(&fake, "target_info: {enabled: false}");
    let request = request_of(&[("service.name", "other"), ("cloud.region", "eu")], &json!([gauge("a", &[("x", 0, 1.0)])]));
    assert_eq!(send(&quiet, batch(&request)).await, Outcome::DELIVERED);
    assert!(!fake.state.lock().stored.keys().any(|name| name.contains("target_info") && name.contains("other")));
}

/// Labels that the format keeps for itself, among those that a resource gives to each series.
#[tokio::test]
async fn a_resource_that_has_le_costs_no_bucket() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "resource_to_telemetry_conversion: {enabled: true}");
    let histogram = json!([{"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
        {"timeUnixNano": at(0), "count": "3", "sum": 1.0, "explicitBounds": [1.0], "bucketCounts": ["1", "2"]}]}}]);
    let resource = &[("service.name", "cart"), ("service.instance.id", "i"), ("le", "x")];
    assert_eq!(send(&exporter, batch(&request_of(resource, &histogram))).await, Outcome::DELIVERED);
    fake.assert_well_formed();
    let state = fake.state.lock();
    let buckets: Vec<&String> = state.stored.keys().filter(|name| name.starts_with("h_bucket")).collect();
    assert_eq!(buckets.len(), 2, "{:#?}", state.stored.keys());
    assert!(buckets.iter().all(|name| name.contains("exported_le=\"x\"") && name.contains(",le=\"")), "{buckets:?}");
}

/// What would be written many thousand times over is left out; what lies beside it is written.
#[tokio::test]
async fn what_grows_beyond_all_measure_is_left_out_and_named() {
    let fake = healthy().await;
    let bounds: Vec<f64> = (0..20_000).map(f64::from).collect();
    let counts = vec!["1"; 20_001];
    let histogram = |text: &str| {
        json!({"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": at(0), "count": "20001",
            "explicitBounds": bounds, "bucketCounts": counts, "attributes": attributes(&[("text", text)])}]}})
    };
    // Of one metric: too long a text, one that is too long for so many buckets, and one that is not.
    let request = metrics(&json!([
        gauge("a", &[(&"x".repeat(70_000), 0, 1.0), ("short", 0, 1.0)]),
        histogram(&"x".repeat(2000)),
        gauge(&"n".repeat(70_000), &[("a", 0, 1.0)]),
        gauge("b", &[("a", 0, 1.0)]),
    ]));
    let verdicts = each(send(&exporter(&fake, ""), request).await);
    assert_eq!((verdicts.unsupported, verdicts.rejected, verdicts.again), (vec![0, 2, 3], vec![], None));
    fake.assert_well_formed();
    let names: Vec<String> = fake.state.lock().stored.keys().map(|name| name.split_once('{').unwrap().0.to_owned()).collect();
    assert_eq!(names, ["a", "b"]);
}
