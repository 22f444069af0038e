//! Chance that can be repeated: one seed gives one run, ids included.

use std::fmt;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::IdGenerator;
use parking_lot::Mutex;

/// A splitmix64 sequence: small, even, and good enough for a shop that does not exist.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence of `part` under `seed`; different parts share nothing.
    pub(super) fn of(seed: u64, part: u64) -> Self {
        let mut random = Self(seed ^ part.wrapping_mul(0xa076_1d64_78bd_642f));
        Self(random.next())
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    pub(super) const fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 up to, not including, `end`; 0 for an empty range.
    pub(super) const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    pub(super) fn chance(&mut self, percent: f64) -> bool {
        self.share() * 100.0 < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(from.len() as u64)).ok()?;
        from.get(at).copied()
    }

    /// A time around `typical` µs with a long tail: never under half of it, seldom over four times.
    pub(super) fn micros(&mut self, typical: u64) -> u64 {
        let tail = -(1.0 - self.share()).ln();
        (typical as f64 * (0.5 + 0.5 * tail.min(8.0))) as u64
    }
}

/// Trace and span ids in the order of a seed; shared by all services of the shop, so that they do not meet.
#[derive(Clone)]
pub(super) struct Ids(std::sync::Arc<Mutex<Random>>);

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self(std::sync::Arc::new(Mutex::new(Random::of(seed, u64::MAX))))
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let mut random = self.0.lock();
        let (high, low) = (random.next(), random.next());
        // All zeroes would be no id.
        TraceId::from((u128::from(high) << 64 | u128::from(low)).max(1))
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.0.lock().next().max(1))
    }
}
