//! What does it cost to read the host once? CPU time of the whole process, door and journal left out, over many collections.
//!
//! Goals: all scrapers but `process` and TCP connections 5 ms, `process` 0.12 ms a process, TCP connections 10 ms.
//!
//! `cargo bench --bench host_metrics`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark stops where something is wrong, and says what it measured"
)]

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use weir::{
    component::{BuildContext, Claims, Extensions, Notes, ReceiverConfig},
    config::{Diagnostics, Input, Machine, load},
    door::{Accepted, Arrival, Budget, Inlet, Pace, Refusal},
    internal_telemetry::Telemetry,
    receivers::host_metrics::Config,
    runtime::{Clock, Health, Shutdown, Step},
    signal::{ComponentId, ContextNeeds, Signal},
};

/// Collections that are measured together, behind some that are not.
const COLLECTIONS: u64 = 200;
const WARM: u64 = 10;

const ALL: &str = "cpu: {metrics: {system.cpu.utilization: {enabled: true}}}, memory: , load: , disk: , filesystem: , \
    network: {metrics: {system.network.connections: {enabled: false}}}, paging: , processes: , system: , cgroup: ";
const CONNECTIONS: &str = "network: {metrics: {system.network.io: {enabled: false}, system.network.packets: {enabled: false}, \
    system.network.errors: {enabled: false}, system.network.dropped: {enabled: false}}}";
const PROCESS: &str = "process: {mute_process_all_errors: true}";

/// Takes everything, and counts.
struct Counting {
    taken: AtomicU64,
    enough: Notify,
    budget: Arc<Budget>,
}

impl Inlet for Counting {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Metrics
    }

    fn accept(&self, _arrival: Arrival) -> Step<'_, Result<Accepted, Refusal>> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if taken == WARM || taken == WARM + COLLECTIONS {
            self.enough.notify_one();
        }
        Step::Ready(Ok(Accepted { items: 1, rejected: 0, message: None, pace: Pace::NONE }))
    }

    fn refused(&self, _: Signal, _: &Refusal, _: Option<SocketAddr>, _: &'static str) {}

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn needs(&self) -> Arc<ContextNeeds> {
        Arc::default()
    }
}

fn cpu_millis() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// CPU milliseconds of one collection.
async fn measure(scrapers: &str) -> f64 {
    let text = format!("{{collection_interval: 1ms, initial_delay: 0s, scrapers: {{{scrapers}}}}}");
    let loaded = load(&[Input::Text { name: "bench".to_owned(), text }], &Machine);
    let mut found = Diagnostics::default();
    let config = Config::read(&loaded.node, &mut found);
    assert!(!found.has_errors(), "{found:?}");
    let context = BuildContext {
        id: ComponentId::parse("host_metrics").unwrap(),
        telemetry: Telemetry::default(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: Clock::system(),
        notes: Notes::default(),
        claims: Claims::default(),
        sockets: Arc::default(),
        is_reload: false,
    };
    let inlet = Arc::new(Counting { taken: AtomicU64::new(0), enough: Notify::new(), budget: Budget::new(1 << 30) });
    let shutdown = Shutdown::new();
    let task = config.build(context).unwrap().start(inlet.clone(), shutdown.clone()).await.unwrap();
    let measuring = async {
        inlet.enough.notified().await;
        let before = cpu_millis();
        inlet.enough.notified().await;
        let spent = cpu_millis() - before;
        shutdown.cancel();
        spent / COLLECTIONS as f64
    };
    tokio::join!(task, measuring).1
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let is_process = |name: String| name.parse::<u32>().is_ok();
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_process(entry.file_name().into_string().unwrap()));
    let processes = processes.count();
    let all = runtime.block_on(measure(ALL));
    let connections = runtime.block_on(measure(CONNECTIONS));
    let process = runtime.block_on(measure(PROCESS));
    let each = process / processes as f64;
    println!("CPU of one collection, of {COLLECTIONS}; {processes} processes");
    println!("all scrapers but process and connections  {all:7.3} ms  (goal: 5)");
    println!("TCP connections                           {connections:7.3} ms  (goal: 10)");
    println!("process                                   {process:7.3} ms, {each:.4} ms a process  (goal: 0.12)");
}
