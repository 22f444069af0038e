//! Data that a backend refused for good: kept for a look, within bounds, with the reason.
//!
//! Full: the oldest letters make room; they were counted `dropped{rejected}` when they came.

use std::collections::VecDeque;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tracing::warn;

use crate::{
    internal_telemetry::{DEAD_LETTERS, DEAD_LETTERS_EVICTED, Telemetry},
    signal::{Batch, ComponentId},
};

/// One refused batch.
#[derive(Debug, Clone)]
pub struct Letter {
    pub exporter: ComponentId,
    pub batch: Batch,
    pub message: String,
}

/// Bounded by letters and by bytes.
pub struct DeadLetters {
    letters: Mutex<(VecDeque<Letter>, usize)>,
    kept: IntGauge,
    evicted: IntCounter,
}

const LETTERS_MAX: usize = 1000;
const BYTES_MAX: usize = 16 << 20;

impl DeadLetters {
    pub fn new(telemetry: &Telemetry) -> Self {
        Self {
            letters: Mutex::default(),
            kept: telemetry.int_gauge(DEAD_LETTERS, "Batches refused by a backend and kept for a look.", &[]),
            evicted: telemetry.counter(DEAD_LETTERS_EVICTED, "Dead letters that made room for newer ones.", &[]),
        }
    }

    pub fn put(&self, letter: Letter) {
        warn!(
            exporter = %letter.exporter,
            signal = %letter.batch.signal,
            items = letter.batch.items,
            reason = letter.message,
            "the backend refused data for good; it is in the dead letters and will not be sent again"
        );
        let mut guard = self.letters.lock();
        let (letters, bytes) = &mut *guard;
        *bytes += letter.batch.payload.len();
        letters.push_back(letter);
        while letters.len() > LETTERS_MAX || (*bytes > BYTES_MAX && !letters.is_empty()) {
            let Some(old) = letters.pop_front() else { break };
            *bytes = bytes.saturating_sub(old.batch.payload.len());
            self.evicted.inc();
        }
        self.kept.set(i64::try_from(letters.len()).unwrap_or(i64::MAX));
    }

    /// A copy of what is kept, oldest first.
    pub fn letters(&self) -> Vec<Letter> {
        self.letters.lock().0.iter().cloned().collect()
    }
}
