//! Exponential histograms: buckets that grow by a constant factor, at the finest scale that fits.
//!
//! Spec: OpenTelemetry metrics data model, "ExponentialHistogram". Durations are never negative, so only the positive range is kept.

use super::snapshot::{Damaged, Reader, Writer};

/// A histogram with at most `max_size` buckets; bucket `i` holds values in `(base^i, base^(i+1)]`, base = 2^(2^-scale).
#[derive(Debug, Clone, PartialEq)]
pub struct ExponentialHistogram {
    max_size: u32,
    scale: i32,
    zero: f64,
    offset: i32,
    counts: Vec<f64>,
    min: f64,
    max: f64,
}

/// The finest scale of the specification's reference implementations.
pub const MAX_SCALE: i32 = 20;
/// Where halving stops: one bucket then spans 2^1024.
const MIN_SCALE: i32 = -10;

impl ExponentialHistogram {
    /// `max_size` is at least 2. `scale` is where it starts; it only ever gets coarser.
    pub fn new(max_size: u32, scale: i32) -> Self {
        Self {
            max_size: max_size.max(2),
            scale: scale.clamp(MIN_SCALE, MAX_SCALE),
            zero: 0.0,
            offset: 0,
            counts: Vec::new(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }

    /// Adds `weight` observations of a finite `value` ≥ 0.
    pub fn observe(&mut self, value: f64, weight: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if value < f64::MIN_POSITIVE {
            self.zero += weight;
            return;
        }
        self.add_to(index_of(value, self.scale), weight);
    }

    /// Adds another histogram, at the coarser scale of the two.
    pub fn add(&mut self, other: &Self) {
        let (scale, offset, counts) = other.at_most(self.scale);
        if scale < self.scale {
            self.coarsen(self.scale - scale);
        }
        let before = self.scale;
        self.zero += other.zero;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            (self.offset, self.counts) = (offset, counts);
            return;
        }
        for (at, count) in counts.iter().enumerate() {
            // An earlier bucket may have made it coarser.
            let finer = before - self.scale;
            self.add_to(offset.saturating_add(at as i32) >> finer, *count);
        }
    }

    fn add_to(&mut self, index: i32, weight: f64) {
        let mut index = index;
        if self.counts.is_empty() {
            self.offset = index;
            self.counts.push(weight);
            return;
        }
        let low = i64::from(self.offset.min(index));
        let high = i64::from(index).max(i64::from(self.offset) + self.counts.len() as i64 - 1);
        let mut shift = 0;
        while (high >> shift) - (low >> shift) >= i64::from(self.max_size) && self.scale - shift > MIN_SCALE {
            shift += 1;
        }
        if shift > 0 {
            self.coarsen(shift);
            index >>= shift;
        }
        if index < self.offset {
            let missing = (self.offset - index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0.0, missing));
            self.offset = index;
        }
        let at = (index - self.offset) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0.0);
        }
        if let Some(count) = self.counts.get_mut(at) {
            *count += weight;
        }
    }

    fn coarsen(&mut self, shift: i32) {
        let offset = self.offset >> shift;
        let mut counts: Vec<f64> = Vec::with_capacity(self.counts.len());
        for (at, count) in self.counts.iter().enumerate() {
            let to = (((self.offset + at as i32) >> shift) - offset) as usize;
            if to >= counts.len() {
                counts.resize(to + 1, 0.0);
            }
            if let Some(sum) = counts.get_mut(to) {
                *sum += count;
            }
        }
        self.offset = offset;
        self.counts = counts;
        self.scale -= shift;
    }

    pub(super) fn save(&self, out: &mut Writer) {
        out.signed(self.scale.into());
        out.signed(self.offset.into());
        for number in [self.zero, self.min, self.max] {
            out.double(number);
        }
        out.count(self.counts.len());
        self.counts.iter().for_each(|count| out.double(*count));
    }

    pub(super) fn read(from: &mut Reader<'_>, max_size: u32) -> Result<Self, Damaged> {
        let max_size = max_size.max(2);
        let (scale, offset) = (from.small_signed()?, from.small_signed()?);
        let (zero, min, max) = (from.double()?, from.double()?, from.double()?);
        let count = from.count(1)?;
        // No double lies in a bucket beyond these, so that no sum of them overflows.
        let fits = (MIN_SCALE..=MAX_SCALE).contains(&scale) && offset.unsigned_abs() <= 1100 << MAX_SCALE;
        if !fits || count > max_size as usize {
            return Err(from.damaged("a histogram that cannot be"));
        }
        let counts = (0..count).map(|_| from.double()).collect::<Result<_, _>>()?;
        Ok(Self { max_size, scale, zero, offset, counts, min, max })
    }

    pub fn scale(&self) -> i32 {
        self.scale
    }

    pub fn zero_count(&self) -> f64 {
        self.zero
    }

    /// The index of the first bucket.
    pub fn offset(&self) -> i32 {
        self.offset
    }

    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// The smallest and largest value, if there was any.
    pub fn range(&self) -> Option<(f64, f64)> {
        (self.min <= self.max).then_some((self.min, self.max))
    }

    /// The counts at no finer a scale than `scale`: (scale, index of the first bucket, counts).
    pub fn at_most(&self, scale: i32) -> (i32, i32, Vec<f64>) {
        if self.scale <= scale {
            return (self.scale, self.offset, self.counts.clone());
        }
        let mut coarse = self.clone();
        coarse.coarsen(self.scale - scale);
        (coarse.scale, coarse.offset, coarse.counts)
    }
}

/// The bucket of a normal `value` > 0: the `i` with `base^i < value ≤ base^(i+1)`.
pub(super) fn index_of(value: f64, scale: i32) -> i32 {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let exact_power = bits & ((1 << 52) - 1) == 0;
    if scale <= 0 {
        return (exponent - i32::from(exact_power)) >> -scale;
    }
    if exact_power {
        // The upper bound of a bucket belongs to it, and a logarithm might round past it.
        return (exponent << scale) - 1;
    }
    let factor = f64::from(1_u32 << scale) * std::f64::consts::LOG2_E;
    // Not below the bucket that begins at the power of two underneath, not above the one that ends at the next.
    let index = (value.ln() * factor).ceil() as i32 - 1;
    index.clamp(exponent << scale, ((exponent + 1) << scale) - 1)
}
