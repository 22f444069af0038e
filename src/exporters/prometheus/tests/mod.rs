//! Requests in, pages out, read back by readers of other making. `testdata/` holds what Collector 0.155 showed for the same request.

#![allow(clippy::float_cmp, reason = "numbers come back as they were put in, to the bit")]

mod collector;
mod remembering;
mod semantics;
mod serving;

use std::{net::IpAddr, sync::Arc};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prometheus::proto::MetricFamily;
use prost::Message as _;
use serde_json::{Value, json};

use super::{Settings, apply::Applier, reports::Reports};
use crate::{
    exposition::{
        Choice, Escaping, FamilyKind, Format, LeftOut, PageSource, Style, messages, page_in_memory,
        reader::{self, Read},
    },
    internal_telemetry::Telemetry,
};

const SECOND: u64 = 1_000_000_000;
/// The time of the first request.
const START: u64 = 1_700_000_000 * SECOND;

/// A store with a clock.
struct Bench {
    applier: Applier,
    settings: Settings,
    telemetry: Telemetry,
    now: u64,
}

impl Bench {
    fn new(settings: &str) -> Self {
        let settings: Settings = serde_json::from_str(settings).unwrap();
        let telemetry = Telemetry::default();
        let applier = Applier::new(settings.clone(), Reports::new(&telemetry, "prometheus"));
        Self { applier, settings, telemetry, now: START }
    }

    fn send(&self, request: &Value) {
        self.send_from(request, None);
    }

    fn send_from(&self, request: &Value, peer: Option<IpAddr>) {
        self.applier.apply(&payload(request), peer, self.now);
    }

    fn page(&self, format: Format, escaping: Escaping) -> Vec<u8> {
        let oldest = self.now - u64::try_from(self.settings.metric_expiration.0.as_nanos()).unwrap();
        let (info, _) =
            self.settings.strategy().metric_name(&self.settings.namespace, "target_info", "", FamilyKind::Info, false);
        let sources: [Arc<dyn PageSource>; 1] =
            [Arc::new(self.applier.store.snapshot(oldest, self.settings.send_timestamps, &info))];
        let style = Style { choice: Choice { format, escaping }, gzip: false, created: false };
        page_in_memory(&sources, style, &LeftOut::new(&self.telemetry, "prometheus"))
    }

    fn text(&self) -> Read {
        reader::read(&String::from_utf8(self.page(Format::Text1_0_0, Escaping::AllowUtf8)).unwrap(), false)
    }

    fn native(&self, name: &str) -> messages::Histogram {
        let families = messages::read(&self.page(Format::Protobuf, Escaping::Underscores));
        let family = families.iter().find(|family| family.name == name).unwrap();
        assert_eq!(family.metric.len(), 1);
        family.metric[0].histogram.clone().unwrap()
    }

    /// Our own counter `name`, all its series with this label added.
    fn counted(&self, name: &str, label: &str, value: &str) -> u64 {
        let families = self.telemetry.registry().gather();
        let metrics = families.iter().filter(|family| family.name() == name).flat_map(MetricFamily::get_metric);
        let with = metrics.filter(|metric| metric.get_label().iter().any(|pair| pair.name() == label && pair.value() == value));
        with.map(|metric| metric.get_counter().get_value() as u64).sum()
    }
}

fn payload(request: &Value) -> Vec<u8> {
    serde_json::from_value::<ExportMetricsServiceRequest>(request.clone()).unwrap().encode_to_vec()
}

fn attributes(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}

/// One request with the metrics of one resource, its scope without a name.
fn request_of(resource: &[(&str, &str)], metrics: Value) -> Value {
    json!({"resourceMetrics": [{
        "resource": {"attributes": attributes(resource)},
        "scopeMetrics": [{"scope": {}, "metrics": metrics}],
    }]})
}

const REPLICA: &[(&str, &str)] = &[("service.name", "cart"), ("service.instance.id", "i")];

fn request(metrics: Value) -> Value {
    request_of(REPLICA, metrics)
}

fn at(seconds: u64) -> String {
    (START + seconds * SECOND).to_string()
}

fn point(value: f64, start: u64, time: u64) -> Value {
    json!({"asDouble": value, "startTimeUnixNano": at(start), "timeUnixNano": at(time)})
}

fn gauge(name: &str, points: Value) -> Value {
    json!({"name": name, "gauge": {"dataPoints": points}})
}

const DELTA: u32 = 1;
const CUMULATIVE: u32 = 2;

fn sum(name: &str, temporality: u32, points: Value) -> Value {
    json!({"name": name, "sum": {"dataPoints": points, "isMonotonic": true, "aggregationTemporality": temporality}})
}

/// The labels that a series of [`REPLICA`] has, its scope left out.
fn own(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let fixed = [("job", "cart"), ("instance", "i")];
    fixed.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The value of a series of [`REPLICA`]; scope labels are off.
#[track_caller]
fn value(page: &Read, name: &str, more: &[(&str, &str)]) -> f64 {
    let labels = own(more);
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    page.value(name, &labels)
}

fn names(page: &Read) -> Vec<&str> {
    page.lines.iter().map(|line| line.name.as_str()).filter(|name| *name != "target_info").collect()
}
