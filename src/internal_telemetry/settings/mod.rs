//! `service::telemetry`: what a file says about our own logs, metrics and spans.
//!
//! The keys are the Collector's; those that do nothing here are reported with what happens instead.

mod written;

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{
    Identity, Patterns, Style,
    export::{OtlpProtocol, OtlpTarget},
};
use crate::config::{Diagnostics, GoDuration, Node, Origin, Value, read};
use written::{Headers, Level, Written, WrittenExporter, WrittenLogs, WrittenMetrics, WrittenPull, WrittenTraces};

/// Checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetrySettings {
    pub logs: LogSettings,
    /// Empty: our own metrics are shown to nobody.
    pub readers: Vec<Reader>,
    /// Where our own spans go; empty: none are made.
    pub spans: Vec<SpanProcessor>,
    pub identity: Identity,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            logs: LogSettings::default(),
            readers: vec![Reader::Pull(PullReader::default())],
            spans: Vec::new(),
            identity: Identity::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reader {
    Pull(PullReader),
    Periodic { interval: Duration, target: OtlpTarget },
}

/// A page for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullReader {
    /// `host:port`.
    pub endpoint: String,
    pub style: Style,
}

impl Default for PullReader {
    fn default() -> Self {
        Self { endpoint: "localhost:8888".to_owned(), style: Style::default() }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum SpanProcessor {
    Batch { delay: Duration, queue_size_max: usize, batch_size_max: usize, target: OtlpTarget },
    Simple { target: OtlpTarget },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    #[serde(alias = "DEBUG")]
    Debug,
    #[default]
    #[serde(alias = "INFO")]
    Info,
    #[serde(alias = "WARN")]
    Warn,
    /// The Collector's levels above `error` say nothing that we would say less loudly.
    #[serde(
        alias = "ERROR",
        alias = "dpanic",
        alias = "panic",
        alias = "fatal",
        alias = "DPANIC",
        alias = "PANIC",
        alias = "FATAL"
    )]
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogEncoding {
    /// Time, level, message and fields, with tabs between.
    #[default]
    Console,
    /// One JSON object a line.
    Json,
}

/// Of equal lines within `tick` the first `initial` are written, then each `thereafter`-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    pub enabled: bool,
    pub tick: GoDuration,
    pub initial: u64,
    /// 0: none after the first `initial`.
    pub thereafter: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { enabled: true, tick: GoDuration(Duration::from_secs(10)), initial: 10, thereafter: 100 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    pub level: LogLevel,
    pub encoding: LogEncoding,
    /// `stderr`, `stdout` or files.
    pub output_paths: Vec<String>,
    pub initial_fields: BTreeMap<String, String>,
    /// `None`: every line is written.
    pub sampling: Option<Sampling>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            encoding: LogEncoding::Console,
            output_paths: vec!["stderr".to_owned()],
            initial_fields: BTreeMap::new(),
            sampling: Some(Sampling::default()),
        }
    }
}

/// Keys that parse and change nothing, and what happens instead.
pub(super) const INEFFECTIVE: &[(&str, &str)] = &[
    ("logs::development", "log lines are the same in every mode"),
    ("logs::disable_caller", "log lines never name a source line"),
    ("logs::disable_stacktrace", "log lines never carry a stack"),
    ("logs::error_output_paths", "what the logger cannot write goes to stderr"),
    ("logs::disable_zap_resource", "log lines do not repeat the resource"),
    ("logs::processors", "own logs go to output_paths only"),
    ("metrics::views", "all own metrics are shown as they are"),
    ("traces::propagators", "own spans are not joined to the traces of senders"),
    ("traces::sampler", "every own span is sent"),
    ("traces::limits", "the limits of the OpenTelemetry SDK hold"),
];

impl TelemetrySettings {
    /// `node` is what stands at `service::telemetry`.
    pub fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let written: Written = read(node, found);
        for (path, instead) in INEFFECTIVE {
            if let Some(key) = at(node, path) {
                found.ineffective(key.origin, format!("service::telemetry::{path} has no effect"), *instead);
            }
        }
        if matches!(written.metrics.level, Level::Basic | Level::Detailed)
            && let Some(key) = at(node, "metrics::level")
        {
            found.ineffective(key.origin, "own metrics have one level of detail", "all of them are shown, as at level normal");
        }
        Self {
            logs: logs(written.logs, node),
            readers: readers(written.metrics, node, found),
            spans: spans(written.traces, node, found),
            identity: identity(node, found),
        }
    }

    /// The first page that Prometheus can scrape, for what we say on start.
    pub fn page(&self) -> Option<&PullReader> {
        self.readers.iter().find_map(|reader| match reader {
            Reader::Pull(pull) => Some(pull),
            Reader::Periodic { .. } => None,
        })
    }
}

fn logs(written: WrittenLogs, node: &Node) -> LogSettings {
    let mut initial_fields = BTreeMap::new();
    for (name, value) in entries(at(node, "logs::initial_fields")) {
        if let Some(text) = scalar(value) {
            initial_fields.insert(name.to_owned(), text);
        }
    }
    let sampling_off = at(node, "logs::sampling").is_some_and(|key| key.value == Value::Null);
    LogSettings {
        level: written.level,
        encoding: written.encoding,
        output_paths: written.output_paths.0,
        initial_fields,
        sampling: written.sampling.filter(|sampling| sampling.enabled && !sampling_off),
    }
}

fn readers(written: WrittenMetrics, node: &Node, found: &mut Diagnostics) -> Vec<Reader> {
    let mut readers = Vec::new();
    if let Some(address) = written.address {
        let origin = at(node, "metrics::address").map(|key| key.origin).unwrap_or_default();
        let help = "write `readers: [{pull: {exporter: {prometheus: {host: …, port: …}}}}]`".to_owned();
        found.warning(origin, "service::telemetry::metrics::address is the old spelling", Some(help));
        readers.push(Reader::Pull(PullReader { endpoint: address, style: Style::default() }));
    }
    let origin = |number: usize| item(at(node, "metrics::readers"), number).map(|item| item.origin).unwrap_or_default();
    match written.readers {
        None if readers.is_empty() => readers.push(Reader::Pull(PullReader::default())),
        None => {}
        Some(list) => {
            if list.is_empty() && readers.is_empty() && written.level != Level::None {
                let help = Some(
                    "write `level: none` for no own metrics, or leave out `readers` for the page at localhost:8888".to_owned(),
                );
                let origin = at(node, "metrics::readers").map(|key| key.origin).unwrap_or_default();
                found.error(origin, "service::telemetry::metrics has a level and no readers", help);
            }
            for (number, reader) in list.into_iter().enumerate() {
                match (reader.pull, reader.periodic) {
                    (Some(pull), None) => readers.push(Reader::Pull(pull_reader(&pull))),
                    (None, Some(periodic)) => {
                        if let Some(target) = target(periodic.exporter, "v1/metrics", origin(number), found) {
                            readers.push(Reader::Periodic { interval: Duration::from_millis(periodic.interval.max(1)), target });
                        }
                    }
                    _ => found.error(origin(number), "a reader is either `pull` or `periodic`", None),
                }
            }
        }
    }
    if written.level == Level::None { Vec::new() } else { readers }
}

fn pull_reader(pull: &WrittenPull) -> PullReader {
    let Some(written) = pull.exporter.prometheus.get() else { return PullReader::default() };
    // An IPv6 address needs brackets before its port.
    let host = if written.host.contains(':') && !written.host.starts_with('[') {
        format!("[{}]", written.host)
    } else {
        written.host.clone()
    };
    PullReader {
        endpoint: format!("{host}:{}", written.port),
        style: Style {
            without_type_suffix: written.without_type_suffix,
            without_units: written.without_units,
            without_scope_info: written.without_scope_info,
            without_target_info: written.without_target_info,
            constant_labels: Patterns {
                included: written.with_resource_constant_labels.included.clone(),
                excluded: written.with_resource_constant_labels.excluded.clone(),
            },
        },
    }
}

fn spans(written: WrittenTraces, node: &Node, found: &mut Diagnostics) -> Vec<SpanProcessor> {
    let mut spans = Vec::new();
    for (number, processor) in written.processors.into_iter().enumerate() {
        let origin = item(at(node, "traces::processors"), number).map(|item| item.origin).unwrap_or_default();
        match (processor.batch, processor.simple) {
            (Some(batch), None) => {
                if let Some(target) = target(batch.exporter, "v1/traces", origin, found) {
                    let queue_size_max = batch.max_queue_size.max(1);
                    spans.push(SpanProcessor::Batch {
                        delay: Duration::from_millis(batch.schedule_delay),
                        queue_size_max,
                        batch_size_max: batch.max_export_batch_size.clamp(1, queue_size_max),
                        target,
                    });
                }
            }
            (None, Some(simple)) => {
                if let Some(target) = target(simple.exporter, "v1/traces", origin, found) {
                    spans.push(SpanProcessor::Simple { target });
                }
            }
            _ => found.error(origin, "a processor of own spans is either `batch` or `simple`", None),
        }
    }
    if written.level == Level::None { Vec::new() } else { spans }
}

fn target(exporter: WrittenExporter, path: &str, origin: Origin, found: &mut Diagnostics) -> Option<OtlpTarget> {
    let (otlp, default) = match exporter {
        WrittenExporter { otlp: Some(otlp), .. } => (otlp, OtlpProtocol::HttpProtobuf),
        WrittenExporter { otlp_grpc: Some(otlp), .. } => (otlp, OtlpProtocol::Grpc),
        WrittenExporter { otlp_http: Some(otlp), .. } => (otlp, OtlpProtocol::HttpProtobuf),
        _ => {
            let instead = "nothing is sent: own telemetry can go to `otlp`, `otlp_grpc` and `otlp_http`";
            found.ineffective(origin, "this exporter of own telemetry is not in weir", instead);
            return None;
        }
    };
    let protocol = match otlp.protocol.as_deref() {
        None if otlp.encoding.as_deref() == Some("json") => OtlpProtocol::HttpJson,
        None => default,
        Some("grpc") => OtlpProtocol::Grpc,
        Some("http/protobuf") => OtlpProtocol::HttpProtobuf,
        Some("http/json") => OtlpProtocol::HttpJson,
        Some(other) => {
            let help = "grpc, http/protobuf and http/json are known".to_owned();
            found.error(origin, format!("`{other}` is not a protocol of OTLP"), Some(help));
            return None;
        }
    };
    let mut endpoint = otlp.endpoint.unwrap_or_else(|| match protocol {
        OtlpProtocol::Grpc => "http://localhost:4317".to_owned(),
        OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => "http://localhost:4318".to_owned(),
    });
    if !endpoint.contains("://") {
        endpoint = format!("http://{endpoint}");
    }
    if endpoint.starts_with("https://") {
        let help = "send it to a receiver of your own on loopback and forward it from there".to_owned();
        found.error(origin, "own telemetry cannot be sent over TLS yet", Some(help));
        return None;
    }
    // In the schema an endpoint without a path is a base; with one it is the whole address.
    if protocol != OtlpProtocol::Grpc && endpoint.splitn(4, '/').nth(3).is_none_or(str::is_empty) {
        endpoint = format!("{}/{path}", endpoint.trim_end_matches('/'));
    }
    let mut headers: BTreeMap<String, String> = match otlp.headers {
        Headers::List(list) => list.into_iter().map(|header| (header.name, header.value)).collect(),
        Headers::Map(map) => map,
    };
    for pair in otlp.headers_list.iter().flat_map(|list| list.split(',')) {
        if let Some((name, value)) = pair.split_once('=') {
            headers.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    let delta = otlp.temporality_preference.as_deref() == Some("delta");
    Some(OtlpTarget { protocol, endpoint, headers, timeout: Duration::from_millis(otlp.timeout.unwrap_or(10_000)), delta })
}

fn identity(node: &Node, found: &mut Diagnostics) -> Identity {
    let mut identity = Identity::default();
    let Some(resource) = node.get("resource") else { return identity };
    for (name, value) in entries(Some(resource)) {
        match name {
            "attributes" if matches!(value.value, Value::List(_)) => {
                let mut number = 0;
                while let Some(attribute) = item(Some(value), number) {
                    if let Some(name) = attribute.get("name").and_then(scalar) {
                        identity.set(&name, attribute.get("value").and_then(scalar));
                    }
                    number += 1;
                }
            }
            "attributes_list" => {
                let list = scalar(value).unwrap_or_default();
                for (name, value) in list.split(',').filter_map(|pair| pair.split_once('=')) {
                    identity.set(name.trim(), Some(value.trim().to_owned()));
                }
            }
            "schema_url" | "detection/development" | "detectors" => {
                let message = format!("service::telemetry::resource::{name} has no effect");
                found.ineffective(value.origin, message, "service.name, service.version and service.instance.id are set");
            }
            name => identity.set(name, scalar(value)),
        }
    }
    identity
}

// === walking a tree ===

/// The node at exactly this path.
fn at<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    path.split("::").try_fold(node, |node, key| node.get(key))
}

fn entries(node: Option<&Node>) -> impl Iterator<Item = (&str, &Node)> {
    let entries = match node.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().filter_map(|(name, value)| match &name.value {
        Value::String(name) => Some((&**name, value)),
        _ => None,
    })
}

fn item(node: Option<&Node>, number: usize) -> Option<&Node> {
    match &node?.value {
        Value::List(items) => items.get(number),
        _ => None,
    }
}

/// The text of a value that is not a list or map; `None` for null.
fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text) => Some(text.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}
