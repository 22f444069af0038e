//! Spans: the commonest item, read by hand, and the entry each leaves in the index.

use super::{ELEMENT, Fault, InvalidItem, Scanner, attribute, fixed, pair};
use crate::{
    otlp::{
        fields::chunk,
        schema::{SPAN, STATUS},
    },
    signal::SpanEntry,
};

/// Keys as they stand on the wire: field number and wire type.
mod key {
    pub(super) const TRACE_ID: u32 = 1 << 3 | 2;
    pub(super) const SPAN_ID: u32 = 2 << 3 | 2;
    pub(super) const TRACE_STATE: u32 = 3 << 3 | 2;
    pub(super) const PARENT_SPAN_ID: u32 = 4 << 3 | 2;
    pub(super) const NAME: u32 = 5 << 3 | 2;
    pub(super) const KIND: u32 = 6 << 3;
    pub(super) const START: u32 = 7 << 3 | 1;
    pub(super) const END: u32 = 8 << 3 | 1;
    pub(super) const ATTRIBUTES: u32 = 9 << 3 | 2;
    pub(super) const STATUS: u32 = 15 << 3 | 2;
    pub(super) const FLAGS: u32 = 16 << 3 | 5;
}

/// How most spans end: an empty status, and the flags, of which four bytes follow.
const USUAL_TAIL: [u8; 4] = [0x7a, 0x00, 0x85, 0x01];

impl Scanner<'_> {
    /// One span at `start..end` under `scope`.
    pub(super) fn span(&mut self, start: usize, end: usize, scope: (u32, u32)) -> Result<(), Fault> {
        self.item_fault = None;
        let mut entry = SpanEntry { span: pair(start, end), scope, ..SpanEntry::default() };
        let mut statuses = 0_u64;
        let mut at = self.usual_head(start, end, &mut entry).unwrap_or(start);
        while at < end {
            let first = at;
            let mut attributes = 0;
            while self.payload.get(at) == Some(&(key::ATTRIBUTES as u8))
                && let Some(next) = attribute::usual(self.payload, at + 1)
                && next <= end
            {
                attributes += ELEMENT;
                at = next;
            }
            if at > first {
                self.spend(first, attributes)?;
                continue;
            }
            if at + USUAL_TAIL.len() + 4 == end && statuses == 0 && chunk(self.payload, at) == Some(&USUAL_TAIL) {
                break;
            }
            // Not by the first byte: a key may be written longer than it needs to be.
            let key = self.key(at, end)?;
            at = match key.raw {
                key::TRACE_ID => {
                    let (start, stop) = self.length(key, end)?;
                    entry.trace_id = self.trace_id(start, stop);
                    stop
                }
                key::SPAN_ID => {
                    let (start, stop) = self.length(key, end)?;
                    entry.span_id = self.span_id(start, stop);
                    stop
                }
                key::PARENT_SPAN_ID => {
                    let (start, stop) = self.length(key, end)?;
                    entry.parent_span_id = self.span_id(start, stop);
                    stop
                }
                key::NAME => {
                    let (start, stop) = self.length(key, end)?;
                    self.text(start, stop);
                    entry.name = pair(start, stop);
                    stop
                }
                key::TRACE_STATE => {
                    let (start, stop) = self.length(key, end)?;
                    self.text(start, stop);
                    entry.trace_state = pair(start, stop);
                    stop
                }
                key::KIND => {
                    let (kind, next) = self.number(key, end)?;
                    entry.kind = enumerator(kind, 5);
                    next
                }
                key::START => {
                    let next = fixed(key, 8, end)?;
                    entry.start_unix_nanos = self.nanos(key.value);
                    next
                }
                key::END => {
                    let next = fixed(key, 8, end)?;
                    entry.end_unix_nanos = self.nanos(key.value);
                    next
                }
                key::STATUS => {
                    let (start, stop) = self.length(key, end)?;
                    self.repeats += u64::from(statuses > 0);
                    statuses += 1;
                    if start < stop {
                        self.status(start, stop, &mut entry)?;
                    }
                    stop
                }
                key::FLAGS => fixed(key, 4, end)?,
                _ => self.field(SPAN.field(key.number), key, end, 0)?,
            };
        }
        if entry.trace_id == 0 {
            self.item_fault = self.item_fault.or(Some(InvalidItem::NoTraceId));
        } else if entry.span_id == 0 {
            self.item_fault = self.item_fault.or(Some(InvalidItem::NoSpanId));
        }
        self.end_of_item(start);
        // What is left out needs no entry: the index of an irregular payload is of no use, and an entry is larger than an empty span.
        if self.item_fault.is_none()
            && let Some(index) = self.index.as_deref_mut()
        {
            index.spans.push(entry);
        }
        Ok(())
    }

    /// The fields before the attributes, when they stand in the order of their numbers, as encoders write them: ids, perhaps the parent's, a name of
    /// ASCII, kind, times. Gives where they end; `None`, and nothing in `entry`, when anything is different.
    #[inline(always)]
    fn usual_head(&self, start: usize, end: usize, entry: &mut SpanEntry) -> Option<usize> {
        let [0x0a, 16, ids @ ..] = chunk::<30>(self.payload, start)? else { return None };
        let (trace_id, rest) = ids.split_first_chunk::<16>()?;
        let [0x12, 8, rest @ ..] = rest else { return None };
        let (span_id, [next_key, next_len]) =
            rest.split_first_chunk::<8>().and_then(|(id, rest)| Some((id, rest.first_chunk::<2>()?)))?;
        if u128::from_le_bytes(*trace_id) == 0 || u64::from_le_bytes(*span_id) == 0 {
            return None;
        }
        let mut at = start + 28;
        let mut parent_span_id = 0;
        if (*next_key, *next_len) == (0x22, 8) {
            let id = chunk::<8>(self.payload, at + 2)?;
            if u64::from_le_bytes(*id) != 0 {
                parent_span_id = (at + 2) as u32;
            }
            at += 10;
        }
        let [0x2a, name_len] = chunk::<2>(self.payload, at)? else { return None };
        let name = at + 2;
        let after_name = name + usize::from(*name_len);
        if *name_len >= 0x80 || !attribute::is_short_ascii(self.payload, name, after_name) {
            return None;
        }
        let [0x30, kind, 0x39, times @ ..] = chunk::<20>(self.payload, after_name)? else { return None };
        let (start_time, [0x41, end_time @ ..]) = times.split_first_chunk::<8>()? else { return None };
        let after = after_name + 20;
        if *kind > 5 || after > end {
            return None;
        }
        entry.trace_id = (start + 2) as u32;
        entry.span_id = (start + 20) as u32;
        entry.parent_span_id = parent_span_id;
        entry.name = pair(name, after_name);
        entry.kind = *kind;
        entry.start_unix_nanos = u64::from_le_bytes(*start_time);
        entry.end_unix_nanos = u64::from_le_bytes(*end_time.first_chunk::<8>()?);
        Some(after)
    }

    fn status(&mut self, start: usize, end: usize, entry: &mut SpanEntry) -> Result<(), Fault> {
        let mut at = start;
        while at < end {
            let key = self.key(at, end)?;
            if key.number == 3 && key.wire == 0 {
                entry.status = enumerator(self.number(key, end)?.0, 2);
            }
            at = self.field(STATUS.field(key.number), key, end, 0)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn nanos(&self, at: usize) -> u64 {
        chunk::<8>(self.payload, at).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// The offset of a trace id; 0 for none, which an id of zeros is as well.
    #[inline(always)]
    fn trace_id(&mut self, start: usize, end: usize) -> u32 {
        match (end - start, chunk::<16>(self.payload, start)) {
            (16, Some(id)) if u128::from_le_bytes(*id) != 0 => start as u32,
            (0 | 16, _) => 0,
            (len, _) => {
                self.item_fault = self.item_fault.or(Some(InvalidItem::TraceIdLength { len }));
                0
            }
        }
    }

    #[inline(always)]
    fn span_id(&mut self, start: usize, end: usize) -> u32 {
        match (end - start, chunk::<8>(self.payload, start)) {
            (8, Some(id)) if u64::from_le_bytes(*id) != 0 => start as u32,
            (0 | 8, _) => 0,
            (len, _) => {
                self.item_fault = self.item_fault.or(Some(InvalidItem::SpanIdLength { len }));
                0
            }
        }
    }
}

/// An enum's number as protobuf reads it (the low 32 bits), 255 if we do not know it.
#[inline(always)]
fn enumerator(value: u64, max: u32) -> u8 {
    match value as u32 {
        known if known <= max => known as u8,
        _ => u8::MAX,
    }
}
