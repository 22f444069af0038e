//! What lies in a shard for consumers that the configuration does not have, and how it is let go while weir runs.

use std::{collections::HashMap, io};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    cursors::Saved,
    shard::{DiskShard, Inner},
};
use crate::journal::{DropReason, Lag};

/// A consumer that the configuration does not have, as it stands in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub consumer: String,
    /// At most: which of the records were for it is not kept.
    pub held: Lag,
    /// Items that were let go for it by hand, in this run and before.
    pub removed_items: u64,
}

/// What became of the wish to let go what is held for a consumer.
#[derive(Debug)]
pub enum Removing {
    /// It never stood here.
    Unknown,
    /// It reads here now.
    Configured,
    Removed {
        held: Lag,
        /// Now counted `dropped{removed}`; 0: it held nothing any more.
        items: u64,
        /// Told once this outlives the process, and in `durable` mode a power cut. Dropped: it could not be written.
        written: oneshot::Receiver<()>,
    },
}

/// What a shard notes of its orphans.
#[derive(Default)]
pub(super) struct Orphans {
    /// What was counted for whom, so that nobody who looks reads the disk again.
    counted: Mutex<HashMap<String, Counted>>,
    /// Told when the places are written down.
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
}

struct Counted {
    committed: u64,
    held: Lag,
    /// What the shard had accepted by then.
    accepted: Lag,
}

impl Orphans {
    /// Those who wait; to be taken before the places are looked at that are written for them.
    pub(super) fn waiting(&self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl DiskShard {
    /// The names of consumers that stand here and are not of this configuration, with what they hold. Those that have everything rest from now
    /// on: what comes is not for them.
    pub fn strangers(&self) -> Vec<(String, Lag)> {
        let saved = self.inner.saved.lock().clone();
        let mut strangers: Vec<_> = saved
            .into_iter()
            .filter(|(_, saved)| !saved.rests)
            .filter_map(|(name, saved)| self.inner.held_by(&name, &saved).ok().map(|lag| (name, lag)))
            .collect();
        for (name, _) in strangers.iter().filter(|(_, lag)| lag.records == 0) {
            if let Some(saved) = self.inner.saved.lock().get_mut(name) {
                saved.rests = true;
                self.inner.moved();
            }
        }
        strangers.retain(|(_, lag)| lag.records > 0);
        strangers.sort_by(|(a, _), (b, _)| a.cmp(b));
        strangers
    }

    /// Consumers that stand here, are not of this configuration, and hold something or had something let go. To be asked when all of the
    /// configuration have joined.
    pub fn orphans(&self) -> Vec<Orphan> {
        let saved = self.inner.saved.lock().clone();
        let mut orphans = Vec::new();
        for (consumer, saved) in saved {
            let removed_items = removed(&saved);
            match self.inner.held_by(&consumer, &saved) {
                Ok(held) if held.records > 0 || removed_items > 0 => orphans.push(Orphan { consumer, held, removed_items }),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(topic = self.inner.topic.0, consumer, %error, "what is held for a consumer that is gone cannot be counted");
                }
            }
        }
        orphans.sort_by(|a, b| a.consumer.cmp(&b.consumer));
        orphans
    }

    /// Lets go what is held for a consumer that does not read here: it rests at the end, and what its books had as held they have as
    /// `dropped{removed}`. Asked again it changes nothing, and waits until that is written.
    ///
    /// # Errors
    /// What it holds cannot be counted, or the shard is being closed; nothing was done.
    pub fn remove_orphan(&self, consumer: &str) -> io::Result<Removing> {
        let inner = &self.inner;
        let known = inner.saved.lock().get(consumer).cloned();
        // Reads the disk, so not under the lock; it may be back or gone by then.
        let held = known.map_or(Ok(Lag::default()), |saved| inner.held_by(consumer, &saved))?;
        let (told, written) = oneshot::channel();
        let items = {
            let ring = inner.ring();
            if ring.cursors.iter().any(|cursor| !cursor.is_vacant() && *cursor.name == *consumer) {
                return Ok(Removing::Configured);
            }
            let mut all = inner.saved.lock();
            let Some(saved) = all.get_mut(consumer) else { return Ok(Removing::Unknown) };
            if saved.rests { 0 } else { dismiss(saved, held, ring.end()) }
        };
        if inner.queue.lock().closing {
            return Err(io::Error::other("the journal is being closed"));
        }
        inner.orphans.waiting.lock().push(told);
        inner.moved();
        Ok(Removing::Removed { held, items, written })
    }
}

/// Moves a place to the end. Returns the items that were held.
fn dismiss(saved: &mut Saved, held: Lag, end: u64) -> u64 {
    let settled = saved.delivered + saved.dropped.iter().sum::<u64>();
    // An older weir did not say how much was accepted for it.
    let items = if saved.accepted == 0 { held.items } else { saved.accepted.saturating_sub(settled) };
    if let Some(count) = saved.dropped.get_mut(DropReason::Removed as usize) {
        *count += items;
    }
    saved.accepted = settled + items;
    (saved.committed, saved.rests) = (end, true);
    items
}

fn removed(saved: &Saved) -> u64 {
    saved.dropped.get(DropReason::Removed as usize).copied().unwrap_or(0)
}

impl Inner {
    /// What lies behind a place.
    fn held_by(&self, name: &str, saved: &Saved) -> io::Result<Lag> {
        if saved.rests {
            return Ok(Lag::default());
        }
        let (end, accepted) = {
            let ring = self.ring();
            (ring.end(), ring.accepted())
        };
        if let Some(counted) = self.orphans.counted.lock().get(name).filter(|counted| counted.committed == saved.committed) {
            return Ok(counted.held.plus(accepted.minus(counted.accepted)));
        }
        let held = self.segments.lag(saved.committed, end, |_| true)?;
        let counted = Counted { committed: saved.committed, held, accepted };
        self.orphans.counted.lock().insert(name.to_owned(), counted);
        Ok(held)
    }
}
