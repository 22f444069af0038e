//! Rows → a Prometheus page, one page of rows copied at a time.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    State,
    aggregate::Counts,
    labels::{self, Shown},
    settings::Unit,
};
use crate::{
    exposition::{Bucket, Exemplar, Family, FamilyKind, LabelBlock, NativeHistogram, Page, PageSource, Span},
    registry::{Chosen, ExponentialHistogram, RowCopy},
};

/// Upper bounds of `traces_spanmetrics_latency`, in seconds: 2 ms · 2^k.
pub(super) const TEMPO_BOUNDS: [f64; 14] =
    [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// What a family shows of a row.
#[derive(Debug, Clone, PartialEq)]
enum Shows {
    Calls,
    /// The bounds as shown, and the place of each among the bounds of the rows.
    Duration {
        bounds: Vec<(f64, usize)>,
        scale: f64,
        native: bool,
    },
    Size,
    Target,
}

#[derive(Debug, Clone)]
struct Series {
    family: Family,
    /// Which stream's rows.
    stream: usize,
    tempo: bool,
    shows: Shows,
}

/// The page of one connector.
pub(super) struct Rows {
    state: Arc<Mutex<State>>,
    series: Vec<Series>,
    first_sample_zero: bool,
}

/// What decides which families there are.
pub(super) struct Shape<'a> {
    pub(super) namespace: &'a str,
    pub(super) unit: Unit,
    pub(super) collector: bool,
    pub(super) tempo: bool,
    pub(super) target: bool,
    pub(super) with_size: bool,
    /// Bounds of the Collector's histogram; of the rows, all families' together.
    pub(super) bounds: &'a [f64],
    pub(super) union: &'a [f64],
    /// Only native histograms.
    pub(super) exponential: bool,
    pub(super) native: bool,
    pub(super) first_sample_zero: bool,
    pub(super) streams: &'a [Counts],
}

impl Rows {
    pub(super) fn new(state: Arc<Mutex<State>>, shape: &Shape<'_>) -> Self {
        let stream_of = |wanted: Counts| {
            shape.streams.iter().position(|counts| *counts == wanted || (*counts == Counts::Both && wanted != Counts::Events))
        };
        let mut series = Vec::new();
        let mut add = |name: String, kind, help: &'static str, unit: &'static str, stream, tempo, shows| {
            let family = Family { name: name.into(), kind, help: help.into(), unit: unit.into() };
            series.push(Series { family, stream, tempo, shows });
        };
        let (calls, durations, events) = (stream_of(Counts::Calls), stream_of(Counts::Duration), stream_of(Counts::Events));
        let places = |bounds: &[f64], scale: f64| -> Vec<(f64, usize)> {
            let place = |bound: f64| shape.union.partition_point(|known| *known < bound * scale);
            bounds.iter().map(|bound| (*bound, place(*bound))).collect()
        };
        if shape.target {
            let help = "Target metadata";
            add("target_info".to_owned(), FamilyKind::Info, help, "", 0, false, Shows::Target);
        }
        if shape.collector {
            if let Some(stream) = calls {
                let name = metric_name(shape.namespace, "calls", "total");
                add(name, FamilyKind::Counter, "Spans counted.", "", stream, false, Shows::Calls);
            }
            if let Some(stream) = durations {
                let name = metric_name(shape.namespace, "duration", shape.unit.word());
                let bounds = if shape.exponential { Vec::new() } else { places(shape.bounds, 1.0) };
                let shows = Shows::Duration { bounds, scale: 1.0, native: shape.exponential || shape.native };
                add(name, FamilyKind::Histogram, "Duration of spans.", shape.unit.word(), stream, false, shows);
            }
            if let Some(stream) = events {
                let name = metric_name(shape.namespace, "events", "total");
                add(name, FamilyKind::Counter, "Span events counted.", "", stream, false, Shows::Calls);
            }
        }
        if shape.tempo {
            if let Some(stream) = calls {
                let name = "traces_spanmetrics_calls_total".to_owned();
                add(name, FamilyKind::Counter, "Spans counted.", "", stream, true, Shows::Calls);
            }
            if let Some(stream) = durations {
                let name = "traces_spanmetrics_latency".to_owned();
                let scale = 1e9 / shape.unit.nanos();
                let shows = Shows::Duration { bounds: places(&TEMPO_BOUNDS, scale), scale, native: false };
                add(name, FamilyKind::Histogram, "Duration of spans, in seconds.", "", stream, true, shows);
            }
            if let Some(stream) = calls.filter(|_| shape.with_size) {
                let name = "traces_spanmetrics_size_total".to_owned();
                add(name, FamilyKind::Counter, "Size of the spans counted, in bytes.", "", stream, true, Shows::Size);
            }
        }
        Self { state, series, first_sample_zero: shape.first_sample_zero }
    }

    fn targets(&self, page: &mut Page<'_>) {
        let mut seen = HashSet::new();
        let blocks: Vec<LabelBlock> = {
            let state = self.state.lock();
            let new = |owner: &super::owners::Owner| seen.insert((owner.job.clone(), owner.instance.clone()));
            let shown = state.owners.iter().filter(|(_, owner)| owner.rows.iter().any(|rows| *rows > 0));
            let targets: Vec<_> = shown.map(|(_, owner)| owner).filter(|owner| owner.instance.is_some()).collect();
            let mut new = new;
            targets.into_iter().filter(|owner| new(owner)).filter_map(labels::target_info).collect()
        };
        for block in &blocks {
            page.number(block, 1.0, 0, None, None);
        }
    }
}

/// `traces.span.metrics` + `calls` → `traces_span_metrics_calls_total`; the suffix stands once.
pub(super) fn metric_name(namespace: &str, name: &str, suffix: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut words: Vec<&str> = namespace.split(|c| !legal(c)).chain([name]).filter(|word| !word.is_empty()).collect();
    if suffix == "total" {
        words.retain(|word| *word != "total");
        words.push("total");
    } else if !words.contains(&suffix) {
        words.push(suffix);
    }
    let name = words.join("_");
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

impl PageSource for Rows {
    fn unready(&self) -> Option<&'static str> {
        self.state.lock().replaying.then_some("the span metrics of before the start are still being counted")
    }

    fn families(&self) -> Vec<Family> {
        for stream in &mut self.state.lock().streams {
            stream.store.begin_scrape();
        }
        self.series.iter().map(|series| series.family.clone()).collect()
    }

    fn render(&self, number: usize, page: &mut Page<'_>) {
        let Some(series) = self.series.get(number) else { return };
        if series.shows == Shows::Target {
            return self.targets(page);
        }
        let mut writer = Writer::new(series, self.first_sample_zero);
        let shared = self.state.lock().owners_that_look_alike();
        let mut merged: BTreeMap<u64, (RowCopy<Shown>, Vec<f64>)> = BTreeMap::new();
        let (mut rows, mut buckets): (Vec<RowCopy<Shown>>, Vec<f64>) = (Vec::new(), Vec::new());
        for number in 0.. {
            {
                let mut state = self.state.lock();
                let State { streams, owners, labelling, .. } = &mut *state;
                let Some(stream) = streams.get_mut(series.stream) else { return };
                if number >= stream.store.pages() {
                    break;
                }
                stream.store.copy_page(number, &mut rows, &mut buckets, |key, extra| {
                    owners.get(key.head.owner).map(|owner| labelling.shown(owner, key, extra))
                });
                writer.stride = stream.store.shape().bounds.len() + 1;
            }
            if page.is_gone() {
                return;
            }
            for (row, counts) in rows.iter().zip(buckets.chunks_exact(writer.stride)) {
                if shared.contains(&row.owner) {
                    let Some(block) = writer.block(row) else { continue };
                    merge(&mut merged, block.identity(), row, counts);
                } else {
                    writer.write(row, counts, page);
                }
            }
        }
        for (row, counts) in merged.values() {
            writer.write(row, counts, page);
        }
    }
}

/// Adds a row to those with the same labels.
fn merge(merged: &mut BTreeMap<u64, (RowCopy<Shown>, Vec<f64>)>, identity: u64, row: &RowCopy<Shown>, counts: &[f64]) {
    let (sum, sums) = match merged.entry(identity) {
        Entry::Vacant(place) => {
            place.insert((row.clone(), counts.to_vec()));
            return;
        }
        Entry::Occupied(place) => place.into_mut(),
    };
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
    sum.sum += row.sum;
    sum.size += row.size;
    sum.start_unix_nanos = sum.start_unix_nanos.min(row.start_unix_nanos);
    sum.first_shown &= row.first_shown;
    sum.exemplars.extend_from_slice(&row.exemplars);
    if let (Some(all), Some(one)) = (&mut sum.exponential, &row.exponential) {
        all.add(one);
    }
}

/// Writes the rows of one family; keeps what it needs for a row, so that a row allocates nothing.
struct Writer<'a> {
    series: &'a Series,
    first_sample_zero: bool,
    stride: usize,
    exemplars: Vec<(usize, Exemplar)>,
}

impl<'a> Writer<'a> {
    fn new(series: &'a Series, first_sample_zero: bool) -> Self {
        Self { series, first_sample_zero, stride: 1, exemplars: Vec::new() }
    }

    fn block<'r>(&self, row: &'r RowCopy<Shown>) -> Option<&'r LabelBlock> {
        if self.series.tempo { row.labels.tempo.as_ref() } else { row.labels.collector.as_ref() }
    }

    fn write(&mut self, row: &RowCopy<Shown>, counts: &[f64], page: &mut Page<'_>) {
        let Some(block) = self.block(row) else { return };
        let hidden = self.first_sample_zero && row.first_shown;
        let shown = |value: f64| if hidden { 0.0 } else { value };
        let start = row.start_unix_nanos;
        match &self.series.shows {
            Shows::Calls => {
                let exemplar = best(row.exemplars.iter(), 1.0).filter(|_| !hidden);
                page.number(block, shown(counts.iter().sum()), start, exemplar.as_ref(), None);
            }
            Shows::Size => page.number(block, shown(row.size), start, None, None),
            Shows::Target => {}
            Shows::Duration { bounds, scale, native } => {
                let count: f64 = counts.iter().sum();
                if hidden {
                    let zeros: Vec<Bucket<'_>> = bounds.iter().map(|(bound, _)| empty(*bound)).collect();
                    page.histogram(block, Some(0.0), 0.0, start, &zeros, None, None);
                    return;
                }
                self.exemplars.clear();
                let mut buckets: Vec<Bucket<'_>> = Vec::with_capacity(bounds.len() + 1);
                // The exemplars first, because the buckets borrow them.
                let mut below = 0;
                for (number, place) in bounds.iter().map(|(_, place)| place + 1).chain([counts.len()]).enumerate() {
                    let within = below..place;
                    below = place;
                    let here = row.exemplars.iter().filter(|chosen| within.contains(&(chosen.bucket as usize)));
                    if let Some(exemplar) = best(here, *scale) {
                        self.exemplars.push((number, exemplar));
                    }
                }
                let mut exemplars = self.exemplars.iter().peekable();
                let mut exemplar_of = |number: usize| exemplars.next_if(|(at, _)| *at == number).map(|(_, exemplar)| exemplar);
                let (mut cumulative, mut next) = (0.0, 0);
                for (number, (bound, place)) in bounds.iter().enumerate() {
                    cumulative += counts.get(next..=*place).unwrap_or_default().iter().sum::<f64>();
                    next = place + 1;
                    buckets.push(Bucket { upper_bound: *bound, cumulative, exemplar: exemplar_of(number) });
                }
                if let Some(exemplar) = exemplar_of(bounds.len())
                    && !bounds.is_empty()
                {
                    buckets.push(Bucket { upper_bound: f64::INFINITY, cumulative: count, exemplar: Some(exemplar) });
                }
                let native = row.exponential.as_deref().filter(|_| *native).map(|histogram| self.native(histogram));
                page.histogram(block, Some(row.sum / scale), count, start, &buckets, native.as_ref(), None);
            }
        }
    }

    fn native(&self, histogram: &ExponentialHistogram) -> NativeHistogram {
        let (schema, offset, counts) = histogram.at_most(8);
        // A bucket is numbered by its upper bound there and by its lower one here.
        let positive_spans = match u32::try_from(counts.len()) {
            Ok(length) if length > 0 => vec![Span { offset: offset + 1, length }],
            _ => Vec::new(),
        };
        NativeHistogram {
            schema,
            zero_threshold: 1e-128,
            zero_count: histogram.zero_count(),
            positive_spans,
            positive_counts: counts,
            exemplars: self.exemplars.iter().map(|(_, exemplar)| exemplar.clone()).collect(),
            ..NativeHistogram::default()
        }
    }
}

fn empty(upper_bound: f64) -> Bucket<'static> {
    Bucket { upper_bound, cumulative: 0.0, exemplar: None }
}

/// Errors before slow spans.
fn best<'a>(among: impl Iterator<Item = &'a Chosen>, scale: f64) -> Option<Exemplar> {
    let chosen = among.max_by(|a, b| a.error.cmp(&b.error).then(a.value.total_cmp(&b.value)))?;
    Some(Exemplar {
        trace_id: chosen.trace_id,
        span_id: chosen.span_id,
        value: chosen.value / scale,
        unix_nanos: chosen.unix_nanos,
        labels: Vec::new(),
    })
}

/// The union of two lists of bounds.
pub(super) fn union_of(bounds: &[f64], more: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut union: Vec<f64> = bounds.iter().copied().chain(more).collect();
    union.sort_by(f64::total_cmp);
    union.dedup();
    union
}

/// The bounds of the other family in `unit`.
pub(super) fn tempo_bounds(unit: Unit) -> impl Iterator<Item = f64> {
    let scale = 1e9 / unit.nanos();
    TEMPO_BOUNDS.into_iter().map(move |bound| bound * scale)
}
