//! How much of the disk all segments together may take.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Quota {
    bytes_max: u64,
    used: AtomicU64,
}

impl Quota {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, used: AtomicU64::new(0) }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Takes room, or says why there is none.
    pub(super) fn take(&self, bytes: u64) -> Result<(), String> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.bytes_max)
        });
        taken.map(drop).map_err(|used| {
            format!("the journal holds {used} of at most {} bytes (`journal::max_size`, --journal-max-size)", self.bytes_max)
        })
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
