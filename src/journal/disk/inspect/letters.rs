//! The dead letters of a journal: looked at beside a weir that runs, asked to be sent once more, or removed.

use std::{collections::HashSet, io, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    super::{
        LETTERS,
        files::{Disk, SystemDisk, read_whole},
        letters::{self, LetterStore, Reading, RequestFile, requests, requests_in},
        lock,
        nonces::Nonces,
    },
    Entry, InspectError, Journal, LostRecords, ReadOnly, Released, SMALL_FILE_BYTES_MAX, ShardView, directories, io_at,
};
use crate::{
    journal::{Lag, LetterFilter, LetterRef, Note, ReplayRequest},
    signal::{Signal, UnixNanos},
};

/// A dead letter as it lies in the journal.
#[derive(Debug, Clone)]
pub struct FoundLetter {
    pub offset: u64,
    pub received: UnixNanos,
    pub signal: Signal,
    pub items: u64,
    /// The body of an export request.
    pub payload: Bytes,
    pub note: Note,
}

/// Names of the two kinds of records, by what stands where a topic has the number of a source.
const KINDS: [&str; 2] = ["letter", "settled"];
/// Set aside for a look and a removal, which write little.
const UNBOUNDED: u64 = 1 << 50;

impl Journal {
    fn letters_directory(&self) -> PathBuf {
        self.path.join(LETTERS)
    }

    /// The log of letters, as a shard; `None` where there never was one.
    pub(super) fn letters_shard(&self) -> Result<Option<ShardView>, InspectError> {
        if !directories(&self.path)?.iter().any(|name| name == LETTERS) {
            return Ok(None);
        }
        let directory = self.letters_directory();
        let format = directory.join("FORMAT");
        match read_whole(&ReadOnly, &format, SMALL_FILE_BYTES_MAX).map_err(io_at(&format))? {
            Some(found) if found != letters::FORMAT.as_bytes() => {
                let found = String::from_utf8_lossy(&found).chars().take(40).collect();
                return Err(InspectError::Format { path: format.display().to_string(), found });
            }
            _ => {}
        }
        let sources = KINDS.map(str::to_owned).into();
        Ok(Some(ShardView { topic: LETTERS.to_owned(), number: 0, directory, sources }))
    }

    /// Tells every letter that is held, oldest first, and what is damaged between them.
    ///
    /// # Errors
    /// The disk's, those of `tell`, and a format that is not ours.
    pub fn letters<E: From<InspectError>>(
        &self,
        mut tell: impl FnMut(Result<FoundLetter, LostRecords>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(shard) = self.letters_shard()? else { return Ok(()) };
        let mut gone = HashSet::new();
        for entry in shard.records(0)? {
            if let Entry::Record(record) = entry?
                && record.letter.is_none()
            {
                gone.extend(letters::settled(&record.payload).map(|letter: LetterRef| letter.offset));
            }
        }
        for entry in shard.records(0)? {
            match entry? {
                Entry::Lost(lost) => tell(Err(lost))?,
                Entry::Record(record) if gone.contains(&record.offset) => {}
                Entry::Record(record) => {
                    let Some(note) = record.letter else { continue };
                    tell(Ok(FoundLetter {
                        offset: record.offset,
                        received: record.received,
                        signal: record.signal,
                        items: record.items,
                        payload: record.payload,
                        note,
                    }))?;
                }
            }
        }
        Ok(())
    }

    /// Asks for letters to be delivered once more: by the weir that runs here, or at the next start.
    ///
    /// # Errors
    /// The request cannot be written.
    pub fn ask_for_replay(&self, request: &ReplayRequest) -> Result<RequestFile, InspectError> {
        let directory = requests_in(&self.letters_directory());
        requests::ask(&directory, request).map_err(io_at(&directory))
    }

    /// Removes letters. Returns how many.
    ///
    /// # Errors
    /// A weir runs on the directory, or the disk's.
    pub fn remove_letters(&self, filter: &LetterFilter) -> Result<(Lag, Released), InspectError> {
        let _lock = lock(&self.path)?;
        let (mut removed, mut released) = (Lag::default(), Released::default());
        let Some(shard) = self.letters_shard()? else { return Ok((removed, released)) };
        let directory = self.letters_directory();
        if *filter == LetterFilter::default() {
            self.letters(|letter| {
                if let Ok(letter) = letter {
                    removed = removed.plus(Lag { records: 1, items: letter.items, bytes: letter.payload.len() as u64 });
                }
                Ok::<_, InspectError>(())
            })?;
            // Without a word into the log: it is done where the disk is full, too.
            shard.release_all(&mut released)?;
            return Ok((removed, released));
        }
        let io = |error: &dyn std::fmt::Display| io_at(&directory)(io::Error::other(error.to_string()));
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let (store, _) = LetterStore::open(&disk, directory.clone(), true, UNBOUNDED, Nonces::random(UnixNanos(0)), UnixNanos(0))
            .map_err(|error| io(&error))?;
        let (before, mut reading) = (store.usage().0, Reading::default());
        let takes = |_, note: &Note| filter.takes(note);
        let mut all = Vec::new();
        while let Some(found) = store.read(&mut reading, 1 << 20, &takes).map_err(|error| io(&error))? {
            all.extend(found.into_iter().map(|(at, _)| at));
        }
        for some in all.chunks(1000) {
            store.append(&[], some, UnixNanos(0)).map_err(|error| io(&error))?;
            removed = some.iter().fold(removed, |sum, at| sum.plus(Lag { records: 1, items: at.items, bytes: at.bytes }));
        }
        released.bytes = before.saturating_sub(store.usage().0);
        Ok((removed, released))
    }
}
