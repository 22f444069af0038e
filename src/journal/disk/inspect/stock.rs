//! How much lies in a shard, and how much of it for whom.

use std::collections::BTreeMap;

use super::{Found, InspectError, Look, Opened, ShardView, Walk, io_at};
use crate::{
    journal::{DropReason, Lag},
    signal::UnixNanos,
};

/// What lies in a shard.
#[derive(Debug, Clone, Default)]
pub struct Stock {
    /// All whole records that are on disk; segments are let go as a whole, so some may be delivered.
    pub records: Lag,
    pub segments: usize,
    /// Bytes of the segments' files.
    pub bytes_on_disk: u64,
    /// When the oldest record came in.
    pub oldest: Option<UnixNanos>,
    /// The offset that the next record gets, as far as can be seen.
    pub end: u64,
    pub places: Places,
    pub consumers: Vec<ConsumerStock>,
}

/// Whether the file of places can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Places {
    #[default]
    Whole,
    /// Nobody stood there yet.
    None,
    Damaged,
}

/// A consumer's place and accounts, as they were written last (about 20 ms ago where weir runs).
#[derive(Debug, Clone)]
pub struct ConsumerStock {
    pub name: String,
    /// Everything below is settled: delivered, or dropped with a reason.
    pub committed: u64,
    pub delivered: u64,
    pub dropped: Vec<(DropReason, u64)>,
    /// What lies from `committed` on.
    pub held: Lag,
    /// When `held` may hold records of sources that this consumer does not take, it is at most that much.
    pub is_exact: bool,
    /// The place is what its last saved state covers: of what is said to be held it may have read some, and would read it again after a crash.
    pub is_of_state: bool,
    pub oldest: Option<UnixNanos>,
}

#[derive(Default)]
struct Held {
    by_source: BTreeMap<u16, Lag>,
    oldest: Option<UnixNanos>,
}

impl Held {
    fn add(&mut self, source: u16, lag: Lag) {
        let sum = self.by_source.entry(source).or_default();
        *sum = sum.plus(lag);
    }
}

impl ShardView {
    /// Takes stock. `takes` says whether a consumer takes what a source appends, where that is known.
    pub fn stock(&self, takes: &dyn Fn(&str, &str) -> Option<bool>) -> Result<Stock, InspectError> {
        let mut stock = Stock::default();
        let mut consumers: Vec<(ConsumerStock, Held)> = Vec::new();
        match self.places()? {
            Opened::New => stock.places = Places::None,
            Opened::Damaged => stock.places = Places::Damaged,
            Opened::Found(standing) => {
                stock.end = standing.end;
                for (name, saved) in standing.consumers {
                    let dropped = DropReason::ALL.into_iter().zip(saved.dropped).filter(|(_, items)| *items > 0).collect();
                    let consumer = ConsumerStock {
                        name,
                        // Who rests begins at the end.
                        committed: if saved.rests { u64::MAX } else { saved.committed },
                        delivered: saved.delivered,
                        dropped,
                        held: Lag::default(),
                        is_exact: true,
                        is_of_state: saved.is_of_state,
                        oldest: None,
                    };
                    consumers.push((consumer, Held::default()));
                }
            }
        }
        for (base, limit) in self.segments()? {
            let path = self.path_of(base);
            if let Look::Segment(walk) = Walk::open(&path, base, limit).map_err(io_at(&path))? {
                count(*walk, &mut stock, &mut consumers).map_err(io_at(&path))?;
            }
        }
        for (mut consumer, held) in consumers {
            let mut unknown = 0;
            for (source, lag) in held.by_source {
                let takes = takes(&consumer.name, self.source(source));
                unknown += usize::from(takes.is_none());
                if takes != Some(false) {
                    consumer.held = consumer.held.plus(lag);
                }
            }
            consumer.committed = consumer.committed.min(stock.end);
            consumer.is_exact = unknown <= 1;
            consumer.oldest = held.oldest.filter(|_| consumer.held.records > 0);
            stock.consumers.push(consumer);
        }
        Ok(stock)
    }
}

fn count(mut walk: Walk, stock: &mut Stock, consumers: &mut [(ConsumerStock, Held)]) -> std::io::Result<()> {
    let base = walk.segment.base;
    stock.segments += 1;
    stock.bytes_on_disk += walk.file.metadata()?.len();
    // Where the file beside it says how much it holds, and nobody stands within, that is enough.
    let within = |(consumer, _): &(ConsumerStock, Held), end: u64| consumer.committed > base && consumer.committed < end;
    if let Some(extent) = walk.sealed.clone().filter(|extent| !consumers.iter().any(|one| within(one, extent.end))) {
        stock.end = stock.end.max(extent.end);
        let mut first = None;
        if stock.oldest.is_none() || consumers.iter().any(|(consumer, held)| consumer.committed <= base && held.oldest.is_none())
        {
            first = first_record(&mut walk)?;
        }
        stock.oldest = stock.oldest.or(first);
        for (source, lag) in extent.sums.each() {
            stock.records = stock.records.plus(lag);
            for (_, held) in consumers.iter_mut().filter(|(consumer, _)| consumer.committed <= base) {
                held.add(source, lag);
                held.oldest = held.oldest.or(first);
            }
        }
        return Ok(());
    }
    while let Some(found) = walk.step()? {
        for one in found {
            let Found::Record(stored) = one else { continue };
            let header = stored.header;
            let lag = Lag { records: 1, items: header.items, bytes: stored.payload.len() as u64 };
            stock.records = stock.records.plus(lag);
            stock.end = stock.end.max(header.offset + 1);
            stock.oldest = stock.oldest.or(Some(header.received));
            for (_, held) in consumers.iter_mut().filter(|(consumer, _)| consumer.committed <= header.offset) {
                held.add(header.source, lag);
                held.oldest = held.oldest.or(Some(header.received));
            }
        }
    }
    Ok(())
}

fn first_record(walk: &mut Walk) -> std::io::Result<Option<UnixNanos>> {
    while let Some(found) = walk.step()? {
        for one in found {
            if let Found::Record(stored) = one {
                return Ok(Some(stored.header.received));
            }
        }
    }
    Ok(None)
}
