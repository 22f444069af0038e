//! Where a topic's records lie: the trait behind which memory and disk look alike.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{
    AppendError, Books, DropReason, Lag, LagBound, LastDerived, NewRecord, OnOverflow, Record, Settled, Sources, Subscriber,
    cursor::Waker,
};

/// A record is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub offset: u64,
    /// Some moving consumer is behind by more than the pace.
    pub crowded: bool,
}

/// Whether an append is done, or will be when its group is written.
pub enum Appending {
    Done(Appended),
    /// On disk. The record is written whether or not this is waited for.
    Syncing(BoxFuture<'static, Result<Appended, AppendError>>),
}

/// A change of who reads a shard.
pub enum Change {
    /// A consumer more, standing where it stood before, or at the end.
    Join(Subscriber, Arc<Waker>),
    /// From here on it takes these sources, within this bound. What it was to read before, it still reads.
    Alter { consumer: usize, sources: Sources, bound: LagBound, on_overflow: OnOverflow },
    /// From here on it takes nothing; it is about to leave.
    Close { consumer: usize },
}

/// One shard of a topic: an ordered log of records and the accounts of its consumers.
///
/// Appends of one shard are ordered; a record is readable once its append is done. Implementations keep [`Books`] exact at any moment.
pub trait Shard: Send + Sync {
    /// Appends, or says that there is no room (`Err`), in which case the record comes back.
    #[expect(clippy::result_large_err, reason = "the record comes back; a box would be made only to be opened")]
    fn append(&self, record: NewRecord) -> Result<Appending, (AppendError, NewRecord)>;
    /// Changes who reads what, all of it between two records: each record is accepted for those of before, or for those of after. Returns the
    /// numbers of those that joined, in order; they are the same in all shards of a topic.
    fn switch(&self, changes: &[Change]) -> Vec<usize>;
    /// A consumer is gone: on disk its place stays, where it stands for whoever joins under its name.
    fn leave(&self, consumer: usize);
    /// Hands the consumer its next records: at most `records_max`, and no more once `bytes_max` is reached (always one).
    fn read(&self, consumer: usize, records_max: usize, bytes_max: usize, out: &mut Vec<Record>);
    /// Moves the consumer's cursor: everything below `watermark` is settled, with these results; `released` was handed out for it.
    /// `u64::MAX`: nothing is under way.
    fn settle(&self, consumer: usize, watermark: u64, settled: &Settled, released: Lag);
    /// Whether the consumer has something to read.
    fn has_unread(&self, consumer: usize) -> bool;
    /// Unread items, bytes, and when the oldest unread record came in (0: none).
    fn unread(&self, consumer: usize) -> Unread;
    /// A consumer in backoff does not slow the door down.
    fn set_stalled(&self, consumer: usize, stalled: bool);
    fn books(&self, consumer: usize) -> Books;
    /// Whether some moving consumer is behind by more than the pace, or one that never skips is at its bound.
    fn crowded(&self) -> bool;
    /// Whether what is held here outlives the process.
    fn is_persistent(&self) -> bool;
    /// Why nothing can be appended now.
    fn fault(&self) -> Option<String> {
        None
    }
    /// Where a consumer stands, to be covered by a snapshot of its state. `None`: places are not kept.
    fn mark(&self, _consumer: usize) -> Option<Mark> {
        None
    }
    /// A snapshot that covers the mark is on disk: from there the consumer starts again.
    fn cover(&self, _mark: &Mark) {}
    /// What was appended since the start.
    fn accepted(&self) -> Lag;
    /// The offset that the next record gets.
    fn end(&self) -> u64;
    /// For a derived topic: the newest record of each reader that something here was made from. Reads the disk.
    fn derived(&self) -> Vec<LastDerived> {
        Vec::new()
    }
    /// Writes everything down and takes nothing more.
    fn close(&self) {}
}

/// A consumer's place in one shard, and what became of everything below it.
#[derive(Debug, Clone)]
pub struct Mark {
    pub(crate) name: Arc<str>,
    /// Everything below is settled.
    pub committed: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped: [u64; DropReason::ALL.len()],
}

/// What waits for a consumer in one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    pub records: u64,
    pub items: u64,
    pub bytes: u64,
    pub oldest_unix_nanos: u64,
}
