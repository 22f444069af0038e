//! What a page had to leave out: counted by reason, logged once a metric.

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::warn;

use crate::internal_telemetry::{PROMETHEUS_LEFT_OUT, Telemetry};

/// Why a series or a family is not on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A label that is reserved, empty or there twice.
    Labels,
    /// Another series of this page has the same name and labels.
    Duplicate,
    /// Another family of this name has a different type, or its samples' names are this one's.
    Conflict,
    /// The family's name is empty.
    Name,
    /// A sample of another kind than its family.
    Kind,
}

impl Reason {
    const ALL: [Self; 5] = [Self::Labels, Self::Duplicate, Self::Conflict, Self::Name, Self::Kind];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Name => "name",
            Self::Kind => "kind",
        }
    }
}

/// Metrics named in the log so far are remembered up to this many; a log line each is enough.
const LOGGED_MAX: usize = 1024;

/// One a page.
pub struct LeftOut {
    page: String,
    counters: [IntCounter; 5],
    /// Metric → reasons already logged, a bit each.
    logged: Mutex<HashMap<String, u8>>,
}

impl LeftOut {
    /// `page` is the exporter's id, or what else serves the page.
    pub fn new(telemetry: &Telemetry, page: &str) -> Self {
        let counter = |reason: Reason| {
            let labels = [("exporter", page), ("reason", reason.as_str())];
            telemetry.counter(PROMETHEUS_LEFT_OUT, "Series or families left out of a page, once a scrape.", &labels)
        };
        Self { page: page.to_owned(), counters: Reason::ALL.map(counter), logged: Mutex::default() }
    }

    pub(crate) fn add(&self, reason: Reason, metric: &str, labels: &str) {
        if let Some(counter) = self.counters.get(reason as usize) {
            counter.inc();
        }
        if self.is_news(reason, metric) {
            let exporter = self.page.as_str();
            let reason = reason.as_str();
            warn!(exporter, metric, labels, reason, "series left out of the page; further ones of this metric are only counted");
        }
    }

    fn is_news(&self, reason: Reason, metric: &str) -> bool {
        let bit = 1 << reason as u8;
        let mut logged = self.logged.lock();
        if let Some(reasons) = logged.get_mut(metric) {
            let news = *reasons & bit == 0;
            *reasons |= bit;
            return news;
        }
        let room = logged.len() < LOGGED_MAX;
        if room {
            logged.insert(metric.to_owned(), bit);
        }
        room
    }

    /// How many were left out so far, by reason.
    #[cfg(test)]
    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.counters[reason as usize].get()
    }
}
