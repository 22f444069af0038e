//! What outlives a configuration: the journal with its topics, the numbers of topics and sources, the dead letters, the door's budget.
//!
//! A topic that was opened stays open while the process runs, also when the configuration has no use for it any more: it costs a thread that
//! sleeps, and what lies in it for a consumer that comes back is still there.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::{Board, ConnectError, Plan, PlannedConsumer, Surroundings, TopicKind};
use crate::{
    delivery::{DeadLetters, Replayer, Takers},
    door::Budget,
    internal_telemetry::Samples,
    journal::{
        Directory, DirectoryError, DiskShard, DropReason, Lag, MemoryShard, Persistence, Shard, SourceId, StateFile, Topic,
        TopicId, TopicNames, Waker,
    },
    signal::ComponentId,
    tap::{At, Seen},
};

/// One a process.
pub struct Spine {
    pub names: Arc<TopicNames>,
    /// By [`SourceId`].
    sources: Vec<ComponentId>,
    topics: BTreeMap<TopicId, Arc<Topic>>,
    /// Unread bytes of a moving consumer at which the door slows down.
    pace: u64,
    pub budget: Arc<Budget>,
    pub dead_letters: Arc<DeadLetters>,
    /// Who takes dead letters back; `None` in memory mode.
    pub takers: Option<Takers>,
    /// `None` in memory mode.
    pub journal: Option<Arc<OpenJournal>>,
    board: Board,
}

/// Unread bytes of a moving consumer at which the door slows down.
const PACE_BYTES: u64 = 2 << 20;

impl Spine {
    /// Opens the journal. Topics come with [`Spine::make_ready`].
    ///
    /// # Errors
    /// Where the journal on disk cannot be opened.
    pub fn open(
        plan: &Plan,
        budget_bytes: usize,
        around: &Surroundings,
        persistence: Option<&Persistence>,
    ) -> Result<Self, ConnectError> {
        let budget = Budget::new(budget_bytes);
        let names = TopicNames::new(plan.topics.iter().map(|planned| planned.name.clone()).collect());
        let sources: Vec<ComponentId> = sources_of(plan).cloned().collect();
        let source_names: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let open = |wish| Directory::open(wish, names.all(), &source_names, around.clock.clone());
        let directory = persistence.map(open).transpose()?;
        let dead_letters = Arc::new(match &directory {
            None => DeadLetters::in_memory(names.clone(), &around.telemetry),
            Some(directory) => {
                let (store, found) = directory.letters()?;
                let cause = |cause| DirectoryError::Io { path: directory.path().display().to_string(), cause };
                DeadLetters::on_disk(names.clone(), store, found, around.clock.clone(), &around.telemetry).map_err(cause)?
            }
        });
        let of = |directory| OpenJournal { directory, shards: Mutex::default(), dead_letters: dead_letters.clone() };
        let journal = directory.map(of).map(Arc::new);
        let clock = around.clock.clone();
        around.board.show(&around.telemetry, &around.taps, move || clock.now());
        if let Some(journal) = &journal {
            around.board.open_journal(journal);
            let journal = Arc::downgrade(journal);
            around.telemetry.on_scrape(move |samples: &mut Samples| {
                if let Some(journal) = journal.upgrade() {
                    let (used, max) = journal.usage();
                    samples.journal(used, max, journal.fault().is_some());
                }
            });
        }
        Ok(Self {
            names,
            sources,
            topics: BTreeMap::new(),
            pace: (budget.bytes() as u64 / 16).min(PACE_BYTES),
            budget,
            dead_letters,
            takers: None,
            journal,
            board: around.board.clone(),
        })
    }

    /// Opens the topics and names the sources that a plan has and this has not. What was there stays, also where it fails.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn make_ready(&mut self, plan: &Plan) -> Result<(), ConnectError> {
        for id in sources_of(plan) {
            if !self.sources.contains(id) {
                self.sources.push(id.clone());
            }
        }
        for planned in &plan.topics {
            self.names.number(&planned.name);
        }
        if let Some(journal) = &self.journal {
            let sources: Vec<String> = self.sources.iter().map(ToString::to_string).collect();
            journal.directory.learn(self.names.all(), &sources)?;
        }
        for planned in &plan.topics {
            let (id, name, room) = (self.names.number(&planned.name), planned.name.clone(), Arc::new(Notify::new()));
            if self.topics.contains_key(&id) {
                continue;
            }
            let mut shards: Vec<Arc<dyn Shard>> = Vec::new();
            let taking = match &self.journal {
                None => {
                    shards.push(Arc::new(MemoryShard::new(id, 0, self.pace, room.clone())));
                    1
                }
                Some(journal) => {
                    let taking = if planned.kind == TopicKind::Ingest { journal.directory.shards() } else { 1 };
                    // All of them or none: one that stayed open when another failed would have a second writer at the next try.
                    let mut opened = Vec::new();
                    for number in 0..journal.directory.shards_of(&name, taking)? {
                        let shard = journal.directory.shard(id, &name, planned.signal, number, self.pace, room.clone())?;
                        opened.push((name.clone(), shard.clone()));
                        shards.push(shard);
                    }
                    journal.shards.lock().extend(opened);
                    taking
                }
            };
            let topic = Arc::new(Topic::of(id, name, planned.signal, room, shards).taking(taking));
            self.board.topic(&topic);
            self.topics.insert(id, topic);
        }
        Ok(())
    }

    /// What sends dead letters once more; consumers are made known to it by [`Spine::takers`].
    pub fn replayer(&mut self) -> Option<Replayer> {
        let replayer = Replayer::new(self.dead_letters.store()?.clone());
        self.takers = Some(replayer.takers());
        Some(replayer)
    }

    pub fn source(&self, id: &ComponentId) -> SourceId {
        let at = self.sources.iter().position(|known| known == id).unwrap_or(usize::MAX);
        SourceId(u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// All that were opened.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// Of a plan that it was made ready for.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.values().find(|topic| topic.name == name)
    }

    /// How far a consumer may fall behind where nobody wrote it. In memory half of the budget, over all topics, so that a dead backend leaves
    /// room for the others. On disk the quota bounds them all.
    pub fn lag_bytes(&self, topics: usize) -> u64 {
        if self.journal.is_some() { 0 } else { self.budget.bytes() as u64 / 2 / topics.max(1) as u64 }
    }
}

/// Receivers first, as they are numbered.
fn sources_of(plan: &Plan) -> impl Iterator<Item = &ComponentId> {
    plan.receivers.iter().chain(plan.connectors.iter().map(|planned| &planned.id))
}

/// Wakes a consumer, and shows to taps what it is moved over because it is too far behind.
pub fn bell(planned: &PlannedConsumer, around: &Surroundings) -> Arc<Waker> {
    let (taps, clock) = (around.taps.clone(), around.clock.clone());
    let (pipeline, component): (Arc<str>, _) = (planned.pipeline.as_str().into(), planned.component.clone());
    Arc::new(Waker::telling(move |record| {
        if taps.wants(At::Dropped) {
            let seen = Seen {
                at: At::Dropped,
                batch: record.batch.clone(),
                time: clock.now(),
                component: component.clone(),
                pipeline: Some(pipeline.clone()),
                peer: None,
                transport: None,
                reason: None,
                message: None,
            };
            taps.show(seen.said(Some(DropReason::Lag.as_str()), "the consumer was further behind than it may be"));
        }
    }))
}

/// The journal on disk.
pub struct OpenJournal {
    directory: Directory,
    /// With the names of their topics.
    shards: Mutex<Vec<(String, Arc<DiskShard>)>>,
    dead_letters: Arc<DeadLetters>,
}

/// The share of the journal's room (one of so many) at which states are saved at once, so that records can be let go.
const PRESSED: u64 = 4;

impl OpenJournal {
    /// Says what is held for consumers that nobody runs.
    pub fn warn_of_strangers(&self) {
        let shards = self.shards.lock().clone();
        for (topic, shard) in &shards {
            for (consumer, lag) in shard.strangers() {
                warn!(
                    topic,
                    consumer,
                    records = lag.records,
                    bytes = lag.bytes,
                    "data is held for a consumer that this configuration does not have; it is kept until the consumer is back, or until `weir journal rm --consumer NAME --yes` lets it go"
                );
            }
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

    /// Bytes that the segments take, and may take, dead letters with them.
    pub fn usage(&self) -> (u64, u64) {
        let (used, max) = self.directory.usage();
        let (letters, letters_max) = self.dead_letters.store().map_or((0, 0), |store| store.usage());
        (used + letters, max + letters_max)
    }

    /// Dead letters that are kept on disk.
    pub fn letters(&self) -> Lag {
        self.dead_letters.store().map_or_else(Lag::default, |store| store.held())
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether states should be saved now, so that it can let records go.
    pub fn is_pressed(&self) -> bool {
        let (used, max) = self.directory.usage();
        used > max / PRESSED
    }
}
