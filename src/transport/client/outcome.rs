//! What a backend's answer means for the data: the one table.
//!
//! | gRPC | HTTP | outcome |
//! |---|---|---|
//! | `OK` | 2xx | `Delivered`; with `partial_success`: `Partial`, or a warning where nothing was rejected |
//! | `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `CANCELLED`, `ABORTED`, `OUT_OF_RANGE`, `DATA_LOSS` | 429, 502, 503, 504 | `Retry`, passing, after the peer's hint |
//! | `RESOURCE_EXHAUSTED` with `RetryInfo` | | `Retry`, passing |
//! | `RESOURCE_EXHAUSTED` without, `OUT_OF_RANGE` about a message's length | 413 | `TooLarge` |
//! | `UNAUTHENTICATED`, `PERMISSION_DENIED` | 401, 403 | `Retry`, blocked: someone has to act, the data is not at fault; with credentials that came with the data: denied |
//! | | 407, 3xx | `Retry`, blocked |
//! | `UNIMPLEMENTED` | 404 | `Unsupported` |
//! | `INVALID_ARGUMENT` | 400, 422 | `Rejected` |
//! | all others | all others | `Refused` |
//! | no connection, a broken one | the same | `Retry`, passing |
//! | no such name, no TLS, not this protocol, refused by a proxy | the same | `Retry`, blocked |
//!
//! Spec: OTLP "Failures" of both transports, with the retryable codes widened to what may pass.

use std::time::Duration;

use ::http::{
    HeaderMap,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    connect::ConnectError,
    grpc::{Answer, CallError},
    http,
};
use crate::{
    component::{AuthError, Outcome, RetryCause},
    otlp::{
        self,
        response::{self, Status},
    },
    signal::{Signal, UnixNanos},
};

/// Texts of a peer are cut to this many bytes before they reach a log.
const TEXT_BYTES_MAX: usize = 512;

/// gRPC's numbers for statuses.
pub mod code {
    pub const OK: i32 = 0;
    pub const CANCELLED: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const INVALID_ARGUMENT: i32 = 3;
    pub const DEADLINE_EXCEEDED: i32 = 4;
    pub const NOT_FOUND: i32 = 5;
    pub const ALREADY_EXISTS: i32 = 6;
    pub const PERMISSION_DENIED: i32 = 7;
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    pub const FAILED_PRECONDITION: i32 = 9;
    pub const ABORTED: i32 = 10;
    pub const OUT_OF_RANGE: i32 = 11;
    pub const UNIMPLEMENTED: i32 = 12;
    pub const INTERNAL: i32 = 13;
    pub const UNAVAILABLE: i32 = 14;
    pub const DATA_LOSS: i32 = 15;
    pub const UNAUTHENTICATED: i32 = 16;
}

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Reads answers for one exporter.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// A peer's hint is not followed further than this: a wrong one must not stop delivery for days.
    pub retry_after_max: Duration,
    /// The credentials are those that came with the data.
    pub credentials_of_context: bool,
}

impl Reader {
    /// The answer to a gRPC call, or what stood in its way.
    pub fn grpc(&self, signal: Signal, called: Result<Answer, CallError>) -> Outcome {
        match called {
            Err(CallError::Connect(error)) => connect(&error),
            Err(error @ CallError::Broken { .. }) => retry(RetryCause::Passing, error.to_string(), None),
            Err(error @ CallError::Foreign { .. }) => retry(RetryCause::Blocked, error.to_string(), None),
            // OTLP: an answer over the limit is not retryable.
            Err(error @ CallError::AnswerTooLarge { .. }) => Outcome::Rejected { message: error.to_string() },
            Ok(answer) => self.grpc_answer(signal, &answer),
        }
    }

    fn grpc_answer(&self, signal: Signal, answer: &Answer) -> Outcome {
        let status =
            answer.trailers.get("grpc-status").and_then(|status| status.to_str().ok()).and_then(|code| code.parse::<i32>().ok());
        let Some(code) = status else {
            let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("no content type");
            let text = format!("HTTP {} without a gRPC status ({}): is this a gRPC port?", answer.http_status, shown(kind));
            return self.grpc_status(signal, code_of_http(answer.http_status), &text, None);
        };
        if code == code::OK {
            return answer.body.as_ref().map_or_else(unreadable, |body| success(signal, body, false));
        }
        let details = details(&answer.trailers);
        let text =
            answer.trailers.get("grpc-message").map_or_else(|| details.message.clone(), |text| percent_decoded(text.as_bytes()));
        self.grpc_status(signal, code, &text, details.retry_after)
    }

    /// The row of a gRPC status.
    pub fn grpc_status(&self, signal: Signal, code: i32, text: &str, after: Option<Duration>) -> Outcome {
        let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("unknown status");
        let message = if text.is_empty() { name.to_owned() } else { format!("{name}: {}", shown(text)) };
        match code {
            // tonic says this of a message over its limit; repeating it would never end.
            code::OUT_OF_RANGE if text.contains("message length too large") => {
                Outcome::TooLarge { limit: size_limit(text), message }
            }
            code::CANCELLED
            | code::DEADLINE_EXCEEDED
            | code::ABORTED
            | code::OUT_OF_RANGE
            | code::UNAVAILABLE
            | code::DATA_LOSS => self.passing(message, after),
            code::RESOURCE_EXHAUSTED if after.is_some() => self.passing(message, after),
            code::RESOURCE_EXHAUSTED => Outcome::TooLarge { limit: size_limit(text), message },
            code::UNAUTHENTICATED | code::PERMISSION_DENIED => self.denied(message),
            code::UNIMPLEMENTED => unsupported(signal, &message),
            code::INVALID_ARGUMENT => Outcome::Rejected { message },
            _ => Outcome::Refused { status: u16::try_from(code).unwrap_or(u16::MAX), message },
        }
    }

    /// The answer to an HTTP request whose body was JSON (`json`) or protobuf.
    pub fn http(&self, signal: Signal, answer: &http::Answer, json: bool, now: UnixNanos) -> Outcome {
        if (200..300).contains(&answer.status) {
            return if answer.cut {
                Outcome::Delivered { warning: Some("the backend accepted it with an answer too large to read".to_owned()) }
            } else {
                // The answer is in the request's encoding, unless it says otherwise.
                let kind = content_type(&answer.headers);
                let json = if json { !kind.starts_with("application/x-protobuf") } else { kind.starts_with("application/json") };
                success(signal, &answer.body, json)
            };
        }
        let headers = &answer.headers;
        let told = told(headers, &answer.body);
        let hint = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now));
        let location = headers.get(LOCATION).map(|to| shown_bytes(to.as_bytes()));
        self.http_status(signal, answer.status, &told.message, hint.or(told.retry_after), location)
    }

    fn http_status(&self, signal: Signal, status: u16, text: &str, after: Option<Duration>, location: Option<String>) -> Outcome {
        let message = if text.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {}", shown(text)) };
        match status {
            300..=399 => {
                let to = location.unwrap_or_else(|| "nowhere".to_owned());
                let reason = format!(
                    "HTTP {status}: the backend redirects to {to}, which weir does not follow; set that as `endpoint` if it is right"
                );
                retry(RetryCause::Blocked, reason, None)
            }
            401 | 403 => self.denied(message),
            407 => retry(RetryCause::Blocked, message, None),
            404 => unsupported(signal, &message),
            413 => Outcome::TooLarge { limit: size_limit(text), message },
            429 | 502 | 503 | 504 => self.passing(message, after),
            400 | 422 => Outcome::Rejected { message },
            _ => Outcome::Refused { status, message },
        }
    }

    fn denied(&self, message: String) -> Outcome {
        retry(if self.credentials_of_context { RetryCause::Denied } else { RetryCause::Blocked }, message, None)
    }

    fn passing(&self, reason: String, after: Option<Duration>) -> Outcome {
        retry(RetryCause::Passing, reason, after.map(|after| after.min(self.retry_after_max)))
    }
}

/// No connection.
pub fn connect(error: &ConnectError) -> Outcome {
    retry(if error.is_blocked() { RetryCause::Blocked } else { RetryCause::Unreached }, error.to_string(), None)
}

/// The credentials for a request cannot be had.
pub fn auth(error: &AuthError) -> Outcome {
    let cause = if matches!(error, AuthError::Unavailable(_)) { RetryCause::Passing } else { RetryCause::Blocked };
    retry(cause, error.to_string(), None)
}

fn retry(cause: RetryCause, reason: String, after: Option<Duration>) -> Outcome {
    Outcome::Retry { reason, after, cause }
}

fn unsupported(signal: Signal, detail: &str) -> Outcome {
    Outcome::Unsupported { message: format!("this backend takes no {signal} ({detail})") }
}

fn success(signal: Signal, body: &[u8], json: bool) -> Outcome {
    let said = if json { otlp::json::decode_success(signal, body) } else { response::decode_success(signal, body) };
    match said {
        Ok(partial) => accepted(partial),
        Err(_) => unreadable(),
    }
}

/// The status said yes; what else was said cannot be read.
fn unreadable() -> Outcome {
    Outcome::Delivered { warning: Some("the backend accepted it with an answer that cannot be read".to_owned()) }
}

fn accepted(partial: Option<response::Partial>) -> Outcome {
    match partial {
        None => Outcome::DELIVERED,
        Some(partial) if partial.rejected == 0 => Outcome::Delivered { warning: Some(shown(&partial.message)) },
        Some(partial) => Outcome::Partial { rejected: partial.rejected, message: shown(&partial.message) },
    }
}

/// What gRPC makes of an HTTP status that came without its own ("HTTP to gRPC Status Code Mapping").
const fn code_of_http(status: u16) -> i32 {
    match status {
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 | 407 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        413 => code::RESOURCE_EXHAUSTED,
        429 | 502 | 503 | 504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

fn details(trailers: &HeaderMap) -> Status {
    // Padding is optional on the wire.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let details = trailers.get("grpc-status-details-bin").and_then(|value| LENIENT.decode(value.as_bytes()).ok());
    details.map(|bytes| response::decode_status(&bytes)).unwrap_or_default()
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

/// What an HTTP error says: `google.rpc.Status` in protobuf or JSON, or plain text.
fn told(headers: &HeaderMap, body: &[u8]) -> Status {
    let kind = content_type(headers);
    if kind.starts_with("application/x-protobuf") {
        response::decode_status(body)
    } else if kind.starts_with("application/json") {
        otlp::json::decode_status(body)
    } else if kind.starts_with("text/plain") {
        Status { message: shown_bytes(body), ..Status::default() }
    } else {
        Status::default()
    }
}

/// `Retry-After`: seconds, or a date.
pub fn retry_after(value: &str, now: UnixNanos) -> Option<Duration> {
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(Duration::from_nanos(now.0)))
}

/// The limit that a refusal names: "larger than max (5000000 vs. 4194304)", "the limit is: 4194304 bytes", "larger than max 4194304".
fn size_limit(text: &str) -> Option<usize> {
    ["vs. ", "limit is: ", "larger than max "].into_iter().find_map(|before| {
        let (_, rest) = text.split_once(before)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse().ok().filter(|limit| *limit > 0)
    })
}

/// gRPC percent-encodes `grpc-message`; what is not valid is left as it is.
fn percent_decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        let digits = rest.as_slice().first_chunk::<2>();
        let value = digits.filter(|_| *byte == b'%').and_then(|[high, low]| {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            Some((digit(high)? * 16 + digit(low)?) as u8)
        });
        match value {
            Some(value) => {
                out.push(value);
                rest.nth(1);
            }
            None => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn shown_bytes(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes.get(..TEXT_BYTES_MAX * 2).unwrap_or(bytes)))
}

/// A peer's text, fit for a log line: cut, and without control characters.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > TEXT_BYTES_MAX {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}
