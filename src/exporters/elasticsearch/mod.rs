//! Writes documents to Elasticsearch (7.10 and later) and OpenSearch (2 and later): logs, traces and metrics.
//!
//! In:   requests of any signal, straight from the views to NDJSON.
//! Out:  `_bulk` requests, each of at most `bulk_max_size` before compression; the answer is read document by document.
//! Full: `delivery` bounds what is in flight; a request that is larger than the server takes is halved, and smaller ones are made from then on.
//! Lost: nothing here. What is refused for good goes to the dead letters with the reason; what waits for someone to act (a block, too many
//!       shards, no index, no privilege) holds the cursor.
//!
//! ```yaml
//! exporters:
//!   elasticsearch:
//!     endpoints: [https://es1.example:9200, https://es2.example:9200]
//!     api_key: ${env:ES_API_KEY}
//!     logs_index: "{service}-{signal}-%Y.%m.%d"   # unwritten: the data stream logs-generic.otel-default, or what the data says
//!     document_ids: true                          # what is sent again is not there twice
//! ```
//!
//! Keys are those of the Collector's exporter, and of its `opensearch` exporter under that name. `mapping::mode` is taken at its word, as Collectors
//! before 0.145 did.

mod answer;
mod bulk;
mod config;
mod documents;
mod endpoints;
mod facts;
mod names;
pub mod opensearch;
mod preflight;
mod send;
mod settings;
mod setup;
mod standing;
mod target;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::time::Instant;

use self::{
    bulk::Encoded,
    documents::{Making, Mode, PartId},
    endpoints::Endpoints,
    facts::Facts,
    preflight::Ready,
    settings::Settings,
    setup::policies,
    target::Targets,
};
use crate::{
    component::delivery,
    component::{
        BuildContext, Claim, Exporter, ExporterConfig, Extent, Installed, LETTERS, Outcome, Provenance, Request, Stability,
    },
    config::{Diagnostics, Node, read2, shown_url},
    internal_telemetry::ELASTICSEARCH_DOCUMENTS,
    runtime::{BuildError, Clock},
    signal::{ContextNeeds, Signal},
    transport::client::HttpClientSettings,
};

/// Requests above this are written as documents on the blocking pool.
const INLINE_MAX: usize = 64 * 1024;

/// The `elasticsearch` exporter.
pub struct Config(Settings);

impl ExporterConfig for Config {
    const TYPE: &'static str = "elasticsearch";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (own, client): (config::Own, HttpClientSettings) = read2(node, found);
        Self(own.settle(client, node, found))
    }

    fn delivery(&self) -> delivery::Settings {
        self.0.delivery.clone()
    }

    fn needs(&self) -> ContextNeeds {
        let metadata = std::iter::once("x-elastic-mapping-mode".to_owned()).collect();
        ContextNeeds { metadata, ..ContextNeeds::default() }
    }

    fn splits_by_context(&self) -> bool {
        self.0.client.auth.get().is_some()
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        build(self.0, context)
    }
}

/// Two exporters that give one policy two lifecycles would write over each other's, with each setup.
fn claim(settings: &Settings, context: &BuildContext) -> Result<(), BuildError> {
    let mut cluster: Vec<&str> = settings.endpoints.iter().map(|endpoint| endpoint.trim_end_matches('/')).collect();
    cluster.sort_unstable();
    let cluster = cluster.join(", ");
    // What nobody said is taken for a new Elasticsearch, as it is when the server does not say it either.
    let ready = Ready { facts: settings.server.unwrap_or(Facts::UNKNOWN), mode: settings.mode.unwrap_or(Mode::Otel) };
    let own = settings.lifecycle.to_string();
    for policy in policies(settings, ready) {
        let what = format!("the lifecycle policy `{policy}` of {cluster}");
        if let Some(Claim { by, as_is }) = context.claims.claim(what, &context.id, &own) {
            let message = format!(
                "`{by}` has another lifecycle for the same policy, `{policy}` of {}: {as_is} there, {own} here; each would write over the other's",
                shown_url(&cluster)
            );
            return Err(BuildError::setting("lifecycle", message)
                .helped("write the same `lifecycle` at both, or give one of them indices in a cluster of its own"));
        }
    }
    Ok(())
}

fn build(settings: Settings, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
    claim(&settings, &context)?;
    let settings = Arc::new(settings);
    let endpoints = Endpoints::new(settings.clone(), &context)?;
    let count = |outcome| {
        let help = "Documents that the exporter sent, by what the server said of them.";
        let labels = [("exporter", context.id.as_str()), ("outcome", outcome)];
        context.telemetry.counter(ELASTICSEARCH_DOCUMENTS, help, &labels)
    };
    Ok(Arc::new(Elasticsearch(Arc::new(Shared {
        id: context.id.as_str().to_owned(),
        targets: Targets::new(&settings),
        endpoints,
        known: tokio::sync::Mutex::default(),
        discovery: Mutex::default(),
        bulk_bytes_max: AtomicUsize::new(settings.bulk_bytes_max),
        clock: context.clock.clone(),
        counts: Counts {
            taken: count("taken"),
            duplicate: count("duplicate"),
            again: count("again"),
            refused: count("refused"),
            failure_store: count("failure_store"),
        },
        settings,
    }))))
}

/// Documents by what became of them.
struct Counts {
    taken: IntCounter,
    duplicate: IntCounter,
    again: IntCounter,
    refused: IntCounter,
    failure_store: IntCounter,
}

/// What was found out, and done, before the first documents.
#[derive(Default)]
struct Known {
    /// What the server is, once it has said so.
    ready: Option<Ready>,
    /// By [`Signal::ordinal`]: whether its templates were looked at.
    is_seen_to: [bool; Signal::ALL.len()],
}

struct Shared {
    id: String,
    settings: Arc<Settings>,
    targets: Targets,
    endpoints: Endpoints,
    known: tokio::sync::Mutex<Known>,
    /// When nodes are looked for again.
    discovery: Mutex<Option<Instant>>,
    /// What the server was seen to take.
    bulk_bytes_max: AtomicUsize,
    clock: Clock,
    counts: Counts,
}

struct Elasticsearch(Arc<Shared>);

impl Shared {
    /// What the server is; asked before the first document, and by one attempt at a time. Before the first of each signal it is seen to that
    /// there are templates for it.
    async fn ready(&self, signal: Signal) -> Result<Ready, Outcome> {
        let mut known = self.known.lock().await;
        let Known { ready, is_seen_to } = &mut *known;
        let ready = if let Some(ready) = *ready {
            if self.is_discovery_due() {
                preflight::discover(&self.id, &self.endpoints).await;
            }
            ready
        } else {
            let found = preflight::look(&self.id, &self.endpoints, &self.settings).await?;
            if self.settings.discover {
                preflight::discover(&self.id, &self.endpoints).await;
                self.discovers();
            }
            *ready.insert(found)
        };
        if let Some(is_seen_to) = is_seen_to.get_mut(signal.ordinal()).filter(|is_seen_to| !**is_seen_to) {
            if self.settings.setup_on_start {
                setup::on_start(&self.id, &self.endpoints, &self.settings, signal).await;
            } else {
                preflight::templates(&self.id, &self.endpoints, &self.settings, ready, signal).await;
            }
            *is_seen_to = true;
        }
        Ok(ready)
    }

    /// Nodes were looked for; they are again in a while.
    fn discovers(&self) {
        *self.discovery.lock() = self.settings.discover_interval.and_then(|interval| Instant::now().checked_add(interval));
    }

    fn is_discovery_due(&self) -> bool {
        let is_due = self.discovery.lock().is_some_and(|due| due <= Instant::now());
        if is_due {
            self.discovers();
        }
        is_due
    }

    /// Of each part what its documents' ids begin with.
    fn part_ids(&self, provenance: Provenance<'_>) -> Vec<PartId> {
        let ids = provenance.parts.iter().map(|origin| {
            // Two pipelines that store the same record store two documents; a directory that was deleted comes back as another journal.
            let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
            let topic =
                if origin.position.topic == LETTERS { String::new() } else { provenance.topics.name(origin.position.topic) };
            for part in [&provenance.journal.0[..], self.id.as_bytes(), provenance.reader.as_bytes(), topic.as_bytes()] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            let hash = hash.finish();
            let hash = BASE64_URL_SAFE_NO_PAD.encode(hash.as_ref().get(..12).unwrap_or_default());
            let prefix = format!("{hash}-{}-{}", origin.position.shard, origin.position.offset);
            PartId { prefix, items: origin.items.clone(), always: self.settings.document_ids }
        });
        ids.collect()
    }

    fn encode(&self, ready: Ready, ids: Vec<PartId>, request: &Request) -> Encoded {
        let settings = &self.settings;
        let making = Making {
            targets: &self.targets,
            mode: ready.mode,
            allowed: &settings.allowed,
            create: settings.action,
            dynamic_id: settings.dynamic_id,
            dynamic_pipeline: settings.dynamic_pipeline,
            native_otel: ready.facts.is_elasticsearch(8, 13),
            bytes_max: self.bulk_bytes_max.load(Ordering::Relaxed),
            ids,
            now: self.clock.now().0,
        };
        documents::encode(&making, request)
    }

    async fn attempt(self: Arc<Self>, ids: Vec<PartId>, request: Request) -> Outcome {
        let ready = match self.ready(request.signal).await {
            Ok(ready) => ready,
            Err(outcome) => return outcome,
        };
        if !self.settings.allowed.iter().chain([&ready.mode]).any(|mode| mode.takes(request.signal)) {
            let message = format!("the mapping `{}` has no documents for {}", ready.mode.as_str(), request.signal);
            return Outcome::Unsupported { message };
        }
        let encoded = if request.bytes > INLINE_MAX {
            let (shared, request) = (self.clone(), request.clone());
            match tokio::task::spawn_blocking(move || shared.encode(ready, ids, &request)).await {
                Ok(encoded) => encoded,
                Err(error) => return Outcome::Rejected { message: format!("no documents can be made of it: {error}") },
            }
        } else {
            self.encode(ready, ids, &request)
        };
        send::send(&self, ready, &request, encoded).await
    }
}

impl Exporter for Elasticsearch {
    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        Box::pin(self.0.clone().attempt(Vec::new(), request))
    }

    fn export_from(&self, provenance: Provenance<'_>, request: Request) -> BoxFuture<'_, Outcome> {
        let ids = self.0.part_ids(provenance);
        Box::pin(self.0.clone().attempt(ids, request))
    }

    fn install(&self, extent: Extent) -> Option<BoxFuture<'_, Result<Installed, String>>> {
        Some(Box::pin(async move { setup::run(&self.0.id, &self.0.endpoints, &self.0.settings, &extent).await }))
    }

    fn reconnect(&self) {
        self.0.endpoints.reconnect();
    }
}
