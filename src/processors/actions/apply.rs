//! Doing what the actions say to one set of attributes.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};
use smallvec::SmallVec;

use super::{Action, Source, Step, Type, When, value::text_of};
use crate::otlp::{
    edit::{AttributesWriter, Edit},
    view::{AnyValueView, AttributeView, AttributesView, View},
    wire::{put_bytes_always, put_double_always, put_uint_always},
};

/// The actions with what they take from the context of one request.
#[derive(Debug)]
pub(crate) struct Resolved<'c> {
    actions: &'c [Action],
    /// For each action its value of the context, encoded.
    context: Vec<Option<Vec<u8>>>,
}

/// One attribute on its way through the actions. Values are encoded `AnyValue`s.
struct Entry<'a> {
    key: &'a str,
    value: Cow<'a, [u8]>,
    /// As it came, as long as no action changed it.
    original: Option<AttributeView<'a>>,
}

/// What has become of a set of attributes.
struct Work<'a> {
    entries: SmallVec<[Entry<'a>; 16]>,
    /// How many of the entries were there in the beginning.
    came: usize,
    /// Something other than new attributes at the end.
    changed: bool,
}

impl<'c> Resolved<'c> {
    pub(super) const fn new(actions: &'c [Action], context: Vec<Option<Vec<u8>>>) -> Self {
        Self { actions, context }
    }

    /// Writes the attributes as they are after all actions, or says that they stay.
    pub(crate) fn apply(&self, attributes: AttributesView<'_>, out: &mut AttributesWriter) -> Edit {
        let mut work = Work::of(attributes);
        for (action, context) in self.actions.iter().zip(&self.context) {
            work.take(action, context.as_deref());
        }
        work.write(out)
    }
}

impl<'a> Work<'a> {
    fn of(attributes: AttributesView<'a>) -> Self {
        let entries: SmallVec<_> = attributes
            .iter()
            .map(|attribute| Entry {
                key: attribute.key(),
                value: Cow::Borrowed(attribute.value_bytes().unwrap_or_default()),
                original: Some(attribute),
            })
            .collect();
        Self { came: entries.len(), entries, changed: false }
    }

    fn take(&mut self, action: &'a Action, context: Option<&'a [u8]>) {
        match &action.step {
            Step::Set { when, source, default } => self.set(&action.key, *when, source, context, default.as_deref()),
            Step::Delete { pattern } => {
                let before = self.entries.len();
                let mut kept_of_came = 0;
                let (came, mut at) = (self.came, 0);
                self.entries.retain(|entry| {
                    let by_key = !action.key.is_empty() && entry.key == action.key;
                    let keep = !(by_key || pattern.as_ref().is_some_and(|pattern| pattern.is_match(entry.key)));
                    kept_of_came += usize::from(keep && at < came);
                    at += 1;
                    keep
                });
                self.came = kept_of_came;
                self.changed |= self.entries.len() < before;
            }
            Step::Hash { pattern } => {
                // Keys first, as each is hashed at most once by its name and once by the pattern.
                if let Some(at) = self.find(&action.key).filter(|_| !action.key.is_empty()) {
                    self.change(at, |value| Some(hashed(value)));
                }
                for at in 0..self.entries.len() {
                    if pattern
                        .as_ref()
                        .is_some_and(|pattern| self.entries.get(at).is_some_and(|entry| pattern.is_match(entry.key)))
                    {
                        self.change(at, |value| Some(hashed(value)));
                    }
                }
            }
            Step::Extract { pattern, names } => self.extract(&action.key, pattern, names),
            Step::Convert { to } => {
                if let Some(at) = self.find(&action.key) {
                    self.change(at, |value| converted(value, *to));
                }
            }
        }
    }

    fn find(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == key)
    }

    fn set(&mut self, key: &'a str, when: When, source: &'a Source, context: Option<&'a [u8]>, default: Option<&'a [u8]>) {
        let at = self.find(key);
        if at.is_some() == (when == When::Absent) && when != When::Always {
            return;
        }
        let value = match source {
            Source::Value(value) => Some(Cow::Borrowed(&**value)),
            Source::Attribute(from) => self.find(from).and_then(|from| self.entries.get(from)).map(|entry| entry.value.clone()),
            Source::Context(_) => context.map(Cow::Borrowed),
            Source::Nowhere => None,
        };
        if let Some(value) = value.or(default.map(Cow::Borrowed)) {
            self.put(key, at, value);
        }
    }

    /// Sets the attribute at `at`, or a new one at the end.
    fn put(&mut self, key: &'a str, at: Option<usize>, value: Cow<'a, [u8]>) {
        match at.and_then(|at| self.entries.get_mut(at).map(|entry| (at, entry))) {
            Some((at, entry)) => {
                if entry.value != value {
                    entry.value = value;
                    entry.original = None;
                    self.changed |= at < self.came;
                }
            }
            None => self.entries.push(Entry { key, value, original: None }),
        }
    }

    /// Replaces a value by what `new` makes of it, if it makes anything.
    fn change(&mut self, at: usize, new: impl FnOnce(AnyValueView<'_>) -> Option<Vec<u8>>) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        if let Some(value) = new(AnyValueView::new(&entry.value)).filter(|value| **value != *entry.value) {
            entry.value = Cow::Owned(value);
            entry.original = None;
            self.changed |= at < self.came;
        }
    }

    fn extract(&mut self, key: &str, pattern: &regex::Regex, names: &'a [String]) {
        let Some(entry) = self.find(key).and_then(|at| self.entries.get(at)) else { return };
        let AnyValueView::String(text) = AnyValueView::new(&entry.value) else { return };
        let Some(groups) = pattern.captures(text) else { return };
        // A group that took no part in the match gives an empty text.
        let values: SmallVec<[Vec<u8>; 8]> =
            groups.iter().skip(1).map(|group| string(group.map_or("", |group| group.as_str()))).collect();
        for (name, value) in names.iter().zip(values) {
            let at = self.find(name);
            self.put(name, at, Cow::Owned(value));
        }
    }

    fn write(&self, out: &mut AttributesWriter) -> Edit {
        let (edit, skip) = match (self.changed, self.entries.len() > self.came) {
            (true, _) => (Edit::Replace, 0),
            (false, true) => (Edit::Append, self.came),
            (false, false) => return Edit::Keep,
        };
        for entry in self.entries.iter().skip(skip) {
            match &entry.original {
                Some(attribute) => out.keep(attribute),
                None => out.encoded(entry.key, &entry.value),
            }
        }
        edit
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 4);
    put_bytes_always(&mut out, 1, text.as_bytes());
    out
}

/// SHA-256 in hex of a string's bytes, of a number's eight bytes (little-endian), of one byte for true or false. Other values become an empty text.
fn hashed(value: AnyValueView<'_>) -> Vec<u8> {
    let sum = match value {
        AnyValueView::String(text) => digest(&SHA256, text.as_bytes()),
        AnyValueView::Bool(value) => digest(&SHA256, &[u8::from(value)]),
        AnyValueView::Int(value) => digest(&SHA256, &value.to_le_bytes()),
        AnyValueView::Double(value) => digest(&SHA256, &value.to_bits().to_le_bytes()),
        AnyValueView::Empty | AnyValueView::Bytes(_) | AnyValueView::Array(_) | AnyValueView::KeyValues(_) => {
            return string("");
        }
    };
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let hex: String = sum.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect();
    string(&hex)
}

/// `None`: it is of that type, or cannot be turned into it, and stays as it is.
fn converted(value: AnyValueView<'_>, to: Type) -> Option<Vec<u8>> {
    match to {
        Type::Text => (!matches!(value, AnyValueView::String(_))).then(|| string(&text_of(value))),
        Type::Int => {
            let value = match value {
                // Beyond 64 bits: the nearest there is.
                AnyValueView::Double(value) => value as i64,
                AnyValueView::Bool(value) => i64::from(value),
                AnyValueView::String(text) => text.parse().ok()?,
                _ => return None,
            };
            let mut out = Vec::new();
            put_uint_always(&mut out, 3, value as u64);
            Some(out)
        }
        Type::Double => {
            let value = match value {
                AnyValueView::Int(value) => value as f64,
                AnyValueView::Bool(value) => f64::from(u8::from(value)),
                AnyValueView::String(text) => parse_double(text)?,
                _ => return None,
            };
            let mut out = Vec::new();
            put_double_always(&mut out, 4, value);
            Some(out)
        }
        Type::Bool => {
            let value = match value {
                AnyValueView::Int(value) => value != 0,
                AnyValueView::Double(value) => value != 0.0,
                AnyValueView::String("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                AnyValueView::String("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                _ => return None,
            };
            let mut out = Vec::new();
            put_uint_always(&mut out, 2, u64::from(value));
            Some(out)
        }
    }
}

/// As Go reads numbers: underscores between digits are allowed, what is too large is none. Its hexadecimal form is not read.
fn parse_double(text: &str) -> Option<f64> {
    let finite_by_name = text.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    let value: f64 = if text.contains('_') {
        let between_digits = text.as_bytes().windows(3).all(|three| match three {
            [before, b'_', after] => before.is_ascii_digit() && after.is_ascii_digit(),
            _ => true,
        });
        if !between_digits || text.starts_with('_') || text.ends_with('_') {
            return None;
        }
        text.replace('_', "").parse().ok()?
    } else {
        text.parse().ok()?
    };
    (value.is_finite() || value.is_nan() || finite_by_name).then_some(value)
}
