//! A shard's recent records and the accounts of its consumers: what memory and disk have in common.
//!
//! A record stays until every consumer has read it; those who work on it keep their own hold. On disk, a record may go earlier, and who has
//! not read it by then reads it from its segment.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Books, NewRecord, OnOverflow, Position, Record, Settled, SourceId, Subscriber, TopicId,
    cursor::Waker,
    ledger::{CursorState, DropReason, Lag, SlotSize},
    shard::{Change, Unread},
};

pub(super) struct Ring {
    topic: TopicId,
    shard: u16,
    /// Unread bytes of a moving consumer at which the door slows down.
    pace_bytes: u64,
    slots: VecDeque<Record>,
    /// Payload bytes in `slots`.
    bytes: u64,
    /// Offset of the first slot.
    base: u64,
    pub(super) cursors: Vec<CursorState>,
    /// What was taken in since the start.
    accepted: Lag,
    /// Whether somebody waits for the pace.
    paced: bool,
    /// Whether somebody was refused and waits for room.
    refused: bool,
}

/// Who has to be told after a change.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Same,
    /// Those who wait for room should look again.
    Made,
}

fn size_of(source: SourceId, record: &NewRecord) -> SlotSize {
    SlotSize { source, items: record.batch.items, bytes: record.batch.payload.len() as u64 }
}

pub(super) fn size(record: &Record) -> SlotSize {
    SlotSize { source: record.source, items: record.batch.items, bytes: record.batch.payload.len() as u64 }
}

impl Ring {
    pub(super) fn new(topic: TopicId, shard: u16, pace_bytes: u64, base: u64) -> Self {
        Self {
            topic,
            shard,
            pace_bytes,
            slots: VecDeque::new(),
            bytes: 0,
            base,
            cursors: Vec::new(),
            accepted: Lag::default(),
            paced: false,
            refused: false,
        }
    }

    /// The first offset whose record is here.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The offset that the next record gets.
    pub(super) fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// What was taken in since the start.
    pub(super) fn accepted(&self) -> Lag {
        self.accepted
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn at(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.base)?).ok()
    }

    /// The consumer, among those who may not skip, that keeps records of this source out.
    pub(super) fn full_for(&mut self, source: SourceId) -> Option<Arc<str>> {
        let end = self.end();
        let full = self.cursors.iter().find(|cursor| cursor.holds_door() && cursor.takes(source, end) && cursor.over_bound());
        let name = full.map(|cursor| cursor.name.clone());
        self.refused |= name.is_some();
        name
    }

    /// Whether a record of this source that came in now would have a reader at all.
    pub(super) fn is_wanted(&self, source: SourceId) -> bool {
        let end = self.end();
        self.cursors.iter().any(|cursor| cursor.takes(source, end))
    }

    /// Takes a record in, at [`Ring::end`]. Returns whether its sender should be slowed down.
    pub(super) fn accept(&mut self, source: SourceId, new: NewRecord) -> bool {
        let offset = self.end();
        let size = size_of(source, &new);
        for cursor in &mut self.cursors {
            if cursor.takes(source, offset) {
                cursor.accepted += size.items;
                cursor.unread.add(&size);
            } else if cursor.read == offset {
                // Who has read everything does not stop at a record that is not for it.
                cursor.pass(offset + 1);
            }
        }
        self.bytes += size.bytes;
        self.accepted.add(&size);
        self.slots.push_back(Record {
            position: Position { topic: self.topic, shard: self.shard, offset },
            source,
            received: new.received,
            batch: new.batch,
            derived_from: new.derived_from,
        });
        let mut skipped = false;
        for number in 0..self.cursors.len() {
            skipped |= self.skip_to_bound(number);
        }
        if skipped {
            self.trim();
        }
        for cursor in &self.cursors {
            if cursor.takes(source, offset) {
                cursor.waker.wake(cursor.unread);
            }
        }
        let crowded = self.is_crowded();
        self.paced |= crowded;
        crowded
    }

    /// Drops the oldest unread records of a cursor that may skip until it is within its bound, as far as they are here.
    fn skip_to_bound(&mut self, number: usize) -> bool {
        let Some(mut at) = self.cursors.get(number).and_then(|cursor| self.at(cursor.read)) else { return false };
        let Some(cursor) = self.cursors.get_mut(number) else { return false };
        let from = cursor.read;
        while cursor.on_overflow == OnOverflow::SkipOldest
            && cursor.over_bound()
            && let Some(record) = self.slots.get(at)
        {
            let offset = record.position.offset;
            cursor.skip(&size(record), offset);
            if cursor.takes(record.source, offset) {
                cursor.waker.skipped(record);
            }
            cursor.pass(cursor.read + 1);
            at += 1;
        }
        let moved = cursor.read > from;
        if moved {
            self.skip_foreign(number);
        }
        moved
    }

    /// Moves a cursor over records that are not for it, so that it stands at one that is, or at the end.
    pub(super) fn skip_foreign(&mut self, number: usize) {
        let end = self.end();
        let Some(mut at) = self.cursors.get(number).and_then(|cursor| self.at(cursor.read)) else { return };
        let Some(cursor) = self.cursors.get_mut(number) else { return };
        if cursor.unread.records == 0 {
            cursor.pass(end);
            return;
        }
        while let Some(record) = self.slots.get(at)
            && !cursor.takes(record.source, record.position.offset)
        {
            cursor.pass(cursor.read + 1);
            at += 1;
        }
    }

    /// Hands out what is here from the consumer's place on.
    pub(super) fn read(&mut self, number: usize, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> Room {
        let Some(mut at) = self.cursors.get(number).and_then(|cursor| self.at(cursor.read)) else { return Room::Same };
        let Some(cursor) = self.cursors.get_mut(number) else { return Room::Same };
        let (mut taken, mut bytes) = (0, 0);
        while taken < records_max
            && (bytes < bytes_max || taken == 0)
            && let Some(record) = self.slots.get(at)
        {
            if cursor.takes(record.source, record.position.offset) {
                cursor.hand_out(&size(record));
                bytes += record.batch.payload.len();
                taken += 1;
                out.push(record.clone());
            }
            cursor.pass(cursor.read + 1);
            at += 1;
        }
        self.skip_foreign(number);
        self.trim();
        self.room()
    }

    /// Once a consumer has come from the disk to what is here: what it was thought to have to read and did not find is lost.
    pub(super) fn recount(&mut self, number: usize) {
        let Some(at) = self.cursors.get(number).and_then(|cursor| self.at(cursor.read)) else { return };
        let Some(cursor) = self.cursors.get_mut(number) else { return };
        let mut here = Lag::default();
        for record in self.slots.iter().skip(at).filter(|record| cursor.takes(record.source, record.position.offset)) {
            here.add(&size(record));
        }
        cursor.drop_items(DropReason::Damaged, cursor.unread.items.saturating_sub(here.items));
        cursor.unread = here;
        self.skip_foreign(number);
    }

    /// Lets go what all have read.
    fn trim(&mut self) {
        let read = self.cursors.iter().map(|cursor| cursor.read).min().unwrap_or(u64::MAX);
        while self.base < read && self.evict() {}
        // A burst's room is given back once it is over.
        if self.slots.is_empty() && self.slots.capacity() > 4096 {
            self.slots.shrink_to(1024);
        }
    }

    /// Lets the oldest record go. Returns whether there was one.
    pub(super) fn evict(&mut self) -> bool {
        let Some(record) = self.slots.pop_front() else { return false };
        self.bytes -= record.batch.payload.len() as u64;
        self.base += 1;
        true
    }

    pub(super) fn settle(&mut self, number: usize, watermark: u64, settled: &Settled, released: Lag) {
        let Some(cursor) = self.cursors.get_mut(number) else { return };
        cursor.settle(watermark, settled, released);
    }

    pub(super) fn set_stalled(&mut self, number: usize, stalled: bool) -> Room {
        if let Some(cursor) = self.cursors.get_mut(number) {
            cursor.stalled = stalled;
        }
        self.room()
    }

    /// Whether there is room again for who waits.
    pub(super) fn room(&mut self) -> Room {
        let mut room = Room::Same;
        if self.refused && !self.cursors.iter().any(|cursor| cursor.holds_door() && cursor.over_bound()) {
            self.refused = false;
            room = Room::Made;
        }
        if self.paced && !self.is_crowded() {
            self.paced = false;
            room = Room::Made;
        }
        room
    }

    /// Whether some moving consumer is behind by more than the pace, or one that may not skip is at its bound.
    pub(super) fn is_crowded(&self) -> bool {
        self.cursors.iter().any(|cursor| {
            // Who stands before what is here reads the disk, and there the quota is the bound.
            (!cursor.stalled
                && cursor.read >= self.base
                && cursor.unread.bytes > self.pace_bytes
                && !cursor.waker.waits_for_more(cursor.unread))
                || (cursor.holds_door() && cursor.over_bound())
        })
    }

    pub(super) fn has_unread(&self, number: usize) -> bool {
        self.cursors.get(number).is_some_and(|cursor| cursor.unread.records > 0)
    }

    /// `oldest_unix_nanos` is 0 where the oldest unread record is not here.
    pub(super) fn unread(&self, number: usize) -> Unread {
        let Some(cursor) = self.cursors.get(number) else { return Unread::default() };
        let Lag { records, items, bytes } = cursor.unread;
        let first = self.at(cursor.read).and_then(|at| {
            self.slots.range(at.min(self.slots.len())..).find(|record| cursor.takes(record.source, record.position.offset))
        });
        Unread { records, items, bytes, oldest_unix_nanos: first.map_or(0, |record| record.received.0) }
    }

    pub(super) fn books(&self, number: usize) -> Books {
        self.cursors.get(number).map_or_else(Books::default, CursorState::books)
    }

    /// Adds a consumer at the end. Returns its number: the lowest that nobody has.
    pub(super) fn subscribe(&mut self, subscriber: &Subscriber, waker: Arc<Waker>) -> usize {
        let state = CursorState::new(subscriber, waker, self.end());
        if let Some((number, vacant)) = self.cursors.iter_mut().enumerate().find(|(_, cursor)| cursor.is_vacant()) {
            *vacant = state;
            return number;
        }
        self.cursors.push(state);
        self.cursors.len() - 1
    }

    /// Of what is here, the records from `offset` on that are for a consumer.
    pub(super) fn lag_from(&self, number: usize, offset: u64) -> Lag {
        let mut lag = Lag::default();
        let Some(cursor) = self.cursors.get(number) else { return lag };
        for record in self.slots.iter().filter(|record| record.position.offset >= offset) {
            if cursor.takes(record.source, record.position.offset) {
                lag.add(&size(record));
            }
        }
        lag
    }

    /// What a change means for a consumer that is there already.
    pub(super) fn alter(&mut self, change: &Change) {
        let end = self.end();
        match change {
            Change::Join(..) => {}
            Change::Alter { consumer, sources, bound, on_overflow } => {
                let Some(cursor) = self.cursors.get_mut(*consumer) else { return };
                cursor.take_from(end, sources.clone());
                (cursor.bound, cursor.on_overflow) = (*bound, *on_overflow);
            }
            Change::Close { consumer } => {
                let Some(cursor) = self.cursors.get_mut(*consumer) else { return };
                cursor.take_from(end, super::Sources::default());
                // It holds nobody up any more.
                cursor.on_overflow = OnOverflow::SkipOldest;
                cursor.bound = super::LagBound::NONE;
            }
        }
    }

    /// Takes a consumer out. `None`: there is none of this number.
    pub(super) fn leave(&mut self, number: usize) -> Option<CursorState> {
        let cursor = self.cursors.get_mut(number).filter(|cursor| !cursor.is_vacant())?;
        let left = std::mem::replace(cursor, CursorState::vacant());
        self.trim();
        Some(left)
    }
}
