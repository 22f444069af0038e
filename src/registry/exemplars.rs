//! Which trace stands for a bucket: one exemplar for each bucket that was used, errors before slow spans before recent ones.

use super::snapshot::{Damaged, Reader, Writer};

/// A span that could become an exemplar.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// In the unit of the row.
    pub value: f64,
    pub unix_nanos: u64,
    pub error: bool,
}

/// An exemplar and the bucket it stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    pub bucket: u32,
    pub error: bool,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub value: f64,
    pub unix_nanos: u64,
}

/// A slow span or an error keeps its place for so long, then any newer span takes it: a trace backend forgets, too.
pub(super) const HOLD_NANOS: u64 = 60_000_000_000;

/// Between two looks at a row's exemplars; buckets not used so far and errors are always looked at.
pub(super) const PAUSE_MILLIS: u32 = 250;

/// The exemplars of one row. Most rows use few buckets, so this is a short list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Exemplars {
    pub(super) chosen: Vec<Chosen>,
}

impl Exemplars {
    pub(super) fn offer(&mut self, bucket: u32, candidate: &Candidate) {
        let new = Chosen {
            bucket,
            error: candidate.error,
            trace_id: candidate.trace_id,
            span_id: candidate.span_id,
            value: candidate.value,
            unix_nanos: candidate.unix_nanos,
        };
        if let Some(old) = self.chosen.iter_mut().find(|old| old.bucket == bucket) {
            if beats(&new, old) {
                *old = new;
            }
        } else {
            self.chosen.reserve_exact(1);
            self.chosen.push(new);
        }
    }
}

impl Chosen {
    /// Bytes that one takes at least.
    const BYTES_MIN: usize = 16 + 8 + 4;

    fn save(&self, out: &mut Writer) {
        out.number(self.bucket);
        out.flag(self.error);
        out.raw(&self.trace_id);
        out.raw(&self.span_id);
        out.double(self.value);
        out.number(self.unix_nanos);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            bucket: from.small()?,
            error: from.flag()?,
            trace_id: from.array()?,
            span_id: from.array()?,
            value: from.double()?,
            unix_nanos: from.number()?,
        })
    }
}

impl Exemplars {
    pub(super) fn save(&self, out: &mut Writer) {
        out.count(self.chosen.len());
        self.chosen.iter().for_each(|chosen| chosen.save(out));
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = from.count(Chosen::BYTES_MIN)?;
        let chosen = (0..count).map(|_| Chosen::read(from)).collect::<Result<_, _>>()?;
        Ok(Self { chosen })
    }
}

fn beats(new: &Chosen, old: &Chosen) -> bool {
    if new.error != old.error {
        return new.error || new.unix_nanos.saturating_sub(old.unix_nanos) > HOLD_NANOS;
    }
    new.value >= old.value || new.unix_nanos.saturating_sub(old.unix_nanos) > HOLD_NANOS
}

/// What a row remembers beside its exemplars so that most spans need not look at them: the buckets in use (those from 31 on share a bit)
/// in the upper half, the time of the last look in milliseconds in the lower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gate(u64);

impl Gate {
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether to look at the exemplars now; notes the look.
    #[inline]
    pub(super) fn opens(&mut self, bucket: u32, millis: u32, error: bool) -> bool {
        let bit = 1_u64 << (32 + bucket.min(31));
        let last = self.0 as u32;
        if self.0 & bit != 0 && !error && millis.wrapping_sub(last) < PAUSE_MILLIS {
            return false;
        }
        self.0 = (self.0 & !u64::from(u32::MAX)) | bit | u64::from(millis);
        true
    }
}
