//! Says once of each service that its first data came: from whom, over what, by which SDK. Of many at once the first in a minute are named, and
//! the others counted.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hasher},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    internal_telemetry::ONCE,
    otlp::view::TracesView,
    signal::{ComponentId, Signal},
};

/// Services that are named in the log; those beyond are counted only.
const SERVICES_MAX: usize = 1024;
/// Named in a minute; the others are counted.
const NAMED_MAX: u32 = 30;
const MINUTE: Duration = Duration::from_mins(1);
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
    pace: Mutex<Pace>,
    /// Some were counted, and that is not said yet.
    owes: AtomicBool,
}

/// Who is named in a minute.
#[derive(Default)]
struct Pace {
    /// When it began.
    minute: Option<Instant>,
    named: u32,
    counted: u64,
}

/// What is to be said of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    Name,
    /// That from here on they are counted.
    Begin,
    Nothing,
}

impl Pace {
    fn next(&mut self, now: Instant) -> Say {
        if self.minute.is_none_or(|minute| now.saturating_duration_since(minute) >= MINUTE) {
            (self.minute, self.named) = (Some(now), 0);
        }
        if self.named < NAMED_MAX {
            self.named += 1;
            return Say::Name;
        }
        self.counted += 1;
        if self.counted == 1 { Say::Begin } else { Say::Nothing }
    }

    /// How many were counted in a minute that is over.
    fn over(&mut self, now: Instant) -> Option<u64> {
        let is_over = self.minute.is_none_or(|minute| now.saturating_duration_since(minute) >= MINUTE);
        is_over.then(|| std::mem::take(&mut self.counted)).filter(|counted| *counted > 0)
    }
}

impl Default for Newcomers {
    fn default() -> Self {
        Self {
            seen: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            requests: AtomicUsize::new(0),
            services: Mutex::default(),
            pace: Mutex::default(),
            owes: AtomicBool::new(false),
        }
    }
}

impl Newcomers {
    pub(super) fn look(&self, signal: Signal, payload: &[u8], receiver: &ComponentId, peer: Option<SocketAddr>, transport: &str) {
        let whole = self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(WHOLE_EVERY);
        if self.owes.load(Ordering::Relaxed)
            && let Some(services) = self.pace.lock().over(Instant::now())
        {
            self.owes.store(false, Ordering::Relaxed);
            tracing::info!(target: ONCE, services, %receiver, "so many services more sent their first data in a minute");
        }
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
                match self.pace.lock().next(Instant::now()) {
                    Say::Name => {}
                    Say::Begin => {
                        self.owes.store(true, Ordering::Relaxed);
                        tracing::info!(target: ONCE, %receiver, "more services send their first data; they are counted for the rest of the minute");
                        continue;
                    }
                    Say::Nothing => continue,
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn some_a_minute_are_named_and_the_others_counted() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!((0..NAMED_MAX).all(|_| pace.next(at(0)) == Say::Name));
        assert_eq!((pace.next(at(1)), pace.next(at(2)), pace.next(at(59))), (Say::Begin, Say::Nothing, Say::Nothing));
        assert_eq!(pace.over(at(59)), None);
        assert_eq!((pace.over(at(60)), pace.over(at(61))), (Some(3), None));
        assert!((0..NAMED_MAX).all(|_| pace.next(at(61)) == Say::Name) && pace.next(at(61)) == Say::Begin);
    }
}
