//! Walks one request's metrics and gives their points to the store.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    sync::Arc,
};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};

use super::{
    Settings,
    points::{Classic, Ignored, Incoming, Summary, Taken, Value},
    reports::Reports,
    store::{NoFamily, Open, RawKey, Store},
};
use crate::{
    component::{Applied, Position, Snapshot, SnapshotError},
    exposition::{
        Exemplar, FamilyKind, LabelBlock,
        translation::{
            CUMULATIVE, DELTA, EXEMPLARS_MAX, Exponential, NO_RECORDED_VALUE, Pairs, Side, Target, exemplar, number,
            scope_labels, series_labels,
        },
    },
    otlp::view::{
        AttributesView, DataView, ExponentialHistogramPointView, HistogramPointView, MetricView, MetricsView, NumberPointView,
        ResourceMetricsView, SummaryPointView,
    },
    registry::snapshot::{Damaged, Reader, Writer, fingerprint},
};

/// The format of the bytes of a snapshot.
const VERSION: u16 = 1;

/// Turns requests into updates of a store.
pub(super) struct Applier {
    pub(super) store: Store,
    /// Held for reading while a request is applied, for writing where a position between two requests is wanted.
    between: RwLock<()>,
    applied: Mutex<Applied>,
    config: Settings,
    constant: Pairs,
    reports: Reports,
    hashers: [RandomState; 2],
    /// Resources seen lately, by their bytes and sender, and when.
    targets: Mutex<HashMap<RawKey, (Arc<Target>, u64)>>,
}

/// One metric with where it belongs.
struct Place<'a> {
    applier: &'a Applier,
    target: &'a Target,
    scope: &'a Pairs,
    hash: RawKey,
    now: u64,
}

impl Applier {
    pub(super) fn new(config: Settings, reports: Reports) -> Self {
        let strategy = config.strategy();
        let constant =
            config.const_labels.iter().map(|(name, value)| (strategy.label_name(name).into_owned(), value.clone())).collect();
        Self {
            store: Store::new(config.max_series),
            between: RwLock::new(()),
            applied: Mutex::default(),
            config,
            constant,
            reports,
            hashers: [RandomState::default(), RandomState::default()],
            targets: Mutex::default(),
        }
    }

    /// `payload` is the body of an `ExportMetricsServiceRequest` that `peer` sent.
    pub(super) fn apply(&self, payload: &[u8], peer: Option<IpAddr>, now: u64) {
        let _during = self.between.read();
        self.walk(payload, peer, now);
        self.reports.series(self.store.series());
    }

    /// The same for what `reader` found at `position`, if it is not in already.
    pub(super) fn apply_from(&self, reader: &Arc<str>, position: Position, payload: &[u8], peer: Option<IpAddr>, now: u64) {
        let _during = self.between.read();
        if self.applied.lock().covers(reader, position) {
            return;
        }
        self.walk(payload, peer, now);
        self.applied.lock().add(reader, position);
        self.reports.series(self.store.series());
    }

    pub(super) fn applied(&self) -> Applied {
        self.applied.lock().clone()
    }

    pub(super) fn resume(&self, applied: &Applied) {
        self.applied.lock().clone_from(applied);
    }

    /// The settings that decide what series are called.
    fn shape(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        vec![
            ("namespace", config.namespace.clone()),
            ("const_labels", format!("{:?}", config.const_labels)),
            ("resource_constant_labels", format!("{:?}", config.resource_constant_labels)),
            ("resource_to_telemetry_conversion", format!("{:?}", config.resource_to_telemetry_conversion)),
            ("without_scope_info", config.without_scope_info.to_string()),
            ("translation_strategy", format!("{:?}", config.strategy())),
            ("instance_fallback", config.instance_fallback.to_string()),
        ]
    }

    pub(super) fn save(&self) -> Snapshot {
        let shape = self.shape();
        loop {
            let mut out = Writer::new();
            out.settings(&shape);
            let (families, applied) = {
                let _nobody = self.between.write();
                (self.store.begin_saving(&mut out), self.applied())
            };
            if families.save(&mut out) {
                return Snapshot { version: VERSION, fingerprint: fingerprint(&shape), applied, bytes: out.into_bytes() };
            }
        }
    }

    pub(super) fn restore(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        if snapshot.version != VERSION {
            return Err(SnapshotError::Version { found: snapshot.version, known: VERSION });
        }
        let damaged = |error: Damaged| SnapshotError::Damaged(error.to_string());
        let mut from = Reader::new(&snapshot.bytes);
        let names = from.settings(&self.shape()).map_err(damaged)?;
        if !names.is_empty() {
            return Err(SnapshotError::Settings { names });
        }
        let store = Store::read(&mut from).map_err(damaged)?;
        let _nobody = self.between.write();
        self.store.become_other(store);
        *self.applied.lock() = snapshot.applied.clone();
        self.reports.series(self.store.series());
        Ok(())
    }

    fn walk(&self, payload: &[u8], peer: Option<IpAddr>, now: u64) {
        for resource in MetricsView::new(payload).resources() {
            let (target, hash) = self.target(&resource, peer, now);
            if let Some(info) = &target.info {
                self.store.inform(target.job.as_deref(), target.instance.as_deref(), info, now);
            }
            for scope in resource.scopes() {
                let schema_url = scope.schema_url();
                let labels = if self.config.without_scope_info {
                    Pairs::new()
                } else {
                    scope_labels(&scope.scope(), schema_url, self.config.strategy())
                };
                let hash = self.hash(|hasher| {
                    hasher.write_u64(hash.0);
                    hasher.write_u64(hash.1);
                    for (name, value) in &labels {
                        hasher.write(name.as_bytes());
                        hasher.write_u8(0xff);
                        hasher.write(value.as_bytes());
                        hasher.write_u8(0xff);
                    }
                });
                let place = Place { applier: self, target: &target, scope: &labels, hash, now };
                for metric in scope.items() {
                    place.metric(&metric);
                }
            }
        }
    }

    /// Forgets resources that were not seen since `oldest`.
    pub(super) fn sweep(&self, oldest: u64) {
        self.store.sweep(oldest);
        self.targets.lock().retain(|_, (_, seen)| *seen >= oldest);
        self.reports.series(self.store.series());
    }

    fn target(&self, resource: &ResourceMetricsView<'_>, peer: Option<IpAddr>, now: u64) -> (Arc<Target>, RawKey) {
        let bytes = resource.resource_bytes().unwrap_or_default();
        let hash = self.hash(|hasher| {
            hasher.write(bytes);
            match peer {
                Some(IpAddr::V4(peer)) => hasher.write(&peer.octets()),
                Some(IpAddr::V6(peer)) => hasher.write(&peer.octets()),
                None => hasher.write_u8(0),
            }
        });
        let mut targets = self.targets.lock();
        if let Some((target, seen)) = targets.get_mut(&hash) {
            *seen = now;
            return (target.clone(), hash);
        }
        let target = Arc::new(Target::new(&resource.resource(), peer, self.config.strategy(), self.config.promotion()));
        if targets.len() < self.config.max_series {
            targets.insert(hash, (target.clone(), now));
        }
        (target, hash)
    }

    fn hash(&self, feed: impl Fn(&mut dyn Hasher)) -> RawKey {
        let [mut first, mut second] = self.hashers.each_ref().map(RandomState::build_hasher);
        feed(&mut first);
        feed(&mut second);
        (first.finish(), second.finish())
    }
}

impl Place<'_> {
    fn metric(&self, metric: &MetricView<'_>) {
        let accepted = |temporality: i32| matches!(temporality, DELTA | CUMULATIVE);
        match metric.data {
            DataView::None => {}
            DataView::Gauge { points } => self.numbers(metric, FamilyKind::Gauge, true, false, points.iter()),
            DataView::Sum { points, temporality, monotonic } => match (temporality, monotonic) {
                (DELTA, false) => self.ignore(metric, Ignored::NonMonotonicDelta, points.iter().count()),
                (CUMULATIVE, false) => self.numbers(metric, FamilyKind::Gauge, false, false, points.iter()),
                (DELTA | CUMULATIVE, true) => {
                    self.numbers(metric, FamilyKind::Counter, false, temporality == DELTA, points.iter());
                }
                _ => self.ignore(metric, Ignored::Temporality, points.iter().count()),
            },
            DataView::Histogram { points, temporality } if accepted(temporality) => {
                self.histograms(metric, temporality == DELTA, points.iter());
            }
            DataView::ExponentialHistogram { points, temporality } if accepted(temporality) => {
                self.exponentials(metric, temporality == DELTA, points.iter());
            }
            DataView::Histogram { points, .. } => self.ignore(metric, Ignored::Temporality, points.iter().count()),
            DataView::ExponentialHistogram { points, .. } => self.ignore(metric, Ignored::Temporality, points.iter().count()),
            DataView::Summary { points } => self.summaries(metric, points.iter()),
        }
    }

    fn numbers<'a>(
        &self,
        metric: &MetricView<'_>,
        kind: FamilyKind,
        is_gauge: bool,
        delta: bool,
        points: impl Iterator<Item = NumberPointView<'a>> + Clone,
    ) {
        self.each(metric, kind, is_gauge, points, |open, point| {
            let key = self.key(point.attributes);
            let labels = || self.labels(point.attributes, "");
            if point.flags & NO_RECORDED_VALUE != 0 {
                open.forget(key, labels);
                return Ok(Taken::Plainly);
            }
            let value = number(point.value).ok_or(Ignored::NoValue)?;
            let exemplar = (kind == FamilyKind::Counter).then(|| point.exemplars().filter_map(exemplar).last()).flatten();
            let value = Value::Number(value, exemplar.map(Arc::new));
            open.update(key, labels, Incoming { start: point.start_unix_nanos, time: point.time_unix_nanos, delta, value })
        });
    }

    fn histograms<'a>(&self, metric: &MetricView<'_>, delta: bool, points: impl Iterator<Item = HistogramPointView<'a>> + Clone) {
        let mut bounds: Vec<f64> = Vec::new();
        self.each(metric, FamilyKind::Histogram, false, points, |open, point| {
            let key = self.key(point.attributes);
            let labels = || self.labels(point.attributes, "le");
            if point.flags & NO_RECORDED_VALUE != 0 {
                open.forget(key, labels);
                return Ok(Taken::Plainly);
            }
            bounds.clear();
            // A bound of +Inf says what the last bucket says anyway.
            bounds.extend(point.explicit_bounds.doubles().filter(|bound| *bound < f64::INFINITY));
            let mut counts: Vec<u64> = point.bucket_counts.iter().collect();
            if counts.is_empty() {
                bounds.clear();
            } else {
                counts.resize(bounds.len() + 1, 0);
            }
            let mut exemplars: Vec<(usize, Exemplar)> = Vec::new();
            for exemplar in point.exemplars().filter_map(exemplar) {
                let bucket = Classic::bucket_of(&bounds, exemplar.value);
                match exemplars.binary_search_by_key(&bucket, |(known, _)| *known) {
                    Ok(at) => {
                        if let Some(slot) = exemplars.get_mut(at).filter(|(_, known)| known.unix_nanos <= exemplar.unix_nanos) {
                            slot.1 = exemplar;
                        }
                    }
                    Err(at) => exemplars.insert(at, (bucket, exemplar)),
                }
            }
            let classic = Classic { bounds: open.bounds(&bounds), counts, count: point.count, sum: point.sum, exemplars };
            let value = Value::Classic(Arc::new(classic));
            open.update(key, labels, Incoming { start: point.start_unix_nanos, time: point.time_unix_nanos, delta, value })
        });
    }

    fn exponentials<'a>(
        &self,
        metric: &MetricView<'_>,
        delta: bool,
        points: impl Iterator<Item = ExponentialHistogramPointView<'a>> + Clone,
    ) {
        self.each(metric, FamilyKind::Histogram, false, points, |open, point| {
            let key = self.key(point.attributes);
            let labels = || self.labels(point.attributes, "le");
            if point.flags & NO_RECORDED_VALUE != 0 {
                open.forget(key, labels);
                return Ok(Taken::Plainly);
            }
            let exponential = Exponential {
                scale: point.scale,
                zero_threshold: point.zero_threshold,
                zero_count: point.zero_count,
                sum: point.sum,
                positive: Side::new(&point.positive),
                negative: Side::new(&point.negative),
                exemplars: point.exemplars().filter_map(exemplar).take(EXEMPLARS_MAX).collect(),
            };
            let exponential = exponential.fitted().ok_or(Ignored::Range)?;
            exponential.native().ok_or(Ignored::Range)?;
            let value = Value::Exponential(Arc::new(exponential));
            open.update(key, labels, Incoming { start: point.start_unix_nanos, time: point.time_unix_nanos, delta, value })
        });
    }

    fn summaries<'a>(&self, metric: &MetricView<'_>, points: impl Iterator<Item = SummaryPointView<'a>> + Clone) {
        self.each(metric, FamilyKind::Summary, false, points, |open, point| {
            let key = self.key(point.attributes);
            let labels = || self.labels(point.attributes, "quantile");
            if point.flags & NO_RECORDED_VALUE != 0 {
                open.forget(key, labels);
                return Ok(Taken::Plainly);
            }
            let quantiles = point.quantiles().map(|quantile| (quantile.quantile, quantile.value)).collect();
            let value = Value::Summary(Arc::new(Summary { count: point.count, sum: point.sum, quantiles }));
            open.update(key, labels, Incoming { start: point.start_unix_nanos, time: point.time_unix_nanos, delta: false, value })
        });
    }

    /// Opens the metric's family and hands it each point.
    fn each<P>(
        &self,
        metric: &MetricView<'_>,
        kind: FamilyKind,
        is_gauge: bool,
        points: impl Iterator<Item = P> + Clone,
        mut update: impl FnMut(&mut Open<'_>, P) -> Result<Taken, Ignored>,
    ) {
        let config = &self.applier.config;
        let (name, unit) = config.strategy().metric_name(&config.namespace, metric.name, metric.unit, kind, is_gauge);
        if name.is_empty() {
            return self.ignore(metric, Ignored::Name, points.count());
        }
        loop {
            let rows = match self.applier.store.family(&name, kind, &unit) {
                Ok(rows) => rows,
                Err(NoFamily::Full) => return self.ignore(metric, Ignored::Full, points.count()),
                Err(NoFamily::Kind(known)) => {
                    self.applier.reports.conflict(&name, known, kind, &self.target.service);
                    return self.ignore(metric, Ignored::Conflict, points.count());
                }
            };
            // Taken out of the store between the two lines: it is looked up anew.
            let Some(mut open) = rows.open(metric.description, self.now) else { continue };
            for point in points {
                match update(&mut open, point) {
                    Ok(Taken::Plainly) => {}
                    Ok(Taken::Interleaved) => self.applier.reports.interleaved(&name, &self.target.service),
                    Err(reason) => self.applier.reports.ignored(reason, metric.name, &self.target.service, 1),
                }
            }
            return;
        }
    }

    fn ignore(&self, metric: &MetricView<'_>, reason: Ignored, points: usize) {
        self.applier.reports.ignored(reason, metric.name, &self.target.service, points as u64);
    }

    fn key(&self, attributes: AttributesView<'_>) -> RawKey {
        self.applier.hash(|hasher| {
            hasher.write_u64(self.hash.0);
            hasher.write_u64(self.hash.1);
            for attribute in attributes.iter() {
                let bytes = attribute.bytes();
                hasher.write_usize(bytes.len());
                hasher.write(bytes);
            }
        })
    }

    fn labels(&self, attributes: AttributesView<'_>, reserved: &str) -> LabelBlock {
        let fixed = [&self.target.labels, &self.applier.constant, self.scope];
        series_labels(&fixed, attributes, reserved, self.applier.config.strategy())
    }
}
