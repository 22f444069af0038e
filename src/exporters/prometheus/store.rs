//! The series that OTLP metrics became, until they expire.
//!
//! In:   points, by [`Store::update`], a lock a family held for the points of one metric of one request.
//! Out:  [`Snapshot`]s of a page, which copy a thousand rows at a time under that lock and write them without it.
//! Full: points of new series are ignored (`full`) once `max_series` are held; the others go on.
//! Lost: a series that got no point for `metric_expiration`, or a point without a recorded value.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard, RwLock};
use smallvec::SmallVec;

use super::{
    points::{Ignored, Incoming, Point, Taken, Value},
    saved::{Before, many, read_kind, save_kind},
};
use crate::{
    exposition::{Bucket, Family, FamilyKind, LabelBlock, Page, PageSource},
    registry::snapshot::{Damaged, Reader, Saving, Writer},
};

/// What a point's resource, scope and attributes hash to, as their bytes stand: 128 bits of two keyed hashes.
pub(super) type RawKey = (u64, u64);

/// Orders of attributes that are remembered for one series; senders have one.
const ALIASES_MAX: usize = 4;
/// Rows copied under one hold of a family's lock.
const COPIED: usize = 1024;
/// Rows written into a snapshot under one hold.
const SAVED: usize = 256;

/// (job, instance) → what `target_info` says.
type Infos = HashMap<(Option<String>, Option<String>), Info>;

struct Info {
    labels: Arc<LabelBlock>,
    updated: u64,
}

pub(super) struct Store {
    families: RwLock<HashMap<String, Arc<Rows>>>,
    infos: Mutex<Infos>,
    room: Arc<Room>,
}

/// How many series there are, of so many.
#[derive(Debug)]
struct Room {
    taken: AtomicUsize,
    max: usize,
}

impl Room {
    fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max
    }

    fn take(&self) -> bool {
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < self.max).then_some(taken + 1)).is_ok()
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a family gets no series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoFamily {
    /// The name is taken by one of this kind.
    Kind(FamilyKind),
    /// There is no room for another series.
    Full,
}

/// The series of one family.
pub(super) struct Rows {
    name: String,
    kind: FamilyKind,
    unit: String,
    inner: Mutex<Inner>,
    room: Arc<Room>,
}

#[derive(Default)]
struct Inner {
    help: String,
    /// Taken out of the store: who still holds it looks it up anew.
    gone: bool,
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    by_key: HashMap<RawKey, u32, foldhash::fast::RandomState>,
    by_labels: HashTable<u32>,
    bounds: Option<Arc<[f64]>>,
    /// Set while the rows are written down as they stood when it was.
    saving: Option<Box<Saving>>,
}

struct Row {
    labels: Arc<LabelBlock>,
    keys: SmallVec<[RawKey; 1]>,
    /// When the last point came.
    updated: u64,
    point: Point,
}

/// The rows of a family, open for the points of one metric.
pub(super) struct Open<'a> {
    inner: MutexGuard<'a, Inner>,
    room: &'a Room,
    /// The time of the request, in nanoseconds.
    now: u64,
}

impl Store {
    /// One for at most `max` series.
    pub(super) fn new(max: usize) -> Self {
        let room = Arc::new(Room { taken: AtomicUsize::new(0), max });
        Self { families: RwLock::default(), infos: Mutex::default(), room }
    }

    pub(super) fn series(&self) -> usize {
        self.room.taken.load(Ordering::Relaxed)
    }

    /// The rows of a family, made if need be.
    pub(super) fn family(&self, name: &str, kind: FamilyKind, unit: &str) -> Result<Arc<Rows>, NoFamily> {
        if let Some(rows) = self.families.read().get(name) {
            if rows.kind == kind {
                return Ok(rows.clone());
            }
            if !rows.inner.lock().is_empty() {
                return Err(NoFamily::Kind(rows.kind));
            }
        }
        let mut families = self.families.write();
        if let Some(rows) = families.get(name) {
            if rows.kind == kind {
                return Ok(rows.clone());
            }
            let mut inner = rows.inner.lock();
            if !inner.is_empty() {
                return Err(NoFamily::Kind(rows.kind));
            }
            inner.gone = true;
        } else if self.room.is_full() {
            return Err(NoFamily::Full);
        }
        let rows = Arc::new(Rows {
            name: name.to_owned(),
            kind,
            unit: unit.to_owned(),
            inner: Mutex::default(),
            room: self.room.clone(),
        });
        families.insert(name.to_owned(), rows.clone());
        Ok(rows)
    }

    pub(super) fn inform(&self, job: Option<&str>, instance: Option<&str>, labels: &LabelBlock, now: u64) {
        let mut infos = self.infos.lock();
        let key = (job.map(str::to_owned), instance.map(str::to_owned));
        if infos.len() >= self.room.max && !infos.contains_key(&key) {
            return;
        }
        let known = infos.entry(key);
        let info = known.or_insert_with(|| Info { labels: Arc::new(labels.clone()), updated: now });
        info.updated = now;
        if *info.labels != *labels {
            info.labels = Arc::new(labels.clone());
        }
    }

    /// Forgets what got nothing since `oldest`.
    pub(super) fn sweep(&self, oldest: u64) {
        self.infos.lock().retain(|_, info| info.updated >= oldest);
        let families: Vec<Arc<Rows>> = self.families.read().values().cloned().collect();
        for rows in families {
            let mut from = 0;
            // In pieces, so that nobody waits for the whole of a large family.
            while let Some(next) = rows.expire(from, oldest) {
                from = next;
            }
            if rows.inner.lock().is_empty() {
                let mut families = self.families.write();
                let mut inner = rows.inner.lock();
                // Only this very family, and only if it stayed empty.
                if inner.is_empty() && families.get(&rows.name).is_some_and(|known| Arc::ptr_eq(known, &rows)) {
                    inner.gone = true;
                    families.remove(&rows.name);
                }
            }
        }
    }

    /// What a page shows. Series without a point since `oldest` are left out.
    pub(super) fn snapshot(&self, oldest: u64, times: bool, info_name: &str) -> Snapshot {
        let families = self.families.read().values().cloned().collect();
        let mut infos: Vec<_> =
            self.infos.lock().values().filter(|info| info.updated >= oldest).map(|info| info.labels.clone()).collect();
        infos.sort_unstable_by(|a, b| a.text().cmp(b.text()));
        Snapshot { families, infos, oldest, times, info_name: info_name.to_owned(), unready: None }
    }

    /// Writes what is not in rows, and begins to write the rows of all families as they stand now, for [`Families::save`]. Nobody changes
    /// the store meanwhile.
    pub(super) fn begin_saving(&self, out: &mut Writer) -> Families {
        let infos = self.infos.lock();
        let mut sorted: Vec<_> = infos.iter().collect();
        sorted.sort_unstable_by_key(|(target, _)| *target);
        out.count(sorted.len());
        for ((job, instance), info) in sorted {
            out.option(job.as_deref(), Writer::text);
            out.option(instance.as_deref(), Writer::text);
            out.text(info.labels.text());
            out.number(info.updated);
        }
        drop(infos);
        let mut families: Vec<Arc<Rows>> = self.families.read().values().cloned().collect();
        families.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Families(families.into_iter().map(|rows| (rows.begin_saving(), rows)).collect())
    }

    /// Reads what [`begin_saving`](Self::begin_saving) and [`Families::save`] wrote.
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let store = Self::new(usize::MAX);
        let text = |from: &mut Reader<'_>| from.text().map(str::to_owned);
        let infos = many(from, 4, |from| {
            let target = (from.option(text)?, from.option(text)?);
            Ok((target, Info { labels: read_labels(from)?, updated: from.number()? }))
        })?;
        *store.infos.lock() = infos.into_iter().collect();
        let families = many(from, 6, |from| Rows::read(from, &store.room))?;
        let count = families.len();
        let by_name: HashMap<String, Arc<Rows>> = families.into_iter().map(|rows| (rows.name.clone(), Arc::new(rows))).collect();
        if by_name.len() != count {
            return Err(from.damaged("a family that is there twice"));
        }
        *store.families.write() = by_name;
        from.end()?;
        Ok(store)
    }

    /// Takes over what another store holds. Nobody changes this one meanwhile.
    pub(super) fn become_other(&self, other: Self) {
        let mut families = self.families.write();
        for rows in families.values() {
            rows.inner.lock().gone = true;
        }
        // New series are counted where all are.
        *families = other.families.into_inner();
        *self.infos.lock() = other.infos.into_inner();
        self.room.taken.store(0, Ordering::Relaxed);
        for rows in families.values_mut() {
            let inner = std::mem::take(&mut *rows.inner.lock());
            self.room.taken.fetch_add(inner.by_labels.len(), Ordering::Relaxed);
            *rows = Arc::new(Rows {
                name: rows.name.clone(),
                kind: rows.kind,
                unit: rows.unit.clone(),
                inner: Mutex::new(inner),
                room: self.room.clone(),
            });
        }
    }
}

/// Families whose rows are being written down.
pub(super) struct Families(Vec<(Writer, Arc<Rows>)>);

impl Families {
    /// Writes the rows, holding each family for some of them at a time. False: the store became another meanwhile.
    pub(super) fn save(self, out: &mut Writer) -> bool {
        out.count(self.0.len());
        for (head, rows) in self.0 {
            loop {
                let mut inner = rows.inner.lock();
                let more = inner.save_next();
                MutexGuard::unlock_fair(inner);
                if !more {
                    break;
                }
            }
            let Some(saving) = rows.inner.lock().saving.take() else { return false };
            out.raw(&head.into_bytes());
            saving.finish(out);
        }
        true
    }
}

fn read_labels(from: &mut Reader<'_>) -> Result<Arc<LabelBlock>, Damaged> {
    let text = from.text()?;
    LabelBlock::of_text(text).map(Arc::new).ok_or(from.damaged("labels that cannot be"))
}

impl Rows {
    /// `None`: it was taken out of the store meanwhile.
    pub(super) fn open(&self, help: &str, now: u64) -> Option<Open<'_>> {
        let mut inner = self.inner.lock();
        if inner.gone {
            return None;
        }
        if inner.help.is_empty() {
            help.clone_into(&mut inner.help);
        }
        Some(Open { inner, room: &self.room, now })
    }

    fn begin_saving(&self) -> Writer {
        let mut out = Writer::new();
        let mut inner = self.inner.lock();
        out.text(&self.name);
        save_kind(self.kind, &mut out);
        out.text(&self.unit);
        out.text(&inner.help);
        out.count(inner.free.len());
        inner.free.iter().for_each(|at| out.number(*at));
        out.count(inner.rows.len());
        inner.saving = Some(Box::new(Saving::of(inner.rows.len().div_ceil(SAVED))));
        out
    }

    fn read(from: &mut Reader<'_>, room: &Arc<Room>) -> Result<Self, Damaged> {
        let (name, kind, unit) = (from.text()?.to_owned(), read_kind(from)?, from.text()?.to_owned());
        let mut inner = Inner { help: from.text()?.to_owned(), ..Inner::default() };
        inner.free = many(from, 1, Reader::small)?;
        let mut before = Before::default();
        for at in 0..from.count(1)? {
            if at % SAVED == 0 {
                before = Before::default();
            }
            if !from.flag()? {
                inner.rows.push(None);
                continue;
            }
            let labels = read_labels(from)?;
            if inner.find(&labels).is_some() {
                return Err(from.damaged("a series that is there twice"));
            }
            let row = Row { labels, keys: SmallVec::new(), updated: from.number()?, point: Point::read(&mut before, from)? };
            inner.rows.push(Some(row));
            inner.link(at as u32);
        }
        let mut seen = HashSet::with_capacity(inner.free.len());
        let is_free = |at: &u32| inner.rows.get(*at as usize).is_some_and(Option::is_none);
        if !inner.free.iter().all(|at| is_free(at) && seen.insert(*at)) || seen.len() + inner.by_labels.len() != inner.rows.len()
        {
            return Err(from.damaged("a place that is not free"));
        }
        Ok(Self { name, kind, unit, inner: Mutex::new(inner), room: room.clone() })
    }

    /// Removes expired rows from number `from` on; the number to go on with.
    fn expire(&self, from: usize, oldest: u64) -> Option<usize> {
        let mut inner = self.inner.lock();
        let to = (from + COPIED * 4).min(inner.rows.len());
        for at in from..to {
            if inner.rows.get(at).is_some_and(|row| row.as_ref().is_some_and(|row| row.updated < oldest)) {
                inner.remove(at as u32);
                self.room.give_back();
            }
        }
        (to < inner.rows.len()).then_some(to)
    }

    /// Copies rows from number `from` on; the number to go on with.
    fn copy(&self, from: usize, oldest: u64, into: &mut Vec<(Arc<LabelBlock>, Point)>) -> Option<usize> {
        let inner = self.inner.lock();
        into.clear();
        let to = (from + COPIED).min(inner.rows.len());
        let rows = inner.rows.get(from..to).unwrap_or_default().iter().flatten();
        into.extend(rows.filter(|row| row.updated >= oldest).map(|row| (row.labels.clone(), row.point.clone())));
        (to < inner.rows.len()).then_some(to)
    }
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.by_labels.is_empty()
    }

    fn find(&self, labels: &LabelBlock) -> Option<u32> {
        self.by_labels
            .find(labels.identity(), |at| {
                self.rows.get(*at as usize).and_then(Option::as_ref).is_some_and(|row| *row.labels == *labels)
            })
            .copied()
    }

    /// A row is about to change.
    #[inline]
    fn before_change(&mut self, at: usize) {
        if self.saving.is_some() {
            self.save(at / SAVED);
        }
    }

    /// Writes the next rows; false: all are written.
    fn save_next(&mut self) -> bool {
        let Some(page) = self.saving.as_mut().and_then(|saving| saving.due()) else { return false };
        self.save(page);
        true
    }

    #[cold]
    fn save(&mut self, page: usize) {
        let Some(saving) = self.saving.as_mut().filter(|saving| saving.wants(page)) else { return };
        let (mut out, mut before) = (Writer::new(), Before::default());
        for row in self.rows.iter().skip(page * SAVED).take(SAVED) {
            out.option(row.as_ref(), |out, row| {
                out.text(row.labels.text());
                out.number(row.updated);
                row.point.save(&mut before, out);
            });
        }
        saving.put(page, out.into_bytes());
    }

    fn remove(&mut self, at: u32) {
        self.before_change(at as usize);
        let Some(row) = self.rows.get_mut(at as usize).and_then(Option::take) else { return };
        for key in &row.keys {
            self.by_key.remove(key);
        }
        if let Ok(entry) = self.by_labels.find_entry(row.labels.identity(), |known| *known == at) {
            entry.remove();
        }
        self.free.push(at);
    }

    fn insert(&mut self, row: Row) {
        let keys = row.keys.clone();
        self.before_change(self.free.last().map_or(self.rows.len(), |at| *at as usize));
        let at = if let Some(at) = self.free.pop() {
            if let Some(slot) = self.rows.get_mut(at as usize) {
                *slot = Some(row);
            }
            at
        } else {
            self.rows.push(Some(row));
            (self.rows.len() - 1) as u32
        };
        for key in keys {
            self.by_key.insert(key, at);
        }
        self.link(at);
    }

    fn link(&mut self, at: u32) {
        let Self { rows, by_labels, .. } = self;
        let identity = |at: &u32| rows.get(*at as usize).and_then(Option::as_ref).map_or(0, |row| row.labels.identity());
        by_labels.insert_unique(identity(&at), at, identity);
    }
}

impl Open<'_> {
    /// Gives the series of `key` a point. `labels` are made only if the key was not seen before.
    pub(super) fn update(
        &mut self,
        key: RawKey,
        labels: impl FnOnce() -> LabelBlock,
        incoming: Incoming,
    ) -> Result<Taken, Ignored> {
        let now = self.now;
        let at = match self.locate(key, labels) {
            Ok(at) => at,
            Err(_) if !self.room.take() => return Err(Ignored::Full),
            Err(labels) => {
                let row =
                    Row { labels: Arc::new(labels), keys: SmallVec::from_iter([key]), updated: now, point: Point::new(incoming) };
                self.inner.insert(row);
                return Ok(Taken::Plainly);
            }
        };
        self.inner.before_change(at as usize);
        let Some(row) = self.inner.rows.get_mut(at as usize).and_then(Option::as_mut) else { return Ok(Taken::Plainly) };
        let taken = row.point.take(incoming)?;
        row.updated = now;
        Ok(taken)
    }

    /// The point said that there is no value any more.
    pub(super) fn forget(&mut self, key: RawKey, labels: impl FnOnce() -> LabelBlock) {
        if let Ok(at) = self.locate(key, labels) {
            self.inner.remove(at);
            self.room.give_back();
        }
    }

    fn locate(&mut self, key: RawKey, labels: impl FnOnce() -> LabelBlock) -> Result<u32, LabelBlock> {
        if let Some(at) = self.inner.by_key.get(&key) {
            return Ok(*at);
        }
        let labels = labels();
        let Some(at) = self.inner.find(&labels) else { return Err(labels) };
        if let Some(row) = self.inner.rows.get_mut(at as usize).and_then(Option::as_mut)
            && row.keys.len() < ALIASES_MAX
        {
            row.keys.push(key);
            self.inner.by_key.insert(key, at);
        }
        Ok(at)
    }

    /// The same bounds as the series before has, if they are the same.
    pub(super) fn bounds(&mut self, bounds: &[f64]) -> Arc<[f64]> {
        match &self.inner.bounds {
            Some(known) if **known == *bounds => known.clone(),
            _ => {
                let shared: Arc<[f64]> = bounds.into();
                self.inner.bounds = Some(shared.clone());
                shared
            }
        }
    }
}

/// The families of a store at the time of a scrape; their rows are those of the time of writing.
pub(super) struct Snapshot {
    families: Vec<Arc<Rows>>,
    infos: Vec<Arc<LabelBlock>>,
    oldest: u64,
    times: bool,
    info_name: String,
    /// Why it must not be shown yet.
    pub(super) unready: Option<&'static str>,
}

impl PageSource for Snapshot {
    fn unready(&self) -> Option<&'static str> {
        self.unready
    }

    fn families(&self) -> Vec<Family> {
        let of_rows = |rows: &Arc<Rows>| Family {
            name: Cow::Owned(rows.name.clone()),
            kind: rows.kind,
            help: Cow::Owned(rows.inner.lock().help.clone()),
            unit: Cow::Owned(rows.unit.clone()),
        };
        let info = Family {
            name: Cow::Owned(self.info_name.clone()),
            kind: FamilyKind::Info,
            help: "Target metadata".into(),
            unit: "".into(),
        };
        self.families.iter().map(of_rows).chain([info]).collect()
    }

    fn render(&self, number: usize, page: &mut Page<'_>) {
        let Some(rows) = self.families.get(number) else {
            for labels in &self.infos {
                page.number(labels, 1.0, 0, None, None);
            }
            return;
        };
        let mut copied = Vec::with_capacity(COPIED);
        let mut from = Some(0);
        while let Some(at) = from.filter(|_| !page.is_gone()) {
            from = rows.copy(at, self.oldest, &mut copied);
            for (labels, point) in &copied {
                self.write(labels, point, page);
            }
        }
    }
}

impl Snapshot {
    fn write(&self, labels: &LabelBlock, point: &Point, page: &mut Page<'_>) {
        let time = (self.times && point.time != 0).then_some(point.time);
        match &point.value {
            Value::Number(value, exemplar) => page.number(labels, *value, point.start, exemplar.as_deref(), time),
            Value::Classic(classic) => {
                let mut cumulative = 0_u64;
                let mut exemplars = classic.exemplars.iter().peekable();
                let bounds = classic.bounds.iter().copied().chain([f64::INFINITY]);
                let mut buckets: Vec<Bucket<'_>> = Vec::with_capacity(classic.counts.len());
                for (at, (bound, count)) in bounds.zip(&classic.counts).enumerate() {
                    cumulative = cumulative.saturating_add(*count);
                    let exemplar = exemplars.next_if(|(bucket, _)| *bucket == at).map(|(_, exemplar)| exemplar);
                    buckets.push(Bucket { upper_bound: bound, cumulative: cumulative as f64, exemplar });
                }
                // The last bucket is what the format counts as all there are.
                let count = classic.count.max(cumulative);
                if let Some(last) = buckets.last_mut().filter(|last| last.upper_bound == f64::INFINITY) {
                    last.cumulative = count as f64;
                }
                page.histogram(labels, classic.sum, count as f64, point.start, &buckets, None, time);
            }
            Value::Exponential(exponential) => {
                let native = exponential.native();
                page.histogram(labels, exponential.sum, exponential.count() as f64, point.start, &[], native.as_ref(), time);
            }
            Value::Summary(summary) => {
                page.summary(labels, summary.sum, summary.count as f64, point.start, &summary.quantiles, time);
            }
        }
    }
}
