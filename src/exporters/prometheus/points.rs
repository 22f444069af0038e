//! What a series holds, and what a new point makes of it.

use std::sync::Arc;

use crate::exposition::{Exemplar, translation::Exponential};

/// The present value of a series.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Number(f64, Option<Arc<Exemplar>>),
    Classic(Arc<Classic>),
    Exponential(Arc<Exponential>),
    Summary(Arc<Summary>),
}

/// A histogram with explicit bounds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Classic {
    /// Shared by the series of a family, which mostly have the same.
    pub(super) bounds: Arc<[f64]>,
    /// One more than bounds, or none at all.
    pub(super) counts: Vec<u64>,
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    /// At most one a bucket: (bucket, exemplar), by bucket.
    pub(super) exemplars: Vec<(usize, Exemplar)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) quantiles: Vec<(f64, f64)>,
}

/// A point as it came.
pub(super) struct Incoming {
    pub(super) start: u64,
    pub(super) time: u64,
    /// Since the last point, not since the start.
    pub(super) delta: bool,
    pub(super) value: Value,
}

/// Why a point changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ignored {
    /// Older than what the series shows.
    Old,
    /// A delta for a time that was counted already: a repetition, or a second writer.
    Overlap,
    /// A delta of a sum that may go down has no absolute value.
    NonMonotonicDelta,
    /// Neither delta nor cumulative.
    Temporality,
    /// No value is set.
    NoValue,
    /// An exponential histogram coarser or wider than Prometheus has any.
    Range,
    /// Nothing is left of the metric's name.
    Name,
    /// Another metric of this name has a different type.
    Conflict,
    /// A new series, and there are as many as there may be.
    Full,
}

impl Ignored {
    pub(super) const ALL: [Self; 9] = [
        Self::Old,
        Self::Overlap,
        Self::NonMonotonicDelta,
        Self::Temporality,
        Self::NoValue,
        Self::Range,
        Self::Name,
        Self::Conflict,
        Self::Full,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Overlap => "overlap",
            Self::NonMonotonicDelta => "non_monotonic_delta",
            Self::Temporality => "temporality",
            Self::NoValue => "no_value",
            Self::Range => "range",
            Self::Name => "name",
            Self::Conflict => "conflict",
            Self::Full => "full",
        }
    }
}

/// What a series shows and since when.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) start: u64,
    pub(super) time: u64,
    pub(super) value: Value,
}

/// What happened to a series that took a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Plainly,
    /// Its start went back: two writers share the series.
    Interleaved,
}

impl Point {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { start: incoming.start, time: incoming.time, value: incoming.value }
    }

    pub(super) fn take(&mut self, incoming: Incoming) -> Result<Taken, Ignored> {
        if incoming.delta {
            return self.add(incoming);
        }
        if incoming.time < self.time {
            return Err(Ignored::Old);
        }
        let went_back = incoming.start != 0 && incoming.start < self.start;
        self.start = incoming.start;
        self.time = incoming.time;
        match (&mut self.value, incoming.value) {
            // Exemplars are rare; the last one stays until there is another.
            (Value::Number(now, _), Value::Number(next, None)) => *now = next,
            (Value::Classic(now), Value::Classic(mut next)) if next.exemplars.is_empty() && !now.exemplars.is_empty() => {
                if now.counts.len() == next.counts.len() {
                    Arc::make_mut(&mut next).exemplars.clone_from(&now.exemplars);
                }
                *now = next;
            }
            (value, next) => *value = next,
        }
        Ok(if went_back { Taken::Interleaved } else { Taken::Plainly })
    }

    /// Adds a delta. A gap before it loses what happened in between and nothing else: the total goes on, so that it never goes back.
    fn add(&mut self, incoming: Incoming) -> Result<Taken, Ignored> {
        if incoming.time <= self.time {
            return Err(Ignored::Old);
        }
        if incoming.start != 0 && incoming.start < self.time {
            return Err(Ignored::Overlap);
        }
        let added = match (&mut self.value, &incoming.value) {
            (Value::Number(total, exemplar), Value::Number(more, news)) => {
                *total += more;
                if news.is_some() {
                    exemplar.clone_from(news);
                }
                true
            }
            (Value::Classic(total), Value::Classic(more))
                if total.bounds == more.bounds && total.counts.len() == more.counts.len() =>
            {
                Arc::make_mut(total).add(more);
                true
            }
            (Value::Exponential(total), Value::Exponential(more)) => {
                Arc::make_mut(total).add(more).ok_or(Ignored::Range)?;
                true
            }
            _ => false,
        };
        if !added {
            // Other bounds, or another kind of histogram: counting starts again.
            self.start = incoming.start;
            self.value = incoming.value;
        }
        self.time = incoming.time;
        Ok(Taken::Plainly)
    }
}

impl Classic {
    fn add(&mut self, more: &Self) {
        for (total, more) in self.counts.iter_mut().zip(&more.counts) {
            *total = total.saturating_add(*more);
        }
        self.count = self.count.saturating_add(more.count);
        self.sum = match (self.sum, more.sum) {
            (Some(total), Some(more)) => Some(total + more),
            _ => None,
        };
        for (bucket, exemplar) in &more.exemplars {
            match self.exemplars.binary_search_by_key(bucket, |(known, _)| *known) {
                Ok(at) => {
                    if let Some(slot) = self.exemplars.get_mut(at) {
                        slot.1 = exemplar.clone();
                    }
                }
                Err(at) => self.exemplars.insert(at, (*bucket, exemplar.clone())),
            }
        }
    }

    /// The bucket a value falls into: bounds are inclusive.
    pub(super) fn bucket_of(bounds: &[f64], value: f64) -> usize {
        bounds.partition_point(|bound| *bound < value)
    }
}
