//! What a person asked to be replayed, each in a small file: written beside a weir that runs, or for the next start. A request stays until
//! all that it asks for was tried, so a kill in between begins it again with what is left.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use super::super::{
    files::{SystemDisk, read_whole, replace},
    make_directory,
};
use crate::{
    journal::{LetterFilter, Refusal, ReplayRequest},
    signal::UnixNanos,
};

/// What this version writes; others are left as they are.
const FIRST_LINE: &str = "weir replay 1";
const SUM: &str = "# crc32c ";
const FILE_BYTES_MAX: usize = 64 << 10;
/// Asked for.
const ASKED: &str = "asked";
/// Asked for, and seen by a weir that runs.
const TAKEN: &str = "taken";

/// A request's file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestFile(PathBuf);

fn encode(request: &ReplayRequest) -> String {
    let LetterFilter { consumer, reason, since } = &request.filter;
    let mut lines = vec![FIRST_LINE.to_owned(), format!("to {}", request.to), format!("asked {}", request.asked.0)];
    lines.extend(consumer.as_ref().map(|consumer| format!("consumer {consumer}")));
    lines.extend(reason.map(|reason| format!("reason {}", reason.as_str())));
    lines.extend(since.map(|since| format!("since {}", since.0)));
    let content = lines.join("\n");
    format!("{content}\n{SUM}{:08x}\n", crc32c::crc32c(content.as_bytes()))
}

fn decode(text: &str) -> Option<ReplayRequest> {
    let (content, sum) = text.trim_end_matches('\n').rsplit_once('\n')?;
    if sum.strip_prefix(SUM)? != format!("{:08x}", crc32c::crc32c(content.as_bytes())) {
        return None;
    }
    let mut lines = content.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let mut request = ReplayRequest { filter: LetterFilter::default(), to: 0, asked: UnixNanos(0) };
    for line in lines {
        let (key, value) = line.split_once(' ')?;
        match key {
            "to" => request.to = value.parse().ok()?,
            "asked" => request.asked = UnixNanos(value.parse().ok()?),
            "consumer" => request.filter.consumer = Some(value.to_owned()),
            "reason" => request.filter.reason = Some(Refusal::parse(value)?),
            "since" => request.filter.since = Some(UnixNanos(value.parse().ok()?)),
            // A bound that is not known must not be passed over.
            _ => return None,
        }
    }
    Some(request)
}

/// Asks, in the directory of requests.
pub(in super::super) fn ask(directory: &Path, request: &ReplayRequest) -> io::Result<RequestFile> {
    make_directory(directory)?;
    let name = format!("{:020}-{}", request.asked.0, std::process::id());
    let path = directory.join(name).with_extension(ASKED);
    replace(&SystemDisk, &path, encode(request).as_bytes(), true)?;
    // Whoever asks may be root, and weir somebody else; where this is not allowed, they are the same.
    let owner = fs::metadata(directory.parent().unwrap_or(directory))?;
    drop(chown(&path, Some(owner.uid()), Some(owner.gid())));
    Ok(RequestFile(path))
}

/// The requests that are there, oldest first; `None`: one that this weir cannot read.
pub(super) fn all(directory: &Path) -> io::Result<Vec<(RequestFile, Option<ReplayRequest>)>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let is_request = path.extension().is_some_and(|extension| extension == ASKED || extension == TAKEN);
        if is_request && let Some(bytes) = read_whole(&SystemDisk, &path, FILE_BYTES_MAX).unwrap_or_else(|_| Some(Vec::new())) {
            files.push((RequestFile(path), String::from_utf8(bytes).ok().as_deref().and_then(decode)));
        }
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

impl RequestFile {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether it was not looked at by a weir that runs yet.
    pub fn waits(&self) -> bool {
        self.0.extension().is_some_and(|extension| extension == ASKED) && self.0.exists()
    }

    /// Whether all that was asked for was tried.
    pub fn is_done(&self) -> bool {
        // In this order: it goes from the one name to the other.
        !self.0.with_extension(ASKED).exists() && !self.0.with_extension(TAKEN).exists()
    }

    /// Shows whoever asked that a weir saw it.
    pub fn take(self) -> io::Result<Self> {
        let taken = self.0.with_extension(TAKEN);
        if taken != self.0 {
            fs::rename(&self.0, &taken)?;
        }
        Ok(Self(taken))
    }

    /// All of it was tried.
    pub fn done(&self) -> io::Result<()> {
        fs::remove_file(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_asked_and_a_foreign_one_is_left() {
        let directory = tempfile::TempDir::new().unwrap();
        let filter = LetterFilter {
            consumer: Some("otlp_grpc/a b in pipeline traces".to_owned()),
            reason: Some(Refusal::Partial),
            since: Some(UnixNanos(5)),
        };
        let request = ReplayRequest { filter, to: 7, asked: UnixNanos(9) };
        let bare = ReplayRequest { filter: LetterFilter::default(), to: u64::MAX, asked: UnixNanos(10) };
        let file = ask(directory.path(), &request).unwrap();
        ask(directory.path(), &bare).unwrap();
        let changed = encode(&request).replace("reason partial", "colour green");
        fs::write(directory.path().join("99999999999999999999-1.asked"), changed).unwrap();
        fs::write(directory.path().join("something else"), "x").unwrap();
        let found: Vec<_> = all(directory.path()).unwrap().into_iter().map(|(_, request)| request).collect();
        assert_eq!(found, [Some(request), Some(bare), None]);
        assert!(file.waits());
        let taken = file.clone().take().unwrap();
        assert!(!file.waits() && !taken.waits() && all(directory.path()).unwrap()[0].0 == taken);
        assert!(!file.is_done());
        taken.done().unwrap();
        assert!(file.is_done());
        assert_eq!(all(directory.path()).unwrap().len(), 2);
    }
}
