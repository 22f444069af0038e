//! OTLP metrics → samples of series, by the same words as the `prometheus` exporter's page.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash as _, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

use smallvec::SmallVec;

use super::{
    Settings,
    series::{Family, Labels, Native, Point, STALE, Sample, Value},
};
use crate::{
    component::Request,
    exposition::{
        Exemplar, FamilyKind, LabelBlock, NativeHistogram, bound_text,
        translation::{
            CUMULATIVE, DELTA, EXEMPLARS_MAX, Exponential, NO_RECORDED_VALUE, Pairs, Side, Target, exemplar, number,
            scope_labels, series_labels,
        },
    },
    otlp::{
        count,
        view::{
            AttributesView, DataView, ExponentialHistogramPointView, HistogramPointView, MetricView, MetricsView,
            SummaryPointView,
        },
    },
    signal::UnixNanos,
};

/// Fixed, so that a series keeps its lane.
const KEYS: foldhash::fast::FixedState = foldhash::fast::FixedState::with_seed(0x07e3_07e3);

/// Bytes of all texts that a series is written with, and of what its metric says of itself: more is no name and no label, and every sample
/// of the point is written with all of it.
const TEXTS_MAX: usize = 64 << 10;
/// Labels of a series.
const LABELS_MAX: usize = 1024;
/// Bytes of one point in a request: what is larger no server takes.
const POINT_MAX: usize = 16 << 20;
/// Bytes of memory that the points of one attempt take: so many, and so many times what the request has.
const HELD_MAX: usize = 256 << 20;
const HELD_FACTOR: usize = 16;

/// Why a point has no form in remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lost {
    /// Since the last point, not since the start: Prometheus has no such thing.
    Delta,
    /// Neither delta nor cumulative.
    Temporality,
    /// No value is set.
    NoValue,
    /// An exponential histogram coarser or wider than Prometheus has any.
    Range,
    /// Nothing is left of the metric's name.
    Name,
    /// Texts, labels or buckets are more than any server takes, or many times more than the request that they came in.
    Size,
}

impl Lost {
    pub(super) const ALL: [Self; 6] = [Self::Delta, Self::Temporality, Self::NoValue, Self::Range, Self::Name, Self::Size];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Temporality => "temporality",
            Self::NoValue => "no_value",
            Self::Range => "range",
            Self::Name => "name",
            Self::Size => "size",
        }
    }
}

/// Points of one metric that have no form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LostPoints {
    pub(super) metric: String,
    pub(super) service: String,
    pub(super) reason: Lost,
    pub(super) count: u64,
}

/// `target_info` of one target.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) labels: Labels,
    /// The latest time of the target's points, in Unix milliseconds.
    pub(super) time: i64,
}

#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) points: Vec<Point>,
    /// Items without a form; ascending.
    pub(super) formless: Vec<u64>,
    pub(super) lost: Vec<LostPoints>,
    /// By the hash of their labels.
    pub(super) infos: HashMap<u64, Info>,
    /// Bytes of memory that the points take.
    pub(super) held: usize,
}

/// What decides a metric's name and which label is not the data's to use.
#[derive(Debug, Clone, Copy)]
struct Shape {
    kind: FamilyKind,
    is_gauge: bool,
    reserved: &'static str,
}

impl Shape {
    const GAUGE: Self = Self { kind: FamilyKind::Gauge, is_gauge: true, reserved: "" };
    /// One that may go down.
    const SUM: Self = Self { kind: FamilyKind::Gauge, is_gauge: false, reserved: "" };
    const COUNTER: Self = Self { kind: FamilyKind::Counter, is_gauge: false, reserved: "" };
    const HISTOGRAM: Self = Self { kind: FamilyKind::Histogram, is_gauge: false, reserved: "le" };
    const SUMMARY: Self = Self { kind: FamilyKind::Summary, is_gauge: false, reserved: "quantile" };
}

/// One metric with where it belongs.
struct Place<'a> {
    settings: &'a Settings,
    target: &'a Target,
    scope: &'a Pairs,
    /// When the request came in, in Unix milliseconds, for points without a time: the same in every attempt.
    received: i64,
    /// Bytes of memory that all points may take.
    held_max: usize,
    /// The number of the next point.
    item: u64,
    out: &'a mut Translated,
}

/// When the parts of a request came in.
pub(super) type Received = SmallVec<[UnixNanos; 4]>;

/// Bytes of memory that the points of a request of so many bytes may take.
pub(super) const fn held_max(bytes: usize) -> usize {
    HELD_MAX.saturating_add(bytes.saturating_mul(HELD_FACTOR))
}

/// `held_max`: bytes of memory that all points may take; what is beyond has no form.
pub(super) fn translate(settings: &Settings, request: &Request, received: &[UnixNanos], held_max: usize) -> Translated {
    let mut out = Translated::default();
    let mut item = 0;
    for (batch, received) in request.parts.iter().zip(received) {
        let peer: Option<IpAddr> = batch.context.peer;
        for resource in MetricsView::new(&batch.payload).resources() {
            let target = Target::new(&resource.resource(), peer, settings.strategy, settings.promotion());
            let first = out.points.len();
            for scope in resource.scopes() {
                let labels = if settings.without_scope_info {
                    Pairs::new()
                } else {
                    scope_labels(&scope.scope(), scope.schema_url(), settings.strategy)
                };
                for metric in scope.items() {
                    let (target, scope, received) = (&target, &labels, millis(received.0));
                    let mut place = Place { settings, target, scope, received, held_max, item, out: &mut out };
                    place.metric(&metric);
                    item += count::of_metric(metric.bytes());
                }
            }
            if let Some(info) = target.info.as_ref().filter(|_| settings.target_info)
                && let Some(time) = out.points.iter().skip(first).map(|point| point.time).max()
            {
                out.tell(settings, info, time, &target.service, held_max);
            }
        }
    }
    out
}

impl Translated {
    /// Notes what a target says of itself; one that says more than a series can have is left out, as a point would be.
    fn tell(&mut self, settings: &Settings, info: &LabelBlock, time: i64, service: &str, held_max: usize) {
        if let Some(known) = self.infos.get_mut(&info.identity()) {
            known.time = known.time.max(time);
            return;
        }
        let texts = info.text().len();
        let held = self.held.saturating_add(texts);
        if texts > TEXTS_MAX || info.pairs().take(LABELS_MAX).count() >= LABELS_MAX || held > held_max {
            let (metric, service) = ("target_info".to_owned(), service.to_owned());
            self.lost.push(LostPoints { metric, service, reason: Lost::Size, count: 1 });
            return;
        }
        self.held = held;
        self.infos.insert(info.identity(), Info { labels: labels_of(info, &settings.external_labels), time });
    }
}

/// The points that say what targets are.
pub(super) fn info_point(family: &Arc<Family>, info: &Info) -> Point {
    Point {
        item: None,
        key: key(&family.name, &info.labels),
        family: family.clone(),
        labels: info.labels.clone(),
        time: info.time,
        start: 0,
        samples: vec![Sample::float(1.0)],
        bytes: 0,
    }
    .sized()
}

impl Place<'_> {
    fn metric(&mut self, metric: &MetricView<'_>) {
        match metric.data {
            DataView::None => {}
            DataView::Gauge { points } => {
                for point in points.iter() {
                    let sample = number(point.value).map(|value| vec![Sample::float(value)]).ok_or(Lost::NoValue);
                    let times = (point.time_unix_nanos, 0, point.flags);
                    self.point(metric, Shape::GAUGE, times, point.attributes, sample, || vec![Sample::float(STALE)]);
                }
            }
            DataView::Sum { points, temporality, monotonic } => {
                let shape = if monotonic { Shape::COUNTER } else { Shape::SUM };
                for point in points.iter() {
                    let sample = cumulative(temporality).and_then(|()| {
                        let mut sample = Sample::float(number(point.value).ok_or(Lost::NoValue)?);
                        if monotonic {
                            sample.exemplars = in_order(point.exemplars().filter_map(exemplar).take(EXEMPLARS_MAX).collect());
                        }
                        Ok(vec![sample])
                    });
                    let times = (point.time_unix_nanos, if monotonic { point.start_unix_nanos } else { 0 }, point.flags);
                    self.point(metric, shape, times, point.attributes, sample, || vec![Sample::float(STALE)]);
                }
            }
            DataView::Histogram { points, temporality } => {
                for point in points.iter() {
                    let samples = cumulative(temporality).map(|()| classic(&point, false));
                    let times = (point.time_unix_nanos, point.start_unix_nanos, point.flags);
                    self.point(metric, Shape::HISTOGRAM, times, point.attributes, samples, || classic(&point, true));
                }
            }
            DataView::ExponentialHistogram { points, temporality } => {
                for point in points.iter() {
                    let samples = cumulative(temporality).and_then(|()| native(&point));
                    let times = (point.time_unix_nanos, point.start_unix_nanos, point.flags);
                    self.point(metric, Shape::HISTOGRAM, times, point.attributes, samples, || vec![ended()]);
                }
            }
            DataView::Summary { points } => {
                for point in points.iter() {
                    let times = (point.time_unix_nanos, point.start_unix_nanos, point.flags);
                    let samples = Ok(summary(&point, false));
                    self.point(metric, Shape::SUMMARY, times, point.attributes, samples, || summary(&point, true));
                }
            }
        }
    }

    /// Adds one point, or says why there is none. `times`: time, start and flags as they came.
    fn point(
        &mut self,
        metric: &MetricView<'_>,
        Shape { kind, is_gauge, reserved }: Shape,
        (time, start, flags): (u64, u64, u32),
        attributes: AttributesView<'_>,
        samples: Result<Vec<Sample>, Lost>,
        ended: impl FnOnce() -> Vec<Sample>,
    ) {
        let item = self.item;
        self.item += 1;
        let samples = if flags & NO_RECORDED_VALUE == 0 { samples } else { Ok(ended()) };
        let Settings { strategy, namespace, external_labels, .. } = self.settings;
        let made = samples.and_then(|samples| {
            if !self.fits(metric, attributes) {
                return Err(Lost::Size);
            }
            let (name, unit) = strategy.metric_name(namespace, metric.name, metric.unit, kind, is_gauge);
            if name.is_empty() { Err(Lost::Name) } else { Ok((samples, name, unit)) }
        });
        let (samples, name, unit) = match made {
            Ok(made) => made,
            Err(reason) => return self.lose(item, metric.name, reason),
        };
        let same = |family: &&Arc<Family>| {
            family.name == name && family.kind == kind && family.unit == unit && family.help == metric.description
        };
        let family = self.out.points.last().map(|point| &point.family).filter(same).cloned();
        let family = family.unwrap_or_else(|| Arc::new(Family { name, kind, help: metric.description.to_owned(), unit }));
        let block = series_labels(&[&self.target.labels, self.scope], attributes, reserved, *strategy);
        let labels = labels_of(&block, external_labels);
        let time = if time == 0 { self.received } else { millis(time) };
        let key = key(&family.name, &labels);
        let point = Point { item: Some(item), key, family, labels, time, start: millis(start), samples, bytes: 0 }.sized();
        let held = self.out.held.saturating_add(point.held());
        if point.bytes > POINT_MAX || point.texts() > TEXTS_MAX || held > self.held_max {
            return self.lose(item, metric.name, Lost::Size);
        }
        self.out.held = held;
        self.out.points.push(point);
    }

    /// Whether what a point is written with is worth copying at all.
    fn fits(&self, metric: &MetricView<'_>, attributes: AttributesView<'_>) -> bool {
        let fixed = || self.target.labels.iter().chain(self.scope);
        let texts = metric.name.len() + metric.unit.len() + metric.description.len();
        let texts = texts + fixed().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        texts <= TEXTS_MAX && fixed().count() + attributes.iter().take(LABELS_MAX).count() < LABELS_MAX
    }

    fn lose(&mut self, item: u64, metric: &str, reason: Lost) {
        self.out.formless.push(item);
        match self.out.lost.last_mut() {
            Some(last) if last.metric == metric && last.reason == reason => last.count += 1,
            _ => {
                let service = self.target.service.clone();
                self.out.lost.push(LostPoints { metric: metric.to_owned(), service, reason, count: 1 });
            }
        }
    }
}

const fn cumulative(temporality: i32) -> Result<(), Lost> {
    match temporality {
        CUMULATIVE => Ok(()),
        DELTA => Err(Lost::Delta),
        _ => Err(Lost::Temporality),
    }
}

fn millis(unix_nanos: u64) -> i64 {
    (unix_nanos / 1_000_000) as i64
}

fn key(name: &str, labels: &Labels) -> u64 {
    let mut hasher = KEYS.build_hasher();
    name.hash(&mut hasher);
    labels.hash(&mut hasher);
    hasher.finish()
}

/// An empty label is an absent one; what a person wrote fills the gaps.
fn labels_of(block: &LabelBlock, external: &[(String, String)]) -> Labels {
    let mut labels: Vec<(Box<str>, Box<str>)> = block
        .pairs()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.into_owned().into(), value.into_owned().into()))
        .collect();
    for (name, value) in external {
        if !labels.iter().any(|(known, _)| **known == **name) {
            labels.push((name.as_str().into(), value.as_str().into()));
        }
    }
    labels.sort();
    labels.into()
}

/// Prometheus takes exemplars of a series in the order of their times.
fn in_order(mut exemplars: Vec<Exemplar>) -> Vec<Exemplar> {
    exemplars.sort_by_key(|exemplar| exemplar.unix_nanos);
    exemplars
}

/// A histogram with explicit bounds; all of its series where it has ended, as far as its point still says which.
fn classic(point: &HistogramPointView<'_>, ended: bool) -> Vec<Sample> {
    let shown = |value: u64| if ended { STALE } else { value as f64 };
    let counts: Vec<u64> = point.bucket_counts.iter().collect();
    // A bound of +Inf says what the last bucket says anyway.
    let bounds: Vec<f64> = point.explicit_bounds.doubles().filter(|bound| *bound < f64::INFINITY).collect();
    let mut exemplars = in_order(point.exemplars().filter_map(exemplar).take(EXEMPLARS_MAX).collect());
    let mut samples = Vec::with_capacity(bounds.len() + 3);
    let mut total = 0_u64;
    if ended || !counts.is_empty() {
        for (at, bound) in bounds.iter().enumerate() {
            total = total.saturating_add(counts.get(at).copied().unwrap_or(0));
            let mut sample = Sample::labelled("_bucket", "le", bound_text(*bound), shown(total));
            sample.exemplars = exemplars.extract_if(.., |exemplar| exemplar.value <= *bound).collect();
            samples.push(sample);
        }
    }
    // The last bucket is what Prometheus counts as all there are.
    total = counts.iter().skip(bounds.len()).fold(total, |total, count| total.saturating_add(*count)).max(point.count);
    let mut all = Sample::labelled("_bucket", "le", "+Inf", shown(total));
    all.exemplars = exemplars;
    samples.push(all);
    if ended {
        samples.push(Sample::of("_sum", STALE));
    } else {
        samples.extend(point.sum.map(|sum| Sample::of("_sum", sum)));
    }
    samples.push(Sample::of("_count", shown(total)));
    samples
}

fn native(point: &ExponentialHistogramPointView<'_>) -> Result<Vec<Sample>, Lost> {
    let exponential = Exponential {
        scale: point.scale,
        zero_threshold: point.zero_threshold,
        zero_count: point.zero_count,
        sum: point.sum,
        positive: Side::new(&point.positive),
        negative: Side::new(&point.negative),
        exemplars: Vec::new(),
    };
    let exponential = exponential.fitted().ok_or(Lost::Range)?;
    let buckets = exponential.native().ok_or(Lost::Range)?;
    let exemplars = in_order(point.exemplars().filter_map(exemplar).take(EXEMPLARS_MAX).collect());
    let native = Native { count: exponential.count(), sum: point.sum.unwrap_or(0.0), buckets };
    Ok(vec![Sample { suffix: "", label: None, value: Value::Native(Box::new(native)), exemplars }])
}

/// The end of a series of native histograms.
fn ended() -> Sample {
    let native = Native { count: 0, sum: STALE, buckets: NativeHistogram::default() };
    Sample { value: Value::Native(Box::new(native)), ..Sample::float(0.0) }
}

fn summary(point: &SummaryPointView<'_>, ended: bool) -> Vec<Sample> {
    let shown = |value: f64| if ended { STALE } else { value };
    let mut samples: Vec<Sample> = point
        .quantiles()
        .map(|quantile| Sample::labelled("", "quantile", bound_text(quantile.quantile), shown(quantile.value)))
        .collect();
    samples.push(Sample::of("_sum", shown(point.sum)));
    samples.push(Sample::of("_count", shown(point.count as f64)));
    samples
}
