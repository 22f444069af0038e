//! Values as a file writes them and as a signal carries them: reading, encoding, text, equality.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use crate::otlp::{
    view::AnyValueView,
    wire::{put_bytes, put_bytes_always, put_double_always, put_message, put_uint_always},
};

/// Any value of a file, with the type that YAML gave it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Written {
    /// What the value is called in messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Double(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// As an `AnyValue`.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(value) => put_uint_always(out, 2, u64::from(*value)),
            Self::Int(value) => put_uint_always(out, 3, *value as u64),
            Self::Double(value) => put_double_always(out, 4, *value),
            Self::Text(value) => put_bytes_always(out, 1, value.as_bytes()),
            Self::List(values) => put_message(out, 5, |out| {
                for value in values {
                    put_message(out, 1, |out| value.encode(out));
                }
            }),
            Self::Map(entries) => put_message(out, 6, |out| {
                for (key, value) in entries {
                    put_message(out, 1, |out| {
                        put_bytes(out, 1, key.as_bytes());
                        put_message(out, 2, |out| value.encode(out));
                    });
                }
            }),
        }
    }

    /// Whether a signal's value is this one: of the same type, entries of a map in any order.
    pub(crate) fn equals(&self, value: AnyValueView<'_>) -> bool {
        match (self, value) {
            (Self::Null, AnyValueView::Empty) => true,
            (Self::Bool(wanted), AnyValueView::Bool(value)) => *wanted == value,
            (Self::Int(wanted), AnyValueView::Int(value)) => *wanted == value,
            #[expect(clippy::float_cmp, reason = "the file names the exact value")]
            (Self::Double(wanted), AnyValueView::Double(value)) => *wanted == value,
            (Self::Text(wanted), AnyValueView::String(value)) => wanted == value,
            (Self::List(wanted), AnyValueView::Array(values)) => {
                let mut values = values.iter();
                wanted.iter().all(|wanted| values.next().is_some_and(|value| wanted.equals(value))) && values.next().is_none()
            }
            (Self::Map(wanted), AnyValueView::KeyValues(entries)) => {
                wanted.len() == entries.iter().count()
                    && wanted.iter().all(|(key, wanted)| entries.get(key).is_some_and(|value| wanted.equals(value)))
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E: Error>(self) -> Result<Written, E> {
                Ok(Written::Null)
            }
            fn visit_none<E: Error>(self) -> Result<Written, E> {
                Ok(Written::Null)
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Written, E> {
                Ok(Written::Bool(value))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Written, E> {
                Ok(Written::Int(value))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Written, E> {
                i64::try_from(value).map(Written::Int).map_err(|_| E::custom("the number does not fit in 64 bits with a sign"))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Written, E> {
                Ok(Written::Double(value))
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Written, E> {
                Ok(Written::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Written, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Written::List(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Written::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A signal's value as the Collector turns it into text: strings as they are, lists and maps as JSON with keys in order.
pub(crate) fn text_of(value: AnyValueView<'_>) -> Cow<'_, str> {
    match value {
        AnyValueView::Empty => Cow::Borrowed(""),
        AnyValueView::String(value) => Cow::Borrowed(value),
        AnyValueView::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        AnyValueView::Int(value) => Cow::Owned(itoa::Buffer::new().format(value).to_owned()),
        AnyValueView::Double(value) => Cow::Owned(double_text(value)),
        AnyValueView::Bytes(value) => Cow::Owned(BASE64_STANDARD.encode(value)),
        AnyValueView::Array(_) | AnyValueView::KeyValues(_) => {
            let mut out = String::new();
            // JSON has no infinities; the Collector gives up on the whole value then.
            Cow::Owned(json(value, &mut out).map_or_else(String::new, |()| out))
        }
    }
}

/// As JavaScript writes numbers, which Go's JSON follows: no exponent from 1e-6 up to 1e21, and no `.0`.
fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        let text = format!("{value:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    format!("{value}")
}

/// Numbers in the text that patterns are matched with: never with an exponent.
pub(crate) fn plain_text(value: AnyValueView<'_>) -> Option<Cow<'_, str>> {
    match value {
        AnyValueView::Double(value) if value.is_infinite() => Some(Cow::Borrowed(if value > 0.0 { "+Inf" } else { "-Inf" })),
        AnyValueView::Double(value) => Some(Cow::Owned(format!("{value}"))),
        AnyValueView::String(_) | AnyValueView::Bool(_) | AnyValueView::Int(_) => Some(text_of(value)),
        _ => None,
    }
}

fn json(value: AnyValueView<'_>, out: &mut String) -> Option<()> {
    match value {
        AnyValueView::Empty => out.push_str("null"),
        AnyValueView::String(text) => quote(text, out),
        AnyValueView::Bytes(_) => quote(&text_of(value), out),
        AnyValueView::Double(number) if !number.is_finite() => return None,
        AnyValueView::Bool(_) | AnyValueView::Int(_) | AnyValueView::Double(_) => out.push_str(&text_of(value)),
        AnyValueView::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json(value, out)?;
            }
            out.push(']');
        }
        AnyValueView::KeyValues(entries) => {
            let sorted: BTreeMap<&str, AnyValueView<'_>> = entries.iter().map(|entry| (entry.key(), entry.value())).collect();
            out.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(key, out);
                out.push(':');
                json(value, out)?;
            }
            out.push('}');
        }
    }
    Some(())
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('"');
}
