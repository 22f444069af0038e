//! A consumer's place in its topics: what it was handed, what became of it, and where it starts again.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::{
    Books, DropReason, Lag, Position, Record, Shard, TopicId,
    shard::{Mark, Unread},
};
use crate::signal::UnixNanos;

/// Wakes a consumer that waits for records.
#[derive(Default)]
pub struct Waker {
    asleep: AtomicBool,
    /// What has to wait for it before it is woken.
    items_min: AtomicU64,
    bytes_min: AtomicU64,
    notify: Notify,
    /// When the oldest record that is handed out and not settled came in; 0: there is none.
    oldest_out: AtomicU64,
    /// When the last record that was handed out came in.
    last_out: AtomicU64,
    on_skip: OnceLock<OnSkip>,
}

/// Told of each record that its consumer is moved over. Called under a lock: it must not wait.
type OnSkip = Box<dyn Fn(&Record) + Send + Sync>;

impl Waker {
    /// A consumer's waker that tells of each record that the consumer is moved over; `tell` must not wait.
    pub fn telling(tell: impl Fn(&Record) + Send + Sync + 'static) -> Self {
        Self { on_skip: OnceLock::from(Box::new(tell) as OnSkip), ..Self::default() }
    }

    pub(crate) fn skipped(&self, record: &Record) {
        if let Some(tell) = self.on_skip.get() {
            tell(record);
        }
    }

    /// Called at each append; costs one load while the consumer is awake.
    pub(crate) fn wake(&self, unread: Lag) {
        let enough =
            || unread.items >= self.items_min.load(Ordering::Relaxed) || unread.bytes >= self.bytes_min.load(Ordering::Relaxed);
        if self.asleep.load(Ordering::SeqCst) && enough() && self.asleep.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Whether the consumer sleeps until there is more: then it is not behind.
    pub(crate) fn waits_for_more(&self, unread: Lag) -> bool {
        self.asleep.load(Ordering::Relaxed)
            && unread.items < self.items_min.load(Ordering::Relaxed)
            && unread.bytes < self.bytes_min.load(Ordering::Relaxed)
    }
}

/// A consumer's place in one shard of one topic.
pub struct Place {
    topic: TopicId,
    shard: u16,
    log: Arc<dyn Shard>,
    consumer: usize,
    /// Records handed out and not settled below the watermark, in order of offset.
    window: VecDeque<Outstanding>,
}

impl Place {
    pub(crate) fn new(topic: TopicId, shard: u16, log: Arc<dyn Shard>, consumer: usize) -> Self {
        Self { topic, shard, log, consumer, window: VecDeque::new() }
    }
}

struct Outstanding {
    offset: u64,
    received: UnixNanos,
    items: u64,
    bytes: u64,
    settled: Option<Settled>,
}

/// What became of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    pub delivered: u64,
    /// Indexed by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Settled {
    pub fn delivered(items: u64) -> Self {
        Self { delivered: items, ..Self::default() }
    }

    pub fn dropped(reason: DropReason, items: u64) -> Self {
        let mut settled = Self::default();
        settled.add_dropped(reason, items);
        settled
    }

    pub fn add_dropped(&mut self, reason: DropReason, items: u64) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += items;
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }

    pub fn items(&self) -> u64 {
        self.delivered + self.dropped.iter().sum::<u64>()
    }
}

/// Records handed out and not below the watermark, of one place.
const WINDOW_RECORDS: usize = 128 << 10;

/// A consumer's position: a set of places. It reads ahead, and moves its durable watermark when what it read is settled, in whatever
/// order that happens.
pub struct Cursor {
    places: Vec<Place>,
    waker: Arc<Waker>,
    next: usize,
}

impl Cursor {
    pub fn new(places: Vec<Place>, waker: Arc<Waker>) -> Self {
        Self { places, waker, next: 0 }
    }

    /// The next records, from all topics and shards in turn: at most `records_max`, and no more once `bytes_max` is reached. At least
    /// one if there is any.
    pub fn read(&mut self, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) {
        let count = self.places.len();
        let before = out.len();
        let mut bytes = 0;
        for step in 0..count {
            let taken = out.len();
            if taken - before >= records_max || (bytes >= bytes_max && taken > before) {
                break;
            }
            let at = (self.next + step) % count;
            let Some(place) = self.places.get_mut(at) else { continue };
            place.log.read(place.consumer, records_max - (taken - before), bytes_max - bytes.min(bytes_max), out);
            for record in out.iter().skip(taken) {
                bytes += record.batch.payload.len();
                place.window.push_back(Outstanding {
                    offset: record.position.offset,
                    received: record.received,
                    items: record.batch.items,
                    bytes: record.batch.payload.len() as u64,
                    settled: None,
                });
            }
        }
        self.next = if count == 0 { 0 } else { (self.next + 1) % count };
        if let Some(last) = out.get(before..).and_then(<[Record]>::last) {
            self.waker.last_out.store(last.received.0, Ordering::Relaxed);
            self.note_oldest();
        }
    }

    /// Says to who looks when the oldest record that is not settled came in.
    fn note_oldest(&self) {
        let fronts = self.places.iter().filter_map(|place| place.window.front()).map(|front| front.received.0);
        self.waker.oldest_out.store(fronts.min().unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether so much is settled behind a record that is not, that no more should be read: after a crash all of it comes again.
    pub fn is_full(&self) -> bool {
        self.places.iter().any(|place| place.window.len() >= WINDOW_RECORDS)
    }

    /// A record is settled. The cursor moves when all records before it are, too.
    pub fn settle(&mut self, position: Position, settled: &Settled) {
        if let Some(entry) = self.outstanding(position) {
            debug_assert_eq!(entry.items, settled.items(), "each item of a record ends in exactly one way");
            entry.settled = Some(*settled);
        }
        if let Some(place) = self.places.iter_mut().find(|place| place.topic == position.topic && place.shard == position.shard) {
            place.commit();
        }
        self.note_oldest();
    }

    /// Gives up what is handed out and what is unread, counted as dropped for this reason. Returns the items. What is on disk is not given
    /// up: it is there at the next start.
    pub fn abandon(&mut self, reason: DropReason) -> u64 {
        if self.is_persistent() {
            return 0;
        }
        let mut unread = Vec::new();
        while self.has_unread() {
            self.read(usize::MAX, usize::MAX, &mut unread);
            unread.clear();
        }
        let mut items = 0;
        for place in &mut self.places {
            for entry in &mut place.window {
                if entry.settled.is_none() {
                    items += entry.items;
                    entry.settled = Some(Settled::dropped(reason, entry.items));
                }
            }
            place.commit();
        }
        items
    }

    fn outstanding(&mut self, position: Position) -> Option<&mut Outstanding> {
        let place = self.places.iter_mut().find(|place| place.topic == position.topic && place.shard == position.shard)?;
        let at = place.window.binary_search_by_key(&position.offset, |entry| entry.offset).ok()?;
        place.window.get_mut(at)
    }

    /// Its number in the shards of each topic, for [`super::Topic::switch`].
    pub fn seats(&self) -> Vec<(TopicId, usize)> {
        let mut seats: Vec<_> = self.places.iter().map(|place| (place.topic, place.consumer)).collect();
        seats.dedup();
        seats
    }

    /// What wakes it, for further places.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// It reads from these, too.
    pub fn join(&mut self, places: Vec<Place>) {
        self.places.extend(places);
    }

    /// It reads no more from this topic; its place there stays on disk.
    pub fn part(&mut self, topic: TopicId) {
        for place in self.places.extract_if(.., |place| place.topic == topic) {
            place.log.leave(place.consumer);
        }
        self.next = 0;
    }

    /// It reads no more at all; its places stay on disk.
    pub fn leave(self) {
        for place in self.places {
            place.log.leave(place.consumer);
        }
    }

    /// Resolves when there may be something to read. Cancelling it loses nothing.
    pub async fn ready(&self) {
        self.ready_at(0, 0).await;
    }

    /// Resolves when, in some shard, at least so many items or so many bytes wait to be read. Cancelling it loses nothing.
    pub async fn ready_at(&self, items_min: u64, bytes_min: u64) {
        self.waker.items_min.store(items_min, Ordering::Relaxed);
        self.waker.bytes_min.store(bytes_min, Ordering::Relaxed);
        loop {
            self.waker.asleep.store(true, Ordering::SeqCst);
            let unread = self.unread();
            if unread.records > 0 && (unread.items >= items_min || unread.bytes >= bytes_min) {
                self.waker.asleep.store(false, Ordering::SeqCst);
                return;
            }
            self.waker.notify.notified().await;
        }
    }

    pub fn has_unread(&self) -> bool {
        self.places.iter().any(|place| place.log.has_unread(place.consumer))
    }

    /// What waits to be read.
    pub fn unread(&self) -> Unread {
        let mut all = Unread::default();
        for place in &self.places {
            let unread = place.log.unread(place.consumer);
            all.records += unread.records;
            all.items += unread.items;
            all.bytes += unread.bytes;
            if unread.oldest_unix_nanos != 0 && (all.oldest_unix_nanos == 0 || unread.oldest_unix_nanos < all.oldest_unix_nanos) {
                all.oldest_unix_nanos = unread.oldest_unix_nanos;
            }
        }
        all
    }

    /// A consumer in backoff does not slow the door down.
    pub fn set_stalled(&self, stalled: bool) {
        for place in &self.places {
            place.log.set_stalled(place.consumer, stalled);
        }
    }

    /// Whether what is held outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.places.iter().any(|place| place.log.is_persistent())
    }

    /// Whether nothing is handed out and unsettled.
    pub fn is_settled(&self) -> bool {
        self.places.iter().all(|place| place.window.is_empty())
    }

    /// A handle on where it stands, from any thread.
    pub fn marks(&self) -> Marks {
        Marks(self.places.iter().map(|place| (place.log.clone(), place.consumer)).collect())
    }

    /// A handle that tells the age of what it is not done with, from any thread.
    pub fn oldest(&self) -> Oldest {
        Oldest { places: self.accounts().0, waker: self.waker.clone() }
    }

    /// The offset that the next record of this shard gets; `None`: it is not read here.
    pub fn end_of(&self, topic: TopicId, shard: u16) -> Option<u64> {
        self.places.iter().find(|place| (place.topic, place.shard) == (topic, shard)).map(|place| place.log.end())
    }

    /// A handle that reads the accounts, from any thread.
    pub fn accounts(&self) -> Accounts {
        Accounts(self.places.iter().map(|place| (place.log.clone(), place.consumer)).collect())
    }
}

/// Reads where a consumer stands, and says from where it starts again.
pub struct Marks(Vec<(Arc<dyn Shard>, usize)>);

impl Marks {
    /// Where it stands now, one a shard; empty where places are not kept.
    pub fn take(&self) -> Vec<Mark> {
        self.0.iter().filter_map(|(log, consumer)| log.mark(*consumer)).collect()
    }

    /// A state that covers these marks is saved.
    pub fn cover(&self, marks: &[Mark]) {
        for ((log, _), mark) in self.0.iter().zip(marks) {
            log.cover(mark);
        }
    }

    /// Where each shard ends now.
    pub fn ends(&self) -> Vec<u64> {
        self.0.iter().map(|(log, _)| log.end()).collect()
    }
}

/// Tells when the oldest record came in that a consumer is not done with.
pub struct Oldest {
    places: Vec<(Arc<dyn Shard>, usize)>,
    waker: Arc<Waker>,
}

impl Oldest {
    /// `None`: there is none, or nothing was read since the start. Where the next one to be read lies on disk alone, the time of the one before it.
    pub fn get(&self) -> Option<UnixNanos> {
        let out = self.waker.oldest_out.load(Ordering::Relaxed);
        let unread = self.places.iter().map(|(log, consumer)| log.unread(*consumer)).filter(|unread| unread.records > 0);
        let last = self.waker.last_out.load(Ordering::Relaxed);
        let times = unread.map(|unread| if unread.oldest_unix_nanos == 0 { last } else { unread.oldest_unix_nanos });
        times.chain([out]).filter(|time| *time != 0).min().map(UnixNanos)
    }
}

/// Reads a consumer's books.
#[derive(Clone)]
pub struct Accounts(Vec<(Arc<dyn Shard>, usize)>);

impl Accounts {
    /// Exact for each shard at one moment of it.
    pub fn books(&self) -> Books {
        let mut all = Books::default();
        for (log, consumer) in &self.0 {
            all.add(&log.books(*consumer));
        }
        all
    }
}

impl Place {
    /// Settles what lies below the first record still under way.
    fn commit(&mut self) {
        let (mut settled, mut released) = (Settled::default(), Lag::default());
        while let Some(entry) = self.window.front() {
            let Some(done) = &entry.settled else { break };
            settled.add(done);
            released = released.plus(Lag { records: 1, items: entry.items, bytes: entry.bytes });
            self.window.pop_front();
        }
        // With nothing under way the cursor goes to wherever it has read, over records of other sources too.
        let watermark = self.window.front().map_or(u64::MAX, |entry| entry.offset);
        self.log.settle(self.consumer, watermark, &settled, released);
    }
}
