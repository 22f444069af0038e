//! What travels: OTLP request bodies, and what is known about them without reading them again.
//!
//! A batch is the bytes of an `Export{Trace,Logs,Metrics}ServiceRequest` as they came. Nothing here does I/O, reads a clock or decodes.

mod context;
mod id;
mod span_index;

use std::{fmt, sync::Arc};

use bytes::Bytes;

pub use context::{Context, ContextNeeds};
pub use id::{ComponentId, InvalidId};
pub use span_index::{ResourceEntry, SpanEntry, SpanIndex};

/// Nanoseconds since 1970-01-01T00:00:00Z, as OTLP counts time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixNanos(pub u64);

/// The kinds of telemetry that OTLP carries and weir takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// `traces`, `metrics`, `logs`: the word in a configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// What one item of the signal is called in the Collector's own metric names.
    pub const fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metric_points",
            Self::Logs => "log_records",
        }
    }

    /// A dense number for tables: 0, 1, 2.
    pub const fn ordinal(self) -> usize {
        self as usize
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == text)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One request body, checked by the door's scan, and what came with it. Cloning copies no data.
#[derive(Debug, Clone)]
pub struct Batch {
    pub signal: Signal,
    /// The body of an `Export*ServiceRequest`, well-formed protobuf within the door's limits.
    pub payload: Bytes,
    /// Spans, data points or log records in `payload`.
    pub items: u64,
    pub context: Arc<Context>,
    /// Where the spans and the fields of them that RED reads lie in `payload`; only for traces, only where a consumer asked for it.
    pub index: Option<Arc<SpanIndex>>,
}
