//! What a configuration may refer to outside itself: variables and files.

use std::{
    fs::File,
    io::{self, Read as _},
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
