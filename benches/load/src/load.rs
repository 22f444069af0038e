//! The load: ready-made request bodies over HTTP/2, straight on the `h2`
//! crate so that the generator costs as little as it can beside the target.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use clap::Args;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    hist::Hist,
    payload::{self, Compression, Set, Shape},
    proc::{self, Target, Usage},
    sink,
    wire::Signal,
};

pub type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Args, Clone)]
pub struct LoadArgs {
    /// Address of the OTLP/gRPC receiver (loopback only).
    #[arg(long, default_value = "127.0.0.1:4317")]
    pub to: SocketAddr,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Connections to open.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Requests under way on each connection.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Generator threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Seconds of unmeasured load first.
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Seconds of measured load.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Items a second, spread evenly; without it, as fast as answers come.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Give every pass over the payloads new ids and present times.
    #[arg(long)]
    pub fresh: bool,
    /// Milliseconds left to the target to finish what it holds, before and
    /// after the measured load; its CPU time goes on being counted.
    #[arg(long, default_value_t = 1500)]
    pub settle_ms: u64,
    /// Process to charge: NAME=PID or PID. The first is the one the headline
    /// figure is for. May be repeated.
    #[arg(long = "pid")]
    pub pids: Vec<Target>,
    /// Statistics file of a sink downstream of the target, to see that what
    /// was sent also arrived.
    #[arg(long)]
    pub sink_stats: Option<std::path::PathBuf>,
    /// Said in the output.
    #[arg(long, default_value = "")]
    pub label: String,
    /// Append one line of JSON to this file.
    #[arg(long)]
    pub json: Option<std::path::PathBuf>,
}

#[derive(Args, Clone)]
pub struct ShapeArgs {
    #[arg(long, value_enum, default_value_t = Signal::Traces)]
    pub signal: Signal,
    /// Items in a request: 512 is the SDKs' default, 10 a small batch.
    #[arg(long, default_value_t = 512)]
    pub batch: usize,
    /// Attributes on each item.
    #[arg(long, default_value_t = 10)]
    pub attrs: usize,
    /// Distinct requests to cycle through; by default about 65,000 items.
    #[arg(long)]
    pub payloads: Option<usize>,
    #[arg(long, default_value_t = 12)]
    pub services: usize,
    #[arg(long, default_value_t = 1.5)]
    pub error_pct: f64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub compression: Compression,
}

impl ShapeArgs {
    pub fn shape(&self, complete: bool) -> Shape {
        Shape {
            signal: self.signal,
            batch: self.batch.max(1),
            attrs: self.attrs,
            payloads: self.payloads.unwrap_or((65_536 / self.batch.max(1)).clamp(16, 4096)),
            services: self.services,
            error_pct: self.error_pct,
            complete,
            seed: self.seed,
            compression: self.compression,
        }
    }
}

/// What one phase of load did.
#[derive(Clone)]
struct Tally {
    requests: u64,
    items: u64,
    bytes: u64,
    failed: u64,
    first_error: Option<String>,
    latency: Hist,
}

impl Tally {
    fn new() -> Tally {
        Tally { requests: 0, items: 0, bytes: 0, failed: 0, first_error: None, latency: Hist::new() }
    }

    fn merge(&mut self, o: Tally) {
        self.requests += o.requests;
        self.items += o.items;
        self.bytes += o.bytes;
        self.failed += o.failed;
        self.first_error = self.first_error.take().or(o.first_error);
        self.latency.merge(&o.latency);
    }
}

struct Plan {
    set: Set,
    uri: String,
    encoding: Option<&'static str>,
    fresh: bool,
    time_base: u64,
    next: AtomicU64,
    /// Number of the first request of the phase under way.
    base: AtomicU64,
    /// Nanoseconds between requests, for a fixed rate.
    interval: Option<f64>,
}

pub fn run(args: &LoadArgs) -> Result<(), Error> {
    if !args.to.ip().is_loopback() {
        return Err("the load goes to loopback addresses only".into());
    }
    let shape = args.shape.shape(args.fresh);
    let set = payload::build(&shape);
    let n = set.payloads.len() as f64;
    let mean_items = set.items as f64 / n;
    let mean_bytes = set.bytes as f64 / n;
    let wire_per_item = set.wire_bytes as f64 / set.items as f64;
    println!(
        "{}{:?}: {} payloads, {:.1} {} each, {:.0} B each, {:.1} B an item ({:.1} on the wire)",
        if args.label.is_empty() { String::new() } else { format!("[{}] ", args.label) },
        shape.signal,
        set.payloads.len(),
        mean_items,
        shape.signal.item(),
        mean_bytes,
        set.bytes as f64 / set.items as f64,
        wire_per_item,
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let plan = Arc::new(Plan {
        uri: format!("http://{}{}", args.to, shape.signal.path()),
        encoding: shape.compression.name(),
        fresh: args.fresh,
        time_base: now.wrapping_sub(set.newest),
        next: AtomicU64::new(0),
        base: AtomicU64::new(0),
        interval: args.rate.map(|r| mean_items / r * 1e9),
        set,
    });

    // Each thread: connect, warm up, wait, measure.
    let threads = args.threads.clamp(1, args.connections);
    let barrier = Arc::new(Barrier::new(threads + 1));
    let results = Arc::new(Mutex::new((Tally::new(), Vec::<Error>::new())));
    let mut handles = Vec::new();
    for t in 0..threads {
        let connections = args.connections / threads + usize::from(t < args.connections % threads);
        let (plan, barrier, results) = (plan.clone(), barrier.clone(), results.clone());
        let args = args.clone();
        handles.push(std::thread::spawn(move || {
            let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let mut conns = Vec::new();
            let mut failed = None;
            for _ in 0..connections {
                match rt.block_on(connect(args.to)) {
                    Ok(c) => conns.push(c),
                    Err(e) => failed = Some(e),
                }
            }
            if let Some(e) = failed {
                results.lock().expect("lock").1.push(e);
            } else if args.warmup > 0.0 {
                rt.block_on(phase(&plan, &conns, args.in_flight, args.warmup));
            }
            barrier.wait(); // warmed up
            barrier.wait(); // measured phase starts
            if !conns.is_empty() {
                let tally = rt.block_on(phase(&plan, &conns, args.in_flight, args.duration));
                results.lock().expect("lock").0.merge(tally);
            }
            barrier.wait(); // measured phase ended
        }));
    }

    let settle = Duration::from_millis(args.settle_ms);
    barrier.wait();
    std::thread::sleep(settle);
    // Requests go on being numbered, so that fresh ids stay fresh.
    plan.base.store(plan.next.load(Ordering::SeqCst), Ordering::SeqCst);
    for t in &args.pids {
        proc::reset_peak(t.pid);
    }
    let before: Vec<Usage> = read_all(&args.pids)?;
    let own_before = proc::read(std::process::id())?;
    let sink_before = args.sink_stats.as_deref().map(sink::read_stats).transpose()?;
    let started = Instant::now();
    barrier.wait();
    barrier.wait();
    let wall = started.elapsed().as_secs_f64();
    let own = proc::read(std::process::id())?;
    std::thread::sleep(settle);
    let sink_after = match &args.sink_stats {
        Some(path) => Some(sink::settled_stats(path, Duration::from_secs(30))?),
        None => None,
    };
    let after: Vec<Usage> = read_all(&args.pids)?;
    for h in handles {
        let _ = h.join();
    }
    let (tally, errors) = {
        let mut r = results.lock().expect("lock");
        (r.0.clone(), std::mem::take(&mut r.1))
    };
    if let Some(e) = errors.into_iter().next() {
        return Err(e);
    }

    let item = shape.signal.item();
    let millions = tally.items as f64 / 1e6;
    let ms = |ns: u64| ns as f64 / 1e6;
    println!(
        "  {:.0} requests/s  {:.0} {item}/s  {:.1} MB/s wire  in {wall:.2} s, {} requests failed",
        tally.requests as f64 / wall,
        tally.items as f64 / wall,
        tally.bytes as f64 / wall / 1e6,
        tally.failed,
    );
    if let Some(e) = &tally.first_error {
        println!("  first failure: {e}");
    }
    println!(
        "  latency ms: p50 {:.2}  p90 {:.2}  p99 {:.2}  max {:.2}",
        ms(tally.latency.quantile(0.5)),
        ms(tally.latency.quantile(0.9)),
        ms(tally.latency.quantile(0.99)),
        ms(tally.latency.max()),
    );
    let mut json = format!(
        "{{\"label\":{:?},\"signal\":\"{:?}\",\"batch\":{mean_items:.1},\"attrs\":{},\"bytes_per_item\":{:.1},\"wire_bytes_per_item\":{wire_per_item:.1},\"connections\":{},\"in_flight\":{},\"fresh\":{},\"rate\":{},\"wall_s\":{wall:.3},\"requests\":{},\"items\":{},\"failed\":{},\"items_per_s\":{:.0},\"mb_per_s\":{:.1},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"targets\":[",
        args.label,
        shape.signal,
        shape.attrs,
        plan.set.bytes as f64 / plan.set.items as f64,
        args.connections,
        args.in_flight,
        args.fresh,
        args.rate.map_or("null".into(), |r| r.to_string()),
        tally.requests,
        tally.items,
        tally.failed,
        tally.items as f64 / wall,
        tally.bytes as f64 / wall / 1e6,
        ms(tally.latency.quantile(0.5)),
        ms(tally.latency.quantile(0.99)),
    );
    for (i, (t, (b, a))) in args.pids.iter().zip(before.iter().zip(&after)).enumerate() {
        let cpu = a.cpu - b.cpu;
        let per_m = cpu / millions;
        println!(
            "  {}: {per_m:.3} CPU-s per 1M {item} ({:.0} {item}/s/core), {:.3} CPU-ms per MB; user {:.2} s, sys {:.2} s, {:.0}% of a core; peak RSS {:.1} MiB (now {:.1}), {} threads",
            t.name,
            1e6 / per_m,
            cpu * 1e3 / (tally.bytes as f64 / 1e6),
            a.user - b.user,
            a.system - b.system,
            cpu / wall * 100.0,
            a.peak_rss_kib as f64 / 1024.0,
            a.rss_kib as f64 / 1024.0,
            a.threads,
        );
        json += &format!(
            "{}{{\"name\":{:?},\"cpu_s_per_million\":{per_m:.4},\"items_per_core_s\":{:.0},\"user_s\":{:.2},\"sys_s\":{:.2},\"peak_rss_mib\":{:.1}}}",
            if i > 0 { "," } else { "" },
            t.name,
            1e6 / per_m,
            a.user - b.user,
            a.system - b.system,
            a.peak_rss_kib as f64 / 1024.0,
        );
    }
    json += "]";
    let own_cpu = own.cpu - own_before.cpu;
    println!(
        "  generator: {:.3} CPU-s per 1M {item} (user {:.2} s, sys {:.2} s)",
        own_cpu / millions,
        own.user - own_before.user,
        own.system - own_before.system,
    );
    json += &format!(",\"generator_cpu_s_per_million\":{:.4}", own_cpu / millions);
    if let (Some(b), Some(a)) = (sink_before, sink_after) {
        let got = a.items - b.items;
        println!(
            "  sink downstream: {got} {item} in {} requests ({:+.3}% against what was accepted)",
            a.requests - b.requests,
            (got as f64 / tally.items as f64 - 1.0) * 100.0,
        );
        json += &format!(",\"sink_items\":{got},\"sink_requests\":{}", a.requests - b.requests);
    }
    json += "}\n";
    if let Some(path) = &args.json {
        use std::io::Write;
        std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(json.as_bytes())?;
    }
    Ok(())
}

fn read_all(pids: &[Target]) -> Result<Vec<Usage>, Error> {
    pids.iter().map(|t| proc::read(t.pid).map_err(|e| format!("{}: {e}", t.name).into())).collect()
}

pub async fn connect(to: SocketAddr) -> Result<SendRequest<Bytes>, Error> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .max_send_buffer_size(16 << 20)
        .handshake(tcp)
        .await?;
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            eprintln!("connection: {e}");
        }
    });
    Ok(send)
}

async fn phase(plan: &Arc<Plan>, conns: &[SendRequest<Bytes>], in_flight: usize, seconds: f64) -> Tally {
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(seconds);
    let mut workers = JoinSet::new();
    for c in conns {
        for _ in 0..in_flight {
            workers.spawn(worker(plan.clone(), c.clone(), start, until));
        }
    }
    let mut tally = Tally::new();
    while let Some(t) = workers.join_next().await {
        tally.merge(t.expect("a worker does not panic"));
    }
    tally
}

async fn worker(plan: Arc<Plan>, mut conn: SendRequest<Bytes>, start: Instant, until: Instant) -> Tally {
    let mut tally = Tally::new();
    let n = plan.set.payloads.len() as u64;
    let base = plan.base.load(Ordering::Relaxed);
    loop {
        let i = plan.next.fetch_add(1, Ordering::Relaxed);
        // At a fixed rate, latency counts from when the request was due, so
        // that a slow target does not hide its own queue.
        let due = match plan.interval {
            Some(ns) => {
                let due = start + Duration::from_nanos((ns * (i - base) as f64) as u64);
                if due >= until {
                    return tally;
                }
                if due > Instant::now() {
                    tokio::time::sleep_until(due.into()).await;
                }
                due
            }
            None => {
                let now = Instant::now();
                if now >= until {
                    return tally;
                }
                now
            }
        };
        let p = &plan.set.payloads[(i % n) as usize];
        let body = if plan.fresh {
            // Times move on with the wall clock.
            let shift = plan.time_base.wrapping_add(start.elapsed().as_nanos() as u64);
            p.fresh(i / n, shift)
        } else {
            p.framed()
        };
        let len = body.len() as u64;
        match export(&mut conn, &plan.uri, plan.encoding, body).await {
            Ok(()) => {
                tally.requests += 1;
                tally.items += p.items;
                tally.bytes += len;
                tally.latency.add(due.elapsed().as_nanos() as u64);
            }
            Err(e) => {
                tally.failed += 1;
                tally.first_error.get_or_insert_with(|| e.to_string());
                // A refusing target is not to be hammered in a tight loop.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// One unary call; `body` is the gRPC prefix and message.
pub async fn export(conn: &mut SendRequest<Bytes>, uri: &str, encoding: Option<&'static str>, body: Bytes) -> Result<(), Error> {
    let mut req =
        Request::builder().method(Method::POST).uri(uri).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(enc) = encoding {
        req = req.header("grpc-encoding", enc);
    }
    std::future::poll_fn(|cx| conn.poll_ready(cx)).await?;
    let (response, mut stream) = conn.send_request(req.body(())?, false)?;
    stream.send_data(body, true)?;
    let response = response.await?;
    if response.status() != 200 {
        return Err(format!("HTTP {}", response.status()).into());
    }
    if let Some(s) = grpc_status(response.headers()) {
        return s;
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let n = data?.len();
        body.flow_control().release_capacity(n)?;
    }
    match body.trailers().await? {
        Some(t) => grpc_status(&t).unwrap_or_else(|| Err("no grpc-status".into())),
        None => Err("no trailers".into()),
    }
}

fn grpc_status(h: &HeaderMap) -> Option<Result<(), Error>> {
    let code = h.get("grpc-status")?;
    Some(if code == "0" {
        Ok(())
    } else {
        let message = h.get("grpc-message").and_then(|m| m.to_str().ok()).unwrap_or("");
        Err(format!("grpc-status {}: {message}", code.to_str().unwrap_or("?")).into())
    })
}
