//! What outlives a configuration: the journal with its topics, the numbers of topics and sources, the dead letters, the door's budget.
//!
//! A topic that was opened stays open while the process runs, also when the configuration has no use for it any more: it costs a thread that
//! sleeps, and what lies in it for a consumer that comes back is still there.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Notify;
use tracing::warn;

use super::{Board, ConnectError, OpenJournal, Plan, PlannedConsumer, Surroundings, TopicKind};
use crate::{
    delivery::{DeadLetters, Replayer, Takers},
    door::Budget,
    internal_telemetry::{self, Samples},
    journal::{
        Directory, DirectoryError, DropReason, JournalId, MemoryShard, Persistence, Shard, SourceId, Topic, TopicId, TopicNames,
        Waker,
    },
    signal::{ComponentId, Signal},
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
    /// Which journal it is.
    pub id: JournalId,
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
        let id = match &directory {
            Some(directory) => directory.id(),
            None => JournalId::random().map_err(|cause| DirectoryError::Io { path: "memory".to_owned(), cause })?,
        };
        let dead_letters = Arc::new(match &directory {
            None => DeadLetters::in_memory(names.clone(), &around.telemetry),
            Some(directory) => {
                let (store, found) = directory.letters()?;
                let cause = |cause| DirectoryError::Io { path: directory.path().display().to_string(), cause };
                DeadLetters::on_disk(names.clone(), store, found, around.clock.clone(), &around.telemetry).map_err(cause)?
            }
        });
        let journal = directory.map(|directory| Arc::new(OpenJournal::new(directory, dead_letters.clone())));
        let clock = around.clock.clone();
        around.board.show(&around.telemetry, &around.taps, move || clock.now());
        let shown = budget.clone();
        around.telemetry.on_scrape(move |samples: &mut Samples| samples.requests(shown.used(), shown.bytes()));
        if let Some(journal) = &journal {
            around.board.open_journal(journal);
            let journal = Arc::downgrade(journal);
            around.telemetry.on_scrape(move |samples: &mut Samples| {
                if let Some(journal) = journal.upgrade() {
                    let (usage, whole) = (journal.usage(), journal.usage().whole());
                    samples.journal(&internal_telemetry::JournalRoom {
                        whole: (whole.bytes, whole.bytes_max),
                        records: (usage.records.bytes, usage.records.bytes_max),
                        letters: (usage.letters.bytes, usage.letters.bytes_max),
                        is_refusing: journal.fault().is_some(),
                    });
                    for orphan in journal.orphans() {
                        samples.orphan(&internal_telemetry::Orphan {
                            consumer: &orphan.consumer,
                            topic: &orphan.topic,
                            items: orphan.held.items,
                            bytes: orphan.held.bytes,
                            removed_items: orphan.removed_items,
                        });
                    }
                }
            });
        }
        Ok(Self {
            names,
            sources,
            topics: BTreeMap::new(),
            pace: (budget.bytes() as u64 / 16).min(PACE_BYTES),
            budget,
            id,
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
            self.open_topic(&planned.name, planned.signal, planned.kind == TopicKind::Ingest)?;
        }
        self.open_left();
        Ok(())
    }

    fn open_topic(&mut self, name: &str, signal: Signal, is_ingest: bool) -> Result<(), DirectoryError> {
        let (id, room) = (self.names.number(name), Arc::new(Notify::new()));
        if self.topics.contains_key(&id) {
            return Ok(());
        }
        let mut shards: Vec<Arc<dyn Shard>> = Vec::new();
        let taking = match &self.journal {
            None => {
                shards.push(Arc::new(MemoryShard::new(id, 0, self.pace, room.clone())));
                1
            }
            Some(journal) => {
                let taking = if is_ingest { journal.directory.shards() } else { 1 };
                // All of them or none: one that stayed open when another failed would have a second writer at the next try.
                let mut opened = Vec::new();
                for number in 0..journal.directory.shards_of(name, taking)? {
                    let shard = journal.directory.shard(id, name, signal, number, self.pace, room.clone())?;
                    opened.push((name.to_owned(), shard.clone()));
                    shards.push(shard);
                }
                journal.shards.lock().extend(opened);
                taking
            }
        };
        let topic = Arc::new(Topic::of(id, name.to_owned(), signal, room, shards).taking(taking));
        self.board.topic(&topic);
        self.topics.insert(id, topic);
        Ok(())
    }

    /// Opens what lies on disk of topics that no plan has had: it takes room, and may be held for consumers that come back or are let go.
    fn open_left(&mut self) {
        let Some(journal) = self.journal.clone() else { return };
        let found = journal.directory.topics_found().unwrap_or_else(|error| {
            warn!(%error, "topics of earlier configurations cannot be looked for; what lies in them stays");
            Vec::new()
        });
        for name in found {
            // As they are named; what else lies there no weir made.
            let Some(signal) = name.split('/').next().and_then(Signal::parse) else { continue };
            let is_ingest = name == signal.as_str();
            self.names.number(&name);
            let sources: Vec<String> = self.sources.iter().map(ToString::to_string).collect();
            let opened =
                journal.directory.learn(self.names.all(), &sources).and_then(|()| self.open_topic(&name, signal, is_ingest));
            if let Err(error) = opened {
                warn!(topic = name, %error, "a topic of an earlier configuration cannot be opened; what lies in it stays");
            }
        }
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
