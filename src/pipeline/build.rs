//! A plan → topics, cursors and built components, ready to be started.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::{
    Board,
    file::{Declared, File},
    plan::{Plan, PlannedConsumer, Role, TopicKind},
};
use crate::{
    component::delivery::{self, BatchWish},
    component::{
        BuildContext, BuiltConnector, BuiltProcessor, ConnectorUse, Exporter, Extension, Extensions, Notes, ReadyConnector,
        ReadyExporter, ReadyExtension, ReadyProcessor, ReadyReceiver, Receiver, Stateful, Tables, Unbuilt,
    },
    config::{Diagnostic, Diagnostics, Level, Origin},
    delivery::{Chain, Consumer, DeadLetters, Destination, Live, Policy, Remembering, Replayer, SharedConnector, Stage},
    door::Budget,
    internal_telemetry::{self, Samples, Telemetry},
    journal::{
        Accounts, Cursor, Directory, DirectoryError, DiskShard, DropReason, Lag, MemoryShard, OnOverflow, Persistence, Shard,
        SourceId, Sources, Subscriber, Topic, TopicId, Waker,
    },
    runtime::{BuildError, Clock, Health, both},
    signal::{ComponentId, ContextNeeds, Signal},
    tap::{At, Seen, Taps},
};

/// A component could not be built or started.
#[derive(Debug, thiserror::Error)]
#[error("{kind}::{id}: {cause}")]
pub struct Failed {
    pub kind: &'static str,
    pub id: ComponentId,
    #[source]
    pub cause: BuildError,
}

impl Failed {
    /// Says at the component's keys what is wrong with them.
    pub fn tell(self, file: &File, found: &mut Diagnostics) {
        let whole = component(file, self.kind, &self.id);
        for fault in self.cause.faults() {
            let (path, message, help) = match fault {
                BuildError::Setting { path, message, help } => (path, message, help),
                other => (String::new(), format!("`{}` cannot be built: {other}", self.id), None),
            };
            // Listeners name their keys from the root of the file.
            let inside = path.strip_prefix(&format!("{}::{}::", self.kind, self.id)).unwrap_or(&path);
            let origin = whole.map_or_else(Origin::default, |whole| whole.origin_of(inside));
            let error = Diagnostic { level: Level::Error, origin, message, help };
            // A processor of several pipelines is built once for each.
            if !found.found.contains(&error) {
                found.found.push(error);
            }
        }
    }
}

fn component<'f>(file: &'f File, kind: &str, id: &ComponentId) -> Option<&'f Declared> {
    let list = match kind {
        "receivers" => &file.receivers,
        "processors" => &file.processors,
        "connectors" => &file.connectors,
        "exporters" => &file.exporters,
        _ => &file.extensions,
    };
    declared(list, id)
}

/// What the parts are built with.
pub struct Surroundings {
    pub telemetry: Telemetry,
    pub health: Arc<Health>,
    pub clock: Clock,
    /// `journal::max_lag`, where written.
    pub lag_bytes: Option<u64>,
    /// Who looks at what passes.
    pub taps: Taps,
    /// Where consumers and topics can be looked at.
    pub board: Board,
}

/// Why a plan that was built cannot be connected to its journal.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the journal cannot be opened: {0}")]
    Directory(#[from] DirectoryError),
    #[error(
        "{0} passes on what it finds in its requests (headers_setter, from_context), and such a credential is not written to disk: \
         run with --journal memory, or `journal: {{mode: memory}}` in the file"
    )]
    Credentials(ComponentId),
}

/// The settings of everything a plan uses, read and checked.
pub struct Read {
    receivers: BTreeMap<ComponentId, ReadyReceiver>,
    /// Processors are built once a pipeline.
    processors: BTreeMap<(String, ComponentId), ReadyProcessor>,
    connectors: BTreeMap<ComponentId, ReadyConnector>,
    exporters: BTreeMap<ComponentId, ReadyExporter>,
    extensions: Vec<(ComponentId, ReadyExtension)>,
    /// Extensions that are named and cannot be had.
    missing: Vec<ComponentId>,
    /// Components whose settings were wrong: what stands in for them may not build, and nobody has to know.
    unsound: Vec<ComponentId>,
}

/// The running halves of everything a plan uses, not connected to anything.
pub struct Built {
    needs: ContextNeeds,
    wants_index: bool,
    budget: Arc<Budget>,
    extensions: Arc<Extensions>,
    /// One a pipeline.
    processors: BTreeMap<(String, ComponentId), BuiltProcessor>,
    exporters: Vec<BuiltExporter>,
    connectors: Vec<(ComponentId, BuiltConnector)>,
    receivers: Vec<(ComponentId, Box<dyn Receiver>)>,
}

struct BuiltExporter {
    id: ComponentId,
    exporter: Arc<dyn Exporter>,
    delivery: delivery::Settings,
    splits_by_context: bool,
}

/// A receiver with the topics it feeds.
pub struct Entry {
    pub id: ComponentId,
    pub source: SourceId,
    pub receiver: Box<dyn Receiver>,
    /// Indexed by signal; `None` where no pipeline takes the signal from it.
    pub topics: [Option<Arc<Topic>>; 3],
}

/// Everything of a configuration, built and connected, nothing started.
pub struct Graph {
    pub extensions: Arc<Extensions>,
    pub entries: Vec<Entry>,
    pub exporters: Vec<Arc<Destination>>,
    pub exporter_consumers: Vec<(Consumer, Arc<Destination>, Policy)>,
    pub connector_consumers: Vec<(Consumer, Arc<SharedConnector>)>,
    /// With the depth of each.
    pub connectors: Vec<(usize, Arc<SharedConnector>)>,
    pub needs: ContextNeeds,
    /// Whether some consumer reads the index of spans.
    pub wants_index: bool,
    /// What the door may hold.
    pub budget: Arc<Budget>,
    /// (pipeline, component, signal) and its accounts.
    pub accounts: Vec<(Arc<str>, ComponentId, Signal, Accounts)>,
    /// What is to be kept of the states of components.
    pub remembering: Vec<Remembering>,
    /// `None` in memory mode.
    pub replayer: Option<Replayer>,
    /// `None` in memory mode.
    pub journal: Option<Arc<OpenJournal>>,
}

fn declared<'f>(list: &'f [Declared], id: &ComponentId) -> Option<&'f Declared> {
    list.iter().find(|declared| declared.id == *id)
}

impl Read {
    /// Reads the settings of what the plan uses; every problem goes to `found`.
    pub fn of(file: &File, plan: &Plan, tables: &Tables, found: &mut Diagnostics) -> Self {
        let mut read = Self {
            receivers: BTreeMap::new(),
            processors: BTreeMap::new(),
            connectors: BTreeMap::new(),
            exporters: BTreeMap::new(),
            extensions: Vec::new(),
            missing: file.missing_extensions.clone(),
            unsound: Vec::new(),
        };
        let errors = |found: &Diagnostics| found.found.iter().filter(|told| told.level == Level::Error).count();
        let mut unsound = Vec::new();
        let mut judge = |id: &ComponentId, before: usize, found: &Diagnostics| {
            if errors(found) > before {
                unsound.push(id.clone());
            }
        };
        for id in &plan.receivers {
            let Some(declared) = declared(&file.receivers, id) else { continue };
            let Some(factory) = tables.receivers.get(declared.factory) else { continue };
            let before = errors(found);
            read.receivers.insert(id.clone(), (factory.read)(&declared.node, found));
            judge(id, before, found);
        }
        for pipeline in &file.pipelines {
            for reference in &pipeline.processors {
                let Some(declared) = declared(&file.processors, &reference.id) else { continue };
                let Some(factory) = tables.processors.get(declared.factory) else { continue };
                // A processor of several pipelines is read once for each; its problems are told once.
                let again = read.processors.keys().any(|(_, id)| *id == reference.id);
                let mut silent = Diagnostics::default();
                let before = errors(found);
                let ready = (factory.read)(&declared.node, if again { &mut silent } else { &mut *found });
                judge(&reference.id, before, found);
                read.processors.insert((pipeline.id.clone(), reference.id.clone()), ready);
            }
        }
        for planned in &plan.connectors {
            let Some(declared) = declared(&file.connectors, &planned.id) else { continue };
            let Some(factory) = tables.connectors.get(declared.factory) else { continue };
            let before = errors(found);
            read.connectors.insert(planned.id.clone(), (factory.read)(&declared.node, found));
            judge(&planned.id, before, found);
        }
        for id in &plan.exporters {
            let Some(declared) = declared(&file.exporters, id) else { continue };
            let Some(factory) = tables.exporters.get(declared.factory) else { continue };
            let before = errors(found);
            read.exporters.insert(id.clone(), (factory.read)(&declared.node, found));
            judge(id, before, found);
        }
        for reference in &file.service_extensions {
            let Some(declared) = declared(&file.extensions, &reference.id) else { continue };
            let Some(factory) = tables.extensions.get(declared.factory) else { continue };
            let before = errors(found);
            read.extensions.push((reference.id.clone(), (factory.read)(&declared.node, found)));
            judge(&reference.id, before, found);
        }
        read.unsound = unsound;
        read
    }

    /// Everything that some component reads of a request's context.
    fn needs(&self) -> ContextNeeds {
        let mut needs = ContextNeeds::default();
        for ready in self.processors.values() {
            needs.merge(&ready.needs);
        }
        for ready in self.connectors.values() {
            needs.merge(&ready.needs);
        }
        for ready in self.exporters.values() {
            needs.merge(&ready.needs);
            for key in
                ready.delivery.queue.iter().filter_map(|queue| queue.batch.get()).flat_map(|batch| &batch.partition.metadata_keys)
            {
                needs.metadata.insert(key.to_ascii_lowercase());
            }
        }
        for (_, ready) in &self.extensions {
            needs.merge(&ready.needs);
        }
        needs
    }

    /// Builds every component. Reads the files that they name, and opens nothing. What fails of all of them goes to `found`, and nothing
    /// comes back then.
    pub fn build(mut self, file: &File, plan: &Plan, around: &Surroundings, found: &mut Diagnostics) -> Option<Built> {
        let needs = self.needs();
        let wants_index = self.connectors.values().any(|ready| ready.wants_index);
        let notes = Notes::default();
        let context = |id: &ComponentId, extensions: &Arc<Extensions>| BuildContext {
            id: id.clone(),
            telemetry: around.telemetry.clone(),
            health: around.health.clone(),
            extensions: extensions.clone(),
            clock: around.clock.clone(),
            notes: notes.clone(),
        };
        let mut complaints = Complaints { file, unsound: std::mem::take(&mut self.unsound), notes: notes.clone(), found };
        let mut whole = complaints.unsound.is_empty() && self.missing.is_empty();

        // Extensions first, in their order: an authenticator may be asked for by whatever comes after it.
        let missing = self.missing.iter().map(|id| (id.clone(), Arc::new(Unbuilt) as Arc<dyn Extension>));
        let mut extensions = Arc::new(Extensions(missing.collect()));
        for (id, ready) in std::mem::take(&mut self.extensions) {
            let built = complaints.take("extensions", &id, (ready.build)(context(&id, &extensions)));
            whole &= built.is_some();
            let mut known = extensions.0.clone();
            known.push((id, built.unwrap_or_else(|| Arc::new(Unbuilt))));
            extensions = Arc::new(Extensions(known));
        }

        let signals: BTreeMap<&str, Signal> =
            plan.consumers.iter().map(|consumer| (consumer.pipeline.as_str(), consumer.signal)).collect();
        let mut processors = BTreeMap::new();
        let mut wishes = Vec::new();
        for ((pipeline, id), ready) in std::mem::take(&mut self.processors) {
            let Some(signal) = signals.get(pipeline.as_str()) else { continue };
            match complaints.take("processors", &id, (ready.build)(context(&id, &extensions), *signal)) {
                Some(BuiltProcessor::Budget(wish)) => wishes.push(wish),
                Some(built) => {
                    processors.insert((pipeline, id), built);
                }
                None => whole = false,
            }
        }
        let mut exporters = Vec::new();
        for id in &plan.exporters {
            let Some(ready) = self.exporters.remove(id) else { continue };
            let queue = ready.delivery.queue.as_ref().filter(|queue| queue.enabled);
            let storage = queue.and_then(|queue| queue.storage.as_deref()).map_or(Ok(()), |storage| extensions.storage(storage));
            match complaints.take("exporters", id, both((ready.build)(context(id, &extensions)), storage)) {
                Some((exporter, ())) => exporters.push(BuiltExporter {
                    id: id.clone(),
                    exporter,
                    delivery: ready.delivery,
                    splits_by_context: ready.splits_by_context,
                }),
                None => whole = false,
            }
        }
        let mut connectors = Vec::new();
        for planned in &plan.connectors {
            let Some(ready) = self.connectors.remove(&planned.id) else { continue };
            let wanted = ConnectorUse { derives: !planned.derives.is_empty(), renders: planned.renders };
            match complaints.take("connectors", &planned.id, (ready.build)(context(&planned.id, &extensions), wanted)) {
                Some(built) => connectors.push((planned.id.clone(), built)),
                None => whole = false,
            }
        }
        let mut receivers = Vec::new();
        for id in &plan.receivers {
            let Some(ready) = self.receivers.remove(id) else { continue };
            match complaints.take("receivers", id, (ready.build)(context(id, &extensions))) {
                Some(receiver) => receivers.push((id.clone(), receiver)),
                None => whole = false,
            }
        }
        let budget = Budget::of_wishes(&wishes);
        whole.then_some(Built { needs, wants_index, budget, extensions, processors, exporters, connectors, receivers })
    }
}

/// Where building says what is wrong.
struct Complaints<'f> {
    file: &'f File,
    unsound: Vec<ComponentId>,
    notes: Notes,
    found: &'f mut Diagnostics,
}

impl Complaints<'_> {
    /// What was built; a failure is told, unless wrong settings are its reason and have been told of.
    fn take<T>(&mut self, kind: &'static str, id: &ComponentId, result: Result<T, BuildError>) -> Option<T> {
        let notes = self.notes.take();
        let told_already = self.unsound.contains(id);
        match result {
            result if told_already => result.ok(),
            Ok(built) => {
                let whole = component(self.file, kind, id);
                for note in notes {
                    let origin = whole.map_or_else(Origin::default, |whole| whole.origin_of(&note.path));
                    let warning = Diagnostic { level: Level::Warning, origin, message: note.message, help: note.help };
                    // A component of several pipelines is built once for each.
                    if !self.found.found.contains(&warning) {
                        self.found.found.push(warning);
                    }
                }
                Some(built)
            }
            Err(cause) => {
                Failed { kind, id: id.clone(), cause }.tell(self.file, self.found);
                None
            }
        }
    }
}

impl Built {
    /// Makes the topics, and connects everything to them.
    ///
    /// # Errors
    /// Where the journal on disk cannot be opened, or must not be used.
    pub fn connect(self, plan: &Plan, around: &Surroundings, persistence: Option<&Persistence>) -> Result<Graph, ConnectError> {
        let Self { needs, wants_index, budget, extensions, mut processors, .. } = self;
        let memory_bytes = budget.bytes() as u64;

        let mut sources: Vec<ComponentId> = plan.receivers.clone();
        sources.extend(plan.connectors.iter().map(|planned| planned.id.clone()));
        let source = |id: &ComponentId| {
            let at = sources.iter().position(|known| known == id).unwrap_or(usize::MAX);
            SourceId(u16::try_from(at).unwrap_or(u16::MAX))
        };
        let pace = (memory_bytes / 16).min(PACE_BYTES);
        if persistence.is_some()
            && !needs.metadata.is_empty()
            && let Some(forwarding) = self.exporters.iter().find(|built| built.splits_by_context)
        {
            return Err(ConnectError::Credentials(forwarding.id.clone()));
        }
        let names: Vec<String> = plan.topics.iter().map(|planned| planned.name.clone()).collect();
        let source_names: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let topic_names: Arc<[String]> = names.into();
        let open = |wish| Directory::open(wish, topic_names.to_vec(), &source_names, around.clock.clone()).map(Arc::new);
        let directory = persistence.map(open).transpose()?;
        // What remembers, once its state is read.
        let mut remembering: Vec<(&'static str, ComponentId, Remembering)> = Vec::new();
        let mut remember = |kind: &'static str, id: &ComponentId, state: Option<Arc<dyn Stateful>>, flushes: bool| {
            let (Some(directory), Some(state)) = (&directory, state) else { return Ok(()) };
            let file = directory.state(&format!("{kind}.{id}"))?;
            let pressed = directory.clone();
            let is_pressed = Arc::new(move || {
                let (used, max) = pressed.usage();
                used > max / PRESSED
            });
            let begun = Remembering::begin(id.clone(), state, file, topic_names.clone(), is_pressed, flushes);
            remembering.push((kind, id.clone(), begun));
            Ok::<_, DirectoryError>(())
        };
        let mut topics: Vec<Arc<Topic>> = Vec::new();
        let mut disk_shards = Vec::new();
        for (number, planned) in (0_u16..).zip(&plan.topics) {
            let (id, name, room) = (TopicId(number), planned.name.clone(), Arc::new(Notify::new()));
            let shard: Arc<dyn Shard> = match &directory {
                None => Arc::new(MemoryShard::new(id, 0, pace, room.clone())),
                Some(directory) => {
                    let shard = directory.shard(id, &name, planned.signal, 0, pace, room.clone())?;
                    disk_shards.push((name.clone(), shard.clone()));
                    shard
                }
            };
            let topic = Arc::new(Topic::of(id, name, planned.signal, room, vec![shard]));
            around.board.topic(&topic);
            topics.push(topic);
        }

        let dead_letters = Arc::new(match &directory {
            None => DeadLetters::in_memory(topic_names.clone(), &around.telemetry),
            Some(directory) => {
                let (store, found) = directory.letters()?;
                let cause = |cause| DirectoryError::Io { path: directory.path().display().to_string(), cause };
                DeadLetters::on_disk(topic_names.clone(), store, found, around.clock.clone(), &around.telemetry).map_err(cause)?
            }
        });
        let mut replayer = dead_letters.store().cloned().map(Replayer::new);
        let mut exporters: Vec<Arc<Destination>> = Vec::new();
        let mut settings = BTreeMap::new();
        for built in self.exporters {
            settings.insert(built.id.clone(), built.delivery);
            remember("exporters", &built.id, built.exporter.state(), false)?;
            exporters.push(Arc::new(Destination {
                exporter: built.exporter,
                breakers: Default::default(),
                metrics: around.telemetry.exporter(built.id.as_str()),
                dead_letters: dead_letters.clone(),
                health: around.health.clone(),
                splits_by_context: built.splits_by_context,
                clock: around.clock.clone(),
                taps: around.taps.clone(),
                id: built.id,
            }));
        }

        let mut connectors: Vec<(ComponentId, Arc<SharedConnector>)> = Vec::new();
        for (id, built) in self.connectors {
            if let Some(page) = &built.page {
                let renders = |exporter: &&Arc<Destination>| {
                    plan.consumers.iter().any(|consumer| consumer.component == exporter.id && consumer.renders.contains(&id))
                };
                for exporter in exporters.iter().filter(renders) {
                    exporter.exporter.add_page(page.clone());
                }
            }
            let kind = TopicKind::Derived(id.clone());
            let outputs =
                plan.topics.iter().zip(&topics).filter(|(topic, _)| topic.kind == kind).map(|(_, topic)| topic.clone()).collect();
            let state = built.connector.state();
            remember("connectors", &id, state.clone(), built.flush_interval.is_some())?;
            let shared = SharedConnector {
                connector: Mutex::new(built.connector),
                state,
                source: source(&id),
                outputs,
                dead_letters: dead_letters.clone(),
                clock: around.clock.clone(),
                flush_interval: built.flush_interval,
                taps: around.taps.clone(),
            };
            connectors.push((id, Arc::new(shared)));
        }

        let mut graph = Graph {
            extensions: extensions.clone(),
            entries: Vec::new(),
            exporters,
            exporter_consumers: Vec::new(),
            connector_consumers: Vec::new(),
            connectors: connectors
                .iter()
                .map(|(id, shared)| {
                    (plan.connectors.iter().find(|planned| planned.id == *id).map_or(0, |planned| planned.depth), shared.clone())
                })
                .collect(),
            needs,
            wants_index,
            budget,
            accounts: Vec::new(),
            remembering: Vec::new(),
            replayer: None,
            journal: None,
        };

        // In memory half of the budget, over all topics, for what a consumer has not read, so that a dead backend leaves room for the others.
        // On disk the quota bounds them all.
        let in_memory = memory_bytes / 2 / topics.len().max(1) as u64;
        let lag_bytes = around.lag_bytes.unwrap_or(if directory.is_some() { 0 } else { in_memory });
        let mut chains: BTreeMap<String, (Arc<Chain>, Option<BatchWish>)> = BTreeMap::new();
        for planned in &plan.consumers {
            if !chains.contains_key(&planned.pipeline) {
                let mut stages = Vec::new();
                let mut batching = None;
                for id in &planned.processors {
                    match processors.remove(&(planned.pipeline.clone(), id.clone())) {
                        Some(BuiltProcessor::Stage(processor)) => {
                            let metrics = around.telemetry.processor(id.as_str(), planned.signal);
                            stages.push(Stage { processor, metrics });
                        }
                        Some(BuiltProcessor::Batching(wish)) => batching = Some(wish),
                        Some(BuiltProcessor::Budget(_)) | None => {}
                    }
                }
                let consumers = plan.consumers.iter().filter(|consumer| consumer.pipeline == planned.pipeline).count();
                chains.insert(planned.pipeline.clone(), (Arc::new(Chain::new(stages, consumers)), batching));
            }
            let Some((chain, batching)) = chains.get(&planned.pipeline) else { continue };
            let kind = if planned.role == Role::Exporter { "exporters" } else { "connectors" };
            let remembers = remembering.iter_mut().find(|(known, id, _)| *known == kind && *id == planned.component);
            let mut policy = match planned.role {
                Role::Exporter => {
                    Policy::of(settings.get(&planned.component).unwrap_or(&delivery::Settings::default()), *batching, lag_bytes)
                }
                Role::Connector => {
                    let mut policy = Policy::of(&delivery::Settings::default(), None, lag_bytes);
                    policy.on_overflow = OnOverflow::HoldDoor;
                    policy
                }
            };
            if remembers.is_some() {
                policy.one_by_one();
            }
            let bell = bell(planned, around);
            let mut consumer =
                subscribe(planned, &topics, &source, &policy, remembers.is_some(), bell, chain.clone(), plan.depth(planned));
            around.board.consumer(&consumer.live);
            if let Some(replayer) = &mut replayer {
                let name = planned.subscriber_name().into();
                if planned.role == Role::Exporter && remembers.is_none() {
                    consumer.replays = Some(replayer.taker(name));
                } else {
                    replayer.refuser(name);
                }
            }
            if let Some((_, _, remembering)) = remembers {
                remembering.reader(consumer.cursor.marks());
            }
            graph.accounts.push((consumer.pipeline.clone(), consumer.id.clone(), consumer.signal, consumer.cursor.accounts()));
            match planned.role {
                Role::Exporter => {
                    if let Some(destination) = graph.exporters.iter().find(|exporter| exporter.id == planned.component) {
                        consumer.live.leads_to(destination.clone());
                        graph.exporter_consumers.push((consumer, destination.clone(), policy));
                    }
                }
                Role::Connector => {
                    if let Some((_, shared)) = connectors.iter().find(|(id, _)| *id == planned.component) {
                        graph.connector_consumers.push((consumer, shared.clone()));
                    }
                }
            }
        }

        for (id, receiver) in self.receivers {
            let topics = Signal::ALL.map(|signal| {
                let fits = |planned: &&super::plan::PlannedTopic| {
                    planned.kind == TopicKind::Ingest && planned.signal == signal && planned.sources.contains(&id)
                };
                let at = plan.topics.iter().position(|planned| fits(&planned))?;
                topics.get(at).cloned()
            });
            graph.entries.push(Entry { source: source(&id), id, receiver, topics });
        }
        graph.show_books(&around.telemetry);
        let clock = around.clock.clone();
        around.board.show(&around.telemetry, &around.taps, move || clock.now());
        graph.remembering = remembering.into_iter().map(|(_, _, remembering)| remembering).collect();
        graph.replayer = replayer;
        graph.journal = directory.map(|directory| Arc::new(OpenJournal { directory, shards: disk_shards, dead_letters }));
        if let Some(journal) = &graph.journal {
            journal.warn_of_strangers();
            around.board.open_journal(journal);
            let journal = Arc::downgrade(journal);
            around.telemetry.on_scrape(move |samples: &mut Samples| {
                if let Some(journal) = journal.upgrade() {
                    let (used, max) = journal.usage();
                    samples.journal(used, max, journal.fault().is_some());
                }
            });
        }
        Ok(graph)
    }
}

/// The journal on disk, for as long as a graph runs.
pub struct OpenJournal {
    directory: Arc<Directory>,
    /// With the names of their topics.
    shards: Vec<(String, Arc<DiskShard>)>,
    dead_letters: Arc<DeadLetters>,
}

impl OpenJournal {
    fn warn_of_strangers(&self) {
        for (topic, shard) in &self.shards {
            for (consumer, lag) in shard.strangers() {
                warn!(
                    topic,
                    consumer,
                    records = lag.records,
                    bytes = lag.bytes,
                    "data is held for a consumer that this configuration does not have; it is kept until the consumer is back"
                );
            }
        }
    }

    /// Writes everything down and takes nothing more. Blocks until it is done.
    pub fn close(&self) {
        for (_, shard) in &self.shards {
            shard.close();
        }
        self.dead_letters.close();
    }

    /// Why some topic takes no data now.
    pub fn fault(&self) -> Option<String> {
        self.shards.iter().find_map(|(_, shard)| shard.fault())
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
}

/// The share of the journal's room (one of so many) at which states are saved at once, so that records can be let go.
const PRESSED: u64 = 4;
/// Unread bytes of a moving consumer at which the door slows down.
const PACE_BYTES: u64 = 2 << 20;

fn subscribe(
    planned: &PlannedConsumer,
    topics: &[Arc<Topic>],
    source: &impl Fn(&ComponentId) -> SourceId,
    policy: &Policy,
    is_stateful: bool,
    waker: Arc<Waker>,
    chain: Arc<Chain>,
    depth: usize,
) -> Consumer {
    let mut places = Vec::new();
    for (topic, sources) in &planned.reads {
        let Some(topic) = topics.get(*topic) else { continue };
        let subscriber = Subscriber {
            name: planned.subscriber_name().into(),
            sources: Sources::of(sources.iter().map(source)),
            bound: policy.bound,
            on_overflow: policy.on_overflow,
            is_stateful,
        };
        places.extend(topic.subscribe(&subscriber, &waker));
    }
    let (pipeline, id, signal): (Arc<str>, _, _) = (planned.pipeline.as_str().into(), planned.component.clone(), planned.signal);
    let cursor = Cursor::new(places, waker);
    let live = Arc::new(Live::new(pipeline.clone(), id.clone(), signal, &cursor));
    Consumer { pipeline, id, signal, cursor, chain, depth, replays: None, live }
}

/// Wakes a consumer, and shows to taps what it is moved over because it is too far behind.
fn bell(planned: &PlannedConsumer, around: &Surroundings) -> Arc<Waker> {
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

impl Graph {
    /// The books of every consumer, on our own page.
    fn show_books(&self, telemetry: &Telemetry) {
        let accounts = self.accounts.clone();
        telemetry.on_scrape(move |samples: &mut Samples| {
            for (pipeline, id, signal, accounts) in &accounts {
                let books = accounts.books();
                let dropped =
                    DropReason::ALL.map(|reason| (reason.as_str(), books.dropped.get(reason as usize).copied().unwrap_or(0)));
                samples.books(&internal_telemetry::Books {
                    pipeline,
                    component: id.as_str(),
                    signal: signal.as_str(),
                    accepted: books.accepted,
                    delivered: books.delivered,
                    dropped: &dropped,
                    held_items: books.held,
                    held_bytes: books.held_bytes,
                });
            }
        });
    }
}
