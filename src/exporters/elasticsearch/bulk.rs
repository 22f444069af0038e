//! The bodies of `_bulk` requests: documents with their action lines, each knowing which items it is made of.

use std::ops::Range;

use bytes::Bytes;

/// Documents of one request body.
#[derive(Debug, Clone, Default)]
pub(super) struct Bulk {
    /// NDJSON.
    pub(super) body: Bytes,
    pub(super) documents: Vec<Document>,
}

/// One action line and its source.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// In the body.
    pub(super) bytes: Range<usize>,
    /// In [`Encoded::members`].
    pub(super) members: Range<usize>,
}

/// A request as documents.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) bulks: Vec<Bulk>,
    /// Items of the request, document after document.
    pub(super) members: Vec<u64>,
    /// Items of which no document can be made, and why; ascending.
    pub(super) refused: Vec<(u64, String)>,
}

impl Bulk {
    /// Two halves of about as many documents; `None` where there is one only.
    pub(super) fn halves(&self) -> Option<(Self, Self)> {
        let middle = self.documents.len() / 2;
        if middle == 0 {
            return None;
        }
        let (head, tail) = self.documents.split_at(middle);
        Some((self.part(head), self.part(tail)))
    }

    fn part(&self, documents: &[Document]) -> Self {
        let start = documents.first().map_or(0, |document| document.bytes.start);
        let end = documents.last().map_or(0, |document| document.bytes.end);
        let shifted = documents.iter().map(|document| Document {
            bytes: document.bytes.start - start..document.bytes.end - start,
            members: document.members.clone(),
        });
        Self { body: self.body.slice(start..end), documents: shifted.collect() }
    }
}

/// Collects documents, and begins another body when one is full.
#[derive(Default)]
pub(super) struct Collector {
    /// Bytes of a body, where it has more than one document.
    pub(super) bytes_max: usize,
    pub(super) body: Vec<u8>,
    documents: Vec<Document>,
    start: usize,
    pub(super) encoded: Encoded,
}

impl Collector {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// What was written since the last one is a document of these items.
    pub(super) fn document(&mut self, members: impl IntoIterator<Item = u64>) {
        let first = self.encoded.members.len();
        self.encoded.members.extend(members);
        let document = Document { bytes: self.start..self.body.len(), members: first..self.encoded.members.len() };
        if self.body.len() > self.bytes_max && !self.documents.is_empty() {
            let mut rest = self.body.split_off(self.start);
            std::mem::swap(&mut rest, &mut self.body);
            self.emit(rest);
            self.documents.push(Document { bytes: 0..self.body.len(), ..document });
        } else {
            self.documents.push(document);
        }
        self.start = self.body.len();
    }

    /// What was written since the last one is none.
    pub(super) fn discard(&mut self) {
        self.body.truncate(self.start);
    }

    pub(super) fn refuse(&mut self, item: u64, reason: impl Into<String>) {
        self.encoded.refused.push((item, reason.into()));
    }

    fn emit(&mut self, body: Vec<u8>) {
        self.start = 0;
        self.encoded.bulks.push(Bulk { body: body.into(), documents: std::mem::take(&mut self.documents) });
    }

    pub(super) fn finish(mut self) -> Encoded {
        if !self.documents.is_empty() {
            let body = std::mem::take(&mut self.body);
            self.emit(body);
        }
        self.encoded.refused.sort_by_key(|(item, _)| *item);
        self.encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_stay_below_their_size_and_halves_have_all_documents() {
        let mut collector = Collector::new(25);
        for item in 0..7_u64 {
            collector.body.extend_from_slice(format!("doc {item:05}\n").as_bytes());
            collector.document([item]);
        }
        collector.body.extend_from_slice(&[b'x'; 100]);
        collector.document([7]);
        let encoded = collector.finish();
        let sizes: Vec<usize> = encoded.bulks.iter().map(|bulk| bulk.body.len()).collect();
        assert_eq!(sizes, [20, 20, 20, 10, 100]);
        let (head, tail) = encoded.bulks[1].halves().unwrap();
        assert_eq!((&head.body[..], &tail.body[..]), (&b"doc 00002\n"[..], &b"doc 00003\n"[..]));
        assert_eq!((tail.documents[0].bytes.clone(), tail.documents[0].members.clone()), (0..10, 3..4));
        assert!(tail.halves().is_none());
    }
}
