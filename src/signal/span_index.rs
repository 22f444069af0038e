//! What the door's scan leaves behind for the consumers of spans, so that nobody parses twice.

/// Where spans lie in a regular traces payload: one whose spans have ids and in which no sub-message comes twice, as the door sees to.
///
/// Offsets are bytes from the start of the payload; a length of 0 with offset 0 is an absent field.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanIndex {
    /// One entry a `ResourceSpans` that has spans, in wire order.
    pub resources: Vec<ResourceEntry>,
    /// All spans, in wire order.
    pub spans: Vec<SpanEntry>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceEntry {
    /// The `Resource` message, without its tag and length.
    pub resource: (u32, u32),
    /// The spans of this resource are `spans[first_span..end_span]`.
    pub first_span: u32,
    pub end_span: u32,
}

/// One span: its bytes, and the fields that RED metrics and the trace assembler read. Pairs are (offset, length).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SpanEntry {
    /// The `Span` message, without its tag and length.
    pub span: (u32, u32),
    pub name: (u32, u32),
    pub trace_state: (u32, u32),
    /// Offset of the 16 bytes of the trace id; 0 when absent.
    pub trace_id: u32,
    /// Offset of the 8 bytes of the span id; 0 when absent.
    pub span_id: u32,
    /// Offset of the 8 bytes of the parent's span id; 0 for a root.
    pub parent_span_id: u32,
    pub start_unix_nanos: u64,
    pub end_unix_nanos: u64,
    /// `Span.kind`, 0 to 5; other numbers as 255.
    pub kind: u8,
    /// `Status.code`, 0 to 2; other numbers as 255.
    pub status: u8,
    /// The scope this span belongs to: the `InstrumentationScope` message.
    pub scope: (u32, u32),
}
