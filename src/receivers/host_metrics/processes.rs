//! How many processes there are, by state, and how many were ever made: `/proc/stat`, and the state of each.

use procfs_core::process::Stat;

use super::{
    metric::{Key, Kind, Metric, Value, key, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const STATUS: Key = key("status", "process.state");

const COUNT: Metric =
    metric("system.processes.count", "{processes}", Kind::Level, &[STATUS]).renamed("system.process.count", "{process}");
const CREATED: Metric =
    metric("system.processes.created", "{processes}", Kind::Counter, &[]).renamed("system.process.created", "{process}");

pub(super) const METRICS: &[Metric] = &[COUNT, CREATED];

/// The kernel's letters, and what is said for each.
const STATES: [(&str, Value<'static>); 8] = [
    ("R", Value::Text("running")),
    ("D", Value::Text("blocked")),
    ("S", Value::Text("sleeping")),
    ("I", Value::Text("idle")),
    ("Tt", Value::Text("stopped")),
    ("Z", Value::Words("zombies", "defunct")),
    ("W", Value::Text("paging")),
    ("", Value::Text("unknown")),
];
const RUNNING: usize = 0;
const BLOCKED: usize = 1;
const UNKNOWN: usize = STATES.len() - 1;

pub(super) struct Processes {
    pub(super) chosen: Chosen,
}

impl Processes {
    /// Processes by state, in the order of [`STATES`].
    fn states(part: &mut Part<'_>) -> Option<[u64; STATES.len()]> {
        let pids = part.read(1, part.host.numbers_in("proc"))?;
        let mut counts = [0_u64; STATES.len()];
        for pid in pids {
            let Some(stat) = part.read(0, part.host.parsed::<Stat>(&format!("proc/{pid}/stat"))) else { continue };
            let at = STATES.iter().position(|(letters, _)| letters.contains(stat.state)).unwrap_or(UNKNOWN);
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
            }
        }
        Some(counts)
    }
}

impl Scraper for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let Some(stats) = part.read(2, part.host.kernel_stats()) else { return };
        let mut states = None;
        if self.chosen.has(&COUNT) {
            states = Self::states(part);
        }
        // Of what runs and what waits for a disk the kernel tells all of one moment.
        for (at, count) in [(RUNNING, stats.procs_running), (BLOCKED, stats.procs_blocked)] {
            if let Some((place, count)) = states.as_mut().and_then(|states| states.get_mut(at)).zip(count) {
                *place = u64::from(count);
            }
        }
        part.write(&self.chosen, |metrics| {
            metrics.write(&COUNT, |points| {
                for (at, ((_, state), count)) in STATES.iter().zip(states.iter().flatten()).enumerate() {
                    if *count > 0 || at == RUNNING || at == BLOCKED {
                        points.int(*count, &[(STATUS, *state)]);
                    }
                }
            });
            metrics.write(&CREATED, |points| points.int(stats.processes, &[]));
        });
    }
}
