//! The accept loop: how many connections, from whom, and what happens when descriptors run out.
//!
//! Full: a connection over the cap takes the place of the oldest idle one; where none is idle it is closed at once. A peer over its share
//! is closed at once.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use super::{
    Handler,
    connection::{Shared, serve},
    io::{Pulse, Socket},
    listen::Listener,
    notice::Once,
};
use crate::runtime::Shutdown;

/// Of one listener (one endpoint of the file).
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) connections: usize,
    /// Of one address other than this machine's own.
    pub(super) per_ip: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { connections: 10_000, per_ip: 256 }
    }
}

struct Known {
    peer: Option<IpAddr>,
    pulse: Arc<Pulse>,
    end: Shutdown,
}

/// Accepts until `shutdown`, then waits for the connections to finish; each bounds its own finish.
pub(super) async fn run<H: Handler>(
    listeners: Vec<Arc<Listener>>,
    shared: Arc<Shared>,
    caps: Caps,
    handler: Arc<H>,
    shutdown: Shutdown,
) {
    let mut tasks: JoinSet<u64> = JoinSet::new();
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let mut by_ip: HashMap<IpAddr, usize> = HashMap::new();
    let notices = Once::default();
    let mut backoff = Backoff::default();
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                forget(ended, &mut known, &mut by_ip);
                continue;
            }
            accepted = accept(&listeners) => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => {
                backoff = Backoff::default();
                accepted
            }
            Err(error) if is_peers_fault(&error) => continue,
            Err(error) => {
                if backoff.is_first() {
                    tracing::error!(listener = shared.key, %error, "cannot accept connections for now");
                }
                shed(&known);
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(backoff.next()) => {}
                }
                continue;
            }
        };
        let ip = peer.map(|peer| peer.ip()).filter(|ip| !ip.to_canonical().is_loopback());
        if let Some(ip) = ip {
            let count = by_ip.entry(ip).or_default();
            if *count >= caps.per_ip {
                if notices.first(Some(ip)) {
                    tracing::warn!(%ip, listener = shared.key, limit = caps.per_ip, "too many connections from one address; said once an address");
                }
                continue;
            }
            *count += 1;
        }
        if known.len() >= caps.connections {
            if notices.first(None) {
                tracing::warn!(listener = shared.key, limit = caps.connections, "too many connections, idle ones are closed");
            }
            if !shed(&known) {
                release(ip, &mut by_ip);
                continue;
            }
        }
        number += 1;
        let pulse = Arc::new(Pulse::default());
        let end = shutdown.child_token();
        known.insert(number, Known { peer: ip, pulse: pulse.clone(), end: end.clone() });
        let connection = serve(socket, peer, pulse, shared.clone(), handler.clone(), end);
        tasks.spawn(async move {
            connection.await;
            number
        });
    }
    drop(listeners);
    while let Some(ended) = tasks.join_next().await {
        forget(ended, &mut known, &mut by_ip);
    }
}

async fn accept(listeners: &[Arc<Listener>]) -> io::Result<(Socket, Option<SocketAddr>)> {
    match listeners {
        [first, second] => tokio::select! {
            accepted = first.accept() => accepted,
            accepted = second.accept() => accepted,
        },
        [only, ..] => only.accept().await,
        [] => std::future::pending().await,
    }
}

fn forget(ended: Result<u64, tokio::task::JoinError>, known: &mut BTreeMap<u64, Known>, by_ip: &mut HashMap<IpAddr, usize>) {
    match ended {
        Ok(number) => {
            if let Some(gone) = known.remove(&number) {
                release(gone.peer, by_ip);
            }
        }
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {}
    }
}

fn release(ip: Option<IpAddr>, by_ip: &mut HashMap<IpAddr, usize>) {
    if let Some(ip) = ip
        && let Some(count) = by_ip.get_mut(&ip)
    {
        *count -= 1;
        if *count == 0 {
            by_ip.remove(&ip);
        }
    }
}

/// Ends the oldest connection that answers nothing now. Whether there was one.
fn shed(known: &BTreeMap<u64, Known>) -> bool {
    let idle = known.values().find(|one| one.pulse.is_idle() && !one.end.is_cancelled());
    idle.inspect(|one| one.end.cancel()).is_some()
}

/// The connection was gone before it was accepted; the next one is not affected.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::InvalidInput
            | ErrorKind::NotConnected
    )
}

/// 5 ms, doubled up to a second.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn is_first(&self) -> bool {
        self.0 == 0
    }

    fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(5_u64 << self.0.min(8));
        self.0 += 1;
        wait.min(Duration::from_secs(1))
    }
}
