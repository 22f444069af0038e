//! Borrowed views of a request's bytes: every field of the three signals, read where it stands.
//!
//! ```
//! # use weir::otlp::view::TracesView;
//! # fn show(payload: &[u8]) {
//! for resource_spans in TracesView::new(payload).resources() {
//!     let service = resource_spans.resource().service_name().unwrap_or("unknown");
//!     for scope_spans in resource_spans.scopes() {
//!         for span in scope_spans.items() {
//!             let method = span.attributes.string("http.request.method");
//!             println!("{service} {} {:?} {} ns", span.name, method, span.end_unix_nanos.saturating_sub(span.start_unix_nanos));
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! Making the view of one message walks its fields once; what lies below it (attributes, events, points) is walked when it is asked for. Nothing is
//! allocated. Views of bytes that no scan has seen do not panic: they end where the bytes cannot be read, and a string ends where it is no text.
//! Of numbers and strings that come twice the last is read, as protobuf wants it; sub-messages and members of a
//! oneof do not come twice behind the door (see [`scan`](mod@crate::otlp::scan)); before it one of them is read.

mod common;
mod logs;
mod metrics;
mod traces;

#[cfg(test)]
mod tests;

pub use self::{
    common::{AnyValueView, ArrayView, AttributeView, AttributesView, EntityRefView, ResourceView, ScopeView},
    logs::LogRecordView,
    metrics::{
        BucketsView, DataView, ExemplarView, ExponentialHistogramPointView, HistogramPointView, MetricView, NumberPointView,
        NumberValue, NumbersView, PointView, PointsView, QuantileView, SummaryPointView,
    },
    traces::{EventView, LinkView, SpanView, StatusView},
};

use std::marker::PhantomData;

use self::common::text;
use super::fields::{Field, Fields, Value};

/// What can be read from a message's bytes.
pub trait View<'a>: Copy {
    /// `message` is without its tag and length.
    fn new(message: &'a [u8]) -> Self;
}

pub type TracesView<'a> = RequestView<'a, SpanView<'a>>;
pub type ResourceSpansView<'a> = ResourceItemsView<'a, SpanView<'a>>;
pub type ScopeSpansView<'a> = ScopeItemsView<'a, SpanView<'a>>;

pub type MetricsView<'a> = RequestView<'a, MetricView<'a>>;
pub type ResourceMetricsView<'a> = ResourceItemsView<'a, MetricView<'a>>;
pub type ScopeMetricsView<'a> = ScopeItemsView<'a, MetricView<'a>>;

pub type LogsView<'a> = RequestView<'a, LogRecordView<'a>>;
pub type ResourceLogsView<'a> = ResourceItemsView<'a, LogRecordView<'a>>;
pub type ScopeLogsView<'a> = ScopeItemsView<'a, LogRecordView<'a>>;

/// An `Export{Trace,Metrics,Logs}ServiceRequest`, whose three levels are alike in all signals.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a, I> {
    message: &'a [u8],
    item: PhantomData<I>,
}

impl<'a, I: View<'a> + 'a> RequestView<'a, I> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { message: payload, item: PhantomData }
    }

    /// `resource_spans`, `resource_metrics` or `resource_logs`.
    pub fn resources(self) -> impl Iterator<Item = ResourceItemsView<'a, I>> + Clone {
        Fields::new(self.message).messages(1).map(ResourceItemsView::new)
    }

    /// All items of the request with where they belong, in wire order.
    pub fn items(self) -> impl Iterator<Item = (ResourceItemsView<'a, I>, ScopeItemsView<'a, I>, I)> + Clone {
        self.resources()
            .flat_map(|resource| resource.scopes().flat_map(move |scope| scope.items().map(move |item| (resource, scope, item))))
    }
}

/// A `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`.
#[derive(Debug, Clone, Copy)]
pub struct ResourceItemsView<'a, I> {
    message: &'a [u8],
    item: PhantomData<I>,
}

impl<'a, I: View<'a> + 'a> ResourceItemsView<'a, I> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, item: PhantomData }
    }

    /// Its bytes, without tag and length.
    pub fn bytes(self) -> &'a [u8] {
        self.message
    }

    /// An empty resource if none is said.
    pub fn resource(self) -> ResourceView<'a> {
        ResourceView::new(self.resource_bytes().unwrap_or_default())
    }

    pub fn resource_bytes(self) -> Option<&'a [u8]> {
        Fields::new(self.message).messages(1).next()
    }

    pub fn schema_url(self) -> &'a str {
        last_text(self.message, 3)
    }

    /// `scope_spans`, `scope_metrics` or `scope_logs`.
    pub fn scopes(self) -> impl Iterator<Item = ScopeItemsView<'a, I>> + Clone {
        Fields::new(self.message).messages(2).map(ScopeItemsView::new)
    }
}

/// A `ScopeSpans`, `ScopeMetrics` or `ScopeLogs`.
#[derive(Debug, Clone, Copy)]
pub struct ScopeItemsView<'a, I> {
    message: &'a [u8],
    item: PhantomData<I>,
}

impl<'a, I: View<'a> + 'a> ScopeItemsView<'a, I> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, item: PhantomData }
    }

    /// Its bytes, without tag and length.
    pub fn bytes(self) -> &'a [u8] {
        self.message
    }

    /// An empty scope if none is said.
    pub fn scope(self) -> ScopeView<'a> {
        ScopeView::new(self.scope_bytes().unwrap_or_default())
    }

    pub fn scope_bytes(self) -> Option<&'a [u8]> {
        Fields::new(self.message).messages(1).next()
    }

    /// It stands behind the items, so finding it walks over them.
    pub fn schema_url(self) -> &'a str {
        last_text(self.message, 3)
    }

    /// Spans, metrics or log records.
    pub fn items(self) -> impl Iterator<Item = I> + Clone {
        Fields::new(self.message).messages(2).map(I::new)
    }
}

fn last_text(message: &[u8], number: u32) -> &str {
    text(Fields::new(message).messages(number).last().unwrap_or_default())
}

/// The part of a message from the first to the last of its fields with one number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Run<'a> {
    bytes: &'a [u8],
    number: u32,
}

impl<'a> Run<'a> {
    fn fields(self) -> impl Iterator<Item = Value<'a>> + Clone {
        Fields::new(self.bytes).filter(move |field| field.number == self.number).map(|field| field.value)
    }

    fn messages(self) -> impl Iterator<Item = &'a [u8]> + Clone {
        Fields::new(self.bytes).messages(self.number)
    }
}

/// Where a run begins and ends, while the message is being walked.
#[derive(Clone, Copy, Default)]
struct Extent {
    /// One more than the offset of the first field, 0 before there is one.
    from: usize,
    to: usize,
}

impl Extent {
    #[inline(always)]
    fn add(&mut self, from: usize, to: usize) {
        if self.from == 0 {
            self.from = from + 1;
        }
        self.to = to;
    }

    fn of(self, message: &[u8], number: u32) -> Run<'_> {
        let bytes = self.from.checked_sub(1).and_then(|from| message.get(from..self.to)).unwrap_or_default();
        Run { bytes, number }
    }
}

/// Calls `each` with the fields of a message, each with where it begins and ends.
#[inline(always)]
fn walk<'a>(message: &'a [u8], mut each: impl FnMut(Field<'a>, usize, usize)) {
    let mut fields = Fields::new(message);
    let mut at = 0;
    while let Some(field) = fields.next() {
        let next = fields.offset();
        each(field, at, next);
        at = next;
    }
}
