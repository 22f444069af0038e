//! What is wrong with a JSON body, and where.

use std::fmt::Write as _;

/// Characters of the sender's text that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// A JSON body that is not taken. The message is for the sender; what it repeats of the body is cut and escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    pub kind: JsonErrorKind,
    /// `resourceSpans[0].scopeSpans[0].spans[3].startTimeUnixNano`; empty for the body as a whole. Made of our own names and numbers.
    pub path: String,
    pub message: String,
    /// Counted from 1; the end of the offending value.
    pub line: usize,
    /// In bytes, counted from 1.
    pub column: usize,
}

/// Why a body is not taken: what the sender is answered depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// No JSON, or not what the protocol says.
    Malformed,
    /// Values nested deeper than allowed.
    TooDeep,
    /// More messages than the element budget has room for.
    TooManyElements,
    /// More bytes of protobuf than allowed.
    TooLarge,
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}, line {} column {}", self.message, self.line, self.column)
    }
}

impl std::error::Error for JsonError {}

/// The sender's text, fit for a message: at most [`SHOWN_CHARS_MAX`] characters, nothing that steers a terminal or splits a line.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(SHOWN_CHARS_MAX) {
        if matches!(c, '"' | '\'') {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// One step on the way to a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Field(&'static str),
    Index(usize),
}

pub(super) fn path_text(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            // Writing to a string cannot fail.
            Step::Index(index) => write!(out, "[{index}]").unwrap_or_default(),
        }
    }
    out
}
