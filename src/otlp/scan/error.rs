//! What the scan can find wrong, and where: worked out only when something is.

use std::fmt::{self, Write as _};

use crate::{
    otlp::{
        fields::varint,
        schema::{Kind, Label, Message, request},
    },
    signal::Signal,
};

/// The request cannot be parsed: answer INVALID_ARGUMENT or 400, the sender must not retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}, at byte {offset}")]
pub struct ScanError {
    /// Where in the payload, in bytes from its start.
    pub offset: usize,
    pub what: Malformed,
    /// The message, and the field of it, that `offset` lies in: `resource_spans[0].scope_spans[2].spans[17], field 5 (name)`.
    pub place: String,
}

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a value runs past the end of its message")]
    Truncated,
    #[error("a varint of more than 64 bits or past the end of the data")]
    Varint,
    #[error("a field key that protobuf does not allow")]
    Key,
    #[error("a wire type that this field does not have")]
    WireType,
    #[error("a group, which OTLP does not use")]
    Group,
    #[error("attribute values nested deeper than {limit}")]
    TooDeep { limit: u32 },
    #[error("more than {limit} elements for a body of this size")]
    TooManyElements { limit: u64 },
    #[error("a body of more than 4 GiB")]
    TooLarge,
}

/// Why one item is left out while the rest of the request is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItem {
    #[error("trace_id has {len} bytes, not 16")]
    TraceIdLength { len: usize },
    #[error("span_id has {len} bytes, not 8")]
    SpanIdLength { len: usize },
    #[error("a span without trace_id")]
    NoTraceId,
    #[error("a span without span_id")]
    NoSpanId,
}

/// What stopped the scan; small, because it is the error of the innermost loops.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) what: Malformed,
}

impl Fault {
    #[cold]
    pub(super) fn new(offset: usize, what: Malformed) -> Self {
        Self { offset, what }
    }

    #[cold]
    pub(super) fn describe(self, signal: Signal, payload: &[u8]) -> ScanError {
        ScanError { offset: self.offset, what: self.what, place: locate(signal, payload, self.offset) }
    }
}

/// The path to the item that begins at `offset`.
pub(super) fn locate_item(signal: Signal, payload: &[u8], offset: usize) -> String {
    path(signal, payload, offset, true)
}

/// The path to the field that `offset` lies in, as far as the bytes can be followed.
pub(super) fn locate(signal: Signal, payload: &[u8], offset: usize) -> String {
    path(signal, payload, offset, false)
}

fn path(signal: Signal, payload: &[u8], offset: usize, ends_at_item: bool) -> String {
    let mut message = request(signal);
    let mut place = String::from(message.name);
    let (mut at, mut end) = (0, payload.len());
    loop {
        match step(message, payload, at, end, offset) {
            Step::Into { name, index, inner, start, stop } => {
                // The request's own name says nothing once there is a path below it.
                if std::ptr::eq(message, request(signal)) {
                    place.clear();
                } else {
                    place.push('.');
                }
                place.push_str(name);
                if let Some(index) = index {
                    append(&mut place, format_args!("[{index}]"));
                }
                if ends_at_item && inner.item {
                    return place;
                }
                (message, at, end) = (inner, start, stop);
            }
            Step::Field { number } => {
                let name = message.field(number).name;
                append(&mut place, format_args!(", field {number}"));
                if !name.is_empty() {
                    append(&mut place, format_args!(" ({name})"));
                }
                return place;
            }
            Step::Here => return place,
        }
    }
}

fn append(place: &mut String, text: fmt::Arguments<'_>) {
    place.write_fmt(text).expect("a String takes any text");
}

enum Step {
    Into { name: &'static str, index: Option<usize>, inner: &'static Message, start: usize, stop: usize },
    Field { number: u32 },
    Here,
}

/// Which field of the message at `at..end` holds `offset`.
fn step(message: &Message, payload: &[u8], mut at: usize, end: usize, offset: usize) -> Step {
    let Some(bytes) = payload.get(..end) else { return Step::Here };
    let mut seen = [0_usize; 32];
    while at < end {
        let Some((key, value)) = varint(bytes, at) else { return Step::Here };
        let Some(number) = u32::try_from(key).ok().map(|key| key >> 3).filter(|number| *number > 0) else { return Step::Here };
        let field = message.field(number);
        let index = seen.get_mut(number as usize).map_or(0, |count| {
            *count += 1;
            *count - 1
        });
        let (start, stop) = match key & 7 {
            0 => match varint(bytes, value) {
                Some((_, next)) => (value, next),
                None => return Step::Field { number },
            },
            1 => (value, value + 8),
            2 => match varint(bytes, value) {
                Some((len, start)) => (start, usize::try_from(len).map_or(usize::MAX, |len| start.saturating_add(len))),
                None => return Step::Field { number },
            },
            5 => (value, value + 4),
            _ => return Step::Field { number },
        };
        if stop > end || offset < start {
            return Step::Field { number };
        }
        // An empty message holds the offset it stands at.
        if offset < stop || offset == start {
            return match field.kind {
                Kind::Message(inner) if key & 7 == 2 => {
                    let index = (field.label == Label::Repeated).then_some(index);
                    Step::Into { name: field.name, index, inner, start, stop }
                }
                _ => Step::Field { number },
            };
        }
        at = stop;
    }
    Step::Here
}
