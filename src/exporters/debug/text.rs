//! How Go's programs write numbers, times and attribute values; people grep for the results.

use std::{
    collections::BTreeMap,
    fmt::{Arguments, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{Timestamp, tz::TimeZone};

use crate::otlp::view::{AnyValueView, AttributesView, NumberValue};

/// Deepest value that is written; the door takes no deeper one.
const DEPTH_MAX: usize = 64;

/// `2023-11-14 22:13:20.123456789 +0000 UTC`
pub(super) fn time(out: &mut String, unix_nanos: u64) {
    // The Collector reads the number as signed.
    let written = Timestamp::from_nanosecond(i128::from(unix_nanos as i64))
        .map(|at| at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string());
    out.push_str(&written.unwrap_or_else(|_| unix_nanos.to_string()));
}

/// Nothing for an id of zeros.
pub(super) fn hex(out: &mut String, id: &[u8]) {
    if id.iter().all(|byte| *byte == 0) {
        return;
    }
    for byte in id {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

/// `Str(x)`, `Int(1)`, `Map({"a":1})`: a value with its type.
pub(super) fn typed(out: &mut String, value: AnyValueView<'_>) {
    let name = match value {
        AnyValueView::Empty => "Empty",
        AnyValueView::String(_) => "Str",
        AnyValueView::Bool(_) => "Bool",
        AnyValueView::Int(_) => "Int",
        AnyValueView::Double(_) => "Double",
        AnyValueView::Bytes(_) => "Bytes",
        AnyValueView::Array(_) => "Slice",
        AnyValueView::KeyValues(_) => "Map",
    };
    out.push_str(name);
    out.push('(');
    plain(out, value);
    out.push(')');
}

/// The value alone.
pub(super) fn plain(out: &mut String, value: AnyValueView<'_>) {
    match value {
        AnyValueView::Empty => {}
        AnyValueView::String(text) => out.push_str(text),
        AnyValueView::Bytes(bytes) => STANDARD.encode_string(bytes, out),
        other => json(out, other, 0),
    }
}

fn json(out: &mut String, value: AnyValueView<'_>, depth: usize) {
    if depth > DEPTH_MAX {
        out.push_str("null");
        return;
    }
    match value {
        AnyValueView::Empty => out.push_str("null"),
        AnyValueView::String(text) => quoted(out, text),
        AnyValueView::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        AnyValueView::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
        AnyValueView::Double(value) => double(out, value),
        AnyValueView::Bytes(bytes) => {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        AnyValueView::Array(array) => {
            out.push('[');
            for (at, value) in array.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json(out, value, depth + 1);
            }
            out.push(']');
        }
        AnyValueView::KeyValues(entries) => map(out, entries, depth),
    }
}

/// Keys in order, the last of two equal ones.
fn map(out: &mut String, entries: AttributesView<'_>, depth: usize) {
    let sorted: BTreeMap<_, _> = entries.iter().map(|entry| (entry.key(), entry.value())).collect();
    out.push('{');
    for (at, (key, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        quoted(out, key);
        out.push(':');
        json(out, value, depth + 1);
    }
    out.push('}');
}

fn quoted(out: &mut String, text: &str) {
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
            c if c < ' ' || matches!(c, '\u{2028}' | '\u{2029}') => write(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// As JSON has it: plain digits from 1e-6 up to 1e21, an exponent without padding otherwise.
pub(super) fn double(out: &mut String, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        exponential(out, value, 1);
    } else {
        write(out, format_args!("{value}"));
    }
}

/// Go's `%g` with the shortest digits: an exponent of two digits below 1e-4 and from 1e6 on.
pub(super) fn general(out: &mut String, value: f64) {
    let size = value.abs();
    if !value.is_finite() {
        infinite(out, value);
    } else if size != 0.0 && !(1e-4..1e6).contains(&size) {
        exponential(out, value, 2);
    } else {
        write(out, format_args!("{value}"));
    }
}

/// Go's `%f`: six digits after the point.
pub(super) fn fixed(out: &mut String, value: f64) {
    if value.is_finite() {
        write(out, format_args!("{value:.6}"));
    } else {
        infinite(out, value);
    }
}

pub(super) fn number(out: &mut String, value: NumberValue, write_double: fn(&mut String, f64)) {
    match value {
        NumberValue::None => {}
        NumberValue::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
        NumberValue::Double(value) => write_double(out, value),
    }
}

fn infinite(out: &mut String, value: f64) {
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    };
    out.push_str(text);
}

fn exponential(out: &mut String, value: f64, digits: usize) {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    write(out, format_args!("{mantissa}e{sign}{exponent:0>digits$}"));
}

/// Appends.
pub(super) fn write(out: &mut String, text: Arguments<'_>) {
    out.write_fmt(text).expect("a string takes what it is given");
}
