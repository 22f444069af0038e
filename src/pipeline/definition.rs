//! What each part of a configuration is, so that two configurations can be held against each other.
//!
//! A part's definition covers its settings after expansion and those of whatever it refers to: extensions that it names, files of
//! certificates, the processors in front of a consumer. Where a setting is written, and the order of keys, do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Read as _,
};

use ring::digest;

use crate::{
    config::{Node, Value},
    signal::ComponentId,
};

/// Equal for parts that are the same. A digest, because settings hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition([u8; 32]);

/// Something of a configuration that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Extension(ComponentId),
    Receiver(ComponentId),
    Connector(ComponentId),
    Exporter(ComponentId),
    /// The exporter or connector at the end of a pipeline, as its reader.
    Consumer {
        pipeline: String,
        id: ComponentId,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension(id) => write!(f, "extensions::{id}"),
            Self::Receiver(id) => write!(f, "receivers::{id}"),
            Self::Connector(id) => write!(f, "connectors::{id}"),
            Self::Exporter(id) => write!(f, "exporters::{id}"),
            Self::Consumer { pipeline, id } => write!(f, "{id} in pipeline {pipeline}"),
        }
    }
}

/// The parts of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions(BTreeMap<Part, Definition>);

/// What becomes of each part on the way from one configuration to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Runs on as it is.
    pub kept: BTreeSet<Part>,
    /// Another of the same name takes its place.
    pub changed: BTreeSet<Part>,
    pub started: BTreeSet<Part>,
    pub stopped: BTreeSet<Part>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.started.is_empty() && self.stopped.is_empty()
    }

    /// Whether what runs under this name now is about to end.
    pub fn ends(&self, part: &Part) -> bool {
        self.changed.contains(part) || self.stopped.contains(part)
    }
}

impl Definitions {
    pub(super) fn add(&mut self, part: Part, definition: Definition) {
        self.0.insert(part, definition);
    }

    pub fn get(&self, part: &Part) -> Option<Definition> {
        self.0.get(part).copied()
    }

    pub fn changes_to(&self, next: &Self) -> Changes {
        let mut changes = Changes::default();
        for (part, definition) in &next.0 {
            let list = match self.0.get(part) {
                Some(before) if before == definition => &mut changes.kept,
                Some(_) => &mut changes.changed,
                None => &mut changes.started,
            };
            list.insert(part.clone());
        }
        changes.stopped.extend(self.0.keys().filter(|part| !next.0.contains_key(part)).cloned());
        changes
    }
}

/// Makes a definition.
pub(super) struct Describing(digest::Context);

/// Of a file, this much is looked at.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Describing {
    pub(super) fn new(what: &str) -> Self {
        Self(digest::Context::new(&digest::SHA256)).text(what)
    }

    /// Each with its length: no two lists of texts look alike.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.bytes(text.as_bytes());
        self
    }

    pub(super) fn definition(mut self, other: Definition) -> Self {
        self.0.update(&other.0);
        self
    }

    /// Settings; `known` are the extensions that they may name.
    pub(super) fn settings(mut self, node: &Node, known: &BTreeMap<ComponentId, Definition>) -> Self {
        self.node(node);
        self.references(None, node, known);
        self
    }

    pub(super) fn done(self) -> Definition {
        let digest = self.0.finish();
        Definition(digest.as_ref().try_into().unwrap_or_default())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn node(&mut self, node: &Node) {
        // A field that wants text takes the text of a reference, others its value.
        self.bytes(node.text.as_deref().unwrap_or_default().as_bytes());
        match &node.value {
            Value::Null => self.0.update(b"n"),
            Value::Bool(value) => self.0.update(if *value { b"t" } else { b"f" }),
            Value::Int(value) => {
                self.0.update(b"i");
                self.0.update(&value.to_le_bytes());
            }
            Value::Float(value) => {
                self.0.update(b"d");
                self.0.update(&value.to_bits().to_le_bytes());
            }
            Value::String(text) => {
                self.0.update(b"s");
                self.bytes(text.as_bytes());
            }
            Value::List(items) => {
                self.0.update(b"l");
                self.0.update(&(items.len() as u64).to_le_bytes());
                for item in items {
                    self.node(item);
                }
            }
            Value::Map(entries) => {
                let mut sorted: Vec<(&str, &Node)> =
                    entries.iter().map(|(key, value)| (key.word().map_or("", |word| word), value)).collect();
                sorted.sort_by_key(|(key, _)| *key);
                self.0.update(b"m");
                self.0.update(&(sorted.len() as u64).to_le_bytes());
                for (key, value) in sorted {
                    self.bytes(key.as_bytes());
                    self.node(value);
                }
            }
        }
    }

    /// What the settings name: extensions, and files of certificates (`…_file`), which are read once by whoever is built.
    fn references(&mut self, key: Option<&str>, node: &Node, known: &BTreeMap<ComponentId, Definition>) {
        match &node.value {
            Value::String(text) => {
                // Any text that is the id of an extension may name it: to take one for a reference that is none costs a restart of the
                // component, the other way round it would go on with what is gone.
                if let Some((_, definition)) = known.iter().find(|(id, _)| id.as_str() == &**text) {
                    self.0.update(&definition.0);
                }
                if key.is_some_and(|key| key.ends_with("_file")) {
                    let content = read_some(text);
                    self.bytes(&content);
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.references(key, item, known)),
            Value::Map(entries) => {
                let mut sorted: Vec<(&str, &Node)> =
                    entries.iter().map(|(key, value)| (key.word().map_or("", |word| word), value)).collect();
                sorted.sort_by_key(|(key, _)| *key);
                for (key, value) in sorted {
                    self.references(Some(key), value, known);
                }
            }
            _ => {}
        }
    }
}

/// What a file begins with; nothing where it cannot be read, which whoever needs it says.
fn read_some(path: &str) -> Vec<u8> {
    let mut content = Vec::new();
    // A pipe would wait for whoever writes to it.
    if fs::metadata(path).is_ok_and(|meta| meta.is_file())
        && let Ok(file) = fs::File::open(path)
    {
        drop(file.take(FILE_BYTES_MAX).read_to_end(&mut content));
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Input, Machine, load};

    fn id(text: &str) -> ComponentId {
        ComponentId::parse(text).unwrap()
    }

    fn of(yaml: &str, known: &BTreeMap<ComponentId, Definition>) -> Definition {
        let loaded = load(&[Input::Text { name: "x".to_owned(), text: yaml.to_owned() }], &Machine);
        assert!(!loaded.found.has_errors(), "{:?}", loaded.found);
        Describing::new("x").settings(&loaded.node, known).done()
    }

    fn alone(yaml: &str) -> Definition {
        of(yaml, &BTreeMap::new())
    }

    #[test]
    fn what_is_written_elsewhere_or_in_another_order_is_the_same() {
        let one = alone("a: 1\nb: {c: [x, y], d: true}\n");
        assert_eq!(one, alone("\n\n# a comment\nb:\n  d: true\n  c:\n  - x\n  - y\na: 1\n"));
        for other in [
            "a: 2\nb: {c: [x, y], d: true}",
            "a: \"1\"\nb: {c: [x, y], d: true}",
            "a: 1\nb: {c: [y, x], d: true}",
            "a: 1\nb: {c: [xy], d: true}",
        ] {
            assert_ne!(one, alone(other), "{other}");
        }
    }

    #[test]
    fn a_part_changes_with_the_extension_that_it_names() {
        let ours = |secret: &str| BTreeMap::from([(id("basic_auth/a"), Describing::new(secret).done())]);
        let names = "auth: {authenticator: basic_auth/a}";
        assert_ne!(of(names, &ours("one")), of(names, &ours("two")));
        assert_eq!(of("auth: {authenticator: other}", &ours("one")), of("auth: {authenticator: other}", &ours("two")));
    }

    #[test]
    fn a_part_changes_with_the_certificate_that_it_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert.pem");
        let names = format!("tls: {{cert_file: {}}}", path.display());
        fs::write(&path, "one").unwrap();
        let before = alone(&names);
        assert_eq!(before, alone(&names));
        fs::write(&path, "two").unwrap();
        assert_ne!(before, alone(&names));
    }

    #[test]
    fn each_part_is_kept_changed_started_or_stopped() {
        let [a, b] = ["a", "b"].map(|text| Describing::new(text).done());
        fn part(text: &str) -> Part {
            Part::Exporter(id(text))
        }
        let (mut before, mut after) = (Definitions::default(), Definitions::default());
        for (name, definition) in [("kept", a), ("changed", a), ("stopped", a)] {
            before.add(part(name), definition);
        }
        for (name, definition) in [("kept", a), ("changed", b), ("started", a)] {
            after.add(part(name), definition);
        }
        // The same name is another part where it is of another kind.
        after.add(Part::Receiver(id("kept")), b);
        let changes = before.changes_to(&after);
        let parts = |names: &[&str]| names.iter().map(|name| part(name)).collect::<BTreeSet<_>>();
        assert_eq!(
            (&changes.kept, &changes.changed, &changes.stopped),
            (&parts(&["kept"]), &parts(&["changed"]), &parts(&["stopped"]))
        );
        let mut started = parts(&["started"]);
        started.insert(Part::Receiver(id("kept")));
        assert_eq!(changes.started, started);
        assert!(before.changes_to(&before.clone()).is_empty() && !changes.is_empty());
        assert_eq!(Definitions::default().changes_to(&before).started.len(), 3, "a start is a change from nothing");
    }
}
