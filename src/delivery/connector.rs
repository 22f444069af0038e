//! Drives a connector: records in, derived records out to its own topics.
//!
//! Full: when a topic it appends to has no room, it waits, and its own topic with it; it never skips.
//! Lost: a record on which a processor or the connector panics goes to the dead letters.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::error;

use super::{
    Consumer, DeadLetters,
    caught::caught,
    consumer::{LINGER, LITTLE, RECORDS_MAX},
    consumer_name,
    passing::Passing,
};
use crate::{
    component::{Connector, Derived, Stateful},
    journal::{DropReason, Letter, NewRecord, Note, Position, Record, Refusal, Settled, SourceId, Topic},
    runtime::{Clock, Shutdown},
    signal::Batch,
    tap::Taps,
};

/// A connector with the topics it appends to; shared by the pipelines that end in it.
pub struct SharedConnector {
    pub connector: Mutex<Box<dyn Connector>>,
    /// What it remembers, if anything.
    pub state: Option<Arc<dyn Stateful>>,
    pub source: SourceId,
    /// One a signal that some pipeline takes from it.
    pub outputs: Vec<Arc<Topic>>,
    pub dead_letters: Arc<DeadLetters>,
    pub clock: Clock,
    pub flush_interval: Option<Duration>,
    pub taps: Taps,
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

    /// `last`: what is left untold is never told.
    fn flush(&self, derived: &mut Vec<Derived>, last: bool) {
        let now = self.clock.now();
        let flushed = caught(|| match &self.state {
            // Beside what is being taken in, not instead of it. Not by `blocking`: that hands this worker's tasks to a new thread, and the
            // allocator keeps what the old one had (measured: 20 MiB more under load).
            Some(state) => drop(state.flush(now, last, derived)),
            None if last => self.connector.lock().finish(now, derived),
            None => self.connector.lock().flush(now, derived),
        });
        if let Err(reason) = flushed {
            error!(reason, "a connector could not flush");
            derived.clear();
        }
    }

    /// Flushes each interval until `stop`, then once more; `abort` ends that, too.
    pub async fn run_flushes(self: Arc<Self>, stop: Shutdown, abort: Shutdown) {
        tokio::select! {
            biased;
            () = abort.cancelled() => {}
            () = self.flush_until(stop) => {}
        }
    }

    async fn flush_until(&self, stop: Shutdown) {
        let mut derived = Vec::new();
        if let Some(every) = self.flush_interval.filter(|every| !every.is_zero()) {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = ticks.tick() => {
                        self.flush(&mut derived, false);
                        self.append(&mut derived, None).await;
                    }
                }
            }
        } else {
            stop.cancelled().await;
        }
        self.flush(&mut derived, true);
        self.append(&mut derived, None).await;
    }
}

/// Reads one pipeline's records into the connector until `drain` fires and all is read, or `abort` fires. Returns the items that were given
/// up then.
pub async fn run(mut consumer: Consumer, shared: Arc<SharedConnector>, drain: Shutdown, abort: Shutdown) -> u64 {
    let mut records: Vec<Record> = Vec::new();
    let mut derived = Vec::new();
    'reading: loop {
        // Looked at afresh each time: what was appended before `drain` fired is read.
        let draining = drain.is_cancelled();
        if draining && !consumer.cursor.has_unread() {
            break;
        }
        tokio::select! {
            biased;
            () = abort.cancelled() => break,
            () = drain.cancelled(), if !draining => continue,
            () = consumer.cursor.ready() => {}
        }
        consumer.cursor.read(RECORDS_MAX, READ_BYTES, &mut records);
        let mut bytes = 0;
        for record in records.drain(..) {
            bytes += record.batch.payload.len();
            let position = record.position;
            let settled = match take(&consumer, &shared, &record, &mut derived) {
                Ok(settled) => settled,
                Err(message) => {
                    let items = record.batch.items;
                    let letter = letter(&consumer, &shared, record, &message);
                    tokio::select! {
                        biased;
                        () = abort.cancelled() => break 'reading,
                        () = shared.dead_letters.put(vec![letter]) => {}
                    }
                    Settled::dropped(DropReason::Rejected, items)
                }
            };
            if !derived.is_empty() {
                tokio::select! {
                    biased;
                    () = abort.cancelled() => break 'reading,
                    () = shared.append(&mut derived, Some(position)) => {}
                }
            }
            consumer.cursor.settle(position, &settled);
        }
        if bytes < LITTLE && !drain.is_cancelled() {
            sleep(LINGER).await;
        }
    }
    consumer.cursor.abandon(DropReason::Shutdown)
}

/// What became of one record, or the words of a panic on it.
fn take(consumer: &Consumer, shared: &SharedConnector, record: &Record, derived: &mut Vec<Derived>) -> Result<Settled, String> {
    let items = record.batch.items;
    let passing = Passing { taps: &shared.taps, clock: &shared.clock, pipeline: &consumer.pipeline, component: &consumer.id };
    let taken = caught(|| {
        let chained = consumer.chain.run(record);
        let mut settled = Settled::dropped(DropReason::Processor, chained.dropped);
        if let Some(batch) = chained.batch {
            settled.delivered = items.saturating_sub(chained.dropped);
            let record = Record { batch, ..record.clone() };
            shared.connector.lock().consume_from(&consumer.pipeline, &record, derived);
            passing.show(&record.batch, None, "");
        } else {
            passing.show(&record.batch, Some(DropReason::Processor), "");
        }
        settled
    });
    taken.inspect_err(|message| {
        derived.clear();
        passing.show(&record.batch, Some(DropReason::Rejected), message);
    })
}

fn letter(consumer: &Consumer, shared: &SharedConnector, record: Record, message: &str) -> Letter {
    let note = Note {
        consumer: consumer_name(&consumer.id, &consumer.pipeline).into(),
        origin: shared.dead_letters.origin(record.position),
        refused: shared.clock.now(),
        reason: Refusal::Panic,
        message: Note::bounded(message),
        attempts: 1,
        is_processed: false,
    };
    Letter { note, received: record.received, batch: Batch { index: None, ..record.batch } }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::{
        delivery::{Chain, Live},
        internal_telemetry::Telemetry,
        journal::{Accounts, Appending, LagBound, MemoryShard, OnOverflow, Sources, Subscriber, TopicId},
        signal::{ComponentId, Signal, UnixNanos},
    };

    /// Passes on what it is given; panics at 13 items.
    struct Forward;

    impl Connector for Forward {
        fn consume(&mut self, record: &Record, out: &mut Vec<Derived>) {
            assert!(record.batch.items != 13, "13 is not taken");
            out.push(Derived { batch: record.batch.clone(), received: record.received });
        }
    }

    fn topic(number: u16) -> Arc<Topic> {
        let id = TopicId(number);
        Arc::new(Topic::new(id, "traces".to_owned(), Signal::Traces, 1, |shard, room| {
            Arc::new(MemoryShard::new(id, shard, 8 << 20, room))
        }))
    }

    fn subscriber(bound: LagBound) -> Subscriber {
        let sources = Sources::of([SourceId(0)]);
        Subscriber { name: "test".into(), sources, bound, on_overflow: OnOverflow::HoldDoor, is_stateful: false }
    }

    fn put(topic: &Topic, items: u64) {
        let payload = vec![0; 10].into();
        let batch = Batch { signal: Signal::Traces, payload, items, context: Arc::default(), index: None };
        let new = NewRecord { source: SourceId(0), received: UnixNanos(1), batch, derived_from: None };
        assert!(matches!(topic.append_now(0, new), Ok(Appending::Done { .. })));
    }

    struct Rig {
        input: Arc<Topic>,
        letters: Arc<DeadLetters>,
        accounts: Accounts,
        drain: Shutdown,
        abort: Shutdown,
        task: JoinHandle<u64>,
    }

    /// A connector between two topics; the second is read by nobody and takes so many records (0: any number).
    #[expect(clippy::disallowed_methods, reason = "the rig owns the task and awaits it")]
    fn rig(output_records: u64) -> Rig {
        let (input, output) = (topic(0), topic(1));
        let cursor = input.cursor(&subscriber(LagBound::NONE));
        drop(output.cursor(&subscriber(LagBound { records: output_records, ..LagBound::NONE })));
        let letters = Arc::new(DeadLetters::in_memory(Arc::new([]), &Telemetry::default()));
        let shared = Arc::new(SharedConnector {
            connector: Mutex::new(Box::new(Forward)),
            state: None,
            source: SourceId(0),
            outputs: vec![output],
            dead_letters: letters.clone(),
            clock: Clock::new(|| UnixNanos(1)),
            flush_interval: None,
            taps: Taps::default(),
        });
        let accounts = cursor.accounts();
        let consumer = Consumer {
            live: Arc::new(Live::new("traces".into(), ComponentId::parse("test").unwrap(), Signal::Traces, &cursor)),
            pipeline: "traces".into(),
            id: ComponentId::parse("test").unwrap(),
            signal: Signal::Traces,
            cursor,
            chain: Arc::new(Chain::new(Vec::new(), 1)),
            depth: 0,
            replays: None,
        };
        let (drain, abort) = (Shutdown::new(), Shutdown::new());
        let task = tokio::spawn(run(consumer, shared, drain.clone(), abort.clone()));
        Rig { input, letters, accounts, drain, abort, task }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_just_before_the_end_is_read() {
        // The old order of things went wrong by chance.
        for _ in 0..50 {
            let rig = rig(0);
            sleep(Duration::from_millis(5)).await;
            rig.drain.cancel();
            put(&rig.input, 3);
            assert_eq!(rig.task.await.unwrap(), 0);
            assert_eq!(rig.accounts.books().delivered, 3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_is_told() {
        let rig = rig(1);
        for items in [1, 2, 4, 8] {
            put(&rig.input, items);
        }
        sleep(Duration::from_secs(1)).await;
        rig.drain.cancel();
        rig.abort.cancel();
        let given_up = tokio::time::timeout(Duration::from_secs(1), rig.task).await.unwrap().unwrap();
        let books = rig.accounts.books();
        assert_eq!((given_up, books.delivered, books.dropped[DropReason::Shutdown as usize]), (12, 3, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_on_which_the_connector_panics_goes_to_the_dead_letters() {
        let rig = rig(0);
        for items in [1, 13, 2] {
            put(&rig.input, items);
        }
        sleep(Duration::from_millis(5)).await;
        rig.drain.cancel();
        assert_eq!(rig.task.await.unwrap(), 0);
        let books = rig.accounts.books();
        assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize]), (3, 13));
        let told: Vec<String> = rig.letters.letters().into_iter().map(|letter| letter.note.message).collect();
        assert_eq!(told, ["panic: 13 is not taken"]);
    }
}
