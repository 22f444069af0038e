//! One round: every scraper is asked once, and what each could not read is noted.

use std::collections::HashMap;

use prometheus::IntCounter;

use super::{
    host::{Fault, Host},
    metric::Conventions,
    sheet::{Attributes, Body, Chosen, Metrics, Sheet},
};
use crate::{
    internal_telemetry::{SCRAPER_ERRORED, SCRAPER_SCRAPED, Telemetry},
    runtime::Clock,
    signal::ComponentId,
};

/// What reads one part of the host.
pub(super) trait Scraper: Send {
    /// As the settings call it.
    fn name(&self) -> &'static str;
    /// Writes what it finds; what it cannot read it leaves out and notes.
    fn scrape(&mut self, part: &mut Part<'_>);
}

/// The part of a round that one scraper does.
pub(super) struct Part<'a> {
    pub(super) host: &'a Host,
    /// Nanoseconds since 1970.
    pub(super) now: u64,
    /// When the host booted; 0 where that is not known.
    pub(super) boot: u64,
    sheet: &'a mut Sheet,
    noted: Noted,
}

/// What one scraper did in a round.
#[derive(Debug, Default)]
struct Noted {
    points: u64,
    /// Metrics that are missing for faults.
    errored: u64,
    /// The first that someone should know of, and how many there were.
    fault: Option<Fault>,
    faults: u64,
}

impl Part<'_> {
    /// Writes metrics of the host itself.
    pub(super) fn write(&mut self, chosen: &Chosen, write: impl FnOnce(&mut Metrics<'_>)) {
        self.resource(self.boot, |_| {}, chosen, write);
    }

    /// Writes metrics of something on the host that began at `start`.
    pub(super) fn resource(
        &mut self,
        start: u64,
        attributes: impl FnOnce(&mut Attributes<'_>),
        chosen: &Chosen,
        write: impl FnOnce(&mut Metrics<'_>),
    ) {
        self.noted.points += self.sheet.resource((start, self.now), attributes, chosen, write);
    }

    /// The value, or a note that `metrics` of them are missing for want of it.
    pub(super) fn read<T>(&mut self, metrics: u64, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.missing(metrics, fault)).ok()
    }

    pub(super) fn missing(&mut self, metrics: u64, fault: Fault) {
        self.noted.errored += metrics;
        // What ends while it is looked at is counted, and nobody's fault.
        if !fault.is_gone() || is_of_host(&fault) {
            self.noted.faults += 1;
            self.noted.fault.get_or_insert(fault);
        }
    }
}

/// A process may go at any time; a file of the host itself may not.
fn is_of_host(fault: &Fault) -> bool {
    let Fault::Unread { path, .. } = fault else { return true };
    path.split('/').nth(1).is_none_or(|part| part.parse::<u32>().is_err())
}

/// What the rounds have in common.
pub(super) struct Rounds {
    host: Host,
    conventions: Conventions,
    scrapers: Vec<Box<dyn Scraper>>,
    reports: Reports,
    clock: Clock,
    /// Kept once it is known: where the clock is set, the kernel reckons another, and no counter began anew for that.
    boot: u64,
}

impl Rounds {
    pub(super) fn new(
        host: Host,
        conventions: Conventions,
        scrapers: Vec<Box<dyn Scraper>>,
        (telemetry, id): (&Telemetry, &ComponentId),
        clock: Clock,
    ) -> Self {
        let reports = Reports::new(telemetry, id, scrapers.iter().map(|scraper| scraper.name()));
        Self { host, conventions, scrapers, reports, clock, boot: 0 }
    }

    /// Reads the whole host once.
    pub(super) fn collect(&mut self) -> Vec<Body> {
        if self.boot == 0 {
            self.boot = self.host.kernel_stats().map_or(0, |stats| stats.btime.saturating_mul(1_000_000_000));
        }
        let mut sheet = Sheet::new(self.conventions);
        for scraper in &mut self.scrapers {
            let mut part =
                Part { host: &self.host, now: self.clock.now().0, boot: self.boot, sheet: &mut sheet, noted: Noted::default() };
            scraper.scrape(&mut part);
            let noted = part.noted;
            self.reports.tell(scraper.name(), noted);
        }
        sheet.finish()
    }
}

/// The counts of what was read and what was not, and the lines of the log about it.
struct Reports {
    receiver: ComponentId,
    counters: HashMap<&'static str, (IntCounter, IntCounter)>,
    /// Scrapers whose last round lacked something.
    lacking: HashMap<&'static str, u64>,
}

impl Reports {
    fn new(telemetry: &Telemetry, receiver: &ComponentId, scrapers: impl Iterator<Item = &'static str>) -> Self {
        let counters = scrapers.map(|name| {
            let labels = [("receiver", receiver.as_str()), ("scraper", name)];
            let scraped = telemetry.counter(SCRAPER_SCRAPED, "Data points that a scraper read.", &labels);
            let errored = telemetry.counter(SCRAPER_ERRORED, "Metrics that a scraper could not read.", &labels);
            (name, (scraped, errored))
        });
        Self { receiver: receiver.clone(), counters: counters.collect(), lacking: HashMap::new() }
    }

    fn tell(&mut self, scraper: &'static str, noted: Noted) {
        if let Some((scraped, errored)) = self.counters.get(scraper) {
            scraped.inc_by(noted.points);
            errored.inc_by(noted.errored);
        }
        let receiver = &self.receiver;
        match noted.fault {
            // One line when it begins; how it goes on is counted.
            Some(fault) if self.lacking.insert(scraper, noted.faults).is_none() => tracing::warn!(
                %receiver,
                scraper,
                error = %fault,
                faults = noted.faults,
                "a part of the host's metrics is left out until it can be read"
            ),
            Some(_) => {}
            None => {
                if self.lacking.remove(scraper).is_some() {
                    tracing::info!(%receiver, scraper, "all of the host's metrics that are asked for can be read again");
                }
            }
        }
    }
}
