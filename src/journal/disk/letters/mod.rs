//! Dead letters on disk: one log for all signals, in segments as the topics have them, and beside it the requests to replay some.
//!
//! In:   letters, and word of those that were delivered after all.
//! Out:  the letters that are still held, in order.
//! Full: it has a room of its own, `journal::max_letters`; the oldest segment goes with all that is left in it.
//! Lost: what had to make room, or could not be written while the disk failed; counted and said by who appends.
//!
//! ```text
//! letters/FORMAT         the version; of a newer one nothing is touched
//! letters/BASE.log       records: a letter (source 0), or a list of letters that are settled (source 1: offset, items, bytes, u64 each)
//! letters/replays/       requests
//! ```
//!
//! A letter that came back is appended anew together with the word that the old one is settled: one write, so none is lost or there twice.

pub(super) mod note;
pub(super) mod requests;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::warn;

use super::{
    files::{Disk, read_whole, replace},
    format::{Meta, RECORD_BYTES_MAX, Stored},
    log::{Entry, Found, Log, OpenError, Options, ReadPlace, Segments, WriteError},
    nonces::Nonces,
    quota::Quota,
};
use crate::{
    journal::{Lag, Letter, LetterRef, Note, ReplayRequest},
    signal::{Batch, Signal, UnixNanos},
};
pub use requests::RequestFile;

pub(super) const FORMAT: &str = "weir letters 1\n";
/// What a record of the log is, where a topic's record says who appended it.
pub(super) const LETTER: u16 = 0;
pub(super) const SETTLED: u16 = 1;
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// Segments after a start.
const SEGMENTS_MAX: usize = 64;
/// Read at once.
const GROUP_BYTES: usize = 1 << 20;

/// Why letters cannot be written, or read.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// Larger than all the room there is for letters.
    #[error("it is larger than all the room for dead letters (`journal::max_letters`, --journal-max-letters)")]
    TooLarge,
    #[error("{0}")]
    Disk(String),
    #[error("{path}: {cause}")]
    Io { path: String, cause: io::Error },
}

/// How far a reader of letters is; at the first one by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    place: ReadPlace,
    next: u64,
}

/// The letters of a journal. Calls block; one thread writes.
pub struct LetterStore {
    directory: PathBuf,
    quota: Arc<Quota>,
    segments: Arc<Segments>,
    books: Mutex<Books>,
    log: Mutex<Log>,
}

/// What is held, by the first offset of each segment.
#[derive(Default)]
struct Books {
    segments: BTreeMap<u64, Held>,
    held: Lag,
}

/// What of a segment is held.
#[derive(Default)]
struct Held {
    lag: Lag,
    settled: Bits,
}

/// A set of small numbers.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Returns whether it was not in before.
    fn add(&mut self, number: u64) -> bool {
        let Ok(at) = usize::try_from(number / 64) else { return false };
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let Some(word) = self.0.get_mut(at) else { return false };
        let before = *word;
        *word |= 1 << (number % 64);
        *word != before
    }
}

impl Books {
    /// The segment in which a record would lie, with its base.
    fn of(&mut self, offset: u64) -> Option<(u64, &mut Held)> {
        self.segments.range_mut(..=offset).next_back().map(|(base, held)| (*base, held))
    }

    fn is_settled(&self, offset: u64) -> bool {
        let held = self.segments.range(..=offset).next_back();
        held.is_none_or(|(base, held)| held.settled.has(offset - base))
    }

    fn settle(&mut self, letter: &LetterRef) {
        let one = Lag { records: 1, items: letter.items, bytes: letter.bytes };
        // A segment that went made room; its letters are not counted any more.
        if let Some((base, held)) = self.of(letter.offset)
            && held.settled.add(letter.offset - base)
        {
            held.lag = held.lag.minus(one);
            self.held = self.held.minus(one);
        }
    }
}

/// Whether some segment (base → end) holds this offset.
fn lies_in(segments: &BTreeMap<u64, u64>, offset: u64) -> bool {
    segments.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
}

/// What opening found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FoundLetters {
    /// Records that are damaged.
    pub damaged: u64,
}

impl LetterStore {
    /// Opens or makes the directory, and takes stock. Segments in which nothing is settled are counted without being read.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        directory: PathBuf,
        sync: bool,
        bytes_max: u64,
        nonces: Nonces,
        now: UnixNanos,
    ) -> Result<(Self, FoundLetters), OpenError> {
        let quota = Arc::new(Quota::new(bytes_max));
        let segment_bytes = (bytes_max / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).next_multiple_of(4096);
        // Each record says its own signal.
        let options = Options { signal: Signal::Traces, shard: 0, segment_bytes, sync };
        let (log, recovered) = Log::open(disk.clone(), directory.clone(), options, quota.clone(), 0, nonces)?;
        let mut books = Books::default();
        for segment in log.segments.all() {
            let lag = segment.extent().sums.of(|source| source == LETTER);
            books.segments.insert(segment.base, Held { lag, settled: Bits::default() });
            books.held = books.held.plus(lag);
        }
        let io = |cause| OpenError::Io { path: directory.display().to_string(), cause };
        let segments: BTreeMap<u64, u64> =
            log.segments.all().iter().map(|segment| (segment.base, segment.extent().end)).collect();
        for segment in log.segments.all() {
            let extent = segment.extent();
            if extent.sums.of(|source| source == SETTLED).records == 0 {
                continue;
            }
            // A write that was torn by a power cut may have left what it settles and not what stands for that.
            let (mut place, mut whole_since) = (ReadPlace::start_of(segment.base), segment.base);
            while place.at < extent.len {
                for found in segment.chunk(&mut place, extent.len).map_err(io)? {
                    match found {
                        Found::Lost { to, .. } => whole_since = to,
                        Found::Record(stored) if stored.header.source == SETTLED => {
                            let before = stored.meta.first_chunk().map_or(0, |count| u64::from_le_bytes(*count));
                            if stored.header.offset.saturating_sub(before) >= whole_since {
                                // Of letters that are there: another one may get the offset of one that is gone.
                                let there = |letter: &LetterRef| {
                                    letter.offset < stored.header.offset && lies_in(&segments, letter.offset)
                                };
                                settled(&stored.payload).filter(there).for_each(|letter| books.settle(&letter));
                            }
                        }
                        Found::Record(_) => {}
                    }
                }
            }
        }
        let segments = log.segments.clone();
        let store = Self { directory, quota, segments, books: Mutex::new(books), log: Mutex::new(log) };
        store.retire();
        store.join(now);
        Ok((store, FoundLetters { damaged: recovered.lost_records }))
    }

    /// Appends letters, and settles others, all of it or nothing; synced in `durable` mode. Returns what had to make room for them.
    ///
    /// # Errors
    /// `TooLarge`: the letters do not fit into an empty room. Otherwise the disk's: it may pass.
    pub fn append(&self, letters: &[&Letter], gone: &[LetterRef], now: UnixNanos) -> Result<Lag, LettersError> {
        let mut entries: Vec<Entry> = letters.iter().map(|letter| entry(letter)).collect();
        if !gone.is_empty() {
            // With how many letters stand before it in this write: without them it does not count.
            let meta = (letters.len() as u64).to_le_bytes().to_vec();
            entries.push(Entry { source: SETTLED, received: now, items: 0, meta, payload: list(gone) });
        }
        let bytes: u64 = entries.iter().map(Entry::bytes).sum();
        if entries.iter().any(|entry| entry.bytes() > RECORD_BYTES_MAX) {
            return Err(LettersError::TooLarge);
        }
        let mut log = self.log.lock();
        let size = log.segment_bytes_for(bytes);
        if size > self.quota.bytes_max() {
            return Err(LettersError::TooLarge);
        }
        let mut evicted = Lag::default();
        let first = loop {
            let first = log.next();
            match log.append(&entries, now) {
                Ok(()) => break first,
                // Where there is room by our own account, it is the disk that is full.
                Err(WriteError::Full(message)) => {
                    let before = self.quota.used();
                    if before + size <= self.quota.bytes_max()
                        || !self.evict(&mut log, &mut evicted)
                        || self.quota.used() >= before
                    {
                        return Err(LettersError::Disk(message));
                    }
                }
                Err(error) => return Err(LettersError::Disk(error.to_string())),
            }
        };
        let mut books = self.books.lock();
        if let Some(segment) = log.segments.all().last() {
            let lag = letters.iter().fold(Lag::default(), |lag, letter| lag.plus(size_of(letter)));
            let held = books.segments.entry(segment.base).or_default();
            held.lag = held.lag.plus(lag);
            // Not letters, and never handed out as such.
            if !gone.is_empty() {
                held.settled.add(first + letters.len() as u64 - segment.base);
            }
            books.held = books.held.plus(lag);
        }
        for letter in gone {
            books.settle(letter);
        }
        drop(books);
        drop(log);
        self.retire();
        Ok(evicted)
    }

    /// Lets the oldest segment go. Returns whether there was one.
    fn evict(&self, log: &mut Log, evicted: &mut Lag) -> bool {
        let Some(oldest) = log.segments.all().into_iter().next() else { return false };
        if log.is_active(&oldest) {
            log.seal();
        }
        log.retire(oldest.extent().end, usize::MAX);
        log.drop_spare();
        let mut books = self.books.lock();
        if let Some(held) = books.segments.remove(&oldest.base) {
            books.held = books.held.minus(held.lag);
            *evicted = evicted.plus(held.lag);
        }
        true
    }

    /// Lets segments go from the front in which nothing is held.
    fn retire(&self) {
        let mut log = self.log.lock();
        let mut books = self.books.lock();
        if books.held.records == 0 {
            log.seal();
        }
        let mut upto = 0;
        for segment in log.segments.all() {
            let is_empty = books.segments.get(&segment.base).is_none_or(|held| held.lag.records == 0);
            if !is_empty || log.is_active(&segment) {
                break;
            }
            books.segments.remove(&segment.base);
            upto = segment.extent().end;
        }
        if upto > 0 {
            log.retire(upto, usize::MAX);
            log.drop_spare();
        }
    }

    /// Moves the letters of small segments into larger ones where there are many: each start begins a new one, and an open file is kept of each.
    fn join(&self, now: UnixNanos) {
        loop {
            let segments = self.segments.all();
            let Some(first) = segments.first().filter(|_| segments.len() > SEGMENTS_MAX) else { return };
            let (base, end) = (first.base, first.extent().end);
            let (mut reading, mut letters) = (Reading::default(), Vec::new());
            let joined = loop {
                match self.read(&mut reading, GROUP_BYTES, &|offset, _| offset < end) {
                    Ok(Some(some)) if reading.next <= end => letters.extend(some),
                    Ok(Some(some)) => {
                        letters.extend(some);
                        break Ok(());
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            let (gone, letters): (Vec<LetterRef>, Vec<Letter>) = letters.into_iter().unzip();
            let bytes: u64 = letters.iter().map(|letter| entry(letter).bytes()).sum();
            let has_room = self.quota.used() + self.log.lock().segment_bytes_for(bytes) <= self.quota.bytes_max();
            let joined = joined.and_then(|()| {
                if has_room { self.append(&letters.iter().collect::<Vec<_>>(), &gone, now).map(drop) } else { Ok(()) }
            });
            if let Err(error) = joined {
                warn!(%error, "dead letters could not be moved together; they are where they were");
                return;
            }
            // No room, or damaged: what is left of it stays.
            if self.segments.all().first().is_some_and(|first| first.base == base) {
                return;
            }
        }
    }

    /// What is held.
    pub fn held(&self) -> Lag {
        self.books.lock().held
    }

    /// Bytes on disk, and how many they may be.
    pub fn usage(&self) -> (u64, u64) {
        (self.quota.used(), self.quota.bytes_max())
    }

    /// The offset that the next letter gets.
    pub fn end(&self) -> u64 {
        self.log.lock().next()
    }

    /// The next letters that are held, of those that `takes` names: about `bytes_max` bytes are read. `None` at the end.
    ///
    /// # Errors
    /// The disk's. What is damaged is passed over and said.
    pub fn read(
        &self,
        reading: &mut Reading,
        bytes_max: usize,
        takes: &dyn Fn(u64, &Note) -> bool,
    ) -> Result<Option<Vec<(LetterRef, Letter)>>, LettersError> {
        let path = || self.directory.display().to_string();
        let before = reading.place;
        let found = self.segments.read(&mut reading.place, reading.next, bytes_max).inspect_err(|_| reading.place = before);
        let found = found.map_err(|cause| LettersError::Io { path: path(), cause })?;
        if found.is_empty() {
            return Ok(None);
        }
        let mut letters = Vec::new();
        for one in found {
            let stored = match one {
                Found::Record(stored) => stored,
                Found::Lost { offset, to, path, at, .. } => {
                    // Where whole segments are missing they made room.
                    if at > 0 {
                        warn!(file = %path.display(), at, offset, to, "damage in the dead letters: these cannot be read");
                    }
                    reading.next = to;
                    continue;
                }
            };
            let offset = stored.header.offset;
            reading.next = offset + 1;
            if stored.header.source == LETTER
                && !self.books.lock().is_settled(offset)
                && let Some(letter) = letter(stored)
                && takes(offset, &letter.note)
            {
                let Lag { items, bytes, .. } = size_of(&letter);
                letters.push((LetterRef { offset, items, bytes }, letter));
            }
        }
        Ok(Some(letters))
    }

    /// The requests to replay letters; `None`: one that this weir cannot read.
    pub fn requests(&self) -> Result<Vec<(RequestFile, Option<ReplayRequest>)>, LettersError> {
        let directory = requests_in(&self.directory);
        requests::all(&directory).map_err(|cause| LettersError::Io { path: directory.display().to_string(), cause })
    }
}

fn size_of(letter: &Letter) -> Lag {
    Lag { records: 1, items: letter.batch.items, bytes: letter.batch.payload.len() as u64 }
}

fn entry(letter: &Letter) -> Entry {
    let mut meta = Vec::new();
    Meta::encode_letter(&letter.batch.context, letter.batch.signal, &letter.note, &mut meta);
    let (items, payload) = (letter.batch.items, letter.batch.payload.clone());
    Entry { source: LETTER, received: letter.received, items, meta, payload }
}

/// `None`: what stands beside it cannot be read.
fn letter(stored: Stored) -> Option<Letter> {
    let Meta { context, letter, .. } = Meta::decode(&stored.meta)?;
    let (signal, note) = letter?;
    // Of its own: a piece that was read may be a thousand times as large.
    let payload = Bytes::copy_from_slice(&stored.payload);
    let batch = Batch { signal, payload, items: stored.header.items, context: Arc::new(context), index: None };
    Some(Letter { note, received: stored.header.received, batch })
}

fn list(letters: &[LetterRef]) -> Bytes {
    letters.iter().flat_map(|letter| [letter.offset, letter.items, letter.bytes]).flat_map(u64::to_le_bytes).collect()
}

/// What a record of settled letters lists.
pub(super) fn settled(payload: &[u8]) -> impl Iterator<Item = LetterRef> {
    payload.as_chunks::<24>().0.iter().map(|entry| {
        let number = |at: usize| entry.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        LetterRef { offset: number(0), items: number(8), bytes: number(16) }
    })
}

/// Where requests lie.
pub(super) fn requests_in(letters: &Path) -> PathBuf {
    letters.join("replays")
}

/// `Some`: letters of another version are there.
pub(super) fn look_at_format(disk: &dyn Disk, directory: &Path) -> io::Result<Option<String>> {
    let found = read_whole(disk, &directory.join("FORMAT"), 4096)?.filter(|found| found != FORMAT.as_bytes());
    Ok(found.map(|found| String::from_utf8_lossy(&found).chars().take(40).collect()))
}

/// Writes the version down where there is none.
pub(super) fn write_format(disk: &dyn Disk, directory: &Path, sync: bool) -> io::Result<()> {
    let path = directory.join("FORMAT");
    match read_whole(disk, &path, 4096)? {
        None => replace(disk, &path, FORMAT.as_bytes(), sync),
        Some(_) => Ok(()),
    }
}
