//! What every exporter gets for free: a window on its records, batching, attempts, backoff, splitting, dead letters, books.

mod settings;

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
}
