//! What gRPC puts around one message: the prefix, the metadata of an answer.
//!
//! Spec: gRPC over HTTP/2; `PROTOCOL-HTTP2.md` of grpc.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use tonic::Code;

use super::Error;

/// A flag byte and a length of four bytes.
pub const PREFIX_BYTES: usize = 5;
/// Messages in `grpc-message` and details in `grpc-status-details-bin` are cut to this, so that they fit peers' header limits.
const HEADER_BYTES_MAX: usize = 2048;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: &str = "grpc-timeout";
const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Whether the media type is gRPC's, with protobuf messages.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let Some((head, rest)) = content_type.split_at_checked(16) else { return false };
    head.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// Whether the messages of such a media type are protobuf: `application/grpc`, `application/grpc+proto`.
pub fn is_protobuf(content_type: &[u8]) -> bool {
    let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    name.get(16..).is_none_or(|format| format.is_empty() || format.eq_ignore_ascii_case(b"+proto"))
}

/// The message's flag (compressed or not) and length.
pub fn prefix(bytes: [u8; PREFIX_BYTES]) -> (u8, usize) {
    let [flag, a, b, c, d] = bytes;
    (flag, u32::from_be_bytes([a, b, c, d]) as usize)
}

/// A message with its prefix, not compressed.
pub fn framed(message: &[u8]) -> Bytes {
    if message.is_empty() {
        return Bytes::from_static(&[0; PREFIX_BYTES]);
    }
    let mut out = Vec::with_capacity(PREFIX_BYTES + message.len());
    out.push(0);
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

/// `grpc-timeout`: at most eight digits and a unit.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (digits, unit) =
        headers.get(GRPC_TIMEOUT)?.to_str().ok()?.split_at_checked(headers.get(GRPC_TIMEOUT)?.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What an answer is made of: nothing, one piece, or a piece and trailers.
#[derive(Debug, Default)]
pub struct Answer {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl From<Bytes> for Answer {
    fn from(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = self.data.take().map(Frame::data).or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // A length would be announced in a header, which gRPC answers do not have.
        if self.trailers.is_some() {
            SizeHint::new()
        } else {
            SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
        }
    }
}

/// The answer to a unary call that went well.
pub fn ok(message: &[u8]) -> Response<Answer> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let mut answer = Response::new(Answer { data: Some(framed(message)), trailers: Some(trailers) });
    answer.headers_mut().insert(CONTENT_TYPE, APPLICATION_GRPC);
    answer
}

/// The answer to a call that did not: headers only. `details` is an encoded `google.rpc.Status`, or empty.
pub fn error(code: Code, message: &str, details: &[u8]) -> Response<Answer> {
    let mut answer = Response::new(Answer::default());
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.reserve(5);
    headers.insert(CONTENT_TYPE, APPLICATION_GRPC);
    put_status(headers, code, message, details);
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd,snappy,deflate"));
    // Over HTTP/1.1 a missing length would mean chunks.
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    answer
}

/// `grpc-status` and what belongs to it, as headers or trailers.
pub fn put_status(headers: &mut HeaderMap, code: Code, message: &str, details: &[u8]) {
    headers.insert(GRPC_STATUS, HeaderValue::from(code as i32));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if !details.is_empty()
        && details.len() <= HEADER_BYTES_MAX
        && let Ok(details) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(details))
    {
        headers.insert(GRPC_STATUS_DETAILS, details);
    }
}

/// Printable ASCII but the percent sign stays; all else is written as `%XX`, at most [`HEADER_BYTES_MAX`] bytes in all.
fn percent_encoded(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if out.len() + 3 > HEADER_BYTES_MAX {
            break;
        }
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_media_types() {
        for (text, fits) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(text.as_bytes()), fits, "{text}");
        }
    }

    #[test]
    fn reads_timeouts_of_every_unit() {
        for (text, expected) in [
            ("10S", Some(Duration::from_secs(10))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("1m", Some(Duration::from_millis(1))),
            ("5u", Some(Duration::from_micros(5))),
            ("S", None),
            ("", None),
            ("999999999S", None),
            ("1é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(timeout(&headers), expected, "{text}");
        }
    }

    #[test]
    fn escapes_what_is_not_printable() {
        assert_eq!(percent_encoded("50% of\nü"), "50%25 of%0A%C3%BC");
        assert!(percent_encoded(&"ü".repeat(5000)).len() <= HEADER_BYTES_MAX);
    }
}
