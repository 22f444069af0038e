//! What stands on a page, format by format.

use proptest::prelude::*;

use super::{
    super::{Escaping, FamilyKind, Format, NativeHistogram, Reason, Span},
    Said, Source, exemplar, family, labels, left_out, messages, number, page_of, reader, style, text_of,
};

fn histogram(buckets: &[(f64, f64)], sum: f64, count: f64) -> Said {
    Said::Histogram { buckets: buckets.to_vec(), exemplar: None, sum: Some(sum), count, native: None }
}

fn everything() -> Source {
    let mut latency = family("latency_seconds", FamilyKind::Histogram);
    latency.unit = "seconds".into();
    let observed = Said::Histogram {
        buckets: vec![(0.005, 1.0), (1.0, 3.0)],
        exemplar: Some(exemplar(0.7)),
        sum: Some(4.25),
        count: 5.0,
        native: None,
    };
    let counted = Said::Number { value: 3.0, start: 1_600_000_000_000_000_000, exemplar: Some(exemplar(1.0)), time: None };
    Source(vec![
        (family("calls_total", FamilyKind::Counter), vec![(labels(&[("service", "cart"), ("name", "GET \"/\"\\\n")]), counted)]),
        (latency, vec![(labels(&[("service", "cart")]), observed)]),
        (family("queue", FamilyKind::Gauge), vec![(labels(&[]), number(-2.5))]),
        (family("target_info", FamilyKind::Info), vec![(labels(&[("job", "a"), ("instance", "")]), number(1.0))]),
        (
            family("size", FamilyKind::Summary),
            vec![(labels(&[("a", "b")]), Said::Summary { sum: 10.0, count: 2.0, quantiles: vec![(0.5, 4.0), (1.0, 6.0)] })],
        ),
        (family("odd", FamilyKind::Unknown), vec![(labels(&[]), number(f64::NAN))]),
    ])
}

#[test]
fn writes_text_0_0_4() {
    let page = text_of(everything(), Format::Text0_0_4, Escaping::Underscores);
    let expected = r#"# HELP calls_total Some \\ help\nin lines.
# TYPE calls_total counter
calls_total{name="GET \"/\"\\\n",service="cart"} 3
# HELP latency_seconds Some \\ help\nin lines.
# TYPE latency_seconds histogram
latency_seconds_bucket{service="cart",le="0.005"} 1
latency_seconds_bucket{service="cart",le="1"} 3
latency_seconds_bucket{service="cart",le="+Inf"} 5
latency_seconds_sum{service="cart"} 4.25
latency_seconds_count{service="cart"} 5
# HELP odd Some \\ help\nin lines.
# TYPE odd untyped
odd NaN
# HELP queue Some \\ help\nin lines.
# TYPE queue gauge
queue -2.5
# HELP size Some \\ help\nin lines.
# TYPE size summary
size{a="b",quantile="0.5"} 4
size{a="b",quantile="1"} 6
size_sum{a="b"} 10
size_count{a="b"} 2
# HELP target_info Some \\ help\nin lines.
# TYPE target_info gauge
target_info{instance="",job="a"} 1
"#;
    assert_eq!(page, expected);
    assert_eq!(text_of(everything(), Format::Text1_0_0, Escaping::AllowUtf8), expected);
}

#[test]
fn writes_open_metrics() {
    let source = everything();
    let mut wanted = style(Format::OpenMetrics1_0_0, Escaping::AllowUtf8);
    wanted.created = true;
    let page = String::from_utf8(page_of(vec![source], wanted, &left_out())).unwrap();
    let id = "ab".repeat(16);
    let span = "cd".repeat(8);
    let expected = format!(
        r#"# HELP calls Some \\ help\nin lines.
# TYPE calls counter
calls_total{{name="GET \"/\"\\\n",service="cart"}} 3 # {{trace_id="{id}",span_id="{span}"}} 1 1700000000.123
calls_created{{name="GET \"/\"\\\n",service="cart"}} 1600000000.000
# HELP latency_seconds Some \\ help\nin lines.
# TYPE latency_seconds histogram
# UNIT latency_seconds seconds
latency_seconds_bucket{{service="cart",le="0.005"}} 1
latency_seconds_bucket{{service="cart",le="1.0"}} 3 # {{trace_id="{id}",span_id="{span}"}} 0.7 1700000000.123
latency_seconds_bucket{{service="cart",le="+Inf"}} 5
latency_seconds_sum{{service="cart"}} 4.25
latency_seconds_count{{service="cart"}} 5
latency_seconds_created{{service="cart"}} 7.000
# HELP odd Some \\ help\nin lines.
# TYPE odd unknown
odd NaN
# HELP queue Some \\ help\nin lines.
# TYPE queue gauge
queue -2.5
# HELP size Some \\ help\nin lines.
# TYPE size summary
size{{a="b",quantile="0.5"}} 4
size{{a="b",quantile="1.0"}} 6
size_sum{{a="b"}} 10
size_count{{a="b"}} 2
# HELP target Some \\ help\nin lines.
# TYPE target info
target_info{{instance="",job="a"}} 1
# EOF
"#
    );
    assert_eq!(page, expected);
    reader::read(&page, true);
    let plain = text_of(everything(), Format::OpenMetrics1_0_0, Escaping::AllowUtf8);
    assert!(!plain.contains("_created"), "created samples are there only where they were asked for");
}

#[test]
fn calls_a_counter_unknown_where_open_metrics_has_no_name_for_it() {
    let source = Source(vec![
        (family("requests", FamilyKind::Counter), vec![(labels(&[]), number(1.0))]),
        (family("jobs_total", FamilyKind::Counter), vec![(labels(&[]), number(2.0))]),
        (family("jobs", FamilyKind::Gauge), vec![(labels(&[]), number(3.0))]),
    ]);
    let page = reader::read(&text_of(source, Format::OpenMetrics1_0_0, Escaping::Underscores), true);
    assert_eq!(page.kind("requests"), Some("unknown"));
    assert_eq!(page.kind("jobs_total"), Some("unknown"));
    assert_eq!(page.kind("jobs"), Some("gauge"));
    assert_eq!(page.value("jobs_total", &[]), 2.0);
}

#[test]
fn writes_protobuf() {
    let page = page_of(vec![everything()], style(Format::Protobuf, Escaping::Underscores), &left_out());
    let families = messages::read(&page);
    let names: Vec<_> = families.iter().map(|family| (family.name.as_str(), family.kind)).collect();
    assert_eq!(names, [("calls_total", 0), ("latency_seconds", 4), ("odd", 3), ("queue", 1), ("size", 2), ("target_info", 1)]);
    let calls = &families[0].metric[0];
    assert_eq!(calls.label[0].name, "name");
    assert_eq!(calls.label[0].value, "GET \"/\"\\\n");
    let counter = calls.counter.as_ref().unwrap();
    assert_eq!(counter.value, 3.0);
    assert_eq!(counter.created_timestamp.as_ref().unwrap().seconds, 1_600_000_000);
    let shown = counter.exemplar.as_ref().unwrap();
    assert_eq!(shown.label[0].value, "ab".repeat(16));
    assert_eq!(shown.timestamp, Some(messages::Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 }));
    assert_eq!(families[1].unit, "seconds");
    let latency = families[1].metric[0].histogram.as_ref().unwrap();
    let buckets: Vec<_> = latency.bucket.iter().map(|bucket| (bucket.upper_bound, bucket.cumulative_count)).collect();
    assert_eq!(buckets, [(0.005, 1), (1.0, 3)]);
    assert_eq!((latency.sample_count, latency.sample_sum), (5, 4.25));
    assert_eq!(latency.bucket[1].exemplar.as_ref().unwrap().value, 0.7);
    assert!(latency.positive_span.is_empty(), "a classic histogram must not look native");
    let size = families[4].metric[0].summary.as_ref().unwrap();
    assert_eq!((size.sample_count, size.sample_sum, size.quantile.len()), (2, 10.0, 2));
}

fn native() -> NativeHistogram {
    NativeHistogram {
        schema: -2,
        zero_threshold: 1e-128,
        zero_count: 1.0,
        positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }],
        positive_counts: vec![5.0, 2.0, 7.0],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        negative_counts: vec![4.0],
        exemplars: vec![exemplar(2.0)],
    }
}

fn native_page(native: NativeHistogram, count: f64) -> messages::Histogram {
    let said = Said::Histogram { buckets: vec![], exemplar: None, sum: Some(9.0), count, native: Some(native) };
    let source = Source(vec![(family("h", FamilyKind::Histogram), vec![(labels(&[]), said)])]);
    let page = page_of(vec![source], style(Format::Protobuf, Escaping::Underscores), &left_out());
    messages::read(&page)[0].metric[0].histogram.clone().unwrap()
}

#[test]
fn writes_native_histograms_of_whole_numbers_as_differences() {
    let shown = native_page(native(), 19.0);
    assert_eq!((shown.schema, shown.zero_threshold, shown.zero_count, shown.sample_count), (-2, 1e-128, 1, 19));
    assert_eq!(shown.positive_delta, [5, -3, 5]);
    assert_eq!(shown.negative_delta, [4]);
    assert_eq!(shown.positive_span.iter().map(|span| (span.offset, span.length)).collect::<Vec<_>>(), [(-3, 2), (4, 1)]);
    assert!(shown.positive_count.is_empty() && shown.bucket.is_empty());
    assert_eq!(shown.exemplars.len(), 1);
    assert_eq!(shown.created_timestamp.unwrap().seconds, 7);
}

#[test]
fn writes_native_histograms_of_fractions_as_they_are() {
    let shown = native_page(NativeHistogram { positive_counts: vec![2.5, 2.0, 7.0], ..native() }, 16.5);
    assert_eq!(shown.positive_count, [2.5, 2.0, 7.0]);
    assert_eq!(shown.negative_count, [4.0]);
    assert_eq!((shown.sample_count, shown.sample_count_float, shown.zero_count_float), (0, 16.5, 1.0));
    assert!(shown.positive_delta.is_empty());
}

#[test]
fn an_empty_native_histogram_still_looks_native() {
    let shown = native_page(NativeHistogram::default(), 0.0);
    assert_eq!(shown.positive_span.len(), 1);
}

#[test]
fn text_shows_count_and_sum_of_a_native_histogram() {
    let said = Said::Histogram { buckets: vec![], exemplar: None, sum: Some(9.0), count: 19.0, native: Some(native()) };
    let source = Source(vec![(family("h", FamilyKind::Histogram), vec![(labels(&[]), said)])]);
    let page = reader::read(&text_of(source, Format::Text0_0_4, Escaping::Underscores), false);
    assert_eq!(page.value("h_bucket", &[("le", "+Inf")]), 19.0);
    assert_eq!(page.value("h_sum", &[]), 9.0);
}

#[test]
fn escapes_names_as_the_scraper_wants_them() {
    let source = || {
        let series = vec![
            (labels(&[("http.method", "GET"), ("plain_one", "x")]), number(1.0)),
            (labels(&[("http.method", "PUT")]), number(2.0)),
        ];
        Source(vec![(family("http.requests_total", FamilyKind::Counter), series)])
    };
    let check = |escaping, expected: &str| {
        let page = text_of(source(), Format::Text1_0_0, escaping);
        let line = page.lines().find(|line| !line.starts_with('#')).unwrap();
        assert_eq!(line, expected);
        let read = reader::read(&page, false);
        assert_eq!(read.lines.len(), 2);
    };
    check(Escaping::AllowUtf8, r#"{"http.requests_total","http.method"="GET",plain_one="x"} 1"#);
    check(Escaping::Underscores, r#"http_requests_total{http_method="GET",plain_one="x"} 1"#);
    check(Escaping::Dots, r#"http_dot_requests__total{http_dot_method="GET",plain__one="x"} 1"#);
    check(Escaping::Values, r#"U__http_2e_requests__total{U__http_2e_method="GET",plain_one="x"} 1"#);
    let page = text_of(source(), Format::OpenMetrics1_0_0, Escaping::AllowUtf8);
    assert!(page.contains("# TYPE \"http.requests\" counter\n"), "{page}");
}

#[test]
fn joins_labels_that_become_one_by_escaping() {
    let series = vec![(labels(&[("a.b", "1"), ("a_b", "2")]), number(1.0))];
    let source = Source(vec![(family("m", FamilyKind::Gauge), series)]);
    let page = reader::read(&text_of(source, Format::Text0_0_4, Escaping::Underscores), false);
    assert_eq!(page.value("m", &[("a_b", "1;2")]), 1.0);
}

#[test]
fn one_bad_series_never_fails_the_page() {
    let counts = left_out();
    let first = Source(vec![
        (
            family("m", FamilyKind::Gauge),
            vec![
                (labels(&[("a", "1")]), number(1.0)),
                (labels(&[("a", "1"), ("a", "2")]), number(2.0)),
                (labels(&[("__name__", "x")]), number(3.0)),
                (labels(&[("", "x")]), number(4.0)),
                (labels(&[]), histogram(&[], 1.0, 1.0)),
            ],
        ),
        (family("h", FamilyKind::Histogram), vec![(labels(&[("le", "1")]), histogram(&[], 1.0, 1.0))]),
        (family("h_count", FamilyKind::Gauge), vec![(labels(&[]), number(5.0))]),
        (family("", FamilyKind::Gauge), vec![(labels(&[]), number(6.0))]),
    ]);
    let second = Source(vec![
        (
            family("m", FamilyKind::Gauge),
            vec![(labels(&[("a", "1"), ("b", "")]), number(7.0)), (labels(&[("a", "3")]), number(8.0))],
        ),
        (family("h", FamilyKind::Counter), vec![(labels(&[]), number(9.0))]),
    ]);
    let page = page_of(vec![first, second], style(Format::Text0_0_4, Escaping::Underscores), &counts);
    let page = reader::read(&String::from_utf8(page).unwrap(), false);
    assert_eq!(page.lines.len(), 2, "{page:?}");
    assert_eq!(page.value("m", &[("a", "1")]), 1.0);
    assert_eq!(page.value("m", &[("a", "3")]), 8.0);
    assert_eq!(counts.count(Reason::Labels), 4);
    assert_eq!(counts.count(Reason::Duplicate), 1);
    assert_eq!(counts.count(Reason::Conflict), 2);
    assert_eq!(counts.count(Reason::Name), 1);
    assert_eq!(counts.count(Reason::Kind), 1);
}

#[test]
fn two_sources_may_say_the_same_of_a_target() {
    let counts = left_out();
    let source = || Source(vec![(family("target_info", FamilyKind::Info), vec![(labels(&[("job", "a")]), number(1.0))])]);
    let page = page_of(vec![source(), source()], style(Format::Text0_0_4, Escaping::Underscores), &counts);
    assert_eq!(reader::read(&String::from_utf8(page).unwrap(), false).lines.len(), 1);
    assert_eq!(counts.count(Reason::Duplicate), 0);
}

#[test]
fn keeps_the_ids_when_an_exemplar_has_too_much_to_say() {
    let mut told = exemplar(1.0);
    told.labels = vec![
        ("trace_id".into(), "other".into()),
        ("long".into(), "x".repeat(100).into()),
        ("user.id".into(), "ü".repeat(50).into()),
        ("more".into(), "12345".into()),
    ];
    let said = Said::Number { value: 3.0, start: 0, exemplar: Some(told), time: None };
    let source = Source(vec![(family("m_total", FamilyKind::Counter), vec![(labels(&[]), said)])]);
    let page = reader::read(&text_of(source, Format::OpenMetrics1_0_0, Escaping::AllowUtf8), true);
    let (labels, value, time) = page.lines[0].exemplar.clone().unwrap();
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["span_id", "trace_id", "user_id"]);
    assert_eq!(labels["trace_id"], "ab".repeat(16));
    assert_eq!((value, time), (1.0, Some(1_700_000_000.123)));
}

#[test]
fn shows_times_where_they_are_given() {
    let said = Said::Number { value: 3.0, start: 0, exemplar: None, time: Some(1_700_000_000_123_456_789) };
    let source = || Source(vec![(family("m", FamilyKind::Gauge), vec![(labels(&[]), said.clone())])]);
    assert!(text_of(source(), Format::Text0_0_4, Escaping::Underscores).ends_with("m 3 1700000000123\n"));
    assert!(text_of(source(), Format::OpenMetrics1_0_0, Escaping::Underscores).ends_with("m 3 1700000000.123\n# EOF\n"));
    let page = page_of(vec![source()], style(Format::Protobuf, Escaping::Underscores), &left_out());
    assert_eq!(messages::read(&page)[0].metric[0].timestamp_ms, Some(1_700_000_000_123));
}

#[test]
fn an_empty_page_is_a_page() {
    assert_eq!(text_of(Source::default(), Format::Text0_0_4, Escaping::Underscores), "");
    assert_eq!(text_of(Source::default(), Format::OpenMetrics1_0_0, Escaping::Underscores), "# EOF\n");
    let empty = Source(vec![(family("m", FamilyKind::Gauge), vec![])]);
    assert_eq!(text_of(empty, Format::Text0_0_4, Escaping::Underscores), "", "a family without samples leaves no trace");
}

prop_compose! {
    fn series()(pairs in prop::collection::btree_map("[a-z._]{1,6}|ü[a-z]", ".{0,12}", 0..4), value in any::<f64>()) -> (Vec<(String, String)>, f64) {
        (pairs.into_iter().collect(), value)
    }
}

proptest! {
    #[test]
    fn a_block_is_known_by_its_text(pairs in prop::collection::vec(("[a-z\"\\\\=,é_.]{0,3}", "[a-z\"\\\\\n,=é]{0,4}"), 0..5)) {
        let block = crate::exposition::LabelBlock::new(pairs);
        prop_assert_eq!(crate::exposition::LabelBlock::of_text(block.text()), Some(block));
    }

    #[test]
    fn every_number_put_in_is_read_back(all in prop::collection::vec(series(), 1..20), name in "[a-z]{1,4}[.][a-z]{1,4}_total") {
        let mut distinct: Vec<(Vec<(String, String)>, f64)> = Vec::new();
        for (pairs, value) in all {
            let pairs: Vec<_> = pairs.into_iter().filter(|(name, value)| !value.is_empty() && name != "le").collect();
            if !distinct.iter().any(|(known, _)| *known == pairs) {
                distinct.push((pairs, value));
            }
        }
        let source = || Source(vec![(
            family(&name, FamilyKind::Counter),
            distinct.iter().map(|(pairs, value)| (crate::exposition::LabelBlock::new(pairs.iter().map(|(k, v)| (k, v))), number(*value))).collect(),
        )]);
        let text = text_of(source(), Format::OpenMetrics1_0_0, Escaping::AllowUtf8);
        let read = reader::read(&text, true);
        prop_assert_eq!(read.lines.len(), distinct.len());
        for ((pairs, value), line) in distinct.iter().zip(&read.lines) {
            prop_assert_eq!(&line.name, &name);
            prop_assert_eq!(line.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>(), pairs.clone());
            prop_assert!(line.value == *value || (line.value.is_nan() && value.is_nan()), "{} {}", line.value, value);
        }
        let page = page_of(vec![source()], style(Format::Protobuf, Escaping::AllowUtf8), &left_out());
        let read = messages::read(&page);
        prop_assert_eq!(read.len(), 1);
        for ((pairs, value), metric) in distinct.iter().zip(&read[0].metric) {
            let labels: Vec<_> = metric.label.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect();
            prop_assert_eq!(labels, pairs.clone());
            prop_assert_eq!(metric.counter.as_ref().unwrap().value.to_bits(), value.to_bits());
        }
    }
}
