//! What was made last of each log that connectors read, so that after a crash they do not make it again.
//!
//! It is kept in memory as records are appended. A file beside the segments says it up to some offset; a start goes through the records from there on.
//! The file is written when a segment was begun, so that they are few, and before any is let go, so that none is missing. One entry a reader, topic and
//! shard: it does not grow with the records.

use std::io;

use tracing::{info, warn};

use super::{
    format::Meta,
    log::{Found, ReadPlace, Segments},
    names::Names,
    state::{StateError, StateFile},
};
use crate::journal::{Derivation, LastDerived, Position};

/// Of one shard of a derived topic.
pub(super) struct Derivations {
    file: StateFile,
    known: Vec<LastDerived>,
    /// Records below are in the file.
    pub(super) written: u64,
}

impl Derivations {
    /// Reads the file, and the records that are newer. `next`: the offset that the next record gets.
    pub(super) fn open(file: StateFile, segments: &Segments, next: u64, names: &Names) -> io::Result<Self> {
        let (written, known) = match file.read() {
            Ok(bytes) => bytes.and_then(|bytes| decode(&bytes, names)).unwrap_or_default(),
            Err(StateError::Io { cause, .. }) => return Err(cause),
            Err(error @ StateError::Damaged { .. }) => {
                warn!(%error, "every record is looked through for what was made last");
                Default::default()
            }
        };
        // Where records are gone, others will have their offsets.
        let mut derivations = Self { file, known, written: written.min(next) };
        let mut bytes = 0;
        for segment in segments.all() {
            let extent = segment.extent();
            if extent.end <= written {
                continue;
            }
            let mut place = ReadPlace::start_of(segment.base);
            while place.at < extent.len {
                for one in segment.chunk(&mut place, extent.len)? {
                    let Found::Record(stored) = one else { continue };
                    if stored.header.offset < written {
                        continue;
                    }
                    if let Some(from) = Meta::decode(&stored.meta).and_then(|meta| derivation(&meta, names)) {
                        derivations.note(&from);
                    }
                }
            }
            bytes += extent.len;
        }
        if bytes > 1 << 30 {
            info!(file = %derivations.file.path().display(), bytes, "looked through all these records for what was made last");
        }
        Ok(derivations)
    }

    /// A record was appended that was made from this one.
    pub(super) fn note(&mut self, from: &Derivation) {
        match self.known.iter_mut().find(|known| is_of_one_log(&known.from, from)) {
            Some(known) if known.from.position == from.position => known.records += 1,
            Some(known) => (known.from.position, known.records) = (from.position, 1),
            None => self.known.push(LastDerived { from: from.clone(), records: 1 }),
        }
    }

    pub(super) fn last(&self) -> Vec<LastDerived> {
        self.known.clone()
    }

    /// Writes down what is known of all records below `end`.
    pub(super) fn write(&mut self, end: u64, names: &Names) -> Result<(), StateError> {
        if self.written < end {
            self.file.write(&encode(end, &self.known, names))?;
            self.written = end;
        }
        Ok(())
    }
}

/// What a record says that it was made from, where that is still known here.
pub(super) fn derivation(meta: &Meta, names: &Names) -> Option<Derivation> {
    let (topic, shard, offset) = meta.derived_from.as_ref()?;
    let position = Position { topic: names.topic(topic)?, shard: *shard, offset: *offset };
    Some(Derivation { reader: meta.reader.as_deref()?.into(), position })
}

fn is_of_one_log(a: &Derivation, b: &Derivation) -> bool {
    (a.position.topic, a.position.shard, &a.reader) == (b.position.topic, b.position.shard, &b.reader)
}

/// The end u64, then each: offset u64, records u64, shard u16, and reader and topic, each with its length u32.
fn encode(end: u64, known: &[LastDerived], names: &Names) -> Vec<u8> {
    let mut out = end.to_le_bytes().to_vec();
    for LastDerived { from, records } in known {
        out.extend_from_slice(&from.position.offset.to_le_bytes());
        out.extend_from_slice(&(*records as u64).to_le_bytes());
        out.extend_from_slice(&from.position.shard.to_le_bytes());
        for text in [&*from.reader, &*names.topic_name(from.position.topic)] {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn decode(bytes: &[u8], names: &Names) -> Option<(u64, Vec<LastDerived>)> {
    let (end, mut rest) = bytes.split_first_chunk::<8>()?;
    let mut known = Vec::new();
    while !rest.is_empty() {
        let mut take = |len: usize| {
            let (taken, behind) = rest.split_at_checked(len)?;
            rest = behind;
            Some(taken)
        };
        let offset = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let records = usize::try_from(u64::from_le_bytes(take(8)?.try_into().ok()?)).ok()?;
        let shard = u16::from_le_bytes(take(2)?.try_into().ok()?);
        let mut text = || {
            let len = usize::try_from(u32::from_le_bytes(take(4)?.try_into().ok()?)).ok()?;
            std::str::from_utf8(take(len)?).ok()
        };
        let (reader, topic) = (text()?, text()?);
        // Nothing is read from a topic that is gone.
        if let Some(topic) = names.topic(topic) {
            let from = Derivation { reader: reader.into(), position: Position { topic, shard, offset } };
            known.push(LastDerived { from, records });
        }
    }
    Some((u64::from_le_bytes(*end), known))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc};

    use tempfile::TempDir;
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        journal::{
            Directory, LagBound, NewRecord, OnOverflow, Persistence, Settled, Shard as _, SourceId, Sources, Subscriber, Topic,
            TopicId,
        },
        runtime::Clock,
        signal::{Batch, Signal, UnixNanos},
    };

    /// A life in which records are made from these (shard, offset) of the topic `traces`, and perhaps all there are delivered. Returns what was
    /// known of earlier lives: (shard, offset, records).
    async fn life(path: &Path, made_from: &[(u16, u64)], delivers: bool) -> Vec<(u16, u64, usize)> {
        let wish = Persistence {
            directory: path.to_owned(),
            sync: true,
            bytes_max: Some(64 << 20),
            letters_bytes_max: None,
            shards: 1,
            offset_reset: crate::journal::OffsetReset::Latest,
        };
        let names = vec!["traces".to_owned(), "traces/forward".to_owned()];
        let directory = Directory::open(&wish, names.clone(), &["forward".to_owned()], Clock::new(|| UnixNanos(1))).unwrap();
        let (id, room) = (TopicId(1), Arc::new(Notify::new()));
        let shard = directory.shard(id, &names[1], Signal::Traces, 0, 1 << 40, room.clone()).unwrap();
        let topic = Topic::of(id, names[1].clone(), Signal::Traces, room, vec![shard.clone()]);
        let mut known: Vec<_> =
            topic.derived().iter().map(|last| (last.from.position.shard, last.from.position.offset, last.records)).collect();
        known.sort_unstable();
        let mut cursor = topic.cursor(&Subscriber {
            name: "reader".into(),
            sources: Sources::of([SourceId(0)]),
            bound: LagBound::NONE,
            on_overflow: OnOverflow::HoldDoor,
            is_stateful: false,
        });
        for (shard, offset) in made_from {
            let payload = vec![0; 10].into();
            let batch = Batch { signal: Signal::Traces, payload, items: 1, context: Arc::default(), index: None };
            let position = Position { topic: TopicId(0), shard: *shard, offset: *offset };
            let derived_from = Some(Derivation { reader: "traces".into(), position });
            let new = NewRecord { source: SourceId(0), received: UnixNanos(1), batch, derived_from };
            topic.append_derived(0, new).await.unwrap();
        }
        if delivers {
            let mut records = Vec::new();
            while cursor.has_unread() {
                cursor.read(1000, 1 << 20, &mut records);
            }
            for record in &records {
                cursor.settle(record.position, &Settled::delivered(1));
            }
        }
        shard.close();
        known
    }

    #[tokio::test]
    async fn what_was_made_long_ago_is_known_with_the_file_and_without() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("topics/traces%2fforward/0/derivations");
        life(directory.path(), &[(1, 7), (1, 8), (1, 8)], false).await;
        let mut older = Vec::new();
        for offset in 0..5 {
            let known = life(directory.path(), &[(0, offset)], false).await;
            let expected = if offset == 0 { vec![(1, 8, 2)] } else { vec![(0, offset - 1, 1), (1, 8, 2)] };
            assert_eq!(known, expected);
            if offset % 2 == 0 {
                fs::remove_file(&file).unwrap();
            } else {
                older = fs::read(&file).unwrap();
            }
        }
        // An older one: the records behind it tell the rest.
        life(directory.path(), &[(1, 9)], false).await;
        fs::write(&file, older).unwrap();
        assert_eq!(life(directory.path(), &[], false).await, [(0, 4, 1), (1, 9, 1)]);
    }

    #[tokio::test]
    async fn what_was_made_and_is_delivered_and_gone_is_known() {
        let directory = TempDir::new().unwrap();
        life(directory.path(), &[(1, 7)], true).await;
        for offset in 0..4 {
            life(directory.path(), &[(0, offset)], true).await;
        }
        let segments = directory.path().join("topics/traces%2fforward/0");
        let logs = fs::read_dir(segments).unwrap().filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
        });
        assert!(logs.count() < 3, "segments are let go");
        assert_eq!(life(directory.path(), &[], true).await, [(0, 3, 1), (1, 7, 1)]);
    }
}
