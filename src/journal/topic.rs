//! Topics, positions and records.

use std::sync::Arc;

use crate::signal::{Batch, UnixNanos};

/// Numbers the topics of a running configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u16);

/// Numbers the receivers and connectors that append to topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub topic: TopicId,
    pub shard: u16,
    pub offset: u64,
}

/// One batch in a topic.
#[derive(Debug, Clone)]
pub struct Record {
    pub position: Position,
    /// The receiver or connector that appended it.
    pub source: SourceId,
    pub received: UnixNanos,
    pub batch: Batch,
    /// For derived records: the position of the record they were made from (or the last one covered).
    pub derived_from: Option<Position>,
}
