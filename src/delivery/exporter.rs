//! Drives an exporter: records in, requests out, each item accounted for once.
//!
//! In:   the records of one pipeline's topics, from a cursor.
//! Out:  requests to one destination: small records joined, large ones split.
//! Full: it reads no further while enough is under way; what it has not read waits in the topic, within its bound.
//! Lost: nothing but what is counted in its books with a reason.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    Breaker, Consumer, DeadLetters, Fill, Letter, Policy,
    caught::caught,
    consumer::{LINGER, LITTLE},
    journey::{Share, Shares},
    traffic::Traffic,
};
use crate::{
    component::Exporter,
    internal_telemetry::ExporterMetrics,
    journal::{DropReason, Record, Settled},
    runtime::{Clock, Health, Shutdown},
    signal::{ComponentId, Signal},
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
    pub(super) fn breaker(&self, signal: Signal) -> &Breaker {
        let [traces, metrics, logs] = &self.breakers;
        match signal {
            Signal::Traces => traces,
            Signal::Metrics => metrics,
            Signal::Logs => logs,
        }
    }
}

/// Delivers one pipeline's records until `drain` fires and all is settled, or `abort` fires. Returns the items that were given up then.
pub async fn run(mut consumer: Consumer, destination: Arc<Destination>, policy: Policy, drain: Shutdown, abort: Shutdown) -> u64 {
    let policy = Arc::new(policy);
    let mut traffic = Traffic::new(destination.clone(), policy.clone(), consumer.pipeline.clone());
    let mut records = Vec::new();
    let mut open = destination.breaker(consumer.signal).watch();
    loop {
        let (room, idle, draining) = (traffic.has_room() && !consumer.cursor.is_full(), traffic.is_idle(), drain.is_cancelled());
        if draining && traffic.is_empty() && !consumer.cursor.has_unread() {
            break;
        }
        tokio::select! {
            biased;
            () = abort.cancelled() => break,
            Some(landed) = traffic.next() => traffic.land(landed, &mut consumer.cursor),
            Ok(()) = open.changed() => {
                let stalled = *open.borrow_and_update();
                consumer.cursor.set_stalled(stalled);
            }
            () = enough(&consumer, &policy, idle, draining, &destination.clock), if room => {
                let bytes = policy.request_bytes.min(policy.flying_bytes_max);
                consumer.cursor.read(policy.records_max(), bytes, &mut records);
                let read_bytes: usize = records.iter().map(|record| record.batch.payload.len()).sum();
                traffic.count(records.len(), &mut consumer.cursor);
                for shares in gather(&mut consumer, &destination, &policy, &mut records) {
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
    drop(traffic);
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
