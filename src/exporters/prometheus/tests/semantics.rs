//! What becomes of series over time.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::*;
use crate::internal_telemetry::{PROMETHEUS_CONFLICTS, PROMETHEUS_IGNORED, PROMETHEUS_INTERLEAVED};

const PLAIN: &str = r#"{"without_scope_info": true}"#;

fn histogram(temporality: u32, start: u64, time: u64, bounds: &[f64], counts: &[u64], sum: f64) -> Value {
    let texts: Vec<String> = counts.iter().map(u64::to_string).collect();
    json!({"name": "h", "histogram": {"aggregationTemporality": temporality, "dataPoints": [{
        "startTimeUnixNano": at(start), "timeUnixNano": at(time), "count": counts.iter().sum::<u64>().to_string(),
        "sum": sum, "explicitBounds": bounds, "bucketCounts": texts,
    }]}})
}

fn exponential(temporality: u32, start: u64, time: u64, scale: i32, offset: i32, counts: &[u64]) -> Value {
    let texts: Vec<String> = counts.iter().map(u64::to_string).collect();
    json!({"name": "e", "exponentialHistogram": {"aggregationTemporality": temporality, "dataPoints": [{
        "startTimeUnixNano": at(start), "timeUnixNano": at(time), "count": counts.iter().sum::<u64>().to_string(), "sum": 1.0,
        "scale": scale, "zeroCount": "0", "positive": {"offset": offset, "bucketCounts": texts},
    }]}})
}

#[test]
fn accumulates_delta_sums() {
    let bench = Bench::new(PLAIN);
    bench.send(&request(json!([sum("d", DELTA, json!([point(2.0, 0, 10)]))])));
    bench.send(&request(json!([sum("d", DELTA, json!([point(3.0, 10, 20)]))])));
    assert_eq!(value(&bench.text(), "d_total", &[]), 5.0);
}

#[test]
fn a_gap_between_deltas_never_lets_the_total_go_back() {
    let bench = Bench::new(PLAIN);
    bench.send(&request(json!([sum("d", DELTA, json!([point(7.0, 0, 10)]))])));
    bench.send(&request(json!([sum("d", DELTA, json!([point(3.0, 15, 20)]))])));
    assert_eq!(value(&bench.text(), "d_total", &[]), 10.0);
}

#[test]
fn counts_no_delta_twice() {
    let bench = Bench::new(PLAIN);
    for (start, time) in [(0, 10), (0, 10), (5, 15), (10, 20)] {
        bench.send(&request(json!([sum("d", DELTA, json!([point(2.0, start, time)]))])));
    }
    assert_eq!(value(&bench.text(), "d_total", &[]), 4.0);
    assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", "old"), 1);
    assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", "overlap"), 1);
}

#[test]
fn leaves_out_what_has_no_absolute_value() {
    let bench = Bench::new(PLAIN);
    let falling =
        json!({"name": "f", "sum": {"dataPoints": [point(2.0, 0, 10)], "isMonotonic": false, "aggregationTemporality": DELTA}});
    let unknown =
        json!({"name": "u", "sum": {"dataPoints": [point(2.0, 0, 10)], "isMonotonic": true, "aggregationTemporality": 0}});
    let nothing = json!({"name": "n", "gauge": {"dataPoints": [{"timeUnixNano": at(1)}]}});
    bench.send(&request(json!([falling, unknown, nothing, gauge("___", json!([point(1.0, 0, 1)]))])));
    assert!(names(&bench.text()).is_empty());
    for reason in ["non_monotonic_delta", "temporality", "no_value", "name"] {
        assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", reason), 1, "{reason}");
    }
}

#[test]
fn accumulates_delta_histograms_until_their_bounds_change() {
    let bench = Bench::new(PLAIN);
    bench.send(&request(json!([histogram(DELTA, 0, 10, &[1.0], &[2, 1], 1.5)])));
    bench.send(&request(json!([histogram(DELTA, 10, 20, &[1.0], &[3, 1], 2.5)])));
    let page = bench.text();
    assert_eq!(value(&page, "h_bucket", &[("le", "1")]), 5.0);
    assert_eq!(value(&page, "h_bucket", &[("le", "+Inf")]), 7.0);
    assert_eq!(value(&page, "h_sum", &[]), 4.0);
    bench.send(&request(json!([histogram(DELTA, 20, 30, &[2.0], &[3, 1], 2.5)])));
    let page = bench.text();
    assert_eq!(value(&page, "h_bucket", &[("le", "2")]), 3.0);
    assert_eq!(value(&page, "h_count", &[]), 4.0);
}

#[test]
fn accumulates_delta_exponential_histograms_of_different_scales() {
    let bench = Bench::new(PLAIN);
    // Scale 1, buckets 2 and 3; then scale 0, bucket 1, which is the same values.
    bench.send(&request(json!([exponential(DELTA, 0, 10, 1, 2, &[4, 1])])));
    bench.send(&request(json!([exponential(DELTA, 10, 20, 0, 1, &[6])])));
    let native = bench.native("e");
    assert_eq!((native.schema, native.sample_count, native.sample_sum), (0, 11, 2.0));
    assert_eq!(native.positive_span.iter().map(|span| (span.offset, span.length)).collect::<Vec<_>>(), [(2, 1)]);
    assert_eq!(native.positive_delta, [11]);
}

#[test]
fn later_exponential_points_replace_earlier_ones() {
    let bench = Bench::new(PLAIN);
    bench.send(&request(json!([exponential(CUMULATIVE, 0, 10, 0, 1, &[2])])));
    bench.send(&request(json!([exponential(CUMULATIVE, 0, 20, 0, 1, &[5])])));
    assert_eq!(bench.native("e").sample_count, 5);
}

#[test]
fn brings_exponential_histograms_into_the_range_that_prometheus_has() {
    let bench = Bench::new(PLAIN);
    // Scale 10 is four times as fine as 8: buckets -5 and -4 fall into -2 and -1 there.
    bench.send(&request(json!([exponential(CUMULATIVE, 0, 10, 10, -5, &[1, 1])])));
    let native = bench.native("e");
    assert_eq!(native.schema, 8);
    assert_eq!((native.positive_span[0].offset, native.positive_span[0].length), (-1, 2));
    bench.send(&request(json!([exponential(CUMULATIVE, 0, 20, -5, 0, &[1])])));
    bench.send(&request(json!([exponential(CUMULATIVE, 0, 20, 0, i32::MAX, &[1])])));
    assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", "range"), 2);
    assert_eq!(bench.native("e").sample_count, 2, "what cannot be shown replaces nothing");
}

#[test]
fn distant_buckets_cost_resolution_and_not_memory() {
    let bench = Bench::new(PLAIN);
    bench.send(&request(json!([exponential(DELTA, 0, 10, 8, -200_000, &[1])])));
    bench.send(&request(json!([exponential(DELTA, 10, 20, 8, 200_000, &[1])])));
    let native = bench.native("e");
    assert!(native.schema < 8, "{}", native.schema);
    assert_eq!(native.sample_count, 2);
    bench.send(&request(json!([exponential(DELTA, 20, 30, 8, i32::MIN, &[1])])));
    assert_eq!(bench.native("e").sample_count, 2);
    assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", "range"), 1);
}

#[test]
fn ignores_what_is_older_than_what_it_shows() {
    let bench = Bench::new(PLAIN);
    for (number, time) in [(1.0, 20), (2.0, 10)] {
        bench.send(&request(json!([gauge("g", json!([point(number, 0, time)]))])));
    }
    assert_eq!(value(&bench.text(), "g", &[]), 1.0);
    bench.send(&request(json!([gauge("g", json!([point(3.0, 0, 20)]))])));
    assert_eq!(value(&bench.text(), "g", &[]), 3.0, "of one time the last counts");
    assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", "old"), 1);
}

#[test]
fn a_point_without_a_value_ends_its_series_and_no_other() {
    let bench = Bench::new(PLAIN);
    let of = |name: &str, flags: u32, time: u64| json!({"asDouble": 1.0, "timeUnixNano": at(time), "flags": flags, "attributes": attributes(&[("a", name)])});
    bench.send(&request(json!([gauge("g", json!([of("1", 0, 1), of("2", 0, 1), of("3", 0, 1)]))])));
    bench.send(&request(json!([gauge("g", json!([of("1", 1, 2), of("2", 0, 2)]))])));
    let page = bench.text();
    assert_eq!(names(&page).len(), 2);
    assert_eq!(value(&page, "g", &[("a", "2")]), 1.0);
    assert_eq!(value(&page, "g", &[("a", "3")]), 1.0);
    assert_eq!(bench.applier.store.series(), 2);
}

#[test]
fn series_expire_after_their_last_point() {
    let mut bench = Bench::new(PLAIN);
    let both = [gauge("g", json!([point(1.0, 0, 1)])), gauge("other", json!([point(1.0, 0, 1)]))];
    bench.send(&request(json!(both)));
    bench.now += 200 * SECOND;
    bench.send(&request(json!([both[0]])));
    bench.now += 200 * SECOND;
    assert_eq!(names(&bench.text()), ["g"], "the page leaves expired series out before they are swept");
    bench.applier.sweep(bench.now - 300 * SECOND);
    assert_eq!(bench.applier.store.series(), 1);
    bench.now += 200 * SECOND;
    bench.applier.sweep(bench.now - 300 * SECOND);
    assert_eq!(bench.applier.store.series(), 0);
    assert!(bench.text().lines.is_empty(), "target_info expires too");
    bench.send(&request(json!([both[1]])));
    assert_eq!(names(&bench.text()), ["other"]);
}

#[test]
fn the_first_type_of_a_name_stays() {
    let bench = Bench::new(r#"{"without_scope_info": true, "translation_strategy": "NoTranslation"}"#);
    bench.send(&request(json!([gauge("m", json!([point(1.0, 0, 1)]))])));
    bench.send(&request(json!([sum("m", CUMULATIVE, json!([point(2.0, 0, 2)]))])));
    let page = bench.text();
    assert_eq!(page.kind("m"), Some("gauge"));
    assert_eq!(value(&page, "m", &[]), 1.0);
    assert_eq!(bench.counted(PROMETHEUS_CONFLICTS, "metric", "m"), 1);
    // Once nothing is left of the first, the name is free.
    bench.applier.sweep(bench.now + 1);
    bench.send(&request(json!([sum("m", CUMULATIVE, json!([point(2.0, 0, 2)]))])));
    assert_eq!(bench.text().kind("m"), Some("counter"));
}

#[test]
fn replicas_without_an_instance_id_do_not_overwrite_one_another() {
    let bench = Bench::new(PLAIN);
    let metrics = json!([gauge("g", json!([point(1.0, 0, 1)]))]);
    let named = |more: &[(&'static str, &'static str)]| {
        let mut resource = vec![("service.name", "cart")];
        resource.extend(more);
        request_of(&resource, metrics.clone())
    };
    bench.send(&named(&[("k8s.pod.name", "pod"), ("container.id", "c"), ("host.name", "h")]));
    bench.send(&named(&[("container.id", "c"), ("host.name", "h")]));
    bench.send(&named(&[("host.name", "h"), ("process.pid", "7")]));
    bench.send(&named(&[("host.name", "h")]));
    for last in [1, 2] {
        bench.send_from(&named(&[]), Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))));
    }
    bench.send(&named(&[]));
    bench.send(&named(&[("service.instance.id", "said"), ("k8s.pod.name", "pod")]));
    let page = bench.text();
    let mut instances: Vec<_> =
        page.lines.iter().filter(|line| line.name == "g").map(|line| line.labels.get("instance").map(String::as_str)).collect();
    instances.sort_unstable();
    let expected = [None, Some("10.0.0.1"), Some("10.0.0.2"), Some("c"), Some("h"), Some("h:7"), Some("pod"), Some("said")];
    assert_eq!(instances, expected);
}

#[test]
fn the_collectors_behaviour_about_instances_can_be_had() {
    let bench = Bench::new(r#"{"without_scope_info": true, "instance_fallback": false}"#);
    let resource = [("service.name", "cart"), ("k8s.pod.name", "pod")];
    bench
        .send_from(&request_of(&resource, json!([gauge("g", json!([point(1.0, 0, 1)]))])), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    assert_eq!(bench.text().value("g", &[("job", "cart")]), 1.0);
}

#[test]
fn holds_no_more_series_than_it_may_and_goes_on_with_those_it_has() {
    let mut bench = Bench::new(r#"{"without_scope_info": true, "max_series": 3}"#);
    let gauges = |names: &[&str], value: f64, second: u64| {
        let metrics: Vec<_> = names.iter().map(|name| gauge(name, json!([point(value, 0, second)]))).collect();
        request(json!(metrics))
    };
    bench.send(&gauges(&["a", "b", "c", "d", "e"], 1.0, 1));
    bench.send(&gauges(&["a", "d"], 2.0, 2));
    assert_eq!((bench.text().value("a", &[("job", "cart"), ("instance", "i")]), bench.applier.store.series()), (2.0, 3));
    assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", "full"), 3);
    assert!(!bench.text().lines.iter().any(|line| line.name == "d"));
    // Another label of a known name is another series.
    let points = json!([{"asDouble": 1.0, "timeUnixNano": "1", "attributes": [{"key": "k", "value": {"stringValue": "v"}}]}]);
    bench.send(&request(json!([gauge("a", points)])));
    assert_eq!(bench.counted(PROMETHEUS_IGNORED, "reason", "full"), 4);
    // What expires makes room.
    bench.now += 600 * SECOND;
    bench.applier.sweep(bench.now - 300 * SECOND);
    bench.send(&gauges(&["d"], 3.0, 3));
    assert_eq!((bench.text().value("d", &[("job", "cart"), ("instance", "i")]), bench.applier.store.series()), (3.0, 1));
}

#[test]
fn tells_of_two_writers_on_one_series() {
    let bench = Bench::new(PLAIN);
    for (number, start, time) in [(5.0, 10, 20), (3.0, 0, 21), (6.0, 10, 22), (4.0, 0, 23)] {
        bench.send(&request(json!([sum("c", CUMULATIVE, json!([point(number, start, time)]))])));
    }
    assert_eq!(bench.counted(PROMETHEUS_INTERLEAVED, "service", "cart"), 2);
    // A restart moves the start forward, once.
    bench.send(&request(json!([sum("r", CUMULATIVE, json!([point(5.0, 10, 20)]))])));
    bench.send(&request(json!([sum("r", CUMULATIVE, json!([point(1.0, 30, 31)]))])));
    assert_eq!(bench.counted(PROMETHEUS_INTERLEAVED, "service", "cart"), 2);
}

#[test]
fn one_target_info_a_job_and_instance() {
    let bench = Bench::new(PLAIN);
    let metrics = json!([gauge("g", json!([point(1.0, 0, 1)]))]);
    let resource = |version: &'static str| {
        [("service.name", "a"), ("service.namespace", "n"), ("service.instance.id", "i"), ("v.1", version)]
    };
    bench.send(&request_of(&resource("1"), metrics.clone()));
    bench.send(&request_of(&resource("2"), metrics.clone()));
    bench.send(&request_of(&[("service.name", "bare"), ("service.instance.id", "i")], metrics.clone()));
    let page = bench.text();
    assert_eq!(page.value("target_info", &[("job", "n/a"), ("instance", "i"), ("v_1", "2")]), 1.0);
    assert_eq!(page.lines.iter().filter(|line| line.name == "target_info").count(), 1, "none where there is nothing to say");
    assert_eq!(page.help["target_info"], "Target metadata");
}

#[test]
fn attributes_never_take_the_place_of_a_label_of_ours() {
    let bench = Bench::new(r#"{"const_labels": {"region": "eu"}, "without_scope_info": true}"#);
    let taken =
        attributes(&[("job", "j"), ("instance", "x"), ("region", "r"), ("le", "l"), ("__name__", "n"), ("quantile", "q")]);
    let point = json!({"asDouble": 1.0, "timeUnixNano": at(1), "attributes": taken});
    let classic = json!({"timeUnixNano": at(1), "count": "1", "sum": 1.0, "explicitBounds": [1.0], "bucketCounts": ["1", "0"], "attributes": taken});
    let histogram = json!({"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [classic]}});
    bench.send(&request(json!([gauge("g", json!([point])), histogram])));
    let page = bench.text();
    let common = [
        ("exported_job", "j"),
        ("exported_instance", "x"),
        ("exported_region", "r"),
        ("region", "eu"),
        ("exported___name__", "n"),
        ("quantile", "q"),
    ];
    let mut labels = common.to_vec();
    labels.push(("le", "l"));
    assert_eq!(value(&page, "g", &labels), 1.0);
    let mut labels = common.to_vec();
    labels.extend([("exported_le", "l"), ("le", "1")]);
    assert_eq!(value(&page, "h_bucket", &labels), 1.0);
}

#[test]
fn joins_attributes_that_become_one_label() {
    let bench = Bench::new(PLAIN);
    let colliding = attributes(&[("a_b", "3"), ("a.b", "2"), ("a-b", "1")]);
    bench.send(&request(json!([gauge("g", json!([{"asDouble": 1.0, "timeUnixNano": at(1), "attributes": colliding}]))])));
    assert_eq!(value(&bench.text(), "g", &[("a_b", "1;2;3")]), 1.0);
}

#[test]
fn the_order_of_attributes_makes_no_series() {
    let bench = Bench::new(PLAIN);
    for (number, pairs) in [(1.0, [("a", "1"), ("b", "2")]), (2.0, [("b", "2"), ("a", "1")])] {
        let point = json!({"asDouble": number, "timeUnixNano": at(1), "attributes": attributes(&pairs)});
        bench.send(&request(json!([gauge("g", json!([point]))])));
    }
    let page = bench.text();
    assert_eq!(names(&page), ["g"]);
    assert_eq!(value(&page, "g", &[("a", "1"), ("b", "2")]), 2.0);
}

#[test]
fn promotes_the_resource_attributes_that_are_asked_for() {
    let settings = r#"{"without_scope_info": true, "resource_constant_labels": {"included": ["k8s.*", "service.name"], "excluded": ["*.uid"]}}"#;
    let bench = Bench::new(settings);
    let resource =
        [("service.name", "cart"), ("service.instance.id", "i"), ("k8s.pod.name", "p"), ("k8s.pod.uid", "u"), ("host", "h")];
    bench.send(&request_of(&resource, json!([gauge("g", json!([point(1.0, 0, 1)]))])));
    assert_eq!(value(&bench.text(), "g", &[("k8s_pod_name", "p"), ("service_name", "cart")]), 1.0);
    let bench = Bench::new(
        r#"{"without_scope_info": true, "resource_to_telemetry_conversion": {"enabled": true, "exclude_service_attributes": true}}"#,
    );
    bench.send(&request_of(&resource, json!([gauge("g", json!([point(1.0, 0, 1)]))])));
    assert_eq!(value(&bench.text(), "g", &[("k8s_pod_name", "p"), ("k8s_pod_uid", "u"), ("host", "h")]), 1.0);
}

#[test]
fn keeps_one_exemplar_a_bucket_and_those_of_before_if_none_come() {
    let bench = Bench::new(PLAIN);
    let exemplar = |value: f64, second: u64| {
        json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "asDouble": value, "timeUnixNano": at(second),
            "filteredAttributes": attributes(&[("user", "u")])})
    };
    let mut metric = histogram(CUMULATIVE, 0, 10, &[1.0, 2.0], &[1, 1, 1], 1.0);
    metric["histogram"]["dataPoints"][0]["exemplars"] =
        json!([exemplar(0.5, 5), exemplar(0.7, 6), exemplar(0.6, 4), exemplar(9.0, 3)]);
    bench.send(&request(json!([metric])));
    bench.send(&request(json!([histogram(CUMULATIVE, 0, 20, &[1.0, 2.0], &[2, 1, 1], 1.0)])));
    let page = String::from_utf8(bench.page(Format::OpenMetrics1_0_0, Escaping::Underscores)).unwrap();
    let page = reader::read(&page, true);
    let shown: Vec<_> =
        page.lines.iter().filter_map(|line| line.exemplar.clone().map(|told| (line.labels["le"].clone(), told))).collect();
    assert_eq!(shown.len(), 2);
    assert_eq!((shown[0].0.as_str(), shown[0].1.1), ("1.0", 0.7));
    assert_eq!(shown[0].1.0["trace_id"], "5b8efff798038103d269b633813fc60c");
    assert_eq!(shown[0].1.0["user"], "u");
    assert_eq!((shown[1].0.as_str(), shown[1].1.1), ("+Inf", 9.0));
}

#[test]
fn a_histogram_with_wrong_counts_is_still_one() {
    let bench = Bench::new(PLAIN);
    let point = json!({"timeUnixNano": at(1), "count": "3", "sum": 1.0, "explicitBounds": [1.0, 2.0], "bucketCounts": ["9"]});
    bench.send(&request(json!([{"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [point]}}])));
    let page = bench.text();
    assert_eq!(value(&page, "h_bucket", &[("le", "2")]), 9.0);
    assert_eq!(value(&page, "h_bucket", &[("le", "+Inf")]), 9.0);
    assert_eq!(value(&page, "h_count", &[]), 9.0);
}

#[test]
fn bytes_that_are_no_request_change_nothing() {
    let bench = Bench::new(PLAIN);
    for length in 0..64 {
        bench.applier.apply(&vec![0x0a; length], None, bench.now);
        bench.applier.apply(&vec![0xff; length], None, bench.now);
    }
    let whole =
        payload(&request(json!([exponential(DELTA, 0, 10, 1, 2, &[4, 1]), histogram(DELTA, 0, 10, &[1.0], &[2, 1], 1.5)])));
    for cut in 0..whole.len() {
        bench.applier.apply(&whole[..cut], None, bench.now);
    }
    bench.page(Format::Protobuf, Escaping::Dots);
}
