//! The Collector's `timeout`, `retry_on_failure` and `sending_queue` blocks.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{GoDuration, Section};

/// What a person wrote about delivery, for one exporter. `None` where nothing was written: then weir's own defaults hold.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Longest time one attempt may take; `None` or zero for no limit.
    pub timeout: Option<Duration>,
    pub retry: Retry,
    pub queue: Option<Queue>,
    /// Data items or bytes a request should hold at most, where the exporter's backend has a limit of its own. 0: none.
    pub request_bytes_max: usize,
}

/// `retry_on_failure`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    pub enabled: bool,
    /// Wait before the first retry; 1 s where nothing is written (a Collector: 5 s), and never less than 100 ms.
    pub initial_interval: GoDuration,
    /// Share of the wait that is random, 0 to 1.
    pub randomization_factor: f64,
    pub multiplier: f64,
    /// Longest wait; never less than 100 ms.
    pub max_interval: GoDuration,
    /// Give up after this long. Written: the records expire, counted `dropped{expired}`. Not written: weir retries until the data expires by policy.
    pub max_elapsed_time: Option<GoDuration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: GoDuration(Duration::from_secs(1)),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: GoDuration(Duration::from_secs(30)),
            max_elapsed_time: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizer {
    Requests,
    Items,
    Bytes,
}

/// `sending_queue`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    pub enabled: bool,
    /// Requests in flight at once.
    pub num_consumers: Option<u32>,
    /// How far the consumer may fall behind, in units of `sizer`. Written: the oldest beyond it are dropped, counted `dropped{lag}`.
    pub queue_size: Option<u64>,
    pub sizer: Option<Sizer>,
    pub block_on_overflow: bool,
    pub wait_for_result: bool,
    /// The `file_storage` extension a Collector would keep the queue in.
    pub storage: Option<String>,
    pub batch: Section<QueueBatch>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            enabled: true,
            num_consumers: None,
            queue_size: None,
            sizer: None,
            block_on_overflow: false,
            wait_for_result: false,
            storage: None,
            batch: Section::absent(),
        }
    }
}

/// `sending_queue::batch`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueBatch {
    pub flush_timeout: GoDuration,
    pub min_size: u64,
    pub max_size: u64,
    pub sizer: Option<Sizer>,
    pub partition: Partition,
}

impl Default for QueueBatch {
    fn default() -> Self {
        Self {
            flush_timeout: GoDuration(Duration::from_millis(200)),
            min_size: 8192,
            max_size: 0,
            sizer: None,
            partition: Partition::default(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Partition {
    pub metadata_keys: Vec<String>,
}

/// What a `batch` processor in front of an exporter asks of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchWish {
    /// Items that are enough to send at once; 0: whatever is there.
    pub send_batch_size: u64,
    /// No request larger than this many items; 0: no bound.
    pub send_batch_max_size: u64,
    /// Longest wait for `send_batch_size` items.
    pub timeout: Duration,
    /// Records of different contexts are not joined.
    pub splits_by_context: bool,
}
