//! How much of the disk all segments together may take.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Quota {
    bytes_max: u64,
    /// With the dead letters, which have a room of their own beside it.
    whole: u64,
    used: AtomicU64,
    /// Of that: consumed files that are kept to be written over, beyond one a shard.
    spare: AtomicU64,
    /// Segments begun since the start.
    begun: AtomicU64,
}

/// Of the room, spare files may take one of so many parts.
const SPARE_SHARE: u64 = 16;

impl Quota {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self::within(bytes_max, bytes_max)
    }

    /// A part of all the room that the journal has.
    pub(super) fn within(bytes_max: u64, whole: u64) -> Self {
        Self { bytes_max, whole, used: AtomicU64::new(0), spare: AtomicU64::new(0), begun: AtomicU64::new(0) }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Whether less than a quarter is free.
    pub(super) fn is_short(&self) -> bool {
        self.used() > self.bytes_max / 4 * 3
    }

    /// Takes room, or says why there is none.
    pub(super) fn take(&self, bytes: u64) -> Result<(), String> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.bytes_max)
        });
        taken.map(drop).map_err(|used| {
            let Self { bytes_max, whole, .. } = self;
            format!(
                "the journal's room for records is used up: {used} of {bytes_max} bytes, which are `journal::max_size` (--journal-max-size: {whole}) without the room for dead letters"
            )
        })
    }

    /// Whether one more file of so many bytes may be kept to be written over; the room that it takes stays taken.
    pub(super) fn spare(&self, bytes: u64) -> bool {
        let spare = self.spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spare| {
            spare.checked_add(bytes).filter(|spare| *spare <= self.bytes_max / SPARE_SHARE)
        });
        spare.is_ok()
    }

    /// It is written over now, or removed.
    pub(super) fn spare_no_more(&self, bytes: u64) {
        self.spare.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Says that a segment was begun.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// How many segments were begun since the start.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Counts what is there already, whatever the bound says.
    pub(super) fn force(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        // Saturating: a file may have shrunk since it was counted.
        let given = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
        debug_assert!(given.is_ok(), "the update always applies");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_is_used_up_is_told_from_the_whole() {
        let quota = Quota::within(90, 100);
        quota.take(80).unwrap();
        let told = quota.take(11).unwrap_err();
        assert!(
            told.contains("room for records") && told.contains("80 of 90 bytes") && told.contains("--journal-max-size: 100"),
            "{told}"
        );
    }
}
