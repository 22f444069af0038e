//! JSON → protobuf bytes, in one pass: each value is written where it belongs as it is read.
//!
//! Stack and memory are bounded whatever the body says: messages nest as the schema lets them, values inside values up to the limit, and
//! what we do not know is skipped without recursion.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    Limits,
    error::{JsonError, JsonErrorKind, Step, path_text, shown},
    schema::{self, Field, Kind, Label, Message},
};
use crate::{
    otlp::wire::{close_message, open_message, put_bytes_always, put_tag, put_varint},
    signal::Signal,
};

/// Turns the JSON form of an export request into its protobuf form.
///
/// Read: keys in lowerCamelCase or as the .proto file spells them, unknown ones skipped; ids in hex of either case; 64-bit integers as
/// strings or numbers; doubles as numbers, numeric strings, `NaN`, `Infinity`, `-Infinity`; enums as numbers or names; bytes in either
/// base64 alphabet, padded or not; null as absent (in a list of messages: an empty one).
///
/// Refused: a key given twice, two members of a oneof, numbers out of range or with a fraction where an integer belongs, ids that are not
/// hex. An id of a wrong length passes, so that the scan can leave out that one item. The first error ends the reading.
///
/// Spec: OTLP "JSON Protobuf Encoding"; protobuf "ProtoJSON Format".
pub fn decode(signal: Signal, body: &[u8], limits: &Limits) -> Result<Vec<u8>, JsonError> {
    let text = str::from_utf8(body).map_err(|error| not_utf8(body, error.valid_up_to()))?;
    let mut state = State {
        out: Vec::with_capacity((body.len() / 2).min(limits.bytes_max)),
        limits,
        nesting: 0,
        budget: (limits.scan.elements_base.saturating_add(body.len() as u64 / limits.scan.bytes_per_element.max(1)))
            .saturating_mul(2),
        path: Vec::with_capacity(32),
        problem: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    // Our own limit decides; nothing below recurses without counting.
    json.disable_recursion_limit();
    let read =
        At { state: &mut state, field: schema::body(signal), element: false }.deserialize(&mut json).and_then(|_| json.end());
    match read {
        Ok(()) => Ok(state.out),
        Err(error) => Err(state.error(&error)),
    }
}

fn not_utf8(body: &[u8], at: usize) -> JsonError {
    let before = body.get(..at).unwrap_or(body);
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    JsonError {
        kind: JsonErrorKind::Malformed,
        path: String::new(),
        message: "the body is not UTF-8".to_owned(),
        line: memchr::memchr_iter(b'\n', before).count() + 1,
        column: before.len() - line_start + 1,
    }
}

/// What the whole pass shares.
struct State<'l> {
    out: Vec<u8>,
    limits: &'l Limits,
    /// Values inside values, at this moment.
    nesting: u32,
    /// Half elements that may still come.
    budget: u64,
    /// Where we are; left as it is when an error unwinds.
    path: Vec<Step>,
    /// What we found wrong ourselves; without it, it is serde_json's error.
    problem: Option<(JsonErrorKind, String)>,
}

impl State<'_> {
    fn fail<E: de::Error>(&mut self, kind: JsonErrorKind, message: String) -> E {
        self.problem = Some((kind, message));
        E::custom("")
    }

    fn check_size<E: de::Error>(&mut self) -> Result<(), E> {
        if self.out.len() > self.limits.bytes_max {
            let message = format!("the request is larger than {} bytes in protobuf", self.limits.bytes_max);
            return Err(self.fail(JsonErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// Charges one element of a list to the budget: numbers are free, values of an array count a half, as in the scan.
    fn count<E: de::Error>(&mut self, kind: Kind) -> Result<(), E> {
        let cost = match kind {
            Kind::Message(message) if message.value => 1,
            kind if kind.packs() => 0,
            _ => 2,
        };
        match self.budget.checked_sub(cost) {
            Some(rest) => self.budget = rest,
            None => {
                return Err(
                    self.fail(JsonErrorKind::TooManyElements, "the request has more elements than its size allows".to_owned())
                );
            }
        }
        Ok(())
    }

    fn error(self, error: &serde_json::Error) -> JsonError {
        let (kind, message) = self.problem.unwrap_or_else(|| {
            let text = error.to_string();
            // Syntax errors hold nothing of the body.
            let text = text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message);
            (JsonErrorKind::Malformed, format!("the body is not JSON: {text}"))
        });
        JsonError { kind, path: path_text(&self.path), message, line: error.line(), column: error.column() }
    }
}

/// The place a value is read for: a field, or one element of a repeated field.
struct At<'s, 'l> {
    state: &'s mut State<'l>,
    field: &'static Field,
    element: bool,
}

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    /// Whether there was a value, that is, not null.
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected())
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        if self.element && !matches!(self.field.kind, Kind::Message(_)) || self.field.number == 0 {
            return Err(self.wrong("null"));
        }
        if self.element {
            let start = open_message(&mut self.state.out, self.field.number);
            close_message(&mut self.state.out, start);
        }
        Ok(self.element)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
        if !matches!(self.field.kind, Kind::Bool) || self.is_list() {
            return Err(self.wrong(if value { "`true`" } else { "`false`" }));
        }
        self.put(Number::Varint(u64::from(value)));
        Ok(true)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<bool, E> {
        self.number(Some(i128::from(value)), value as f64, || value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<bool, E> {
        self.number(Some(i128::from(value)), value as f64, || value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<bool, E> {
        self.number(whole(value), value, || value.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        if self.is_list() {
            return Err(self.wrong_text(text));
        }
        let field = self.field;
        match field.kind {
            Kind::String => {
                if !text.is_empty() || field.label != Label::Implicit {
                    put_bytes_always(&mut self.state.out, field.number, text.as_bytes());
                }
                Ok(true)
            }
            Kind::Bytes | Kind::Id => {
                if text.is_empty() && field.label == Label::Implicit {
                    return Ok(true);
                }
                let out = &mut self.state.out;
                let start = open_message(out, field.number);
                if !(if matches!(field.kind, Kind::Id) { hex(text, out) } else { base64(text, out) }) {
                    return Err(self.wrong_text(text));
                }
                close_message(out, start);
                Ok(true)
            }
            Kind::Bool | Kind::Message(_) => Err(self.wrong_text(text)),
            Kind::Enum(names) => {
                let value = names.iter().position(|name| *name == text).map(|value| value as i128);
                self.number(value, 0.0, || shown(text))
            }
            Kind::Double => match double(text) {
                Some(value) => self.number(None, value, || shown(text)),
                None => Err(self.wrong_text(text)),
            },
            _ => self.number(integer(text), 0.0, || shown(text)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        if !self.is_list() {
            return Err(self.wrong("a list"));
        }
        let Self { state, field, .. } = self;
        let before = state.out.len();
        let start = field.kind.packs().then(|| open_message(&mut state.out, field.number));
        let mut index = 0;
        loop {
            state.path.push(Step::Index(index));
            if list.next_element_seed(At { state: &mut *state, field, element: true })?.is_none() {
                break;
            }
            state.count(field.kind)?;
            state.path.pop();
            state.check_size()?;
            index += 1;
        }
        state.path.pop();
        if let Some(start) = start {
            if index == 0 {
                state.out.truncate(before);
            } else {
                close_message(&mut state.out, start);
            }
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Kind::Message(message) = self.field.kind else { return Err(self.wrong("an object")) };
        if self.is_list() {
            return Err(self.wrong("an object"));
        }
        let Self { state, field, .. } = self;
        if message.value {
            state.nesting += 1;
            if state.nesting > state.limits.scan.value_depth_max {
                let message = format!("values are nested more than {} deep", state.limits.scan.value_depth_max);
                return Err(state.fail(JsonErrorKind::TooDeep, message));
            }
        }
        let start = (field.number != 0).then(|| open_message(&mut state.out, field.number));
        let (mut seen, mut member, mut hint) = (0_u32, None, 0);
        while let Some(key) = map.next_key_seed(Key { message, hint })? {
            let Some((place, inner)) = key else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            state.path.push(Step::Field(inner.json));
            if map.next_value_seed(At { state: &mut *state, field: inner, element: false })? {
                if seen & (1 << place) != 0 {
                    return Err(state.fail(JsonErrorKind::Malformed, "the key is given twice".to_owned()));
                }
                seen |= 1 << place;
                if inner.label == Label::Oneof
                    && let Some(other) = member.replace(inner.json)
                {
                    return Err(
                        state.fail(JsonErrorKind::Malformed, format!("only one of `{other}` and `{}` can be given", inner.json))
                    );
                }
            }
            state.path.pop();
            state.check_size()?;
            hint = place + 1;
        }
        if let Some(start) = start {
            close_message(&mut state.out, start);
        }
        if message.value {
            state.nesting -= 1;
        }
        Ok(true)
    }
}

impl At<'_, '_> {
    /// A repeated field whose list has not begun.
    fn is_list(&self) -> bool {
        self.field.label == Label::Repeated && !self.element
    }

    fn expected(&self) -> &'static str {
        if self.is_list() {
            return "a list";
        }
        match self.field.kind {
            Kind::String => "a string",
            Kind::Bytes => "base64",
            Kind::Id => "an id in hex",
            Kind::Bool => "true or false",
            Kind::Int32 | Kind::Sint32 => "a 32-bit integer",
            Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit integer",
            Kind::Int64 | Kind::Sfixed64 => "a 64-bit integer",
            Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit integer",
            Kind::Double => "a number",
            Kind::Enum(_) => "a value of this enum",
            Kind::Message(_) => "an object",
        }
    }

    fn wrong<E: de::Error>(self, found: &str) -> E {
        let message = format!("{found} is not {}", self.expected());
        self.state.fail(JsonErrorKind::Malformed, message)
    }

    fn wrong_text<E: de::Error>(self, text: &str) -> E {
        self.wrong(&format!("`{}`", shown(text)))
    }

    /// Writes a number as the field wants it. `integer` is its value if that is one; `text` shows it in an error.
    fn number<E: de::Error>(self, integer: Option<i128>, float: f64, text: impl FnOnce() -> String) -> Result<bool, E> {
        let Some(value) = encodable(self.field.kind, integer, float).filter(|_| !self.is_list()) else {
            return Err(self.wrong(&format!("`{}`", text())));
        };
        self.put(value);
        Ok(true)
    }

    fn put(self, value: Number) {
        if value.is_zero() && self.field.label == Label::Implicit {
            return;
        }
        let out = &mut self.state.out;
        let tag = |out: &mut Vec<u8>, wire_type| {
            // The elements of a packed list stand side by side.
            if !self.element {
                put_tag(out, self.field.number, wire_type);
            }
        };
        match value {
            Number::Varint(value) => {
                tag(out, 0);
                put_varint(out, value);
            }
            Number::Fixed64(value) => {
                tag(out, 1);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Number::Fixed32(value) => {
                tag(out, 5);
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// A number as the wire has it.
#[derive(Clone, Copy)]
enum Number {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
}

impl Number {
    const fn is_zero(self) -> bool {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => value == 0,
            Self::Fixed32(value) => value == 0,
        }
    }
}

/// `None` if the field cannot hold it.
fn encodable(kind: Kind, integer: Option<i128>, float: f64) -> Option<Number> {
    if let Kind::Double = kind {
        return Some(Number::Fixed64(float.to_bits()));
    }
    let integer = integer?;
    match kind {
        // Enums are open: what we have no name for passes.
        Kind::Int32 | Kind::Enum(_) => i32::try_from(integer).ok().map(|value| Number::Varint(i64::from(value) as u64)),
        Kind::Sint32 => i32::try_from(integer).ok().map(|value| Number::Varint(u64::from((value << 1 ^ value >> 31) as u32))),
        Kind::Uint32 => u32::try_from(integer).ok().map(|value| Number::Varint(u64::from(value))),
        Kind::Fixed32 => u32::try_from(integer).ok().map(Number::Fixed32),
        Kind::Int64 => i64::try_from(integer).ok().map(|value| Number::Varint(value as u64)),
        Kind::Sfixed64 => i64::try_from(integer).ok().map(|value| Number::Fixed64(value as u64)),
        Kind::Uint64 => u64::try_from(integer).ok().map(Number::Varint),
        Kind::Fixed64 => u64::try_from(integer).ok().map(Number::Fixed64),
        Kind::String | Kind::Bytes | Kind::Id | Kind::Bool | Kind::Double | Kind::Message(_) => None,
    }
}

/// The integer that a float is, if it is one that could fit anywhere: `5.0` and `1e3` are.
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128)
}

/// Whether `text` is written as JSON writes numbers; Rust reads more than that (`+5`, `inf`, `.5`).
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
}

fn integer(text: &str) -> Option<i128> {
    if !is_number(text) {
        return None;
    }
    if let Ok(value) = text.parse::<u64>() {
        return Some(i128::from(value));
    }
    text.parse::<i64>().ok().map(i128::from).or_else(|| whole(text.parse().ok()?))
}

fn double(text: &str) -> Option<f64> {
    match text {
        // The NaN that Go reads: what is hashed or compared by its bits is then the same as in a Collector.
        "NaN" => Some(f64::from_bits(0x7ff8_0000_0000_0001)),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ if is_number(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
        _ => None,
    }
}

fn hex(text: &str, out: &mut Vec<u8>) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return false };
    pairs.iter().all(|[high, low]| {
        let byte = digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low);
        out.extend(byte);
        byte.is_some()
    })
}

fn base64(text: &str, out: &mut Vec<u8>) -> bool {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let url_safe = text.bytes().any(|byte| matches!(byte, b'-' | b'_'));
    if url_safe { URL_SAFE.decode_vec(text, out) } else { STANDARD.decode_vec(text, out) }.is_ok()
}

/// Reads a key and finds its field; `None` for one we do not know.
struct Key {
    message: &'static Message,
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<(usize, &'static Field)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<(usize, &'static Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let place = self.message.named(name, self.hint);
        Ok(place.and_then(|place| self.message.fields.get(place).map(|field| (place, field))))
    }
}
