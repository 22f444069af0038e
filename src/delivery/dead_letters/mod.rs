//! Data that a backend refused for good: on disk where the journal is, otherwise in memory for a look, within bounds, with the reason.
//!
//! In:   letters of all consumers. A consumer settles a record only once its letters are written.
//! Out:  nothing by itself; `weir journal replay` has letters delivered once more.
//! Full: the oldest make room; they were counted `dropped{rejected}` when they came. One that is larger than all the room is not kept.
//!       Letters on their way to the disk are held by the requests that wait for them, and those are bounded.
//! Lost: in memory mode all of it with the process. On disk what made room, and what could not be written for 30 s, counted by reason.

mod memory;
mod telling;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;
use tracing::warn;

use self::{
    memory::MemoryLetters,
    telling::{Sum, Telling},
    writer::Writer,
};
use crate::{
    internal_telemetry::{
        DEAD_LETTERS, DEAD_LETTERS_ADDED, DEAD_LETTERS_BYTES, DEAD_LETTERS_DROPPED, DEAD_LETTERS_ITEMS, DEAD_LETTERS_REPLAYED,
        DEAD_LETTERS_WAITING, Telemetry,
    },
    journal::{FoundLetters, Lag, Letter, LetterRef, LetterStore, Note, Origin, Position, Refusal, TopicNames},
    runtime::Clock,
};

/// The letters of all consumers.
pub struct DeadLetters {
    topics: Arc<TopicNames>,
    form: Form,
    metrics: Metrics,
    /// What the log says of those that are refused, and of those that are refused again.
    refused: Telling,
    again: Telling,
}

enum Form {
    Memory(MemoryLetters),
    Disk(Writer),
}

#[derive(Clone)]
struct Metrics {
    telemetry: Telemetry,
    letters: IntGauge,
    items: IntGauge,
    bytes: IntGauge,
    waiting: IntGauge,
    made_room: IntCounter,
    too_large: IntCounter,
    disk: IntCounter,
    damaged: IntCounter,
    delivered: IntCounter,
    refused: IntCounter,
}

impl Metrics {
    fn new(telemetry: &Telemetry) -> Self {
        let gauge = |name, help| telemetry.int_gauge(name, help, &[]);
        let dropped = |reason| {
            telemetry.counter(DEAD_LETTERS_DROPPED, "Dead letters that are gone without being delivered.", &[("reason", reason)])
        };
        let replayed =
            |result| telemetry.counter(DEAD_LETTERS_REPLAYED, "Dead letters that were sent once more.", &[("result", result)]);
        Self {
            telemetry: telemetry.clone(),
            letters: gauge(DEAD_LETTERS, "Batches refused by a backend and kept."),
            items: gauge(DEAD_LETTERS_ITEMS, "Items in dead letters."),
            bytes: gauge(DEAD_LETTERS_BYTES, "Bytes of dead letters, as OTLP."),
            waiting: gauge(DEAD_LETTERS_WAITING, "Dead letters on their way to the disk."),
            made_room: dropped("made_room"),
            too_large: dropped("too_large"),
            disk: dropped("disk"),
            damaged: dropped("damaged"),
            delivered: replayed("delivered"),
            refused: replayed("refused"),
        }
    }

    /// Items by whose they are. Consumers are what configurations name, so there are few.
    fn add(&self, note: &Note, items: u64) {
        let (component, pipeline) = note.consumer.split_once(" in pipeline ").unwrap_or((&note.consumer, ""));
        let labels = [("component", component), ("pipeline", pipeline), ("reason", note.reason.as_str())];
        self.telemetry.counter(DEAD_LETTERS_ADDED, "Items that became dead letters.", &labels).inc_by(items);
    }

    fn hold(&self, held: Lag) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.letters.set(number(held.records));
        self.items.set(number(held.items));
        self.bytes.set(number(held.bytes));
    }
}

impl DeadLetters {
    pub fn in_memory(topics: Arc<TopicNames>, telemetry: &Telemetry) -> Self {
        Self::of(topics, Form::Memory(MemoryLetters::default()), Metrics::new(telemetry))
    }

    /// # Errors
    /// There is no thread to be had.
    pub fn on_disk(
        topics: Arc<TopicNames>,
        store: LetterStore,
        found: FoundLetters,
        clock: Clock,
        telemetry: &Telemetry,
    ) -> std::io::Result<Self> {
        let metrics = Metrics::new(telemetry);
        metrics.hold(store.held());
        if found.damaged > 0 {
            metrics.damaged.inc_by(found.damaged);
            warn!(letters = found.damaged, "damage was found in the dead letters; these are lost");
        }
        let writer = Writer::start(Arc::new(store), clock, metrics.clone(), writer::PATIENCE)?;
        Ok(Self::of(topics, Form::Disk(writer), metrics))
    }

    fn of(topics: Arc<TopicNames>, form: Form, metrics: Metrics) -> Self {
        Self { topics, form, metrics, refused: Telling::default(), again: Telling::default() }
    }

    /// The names that positions stand for.
    pub fn topics(&self) -> &TopicNames {
        &self.topics
    }

    /// Where a record stands, by names that outlive the process.
    pub fn origin(&self, position: Position) -> Origin {
        let topic = self.topics.name(position.topic);
        Origin { topic: topic.into(), shard: position.shard, offset: position.offset }
    }

    /// Keeps letters. Once this is done the records that they come from may be settled.
    pub async fn put(&self, letters: Vec<Letter>) {
        let now = Instant::now();
        for Letter { note, batch, .. } in &letters {
            self.metrics.add(note, batch.items);
        }
        for Letter { note, batch, .. } in letters.iter().filter(|letter| self.refused.is_first(letter, now)) {
            warn!(
                consumer = &*note.consumer,
                signal = %batch.signal,
                items = batch.items,
                reason = note.reason.as_str(),
                answer = note.message,
                "refused for good; it is in the dead letters and is sent again only by `weir journal replay`. More of this consumer is summed up each minute"
            );
        }
        match &self.form {
            Form::Memory(memory) => memory.put(letters, &self.metrics),
            Form::Disk(writer) => writer.write(letters, None).await,
        }
    }

    /// A letter was sent once more: what of it was refused again is kept instead of it.
    pub async fn settle(&self, gone: LetterRef, back: Vec<Letter>) {
        let now = Instant::now();
        for Letter { note, batch, .. } in back.iter().filter(|letter| self.again.is_first(letter, now)) {
            warn!(
                consumer = &*note.consumer,
                signal = %batch.signal,
                items = batch.items,
                reason = note.reason.as_str(),
                answer = note.message,
                attempts = note.attempts,
                "a replayed dead letter was refused again; it is kept. More of this consumer is summed up each minute"
            );
        }
        if back.is_empty() {
            self.metrics.delivered.inc();
        } else {
            self.metrics.refused.inc();
        }
        if let Form::Disk(writer) = &self.form {
            writer.write(back, Some(gone)).await;
        }
    }

    /// Says how much was refused since the last line of it, where that is due; to be called about each second. `is_last`: all of it now.
    pub fn tell(&self, is_last: bool) {
        let now = Instant::now();
        let answer = |sum: Sum| (sum.reason.map_or("", Refusal::as_str), sum.message);
        for (consumer, sum) in self.refused.due(now, is_last) {
            let Sum { letters, items, .. } = sum;
            let (reason, answer) = answer(sum);
            warn!(
                consumer = &*consumer,
                letters, items, reason, answer, "more was refused for good since this was said last; it is in the dead letters"
            );
        }
        for (consumer, sum) in self.again.due(now, is_last) {
            let Sum { letters, items, .. } = sum;
            let (reason, answer) = answer(sum);
            warn!(
                consumer = &*consumer,
                letters,
                items,
                reason,
                answer,
                "more replayed dead letters were refused again since this was said last; they are kept"
            );
        }
    }

    /// The letters on disk; `None` in memory mode.
    pub fn store(&self) -> Option<&Arc<LetterStore>> {
        match &self.form {
            Form::Memory(_) => None,
            Form::Disk(writer) => Some(writer.store()),
        }
    }

    /// Writes what is on its way and takes nothing more. Blocks until it is done.
    pub fn close(&self) {
        self.tell(true);
        if let Form::Disk(writer) = &self.form {
            writer.close();
        }
    }

    /// A copy of what is kept in memory, oldest first.
    #[cfg(test)]
    pub fn letters(&self) -> Vec<Letter> {
        match &self.form {
            Form::Memory(memory) => memory.letters(),
            Form::Disk(_) => Vec::new(),
        }
    }
}
