//! Labels of a row's key, and keys with some of their labels folded.

use std::hash::BuildHasher;

use smallvec::SmallVec;

use super::{
    dimensions::put_text_attribute,
    settings::{SERVICE_NAME, SPAN_NAME},
};
use crate::{
    otlp::{
        view::{ResourceView, View},
        wire,
    },
    registry::{FOLDED, Guard, Key, KeyHead, RowStore},
};

/// The numbers that a guard gives to the labels every row has.
pub(super) const SERVICE: u32 = 0;
const NAME: u32 = 1;

/// A guard that knows the default labels by the numbers above.
pub(super) fn guard(limits: crate::registry::GuardLimits, dimensions: impl IntoIterator<Item = String>) -> Guard {
    let mut guard = Guard::new(limits);
    guard.label(SERVICE_NAME);
    guard.label(SPAN_NAME);
    for name in dimensions {
        guard.label(&name);
    }
    guard
}

/// The dimensions in a key: name and text, in turn, behind the span's name.
fn dimensions<'a>(key: &Key<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    // They are written as fields 1 and 2 of a message, as the entries of a key-value list are.
    let mut rest = key.tail.get(key.head.name_len as usize..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, after) = take(rest)?;
        let (text, after) = take(after)?;
        rest = after;
        Some((name, text))
    })
}

/// One length-delimited field of text, and what comes behind it.
fn take(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (_tag, mut rest) = bytes.split_first()?;
    let (mut len, mut shift) = (0_usize, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        len |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if *byte < 0x80 {
            break;
        }
        shift += 7;
    }
    let (text, rest) = rest.split_at_checked(len)?;
    Some((std::str::from_utf8(text).unwrap_or_default(), rest))
}

fn hash(text: &[u8]) -> u64 {
    foldhash::quality::FixedState::with_seed(0x1abe1).hash_one(text)
}

/// Labels that can be folded, with the hashes of their values.
pub(super) fn labels(guard: &Guard, key: &Key<'_>) -> SmallVec<[(u32, u64); 8]> {
    let mut labels = SmallVec::new();
    labels.push((SERVICE, hash(&key.head.owner.to_le_bytes())));
    labels.push((NAME, hash(key.tail.get(..key.head.name_len as usize).unwrap_or_default())));
    labels.extend(dimensions(key).map(|(name, text)| (guard.label_of(name), hash(text.as_bytes()))));
    labels
}

/// Rows that are looked at for examples.
const LOOKED_AT: usize = 1000;

/// A few values of a label, for the log.
pub(super) fn examples<L>(store: &RowStore<L>, label: &str, wanted: impl Fn(&Key<'_>) -> bool) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, key, _) in store.rows().filter(|(_, key, _)| wanted(key)).take(LOOKED_AT) {
        let value = if label == SPAN_NAME {
            String::from_utf8_lossy(key.tail.get(..key.head.name_len as usize).unwrap_or_default()).into_owned()
        } else {
            dimensions(&key).find(|(name, _)| *name == label).map(|(_, text)| text.to_owned()).unwrap_or_default()
        };
        let value: String = value.chars().take(80).collect();
        if !value.is_empty() && !found.contains(&value) {
            found.push(value);
        }
        if found.len() == 5 {
            break;
        }
    }
    found
}

/// A key with folded labels, and the extra attributes that go with it.
pub(super) struct Folded {
    head: KeyHead,
    tail: Vec<u8>,
    pub(super) extra: Option<Box<[u8]>>,
}

impl Folded {
    pub(super) fn key(&self) -> Key<'_> {
        Key { head: self.head, tail: &self.tail }
    }
}

/// Folds those labels of a key whose bits are set in `labels`.
pub(super) fn fold(key: &Key<'_>, owner: u32, extra: Option<&[u8]>, labels: u64, number: impl Fn(&str) -> Option<u32>) -> Folded {
    let is_folded = |name: &str| number(name).is_some_and(|label| labels & (1 << label) != 0);
    let mut tail = Vec::with_capacity(key.tail.len());
    let mut head = KeyHead { owner, ..key.head };
    if labels & (1 << NAME) != 0 && head.name_len > 0 {
        tail.extend_from_slice(FOLDED.as_bytes());
        head.name_len = FOLDED.len() as u32;
    } else {
        tail.extend_from_slice(key.tail.get(..key.head.name_len as usize).unwrap_or_default());
    }
    for (name, text) in dimensions(key) {
        wire::put_bytes_always(&mut tail, 1, name.as_bytes());
        wire::put_bytes_always(&mut tail, 2, if is_folded(name) { FOLDED.as_bytes() } else { text.as_bytes() });
    }
    let extra = extra.map(|extra| {
        let mut out = Vec::with_capacity(extra.len());
        for attribute in ResourceView::new(extra).attributes.iter() {
            if is_folded(attribute.key()) {
                put_text_attribute(&mut out, 1, attribute.key(), FOLDED);
            } else {
                wire::put_bytes_always(&mut out, 1, attribute.bytes());
            }
        }
        out.into()
    });
    Folded { head, tail, extra }
}
