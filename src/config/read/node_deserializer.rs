//! A [`Node`] as serde sees it.
//!
//! No weak typing: a quoted number is text and text is not a number, as in the Collector. Null is the empty value of what is wanted:
//! the defaults of a struct, an empty list, zero. Only a value that came out of a `${…}` reference has two faces, typed and text.

use std::{cell::RefCell, collections::HashSet};

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::{BorrowedStrDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::error::{Kind, ReadError, other_keys};
use crate::config::{
    Diagnostic, Level, Node, Origin, Value,
    values::{DURATION, SECTION, bare_duration},
};

/// What is known while one section is read, and read again without what failed.
pub(super) struct Reading<'o> {
    /// Keys of the root that belong to other readers.
    others: &'o [&'static str],
    tell: bool,
    /// Where the deserializer is now.
    path: Vec<u32>,
    skipped: HashSet<Vec<u32>>,
    /// The key that was read last.
    last_key: (Vec<u32>, Origin),
    /// Unknown keys, and values that are hardly meant.
    pub(super) told: Vec<Diagnostic>,
}

impl<'o> Reading<'o> {
    pub(super) fn new(others: &'o [&'static str], tell: bool) -> Self {
        Self {
            others,
            tell,
            path: Vec::new(),
            skipped: HashSet::new(),
            last_key: (Vec::new(), Origin::default()),
            told: Vec::new(),
        }
    }

    /// The next reading leaves out what is at `path`.
    pub(super) fn skip(&mut self, path: Vec<u32>) {
        self.path.clear();
        self.skipped.insert(path);
    }

    /// Whether something right inside the map at `path` is left out already.
    pub(super) fn has_skipped_in(&self, path: &[u32]) -> bool {
        self.skipped.iter().any(|skipped| skipped.split_last().is_some_and(|(_, parent)| parent == path))
    }

    fn is_skipped(&self, entry: u32) -> bool {
        if self.skipped.is_empty() {
            return false;
        }
        let mut path = self.path.clone();
        path.push(entry);
        self.skipped.contains(&path)
    }
}

#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'n, 'r, 'o> {
    node: &'n Node,
    reading: &'r RefCell<Reading<'o>>,
    /// Inside a [`crate::config::Section`]: `enabled` is the section's own key.
    section: bool,
}

impl<'n, 'r, 'o> NodeDeserializer<'n, 'r, 'o> {
    pub(super) const fn root(node: &'n Node, reading: &'r RefCell<Reading<'o>>) -> Self {
        Self { node, reading, section: false }
    }

    const fn of(self, node: &'n Node) -> Self {
        Self { node, reading: self.reading, section: false }
    }

    /// Reads what is inside entry number `entry`.
    fn inside<T>(self, entry: usize, origin: Origin, read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
        self.reading.borrow_mut().path.push(u32::try_from(entry).unwrap_or(u32::MAX));
        let result = read();
        let mut reading = self.reading.borrow_mut();
        let result = result.map_err(|error| error.at(origin, &reading.path));
        reading.path.pop();
        result
    }

    fn mismatch(self, wanted: &str) -> ReadError {
        let found = match &self.node.value {
            // What a variable holds may be a secret.
            _ if self.node.text.is_some() => format!("{} out of a reference", self.node.kind()),
            Value::Bool(value) => format!("`{value}`"),
            Value::Int(number) => format!("the number {number}"),
            Value::Float(number) => format!("the number {number}"),
            _ => self.node.kind().to_owned(),
        };
        ReadError::new(format!("expected {wanted}, found {found}"), None)
    }

    fn whole_number<V: Visitor<'n>>(self, visitor: V, least: i128, most: i128) -> Result<V::Value, ReadError> {
        let number = match self.node.value {
            Value::Null => 0,
            Value::Int(number) => i128::from(number),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e19 => number as i128,
            Value::String(ref text) => {
                let quoted = matches!(crate::config::scalar::plain(text), Value::Int(_) | Value::Float(_));
                let help = (quoted && self.node.text.is_none()).then(|| format!("remove the quotes: {text}"));
                return Err(ReadError::new("expected a whole number, found text", help));
            }
            _ => return Err(self.mismatch("a whole number")),
        };
        if !(least..=most).contains(&number) {
            return Err(ReadError::new(format!("{number} is not between {least} and {most}"), None));
        }
        if let Ok(number) = u64::try_from(number) {
            visitor.visit_u64(number)
        } else if let Ok(number) = i64::try_from(number) {
            visitor.visit_i64(number)
        } else {
            visitor.visit_i128(number)
        }
    }

    /// The text a text field gets: a reference's text as it was written, otherwise only text.
    fn text(self) -> Result<&'n str, ReadError> {
        if let Some(text) = &self.node.text {
            return Ok(text);
        }
        match &self.node.value {
            Value::String(text) => Ok(text),
            Value::Null => Ok(""),
            Value::Int(number) => Err(quote(&self.mismatch("text").into_details().message, &number.to_string())),
            Value::Float(number) => Err(quote(&self.mismatch("text").into_details().message, &number.to_string())),
            Value::Bool(value) => Err(quote(&self.mismatch("text").into_details().message, &value.to_string())),
            Value::List(_) | Value::Map(_) => Err(self.mismatch("text")),
        }
    }

    /// The Collector takes a bare number for nanoseconds, and so does weir; hardly anybody means them.
    fn warn_of_bare_duration(self) {
        let nanos = match self.node.value {
            Value::Int(nanos) => nanos,
            Value::Float(nanos) if nanos.fract() == 0.0 && nanos.abs() < 9e18 => nanos as i64,
            _ => return,
        };
        if nanos > 0 {
            let (message, help) = bare_duration(nanos);
            let warning = Diagnostic { level: Level::Warning, origin: self.node.origin, message, help: Some(help) };
            self.reading.borrow_mut().told.push(warning);
        }
    }

    fn map<V: Visitor<'n>>(self, visitor: V, fields: Option<&'static [&'static str]>) -> Result<V::Value, ReadError> {
        let entries: &[(Node, Node)] = match &self.node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => return Err(self.mismatch("a map")),
        };
        let is_root = self.reading.borrow().path.is_empty();
        let own_enabled = fields.is_some_and(|fields| fields.contains(&"enabled"));
        let result = visitor.visit_map(Entries {
            from: self,
            rest: entries.iter().enumerate(),
            value: None,
            fields,
            is_root,
            hides_enabled: self.section && !own_enabled,
        });
        result.map_err(|error| match error.kind() {
            Kind::Twice => {
                let (path, origin) = self.reading.borrow().last_key.clone();
                error.at(origin, &path)
            }
            _ => error,
        })
    }
}

fn quote(message: &str, text: &str) -> ReadError {
    ReadError::new(message, Some(format!("put it in quotes: \"{text}\"")))
}

macro_rules! whole_numbers {
    ($($method:ident $kind:ty),*) => { $(
        fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.whole_number(visitor, i128::from(<$kind>::MIN), i128::from(<$kind>::MAX))
        }
    )* };
}

impl<'n> Deserializer<'n> for NodeDeserializer<'n, '_, '_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.map(visitor, None),
        }
    }

    whole_numbers! {
        deserialize_i8 i8, deserialize_i16 i16, deserialize_i32 i32, deserialize_i64 i64,
        deserialize_u8 u8, deserialize_u16 u16, deserialize_u32 u32, deserialize_u64 u64
    }

    fn deserialize_f32<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Int(number) => visitor.visit_f64(*number as f64),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::String(text) => {
                let quoted = matches!(crate::config::scalar::plain(text), Value::Int(_) | Value::Float(_));
                let help = (quoted && self.node.text.is_none()).then(|| format!("remove the quotes: {text}"));
                Err(ReadError::new("expected a number, found text", help))
            }
            _ => Err(self.mismatch("a number")),
        }
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) if self.node.text.is_none() => {
                let help = match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "y" => Some("write it without quotes: true".to_owned()),
                    "false" | "no" | "off" | "n" => Some("write it without quotes: false".to_owned()),
                    _ => None,
                };
                Err(ReadError::new(format!("expected true or false, found the text `{text}`"), help))
            }
            _ => Err(self.mismatch("true or false")),
        }
    }

    fn deserialize_char<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'n>>(self, _name: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, name: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        if name == DURATION {
            self.warn_of_bare_duration();
        }
        if name != SECTION {
            return visitor.visit_newtype_struct(self);
        }
        match &self.node.value {
            Value::Null | Value::Map(_) => {}
            _ => return Err(self.mismatch("a section (a map)")),
        }
        if let Some(enabled) = self.node.get("enabled") {
            match enabled.value {
                Value::Bool(true) => {}
                Value::Bool(false) => return visitor.visit_none(),
                _ => {
                    let error = ReadError::new(format!("`enabled` is true or false, found {}", enabled.kind()), None);
                    let path = self.reading.borrow().path.clone();
                    return Err(error.at(enabled.origin, &path));
                }
            }
        }
        visitor.visit_newtype_struct(Self { section: true, ..self })
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { from: self, items: items.iter().enumerate() }),
            Value::Null => visitor.visit_seq(Words(None)),
            // Text with commas stands for a list of words everywhere.
            Value::String(text) => visitor.visit_seq(Words((!text.is_empty()).then(|| text.split(',')))),
            _ => Err(self.mismatch("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'n>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.map(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.map(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(entries) => match entries.as_slice() {
                [(key, value)] => {
                    visitor.visit_enum(Variant { from: self, name: key.word().map_or("", |word| word), value: Some(value) })
                }
                _ => Err(ReadError::new(
                    format!("expected one of {}", crate::config::suggest::list(variants.iter().copied())),
                    None,
                )),
            },
            Value::List(_) => Err(self.mismatch(&format!("one of {}", crate::config::suggest::list(variants.iter().copied())))),
            _ => visitor.visit_enum(Variant { from: self, name: self.text()?, value: None }),
        }
    }

    fn deserialize_identifier<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { <W: Visitor<'n>> i128 u128 }
}

/// The entries of a map; unknown keys of a struct are noted and passed over.
struct Entries<'n, 'r, 'o> {
    from: NodeDeserializer<'n, 'r, 'o>,
    rest: std::iter::Enumerate<std::slice::Iter<'n, (Node, Node)>>,
    value: Option<(usize, &'n Node, &'n Node)>,
    fields: Option<&'static [&'static str]>,
    is_root: bool,
    hides_enabled: bool,
}

impl Entries<'_, '_, '_> {
    /// Whether the struct wants this key; if not, why is noted.
    fn wants(&self, entry: usize, key: &Node, name: &str) -> bool {
        let mut reading = self.from.reading.borrow_mut();
        if reading.is_skipped(u32::try_from(entry).unwrap_or(u32::MAX)) || (self.hides_enabled && name == "enabled") {
            return false;
        }
        let Some(fields) = self.fields else { return true };
        if fields.contains(&name) {
            return true;
        }
        let others = if self.is_root { reading.others } else { &[] };
        if !others.contains(&name) && (reading.tell || !self.is_root) {
            let valid: Vec<&str> = fields.iter().chain(others).copied().collect();
            reading.told.push(Diagnostic {
                level: Level::Error,
                origin: key.origin,
                message: format!("there is no key `{name}` here"),
                help: Some(other_keys(name, &valid)),
            });
        }
        false
    }
}

impl<'n> MapAccess<'n> for Entries<'n, '_, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        while let Some((entry, (key, value))) = self.rest.next() {
            let name: &'n str = key.word().map_or("", |word| word);
            if self.wants(entry, key, name) {
                self.value = Some((entry, key, value));
                return self
                    .from
                    .inside(entry, key.origin, || {
                        let mut reading = self.from.reading.borrow_mut();
                        reading.last_key = (reading.path.clone(), key.origin);
                        drop(reading);
                        seed.deserialize(BorrowedStrDeserializer::new(name))
                    })
                    .map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        let Some((entry, key, value)) = self.value.take() else {
            return Err(ReadError::custom("a value was asked for before its key"));
        };
        let origin = if value.origin == Origin::default() { key.origin } else { value.origin };
        self.from.inside(entry, origin, || seed.deserialize(self.from.of(value)))
    }
}

struct Items<'n, 'r, 'o> {
    from: NodeDeserializer<'n, 'r, 'o>,
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
}

impl<'n> SeqAccess<'n> for Items<'n, '_, '_> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        for (entry, item) in self.items.by_ref() {
            if !self.from.reading.borrow().is_skipped(u32::try_from(entry).unwrap_or(u32::MAX)) {
                return self.from.inside(entry, item.origin, || seed.deserialize(self.from.of(item))).map(Some);
            }
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len().min(4096))
    }
}

/// The words of a text with commas.
struct Words<'n>(Option<std::str::Split<'n, char>>);

impl<'n> SeqAccess<'n> for Words<'n> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        match self.0.as_mut().and_then(Iterator::next) {
            Some(word) => seed.deserialize(BorrowedStrDeserializer::new(word.trim())).map(Some),
            None => Ok(None),
        }
    }
}

/// `word` or `word: value`.
struct Variant<'n, 'r, 'o> {
    from: NodeDeserializer<'n, 'r, 'o>,
    name: &'n str,
    value: Option<&'n Node>,
}

impl<'n> EnumAccess<'n> for Variant<'n, '_, '_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'n>>(self, seed: S) -> Result<(S::Value, Self), ReadError> {
        let value = seed.deserialize(StrDeserializer::new(self.name))?;
        Ok((value, self))
    }
}

impl<'n> Variant<'n, '_, '_> {
    fn content<T>(self, read: impl FnOnce(NodeDeserializer<'n, '_, '_>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let Some(value) = self.value else {
            return Err(ReadError::new(format!("`{}` needs a value: `{}: …`", self.name, self.name), None));
        };
        self.from.inside(0, value.origin, || read(self.from.of(value)))
    }
}

impl<'n> VariantAccess<'n> for Variant<'n, '_, '_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.value {
            Some(value) if !value.is_null() => Err(ReadError::new(format!("`{}` takes no value", self.name), None)),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'n>>(self, seed: S) -> Result<S::Value, ReadError> {
        self.content(|inner| seed.deserialize(inner))
    }

    fn tuple_variant<V: Visitor<'n>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.content(|inner| inner.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'n>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, ReadError> {
        self.content(|inner| inner.deserialize_struct("", fields, visitor))
    }
}
