//! How long does a page of generated series take, by format, beside the `prometheus` crate?
//!
//! 60,000 rows of one family set: a counter and a histogram of 15 bounds each, 1.14 M series, some 240 MB of text. Left out: copying rows out of
//! the registry that keeps them, and the network. Bytes a second are those of the text before compression.
//!
//! `cargo bench --bench render`

#![allow(clippy::unwrap_used, reason = "a benchmark stops where something is wrong")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prometheus::{CounterVec, Encoder as _, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};
use weir::{
    exposition::{
        Bucket, Choice, Escaping, Family, FamilyKind, Format, LabelBlock, LeftOut, Page, PageSource, Style, page_in_pieces,
    },
    internal_telemetry::Telemetry,
};

const BOUNDS: [f64; 15] = [2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1000.0, 1400.0, 2000.0, 5000.0, 10000.0];
const KINDS: [&str; 4] = ["SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_INTERNAL", "SPAN_KIND_PRODUCER"];

fn label_values(row: usize) -> [String; 4] {
    [
        format!("service-{:03}", row / 300),
        format!("GET /api/v1/resource/{:03}", row % 300),
        KINDS[row % 4].to_owned(),
        if row.is_multiple_of(10) { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" }.to_owned(),
    ]
}

const NAMES: [&str; 4] = ["service_name", "span_name", "span_kind", "status_code"];

/// Rows as a registry keeps them.
struct Rows(Vec<(LabelBlock, [f64; 15], f64)>);

impl Rows {
    fn new(rows: usize) -> Self {
        let row = |row: usize| {
            let mut total = 0.0;
            let counts = std::array::from_fn(|at| {
                total += ((row * 7 + at * 13) % 97) as f64;
                total
            });
            (LabelBlock::new(NAMES.iter().copied().zip(label_values(row))), counts, row as f64 * 3.7)
        };
        Self((0..rows).map(row).collect())
    }
}

impl PageSource for Rows {
    fn families(&self) -> Vec<Family> {
        let family = |name: &'static str, kind, unit: &'static str| Family {
            name: name.into(),
            kind,
            help: "Spans.".into(),
            unit: unit.into(),
        };
        vec![
            family("traces_span_metrics_calls_total", FamilyKind::Counter, ""),
            family("traces_span_metrics_duration_milliseconds", FamilyKind::Histogram, "milliseconds"),
        ]
    }

    fn render(&self, number: usize, page: &mut Page<'_>) {
        for (labels, counts, sum) in &self.0 {
            let count = counts[14] + 1.0;
            if number == 0 {
                page.number(labels, count, 1_700_000_000_000_000_000, None, None);
            } else {
                let buckets: [Bucket<'_>; 15] =
                    std::array::from_fn(|at| Bucket { upper_bound: BOUNDS[at], cumulative: counts[at], exemplar: None });
                page.histogram(labels, Some(*sum), count, 1_700_000_000_000_000_000, &buckets, None, None);
            }
        }
    }
}

fn render(sources: &[Arc<dyn PageSource>], format: Format, gzip: bool, left_out: &LeftOut) -> usize {
    let style = Style { choice: Choice { format, escaping: Escaping::Underscores }, gzip, created: false };
    let mut bytes = 0;
    assert!(page_in_pieces(sources, style, left_out, &mut |piece| {
        bytes += black_box(piece).len();
        true
    }));
    bytes
}

fn ours(criterion: &mut Criterion) {
    let left_out = LeftOut::new(&Telemetry::default(), "bench");
    let mut group = criterion.benchmark_group("render");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for rows in [10_000, 60_000] {
        let sources: [Arc<dyn PageSource>; 1] = [Arc::new(Rows::new(rows))];
        let formats = [
            ("text", Format::Text0_0_4, false),
            ("text_gzip", Format::Text0_0_4, true),
            ("open_metrics_gzip", Format::OpenMetrics1_0_0, true),
            ("protobuf", Format::Protobuf, false),
        ];
        for (name, format, gzip) in formats {
            group.throughput(Throughput::Bytes(render(&sources, format, false, &left_out) as u64));
            group.bench_function(BenchmarkId::new(name, format!("{rows}_rows")), |bencher| {
                bencher.iter(|| render(&sources, format, gzip, &left_out));
            });
        }
    }
    group.finish();
}

/// The naive way: the stock registry, gathered and encoded as a whole.
fn the_prometheus_crate(criterion: &mut Criterion) {
    let rows = 10_000;
    let registry = Registry::new();
    let calls = CounterVec::new(Opts::new("traces_span_metrics_calls_total", "Spans."), &NAMES).unwrap();
    let options = HistogramOpts::new("traces_span_metrics_duration_milliseconds", "Spans.").buckets(BOUNDS.to_vec());
    let durations = HistogramVec::new(options, &NAMES).unwrap();
    for row in 0..rows {
        let values = label_values(row);
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        calls.with_label_values(&values).inc_by(row as f64);
        durations.with_label_values(&values).observe(row as f64);
    }
    registry.register(Box::new(calls)).unwrap();
    registry.register(Box::new(durations)).unwrap();
    let encode = || {
        let mut page = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut page).unwrap();
        page.len()
    };
    let mut group = criterion.benchmark_group("render");
    group.sample_size(10).throughput(Throughput::Bytes(encode() as u64));
    group.bench_function(BenchmarkId::new("prometheus_crate_text", format!("{rows}_rows")), |bencher| bencher.iter(encode));
    group.finish();
}

criterion_group!(benches, ours, the_prometheus_crate);
criterion_main!(benches);
