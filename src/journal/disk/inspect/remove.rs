//! The one thing that is done to a journal from outside: consumers' places are removed, and what only they held is let go.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        cursors::{CursorFile, Standing},
        files::{Disk as _, SystemDisk},
        lock,
    },
    InspectError, Journal, Look, Opened, ShardView, Walk, base_of, entries, io_at,
};
use crate::journal::Lag;

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// A consumer's place, in all topics.
    Consumer(&'a str),
    /// All places and records of a topic. Its offsets go on where they were.
    Topic(&'a str),
}

/// What a removal lets go, in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub topic: String,
    pub shard: u16,
    /// Consumers that go, with what they hold at most.
    pub consumers: Vec<(String, Lag)>,
    /// Whole records that lie in the shard.
    pub records: Lag,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    pub segments: usize,
    pub bytes: u64,
}

impl Journal {
    /// What would be removed. Looks only.
    ///
    /// # Errors
    /// There is no such consumer or topic.
    pub fn removal(&self, what: What<'_>) -> Result<Vec<Removal>, InspectError> {
        let topic = if let What::Topic(topic) = what { Some(topic) } else { None };
        let (mut removals, mut known) = (Vec::new(), Vec::new());
        for shard in self.shards_of(topic)? {
            let stock = shard.stock(&|_, _| None)?;
            known.extend(stock.consumers.iter().map(|consumer| format!("`{}`", consumer.name)));
            let goes = |name: &str| if let What::Consumer(consumer) = what { consumer == name } else { true };
            let consumers: Vec<_> =
                stock.consumers.into_iter().filter(|one| goes(&one.name)).map(|one| (one.name, one.held)).collect();
            if topic.is_some() || !consumers.is_empty() {
                removals.push(Removal { topic: shard.topic, shard: shard.number, consumers, records: stock.records });
            }
        }
        if let What::Consumer(consumer) = what
            && removals.is_empty()
        {
            known.sort();
            known.dedup();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(InspectError::Consumer { path: self.path.display().to_string(), consumer: consumer.to_owned(), known });
        }
        Ok(removals)
    }

    /// Removes it, and the segments that nobody holds any more.
    ///
    /// # Errors
    /// A weir runs on the directory; or the places are damaged, and nothing was done.
    pub fn remove(&self, what: What<'_>) -> Result<Released, InspectError> {
        let _lock = lock(&self.path)?;
        let mut released = Released::default();
        let topic = if let What::Topic(topic) = what { Some(topic) } else { None };
        for shard in self.shards_of(topic)? {
            shard.remove(what, &mut released)?;
        }
        Ok(released)
    }
}

impl ShardView {
    fn remove(&self, what: What<'_>, released: &mut Released) -> Result<(), InspectError> {
        let file = self.directory.join("cursors");
        let (mut cursors, opened) = CursorFile::open(Arc::new(SystemDisk), &self.directory).map_err(io_at(&file))?;
        let mut standing = match (opened, what) {
            (Opened::Found(standing), _) => standing,
            (Opened::New, _) | (Opened::Damaged, What::Topic(_)) => Standing::default(),
            (Opened::Damaged, What::Consumer(_)) => return Err(InspectError::Damaged { path: file.display().to_string() }),
        };
        match what {
            What::Consumer(consumer) => {
                if standing.consumers.remove(consumer).is_none() {
                    return Ok(());
                }
            }
            What::Topic(_) => standing.consumers.clear(),
        }
        // No offset is given out twice, whatever goes.
        let mut ends = Vec::new();
        for (base, limit) in self.segments()? {
            let path = self.path_of(base);
            let end = end_of(&path, base, limit).map_err(io_at(&path))?;
            standing.end = standing.end.max(end.unwrap_or(base));
            ends.push((path, end));
        }
        cursors.write(&mut standing, true).map_err(io_at(&file))?;
        let holding = standing.consumers.values().filter(|saved| !saved.rests);
        let oldest = holding.map(|saved| saved.committed).min().unwrap_or(standing.end);
        for (path, end) in ends {
            if matches!(what, What::Topic(_)) || end.is_some_and(|end| end <= oldest) {
                release(&path, released).map_err(io_at(&path))?;
            } else {
                // Segments go from the front.
                break;
            }
        }
        if let What::Topic(_) = what {
            for path in self.leftovers()? {
                release(&path, released).map_err(io_at(&path))?;
            }
        }
        SystemDisk.sync_directory(&self.directory).map_err(io_at(&self.directory))
    }

    /// Removes every segment, whoever it is held for.
    pub(super) fn release_all(&self, released: &mut Released) -> Result<(), InspectError> {
        for (base, _) in self.segments()? {
            let path = self.path_of(base);
            release(&path, released).map_err(io_at(&path))?;
        }
        for path in self.leftovers()? {
            release(&path, released).map_err(io_at(&path))?;
        }
        SystemDisk.sync_directory(&self.directory).map_err(io_at(&self.directory))
    }

    /// What else of a segment may lie in the directory.
    fn leftovers(&self) -> Result<Vec<PathBuf>, InspectError> {
        let names = entries(&self.directory, false).map_err(io_at(&self.directory))?;
        let is_left = |name: &String| {
            ["extent", "spare", "new", "damaged"]
                .iter()
                .any(|extension| name.strip_suffix(extension).is_some_and(|base| base_of(&format!("{base}log")).is_some()))
        };
        Ok(names.into_iter().filter(is_left).map(|name| self.directory.join(name)).collect())
    }
}

/// The offset behind the last record of a segment; `None` where it cannot be read.
fn end_of(path: &Path, base: u64, limit: u64) -> io::Result<Option<u64>> {
    let mut walk = match Walk::open(path, base, limit)? {
        Look::Segment(walk) => walk,
        Look::Unbegun => return Ok(Some(base)),
        Look::Gone | Look::Unreadable(_) => return Ok((limit < u64::MAX).then_some(limit)),
    };
    if let Some(extent) = &walk.sealed {
        return Ok(Some(extent.end));
    }
    while walk.step()?.is_some() {}
    Ok(Some(walk.place.offset.min(limit)))
}

fn release(path: &Path, released: &mut Released) -> io::Result<()> {
    let bytes = fs::symlink_metadata(path)?.len();
    let extent = path.with_extension("extent");
    if extent != path {
        gone(fs::remove_file(extent))?;
    }
    gone(fs::remove_file(path))?;
    released.segments += usize::from(path.extension().is_some_and(|extension| extension == "log"));
    released.bytes += bytes;
    Ok(())
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
