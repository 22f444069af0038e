//! The spine: topics of records, positions in them, and cursors of those who read.
//!
//! In:   batches from the door and derived batches from connectors.
//! Out:  records, to any number of consumers, each at its own pace.
//! Full: `append` waits up to 100 ms for room, then refuses with a hint when to come again.
//! Lost: in memory mode everything held here, when the process ends.

mod topic;

pub use topic::{Position, Record, SourceId, TopicId};
