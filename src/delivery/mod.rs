//! What every consumer gets for free: a window on its records, processors, batching, attempts, backoff, splitting, dead letters, books.
//!
//! In:   records, from a journal cursor.
//! Out:  one attempt after another to an exporter or connector, until each item is accounted for.
//! Full: a consumer reads no further while enough is under way; the rest waits in its topic.
//! Lost: nothing without a [`crate::journal::DropReason`].

#![warn(clippy::indexing_slicing)]

mod breaker;
mod chain;
pub mod connector;
mod consumer;
mod dead_letters;
pub mod exporter;
mod policy;
mod settings;
#[cfg(test)]
mod tests;

pub use breaker::Breaker;
pub use chain::{Chain, Chained, Stage};
pub use connector::SharedConnector;
pub use consumer::Consumer;
pub use dead_letters::{DeadLetters, Letter};
pub use exporter::Destination;
pub use policy::{Fill, Policy, RetryPolicy};
pub use settings::{Partition, Queue, QueueBatch, Retry, Settings, Sizer};

/// What a `batch` processor in front of an exporter asks of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchWish {
    /// Items that are enough to send at once; 0: whatever is there.
    pub send_batch_size: u64,
    /// No request larger than this many items; 0: no bound.
    pub send_batch_max_size: u64,
    /// Longest wait for `send_batch_size` items.
    pub timeout: std::time::Duration,
    /// Records of different contexts are not joined.
    pub splits_by_context: bool,
}
