//! What can be seen of a consumer while it runs: how far behind it is, what it has under way, how its destination does.
//!
//! The consumer writes here once a request; everything else is read where it is kept anyway.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Destination, Fate, breaker::Condition};
use crate::{
    journal::{Accounts, Books, Cursor, Oldest, Position},
    runtime::State,
    signal::{ComponentId, Signal, UnixNanos},
};

/// How far back rates look.
const RATE_OVER: Duration = Duration::from_secs(10);
/// An error in the words of a backend is cut here.
const ERROR_CHARS_MAX: usize = 500;

/// One consumer.
pub struct Live {
    pub pipeline: Arc<str>,
    pub id: ComponentId,
    pub signal: Signal,
    accounts: Accounts,
    oldest: Oldest,
    destination: OnceLock<Arc<Destination>>,
    requests: Mutex<Requests>,
    replays: Mutex<Replays>,
    counts: Mutex<VecDeque<Count>>,
}

#[derive(Default)]
struct Requests {
    /// Those that were numbered so far.
    count: u64,
    under_way: Vec<UnderWay>,
}

/// A request that is not accounted for yet.
#[derive(Debug, Clone)]
struct UnderWay {
    number: u64,
    positions: SmallVec<[Position; 4]>,
    bytes: usize,
    attempts: u32,
    error: Option<Box<str>>,
    stage: Stage,
}

/// What a request does that is not accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is being attempted.
    Attempted,
    /// It failed, or its destination does, and keeps its place until it is tried; `None`: when somebody finds that the destination works.
    Waiting(Option<Instant>),
    /// It failed, and waits beside the others until then.
    Parked(Instant),
}

/// Letters of a consumer that were sent once more, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replays {
    pub delivered: u64,
    pub delivered_items: u64,
    /// They are kept.
    pub refused: u64,
}

/// What a consumer had seen and was done with at one moment.
#[derive(Debug, Clone, Copy)]
struct Count {
    at: Instant,
    came_in: u64,
    went_out: u64,
}

/// Items a second, over the last seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub came_in: f64,
    pub went_out: f64,
    pub over: Duration,
}

/// Requests that are not accounted for yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flights {
    /// Being attempted.
    pub under_way: usize,
    pub under_way_bytes: usize,
    /// In their places, for their next attempt.
    pub waiting: usize,
    pub waiting_bytes: usize,
    /// Of the waiting one that is tried first, where it is known.
    pub next_try: Option<Duration>,
    pub parked: usize,
    pub parked_bytes: usize,
    /// Of the parked one that is tried again first.
    pub next_attempt: Option<Duration>,
    pub error: Option<Box<str>>,
}

/// How a consumer stands to one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Being sent; so many attempts failed before.
    UnderWay { attempts: u32, error: Option<Box<str>> },
    /// It failed, or its destination does, and waits to be tried.
    Waiting { attempts: u32, error: Option<Box<str>>, next_attempt: Option<Duration> },
}

/// How a destination does, for one signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Doing {
    pub condition: Condition,
    pub error: Option<String>,
}

impl Live {
    pub fn new(pipeline: Arc<str>, id: ComponentId, signal: Signal, cursor: &Cursor) -> Self {
        let (accounts, oldest) = (cursor.accounts(), cursor.oldest());
        let (requests, replays, counts) = Default::default();
        Self { pipeline, id, signal, accounts, oldest, destination: OnceLock::new(), requests, replays, counts }
    }

    /// Where the consumer delivers to.
    pub fn leads_to(&self, destination: Arc<Destination>) {
        // A consumer has one.
        drop(self.destination.set(destination));
    }

    /// The name under which its place stands in the journal.
    pub fn name(&self) -> String {
        format!("{} in pipeline {}", self.id, self.pipeline)
    }

    pub fn books(&self) -> Books {
        self.accounts.books()
    }

    /// When the oldest record that it is not done with came in; `None`: it has none, or has not come to it since the start.
    pub fn oldest(&self) -> Option<UnixNanos> {
        self.oldest.get()
    }

    /// `None`: it delivers to nobody outside (a connector).
    pub fn destination(&self) -> Option<Doing> {
        let destination = self.destination.get()?;
        let condition = destination.breaker(self.signal).condition();
        let error = condition.failing.and_then(|_| {
            let parts = destination.health.parts();
            let (state, _) = parts.get(&(Some(self.pipeline.to_string()), self.id.clone()))?;
            match state {
                State::Recoverable(error) | State::Permanent(error) => Some(error.chars().take(ERROR_CHARS_MAX).collect()),
                _ => None,
            }
        });
        Some(Doing { condition, error })
    }

    pub fn flights(&self) -> Flights {
        let requests = self.requests.lock();
        let mut flights = Flights::default();
        let mut first: Option<(Instant, &UnderWay)> = None;
        let mut next_try: Option<Instant> = None;
        for request in &requests.under_way {
            match request.stage {
                Stage::Parked(until) => {
                    flights.parked += 1;
                    flights.parked_bytes += request.bytes;
                    if first.is_none_or(|(known, _)| until < known) {
                        first = Some((until, request));
                    }
                }
                Stage::Waiting(until) => {
                    flights.waiting += 1;
                    flights.waiting_bytes += request.bytes;
                    next_try = [next_try, until].into_iter().flatten().min();
                }
                Stage::Attempted => {
                    flights.under_way += 1;
                    flights.under_way_bytes += request.bytes;
                }
            }
        }
        flights.next_try = next_try.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some((until, request)) = first {
            flights.next_attempt = Some(until.saturating_duration_since(Instant::now()));
            flights.error.clone_from(&request.error);
        }
        flights
    }

    /// `None`: it has not read the record, or is done with it.
    pub fn standing(&self, position: Position) -> Option<Standing> {
        let requests = self.requests.lock();
        let request = requests.under_way.iter().find(|request| request.positions.contains(&position))?;
        let (attempts, error) = (request.attempts, request.error.clone());
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        Some(match request.stage {
            Stage::Attempted => Standing::UnderWay { attempts, error },
            Stage::Waiting(until) => Standing::Waiting { attempts, error, next_attempt: until.map(left) },
            Stage::Parked(until) => Standing::Waiting { attempts, error, next_attempt: Some(left(until)) },
        })
    }

    /// Notes what it has seen and done by now, for the rates. To be called each second.
    pub fn count(&self) {
        let (books, at) = (self.books(), Instant::now());
        let count = Count { at, came_in: books.accepted, went_out: books.delivered + books.dropped_total() };
        let mut counts = self.counts.lock();
        // The one before the span stays: the rate is over all of the span.
        while counts.get(1).is_some_and(|second| at.saturating_duration_since(second.at) >= RATE_OVER) {
            counts.pop_front();
        }
        counts.push_back(count);
    }

    /// `None`: it has not been counted for long enough.
    pub fn rate(&self) -> Option<Rate> {
        let counts = self.counts.lock();
        let (first, last) = (counts.front()?, counts.back()?);
        let over = last.at.saturating_duration_since(first.at);
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / over.as_secs_f64();
        (!over.is_zero()).then(|| Rate {
            came_in: rate(first.came_in, last.came_in),
            went_out: rate(first.went_out, last.went_out),
            over,
        })
    }

    /// A request of these records is under way; returns its number.
    pub(super) fn departs(&self, positions: SmallVec<[Position; 4]>, bytes: usize) -> u64 {
        let mut requests = self.requests.lock();
        requests.count += 1;
        let number = requests.count;
        requests.under_way.push(UnderWay { number, positions, bytes, attempts: 0, error: None, stage: Stage::Attempted });
        number
    }

    /// So many attempts failed so far, the last one with this error.
    pub(super) fn fails(&self, number: u64, attempts: u32, error: &str) {
        self.change(number, |request| {
            request.attempts = attempts;
            request.error = Some(error.chars().take(ERROR_CHARS_MAX).collect());
        });
    }

    /// It failed, and waits beside the others until `due`.
    pub(super) fn parks(&self, number: u64, due: Instant) {
        self.change(number, |request| request.stage = Stage::Parked(due));
    }

    /// It waits in its place for its next attempt; `None`: until its destination works.
    pub(super) fn waits(&self, number: u64, until: Option<Instant>) {
        self.change(number, |request| request.stage = Stage::Waiting(until));
    }

    /// It is tried, or tried again.
    pub(super) fn goes(&self, number: u64) {
        self.change(number, |request| request.stage = Stage::Attempted);
    }

    /// A letter with so many items was sent once more.
    pub(super) fn replayed(&self, items: u64, fate: Fate) {
        let mut replays = self.replays.lock();
        match fate {
            Fate::Delivered => {
                replays.delivered += 1;
                replays.delivered_items += items;
            }
            Fate::Refused => replays.refused += 1,
        }
    }

    pub fn replays(&self) -> Replays {
        *self.replays.lock()
    }

    /// It is accounted for.
    pub(super) fn lands(&self, number: u64) {
        self.requests.lock().under_way.retain(|request| request.number != number);
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut UnderWay)) {
        if let Some(request) = self.requests.lock().under_way.iter_mut().find(|request| request.number == number) {
            change(request);
        }
    }
}
