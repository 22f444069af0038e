//! Writes down what a component remembers together with the positions that it covers, and what it told by a flush.
//!
//! A flush of deltas takes what it tells out of the state. So that a crash neither loses it nor tells it twice, it goes to the outbox first, a file
//! beside the state; then the state is saved as it is after the flush, with the flush's number; then what was told is appended to its topic with
//! that number; then the outbox is removed. A start that finds the number of the state in the outbox appends what the topic does not have of it.
//! An outbox of another number was never said to be told: the state still holds all of it.
//!
//! Full: where the disk is, the flush waits, the state goes on counting in memory, and the journal keeps what it was made from.
//! Lost: what was not told of a state that its component refuses (other settings) or that is damaged; said in the log.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::{error, warn};

use super::remembering::Readers;
use crate::{
    component::{Applied, AppliedTo, Derived, Snapshot, Stateful},
    journal::{Derivation, StateError, StateFile, TopicId, TopicNames},
    runtime::blocking,
    signal::{Batch, ComponentId, Signal, UnixNanos},
};

/// One component's.
pub struct Saver {
    id: ComponentId,
    state: Arc<dyn Stateful>,
    file: StateFile,
    outbox: StateFile,
    topics: Arc<TopicNames>,
    readers: Readers,
    /// The flush that the state covers and that may not be in its topic yet. Held while the state is written: what a flush took out of the state
    /// is either in both files or in none.
    flushed: Mutex<Option<Flushed>>,
}

struct Flushed {
    number: u64,
    topic: TopicId,
    told: Vec<Derived>,
    in_outbox: bool,
}

/// What a flush told that is to be appended.
#[derive(Debug)]
pub(super) struct Untold {
    /// See [`Derivation::FLUSH`].
    pub number: u64,
    pub told: Vec<Derived>,
}

impl Saver {
    pub(super) fn new(id: ComponentId, state: Arc<dyn Stateful>, file: StateFile, topics: Arc<TopicNames>) -> Self {
        let outbox = file.beside("outbox");
        Self { id, state, file, outbox, topics, readers: Readers::default(), flushed: Mutex::new(None) }
    }

    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    pub(super) fn file(&self) -> &StateFile {
        &self.file
    }

    /// Brings the last saved state back. `false`: none was saved.
    pub(super) fn restore(&self) -> bool {
        let anew = "its numbers begin anew, with a new start time";
        match self.file.read() {
            Ok(None) => return false,
            Ok(Some(bytes)) => match decode(&bytes, &self.topics.all()) {
                Some((snapshot, flush)) => {
                    if let Some((topic, number)) = flush {
                        self.restore_outbox(topic, number);
                    }
                    if let Err(reason) = self.state.restore(&snapshot) {
                        let untold = if self.tells_once() { ", and what it had not told yet is not told" } else { "" };
                        warn!(component = %self.id, %reason, "what it remembered cannot be used: {anew}{untold}");
                        // What was counted and told is not told again under the new ones.
                        self.state.resume(&snapshot.applied);
                    }
                }
                None => {
                    warn!(component = %self.id, reason = "it has no whole position", "what it remembered cannot be used: {anew}");
                }
            },
            Err(error) => {
                let what = if matches!(error, StateError::Damaged { .. }) { "is damaged" } else { "cannot be read" };
                warn!(component = %self.id, %error, "what it remembered {what}: {anew}");
            }
        }
        true
    }

    fn restore_outbox(&self, topic: TopicId, number: u64) {
        match self.outbox.read() {
            Ok(None) => {}
            Ok(Some(bytes)) => match decode_outbox(&bytes) {
                Some((found, told)) if found == number => {
                    *self.flushed.lock() = Some(Flushed { number, topic, told, in_outbox: true });
                }
                Some(_) => {}
                None => {
                    error!(component = %self.id, file = %self.outbox.path().display(), "what a flush told cannot be read and is not delivered");
                }
            },
            Err(error) => error!(component = %self.id, %error, "what a flush told cannot be read and is not delivered"),
        }
    }

    /// Whether a flush of it must be neither lost nor told twice.
    pub(super) fn tells_once(&self) -> bool {
        self.state.tells_once()
    }

    /// What was told and may not be in its topic yet, by an earlier life or because its append was broken off.
    pub(super) fn untold(&self) -> Option<Untold> {
        self.flushed.lock().as_ref().map(|flushed| Untold { number: flushed.number, told: flushed.told.clone() })
    }

    /// Takes a flush out of the state; it is appended to `topic` (and others of the same connector) once it is [saved](Self::save). Not while
    /// another one is untold.
    pub(super) fn flush(&self, now: UnixNanos, last: bool, topic: TopicId) {
        let mut flushed = self.flushed.lock();
        let mut told = Vec::new();
        self.state.flush(now, last, &mut told);
        if !told.is_empty() {
            *flushed = Some(Flushed { number: now.0, topic, told, in_outbox: false });
        }
    }

    /// All that was told is in its topic.
    pub(super) fn told(&self) {
        let mut flushed = self.flushed.lock();
        if let Err(error) = blocking(|| self.outbox.remove()) {
            // After a crash the topic itself tells that it is there.
            warn!(component = %self.id, %error, "the outbox cannot be removed now");
        }
        *flushed = None;
    }

    /// Returns what the saved state covers. `None`: it could not be saved, and was said.
    pub fn save(&self) -> Option<Applied> {
        // Held until the places are said: who leaves meanwhile would leave with an older one.
        let readers = self.readers.lock();
        let mut flushed = self.flushed.lock();
        let marks: Vec<_> = readers.iter().map(|reader| (reader, reader.marks.take())).collect();
        let written = blocking(|| {
            if let Some(flushed) = flushed.as_mut().filter(|flushed| !flushed.in_outbox) {
                self.outbox.write(&encode_outbox(flushed.number, &flushed.told))?;
                flushed.in_outbox = true;
            }
            let snapshot = self.state.snapshot();
            let flush = flushed.as_ref().map(|flushed| (flushed.topic, flushed.number));
            self.file.write(&encode(&snapshot, flush, &self.topics.all())).map(|()| snapshot.applied)
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

/// Version u16, fingerprint u64, then the positions (count; reader, topic, each with its length; shard u16; offset u64), then the state. The last
/// position may be that of a flush.
fn encode(snapshot: &Snapshot, flush: Option<(TopicId, u64)>, topics: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(snapshot.bytes.len() + 256);
    out.extend_from_slice(&snapshot.version.to_le_bytes());
    out.extend_from_slice(&snapshot.fingerprint.to_le_bytes());
    let flush = flush.map(|(topic, offset)| AppliedTo { reader: Derivation::FLUSH.into(), topic, shard: 0, offset });
    let entries: Vec<&AppliedTo> = snapshot.applied.iter().chain(&flush).collect();
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

fn decode(bytes: &[u8], topics: &[String]) -> Option<(Snapshot, Option<(TopicId, u64)>)> {
    let mut rest = bytes;
    let mut take = |len: usize| {
        let (taken, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(taken)
    };
    let version = u16::from_le_bytes(take(2)?.try_into().ok()?);
    let fingerprint = u64::from_le_bytes(take(8)?.try_into().ok()?);
    let count = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let (mut entries, mut flush) = (Vec::new(), None);
    for _ in 0..count {
        let mut text = || {
            let len = usize::try_from(u32::from_le_bytes(take(4)?.try_into().ok()?)).ok()?;
            std::str::from_utf8(take(len)?).ok()
        };
        let (reader, topic) = (text()?, text()?);
        let shard = u16::from_le_bytes(take(2)?.try_into().ok()?);
        let offset = u64::from_le_bytes(take(8)?.try_into().ok()?);
        // A topic that is gone has nothing to be read from.
        let Some(number) = topics.iter().position(|known| known == topic) else { continue };
        let topic = TopicId(u16::try_from(number).ok()?);
        if reader == Derivation::FLUSH {
            flush = Some((topic, offset));
        } else {
            entries.push(AppliedTo { reader: reader.into(), topic, shard, offset });
        }
    }
    Some((Snapshot { version, fingerprint, applied: Applied::new(entries), bytes: rest.to_vec() }, flush))
}

/// The flush's number, then each batch: signal, items, time, length, each u64, and its bytes. There is no context: see [`Stateful::flush`].
fn encode_outbox(number: u64, told: &[Derived]) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    for Derived { batch, received } in told {
        for number in [batch.signal.ordinal() as u64, batch.items, received.0, batch.payload.len() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&batch.payload);
    }
    out
}

fn decode_outbox(bytes: &[u8]) -> Option<(u64, Vec<Derived>)> {
    let (number, mut rest) = bytes.split_first_chunk::<8>()?;
    let context = Arc::default();
    let mut told = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = rest.split_first_chunk::<32>()?;
        let mut numbers = head.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let signal = *Signal::ALL.get(usize::try_from(numbers.next()?).ok()?)?;
        let (items, received, len) = (numbers.next()?, UnixNanos(numbers.next()?), numbers.next()?);
        let (payload, behind) = behind.split_at_checked(usize::try_from(len).ok()?)?;
        rest = behind;
        let batch = Batch { signal, payload: Bytes::copy_from_slice(payload), items, context: Arc::clone(&context), index: None };
        told.push(Derived { batch, received });
    }
    Some((u64::from_le_bytes(*number), told))
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
        let bytes = encode(&snapshot, Some((TopicId(0), 5)), &old);
        assert_eq!(decode(&bytes, &old), Some((snapshot.clone(), Some((TopicId(0), 5)))));
        let new = vec!["logs".to_owned(), "traces".to_owned()];
        let found = Snapshot { applied: Applied::new([entry(1, 7)]), ..snapshot };
        assert_eq!(decode(&bytes, &new), Some((found, Some((TopicId(1), 5)))));
        for cut in 0..bytes.len() - 3 {
            assert_eq!(decode(&bytes[..cut], &old), None, "{cut}");
        }
    }

    #[test]
    fn an_outbox_comes_back_whole_or_not_at_all() {
        let one = |signal, items, payload: &'static [u8]| Derived {
            batch: Batch { signal, payload: payload.into(), items, context: Arc::default(), index: None },
            received: UnixNanos(9),
        };
        let told = [one(Signal::Metrics, 3, b"abc"), one(Signal::Logs, 1, b"")];
        let bytes = encode_outbox(7, &told);
        let (number, found) = decode_outbox(&bytes).unwrap();
        let plain = |told: &[Derived]| {
            told.iter()
                .map(|one| (one.batch.signal, one.batch.items, one.batch.payload.clone(), one.received))
                .collect::<Vec<_>>()
        };
        assert_eq!((number, plain(&found)), (7, plain(&told)));
        for cut in (0..bytes.len()).filter(|cut| ![8, 43].contains(cut)) {
            assert!(decode_outbox(&bytes[..cut]).is_none(), "{cut}");
        }
    }
}
