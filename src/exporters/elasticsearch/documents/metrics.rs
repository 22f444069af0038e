//! Data points as documents: those of one moment with the same attributes are fields of one.

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{
    Scratch,
    json::{Object, attributes, number, tidy},
    otel::{DataStream, data_stream},
};
use crate::{
    exporters::elasticsearch::target::is_routing,
    otlp::{
        json::scalar::decimal,
        view::{
            AttributesView, DataView, ExponentialHistogramPointView, HistogramPointView, MetricView, NumberPointView,
            NumberValue, PointView,
        },
    },
};

/// Bit 0 of a point's flags: it only says that there is no value any more.
const NO_RECORDED_VALUE: u32 = 1;

/// One data point that has a value.
#[derive(Clone, Copy)]
pub(super) struct Point<'a> {
    /// Its number in the request.
    pub(super) item: u64,
    pub(super) metric: MetricView<'a>,
    pub(super) view: PointView<'a>,
}

/// The points of a metric, each with its number from `item` on. `None`: there is nothing to store, it says that a series ended; an error: it cannot be
/// stored.
pub(super) fn points<'a>(
    metric: MetricView<'a>,
    mut item: u64,
    mut each: impl FnMut(u64, Result<Option<Point<'a>>, &'static str>),
) -> u64 {
    let mut one = |point: PointView<'a>| {
        let read = if flags(&point) & NO_RECORDED_VALUE != 0 {
            Ok(None)
        } else if let Some(wrong) = wrong(&point) {
            Err(wrong)
        } else {
            Ok(Some(Point { item, metric, view: point }))
        };
        each(item, read);
        item += 1;
    };
    match metric.data {
        DataView::None => {}
        DataView::Gauge { points } | DataView::Sum { points, .. } => points.iter().map(PointView::Number).for_each(&mut one),
        DataView::Histogram { points, .. } => points.iter().map(PointView::Histogram).for_each(&mut one),
        DataView::ExponentialHistogram { points, .. } => {
            points.iter().map(PointView::ExponentialHistogram).for_each(&mut one);
        }
        DataView::Summary { points } => points.iter().map(PointView::Summary).for_each(&mut one),
    }
    item
}

fn flags(point: &PointView<'_>) -> u32 {
    match point {
        PointView::Number(point) => point.flags,
        PointView::Histogram(point) => point.flags,
        PointView::ExponentialHistogram(point) => point.flags,
        PointView::Summary(point) => point.flags,
    }
}

fn wrong(point: &PointView<'_>) -> Option<&'static str> {
    match point {
        PointView::Number(NumberPointView { value: NumberValue::None, .. }) => Some("a data point without a value"),
        PointView::Number(NumberPointView { value: NumberValue::Double(value), .. }) if !value.is_finite() => {
            Some("the value is no finite number, and JSON has no word for it")
        }
        PointView::Histogram(point) => {
            let (counts, bounds) = (point.bucket_counts.iter().count(), point.explicit_bounds.iter().count());
            let fits = counts == bounds + 1 && point.explicit_bounds.doubles().all(f64::is_finite);
            // Without buckets there is the one between the infinities, whose count is the point's.
            (!fits && counts > 1).then_some("a histogram whose bounds do not fit its buckets")
        }
        PointView::Summary(point) if !point.sum.is_finite() => Some("the sum is no finite number, and JSON has no word for it"),
        _ => None,
    }
}

impl Point<'_> {
    pub(super) fn time(&self) -> u64 {
        match self.view {
            PointView::Number(point) => point.time_unix_nanos,
            PointView::Histogram(point) => point.time_unix_nanos,
            PointView::ExponentialHistogram(point) => point.time_unix_nanos,
            PointView::Summary(point) => point.time_unix_nanos,
        }
    }

    fn start(&self) -> u64 {
        match self.view {
            PointView::Number(point) => point.start_unix_nanos,
            PointView::Histogram(point) => point.start_unix_nanos,
            PointView::ExponentialHistogram(point) => point.start_unix_nanos,
            PointView::Summary(point) => point.start_unix_nanos,
        }
    }

    /// The name under which the `otel` templates know its type.
    pub(super) fn template(&self) -> &'static str {
        let monotonic = matches!(self.metric.data, DataView::Sum { monotonic: true, .. });
        match (self.view, monotonic) {
            (PointView::Number(NumberPointView { value: NumberValue::Int(_), .. }), true) => "counter_long",
            (PointView::Number(NumberPointView { value: NumberValue::Int(_), .. }), false) => "gauge_long",
            (PointView::Number(_), true) => "counter_double",
            (PointView::Number(_), false) => "gauge_double",
            (PointView::Histogram(_) | PointView::ExponentialHistogram(_), _) => "histogram",
            (PointView::Summary(_), _) => "summary",
        }
    }

    pub(super) fn value(&self, out: &mut Vec<u8>) {
        match self.view {
            PointView::Number(point) => match point.value {
                NumberValue::Int(value) => decimal(value, out),
                NumberValue::Double(value) => number(value, out),
                NumberValue::None => out.extend_from_slice(b"null"),
            },
            PointView::Histogram(point) => histogram(&explicit(&point), out),
            PointView::ExponentialHistogram(point) => histogram(&exponential(&point), out),
            PointView::Summary(point) => {
                let mut object = Object::open(out);
                number(point.sum, object.field("sum"));
                decimal(point.count, object.field("value_count"));
                object.close();
            }
        }
    }
}

/// Values in order, each with how often it was seen.
fn histogram(buckets: &[(f64, u64)], out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    let values = object.field("values");
    values.push(b'[');
    for (at, (value, _)) in buckets.iter().enumerate() {
        if at > 0 {
            values.push(b',');
        }
        number(*value, values);
    }
    values.push(b']');
    let counts = object.field("counts");
    counts.push(b'[');
    for (at, (_, count)) in buckets.iter().enumerate() {
        if at > 0 {
            counts.push(b',');
        }
        decimal(*count, counts);
    }
    counts.push(b']');
    object.close();
}

/// A bucket stands at its middle; the first at half its bound, the last at its bound, as they have only one.
fn explicit(point: &HistogramPointView<'_>) -> Vec<(f64, u64)> {
    let bounds: SmallVec<[f64; 32]> = point.explicit_bounds.doubles().collect();
    if bounds.is_empty() {
        let mean = point.sum.filter(|sum| sum.is_finite() && point.count > 0).map_or(0.0, |sum| sum / point.count as f64);
        return if point.count > 0 { vec![(mean, point.count)] } else { Vec::new() };
    }
    let mut buckets = Vec::new();
    for (at, count) in point.bucket_counts.iter().enumerate().filter(|(_, count)| *count > 0) {
        let (lower, upper) = (at.checked_sub(1).and_then(|at| bounds.get(at)), bounds.get(at));
        let value = match (lower, upper) {
            (None, Some(upper)) if *upper > 0.0 => upper / 2.0,
            (Some(lower), Some(upper)) => lower + (upper - lower) / 2.0,
            (None, Some(bound)) | (Some(bound), None) => *bound,
            (None, None) => 0.0,
        };
        push(&mut buckets, value, count);
    }
    buckets
}

/// The same for buckets that grow by a factor: the middle of each.
fn exponential(point: &ExponentialHistogramPointView<'_>) -> Vec<(f64, u64)> {
    let factor = f64::exp2(f64::exp2(-f64::from(point.scale)));
    let middle = |index: i64| {
        let lower = f64::exp2(index as f64 * f64::exp2(-f64::from(point.scale)));
        let upper = lower * factor;
        if upper.is_finite() { lower + (upper - lower) / 2.0 } else { lower.min(f64::MAX) }
    };
    let counted = |buckets: super::BucketsView<'_>| -> Vec<(i64, u64)> {
        let offset = i64::from(buckets.offset);
        let counts = buckets.bucket_counts.iter().enumerate().filter(|(_, count)| *count > 0);
        counts.map(|(at, count)| (offset + at as i64, count)).collect()
    };
    let mut buckets = Vec::new();
    for (index, count) in counted(point.negative).into_iter().rev() {
        push(&mut buckets, -middle(index), count);
    }
    if point.zero_count > 0 {
        push(&mut buckets, 0.0, point.zero_count);
    }
    for (index, count) in counted(point.positive) {
        push(&mut buckets, middle(index), count);
    }
    buckets
}

/// Values must grow; where they no longer can be told apart, they are one.
fn push(buckets: &mut Vec<(f64, u64)>, value: f64, count: u64) {
    match buckets.last_mut() {
        Some((last, counted)) if value <= *last => *counted = counted.saturating_add(count),
        _ => buckets.push((value, count)),
    }
}

/// What points of one document have in common.
#[derive(Clone, Copy)]
struct Shared<'a> {
    time: u64,
    start: u64,
    unit: &'a str,
    attributes: AttributesView<'a>,
}

impl PartialEq for Shared<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.start, self.unit) == (other.time, other.start, other.unit)
            && self
                .attributes
                .iter()
                .map(|attribute| attribute.bytes())
                .eq(other.attributes.iter().map(|attribute| attribute.bytes()))
    }
}

impl Eq for Shared<'_> {}

impl Hash for Shared<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.time, self.start, self.unit).hash(state);
        for attribute in self.attributes.iter() {
            attribute.bytes().hash(state);
        }
    }
}

/// Metrics of one document; an index has 1000 fields.
const FIELDS_MAX: usize = 256;

/// The points of one scope, those together that make one document; in the order of their first points.
pub(super) fn groups<'a>(points: &[Point<'a>], by_unit: bool) -> Vec<SmallVec<[Point<'a>; 4]>> {
    let mut groups: Vec<SmallVec<[Point<'a>; 4]>> = Vec::new();
    let mut known: HashMap<Shared<'a>, usize, foldhash::fast::RandomState> = HashMap::default();
    for point in points {
        let attributes = point.view.attributes();
        let (start, unit) = if by_unit { (point.start(), point.metric.unit) } else { (0, "") };
        let shared = Shared { time: point.time(), start, unit, attributes };
        let at = *known.entry(shared).or_insert(groups.len());
        match groups.get_mut(at) {
            // A name twice in one document is refused, and so are more fields than an index may have: it begins another.
            Some(group) if group.len() < FIELDS_MAX && group.iter().all(|other| other.metric.name != point.metric.name) => {
                group.push(*point);
            }
            _ => {
                known.insert(shared, groups.len());
                groups.push(SmallVec::from_iter([*point]));
            }
        }
    }
    groups
}

/// The document of a group in the `otel` mapping.
pub(super) fn otel(group: &[Point<'_>], stream: Option<DataStream<'_>>, scratch: &Scratch, out: &mut Vec<u8>) {
    let Some(first) = group.first() else { return };
    let mut object = Object::open(out);
    object.time("@timestamp", first.time());
    if first.start() != 0 {
        object.time("start_timestamp", first.start());
    }
    data_stream(&mut object, stream);
    object.text("unit", first.metric.unit);
    attributes(first.view.attributes(), |key| !is_routing(key), object.field("attributes"));
    object.fields(&scratch.resource);
    object.fields(&scratch.scope);
    let mut metrics = Object::open(object.field("metrics"));
    for point in group {
        point.value(metrics.named(&tidy(point.metric.name)));
    }
    metrics.close();
    // Two documents of one moment and the same attributes are told apart by which metrics they have.
    let hash = object.field("_metric_names_hash");
    hash.push(b'"');
    crate::otlp::json::scalar::hex_digits(&names_hash(group).to_be_bytes(), hash);
    hash.push(b'"');
    object.close();
}

/// FNV-1a of the names in order of the alphabet: it must be the same on every machine and for ever.
fn names_hash(group: &[Point<'_>]) -> u64 {
    let mut names: SmallVec<[&str; 16]> = group.iter().map(|point| point.metric.name).collect();
    names.sort_unstable();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in names.iter().flat_map(|name| name.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
