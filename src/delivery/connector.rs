//! Drives a connector: records in, derived records out to its own topics.
//!
//! Full: when a topic it appends to has no room, it waits, and its own topic with it; it never skips.
//! Lost: a record on which a processor or the connector panics goes to the dead letters.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    Carried, Consumer, DeadLetters, Ends, Left,
    caught::caught,
    consumer::{LINGER, LITTLE, RECORDS_MAX, Taken},
    consumer_name,
    passing::Passing,
    saver::Saver,
};
use crate::{
    component::{Connector, Derived, Stateful},
    journal::{
        Derivation, DropReason, LastDerived, Letter, NewRecord, Note, Position, Record, Refusal, Settled, SourceId, Topic,
    },
    runtime::Clock,
    signal::{Batch, Signal},
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
    /// Writes down what it remembers, where there is a disk.
    pub saver: Option<Arc<Saver>>,
    pub taps: Taps,
}

/// Bytes taken from a topic at once.
const READ_BYTES: usize = 1 << 20;

impl SharedConnector {
    pub(super) async fn append_one(&self, item: Derived, derived_from: Option<Derivation>) {
        let Some(topic) = self.output(item.batch.signal) else { return };
        let record = NewRecord { source: self.source, received: item.received, batch: item.batch, derived_from };
        topic.append_derived(0, record).await;
    }

    pub(super) fn output(&self, signal: Signal) -> Option<&Arc<Topic>> {
        self.outputs.iter().find(|topic| topic.signal == signal)
    }

    /// What was made from a record is appended, but for what was there before a crash. Broken off, what is not appended is still there.
    async fn append_from(&self, reader: &Arc<str>, taken: &mut Taken, before: &mut Before) {
        let position = taken.position;
        while let Some(item) = taken.derived.last().cloned() {
            let signal = item.batch.signal;
            let number = taken.appended.get(signal.ordinal()).copied().unwrap_or(0) + 1;
            if !before.had(signal, position, number) {
                self.append_one(item, Some(Derivation { reader: reader.clone(), position })).await;
            }
            taken.derived.pop();
            if let Some(appended) = taken.appended.get_mut(signal.ordinal()) {
                *appended = number;
            }
        }
    }
}

/// What a pipeline's records became before this start. After a crash its place may be behind that.
struct Before(Vec<(Signal, LastDerived)>);

impl Before {
    fn of(shared: &SharedConnector, consumer: &Consumer) -> Self {
        let known = shared.outputs.iter().flat_map(|topic| topic.derived().into_iter().map(|last| (topic.signal, last)));
        let is_ours = |(_, LastDerived { from, .. }): &(Signal, LastDerived)| {
            let Position { topic, shard, offset } = from.position;
            // A topic that ends before it was begun anew by somebody: its positions mean other records now.
            from.reader == consumer.pipeline && consumer.cursor.end_of(topic, shard).is_some_and(|end| offset < end)
        };
        Self(known.filter(is_ours).collect())
    }

    /// Whether the record that is made as the `number`th (from 1) of one signal is there already.
    fn had(&mut self, signal: Signal, position: Position, number: usize) -> bool {
        let same = |(known, last): &(Signal, LastDerived)| {
            (*known, last.from.position.topic, last.from.position.shard) == (signal, position.topic, position.shard)
        };
        let Some(at) = self.0.iter().position(same) else { return false };
        let Some((_, last)) = self.0.get(at) else { return false };
        match position.offset.cmp(&last.from.position.offset) {
            Ordering::Less => true,
            Ordering::Equal => number <= last.records,
            Ordering::Greater => {
                self.0.swap_remove(at);
                false
            }
        }
    }
}

/// Reads one pipeline's records into the connector, those that were carried here first, until it is told to end and has done so.
pub async fn run(mut consumer: Consumer, shared: Arc<SharedConnector>, carried: Carried, ends: Ends) -> Left {
    let Carried { mut records, mut taken, .. } = carried;
    let mut read: Vec<Record> = Vec::new();
    let mut derived = Vec::new();
    let mut before = crate::runtime::blocking(|| Before::of(&shared, &consumer));
    let mut bytes = LITTLE;
    'reading: loop {
        if let Some(one) = &mut taken {
            // Not broken off by a release: what is being written is in, whether or not it is waited for.
            tokio::select! {
                biased;
                () = ends.abort.cancelled() => break,
                () = shared.append_from(&consumer.pipeline, one, &mut before) => {}
            }
            consumer.cursor.settle(one.position, &one.settled);
            taken = None;
        }
        while let Some(record) = records.pop_front() {
            if ends.release.is_cancelled() {
                records.push_front(record);
                break 'reading;
            }
            bytes += record.batch.payload.len();
            let position = record.position;
            let settled = match take(&consumer, &shared, &record, &mut derived) {
                Ok(settled) => settled,
                Err(message) => {
                    let items = record.batch.items;
                    let letter = letter(&consumer, &shared, record.clone(), &message);
                    tokio::select! {
                        biased;
                        () = ends.abort.cancelled() => {
                            records.push_front(record);
                            break 'reading;
                        }
                        () = shared.dead_letters.put(vec![letter]) => {}
                    }
                    Settled::dropped(DropReason::Rejected, items)
                }
            };
            if !derived.is_empty() {
                derived.reverse();
                taken = Some(Taken { position, settled, derived: std::mem::take(&mut derived), appended: Default::default() });
                continue 'reading;
            }
            consumer.cursor.settle(position, &settled);
        }
        if bytes < LITTLE && !ends.drain.is_cancelled() && !ends.release.is_cancelled() {
            sleep(LINGER).await;
        }
        // Looked at afresh each time: what was appended before `drain` fired is read.
        let draining = ends.drain.is_cancelled();
        if draining && !consumer.cursor.has_unread() {
            break;
        }
        tokio::select! {
            biased;
            () = ends.abort.cancelled() => break,
            () = ends.release.cancelled() => break,
            () = ends.drain.cancelled(), if !draining => continue,
            () = consumer.cursor.ready() => {}
        }
        consumer.cursor.read(RECORDS_MAX, READ_BYTES, &mut read);
        records.extend(read.drain(..));
        bytes = 0;
    }
    if ends.release.is_cancelled() {
        return Left { consumer, carried: Carried { records, taken, ..Carried::default() }, items: 0 };
    }
    let items = consumer.cursor.abandon(DropReason::Shutdown);
    Left { consumer, carried: Carried::default(), items }
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
            passing.part(&record.batch, chained.dropped);
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
    use std::path::Path;

    use tokio::{sync::Notify, task::JoinHandle};

    use super::*;
    use crate::{
        delivery::{Chain, Live},
        internal_telemetry::Telemetry,
        journal::{
            Accounts, Appending, Directory, LagBound, MemoryShard, OnOverflow, Persistence, Shard, Sources, Subscriber, TopicId,
        },
        runtime::Shutdown,
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
    fn rig(output_records: u64) -> Rig {
        between(topic(0), topic(1), output_records)
    }

    #[expect(clippy::disallowed_methods, reason = "the rig owns the task and awaits it")]
    fn between(input: Arc<Topic>, output: Arc<Topic>, output_records: u64) -> Rig {
        let cursor = input.cursor(&subscriber(LagBound::NONE));
        drop(output.cursor(&subscriber(LagBound { records: output_records, ..LagBound::NONE })));
        let letters = Arc::new(DeadLetters::in_memory(Arc::default(), &Telemetry::default()));
        let shared = Arc::new(SharedConnector {
            connector: Mutex::new(Box::new(Forward)),
            state: None,
            source: SourceId(0),
            outputs: vec![output],
            dead_letters: letters.clone(),
            clock: Clock::new(|| UnixNanos(1)),
            flush_interval: None,
            saver: None,
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
            replays: None,
        };
        let (drain, abort) = (Shutdown::new(), Shutdown::new());
        let ends = Ends { drain: drain.clone(), abort: abort.clone(), ..Ends::default() };
        let task = tokio::spawn(async { run(consumer, shared, Carried::default(), ends).await.items });
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

    /// Offsets and items of what a directory's derived topic holds, after the connector has passed on these of the input, and what it had
    /// before.
    async fn forwarded(path: &Path, items: &[u64]) -> Vec<(u64, u64)> {
        let wish = Persistence {
            directory: path.to_owned(),
            sync: false,
            bytes_max: Some(64 << 20),
            letters_bytes_max: None,
            shards: 1,
            offset_reset: crate::journal::OffsetReset::Latest,
        };
        let names = ["traces", "traces/forward"];
        let directory =
            Directory::open(&wish, names.map(str::to_owned).to_vec(), &["otlp".to_owned()], Clock::new(|| UnixNanos(1))).unwrap();
        let mut shards = Vec::new();
        let mut topic = |number: u16| {
            let (id, name, room) = (TopicId(number), names[usize::from(number)], Arc::new(Notify::new()));
            let shard = directory.shard(id, name, Signal::Traces, 0, 1 << 40, room.clone()).unwrap();
            shards.push(shard.clone());
            Arc::new(Topic::of(id, name.to_owned(), Signal::Traces, room, vec![shard]))
        };
        let (input, output) = (topic(0), topic(1));
        let mut reader = output.cursor(&Subscriber { name: "reader".into(), ..subscriber(LagBound::NONE) });
        let rig = between(input, output, 0);
        for items in items {
            let batch = Batch {
                signal: Signal::Traces,
                payload: vec![0; 10].into(),
                items: *items,
                context: Arc::default(),
                index: None,
            };
            let new = NewRecord { source: SourceId(0), received: UnixNanos(1), batch, derived_from: None };
            rig.input.append(0, new).await.unwrap();
        }
        rig.drain.cancel();
        assert_eq!(rig.task.await.unwrap(), 0);
        let mut records = Vec::new();
        while reader.has_unread() {
            reader.read(1000, 1 << 20, &mut records);
        }
        for shard in shards {
            shard.close();
        }
        records.iter().map(|record| (record.position.offset, record.batch.items)).collect()
    }

    #[tokio::test]
    async fn what_was_passed_on_before_a_crash_is_not_passed_on_again() {
        let path = tempfile::TempDir::new().unwrap();
        assert_eq!(forwarded(path.path(), &[1, 2, 3]).await, [(0, 1), (1, 2), (2, 3)]);
        // The connector's place is lost: it reads everything once more.
        let places = path.path().join("topics/traces/0/cursors");
        std::fs::write(&places, [7; 4096]).unwrap();
        assert_eq!(forwarded(path.path(), &[4]).await, [(0, 1), (1, 2), (2, 3), (3, 4)]);
        // The input begins anew: its offsets are other records.
        std::fs::remove_dir_all(path.path().join("topics/traces/0")).unwrap();
        assert_eq!(forwarded(path.path(), &[5]).await, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
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
    async fn what_is_not_appended_when_released_is_appended_by_who_takes_its_place() {
        let (input, output) = (topic(0), topic(1));
        let cursor = input.cursor(&subscriber(LagBound::NONE));
        let consumer = Consumer {
            live: Arc::new(Live::new("traces".into(), ComponentId::parse("test").unwrap(), Signal::Traces, &cursor)),
            pipeline: "traces".into(),
            id: ComponentId::parse("test").unwrap(),
            signal: Signal::Traces,
            cursor,
            chain: Arc::new(Chain::new(Vec::new(), 1)),
            replays: None,
        };
        let accounts = consumer.cursor.accounts();
        // Takes one record, and the second is still accepted.
        let mut behind = output.cursor(&subscriber(LagBound { records: 1, ..LagBound::NONE }));
        let shared = || {
            Arc::new(SharedConnector {
                connector: Mutex::new(Box::new(Forward)),
                state: None,
                source: SourceId(0),
                outputs: vec![output.clone()],
                dead_letters: Arc::new(DeadLetters::in_memory(Arc::default(), &Telemetry::default())),
                clock: Clock::new(|| UnixNanos(1)),
                flush_interval: None,
                saver: None,
                taps: Taps::default(),
            })
        };
        for items in 1..=5 {
            put(&input, items);
        }
        let ends = Ends::default();
        let first = run(consumer, shared(), Carried::default(), ends.clone());
        let (left, ()) = tokio::join!(first, async {
            sleep(Duration::from_secs(1)).await;
            ends.release.cancel();
            // It waits for room behind it, and does not end of itself.
            sleep(Duration::from_secs(1)).await;
            ends.abort.cancel();
        });
        assert_eq!((accounts.books().delivered, accounts.books().held), (3, 12), "two are behind it, none is given up");
        let mut read = Vec::new();
        behind.read(10, usize::MAX, &mut read);
        let ends = Ends::default();
        ends.drain.cancel();
        let second = run(left.consumer, shared(), left.carried, ends);
        let ((), left) = tokio::join!(
            async {
                while read.len() < 5 {
                    behind.ready().await;
                    behind.read(10, usize::MAX, &mut read);
                }
            },
            second
        );
        assert_eq!(read.iter().map(|record| record.batch.items).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!((left.items, accounts.books().delivered), (0, 15));
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
