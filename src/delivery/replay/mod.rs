//! Has dead letters delivered once more, to the consumers that refused them and to nobody else.
//!
//! In:   requests that `weir journal replay` leaves beside the letters; looked for each second.
//! Out:  letters, each to its consumer, which sends it as it sends any record.
//! Full: a consumer has at most 16 letters and about 4 MiB of them under way; the rest stays on disk.
//! Lost: nothing. A request stays until all it asks for was tried, a letter until it is delivered; after a kill what is left is tried again.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    journal::{Letter, LetterRef, LetterStore, LettersError, Note, Reading, ReplayRequest, RequestFile},
    runtime::{Shutdown, blocking},
};

/// How often requests are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Read at once from the disk.
const READ_BYTES: usize = 1 << 20;
/// Letters of a consumer that are under way, and their bytes.
const UNDER_WAY_MAX: usize = 16;
const UNDER_WAY_BYTES_MAX: u64 = 4 << 20;

/// A letter that is to be sent once more.
pub struct Replay {
    pub at: LetterRef,
    pub letter: Letter,
    /// Told when it is settled. Dropped: what became of it is not known.
    pub done: oneshot::Sender<Fate>,
}

/// What became of a letter that was sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    /// What of it was refused is back among the letters.
    Refused,
}

/// Letters that were sent once more, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tried {
    delivered: u64,
    refused: u64,
}

impl Tried {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Delivered => self.delivered += 1,
            Fate::Refused => self.refused += 1,
        }
    }
}

/// Who takes its letters back.
#[derive(Clone)]
struct Taker {
    name: Arc<str>,
    /// `None`: it keeps what it was given, and cannot tell a letter from what it had.
    letters: Option<Arc<Mutex<mpsc::Sender<Replay>>>>,
}

/// Who takes letters back, by name; consumers come and go while the replayer runs.
#[derive(Clone, Default)]
pub struct Takers(Arc<parking_lot::Mutex<Vec<Taker>>>);

impl Takers {
    /// A consumer that takes its letters back from the channel that is returned.
    pub fn taker(&self, name: Arc<str>) -> mpsc::Receiver<Replay> {
        let (letters, receiver) = mpsc::channel(1);
        self.add(Taker { name, letters: Some(Arc::new(Mutex::new(letters))) });
        receiver
    }

    /// A consumer that is known and takes none back.
    pub fn refuser(&self, name: Arc<str>) {
        self.add(Taker { name, letters: None });
    }

    /// A consumer that is gone. What was on its way to it stays among the letters.
    pub fn remove(&self, name: &str) {
        self.0.lock().retain(|taker| *taker.name != *name);
    }

    fn add(&self, taker: Taker) {
        self.remove(&taker.name);
        self.0.lock().push(taker);
    }

    fn find(&self, name: &str) -> Option<Taker> {
        self.0.lock().iter().find(|taker| *taker.name == *name).cloned()
    }
}

/// Goes through requests, for all consumers.
pub struct Replayer {
    store: Arc<LetterStore>,
    takers: Takers,
}

/// What became of a request at one consumer.
enum Part {
    /// All letters that were meant were tried.
    Tried(Tried),
    /// The consumer is ending; the request waits for the next start.
    Cut,
}

type Parts = FuturesUnordered<BoxFuture<'static, (PathBuf, Part)>>;

/// A request under way.
struct Job {
    file: RequestFile,
    parts_left: usize,
    tried: Tried,
    /// Letters that nobody takes back.
    kept: u64,
    is_cut: bool,
}

impl Replayer {
    pub fn new(store: Arc<LetterStore>) -> Self {
        Self { store, takers: Takers::default() }
    }

    pub fn takers(&self) -> Takers {
        self.takers.clone()
    }

    /// Runs until `stop` fires.
    pub async fn run(self, stop: Shutdown) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut jobs, mut parts) = (BTreeMap::new(), Parts::new());
        // Requests that are not to be begun again in this run.
        let mut told = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((path, part)) = parts.next() => ended(&mut jobs, &mut told, &path, &part),
                _ = looks.tick() => self.look(&mut jobs, &mut parts, &mut told),
            }
        }
    }

    fn look(&self, jobs: &mut BTreeMap<PathBuf, Job>, parts: &mut Parts, told: &mut BTreeSet<PathBuf>) {
        let requests = match self.store.requests() {
            Ok(requests) => requests,
            Err(error) => {
                warn!(%error, "requests to replay dead letters cannot be looked for; it is tried again");
                return;
            }
        };
        for (file, request) in requests {
            if jobs.contains_key(file.path()) || told.contains(file.path()) {
                continue;
            }
            let Some(request) = request else {
                error!(file = %file.path().display(), "this request to replay dead letters cannot be read; it is left as it is");
                told.insert(file.path().to_owned());
                continue;
            };
            let begun = file.take().map_err(|error| error.to_string()).and_then(|file| {
                let meant = blocking(|| self.meant(&request)).map_err(|error| error.to_string())?;
                Ok((file, meant))
            });
            match begun {
                Ok((file, meant)) => self.begin(file, &Arc::new(request), &meant, jobs, parts),
                Err(error) => warn!(error, "a request to replay dead letters cannot be begun; it is tried again"),
            }
        }
    }

    /// How many letters of which consumers a request means.
    fn meant(&self, request: &ReplayRequest) -> Result<BTreeMap<Arc<str>, u64>, LettersError> {
        let (mut meant, mut reading) = (BTreeMap::new(), Reading::default());
        while let Some(letters) = self.store.read(&mut reading, READ_BYTES, &|offset, note| request.takes(offset, note))? {
            for (_, letter) in letters {
                *meant.entry(letter.note.consumer).or_default() += 1;
            }
        }
        Ok(meant)
    }

    fn begin(
        &self,
        file: RequestFile,
        request: &Arc<ReplayRequest>,
        meant: &BTreeMap<Arc<str>, u64>,
        jobs: &mut BTreeMap<PathBuf, Job>,
        parts: &mut Parts,
    ) {
        info!(letters = meant.values().sum::<u64>(), consumers = meant.len(), "dead letters are sent once more, as asked");
        let path = file.path().to_owned();
        let (mut parts_left, mut kept) = (0, 0);
        for (consumer, letters) in meant {
            let Some(taker) = self.takers.find(consumer) else {
                kept += letters;
                warn!(
                    consumer = &**consumer,
                    letters, "this configuration does not have the consumer of these dead letters: they are kept"
                );
                continue;
            };
            let Some(sender) = taker.letters else {
                kept += letters;
                warn!(
                    consumer = &**consumer,
                    letters,
                    "this consumer keeps what it was given and takes nothing twice: its dead letters are kept; `weir journal dump --letters` shows them"
                );
                continue;
            };
            parts_left += 1;
            let feed = feed(self.store.clone(), request.clone(), consumer.clone(), sender);
            let path = path.clone();
            parts.push(async move { (path, feed.await) }.boxed());
        }
        let job = Job { file, parts_left, tried: Tried::default(), kept, is_cut: false };
        if parts_left == 0 {
            finish(&job);
        } else {
            jobs.insert(path, job);
        }
    }
}

/// One consumer is through with a request.
fn ended(jobs: &mut BTreeMap<PathBuf, Job>, told: &mut BTreeSet<PathBuf>, path: &PathBuf, part: &Part) {
    let Some(job) = jobs.get_mut(path) else { return };
    job.parts_left -= 1;
    match part {
        Part::Tried(Tried { delivered, refused }) => {
            job.tried.delivered += delivered;
            job.tried.refused += refused;
        }
        Part::Cut => job.is_cut = true,
    }
    if job.parts_left == 0
        && let Some(job) = jobs.remove(path)
    {
        if job.is_cut {
            told.insert(path.clone());
        } else {
            finish(&job);
        }
    }
}

fn finish(job: &Job) {
    let (Tried { delivered, refused }, not_sent) = (job.tried, job.kept);
    info!(
        delivered,
        refused_again = refused,
        not_sent,
        "dead letters were sent once more; those that were not delivered are kept"
    );
    if let Err(error) = job.file.done() {
        warn!(file = %job.file.path().display(), %error, "a request to replay dead letters cannot be removed: it is begun again");
    }
}

/// Sends a consumer its letters; one request after the other.
async fn feed(
    store: Arc<LetterStore>,
    request: Arc<ReplayRequest>,
    consumer: Arc<str>,
    taker: Arc<Mutex<mpsc::Sender<Replay>>>,
) -> Part {
    let taker = taker.lock_owned().await;
    let (mut reading, mut tried) = (Reading::default(), Tried::default());
    let (mut under_way, mut bytes) = (FuturesUnordered::new(), 0);
    loop {
        let takes = |offset: u64, note: &Note| request.takes(offset, note) && note.consumer == consumer;
        let letters = match blocking(|| store.read(&mut reading, READ_BYTES, &takes)) {
            Ok(Some(letters)) => letters,
            Ok(None) => break,
            Err(error) => {
                error!(%error, consumer = &*consumer, "dead letters cannot be read; those that are left stay for the next start");
                return Part::Cut;
            }
        };
        for (at, letter) in letters {
            while under_way.len() >= UNDER_WAY_MAX || bytes >= UNDER_WAY_BYTES_MAX {
                match under_way.next().await {
                    Some(Some((fate, settled))) => {
                        tried.count(fate);
                        bytes -= settled;
                    }
                    Some(None) => return Part::Cut,
                    None => break,
                }
            }
            let (done, settled) = oneshot::channel();
            if taker.send(Replay { at, letter, done }).await.is_err() {
                return Part::Cut;
            }
            under_way.push(settled.map(move |settled| settled.ok().map(|fate| (fate, at.bytes))));
            bytes += at.bytes;
        }
    }
    while let Some(settled) = under_way.next().await {
        let Some((fate, _)) = settled else { return Part::Cut };
        tried.count(fate);
    }
    Part::Tried(tried)
}
