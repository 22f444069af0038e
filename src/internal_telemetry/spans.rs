//! Our own spans, by the Collector's names: a request that is taken, an attempt of delivery.
//!
//! They cost a look at a flag while `service::telemetry::traces` asks for none.

use tracing::{Span, debug_span, field::Empty};

use crate::signal::Signal;

/// One request body of a receiver, from the scan to the append.
pub fn receive_span(receiver: &str, signal: Signal, transport: &str) -> Span {
    let what = match signal {
        Signal::Traces => "TraceDataReceived",
        Signal::Metrics => "MetricsReceived",
        Signal::Logs => "LogsReceived",
    };
    debug_span!(
        "receive",
        otel.name = format!("receiver/{receiver}/{what}"),
        otel.kind = "server",
        receiver,
        transport,
        accepted_items = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// One attempt to deliver `items` to an exporter's backend.
pub fn export_span(exporter: &str, signal: Signal, items: u64) -> Span {
    debug_span!(
        "export",
        otel.name = format!("exporter/{exporter}/{signal}"),
        otel.kind = "client",
        exporter,
        items,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The span ends in an error.
pub fn span_failed(span: &Span, why: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", why);
}
