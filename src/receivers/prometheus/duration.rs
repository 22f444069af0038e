//! Prometheus' durations: `1d12h`, `90s`, `500ms`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

const UNITS: [(&str, u64); 7] =
    [("y", 31_536_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A duration as Prometheus writes it: whole numbers, units from large to small, each once; or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span(pub(super) Duration);

pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total, mut units) = (text, 0_u64, UNITS.iter());
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, next) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let (_, millis) = units.find(|(known, _)| *known == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        rest = next;
    }
    // As long as Go can say it.
    (!text.is_empty() && total <= 9_223_372_036_854).then(|| Duration::from_millis(total))
}

pub(super) fn text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, millis) in UNITS {
        // Weeks and years only where nothing else is left, as Prometheus writes them.
        if matches!(unit, "y" | "w") && !rest.is_multiple_of(millis) {
            continue;
        }
        if rest >= millis {
            out.push_str(itoa::Buffer::new().format(rest / millis));
            out.push_str(unit);
            rest %= millis;
        }
    }
    out
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as 500ms, 30s or 1h30m")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                parse(text).map(Span).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Span, E> {
                if number == 0 { Ok(Span::default()) } else { Err(E::invalid_value(de::Unexpected::Signed(number), &self)) }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span, E> {
                if number == 0 { Ok(Span::default()) } else { Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)) }
            }
            fn visit_unit<E: de::Error>(self) -> Result<Span, E> {
                Ok(Span::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_what_prometheus_does() {
        for (written, millis) in [("1ms", 1), ("1m30s", 90_000), ("1d", 86_400_000), ("2h", 7_200_000), ("1w", 604_800_000)] {
            assert_eq!(parse(written), Some(Duration::from_millis(millis)));
            assert_eq!(text(Duration::from_millis(millis)), written);
        }
        for wrong in ["", "1", "1x", "s", "1s1m", "1m1m", "-1s", "1.5s", "99999999999y", "1s "] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(parse("0"), Some(Duration::ZERO));
    }
}
