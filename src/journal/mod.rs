//! The spine: topics of records, positions in them, and cursors of those who read. A small embedded Kafka.
//!
//! In:   batches from the door, and derived batches from connectors.
//! Out:  records, to any number of consumers, each at its own pace.
//! Full: an append waits up to 100 ms for room, then is refused with a hint when to come again. A consumer that may skip is moved
//!       over its oldest records instead, counted `dropped{lag}`.
//! Lost: in memory mode everything held here, when the process ends. On disk nothing that was acknowledged: see `disk`.
//!
//! Consumers know a [`Topic`] and a [`Cursor`]; where the records lie is a [`Shard`]'s business.

#![warn(clippy::indexing_slicing)]

mod cursor;
mod disk;
mod identity;
mod ledger;
mod letters;
mod memory;
mod ring;
mod shard;
#[cfg(test)]
mod tests;
mod topic;

pub use cursor::{Accounts, Cursor, Marks, Oldest, Place, Settled, Waker};
pub use disk::{
    Directory, DirectoryError, DiskShard, FoundLetters, LetterStore, LettersError, OffsetReset, Orphan, Persistence, Reading,
    Removing, RequestFile, StateError, StateFile, choose_directory, inspect,
};
pub use identity::JournalId;
pub use ledger::{Books, DropReason, Lag, LagBound, OnOverflow};
pub use letters::{Letter, LetterFilter, LetterRef, MESSAGE_BYTES_MAX, Note, Origin, Refusal, ReplayRequest};
pub use memory::MemoryShard;
pub use shard::{Appended, Appending, Change, Mark, Shard, Unread};
pub use topic::{
    AppendError, Derivation, Figures, LastDerived, NewRecord, Position, ROOM_WAIT, Record, SourceId, Sources, Subscriber, Topic,
    TopicId, TopicNames,
};
