//! What a configuration may refer to outside itself: variables and files.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
};

use super::yaml::TEXT_MAX;

/// Variables and files; tests give their own.
pub trait Environment {
    /// The value of an environment variable that is set.
    fn variable(&self, name: &str) -> Option<String>;
    /// The content of a file.
    fn file(&self, path: &str) -> io::Result<Vec<u8>>;
}

/// The process's own environment and the machine's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Environment for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > TEXT_MAX {
            return Err(io::Error::other(format!("larger than {} MiB", TEXT_MAX >> 20)));
        }
        Ok(bytes)
    }
}

/// A file as it was: another one under the name, or another content, has another stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Behind all symbolic links.
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Moves with every write, also where the time of the last one is set back.
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no such file now.
    pub fn of(path: &str) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Notes which files are read, each with its stamp from before it was.
pub(super) struct Noting<'e> {
    pub(super) inner: &'e dyn Environment,
    pub(super) files: RefCell<Vec<(String, Option<Stamp>)>>,
}

impl Environment for Noting<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.files.borrow_mut().push((path.to_owned(), Stamp::of(path)));
        self.inner.file(path)
    }
}
