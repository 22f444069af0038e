//! What a series holds, as bytes and back.

use std::sync::Arc;

use super::points::{Classic, Point, Summary, Value};
use crate::{
    exposition::{
        Exemplar, FamilyKind,
        translation::{Exponential, Side},
    },
    registry::snapshot::{Damaged, Reader, Writer},
};

/// Kinds of families in the order of their numbers in a snapshot.
const KINDS: [FamilyKind; 6] =
    [FamilyKind::Counter, FamilyKind::Gauge, FamilyKind::Histogram, FamilyKind::Summary, FamilyKind::Info, FamilyKind::Unknown];

const NUMBER: u8 = 0;
const CLASSIC: u8 = 1;
/// With the bounds of the one before.
const CLASSIC_AGAIN: u8 = 2;
const EXPONENTIAL: u8 = 3;
const SUMMARY: u8 = 4;

/// Numbers of buckets lie within these: an offset of 32 bits and what can follow it.
const OFFSET_MAX: u64 = 1 << 33;

/// The bounds last written or read: most series of a family have the same.
#[derive(Debug, Default)]
pub(super) struct Before(Option<Arc<[f64]>>);

pub(super) fn save_kind(kind: FamilyKind, out: &mut Writer) {
    out.byte(KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len()) as u8);
}

pub(super) fn read_kind(from: &mut Reader<'_>) -> Result<FamilyKind, Damaged> {
    let number = from.byte()?;
    KINDS.get(usize::from(number)).copied().ok_or(from.damaged("a family of an unknown kind"))
}

impl Point {
    pub(super) fn save(&self, before: &mut Before, out: &mut Writer) {
        out.number(self.start);
        out.number(self.time);
        match &self.value {
            Value::Number(value, exemplar) => {
                out.byte(NUMBER);
                out.double(*value);
                out.option(exemplar.as_deref(), save_exemplar);
            }
            Value::Classic(classic) => {
                let again = before.0.as_ref().is_some_and(|bounds| bits(bounds).eq(bits(&classic.bounds)));
                out.byte(if again { CLASSIC_AGAIN } else { CLASSIC });
                if !again {
                    out.count(classic.bounds.len());
                    classic.bounds.iter().for_each(|bound| out.double(*bound));
                    before.0 = Some(Arc::clone(&classic.bounds));
                }
                out.count(classic.counts.len());
                classic.counts.iter().for_each(|count| out.number(*count));
                out.number(classic.count);
                out.option(classic.sum, Writer::double);
                out.count(classic.exemplars.len());
                for (bucket, exemplar) in &classic.exemplars {
                    out.count(*bucket);
                    save_exemplar(out, exemplar);
                }
            }
            Value::Exponential(exponential) => {
                out.byte(EXPONENTIAL);
                out.signed(exponential.scale.into());
                out.double(exponential.zero_threshold);
                out.number(exponential.zero_count);
                out.option(exponential.sum, Writer::double);
                exponential.positive.save(out);
                exponential.negative.save(out);
                out.count(exponential.exemplars.len());
                exponential.exemplars.iter().for_each(|exemplar| save_exemplar(out, exemplar));
            }
            Value::Summary(summary) => {
                out.byte(SUMMARY);
                out.number(summary.count);
                out.double(summary.sum);
                out.count(summary.quantiles.len());
                for (quantile, value) in &summary.quantiles {
                    out.double(*quantile);
                    out.double(*value);
                }
            }
        }
    }

    pub(super) fn read(before: &mut Before, from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (start, time) = (from.number()?, from.number()?);
        let value = match from.byte()? {
            NUMBER => Value::Number(from.double()?, from.option(read_exemplar)?.map(Arc::new)),
            CLASSIC => {
                let bounds = many(from, 1, Reader::double)?;
                before.0 = Some(bounds.into());
                Value::Classic(Arc::new(Classic::read(before, from)?))
            }
            CLASSIC_AGAIN => Value::Classic(Arc::new(Classic::read(before, from)?)),
            EXPONENTIAL => {
                let exponential = Exponential {
                    scale: from.small_signed()?,
                    zero_threshold: from.double()?,
                    zero_count: from.number()?,
                    sum: from.option(Reader::double)?,
                    positive: Side::read(from)?,
                    negative: Side::read(from)?,
                    exemplars: many(from, EXEMPLAR_MIN, read_exemplar)?,
                };
                Value::Exponential(Arc::new(exponential.fitted().ok_or(from.damaged("a scale that is too coarse"))?))
            }
            SUMMARY => Value::Summary(Arc::new(Summary {
                count: from.number()?,
                sum: from.double()?,
                quantiles: many(from, 2, |from| Ok((from.double()?, from.double()?)))?,
            })),
            _ => return Err(from.damaged("a value of an unknown kind")),
        };
        Ok(Self { start, time, value })
    }
}

impl Classic {
    /// Without its bounds, which were the last that were read.
    fn read(before: &Before, from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let bounds = before.0.clone().ok_or(from.damaged("a histogram without bounds"))?;
        let counts = many(from, 1, Reader::number)?;
        if !counts.is_empty() && counts.len() != bounds.len() + 1 {
            return Err(from.damaged("buckets that do not go with their bounds"));
        }
        Ok(Self {
            bounds,
            counts,
            count: from.number()?,
            sum: from.option(Reader::double)?,
            exemplars: many(from, EXEMPLAR_MIN, |from| Ok((from.small()?, read_exemplar(from)?)))?,
        })
    }
}

impl Side {
    fn save(&self, out: &mut Writer) {
        out.signed(self.offset);
        out.count(self.counts.len());
        self.counts.iter().for_each(|count| out.number(*count));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let offset = from.signed()?;
        if offset.unsigned_abs() > OFFSET_MAX {
            return Err(from.damaged("a bucket out of range"));
        }
        Ok(Self { offset, counts: many(from, 1, Reader::number)? })
    }
}

/// Bytes of an exemplar at least.
const EXEMPLAR_MIN: usize = 16 + 8 + 3;

fn save_exemplar(out: &mut Writer, exemplar: &Exemplar) {
    out.raw(&exemplar.trace_id);
    out.raw(&exemplar.span_id);
    out.double(exemplar.value);
    out.number(exemplar.unix_nanos);
    out.count(exemplar.labels.len());
    for (name, value) in &exemplar.labels {
        out.text(name);
        out.text(value);
    }
}

fn read_exemplar(from: &mut Reader<'_>) -> Result<Exemplar, Damaged> {
    Ok(Exemplar {
        trace_id: from.array()?,
        span_id: from.array()?,
        value: from.double()?,
        unix_nanos: from.number()?,
        labels: many(from, 2, |from| Ok((from.text()?.into(), from.text()?.into())))?,
    })
}

/// A count and so many things of at least `least` bytes.
pub(super) fn many<'a, T>(
    from: &mut Reader<'a>,
    least: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Damaged>,
) -> Result<Vec<T>, Damaged> {
    let count = from.count(least)?;
    (0..count).map(|_| read(from)).collect()
}

fn bits(bounds: &[f64]) -> impl Iterator<Item = u64> {
    bounds.iter().map(|bound| bound.to_bits())
}
