//! The tree a configuration becomes: every node knows where it was written.

use std::sync::Arc;

/// Where a node was written. `source` numbers the files in [`super::Diagnostics`]' order of loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    pub source: u32,
    /// Byte range in that source's text.
    pub start: u32,
    pub end: u32,
}

impl Origin {
    /// The place of what nobody wrote.
    pub const fn nowhere() -> Self {
        Self { source: u32::MAX, start: 0, end: 0 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(Arc<str>),
    List(Vec<Node>),
    /// In written order; keys are unique.
    Map(Vec<(Node, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
    /// The text as written, where the value came from a `${…}` reference and a string field wants the text and not the typed value.
    pub text: Option<Arc<str>>,
}

impl Node {
    pub const fn null() -> Self {
        Self { value: Value::Null, origin: Origin { source: 0, start: 0, end: 0 }, text: None }
    }

    /// A value that stands at `origin` although nobody wrote it there.
    pub const fn made(value: Value, origin: Origin) -> Self {
        Self { value, origin, text: None }
    }

    /// A text that stands at `origin` although nobody wrote it there.
    pub fn made_text(text: impl Into<Arc<str>>, origin: Origin) -> Self {
        Self::made(Value::String(text.into()), origin)
    }

    /// A map of `entries`, each key at `origin`.
    pub fn made_map<'k>(entries: impl IntoIterator<Item = (&'k str, Self)>, origin: Origin) -> Self {
        Self::made(Value::Map(entries.into_iter().map(|(key, value)| (Self::made_text(key, origin), value)).collect()), origin)
    }

    /// The text of a string (a key, a name); `None` for anything else.
    pub const fn word(&self) -> Option<&Arc<str>> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What kind of value it is, for messages: `a number`, `a list`.
    pub const fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a number",
            Value::Float(_) => "a number with a fraction",
            Value::String(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The value of a key of a map; `None` for anything that is not a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| matches!(&name.value, Value::String(text) if &**text == key)).map(|(_, value)| value)
    }

    /// Keys and values of a map; nothing for anything else.
    pub fn entries(&self) -> &[(Self, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; nothing for anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub fn entries_mut(&mut self) -> Option<&mut Vec<(Self, Self)>> {
        match &mut self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn items_mut(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.entries_mut()?.iter_mut().find(|(name, _)| name.word().is_some_and(|word| &**word == key)).map(|(_, value)| value)
    }

    /// Takes an entry out of a map.
    pub fn remove(&mut self, key: &str) -> Option<(Self, Self)> {
        let entries = self.entries_mut()?;
        let at = entries.iter().position(|(name, _)| name.word().is_some_and(|word| &**word == key))?;
        Some(entries.remove(at))
    }

    /// Whether both say the same, wherever it was written.
    pub fn says_the_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::List(ours), Value::List(theirs)) => {
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(one, other)| one.says_the_same(other))
            }
            (Value::Map(ours), Value::Map(theirs)) => {
                let same = |(key, value): &(Self, Self)| {
                    key.word().and_then(|key| other.get(key)).is_some_and(|other| value.says_the_same(other))
                };
                ours.len() == theirs.len() && ours.iter().all(same)
            }
            (ours, theirs) => ours == theirs && self.text == other.text,
        }
    }

    /// The node at a path of keys (`protocols::grpc::endpoint`), or the deepest one that exists on the way there.
    pub fn nearest(&self, path: &str) -> &Self {
        let mut node = self;
        for key in path.split("::").filter(|key| !key.is_empty()) {
            match node.get(key) {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}
