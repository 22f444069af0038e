//! Drives an exporter: records in, requests out, each item accounted for once.
//!
//! In:   the records of one pipeline's topics, from a cursor.
//! Out:  requests to one destination: small records joined, large ones split.
//! Full: it reads no further while enough is under way; what it has not read waits in the topic, within its bound.
//! Lost: nothing but what is counted in its books with a reason.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{Instrument, error, info, warn};

use super::{
    Breaker, Consumer, DeadLetters, Fill, Letter, Policy,
    breaker::{Change, Verdict},
    caught::{caught, caught_async},
    consumer::{LINGER, LITTLE},
};
use crate::{
    component::{Exporter, Outcome, Request, RetryCause},
    internal_telemetry::{ExporterMetrics, export_span, span_failed},
    journal::{DropReason, Position, Record, Settled},
    otlp::split_by_items,
    runtime::{Clock, Health, Shutdown, State},
    signal::{Batch, ComponentId, Signal},
};

/// One exporter of a configuration, with what its consumers share.
pub struct Destination {
    pub id: ComponentId,
    pub exporter: Arc<dyn Exporter>,
    /// By [`Signal::ordinal`]: signals may go to different services or addresses, and one that fails must not stop the others.
    pub breakers: [Breaker; Signal::ALL.len()],
    pub metrics: ExporterMetrics,
    pub dead_letters: Arc<DeadLetters>,
    pub health: Arc<Health>,
    pub splits_by_context: bool,
    pub clock: Clock,
}

impl Destination {
    fn breaker(&self, signal: Signal) -> &Breaker {
        let [traces, metrics, logs] = &self.breakers;
        match signal {
            Signal::Traces => traces,
            Signal::Metrics => metrics,
            Signal::Logs => logs,
        }
    }
}

/// A part of a request: what is left of one record.
#[derive(Clone)]
struct Share {
    position: Position,
    /// What the processors dropped of the record already.
    processed_away: u64,
    batch: Batch,
}

type Shares = SmallVec<[Share; 4]>;
type Finished = SmallVec<[(Position, Settled); 4]>;

struct Flight {
    bytes: usize,
    finished: Finished,
}

/// Delivers one pipeline's records until `drain` fires and all is settled, or `abort` fires. Returns the items that were given up then.
pub async fn run(mut consumer: Consumer, destination: Arc<Destination>, policy: Policy, drain: Shutdown, abort: Shutdown) -> u64 {
    let policy = Arc::new(policy);
    let mut flying: FuturesUnordered<BoxFuture<'static, Flight>> = FuturesUnordered::new();
    let mut flying_bytes = 0;
    let mut records = Vec::new();
    let mut open = destination.breaker(consumer.signal).watch();
    loop {
        let room = flying.len() < policy.flying_max && (flying_bytes < policy.flying_bytes_max || flying.is_empty());
        let (idle, draining) = (flying.is_empty(), drain.is_cancelled());
        if draining && flying.is_empty() && !consumer.cursor.has_unread() {
            break;
        }
        tokio::select! {
            biased;
            () = abort.cancelled() => break,
            Some(flight) = flying.next() => {
                flying_bytes -= flight.bytes;
                for (position, settled) in &flight.finished {
                    consumer.cursor.settle(*position, settled);
                }
            }
            Ok(()) = open.changed() => {
                let stalled = *open.borrow_and_update();
                consumer.cursor.set_stalled(stalled);
            }
            () = enough(&consumer, &policy, idle, draining, &destination.clock), if room => {
                let bytes = policy.request_bytes.min(policy.flying_bytes_max);
                consumer.cursor.read(policy.records_max(), bytes, &mut records);
                let read_bytes: usize = records.iter().map(|record| record.batch.payload.len()).sum();
                for shares in gather(&mut consumer, &destination, &policy, &mut records) {
                    let bytes = shares.iter().map(|share| share.batch.payload.len()).sum();
                    flying_bytes += bytes;
                    let (destination, policy, pipeline) = (destination.clone(), policy.clone(), consumer.pipeline.clone());
                    flying.push(
                        async move {
                            let finished = Delivery { destination: &destination, policy: &policy, pipeline: &pipeline }.deliver(shares).await;
                            Flight { bytes, finished }
                        }
                        .boxed(),
                    );
                }
                if read_bytes < LITTLE && policy.fill == Fill::WhenIdle && !draining {
                    // What is under way goes on meanwhile.
                    let mut pause = std::pin::pin!(sleep(LINGER));
                    loop {
                        tokio::select! {
                            biased;
                            Some(flight) = flying.next() => {
                                flying_bytes -= flight.bytes;
                                for (position, settled) in &flight.finished {
                                    consumer.cursor.settle(*position, settled);
                                }
                            }
                            () = &mut pause => break,
                        }
                    }
                }
            }
            () = drain.cancelled(), if !draining => {}
        }
    }
    drop(flying);
    consumer.cursor.abandon(DropReason::Shutdown)
}

/// Resolves when a request should be made of what waits.
async fn enough(consumer: &Consumer, policy: &Policy, idle: bool, draining: bool, clock: &Clock) {
    match policy.fill {
        _ if draining => consumer.cursor.ready().await,
        Fill::WhenIdle if idle => consumer.cursor.ready().await,
        Fill::WhenIdle => consumer.cursor.ready_at(u64::MAX, policy.request_bytes as u64).await,
        Fill::Until { items, bytes, wait } => {
            consumer.cursor.ready().await;
            let oldest = consumer.cursor.unread().oldest_unix_nanos;
            let waited = Duration::from_nanos(clock.now().0.saturating_sub(oldest));
            tokio::select! {
                () = consumer.cursor.ready_at(items, bytes) => {}
                () = sleep(wait.saturating_sub(waited)) => {}
            }
        }
    }
}

/// Runs the pipeline's processors and joins what is left into requests of one context, within the policy's bounds.
fn gather(consumer: &mut Consumer, destination: &Destination, policy: &Policy, records: &mut Vec<Record>) -> Vec<Shares> {
    let mut requests: Vec<Shares> = Vec::new();
    let (mut bytes, mut items) = (0, 0);
    for record in records.drain(..) {
        let chained = match caught(|| consumer.chain.run(&record)) {
            Ok(chained) => chained,
            Err(message) => {
                let Record { position, batch, .. } = record;
                consumer.cursor.settle(position, &Settled::dropped(DropReason::Rejected, batch.items));
                destination.dead_letters.put(Letter { exporter: destination.id.clone(), batch, message });
                continue;
            }
        };
        let Some(batch) = chained.batch else {
            consumer.cursor.settle(record.position, &Settled::dropped(DropReason::Processor, chained.dropped));
            continue;
        };
        let share = Share { position: record.position, processed_away: chained.dropped, batch };
        let joins = requests.last().and_then(|last| last.first()).is_some_and(|first| {
            (!(destination.splits_by_context || policy.splits_by_context) || first.batch.context == share.batch.context)
                && bytes + share.batch.payload.len() <= policy.request_bytes.max(1)
                && (policy.request_items_max == 0 || items + share.batch.items <= policy.request_items_max)
                && (policy.request_bytes_max == 0 || bytes + share.batch.payload.len() <= policy.request_bytes_max)
        });
        if !joins {
            (bytes, items) = (0, 0);
            requests.push(Shares::new());
        }
        bytes += share.batch.payload.len();
        items += share.batch.items;
        if let Some(last) = requests.last_mut() {
            last.push(share);
        }
    }
    requests
}

/// One request on its way until each item of it is accounted for.
#[derive(Clone, Copy)]
struct Delivery<'a> {
    destination: &'a Destination,
    policy: &'a Policy,
    pipeline: &'a str,
}

impl Delivery<'_> {
    async fn deliver(self, shares: Shares) -> Finished {
        let mut finished: Finished =
            shares.iter().map(|share| (share.position, Settled::dropped(DropReason::Processor, share.processed_away))).collect();
        // Each piece is a list of shares with the places in `finished` that they belong to.
        let mut pieces: Vec<Vec<(usize, Batch)>> = vec![shares.into_iter().map(|share| share.batch).enumerate().collect()];
        if let Some(piece) = pieces.pop() {
            pieces = self.within_bounds(piece);
            pieces.reverse();
        }
        let mut started: Option<Instant> = None;
        while let Some(piece) = pieces.pop() {
            let started = *started.get_or_insert_with(Instant::now);
            match self.attempt_until_answered(&piece, started).await {
                Answer::Settled(reason, rejected) => self.settle(&piece, reason, rejected, &mut finished),
                Answer::Split => {
                    let smaller = halves(&piece);
                    if smaller.len() < 2 {
                        // Its items cannot be told apart any further: no attempt would be a different one.
                        self.bury(piece.iter().map(|(_, batch)| batch), "refused, and it cannot be split");
                        let items = piece.iter().map(|(_, batch)| batch.items).sum();
                        self.settle(&piece, Some(DropReason::Rejected), items, &mut finished);
                    } else {
                        pieces.extend(smaller.into_iter().rev());
                    }
                }
            }
        }
        finished
    }

    /// Splits what is larger than the policy allows.
    fn within_bounds(self, piece: Vec<(usize, Batch)>) -> Vec<Vec<(usize, Batch)>> {
        let Policy { request_items_max, request_bytes_max, .. } = *self.policy;
        let (mut waiting, mut done) = (vec![piece], Vec::new());
        while let Some(piece) = waiting.pop() {
            let items: u64 = piece.iter().map(|(_, batch)| batch.items).sum();
            let bytes: usize = piece.iter().map(|(_, batch)| batch.payload.len()).sum();
            let too_many = request_items_max != 0 && items > request_items_max;
            let too_long = request_bytes_max != 0 && bytes > request_bytes_max;
            if items <= 1 || !(too_many || too_long) {
                done.push(piece);
                continue;
            }
            let smaller = match piece.as_slice() {
                // By whole requests of the largest size rather than by halves, as a Collector's batch processor does.
                [(place, batch)] if too_many => {
                    split_by_items(batch, request_items_max).into_iter().map(|part| vec![(*place, part)]).collect()
                }
                _ => halves(&piece),
            };
            if smaller.len() < 2 {
                done.push(piece);
            } else {
                waiting.extend(smaller.into_iter().rev());
            }
        }
        done
    }

    async fn attempt_until_answered(self, piece: &[(usize, Batch)], started: Instant) -> Answer {
        let Self { destination, policy, .. } = self;
        let Some((_, first)) = piece.first() else { return Answer::Settled(None, 0) };
        let signal = first.signal;
        let request = Request {
            signal,
            items: piece.iter().map(|(_, batch)| batch.items).sum(),
            bytes: piece.iter().map(|(_, batch)| batch.payload.len()).sum(),
            parts: piece.iter().map(|(_, batch)| batch.clone()).collect(),
        };
        loop {
            let passing = destination.breaker(signal).pass();
            let Some(pass) = before(policy.retry.elapsed_max.and_then(|limit| started.checked_add(limit)), passing).await else {
                let reason = "the destination has failed all this time";
                error!(exporter = %destination.id, items = request.items, %signal, reason, "gave up after max_elapsed_time: dropped");
                return Answer::Settled(Some(DropReason::Expired), request.items);
            };
            let span = export_span(destination.id.as_str(), signal, request.items);
            let attempt = caught_async(async { destination.exporter.export(request.clone()).await }.instrument(span.clone()));
            let ended = match policy.timeout {
                Some(limit) => timeout(limit, attempt).await.unwrap_or_else(|_| {
                    let reason = format!("no answer within {limit:?}");
                    Ok(Outcome::Retry { reason, after: None, cause: RetryCause::Timeout })
                }),
                None => attempt.await,
            };
            let outcome = ended.unwrap_or_else(|message| Outcome::Rejected { message });
            let Outcome::Retry { reason, after, cause } = outcome else {
                self.note(pass.judge(Verdict::Works), "");
                return self.answer(outcome, &request);
            };
            span_failed(&span, &reason);
            let failures = pass.failures().saturating_add(1);
            let backoff = match cause {
                // Nobody mends a credential within a second.
                RetryCause::Blocked => policy.retry.max.max(policy.backoff(failures, random())),
                RetryCause::Passing | RetryCause::Timeout => policy.backoff(failures, random()),
            };
            let wait = after.map_or(backoff, |after| after.min(policy.retry.max).max(backoff));
            let timed_out = cause == RetryCause::Timeout;
            let verdict = if policy.retry.enabled { Verdict::Fails { wait, timed_out } } else { Verdict::Works };
            let change = pass.judge(verdict);
            if change == Change::Silent {
                destination.exporter.reconnect();
            }
            self.note(change, &reason);
            let state =
                if cause == RetryCause::Blocked { State::Permanent(reason.clone()) } else { State::Recoverable(reason.clone()) };
            destination.health.report(Some(self.pipeline), &destination.id, state);
            if !policy.retry.enabled {
                warn!(exporter = %destination.id, items = request.items, %signal, reason, "export failed and retries are switched off: dropped");
                return Answer::Settled(Some(DropReason::RetryDisabled), request.items);
            }
            if policy.retry.elapsed_max.is_some_and(|limit| started.elapsed() + wait > limit) {
                error!(exporter = %destination.id, items = request.items, %signal, reason, "gave up after max_elapsed_time: dropped");
                return Answer::Settled(Some(DropReason::Expired), request.items);
            }
        }
    }

    /// What an answer means for the items.
    fn answer(self, outcome: Outcome, request: &Request) -> Answer {
        let Self { destination, .. } = self;
        destination.health.report(Some(self.pipeline), &destination.id, State::Ok);
        let (exporter, signal, items) = (&destination.id, request.signal, request.items);
        match outcome {
            Outcome::Delivered { warning } => {
                if let Some(warning) = warning {
                    warn!(%exporter, %signal, warning, "the backend took the data with a warning");
                }
                Answer::Settled(None, 0)
            }
            Outcome::Discarded => Answer::Settled(Some(DropReason::Nop), items),
            Outcome::Partial { rejected, message } => {
                warn!(%exporter, %signal, rejected, message, "the backend rejected a part of a request; the rest is delivered");
                Answer::Settled(Some(DropReason::Rejected), rejected.min(items))
            }
            Outcome::TooLarge { message, .. } => {
                if items > 1 {
                    return Answer::Split;
                }
                self.bury(&request.parts, &format!("a single item is larger than the backend takes: {message}"));
                Answer::Settled(Some(DropReason::Rejected), items)
            }
            // One bad record must not take its neighbours along.
            Outcome::Rejected { .. } if request.parts.len() > 1 => Answer::Split,
            Outcome::Rejected { message } => {
                self.bury(&request.parts, &message);
                Answer::Settled(Some(DropReason::Rejected), items)
            }
            Outcome::Unsupported { message } => {
                warn!(%exporter, %signal, items, message, "this backend takes no {signal}: dropped; take the exporter out of the {signal} pipelines");
                Answer::Settled(Some(DropReason::Unsupported), items)
            }
            Outcome::Retry { .. } => Answer::Settled(None, 0),
        }
    }

    fn bury<'b>(self, batches: impl IntoIterator<Item = &'b Batch>, message: &str) {
        for batch in batches {
            self.destination.dead_letters.put(Letter {
                exporter: self.destination.id.clone(),
                batch: batch.clone(),
                message: message.to_owned(),
            });
        }
    }

    /// Books the items of a piece: `dropped` of them for the reason, the rest as delivered.
    fn settle(self, piece: &[(usize, Batch)], reason: Option<DropReason>, dropped: u64, finished: &mut Finished) {
        let mut left = dropped;
        for (place, batch) in piece {
            let mine = left.min(batch.items);
            left -= mine;
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

    fn note(self, change: Change, reason: &str) {
        let exporter = &self.destination.id;
        match change {
            Change::None => {}
            Change::Broke => {
                warn!(%exporter, pipeline = self.pipeline, reason, "export failed; the data is held and will be retried");
            }
            Change::Silent => {
                warn!(%exporter, pipeline = self.pipeline, "attempts in a row got no answer: connections are opened afresh");
            }
            Change::Mended(after) => {
                info!(%exporter, pipeline = self.pipeline, seconds = after.as_secs(), "the destination takes data again");
            }
        }
    }
}

enum Answer {
    /// So many items are dropped for the reason, the rest is delivered.
    Settled(Option<DropReason>, u64),
    /// Try again in smaller pieces.
    Split,
}

/// Two pieces of about half the size: by records where there are several, else by items. Fewer than two: it cannot be split.
fn halves(piece: &[(usize, Batch)]) -> Vec<Vec<(usize, Batch)>> {
    if let [(place, batch)] = piece {
        let half = batch.items.div_ceil(2).max(1);
        return split_by_items(batch, half).into_iter().map(|part| vec![(*place, part)]).collect();
    }
    let (head, tail) = piece.split_at(piece.len() / 2);
    vec![head.to_vec(), tail.to_vec()]
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
