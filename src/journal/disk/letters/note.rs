//! What stands beside a letter's data, as bytes. Later versions may write more behind; what is not known is passed over.

use std::sync::Arc;

use super::super::format::{Reading, put_text};
use crate::{
    journal::{Note, Origin, Refusal},
    signal::{Signal, UnixNanos},
};

const PROCESSED: u8 = 1;

pub(in super::super) fn encode(signal: Signal, note: &Note) -> Vec<u8> {
    let mut out = vec![signal.ordinal() as u8, if note.is_processed { PROCESSED } else { 0 }];
    out.extend_from_slice(&note.attempts.to_le_bytes());
    out.extend_from_slice(&note.refused.0.to_le_bytes());
    out.extend_from_slice(&note.origin.offset.to_le_bytes());
    out.extend_from_slice(&note.origin.shard.to_le_bytes());
    for text in [&*note.origin.topic, &*note.consumer, note.reason.as_str(), note.message.as_str()] {
        put_text(text, &mut out);
    }
    out
}

pub(in super::super) fn decode(bytes: &[u8]) -> Option<(Signal, Note)> {
    let mut reading = Reading(bytes);
    let signal = *Signal::ALL.get(usize::from(reading.u8()?))?;
    let is_processed = reading.u8()? & PROCESSED != 0;
    let (attempts, refused, offset, shard) = (reading.u32()?, reading.u64()?, reading.u64()?, reading.u16()?);
    let origin = Origin { topic: reading.text()?.into(), shard, offset };
    let consumer: Arc<str> = reading.text()?.into();
    // A reason of a later version: what is certain is that it was refused.
    let reason = Refusal::parse(reading.text()?).unwrap_or(Refusal::Refused);
    let message = reading.text()?.to_owned();
    Some((signal, Note { consumer, origin, refused: UnixNanos(refused), reason, message, attempts, is_processed }))
}
