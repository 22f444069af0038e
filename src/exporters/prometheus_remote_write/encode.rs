//! Points → the body of a request, in either version of the protocol.
//!
//! Spec: Prometheus Remote-Write 1.0 (`prometheus.WriteRequest`) and 2.0 (`io.prometheus.write.v2.Request`).

use std::collections::{HashMap, HashSet};

use super::series::{Family, Native, Point, Sample, Value};
use crate::{
    exposition::{Exemplar, FamilyKind, Span, for_each_label},
    otlp::wire::{put_bytes, put_bytes_always, put_double_always, put_message, put_tag, put_uint, put_uint_always, put_varint},
};

/// Which messages are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// How much of what kind a body holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) samples: u64,
    pub(super) histograms: u64,
}

/// Writes points, which lie together by series and in the order of their times. `metadata`: version 1 says of each family what it is;
/// version 2 does always.
pub(super) fn encode(version: Version, points: &[Point], metadata: bool) -> (Vec<u8>, Amount) {
    let mut out = Vec::with_capacity(points.iter().map(|point| point.bytes).sum::<usize>() / 2);
    let mut amount = Amount::default();
    match version {
        Version::One => {
            each_series(points, |series| put_message(&mut out, 1, |out| one(out, series, &mut amount)));
            if metadata {
                let mut said = HashSet::new();
                for family in points.iter().map(|point| &*point.family).filter(|family| said.insert(family.name.as_str())) {
                    put_message(&mut out, 3, |out| {
                        put_uint(out, 1, kind(family));
                        put_bytes(out, 2, family.name.as_bytes());
                        put_bytes(out, 4, family.help.as_bytes());
                        put_bytes(out, 5, family.unit.as_bytes());
                    });
                }
            }
        }
        Version::Two => {
            // Symbols may stand behind the series that refer to them.
            let mut symbols = Symbols::default();
            symbols.number("");
            each_series(points, |series| put_message(&mut out, 5, |out| two(out, series, &mut symbols, &mut amount)));
            for symbol in &symbols.texts {
                put_bytes_always(&mut out, 4, symbol.as_bytes());
            }
        }
    }
    (out, amount)
}

/// The samples of one series in the order of their times.
struct Series<'a> {
    point: &'a Point,
    sample: &'a Sample,
    all: Vec<(&'a Point, &'a Sample)>,
}

fn each_series<'a>(points: &'a [Point], mut put: impl FnMut(&Series<'a>)) {
    let same = |a: &Point, b: &Point| a.key == b.key && a.family.name == b.family.name && a.labels == b.labels;
    for row in points.chunk_by(same) {
        let mut found: Vec<Series<'a>> = Vec::new();
        // A point may have as many series as it has buckets.
        let mut places: HashMap<_, usize, foldhash::fast::RandomState> = HashMap::default();
        for point in row {
            for (at, sample) in point.samples.iter().enumerate() {
                // Points of one row mostly have the same samples in the same places.
                let of = sample.series();
                let here = found.get(at).is_some_and(|series| series.sample.series() == of);
                let known = if here { at } else { *places.entry(of).or_insert(found.len()) };
                match found.get_mut(known) {
                    Some(series) => series.all.push((point, sample)),
                    None => found.push(Series { point, sample, all: vec![(point, sample)] }),
                }
            }
        }
        found.iter().for_each(&mut put);
    }
}

impl Series<'_> {
    /// Names and values, sorted by name as the specification wants it.
    fn each_label(&self, mut put: impl FnMut(&str, &str)) {
        let name = format!("{}{}", self.point.family.name, self.sample.suffix);
        let own = [Some(("__name__", name.as_str())), self.sample.label.as_ref().map(|(name, text)| (*name, &**text))];
        let mut own = own.into_iter().flatten().peekable();
        for (label, value) in self.point.labels.iter() {
            while let Some((name, text)) = own.next_if(|(name, _)| *name < &**label) {
                put(name, text);
            }
            put(label, value);
        }
        own.for_each(|(name, text)| put(name, text));
    }
}

const fn kind(family: &Family) -> u64 {
    match family.kind {
        FamilyKind::Unknown => 0,
        FamilyKind::Counter => 1,
        FamilyKind::Gauge => 2,
        FamilyKind::Histogram => 3,
        FamilyKind::Summary => 5,
        FamilyKind::Info => 6,
    }
}

fn one(out: &mut Vec<u8>, series: &Series<'_>, amount: &mut Amount) {
    series.each_label(|name, value| put_label(out, name, value));
    for (point, sample) in &series.all {
        if let Value::Float(value) = sample.value {
            put_message(out, 2, |out| put_sample(out, value, point.time, 0));
            amount.samples += 1;
        }
    }
    for (_, sample) in &series.all {
        for exemplar in &sample.exemplars {
            put_message(out, 3, |out| {
                for_each_label(exemplar, |name, value| put_label(out, name, value));
                put_exemplar_value(out, exemplar);
            });
        }
    }
    put_histograms(out, 4, series, amount, |_| 0);
}

fn two(out: &mut Vec<u8>, series: &Series<'_>, symbols: &mut Symbols, amount: &mut Amount) {
    let mut numbers = Vec::new();
    series.each_label(|name, value| numbers.extend([symbols.number(name), symbols.number(value)]));
    put_numbers(out, 1, &numbers);
    for (point, sample) in &series.all {
        if let Value::Float(value) = sample.value {
            put_message(out, 2, |out| put_sample(out, value, point.time, point.start));
            amount.samples += 1;
        }
    }
    put_histograms(out, 3, series, amount, |point| point.start);
    for (_, sample) in &series.all {
        for exemplar in &sample.exemplars {
            put_message(out, 4, |out| {
                let mut numbers = Vec::new();
                for_each_label(exemplar, |name, value| numbers.extend([symbols.number(name), symbols.number(value)]));
                put_numbers(out, 1, &numbers);
                put_exemplar_value(out, exemplar);
            });
        }
    }
    let family = &series.point.family;
    put_message(out, 5, |out| {
        put_uint(out, 1, kind(family));
        put_uint(out, 3, u64::from(symbols.number(&family.help)));
        put_uint(out, 4, u64::from(symbols.number(&family.unit)));
    });
    // For who reads 2.0 as it was before its fourth release candidate: since when the last of them counts; none of the others is newer.
    let start = series.all.last().map_or(0, |(point, _)| point.start);
    put_uint(out, 6, start as u64);
}

fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    put_message(out, 1, |out| {
        put_bytes_always(out, 1, name.as_bytes());
        put_bytes_always(out, 2, value.as_bytes());
    });
}

/// `start` is version 2's; 0: none.
fn put_sample(out: &mut Vec<u8>, value: f64, time: i64, start: i64) {
    put_double_always(out, 1, value);
    put_uint(out, 2, time as u64);
    put_uint(out, 3, start as u64);
}

fn put_exemplar_value(out: &mut Vec<u8>, exemplar: &Exemplar) {
    put_double_always(out, 2, exemplar.value);
    put_uint(out, 3, exemplar.unix_nanos / 1_000_000);
}

fn put_histograms(out: &mut Vec<u8>, field: u32, series: &Series<'_>, amount: &mut Amount, start: fn(&Point) -> i64) {
    for (point, sample) in &series.all {
        if let Value::Native(native) = &sample.value {
            put_message(out, field, |out| put_histogram(out, native, point.time, start(point)));
            amount.histograms += 1;
        }
    }
}

/// Both versions have the same message, but for `start` (version 2's; 0: none). Counts are whole: OpenTelemetry has no others.
fn put_histogram(out: &mut Vec<u8>, native: &Native, time: i64, start: i64) {
    let Native { count, sum, buckets } = native;
    put_uint_always(out, 1, *count);
    put_double_always(out, 3, *sum);
    put_uint(out, 4, zigzag(i64::from(buckets.schema)));
    put_double_always(out, 5, buckets.zero_threshold);
    put_uint_always(out, 6, buckets.zero_count as u64);
    put_side(out, 8, &buckets.negative_spans, &buckets.negative_counts);
    put_side(out, 11, &buckets.positive_spans, &buckets.positive_counts);
    put_uint(out, 15, time as u64);
    put_uint(out, 17, start as u64);
}

/// Spans, and in the field behind them what each bucket has more than the one before it.
fn put_side(out: &mut Vec<u8>, field: u32, spans: &[Span], counts: &[f64]) {
    for span in spans {
        put_message(out, field, |out| {
            put_uint(out, 1, zigzag(i64::from(span.offset)));
            put_uint(out, 2, u64::from(span.length));
        });
    }
    if counts.is_empty() {
        return;
    }
    put_message(out, field + 1, |out| {
        let mut before = 0;
        for count in counts {
            let count = *count as i64;
            put_varint(out, zigzag(count - before));
            before = count;
        }
    });
}

fn put_numbers(out: &mut Vec<u8>, field: u32, numbers: &[u32]) {
    if numbers.is_empty() {
        return;
    }
    put_tag(out, field, 2);
    let mut packed = Vec::with_capacity(numbers.len() * 2);
    for number in numbers {
        put_varint(&mut packed, u64::from(*number));
    }
    put_varint(out, packed.len() as u64);
    out.extend_from_slice(&packed);
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Texts of a request, each once.
#[derive(Default)]
struct Symbols {
    texts: Vec<String>,
    numbers: HashMap<String, u32, foldhash::fast::RandomState>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}
