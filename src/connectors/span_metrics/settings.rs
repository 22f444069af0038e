//! The settings: the Collector's keys with its defaults, and weir's own.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;

use super::glob::Glob;
use crate::config::{Diagnostics, GoDuration, Node, Origin, Section, Value};

/// Upper bounds in milliseconds where none are written.
const DEFAULT_BOUNDS_MS: [f64; 16] =
    [2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1000.0, 1400.0, 2000.0, 5000.0, 10_000.0, 15_000.0];

/// Labels that every row has and no dimension may be called by.
pub(super) const SERVICE_NAME: &str = "service.name";
pub(super) const SPAN_NAME: &str = "span.name";
pub(super) const SPAN_KIND: &str = "span.kind";
pub(super) const STATUS_CODE: &str = "status.code";
pub(super) const INSTANCE_ID: &str = "collector.instance.id";

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Labels beside the default ones, from span or resource attributes, of all metrics.
    pub dimensions: Vec<Dimension>,
    /// Of `calls` alone.
    pub calls_dimensions: Vec<Dimension>,
    /// Default labels to leave out.
    pub exclude_dimensions: Vec<String>,
    /// Deprecated and without effect.
    pub dimensions_cache_size: i64,
    /// Resources kept; at a flush the least recently used beyond it go. 0 or less is an error.
    pub resource_metrics_cache_size: i64,
    /// Resource attributes that make a resource; none: all of them.
    pub resource_metrics_key_attributes: Vec<String>,
    pub aggregation_temporality: Temporality,
    pub histogram: Histogram,
    pub metrics_flush_interval: GoDuration,
    /// Rows of a resource that was idle for so long go; 0: never.
    pub metrics_expiration: GoDuration,
    /// Rows that were idle for so long go; 0: never.
    pub series_expiration: GoDuration,
    /// Start times kept for delta metrics.
    pub metric_timestamp_cache_size: Option<i64>,
    pub namespace: String,
    pub exemplars: Exemplars,
    pub events: Events,
    /// Scopes by whose names rows are labelled.
    pub include_instrumentation_scope: Vec<String>,
    /// Rows a resource may have before the rest goes to one overflow row; 0: no limit.
    pub aggregation_cardinality_limit: i64,
    /// Without effect, as in the Collector unless a feature gate is set: resource attributes are always there.
    pub add_resource_attributes: bool,
    /// Adds `sampling.method`: `extrapolated` or `counted`.
    pub enable_metrics_sampling_method: bool,

    // === only weir has these ===
    /// Which families of series a page shows, all from one set of rows.
    pub families: Vec<Family>,
    /// Which kinds of span are counted.
    pub span_kinds: Vec<SpanKind>,
    /// The service that spans without `service.name` are counted for; without it they are skipped, as the Collector does.
    pub unknown_service: Option<String>,
    pub adjusted_counts: AdjustedCounts,
    pub series_identity: Identity,
    /// The value of `collector.instance.id`: `stable` (the same after a restart), `random`, `off`, or a text to use.
    pub instance_id: String,
    /// Shows native histograms beside the buckets, to scrapers that ask for them.
    pub native_histograms: Section<Native>,
    /// A new row shows 0 to the first scrape, so that `rate` and `increase` see its first value.
    pub first_sample_zero: bool,
    pub cardinality: Section<Cardinality>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dimensions: Vec::new(),
            calls_dimensions: Vec::new(),
            exclude_dimensions: Vec::new(),
            dimensions_cache_size: 0,
            resource_metrics_cache_size: 1000,
            resource_metrics_key_attributes: Vec::new(),
            aggregation_temporality: Temporality::Cumulative,
            histogram: Histogram::default(),
            metrics_flush_interval: GoDuration(Duration::from_mins(1)),
            metrics_expiration: GoDuration(Duration::ZERO),
            series_expiration: GoDuration(Duration::ZERO),
            metric_timestamp_cache_size: None,
            namespace: "traces.span.metrics".to_owned(),
            exemplars: Exemplars::default(),
            events: Events::default(),
            include_instrumentation_scope: Vec::new(),
            aggregation_cardinality_limit: 0,
            add_resource_attributes: false,
            enable_metrics_sampling_method: false,
            families: vec![Family::Collector],
            span_kinds: SpanKind::ALL.to_vec(),
            unknown_service: None,
            adjusted_counts: AdjustedCounts::Rounded,
            series_identity: Identity::Resource,
            instance_id: "stable".to_owned(),
            native_histograms: Section::absent(),
            first_sample_zero: false,
            cardinality: Section::absent(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dimension {
    /// The attribute; of the span, else of the resource.
    pub name: String,
    /// Stands in where there is no such attribute.
    pub default: Option<String>,
    /// All attributes whose names match, instead of one name. `*` ends at a dot, `**` does not.
    pub glob: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Histogram {
    pub disable: bool,
    pub unit: Unit,
    pub explicit: Section<Explicit>,
    pub exponential: Section<Exponential>,
    /// Labels of the histogram alone.
    pub dimensions: Vec<Dimension>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Explicit {
    /// Upper bounds.
    pub buckets: Vec<GoDuration>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exponential {
    /// 0 for 160.
    pub max_size: i32,
}

/// `ms` or `s`, in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Unit {
    #[default]
    Milliseconds,
    Seconds,
}

impl TryFrom<String> for Unit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "ms" => Ok(Self::Milliseconds),
            "s" => Ok(Self::Seconds),
            _ => Err(format!("unknown unit `{text}`, there are `ms` and `s`")),
        }
    }
}

impl Unit {
    /// Nanoseconds in one.
    pub(super) const fn nanos(self) -> f64 {
        match self {
            Self::Milliseconds => 1e6,
            Self::Seconds => 1e9,
        }
    }

    pub(super) const fn ucum(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exemplars {
    pub enabled: bool,
    /// Of a data point that is passed on; a page shows one a bucket.
    pub max_per_data_point: i64,
}

impl Default for Exemplars {
    fn default() -> Self {
        Self { enabled: false, max_per_data_point: 5 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    pub enabled: bool,
    pub dimensions: Vec<Dimension>,
}

/// Anything but the word for delta means cumulative, as in the Collector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Temporality {
    #[default]
    Cumulative,
    Delta,
}

impl From<String> for Temporality {
    fn from(text: String) -> Self {
        if text == "AGGREGATION_TEMPORALITY_DELTA" { Self::Delta } else { Self::Cumulative }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `traces_span_metrics_calls_total`, `traces_span_metrics_duration_milliseconds`: what Jaeger's Monitor tab reads.
    Collector,
    /// `traces_spanmetrics_calls_total`, `traces_spanmetrics_latency`, `traces_spanmetrics_size_total`: what Grafana reads.
    Tempo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl SpanKind {
    pub(super) const ALL: [Self; 6] =
        [Self::Unspecified, Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustedCounts {
    /// A sampled span counts for whole spans, rounded up or down at random so that the mean is right: the Collector's way.
    Rounded,
    /// A sampled span counts for as many spans as it stands for, fractions included.
    Exact,
    /// Every span counts once.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Each resource has rows of its own; series carry job, instance and the scope.
    Resource,
    /// Each service has; series carry its name alone.
    Service,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Native {
    /// Buckets grow by 2^(2^-schema).
    pub schema: i32,
    pub max_size: u32,
}

impl Default for Native {
    fn default() -> Self {
        Self { schema: 3, max_size: 160 }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cardinality {
    /// Rows in all. Each is about 20 series on a page and 0.7 kB of memory.
    pub rows_max: usize,
    /// Rows of one service.
    pub rows_per_service_max: usize,
    /// Part of a budget at which it is said that it is about to run out.
    pub warn_at: f64,
    /// A label that was folded stays so for at least so long.
    pub hold: GoDuration,
}

impl Default for Cardinality {
    fn default() -> Self {
        Self { rows_max: 100_000, rows_per_service_max: 10_000, warn_at: 0.8, hold: GoDuration(Duration::from_mins(10)) }
    }
}

// === impl Settings ===

impl Settings {
    /// Upper bounds of the histogram, in its unit.
    pub(super) fn bounds(&self) -> Vec<f64> {
        let unit = self.histogram.unit;
        let mut bounds: Vec<f64> = match self.histogram.explicit.get() {
            Some(explicit) => explicit.buckets.iter().map(|bound| bound.0.as_nanos() as f64 / unit.nanos()).collect(),
            None if unit == Unit::Milliseconds => DEFAULT_BOUNDS_MS.to_vec(),
            None => DEFAULT_BOUNDS_MS.iter().map(|bound| bound / 1000.0).collect(),
        };
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        bounds
    }

    /// Finds what is wrong in settings that could be read.
    pub(super) fn check(&self, node: &Node, found: &mut Diagnostics) {
        check_dimensions(&self.dimensions, node, "dimensions", found);
        check_dimensions(&self.calls_dimensions, node, "calls_dimensions", found);
        check_dimensions(&self.histogram.dimensions, node, "histogram::dimensions", found);
        if self.events.enabled {
            if self.events.dimensions.is_empty() {
                let help = Some("name at least one attribute of the events under `events::dimensions`".to_owned());
                found.error(node.nearest("events").origin, "no dimensions configured for events", help);
            }
            check_dimensions(&self.events.dimensions, node, "events::dimensions", found);
        }
        if self.histogram.explicit.get().is_some() && self.histogram.exponential.get().is_some() {
            let at = node.nearest("histogram::exponential").origin;
            found.error(at, "use either `explicit` or `exponential` buckets", None);
        }
        let rising = |explicit: &Explicit| explicit.buckets.is_sorted_by(|a, b| a < b);
        if !self.histogram.explicit.get().is_none_or(rising) {
            let at = node.nearest("histogram::explicit::buckets").origin;
            found.warning(at, "the buckets do not rise", Some("they are sorted, and doubles are left out".to_owned()));
        }
        if self.histogram.exponential.get().is_some_and(|e| e.max_size < 0 || e.max_size == 1) {
            found.error(node.nearest("histogram::exponential::max_size").origin, "at least 2 buckets are needed", None);
        }
        if self.resource_metrics_cache_size <= 0 {
            found.error(node.nearest("resource_metrics_cache_size").origin, "must be positive", None);
        }
        let timestamps = self.metric_timestamp_cache_size.unwrap_or(1000);
        if self.aggregation_temporality == Temporality::Delta && timestamps <= 0 {
            found.error(node.nearest("metric_timestamp_cache_size").origin, "must be positive", None);
        }
        if self.aggregation_cardinality_limit < 0 {
            found.error(node.nearest("aggregation_cardinality_limit").origin, "must not be negative", None);
        }
        if self.exemplars.enabled && self.exemplars.max_per_data_point < 0 {
            found.error(node.nearest("exemplars::max_per_data_point").origin, "must not be negative", None);
        }
        if self.metrics_flush_interval.0.is_zero() {
            found.error(node.nearest("metrics_flush_interval").origin, "must be positive", None);
        }
        if let Some(key) = node.get("dimensions_cache_size") {
            let help = Some("use `aggregation_cardinality_limit`".to_owned());
            found.warning(key.origin, "`dimensions_cache_size` is deprecated and has no effect", help);
        }
        if let Some(key) = node.get("add_resource_attributes") {
            let instead = "resource attributes are always part of the derived metrics";
            found.ineffective(key.origin, "`add_resource_attributes` changes nothing", instead);
        }
        if let Some(key) = node.get("aggregation_temporality")
            && self.aggregation_temporality == Temporality::Cumulative
            && !matches!(&key.value, Value::String(text) if &**text == "AGGREGATION_TEMPORALITY_CUMULATIVE")
        {
            let help = "write AGGREGATION_TEMPORALITY_CUMULATIVE or AGGREGATION_TEMPORALITY_DELTA".to_owned();
            found.warning(key.origin, "not a temporality; cumulative is used", Some(help));
        }
        if self.families.is_empty() {
            found.error(node.nearest("families").origin, "name at least one of `collector` and `tempo`", None);
        }
        if self.native_histograms.get().is_some_and(|native| !(-4..=8).contains(&native.schema) || native.max_size < 2) {
            let at = node.nearest("native_histograms").origin;
            found.error(at, "`schema` is -4 to 8, `max_size` at least 2", None);
        }
        if let Some(budget) = self.cardinality.get()
            && (budget.rows_max == 0 || budget.rows_per_service_max == 0 || !(0.0..=1.0).contains(&budget.warn_at))
        {
            let at = node.nearest("cardinality").origin;
            found.error(at, "budgets must be positive and `warn_at` between 0 and 1", None);
        }
    }
}

fn check_dimensions(dimensions: &[Dimension], node: &Node, path: &str, found: &mut Diagnostics) {
    let list = node.nearest(path);
    let origin = |at: usize| -> Origin {
        match &list.value {
            Value::List(items) => items.get(at).map_or(list.origin, |item| item.origin),
            _ => list.origin,
        }
    };
    let mut names = BTreeSet::from([SERVICE_NAME, SPAN_NAME, SPAN_KIND, STATUS_CODE, INSTANCE_ID]);
    let mut globs = Vec::new();
    for (at, dimension) in dimensions.iter().enumerate() {
        match (dimension.name.as_str(), dimension.glob.as_str()) {
            ("", "") => found.error(origin(at), "a dimension has either a `name` or a `glob`", None),
            (name, "") => {
                if !names.insert(name) {
                    found.error(origin(at), format!("duplicate dimension name `{name}`"), None);
                }
            }
            ("", glob) => {
                if dimension.default.is_some() {
                    found.error(origin(at), "`default` does not go with `glob`", None);
                }
                match Glob::parse(glob) {
                    Ok(parsed) => globs.push((at, glob, parsed)),
                    Err(problem) => found.error(origin(at), format!("the glob `{glob}` cannot be read: {problem}"), None),
                }
            }
            _ => found.error(origin(at), "a dimension has either a `name` or a `glob`, not both", None),
        }
    }
    for (at, text, glob) in &globs {
        if let Some(name) = names.iter().find(|name| glob.matches(name)) {
            found.error(origin(*at), format!("the glob `{text}` matches the dimension `{name}`"), None);
        }
    }
}
