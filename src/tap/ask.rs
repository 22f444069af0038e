//! What somebody wants to see, and whether an item is of it.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::At;
use crate::{
    otlp::view::{AnyValueView, DataView, LogRecordView, MetricView, PointView, ResourceView, SpanView},
    signal::Signal,
};

/// What to show: the body of a request for a tap. What is not said lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    /// Where to look; none: where it comes in.
    pub at: Vec<At>,
    /// `traces`, `metrics`, `logs`.
    pub signals: Vec<String>,
    /// The `service.name`, exactly.
    pub service: Option<String>,
    /// 32 hexadecimal digits. Of metrics: those with an exemplar of it.
    pub trace_id: Option<String>,
    /// A part of the span's or metric's name, of a log record's event name or text; in its case.
    pub name: Option<String>,
    /// Spans with an error status, log records of severity ERROR and above; no metrics.
    pub errors: bool,
    /// End after so many lines.
    pub lines_max: Option<u64>,
    /// End after so long.
    pub seconds: Option<f64>,
    pub form: Form,
}

/// What a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One item: a [`super::Row`].
    #[default]
    Rows,
    /// A request of OTLP/JSON with all that passed together; what else is known of it stands under the key `weir`, which readers of OTLP ignore.
    Otlp,
}

/// What was asked for cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("`{0}` is no signal: traces, metrics or logs")]
    Signal(String),
    #[error("a trace id is 32 hexadecimal digits")]
    TraceId,
    #[error("`seconds` is a number that is more than nothing")]
    Seconds,
}

/// An [`Ask`], read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Bits of [`At`].
    pub(super) at: u8,
    /// By [`Signal::ordinal`].
    signals: [bool; 3],
    service: Option<Box<str>>,
    trace_id: Option<[u8; 16]>,
    name: Option<Box<str>>,
    errors: bool,
    pub(super) form: Form,
}

/// The first severity of ERROR.
const SEVERITY_ERROR: i32 = 17;
/// `Status.code` of an error.
const STATUS_ERROR: i32 = 2;

impl Wanted {
    pub(super) fn of(ask: &Ask) -> Result<Self, AskError> {
        let mut signals = [ask.signals.is_empty(); 3];
        for name in &ask.signals {
            let signal = Signal::parse(name).ok_or_else(|| AskError::Signal(name.clone()))?;
            if let Some(wanted) = signals.get_mut(signal.ordinal()) {
                *wanted = true;
            }
        }
        let digits = |text: &String| {
            let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u128::from_str_radix(text, 16).ok().filter(|_| digits).ok_or(AskError::TraceId)
        };
        if ask.seconds.is_some_and(|seconds| !seconds.is_finite() || seconds <= 0.0) {
            return Err(AskError::Seconds);
        }
        Ok(Self {
            at: if ask.at.is_empty() { At::Ingest.bit() } else { ask.at.iter().fold(0, |all, at| all | at.bit()) },
            signals,
            service: ask.service.as_deref().map(Into::into),
            trace_id: ask.trace_id.as_ref().map(digits).transpose()?.map(u128::to_be_bytes),
            name: ask.name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            errors: ask.errors,
            form: ask.form,
        })
    }

    pub(super) fn is_of(&self, at: At, signal: Signal) -> bool {
        self.at & at.bit() != 0 && self.signals.get(signal.ordinal()).is_some_and(|wanted| *wanted)
    }

    /// Whether every item of what passes is wanted.
    pub(super) fn is_all(&self) -> bool {
        self.service.is_none() && self.trace_id.is_none() && self.name.is_none() && !self.errors
    }

    /// Whether the bytes may hold something that is wanted; told without reading them.
    pub(super) fn may_hold(&self, payload: &[u8]) -> bool {
        let has = |needle: &[u8]| memmem::find(payload, needle).is_some();
        self.trace_id.is_none_or(|id| has(&id))
            && self.name.as_deref().is_none_or(|name| has(name.as_bytes()))
            && self.service.as_deref().is_none_or(|service| has(service.as_bytes()))
    }

    pub(super) fn resource(&self, resource: &ResourceView<'_>) -> bool {
        self.service.as_deref().is_none_or(|service| resource.service_name().unwrap_or_default() == service)
    }

    pub(super) fn span(&self, span: &SpanView<'_>) -> bool {
        self.trace(span.trace_id)
            && (!self.errors || span.status.code == STATUS_ERROR)
            && self.name.as_deref().is_none_or(|part| span.name.contains(part))
    }

    pub(super) fn log_record(&self, record: &LogRecordView<'_>) -> bool {
        let names = |part: &str| {
            record.event_name.contains(part) || matches!(record.body(), AnyValueView::String(text) if text.contains(part))
        };
        self.trace(record.trace_id)
            && (!self.errors || record.severity_number >= SEVERITY_ERROR)
            && self.name.as_deref().is_none_or(names)
    }

    /// Whether the metric is wanted by what does not depend on its points.
    pub(super) fn metric(&self, metric: &MetricView<'_>) -> bool {
        !self.errors && self.name.as_deref().is_none_or(|part| metric.name.contains(part))
    }

    pub(super) fn has_wanted_point(&self, metric: &MetricView<'_>) -> bool {
        self.trace_id.is_none()
            || match metric.data {
                DataView::Gauge { points } | DataView::Sum { points, .. } => {
                    points.iter().any(|point| self.point(&PointView::Number(point)))
                }
                DataView::Histogram { points, .. } => points.iter().any(|point| self.point(&PointView::Histogram(point))),
                DataView::ExponentialHistogram { points, .. } => {
                    points.iter().any(|point| self.point(&PointView::ExponentialHistogram(point)))
                }
                DataView::Summary { .. } | DataView::None => false,
            }
    }

    pub(super) fn point(&self, point: &PointView<'_>) -> bool {
        if self.trace_id.is_none() {
            return true;
        }
        match point {
            PointView::Number(point) => point.exemplars().any(|exemplar| self.trace(exemplar.trace_id)),
            PointView::Histogram(point) => point.exemplars().any(|exemplar| self.trace(exemplar.trace_id)),
            PointView::ExponentialHistogram(point) => point.exemplars().any(|exemplar| self.trace(exemplar.trace_id)),
            PointView::Summary(_) => false,
        }
    }

    fn trace(&self, id: &[u8]) -> bool {
        self.trace_id.is_none_or(|wanted| wanted == *id)
    }
}
