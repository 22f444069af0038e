//! The keys of the `elasticsearch` exporter, as the Collector spells them, and weir's own beside them.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{
    documents::Mode,
    facts::Facts,
    names::{DatePiece, Pattern, date_format},
    settings::{Lifecycle, Settings},
};
use crate::{
    component::delivery,
    config::{ByteSize, Diagnostics, Environment as _, GoDuration, Machine, Node, Origin, Secret, Section},
    signal::Signal,
    transport::client::{Endpoint, HttpClientSettings},
};

/// Where weir looks when no endpoint is written, as the Collector does.
const URL_VARIABLE: &str = "ELASTICSEARCH_URL";
const BULK_BYTES: u64 = 5 << 20;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Switch {
    enabled: bool,
}

/// `logstash_format`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogstashFormat {
    /// Put a date behind every name of an index.
    enabled: bool,
    prefix_separator: String,
    date_format: String,
}

impl Default for LogstashFormat {
    fn default() -> Self {
        Self { enabled: false, prefix_separator: "-".to_owned(), date_format: "%Y.%m.%d".to_owned() }
    }
}

/// `mapping`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mapping {
    /// otel, ecs, none, raw or bodymap. Unwritten: `otel` where the server has its templates (Elasticsearch 8.12 and later), else `ecs`.
    pub(super) mode: String,
    /// Those that `X-Elastic-Mapping-Mode` and the scope attribute `elastic.mapping.mode` may choose; unwritten: all.
    pub(super) allowed_modes: Vec<String>,
    pub(super) fields: Option<Section<serde::de::IgnoredAny>>,
    pub(super) file: String,
    pub(super) dedup: Option<bool>,
    pub(super) dedot: Option<bool>,
}

/// `retry`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the Collector's keys")]
pub(super) struct Retry {
    pub(super) enabled: bool,
    pub(super) max_requests: Option<u32>,
    pub(super) max_retries: Option<u32>,
    pub(super) initial_interval: GoDuration,
    pub(super) max_interval: GoDuration,
    /// Statuses of requests and documents that are tried again, beside 429 and 5xx, which always are.
    pub(super) retry_on_status: Vec<u16>,
}

impl Default for Retry {
    fn default() -> Self {
        let retry = delivery::Retry::default();
        Self {
            enabled: true,
            max_requests: None,
            max_retries: None,
            initial_interval: retry.initial_interval,
            max_interval: retry.max_interval,
            retry_on_status: Vec::new(),
        }
    }
}

/// `flush`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Flush {
    bytes: Option<u64>,
    interval: Option<GoDuration>,
}

/// `batcher`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Batcher {
    enabled: Option<bool>,
}

/// `discover`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Discover {
    /// Ask the first server for the addresses of the others. Wrong behind a load balancer.
    on_start: bool,
    /// And again after so long; 0: never.
    interval: GoDuration,
}

/// `telemetry`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the Collector's keys")]
pub(super) struct TelemetrySettings {
    log_request_body: Option<bool>,
    log_response_body: Option<bool>,
    log_failed_docs_input: Option<bool>,
    log_failed_docs_input_rate_limit: Option<GoDuration>,
}

/// `lifecycle`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LifecycleSettings {
    /// How long an index is written to: `30d`.
    pub(super) hot: String,
    /// How long it is in the warm tier after that.
    pub(super) warm: String,
    /// How long it is in the cold tier after that; then it is deleted. `0d`: it is kept.
    pub(super) cold: String,
}

/// The exporter's own keys; those of the HTTP client stand beside them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Own {
    endpoints: Vec<String>,
    cloudid: String,
    user: String,
    password: Secret,
    /// As Elasticsearch shows it under `encoded`.
    api_key: Secret,
    index: String,
    /// A name, or a pattern: `{service}-{signal}-%Y.%m.%d`.
    logs_index: String,
    metrics_index: String,
    traces_index: String,
    logs_dynamic_index: Option<Switch>,
    metrics_dynamic_index: Option<Switch>,
    traces_dynamic_index: Option<Switch>,
    /// The attribute `elasticsearch.document_id` is the id.
    logs_dynamic_id: Switch,
    traces_dynamic_id: Switch,
    /// The attribute `elasticsearch.ingest_pipeline` is the ingest pipeline.
    logs_dynamic_pipeline: Switch,
    logstash_format: LogstashFormat,
    mapping: Mapping,
    /// The ingest pipeline.
    pipeline: String,
    /// Longest time of one bulk request; 0 for none.
    timeout: GoDuration,
    retry: Retry,
    flush: Flush,
    num_workers: Option<u32>,
    batcher: Option<Batcher>,
    sending_queue: Option<delivery::Queue>,
    metadata_keys: Vec<String>,
    discover: Discover,
    include_source_on_error: Option<bool>,
    bulk_response_filter_path: Option<String>,
    suppress_conflict_errors: Option<bool>,
    telemetry: TelemetrySettings,
    // weir's own.
    /// Bytes of a bulk request before compression.
    bulk_max_size: ByteSize,
    /// Give every document an id that says where it stands in the journal, so that one that is sent again is not there twice.
    document_ids: bool,
    /// `opensearch 2.19`: what the server is, where it does not say so itself.
    server: String,
    /// `on_start`: install templates and lifecycle as `weir elasticsearch setup` does.
    setup: String,
    lifecycle: LifecycleSettings,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            cloudid: String::new(),
            user: String::new(),
            password: Secret::default(),
            api_key: Secret::default(),
            index: String::new(),
            logs_index: String::new(),
            metrics_index: String::new(),
            traces_index: String::new(),
            logs_dynamic_index: None,
            metrics_dynamic_index: None,
            traces_dynamic_index: None,
            logs_dynamic_id: Switch::default(),
            traces_dynamic_id: Switch::default(),
            logs_dynamic_pipeline: Switch::default(),
            logstash_format: LogstashFormat::default(),
            mapping: Mapping::default(),
            pipeline: String::new(),
            timeout: GoDuration(Duration::from_secs(90)),
            retry: Retry::default(),
            flush: Flush::default(),
            num_workers: None,
            batcher: None,
            sending_queue: None,
            metadata_keys: Vec::new(),
            discover: Discover::default(),
            include_source_on_error: None,
            bulk_response_filter_path: None,
            suppress_conflict_errors: None,
            telemetry: TelemetrySettings::default(),
            bulk_max_size: ByteSize(BULK_BYTES),
            document_ids: false,
            server: String::new(),
            setup: String::new(),
            lifecycle: LifecycleSettings::default(),
        }
    }
}

/// The modes that this exporter has.
const MODES: [Mode; 5] = [Mode::Otel, Mode::Ecs, Mode::None, Mode::Raw, Mode::Bodymap];

impl Own {
    /// Checks all of it; what is wrong goes to `found`, and something that works stands in for it.
    pub(super) fn settle(self, client: HttpClientSettings, node: &Node, found: &mut Diagnostics) -> Settings {
        let at = |key: &str| node.nearest(key).origin;
        client.check(node, found);
        self.sending_queue.iter().for_each(|queue| queue.check(node, found));
        self.tell_ineffective(node, found);
        let endpoints = self.endpoints(&client, node, found);
        if let Some(written) = &client.compression
            && !matches!(written.as_str(), "" | "none" | "gzip")
        {
            let remedy = Some("gzip or none: Elasticsearch and OpenSearch read no other request bodies".to_owned());
            found.error(at("compression"), format!("`{written}` is not a compression of bulk requests"), remedy);
        }
        let mut indices: [Option<Pattern>; Signal::ALL.len()] = std::array::from_fn(|_| None);
        let written =
            [("traces_index", &self.traces_index), ("metrics_index", &self.metrics_index), ("logs_index", &self.logs_index)];
        for (place, (key, name)) in indices.iter_mut().zip(written) {
            let (key, name) = if key == "logs_index" && name.is_empty() { ("index", &self.index) } else { (key, name) };
            *place = pattern(name, at(key), found);
        }
        let lifecycle = lifecycle(&self.lifecycle, node, found);
        warn_of_shards(&indices, lifecycle, node, found);
        let suffix = suffix(&self.logstash_format, at("logstash_format"), found);
        let mode = mode(&self.mapping.mode, &MODES, at("mapping::mode"), found);
        let allowed = allowed(&self.mapping.allowed_modes, at("mapping::allowed_modes"), found);
        let server = server(&self.server, at("server"), found);
        if !matches!(self.setup.as_str(), "" | "never" | "on_start") {
            let help = Some("`on_start`, or leave it out and run `weir elasticsearch setup`".to_owned());
            found.error(at("setup"), format!("`{}` is no time for the setup", self.setup), help);
        }
        if !(64 << 10..=100 << 20).contains(&self.bulk_max_size.0) {
            let help = Some("5MiB is usual; servers refuse more than 100MiB".to_owned());
            found.error(at("bulk_max_size"), "`bulk_max_size` is from 64KiB to 100MiB", help);
        }
        let bulk_bytes = self.flush.bytes.filter(|bytes| *bytes > 0).unwrap_or(self.bulk_max_size.0);
        Settings {
            endpoints,
            authorization: self.authorization(&client, node, found),
            timeout: self.timeout.0,
            delivery: self.delivery(),
            mode,
            allowed,
            indices,
            fallbacks: std::array::from_fn(|_| "unknown".to_owned()),
            suffix,
            dataset: "generic".to_owned(),
            namespace: "default".to_owned(),
            stream_prefix: "",
            action: "create",
            pipeline: self.pipeline.clone(),
            document_ids: self.document_ids,
            dynamic_id: self.logs_dynamic_id.enabled || self.traces_dynamic_id.enabled,
            dynamic_pipeline: self.logs_dynamic_pipeline.enabled,
            bulk_bytes_max: usize::try_from(bulk_bytes.clamp(64 << 10, 100 << 20)).unwrap_or(5 << 20),
            retry_statuses: self.retry.retry_on_status.clone(),
            include_source_on_error: self.include_source_on_error,
            server,
            setup_on_start: self.setup == "on_start",
            lifecycle,
            discover: self.discover.on_start || !self.discover.interval.0.is_zero(),
            discover_interval: Some(self.discover.interval.0).filter(|interval| !interval.is_zero()),
            client,
        }
    }

    fn endpoints(&self, client: &HttpClientSettings, node: &Node, found: &mut Diagnostics) -> Vec<String> {
        let at = |key: &str| node.nearest(key).origin;
        let mut written: Vec<(&str, String)> = Vec::new();
        if !client.endpoint.is_empty() {
            written.push(("endpoint", client.endpoint.clone()));
        }
        if !self.endpoints.is_empty() {
            written.extend(self.endpoints.iter().map(|url| ("endpoints", url.clone())));
        }
        if !self.cloudid.is_empty() {
            match cloud_url(&self.cloudid) {
                Some(url) => written.push(("cloudid", url)),
                None => found.error(
                    at("cloudid"),
                    "this is no cloud id",
                    Some("it is shown as `name:…` where the deployment is managed".to_owned()),
                ),
            }
        }
        let kinds: std::collections::BTreeSet<&str> = written.iter().map(|(key, _)| *key).collect();
        if kinds.len() > 1 {
            let kinds: Vec<&str> = kinds.into_iter().collect();
            let help = Some("leave all but one of them out".to_owned());
            found.error(node.origin, format!("`{}` are set: only one of them says where to send", kinds.join("` and `")), help);
        }
        if written.is_empty() && self.cloudid.is_empty() {
            match Machine.variable(URL_VARIABLE).filter(|urls| !urls.trim().is_empty()) {
                Some(urls) => written.extend(urls.split(',').map(|url| ("endpoint", url.trim().to_owned()))),
                None => found.error(
                    at("endpoint"),
                    "no endpoint is set",
                    Some(format!("add `endpoint: https://<host>:9200`, `endpoints`, `cloudid`, or the variable {URL_VARIABLE}")),
                ),
            }
        }
        for (key, url) in &written {
            if let Err(problem) = Endpoint::http(url) {
                found.error(at(key), problem, None);
            }
        }
        written.into_iter().map(|(_, url)| url).collect()
    }

    fn authorization(&self, client: &HttpClientSettings, node: &Node, found: &mut Diagnostics) -> Option<Secret> {
        let at = |key: &str| node.nearest(key).origin;
        let basic = !self.user.is_empty() || !self.password.expose().is_empty();
        let key = !self.api_key.expose().is_empty();
        if usize::from(basic) + usize::from(key) + usize::from(client.auth.get().is_some()) > 1 {
            let help = Some("keep one of `user` with `password`, `api_key` and `auth`".to_owned());
            found.error(at(if key { "api_key" } else { "user" }), "two kinds of credentials are set", help);
        }
        if basic && self.user.is_empty() {
            found.error(at("password"), "there is a `password` and no `user`", Some("add `user`".to_owned()));
        }
        if key {
            return Some(Secret::new(format!("ApiKey {}", self.api_key.expose())));
        }
        basic.then(|| {
            let pair = format!("{}:{}", self.user, self.password.expose());
            Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair)))
        })
    }

    /// Legacy keys count where the newer ones are not written.
    fn delivery(&self) -> delivery::Settings {
        let mut queue = self.sending_queue.clone();
        if let Some(workers) = self.num_workers.filter(|workers| *workers > 0) {
            queue.get_or_insert_default().num_consumers.get_or_insert(workers);
        }
        delivery::Settings {
            // A bulk request is timed by itself: what others of the same attempt came to is kept.
            timeout: None,
            retry: delivery::Retry {
                enabled: self.retry.enabled,
                initial_interval: self.retry.initial_interval,
                max_interval: self.retry.max_interval,
                ..delivery::Retry::default()
            },
            queue,
            request_bytes_max: 0,
            in_order: false,
        }
    }

    fn tell_ineffective(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.nearest(key).origin;
        let mut tell = |written: bool, key: &str, message: &str, instead: &str| {
            if written {
                found.ineffective(at(key), message, instead);
            }
        };
        let unbounded = "what fails is tried again until it is taken or expires; nothing is dropped after a number of attempts";
        tell(self.retry.max_retries.is_some(), "retry::max_retries", "`max_retries` has no effect", unbounded);
        tell(self.retry.max_requests.is_some(), "retry::max_requests", "`max_requests` has no effect", unbounded);
        for (key, written) in [
            ("logs_dynamic_index", &self.logs_dynamic_index),
            ("metrics_dynamic_index", &self.metrics_dynamic_index),
            ("traces_dynamic_index", &self.traces_dynamic_index),
        ] {
            let message = format!("`{key}` has no effect, as in the Collector since 0.122");
            tell(written.is_some(), key, &message, "the data decides where no index is set");
        }
        tell(
            self.flush.interval.is_some(),
            "flush::interval",
            "`flush::interval` has no effect",
            "requests are sent as soon as nothing is under way, and larger ones while something is; `sending_queue::batch` changes that",
        );
        let instead = "documents of one request may go to any index, and requests are made by size";
        tell(self.batcher.is_some(), "batcher", "`batcher` has no effect", instead);
        tell(!self.metadata_keys.is_empty(), "metadata_keys", "`metadata_keys` have no effect", instead);
        let mapping = &self.mapping;
        tell(
            mapping.dedup.is_some() || mapping.dedot.is_some(),
            if mapping.dedup.is_some() { "mapping::dedup" } else { "mapping::dedot" },
            "`dedup` and `dedot` have no effect",
            "no document has a key twice, and `ecs` documents are objects inside objects",
        );
        tell(
            mapping.fields.is_some() || !mapping.file.is_empty(),
            if mapping.fields.is_some() { "mapping::fields" } else { "mapping::file" },
            "`fields` and `file` have no effect, as in the Collector",
            "attributes are renamed by an `attributes` or `transform` processor",
        );
        tell(
            self.bulk_response_filter_path.is_some(),
            "bulk_response_filter_path",
            "`bulk_response_filter_path` has no effect",
            "weir asks for what it reads of an answer, and reads nothing else",
        );
        tell(
            self.suppress_conflict_errors.is_some(),
            "suppress_conflict_errors",
            "`suppress_conflict_errors` has no effect",
            "a document that is there already is delivered, and counted `weir_elasticsearch_duplicates`",
        );
        let telemetry = &self.telemetry;
        tell(
            telemetry.log_request_body.is_some()
                || telemetry.log_response_body.is_some()
                || telemetry.log_failed_docs_input.is_some()
                || telemetry.log_failed_docs_input_rate_limit.is_some(),
            "telemetry",
            "`telemetry` has no effect",
            "`weir tap` shows what is sent, `weir journal letters` what was refused and why",
        );
    }
}

/// Reads a name or a pattern; nothing for an empty one.
pub(super) fn pattern(name: &str, origin: Origin, found: &mut Diagnostics) -> Option<Pattern> {
    if name.is_empty() {
        return None;
    }
    Pattern::parse(name).inspect_err(|problem| found.error(origin, problem.clone(), None)).ok()
}

fn suffix(format: &LogstashFormat, origin: Origin, found: &mut Diagnostics) -> Option<(String, Vec<DatePiece>)> {
    if !format.enabled {
        return None;
    }
    if format.prefix_separator.chars().any(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))) {
        found.error(origin, format!("`{}` cannot stand in the name of an index", format.prefix_separator), None);
    }
    let date = date_format(&format.date_format).inspect_err(|problem| found.error(origin, problem.clone(), None)).ok()?;
    Some((format.prefix_separator.clone(), date))
}

pub(super) fn mode(text: &str, known: &[Mode], origin: Origin, found: &mut Diagnostics) -> Option<Mode> {
    if text.is_empty() {
        return None;
    }
    let mode = Mode::parse(text).filter(|mode| known.contains(mode));
    if mode.is_none() {
        let names: Vec<&str> = known.iter().map(|mode| mode.as_str()).collect();
        found.error(origin, format!("`{text}` is no mapping that weir has"), Some(format!("use {}", names.join(", "))));
    }
    mode
}

fn allowed(written: &[String], origin: Origin, found: &mut Diagnostics) -> Vec<Mode> {
    if written.is_empty() {
        return MODES.to_vec();
    }
    written.iter().filter_map(|text| mode(text, &MODES, origin, found)).collect()
}

pub(super) fn server(text: &str, origin: Origin, found: &mut Diagnostics) -> Option<Facts> {
    if text.is_empty() {
        return None;
    }
    let facts = Facts::parse(text);
    match facts {
        None => found.error(
            origin,
            format!("`{text}` is no server that weir knows"),
            Some("write `elasticsearch 8.15` or `opensearch 2.19`".to_owned()),
        ),
        Some(facts) => {
            if let Some(problem) = facts.too_old() {
                found.error(origin, problem, None);
            }
        }
    }
    facts
}

/// Days of `30d`, `1y` or a Go duration.
fn days(text: &str) -> Option<u32> {
    let number = |text: &str| text.parse::<u32>().ok();
    if let Some(days) = text.strip_suffix('d') {
        return number(days);
    }
    if let Some(years) = text.strip_suffix('y') {
        return number(years)?.checked_mul(365);
    }
    u32::try_from(GoDuration::parse(text)?.as_secs().div_ceil(86_400)).ok()
}

pub(super) fn lifecycle(written: &LifecycleSettings, node: &Node, found: &mut Diagnostics) -> Lifecycle {
    let mut lifecycle = Lifecycle::default();
    let parts = [
        ("lifecycle::hot", &written.hot, &mut lifecycle.hot),
        ("lifecycle::warm", &written.warm, &mut lifecycle.warm),
        ("lifecycle::cold", &written.cold, &mut lifecycle.cold),
    ];
    for (key, text, place) in parts {
        if text.is_empty() {
            continue;
        }
        match days(text) {
            Some(days) => *place = days,
            None => found.error(node.nearest(key).origin, format!("`{text}` is no age"), Some("write `30d` or `1y`".to_owned())),
        }
    }
    if lifecycle.hot == 0 {
        found.error(node.nearest("lifecycle::hot").origin, "an index is written to for a day at least", Some("30d".to_owned()));
        lifecycle.hot = 30;
    }
    lifecycle
}

/// Services of which the forecast speaks.
const SERVICES: u64 = 50;

/// Says how many shards come of an index a day.
pub(super) fn warn_of_shards(indices: &[Option<Pattern>], lifecycle: Lifecycle, node: &Node, found: &mut Diagnostics) {
    let keys = ["traces_index", "metrics_index", "logs_index"];
    let days = u64::from(lifecycle.hot) + u64::from(lifecycle.warm) + u64::from(lifecycle.cold);
    let mut signals = 0;
    let mut first = None;
    for (key, pattern) in keys.iter().zip(indices) {
        if pattern.as_ref().is_some_and(|pattern| pattern.is_dated() && pattern.is_by_service()) {
            signals += 1;
            first.get_or_insert(*key);
        }
    }
    let Some(key) = first else { return };
    // A primary and a replica.
    let shards = SERVICES * signals * days * 2;
    let message = format!(
        "an index a service and day: {SERVICES} services are {} shards a day (with a replica each), {shards} after the {days} days that `lifecycle` keeps them; a node takes 1000",
        SERVICES * signals * 2
    );
    let help = "data streams (no index set) grow to 50 GB before they roll over; or a monthly pattern (%Y.%m), a shorter `lifecycle`, no replicas".to_owned();
    found.warning(node.nearest(key).origin, message, Some(help));
}

/// `name:base64(host[:port]$elasticsearch$kibana)` → a URL.
fn cloud_url(cloud_id: &str) -> Option<String> {
    let (_, encoded) = cloud_id.rsplit_once(':')?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let mut parts = decoded.split('$');
    let (host, id) = (parts.next()?, parts.next().filter(|id| !id.is_empty())?);
    let (host, port) = host.split_once(':').unwrap_or((host, "443"));
    (!host.is_empty()).then(|| format!("https://{id}.{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_id_is_a_url() {
        let id = format!("my:{}", BASE64_STANDARD.encode("eu-west-1.aws.found.io$abc123$def"));
        assert_eq!(cloud_url(&id).as_deref(), Some("https://abc123.eu-west-1.aws.found.io:443"));
        let id = format!("my:{}", BASE64_STANDARD.encode("host.example:9243$es$"));
        assert_eq!(cloud_url(&id).as_deref(), Some("https://es.host.example:9243"));
        assert_eq!(cloud_url("nothing"), None);
    }

    #[test]
    fn ages_are_days() {
        assert_eq!(["30d", "1y", "36h", "0d"].map(days), [Some(30), Some(365), Some(2), Some(0)]);
        assert_eq!(days("soon"), None);
    }
}
