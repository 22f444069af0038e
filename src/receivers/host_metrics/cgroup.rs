//! The group of processes that weir is in, which in a container is the container: what it uses, and what it may use. cgroup v2 only.
//!
//! Not one of the Collector's scrapers. Limits stand beside the host's own numbers, which a container sees as well.

use procfs_core::ProcessCGroups;

use super::{
    host::{Fault, Host},
    metric::{Key, Kind, Metric, Value, metric, same},
    round::{Part, Scraper},
    sheet::Chosen,
};

const MODE: Key = same("cpu.mode");

const CPU_TIME: Metric = metric("container.cpu.time", "s", Kind::Counter, &[MODE]);
const CPU_LIMIT: Metric = metric("container.cpu.limit", "{cpu}", Kind::Level, &[]);
const CPU_THROTTLED: Metric = metric("container.cpu.throttled_time", "s", Kind::Counter, &[]);
const MEMORY: Metric = metric("container.memory.usage", "By", Kind::Level, &[]);
const MEMORY_WORKING_SET: Metric = metric("container.memory.working_set", "By", Kind::Level, &[]);
const MEMORY_LIMIT: Metric = metric("container.memory.limit", "By", Kind::Level, &[]);

pub(super) const METRICS: &[Metric] = &[CPU_TIME, CPU_LIMIT, CPU_THROTTLED, MEMORY, MEMORY_WORKING_SET, MEMORY_LIMIT];

const ROOT: &str = "sys/fs/cgroup";

pub(super) struct CGroup {
    pub(super) chosen: Chosen,
}

/// The folder of our group; `None` where there is no cgroup v2, or the group is the whole host.
fn folder(host: &Host) -> Result<Option<String>, Fault> {
    let groups = host.parsed::<ProcessCGroups>("proc/self/cgroup")?;
    let Some(group) = groups.into_iter().find(|group| group.hierarchy == 0) else { return Ok(None) };
    let inside = group.pathname.trim_start_matches('/').to_owned();
    // In a container the path may be the host's, while what is mounted is the group itself. Beside older groups it is mounted lower.
    let places = [format!("{ROOT}/{inside}"), ROOT.to_owned(), format!("{ROOT}/unified/{inside}")];
    Ok(places.into_iter().find(|place| host.path(&format!("{place}/cgroup.events")).exists()))
}

/// A file of names and numbers.
fn counts(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

impl Scraper for CGroup {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let host = part.host.own();
        let Some(Some(folder)) = part.read(METRICS.len() as u64, folder(&host)) else { return };
        // A controller that is not on for the group has no file, and nothing to tell.
        let text = |part: &mut Part<'_>, name: &str| match host.text(&format!("{folder}/{name}")) {
            Err(fault) if fault.is_gone() => None,
            read => part.read(1, read),
        };
        let cpu = text(part, "cpu.stat");
        let quota = text(part, "cpu.max");
        let used = text(part, "memory.current");
        let stat = text(part, "memory.stat");
        let most = text(part, "memory.max");
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.trim().parse::<u64>().ok());
        let seconds = |name| cpu.as_ref().and_then(|cpu| counts(cpu, name)).map(|micros| micros as f64 / 1e6);
        part.write(&self.chosen, |metrics| {
            metrics.write(&CPU_TIME, |points| {
                for (name, mode) in [("user_usec ", "user"), ("system_usec ", "system")] {
                    if let Some(seconds) = seconds(name) {
                        points.double(seconds, &[(MODE, Value::Text(mode))]);
                    }
                }
            });
            metrics.write(&CPU_THROTTLED, |points| seconds("throttled_usec ").into_iter().for_each(|s| points.double(s, &[])));
            metrics.write(&CPU_LIMIT, |points| {
                // `max` is no limit, and no point.
                let mut words = quota.iter().flat_map(|quota| quota.split_ascii_whitespace()).map(str::parse::<f64>);
                if let (Some(Ok(quota)), Some(Ok(period))) = (words.next(), words.next()) {
                    points.double(quota / period, &[]);
                }
            });
            metrics.write(&MEMORY, |points| number(&used).into_iter().for_each(|bytes| points.int(bytes, &[])));
            metrics.write(&MEMORY_WORKING_SET, |points| {
                let inactive = stat.as_ref().and_then(|stat| counts(stat, "inactive_file "));
                if let (Some(used), Some(inactive)) = (number(&used), inactive) {
                    points.int(used.saturating_sub(inactive), &[]);
                }
            });
            metrics.write(&MEMORY_LIMIT, |points| number(&most).into_iter().for_each(|bytes| points.int(bytes, &[])));
        });
    }
}
