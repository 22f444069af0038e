//! Compressed request bodies → bytes, within bounds that hold while they grow.
//!
//! In:   one body in one encoding.
//! Out:  its bytes, accounted on the ticket that came with it.
//! Full: a body that grows beyond the limit, or too fast for what it is made of, is refused at that byte; memory is asked for first.

use std::{cell::RefCell, io::Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name, get_frame_content_size};

use super::{Refusal, Ticket};

/// What a body is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    Zstd,
    /// zlib's container; raw deflate too, because `deflate` has meant both since HTTP/1.1.
    Deflate,
    /// One block, or the framing format; which one is seen from its first bytes.
    Snappy,
}

impl Encoding {
    /// `Content-Encoding` or `grpc-encoding`; `Ok(None)` for none at all. One encoding only: `gzip, zstd` is an unknown one.
    pub fn parse(name: &[u8]) -> Option<Option<Self>> {
        let name = name.trim_ascii();
        Some(match name.len() {
            0 => None,
            _ if name.eq_ignore_ascii_case(b"identity") => None,
            _ if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => Some(Self::Gzip),
            _ if name.eq_ignore_ascii_case(b"zstd") => Some(Self::Zstd),
            _ if name.eq_ignore_ascii_case(b"deflate") || name.eq_ignore_ascii_case(b"zlib") => Some(Self::Deflate),
            _ if name.eq_ignore_ascii_case(b"snappy") => Some(Self::Snappy),
            _ => return None,
        })
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
            Self::Snappy => "snappy",
        }
    }
}

/// The log of the largest window that a zstd frame may ask for: 8 MiB, as RFC 9659 has it.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes out for one byte in, beyond the first MiB. Telemetry of equal spans comes near 200; deflate ends at 1032.
const RATIO_MAX: usize = 1000;
const RATIO_FREE: usize = 1 << 20;
const SNAPPY_FRAMED: &[u8] = b"\xff\x06\x00\x00sNaPpY";

thread_local! {
    static FLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
    static ZSTD: RefCell<Option<DCtx<'static>>> = RefCell::new(zstd_context());
}

fn zstd_context() -> Option<DCtx<'static>> {
    let mut context = DCtx::try_create()?;
    context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
    Some(context)
}

/// Decompresses `body` to at most `limit` bytes. `ticket` grows with what comes out.
pub fn inflate(encoding: Encoding, body: &[u8], limit: usize, ticket: &mut Ticket) -> Result<Vec<u8>, Refusal> {
    let held = ticket.bytes();
    let mut out = Out { bytes: Vec::new(), encoding, limit, fed: body.len(), held, ticket };
    if body.is_empty() {
        return Err(out.malformed("it is empty"));
    }
    match encoding {
        Encoding::Gzip => gzip(body, &mut out)?,
        Encoding::Zstd => zstd(body, &mut out)?,
        Encoding::Deflate => deflate(body, &mut out)?,
        Encoding::Snappy => snappy(body, &mut out)?,
    }
    Ok(out.bytes)
}

/// What comes out, and its bounds.
struct Out<'a> {
    bytes: Vec<u8>,
    encoding: Encoding,
    limit: usize,
    fed: usize,
    /// What the ticket stood for before: the compressed body, which stays while this is made.
    held: usize,
    ticket: &'a mut Ticket,
}

impl Out<'_> {
    fn malformed(&self, what: &str) -> Refusal {
        Refusal::Malformed { message: format!("the body is no {}: {what}", self.encoding.as_str()) }
    }

    fn too_large(&self) -> Refusal {
        Refusal::TooLarge { message: format!("the body is larger than the limit of {} bytes after decompression", self.limit) }
    }

    /// Room for `more` bytes, up to the limit and one byte beyond it, by which too long a body is told from one that just fits.
    fn reserve(&mut self, more: usize) -> Result<(), Refusal> {
        let len = self.bytes.len();
        if len > self.limit {
            return Err(self.too_large());
        }
        if len > RATIO_FREE && len / RATIO_MAX > self.fed {
            let message = format!("the body grows more than {RATIO_MAX} times by decompression");
            return Err(Refusal::TooLarge { message });
        }
        let wanted = len.saturating_add(more).min(self.limit.saturating_add(1));
        if wanted > self.bytes.capacity() {
            if !self.ticket.try_grow(self.held.saturating_add(wanted)) {
                return Err(self.ticket.refusal(self.held.saturating_add(wanted)));
            }
            self.bytes.reserve_exact(wanted - len);
        }
        Ok(())
    }

    /// Room for the next piece: twice what is there.
    fn grow(&mut self) -> Result<(), Refusal> {
        if self.bytes.len() < self.bytes.capacity() {
            return self.reserve(0);
        }
        self.reserve(self.bytes.len().max(self.fed.saturating_mul(4)).clamp(1 << 10, 16 << 20))
    }

    /// The whole of what came out is within the limit.
    fn check(&self) -> Result<(), Refusal> {
        if self.bytes.len() > self.limit { Err(self.too_large()) } else { Ok(()) }
    }
}

/// Inflates one raw deflate stream (or zlib's) and gives back what follows it.
fn flate<'b>(body: &'b [u8], zlib: bool, out: &mut Out<'_>) -> Result<&'b [u8], Refusal> {
    FLATE.with_borrow_mut(|context| {
        context.reset(zlib);
        let mut rest = body;
        loop {
            out.grow()?;
            let (before_in, before_out) = (context.total_in(), out.bytes.len());
            let status = context.decompress_vec(rest, &mut out.bytes, FlushDecompress::None);
            let eaten = usize::try_from(context.total_in() - before_in).unwrap_or(usize::MAX);
            rest = rest.get(eaten..).unwrap_or_default();
            match status {
                Ok(Status::StreamEnd) => {
                    out.check()?;
                    return Ok(rest);
                }
                Ok(_) if rest.is_empty() && out.bytes.len() < out.bytes.capacity() => {
                    return Err(out.malformed("it ends too early"));
                }
                Ok(Status::BufError) if eaten == 0 && out.bytes.len() == before_out && out.bytes.len() < out.bytes.capacity() => {
                    return Err(out.malformed("it ends too early"));
                }
                Ok(_) => {}
                Err(error) => return Err(out.malformed(&error.to_string())),
            }
        }
    })
}

/// Members (gzip) or frames (zstd) of one body at most. A member of twenty bytes can hold nothing and still costs a decoder's set-up;
/// writers that append members make a handful.
const MEMBERS_MAX: usize = 1024;

/// RFC 1952: one or more members, each a header, a deflate stream, its checksum and its length.
fn gzip(body: &[u8], out: &mut Out<'_>) -> Result<(), Refusal> {
    let mut rest = body;
    let mut members = 0;
    while !rest.is_empty() {
        members += 1;
        if members > MEMBERS_MAX {
            return Err(out.malformed("it has too many members"));
        }
        let stream = gzip_header(rest).ok_or_else(|| out.malformed("its header is not one"))?;
        let start = out.bytes.len();
        let after = flate(stream, false, out)?;
        let Some((trailer, next)) = after.split_first_chunk::<8>() else { return Err(out.malformed("it ends too early")) };
        let mut crc = Crc::new();
        crc.update(out.bytes.get(start..).unwrap_or_default());
        let [c0, c1, c2, c3, l0, l1, l2, l3] = *trailer;
        if crc.sum() != u32::from_le_bytes([c0, c1, c2, c3]) || crc.amount() != u32::from_le_bytes([l0, l1, l2, l3]) {
            return Err(out.malformed("its checksum is wrong"));
        }
        rest = next;
    }
    Ok(())
}

/// What follows a member's header.
fn gzip_header(member: &[u8]) -> Option<&[u8]> {
    const CHECKSUM: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let (head, mut rest) = member.split_first_chunk::<10>()?;
    let [0x1f, 0x8b, 8, flags, ..] = *head else { return None };
    if flags & EXTRA != 0 {
        let (len, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*len))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            rest = rest.get(memchr::memchr(0, rest)? + 1..)?;
        }
    }
    if flags & CHECKSUM != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

fn deflate(body: &[u8], out: &mut Out<'_>) -> Result<(), Refusal> {
    // RFC 1950: method 8, and the first two bytes are a multiple of 31. A raw stream looks like that once in a thousand times, and
    // then its first block would be of a type that does not exist.
    let is_zlib = matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31));
    let rest = flate(body, is_zlib, out)?;
    if rest.is_empty() { Ok(()) } else { Err(out.malformed("there is more behind its end")) }
}

fn zstd(body: &[u8], out: &mut Out<'_>) -> Result<(), Refusal> {
    ZSTD.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd_context().ok_or_else(|| out.malformed("there is no memory for a decoder"))?),
        };
        // A session that failed half-way must not be continued.
        if context.reset(ResetDirective::SessionOnly).is_err() {
            return Err(out.malformed("the decoder cannot start"));
        }
        // The frame may say how much comes; it is believed only within the limit.
        if let Ok(Some(size)) = get_frame_content_size(body)
            && size <= out.limit as u64
        {
            out.reserve(size as usize)?;
        }
        let mut input = InBuffer::around(body);
        let mut hint = 1;
        let mut frames = 0;
        while input.pos() < body.len() || hint != 0 {
            out.grow()?;
            let (before_in, before_out) = (input.pos(), out.bytes.len());
            let done = context.decompress_stream(&mut OutBuffer::around_pos(&mut out.bytes, before_out), &mut input);
            hint = done.map_err(|code| out.malformed(get_error_name(code)))?;
            frames += usize::from(hint == 0);
            if frames > MEMBERS_MAX {
                return Err(out.malformed("it has too many frames"));
            }
            let stuck = input.pos() == before_in && out.bytes.len() == before_out;
            if hint != 0 && input.pos() == body.len() && (stuck || out.bytes.len() < out.bytes.capacity()) {
                return Err(out.malformed("it ends too early"));
            }
        }
        out.check()
    })
}

fn snappy(body: &[u8], out: &mut Out<'_>) -> Result<(), Refusal> {
    if body.starts_with(SNAPPY_FRAMED) {
        let mut decoder = snap::read::FrameDecoder::new(body);
        loop {
            out.grow()?;
            let room = out.bytes.capacity() - out.bytes.len();
            let read = Read::by_ref(&mut decoder).take(room as u64).read_to_end(&mut out.bytes);
            match read {
                Ok(0) => return out.check(),
                Ok(_) => out.check()?,
                Err(error) => return Err(out.malformed(&error.to_string())),
            }
        }
    }
    let len = snap::raw::decompress_len(body).map_err(|error| out.malformed(&error.to_string()))?;
    if len > out.limit {
        return Err(out.too_large());
    }
    // The format cannot shrink anything to less than a 21st; a length beyond that is made up.
    if len / 64 > body.len() {
        return Err(out.malformed("its length does not fit its data"));
    }
    out.reserve(len)?;
    out.bytes.resize(len, 0);
    let written =
        snap::raw::Decoder::new().decompress(body, &mut out.bytes).map_err(|error| out.malformed(&error.to_string()))?;
    out.bytes.truncate(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::{super::Budget, *};

    const LIMIT: usize = 1 << 20;

    fn budget() -> Arc<Budget> {
        Budget::new(64 << 20)
    }

    fn run(encoding: Encoding, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        inflate(encoding, body, LIMIT, &mut budget().try_take(body.len()).unwrap())
    }

    fn gz(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn framed(data: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(data).unwrap();
        encoder.into_inner().unwrap()
    }

    fn forms(data: &[u8]) -> Vec<(Encoding, Vec<u8>)> {
        vec![
            (Encoding::Gzip, gz(data)),
            (Encoding::Zstd, zstd::bulk::compress(data, 3).unwrap()),
            (Encoding::Zstd, zstd::stream::encode_all(data, 3).unwrap()),
            (Encoding::Deflate, zlib(data)),
            (Encoding::Deflate, raw_deflate(data)),
            (Encoding::Snappy, snap::raw::Encoder::new().compress_vec(data).unwrap()),
            (Encoding::Snappy, framed(data)),
        ]
    }

    #[test]
    fn gives_back_what_was_compressed() {
        for data in [
            &b"x"[..],
            &b"span ".repeat(1000),
            &(0..LIMIT as u32 / 4).flat_map(u32::to_le_bytes).collect::<Vec<_>>(),
            &vec![0; LIMIT],
        ] {
            for (encoding, body) in forms(data) {
                assert_eq!(run(encoding, &body).as_deref(), Ok(data), "{encoding:?} of {} bytes", data.len());
            }
        }
    }

    #[test]
    fn refuses_one_byte_over_the_limit() {
        for (encoding, body) in forms(&vec![7; LIMIT + 1]) {
            assert!(matches!(run(encoding, &body), Err(Refusal::TooLarge { .. })), "{encoding:?}");
        }
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_the_limit() {
        for (encoding, body) in forms(&vec![0; 64 << 20]) {
            let budget = budget();
            let mut ticket = budget.try_take(body.len()).unwrap();
            assert!(matches!(inflate(encoding, &body, LIMIT, &mut ticket), Err(Refusal::TooLarge { .. })), "{encoding:?}");
            assert!(ticket.bytes() <= body.len() + LIMIT + 1, "{encoding:?} took {}", ticket.bytes());
        }
    }

    #[test]
    fn refuses_when_there_is_no_memory_for_it() {
        let budget = Budget::new(100 << 10);
        for (encoding, body) in forms(&vec![0; 200 << 10]) {
            let mut ticket = budget.try_take(body.len().min(50 << 10)).unwrap();
            let refused = inflate(encoding, &body, LIMIT, &mut ticket);
            assert!(matches!(refused, Err(Refusal::Full { .. } | Refusal::TooLarge { .. })), "{encoding:?} {refused:?}");
        }
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn refuses_a_body_that_ends_too_early_or_goes_on() {
        for (encoding, body) in forms(&b"span ".repeat(1000)) {
            for len in [1, body.len() / 2, body.len() - 1] {
                assert!(matches!(run(encoding, &body[..len]), Err(Refusal::Malformed { .. })), "{encoding:?} cut to {len}");
            }
            let longer = [body.as_slice(), b"garbage!!"].concat();
            assert!(matches!(run(encoding, &longer), Err(Refusal::Malformed { .. })), "{encoding:?} with a tail");
        }
    }

    #[test]
    fn refuses_a_body_of_another_encoding() {
        let data = b"span ".repeat(1000);
        for (written, body) in forms(&data) {
            for read in [Encoding::Gzip, Encoding::Zstd, Encoding::Deflate, Encoding::Snappy] {
                if read != written {
                    assert!(!matches!(run(read, &body), Ok(bytes) if bytes == data), "{written:?} read as {read:?}");
                }
            }
        }
    }

    #[test]
    fn takes_members_one_behind_the_other() {
        assert_eq!(run(Encoding::Gzip, &[gz(b"one "), gz(b"two")].concat()).unwrap(), b"one two");
        let frames = [zstd::bulk::compress(b"one ", 1).unwrap(), zstd::bulk::compress(b"two", 1).unwrap()].concat();
        assert_eq!(run(Encoding::Zstd, &frames).unwrap(), b"one two");
    }

    #[test]
    fn refuses_a_body_of_ever_more_empty_members() {
        for (encoding, empty) in [(Encoding::Gzip, gz(b"")), (Encoding::Zstd, zstd::bulk::compress(b"", 1).unwrap())] {
            let few = [empty.repeat(10), forms(b"x").into_iter().find(|(form, _)| *form == encoding).unwrap().1].concat();
            assert_eq!(run(encoding, &few).unwrap(), b"x");
            assert!(matches!(run(encoding, &empty.repeat(MEMBERS_MAX + 1)), Err(Refusal::Malformed { .. })), "{encoding:?}");
        }
    }

    #[test]
    fn refuses_a_window_beyond_eight_mebibytes() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[0; 1000]).unwrap();
        let body = encoder.finish().unwrap();
        assert!(matches!(run(Encoding::Zstd, &body), Err(Refusal::Malformed { .. })));
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        let mut body = gz(b"span");
        let crc = body.len() - 8;
        body[crc] ^= 1;
        assert!(matches!(run(Encoding::Gzip, &body), Err(Refusal::Malformed { .. })));
    }

    #[test]
    fn the_next_body_is_read_after_a_bad_one() {
        for (encoding, body) in forms(&b"span ".repeat(1000)) {
            drop(run(encoding, &body[..body.len() / 2]));
            assert_eq!(run(encoding, &body).unwrap(), b"span ".repeat(1000));
        }
    }

    #[test]
    fn reads_a_gzip_header_with_everything_in_it() {
        let plain = gz(b"span");
        let mut body = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 3, 2, 0, b'x', b'y'];
        body.extend_from_slice(b"name\0comment\0\0\0");
        body.extend_from_slice(&plain[10..]);
        assert_eq!(run(Encoding::Gzip, &body).unwrap(), b"span");
    }
}
