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
pub const SCRAPER_SCRAPED: &str = "otelcol_scraper_scraped_metric_points";
pub const SCRAPER_ERRORED: &str = "otelcol_scraper_errored_metric_points";

// === the process ===

pub const PROCESS_UPTIME: &str = "otelcol_process_uptime";
pub const PROCESS_CPU_SECONDS: &str = "otelcol_process_cpu_seconds";
pub const PROCESS_MEMORY_RSS: &str = "otelcol_process_memory_rss";

// === only here ===

pub const DOOR_BYTES: &str = "weir_receiver_accepted_bytes";
pub const DOOR_REFUSED: &str = "weir_receiver_refused_requests";
pub const REQUESTS_BYTES: &str = "weir_requests_bytes";
pub const REQUESTS_MAX_BYTES: &str = "weir_requests_max_bytes";
pub const DOOR_REPAIRED: &str = "weir_receiver_repaired_strings";
pub const CONSUMER_ACCEPTED: &str = "weir_consumer_accepted_items";
pub const CONSUMER_DELIVERED: &str = "weir_consumer_delivered_items";
pub const CONSUMER_DROPPED: &str = "weir_consumer_dropped_items";
pub const CONSUMER_HELD_ITEMS: &str = "weir_consumer_held_items";
pub const CONSUMER_HELD_BYTES: &str = "weir_consumer_held_bytes";
pub const CONSUMER_LAG_SECONDS: &str = "weir_consumer_lag_seconds";
pub const CONSUMER_PARKED: &str = "weir_consumer_parked_requests";
pub const CONSUMER_FAILING_SECONDS: &str = "weir_consumer_failing_seconds";
pub const TAPS: &str = "weir_taps";
pub const TAP_WAITING_BYTES: &str = "weir_tap_waiting_bytes";
pub const TAP_LOST: &str = "weir_tap_lost_samples";
pub const JOURNAL_BYTES: &str = "weir_journal_bytes";
pub const JOURNAL_MAX_BYTES: &str = "weir_journal_max_bytes";
pub const JOURNAL_RECORDS_BYTES: &str = "weir_journal_records_bytes";
pub const JOURNAL_RECORDS_MAX_BYTES: &str = "weir_journal_records_max_bytes";
pub const JOURNAL_LETTERS_BYTES: &str = "weir_journal_letters_bytes";
pub const JOURNAL_LETTERS_MAX_BYTES: &str = "weir_journal_letters_max_bytes";
pub const JOURNAL_REFUSING: &str = "weir_journal_refusing";
pub const JOURNAL_ORPHAN_ITEMS: &str = "weir_journal_orphan_items";
pub const JOURNAL_ORPHAN_BYTES: &str = "weir_journal_orphan_bytes";
pub const JOURNAL_ORPHAN_REMOVED: &str = "weir_journal_orphan_removed_items";
pub const DEAD_LETTERS: &str = "weir_dead_letters";
pub const DEAD_LETTERS_ITEMS: &str = "weir_dead_letters_items";
pub const DEAD_LETTERS_BYTES: &str = "weir_dead_letters_bytes";
pub const DEAD_LETTERS_WAITING: &str = "weir_dead_letters_waiting";
pub const DEAD_LETTERS_DROPPED: &str = "weir_dead_letters_dropped";
pub const DEAD_LETTERS_ADDED: &str = "weir_dead_letters_added_items";
pub const EXPORTER_ATTEMPTS: &str = "weir_exporter_attempts";
pub const ELASTICSEARCH_DOCUMENTS: &str = "weir_elasticsearch_documents";
pub const REMOTE_WRITE_POINTS: &str = "weir_remote_write_points";
pub const REMOTE_WRITE_LEFT_OUT: &str = "weir_remote_write_left_out_points";
pub const DEAD_LETTERS_REPLAYED: &str = "weir_dead_letters_replayed";
pub const CONFIG_RELOADS: &str = "weir_config_reloads";
pub const CONFIG_LAST_RELOAD_SUCCESSFUL: &str = "weir_config_last_reload_successful";
pub const CONFIG_LAST_RELOAD_SUCCESS_TIME: &str = "weir_config_last_reload_success_timestamp_seconds";
pub const OWN_EXPORTS_FAILED: &str = "weir_own_exports_failed";
pub const LOG_LINES_SUPPRESSED: &str = "weir_log_lines_suppressed";

// === the prometheus receiver ===

pub const SCRAPES: &str = "weir_scrapes";
pub const SCRAPE_TARGETS: &str = "weir_scrape_targets";
pub const SCRAPE_SERIES: &str = "weir_scrape_series";
pub const SCRAPE_LEFT_OUT: &str = "weir_scrape_left_out_samples";
pub const SCRAPE_DISCOVERIES_FAILED: &str = "weir_scrape_discoveries_failed";

// === the prometheus page ===

pub const PROMETHEUS_LEFT_OUT: &str = "weir_prometheus_series_left_out";
pub const PROMETHEUS_IGNORED: &str = "weir_prometheus_points_ignored";
pub const PROMETHEUS_CONFLICTS: &str = "weir_prometheus_type_conflicts";
pub const PROMETHEUS_INTERLEAVED: &str = "weir_prometheus_interleaved_starts";
pub const PROMETHEUS_SERIES: &str = "weir_prometheus_series";

// === span_metrics ===

pub const SPAN_METRICS_SPANS: &str = "weir_span_metrics_counted_spans";
pub const SPAN_METRICS_NAMELESS: &str = "weir_span_metrics_nameless_spans";
pub const SPAN_METRICS_OTHER_KIND: &str = "weir_span_metrics_other_kind_spans";
pub const SPAN_METRICS_BACKWARDS: &str = "weir_span_metrics_backwards_spans";
pub const SPAN_METRICS_OVERFLOWED: &str = "weir_span_metrics_overflowed_spans";
pub const SPAN_METRICS_FOLDED: &str = "weir_span_metrics_folded_spans";
pub const SPAN_METRICS_FOLDED_LABELS: &str = "weir_span_metrics_folded_labels";
pub const SPAN_METRICS_LABEL_DEMAND: &str = "weir_span_metrics_label_demand";
pub const SPAN_METRICS_CUT: &str = "weir_span_metrics_cut_values";
pub const SPAN_METRICS_ROWS: &str = "weir_span_metrics_rows";
pub const SPAN_METRICS_ROWS_MAX: &str = "weir_span_metrics_rows_max";
pub const SPAN_METRICS_SERVICE_ROWS_MAX: &str = "weir_span_metrics_service_rows_max";
pub const SPAN_METRICS_RESOURCES: &str = "weir_span_metrics_resources";
pub const SPAN_METRICS_RESOURCES_MAX: &str = "weir_span_metrics_resources_max";

/// The unit that `without_units: false` puts behind a name, unless the name ends with it already.
pub fn unit(name: &str) -> Option<&'static str> {
    match name {
        PROCESS_UPTIME | PROCESS_CPU_SECONDS | CONSUMER_LAG_SECONDS | CONSUMER_FAILING_SECONDS => Some("seconds"),
        PROCESS_MEMORY_RSS | CONSUMER_HELD_BYTES | DEAD_LETTERS_BYTES | TAP_WAITING_BYTES => Some("bytes"),
        _ => None,
    }
}
