//! Drives an exporter: records in, requests out, each item accounted for once.
//!
//! In:   the records of one pipeline's topics, from a cursor.
//! Out:  requests to one destination: small records joined, large ones split.
//! Full: it reads no further while enough is under way; what it has not read waits in the topic, within its bound.
//! Lost: nothing but what is counted in its books with a reason.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};

use super::{
    Breaker, Carried, Consumer, DeadLetters, Ends, Fill, Left, Policy, Replay,
    caught::caught,
    consumer::{LINGER, LITTLE},
    journey::{NOWHERE, Share, Shares},
    passing::Passing,
    traffic::Traffic,
};
use crate::{
    component::Exporter,
    internal_telemetry::ExporterMetrics,
    journal::{DropReason, JournalId, Letter, Note, Record, Refusal, Settled, SourceId},
    runtime::{Clock, Health},
    signal::{Batch, ComponentId, Signal},
    tap::{At, Taps},
};

/// One exporter of a configuration, with what its consumers share.
pub struct Destination {
    pub id: ComponentId,
    pub exporter: Arc<dyn Exporter>,
    /// By [`Signal::ordinal`]: signals may go to different services or addresses, and one that fails must not stop the others.
    pub breakers: [Breaker; Signal::ALL.len()],
    pub metrics: ExporterMetrics,
    pub dead_letters: Arc<DeadLetters>,
    pub journal: JournalId,
    pub health: Arc<Health>,
    pub splits_by_context: bool,
    pub clock: Clock,
    pub taps: Taps,
}

impl Destination {
    pub(super) fn breaker(&self, signal: Signal) -> &Breaker {
        let [traces, metrics, logs] = &self.breakers;
        match signal {
            Signal::Traces => traces,
            Signal::Metrics => metrics,
            Signal::Logs => logs,
        }
    }

    /// Shows to taps what became of a part of a record.
    pub(super) fn show(&self, pipeline: &Arc<str>, batch: &Batch, dropped: Option<DropReason>, message: &str) {
        self.passing(pipeline).show(batch, dropped, message);
    }

    /// Whether somebody looks at what is delivered.
    pub(super) fn shows_delivered(&self) -> bool {
        self.taps.wants(At::Delivered)
    }

    fn passing<'a>(&'a self, pipeline: &'a Arc<str>) -> Passing<'a> {
        Passing { taps: &self.taps, clock: &self.clock, pipeline, component: &self.id }
    }
}

/// Delivers one pipeline's records, those that were carried here first, until it is told to end and has done so.
pub async fn run(mut consumer: Consumer, destination: Arc<Destination>, policy: Policy, carried: Carried, ends: Ends) -> Left {
    let policy = Arc::new(policy);
    let mut traffic = Traffic::new(destination.clone(), policy.clone(), consumer.live.clone(), ends.clone());
    traffic.resume(carried);
    let Ends { drain, abort, release } = ends;
    let mut records = Vec::new();
    let mut open = destination.breaker(consumer.signal).watch();
    consumer.cursor.set_stalled(*open.borrow_and_update());
    let mut replays = consumer.replays.take();
    // A letter and what was read take turns.
    let mut is_replays_turn = true;
    loop {
        let (room, idle, draining) = (traffic.has_room() && !consumer.cursor.is_full(), traffic.is_idle(), drain.is_cancelled());
        if draining && traffic.is_empty() && !consumer.cursor.has_unread() {
            break;
        }
        tokio::select! {
            biased;
            () = abort.cancelled() => break,
            () = release.cancelled() => break,
            Some(landed) = traffic.next() => traffic.land(landed, &mut consumer.cursor),
            Ok(()) = open.changed() => {
                let stalled = *open.borrow_and_update();
                consumer.cursor.set_stalled(stalled);
            }
            Some(replay) = next_replay(&mut replays), if room && !draining && (is_replays_turn || !consumer.cursor.has_unread()) => {
                is_replays_turn = false;
                replayed(&consumer, &destination, &mut traffic, replay);
            }
            () = enough(&consumer, &policy, idle, draining, &destination.clock), if room => {
                is_replays_turn = true;
                let bytes = policy.request_bytes.min(policy.flying_bytes_max);
                consumer.cursor.read(policy.records_max(), bytes, &mut records);
                let read_bytes: usize = records.iter().map(|record| record.batch.payload.len()).sum();
                traffic.count(records.len(), &mut consumer.cursor);
                for shares in gather(&mut consumer, &destination, &policy, &mut records, &mut traffic) {
                    traffic.depart(shares);
                }
                if read_bytes < LITTLE && policy.fill == Fill::WhenIdle && !draining {
                    // What is under way goes on meanwhile.
                    let mut pause = pin!(sleep(LINGER));
                    loop {
                        tokio::select! {
                            biased;
                            Some(landed) = traffic.next() => traffic.land(landed, &mut consumer.cursor),
                            () = &mut pause => break,
                        }
                    }
                }
            }
            () = drain.cancelled(), if !draining => {}
        }
    }
    if release.is_cancelled() {
        let carried = traffic.leave(&mut consumer.cursor).await;
        consumer.replays = replays;
        return Left { consumer, carried, items: 0 };
    }
    drop(traffic);
    let items = consumer.cursor.abandon(DropReason::Shutdown);
    Left { consumer, carried: Carried::default(), items }
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

/// `None` at once where there are none to come.
async fn next_replay(replays: &mut Option<mpsc::Receiver<Replay>>) -> Option<Replay> {
    let replay = replays.as_mut()?.recv().await;
    if replay.is_none() {
        *replays = None;
    }
    replay
}

/// What is known of a record that the processors did not survive.
fn panicked(note: Note, message: String, destination: &Destination) -> Note {
    Note {
        refused: destination.clock.now(),
        reason: Refusal::Panic,
        message: Note::bounded(&message),
        attempts: note.attempts.saturating_add(1),
        is_processed: false,
        ..note
    }
}

/// A letter is sent once more: as it was refused, or through the processors that failed on it.
fn replayed(consumer: &Consumer, destination: &Destination, traffic: &mut Traffic, replay: Replay) {
    let Letter { note, received, batch } = replay.letter.clone();
    if note.is_processed {
        traffic.replay(replay, Some(batch), Vec::new());
        return;
    }
    let record = Record { position: NOWHERE, source: SourceId(u16::MAX), received, batch: batch.clone(), derived_from: None };
    match caught(|| consumer.chain.run_again(&record)) {
        Ok(chained) => traffic.replay(replay, chained.batch, Vec::new()),
        Err(message) => {
            let note = panicked(note, message, destination);
            traffic.replay(replay, None, vec![Letter { note, received, batch }]);
        }
    }
}

/// Runs the pipeline's processors and joins what is left into requests of one context, within the policy's bounds.
fn gather(
    consumer: &mut Consumer,
    destination: &Destination,
    policy: &Policy,
    records: &mut Vec<Record>,
    traffic: &mut Traffic,
) -> Vec<Shares> {
    let mut requests: Vec<Shares> = Vec::new();
    let (mut bytes, mut items) = (0, 0);
    for record in records.drain(..) {
        let chained = match caught(|| consumer.chain.run(&record)) {
            Ok(chained) => chained,
            Err(message) => {
                let Record { position, batch, received, .. } = record;
                destination.show(&consumer.pipeline, &batch, Some(DropReason::Rejected), &message);
                let note = panicked(traffic.note(position), message, destination);
                traffic.bury(position, Letter { note, received, batch: Batch { index: None, ..batch } });
                continue;
            }
        };
        let Some(batch) = chained.batch else {
            consumer.cursor.settle(record.position, &Settled::dropped(DropReason::Processor, chained.dropped));
            destination.show(&consumer.pipeline, &record.batch, Some(DropReason::Processor), "");
            continue;
        };
        destination.passing(&consumer.pipeline).part(&record.batch, chained.dropped);
        let share = Share { position: record.position, received: record.received, processed_away: chained.dropped, batch };
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
