//! Values with a syntax of their own: durations, secrets, lists, optional sections.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A Go duration: `300ms`, `1h30m`, `1.5s`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub Duration);

/// Go counts durations in signed 64-bit nanoseconds.
const NANOS_MAX: u128 = i64::MAX as u128;

impl GoDuration {
    /// The syntax of Go's `time.ParseDuration`, without negative values: nothing that weir can be told to wait for is one.
    pub fn parse(text: &str) -> Option<Duration> {
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if matches!(text, "0" | "+0" | "-0") {
            return Some(Duration::ZERO);
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: u128 = 0;
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at_checked(number_end)?;
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, next) = tail.split_at_checked(unit_end)?;
            total = total.checked_add(nanos(number, unit_nanos(unit)?)?).filter(|&total| total <= NANOS_MAX)?;
            rest = next;
        }
        u64::try_from(total).ok().map(Duration::from_nanos)
    }
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `1`, `1.5`, `.5` or `5.` times a unit, cut to whole nanoseconds.
fn nanos(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Fifteen digits are finer than a nanosecond of an hour.
    let digits = fraction.get(..fraction.len().min(15))?;
    let part: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = 10_u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
    whole.checked_mul(unit)?.checked_add(part.checked_mul(unit)? / scale)
}

/// The name by which the configuration reader recognises a duration, and warns of one without a unit.
pub(super) const DURATION: &str = "$weir::GoDuration";

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 300ms, 10s or 1h30m")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<GoDuration, D::Error> {
                inner.deserialize_any(self)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                GoDuration::parse(text).map(GoDuration).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            // Written and empty: zero, as every value.
            fn visit_unit<E: de::Error>(self) -> Result<GoDuration, E> {
                Ok(GoDuration::default())
            }
            fn visit_f64<E: de::Error>(self, nanos: f64) -> Result<GoDuration, E> {
                if nanos.fract() == 0.0 && (0.0..9e18).contains(&nanos) {
                    self.visit_u64(nanos as u64)
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(nanos), &self))
                }
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
        deserializer.deserialize_newtype_struct(DURATION, Visitor)
    }
}

/// What a bare number is taken for, and what was meant: small ones are seconds to whoever writes them.
pub(super) fn bare_duration(nanos: i64) -> (String, String) {
    let message =
        format!("a duration without a unit counts in nanoseconds: this is {:?}", Duration::from_nanos(nanos.unsigned_abs()));
    let meant = match nanos {
        ..1_000_000 => format!("did you mean `{nanos}s`?"),
        _ if nanos % 1_000_000_000 == 0 => format!("write `{}s`", nanos / 1_000_000_000),
        _ if nanos % 1_000_000 == 0 => format!("write `{}ms`", nanos / 1_000_000),
        _ => format!("write `{nanos}ns`"),
    };
    (message, meant)
}

/// A number of bytes: `64MiB`, `1 GB`, `65536`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// A whole number and a unit: `B`, `KiB` … `TiB` (1024), `kB` … `TB` (1000), or none.
    pub fn parse(text: &str) -> Option<u64> {
        let text = text.trim();
        let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))?;
        let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "ki" => 1 << 10,
            "mib" | "mi" => 1 << 20,
            "gib" | "gi" => 1 << 30,
            "tib" | "ti" => 1 << 40,
            "kb" | "k" => 1_000,
            "mb" | "m" => 1_000_000,
            "gb" | "g" => 1_000_000_000,
            "tb" | "t" => 1_000_000_000_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 64MiB")
            }
            fn visit_unit<E: de::Error>(self) -> Result<ByteSize, E> {
                Ok(ByteSize::default())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text).map(ByteSize).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
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

/// A list of strings, or one string with commas. In a configuration every list of strings may be written so; this type does it from
/// other formats too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringList(pub Vec<String>);

impl<'de> Deserialize<'de> for StringList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = StringList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts, or one text with commas")
            }
            fn visit_unit<E: de::Error>(self) -> Result<StringList, E> {
                Ok(StringList::default())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<StringList, E> {
                Ok(StringList(if text.is_empty() {
                    Vec::new()
                } else {
                    text.split(',').map(|part| part.trim().to_owned()).collect()
                }))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<StringList, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(StringList(list))
            }
        }
        deserializer.deserialize_any(Visitor)
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

#[cfg(test)]
mod tests;
