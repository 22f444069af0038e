//! A request body made of parts, written to the socket without being joined first.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read, Write},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{
    Compression,
    read::GzDecoder,
    write::{GzEncoder, ZlibEncoder},
};

use super::Algorithm;

/// Parts below this size are copied together: one `writev` takes 16 slices, so many tiny ones would cost a system call each few hundred bytes.
const COPIED_BELOW: usize = 4 * 1024;
/// Size of the buffers that small parts are copied into.
const COPY_CHUNK: usize = 64 * 1024;
/// Bodies above this are compressed on the blocking pool, because they would hold a thread for milliseconds.
const COMPRESSED_INLINE_MAX: usize = 128 * 1024;
/// zstd's window, 8 MiB: receivers (ours too) refuse a larger one.
const WINDOW_LOG: u32 = 23;

/// A body of several buffers. It is one [`Buf`], so HTTP/2 makes frames as large as the peer allows whatever the parts are.
#[derive(Debug, Clone, Default)]
pub struct Message {
    chunks: VecDeque<Bytes>,
    remaining: usize,
}

impl Message {
    /// Joins payloads. Large ones are shared, as is a lone small one; small neighbours are copied together.
    pub fn of_parts<'a>(parts: impl Iterator<Item = &'a Bytes> + Clone) -> Self {
        let mut message = Self::default();
        if parts.clone().nth(1).is_none() {
            parts.for_each(|part| message.push(part.clone()));
            return message;
        }
        let mut to_copy: usize = parts.clone().map(Bytes::len).filter(|len| *len < COPIED_BELOW).sum();
        let mut small = BytesMut::new();
        for part in parts {
            if part.len() >= COPIED_BELOW {
                message.push(small.split().freeze());
                message.push(part.clone());
            } else {
                if small.capacity() - small.len() < part.len() {
                    message.push(small.split().freeze());
                    small.reserve(to_copy.min(COPY_CHUNK));
                }
                to_copy -= part.len();
                small.put_slice(part);
            }
        }
        message.push(small.freeze());
        message
    }

    pub fn of(bytes: Bytes) -> Self {
        let mut message = Self::default();
        message.push(bytes);
        message
    }

    pub fn len(&self) -> usize {
        self.remaining
    }

    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.remaining += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Puts gRPC's five bytes in front: compressed or not, and the length. `None` when the body is longer than four bytes can say.
    pub fn framed(mut self, compressed: bool) -> Option<Self> {
        let len = u32::try_from(self.remaining).ok()?;
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(u8::from(compressed));
        prefix.put_u32(len);
        self.remaining += prefix.len();
        self.chunks.push_front(prefix.freeze());
        Some(self)
    }
}

impl Buf for Message {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, chunk) in dst.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// Advancing past the end empties the message: the callers (h2, hyper) advance by what they wrote.
    fn advance(&mut self, mut count: usize) {
        self.remaining = self.remaining.saturating_sub(count);
        while count > 0 {
            let Some(front) = self.chunks.front_mut() else { return };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

/// Undoes a compression; `None` for what is not so compressed or becomes larger than `bytes_max`.
pub(super) fn decompressed(algorithm: Algorithm, body: &[u8], bytes_max: usize) -> Option<Bytes> {
    let mut out = Vec::new();
    let limit = bytes_max as u64 + 1;
    let read = match algorithm {
        Algorithm::Gzip => GzDecoder::new(body).take(limit).read_to_end(&mut out),
        Algorithm::Zstd => {
            let mut decoder = zstd::Decoder::new(body).ok()?;
            decoder.window_log_max(WINDOW_LOG).ok()?;
            decoder.take(limit).read_to_end(&mut out)
        }
        Algorithm::SnappyFramed => snap::read::FrameDecoder::new(body).take(limit).read_to_end(&mut out),
        Algorithm::None | Algorithm::Zlib | Algorithm::Deflate | Algorithm::Snappy => return None,
    };
    (read.ok()? <= bytes_max).then(|| out.into())
}

/// Compresses bodies as one exporter was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressor {
    pub algorithm: Algorithm,
    /// gzip, zlib, deflate: 0 to 9; zstd: 1 to 22.
    pub level: i32,
}

impl Compressor {
    pub const NONE: Self = Self { algorithm: Algorithm::None, level: 0 };

    /// `algorithm` at the level that costs least: more buys little on telemetry and is paid on every request.
    pub const fn fast(algorithm: Algorithm) -> Self {
        Self { algorithm, level: 1 }
    }

    pub fn is_none(self) -> bool {
        self.algorithm == Algorithm::None
    }

    /// Compresses a whole body; large ones off the caller's thread.
    pub async fn compress(self, message: Message) -> io::Result<Message> {
        if self.is_none() {
            return Ok(message);
        }
        if message.len() <= COMPRESSED_INLINE_MAX {
            return self.compress_now(&message).map(Message::of);
        }
        tokio::task::spawn_blocking(move || self.compress_now(&message).map(Message::of)).await.map_err(io::Error::other)?
    }

    fn compress_now(self, message: &Message) -> io::Result<Bytes> {
        let out = Vec::with_capacity(message.len() / 6 + 64);
        let feed = |writer: &mut dyn Write| message.chunks.iter().try_for_each(|chunk| writer.write_all(chunk));
        let level = Compression::new(u32::try_from(self.level.clamp(0, 9)).unwrap_or(1));
        let out = match self.algorithm {
            Algorithm::None => return Ok(message.clone().copy_to_bytes(message.len())),
            Algorithm::Gzip => {
                let mut encoder = GzEncoder::new(out, level);
                feed(&mut encoder)?;
                encoder.finish()?
            }
            // What HTTP calls `deflate` is the zlib format (RFC 9110 §8.4.1.2).
            Algorithm::Zlib | Algorithm::Deflate => {
                let mut encoder = ZlibEncoder::new(out, level);
                feed(&mut encoder)?;
                encoder.finish()?
            }
            Algorithm::Zstd => {
                let mut encoder = zstd::Encoder::new(out, self.level)?;
                encoder.set_pledged_src_size(u64::try_from(message.len()).ok())?;
                encoder.include_contentsize(true)?;
                encoder.window_log(WINDOW_LOG)?;
                feed(&mut encoder)?;
                encoder.finish()?
            }
            Algorithm::SnappyFramed => {
                let mut encoder = snap::write::FrameEncoder::new(out);
                feed(&mut encoder)?;
                encoder.into_inner().map_err(|error| io::Error::other(error.to_string()))?
            }
            Algorithm::Snappy => {
                let whole = message.clone().copy_to_bytes(message.len());
                snap::raw::Encoder::new().compress_vec(&whole).map_err(io::Error::other)?
            }
        };
        Ok(out.into())
    }
}
