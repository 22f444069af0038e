//! Writes what was found as OTLP, in one go: the one place that knows how a request is laid out.
//!
//! Spec: OTLP metrics. One `ResourceMetrics` a scraper (or, of `process`, a process), one scope, sums cumulative.

use bytes::Bytes;

use super::metric::{Conventions, Edition, Key, Kind, Metric, Value};
use crate::otlp::wire;

/// A body that is larger than this is not added to.
const BODY_BYTES: usize = 2 << 20;
const SCOPE: &str = "hostmetrics";
const CUMULATIVE: u64 = 2;

/// The body of a request, and how many points are in it.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) payload: Bytes,
    pub(super) points: u64,
}

/// Which metrics of a scraper are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen(pub(super) Vec<&'static str>);

impl Chosen {
    pub(super) fn has(&self, metric: &Metric) -> bool {
        self.0.contains(&metric.name)
    }

    pub(super) fn has_any(&self, metrics: &[&Metric]) -> bool {
        metrics.iter().any(|metric| self.has(metric))
    }
}

/// The requests of one collection, being written.
#[derive(Debug)]
pub(super) struct Sheet {
    conventions: Conventions,
    out: Vec<u8>,
    points: u64,
    done: Vec<Body>,
}

impl Sheet {
    pub(super) const fn new(conventions: Conventions) -> Self {
        Self { conventions, out: Vec::new(), points: 0, done: Vec::new() }
    }

    /// Adds what `write` tells of one resource. `start`: when its counters were 0; both times in nanoseconds since 1970. Gives the number of
    /// points; without any, nothing is added.
    pub(super) fn resource(
        &mut self,
        (start, now): (u64, u64),
        attributes: impl FnOnce(&mut Attributes<'_>),
        chosen: &Chosen,
        write: impl FnOnce(&mut Metrics<'_>),
    ) -> u64 {
        let begin = self.out.len();
        let whole = wire::open_message(&mut self.out, 1);
        wire::put_message(&mut self.out, 1, |out| attributes(&mut Attributes { out, field: 1 }));
        let scope = wire::open_message(&mut self.out, 2);
        wire::put_message(&mut self.out, 1, |out| wire::put_bytes(out, 1, SCOPE.as_bytes()));
        let mut metrics = Metrics { out: &mut self.out, conventions: self.conventions, chosen, start, now, points: 0 };
        write(&mut metrics);
        let points = metrics.points;
        wire::close_message(&mut self.out, scope);
        wire::close_message(&mut self.out, whole);
        if points == 0 {
            self.out.truncate(begin);
        }
        self.points += points;
        if self.out.len() > BODY_BYTES {
            self.cut();
        }
        points
    }

    fn cut(&mut self) {
        if self.points > 0 {
            self.done.push(Body { payload: std::mem::take(&mut self.out).into(), points: std::mem::take(&mut self.points) });
        }
    }

    pub(super) fn finish(mut self) -> Vec<Body> {
        self.cut();
        self.done
    }
}

/// The metrics of one resource.
pub(super) struct Metrics<'a> {
    out: &'a mut Vec<u8>,
    conventions: Conventions,
    chosen: &'a Chosen,
    start: u64,
    now: u64,
    points: u64,
}

impl Metrics<'_> {
    /// Writes a metric if it is chosen, once for each of the conventions: `fill` adds its points. Without points it is left out.
    pub(super) fn write(&mut self, metric: &Metric, fill: impl Fn(&mut Points<'_>)) {
        if !self.chosen.has(metric) {
            return;
        }
        for edition in metric.editions(self.conventions) {
            let begin = self.out.len();
            let (name, unit) = metric.called(*edition);
            let whole = wire::open_message(self.out, 2);
            wire::put_bytes(self.out, 1, name.as_bytes());
            wire::put_bytes(self.out, 3, unit.as_bytes());
            let data = wire::open_message(self.out, if metric.kind == Kind::Gauge { 5 } else { 7 });
            // A gauge has no beginning.
            let start = if metric.kind == Kind::Gauge { 0 } else { self.start };
            let mut points = Points { out: self.out, edition: *edition, start, now: self.now, count: 0 };
            fill(&mut points);
            let count = points.count;
            if metric.kind != Kind::Gauge {
                wire::put_uint(self.out, 2, CUMULATIVE);
                wire::put_uint(self.out, 3, u64::from(metric.kind == Kind::Counter));
            }
            wire::close_message(self.out, data);
            wire::close_message(self.out, whole);
            if count == 0 {
                self.out.truncate(begin);
            }
            self.points += count;
        }
    }
}

/// The points of one metric.
pub(super) struct Points<'a> {
    out: &'a mut Vec<u8>,
    pub(super) edition: Edition,
    start: u64,
    now: u64,
    count: u64,
}

impl Points<'_> {
    pub(super) fn int(&mut self, value: u64, attributes: &[(Key, Value<'_>)]) {
        // What the kernel counts beyond the signed range, it counts modulo 2^64 anyway.
        self.point(attributes, |out| wire::put_fixed64_always(out, 6, value & i64::MAX.cast_unsigned()));
    }

    /// A number that is none is left out.
    pub(super) fn double(&mut self, value: f64, attributes: &[(Key, Value<'_>)]) {
        if value.is_finite() {
            self.point(attributes, |out| wire::put_double_always(out, 4, value));
        }
    }

    fn point(&mut self, attributes: &[(Key, Value<'_>)], value: impl FnOnce(&mut Vec<u8>)) {
        self.count += 1;
        let (start, now, edition) = (self.start, self.now, self.edition);
        wire::put_message(self.out, 1, |out| {
            wire::put_fixed64(out, 2, start);
            wire::put_fixed64(out, 3, now);
            value(out);
            let mut written = Attributes { out, field: 7 };
            for (key, value) in attributes {
                written.put(edition.pick(key.old, key.new), *value, edition);
            }
        });
    }
}

/// Attributes of a resource or point.
pub(super) struct Attributes<'a> {
    out: &'a mut Vec<u8>,
    field: u32,
}

impl Attributes<'_> {
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.put(key, Value::Text(value), Edition::V0);
    }

    pub(super) fn int(&mut self, key: &str, value: i64) {
        self.put(key, Value::Int(value), Edition::V0);
    }

    fn put(&mut self, key: &str, value: Value<'_>, edition: Edition) {
        wire::put_message(self.out, self.field, |out| {
            wire::put_bytes(out, 1, key.as_bytes());
            wire::put_message(out, 2, |out| match (value, edition) {
                (Value::Text(text), _) => wire::put_bytes_always(out, 1, text.as_bytes()),
                (Value::Words(old, new), edition) => wire::put_bytes_always(out, 1, edition.pick(old, new).as_bytes()),
                (Value::Int(number), _) => wire::put_uint_always(out, 3, number.cast_unsigned()),
                (Value::Cpu(number), Edition::V0) => {
                    let mut digits = itoa::Buffer::new();
                    let digits = digits.format(number).as_bytes();
                    wire::put_message(out, 1, |out| {
                        out.extend_from_slice(b"cpu");
                        out.extend_from_slice(digits);
                    });
                }
                (Value::Cpu(number), Edition::V1) => wire::put_uint_always(out, 3, number as u64),
            });
        });
    }
}
