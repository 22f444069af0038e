//! The scan at the door: one pass over a request's bytes, after which everything may rely on them.
//!
//! In:   the body of an `Export*ServiceRequest`, any bytes at all.
//! Out:  how many items it holds, what is wrong with single items and strings, and, if asked, a [`SpanIndex`].
//! Full: a body with more elements than its size allows is refused, so that no reader behind can be made to inflate it.
//! Lost: nothing; bytes are only read.
//!
//! What is *malformed* (the whole request is refused, [`ScanError`]) is what protobuf cannot parse: lengths that run over, bad varints and keys,
//! known fields of another wire type, and three things of our own: groups, values nested deeper than the limit, more elements than the budget.
//!
//! What is *irregular* ([`Scan::is_regular`] is false) is parsed by everybody, but not alike. [`repair`](mod@crate::otlp::repair) makes it regular:
//! - an item with an id of a wrong length anywhere in it (also in a link or an exemplar), or a span without trace or span id, is left out;
//! - a string that is not UTF-8 gets U+FFFD where it is not;
//! - a sub-message that comes twice where the schema has one is merged into one, as protobuf asks readers to; of a oneof the last member stays.
//!
//! So behind the door ids have the right length, strings are text, no sub-message comes twice, and a oneof has one member.

mod attribute;
mod error;
mod span;

#[cfg(test)]
mod tests;

pub(super) use self::attribute::is_utf8;
pub use self::error::{InvalidItem, Malformed, ScanError};

use self::error::{Fault, locate, locate_item};
use super::{
    fields::varint,
    schema::{Field, Kind, Label, Message, RESOURCE, RESOURCE_SPANS, SCOPE, SCOPE_SPANS, request},
};
use crate::signal::{ResourceEntry, Signal, SpanIndex};

/// The bounds of a request that the scan keeps; the size of the body is the transport's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// How deep attribute values and log bodies may nest: an array in an attribute is 1 deep, its values 2.
    pub value_depth_max: u32,
    /// Elements (repeated messages and strings, unknown fields) that any body may have.
    pub elements_base: u64,
    /// Beyond the base, one element for so many bytes of body. A value of an array counts a half.
    pub bytes_per_element: u64,
}

impl Default for ScanLimits {
    /// Real data has an element for 15 bytes or more; an array of small integers has a value for 4.
    fn default() -> Self {
        Self { value_depth_max: 32, elements_base: 1_000, bytes_per_element: 8 }
    }
}

/// What a well-formed request holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Spans, data points or log records, the invalid ones among them.
    pub items: u64,
    /// Items that must be left out.
    pub invalid_items: u64,
    /// The first of them: what and where.
    pub first_invalid: Option<String>,
    /// Strings that are not UTF-8.
    pub not_utf8: u64,
    /// The first of them: where.
    pub first_not_utf8: Option<String>,
    /// Sub-messages and members of a oneof that come again where there should be one.
    pub repeats: u64,
}

impl Scan {
    /// Whether the payload may travel as it is. Otherwise [`repair`](crate::otlp::repair()) it first; an index of it is not to be used.
    pub fn is_regular(&self) -> bool {
        self.invalid_items == 0 && self.not_utf8 == 0 && self.repeats == 0
    }
}

/// Checks one request body and counts its items; fills `index` for traces (it is cleared for other signals).
///
/// One pass, nothing allocated but the index. Offsets in errors are bytes from the start of `payload`.
pub fn scan(signal: Signal, payload: &[u8], limits: &ScanLimits, mut index: Option<&mut SpanIndex>) -> Result<Scan, ScanError> {
    if let Some(index) = index.as_deref_mut() {
        index.resources.clear();
        index.spans.clear();
        if signal == Signal::Traces {
            // About one span in 400 bytes, so that a usual body needs one allocation.
            index.spans.reserve(payload.len() / 400);
        }
    }
    let mut scanner = Scanner::new(payload, limits, index);
    let done = match u32::try_from(payload.len()) {
        Err(_) => Err(Fault::new(0, Malformed::TooLarge)),
        Ok(_) if signal == Signal::Traces => scanner.traces(),
        Ok(_) => scanner.message(request(signal), 0, payload.len(), 0),
    };
    match done {
        Ok(()) => Ok(scanner.finish(signal)),
        Err(fault) => Err(fault.describe(signal, payload)),
    }
}

/// Where the pass stands.
struct Scanner<'a> {
    payload: &'a [u8],
    index: Option<&'a mut SpanIndex>,
    value_depth_max: u32,
    /// Half elements that may still come.
    budget: u64,
    elements_max: u64,
    items: u64,
    invalid_items: u64,
    first_invalid: Option<(usize, InvalidItem)>,
    /// What is wrong with the item that is being read.
    item_fault: Option<InvalidItem>,
    not_utf8: u64,
    first_not_utf8: Option<usize>,
    repeats: u64,
}

/// What an element costs of the budget, in halves.
const ELEMENT: u64 = 2;
const ARRAY_VALUE: u64 = 1;

impl<'a> Scanner<'a> {
    fn new(payload: &'a [u8], limits: &ScanLimits, index: Option<&'a mut SpanIndex>) -> Self {
        let size = payload.len() as u64;
        let elements_max = limits.elements_base.saturating_add(size / limits.bytes_per_element.max(1));
        Self {
            payload,
            index,
            value_depth_max: limits.value_depth_max,
            budget: elements_max.saturating_mul(ELEMENT),
            elements_max,
            items: 0,
            invalid_items: 0,
            first_invalid: None,
            item_fault: None,
            not_utf8: 0,
            first_not_utf8: None,
            repeats: 0,
        }
    }

    fn finish(self, signal: Signal) -> Scan {
        Scan {
            items: self.items,
            invalid_items: self.invalid_items,
            first_invalid: self
                .first_invalid
                .map(|(offset, reason)| format!("{}: {reason}", locate_item(signal, self.payload, offset))),
            not_utf8: self.not_utf8,
            first_not_utf8: self.first_not_utf8.map(|offset| locate(signal, self.payload, offset)),
            repeats: self.repeats,
        }
    }

    /// An `ExportTraceServiceRequest`: its upper levels by hand, because they fill the index.
    fn traces(&mut self) -> Result<(), Fault> {
        let end = self.payload.len();
        let mut at = 0;
        while at < end {
            let key = self.key(at, end)?;
            at = match (key.number, key.wire) {
                (1, 2) => {
                    self.spend(at, ELEMENT)?;
                    let (start, stop) = self.length(key, end)?;
                    self.resource_spans(start, stop)?;
                    stop
                }
                _ => self.field(request(Signal::Traces).field(key.number), key, end, 0)?,
            };
        }
        Ok(())
    }

    fn resource_spans(&mut self, start: usize, end: usize) -> Result<(), Fault> {
        let first_span = self.index.as_deref().map_or(0, |index| index.spans.len() as u32);
        let mut entry = ResourceEntry { first_span, ..ResourceEntry::default() };
        let mut resources = 0_u64;
        let mut at = start;
        while at < end {
            let key = self.key(at, end)?;
            at = match (key.number, key.wire) {
                (1, 2) => {
                    let (start, stop) = self.length(key, end)?;
                    entry.resource = pair(start, stop);
                    self.repeats += u64::from(resources > 0);
                    resources += 1;
                    self.message(&RESOURCE, start, stop, 0)?;
                    stop
                }
                (2, 2) => {
                    self.spend(at, ELEMENT)?;
                    let (start, stop) = self.length(key, end)?;
                    self.scope_spans(start, stop)?;
                    stop
                }
                _ => self.field(RESOURCE_SPANS.field(key.number), key, end, 0)?,
            };
        }
        if let Some(index) = self.index.as_deref_mut() {
            entry.end_span = index.spans.len() as u32;
            // Two bytes make an empty `ResourceSpans`; an entry for each would be many times the payload.
            if entry.end_span > entry.first_span {
                index.resources.push(entry);
            }
        }
        Ok(())
    }

    fn scope_spans(&mut self, start: usize, end: usize) -> Result<(), Fault> {
        let first = self.index.as_deref().map_or(0, |index| index.spans.len());
        let mut scope = (0, 0);
        let mut scopes = 0_u64;
        let mut spans_before_scope = false;
        let mut at = start;
        while at < end {
            let key = self.key(at, end)?;
            at = match (key.number, key.wire) {
                (2, 2) => {
                    self.spend(at, ELEMENT)?;
                    let (start, stop) = self.length(key, end)?;
                    self.span(start, stop, scope)?;
                    stop
                }
                (1, 2) => {
                    let (start, stop) = self.length(key, end)?;
                    scope = pair(start, stop);
                    self.repeats += u64::from(scopes > 0);
                    scopes += 1;
                    spans_before_scope |= self.index.as_deref().is_some_and(|index| index.spans.len() > first);
                    self.message(&SCOPE, start, stop, 0)?;
                    stop
                }
                _ => self.field(SCOPE_SPANS.field(key.number), key, end, 0)?,
            };
        }
        if spans_before_scope && let Some(index) = self.index.as_deref_mut() {
            for entry in index.spans.iter_mut().skip(first) {
                entry.scope = scope;
            }
        }
        Ok(())
    }

    /// Any message, by its table: framing, wire types, strings, ids, and everything below it.
    ///
    /// `depth` counts the attribute values around it. The recursion is bounded by that: between two values lie two messages at most.
    fn message(&mut self, message: &'static Message, start: usize, end: usize, depth: u32) -> Result<(), Fault> {
        let mut at = start;
        // A bit for each sub-message by its number, and one for the oneof: no message has two, no field is 0.
        let mut seen = 0_u32;
        while at < end {
            let key = self.key(at, end)?;
            let field = message.field(key.number);
            match (field.label, field.kind) {
                (Label::Singular, Kind::Message(_)) => {
                    let bit = 1 << key.number;
                    self.repeats += u64::from(seen & bit != 0);
                    seen |= bit;
                }
                (Label::Oneof, _) => {
                    self.repeats += u64::from(seen & 1 != 0);
                    seen |= 1;
                }
                _ => {}
            }
            // The commonest fields here, all others there.
            at = match (field.kind, key.wire) {
                (Kind::Message(inner), 2)
                    if inner.attribute
                        && depth < self.value_depth_max
                        && let Some(next) = attribute::usual(self.payload, key.value)
                        && next <= end =>
                {
                    self.spend(key.at, ELEMENT)?;
                    next
                }
                (Kind::Fixed64, 1) => fixed(key, 8, end)?,
                (Kind::Varint, 0) => self.number(key, end)?.1,
                _ => self.field(field, key, end, depth)?,
            };
        }
        Ok(())
    }

    /// The rest of one field, behind its key. Gives where the next field begins.
    #[inline]
    fn field(&mut self, field: &'static Field, key: Key, end: usize, depth: u32) -> Result<usize, Fault> {
        match (field.kind, key.wire) {
            (Kind::Message(inner), 2) => {
                if field.label == Label::Repeated {
                    self.spend(key.at, if inner.value { ARRAY_VALUE } else { ELEMENT })?;
                }
                let (start, stop) = self.length(key, end)?;
                let depth = depth + u32::from(inner.value);
                if depth > self.value_depth_max {
                    return Err(Fault::new(key.at, Malformed::TooDeep { limit: self.value_depth_max }));
                }
                if inner.item {
                    self.item(inner, start, stop)?;
                } else {
                    self.message(inner, start, stop, depth)?;
                }
                Ok(stop)
            }
            (Kind::String, 2) => {
                if field.label == Label::Repeated {
                    self.spend(key.at, ELEMENT)?;
                }
                let (start, stop) = self.length(key, end)?;
                self.text(start, stop);
                Ok(stop)
            }
            (Kind::Bytes, 2) => Ok(self.length(key, end)?.1),
            (Kind::TraceId, 2) => {
                let (start, stop) = self.length(key, end)?;
                if !matches!(stop - start, 0 | 16) {
                    self.item_fault = self.item_fault.or(Some(InvalidItem::TraceIdLength { len: stop - start }));
                }
                Ok(stop)
            }
            (Kind::SpanId, 2) => {
                let (start, stop) = self.length(key, end)?;
                if !matches!(stop - start, 0 | 8) {
                    self.item_fault = self.item_fault.or(Some(InvalidItem::SpanIdLength { len: stop - start }));
                }
                Ok(stop)
            }
            (Kind::Varint | Kind::Varints, 0) => Ok(self.number(key, end)?.1),
            (Kind::Fixed64 | Kind::Fixed64s, 1) => fixed(key, 8, end),
            (Kind::Fixed32, 5) => fixed(key, 4, end),
            (Kind::Fixed64s, 2) => {
                let (start, stop) = self.length(key, end)?;
                if (stop - start) % 8 != 0 {
                    return Err(Fault::new(key.at, Malformed::Truncated));
                }
                Ok(stop)
            }
            (Kind::Varints, 2) => {
                let (mut at, stop) = self.length(key, end)?;
                while at < stop {
                    at = varint(self.payload, at).filter(|(_, next)| *next <= stop).ok_or(Fault::new(at, Malformed::Varint))?.1;
                }
                Ok(stop)
            }
            (Kind::Unknown, _) => self.unknown(key, end),
            (_, 3 | 4) => Err(Fault::new(key.at, Malformed::Group)),
            _ => Err(Fault::new(key.at, Malformed::WireType)),
        }
    }

    /// A log record or a data point. Spans have their own reader where the index is filled; this one sees them never.
    fn item(&mut self, message: &'static Message, start: usize, end: usize) -> Result<(), Fault> {
        self.item_fault = None;
        self.message(message, start, end, 0)?;
        self.end_of_item(start);
        Ok(())
    }

    #[inline(always)]
    fn end_of_item(&mut self, start: usize) {
        self.items += 1;
        if let Some(reason) = self.item_fault {
            self.left_out(start, reason);
        }
    }

    #[cold]
    fn left_out(&mut self, start: usize, reason: InvalidItem) {
        self.invalid_items += 1;
        self.first_invalid = self.first_invalid.or(Some((start, reason)));
    }

    #[inline(never)]
    fn unknown(&mut self, key: Key, end: usize) -> Result<usize, Fault> {
        self.spend(key.at, ELEMENT)?;
        match key.wire {
            0 => Ok(self.number(key, end)?.1),
            1 => fixed(key, 8, end),
            2 => Ok(self.length(key, end)?.1),
            5 => fixed(key, 4, end),
            3 | 4 => Err(Fault::new(key.at, Malformed::Group)),
            _ => Err(Fault::new(key.at, Malformed::Key)),
        }
    }

    // === the wire ===

    #[inline(always)]
    fn key(&self, at: usize, end: usize) -> Result<Key, Fault> {
        match varint(self.payload, at) {
            Some((key, next)) if next <= end => match u32::try_from(key) {
                Ok(raw) if raw >= 8 => Ok(Key { at, value: next, raw, number: raw >> 3, wire: raw as u8 & 7 }),
                _ => Err(Fault::new(at, Malformed::Key)),
            },
            _ => Err(Fault::new(at, Malformed::Key)),
        }
    }

    #[inline(always)]
    fn number(&self, key: Key, end: usize) -> Result<(u64, usize), Fault> {
        match varint(self.payload, key.value) {
            Some((value, next)) if next <= end => Ok((value, next)),
            _ => Err(Fault::new(key.at, Malformed::Varint)),
        }
    }

    /// Reads a length; gives where its bytes begin and end, which is within `end`.
    #[inline(always)]
    fn length(&self, key: Key, end: usize) -> Result<(usize, usize), Fault> {
        let (len, start) = self.number(key, end)?;
        if len <= (end - start) as u64 {
            Ok((start, start + len as usize))
        } else {
            Err(Fault::new(key.at, Malformed::Truncated))
        }
    }

    #[inline(always)]
    fn spend(&mut self, at: usize, cost: u64) -> Result<(), Fault> {
        match self.budget.checked_sub(cost) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(Fault::new(at, Malformed::TooManyElements { limit: self.elements_max })),
        }
    }

    #[inline]
    fn text(&mut self, start: usize, end: usize) {
        if !is_utf8(self.payload, start, end) {
            self.not_text(start);
        }
    }

    #[cold]
    fn not_text(&mut self, start: usize) {
        self.not_utf8 += 1;
        self.first_not_utf8 = self.first_not_utf8.or(Some(start));
    }
}

/// Gives where the field ends whose value has `size` bytes.
#[inline(always)]
fn fixed(key: Key, size: usize, end: usize) -> Result<usize, Fault> {
    let next = key.value + size;
    if next <= end { Ok(next) } else { Err(Fault::new(key.at, Malformed::Truncated)) }
}

/// A field's key: where it stands, where its value begins, and what it says.
#[derive(Clone, Copy)]
struct Key {
    at: usize,
    value: usize,
    /// Number and wire type, as on the wire.
    raw: u32,
    number: u32,
    wire: u8,
}

#[inline(always)]
fn pair(start: usize, end: usize) -> (u32, u32) {
    (start as u32, (end - start) as u32)
}
