//! Exemplars, and the numbers that they and points have.

use super::{EXEMPLARS_MAX, value_text};
use crate::{
    exposition::Exemplar,
    otlp::view::{ExemplarView, NumberValue},
};

/// `None` where no value is set.
pub(crate) const fn number(value: NumberValue) -> Option<f64> {
    match value {
        NumberValue::None => None,
        NumberValue::Double(value) => Some(value),
        NumberValue::Int(value) => Some(value as f64),
    }
}

/// `None` for one without a value.
pub(crate) fn exemplar(exemplar: ExemplarView<'_>) -> Option<Exemplar> {
    let labels = exemplar.filtered_attributes.iter().take(EXEMPLARS_MAX);
    Some(Exemplar {
        trace_id: exemplar.trace_id.try_into().unwrap_or_default(),
        span_id: exemplar.span_id.try_into().unwrap_or_default(),
        value: number(exemplar.value)?,
        unix_nanos: exemplar.time_unix_nanos,
        labels: labels.map(|label| (label.key().into(), value_text(label.value()).into())).collect(),
    })
}
