//! What is counted, and under which labels.
#![expect(clippy::float_cmp, reason = "sums of few whole numbers are exact")]

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, Status},
};
use proptest::prelude::*;

use super::harness::*;

const BOUNDS: [f64; 16] =
    [2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1000.0, 1400.0, 2000.0, 5000.0, 10_000.0, 15_000.0];
const NO_ID: &str = "instance_id: 'off'";

/// The labels a series has when it has nothing but the defaults.
fn labels(service: &str, name: &str, kind: &str, status: &str) -> String {
    format!(
        "job=\"{service}\",otel_scope_name=\"spanmetricsconnector\",otel_scope_schema_url=\"\",otel_scope_version=\"\",\
         service_name=\"{service}\",span_kind=\"SPAN_KIND_{kind}\",span_name=\"{name}\",status_code=\"STATUS_CODE_{status}\""
    )
}

fn calls(labels: &str) -> String {
    format!("traces_span_metrics_calls_total{{{labels}}}")
}

/// Counting as one would who has time: owned strings, a map, one pass over the bounds for each span.
fn naive(requests: &[ExportTraceServiceRequest]) -> BTreeMap<String, f64> {
    const KINDS: [&str; 6] = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
    const STATUSES: [&str; 3] = ["UNSET", "OK", "ERROR"];
    let mut page = BTreeMap::new();
    for resource_spans in requests.iter().flat_map(|request| &request.resource_spans) {
        let attributes = resource_spans.resource.iter().flat_map(|resource| &resource.attributes);
        let name = attributes.filter(|a| a.key == "service.name").find_map(|a| match a.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            _ => None,
        });
        let Some(service) = name else { continue };
        for span in resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans) {
            let status = STATUSES[span.status.as_ref().map_or(0, |status| status.code) as usize];
            let labels = labels(&service, &span.name, KINDS[span.kind as usize], status);
            let nanos = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
            let millis = nanos as f64 / 1e6;
            let mut add = |name: &str, labels: &str, value: f64| {
                *page.entry(format!("{name}{{{labels}}}")).or_insert(0.0) += value;
            };
            add("traces_span_metrics_calls_total", &labels, 1.0);
            add("traces_span_metrics_duration_milliseconds_count", &labels, 1.0);
            add("traces_span_metrics_duration_milliseconds_sum", &labels, millis);
            for bound in BOUNDS {
                let labels = format!("{labels},le=\"{bound}\"");
                add("traces_span_metrics_duration_milliseconds_bucket", &labels, f64::from(u8::from(millis <= bound)));
            }
        }
    }
    page
}

prop_compose! {
    fn any_span()(
        name in prop::sample::select(vec!["GET /", "", "a name that is rather longer than the forty bytes a row keeps inside", "é–x"]),
        kind in 0..6_i32,
        status in prop::option::of(0..3_i32),
        start in 0..3_u64,
        nanos in prop_oneof![Just(0_u64), 0..30_000_000_000_u64, prop::sample::select(vec![2_000_000_u64, 2_000_001, 1_999_999, 15_000_000_000])],
        backwards in prop::bool::weighted(0.1),
    ) -> Span {
        let (start, end) = if backwards { (T0 + nanos, T0) } else { (T0 + start, T0 + start + nanos) };
        Span {
            name: name.to_owned(),
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            status: status.map(|code| Status { code, message: String::new() }),
            ..span("", 0)
        }
    }
}

prop_compose! {
    fn any_request()(
        parts in prop::collection::vec(
            (prop::sample::select(vec![Some("cart"), Some("web"), Some(""), None]), prop::collection::vec(any_span(), 0..80)),
            0..5,
        )
    ) -> ExportTraceServiceRequest {
        let resource_spans = parts.into_iter().map(|(service, spans)| {
            resource_spans(service.map(|service| text("service.name", service)).into_iter().collect(), spans)
        });
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn counts_as_one_would_by_hand(requests in prop::collection::vec(any_request(), 0..6), with_index: bool) {
        let mut bench = Bench::rendering(NO_ID);
        if !with_index {
            bench = bench.without_index();
        }
        for (at, request) in requests.iter().enumerate() {
            bench.take(request, T0 + at as u64);
        }
        prop_assert_eq!(bench.scrape(), naive(&requests));
    }

    #[test]
    fn both_families_say_the_same_from_one_row(request in any_request()) {
        let mut bench = Bench::rendering("{instance_id: 'off', families: [collector, tempo], series_identity: service}");
        bench.take(&request, T0);
        let page = bench.scrape();
        for (series, count) in &page {
            if let Some(labels) = series.strip_prefix("traces_span_metrics_calls_total{") {
                let labels = labels.replace("service_name=", "service=");
                prop_assert_eq!(page[&format!("traces_spanmetrics_calls_total{{{labels}")], *count);
                prop_assert_eq!(page[&format!("traces_spanmetrics_latency_count{{{labels}")], *count);
            }
            if let Some(labels) = series.strip_prefix("traces_span_metrics_duration_milliseconds_bucket{") {
                let labels = labels.replace("service_name=", "service=");
                for (millis, seconds) in [("2", "0.002"), ("4", "0.004"), ("8", "0.008")] {
                    if let Some(rest) = labels.strip_suffix(&format!("le=\"{millis}\"}}")) {
                        prop_assert_eq!(page[&format!("traces_spanmetrics_latency_bucket{{{rest}le=\"{seconds}\"}}")], *count);
                    }
                }
            }
            if let Some(labels) = series.strip_prefix("traces_span_metrics_duration_milliseconds_sum{") {
                let labels = labels.replace("service_name=", "service=");
                let seconds = page[&format!("traces_spanmetrics_latency_sum{{{labels}")];
                prop_assert!((seconds - count / 1000.0).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn a_bound_belongs_to_its_bucket() {
    let mut bench = Bench::rendering(NO_ID);
    bench.take(&request("cart", vec![span("a", 2), span("a", 15_000), span("a", 15_001)]), T0);
    let page = bench.scrape();
    let labels = labels("cart", "a", "SERVER", "UNSET");
    let bucket = |le: &str| page[&format!("traces_span_metrics_duration_milliseconds_bucket{{{labels},le=\"{le}\"}}")];
    assert_eq!((bucket("2"), bucket("10000"), bucket("15000")), (1.0, 1.0, 2.0));
    assert_eq!(page[&format!("traces_span_metrics_duration_milliseconds_count{{{labels}}}")], 3.0);
}

#[test]
fn the_other_familys_bounds_are_whole_milliseconds() {
    let mut bench = Bench::rendering("{instance_id: 'off', families: [tempo], series_identity: service}");
    bench.take(&request("cart", (0..14).map(|k| span("a", 2 << k)).collect()), T0);
    let page = bench.scrape();
    let counts: Vec<f64> = (0..14)
        .map(|k| {
            let le = f64::from(2 << k) / 1000.0;
            let labels = "service=\"cart\",span_kind=\"SPAN_KIND_SERVER\",span_name=\"a\",status_code=\"STATUS_CODE_UNSET\"";
            page[&format!("traces_spanmetrics_latency_bucket{{{labels},le=\"{le}\"}}")]
        })
        .collect();
    assert_eq!(counts, (1..15).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn a_span_that_ends_before_it_begins_took_no_time() {
    let mut bench = Bench::rendering(NO_ID);
    let mut backwards = span("a", 0);
    backwards.start_time_unix_nano += 5_000_000;
    bench.take(&request("cart", vec![backwards]), T0);
    let labels = labels("cart", "a", "SERVER", "UNSET");
    let page = bench.scrape();
    assert_eq!(page[&calls(&labels)], 1.0);
    assert_eq!(page[&format!("traces_span_metrics_duration_milliseconds_sum{{{labels}}}")], 0.0);
    assert_eq!(bench.own("weir_span_metrics_backwards_spans"), 1.0);
}

#[test]
fn nameless_services_are_skipped_or_counted_under_a_stand_in() {
    let nameless = ExportTraceServiceRequest { resource_spans: vec![resource_spans(vec![text("a", "b")], vec![span("x", 1)])] };
    let mut skips = Bench::rendering(NO_ID);
    skips.take(&nameless, T0);
    assert_eq!(skips.scrape(), BTreeMap::new());
    assert_eq!(skips.connector.take_dropped(), Some(("no_service_name", 1)));
    assert_eq!(skips.connector.take_dropped(), None);
    let mut counts = Bench::rendering("{instance_id: 'off', series_identity: service, unknown_service: unknown_service}");
    counts.take(&nameless, T0);
    let page = counts.scrape();
    assert!(page.keys().any(|series| series.contains("service_name=\"unknown_service\"")), "{page:?}");
    assert_eq!(counts.own("weir_span_metrics_nameless_spans"), 1.0);
}

#[test]
fn only_the_kinds_that_are_asked_for_count() {
    let mut bench = Bench::rendering("{instance_id: 'off', span_kinds: [server, client]}");
    let of_kind = |kind| Span { kind, ..span("a", 1) };
    bench.take(&request("cart", (0..6).map(of_kind).collect()), T0);
    let page = bench.scrape();
    let counted: Vec<f64> = ["SERVER", "CLIENT"].map(|kind| page[&calls(&labels("cart", "a", kind, "UNSET"))]).into();
    assert_eq!(counted, [1.0, 1.0]);
    assert_eq!(page.keys().filter(|series| series.starts_with("traces_span_metrics_calls_total")).count(), 2);
    assert_eq!(bench.connector.take_dropped(), Some(("span_kind", 4)));
}

#[test]
fn resources_with_the_same_job_and_instance_add_up() {
    for derives in [false, true] {
        let mut bench = Bench::new(NO_ID, true, derives);
        for host in ["h1", "h2"] {
            let attributes = vec![text("service.name", "cart"), text("host.name", host)];
            let resource_spans = vec![resource_spans(attributes, vec![span("a", 3)])];
            bench.take(&ExportTraceServiceRequest { resource_spans }, T0);
        }
        let page = bench.scrape();
        assert_eq!(page[&calls(&labels("cart", "a", "SERVER", "UNSET"))], 2.0, "derives: {derives}");
    }
}

#[test]
fn a_target_with_job_and_instance_is_described() {
    let mut bench = Bench::rendering(NO_ID);
    let attributes = vec![
        text("service.name", "cart"),
        text("service.namespace", "shop"),
        text("service.instance.id", "i1"),
        text("host.name", "h"),
    ];
    bench.take(&ExportTraceServiceRequest { resource_spans: vec![resource_spans(attributes, vec![span("a", 1)])] }, T0);
    let page = bench.scrape();
    assert_eq!(page["target_info{host_name=\"h\",instance=\"i1\",job=\"shop/cart\"}"], 1.0);
    assert!(page.keys().any(|series| series.contains("instance=\"i1\",job=\"shop/cart\",otel_scope_name")), "{page:?}");
}

#[test]
fn weights_come_from_the_trace_state() {
    let sampled = |state: &str| Span { trace_state: state.to_owned(), ..span("a", 10) };
    let mut bench = Bench::rendering("{instance_id: 'off', adjusted_counts: exact}");
    let states = ["ot=th:c", "ot=th:8;rv:00000000000000", "ot=th:0", "vendor=x,ot=th:e", "ot=th:", "ot=th:zz", ""];
    bench.take(&request("cart", states.map(sampled).into()), T0);
    let labels = labels("cart", "a", "SERVER", "UNSET");
    let page = bench.scrape();
    assert_eq!(page[&calls(&labels)], 4.0 + 2.0 + 1.0 + 8.0 + 1.0 + 1.0 + 1.0);
    assert_eq!(page[&format!("traces_span_metrics_duration_milliseconds_sum{{{labels}}}")], 180.0);
}

#[test]
fn rounded_weights_are_right_on_average() {
    // 1 in 3: weight 3 / 2 for a threshold of a third of all.
    let state = "ot=th:55555555555555";
    let sampled = Span { trace_state: state.to_owned(), ..span("a", 10) };
    let mut bench = Bench::rendering(NO_ID);
    for _ in 0..20 {
        bench.take(&request("cart", vec![sampled.clone(); 1000]), T0);
    }
    let count = bench.scrape()[&calls(&labels("cart", "a", "SERVER", "UNSET"))];
    assert_eq!(count.fract(), 0.0);
    // The standard deviation of the sum is 71.
    assert!((count - 30_000.0).abs() < 500.0, "{count}");
}

#[test]
fn dimensions_come_from_span_resource_or_default() {
    let mut bench = Bench::rendering(
        "{instance_id: 'off', series_identity: service, dimensions: [{name: a}, {name: b, default: none}, {name: c}, {glob: 'http.*'}]}",
    );
    let mut with = span("x", 1);
    with.attributes =
        vec![text("a", "span"), text("http.method", "GET"), text("http.request.id", "no"), attribute("c", Value::IntValue(5))];
    let resource = vec![text("service.name", "cart"), text("a", "resource"), text("http.zone", "z")];
    bench.take(&ExportTraceServiceRequest { resource_spans: vec![resource_spans(resource, vec![with, span("x", 1)])] }, T0);
    let page = bench.scrape();
    let rest = "service_name=\"cart\",span_kind=\"SPAN_KIND_SERVER\",span_name=\"x\",status_code=\"STATUS_CODE_UNSET\"";
    let first = format!("a=\"span\",b=\"none\",c=\"5\",http_method=\"GET\",http_zone=\"z\",{rest}");
    let second = format!("a=\"resource\",b=\"none\",http_zone=\"z\",{rest}");
    assert_eq!((page[&calls(&first)], page[&calls(&second)]), (1.0, 1.0), "{page:?}");
}

#[test]
fn dimensions_of_one_metric_split_only_that_one() {
    let mut bench = Bench::rendering("{instance_id: 'off', series_identity: service, calls_dimensions: [{name: a}]}");
    let with = |value: &str| Span { attributes: vec![text("a", value)], ..span("x", 1) };
    bench.take(&request("cart", vec![with("1"), with("2"), with("2")]), T0);
    let page = bench.scrape();
    let rest = "service_name=\"cart\",span_kind=\"SPAN_KIND_SERVER\",span_name=\"x\",status_code=\"STATUS_CODE_UNSET\"";
    assert_eq!(page[&calls(&format!("a=\"2\",{rest}"))], 2.0);
    assert_eq!(page[&format!("traces_span_metrics_duration_milliseconds_count{{{rest}}}")], 3.0);
}

#[test]
fn what_is_over_the_limit_goes_to_one_row_and_nothing_is_lost() {
    let mut bench = Bench::rendering("{instance_id: 'off', aggregation_cardinality_limit: 2}");
    let names = ["a", "b", "c", "d", "a"];
    bench.take(&request("cart", names.map(|name| span(name, 1)).into()), T0);
    let page = bench.scrape();
    let overflow = "job=\"cart\",otel_metric_overflow=\"true\",otel_scope_name=\"spanmetricsconnector\",otel_scope_schema_url=\"\",otel_scope_version=\"\"";
    assert_eq!(page[&calls(overflow)], 2.0);
    assert_eq!(page[&calls(&labels("cart", "a", "SERVER", "UNSET"))], 2.0);
    let total: f64 = page.iter().filter(|(series, _)| series.contains("_calls_total")).map(|(_, count)| count).sum();
    assert_eq!(total, 5.0);
    assert_eq!(bench.own("weir_span_metrics_overflowed_spans"), 2.0);
}

#[test]
fn idle_rows_go_and_come_back_with_a_new_start() {
    let mut bench = Bench::rendering("{instance_id: 'off', series_expiration: 10s}");
    bench.take(&request("cart", vec![span("a", 1), span("b", 1)]), T0);
    bench.take(&request("cart", vec![span("b", 1)]), T0 + 5 * SECOND);
    bench.flush(T0 + 12 * SECOND);
    let (a, b) = (calls(&labels("cart", "a", "SERVER", "UNSET")), calls(&labels("cart", "b", "SERVER", "UNSET")));
    let page = bench.scrape();
    assert_eq!((page.get(&a), page[&b]), (None, 2.0));
    bench.take(&request("cart", vec![span("a", 1)]), T0 + 20 * SECOND);
    let scrape = bench.scrape_all();
    assert_eq!((scrape.values[&a], scrape.starts[&a]), (1.0, T0 + 20 * SECOND));
}

#[test]
fn resources_beyond_the_cache_go_the_least_recently_used_first() {
    let mut bench = Bench::rendering("{instance_id: 'off', resource_metrics_cache_size: 2}");
    for service in ["a", "b", "c", "a"] {
        bench.take(&request(service, vec![span("x", 1)]), T0);
    }
    bench.flush(T0 + SECOND);
    let page = bench.scrape();
    let has = |service: &str| page.contains_key(&calls(&labels(service, "x", "SERVER", "UNSET")));
    assert_eq!((has("a"), has("b"), has("c")), (true, false, true));
}

#[test]
fn an_exemplar_stands_for_each_bucket_in_use() {
    let mut bench = Bench::rendering("{instance_id: 'off', exemplars: {enabled: true}}");
    let with_id = |millis, id: u8| Span { trace_id: vec![id; 16], ..span("a", millis) };
    bench.take(&request("cart", vec![with_id(1, 1), with_id(700, 2)]), T0);
    let labels = labels("cart", "a", "SERVER", "UNSET");
    let scrape = bench.scrape_all();
    let of = |scrape: &Scrape, le: &str| {
        let series = format!("traces_span_metrics_duration_milliseconds_bucket{{{labels},le=\"{le}\"}}");
        scrape.exemplars.get(&series).map(|exemplar| (exemplar.trace_id[0], exemplar.value))
    };
    assert_eq!((of(&scrape, "2"), of(&scrape, "4"), of(&scrape, "800")), (Some((1, 1.0)), None, Some((2, 700.0))));
    assert_eq!(scrape.exemplars[&calls(&labels)].trace_id[0], 2, "a counter shows the slowest");
    // A slower one takes the place, a quicker one does not, until the old one is old.
    bench.take(&request("cart", vec![with_id(750, 3)]), T0 + SECOND);
    bench.take(&request("cart", vec![with_id(500, 4)]), T0 + 2 * SECOND);
    assert_eq!(of(&bench.scrape_all(), "800"), Some((3, 750.0)));
    bench.take(&request("cart", vec![with_id(500, 5)]), T0 + 90 * SECOND);
    assert_eq!(of(&bench.scrape_all(), "800"), Some((5, 500.0)));
}

#[test]
fn an_error_is_a_better_exemplar_than_a_slow_span() {
    let mut bench = Bench::rendering("{instance_id: 'off', exemplars: {enabled: true}, exclude_dimensions: [status.code]}");
    let failed = Span { status: Some(Status { code: 2, message: String::new() }), trace_id: vec![2; 16], ..span("a", 500) };
    bench.take(&request("cart", vec![span("a", 700), failed, span("a", 790)]), T0);
    let scrape = bench.scrape_all();
    let (_, exemplar) = scrape.exemplars.iter().find(|(series, _)| series.contains("le=\"800\"")).unwrap();
    assert_eq!((exemplar.trace_id[0], exemplar.value), (2, 500.0));
}

#[test]
fn a_new_row_may_show_zero_first() {
    let mut bench = Bench::rendering("{instance_id: 'off', first_sample_zero: true}");
    let series = calls(&labels("cart", "a", "SERVER", "UNSET"));
    bench.take(&request("cart", vec![span("a", 1)]), T0);
    assert_eq!(bench.scrape()[&series], 0.0);
    assert_eq!(bench.scrape()[&series], 1.0);
}

#[test]
fn events_are_counted_by_their_attributes() {
    use opentelemetry_proto::tonic::trace::v1::span::Event;
    let mut bench = Bench::rendering(
        "{instance_id: 'off', series_identity: service, events: {enabled: true, dimensions: [{name: exception.type}]}}",
    );
    let event =
        |kind: &str| Event { name: "exception".to_owned(), attributes: vec![text("exception.type", kind)], ..Event::default() };
    let with = Span { events: vec![event("io"), event("io"), event("parse")], ..span("x", 1) };
    bench.take(&request("cart", vec![with, span("x", 1)]), T0);
    let page = bench.scrape();
    let rest = "service_name=\"cart\",span_kind=\"SPAN_KIND_SERVER\",span_name=\"x\",status_code=\"STATUS_CODE_UNSET\"";
    let events = |kind: &str| page[&format!("traces_span_metrics_events_total{{exception_type=\"{kind}\",{rest}}}")];
    assert_eq!((events("io"), events("parse"), page[&calls(rest)]), (2.0, 1.0, 2.0));
}

#[test]
fn native_histograms_hold_the_same_spans() {
    let mut bench = Bench::rendering("{instance_id: 'off', series_identity: service, native_histograms: }");
    bench.take(&request("cart", vec![span("x", 0), span("x", 1), span("x", 8), span("x", 8)]), T0);
    let scrape = bench.scrape_all();
    let native = scrape.natives.values().next().unwrap();
    assert_eq!((native.schema, native.zero_count), (3, 1.0));
    // 1 ms is the upper bound of bucket 0, 8 ms that of bucket 24.
    assert_eq!((native.positive_spans[0].offset, native.positive_counts[0], native.positive_counts[24]), (0, 1.0, 2.0));
    assert_eq!(native.positive_counts.iter().sum::<f64>(), 3.0);
}
