//! Rows → OTLP metrics: one `ResourceMetrics` for each resource, one scope, a metric for each kind of number.
//!
//! Spec: OTLP metrics; OpenTelemetry metrics data model, "Temporality".

use std::collections::HashSet;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::{
    State,
    aggregate::{Counts, Stream},
    labels::{Labelling, SCOPE, Shown},
    owners::Owner,
    settings::Temporality,
};
use crate::{
    otlp::wire,
    registry::{Chosen, Key, RowId},
};

/// A request that is larger than this is not added to.
const REQUEST_BYTES: usize = 2 << 20;
/// Rows told of under one hold of the lock.
const PIECE: usize = 256;

/// How rows are told of, by the settings.
#[derive(Debug, Clone)]
pub(super) struct Telling {
    pub(super) calls: String,
    pub(super) duration: String,
    pub(super) events: String,
    pub(super) unit: &'static str,
    pub(super) temporality: Temporality,
    /// Bounds of the Collector's histogram: the bound, and its place among the bounds of the rows.
    pub(super) bounds: Vec<(f64, usize)>,
    pub(super) exponential: bool,
    pub(super) exemplars_max: usize,
    /// Start times that are remembered between deltas.
    pub(super) starts_max: usize,
}

/// A request body and how many data points are in it.
pub(super) struct Told {
    pub(super) payload: Bytes,
    pub(super) points: u64,
}

struct Row<'a> {
    stream: usize,
    id: RowId,
    key: Key<'a>,
    extra: Option<&'a [u8]>,
}

impl Telling {
    /// What there is to tell at `now`. Exemplars from before `since` were told already. `last`: nothing is left for another time.
    ///
    /// Others get the lock between two pages. Deltas are told under one hold and in one body: what came in between would be told twice, or
    /// the half of it lost with the other half.
    pub(super) fn tell(&self, state: &mut MutexGuard<'_, State>, now: u64, since: u64, last: bool) -> Vec<Told> {
        let in_pieces = self.temporality == Temporality::Cumulative;
        let mut rows = self.rows(state);
        if in_pieces {
            MutexGuard::unlocked(state, || rows.sort_unstable());
        } else {
            rows.sort_unstable();
        }
        let mut told = Vec::new();
        let (mut out, mut points) = (Vec::new(), 0);
        for rows in rows.chunk_by(|a, b| a.0 == b.0) {
            // A resource with many rows is told of in several parts.
            for part in rows.chunks(PIECE) {
                let fresh = self.take_fresh(state, part, last);
                points += self.part(state, part, &fresh, now, since, &mut out);
                if in_pieces {
                    MutexGuard::bump(state);
                    if out.len() > REQUEST_BYTES {
                        told.push(Told { payload: std::mem::take(&mut out).into(), points: std::mem::take(&mut points) });
                    }
                }
            }
        }
        if !out.is_empty() {
            told.push(Told { payload: out.into(), points });
        }
        told
    }

    /// All rows that have something to tell: owner, stream, row.
    fn rows(&self, state: &mut MutexGuard<'_, State>) -> Vec<(u32, usize, RowId)> {
        let mut rows = Vec::new();
        for number in 0..state.streams.len() {
            for page in 0.. {
                let Some(stream) = state.streams.get(number).filter(|stream| page < stream.store.pages()) else { break };
                let all = stream.store.rows_of(page);
                let told = all.filter(|(row, ..)| self.temporality == Temporality::Cumulative || has_news(stream, *row));
                rows.extend(told.map(|(row, key, _)| (key.head.owner, number, row)));
                if self.temporality == Temporality::Cumulative {
                    MutexGuard::bump(state);
                }
            }
        }
        rows
    }

    /// The rows whose counters are 0 this time: a series that Prometheus first sees at 0 loses nothing of its first value.
    fn take_fresh(&self, state: &mut State, rows: &[(u32, usize, RowId)], last: bool) -> HashSet<(usize, RowId)> {
        let mut fresh = HashSet::new();
        for (_, number, row) in rows {
            let Some(stream) = state.streams.get_mut(*number) else { continue };
            if stream.store.take_fresh(*row) && self.temporality == Temporality::Cumulative && !last {
                fresh.insert((*number, *row));
            }
        }
        fresh
    }

    fn part(
        &self,
        state: &State,
        part: &[(u32, usize, RowId)],
        fresh: &HashSet<(usize, RowId)>,
        now: u64,
        since: u64,
        out: &mut Vec<u8>,
    ) -> u64 {
        let Some(owner) = part.first().and_then(|(owner, ..)| state.owners.get(*owner)) else { return 0 };
        let row = |(_, stream, id): &(u32, usize, RowId)| {
            let (key, extra) = state.streams.get(*stream)?.store.row(*id)?;
            Some(Row { stream: *stream, id: *id, key, extra })
        };
        let rows: Vec<Row<'_>> = part.iter().filter_map(row).collect();
        if rows.is_empty() { 0 } else { self.resource(state, owner, &rows, fresh, now, since, out) }
    }

    fn resource(
        &self,
        state: &State,
        owner: &Owner,
        rows: &[Row<'_>],
        fresh: &HashSet<(usize, RowId)>,
        now: u64,
        since: u64,
        out: &mut Vec<u8>,
    ) -> u64 {
        let mut points = 0;
        let temporality = match self.temporality {
            Temporality::Delta => 1,
            Temporality::Cumulative => 2,
        };
        wire::put_message(out, 1, |out| {
            wire::put_bytes_always(out, 1, &owner.resource);
            wire::put_message(out, 2, |out| {
                wire::put_message(out, 1, |out| wire::put_bytes(out, 1, SCOPE.as_bytes()));
                for (number, stream) in state.streams.iter().enumerate() {
                    let rows: Vec<&Row<'_>> = rows.iter().filter(|row| row.stream == number).collect();
                    if rows.is_empty() {
                        continue;
                    }
                    if stream.counts != Counts::Duration {
                        let name = if stream.counts == Counts::Events { &self.events } else { &self.calls };
                        points += rows.len() as u64;
                        wire::put_message(out, 2, |out| {
                            wire::put_bytes(out, 1, name.as_bytes());
                            wire::put_message(out, 7, |out| {
                                for row in &rows {
                                    let zero = fresh.contains(&(number, row.id));
                                    let point = Point { state: &state.labelling, stream, owner, row, now, since };
                                    wire::put_message(out, 1, |out| self.number(&point, zero, out));
                                }
                                wire::put_uint(out, 2, temporality);
                                wire::put_uint(out, 3, 1);
                            });
                        });
                    }
                    if matches!(stream.counts, Counts::Both | Counts::Duration) {
                        points += rows.len() as u64;
                        wire::put_message(out, 2, |out| {
                            wire::put_bytes(out, 1, self.duration.as_bytes());
                            wire::put_bytes(out, 3, self.unit.as_bytes());
                            wire::put_message(out, if self.exponential { 10 } else { 9 }, |out| {
                                for row in &rows {
                                    let point = Point { state: &state.labelling, stream, owner, row, now, since };
                                    wire::put_message(out, 1, |out| {
                                        if self.exponential {
                                            self.exponential(&point, out);
                                        } else {
                                            self.histogram(&point, out);
                                        }
                                    });
                                }
                                wire::put_uint(out, 2, temporality);
                            });
                        });
                    }
                }
            });
        });
        points
    }

    fn number(&self, point: &Point<'_>, zero: bool, out: &mut Vec<u8>) {
        let Some((_, _, _, counts)) = point.stream.store.numbers(point.row.id) else { return };
        let count: f64 = if zero { 0.0 } else { counts.sum() };
        wire::put_fixed64(out, 2, point.start());
        wire::put_fixed64(out, 3, point.now);
        if count.fract() == 0.0 && count < 9e15 {
            wire::put_fixed64_always(out, 6, count as u64);
        } else {
            wire::put_double_always(out, 4, count);
        }
        self.exemplars(point, 5, out);
        point.attributes(7, out);
    }

    fn histogram(&self, point: &Point<'_>, out: &mut Vec<u8>) {
        let Some((sum, _, _, counts)) = point.stream.store.numbers(point.row.id) else { return };
        let counts: Vec<f64> = counts.collect();
        // Whole numbers of what has come up to a bound, so that rounding errors do not add up over buckets.
        let (mut buckets, mut all, mut before, mut next) = (Vec::with_capacity(self.bounds.len() + 1), 0.0, 0, 0);
        for place in self.bounds.iter().map(|(_, place)| place + 1).chain([counts.len()]) {
            all += counts.get(next..place).unwrap_or_default().iter().sum::<f64>();
            next = place;
            let whole = all.round() as u64;
            buckets.push(whole.saturating_sub(before));
            before = whole;
        }
        wire::put_fixed64(out, 2, point.start());
        wire::put_fixed64(out, 3, point.now);
        wire::put_fixed64(out, 4, before);
        wire::put_double_always(out, 5, sum);
        let words = |numbers: &mut dyn Iterator<Item = u64>| numbers.flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
        wire::put_bytes(out, 6, &words(&mut buckets.into_iter()));
        wire::put_bytes(out, 7, &words(&mut self.bounds.iter().map(|(bound, _)| bound.to_bits())));
        self.exemplars(point, 8, out);
        point.attributes(9, out);
    }

    fn exponential(&self, point: &Point<'_>, out: &mut Vec<u8>) {
        let Some((sum, _, _, counts)) = point.stream.store.numbers(point.row.id) else { return };
        let Some(histogram) = point.stream.store.exponential(point.row.id) else { return };
        let zigzag = |number: i32| u64::from((number.wrapping_shl(1) ^ (number >> 31)).cast_unsigned());
        point.attributes(1, out);
        wire::put_fixed64(out, 2, point.start());
        wire::put_fixed64(out, 3, point.now);
        let zero = histogram.zero_count().round() as u64;
        let (mut all, mut before) = (0.0, 0);
        let mut packed = Vec::new();
        for count in histogram.counts() {
            all += count;
            let whole = f64::round(all) as u64;
            wire::put_varint(&mut packed, whole.saturating_sub(before));
            before = whole;
        }
        // The count is what the buckets say, also where fractions were rounded.
        let count = if counts.clone().all(|count| count.fract() == 0.0) {
            counts.sum::<f64>() as u64
        } else {
            zero.saturating_add(before)
        };
        wire::put_fixed64(out, 4, count);
        wire::put_double_always(out, 5, sum);
        wire::put_uint(out, 6, zigzag(histogram.scale()));
        wire::put_fixed64(out, 7, zero);
        wire::put_message(out, 8, |out| {
            wire::put_uint(out, 1, zigzag(histogram.offset()));
            wire::put_bytes(out, 2, &packed);
        });
        self.exemplars(point, 11, out);
        if let Some((min, max)) = histogram.range() {
            wire::put_double_always(out, 12, min);
            wire::put_double_always(out, 13, max);
        }
    }

    fn exemplars(&self, point: &Point<'_>, field: u32, out: &mut Vec<u8>) {
        let news = |chosen: &&Chosen| chosen.unix_nanos > point.since;
        for chosen in point.stream.store.exemplars(point.row.id).iter().filter(news).take(self.exemplars_max) {
            wire::put_message(out, field, |out| {
                wire::put_fixed64(out, 2, chosen.unix_nanos);
                wire::put_double_always(out, 3, chosen.value);
                if chosen.span_id != [0; 8] {
                    wire::put_bytes(out, 4, &chosen.span_id);
                }
                wire::put_bytes(out, 5, &chosen.trace_id);
            });
        }
    }

    /// After telling deltas: rows begin again at `now`. Beyond the cache of start times, the rows
    /// that were idle for longest go.
    pub(super) fn begin_again(&self, state: &mut State, now: u64) {
        let State { streams, owners, .. } = state;
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut rows: Vec<(u64, RowId, u32)> = Vec::new();
            for (row, key, _) in stream.store.rows() {
                let last = stream.store.numbers(row).map_or(0, |(_, _, last, _)| last);
                rows.push((last, row, key.head.owner));
            }
            for (_, row, _) in &rows {
                if has_news(stream, *row) {
                    stream.store.reset(*row, now);
                }
            }
            let surplus = rows.len().saturating_sub(self.starts_max);
            if surplus > 0 {
                rows.sort_unstable();
                for (_, row, owner) in rows.into_iter().take(surplus) {
                    stream.store.remove(row);
                    if let Some(rows) = owners.get_mut(owner).and_then(|owner| owner.rows.get_mut(number)) {
                        *rows = rows.saturating_sub(1);
                    }
                }
            }
        }
    }
}

fn has_news(stream: &Stream<Shown>, row: RowId) -> bool {
    stream.store.numbers(row).is_some_and(|(_, _, _, mut counts)| counts.any(|count| count != 0.0))
}

struct Point<'a> {
    state: &'a Labelling,
    stream: &'a Stream<Shown>,
    owner: &'a Owner,
    row: &'a Row<'a>,
    now: u64,
    since: u64,
}

impl Point<'_> {
    fn start(&self) -> u64 {
        self.stream.store.start(self.row.id)
    }

    fn attributes(&self, field: u32, out: &mut Vec<u8>) {
        self.state.encode(self.owner, &self.row.key, self.row.extra, field, out);
    }
}
