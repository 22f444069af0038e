//! `service::telemetry` as it stands in a file: the Collector's own keys and the OpenTelemetry configuration schema's.
//!
//! Keys with a leading underscore are accepted and not looked at here.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{LogEncoding, LogLevel, Sampling};
use crate::{
    config::{Section, StringList},
    internal_telemetry::Style,
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    pub logs: WrittenLogs,
    pub metrics: WrittenMetrics,
    pub traces: WrittenTraces,
    #[serde(rename = "resource")]
    _resource: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenLogs {
    pub level: LogLevel,
    pub encoding: LogEncoding,
    pub output_paths: StringList,
    pub sampling: Option<Sampling>,
    #[serde(rename = "initial_fields")]
    _initial_fields: IgnoredAny,
    #[serde(rename = "development")]
    _development: IgnoredAny,
    #[serde(rename = "disable_caller")]
    _disable_caller: IgnoredAny,
    #[serde(rename = "disable_stacktrace")]
    _disable_stacktrace: IgnoredAny,
    #[serde(rename = "error_output_paths")]
    _error_output_paths: IgnoredAny,
    #[serde(rename = "processors")]
    _processors: IgnoredAny,
    #[serde(rename = "disable_zap_resource")]
    _disable_zap_resource: IgnoredAny,
}

impl Default for WrittenLogs {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            encoding: LogEncoding::default(),
            output_paths: StringList(vec!["stderr".to_owned()]),
            sampling: Some(Sampling::default()),
            _initial_fields: IgnoredAny,
            _development: IgnoredAny,
            _disable_caller: IgnoredAny,
            _disable_stacktrace: IgnoredAny,
            _error_output_paths: IgnoredAny,
            _processors: IgnoredAny,
            _disable_zap_resource: IgnoredAny,
        }
    }
}

/// How much is told; only `none` matters here.
#[derive(Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    None,
    Basic,
    #[default]
    Normal,
    Detailed,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenMetrics {
    pub level: Level,
    pub readers: Option<Vec<WrittenReader>>,
    pub address: Option<String>,
    #[serde(rename = "views")]
    _views: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenReader {
    pub pull: Option<WrittenPull>,
    pub periodic: Option<WrittenPeriodic>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenPull {
    pub exporter: WrittenPullExporter,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenPullExporter {
    #[serde(alias = "prometheus/development")]
    pub prometheus: Section<WrittenPrometheus>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenPrometheus {
    pub host: String,
    pub port: u16,
    pub without_type_suffix: bool,
    pub without_units: bool,
    pub without_scope_info: bool,
    #[serde(alias = "without_target_info/development")]
    pub without_target_info: bool,
    pub with_resource_constant_labels: WrittenPatterns,
}

impl Default for WrittenPrometheus {
    fn default() -> Self {
        let style = Style::default();
        Self {
            host: "localhost".to_owned(),
            port: 8888,
            without_type_suffix: style.without_type_suffix,
            without_units: style.without_units,
            without_scope_info: style.without_scope_info,
            without_target_info: style.without_target_info,
            with_resource_constant_labels: WrittenPatterns::default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenPatterns {
    pub included: Vec<String>,
    pub excluded: Vec<String>,
}

/// Times in milliseconds, as the OpenTelemetry configuration schema has them.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenPeriodic {
    pub interval: u64,
    #[serde(rename = "timeout")]
    _timeout: IgnoredAny,
    pub exporter: WrittenExporter,
}

impl Default for WrittenPeriodic {
    fn default() -> Self {
        Self { interval: 60_000, _timeout: IgnoredAny, exporter: WrittenExporter::default() }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenExporter {
    pub otlp: Option<WrittenOtlp>,
    #[serde(alias = "otlp_grpc/development")]
    pub otlp_grpc: Option<WrittenOtlp>,
    #[serde(alias = "otlp_http/development")]
    pub otlp_http: Option<WrittenOtlp>,
    #[serde(rename = "console")]
    _console: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenOtlp {
    pub protocol: Option<String>,
    pub encoding: Option<String>,
    pub endpoint: Option<String>,
    pub headers: Headers,
    pub headers_list: Option<String>,
    /// Milliseconds.
    pub timeout: Option<u64>,
    pub temporality_preference: Option<String>,
    #[serde(rename = "compression")]
    _compression: IgnoredAny,
    #[serde(rename = "insecure")]
    _insecure: IgnoredAny,
    #[serde(rename = "default_histogram_aggregation")]
    _default_histogram_aggregation: IgnoredAny,
    #[serde(rename = "certificate")]
    _certificate: IgnoredAny,
    #[serde(rename = "client_certificate")]
    _client_certificate: IgnoredAny,
    #[serde(rename = "client_key")]
    _client_key: IgnoredAny,
    #[serde(rename = "tls")]
    _tls: IgnoredAny,
}

/// `[{name: x, value: y}]`, or `x: y`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Headers {
    List(Vec<NameValue>),
    Map(BTreeMap<String, String>),
}

impl Default for Headers {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Deserialize)]
pub(super) struct NameValue {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenTraces {
    pub level: Level,
    pub processors: Vec<WrittenProcessor>,
    #[serde(rename = "propagators")]
    _propagators: IgnoredAny,
    #[serde(rename = "sampler")]
    _sampler: IgnoredAny,
    #[serde(rename = "limits")]
    _limits: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenProcessor {
    pub batch: Option<WrittenBatch>,
    pub simple: Option<WrittenSimple>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenBatch {
    pub schedule_delay: u64,
    #[serde(rename = "export_timeout")]
    _export_timeout: IgnoredAny,
    pub max_queue_size: usize,
    pub max_export_batch_size: usize,
    pub exporter: WrittenExporter,
}

impl Default for WrittenBatch {
    fn default() -> Self {
        Self {
            schedule_delay: 5000,
            _export_timeout: IgnoredAny,
            max_queue_size: 2048,
            max_export_batch_size: 512,
            exporter: WrittenExporter::default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenSimple {
    pub exporter: WrittenExporter,
}
