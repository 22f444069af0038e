//! The files under the journal, behind a trait, so that tests can run it on a disk that tears, fills, lies and crashes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use crate::runtime::blocking;

/// A file system, as far as the journal uses one.
pub(super) trait Disk: Send + Sync {
    /// A new file with room for `bytes` set aside. Fails where there is one already.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of the files in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes what was created, renamed and removed in a directory last.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// An open file.
pub(super) trait DiskFile: Send + Sync {
    /// Writes all of `slices`, one after the other, from `at` on.
    fn write_at(&self, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()>;
    /// Fills `buffer` from `at` on, or as much of it as there is. Returns the number of bytes.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// Makes what was written last. After an error the state of the file is unknown: it is not to be synced again.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
}

/// The disk of this machine.
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        // Telemetry of others: for nobody's eyes but ours.
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if bytes > 0
            && let Err(error) = allocate(&file, bytes)
        {
            drop(fs::remove_file(path));
            return Err(error);
        }
        Ok(Arc::new(Opened(Some(file))))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        Ok(Arc::new(Opened(Some(file))))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // Not only files: a link where a segment should be is an error of whoever opens it, not nothing.
            if !entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// Sets room aside, so that a full disk is found out before anything is written. Where the file system cannot, the file is made that long.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
        done => Ok(done?),
    }
}

/// Calls `write` until all is written.
pub(super) fn write_all(
    mut slices: &mut [IoSlice<'_>],
    mut at: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    // An empty one at the front would look as if nothing could be written.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        // A call takes 1,024 pieces at most.
        let some = slices.get(..slices.len().min(1024)).unwrap_or_default();
        match write(some, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Calls `read` until the buffer is full or there is no more.
pub(super) fn fill(
    mut buffer: &mut [u8],
    mut at: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match read(buffer, at) {
            Ok(0) => break,
            Ok(some) => {
                total += some;
                at += some as u64;
                buffer = buffer.get_mut(some..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// A file of this machine.
///
/// Where it was removed while it was open, its room is freed by whoever closes it, which takes the kernel 10 to 20 ms for 64 MiB that are in the page
/// cache: too long for a writer whose groups wait, and for the reactor.
struct Opened(Option<File>);

/// Removed files of at least so many bytes are closed beside whoever lets them go.
const FREED_BESIDE_BYTES: u64 = 1 << 20;
/// Removed files that wait to be closed; a backlog that is drained lets many go at once. Beyond that, who lets one go waits for it.
const FREED_BESIDE_MAX: usize = 1024;
/// Freed at once, and the rest after that: syncs of others come in between, and the processor is theirs for most of the time.
const FREED_AT_ONCE_BYTES: u64 = 4 << 20;
const FREED_REST: Duration = Duration::from_millis(4);

/// Takes removed files to be closed. `None`: there is no thread for it.
static FREEING: LazyLock<Option<SyncSender<File>>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel::<File>(FREED_BESIDE_MAX);
    let thread = std::thread::Builder::new()
        .name("journal-free".to_owned())
        .spawn(move || receiver.into_iter().for_each(|file| free(&file)));
    thread.is_ok().then_some(sender)
});

/// Makes a removed file shorter and shorter. Closing it does what is left.
fn free(file: &File) {
    let Ok(mut bytes) = file.metadata().map(|file| file.len()) else { return };
    while bytes > FREED_AT_ONCE_BYTES {
        bytes -= FREED_AT_ONCE_BYTES;
        if file.set_len(bytes).is_err() {
            return;
        }
        std::thread::sleep(FREED_REST);
    }
}

impl Opened {
    fn file(&self) -> io::Result<&File> {
        self.0.as_ref().ok_or_else(|| io::Error::other("the file is closed"))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some(file) = self.0.take() else { return };
        let is_large_and_removed =
            |file: &File| file.metadata().is_ok_and(|file| file.nlink() == 0 && file.len() >= FREED_BESIDE_BYTES);
        if is_large_and_removed(&file)
            && let Some(freeing) = &*FREEING
        {
            // Full: it comes back, and is closed here.
            drop(freeing.try_send(file));
        }
    }
}

impl DiskFile for Opened {
    fn write_at(&self, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        DiskFile::write_at(self.file()?, slices, at)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        DiskFile::read_at(self.file()?, buffer, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        DiskFile::set_len(self.file()?, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }
}

impl DiskFile for File {
    fn write_at(&self, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        write_all(slices, at, |some, at| Ok(rustix::io::pwritev(self, some, at)?))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        // What was written a moment ago is still in memory. Who waited for it beside the reactor would hop from thread to thread with each read,
        // and each of these threads keeps memory of its own.
        fill(buffer, at, |buffer, at| {
            match rustix::io::preadv2(self, &mut [IoSliceMut::new(buffer)], at, rustix::io::ReadWriteFlags::NOWAIT) {
                Ok(read) if read > 0 => Ok(read),
                _ => blocking(|| FileExt::read_at(self, buffer, at)),
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Writes a small file whole: beside it first, then in its place, so that a reader finds the old one or the new one.
pub(super) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    // Behind the whole name: what differs by its extension only is another file.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match disk.remove(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&beside, 0)?;
    file.write_at(&mut [IoSlice::new(bytes)], 0)?;
    if sync {
        file.sync()?;
    }
    disk.rename(&beside, path)?;
    if sync && let Some(directory) = path.parent() {
        disk.sync_directory(directory)?;
    }
    Ok(())
}

/// Reads a small file whole; `None` where there is none. Longer than `bytes_max`: cut there, which no checksum survives.
pub(super) fn read_whole(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(bytes_max);
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
