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
}

impl Scanner<'_> {
    /// One span at `start..end` under `scope`.
    pub(super) fn span(&mut self, start: usize, end: usize, scope: (u32, u32)) -> Result<(), Fault> {
        self.item_fault = None;
        let mut entry = SpanEntry { span: pair(start, end), scope, ..SpanEntry::default() };
        let mut statuses = 0_u64;
        let mut at = start;
        while at < end {
            if self.payload.get(at) == Some(&(key::ATTRIBUTES as u8))
                && let Some(next) = attribute::usual(self.payload, at + 1)
                && next <= end
            {
                self.spend(at, ELEMENT)?;
                at = next;
                continue;
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
