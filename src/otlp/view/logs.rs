//! Log records.

use super::{AnyValueView, AttributesView, Extent, Value, View, common::text, walk};

/// A `LogRecord`.
#[derive(Debug, Clone, Copy)]
pub struct LogRecordView<'a> {
    message: &'a [u8],
    pub time_unix_nanos: u64,
    pub observed_unix_nanos: u64,
    /// 1 to 24; 0 when unspecified.
    pub severity_number: i32,
    pub severity_text: &'a str,
    body: Option<&'a [u8]>,
    pub attributes: AttributesView<'a>,
    pub dropped_attributes_count: u32,
    pub flags: u32,
    /// 16 bytes or none.
    pub trace_id: &'a [u8],
    /// 8 bytes or none.
    pub span_id: &'a [u8],
    pub event_name: &'a str,
}

impl<'a> View<'a> for LogRecordView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut attributes = Extent::default();
        let mut view = Self {
            message,
            time_unix_nanos: 0,
            observed_unix_nanos: 0,
            severity_number: 0,
            severity_text: "",
            body: None,
            attributes: AttributesView::default(),
            dropped_attributes_count: 0,
            flags: 0,
            trace_id: &[],
            span_id: &[],
            event_name: "",
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (6, Value::Bytes(_)) => attributes.add(from, to),
            (1, Value::Fixed64(nanos)) => view.time_unix_nanos = nanos,
            (2, Value::Varint(number)) => view.severity_number = number as i32,
            (3, Value::Bytes(severity)) => view.severity_text = text(severity),
            (5, Value::Bytes(body)) => view.body = Some(body),
            (7, Value::Varint(count)) => view.dropped_attributes_count = count as u32,
            (8, Value::Fixed32(flags)) => view.flags = flags,
            (9, Value::Bytes(id)) => view.trace_id = id,
            (10, Value::Bytes(id)) => view.span_id = id,
            (11, Value::Fixed64(nanos)) => view.observed_unix_nanos = nanos,
            (12, Value::Bytes(name)) => view.event_name = text(name),
            _ => {}
        });
        view.attributes = AttributesView::new(attributes.of(message, 6));
        view
    }
}

impl<'a> LogRecordView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn body(&self) -> AnyValueView<'a> {
        AnyValueView::new(self.body.unwrap_or_default())
    }

    /// The encoded `AnyValue` of the body; `None` when the record has none.
    pub fn body_bytes(&self) -> Option<&'a [u8]> {
        self.body
    }
}
