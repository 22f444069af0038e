//! What a scraper asks for: format, escaping scheme, compression.
//!
//! Spec: Prometheus "Content negotiation"; RFC 9110 §12.5. What is not understood is passed over; nothing understood gives text 0.0.4.

use http::{HeaderMap, header};

use super::Escaping;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text0_0_4,
    Text1_0_0,
    OpenMetrics0_0_1,
    OpenMetrics1_0_0,
    /// `io.prometheus.client.MetricFamily`, each after its length.
    Protobuf,
}

impl Format {
    pub const fn is_open_metrics(self) -> bool {
        matches!(self, Self::OpenMetrics0_0_1 | Self::OpenMetrics1_0_0)
    }

    /// The `Content-Type` of a page, which Prometheus 3 insists on.
    pub fn content_type(self, escaping: Escaping) -> String {
        let kind = match self {
            Self::Text0_0_4 => "text/plain; version=0.0.4; charset=utf-8",
            Self::Text1_0_0 => "text/plain; version=1.0.0; charset=utf-8",
            Self::OpenMetrics0_0_1 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Self::OpenMetrics1_0_0 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        };
        format!("{kind}; escaping={}", escaping.as_str())
    }
}

/// The answer to an `Accept` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub format: Format,
    pub escaping: Escaping,
}

/// The best of what is accepted; the client's order breaks ties.
pub fn choose(headers: &HeaderMap, open_metrics: bool) -> Choice {
    let mut best: Option<(u16, Choice)> = None;
    for range in values(headers, header::ACCEPT) {
        let Some((weight, choice)) = understand(range, open_metrics) else { continue };
        if weight > 0 && best.is_none_or(|(known, _)| weight > known) {
            best = Some((weight, choice));
        }
    }
    best.map_or(Choice { format: Format::Text0_0_4, escaping: Escaping::Underscores }, |(_, choice)| choice)
}

/// One media range of an `Accept` header.
fn understand(range: &str, open_metrics: bool) -> Option<(u16, Choice)> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let (mut version, mut proto, mut encoding, mut escaping, mut weight) = (None, None, None, None, 1000);
    for part in parts {
        let Some((key, value)) = part.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value),
            "proto" => proto = Some(value),
            "encoding" => encoding = Some(value),
            "escaping" => escaping = Escaping::parse(value),
            "q" => weight = quality(value),
            _ => {}
        }
    }
    let format = match media.as_str() {
        "application/vnd.google.protobuf" => {
            let ours = proto == Some("io.prometheus.client.MetricFamily") && encoding == Some("delimited");
            ours.then_some(Format::Protobuf)?
        }
        "application/openmetrics-text" if open_metrics => match version {
            Some("1.0.0") => Format::OpenMetrics1_0_0,
            Some("0.0.1") | None => Format::OpenMetrics0_0_1,
            Some(_) => return None,
        },
        "text/plain" => match version {
            Some("1.0.0") => Format::Text1_0_0,
            Some("0.0.4") | None => Format::Text0_0_4,
            Some(_) => return None,
        },
        "text/*" | "*/*" => Format::Text0_0_4,
        _ => return None,
    };
    let escaping = match (format, escaping) {
        // These have no syntax for names in quotes.
        (Format::Text0_0_4 | Format::OpenMetrics0_0_1, Some(Escaping::AllowUtf8)) => Escaping::Underscores,
        (_, escaping) => escaping.unwrap_or_default(),
    };
    Some((weight, Choice { format, escaping }))
}

/// Whether the answer may be gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut named = None;
    let mut any = None;
    for range in values(headers, header::ACCEPT_ENCODING) {
        let mut parts = range.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts
            .find_map(|part| part.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("q")))
            .map_or(1000, |(_, value)| quality(value.trim()));
        match coding.as_str() {
            "gzip" | "x-gzip" => named = Some(weight),
            "*" => any = Some(weight),
            _ => {}
        }
    }
    named.or(any).is_some_and(|weight| weight > 0)
}

fn values(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','))
}

/// `q` in thousandths; what is no number counts as nothing.
fn quality(text: &str) -> u16 {
    text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).map_or(0, |q| (q * 1000.0).round() as u16)
}
