//! The bytes of a segment: a header, then records, each with a checksum of its own, up to the first place where there is none.
//!
//! All numbers are little-endian. Checksums are CRC32C (RFC 3720, appendix B.4).
//!
//! ```text
//! segment header, 64 bytes:  0 "weirlog1"  8 version u16  10 signal u8  12 shard u16  16 base offset u64  24 nonce u64
//!                           32 created, Unix ns u64  40 zeros  60 CRC of bytes 0..60 u32
//! record, 8-byte aligned:    0 "WREC"  4 CRC of bytes 8..56, begun with the segment's nonce u32  8 payload bytes u32  12 meta bytes u32
//!                           16 CRC of meta and payload u32  20 source u16  22 zero u16  24 offset u64  32 received, Unix ns u64
//!                           40 items u64  48 items in this shard before it u64  56 meta, payload, zeros up to the next multiple of 8
//! meta: entries of tag u8, bytes u32, value
//! ```
//!
//! The nonce tells the records of a segment from those of an earlier life of the same file, because consumed files are written over.

use std::net::IpAddr;

use bytes::Bytes;

use super::{letters::note, nonces::folded};
use crate::{
    journal::Note,
    signal::{Context, Signal, UnixNanos},
};

pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const RECORD_HEADER_BYTES: usize = 56;
/// What this version writes; newer ones are refused untouched.
pub(super) const VERSION: u16 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"weirlog1";
const RECORD_MAGIC: &[u8; 4] = b"WREC";
/// Larger than any record the door lets in; a length beyond it is damage.
pub(super) const RECORD_BYTES_MAX: u64 = 1 << 31;
/// What of it a payload may be: the rest is for what comes with it, which requests bound to a small part of this.
pub(super) const PAYLOAD_BYTES_MAX: u64 = RECORD_BYTES_MAX - (64 << 20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) signal: Signal,
    pub(super) shard: u16,
    pub(super) base: u64,
    pub(super) nonce: u64,
    pub(super) created: UnixNanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("this is not a segment of weir's journal")]
    Foreign,
    #[error("its header is damaged")]
    Damaged,
    #[error("it was written by a newer weir (format {0}; this one reads format {VERSION})")]
    Newer(u16),
}

/// Reads little-endian numbers at fixed places; zero beyond the end, which no checksum matches.
struct At<'a>(&'a [u8]);

impl At<'_> {
    fn u16(&self, at: usize) -> u16 {
        self.0.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
    }
    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    }
    fn u64(&self, at: usize) -> u64 {
        self.0.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[self.signal.ordinal() as u8, 0]);
        bytes.extend_from_slice(&self.shard.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        for number in [self.base, self.nonce, self.created.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.resize(SEGMENT_HEADER_BYTES - 4, 0);
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.try_into().unwrap_or([0; SEGMENT_HEADER_BYTES])
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.get(..8) != Some(SEGMENT_MAGIC.as_slice()) {
            return Err(HeaderError::Foreign);
        }
        let at = At(bytes);
        // Newer versions keep the checksum where it is: a damaged number is no newer version.
        let sum = bytes.get(..SEGMENT_HEADER_BYTES - 4).map(crc32c::crc32c);
        if sum != Some(at.u32(SEGMENT_HEADER_BYTES - 4)) {
            return Err(HeaderError::Damaged);
        }
        let version = at.u16(8);
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let signal = bytes.get(10).and_then(|ordinal| Signal::ALL.get(usize::from(*ordinal)));
        let signal = *signal.ok_or(HeaderError::Damaged)?;
        Ok(Self { signal, shard: at.u16(12), base: at.u64(16), nonce: at.u64(24), created: UnixNanos(at.u64(32)) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) payload_len: u32,
    pub(super) meta_len: u32,
    pub(super) body_sum: u32,
    pub(super) source: u16,
    pub(super) offset: u64,
    pub(super) received: UnixNanos,
    pub(super) items: u64,
    /// Items of all records of this shard before this one.
    pub(super) items_before: u64,
}

impl RecordHeader {
    pub(super) fn encode(&self, nonce: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(RECORD_MAGIC);
        out.extend_from_slice(&[0; 4]);
        for number in [self.payload_len, self.meta_len, self.body_sum] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.source.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        for number in [self.offset, self.received.0, self.items, self.items_before] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let sum = out.get(start + 8..).map_or(0, |bytes| header_sum(nonce, bytes));
        if let Some(place) = out.get_mut(start + 4..start + 8) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// `None`: there is no record of this segment at the start of `bytes`.
    pub(super) fn decode(nonce: u64, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        let at = At(bytes);
        if bytes.get(..4) != Some(RECORD_MAGIC.as_slice()) || at.u32(4) != header_sum(nonce, bytes.get(8..)?) {
            return None;
        }
        let header = Self {
            payload_len: at.u32(8),
            meta_len: at.u32(12),
            body_sum: at.u32(16),
            source: at.u16(20),
            offset: at.u64(24),
            received: UnixNanos(at.u64(32)),
            items: at.u64(40),
            items_before: at.u64(48),
        };
        // Numbers that nobody reaches by counting are damage, and are not to be added to.
        let is_countable = header.offset < u64::MAX && header.items_before.checked_add(header.items).is_some();
        (is_countable && header.bytes() <= RECORD_BYTES_MAX).then_some(header)
    }

    /// The whole record, padding included.
    pub(super) fn bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES as u64 + u64::from(self.payload_len) + u64::from(self.meta_len)).next_multiple_of(8)
    }
}

fn header_sum(nonce: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(folded(nonce), bytes)
}

/// A nonce with which the checksum of the record header at the start of `bytes` holds: as good as the segment's own. The checksum is linear in
/// what it begins with, so that this is a system of 32 equations. It holds for any bytes: whoever asks checks the rest of the record.
pub(super) fn nonce_of(bytes: &[u8]) -> Option<u64> {
    let (sum, summed) = (At(bytes).u32(4), bytes.get(8..RECORD_HEADER_BYTES)?);
    if bytes.get(..4) != Some(RECORD_MAGIC.as_slice()) {
        return None;
    }
    let mut left = sum ^ header_sum(0, summed);
    // Each with what it was made of; those of another highest bit are independent.
    let mut rows: Vec<(u32, u32)> = Vec::new();
    let reduced = |rows: &[(u32, u32)], mut row: (u32, u32)| {
        for (image, of) in rows {
            if row.0 ^ image < row.0 {
                row = (row.0 ^ image, row.1 ^ of);
            }
        }
        row
    };
    for bit in 0..32 {
        let row = reduced(&rows, (header_sum(1 << bit, summed) ^ header_sum(0, summed), 1 << bit));
        rows.push(row);
        rows.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    }
    let mut nonce;
    (left, nonce) = reduced(&rows, (left, 0));
    if left != 0 {
        nonce = 0;
    }
    Some(u64::from(nonce))
}

pub(super) fn body_sum(meta: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(meta), payload)
}

/// The first place from `from` on, in steps of 8 bytes, where a record of this segment begins.
pub(super) fn find_record(nonce: u64, bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.next_multiple_of(8);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= RECORD_HEADER_BYTES) {
        if RecordHeader::decode(nonce, rest).is_some() {
            return Some(at);
        }
        at += 8;
    }
    None
}

/// What a record carries beside its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) context: Context,
    /// Topic, shard and offset of the record it was made from.
    pub(super) derived_from: Option<(String, u16, u64)>,
    /// The pipeline whose reading of that record made it.
    pub(super) reader: Option<String>,
    /// Of a dead letter: which signal it is, and why it is one.
    pub(super) letter: Option<(Signal, Note)>,
}

const TAG_PEER: u8 = 1;
const TAG_METADATA: u8 = 2;
const TAG_AUTH: u8 = 3;
const TAG_DERIVED_FROM: u8 = 4;
const TAG_LETTER: u8 = 5;
const TAG_READER: u8 = 6;

impl Meta {
    pub(super) fn encode(context: &Context, derived_from: Option<(&str, u16, u64, &str)>, out: &mut Vec<u8>) {
        let mut entry = |tag: u8, parts: &[&[u8]]| {
            out.push(tag);
            out.extend_from_slice(&(parts.iter().map(|part| part.len()).sum::<usize>() as u32).to_le_bytes());
            for part in parts {
                out.extend_from_slice(part);
            }
        };
        match context.peer {
            Some(IpAddr::V4(address)) => entry(TAG_PEER, &[&address.octets()]),
            Some(IpAddr::V6(address)) => entry(TAG_PEER, &[&address.octets()]),
            None => {}
        }
        for (name, values) in &context.metadata {
            let mut value = Vec::new();
            put_text(name, &mut value);
            for text in values {
                put_text(text, &mut value);
            }
            entry(TAG_METADATA, &[&value]);
        }
        for (name, text) in &context.auth {
            let mut value = Vec::new();
            put_text(name, &mut value);
            put_text(text, &mut value);
            entry(TAG_AUTH, &[&value]);
        }
        if let Some((topic, shard, offset, reader)) = derived_from {
            entry(TAG_DERIVED_FROM, &[&offset.to_le_bytes(), &shard.to_le_bytes(), topic.as_bytes()]);
            entry(TAG_READER, &[reader.as_bytes()]);
        }
    }

    /// For a dead letter.
    pub(super) fn encode_letter(context: &Context, signal: Signal, note: &Note, out: &mut Vec<u8>) {
        Self::encode(context, None, out);
        let value = note::encode(signal, note);
        out.push(TAG_LETTER);
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(&value);
    }

    /// `None`: the checksum matches and the content does not, which only a faulty writer makes. Unknown entries are passed over.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut meta = Self::default();
        while let Some((tag, rest)) = bytes.split_first() {
            let len = usize::try_from(u32::from_le_bytes(*rest.first_chunk()?)).ok()?;
            let value = rest.get(4..4 + len)?;
            bytes = rest.get(4 + len..)?;
            match *tag {
                TAG_PEER => {
                    meta.context.peer = Some(match value.len() {
                        4 => <[u8; 4]>::try_from(value).ok()?.into(),
                        _ => <[u8; 16]>::try_from(value).ok()?.into(),
                    });
                }
                TAG_METADATA => {
                    let mut texts = texts(value)?.into_iter();
                    meta.context.metadata.push((texts.next()?, texts.collect()));
                }
                TAG_AUTH => {
                    let mut texts = texts(value)?.into_iter();
                    meta.context.auth.push((texts.next()?, texts.next()?));
                }
                TAG_DERIVED_FROM => {
                    let offset = u64::from_le_bytes(*value.first_chunk()?);
                    let shard = u16::from_le_bytes(value.get(8..10)?.try_into().ok()?);
                    meta.derived_from = Some((std::str::from_utf8(value.get(10..)?).ok()?.to_owned(), shard, offset));
                }
                TAG_LETTER => meta.letter = Some(note::decode(value)?),
                TAG_READER => meta.reader = Some(std::str::from_utf8(value).ok()?.to_owned()),
                _ => {}
            }
        }
        Some(meta)
    }
}

pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Takes values off the front.
pub(super) struct Reading<'a>(pub(super) &'a [u8]);

impl<'a> Reading<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(taken).ok()
    }
}

fn texts(mut bytes: &[u8]) -> Option<Vec<Box<str>>> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let len = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        texts.push(std::str::from_utf8(bytes.get(4..4 + len)?).ok()?.into());
        bytes = bytes.get(4 + len..)?;
    }
    Some(texts)
}

/// A record as it lies in a segment.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) header: RecordHeader,
    pub(super) meta: Bytes,
    pub(super) payload: Bytes,
    /// Where it ends in its segment.
    pub(super) end: u64,
}
