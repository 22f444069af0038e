//! Protobuf bytes → JSON, straight into the output.
//!
//! A message's fields may stand in any order, so each message is walked once to find out where its fields lie, and its lists once more
//! to write them; nothing is collected but one slot a field, on the stack.

use super::{
    scalar::{base64, decimal, double, hex, string},
    schema::{self, FIELDS_MAX, Field, Kind, Label, Message},
};
use crate::{
    otlp::{
        fields::{Fields, Value, varint},
        response::Malformed,
    },
    signal::Signal,
};

/// Messages inside messages: 8 down to an attribute, three for each of the 32 values that the scan lets nest, and some room.
const DEPTH_MAX: usize = 128;

/// Appends a request in JSON as the protocol prescribes: ids in lower-case hex, 64-bit integers as strings, enums as numbers, keys in
/// lowerCamelCase, bytes in padded base64, default values left out.
///
/// `payload` is what the scan accepted; for anything else this may fail, and `out` then ends in an unfinished object.
/// Strings that are not UTF-8 are written with U+FFFD; fields of a wrong wire type are taken as unknown and left out.
pub fn encode(signal: Signal, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.reserve(payload.len().saturating_mul(2));
    object(schema::request(signal), payload, 0, out)
}

/// What the first walk found of a field.
#[derive(Clone, Copy)]
struct Slot<'a> {
    count: usize,
    /// Offset of the first field with the number, and the end of the last one.
    first: usize,
    end: usize,
    last: Value<'a>,
}

const EMPTY: Slot<'static> = Slot { count: 0, first: 0, end: 0, last: Value::Varint(0) };

fn object(message: &Message, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed);
    }
    let mut slots = [EMPTY; FIELDS_MAX];
    let mut member = None;
    let mut fields = Fields::new(bytes);
    loop {
        let first = fields.offset();
        let Some(found) = fields.next() else { break };
        let Some(place) = message.place(found.number) else { continue };
        let (Some(field), Some(slot)) = (message.fields.get(place), slots.get_mut(place)) else { continue };
        if !fits(field, found.value) {
            continue;
        }
        if slot.count == 0 || (field.label == Label::Oneof && member != Some(place)) {
            *slot = Slot { count: 0, first, ..EMPTY };
        }
        slot.count += 1;
        slot.end = fields.offset();
        slot.last = found.value;
        if field.label == Label::Oneof {
            member = Some(place);
        }
    }
    if fields.offset() != bytes.len() {
        return Err(Malformed);
    }
    out.push(b'{');
    let mut rest = false;
    for (place, (field, slot)) in message.fields.iter().zip(&slots).enumerate() {
        if slot.count == 0 || (field.label == Label::Oneof && member != Some(place)) {
            continue;
        }
        let before = out.len();
        if rest {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(field.json.as_bytes());
        out.extend_from_slice(b"\":");
        let written = match (field.label, field.kind) {
            (Label::Repeated, _) => list(field, bytes, slot, depth, out)?,
            (_, Kind::Message(inner)) => {
                nested(field.number, inner, bytes, slot, depth, out)?;
                true
            }
            _ => scalar(field.kind, slot.last, field.label == Label::Implicit, out),
        };
        if written {
            rest = true;
        } else {
            out.truncate(before);
        }
    }
    out.push(b'}');
    Ok(())
}

/// Whether a field may hold a value of this wire type.
fn fits(field: &Field, value: Value<'_>) -> bool {
    match value {
        // A list of numbers may be packed or not.
        Value::Bytes(_) => !field.kind.packs() || field.label == Label::Repeated,
        Value::Varint(_) => wire_type(field.kind) == 0,
        Value::Fixed64(_) => wire_type(field.kind) == 1,
        Value::Fixed32(_) => wire_type(field.kind) == 5,
    }
}

const fn wire_type(kind: Kind) -> u8 {
    match kind {
        Kind::String | Kind::Bytes | Kind::Id | Kind::Message(_) => 2,
        Kind::Bool | Kind::Int32 | Kind::Uint32 | Kind::Int64 | Kind::Uint64 | Kind::Sint32 | Kind::Enum(_) => 0,
        Kind::Fixed32 => 5,
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => 1,
    }
}

/// The fields of this number that a slot covers.
fn occurrences<'a>(number: u32, bytes: &'a [u8], slot: &Slot<'_>) -> impl Iterator<Item = Value<'a>> {
    Fields::new(bytes.get(slot.first..slot.end).unwrap_or_default())
        .filter(move |field| field.number == number)
        .map(|field| field.value)
}

/// A message that stands once, or in several parts that protobuf reads as one.
fn nested(
    number: u32,
    message: &Message,
    bytes: &[u8],
    slot: &Slot<'_>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    if slot.count == 1 {
        let Value::Bytes(inner) = slot.last else { return Err(Malformed) };
        return object(message, inner, depth + 1, out);
    }
    let mut whole = Vec::new();
    for value in occurrences(number, bytes, slot) {
        if let Value::Bytes(part) = value {
            whole.extend_from_slice(part);
        }
    }
    object(message, &whole, depth + 1, out)
}

/// Whether anything was in the list.
fn list(field: &Field, bytes: &[u8], slot: &Slot<'_>, depth: usize, out: &mut Vec<u8>) -> Result<bool, Malformed> {
    out.push(b'[');
    let start = out.len();
    for value in occurrences(field.number, bytes, slot) {
        match (field.kind, value) {
            (Kind::Message(inner), Value::Bytes(bytes)) => {
                comma(start, out);
                object(inner, bytes, depth + 1, out)?;
            }
            (kind, Value::Bytes(mut packed)) if kind.packs() => {
                while !packed.is_empty() {
                    let (value, rest) = unpack(kind, packed).ok_or(Malformed)?;
                    comma(start, out);
                    scalar(kind, value, false, out);
                    packed = rest;
                }
            }
            (kind, value) if fits(field, value) => {
                comma(start, out);
                scalar(kind, value, false, out);
            }
            _ => {}
        }
    }
    out.push(b']');
    Ok(out.len() > start + 1)
}

fn comma(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
}

fn unpack(kind: Kind, packed: &[u8]) -> Option<(Value<'_>, &[u8])> {
    match wire_type(kind) {
        0 => varint(packed, 0).and_then(|(value, next)| Some((Value::Varint(value), packed.get(next..)?))),
        1 => packed.split_first_chunk::<8>().map(|(value, rest)| (Value::Fixed64(u64::from_le_bytes(*value)), rest)),
        5 => packed.split_first_chunk::<4>().map(|(value, rest)| (Value::Fixed32(u32::from_le_bytes(*value)), rest)),
        _ => None,
    }
}

/// Whether it was written: not, if it is the default and may be left out.
fn scalar(kind: Kind, value: Value<'_>, leave_out: bool, out: &mut Vec<u8>) -> bool {
    match value {
        Value::Bytes(bytes) => {
            if leave_out && bytes.is_empty() {
                return false;
            }
            match kind {
                Kind::Id => hex(bytes, out),
                Kind::Bytes => base64(bytes, out),
                _ => string(bytes, out),
            }
            true
        }
        Value::Varint(value) | Value::Fixed64(value) => number(kind, value, leave_out, out),
        Value::Fixed32(value) => number(kind, u64::from(value), leave_out, out),
    }
}

fn number(kind: Kind, bits: u64, leave_out: bool, out: &mut Vec<u8>) -> bool {
    // What a field of 32 bits means of a longer varint is its low half.
    let (zero, digits) = match kind {
        Kind::Bool => {
            if leave_out && bits == 0 {
                return false;
            }
            out.extend_from_slice(if bits == 0 { b"false" } else { b"true" });
            return true;
        }
        Kind::Double => (bits == 0, false),
        Kind::Int64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => (bits == 0, true),
        _ => (bits as u32 == 0, false),
    };
    if leave_out && zero {
        return false;
    }
    if digits {
        out.push(b'"');
    }
    match kind {
        Kind::Double => double(f64::from_bits(bits), out),
        Kind::Int64 | Kind::Sfixed64 => decimal(bits as i64, out),
        Kind::Int32 | Kind::Enum(_) => decimal(bits as i32, out),
        Kind::Sint32 => decimal((bits as u32 >> 1) as i32 ^ -((bits as u32 & 1) as i32), out),
        Kind::Uint32 | Kind::Fixed32 => decimal(bits as u32, out),
        _ => decimal(bits, out),
    }
    if digits {
        out.push(b'"');
    }
    true
}
