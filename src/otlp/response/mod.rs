//! What a server answers to an export: `Export*ServiceResponse` and `google.rpc.Status`, as protobuf.
//!
//! In:   counts, messages and hints; or the bytes of a peer's answer.
//! Out:  the bytes of an answer; or what a peer meant, every part of it within bounds.
//!
//! Spec: OTLP "Partial Success", "OTLP/gRPC Throttling", "OTLP/HTTP Response"; `google.rpc.RetryInfo`, `google.rpc.BadRequest`.
//! The JSON form of the same is in [`crate::otlp::json`].

use std::time::Duration;

use super::{
    fields::{Fields, Value},
    wire::{put_bytes, put_message, put_uint},
};
use crate::signal::Signal;

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a well-formed message")]
pub struct Malformed;

#[cfg(test)]
mod tests;

/// Messages are cut to this many bytes, on the way out and on the way in.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// Details of a status looked at and violations written; more are ignored.
pub const DETAILS_MAX: usize = 16;

/// A longer wait than this is not asked of a peer and not taken from one.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

pub(super) const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
pub(super) const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// The part of a request that a server did not take. `rejected` of 0 with a message is a warning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partial {
    pub rejected: u64,
    pub message: String,
}

/// What goes into the details of a status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Details<'a> {
    /// `RetryInfo`: try again, not before this.
    pub retry_after: Option<Duration>,
    /// `BadRequest`: pairs of field path (may be empty) and what is wrong with it.
    pub violations: &'a [(&'a str, &'a str)],
}

impl Details<'_> {
    pub const fn retry_after(after: Duration) -> Self {
        Self { retry_after: Some(after), violations: &[] }
    }
}

/// What a peer's status says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// A gRPC code; 0 when the peer left it out.
    pub code: i32,
    pub message: String,
    /// From `RetryInfo`; at most [`RETRY_AFTER_MAX`], negative delays as zero.
    pub retry_after: Option<Duration>,
}

/// The body of an `Export{Trace,Metrics,Logs}ServiceResponse`. Empty, which is valid, when all was taken.
///
/// The three messages have the same numbers; only their JSON names differ, so `signal` is not looked at.
pub fn encode_success(_signal: Signal, partial: Option<(u64, &str)>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some((rejected, message)) = partial {
        put_message(&mut out, 1, |out| {
            // The field is an int64.
            put_uint(out, 1, rejected.min(i64::MAX as u64));
            put_bytes(out, 2, cut(message, MESSAGE_BYTES_MAX).as_bytes());
        });
    }
    out
}

/// What a server said of a request it took. `None`: all of it, and nothing to remark.
///
/// A `partial_success` with neither a count nor a message is the same as none. A negative count is taken as 0.
pub fn decode_success(_signal: Signal, body: &[u8]) -> Result<Option<Partial>, Malformed> {
    let mut partial = Partial::default();
    each_field(body, |number, value| {
        if let (1, Value::Bytes(inner)) = (number, value) {
            each_field(inner, |number, value| {
                match (number, value) {
                    (1, Value::Varint(count)) => partial.rejected = u64::try_from(count as i64).unwrap_or(0),
                    (2, Value::Bytes(text)) => partial.message = text_of(text),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok((partial != Partial::default()).then_some(partial))
}

/// Every field of a message that is well-formed to its end.
fn each_field(message: &[u8], mut take: impl FnMut(u32, Value<'_>) -> Result<(), Malformed>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    for field in fields.by_ref() {
        take(field.number, field.value)?;
    }
    if fields.offset() == message.len() { Ok(()) } else { Err(Malformed) }
}

/// A `google.rpc.Status`: the body of an HTTP error, and what `grpc-status-details-bin` holds.
pub fn encode_status(code: i32, message: &str, details: &Details<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_uint(&mut out, 1, i64::from(code) as u64);
    put_bytes(&mut out, 2, cut(message, MESSAGE_BYTES_MAX).as_bytes());
    if let Some(after) = details.retry_after {
        put_detail(&mut out, RETRY_INFO, |out| {
            let after = after.min(RETRY_AFTER_MAX);
            put_message(out, 1, |out| {
                put_uint(out, 1, after.as_secs());
                put_uint(out, 2, u64::from(after.subsec_nanos()));
            });
        });
    }
    if !details.violations.is_empty() {
        put_detail(&mut out, BAD_REQUEST, |out| {
            for (field, description) in details.violations.iter().take(DETAILS_MAX) {
                put_message(out, 1, |out| {
                    put_bytes(out, 1, cut(field, MESSAGE_BYTES_MAX).as_bytes());
                    put_bytes(out, 2, cut(description, MESSAGE_BYTES_MAX).as_bytes());
                });
            }
        });
    }
    out
}

fn put_detail(out: &mut Vec<u8>, type_url: &str, value: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, 3, |out| {
        put_bytes(out, 1, type_url.as_bytes());
        put_message(out, 2, value);
    });
}

/// Reads a peer's status as far as it can be read: what is malformed is left at its default, for an answer that cannot be parsed is still an answer.
pub fn decode_status(body: &[u8]) -> Status {
    let mut status = Status::default();
    let mut details = 0;
    for field in Fields::new(body) {
        match (field.number, field.value) {
            (1, Value::Varint(code)) => status.code = code as i32,
            (2, Value::Bytes(text)) => status.message = text_of(text),
            (3, Value::Bytes(any)) if details < DETAILS_MAX => {
                details += 1;
                if let Some(after) = retry_info(any) {
                    status.retry_after = Some(after);
                }
            }
            _ => {}
        }
    }
    status
}

/// The delay in an `Any` that is a `RetryInfo`.
fn retry_info(any: &[u8]) -> Option<Duration> {
    let (mut is_retry_info, mut inner) = (false, &[][..]);
    for field in Fields::new(any) {
        match (field.number, field.value) {
            (1, Value::Bytes(url)) => is_retry_info = url.rsplit(|byte| *byte == b'/').next() == Some(b"google.rpc.RetryInfo"),
            (2, Value::Bytes(value)) => inner = value,
            _ => {}
        }
    }
    if !is_retry_info {
        return None;
    }
    let mut after = None;
    for field in Fields::new(inner) {
        if let (1, Value::Bytes(delay)) = (field.number, field.value) {
            let (mut seconds, mut nanos) = (0, 0);
            for field in Fields::new(delay) {
                match (field.number, field.value) {
                    (1, Value::Varint(value)) => seconds = value as i64,
                    (2, Value::Varint(value)) => nanos = value as i32,
                    _ => {}
                }
            }
            after = Some(bounded_delay(seconds, nanos));
        }
    }
    after
}

/// A `google.protobuf.Duration` as a wait: negative ones are none at all, long ones are cut.
pub(super) fn bounded_delay(seconds: i64, nanos: i32) -> Duration {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
    Duration::new(seconds.min(RETRY_AFTER_MAX.as_secs()), nanos).min(RETRY_AFTER_MAX)
}

/// A peer's text: not longer than [`MESSAGE_BYTES_MAX`], what is not UTF-8 replaced.
fn text_of(bytes: &[u8]) -> String {
    let head = bytes.get(..MESSAGE_BYTES_MAX).unwrap_or(bytes);
    cut(&String::from_utf8_lossy(head), MESSAGE_BYTES_MAX).to_owned()
}

/// The longest start of `text` of at most `bytes_max` bytes that ends between characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}
