//! A tree → YAML or JSON text, with secrets left out ([`super::secrets`] says what is one).

use std::{fmt::Write as _, sync::Arc};

use super::{
    Node, Value, scalar,
    secrets::{REDACTED, Secrecy, of_entry, shown_url},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpMode {
    Redacted,
    /// Secrets too.
    Unredacted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpFormat {
    Yaml,
    Json,
}

/// The whole tree as text that ends with a line break. YAML that was dumped unredacted loads as the same tree.
pub fn dump(node: &Node, mode: DumpMode, format: DumpFormat) -> String {
    let redacted;
    let node = match mode {
        DumpMode::Unredacted => node,
        DumpMode::Redacted => {
            redacted = redact(node, Secrecy::Open);
            &redacted
        }
    };
    let mut out = String::new();
    match format {
        DumpFormat::Yaml => match &node.value {
            Value::Map(entries) if !entries.is_empty() => map(entries, 0, &mut out),
            Value::List(items) if !items.is_empty() => list(items, 0, &mut out),
            _ => {
                inline(node, &mut out);
                out.push('\n');
            }
        },
        DumpFormat::Json => {
            json(node, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

// === what is secret ===

fn redact(node: &Node, secrecy: Secrecy) -> Node {
    redact_below("", node, secrecy)
}

fn redact_below(parent: &str, node: &Node, secrecy: Secrecy) -> Node {
    let value = match &node.value {
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let name = key.word().map_or("", |word| word);
                let inner = of_entry(parent, name, entries, secrecy);
                (key.clone(), redact_below(name, value, inner))
            });
            Value::Map(entries.collect())
        }
        Value::List(items) => Value::List(items.iter().map(|item| redact_below(parent, item, secrecy)).collect()),
        Value::Null => Value::Null,
        _ if secrecy == Secrecy::All => Value::String(REDACTED.into()),
        Value::String(text) => Value::String(Arc::from(&*shown_url(text))),
        other => other.clone(),
    };
    Node { value, origin: node.origin, text: None }
}

// === YAML ===

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn map(entries: &[(Node, Node)], depth: usize, out: &mut String) {
    for (at, (key, value)) in entries.iter().enumerate() {
        // The first line of an item of a list stands behind its dash already.
        if at > 0 || out.is_empty() || out.ends_with('\n') {
            indent(depth, out);
        }
        out.push_str(&word(key.word().map_or("", |word| word)));
        out.push(':');
        below_key(value, depth, out);
    }
}

fn below_key(value: &Node, depth: usize, out: &mut String) {
    match &value.value {
        Value::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            map(entries, depth + 1, out);
        }
        Value::List(items) if !items.is_empty() => {
            out.push('\n');
            list(items, depth + 1, out);
        }
        Value::Null => out.push('\n'),
        _ => {
            out.push(' ');
            inline(value, out);
            out.push('\n');
        }
    }
}

fn list(items: &[Node], depth: usize, out: &mut String) {
    for item in items {
        indent(depth, out);
        out.push_str("- ");
        match &item.value {
            Value::Map(entries) if !entries.is_empty() => map(entries, depth + 1, out),
            _ => {
                inline(item, out);
                out.push('\n');
            }
        }
    }
}

/// A value on one line; lists in lists and empty collections in brackets.
fn inline(node: &Node, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => push(out, number),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::String(text) => out.push_str(&word(text)),
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                in_brackets(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                quoted(key.word().map_or("", |word| word), out);
                out.push_str(": ");
                in_brackets(value, out);
            }
            out.push('}');
        }
    }
}

fn in_brackets(node: &Node, out: &mut String) {
    match node.word() {
        Some(text) => quoted(text, out),
        None => inline(node, out),
    }
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to a String cannot fail");
}

fn float(number: f64) -> String {
    if number.is_nan() {
        ".nan".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { ".inf" } else { "-.inf" }.to_owned()
    } else {
        format!("{number:?}")
    }
}

/// A text as a plain scalar of a block where that means the same text, otherwise in double quotes.
fn word(text: &str) -> String {
    let special_start = text.starts_with(|letter: char| "-?:,[]{}#&*!|>'\"%@`= \t".contains(letter));
    let typed = !matches!(scalar::plain(text), Value::String(_));
    let special =
        text.chars().any(|letter| letter.is_control() || matches!(letter, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}'));
    let older = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "<<" | "---" | "..." | "true" | "false" | "null"
    );
    let cut = text.contains(": ") || text.contains(" #") || text.ends_with([':', ' ', '\t']);
    if special_start || typed || special || older || cut || looks_like_a_date(text) {
        let mut out = String::with_capacity(text.len() + 2);
        quoted(text, &mut out);
        out
    } else {
        text.to_owned()
    }
}

/// Other readers take `2001-01-01` for a time.
fn looks_like_a_date(text: &str) -> bool {
    text.len() >= 8 && text.bytes().take(4).all(|byte| byte.is_ascii_digit()) && text.as_bytes().get(4) == Some(&b'-')
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter.is_control() || matches!(letter, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                push(out, format_args!("\\u{:04x}", u32::from(letter)));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

// === JSON ===

fn json(node: &Node, depth: usize, out: &mut String) {
    match &node.value {
        Value::Float(number) if !number.is_finite() => quoted(&float(*number), out),
        Value::String(text) => quoted(text, out),
        Value::List(items) if !items.is_empty() => {
            out.push_str("[\n");
            for (at, item) in items.iter().enumerate() {
                indent(depth + 1, out);
                json(item, depth + 1, out);
                out.push_str(if at + 1 < items.len() { ",\n" } else { "\n" });
            }
            indent(depth, out);
            out.push(']');
        }
        Value::Map(entries) if !entries.is_empty() => {
            out.push_str("{\n");
            for (at, (key, value)) in entries.iter().enumerate() {
                indent(depth + 1, out);
                quoted(key.word().map_or("", |word| word), out);
                out.push_str(": ");
                json(value, depth + 1, out);
                out.push_str(if at + 1 < entries.len() { ",\n" } else { "\n" });
            }
            indent(depth, out);
            out.push('}');
        }
        _ => inline(node, out),
    }
}

#[cfg(test)]
mod tests;
