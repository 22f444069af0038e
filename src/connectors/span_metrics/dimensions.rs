//! Which attributes become labels, and their values on one span.

use std::collections::BTreeMap;

use super::{
    glob::Glob,
    settings::Dimension,
    text::{VALUE_BYTES_MAX, cut, push_value},
};
use crate::otlp::{
    view::{AnyValueView, AttributeView, AttributesView},
    wire,
};

/// The dimensions of one metric, ready to be looked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Dimensions {
    named: Vec<(Box<str>, Option<Box<str>>)>,
    globs: Vec<Glob>,
}

/// Labels that globs may find for one row; the first in the order of their names.
const GLOBBED_MAX: usize = 64;

/// One label value found on a span.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Attribute(AnyValueView<'a>, &'a [u8]),
    Default(&'a str),
}

impl<'a> Value<'a> {
    fn of(attribute: &AttributeView<'a>) -> Self {
        Self::Attribute(attribute.value(), attribute.value_bytes().unwrap_or_default())
    }

    pub(super) fn push_text(self, out: &mut String) {
        match self {
            Self::Attribute(value, _) => push_value(out, value),
            Self::Default(text) => out.push_str(text),
        }
    }

    /// Appends a `KeyValue` field with number `field`.
    fn put(self, out: &mut Vec<u8>, field: u32, name: &str) {
        match self {
            Self::Attribute(value, bytes) if bytes.len() > VALUE_BYTES_MAX => {
                let mut text = String::new();
                push_value(&mut text, value);
                put_text_attribute(out, field, name, cut(&text));
            }
            Self::Attribute(_, bytes) => wire::put_message(out, field, |out| {
                wire::put_bytes(out, 1, name.as_bytes());
                wire::put_bytes_always(out, 2, bytes);
            }),
            Self::Default(text) => put_text_attribute(out, field, name, text),
        }
    }
}

/// Appends a `KeyValue` whose value is a string.
pub(super) fn put_text_attribute(out: &mut Vec<u8>, field: u32, name: &str, text: &str) {
    wire::put_message(out, field, |out| {
        wire::put_bytes(out, 1, name.as_bytes());
        wire::put_message(out, 2, |out| wire::put_bytes_always(out, 1, text.as_bytes()));
    });
}

impl Dimensions {
    /// `first` before `second`, as the Collector joins the common ones with those of one metric; of a name in both the second is meant.
    /// Globs were checked.
    pub(super) fn new(first: &[Dimension], second: &[Dimension]) -> Self {
        let mut made = Self::default();
        let only_first = first.iter().filter(|one| !second.iter().any(|other| !one.name.is_empty() && one.name == other.name));
        for dimension in only_first.chain(second) {
            if dimension.glob.is_empty() {
                made.named.push((dimension.name.as_str().into(), dimension.default.as_deref().map(Into::into)));
            } else if let Ok(glob) = Glob::parse(&dimension.glob) {
                made.globs.push(glob);
            }
        }
        made
    }

    /// The names that are known beforehand.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.named.iter().map(|(name, _)| name.to_string())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.globs.is_empty()
    }

    /// Calls `each` with name and value of each dimension that is there. Attributes of the span win over those of `around` (the
    /// resource, or resource and event).
    pub(super) fn each<'a>(
        &'a self,
        span: AttributesView<'a>,
        around: &[AttributesView<'a>],
        mut each: impl FnMut(&'a str, Value<'a>),
    ) {
        for (name, default) in &self.named {
            let find = |attributes: &AttributesView<'a>| attributes.iter().find(|attribute| attribute.key() == &**name);
            let attribute = find(&span).or_else(|| around.iter().find_map(find));
            match (attribute, default) {
                (Some(attribute), _) => each(name, Value::of(&attribute)),
                (None, Some(default)) => each(name, Value::Default(default)),
                (None, None) => {}
            }
        }
        if self.globs.is_empty() {
            return;
        }
        let fits = |attribute: &AttributeView<'a>| self.globs.iter().any(|glob| glob.matches(attribute.key()));
        let mut seen: BTreeMap<&'a str, Value<'a>> = BTreeMap::new();
        for attribute in span.iter().filter(fits) {
            seen.entry(attribute.key()).or_insert_with(|| Value::of(&attribute));
        }
        for (name, value) in seen.iter().take(GLOBBED_MAX) {
            each(name, *value);
        }
        let mut outer: BTreeMap<&'a str, Value<'a>> = BTreeMap::new();
        for attribute in around.iter().flat_map(|attributes| attributes.iter()).filter(fits) {
            if span.get(attribute.key()).is_none() {
                outer.entry(attribute.key()).or_insert_with(|| Value::of(&attribute));
            }
        }
        for (name, value) in outer.into_iter().take(GLOBBED_MAX.saturating_sub(seen.len())) {
            each(name, value);
        }
    }

    /// The attributes as `KeyValue` fields with number `field`.
    pub(super) fn encode(&self, span: AttributesView<'_>, around: &[AttributesView<'_>], field: u32, out: &mut Vec<u8>) {
        self.each(span, around, |name, value| {
            if name.len() <= VALUE_BYTES_MAX {
                value.put(out, field, name);
            }
        });
    }
}
