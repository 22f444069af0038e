//! State that follows cursors: what a component remembers of the records it was given, saved together with the positions it covers.
//!
//! After a start, `delivery` calls [`Stateful::replaying`] with true, [`Stateful::restore`] with the last snapshot, and gives the records
//! behind it once more; those that the snapshot covers change nothing. When everything acknowledged before has been given, it calls
//! `replaying(false)`. Until then nothing is shown, flushed or expired.

use std::sync::Arc;

use super::Derived;
use crate::{
    journal::{Position, TopicId},
    signal::UnixNanos,
};

/// Up to where one reader's records of one shard were applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedTo {
    /// The pipeline that read them (`traces/x`): a component that ends several gets each record once for each.
    pub reader: Arc<str>,
    pub topic: TopicId,
    pub shard: u16,
    /// This one and all before it.
    pub offset: u64,
}

/// Up to where a state holds what its readers read. Readers hand over the records of a shard in the order of their offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied(Vec<AppliedTo>);

/// A state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the format of `bytes`.
    pub version: u16,
    /// Of the settings that give the state its shape.
    pub fingerprint: u64,
    pub applied: Applied,
    /// Without a checksum: the container has one.
    pub bytes: Vec<u8>,
}

/// Why a snapshot is of no use. The state is as it was before; numbers begin anew, with a new start time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot has format {found}, this weir reads {known}")]
    Version { found: u16, known: u16 },
    #[error("the snapshot was made with other settings: {}", .names.join(", "))]
    Settings { names: Vec<String> },
    #[error("the snapshot cannot be read: {0}")]
    Damaged(String),
}

/// The remembering half of a connector or exporter. Shared with the working half; no method needs that one's lock.
pub trait Stateful: Send + Sync {
    /// The state between two records, and which. Takes as long as the state is large, on a thread that may block; ingest waits for no more than
    /// a page of it at a time.
    fn snapshot(&self) -> Snapshot;
    /// Takes a snapshot's place. On an error nothing has changed.
    fn restore(&self, snapshot: &Snapshot) -> Result<(), SnapshotError>;
    /// While true: old records come in again, pages say that they are not ready, nothing is flushed or expired. When it ends, nothing counts
    /// as new any more (it may have been shown before), and idle times begin anew.
    fn replaying(&self, replaying: bool);
    /// What the state covers now.
    fn applied(&self) -> Applied;
    /// From now on it covers this: the records do not change it any more, whether or not they are in it, and others do.
    fn resume(&self, applied: &Applied);
    /// As [`super::Connector::flush`] (`last`: as its `finish`), without keeping ingest waiting for more than a page at a time. For a thread that
    /// may block. What it makes has no context: it tells of many records.
    fn flush(&self, _now: UnixNanos, _last: bool, _out: &mut Vec<Derived>) {}
    /// Whether what a flush told is not part of the next one (deltas): it must be neither lost nor told twice.
    fn tells_once(&self) -> bool {
        false
    }
}

impl Applied {
    pub fn new(entries: impl IntoIterator<Item = AppliedTo>) -> Self {
        let mut made = Self::default();
        entries.into_iter().for_each(|entry| made.raise(&entry.reader, entry.topic, entry.shard, entry.offset));
        made
    }

    pub fn iter(&self) -> impl Iterator<Item = &AppliedTo> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the record at `position` is in already.
    pub fn covers(&self, reader: &Arc<str>, position: Position) -> bool {
        self.find(reader, position.topic, position.shard).is_some_and(|entry| entry.offset >= position.offset)
    }

    /// The record at `position` is in.
    pub fn add(&mut self, reader: &Arc<str>, position: Position) {
        self.raise(reader, position.topic, position.shard, position.offset);
    }

    /// Without what `reader` is said to have had of shards that end before that (`None`: it does not read that one).
    #[must_use]
    pub fn up_to(&self, reader: &Arc<str>, end: impl Fn(TopicId, u16) -> Option<u64>) -> Self {
        let is_there = |entry: &&AppliedTo| {
            !is_same(&entry.reader, reader) || end(entry.topic, entry.shard).is_none_or(|end| entry.offset < end)
        };
        Self(self.0.iter().filter(is_there).cloned().collect())
    }

    fn find(&self, reader: &Arc<str>, topic: TopicId, shard: u16) -> Option<&AppliedTo> {
        // A handful at most.
        self.0.iter().find(|entry| entry.topic == topic && entry.shard == shard && is_same(&entry.reader, reader))
    }

    fn raise(&mut self, reader: &Arc<str>, topic: TopicId, shard: u16, offset: u64) {
        let found = |entry: &&mut AppliedTo| entry.topic == topic && entry.shard == shard && is_same(&entry.reader, reader);
        match self.0.iter_mut().find(found) {
            Some(entry) => entry.offset = entry.offset.max(offset),
            None => self.0.push(AppliedTo { reader: Arc::clone(reader), topic, shard, offset }),
        }
    }
}

fn is_same(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
