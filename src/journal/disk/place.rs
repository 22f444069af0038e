//! Where the journal lies when nobody said, and how much of that disk it may take.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Of what is free on the disk when weir starts.
const SHARE: u64 = 2;
/// In a container without a volume: the layer is shared with everything else on the node, and gone with the container.
const CONTAINER_BYTES: u64 = 1 << 30;
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// The first of `candidates` that can be written to; makes it. Errors of all of them otherwise.
pub fn choose_directory(candidates: &[PathBuf]) -> Result<PathBuf, Vec<(PathBuf, io::Error)>> {
    let mut failed = Vec::new();
    for candidate in candidates {
        match is_writable(candidate) {
            Ok(()) => return Ok(candidate.clone()),
            Err(error) => failed.push((candidate.clone(), error)),
        }
    }
    Err(failed)
}

fn is_writable(path: &Path) -> io::Result<()> {
    super::make_directory(path)?;
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    Ok(())
}

/// Bytes that a journal in `directory` may take where nobody said.
pub(super) fn share(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let kind = rustix::fs::statfs(directory)?;
    #[expect(clippy::cast_sign_loss, reason = "a magic number, signed on some systems")]
    let is_overlay = kind.f_type as u64 == OVERLAY_MAGIC;
    let share = (free / SHARE).max(super::SEGMENT_BYTES_MIN * 16);
    if is_overlay {
        tracing::warn!(
            directory = %directory.display(),
            "the journal lies in the container's own layer and is gone with it: mount a volume there; until then it takes at most 1 GiB"
        );
    }
    Ok(if is_overlay { share.min(CONTAINER_BYTES) } else { share })
}
