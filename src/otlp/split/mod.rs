//! Joining and splitting requests without reading their items.
//!
//! In:   well-formed requests (behind the door's scan).
//! Out:  requests with the same items in the same order, each under its resource, scope and metric as before.
//! Full: a split needs room for its pieces; one that is not needed, and one by resource, copies nothing.
//! Lost: nothing that counts: envelopes without items and unknown fields of the request itself are not kept when pieces are written.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::{
    count,
    rewrite::{Part, Parts},
    wire::{patch_len, put_tag, varint_len},
};
use crate::signal::{Batch, Signal};

/// Joins requests of one signal: a request is a repeated field, so joined bodies are a request.
pub fn join(payloads: &[Bytes]) -> Bytes {
    match payloads {
        [one] => one.clone(),
        many => {
            let mut joined = Vec::with_capacity(many.iter().map(Bytes::len).sum());
            for payload in many {
                joined.extend_from_slice(payload);
            }
            joined.into()
        }
    }
}

/// Splits into batches of one resource each.
pub fn split_by_resource(batch: &Batch) -> Vec<Batch> {
    Parts::new(&batch.payload, 0, batch.payload.len())
        .filter(|part| part.is(1))
        .map(|part| {
            piece(batch, batch.payload.slice(part.key..part.end), count::of_resource(batch.signal, part.value(&batch.payload)))
        })
        .collect()
}

/// Splits into batches of at most `items_max` spans, data points or log records (at least one).
pub fn split_by_items(batch: &Batch, items_max: u64) -> Vec<Batch> {
    if batch.items <= items_max.max(1) {
        return vec![batch.clone()];
    }
    split(batch, Limit { items: items_max.max(1), bytes: usize::MAX })
}

/// Splits into batches whose payloads have at most `bytes_max` bytes; an item that is larger with what it belongs to gets one of its own.
pub fn split_by_bytes(batch: &Batch, bytes_max: usize) -> Vec<Batch> {
    if batch.payload.len() <= bytes_max {
        return vec![batch.clone()];
    }
    split(batch, Limit { items: u64::MAX, bytes: bytes_max })
}

/// Those of the items whose numbers are given, in one batch; numbers ascend, from 0. `None` where it has none of them.
pub fn pick_items(batch: &Batch, numbers: &[u64]) -> Option<Batch> {
    split_picked(batch, Limit { items: u64::MAX, bytes: usize::MAX }, Some(numbers)).pop()
}

/// A part of `batch`. The index does not fit it, so it goes.
fn piece(batch: &Batch, payload: Bytes, items: u64) -> Batch {
    Batch { payload, items, index: None, ..batch.clone() }
}

struct Limit {
    items: u64,
    bytes: usize,
}

fn split(batch: &Batch, limit: Limit) -> Vec<Batch> {
    split_picked(batch, limit, None)
}

fn split_picked(batch: &Batch, limit: Limit, picked: Option<&[u64]>) -> Vec<Batch> {
    let mut splitter = Splitter {
        payload: &batch.payload,
        signal: batch.signal,
        limit,
        picked,
        seen: 0,
        path: Vec::new(),
        out: Vec::new(),
        items: 0,
        pieces: Vec::new(),
    };
    for part in Parts::new(&batch.payload, 0, batch.payload.len()).filter(|part| part.is(1)) {
        splitter.envelope(part);
    }
    splitter.cut();
    splitter.pieces.into_iter().map(|(payload, items)| piece(batch, payload.into(), items)).collect()
}

struct Splitter<'a> {
    payload: &'a [u8],
    signal: Signal,
    limit: Limit,
    /// The numbers of the items that are wanted and were not seen yet; `None`: all are.
    picked: Option<&'a [u64]>,
    /// Items seen.
    seen: u64,
    /// The envelopes around what is being read: resource, scope, and for metrics the metric and its data.
    path: Vec<Envelope>,
    out: Vec<u8>,
    items: u64,
    pieces: Vec<(Vec<u8>, u64)>,
}

struct Envelope {
    number: u32,
    /// Bytes kept for the length, which never gets longer than it was.
    width: usize,
    /// What is not an item nor holds any, to be repeated in each piece.
    header: Vec<u8>,
    /// Where its body begins in `out`.
    written: Option<usize>,
}

impl Envelope {
    fn len(&self) -> usize {
        varint_len(u64::from(self.number) << 3) + self.width + self.header.len()
    }
}

impl Splitter<'_> {
    fn envelope(&mut self, part: Part) {
        let payload = self.payload;
        // Resource and scope; of metrics also the metric and its data: one of five fields, whose points are field 1.
        let depth = self.path.len();
        let holds = move |inner: &Part| {
            inner.wire == 2
                && match depth {
                    0 | 1 => inner.number == 2,
                    2 => matches!(inner.number, 5 | 7 | 9 | 10 | 11),
                    _ => inner.number == 1,
                }
        };
        let last = depth == if self.signal == Signal::Metrics { 3 } else { 1 };
        let mut header = Vec::new();
        for inner in Parts::of(payload, &part).filter(|inner| !holds(inner)) {
            header.extend_from_slice(payload.get(inner.key..inner.end).unwrap_or_default());
        }
        let width = varint_len((part.end - part.body) as u64);
        self.path.push(Envelope { number: part.number, width, header, written: None });
        for inner in Parts::of(payload, &part).filter(holds) {
            if last {
                self.item(inner);
            } else {
                self.envelope(inner);
            }
        }
        self.close(depth);
        self.path.pop();
    }

    fn item(&mut self, part: Part) {
        let number = self.seen;
        self.seen += 1;
        if let Some(picked) = &mut self.picked {
            match picked.split_first() {
                Some((next, rest)) if *next == number => *picked = rest,
                _ => return,
            }
        }
        let item = self.payload.get(part.key..part.end).unwrap_or_default();
        let headers: usize = self.path.iter().filter(|envelope| envelope.written.is_none()).map(Envelope::len).sum();
        let fits = self.items < self.limit.items && self.out.len() + headers + item.len() <= self.limit.bytes;
        if self.items > 0 && !fits {
            self.cut();
        }
        for envelope in self.path.iter_mut().filter(|envelope| envelope.written.is_none()) {
            put_tag(&mut self.out, envelope.number, 2);
            self.out.resize(self.out.len() + envelope.width, 0);
            envelope.written = Some(self.out.len());
            self.out.extend_from_slice(&envelope.header);
        }
        self.out.extend_from_slice(item);
        self.items += 1;
    }

    /// Ends the piece.
    fn cut(&mut self) {
        for depth in (0..self.path.len()).rev() {
            self.close(depth);
        }
        if self.items > 0 {
            self.pieces.push((std::mem::take(&mut self.out), std::mem::take(&mut self.items)));
        }
    }

    /// Writes the length of the envelope at this depth, if the piece has it. Deeper ones are closed.
    fn close(&mut self, depth: usize) {
        let Some(envelope) = self.path.get_mut(depth) else { return };
        let Some(body) = envelope.written.take() else { return };
        patch_len(&mut self.out, body - envelope.width, envelope.width);
    }
}
