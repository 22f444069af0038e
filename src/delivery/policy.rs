//! What was written about delivery, and weir's own defaults for the rest.

use std::time::Duration;

use super::consumer::RECORDS_MAX;
use crate::{
    component::delivery::{BatchWish, Settings, Sizer},
    journal::{LagBound, OnOverflow},
};

/// How one exporter's consumer behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Longest time one attempt may take.
    pub timeout: Option<Duration>,
    pub retry: RetryPolicy,
    /// Requests under way at once.
    pub flying_max: usize,
    /// Bytes under way at once (one request always may).
    pub flying_bytes_max: usize,
    /// Small records are joined up to this many bytes.
    pub request_bytes: usize,
    /// No request has more items; 0: no bound.
    pub request_items_max: u64,
    /// No request has more bytes, where it can be split; 0: no bound.
    pub request_bytes_max: usize,
    pub fill: Fill,
    /// Records of different contexts are not joined.
    pub splits_by_context: bool,
    /// A request that may pass later is never overtaken.
    pub in_order: bool,
    pub bound: LagBound,
    pub on_overflow: OnOverflow,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    pub enabled: bool,
    pub initial: Duration,
    pub multiplier: f64,
    pub randomization: f64,
    pub max: Duration,
    /// Only where a person wrote it.
    pub elapsed_max: Option<Duration>,
}

/// When a request is sent although it could still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// At once while nothing is under way; else when `request_bytes` wait, or something came back. Waiting costs nothing then.
    WhenIdle,
    /// When so many items (or bytes) wait, or the oldest has waited for this long.
    Until { items: u64, bytes: u64, wait: Duration },
}

/// Requests of about 1 MiB cost the least a byte (one HTTP/2 frame where the peer takes such).
const REQUEST_BYTES: usize = 1 << 20;
const FLYING_MAX: usize = 8;
/// Bounds what lies outside the topic: at a round trip of 20 ms still 200 MB/s.
const FLYING_BYTES_MAX: usize = 4 << 20;
/// No interval is shorter, whatever was written: a destination that fails at once must not be called without a pause.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
/// Records taken from a topic at once where a batch of many items was asked for.
const RECORDS_OF_BATCH_MAX: usize = 65_536;

impl Policy {
    /// For what remembers which records it had: one request after the other, no record in pieces.
    pub fn one_by_one(&mut self) {
        (self.flying_max, self.request_items_max, self.request_bytes_max) = (1, 0, 0);
    }

    /// `lag_bytes`: how far a consumer may fall behind where nothing was written.
    pub fn of(settings: &Settings, wish: Option<BatchWish>, lag_bytes: u64) -> Self {
        let retry = &settings.retry;
        let mut policy = Self {
            timeout: settings.timeout.filter(|timeout| !timeout.is_zero()),
            retry: RetryPolicy {
                enabled: retry.enabled,
                initial: retry.initial_interval.0.max(RETRY_WAIT_MIN),
                multiplier: retry.multiplier.max(1.0),
                randomization: retry.randomization_factor.clamp(0.0, 1.0),
                max: retry.max_interval.0.max(RETRY_WAIT_MIN),
                elapsed_max: retry.max_elapsed_time.map(|elapsed| elapsed.0).filter(|elapsed| !elapsed.is_zero()),
            },
            flying_max: if settings.in_order { 1 } else { FLYING_MAX },
            flying_bytes_max: FLYING_BYTES_MAX,
            request_bytes: REQUEST_BYTES,
            request_items_max: 0,
            request_bytes_max: settings.request_bytes_max,
            fill: Fill::WhenIdle,
            splits_by_context: false,
            in_order: settings.in_order,
            bound: LagBound { bytes: lag_bytes, ..LagBound::NONE },
            on_overflow: OnOverflow::SkipOldest,
        };
        if let Some(wish) = wish {
            policy.request_items_max = wish.send_batch_max_size;
            policy.splits_by_context = wish.splits_by_context;
            if !wish.timeout.is_zero() && wish.send_batch_size > 0 {
                policy.fill = Fill::Until { items: wish.send_batch_size, bytes: u64::MAX, wait: wish.timeout };
                policy.request_bytes = usize::MAX;
            }
        }
        let Some(queue) = &settings.queue else { return policy };
        if !queue.enabled {
            // A Collector answers its clients with the exporter's error then: hold them, lose nothing.
            policy.on_overflow = OnOverflow::HoldDoor;
            return policy;
        }
        if let Some(consumers) = queue.num_consumers.filter(|_| !settings.in_order) {
            policy.flying_max = usize::try_from(consumers).unwrap_or(usize::MAX).max(1);
        }
        // A queue of nothing is none that was asked for: the bound stays what it is where nothing is written.
        if let Some(size) = queue.queue_size.filter(|size| *size > 0) {
            policy.bound = match queue.sizer.unwrap_or(Sizer::Requests) {
                Sizer::Requests => LagBound { records: size, ..policy.bound },
                Sizer::Items => LagBound { items: size, ..LagBound::NONE },
                Sizer::Bytes => LagBound { bytes: size, ..LagBound::NONE },
            };
        }
        if queue.block_on_overflow {
            policy.on_overflow = OnOverflow::HoldDoor;
        }
        if let Some(batch) = queue.batch.get() {
            policy.splits_by_context |= !batch.partition.metadata_keys.is_empty();
            let by_bytes = batch.sizer.or(queue.sizer) == Some(Sizer::Bytes);
            if by_bytes {
                policy.request_bytes_max = usize::try_from(batch.max_size).unwrap_or(usize::MAX);
            } else {
                policy.request_items_max = batch.max_size;
            }
            if batch.min_size > 0 && !batch.flush_timeout.0.is_zero() {
                let (items, bytes) = if by_bytes { (u64::MAX, batch.min_size) } else { (batch.min_size, u64::MAX) };
                policy.fill = Fill::Until { items, bytes, wait: batch.flush_timeout.0 };
                policy.request_bytes = usize::MAX;
            }
        }
        policy
    }

    /// Records to take from a topic at once: as many as the batch that was asked for may have, each with an item at least.
    pub fn records_max(&self) -> usize {
        match self.fill {
            Fill::WhenIdle => RECORDS_MAX,
            Fill::Until { items, .. } => usize::try_from(items).unwrap_or(usize::MAX).clamp(RECORDS_MAX, RECORDS_OF_BATCH_MAX),
        }
    }

    /// The wait before attempt `failures + 1`, with `random` in 0..1.
    pub fn backoff(&self, failures: u32, random: f64) -> Duration {
        let exponent = f64::from(failures.saturating_sub(1).min(64));
        let base = (self.retry.initial.as_secs_f64() * self.retry.multiplier.powf(exponent)).min(self.retry.max.as_secs_f64());
        let spread = self.retry.randomization;
        Duration::try_from_secs_f64(base * (1.0 - spread + 2.0 * spread * random)).unwrap_or(self.retry.max)
    }
}
