//! One request on its way until each item of it is accounted for: attempts, waits, splitting, dead letters.
//!
//! A request that fails alone, while others are taken, is at fault itself: it gives no verdict on the destination, and after [`TRIES`]
//! attempts it may be given up. Credentials that came with the data concern their request alone from the first refusal on.

mod each;
mod parts;

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::{Instrument, debug, error, info, warn};

use self::parts::{Part, Parts, halves, within_bounds};
use super::{
    Destination, Ends, Fate, Live, Policy, Replay,
    breaker::{Change, Verdict},
    caught::caught_async,
};
use crate::{
    component::{Again, Items, LETTERS, Origin, Outcome, Provenance, Request, RetryCause},
    internal_telemetry::{Attempt, export_span, span_failed},
    journal::{DropReason, Letter, LetterRef, Note, Position, Refusal, Settled},
    runtime::State,
    signal::{Batch, Signal, UnixNanos},
};

/// Attempts that a request gets where something is wrong with it alone.
pub(super) const TRIES: u32 = 5;
/// How much later than others a request probes a destination that it found failing: the others show sooner that it works.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a request that must not be overtaken keeps its place, whatever it is answered: the Collector's default `max_elapsed_time`, which
/// drops it then.
const IN_ORDER_MAX: Duration = Duration::from_mins(5);
/// The status of a refusal that is a panic of the exporter: none that a backend has.
const PANIC: u16 = u16::MAX;
/// The position of what comes from no topic: a letter that is sent once more.
pub(super) const NOWHERE: Position = Position { topic: LETTERS, shard: 0, offset: 0 };

/// A part of a request: what is left of one record.
#[derive(Clone)]
pub(super) struct Share {
    pub(super) position: Position,
    pub(super) received: UnixNanos,
    /// What the processors dropped of the record already.
    pub(super) processed_away: u64,
    pub(super) batch: Batch,
}

pub(super) type Shares = SmallVec<[Share; 4]>;
pub(super) type Finished = SmallVec<[(Position, Settled); 4]>;

/// What is sent in one attempt.
struct Piece {
    parts: Parts,
    half: Half,
}

/// Where a piece comes from.
enum Half {
    Whole,
    /// The first half of what was refused; its other half comes next.
    Head,
    /// The second half, with the first one where that was refused again.
    Tail(Option<Refused>),
}

/// A piece that was refused with a status that need not be about the data.
struct Refused {
    status: u16,
    message: String,
    tries: u32,
    parts: Parts,
}

/// A letter that is sent once more.
struct Replayed {
    at: LetterRef,
    note: Note,
    /// Told once it is settled on disk.
    done: oneshot::Sender<Fate>,
}

pub(super) struct Journey {
    /// Of all requests of its consumer.
    pub(super) number: u64,
    /// The next one last.
    pieces: Vec<Piece>,
    pub(super) finished: Finished,
    /// When the records of `finished` were received.
    received: SmallVec<[UnixNanos; 4]>,
    /// Refused for good, and not written down yet: what they come from is not settled before.
    letters: Vec<Letter>,
    /// It is a letter that is sent once more, and settles no record.
    pub(super) is_replay: bool,
    replayed: Option<Replayed>,
    pub(super) bytes: usize,
    /// Records that its consumer had read when it began.
    pub(super) read: u64,
    /// Not before then is the next attempt.
    pub(super) due: Option<Instant>,
    started: Option<Instant>,
    /// Failed attempts of the next piece.
    tries: u32,
    /// Attempts of anyone that the destination had answered when this one failed last or, before that, when it began.
    answered: u64,
    /// What the last failed attempt came to.
    reason: String,
    /// Whether the last refusal was about credentials that came with the data.
    denied: bool,
    /// Whether the last failure was about the state of the destination and not about the data: it is not given up for that.
    held: bool,
    /// It was given up, and is only split to find the record that is at fault.
    hurried: bool,
}

/// Whom it is delivered to, and how.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) destination: &'a Destination,
    pub(super) policy: &'a Policy,
    pub(super) live: &'a Live,
    /// The name of its place in the journal.
    pub(super) consumer: &'a Arc<str>,
    pub(super) ends: &'a Ends,
}

enum Answer {
    /// So many items are dropped for the reason, the rest is delivered; in the words of who decided it.
    Settled(Option<DropReason>, u64, String),
    /// To the dead letters with all of it.
    Dead(Refusal, String),
    /// So many items are refused for good, and nobody says which.
    Partly(u64, String),
    /// Try again in smaller pieces; what cannot be split is refused with these words.
    Split(Refusal, String),
    Refused(u16, String),
    /// Try again later, beside the others or, where it keeps its place, before them.
    Later {
        keeps_place: bool,
    },
    /// It is at fault itself, and will not be tried again as it is.
    Hopeless,
}

impl Journey {
    pub(super) fn new(shares: Shares, read: u64, policy: &Policy) -> Self {
        let finished =
            shares.iter().map(|share| (share.position, Settled::dropped(DropReason::Processor, share.processed_away))).collect();
        let received = shares.iter().map(|share| share.received).collect();
        let parts: Parts = shares.into_iter().enumerate().map(|(place, share)| Part::whole(place, share.batch)).collect();
        let bytes = parts.iter().map(|part| part.batch.payload.len()).sum();
        let mut pieces = within_bounds(parts, policy);
        pieces.reverse();
        Self {
            number: 0,
            pieces: pieces.into_iter().map(|parts| Piece { parts, half: Half::Whole }).collect(),
            finished,
            received,
            letters: Vec::new(),
            is_replay: false,
            replayed: None,
            bytes,
            read,
            due: None,
            started: None,
            tries: 0,
            answered: 0,
            reason: String::new(),
            denied: false,
            held: false,
            hurried: false,
        }
    }

    /// One that sends a letter once more: `batch` is what is to be sent of it, `back` what was refused already.
    pub(super) fn replay(replay: Replay, batch: Option<Batch>, back: Vec<Letter>, read: u64, policy: &Policy) -> Self {
        let Replay { at, letter: Letter { note, received, .. }, done } = replay;
        let position = Position { offset: at.offset, ..NOWHERE };
        let share = |batch| Share { position, received, processed_away: 0, batch };
        let mut journey = Self::new(batch.into_iter().map(share).collect(), read, policy);
        (journey.letters, journey.is_replay, journey.replayed) = (back, true, Some(Replayed { at, note, done }));
        journey
    }

    /// One that only takes a record to the dead letters.
    pub(super) fn burial(position: Position, letter: Letter, read: u64, policy: &Policy) -> Self {
        let items = letter.batch.items;
        let mut journey = Self::new(Shares::new(), read, policy);
        journey.finished.push((position, Settled::dropped(DropReason::Rejected, items)));
        journey.letters.push(letter);
        journey
    }

    /// What is left of it, for another destination or by other rules: what was found out about it so far is forgotten, but not its age.
    /// `by_context`: batches of different contexts must not be sent together.
    pub(super) fn anew(self, policy: &Policy, by_context: bool) -> Self {
        let mut parts: Parts = Vec::new();
        for Piece { parts: piece, half } in self.pieces.into_iter().rev() {
            if let Half::Tail(Some(head)) = half {
                parts.extend(head.parts);
            }
            parts.extend(piece);
        }
        let mut alike: Vec<Parts> = Vec::new();
        for part in parts {
            let context = &part.batch.context;
            let joins = |last: &Parts| last.last().is_some_and(|other| !by_context || other.batch.context == *context);
            match alike.last_mut() {
                Some(last) if joins(last) => last.push(part),
                _ => alike.push(vec![part]),
            }
        }
        let bytes = alike.iter().flatten().map(|part| part.batch.payload.len()).sum();
        let pieces = alike.into_iter().flat_map(|parts| within_bounds(parts, policy)).rev();
        Self {
            number: 0,
            pieces: pieces.map(|parts| Piece { parts, half: Half::Whole }).collect(),
            bytes,
            read: 0,
            due: None,
            tries: 0,
            answered: 0,
            reason: String::new(),
            denied: false,
            held: false,
            hurried: false,
            ..self
        }
    }

    /// The first record it is made of, to tell which of two came first.
    pub(super) fn first(&self) -> Option<Position> {
        self.finished.iter().map(|(position, _)| *position).min()
    }

    /// Whether something has to be written down before it is settled.
    pub(super) fn has_letters(&self) -> bool {
        !self.letters.is_empty() || self.replayed.is_some()
    }

    /// Whether all its items are accounted for.
    pub(super) fn is_done(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Goes on until all is accounted for, or until it should wait (`due`) and make room for others meanwhile.
    pub(super) async fn fly(mut self, route: Route<'_>) -> Self {
        if let Some(due) = self.due.take() {
            route.live.waits(self.number, Some(due));
            tokio::select! {
                () = route.ends.release.cancelled() => return self,
                () = sleep_until(due) => {}
            }
            route.live.goes(self.number);
        }
        while let Some(mut piece) = self.pieces.pop() {
            let answer = self.attempt(&mut piece.parts, route).await;
            if let Answer::Later { keeps_place } = answer {
                self.pieces.push(piece);
                if !keeps_place || route.ends.release.is_cancelled() {
                    break;
                }
                continue;
            }
            self.answered(piece, answer, route);
        }
        self.write(route).await;
        self
    }

    /// Writes its letters down. A letter that was sent once more is crossed out when all of it is accounted for, not before.
    async fn write(&mut self, route: Route<'_>) {
        let letters = &route.destination.dead_letters;
        if self.is_replay {
            if self.is_done()
                && let Some(Replayed { at, done, .. }) = self.replayed.take()
            {
                let fate = if self.letters.is_empty() { Fate::Delivered } else { Fate::Refused };
                route.live.replayed(at.items, fate);
                letters.settle(at, std::mem::take(&mut self.letters)).await;
                if done.send(fate).is_err() {
                    debug!("whoever counts replayed letters is gone");
                }
            }
        } else if !self.letters.is_empty() {
            letters.put(std::mem::take(&mut self.letters)).await;
        }
    }

    /// Gives up what fails again and again while others are taken: a single record, or records that share credentials, at once; of several
    /// records the halves get one more try each.
    pub(super) fn give_up(&mut self, route: Route<'_>) {
        let Some(piece) = self.pieces.pop() else { return };
        self.due = None;
        self.answered(piece, Answer::Hopeless, route);
    }

    /// Whether it may be given up to make room: others have been taken since it failed, and it had its tries.
    pub(super) fn may_be_given_up(&self, route: Route<'_>) -> bool {
        let others = self.signal().map_or(0, |signal| route.destination.breaker(signal).answered());
        self.denied || (!self.held && (self.tries >= TRIES || self.hurried) && others > self.answered)
    }

    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    fn signal(&self) -> Option<Signal> {
        Some(self.pieces.last()?.parts.first()?.batch.signal)
    }

    fn answered(&mut self, piece: Piece, answer: Answer, route: Route<'_>) {
        let Piece { parts, half } = piece;
        let is_head = matches!(half, Half::Head);
        let (tries, denied) = (std::mem::take(&mut self.tries), std::mem::take(&mut self.denied));
        let head = if let Half::Tail(head) = half { head } else { None };
        match answer {
            Answer::Later { .. } => {}
            Answer::Settled(reason, dropped, why) => {
                if let (Some(replayed), Some(_), 1..) =
                    (&self.replayed, reason.filter(|reason| *reason != DropReason::Nop), dropped)
                {
                    // Not delivered, and not refused either: the letter stays what it was.
                    let Note { reason, message, .. } = replayed.note.clone();
                    self.bury(&parts, reason, &message, tries, route);
                }
                route.settle(&parts, reason, dropped, &why, &mut self.finished);
            }
            Answer::Dead(refusal, message) => self.reject(&parts, refusal, &message, tries + 1, route),
            Answer::Partly(rejected, message) => {
                self.bury(&parts, Refusal::Partial, &message, tries + 1, route);
                route.settle(&parts, Some(DropReason::Rejected), rejected, &message, &mut self.finished);
            }
            Answer::Split(refusal, message) => self.split(parts, refusal, &message, tries + 1, route),
            // Records that share credentials share their fate.
            Answer::Hopeless if denied || parts.len() < 2 => {
                let message = format!("{} (after {tries} attempts, while others are taken)", self.reason);
                let refusal = if denied { Refusal::Denied } else { Refusal::GivenUp };
                self.reject(&parts, refusal, &message, tries, route);
            }
            Answer::Hopeless => {
                self.hurried = true;
                self.pieces.extend(halves(&parts).into_iter().rev().map(|parts| Piece { parts, half: Half::Whole }));
            }
            Answer::Refused(status, message) => {
                let tries = tries + 1;
                if let Some(head) = head.as_ref().filter(|head| head.status == status) {
                    // Both halves with the same status, which says nothing about the data: smaller pieces would only be more requests.
                    self.reject(&head.parts, refusal_of(status), &head.message, head.tries, route);
                    self.reject(&parts, refusal_of(status), &message, tries, route);
                    return;
                }
                // The other half shows whether it is worth while to look for one record.
                if let Some(Piece { half: Half::Tail(other @ None), .. }) = self.pieces.last_mut().filter(|_| is_head) {
                    *other = Some(Refused { status, message, tries, parts });
                    return;
                }
                self.split_refused(Refused { status, message, tries, parts }, route);
            }
        }
        if let Some(head) = head {
            self.split_refused(head, route);
        }
    }

    fn split(&mut self, parts: Parts, refusal: Refusal, message: &str, tries: u32, route: Route<'_>) {
        let smaller = halves(&parts);
        if smaller.len() < 2 {
            // Its items cannot be told apart any further: no attempt would be a different one.
            self.reject(&parts, refusal, &format!("{message} (and it cannot be split)"), tries, route);
        } else {
            self.pieces.extend(smaller.into_iter().rev().map(|parts| Piece { parts, half: Half::Whole }));
        }
    }

    /// One bad record must not take its neighbours along.
    fn split_refused(&mut self, refused: Refused, route: Route<'_>) {
        let Refused { status, message, tries, mut parts } = refused;
        if parts.len() < 2 {
            self.reject(&parts, refusal_of(status), &message, tries, route);
            return;
        }
        let tail = parts.split_off(parts.len() / 2);
        self.pieces.push(Piece { parts: tail, half: Half::Tail(None) });
        self.pieces.push(Piece { parts, half: Half::Head });
    }

    /// To the dead letters with all of it.
    fn reject(&mut self, parts: &[Part], refusal: Refusal, message: &str, tries: u32, route: Route<'_>) {
        self.bury(parts, refusal, message, tries, route);
        let items = parts.iter().map(|part| part.batch.items).sum();
        route.settle(parts, Some(DropReason::Rejected), items, message, &mut self.finished);
    }

    /// Makes letters of it, a record each, after so many attempts.
    fn bury(&mut self, parts: &[Part], reason: Refusal, message: &str, tries: u32, route: Route<'_>) {
        for Part { place, batch, .. } in parts {
            let position = self.finished.get(*place).map_or(NOWHERE, |(position, _)| *position);
            let known = self.replayed.as_ref().map(|replayed| replayed.note.clone());
            let mut note = known.unwrap_or_else(|| route.note(position));
            (note.refused, note.reason, note.message) = (route.destination.clock.now(), reason, Note::bounded(message));
            note.attempts = note.attempts.saturating_add(tries);
            note.is_processed = true;
            let received = self.received.get(*place).copied().unwrap_or_default();
            self.letters.push(Letter { note, received, batch: Batch { index: None, ..batch.clone() } });
        }
    }

    /// Where the backend answers for each item, only what is to be sent again is left in `piece`.
    async fn attempt(&mut self, piece: &mut Parts, route: Route<'_>) -> Answer {
        let Route { destination, policy, .. } = route;
        let started = *self.started.get_or_insert_with(Instant::now);
        let Some(first) = piece.first() else { return Answer::Settled(None, 0, String::new()) };
        let signal = first.batch.signal;
        let breaker = destination.breaker(signal);
        let mut items = piece.iter().map(|part| part.batch.items).sum();
        let request = Request {
            signal,
            items,
            bytes: piece.iter().map(|part| part.batch.payload.len()).sum(),
            parts: piece.iter().map(|part| part.batch.clone()).collect(),
        };
        let must_wait = *breaker.watch().borrow();
        if must_wait {
            // In the place that it has: whoever is let through first shows whether it is worth while.
            let next = breaker.condition().next_attempt.and_then(|next| Instant::now().checked_add(next));
            route.live.waits(self.number, next);
        }
        let passing = breaker.pass_after(if self.tries == 0 { Duration::ZERO } else { PATIENCE });
        // Released while it waits for a destination that fails: whoever comes next tries.
        let passing = async {
            tokio::select! {
                biased;
                pass = passing => Some(pass),
                () = route.ends.release.cancelled() => None,
            }
        };
        let Some(pass) = before(policy.retry.elapsed_max.and_then(|limit| started.checked_add(limit)), passing).await else {
            let reason = "the destination has failed all this time";
            error!(exporter = %destination.id, items = items, %signal, reason, "gave up after max_elapsed_time: dropped");
            return Answer::Settled(Some(DropReason::Expired), items, reason.to_owned());
        };
        let Some(pass) = pass else { return Answer::Later { keeps_place: false } };
        if must_wait {
            route.live.goes(self.number);
        }
        if self.tries == 0 {
            self.answered = breaker.answered();
        }
        let span = export_span(destination.id.as_str(), signal, items);
        let origin = |part: &Part| Origin {
            position: self.finished.get(part.place).map_or(NOWHERE, |(position, _)| *position),
            received: self.received.get(part.place).copied().unwrap_or_default(),
            items: part.items.clone(),
        };
        let origins: SmallVec<[Origin; 4]> = piece.iter().map(origin).collect();
        let provenance = Provenance {
            reader: &route.live.pipeline,
            journal: destination.journal,
            topics: destination.dead_letters.topics(),
            parts: &origins,
        };
        let export = async { destination.exporter.export_from(provenance, request).await };
        let attempt = caught_async(export.instrument(span.clone()));
        let answered = async {
            match policy.timeout {
                Some(limit) => timeout(limit, attempt).await.unwrap_or_else(|_| {
                    let reason = format!("no answer within {limit:?}");
                    Ok(Outcome::Retry { reason, after: None, cause: RetryCause::Timeout })
                }),
                None => attempt.await,
            }
        };
        let ended = tokio::select! {
            biased;
            ended = answered => ended,
            // Released, and the bound on what is under way is over: the attempt is broken off, and what it carried is handed over.
            () = route.ends.abort.cancelled() => {
                drop(pass);
                return Answer::Later { keeps_place: false };
            }
        };
        let came_to = ended.as_ref().map_or(Attempt::Refused, attempt_of);
        if let Some(attempts) = destination.metrics.attempts.get(came_to as usize) {
            attempts.inc();
        }
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(message) => {
                drop(pass);
                return Answer::Refused(PANIC, message);
            }
        };
        let (again, is_part) = match outcome {
            Outcome::Retry { reason, after, cause } => (Some((reason, after, cause)), false),
            Outcome::Each(verdicts) => {
                let again = self.sort_out(piece, verdicts, route);
                items = piece.iter().map(|part| part.batch.items).sum();
                (again.map(|Again { reason, after, cause, .. }| (reason, after, cause)), true)
            }
            outcome => {
                route.tell(pass.judge(Verdict::Works), "");
                return route.answer(outcome, signal, items, piece);
            }
        };
        let Some((reason, after, cause)) = again else {
            route.tell(pass.judge(Verdict::Works), "");
            destination.health.report(Some(&route.live.pipeline), &destination.id, State::Ok);
            return Answer::Settled(None, 0, String::new());
        };
        span_failed(&span, &reason);
        self.tries = self.tries.saturating_add(1);
        self.denied = cause == RetryCause::Denied;
        self.held = matches!(cause, RetryCause::Busy | RetryCause::Blocked);
        // Others were answered meanwhile, be it items of the same request: then it is not the destination.
        let alone = self.denied || is_part || (pass.failures() == 0 && breaker.answered() > self.answered);
        self.answered = breaker.answered();
        let failures = if alone { self.tries } else { pass.failures().saturating_add(1) };
        let backoff = policy.backoff(failures, random());
        let wait = after.map_or(backoff, |after| after.min(policy.retry.max).max(backoff));
        if is_part {
            route.tell(pass.judge(Verdict::Works), "");
            let blocked = cause == RetryCause::Blocked;
            let state = if blocked { State::Permanent(reason.clone()) } else { State::Ok };
            destination.health.report(Some(&route.live.pipeline), &destination.id, state);
            route.tell_of_items(items, &reason, blocked && self.tries == 1);
        } else if alone {
            drop(pass);
        } else {
            let timed_out = cause == RetryCause::Timeout;
            let verdict = if policy.retry.enabled { Verdict::Fails { wait, timed_out } } else { Verdict::Works };
            let change = pass.judge(verdict);
            if change == Change::Silent {
                destination.exporter.reconnect();
            }
            route.tell(change, &reason);
            let state =
                if cause == RetryCause::Blocked { State::Permanent(reason.clone()) } else { State::Recoverable(reason.clone()) };
            destination.health.report(Some(&route.live.pipeline), &destination.id, state);
        }
        if !policy.retry.enabled {
            warn!(exporter = %destination.id, items = items, %signal, reason, "export failed and retries are switched off: dropped");
            return Answer::Settled(Some(DropReason::RetryDisabled), items, reason);
        }
        if (self.denied && self.tries >= TRIES) || (self.hurried && alone && !self.held) {
            self.reason = reason;
            return Answer::Hopeless;
        }
        if policy.retry.elapsed_max.is_some_and(|limit| started.elapsed() + wait > limit) {
            error!(exporter = %destination.id, items = items, %signal, reason, "gave up after max_elapsed_time: dropped");
            return Answer::Settled(Some(DropReason::Expired), items, reason);
        }
        self.reason = reason;
        route.live.fails(self.number, self.tries, &self.reason);
        let now = Instant::now();
        let due = now.checked_add(wait).unwrap_or(now);
        // Whether it is at fault itself cannot be told without trying others, unless nobody has seen it.
        let in_order = !self.denied && (policy.in_order || (policy.flying_max == 1 && started.elapsed() < IN_ORDER_MAX));
        let keeps_place = in_order || (cause == RetryCause::Unreached && !alone);
        if !keeps_place {
            self.due = Some(due);
        } else if !*breaker.watch().borrow() {
            // Otherwise it waits for leave to probe, or until someone else finds that the destination works.
            route.live.waits(self.number, Some(due));
            tokio::select! {
                () = route.ends.release.cancelled() => {}
                () = sleep_until(due) => {}
            }
            route.live.goes(self.number);
        }
        Answer::Later { keeps_place }
    }
}

impl Route<'_> {
    /// What an answer means for the items.
    fn answer(self, outcome: Outcome, signal: Signal, items: u64, piece: &[Part]) -> Answer {
        let Self { destination, .. } = self;
        destination.health.report(Some(&self.live.pipeline), &destination.id, State::Ok);
        let exporter = &destination.id;
        match outcome {
            Outcome::Delivered { warning } => {
                if let Some(warning) = &warning {
                    warn!(%exporter, %signal, warning, "the backend took the data with a warning");
                }
                Answer::Settled(None, 0, warning.unwrap_or_default())
            }
            Outcome::Discarded => Answer::Settled(Some(DropReason::Nop), items, String::new()),
            Outcome::Partial { rejected, message } => {
                warn!(%exporter, %signal, rejected, message, "the backend rejected a part of a request; the rest is delivered");
                Answer::Partly(rejected.min(items), message)
            }
            Outcome::TooLarge { message, .. } => {
                if items > 1 {
                    return Answer::Split(Refusal::TooLarge, message);
                }
                Answer::Dead(Refusal::TooLarge, format!("a single item is larger than the backend takes: {message}"))
            }
            // One bad record must not take its neighbours along.
            Outcome::Rejected { message } if piece.len() > 1 => Answer::Split(Refusal::Rejected, message),
            Outcome::Refused { status, message } => Answer::Refused(status, message),
            Outcome::Rejected { message } => Answer::Dead(Refusal::Rejected, message),
            Outcome::Unsupported { message } => {
                warn!(%exporter, %signal, items, message, "this backend takes no {signal}: dropped; take the exporter out of the {signal} pipelines");
                Answer::Settled(Some(DropReason::Unsupported), items, message)
            }
            Outcome::Retry { .. } | Outcome::Each(_) => Answer::Settled(None, 0, String::new()),
        }
    }

    /// What is known of a record before it is refused.
    pub(super) fn note(self, position: Position) -> Note {
        Note {
            consumer: self.consumer.clone(),
            origin: self.destination.dead_letters.origin(position),
            refused: UnixNanos::default(),
            reason: Refusal::Rejected,
            message: String::new(),
            attempts: 0,
            is_processed: true,
        }
    }

    /// Books the items of a piece: `dropped` of them for the reason, the rest as delivered.
    fn settle(self, piece: &[Part], reason: Option<DropReason>, dropped: u64, message: &str, finished: &mut Finished) {
        let mut left = dropped;
        for Part { place, batch, .. } in piece {
            let mine = left.min(batch.items);
            left -= mine;
            self.show(batch, reason, mine, message);
            let metrics = &self.destination.metrics;
            let signal: Signal = batch.signal;
            if let Some(sent) = metrics.sent.get(signal.ordinal()) {
                sent.inc_by(batch.items - mine);
            }
            if let Some((_, settled)) = finished.get_mut(*place) {
                settled.delivered += batch.items - mine;
                if let Some(reason) = reason {
                    settled.add_dropped(reason, mine);
                    if let (Some(failed), true) = (metrics.send_failed.get(signal.ordinal()), reason != DropReason::Nop) {
                        failed.inc_by(mine);
                    }
                }
            }
        }
    }

    /// Shows what became of a batch, of which so many items are dropped.
    fn show(self, batch: &Batch, reason: Option<DropReason>, dropped: u64, message: &str) {
        let Self { destination, live, .. } = self;
        if dropped == 0 || dropped == batch.items {
            destination.show(&live.pipeline, batch, reason.filter(|_| dropped > 0), message);
            return;
        }
        // Which of them it is, the backend does not say.
        let message = format!("{dropped} of these {} items: {message}", batch.items);
        destination.show(&live.pipeline, batch, reason, &message);
        destination.show(&live.pipeline, batch, None, &format!("but not {message}"));
    }

    /// Some items of a request were not taken, and are sent again.
    fn tell_of_items(self, items: u64, reason: &str, is_news: bool) {
        let (exporter, pipeline) = (&self.destination.id, &*self.live.pipeline);
        if is_news {
            warn!(%exporter, pipeline, items, reason, "a part of a request is not taken; it is held and will be retried");
        } else {
            debug!(%exporter, pipeline, items, reason, "a part of a request is sent again");
        }
    }

    fn tell(self, change: Change, reason: &str) {
        let exporter = &self.destination.id;
        match change {
            Change::None => {}
            Change::Broke => {
                warn!(%exporter, pipeline = &*self.live.pipeline, reason, "export failed; the data is held and will be retried");
            }
            Change::Silent => {
                warn!(%exporter, pipeline = &*self.live.pipeline, "attempts in a row got no answer: connections are opened afresh");
            }
            Change::Mended(after) => {
                info!(%exporter, pipeline = &*self.live.pipeline, seconds = after.as_secs(), "the destination takes data again");
            }
        }
    }
}

fn attempt_of(outcome: &Outcome) -> Attempt {
    match outcome {
        Outcome::Delivered { .. } | Outcome::Discarded => Attempt::Taken,
        Outcome::Each(verdicts) if verdicts.again.is_none() && verdicts.rejected.is_empty() => Attempt::Taken,
        Outcome::Each(_) | Outcome::Partial { .. } => Attempt::Partly,
        Outcome::Retry { .. } => Attempt::Failed,
        Outcome::TooLarge { .. } => Attempt::TooLarge,
        Outcome::Rejected { .. } | Outcome::Refused { .. } | Outcome::Unsupported { .. } => Attempt::Refused,
    }
}

fn refusal_of(status: u16) -> Refusal {
    if status == PANIC { Refusal::Panic } else { Refusal::Refused }
}

/// What comes before the deadline, where there is one.
async fn before<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

/// 0..1, for jitter.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, which is no reason to stop.
    if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
