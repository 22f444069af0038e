//! The labels of one series, escaped once and kept as text.

use std::{borrow::Cow, hash::BuildHasher};

use smallvec::SmallVec;

/// Labels of one series as Prometheus text: `service="cart",span_name="GET /"`, sorted by name, values escaped. Names outside the
/// classic alphabet stand in quotes, as the UTF-8 syntax has it; [`LabelBlock::pairs`] gives them back for other formats.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LabelBlock {
    text: Box<str>,
    identity: u64,
    flags: u8,
}

const CLASSIC: u8 = 1;
const UNDERSCORE: u8 = 2;
const BROKEN: u8 = 4;
const HAS_LE: u8 = 8;
const HAS_QUANTILE: u8 = 16;

/// Fixed, so that equal labels of several sources meet.
const IDENTITY: foldhash::fast::FixedState = foldhash::fast::FixedState::with_seed(0x5eed_0f1a_be15);

impl LabelBlock {
    /// `pairs` in any order. An empty value is written (`instance=""` tells Prometheus not to put its own there) and counts as absent
    /// when series are compared. A block with a name twice, an empty name or `__name__` is kept, and no page shows its series.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let owned: SmallVec<[(N, V); 16]> = pairs.into_iter().collect();
        let mut sorted: SmallVec<[(&str, &str); 16]> =
            owned.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0));
        let mut text = String::with_capacity(sorted.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
        let mut flags = CLASSIC;
        let mut identity = 0_u64;
        let mut before: Option<&str> = None;
        for &(name, value) in &sorted {
            if before == Some(name) || name.is_empty() || name == "__name__" {
                flags |= BROKEN;
            }
            before = Some(name);
            flags |= match name {
                "le" => HAS_LE,
                "quantile" => HAS_QUANTILE,
                _ => 0,
            };
            if name.contains('_') {
                flags |= UNDERSCORE;
            }
            if !text.is_empty() {
                text.push(',');
            }
            if is_classic_label(name) {
                text.push_str(name);
            } else {
                flags &= !CLASSIC;
                push_quoted(&mut text, name);
            }
            text.push('=');
            push_quoted(&mut text, value);
            if !value.is_empty() {
                identity = identity.wrapping_add(IDENTITY.hash_one((name, value)));
            }
        }
        Self { text: text.into_boxed_str(), identity, flags }
    }

    /// The block that has this very text; `None` if none has.
    pub fn of_text(text: &str) -> Option<Self> {
        let block = Self::new(Pairs { rest: text });
        (*block.text == *text).then_some(block)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Equal for equal label sets, whatever their order and empty labels. 64 bits of a fixed hash.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// All names are legal in Prometheus' classic alphabet.
    pub fn is_classic(&self) -> bool {
        self.flags & CLASSIC != 0
    }

    /// A name holds `_`, which the `dots` escaping doubles.
    pub(crate) fn has_underscore(&self) -> bool {
        self.flags & UNDERSCORE != 0
    }

    /// A name is empty, reserved or there twice.
    pub(crate) fn is_broken(&self) -> bool {
        self.flags & BROKEN != 0
    }

    pub(crate) fn has_le(&self) -> bool {
        self.flags & HAS_LE != 0
    }

    pub(crate) fn has_quantile(&self) -> bool {
        self.flags & HAS_QUANTILE != 0
    }

    /// Names and values, unescaped, sorted by name.
    pub fn pairs(&self) -> Pairs<'_> {
        Pairs { rest: &self.text }
    }
}

/// Iterates over a [`LabelBlock`].
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (name, rest) = if self.rest.starts_with('"') {
            take_quoted(self.rest)?
        } else {
            let at = self.rest.find('=')?;
            (Cow::Borrowed(self.rest.get(..at)?), self.rest.get(at..)?)
        };
        let (value, rest) = take_quoted(rest.strip_prefix('=')?)?;
        self.rest = rest.strip_prefix(',').unwrap_or(rest);
        Some((name, value))
    }
}

/// `^[a-zA-Z_][a-zA-Z0-9_]*$`
pub(crate) fn is_classic_label(name: &str) -> bool {
    let head = name.as_bytes().first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    head && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Appends `"text"` with backslash, newline and quote escaped.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

pub(crate) fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = memchr::memchr3(b'\\', b'\n', b'"', rest.as_bytes()) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let mut tail = tail.chars();
        match tail.next() {
            Some('\n') => out.push_str("\\n"),
            Some('"') => out.push_str("\\\""),
            _ => out.push_str("\\\\"),
        }
        rest = tail.as_str();
    }
    out.push_str(rest);
}

/// Splits `"text"rest` into the unescaped text and the rest.
fn take_quoted(from: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = from.strip_prefix('"')?;
    let end = memchr::memchr2(b'\\', b'"', inner.as_bytes())?;
    if inner.as_bytes().get(end) == Some(&b'"') {
        return Some((Cow::Borrowed(inner.get(..end)?), inner.get(end + 1..)?));
    }
    let mut text = String::with_capacity(inner.len());
    text.push_str(inner.get(..end)?);
    let mut letters = inner.get(end..)?.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(text), letters.as_str())),
            '\\' => match letters.next()? {
                'n' => text.push('\n'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    None
}
