//! Exponential histograms, and what Prometheus' native ones make of them.
//!
//! Bucket `i` of scale `s` is (2^(i·2^-s), 2^((i+1)·2^-s)] in OpenTelemetry; Prometheus calls the same bucket `i + 1`.

use crate::{
    exposition::{Exemplar, NativeHistogram, Span},
    otlp::view::BucketsView,
};

/// Scales that Prometheus has.
const SCALE_MIN: i32 = -4;
const SCALE_MAX: i32 = 8;
/// Buckets of one side kept in an accumulated histogram; wider ones are made coarser.
const BUCKETS_MAX: i64 = 4096;
/// What Prometheus takes a zero bucket without a threshold for.
const ZERO_THRESHOLD: f64 = 1e-128;
pub(crate) const EXEMPLARS_MAX: usize = 16;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) scale: i32,
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) positive: Side,
    pub(crate) negative: Side,
    pub(crate) exemplars: Vec<Exemplar>,
}

/// Counts of neighbouring buckets, the first one being `offset`. Neither the first nor the last is 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Side {
    pub(crate) offset: i64,
    pub(crate) counts: Vec<u64>,
}

impl Side {
    pub(crate) fn new(buckets: &BucketsView<'_>) -> Self {
        let mut counts: Vec<u64> = Vec::new();
        let mut offset = i64::from(buckets.offset);
        for count in buckets.bucket_counts.iter() {
            if counts.is_empty() && count == 0 {
                offset += 1;
            } else {
                counts.push(count);
            }
        }
        while counts.last() == Some(&0) {
            counts.pop();
        }
        Self { offset, counts }
    }

    fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Joins each 2^`by` buckets to one.
    fn coarsen(&mut self, by: u32) {
        // Past 40 halvings nothing but one bucket on either side of 1 is left.
        let by = by.min(40);
        if by == 0 || self.counts.is_empty() {
            return;
        }
        let first = self.offset >> by;
        let mut joined: Vec<u64> = Vec::with_capacity((self.counts.len() >> by) + 2);
        for (at, count) in (self.offset..).zip(&self.counts) {
            let bucket = usize::try_from((at >> by) - first).unwrap_or(0);
            if joined.len() <= bucket {
                joined.resize(bucket + 1, 0);
            }
            if let Some(total) = joined.get_mut(bucket) {
                *total = total.saturating_add(*count);
            }
        }
        *self = Self { offset: first, counts: joined };
    }

    fn end(&self) -> i64 {
        self.offset + self.counts.len() as i64
    }

    /// How many buckets both together would span.
    fn width(&self, other: &Self) -> i64 {
        if self.counts.is_empty() || other.counts.is_empty() {
            return (self.counts.len() + other.counts.len()) as i64;
        }
        self.end().max(other.end()) - self.offset.min(other.offset)
    }

    /// Of the same scale, and not wider together than checked before.
    fn add(&mut self, more: &Self) {
        if more.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            *self = more.clone();
            return;
        }
        let first = self.offset.min(more.offset);
        let missing = usize::try_from(self.offset - first).unwrap_or(0);
        self.counts.splice(0..0, std::iter::repeat_n(0, missing));
        self.offset = first;
        let start = usize::try_from(more.offset - first).unwrap_or(0);
        let width = self.counts.len().max(start + more.counts.len());
        self.counts.resize(width, 0);
        for (total, count) in self.counts.iter_mut().skip(start).zip(&more.counts) {
            *total = total.saturating_add(*count);
        }
    }

    /// Runs of buckets; a gap of up to two empty ones costs less inside a run than a run of its own.
    fn spans(&self) -> Option<(Vec<Span>, Vec<f64>)> {
        let mut spans: Vec<Span> = Vec::new();
        let mut counts = Vec::with_capacity(self.counts.len());
        // Prometheus' number of the bucket after the last run.
        let mut behind = 0;
        let mut gap = 0;
        for (at, count) in (self.offset + 1..).zip(&self.counts) {
            if *count == 0 {
                gap += 1;
                continue;
            }
            match spans.last_mut() {
                Some(span) if gap <= 2 => {
                    span.length += gap + 1;
                    counts.extend(std::iter::repeat_n(0.0, gap as usize));
                }
                _ => spans.push(Span { offset: i32::try_from(at - behind).ok()?, length: 1 }),
            }
            counts.push(*count as f64);
            behind = at + 1;
            gap = 0;
        }
        Some((spans, counts))
    }
}

impl Exponential {
    /// Brings the scale into what Prometheus has. `None` for one that is coarser.
    pub(crate) fn fitted(mut self) -> Option<Self> {
        if self.scale < SCALE_MIN {
            return None;
        }
        self.coarsen(SCALE_MAX.min(self.scale));
        Some(self)
    }

    fn coarsen(&mut self, scale: i32) {
        let by = self.scale.saturating_sub(scale).max(0).unsigned_abs();
        self.positive.coarsen(by);
        self.negative.coarsen(by);
        self.scale = scale;
    }

    /// All observations. Prometheus refuses a whole scrape for a histogram whose count is not that of its buckets, so it is never taken
    /// from elsewhere.
    pub(crate) fn count(&self) -> u64 {
        self.zero_count.saturating_add(self.positive.total()).saturating_add(self.negative.total())
    }

    /// Adds a delta; both become as coarse as need be. `None`, and nothing changed, if that is coarser than Prometheus has.
    pub(crate) fn add(&mut self, more: &Self) -> Option<()> {
        let mut scale = self.scale.min(more.scale);
        let (mut total, mut more) = (self.clone(), more.clone());
        loop {
            if scale < SCALE_MIN {
                return None;
            }
            total.coarsen(scale);
            more.coarsen(scale);
            if total.positive.width(&more.positive).max(total.negative.width(&more.negative)) <= BUCKETS_MAX {
                break;
            }
            scale -= 1;
        }
        total.positive.add(&more.positive);
        total.negative.add(&more.negative);
        total.zero_count = total.zero_count.saturating_add(more.zero_count);
        total.zero_threshold = total.zero_threshold.max(more.zero_threshold);
        total.sum = total.sum.zip(more.sum).map(|(total, more)| total + more);
        if !more.exemplars.is_empty() {
            total.exemplars = more.exemplars;
        }
        *self = total;
        Some(())
    }

    /// `None` if a bucket's number is larger than Prometheus can say.
    pub(crate) fn native(&self) -> Option<NativeHistogram> {
        let (positive_spans, positive_counts) = self.positive.spans()?;
        let (negative_spans, negative_counts) = self.negative.spans()?;
        Some(NativeHistogram {
            schema: self.scale,
            zero_threshold: if self.zero_threshold > 0.0 { self.zero_threshold } else { ZERO_THRESHOLD },
            zero_count: self.zero_count as f64,
            positive_spans,
            positive_counts,
            negative_spans,
            negative_counts,
            exemplars: self.exemplars.clone(),
        })
    }
}
