//! Changing a request without reading what stays: unchanged ranges are copied, changed ones written, lengths patched when a message is left.
//!
//! In:   a payload and, in wire order, what to enter, replace and remove.
//! Out:  the changed payload, or nothing when nothing was changed; then nothing was copied either.
//! Full: the copy is as large as the payload and what is put in.
//! Lost: what is removed, on purpose.

use smallvec::SmallVec;

use super::{fields::varint, wire::patch_len};

/// One field of a message, with its offsets in the whole payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) wire: u8,
    /// Where its key begins.
    pub(super) key: usize,
    /// Where its length begins (its value, if it has none).
    pub(super) len: usize,
    /// Where its value begins, behind the length.
    pub(super) body: usize,
    /// Where the next field begins.
    pub(super) end: usize,
}

impl Part {
    /// A sub-message, string or bytes.
    pub(super) fn is(&self, number: u32) -> bool {
        self.number == number && self.wire == 2
    }

    pub(super) fn value<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(self.body..self.end).unwrap_or_default()
    }
}

/// The fields of the message at `at..end` of `payload`; ends at the first that cannot be read.
#[derive(Clone)]
pub(super) struct Parts<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(payload: &'a [u8], at: usize, end: usize) -> Self {
        Self { payload: payload.get(..end).unwrap_or(payload), at }
    }

    pub(super) fn of(payload: &'a [u8], part: &Part) -> Self {
        Self::new(payload, part.body, part.end)
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let key = self.at;
        let (tag, len) = varint(self.payload, key)?;
        let tag = u32::try_from(tag).ok()?;
        let (body, end) = match tag & 7 {
            0 => (len, varint(self.payload, len)?.1),
            1 => (len, len + 8),
            2 => {
                let (size, body) = varint(self.payload, len)?;
                (body, body.checked_add(usize::try_from(size).ok()?)?)
            }
            5 => (len, len + 4),
            _ => return None,
        };
        if end > self.payload.len() || tag < 8 {
            return None;
        }
        self.at = end;
        Some(Part { number: tag >> 3, wire: tag as u8 & 7, key, len, body, end })
    }
}

/// Writes the changed payload. Calls must come in wire order: positions never go back.
pub(super) struct Rewriter<'a> {
    payload: &'a [u8],
    out: Vec<u8>,
    /// Up to here the payload is in `out`, or was replaced.
    done: usize,
    touched: bool,
    open: SmallVec<[Open; 8]>,
}

/// A message that is being walked.
struct Open {
    part: Part,
    /// Where its key and its body stand in `out`, once something in it was changed.
    written: Option<(usize, usize)>,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { payload, out: Vec::new(), done: 0, touched: false, open: SmallVec::new() }
    }

    /// What follows lies in this sub-message, until [`leave`](Self::leave).
    pub(super) fn enter(&mut self, part: Part) {
        self.open.push(Open { part, written: None });
    }

    pub(super) fn leave(&mut self) {
        let Some(Open { part, written }) = self.open.pop() else { return };
        let Some((key, body)) = written else { return };
        self.copy_to(part.end);
        let at = key + (part.len - part.key);
        patch_len(&mut self.out, at, body - at);
    }

    /// Leaves the sub-message and takes it out, key and all, whatever was written in it.
    pub(super) fn leave_out(&mut self) {
        let Some(Open { part, written }) = self.open.pop() else { return };
        match written {
            Some((key, _)) => {
                self.out.truncate(key);
                self.done = part.end;
            }
            None => self.remove(part.key, part.end),
        }
    }

    pub(super) fn remove(&mut self, from: usize, to: usize) {
        self.replace(from, to, &[]);
    }

    pub(super) fn replace(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.touch();
        self.copy_to(from);
        self.out.extend_from_slice(bytes);
        self.done = self.done.max(to);
    }

    /// The changed payload; `None` if nothing was changed.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if !self.touched {
            return None;
        }
        while !self.open.is_empty() {
            self.leave();
        }
        self.copy_to(self.payload.len());
        Some(self.out)
    }

    /// Starts writing the messages that are open: their keys and, to be patched, their lengths.
    fn touch(&mut self) {
        if !self.touched {
            self.touched = true;
            self.out.reserve(self.payload.len() + self.payload.len() / 8);
        }
        let first = self.open.iter().take_while(|open| open.written.is_some()).count();
        for depth in first..self.open.len() {
            let Some(part) = self.open.get(depth).map(|open| open.part) else { return };
            self.copy_to(part.key);
            let key = self.out.len();
            self.copy_to(part.body);
            let body = self.out.len();
            if let Some(open) = self.open.get_mut(depth) {
                open.written = Some((key, body));
            }
        }
    }

    fn copy_to(&mut self, to: usize) {
        if let Some(bytes) = self.payload.get(self.done..to) {
            self.out.extend_from_slice(bytes);
            self.done = to;
        }
    }
}
