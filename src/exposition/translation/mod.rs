//! OpenTelemetry's metrics in Prometheus' words: what metrics, labels and buckets are called, by one rule for all that speak to Prometheus.
//!
//! Spec: OpenTelemetry "Prometheus and OpenMetrics compatibility".

mod exemplars;
mod exponential;
mod glob;
mod labels;
mod names;
mod promotion;

pub(crate) use exemplars::{exemplar, number};
pub(crate) use exponential::{EXEMPLARS_MAX, Exponential, Side};
pub(crate) use labels::{Pairs, Target, scope_labels, series_labels, value_text};
pub use names::Strategy;
pub(crate) use names::unit_code;
pub(crate) use promotion::Promotion;
pub use promotion::{Conversion, ResourceLabels};

/// `DataPointFlags`: the series has ended.
pub(crate) const NO_RECORDED_VALUE: u32 = 1;
/// `AggregationTemporality`
pub(crate) const DELTA: i32 = 1;
/// `AggregationTemporality`
pub(crate) const CUMULATIVE: i32 = 2;
