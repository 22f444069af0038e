//! A file with a secret in it, read again when it changes.

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The file is looked at no more often than this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a file says, made into a `T`.
pub(super) struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    current: ArcSwap<T>,
    looked: Mutex<(Instant, Option<(SystemTime, u64)>)>,
}

impl<T> Watched<T> {
    pub(super) fn open(path: impl Into<PathBuf>, parse: fn(&str) -> T) -> io::Result<Self> {
        let path = path.into();
        let stamp = stamp(&path);
        let current = ArcSwap::from_pointee(parse(&fs::read_to_string(&path)?));
        Ok(Self { path, parse, current, looked: Mutex::new((Instant::now(), stamp)) })
    }

    /// What the file said when it was last read; a file that went away leaves that in use.
    pub(super) fn get(&self) -> Arc<T> {
        if let Some(mut looked) = self.looked.try_lock()
            && looked.0.elapsed() >= LOOK_AGAIN_AFTER
        {
            looked.0 = Instant::now();
            let now = stamp(&self.path);
            if now != looked.1 && now.is_some() {
                match fs::read_to_string(&self.path) {
                    Ok(text) => {
                        self.current.store(Arc::new((self.parse)(&text)));
                        looked.1 = now;
                        tracing::info!(file = %self.path.display(), "a file with credentials changed, the new ones are in use");
                    }
                    Err(error) => {
                        tracing::warn!(file = %self.path.display(), %error, "a file with credentials cannot be read, the old ones stay");
                    }
                }
            }
        }
        self.current.load_full()
    }
}

fn stamp(path: &PathBuf) -> Option<(SystemTime, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}
