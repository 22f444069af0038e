//! Letters in memory mode: gone with the process, as all is there.
//!
//! A letter has a copy of its payload: the bytes as they came in belong to the door's budget, which letters must not hold for days.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Metrics;
use crate::journal::{Lag, Letter};

/// Bounded by letters and by bytes.
#[derive(Default)]
pub(super) struct MemoryLetters(Mutex<(VecDeque<Letter>, Lag)>);

const LETTERS_MAX: u64 = 1000;
pub(super) const BYTES_MAX: u64 = 16 << 20;

fn size(letter: &Letter) -> Lag {
    Lag { records: 1, items: letter.batch.items, bytes: letter.batch.payload.len() as u64 }
}

impl MemoryLetters {
    pub(super) fn put(&self, new: Vec<Letter>, metrics: &Metrics) {
        let mut guard = self.0.lock();
        let (letters, held) = &mut *guard;
        for mut letter in new {
            let one = size(&letter);
            if one.bytes > BYTES_MAX {
                metrics.too_large.inc();
                continue;
            }
            letter.batch.payload = Bytes::copy_from_slice(&letter.batch.payload);
            *held = held.plus(one);
            letters.push_back(letter);
        }
        while (held.records > LETTERS_MAX || held.bytes > BYTES_MAX)
            && let Some(old) = letters.pop_front()
        {
            *held = held.minus(size(&old));
            metrics.made_room.inc();
        }
        metrics.hold(*held);
    }

    #[cfg(test)]
    pub(super) fn letters(&self) -> Vec<Letter> {
        self.0.lock().0.iter().cloned().collect()
    }
}
