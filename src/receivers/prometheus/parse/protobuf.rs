//! Protobuf, delimited: the only format with native histograms in it.
//!
//! Spec: `io.prometheus.client.MetricFamily`, each message after its length as a varint. Classic histograms and summaries become the lines
//! that they are in text, so that rules about `…_bucket` and `le` hold for them as well.

use smallvec::SmallVec;

use super::{About, Exemplar, Fault, Kind, LABELS_MAX, Native, Placed, Runs, Sample, Taker, Value};
use crate::{
    exposition::bound_text,
    otlp::fields::{Field, Fields, Value as Wire, varint},
    receivers::prometheus::labels::{Labels, NAME},
};

/// Buckets of one side of one histogram.
const BUCKETS_MAX: usize = 1 << 16;

/// Which forms of a histogram are wanted.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Wanted {
    pub(in super::super) native: bool,
    /// The classic form beside the native one.
    pub(in super::super) classic_beside: bool,
}

/// Reads a page. Faults are placed by the number of the family, from 1.
pub(in super::super) fn read(page: &[u8], wanted: Wanted, taker: &mut impl Taker) -> Result<(), Placed> {
    let (mut at, mut number) = (0, 0);
    while at < page.len() {
        number += 1;
        let message = (|| {
            let (length, start) = varint(page, at)?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            Some((page.get(start..end)?, end))
        })();
        let (message, end) = message.ok_or((number, wrong("the page ends within it")))?;
        at = end;
        family(message, wanted, taker).map_err(|fault| (number, fault))?;
    }
    Ok(())
}

fn wrong(problem: &str) -> Fault {
    Fault::Malformed(problem.to_owned())
}

/// Hands over all fields of a message; one that cannot be read is a fault.
fn each<'a>(message: &'a [u8], mut take: impl FnMut(Field<'a>) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut fields = Fields::new(message);
    for field in fields.by_ref() {
        take(field)?;
    }
    if fields.offset() == message.len() { Ok(()) } else { Err(wrong("it is not protobuf")) }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| wrong("a text in it is not UTF-8"))
}

fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn family(message: &[u8], wanted: Wanted, taker: &mut impl Taker) -> Result<(), Fault> {
    let (mut name, mut help, mut unit, mut kind) = ("", "", "", 0);
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Bytes(bytes)) => name = text(bytes)?,
            (2, Wire::Bytes(bytes)) => help = text(bytes)?,
            (3, Wire::Varint(value)) => kind = value,
            (5, Wire::Bytes(bytes)) => unit = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    if name.is_empty() {
        return Err(wrong("it has no name"));
    }
    let kind = match kind {
        0 => Kind::Counter,
        1 => Kind::Gauge,
        2 => Kind::Summary,
        3 => Kind::Unknown,
        4 => Kind::Histogram,
        5 => Kind::GaugeHistogram,
        _ => return Err(wrong("it has an unknown type")),
    };
    taker.about(name, About::Kind(kind));
    taker.about(name, About::Help(help));
    if !unit.is_empty() {
        taker.about(name, About::Unit(unit));
    }
    each(message, |field| match (field.number, field.value) {
        (4, Wire::Bytes(bytes)) => metric(bytes, name, wanted, taker),
        _ => Ok(()),
    })
}

/// Labels and time of one metric, for the samples that it becomes.
struct Head<'a> {
    name: &'a str,
    labels: Labels<'a>,
    time: Option<i64>,
    start: u64,
}

impl<'a> Head<'a> {
    fn sample(
        &self,
        suffix: &str,
        more: Option<(&'static str, String)>,
        value: f64,
        exemplar: Option<Exemplar<'a>>,
    ) -> Sample<'a> {
        let mut labels = self.labels.clone();
        if suffix.is_empty() {
            labels.push(NAME, self.name);
        } else {
            labels.push(NAME, format!("{}{suffix}", self.name));
        }
        if let Some((name, value)) = more {
            labels.push(name, value);
        }
        Sample {
            labels,
            value: Value::Number(value),
            time: self.time,
            start: self.start,
            exemplars: exemplar.into_iter().collect(),
        }
    }
}

fn metric(message: &[u8], name: &str, wanted: Wanted, taker: &mut impl Taker) -> Result<(), Fault> {
    let mut head = Head { name, labels: Labels::default(), time: None, start: 0 };
    let mut data = None;
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Bytes(bytes)) => {
                let (name, value) = label(bytes)?;
                head.labels.push(name, value);
                if head.labels.len() > LABELS_MAX {
                    return Err(wrong("a metric has more than 1024 labels"));
                }
            }
            (6, Wire::Varint(time)) => head.time = Some(time.cast_signed()),
            (number @ (2..=5 | 7), Wire::Bytes(bytes)) => data = Some((number, bytes)),
            _ => {}
        }
        Ok(())
    })?;
    match data {
        Some((3, bytes)) => counter(bytes, head, taker),
        Some((4, bytes)) => summary(bytes, head, taker),
        Some((7, bytes)) => histogram(bytes, head, wanted, taker),
        // A gauge, or one of no type; an empty message is 0.
        Some((_, bytes)) => {
            let mut value = 0.0;
            each(bytes, |field| {
                if let (1, Wire::Fixed64(bits)) = (field.number, field.value) {
                    value = double(bits);
                }
                Ok(())
            })?;
            taker.sample(head.sample("", None, value, None))
        }
        None => Err(wrong("a metric has no value")),
    }
}

fn label(message: &[u8]) -> Result<(&str, &str), Fault> {
    let (mut name, mut value) = ("", "");
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Bytes(bytes)) => name = text(bytes)?,
            (2, Wire::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    if name.is_empty() { Err(wrong("a label has no name")) } else { Ok((name, value)) }
}

/// Nanoseconds since 1970; what is before that, or too far, is not said.
fn timestamp(message: &[u8]) -> Result<u64, Fault> {
    let (mut seconds, mut nanos) = (0_u64, 0_u64);
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Varint(value)) => seconds = value,
            (2, Wire::Varint(value)) => nanos = value,
            _ => {}
        }
        Ok(())
    })?;
    Ok(seconds.checked_mul(1_000_000_000).and_then(|time| time.checked_add(nanos)).filter(|time| *time < 1 << 63).unwrap_or(0))
}

fn exemplar(message: &[u8]) -> Result<Exemplar<'_>, Fault> {
    let mut exemplar = Exemplar { labels: Labels::default(), value: 0.0, time: 0 };
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Bytes(bytes)) if exemplar.labels.len() < LABELS_MAX => {
                let (name, value) = label(bytes)?;
                exemplar.labels.push(name, value);
            }
            (2, Wire::Fixed64(bits)) => exemplar.value = double(bits),
            (3, Wire::Bytes(bytes)) => exemplar.time = timestamp(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(exemplar)
}

fn counter<'a>(message: &'a [u8], mut head: Head<'a>, taker: &mut impl Taker) -> Result<(), Fault> {
    let (mut value, mut example) = (0.0, None);
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Fixed64(bits)) => value = double(bits),
            (2, Wire::Bytes(bytes)) => example = Some(bytes),
            (3, Wire::Bytes(bytes)) => head.start = timestamp(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    let Head { name, labels, time, start } = head;
    let exemplars = example.map(exemplar).transpose()?.into_iter().collect();
    let mut labels = labels;
    labels.push(NAME, name);
    taker.sample(Sample { labels, value: Value::Number(value), time, start, exemplars })
}

fn summary(message: &[u8], mut head: Head<'_>, taker: &mut impl Taker) -> Result<(), Fault> {
    let (mut count, mut sum) = (0, 0.0);
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Varint(value)) => count = value,
            (2, Wire::Fixed64(bits)) => sum = double(bits),
            (4, Wire::Bytes(bytes)) => head.start = timestamp(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    taker.sample(head.sample("_count", None, count as f64, None))?;
    taker.sample(head.sample("_sum", None, sum, None))?;
    each(message, |field| {
        let (3, Wire::Bytes(bytes)) = (field.number, field.value) else { return Ok(()) };
        let (mut quantile, mut value) = (0.0, 0.0);
        each(bytes, |field| {
            match (field.number, field.value) {
                (1, Wire::Fixed64(bits)) => quantile = double(bits),
                (2, Wire::Fixed64(bits)) => value = double(bits),
                _ => {}
            }
            Ok(())
        })?;
        taker.sample(head.sample("", Some(("quantile", bound_text(quantile))), value, None))
    })
}

/// One side of a native histogram as it is written.
#[derive(Default)]
struct Side {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl Side {
    fn span(&mut self, message: &[u8]) -> Result<(), Fault> {
        let (mut offset, mut length) = (0, 0);
        each(message, |field| {
            match (field.number, field.value) {
                (1, Wire::Varint(value)) => {
                    offset = i32::try_from(unzigzag(value)).map_err(|_| wrong("a bucket is too far away"))?;
                }
                (2, Wire::Varint(value)) => length = u32::try_from(value).map_err(|_| wrong("a run of buckets is too long"))?,
                _ => {}
            }
            Ok(())
        })?;
        self.spans.push((offset, length));
        self.check()
    }

    /// Packed or one by one.
    fn delta(&mut self, value: Wire<'_>) -> Result<(), Fault> {
        match value {
            Wire::Varint(value) => self.deltas.push(unzigzag(value)),
            Wire::Bytes(bytes) => {
                let mut at = 0;
                while at < bytes.len() {
                    let (value, next) = varint(bytes, at).ok_or_else(|| wrong("it is not protobuf"))?;
                    self.deltas.push(unzigzag(value));
                    at = next;
                    self.check()?;
                }
            }
            _ => {}
        }
        self.check()
    }

    fn count(&mut self, value: Wire<'_>) -> Result<(), Fault> {
        match value {
            Wire::Fixed64(bits) => self.counts.push(double(bits)),
            Wire::Bytes(bytes) => self.counts.extend(bytes.as_chunks::<8>().0.iter().map(|chunk| f64::from_le_bytes(*chunk))),
            _ => {}
        }
        self.check()
    }

    fn check(&self) -> Result<(), Fault> {
        let most = self.spans.len().max(self.deltas.len()).max(self.counts.len());
        if most > BUCKETS_MAX { Err(wrong("a histogram has more than 65536 buckets")) } else { Ok(()) }
    }

    fn runs(self) -> Result<Runs, Fault> {
        let counts = if self.deltas.is_empty() {
            // Negative and NaN become 0, as a count of nothing.
            self.counts.iter().map(|count| *count as u64).collect()
        } else {
            let mut total = 0_i64;
            let counts = self.deltas.iter().map(|delta| {
                total = total.checked_add(*delta)?;
                u64::try_from(total).ok()
            });
            counts.collect::<Option<Vec<u64>>>().ok_or_else(|| wrong("a bucket has a negative count"))?
        };
        Ok(Runs { spans: self.spans, counts })
    }
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn histogram<'a>(message: &'a [u8], mut head: Head<'a>, wanted: Wanted, taker: &mut impl Taker) -> Result<(), Fault> {
    let mut native = Native::default();
    let (mut positive, mut negative) = (Side::default(), Side::default());
    let (mut count, mut float_count, mut float_zero) = (0_u64, 0.0, 0.0);
    let mut own: SmallVec<[&[u8]; 1]> = SmallVec::new();
    let mut has_buckets = false;
    each(message, |field| {
        match (field.number, field.value) {
            (1, Wire::Varint(value)) => count = value,
            (2, Wire::Fixed64(bits)) => native.sum = double(bits),
            (3, Wire::Bytes(_)) => has_buckets = true,
            (4, Wire::Fixed64(bits)) => float_count = double(bits),
            (5, Wire::Varint(value)) => native.schema = i32::try_from(unzigzag(value)).map_err(|_| wrong("an unknown schema"))?,
            (6, Wire::Fixed64(bits)) => native.zero_threshold = double(bits),
            (7, Wire::Varint(value)) => native.zero_count = value,
            (8, Wire::Fixed64(bits)) => float_zero = double(bits),
            (9, Wire::Bytes(bytes)) => negative.span(bytes)?,
            (10, value) => negative.delta(value)?,
            (11, value) => negative.count(value)?,
            (12, Wire::Bytes(bytes)) => positive.span(bytes)?,
            (13, value) => positive.delta(value)?,
            (14, value) => positive.count(value)?,
            (15, Wire::Bytes(bytes)) => head.start = timestamp(bytes)?,
            (16, Wire::Bytes(bytes)) if own.len() < BUCKETS_MAX => own.push(bytes),
            _ => {}
        }
        Ok(())
    })?;
    let is_float = float_count > 0.0;
    let is_native =
        !positive.spans.is_empty() || !negative.spans.is_empty() || native.zero_threshold > 0.0 || native.zero_count > 0;
    let total = if is_float { float_count } else { count as f64 };
    if is_native && wanted.native {
        native.count = if is_float { float_count as u64 } else { count };
        if is_float {
            native.zero_count = float_zero as u64;
        }
        (native.positive, native.negative) = (positive.runs()?, negative.runs()?);
        let sum = native.sum;
        let exemplars = own.iter().map(|bytes| exemplar(bytes)).collect::<Result<SmallVec<_>, _>>()?;
        let mut labels = head.labels.clone();
        labels.push(NAME, head.name);
        taker.sample(Sample { labels, value: Value::Native(Box::new(native)), time: head.time, start: head.start, exemplars })?;
        if !wanted.classic_beside || !has_buckets {
            return Ok(());
        }
        return classic(message, &head, total, sum, taker);
    }
    classic(message, &head, total, native.sum, taker)
}

fn classic<'a>(message: &'a [u8], head: &Head<'a>, total: f64, sum: f64, taker: &mut impl Taker) -> Result<(), Fault> {
    taker.sample(head.sample("_count", None, total, None))?;
    taker.sample(head.sample("_sum", None, sum, None))?;
    let mut infinite = false;
    each(message, |field| {
        let (3, Wire::Bytes(bytes)) = (field.number, field.value) else { return Ok(()) };
        let (mut count, mut float, mut bound, mut example) = (0_u64, 0.0, 0.0, None);
        each(bytes, |field| {
            match (field.number, field.value) {
                (1, Wire::Varint(value)) => count = value,
                (2, Wire::Fixed64(bits)) => bound = double(bits),
                (3, Wire::Bytes(bytes)) => example = Some(bytes),
                (4, Wire::Fixed64(bits)) => float = double(bits),
                _ => {}
            }
            Ok(())
        })?;
        infinite |= bound == f64::INFINITY;
        let count = if float > 0.0 { float } else { count as f64 };
        let exemplar = example.map(exemplar).transpose()?;
        taker.sample(head.sample("_bucket", Some(("le", bound_text(bound))), count, exemplar))
    })?;
    if !infinite {
        taker.sample(head.sample("_bucket", Some(("le", "+Inf".to_owned())), total, None))?;
    }
    Ok(())
}
