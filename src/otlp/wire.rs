//! Protobuf's wire format: varints, tags, length-delimited fields.
//!
//! Spec: protobuf "Encoding". Wire types 0 (varint), 1 (fixed 64), 2 (length-delimited), 5 (fixed 32); groups (3, 4) are refused.

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The length of `value` as a varint, in bytes.
pub const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u8) {
    put_varint(out, u64::from(field) << 3 | u64::from(wire_type));
}

/// A varint field; left out when 0, as proto3 does.
pub fn put_uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_tag(out, field, 0);
        put_varint(out, value);
    }
}

/// A varint field written even when 0 (a member of a oneof).
pub fn put_uint_always(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, 0);
    put_varint(out, value);
}

pub fn put_fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_fixed64_always(out, field, value);
    }
}

pub fn put_fixed64_always(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A double written even when 0 (a member of a oneof, or an optional field).
pub fn put_double_always(out: &mut Vec<u8>, field: u32, value: f64) {
    put_fixed64_always(out, field, value.to_bits());
}

/// A string or bytes field; left out when empty.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        put_bytes_always(out, field, value);
    }
}

pub fn put_bytes_always(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_tag(out, field, 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A nested message: what `body` appends becomes the field's value. One byte is kept for the length; longer bodies are moved once.
pub fn put_message(out: &mut Vec<u8>, field: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = open_message(out, field);
    body(out);
    close_message(out, start);
}

/// Begins a length-delimited field; what is appended until [`close_message`] becomes its value. Pairs may nest.
pub fn open_message(out: &mut Vec<u8>, field: u32) -> usize {
    put_tag(out, field, 2);
    out.push(0);
    out.len()
}

/// Ends the field that [`open_message`] began and gave `start` for.
pub fn close_message(out: &mut Vec<u8>, start: usize) {
    patch_len(out, start.saturating_sub(1), 1);
}

/// Writes the length of all that follows `at + width` into the `width` bytes at `at`; where it needs more bytes or fewer, what follows is moved.
pub(crate) fn patch_len(out: &mut Vec<u8>, at: usize, width: usize) {
    let end = out.len();
    let len = end.saturating_sub(at + width);
    let needs = varint_len(len as u64);
    if needs != width {
        out.resize(end.max(at + needs + len), 0);
        out.copy_within(at + width..at + width + len, at + needs);
        out.truncate(at + needs + len);
    }
    let mut rest = len;
    for (place, byte) in out.iter_mut().skip(at).take(needs).enumerate() {
        *byte = rest as u8 & 0x7f | if place + 1 < needs { 0x80 } else { 0 };
        rest >>= 7;
    }
}
