//! The journal on disk while weir runs on it: its room, its faults, and what it holds for whom the configuration does not have.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    delivery::{DeadLetters, Pressure},
    journal::{Directory, DirectoryError, DiskShard, Lag, Orphan, Removing, Shard as _, StateFile},
    runtime::blocking,
    signal::ComponentId,
};

/// The journal on disk.
pub struct OpenJournal {
    pub(super) directory: Directory,
    /// With the names of their topics.
    pub(super) shards: Mutex<Vec<(String, Arc<DiskShard>)>>,
    dead_letters: Arc<DeadLetters>,
    /// All consumers of the configuration have joined: who stands there and has not is none of them.
    is_joined: AtomicBool,
}

/// What lies in a topic for a consumer that the configuration does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphaned {
    pub consumer: String,
    pub topic: String,
    /// At most: which of the records were for it is not kept.
    pub held: Lag,
    /// Items that were let go for it by hand, in this run and before.
    pub removed_items: u64,
}

/// Bytes of files that there are, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub bytes: u64,
    pub bytes_max: u64,
}

/// The journal's files: records that wait for their consumers, and dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub records: Used,
    pub letters: Used,
}

impl Usage {
    /// Both; what it may be is `journal::max_size`.
    pub fn whole(self) -> Used {
        Used { bytes: self.records.bytes + self.letters.bytes, bytes_max: self.records.bytes_max + self.letters.bytes_max }
    }
}

/// What was let go, in all topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub held: Lag,
    /// Now counted `dropped{removed}` in the consumer's books.
    pub items: u64,
}

/// Why nothing, or not all, was let go.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("weir is starting: it is not known yet who is in the configuration; ask again")]
    Starting,
    #[error(
        "`{0}` is in the configuration that runs: nothing was let go; take it out of the configuration first, and have that read (SIGHUP)"
    )]
    Configured(String),
    #[error("no consumer `{consumer}` that the configuration does not have stands in the journal; there is {known}")]
    Unknown { consumer: String, known: String },
    #[error("{0}: not all of it was let go; ask again")]
    Disk(String),
}

/// How long the disk may take to write down that something was let go.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// The share of the journal's room (one of so many) at which states are saved at once, so that records can be let go.
const PRESSED: u64 = 4;

impl OpenJournal {
    pub(super) fn new(directory: Directory, dead_letters: Arc<DeadLetters>) -> Self {
        Self { directory, shards: Mutex::default(), dead_letters, is_joined: AtomicBool::new(false) }
    }

    /// What is held for consumers that the configuration does not have, or was let go for them; nothing before all of the configuration joined.
    pub fn orphans(&self) -> Vec<Orphaned> {
        if !self.is_joined.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let shards = self.shards.lock().clone();
        let mut all: BTreeMap<(String, String), (Lag, u64)> = BTreeMap::new();
        for (topic, shard) in shards {
            for Orphan { consumer, held, removed_items } in shard.orphans() {
                let sum = all.entry((consumer, topic.clone())).or_default();
                *sum = (sum.0.plus(held), sum.1 + removed_items);
            }
        }
        let of = |((consumer, topic), (held, removed_items))| Orphaned { consumer, topic, held, removed_items };
        all.into_iter().map(of).collect()
    }

    /// Lets go what is held for a consumer that the configuration does not have. Done when that is written down; asked again it changes nothing.
    ///
    /// # Errors
    /// It is in the configuration, or never stood here, or the disk fails.
    pub async fn remove_orphan(&self, consumer: &str) -> Result<Removed, RemoveError> {
        if !self.is_joined.load(Ordering::Relaxed) {
            return Err(RemoveError::Starting);
        }
        let disk = |error: &dyn std::fmt::Display| RemoveError::Disk(error.to_string());
        let shards = self.shards.lock().clone();
        let (mut removed, mut written_all) = (Removed::default(), Vec::new());
        let mut is_configured = false;
        for (_, shard) in shards {
            match blocking(|| shard.remove_orphan(consumer)).map_err(|error| disk(&error))? {
                Removing::Unknown => {}
                Removing::Configured => is_configured = true,
                Removing::Removed { held, items, written } => {
                    removed = Removed { held: removed.held.plus(held), items: removed.items + items };
                    written_all.push(written);
                }
            }
        }
        if written_all.is_empty() {
            return Err(if is_configured {
                RemoveError::Configured(consumer.to_owned())
            } else {
                let known: Vec<String> = self.orphans().into_iter().map(|orphan| format!("`{}`", orphan.consumer)).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                RemoveError::Unknown { consumer: consumer.to_owned(), known }
            });
        }
        for written in written_all {
            let unwritten = || disk(&"the consumers' places could not be written");
            timeout(WRITTEN_WITHIN, written).await.map_err(|_| unwritten())?.map_err(|_| unwritten())?;
        }
        if removed.items > 0 {
            let Lag { records, bytes, .. } = removed.held;
            info!(
                consumer,
                items = removed.items,
                records,
                bytes,
                "what was held for a consumer that is gone was let go, as asked"
            );
        }
        Ok(removed)
    }

    /// Says what is held for consumers that nobody runs. To be called when all of the configuration have joined.
    pub fn warn_of_strangers(&self) {
        self.is_joined.store(true, Ordering::Relaxed);
        let shards = self.shards.lock().clone();
        let mut all: BTreeMap<(String, &str), Lag> = BTreeMap::new();
        for (topic, shard) in &shards {
            for (consumer, lag) in shard.strangers() {
                let sum = all.entry((consumer, topic)).or_default();
                *sum = sum.plus(lag);
            }
        }
        for ((consumer, topic), Lag { records, items, bytes }) in all {
            warn!(
                topic,
                consumer,
                records,
                items,
                bytes,
                "data is held for a consumer that this configuration does not have; it is kept until the consumer is back, or until `weir journal rm --consumer NAME --yes` lets it go"
            );
        }
    }

    /// The file for what a component remembers; `kind` is its section.
    pub fn state(&self, kind: &str, id: &ComponentId) -> Result<StateFile, DirectoryError> {
        self.directory.state(&format!("{kind}.{id}"))
    }

    /// Writes everything down and takes nothing more. Blocks until it is done.
    pub fn close(&self) {
        for (_, shard) in self.shards.lock().iter() {
            shard.close();
        }
        self.dead_letters.close();
    }

    /// Why some topic takes no data now.
    pub fn fault(&self) -> Option<String> {
        self.shards.lock().iter().find_map(|(_, shard)| shard.fault())
    }

    /// How much of the disk it takes, and may take.
    pub fn usage(&self) -> Usage {
        let of = |(bytes, bytes_max)| Used { bytes, bytes_max };
        let letters = self.dead_letters.store().map(|store| of(store.usage())).unwrap_or_default();
        Usage { records: of(self.directory.usage()), letters }
    }

    /// Dead letters that are kept on disk.
    pub fn letters(&self) -> Lag {
        self.dead_letters.store().map_or_else(Lag::default, |store| store.held())
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Why states should be saved before their time is up.
    pub fn pressure(&self) -> Pressure {
        let (used, max) = self.directory.usage();
        Pressure { is_filling: used > max / PRESSED, segments_begun: self.directory.segments_begun() }
    }
}
