//! What did not go as it should: counted, and logged once a metric or service.

use std::{collections::HashSet, hash::Hash};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tracing::warn;

use super::points::Ignored;
use crate::{
    exposition::FamilyKind,
    internal_telemetry::{PROMETHEUS_CONFLICTS, PROMETHEUS_IGNORED, PROMETHEUS_INTERLEAVED, PROMETHEUS_SERIES, Telemetry},
};

/// Different things said once; further ones are only counted.
const SAID_MAX: usize = 1024;
/// Metrics and services with a counter of their own; further ones share `other`.
const COUNTED_MAX: usize = 100;

pub(super) struct Reports {
    telemetry: Telemetry,
    exporter: String,
    ignored: [IntCounter; Ignored::ALL.len()],
    series: IntGauge,
    said: Mutex<HashSet<(Ignored, String)>>,
    conflicts: Mutex<HashSet<String>>,
    interleaved: Mutex<HashSet<String>>,
}

impl Reports {
    pub(super) fn new(telemetry: &Telemetry, exporter: &str) -> Self {
        let ignored = |reason: Ignored| {
            let labels = [("exporter", exporter), ("reason", reason.as_str())];
            telemetry.counter(PROMETHEUS_IGNORED, "Data points that changed no series.", &labels)
        };
        Self {
            ignored: Ignored::ALL.map(ignored),
            series: telemetry.int_gauge(PROMETHEUS_SERIES, "Series held for the page.", &[("exporter", exporter)]),
            telemetry: telemetry.clone(),
            exporter: exporter.to_owned(),
            said: Mutex::default(),
            conflicts: Mutex::default(),
            interleaved: Mutex::default(),
        }
    }

    pub(super) fn series(&self, series: usize) {
        self.series.set(series as i64);
    }

    pub(super) fn ignored(&self, reason: Ignored, metric: &str, service: &str, points: u64) {
        if points == 0 {
            return;
        }
        if let Some(counter) = self.ignored.get(reason as usize) {
            counter.inc_by(points);
        }
        if reason == Ignored::Full {
            if first(&self.said, (reason, String::new()), SAID_MAX) {
                let (exporter, series) = (self.exporter.as_str(), self.series.get());
                warn!(
                    exporter,
                    metric,
                    service,
                    series,
                    "no room for another series: points of new ones are left out and counted; fewer labels or names, a shorter `metric_expiration` or a larger `max_series` help"
                );
            }
            return;
        }
        // Repeated and late points are daily life; conflicts have a line of their own.
        let quiet = matches!(reason, Ignored::Old | Ignored::Conflict);
        if !quiet && first(&self.said, (reason, metric.to_owned()), SAID_MAX) {
            let (exporter, reason) = (self.exporter.as_str(), reason.as_str());
            warn!(exporter, metric, service, reason, "data points left out; further ones of this metric are only counted");
        }
    }

    pub(super) fn conflict(&self, metric: &str, known: FamilyKind, kind: FamilyKind, service: &str) {
        if self.count(
            PROMETHEUS_CONFLICTS,
            "Metrics left out for a type that their name does not have.",
            "metric",
            metric,
            &self.conflicts,
        ) {
            let exporter = self.exporter.as_str();
            warn!(exporter, metric, service, ?known, ?kind, "metric left out: its name is taken by a metric of another type");
        }
    }

    pub(super) fn interleaved(&self, metric: &str, service: &str) {
        let help = "Points whose start went back: several writers share one series.";
        if self.count(PROMETHEUS_INTERLEAVED, help, "service", service, &self.interleaved) {
            let exporter = self.exporter.as_str();
            warn!(
                exporter,
                metric,
                service,
                "several processes write one series: give each its own service.instance.id, or their numbers replace one another"
            );
        }
    }

    /// Counts by one label with a bounded number of values; whether this one is new.
    fn count(&self, name: &'static str, help: &'static str, label: &str, value: &str, known: &Mutex<HashSet<String>>) -> bool {
        let news = first(known, value.to_owned(), COUNTED_MAX);
        let shown = if known.lock().contains(value) { value } else { "other" };
        self.telemetry.counter(name, help, &[("exporter", &self.exporter), (label, shown)]).inc();
        news
    }
}

fn first<K: Hash + Eq>(said: &Mutex<HashSet<K>>, what: K, most: usize) -> bool {
    let mut said = said.lock();
    said.len() < most && said.insert(what)
}
