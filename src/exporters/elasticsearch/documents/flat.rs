//! Documents whose fields are collected by their dotted names first, and written in order: as they are, or as objects inside objects.
//!
//! A name that is a value and has others below it (`code` and `code.function`) cannot be both in one index: the value goes to `code.value`.

use std::cmp::Ordering;

use super::json::{any, time};
use crate::otlp::{
    json::scalar::{decimal, escape, hex, string},
    view::{AnyValueView, AttributesView},
};

/// Objects inside objects: what an index maps by default is 20.
const DEPTH_MAX: usize = 20;

#[derive(Debug, Clone, Copy)]
pub(super) enum Leaf<'a> {
    Any(AnyValueView<'a>),
    Int(i64),
    Text(&'a str),
    Time(u64),
    Hex(&'a [u8]),
    /// JSON that is written already: a range of `written`.
    Written(usize, usize),
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    /// A range of `names`.
    name: (usize, usize),
    leaf: Leaf<'a>,
}

/// The fields of one document.
#[derive(Default)]
pub(super) struct Flat<'a> {
    names: Vec<u8>,
    entries: Vec<Entry<'a>>,
    written: Vec<u8>,
}

impl<'a> Flat<'a> {
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.entries.clear();
        self.written.clear();
    }

    /// `name` is `key` below `prefix`; a list of keys becomes names below it.
    pub(super) fn add(&mut self, prefix: &str, key: &str, value: AnyValueView<'a>) {
        let start = self.names.len();
        self.prefix(prefix);
        self.name_below(start, key);
        self.add_value(start, value, 0);
    }

    pub(super) fn add_all(&mut self, prefix: &str, attributes: AttributesView<'a>) {
        for attribute in attributes.iter() {
            self.add(prefix, attribute.key(), attribute.value());
        }
    }

    pub(super) fn leaf(&mut self, name: &str, leaf: Leaf<'a>) {
        let start = self.names.len();
        self.name_below(start, name);
        self.entries.push(Entry { name: (start, self.names.len()), leaf });
    }

    pub(super) fn leaf_below(&mut self, prefix: &str, name: &str, leaf: Leaf<'a>) {
        let start = self.names.len();
        self.prefix(prefix);
        self.name_below(start, name);
        self.entries.push(Entry { name: (start, self.names.len()), leaf });
    }

    /// Left out when empty.
    pub(super) fn text(&mut self, name: &str, text: &'a str) {
        if !text.is_empty() {
            self.leaf(name, Leaf::Text(text));
        }
    }

    /// Left out when it is not there or all zeros.
    pub(super) fn id(&mut self, name: &str, id: &'a [u8]) {
        if id.iter().any(|byte| *byte != 0) {
            self.leaf(name, Leaf::Hex(id));
        }
    }

    /// What `write` appends is the value.
    pub(super) fn written(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.written.len();
        write(&mut self.written);
        self.leaf(name, Leaf::Written(start, self.written.len()));
    }

    fn add_value(&mut self, start: usize, value: AnyValueView<'a>, depth: usize) {
        match value {
            AnyValueView::Empty => self.names.truncate(start),
            AnyValueView::KeyValues(entries) if depth < DEPTH_MAX => {
                let outer = (start, self.names.len());
                for entry in entries.iter() {
                    let start = self.names.len();
                    self.names.extend_from_within(outer.0..outer.1);
                    self.name_below(start, entry.key());
                    self.add_value(start, entry.value(), depth + 1);
                }
            }
            value => self.entries.push(Entry { name: (start, self.names.len()), leaf: Leaf::Any(value) }),
        }
    }

    /// One of ours, or none.
    fn prefix(&mut self, prefix: &str) {
        self.names.extend_from_slice(prefix.as_bytes());
    }

    /// A name has no empty parts: Elasticsearch refuses the document.
    fn name_below(&mut self, start: usize, part: &str) {
        if self.names.len() > start {
            self.names.push(b'.');
        }
        if !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.contains("..") {
            self.names.extend_from_slice(part.as_bytes());
            return;
        }
        for (at, segment) in part.split('.').enumerate() {
            if at > 0 {
                self.names.push(b'.');
            }
            self.names.extend_from_slice(if segment.is_empty() { b"_" } else { segment.as_bytes() });
        }
    }

    fn name_of(&self, entry: &Entry<'_>) -> &[u8] {
        self.names.get(entry.name.0..entry.name.1).unwrap_or_default()
    }

    /// In order, a name once (the last of it), values that have names below them moved there.
    fn settle(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|a, b| by_parts(self.name_of(a), self.name_of(b)));
        entries.dedup_by(|later, kept| {
            let same = self.name_of(later) == self.name_of(kept);
            if same {
                *kept = *later;
            }
            same
        });
        for at in 0..entries.len() {
            let (Some(entry), Some(next)) = (entries.get(at), entries.get(at + 1)) else { break };
            let name = self.name_of(entry);
            let is_above = self.name_of(next).strip_prefix(name).is_some_and(|rest| rest.starts_with(b"."));
            if !is_above {
                continue;
            }
            let mut moved = [name, b".value"].concat();
            let below = |other: &Entry<'_>| self.name_of(other).starts_with(&moved);
            if entries.iter().skip(at + 1).take_while(|other| self.name_of(other).starts_with(name)).any(below) {
                moved = [name, b"._value"].concat();
            }
            let start = self.names.len();
            self.names.extend_from_slice(&moved);
            let end = self.names.len();
            if let Some(entry) = entries.get_mut(at) {
                entry.name = (start, end);
            }
        }
        self.entries = entries;
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|a, b| by_parts(self.name_of(a), self.name_of(b)));
        self.entries = entries;
    }

    /// `{"a.b":1,"a.c":2}`
    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        self.settle();
        out.push(b'{');
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            string(self.name_of(entry), out);
            out.push(b':');
            self.value(entry.leaf, out);
        }
        out.push(b'}');
    }

    /// `{"a":{"b":1,"c":2}}`
    pub(super) fn write_nested(&mut self, out: &mut Vec<u8>) {
        self.settle();
        out.push(b'{');
        let mut open: Vec<&[u8]> = Vec::new();
        let mut is_first = true;
        for entry in &self.entries {
            let parts: Vec<&[u8]> = self.name_of(entry).splitn(DEPTH_MAX, |byte| *byte == b'.').collect();
            let Some((last, above)) = parts.split_last() else { continue };
            let common = open.iter().zip(above).take_while(|(a, b)| a == b).count();
            for _ in common..open.len() {
                out.push(b'}');
                is_first = false;
            }
            open.truncate(common);
            for part in above.iter().skip(common) {
                key(part, &mut is_first, out);
                out.push(b'{');
                is_first = true;
                open.push(part);
            }
            key(last, &mut is_first, out);
            self.value(entry.leaf, out);
        }
        out.extend(open.iter().map(|_| b'}'));
        out.push(b'}');
    }

    fn value(&self, leaf: Leaf<'_>, out: &mut Vec<u8>) {
        match leaf {
            Leaf::Any(value) => any(value, out),
            Leaf::Int(value) => decimal(value, out),
            Leaf::Text(text) => string(text.as_bytes(), out),
            Leaf::Time(nanos) => time(nanos, out),
            Leaf::Hex(bytes) => hex(bytes, out),
            Leaf::Written(start, end) => out.extend_from_slice(self.written.get(start..end).unwrap_or(b"null")),
        }
    }
}

fn key(part: &[u8], is_first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(is_first, false) {
        out.push(b',');
    }
    out.push(b'"');
    // The last part of a name that is too deep has dots left: they would be objects again.
    if part.contains(&b'.') {
        let shallow: Vec<u8> = part.iter().map(|byte| if *byte == b'.' { b'_' } else { *byte }).collect();
        escape(&shallow, out);
    } else {
        escape(part, out);
    }
    out.extend_from_slice(b"\":");
}

/// By parts: what lies below a name follows it.
fn by_parts(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'.' { 0 } else { u16::from(*byte) + 1 };
    a.iter().map(rank).cmp(b.iter().map(rank))
}
