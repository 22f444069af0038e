//! Writing attributes.

use crate::otlp::{
    view::AttributeView,
    wire::{put_bytes, put_bytes_always, put_double_always, put_message, put_uint_always},
};

/// Attributes for one resource or item, encoded as they are written, in that order.
#[derive(Debug, Default)]
pub struct AttributesWriter {
    fields: Vec<u8>,
    /// The number of the field that they are in their message.
    number: u32,
}

impl AttributesWriter {
    /// An attribute that is already there, as it is: its bytes are copied.
    pub fn keep(&mut self, attribute: &AttributeView<'_>) {
        put_bytes_always(&mut self.fields, self.number, attribute.bytes());
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.attribute(key, |out| put_bytes_always(out, 1, value.as_bytes()));
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.attribute(key, |out| put_uint_always(out, 2, u64::from(value)));
    }

    pub fn int(&mut self, key: &str, value: i64) {
        self.attribute(key, |out| put_uint_always(out, 3, value as u64));
    }

    pub fn double(&mut self, key: &str, value: f64) {
        self.attribute(key, |out| put_double_always(out, 4, value));
    }

    pub fn bytes(&mut self, key: &str, value: &[u8]) {
        self.attribute(key, |out| put_bytes_always(out, 7, value));
    }

    /// A value of any kind that is already encoded, such as that of [`AttributeView::value_bytes`], under a key of its own.
    pub fn encoded(&mut self, key: &str, any_value: &[u8]) {
        self.attribute(key, |out| out.extend_from_slice(any_value));
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn attribute(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        put_message(&mut self.fields, self.number, |out| {
            put_bytes(out, 1, key.as_bytes());
            put_message(out, 2, value);
        });
    }

    /// Empties it, for a message whose attributes are field `number`.
    pub(super) fn begin(&mut self, number: u32) {
        self.fields.clear();
        self.number = number;
    }

    /// All of them, as fields of the message they belong to.
    pub(super) fn as_fields(&self) -> &[u8] {
        &self.fields
    }

    /// The message they belong to, itself as a field.
    pub(super) fn as_message(&self, field: u32) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.fields.len() + 8);
        put_bytes_always(&mut message, field, &self.fields);
        message
    }
}
