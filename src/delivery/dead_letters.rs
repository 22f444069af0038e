//! Data that a backend refused for good: kept for a look, within bounds, with the reason.
//!
//! Full: the oldest letters make room; they were counted `dropped{rejected}` when they came. A letter larger than all the room is not kept.
//!
//! A letter has a copy of its payload: the bytes as they came in belong to the door's budget, which letters must not hold for days.

use std::collections::VecDeque;

use bytes::Bytes;
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

    pub fn put(&self, mut letter: Letter) {
        warn!(
            exporter = %letter.exporter,
            signal = %letter.batch.signal,
            items = letter.batch.items,
            reason = letter.message,
            "refused for good; it is in the dead letters and will not be sent again"
        );
        if letter.batch.payload.len() > BYTES_MAX {
            self.evicted.inc();
            return;
        }
        letter.batch.payload = Bytes::copy_from_slice(&letter.batch.payload);
        letter.batch.index = None;
        let mut guard = self.letters.lock();
        let (letters, bytes) = &mut *guard;
        *bytes += letter.batch.payload.len();
        letters.push_back(letter);
        while letters.len() > LETTERS_MAX || *bytes > BYTES_MAX {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{door::Budget, signal::Signal};

    fn letter(payload: Bytes) -> Letter {
        let batch = Batch { signal: Signal::Traces, payload, items: 1, context: Arc::default(), index: None };
        Letter { exporter: ComponentId::parse("test").unwrap(), batch, message: "no".to_owned() }
    }

    #[test]
    fn letters_do_not_hold_the_doors_room() {
        let (budget, letters) = (Budget::new(100), DeadLetters::new(&Telemetry::default()));
        letters.put(letter(budget.try_take(60).unwrap().bind(Bytes::from_static(b"abc"))));
        assert_eq!(budget.used(), 0);
        assert_eq!(letters.letters()[0].batch.payload, "abc");
    }

    #[test]
    fn a_letter_larger_than_all_the_room_does_not_push_the_others_out() {
        let letters = DeadLetters::new(&Telemetry::default());
        letters.put(letter(Bytes::from_static(b"abc")));
        letters.put(letter(vec![0; BYTES_MAX + 1].into()));
        assert_eq!(letters.letters().len(), 1);
    }
}
