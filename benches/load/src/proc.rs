//! CPU time and memory of other processes, read from /proc.

use std::{fs, io};

#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of the whole process, in seconds (10 ms ticks).
    pub user: f64,
    pub system: f64,
    /// Both together from the process's CPU clock, in seconds (nanoseconds).
    pub cpu: f64,
    pub rss_kib: u64,
    pub peak_rss_kib: u64,
    pub threads: u64,
}

pub fn read(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name may hold spaces; fields are counted after its ')'.
    let rest = stat.rsplit_once(')').ok_or_else(|| io::Error::other("odd /proc stat"))?.1;
    let f: Vec<&str> = rest.split_whitespace().collect();
    let tick = 1.0 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let ticks = |i: usize| f.get(i).and_then(|s| s.parse::<u64>().ok()).unwrap_or(0) as f64 * tick;
    let (user, system) = (ticks(11), ticks(12));
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = |key: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .and_then(|l| l.split_whitespace().next())
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Usage {
        user,
        system,
        cpu: cpu_clock(pid).unwrap_or(user + system),
        rss_kib: line("VmRSS:"),
        peak_rss_kib: line("VmHWM:"),
        threads: line("Threads:"),
    })
}

fn cpu_clock(pid: u32) -> Option<f64> {
    let mut clock = 0;
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls only write to the variables passed to them.
    let ok =
        unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) == 0 && libc::clock_gettime(clock, &mut ts) == 0 };
    ok.then(|| ts.tv_sec as f64 + ts.tv_nsec as f64 / 1e9)
}

/// Sets VmHWM back to the present RSS, where the kernel lets us.
pub fn reset_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// A process to watch: `NAME=PID` or `PID`.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub pid: u32,
}

impl std::str::FromStr for Target {
    type Err = String;
    fn from_str(s: &str) -> Result<Target, String> {
        let (name, pid) = match s.split_once('=') {
            Some((n, p)) => (n.to_string(), p),
            None => (format!("pid {s}"), s),
        };
        let pid = pid.trim().parse().map_err(|_| format!("not a pid: {s}"))?;
        Ok(Target { name, pid })
    }
}
