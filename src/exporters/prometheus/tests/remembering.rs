//! What is saved comes back as it was, and goes on as it would have.

use proptest::prelude::*;

use super::*;
use crate::{
    component::{Position, Snapshot, SnapshotError},
    journal::TopicId,
};

const SETTINGS: &str = r#"{"metric_expiration": "100s"}"#;

/// One request with metrics of every kind; `step` moves time on.
fn metrics(step: u64) -> Value {
    let times = |from: u64| json!({"startTimeUnixNano": at(from), "timeUnixNano": at(step * 10)});
    let with = |mut point: Value, more: Value| {
        point.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        point
    };
    let exemplar = json!([{"asDouble": 3.0 + step as f64, "timeUnixNano": at(step * 10), "traceId": "0102030405060708090a0b0c0d0e0f10",
                           "spanId": "0102030405060708", "filteredAttributes": attributes(&[("user", "u")])}]);
    let delta_from = (step * 10).saturating_sub(10);
    let classic =
        json!({"count": "6", "sum": 20.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [1.0, 5.0], "exemplars": exemplar});
    let exponential = json!({"count": "9", "sum": 7.0, "scale": 3 + step % 3, "zeroCount": "2",
        "positive": {"offset": -3 + step as i64, "bucketCounts": ["1", "0", "4"]}, "negative": {"offset": 1, "bucketCounts": ["2"]}});
    let summary = json!({"count": "4", "sum": 2.5, "quantileValues": [{"quantile": 0.5, "value": 0.25}]});
    let series = |n: u64, point: Value| with(point, json!({"attributes": attributes(&[("n", &n.to_string())])}));
    json!([
        gauge("g", (0..5).map(|n| series(n + step % 3, point(n as f64 + 0.5, 0, step * 10))).collect()),
        sum("c", CUMULATIVE, json!([with(point(step as f64 * 3.0, 0, step * 10), json!({"exemplars": exemplar}))])),
        sum("d", DELTA, (0..3).map(|n| series(n, point(2.5, delta_from, step * 10))).collect()),
        {"name": "h", "unit": "s", "description": "how long",
         "histogram": {"aggregationTemporality": DELTA, "dataPoints": [with(classic.clone(), times(delta_from))]}},
        {"name": "hc", "histogram": {"aggregationTemporality": CUMULATIVE,
            "dataPoints": (0..3).map(|n| series(n, with(classic.clone(), times(0)))).collect::<Vec<_>>()}},
        {"name": "e", "exponentialHistogram": {"aggregationTemporality": DELTA, "dataPoints": [with(exponential, times(delta_from))]}},
        {"name": "s", "summary": {"dataPoints": [with(summary, times(0))]}},
        gauge(&format!("only.at.{}", step % 4), json!([point(1.0, 0, step * 10)])),
    ])
}

fn send(bench: &Bench, step: u64) {
    for host in ["a", "b"] {
        let resource = [("service.name", "cart"), ("service.instance.id", host), ("host.name", host)];
        bench.send(&request_of(&resource, metrics(step)));
    }
}

fn pages(bench: &Bench) -> Vec<Vec<u8>> {
    [Format::Text1_0_0, Format::OpenMetrics1_0_0, Format::Protobuf].map(|format| bench.page(format, Escaping::AllowUtf8)).into()
}

fn restored(snapshot: &Snapshot, now: u64) -> Bench {
    let bench = Bench { now, ..Bench::new(SETTINGS) };
    bench.applier.restore(snapshot).unwrap();
    bench
}

#[test]
fn what_comes_back_shows_the_same_and_goes_on_the_same() {
    let mut first = Bench::new(SETTINGS);
    for step in 1..10 {
        first.now = START + step * 10 * SECOND;
        send(&first, step);
        if step == 6 {
            // Series end, and their places are free.
            let end = json!({"timeUnixNano": at(61), "flags": 1, "attributes": attributes(&[("n", "1")])});
            first.send(&request_of(&[("service.name", "cart"), ("service.instance.id", "a")], json!([gauge("g", json!([end]))])));
        }
        let snapshot = first.applier.save();
        let mut second = restored(&snapshot, first.now);
        assert_eq!(second.applier.save(), snapshot, "saved again, it is the same");
        assert_eq!(pages(&first), pages(&second));
        assert_eq!(second.applier.store.series(), first.applier.store.series());
        if step == 9 {
            for step in [10, 11, 14, 25] {
                for bench in [&mut first, &mut second] {
                    bench.now = START + step * 10 * SECOND;
                    send(bench, step);
                    bench.applier.sweep(bench.now - 100 * SECOND);
                }
                assert_eq!(pages(&first), pages(&second), "at {step}");
                assert_eq!(second.applier.store.series(), first.applier.store.series());
            }
        }
    }
}

#[test]
fn a_snapshot_is_of_one_moment_whatever_happens_while_it_is_made() {
    let bench = Bench::new(r#"{"without_scope_info": true}"#);
    let request = |step: u64| {
        let series = |n: u64| {
            json!({"asDouble": 1.0, "startTimeUnixNano": at(step), "timeUnixNano": at(step + 1),
                                     "attributes": attributes(&[("n", &n.to_string())])})
        };
        payload(&request(json!([
            sum("a", DELTA, (0..600).map(series).collect()),
            sum("z", DELTA, (0..600).map(series).collect())
        ])))
    };
    let requests: Vec<Vec<u8>> = (0..12).map(request).collect();
    let reader: Arc<str> = "metrics".into();
    let position = |offset| Position { topic: TopicId(1), shard: 0, offset };
    let mut snapshots = Vec::new();
    std::thread::scope(|scope| {
        let saver = scope.spawn(|| (0..8).map(|_| bench.applier.save()).collect::<Vec<_>>());
        for (offset, request) in (0..).zip(&requests) {
            bench.applier.apply_from(&reader, position(offset), request, None, START);
        }
        snapshots = saver.join().unwrap();
    });
    snapshots.push(bench.applier.save());
    for snapshot in snapshots {
        let applied = snapshot.applied.iter().next().map_or(0, |entry| entry.offset + 1);
        let second = Bench::new(r#"{"without_scope_info": true}"#);
        second.applier.restore(&snapshot).unwrap();
        let page = second.text();
        let totals: Vec<f64> = page.lines.iter().filter(|line| line.name != "target_info").map(|line| line.value).collect();
        assert_eq!(totals.len(), if applied == 0 { 0 } else { 1200 });
        assert!(totals.iter().all(|total| *total == applied as f64), "all of {applied}");
        // What it covers changes nothing, what it does not is added.
        for (offset, request) in (0..).zip(&requests) {
            second.applier.apply_from(&reader, position(offset), request, None, START);
        }
        assert_eq!(second.text().value("a_total", &[("job", "cart"), ("instance", "i"), ("n", "7")]), 12.0);
    }
}

#[test]
fn a_snapshot_of_other_settings_is_refused_by_name() {
    let first = Bench::new(SETTINGS);
    send(&first, 1);
    let snapshot = first.applier.save();
    let other = Bench::new(r#"{"namespace": "n", "without_scope_info": true}"#);
    let names = vec!["namespace".to_owned(), "without_scope_info".to_owned()];
    assert_eq!(other.applier.restore(&snapshot), Err(SnapshotError::Settings { names }));
    assert_ne!(other.applier.save().fingerprint, snapshot.fingerprint);
    let newer = Snapshot { version: 7, ..snapshot };
    assert_eq!(first.applier.restore(&newer), Err(SnapshotError::Version { found: 7, known: 1 }));
    assert!(!first.text().lines.is_empty(), "the state is as it was");
}

fn saved() -> &'static Snapshot {
    static SAVED: std::sync::OnceLock<Snapshot> = std::sync::OnceLock::new();
    SAVED.get_or_init(|| {
        let bench = Bench::new(SETTINGS);
        bench.send(&request(metrics(1)));
        bench.send(&request(metrics(2)));
        bench.applier.save()
    })
}

#[test]
fn half_a_snapshot_is_none() {
    let bench = Bench::new(SETTINGS);
    let whole = saved();
    for end in 0..whole.bytes.len() {
        let part = Snapshot { bytes: whole.bytes[..end].to_vec(), ..whole.clone() };
        assert!(bench.applier.restore(&part).is_err(), "the first {end} bytes");
    }
    let more = Snapshot { bytes: [&*whole.bytes, &[0]].concat(), ..whole.clone() };
    assert!(bench.applier.restore(&more).is_err());
}

proptest! {
    #[test]
    fn damaged_bytes_panic_nowhere(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        behind in any::<bool>(),
    ) {
        let mut snapshot = saved().clone();
        // The settings in front are text; what follows them is where it gets interesting.
        let from = if behind { 300 } else { 0 };
        for (at, byte) in changes {
            let at = from + at.index(snapshot.bytes.len() - from);
            snapshot.bytes[at] = byte;
        }
        let mut bench = Bench::new(SETTINGS);
        if bench.applier.restore(&snapshot).is_ok() {
            bench.now += 30 * SECOND;
            bench.send(&request(metrics(3)));
            pages(&bench);
            bench.applier.sweep(START + 20 * SECOND);
        }
    }
}
