//! Counting items by hopping over lengths; what lies in an item is not looked at.

use super::fields::Fields;
use crate::signal::Signal;

/// The spans, data points or log records of a request. The door's scan counts them too; this is for parts of requests.
pub fn items(signal: Signal, payload: &[u8]) -> u64 {
    Fields::new(payload).messages(1).map(|message| of_resource(signal, message)).sum()
}

/// Those of one `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`.
pub(crate) fn of_resource(signal: Signal, message: &[u8]) -> u64 {
    Fields::new(message).messages(2).map(|message| of_scope(signal, message)).sum()
}

/// Those of one `ScopeSpans`, `ScopeMetrics` or `ScopeLogs`.
pub(crate) fn of_scope(signal: Signal, message: &[u8]) -> u64 {
    let items = Fields::new(message).messages(2);
    match signal {
        Signal::Traces | Signal::Logs => items.count() as u64,
        Signal::Metrics => items.map(of_metric).sum(),
    }
}

/// The data points of one metric.
pub(crate) fn of_metric(message: &[u8]) -> u64 {
    [5, 7, 9, 10, 11]
        .into_iter()
        .flat_map(|kind| Fields::new(message).messages(kind))
        .map(|data| Fields::new(data).messages(1).count() as u64)
        .sum()
}
