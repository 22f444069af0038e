//! A configuration file as a whole: which components it declares, which pipelines it draws between them, and whether that can work.
//!
//! In:   the merged tree, and the tables of what weir has.
//! Out:  [`File`]: every id resolved to a row of its table, every reference to a declared id; everything wrong in [`Diagnostics`].

mod admin;
mod connectors;
mod echoes;
mod journal;
mod migrate;
mod sections;
mod service;
mod unsupported;

#[cfg(test)]
mod tests;

use crate::{
    component::Tables,
    config::{Diagnostics, Node, Origin, Value, collector::Kind, suggest},
    signal::{ComponentId, Signal},
};

pub use admin::Admin;
pub use echoes::drop_echoes;
pub use journal::{Journal, JournalMode};
pub use migrate::{Migrated, migrate};
pub use sections::Declared;
use sections::Sections;
pub use unsupported::{LeftOut, nothing_left, strip, unknown_names};

/// A component named in a pipeline or in `service::extensions`, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub id: ComponentId,
    pub origin: Origin,
}

/// `service::pipelines::<signal>[/name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineEntry {
    pub signal: Signal,
    /// `traces`, `traces/x`
    pub id: String,
    /// Where its key was written.
    pub origin: Origin,
    pub receivers: Vec<Reference>,
    pub processors: Vec<Reference>,
    pub exporters: Vec<Reference>,
}

/// A file. What is declared and used by nothing is in it too; it is checked, and not started.
#[derive(Debug, Clone)]
pub struct File {
    pub receivers: Vec<Declared>,
    pub processors: Vec<Declared>,
    pub connectors: Vec<Declared>,
    pub exporters: Vec<Declared>,
    pub extensions: Vec<Declared>,
    pub pipelines: Vec<PipelineEntry>,
    pub service_extensions: Vec<Reference>,
    /// Named in `service::extensions` and not to be had; the reason was told.
    pub missing_extensions: Vec<ComponentId>,
    /// `service::telemetry`, unread.
    pub telemetry: Option<Node>,
    pub journal: Journal,
    pub admin: Admin,
}

/// The keys of a file; `journal` and `admin` are weir's own.
const KEYS: &[&str] = &["receivers", "processors", "exporters", "connectors", "extensions", "service", "journal", "admin"];

impl File {
    /// Checks a whole file. What comes back holds everything that could be resolved, so that further checks can run; nothing may be
    /// built from it while `found` has errors. `None`: not a map at all.
    pub fn check(node: &Node, tables: &Tables, found: &mut Diagnostics) -> Option<Self> {
        for (key, _) in node.entries() {
            let name = key.word().map_or("", |word| word);
            if !KEYS.contains(&name) {
                let near = suggest::nearest(name, KEYS.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                let help = near.unwrap_or_else(|| format!("a file has {}", suggest::list(KEYS.iter().copied())));
                found.error(key.origin, format!("there is no section `{name}`"), Some(help));
            }
        }
        service::tell_unknown_keys(node, found);
        let mended = echoes::mended(node, service::KEYS, service::PIPELINE_KEYS);
        let node = &mended;
        let mut sections = Sections::read(node, tables, found);
        let service = service::read(node, &mut sections, tables, found);
        connectors::check(&sections, &service.pipelines, tables, found);
        sections.tell_absent(tables, found);
        let journal = Journal::read(node.get("journal"), found);
        let admin = Admin::read(node.get("admin"), found);
        let extensions = sections.take(Kind::Extension);
        let file = Self {
            receivers: sections.take(Kind::Receiver),
            processors: sections.take(Kind::Processor),
            connectors: sections.take(Kind::Connector),
            exporters: sections.take(Kind::Exporter),
            service_extensions: those_named_first(service.extensions, &extensions),
            extensions,
            pipelines: service.pipelines,
            missing_extensions: service.missing_extensions,
            telemetry: service.telemetry,
            journal,
            admin,
        };
        // What is unused is not started, but a wrong key in it is still a wrong key.
        file.read_settings(tables, false, found);
        matches!(node.value, Value::Map(_)).then_some(file)
    }

    /// Reads the settings of every component that is used (or of every one that is not), for what is wrong with them.
    pub fn read_settings(&self, tables: &Tables, used: bool, found: &mut Diagnostics) {
        let in_pipelines = |id: &ComponentId, lists: fn(&PipelineEntry) -> [&Vec<Reference>; 2]| {
            self.pipelines.iter().any(|pipeline| lists(pipeline).into_iter().flatten().any(|reference| reference.id == *id))
        };
        for declared in self.receivers.iter().filter(|it| in_pipelines(&it.id, |p| [&p.receivers, &p.receivers]) == used) {
            tables.receivers.get(declared.factory).map(|factory| (factory.read)(&declared.node, found));
        }
        for declared in self.processors.iter().filter(|it| in_pipelines(&it.id, |p| [&p.processors, &p.processors]) == used) {
            tables.processors.get(declared.factory).map(|factory| (factory.read)(&declared.node, found));
        }
        for declared in self.connectors.iter().filter(|it| in_pipelines(&it.id, |p| [&p.exporters, &p.receivers]) == used) {
            tables.connectors.get(declared.factory).map(|factory| (factory.read)(&declared.node, found));
        }
        for declared in self.exporters.iter().filter(|it| in_pipelines(&it.id, |p| [&p.exporters, &p.exporters]) == used) {
            tables.exporters.get(declared.factory).map(|factory| (factory.read)(&declared.node, found));
        }
        for declared in self.extensions.iter().filter(|it| self.service_extensions.iter().any(|one| one.id == it.id) == used) {
            tables.extensions.get(declared.factory).map(|factory| (factory.read)(&declared.node, found));
        }
    }
}

/// The extensions as written, but behind those that their settings name (`additional_auth`): these are built and started first.
fn those_named_first(mut waiting: Vec<Reference>, declared: &[Declared]) -> Vec<Reference> {
    fn names(node: &Node, id: &ComponentId) -> bool {
        match &node.value {
            Value::String(text) => **text == *id.as_str(),
            Value::List(items) => items.iter().any(|item| names(item, id)),
            Value::Map(entries) => entries.iter().any(|(_, value)| names(value, id)),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
        }
    }
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let waits = |one: &Reference| {
            let settings = declared.iter().find(|it| it.id == one.id).map(|it| &it.node);
            let others = waiting.iter().filter(|other| other.id != one.id);
            settings.is_some_and(|node| others.into_iter().any(|other| names(node, &other.id)))
        };
        // Of those that name one another the first has to do without: it says so.
        let next = waiting.iter().position(|one| !waits(one)).unwrap_or(0);
        ordered.push(waiting.remove(next));
    }
    ordered
}
