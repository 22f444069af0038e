//! A file that only ever holds whole messages, and those put aside before it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::Rotation;
use crate::{runtime::appendable, signal::UnixNanos};

const MEGABYTE: u64 = 1024 * 1024;
/// The form of the time in a rotated file's name.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";
const STAMP_LEN: usize = "2026-11-21T08-30-00.000".len();

pub(super) struct Rules {
    pub(super) path: PathBuf,
    pub(super) rotation: Option<Rotation>,
    /// What the file holds at the start is dropped.
    pub(super) truncate: bool,
    /// Permissions of the directory to make; `None`: it has to be there.
    pub(super) directory: Option<u32>,
}

impl Rules {
    /// Whether the file can be opened, as far as can be told without making it.
    pub(super) fn check(&self) -> Result<(), FileError> {
        let failed = |source| FileError { what: "open", path: self.path.clone(), source };
        match appendable(&self.path) {
            // Its directory is made at the start.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.is_some() => Ok(()),
            checked => checked.map_err(failed),
        }
    }
}

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub(super) struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

pub(super) struct Output {
    rules: Rules,
    file: Option<File>,
    /// Bytes of whole messages in it.
    len: u64,
    /// It was open once: opened again after an error, it is never truncated.
    opened: bool,
    /// The time in the name of the last file put aside, in milliseconds since 1970.
    last_aside: u64,
    /// The next write ends in an error after this many bytes.
    #[cfg(test)]
    room: Option<usize>,
}

impl Output {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            file: None,
            len: 0,
            opened: false,
            last_aside: 0,
            #[cfg(test)]
            room: None,
        }
    }

    #[cfg(test)]
    pub(super) fn fail_next_after(&mut self, room: usize) {
        self.room = Some(room);
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> FileError {
        let path = self.rules.path.clone();
        move |source| FileError { what, path, source }
    }

    pub(super) fn open(&mut self) -> Result<(), FileError> {
        if self.file.is_some() {
            return Ok(());
        }
        if let (Some(mode), Some(directory)) = (self.rules.directory, self.rules.path.parent())
            && !directory.as_os_str().is_empty()
        {
            make_directory(directory, mode).map_err(self.failed("make the directory of"))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.rules.path).map_err(self.failed("open"))?;
        if self.rules.truncate && !self.opened {
            file.set_len(0).map_err(self.failed("empty"))?;
        }
        self.len = file.metadata().map_err(self.failed("look at"))?.len();
        self.file = Some(file);
        self.opened = true;
        Ok(())
    }

    /// Writes one whole message, or leaves the file as it was.
    pub(super) fn write(&mut self, message: &[u8], now: UnixNanos) -> Result<(), FileError> {
        self.open()?;
        let len = message.len() as u64;
        let full = |rotation: &Rotation| self.len.saturating_add(len) > rotation.max_megabytes.saturating_mul(MEGABYTE);
        if self.len > 0 && self.rules.rotation.as_ref().is_some_and(full) {
            self.rotate(now)?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        #[cfg(test)]
        let written = match self.room.take() {
            None => file.write_all(message),
            Some(room) => file.write_all(&message[..room]).and(Err(io::ErrorKind::StorageFull.into())),
        };
        #[cfg(not(test))]
        let written = file.write_all(message);
        match written {
            Ok(()) => {
                self.len += len;
                Ok(())
            }
            Err(error) => {
                // Cut what is half written, or the retry would follow a torn message. If that fails too, the file is opened and measured afresh.
                if file.set_len(self.len).is_err() {
                    self.file = None;
                }
                Err(self.failed("write to")(error))
            }
        }
    }

    fn rotate(&mut self, now: UnixNanos) -> Result<(), FileError> {
        let aside = self.aside(now);
        fs::rename(&self.rules.path, &aside).map_err(self.failed("put aside"))?;
        // The old handle goes only now: if the rename failed, writing goes on where it was.
        self.file = None;
        self.open()?;
        if let Err(error) = self.clean_up(now) {
            tracing::warn!(path = %self.rules.path.display(), %error, "old rotated files could not be deleted");
        }
        Ok(())
    }

    /// A name that is not taken and later than the last one, whatever the clock does: names are the order in which files are deleted.
    fn aside(&mut self, now: UnixNanos) -> PathBuf {
        let (stem, extension) = self.name_parts();
        let mut millis = (now.0 / 1_000_000).max(self.last_aside + 1);
        loop {
            self.last_aside = millis;
            let at = Timestamp::from_millisecond(millis as i64).unwrap_or(Timestamp::UNIX_EPOCH);
            let path = self.rules.path.with_file_name(format!("{stem}-{}{extension}", at.strftime(STAMP)));
            if !path.exists() {
                return path;
            }
            millis += 1;
        }
    }

    /// `telemetry` and `.json`.
    fn name_parts(&self) -> (String, String) {
        let name = self.rules.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.rfind('.').and_then(|dot| name.split_at_checked(dot)) {
            Some((stem, extension)) => (stem.to_owned(), extension.to_owned()),
            None => (name, String::new()),
        }
    }

    fn clean_up(&self, now: UnixNanos) -> io::Result<()> {
        let Some(rotation) = &self.rules.rotation else { return Ok(()) };
        let (stem, extension) = self.name_parts();
        let directory = self.rules.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut aside = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let stamp = name.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(&extension));
            if let Some(stamp) = stamp.filter(|stamp| stamp.len() == STAMP_LEN)
                && let Ok(at) = jiff::civil::DateTime::strptime(STAMP, stamp)
            {
                aside.push((at, name));
            }
        }
        // Newest first.
        aside.sort_by(|a, b| b.cmp(a));
        let age_max = Duration::from_secs(rotation.max_days.saturating_mul(24 * 60 * 60));
        let now = Timestamp::from_millisecond((now.0 / 1_000_000) as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        for (at, (stamp, name)) in aside.into_iter().enumerate() {
            let stamp = jiff::tz::TimeZone::UTC.to_timestamp(stamp).unwrap_or(now);
            let too_many = rotation.max_backups > 0 && at >= rotation.max_backups;
            let too_old = rotation.max_days > 0 && Duration::try_from(now.duration_since(stamp)).is_ok_and(|age| age > age_max);
            if too_many || too_old {
                fs::remove_file(directory.join(name))?;
            }
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }
}

fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode);
    #[cfg(not(unix))]
    let _ = mode;
    builder.create(directory)
}
