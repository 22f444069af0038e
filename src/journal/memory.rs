//! A shard in memory: the ring is all there is.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    AppendError, Books, Lag, NewRecord, Record, Settled, Shard, TopicId,
    ring::{Ring, Room},
    shard::{Appended, Appending, Change, Unread},
};

/// One shard of a topic in `memory` mode.
pub struct MemoryShard {
    room: Arc<Notify>,
    ring: Mutex<Ring>,
}

impl MemoryShard {
    pub fn new(topic: TopicId, number: u16, pace_bytes: u64, room: Arc<Notify>) -> Self {
        Self { room, ring: Mutex::new(Ring::new(topic, number, pace_bytes, 0)) }
    }

    fn tell(&self, room: Room) {
        if room == Room::Made {
            self.room.notify_waiters();
        }
    }
}

impl Shard for MemoryShard {
    fn append(&self, record: NewRecord) -> Result<Appending, (AppendError, NewRecord)> {
        let mut ring = self.ring.lock();
        if let Some(consumer) = ring.full_for(record.source) {
            return Err((AppendError::Full { consumer }, record));
        }
        if !ring.is_wanted(record.source) {
            return Err((AppendError::Unwanted, record));
        }
        let offset = ring.end();
        let crowded = ring.accept(record.source, record);
        Ok(Appending::Done(Appended { offset, crowded }))
    }

    fn switch(&self, changes: &[Change]) -> Vec<usize> {
        let mut ring = self.ring.lock();
        let mut joined = Vec::new();
        for change in changes {
            match change {
                Change::Join(subscriber, waker) => joined.push(ring.subscribe(subscriber, waker.clone())),
                change => ring.alter(change),
            }
        }
        let room = ring.room();
        drop(ring);
        self.tell(room);
        joined
    }

    fn leave(&self, consumer: usize) {
        let mut ring = self.ring.lock();
        drop(ring.leave(consumer));
        let room = ring.room();
        drop(ring);
        self.tell(room);
    }

    fn read(&self, consumer: usize, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) {
        let room = self.ring.lock().read(consumer, records_max, bytes_max, out);
        self.tell(room);
    }

    fn settle(&self, consumer: usize, watermark: u64, settled: &Settled, released: Lag) {
        self.ring.lock().settle(consumer, watermark, settled, released);
    }

    fn has_unread(&self, consumer: usize) -> bool {
        self.ring.lock().has_unread(consumer)
    }

    fn unread(&self, consumer: usize) -> Unread {
        self.ring.lock().unread(consumer)
    }

    fn set_stalled(&self, consumer: usize, stalled: bool) {
        let room = self.ring.lock().set_stalled(consumer, stalled);
        self.tell(room);
    }

    fn books(&self, consumer: usize) -> Books {
        self.ring.lock().books(consumer)
    }

    fn crowded(&self) -> bool {
        self.ring.lock().is_crowded()
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn accepted(&self) -> Lag {
        self.ring.lock().accepted()
    }

    fn end(&self) -> u64 {
        self.ring.lock().end()
    }
}
