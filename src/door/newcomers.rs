//! Says once of each service that its first data came: from whom, over what, by which SDK.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hasher},
    net::SocketAddr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use foldhash::fast::FixedState;
use parking_lot::Mutex;

use crate::{
    internal_telemetry::ONCE,
    otlp::view::TracesView,
    signal::{ComponentId, Signal},
};

/// Services that are named in the log; those beyond are counted only.
const SERVICES_MAX: usize = 1024;
/// Resources that were seen already, by the hash of their bytes. One that pushes out another costs a second look, nothing else.
const SLOTS: usize = 1024;
/// All resources of one request in so many are looked at; of the others the first one.
const WHOLE_EVERY: usize = 16;
/// Characters of a sender's text in the log.
const SHOWN_MAX: usize = 128;

pub(super) struct Newcomers {
    seen: Box<[AtomicU64]>,
    requests: AtomicUsize,
    services: Mutex<HashSet<u64>>,
}

impl Default for Newcomers {
    fn default() -> Self {
        Self { seen: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), requests: AtomicUsize::new(0), services: Mutex::default() }
    }
}

impl Newcomers {
    pub(super) fn look(&self, signal: Signal, payload: &[u8], receiver: &ComponentId, peer: Option<SocketAddr>, transport: &str) {
        let whole = self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(WHOLE_EVERY);
        // The three signals' requests are alike down to the resource.
        let resources = TracesView::new(payload).resources();
        for resource in resources.take(if whole { usize::MAX } else { 1 }) {
            let bytes = resource.resource_bytes().unwrap_or_default();
            let hash = hash(&[&[signal.ordinal() as u8], bytes]).max(1);
            let Some(slot) = self.seen.get(hash as usize % SLOTS) else { return };
            if slot.swap(hash, Ordering::Relaxed) == hash {
                continue;
            }
            let attributes = resource.resource().attributes;
            let name = attributes.string("service.name");
            // What weir reads by itself came from no service.
            if name.is_none() && transport == "scrape" {
                continue;
            }
            let service = name.unwrap_or("unknown_service");
            let language = attributes.string("telemetry.sdk.language").unwrap_or("unknown");
            let sdk = attributes.string("telemetry.sdk.name").unwrap_or("unknown");
            let version = attributes.string("telemetry.sdk.version").unwrap_or("");
            let key = self::hash(&[&[signal.ordinal() as u8], service.as_bytes()]);
            let mut services = self.services.lock();
            if services.len() < SERVICES_MAX && services.insert(key) {
                drop(services);
                tracing::info!(
                    target: ONCE,
                    service = shown(service),
                    %signal,
                    sdk = shown(sdk),
                    version = shown(version),
                    language = shown(language),
                    peer = peer.map(tracing::field::display),
                    transport,
                    %receiver,
                    "first data of a service"
                );
            }
        }
    }
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

fn shown(text: &str) -> &str {
    text.get(..text.floor_char_boundary(SHOWN_MAX)).unwrap_or(text)
}
