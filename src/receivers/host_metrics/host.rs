//! The files that tell of the host: below `root_path`, read with a bound, parsed by `procfs-core`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use procfs_core::{ExplicitSystemInfo, FromBufReadSI as _, FromRead, KernelStats, ProcResult};

/// Bytes that are read of one file. The longest that the kernel writes, of a host with thousands of CPUs or mounts, are a quarter of it.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Lines that are looked at together, of a file that is read in pieces.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes of a file that is read in pieces: a million and a half connections.
const PIECES_BYTES_MAX: u64 = 256 << 20;

/// Why a part of the host is not told of.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{path}: {cause}")]
    Unread { path: String, cause: io::Error },
    #[error("{path} is not as the kernel writes it: {message}")]
    Garbled { path: String, message: String },
    #[error("the file system at {path} does not answer")]
    Silent { path: String },
}

impl Fault {
    pub(super) fn garbled(path: &str, message: impl Into<String>) -> Self {
        Self::Garbled { path: path.to_owned(), message: message.into() }
    }

    /// Whether what was to be read is not there any more, as happens to processes.
    pub(super) fn is_gone(&self) -> bool {
        let Self::Unread { cause, .. } = self else { return false };
        cause.kind() == io::ErrorKind::NotFound || cause.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
    }
}

/// Where the host's files are.
#[derive(Debug, Clone)]
pub(super) struct Host {
    root: PathBuf,
    /// The same of our own: what tells of the group this process is in.
    own: PathBuf,
    pub(super) ticks_per_second: u64,
    pub(super) page_bytes: u64,
}

impl Host {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            own: PathBuf::from("/"),
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            page_bytes: rustix::param::page_size() as u64,
        }
    }

    /// With our own files below another root, too, of a kernel with the usual constants.
    #[cfg(test)]
    pub(super) fn whole(root: &Path) -> Self {
        Self { root: root.to_owned(), own: root.to_owned(), ticks_per_second: 100, page_bytes: 4096 }
    }

    /// The same host, where only what tells of this process is looked at.
    pub(super) fn own(&self) -> Self {
        Self { root: self.own.clone(), ..self.clone() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// `path` has no slash at its beginning.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn open(&self, path: &str) -> io::Result<File> {
        // A pipe below a root of someone's making would wait for whoever writes to it.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(nonblocking).open(self.path(path))
    }

    pub(super) fn bytes(&self, path: &str) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::with_capacity(4096);
        let read = self.open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.map_err(|cause| Fault::Unread { path: path.to_owned(), cause })?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Fault::garbled(path, format!("more than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        Ok(bytes)
    }

    /// Text; what is not UTF-8 in it is replaced.
    pub(super) fn text(&self, path: &str) -> Result<String, Fault> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Result<u64, Fault> {
        let text = self.text(path)?;
        text.trim().parse().map_err(|_| Fault::garbled(path, "not a number"))
    }

    /// A whole file, as `procfs-core` reads it.
    pub(super) fn parsed<T: FromRead>(&self, path: &str) -> Result<T, Fault> {
        let bytes = self.bytes(path)?;
        guarded(path, || T::from_read(bytes.as_slice()))
    }

    /// A file of lines below a heading, of any length: `look` is given some whole lines at a time, behind the heading.
    pub(super) fn in_pieces(&self, path: &str, mut look: impl FnMut(&[u8]) -> ProcResult<()>) -> Result<(), Fault> {
        let unread = |cause| Fault::Unread { path: path.to_owned(), cause };
        let mut lines = BufReader::with_capacity(PIECE_BYTES, self.open(path).map_err(unread)?).take(PIECES_BYTES_MAX);
        let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
        let mut next = |piece: &mut Vec<u8>| {
            let read = lines.by_ref().take(PIECE_BYTES as u64).read_until(b'\n', piece).map_err(unread)?;
            if read == PIECE_BYTES {
                return Err(Fault::garbled(path, "a line has no end"));
            }
            if lines.limit() == 0 {
                return Err(Fault::garbled(path, format!("more than {} MiB", PIECES_BYTES_MAX >> 20)));
            }
            Ok(read)
        };
        let heading = next(&mut piece)?;
        loop {
            let line = next(&mut piece)?;
            if line == 0 || piece.len() > PIECE_BYTES {
                guarded(path, || look(&piece))?;
                piece.truncate(heading);
            }
            if line == 0 {
                return Ok(());
            }
        }
    }

    /// The names in a directory that are numbers: of processes, threads, descriptors.
    pub(super) fn numbers_in(&self, path: &str) -> Result<Vec<u32>, Fault> {
        let unread = |cause| Fault::Unread { path: path.to_owned(), cause };
        let mut numbers = Vec::new();
        for entry in fs::read_dir(self.path(path)).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(numbers)
    }

    pub(super) fn link(&self, path: &str) -> Result<String, Fault> {
        let target = fs::read_link(self.path(path)).map_err(|cause| Fault::Unread { path: path.to_owned(), cause })?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// What `procfs-core` has to be told to read ticks.
    pub(super) fn system(&self) -> ExplicitSystemInfo {
        ExplicitSystemInfo {
            boot_time_secs: 0,
            ticks_per_second: self.ticks_per_second,
            page_size: self.page_bytes,
            is_little_endian: cfg!(target_endian = "little"),
        }
    }

    /// `/proc/stat`
    pub(super) fn kernel_stats(&self) -> Result<KernelStats, Fault> {
        const PATH: &str = "proc/stat";
        let (bytes, system) = (self.bytes(PATH)?, self.system());
        guarded(PATH, || KernelStats::from_buf_read(bytes.as_slice(), &system))
    }

    pub(super) fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_per_second as f64
    }
}

/// The parsers trust the kernel, and slice where they do; below `root_path` may lie anything. One that panics has lost its file, no more.
fn guarded<T>(path: &str, parse: impl FnOnce() -> ProcResult<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(parse)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(procfs_core::ProcError::InternalError(error))) => Err(Fault::garbled(path, error.msg)),
        Ok(Err(error)) => Err(Fault::garbled(path, error.to_string())),
        Err(_) => Err(Fault::garbled(path, "it breaks off")),
    }
}
