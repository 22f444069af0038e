//! The largest part of a Collector file that runs here, and what was left out of it.
//!
//! Left out are Collector components that weir does not have, whatever cannot work without them, and pipelines that then have no
//! receiver or no exporter. What nobody has (a typo) stays, and is an error later.

use crate::{
    component::Tables,
    config::{
        Node, Origin, Value,
        collector::{self, Kind},
        suggest,
    },
    signal::{ComponentId, Signal},
};

use super::sections::naming;

/// One thing that is not in the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// `processors::redaction/x`, `service::pipelines::logs`
    pub what: String,
    pub origin: Origin,
    /// What is different without it, and what one can do.
    pub change: String,
    /// The id, of a component that removes or masks data and was not named as one that may go.
    pub protects: Option<String>,
}

impl LeftOut {
    /// Whether it is a pipeline as a whole.
    pub fn is_pipeline(&self) -> bool {
        self.what.strip_prefix("service::pipelines::").is_some_and(|rest| !rest.contains("::"))
    }
}

/// Takes out what weir does not have. `allow` names the components (ids or types) that may go although they remove or mask data; what
/// goes without being named says so in [`LeftOut::protects`].
pub fn strip(node: &Node, tables: &Tables, allow: &[String]) -> (Node, Vec<LeftOut>) {
    let mut stripping = Stripping { node: node.clone(), tables, left_out: Vec::new(), gone: Vec::new() };
    stripping.absent(allow);
    stripping.profiles();
    while stripping.dependants() {}
    stripping.references();
    while stripping.loose_ends() {}
    stripping.empty_sections();
    (stripping.node, stripping.left_out)
}

/// Why nothing is left that could run: no pipeline is.
pub fn nothing_left(rest: &Node, left_out: &[LeftOut]) -> Option<String> {
    let pipelines = rest.get("service").and_then(|service| service.get("pipelines"));
    if left_out.is_empty() || pipelines.is_some_and(|pipelines| !pipelines.entries().is_empty()) {
        return None;
    }
    let needed = |left: &&LeftOut| {
        [Kind::Receiver, Kind::Exporter, Kind::Connector].iter().any(|kind| left.what.starts_with(kind.section()))
            && left.what.matches("::").count() == 1
    };
    let needed: Vec<&str> = left_out.iter().filter(needed).map(|left| left.what.as_str()).collect();
    Some(if needed.is_empty() {
        "nothing of this file runs here: it has no pipeline that weir could run".to_owned()
    } else {
        format!("nothing of this file runs here: every pipeline needs one of {}", suggest::list(needed))
    })
}

/// Names given to [`strip`] that stand for nothing: neither in the file nor a component of the Collector. With what may have been meant.
pub fn unknown_names<'n>(node: &Node, names: &'n [String]) -> Vec<(&'n str, Option<String>)> {
    let declared: Vec<&str> = Kind::ALL
        .into_iter()
        .filter_map(|kind| node.get(kind.section()))
        .flat_map(Node::entries)
        .filter_map(|(key, _)| key.word().map(|word| word.trim()))
        .collect();
    let is_known = |name: &str| {
        declared.iter().any(|id| *id == name || id.split('/').next() == Some(name))
            || Kind::ALL.into_iter().any(|kind| collector::known(kind, name).is_some())
    };
    let near = |name: &str| suggest::nearest(name, declared.iter().copied()).map(str::to_owned);
    names.iter().filter(|name| !is_known(name)).map(|name| (name.as_str(), near(name))).collect()
}

struct Stripping<'t> {
    node: Node,
    tables: &'t Tables,
    left_out: Vec<LeftOut>,
    gone: Vec<(Kind, String)>,
}

impl Stripping<'_> {
    fn say(&mut self, what: String, origin: Origin, change: impl Into<String>) {
        self.left_out.push(LeftOut { what, origin, change: change.into(), protects: None });
    }

    /// Components that the Collector has and weir has not.
    fn absent(&mut self, allow: &[String]) {
        for kind in Kind::ALL {
            let rows = naming(self.tables, kind);
            let Some(section) = self.node.get(kind.section()) else { continue };
            let mut gone = Vec::new();
            for (key, _) in section.entries() {
                let Some(Ok(id)) = key.word().map(|word| ComponentId::parse(word)) else { continue };
                if rows.iter().any(|row| row.answers_to(id.type_name())) {
                    continue;
                }
                if let Some(known) = collector::known(kind, id.type_name()) {
                    let used = self.is_used(kind, id.as_str());
                    gone.push((key.clone(), id, known, used));
                }
            }
            for (key, id, known, used) in gone {
                let named = allow.iter().any(|name| name == id.as_str() || name == id.type_name());
                let protects = (known.protects && used && !named).then(|| id.as_str().to_owned());
                let change = match kind {
                    _ if !used => "nothing: no pipeline uses it".to_owned(),
                    _ if known.protects => format!("data that it removed, masked or sampled away passes now; {}", known.advice),
                    Kind::Receiver => format!("nothing comes in by it; {}", known.advice),
                    Kind::Exporter => format!("nothing goes out by it; {}", known.advice),
                    _ => known.advice.to_owned(),
                };
                self.left_out.push(LeftOut { what: format!("{}::{id}", kind.section()), origin: key.origin, change, protects });
                self.take(kind, key.word().map_or("", |word| word));
            }
        }
    }

    fn take(&mut self, kind: Kind, key: &str) {
        self.node.get_mut(kind.section()).and_then(|section| section.remove(key));
        self.gone.push((kind, key.trim().to_owned()));
    }

    fn is_used(&self, kind: Kind, id: &str) -> bool {
        let names = |list: Option<&Node>| {
            list.is_some_and(|list| list.items().iter().any(|item| item.word().is_some_and(|word| word.trim() == id)))
        };
        let Some(service) = self.node.get("service") else { return false };
        if kind == Kind::Extension {
            return names(service.get("extensions"));
        }
        let pipelines = service.get("pipelines").map_or(&[][..], Node::entries);
        pipelines.iter().any(|(_, pipeline)| {
            Kind::ALL.into_iter().filter(|list| lists(kind, *list)).any(|list| names(pipeline.get(list.section())))
        })
    }

    fn profiles(&mut self) {
        let Some(pipelines) = self.pipelines() else { return };
        let is_profiles = |key: &Node| key.word().is_some_and(|word| &**word == "profiles" || word.starts_with("profiles/"));
        let gone: Vec<Node> = pipelines.iter().map(|(key, _)| key).filter(|key| is_profiles(key)).cloned().collect();
        pipelines.retain(|(key, _)| !is_profiles(key));
        for key in gone {
            self.say(pipeline_path(&key), key.origin, "profiles are not taken: weir carries traces, metrics and logs");
        }
    }

    fn pipelines(&mut self) -> Option<&mut Vec<(Node, Node)>> {
        self.node.get_mut("service")?.get_mut("pipelines")?.entries_mut()
    }

    /// Components that name an extension which is gone; whether there were any.
    fn dependants(&mut self) -> bool {
        let extensions: Vec<String> =
            self.gone.iter().filter(|(kind, _)| *kind == Kind::Extension).map(|(_, id)| id.clone()).collect();
        if extensions.is_empty() {
            return false;
        }
        let mut gone = Vec::new();
        let mut unstored = Vec::new();
        for kind in Kind::ALL {
            for (key, settings) in self.node.get_mut(kind.section()).and_then(Node::entries_mut).into_iter().flatten() {
                let Some(id) = key.word().cloned() else { continue };
                let path = format!("{}::{id}", kind.section());
                if let Some(extension) = names_extension(settings, &["authenticator", "encoding", "middlewares"], &extensions) {
                    let change = match kind {
                        Kind::Receiver => {
                            format!("it would take requests that `{extension}` does not check: nothing comes in by it")
                        }
                        _ => format!("it does not work without the extension `{extension}`"),
                    };
                    gone.push((kind, id, path, key.origin, change));
                } else if let Some(origin) = drop_storage(settings, &extensions) {
                    unstored.push((format!("{path}::sending_queue::storage"), origin));
                }
            }
        }
        for (what, origin) in unstored {
            self.say(what, origin, "what waits to be sent is held by weir's journal");
        }
        let any = !gone.is_empty();
        for (kind, id, what, origin, change) in gone {
            self.take(kind, &id);
            self.say(what, origin, change);
        }
        any
    }

    /// Takes the names of what is gone out of pipelines and `service::extensions`.
    fn references(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        let is_gone = |list: Kind, item: &Node| {
            item.word().is_some_and(|word| gone.iter().any(|(kind, id)| lists(*kind, list) && id == word.trim()))
        };
        if let Some(items) =
            self.node.get_mut("service").and_then(|service| service.get_mut("extensions")).and_then(Node::items_mut)
        {
            items.retain(|item| !is_gone(Kind::Extension, item));
        }
        for (_, pipeline) in self.pipelines().into_iter().flatten() {
            for list in [Kind::Receiver, Kind::Processor, Kind::Exporter] {
                if let Some(items) = pipeline.get_mut(list.section()).and_then(Node::items_mut) {
                    items.retain(|item| !is_gone(list, item));
                }
            }
        }
        self.gone = gone;
    }

    /// Pipelines without a beginning or an end, and connectors without a second side; whether there were any.
    fn loose_ends(&mut self) -> bool {
        if self.left_out.is_empty() {
            return false;
        }
        let mut said = Vec::new();
        if let Some(pipelines) = self.pipelines() {
            pipelines.retain(|(key, pipeline)| {
                let missing = [Kind::Receiver, Kind::Exporter].into_iter().find(|kind| {
                    pipeline.get(kind.section()).is_some_and(|list| matches!(&list.value, Value::List(items) if items.is_empty()))
                });
                if let Some(kind) = missing {
                    said.push((pipeline_path(key), key.origin, format!("it has no {} left: its data goes nowhere", kind.word())));
                }
                missing.is_none()
            });
        }
        let mut changed = !said.is_empty();
        for (what, origin, change) in said {
            self.say(what, origin, change);
        }
        let rows: Vec<(String, &'static [(Signal, Signal)])> = self
            .node
            .get("connectors")
            .map_or(&[][..], Node::entries)
            .iter()
            .filter_map(|(key, _)| ComponentId::parse(key.word()?).ok())
            .filter_map(|id| {
                let row = self.tables.connectors.iter().find(|row| row.naming.answers_to(id.type_name()))?;
                Some((id.as_str().to_owned(), row.pairs))
            })
            .collect();
        for (id, pairs) in rows {
            let takes = self.signals(Kind::Exporter, &id);
            let gives = self.signals(Kind::Receiver, &id);
            for (list, mine, others) in [(Kind::Exporter, &takes, &gives), (Kind::Receiver, &gives, &takes)] {
                for signal in mine {
                    let fits = others
                        .iter()
                        .any(|other| pairs.contains(&if list == Kind::Exporter { (*signal, *other) } else { (*other, *signal) }));
                    if !fits {
                        changed |= self.unplug(list, *signal, &id);
                    }
                }
            }
        }
        changed
    }

    /// The signals of the pipelines that name a component in this list.
    fn signals(&self, list: Kind, id: &str) -> Vec<Signal> {
        let pipelines = self.node.get("service").and_then(|service| service.get("pipelines"));
        let mut signals = Vec::new();
        for (key, pipeline) in pipelines.map_or(&[][..], Node::entries) {
            let named = pipeline
                .get(list.section())
                .is_some_and(|list| list.items().iter().any(|item| item.word().is_some_and(|word| word.trim() == id)));
            if let Some(signal) = signal_of(key).filter(|_| named) {
                signals.push(signal);
            }
        }
        signals
    }

    /// Takes a connector out of one list of all pipelines of a signal.
    fn unplug(&mut self, list: Kind, signal: Signal, id: &str) -> bool {
        let mut said = Vec::new();
        for (key, pipeline) in self.pipelines().into_iter().flatten() {
            if signal_of(key) != Some(signal) {
                continue;
            }
            let path = format!("{}::{}::{id}", pipeline_path(key), list.section());
            if let Some(items) = pipeline.get_mut(list.section()).and_then(Node::items_mut) {
                items.retain(|item| {
                    let gone = item.word().is_some_and(|word| word.trim() == id);
                    if gone {
                        said.push((path.clone(), item.origin));
                    }
                    !gone
                });
            }
        }
        let any = !said.is_empty();
        for (what, origin) in said {
            self.say(what, origin, "the pipelines on the other side of this connector are left out");
        }
        any
    }

    fn empty_sections(&mut self) {
        for kind in Kind::ALL {
            let empty = self
                .node
                .get(kind.section())
                .is_some_and(|section| matches!(&section.value, Value::Map(entries) if entries.is_empty()));
            if empty && self.gone.iter().any(|(gone, _)| *gone == kind) {
                self.node.remove(kind.section());
            }
        }
    }
}

/// Whether a component of `kind` can be named in the list `list` of a pipeline.
fn lists(kind: Kind, list: Kind) -> bool {
    kind == list || (kind == Kind::Connector && matches!(list, Kind::Receiver | Kind::Exporter))
}

fn pipeline_path(key: &Node) -> String {
    format!("service::pipelines::{}", key.word().map_or("", |word| word))
}

fn signal_of(key: &Node) -> Option<Signal> {
    let id = ComponentId::parse(key.word()?).ok()?;
    Signal::ALL.into_iter().find(|signal| signal.as_str() == id.type_name())
}

/// The path of keys to the key that was written at `origin`.
pub(super) fn key_at(node: &Node, origin: Origin, path: String) -> Option<String> {
    node.entries().iter().find_map(|(key, value)| {
        let separator = if path.is_empty() { "" } else { "::" };
        let here = format!("{path}{separator}{}", key.word().map_or("", |word| word));
        if key.origin == origin { Some(here) } else { key_at(value, origin, here) }
    })
}

/// Whether somewhere in `settings` one of `keys` names one of `extensions`.
fn names_extension(settings: &Node, keys: &[&str], extensions: &[String]) -> Option<String> {
    let named = |value: &Node| value.word().filter(|word| extensions.iter().any(|id| id == word.trim())).map(ToString::to_string);
    let inside = settings.entries().iter().find_map(|(key, value)| {
        let is_key = key.word().is_some_and(|word| keys.contains(&&**word));
        let direct = if is_key {
            named(value).or_else(|| value.items().iter().find_map(|item| named(item).or_else(|| named(item.get("id")?))))
        } else {
            None
        };
        direct.or_else(|| names_extension(value, keys, extensions))
    });
    inside.or_else(|| settings.items().iter().find_map(|item| names_extension(item, keys, extensions)))
}

/// Removes `sending_queue::storage` where it names an extension that is gone.
fn drop_storage(settings: &mut Node, extensions: &[String]) -> Option<Origin> {
    let queue = settings.get_mut("sending_queue")?;
    let named = queue.get("storage")?.word().is_some_and(|word| extensions.iter().any(|id| id == word.trim()));
    if named { queue.remove("storage").map(|(key, _)| key.origin) } else { None }
}
