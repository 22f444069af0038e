//! The journal on disk: a directory of topics, each with shards of segments, and the places of their consumers.
//!
//! In:   appends of all topics; each shard has a writer that writes and syncs what waits as one group.
//! Out:  records from memory to who keeps up, from the segments to who does not.
//! Full: `journal::max_size` bounds all segments together; at it, and on a full or failing disk, appends are refused until there is room.
//! Lost: in `durable` mode nothing that was acknowledged; in `buffered` mode what the system had not written when the machine stopped.
//!       What the disk itself damages is passed over, counted `dropped{damaged}` and said.
//!
//! ```text
//! FORMAT  LOCK  sources           version; pid of the owner; names of receivers and connectors
//! state/COMPONENT                 what a component remembers of the records it was given, with the positions this covers
//! topics/NAME/SHARD/cursors       where each consumer stands
//! topics/NAME/SHARD/BASE.log      a segment, named by the offset of its first record
//! topics/NAME/SHARD/BASE.extent   what of it counts, once it is sealed
//! letters/                        what consumers refused for good: see `letters`
//! ```

mod cursors;
mod derivations;
mod files;
mod format;
pub mod inspect;
mod letters;
mod log;
mod names;
mod nonces;
mod orphans;
mod place;
mod quota;
mod shard;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use tokio::sync::Notify;
use tracing::{info, warn};

use self::{
    cursors::{CursorFile, Opened},
    derivations::Derivations,
    files::{Disk, SystemDisk, read_whole, replace},
    log::{Log, Options},
    names::Names,
    nonces::Nonces,
    quota::Quota,
    shard::Parts,
};
use super::{JournalId, TopicId};
use crate::{runtime::Clock, signal::Signal};

pub use letters::{FoundLetters, LetterStore, LettersError, Reading, RequestFile};
pub use orphans::{Orphan, Removing};
pub use place::choose_directory;
pub use shard::DiskShard;
pub use state::{StateError, StateFile};

const FORMAT: &str = "weir journal 1\n";
/// The directory of dead letters.
const LETTERS: &str = "letters";
/// The dead letters' part of the journal's room: one of so many.
const LETTERS_SHARE: u64 = 10;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SHARDS_MAX: u16 = 64;

/// How a journal on disk is kept.
#[derive(Debug, Clone)]
pub struct Persistence {
    pub directory: PathBuf,
    /// Sync before an append is done (`durable`), or leave it to the system (`buffered`).
    pub sync: bool,
    /// Of all segments, dead letters with them. `None`: a share of the disk.
    pub bytes_max: Option<u64>,
    /// Of the dead letters. `None`: a tenth of that.
    pub letters_bytes_max: Option<u64>,
    /// Of a topic that receivers append to, for new records.
    pub shards: u16,
    pub offset_reset: OffsetReset,
}

/// Where a consumer begins that has no place yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OffsetReset {
    /// With what comes.
    #[default]
    Latest,
    /// With the oldest that the journal still has, of whatever others are waiting for.
    Earliest,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{path}: {cause}")]
    Io { path: String, cause: io::Error },
    #[error(
        "{directory} is in use by the weir with the process id {pid}: stop that one, or give this one a directory of its own (--data-dir)"
    )]
    Locked { directory: String, pid: String },
    #[error(
        "{path} is no journal of this weir ({found:?}, this one writes {FORMAT:?}): it was left as it is; use the weir that wrote it, or another directory (--data-dir)"
    )]
    Format { path: String, found: String },
    #[error(
        "{path} is no format of dead letters that this weir knows ({found:?}, this one writes {:?}): it was left as it is; use the weir that wrote it, or another directory (--data-dir)",
        letters::FORMAT
    )]
    Letters { path: String, found: String },
    #[error(transparent)]
    Shard(#[from] log::OpenError),
}

/// An open journal: nobody else writes to its directory while this is alive.
pub struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    id: JournalId,
    sync: bool,
    segment_bytes: u64,
    quota: Arc<Quota>,
    letters_bytes_max: u64,
    offset_reset: OffsetReset,
    shards: u16,
    names: Arc<Names>,
    clock: Clock,
    _lock: File,
}

impl Directory {
    /// Looks whether another weir owns the directory, before anything else is begun that it has, too. Nothing is made there.
    ///
    /// # Errors
    /// `Locked`. What else is wrong is found when it is opened.
    pub fn look_free(path: &Path) -> Result<(), DirectoryError> {
        let Ok(mut file) = File::open(path.join("LOCK")) else { return Ok(()) };
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => Err(locked(path, &mut file)),
            // Let go as the file is closed.
            _ => Ok(()),
        }
    }

    /// Opens or makes the directory. `topics` by [`TopicId`], `sources` by [`super::SourceId`]: names that stay the same while the file is edited.
    pub fn open(
        persistence: &Persistence,
        topics: Vec<String>,
        sources: &[String],
        clock: Clock,
    ) -> Result<Self, DirectoryError> {
        let path = persistence.directory.clone();
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |cause| DirectoryError::Io { path, cause }
        };
        make_directory(&path).map_err(at(&path))?;
        let lock = lock(&path)?;
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let format = path.join("FORMAT");
        match fs::read_to_string(&format) {
            Ok(found) if found == FORMAT => {}
            Ok(found) => {
                let found = found.chars().take(40).collect();
                return Err(DirectoryError::Format { path: format.display().to_string(), found });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace(&*disk, &format, FORMAT.as_bytes(), persistence.sync).map_err(at(&format))?;
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(DirectoryError::Format { path: format.display().to_string(), found: "not text".to_owned() });
            }
            Err(error) => return Err(at(&format)(error)),
        }
        // Before anything is changed: a weir of tomorrow wrote the letters.
        letters::look_at_format(&*disk, &path.join(LETTERS)).map_err(at(&path))?.map_or(Ok(()), |found| {
            Err(DirectoryError::Letters { path: path.join(LETTERS).join("FORMAT").display().to_string(), found })
        })?;
        let id = identity(&*disk, &path.join("id"), persistence.sync).map_err(at(&path.join("id")))?;
        let names = Names::open(disk.clone(), &path, topics, sources).map_err(at(&path))?;
        let bytes_max = match persistence.bytes_max {
            Some(bytes) => bytes,
            None => place::share(&path).map_err(at(&path))?,
        };
        // Room of their own: a full journal must not stop what is refused from leaving it.
        let letters_bytes_max = persistence.letters_bytes_max.unwrap_or(bytes_max / LETTERS_SHARE).min(bytes_max / 2);
        let whole = bytes_max;
        let bytes_max = whole - letters_bytes_max;
        // However many shards begin a segment, it is a small part of the room.
        let segment_bytes = (bytes_max / 16 / u64::from(persistence.shards.max(1)))
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
            .next_multiple_of(4096);
        info!(
            directory = %path.display(),
            max_mib = whole >> 20,
            records_max_mib = bytes_max >> 20,
            letters_max_mib = letters_bytes_max >> 20,
            sync = persistence.sync,
            "the journal"
        );
        Ok(Self {
            disk,
            path,
            id,
            sync: persistence.sync,
            segment_bytes,
            quota: Arc::new(Quota::within(bytes_max, whole)),
            letters_bytes_max,
            offset_reset: persistence.offset_reset,
            shards: persistence.shards.max(1),
            names: Arc::new(names),
            clock,
            _lock: lock,
        })
    }

    /// Takes over the names of topics and sources that a changed configuration has: all of this process, by their numbers.
    pub fn learn(&self, topics: Vec<String>, sources: &[String]) -> Result<(), DirectoryError> {
        let io = |cause| DirectoryError::Io { path: self.path.display().to_string(), cause };
        self.names.learn(topics, sources).map_err(io)
    }

    /// The shards that take the records of a topic that receivers append to.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// How many shards of a topic there are, but at least `wanted`: those of a time when there were more are read to their ends.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn shards_of(&self, name: &str, wanted: u16) -> Result<u16, DirectoryError> {
        let directory = self.path.join("topics").join(escaped(name));
        let io = |cause| DirectoryError::Io { path: directory.display().to_string(), cause };
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(wanted),
            entries => entries.map_err(io)?,
        };
        let mut shards = wanted;
        for entry in entries {
            let name = entry.map_err(io)?.file_name();
            // Directories that no weir made are not shards.
            if let Some(number) = name.to_str().and_then(|name| name.parse::<u16>().ok()).filter(|number| *number < SHARDS_MAX) {
                shards = shards.max(number.saturating_add(1));
            }
        }
        Ok(shards)
    }

    /// The names of the topics that lie there.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn topics_found(&self) -> Result<Vec<String>, inspect::InspectError> {
        let mut names: Vec<String> = inspect::Journal::open(&self.path)?.shards()?.into_iter().map(|shard| shard.topic).collect();
        names.dedup();
        Ok(names)
    }

    /// Opens or makes a shard, and takes stock of what it holds.
    pub fn shard(
        &self,
        topic: TopicId,
        name: &str,
        signal: Signal,
        number: u16,
        pace_bytes: u64,
        room: Arc<Notify>,
    ) -> Result<Arc<DiskShard>, DirectoryError> {
        let directory = self.path.join("topics").join(escaped(name)).join(number.to_string());
        let io = |cause| DirectoryError::Io { path: directory.display().to_string(), cause };
        make_directory(&directory).map_err(io)?;
        let (cursors, standing) = CursorFile::open(self.disk.clone(), &directory).map_err(io)?;
        let end_min = match &standing {
            Opened::Found(standing) => {
                standing.end.max(standing.consumers.values().map(|saved| saved.committed).max().unwrap_or(0))
            }
            Opened::New => 0,
            Opened::Damaged => {
                warn!(file = %directory.join("cursors").display(), "the consumers' places are damaged: everything held is delivered once more");
                0
            }
        };
        let options = Options { signal, shard: number, segment_bytes: self.segment_bytes, sync: self.sync };
        let nonces = Nonces::random(self.clock.now());
        let (log, recovered) = Log::open(self.disk.clone(), directory.clone(), options, self.quota.clone(), end_min, nonces)?;
        if recovered.lost_records > 0 {
            warn!(
                topic = name,
                records = recovered.lost_records,
                items = recovered.lost_items,
                "damage was found in the journal; what is whole is delivered"
            );
        }
        // Segments without places: whoever removed these did not mean to lose those.
        let standing = if matches!(standing, Opened::New) && log.next() > 0 {
            warn!(directory = %directory.display(), "there are records and no consumers' places: everything held is delivered once more");
            Opened::Damaged
        } else {
            standing
        };
        let (names, clock) = (self.names.clone(), self.clock.clone());
        // A topic that receivers append to has the name of its signal.
        let (sync, is_derived) = (self.sync, name != signal.as_str());
        let file = StateFile::new(self.disk.clone(), directory.join("derivations"), sync);
        let derivations =
            is_derived.then(|| Derivations::open(file, &log.segments, log.next(), &names)).transpose().map_err(io)?;
        let offset_reset = self.offset_reset;
        let parts = Parts {
            topic,
            number,
            signal,
            pace_bytes,
            room,
            names,
            clock,
            sync,
            offset_reset,
            derivations,
            log,
            cursors,
            standing,
        };
        Ok(Arc::new(DiskShard::new(parts).map_err(io)?))
    }

    /// The file for what a component remembers; `name` is its section and id.
    pub fn state(&self, name: &str) -> Result<StateFile, DirectoryError> {
        let directory = self.path.join("state");
        make_directory(&directory).map_err(|cause| DirectoryError::Io { path: directory.display().to_string(), cause })?;
        Ok(StateFile::new(self.disk.clone(), directory.join(escaped(name)), self.sync))
    }

    /// Opens or makes the room for dead letters, and takes stock of them.
    pub fn letters(&self) -> Result<(LetterStore, FoundLetters), DirectoryError> {
        let directory = self.path.join(LETTERS);
        let io = |cause| DirectoryError::Io { path: directory.display().to_string(), cause };
        make_directory(&letters::requests_in(&directory)).map_err(io)?;
        letters::write_format(&*self.disk, &directory, self.sync).map_err(io)?;
        Ok(LetterStore::open(
            &self.disk,
            directory,
            self.sync,
            self.letters_bytes_max,
            Nonces::random(self.clock.now()),
            self.clock.now(),
        )?)
    }

    /// Bytes that the segments of records take, and may take; dead letters have their own.
    pub fn usage(&self) -> (u64, u64) {
        (self.quota.used(), self.quota.bytes_max())
    }

    /// How many segments were begun since the start: with each, one before it may be let go once all are past it.
    pub fn segments_begun(&self) -> u64 {
        self.quota.begun()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> JournalId {
        self.id
    }
}

/// Reads the journal's id, or gives it one; it is synced before anyone makes names of it.
fn identity(disk: &dyn Disk, path: &Path, sync: bool) -> io::Result<JournalId> {
    let known = read_whole(disk, path, 64)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if let Some(id) = known.as_deref().and_then(JournalId::parse) {
        return Ok(id);
    }
    if known.is_some() {
        warn!(file = %path.display(), "the journal's id is damaged; it gets another, and what backends know by the old one may be delivered twice");
    }
    let id = JournalId::random()?;
    replace(disk, path, format!("{id}\n").as_bytes(), sync)?;
    Ok(id)
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // An entry that is not synced is not there after a power cut, nor is what lies in it.
    for directory in path.ancestors().take(4) {
        if let Ok(directory) = File::open(directory) {
            drop(directory.sync_all());
        }
    }
    Ok(())
}

/// Whose it is stands in the file.
fn locked(directory: &Path, file: &mut File) -> DirectoryError {
    let mut pid = String::new();
    drop(file.take(20).read_to_string(&mut pid));
    DirectoryError::Locked { directory: directory.display().to_string(), pid: pid.trim().to_owned() }
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join("LOCK");
    let io = |cause| DirectoryError::Io { path: path.display().to_string(), cause };
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(locked(directory, &mut file)),
        Err(fs::TryLockError::Error(cause)) => return Err(io(cause)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(file)
}

/// A name as one path component: what is not a letter, digit, `-`, `_` or `.` stands as `%` and two hexadecimal digits.
fn escaped(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && !out.is_empty()) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02x}").expect("writing to a string does not fail");
        }
    }
    out
}
