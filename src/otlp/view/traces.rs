//! Spans, their events, links and status.

use super::{AttributesView, Extent, Run, Value, View, common::text, walk};
use crate::signal::SpanEntry;

/// A `Span`.
#[derive(Debug, Clone, Copy)]
pub struct SpanView<'a> {
    message: &'a [u8],
    /// 16 bytes.
    pub trace_id: &'a [u8],
    /// 8 bytes.
    pub span_id: &'a [u8],
    pub trace_state: &'a str,
    /// 8 bytes; none (or zeros) for a root.
    pub parent_span_id: &'a [u8],
    pub flags: u32,
    pub name: &'a str,
    /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer; newer ones as they are.
    pub kind: i32,
    pub start_unix_nanos: u64,
    pub end_unix_nanos: u64,
    pub attributes: AttributesView<'a>,
    pub dropped_attributes_count: u32,
    events: Run<'a>,
    pub dropped_events_count: u32,
    links: Run<'a>,
    pub dropped_links_count: u32,
    pub status: StatusView<'a>,
}

impl<'a> View<'a> for SpanView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (mut attributes, mut events, mut links) = (Extent::default(), Extent::default(), Extent::default());
        let mut name: &[u8] = &[];
        let mut view = Self {
            message,
            trace_id: &[],
            span_id: &[],
            trace_state: "",
            parent_span_id: &[],
            flags: 0,
            name: "",
            kind: 0,
            start_unix_nanos: 0,
            end_unix_nanos: 0,
            attributes: AttributesView::default(),
            dropped_attributes_count: 0,
            events: Run::default(),
            dropped_events_count: 0,
            links: Run::default(),
            dropped_links_count: 0,
            status: StatusView { set: false, message: "", code: 0 },
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (9, Value::Bytes(_)) => attributes.add(from, to),
            (1, Value::Bytes(id)) => view.trace_id = id,
            (2, Value::Bytes(id)) => view.span_id = id,
            (3, Value::Bytes(state)) => view.trace_state = text(state),
            (4, Value::Bytes(id)) => view.parent_span_id = id,
            (5, Value::Bytes(bytes)) => name = bytes,
            (6, Value::Varint(kind)) => view.kind = kind as i32,
            (7, Value::Fixed64(nanos)) => view.start_unix_nanos = nanos,
            (8, Value::Fixed64(nanos)) => view.end_unix_nanos = nanos,
            (10, Value::Varint(count)) => view.dropped_attributes_count = count as u32,
            (11, Value::Bytes(_)) => events.add(from, to),
            (12, Value::Varint(count)) => view.dropped_events_count = count as u32,
            (13, Value::Bytes(_)) => links.add(from, to),
            (14, Value::Varint(count)) => view.dropped_links_count = count as u32,
            (15, Value::Bytes(status)) => view.status = StatusView::new(status),
            (16, Value::Fixed32(flags)) => view.flags = flags,
            _ => {}
        });
        view.name = text(name);
        view.attributes = AttributesView::new(attributes.of(message, 9));
        view.events = events.of(message, 11);
        view.links = links.of(message, 13);
        view
    }
}

impl<'a> SpanView<'a> {
    /// The span that an index entry of `payload` speaks of.
    pub fn from_entry(payload: &'a [u8], entry: &SpanEntry) -> Self {
        let (start, len) = (entry.span.0 as usize, entry.span.1 as usize);
        Self::new(payload.get(start..start.saturating_add(len)).unwrap_or_default())
    }

    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn events(&self) -> impl Iterator<Item = EventView<'a>> + Clone {
        self.events.messages().map(EventView::new)
    }

    pub fn links(&self) -> impl Iterator<Item = LinkView<'a>> + Clone {
        self.links.messages().map(LinkView::new)
    }
}

/// A `Status`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatusView<'a> {
    /// Whether the span has the message at all.
    pub set: bool,
    pub message: &'a str,
    /// 0 unset, 1 ok, 2 error; newer ones as they are.
    pub code: i32,
}

impl<'a> View<'a> for StatusView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut view = Self { set: true, message: "", code: 0 };
        walk(message, |field, _, _| match (field.number, field.value) {
            (2, Value::Bytes(message)) => view.message = text(message),
            (3, Value::Varint(code)) => view.code = code as i32,
            _ => {}
        });
        view
    }
}

/// A `Span.Event`.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    pub time_unix_nanos: u64,
    pub name: &'a str,
    pub attributes: AttributesView<'a>,
    pub dropped_attributes_count: u32,
}

impl<'a> View<'a> for EventView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut attributes = Extent::default();
        let mut view = Self { time_unix_nanos: 0, name: "", attributes: AttributesView::default(), dropped_attributes_count: 0 };
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Fixed64(nanos)) => view.time_unix_nanos = nanos,
            (2, Value::Bytes(name)) => view.name = text(name),
            (3, Value::Bytes(_)) => attributes.add(from, to),
            (4, Value::Varint(count)) => view.dropped_attributes_count = count as u32,
            _ => {}
        });
        view.attributes = AttributesView::new(attributes.of(message, 3));
        view
    }
}

/// A `Span.Link`.
#[derive(Debug, Clone, Copy)]
pub struct LinkView<'a> {
    /// 16 bytes or none.
    pub trace_id: &'a [u8],
    /// 8 bytes or none.
    pub span_id: &'a [u8],
    pub trace_state: &'a str,
    pub attributes: AttributesView<'a>,
    pub dropped_attributes_count: u32,
    pub flags: u32,
}

impl<'a> View<'a> for LinkView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut attributes = Extent::default();
        let mut view = Self {
            trace_id: &[],
            span_id: &[],
            trace_state: "",
            attributes: AttributesView::default(),
            dropped_attributes_count: 0,
            flags: 0,
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Bytes(id)) => view.trace_id = id,
            (2, Value::Bytes(id)) => view.span_id = id,
            (3, Value::Bytes(state)) => view.trace_state = text(state),
            (4, Value::Bytes(_)) => attributes.add(from, to),
            (5, Value::Varint(count)) => view.dropped_attributes_count = count as u32,
            (6, Value::Fixed32(flags)) => view.flags = flags,
            _ => {}
        });
        view.attributes = AttributesView::new(attributes.of(message, 4));
        view
    }
}
