//! A shard on disk: what its consumers see. A thread of its own writes; whoever appends waits for its group.
//!
//! Full: what waits to be written is bounded by the door's budget of bytes, what is written by the quota. When either is used up, or the disk is,
//! appends are refused at once and the writer looks for room four times a second.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tracing::{error, info, warn};

use super::{
    OffsetReset,
    cursors::{CursorFile, Opened, Saved, Standing},
    derivations::{Derivations, derivation},
    format::{Meta, PAYLOAD_BYTES_MAX, Stored},
    log::{Entry, Found, Log, LostRecords, ReadPlace, Segments, WriteError},
    names::Names,
    orphans::Orphans,
};
use crate::{
    journal::{
        AppendError, Appended, Appending, Books, Derivation, DropReason, Lag, LastDerived, NewRecord, OnOverflow, Position,
        Record, Settled, Shard, Sources, Subscriber, TopicId,
        cursor::Waker,
        ledger::SlotSize,
        ring::{Ring, Room, size},
        shard::{Change, Mark, Unread},
    },
    runtime::{Clock, blocking},
    signal::{Batch, Signal},
};

/// Written and synced together, about.
const GROUP_BYTES: usize = 1 << 20;
/// Recent records kept in memory, so that who keeps up never reads the disk.
const TAIL_BYTES: u64 = 4 << 20;
/// From so many senders on, a group waits until all of them are in it, but not longer than [`GATHER`].
const BUSY: usize = 4;
const GATHER: Duration = Duration::from_millis(1);
/// How long a consumer's place may be newer than what is written of it.
const CURSORS_WAIT: Duration = Duration::from_millis(20);
/// How often the places are synced.
const CURSORS_SYNC: Duration = Duration::from_secs(5);
/// For how long after the last append a shard keeps more than one file to write over: others may need the room.
const SPARES_WAIT: Duration = Duration::from_secs(5);
/// How often a writer without room looks for some.
const ROOM_CHECK: Duration = Duration::from_millis(250);

/// One shard of a topic on disk.
pub struct DiskShard {
    pub(super) inner: Arc<Inner>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Inner {
    pub(super) topic: TopicId,
    number: u16,
    signal: Signal,
    room: Arc<Notify>,
    names: Arc<Names>,
    clock: Clock,
    ring: Mutex<Ring>,
    pub(super) segments: Arc<Segments>,
    /// Where each consumer reads the disk.
    places: Mutex<Vec<Arc<Mutex<ReadPlace>>>>,
    /// Consumers by name: where they stood at the start, or stand although the configuration no longer has them.
    pub(super) saved: Mutex<HashMap<String, Saved>>,
    pub(super) orphans: Orphans,
    /// Where the log ended when the places were written that were found at the start.
    end_before: u64,
    /// Where the shard ended when consumers left it in this run.
    left: Mutex<HashMap<String, u64>>,
    /// The consumers' places were there and cannot be read: everybody starts at the oldest record, rather twice than not at all.
    is_damaged: bool,
    offset_reset: OffsetReset,
    /// Stateful consumers: the place that their snapshot covers, which stands for them on disk.
    covered: Mutex<HashMap<String, Saved>>,
    pub(super) queue: Mutex<Queue>,
    wake: Condvar,
    /// Some consumer's place moved since it was written.
    moved: AtomicBool,
    /// Why nothing can be written now.
    fault: Mutex<Option<String>>,
    has_fault: AtomicBool,
    /// Records found damaged while reading.
    lost_records: AtomicU64,
    /// Of a derived topic.
    derivations: Option<Mutex<Derivations>>,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The writer waits for so many.
    wanted: usize,
    pub(super) closing: bool,
}

impl Queue {
    /// Whether the writer has reason to wake up.
    fn is_enough(&self) -> bool {
        self.waiting.len() >= self.wanted || self.bytes >= GROUP_BYTES
    }
}

struct Waiting {
    record: NewRecord,
    written: oneshot::Sender<Result<Appended, AppendError>>,
}

/// What a shard is made of.
pub(super) struct Parts {
    pub(super) topic: TopicId,
    pub(super) number: u16,
    pub(super) signal: Signal,
    pub(super) pace_bytes: u64,
    pub(super) room: Arc<Notify>,
    pub(super) names: Arc<Names>,
    pub(super) clock: Clock,
    pub(super) sync: bool,
    pub(super) offset_reset: OffsetReset,
    /// Connectors append here, and want to know what they appended before.
    pub(super) derivations: Option<Derivations>,
    pub(super) log: Log,
    pub(super) cursors: CursorFile,
    pub(super) standing: Opened,
}

impl DiskShard {
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            topic,
            number,
            signal,
            pace_bytes,
            room,
            names,
            clock,
            sync,
            offset_reset,
            derivations,
            log,
            cursors,
            standing,
        } = parts;
        let is_damaged = matches!(standing, Opened::Damaged);
        let written_end = match &standing {
            Opened::Found(standing) => Some(standing.end),
            Opened::New => Some(0),
            Opened::Damaged => None,
        };
        let (end_before, saved) = match standing {
            Opened::Found(standing) => (standing.end, standing.consumers.into_iter().collect()),
            Opened::New | Opened::Damaged => (0, HashMap::new()),
        };
        let inner = Arc::new(Inner {
            topic,
            number,
            signal,
            room,
            names,
            clock,
            ring: Mutex::new(Ring::new(topic, number, pace_bytes, log.next())),
            segments: log.segments.clone(),
            places: Mutex::default(),
            saved: Mutex::new(saved),
            orphans: Orphans::default(),
            end_before,
            left: Mutex::default(),
            is_damaged,
            offset_reset,
            covered: Mutex::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            moved: AtomicBool::new(false),
            fault: Mutex::default(),
            has_fault: AtomicBool::new(false),
            lost_records: AtomicU64::new(0),
            derivations: derivations.map(Mutex::new),
        });
        let now = Instant::now();
        let writer = Writer {
            inner: inner.clone(),
            log,
            cursors,
            sync,
            written: now,
            synced: now,
            written_end,
            is_unsynced: false,
            lets_go: false,
            covered: None,
            appended: Instant::now(),
            senders: 0,
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run())?;
        Ok(Self { inner, writer: Mutex::new(Some(thread)) })
    }
}

impl Drop for DiskShard {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn tell(&self, room: Room) {
        if room == Room::Made {
            self.room.notify_waiters();
        }
    }

    fn fault(&self) -> Option<String> {
        if !self.has_fault.load(Ordering::Relaxed) {
            return None;
        }
        self.fault.lock().clone()
    }

    fn set_fault(&self, fault: Option<String>) {
        let mut now = self.fault.lock();
        match (&*now, &fault) {
            (None, Some(message)) => {
                let topic = &*self.names.topic_name(self.topic);
                error!(topic, message, "the journal takes no data: requests are refused until it does");
                let mut held: Vec<String> =
                    self.saved.lock().iter().filter(|(_, saved)| !saved.rests).map(|(name, _)| name.clone()).collect();
                if !held.is_empty() {
                    held.sort_unstable();
                    let consumers = held.join("; ");
                    error!(
                        topic,
                        consumers,
                        "part of it is held for consumers that this configuration does not have: `weir plan --live` shows how much, `weir journal rm --consumer NAME --yes` lets it go"
                    );
                }
            }
            (Some(_), None) => info!(topic = &*self.names.topic_name(self.topic), "the journal takes data again"),
            _ => {}
        }
        self.has_fault.store(fault.is_some(), Ordering::Relaxed);
        *now = fault;
    }

    /// What was found, as consumers take it.
    fn readable(&self, found: Found) -> Result<Record, LostRecords> {
        match found {
            Found::Record(stored) => {
                let (offset, items, at) = (stored.header.offset, stored.header.items, stored.end - stored.header.bytes());
                let lost = || LostRecords { offset, to: offset + 1, items: Some(items), path: self.segments.path_of(offset), at };
                self.record(stored).ok_or_else(lost)
            }
            Found::Lost { offset, to, items, path, at } => Err(LostRecords { offset, to, items, path, at }),
        }
    }

    fn record(&self, stored: Stored) -> Option<Record> {
        let meta = Meta::decode(&stored.meta)?;
        let derived_from = derivation(&meta, &self.names);
        Some(Record {
            position: Position { topic: self.topic, shard: self.number, offset: stored.header.offset },
            source: self.names.runtime_source(stored.header.source),
            received: stored.header.received,
            batch: Batch {
                signal: self.signal,
                payload: stored.payload,
                items: stored.header.items,
                context: Arc::new(meta.context),
                index: None,
            },
            derived_from,
        })
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock()
    }

    pub(super) fn moved(&self) {
        if !self.moved.swap(true, Ordering::Relaxed) {
            // Not between the writer's look and its sleep.
            drop(self.queue.lock());
            self.wake.notify_one();
        }
    }

    /// Reads for a consumer that stands before the tail. Returns whether it made progress.
    fn read_behind(&self, consumer: usize, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> bool {
        let Some(place) = self.places.lock().get(consumer).cloned() else { return false };
        let mut place = place.lock();
        let from = match self.ring().cursors.get(consumer) {
            Some(cursor) => cursor.read,
            None => return false,
        };
        let before = *place;
        let found = match self.segments.read(&mut place, from, bytes_max) {
            Ok(found) => found,
            Err(error) => {
                *place = before;
                error!(topic = self.topic.0, offset = from, %error, "the journal cannot be read here; it is tried again");
                blocking(|| std::thread::sleep(Duration::from_millis(100)));
                return false;
            }
        };
        // Each with the place to read it again, where the consumer does not take all of it now.
        let segment = *place;
        let found: Vec<_> = found.into_iter().map(|one| (segment.back_to(&one), self.readable(one))).collect();
        let mut gaps = Vec::new();
        let mut ring = self.ring();
        let base = ring.base();
        let Some(cursor) = ring.cursors.get_mut(consumer) else { return false };
        if cursor.read != from {
            // It was moved over its oldest meanwhile.
            return true;
        }
        let (mut taken, mut bytes) = (0, 0);
        let is_empty = found.is_empty();
        for (again, one) in found {
            if cursor.read >= base || taken >= records_max || (bytes >= bytes_max && taken > 0) {
                *place = again;
                break;
            }
            match one {
                Ok(record) if record.position.offset < cursor.read => {}
                Ok(record) => {
                    let next = record.position.offset + 1;
                    if cursor.takes(record.source, record.position.offset) {
                        cursor.hand_out(&size(&record));
                        taken += 1;
                        bytes += record.batch.payload.len();
                        out.push(record);
                    }
                    cursor.pass(next);
                }
                Err(gap) => {
                    // Whether these records were counted as unread is not known here: what is left of that count is settled at the tail.
                    let items = gap.items.unwrap_or(0).min(cursor.unread.items);
                    cursor.unread.items -= items;
                    cursor.drop_items(DropReason::Damaged, items);
                    cursor.pass(gap.to.min(base).max(cursor.read));
                    gaps.push(gap);
                }
            }
        }
        if is_empty {
            // Nothing is left of what lay here.
            cursor.pass(base.max(cursor.read));
        }
        if cursor.read >= base {
            // What was counted and never found.
            ring.recount(consumer);
        }
        let room = ring.room();
        drop(ring);
        for gap in gaps {
            let LostRecords { offset, to, items, path, at } = gap;
            self.lost_records.fetch_add(to.saturating_sub(offset.max(from)), Ordering::Relaxed);
            warn!(file = %path.display(), at, offset, to, items, "damage in the journal: these records are lost to this consumer");
        }
        self.tell(room);
        true
    }

    /// Moves consumers that may skip and are too far behind over their oldest records on disk.
    fn skip_behind(&self) {
        let count = self.ring().cursors.len();
        for consumer in 0..count {
            let mut place = ReadPlace::default();
            loop {
                let from = {
                    let ring = self.ring();
                    match ring.cursors.get(consumer) {
                        Some(cursor)
                            if cursor.on_overflow == OnOverflow::SkipOldest
                                && cursor.over_bound()
                                && cursor.read < ring.base() =>
                        {
                            cursor.read
                        }
                        _ => break,
                    }
                };
                let Ok(found) = self.segments.read(&mut place, from, GROUP_BYTES) else { break };
                let mut ring = self.ring();
                let Some(cursor) = ring.cursors.get_mut(consumer) else { break };
                if cursor.read != from || found.is_empty() {
                    break;
                }
                for one in found {
                    if !cursor.over_bound() {
                        break;
                    }
                    match one {
                        Found::Record(stored) if stored.header.offset >= cursor.read => {
                            let size = SlotSize {
                                source: self.names.runtime_source(stored.header.source),
                                items: stored.header.items,
                                bytes: stored.payload.len() as u64,
                            };
                            let offset = stored.header.offset;
                            cursor.skip(&size, offset);
                            if cursor.takes(size.source, offset)
                                && let Some(record) = self.record(stored)
                            {
                                cursor.waker.skipped(&record);
                            }
                            cursor.pass(offset + 1);
                        }
                        Found::Record(_) => {}
                        Found::Lost { to, .. } => cursor.pass(to.max(cursor.read)),
                    }
                }
            }
        }
    }

    /// The places of all consumers as they are to be written down.
    fn standing(&self) -> Standing {
        let mut standing = Standing::default();
        // First of the three, as wherever one of the others changes with it: nobody is between two of them.
        let ring = self.ring();
        standing.consumers.extend(self.saved.lock().clone());
        let covered = self.covered.lock();
        standing.end = ring.end();
        for cursor in ring.cursors.iter().filter(|cursor| !cursor.is_vacant()) {
            let name = cursor.name.to_string();
            let saved = match covered.get(&name) {
                Some(covered) => Saved { accepted: cursor.accepted, is_of_state: true, ..covered.clone() },
                None => Saved::of(cursor),
            };
            standing.consumers.insert(name, saved);
        }
        standing
    }

    /// Where a consumer that joins stood before, if it did.
    fn place_before(&self, name: &str) -> Option<Saved> {
        let known = self.saved.lock().get(name).cloned();
        known.or_else(|| match self.offset_reset {
            _ if self.is_damaged => Some(Saved::default()),
            OffsetReset::Latest => None,
            OffsetReset::Earliest => Some(Saved { committed: self.segments.first()?, ..Saved::default() }),
        })
    }

    /// The offset that the next record got when a consumer's place was noted.
    fn end_then(&self, name: &str) -> u64 {
        self.left.lock().get(name).copied().unwrap_or(self.end_before)
    }

    /// What lies from `from` up to `to` for a subscriber.
    fn lag(&self, sources: &Sources, from: u64, to: u64) -> Lag {
        let lag = self.segments.lag(from, to, |source| sources.contains(self.names.runtime_source(source)));
        lag.unwrap_or_else(|error| {
            error!(topic = self.topic.0, %error, "the journal cannot be counted");
            Lag::default()
        })
    }

    /// Counts what those that join have before them, up to an offset: on disk, which takes its time, and without holding anybody up. With what of it
    /// came after their place was noted.
    fn count(&self, changes: &[Change]) -> (u64, Vec<(Lag, Lag)>) {
        let end = self.ring().end();
        let lags = changes.iter().filter_map(|change| match change {
            Change::Join(subscriber, _) => {
                Some(self.place_before(&subscriber.name).filter(|saved| !saved.rests).map_or_else(Default::default, |saved| {
                    let late = self.end_then(&subscriber.name).max(saved.committed);
                    (self.lag(&subscriber.sources, saved.committed, end), self.lag(&subscriber.sources, late, end))
                }))
            }
            _ => None,
        });
        (end, lags.collect())
    }

    /// Adds a consumer; `known`: what lies before it below `counted`, and what of it is late.
    fn join(&self, ring: &mut Ring, subscriber: &Subscriber, waker: &Arc<Waker>, counted: u64, known: (Lag, Lag)) -> usize {
        let end = ring.end();
        let mut saved = self.place_before(&subscriber.name);
        let (mut unread, late) = match saved.as_mut().filter(|saved| saved.rests) {
            Some(saved) => {
                // Also what was counted before somebody let it go.
                saved.committed = end;
                Default::default()
            }
            None => known,
        };
        self.saved.lock().remove(&*subscriber.name);
        self.left.lock().remove(&*subscriber.name);
        let number = ring.subscribe(subscriber, waker.clone());
        if let Some(saved) = &saved {
            // What was there when the place was noted and is not: where the consumer finds the gap, or at the latest at the tail, it is counted as
            // lost.
            let found = saved.delivered + saved.dropped.iter().sum::<u64>() + unread.items.saturating_sub(late.items);
            let missing = saved.accepted.saturating_sub(found);
            if missing > 0 {
                let (topic, consumer) = (self.topic.0, &*subscriber.name);
                warn!(topic, consumer, items = missing, "records of this consumer are missing from the journal");
                unread = unread.plus(Lag { records: 1, items: missing, bytes: 0 });
            }
            // What came since it was counted: nearly always in memory still.
            let from = counted.max(saved.committed);
            let base = ring.base().min(end);
            if from < base {
                unread = unread.plus(self.lag(&subscriber.sources, from, base));
            }
            unread = unread.plus(ring.lag_from(number, from.max(base)));
        }
        let Some(cursor) = ring.cursors.get_mut(number) else { return number };
        if let Some(saved) = &saved {
            cursor.committed = saved.committed.min(end);
            cursor.read = cursor.committed;
            (cursor.delivered, cursor.dropped) = (saved.delivered, saved.dropped);
            cursor.unread = unread;
            if cursor.unread.records == 0 {
                cursor.pass(end);
            }
            cursor.accepted = cursor.delivered + cursor.dropped.iter().sum::<u64>() + cursor.unread.items;
        }
        if subscriber.is_stateful {
            self.covered.lock().insert(subscriber.name.to_string(), Saved::of(cursor));
        }
        let mut places = self.places.lock();
        match places.get_mut(number) {
            Some(place) => *place = Arc::default(),
            None => places.push(Arc::default()),
        }
        number
    }
}

impl Shard for DiskShard {
    fn append(&self, record: NewRecord) -> Result<Appending, (AppendError, NewRecord)> {
        let inner = &self.inner;
        let bytes = record.batch.payload.len() as u64;
        if bytes > PAYLOAD_BYTES_MAX {
            return Err((AppendError::TooLarge { bytes, bytes_max: PAYLOAD_BYTES_MAX }, record));
        }
        if let Some(reason) = inner.fault() {
            return Err((AppendError::Disk { reason: reason.into() }, record));
        }
        {
            let mut ring = inner.ring();
            if let Some(consumer) = ring.full_for(record.source) {
                return Err((AppendError::Full { consumer }, record));
            }
            if !ring.is_wanted(record.source) {
                return Err((AppendError::Unwanted, record));
            }
        }
        let (written, waiting) = oneshot::channel();
        let wakes = {
            let mut queue = inner.queue.lock();
            if queue.closing {
                return Err((AppendError::Disk { reason: "the journal is closed".into() }, record));
            }
            let slept = queue.waiting.is_empty() || !queue.is_enough();
            queue.bytes += record.batch.payload.len();
            queue.waiting.push_back(Waiting { record, written });
            slept && queue.is_enough()
        };
        if wakes {
            inner.wake.notify_one();
        }
        let closed = || Err(AppendError::Disk { reason: "the journal is closed".into() });
        Ok(Appending::Syncing(waiting.map(move |answer| answer.unwrap_or_else(|_| closed())).boxed()))
    }

    fn switch(&self, changes: &[Change]) -> Vec<usize> {
        let inner = &self.inner;
        let (counted, lags) = inner.count(changes);
        let mut lags = lags.into_iter();
        let mut joined = Vec::new();
        let mut ring = inner.ring();
        for change in changes {
            match change {
                Change::Join(subscriber, waker) => {
                    joined.push(inner.join(&mut ring, subscriber, waker, counted, lags.next().unwrap_or_default()));
                }
                change => ring.alter(change),
            }
        }
        let room = ring.room();
        drop(ring);
        inner.tell(room);
        inner.moved();
        joined
    }

    fn leave(&self, consumer: usize) {
        let inner = &self.inner;
        let mut ring = inner.ring();
        if let Some(cursor) = ring.leave(consumer) {
            let name = cursor.name.to_string();
            let covered = inner.covered.lock().remove(&name).map(|covered| Saved { accepted: cursor.accepted, ..covered });
            inner.left.lock().insert(name.clone(), ring.end());
            let mut saved = covered.unwrap_or_else(|| Saved::of(&cursor));
            // It has all that was for it: what came since it was told to end is for others.
            let has_all = saved.delivered + saved.dropped.iter().sum::<u64>() >= saved.accepted;
            saved.rests = has_all || saved.committed >= ring.end();
            inner.saved.lock().insert(name, saved);
        }
        let room = ring.room();
        drop(ring);
        inner.tell(room);
        inner.moved();
    }

    fn read(&self, consumer: usize, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) {
        let inner = &self.inner;
        {
            let mut ring = inner.ring();
            let Some(cursor) = ring.cursors.get(consumer) else { return };
            if cursor.read >= ring.base() {
                let room = ring.read(consumer, records_max, bytes_max, out);
                drop(ring);
                inner.tell(room);
                return;
            }
        }
        let before = out.len();
        while out.len() == before && inner.read_behind(consumer, records_max, bytes_max, out) {
            let ring = inner.ring();
            if ring.cursors.get(consumer).is_none_or(|cursor| cursor.read >= ring.base()) {
                break;
            }
        }
        if out.len() == before {
            let room = inner.ring().read(consumer, records_max, bytes_max, out);
            inner.tell(room);
        }
    }

    fn settle(&self, consumer: usize, watermark: u64, settled: &Settled, released: Lag) {
        self.inner.ring().settle(consumer, watermark, settled, released);
        self.inner.moved();
    }

    fn has_unread(&self, consumer: usize) -> bool {
        self.inner.ring().has_unread(consumer)
    }

    fn unread(&self, consumer: usize) -> Unread {
        self.inner.ring().unread(consumer)
    }

    fn set_stalled(&self, consumer: usize, stalled: bool) {
        let room = self.inner.ring().set_stalled(consumer, stalled);
        self.inner.tell(room);
    }

    fn books(&self, consumer: usize) -> Books {
        self.inner.ring().books(consumer)
    }

    fn crowded(&self) -> bool {
        self.inner.ring().is_crowded()
    }

    fn is_persistent(&self) -> bool {
        true
    }

    fn derived(&self) -> Vec<LastDerived> {
        self.inner.derivations.as_ref().map(|derivations| derivations.lock().last()).unwrap_or_default()
    }

    fn fault(&self) -> Option<String> {
        self.inner.fault()
    }

    fn mark(&self, consumer: usize) -> Option<Mark> {
        let ring = self.inner.ring();
        let cursor = ring.cursors.get(consumer)?;
        Some(Mark {
            name: cursor.name.clone(),
            committed: cursor.committed,
            delivered: cursor.delivered,
            dropped: cursor.dropped,
        })
    }

    fn cover(&self, mark: &Mark) {
        let Mark { committed, delivered, dropped, .. } = *mark;
        let saved = Saved { committed, delivered, dropped, accepted: 0, rests: false, is_of_state: true };
        self.inner.covered.lock().insert(mark.name.to_string(), saved);
        self.inner.moved();
    }

    fn accepted(&self) -> Lag {
        self.inner.ring().accepted()
    }

    fn end(&self) -> u64 {
        self.inner.ring().end()
    }

    fn close(&self) {
        self.inner.queue.lock().closing = true;
        self.inner.wake.notify_one();
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            error!(topic = self.inner.topic.0, "the journal's writer ended badly; everything acknowledged is on disk");
        }
    }
}

struct Writer {
    inner: Arc<Inner>,
    log: Log,
    cursors: CursorFile,
    sync: bool,
    /// When the places were written last, and synced last.
    written: Instant,
    synced: Instant,
    /// The offset that the next record got when they were written; `None`: not yet.
    written_end: Option<u64>,
    /// Places are written and not synced.
    is_unsynced: bool,
    /// Segments that all consumers are past wait for the places to be synced.
    lets_go: bool,
    /// Segments below may go: the places on disk are past them.
    covered: Option<u64>,
    /// When something was appended last.
    appended: Instant,
    /// Records of the last group and those that came while it was written: how many senders wait for their answers, about.
    senders: usize,
}

impl Writer {
    fn run(mut self) {
        let inner = self.inner.clone();
        let mut group: Vec<Waiting> = Vec::new();
        loop {
            let closing = self.next_group(&inner, &mut group);
            if !group.is_empty() {
                self.senders = group.len();
                self.write(&inner, &mut group);
                self.senders += inner.queue.lock().waiting.len();
                self.appended = Instant::now();
            } else if inner.fault().is_some() {
                self.look_for_room(&inner);
            } else if self.appended.elapsed() >= SPARES_WAIT {
                self.log.keep_one_spare();
            }
            self.housekeep(&inner, closing);
            if closing && inner.queue.lock().waiting.is_empty() {
                self.log.drop_spares();
                self.log.seal();
                return;
            }
        }
    }

    /// Waits for work. Returns whether the shard is being closed.
    fn next_group(&self, inner: &Inner, group: &mut Vec<Waiting>) -> bool {
        let mut queue = inner.queue.lock();
        if queue.waiting.is_empty() && !queue.closing && self.covered.is_none() {
            if inner.fault().is_some() {
                inner.wake.wait_for(&mut queue, ROOM_CHECK);
            } else if inner.moved.load(Ordering::Relaxed) {
                inner.wake.wait_for(&mut queue, CURSORS_WAIT.saturating_sub(self.written.elapsed()));
            } else if self.is_unsynced {
                inner.wake.wait_for(&mut queue, CURSORS_SYNC.saturating_sub(self.synced.elapsed()));
            } else if self.log.has_many_spares() {
                inner.wake.wait_for(&mut queue, SPARES_WAIT.saturating_sub(self.appended.elapsed()));
            } else {
                inner.wake.wait(&mut queue);
            }
        }
        // Those whose answers just went out are about to come back: a moment later one sync serves them, too.
        if self.senders >= BUSY && !queue.waiting.is_empty() {
            queue.wanted = self.senders;
            let deadline = Instant::now() + GATHER;
            while !queue.is_enough() && !queue.closing {
                let left = deadline.saturating_duration_since(Instant::now());
                if inner.wake.wait_for(&mut queue, left).timed_out() {
                    break;
                }
            }
            queue.wanted = 0;
        }
        let mut bytes = 0;
        while bytes < GROUP_BYTES
            && let Some(next) = queue.waiting.pop_front()
        {
            bytes += next.record.batch.payload.len();
            queue.bytes -= next.record.batch.payload.len();
            group.push(next);
        }
        queue.closing
    }

    fn write(&mut self, inner: &Inner, group: &mut Vec<Waiting>) {
        let entries: Vec<Entry> = group
            .iter()
            .map(|waiting| {
                let record = &waiting.record;
                let mut meta = Vec::new();
                let from = record.derived_from.as_ref().map(|from| (inner.names.topic_name(from.position.topic), from));
                let from = from
                    .as_ref()
                    .map(|(topic, Derivation { reader, position })| (&**topic, position.shard, position.offset, &**reader));
                Meta::encode(&record.batch.context, from, &mut meta);
                Entry {
                    source: inner.names.stored_source(record.source),
                    received: record.received,
                    items: record.batch.items,
                    meta,
                    payload: record.batch.payload.clone(),
                }
            })
            .collect();
        match self.log.append(&entries, inner.clock.now()) {
            Ok(()) => {
                inner.set_fault(None);
                if let Some(derivations) = &inner.derivations {
                    let mut derivations = derivations.lock();
                    group
                        .iter()
                        .filter_map(|waiting| waiting.record.derived_from.as_ref())
                        .for_each(|from| derivations.note(from));
                    let written = derivations.written;
                    drop(derivations);
                    if self.log.active_base().is_some_and(|base| base > written) {
                        self.write_derivations(inner);
                    }
                }
                let mut answers = Vec::with_capacity(group.len());
                let mut ring = inner.ring();
                for waiting in group.drain(..) {
                    let offset = ring.end();
                    // Its readers may have gone while it waited; it has its offset all the same.
                    let is_wanted = ring.is_wanted(waiting.record.source);
                    let crowded = ring.accept(waiting.record.source, waiting.record);
                    let answer = if is_wanted { Ok(Appended { offset, crowded }) } else { Err(AppendError::Unwanted) };
                    answers.push((waiting.written, answer));
                }
                while ring.bytes() > TAIL_BYTES && ring.evict() {}
                drop(ring);
                for (written, appended) in answers {
                    // Who is gone was answered otherwise; the record is in all the same.
                    drop(written.send(appended));
                }
                inner.skip_behind();
            }
            Err(error) => {
                let reason = error.to_string();
                if let WriteError::Full(_) = error {
                    self.log.drop_spares();
                }
                inner.set_fault(Some(reason.clone()));
                for waiting in group.drain(..) {
                    drop(waiting.written.send(Err(AppendError::Disk { reason: reason.as_str().into() })));
                }
            }
        }
    }

    /// After a fault: tries whether a segment can be begun.
    fn look_for_room(&mut self, inner: &Inner) {
        match self.log.append(&[], inner.clock.now()) {
            Ok(()) => inner.set_fault(None),
            Err(error) => inner.set_fault(Some(error.to_string())),
        }
    }

    /// Writes the consumers' places down, and lets go what all are past: one segment between two groups, where nothing is short.
    fn housekeep(&mut self, inner: &Inner, closing: bool) {
        self.write_places(inner, closing);
        if let Some(covered) = self.covered {
            let is_urgent = closing || self.log.is_short() || inner.fault().is_some();
            if !self.log.retire(covered, if is_urgent { usize::MAX } else { 1 }) {
                self.covered = None;
            }
        }
    }

    fn write_places(&mut self, inner: &Inner, closing: bool) {
        let has_moved = inner.moved.load(Ordering::Relaxed);
        // A start that fails elsewhere leaves no trace.
        let closing = closing && (has_moved || self.is_unsynced || self.written_end != Some(self.log.next()));
        let mut sync = self.sync && (closing || self.is_unsynced && self.synced.elapsed() >= CURSORS_SYNC);
        let is_faulty = inner.fault().is_some();
        let write = closing || has_moved && self.written.elapsed() >= CURSORS_WAIT || is_faulty && self.lets_go;
        if !write && !sync {
            return;
        }
        inner.moved.store(false, Ordering::Relaxed);
        self.written = Instant::now();
        let awaiting = inner.orphans.waiting();
        sync |= self.sync && !awaiting.is_empty();
        let mut standing = inner.standing();
        let holding = standing.consumers.values().filter(|saved| !saved.rests);
        let lowest = holding.map(|saved| saved.committed).min().unwrap_or(standing.end);
        // What the file system does for it keeps groups waiting: where nothing is short, all of it at once, when the places are synced anyway.
        self.lets_go = self.log.lets_go(lowest);
        let is_due = closing || self.lets_go && (self.log.is_short() || is_faulty || self.synced.elapsed() >= CURSORS_SYNC);
        // What is let go must not be missed after a power cut: the places go to the disk first.
        sync |= self.sync && is_due;
        if let Err(error) = self.cursors.write(&mut standing, sync) {
            warn!(topic = inner.topic.0, %error, "the consumers' places could not be written; after a crash more is delivered twice");
            return;
        }
        // Who asked may be gone.
        for told in awaiting {
            told.send(()).unwrap_or_default();
        }
        self.written_end = Some(standing.end);
        self.is_unsynced = self.sync && !sync;
        if sync {
            self.synced = self.written;
        }
        if (sync || !self.sync) && (!(closing || self.lets_go) || self.write_derivations(inner)) {
            self.covered = Some(lowest);
            self.lets_go = false;
        }
    }

    /// Returns whether what is known is written.
    fn write_derivations(&self, inner: &Inner) -> bool {
        let Some(derivations) = &inner.derivations else { return true };
        let written = derivations.lock().write(self.log.next(), &inner.names);
        if let Err(error) = &written {
            warn!(topic = inner.topic.0, %error, "what was made last could not be written; no segment is let go before it is");
        }
        written.is_ok()
    }
}
