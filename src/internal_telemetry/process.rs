//! The process: uptime, CPU time, memory. Read when a page is asked for, not in between.

use parking_lot::Mutex;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::time::Instant;

use super::{Samples, names};

pub(super) struct ProcessMetrics {
    started: Instant,
    pid: Option<Pid>,
    system: Mutex<Option<System>>,
}

impl ProcessMetrics {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), pid: sysinfo::get_current_pid().ok(), system: Mutex::new(System::new().ok()) }
    }

    pub(super) fn collect(&self, out: &mut Samples) {
        out.float_counter(names::PROCESS_UPTIME, "Uptime of the process.", &[], self.started.elapsed().as_secs_f64());
        let mut system = self.system.lock();
        let (Some(pid), Some(system)) = (self.pid, system.as_mut()) else { return };
        // Without tasks: one file is read for the process, not one for each of its threads.
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
        let Some(process) = system.process(pid) else { return };
        let cpu = process.accumulated_cpu_time() as f64 / 1e3;
        out.float_counter(names::PROCESS_CPU_SECONDS, "Total CPU user and system time in seconds.", &[], cpu);
        out.gauge(names::PROCESS_MEMORY_RSS, "Total physical memory (resident set size).", &[], process.memory() as f64);
    }
}
