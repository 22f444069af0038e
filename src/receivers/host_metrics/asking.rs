//! Asks file systems how full they are, on threads of their own: one whose server is gone may never answer.
//!
//! In:   paths.
//! Out:  how full the file system at each is, or that it did not say.
//! Full: a thread that got no answer within the time is left to wait; while [`WAITING_MAX`] of them wait, nothing further is asked.
//! Lost: the numbers of what does not answer, until it does. It is not asked again meanwhile.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    thread,
    time::Duration,
};

use super::host::Fault;

/// Threads that may wait for an answer at a time.
const WAITING_MAX: usize = 4;

/// How full a file system is: bytes, and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) used: u64,
    /// For who is not root.
    pub(super) free: u64,
    /// What only root may fill.
    pub(super) reserved: u64,
    pub(super) inodes_used: u64,
    pub(super) inodes_free: u64,
}

type Answer = io::Result<Space>;
/// How a file system is asked; tests have one that does not answer.
pub(super) type Ask = fn(&Path) -> Answer;

struct Asker {
    questions: SyncSender<PathBuf>,
    answers: Receiver<Answer>,
}

impl Asker {
    fn start(ask: Ask) -> io::Result<Self> {
        let (questions, asked) = sync_channel::<PathBuf>(1);
        let (answer, answers) = sync_channel(1);
        thread::Builder::new().name("host-statvfs".to_owned()).spawn(move || {
            while let Ok(path) = asked.recv() {
                if answer.send(ask(&path)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }
}

/// Asks one after the other.
pub(super) struct Asking {
    ask: Ask,
    /// How long an answer is waited for.
    patience: Duration,
    ready: Option<Asker>,
    waiting: Vec<(PathBuf, Asker)>,
}

impl Asking {
    pub(super) const fn new(ask: Ask, patience: Duration) -> Self {
        Self { ask, patience, ready: None, waiting: Vec::new() }
    }

    pub(super) fn space(&mut self, path: PathBuf) -> Result<Space, Fault> {
        let silent = |path: &Path| Fault::Silent { path: path.display().to_string() };
        let unread = |path: &Path, cause| Fault::Unread { path: path.display().to_string(), cause };
        self.hear();
        if self.waiting.len() >= WAITING_MAX || self.waiting.iter().any(|(known, _)| *known == path) {
            return Err(silent(&path));
        }
        let asker = match self.ready.take() {
            Some(asker) => asker,
            None => Asker::start(self.ask).map_err(|cause| unread(&path, cause))?,
        };
        if asker.questions.send(path.clone()).is_err() {
            return Err(silent(&path));
        }
        match asker.answers.recv_timeout(self.patience) {
            Ok(answer) => {
                self.ready = Some(asker);
                answer.map_err(|cause| unread(&path, cause))
            }
            Err(RecvTimeoutError::Disconnected) => Err(silent(&path)),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(
                    mount_point = %path.display(),
                    seconds = self.patience.as_secs_f64(),
                    "a file system does not answer; it is left out until it does"
                );
                let fault = silent(&path);
                self.waiting.push((path, asker));
                Err(fault)
            }
        }
    }

    /// Takes back the threads that got their answer after all.
    fn hear(&mut self) {
        let Self { waiting, ready, .. } = self;
        let mut at = 0;
        while let Some((path, asker)) = waiting.get(at) {
            match asker.answers.try_recv() {
                Err(TryRecvError::Empty) => at += 1,
                heard => {
                    tracing::info!(mount_point = %path.display(), "a file system answers again");
                    let (_, asker) = waiting.swap_remove(at);
                    if heard.is_ok() {
                        ready.get_or_insert(asker);
                    }
                }
            }
        }
    }
}

/// Asks the kernel.
pub(super) fn statvfs(path: &Path) -> Answer {
    let told = rustix::fs::statvfs(path)?;
    // Counted in fragments, where a file system has such.
    let bytes = if told.f_frsize == 0 { told.f_bsize } else { told.f_frsize };
    let of = |blocks: u64| blocks.saturating_mul(bytes);
    Ok(Space {
        used: of(told.f_blocks.saturating_sub(told.f_bfree)),
        free: of(told.f_bavail),
        reserved: of(told.f_bfree.saturating_sub(told.f_bavail)),
        inodes_used: told.f_files.saturating_sub(told.f_ffree),
        inodes_free: told.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, Mutex};

    use super::*;

    const SPACE: Space = Space { used: 1, free: 2, reserved: 3, inodes_used: 4, inodes_free: 5 };

    /// Held by a test: the file system behind `/dead…` does not answer.
    static DEAD: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

    fn ask(path: &Path) -> Answer {
        if path.starts_with("/dead") || path.display().to_string().starts_with("/dead") {
            drop(DEAD.lock());
        }
        if path == Path::new("/denied") { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(SPACE) }
    }

    #[test]
    fn who_does_not_answer_costs_one_wait_and_nobody_else() {
        let dead = DEAD.lock().unwrap();
        let mut asking = Asking::new(ask, Duration::from_millis(20));
        let space = |asking: &mut Asking, path: &str| asking.space(PathBuf::from(path));
        assert_eq!(space(&mut asking, "/").unwrap(), SPACE);
        assert!(matches!(space(&mut asking, "/dead"), Err(Fault::Silent { .. })));
        assert_eq!(space(&mut asking, "/").unwrap(), SPACE);
        // It is not asked a second time.
        assert!(matches!(space(&mut asking, "/dead"), Err(Fault::Silent { .. })));
        assert_eq!(asking.waiting.len(), 1);
        assert!(matches!(space(&mut asking, "/denied"), Err(Fault::Unread { .. })));
        for other in ["/dead2", "/dead3", "/dead4"] {
            assert!(space(&mut asking, other).is_err());
        }
        assert!(matches!(space(&mut asking, "/"), Err(Fault::Silent { .. })), "no thread is left to ask with");
        assert_eq!(asking.waiting.len(), WAITING_MAX);
        drop(dead);
        while !asking.waiting.is_empty() {
            asking.hear();
        }
        assert_eq!(space(&mut asking, "/dead").unwrap(), SPACE);
    }
}
