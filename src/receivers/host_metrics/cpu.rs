//! CPU time by mode, from `/proc/stat`; numbers and frequency of CPUs from `/proc/cpuinfo`.

use std::collections::HashSet;

use procfs_core::{CpuInfo, CpuTime, KernelStats};

use super::{
    metric::{Key, Kind, Metric, Value, key, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const CPU: Key = key("cpu", "cpu.logical_number");
const STATE: Key = key("state", "cpu.mode");

const TIME: Metric = metric("system.cpu.time", "s", Kind::Counter, &[CPU, STATE]);
const UTILIZATION: Metric = metric("system.cpu.utilization", "1", Kind::Gauge, &[CPU, STATE]).off();
const FREQUENCY: Metric = metric("system.cpu.frequency", "Hz", Kind::Gauge, &[CPU]).off();
const LOGICAL: Metric = metric("system.cpu.logical.count", "{cpu}", Kind::Level, &[]);
const PHYSICAL: Metric = metric("system.cpu.physical.count", "{cpu}", Kind::Level, &[]).off();

pub(super) const METRICS: &[Metric] = &[TIME, UTILIZATION, FREQUENCY, LOGICAL, PHYSICAL];

const MODES: [Value<'static>; 8] = [
    Value::Words("user", "user"),
    Value::Words("nice", "nice"),
    Value::Words("system", "system"),
    Value::Words("idle", "idle"),
    Value::Words("wait", "iowait"),
    Value::Words("interrupt", "interrupt"),
    Value::Words("softirq", "softirq"),
    Value::Words("steal", "steal"),
];

/// Ticks by mode.
type Ticks = [u64; 8];

fn ticks(time: &CpuTime) -> Ticks {
    let of = |ticks: Option<u64>| ticks.unwrap_or(0);
    [time.user, time.nice, time.system, time.idle, of(time.iowait), of(time.irq), of(time.softirq), of(time.steal)]
}

/// Ticks of all CPUs together, and of each.
#[derive(Debug, Clone, Default)]
struct Times {
    all: Ticks,
    each: Vec<Ticks>,
}

pub(super) struct Cpu {
    pub(super) chosen: Chosen,
    /// Which of the metrics are told of CPU by CPU.
    pub(super) each_time: bool,
    pub(super) each_utilization: bool,
    /// As they were told last.
    last: Option<Times>,
}

impl Cpu {
    pub(super) const fn new(chosen: Chosen, each_time: bool, each_utilization: bool) -> Self {
        Self { chosen, each_time, each_utilization, last: None }
    }

    fn times(&mut self, part: &mut Part<'_>, stats: &KernelStats) {
        let before = self.last.take();
        let mut now = Times { all: ticks(&stats.total), each: stats.cpu_time.iter().map(ticks).collect() };
        if let Some(before) = &before {
            let small = 3 * part.host.ticks_per_second;
            forwards(&mut now.all, &before.all, small);
            for (now, before) in now.each.iter_mut().zip(&before.each) {
                forwards(now, before, small);
            }
        }
        let seconds = |ticks| part.host.seconds(ticks);
        part.write(&self.chosen, |metrics| {
            metrics.write(&TIME, |points| {
                if self.each_time {
                    for (number, times) in now.each.iter().enumerate() {
                        for (mode, ticks) in MODES.iter().zip(times) {
                            points.double(seconds(*ticks), &[(CPU, Value::Cpu(number)), (STATE, *mode)]);
                        }
                    }
                } else {
                    for (mode, ticks) in MODES.iter().zip(&now.all) {
                        points.double(seconds(*ticks), &[(STATE, *mode)]);
                    }
                }
            });
            metrics.write(&UTILIZATION, |points| {
                let Some(before) = &before else { return };
                if self.each_utilization {
                    for (number, (now, before)) in now.each.iter().zip(&before.each).enumerate() {
                        for (mode, share) in MODES.iter().zip(shares(now, before)) {
                            points.double(share, &[(CPU, Value::Cpu(number)), (STATE, *mode)]);
                        }
                    }
                } else {
                    for (mode, share) in MODES.iter().zip(shares(&now.all, &before.all)) {
                        points.double(share, &[(STATE, *mode)]);
                    }
                }
            });
            metrics.write(&LOGICAL, |points| points.int(now.each.len() as u64, &[]));
        });
        self.last = Some(now);
    }

    fn info(&self, part: &mut Part<'_>) {
        let Some(info) = part.read(2, part.host.parsed::<CpuInfo>("proc/cpuinfo")) else { return };
        let field = |at: usize, name: &str| {
            let own = info.cpus.get(at).and_then(|cpu| cpu.get(name));
            own.or_else(|| info.fields.get(name)).map(String::as_str)
        };
        let cores: HashSet<_> = (0..info.cpus.len())
            .map(|at| {
                (field(at, "physical id").unwrap_or("0").to_owned(), field(at, "core id").map_or(at.to_string(), str::to_owned))
            })
            .collect();
        part.write(&self.chosen, |metrics| {
            metrics.write(&FREQUENCY, |points| {
                for at in 0..info.cpus.len() {
                    if let Some(mhz) = field(at, "cpu MHz").and_then(|mhz| mhz.parse::<f64>().ok()) {
                        let number = field(at, "processor").and_then(|number| number.parse().ok()).unwrap_or(at);
                        points.double(mhz * 1e6, &[(CPU, Value::Cpu(number))]);
                    }
                }
            });
            metrics.write(&PHYSICAL, |points| points.int(cores.len() as u64, &[]));
        });
    }
}

impl Scraper for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        if self.chosen.has_any(&[&TIME, &UTILIZATION, &LOGICAL]) {
            match part.host.kernel_stats() {
                Ok(stats) => self.times(part, &stats),
                Err(fault) => part.missing(3, fault),
            }
        }
        if self.chosen.has_any(&[&FREQUENCY, &PHYSICAL]) {
            self.info(part);
        }
    }
}

/// The kernel's count of idle and waiting time goes back by a little now and then. What goes back by `small` ticks or more began anew.
fn forwards(now: &mut Ticks, before: &Ticks, small: u64) {
    for (now, before) in now.iter_mut().zip(before) {
        if *now < *before && *before - *now < small {
            *now = *before;
        }
    }
}

/// How the time between two looks was spent, as parts of 1; nothing if none passed.
fn shares(now: &Ticks, before: &Ticks) -> impl Iterator<Item = f64> {
    let spent: Vec<u64> = now.iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).collect();
    let all = spent.iter().fold(0_u64, |all, ticks| all.saturating_add(*ticks));
    spent.into_iter().filter(move |_| all > 0).map(move |ticks| ticks as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_back_of_less_than_three_seconds_is_none() {
        let before = [1000, 5, 5, 1000, 1000, 0, 0, 0];
        let mut now = [1010, 5, 5, 701, 699, 0, 0, 0];
        forwards(&mut now, &before, 300);
        assert_eq!(now, [1010, 5, 5, 1000, 699, 0, 0, 0]);
    }

    #[test]
    fn shares_add_up_to_one_or_are_not_there() {
        let shares: Vec<f64> = shares(&[30, 0, 10, 60, 0, 0, 0, 0], &[0; 8]).collect();
        assert_eq!(shares, [0.3, 0.0, 0.1, 0.6, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(super::shares(&[7; 8], &[7; 8]).count(), 0);
    }
}
