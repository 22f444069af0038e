//! `weir demo`: a shop that does not exist, instrumented with the official OpenTelemetry SDK.
//!
//! In:   a rate, a seed.
//! Out:  traces, logs and metrics of ten services over OTLP.
//! Full: before an SDK's queue would drop, the next visit waits.
//! Lost: what an export failed to deliver; said at the end, and the exit code tells.
//!
//! Every visit is first written down as a script of relative times and then told to the SDKs as something that has just ended, so that a
//! slow request needs no waiting and one seed gives the same traces on any machine.

mod random;
mod script;
mod shop;
mod staff;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use clap::Args;
use opentelemetry_otlp::ExporterBuildError;
use tokio::{
    signal::ctrl_c,
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    config::{GoDuration, shown_url},
    internal_telemetry::{OtlpProtocol, OtlpTarget},
    runtime::Clock,
};
use script::Service;
use staff::{Staff, Targets, Worker};

/// Sends the telemetry of an emulated shop.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Where to send [default: http://127.0.0.1:4317, or :4318 with --http]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// OTLP over HTTP with protobuf instead of gRPC
    #[arg(long)]
    pub http: bool,
    /// Visits to the shop a second; each is one to three traces
    #[arg(long, default_value_t = 5.0, value_name = "N", value_parser = rate)]
    pub rate: f64,
    /// How long to send, such as 30s or 5m [default: until interrupted]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Share of the visits that fail, in percent
    #[arg(long, default_value_t = 5.0, value_name = "PCT", value_parser = percent)]
    pub error_pct: f64,
    /// Repeats a run: the same visits, durations, faults and ids [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 100_000.0 => Ok(rate),
        _ => Err("a number over 0, at most 100000".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("a number from 0 to 100".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    GoDuration::parse(text).ok_or_else(|| "a duration such as 30s or 5m".to_owned())
}

/// The demo could not begin, or its own output broke off.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("the demo sends to http:// endpoints only, not to {}", shown_url(.0))]
    Endpoint(String),
    #[error("nothing takes anything at {base}: {error}; `weir` alone starts a server that does")]
    Nobody { base: String, error: String },
    #[error("the exporter could not be made")]
    Exporter(#[from] ExporterBuildError),
    #[error("nothing can be printed")]
    Output(#[from] io::Error),
    #[error("the SDKs could not be stopped")]
    Stop(#[from] JoinError),
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    pub visits: u64,
    /// Items that the other side said it took.
    pub spans: u64,
    pub logs: u64,
    pub points: u64,
    /// Items that did not arrive, as far as is known here.
    pub lost: u64,
    pub exports_failed: u64,
    pub last_error: Option<String>,
}

impl Totals {
    /// Whether everything arrived.
    pub const fn complete(&self) -> bool {
        self.lost == 0 && self.exports_failed == 0
    }

    /// The error, where nothing was ever delivered because nobody could be reached.
    fn nobody_there(&self) -> Option<&str> {
        let error = self.last_error.as_deref().filter(|error| is_unreachable(error))?;
        (self.spans + self.logs + self.points == 0).then_some(error)
    }

    fn of(visits: u64, workers: &[Worker], ended: bool) -> Self {
        let mut totals = Self { visits, ..Self::default() };
        for worker in workers {
            totals.spans += worker.spans.tally().delivered();
            totals.logs += worker.logs.tally().delivered();
            totals.points += worker.points.tally().delivered();
            for account in [&worker.spans, &worker.logs, &worker.points] {
                let tally = account.tally();
                totals.lost += tally.lost();
                if ended {
                    // What was handed over and never came to an export was dropped by the SDK.
                    totals.lost += account.handed().saturating_sub(tally.delivered() + tally.lost());
                }
                totals.exports_failed += tally.requests_failed();
                totals.last_error = tally.last_error().or(totals.last_error);
            }
        }
        totals
    }
}

/// Runs the shop for as long as `args` says or until it is interrupted, and says on `out` what it does.
pub async fn run(args: DemoArgs, out: &mut (dyn Write + Send)) -> Result<Totals, DemoError> {
    let clock = Clock::system();
    let seed = args.seed.unwrap_or_else(|| clock.now().0 % 1_000_000);
    let (base, targets) = targets(&args)?;
    let protocol = if args.http { "HTTP/protobuf" } else { "gRPC" };
    let names = Service::ALL.map(Service::name).join(", ");
    writeln!(out, "sending to {base} by OTLP/{protocol}: {} visits/s, {} % failing, seed {seed}", args.rate, args.error_pct)?;
    writeln!(out, "services: {names}")?;
    let staff = Staff::hire(&targets, seed, Duration::from_secs(5))?;

    let begun = Instant::now();
    // Counted beforehand, so that a run of one length has one number of visits on any machine.
    let visits_max = args.duration.map(|duration| (duration.as_secs_f64() * args.rate).round() as u64);
    let mut said = begun;
    let mut visits = 0;
    let mut interrupted = Box::pin(ctrl_c());
    while visits_max.is_none_or(|max| visits < max) {
        let due = begun + Duration::from_secs_f64(visits as f64 / args.rate);
        tokio::select! {
            _ = &mut interrupted => break,
            () = wait(due, &staff) => {}
        }
        let script = shop::visit(seed, visits, args.error_pct);
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(clock.now().0);
        staff.play(&script, now - Duration::from_micros(script.length()));
        visits += 1;
        if said.elapsed() >= Duration::from_secs(5) {
            said = Instant::now();
            let totals = Totals::of(visits, &staff.workers, false);
            if let Some(error) = totals.nobody_there() {
                let error = error.to_owned();
                spawn_blocking(|| staff.dismiss()).await?;
                return Err(DemoError::Nobody { base, error });
            }
            progress(out, begun.elapsed(), &totals)?;
        }
    }
    let workers = spawn_blocking(|| staff.dismiss()).await?;
    let totals = Totals::of(visits, &workers, true);
    summary(out, &base, &totals)?;
    Ok(totals)
}

/// Whether an SDK's error says that there was nobody to talk to. The SDK hands on text only; over HTTP it says no more than "network error".
fn is_unreachable(error: &str) -> bool {
    ["connect error", "Connection refused", "network error", "dns error"].iter().any(|text| error.contains(text))
}

/// Until `due`, and until the SDKs have room.
async fn wait(due: Instant, staff: &Staff) {
    if due > Instant::now() {
        sleep_until(due).await;
    }
    while staff.behind() > Staff::behind_max() {
        sleep(Duration::from_millis(5)).await;
    }
}

fn targets(args: &DemoArgs) -> Result<(String, Targets), DemoError> {
    let written = match (&args.endpoint, args.http) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, false) => "http://127.0.0.1:4317".to_owned(),
        (None, true) => "http://127.0.0.1:4318".to_owned(),
    };
    let base = match written.split_once("://") {
        None => format!("http://{written}"),
        Some(("http", _)) => written,
        Some(_) => return Err(DemoError::Endpoint(written)),
    };
    let base = base.trim_end_matches('/').to_owned();
    let target = |path: &str| OtlpTarget {
        protocol: if args.http { OtlpProtocol::HttpProtobuf } else { OtlpProtocol::Grpc },
        endpoint: if args.http { format!("{base}{path}") } else { base.clone() },
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(10),
        delta: false,
    };
    let targets = Targets { traces: target("/v1/traces"), logs: target("/v1/logs"), metrics: target("/v1/metrics") };
    Ok((base, targets))
}

fn progress(out: &mut dyn Write, elapsed: Duration, totals: &Totals) -> io::Result<()> {
    write!(
        out,
        "{:>4} s  {} visits, accepted: {} spans, {} log records, {} metric points",
        elapsed.as_secs(),
        totals.visits,
        totals.spans,
        totals.logs,
        totals.points
    )?;
    if totals.lost > 0 {
        write!(out, "; {} lost ({})", totals.lost, totals.last_error.as_deref().unwrap_or_default())?;
    }
    writeln!(out)
}

fn summary(out: &mut dyn Write, base: &str, totals: &Totals) -> io::Result<()> {
    writeln!(
        out,
        "done: {} visits, accepted: {} spans, {} log records, {} metric points; exports failed: {}, items lost: {}",
        totals.visits, totals.spans, totals.logs, totals.points, totals.exports_failed, totals.lost
    )?;
    if let Some(error) = &totals.last_error {
        writeln!(out, "the last export that failed: {error}")?;
        if is_unreachable(error) {
            writeln!(out, "is something listening on {base}? `weir` alone starts one that does")?;
        }
    }
    Ok(())
}
