//! Numbers, strings and bytes as JSON, appended to the output.

use base64::{Engine as _, prelude::BASE64_STANDARD};

pub fn decimal(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// As ProtoJSON has it: what is not finite becomes a string.
pub fn double(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    }
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";

fn digit(nibble: u8) -> u8 {
    DIGITS.get(usize::from(nibble & 0xf)).copied().unwrap_or(b'0')
}

/// Lower-case digits, in quotes.
pub fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    hex_digits(bytes, out);
    out.push(b'"');
}

/// The same without quotes.
pub fn hex_digits(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
}

/// Padded, in quotes.
pub fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.chunks(48) {
        let mut text = [0; 64];
        // 48 bytes become exactly 64 characters, fewer become fewer.
        let len = BASE64_STANDARD.encode_slice(chunk, &mut text).unwrap_or(0);
        out.extend(text.iter().take(len));
    }
    out.push(b'"');
}

/// In quotes; what is not UTF-8 is written with U+FFFD.
pub fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    match str::from_utf8(bytes) {
        Ok(text) => escape(text.as_bytes(), out),
        Err(_) => escape(String::from_utf8_lossy(bytes).as_bytes(), out),
    }
    out.push(b'"');
}

/// The inside of a string; stretches that need no escape are copied as they are.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, tail)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(*byte)]);
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}
