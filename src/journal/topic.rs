//! Topics, positions and records.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use tracing::error;

use super::{
    Lag, LagBound, OnOverflow, Shard,
    cursor::{Cursor, Place, Waker},
    shard::{Appending, Change},
};
use crate::signal::{Batch, Signal, UnixNanos};

/// Numbers the topics of a running configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u16);

/// Numbers the receivers and connectors that append to topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

/// A set of sources; which records of a topic a consumer takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Vec<u64>);

impl Sources {
    pub fn of(sources: impl IntoIterator<Item = SourceId>) -> Self {
        let mut set = Self::default();
        for source in sources {
            let (word, bit) = (usize::from(source.0 / 64), source.0 % 64);
            if set.0.len() <= word {
                set.0.resize(word + 1, 0);
            }
            if let Some(bits) = set.0.get_mut(word) {
                *bits |= 1 << bit;
            }
        }
        set
    }

    pub fn contains(&self, source: SourceId) -> bool {
        self.0.get(usize::from(source.0 / 64)).is_some_and(|bits| bits >> (source.0 % 64) & 1 == 1)
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub topic: TopicId,
    pub shard: u16,
    pub offset: u64,
}

/// One batch in a topic.
#[derive(Debug, Clone)]
pub struct Record {
    pub position: Position,
    /// The receiver or connector that appended it.
    pub source: SourceId,
    pub received: UnixNanos,
    pub batch: Batch,
    /// For derived records: what they were made from.
    pub derived_from: Option<Derivation>,
}

/// A record on its way in.
#[derive(Debug, Clone)]
pub struct NewRecord {
    pub source: SourceId,
    pub received: UnixNanos,
    pub batch: Batch,
    pub derived_from: Option<Derivation>,
}

/// Which record a connector made another one from, and on whose reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The pipeline whose records the connector took, or [`Derivation::FLUSH`].
    pub reader: Arc<str>,
    pub position: Position,
}

impl Derivation {
    /// In the place of a reader's name: what a flush told of many records. Its number stands in the place of an offset.
    pub const FLUSH: &str = "(flush)";
}

/// Of what a reader's records became in a derived topic: the newest one that anything was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastDerived {
    pub from: Derivation,
    /// Records that were made from it.
    pub records: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A consumer that may not skip is at its bound.
    #[error("no room: {consumer} is behind by its bound")]
    Full { consumer: Arc<str> },
    /// Longer than a record can be: it never fits.
    #[error("a record of {bytes} bytes is longer than the {bytes_max} that the journal takes")]
    TooLarge { bytes: u64, bytes_max: u64 },
    /// Nobody takes this source from here any more: its pipelines are gone.
    #[error("no pipeline takes this any more")]
    Unwanted,
    /// The disk or the quota is full, or the disk fails.
    #[error("the journal takes no data: {reason}")]
    Disk { reason: Box<str> },
}

/// Who reads a topic, and how far behind it may fall.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// `traces/x → otlp_grpc/eu`, for messages.
    pub name: Arc<str>,
    pub sources: Sources,
    pub bound: LagBound,
    pub on_overflow: OnOverflow,
    /// Its place on disk is that of its last snapshot.
    pub is_stateful: bool,
}

/// Amounts of a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Appended since the start.
    pub accepted: Lag,
    /// Held for the consumer that is furthest behind.
    pub held: Lag,
}

/// Names of topics by [`TopicId`], of all that this process has had: a configuration that is read while it runs adds to them.
#[derive(Debug, Default)]
pub struct TopicNames(parking_lot::RwLock<Vec<String>>);

impl TopicNames {
    pub fn new(names: Vec<String>) -> Arc<Self> {
        Arc::new(Self(parking_lot::RwLock::new(names)))
    }

    pub fn all(&self) -> Vec<String> {
        self.0.read().clone()
    }

    /// Nothing where there is none of this number.
    pub fn name(&self, id: TopicId) -> String {
        self.0.read().get(usize::from(id.0)).cloned().unwrap_or_default()
    }

    /// Its number; a new one where it has none.
    pub fn number(&self, name: &str) -> TopicId {
        let mut names = self.0.write();
        let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        TopicId(u16::try_from(at).unwrap_or(u16::MAX))
    }
}

/// The longest a request waits for room.
pub const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Records of one signal, in one or more shards.
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub signal: Signal,
    shards: Vec<Arc<dyn Shard>>,
    /// The first so many take records; those behind are of a time when there were more, and are only read.
    taking: usize,
    room: Arc<Notify>,
    /// Consumers have numbers below this; some may be nobody's.
    numbers: AtomicUsize,
}

impl Topic {
    /// `make` builds shard `n`; it is given the notifier to ring when a consumer has read.
    pub fn new(
        id: TopicId,
        name: String,
        signal: Signal,
        shards: u16,
        make: impl Fn(u16, Arc<Notify>) -> Arc<dyn Shard>,
    ) -> Self {
        let room = Arc::new(Notify::new());
        let shards = (0..shards.max(1)).map(|number| make(number, room.clone())).collect();
        Self::of(id, name, signal, room, shards)
    }

    /// Of shards that are there already; `room` is what they ring when a consumer has read.
    pub fn of(id: TopicId, name: String, signal: Signal, room: Arc<Notify>, shards: Vec<Arc<dyn Shard>>) -> Self {
        Self { id, name, signal, taking: shards.len(), shards, room, numbers: AtomicUsize::new(0) }
    }

    /// The same, of which only the first `shards` take new records.
    #[must_use]
    pub fn taking(mut self, shards: u16) -> Self {
        self.taking = usize::from(shards).clamp(1, self.shards.len().max(1));
        self
    }

    /// How many shards take records.
    pub fn shards(&self) -> usize {
        self.taking
    }

    /// Changes who reads what, in each shard between two records. Returns the places of those that joined, in order.
    pub fn switch(&self, changes: &[Change]) -> Vec<Vec<Place>> {
        let joining = changes.iter().filter(|change| matches!(change, Change::Join(..))).count();
        let mut joined: Vec<Vec<Place>> = (0..joining).map(|_| Vec::new()).collect();
        for (shard, log) in (0_u16..).zip(&self.shards) {
            for (places, number) in joined.iter_mut().zip(log.switch(changes)) {
                self.numbers.fetch_max(number + 1, Ordering::Relaxed);
                places.push(Place::new(self.id, shard, log.clone(), number));
            }
        }
        joined
    }

    /// Adds a consumer to all shards.
    pub fn subscribe(&self, subscriber: &Subscriber, waker: &Arc<Waker>) -> Vec<Place> {
        self.switch(&[Change::Join(subscriber.clone(), waker.clone())]).into_iter().flatten().collect()
    }

    /// A cursor over this topic alone.
    pub fn cursor(&self, subscriber: &Subscriber) -> Cursor {
        let waker = Arc::new(Waker::default());
        let places = self.subscribe(subscriber, &waker);
        Cursor::new(places, waker)
    }

    /// Appends without waiting. `shard` is any number: records of one number stay in order.
    #[expect(clippy::result_large_err, reason = "the record comes back; a box would be made only to be opened")]
    pub fn append_now(&self, shard: usize, record: NewRecord) -> Result<Appending, (AppendError, NewRecord)> {
        match self.shards.get(shard % self.taking.max(1)) {
            Some(log) => log.append(record),
            None => Err((AppendError::Full { consumer: "a topic without shards".into() }, record)),
        }
    }

    /// Appends, waiting up to 100 ms for room.
    pub async fn append(&self, shard: usize, record: NewRecord) -> Result<u64, AppendError> {
        let deadline = Instant::now() + ROOM_WAIT;
        let (mut record, mut is_last) = (record, false);
        loop {
            let room = self.room.notified();
            let appended = match self.append_now(shard, record) {
                Ok(Appending::Done(appended)) => appended,
                Ok(Appending::Syncing(writing)) => writing.await?,
                Err((error @ (AppendError::TooLarge { .. } | AppendError::Unwanted), _)) => return Err(error),
                Err((error, _)) if is_last => return Err(error),
                Err((_, back)) => {
                    is_last = timeout_at(deadline, room).await.is_err();
                    record = back;
                    continue;
                }
            };
            if appended.crowded {
                self.pace().await;
            }
            return Ok(appended.offset);
        }
    }

    /// Appends what a connector made: it waits for as long as it takes, because its input is acknowledged already and nothing may be lost.
    /// `None`: nobody takes it any more.
    pub async fn append_derived(&self, shard: usize, record: NewRecord) -> Option<u64> {
        loop {
            match self.append(shard, record.clone()).await {
                Ok(offset) => return Some(offset),
                Err(AppendError::Unwanted) => return None,
                Err(error @ AppendError::TooLarge { .. }) => {
                    error!(topic = self.name, items = record.batch.items, %error, "what a connector made is lost");
                    return None;
                }
                Err(_) => {}
            }
        }
    }

    /// Waits, at most 100 ms, until the consumers that move have caught up to the pace.
    ///
    /// The data is in already; holding the answer back lets the senders' own flow control bound what lies here.
    pub async fn pace(&self) {
        let caught_up = async {
            loop {
                let room = self.room.notified();
                if !self.shards.iter().any(|shard| shard.crowded()) {
                    return;
                }
                room.await;
            }
        };
        // Slower than the pace for 100 ms: the byte budget is the bound then.
        drop(timeout(ROOM_WAIT, caught_up).await);
    }

    /// What came in, and what is held for the consumer that is furthest behind.
    pub fn figures(&self) -> Figures {
        let consumers = self.numbers.load(Ordering::Relaxed);
        let mut all = Figures::default();
        for shard in &self.shards {
            all.accepted = all.accepted.plus(shard.accepted());
            let held = (0..consumers).map(|consumer| shard.books(consumer)).max_by_key(|books| books.held_bytes);
            if let Some(books) = held {
                let held = Lag { records: books.held_records, items: books.held, bytes: books.held_bytes };
                all.held = all.held.plus(held);
            }
        }
        all
    }

    /// What was made last from each reader's records, by topic and shard of these.
    pub fn derived(&self) -> Vec<LastDerived> {
        self.shards.iter().flat_map(|shard| shard.derived()).collect()
    }

    /// Why nothing can be appended now.
    pub fn fault(&self) -> Option<String> {
        self.shards.iter().find_map(|shard| shard.fault())
    }

    /// Writes everything down and takes nothing more.
    pub fn close(&self) {
        for shard in &self.shards {
            shard.close();
        }
    }

    /// Settles on the first consumer's account directly, past its cursor.
    #[cfg(test)]
    pub(crate) fn settle_for_test(&self, shard: usize, watermark: u64, settled: &super::Settled) {
        if let Some(log) = self.shards.get(shard) {
            log.settle(0, watermark, settled, Lag::default());
        }
    }
}
