//! Counts spans: how many, how long, how many failed, by service, name, kind and status.
//!
//! In:   traces as they were accepted; the door's index tells where the fields lie, so that nothing is parsed again.
//! Out:  metrics, each `metrics_flush_interval`, into the pipelines that name it as a receiver; and the rows themselves where such a
//!       pipeline is a bare `prometheus` exporter.
//! Full: rows are bounded by `aggregation_cardinality_limit` or by `cardinality`, which folds labels and keeps the totals.
//! Lost: spans without a service name (counted), unless `unknown_service` is set; of a name or value all behind its first KiB (counted),
//!       and of a resource's attributes what goes beyond 16 KiB.
//!
//! ```yaml
//! connectors:
//!   span_metrics:
//!     histogram: {explicit: {buckets: [5ms, 50ms, 500ms]}}
//!     dimensions: [{name: http.request.method, default: GET}]
//!     exemplars: {enabled: true}
//!     metrics_flush_interval: 15s
//! ```
//!
//! Names, defaults and counting rules are the Collector's. Keys that only weir has: `families`, `span_kinds`, `unknown_service`,
//! `adjusted_counts`, `series_identity`, `instance_id`, `native_histograms`, `first_sample_zero`, `cardinality`; what they do stands at
//! [`Settings`]. What weir uses without a file stands in `cli/default.yaml`.
//!
//! Times are those at which records were received, so that a replay gives the same rows.

mod aggregate;
mod derive;
mod dimensions;
mod fold;
mod glob;
mod labels;
mod owners;
mod page;
mod remember;
mod settings;
mod text;
mod trace_state;

#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};

pub use settings::Settings;

use crate::{
    component::{Applied, BuildContext, BuiltConnector, Connector, ConnectorConfig, ConnectorUse, Derived, Stability, Stateful},
    config::{Diagnostics, Node, read},
    exposition::PageSource,
    internal_telemetry::{self, Telemetry},
    journal::Record,
    otlp::{ScanLimits, scan},
    registry::{self, GuardLimits, RowStore},
    runtime::BuildError,
    signal::{ComponentId, Signal, SpanIndex, UnixNanos},
};
use aggregate::{Aggregator, Counts, Rules, Stream, Tally};
use derive::Telling;
use dimensions::Dimensions;
use labels::{Labelling, Shown};
use owners::{Identity, Owners};
use remember::{Blank, Shared};
use settings::{AdjustedCounts, Family, SpanKind, Temporality};

/// A connector's settings, read and checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    pub settings: Settings,
}

impl ConnectorConfig for Config {
    const TYPE: &'static str = "span_metrics";
    const ALIASES: &'static [&'static str] = &["spanmetrics"];
    const STABILITY: Stability = Stability::Alpha;
    const PAIRS: &'static [(Signal, Signal)] = &[(Signal::Traces, Signal::Metrics)];

    fn has_page(&self) -> bool {
        // Rows of deltas begin again at each flush; a page needs them added up, which its exporter does with what is derived.
        self.settings.aggregation_temporality == Temporality::Cumulative
    }

    fn rows_are_of_services(&self) -> bool {
        self.settings.series_identity == settings::Identity::Service
    }

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let settings: Settings = read(node, found);
        settings.check(node, found);
        Self { settings }
    }

    fn wants_index(&self) -> bool {
        true
    }

    fn build(self, context: BuildContext, wanted: ConnectorUse) -> Result<BuiltConnector, BuildError> {
        let settings = self.settings;
        let (connector, page) = SpanMetrics::new(&settings, &context, wanted);
        Ok(BuiltConnector {
            connector: Box::new(connector),
            page: wanted.renders.then_some(page),
            flush_interval: Some(settings.metrics_flush_interval.0),
        })
    }
}

/// What ingest writes and pages read.
pub(crate) struct State {
    owners: Owners,
    streams: Vec<Stream<Shown>>,
    labelling: Labelling,
    /// Where the random numbers for weights stand.
    random: u64,
    /// When exemplars were told of last.
    told_unix_nanos: u64,
    /// Spans that were not counted, since somebody asked.
    dropped: Tally,
    applied: Applied,
    replaying: bool,
    /// When replaying ended: idle times count from there at the earliest.
    resumed_unix_nanos: u64,
}

impl State {
    /// Owners that others share all shown labels with. Their rows are added up on a page.
    fn owners_that_look_alike(&self) -> HashSet<u32> {
        let mut first = hashbrown::HashMap::new();
        let mut alike = HashSet::new();
        if !self.labelling.with_target {
            return alike;
        }
        for (number, owner) in self.owners.iter() {
            if let Some(other) = first.insert((&owner.service, &owner.job, &owner.instance), number) {
                alike.extend([other, number]);
            }
        }
        alike
    }

    /// Takes out owners with all their rows.
    fn remove_owners(&mut self, gone: &[u32]) {
        let all: HashSet<u32> = gone.iter().copied().collect();
        for (number, stream) in self.streams.iter_mut().enumerate() {
            let rows = |owner: &u32| self.owners.get(*owner).and_then(|owner| owner.rows.get(number)).copied().unwrap_or(0);
            let mut left: usize = gone.iter().map(|owner| rows(owner) as usize).sum();
            for page in 0..stream.store.pages() {
                if left == 0 {
                    break;
                }
                left = left.saturating_sub(stream.store.remove_where(page, |key, _| all.contains(&key.head.owner)));
            }
            if let Some(guard) = &mut stream.guard {
                for owner in gone {
                    guard.forget(*owner);
                }
            }
        }
        self.owners.remove(gone);
    }
}

struct Metrics {
    counted: IntCounter,
    nameless: IntCounter,
    other_kind: IntCounter,
    backwards: IntCounter,
    overflowed: IntCounter,
    folded: IntCounter,
    cut: IntCounter,
    rows: IntGauge,
    resources: IntGauge,
    /// With their values. Set when something is counted: what is only built, for a look at its file, says nothing.
    limits: [(IntGauge, i64); 3],
    telemetry: Telemetry,
    id: ComponentId,
}

/// The running connector.
struct SpanMetrics {
    shared: Arc<Shared>,
    aggregator: Aggregator,
    index: SpanIndex,
}

impl SpanMetrics {
    fn new(settings: &Settings, context: &BuildContext, wanted: ConnectorUse) -> (Self, Arc<dyn PageSource>) {
        let excluded = |name: &str| settings.exclude_dimensions.iter().any(|excluded| excluded == name);
        let unit = settings.histogram.unit;
        let has = |family: Family| settings.families.contains(&family);
        let by_service = settings.series_identity == settings::Identity::Service;
        let instance_id = if excluded(settings::INSTANCE_ID) { None } else { instance_id(&settings.instance_id, context) };
        let labelling = Labelling {
            collector: has(Family::Collector),
            tempo: has(Family::Tempo),
            with_target: !by_service,
            with_service: !excluded(settings::SERVICE_NAME),
            with_name: !excluded(settings::SPAN_NAME),
            with_kind: !excluded(settings::SPAN_KIND),
            with_status: !excluded(settings::STATUS_CODE),
            instance_id,
        };
        let rules = Rules {
            unit_nanos: unit.nanos(),
            kinds: SpanKind::ALL.map(|kind| settings.span_kinds.contains(&kind)),
            with_name: labelling.with_name,
            with_kind: labelling.with_kind,
            with_status: labelling.with_status,
            adjusted: settings.adjusted_counts,
            sampling_method: settings.enable_metrics_sampling_method && settings.adjusted_counts != AdjustedCounts::Off,
            exemplars: settings.exemplars.enabled,
            scopes: settings.include_instrumentation_scope.clone(),
            overflow_after: u32::try_from(settings.aggregation_cardinality_limit).unwrap_or(u32::MAX),
        };
        let own_bounds = if settings.histogram.exponential.get().is_some() { Vec::new() } else { settings.bounds() };
        let more = labelling.tempo.then(|| page::tempo_bounds(unit)).into_iter().flatten();
        let union = page::union_of(&own_bounds, more);
        let exponential = settings.histogram.exponential.get().is_some();
        let identity = match settings.series_identity {
            settings::Identity::Service => Identity::Service,
            settings::Identity::Resource if !settings.resource_metrics_key_attributes.is_empty() => {
                Identity::Keys(settings.resource_metrics_key_attributes.clone())
            }
            settings::Identity::Resource if wanted.derives => Identity::Attributes,
            settings::Identity::Resource => Identity::Target,
        };
        let blank = Blank { settings: settings.clone(), union: union.clone(), identity, labelling: labelling.clone() };
        let state = blank.state();
        let counts: Vec<Counts> = state.streams.iter().map(|stream| stream.counts).collect();
        let state = Arc::new(Mutex::new(state));
        let shape = page::Shape {
            namespace: &settings.namespace,
            unit,
            collector: labelling.collector,
            tempo: labelling.tempo,
            target: labelling.with_target,
            with_size: true,
            bounds: &own_bounds,
            union: &union,
            exponential,
            native: settings.native_histograms.get().is_some(),
            first_sample_zero: settings.first_sample_zero,
            streams: &counts,
        };
        let page: Arc<dyn PageSource> = Arc::new(page::Rows::new(Arc::clone(&state), &shape));
        let name = |what: &str| {
            if settings.namespace.is_empty() { what.to_owned() } else { format!("{}.{what}", settings.namespace) }
        };
        let telling = wanted.derives.then(|| Telling {
            calls: name("calls"),
            duration: name("duration"),
            events: name("events"),
            unit: unit.ucum(),
            temporality: settings.aggregation_temporality,
            bounds: own_bounds.iter().map(|bound| (*bound, union.partition_point(|known| known < bound))).collect(),
            exponential,
            exemplars_max: usize::try_from(settings.exemplars.max_per_data_point).unwrap_or(0),
            starts_max: usize::try_from(settings.metric_timestamp_cache_size.unwrap_or(1000)).unwrap_or(1),
        });
        let shared = Shared {
            state,
            blank,
            telling,
            metrics: Metrics::new(context, settings, labelling.with_target),
            clock: context.clock.clone(),
            flushing: Mutex::new(()),
            saving: Mutex::new(()),
            resources_max: usize::try_from(settings.resource_metrics_cache_size).unwrap_or(usize::MAX),
            resource_expiry_nanos: nanos(settings.metrics_expiration.0),
            row_expiry_nanos: nanos(settings.series_expiration.0),
        };
        let connector = Self { shared: Arc::new(shared), aggregator: Aggregator::new(rules), index: SpanIndex::default() };
        (connector, page)
    }

    fn count(&mut self, record: &Record, reader: Option<&Arc<str>>) {
        let payload = &record.batch.payload;
        let received = record.received.0;
        let index = match &record.batch.index {
            Some(index) => index.as_ref(),
            // A processor changed the spans: look again where they lie.
            None => match scan(Signal::Traces, payload, &ScanLimits::default(), Some(&mut self.index)) {
                Ok(_) => &self.index,
                Err(error) => {
                    tracing::error!(%error, "a batch that was accepted cannot be read; its spans are not counted");
                    return;
                }
            },
        };
        let metrics = &self.shared.metrics;
        let mut state = self.shared.state.lock();
        let State { owners, streams, random, dropped, applied, .. } = &mut *state;
        if let Some(reader) = reader {
            if applied.covers(reader, record.position) {
                return;
            }
            applied.add(reader, record.position);
        }
        self.aggregator.random = *random;
        let tally = self.aggregator.consume(payload, index, received, owners, streams);
        *random = self.aggregator.random;
        dropped.nameless += tally.nameless;
        dropped.other_kind += tally.other_kind;
        let rows: usize = streams.iter().map(|stream| stream.store.len()).sum();
        metrics.rows.set(rows as i64);
        metrics.resources.set(owners.len() as i64);
        for (gauge, limit) in &metrics.limits {
            gauge.set(*limit);
        }
        drop(state);
        metrics.tell(&tally);
    }
}

impl Connector for SpanMetrics {
    fn consume(&mut self, record: &Record, _out: &mut Vec<Derived>) {
        self.count(record, None);
    }

    fn consume_from(&mut self, reader: &Arc<str>, record: &Record, _out: &mut Vec<Derived>) {
        self.count(record, Some(reader));
    }

    fn flush(&mut self, now: UnixNanos, out: &mut Vec<Derived>) {
        self.shared.flush(now, false, out);
    }

    fn finish(&mut self, now: UnixNanos, out: &mut Vec<Derived>) {
        self.shared.flush(now, true, out);
    }

    fn take_dropped(&mut self) -> Option<(&'static str, u64)> {
        let take = |count: &mut u64, reason| Some((reason, std::mem::take(count))).filter(|(_, count)| *count > 0);
        let dropped = &mut self.shared.state.lock().dropped;
        take(&mut dropped.nameless, "no_service_name").or_else(|| take(&mut dropped.other_kind, "span_kind"))
    }

    fn state(&self) -> Option<Arc<dyn Stateful>> {
        Some(Arc::clone(&self.shared) as Arc<dyn Stateful>)
    }
}

impl Metrics {
    fn tell(&self, tally: &Tally) {
        self.counted.inc_by(tally.counted);
        self.nameless.inc_by(tally.nameless + tally.renamed);
        self.other_kind.inc_by(tally.other_kind);
        self.backwards.inc_by(tally.backwards);
        self.overflowed.inc_by(tally.overflowed);
        self.folded.inc_by(tally.folded);
        if tally.cut > 0 {
            if self.cut.get() == 0 {
                tracing::warn!(
                    connector = %self.id,
                    bytes_max = text::VALUE_BYTES_MAX,
                    "names or values of labels are longer than is kept and are cut; further ones are only counted"
                );
            }
            self.cut.inc_by(tally.cut);
        }
    }

    /// How many values each label was asked for, and how often it is folded. Called at a flush, not for each span.
    fn tell_labels(&self, guard: &registry::Guard) {
        let labels = |name| [("connector", self.id.as_str()), ("label", name)];
        for (name, folds) in guard.folds() {
            let help = "Services that have the label folded; one more if it is folded for all.";
            self.telemetry.int_gauge(internal_telemetry::SPAN_METRICS_FOLDED_LABELS, help, &labels(name)).set(folds as i64);
        }
        for (name, values) in guard.demand() {
            let help = "Values the label was seen with, folded ones included; an estimate.";
            self.telemetry.gauge(internal_telemetry::SPAN_METRICS_LABEL_DEMAND, help, &labels(name)).set(values.round());
        }
    }

    fn new(context: &BuildContext, settings: &Settings, by_resource: bool) -> Self {
        let labels = [("connector", context.id.as_str())];
        let telemetry = &context.telemetry;
        let limit =
            |name, help, limit: usize| (telemetry.int_gauge(name, help, &labels), i64::try_from(limit).unwrap_or(i64::MAX));
        let budget = settings.cardinality.get();
        // Calls and durations with dimensions of their own have rows of their own, each as many.
        let streams =
            if settings.histogram.disable || settings.calls_dimensions == settings.histogram.dimensions { 1 } else { 2 };
        Self {
            counted: telemetry.counter(internal_telemetry::SPAN_METRICS_SPANS, "Spans counted in rows.", &labels),
            nameless: telemetry.counter(internal_telemetry::SPAN_METRICS_NAMELESS, "Spans without a service name.", &labels),
            other_kind: telemetry.counter(
                internal_telemetry::SPAN_METRICS_OTHER_KIND,
                "Spans of kinds that are not counted.",
                &labels,
            ),
            backwards: telemetry.counter(
                internal_telemetry::SPAN_METRICS_BACKWARDS,
                "Spans that ended before they began.",
                &labels,
            ),
            overflowed: telemetry.counter(
                internal_telemetry::SPAN_METRICS_OVERFLOWED,
                "Spans counted in an overflow row.",
                &labels,
            ),
            folded: telemetry.counter(
                internal_telemetry::SPAN_METRICS_FOLDED,
                "Spans that came with a new value of a folded label.",
                &labels,
            ),
            cut: telemetry.counter(
                internal_telemetry::SPAN_METRICS_CUT,
                "Names and values of labels that were cut for their length.",
                &labels,
            ),
            telemetry: telemetry.clone(),
            id: context.id.clone(),
            rows: telemetry.int_gauge(internal_telemetry::SPAN_METRICS_ROWS, "Rows that live.", &labels),
            resources: telemetry.int_gauge(
                internal_telemetry::SPAN_METRICS_RESOURCES,
                "Resources or services that have rows.",
                &labels,
            ),
            limits: [
                limit(
                    internal_telemetry::SPAN_METRICS_ROWS_MAX,
                    "Rows from which on labels are folded (`cardinality::rows_max`); 0: no limit.",
                    budget.map_or(0, |budget| budget.rows_max.saturating_mul(streams)),
                ),
                limit(
                    internal_telemetry::SPAN_METRICS_SERVICE_ROWS_MAX,
                    "Rows of one service from which on its labels are folded (`cardinality::rows_per_service_max`); 0: no limit.",
                    budget.map_or(0, |budget| budget.rows_per_service_max),
                ),
                limit(
                    internal_telemetry::SPAN_METRICS_RESOURCES_MAX,
                    "Resources that have rows at once (`resource_metrics_cache_size`); 0: no limit, as for services.",
                    if by_resource { usize::try_from(settings.resource_metrics_cache_size).unwrap_or(0) } else { 0 },
                ),
            ],
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One stream where calls and durations have the same dimensions, else one for each.
fn streams(settings: &Settings, union: &[f64]) -> Vec<Stream<Shown>> {
    let exponential = match (settings.histogram.exponential.get(), settings.native_histograms.get()) {
        (Some(written), _) => {
            let size = if written.max_size == 0 { 160 } else { written.max_size.cast_unsigned() };
            Some((size, registry::EXPONENTIAL_SCALE_MAX))
        }
        (None, Some(native)) => Some((native.max_size, native.schema)),
        (None, None) => None,
    };
    let plain = registry::Shape { bounds: Box::new([]), exponential: None };
    let timed = registry::Shape { bounds: union.into(), exponential };
    let limits = settings.cardinality.get().map(|budget| GuardLimits {
        rows_max: budget.rows_max,
        rows_per_owner_max: budget.rows_per_service_max,
        warn_at: budget.warn_at,
        hold_nanos: nanos(budget.hold.0),
    });
    let stream = |counts, more: &[settings::Dimension], shape: &registry::Shape| {
        let dimensions = Dimensions::new(&settings.dimensions, more);
        let guard = limits.map(|limits| fold::guard(limits, dimensions.names()));
        Stream { counts, dimensions, store: RowStore::new(shape.clone()), guard }
    };
    let (calls, durations) = (&settings.calls_dimensions, &settings.histogram.dimensions);
    let mut made = if settings.histogram.disable {
        vec![stream(Counts::Calls, calls, &plain)]
    } else if calls == durations {
        vec![stream(Counts::Both, calls, &timed)]
    } else {
        vec![stream(Counts::Calls, calls, &plain), stream(Counts::Duration, durations, &timed)]
    };
    if settings.events.enabled {
        made.push(stream(Counts::Events, &settings.events.dimensions, &plain));
    }
    made
}

/// The value of `collector.instance.id`. `stable` is made of the host's name and the component's, so that it is the same after a restart.
fn instance_id(wanted: &str, context: &BuildContext) -> Option<Box<str>> {
    let mut bytes = [0_u8; 16];
    match wanted {
        "off" | "" => return None,
        "stable" => {
            let host = sysinfo::System::host_name().unwrap_or_default();
            let hash = digest::digest(&digest::SHA256, format!("weir\0{host}\0{}", context.id).as_bytes());
            for (byte, hashed) in bytes.iter_mut().zip(hash.as_ref()) {
                *byte = *hashed;
            }
        }
        "random" => {
            if SystemRandom::new().fill(&mut bytes).is_err() {
                bytes = context.clock.now().0.to_be_bytes().repeat(2).try_into().unwrap_or_default();
            }
        }
        written => return Some(written.into()),
    }
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    Some([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-").into())
}
