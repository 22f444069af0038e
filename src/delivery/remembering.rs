//! Keeps the state of what remembers over restarts: saves it with the positions that it covers, brings it back, and says when all that was
//! acknowledged before is in it again.
//!
//! The order is what makes the numbers exact: the marks of the readers are taken, then the state, which covers at least them; the state is on disk
//! before the marks are. A crash between any two of these repeats records that the state covers, and those change nothing.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::saver::Saver;
use crate::{
    component::{Applied, Stateful},
    journal::{Cursor, Marks, StateFile, TopicNames},
    runtime::Shutdown,
    signal::ComponentId,
};

/// How often a state that changed is saved.
const EVERY: Duration = Duration::from_secs(5);
/// The least time between two, as a multiple of what the last one took.
const SPACING: u32 = 20;
/// The same where it is saved only so that the journal can write over what it is done with.
const SPACING_OF_SEGMENTS: u32 = 100;
/// How often is looked whether the journal fills up with what waits for a state to be saved.
const LOOK: Duration = Duration::from_millis(250);

/// What the journal waits for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pressure {
    /// It takes so much room that it should let records go.
    pub is_filling: bool,
    /// Since the start. A segment that was let go is written over by the next, which costs the disk less than a new one.
    pub segments_begun: u64,
}

/// One connector or exporter that remembers.
pub struct Remembering {
    id: ComponentId,
    state: Arc<dyn Stateful>,
    saver: Arc<Saver>,
    pressure: Arc<dyn Fn() -> Pressure + Send + Sync>,
    /// Whether it changes without records, by flushing.
    flushes: bool,
    /// Whether a state was brought back, or said why not.
    is_told: bool,
}

/// The consumers that feed one that remembers.
#[derive(Clone, Default)]
pub struct Readers(Arc<Mutex<Vec<Reader>>>);

pub(super) struct Reader {
    pipeline: Arc<str>,
    pub(super) marks: Marks,
    /// Where each shard ended at the start: what lies below was acknowledged before.
    ends: Vec<u64>,
}

impl Remembering {
    /// Brings the last saved state back. Before its readers subscribe.
    pub fn begin(
        id: ComponentId,
        state: Arc<dyn Stateful>,
        file: StateFile,
        topics: Arc<TopicNames>,
        pressure: Arc<dyn Fn() -> Pressure + Send + Sync>,
        flushes: bool,
    ) -> Self {
        state.replaying(true);
        let saver = Saver::new(id.clone(), state.clone(), file, topics);
        let is_told = saver.restore();
        Self { id, state, saver: Arc::new(saver), pressure, flushes, is_told }
    }

    /// A consumer that feeds it from the start on.
    pub fn reader(&mut self, pipeline: Arc<str>, cursor: &Cursor) {
        let marks = cursor.marks();
        let applied = self.state.applied();
        let there = applied.up_to(&pipeline, |topic, shard| cursor.end_of(topic, shard));
        if there != applied {
            warn!(component = %self.id, pipeline = &*pipeline, "it remembers more than there is in the journal, which was begun anew: what comes counts");
            self.state.resume(&there);
        }
        if !self.is_told && marks.take().iter().any(|mark| mark.committed > 0) {
            self.is_told = true;
            let file = self.saver.file().path().display();
            warn!(component = %self.id, %file, "what it remembered is not there: its numbers begin anew, with a new start time");
        }
        self.saver.readers().add(pipeline, marks);
    }

    pub fn saver(&self) -> Arc<Saver> {
        self.saver.clone()
    }

    /// Saves until `stop`, which is fired once nothing is read any more, then once more.
    pub async fn run(self, stop: Shutdown) {
        let started = Instant::now();
        while !self.saver.readers().have_caught_up() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(Duration::from_millis(5)) => {}
            }
        }
        if self.saver.readers().have_caught_up() {
            self.state.replaying(false);
            let seconds = started.elapsed().as_secs_f64();
            if seconds > 0.1 {
                info!(component = %self.id, seconds, "it remembers all that was taken before the start");
            }
        }
        // At once: after the next crash there is less to go through again.
        let mut saved: Option<Applied> = if self.saver.readers().have_caught_up() { self.saver.save() } else { None };
        let (mut last, mut took, mut begun) = (Instant::now(), Duration::ZERO, (self.pressure)().segments_begun);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(LOOK) => {}
            }
            let (since, pressure) = (last.elapsed(), (self.pressure)());
            let is_due = stop.is_cancelled() || is_due(since, took, pressure.is_filling, pressure.segments_begun != begun);
            if !is_due {
                continue;
            }
            begun = pressure.segments_begun;
            if !self.flushes && saved.as_ref() == Some(&self.state.applied()) {
                continue;
            }
            let start = Instant::now();
            if let Some(applied) = self.saver.save() {
                saved = Some(applied);
            }
            (last, took) = (Instant::now(), start.elapsed());
        }
    }
}

/// Whether to save again, so long after the last time, which took so long.
fn is_due(since: Duration, took: Duration, is_filling: bool, is_segment_begun: bool) -> bool {
    since >= EVERY.max(took * SPACING)
        || is_filling && since >= took * SPACING
        || is_segment_begun && since >= took * SPACING_OF_SEGMENTS
}

impl Readers {
    pub fn add(&self, pipeline: Arc<str>, marks: Marks) {
        let ends = marks.ends();
        self.0.lock().push(Reader { pipeline, marks, ends });
    }

    /// Before the consumer leaves its places.
    pub fn remove(&self, pipeline: &str) {
        self.0.lock().retain(|reader| &*reader.pipeline != pipeline);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.0.lock()
    }

    fn have_caught_up(&self) -> bool {
        let readers = self.0.lock();
        readers.iter().all(|reader| reader.marks.take().iter().zip(&reader.ends).all(|(mark, end)| mark.committed >= *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_saved_in_time_and_earlier_where_the_journal_waits_for_it() {
        let due = |since, took, is_filling, is_begun| {
            is_due(Duration::from_millis(since), Duration::from_millis(took), is_filling, is_begun)
        };
        assert!(!due(4_999, 1, false, false) && due(5_000, 1, false, false));
        assert!(
            !due(5_000, 300, false, false) && due(6_000, 300, false, false),
            "not more than a twentieth of the time goes into it"
        );
        assert!(due(200, 10, true, false) && !due(199, 10, true, false));
        assert!(
            due(200, 2, false, true) && !due(199, 2, false, true),
            "a state that is long to write is not written for each segment"
        );
    }
}
