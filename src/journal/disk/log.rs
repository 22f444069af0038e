//! One shard's segments: appended to by one writer, read by many, recovered at start. Knows nothing of consumers.
//!
//! A segment is sealed when it is full or cannot be trusted any more. What a sealed segment holds stands in a small file beside it, and only that
//! much of it counts: bytes behind are room set aside, or a group that was refused. Records at or above the base of the next segment do not count
//! either. What is damaged is passed over and said; what is whole is never thrown away.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::{error, warn};

use super::{
    files::{Disk, DiskFile, read_whole, replace},
    format::{
        HeaderError, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, Stored, body_sum,
        find_record, nonce_of,
    },
    nonces::Nonces,
    quota::Quota,
};
use crate::{
    journal::Lag,
    signal::{Signal, UnixNanos},
};

/// Read at once from a segment where all of it is wanted.
const CHUNK_BYTES: usize = 1 << 20;
/// Read at least for a consumer, whatever it asks for: what it does not take is read again.
const PIECE_BYTES_MIN: usize = 64 << 10;
/// Consumed files that a shard keeps to write over: what is let go at once under load.
const SPARES_MAX: usize = 4;
/// So many and a shard has one for the segment after the next: it need not wait for what was consumed.
const SPARES_ENOUGH: usize = 2;

/// How a shard's segments are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) signal: Signal,
    pub(super) shard: u16,
    pub(super) segment_bytes: u64,
    /// Sync before an append is done.
    pub(super) sync: bool,
}

/// Amounts by source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sums(Vec<(u16, Lag)>);

impl Sums {
    pub(super) fn each(&self) -> impl Iterator<Item = (u16, Lag)> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn add(&mut self, header: &RecordHeader) {
        let one = Lag { records: 1, items: header.items, bytes: u64::from(header.payload_len) };
        match self.0.iter_mut().find(|(source, _)| *source == header.source) {
            Some((_, sum)) => *sum = sum.plus(one),
            None => self.0.push((header.source, one)),
        }
    }

    pub(super) fn of(&self, takes: impl Fn(u16) -> bool) -> Lag {
        self.0.iter().filter(|(source, _)| takes(*source)).fold(Lag::default(), |all, (_, sum)| all.plus(*sum))
    }
}

/// What of a segment counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The offset behind the last record.
    pub(super) end: u64,
    /// Bytes up to the end of the last record.
    pub(super) len: u64,
    /// Items of this shard up to there.
    pub(super) items: u64,
    pub(super) sums: Sums,
}

impl Extent {
    /// Items of this shard before the segment.
    fn items_before(&self) -> u64 {
        self.items.saturating_sub(self.sums.of(|_| true).items)
    }
}

pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) base: u64,
    nonce: u64,
    /// On disk, room set aside included.
    bytes: u64,
    file: Arc<dyn DiskFile>,
    extent: Mutex<Extent>,
    /// Its blocks were not there before it: each sync of it writes metadata of the file system, too.
    is_raw: bool,
    /// Writing to it failed, or it was left half written: it is not written over.
    is_spent: AtomicBool,
}

impl Segment {
    /// One to be looked at, of which nothing counts yet.
    pub(super) fn new(path: PathBuf, header: &SegmentHeader, bytes: u64, file: Arc<dyn DiskFile>) -> Self {
        let extent = Extent { end: header.base, len: SEGMENT_HEADER_BYTES as u64, items: 0, sums: Sums::default() };
        Self {
            path,
            base: header.base,
            nonce: header.nonce,
            bytes,
            file,
            extent: Mutex::new(extent),
            is_raw: false,
            is_spent: AtomicBool::new(false),
        }
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent.lock().clone()
    }
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReadPlace {
    base: u64,
    pub(super) at: u64,
    /// The next offset.
    pub(super) offset: u64,
    items: Option<u64>,
}

impl ReadPlace {
    /// Where the segment with this base begins.
    pub(super) fn start_of(base: u64) -> Self {
        Self { base, at: SEGMENT_HEADER_BYTES as u64, offset: base, items: None }
    }

    /// The place of something that was found on the way to this one, in the same segment.
    pub(super) fn back_to(&self, found: &Found) -> Self {
        match found {
            Found::Record(Stored { header, end, .. }) => Self {
                base: self.base,
                at: end.saturating_sub(header.bytes()),
                offset: header.offset,
                items: Some(header.items_before),
            },
            // It is found anew from the start.
            Found::Lost { .. } => Self::start_of(self.base),
        }
    }
}

/// What a reader finds.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Record(Stored),
    /// Records from `offset` up to `to` are damaged; so many items, where that can be told.
    Lost {
        offset: u64,
        to: u64,
        items: Option<u64>,
        path: PathBuf,
        at: u64,
    },
}

/// Records from `offset` up to `to` that cannot be read, at `at` of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecords {
    pub offset: u64,
    pub to: u64,
    /// Where that can be told.
    pub items: Option<u64>,
    pub path: PathBuf,
    pub at: u64,
}

/// The segments, as readers see them.
#[derive(Default)]
pub(super) struct Segments(Mutex<VecDeque<Arc<Segment>>>);

impl Segments {
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.0.lock().iter().cloned().collect()
    }

    /// The oldest offset that is there.
    pub(super) fn first(&self) -> Option<u64> {
        self.0.lock().front().map(|segment| segment.base)
    }

    /// The file in which `offset` lies.
    pub(super) fn path_of(&self, offset: u64) -> PathBuf {
        self.holding(offset).map_or_else(PathBuf::new, |segment| segment.path.clone())
    }

    /// The segment in which `offset` lies, or the first one behind it.
    fn holding(&self, offset: u64) -> Option<Arc<Segment>> {
        self.0.lock().iter().find(|segment| segment.extent.lock().end > offset).cloned()
    }

    /// Reads on from `offset`: a piece of about `bytes_max` bytes, at least one record if there is one. An error is the disk's.
    pub(super) fn read(&self, place: &mut ReadPlace, offset: u64, bytes_max: usize) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let Some(segment) = self.holding(offset) else { return Ok(found) };
        if place.base != segment.base || place.offset > offset || place.at < SEGMENT_HEADER_BYTES as u64 {
            *place = ReadPlace::start_of(segment.base);
        }
        let (from, len) = (offset.max(segment.base), segment.extent.lock().len);
        if offset < segment.base {
            // Whole segments are missing. The headers count all items before them.
            let before = self.0.lock().iter().map(|segment| segment.extent()).rfind(|extent| extent.end == offset);
            let items = before.map(|before| segment.extent().items_before().saturating_sub(before.items));
            found.push(Found::Lost { offset, to: segment.base, items, path: segment.path.clone(), at: 0 });
        }
        while place.at < len && found.is_empty() {
            found = segment.piece(place, len, bytes_max.clamp(PIECE_BYTES_MIN, CHUNK_BYTES))?;
            // What lies on the way from the start of the segment to where the reader stands.
            found.retain(|one| match one {
                Found::Record(stored) => stored.header.offset >= from,
                Found::Lost { to, .. } => *to > from,
            });
        }
        let end = segment.extent.lock().end;
        if place.at >= len && place.offset < end {
            found.push(Found::Lost { offset: place.offset, to: end, items: None, path: segment.path.clone(), at: place.at });
            place.offset = end;
        }
        Ok(found)
    }

    /// What lies from `offset` on and below `to`, of the sources that `takes` names.
    pub(super) fn lag(&self, offset: u64, to: u64, takes: impl Fn(u16) -> bool) -> io::Result<Lag> {
        let mut lag = Lag::default();
        for segment in self.all() {
            let extent = segment.extent();
            if segment.base >= to {
                break;
            }
            if offset <= segment.base && extent.end <= to {
                lag = lag.plus(extent.sums.of(&takes));
            } else if offset < extent.end {
                let mut place = ReadPlace::start_of(segment.base);
                while place.at < extent.len && place.offset < to {
                    for one in segment.chunk(&mut place, extent.len)? {
                        if let Found::Record(stored) = one
                            && (offset..to).contains(&stored.header.offset)
                            && takes(stored.header.source)
                        {
                            lag = lag.plus(Lag { records: 1, items: stored.header.items, bytes: stored.payload.len() as u64 });
                        }
                    }
                }
            }
        }
        Ok(lag)
    }
}

impl Segment {
    /// The records of the next piece of the segment, and what is damaged between them.
    pub(super) fn chunk(&self, place: &mut ReadPlace, len: u64) -> io::Result<Vec<Found>> {
        self.piece(place, len, CHUNK_BYTES)
    }

    /// The same of a piece of `want` bytes, or of one record where that is longer.
    fn piece(&self, place: &mut ReadPlace, len: u64, mut want: usize) -> io::Result<Vec<Found>> {
        loop {
            let left = usize::try_from(len - place.at).unwrap_or(usize::MAX);
            let asked = want.min(left);
            let mut buffer = vec![0; asked];
            let read = self.file.read_at(&mut buffer, place.at)?;
            buffer.truncate(read);
            if read == 0 {
                // Cut off behind our back.
                place.at = len;
                return Ok(Vec::new());
            }
            // Less than was asked for: it was cut off, and there is no more.
            let is_all = read == left || read < asked;
            let scanned = scan(self.nonce, &Bytes::from(buffer), is_all, place, &self.path);
            match scanned {
                Scanned::Found(found) => return Ok(found),
                Scanned::Longer(bytes) => want = bytes,
            }
        }
    }
}

enum Scanned {
    Found(Vec<Found>),
    /// The first record is longer than what was read.
    Longer(usize),
}

/// Takes records off `bytes`, which begin at `place`, and moves the place behind them. `is_all`: nothing counts behind `bytes`.
fn scan(nonce: u64, bytes: &Bytes, is_all: bool, place: &mut ReadPlace, path: &Path) -> Scanned {
    let mut found = Vec::new();
    let mut at = 0;
    let begun = place.at;
    // Where damage began that is not over yet.
    let mut bad: Option<usize> = None;
    loop {
        let header =
            bytes.get(at..).and_then(|rest| RecordHeader::decode(nonce, rest)).filter(|header| header.offset >= place.offset);
        let Some(header) = header else {
            let rest = bytes.len() - at;
            if rest < RECORD_HEADER_BYTES && !is_all && at > 0 {
                // Perhaps a header that is cut by the end of the piece.
                break;
            }
            bad.get_or_insert(at);
            match find_record(nonce, bytes, at + 8) {
                Some(next) => at = next,
                None if is_all => {
                    // Nothing whole behind: room that was set aside, or a torn tail. Whoever knows the extent tells which.
                    place.at = begun + bytes.len() as u64;
                    return Scanned::Found(found);
                }
                None => {
                    // Go on behind, but not behind a header that the end of the piece may cut.
                    at = (bytes.len().saturating_sub(RECORD_HEADER_BYTES) / 8 * 8).max(at + 8).min(bytes.len());
                    break;
                }
            }
            continue;
        };
        let total = usize::try_from(header.bytes()).unwrap_or(usize::MAX);
        let Some(record) = bytes.get(at..at.saturating_add(total)) else {
            if at == 0 && !is_all {
                return Scanned::Longer(total);
            }
            if !is_all {
                break;
            }
            // Cut off.
            place.at = begun + bytes.len() as u64;
            return Scanned::Found(found);
        };
        let body = record.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        let (meta, rest) = body.split_at((header.meta_len as usize).min(body.len()));
        let payload = rest.get(..header.payload_len as usize).unwrap_or_default();
        if header.offset > place.offset {
            let items = place.items.map(|items| header.items_before.saturating_sub(items));
            found.push(Found::Lost {
                offset: place.offset,
                to: header.offset,
                items,
                path: path.to_owned(),
                at: begun + bad.unwrap_or(at) as u64,
            });
        }
        bad = None;
        if body_sum(meta, payload) == header.body_sum {
            let end = begun + (at + total) as u64;
            found.push(Found::Record(Stored { header, meta: bytes.slice_ref(meta), payload: bytes.slice_ref(payload), end }));
        } else {
            let (offset, items) = (header.offset, Some(header.items));
            found.push(Found::Lost { offset, to: offset + 1, items, path: path.to_owned(), at: begun + at as u64 });
        }
        place.offset = header.offset + 1;
        place.items = Some(header.items_before + header.items);
        at += total;
        if at >= bytes.len() {
            break;
        }
    }
    place.at = begun + at as u64;
    Scanned::Found(found)
}

/// A record to be appended.
pub(super) struct Entry {
    pub(super) source: u16,
    pub(super) received: UnixNanos,
    pub(super) items: u64,
    pub(super) meta: Vec<u8>,
    pub(super) payload: Bytes,
}

impl Entry {
    /// On disk.
    pub(super) fn bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES + self.meta.len() + self.payload.len()).next_multiple_of(8) as u64
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The quota is used up, or the disk is.
    #[error("{0}")]
    Full(String),
    #[error("{path}: {cause}")]
    Disk { path: String, cause: io::Error },
}

/// A consumed file. It stays open, so that it can be removed without waiting for its room to be freed.
struct Spare {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

/// The writer's side.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: Options,
    quota: Arc<Quota>,
    pub(super) segments: Arc<Segments>,
    active: Option<Arc<Segment>>,
    /// Consumed files to be written over: their blocks and pages are there already, and a sync writes nothing but the data.
    spares: Vec<Spare>,
    /// The fewest that there were since the last were let go: so many were not needed.
    spares_least: usize,
    /// Some of those that may go are gone, and not all.
    is_retiring: bool,
    /// Files that count and that nobody needs, but which could not be removed: tried again.
    left: Vec<(PathBuf, u64)>,
    next: u64,
    items: u64,
    nonces: Nonces,
    headers: Vec<u8>,
}

/// What recovery found wrong; for the log and for the books.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Items in damaged records whose header could be read.
    pub(super) lost_items: u64,
    pub(super) lost_records: u64,
}

impl Recovered {
    fn note(&mut self, lost: &Found) {
        let Found::Lost { offset, to, items, path, at } = lost else { return };
        self.lost_records += to - offset;
        self.lost_items += items.unwrap_or(0);
        warn!(
            file = %path.display(), at, offset, to, items,
            "damage in the journal: the records from `offset` up to `to` are lost; what is whole around them is kept"
        );
    }
}

pub(super) fn segment_name(base: u64) -> String {
    format!("{base:020}.log")
}

fn base_of(stem: &str) -> Option<u64> {
    stem.parse().ok().filter(|base| format!("{base:020}") == stem)
}

impl Log {
    /// Opens a shard's directory and takes stock of what is in it. `end_min`: no offset below it is given out again.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        options: Options,
        quota: Arc<Quota>,
        end_min: u64,
        mut nonces: Nonces,
    ) -> Result<(Self, Recovered), OpenError> {
        let io = |cause| OpenError::Io { path: directory.display().to_string(), cause };
        let (mut bases, mut extents) = (Vec::new(), Vec::new());
        for name in disk.list(&directory).map_err(io)? {
            let path = directory.join(&name);
            if let Some(base) = name.strip_suffix(".log").and_then(base_of) {
                bases.push(base);
            } else if let Some(base) = name.strip_suffix(".extent").and_then(base_of) {
                extents.push((base, path));
            } else if matches!(path.extension().and_then(|extension| extension.to_str()), Some("spare" | "new")) {
                disk.remove(&path).map_err(io)?;
            }
        }
        bases.sort_unstable();
        for (base, path) in extents {
            // Also where its segment is gone: what is begun from now on must not look like what it tells of.
            if let Some((nonce, _)) = extent_beside(&*disk, &path).map_err(io)? {
                nonces.found(nonce);
            }
            if bases.binary_search(&base).is_err() {
                disk.remove(&path).map_err(io)?;
            }
        }
        let mut recovered = Recovered::default();
        let mut segments: VecDeque<Arc<Segment>> = VecDeque::new();
        for (number, base) in bases.iter().enumerate() {
            let path = directory.join(segment_name(*base));
            let limit = bases.get(number + 1).copied().unwrap_or(u64::MAX);
            let Some(segment) = recover(&*disk, &path, *base, limit, options, &mut recovered)? else { continue };
            if let Some(before) = segments.back().map(|before| before.extent()).filter(|before| before.end < *base) {
                let items = Some(segment.extent().items_before().saturating_sub(before.items));
                recovered.note(&Found::Lost { offset: before.end, to: *base, items, path, at: 0 });
            }
            nonces.found(segment.nonce);
            quota.force(segment.bytes);
            segments.push_back(Arc::new(segment));
        }
        let last = segments.back().map(|segment| segment.extent());
        if let Some(last) = last.as_ref().filter(|last| last.end < end_min) {
            let path = directory.join(segment_name(last.end));
            recovered.note(&Found::Lost { offset: last.end, to: end_min, items: None, path, at: 0 });
        }
        let next = last.as_ref().map_or(0, |extent| extent.end).max(end_min);
        let items = last.map_or(0, |extent| extent.items);
        let log = Self {
            disk,
            directory,
            options,
            quota,
            segments: Arc::new(Segments(Mutex::new(segments))),
            active: None,
            spares: Vec::new(),
            spares_least: 0,
            is_retiring: false,
            left: Vec::new(),
            next,
            items,
            nonces,
            headers: Vec::new(),
        };
        Ok((log, recovered))
    }

    /// The offset that the next record gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Appends a group, and syncs it where that is asked for. All of it is in, or none.
    pub(super) fn append(&mut self, group: &[Entry], now: UnixNanos) -> Result<(), WriteError> {
        let mut headers = std::mem::take(&mut self.headers);
        let done = self.append_with(group, &mut headers, now);
        headers.clear();
        self.headers = headers;
        done
    }

    fn append_with(&mut self, group: &[Entry], headers: &mut Vec<u8>, now: UnixNanos) -> Result<(), WriteError> {
        let bytes: u64 = group.iter().map(Entry::bytes).sum();
        if let Some(entry) = group.iter().find(|entry| entry.bytes() > RECORD_BYTES_MAX) {
            // Its length would be taken for damage. Whoever appends looks first.
            return Err(WriteError::Full(format!("a record of {} bytes is too long for the journal", entry.bytes())));
        }
        let segment = self.room_for(bytes, now)?;
        let extent = segment.extent();
        let (mut sums, mut offset, mut items) = (extent.sums, self.next, self.items);
        for entry in group {
            let header = RecordHeader {
                payload_len: entry.payload.len() as u32,
                meta_len: entry.meta.len() as u32,
                body_sum: body_sum(&entry.meta, &entry.payload),
                source: entry.source,
                offset,
                received: entry.received,
                items: entry.items,
                items_before: items,
            };
            header.encode(segment.nonce, headers);
            sums.add(&header);
            offset += 1;
            items += entry.items;
        }
        const PADDING: [u8; 8] = [0; 8];
        let mut slices = Vec::with_capacity(group.len() * 4);
        for (header, entry) in headers.chunks_exact(RECORD_HEADER_BYTES).zip(group) {
            let len = RECORD_HEADER_BYTES + entry.meta.len() + entry.payload.len();
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&entry.meta));
            slices.push(IoSlice::new(&entry.payload));
            slices.push(IoSlice::new(PADDING.get(..len.next_multiple_of(8) - len).unwrap_or_default()));
        }
        let written = segment
            .file
            .write_at(&mut slices, extent.len)
            .and_then(|()| if self.options.sync { segment.file.sync() } else { Ok(()) });
        if let Err(cause) = written {
            // What of the group is on disk is not known, and the kernel may call it clean: the file is not written to or synced again.
            segment.is_spent.store(true, Ordering::Relaxed);
            self.seal();
            let path = segment.path.display().to_string();
            error!(file = path, error = %cause, "writing to the journal failed: this segment is closed, its last group was refused");
            return Err(if is_full(&cause) { WriteError::Full(cause.to_string()) } else { WriteError::Disk { path, cause } });
        }
        *segment.extent.lock() = Extent { end: offset, len: extent.len + bytes, items, sums };
        (self.next, self.items) = (offset, items);
        Ok(())
    }

    /// What a segment takes that begins with a group of so many bytes.
    pub(super) fn segment_bytes_for(&self, bytes: u64) -> u64 {
        self.options.segment_bytes.max(SEGMENT_HEADER_BYTES as u64 + bytes).next_multiple_of(4096)
    }

    /// Where the segment begins that is written to.
    pub(super) fn active_base(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.base)
    }

    /// Whether it is the segment that is written to.
    pub(super) fn is_active(&self, segment: &Arc<Segment>) -> bool {
        self.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, segment))
    }

    /// The active segment, or a new one where the group does not fit.
    fn room_for(&mut self, bytes: u64, now: UnixNanos) -> Result<Arc<Segment>, WriteError> {
        if let Some(active) = &self.active {
            if active.extent.lock().len + bytes > active.bytes {
                self.seal();
            } else if active.is_raw && self.spares.len() >= SPARES_ENOUGH && bytes <= self.options.segment_bytes {
                // Its readers have caught up with so much that what is left of it is not worth its slower syncs.
                active.is_spent.store(true, Ordering::Relaxed);
                self.seal();
            } else {
                return Ok(active.clone());
            }
        }
        let size = self.segment_bytes_for(bytes);
        let header = SegmentHeader {
            signal: self.options.signal,
            shard: self.options.shard,
            base: self.next,
            nonce: self.nonces.next(),
            created: now,
        };
        let path = self.directory.join(segment_name(self.next));
        let failed = |cause: io::Error| {
            let path = path.display().to_string();
            if is_full(&cause) { WriteError::Full(format!("{path}: {cause}")) } else { WriteError::Disk { path, cause } }
        };
        // A segment of which nothing counted may stand in the way.
        self.tidy();
        if self.left.iter().any(|(left, _)| *left == path) {
            return Err(failed(io::Error::other("what is left there cannot be removed")));
        }
        drop(self.disk.remove(&path));
        let (file, is_raw) = self.new_file(&path, size).map_err(|error| match error {
            NewFile::Quota(message) => WriteError::Full(message),
            NewFile::Io(cause) => failed(cause),
        })?;
        let begun = file.write_at(&mut [IoSlice::new(&header.encode())], 0).and_then(|()| {
            if self.options.sync { file.sync().and_then(|()| self.disk.sync_directory(&self.directory)) } else { Ok(()) }
        });
        if let Err(cause) = begun {
            let failed = failed(cause);
            self.discard(path, size);
            return Err(failed);
        }
        let extent = Extent { end: self.next, len: SEGMENT_HEADER_BYTES as u64, items: self.items, sums: Sums::default() };
        let segment = Arc::new(Segment {
            path,
            base: self.next,
            nonce: header.nonce,
            bytes: size,
            file,
            extent: Mutex::new(extent),
            is_raw,
            is_spent: AtomicBool::new(false),
        });
        self.segments.0.lock().push_back(segment.clone());
        self.active = Some(segment.clone());
        self.quota.begin();
        Ok(segment)
    }

    /// Also returns whether its blocks are new.
    fn new_file(&mut self, path: &Path, size: u64) -> Result<(Arc<dyn DiskFile>, bool), NewFile> {
        if size == self.options.segment_bytes
            && let Some(spare) = self.take_spare()
        {
            match self.disk.rename(&spare.path, path) {
                Ok(()) => return Ok((spare.file, false)),
                Err(_) => self.discard(spare.path, size),
            }
        }
        if let Err(full) = self.quota.take(size) {
            // Perhaps that is what the spare files take, which are too short for this one.
            if self.spares.is_empty() {
                return Err(NewFile::Quota(full));
            }
            self.drop_spares();
            self.quota.take(size).map_err(NewFile::Quota)?;
        }
        let created = self.disk.create(path, size).map_err(|error| {
            self.quota.give_back(size);
            NewFile::Io(error)
        })?;
        Ok((created, true))
    }

    /// Closes the active segment: says beside it what of it counts. Where nothing does it goes, and its name is the next one's.
    pub(super) fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        let extent = active.extent();
        if extent.end == active.base {
            self.segments.0.lock().retain(|segment| !Arc::ptr_eq(segment, &active));
            self.discard(active.path.clone(), active.bytes);
            return;
        }
        if let Err(error) = write_extent(&*self.disk, &active, &extent, self.options.sync) {
            // The next start reads the whole segment instead.
            warn!(file = %active.path.display(), %error, "the extent of a segment could not be written beside it");
        }
    }

    /// Whether [`Log::retire`] would let something go.
    pub(super) fn lets_go(&self, offset: u64) -> bool {
        let segments = self.segments.0.lock();
        let first = segments.front();
        first.is_some_and(|first| {
            first.extent.lock().end <= offset && self.active.as_ref().is_none_or(|active| !Arc::ptr_eq(active, first))
        })
    }

    /// Whether consumed segments had better be let go soon: for their room, or to be written over.
    pub(super) fn is_short(&self) -> bool {
        self.spares.len() < SPARES_ENOUGH || self.quota.is_short()
    }

    /// Lets segments go of which every record lies below `offset`, `most` of them. Returns whether there are more.
    pub(super) fn retire(&mut self, offset: u64, most: usize) -> bool {
        self.tidy();
        let mut left = most;
        while self.lets_go(offset) {
            if left == 0 {
                return true;
            }
            left -= 1;
            let Some(first) = self.segments.0.lock().pop_front() else { break };
            if !self.is_retiring {
                self.is_retiring = true;
                for _ in 1..self.spares_least {
                    self.drop_spare();
                }
            }
            drop(self.disk.remove(&first.path.with_extension("extent")));
            let is_sound = !first.is_spent.load(Ordering::Relaxed);
            if !(is_sound && first.bytes == self.options.segment_bytes && self.set_aside(&first)) {
                self.discard(first.path.clone(), first.bytes);
            }
        }
        if std::mem::take(&mut self.is_retiring) {
            self.spares_least = self.spares.len();
            if self.options.sync {
                // Otherwise a power cut brings them back, and with them a journal that is full of nothing.
                drop(self.disk.sync_directory(&self.directory));
            }
        }
        false
    }

    /// Removes a file and gives its room back; later, where that cannot be now.
    fn discard(&mut self, path: PathBuf, bytes: u64) {
        if let Err(error) = self.discarded(&path, bytes) {
            warn!(file = %path.display(), %error, "a file of the journal that is not needed any more cannot be removed now");
            self.left.push((path, bytes));
        }
    }

    fn discarded(&self, path: &Path, bytes: u64) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.quota.give_back(bytes);
                Ok(())
            }
        }
    }

    fn tidy(&mut self) {
        let mut left = std::mem::take(&mut self.left);
        left.retain(|(path, bytes)| self.discarded(path, *bytes).is_err());
        self.left = left;
    }

    /// Keeps a consumed file to be written over, where there is room for one more: the first, or one of few within a share of all room.
    fn set_aside(&mut self, segment: &Segment) -> bool {
        let bytes = self.options.segment_bytes;
        let is_first = self.spares.is_empty();
        if self.spares.len() >= SPARES_MAX || !(is_first || self.quota.spare(bytes)) {
            return false;
        }
        let path = segment.path.with_extension("spare");
        if self.disk.rename(&segment.path, &path).is_err() {
            if !is_first {
                self.quota.spare_no_more(bytes);
            }
            return false;
        }
        self.spares.push(Spare { path, file: segment.file.clone() });
        true
    }

    fn take_spare(&mut self) -> Option<Spare> {
        let spare = self.spares.pop()?;
        if !self.spares.is_empty() {
            self.quota.spare_no_more(self.options.segment_bytes);
        }
        self.spares_least = self.spares_least.min(self.spares.len());
        Some(spare)
    }

    /// Gives a spare file's room back. `false`: there is none.
    pub(super) fn drop_spare(&mut self) -> bool {
        let spare = self.take_spare();
        spare.map(|spare| self.discard(spare.path, self.options.segment_bytes)).is_some()
    }

    /// Whether there are more than the one that a shard always keeps.
    pub(super) fn has_many_spares(&self) -> bool {
        self.spares.len() > 1
    }

    /// Gives the room of all spare files but one back.
    pub(super) fn keep_one_spare(&mut self) {
        while self.has_many_spares() {
            self.drop_spare();
        }
    }

    /// Gives the room of all spare files back.
    pub(super) fn drop_spares(&mut self) {
        while self.drop_spare() {}
    }
}

enum NewFile {
    Quota(String),
    Io(io::Error),
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {cause}")]
    Io { path: String, cause: io::Error },
    #[error("{path}: {cause}")]
    Header { path: String, cause: HeaderError },
}

/// Takes stock of a segment. `None`: there is nothing in it that counts.
fn recover(
    disk: &dyn Disk,
    path: &Path,
    base: u64,
    limit: u64,
    options: Options,
    recovered: &mut Recovered,
) -> Result<Option<Segment>, OpenError> {
    let io = |cause| OpenError::Io { path: path.display().to_string(), cause };
    let file = disk.open(path).map_err(io)?;
    let bytes = file.len().map_err(io)?;
    let mut head = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut head, 0).map_err(io)?;
    let header = match SegmentHeader::decode(head.get(..read).unwrap_or_default()) {
        Ok(header) if header.base == base => header,
        Err(cause @ HeaderError::Newer(_)) => return Err(OpenError::Header { path: path.display().to_string(), cause }),
        // Made or reused, and not begun before the machine stopped.
        Ok(_) => {
            remove(disk, path).map_err(io)?;
            return Ok(None);
        }
        Err(cause) => {
            let is_unbegun = head == [0; SEGMENT_HEADER_BYTES] || read < SEGMENT_HEADER_BYTES;
            let header = |nonce| {
                let (signal, shard) = (options.signal, options.shard);
                SegmentHeader { signal, shard, base, nonce, created: UnixNanos::default() }
            };
            let beside = extent_beside(disk, path).map_err(io)?.filter(|(_, extent)| extent.end > base && extent.end <= limit);
            let nonce = match &beside {
                Some((nonce, extent)) if extent.len <= bytes => Some(*nonce),
                _ if read < SEGMENT_HEADER_BYTES => None,
                _ => {
                    let segment = |nonce| Segment::new(path.to_owned(), &header(nonce), bytes, file.clone());
                    nonce_within(&*file, bytes, segment).map_err(io)?
                }
            };
            match nonce {
                Some(nonce) => {
                    warn!(
                        file = %path.display(),
                        "{cause}: the rest of this segment tells enough to read it all the same, and its header is written anew"
                    );
                    let header = header(nonce);
                    let mended = file.write_at(&mut [IoSlice::new(&header.encode())], 0);
                    mended.and_then(|()| if options.sync { file.sync() } else { Ok(()) }).map_err(io)?;
                    header
                }
                None if is_unbegun => {
                    if let Some((_, extent)) = beside {
                        error!(file = %path.display(), bytes, to = extent.end, "a segment of the journal was cut off behind our back and is let go; what it held is not delivered");
                    } else if bytes < SEGMENT_HEADER_BYTES as u64 {
                        warn!(file = %path.display(), bytes, "an empty segment of the journal is let go");
                    }
                    remove(disk, path).map_err(io)?;
                    return Ok(None);
                }
                None => {
                    let aside = path.with_extension("damaged");
                    disk.rename(path, &aside).map_err(io)?;
                    error!(file = %aside.display(), "{cause}: a segment of the journal cannot be read and was put aside; what it held is not delivered");
                    return Ok(None);
                }
            }
        }
    };
    let sync = options.sync;
    let mut segment = Segment::new(path.to_owned(), &header, bytes, file);
    let sealed = read_extent(disk, &segment).map_err(io)?.filter(|extent| extent.end <= limit && extent.len <= bytes);
    if let Some(extent) = sealed {
        if extent.end == base {
            remove(disk, path).map_err(io)?;
            return Ok(None);
        }
        *segment.extent.lock() = extent;
        return Ok(Some(segment));
    }
    // It was being written when the process or the machine stopped: every record is looked at.
    let mut place = ReadPlace::start_of(base);
    let mut extent = segment.extent();
    // Damage counts as loss once something whole follows it; at the end it is a write that was torn, and never acknowledged.
    let mut torn: Vec<Found> = Vec::new();
    'all: while place.at < bytes {
        for one in segment.chunk(&mut place, bytes).map_err(io)? {
            let Found::Record(stored) = &one else {
                torn.push(one);
                continue;
            };
            if stored.header.offset >= limit {
                break 'all;
            }
            for lost in torn.drain(..) {
                recovered.note(&lost);
            }
            extent.sums.add(&stored.header);
            extent.end = stored.header.offset + 1;
            extent.items = stored.header.items_before + stored.header.items;
            extent.len = stored.end;
        }
    }
    if extent.end == base {
        remove(disk, path).map_err(io)?;
        return Ok(None);
    }
    // The room behind is given back; what may be left of a torn group goes with it.
    if extent.len < bytes && segment.file.set_len(extent.len).is_ok() {
        segment.bytes = extent.len;
    }
    if sync {
        // What is shown from now on lasts: a group may have been whole only in memory when the process was killed.
        segment.file.sync().map_err(io)?;
    }
    write_extent(disk, &segment, &extent, sync).map_err(io)?;
    *segment.extent.lock() = extent;
    Ok(Some(segment))
}

/// The nonce of a segment by its first record, where that is whole and the one with which the segment begins.
fn nonce_within(file: &dyn DiskFile, bytes: u64, segment: impl Fn(u64) -> Segment) -> io::Result<Option<u64>> {
    let mut first = [0; RECORD_HEADER_BYTES];
    let read = file.read_at(&mut first, SEGMENT_HEADER_BYTES as u64)?;
    let Some(nonce) = first.get(..read).and_then(nonce_of) else { return Ok(None) };
    let segment = segment(nonce);
    let found = segment.piece(&mut ReadPlace::start_of(segment.base), bytes, PIECE_BYTES_MIN)?;
    let is_first = |found: &Found| matches!(found, Found::Record(stored) if stored.header.offset == segment.base);
    Ok(found.first().is_some_and(is_first).then_some(nonce))
}

fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    drop(disk.remove(&path.with_extension("extent")));
    disk.remove(path)
}

/// The file beside a segment: nonce, end, length, items, sums by source, checksum.
fn write_extent(disk: &dyn Disk, segment: &Segment, extent: &Extent, sync: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    for number in [segment.nonce, extent.end, extent.len, extent.items] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for (source, sum) in &extent.sums.0 {
        bytes.extend_from_slice(&u64::from(*source).to_le_bytes());
        for number in [sum.records, sum.items, sum.bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&u64::from(crc32c::crc32c(&bytes)).to_le_bytes());
    replace(disk, &segment.path.with_extension("extent"), &bytes, sync)
}

/// `None`: there is no such file, or it is another segment's, or damaged; the segment itself tells all.
pub(super) fn read_extent(disk: &dyn Disk, segment: &Segment) -> io::Result<Option<Extent>> {
    let beside = extent_beside(disk, &segment.path)?;
    Ok(beside.filter(|(nonce, extent)| *nonce == segment.nonce && extent.end >= segment.base).map(|(_, extent)| extent))
}

/// What stands beside a segment: its nonce, and what of it counts. `None`: nothing, or it is damaged.
pub(super) fn extent_beside(disk: &dyn Disk, path: &Path) -> io::Result<Option<(u64, Extent)>> {
    let Some(bytes) = read_whole(disk, &path.with_extension("extent"), 4 << 20)? else { return Ok(None) };
    let Some((content, sum)) = bytes.split_last_chunk::<8>() else { return Ok(None) };
    if u64::from_le_bytes(*sum) != u64::from(crc32c::crc32c(content)) {
        return Ok(None);
    }
    let numbers: Vec<u64> = content.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let Some(([nonce, end, len, items], sums)) = numbers.split_first_chunk::<4>() else { return Ok(None) };
    let sums = sums
        .as_chunks::<4>()
        .0
        .iter()
        .map(|[source, records, items, bytes]| (*source as u16, Lag { records: *records, items: *items, bytes: *bytes }));
    Ok(Some((*nonce, Extent { end: *end, len: *len, items: *items, sums: Sums(sums.collect()) })))
}
