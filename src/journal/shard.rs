//! Where a topic's records lie: the trait behind which memory and disk look alike.

use futures_util::future::BoxFuture;

use super::{AppendError, Books, NewRecord, Record, Settled, Subscriber, cursor::Waker};

/// Whether an append is done, or will be when its group is synced.
pub enum Appending {
    /// The record's offset; `crowded` says that some moving consumer is behind by more than the pace.
    Done { offset: u64, crowded: bool },
    /// In durable mode.
    Syncing(BoxFuture<'static, Result<u64, AppendError>>),
}

/// One shard of a topic: an ordered log of records and the accounts of its consumers.
///
/// Appends of one shard are ordered; a record is readable once its append is done. Implementations keep [`Books`] exact at any moment.
pub trait Shard: Send + Sync {
    /// Appends, or says that there is no room (`Err`), in which case the record comes back.
    fn append(&self, record: NewRecord) -> Result<Appending, (AppendError, NewRecord)>;
    /// Adds a consumer, standing at the end. Its number is the same in all shards of a topic.
    fn subscribe(&self, subscriber: &Subscriber, waker: std::sync::Arc<Waker>);
    /// Hands the consumer its next records: at most `records_max`, and no more once `bytes_max` is reached (always one).
    fn read(&self, consumer: usize, records_max: usize, bytes_max: usize, out: &mut Vec<Record>);
    /// Moves the consumer's cursor: everything below `watermark` is settled, with these results.
    fn settle(&self, consumer: usize, watermark: u64, settled: &Settled);
    /// Whether the consumer has something to read.
    fn has_unread(&self, consumer: usize) -> bool;
    /// Unread items, bytes, and when the oldest unread record came in (0: none).
    fn unread(&self, consumer: usize) -> Unread;
    /// A consumer in backoff does not slow the door down.
    fn set_stalled(&self, consumer: usize, stalled: bool);
    fn books(&self, consumer: usize) -> Books;
    /// Whether some moving consumer is behind by more than the pace, or one that never skips is at its bound.
    fn crowded(&self) -> bool;
}

/// What waits for a consumer in one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    pub records: u64,
    pub items: u64,
    pub bytes: u64,
    pub oldest_unix_nanos: u64,
}
