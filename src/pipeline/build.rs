//! A plan → built components, each with its definition, ready to be connected and started.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
};

use parking_lot::Mutex;

use super::{
    Board,
    definition::{Definition, Definitions, Describing, Part},
    file::{Declared, File, PipelineEntry},
    plan::{Plan, PlannedConsumer, Role},
};
use crate::{
    component::delivery::{self, BatchWish},
    component::{
        BuildContext, BuiltConnector, BuiltProcessor, Claims, ConnectorUse, Exporter, Extension, Extensions, Notes, Processor,
        ReadyConnector, ReadyExporter, ReadyExtension, ReadyProcessor, ReadyReceiver, Receiver, Tables, Unbuilt,
    },
    config::{Diagnostic, Diagnostics, Level, Origin},
    door::Budget,
    internal_telemetry::Telemetry,
    journal::DirectoryError,
    runtime::{BuildError, Clock, Health, Sockets, both},
    signal::{ComponentId, ContextNeeds, Signal},
    tap::Taps,
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

/// What the parts are built with: one a process. Cloning shares it.
#[derive(Clone)]
pub struct Surroundings {
    pub telemetry: Telemetry,
    pub health: Arc<Health>,
    pub clock: Clock,
    pub sockets: Arc<Sockets>,
    /// The extensions that run: a configuration that has one of them unchanged refers to what runs.
    pub extensions: Arc<Mutex<Vec<BuiltExtension>>>,
    /// Whether something runs already.
    pub is_running: Arc<AtomicBool>,
    /// Who looks at what passes.
    pub taps: Taps,
    /// Where consumers and topics can be looked at.
    pub board: Board,
}

impl Surroundings {
    /// Of a process in which nothing runs yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            telemetry: Telemetry::default(),
            health: Arc::default(),
            clock,
            sockets: Arc::default(),
            extensions: Arc::default(),
            is_running: Arc::default(),
            taps: Taps::default(),
            board: Board::default(),
        }
    }
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
    pub plan: Plan,
    pub definitions: Definitions,
    pub needs: ContextNeeds,
    /// Whether some consumer reads the index of spans.
    pub wants_index: bool,
    /// What the door may hold.
    pub budget_bytes: usize,
    /// `journal::max_lag`, where written.
    pub lag_bytes: Option<u64>,
    pub extensions: Vec<BuiltExtension>,
    /// By pipeline.
    pub chains: BTreeMap<String, BuiltChain>,
    pub exporters: Vec<BuiltExporter>,
    pub connectors: Vec<(ComponentId, BuiltConnector)>,
    pub receivers: Vec<(ComponentId, Box<dyn Receiver>)>,
}

#[derive(Clone)]
pub struct BuiltExtension {
    pub id: ComponentId,
    pub definition: Definition,
    pub extension: Arc<dyn Extension>,
}

pub struct BuiltExporter {
    pub id: ComponentId,
    pub exporter: Arc<dyn Exporter>,
    pub delivery: delivery::Settings,
    pub splits_by_context: bool,
}

/// The processors of a pipeline, in order.
pub struct BuiltChain {
    pub definition: Definition,
    pub stages: Vec<(ComponentId, Arc<dyn Processor>)>,
    /// What a `batch` among them asks of the readers.
    pub batching: Option<BatchWish>,
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
        let described = described(file, plan);
        let wants_index = self.connectors.values().any(|ready| ready.wants_index);
        let (notes, claims) = (Notes::default(), Claims::default());
        let context = |id: &ComponentId, extensions: &Arc<Extensions>| BuildContext {
            id: id.clone(),
            telemetry: around.telemetry.clone(),
            health: around.health.clone(),
            extensions: extensions.clone(),
            clock: around.clock.clone(),
            notes: notes.clone(),
            claims: claims.clone(),
            sockets: around.sockets.clone(),
            is_reload: around.is_running.load(Ordering::Relaxed),
        };
        let mut complaints = Complaints { file, unsound: std::mem::take(&mut self.unsound), notes: notes.clone(), found };
        let mut whole = complaints.unsound.is_empty() && self.missing.is_empty();

        // Extensions first, in their order: an authenticator may be asked for by whatever comes after it.
        let missing = self.missing.iter().map(|id| (id.clone(), Arc::new(Unbuilt) as Arc<dyn Extension>));
        let mut extensions = Arc::new(Extensions(missing.collect()));
        let mut built_extensions = Vec::new();
        for (id, ready) in std::mem::take(&mut self.extensions) {
            // Built also where it runs already: what is wrong with it by now is told all the same.
            let built = complaints.take("extensions", &id, (ready.build)(context(&id, &extensions)));
            whole &= built.is_some();
            let definition = described.extensions.get(&id).copied().unwrap_or_else(|| Describing::new("").done());
            let running = around.extensions.lock();
            let same = running.iter().find(|running| running.id == id && running.definition == definition);
            let extension = match (built, same) {
                (Some(_), Some(running)) => running.extension.clone(),
                (Some(built), None) => built,
                (None, _) => Arc::new(Unbuilt),
            };
            drop(running);
            let mut known = extensions.0.clone();
            known.push((id.clone(), extension.clone()));
            extensions = Arc::new(Extensions(known));
            built_extensions.push(BuiltExtension { id, definition, extension });
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
        let mut chains = BTreeMap::new();
        for pipeline in &file.pipelines {
            let mut chain = BuiltChain { definition: described.chain(pipeline), stages: Vec::new(), batching: None };
            for reference in &pipeline.processors {
                match processors.remove(&(pipeline.id.clone(), reference.id.clone())) {
                    Some(BuiltProcessor::Stage(processor)) => chain.stages.push((reference.id.clone(), processor)),
                    Some(BuiltProcessor::Batching(wish)) => chain.batching = Some(wish),
                    Some(BuiltProcessor::Budget(_)) | None => {}
                }
            }
            chains.insert(pipeline.id.clone(), chain);
        }
        whole.then_some(Built {
            plan: plan.clone(),
            definitions: described.definitions(plan, &chains),
            needs,
            wants_index,
            budget_bytes: Budget::wished(&wishes),
            lag_bytes: file.journal.max_lag.map(|size| size.0),
            extensions: built_extensions,
            chains,
            exporters,
            connectors,
            receivers,
        })
    }
}

impl Built {
    /// Whether it may be connected to a journal on disk.
    ///
    /// # Errors
    /// It would write credentials.
    pub fn fits(&self, on_disk: bool) -> Result<(), ConnectError> {
        match self.exporters.iter().find(|built| built.splits_by_context) {
            Some(forwarding) if on_disk && !self.needs.metadata.is_empty() => {
                Err(ConnectError::Credentials(forwarding.id.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// The definitions of what stands alone.
struct Described {
    extensions: BTreeMap<ComponentId, Definition>,
    receivers: BTreeMap<ComponentId, Definition>,
    processors: BTreeMap<ComponentId, Definition>,
    connectors: BTreeMap<ComponentId, Definition>,
    exporters: BTreeMap<ComponentId, Definition>,
}

fn described(file: &File, plan: &Plan) -> Described {
    let mut extensions = BTreeMap::new();
    // In their order: one may name those before it.
    for reference in &file.service_extensions {
        if let Some(declared) = declared(&file.extensions, &reference.id) {
            let definition = Describing::new(declared.id.as_str()).settings(&declared.node, &extensions).done();
            extensions.insert(declared.id.clone(), definition);
        }
    }
    let all = |list: &[Declared]| {
        let one = |declared: &Declared| {
            (declared.id.clone(), Describing::new(declared.id.as_str()).settings(&declared.node, &extensions).done())
        };
        list.iter().map(one).collect::<BTreeMap<_, _>>()
    };
    let mut connectors = all(&file.connectors);
    for planned in &plan.connectors {
        if let Some(definition) = connectors.get_mut(&planned.id) {
            let mut used = Describing::new(if planned.renders { "renders" } else { "" }).definition(*definition);
            for signal in &planned.derives {
                used = used.text(signal.as_str());
            }
            *definition = used.done();
        }
    }
    Described {
        receivers: all(&file.receivers),
        processors: all(&file.processors),
        connectors,
        exporters: all(&file.exporters),
        extensions,
    }
}

impl Described {
    fn chain(&self, pipeline: &PipelineEntry) -> Definition {
        let known = pipeline.processors.iter().filter_map(|reference| self.processors.get(&reference.id));
        known.fold(Describing::new("chain"), |chain, definition| chain.definition(*definition)).done()
    }

    fn definitions(&self, plan: &Plan, chains: &BTreeMap<String, BuiltChain>) -> Definitions {
        let mut definitions = Definitions::default();
        for (id, definition) in &self.extensions {
            definitions.add(Part::Extension(id.clone()), *definition);
        }
        let mut add = |ids: Vec<&ComponentId>, known: &BTreeMap<ComponentId, Definition>, part: fn(ComponentId) -> Part| {
            for id in ids {
                if let Some(definition) = known.get(id) {
                    definitions.add(part(id.clone()), *definition);
                }
            }
        };
        add(plan.receivers.iter().collect(), &self.receivers, Part::Receiver);
        add(plan.connectors.iter().map(|planned| &planned.id).collect(), &self.connectors, Part::Connector);
        add(plan.exporters.iter().collect(), &self.exporters, Part::Exporter);
        for planned in &plan.consumers {
            let known = if planned.role == Role::Exporter { &self.exporters } else { &self.connectors };
            let (Some(own), Some(chain)) = (known.get(&planned.component), chains.get(&planned.pipeline)) else { continue };
            let definition = consumer(planned, plan, *own, chain.definition);
            definitions.add(Part::Consumer { pipeline: planned.pipeline.clone(), id: planned.component.clone() }, definition);
        }
        definitions
    }
}

/// Which sources it takes from its topics is no part of it: that changes while it runs on.
fn consumer(planned: &PlannedConsumer, plan: &Plan, own: Definition, chain: Definition) -> Definition {
    let role = if planned.role == Role::Exporter { "exporter" } else { "connector" };
    let mut topics: Vec<&str> =
        planned.reads.iter().filter_map(|(topic, _)| plan.topics.get(*topic)).map(|topic| topic.name.as_str()).collect();
    topics.sort_unstable();
    topics.into_iter().fold(Describing::new(role).definition(own).definition(chain), Describing::text).done()
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
