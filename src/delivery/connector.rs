//! Drives a connector: records in, derived records out to its own topics.
//!
//! Full: when a topic it appends to has no room, it waits, and its own topic with it; it never skips.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    Consumer,
    consumer::{LINGER, LITTLE, RECORDS_MAX},
};
use crate::{
    component::{Connector, Derived},
    journal::{DropReason, NewRecord, Position, Record, Settled, SourceId, Topic},
    runtime::{Clock, Shutdown},
};

/// A connector with the topics it appends to; shared by the pipelines that end in it.
pub struct SharedConnector {
    pub connector: Mutex<Box<dyn Connector>>,
    pub source: SourceId,
    /// One a signal that some pipeline takes from it.
    pub outputs: Vec<Arc<Topic>>,
    pub clock: Clock,
    pub flush_interval: Option<Duration>,
}

/// Bytes taken from a topic at once.
const READ_BYTES: usize = 1 << 20;

impl SharedConnector {
    async fn append(&self, derived: &mut Vec<Derived>, from: Option<Position>) {
        for item in derived.drain(..) {
            let Some(topic) = self.outputs.iter().find(|topic| topic.signal == item.batch.signal) else { continue };
            let record = NewRecord { source: self.source, received: item.received, batch: item.batch, derived_from: from };
            topic.append_derived(0, record).await;
        }
    }

    /// Flushes each interval until `stop`, then once more.
    pub async fn run_flushes(self: Arc<Self>, stop: Shutdown) {
        let mut derived = Vec::new();
        if let Some(every) = self.flush_interval.filter(|every| !every.is_zero()) {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = ticks.tick() => {
                        self.connector.lock().flush(self.clock.now(), &mut derived);
                        self.append(&mut derived, None).await;
                    }
                }
            }
        } else {
            stop.cancelled().await;
        }
        self.connector.lock().flush(self.clock.now(), &mut derived);
        self.append(&mut derived, None).await;
    }
}

/// Reads one pipeline's records into the connector until `drain` fires and all is read, or `abort` fires.
pub async fn run(mut consumer: Consumer, shared: Arc<SharedConnector>, drain: Shutdown, abort: Shutdown) {
    let mut records: Vec<Record> = Vec::new();
    let mut derived = Vec::new();
    loop {
        tokio::select! {
            () = abort.cancelled() => break,
            () = consumer.cursor.ready() => {}
            () = drain.cancelled(), if !consumer.cursor.has_unread() => break,
        }
        consumer.cursor.read(RECORDS_MAX, READ_BYTES, &mut records);
        let mut bytes = 0;
        for record in records.drain(..) {
            bytes += record.batch.payload.len();
            let (position, items) = (record.position, record.batch.items);
            let chained = consumer.chain.run(&record);
            let mut settled = Settled::dropped(DropReason::Processor, chained.dropped);
            if let Some(batch) = chained.batch {
                settled.delivered = items.saturating_sub(chained.dropped);
                shared.connector.lock().consume(&Record { batch, ..record }, &mut derived);
            }
            if !derived.is_empty() {
                shared.append(&mut derived, Some(position)).await;
            }
            consumer.cursor.settle(position, &settled);
        }
        if bytes < LITTLE && !drain.is_cancelled() {
            sleep(LINGER).await;
        }
    }
    consumer.cursor.abandon(DropReason::Shutdown);
}
