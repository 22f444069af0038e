//! Starts what a configuration says, watches it, changes it to another, and stops it without losing what was accepted.
//!
//! Start: a change from nothing (see `change`): extensions, exporters, consumers, receivers: nothing comes in before all of it can go out.
//! Stop:  receivers answer what they are receiving and close; connectors read to the end and flush; exporters deliver what is held, for
//!        as long as the drain timeout leaves; what is left then is counted and said.

mod change;
mod ends;
mod ingest;
mod own_page;
mod owned;
mod reading;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    component::Extension,
    delivery::{Chain, Destination, SharedConnector},
    door::Door,
    exposition::PageSource,
    internal_telemetry::{self, Samples},
    journal::{DropReason, Persistence},
    pipeline::{Built, ConnectError, Definition, Definitions, Failed, Plan, Role, Spine, Surroundings},
    runtime::{Drain, Shutdown, State},
    signal::ComponentId,
};

pub use ends::Undelivered;
use ends::{Account, Done};
pub use own_page::serve_page;
use owned::{Keeper, Owned, Server};
use reading::{Key, Reading};

/// How a run ended.
#[derive(Debug, Default)]
pub struct Ended {
    pub undelivered: Vec<Undelivered>,
    /// A task ended by itself, or panicked: the process must not go on with a part missing.
    pub broken: bool,
    /// A thread waits for a disk that does not answer: the process must not wait for it in turn.
    pub hangs: bool,
}

/// Why a configuration that was built does not run. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum Unstarted {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What fails of all parts.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Failed(Vec<Failed>),
}

/// How long receivers may take to answer what they are receiving.
const RECEIVERS_GRACE: Duration = Duration::from_secs(5);
/// How long a stop delivers what is on disk: some of it is likely to be taken at once, and none of it is lost.
const DRAIN_ON_DISK: Duration = Duration::from_secs(2);
/// How often is looked whether the journal takes data.
const LOOK_AT_JOURNAL: Duration = Duration::from_millis(250);
/// How often is looked whether there is something to say of dead letters.
const TELL_OF_LETTERS: Duration = Duration::from_secs(1);
/// How long connectors that were told to give up may take to do so.
const CONNECTORS_GRACE: Duration = Duration::from_secs(1);
/// How long an exporter may take to finish after its last request.
const FINISH: Duration = Duration::from_secs(1);

/// Everything that runs.
pub struct Running {
    around: Surroundings,
    spine: Spine,
    plan: Plan,
    definitions: Definitions,
    /// How far a consumer may fall behind where its exporter's settings do not say.
    lag_bytes: u64,
    extensions: BTreeMap<ComponentId, (Arc<dyn Extension>, Server)>,
    receivers: BTreeMap<ComponentId, Receiving>,
    exporters: BTreeMap<ComponentId, Sending>,
    connectors: BTreeMap<ComponentId, Connecting>,
    chains: BTreeMap<String, (Definition, Arc<Chain>)>,
    consumers: BTreeMap<Key, Reading>,
    /// The books of every consumer, for our own page.
    books: Arc<Mutex<Vec<Account>>>,
    /// Servers whose place others have taken, or nobody: they finish what they answer.
    leaving: JoinSet<()>,
    /// What runs as long as the process: who looks whether the journal takes data, who tells of dead letters, who sends them
    /// once more.
    keepers: Vec<(Shutdown, Owned<()>)>,
    /// What ended during a change that should not have.
    broken: Option<String>,
}

/// A receiver that runs.
struct Receiving {
    /// Stays when another receiver of the same name takes its place.
    door: Arc<Door>,
    server: Server,
}

/// An exporter that runs.
struct Sending {
    destination: Arc<Destination>,
    /// Pages, for instance: they answer until the end.
    server: Server,
    keeper: Option<Keeper>,
}

/// A connector that runs.
struct Connecting {
    shared: Arc<SharedConnector>,
    page: Option<Arc<dyn PageSource>>,
    /// How many connectors lie before it: one may feed another, so they are drained one depth after another.
    depth: usize,
    stop: Shutdown,
    abort: Shutdown,
    flushes: Owned<()>,
    flushing: bool,
    keeper: Option<Keeper>,
}

impl Connecting {
    /// Flushes once more and ends. What reads into it has ended.
    async fn end(&mut self) {
        self.stop.cancel();
        drop(self.flushes.wait().await);
    }

    async fn broke(&mut self) -> String {
        match self.flushes.ended().await {
            Ok(()) => "a connector ended by itself".to_owned(),
            Err(error) => format!("a connector panicked: {error}"),
        }
    }
}

impl Running {
    /// Starts a configuration. Where it fails, nothing runs.
    pub async fn start(built: Built, around: &Surroundings, persistence: Option<&Persistence>) -> Result<Self, Unstarted> {
        built.fits(persistence.is_some())?;
        let spine = Spine::open(&built.plan, built.budget_bytes, around, persistence)?;
        let mut running = Self {
            around: around.clone(),
            spine,
            plan: Plan::default(),
            definitions: Definitions::default(),
            lag_bytes: 0,
            extensions: BTreeMap::new(),
            receivers: BTreeMap::new(),
            exporters: BTreeMap::new(),
            connectors: BTreeMap::new(),
            chains: BTreeMap::new(),
            consumers: BTreeMap::new(),
            books: Arc::default(),
            leaving: JoinSet::new(),
            keepers: Vec::new(),
            broken: None,
        };
        running.show_books();
        let replayer = running.spine.replayer();
        running.change_to(built, &Shutdown::new()).await?;
        if let Some(journal) = running.spine.journal.clone() {
            journal.warn_of_strangers();
            let (health, stop) = (around.health.clone(), Shutdown::new());
            let stopped = stop.clone();
            let look = async move {
                while !stopped.is_cancelled() {
                    health.set_refusing(journal.fault());
                    drop(timeout_at(Instant::now() + LOOK_AT_JOURNAL, stopped.cancelled()).await);
                }
            };
            running.keepers.push((stop, Owned::spawn(look)));
        }
        let (letters, stop) = (running.spine.dead_letters.clone(), Shutdown::new());
        let stopped = stop.clone();
        let tell = async move {
            while timeout_at(Instant::now() + TELL_OF_LETTERS, stopped.cancelled()).await.is_err() {
                letters.tell(false);
            }
            letters.tell(true);
        };
        running.keepers.push((stop, Owned::spawn(tell)));
        if let Some(replayer) = replayer {
            let stop = Shutdown::new();
            running.keepers.push((stop.clone(), Owned::spawn(replayer.run(stop))));
        }
        around.is_running.store(true, std::sync::atomic::Ordering::Relaxed);
        around.health.set_whole(State::Ok);
        Ok(running)
    }

    /// Whether this is what runs.
    pub fn is_already(&self, built: &Built) -> bool {
        let lag_bytes = built.lag_bytes.unwrap_or_else(|| self.spine.lag_bytes(built.plan.topics.len()));
        self.definitions == built.definitions
            && self.plan == built.plan
            && self.spine.budget.bytes() == built.budget_bytes
            && self.lag_bytes == lag_bytes
    }

    /// The books of every consumer, on our own page.
    fn show_books(&self) {
        let books = self.books.clone();
        self.around.telemetry.on_scrape(move |samples: &mut Samples| {
            for (pipeline, id, signal, accounts) in &*books.lock() {
                let books = accounts.books();
                let dropped =
                    DropReason::ALL.map(|reason| (reason.as_str(), books.dropped.get(reason as usize).copied().unwrap_or(0)));
                samples.books(&internal_telemetry::Books {
                    pipeline,
                    component: id.as_str(),
                    signal: signal.as_str(),
                    accepted: books.accepted,
                    delivered: books.delivered,
                    dropped: &dropped,
                    held_items: books.held,
                    held_bytes: books.held_bytes,
                });
            }
        });
    }

    /// Resolves when something ended that should not have: the message says what.
    pub async fn broke(&mut self) -> String {
        if let Some(broken) = &self.broken {
            return broken.clone();
        }
        let mut ends: FuturesUnordered<BoxFuture<'_, String>> = FuturesUnordered::new();
        let servers = self.extensions.values_mut().map(|(_, server)| server);
        let servers = servers.chain(self.receivers.values_mut().map(|receiving| &mut receiving.server));
        let servers = servers.chain(self.exporters.values_mut().map(|sending| &mut sending.server));
        ends.extend(servers.map(|server| server.broke().boxed()));
        ends.extend(self.connectors.values_mut().map(|connecting| connecting.broke().boxed()));
        ends.extend(self.consumers.values_mut().map(|reading| reading.broke().boxed()));
        match ends.next().await {
            Some(broken) => broken,
            None => std::future::pending().await,
        }
    }

    fn held(&self) -> u64 {
        self.consumers.values().map(|reading| reading.accounts.books().held).sum()
    }

    /// Lets each depth of connectors read to its end and flush, before the next.
    async fn drain_connectors(&mut self) {
        let depths: BTreeSet<usize> = self
            .consumers
            .values()
            .filter(|reading| reading.role == Role::Connector)
            .map(|reading| reading.depth)
            .chain(self.connectors.values().map(|connecting| connecting.depth))
            .collect();
        for depth in depths {
            let readings = self.consumers.values_mut();
            let readings = readings.filter(|reading| reading.role == Role::Connector && reading.depth == depth);
            join_all(readings.map(|reading| {
                reading.ends.drain.cancel();
                reading.wait()
            }))
            .await;
            for connecting in self.connectors.values_mut().filter(|connecting| connecting.depth == depth) {
                connecting.end().await;
            }
        }
    }

    /// Receivers answer what they are receiving, until then at most, and close. Whoever gives up waiting for this may ask again.
    async fn close_all_receivers(&mut self, until: Instant, hurry: &Shutdown) {
        for receiving in self.receivers.values() {
            receiving.server.stop.cancel();
        }
        let closing = async {
            join_all(self.receivers.values_mut().map(|receiving| receiving.server.task.wait())).await;
            while self.leaving.join_next().await.is_some() {}
        };
        if tokio::select! { done = timeout_at(until, closing) => done.is_err(), () = hurry.cancelled() => true } {
            warn!("some requests were still being received and were cut off; they were not acknowledged");
        }
        self.receivers.clear();
        self.leaving.shutdown().await;
    }

    /// Takes no more data from now on, so that this process can go for good: receivers close, connectors tell what they know. Exporters go on
    /// delivering; when nothing is held for anyone, all is delivered. There is no way back but a restart.
    pub async fn drain(&mut self) {
        self.around.health.set_drain(Drain::Closing);
        info!(
            held_items = self.held(),
            "draining: no new data is taken, and what is held is delivered; a signal ends the process"
        );
        self.close_all_receivers(Instant::now() + RECEIVERS_GRACE, &Shutdown::new()).await;
        self.drain_connectors().await;
        self.around.health.set_drain(Drain::Closed);
        info!(held_items = self.held(), "nothing comes in any more");
    }

    /// Stops in order within `drain_timeout`; `hurry` cuts it short.
    pub async fn stop(mut self, drain_timeout: Duration, hurry: Shutdown) -> Ended {
        let started = Instant::now();
        let on_disk = self.spine.journal.is_some();
        // What is on disk is delivered after the next start; a stop does not wait for backends.
        let drain_wish = drain_timeout;
        let drain_timeout = if on_disk { drain_timeout.min(DRAIN_ON_DISK) } else { drain_timeout };
        let deadline = started + drain_timeout;
        self.around.health.set_whole(State::Stopping);
        info!(
            held_items = self.held(),
            drain_timeout_seconds = drain_timeout.as_secs_f64(),
            "stopping: no new data is taken, what is held is delivered"
        );

        let grace = deadline.min(started + RECEIVERS_GRACE);
        self.close_all_receivers(grace, &hurry).await;

        let cut = {
            let draining = self.drain_connectors();
            tokio::select! { done = timeout_at(deadline, draining) => done.is_err(), () = hurry.cancelled() => true }
        };
        if cut {
            warn!("connectors had not read everything when time was up");
            self.consumers.values().filter(|reading| reading.role == Role::Connector).for_each(|it| it.ends.abort.cancel());
            self.connectors.values().for_each(|connecting| connecting.abort.cancel());
            // What they made until then is the exporters' to account for.
            drop(timeout_at(Instant::now() + CONNECTORS_GRACE, self.drain_connectors()).await);
        }
        let exporting = |reading: &&mut Reading| reading.role == Role::Exporter;
        self.consumers.values_mut().filter(exporting).for_each(|reading| reading.ends.drain.cancel());
        let cut = {
            let draining = join_all(self.consumers.values_mut().filter(exporting).map(Reading::wait));
            tokio::select! { done = timeout_at(deadline, draining) => done.is_err(), () = hurry.cancelled() => true }
        };
        if cut {
            self.consumers.values_mut().filter(exporting).for_each(|reading| reading.ends.abort.cancel());
            join_all(self.consumers.values_mut().filter(exporting).map(Reading::wait)).await;
        }
        let mut ended = self.undelivered(on_disk);

        if !self.write_down(started + drain_wish, &hurry).await {
            (ended.broken, ended.hangs) = (true, true);
            return ended;
        }
        for Sending { destination, .. } in self.exporters.values() {
            if timeout_at(deadline.max(Instant::now() + FINISH), destination.exporter.finish()).await.is_err() {
                warn!(exporter = %destination.id, "the exporter did not finish in time");
            }
        }
        let servers = self.extensions.values_mut().map(|(_, server)| server);
        let mut servers: Vec<&mut Server> =
            servers.chain(self.exporters.values_mut().map(|sending| &mut sending.server)).collect();
        for server in &servers {
            server.stop.cancel();
        }
        let until = Instant::now() + FINISH;
        join_all(servers.iter_mut().map(|server| server.task.end_by(until))).await;
        self.around.health.set_whole(State::Stopped);
        info!(seconds = started.elapsed().as_secs_f64(), "stopped");
        ended
    }

    /// Writes everything down. A disk that hangs is waited for until `last`, and after a second signal no longer than [`FINISH`]: false.
    async fn write_down(&mut self, last: Instant, hurry: &Shutdown) -> bool {
        let held_items = self.held();
        let journal = self.spine.journal.clone();
        let keepers = self.exporters.values_mut().map(|sending| sending.keeper.take());
        let keepers = keepers.chain(self.connectors.values_mut().map(|connecting| connecting.keeper.take()));
        let keepers: Vec<Keeper> = keepers.flatten().collect();
        let writing = async {
            join_all(keepers.into_iter().map(Keeper::end)).await;
            for (stop, keeper) in &mut self.keepers {
                stop.cancel();
                drop(keeper.wait().await);
            }
            if let Some(journal) = journal {
                // On a thread of its own, which a disk that hangs may keep.
                drop(spawn_blocking(move || journal.close()).await);
                info!(held_items, "the journal is written; what it holds is delivered after the next start");
            }
        };
        let hurried = async {
            hurry.cancelled().await;
            sleep(FINISH).await;
        };
        tokio::select! {
            biased;
            () = writing => return true,
            () = sleep_until(last.max(Instant::now() + FINISH)) => {}
            () = hurried => {}
        }
        // Who drops the journal last waits for it: not this thread.
        if let Some(journal) = self.spine.journal.clone() {
            drop(spawn_blocking(move || journal.close()));
        }
        error!(
            "the disk does not answer: the end does not wait for it. What was acknowledged is in the journal; some of it may be delivered twice"
        );
        false
    }

    /// What the consumers, which have ended, left undelivered.
    fn undelivered(&mut self, on_disk: bool) -> Ended {
        let mut ended = Ended::default();
        for reading in self.consumers.values_mut() {
            let done = reading.done.take().unwrap_or_else(|| {
                // A connector that did not even give up in time.
                let items = if on_disk { 0 } else { reading.accounts.books().held };
                let left = Undelivered {
                    pipeline: reading.pipeline.to_string(),
                    component: reading.id.clone(),
                    signal: reading.signal,
                    items,
                };
                Done { left, panicked: false, rest: None }
            });
            let Done { left, panicked, .. } = done;
            if panicked {
                error!(component = %left.component, pipeline = left.pipeline, "a consumer panicked");
                ended.broken = true;
            }
            if left.items > 0 {
                error!(
                    component = %left.component,
                    pipeline = left.pipeline,
                    signal = %left.signal,
                    items = left.items,
                    "not delivered before the end: these items were accepted and are lost with this process"
                );
                ended.undelivered.push(left);
            }
        }
        ended
    }
}
