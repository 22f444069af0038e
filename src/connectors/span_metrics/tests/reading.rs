//! Settings, patterns, trace states and texts.

use std::time::Duration;

use super::{
    super::{Config, Settings, glob::Glob, page::metric_name, text::push_value, trace_state::Threshold},
    harness::*,
};
use crate::{
    component::ConnectorConfig,
    config::{Diagnostics, Level},
    otlp::view::AnyValueView,
};

/// Problems of a configuration, as level and message.
fn problems(yaml: &str) -> Vec<(Level, String)> {
    let mut found = Diagnostics::default();
    let node = node(yaml);
    Config::read(&node, &mut found);
    for problem in &found.found {
        assert_ne!(problem.origin.end, 0, "{problem:?} has a place");
    }
    found.found.into_iter().map(|problem| (problem.level, problem.message)).collect()
}

#[test]
fn the_embedded_default_reads_and_is_what_it_says() {
    let node = node(include_str!("../../../cli/default.yaml"));
    let mut found = Diagnostics::default();
    let settings = Config::read(node.nearest("connectors::span_metrics"), &mut found).settings;
    assert!(found.found.is_empty(), "{found:?}");
    assert!(settings.exemplars.enabled);
    assert_eq!(settings.span_kinds.len(), 4);
    assert!(settings.cardinality.get().is_some());
    assert_eq!(settings.metrics_flush_interval.0, Duration::from_secs(15));
}

#[test]
fn without_a_key_everything_is_as_in_the_collector() {
    let settings = settings("");
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.metrics_flush_interval.0, Duration::from_mins(1));
    assert_eq!(settings.bounds().len(), 16);
    assert_eq!(settings.exemplars.max_per_data_point, 5);
}

#[test]
fn bounds_follow_the_unit() {
    let seconds = settings("histogram: {unit: s}");
    assert_eq!(seconds.bounds().first(), Some(&0.002));
    let written = settings("histogram: {unit: s, explicit: {buckets: [100us, 1ms, 2500ms]}}");
    assert_eq!(written.bounds(), [0.0001, 0.001, 2.5]);
}

#[test]
fn says_what_is_wrong_and_where() {
    let check = |yaml: &str, words: &str| {
        let found = problems(yaml);
        assert!(found.iter().any(|(level, message)| *level == Level::Error && message.contains(words)), "{yaml}: {found:?}");
    };
    check("dimensions: [{name: span.name}]", "duplicate dimension name `span.name`");
    check("dimensions: [{name: a}, {name: a}]", "duplicate dimension name `a`");
    check("dimensions: [{}]", "either a `name` or a `glob`");
    check("calls_dimensions: [{name: a, glob: b}]", "not both");
    check("histogram: {dimensions: [{glob: 'span.*'}]}", "matches the dimension");
    check("dimensions: [{glob: 'a', default: x}]", "`default` does not go with `glob`");
    check("dimensions: [{glob: '[a'}]", "cannot be read");
    check("events: {enabled: true}", "no dimensions configured for events");
    check("histogram: {explicit: {buckets: [1s]}, exponential: {}}", "either `explicit` or `exponential`");
    check("aggregation_cardinality_limit: -1", "must not be negative");
    check("resource_metrics_cache_size: 0", "must be positive");
    check("{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, metric_timestamp_cache_size: 0}", "must be positive");
    check("histogram: {unit: h}", "unknown unit `h`");
    check("cardinality: {rows_max: 0}", "budgets must be positive");
    let warned = problems("dimensions_cache_size: 100");
    assert!(matches!(&*warned, [(Level::Warning, message)] if message.contains("deprecated")), "{warned:?}");
}

#[test]
fn globs_match_as_the_collectors_do() {
    let check = |glob: &str, yes: &[&str], no: &[&str]| {
        let parsed = Glob::parse(glob).unwrap();
        for name in yes {
            assert!(parsed.matches(name), "{glob} matches {name}");
        }
        for name in no {
            assert!(!parsed.matches(name), "{glob} does not match {name}");
        }
    };
    check("http.*", &["http.method", "http."], &["http.request.method", "http", "xhttp.a"]);
    check("http.**", &["http.method", "http.request.method"], &["http"]);
    check("a?c", &["abc"], &["a.c", "ac", "abbc"]);
    check("[a-c!]x", &["ax", "!x"], &["dx"]);
    check("[!a-c]x", &["dx"], &["ax"]);
    check("{http,rpc}.{a,b*}", &["http.a", "rpc.bcd"], &["http.c", "grpc.a"]);
    check("\\*", &["*"], &["a"]);
    for wrong in ["[", "[]", "{a", "a}", "\\", "[z-a]"] {
        assert!(Glob::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_glob_of_many_stars_takes_no_time() {
    let glob = Glob::parse(&"*a".repeat(60)).unwrap();
    assert!(!glob.matches(&"a".repeat(2000).replace("aa", "ab")));
}

#[test]
fn trace_states_say_how_many_spans_one_stands_for() {
    let weight = |state: &str| Threshold::of(state.as_bytes()).map(Threshold::weight);
    assert_eq!(weight("ot=th:0"), Some(1.0));
    assert_eq!(weight("ot=th:8"), Some(2.0));
    assert_eq!(weight("ot=th:c"), Some(4.0));
    assert!((weight("ot=th:fd70a4").unwrap() - 100.0).abs() < 0.001);
    assert_eq!(weight("a=b, ot=rv:0123456789abcd;th:c ,t@v=x"), Some(4.0));
    for silent in [
        "",
        "a=b",
        "ot=",
        "ot=rv:0123456789abcd",
        "ot=th:",
        "ot=th:123456789012345",
        "ot=th:g",
        "ot=th:8;",
        "ot=th:8;;a:b",
        "ot=rv:1;th:8",
        "ot=th:8,B=x",
        "ot=th:8,x",
        "ot =th:8",
        "ot=th:8;x",
        "ot=th:8,t@=x",
    ] {
        assert_eq!(weight(silent), None, "{silent}");
    }
    assert_eq!(weight(&format!("ot=th:8{}", ",a=b".repeat(30))), Some(2.0));
    assert_eq!(weight(&format!("ot=th:8{}", ",a=b".repeat(31))), None, "32 members");
    assert_eq!(weight(&format!("ot=th:8,a={}", "x".repeat(257))), None);
}

#[test]
fn metric_names_are_translated_with_their_suffix_once() {
    assert_eq!(metric_name("traces.span.metrics", "calls", "total"), "traces_span_metrics_calls_total");
    assert_eq!(metric_name("", "duration", "milliseconds"), "duration_milliseconds");
    assert_eq!(metric_name("total", "calls", "total"), "calls_total");
    assert_eq!(metric_name("1st", "calls", "total"), "_1st_calls_total");
}

#[test]
fn values_become_the_texts_that_the_collector_makes() {
    let text = |value: AnyValueView<'_>| {
        let mut out = String::new();
        push_value(&mut out, value);
        out
    };
    assert_eq!(text(AnyValueView::Double(1.0)), "1");
    assert_eq!(text(AnyValueView::Double(0.000_000_1)), "1e-7");
    assert_eq!(text(AnyValueView::Double(1e21)), "1e+21");
    assert_eq!(text(AnyValueView::Double(1e20)), "100000000000000000000");
    assert_eq!(text(AnyValueView::Double(f64::NEG_INFINITY)), "-Infinity");
    assert_eq!(text(AnyValueView::Int(-5)), "-5");
    assert_eq!(text(AnyValueView::Bytes(&[1, 2, 3])), "AQID");
    assert_eq!(text(AnyValueView::Bool(true)), "true");
    assert_eq!(text(AnyValueView::Empty), "");
}
