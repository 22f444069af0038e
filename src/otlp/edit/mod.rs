//! Editing a request: attributes of resources and items changed, items dropped, everything else passed on byte for byte.
//!
//! In:   a well-formed request (behind the door's scan) and an [`Editor`] that is shown each resource and each item.
//! Out:  the changed request; the very same `Bytes` when the editor kept everything.
//! Full: needs room for one copy of the request.
//! Lost: what the editor drops; [`Edited::dropped`] counts it.
//!
//! ```
//! use bytes::Bytes;
//! use weir::{
//!     otlp::{
//!         edit::{AttributesWriter, Edit, Editor, Place, edit},
//!         view::SpanView,
//!     },
//!     signal::Signal,
//! };
//!
//! /// Drops health checks, removes `password`, adds `team`.
//! struct Tidy;
//!
//! impl Editor for Tidy {
//!     fn span(&mut self, _: &Place<'_>, span: &SpanView<'_>, out: &mut AttributesWriter) -> Edit {
//!         if span.name == "GET /health" {
//!             return Edit::Drop;
//!         }
//!         if span.attributes.get("password").is_none() {
//!             // What is there stays as it is, without being read.
//!             out.string("team", "shop");
//!             return Edit::Append;
//!         }
//!         for attribute in span.attributes.iter().filter(|attribute| attribute.key() != "password") {
//!             out.keep(&attribute);
//!         }
//!         out.string("team", "shop");
//!         Edit::Replace
//!     }
//! }
//!
//! # let payload = Bytes::new();
//! let edited = edit(Signal::Traces, &payload, &mut Tidy);
//! # assert_eq!((edited.payload, edited.dropped), (payload, 0));
//! ```

mod attributes;

#[cfg(test)]
mod tests;

pub use self::attributes::AttributesWriter;

use bytes::Bytes;

use super::{
    count,
    rewrite::{Part, Parts, Rewriter},
    view::{
        ExponentialHistogramPointView, HistogramPointView, LogRecordView, MetricView, NumberPointView, PointView, ResourceView,
        ScopeView, SpanView, SummaryPointView, View,
    },
};
use crate::signal::Signal;

/// What becomes of a resource or an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// It stays as it is; what was written to the writer does not count.
    Keep,
    /// It goes. Of a resource: with all its items.
    Drop,
    /// Its attributes are those that were written to the writer, and no others.
    Replace,
    /// The attributes that were written to the writer are added behind its own.
    Append,
}

/// Decides about each resource and item; what it does not override stays.
///
/// `out` is empty at each call; what it holds afterwards counts by the [`Edit`] that is returned. Nothing forbids two attributes with one key.
pub trait Editor {
    /// Whether items are shown. If not, nothing below the resources is read.
    fn visits_items(&self) -> bool {
        true
    }

    /// An empty view, if the sender said no resource; it is made when attributes are written.
    fn resource(&mut self, _resource: &ResourceView<'_>, _out: &mut AttributesWriter) -> Edit {
        Edit::Keep
    }

    fn span(&mut self, _place: &Place<'_>, _span: &SpanView<'_>, _out: &mut AttributesWriter) -> Edit {
        Edit::Keep
    }

    fn log_record(&mut self, _place: &Place<'_>, _record: &LogRecordView<'_>, _out: &mut AttributesWriter) -> Edit {
        Edit::Keep
    }

    fn data_point(
        &mut self,
        _place: &Place<'_>,
        _metric: &MetricView<'_>,
        _point: &PointView<'_>,
        _out: &mut AttributesWriter,
    ) -> Edit {
        Edit::Keep
    }
}

/// Where an item belongs: its resource and scope as they came, before any edit.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub resource: ResourceView<'a>,
    pub scope: ScopeView<'a>,
}

/// An edited request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    pub payload: Bytes,
    /// Items that are no longer in it.
    pub dropped: u64,
}

/// Shows every resource and item of `payload` to `editor`, in wire order, and applies what it decides. Envelopes that lose all their items go too.
pub fn edit(signal: Signal, payload: &Bytes, editor: &mut impl Editor) -> Edited {
    let mut walk =
        Walk { signal, payload, editor, rewriter: Rewriter::new(payload), attributes: AttributesWriter::default(), dropped: 0 };
    for part in Parts::new(payload, 0, payload.len()).filter(|part| part.is(1)) {
        walk.of_resource(part);
    }
    let dropped = walk.dropped;
    Edited { payload: walk.rewriter.finish().map_or_else(|| payload.clone(), Bytes::from), dropped }
}

struct Walk<'a, E> {
    signal: Signal,
    payload: &'a [u8],
    editor: &'a mut E,
    rewriter: Rewriter<'a>,
    attributes: AttributesWriter,
    dropped: u64,
}

/// What is left of an envelope.
#[derive(Clone, Copy, Default)]
struct Left {
    kept: u64,
    dropped: u64,
}

impl Left {
    fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.dropped += other.dropped;
    }

    /// Whether it was emptied here; what came empty stays.
    fn is_emptied(self) -> bool {
        self.kept == 0 && self.dropped > 0
    }
}

impl<'a, E: Editor> Walk<'a, E> {
    fn of_resource(&mut self, part: Part) {
        let payload = self.payload;
        let found = Parts::of(payload, &part).find(|part| part.is(1));
        let resource = ResourceView::new(found.map_or(&[], |found| found.value(payload)));
        self.attributes.begin(1);
        let decision = self.editor.resource(&resource, &mut self.attributes);
        if decision == Edit::Drop {
            self.dropped += count::of_resource(self.signal, part.value(payload));
            self.rewriter.remove(part.key, part.end);
            return;
        }
        self.rewriter.enter(part);
        if found.is_none() && matches!(decision, Edit::Replace | Edit::Append) && !self.attributes.is_empty() {
            let resource = self.attributes.as_message(1);
            self.rewriter.replace(part.body, part.body, &resource);
        }
        // The writer serves the items as well, so what is meant for a resource that comes behind them is put aside; usually it comes first.
        let (mut first, mut aside) = (true, None);
        let mut left = Left::default();
        for inner in Parts::of(payload, &part) {
            if Some(inner) == found {
                self.rewriter.enter(inner);
                if let Some(written) = aside.take() {
                    self.attributes = written;
                }
                self.apply(decision, inner, 1);
                self.rewriter.leave();
            } else if inner.is(2) && self.editor.visits_items() {
                if first && found.is_some_and(|found| found.key > inner.key) {
                    aside = Some(std::mem::take(&mut self.attributes));
                }
                first = false;
                left.add(self.of_scope(inner, resource));
            }
        }
        self.close(left);
    }

    fn of_scope(&mut self, part: Part, resource: ResourceView<'a>) -> Left {
        let payload = self.payload;
        let scope = Parts::of(payload, &part).find(|part| part.is(1)).map_or(&[][..], |part| part.value(payload));
        let place = Place { resource, scope: ScopeView::new(scope) };
        self.rewriter.enter(part);
        let mut left = Left::default();
        for inner in Parts::of(payload, &part).filter(|part| part.is(2)) {
            match self.signal {
                Signal::Traces => {
                    self.attributes.begin(9);
                    let decision = self.editor.span(&place, &SpanView::new(inner.value(payload)), &mut self.attributes);
                    left.add(self.item(decision, inner, 9));
                }
                Signal::Logs => {
                    self.attributes.begin(6);
                    let record = LogRecordView::new(inner.value(payload));
                    let decision = self.editor.log_record(&place, &record, &mut self.attributes);
                    left.add(self.item(decision, inner, 6));
                }
                Signal::Metrics => left.add(self.metric(inner, &place)),
            }
        }
        self.close(left);
        left
    }

    fn metric(&mut self, part: Part, place: &Place<'a>) -> Left {
        let payload = self.payload;
        let metric = MetricView::new(part.value(payload));
        self.rewriter.enter(part);
        let mut left = Left::default();
        for data in Parts::of(payload, &part).filter(|data| matches!(data.number, 5 | 7 | 9 | 10 | 11) && data.wire == 2) {
            self.rewriter.enter(data);
            let mut of_data = Left::default();
            for inner in Parts::of(payload, &data).filter(|inner| inner.is(1)) {
                let bytes = inner.value(payload);
                let (point, number) = match data.number {
                    9 => (PointView::Histogram(HistogramPointView::new(bytes)), 9),
                    10 => (PointView::ExponentialHistogram(ExponentialHistogramPointView::new(bytes)), 1),
                    11 => (PointView::Summary(SummaryPointView::new(bytes)), 7),
                    _ => (PointView::Number(NumberPointView::new(bytes)), 7),
                };
                self.attributes.begin(number);
                let decision = self.editor.data_point(place, &metric, &point, &mut self.attributes);
                of_data.add(self.item(decision, inner, number));
            }
            self.close(of_data);
            left.add(of_data);
        }
        self.close(left);
        left
    }

    /// `attributes` is the number of the item's field for them.
    fn item(&mut self, decision: Edit, part: Part, attributes: u32) -> Left {
        match decision {
            Edit::Keep => Left { kept: 1, dropped: 0 },
            Edit::Drop => {
                self.dropped += 1;
                self.rewriter.remove(part.key, part.end);
                Left { kept: 0, dropped: 1 }
            }
            Edit::Replace | Edit::Append => {
                self.rewriter.enter(part);
                self.apply(decision, part, attributes);
                self.rewriter.leave();
                Left { kept: 1, dropped: 0 }
            }
        }
    }

    /// Changes the attributes (field `number`) of the message that was just entered.
    fn apply(&mut self, decision: Edit, part: Part, number: u32) {
        let payload = self.payload;
        match decision {
            Edit::Keep | Edit::Drop => {}
            Edit::Append if self.attributes.is_empty() => {}
            Edit::Append => {
                let at = Parts::of(payload, &part).filter(|inner| inner.is(number)).last().map_or(part.end, |last| last.end);
                self.rewriter.replace(at, at, self.attributes.as_fields());
            }
            Edit::Replace => {
                let mut written = false;
                for inner in Parts::of(payload, &part).filter(|inner| inner.is(number)) {
                    let new = if written { &[][..] } else { self.attributes.as_fields() };
                    self.rewriter.replace(inner.key, inner.end, new);
                    written = true;
                }
                if !written && !self.attributes.is_empty() {
                    self.rewriter.replace(part.end, part.end, self.attributes.as_fields());
                }
            }
        }
    }

    fn close(&mut self, left: Left) {
        if left.is_emptied() {
            self.rewriter.leave_out();
        } else {
            self.rewriter.leave();
        }
    }
}
