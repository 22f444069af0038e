//! What the receiver counts about itself.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};

use crate::{
    internal_telemetry::{SCRAPE_DISCOVERIES_FAILED, SCRAPE_LEFT_OUT, SCRAPE_SERIES, SCRAPE_TARGETS, SCRAPES, Telemetry},
    signal::ComponentId,
};

use super::translate::Lost;

/// The counters of one receiver.
#[derive(Clone)]
pub(super) struct Reports {
    pub(super) receiver: Arc<str>,
    telemetry: Telemetry,
    left_out: Arc<[IntCounter]>,
}

impl Reports {
    pub(super) fn new(telemetry: &Telemetry, receiver: &ComponentId) -> Self {
        let left_out = Lost::ALL.map(|(_, reason)| {
            let help = "Samples of scraped pages that are in no point, by reason.";
            telemetry.counter(SCRAPE_LEFT_OUT, help, &[("receiver", receiver.as_str()), ("reason", reason)])
        });
        Self { receiver: receiver.as_str().into(), telemetry: telemetry.clone(), left_out: Arc::new(left_out) }
    }

    pub(super) fn scraped(&self, job: &str, outcome: &str) {
        let labels = [("receiver", &*self.receiver), ("job", job), ("outcome", outcome)];
        self.telemetry.counter(SCRAPES, "Scrapes by what became of them.", &labels).inc();
    }

    pub(super) fn left_out(&self, lost: &[u64]) {
        for (counter, lost) in self.left_out.iter().zip(lost) {
            counter.inc_by(*lost);
        }
    }

    pub(super) fn targets(&self, job: &str) -> IntGauge {
        self.telemetry.int_gauge(SCRAPE_TARGETS, "Targets that are scraped.", &[("receiver", &self.receiver), ("job", job)])
    }

    /// Points that are remembered, so that their end can be told.
    pub(super) fn series(&self, job: &str) -> IntGauge {
        let help = "Series of the last scrapes, remembered so that their end can be told.";
        self.telemetry.int_gauge(SCRAPE_SERIES, help, &[("receiver", &self.receiver), ("job", job)])
    }

    pub(super) fn discoveries_failed(&self, job: &str) -> IntCounter {
        let help = "Attempts to find targets that failed.";
        self.telemetry.counter(SCRAPE_DISCOVERIES_FAILED, help, &[("receiver", &self.receiver), ("job", job)])
    }
}
