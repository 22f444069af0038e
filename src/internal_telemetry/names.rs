//! Every name of a metric of our own. The Collector's first, then those only weir has (`weir_…`).

use crate::signal::Signal;

macro_rules! by_signal {
    ($name:ident, $prefix:literal) => {
        pub const fn $name(signal: Signal) -> &'static str {
            match signal {
                Signal::Traces => concat!($prefix, "_spans"),
                Signal::Metrics => concat!($prefix, "_metric_points"),
                Signal::Logs => concat!($prefix, "_log_records"),
            }
        }
    };
}

by_signal!(receiver_accepted, "otelcol_receiver_accepted");
by_signal!(receiver_refused, "otelcol_receiver_refused");
by_signal!(exporter_sent, "otelcol_exporter_sent");
by_signal!(exporter_send_failed, "otelcol_exporter_send_failed");
by_signal!(exporter_enqueue_failed, "otelcol_exporter_enqueue_failed");

pub const PROCESSOR_INCOMING: &str = "otelcol_processor_incoming_items";
pub const PROCESSOR_OUTGOING: &str = "otelcol_processor_outgoing_items";
