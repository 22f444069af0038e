//! Metrics, their data points of all kinds, exemplars.

use super::{AttributesView, Extent, Run, Value, View, common::text, walk};
use crate::otlp::fields::{chunk, varint};

/// A `Metric`.
#[derive(Debug, Clone, Copy)]
pub struct MetricView<'a> {
    message: &'a [u8],
    pub name: &'a str,
    pub description: &'a str,
    pub unit: &'a str,
    pub data: DataView<'a>,
    /// The field `metadata`.
    pub metadata: AttributesView<'a>,
}

/// What kind of metric it is, with its points.
#[derive(Debug, Clone, Copy)]
pub enum DataView<'a> {
    /// None that we know.
    None,
    Gauge {
        points: PointsView<'a, NumberPointView<'a>>,
    },
    Sum {
        points: PointsView<'a, NumberPointView<'a>>,
        temporality: i32,
        monotonic: bool,
    },
    Histogram {
        points: PointsView<'a, HistogramPointView<'a>>,
        temporality: i32,
    },
    ExponentialHistogram {
        points: PointsView<'a, ExponentialHistogramPointView<'a>>,
        temporality: i32,
    },
    Summary {
        points: PointsView<'a, SummaryPointView<'a>>,
    },
}

/// The `data_points` of one metric.
#[derive(Debug, Clone, Copy)]
pub struct PointsView<'a, P> {
    run: Run<'a>,
    point: std::marker::PhantomData<P>,
}

impl<'a, P: View<'a> + 'a> PointsView<'a, P> {
    pub fn iter(self) -> impl Iterator<Item = P> + Clone {
        self.run.messages().map(P::new)
    }
}

/// A data point of any kind.
#[derive(Debug, Clone, Copy)]
pub enum PointView<'a> {
    Number(NumberPointView<'a>),
    Histogram(HistogramPointView<'a>),
    ExponentialHistogram(ExponentialHistogramPointView<'a>),
    Summary(SummaryPointView<'a>),
}

impl<'a> PointView<'a> {
    pub fn attributes(&self) -> AttributesView<'a> {
        match self {
            PointView::Number(point) => point.attributes,
            PointView::Histogram(point) => point.attributes,
            PointView::ExponentialHistogram(point) => point.attributes,
            PointView::Summary(point) => point.attributes,
        }
    }
}

impl<'a> View<'a> for MetricView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut metadata = Extent::default();
        let mut view =
            Self { message, name: "", description: "", unit: "", data: DataView::None, metadata: AttributesView::default() };
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Bytes(name)) => view.name = text(name),
            (2, Value::Bytes(description)) => view.description = text(description),
            (3, Value::Bytes(unit)) => view.unit = text(unit),
            (number @ (5 | 7 | 9 | 10 | 11), Value::Bytes(data)) => view.data = DataView::new(number, data),
            (12, Value::Bytes(_)) => metadata.add(from, to),
            _ => {}
        });
        view.metadata = AttributesView::new(metadata.of(message, 12));
        view
    }
}

impl<'a> MetricView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }
}

impl<'a> DataView<'a> {
    /// `number` is the field of the metric that `message` is the value of.
    fn new(number: u32, message: &'a [u8]) -> Self {
        let mut points = Extent::default();
        let (mut temporality, mut monotonic) = (0, false);
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Bytes(_)) => points.add(from, to),
            (2, Value::Varint(value)) => temporality = value as i32,
            (3, Value::Varint(value)) => monotonic = value != 0,
            _ => {}
        });
        let run = points.of(message, 1);
        match number {
            5 => DataView::Gauge { points: run.into() },
            7 => DataView::Sum { points: run.into(), temporality, monotonic },
            9 => DataView::Histogram { points: run.into(), temporality },
            10 => DataView::ExponentialHistogram { points: run.into(), temporality },
            11 => DataView::Summary { points: run.into() },
            _ => DataView::None,
        }
    }
}

impl<'a, P> From<Run<'a>> for PointsView<'a, P> {
    fn from(run: Run<'a>) -> Self {
        Self { run, point: std::marker::PhantomData }
    }
}

/// The value of a number point or an exemplar.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum NumberValue {
    #[default]
    None,
    Double(f64),
    Int(i64),
}

/// A `NumberDataPoint`, of a gauge or a sum.
#[derive(Debug, Clone, Copy)]
pub struct NumberPointView<'a> {
    message: &'a [u8],
    pub attributes: AttributesView<'a>,
    pub start_unix_nanos: u64,
    pub time_unix_nanos: u64,
    pub value: NumberValue,
    exemplars: Run<'a>,
    /// Bit 0: no recorded value.
    pub flags: u32,
}

impl<'a> View<'a> for NumberPointView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (mut attributes, mut exemplars) = (Extent::default(), Extent::default());
        let mut view = Self {
            message,
            attributes: AttributesView::default(),
            start_unix_nanos: 0,
            time_unix_nanos: 0,
            value: NumberValue::None,
            exemplars: Run::default(),
            flags: 0,
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (7, Value::Bytes(_)) => attributes.add(from, to),
            (2, Value::Fixed64(nanos)) => view.start_unix_nanos = nanos,
            (3, Value::Fixed64(nanos)) => view.time_unix_nanos = nanos,
            (4, Value::Fixed64(bits)) => view.value = NumberValue::Double(f64::from_bits(bits)),
            (5, Value::Bytes(_)) => exemplars.add(from, to),
            (6, Value::Fixed64(bits)) => view.value = NumberValue::Int(bits as i64),
            (8, Value::Varint(flags)) => view.flags = flags as u32,
            _ => {}
        });
        view.attributes = AttributesView::new(attributes.of(message, 7));
        view.exemplars = exemplars.of(message, 5);
        view
    }
}

impl<'a> NumberPointView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn exemplars(&self) -> impl Iterator<Item = ExemplarView<'a>> + Clone {
        self.exemplars.messages().map(ExemplarView::new)
    }
}

/// A `HistogramDataPoint`.
#[derive(Debug, Clone, Copy)]
pub struct HistogramPointView<'a> {
    message: &'a [u8],
    pub attributes: AttributesView<'a>,
    pub start_unix_nanos: u64,
    pub time_unix_nanos: u64,
    pub count: u64,
    pub sum: Option<f64>,
    pub bucket_counts: NumbersView<'a>,
    /// Doubles: read with [`NumbersView::doubles`].
    pub explicit_bounds: NumbersView<'a>,
    exemplars: Run<'a>,
    /// Bit 0: no recorded value.
    pub flags: u32,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl<'a> View<'a> for HistogramPointView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (mut attributes, mut exemplars) = (Extent::default(), Extent::default());
        let (mut counts, mut bounds) = (Extent::default(), Extent::default());
        let mut view = Self {
            message,
            attributes: AttributesView::default(),
            start_unix_nanos: 0,
            time_unix_nanos: 0,
            count: 0,
            sum: None,
            bucket_counts: NumbersView::default(),
            explicit_bounds: NumbersView::default(),
            exemplars: Run::default(),
            flags: 0,
            min: None,
            max: None,
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (9, Value::Bytes(_)) => attributes.add(from, to),
            (2, Value::Fixed64(nanos)) => view.start_unix_nanos = nanos,
            (3, Value::Fixed64(nanos)) => view.time_unix_nanos = nanos,
            (4, Value::Fixed64(count)) => view.count = count,
            (5, Value::Fixed64(bits)) => view.sum = Some(f64::from_bits(bits)),
            (6, _) => counts.add(from, to),
            (7, _) => bounds.add(from, to),
            (8, Value::Bytes(_)) => exemplars.add(from, to),
            (10, Value::Varint(flags)) => view.flags = flags as u32,
            (11, Value::Fixed64(bits)) => view.min = Some(f64::from_bits(bits)),
            (12, Value::Fixed64(bits)) => view.max = Some(f64::from_bits(bits)),
            _ => {}
        });
        view.attributes = AttributesView::new(attributes.of(message, 9));
        view.bucket_counts = NumbersView { run: counts.of(message, 6), fixed: true };
        view.explicit_bounds = NumbersView { run: bounds.of(message, 7), fixed: true };
        view.exemplars = exemplars.of(message, 8);
        view
    }
}

impl<'a> HistogramPointView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn exemplars(&self) -> impl Iterator<Item = ExemplarView<'a>> + Clone {
        self.exemplars.messages().map(ExemplarView::new)
    }
}

/// An `ExponentialHistogramDataPoint`.
#[derive(Debug, Clone, Copy)]
pub struct ExponentialHistogramPointView<'a> {
    message: &'a [u8],
    pub attributes: AttributesView<'a>,
    pub start_unix_nanos: u64,
    pub time_unix_nanos: u64,
    pub count: u64,
    pub sum: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub positive: BucketsView<'a>,
    pub negative: BucketsView<'a>,
    /// Bit 0: no recorded value.
    pub flags: u32,
    exemplars: Run<'a>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub zero_threshold: f64,
}

impl<'a> View<'a> for ExponentialHistogramPointView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (mut attributes, mut exemplars) = (Extent::default(), Extent::default());
        let mut view = Self {
            message,
            attributes: AttributesView::default(),
            start_unix_nanos: 0,
            time_unix_nanos: 0,
            count: 0,
            sum: None,
            scale: 0,
            zero_count: 0,
            positive: BucketsView::default(),
            negative: BucketsView::default(),
            flags: 0,
            exemplars: Run::default(),
            min: None,
            max: None,
            zero_threshold: 0.0,
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Bytes(_)) => attributes.add(from, to),
            (2, Value::Fixed64(nanos)) => view.start_unix_nanos = nanos,
            (3, Value::Fixed64(nanos)) => view.time_unix_nanos = nanos,
            (4, Value::Fixed64(count)) => view.count = count,
            (5, Value::Fixed64(bits)) => view.sum = Some(f64::from_bits(bits)),
            (6, Value::Varint(value)) => view.scale = zigzag(value),
            (7, Value::Fixed64(count)) => view.zero_count = count,
            (8, Value::Bytes(buckets)) => view.positive = BucketsView::new(buckets),
            (9, Value::Bytes(buckets)) => view.negative = BucketsView::new(buckets),
            (10, Value::Varint(flags)) => view.flags = flags as u32,
            (11, Value::Bytes(_)) => exemplars.add(from, to),
            (12, Value::Fixed64(bits)) => view.min = Some(f64::from_bits(bits)),
            (13, Value::Fixed64(bits)) => view.max = Some(f64::from_bits(bits)),
            (14, Value::Fixed64(bits)) => view.zero_threshold = f64::from_bits(bits),
            _ => {}
        });
        view.attributes = AttributesView::new(attributes.of(message, 1));
        view.exemplars = exemplars.of(message, 11);
        view
    }
}

impl<'a> ExponentialHistogramPointView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn exemplars(&self) -> impl Iterator<Item = ExemplarView<'a>> + Clone {
        self.exemplars.messages().map(ExemplarView::new)
    }
}

/// A `Buckets` of an exponential histogram.
#[derive(Debug, Clone, Copy, Default)]
pub struct BucketsView<'a> {
    /// Whether the point has the message at all.
    pub set: bool,
    pub offset: i32,
    pub bucket_counts: NumbersView<'a>,
}

impl<'a> View<'a> for BucketsView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut counts = Extent::default();
        let mut offset = 0;
        walk(message, |field, from, to| match (field.number, field.value) {
            (1, Value::Varint(value)) => offset = zigzag(value),
            (2, _) => counts.add(from, to),
            _ => {}
        });
        Self { set: true, offset, bucket_counts: NumbersView { run: counts.of(message, 2), fixed: false } }
    }
}

/// A `SummaryDataPoint`.
#[derive(Debug, Clone, Copy)]
pub struct SummaryPointView<'a> {
    message: &'a [u8],
    pub attributes: AttributesView<'a>,
    pub start_unix_nanos: u64,
    pub time_unix_nanos: u64,
    pub count: u64,
    pub sum: f64,
    quantiles: Run<'a>,
    /// Bit 0: no recorded value.
    pub flags: u32,
}

impl<'a> View<'a> for SummaryPointView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (mut attributes, mut quantiles) = (Extent::default(), Extent::default());
        let mut view = Self {
            message,
            attributes: AttributesView::default(),
            start_unix_nanos: 0,
            time_unix_nanos: 0,
            count: 0,
            sum: 0.0,
            quantiles: Run::default(),
            flags: 0,
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (7, Value::Bytes(_)) => attributes.add(from, to),
            (2, Value::Fixed64(nanos)) => view.start_unix_nanos = nanos,
            (3, Value::Fixed64(nanos)) => view.time_unix_nanos = nanos,
            (4, Value::Fixed64(count)) => view.count = count,
            (5, Value::Fixed64(bits)) => view.sum = f64::from_bits(bits),
            (6, Value::Bytes(_)) => quantiles.add(from, to),
            (8, Value::Varint(flags)) => view.flags = flags as u32,
            _ => {}
        });
        view.attributes = AttributesView::new(attributes.of(message, 7));
        view.quantiles = quantiles.of(message, 6);
        view
    }
}

impl<'a> SummaryPointView<'a> {
    /// Its bytes, without tag and length.
    pub fn bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn quantiles(&self) -> impl Iterator<Item = QuantileView> + Clone {
        self.quantiles.messages().map(QuantileView::new)
    }
}

/// A `ValueAtQuantile`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantileView {
    pub quantile: f64,
    pub value: f64,
}

impl View<'_> for QuantileView {
    fn new(message: &[u8]) -> Self {
        let mut view = Self { quantile: 0.0, value: 0.0 };
        walk(message, |field, _, _| match (field.number, field.value) {
            (1, Value::Fixed64(bits)) => view.quantile = f64::from_bits(bits),
            (2, Value::Fixed64(bits)) => view.value = f64::from_bits(bits),
            _ => {}
        });
        view
    }
}

/// An `Exemplar`.
#[derive(Debug, Clone, Copy)]
pub struct ExemplarView<'a> {
    pub filtered_attributes: AttributesView<'a>,
    pub time_unix_nanos: u64,
    pub value: NumberValue,
    /// 8 bytes or none.
    pub span_id: &'a [u8],
    /// 16 bytes or none.
    pub trace_id: &'a [u8],
}

impl<'a> View<'a> for ExemplarView<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut attributes = Extent::default();
        let mut view = Self {
            filtered_attributes: AttributesView::default(),
            time_unix_nanos: 0,
            value: NumberValue::None,
            span_id: &[],
            trace_id: &[],
        };
        walk(message, |field, from, to| match (field.number, field.value) {
            (2, Value::Fixed64(nanos)) => view.time_unix_nanos = nanos,
            (3, Value::Fixed64(bits)) => view.value = NumberValue::Double(f64::from_bits(bits)),
            (4, Value::Bytes(id)) => view.span_id = id,
            (5, Value::Bytes(id)) => view.trace_id = id,
            (6, Value::Fixed64(bits)) => view.value = NumberValue::Int(bits as i64),
            (7, Value::Bytes(_)) => attributes.add(from, to),
            _ => {}
        });
        view.filtered_attributes = AttributesView::new(attributes.of(message, 7));
        view
    }
}

/// Repeated numbers, packed or one by one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NumbersView<'a> {
    run: Run<'a>,
    /// Packed ones are 8 bytes each; otherwise varints.
    fixed: bool,
}

impl<'a> NumbersView<'a> {
    pub fn iter(self) -> impl Iterator<Item = u64> + Clone {
        self.run.fields().flat_map(move |value| {
            let (single, packed): (_, &'a [u8]) = match value {
                Value::Fixed64(number) if self.fixed => (Some(number), &[]),
                Value::Varint(number) if !self.fixed => (Some(number), &[]),
                Value::Bytes(packed) => (None, packed),
                _ => (None, &[]),
            };
            single.into_iter().chain(Packed { bytes: packed, at: 0, fixed: self.fixed })
        })
    }

    /// The same bits as doubles.
    pub fn doubles(self) -> impl Iterator<Item = f64> + Clone {
        self.iter().map(f64::from_bits)
    }
}

#[derive(Clone)]
struct Packed<'a> {
    bytes: &'a [u8],
    at: usize,
    fixed: bool,
}

impl Iterator for Packed<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (number, next) = if self.fixed {
            (u64::from_le_bytes(*chunk::<8>(self.bytes, self.at)?), self.at + 8)
        } else {
            varint(self.bytes, self.at)?
        };
        self.at = next;
        Some(number)
    }
}

/// A `sint32` from its varint.
fn zigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}
