//! What a request becomes: points, each with the samples it gives to its series.

use std::sync::Arc;

use crate::exposition::{Exemplar, FamilyKind, NativeHistogram};

/// Names and values, sorted by name; without `__name__`, without empty values.
pub(super) type Labels = Arc<[(Box<str>, Box<str>)]>;

/// A value that says that a series has ended: one certain NaN.
pub(super) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: FamilyKind,
    pub(super) help: String,
    pub(super) unit: String,
}

/// All samples of one data point. Those of one histogram are taken or refused together.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// Its number in the request; `None` for what the exporter adds (`target_info`).
    pub(super) item: Option<u64>,
    /// Of the family's name and the labels: points of equal keys are sent in the order of their times.
    pub(super) key: u64,
    pub(super) family: Arc<Family>,
    pub(super) labels: Labels,
    /// Unix milliseconds.
    pub(super) time: i64,
    /// Unix milliseconds since when a counter counts; 0: not known.
    pub(super) start: i64,
    pub(super) samples: Vec<Sample>,
    /// What it takes in a request at most.
    pub(super) bytes: usize,
}

/// One sample of one series: the family's name with `suffix`, the point's labels and `label`.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) suffix: &'static str,
    /// `le` or `quantile`.
    pub(super) label: Option<(&'static str, Box<str>)>,
    pub(super) value: Value,
    pub(super) exemplars: Vec<Exemplar>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Float(f64),
    Native(Box<Native>),
}

/// A native histogram; `sum` is [`STALE`] where the series has ended.
#[derive(Debug, Clone)]
pub(super) struct Native {
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) buckets: NativeHistogram,
}

impl Sample {
    pub(super) fn float(value: f64) -> Self {
        Self { suffix: "", label: None, value: Value::Float(value), exemplars: Vec::new() }
    }

    pub(super) fn of(suffix: &'static str, value: f64) -> Self {
        Self { suffix, ..Self::float(value) }
    }

    pub(super) fn labelled(suffix: &'static str, name: &'static str, text: impl Into<Box<str>>, value: f64) -> Self {
        Self { suffix, label: Some((name, text.into())), ..Self::float(value) }
    }

    /// What tells its series from the others of its point.
    pub(super) fn series(&self) -> (&'static str, Option<(&'static str, &str)>) {
        (self.suffix, self.label.as_ref().map(|(name, text)| (*name, &**text)))
    }
}

impl Point {
    /// Bytes of its labels.
    pub(super) fn texts(&self) -> usize {
        self.labels.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Bytes of memory that it takes, roughly.
    pub(super) fn held(&self) -> usize {
        let sample = |sample: &Sample| {
            let native = match &sample.value {
                Value::Float(_) => 0,
                Value::Native(native) => {
                    let buckets = &native.buckets;
                    size_of::<Native>()
                        + 8 * (buckets.positive_counts.len() + buckets.negative_counts.len())
                        + 8 * (buckets.positive_spans.len() + buckets.negative_spans.len())
                }
            };
            let label = sample.label.as_ref().map_or(0, |(_, text)| text.len());
            size_of::<Sample>() + label + native + sample.exemplars.len() * 640
        };
        let labels = self.texts() + self.labels.len() * size_of::<(Box<str>, Box<str>)>();
        size_of::<Self>() + labels + self.samples.iter().map(sample).sum::<usize>()
    }

    /// With its size reckoned.
    pub(super) fn sized(mut self) -> Self {
        // A label is framed by 6 bytes at most where it is short; series, sample and metadata by some 60.
        let framed = |text: &str| text.len() + 8;
        let labels: usize = self.labels.iter().map(|(name, value)| framed(name) + framed(value)).sum();
        let sample = |sample: &Sample| {
            let label = sample.label.as_ref().map_or(0, |(name, value)| framed(name) + framed(value));
            let native = match &sample.value {
                Value::Float(_) => 0,
                Value::Native(native) => {
                    let buckets = &native.buckets;
                    128 + 12 * (buckets.positive_counts.len() + buckets.negative_counts.len())
                        + 16 * (buckets.positive_spans.len() + buckets.negative_spans.len())
                }
            };
            // Texts of an exemplar have 128 characters at most.
            60 + labels + framed(&self.family.name) + sample.suffix.len() + label + native + sample.exemplars.len() * 640
        };
        self.bytes = self.family.help.len() + self.family.unit.len() + self.samples.iter().map(sample).sum::<usize>();
        self
    }
}
