//! Names of topics and sources: numbers in a running configuration are its own, names outlive it.

use std::{io, path::Path};

use super::files::{Disk, read_whole, replace};
use crate::journal::{SourceId, TopicId};

/// What stands for a source that this configuration does not have.
const UNKNOWN: SourceId = SourceId(u16::MAX);
/// The last line: the checksum of all before it.
const SUM: &str = "# crc32c ";
const FILE_BYTES_MAX: usize = 16 << 20;

/// Both ways between the numbers of this configuration and those on disk.
#[derive(Debug, Default)]
pub(super) struct Names {
    topics: Vec<String>,
    /// By the number of this configuration: the number on disk.
    stored: Vec<u16>,
    /// By the number on disk: the number of this configuration.
    runtime: Vec<SourceId>,
}

impl Names {
    /// Reads the sources' names, one a line, and adds those that are new.
    pub(super) fn open(
        disk: &dyn Disk,
        directory: &Path,
        topics: Vec<String>,
        sources: &[String],
        sync: bool,
    ) -> io::Result<Self> {
        let path = directory.join("sources");
        let known = read_whole(disk, &path, FILE_BYTES_MAX)?.unwrap_or_default();
        let known = String::from_utf8(known)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{}: damaged, it is not text", path.display())))?;
        let mut names: Vec<String> = Vec::new();
        if !known.is_empty() {
            let content =
                known.trim_end_matches('\n').rsplit_once('\n').and_then(|(content, sum)| Some((content, sum.strip_prefix(SUM)?)));
            let Some((content, _)) = content.filter(|(content, sum)| *sum == sum_of(content)) else {
                let message = "damaged: without the names of its sources the journal cannot be read";
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: {message}", path.display())));
            };
            names.extend(content.lines().map(str::to_owned));
        }
        let before = names.len();
        let mut stored = Vec::new();
        for source in sources {
            let at = names.iter().position(|name| name == source).unwrap_or_else(|| {
                names.push(source.clone());
                names.len() - 1
            });
            stored
                .push(u16::try_from(at).map_err(|_| io::Error::other(format!("{}: more than 65,535 sources", path.display())))?);
        }
        if names.len() > before {
            let content = names.join("\n");
            replace(disk, &path, format!("{content}\n{SUM}{}\n", sum_of(&content)).as_bytes(), sync)?;
        }
        let mut runtime = vec![UNKNOWN; names.len()];
        for (number, at) in (0_u16..).zip(&stored) {
            if let Some(place) = runtime.get_mut(usize::from(*at)) {
                *place = SourceId(number);
            }
        }
        Ok(Self { topics, stored, runtime })
    }

    pub(super) fn stored_source(&self, source: SourceId) -> u16 {
        self.stored.get(usize::from(source.0)).copied().unwrap_or(u16::MAX)
    }

    pub(super) fn runtime_source(&self, stored: u16) -> SourceId {
        self.runtime.get(usize::from(stored)).copied().unwrap_or(UNKNOWN)
    }

    pub(super) fn topic(&self, name: &str) -> Option<TopicId> {
        let at = self.topics.iter().position(|topic| topic == name)?;
        u16::try_from(at).ok().map(TopicId)
    }

    pub(super) fn topic_name(&self, topic: TopicId) -> &str {
        self.topics.get(usize::from(topic.0)).map_or("", String::as_str)
    }
}

fn sum_of(content: &str) -> String {
    format!("{:08x}", crc32c::crc32c(content.as_bytes()))
}
