//! A journal's directory, looked at beside a weir that runs on it, or without one. Nothing here locks, writes or removes, except [`remove`].
//!
//! In:   a directory.
//! Out:  its records in order, what of it is damaged, and what stands in it for whom.
//! Full: one piece of a segment is read at a time.
//! Lost: nothing. Segments that are let go meanwhile are passed over; what is being written at the end of the last one does not count yet.

mod letters;
mod remove;
mod stock;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

pub use self::{
    letters::FoundLetter,
    remove::{Released, Removal, What},
    stock::{ConsumerStock, Places, Stock},
    verify::{Fault, Verified},
};
pub use super::log::LostRecords;
use super::{
    DirectoryError, FORMAT,
    cursors::Opened,
    files::{Disk, DiskFile, read_whole},
    format::{HeaderError, Meta, SEGMENT_HEADER_BYTES, SegmentHeader, Stored},
    log::{Extent, Found, ReadPlace, Segment, read_extent},
};
use crate::{
    journal::{Derivation, Note},
    signal::{Context, Signal, UnixNanos},
};

/// Between two looks at a place that is being written.
const SECOND_LOOK: Duration = Duration::from_millis(50);
const SMALL_FILE_BYTES_MAX: usize = 16 << 20;

/// Why a journal cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("{path}: {cause}{}", remedy(cause))]
    Io { path: String, cause: io::Error },
    #[error(
        "{path} holds no journal: there is no file FORMAT in it; name the directory of the weir that is meant with --data-dir, or its file with --config"
    )]
    Missing { path: String },
    #[error("{path} is not of a journal that this weir reads ({found:?}, it reads {FORMAT:?}): use the weir that wrote it")]
    Format { path: String, found: String },
    #[error("{path}: the consumers' places are damaged: start weir on it once, which delivers everything held once more")]
    Damaged { path: String },
    #[error("there is no topic `{topic}` in {path}; there is {known}")]
    Topic { path: String, topic: String, known: String },
    #[error("no consumer `{consumer}` stands in {path}; there is {known}")]
    Consumer { path: String, consumer: String, known: String },
    #[error(transparent)]
    Locked(#[from] DirectoryError),
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "; run this as the user that weir runs as",
        io::ErrorKind::NotADirectory => "; name the directory of the journal with --data-dir",
        _ => "",
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> InspectError + '_ {
    |cause| InspectError::Io { path: path.display().to_string(), cause }
}

/// A disk that cannot be written to.
struct ReadOnly;

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the journal is only looked at")
}

impl Disk for ReadOnly {
    fn create(&self, _: &Path, _: u64) -> io::Result<Arc<dyn DiskFile>> {
        Err(refused())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(open_file(path)?))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        entries(directory, false)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }
}

/// Neither a link is followed nor a pipe waited for.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file"));
    }
    Ok(file)
}

/// The names of the files, or of the directories, in a directory.
fn entries(directory: &Path, directories: bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            kind => kind?,
        };
        if (if directories { kind.is_dir() } else { kind.is_file() })
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// A directory that holds a journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Names of sources, by their numbers on disk.
    sources: Arc<[String]>,
}

impl Journal {
    /// # Errors
    /// There is no journal in the directory, or not one of this version, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, InspectError> {
        let format = path.join("FORMAT");
        match read_whole(&ReadOnly, &format, SMALL_FILE_BYTES_MAX) {
            Ok(Some(found)) if found == FORMAT.as_bytes() => {}
            Ok(Some(found)) => {
                let found = String::from_utf8_lossy(&found).chars().take(40).collect();
                return Err(InspectError::Format { path: format.display().to_string(), found });
            }
            Ok(None) => return Err(InspectError::Missing { path: path.display().to_string() }),
            Err(error) => return Err(io_at(&format)(error)),
        }
        let file = path.join("sources");
        let sources = read_whole(&ReadOnly, &file, SMALL_FILE_BYTES_MAX).map_err(io_at(&file))?.unwrap_or_default();
        let sources = String::from_utf8_lossy(&sources).lines().map(str::to_owned).collect();
        Ok(Self { path: path.to_owned(), sources })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All shards, by topic and number.
    pub fn shards(&self) -> Result<Vec<ShardView>, InspectError> {
        let topics = self.path.join("topics");
        let mut shards = Vec::new();
        for escaped in directories(&topics)? {
            let directory = topics.join(&escaped);
            for number in directories(&directory)? {
                if let Ok(shard) = number.parse() {
                    let (topic, directory) = (unescaped(&escaped), directory.join(&number));
                    shards.push(ShardView { topic, number: shard, directory, sources: self.sources.clone() });
                }
            }
        }
        shards.sort_by(|a, b| (&a.topic, a.number).cmp(&(&b.topic, b.number)));
        Ok(shards)
    }

    /// The shards of one topic, or of all.
    pub fn shards_of(&self, topic: Option<&str>) -> Result<Vec<ShardView>, InspectError> {
        let mut shards = self.shards()?;
        let Some(topic) = topic else { return Ok(shards) };
        let mut known: Vec<String> = shards.iter().map(|shard| format!("`{}`", shard.topic)).collect();
        shards.retain(|shard| shard.topic == topic);
        if shards.is_empty() {
            known.dedup();
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            return Err(InspectError::Topic { path: self.path.display().to_string(), topic: topic.to_owned(), known });
        }
        Ok(shards)
    }
}

/// The names of the directories in one that may not be there.
fn directories(directory: &Path) -> Result<Vec<String>, InspectError> {
    match entries(directory, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(io_at(directory)),
    }
}

/// The name that `escaped` made a path component of.
fn unescaped(component: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = component.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One shard of a topic.
#[derive(Debug)]
pub struct ShardView {
    pub topic: String,
    pub number: u16,
    directory: PathBuf,
    sources: Arc<[String]>,
}

/// A record as it lies in the journal.
#[derive(Debug, Clone)]
pub struct JournalRecord {
    pub offset: u64,
    pub received: UnixNanos,
    /// The receiver or connector that appended it.
    pub source: String,
    pub signal: Signal,
    pub items: u64,
    /// The body of an export request.
    pub payload: Bytes,
    pub context: Context,
    /// Topic, shard and offset of the record it was made from; of many, at a flush: nothing.
    pub derived_from: Option<(String, u16, u64)>,
    /// Of a dead letter.
    pub(super) letter: Option<Note>,
}

/// What comes next in a shard.
#[derive(Debug, Clone)]
pub enum Entry {
    Record(Box<JournalRecord>),
    Lost(LostRecords),
}

impl ShardView {
    fn source(&self, number: u16) -> &str {
        self.sources.get(usize::from(number)).map_or("?", String::as_str)
    }

    /// Its segments by their first offsets, each with that of the next one.
    fn segments(&self) -> Result<VecDeque<(u64, u64)>, InspectError> {
        let mut bases: Vec<u64> = match entries(&self.directory, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(io_at(&self.directory))?.iter().filter_map(|name| base_of(name)).collect(),
        };
        bases.sort_unstable();
        let limits = bases.iter().skip(1).copied().chain([u64::MAX]);
        Ok(bases.iter().copied().zip(limits).collect())
    }

    fn path_of(&self, base: u64) -> PathBuf {
        self.directory.join(super::log::segment_name(base))
    }

    fn places(&self) -> Result<Opened, InspectError> {
        let path = self.directory.join("cursors");
        let mut opened = Opened::read(&ReadOnly, &path).map_err(io_at(&path))?;
        if matches!(opened, Opened::Damaged) {
            std::thread::sleep(SECOND_LOOK);
            opened = Opened::read(&ReadOnly, &path).map_err(io_at(&path))?;
        }
        Ok(opened)
    }

    /// Its records from an offset on, in order, with what is damaged between them.
    pub fn records(&self, from: u64) -> Result<Records<'_>, InspectError> {
        let mut segments = self.segments()?;
        segments.retain(|(_, limit)| *limit > from);
        Ok(Records { shard: self, from, segments, walk: None, ready: VecDeque::new() })
    }

    fn entry(&self, signal: Signal, found: Found) -> Entry {
        match found {
            Found::Lost { offset, to, items, path, at } => Entry::Lost(LostRecords { offset, to, items, path, at }),
            Found::Record(stored) => {
                let Stored { header, meta, payload, .. } = stored;
                // What cannot be read of it is told by `verify`.
                let meta = Meta::decode(&meta).unwrap_or_default();
                let (signal, letter) = meta.letter.map_or((signal, None), |(signal, note)| (signal, Some(note)));
                Entry::Record(Box::new(JournalRecord {
                    offset: header.offset,
                    received: header.received,
                    source: self.source(header.source).to_owned(),
                    signal,
                    items: header.items,
                    payload,
                    context: meta.context,
                    derived_from: meta.derived_from.filter(|_| meta.reader.as_deref() != Some(Derivation::FLUSH)),
                    letter,
                }))
            }
        }
    }
}

fn base_of(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|base| base.len() == 20)?.parse().ok()
}

/// Records of a shard.
pub struct Records<'a> {
    shard: &'a ShardView,
    from: u64,
    segments: VecDeque<(u64, u64)>,
    walk: Option<Walk>,
    ready: VecDeque<Entry>,
}

impl Iterator for Records<'_> {
    type Item = Result<Entry, InspectError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if let Some(walk) = &mut self.walk {
                match walk.step() {
                    Ok(Some(found)) => {
                        let (signal, from, shard) = (walk.signal, self.from, self.shard);
                        let beyond = |found: &Found| match found {
                            Found::Record(stored) => stored.header.offset >= from,
                            Found::Lost { to, .. } => *to > from,
                        };
                        self.ready.extend(found.into_iter().filter(beyond).map(|found| shard.entry(signal, found)));
                    }
                    Ok(None) => self.walk = None,
                    Err(error) => {
                        let error = io_at(&walk.segment.path)(error);
                        self.walk = None;
                        return Some(Err(error));
                    }
                }
                continue;
            }
            let (base, limit) = self.segments.pop_front()?;
            let path = self.shard.path_of(base);
            match Walk::open(&path, base, limit) {
                Ok(Look::Segment(walk)) => self.walk = Some(*walk),
                Ok(Look::Gone | Look::Unbegun) => {}
                Ok(Look::Unreadable(_)) => {
                    // Of the last one nobody knows how far it went.
                    let to = if limit == u64::MAX { base } else { limit };
                    self.ready.push_back(Entry::Lost(LostRecords { offset: base, to, items: None, path, at: 0 }));
                }
                Err(error) => return Some(Err(io_at(&path)(error))),
            }
        }
    }
}

/// What a segment's file turns out to be.
enum Look {
    Segment(Box<Walk>),
    /// Let go meanwhile.
    Gone,
    /// Set aside for a segment that is not begun.
    Unbegun,
    Unreadable(HeaderError),
}

/// Goes through one segment.
struct Walk {
    segment: Segment,
    signal: Signal,
    file: File,
    head: Vec<u8>,
    /// What counts of it, if that is settled; it may be in use otherwise.
    sealed: Option<Extent>,
    /// Bytes of the file, of which no more than so many count.
    len: u64,
    limit: u64,
    place: ReadPlace,
    /// Damage that nothing whole follows yet: a write that is under way, or was torn and never acknowledged.
    torn: Vec<Found>,
    is_done: bool,
    /// It was let go, and perhaps written over, while it was read.
    is_gone: bool,
}

impl Walk {
    fn open(path: &Path, base: u64, limit: u64) -> io::Result<Look> {
        let file = match open_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Gone),
            file => file?,
        };
        let head = head(&file)?;
        let header = match SegmentHeader::decode(&head) {
            Ok(header) if header.base == base => header,
            Ok(_) => return Ok(Look::Unbegun),
            Err(HeaderError::Newer(version)) => return Ok(Look::Unreadable(HeaderError::Newer(version))),
            Err(_) if head.len() < SEGMENT_HEADER_BYTES || head.iter().all(|byte| *byte == 0) => return Ok(Look::Unbegun),
            Err(error) => {
                // It may have been renamed to another place between the look at its name and this one.
                return Ok(if is_at(&file, path) { Look::Unreadable(error) } else { Look::Gone });
            }
        };
        let bytes = file.metadata()?.len();
        let segment = Segment::new(path.to_owned(), &header, bytes, Arc::new(file.try_clone()?));
        let sealed = read_extent(&ReadOnly, &segment)?.filter(|extent| extent.end <= limit && extent.len <= bytes);
        Ok(Look::Segment(Box::new(Self {
            place: ReadPlace::start_of(base),
            len: sealed.as_ref().map_or(bytes, |extent| extent.len),
            segment,
            signal: header.signal,
            file,
            head,
            sealed,
            limit,
            torn: Vec::new(),
            is_done: false,
            is_gone: false,
        })))
    }

    /// Records that come next, and damage between them. `None` at the end.
    fn step(&mut self) -> io::Result<Option<Vec<Found>>> {
        if self.is_done {
            return Ok(None);
        }
        if self.place.at >= self.len {
            self.is_done = true;
            let end = self.sealed.as_ref().map_or(0, |extent| extent.end);
            if self.place.offset >= end || self.look_gone() {
                return Ok(Some(Vec::new()));
            }
            let (path, at) = (self.segment.path.clone(), self.place.at);
            return Ok(Some(vec![Found::Lost { offset: self.place.offset, to: end, items: None, path, at }]));
        }
        let is_lost = |found: &Found| matches!(found, Found::Lost { .. });
        let before = self.place;
        let mut found = self.segment.chunk(&mut self.place, self.len)?;
        if found.iter().any(is_lost) && self.sealed.is_none() {
            // It may have been read while it was written.
            std::thread::sleep(SECOND_LOOK);
            self.place = before;
            found = self.segment.chunk(&mut self.place, self.len)?;
        }
        if found.iter().any(is_lost) && self.look_gone() {
            let whole = found.iter().position(is_lost).unwrap_or(0);
            found.truncate(whole);
            self.is_done = true;
        }
        let mut out = Vec::new();
        for one in found {
            match &one {
                Found::Lost { .. } if self.sealed.is_none() => self.torn.push(one),
                Found::Lost { .. } => out.push(one),
                Found::Record(stored) if stored.header.offset >= self.limit => {
                    self.is_done = true;
                    break;
                }
                Found::Record(_) => {
                    out.append(&mut self.torn);
                    out.push(one);
                }
            }
        }
        Ok(Some(out))
    }

    /// Whether the file is another segment's by now, or nobody's.
    fn look_gone(&mut self) -> bool {
        self.is_gone =
            self.is_gone || !is_at(&self.file, &self.segment.path) || head(&self.file).ok().as_ref() != Some(&self.head);
        self.is_gone
    }
}

fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; SEGMENT_HEADER_BYTES];
    let read = DiskFile::read_at(file, &mut head, 0)?;
    head.truncate(read);
    Ok(head)
}

/// Whether `path` still names this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(this), Ok(there)) => (this.dev(), this.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}
