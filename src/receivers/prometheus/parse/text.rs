//! The text formats: 0.0.4, 1.0.0 and OpenMetrics 1.0.
//!
//! Spec: Prometheus "Exposition formats", OpenMetrics 1.0. Blanks are taken as they come where the formats differ in strictness; what
//! stands in a line has to be right.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{About, Exemplar, Fault, Kind, LABELS_MAX, Placed, Sample, Taker, Value};
use crate::receivers::prometheus::labels::{Labels, NAME, Text};

/// Reads a page. `open`: it is OpenMetrics, which has exemplars, seconds as time, and an end.
pub(in super::super) fn read(page: &[u8], open: bool, taker: &mut impl Taker) -> Result<(), Placed> {
    let page = std::str::from_utf8(page).map_err(|error| {
        let line = page.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
        (line, Fault::Malformed("it is not UTF-8".to_owned()))
    })?;
    let mut rest = page;
    let mut number = 0;
    let mut ended = false;
    while !rest.is_empty() {
        number += 1;
        let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        let (line, next) = rest.split_at(end);
        rest = next.strip_prefix('\n').unwrap_or(next);
        let here = |message: &str| (number, Fault::Malformed(message.to_owned()));
        if ended {
            return Err(here("something follows `# EOF`"));
        }
        let line = line.trim_matches([' ', '\t']);
        if let Some(comment) = line.strip_prefix('#') {
            ended = open && comment.trim() == "EOF";
            described(comment, open, taker).map_err(here)?;
        } else if !line.is_empty() {
            let sample = sample(line, open).map_err(here)?;
            taker.sample(sample).map_err(|fault| (number, fault))?;
        }
    }
    if open && !ended {
        return Err((number, Fault::Malformed("the page ends without `# EOF`: it is not whole".to_owned())));
    }
    Ok(())
}

type Read<T> = Result<T, &'static str>;

fn described(comment: &str, open: bool, taker: &mut impl Taker) -> Read<()> {
    let comment = comment.trim_start_matches([' ', '\t']);
    let (word, rest) = comment.split_at(comment.find([' ', '\t']).unwrap_or(comment.len()));
    if !matches!(word, "HELP" | "TYPE" | "UNIT") {
        return Ok(());
    }
    let mut cursor = Cursor(rest);
    cursor.blanks();
    let name = if cursor.0.starts_with('"') { cursor.quoted()? } else { Cow::Borrowed(cursor.word(&[' ', '\t'])) };
    if name.is_empty() {
        return Err("a description without the name of a metric");
    }
    cursor.blanks();
    let text = cursor.0;
    match word {
        "HELP" => taker.about(&name, About::Help(&unescaped(text, open))),
        // Prometheus refuses an unknown type as well: what it means for the samples cannot be guessed.
        "TYPE" => taker.about(&name, About::Kind(Kind::parse(text.trim_end()).ok_or("this is not a type of metric")?)),
        _ => taker.about(&name, About::Unit(text.trim_end())),
    }
    Ok(())
}

fn sample(line: &str, open: bool) -> Read<Sample<'_>> {
    let mut cursor = Cursor(line);
    let mut labels = Labels::default();
    let name = cursor.word(&['{', ' ', '\t']);
    if !name.is_empty() {
        if !is_metric_name(name) {
            return Err("this is not the name of a metric");
        }
        labels.push(NAME, name);
    }
    cursor.blanks();
    if cursor.eat('{') {
        cursor.labels(&mut labels, name.is_empty())?;
    }
    if !labels.has(NAME) {
        return Err("a sample without the name of a metric");
    }
    cursor.blanks();
    let value = number(cursor.word(&[' ', '\t', '#'])).ok_or("the value is not a number")?;
    cursor.blanks();
    let time = match cursor.word(&[' ', '\t', '#']) {
        "" => None,
        text if open => Some(seconds(text).ok_or("the time is not a number of seconds")?),
        text => Some(text.parse::<i64>().map_err(|_| "the time is not a whole number of milliseconds")?),
    };
    cursor.blanks();
    let mut exemplars = SmallVec::new();
    if open && cursor.eat('#') {
        exemplars.push(cursor.exemplar()?);
    }
    if !cursor.0.is_empty() {
        return Err("something follows the sample");
    }
    Ok(Sample { labels, value: Value::Number(value), time, start: 0, exemplars })
}

/// A float as Go reads it, without its hexadecimal spellings.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Seconds as milliseconds.
fn seconds(text: &str) -> Option<i64> {
    let millis = (number(text)? * 1000.0).round();
    (millis.abs() < 9e18).then_some(millis as i64)
}

fn is_metric_name(name: &str) -> bool {
    let head = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    name.bytes().enumerate().all(|(at, byte)| head(byte) || (at > 0 && byte.is_ascii_digit()))
}

/// Help: `\\` and `\n`, in OpenMetrics `\"` too.
fn unescaped(text: &str, open: bool) -> Text<'_> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(replaced(text, open))
}

/// An escape that is none stays as it stands.
fn replaced(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let mut letters = tail.chars();
        letters.next();
        match letters.clone().next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') if quotes => out.push('"'),
            _ => {
                out.push('\\');
                rest = letters.as_str();
                continue;
            }
        }
        letters.next();
        rest = letters.as_str();
    }
    out.push_str(rest);
    out
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, letter: char) -> bool {
        let rest = self.0.strip_prefix(letter);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn word(&mut self, stop: &[char]) -> &'a str {
        let (word, rest) = self.0.split_at(self.0.find(stop).unwrap_or(self.0.len()));
        self.0 = rest;
        word
    }

    fn quoted(&mut self) -> Read<Text<'a>> {
        let inner = self.0.strip_prefix('"').ok_or("a quote is missing")?;
        let bytes = inner.as_bytes();
        let mut at = 0;
        let mut escaped = false;
        loop {
            let found = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()).ok_or("a quote is not closed")?;
            at += found;
            if bytes.get(at) == Some(&b'"') {
                break;
            }
            escaped = true;
            at += 2;
        }
        let (text, rest) = inner.split_at_checked(at).ok_or("a quote is not closed")?;
        self.0 = rest.strip_prefix('"').unwrap_or(rest);
        Ok(if escaped { Cow::Owned(replaced(text, true)) } else { Cow::Borrowed(text) })
    }

    /// Behind `{`, up to and with `}`. `nameless`: the metric's name stands among them, in quotes.
    fn labels(&mut self, labels: &mut Labels<'a>, nameless: bool) -> Read<()> {
        loop {
            self.blanks();
            if self.eat('}') {
                return Ok(());
            }
            if self.0.starts_with('"') {
                let name = self.quoted()?;
                self.blanks();
                if self.eat('=') {
                    self.blanks();
                    let value = self.quoted()?;
                    labels.push(name, value);
                } else if nameless && !labels.has(NAME) && !name.is_empty() {
                    labels.push(NAME, name);
                } else {
                    return Err("a name in quotes without a value");
                }
            } else {
                let name = self.word(&['=', ' ', '\t', '}', ',', '"']);
                if name.is_empty() || name.contains(':') || !is_metric_name(name) {
                    return Err("this is not the name of a label");
                }
                self.blanks();
                if !self.eat('=') {
                    return Err("a label without a value");
                }
                self.blanks();
                let value = self.quoted()?;
                labels.push(name, value);
            }
            if labels.len() > LABELS_MAX {
                return Err("more than 1024 labels");
            }
            self.blanks();
            if !self.eat(',') && !self.0.starts_with('}') {
                return Err("between labels a comma is missing");
            }
        }
    }

    /// Behind `#`.
    fn exemplar(&mut self) -> Read<Exemplar<'a>> {
        self.blanks();
        if !self.eat('{') {
            return Err("an exemplar without labels");
        }
        let mut labels = Labels::default();
        self.labels(&mut labels, false)?;
        self.blanks();
        let value = number(self.word(&[' ', '\t'])).ok_or("the value of the exemplar is not a number")?;
        self.blanks();
        let time = match self.word(&[' ', '\t']) {
            "" => 0,
            text => {
                let millis = seconds(text).ok_or("the time of the exemplar is not a number of seconds")?;
                u64::try_from(millis).unwrap_or(0).saturating_mul(1_000_000)
            }
        };
        self.blanks();
        Ok(Exemplar { labels, value, time })
    }
}
