//! Writes metrics to Prometheus, Mimir, Thanos and whoever else takes remote write.
//!
//! In:   metrics of every kind, from one consumer in the order of the journal.
//! Out:  POSTs of remote write 1.0 or 2.0, snappy, each of at most `max_batch_size_bytes`; `remote_write_queue::num_consumers` at once, none
//!       of which has a series in common with another.
//! Full: `delivery` bounds what is in flight; one request is under way, and what has to wait keeps its place, so that samples of a series never
//!       overtake each other.
//! Lost: delta points and others that Prometheus has no form for: dropped (`unsupported`), counted by reason and said. What a server refuses
//!       (out of order, too old, a second value for one time) is a dead letter with its words; its neighbours are written.
//!       What gets a 500 again and again while the server takes others is one, too.
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
    translate::{Lost, Received, Translated, held_max, info_point, translate},
};
use crate::{
    component::delivery,
    component::{BuildContext, ClientAuth, Exporter, ExporterConfig, Outcome, Provenance, Request, Stability},
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
/// Points of one series in an attempt that have a request each; behind each further so many the requests have twice as many of a series.
const APART: usize = 64;
/// Series whose failures are remembered.
const FAILED_MAX: usize = 100_000;
/// Bytes of a point that is kept to ask a server with whether it works.
const PROBE_MAX: usize = 4096;

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
    /// By a series' key: attempts that failed with 500 while others were taken, since it was taken last.
    failed: Mutex<HashMap<u64, u32>>,
    /// The last of its series that the server took.
    probe: Mutex<Option<Point>>,
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
            failed: Mutex::default(),
            probe: Mutex::default(),
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

    /// Points of one lane, in order, as requests: the first of each series, then the second of each, and so on.
    fn pieces(&self, points: Vec<Point>) -> VecDeque<Vec<Point>> {
        let mut rounds: Vec<Vec<Point>> = Vec::new();
        let (mut key, mut depth) = (None, 0);
        for point in points {
            depth = if key == Some(point.key) { depth + 1 } else { 0 };
            key = Some(point.key);
            let round = round(depth);
            rounds.resize_with(rounds.len().max(round + 1), Vec::new);
            if let Some(round) = rounds.get_mut(round) {
                round.push(point);
            }
        }
        let most = self.bytes_max.load(Ordering::Relaxed);
        let mut pieces: VecDeque<Vec<Point>> = VecDeque::new();
        for round in rounds {
            let mut bytes = usize::MAX;
            for point in round {
                bytes = bytes.saturating_add(point.bytes);
                match pieces.back_mut() {
                    Some(piece) if bytes <= most => piece.push(point),
                    _ => {
                        bytes = point.bytes;
                        pieces.push_back(vec![point]);
                    }
                }
            }
        }
        pieces
    }

    /// How often these failed by now while others were taken, the least of them.
    fn failed_once_more(&self, points: &[Point]) -> u32 {
        let mut failed = self.failed.lock();
        if failed.len() + points.len() > FAILED_MAX {
            // Those that are still there are tried a few times more.
            failed.clear();
        }
        let times = points.iter().map(|point| {
            let times = failed.entry(point.key).or_insert(0);
            *times = times.saturating_add(1);
            *times
        });
        times.min().unwrap_or(0)
    }

    fn took(&self, points: &[Point]) {
        let mut failed = self.failed.lock();
        if !failed.is_empty() {
            for point in points {
                failed.remove(&point.key);
            }
        }
        if let Some(last) = points.last().filter(|last| last.bytes <= PROBE_MAX) {
            *self.probe.lock() = Some(last.clone());
        }
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

    /// `received`: when the parts came in.
    async fn attempt(self: Arc<Self>, request: Request, received: Received) -> Outcome {
        if request.signal != Signal::Metrics {
            return Outcome::Unsupported { message: "remote write has metrics only".to_owned() };
        }
        let held_max = held_max(request.bytes);
        let translated = if request.bytes > INLINE_MAX {
            let (shared, request) = (self.clone(), request.clone());
            match tokio::task::spawn_blocking(move || translate(&shared.settings, &request, &received, held_max)).await {
                Ok(translated) => translated,
                Err(error) => return Outcome::Rejected { message: format!("no samples can be made of it: {error}") },
            }
        } else {
            translate(&self.settings, &request, &received, held_max)
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

/// In which request of its lane the point at `depth` of its series goes.
fn round(depth: usize) -> usize {
    let doublings = (depth / APART + 1).ilog2();
    let before = APART * ((1 << doublings) - 1);
    APART * doublings as usize + ((depth - before) >> doublings)
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
        let received = request.parts.iter().map(|_| self.0.clock.now()).collect();
        Box::pin(self.0.clone().attempt(request, received))
    }

    fn export_from(&self, provenance: Provenance<'_>, request: Request) -> BoxFuture<'_, Outcome> {
        let received = provenance.parts.iter().map(|origin| origin.received).collect();
        Box::pin(self.0.clone().attempt(request, received))
    }

    fn reconnect(&self) {
        self.0.client.reconnect();
    }
}
