//! Samples of one page → OTLP points: what the exporters' translation does, the other way.
//!
//! In:   samples as a parser hands them over, and the labels of their target.
//! Out:  metrics by resource (`job`, `instance`, `target_info`) and scope (`otel_scope_…`); lines of one histogram or summary are one point.
//! Full: a page may have a million samples, or `sample_limit`; one more fails it.
//! Lost: what has no form in OTLP (gauge histograms), is there twice or does not fit together; counted by reason.
//!
//! Spec: OpenTelemetry "Prometheus and OpenMetrics compatibility". Names, as the Collector's receiver gives them: counters keep theirs with
//! `_total`, histograms, summaries and infos are called as their family.

mod points;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _},
    net::IpAddr,
};

use hashbrown::HashMap as FastMap;
use smallvec::SmallVec;

use self::points::{put_exemplar, write_point};
use super::{
    job::Job,
    labels::{INSTANCE, JOB, Labels, NAME},
    memory::Told,
    parse::{About, Exemplar, Fault, Kind, Native, Sample, Taker, Value},
    relabel,
    sheet::{MetricHead, Sheet, data, put_attribute},
};
use crate::{exposition::translation::unit_code, otlp::wire};

/// Samples of one page where `sample_limit` is larger or not set.
pub(super) const SAMPLES_MAX: u64 = 1_000_000;
/// A page becomes at most so many bytes of OTLP: descriptions are written again for each scope, attributes for each resource.
const OUT_BYTES_MAX: usize = 256 << 20;
/// Bytes of labels that are worked on for one page: a histogram's stand on a page of protobuf once, and belong to each of its buckets.
const LABEL_BYTES_MAX: usize = 1 << 30;
/// Attributes of one resource by all of its `target_info`.
const INFO_MAX: usize = 1024;
/// The value by which Prometheus says that a series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// As the Collector's receiver names the scope of what names none.
const SCOPE: &str = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/prometheusreceiver";
const SCOPE_LABELS: &str = "otel_scope_";
const CUMULATIVE: u64 = 2;

/// Why a sample is not in the points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The same series, or part of it, is there twice.
    Duplicate,
    /// It does not fit the type of its family, or the other lines of its point.
    Inconsistent,
    /// OTLP has no form for it.
    Unsupported,
    /// Its time is before 1970, or too far from it.
    Time,
}

impl Lost {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Duplicate, "duplicate"),
        (Self::Inconsistent, "inconsistent"),
        (Self::Unsupported, "unsupported"),
        (Self::Time, "time"),
    ];
}

/// What a family is called and is.
#[derive(Debug, Clone)]
struct Meta {
    kind: Kind,
    help: String,
    unit: String,
}

impl Default for Meta {
    fn default() -> Self {
        Self { kind: Kind::Unknown, help: String::new(), unit: String::new() }
    }
}

#[derive(Debug)]
struct Resource {
    job: String,
    instance: String,
    /// Of `target_info`.
    info: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Scope {
    resource: usize,
    name: String,
    version: String,
    schema_url: String,
    attributes: Vec<(String, String)>,
}

#[derive(Debug)]
struct Family {
    name: String,
    /// The family as its description names it.
    base: String,
    kind: Kind,
    /// Its place in `Page::described`.
    meta: usize,
    data: u32,
    points: Vec<usize>,
}

#[derive(Debug)]
struct Point {
    id: u64,
    /// Where its attributes stand in `Page::attributes`.
    attributes: std::ops::Range<usize>,
    time: u64,
    /// The page says its time.
    timed: bool,
    start: u64,
    samples: u32,
    /// As they stand in the point.
    exemplars: Vec<u8>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Only the time at which it began is known yet.
    Nothing,
    Number(f64),
    Ended,
    Distribution(Box<Distribution>),
    Native(Box<Native>),
}

#[derive(Debug, Default)]
struct Distribution {
    count: Option<f64>,
    sum: Option<f64>,
    /// Bounds with cumulative counts, or quantiles with their values.
    parts: Vec<(f64, f64)>,
}

/// One scrape, being put together.
pub(super) struct Page<'j> {
    job: &'j Job,
    target: &'j Labels<'static>,
    scheme: &'j str,
    /// Of samples without one, in nanoseconds since 1970.
    time: u64,
    /// By the name of the family. A description may be long, so families refer to it by its place in `described`.
    metas: FastMap<String, usize, foldhash::fast::RandomState>,
    described: Vec<Meta>,
    resources: Vec<Resource>,
    resource_of: HashMap<(String, String), usize>,
    scopes: Vec<Scope>,
    scope_of: HashMap<Scope, usize>,
    /// Of `otel_scope_info`, by scope without attributes.
    scope_infos: HashMap<Scope, Vec<(String, String)>>,
    /// In the order in which they came, by scope.
    families: Vec<(usize, Family)>,
    family_of: FastMap<(usize, String, bool), usize, foldhash::fast::RandomState>,
    points: Vec<Point>,
    point_of: FastMap<u64, usize, foldhash::fast::RandomState>,
    attributes: Vec<u8>,
    /// Families that were written.
    written: usize,
    /// Bytes of labels so far.
    label_bytes: usize,
    /// Lines of the page, and those that relabelling left.
    pub(super) scraped: u64,
    pub(super) kept: u64,
    pub(super) lost: [u64; Lost::ALL.len()],
}

impl<'j> Page<'j> {
    pub(super) fn new(job: &'j Job, target: &'j Labels<'static>, scheme: &'j str, time: u64) -> Self {
        Self {
            job,
            target,
            scheme,
            time,
            metas: FastMap::default(),
            described: vec![Meta::default()],
            resources: Vec::new(),
            resource_of: HashMap::new(),
            scopes: Vec::new(),
            scope_of: HashMap::new(),
            scope_infos: HashMap::new(),
            families: Vec::new(),
            family_of: FastMap::default(),
            points: Vec::new(),
            point_of: FastMap::default(),
            attributes: Vec::new(),
            written: 0,
            label_bytes: 0,
            scraped: 0,
            kept: 0,
            lost: [0; Lost::ALL.len()],
        }
    }

    /// Throws away what a page gave that failed later on.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.job, self.target, self.scheme, self.time);
    }

    /// A sample of weir's own about the scrape. `value`: `None` says that the series has ended.
    pub(super) fn report(&mut self, name: &str, help: &str, unit: &str, value: Option<f64>) {
        let meta = Meta { kind: Kind::Gauge, help: help.to_owned(), unit: unit.to_owned() };
        self.described.push(meta);
        self.metas.insert(name.to_owned(), self.described.len() - 1);
        let mut labels: Labels<'_> = [(NAME, name)].into_iter().collect();
        labels.set_all(self.target.iter().map(|(name, value)| (name.to_owned().into(), value.to_owned().into())));
        self.add_external(&mut labels);
        let value = value.unwrap_or(f64::from_bits(STALE));
        // The name is one, and the target's labels were sorted.
        if labels.finish().is_ok() {
            self.place(&labels, &Value::Number(value), None, 0, &[]);
        }
    }

    fn add_external(&self, labels: &mut Labels<'_>) {
        for (name, value) in &self.job.external_labels {
            labels.set(name, value.clone());
        }
    }

    fn lose(&mut self, why: Lost) {
        if let Some(at) = Lost::ALL.iter().position(|(known, _)| *known == why) {
            self.lost[at] += 1;
        }
    }

    /// Gives the target's labels to a series.
    fn own(&self, labels: &mut Labels<'_>) {
        for (name, value) in self.target.iter() {
            if labels.has(name) {
                if self.job.honor_labels {
                    continue;
                }
                if !labels.get(name).is_empty() {
                    labels.step_aside(name);
                }
            }
            labels.set(name, value.to_owned());
        }
    }

    fn check(&self, labels: &Labels<'_>) -> Result<(), Fault> {
        let limits = &self.job.limits;
        let series = || labels.get(NAME).chars().take(100).collect::<String>();
        if limits.labels > 0 && labels.len() as u64 > limits.labels {
            let count = labels.len();
            return Err(Fault::Limit(format!("`{}` has {count} labels, more than `label_limit` ({})", series(), limits.labels)));
        }
        for (what, limit, key) in
            [(0, limits.label_name, "label_name_length_limit"), (1, limits.label_value, "label_value_length_limit")]
        {
            let too_long = |(name, value): &(&str, &str)| [name, value].get(what).is_some_and(|text| text.len() as u64 > limit);
            if limit > 0
                && let Some((name, _)) = labels.iter().find(too_long)
            {
                let name: String = name.chars().take(100).collect();
                return Err(Fault::Limit(format!("the label `{name}` of `{}` is longer than `{key}` ({limit})", series())));
            }
        }
        if self.kept > limits.samples.min(SAMPLES_MAX) {
            let which = if limits.samples <= SAMPLES_MAX { "`sample_limit`" } else { "weir takes of one target" };
            return Err(Fault::Limit(format!("there are more samples than {which} ({})", limits.samples.min(SAMPLES_MAX))));
        }
        Ok(())
    }

    fn place(&mut self, labels: &Labels<'_>, value: &Value, time: Option<i64>, start: u64, exemplars: &[Exemplar<'_>]) {
        let (name, resource) = (labels.get(NAME).to_owned(), self.resource(labels));
        if name == "target_info" {
            self.describe_resource(resource, labels);
            return;
        }
        let mut scope = scope_of(labels);
        scope.resource = resource;
        if name == "otel_scope_info" {
            self.describe_scope(scope, labels);
            return;
        }
        let timed = time.is_some() && self.job.honor_timestamps;
        let time = match time.filter(|_| timed) {
            None => self.time,
            Some(millis) => match u64::try_from(millis).ok().and_then(|millis| millis.checked_mul(1_000_000)) {
                Some(time) => time,
                None => return self.lose(Lost::Time),
            },
        };
        let scope = self.scope(scope);
        let native = matches!(value, Value::Native(_));
        let Some(family) = self.family(scope, &name, native) else { return self.lose(Lost::Unsupported) };
        let point = self.point(family, labels, time, timed);
        if start != 0
            && let Some(point) = self.points.get_mut(point)
        {
            point.start = start;
        }
        match self.fill(family, point, &name, labels, value, (time, timed)) {
            Ok(()) => self.add_exemplars(family, point, exemplars),
            Err(why) => self.lose(why),
        }
    }

    fn resource(&mut self, labels: &Labels<'_>) -> usize {
        let own = |name: &str| {
            let value = labels.get(name);
            if value.is_empty() { self.target.get(name) } else { value }
        };
        let (job, instance) = (own(JOB), own(INSTANCE));
        // Most pages have one.
        if let Some(last) = self.resources.last()
            && last.job == job
            && last.instance == instance
        {
            return self.resources.len() - 1;
        }
        let key = (job.to_owned(), instance.to_owned());
        if let Some(known) = self.resource_of.get(&key) {
            return *known;
        }
        self.resources.push(Resource { job: key.0.clone(), instance: key.1.clone(), info: Vec::new() });
        self.resource_of.insert(key, self.resources.len() - 1);
        self.resources.len() - 1
    }

    fn describe_resource(&mut self, resource: usize, labels: &Labels<'_>) {
        let Some(resource) = self.resources.get_mut(resource) else { return };
        let mut left_out = false;
        for (name, value) in labels.iter().filter(|(name, _)| !matches!(*name, NAME | JOB | INSTANCE)) {
            let has_room = resource.info.len() < INFO_MAX;
            match resource.info.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => value.clone_into(known),
                None if has_room => resource.info.push((name.to_owned(), value.to_owned())),
                None => left_out = true,
            }
        }
        if left_out {
            self.lose(Lost::Unsupported);
        }
    }

    fn describe_scope(&mut self, mut scope: Scope, labels: &Labels<'_>) {
        scope.attributes.clear();
        let is_own = |name: &str| {
            matches!(name, NAME | JOB | INSTANCE)
                || matches!(name.strip_prefix(SCOPE_LABELS), Some("name" | "version" | "schema_url"))
        };
        let attributes = labels.iter().filter(|(name, _)| !is_own(name));
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.scope_infos.insert(scope, attributes);
    }

    fn scope(&mut self, scope: Scope) -> usize {
        if let Some(last) = self.scopes.last()
            && *last == scope
        {
            return self.scopes.len() - 1;
        }
        if let Some(known) = self.scope_of.get(&scope) {
            return *known;
        }
        self.scopes.push(scope.clone());
        self.scope_of.insert(scope, self.scopes.len() - 1);
        self.scopes.len() - 1
    }

    /// The family of a sample's name; `None` for one that OTLP has no form for.
    fn family(&mut self, scope: usize, sample: &str, native: bool) -> Option<usize> {
        let (name, base, meta) = self.named(sample);
        let kind = if native { Kind::Histogram } else { self.kind(meta) };
        let data = match kind {
            Kind::Counter | Kind::Info | Kind::StateSet => data::SUM,
            Kind::Gauge | Kind::Unknown => data::GAUGE,
            Kind::Histogram if native => data::EXPONENTIAL,
            Kind::Histogram => data::HISTOGRAM,
            Kind::Summary => data::SUMMARY,
            Kind::GaugeHistogram => return None,
        };
        let key = (scope, name, native);
        if let Some(known) = self.family_of.get(&key) {
            return Some(*known);
        }
        let family = Family { name: key.1.clone(), base, kind, meta, data, points: Vec::new() };
        self.families.push((scope, family));
        self.family_of.insert(key, self.families.len() - 1);
        Some(self.families.len() - 1)
    }

    fn kind(&self, meta: usize) -> Kind {
        self.described.get(meta).map_or(Kind::Unknown, |meta| meta.kind)
    }

    /// A metric's name, that of the family described, and the place of the description.
    fn named(&self, sample: &str) -> (String, String, usize) {
        if let Some(meta) = self.metas.get(sample) {
            return (sample.to_owned(), sample.to_owned(), *meta);
        }
        for suffix in ["_bucket", "_count", "_sum", "_total", "_info", "_created", "_gcount", "_gsum"] {
            let Some(base) = sample.strip_suffix(suffix).filter(|base| !base.is_empty()) else { continue };
            let Some(meta) = self.metas.get(base) else { continue };
            let kind = self.kind(*meta);
            let fits = match suffix {
                "_bucket" | "_count" | "_sum" => matches!(kind, Kind::Histogram | Kind::Summary | Kind::GaugeHistogram),
                "_total" => kind == Kind::Counter,
                "_info" => kind == Kind::Info,
                "_created" => matches!(kind, Kind::Counter | Kind::Histogram | Kind::Summary),
                _ => kind == Kind::GaugeHistogram,
            };
            if !fits {
                continue;
            }
            let name = if kind == Kind::Counter { format!("{base}_total") } else { base.to_owned() };
            return (name, base.to_owned(), *meta);
        }
        // `foo_total` of text 0.0.4 has its beginning in `foo_created`.
        if let Some(base) = sample.strip_suffix("_created") {
            let total = format!("{base}_total");
            if let Some(meta) = self.metas.get(&total).filter(|meta| self.kind(**meta) == Kind::Counter) {
                return (total, base.to_owned(), *meta);
            }
        }
        (sample.to_owned(), sample.to_owned(), 0)
    }

    fn point(&mut self, family: usize, labels: &Labels<'_>, time: u64, timed: bool) -> usize {
        let (data, resource, scope, name) = match self.families.get(family) {
            Some((scope, family)) => {
                (family.data, self.scopes.get(*scope).map_or(0, |scope| scope.resource), *scope, &family.name)
            }
            None => return usize::MAX,
        };
        let (field, own) = match data {
            data::HISTOGRAM => (9, "le"),
            data::EXPONENTIAL => (1, "le"),
            data::SUMMARY => (7, "quantile"),
            _ => (7, ""),
        };
        let start = self.attributes.len();
        for (key, value) in labels.iter() {
            if !matches!(key, NAME | JOB | INSTANCE) && key != own && !key.starts_with(SCOPE_LABELS) {
                put_attribute(&mut self.attributes, field, key, value);
            }
        }
        let mut hasher = self.job.identity.build_hasher();
        // By words, not numbers: what is the same in two scrapes may come in another order.
        let (resource, scope) = (self.resources.get(resource), self.scopes.get(scope));
        for text in resource.iter().flat_map(|one| [&one.job, &one.instance]) {
            hasher.write(text.as_bytes());
            hasher.write_u8(0xff);
        }
        for text in scope.iter().flat_map(|one| [&one.name, &one.version, &one.schema_url]) {
            hasher.write(text.as_bytes());
            hasher.write_u8(0xff);
        }
        for (key, value) in scope.iter().flat_map(|one| &one.attributes) {
            hasher.write(key.as_bytes());
            hasher.write_u8(0xfe);
            hasher.write(value.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.write(name.as_bytes());
        hasher.write_u32(data);
        hasher.write(self.attributes.get(start..).unwrap_or_default());
        let id = hasher.finish().max(1);
        if let Some(known) = self.point_of.get(&id) {
            self.attributes.truncate(start);
            return *known;
        }
        let at = self.points.len();
        self.points.push(Point {
            id,
            attributes: start..self.attributes.len(),
            time,
            timed,
            start: 0,
            samples: 0,
            exemplars: Vec::new(),
            what: What::Nothing,
        });
        self.point_of.insert(id, at);
        if let Some((_, family)) = self.families.get_mut(family) {
            family.points.push(at);
        }
        at
    }

    fn fill(
        &mut self,
        family: usize,
        point: usize,
        sample: &str,
        labels: &Labels<'_>,
        value: &Value,
        (time, timed): (u64, bool),
    ) -> Result<(), Lost> {
        let (Some((_, family)), Some(point)) = (self.families.get(family), self.points.get_mut(point)) else {
            return Err(Lost::Inconsistent);
        };
        let suffix = sample.strip_prefix(family.base.as_str()).unwrap_or_default();
        let can_begin = matches!(family.kind, Kind::Counter | Kind::Histogram | Kind::Summary);
        // Of `foo_total` in text 0.0.4 it is called `foo_created`.
        let begins = can_begin && sample.ends_with("_created") && sample != family.name;
        if let (Value::Number(number), true) = (value, begins) {
            point.samples += 1;
            point.start = nanos(*number).ok_or(Lost::Time)?;
            return Ok(());
        }
        // When it began says nothing of when it was looked at.
        if matches!(point.what, What::Nothing) {
            (point.time, point.timed) = (time, timed);
        }
        if point.time != time {
            let twice = matches!(point.what, What::Number(_) | What::Ended);
            return Err(if twice { Lost::Duplicate } else { Lost::Inconsistent });
        }
        let number = match value {
            Value::Native(native) => {
                if !matches!(point.what, What::Nothing) {
                    return Err(Lost::Duplicate);
                }
                point.what = What::Native(native.clone());
                point.samples += 1;
                return Ok(());
            }
            Value::Number(number) => *number,
        };
        let distribution = match (family.data, &mut point.what) {
            (data::GAUGE | data::SUM, What::Nothing) => {
                point.samples += 1;
                point.what = if number.to_bits() == STALE { What::Ended } else { What::Number(number) };
                return Ok(());
            }
            (data::HISTOGRAM | data::SUMMARY, what @ What::Nothing) => {
                *what = What::Distribution(Box::default());
                let What::Distribution(distribution) = what else { return Err(Lost::Inconsistent) };
                distribution
            }
            (_, What::Distribution(distribution)) => distribution,
            _ => return Err(Lost::Duplicate),
        };
        let slot = match suffix {
            "_count" => &mut distribution.count,
            "_sum" => &mut distribution.sum,
            _ => {
                let bound = labels.get(if family.data == data::SUMMARY { "quantile" } else { "le" });
                let bound: f64 = bound.parse().map_err(|_| Lost::Inconsistent)?;
                if bound.is_nan() {
                    return Err(Lost::Inconsistent);
                }
                distribution.parts.push((bound, number));
                point.samples += 1;
                return Ok(());
            }
        };
        if slot.is_some() {
            return Err(Lost::Duplicate);
        }
        *slot = Some(number);
        point.samples += 1;
        Ok(())
    }

    fn add_exemplars(&mut self, family: usize, point: usize, exemplars: &[Exemplar<'_>]) {
        let (Some((_, family)), Some(point)) = (self.families.get(family), self.points.get_mut(point)) else { return };
        let field = match family.data {
            data::HISTOGRAM => 8,
            data::EXPONENTIAL => 11,
            data::SUMMARY => return,
            _ => 5,
        };
        for exemplar in exemplars {
            wire::put_message(&mut point.exemplars, field, |out| put_exemplar(out, exemplar));
        }
    }

    /// Writes all that was not written before. Gives its points in the order in which they are written.
    pub(super) fn write(&mut self, sheet: &mut Sheet) -> Result<Vec<Told>, Fault> {
        let mut told = Vec::with_capacity(self.points.len());
        let mut order: Vec<usize> = (self.written..self.families.len()).collect();
        self.written = self.families.len();
        // What comes now is written next time, also where it is of a family that is written already.
        self.family_of.clear();
        self.point_of.clear();
        let place = |family: &usize| {
            let scope = self.families.get(*family).map_or(0, |(scope, _)| *scope);
            (self.scopes.get(scope).map_or(0, |scope| scope.resource), scope)
        };
        order.sort_by_key(place);
        let mut last = None;
        for at in order {
            let Some((scope_at, family)) = self.families.get(at) else { continue };
            let Some(scope) = self.scopes.get(*scope_at) else { continue };
            if last.is_none_or(|(resource, _)| resource != scope.resource)
                && let Some(resource) = self.resources.get(scope.resource)
            {
                sheet.resource(resource_fields(resource, self.scheme));
                last = None;
            }
            if last.is_none_or(|(_, known)| known != *scope_at) {
                sheet.scope(scope_fields(scope, &self.scope_infos));
            }
            last = Some((scope.resource, *scope_at));
            sheet.metric(self.head(family));
            for point in &family.points {
                if sheet.bytes() > OUT_BYTES_MAX {
                    return Err(Fault::Limit("the page becomes more than 256 MiB of OTLP".to_owned()));
                }
                let Some(point) = self.points.get_mut(*point) else { continue };
                let attributes = self.attributes.get(point.attributes.clone()).unwrap_or_default();
                match write_point(family.data, point, attributes, sheet) {
                    Ok(()) => {
                        // Who says the time itself says when it has ended, unless it is asked to be followed all the same.
                        let followed = !point.timed || self.job.track_timestamps_staleness;
                        told.push(Told { id: if followed { point.id } else { 0 }, samples: point.samples });
                    }
                    Err(why) => {
                        if let Some(at) = Lost::ALL.iter().position(|(known, _)| *known == why) {
                            self.lost[at] += u64::from(point.samples);
                        }
                    }
                }
            }
        }
        Ok(told)
    }

    fn head(&self, family: &Family) -> MetricHead {
        let mut fields = Vec::new();
        let unit = self.described.get(family.meta).map_or("", |meta| &meta.unit);
        let name = if self.job.trim_metric_suffixes { trimmed(family, unit) } else { &family.name };
        wire::put_bytes(&mut fields, 1, name.as_bytes());
        let meta = self.described.get(family.meta);
        wire::put_bytes(&mut fields, 2, meta.map_or(&b""[..], |meta| meta.help.as_bytes()));
        wire::put_bytes(&mut fields, 3, unit_code(meta.map_or("", |meta| &meta.unit)).as_bytes());
        put_attribute(&mut fields, 12, "prometheus.type", family.kind.as_str());
        let mut data_fields = Vec::new();
        if !matches!(family.data, data::GAUGE | data::SUMMARY) {
            wire::put_uint(&mut data_fields, 2, CUMULATIVE);
        }
        if family.data == data::SUM {
            wire::put_uint(&mut data_fields, 3, u64::from(family.kind == Kind::Counter));
        }
        MetricHead { fields, data: family.data, data_fields }
    }
}

impl Taker for Page<'_> {
    fn about(&mut self, family: &str, about: About<'_>) {
        let place = if let Some(place) = self.metas.get(family) {
            *place
        } else {
            self.described.push(Meta::default());
            self.metas.insert(family.to_owned(), self.described.len() - 1);
            self.described.len() - 1
        };
        let Some(meta) = self.described.get_mut(place) else { return };
        match about {
            About::Kind(kind) => meta.kind = kind,
            About::Help(help) => help.clone_into(&mut meta.help),
            About::Unit(unit) => unit.clone_into(&mut meta.unit),
        }
    }

    fn sample(&mut self, sample: Sample<'_>) -> Result<(), Fault> {
        let Sample { mut labels, value, time, start, exemplars } = sample;
        self.scraped += 1;
        self.own(&mut labels);
        self.label_bytes = self.label_bytes.saturating_add(labels.bytes());
        if self.label_bytes > LABEL_BYTES_MAX {
            return Err(Fault::Limit("the labels of its samples are more than 1 GiB together".to_owned()));
        }
        if !self.job.metric_relabel.is_empty() && !relabel::apply(&self.job.metric_relabel, &mut labels) {
            return Ok(());
        }
        let twice = |name: String| Fault::Malformed(format!("the label `{name}` is there twice"));
        labels.finish().map_err(twice)?;
        if labels.is_empty() {
            return Ok(());
        }
        if labels.get(NAME).is_empty() {
            return Err(Fault::Malformed("relabelling leaves a sample without a name".to_owned()));
        }
        self.kept += 1;
        self.check(&labels)?;
        if !self.job.external_labels.is_empty() {
            self.add_external(&mut labels);
            labels.finish().map_err(twice)?;
        }
        self.place(&labels, &value, time, start, &exemplars);
        Ok(())
    }
}

fn scope_of(labels: &Labels<'_>) -> Scope {
    let mut scope = Scope::default();
    for (name, value) in labels.iter() {
        let Some(rest) = name.strip_prefix(SCOPE_LABELS) else { continue };
        match rest {
            "name" => value.clone_into(&mut scope.name),
            "version" => value.clone_into(&mut scope.version),
            "schema_url" => value.clone_into(&mut scope.schema_url),
            _ => scope.attributes.push((rest.to_owned(), value.to_owned())),
        }
    }
    scope
}

fn scope_fields(scope: &Scope, infos: &HashMap<Scope, Vec<(String, String)>>) -> Vec<u8> {
    let mut fields = Vec::new();
    let nameless =
        scope.name.is_empty() && scope.version.is_empty() && scope.schema_url.is_empty() && scope.attributes.is_empty();
    let (name, version) =
        if nameless { (SCOPE, env!("CARGO_PKG_VERSION")) } else { (scope.name.as_str(), scope.version.as_str()) };
    let attributes = if scope.attributes.is_empty() { infos.get(scope).unwrap_or(&scope.attributes) } else { &scope.attributes };
    wire::put_message(&mut fields, 1, |out| {
        wire::put_bytes(out, 1, name.as_bytes());
        wire::put_bytes(out, 2, version.as_bytes());
        for (key, value) in attributes {
            put_attribute(out, 3, key, value);
        }
    });
    wire::put_bytes(&mut fields, 3, scope.schema_url.as_bytes());
    fields
}

fn resource_fields(resource: &Resource, scheme: &str) -> Vec<u8> {
    let mut attributes: SmallVec<[(&str, &str); 16]> = SmallVec::new();
    attributes.push(("service.name", &resource.job));
    let (host, port) = split_host(&resource.instance);
    if is_somewhere(host) {
        attributes.push(("server.address", host));
    }
    attributes.push(("service.instance.id", &resource.instance));
    attributes.push(("server.port", port));
    attributes.push(("url.scheme", scheme));
    let told = &resource.info;
    attributes.retain(|(name, _)| !told.iter().any(|(known, _)| known == *name));
    attributes.extend(told.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut fields = Vec::new();
    wire::put_message(&mut fields, 1, |out| {
        for (name, value) in attributes {
            put_attribute(out, 1, name, value);
        }
    });
    fields
}

fn split_host(instance: &str) -> (&str, &str) {
    let split =
        instance.rsplit_once(':').filter(|(host, _)| !host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    let (host, port) = split.unwrap_or((instance, ""));
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

/// Whether a host's name tells one machine from another.
fn is_somewhere(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => !address.is_loopback() && !address.is_unspecified(),
        Err(_) => !host.is_empty() && host != "localhost",
    }
}

/// A name without what its unit and type put behind it.
fn trimmed<'f>(family: &'f Family, unit: &str) -> &'f str {
    let (name, mut rest) = (family.name.as_str(), family.name.as_str());
    if family.data == data::SUM {
        rest = rest.strip_suffix("_total").unwrap_or(rest);
    }
    if !unit.is_empty() {
        rest = rest.strip_suffix(unit).and_then(|rest| rest.strip_suffix('_')).unwrap_or(rest);
    }
    if rest.is_empty() { name } else { rest }
}

fn nanos(seconds: f64) -> Option<u64> {
    let millis = (seconds * 1000.0).round();
    ((0.0..1.8e13).contains(&millis)).then(|| (millis as u64).saturating_mul(1_000_000))
}
