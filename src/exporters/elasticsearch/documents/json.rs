//! Values of OTLP as JSON that Elasticsearch takes: no key twice in an object, no empty key, no number that is none.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::time::rfc3339;
use crate::otlp::{
    json::scalar::{base64, decimal, double, hex, string},
    view::{AnyValueView, AttributesView},
};

/// Fields of one object, each behind a comma where there is one before it.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    has_fields: bool,
}

impl<'o> Object<'o> {
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, has_fields: false }
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// Begins a field; its value is written next. `name` needs no escape.
    pub(super) fn field(&mut self, name: &str) -> &mut Vec<u8> {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// The same for a name that may be anything.
    pub(super) fn named(&mut self, name: &str) -> &mut Vec<u8> {
        self.comma();
        string(name.as_bytes(), self.out);
        self.out.push(b':');
        self.out
    }

    /// Fields that are written already, `"a":1,"b":2`.
    pub(super) fn fields(&mut self, written: &[u8]) {
        if !written.is_empty() {
            self.comma();
            self.out.extend_from_slice(written);
        }
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            string(value.as_bytes(), self.field(name));
        }
    }

    /// Left out when 0.
    pub(super) fn count(&mut self, name: &str, value: u32) {
        if value != 0 {
            decimal(value, self.field(name));
        }
    }

    /// Left out when it is not there or all zeros.
    pub(super) fn id(&mut self, name: &str, id: &[u8]) {
        if id.iter().any(|byte| *byte != 0) {
            hex(id, self.field(name));
        }
    }

    pub(super) fn time(&mut self, name: &str, unix_nanos: u64) {
        time(unix_nanos, self.field(name));
    }

    fn comma(&mut self) {
        if std::mem::replace(&mut self.has_fields, true) {
            self.out.push(b',');
        }
    }
}

pub(super) fn time(unix_nanos: u64, out: &mut Vec<u8>) {
    out.push(b'"');
    rfc3339(unix_nanos, out);
    out.push(b'"');
}

/// What is not finite becomes null: JSON has no word for it, and a text would make the field one.
pub(super) fn number(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        double(value, out);
    } else {
        out.extend_from_slice(b"null");
    }
}

pub(super) fn any(value: AnyValueView<'_>, out: &mut Vec<u8>) {
    match value {
        AnyValueView::Empty => out.extend_from_slice(b"null"),
        AnyValueView::String(text) => string(text.as_bytes(), out),
        AnyValueView::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        AnyValueView::Int(value) => decimal(value, out),
        AnyValueView::Double(value) => number(value, out),
        AnyValueView::Bytes(bytes) => base64(bytes, out),
        AnyValueView::Array(array) => {
            out.push(b'[');
            for (at, value) in array.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                any(value, out);
            }
            out.push(b']');
        }
        AnyValueView::KeyValues(entries) => attributes(entries, |_| true, out),
    }
}

/// An object of the attributes that are wanted; of a key that comes twice the first one.
pub(super) fn attributes(attributes: AttributesView<'_>, wanted: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    each_key(attributes, |key, value| {
        if wanted(key) {
            any(value, object.named(key));
        }
    });
    object.close();
}

/// Below this many, keys are compared with those before them.
const FEW: usize = 24;

/// Calls `each` with every key once, the first time it comes, as a name that an index takes.
pub(super) fn each_key<'a>(attributes: AttributesView<'a>, mut each: impl FnMut(&str, AnyValueView<'a>)) {
    let mut seen: SmallVec<[Cow<'a, str>; FEW]> = SmallVec::new();
    let mut many: hashbrown::HashSet<Cow<'a, str>> = hashbrown::HashSet::new();
    for attribute in attributes.iter() {
        let key = tidy(attribute.key());
        if seen.len() < FEW {
            if !seen.contains(&key) {
                each(&key, attribute.value());
                seen.push(key);
            }
            continue;
        }
        if many.is_empty() {
            many.extend(seen.iter().cloned());
        }
        if !many.contains(&key) {
            each(&key, attribute.value());
            many.insert(key);
        }
    }
}

/// A name has no empty parts: Elasticsearch refuses the document.
pub(super) fn tidy(key: &str) -> Cow<'_, str> {
    if !key.is_empty() && !key.starts_with('.') && !key.ends_with('.') && !key.contains("..") {
        return Cow::Borrowed(key);
    }
    let parts: Vec<&str> = key.split('.').map(|part| if part.is_empty() { "_" } else { part }).collect();
    Cow::Owned(parts.join("."))
}
