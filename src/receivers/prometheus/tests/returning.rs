//! There and back: what weir's own page shows of families, in each format, is what the receiver reads.

use std::sync::Arc;

use super::*;
use crate::{
    exposition::{
        Bucket, Choice, Escaping, Exemplar as Shown, Family, FamilyKind, Format as Written, LabelBlock, LeftOut, NativeHistogram,
        Page as Out, PageSource, Span, Style, page_in_memory,
    },
    internal_telemetry::Telemetry,
};

const START: u64 = 1_600_000_000_250_000_000;

struct Source;

impl PageSource for Source {
    fn families(&self) -> Vec<Family> {
        let family = |name: &'static str, kind, unit: &'static str| Family {
            name: name.into(),
            kind,
            help: "A \\ help\nin lines.".into(),
            unit: unit.into(),
        };
        vec![
            family("hits_total", FamilyKind::Counter, ""),
            family("lat_seconds", FamilyKind::Histogram, "seconds"),
            family("level", FamilyKind::Gauge, ""),
            family("sizes", FamilyKind::Summary, ""),
            family("target_info", FamilyKind::Info, ""),
        ]
    }

    fn render(&self, number: usize, page: &mut Out<'_>) {
        let labels = |pairs: &[(&str, &str)]| LabelBlock::new(pairs.iter().copied());
        let exemplar = Shown {
            trace_id: [0xab; 16],
            span_id: [0xcd; 8],
            value: 0.25,
            unix_nanos: 1_700_000_000_123_000_000,
            labels: vec![("user".into(), "x".into())],
        };
        match number {
            0 => page.number(&labels(&[("odd", "q\"\\\nö")]), 42.5, START, Some(&exemplar), Some(1_700_000_000_000_000_000)),
            1 => {
                let native = NativeHistogram {
                    schema: 2,
                    zero_threshold: 0.001,
                    zero_count: 2.0,
                    positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }],
                    positive_counts: vec![1.0, 0.0, 3.0],
                    negative_spans: vec![Span { offset: 1, length: 1 }],
                    negative_counts: vec![2.0],
                    exemplars: vec![exemplar.clone()],
                };
                let buckets = [
                    Bucket { upper_bound: 0.005, cumulative: 1.0, exemplar: None },
                    Bucket { upper_bound: 2_500_000.0, cumulative: 6.0, exemplar: Some(&exemplar) },
                ];
                page.histogram(&labels(&[("path", "/")]), Some(12.5), 8.0, START, &buckets, Some(&native), None);
            }
            2 => page.number(&labels(&[("zone", "eu")]), f64::NEG_INFINITY, 0, None, None),
            3 => page.summary(&labels(&[]), 2.5, 5.0, START, &[(0.5, 0.4), (0.99, f64::NAN)], None),
            _ => page.number(&labels(&[("cloud_region", "eu")]), 1.0, 0, None, None),
        }
    }
}

#[track_caller]
fn check(written: Written, read: Format, keys: &str, created: bool, expected: &[&str]) {
    let left_out = LeftOut::new(&Telemetry::default(), "prometheus");
    let style = Style { choice: Choice { format: written, escaping: Escaping::AllowUtf8 }, gzip: false, created };
    let page = page_in_memory(&[Arc::new(Source) as Arc<dyn PageSource>], style, &left_out);
    let lines = told(&job(keys), read, &page).unwrap();
    assert!(lines[0].ends_with("url.scheme=http,cloud_region=eu]"), "{lines:?}");
    assert_eq!(lines[2..], *expected, "{}", String::from_utf8_lossy(&page));
}

const EXAMPLE: &str = "ex(0.25 1700000000123000000 abababababababababababababababab/cdcdcdcdcdcdcdcd user=x)";

#[test]
fn text_keeps_values_and_types() {
    let expected = [
        "counter hits_total {odd=q\"\\\nö} 42.5 @1700000000000000000",
        "histogram lat_seconds {path=/} 8 Some(12.5) [0.005, 2500000.0] [1, 5, 2]",
        "gauge level {zone=eu} -inf",
        "summary sizes {} 5 2.5 [(0.5, 0.4), (0.99, NaN)]",
    ];
    check(Written::Text0_0_4, Format::Text, "", false, &expected);
    check(Written::Text1_0_0, Format::Text, "", false, &expected);
}

#[test]
fn open_metrics_keeps_units_exemplars_and_starts() {
    let since = format!("since {START}");
    let expected = [
        &*format!("counter hits_total {{odd=q\"\\\nö}} 42.5 {since} @1700000000000000000 {EXAMPLE}"),
        &*format!("histogram lat_seconds in s {{path=/}} 8 Some(12.5) [0.005, 2500000.0] [1, 5, 2] {since} {EXAMPLE}"),
        "gauge level {zone=eu} -inf",
        &*format!("summary sizes {{}} 5 2.5 [(0.5, 0.4), (0.99, NaN)] {since}"),
    ];
    check(Written::OpenMetrics1_0_0, Format::Open, "", true, &expected);
}

#[test]
fn protobuf_keeps_all_of_it() {
    let since = format!("since {START}");
    let classic = format!("histogram lat_seconds in s {{path=/}} 8 Some(12.5) [0.005, 2500000.0] [1, 5, 2] {since} {EXAMPLE}");
    let native =
        format!("exponential lat_seconds in s {{path=/}} 8 Some(12.5) 2 2<=0.001 -4[1, 0, 0, 0, 0, 0, 3] 0[2] {since} {EXAMPLE}");
    let counter = format!("counter hits_total {{odd=q\"\\\nö}} 42.5 {since} @1700000000000000000 {EXAMPLE}");
    let summary = format!("summary sizes {{}} 5 2.5 [(0.5, 0.4), (0.99, NaN)] {since}");
    let others = |histograms: &[&str]| {
        let mut all = vec![counter.clone()];
        all.extend(histograms.iter().map(|one| (*one).to_owned()));
        all.extend(["gauge level {zone=eu} -inf".to_owned(), summary.clone()]);
        all
    };
    for (keys, histograms) in [
        ("", vec![classic.as_str()]),
        ("scrape_native_histograms: true", vec![native.as_str()]),
        ("scrape_native_histograms: true, always_scrape_classic_histograms: true", vec![native.as_str(), classic.as_str()]),
    ] {
        let expected = others(&histograms);
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(Written::Protobuf, Format::Protobuf, keys, false, &expected);
    }
}
