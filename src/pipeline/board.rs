//! What of a process can be looked at while it runs. It outlives a graph: consumers and topics are on it for as long as they live.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::OpenJournal;
use crate::{
    delivery::Live,
    internal_telemetry::{self, Samples, Telemetry},
    journal::Topic,
    signal::UnixNanos,
    tap::Taps,
};

/// Cloning shares it.
#[derive(Clone, Default)]
pub struct Board(Arc<Inner>);

#[derive(Default)]
struct Inner {
    consumers: Mutex<Vec<Weak<Live>>>,
    topics: Mutex<Vec<Weak<Topic>>>,
    journal: Mutex<Weak<OpenJournal>>,
    is_shown: AtomicBool,
}

fn living<T>(all: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    all.lock().iter().filter_map(Weak::upgrade).collect()
}

fn put<T>(all: &Mutex<Vec<Weak<T>>>, one: &Arc<T>) {
    let mut all = all.lock();
    all.retain(|known| known.strong_count() > 0);
    all.push(Arc::downgrade(one));
}

impl Board {
    pub fn consumer(&self, live: &Arc<Live>) {
        put(&self.0.consumers, live);
    }

    pub fn topic(&self, topic: &Arc<Topic>) {
        put(&self.0.topics, topic);
    }

    pub fn open_journal(&self, journal: &Arc<OpenJournal>) {
        *self.0.journal.lock() = Arc::downgrade(journal);
    }

    /// In the order of the configuration.
    pub fn consumers(&self) -> Vec<Arc<Live>> {
        living(&self.0.consumers)
    }

    pub fn topics(&self) -> Vec<Arc<Topic>> {
        living(&self.0.topics)
    }

    /// `None` in memory mode.
    pub fn journal(&self) -> Option<Arc<OpenJournal>> {
        self.0.journal.lock().upgrade()
    }

    /// Notes what consumers have seen and done by now, for their rates. To be called each second.
    pub fn count(&self) {
        for live in self.consumers() {
            live.count();
        }
    }

    /// How far behind consumers are, and what taps do, on our own page.
    pub(super) fn show(&self, telemetry: &Telemetry, taps: &Taps, now: impl Fn() -> UnixNanos + Send + Sync + 'static) {
        if self.0.is_shown.swap(true, Ordering::Relaxed) {
            return;
        }
        let (board, taps) = (self.clone(), taps.clone());
        telemetry.on_scrape(move |samples: &mut Samples| {
            let now = now();
            for live in board.consumers() {
                let doing = live.destination();
                samples.lag(&internal_telemetry::Lag {
                    pipeline: &live.pipeline,
                    component: live.id.as_str(),
                    signal: live.signal.as_str(),
                    seconds: live.oldest().map_or(0.0, |oldest| now.0.saturating_sub(oldest.0) as f64 / 1e9),
                    parked_requests: live.flights().parked as u64,
                    failing_seconds: doing.map(|doing| doing.condition.failing.map_or(0.0, |since| since.as_secs_f64())),
                });
            }
            let taps = taps.figures();
            samples.taps(taps.open as u64, taps.waiting_bytes as u64, taps.lost);
        });
    }
}
