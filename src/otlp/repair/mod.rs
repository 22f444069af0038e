//! Making a well-formed request regular: the slow path behind the [scan](mod@super::scan), for the rare request that needs it.
//!
//! In:   a request that the scan took but found irregular.
//! Out:  a request without the invalid items and without the envelopes that they leave empty; strings that were not UTF-8 with U+FFFD in them;
//!       sub-messages that came twice merged. Everything else, unknown fields too, as it was and in the same order.
//! Full: needs room for one copy of the request (each bad byte of a string may become three).
//! Lost: the invalid items; [`Repaired::left_out`] counts them.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    rewrite::{Part, Parts},
    scan::is_utf8,
    schema::{Field, Kind, Label, Message, SPAN, request},
    view::{ResourceItemsView, SpanView},
    wire::{patch_len, put_bytes_always, put_tag, varint_len},
};
use crate::signal::Signal;

/// A repaired request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    pub payload: Bytes,
    /// Items in `payload`.
    pub items: u64,
    /// Items that are no longer in it.
    pub left_out: u64,
    /// How many strings were repaired, by `service.name` (empty if a resource has none): the first [`SERVICES_MAX`] names, then all others under `_other`.
    pub strings: Vec<(String, u64)>,
}

/// Services that [`Repaired::strings`] names.
pub const SERVICES_MAX: usize = 16;

/// Repairs a request that [`scan`](super::scan()) took. Of bytes that it would refuse, the part up to the first malformed field is kept.
pub fn repair(signal: Signal, payload: &[u8]) -> Repaired {
    let mut repair = Repair { fault: false, repaired: 0, strings: Vec::new() };
    let mut out = Vec::with_capacity(payload.len());
    let left = repair.message(request(signal), &[payload], &mut out);
    Repaired { payload: out.into(), items: left.kept, left_out: left.dropped, strings: repair.strings }
}

struct Repair {
    /// Whether the item that is being written is invalid.
    fault: bool,
    /// Strings repaired so far.
    repaired: u64,
    strings: Vec<(String, u64)>,
}

/// How many items a message has kept and lost.
#[derive(Clone, Copy, Default)]
struct Left {
    kept: u64,
    dropped: u64,
}

/// The pieces of one message; more than one when it came more than once, which is the same as if they were joined.
type Slices<'a> = SmallVec<[&'a [u8]; 2]>;

impl Repair {
    /// Writes the body of a message.
    fn message(&mut self, message: &'static Message, slices: &[&[u8]], out: &mut Vec<u8>) -> Left {
        let mut left = Left::default();
        let shape = Shape::of(message, slices);
        let mut written = 0_u32;
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        for (slice, part) in parts(slices) {
            let field = message.field(part.number);
            let value = part.value(slice);
            match (field.kind, field.label) {
                (Kind::Message(inner), Label::Repeated) => left.add(self.nested(field, inner, part.number, &[value], out)),
                (Kind::Message(inner), Label::Singular) => {
                    // All of it where the first piece stands.
                    let bit = 1 << part.number;
                    if written & bit == 0 {
                        written |= bit;
                        let all: Slices<'_> = parts(slices)
                            .filter(|(_, other)| shape.repeats & bit != 0 && other.number == part.number)
                            .map(|(slice, other)| other.value(slice))
                            .collect();
                        let all = if all.is_empty() { &[value][..] } else { &all };
                        left.add(self.nested(field, inner, part.number, all, out));
                    }
                }
                (kind, Label::Oneof) => {
                    // Only the member that counts, where its last piece stands.
                    if shape.is_last(slice, &part) {
                        match kind {
                            Kind::Message(inner) => {
                                let all: Slices<'_> = shape.members(message, slices);
                                left.add(self.nested(field, inner, part.number, &all, out));
                            }
                            Kind::String => self.string(part.number, slice, &part, out),
                            _ => copy(slice, &part, out),
                        }
                    }
                }
                (Kind::String, _) => self.string(part.number, slice, &part, out),
                (Kind::TraceId, _) => {
                    self.fault |= !matches!(value.len(), 0 | 16);
                    trace_id = if part.number == 1 { value } else { trace_id };
                    copy(slice, &part, out);
                }
                (Kind::SpanId, _) => {
                    self.fault |= !matches!(value.len(), 0 | 8);
                    span_id = if part.number == 2 { value } else { span_id };
                    copy(slice, &part, out);
                }
                _ => copy(slice, &part, out),
            }
        }
        if std::ptr::eq(message, &raw const SPAN) {
            self.fault |= trace_id.iter().all(|byte| *byte == 0) || span_id.iter().all(|byte| *byte == 0);
        }
        left
    }

    /// Writes a sub-message as a field, unless it is an invalid item or has lost all its items.
    fn nested(&mut self, field: &Field, inner: &'static Message, number: u32, slices: &[&[u8]], out: &mut Vec<u8>) -> Left {
        if inner.item {
            self.fault = false;
        }
        let before = self.repaired;
        let start = out.len();
        put_tag(out, number, 2);
        let at = out.len();
        let width = varint_len(slices.iter().map(|slice| slice.len()).sum::<usize>() as u64);
        out.resize(at + width, 0);
        let mut left = self.message(inner, slices, out);
        patch_len(out, at, width);
        if inner.item {
            left = if self.fault { Left { kept: 0, dropped: 1 } } else { Left { kept: 1, dropped: 0 } };
        }
        if self.repaired > before && field.name.starts_with("resource_") {
            let written = Parts::new(out, start, out.len()).next();
            self.count(written.map_or(&[], |part| part.value(out)), self.repaired - before);
        }
        if left.kept == 0 && left.dropped > 0 {
            out.truncate(start);
        }
        left
    }

    fn string(&mut self, number: u32, slice: &[u8], part: &Part, out: &mut Vec<u8>) {
        if is_utf8(slice, part.body, part.end) {
            copy(slice, part, out);
        } else {
            self.repaired += 1;
            put_bytes_always(out, number, String::from_utf8_lossy(part.value(slice)).as_bytes());
        }
    }

    /// `of_resource` is a repaired `ResourceSpans` or its like.
    fn count(&mut self, of_resource: &[u8], strings: u64) {
        let resource = ResourceItemsView::<SpanView<'_>>::new(of_resource).resource();
        let name = resource.service_name().unwrap_or_default();
        let known = self.strings.len() < SERVICES_MAX || self.strings.iter().any(|(service, _)| service == name);
        let name = if known { name } else { "_other" };
        match self.strings.iter_mut().find(|(service, _)| service == name) {
            Some((_, count)) => *count += strings,
            None => self.strings.push((name.to_owned(), strings)),
        }
    }
}

impl Left {
    fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.dropped += other.dropped;
    }
}

fn parts<'a>(slices: &[&'a [u8]]) -> impl Iterator<Item = (&'a [u8], Part)> {
    slices.iter().flat_map(|slice| Parts::new(slice, 0, slice.len()).map(move |part| (*slice, part)))
}

/// The field as it is. A key or length that was written longer than needed stays so.
fn copy(slice: &[u8], part: &Part, out: &mut Vec<u8>) {
    out.extend_from_slice(slice.get(part.key..part.end).unwrap_or_default());
}

/// Which fields of a message come more often than they should.
struct Shape<'a> {
    /// A bit for each sub-message that comes again, by number.
    repeats: u32,
    /// The last member of the oneof, and its slice.
    last: Option<(&'a [u8], Part)>,
}

impl<'a> Shape<'a> {
    fn of(message: &'static Message, slices: &[&'a [u8]]) -> Self {
        let mut shape = Self { repeats: 0, last: None };
        let mut seen = 0;
        for (slice, part) in parts(slices) {
            let field = message.field(part.number);
            match (field.label, field.kind) {
                (Label::Singular, Kind::Message(_)) => {
                    shape.repeats |= seen & 1 << part.number;
                    seen |= 1 << part.number;
                }
                (Label::Oneof, _) => shape.last = Some((slice, part)),
                _ => {}
            }
        }
        shape
    }

    fn is_last(&self, slice: &[u8], part: &Part) -> bool {
        self.last.is_some_and(|(last_slice, last)| std::ptr::eq(last_slice, slice) && last == *part)
    }

    /// The pieces of the member that counts: all of its number since the last other member.
    fn members<'b>(&self, message: &'static Message, slices: &[&'b [u8]]) -> Slices<'b> {
        let mut members = Slices::new();
        for (slice, part) in parts(slices).filter(|(_, part)| message.field(part.number).label == Label::Oneof) {
            if self.last.is_some_and(|(_, last)| last.number == part.number) {
                members.push(part.value(slice));
            } else {
                members.clear();
            }
        }
        members
    }
}
