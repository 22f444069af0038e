//! The usual attribute, which is most of what a request holds, in a dozen loads.
//!
//! Usual is: fewer than 128 bytes; the key first, then the value; the value a string, an integer or a bool; nothing else. Then every length is one
//! byte, and the shape follows from four bytes and three lengths. Whatever is different is left to the table-driven reader, which also finds out what is wrong.

use std::str::from_utf8;

use crate::otlp::fields::chunk;

/// What is loaded at once: the length byte and as many bytes as it can say.
const WINDOW: usize = 128;

/// `0x80` for the first 128 bytes, then 0: from `128 - n` on, the mask of the first `n` bytes.
static FIRST: [u8; 2 * WINDOW] = {
    let mut mask = [0; 2 * WINDOW];
    let (mut left, _) = mask.split_at_mut(WINDOW);
    while let Some((first, rest)) = left.split_first_mut() {
        *first = 0x80;
        left = rest;
    }
    mask
};

/// The end of the `KeyValue` whose length byte stands at `at`, if it is usual and its strings are ASCII. `None` says nothing about it.
#[inline(always)]
pub(super) fn usual(payload: &[u8], at: usize) -> Option<usize> {
    let window: &[u8; WINDOW] = chunk(payload, at)?;
    // All indices are masked, so that none needs a check: where masking changed one, the lengths do not add up below.
    let byte = |index: usize| window.get(index & (WINDOW - 1)).copied().unwrap_or_default();
    let len = usize::from(byte(0));
    let key_len = usize::from(byte(2));
    let value_len = usize::from(byte(key_len + 4));
    let kind = byte(key_len + 5);
    let shape = byte(1) == 0x0a && byte(key_len + 3) == 0x12 && key_len + value_len + 4 == len && len < WINDOW;
    if !shape {
        return None;
    }
    let text = if kind == 0x0a && usize::from(byte(key_len + 6)) + 2 == value_len {
        len
    } else if (kind == 0x18 || kind == 0x10) && is_varint(chunk(payload, at + key_len + 6)?, value_len.wrapping_sub(1)) {
        key_len + 2
    } else {
        return None;
    };
    is_ascii_prefix(window, text).then_some(at + 1 + len)
}

/// Whether exactly `len` bytes are one varint; only up to 8 bytes.
#[inline(always)]
fn is_varint(bytes: &[u8; 8], len: usize) -> bool {
    let ends = !u64::from_le_bytes(*bytes) & 0x8080_8080_8080_8080;
    ends != 0 && (ends.trailing_zeros() as usize >> 3) + 1 == len
}

/// Whether the first `len` bytes behind the length byte are below 0x80.
#[inline(always)]
fn is_ascii_prefix(window: &[u8; WINDOW], len: usize) -> bool {
    // The mask is one byte further on than the window, whose first byte is the length (below 0x80 itself).
    let mask: &[u8; WINDOW] = match chunk(&FIRST, WINDOW - 1 - (len & (WINDOW - 1))) {
        Some(mask) => mask,
        None => return false,
    };
    let (near, far) = window.split_at(WINDOW / 2);
    let (near_mask, far_mask) = mask.split_at(WINDOW / 2);
    !any_high(near, near_mask) && (len < WINDOW / 2 || !any_high(far, far_mask))
}

/// Whether a byte under the mask has its highest bit set; without a branch, so that it becomes vector code.
#[inline(always)]
fn any_high(bytes: &[u8], mask: &[u8]) -> bool {
    bytes.iter().zip(mask).fold(0, |any, (byte, mask)| any | byte & mask) != 0
}

/// Whether `payload[start..end]` is ASCII; only for up to 32 bytes that are not the last of the payload, otherwise `false`.
#[inline(always)]
pub(super) fn is_short_ascii(payload: &[u8], start: usize, end: usize) -> bool {
    let len = end - start;
    if len > 32 {
        return false;
    }
    match (chunk::<32>(payload, start), chunk::<32>(&FIRST, WINDOW - len)) {
        (Some(window), Some(mask)) => !any_high(window, mask),
        _ => false,
    }
}

/// Whether `payload[start..end]` is UTF-8. Most strings are short and ASCII.
#[inline]
pub(in crate::otlp) fn is_utf8(payload: &[u8], start: usize, end: usize) -> bool {
    is_short_ascii(payload, start, end) || payload.get(start..end).is_some_and(|bytes| from_utf8(bytes).is_ok())
}
