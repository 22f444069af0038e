//! Actions on attributes: what the `attributes` and `resource` processors do, one list of them for each.
//!
//! In:   the list as the file has it; then the attributes of a resource or an item.
//! Out:  the attributes after all actions, in their order; nothing is written where nothing changed.
//! Lost: what an action deletes, hashes or overwrites.
//!
//! Where a key comes more than once, the first attribute with it is the one that is read and changed; `delete` removes them all.

mod apply;
mod value;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use regex::Regex;
use serde::Deserialize;

pub(crate) use crate::config::pattern::compile;
pub(crate) use apply::Resolved;
pub(crate) use value::{Written, plain_text, text_of};

use crate::{
    config::{Diagnostics, Node},
    otlp::wire::put_bytes_always,
    signal::{Context, ContextNeeds},
};

/// One action as the file writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The attribute to act on. Required but for `delete` and `hash` with a pattern.
    pub(crate) key: String,
    /// insert, update, upsert, delete, hash, extract or convert, in any case.
    pub(crate) action: String,
    /// The value to set; its type is that of the file.
    pub(crate) value: Option<Written>,
    /// The attribute whose value is set; without it, nothing happens.
    pub(crate) from_attribute: String,
    /// `metadata.KEY`, `auth.KEY` or `client.address`; several values are joined by `;`. A bare key is one of the metadata.
    pub(crate) from_context: String,
    /// For `extract`: named groups become attributes. For `delete` and `hash`: every attribute whose key it is found in.
    pub(crate) pattern: String,
    /// For `convert`: int, double, string or bool.
    pub(crate) converted_type: String,
    /// Set by insert, update and upsert when there is no other value.
    pub(crate) default_value: Option<Written>,
}

/// A list of actions that was checked.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    list: Vec<Action>,
}

#[derive(Debug)]
struct Action {
    key: String,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Set { when: When, source: Source, default: Option<Vec<u8>> },
    Delete { pattern: Option<Regex> },
    Hash { pattern: Option<Regex> },
    Extract { pattern: Regex, names: Vec<String> },
    Convert { to: Type },
}

/// Whether an attribute has to be there to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Absent,
    Present,
    Always,
}

#[derive(Debug)]
enum Source {
    /// An encoded `AnyValue`.
    Value(Vec<u8>),
    Attribute(String),
    Context(FromContext),
    /// Only the default.
    Nowhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum FromContext {
    Metadata(String),
    Auth(String),
    ClientAddress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Int,
    Double,
    Bool,
}

impl Actions {
    /// Checks the list that stands under `key` of `node`; each problem is told with the place of its action.
    pub(crate) fn read(settings: Vec<Settings>, node: &Node, key: &str, found: &mut Diagnostics) -> Self {
        let list = node.get(key);
        if settings.is_empty() && list.is_none_or(|list| list.is_null() || list.items().is_empty()) {
            found.error(list.unwrap_or(node).origin, format!("`{key}` is required: a list of at least one action"), None);
        }
        let mut actions = Vec::with_capacity(settings.len());
        for (at, settings) in settings.into_iter().enumerate() {
            let written = list.and_then(|list| list.items().get(at)).unwrap_or(node);
            if let Some(action) = Action::read(settings, &mut Complaints { node: written, found }) {
                actions.push(action);
            }
        }
        Self { list: actions }
    }

    /// Which parts of a request's context the actions read.
    pub(crate) fn needs(&self) -> ContextNeeds {
        let mut needs = ContextNeeds::default();
        for action in &self.list {
            match &action.step {
                Step::Set { source: Source::Context(FromContext::Metadata(key)), .. } => {
                    needs.metadata.insert(key.to_ascii_lowercase());
                }
                Step::Set { source: Source::Context(FromContext::Auth(_)), .. } => needs.auth = true,
                Step::Set { source: Source::Context(FromContext::ClientAddress), .. } => needs.peer = true,
                _ => {}
            }
        }
        needs
    }

    /// Takes from a request's context what the actions want of it, once for all its items.
    pub(crate) fn resolve(&self, context: &Context) -> Resolved<'_> {
        let values = self.list.iter().map(|action| match &action.step {
            Step::Set { source: Source::Context(from), .. } => from.value(context).map(|text| {
                let mut value = Vec::with_capacity(text.len() + 4);
                put_bytes_always(&mut value, 1, text.as_bytes());
                value
            }),
            _ => None,
        });
        Resolved::new(&self.list, values.collect())
    }
}

impl FromContext {
    fn parse(text: &str) -> Self {
        if text == "client.address" {
            return Self::ClientAddress;
        }
        match text.strip_prefix("auth.") {
            Some(key) => Self::Auth(key.to_owned()),
            None => Self::Metadata(text.strip_prefix("metadata.").unwrap_or(text).to_owned()),
        }
    }

    fn value<'c>(&self, context: &'c Context) -> Option<Cow<'c, str>> {
        match self {
            Self::Metadata(key) => match context.metadata(key) {
                [] => None,
                [one] => Some(Cow::Borrowed(one)),
                many => Some(Cow::Owned(many.join(";"))),
            },
            Self::Auth(key) => context.auth(key).map(Cow::Borrowed),
            Self::ClientAddress => context.peer.map(|peer| Cow::Owned(peer.to_string())),
        }
    }
}

/// Tells what is wrong with one action, at its place.
struct Complaints<'a> {
    node: &'a Node,
    found: &'a mut Diagnostics,
}

impl Complaints<'_> {
    fn error(&mut self, key: &str, message: impl Into<String>) {
        self.found.error(self.node.nearest(key).origin, message, None);
    }

    fn ineffective(&mut self, key: &str, action: &str) {
        let message = format!("`{key}` has no effect on `{action}`");
        self.found.ineffective(self.node.nearest(key).origin, message, "the action does what it does without it");
    }
}

impl Action {
    fn read(settings: Settings, complaints: &mut Complaints<'_>) -> Option<Self> {
        let name = settings.action.to_ascii_lowercase();
        let keyless = matches!(&*name, "delete" | "hash") && !settings.pattern.is_empty();
        if settings.key.is_empty() && !keyless {
            let or = if matches!(&*name, "delete" | "hash") { " or `pattern`" } else { "" };
            complaints.error("key", format!("an action needs `key`{or}: the attribute to act on"));
            return None;
        }
        let step = match &*name {
            "insert" => set(When::Absent, &name, &settings, complaints)?,
            "update" => set(When::Present, &name, &settings, complaints)?,
            "upsert" => set(When::Always, &name, &settings, complaints)?,
            "delete" | "hash" => {
                refuse(&name, &settings, &["value", "from_attribute", "converted_type"], complaints)?;
                unused(&name, &settings, &["from_context", "default_value"], complaints);
                let pattern = match &*settings.pattern {
                    "" => None,
                    pattern => Some(read_pattern(pattern, complaints)?),
                };
                if name == "delete" { Step::Delete { pattern } } else { Step::Hash { pattern } }
            }
            "extract" => {
                refuse(&name, &settings, &["value", "from_attribute", "from_context", "converted_type"], complaints)?;
                unused(&name, &settings, &["default_value"], complaints);
                if settings.pattern.is_empty() {
                    complaints.error("", "`extract` needs `pattern`, with a named group for each attribute to make");
                    return None;
                }
                let pattern = read_pattern(&settings.pattern, complaints)?;
                let names: Vec<String> = pattern.capture_names().skip(1).flatten().map(str::to_owned).collect();
                if names.is_empty() || names.len() + 1 < pattern.captures_len() {
                    complaints.error(
                        "pattern",
                        "every group of the pattern needs a name: `(?P<name>…)`, or `(?:…)` for one that makes no attribute",
                    );
                    return None;
                }
                Step::Extract { pattern, names }
            }
            "convert" => {
                refuse(&name, &settings, &["value", "from_attribute", "from_context", "pattern"], complaints)?;
                unused(&name, &settings, &["default_value"], complaints);
                let to = match &*settings.converted_type {
                    "string" => Type::Text,
                    "int" => Type::Int,
                    "double" => Type::Double,
                    "bool" => Type::Bool,
                    "" => {
                        complaints.error("", "`convert` needs `converted_type`: int, double, string or bool");
                        return None;
                    }
                    other => {
                        complaints.error(
                            "converted_type",
                            format!("`{other}` is no type to convert to; these are: int, double, string, bool"),
                        );
                        return None;
                    }
                };
                Step::Convert { to }
            }
            "" => {
                complaints.error("", "`action` is required: insert, update, upsert, delete, hash, extract or convert");
                return None;
            }
            _ => {
                let message = format!(
                    "`{}` is no action; these are: insert, update, upsert, delete, hash, extract, convert",
                    settings.action
                );
                complaints.error("action", message);
                return None;
            }
        };
        Some(Self { key: settings.key, step })
    }
}

fn set(when: When, name: &str, settings: &Settings, complaints: &mut Complaints<'_>) -> Option<Step> {
    refuse(name, settings, &["pattern", "converted_type"], complaints)?;
    let value = settings.value.as_ref().filter(|value| **value != Written::Null);
    let default = settings.default_value.as_ref().filter(|value| **value != Written::Null).map(Written::encoded);
    let sources = usize::from(value.is_some())
        + usize::from(!settings.from_attribute.is_empty())
        + usize::from(!settings.from_context.is_empty());
    if sources > 1 {
        complaints.error("", "only one of `value`, `from_attribute` and `from_context` can be given");
        return None;
    }
    let source = if let Some(value) = value {
        Source::Value(value.encoded())
    } else if !settings.from_attribute.is_empty() {
        Source::Attribute(settings.from_attribute.clone())
    } else if !settings.from_context.is_empty() {
        Source::Context(FromContext::parse(&settings.from_context))
    } else if default.is_some() {
        Source::Nowhere
    } else {
        complaints.error("", format!("`{name}` needs `value`, `from_attribute`, `from_context` or `default_value`"));
        return None;
    };
    Some(Step::Set { when, source, default })
}

fn is_written(settings: &Settings, key: &str) -> bool {
    match key {
        "value" => settings.value.as_ref().is_some_and(|value| *value != Written::Null),
        "default_value" => settings.default_value.as_ref().is_some_and(|value| *value != Written::Null),
        "from_attribute" => !settings.from_attribute.is_empty(),
        "from_context" => !settings.from_context.is_empty(),
        "pattern" => !settings.pattern.is_empty(),
        _ => !settings.converted_type.is_empty(),
    }
}

/// Keys that make no sense with this action are errors, as they are in the Collector.
fn refuse(name: &str, settings: &Settings, keys: &[&str], complaints: &mut Complaints<'_>) -> Option<()> {
    let Some(wrong) = keys.iter().find(|key| is_written(settings, key)) else { return Some(()) };
    complaints.error(wrong, format!("`{name}` does not take `{wrong}`"));
    None
}

/// Keys that the Collector reads and ignores.
fn unused(name: &str, settings: &Settings, keys: &[&str], complaints: &mut Complaints<'_>) {
    for key in keys.iter().filter(|key| is_written(settings, key)) {
        complaints.ineffective(key, name);
    }
}

fn read_pattern(pattern: &str, complaints: &mut Complaints<'_>) -> Option<Regex> {
    compile(pattern).map_err(|problem| complaints.error("pattern", problem)).ok()
}
