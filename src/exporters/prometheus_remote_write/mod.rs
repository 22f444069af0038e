//! Writes metrics to Prometheus, Mimir, Thanos and whoever else takes remote write.
//!
//! In:   metrics of every kind, from one consumer in the order of the journal.
//! Out:  POSTs of remote write 1.0 or 2.0, snappy, each of at most `max_batch_size_bytes`; `remote_write_queue::num_consumers` at once, none
//!       of which has a series in common with another.
//! Full: `delivery` bounds what is in flight; one request is under way, and what has to wait keeps its place, so that samples of a series never
//!       overtake each other.
//! Lost: delta points and others that Prometheus has no form for: dropped (`unsupported`), counted by reason and said. What a server refuses
//!       (out of order, too old, a second value for one time) is a dead letter with its words; its neighbours are written.
//!       A good sample can be among them: where a part of its request was stored already and it is sent again while the bad ones are searched,
//!       or where it met a 500, a later sample of its series was taken meanwhile, and it comes too late.
//!
//! ```yaml
//! exporters:
//!   prometheus_remote_write:
//!     endpoint: http://prometheus:9090/api/v1/write
//!     external_labels: { cluster: eu-1 }
//!     protobuf_message: io.prometheus.write.v2.Request   # unwritten: 1.0
//!     resource_constant_labels: { included: ["k8s.*"] }
//! ```
//!
//! Names and labels are those of the `prometheus` exporter, by the same code; `resource_constant_labels` and `instance_fallback` are weir's
//! own keys in both. Where the Collector's keys are unwritten, retries go on until the data expires by policy (the Collector: five minutes).
//!
//! Spec: Prometheus Remote-Write 1.0 and 2.0; OpenTelemetry "Prometheus and OpenMetrics compatibility".

mod answer;
mod config;
mod encode;
mod send;
mod series;
#[cfg(test)]
mod tests;
mod translate;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, Uri,
    header::{self, HeaderValue},
};
use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::{info, warn};

use self::{
    encode::Version,
    series::{Family, Point},
    translate::{Lost, Translated, info_point, translate},
};
use crate::{
    component::delivery,
    component::{BuildContext, ClientAuth, Exporter, ExporterConfig, Outcome, Request, Stability},
    config::{Diagnostics, Node, read2, shown_url},
    exposition::{
        FamilyKind,
        translation::{Conversion, Promotion, ResourceLabels, Strategy},
    },
    internal_telemetry::{REMOTE_WRITE_LEFT_OUT, REMOTE_WRITE_POINTS},
    runtime::{BuildError, Clock, both},
    signal::{ContextNeeds, Signal},
    transport::client::{Connector, Endpoint, HttpClientSettings, ProxyRules, http::Client, outcome, user_agent},
};

/// Requests above this are translated on the blocking pool.
const INLINE_MAX: usize = 32 * 1024;
/// `target_info` is said again after so long, in milliseconds of the data's time: Prometheus forgets a series after five minutes.
const INFO_EVERY: i64 = 60_000;
/// Targets whose last `target_info` is remembered.
const INFOS_MAX: usize = 100_000;
/// Metrics whose points without a form were named in the log.
const SAID_MAX: usize = 1024;
/// No server's limit is below this.
const BYTES_MIN: usize = 16 << 10;

/// What the exporter was told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    client: HttpClientSettings,
    delivery: delivery::Settings,
    timeout: Duration,
    strategy: Strategy,
    namespace: String,
    external_labels: Vec<(String, String)>,
    resource_labels: ResourceLabels,
    conversion: Conversion,
    instance_fallback: bool,
    target_info: bool,
    without_scope_info: bool,
    send_metadata: bool,
    version: Version,
    /// Of a request before compression.
    bytes_max: usize,
    /// Requests at once.
    lanes: usize,
}

impl Settings {
    fn promotion(&self) -> Promotion<'_> {
        Promotion { labels: &self.resource_labels, conversion: self.conversion, instance_fallback: self.instance_fallback }
    }
}

/// The `prometheus_remote_write` exporter.
pub struct Config(Settings);

impl ExporterConfig for Config {
    const TYPE: &'static str = "prometheus_remote_write";
    const ALIASES: &'static [&'static str] = &["prometheusremotewrite"];
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (own, client): (config::Own, HttpClientSettings) = read2(node, found);
        Self(own.settle(client, node, found))
    }

    fn delivery(&self) -> delivery::Settings {
        self.0.delivery.clone()
    }

    fn needs(&self) -> ContextNeeds {
        ContextNeeds { peer: self.0.instance_fallback, ..ContextNeeds::default() }
    }

    fn splits_by_context(&self) -> bool {
        self.0.client.auth.get().is_some()
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        let environment = ProxyRules::from_env(&context.notes);
        Ok(Arc::new(RemoteWrite(Arc::new(Shared::new(self.0, &context, &environment)?))))
    }
}

/// Points by what became of them.
struct Counts {
    taken: IntCounter,
    again: IntCounter,
    refused: IntCounter,
    left_out: [IntCounter; Lost::ALL.len()],
}

struct Shared {
    id: String,
    settings: Settings,
    client: Client,
    uri: Uri,
    headers: HeaderMap,
    auth: Option<Arc<dyn ClientAuth>>,
    clock: Clock,
    reader: outcome::Reader,
    /// The server was seen not to speak version 2.
    speaks_one: AtomicBool,
    /// What the server was seen to take.
    bytes_max: AtomicUsize,
    info: Arc<Family>,
    /// The time of the last `target_info`, by its point's key.
    infos: Mutex<HashMap<u64, i64>>,
    said: Mutex<HashSet<(Lost, String)>>,
    counts: Counts,
}

struct RemoteWrite(Arc<Shared>);

impl Shared {
    fn new(settings: Settings, context: &BuildContext, environment: &ProxyRules) -> Result<Self, BuildError> {
        let client = &settings.client;
        let auth = client.auth.get().map(|auth| context.extensions.client_auth(&auth.authenticator)).transpose();
        let (built, auth) = both(connect(client, environment), auth)?;
        let (connector, uri, headers) = built;
        let id = context.id.as_str();
        let points = |outcome| {
            let help = "Data points that were sent by remote write, by what the server said of them.";
            context.telemetry.counter(REMOTE_WRITE_POINTS, help, &[("exporter", id), ("outcome", outcome)])
        };
        let left_out = |reason: Lost| {
            let help = "Data points that remote write has no form for.";
            context.telemetry.counter(REMOTE_WRITE_LEFT_OUT, help, &[("exporter", id), ("reason", reason.as_str())])
        };
        let (name, _) = settings.strategy.metric_name(&settings.namespace, "target_info", "", FamilyKind::Info, false);
        Ok(Self {
            id: id.to_owned(),
            client: Client::new(connector, client.keeping()),
            uri,
            headers,
            clock: context.clock.clone(),
            reader: outcome::Reader {
                retry_after_max: settings.delivery.retry.max_interval.0,
                credentials_of_context: auth.as_ref().is_some_and(|auth| auth.reads_context()),
            },
            auth,
            speaks_one: AtomicBool::new(settings.version == Version::One),
            bytes_max: AtomicUsize::new(settings.bytes_max),
            info: Arc::new(Family { name, kind: FamilyKind::Info, help: "Target metadata".to_owned(), unit: String::new() }),
            infos: Mutex::default(),
            said: Mutex::default(),
            counts: Counts {
                taken: points("taken"),
                again: points("again"),
                refused: points("refused"),
                left_out: Lost::ALL.map(left_out),
            },
            settings,
        })
    }

    fn version(&self) -> Version {
        if self.speaks_one.load(Ordering::Relaxed) { Version::One } else { Version::Two }
    }

    /// From now on, for as long as this process lives.
    fn speak_one(&self, reason: &str) {
        if !self.speaks_one.swap(true, Ordering::Relaxed) {
            let exporter = &self.id;
            warn!(exporter, reason, "the server does not speak remote write 2.0: it gets 1.0 from now on");
        }
    }

    /// Points of one lane as requests.
    fn pieces(&self, points: Vec<Point>) -> VecDeque<Vec<Point>> {
        let most = self.bytes_max.load(Ordering::Relaxed);
        let mut pieces: VecDeque<Vec<Point>> = VecDeque::new();
        let mut bytes = 0;
        for point in points {
            bytes += point.bytes;
            match pieces.back_mut() {
                Some(piece) if bytes <= most => piece.push(point),
                _ => {
                    bytes = point.bytes;
                    pieces.push_back(vec![point]);
                }
            }
        }
        pieces
    }

    /// The server refused a request of so many bytes for its size.
    fn takes_no_more_than(&self, bytes: usize) {
        let smaller = (bytes / 2).max(BYTES_MIN);
        if self.bytes_max.fetch_min(smaller, Ordering::Relaxed) > smaller {
            let exporter = &self.id;
            info!(exporter, bytes = smaller, "the server takes no request as large as that: smaller ones are made from now on");
        }
    }

    /// These `target_info`s are written.
    fn told<'a>(&self, points: impl Iterator<Item = &'a Point>) {
        let mut infos = self.infos.lock();
        for point in points {
            if infos.len() >= INFOS_MAX {
                // One that is said once more is written once more, and changes nothing.
                infos.clear();
            }
            infos.insert(point.key, point.time);
        }
    }

    fn report(&self, translated: &Translated) {
        for lost in &translated.lost {
            if let Some(counter) = self.counts.left_out.get(lost.reason as usize) {
                counter.inc_by(lost.count);
            }
            let mut said = self.said.lock();
            if said.len() < SAID_MAX && said.insert((lost.reason, lost.metric.clone())) {
                let (exporter, metric, service, reason) = (&self.id, &lost.metric, &lost.service, lost.reason.as_str());
                let help = match lost.reason {
                    Lost::Delta => {
                        "; let the senders use cumulative temporality (OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE)"
                    }
                    _ => "",
                };
                warn!(
                    exporter,
                    metric,
                    service,
                    reason,
                    "data points left out, remote write has no form for them; further ones of this metric are only counted{help}"
                );
            }
        }
    }

    async fn attempt(self: Arc<Self>, request: Request) -> Outcome {
        if request.signal != Signal::Metrics {
            return Outcome::Unsupported { message: "remote write has metrics only".to_owned() };
        }
        let now = self.clock.now().0;
        let translated = if request.bytes > INLINE_MAX {
            let (shared, request) = (self.clone(), request.clone());
            match tokio::task::spawn_blocking(move || translate(&shared.settings, &request, now)).await {
                Ok(translated) => translated,
                Err(error) => return Outcome::Rejected { message: format!("no samples can be made of it: {error}") },
            }
        } else {
            translate(&self.settings, &request, now)
        };
        let mut points = translated.points;
        let due: Vec<Point> = {
            let infos = self.infos.lock();
            let points = translated.infos.values().map(|info| info_point(&self.info, info));
            points.filter(|point| infos.get(&point.key).is_none_or(|last| point.time >= last + INFO_EVERY)).collect()
        };
        points.extend(due);
        let translated = Translated { points: Vec::new(), ..translated };
        let outcome = send::send(&self, &request, points, translated.formless.clone()).await;
        if !matches!(outcome, Outcome::Retry { .. }) {
            self.report(&translated);
        }
        outcome
    }
}

fn version_headers(version: Version) -> HeaderMap {
    let (kind, number) = match version {
        Version::One => ("application/x-protobuf", "0.1.0"),
        Version::Two => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    let number = (HeaderName::from_static("x-prometheus-remote-write-version"), HeaderValue::from_static(number));
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind)), number])
}

fn connect(client: &HttpClientSettings, environment: &ProxyRules) -> Result<(Connector, Uri, HeaderMap), BuildError> {
    let wrong = |problem: String| BuildError::setting("endpoint", problem);
    let endpoint = Endpoint::http(&client.endpoint).map_err(wrong)?;
    let scheme = if endpoint.tls == Some(true) { "https" } else { "http" };
    let path = if endpoint.path.starts_with('/') { endpoint.path.clone() } else { format!("/{}", endpoint.path) };
    let uri = Uri::builder().scheme(scheme).authority(endpoint.host_header()).path_and_query(path).build();
    let uri = uri.map_err(|error| wrong(format!("`{}`: {error}", shown_url(&client.endpoint))))?;
    let host = Endpoint { path: String::new(), ..endpoint };
    let connector = Connector::http(host, &client.tls, &client.proxies(environment), client.force_attempt_http2)?;
    let mut headers = client.headers.to_map();
    let invalid = |key: &'static str| move |error: header::InvalidHeaderValue| BuildError::setting(key, error.to_string());
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    if let Some(host) = client.headers.host() {
        headers.insert(header::HOST, HeaderValue::from_str(host).map_err(invalid("headers::Host"))?);
    }
    if !headers.contains_key(header::USER_AGENT) {
        headers.insert(header::USER_AGENT, HeaderValue::try_from(user_agent()).map_err(invalid("headers"))?);
    }
    Ok((connector, uri, headers))
}

impl Exporter for RemoteWrite {
    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        Box::pin(self.0.clone().attempt(request))
    }

    fn reconnect(&self) {
        self.0.client.reconnect();
    }
}
