//! What happens when the budget of rows runs out.
#![expect(clippy::float_cmp, reason = "sums of few whole numbers are exact")]

use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message;

use super::harness::*;

const YAML: &str = "{instance_id: 'off', series_identity: service, dimensions: [{name: route}], \
                    cardinality: {rows_max: 200, rows_per_service_max: 40, hold: 60s}}";

fn of_route(name: &str, route: &str) -> Span {
    Span { attributes: vec![text("route", route)], ..span(name, 1) }
}

fn calls(page: &std::collections::BTreeMap<String, f64>) -> impl Iterator<Item = (&str, f64)> {
    let calls = page.iter().filter(|(series, _)| series.starts_with("traces_span_metrics_calls_total"));
    calls.map(|(series, count)| (series.as_str(), *count))
}

#[test]
fn folds_the_label_that_explodes_and_no_other() {
    let mut bench = Bench::rendering(YAML);
    let spans: Vec<Span> = (0..500).map(|n| of_route(["a", "b"][n % 2], &format!("/user/{n}"))).collect();
    bench.take(&request("cart", spans), T0);
    let page = bench.scrape();
    assert_eq!(calls(&page).map(|(_, count)| count).sum::<f64>(), 500.0, "totals stay exact");
    assert!(calls(&page).count() <= 42);
    for name in ["a", "b"] {
        let folded = format!("route=\"__overflow__\",service_name=\"cart\",span_kind=\"SPAN_KIND_SERVER\",span_name=\"{name}\"");
        let (_, count) = calls(&page).find(|(series, _)| series.contains(&folded)).expect("the name stays, the route is folded");
        assert_eq!(count, 230.0);
    }
    assert_eq!(bench.own("weir_span_metrics_folded_spans"), 460.0);
    let limits = ["rows_max", "service_rows_max", "resources_max"].map(|what| bench.own(&format!("weir_span_metrics_{what}")));
    assert_eq!(limits, [200.0, 40.0, 0.0]);
    bench.flush(T0);
    assert_eq!(bench.own("weir_span_metrics_folded_labels"), 1.0);
    let demand = bench.own("weir_span_metrics_label_demand");
    assert!((480.0..530.0).contains(&demand), "one service, two names, about 500 routes: {demand}");
}

#[test]
fn rows_from_before_the_fold_keep_counting() {
    let mut bench = Bench::rendering(YAML);
    let routes = |range: std::ops::Range<usize>| range.map(|n| of_route("a", &format!("/{n}"))).collect();
    bench.take(&request("cart", routes(0..100)), T0);
    bench.take(&request("cart", routes(0..10)), T0 + SECOND);
    let page = bench.scrape();
    let (_, first) = calls(&page).find(|(series, _)| series.contains("route=\"/3\"")).unwrap();
    assert_eq!(first, 2.0);
}

#[test]
fn one_services_fold_leaves_the_others_alone() {
    let mut bench = Bench::rendering(YAML);
    bench.take(&request("cart", (0..100).map(|n| of_route("a", &format!("/{n}"))).collect()), T0);
    bench.take(&request("web", vec![of_route("a", "/new")]), T0);
    let page = bench.scrape();
    assert!(calls(&page).any(|(series, _)| series.contains("route=\"/new\",service_name=\"web\"")));
}

#[test]
fn many_services_are_folded_too() {
    let mut bench = Bench::rendering(YAML);
    for n in 0..400 {
        bench.take(&request(&format!("s{n}"), vec![of_route("a", "/")]), T0);
    }
    let page = bench.scrape();
    assert_eq!(calls(&page).map(|(_, count)| count).sum::<f64>(), 400.0);
    assert!(calls(&page).count() <= 201);
    let (_, folded) = calls(&page).find(|(series, _)| series.contains("service_name=\"__overflow__\"")).unwrap();
    assert_eq!(folded, 200.0);
}

#[test]
fn when_a_second_label_explodes_it_is_folded_as_well() {
    let mut bench = Bench::rendering(YAML);
    bench.take(&request("cart", (0..100).map(|n| of_route("a", &format!("/{n}"))).collect()), T0);
    bench.take(&request("cart", (0..300).map(|n| of_route(&format!("name {n}"), "/")).collect()), T0);
    let page = bench.scrape();
    assert_eq!(calls(&page).map(|(_, count)| count).sum::<f64>(), 400.0);
    assert!(calls(&page).count() <= 60, "{}", calls(&page).count());
    assert!(calls(&page).any(|(series, _)| series.contains("span_name=\"__overflow__\"")));
}

#[test]
fn a_fold_holds_and_is_lifted_when_there_is_room_again() {
    let yaml = YAML.replace("hold: 60s}", "hold: 60s}, series_expiration: 30s");
    let mut bench = Bench::rendering(&yaml);
    bench.take(&request("cart", (0..100).map(|n| of_route("a", &format!("/{n}"))).collect()), T0);
    // All rows are gone, the fold is not.
    bench.flush(T0 + 40 * SECOND);
    bench.take(&request("cart", vec![of_route("a", "/x")]), T0 + 41 * SECOND);
    assert!(calls(&bench.scrape()).any(|(series, _)| series.contains("route=\"__overflow__\"")));
    bench.flush(T0 + 61 * SECOND);
    bench.take(&request("cart", vec![of_route("a", "/y")]), T0 + 62 * SECOND);
    assert!(calls(&bench.scrape()).any(|(series, _)| series.contains("route=\"/y\"")));
}

#[test]
fn a_fold_ends_with_its_service() {
    let yaml = "{instance_id: 'off', metrics_expiration: 30s, dimensions: [{name: route}], \
                cardinality: {rows_max: 200, rows_per_service_max: 40, hold: 1h}}";
    let mut bench = Bench::rendering(yaml);
    bench.take(&request("cart", (0..100).map(|n| of_route("a", &format!("/{n}"))).collect()), T0);
    bench.flush(T0 + 40 * SECOND);
    // It gets the number that cart had.
    bench.take(&request("web", vec![of_route("a", "/new")]), T0 + 41 * SECOND);
    assert!(calls(&bench.scrape()).any(|(series, _)| series.contains("route=\"/new\"")));
}

#[test]
fn resources_that_make_no_rows_do_not_pile_up() {
    let mut bench = Bench::rendering("{instance_id: 'off', span_kinds: [server]}");
    let internal = Span { kind: 1, ..span("a", 1) };
    for n in 0..100 {
        let parts = (0..100).map(|m| resource_spans(vec![text("service.name", &format!("{n}/{m}"))], vec![internal.clone()]));
        bench.take(&ExportTraceServiceRequest { resource_spans: parts.collect() }, T0);
    }
    assert!(bench.own("weir_span_metrics_resources") <= 4096.0);
    bench.take(&request("cart", vec![span("a", 1)]), T0);
    assert_eq!(calls(&bench.scrape()).count(), 1);
}

#[test]
fn what_is_very_long_is_cut() {
    let mut bench = Bench::new("{instance_id: 'off', dimensions: [{name: route}, {glob: 'x.**'}]}", true, true);
    let long = |letter: &str| letter.repeat(100_000);
    let attributes = vec![text("route", &long("ü")), text("x.y", "kept"), text(&format!("x.{}", long("k")), "left out")];
    let spans = |name: &str| vec![Span { name: long(name), attributes: attributes.clone(), ..span("", 1) }];
    let resource = |tail: &str| vec![text("service.name", &long("s")), text("host.name", &(long("h") + tail))];
    for tail in ["1", "2"] {
        let parts = vec![resource_spans(resource(tail), spans("n"))];
        bench.take(&ExportTraceServiceRequest { resource_spans: parts }, T0);
    }
    let page = bench.scrape();
    let found: Vec<_> = calls(&page).collect();
    let [(series, count)] = &*found else { panic!("resources that differ far behind are one") };
    assert_eq!(*count, 2.0);
    assert!(series.len() < 5000, "{}", series.len());
    for value in ["n".repeat(1024), "ü".repeat(512), "s".repeat(1024)] {
        assert!(series.contains(&format!("\"{value}\"")), "cut at a letter's end");
    }
    assert!(series.contains("x_y=\"kept\""));
    let told = bench.flush(T0 + SECOND);
    assert!(told.encoded_len() < 20_000, "{}", told.encoded_len());
    // Two names, two routes, two long names of attributes, and twice a service and a host.
    assert_eq!(bench.own("weir_span_metrics_cut_values"), 10.0);
}
