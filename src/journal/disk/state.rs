//! A file for what a component remembers: written whole beside the old one, then put in its place.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::files::{Disk, read_whole, replace};

const MAGIC: &[u8; 8] = b"weirsta1";
const FILE_BYTES_MAX: usize = 8 << 30;

/// The last saved state of one component.
pub struct StateFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    sync: bool,
}

/// Why a saved state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path}: {cause}")]
    Io { path: String, cause: io::Error },
    #[error("{path} is damaged")]
    Damaged { path: String },
}

impl StateFile {
    pub(super) fn new(disk: Arc<dyn Disk>, path: PathBuf, sync: bool) -> Self {
        Self { disk, path, sync }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another one of the same component.
    #[must_use]
    pub fn beside(&self, what: &str) -> Self {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".");
        path.push(what);
        Self { disk: self.disk.clone(), path: path.into(), sync: self.sync }
    }

    /// It is gone when this is done, also after a power cut.
    pub fn remove(&self) -> Result<(), StateError> {
        let done = match self.disk.remove(&self.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(()) if self.sync => self.path.parent().map_or(Ok(()), |directory| self.disk.sync_directory(directory)),
            done => done,
        };
        done.map_err(|cause| StateError::Io { path: self.path.display().to_string(), cause })
    }

    /// `None`: nothing was saved yet.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StateError> {
        let path = || self.path.display().to_string();
        let bytes =
            read_whole(&*self.disk, &self.path, FILE_BYTES_MAX).map_err(|cause| StateError::Io { path: path(), cause })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let content = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<8>());
        match content {
            Some((sum, content)) if u64::from_le_bytes(*sum) == u64::from(crc32c::crc32c(content)) => Ok(Some(content.to_vec())),
            _ => Err(StateError::Damaged { path: path() }),
        }
    }

    pub fn write(&self, content: &[u8]) -> Result<(), StateError> {
        let mut bytes = Vec::with_capacity(content.len() + 16);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&u64::from(crc32c::crc32c(content)).to_le_bytes());
        bytes.extend_from_slice(content);
        replace(&*self.disk, &self.path, &bytes, self.sync)
            .map_err(|cause| StateError::Io { path: self.path.display().to_string(), cause })
    }
}
