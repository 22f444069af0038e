//! The exporter against a server that is strict, keeps what a Prometheus keeps, and misbehaves on purpose.

#![allow(clippy::float_cmp, reason = "numbers come back as they were put in, to the bit")]

mod bounds;
mod failing;
mod fake;
mod messages;
mod sending;
mod settings;
mod words;

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use serde_json::{Value, json};

use self::fake::{Fake, Speaks};
use super::Config;
use crate::{
    component::{
        Again, Exporter, ExporterConfig as _, Extensions, Items, Origin, Outcome, Position, Provenance, Request, RetryCause,
        Verdicts,
    },
    config::Diagnostics,
    journal::{JournalId, TopicId, TopicNames},
    otlp::{count, pick_items},
    signal::{Batch, Signal, UnixNanos},
    transport::client::testing::{build_context, node},
};

/// Unix milliseconds of the first points.
const START: i64 = 1_763_758_800_000;

fn exporter(fake: &Fake, more: &str) -> Arc<dyn Exporter> {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(&format!("endpoint: {}\ndisable_scope_info: true\n{more}", fake.url())), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    config.build(build_context(Extensions::default())).unwrap()
}

async fn healthy() -> Fake {
    Fake::start(Speaks::Both, |_, _| None).await
}

const TWO: &str = "protobuf_message: io.prometheus.write.v2.Request\n";

fn batch(request: &Value) -> Batch {
    let payload: Bytes = serde_json::from_value::<ExportMetricsServiceRequest>(request.clone()).unwrap().encode_to_vec().into();
    let items = count::items(Signal::Metrics, &payload);
    Batch { signal: Signal::Metrics, payload, items, context: Arc::default(), index: None }
}

fn attributes(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}

fn request_of(resource: &[(&str, &str)], metrics: &Value) -> Value {
    json!({"resourceMetrics": [{
        "resource": {"attributes": attributes(resource)},
        "scopeMetrics": [{"scope": {}, "metrics": metrics}],
    }]})
}

/// Metrics of one process: `job="cart",instance="i"`.
fn metrics(metrics: &Value) -> Batch {
    batch(&request_of(&[("service.name", "cart"), ("service.instance.id", "i")], metrics))
}

fn at(millis: i64) -> String {
    format!("{}000000", START + millis)
}

fn gauge(name: &str, points: &[(&str, i64, f64)]) -> Value {
    let points: Vec<Value> = points
        .iter()
        .map(|(of, time, value)| json!({"asDouble": value, "timeUnixNano": at(*time), "attributes": attributes(&[("of", of)])}))
        .collect();
    json!({"name": name, "gauge": {"dataPoints": points}})
}

async fn send(exporter: &Arc<dyn Exporter>, batch: Batch) -> Outcome {
    exporter.export(Request::of(batch)).await
}

#[track_caller]
fn each(outcome: Outcome) -> Verdicts {
    match outcome {
        Outcome::Each(verdicts) => verdicts,
        other => panic!("{other:?}"),
    }
}
