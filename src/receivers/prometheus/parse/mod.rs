//! Pages of Prometheus → samples: text 0.0.4 and 1.0.0, OpenMetrics, protobuf.
//!
//! In:   one page, whole, not compressed.
//! Out:  descriptions and samples in page order, handed to a [`Taker`], borrowed from the page where nothing was escaped.
//! Lost: nothing; a page with a fault in it gives what stood before the fault, and the caller throws that away.

pub(super) mod protobuf;
pub(super) mod text;

use smallvec::SmallVec;

use super::labels::Labels;

/// A label set, or a page, that goes on for longer is none that anyone meant to write.
pub(super) const LABELS_MAX: usize = 1024;

/// What a family of series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    Unknown,
}

impl Kind {
    /// The word of a `# TYPE` line.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "unknown" | "untyped" => Self::Unknown,
            _ => return None,
        })
    }

    /// As OpenTelemetry's `prometheus.type` says it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }
}

/// What is said of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About<'a> {
    Kind(Kind),
    Help(&'a str),
    Unit(&'a str),
}

/// An example of what was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exemplar<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    /// Nanoseconds since 1970; 0: not said.
    pub(super) time: u64,
}

/// A native histogram: buckets as runs, counts absolute.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Native {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) zero_count: u64,
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) positive: Runs,
    pub(super) negative: Runs,
}

/// Buckets of one side: each run begins `offset` behind the end of the one before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Runs {
    pub(super) spans: Vec<(i32, u32)>,
    pub(super) counts: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Native(Box<Native>),
}

/// One line of a page, or what is one in other formats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    /// With the metric's name as `__name__`.
    pub(super) labels: Labels<'a>,
    pub(super) value: Value,
    /// Milliseconds since 1970, where the page says it.
    pub(super) time: Option<i64>,
    /// When it began to be counted, in nanoseconds since 1970; 0: not said here.
    pub(super) start: u64,
    pub(super) exemplars: SmallVec<[Exemplar<'a>; 1]>,
}

/// Why a page is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed(String),
    /// A limit of the configuration, by its key, or one of ours.
    Limit(String),
}

/// Who makes something of a page.
pub(super) trait Taker {
    fn about(&mut self, family: &str, about: About<'_>);
    fn sample(&mut self, sample: Sample<'_>) -> Result<(), Fault>;
}

/// A fault and the line it stands in, from 1; of protobuf the number of the family.
pub(super) type Placed = (usize, Fault);
