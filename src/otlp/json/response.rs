//! The JSON forms of what a server answers: the same contents and bounds as [`crate::otlp::response`].

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    otlp::response::{
        BAD_REQUEST, DETAILS_MAX, Details, MESSAGE_BYTES_MAX, Malformed, Partial, RETRY_AFTER_MAX, RETRY_INFO, Status,
        bounded_delay, cut,
    },
    signal::Signal,
};

/// The name of the count of what was rejected.
const fn rejected_key(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
    }
}

/// The body of an `Export*ServiceResponse`: `{}` when all was taken.
pub fn encode_success(signal: Signal, partial: Option<(u64, &str)>) -> Vec<u8> {
    let Some((rejected, message)) = partial else { return b"{}".to_vec() };
    let mut inner = serde_json::Map::new();
    if rejected > 0 {
        // The field is an int64, and those are strings.
        inner.insert(rejected_key(signal).to_owned(), rejected.min(i64::MAX as u64).to_string().into());
    }
    if !message.is_empty() {
        inner.insert("errorMessage".to_owned(), cut(message, MESSAGE_BYTES_MAX).into());
    }
    serde_json::json!({ "partialSuccess": inner }).to_string().into_bytes()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Count<'a> {
    Number(i64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

#[derive(Deserialize, Default)]
struct PartialForm<'a> {
    #[serde(
        borrow,
        default,
        rename = "rejectedSpans",
        alias = "rejectedDataPoints",
        alias = "rejectedLogRecords",
        alias = "rejected_spans",
        alias = "rejected_data_points",
        alias = "rejected_log_records"
    )]
    rejected: Option<Count<'a>>,
    #[serde(default, rename = "errorMessage", alias = "error_message")]
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct SuccessForm<'a> {
    #[serde(borrow, default, rename = "partialSuccess", alias = "partial_success")]
    partial: Option<PartialForm<'a>>,
}

/// What a server said of a request it took; as [`crate::otlp::response::decode_success`].
pub fn decode_success(_signal: Signal, body: &[u8]) -> Result<Option<Partial>, Malformed> {
    let form: SuccessForm<'_> = serde_json::from_slice(body).map_err(|_| Malformed)?;
    let form = form.partial.unwrap_or_default();
    let rejected = match form.rejected {
        None => 0,
        Some(Count::Number(count)) => count,
        Some(Count::Text(text)) => text.parse().map_err(|_| Malformed)?,
    };
    let partial = Partial {
        rejected: u64::try_from(rejected).unwrap_or(0),
        message: cut(form.message.as_deref().unwrap_or_default(), MESSAGE_BYTES_MAX).to_owned(),
    };
    Ok((partial != Partial::default()).then_some(partial))
}

#[derive(Serialize)]
struct StatusForm<'a> {
    code: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<DetailForm<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum DetailForm<'a> {
    RetryInfo {
        #[serde(rename = "@type")]
        kind: &'static str,
        #[serde(rename = "retryDelay")]
        delay: String,
    },
    BadRequest {
        #[serde(rename = "@type")]
        kind: &'static str,
        #[serde(rename = "fieldViolations")]
        violations: Vec<ViolationForm<'a>>,
    },
}

#[derive(Serialize)]
struct ViolationForm<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
}

/// A `google.rpc.Status`: the body of an HTTP error.
pub fn encode_status(code: i32, message: &str, details: &Details<'_>) -> Vec<u8> {
    let mut list = Vec::new();
    if let Some(after) = details.retry_after {
        list.push(DetailForm::RetryInfo { kind: RETRY_INFO, delay: delay_text(after.min(RETRY_AFTER_MAX)) });
    }
    if !details.violations.is_empty() {
        let violations = details.violations.iter().take(DETAILS_MAX);
        let violations = violations.map(|(field, description)| ViolationForm {
            field: cut(field, MESSAGE_BYTES_MAX),
            description: cut(description, MESSAGE_BYTES_MAX),
        });
        list.push(DetailForm::BadRequest { kind: BAD_REQUEST, violations: violations.collect() });
    }
    let form = StatusForm { code, message: cut(message, MESSAGE_BYTES_MAX), details: list };
    serde_json::to_vec(&form).expect("strings and numbers can always be written")
}

/// A `google.protobuf.Duration` in JSON: seconds with 0, 3, 6 or 9 decimals.
fn delay_text(delay: Duration) -> String {
    let (seconds, nanos) = (delay.as_secs(), delay.subsec_nanos());
    match nanos {
        0 => format!("{seconds}s"),
        _ if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanos / 1_000_000),
        _ if nanos % 1_000 == 0 => format!("{seconds}.{:06}s", nanos / 1_000),
        _ => format!("{seconds}.{nanos:09}s"),
    }
}

#[derive(Deserialize)]
struct ReceivedStatus<'a> {
    #[serde(default)]
    code: Option<i32>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(default)]
    details: Vec<ReceivedDetail<'a>>,
}

#[derive(Deserialize)]
struct ReceivedDetail<'a> {
    #[serde(borrow, default, rename = "@type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default, rename = "retryDelay", alias = "retry_delay")]
    delay: Option<Cow<'a, str>>,
}

/// Reads a peer's status; an answer that is no such status gives the default one.
pub fn decode_status(body: &[u8]) -> Status {
    let Ok(form) = serde_json::from_slice::<ReceivedStatus<'_>>(body) else { return Status::default() };
    let retry_after = form
        .details
        .iter()
        .take(DETAILS_MAX)
        .filter(|detail| detail.kind.as_deref().is_some_and(|kind| kind.rsplit('/').next() == Some("google.rpc.RetryInfo")))
        .find_map(|detail| parse_delay(detail.delay.as_deref()?));
    Status {
        code: form.code.unwrap_or(0),
        message: cut(form.message.as_deref().unwrap_or_default(), MESSAGE_BYTES_MAX).to_owned(),
        retry_after,
    }
}

/// `1.5s`; negative delays are none at all.
fn parse_delay(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    if seconds.starts_with('-') {
        return seconds.parse::<i64>().ok().map(|_| Duration::ZERO);
    }
    Some(bounded_delay(seconds.parse().ok()?, nanos))
}
