//! Zipkin's protobuf: `zipkin.proto3.ListOfSpans`.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::span::{Endpoint, Kind, PARTS_MAX, Span};
use crate::otlp::fields::{Fields, Value};

/// Hands on each span of a body; an error of `take` ends it.
pub(super) fn spans<'a>(body: &'a [u8], mut take: impl FnMut(&Span<'a>) -> Result<(), String>) -> Result<(), String> {
    let mut number = 0_u64;
    each(body, |field, value| {
        if let (1, Value::Bytes(message)) = (field, value) {
            number += 1;
            take(&span(message).map_err(|problem| format!("span {number}: {problem}"))?)?;
        }
        Ok(())
    })
}

/// All fields of a message; an error where its bytes are none.
fn each<'a>(message: &'a [u8], mut take: impl FnMut(u32, Value<'a>) -> Result<(), String>) -> Result<(), String> {
    let mut fields = Fields::new(message);
    for field in fields.by_ref() {
        take(field.number, field.value)?;
    }
    if fields.offset() == message.len() { Ok(()) } else { Err("these bytes are no protobuf".to_owned()) }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn exactly<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok().filter(|id: &[u8; N]| *id != [0; N])
}

fn span(message: &[u8]) -> Result<Span<'_>, String> {
    let mut span = Span::default();
    let (mut trace_id, mut id) = (None, None);
    each(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(bytes)) => {
                // 64 bits are the lower half.
                trace_id = exactly::<16>(bytes).or_else(|| {
                    let low = exactly::<8>(bytes)?;
                    let mut whole = [0; 16];
                    whole.iter_mut().skip(8).zip(low).for_each(|(place, byte)| *place = byte);
                    Some(whole)
                });
            }
            (2, Value::Bytes(bytes)) => span.parent = exactly(bytes),
            (3, Value::Bytes(bytes)) => id = exactly(bytes),
            (4, Value::Varint(kind)) => {
                span.kind = match kind {
                    1 => Kind::Client,
                    2 => Kind::Server,
                    3 => Kind::Producer,
                    4 => Kind::Consumer,
                    _ => Kind::Unspecified,
                }
            }
            (5, Value::Bytes(name)) => span.name = text(name),
            (6, Value::Fixed64(start)) => span.start = start,
            (7, Value::Varint(duration)) => span.duration = duration,
            (8, Value::Bytes(bytes)) => span.local = endpoint(bytes)?,
            (9, Value::Bytes(bytes)) => span.remote = endpoint(bytes)?,
            (10 | 11, Value::Bytes(_)) if span.annotations.len() + span.tags.len() >= PARTS_MAX => {
                return Err(format!("it has more than {PARTS_MAX} tags and annotations"));
            }
            (10, Value::Bytes(bytes)) => {
                let mut annotation = (0, Cow::Borrowed(""));
                each(bytes, |field, value| {
                    match (field, value) {
                        (1, Value::Fixed64(time)) => annotation.0 = time,
                        (2, Value::Bytes(value)) => annotation.1 = text(value),
                        _ => {}
                    }
                    Ok(())
                })?;
                span.annotations.push(annotation);
            }
            (11, Value::Bytes(bytes)) => {
                let mut tag = (Cow::Borrowed(""), Cow::Borrowed(""));
                each(bytes, |field, value| {
                    match (field, value) {
                        (1, Value::Bytes(name)) => tag.0 = text(name),
                        (2, Value::Bytes(value)) => tag.1 = text(value),
                        _ => {}
                    }
                    Ok(())
                })?;
                span.tags.push(tag);
            }
            _ => {}
        }
        Ok(())
    })?;
    span.trace_id = trace_id.ok_or("`trace_id` is 8 or 16 bytes, and not all 0")?;
    span.id = id.ok_or("`id` is 8 bytes, and not all 0")?;
    Ok(span)
}

fn endpoint(message: &[u8]) -> Result<Endpoint<'_>, String> {
    let mut endpoint = Endpoint::default();
    each(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(service)) => endpoint.service = text(service),
            (2, Value::Bytes(bytes)) => {
                if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
                    endpoint.ipv4 = Cow::Owned(Ipv4Addr::from(octets).to_string());
                }
            }
            (3, Value::Bytes(bytes)) => {
                if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
                    endpoint.ipv6 = Cow::Owned(Ipv6Addr::from(octets).to_string());
                }
            }
            (4, Value::Varint(port)) => endpoint.port = u16::try_from(port).unwrap_or(0),
            _ => {}
        }
        Ok(())
    })?;
    Ok(endpoint)
}
