//! Lets a connector tell each interval what it gathered, and appends that to its topics.
//!
//! In:   the clock, and what the connector holds.
//! Out:  derived records.
//! Full: it waits for room in the topic; the next flush begins when this one is in, and tells of all since.
//! Lost: totals are told again by the next flush; deltas, where there is a disk, are told once over any crash (see [`Saver`]).

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::error;

use super::{
    SharedConnector,
    caught::caught,
    saver::{Saver, Untold},
};
use crate::{
    journal::{Derivation, LastDerived, Position, Topic},
    runtime::{Shutdown, blocking},
    signal::Signal,
};

/// Before a state that could not be saved is tried again, because what was flushed waits for it.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

impl SharedConnector {
    /// Flushes, and appends what that told. `last`: what is left untold is never told.
    async fn flush(&self, last: bool) {
        if let Some((saver, topic)) = self.saver.as_ref().filter(|saver| saver.tells_once()).zip(self.outputs.first()) {
            self.flush_once(saver, topic, last).await;
            return;
        }
        let now = self.clock.now();
        let mut told = Vec::new();
        let flushed = caught(|| match &self.state {
            // Beside what is being taken in, not instead of it. Not by `blocking`: that hands this worker's tasks to a new thread, and the
            // allocator keeps what the old one had (measured: 20 MiB more under load).
            Some(state) => state.flush(now, last, &mut told),
            None if last => self.connector.lock().finish(now, &mut told),
            None => self.connector.lock().flush(now, &mut told),
        });
        match flushed {
            Ok(()) => {
                for item in told {
                    self.append_one(item, None).await;
                }
            }
            Err(reason) => error!(reason, "a connector could not flush"),
        }
    }

    /// The same of what must be neither lost nor told twice, whatever ends on the way: see [`Saver`].
    async fn flush_once(&self, saver: &Saver, topic: &Topic, last: bool) {
        if let Err(reason) = caught(|| saver.flush(self.clock.now(), last, topic.id)) {
            error!(reason, "a connector could not flush");
        }
        let Some(untold) = saver.untold() else { return };
        while saver.save().is_none() {
            sleep(SAVE_AGAIN).await;
        }
        self.append_flush(saver, untold, [0; Signal::ALL.len()]).await;
    }

    /// `there`: so many of each signal are in their topics already.
    async fn append_flush(&self, saver: &Saver, untold: Untold, mut there: [usize; Signal::ALL.len()]) {
        let Untold { number, told } = untold;
        for item in told {
            if let Some(left) = there.get_mut(item.batch.signal.ordinal()).filter(|left| **left > 0) {
                *left -= 1;
                continue;
            }
            let Some(topic) = self.output(item.batch.signal) else { continue };
            let from = Derivation { reader: Derivation::FLUSH.into(), position: flush_position(topic, number) };
            self.append_one(item, Some(from)).await;
        }
        saver.told();
    }

    /// Appends what an earlier life told of and did not append.
    async fn append_untold(&self) {
        let Some(saver) = &self.saver else { return };
        let Some(untold) = saver.untold() else { return };
        let mut there = [0; Signal::ALL.len()];
        for topic in &self.outputs {
            let is_it = |last: &LastDerived| {
                &*last.from.reader == Derivation::FLUSH && last.from.position == flush_position(topic, untold.number)
            };
            let found = blocking(|| topic.derived()).into_iter().find(is_it);
            if let Some((there, last)) = there.get_mut(topic.signal.ordinal()).zip(found) {
                *there = last.records;
            }
        }
        self.append_flush(saver, untold, there).await;
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
        self.append_untold().await;
        if let Some(every) = self.flush_interval.filter(|every| !every.is_zero()) {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = ticks.tick() => {
                        self.flush(false).await;
                    }
                }
            }
        } else {
            stop.cancelled().await;
        }
        self.flush(true).await;
    }
}

/// Where a flush stands among what a topic's records were made from: its number in the place of an offset.
fn flush_position(topic: &Topic, number: u64) -> Position {
    Position { topic: topic.id, shard: 0, offset: number }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use parking_lot::Mutex;
    use tempfile::TempDir;
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        component::{Applied, AppliedTo, Connector, Derived, Snapshot, SnapshotError, Stateful},
        delivery::DeadLetters,
        internal_telemetry::Telemetry,
        journal::{
            Cursor, Directory, LagBound, OnOverflow, Persistence, Record, Shard as _, SourceId, Sources, Subscriber, TopicId,
            TopicNames,
        },
        runtime::Clock,
        signal::{Batch, ComponentId, UnixNanos},
    };

    /// Counts to what it was given, and tells it in pieces of one.
    #[derive(Default)]
    struct Counter(Mutex<(u64, u64)>);

    impl Counter {
        /// What came in as the `number`th, unless it had that.
        fn take(&self, number: u64, items: u64) {
            let mut state = self.0.lock();
            if number > state.1 {
                *state = (state.0 + items, number);
            }
        }
    }

    impl Stateful for Counter {
        fn snapshot(&self) -> Snapshot {
            let (count, seen) = *self.0.lock();
            Snapshot { version: 1, fingerprint: 0, applied: self.applied(), bytes: [count as u8, seen as u8].to_vec() }
        }
        fn restore(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
            *self.0.lock() = (snapshot.bytes[0].into(), snapshot.bytes[1].into());
            Ok(())
        }
        fn replaying(&self, _: bool) {}
        fn applied(&self) -> Applied {
            let offset = self.0.lock().1;
            Applied::new([AppliedTo { reader: "traces".into(), topic: TopicId(0), shard: 0, offset }])
        }
        fn resume(&self, _: &Applied) {}
        fn flush(&self, now: UnixNanos, _: bool, out: &mut Vec<Derived>) {
            for _ in 0..std::mem::take(&mut self.0.lock().0) {
                let payload = vec![7; 9].into();
                let batch = Batch { signal: Signal::Metrics, payload, items: 1, context: Arc::default(), index: None };
                out.push(Derived { batch, received: now });
            }
        }
        fn tells_once(&self) -> bool {
            true
        }
    }

    impl Connector for Counter {
        fn consume(&mut self, _: &Record, _: &mut Vec<Derived>) {}
    }

    /// One life on a directory.
    struct Life {
        state: Arc<Counter>,
        shared: SharedConnector,
        topic: Arc<Topic>,
        reader: Cursor,
        close: Box<dyn FnOnce()>,
    }

    impl Life {
        fn begin(path: &Path) -> Self {
            let wish = Persistence {
                directory: path.to_owned(),
                sync: false,
                bytes_max: Some(64 << 20),
                letters_bytes_max: None,
                shards: 1,
                offset_reset: crate::journal::OffsetReset::Latest,
            };
            let names = vec!["traces".to_owned(), "metrics/counter".to_owned()];
            let clock = Clock::new(|| UnixNanos(1));
            let directory = Directory::open(&wish, names.clone(), &["counter".to_owned()], clock.clone()).unwrap();
            let (id, room) = (TopicId(1), Arc::new(Notify::new()));
            let shard = directory.shard(id, &names[1], Signal::Metrics, 0, 1 << 40, room.clone()).unwrap();
            let topic = Arc::new(Topic::of(id, names[1].clone(), Signal::Metrics, room, vec![shard.clone()]));
            let subscriber = Subscriber {
                name: "reader".into(),
                sources: Sources::of([SourceId(0)]),
                bound: LagBound::NONE,
                on_overflow: OnOverflow::HoldDoor,
                is_stateful: false,
            };
            let reader = topic.cursor(&subscriber);
            let state = Arc::new(Counter::default());
            let file = directory.state("connectors.counter").unwrap();
            let id = ComponentId::parse("counter").unwrap();
            let saver = Saver::new(id, state.clone(), file, TopicNames::new(names));
            saver.restore();
            let shared = SharedConnector {
                connector: Mutex::new(Box::new(Counter::default())),
                state: Some(state.clone()),
                source: SourceId(0),
                outputs: vec![topic.clone()],
                dead_letters: Arc::new(DeadLetters::in_memory(Arc::default(), &Telemetry::default())),
                clock,
                flush_interval: None,
                saver: Some(Arc::new(saver)),
                taps: crate::tap::Taps::default(),
            };
            let close = Box::new(move || {
                shard.close();
                drop(directory);
            });
            Self { state, shared, topic, reader, close }
        }

        fn saver(&self) -> &Saver {
            self.shared.saver.as_ref().unwrap()
        }

        fn told(&mut self) -> u64 {
            let mut records = Vec::new();
            while self.reader.has_unread() {
                self.reader.read(1000, 1 << 20, &mut records);
            }
            records.iter().map(|record| record.batch.items).sum()
        }
    }

    /// What is told after a life that ended at a step of a flush, and another one.
    async fn told_after(step: usize) -> u64 {
        let directory = TempDir::new().unwrap();
        let life = Life::begin(directory.path());
        life.state.take(1, 5);
        life.saver().save().unwrap();
        life.state.take(2, 3);
        if step > 0 {
            life.saver().flush(UnixNanos(40), false, life.topic.id);
        }
        if step > 1 {
            life.saver().save().unwrap();
        }
        if step > 2 {
            let Untold { number, told } = life.saver().untold().unwrap();
            let some = Untold { number, told: told.into_iter().take(step - 3).collect() };
            let left = life.saver().untold().unwrap();
            if some.told.len() == left.told.len() {
                life.shared.append_flush(life.saver(), some, [0; 3]).await;
            } else {
                for item in some.told {
                    let from = Derivation { reader: Derivation::FLUSH.into(), position: flush_position(&life.topic, number) };
                    life.shared.append_one(item, Some(from)).await;
                }
            }
        }
        (life.close)();
        let mut life = Life::begin(directory.path());
        life.state.take(1, 5);
        life.state.take(2, 3);
        life.shared.append_untold().await;
        assert!(life.saver().untold().is_none());
        life.shared.flush(false).await;
        let told = life.told();
        (life.close)();
        told
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flush_is_told_once_wherever_a_life_ends() {
        for step in 0..=11 {
            assert_eq!(told_after(step).await, 8, "{step}");
        }
    }
}
