//! Documents of every mapping, against golden files that were written by hand from what the Collector's exporter is known to write.

use serde_json::Value;

use super::batch;
use crate::{
    component::{Items, Request},
    exporters::elasticsearch::{
        documents::{Making, Mode, PartId, encode},
        target::Targets,
    },
    signal::Signal,
};

fn making(targets: &Targets, mode: Mode) -> Making<'_> {
    Making {
        targets,
        mode,
        allowed: &[],
        create: "create",
        dynamic_id: false,
        dynamic_pipeline: false,
        native_otel: false,
        bytes_max: 5 << 20,
        ids: vec![PartId { prefix: "ID".to_owned(), items: Items::all(100), always: false }],
        now: 1,
    }
}

fn targets() -> Targets {
    Targets::new(&super::config("endpoint: http://localhost:9200").0)
}

/// The lines of all bodies, and the numbers of the items that were refused.
fn written(mode: Mode, signal: Signal, otlp: &str) -> (Vec<Value>, Vec<u64>) {
    let targets = targets();
    let making = Making { native_otel: signal == Signal::Metrics, ..making(&targets, mode) };
    let batch = batch(signal, otlp);
    let items = batch.items;
    let encoded = encode(&making, &Request::of(batch));
    let mut told: Vec<u64> = encoded.members.clone();
    told.extend(encoded.refused.iter().map(|(item, _)| *item));
    assert!(told.iter().all(|item| *item < items));
    let lines = encoded.bulks.iter().flat_map(|bulk| bulk.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()));
    let lines = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    (lines, encoded.refused.into_iter().map(|(item, _)| item).collect())
}

fn golden(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect()
}

macro_rules! check {
    ($mode:ident, $signal:ident, $input:literal, $golden:literal) => {{
        let (lines, refused) = written(Mode::$mode, Signal::$signal, include_str!(concat!("../testdata/", $input)));
        let golden = golden(include_str!(concat!("../testdata/", $golden)));
        for (line, wanted) in lines.iter().zip(&golden) {
            assert_eq!(line, wanted, "{} in {}", $golden, serde_json::to_string_pretty(line).unwrap());
        }
        assert_eq!(lines.len(), golden.len(), "{}", $golden);
        refused
    }};
}

#[test]
fn otel() {
    check!(Otel, Logs, "logs.json", "otel_logs.json");
    check!(Otel, Traces, "traces.json", "otel_traces.json");
    check!(Otel, Metrics, "metrics.json", "otel_metrics.json");
}

#[test]
fn none_and_raw() {
    check!(None, Logs, "logs.json", "none_logs.json");
    check!(None, Traces, "traces.json", "none_traces.json");
    check!(Raw, Logs, "logs.json", "raw_logs.json");
    check!(Raw, Traces, "traces.json", "raw_traces.json");
}

#[test]
fn ecs() {
    check!(Ecs, Logs, "logs.json", "ecs_logs.json");
    check!(Ecs, Traces, "traces.json", "ecs_traces.json");
    check!(Ecs, Metrics, "metrics.json", "ecs_metrics.json");
}

#[test]
fn bodymap_and_what_it_cannot_store() {
    assert_eq!(check!(Bodymap, Logs, "logs.json", "bodymap_logs.json"), [0]);
    check!(Ss4o, Logs, "logs.json", "ss4o_logs.json");
    let (lines, refused) = written(Mode::Bodymap, Signal::Traces, include_str!("../testdata/traces.json"));
    assert_eq!((lines.len(), refused), (0, vec![0]));
}

/// Whatever a request holds, each of its items is in a document, refused, or says only that a series ended; and each line is JSON without a key
/// that comes twice.
#[test]
fn any_request_becomes_lines() {
    use crate::otlp::{arbitrary::Draw, count};
    let targets = targets();
    for seed in 0..300 {
        for signal in Signal::ALL {
            let payload = Draw::new(seed).request(signal);
            let items = count::items(signal, &payload);
            let batch =
                crate::signal::Batch { signal, payload: payload.into(), items, context: std::sync::Arc::default(), index: None };
            for mode in [Mode::Otel, Mode::Ecs, Mode::None, Mode::Raw, Mode::Bodymap, Mode::Ss4o] {
                let encoded = encode(&making(&targets, mode), &Request::of(batch.clone()));
                for bulk in &encoded.bulks {
                    super::fake::assert_lines(&bulk.body);
                }
                let mut told: Vec<u64> =
                    encoded.members.iter().copied().chain(encoded.refused.iter().map(|(item, _)| *item)).collect();
                told.sort_unstable();
                told.dedup();
                assert!(told.last().is_none_or(|last| *last < items), "{mode:?} {signal}");
                if signal != Signal::Metrics {
                    assert_eq!(told.len() as u64, items, "{mode:?} {signal}");
                }
            }
        }
    }
}
