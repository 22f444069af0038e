//! One shard's accounts: what each source appended, where each consumer stands, what became of the items.
//!
//! Every change happens under the shard's lock, together with the change of the records, so that at any moment a reader of the books
//! finds accepted = delivered + dropped + held.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{SourceId, Sources, cursor::Waker};

/// Why items left without being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The consumer fell behind further than its bound allows.
    Lag,
    /// `max_elapsed_time` ran out.
    Expired,
    /// The backend refused the data itself; it is in the dead letters.
    Rejected,
    /// The backend takes no such signal.
    Unsupported,
    /// A processor's rule.
    Processor,
    /// Retries are switched off in the file.
    RetryDisabled,
    /// Given to `nop`.
    Nop,
    /// The process ended before delivery.
    Shutdown,
}

impl DropReason {
    pub const ALL: [Self; 8] = [
        Self::Lag,
        Self::Expired,
        Self::Rejected,
        Self::Unsupported,
        Self::Processor,
        Self::RetryDisabled,
        Self::Nop,
        Self::Shutdown,
    ];

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Unsupported => "unsupported",
            Self::Processor => "processor",
            Self::RetryDisabled => "retry_disabled",
            Self::Nop => "nop",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A consumer's account over any number of shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    pub accepted: u64,
    pub delivered: u64,
    /// Indexed by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Counted from the records beyond the cursor, never by subtraction.
    pub held: u64,
    pub held_bytes: u64,
    pub held_records: u64,
    /// Nanoseconds since the epoch at which the oldest held record came in; 0 when nothing is held.
    pub oldest_unix_nanos: u64,
}

impl Books {
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// The conservation law.
    pub fn balance(&self) -> bool {
        self.accepted == self.delivered + self.dropped_total() + self.held
    }

    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
        self.held += other.held;
        self.held_bytes += other.held_bytes;
        self.held_records += other.held_records;
        if other.oldest_unix_nanos != 0 && (self.oldest_unix_nanos == 0 || other.oldest_unix_nanos < self.oldest_unix_nanos) {
            self.oldest_unix_nanos = other.oldest_unix_nanos;
        }
    }
}

/// How far a consumer may fall behind: unread records, items and payload bytes. 0: no bound of that kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LagBound {
    pub records: u64,
    pub items: u64,
    pub bytes: u64,
}

impl LagBound {
    pub const NONE: Self = Self { records: 0, items: 0, bytes: 0 };

    fn exceeded_by(self, lag: Lag) -> bool {
        (self.records != 0 && lag.records > self.records)
            || (self.items != 0 && lag.items > self.items)
            || (self.bytes != 0 && lag.bytes > self.bytes)
    }
}

/// What happens to a consumer at its lag bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOverflow {
    /// Its oldest unread records are dropped, counted `dropped{lag}`.
    SkipOldest,
    /// The door is held: requests wait, then are refused.
    HoldDoor,
}

/// What a consumer has not read yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) records: u64,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Lag {
    pub(crate) fn add(&mut self, slot: &SlotSize) {
        self.records += 1;
        self.items += slot.items;
        self.bytes += slot.bytes;
    }

    pub(crate) fn sub(&mut self, slot: &SlotSize) {
        self.records = self.records.saturating_sub(1);
        self.items = self.items.saturating_sub(slot.items);
        self.bytes = self.bytes.saturating_sub(slot.bytes);
    }
}

/// What the books keep of a record while some cursor is not past it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotSize {
    pub(crate) source: SourceId,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    pub(crate) received_unix_nanos: u64,
}

/// One consumer's place in one shard.
pub(crate) struct CursorState {
    pub(crate) name: Arc<str>,
    pub(crate) sources: Sources,
    pub(crate) bound: LagBound,
    pub(crate) on_overflow: OnOverflow,
    pub(crate) waker: Arc<Waker>,
    /// Everything below is settled.
    pub(crate) committed: u64,
    /// Everything below was handed out or skipped.
    pub(crate) read: u64,
    pub(crate) unread: Lag,
    /// Ranges of offsets, above `committed`, that were dropped unread.
    pub(crate) skipped: VecDeque<Range<u64>>,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped: [u64; DropReason::ALL.len()],
}

impl CursorState {
    pub(crate) fn takes(&self, source: SourceId) -> bool {
        self.sources.contains(source)
    }

    pub(crate) fn over_bound(&self) -> bool {
        self.bound.exceeded_by(self.unread)
    }

    pub(crate) fn was_skipped(&self, offset: u64) -> bool {
        self.skipped.iter().any(|range| range.contains(&offset))
    }

    pub(crate) fn drop_items(&mut self, reason: DropReason, items: u64) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += items;
        }
    }
}
