//! Names of topics and sources: numbers in a running configuration are its own, names outlive it.

use std::{io, path::Path};

use super::files::{Disk, read_whole, replace};
use crate::journal::{SourceId, TopicId};

/// What stands for a source that this configuration does not have.
const UNKNOWN: SourceId = SourceId(u16::MAX);
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
        let mut names: Vec<String> = known.lines().map(str::to_owned).collect();
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
            let text: String = names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
            replace(disk, &path, text.as_bytes(), sync)?;
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
