//! Writes OTLP metrics point by point: the one place that knows how a request is laid out.
//!
//! In:   heads (resource, scope, metric) as they change, and points below them.
//! Out:  bodies of about 2 MiB each; one that goes on in the next has its heads again.

use bytes::Bytes;

use crate::otlp::wire;

/// A body that is larger than this is not added to.
const BODY_BYTES: usize = 2 << 20;

/// The body of a request, and how many points are in it.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) payload: Bytes,
    pub(super) points: u64,
}

/// What stands before the points of a metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MetricHead {
    /// Name, description, unit, metadata.
    pub(super) fields: Vec<u8>,
    /// The field of `Metric` that its points are in: 5 gauge, 7 sum, 9 histogram, 10 exponential histogram, 11 summary.
    pub(super) data: u32,
    /// Temporality and monotonicity.
    pub(super) data_fields: Vec<u8>,
}

/// The fields of `Metric` that hold points.
pub(super) mod data {
    pub(in super::super) const GAUGE: u32 = 5;
    pub(in super::super) const SUM: u32 = 7;
    pub(in super::super) const HISTOGRAM: u32 = 9;
    pub(in super::super) const EXPONENTIAL: u32 = 10;
    pub(in super::super) const SUMMARY: u32 = 11;
}

/// Requests being written.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    out: Vec<u8>,
    points: u64,
    done: Vec<Body>,
    /// Bytes of `done`.
    finished: usize,
    /// The fields of `ResourceMetrics` and `ScopeMetrics` before what they hold.
    resource: Vec<u8>,
    scope: Vec<u8>,
    metric: MetricHead,
    /// Where the messages begin that are open: resource, scope, metric, its data.
    open: [Option<usize>; 4],
}

impl Sheet {
    /// What follows is of this resource. `fields`: those of `ResourceMetrics` but for its scopes.
    pub(super) fn resource(&mut self, fields: Vec<u8>) {
        self.close(0);
        self.resource = fields;
    }

    /// `fields`: those of `ScopeMetrics` but for its metrics.
    pub(super) fn scope(&mut self, fields: Vec<u8>) {
        self.close(1);
        self.scope = fields;
    }

    pub(super) fn metric(&mut self, head: MetricHead) {
        self.close(2);
        self.metric = head;
    }

    /// Adds one point, with what is not open of its heads.
    pub(super) fn point(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { out, resource, scope, metric, open, .. } = self;
        if open[0].is_none() {
            open[0] = Some(wire::open_message(out, 1));
            out.extend_from_slice(resource);
        }
        if open[1].is_none() {
            open[1] = Some(wire::open_message(out, 2));
            out.extend_from_slice(scope);
        }
        if open[2].is_none() {
            open[2] = Some(wire::open_message(out, 2));
            out.extend_from_slice(&metric.fields);
            open[3] = Some(wire::open_message(out, metric.data));
            out.extend_from_slice(&metric.data_fields);
        }
        wire::put_message(out, 1, write);
        self.points += 1;
        if self.out.len() > BODY_BYTES {
            self.cut();
        }
    }

    /// Closes what is open from this depth down.
    fn close(&mut self, depth: usize) {
        for start in self.open.iter_mut().skip(depth).rev().filter_map(Option::take) {
            wire::close_message(&mut self.out, start);
        }
    }

    /// Written so far.
    pub(super) fn bytes(&self) -> usize {
        self.finished + self.out.len()
    }

    fn cut(&mut self) {
        self.close(0);
        self.finished += self.out.len();
        if self.points > 0 {
            self.done.push(Body { payload: std::mem::take(&mut self.out).into(), points: std::mem::take(&mut self.points) });
        }
    }

    pub(super) fn finish(mut self) -> Vec<Body> {
        self.cut();
        self.done
    }
}

/// One attribute with a text, as field `field` of the message.
pub(super) fn put_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &str) {
    wire::put_message(out, field, |out| {
        wire::put_bytes(out, 1, key.as_bytes());
        wire::put_message(out, 2, |out| wire::put_bytes_always(out, 1, value.as_bytes()));
    });
}
