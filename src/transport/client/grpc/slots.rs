//! Which connection a call takes: one a name, or one an address and round robin over them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use super::Shared;
use crate::transport::client::{
    ConnectError,
    connect::Address,
    link::{Link, spawn},
};

/// A name that is spread over its addresses is looked up again after this long.
const LOOK_UP_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// An address that failed is left alone for this long while others work.
const RETRY_ADDRESS_AFTER: Duration = Duration::from_secs(5);
/// Most addresses of one name that get a connection.
const ADDRESSES_MAX: usize = 64;

/// The connections of a channel.
pub(super) struct Slots {
    spread: bool,
    all: Vec<Arc<Slot>>,
    next: usize,
    looked_up: Option<Instant>,
    looking_up: bool,
}

/// A place for one connection.
pub(super) struct Slot {
    /// `None`: all addresses of the name, looked up whenever a connection is opened.
    address: Option<Address>,
    link: Mutex<Option<Arc<Link>>>,
    /// One caller opens, the others wait for it.
    opening: tokio::sync::Mutex<()>,
    failures: AtomicU64,
    failed: Mutex<Option<(Instant, ConnectError)>>,
}

impl Slot {
    fn new(address: Option<Address>) -> Arc<Self> {
        Arc::new(Self {
            address,
            link: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
            failed: Mutex::default(),
        })
    }

    fn usable(&self) -> Option<Arc<Link>> {
        let mut link = self.link.lock();
        if link.as_ref().is_some_and(|link| !link.is_open()) {
            *link = None;
        }
        link.clone()
    }

    fn rests(&self) -> bool {
        self.failed.lock().as_ref().is_some_and(|(at, _)| at.elapsed() < RETRY_ADDRESS_AFTER)
    }

    /// The open connection, or a new one. Callers that waited for an opening which failed share its error.
    async fn open(&self, shared: &Shared, tasks: &Mutex<JoinSet<()>>) -> Result<Arc<Link>, ConnectError> {
        let seen = self.failures.load(Ordering::Acquire);
        let _one = self.opening.lock().await;
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        if self.failures.load(Ordering::Acquire) != seen
            && let Some((_, error)) = &*self.failed.lock()
        {
            return Err(error.clone());
        }
        let connector = &shared.connector;
        let opened = async {
            let addresses = match &self.address {
                Some(address) => vec![address.clone()],
                None => connector.addresses().await?,
            };
            let opened = connector.open(&addresses).await?;
            let name = connector.endpoint.authority();
            if connector.is_tls() && !opened.h2 {
                let reason = format!(
                    "{name} does not offer HTTP/2 over TLS, which gRPC needs; for OTLP/HTTP use the `otlp_http` exporter"
                );
                return Err(ConnectError::Protocol { reason });
            }
            Link::establish(opened, &name, shared.keepalive, tasks).await
        };
        match opened.await {
            Ok(link) => {
                let link = Arc::new(link);
                *self.link.lock() = Some(link.clone());
                *self.failed.lock() = None;
                Ok(link)
            }
            Err(error) => {
                *self.failed.lock() = Some((Instant::now(), error.clone()));
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }
}

impl Slots {
    pub(super) fn new(spread: bool) -> Self {
        let all = if spread { Vec::new() } else { vec![Slot::new(None)] };
        Self { spread, all, next: 0, looked_up: None, looking_up: false }
    }

    /// A connection that broke: not used again, and the name is looked up afresh.
    pub(super) fn forget(&mut self, broken: &Arc<Link>) {
        for slot in &self.all {
            let mut link = slot.link.lock();
            if link.as_ref().is_some_and(|link| Arc::ptr_eq(link, broken)) {
                *link = None;
            }
        }
        self.looked_up = None;
    }

    pub(super) fn drop_all(&mut self) {
        for slot in &self.all {
            *slot.link.lock() = None;
        }
        self.looked_up = None;
    }

    /// Slots for these addresses; those that stay keep their connections, calls on the others finish.
    fn replace(&mut self, addresses: Vec<Address>) {
        let old = std::mem::take(&mut self.all);
        self.all = addresses
            .into_iter()
            .take(ADDRESSES_MAX)
            .map(|address| {
                let kept = old.iter().find(|slot| slot.address.as_ref() == Some(&address));
                kept.cloned().unwrap_or_else(|| Slot::new(Some(address)))
            })
            .collect();
        self.looked_up = Some(Instant::now());
    }

    /// The slots, starting with the one whose turn it is.
    fn in_turn(&mut self) -> Vec<Arc<Slot>> {
        self.next = self.next.wrapping_add(1);
        let count = self.all.len().max(1);
        let start = self.next % count;
        let (tail, head) = self.all.split_at_checked(start).unwrap_or((&[], &self.all));
        head.iter().chain(tail).cloned().collect()
    }
}

/// The connection for the next call.
pub(super) async fn link(shared: &Arc<Shared>, tasks: &Arc<Mutex<JoinSet<()>>>) -> Result<Arc<Link>, ConnectError> {
    let single = {
        let slots = shared.slots.lock();
        if slots.spread { None } else { slots.all.first().cloned() }
    };
    if let Some(slot) = single {
        return match slot.usable() {
            Some(link) => Ok(link),
            None => slot.open(shared, tasks).await,
        };
    }
    let (in_turn, stale) = {
        let mut slots = shared.slots.lock();
        let stale = slots.looked_up.is_none_or(|at| at.elapsed() >= LOOK_UP_AGAIN_AFTER) && !slots.looking_up;
        (slots.in_turn(), stale)
    };
    let mut usable = None;
    let mut idle = Vec::new();
    for slot in in_turn {
        match slot.usable() {
            Some(link) if usable.is_none() => usable = Some(link),
            None if !slot.rests() => idle.push(slot),
            Some(_) | None => {}
        }
    }
    let Some(usable) = usable else { return first_of_all(shared, tasks).await };
    // What is not connected is connected beside the call, not before it.
    if stale {
        shared.slots.lock().looking_up = true;
        let shared = shared.clone();
        spawn(tasks, async move {
            let found = shared.connector.addresses().await;
            let mut slots = shared.slots.lock();
            slots.looking_up = false;
            match found {
                Ok(addresses) => slots.replace(addresses),
                // The addresses known so far stay in use.
                Err(_) => slots.looked_up = Some(Instant::now()),
            }
        });
    }
    for slot in idle {
        if slot.opening.try_lock().is_ok() {
            let (shared, all) = (shared.clone(), tasks.clone());
            spawn(tasks, async move {
                // Its error is kept in the slot, where the next caller without a connection finds it.
                drop(slot.open(&shared, &all).await);
            });
        }
    }
    Ok(usable)
}

/// Nothing is connected: look the name up, then try one address after the other.
async fn first_of_all(shared: &Arc<Shared>, tasks: &Mutex<JoinSet<()>>) -> Result<Arc<Link>, ConnectError> {
    let addresses = shared.connector.addresses().await?;
    let in_turn = {
        let mut slots = shared.slots.lock();
        slots.replace(addresses);
        slots.in_turn()
    };
    let mut last =
        ConnectError::Lookup { name: shared.connector.endpoint.authority(), reason: "the name has no addresses".to_owned() };
    for slot in in_turn {
        match slot.open(shared, tasks).await {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{
        client::{
            Connector, Endpoint, ProxyRules,
            grpc::Channel,
            testing::{H2Sink, Names, Reply},
        },
        tls::client::TlsClientSettings,
    };

    #[tokio::test]
    async fn tasks_that_looked_a_name_up_are_collected() {
        let sink = H2Sink::start(|_| Reply::ok()).await;
        let endpoint = Endpoint::grpc("dns:///backend.test:4317").unwrap();
        let tls = TlsClientSettings { insecure: true, ..TlsClientSettings::default() };
        let connector = Connector::grpc(endpoint, &tls, &ProxyRules::default()).unwrap();
        let names = Names::of([("backend.test", vec![sink.address])]);
        let channel = Channel::new(connector.with_resolver(names), None, false);
        for _ in 0..50 {
            link(&channel.shared, &channel.tasks).await.unwrap();
            channel.shared.slots.lock().looked_up = None;
            tokio::task::yield_now().await;
        }
        // The connection's own, and the last look-up.
        assert!(channel.tasks.lock().len() <= 3, "{} tasks", channel.tasks.lock().len());
    }
}
