//! Names of indices: what a person wrote as a pattern, filled in with what the data says, and nothing that the data says may leave its place.
//!
//! An index name is lower-case ASCII letters, digits, `.`, `_` and `-`, does not begin with `-`, `_`, `+` or `.`, is neither `.` nor `..` and has at
//! most 255 bytes. So nothing in the data reaches `_all`, `*`, a system index, or the next line of a bulk request.

use crate::signal::Signal;

use super::documents::time::{Date, digits};

/// Bytes of an index name.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Bytes of each part of a data stream's name.
const PART_BYTES_MAX: usize = 100;
/// Bytes that one value of the data may take of an index name.
const VALUE_BYTES_MAX: usize = 100;

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    /// `{service}`: the resource's `service.name`.
    Service,
    /// `{signal}`
    Signal,
    /// `{key}`, or `%{key}` as the `opensearch` exporter writes it: an attribute of the item, its scope or its resource.
    Attribute(String),
    /// `%Y.%m.%d`: of the item's time, in UTC.
    Date(Vec<DatePiece>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatePiece {
    Year,
    ShortYear,
    Month,
    Day,
    DayOfYear,
    Hour,
    Literal(char),
}

/// How an index is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pattern(pub(super) Vec<Piece>);

impl Pattern {
    /// Reads `{service}-{signal}-%Y.%m.%d`.
    ///
    /// # Errors
    /// In words for whoever wrote it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some(inner) = rest.strip_prefix("%{").or_else(|| rest.strip_prefix('{')) {
                let (key, tail) = inner.split_once('}').ok_or_else(|| format!("`{text}` opens a `{{` and does not close it"))?;
                flush(&mut literal, &mut pieces);
                pieces.push(match key {
                    "service" => Piece::Service,
                    "signal" => Piece::Signal,
                    "" => {
                        return Err(format!(
                            "`{text}` has an empty `{{}}`: write {{service}}, {{signal}} or the key of an attribute"
                        ));
                    }
                    key => Piece::Attribute(key.to_owned()),
                });
                rest = tail;
            } else if let Some(inner) = rest.strip_prefix('%') {
                let piece = date_piece(inner.chars().next().unwrap_or(' '))
                    .ok_or_else(|| format!("`{text}` has a `%` that is no part of a date; %Y %y %m %d %j and %H are"))?;
                flush(&mut literal, &mut pieces);
                match pieces.last_mut() {
                    Some(Piece::Date(date)) => date.push(piece),
                    _ => pieces.push(Piece::Date(vec![piece])),
                }
                rest = inner.get(1..).unwrap_or_default();
            } else {
                literal.push(next);
                rest = rest.get(next.len_utf8()..).unwrap_or_default();
            }
        }
        flush(&mut literal, &mut pieces);
        let pattern = Self(pieces);
        pattern.check(text)?;
        Ok(pattern)
    }

    pub(super) fn is_dated(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Date(_)))
    }

    /// Whether services have indices of their own.
    pub(super) fn is_by_service(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Service | Piece::Attribute(_)))
    }

    /// What an index template has to match: `*` for whatever is filled in.
    pub(super) fn glob(&self, signal: Signal) -> String {
        let mut glob = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => glob.push_str(text),
                Piece::Signal => glob.push_str(signal.as_str()),
                _ if glob.ends_with('*') => {}
                _ => glob.push('*'),
            }
        }
        glob
    }

    fn check(&self, text: &str) -> Result<(), String> {
        for piece in &self.0 {
            let Piece::Literal(literal) = piece else { continue };
            if let Some(wrong) = literal.chars().find(|c| c.is_uppercase() || c.is_control() || "\\/*?\"<>| ,#:".contains(*c)) {
                return Err(format!("`{text}` is no name of an index: it must not have `{}`", wrong.escape_default()));
            }
        }
        if text.starts_with(['-', '_', '+']) || matches!(text, "." | "..") || text.len() > NAME_BYTES_MAX {
            return Err(format!(
                "`{text}` is no name of an index: it must not begin with -, _ or +, nor have more than 255 bytes"
            ));
        }
        Ok(())
    }

    /// Appends the name. `value` gives what a `{key}` stands for; where it has none, `fallback` does.
    pub(super) fn write<'v>(
        &self,
        signal: Signal,
        unix_nanos: u64,
        fallback: &str,
        value: impl Fn(&str) -> Option<&'v str>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Signal => out.extend_from_slice(signal.as_str().as_bytes()),
                Piece::Service => clean(value("service.name").unwrap_or_default(), fallback, out),
                Piece::Attribute(key) => clean(value(key).unwrap_or_default(), fallback, out),
                Piece::Date(date) => write_date(date, unix_nanos, out),
            }
        }
        out.truncate(start + NAME_BYTES_MAX);
    }
}

fn flush(literal: &mut String, pieces: &mut Vec<Piece>) {
    if literal.is_empty() {
        return;
    }
    let text = std::mem::take(literal);
    // Dots and dashes between the parts of a date belong to it.
    match (pieces.last_mut(), text.chars().count()) {
        (Some(Piece::Date(date)), 1) if text.starts_with(['.', '-', '_']) => date.extend(text.chars().map(DatePiece::Literal)),
        _ => pieces.push(Piece::Literal(text)),
    }
}

const fn date_piece(letter: char) -> Option<DatePiece> {
    Some(match letter {
        'Y' => DatePiece::Year,
        'y' => DatePiece::ShortYear,
        'm' => DatePiece::Month,
        'd' => DatePiece::Day,
        'j' => DatePiece::DayOfYear,
        'H' => DatePiece::Hour,
        _ => return None,
    })
}

/// A date by `strftime`'s letters: `%Y.%m.%d`.
pub(super) fn date_format(format: &str) -> Result<Vec<DatePiece>, String> {
    let mut pieces = Vec::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            '%' => {
                let letter = letters.next().unwrap_or(' ');
                date_piece(letter)
                    .ok_or_else(|| format!("`%{letter}` is no part of a date in `{format}`; %Y %y %m %d %j and %H are"))?
            }
            c if c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c) => DatePiece::Literal(c),
            c => return Err(format!("`{}` cannot stand in the name of an index, in `{format}`", c.escape_default())),
        });
    }
    Ok(pieces)
}

/// A date by Java's letters, as the `opensearch` exporter has it: `yyyy.MM.dd`.
pub(super) fn java_date_format(format: &str) -> Result<Vec<DatePiece>, String> {
    let mut strftime = format.to_owned();
    for (java, letter) in [("yyyy", "%Y"), ("yy", "%y"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H")] {
        strftime = strftime.replace(java, letter);
    }
    date_format(&strftime).map_err(|_| format!("`{format}` is no date that can stand in the name of an index; `yyyy.MM.dd` is"))
}

fn write_date(pieces: &[DatePiece], unix_nanos: u64, out: &mut Vec<u8>) {
    let Date { year, month, day } = Date::of(unix_nanos);
    for piece in pieces {
        match piece {
            DatePiece::Year => digits(u64::from(year), 4, out),
            DatePiece::ShortYear => digits(u64::from(year % 100), 2, out),
            DatePiece::Month => digits(u64::from(month), 2, out),
            DatePiece::Day => digits(u64::from(day), 2, out),
            DatePiece::DayOfYear => {
                let leap = u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)));
                let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
                let before: u64 = before.get(usize::from(month.saturating_sub(1))).copied().unwrap_or(0);
                digits(before + u64::from(day) + if month > 2 { leap } else { 0 }, 3, out);
            }
            DatePiece::Hour => digits(unix_nanos / 3_600_000_000_000 % 24, 2, out),
            DatePiece::Literal(c) => out.push(*c as u8),
        }
    }
}

/// Appends what is left of a value of the data when all that does not belong into the name of an index is `-`; `fallback` where that is nothing.
pub(super) fn clean(value: &str, fallback: &str, out: &mut Vec<u8>) {
    let is_start = |c: &char| !matches!(c, '-' | '_' | '+' | '.');
    let mapped =
        || value.chars().take(VALUE_BYTES_MAX).map(|c| c.to_ascii_lowercase()).map(plain).skip_while(move |c| !is_start(c));
    let end = mapped().enumerate().filter(|(_, c)| is_start(c)).last().map_or(0, |(at, _)| at + 1);
    if end == 0 {
        out.extend_from_slice(fallback.as_bytes());
    } else {
        let start = out.len();
        out.extend(mapped().take(end).map(|c| c as u8));
        // `..` is a way out of a directory wherever names become paths.
        while let Some(at) = out.get(start..).and_then(|name| name.windows(2).position(|two| two == b"..")) {
            out.remove(start + at);
        }
    }
}

fn plain(c: char) -> char {
    if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') { c } else { '-' }
}

/// Appends a part of a data stream's name: `_` for what must not stand there, at most 100 bytes. A dataset has no `-` either.
pub(super) fn clean_stream_part(value: &str, fallback: &str, is_dataset: bool, out: &mut Vec<u8>) {
    let start = out.len();
    for c in value.chars() {
        if out.len() - start >= PART_BYTES_MAX {
            break;
        }
        let c = c.to_ascii_lowercase();
        let keeps = c.is_ascii_lowercase()
            || c.is_ascii_digit()
            || c == '_'
            || (c == '-' && !is_dataset)
            || (c == '.' && !out.ends_with(b"."));
        out.push(if keeps { c as u8 } else { b'_' });
    }
    if out.len() == start {
        out.extend_from_slice(fallback.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 1_763_758_800_000_000_000;

    fn named(pattern: &str, service: &str) -> String {
        let mut out = Vec::new();
        let value = |key: &str| (key == "service.name" && !service.is_empty()).then_some(service);
        Pattern::parse(pattern).unwrap().write(Signal::Logs, DAY, "unknown", value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_index_a_service_and_day() {
        let pattern = "{service}-{signal}-%Y.%m.%d";
        assert_eq!(named(pattern, "checkout"), "checkout-logs-2025.11.21");
        assert_eq!(named(pattern, "Check Out/EU"), "check-out-eu-logs-2025.11.21");
        assert_eq!(named(pattern, ""), "unknown-logs-2025.11.21");
        assert_eq!(named("otel-%{service.name}-%y%j", "a"), "otel-a-25325");
        assert_eq!(Pattern::parse(pattern).unwrap().glob(Signal::Traces), "*-traces-*");
    }

    #[test]
    fn services_cannot_name_what_is_not_theirs() {
        for service in ["_all", "*", "..", "../..", "-x", ".security", "a\n{\"delete\":{}}", "\u{202e}", "x,y", "<x-{now}>"] {
            let name = named("{service}", service);
            assert!(is_name(&name), "{service:?} → {name}");
        }
    }

    fn is_name(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= 255
            && !name.starts_with(['-', '_', '+', '.'])
            && !name.contains("..")
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    }

    proptest! {
        #[test]
        fn whatever_the_data_says_it_is_a_name(service in any::<String>(), other in ".{0,400}") {
            for value in [service, other] {
                let name = named("{service}-{signal}-%Y.%m.%d", &value);
                prop_assert!(is_name(&name), "{}", name);
                let mut out = b"logs-".to_vec();
                clean_stream_part(&value, "generic", true, &mut out);
                prop_assert!(is_name(&String::from_utf8(out).unwrap()));
            }
        }
    }

    #[test]
    fn patterns_that_name_no_index_are_refused() {
        for wrong in ["Logs", "logs-%Q", "{service", "a b", "-logs", "_logs", "logs-{}", "a*"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
