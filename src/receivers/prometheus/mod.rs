//! Scrapes pages of Prometheus: what exporters beside the services tell comes along with what the services send.
//!
//! In:   pages in text, OpenMetrics and protobuf, from targets that a Prometheus configuration names or discovers.
//! Out:  OTLP metrics for the [`Inlet`]: one resource a `job` and `instance`, with `target_info`; `up` and `scrape_…`; markers for series that end.
//! Full: pages on their way count in the door's budget, and 64 MiB of them are read and handed over at once; what finds no room is tried again
//!       until the target's next scrape is due.
//! Lost: a scrape that fails gives `up` 0 and markers, as in Prometheus. One that the door refuses gives nothing, counted
//!       `weir_scrapes{outcome="refused"}`. Samples that are in no point are counted by reason (`weir_scrape_left_out_samples`).
//!
//! ```yaml
//! receivers:
//!   prometheus:
//!     config:                            # a Prometheus file: `global` and `scrape_configs`
//!       global: {scrape_interval: 30s}
//!       scrape_configs:
//!         - job_name: node
//!           static_configs: [{targets: ["localhost:9100"]}]
//!           metric_relabel_configs:
//!             - {source_labels: [__name__], regex: "go_.*", action: drop}
//! ```
//!
//! `$` is written `$$`, as in the Collector: `replacement: $$1`.
//!
//! A counter begins when its page says so (`_created`, protobuf's `created_timestamp`), and otherwise has no start, as in the Collector from
//! 0.143 on; its `metric_start_time` processor is not here.

mod config;
mod discovery;
mod duration;
mod job;
mod labels;
mod memory;
mod parse;
mod pool;
mod relabel;
mod reports;
mod scrape;
mod sheet;
mod target;
#[cfg(test)]
mod tests;
mod translate;
mod web;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::{sync::Semaphore, task::JoinSet};

use self::{job::Job, pool::Pool, reports::Reports, scrape::PAGES_BYTES_MAX};
use crate::{
    component::{BuildContext, Receiver, ReceiverConfig, Stability},
    config::{Diagnostics, Node},
    door::Inlet,
    runtime::{BuildError, Clock, Shutdown, Task, TaskError},
    signal::Signal,
};

/// The settings of the receiver.
pub struct Config(Vec<Job>);

impl ReceiverConfig for Config {
    const TYPE: &'static str = "prometheus";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        Self(config::jobs(node, found))
    }

    fn build(self, context: BuildContext) -> Result<Box<dyn Receiver>, BuildError> {
        for job in &self.0 {
            // A file that cannot be read is told of at the start, not at the first scrape.
            job.web.try_files()?;
        }
        let reports = Reports::new(&context.telemetry, &context.id);
        Ok(Box::new(Prometheus { jobs: self.0, reports, clock: context.clock }))
    }
}

struct Prometheus {
    jobs: Vec<Job>,
    reports: Reports,
    clock: Clock,
}

impl Receiver for Prometheus {
    fn start(self: Box<Self>, inlet: Arc<dyn Inlet>, shutdown: Shutdown) -> BoxFuture<'static, Result<Task, BuildError>> {
        async move {
            let Self { jobs, reports, clock } = *self;
            let pages = Arc::new(Semaphore::new(PAGES_BYTES_MAX));
            let pools: Vec<Pool> = jobs
                .into_iter()
                .map(|job| {
                    Pool::new(Arc::new(job), inlet.clone(), clock.clone(), reports.clone(), pages.clone(), shutdown.clone())
                })
                .collect();
            Ok(run(pools).boxed())
        }
        .boxed()
    }
}

async fn run(pools: Vec<Pool>) -> Result<(), TaskError> {
    let mut tasks = JoinSet::new();
    for pool in pools {
        tasks.spawn(pool.run());
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| TaskError(error.into()))??;
    }
    Ok(())
}
