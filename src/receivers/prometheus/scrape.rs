//! Scrapes one target, again and again: page, points, markers, series about the scrape.
//!
//! In:   a target and its job.
//! Out:  OTLP metrics for the [`Inlet`]: what the page said, `up` and `scrape_…`, and markers for series that are gone.
//! Full: what the door refuses for want of room is tried again until the next scrape is due, then it is lost and counted `refused`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use prometheus::IntGauge;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at},
};

use super::{
    duration,
    job::{BODY_BYTES_MAX, Job, Protocol, accept},
    memory::Memory,
    parse::{self, Fault, protobuf::Wanted},
    reports::Reports,
    sheet::{Body, Sheet},
    target::{Target, delay},
    translate::Page,
    web::{Failure, Fetched, Web},
};
use crate::{
    config::shown_url,
    door::{Arrival, Inlet, Refusal, heavy},
    runtime::{Clock, Shutdown},
    signal::Signal,
    transport::client::http::Client,
};

/// Bodies are joined up to this size.
const BODY_BYTES: usize = 2 << 20;
/// Bytes of pages that are read at once and not handed over yet, each of which becomes several times as much on the way.
pub(super) const PAGES_BYTES_MAX: usize = BODY_BYTES_MAX;
/// How long markers of a target that is gone are offered to a door without room.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the scrapes of one job share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) job: Arc<Job>,
    pub(super) web: Arc<Web>,
    pub(super) inlet: Arc<dyn Inlet>,
    pub(super) clock: Clock,
    pub(super) reports: Reports,
    pub(super) series: IntGauge,
    /// Bytes of pages that may be read now, of all jobs.
    pub(super) pages: Arc<Semaphore>,
    /// The job has more targets than `target_limit`: none of them is scraped.
    pub(super) too_many: Arc<AtomicBool>,
}

/// A scrape that gave nothing.
enum Failed {
    Web(Failure),
    Late(Duration),
    TooMany(u64),
    MediaType(String),
    Page(&'static str, usize, Fault),
}

impl Failed {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Web(failure) => failure.reason(),
            Self::Late(_) => "timeout",
            Self::TooMany(_) => "target_limit",
            Self::MediaType(_) => "media_type",
            Self::Page(_, _, Fault::Malformed(_)) => "malformed",
            Self::Page(_, _, Fault::Limit(_)) => "limit",
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Web(failure) => failure.to_string(),
            Self::Late(limit) => format!("no whole page within {}", duration::text(*limit)),
            Self::TooMany(limit) => format!("the job has more targets than `target_limit` ({limit})"),
            Self::MediaType(media_type) => {
                format!(
                    "the page is of the type `{media_type}`, which is none of Prometheus'; `fallback_scrape_protocol` says what it is"
                )
            }
            Self::Page(what, line, Fault::Malformed(problem)) => format!("{what} {line}: {problem}"),
            Self::Page(what, line, Fault::Limit(problem)) => format!("{problem} ({what} {line})"),
        }
    }
}

/// One target, and what it told last.
pub(super) struct Scraper {
    shared: Shared,
    target: Target,
    /// Made when it is first needed: certificates may come later than targets.
    client: Option<Client>,
    memory: Memory,
    /// Series that stand in the gauge.
    counted: i64,
    failing: Option<&'static str>,
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.shared.series.sub(self.counted);
    }
}

impl Scraper {
    pub(super) fn new(shared: Shared, target: Target) -> Self {
        Self { shared, target, client: None, memory: Memory::default(), counted: 0, failing: None }
    }

    /// Until `removed`, when all of its series end, or `shutdown`, when they go on after a restart.
    pub(super) async fn run(mut self, removed: Shutdown, shutdown: Shutdown) {
        let first = Instant::now() + delay(&self.target, self.shared.clock.now().0);
        let mut ticks = interval_at(first, self.target.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let tick = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = removed.cancelled() => break,
                tick = ticks.tick() => tick,
            };
            let due = tick + self.target.interval;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.scrape(due) => {}
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.end() => {}
        }
    }

    async fn scrape(&mut self, due: Instant) {
        let began = Instant::now();
        // Prometheus counts in milliseconds.
        let time = self.shared.clock.now().0 / 1_000_000 * 1_000_000;
        let fetched = self.fetch().await;
        let pages = self.shared.pages.clone();
        let bytes = fetched.as_ref().map_or(0, |fetched| fetched.body.len().min(PAGES_BYTES_MAX));
        let Ok(_reading) = timeout_at(due, pages.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX))).await else {
            self.tell(Some(("refused", "the pages of others were read until the next scrape was due".to_owned())));
            return;
        };
        let job = self.shared.job.clone();
        let target = self.target.clone();
        let mut page = Page::new(&job, &target.labels, &target.scheme, time);
        let (mut before, mut now) = (Sheet::default(), Sheet::default());
        let made = fetched.and_then(|fetched| {
            let bytes = fetched.body.len();
            heavy(bytes, || {
                read(&job, &fetched, &mut page)?;
                let told = page.write(&mut now).map_err(|fault| Failed::Page("page of bytes", bytes, fault))?;
                let added = self.memory.compare(&told, time, &mut before);
                Ok((told, added, bytes))
            })
        });
        let (failed, told, added, bytes) = match made {
            Ok((told, added, bytes)) => (None, Some(told), added, bytes),
            Err(Failed::Web(Failure::Room(refusal))) => {
                // Nothing is known of the target: it is neither up nor down.
                self.tell(Some(("refused", refusal.to_string())));
                return;
            }
            Err(failed) => {
                let counts = (page.scraped, page.kept);
                page.clear();
                now = Sheet::default();
                (page.scraped, page.kept) = counts;
                self.memory.end(time, &mut before);
                (Some(failed), None, 0, 0)
            }
        };
        let now = now.finish();
        self.report(&mut page, failed.is_none(), began.elapsed(), added, bytes);
        let mut about = Sheet::default();
        // A handful of numbers has no limit to exceed.
        drop(page.write(&mut about));
        self.shared.reports.left_out(&page.lost);
        let bodies = before.finish().into_iter().chain(now.iter().cloned()).chain(about.finish());
        let taken = self.deliver(joined(bodies), due).await;
        if let Err(refusal) = taken {
            self.tell(Some(("refused", refusal)));
            return;
        }
        match told {
            Some(told) => {
                heavy(told.len() * 64, || self.memory.told(&told, &now));
                self.count(told.len());
            }
            None => self.memory.ended(),
        }
        self.tell(failed.map(|failed| (failed.reason(), failed.words())));
    }

    fn count(&mut self, series: usize) {
        let series = i64::try_from(series).unwrap_or(i64::MAX);
        self.shared.series.add(series - self.counted);
        self.counted = series;
    }

    /// Counts the scrape, and says what is new about the target.
    fn tell(&mut self, failed: Option<(&'static str, String)>) {
        let Shared { job, reports, .. } = &self.shared;
        reports.scraped(&job.name, failed.as_ref().map_or("ok", |(reason, _)| reason));
        let url = self.target.url.to_string();
        let (receiver, job, target) = (&*reports.receiver, &job.name, shown_url(&url));
        match failed {
            Some((reason, error)) if self.failing.replace(reason) != Some(reason) => {
                tracing::warn!(receiver, job, %target, reason, error, "a scrape failed");
            }
            Some(_) => {}
            None => {
                if self.failing.take().is_some() {
                    tracing::info!(receiver, job, %target, "the target is scraped again");
                }
            }
        }
    }

    async fn fetch(&mut self) -> Result<Fetched, Failed> {
        let Shared { job, web, too_many, .. } = &self.shared;
        if too_many.load(Ordering::Relaxed) {
            return Err(Failed::TooMany(job.limits.targets));
        }
        let client = if let Some(client) = &self.client {
            client
        } else {
            let made = web.client(&self.target.url).map_err(|error| Failed::Web(error.into()))?;
            self.client.insert(made)
        };
        let encoding = if job.compression { "gzip" } else { "identity" };
        let headers = [
            (ACCEPT, accept(&job.protocols, &job.escaping)),
            (ACCEPT_ENCODING, encoding.to_owned()),
            (HeaderName::from_static("x-prometheus-scrape-timeout-seconds"), format!("{}", self.target.timeout.as_secs_f64())),
        ];
        let getting = web.get(client, &self.target.url, &headers, job.limits.body_bytes);
        match timeout(self.target.timeout, getting).await {
            Ok(got) => got.map_err(Failed::Web),
            Err(_) => Err(Failed::Late(self.target.timeout)),
        }
    }

    fn report(&self, page: &mut Page<'_>, up: bool, took: Duration, added: u64, bytes: usize) {
        let (scraped, kept) = (page.scraped as f64, page.kept as f64);
        page.report("up", "Whether the scrape worked", "", Some(f64::from(u8::from(up))));
        page.report("scrape_duration_seconds", "How long the scrape took", "seconds", Some(took.as_secs_f64()));
        page.report("scrape_samples_scraped", "Samples on the page", "", Some(scraped));
        page.report("scrape_samples_post_metric_relabeling", "Samples that relabelling left", "", Some(kept));
        page.report("scrape_series_added", "About how many series are new", "", Some(added as f64));
        let job = &self.shared.job;
        if job.extra {
            let samples = if job.limits.samples == u64::MAX { 0 } else { job.limits.samples };
            page.report(
                "scrape_timeout_seconds",
                "How long the scrape may take",
                "seconds",
                Some(self.target.timeout.as_secs_f64()),
            );
            page.report("scrape_sample_limit", "How many samples the page may have; 0: no limit", "", Some(samples as f64));
            page.report("scrape_body_size_bytes", "How large the page was", "bytes", Some(bytes as f64));
        }
    }

    /// The target is gone: so are its series.
    async fn end(&mut self) {
        let time = self.shared.clock.now().0 / 1_000_000 * 1_000_000;
        let job = self.shared.job.clone();
        let mut sheet = Sheet::default();
        self.memory.end(time, &mut sheet);
        let mut page = Page::new(&job, &self.target.labels, &self.target.scheme, time);
        let usual = [
            ("up", "Whether the scrape worked", ""),
            ("scrape_duration_seconds", "How long the scrape took", "seconds"),
            ("scrape_samples_scraped", "Samples on the page", ""),
            ("scrape_samples_post_metric_relabeling", "Samples that relabelling left", ""),
            ("scrape_series_added", "About how many series are new", ""),
        ];
        let more = [
            ("scrape_timeout_seconds", "How long the scrape may take", "seconds"),
            ("scrape_sample_limit", "How many samples the page may have; 0: no limit", ""),
            ("scrape_body_size_bytes", "How large the page was", "bytes"),
        ];
        for (name, help, unit) in usual.into_iter().chain(more.into_iter().filter(|_| job.extra)) {
            page.report(name, help, unit, None);
        }
        drop(page.write(&mut sheet));
        let bodies = joined(sheet.finish().into_iter());
        if let Err(error) = self.deliver(bodies, Instant::now() + LAST_WORDS).await {
            let (receiver, job) = (&*self.shared.reports.receiver, &job.name);
            let url = self.target.url.to_string();
            tracing::warn!(receiver, job, target = %shown_url(&url), error, "that the series of a target have ended could not be told");
        }
    }

    /// Hands it over, again and again until `until` while there is no room. Fails where nothing of it was taken.
    async fn deliver(&self, bodies: Vec<Body>, until: Instant) -> Result<(), String> {
        let mut taken = false;
        for Body { payload, points } in bodies {
            let refusal = loop {
                let arrival = Arrival {
                    signal: Signal::Metrics,
                    payload: payload.clone(),
                    context: Arc::default(),
                    transport: "http",
                    peer: None,
                    ticket: None,
                    strict_utf8: false,
                };
                let refusal = match self.shared.inlet.accept(arrival).done().await {
                    Ok(accepted) => {
                        accepted.pace.over().await;
                        break None;
                    }
                    Err(refusal) => refusal,
                };
                let again = match &refusal {
                    Refusal::Full { retry_after, .. } => Instant::now() + *retry_after,
                    _ => until,
                };
                if again >= until {
                    break Some(refusal);
                }
                sleep_until(again).await;
            };
            match refusal {
                None => taken = true,
                Some(refusal) if !taken => return Err(refusal.to_string()),
                Some(refusal) => {
                    let receiver = &*self.shared.reports.receiver;
                    tracing::warn!(receiver, points, error = %refusal, "a part of a scrape is dropped; the next one has newer numbers");
                }
            }
        }
        Ok(())
    }
}

/// Neighbours as one, as far as they fit.
fn joined(bodies: impl Iterator<Item = Body>) -> Vec<Body> {
    let mut out: Vec<Body> = Vec::new();
    for body in bodies {
        match out.last_mut() {
            Some(last) if last.payload.len() + body.payload.len() <= BODY_BYTES => {
                let mut both = Vec::with_capacity(last.payload.len() + body.payload.len());
                both.extend_from_slice(&last.payload);
                both.extend_from_slice(&body.payload);
                last.payload = both.into();
                last.points += body.points;
            }
            _ => out.push(body),
        }
    }
    out
}

fn read(job: &Job, fetched: &Fetched, page: &mut Page<'_>) -> Result<(), Failed> {
    let body = &fetched.body;
    match format(&fetched.media_type).or(job.fallback) {
        Some(Protocol::OpenMetrics1 | Protocol::OpenMetrics0) => {
            parse::text::read(body, true, page).map_err(|(line, fault)| Failed::Page("line", line, fault))
        }
        Some(Protocol::Text1 | Protocol::Text0) => {
            parse::text::read(body, false, page).map_err(|(line, fault)| Failed::Page("line", line, fault))
        }
        Some(Protocol::Protobuf) => {
            let wanted = Wanted { native: job.native, classic_beside: job.classic_beside };
            parse::protobuf::read(body, wanted, page).map_err(|(family, fault)| Failed::Page("family", family, fault))
        }
        None => {
            let media_type: String = fetched.media_type.chars().take(100).collect();
            Err(Failed::MediaType(media_type))
        }
    }
}

/// What a page says it is.
fn format(media_type: &str) -> Option<Protocol> {
    let mut parts = media_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    if kind.eq_ignore_ascii_case("text/plain") {
        Some(Protocol::Text0)
    } else if kind.eq_ignore_ascii_case("application/openmetrics-text") {
        Some(Protocol::OpenMetrics1)
    } else if kind.eq_ignore_ascii_case("application/vnd.google.protobuf") {
        let is_ours = parts.any(|part| part.eq_ignore_ascii_case("proto=io.prometheus.client.MetricFamily"));
        is_ours.then_some(Protocol::Protobuf)
    } else {
        None
    }
}
