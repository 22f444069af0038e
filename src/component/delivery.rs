//! The Collector's `timeout`, `retry_on_failure` and `sending_queue` blocks.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{Diagnostics, GoDuration, Node, Section};

/// What a person wrote about delivery, for one exporter. `None` where nothing was written: then weir's own defaults hold.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Longest time one attempt may take; `None` or zero for no limit.
    pub timeout: Option<Duration>,
    pub retry: Retry,
    pub queue: Option<Queue>,
    /// Data items or bytes a request should hold at most, where the exporter's backend has a limit of its own. 0: none.
    pub request_bytes_max: usize,
    /// Requests must arrive in the order of their records: one at a time, and one that may pass later keeps its place for as long as that takes.
    pub in_order: bool,
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

impl Retry {
    /// Says what the Collector refuses too; `node` is the exporter's map.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.nearest("retry_on_failure").nearest(key).origin;
        if !self.enabled {
            return;
        }
        if !(0.0..=1.0).contains(&self.randomization_factor) {
            let help = Some("0.5 spreads the retries of many senders".to_owned());
            found.error(at("randomization_factor"), "`randomization_factor` is a share, from 0 to 1", help);
        }
        if self.multiplier < 0.0 {
            found.error(at("multiplier"), "`multiplier` must not be negative", Some("1.5 is usual".to_owned()));
        }
        if let Some(end) = self.max_elapsed_time.filter(|end| !end.0.is_zero()) {
            for (key, wait) in [("initial_interval", self.initial_interval), ("max_interval", self.max_interval)] {
                if end < wait {
                    let help = Some(format!("`{key}` is {:?}: write it shorter, or `max_elapsed_time` longer", wait.0));
                    found.error(at("max_elapsed_time"), format!("`max_elapsed_time` is less than `{key}`"), help);
                }
            }
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
    /// Requests in flight at once; where it is 1, one that failed before and is tried again may be another.
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

impl Queue {
    /// Says what the Collector refuses too, and what has no effect here; `node` is the exporter's map.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |path: &str| node.nearest("sending_queue").nearest(path).origin;
        if !self.enabled {
            return;
        }
        if self.queue_size == Some(0) {
            let help = "leave it out for weir's own bound, or switch the queue off: `sending_queue: {enabled: false}`";
            found.error(at("queue_size"), "a queue of size 0 takes nothing", Some(help.to_owned()));
        }
        if self.num_consumers == Some(0) {
            let help = "leave it out, or write how many requests may be under way at once".to_owned();
            found.error(at("num_consumers"), "with 0 consumers nothing is ever sent", Some(help));
        }
        match (&self.storage, self.wait_for_result) {
            (Some(_), true) => {
                let help = Some("leave one of them out".to_owned());
                found.error(at("wait_for_result"), "`wait_for_result` does not go with `storage`", help);
            }
            (Some(_), false) => {
                let instead = "what waits to be sent lies in the journal, for every queue, and outlives the process unless `journal::mode` is `memory`; the directory of the `file_storage` is the journal's";
                found.ineffective(
                    at("storage"),
                    "`storage` makes no difference: it is weir's journal that lies on disk",
                    instead,
                );
            }
            (None, true) => {
                let instead = "senders are answered when the data is accepted; `block_on_overflow: true` holds them while this exporter is behind";
                found.ineffective(at("wait_for_result"), "`wait_for_result` has no effect", instead);
            }
            (None, false) => {}
        }
        let Some(batch) = self.batch.get() else { return };
        if batch.flush_timeout.0.is_zero() {
            let help = Some("leave it out for 200ms".to_owned());
            found.error(at("batch::flush_timeout"), "`flush_timeout` must be more than nothing", help);
        }
        if batch.sizer == Some(Sizer::Requests) {
            found.error(at("batch::sizer"), "a batch is measured in items or bytes", Some("`items` or `bytes`".to_owned()));
        }
        if batch.max_size > 0 && batch.max_size < batch.min_size {
            let help = Some(format!("`min_size` is {}", batch.min_size));
            found.error(at("batch::max_size"), "`max_size` is less than `min_size`", help);
        }
        let batch_sizer = batch.sizer.or(self.sizer).unwrap_or(Sizer::Items);
        if let Some(size) = self.queue_size.filter(|size| *size > 0)
            && self.sizer == Some(batch_sizer)
            && batch.min_size > size
        {
            let help = Some(format!("`min_size` is {}", batch.min_size));
            found.error(at("queue_size"), "the queue is full before a batch is (`min_size`)", help);
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
