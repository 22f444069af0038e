//! A shard in memory: a ring of records, no copy of their bytes.
//!
//! A record's payload is let go once every consumer has read it (they keep their own hold on what they work on); its size stays in the
//! ring until every consumer is past it, so that `held` can be counted.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    AppendError, Books, NewRecord, OnOverflow, Position, Record, Settled, Shard, Subscriber, TopicId,
    cursor::Waker,
    ledger::{CursorState, DropReason, Lag, SlotSize},
    shard::{Appending, Unread},
};

/// One shard of a topic in `memory` mode.
pub struct MemoryShard {
    topic: TopicId,
    number: u16,
    /// Unread bytes of a moving consumer at which the door slows down.
    pace_bytes: u64,
    room: Arc<Notify>,
    ring: Mutex<Ring>,
}

struct Ring {
    slots: VecDeque<Slot>,
    /// Offset of the first slot.
    base: u64,
    /// Payloads below are gone.
    read_by_all: u64,
    cursors: Vec<CursorState>,
    stalled: Vec<bool>,
    /// Whether somebody waits for room.
    crowded: bool,
}

struct Slot {
    size: SlotSize,
    record: Option<Record>,
}

impl MemoryShard {
    pub fn new(topic: TopicId, number: u16, pace_bytes: u64, room: Arc<Notify>) -> Self {
        let ring =
            Ring { slots: VecDeque::new(), base: 0, read_by_all: 0, cursors: Vec::new(), stalled: Vec::new(), crowded: false };
        Self { topic, number, pace_bytes, room, ring: Mutex::new(ring) }
    }
}

impl Ring {
    fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    fn slot(&self, offset: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(offset.checked_sub(self.base)?).ok()?)
    }

    /// Lets payloads go that all have read, and slots that all are past.
    fn trim(&mut self) {
        let end = self.end();
        let read = self.cursors.iter().map(|cursor| cursor.read).min().unwrap_or(end);
        while self.read_by_all < read {
            let at = usize::try_from(self.read_by_all - self.base).unwrap_or(usize::MAX);
            if let Some(slot) = self.slots.get_mut(at) {
                slot.record = None;
            }
            self.read_by_all += 1;
        }
        let committed = self.cursors.iter().map(|cursor| cursor.committed).min().unwrap_or(end);
        while self.base < committed && self.slots.pop_front().is_some() {
            self.base += 1;
        }
        // A burst's room is given back once it is over.
        if self.slots.is_empty() && self.slots.capacity() > 4096 {
            self.slots.shrink_to(1024);
        }
    }

    /// Drops the oldest unread records of a cursor until it is within its bound.
    fn skip_to_bound(&mut self, number: usize) {
        let Some(cursor) = self.cursors.get_mut(number) else { return };
        let from = cursor.read;
        let mut at = usize::try_from(from - self.base).unwrap_or(usize::MAX);
        while cursor.over_bound() {
            let Some(slot) = self.slots.get(at) else { break };
            if cursor.takes(slot.size.source) {
                cursor.unread.sub(&slot.size);
                cursor.drop_items(DropReason::Lag, slot.size.items);
            }
            cursor.read += 1;
            at += 1;
        }
        let to = cursor.read;
        if to > from {
            match cursor.skipped.back_mut() {
                Some(last) if last.end == from => last.end = to,
                _ => cursor.skipped.push_back(from..to),
            }
        }
    }

    fn is_crowded(&self, pace_bytes: u64) -> bool {
        self.cursors.iter().zip(&self.stalled).any(|(cursor, stalled)| {
            (!stalled && cursor.unread.bytes > pace_bytes) || (cursor.on_overflow == OnOverflow::HoldDoor && cursor.over_bound())
        })
    }
}

impl Shard for MemoryShard {
    fn append(&self, record: NewRecord) -> Result<Appending, (AppendError, NewRecord)> {
        let mut ring = self.ring.lock();
        let size = SlotSize {
            source: record.source,
            items: record.batch.items,
            bytes: record.batch.payload.len() as u64,
            received_unix_nanos: record.received.0,
        };
        let full = ring
            .cursors
            .iter()
            .position(|cursor| cursor.on_overflow == OnOverflow::HoldDoor && cursor.takes(size.source) && cursor.over_bound());
        if let Some(number) = full {
            ring.crowded = true;
            let consumer = ring.cursors.get(number).map_or_else(|| Arc::from("a consumer"), |cursor| cursor.name.clone());
            return Err((AppendError::Full { consumer }, record));
        }
        let offset = ring.end();
        let mut over = false;
        let mut wanted = false;
        for cursor in &mut ring.cursors {
            if cursor.takes(size.source) {
                wanted = true;
                cursor.accepted += size.items;
                cursor.unread.add(&size);
                over |= cursor.on_overflow == OnOverflow::SkipOldest && cursor.over_bound();
            }
        }
        if !wanted {
            return Ok(Appending::Done { offset, crowded: false });
        }
        for cursor in &mut ring.cursors {
            // Who has read everything does not stop at a record that is not for it.
            if !cursor.takes(size.source) && cursor.read == offset {
                if cursor.committed == offset {
                    cursor.committed += 1;
                }
                cursor.read += 1;
            }
        }
        ring.slots.push_back(Slot {
            size,
            record: Some(Record {
                position: Position { topic: self.topic, shard: self.number, offset },
                source: record.source,
                received: record.received,
                batch: record.batch,
                derived_from: record.derived_from,
            }),
        });
        if over {
            for number in 0..ring.cursors.len() {
                if ring
                    .cursors
                    .get(number)
                    .is_some_and(|cursor| cursor.on_overflow == OnOverflow::SkipOldest && cursor.over_bound())
                {
                    ring.skip_to_bound(number);
                }
            }
            ring.trim();
        }
        for cursor in &ring.cursors {
            if cursor.takes(size.source) {
                cursor.waker.wake(cursor.unread);
            }
        }
        let crowded = ring.is_crowded(self.pace_bytes);
        ring.crowded |= crowded;
        Ok(Appending::Done { offset, crowded })
    }

    fn subscribe(&self, subscriber: &Subscriber, waker: Arc<Waker>) {
        let mut ring = self.ring.lock();
        let end = ring.end();
        ring.cursors.push(CursorState {
            name: subscriber.name.clone(),
            sources: subscriber.sources.clone(),
            bound: subscriber.bound,
            on_overflow: subscriber.on_overflow,
            waker,
            committed: end,
            read: end,
            unread: Lag::default(),
            skipped: VecDeque::new(),
            accepted: 0,
            delivered: 0,
            dropped: [0; DropReason::ALL.len()],
        });
        ring.stalled.push(false);
    }

    fn read(&self, consumer: usize, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) {
        let mut guard = self.ring.lock();
        let ring = &mut *guard;
        let end = ring.base + ring.slots.len() as u64;
        let Some(cursor) = ring.cursors.get_mut(consumer) else { return };
        let (mut taken, mut bytes) = (0, 0);
        while cursor.read < end && taken < records_max && (bytes < bytes_max || taken == 0) {
            let at = usize::try_from(cursor.read - ring.base).unwrap_or(usize::MAX);
            if let Some(slot) = ring.slots.get(at)
                && cursor.takes(slot.size.source)
            {
                cursor.unread.sub(&slot.size);
                if let Some(record) = &slot.record {
                    bytes += record.batch.payload.len();
                    taken += 1;
                    out.push(record.clone());
                }
            }
            cursor.read += 1;
        }
        ring.trim();
        if ring.crowded && !ring.is_crowded(self.pace_bytes) {
            ring.crowded = false;
            self.room.notify_waiters();
        }
    }

    fn settle(&self, consumer: usize, watermark: u64, settled: &Settled) {
        let mut ring = self.ring.lock();
        let Some(cursor) = ring.cursors.get_mut(consumer) else { return };
        cursor.committed = cursor.committed.max(watermark.min(cursor.read));
        cursor.delivered += settled.delivered;
        for (mine, theirs) in cursor.dropped.iter_mut().zip(settled.dropped) {
            *mine += theirs;
        }
        while cursor.skipped.front().is_some_and(|range| range.end <= cursor.committed) {
            cursor.skipped.pop_front();
        }
        ring.trim();
    }

    fn has_unread(&self, consumer: usize) -> bool {
        self.ring.lock().cursors.get(consumer).is_some_and(|cursor| cursor.unread.records > 0)
    }

    fn unread(&self, consumer: usize) -> Unread {
        let ring = self.ring.lock();
        let Some(cursor) = ring.cursors.get(consumer) else { return Unread::default() };
        let oldest = ring
            .slots
            .iter()
            .skip(usize::try_from(cursor.read.saturating_sub(ring.base)).unwrap_or(usize::MAX))
            .find(|slot| cursor.takes(slot.size.source))
            .map_or(0, |slot| slot.size.received_unix_nanos);
        Unread {
            records: cursor.unread.records,
            items: cursor.unread.items,
            bytes: cursor.unread.bytes,
            oldest_unix_nanos: oldest,
        }
    }

    fn set_stalled(&self, consumer: usize, stalled: bool) {
        let mut ring = self.ring.lock();
        if let Some(flag) = ring.stalled.get_mut(consumer) {
            *flag = stalled;
        }
        if ring.crowded && !ring.is_crowded(self.pace_bytes) {
            ring.crowded = false;
            self.room.notify_waiters();
        }
    }

    fn books(&self, consumer: usize) -> Books {
        let ring = self.ring.lock();
        let Some(cursor) = ring.cursors.get(consumer) else { return Books::default() };
        let mut books =
            Books { accepted: cursor.accepted, delivered: cursor.delivered, dropped: cursor.dropped, ..Books::default() };
        for offset in cursor.committed..ring.end() {
            let Some(slot) = ring.slot(offset) else { continue };
            if cursor.takes(slot.size.source) && !cursor.was_skipped(offset) {
                books.held += slot.size.items;
                books.held_bytes += slot.size.bytes;
                books.held_records += 1;
                if books.oldest_unix_nanos == 0 {
                    books.oldest_unix_nanos = slot.size.received_unix_nanos;
                }
            }
        }
        books
    }

    fn crowded(&self) -> bool {
        self.ring.lock().is_crowded(self.pace_bytes)
    }
}
