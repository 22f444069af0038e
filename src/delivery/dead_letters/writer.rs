//! A thread that writes letters down, so that no reactor waits for a disk.
//!
//! Full: whoever has a letter waits until it is written, and reads no more than its own bounds allow meanwhile.
//! Lost: what cannot be written is tried for 30 s; while it goes on failing after that, a letter gets one try and is then dropped, counted and
//!       said: a disk that fails must not stop delivery for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{debug, error, info, warn};

use super::Metrics;
use crate::{
    journal::{Letter, LetterRef, LetterStore, LettersError},
    runtime::Clock,
};

/// How long a letter that cannot be written holds its record.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
/// Jobs that wait for the thread.
const JOBS_MAX: usize = 64;
/// Written together, about.
const GROUP_BYTES: usize = 1 << 20;

/// Letters to be written, and the one whose place they take.
struct Job {
    letters: Vec<Letter>,
    gone: Option<LetterRef>,
    done: oneshot::Sender<()>,
}

pub(super) struct Writer {
    store: Arc<LetterStore>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    closing: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    metrics: Metrics,
}

impl Writer {
    pub(super) fn start(store: Arc<LetterStore>, clock: Clock, metrics: Metrics, patience: Duration) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let closing = Arc::new(AtomicBool::new(false));
        let pen = Pen {
            store: store.clone(),
            clock,
            metrics: metrics.clone(),
            closing: closing.clone(),
            patience,
            failing_since: None,
        };
        let thread = std::thread::Builder::new().name("letters".to_owned()).spawn(move || pen.run(waiting))?;
        Ok(Self { store, jobs: Mutex::new(Some(jobs)), closing, thread: Mutex::new(Some(thread)), metrics })
    }

    pub(super) fn store(&self) -> &Arc<LetterStore> {
        &self.store
    }

    /// Resolves when they are written, or given up.
    pub(super) async fn write(&self, letters: Vec<Letter>, gone: Option<LetterRef>) {
        let (done, written) = oneshot::channel();
        let (count, jobs) = (letters.len(), self.jobs.lock().clone());
        self.metrics.waiting.add(count as i64);
        let sent = match jobs {
            Some(jobs) => jobs.send(Job { letters, gone, done }).await.is_ok(),
            None => false,
        };
        if !(sent && written.await.is_ok()) && gone.is_none() {
            error!(letters = count, "the dead letters are closed: these are lost");
            self.metrics.disk.inc_by(count as u64);
        }
        self.metrics.waiting.sub(count as i64);
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        drop(self.jobs.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            error!("the writer of dead letters ended badly; what it had written is on disk");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread's side.
struct Pen {
    store: Arc<LetterStore>,
    clock: Clock,
    metrics: Metrics,
    closing: Arc<AtomicBool>,
    patience: Duration,
    failing_since: Option<Instant>,
}

impl Pen {
    fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            let bytes = |job: &Job| job.letters.iter().map(|letter| letter.batch.payload.len()).sum::<usize>();
            while group.iter().map(bytes).sum::<usize>() < GROUP_BYTES
                && group.len() < JOBS_MAX
                && let Ok(next) = waiting.try_recv()
            {
                group.push(next);
            }
            self.write(&group);
            self.metrics.hold(self.store.held());
            for job in group {
                if job.done.send(()).is_err() {
                    debug!("whoever had a dead letter is gone: its record is delivered once more");
                }
            }
        }
    }

    fn write(&mut self, group: &[Job]) {
        let letters: Vec<&Letter> = group.iter().flat_map(|job| &job.letters).collect();
        let gone: Vec<LetterRef> = group.iter().filter_map(|job| job.gone).collect();
        loop {
            let error = match self.store.append(&letters, &gone, self.clock.now()) {
                Ok(evicted) => {
                    if self.failing_since.take().is_some() {
                        info!("dead letters are written again");
                    }
                    if evicted.records > 0 {
                        self.metrics.made_room.inc_by(evicted.records);
                        warn!(
                            letters = evicted.records,
                            items = evicted.items,
                            "the oldest dead letters made room for newer ones (`journal::max_letters`, --journal-max-letters)"
                        );
                    }
                    return;
                }
                Err(error) => error,
            };
            if matches!(error, LettersError::TooLarge) {
                match group {
                    [only] => self.give_up(only, &error),
                    _ => group.iter().for_each(|job| self.write(std::slice::from_ref(job))),
                }
                return;
            }
            if self.failing_since.is_none() {
                error!(%error, seconds = self.patience.as_secs(), "a dead letter cannot be written: it is tried for so long");
            }
            let since = *self.failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.patience || self.closing.load(Ordering::Relaxed) {
                for job in group {
                    self.give_up(job, &error);
                }
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A letter that was to take the place of another one is not lost with it: the old one stays.
    fn give_up(&self, job: &Job, error: &LettersError) {
        if job.gone.is_some() {
            warn!(%error, "a dead letter that was sent once more cannot be crossed out: it is there still, and may be sent again");
            return;
        }
        let too_large = matches!(error, LettersError::TooLarge);
        let counter = if too_large { &self.metrics.too_large } else { &self.metrics.disk };
        counter.inc_by(job.letters.len() as u64);
        let items: u64 = job.letters.iter().map(|letter| letter.batch.items).sum();
        error!(%error, letters = job.letters.len(), items, "dead letters could not be kept: they are lost");
    }
}
