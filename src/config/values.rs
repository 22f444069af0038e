//! Values with a syntax of their own: durations, secrets, lists, optional sections.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A Go duration: `300ms`, `1h30m`, `1.5s`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// The syntax of Go's `time.ParseDuration`, without negative values.
    pub fn parse(text: &str) -> Option<Duration> {
        if text == "0" {
            return Some(Duration::ZERO);
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at_checked(digits)?;
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, next) = tail.split_at_checked(unit_end)?;
            let unit_nanos: f64 = match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
            let nanos = number.parse::<f64>().ok()? * unit_nanos;
            total = total.checked_add(Duration::try_from_secs_f64(nanos / 1e9).ok()?)?;
            rest = next;
        }
        Some(total)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 300ms, 10s or 1h30m")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                GoDuration::parse(text).map(GoDuration).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            // The Collector takes a bare number as nanoseconds.
            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<GoDuration, E> {
                Ok(GoDuration(Duration::from_nanos(nanos)))
            }
            fn visit_i64<E: de::Error>(self, nanos: i64) -> Result<GoDuration, E> {
                u64::try_from(nanos)
                    .map(|nanos| GoDuration(Duration::from_nanos(nanos)))
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(nanos), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A string that never shows in a dump, a log or a panic.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// A list of strings, or one string with commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringList(pub Vec<String>);

impl<'de> Deserialize<'de> for StringList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Many(Vec<String>),
            One(String),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Many(list) => list,
            Written::One(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        }))
    }
}

/// A section that is off unless its key is written; a null value means its defaults, `enabled: false` switches it off again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<T>(pub Option<T>);

impl<T> Section<T> {
    pub const fn absent() -> Self {
        Self(None)
    }

    pub const fn present(value: T) -> Self {
        Self(Some(value))
    }

    pub const fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// The name by which the configuration reader recognises a [`Section`] and treats null and `enabled`.
pub(super) const SECTION: &str = "$weir::Section";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Section<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section")
            }
            fn visit_none<E: de::Error>(self) -> Result<Section<T>, E> {
                Ok(Section(None))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Section<T>, D::Error> {
                T::deserialize(inner).map(|value| Section(Some(value)))
            }
        }
        deserializer.deserialize_newtype_struct(SECTION, Visitor(std::marker::PhantomData))
    }
}
