//! Against what the Collector (0.155) printed for the same requests.

use super::*;
use crate::{
    otlp::{
        ScanLimits,
        json::{Limits, decode},
    },
    signal::UnixNanos,
};

fn request(signal: Signal, json: &str) -> Vec<u8> {
    decode(signal, json.as_bytes(), &Limits { scan: ScanLimits::default(), bytes_max: 1 << 20 }).unwrap()
}

fn inner(verbosity: Verbosity) -> Inner {
    let config = Config { verbosity, use_internal_logger: false, ..Config::default() };
    Inner {
        config,
        id: None,
        clock: Clock::new(|| UnixNanos(1_700_000_000_123_456_789)),
        outputs: Mutex::default(),
        counts: Mutex::default(),
    }
}

#[track_caller]
fn check(verbosity: Verbosity, requests: [&str; 3], expected: &str) {
    let exporter = inner(verbosity);
    let signals = [Signal::Traces, Signal::Logs, Signal::Metrics];
    let written: String =
        signals.iter().zip(requests).map(|(signal, json)| exporter.text(*signal, &request(*signal, json))).collect();
    for (at, (ours, theirs)) in written.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {}", at + 1);
    }
    assert_eq!(written, expected);
}

const USUAL: [&str; 3] =
    [include_str!("testdata/traces.json"), include_str!("testdata/logs.json"), include_str!("testdata/metrics.json")];
const ODD: [&str; 3] =
    [include_str!("testdata/odd_traces.json"), include_str!("testdata/odd_logs.json"), include_str!("testdata/odd_metrics.json")];

#[test]
fn writes_a_line_a_request() {
    check(Verbosity::Basic, USUAL, include_str!("testdata/basic.txt"));
}

#[test]
fn writes_a_line_an_item() {
    check(Verbosity::Normal, USUAL, include_str!("testdata/normal.txt"));
}

#[test]
fn writes_a_line_a_field() {
    check(Verbosity::Detailed, USUAL, include_str!("testdata/detailed.txt"));
}

#[test]
fn writes_odd_numbers_and_missing_fields_as_the_collector_does() {
    check(Verbosity::Detailed, ODD, include_str!("testdata/odd_detailed.txt"));
    check(Verbosity::Normal, ODD, include_str!("testdata/odd_normal.txt"));
}

#[test]
fn begins_like_a_line_of_the_log() {
    let mut exporter = inner(Verbosity::Basic);
    exporter.id = Some("debug/x".to_owned());
    let expected = "2023-11-14T22:13:20.123Z\tinfo\tTraces\t{\"otelcol.component.id\": \"debug/x\", \
                    \"otelcol.component.kind\": \"exporter\", \"otelcol.signal\": \"traces\", \"resource spans\": 0, \"spans\": 0}\n";
    assert_eq!(exporter.text(Signal::Traces, &[]), expected);
}

#[tokio::test(start_paused = true)]
async fn writes_the_first_of_each_second_and_every_third_after() {
    let mut exporter = inner(Verbosity::Basic);
    (exporter.config.sampling_initial, exporter.config.sampling_thereafter) = (2, 3);
    let second = || -> Vec<bool> { (0..9).map(|_| exporter.is_sampled(Signal::Logs)).collect() };
    let expected = [true, true, false, false, true, false, false, true, false];
    assert_eq!(second(), expected);
    tokio::time::advance(TICK).await;
    assert_eq!(second(), expected);
}
