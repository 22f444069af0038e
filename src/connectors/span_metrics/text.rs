//! Attribute values as label values: the Collector's text for each kind of value.

use std::{collections::BTreeMap, fmt::Write};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::otlp::view::AnyValueView;

/// Bytes of a label's value that are kept; longer ones are cut at the end of a letter. Attributes with longer names are no labels.
pub(super) const VALUE_BYTES_MAX: usize = 1024;

/// The part of `text` that is kept.
pub(super) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(VALUE_BYTES_MAX)).unwrap_or(text)
}

/// Appends `value` as text. Arrays and lists are JSON with sorted keys; bytes are base64.
pub(super) fn push_value(out: &mut String, value: AnyValueView<'_>) {
    match value {
        AnyValueView::Empty => {}
        AnyValueView::String(text) => out.push_str(text),
        AnyValueView::Bool(flag) => out.push_str(if flag { "true" } else { "false" }),
        AnyValueView::Int(number) => out.push_str(itoa::Buffer::new().format(number)),
        AnyValueView::Double(number) => match number {
            n if n.is_nan() => out.push_str("NaN"),
            f64::INFINITY => out.push_str("Infinity"),
            f64::NEG_INFINITY => out.push_str("-Infinity"),
            n => push_double(out, n),
        },
        AnyValueView::Bytes(bytes) => STANDARD.encode_string(bytes, out),
        AnyValueView::Array(_) | AnyValueView::KeyValues(_) => {
            let start = out.len();
            if push_json(out, value, 0).is_none() {
                // A number that JSON does not know leaves nothing of the whole value, there as here.
                out.truncate(start);
            }
        }
    }
}

/// The shortest text that reads back as the same number; with an exponent below 1e-6 and from 1e21 on.
fn push_double(out: &mut String, number: f64) {
    let size = number.abs();
    let written = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        let signed = if size < 1.0 { text } else { text.replace('e', "e+") };
        write!(out, "{signed}")
    } else {
        write!(out, "{number}")
    };
    written.expect("writing to a String does not fail");
}

/// The scan lets values nest 32 deep; more is not read.
const DEPTH_MAX: u32 = 64;

fn push_json(out: &mut String, value: AnyValueView<'_>, depth: u32) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match value {
        AnyValueView::Empty => out.push_str("null"),
        AnyValueView::String(text) => push_json_text(out, text),
        AnyValueView::Bool(_) | AnyValueView::Int(_) => push_value(out, value),
        AnyValueView::Double(number) if number.is_finite() => push_double(out, number),
        AnyValueView::Double(_) => return None,
        AnyValueView::Bytes(bytes) => {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        AnyValueView::Array(array) => {
            out.push('[');
            for (at, item) in array.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_json(out, item, depth + 1)?;
            }
            out.push(']');
        }
        AnyValueView::KeyValues(list) => {
            let entries: BTreeMap<_, _> = list.iter().map(|entry| (entry.key(), entry.value())).collect();
            out.push('{');
            for (at, (key, item)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_json_text(out, key);
                out.push(':');
                push_json(out, item, depth + 1)?;
            }
            out.push('}');
        }
    }
    Some(())
}

fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || matches!(c, '\u{2028}' | '\u{2029}') => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String does not fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A name as a label name of Prometheus' classic alphabet: anything else becomes `_`; no name may begin with a digit.
pub(super) fn label_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        out.push_str("key_");
    }
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }));
    out
}
