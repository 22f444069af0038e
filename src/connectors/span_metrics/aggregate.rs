//! Spans → rows: the hot path.
//!
//! Spans are taken in small blocks: first the keys of a block are hashed, then (in a large store) the rows are read a little so that the
//! cache misses of one block overlap, then each row is updated.

use super::{
    dimensions::{Dimensions, put_text_attribute},
    fold,
    owners::Owners,
    settings::AdjustedCounts,
    text::{self, VALUE_BYTES_MAX},
    trace_state::Threshold,
};
use crate::{
    otlp::{
        view::{AttributesView, ResourceView, ScopeView, SpanView, View},
        wire,
    },
    registry::{Candidate, Guard, Key, KeyHead, Observation, RowId, RowStore, Scope, Verdict, explosive},
    signal::{ResourceEntry, SpanEntry, SpanIndex},
};

/// `Key` flags.
pub(super) const ADJUSTED: u8 = 1;
pub(super) const OVERFLOW: u8 = 2;

/// Where the random numbers begin. Any number but 0 will do; a fixed one makes a replay give the same counts.
pub(super) const RANDOM: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spans in a block.
const BLOCK: usize = 32;
/// Rows from which on reading ahead pays: below, they are in the cache anyway.
const READ_AHEAD_FROM: usize = 2048;

/// Which metrics a stream's rows are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    Both,
    Calls,
    Duration,
    Events,
}

/// Rows with one set of dimensions.
#[derive(Debug)]
pub(super) struct Stream<L> {
    pub(super) counts: Counts,
    pub(super) dimensions: Dimensions,
    pub(super) store: RowStore<L>,
    pub(super) guard: Option<Guard>,
}

/// How spans are counted, by the settings.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Nanoseconds in one unit of the histogram.
    pub(super) unit_nanos: f64,
    /// By kind number.
    pub(super) kinds: [bool; 6],
    pub(super) with_name: bool,
    pub(super) with_kind: bool,
    pub(super) with_status: bool,
    pub(super) adjusted: AdjustedCounts,
    pub(super) sampling_method: bool,
    pub(super) exemplars: bool,
    pub(super) scopes: Vec<String>,
    /// Rows a resource may have in a stream before the rest overflows; 0: no limit.
    pub(super) overflow_after: u32,
}

/// What one batch came to, for our own metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) counted: u64,
    /// Left out: no service name.
    pub(super) nameless: u64,
    /// Counted for the stand-in of a missing name.
    pub(super) renamed: u64,
    /// Left out: a kind that is not counted.
    pub(super) other_kind: u64,
    /// Ended before they began.
    pub(super) backwards: u64,
    pub(super) overflowed: u64,
    /// Counted in a row with a folded label.
    pub(super) folded: u64,
    /// Names and values that were cut.
    pub(super) cut: u64,
}

/// A span on its way to its row.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    span: u32,
    hash: u64,
    head: KeyHead,
    /// Where the key's tail lies: in the payload, or in the scratch text.
    tail: (u32, u32),
    in_scratch: bool,
    weight: f64,
}

/// Everything a batch needs besides rows and owners.
#[derive(Debug)]
pub(super) struct Aggregator {
    pub(super) rules: Rules,
    scratch: Vec<u8>,
    text: String,
    /// Where the random numbers stand; part of the state.
    pub(super) random: u64,
    /// Values cut in this batch.
    cut: u64,
}

struct Batch<'a> {
    payload: &'a [u8],
    spans: &'a [SpanEntry],
    received_unix_nanos: u64,
    millis: u32,
    owner: u32,
    resource: AttributesView<'a>,
}

impl Aggregator {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, scratch: Vec::new(), text: String::new(), random: RANDOM, cut: 0 }
    }

    pub(super) fn consume<L>(
        &mut self,
        payload: &[u8],
        index: &SpanIndex,
        received_unix_nanos: u64,
        owners: &mut Owners,
        streams: &mut [Stream<L>],
    ) -> Tally {
        let mut tally = Tally::default();
        for entry in &index.resources {
            self.resource(payload, index, entry, received_unix_nanos, owners, streams, &mut tally);
        }
        tally.cut = std::mem::take(&mut self.cut) + owners.take_cut();
        tally
    }

    fn resource<L>(
        &mut self,
        payload: &[u8],
        index: &SpanIndex,
        entry: &ResourceEntry,
        received_unix_nanos: u64,
        owners: &mut Owners,
        streams: &mut [Stream<L>],
        tally: &mut Tally,
    ) {
        let spans = index.spans.get(entry.first_span as usize..entry.end_span as usize).unwrap_or_default();
        if spans.is_empty() {
            return;
        }
        if owners.are_many_without_rows() {
            owners.remove_without_rows(|owner| {
                streams.iter().filter_map(|stream| stream.guard.as_ref()).any(|guard| guard.folded(Scope::Owner(owner)) != 0)
            });
        }
        let resource = slice(payload, entry.resource);
        let seen = owners.look_up(resource, received_unix_nanos);
        let Some(owner) = seen.owner else {
            tally.nameless += spans.len() as u64;
            return;
        };
        if seen.nameless {
            tally.renamed += spans.len() as u64;
        }
        let resource = ResourceView::new(resource).attributes;
        let millis = (received_unix_nanos / 1_000_000) as u32;
        let batch = Batch { payload, spans, received_unix_nanos, millis, owner, resource };
        for (number, stream) in streams.iter_mut().enumerate() {
            if stream.counts == Counts::Events {
                self.events(&batch, owners, number, stream, tally);
            } else {
                self.stream(&batch, owners, number, stream, tally);
            }
        }
    }

    fn stream<L>(&mut self, batch: &Batch<'_>, owners: &mut Owners, number: usize, stream: &mut Stream<L>, tally: &mut Tally) {
        let mut pending = [Pending::default(); BLOCK];
        let first = number == 0;
        let mut state: &[u8] = &[];
        let mut threshold = None;
        for (block, spans) in batch.spans.chunks(BLOCK).enumerate() {
            let base = block * BLOCK;
            let mut filled = 0;
            self.scratch.clear();
            for (at, span) in spans.iter().enumerate() {
                if !self.rules.kinds.get(usize::from(span.kind)).copied().unwrap_or(self.rules.kinds[0]) {
                    tally.other_kind += u64::from(first);
                    continue;
                }
                let (weight, adjusted) = if span.trace_state.1 == 0 || self.rules.adjusted == AdjustedCounts::Off {
                    (1.0, false)
                } else {
                    let this = slice(batch.payload, span.trace_state);
                    if this != state {
                        state = this;
                        threshold = Threshold::of(this);
                    }
                    self.weight(threshold)
                };
                let Some(place) = pending.get_mut(filled) else { break };
                *place = self.key(batch, span, &stream.dimensions, adjusted);
                place.span = (base + at) as u32;
                place.weight = weight;
                place.hash = stream.store.hash(&self.tail(batch, place));
                filled += 1;
            }
            let Some(pending) = pending.get(..filled) else { return };
            if stream.store.len() >= READ_AHEAD_FROM {
                let mut rows = [None; BLOCK];
                for (row, place) in rows.iter_mut().zip(pending) {
                    *row = stream.store.guess(place.hash);
                }
                let read = rows.iter().flatten().fold(0, |read, row| read ^ stream.store.touch(*row));
                std::hint::black_box(read);
            }
            for place in pending {
                let Some(span) = batch.spans.get(place.span as usize) else { continue };
                self.update(batch, owners, number, stream, place, span, tally);
            }
            if first {
                tally.counted += filled as u64;
            }
        }
    }

    #[inline]
    fn weight(&mut self, threshold: Option<Threshold>) -> (f64, bool) {
        match threshold {
            None => (1.0, false),
            Some(threshold) if self.rules.adjusted == AdjustedCounts::Exact => (threshold.weight(), true),
            Some(threshold) => {
                self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = self.random;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (threshold.rounded(mixed ^ (mixed >> 31)) as f64, true)
            }
        }
    }

    #[inline]
    fn key(&mut self, batch: &Batch<'_>, span: &SpanEntry, dimensions: &Dimensions, adjusted: bool) -> Pending {
        let rules = &self.rules;
        let kind = if rules.with_kind { span.kind.min(15) } else { 0 };
        let status = if rules.with_status { span.status.min(15) } else { 0 };
        let mut name = if rules.with_name { span.name } else { (0, 0) };
        if name.1 as usize > VALUE_BYTES_MAX {
            name.1 = cut_len(slice(batch.payload, name));
            self.cut += 1;
        }
        let head = KeyHead {
            owner: batch.owner,
            name_len: name.1,
            code: kind << 4 | status,
            flags: if adjusted && rules.sampling_method { ADJUSTED } else { 0 },
        };
        let mut pending = Pending { head, tail: name, ..Pending::default() };
        if !dimensions.is_empty() {
            let start = self.scratch.len();
            self.scratch.extend_from_slice(slice(batch.payload, name));
            let attributes = AttributesView::of_span(slice(batch.payload, span.span));
            self.push_dimensions(dimensions, attributes, &[batch.resource]);
            pending.tail = (start as u32, (self.scratch.len() - start) as u32);
            pending.in_scratch = true;
        }
        pending
    }

    /// Appends each dimension's name and text to the scratch bytes, so that different ones cannot look alike.
    fn push_dimensions(&mut self, dimensions: &Dimensions, span: AttributesView<'_>, around: &[AttributesView<'_>]) {
        let Self { scratch, text, cut, .. } = self;
        dimensions.each(span, around, |name, value| {
            text.clear();
            value.push_text(text);
            if text.len().max(name.len()) > VALUE_BYTES_MAX {
                *cut += 1;
                if name.len() > VALUE_BYTES_MAX {
                    return;
                }
                text.truncate(text.floor_char_boundary(VALUE_BYTES_MAX));
            }
            wire::put_bytes_always(scratch, 1, name.as_bytes());
            wire::put_bytes_always(scratch, 2, text.as_bytes());
        });
    }

    #[inline]
    fn tail<'b>(&'b self, batch: &Batch<'b>, pending: &Pending) -> Key<'b> {
        let from = if pending.in_scratch { &self.scratch } else { batch.payload };
        Key { head: pending.head, tail: slice(from, pending.tail) }
    }

    #[inline]
    fn update<L>(
        &self,
        batch: &Batch<'_>,
        owners: &mut Owners,
        number: usize,
        stream: &mut Stream<L>,
        pending: &Pending,
        span: &SpanEntry,
        tally: &mut Tally,
    ) {
        let key = self.tail(batch, pending);
        let (row, exemplars) = match stream.store.find(pending.hash, &key) {
            Some(row) => (row, self.rules.exemplars),
            None => self.make_row(batch, owners, number, stream, pending, span, &[batch.resource], tally),
        };
        let nanos = span.end_unix_nanos.saturating_sub(span.start_unix_nanos);
        if span.end_unix_nanos < span.start_unix_nanos && number == 0 {
            tally.backwards += 1;
        }
        let value = nanos as f64 / self.rules.unit_nanos;
        let error = span.status == 2;
        let bucket = stream.store.observe(
            row,
            &Observation {
                value,
                weight: pending.weight,
                size: f64::from(span.span.1),
                received_unix_nanos: batch.received_unix_nanos,
                error,
            },
        );
        if exemplars && span.trace_id != 0 {
            stream.store.offer(row, bucket, batch.millis, error, || candidate(batch, span, value, error));
        }
    }

    /// A row for a key that has none, or the one that takes what is too much; and whether exemplars belong there.
    #[expect(clippy::too_many_arguments, reason = "the cold half of `update`")]
    #[cold]
    fn make_row<L>(
        &self,
        batch: &Batch<'_>,
        owners: &mut Owners,
        number: usize,
        stream: &mut Stream<L>,
        pending: &Pending,
        span: &SpanEntry,
        around: &[AttributesView<'_>],
        tally: &mut Tally,
    ) -> (RowId, bool) {
        let mut none = 0;
        let rows = owners.get_mut(batch.owner).and_then(|owner| owner.rows.get_mut(number)).unwrap_or(&mut none);
        let limit = self.rules.overflow_after;
        if limit > 0 && *rows >= limit {
            tally.overflowed += 1;
            let head = KeyHead { owner: batch.owner, flags: OVERFLOW, ..KeyHead::default() };
            let found = stream.store.find_or_insert(&Key { head, tail: &[] }, batch.received_unix_nanos);
            *rows += u32::from(found.new);
            return (found.row, false);
        }
        let extra = self.extra(batch, stream, pending, span, around);
        let key = self.tail(batch, pending);
        let labels = admit(stream, owners, number, &key, batch.received_unix_nanos);
        let count = |owners: &mut Owners, owner| {
            if let Some(rows) = owners.get_mut(owner).and_then(|owner| owner.rows.get_mut(number)) {
                *rows += 1;
            }
        };
        if labels == 0 {
            count(owners, batch.owner);
            return (stream.store.insert(pending.hash, &key, batch.received_unix_nanos, extra), self.rules.exemplars);
        }
        tally.folded += 1;
        let owner = if labels & 1 == 0 { batch.owner } else { owners.overflow(batch.received_unix_nanos).unwrap_or(batch.owner) };
        let guard = stream.guard.as_mut();
        let mut folded =
            fold::fold(&key, owner, extra.as_deref(), labels, |name| guard.as_ref().map(|guard| guard.label_of(name)));
        let extra = folded.extra.take();
        let key = folded.key();
        let hash = stream.store.hash(&key);
        if let Some(row) = stream.store.find(hash, &key) {
            return (row, self.rules.exemplars);
        }
        count(owners, owner);
        (stream.store.insert(hash, &key, batch.received_unix_nanos, extra), self.rules.exemplars)
    }

    /// The attributes beside the default ones, as fields 1 of a message.
    fn extra<L>(
        &self,
        batch: &Batch<'_>,
        stream: &Stream<L>,
        pending: &Pending,
        span: &SpanEntry,
        around: &[AttributesView<'_>],
    ) -> Option<Box<[u8]>> {
        let mut out = Vec::new();
        if !self.rules.scopes.is_empty() {
            let scope = ScopeView::new(slice(batch.payload, span.scope));
            if !scope.name.is_empty() && self.rules.scopes.iter().any(|name| name == scope.name) {
                put_text_attribute(&mut out, 1, "span.instrumentation.scope.name", text::cut(scope.name));
                if !scope.version.is_empty() {
                    put_text_attribute(&mut out, 1, "span.instrumentation.scope.version", text::cut(scope.version));
                }
            }
        }
        if self.rules.sampling_method {
            let method = if pending.head.flags & ADJUSTED == 0 { "counted" } else { "extrapolated" };
            put_text_attribute(&mut out, 1, "sampling.method", method);
        }
        if !stream.dimensions.is_empty() {
            let attributes = AttributesView::of_span(slice(batch.payload, span.span));
            stream.dimensions.encode(attributes, around, 1, &mut out);
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Counts the events of spans: rows by the span's labels and by attributes of the event.
    fn events<L>(&mut self, batch: &Batch<'_>, owners: &mut Owners, number: usize, stream: &mut Stream<L>, tally: &mut Tally) {
        for (at, span) in batch.spans.iter().enumerate() {
            if !self.rules.kinds.get(usize::from(span.kind)).copied().unwrap_or(self.rules.kinds[0]) {
                continue;
            }
            let view = SpanView::from_entry(batch.payload, span);
            let mut events = view.events().peekable();
            if events.peek().is_none() {
                continue;
            }
            let (weight, adjusted) = match self.rules.adjusted {
                AdjustedCounts::Off => (1.0, false),
                _ => self.weight(Threshold::of(slice(batch.payload, span.trace_state))),
            };
            let value = span.end_unix_nanos.saturating_sub(span.start_unix_nanos) as f64 / self.rules.unit_nanos;
            let error = span.status == 2;
            for event in events {
                self.scratch.clear();
                let around = [event.attributes, batch.resource];
                let mut pending = self.key(batch, span, &Dimensions::default(), adjusted);
                self.scratch.extend_from_slice(slice(batch.payload, pending.tail));
                self.push_dimensions(&stream.dimensions, view.attributes, &around);
                pending.tail = (0, self.scratch.len() as u32);
                pending.in_scratch = true;
                pending.span = at as u32;
                pending.weight = weight;
                let key = self.tail(batch, &pending);
                pending.hash = stream.store.hash(&key);
                let (row, exemplars) = match stream.store.find(pending.hash, &key) {
                    Some(row) => (row, self.rules.exemplars),
                    None => self.make_row(batch, owners, number, stream, &pending, span, &around, tally),
                };
                let observation = Observation { value, weight, size: 0.0, received_unix_nanos: batch.received_unix_nanos, error };
                let bucket = stream.store.observe(row, &observation);
                if exemplars && span.trace_id != 0 {
                    stream.store.offer(row, bucket, batch.millis, error, || candidate(batch, span, value, error));
                }
            }
        }
    }
}

/// Which labels of a new row are folded: none, as long as there is room.
fn admit<L>(stream: &mut Stream<L>, owners: &Owners, number: usize, key: &Key<'_>, now_unix_nanos: u64) -> u64 {
    let Stream { store, guard: Some(guard), .. } = stream else { return 0 };
    let owner = key.head.owner;
    let owner_rows = || owners.get(owner).and_then(|owner| owner.rows.get(number)).map_or(0, |rows| *rows as usize);
    for (label, value) in fold::labels(guard, key) {
        guard.note(label, value);
    }
    // Each round folds one more label, or raises the budget a little when there is none left.
    for _ in 0..64 {
        let (scope, labels, full) = match guard.ask(owner, owner_rows(), store.len()) {
            Verdict::Make(labels) => return labels,
            Verdict::Warn(scope, labels) => (scope, labels, false),
            Verdict::Choose(scope) => (scope, guard.folded(scope), true),
        };
        let of_scope = |row: &Key<'_>| scope == Scope::All || row.head.owner == owner;
        let in_scope = if scope == Scope::All { store.len() } else { owner_rows() };
        let rows = sample(store, in_scope, of_scope).map(|row| fold::labels(guard, &row));
        // A service has but one name.
        let not = labels | u64::from(scope != Scope::All);
        let label = explosive(rows, not);
        let name = label.map_or("", |label| guard.name(label)).to_owned();
        let service = if scope == Scope::All { "" } else { owners.get(owner).map_or("", |owner| &owner.service) };
        let examples = fold::examples(store, &name, of_scope);
        if !full {
            tracing::warn!(service, rows = store.len(), label = name, ?examples, "a budget of rows is about to run out");
            return labels;
        }
        guard.fold(scope, label, if scope == Scope::All { store.len() } else { owner_rows() }, now_unix_nanos);
        if label.is_some() {
            tracing::warn!(
                service,
                rows = store.len(),
                label = name,
                ?examples,
                "a budget of rows is used up: new values of the label are folded, totals stay exact"
            );
        } else {
            tracing::warn!(service, rows = store.len(), "a budget of rows is used up and no label is left to fold");
        }
    }
    guard.folded(Scope::All) | guard.folded(Scope::Owner(owner))
}

/// Rows that are looked at to find the label that explodes.
const SAMPLE: usize = 4096;

/// About [`SAMPLE`] of the `count` rows that are wanted, spread over all of them: the choice holds ingest, so it must not take long.
fn sample<L>(store: &RowStore<L>, count: usize, wanted: impl Fn(&Key<'_>) -> bool) -> impl Iterator<Item = Key<'_>> {
    let one_in = count.div_ceil(SAMPLE).max(1) as u64;
    let (mut left, mut random) = (SAMPLE, RANDOM);
    store.rows().map(|(_, row, _)| row).filter(wanted).filter(move |_| {
        // Not each n-th, with which labels that take turns would hide.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let taken = left > 0 && (random >> 33).is_multiple_of(one_in);
        left -= usize::from(taken);
        taken
    })
}

#[cold]
fn candidate(batch: &Batch<'_>, span: &SpanEntry, value: f64, error: bool) -> Option<Candidate> {
    let id = |at: u32| batch.payload.get(at as usize..);
    Some(Candidate {
        trace_id: *id(span.trace_id)?.first_chunk()?,
        span_id: if span.span_id == 0 { [0; 8] } else { *id(span.span_id)?.first_chunk()? },
        value,
        unix_nanos: batch.received_unix_nanos,
        error,
    })
}

/// How much of a name is kept.
#[cold]
fn cut_len(name: &[u8]) -> u32 {
    let goes_on = |byte: &u8| byte & 0xc0 == 0x80;
    let mut len = VALUE_BYTES_MAX.min(name.len());
    while len > 0 && name.get(len).is_some_and(goes_on) {
        len -= 1;
    }
    len as u32
}

#[inline]
pub(super) fn slice(bytes: &[u8], (start, len): (u32, u32)) -> &[u8] {
    let start = start as usize;
    bytes.get(start..start.saturating_add(len as usize)).unwrap_or_default()
}
