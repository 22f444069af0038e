//! The targets of one job: found, compared with those of before, started and ended.
//!
//! In:   groups of targets from the job's sources.
//! Out:  a task a target.
//! Full: a job has at most 10,000 targets, and 64 MiB of their labels; those beyond are not scraped, which the log says. With more than
//!       `target_limit` none is, as in Prometheus.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    discovery::{Group, Said, Surroundings},
    job::Job,
    reports::Reports,
    scrape::{Scraper, Shared},
    target::{Target, target},
    web::Web,
};
use crate::{
    door::{Inlet, heavy},
    runtime::{Clock, Shutdown, TaskError},
};

pub(super) const TARGETS_MAX: usize = 10_000;
/// Of the labels of a job's targets, after relabelling.
const BYTES_MAX: usize = 64 << 20;
/// What relabelling one target is worth in bytes read, about.
const WORK_BYTES: usize = 1 << 10;
/// Targets that cannot be scraped and are named in the log, of each time that they are found.
const NAMED_MAX: usize = 5;

pub(super) struct Pool {
    shared: Shared,
    /// By the source that named them.
    groups: Vec<Vec<Group>>,
    running: HashMap<u64, Shutdown>,
    tasks: JoinSet<()>,
    shutdown: Shutdown,
}

impl Pool {
    pub(super) fn new(
        job: Arc<Job>,
        inlet: Arc<dyn Inlet>,
        clock: Clock,
        reports: Reports,
        pages: Arc<Semaphore>,
        shutdown: Shutdown,
    ) -> Self {
        let web = Arc::new(Web::new(job.web.clone(), inlet.budget().clone()));
        let series = reports.series(&job.name);
        let groups = vec![Vec::new(); job.sources.len()];
        let too_many = Arc::new(AtomicBool::new(false));
        let shared = Shared { job, web, inlet, clock, reports, series, pages, too_many };
        Self { shared, groups, running: HashMap::new(), tasks: JoinSet::new(), shutdown }
    }

    pub(super) async fn run(mut self) -> Result<(), TaskError> {
        // A source waits until what it said before is read.
        let (said, mut heard) = mpsc::channel::<Said>(1);
        let job = self.shared.job.clone();
        let around = Surroundings {
            receiver: self.shared.reports.receiver.clone(),
            job: job.name.as_str().into(),
            budget: self.shared.inlet.budget().clone(),
            said,
            failures: self.shared.reports.discoveries_failed(&job.name),
        };
        let mut sources = JoinSet::new();
        for number in 0..job.sources.len() {
            let (job, around, shutdown) = (job.clone(), around.clone(), self.shutdown.clone());
            sources.spawn(async move {
                if let Some(source) = job.sources.get(number) {
                    source.run(number, around, shutdown).await;
                }
            });
        }
        drop(around);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some((number, groups)) = heard.recv() => {
                    if let Some(known) = self.groups.get_mut(number) {
                        *known = groups;
                    }
                    let targets: usize = self.groups.iter().flatten().map(|group| group.bytes() + group.targets.len() * WORK_BYTES).sum();
                    heavy(targets, || self.settle());
                }
                Some(ended) = self.tasks.join_next() => ended.map_err(|error| TaskError(error.into()))?,
                Some(ended) = sources.join_next() => ended.map_err(|error| TaskError(error.into()))?,
                else => self.shutdown.cancelled().await,
            }
        }
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| TaskError(error.into()))?;
        }
        while let Some(ended) = sources.join_next().await {
            ended.map_err(|error| TaskError(error.into()))?;
        }
        self.shared.reports.targets(&job.name).set(0);
        Ok(())
    }

    /// The targets as the groups have them now.
    fn wanted(&self) -> HashMap<u64, Target> {
        let job = &self.shared.job;
        let (receiver, name) = (&*self.shared.reports.receiver, &job.name);
        let mut wanted = HashMap::new();
        let (mut wrong, mut beyond, mut bytes) = (0_usize, 0_usize, 0_usize);
        for labels in self.groups.iter().flatten().flat_map(Group::each) {
            match target(job, &labels) {
                Ok(Some(target)) if wanted.contains_key(&target.id) => {}
                Ok(Some(target)) if wanted.len() < TARGETS_MAX && bytes + target.bytes() <= BYTES_MAX => {
                    bytes += target.bytes();
                    wanted.insert(target.id, target);
                }
                Ok(Some(_)) => beyond += 1,
                Ok(None) => {}
                Err(problem) => {
                    wrong += 1;
                    if wrong <= NAMED_MAX {
                        tracing::warn!(receiver, job = name, error = problem, "a target cannot be scraped");
                    }
                }
            }
        }
        if beyond > 0 {
            tracing::warn!(
                receiver,
                job = name,
                targets = beyond,
                limit = TARGETS_MAX,
                "there are more targets than weir scrapes of one job, or more than 64 MiB of their labels"
            );
        }
        self.shared.too_many.store(is_beyond(job.limits.targets, wanted.len() + beyond), Ordering::Relaxed);
        wanted
    }

    fn settle(&mut self) {
        let wanted = self.wanted();
        let Shared { job, reports, .. } = &self.shared;
        reports.targets(&job.name).set(i64::try_from(wanted.len()).unwrap_or(i64::MAX));
        self.running.retain(|id, removed| {
            let stays = wanted.contains_key(id);
            if !stays {
                removed.cancel();
            }
            stays
        });
        for (id, target) in wanted {
            if self.running.contains_key(&id) {
                continue;
            }
            let removed = Shutdown::new();
            self.running.insert(id, removed.clone());
            let scraper = Scraper::new(self.shared.clone(), target);
            self.tasks.spawn(scraper.run(removed, self.shutdown.clone()));
        }
    }
}

/// 0: there is no limit.
const fn is_beyond(limit: u64, targets: usize) -> bool {
    limit > 0 && targets as u64 > limit
}
