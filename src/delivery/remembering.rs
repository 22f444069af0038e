//! Keeps the state of what remembers over restarts: saves it with the positions that it covers, brings it back, and says when all that was
//! acknowledged before is in it again.
//!
//! The order is what makes the numbers exact: the marks of the readers are taken, then the state, which covers at least them; the state is on disk
//! before the marks are. A crash between any two of these repeats records that the state covers, and those change nothing.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::{
    component::{Applied, AppliedTo, Snapshot, Stateful},
    journal::{Marks, StateError, StateFile, TopicId, TopicNames},
    runtime::{Shutdown, blocking},
    signal::ComponentId,
};

/// How often a state that changed is saved.
const EVERY: Duration = Duration::from_secs(5);
/// The least time between two, as a multiple of what the last one took.
const SPACING: u32 = 20;
/// How often is looked whether the journal fills up with what waits for a state to be saved.
const LOOK: Duration = Duration::from_millis(250);

/// Whether the journal takes so much room that states should be saved now, so that it can let records go.
pub type IsPressed = Arc<dyn Fn() -> bool + Send + Sync>;

/// One connector or exporter that remembers.
pub struct Remembering {
    id: ComponentId,
    state: Arc<dyn Stateful>,
    file: StateFile,
    topics: Arc<TopicNames>,
    readers: Readers,
    is_pressed: IsPressed,
    /// Whether it changes without records, by flushing.
    flushes: bool,
    /// Whether a state was brought back, or said why not.
    is_told: bool,
}

/// The consumers that feed one that remembers.
#[derive(Clone, Default)]
pub struct Readers(Arc<Mutex<Vec<Reader>>>);

struct Reader {
    pipeline: Arc<str>,
    marks: Marks,
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
        is_pressed: IsPressed,
        flushes: bool,
    ) -> Self {
        state.replaying(true);
        let mut is_told = true;
        let anew = "its numbers begin anew, with a new start time";
        match file.read() {
            Ok(None) => is_told = false,
            Ok(Some(bytes)) => {
                let restored =
                    decode(&bytes, &topics.all()).map(|snapshot| state.restore(&snapshot).map_err(|error| error.to_string()));
                if let Err(reason) = restored.unwrap_or_else(|| Err("it has no whole position".to_owned())) {
                    warn!(component = %id, reason, "what it remembered cannot be used: {anew}");
                }
            }
            Err(error) => {
                let what = if matches!(error, StateError::Damaged { .. }) { "is damaged" } else { "cannot be read" };
                warn!(component = %id, %error, "what it remembered {what}: {anew}");
            }
        }
        Self { id, state, file, topics, readers: Readers::default(), is_pressed, flushes, is_told }
    }

    /// A consumer that feeds it from the start on.
    pub fn reader(&mut self, pipeline: Arc<str>, marks: Marks) {
        if !self.is_told && marks.take().iter().any(|mark| mark.committed > 0) {
            self.is_told = true;
            let file = self.file.path().display();
            warn!(component = %self.id, %file, "what it remembered is not there: its numbers begin anew, with a new start time");
        }
        self.readers.add(pipeline, marks);
    }

    /// Those who feed it, to be changed while it runs.
    pub fn readers(&self) -> Readers {
        self.readers.clone()
    }

    /// Saves until `stop`, which is fired once nothing is read any more, then once more.
    pub async fn run(self, stop: Shutdown) {
        let started = Instant::now();
        while !self.readers.have_caught_up() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(Duration::from_millis(5)) => {}
            }
        }
        if self.readers.have_caught_up() {
            self.state.replaying(false);
            let seconds = started.elapsed().as_secs_f64();
            if seconds > 0.1 {
                info!(component = %self.id, seconds, "it remembers all that was taken before the start");
            }
        }
        // At once: after the next crash there is less to go through again.
        let mut saved: Option<Applied> = if self.readers.have_caught_up() { self.save() } else { None };
        let (mut last, mut took) = (Instant::now(), Duration::ZERO);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(LOOK) => {}
            }
            let since = last.elapsed();
            let due =
                stop.is_cancelled() || since >= EVERY.max(took * SPACING) || (since >= took * SPACING && (self.is_pressed)());
            if !due || (!self.flushes && saved.as_ref() == Some(&self.state.applied())) {
                continue;
            }
            let begun = Instant::now();
            if let Some(applied) = self.save() {
                saved = Some(applied);
            }
            (last, took) = (Instant::now(), begun.elapsed());
        }
    }

    /// Returns what the saved state covers.
    fn save(&self) -> Option<Applied> {
        // Held until the places are said: who leaves meanwhile would leave with an older one.
        let readers = self.readers.0.lock();
        let marks: Vec<_> = readers.iter().map(|reader| (reader, reader.marks.take())).collect();
        let written = blocking(|| {
            let snapshot = self.state.snapshot();
            self.file.write(&encode(&snapshot, &self.topics.all())).map(|()| snapshot.applied)
        });
        match written {
            Ok(applied) => {
                for (reader, marks) in marks {
                    reader.marks.cover(&marks);
                }
                Some(applied)
            }
            Err(error) => {
                error!(component = %self.id, %error, "what it remembers could not be saved; the journal keeps what it was made from");
                None
            }
        }
    }
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

    fn have_caught_up(&self) -> bool {
        let readers = self.0.lock();
        readers.iter().all(|reader| reader.marks.take().iter().zip(&reader.ends).all(|(mark, end)| mark.committed >= *end))
    }
}

/// Version u16, fingerprint u64, then the positions (count; reader, topic, each with its length; shard u16; offset u64), then the state.
fn encode(snapshot: &Snapshot, topics: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(snapshot.bytes.len() + 256);
    out.extend_from_slice(&snapshot.version.to_le_bytes());
    out.extend_from_slice(&snapshot.fingerprint.to_le_bytes());
    let entries: Vec<&AppliedTo> = snapshot.applied.iter().collect();
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        let topic = topics.get(usize::from(entry.topic.0)).map_or("", String::as_str);
        for text in [&*entry.reader, topic] {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&entry.shard.to_le_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
    }
    out.extend_from_slice(&snapshot.bytes);
    out
}

fn decode(bytes: &[u8], topics: &[String]) -> Option<Snapshot> {
    let mut rest = bytes;
    let mut take = |len: usize| {
        let (taken, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(taken)
    };
    let version = u16::from_le_bytes(take(2)?.try_into().ok()?);
    let fingerprint = u64::from_le_bytes(take(8)?.try_into().ok()?);
    let count = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let mut entries = Vec::new();
    for _ in 0..count {
        let mut text = || {
            let len = usize::try_from(u32::from_le_bytes(take(4)?.try_into().ok()?)).ok()?;
            std::str::from_utf8(take(len)?).ok()
        };
        let (reader, topic) = (text()?, text()?);
        let shard = u16::from_le_bytes(take(2)?.try_into().ok()?);
        let offset = u64::from_le_bytes(take(8)?.try_into().ok()?);
        // A topic that is gone has nothing to be read from.
        if let Some(number) = topics.iter().position(|known| known == topic) {
            entries.push(AppliedTo { reader: reader.into(), topic: TopicId(u16::try_from(number).ok()?), shard, offset });
        }
    }
    Some(Snapshot { version, fingerprint, applied: Applied::new(entries), bytes: rest.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_with_its_positions_whatever_the_topics_are_numbered() {
        let old = vec!["traces".to_owned(), "metrics".to_owned()];
        let entry = |topic, offset| AppliedTo { reader: "traces/x".into(), topic: TopicId(topic), shard: 0, offset };
        let applied = Applied::new([entry(0, 7), entry(1, 9)]);
        let snapshot = Snapshot { version: 3, fingerprint: 99, applied, bytes: vec![1, 2, 3] };
        let bytes = encode(&snapshot, &old);
        assert_eq!(decode(&bytes, &old), Some(snapshot.clone()));
        let new = vec!["logs".to_owned(), "traces".to_owned()];
        assert_eq!(decode(&bytes, &new), Some(Snapshot { applied: Applied::new([entry(1, 7)]), ..snapshot }));
        for cut in 0..bytes.len() - 3 {
            assert_eq!(decode(&bytes[..cut], &old), None, "{cut}");
        }
    }
}
