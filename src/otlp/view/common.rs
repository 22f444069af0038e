//! Resources, scopes, attributes and their values.

use std::str::from_utf8;

use super::{Extent, Run, Value, View, walk};
use crate::otlp::fields::Fields;

/// As text; up to the first byte that is none, which the scan does not let through.
#[inline]
pub(super) fn text(bytes: &[u8]) -> &str {
    match from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid()),
    }
}

/// A `Resource`.
#[derive(Debug, Clone, Copy)]
pub struct ResourceView<'a> {
    message: &'a [u8],
    pub attributes: AttributesView<'a>,
    pub dropped_attributes_count: u32,
    entity_refs: Run<'a>,
}

impl<'a> View<'a> for ResourceView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (mut attributes, mut entity_refs) = (Extent::default(), Extent::default());
        let mut dropped_attributes_count = 0;
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Bytes(_)) => attributes.add(from, to),
            (2, Value::Varint(count)) => dropped_attributes_count = count as u32,
            (3, Value::Bytes(_)) => entity_refs.add(from, to),
            _ => {}
        });
        Self {
            message,
            attributes: AttributesView { run: attributes.of(message, 1) },
            dropped_attributes_count,
            entity_refs: entity_refs.of(message, 3),
        }
    }
}

impl<'a> ResourceView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn service_name(&self) -> Option<&'a str> {
        self.attributes.string("service.name")
    }

    pub fn entity_refs(&self) -> impl Iterator<Item = EntityRefView<'a>> + Clone {
        self.entity_refs.messages().map(EntityRefView::new)
    }
}

/// An `EntityRef`: which attributes of the resource identify an entity.
#[derive(Debug, Clone, Copy)]
pub struct EntityRefView<'a> {
    pub schema_url: &'a str,
    /// The field `type`.
    pub kind: &'a str,
    id_keys: Run<'a>,
    description_keys: Run<'a>,
}

impl<'a> View<'a> for EntityRefView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (mut ids, mut descriptions) = (Extent::default(), Extent::default());
        let mut view = Self { schema_url: "", kind: "", id_keys: Run::default(), description_keys: Run::default() };
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Bytes(url)) => view.schema_url = text(url),
            (2, Value::Bytes(kind)) => view.kind = text(kind),
            (3, Value::Bytes(_)) => ids.add(from, to),
            (4, Value::Bytes(_)) => descriptions.add(from, to),
            _ => {}
        });
        view.id_keys = ids.of(message, 3);
        view.description_keys = descriptions.of(message, 4);
        view
    }
}

impl<'a> EntityRefView<'a> {
    pub fn id_keys(&self) -> impl Iterator<Item = &'a str> + Clone {
        self.id_keys.messages().map(text)
    }

    pub fn description_keys(&self) -> impl Iterator<Item = &'a str> + Clone {
        self.description_keys.messages().map(text)
    }
}

/// An `InstrumentationScope`.
#[derive(Debug, Clone, Copy)]
pub struct ScopeView<'a> {
    message: &'a [u8],
    pub name: &'a str,
    pub version: &'a str,
    pub attributes: AttributesView<'a>,
    pub dropped_attributes_count: u32,
}

impl<'a> View<'a> for ScopeView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut attributes = Extent::default();
        let mut view =
            Self { message, name: "", version: "", attributes: AttributesView::default(), dropped_attributes_count: 0 };
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Bytes(name)) => view.name = text(name),
            (2, Value::Bytes(version)) => view.version = text(version),
            (3, Value::Bytes(_)) => attributes.add(from, to),
            (4, Value::Varint(count)) => view.dropped_attributes_count = count as u32,
            _ => {}
        });
        view.attributes = AttributesView { run: attributes.of(message, 3) };
        view
    }
}

impl<'a> ScopeView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }
}

/// Attributes, or the entries of a key-value list: in wire order, keys may come twice.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AttributesView<'a> {
    pub(super) run: Run<'a>,
}

impl<'a> AttributesView<'a> {
    /// The attributes of a span's bytes, without looking at anything else of it; for readers of a `SpanIndex`.
    pub fn of_span(span: &'a [u8]) -> Self {
        Self { run: Run { bytes: span, number: 9 } }
    }

    pub(super) fn new(run: Run<'a>) -> Self {
        Self { run }
    }

    pub fn iter(self) -> impl Iterator<Item = AttributeView<'a>> + Clone {
        self.run.messages().map(AttributeView::new)
    }

    pub fn is_empty(self) -> bool {
        self.run.messages().next().is_none()
    }

    /// The value of the first attribute with this key.
    pub fn get(self, key: &str) -> Option<AnyValueView<'a>> {
        self.iter().find(|attribute| attribute.key == key.as_bytes()).map(|attribute| attribute.value())
    }

    /// As [`get`](Self::get), if it is a string.
    pub fn string(self, key: &str) -> Option<&'a str> {
        match self.get(key) {
            Some(AnyValueView::String(value)) => Some(value),
            _ => None,
        }
    }
}

/// A `KeyValue`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttributeView<'a> {
    message: &'a [u8],
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> View<'a> for AttributeView<'a> {
    #[inline]
    fn new(message: &'a [u8]) -> Self {
        let mut view = Self { message, key: &[], value: None };
        for field in Fields::new(message) {
            match (field.number, field.value) {
                (1, Value::Bytes(key)) => view.key = key,
                (2, Value::Bytes(value)) => view.value = Some(value),
                _ => {}
            }
        }
        view
    }
}

impl<'a> AttributeView<'a> {
    pub fn key(&self) -> &'a str {
        text(self.key)
    }

    pub fn value(&self) -> AnyValueView<'a> {
        AnyValueView::new(self.value.unwrap_or_default())
    }

    /// The encoded `AnyValue`, to write it again elsewhere; `None` when the attribute has none.
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The encoded `KeyValue`, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }
}

/// An `AnyValue`. Equality of arrays and lists is that of their bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyValueView<'a> {
    /// Nothing is set (or an index into a string table, which the three signals do not have).
    Empty,
    String(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Array(ArrayView<'a>),
    KeyValues(AttributesView<'a>),
}

impl<'a> View<'a> for AnyValueView<'a> {
    #[inline]
    fn new(message: &'a [u8]) -> Self {
        let mut view = AnyValueView::Empty;
        for field in Fields::new(message) {
            view = match (field.number, field.value) {
                (1, Value::Bytes(value)) => AnyValueView::String(text(value)),
                (2, Value::Varint(value)) => AnyValueView::Bool(value != 0),
                (3, Value::Varint(value)) => AnyValueView::Int(value as i64),
                (4, Value::Fixed64(bits)) => AnyValueView::Double(f64::from_bits(bits)),
                (5, Value::Bytes(bytes)) => AnyValueView::Array(ArrayView { run: Run { bytes, number: 1 } }),
                (6, Value::Bytes(bytes)) => AnyValueView::KeyValues(AttributesView { run: Run { bytes, number: 1 } }),
                (7, Value::Bytes(value)) => AnyValueView::Bytes(value),
                (8, Value::Varint(_)) => AnyValueView::Empty,
                _ => view,
            };
        }
        view
    }
}

impl<'a> AnyValueView<'a> {
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            AnyValueView::String(value) => Some(value),
            _ => None,
        }
    }
}

/// An `ArrayValue`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrayView<'a> {
    run: Run<'a>,
}

impl<'a> ArrayView<'a> {
    pub fn iter(self) -> impl Iterator<Item = AnyValueView<'a>> + Clone {
        self.run.messages().map(AnyValueView::new)
    }

    pub fn is_empty(self) -> bool {
        self.run.messages().next().is_none()
    }
}
