//! The keys of the Collector's `opensearch` exporter, for the same exporter under that name.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    build,
    config::{LifecycleSettings, lifecycle, mode, pattern, server, warn_of_shards},
    documents::Mode,
    names::{Pattern, Piece, java_date_format},
    settings::Settings,
};
use crate::{
    component::delivery,
    component::{BuildContext, Exporter, ExporterConfig, Stability},
    config::{ByteSize, Diagnostics, GoDuration, Node, Origin, Value, read, read2},
    runtime::BuildError,
    signal::Signal,
    transport::client::{Endpoint, HttpClientSettings},
};

/// `mapping`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mapping {
    /// `ss4o` (unwritten), `ecs`, `flatten_attributes`, `bodymap`; and `otel`, `none`, `raw`.
    mode: String,
    timestamp_field: String,
    unix_timestamp: bool,
    fields: Option<serde::de::IgnoredAny>,
    file: String,
    dedup: Option<bool>,
    dedot: Option<bool>,
    manage_index_template: Option<bool>,
    index_template_file: String,
    ism: Option<serde::de::IgnoredAny>,
}

/// Of the `http` block: its timeout, which is the exporter's.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpTimeout {
    timeout: Option<GoDuration>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    /// Read by itself: the HTTP client block.
    http: Option<serde::de::IgnoredAny>,
    timeout: Option<GoDuration>,
    retry_on_failure: delivery::Retry,
    sending_queue: Option<delivery::Queue>,
    /// `otel-logs-%{service.name}`: a name, or a pattern.
    logs_index: String,
    logs_index_fallback: String,
    logs_index_time_format: String,
    traces_index: String,
    traces_index_fallback: String,
    traces_index_time_format: String,
    metrics_index: String,
    metrics_index_fallback: String,
    metrics_index_time_format: String,
    dataset: String,
    namespace: String,
    /// `create` or `index`.
    bulk_action: String,
    pipeline: String,
    mapping: Mapping,
    // weir's own, as in `elasticsearch`.
    bulk_max_size: ByteSize,
    document_ids: bool,
    server: String,
    setup: String,
    lifecycle: LifecycleSettings,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            http: None,
            timeout: None,
            retry_on_failure: delivery::Retry::default(),
            sending_queue: None,
            logs_index: String::new(),
            logs_index_fallback: String::new(),
            logs_index_time_format: String::new(),
            traces_index: String::new(),
            traces_index_fallback: String::new(),
            traces_index_time_format: String::new(),
            metrics_index: String::new(),
            metrics_index_fallback: String::new(),
            metrics_index_time_format: String::new(),
            dataset: "default".to_owned(),
            namespace: "namespace".to_owned(),
            bulk_action: "create".to_owned(),
            pipeline: String::new(),
            mapping: Mapping::default(),
            bulk_max_size: ByteSize(5 << 20),
            document_ids: false,
            server: String::new(),
            setup: String::new(),
            lifecycle: LifecycleSettings::default(),
        }
    }
}

/// Longest time of one request where nothing is written: the Collector's 5 s are short for a bulk request.
const TIMEOUT: Duration = Duration::from_secs(90);
const MODES: [Mode; 6] = [Mode::Ss4o, Mode::Ecs, Mode::Bodymap, Mode::Otel, Mode::None, Mode::Raw];

/// The `opensearch` exporter.
pub struct Config(pub(super) Settings);

impl ExporterConfig for Config {
    const TYPE: &'static str = "opensearch";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let own: Own = read(node, found);
        let nothing = Node { value: Value::Null, ..node.clone() };
        let http = node.get("http").unwrap_or(&nothing);
        let (timeout, client): (HttpTimeout, HttpClientSettings) = read2(http, found);
        Self(own.settle(timeout.timeout, client, (node, http), found))
    }

    fn delivery(&self) -> delivery::Settings {
        self.0.delivery.clone()
    }

    fn splits_by_context(&self) -> bool {
        self.0.client.auth.get().is_some()
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        build(self.0, context)
    }
}

impl Own {
    fn settle(
        self,
        http_timeout: Option<GoDuration>,
        client: HttpClientSettings,
        (node, http): (&Node, &Node),
        found: &mut Diagnostics,
    ) -> Settings {
        let at = |key: &str| node.nearest(key).origin;
        client.check(http, found);
        self.retry_on_failure.check(node, found);
        self.sending_queue.iter().for_each(|queue| queue.check(node, found));
        if client.endpoint.is_empty() {
            let help = Some("add `http: {endpoint: https://<host>:9200}`".to_owned());
            found.error(at("http"), "no endpoint is set", help);
        } else if let Err(problem) = Endpoint::http(&client.endpoint) {
            found.error(at("http::endpoint"), problem, None);
        }
        self.tell_ineffective(node, found);
        let names = [
            ("traces_index", &self.traces_index, &self.traces_index_time_format),
            ("metrics_index", &self.metrics_index, &self.metrics_index_time_format),
            ("logs_index", &self.logs_index, &self.logs_index_time_format),
        ];
        let indices = names.map(|(key, name, format)| dated(name, format, at(key), found));
        let lifecycle = lifecycle(&self.lifecycle, node, found);
        warn_of_shards(&indices, lifecycle, node, found);
        let fallbacks = [&self.traces_index_fallback, &self.metrics_index_fallback, &self.logs_index_fallback];
        let action = match self.bulk_action.as_str() {
            "create" | "" => "create",
            "index" => "index",
            other => {
                found.error(at("bulk_action"), format!("`{other}` is no action"), Some("`create` or `index`".to_owned()));
                "create"
            }
        };
        let written = match self.mapping.mode.as_str() {
            "" => "ss4o",
            // The same fields; how they are nested makes no difference to an index.
            "flatten_attributes" => "ecs",
            "otel-v1" => {
                let help = Some("use ss4o, ecs, bodymap, otel, none or raw".to_owned());
                found.error(at("mapping::mode"), "weir does not write the schema of Data Prepper", help);
                "ss4o"
            }
            other => other,
        };
        let mode = mode(written, &MODES, at("mapping::mode"), found).unwrap_or(Mode::Ss4o);
        let is_ss4o = mode == Mode::Ss4o;
        Settings {
            endpoints: vec![client.endpoint.clone()],
            authorization: None,
            timeout: self.timeout.or(http_timeout).map_or(TIMEOUT, |timeout| timeout.0),
            delivery: delivery::Settings {
                timeout: None,
                retry: self.retry_on_failure.clone(),
                queue: self.sending_queue.clone(),
                request_bytes_max: 0,
                in_order: false,
            },
            mode: Some(mode),
            allowed: Vec::new(),
            indices,
            fallbacks: fallbacks.map(|fallback| if fallback.is_empty() { "unknown".to_owned() } else { fallback.clone() }),
            suffix: None,
            dataset: self.dataset.clone(),
            namespace: self.namespace.clone(),
            stream_prefix: if is_ss4o { "ss4o_" } else { "" },
            action,
            pipeline: self.pipeline.clone(),
            document_ids: self.document_ids,
            dynamic_id: false,
            dynamic_pipeline: false,
            bulk_bytes_max: usize::try_from(self.bulk_max_size.0.clamp(64 << 10, 100 << 20)).unwrap_or(5 << 20),
            retry_statuses: Vec::new(),
            include_source_on_error: None,
            server: server(&self.server, at("server"), found),
            setup_on_start: self.setup == "on_start",
            lifecycle,
            discover: false,
            discover_interval: None,
            client,
        }
    }

    fn tell_ineffective(&self, node: &Node, found: &mut Diagnostics) {
        let mapping = &self.mapping;
        let written = [
            ("timestamp_field", !mapping.timestamp_field.is_empty(), "the time is in `@timestamp`, which data streams need"),
            ("unix_timestamp", mapping.unix_timestamp, "times are texts with nanoseconds, which every date field reads"),
            ("fields", mapping.fields.is_some(), "attributes are renamed by an `attributes` or `transform` processor"),
            ("file", !mapping.file.is_empty(), "attributes are renamed by an `attributes` or `transform` processor"),
            ("dedup", mapping.dedup.is_some(), "no document has a key twice"),
            ("dedot", mapping.dedot.is_some(), "`ecs` documents are objects inside objects"),
            ("manage_index_template", mapping.manage_index_template.is_some(), "`setup: on_start` installs templates"),
            ("index_template_file", !mapping.index_template_file.is_empty(), "`setup: on_start` installs templates"),
            ("ism", mapping.ism.is_some(), "`lifecycle` and `setup: on_start` install a policy"),
        ];
        for (key, is_written, instead) in written {
            if is_written {
                let origin = node.nearest(&format!("mapping::{key}")).origin;
                found.ineffective(origin, format!("`mapping::{key}` has no effect"), instead);
            }
        }
    }
}

fn dated(name: &str, format: &str, origin: Origin, found: &mut Diagnostics) -> Option<Pattern> {
    let mut pattern = pattern(name, origin, found)?;
    if !format.is_empty() {
        match java_date_format(format) {
            Ok(date) => pattern.0.extend([Piece::Literal("-".to_owned()), Piece::Date(date)]),
            Err(problem) => found.error(origin, problem, None),
        }
    }
    Some(pattern)
}
