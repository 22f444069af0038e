//! Reads the machine that weir runs on: CPU, memory, disks, file systems, network, processes.
//!
//! In:   files below `/proc`, once an interval, on a thread of its own.
//! Out:  OTLP metrics for the [`Inlet`], each scraper's as one resource without attributes; each process is a resource of its own. Pair
//!       it with `resource_detection`, which says which host it is.
//! Full: what the door refuses for want of room is tried again until the next collection, which has newer numbers for all of it.
//! Lost: what cannot be read is left out, counted (`otelcol_scraper_errored_metric_points`) and said when it begins and ends.
//!
//! ```yaml
//! receivers:
//!   host_metrics:
//!     collection_interval: 1m
//!     initial_delay: 1s
//!     root_path: /hostfs              # in a container: where the host's / is mounted
//!     semantic_conventions: v0        # v1: the newer names; both: for the days of a change
//!     scrapers:
//!       cpu:
//!         metrics:
//!           system.cpu.utilization: {enabled: true}
//!           system.cpu.time: {attributes: [cpu, state]}    # CPU by CPU
//!       memory:
//!       load: {cpu_average: false}
//!       disk: {exclude: {match_type: regexp, devices: ["^loop"]}}
//!       filesystem: {exclude_fs_types: {match_type: strict, fs_types: [squashfs]}}
//!       network: {include: {match_type: strict, interfaces: [eth0]}}
//!       paging:
//!       processes:
//!       system:
//!       process: {include: {match_type: strict, names: [weir]}, mute_process_all_errors: true}
//!       cgroup:                       # weir's own: what the container uses and may use
//! ```
//!
//! Counters begin when the host booted, those of a process when it began. `both` tells a metric twice whose name is the same by both
//! conventions and whose attributes are not: sums over it are twice as large then.
//!
//! Where it departs from the Collector's receiver: page faults and operations are counted and not multiplied by 4096, `process.disk.io` is what went to
//! and came from disks (`read_bytes`) and not what `read` returned, a device that is mounted in several places is told of once, and of
//! `system.processes.count` no threads are counted as `unknown` processes.

mod asking;
mod cgroup;
mod cpu;
mod disk;
mod filesystem;
mod filter;
mod host;
mod load;
mod memory;
mod metric;
mod network;
mod paging;
mod process;
mod processes;
mod round;
mod settings;
mod sheet;
mod system;
mod worker;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use crate::{
    component::{BuildContext, Receiver, ReceiverConfig, Stability},
    config::{Diagnostics, Node},
    door::{Arrival, Inlet, Refusal},
    runtime::{BuildError, Shutdown, Task, TaskError},
    signal::{ComponentId, Signal},
};
use host::Host;
use round::{Rounds, Scraper};
use settings::Settings;
use sheet::Body;
use worker::Worker;

/// The settings of the receiver.
pub struct Config {
    settings: Settings,
    scrapers: Vec<Box<dyn Scraper>>,
}

impl ReceiverConfig for Config {
    const TYPE: &'static str = "host_metrics";
    const ALIASES: &'static [&'static str] = &["hostmetrics"];
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (settings, scrapers) = Settings::read(node, found);
        Self { settings, scrapers }
    }

    fn build(self, context: BuildContext) -> Result<Box<dyn Receiver>, BuildError> {
        let Self { settings, scrapers } = self;
        let root = &settings.root_path;
        if !root.is_dir() {
            let message = format!("there is no directory `{}`", root.display());
            let help = "in a container: mount the host's `/` there, or leave `root_path` out";
            return Err(BuildError::setting("root_path", message).helped(help));
        }
        let host = Host::new(root);
        let telemetry = (&context.telemetry, &context.id);
        let rounds = Rounds::new(host, settings.semantic_conventions, scrapers, telemetry, context.clock);
        let limit = if settings.timeout.0.is_zero() { settings.collection_interval.0 } else { settings.timeout.0 };
        Ok(Box::new(HostMetrics {
            id: context.id,
            interval: settings.collection_interval.0,
            delay: settings.initial_delay.0,
            limit,
            rounds,
        }))
    }
}

struct HostMetrics {
    id: ComponentId,
    interval: Duration,
    delay: Duration,
    /// A collection that takes longer is told of.
    limit: Duration,
    rounds: Rounds,
}

impl Receiver for HostMetrics {
    fn start(self: Box<Self>, inlet: Arc<dyn Inlet>, shutdown: Shutdown) -> BoxFuture<'static, Result<Task, BuildError>> {
        async move {
            let Self { id, interval, delay, limit, rounds } = *self;
            let worker = Worker::start(rounds).map_err(|error| BuildError::Other(error.into()))?;
            let running = Running { id, interval, delay, limit, worker, inlet };
            Ok(running.run(shutdown).boxed())
        }
        .boxed()
    }
}

struct Running {
    id: ComponentId,
    interval: Duration,
    delay: Duration,
    limit: Duration,
    worker: Worker,
    inlet: Arc<dyn Inlet>,
}

impl Running {
    async fn run(self, shutdown: Shutdown) -> Result<(), TaskError> {
        let mut ticks = interval_at(Instant::now() + self.delay, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let tick = tokio::select! {
                tick = ticks.tick() => tick,
                () = shutdown.cancelled() => return Ok(()),
            };
            let bodies = tokio::select! {
                bodies = self.collected() => bodies?,
                () = shutdown.cancelled() => return Ok(()),
            };
            // What is on its way in is finished: it is a matter of a moment.
            for body in bodies {
                self.deliver(body, tick + self.interval, &shutdown).await;
            }
        }
    }

    async fn collected(&self) -> Result<Vec<Body>, TaskError> {
        let mut collecting = self.worker.collect();
        if let Ok(collected) = timeout(self.limit, &mut collecting).await {
            return collected.map_err(|error| TaskError(error.into()));
        }
        tracing::warn!(
            receiver = %self.id,
            seconds = self.limit.as_secs_f64(),
            "reading the host takes long; nothing else is read until it is through"
        );
        collecting.await.map_err(|error| TaskError(error.into()))
    }

    /// Hands it over, again and again until `until` while there is no room.
    async fn deliver(&self, body: Body, until: Instant, shutdown: &Shutdown) {
        let Body { payload, points } = body;
        loop {
            let arrival = Arrival {
                signal: Signal::Metrics,
                payload: payload.clone(),
                context: Arc::default(),
                transport: "scrape",
                peer: None,
                ticket: None,
                strict_utf8: false,
            };
            let refusal = match self.inlet.accept(arrival).done().await {
                Ok(accepted) => return accepted.pace.over().await,
                Err(refusal) => refusal,
            };
            let again = match &refusal {
                Refusal::Full { retry_after, .. } => Instant::now() + *retry_after,
                _ => until,
            };
            if again >= until {
                tracing::warn!(receiver = %self.id, points, error = %refusal, "what was read of the host is dropped; the next reading has newer numbers");
                return;
            }
            tokio::select! {
                () = sleep_until(again) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}
