//! A pipeline's stateless processors, run once a record.
//!
//! Consumers of one pipeline that stand at the same record share the result; one that lags computes it again and gets the same bytes,
//! because a processor is a pure function.

use std::{collections::VecDeque, sync::Arc};

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
    shared: Option<Mutex<Shared>>,
}

/// What the consumers of one pipeline have in common.
#[derive(Default)]
struct Shared {
    recent: VecDeque<(Position, Chained)>,
    bytes: usize,
    /// The highest offset computed so far, by topic and shard: only what is new is counted.
    counted: Vec<(Position, u64)>,
}

/// Results kept for the other consumers.
const RECENT_MAX: usize = 64;
const RECENT_BYTES_MAX: usize = 4 << 20;

impl Chain {
    pub fn new(stages: Vec<Stage>, consumers: usize) -> Self {
        let shared = (!stages.is_empty() && consumers > 1).then(Mutex::default);
        Self { stages, shared }
    }

    pub fn run(&self, record: &Record) -> Chained {
        if self.stages.is_empty() {
            return Chained { batch: Some(record.batch.clone()), dropped: 0 };
        }
        let Some(shared) = &self.shared else { return self.compute(record, true) };
        let new = {
            let mut shared = shared.lock();
            if let Some((_, known)) = shared.recent.iter().find(|(position, _)| *position == record.position) {
                return known.clone();
            }
            shared.count(record.position)
        };
        let result = self.compute(record, new);
        let mut shared = shared.lock();
        shared.bytes += result.batch.as_ref().map_or(0, |batch| batch.payload.len());
        shared.recent.push_back((record.position, result.clone()));
        while shared.recent.len() > RECENT_MAX || (shared.bytes > RECENT_BYTES_MAX && shared.recent.len() > 1) {
            let Some((_, old)) = shared.recent.pop_front() else { break };
            shared.bytes = shared.bytes.saturating_sub(old.batch.map_or(0, |batch| batch.payload.len()));
        }
        result
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

impl Shared {
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
