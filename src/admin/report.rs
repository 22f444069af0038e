//! How a running weir stands: what came in, where it is, who is behind and why.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Admin, VERSION};
use crate::{
    delivery::{Live, Replays},
    journal::{self, DropReason, Lag},
    pipeline::{Orphaned, Used},
    runtime::{State, blocking},
    signal::UnixNanos,
};

/// The answer to `/v1/live`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the protocol.
    pub version: u32,
    pub weir: String,
    pub pid: u32,
    pub time_unix_nanos: u64,
    pub uptime_seconds: f64,
    /// `ok`, or what is wrong with the whole.
    pub state: String,
    /// Why no data is taken, where that is so.
    pub refusing: Option<String>,
    /// Someone asked that this process may go: `closing`, or `closed` when nothing comes in any more.
    #[serde(default)]
    pub drain: Option<String>,
    /// `None`: in memory.
    pub journal: Option<JournalRoom>,
    pub topics: Vec<TopicReport>,
    pub consumers: Vec<Consumer>,
    /// Consumers that the configuration does not have, and what the journal holds for them.
    #[serde(default)]
    pub orphans: Vec<Orphan>,
    /// Whether the books of every consumer balance.
    pub balanced: bool,
}

/// What lies in a topic for a consumer that the configuration does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    pub consumer: String,
    pub topic: String,
    /// At most: which of the records were for it is not kept.
    pub held: Amount,
    /// Items that were let go by `weir journal rm`.
    pub removed_items: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRoom {
    pub directory: String,
    /// Bytes that its files take, and may take (`journal::max_size`): those of records and of dead letters.
    pub bytes: u64,
    pub bytes_max: u64,
    /// Of that, records that wait for their consumers; when this is used up, no data is taken.
    #[serde(default)]
    pub records: Room,
    /// Of that, dead letters; when this is used up, the oldest go.
    #[serde(default)]
    pub letters: Room,
    /// What backends refused for good, of all consumers, until it is delivered by `weir journal replay` or makes room.
    pub dead_letters: Amount,
}

/// Bytes of files that there are, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub bytes: u64,
    pub bytes_max: u64,
}

impl From<Used> for Room {
    fn from(used: Used) -> Self {
        Self { bytes: used.bytes, bytes_max: used.bytes_max }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub records: u64,
    pub items: u64,
    pub bytes: u64,
}

impl From<Lag> for Amount {
    fn from(lag: Lag) -> Self {
        Self { records: lag.records, items: lag.items, bytes: lag.bytes }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicReport {
    pub name: String,
    pub signal: String,
    /// Since the start.
    pub accepted: Amount,
    /// For the consumer that is furthest behind.
    pub held: Amount,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    /// As `weir journal ls` names it.
    pub name: String,
    pub pipeline: String,
    pub component: String,
    pub signal: String,
    pub lag: Amount,
    /// Age of the oldest record that it is not done with; 0: there is none.
    pub lag_seconds: f64,
    /// `None`: it runs for less than a second.
    pub rate: Option<Rate>,
    pub books: Books,
    pub requests: Flights,
    /// Its dead letters that were sent once more.
    #[serde(default)]
    pub replayed: Replayed,
    /// `None`: it delivers to nobody outside (a connector).
    pub destination: Option<Destination>,
}

/// Dead letters that were sent once more, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    pub delivered: u64,
    pub delivered_items: u64,
    /// They are kept.
    pub refused: u64,
}

/// Items a second over the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    pub came_in: f64,
    /// Delivered or dropped.
    pub went_out: f64,
    pub over_seconds: f64,
}

/// accepted = delivered + Σ dropped + held, each counted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    pub accepted: u64,
    pub delivered: u64,
    /// By reason, where there are any.
    pub dropped: BTreeMap<String, u64>,
    pub held: u64,
    pub balanced: bool,
}

/// Requests that are not accounted for yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flights {
    /// Being attempted.
    pub under_way: u64,
    pub under_way_bytes: u64,
    /// In their places, for their next attempt.
    #[serde(default)]
    pub waiting: u64,
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Of the waiting one that is tried first.
    #[serde(default)]
    pub next_try_seconds: Option<f64>,
    /// Failed, and waiting beside the others.
    pub parked: u64,
    pub parked_bytes: u64,
    /// Of the parked one that is tried again first.
    pub next_attempt_seconds: Option<f64>,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// It works, as far as is known.
    pub up: bool,
    pub failing_seconds: Option<f64>,
    /// Failed attempts in a row.
    pub failures: u32,
    pub error: Option<String>,
    pub next_attempt_seconds: Option<f64>,
}

pub(super) fn of(admin: &Admin, started: Instant) -> Report {
    let now = admin.clock.now();
    let consumers: Vec<Consumer> = admin.board.consumers().iter().map(|live| consumer(live, now)).collect();
    let journal = admin.board.journal();
    let orphans = journal.as_ref().map(|journal| blocking(|| journal.orphans())).unwrap_or_default();
    let orphans = orphans.into_iter().map(|Orphaned { consumer, topic, held, removed_items }| Orphan {
        consumer,
        topic,
        held: held.into(),
        removed_items,
    });
    let journal = journal.map(|journal| {
        let usage = journal.usage();
        let Used { bytes, bytes_max } = usage.whole();
        JournalRoom {
            directory: journal.path().display().to_string(),
            bytes,
            bytes_max,
            records: usage.records.into(),
            letters: usage.letters.into(),
            dead_letters: journal.letters().into(),
        }
    });
    let topics = admin.board.topics();
    let topics = topics.iter().map(|topic| {
        let figures = topic.figures();
        TopicReport {
            name: topic.name.clone(),
            signal: topic.signal.to_string(),
            accepted: figures.accepted.into(),
            held: figures.held.into(),
        }
    });
    Report {
        version: VERSION,
        weir: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        time_unix_nanos: now.0,
        uptime_seconds: started.elapsed().as_secs_f64(),
        state: state(admin.health.whole()),
        drain: admin.health.drain().map(|drain| drain.as_str().to_owned()),
        refusing: admin.health.readiness().err().filter(|_| admin.health.whole() == State::Ok),
        journal,
        topics: topics.collect(),
        orphans: orphans.collect(),
        balanced: consumers.iter().all(|consumer| consumer.books.balanced),
        consumers,
    }
}

fn state(state: State) -> String {
    match state {
        State::Starting => "starting".to_owned(),
        State::Ok => "ok".to_owned(),
        State::Stopping => "stopping".to_owned(),
        State::Stopped => "stopped".to_owned(),
        State::Recoverable(message) | State::Permanent(message) | State::Fatal(message) => message,
    }
}

fn consumer(live: &Live, now: UnixNanos) -> Consumer {
    let books = live.books();
    let seconds = |duration: Duration| duration.as_secs_f64();
    let flights = live.flights();
    let Replays { delivered, delivered_items, refused } = live.replays();
    Consumer {
        name: live.name(),
        pipeline: live.pipeline.to_string(),
        component: live.id.to_string(),
        signal: live.signal.to_string(),
        lag: Amount { records: books.held_records, items: books.held, bytes: books.held_bytes },
        lag_seconds: live.oldest().map_or(0.0, |oldest| seconds(Duration::from_nanos(now.0.saturating_sub(oldest.0)))),
        rate: live.rate().map(|rate| Rate { came_in: rate.came_in, went_out: rate.went_out, over_seconds: seconds(rate.over) }),
        books: written(&books),
        requests: Flights {
            under_way: flights.under_way as u64,
            under_way_bytes: flights.under_way_bytes as u64,
            waiting: flights.waiting as u64,
            waiting_bytes: flights.waiting_bytes as u64,
            next_try_seconds: flights.next_try.map(seconds),
            parked: flights.parked as u64,
            parked_bytes: flights.parked_bytes as u64,
            next_attempt_seconds: flights.next_attempt.map(seconds),
            error: flights.error.map(Into::into),
        },
        replayed: Replayed { delivered, delivered_items, refused },
        destination: live.destination().map(|doing| Destination {
            up: doing.condition.failing.is_none(),
            failing_seconds: doing.condition.failing.map(seconds),
            failures: doing.condition.failures,
            error: doing.error,
            next_attempt_seconds: doing.condition.next_attempt.map(seconds),
        }),
    }
}

fn written(books: &journal::Books) -> Books {
    let counted = |reason: DropReason| (reason, books.dropped.get(reason as usize).copied().unwrap_or(0));
    let dropped = DropReason::ALL.map(counted).into_iter().filter(|(_, items)| *items > 0);
    Books {
        accepted: books.accepted,
        delivered: books.delivered,
        dropped: dropped.map(|(reason, items)| (reason.as_str().to_owned(), items)).collect(),
        held: books.held,
        balanced: books.balance(),
    }
}
