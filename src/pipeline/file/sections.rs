//! `receivers:` … `extensions:` → ids, each with its row in a table; or with the reason why there is none.

use crate::{
    component::{Naming, Tables},
    config::{
        Diagnostic, Diagnostics, Level, Node, Origin, Value,
        collector::{self, Kind, Known},
        suggest,
    },
    signal::ComponentId,
};

/// A component that a file declares and weir has.
#[derive(Debug, Clone)]
pub struct Declared {
    pub id: ComponentId,
    /// Its row in the table of its kind.
    pub factory: usize,
    /// Where its key was written.
    pub origin: Origin,
    /// Its settings; null where none are written.
    pub node: Node,
}

impl Declared {
    /// Where the key at `path` inside the settings was written, or the nearest around it.
    pub fn origin_of(&self, path: &str) -> Origin {
        let node = self.node.nearest(path);
        if std::ptr::eq(node, &raw const self.node) { self.origin } else { node.origin }
    }
}

/// A component that a file declares and weir does not have.
#[derive(Debug, Clone)]
pub(super) struct Absent {
    pub(super) kind: Kind,
    pub(super) id: ComponentId,
    pub(super) origin: Origin,
    /// The Collector has it; `None`: nobody does.
    pub(super) known: Option<Known>,
    pub(super) used: bool,
}

/// All sections of a file that hold components.
#[derive(Default)]
pub(super) struct Sections {
    declared: Vec<(Kind, Declared)>,
    pub(super) absent: Vec<Absent>,
    /// Ids that could not even be read; references to them are not told of again.
    broken: Vec<(Kind, String)>,
}

/// What a type name is in the tables.
pub(super) fn naming(tables: &Tables, kind: Kind) -> Vec<Naming> {
    match kind {
        Kind::Receiver => tables.receivers.iter().map(|row| row.naming).collect(),
        Kind::Processor => tables.processors.iter().map(|row| row.naming).collect(),
        Kind::Connector => tables.connectors.iter().map(|row| row.naming).collect(),
        Kind::Exporter => tables.exporters.iter().map(|row| row.naming).collect(),
        Kind::Extension => tables.extensions.iter().map(|row| row.naming).collect(),
    }
}

impl Sections {
    pub(super) fn read(node: &Node, tables: &Tables, found: &mut Diagnostics) -> Self {
        let mut sections = Self::default();
        for kind in Kind::ALL {
            let Some(section) = node.get(kind.section()) else { continue };
            if !matches!(section.value, Value::Map(_) | Value::Null) {
                let help = format!("write a map: `{}: {{TYPE: {{…}}}}`", kind.section());
                found.error(
                    section.origin,
                    format!("`{}` is a map of components, not {}", kind.section(), section.kind()),
                    Some(help),
                );
            }
            let naming = naming(tables, kind);
            let mut warned: Vec<&str> = Vec::new();
            for (key, settings) in section.entries() {
                sections.entry(kind, &naming, key, settings, &mut warned, found);
            }
        }
        sections
    }

    fn entry(
        &mut self,
        kind: Kind,
        naming: &[Naming],
        key: &Node,
        settings: &Node,
        warned: &mut Vec<&'static str>,
        found: &mut Diagnostics,
    ) {
        let text = key.word().map_or("", |word| word);
        let id = match ComponentId::parse(text) {
            Ok(id) => id,
            Err(wrong) => {
                found.error(
                    key.origin,
                    format!("`{text}` is not a component id: {wrong}"),
                    Some("an id is `type` or `type/name`".to_owned()),
                );
                self.broken.push((kind, text.to_owned()));
                return;
            }
        };
        if self.has(kind, &id) {
            found.error(key.origin, format!("the {} `{id}` is declared twice", kind.word()), None);
            return;
        }
        let mut node = settings.clone();
        if !matches!(settings.value, Value::Map(_) | Value::Null) {
            found.error(settings.origin, format!("the settings of `{id}` are a map, not {}", settings.kind()), None);
            node = Node { value: Value::Null, ..node };
        }
        let Some(factory) = naming.iter().position(|row| row.answers_to(id.type_name())) else {
            let known = collector::known(kind, id.type_name());
            self.absent.push(Absent { kind, id, origin: key.origin, known, used: false });
            return;
        };
        if let Some(row) = naming.get(factory)
            && row.type_name != id.type_name()
            && !warned.contains(&row.type_name)
        {
            warned.push(row.type_name);
            let new = id.name().map_or_else(|| row.type_name.to_owned(), |name| format!("{}/{name}", row.type_name));
            found.warning(
                key.origin,
                format!("`{}` is the older name of the {} `{}`", id.type_name(), kind.word(), row.type_name),
                Some(format!("it works; today one writes `{new}`, here and in the pipelines")),
            );
        }
        self.declared.push((kind, Declared { id, factory, origin: key.origin, node }));
    }

    pub(super) fn find(&self, kind: Kind, id: &ComponentId) -> Option<&Declared> {
        self.declared.iter().find(|(known, declared)| *known == kind && declared.id == *id).map(|(_, declared)| declared)
    }

    fn has(&self, kind: Kind, id: &ComponentId) -> bool {
        self.find(kind, id).is_some() || self.absent.iter().any(|absent| absent.kind == kind && absent.id == *id)
    }

    /// Whether an id was declared in a way that has been told of already, or will be; it is used now.
    pub(super) fn use_absent(&mut self, kind: Kind, id: &ComponentId) -> bool {
        let mut is_absent = self.broken.iter().any(|(known, text)| *known == kind && text == id.as_str());
        for absent in self.absent.iter_mut().filter(|absent| absent.kind == kind && absent.answers_to(id)) {
            absent.used = true;
            is_absent = true;
        }
        is_absent
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Declared> {
        self.declared.iter().filter(move |(known, _)| *known == kind).map(|(_, declared)| declared)
    }

    /// Whether anything at all is declared in a section, whatever it is.
    pub(super) fn has_any(&self, kind: Kind) -> bool {
        self.of(kind).next().is_some()
            || self.absent.iter().any(|absent| absent.kind == kind)
            || self.broken.iter().any(|(known, _)| *known == kind)
    }

    /// Says what weir does not have: an error where a pipeline needs it or nobody has it, a warning where it lies unused.
    pub(super) fn tell_absent(&self, tables: &Tables, found: &mut Diagnostics) {
        for absent in &self.absent {
            found.found.push(absent.diagnostic(tables));
        }
    }

    pub(super) fn take(&mut self, kind: Kind) -> Vec<Declared> {
        let (taken, rest) = std::mem::take(&mut self.declared).into_iter().partition(|(known, _)| *known == kind);
        self.declared = rest;
        taken.into_iter().map(|(_, declared)| declared).collect()
    }
}

impl Absent {
    /// Whether this is what is meant by an id: its own, or what it would be without the typo in its type.
    fn answers_to(&self, id: &ComponentId) -> bool {
        let is_typo = self.known.is_none() && self.id.name() == id.name();
        self.id == *id || (is_typo && suggest::nearest(self.id.type_name(), [id.type_name()]).is_some())
    }

    fn diagnostic(&self, tables: &Tables) -> Diagnostic {
        let (kind, type_name) = (self.kind.word(), self.id.type_name());
        let (level, message, help) = match self.known {
            Some(known) if self.used => (
                Level::Error,
                format!("`{type_name}` is a Collector {kind} that weir does not have"),
                format!("{}; `weir migrate` prints what runs without it", known.advice),
            ),
            Some(known) => (
                Level::Warning,
                format!(
                    "`{type_name}` is a Collector {kind} that weir does not have; nothing uses `{}`, it is left out",
                    self.id
                ),
                known.advice.to_owned(),
            ),
            None => (Level::Error, format!("there is no {kind} `{type_name}`"), self.meant(tables)),
        };
        Diagnostic { level, origin: self.origin, message, help: Some(help) }
    }

    /// What the unknown type may have been meant to be.
    fn meant(&self, tables: &Tables) -> String {
        let type_name = self.id.type_name();
        let rows = naming(tables, self.kind);
        if let Some(near) = suggest::nearest(type_name, rows.iter().map(|row| row.type_name)) {
            return format!("did you mean `{near}`?");
        }
        for kind in Kind::ALL {
            if naming(tables, kind).iter().any(|row| row.answers_to(type_name)) || collector::known(kind, type_name).is_some() {
                return format!("`{type_name}` is {}: declare it in `{}`", kind.one(), kind.section());
            }
        }
        if rows.is_empty() {
            return format!("weir has no {}s", self.kind.word());
        }
        format!("weir has {}", suggest::list(rows.iter().map(|row| row.type_name)))
    }
}
