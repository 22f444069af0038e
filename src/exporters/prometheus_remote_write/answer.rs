//! What a server's answer means for the samples that were sent.
//!
//! | status | means |
//! |---|---|
//! | 2xx | taken; in version 2 only with its `…-Written` headers: who does not know the version says yes and stores nothing |
//! | 413 | too large: halved |
//! | 415 | version 2 is not spoken: version 1 from then on |
//! | 401, 403, 407, 3xx, 404, 405 | someone has to act (credentials, address, a receiver that is switched off): waits |
//! | 429, 503 | busy: waits, for as long as `Retry-After` says |
//! | 500 that says that native histograms are switched off | refused |
//! | 500 | fails: about these samples where others are taken meanwhile, otherwise it waits |
//! | other 5xx, 408 | waits |
//! | 400 and all others | refused: the samples that are at fault are looked for |
//!
//! Spec: Prometheus Remote-Write 1.0 "Retries", 2.0 "Partial Write" and "Required Written Response Headers".

use std::time::Duration;

use http::{
    HeaderMap,
    header::{LOCATION, RETRY_AFTER},
};

use super::encode::{Amount, Version};
use crate::{
    component::RetryCause,
    signal::UnixNanos,
    transport::client::{http::Answer, outcome},
};

const SAMPLES_WRITTEN: &str = "x-prometheus-remote-write-samples-written";
const HISTOGRAMS_WRITTEN: &str = "x-prometheus-remote-write-histograms-written";
/// Characters of a server's words that are kept.
const WORDS_MAX: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// With what a server of version 2 says to have written.
    Taken(Option<Amount>),
    /// Something in it is refused for good. A server that says that it wrote nothing may have refused good neighbours along with it.
    Refused(String),
    TooLarge(String),
    /// 500: about the samples, or about the server.
    Fails(String),
    Waits {
        cause: RetryCause,
        reason: String,
        after: Option<Duration>,
    },
    /// It does not speak this version.
    NotSpoken(String),
}

pub(super) fn read(version: Version, answer: &Answer, now: UnixNanos) -> Said {
    let written = written(&answer.headers);
    let words = words(&answer.body);
    let status = answer.status;
    let reason = if words.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {words}") };
    let waits = |cause, after| Said::Waits { cause, reason: reason.clone(), after };
    let hint = || answer.headers.get(RETRY_AFTER).and_then(|value| outcome::retry_after(value.to_str().ok()?, now));
    match status {
        200..=299 if version == Version::Two && written.is_none() => {
            Said::NotSpoken(format!("{reason}, without a word about what it wrote"))
        }
        200..=299 => Said::Taken(written),
        300..=399 => {
            let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let reason = format!(
                "HTTP {status}: the server redirects to {to}, which weir does not follow; set that as `endpoint` if it is right"
            );
            Said::Waits { cause: RetryCause::Blocked, reason, after: None }
        }
        415 if version == Version::Two => Said::NotSpoken(reason),
        401 | 403 | 404 | 405 | 407 | 415 => waits(RetryCause::Blocked, None),
        413 => Said::TooLarge(reason),
        429 | 503 => waits(RetryCause::Busy, hint()),
        // Prometheus says so of samples that it will never take, until it is started otherwise.
        500 if words.contains("native histogram") => Said::Refused(reason),
        500 => Said::Fails(reason),
        408 | 501..=599 => waits(RetryCause::Passing, hint()),
        _ => Said::Refused(reason),
    }
}

fn written(headers: &HeaderMap) -> Option<Amount> {
    let number = |name| headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let (samples, histograms) = (number(SAMPLES_WRITTEN), number(HISTOGRAMS_WRITTEN));
    (samples.is_some() || histograms.is_some())
        .then(|| Amount { samples: samples.unwrap_or(0), histograms: histograms.unwrap_or(0) })
}

/// The first line or so of what a server said.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(4 * WORDS_MAX)).unwrap_or_default());
    let mut words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(WORDS_MAX) {
        words.truncate(end);
        words.push('…');
    }
    words
}
