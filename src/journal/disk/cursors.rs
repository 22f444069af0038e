//! Where the consumers of a shard stand, on disk: three slots in one file. Never written to are the one that was synced last, which a power cut
//! leaves, and the one that was written last, which a kill leaves.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::files::{Disk, DiskFile, read_whole, replace};
use crate::journal::{DropReason, ledger::CursorState};

/// A consumer's place and what became of everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) committed: u64,
    pub(super) delivered: u64,
    pub(super) dropped: [u64; DropReason::ALL.len()],
    /// Items that were appended for it before `Standing::end`: what of them is not there at the next start is missing. 0: an older weir did not
    /// say.
    pub(super) accepted: u64,
    /// It had everything when it left: it holds nothing, and begins at the end when it comes back.
    pub(super) rests: bool,
    /// It is what the last saved state of a consumer covers that remembers what it was given; the consumer may be further.
    pub(super) is_of_state: bool,
}

impl Saved {
    pub(super) fn of(cursor: &CursorState) -> Self {
        let CursorState { committed, delivered, dropped, accepted, .. } = *cursor;
        Self { committed, delivered, dropped, accepted, rests: false, is_of_state: false }
    }
}

/// The places of all consumers of a shard, by name; those that the configuration no longer has, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Counts the writes; the higher one of two is the newer.
    sequence: u64,
    /// The offset that the next record got.
    pub(super) end: u64,
    pub(super) consumers: BTreeMap<String, Saved>,
}

const SLOT_BYTES_MIN: usize = 4096;
const FILE_BYTES_MAX: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"weircur1";

impl Standing {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; 8]);
        for number in [self.sequence, self.end, self.consumers.len() as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (name, saved) in &self.consumers {
            bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            let counts = [saved.committed, saved.delivered, saved.dropped.len() as u64];
            for number in counts.iter().chain(&saved.dropped) {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        // Behind what earlier versions read.
        for saved in self.consumers.values() {
            bytes.extend_from_slice(&saved.accepted.to_le_bytes());
        }
        for saved in self.consumers.values() {
            bytes.extend_from_slice(&u64::from(saved.rests).to_le_bytes());
        }
        for saved in self.consumers.values() {
            bytes.extend_from_slice(&u64::from(saved.is_of_state).to_le_bytes());
        }
        let len = (bytes.len() as u32).to_le_bytes();
        let sum = bytes.get(16..).map_or(0, crc32c::crc32c).to_le_bytes();
        for (place, byte) in bytes.iter_mut().skip(8).zip(len.into_iter().chain(sum)) {
            *place = byte;
        }
        bytes
    }

    /// The newest of the slots that are whole.
    fn newest(bytes: &[u8]) -> Option<Self> {
        // A slot is a multiple of this; how many there are does not matter.
        let slots = (0..bytes.len()).step_by(SLOT_BYTES_MIN).filter_map(|at| bytes.get(at..));
        slots.filter_map(Self::decode).max_by_key(|standing| standing.sequence)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut numbers = Numbers(bytes.strip_prefix(MAGIC)?);
        let (len, sum) = (numbers.u32()?, numbers.u32()?);
        let content = bytes.get(16..usize::try_from(len).ok()?)?;
        if crc32c::crc32c(content) != sum {
            return None;
        }
        let mut numbers = Numbers(content);
        let mut standing = Self { sequence: numbers.u64()?, end: numbers.u64()?, consumers: BTreeMap::new() };
        for _ in 0..numbers.u64()? {
            let len = usize::try_from(numbers.u64()?).ok()?;
            let name = std::str::from_utf8(numbers.take(len)?).ok()?.to_owned();
            let mut saved = Saved { committed: numbers.u64()?, delivered: numbers.u64()?, ..Saved::default() };
            // A newer or older weir may know more or fewer reasons.
            for at in 0..numbers.u64()? {
                let count = numbers.u64()?;
                if let Some(place) = usize::try_from(at).ok().and_then(|at| saved.dropped.get_mut(at)) {
                    *place = count;
                }
            }
            standing.consumers.insert(name, saved);
        }
        for saved in standing.consumers.values_mut() {
            saved.accepted = numbers.u64().unwrap_or(0);
        }
        for saved in standing.consumers.values_mut() {
            saved.rests = numbers.u64() == Some(1);
        }
        for saved in standing.consumers.values_mut() {
            saved.is_of_state = numbers.u64() == Some(1);
        }
        Some(standing)
    }
}

struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

const SLOTS: u64 = 3;

/// The file.
pub(super) struct CursorFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    slot_bytes: usize,
    sequence: u64,
    /// The slot that was synced last.
    synced: u64,
    /// The slot that was written last.
    written: u64,
}

/// What reading the file found.
pub(super) enum Opened {
    New,
    Found(Standing),
    /// No slot is whole.
    Damaged,
}

impl Opened {
    pub(super) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let bytes = read_whole(disk, path, FILE_BYTES_MAX)?;
        Ok(bytes.map_or(Self::New, |bytes| Standing::newest(&bytes).map_or(Self::Damaged, Self::Found)))
    }
}

impl CursorFile {
    pub(super) fn open(disk: Arc<dyn Disk>, directory: &Path) -> io::Result<(Self, Opened)> {
        let path = directory.join("cursors");
        let opened = Opened::read(&*disk, &path)?;
        let sequence = if let Opened::Found(standing) = &opened { standing.sequence } else { 0 };
        Ok((Self { disk, path, file: None, slot_bytes: 0, sequence, synced: 0, written: 0 }, opened))
    }

    /// Writes the places down. Without `sync` they outlive the process, not the machine.
    pub(super) fn write(&mut self, standing: &mut Standing, sync: bool) -> io::Result<()> {
        self.sequence += 1;
        standing.sequence = self.sequence;
        let bytes = standing.encode();
        let file = match &self.file {
            Some(file) if bytes.len() <= self.slot_bytes => file.clone(),
            _ => {
                // Never synced again, if it failed: a new file.
                self.file = None;
                self.slot_bytes = (bytes.len() * 2).next_power_of_two().max(SLOT_BYTES_MIN);
                let mut all = bytes;
                all.resize(self.slot_bytes * SLOTS as usize, 0);
                replace(&*self.disk, &self.path, &all, true)?;
                (self.synced, self.written) = (0, 0);
                self.file = Some(self.disk.open(&self.path)?);
                return Ok(());
            }
        };
        let slot = (0..SLOTS).find(|slot| ![self.synced, self.written].contains(slot)).unwrap_or_default();
        let at = slot * self.slot_bytes as u64;
        let done = file.write_at(&mut [IoSlice::new(&bytes)], at).and_then(|()| if sync { file.sync() } else { Ok(()) });
        if done.is_err() {
            self.file = None;
            return done;
        }
        self.written = slot;
        if sync {
            self.synced = slot;
        }
        Ok(())
    }
}
