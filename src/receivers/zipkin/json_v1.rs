//! Zipkin's JSON, version 1: what is a field in version 2 stands in annotations there (`cs`, `sr`, `sa`, …).
//!
//! Spec: Zipkin API, `/api/v1/spans`; Zipkin's own rules for reading version 1 as version 2.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use super::{
    json::{Bounded, WrittenEndpoint, each, micros},
    span::{Endpoint, Kind, Span},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    duration: Option<i64>,
    #[serde(borrow, default)]
    annotations: Option<Bounded<Annotation<'a>>>,
    #[serde(borrow, default)]
    binary_annotations: Option<Bounded<Binary<'a>>>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    #[serde(default)]
    timestamp: i64,
    #[serde(borrow, default)]
    value: Cow<'a, str>,
    #[serde(borrow, default)]
    endpoint: Option<WrittenEndpoint<'a>>,
}

#[derive(Deserialize)]
struct Binary<'a> {
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Scalar<'a>,
    #[serde(borrow, default)]
    endpoint: Option<WrittenEndpoint<'a>>,
}

/// Addresses are written as `true`, and some senders write numbers. Anything else is refused unread: what is between its brackets would
/// take many times its size.
struct Scalar<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a boolean")
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Borrowed(if value { "true" } else { "false" })))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(value.to_string())))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(value.to_string())))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(value.to_string())))
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// Hands on each span of a version 1 body; an error of `take` ends it.
pub(super) fn spans<'a>(body: &'a [u8], mut take: impl FnMut(&Span<'a>) -> Result<(), String>) -> Result<(), String> {
    each(body, |written: Written<'a>| take(&written.read()?))
}

const fn kind(annotation: &str) -> Option<Kind> {
    Some(match annotation.as_bytes() {
        b"cs" | b"cr" => Kind::Client,
        b"sr" | b"ss" => Kind::Server,
        b"ms" => Kind::Producer,
        b"mr" => Kind::Consumer,
        _ => return None,
    })
}

impl<'a> Written<'a> {
    fn read(self) -> Result<Span<'a>, String> {
        let mut span = Span {
            name: self.name.unwrap_or_default(),
            start: micros(self.timestamp.unwrap_or(0)),
            duration: micros(self.duration.unwrap_or(0)),
            ..Span::identified(&self.trace_id, &self.id, self.parent_id.as_deref())?
        };
        let mut times: Option<(u64, u64)> = None;
        let mut fallback = Endpoint::default();
        for Annotation { timestamp, value, endpoint } in self.annotations.map_or(Vec::new(), |list| list.0) {
            let (time, endpoint) = (micros(timestamp), endpoint.unwrap_or_default().read());
            if time > 0 {
                let (first, last) = times.unwrap_or((time, time));
                times = Some((first.min(time), last.max(time)));
            }
            if let Some(kind) = kind(&value) {
                // The first one says it; a span that both sides wrote into is told of as the first one's.
                if span.kind == Kind::Unspecified {
                    span.kind = kind;
                }
                if span.local.service.is_empty() {
                    span.local = endpoint;
                }
            } else if !value.is_empty() {
                if fallback.service.is_empty() {
                    fallback = endpoint;
                }
                span.annotations.push((time, value));
            }
        }
        for Binary { key, value, endpoint } in self.binary_annotations.map_or(Vec::new(), |list| list.0) {
            let endpoint = endpoint.unwrap_or_default().read();
            // Who is at the other end: the server of a client, the client of a server, the broker.
            let is_address =
                matches!((&*key, span.kind), ("sa", Kind::Client | Kind::Unspecified) | ("ca", Kind::Server) | ("ma", _));
            if is_address {
                span.remote = endpoint;
                continue;
            }
            if fallback.service.is_empty() {
                fallback = endpoint;
            }
            let value = value.0;
            if &*key == "lc" {
                if fallback.service.is_empty() {
                    fallback.service.clone_from(&value);
                }
                span.tags.push((Cow::Borrowed("component"), value));
            } else {
                span.tags.push((key, value));
            }
        }
        if span.local.service.is_empty() {
            span.local = fallback;
        }
        if span.start == 0
            && let Some((first, last)) = times
        {
            (span.start, span.duration) = (first, last - first);
        }
        Ok(span)
    }
}
