//! One shard's accounts: what each source appended, where each consumer stands, what became of the items.
//!
//! Every change happens under the shard's lock, together with the change of the records, so that at any moment a reader of the books
//! finds accepted = delivered + dropped + held.

use std::{collections::VecDeque, sync::Arc};

use super::{Settled, SourceId, Sources, Subscriber, cursor::Waker};

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
    /// The disk gave back something else than was written to it.
    Damaged,
    /// Somebody let go what was held for a consumer that the configuration does not have (`weir journal rm`).
    Removed,
}

impl DropReason {
    pub const ALL: [Self; 10] = [
        Self::Lag,
        Self::Expired,
        Self::Rejected,
        Self::Unsupported,
        Self::Processor,
        Self::RetryDisabled,
        Self::Nop,
        Self::Shutdown,
        Self::Damaged,
        Self::Removed,
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
            Self::Damaged => "damaged",
            Self::Removed => "removed",
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
    /// What waits to be read and what is under way; never accepted minus the rest.
    pub held: u64,
    pub held_bytes: u64,
    pub held_records: u64,
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

/// An amount of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    pub records: u64,
    pub items: u64,
    pub bytes: u64,
}

impl Lag {
    pub(crate) fn add(&mut self, slot: &SlotSize) {
        self.records += 1;
        self.items += slot.items;
        self.bytes += slot.bytes;
    }

    pub(crate) fn sub(&mut self, slot: &SlotSize) {
        *self = self.minus(Self { records: 1, items: slot.items, bytes: slot.bytes });
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_add(other.records),
            items: self.items.saturating_add(other.items),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_sub(other.records),
            items: self.items.saturating_sub(other.items),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What the books need to know of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotSize {
    pub(crate) source: SourceId,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

/// One consumer's place in one shard.
pub(crate) struct CursorState {
    pub(crate) name: Arc<str>,
    sources: Sources,
    /// What it took before it was told otherwise: the records below each offset that an older one does not cover. An entry goes when all
    /// below it is read.
    before: VecDeque<(u64, Sources)>,
    pub(crate) bound: LagBound,
    pub(crate) on_overflow: OnOverflow,
    pub(crate) waker: Arc<Waker>,
    /// In backoff: it slows nobody down.
    pub(crate) stalled: bool,
    /// Everything below is settled.
    pub(crate) committed: u64,
    /// Everything below was handed out or skipped. Stands at a record that the consumer takes, or at the end.
    pub(crate) read: u64,
    pub(crate) unread: Lag,
    /// Handed out and not below the watermark yet.
    pub(crate) out: Lag,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped: [u64; DropReason::ALL.len()],
}

impl CursorState {
    /// A consumer that stands at `end` and has no past.
    pub(crate) fn new(subscriber: &Subscriber, waker: Arc<Waker>, end: u64) -> Self {
        Self {
            name: subscriber.name.clone(),
            sources: subscriber.sources.clone(),
            before: VecDeque::new(),
            bound: subscriber.bound,
            on_overflow: subscriber.on_overflow,
            waker,
            stalled: false,
            committed: end,
            read: end,
            unread: Lag::default(),
            out: Lag::default(),
            accepted: 0,
            delivered: 0,
            dropped: [0; DropReason::ALL.len()],
        }
    }

    /// In the place of one that left: takes nothing, holds nothing, for the next one that joins.
    pub(crate) fn vacant() -> Self {
        let nobody = Subscriber {
            name: "".into(),
            sources: Sources::default(),
            bound: LagBound::NONE,
            on_overflow: OnOverflow::SkipOldest,
            is_stateful: false,
        };
        Self::new(&nobody, Arc::default(), u64::MAX)
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.read == u64::MAX
    }

    /// Whether the record at `offset` is for this consumer.
    pub(crate) fn takes(&self, source: SourceId, offset: u64) -> bool {
        let before = self.before.iter().find(|(until, _)| offset < *until);
        before.map_or(&self.sources, |(_, sources)| sources).contains(source)
    }

    /// From `end` on it takes other sources; what lies below stays as it was accepted.
    pub(crate) fn take_from(&mut self, end: u64, sources: Sources) {
        if self.sources != sources {
            let before = std::mem::replace(&mut self.sources, sources);
            if self.read < end {
                self.before.push_back((end, before));
            }
        }
    }

    pub(crate) fn over_bound(&self) -> bool {
        self.bound.exceeded_by(self.unread)
    }

    pub(crate) fn holds_door(&self) -> bool {
        self.on_overflow == OnOverflow::HoldDoor
    }

    pub(crate) fn drop_items(&mut self, reason: DropReason, items: u64) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += items;
        }
    }

    /// Moves to `offset`; where nothing is under way, what lies between is settled with that.
    pub(crate) fn pass(&mut self, offset: u64) {
        self.read = offset;
        while self.before.pop_front_if(|(until, _)| *until <= offset).is_some() {}
        if self.out.records == 0 {
            self.committed = offset;
        }
    }

    pub(crate) fn hand_out(&mut self, size: &SlotSize) {
        self.unread.sub(size);
        self.out.add(size);
    }

    /// A record that is for this consumer is dropped unread, because it is too far behind.
    pub(crate) fn skip(&mut self, size: &SlotSize, offset: u64) {
        if self.takes(size.source, offset) {
            self.unread.sub(size);
            self.drop_items(DropReason::Lag, size.items);
        }
    }

    /// Everything below `watermark` is settled; `u64::MAX`: nothing is under way.
    pub(crate) fn settle(&mut self, watermark: u64, settled: &Settled, released: Lag) {
        self.delivered += settled.delivered;
        for (mine, theirs) in self.dropped.iter_mut().zip(settled.dropped) {
            *mine += theirs;
        }
        // Not by what is said to be settled, but by what was handed out: a record nobody accounts for unbalances the books.
        self.out = if watermark == u64::MAX { Lag::default() } else { self.out.minus(released) };
        self.committed = self.committed.max(watermark.min(self.read));
    }

    pub(crate) fn books(&self) -> Books {
        Books {
            accepted: self.accepted,
            delivered: self.delivered,
            dropped: self.dropped,
            held: self.unread.items + self.out.items,
            held_bytes: self.unread.bytes + self.out.bytes,
            held_records: self.unread.records + self.out.records,
        }
    }
}
