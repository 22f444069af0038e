//! OTLP metrics and the rows of connectors, on one page that Prometheus scrapes.
//!
//! In:   metrics of every kind; pages of connectors (span metrics), rendered where they are kept.
//! Out:  the page at `/metrics`, in the format the scraper asks for.
//! Full: holds what arrives until it expires, at most `max_series` series; there is no queue. A scrape blocks no export for longer than a thousand rows take to copy.
//! Lost: series without a point for `metric_expiration`; when the process ends, all series that no snapshot holds.
//!
//! ```yaml
//! exporters:
//!   prometheus:
//!     endpoint: 127.0.0.1:8889
//!     namespace: ""
//!     const_labels: {}
//!     send_timestamps: false
//!     metric_expiration: 5m
//!     enable_open_metrics: true
//!     translation_strategy: UnderscoreEscapingWithSuffixes
//!     resource_constant_labels: { included: ["k8s.*"], excluded: ["*.uid"] }
//!     without_scope_info: false
//!     instance_fallback: true
//!     max_series: 1000000
//! ```
//!
//! Beside the Collector's keys there are three of weir's own. `max_series`: points of further series are left out, counted and said. `instance_fallback` (default true): where a resource sets no
//! `service.instance.id`, the label `instance` is the pod's name, the container's id, host and process id, or the sender's address, so that
//! replicas do not overwrite one another; false leaves it out, as the Collector does. `created_samples` (default false): OpenMetrics'
//! `_created` samples.
//!
//! Spec: OpenTelemetry "Prometheus and OpenMetrics compatibility".

mod apply;
mod points;
mod reports;
mod saved;
mod store;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request as HttpRequest, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;

use self::{apply::Applier, reports::Reports};
use crate::{
    component::delivery,
    component::{
        Applied, AuthError, BuildContext, Exporter, ExporterConfig, Outcome, Provenance, Request, ServerAuth, Snapshot,
        SnapshotError, Stability, Stateful,
    },
    config::{Diagnostics, GoDuration, Node, Section, read2},
    exposition::{
        FamilyKind, LeftOut, PageSource, Scrapes, plain,
        translation::{Conversion, Promotion, ResourceLabels, Strategy},
    },
    runtime::{BuildError, Clock, Shutdown, Sockets, Task, both},
    signal::{ContextNeeds, Signal},
    transport::server::{Body, Bound, HttpServerSettings, HttpService},
};

/// What the page shows and where.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Put in front of every metric's name, with an underscore.
    pub namespace: String,
    /// Labels that every series gets.
    pub const_labels: BTreeMap<String, String>,
    /// Shows each point's own time. Prometheus then no longer notices when a series ends.
    pub send_timestamps: bool,
    /// A series without a new point for this long leaves the page.
    pub metric_expiration: GoDuration,
    /// Answers scrapers that ask for OpenMetrics with it; exemplars need it.
    pub enable_open_metrics: bool,
    /// Which resource attributes become labels of every series.
    pub resource_constant_labels: ResourceLabels,
    /// The older way to say that all of them do.
    pub resource_to_telemetry_conversion: Conversion,
    /// Leaves the `otel_scope_…` labels out.
    pub without_scope_info: bool,
    /// The older way to say `translation_strategy: UnderscoreEscapingWithoutSuffixes` (by `false`).
    pub add_metric_suffixes: bool,
    /// What becomes of names.
    pub translation_strategy: Option<Strategy>,
    /// Parsed as the Collector does; this exporter needs no queue.
    pub sending_queue: Section<delivery::Queue>,
    /// See the module's text.
    pub instance_fallback: bool,
    /// See the module's text.
    pub created_samples: bool,
    /// See the module's text.
    pub max_series: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            const_labels: BTreeMap::new(),
            send_timestamps: false,
            metric_expiration: GoDuration(Duration::from_mins(5)),
            enable_open_metrics: false,
            resource_constant_labels: ResourceLabels::default(),
            resource_to_telemetry_conversion: Conversion::default(),
            without_scope_info: false,
            add_metric_suffixes: true,
            translation_strategy: None,
            sending_queue: Section::absent(),
            instance_fallback: true,
            max_series: 1_000_000,
            created_samples: false,
        }
    }
}

impl Settings {
    pub(crate) fn strategy(&self) -> Strategy {
        self.translation_strategy.unwrap_or(if self.add_metric_suffixes {
            Strategy::UnderscoreEscapingWithSuffixes
        } else {
            Strategy::UnderscoreEscapingWithoutSuffixes
        })
    }

    fn promotion(&self) -> Promotion<'_> {
        Promotion {
            labels: &self.resource_constant_labels,
            conversion: self.resource_to_telemetry_conversion,
            instance_fallback: self.instance_fallback,
        }
    }
}

/// The settings with the server block beside them.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub settings: Settings,
    pub server: HttpServerSettings,
}

impl ExporterConfig for Config {
    const TYPE: &'static str = "prometheus";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    const RENDERS_PAGES: bool = true;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (settings, server): (Settings, HttpServerSettings) = read2(node, found);
        if server.endpoint.is_empty() {
            let help = "for example `endpoint: 127.0.0.1:8889`".to_owned();
            found.error(node.origin, "`endpoint` says where the page is served, and is missing", Some(help));
        }
        server.check(node, found);
        if !settings.add_metric_suffixes && settings.translation_strategy.is_some() {
            let origin = node.nearest("add_metric_suffixes").origin;
            found.ineffective(
                origin,
                "`add_metric_suffixes` is older than `translation_strategy`",
                "`translation_strategy` decides",
            );
        }
        if settings.sending_queue.get().is_some() {
            let origin = node.nearest("sending_queue").origin;
            found.ineffective(origin, "a page needs no `sending_queue`", "points are applied as they come");
        }
        Self { settings, server }
    }

    fn renders_pages(&self, of_services: bool) -> bool {
        // What becomes a label of every series is not on such rows.
        let promotes_service = self.settings.promotion().takes("service.name");
        let resource_constant_labels = if of_services && !promotes_service {
            self.settings.resource_constant_labels.clone()
        } else {
            ResourceLabels::default()
        };
        let plain = Settings {
            resource_constant_labels,
            // These leave a connector's rows as they are.
            enable_open_metrics: self.settings.enable_open_metrics,
            metric_expiration: self.settings.metric_expiration,
            sending_queue: self.settings.sending_queue.clone(),
            instance_fallback: self.settings.instance_fallback,
            created_samples: self.settings.created_samples,
            max_series: self.settings.max_series,
            ..Settings::default()
        };
        self.settings.strategy() == Strategy::UnderscoreEscapingWithSuffixes
            && Settings { translation_strategy: None, ..self.settings.clone() } == plain
    }

    fn delivery(&self) -> delivery::Settings {
        delivery::Settings::default()
    }

    fn needs(&self) -> ContextNeeds {
        ContextNeeds { peer: self.settings.instance_fallback, ..ContextNeeds::default() }
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        let id = context.id.as_str().to_owned();
        let auth = self.server.auth.get().map(|auth| context.extensions.server_auth(&auth.authenticator)).transpose();
        let (auth, ()) = both(auth, self.server.try_files())?;
        let left_out = Arc::new(LeftOut::new(&context.telemetry, &id));
        let scrapes = Scrapes::new(self.settings.enable_open_metrics, self.settings.created_samples, left_out);
        let reports = Reports::new(&context.telemetry, &id);
        let (info_name, _) =
            self.settings.strategy().metric_name(&self.settings.namespace, "target_info", "", FamilyKind::Info, false);
        let page = Arc::new(MetricsPage {
            id: id.clone(),
            saving: Mutex::new(()),
            applier: Applier::new(self.settings.clone(), reports),
            pages: RwLock::default(),
            scrapes,
            auth,
            clock: context.clock,
            expiration: u64::try_from(self.settings.metric_expiration.0.as_nanos()).unwrap_or(u64::MAX),
            send_timestamps: self.settings.send_timestamps,
            info_name,
            swept: AtomicU64::new(0),
            replaying: AtomicBool::new(false),
            resumed: AtomicU64::new(0),
        });
        Ok(Arc::new(Prometheus { id, server: self.server, sockets: context.sockets, page }))
    }
}

struct Prometheus {
    id: String,
    server: HttpServerSettings,
    sockets: Arc<Sockets>,
    page: Arc<MetricsPage>,
}

/// What is served, shared by the exporter and its listener.
struct MetricsPage {
    id: String,
    applier: Applier,
    /// Held while a snapshot is made.
    saving: Mutex<()>,
    pages: RwLock<Vec<Arc<dyn PageSource>>>,
    scrapes: Scrapes,
    auth: Option<Arc<dyn ServerAuth>>,
    clock: Clock,
    /// Nanoseconds; 0 keeps series for ever.
    expiration: u64,
    send_timestamps: bool,
    info_name: String,
    /// When expired series were last looked for.
    swept: AtomicU64,
    replaying: AtomicBool,
    /// When replaying ended: idle times count from there at the earliest.
    resumed: AtomicU64,
}

impl Exporter for Prometheus {
    fn start(&self, shutdown: Shutdown) -> BoxFuture<'_, Result<Option<Task>, BuildError>> {
        Box::pin(async move {
            let key = format!("exporters::{}::endpoint", self.id);
            let bound = Bound::bind(&self.server, &key, &self.sockets).await?;
            for address in bound.addresses() {
                tracing::info!(exporter = self.id, "metrics page at http://{address}/metrics");
            }
            Ok(Some(bound.serve(self.page.clone(), shutdown)))
        })
    }

    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        if request.signal == Signal::Metrics {
            let now = self.page.clock.now().0;
            for batch in &request.parts {
                self.page.applier.apply(&batch.payload, batch.context.peer, now);
            }
            self.page.sweep_in_time(now);
        }
        Box::pin(std::future::ready(Outcome::DELIVERED))
    }

    fn export_from(&self, provenance: Provenance<'_>, request: Request) -> BoxFuture<'_, Outcome> {
        if request.signal == Signal::Metrics {
            let now = self.page.clock.now().0;
            for (at, batch) in request.parts.iter().enumerate() {
                let (payload, peer) = (&batch.payload, batch.context.peer);
                match provenance.parts.get(at) {
                    Some(origin) => self.page.applier.apply_from(provenance.reader, origin.position, payload, peer, now),
                    None => self.page.applier.apply(payload, peer, now),
                }
            }
            self.page.sweep_in_time(now);
        }
        Box::pin(std::future::ready(Outcome::DELIVERED))
    }

    fn state(&self) -> Option<Arc<dyn Stateful>> {
        Some(Arc::clone(&self.page) as Arc<dyn Stateful>)
    }

    fn show_pages(&self, pages: Vec<Arc<dyn PageSource>>) {
        *self.page.pages.write() = pages;
    }
}

impl MetricsPage {
    /// Updates before this time are too old for the page.
    fn oldest(&self, now: u64) -> u64 {
        let idle_since = self.resumed.load(Ordering::Relaxed);
        if self.expiration == 0 || (idle_since > 0 && now.saturating_sub(idle_since) < self.expiration) {
            return 0;
        }
        now.saturating_sub(self.expiration)
    }

    /// Frees expired series, also where nobody scrapes.
    fn sweep_in_time(&self, now: u64) {
        let last = self.swept.load(Ordering::Relaxed);
        let pause = (self.expiration / 4).max(1_000_000_000);
        let due = now.saturating_sub(last) >= pause && !self.replaying.load(Ordering::Relaxed);
        if due && self.swept.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.applier.sweep(self.oldest(now));
        }
    }

    fn sources(&self) -> Vec<Arc<dyn PageSource>> {
        let now = self.clock.now().0;
        self.sweep_in_time(now);
        let mut snapshot = self.applier.store.snapshot(self.oldest(now), self.send_timestamps, &self.info_name);
        if self.replaying.load(Ordering::Relaxed) {
            snapshot.unready = Some("the metrics of before the start are still being applied");
        }
        let mut sources: Vec<Arc<dyn PageSource>> = self.pages.read().clone();
        sources.push(Arc::new(snapshot));
        sources
    }
}

impl Stateful for MetricsPage {
    fn snapshot(&self) -> Snapshot {
        let _one_at_a_time = self.saving.lock();
        self.applier.save()
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.applier.restore(snapshot).inspect_err(|error| {
            tracing::warn!(exporter = self.id, %error, "the series of before are not used; they begin anew");
        })
    }

    fn replaying(&self, replaying: bool) {
        if self.replaying.swap(replaying, Ordering::Relaxed) && !replaying {
            self.resumed.store(self.clock.now().0, Ordering::Relaxed);
        }
    }

    fn applied(&self) -> Applied {
        self.applier.applied()
    }

    fn resume(&self, applied: &Applied) {
        self.applier.resume(applied);
    }
}

const HELP: &str = "weir: metrics for Prometheus are at /metrics\n";

impl HttpService for MetricsPage {
    fn call(self: Arc<Self>, request: HttpRequest<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            if let Some(auth) = &self.auth
                && let Err(error) = auth.authenticate(request.headers()).await
            {
                return refused(&error);
            }
            match request.uri().path() {
                "/metrics" => self.scrapes.answer(request.method(), request.headers(), self.sources()),
                "/" => plain(StatusCode::OK, HELP),
                _ => plain(StatusCode::NOT_FOUND, HELP),
            }
        })
    }
}

fn refused(error: &AuthError) -> Response<Body> {
    let status = match error {
        AuthError::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        AuthError::Denied(_) => StatusCode::FORBIDDEN,
        AuthError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = plain(status, format!("{error}\n"));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Basic, Bearer"));
    }
    response
}
