//! Names of topics and sources: numbers in a running configuration are its own, names outlive it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;

use super::files::{Disk, read_whole, replace};
use crate::journal::{SourceId, TopicId};

/// What stands for a source that this configuration does not have.
const UNKNOWN: SourceId = SourceId(u16::MAX);
/// The last line: the checksum of all before it.
const SUM: &str = "# crc32c ";
const FILE_BYTES_MAX: usize = 16 << 20;

/// Both ways between the numbers of this process and those on disk. A configuration that is read while weir runs adds to them.
pub(super) struct Names {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    lists: RwLock<Lists>,
}

#[derive(Default)]
struct Lists {
    topics: Vec<Arc<str>>,
    /// By the number on disk.
    sources: Vec<String>,
    /// By the number of this process: the number on disk.
    stored: Vec<u16>,
    /// By the number on disk: the number of this process.
    runtime: Vec<SourceId>,
}

/// Whether some shard (`topics/NAME/NUMBER`) has records.
fn has_segments(topics: &Path) -> io::Result<bool> {
    let within = |path: &Path| match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    for topic in within(topics)? {
        for shard in within(&topic)? {
            if within(&shard)?.iter().any(|file| file.extension().is_some_and(|extension| extension == "log")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

impl Names {
    /// Reads the sources' names, one a line, and adds those that are new.
    pub(super) fn open(disk: Arc<dyn Disk>, directory: &Path, topics: Vec<String>, sources: &[String]) -> io::Result<Self> {
        let path = directory.join("sources");
        let known = read_whole(&*disk, &path, FILE_BYTES_MAX)?.unwrap_or_default();
        let known = String::from_utf8(known)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{}: damaged, it is not text", path.display())))?;
        let mut lists = Lists::default();
        if !known.is_empty() {
            let content =
                known.trim_end_matches('\n').rsplit_once('\n').and_then(|(content, sum)| Some((content, sum.strip_prefix(SUM)?)));
            let Some((content, _)) = content.filter(|(content, sum)| *sum == sum_of(content)) else {
                let message = "damaged: without the names of its sources the journal cannot be read";
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: {message}", path.display())));
            };
            lists.sources.extend(content.lines().map(str::to_owned));
        } else if has_segments(&directory.join("topics"))? {
            // Guessed by this configuration, it would go to the wrong backends without a word.
            let message = "missing or empty: without the names of its sources the journal cannot be read; put a copy back, or move the directory away";
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: {message}", path.display())));
        }
        let names = Self { disk, path, lists: RwLock::new(lists) };
        names.learn(topics, sources)?;
        Ok(names)
    }

    /// Takes over all names of this process, by its numbers: those that were known, and behind them those that are new.
    pub(super) fn learn(&self, topics: Vec<String>, sources: &[String]) -> io::Result<()> {
        let mut known = self.lists.read().sources.clone();
        let before = known.len();
        let mut stored = Vec::new();
        for source in sources {
            let at = known.iter().position(|name| name == source).unwrap_or_else(|| {
                known.push(source.clone());
                known.len() - 1
            });
            let too_many = |_| io::Error::other(format!("{}: more than 65,535 sources", self.path.display()));
            stored.push(u16::try_from(at).map_err(too_many)?);
        }
        if known.len() > before {
            let content = known.join("\n");
            // Synced whatever the mode: a power cut that leaves it empty costs all records.
            replace(&*self.disk, &self.path, format!("{content}\n{SUM}{}\n", sum_of(&content)).as_bytes(), true)?;
        }
        let mut runtime = vec![UNKNOWN; known.len()];
        for (number, at) in (0_u16..).zip(&stored) {
            if let Some(place) = runtime.get_mut(usize::from(*at)) {
                *place = SourceId(number);
            }
        }
        let topics = topics.into_iter().map(Arc::from).collect();
        *self.lists.write() = Lists { topics, sources: known, stored, runtime };
        Ok(())
    }

    pub(super) fn stored_source(&self, source: SourceId) -> u16 {
        self.lists.read().stored.get(usize::from(source.0)).copied().unwrap_or(u16::MAX)
    }

    pub(super) fn runtime_source(&self, stored: u16) -> SourceId {
        self.lists.read().runtime.get(usize::from(stored)).copied().unwrap_or(UNKNOWN)
    }

    pub(super) fn topic(&self, name: &str) -> Option<TopicId> {
        let at = self.lists.read().topics.iter().position(|topic| &**topic == name)?;
        u16::try_from(at).ok().map(TopicId)
    }

    pub(super) fn topic_name(&self, topic: TopicId) -> Arc<str> {
        self.lists.read().topics.get(usize::from(topic.0)).cloned().unwrap_or_default()
    }
}

fn sum_of(content: &str) -> String {
    format!("{:08x}", crc32c::crc32c(content.as_bytes()))
}
