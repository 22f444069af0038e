//! What is saved comes back as it was, and goes on as it would have.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    metrics::v1::{NumberDataPoint, metric::Data, number_data_point},
    trace::v1::{Span, Status, span::Event},
};
use proptest::prelude::*;

use super::harness::*;
use crate::{
    component::{Applied, AppliedTo, Snapshot, SnapshotError, Stateful},
    exposition::{Choice, Escaping, Format, LeftOut, Style, page_in_memory},
    journal::TopicId,
    signal::UnixNanos,
};

/// The whole page as Prometheus would get it.
fn page(bench: &Bench, format: Format) -> Vec<u8> {
    let style = Style { choice: Choice { format, escaping: Escaping::AllowUtf8 }, gzip: false, created: true };
    page_in_memory(&[bench.page.clone().unwrap()], style, &LeftOut::new(&bench.telemetry, "prometheus"))
}

fn restored(yaml: &str, derives: bool, snapshot: &Snapshot) -> Bench {
    let bench = Bench::new(yaml, true, derives);
    bench.state().restore(snapshot).unwrap();
    bench
}

/// Spans of all sorts: names, kinds, states, weights, routes, events.
fn some(seed: u64) -> Vec<Span> {
    (0..40)
        .map(|n| {
            let n = n * 7 + seed;
            Span {
                kind: (n % 6) as i32,
                status: Some(Status { code: (n % 3) as i32, message: String::new() }),
                trace_state: ["", "ot=th:8", "ot=th:55555555555555", "ot=th:c"][n as usize % 4].to_owned(),
                trace_id: vec![n as u8 | 1; 16],
                attributes: vec![text("route", &format!("/{}", n % 23))],
                events: vec![Event { name: "e".to_owned(), attributes: vec![text("k", "v")], ..Event::default() }],
                ..span(&format!("name {}", n % 5), n * n % 4000)
            }
        })
        .collect()
}

const CONFIGURATIONS: [&str; 6] = [
    "",
    "{adjusted_counts: exact, families: [collector, tempo], exemplars: {enabled: true}, native_histograms: {schema: 3}}",
    "{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, exemplars: {enabled: true}}",
    "{histogram: {exponential: {max_size: 20}}, dimensions: [{name: route}], series_identity: service, first_sample_zero: true}",
    "{calls_dimensions: [{name: route}], events: {enabled: true, dimensions: [{name: k}]}, aggregation_cardinality_limit: 30, \
     series_expiration: 25s}",
    "{dimensions: [{name: route}], series_identity: service, exemplars: {enabled: true}, unknown_service: nobody, \
     cardinality: {rows_max: 200, rows_per_service_max: 30, hold: 20s}, series_expiration: 15s}",
];

#[test]
fn what_comes_back_shows_and_tells_the_same_and_goes_on_the_same() {
    for yaml in CONFIGURATIONS {
        let delta = yaml.contains("DELTA");
        let mut first = Bench::new(yaml, true, true);
        for step in 0..12 {
            let now = T0 + step * 5 * SECOND;
            let service = format!("service {}", step % 4);
            first.take(&request(&service, some(step)), now);
            if step % 3 == 2 {
                first.flush(now + SECOND);
            }
            if !delta && step % 4 == 3 {
                page(&first, Format::OpenMetrics1_0_0);
            }
            // Taken in the middle of everything, at each step.
            let mut second = restored(yaml, true, &first.state().snapshot());
            for both in [&first, &second] {
                assert_eq!(both.state().snapshot(), first.state().snapshot(), "saved again, it is the same");
            }
            let later = now + 2 * SECOND;
            let more = request("service 1", some(step + 100));
            let mut third = restored(yaml, true, &first.state().snapshot());
            for bench in [&mut second, &mut third] {
                bench.take(&more, later);
                bench.take(&request("new", some(3)), later);
            }
            assert_eq!(second.flush(later + SECOND), third.flush(later + SECOND), "two of one snapshot go on alike: {yaml}");
            if step == 11 {
                let mut second = restored(yaml, true, &first.state().snapshot());
                for format in [Format::Text1_0_0, Format::OpenMetrics1_0_0, Format::Protobuf] {
                    assert_eq!(page(&first, format), page(&second, format), "{yaml}");
                }
                for step in 0..8 {
                    let at = later + step * 7 * SECOND;
                    assert_eq!(first.flush(at), second.flush(at), "{yaml}");
                    for bench in [&mut first, &mut second] {
                        bench.take(&request(&format!("service {step}"), some(step * 31)), at + SECOND);
                        bench.take(&more, at + SECOND);
                    }
                    for format in [Format::Text1_0_0, Format::OpenMetrics1_0_0, Format::Protobuf] {
                        assert_eq!(page(&first, format), page(&second, format), "step {step} of {yaml}");
                    }
                }
            }
        }
    }
}

#[test]
fn folds_come_back() {
    let yaml = CONFIGURATIONS[5];
    let mut first = Bench::new(yaml, true, false);
    let routes = |range: std::ops::Range<usize>| -> Vec<Span> {
        range.map(|n| Span { attributes: vec![text("route", &format!("/{n}"))], ..span("a", 1) }).collect()
    };
    first.take(&request("cart", routes(0..100)), T0);
    let mut second = restored(yaml, false, &first.state().snapshot());
    second.take(&request("cart", routes(100..101)), T0 + SECOND);
    assert!(!second.scrape().keys().any(|series| series.contains("route=\"/100\"")));
    assert!(second.scrape().keys().any(|series| series.contains("route=\"__overflow__\"")));
}

#[test]
fn a_snapshot_is_of_one_moment_whatever_happens_while_it_is_made() {
    let mut bench = Bench::new("", true, false);
    let spans = |from: usize| -> Vec<Span> { (from..from + 700).map(|n| span(&format!("n{n}"), 5)).collect() };
    bench.take(&request("cart", spans(0)), T0);
    bench.take(&request("cart", spans(700)), T0);
    let before = bench.state().snapshot();
    let state = bench.state();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let saver = scope.spawn(|| {
            let mut all = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && all.len() < 8 {
                all.push(state.snapshot());
            }
            all
        });
        for offset in 0..20 {
            bench.take_from("traces/a", offset, &request("cart", spans(0)), T0 + SECOND);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for snapshot in saver.join().unwrap() {
            let applied = snapshot.applied.iter().next().map_or(0, |entry| entry.offset + 1);
            let counts = restored("", false, &snapshot).scrape();
            let calls = counts.iter().filter(|(series, _)| series.starts_with("traces_span_metrics_calls_total"));
            assert!((calls.map(|(_, count)| count).sum::<f64>() - (1400 + applied * 700) as f64).abs() < 1e-9);
        }
    });
    assert_eq!(bench.state().snapshot().applied.iter().next().unwrap().offset, 19);
    assert!(before.applied.is_empty());
}

#[test]
fn counting_goes_on_while_it_is_flushed() {
    for (yaml, expected) in [("", None), ("aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA", Some(1000 * 30))] {
        let mut bench = Bench::new(yaml, false, true);
        let state = bench.state();
        let spans: Vec<Span> = (0..1000).map(|n| span(&format!("n{n}"), 5)).collect();
        let request = request("cart", spans);
        let calls = |told: &[u64]| told.iter().sum::<u64>();
        let total = std::thread::scope(|scope| {
            let flusher = scope.spawn(|| (0..10).map(|_| told_calls(&*state, false)).collect::<Vec<_>>());
            for offset in 0..30 {
                bench.take_from("traces", offset, &request, T0);
            }
            let told = flusher.join().unwrap();
            calls(&told) + told_calls(&*state, true)
        });
        // Of what is told as a total, the last word counts; each delta counts.
        assert_eq!(expected.unwrap_or(total), total, "{yaml}");
        let rows = if expected.is_some() { 0 } else { 1000 * 30 };
        assert_eq!(told_calls(&*state, true), rows, "{yaml}");
    }
}

/// The sum of the calls that a flush tells.
fn told_calls(state: &dyn Stateful, last: bool) -> u64 {
    let mut out = Vec::new();
    state.flush(UnixNanos(T0 + SECOND), last, &mut out);
    let told = read(out);
    let metrics = told.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
    let sums = metrics.filter_map(|metric| match &metric.data {
        Some(Data::Sum(sum)) => Some(&sum.data_points),
        _ => None,
    });
    let value = |point: &NumberDataPoint| match point.value {
        Some(number_data_point::Value::AsInt(value)) => value as u64,
        _ => 0,
    };
    sums.flatten().map(value).sum()
}

#[test]
fn records_that_are_covered_change_nothing() {
    let mut first = Bench::new("", true, false);
    for offset in 0..5 {
        first.take_from("traces/a", offset, &request("cart", vec![span("a", 1)]), T0);
        first.take_from("traces/b", offset, &request("cart", vec![span("a", 1)]), T0);
    }
    let snapshot = first.state().snapshot();
    let mut second = restored("", false, &snapshot);
    assert_eq!(second.state().applied(), snapshot.applied);
    for offset in 3..8 {
        second.take_from("traces/a", offset, &request("cart", vec![span("a", 1)]), T0);
    }
    let (_, calls) = second.scrape().into_iter().find(|(series, _)| series.starts_with("traces_span_metrics_calls")).unwrap();
    assert!((calls - 13.0).abs() < 1e-9, "five and five, and three that are new");
    let entry = |reader: &str, offset| AppliedTo { reader: reader.into(), topic: TopicId(0), shard: 0, offset };
    assert_eq!(second.state().applied(), Applied::new([entry("traces/a", 7), entry("traces/b", 4)]));
}

#[test]
fn while_it_replays_nothing_is_shown_told_or_forgotten() {
    let yaml = "{series_expiration: 30s, metrics_expiration: 30s, first_sample_zero: true}";
    let mut bench = Bench::new(yaml, true, true);
    bench.state().replaying(true);
    bench.take(&request("cart", vec![span("a", 1)]), T0 - 100 * SECOND);
    assert_eq!(bench.flush(T0).resource_metrics, []);
    assert!(bench.page.as_ref().unwrap().unready().is_some());
    bench.state().replaying(false);
    assert!(bench.page.as_ref().unwrap().unready().is_none());
    // Idle times begin anew, and what may have been shown before does not go back to 0.
    let told = format!("{:?}", bench.flush(T0 + 20 * SECOND));
    assert!(told.contains("AsInt(1)") && !told.contains("AsInt(0)"), "{told}");
    assert!(bench.scrape().values().all(|value| *value > 0.0 || value.to_bits() == 0));
    assert!(bench.scrape().iter().any(|(series, value)| series.contains("calls") && *value > 0.5));
    bench.flush(T0 + 40 * SECOND);
    assert_eq!(bench.scrape().len(), 0);
}

#[test]
fn a_snapshot_of_other_settings_is_refused_by_name() {
    let mut first = Bench::new("", true, false);
    first.take(&request("cart", vec![span("a", 1)]), T0);
    let snapshot = first.state().snapshot();
    for (yaml, name) in [
        ("histogram: {explicit: {buckets: [5ms]}}", "histogram"),
        ("dimensions: [{name: route}]", "dimensions"),
        ("series_identity: service", "series_identity"),
    ] {
        let other = Bench::new(yaml, true, false);
        let error = other.state().restore(&snapshot).unwrap_err();
        assert_eq!(error, SnapshotError::Settings { names: vec![name.to_owned()] });
        assert_ne!(other.state().snapshot().fingerprint, snapshot.fingerprint);
        assert!(other.scrape().is_empty());
    }
    let newer = Snapshot { version: 99, ..snapshot };
    assert_eq!(first.state().restore(&newer), Err(SnapshotError::Version { found: 99, known: 1 }));
    assert!(!first.scrape().is_empty(), "the state is as it was");
}

fn saved() -> &'static Snapshot {
    static SAVED: std::sync::OnceLock<Snapshot> = std::sync::OnceLock::new();
    SAVED.get_or_init(|| {
        let mut bench = Bench::new(CONFIGURATIONS[1], true, false);
        bench.take(&request("cart", some(1)), T0);
        bench.take(&request("web", some(2).split_off(30)), T0);
        bench.state().snapshot()
    })
}

#[test]
fn half_a_snapshot_is_none() {
    let bench = Bench::new(CONFIGURATIONS[1], true, false);
    let whole = saved();
    // Every byte would take a while.
    let ends = (0..whole.bytes.len()).filter(|end| *end < 1500 || *end % 17 == 0 || *end + 500 > whole.bytes.len());
    for end in ends {
        let part = Snapshot { bytes: whole.bytes[..end].to_vec(), ..whole.clone() };
        assert!(bench.state().restore(&part).is_err(), "the first {end} bytes");
    }
    let more = Snapshot { bytes: [&*whole.bytes, &[0]].concat(), ..whole.clone() };
    assert!(bench.state().restore(&more).is_err());
}

proptest! {
    #[test]
    fn damaged_bytes_panic_nowhere(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        behind in any::<bool>(),
    ) {
        let mut snapshot = saved().clone();
        // The settings in front are text; what follows them is where it gets interesting.
        let from = if behind { snapshot.bytes.len() / 3 } else { 0 };
        for (at, byte) in changes {
            let at = from + at.index(snapshot.bytes.len() - from);
            snapshot.bytes[at] = byte;
        }
        let mut bench = Bench::new(CONFIGURATIONS[1], true, true);
        if bench.state().restore(&snapshot).is_ok() {
            bench.take(&request("cart", some(1)), T0);
            page(&bench, Format::Protobuf);
            let mut out = Vec::new();
            bench.state().flush(UnixNanos(T0), false, &mut out);
        }
    }
}

#[test]
fn an_arc_of_another_make_names_the_same_reader() {
    let mut applied = Applied::default();
    let position = |offset| crate::journal::Position { topic: TopicId(3), shard: 1, offset };
    applied.add(&Arc::from("traces"), position(7));
    assert!(applied.covers(&Arc::from("traces"), position(7)));
    assert!(!applied.covers(&Arc::from("traces"), position(8)) && !applied.covers(&Arc::from("logs"), position(7)));
}
