//! Zipkin's JSON, version 2: a list of spans, each handed on as soon as it is read.
//!
//! Spec: Zipkin API, `/api/v2/spans`.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};

use super::span::{Endpoint, Kind, PARTS_MAX, Span};

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
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    duration: Option<i64>,
    #[serde(borrow, default)]
    local_endpoint: Option<WrittenEndpoint<'a>>,
    #[serde(borrow, default)]
    remote_endpoint: Option<WrittenEndpoint<'a>>,
    #[serde(borrow, default)]
    annotations: Option<Bounded<Annotation<'a>>>,
    #[serde(borrow, default)]
    tags: Option<Tags<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct WrittenEndpoint<'a> {
    #[serde(borrow, default)]
    service_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ipv4: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ipv6: Option<Cow<'a, str>>,
    #[serde(default)]
    port: Option<u16>,
}

impl<'a> WrittenEndpoint<'a> {
    pub(super) fn read(self) -> Endpoint<'a> {
        Endpoint {
            service: self.service_name.unwrap_or_default(),
            ipv4: self.ipv4.unwrap_or_default(),
            ipv6: self.ipv6.unwrap_or_default(),
            port: self.port.unwrap_or(0),
        }
    }
}

#[derive(Deserialize)]
struct Annotation<'a> {
    #[serde(default)]
    timestamp: i64,
    #[serde(borrow, default)]
    value: Cow<'a, str>,
}

/// A list of so many at most.
pub(super) struct Bounded<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = Bounded<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {PARTS_MAX}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    if all.len() >= PARTS_MAX {
                        return Err(A::Error::invalid_length(all.len() + 1, &self));
                    }
                    all.push(one);
                }
                Ok(Bounded(all))
            }
        }
        deserializer.deserialize_seq(Shape(std::marker::PhantomData))
    }
}

/// Names and values in the order in which they came.
struct Tags<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// A string that is borrowed where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Tags<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Tags<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {PARTS_MAX} tags with texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags<'de>, A::Error> {
                let mut tags = Vec::new();
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    if tags.len() >= PARTS_MAX {
                        return Err(A::Error::invalid_length(tags.len() + 1, &self));
                    }
                    tags.push((name, value));
                }
                Ok(Tags(tags))
            }
        }
        deserializer.deserialize_map(Shape)
    }
}

/// Reads a list and hands each element to `take`, whose error ends it.
pub(super) fn each<'a, T: Deserialize<'a>>(body: &'a [u8], take: impl FnMut(T) -> Result<(), String>) -> Result<(), String> {
    struct List<T, F>(F, std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), String>> Visitor<'de> for List<T, F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of spans")
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            let mut number = 0_u64;
            while let Some(element) = list.next_element::<T>()? {
                number += 1;
                (self.0)(element).map_err(|problem| A::Error::custom(format!("span {number}: {problem}")))?;
            }
            Ok(())
        }
    }
    impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), String>> DeserializeSeed<'de> for List<T, F> {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_seq(self)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    List(take, std::marker::PhantomData).deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())
}

/// Hands on each span of a version 2 body; an error of `take` ends it.
pub(super) fn spans<'a>(body: &'a [u8], mut take: impl FnMut(&Span<'a>) -> Result<(), String>) -> Result<(), String> {
    each(body, |written: Written<'a>| take(&written.read()?))
}

/// Times and durations below 0 are none.
pub(super) fn micros(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl<'a> Written<'a> {
    fn read(self) -> Result<Span<'a>, String> {
        Ok(Span {
            name: self.name.unwrap_or_default(),
            kind: match self.kind.as_deref().unwrap_or_default() {
                "CLIENT" => Kind::Client,
                "SERVER" => Kind::Server,
                "PRODUCER" => Kind::Producer,
                "CONSUMER" => Kind::Consumer,
                _ => Kind::Unspecified,
            },
            start: micros(self.timestamp.unwrap_or(0)),
            duration: micros(self.duration.unwrap_or(0)),
            local: self.local_endpoint.unwrap_or_default().read(),
            remote: self.remote_endpoint.unwrap_or_default().read(),
            annotations: self.annotations.map_or(Vec::new(), |annotations| {
                annotations.0.into_iter().map(|annotation| (micros(annotation.timestamp), annotation.value)).collect()
            }),
            tags: self.tags.map_or(Vec::new(), |tags| tags.0),
            ..Span::identified(&self.trace_id, &self.id, self.parent_id.as_deref())?
        })
    }
}
