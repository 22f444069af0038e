//! Every byte of a journal that counts, checked.

use std::path::{Path, PathBuf};

use super::{
    super::{
        format::HeaderError,
        log::{Sums, extent_beside},
    },
    Found, InspectError, Journal, Look, Meta, Opened, ReadOnly, SEGMENT_HEADER_BYTES, ShardView, Walk, base_of, entries, io_at,
    read_extent,
};
use crate::journal::Lag;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub path: PathBuf,
    pub at: u64,
    /// What is wrong, and what weir makes of it.
    pub what: String,
    pub records: u64,
    /// Items that are lost with it, where that can be told.
    pub items: Option<u64>,
}

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub shards: usize,
    pub segments: usize,
    /// Whole records.
    pub records: Lag,
    pub faults: usize,
    pub records_lost: u64,
    /// Of those faults where that can be told.
    pub items_lost: u64,
    /// Nobody knows of some faults how many items they cost.
    pub is_uncounted: bool,
    /// What is worth knowing and no fault.
    pub notes: Vec<String>,
}

impl Journal {
    /// Checks everything, or one topic; tells faults as they are found.
    pub fn verify(&self, topic: Option<&str>, tell: &mut dyn FnMut(&Fault)) -> Result<Verified, InspectError> {
        let mut check = Check { verified: Verified::default(), tell };
        for shard in self.shards_of(topic)? {
            check.shard(&shard)?;
        }
        if let Some(letters) = if topic.is_none() { self.letters_shard()? } else { None } {
            check.shard(&letters)?;
        }
        Ok(check.verified)
    }
}

/// Whether a start finds beside a segment what its header should tell.
fn mends(path: &Path, base: u64, limit: u64) -> Result<bool, InspectError> {
    let beside = extent_beside(&ReadOnly, path).map_err(io_at(path))?;
    Ok(beside.is_some_and(|(_, extent)| extent.end > base && extent.end <= limit))
}

struct Check<'a> {
    verified: Verified,
    tell: &'a mut dyn FnMut(&Fault),
}

impl Check<'_> {
    fn fault(&mut self, path: &Path, at: u64, what: String, records: u64, items: Option<u64>) {
        let verified = &mut self.verified;
        verified.faults += 1;
        verified.records_lost = verified.records_lost.saturating_add(records);
        verified.items_lost = verified.items_lost.saturating_add(items.unwrap_or(0));
        verified.is_uncounted |= items.is_none();
        (self.tell)(&Fault { path: path.to_owned(), at, what, records, items });
    }

    /// One that costs no record.
    fn harmless(&mut self, path: &Path, at: u64, what: String) {
        self.fault(path, at, what, 0, Some(0));
    }

    fn shard(&mut self, shard: &ShardView) -> Result<(), InspectError> {
        self.verified.shards += 1;
        self.beside(shard)?;
        // Where no segment is left, everything up to here was written once.
        let written = if let Opened::Found(standing) = shard.places()? { standing.end } else { 0 };
        let (mut first, mut end) = (None, None);
        for (base, limit) in shard.segments()? {
            let path = shard.path_of(base);
            let walk = match Walk::open(&path, base, limit).map_err(io_at(&path))? {
                Look::Gone => {
                    end = None;
                    continue;
                }
                Look::Unbegun if path.with_extension("extent").exists() => {
                    let records = if limit == u64::MAX { 1 } else { limit - base };
                    self.fault(&path, 0, "its header is gone: its records are not delivered".to_owned(), records, None);
                    (first, end) = (first.or(Some(base)), None);
                    continue;
                }
                Look::Unbegun => {
                    self.verified.notes.push(format!("{}: set aside, and not begun", path.display()));
                    continue;
                }
                Look::Unreadable(cause @ (HeaderError::Damaged | HeaderError::Foreign)) if mends(&path, base, limit)? => {
                    self.harmless(&path, 0, format!("{cause}: the next start reads it by what stands beside it"));
                    (first, end) = (first.or(Some(base)), None);
                    continue;
                }
                Look::Unreadable(cause) => {
                    let records = if limit == u64::MAX { 1 } else { limit - base };
                    let what = format!("{cause}: its records are not delivered; a start puts the file aside as .damaged");
                    self.fault(&path, 0, what, records, None);
                    (first, end) = (first.or(Some(base)), None);
                    continue;
                }
                Look::Segment(walk) => walk,
            };
            if let Some(end) = end.filter(|end| *end < base) {
                let what = format!("the records {end} to {} are missing before this segment", base - 1);
                self.fault(&path, 0, what, base - end, None);
            }
            first = first.or(Some(base));
            end = self.segment(*walk).map_err(io_at(&path))?;
        }
        self.places(shard, first.unwrap_or(written))
    }

    /// Returns the offset behind its last record, unless it was let go meanwhile.
    fn segment(&mut self, mut walk: Walk) -> std::io::Result<Option<u64>> {
        self.verified.segments += 1;
        let path = walk.segment.path.clone();
        let (mut position, mut next) = (SEGMENT_HEADER_BYTES as u64, walk.segment.base);
        let (mut items, mut lost, mut is_whole) = (None, false, true);
        let mut sums = Sums::default();
        while let Some(found) = walk.step()? {
            for one in found {
                match one {
                    Found::Lost { offset, to, items: known, at, .. } => {
                        let which =
                            if to == offset + 1 { format!("record {offset}") } else { format!("records {offset} to {}", to - 1) };
                        let what = format!("damaged: {which} cannot be read; what is whole around it is kept");
                        self.fault(&path, at, what, to - offset, known);
                        (next, lost, items, is_whole) = (to, true, None, false);
                    }
                    Found::Record(stored) => {
                        let header = stored.header;
                        let begins = stored.end - header.bytes();
                        if begins != position && !lost {
                            let what =
                                format!("{} bytes between two records are none of theirs", begins.saturating_sub(position));
                            self.harmless(&path, position, what);
                        }
                        if header.offset != next && !lost {
                            self.harmless(&path, begins, format!("record {} stands where {next} should", header.offset));
                        }
                        if let Some(items) = items.filter(|items| *items != header.items_before) {
                            let what = format!(
                                "record {} counts {} items before it, and there are {items}",
                                header.offset, header.items_before
                            );
                            self.harmless(&path, begins, what);
                        }
                        if Meta::decode(&stored.meta).is_none() {
                            let what =
                                format!("what came with record {} cannot be read; the record is not delivered", header.offset);
                            self.fault(&path, begins, what, 1, Some(header.items));
                        }
                        let one = Lag { records: 1, items: header.items, bytes: stored.payload.len() as u64 };
                        self.verified.records = self.verified.records.plus(one);
                        sums.add(&header);
                        (position, next, items) = (stored.end, header.offset + 1, Some(header.items_before + header.items));
                        lost = false;
                    }
                }
            }
        }
        if walk.look_gone() {
            return Ok(None);
        }
        self.extent(&walk, position, next, items.unwrap_or(0), &sums, is_whole)?;
        if !walk.torn.is_empty() {
            let note = format!("{}:{position}: a write that is under way, or was torn and never acknowledged", path.display());
            self.verified.notes.push(note);
        }
        Ok(Some(next))
    }

    /// What stands beside a segment of it: it must say what was found in it.
    fn extent(&mut self, walk: &Walk, position: u64, next: u64, items: u64, sums: &Sums, is_whole: bool) -> std::io::Result<()> {
        let path = walk.segment.path.with_extension("extent");
        if let Some(extent) = &walk.sealed {
            // Where records are damaged the segment is what is wrong, and that is told.
            if is_whole && (extent.end, extent.len, extent.items, &extent.sums) != (next, position, items, sums) {
                let what = format!(
                    "it says that the segment ends before record {} at byte {}, and it ends before record {next} at byte {position}, or the sums differ",
                    extent.end, extent.len
                );
                self.harmless(&path, 0, what);
            }
            return Ok(());
        }
        if !path.exists() {
            return Ok(());
        }
        match read_extent(&ReadOnly, &walk.segment)? {
            // Closed while it was read.
            Some(extent) if extent.end <= walk.limit && extent.len <= walk.file.metadata()?.len() => {}
            Some(extent) => {
                let what = format!(
                    "it says that the segment ends before record {} at byte {}, and the segment ends before record {next} at byte {position}",
                    extent.end, extent.len
                );
                let lost = extent.end.min(walk.limit).saturating_sub(next);
                self.fault(&path, 0, what, lost, if lost == 0 { Some(0) } else { extent.items.checked_sub(items) });
            }
            None if path.exists() => {
                let what = "it is damaged or another segment's: the next start reads the whole segment instead".to_owned();
                self.harmless(&path, 0, what);
            }
            None => {}
        }
        Ok(())
    }

    /// The files beside the segments.
    fn beside(&mut self, shard: &ShardView) -> Result<(), InspectError> {
        let mut names = match entries(&shard.directory, false) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(io_at(&shard.directory))?,
        };
        names.sort();
        for name in names {
            let path = shard.directory.join(&name);
            if name.ends_with(".damaged") {
                self.verified.notes.push(format!("{}: put aside by an earlier start, its header was damaged", path.display()));
            }
            // The extent goes before the segment.
            let is_segment = |path: &Path| path.with_extension("log").symlink_metadata().is_ok_and(|found| found.is_file());
            let is_orphan = |path: &Path| path.exists() && !is_segment(path) && path.exists();
            if name.ends_with(".extent") && base_of(&name.replace(".extent", ".log")).is_some() && is_orphan(&path) {
                self.harmless(&path, 0, "the segment that it belongs to is gone".to_owned());
            }
        }
        Ok(())
    }

    /// Nobody may stand before what is there.
    fn places(&mut self, shard: &ShardView, first: u64) -> Result<(), InspectError> {
        let path = shard.directory.join("cursors");
        match shard.places()? {
            Opened::New => {}
            Opened::Damaged => {
                let what = "the consumers' places are damaged: the next start delivers everything held once more".to_owned();
                self.harmless(&path, 0, what);
            }
            Opened::Found(standing) => {
                // The places are written before segments are let go, and were read after they were looked for.
                for (name, saved) in standing.consumers.iter().filter(|(_, saved)| !saved.rests && saved.committed < first) {
                    let (from, to) = (saved.committed, first - 1);
                    let what = format!("the records {from} to {to} are gone, and `{name}` did not have them yet");
                    self.fault(&path, 0, what, first - from, None);
                }
            }
        }
        Ok(())
    }
}
