//! Each process: a resource of its own, whose counters begin when it began.

use std::collections::HashMap;

use procfs_core::process::{Io, Stat, Status};

use super::{
    filter::Filter,
    host::{Fault, Host},
    metric::{Key, Kind, Metric, Value, key, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const STATE: Key = key("state", "cpu.mode");
const DIRECTION: Key = key("direction", "disk.io.direction");
const SWITCH: Key = key("type", "process.context_switch.type");
const FAULT: Key = key("type", "system.paging.fault.type");

const CPU_TIME: Metric = metric("process.cpu.time", "s", Kind::Counter, &[STATE]);
const CPU_UTILIZATION: Metric = metric("process.cpu.utilization", "1", Kind::Gauge, &[STATE]).off();
const MEMORY: Metric = metric("process.memory.usage", "By", Kind::Level, &[]);
const MEMORY_VIRTUAL: Metric = metric("process.memory.virtual", "By", Kind::Level, &[]);
/// In percent, as a Collector has it.
const MEMORY_UTILIZATION: Metric = metric("process.memory.utilization", "1", Kind::Gauge, &[]).off();
const DISK: Metric = metric("process.disk.io", "By", Kind::Counter, &[DIRECTION]);
const DISK_OPERATIONS: Metric = metric("process.disk.operations", "{operations}", Kind::Counter, &[DIRECTION]).off().old_only();
const THREADS: Metric =
    metric("process.threads", "{threads}", Kind::Level, &[]).off().renamed("process.thread.count", "{thread}");
const DESCRIPTORS: Metric = metric("process.open_file_descriptors", "{count}", Kind::Level, &[])
    .off()
    .renamed("process.unix.file_descriptor.count", "{file_descriptor}");
const SWITCHES: Metric = metric("process.context_switches", "{count}", Kind::Counter, &[SWITCH])
    .off()
    .renamed("process.context_switches", "{context_switch}");
const FAULTS: Metric =
    metric("process.paging.faults", "{faults}", Kind::Counter, &[FAULT]).off().renamed("process.paging.faults", "{fault}");
const SIGNALS: Metric = metric("process.signals_pending", "{signals}", Kind::Level, &[]).off();
const UPTIME: Metric = metric("process.uptime", "s", Kind::Gauge, &[]).off();

pub(super) const METRICS: &[Metric] = &[
    CPU_TIME,
    CPU_UTILIZATION,
    MEMORY,
    MEMORY_VIRTUAL,
    MEMORY_UTILIZATION,
    DISK,
    DISK_OPERATIONS,
    THREADS,
    DESCRIPTORS,
    SWITCHES,
    FAULTS,
    SIGNALS,
    UPTIME,
];

/// Resource attributes, and whether they are told of where the settings do not say.
pub(super) const IDENTITY: &[(&str, bool)] = &[
    ("process.pid", true),
    ("process.parent_pid", true),
    ("process.executable.name", true),
    ("process.executable.path", true),
    ("process.command", true),
    ("process.command_line", true),
    ("process.owner", true),
    ("process.cgroup", false),
];

/// Faults that the settings ask to be silent about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mute {
    pub(super) all: bool,
    pub(super) name: bool,
    pub(super) exe: bool,
    pub(super) io: bool,
    pub(super) user: bool,
    pub(super) cgroup: bool,
}

pub(super) struct Process {
    pub(super) chosen: Chosen,
    /// The resource attributes that are told of.
    pub(super) identity: Vec<&'static str>,
    pub(super) filter: Filter,
    pub(super) mute: Mute,
    /// Processes younger than this, in nanoseconds, are left out.
    pub(super) delay: u64,
    /// CPU time when it was last told, by pid and start.
    pub(super) last: HashMap<(i32, u64), Spent>,
}

/// CPU time up to a moment: user, system, waiting for disks; in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    at: u64,
    ticks: [u64; 3],
}

const MODES: [Value<'static>; 3] = [Value::Text("user"), Value::Text("system"), Value::Words("wait", "iowait")];

/// What is known of one process, as far as it is asked for and can be read.
struct Known {
    pid: i32,
    stat: Stat,
    /// Nanoseconds since 1970.
    start: u64,
    name: String,
    path: Option<String>,
    command: Vec<String>,
    owner: Option<String>,
    cgroup: Option<String>,
    status: Option<Status>,
    io: Option<Io>,
    descriptors: Option<u64>,
    switches: Option<(u64, u64)>,
}

impl Process {
    fn tells(&self, attribute: &str) -> bool {
        self.identity.contains(&attribute)
    }

    /// A value, or a note that it is missing, unless nobody wants to hear of it.
    fn read<T>(&self, part: &mut Part<'_>, muted: bool, metrics: u64, read: Result<T, Fault>) -> Option<T> {
        if muted || self.mute.all { read.ok() } else { part.read(metrics, read) }
    }

    /// `None`: it is gone, or not asked for.
    fn look(&self, part: &mut Part<'_>, pid: u32, owners: &HashMap<u32, String>) -> Option<Known> {
        let host = part.host;
        let file = |name: &str| format!("proc/{pid}/{name}");
        let stat = self.read(part, self.mute.name, 1, host.parsed::<Stat>(&file("stat")))?;
        // A thread of the kernel has no command.
        let command: Vec<String> = if self.tells("process.command") || self.tells("process.command_line") || stat.comm.len() >= 15
        {
            let bytes = self.read(part, false, 0, host.bytes(&file("cmdline"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            text.trim_end_matches('\0').split('\0').filter(|_| !text.is_empty()).map(str::to_owned).collect()
        } else {
            Vec::new()
        };
        let name = whole_name(&stat.comm, command.first());
        if !self.filter.takes(&name) {
            return None;
        }
        let since_boot = u128::from(stat.starttime) * 1_000_000_000 / u128::from(host.ticks_per_second);
        let start = part.boot.saturating_add(u64::try_from(since_boot).unwrap_or(u64::MAX));
        if self.delay > 0 && part.now.saturating_sub(start) < self.delay {
            return None;
        }
        let path = if self.tells("process.executable.path") {
            self.read(part, self.mute.exe, 0, host.link(&file("exe"))).filter(|path| !path.is_empty())
        } else {
            None
        };
        let status = if self.tells("process.owner") || self.chosen.has(&SIGNALS) {
            self.read(part, self.mute.user, 0, host.parsed::<Status>(&file("status")))
        } else {
            None
        };
        let owner = status.as_ref().map(|status| owners.get(&status.ruid).cloned().unwrap_or_else(|| status.ruid.to_string()));
        let cgroup = if self.tells("process.cgroup") {
            self.read(part, self.mute.cgroup, 0, host.text(&file("cgroup"))).map(|text| text.trim_end().to_owned())
        } else {
            None
        };
        let io = if self.chosen.has_any(&[&DISK, &DISK_OPERATIONS]) {
            self.read(part, self.mute.io, 1, host.parsed::<Io>(&file("io")))
        } else {
            None
        };
        let descriptors = if self.chosen.has(&DESCRIPTORS) {
            self.read(part, false, 1, host.numbers_in(&file("fd"))).map(|open| open.len() as u64)
        } else {
            None
        };
        let switches = if self.chosen.has(&SWITCHES) { self.read(part, false, 1, switches(host, pid)) } else { None };
        let pid = i32::try_from(pid).unwrap_or(stat.pid);
        Some(Known { pid, stat, start, name, path, command, owner, cgroup, status, io, descriptors, switches })
    }

    fn tell(&mut self, part: &mut Part<'_>, one: &Known, memory_bytes: u64, cpus: u64) -> (i32, u64) {
        let Stat { utime, stime, delayacct_blkio_ticks, minflt, majflt, num_threads, vsize, rss, .. } = one.stat;
        let (host, now) = (part.host, part.now);
        let key = (one.pid, one.stat.starttime);
        let spent = Spent { at: now, ticks: [utime, stime, delayacct_blkio_ticks.unwrap_or(0)] };
        let before = if self.chosen.has(&CPU_UTILIZATION) { self.last.insert(key, spent) } else { None };
        let resident = rss.saturating_mul(host.page_bytes);
        let identity = &self.identity;
        let attributes = |out: &mut super::sheet::Attributes<'_>| {
            for name in identity {
                match *name {
                    "process.pid" => out.int(name, i64::from(one.pid)),
                    "process.parent_pid" => out.int(name, i64::from(one.stat.ppid)),
                    "process.executable.name" => out.text(name, &one.name),
                    "process.executable.path" => one.path.iter().for_each(|path| out.text(name, path)),
                    "process.command" => one.command.first().into_iter().for_each(|command| out.text(name, command)),
                    "process.command_line" if !one.command.is_empty() => out.text(name, &one.command.join(" ")),
                    "process.owner" => one.owner.iter().for_each(|owner| out.text(name, owner)),
                    "process.cgroup" => one.cgroup.iter().for_each(|cgroup| out.text(name, cgroup)),
                    _ => {}
                }
            }
        };
        part.resource(one.start, attributes, &self.chosen, |metrics| {
            metrics.write(&CPU_TIME, |points| {
                for (mode, ticks) in MODES.iter().zip(spent.ticks) {
                    points.double(host.seconds(ticks), &[(STATE, *mode)]);
                }
            });
            metrics.write(&CPU_UTILIZATION, |points| {
                let Some(before) = before.filter(|before| before.at < now) else { return };
                let elapsed = (now - before.at) as f64 / 1e9 * cpus as f64;
                for ((mode, ticks), earlier) in MODES.iter().zip(spent.ticks).zip(before.ticks) {
                    points.double(host.seconds(ticks.saturating_sub(earlier)) / elapsed, &[(STATE, *mode)]);
                }
            });
            metrics.write(&MEMORY, |points| points.int(resident, &[]));
            metrics.write(&MEMORY_VIRTUAL, |points| points.int(vsize, &[]));
            metrics.write(&MEMORY_UTILIZATION, |points| points.double(resident as f64 * 100.0 / memory_bytes as f64, &[]));
            metrics.write(&DISK, |points| {
                if let Some(io) = &one.io {
                    points.int(io.read_bytes, &[(DIRECTION, Value::Text("read"))]);
                    points.int(io.write_bytes, &[(DIRECTION, Value::Text("write"))]);
                }
            });
            metrics.write(&DISK_OPERATIONS, |points| {
                if let Some(io) = &one.io {
                    points.int(io.syscr, &[(DIRECTION, Value::Text("read"))]);
                    points.int(io.syscw, &[(DIRECTION, Value::Text("write"))]);
                }
            });
            metrics.write(&THREADS, |points| points.int(num_threads.max(0).cast_unsigned(), &[]));
            metrics.write(&DESCRIPTORS, |points| one.descriptors.iter().for_each(|open| points.int(*open, &[])));
            metrics.write(&SWITCHES, |points| {
                if let Some((voluntary, involuntary)) = &one.switches {
                    points.int(*involuntary, &[(SWITCH, Value::Text("involuntary"))]);
                    points.int(*voluntary, &[(SWITCH, Value::Text("voluntary"))]);
                }
            });
            metrics.write(&FAULTS, |points| {
                points.int(majflt, &[(FAULT, Value::Text("major"))]);
                points.int(minflt, &[(FAULT, Value::Text("minor"))]);
            });
            metrics.write(&SIGNALS, |points| one.status.iter().for_each(|status| points.int(status.sigq.0, &[])));
            metrics.write(&UPTIME, |points| points.double(now.saturating_sub(one.start) as f64 / 1e9, &[]));
        });
        key
    }
}

impl Scraper for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let Some(pids) = part.read(METRICS.len() as u64, part.host.numbers_in("proc")) else { return };
        let owners = if self.tells("process.owner") { owners(part.host) } else { HashMap::new() };
        let (mut memory_bytes, mut cpus) = (0, 1);
        if self.chosen.has(&MEMORY_UTILIZATION)
            && let Some(info) = part.read(1, part.host.parsed::<procfs_core::Meminfo>("proc/meminfo"))
        {
            memory_bytes = info.mem_total;
        }
        if self.chosen.has(&CPU_UTILIZATION)
            && let Some(stats) = part.read(1, part.host.kernel_stats())
        {
            cpus = stats.cpu_time.len().max(1) as u64;
        }
        let mut there = HashMap::new();
        for pid in pids {
            if let Some(one) = self.look(part, pid, &owners) {
                there.insert(self.tell(part, &one, memory_bytes, cpus), ());
            }
        }
        self.last.retain(|key, _| there.contains_key(key));
    }
}

/// The kernel keeps fifteen bytes of a name; the command begins with the whole of it.
fn whole_name(comm: &str, command: Option<&String>) -> String {
    let whole = command.and_then(|command| command.rsplit('/').next());
    match whole {
        Some(whole) if comm.len() >= 15 && whole.starts_with(comm) => whole.to_owned(),
        _ => comm.to_owned(),
    }
}

/// Voluntary and involuntary ones, of all threads.
fn switches(host: &Host, pid: u32) -> Result<(u64, u64), Fault> {
    let mut all = (0_u64, 0_u64);
    for thread in host.numbers_in(&format!("proc/{pid}/task"))? {
        match host.parsed::<Status>(&format!("proc/{pid}/task/{thread}/status")) {
            Ok(status) => {
                all.0 = all.0.saturating_add(status.voluntary_ctxt_switches.unwrap_or(0));
                all.1 = all.1.saturating_add(status.nonvoluntary_ctxt_switches.unwrap_or(0));
            }
            // A thread may end at any time.
            Err(fault) if fault.is_gone() => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(all)
}

/// Names by number, from `/etc/passwd`. One that is not there keeps its number: nobody is asked over a network.
fn owners(host: &Host) -> HashMap<u32, String> {
    let text = host.text("etc/passwd").unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    text.lines().filter_map(line).collect()
}
