//! Page faults and pages moved, from `/proc/vmstat`; swap space, from `/proc/swaps`.
//!
//! Counts are the kernel's own. A Collector multiplies them by 4096, although it calls them faults and operations.

use procfs_core::VmStat;

use super::{
    filesystem::unescaped,
    host::{Fault, Host},
    metric::{Key, Kind, Metric, Value, key, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const TYPE: Key = key("type", "system.paging.fault.type");
const DIRECTION: Key = key("direction", "system.paging.direction");
const DEVICE: Key = key("device", "system.device");
const STATE: Key = key("state", "system.paging.state");

const FAULTS: Metric =
    metric("system.paging.faults", "{faults}", Kind::Counter, &[TYPE]).renamed("system.paging.faults", "{fault}");
const OPERATIONS: Metric = metric("system.paging.operations", "{operations}", Kind::Counter, &[DIRECTION, TYPE])
    .renamed("system.paging.operations", "{operation}");
const USAGE: Metric = metric("system.paging.usage", "By", Kind::Level, &[DEVICE, STATE]);
const UTILIZATION: Metric = metric("system.paging.utilization", "1", Kind::Gauge, &[DEVICE, STATE]).off();

pub(super) const METRICS: &[Metric] = &[FAULTS, OPERATIONS, USAGE, UTILIZATION];

const SWAPS: &str = "proc/swaps";

pub(super) struct Paging {
    pub(super) chosen: Chosen,
}

/// A swap space, in bytes.
struct Swap {
    device: String,
    used: u64,
    free: u64,
}

/// `procfs-core` does not read this file, and `sysinfo` adds all of them up.
fn swaps(host: &Host) -> Result<Vec<Swap>, Fault> {
    let text = host.text(SWAPS)?;
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let device = unescaped(words.next()?);
        let mut kib = words.skip(1).map(|word| word.parse::<u64>().ok()?.checked_mul(1024));
        let (all, used) = (kib.next()??, kib.next()??);
        Some(Swap { device, used, free: all.saturating_sub(used) })
    };
    // The first line is a heading.
    text.lines().skip(1).map(|one| line(one).ok_or_else(|| Fault::garbled(SWAPS, "a line is cut off"))).collect()
}

impl Scraper for Paging {
    fn name(&self) -> &'static str {
        "paging"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        if self.chosen.has_any(&[&FAULTS, &OPERATIONS])
            && let Some(stat) = part.read(2, part.host.parsed::<VmStat>("proc/vmstat"))
        {
            let of = |name: &str| stat.0.get(name).map(|count| count.cast_unsigned());
            part.write(&self.chosen, |metrics| {
                metrics.write(&FAULTS, |points| {
                    let (Some(all), Some(major)) = (of("pgfault"), of("pgmajfault")) else { return };
                    points.int(major, &[(TYPE, Value::Text("major"))]);
                    points.int(all.saturating_sub(major), &[(TYPE, Value::Text("minor"))]);
                });
                metrics.write(&OPERATIONS, |points| {
                    let (into, out) = (Value::Words("page_in", "in"), Value::Words("page_out", "out"));
                    for (name, direction, kind) in [
                        ("pswpin", into, "major"),
                        ("pswpout", out, "major"),
                        ("pgpgin", into, "minor"),
                        ("pgpgout", out, "minor"),
                    ] {
                        if let Some(count) = of(name) {
                            points.int(count, &[(DIRECTION, direction), (TYPE, Value::Text(kind))]);
                        }
                    }
                });
            });
        }
        if self.chosen.has_any(&[&USAGE, &UTILIZATION])
            && let Some(swaps) = part.read(1, swaps(part.host))
        {
            part.write(&self.chosen, |metrics| {
                metrics.write(&USAGE, |points| {
                    for swap in &swaps {
                        for (state, bytes) in [("used", swap.used), ("free", swap.free)] {
                            points.int(bytes, &[(DEVICE, Value::Text(&swap.device)), (STATE, Value::Text(state))]);
                        }
                    }
                });
                metrics.write(&UTILIZATION, |points| {
                    for swap in &swaps {
                        let all = swap.used.saturating_add(swap.free) as f64;
                        for (state, bytes) in [("used", swap.used), ("free", swap.free)] {
                            let attributes = [(DEVICE, Value::Text(&swap.device)), (STATE, Value::Text(state))];
                            points.double(bytes as f64 / all, &attributes);
                        }
                    }
                });
            });
        }
    }
}
