//! A pipeline's stateless processors, run once a record.
//!
//! Consumers of one pipeline that stand at the same record share the result; one that lags computes it again and gets the same bytes,
//! because a processor is a pure function.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    component::{Processed, Processor},
    internal_telemetry::ProcessorMetrics,
    journal::{Position, Record},
    signal::Batch,
};

/// What a record became.
#[derive(Debug, Clone)]
pub struct Chained {
    /// `None`: all of it was dropped.
    pub batch: Option<Batch>,
    /// Items of the record that a processor's rule dropped.
    pub dropped: u64,
}

pub struct Stage {
    pub processor: Arc<dyn Processor>,
    pub metrics: ProcessorMetrics,
}

/// Processors in order; shared by the consumers of one pipeline.
pub struct Chain {
    stages: Vec<Stage>,
    /// A configuration that is read while weir runs makes them more or fewer.
    consumers: AtomicUsize,
    shared: Mutex<Shared>,
}

/// What the consumers of one pipeline have in common.
#[derive(Default)]
struct Shared {
    recent: VecDeque<Recent>,
    bytes: usize,
    /// The highest offset computed so far, by topic and shard: only what is new is counted.
    counted: Vec<(Position, u64)>,
}

struct Recent {
    position: Position,
    result: Chained,
    /// Consumers that have not taken it yet: after the last one it goes, and with it its hold on the door's room.
    left: usize,
}

/// Results kept for the other consumers; one that lags or skips must not make them more.
const RECENT_MAX: usize = 64;
const RECENT_BYTES_MAX: usize = 4 << 20;

impl Chain {
    pub fn new(stages: Vec<Stage>, consumers: usize) -> Self {
        Self { stages, consumers: AtomicUsize::new(consumers), shared: Mutex::default() }
    }

    /// So many consumers share it from now on.
    pub fn set_consumers(&self, consumers: usize) {
        self.consumers.store(consumers, Ordering::Relaxed);
        // What waited for one that is gone would wait for ever.
        let mut shared = self.shared.lock();
        shared.recent.clear();
        shared.bytes = 0;
    }

    pub fn run(&self, record: &Record) -> Chained {
        if self.stages.is_empty() {
            return Chained { batch: Some(record.batch.clone()), dropped: 0 };
        }
        let consumers = self.consumers.load(Ordering::Relaxed);
        if consumers < 2 {
            return self.compute(record, true);
        }
        let new = {
            let mut shared = self.shared.lock();
            if let Some(known) = shared.take(record.position) {
                return known;
            }
            shared.count(record.position)
        };
        let result = self.compute(record, new);
        let mut shared = self.shared.lock();
        // Two that computed it at once: the first one's is kept already.
        if shared.take(record.position).is_none() {
            shared.bytes += result.bytes();
            shared.recent.push_back(Recent {
                position: record.position,
                result: result.clone(),
                left: consumers.saturating_sub(1),
            });
        }
        while shared.recent.len() > RECENT_MAX || (shared.bytes > RECENT_BYTES_MAX && shared.recent.len() > 1) {
            let Some(old) = shared.recent.pop_front() else { break };
            shared.bytes = shared.bytes.saturating_sub(old.result.bytes());
        }
        result
    }

    /// For a letter that is sent once more: it was counted when it came in.
    pub(super) fn run_again(&self, record: &Record) -> Chained {
        self.compute(record, false)
    }

    fn compute(&self, record: &Record, counts: bool) -> Chained {
        let mut batch = record.batch.clone();
        let mut dropped = 0;
        for stage in &self.stages {
            let incoming = batch.items;
            let (kept, left) = match stage.processor.process(batch, record.received) {
                Processed::Keep(batch) => (Some(batch), 0),
                Processed::Part { batch, dropped } => (Some(batch), dropped),
                Processed::DropAll => (None, incoming),
            };
            dropped += left;
            if counts {
                stage.metrics.incoming.inc_by(incoming);
                stage.metrics.outgoing.inc_by(incoming.saturating_sub(left));
            }
            match kept {
                Some(kept) if kept.items > 0 => batch = kept,
                _ => return Chained { batch: None, dropped: record.batch.items },
            }
        }
        Chained { batch: Some(batch), dropped }
    }
}

impl Chained {
    fn bytes(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.payload.len())
    }
}

impl Shared {
    /// What another consumer computed for this position.
    fn take(&mut self, position: Position) -> Option<Chained> {
        let at = self.recent.iter().position(|recent| recent.position == position)?;
        let recent = self.recent.get_mut(at)?;
        recent.left = recent.left.saturating_sub(1);
        if recent.left > 0 {
            return Some(recent.result.clone());
        }
        let recent = self.recent.remove(at)?;
        self.bytes = self.bytes.saturating_sub(recent.result.bytes());
        Some(recent.result)
    }

    /// Whether this position was not computed before.
    fn count(&mut self, position: Position) -> bool {
        match self.counted.iter_mut().find(|(known, _)| known.topic == position.topic && known.shard == position.shard) {
            Some((_, highest)) if position.offset <= *highest => false,
            Some((_, highest)) => {
                *highest = position.offset;
                true
            }
            None => {
                self.counted.push((position, position.offset));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        door::Budget,
        internal_telemetry::Telemetry,
        journal::{SourceId, TopicId},
        signal::{Signal, UnixNanos},
    };

    struct Same;

    impl Processor for Same {
        fn process(&self, batch: Batch, _received: UnixNanos) -> Processed {
            Processed::Keep(batch)
        }
    }

    #[test]
    fn a_shared_result_goes_with_the_last_consumer_that_took_it() {
        let budget = Budget::new(100);
        let metrics = Telemetry::default().processor("same", Signal::Traces);
        let chain = Chain::new(vec![Stage { processor: Arc::new(Same), metrics }], 3);
        let payload = budget.try_take(60).unwrap().bind(Bytes::from_static(b"abc"));
        let batch = Batch { signal: Signal::Traces, payload, items: 1, context: Arc::default(), index: None };
        let position = Position { topic: TopicId(0), shard: 0, offset: 7 };
        let record = Record { position, source: SourceId(0), received: UnixNanos(1), batch, derived_from: None };
        for _ in 0..3 {
            assert!(chain.run(&record).batch.is_some());
        }
        drop(record);
        assert_eq!(budget.used(), 0);
        assert_eq!(chain.shared.lock().bytes, 0);
    }
}
