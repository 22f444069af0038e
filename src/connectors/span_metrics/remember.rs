//! What is remembered: flushed, expired, saved and read back, a page at a time.
//!
//! 100,000 rows take 48 to 58 ms to write, in 103 bytes a row, 512 at a time. Who counts meanwhile writes, four rows at a time, those that it is the
//! first to change: a request of 512 spans of as many rows then takes 2 to 6 ms once (`cargo bench --bench red_update stalls`). Held for longer, once:
//! the owners (a copy of each) when a snapshot begins, and a flush of deltas, which is told as a whole or not at all.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::{
    Metrics, State,
    aggregate::{RANDOM, Stream, Tally},
    derive::Telling,
    labels::{Labelling, Shown},
    owners::{Identity, Owners},
    settings::{Settings, Temporality},
    streams,
};
use crate::{
    component::{Applied, Derived, Snapshot, SnapshotError, Stateful},
    registry::{
        RowStore, Scope,
        snapshot::{Damaged, Reader, Writer, fingerprint},
    },
    runtime::Clock,
    signal::{Batch, Context, Signal, UnixNanos},
};

/// The format of the bytes below.
const VERSION: u16 = 1;

/// What an empty state is made of.
pub(super) struct Blank {
    pub(super) settings: Settings,
    /// The bounds of the rows.
    pub(super) union: Vec<f64>,
    pub(super) identity: Identity,
    pub(super) labelling: Labelling,
}

/// The rows and what happens to them beside counting.
pub(super) struct Shared {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) blank: Blank,
    pub(super) telling: Option<Telling>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// Held by a flush: rows go only there.
    pub(super) flushing: Mutex<()>,
    /// Held while a snapshot is made.
    pub(super) saving: Mutex<()>,
    pub(super) resources_max: usize,
    pub(super) resource_expiry_nanos: u64,
    pub(super) row_expiry_nanos: u64,
}

impl Blank {
    pub(super) fn state(&self) -> State {
        let unknown = self.settings.unknown_service.as_deref().filter(|name| !name.is_empty());
        State {
            owners: Owners::new(self.identity.clone(), unknown),
            streams: streams(&self.settings, &self.union),
            labelling: self.labelling.clone(),
            random: RANDOM,
            told_unix_nanos: 0,
            dropped: Tally::default(),
            applied: Applied::default(),
            replaying: false,
            resumed_unix_nanos: 0,
        }
    }

    /// The settings that decide what the rows are and what is counted in them.
    fn shape(&self) -> Vec<(&'static str, String)> {
        let Settings { histogram, events, .. } = &self.settings;
        let exponential = (histogram.exponential.get(), self.settings.native_histograms.get());
        vec![
            ("dimensions", format!("{:?}", self.settings.dimensions)),
            ("calls_dimensions", format!("{:?}", self.settings.calls_dimensions)),
            ("exclude_dimensions", format!("{:?}", self.settings.exclude_dimensions)),
            ("histogram", format!("{} {:?} {:?} {exponential:?}", histogram.disable, histogram.unit, self.union)),
            ("histogram::dimensions", format!("{:?}", histogram.dimensions)),
            ("events", format!("{events:?}")),
            ("aggregation_temporality", format!("{:?}", self.settings.aggregation_temporality)),
            ("include_instrumentation_scope", format!("{:?}", self.settings.include_instrumentation_scope)),
            ("enable_metrics_sampling_method", self.settings.enable_metrics_sampling_method.to_string()),
            ("span_kinds", format!("{:?}", self.settings.span_kinds)),
            ("unknown_service", format!("{:?}", self.settings.unknown_service)),
            ("adjusted_counts", format!("{:?}", self.settings.adjusted_counts)),
            ("series_identity", format!("{:?}", self.identity)),
        ]
    }

    fn read(&self, snapshot: &Snapshot) -> Result<State, SnapshotError> {
        if snapshot.version != VERSION {
            return Err(SnapshotError::Version { found: snapshot.version, known: VERSION });
        }
        let damaged = |error: Damaged| SnapshotError::Damaged(error.to_string());
        let mut from = Reader::new(&snapshot.bytes);
        let names = from.settings(&self.shape()).map_err(damaged)?;
        if !names.is_empty() {
            return Err(SnapshotError::Settings { names });
        }
        let mut state = self.state();
        read_state(&mut state, &mut from).map_err(damaged)?;
        state.applied = snapshot.applied.clone();
        Ok(state)
    }
}

fn read_state(state: &mut State, from: &mut Reader<'_>) -> Result<(), Damaged> {
    state.random = from.number()?;
    state.told_unix_nanos = from.number()?;
    state.dropped.nameless = from.number()?;
    state.dropped.other_kind = from.number()?;
    state.owners.read(from)?;
    let State { owners, streams, .. } = state;
    for (number, stream) in streams.iter_mut().enumerate() {
        if from.flag()? {
            // A budget that is no longer asked for leaves nothing behind, a new one begins without folds.
            let mut without = super::fold::guard(super::GuardLimits::NONE, stream.dimensions.names());
            stream.guard.as_mut().unwrap_or(&mut without).read(from)?;
        }
        stream.store = RowStore::read(stream.store.shape().clone(), from)?;
        for (_, key, _) in stream.store.rows() {
            owners.count(key.head.owner, number).ok_or(from.damaged("a row of nobody"))?;
        }
    }
    from.end()
}

impl State {
    /// What is not in pages; the pages are written from now on as they stand now.
    fn begin_saving(&mut self, out: &mut Writer) -> Vec<Writer> {
        out.number(self.random);
        out.number(self.told_unix_nanos);
        out.number(self.dropped.nameless);
        out.number(self.dropped.other_kind);
        self.owners.save(out);
        let begin = |stream: &mut Stream<Shown>| {
            let mut out = Writer::new();
            out.option(stream.guard.as_ref(), |out, guard| guard.save(out));
            stream.store.begin_saving(&mut out);
            out
        };
        self.streams.iter_mut().map(begin).collect()
    }
}

impl Shared {
    pub(super) fn flush(&self, now: UnixNanos, last: bool, out: &mut Vec<Derived>) {
        let _one_at_a_time = self.flushing.lock();
        let mut state = self.state.lock();
        if state.replaying {
            return;
        }
        if let Some(telling) = &self.telling {
            let context = Arc::new(Context::default());
            let since = state.told_unix_nanos;
            for told in telling.tell(&mut state, now.0, since, last) {
                let batch = Batch {
                    signal: Signal::Metrics,
                    payload: told.payload,
                    items: told.points,
                    context: Arc::clone(&context),
                    index: None,
                };
                out.push(Derived { batch, received: now });
            }
            if telling.temporality == Temporality::Delta {
                telling.begin_again(&mut state, now.0);
            }
            state.told_unix_nanos = now.0;
        }
        self.expire(&mut state, now.0);
    }

    /// Takes out what was idle for too long, and resources beyond the cache.
    fn expire(&self, state: &mut MutexGuard<'_, State>, now: u64) {
        let resumed = state.resumed_unix_nanos;
        let idle = |last: u64, allowed: u64| allowed > 0 && now.saturating_sub(last.max(resumed)) >= allowed;
        if self.row_expiry_nanos > 0 {
            for number in 0..state.streams.len() {
                for page in 0.. {
                    let State { streams, owners, .. } = &mut **state;
                    let Some(stream) = streams.get_mut(number).filter(|stream| page < stream.store.pages()) else { break };
                    stream.store.remove_where(page, |key, last| {
                        let goes = idle(last, self.row_expiry_nanos);
                        if goes && let Some(rows) = owners.get_mut(key.head.owner).and_then(|owner| owner.rows.get_mut(number)) {
                            *rows = rows.saturating_sub(1);
                        }
                        goes
                    });
                    MutexGuard::bump(state);
                }
            }
        }
        let mut gone: Vec<u32> = state
            .owners
            .iter()
            .filter(|(_, owner)| idle(owner.last_unix_nanos, self.resource_expiry_nanos))
            .map(|(number, _)| number)
            .collect();
        // A service that has no row left is forgotten, however many there are; rows that are in use never go.
        if state.labelling.with_target {
            gone.extend(state.owners.beyond(self.resources_max));
        } else {
            // One that has folds stays until they are lifted: it would come back with all that made them.
            let folded = |number: u32| {
                state.streams.iter().filter_map(|stream| stream.guard.as_ref()).any(|g| g.folded(Scope::Owner(number)) != 0)
            };
            let empty = state.owners.iter().filter(|(_, owner)| owner.rows.iter().all(|rows| *rows == 0));
            gone.extend(empty.map(|(number, _)| number).filter(|number| !folded(*number)));
        }
        gone.sort_unstable();
        gone.dedup();
        state.remove_owners(&gone);
        let State { owners, streams, .. } = &mut **state;
        for (number, stream) in streams.iter_mut().enumerate() {
            let rows = stream.store.len();
            let Some(guard) = &mut stream.guard else { continue };
            guard.relax(now, rows, |owner| {
                owners.get(owner).and_then(|owner| owner.rows.get(number)).map_or(0, |rows| *rows as usize)
            });
            if number == 0 {
                self.metrics.tell_labels(guard);
            }
        }
    }
}

impl Stateful for Shared {
    fn snapshot(&self) -> Snapshot {
        let _one_at_a_time = self.saving.lock();
        let shape = self.blank.shape();
        loop {
            let mut out = Writer::new();
            out.settings(&shape);
            let (heads, applied) = {
                let mut state = self.state.lock();
                (state.begin_saving(&mut out), state.applied.clone())
            };
            for number in 0..heads.len() {
                loop {
                    let mut state = self.state.lock();
                    let more = state.streams.get_mut(number).is_some_and(|stream| stream.store.save_page());
                    // Between two pages it is the others' turn.
                    MutexGuard::unlock_fair(state);
                    if !more {
                        break;
                    }
                }
            }
            let pages: Option<Vec<_>> = self.state.lock().streams.iter_mut().map(|stream| stream.store.saved()).collect();
            // Another state took this one's place meanwhile.
            let Some(pages) = pages else { continue };
            for (head, pages) in heads.into_iter().zip(pages) {
                out.raw(&head.into_bytes());
                pages.finish(&mut out);
            }
            return Snapshot { version: VERSION, fingerprint: fingerprint(&shape), applied, bytes: out.into_bytes() };
        }
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let _one_at_a_time = self.flushing.lock();
        let mut read = match self.blank.read(snapshot) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(connector = %self.metrics.id, %error, "what was counted before is not used; counting begins anew");
                return Err(error);
            }
        };
        let mut state = self.state.lock();
        (read.replaying, read.resumed_unix_nanos) = (state.replaying, state.resumed_unix_nanos);
        self.metrics.rows.set(read.streams.iter().map(|stream| stream.store.len()).sum::<usize>() as i64);
        self.metrics.resources.set(read.owners.len() as i64);
        let before = std::mem::replace(&mut *state, read);
        drop(state);
        drop(before);
        Ok(())
    }

    fn replaying(&self, replaying: bool) {
        let _one_at_a_time = self.flushing.lock();
        let mut state = self.state.lock();
        if state.replaying && !replaying {
            state.resumed_unix_nanos = self.clock.now().0;
            state.streams.iter_mut().for_each(|stream| stream.store.all_were_seen());
        }
        state.replaying = replaying;
    }

    fn applied(&self) -> Applied {
        self.state.lock().applied.clone()
    }

    fn resume(&self, applied: &Applied) {
        self.state.lock().applied.clone_from(applied);
    }

    fn flush(&self, now: UnixNanos, last: bool, out: &mut Vec<Derived>) {
        self.flush(now, last, out);
    }

    fn tells_once(&self) -> bool {
        self.telling.as_ref().is_some_and(|telling| telling.temporality == Temporality::Delta)
    }
}
