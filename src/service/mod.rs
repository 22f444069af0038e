//! Starts what a configuration says, watches it, and stops it without losing what was accepted.
//!
//! Start: extensions, exporters, consumers, receivers: nothing comes in before all of it can go out.
//! Stop:  receivers answer what they are receiving and close; connectors read to the end and flush; exporters deliver what is held, for
//!        as long as the drain timeout leaves; what is left then is counted and said.

mod ends;
mod ingest;
mod own_page;
mod stages;

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    delivery::{Consumer, connector, exporter},
    door::{self, Door},
    otlp::ScanLimits,
    pipeline::{Entry, Failed, Graph, OpenJournal, Surroundings},
    runtime::{Health, Shutdown, State, Task, blocking},
    signal::ComponentId,
};

pub use ends::Undelivered;
use ends::{Account, Done, to_its_end};
use ingest::Ingest;
pub use own_page::serve_page;
use stages::Stages;

/// How a run ended.
#[derive(Debug, Default)]
pub struct Ended {
    pub undelivered: Vec<Undelivered>,
    /// A task ended by itself, or panicked: the process must not go on with a part missing.
    pub broken: bool,
}

/// How long receivers may take to answer what they are receiving.
const RECEIVERS_GRACE: Duration = Duration::from_secs(5);
/// How long a stop delivers what is on disk: some of it is likely to be taken at once, and none of it is lost.
const DRAIN_ON_DISK: Duration = Duration::from_secs(2);
/// How often is looked whether the journal takes data.
const LOOK_AT_JOURNAL: Duration = Duration::from_millis(250);
/// How long connectors that were told to give up may take to do so.
const CONNECTORS_GRACE: Duration = Duration::from_secs(1);

/// Everything that runs.
pub struct Running {
    health: Arc<Health>,
    stop_receivers: Shutdown,
    stop_servers: Shutdown,
    drain_exporters: Shutdown,
    abort_connectors: Shutdown,
    abort: Shutdown,
    receivers: JoinSet<Result<(), String>>,
    /// Pages, health checks: they answer until the end.
    servers: JoinSet<Result<(), String>>,
    connectors: Stages,
    exporters: JoinSet<Done>,
    /// Consumers of exporters that ended.
    done: Vec<Done>,
    destinations: Vec<Arc<crate::delivery::Destination>>,
    accounts: Vec<Account>,
    /// They save what components remember.
    keepers: JoinSet<()>,
    stop_keepers: Shutdown,
    journal: Option<Arc<OpenJournal>>,
}

fn account_of(consumer: &Consumer) -> Account {
    (consumer.pipeline.clone(), consumer.id.clone(), consumer.signal, consumer.cursor.accounts())
}

fn named(kind: &'static str, id: &ComponentId, task: Task) -> impl Future<Output = Result<(), String>> + Send + use<> {
    let id = id.clone();
    async move { task.await.map_err(|error| format!("{kind}::{id}: {error}")) }
}

impl Running {
    /// Starts a graph. What fails of it is told of all parts, and nothing runs then.
    pub async fn start(graph: Graph, around: &Surroundings) -> Result<Self, Vec<Failed>> {
        let mut failed = Vec::new();
        let mut running = Self {
            health: around.health.clone(),
            stop_receivers: Shutdown::new(),
            stop_servers: Shutdown::new(),
            drain_exporters: Shutdown::new(),
            abort_connectors: Shutdown::new(),
            abort: Shutdown::new(),
            receivers: JoinSet::new(),
            servers: JoinSet::new(),
            connectors: Stages::default(),
            exporters: JoinSet::new(),
            done: Vec::new(),
            destinations: graph.exporters.clone(),
            accounts: graph.accounts,
            keepers: JoinSet::new(),
            stop_keepers: Shutdown::new(),
            journal: graph.journal,
        };
        for (id, extension) in &graph.extensions.0 {
            let started = extension.start(running.stop_servers.clone()).await;
            match started {
                Ok(task) => {
                    running.health.report(None, id, State::Ok);
                    task.map(|task| running.servers.spawn(named("extensions", id, task)));
                }
                Err(cause) => failed.push(Failed { kind: "extensions", id: id.clone(), cause }),
            }
        }
        for destination in &graph.exporters {
            let started = destination.exporter.start(running.stop_servers.clone()).await;
            match started {
                Ok(task) => {
                    task.map(|task| running.servers.spawn(named("exporters", &destination.id, task)));
                }
                Err(cause) => failed.push(Failed { kind: "exporters", id: destination.id.clone(), cause }),
            }
        }
        for (consumer, destination, policy) in graph.exporter_consumers {
            let (drain, abort) = (running.drain_exporters.clone(), running.abort.clone());
            running.health.report(Some(&consumer.pipeline), &consumer.id, State::Ok);
            running
                .exporters
                .spawn(to_its_end(account_of(&consumer), exporter::run(consumer, destination, policy, drain, abort)));
        }
        for (consumer, shared) in graph.connector_consumers {
            running.health.report(Some(&consumer.pipeline), &consumer.id, State::Ok);
            let (depth, abort) = (consumer.depth, running.abort_connectors.clone());
            running
                .connectors
                .consumer(depth, |drain| to_its_end(account_of(&consumer), connector::run(consumer, shared, drain, abort)));
        }
        for (depth, shared) in graph.connectors {
            let abort = running.abort_connectors.clone();
            running.connectors.flusher(depth, |stop| shared.run_flushes(stop, abort));
        }
        // Served only when all of it has started: what is answered is kept.
        let mut receivers = Vec::new();
        for entry in graph.entries {
            let Entry { id, source, receiver, topics } = entry;
            let settings = door::Settings {
                id: id.clone(),
                source,
                takes: [0, 1, 2].map(|signal: usize| topics.get(signal).is_some_and(Option::is_some)),
                needs: graph.needs.clone(),
                wants_index: graph.wants_index,
                limits: ScanLimits::default(),
            };
            let append = Arc::new(Ingest { topics });
            let door = Door::new(settings, append, graph.budget.clone(), around.clock.clone(), &around.telemetry);
            let inlet = Arc::new(door.watched(around.taps.clone()));
            let started = receiver.start(inlet, running.stop_receivers.clone()).await;
            match started {
                Ok(task) => receivers.push(named("receivers", &id, task)),
                Err(cause) => failed.push(Failed { kind: "receivers", id, cause }),
            }
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        for remembering in graph.remembering {
            running.keepers.spawn(remembering.run(running.stop_keepers.clone()));
        }
        if let Some(replayer) = graph.replayer {
            running.keepers.spawn(replayer.run(running.stop_keepers.clone()));
        }
        if let Some(journal) = running.journal.clone() {
            let (health, stop) = (around.health.clone(), running.stop_keepers.clone());
            running.keepers.spawn(async move {
                while !stop.is_cancelled() {
                    health.set_refusing(journal.fault());
                    drop(timeout_at(Instant::now() + LOOK_AT_JOURNAL, stop.cancelled()).await);
                }
            });
        }
        for receiver in receivers {
            running.receivers.spawn(receiver);
        }
        running.health.set_whole(State::Ok);
        Ok(running)
    }

    /// Resolves when something ended that should not have: the message says what.
    pub async fn broke(&mut self) -> String {
        let server = tokio::select! {
            Some(ended) = self.receivers.join_next() => ended,
            Some(ended) = self.servers.join_next() => ended,
            Some(ended) = self.exporters.join_next() => {
                return match ended {
                    Ok(done) => {
                        let how = if done.panicked { "panicked" } else { "ended by itself" };
                        let broken = format!("the consumer {} in pipeline {} {how}", done.left.component, done.left.pipeline);
                        self.done.push(done);
                        broken
                    }
                    Err(error) => format!("an exporter's consumer ended: {error}"),
                };
            }
            broken = self.connectors.broke() => return broken,
            else => std::future::pending().await,
        };
        match server {
            Ok(Ok(())) => "a server ended by itself".to_owned(),
            Ok(Err(message)) => message,
            Err(error) => format!("a server panicked: {error}"),
        }
    }

    /// Stops in order within `drain_timeout`; `hurry` cuts it short.
    pub async fn stop(mut self, drain_timeout: Duration, hurry: Shutdown) -> Ended {
        let started = Instant::now();
        // What is on disk is delivered after the next start; a stop does not wait for backends.
        let drain_timeout = if self.journal.is_some() { drain_timeout.min(DRAIN_ON_DISK) } else { drain_timeout };
        let deadline = started + drain_timeout;
        self.health.set_whole(State::Stopping);
        self.stop_receivers.cancel();
        let held: u64 = self.accounts.iter().map(|(_, _, _, accounts)| accounts.books().held).sum();
        info!(
            held_items = held,
            drain_timeout_seconds = drain_timeout.as_secs_f64(),
            "stopping: no new data is taken, what is held is delivered"
        );
        let mut ended = Ended::default();

        let grace = deadline.min(started + RECEIVERS_GRACE);
        let receivers = async { while self.receivers.join_next().await.is_some() {} };
        if tokio::select! { done = timeout_at(grace, receivers) => done.is_err(), () = hurry.cancelled() => true } {
            warn!("some requests were still being received and were cut off; they were not acknowledged");
        }
        self.receivers.shutdown().await;

        let connectors = self.connectors.drain();
        if tokio::select! { done = timeout_at(deadline, connectors) => done.is_err(), () = hurry.cancelled() => true } {
            warn!("connectors had not read everything when time was up");
            self.abort_connectors.cancel();
            // What they made until then is the exporters' to account for.
            drop(timeout_at(Instant::now() + CONNECTORS_GRACE, self.connectors.drain()).await);
        }
        self.drain_exporters.cancel();
        let mut done = std::mem::take(&mut self.done);
        done.append(&mut self.connectors.done);
        let exporters = async {
            while let Some(ended) = self.exporters.join_next().await {
                done.extend(ended);
            }
        };
        let cut = tokio::select! { done = timeout_at(deadline, exporters) => done.is_err(), () = hurry.cancelled() => true };
        if cut {
            self.abort.cancel();
            while let Some(ended) = self.exporters.join_next().await {
                done.extend(ended);
            }
        }
        // A connector that did not even give up in time.
        for (pipeline, component, signal, accounts) in &self.accounts {
            let is_told = done.iter().any(|done| *done.left.pipeline == **pipeline && done.left.component == *component);
            if !is_told {
                let left = Undelivered {
                    pipeline: pipeline.to_string(),
                    component: component.clone(),
                    signal: *signal,
                    items: if self.journal.is_some() { 0 } else { accounts.books().held },
                };
                done.push(Done { left, panicked: false });
            }
        }
        for Done { left, panicked } in done {
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
        self.stop_keepers.cancel();
        while self.keepers.join_next().await.is_some() {}
        if let Some(journal) = &self.journal {
            let held: u64 = self.accounts.iter().map(|(_, _, _, accounts)| accounts.books().held).sum();
            blocking(|| journal.close());
            info!(held_items = held, "the journal is written; what it holds is delivered after the next start");
        }
        for destination in &self.destinations {
            if timeout_at(deadline.max(Instant::now() + Duration::from_secs(1)), destination.exporter.finish()).await.is_err() {
                warn!(exporter = %destination.id, "the exporter did not finish in time");
            }
        }
        self.stop_servers.cancel();
        let servers = async { while self.servers.join_next().await.is_some() {} };
        drop(timeout_at(Instant::now() + Duration::from_secs(1), servers).await);
        self.servers.shutdown().await;
        self.health.set_whole(State::Stopped);
        info!(seconds = started.elapsed().as_secs_f64(), "stopped");
        ended
    }
}
