//! Reads the configuration again while weir runs, and puts it in the place of the one that runs.
//!
//! In:   SIGHUP, or a file that changed; the arguments of the start.
//! Out:  what was kept, started and stopped, or what is wrong with the new one, as lines of the log.
//! Lost: nothing; a configuration with an error changes nothing.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::PathBuf};

use prometheus::{Gauge, IntCounter, IntGauge};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::{
    arguments::RunArgs,
    journal, run,
    start::{self, Checked},
    watch::Watch,
};
use crate::{
    config::{Diagnostics, Level, Loaded, Node},
    internal_telemetry::{self, Telemetry},
    pipeline::{
        Changes, File, Part, Surroundings,
        file::{Admin, Journal},
    },
    runtime::{Clock, Shutdown, blocking},
    service::{Running, Unstarted},
};

/// What it takes to read the configuration again.
pub(super) struct Reload<'a> {
    args: &'a RunArgs,
    around: Surroundings,
    fixed: Fixed,
    /// What the configuration that was read last warned of.
    warned: Warned,
    watch: Option<Watch>,
    metrics: Metrics,
}

/// Warnings without their places, which a comment above them moves.
#[derive(Default, PartialEq, Eq)]
struct Warned {
    messages: BTreeSet<String>,
    ineffective: Option<String>,
}

impl Warned {
    fn of(loaded: &Loaded) -> Self {
        let warnings = loaded.found.found.iter().filter(|found| found.level == Level::Warning);
        Self { messages: warnings.map(|found| found.message.clone()).collect(), ineffective: run::ineffective(loaded) }
    }

    /// Warnings that were not said of these.
    fn new_in(&self, loaded: &Loaded) -> Vec<String> {
        start::warnings_beside(loaded, |message| self.messages.contains(message))
    }
}

/// What holds from the start to the end of the process.
struct Fixed {
    journal: Journal,
    /// The journal's, where the file names one: by `journal` or by a `file_storage`.
    directory: Option<PathBuf>,
    admin: Admin,
    /// `service::telemetry`
    telemetry: Option<Node>,
}

struct Metrics {
    applied: IntCounter,
    refused: IntCounter,
    unchanged: IntCounter,
    successful: IntGauge,
    success_time: Gauge,
    clock: Clock,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Applied,
    Refused,
    Unchanged,
}

impl<'a> Reload<'a> {
    /// `file` runs now.
    pub(super) fn new(args: &'a RunArgs, around: &Surroundings, file: File, loaded: &Loaded) -> Self {
        let mut watch = args.watch.then(Watch::default);
        if let Some(watch) = &mut watch {
            watch.follow(loaded.files.clone());
            if loaded.files.is_empty() {
                warn!("--watch: this configuration has no files");
            }
        }
        let directory = journal::asked_for(&file).map(|(directory, _)| directory);
        let fixed = Fixed { directory, journal: file.journal, admin: file.admin, telemetry: file.telemetry };
        let metrics = Metrics::new(&around.telemetry, around.clock.clone());
        Self { args, around: around.clone(), fixed, warned: Warned::of(loaded), watch, metrics }
    }

    /// Says what a configuration warns of that the one before did not: the others were said.
    fn warn(&mut self, loaded: &Loaded) {
        let before = std::mem::replace(&mut self.warned, Warned::of(loaded));
        for line in before.new_in(loaded) {
            warn!("{line}");
        }
        if let Some(line) = self.warned.ineffective.as_ref().filter(|line| before.ineffective.as_ref() != Some(*line)) {
            info!("{line}");
        }
    }

    /// Resolves with its name when a file has changed; never without `--watch`.
    pub(super) async fn file_changed(&mut self) -> String {
        match &mut self.watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Reads, checks and applies. `hurry` cuts short what is waited for.
    pub(super) async fn reload(&mut self, running: &mut Running, hurry: &Shutdown) {
        let args = self.args.clone();
        // A pipe that nobody writes to, or a share that hangs, must not keep weir from stopping: then the thread is left to it.
        let loading = spawn_blocking(move || run::load_run(&args));
        let loaded = tokio::select! {
            biased;
            loaded = loading => loaded.unwrap_or_else(|error| Err(error.to_string())),
            () = hurry.cancelled() => Err("the configuration was not read before the signal to stop came".to_owned()),
        };
        let outcome = match loaded {
            Ok(loaded) => self.apply(loaded, running, hurry).await,
            Err(message) => refused([message]),
        };
        self.metrics.count(outcome);
    }

    /// Puts what was loaded in the place of what runs.
    pub(super) async fn apply(&mut self, loaded: Loaded, running: &mut Running, hurry: &Shutdown) -> Outcome {
        if let Some(watch) = &mut self.watch {
            // Those of before, too: one that the new configuration has lost may be why it is wrong.
            let mut files = loaded.files.clone();
            let more = watch.files().filter(|(path, _)| !files.iter().any(|(known, _)| known == path));
            let more: Vec<_> = more.cloned().collect();
            if loaded.found.has_errors() {
                files.extend(more);
            }
            watch.follow(files);
        }
        let checked = match blocking(|| start::check_within(loaded, &self.around)) {
            Ok(checked) => *checked,
            Err(loaded) => return refused(start::lines(&loaded.found, &loaded.sources, Level::Error)),
        };
        let Checked { built, loaded, file, .. } = checked;
        self.warn(&loaded);
        for key in self.fixed.differs_in(&file) {
            warn!(key, "changed, and needs a restart: what it was at the start holds until then");
        }
        if running.is_already(&built) {
            info!("the configuration is what runs already");
            return Outcome::Unchanged;
        }
        match running.change_to(built, hurry).await {
            Ok(changes) => {
                let list = |parts: &BTreeSet<Part>| parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let Changes { kept, changed, started, stopped } = &changes;
                info!(
                    kept = list(kept),
                    changed = list(changed),
                    started = list(started),
                    stopped = list(stopped),
                    "the new configuration runs"
                );
                Outcome::Applied
            }
            Err(Unstarted::Connect(error)) => refused([error.to_string()]),
            Err(Unstarted::Failed(failed)) => {
                let mut found = Diagnostics::default();
                for failed in failed {
                    failed.tell(&file, &mut found);
                }
                refused(start::lines(&found, &loaded.sources, Level::Error))
            }
        }
    }
}

fn refused(lines: impl IntoIterator<Item = String>) -> Outcome {
    for line in lines {
        error!("{line}");
    }
    error!("the new configuration is refused; what ran before runs on as it is");
    Outcome::Refused
}

impl Fixed {
    /// The keys that cannot change while weir runs, and did.
    fn differs_in(&self, file: &File) -> Vec<&'static str> {
        let (ours, theirs) = (&self.journal, &file.journal);
        let mut keys = Vec::new();
        let mut differs = |key, differs: bool| keys.extend(differs.then_some(key));
        differs("journal::mode", ours.mode != theirs.mode);
        let elsewhere =
            ours.directory == theirs.directory && self.directory != journal::asked_for(file).map(|(directory, _)| directory);
        differs("journal::directory", ours.directory != theirs.directory);
        differs("file_storage::directory", elsewhere && ours.mode == theirs.mode);
        differs("journal::max_size", ours.max_size != theirs.max_size);
        differs("journal::max_letters", ours.max_letters != theirs.max_letters);
        differs("journal::shards", ours.shards != theirs.shards);
        differs("journal::offset_reset", ours.offset_reset != theirs.offset_reset);
        differs("admin", self.admin != file.admin);
        let same = match (&self.telemetry, &file.telemetry) {
            (Some(ours), Some(theirs)) => ours.says_the_same(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        differs("service::telemetry", !same);
        keys
    }
}

impl Metrics {
    fn new(telemetry: &Telemetry, clock: Clock) -> Self {
        let reloads = |result| {
            let help = "Times that the configuration was read again, by what came of it.";
            telemetry.counter(internal_telemetry::CONFIG_RELOADS, help, &[("result", result)])
        };
        let successful = "1 if the last configuration that was read runs.";
        let time = "When a configuration was last read that runs, in seconds since 1970.";
        let metrics = Self {
            applied: reloads("applied"),
            refused: reloads("refused"),
            unchanged: reloads("unchanged"),
            successful: telemetry.int_gauge(internal_telemetry::CONFIG_LAST_RELOAD_SUCCESSFUL, successful, &[]),
            success_time: telemetry.gauge(internal_telemetry::CONFIG_LAST_RELOAD_SUCCESS_TIME, time, &[]),
            clock,
        };
        metrics.tell(true);
        metrics
    }

    fn tell(&self, is_success: bool) {
        self.successful.set(i64::from(is_success));
        if is_success {
            self.success_time.set((self.clock.now().0 / 1_000_000_000) as f64);
        }
    }

    fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Applied => self.applied.inc(),
            Outcome::Refused => self.refused.inc(),
            Outcome::Unchanged => self.unchanged.inc(),
        }
        self.tell(outcome != Outcome::Refused);
    }
}
