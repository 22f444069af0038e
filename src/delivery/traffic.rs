//! The requests of one consumer: those under way, and those that wait beside them because they failed.
//!
//! A request that reached nobody keeps its place, and so does one that is the only one under way (`num_consumers: 1`) for five minutes, as
//! long as the Collector would try it: nothing overtakes it.
//!
//! Full: another one that failed is parked, at most 256 requests and 8 MiB; it leaves its place to others and comes back for single attempts,
//!       in a quarter of the places at most. Where there is no room to park, or 65,536 records were read since a parked request,
//!       the one with the most tries is given up to the dead letters, provided that others have been taken since it failed and that it had
//!       five tries (one whose own credentials are refused: at once). If none may be given up, for instance because the destination takes
//!       nothing at all, what fails stays in its place, and the consumer reads no further.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{
    Carried, Destination, Ends, Live, Policy, Replay, consumer_name,
    journey::{Journey, Route, Shares},
};
use crate::{
    journal::{Cursor, Letter, Note, Position},
    signal::Batch,
};

const PARKED_MAX: usize = 256;
const PARKED_BYTES_MAX: usize = 8 << 20;
/// Records that are read since a parked one; the journal keeps a line for each of them.
const PASSED_MAX: u64 = 65_536;

pub(super) struct Traffic {
    destination: Arc<Destination>,
    policy: Arc<Policy>,
    live: Arc<Live>,
    /// The name of its place in the journal.
    consumer: Arc<str>,
    ends: Ends,
    flying: FuturesUnordered<BoxFuture<'static, Flight>>,
    flying_bytes: usize,
    /// Made of what was read at once, for places that are taken.
    waiting: VecDeque<Journey>,
    /// Of those that fly, the ones that were parked before.
    returning: usize,
    parked: Vec<Journey>,
    /// Records that were read.
    read: u64,
}

pub(super) struct Flight {
    journey: Journey,
    returning: bool,
}

impl Traffic {
    pub(super) fn new(destination: Arc<Destination>, policy: Arc<Policy>, live: Arc<Live>, ends: Ends) -> Self {
        Self {
            consumer: consumer_name(&destination.id, &live.pipeline).into(),
            destination,
            policy,
            live,
            ends,
            flying: FuturesUnordered::new(),
            flying_bytes: 0,
            waiting: VecDeque::new(),
            returning: 0,
            parked: Vec::new(),
            read: 0,
        }
    }

    /// Takes over what another left: it begins anew, by this destination's rules.
    pub(super) fn resume(&mut self, carried: Carried) {
        let by_context = self.destination.splits_by_context || self.policy.splits_by_context;
        for journey in carried.journeys {
            let journey = self.numbered(journey.anew(&self.policy, by_context));
            self.waiting.push_back(journey);
        }
        self.fill();
    }

    /// Once released: what is being attempted is finished, the rest is left to whoever comes next.
    pub(super) async fn leave(mut self, cursor: &mut Cursor) -> Carried {
        let mut left: Vec<Journey> = Vec::new();
        while let Some(Flight { journey, .. }) = self.flying.next().await {
            if journey.is_done() {
                settle(&journey, &self.live, cursor);
            } else {
                left.push(journey);
            }
        }
        left.append(&mut self.parked);
        left.extend(self.waiting);
        left.sort_by_key(Journey::first);
        Carried { journeys: left, ..Carried::default() }
    }

    /// Nothing is under way but what failed before.
    pub(super) fn is_idle(&self) -> bool {
        self.flying.len() == self.returning && self.waiting.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flying.is_empty() && self.waiting.is_empty() && self.parked.is_empty()
    }

    /// Whether another request may be made.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.has_place()
    }

    fn has_place(&self) -> bool {
        self.flying.len() - self.returning < self.policy.flying_max
            && self.flying.len() < self.places()
            && (self.flying_bytes < self.policy.flying_bytes_max || self.is_idle())
    }

    /// Where only one request may be under way, one that comes back may be another.
    fn places(&self) -> usize {
        self.policy.flying_max.max(2)
    }

    /// So many records were read.
    pub(super) fn count(&mut self, records: usize, cursor: &mut Cursor) {
        self.read += records as u64;
        let passed = |journey: &Journey| self.read - journey.read > PASSED_MAX;
        if self.parked.iter().any(passed) {
            self.make_room(Some(self.read - PASSED_MAX), cursor);
        }
    }

    pub(super) fn depart(&mut self, shares: Shares) {
        let journey = Journey::new(shares, self.read, &self.policy);
        self.waiting.push_back(self.numbered(journey));
        self.fill();
    }

    /// Takes a record to the dead letters that no attempt is made with.
    pub(super) fn bury(&mut self, position: Position, letter: Letter) {
        let journey = Journey::burial(position, letter, self.read, &self.policy);
        self.launch(self.numbered(journey), true);
    }

    /// Sends a letter once more: `batch` of it, and `back` was refused already.
    pub(super) fn replay(&mut self, replay: Replay, batch: Option<Batch>, back: Vec<Letter>) {
        let journey = Journey::replay(replay, batch, back, self.read, &self.policy);
        self.waiting.push_back(self.numbered(journey));
        self.fill();
    }

    /// From here on it can be seen.
    fn numbered(&self, mut journey: Journey) -> Journey {
        let positions = journey.finished.iter().map(|(position, _)| *position).collect();
        journey.number = self.live.departs(positions, journey.bytes);
        journey
    }

    /// What is known of a record before it is refused.
    pub(super) fn note(&self, position: Position) -> Note {
        let Self { destination, policy, live, consumer, ends, .. } = self;
        Route { destination, policy, live, consumer, ends }.note(position)
    }

    fn fill(&mut self) {
        while self.has_place() {
            let Some(journey) = self.waiting.pop_front() else { break };
            self.launch(journey, false);
        }
    }

    fn launch(&mut self, journey: Journey, returning: bool) {
        self.flying_bytes += journey.bytes;
        self.returning += usize::from(returning);
        if returning {
            self.live.goes(journey.number);
        }
        let (destination, policy) = (self.destination.clone(), self.policy.clone());
        let (live, consumer, ends) = (self.live.clone(), self.consumer.clone(), self.ends.clone());
        let flight = async move {
            let route = Route { destination: &destination, policy: &policy, live: &live, consumer: &consumer, ends: &ends };
            Flight { journey: journey.fly(route).await, returning }
        };
        self.flying.push(flight.boxed());
    }

    /// The next one that landed. What is parked and due starts meanwhile. `None`: there is nothing to wait for.
    pub(super) async fn next(&mut self) -> Option<Flight> {
        loop {
            let may_return = self.flying.len() < self.places() && self.returning < (self.places() / 4).max(1);
            let first = self.parked.iter().enumerate().filter(|_| may_return).min_by_key(|(_, journey)| journey.due);
            let first = first.map(|(at, journey)| (at, journey.due.unwrap_or_else(Instant::now)));
            let Some((at, due)) = first else { return self.flying.next().await };
            tokio::select! {
                biased;
                Some(flight) = self.flying.next() => return Some(flight),
                () = sleep_until(due) => {
                    let journey = self.parked.swap_remove(at);
                    self.launch(journey, true);
                }
            }
        }
    }

    pub(super) fn land(&mut self, flight: Flight, cursor: &mut Cursor) {
        let Flight { journey, returning } = flight;
        self.flying_bytes -= journey.bytes;
        self.returning -= usize::from(returning);
        if journey.is_done() {
            settle(&journey, &self.live, cursor);
        } else {
            self.live.parks(journey.number, journey.due.unwrap_or_else(Instant::now));
            self.park(journey, cursor);
        }
        self.fill();
    }

    fn park(&mut self, journey: Journey, cursor: &mut Cursor) {
        if !self.has_room_to_park(journey.bytes) {
            self.make_room(None, cursor);
        }
        if self.has_room_to_park(journey.bytes) {
            self.parked.push(journey);
        } else {
            // It waits in its place.
            self.launch(journey, true);
        }
    }

    fn has_room_to_park(&self, bytes: usize) -> bool {
        let parked: usize = self.parked.iter().map(|journey| journey.bytes).sum();
        self.parked.is_empty() || (self.parked.len() < PARKED_MAX && parked + bytes <= PARKED_BYTES_MAX)
    }

    /// Gives up the parked request with the most tries, of those that began before so many records were read.
    fn make_room(&mut self, read_before: Option<u64>, cursor: &mut Cursor) {
        let Self { destination, policy, live, consumer, ends, parked, .. } = self;
        let route = Route { destination, policy, live, consumer, ends };
        let may_go = |journey: &Journey| journey.may_be_given_up(route) && read_before.is_none_or(|before| journey.read < before);
        let worst = parked.iter().enumerate().filter(|(_, journey)| may_go(journey)).max_by_key(|(_, journey)| journey.tries());
        let Some((at, _)) = worst else { return };
        let Some(journey) = parked.get_mut(at) else { return };
        journey.give_up(route);
        if journey.is_done() {
            let journey = parked.swap_remove(at);
            if journey.has_letters() {
                self.launch(journey, true);
            } else {
                settle(&journey, live, cursor);
            }
        }
    }
}

fn settle(journey: &Journey, live: &Live, cursor: &mut Cursor) {
    live.lands(journey.number);
    if journey.is_replay {
        return;
    }
    for (position, settled) in &journey.finished {
        cursor.settle(*position, settled);
    }
}
