//! One point, as it stands in a metric: values, buckets, exemplars; what does not fit together is found here.

use smallvec::SmallVec;

use super::{Lost, Point, STALE, What};
use crate::{
    otlp::wire,
    receivers::prometheus::{
        memory::NO_RECORDED_VALUE,
        parse::{Exemplar, Runs},
        sheet::{Sheet, data, put_attribute},
    },
};

/// A bucket's number may be this far from the last one: a histogram of so many empty buckets is none that was counted.
const BUCKETS_MAX: usize = 1 << 16;
/// Prometheus' schemas that are scales of OTLP; -53 is that of bounds which are written out.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

pub(super) fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar<'_>) {
    let id = |wanted: &str, bytes: usize| {
        let (name, text) = exemplar.labels.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        let id = unhex(text).filter(|id| id.len() == bytes && id.iter().any(|byte| *byte != 0))?;
        Some((name, id))
    };
    let (trace, span) = (id("trace_id", 16), id("span_id", 8));
    wire::put_fixed64(out, 2, exemplar.time);
    wire::put_double_always(out, 3, exemplar.value);
    if let Some((_, id)) = &span {
        wire::put_bytes(out, 4, id);
    }
    if let Some((_, id)) = &trace {
        wire::put_bytes(out, 5, id);
    }
    let taken = [&trace, &span].map(|id| id.as_ref().map(|(name, _)| *name));
    for (name, value) in exemplar.labels.iter().filter(|(name, value)| !value.is_empty() && !taken.contains(&Some(name))) {
        put_attribute(out, 7, name, value);
    }
}

fn unhex(text: &str) -> Option<SmallVec<[u8; 16]>> {
    if text.len() > 32 || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks_exact(2).map(|pair| pair.iter().try_fold(0, |byte, half| Some(byte << 4 | digit(half)?))).collect()
}

/// Fails where it has no value, or parts that do not fit together.
pub(super) fn write_point(data: u32, point: &mut Point, attributes: &[u8], sheet: &mut Sheet) -> Result<(), Lost> {
    let Point { time, start, exemplars, what, .. } = point;
    let (time, start) = (*time, if data == data::GAUGE { 0 } else { *start });
    match what {
        What::Nothing => return Err(Lost::Inconsistent),
        What::Number(value) => sheet.point(|out| {
            put_times(out, start, time);
            wire::put_double_always(out, 4, *value);
            out.extend_from_slice(exemplars);
            out.extend_from_slice(attributes);
        }),
        What::Ended => sheet.point(|out| {
            put_times(out, 0, time);
            out.extend_from_slice(attributes);
            wire::put_uint(out, 8, NO_RECORDED_VALUE);
        }),
        What::Distribution(distribution) => {
            distribution.parts.sort_by(|one, other| one.0.total_cmp(&other.0));
            if distribution.parts.windows(2).any(|pair| matches!(pair, [one, other] if one.0.total_cmp(&other.0).is_eq())) {
                return Err(Lost::Duplicate);
            }
            let count = distribution.count.ok_or(Lost::Inconsistent)?;
            let ended = [Some(count), distribution.sum].into_iter().flatten().any(|value| value.to_bits() == STALE);
            if ended {
                sheet.point(|out| {
                    put_times(out, 0, time);
                    out.extend_from_slice(attributes);
                    wire::put_uint(out, if data == data::HISTOGRAM { 10 } else { 8 }, NO_RECORDED_VALUE);
                });
                return Ok(());
            }
            if data == data::SUMMARY {
                sheet.point(|out| {
                    put_times(out, start, time);
                    wire::put_fixed64(out, 4, count as u64);
                    wire::put_double_always(out, 5, distribution.sum.unwrap_or(0.0));
                    for (quantile, value) in &distribution.parts {
                        wire::put_message(out, 6, |out| {
                            wire::put_double_always(out, 1, *quantile);
                            wire::put_double_always(out, 2, *value);
                        });
                    }
                    out.extend_from_slice(attributes);
                });
                return Ok(());
            }
            let (bounds, counts) = buckets(&distribution.parts, count)?;
            sheet.point(|out| {
                put_times(out, start, time);
                wire::put_fixed64(out, 4, count as u64);
                if let Some(sum) = distribution.sum {
                    wire::put_double_always(out, 5, sum);
                }
                wire::put_message(out, 6, |out| counts.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes())));
                if !bounds.is_empty() {
                    wire::put_message(out, 7, |out| bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes())));
                }
                out.extend_from_slice(exemplars);
                out.extend_from_slice(attributes);
            });
        }
        What::Native(native) => {
            if !SCHEMAS.contains(&native.schema) {
                return Err(Lost::Unsupported);
            }
            let (positive, negative) = (dense(&native.positive)?, dense(&native.negative)?);
            let ended = native.sum.to_bits() == STALE;
            sheet.point(|out| {
                out.extend_from_slice(attributes);
                put_times(out, if ended { 0 } else { start }, time);
                if ended {
                    wire::put_uint(out, 10, NO_RECORDED_VALUE);
                    return;
                }
                wire::put_fixed64(out, 4, native.count);
                wire::put_double_always(out, 5, native.sum);
                wire::put_uint(out, 6, zigzag(native.schema));
                wire::put_fixed64(out, 7, native.zero_count);
                for (field, (offset, counts)) in [(8, &positive), (9, &negative)] {
                    if !counts.is_empty() {
                        wire::put_message(out, field, |out| {
                            wire::put_uint(out, 1, zigzag(*offset));
                            wire::put_message(out, 2, |out| counts.iter().for_each(|count| wire::put_varint(out, *count)));
                        });
                    }
                }
                out.extend_from_slice(exemplars);
                if native.zero_threshold != 0.0 {
                    wire::put_double_always(out, 14, native.zero_threshold);
                }
            });
        }
    }
    Ok(())
}

fn put_times(out: &mut Vec<u8>, start: u64, time: u64) {
    wire::put_fixed64(out, 2, start);
    wire::put_fixed64(out, 3, time);
}

const fn zigzag(value: i32) -> u64 {
    (((value << 1) ^ (value >> 31)) as u32) as u64
}

/// Bounds without the last, which is infinite, and the count of each bucket. Fails where counts fall.
fn buckets(parts: &[(f64, f64)], count: f64) -> Result<(Vec<f64>, Vec<u64>), Lost> {
    let finite = match parts.split_last() {
        Some(((bound, _), rest)) if *bound == f64::INFINITY => rest,
        _ => parts,
    };
    let mut counts = Vec::with_capacity(finite.len() + 1);
    let mut before = 0.0;
    for cumulative in finite.iter().map(|(_, cumulative)| *cumulative).chain([count]) {
        if cumulative.is_nan() || cumulative < before {
            return Err(Lost::Inconsistent);
        }
        counts.push((cumulative - before) as u64);
        before = cumulative;
    }
    Ok((finite.iter().map(|(bound, _)| *bound).collect(), counts))
}

/// Runs as one row of counts. Prometheus' bucket 1 is OpenTelemetry's 0.
fn dense(runs: &Runs) -> Result<(i32, Vec<u64>), Lost> {
    let mut counts: Vec<u64> = Vec::new();
    let mut told = runs.counts.iter();
    let mut offset = 0;
    for (at, (gap, length)) in runs.spans.iter().enumerate() {
        let length = usize::try_from(*length).unwrap_or(usize::MAX);
        if at == 0 {
            offset = gap.checked_sub(1).ok_or(Lost::Inconsistent)?;
        } else {
            let gap = usize::try_from(*gap).map_err(|_| Lost::Inconsistent)?;
            if counts.len().saturating_add(gap) > BUCKETS_MAX {
                return Err(Lost::Unsupported);
            }
            counts.resize(counts.len() + gap, 0);
        }
        if counts.len().saturating_add(length) > BUCKETS_MAX {
            return Err(Lost::Unsupported);
        }
        for _ in 0..length {
            counts.push(*told.next().ok_or(Lost::Inconsistent)?);
        }
    }
    if told.next().is_some() { Err(Lost::Inconsistent) } else { Ok((offset, counts)) }
}
