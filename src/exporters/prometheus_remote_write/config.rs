//! The keys of the exporter, as the Collector spells them.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{Settings, encode::Version};
use crate::{
    component::delivery,
    config::{Diagnostics, GoDuration, Node, Section, read},
    exposition::translation::{Conversion, ResourceLabels, Strategy},
    transport::client::{Endpoint, HttpClientSettings},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Switch {
    enabled: bool,
}

impl Default for Switch {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `remote_write_queue`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RemoteWriteQueue {
    enabled: bool,
    /// How far the exporter may fall behind, in requests as they came in. Written: the oldest beyond it are dropped, counted `dropped{lag}`.
    queue_size: Option<u64>,
    /// Requests under way at once, none of which has a series in common with another.
    num_consumers: usize,
}

impl Default for RemoteWriteQueue {
    fn default() -> Self {
        Self { enabled: true, queue_size: None, num_consumers: LANES }
    }
}

const LANES: usize = 5;
/// More would be more connections than a Prometheus likes of one sender.
const LANES_MAX: usize = 256;

/// The exporter's own keys; those of the HTTP client stand beside them, or in `http`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Own {
    /// Longest time of one request; 0 for none.
    timeout: GoDuration,
    retry_on_failure: delivery::Retry,
    remote_write_queue: RemoteWriteQueue,
    /// Put in front of every metric's name, with an underscore.
    namespace: String,
    /// Labels that a series gets where it does not have them.
    external_labels: BTreeMap<String, String>,
    add_metric_suffixes: bool,
    translation_strategy: Option<Strategy>,
    /// Says in version 1 what each metric is; version 2 does always.
    send_metadata: bool,
    resource_to_telemetry_conversion: Conversion,
    target_info: Switch,
    disable_scope_info: bool,
    /// Bytes of a request before compression.
    max_batch_size_bytes: usize,
    /// Instead of `remote_write_queue::num_consumers`.
    max_batch_request_parallelism: Option<usize>,
    protobuf_message: String,
    http: Option<serde::de::IgnoredAny>,
    wal: Option<serde::de::IgnoredAny>,
    export_created_metric: Option<Section<serde::de::IgnoredAny>>,
    scope_info: Option<Section<serde::de::IgnoredAny>>,
    sending_queue: Option<serde::de::IgnoredAny>,
    // weir's own, as in the `prometheus` exporter.
    /// Which resource attributes become labels of every series.
    resource_constant_labels: ResourceLabels,
    /// Where a resource sets no `service.instance.id`, `instance` is something else that tells replicas apart.
    instance_fallback: bool,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            timeout: GoDuration(Duration::from_secs(5)),
            retry_on_failure: delivery::Retry::default(),
            remote_write_queue: RemoteWriteQueue::default(),
            namespace: String::new(),
            external_labels: BTreeMap::new(),
            add_metric_suffixes: true,
            translation_strategy: None,
            send_metadata: false,
            resource_to_telemetry_conversion: Conversion::default(),
            target_info: Switch::default(),
            disable_scope_info: false,
            max_batch_size_bytes: 3_000_000,
            max_batch_request_parallelism: None,
            protobuf_message: String::new(),
            http: None,
            wal: None,
            export_created_metric: None,
            scope_info: None,
            sending_queue: None,
            resource_constant_labels: ResourceLabels::default(),
            instance_fallback: true,
        }
    }
}

impl Own {
    /// Checks all of it; what is wrong goes to `found`, and something that works stands in for it.
    pub(super) fn settle(self, beside: HttpClientSettings, node: &Node, found: &mut Diagnostics) -> Settings {
        let at = |key: &str| node.nearest(key).origin;
        let (client, client_node) = match node.get("http") {
            Some(http) => (read::<HttpClientSettings>(http, found), http),
            None => (beside, node),
        };
        client.check(client_node, found);
        let endpoint = client_node.get("endpoint").map_or(client_node.origin, |endpoint| endpoint.origin);
        if client.endpoint.is_empty() {
            let help = "for example `endpoint: http://prometheus:9090/api/v1/write`".to_owned();
            found.error(endpoint, "`endpoint` says where to write, and is missing", Some(help));
        } else if let Err(problem) = Endpoint::http(&client.endpoint) {
            found.error(endpoint, problem, None);
        } else if Endpoint::http(&client.endpoint).is_ok_and(|endpoint| endpoint.path.trim_matches('/').is_empty()) {
            let help = "Prometheus takes it at `/api/v1/write`".to_owned();
            found.warning(endpoint, "`endpoint` has no path, and remote write is not served at the root", Some(help));
        }
        if client.compression.as_deref().is_some_and(|written| written != "snappy") {
            let origin = client_node.nearest("compression").origin;
            found.ineffective(origin, "remote write has one compression", "requests are snappy");
        }
        self.retry_on_failure.check(node, found);
        self.check_queue(node, found);
        self.tell_ineffective(node, found);
        if !(1 << 10..=100 << 20).contains(&self.max_batch_size_bytes) {
            let help = Some("3000000 is usual".to_owned());
            found.error(at("max_batch_size_bytes"), "`max_batch_size_bytes` is from 1 KiB to 100 MiB", help);
        }
        let version = match self.protobuf_message.as_str() {
            "" | "prometheus.WriteRequest" | "v1" => Version::One,
            "io.prometheus.write.v2.Request" | "v2" => Version::Two,
            other => {
                let help = Some("use `prometheus.WriteRequest` (1.0) or `io.prometheus.write.v2.Request` (2.0)".to_owned());
                found.error(at("protobuf_message"), format!("`{other}` is no message of remote write"), help);
                Version::One
            }
        };
        if !self.add_metric_suffixes && self.translation_strategy.is_some() {
            let message = "`add_metric_suffixes` is older than `translation_strategy`";
            found.ineffective(at("add_metric_suffixes"), message, "`translation_strategy` decides");
        }
        let strategy = self.translation_strategy.unwrap_or(if self.add_metric_suffixes {
            Strategy::UnderscoreEscapingWithSuffixes
        } else {
            Strategy::UnderscoreEscapingWithoutSuffixes
        });
        for name in self.external_labels.keys() {
            let label = strategy.label_name(name);
            if matches!(&*label, "" | "__name__" | "le" | "quantile") {
                let help = "metrics' names, and the series of histograms and summaries, are told apart by it".to_owned();
                found.error(at("external_labels"), format!("`{name}` is no label to choose freely"), Some(help));
            }
        }
        let lanes = self.max_batch_request_parallelism.unwrap_or(self.remote_write_queue.num_consumers);
        Settings {
            delivery: self.delivery(),
            strategy,
            namespace: self.namespace,
            external_labels: self
                .external_labels
                .into_iter()
                .map(|(name, value)| (strategy.label_name(&name).into_owned(), value))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            conversion: self.resource_to_telemetry_conversion,
            resource_labels: self.resource_constant_labels,
            instance_fallback: self.instance_fallback,
            target_info: self.target_info.enabled,
            without_scope_info: self.disable_scope_info,
            send_metadata: self.send_metadata,
            version,
            bytes_max: self.max_batch_size_bytes.clamp(1 << 10, 100 << 20),
            lanes: lanes.clamp(1, LANES_MAX),
            timeout: self.timeout.0,
            client,
        }
    }

    fn delivery(&self) -> delivery::Settings {
        let queue = &self.remote_write_queue;
        delivery::Settings {
            // Each request is timed by itself: what others of the same attempt came to is kept.
            timeout: None,
            retry: self.retry_on_failure.clone(),
            queue: Some(delivery::Queue { enabled: queue.enabled, queue_size: queue.queue_size, ..delivery::Queue::default() }),
            request_bytes_max: 0,
            in_order: true,
        }
    }

    fn check_queue(&self, node: &Node, found: &mut Diagnostics) {
        let queue = &self.remote_write_queue;
        let at = |key: &str| node.nearest("remote_write_queue").nearest(key).origin;
        if queue.enabled && queue.queue_size == Some(0) {
            let help = "leave it out for weir's own bound, or switch the queue off: `remote_write_queue: {enabled: false}`";
            found.error(at("queue_size"), "a queue of size 0 takes nothing", Some(help.to_owned()));
        }
        let help = || Some(format!("leave it out for {LANES}, or write a number up to {LANES_MAX}"));
        if !(1..=LANES_MAX).contains(&queue.num_consumers) {
            found.error(at("num_consumers"), format!("{} requests at once cannot be", queue.num_consumers), help());
        }
        if let Some(lanes) = self.max_batch_request_parallelism.filter(|lanes| !(1..=LANES_MAX).contains(lanes)) {
            let origin = node.nearest("max_batch_request_parallelism").origin;
            found.error(origin, format!("{lanes} requests at once cannot be"), help());
        }
    }

    fn tell_ineffective(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.nearest(key).origin;
        if self.wal.is_some() {
            let instead =
                "what waits to be sent lies in weir's journal, and outlives the process unless `journal::mode` is `memory`";
            found.ineffective(at("wal"), "`wal` makes no difference", instead);
        }
        if self.sending_queue.is_some() {
            let instead = "`remote_write_queue` says how far it may fall behind and how many requests are under way";
            found.ineffective(at("sending_queue"), "remote write has a queue of its own", instead);
        }
        if self.export_created_metric.is_some() {
            let instead = "version 2 sends start times beside the samples; version 1 has no place for them";
            found.ineffective(at("export_created_metric"), "weir writes no `_created` series", instead);
        }
        if self.scope_info.is_some() {
            let instead = "scopes are labels of each series (`otel_scope_name`, …), unless `disable_scope_info` is set";
            found.ineffective(at("scope_info"), "weir writes no `otel_scope_info`", instead);
        }
    }
}
