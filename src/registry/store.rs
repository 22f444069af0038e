//! The row store: rows in pages, found by a hash table of small slots.
//!
//! One row holds what several metric families say about one label set: one bucket array over the union of their bounds, one sum. Only the
//! bucket that a value falls into is counted, so that an update touches two cache lines of numbers; a scrape adds up.
//!
//! A row's place never changes while it lives. Vacant places are used again, and a page is what a scrape copies under the lock.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::{
    Candidate, Chosen, ExponentialHistogram,
    exemplars::{Exemplars, Gate},
    snapshot::{Damaged, Reader, Saving, Writer},
};

/// What the rows of a store count.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Upper bounds, inclusive, rising; none for a plain counter.
    pub bounds: Box<[f64]>,
    /// Each row also has a histogram with at most so many buckets, from this scale on.
    pub exponential: Option<(u32, i32)>,
}

/// The fixed part of a row's key; what its bits mean is the caller's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyHead {
    /// Whose row it is.
    pub owner: u32,
    /// How many bytes of the tail are the name.
    pub name_len: u32,
    pub code: u8,
    pub flags: u8,
}

const HEAD_LEN: usize = 10;

impl KeyHead {
    #[inline]
    fn to_bytes(self) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        let (owner, rest) = bytes.split_at_mut(4);
        owner.copy_from_slice(&self.owner.to_le_bytes());
        let (name, rest) = rest.split_at_mut(4);
        name.copy_from_slice(&self.name_len.to_le_bytes());
        rest.copy_from_slice(&[self.code, self.flags]);
        bytes
    }

    fn from_bytes(bytes: &[u8; HEAD_LEN]) -> Self {
        let [numbers @ .., code, flags] = *bytes;
        let numbers = u64::from_le_bytes(numbers);
        Self { owner: numbers as u32, name_len: (numbers >> 32) as u32, code, flags }
    }
}

/// A borrowed key. Looking it up allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    pub head: KeyHead,
    pub tail: &'a [u8],
}

/// A key of a row; short ones lie inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey(SmallVec<[u8; 40]>);

impl StoredKey {
    fn new(key: &Key<'_>) -> Self {
        let mut bytes = SmallVec::with_capacity(HEAD_LEN + key.tail.len());
        bytes.extend_from_slice(&key.head.to_bytes());
        bytes.extend_from_slice(key.tail);
        Self(bytes)
    }

    #[inline]
    fn is(&self, key: &Key<'_>) -> bool {
        self.0.split_first_chunk::<HEAD_LEN>().is_some_and(|(head, tail)| *head == key.head.to_bytes() && tail == key.tail)
    }

    pub fn get(&self) -> Key<'_> {
        match self.0.split_first_chunk::<HEAD_LEN>() {
            Some((head, tail)) => Key { head: KeyHead::from_bytes(head), tail },
            None => Key { head: KeyHead::default(), tail: &[] },
        }
    }
}

/// The place of a row; good as long as the row lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(u32);

/// One span, as far as a row is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// In the unit of the bounds.
    pub value: f64,
    /// How many spans it stands for.
    pub weight: f64,
    /// Bytes; added up beside the values.
    pub size: f64,
    pub received_unix_nanos: u64,
    pub error: bool,
}

/// A row that was there, or one just made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub row: RowId,
    pub new: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The upper half of the hash; the table itself uses the rest.
    tag: u32,
    row: u32,
}

/// What an update reads first: one cache line.
#[derive(Debug, Clone)]
struct Front {
    key: StoredKey,
    gate: Gate,
    exemplars: Option<Box<Exemplars>>,
}

/// What an update does not read.
#[derive(Debug, Clone)]
struct Side<L> {
    start_unix_nanos: u64,
    /// Attributes beside those in the key, encoded; `None` for none.
    extra: Option<Box<[u8]>>,
    labels: Option<Arc<L>>,
    exponential: Option<Box<ExponentialHistogram>>,
    hash: u64,
    /// No flush has told of it yet.
    fresh: bool,
    live: bool,
    /// The number of scrapes there had been when it came.
    born: u32,
}

impl<L> Side<L> {
    fn vacant() -> Self {
        Self { start_unix_nanos: 0, extra: None, labels: None, exponential: None, hash: 0, fresh: false, live: false, born: 0 }
    }
}

/// Rows of a page.
const PAGE: usize = 512;
/// Rows that are written into a snapshot together. Whoever counts while one is made writes those of a piece that it is the first to change: with
/// whole pages, a request of 512 spans of as many rows wrote all 100,000 of them.
const PIECE: usize = 4;
const PIECES: usize = PAGE / PIECE;
/// Numbers of a row before its buckets: sum, size, last update.
const FIXED: usize = 3;

#[derive(Debug)]
struct PageOfRows<L> {
    fronts: Vec<Front>,
    numbers: Vec<u64>,
    sides: Vec<Side<L>>,
}

/// Rows by key. `L` is what the owner keeps to show a row (its labels), made when it is first shown.
#[derive(Debug)]
pub struct RowStore<L> {
    shape: Shape,
    stride: usize,
    hasher: foldhash::fast::RandomState,
    table: HashTable<Slot>,
    pages: Vec<PageOfRows<L>>,
    vacant: Vec<u32>,
    live: usize,
    scrapes: u32,
    /// Set while the rows are written down as they stood when it was.
    saving: Option<Box<Saving>>,
}

/// A copy of one row, made under the lock and read without it.
#[derive(Debug)]
pub struct RowCopy<L> {
    pub labels: Arc<L>,
    pub start_unix_nanos: u64,
    pub last_unix_nanos: u64,
    pub sum: f64,
    pub size: f64,
    pub owner: u32,
    /// No scrape before the present one showed it.
    pub first_shown: bool,
    pub exemplars: Vec<Chosen>,
    pub exponential: Option<Box<ExponentialHistogram>>,
}

impl<L> Clone for RowCopy<L> {
    fn clone(&self) -> Self {
        Self {
            labels: Arc::clone(&self.labels),
            exemplars: self.exemplars.clone(),
            exponential: self.exponential.clone(),
            ..*self
        }
    }
}

impl<L> RowStore<L> {
    pub fn new(shape: Shape) -> Self {
        let stride = FIXED + shape.bounds.len() + 1;
        Self {
            shape,
            stride,
            hasher: foldhash::fast::RandomState::default(),
            table: HashTable::new(),
            pages: Vec::new(),
            vacant: Vec::new(),
            live: 0,
            scrapes: 0,
            saving: None,
        }
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Rows that live.
    pub fn len(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[inline]
    pub fn hash(&self, key: &Key<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let head = key.head;
        hasher.write_u64(u64::from(head.owner) | u64::from(head.name_len) << 32);
        hasher.write_u64(u64::from(head.code) | u64::from(head.flags) << 8);
        hasher.write(key.tail);
        hasher.finish()
    }

    #[inline]
    pub fn find(&self, hash: u64, key: &Key<'_>) -> Option<RowId> {
        let tag = (hash >> 32) as u32;
        let slot = self.table.find(hash, |slot| slot.tag == tag && self.front(slot.row).is_some_and(|front| front.key.is(key)));
        slot.map(|slot| RowId(slot.row))
    }

    /// The place where the key's row most likely is, without a look at the row: for fetching it before it is needed.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<RowId> {
        let tag = (hash >> 32) as u32;
        self.table.find(hash, |slot| slot.tag == tag).map(|slot| RowId(slot.row))
    }

    /// Reads a little of a row, so that it is in the cache when its turn comes.
    #[inline]
    pub fn touch(&self, row: RowId) -> u64 {
        let (page, at) = place(row.0);
        let Some(page) = self.pages.get(page) else { return 0 };
        let front = page.fronts.get(at).map_or(0, Front::first_byte);
        let numbers = at * self.stride;
        let first = page.numbers.get(numbers).copied().unwrap_or(0);
        let later = page.numbers.get(numbers + 8).copied().unwrap_or(0);
        front ^ first ^ later
    }

    /// Makes a row for a key that [`find`](Self::find) did not find.
    pub fn insert(&mut self, hash: u64, key: &Key<'_>, start_unix_nanos: u64, extra: Option<Box<[u8]>>) -> RowId {
        let row = match self.vacant.pop() {
            Some(row) => row,
            None => self.grow(),
        };
        let exponential = self.shape.exponential.map(|(max_size, scale)| Box::new(ExponentialHistogram::new(max_size, scale)));
        let (page, at) = place(row);
        let stride = self.stride;
        self.before_change(row);
        if let Some(page) = self.pages.get_mut(page)
            && let (Some(front), Some(side)) = (page.fronts.get_mut(at), page.sides.get_mut(at))
        {
            *front = Front { key: StoredKey::new(key), gate: Gate::default(), exemplars: None };
            *side =
                Side { start_unix_nanos, extra, labels: None, exponential, hash, fresh: true, live: true, born: self.scrapes };
            if let Some(numbers) = page.numbers.get_mut(at * stride..(at + 1) * stride) {
                numbers.fill(0);
                if let Some(last) = numbers.get_mut(2) {
                    *last = start_unix_nanos;
                }
            }
        }
        let Self { table, pages, .. } = self;
        let rehash = |slot: &Slot| {
            let (page, at) = place(slot.row);
            pages.get(page).and_then(|page| page.sides.get(at)).map_or(0, |side| side.hash)
        };
        table.insert_unique(hash, Slot { tag: (hash >> 32) as u32, row }, rehash);
        self.live += 1;
        RowId(row)
    }

    fn grow(&mut self) -> u32 {
        // How many rows it has is written with its first piece.
        self.before_changes(self.pages.len().saturating_sub(1));
        let full = self.pages.last().is_none_or(|page| page.fronts.len() == PAGE);
        if full {
            // The first page grows as it is needed, so that a small store is small.
            let rows = if self.pages.is_empty() { 16 } else { PAGE };
            self.pages.push(PageOfRows {
                fronts: Vec::with_capacity(rows),
                numbers: Vec::with_capacity(rows * self.stride),
                sides: Vec::with_capacity(rows),
            });
        }
        let number = (self.pages.len() - 1) * PAGE;
        let Some(page) = self.pages.last_mut() else { return 0 };
        page.fronts.push(Front { key: StoredKey(SmallVec::new()), gate: Gate::default(), exemplars: None });
        page.sides.push(Side::vacant());
        page.numbers.resize(page.numbers.len() + self.stride, 0);
        (number + page.fronts.len() - 1) as u32
    }

    /// Counts one observation. Returns the bucket it fell into.
    #[inline]
    pub fn observe(&mut self, row: RowId, observation: &Observation) -> u32 {
        let bucket = self.shape.bounds.partition_point(|bound| *bound < observation.value);
        let (page, at) = place(row.0);
        self.before_change(row.0);
        let Some(page) = self.pages.get_mut(page) else { return 0 };
        let start = at * self.stride;
        if let Some(numbers) = page.numbers.get_mut(start..start + self.stride)
            && let Some((fixed, buckets)) = numbers.split_first_chunk_mut::<FIXED>()
        {
            fixed[0] = (f64::from_bits(fixed[0]) + observation.value * observation.weight).to_bits();
            fixed[1] = (f64::from_bits(fixed[1]) + observation.size * observation.weight).to_bits();
            fixed[2] = fixed[2].max(observation.received_unix_nanos);
            if let Some(count) = buckets.get_mut(bucket) {
                *count = (f64::from_bits(*count) + observation.weight).to_bits();
            }
        }
        if self.shape.exponential.is_some()
            && let Some(histogram) = page.sides.get_mut(at).and_then(|side| side.exponential.as_mut())
        {
            histogram.observe(observation.value, observation.weight);
        }
        bucket as u32
    }

    /// Offers an exemplar; `candidate` is only asked for when the row wants to look at one.
    #[inline]
    pub fn offer(&mut self, row: RowId, bucket: u32, millis: u32, error: bool, candidate: impl FnOnce() -> Option<Candidate>) {
        let (page, at) = place(row.0);
        self.before_change(row.0);
        let Some(front) = self.pages.get_mut(page).and_then(|page| page.fronts.get_mut(at)) else { return };
        if front.gate.opens(bucket, millis, error)
            && let Some(candidate) = candidate()
        {
            front.exemplars.get_or_insert_default().offer(bucket, &candidate);
        }
    }

    #[inline]
    fn front(&self, row: u32) -> Option<&Front> {
        let (page, at) = place(row);
        self.pages.get(page)?.fronts.get(at)
    }

    /// How many pages there are; each holds up to 512 rows.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The rows that live on one page: place, key, encoded extra attributes.
    pub fn rows_of(&self, page: usize) -> impl Iterator<Item = (RowId, Key<'_>, Option<&[u8]>)> {
        let base = page * PAGE;
        let rows = self.pages.get(page);
        rows.into_iter()
            .flat_map(|page| page.fronts.iter().zip(&page.sides).enumerate())
            .filter(|(_, (_, side))| side.live)
            .map(move |(at, (front, side))| (RowId((base + at) as u32), front.key.get(), side.extra.as_deref()))
    }

    /// All rows that live.
    pub fn rows(&self) -> impl Iterator<Item = (RowId, Key<'_>, Option<&[u8]>)> {
        (0..self.pages.len()).flat_map(|page| self.rows_of(page))
    }

    /// Copies the rows of a page: `copies` gets one entry a row, `buckets` its counts (not cumulative), one after another. `labels` makes the
    /// labels of a row that has none yet; a row for which it says `None` is left out.
    pub fn copy_page(
        &mut self,
        page: usize,
        copies: &mut Vec<RowCopy<L>>,
        buckets: &mut Vec<f64>,
        mut labels: impl FnMut(Key<'_>, Option<&[u8]>) -> Option<L>,
    ) {
        copies.clear();
        buckets.clear();
        let (stride, scrapes) = (self.stride, self.scrapes);
        let Some(page) = self.pages.get_mut(page) else { return };
        let rows = page.fronts.iter().zip(page.sides.iter_mut()).zip(page.numbers.chunks_exact(stride));
        for ((front, side), numbers) in rows {
            if !side.live {
                continue;
            }
            let Some((fixed, counts)) = numbers.split_first_chunk::<FIXED>() else { continue };
            let labels = match &side.labels {
                Some(labels) => Arc::clone(labels),
                None => match labels(front.key.get(), side.extra.as_deref()) {
                    Some(made) => Arc::clone(side.labels.insert(Arc::new(made))),
                    None => continue,
                },
            };
            copies.push(RowCopy {
                labels,
                start_unix_nanos: side.start_unix_nanos,
                last_unix_nanos: fixed[2],
                sum: f64::from_bits(fixed[0]),
                size: f64::from_bits(fixed[1]),
                owner: front.key.get().head.owner,
                first_shown: scrapes <= side.born.wrapping_add(1),
                exemplars: front.exemplars.as_ref().map(|set| set.chosen.clone()).unwrap_or_default(),
                exponential: side.exponential.clone(),
            });
            buckets.extend(counts.iter().map(|bits| f64::from_bits(*bits)));
        }
    }

    /// One row's numbers: (sum, size, last update, counts by bucket).
    pub fn numbers(&self, row: RowId) -> Option<(f64, f64, u64, impl ExactSizeIterator<Item = f64> + Clone)> {
        let (page, at) = place(row.0);
        let page = self.pages.get(page)?;
        page.sides.get(at).filter(|side| side.live)?;
        let numbers = page.numbers.get(at * self.stride..(at + 1) * self.stride)?;
        let (fixed, counts) = numbers.split_first_chunk::<FIXED>()?;
        let counts = counts.iter().map(|bits| f64::from_bits(*bits));
        Some((f64::from_bits(fixed[0]), f64::from_bits(fixed[1]), fixed[2], counts))
    }

    pub fn start(&self, row: RowId) -> u64 {
        let (page, at) = place(row.0);
        self.pages.get(page).and_then(|page| page.sides.get(at)).map_or(0, |side| side.start_unix_nanos)
    }

    pub fn exponential(&self, row: RowId) -> Option<&ExponentialHistogram> {
        let (page, at) = place(row.0);
        self.pages.get(page)?.sides.get(at)?.exponential.as_deref()
    }

    pub fn exemplars(&self, row: RowId) -> &[Chosen] {
        self.front(row.0).and_then(|front| front.exemplars.as_ref()).map_or(&[], |set| &set.chosen)
    }

    /// Whether nobody has seen the row yet; from now on somebody has.
    pub fn take_fresh(&mut self, row: RowId) -> bool {
        let (page, at) = place(row.0);
        self.before_change(row.0);
        let side = self.pages.get_mut(page).and_then(|page| page.sides.get_mut(at));
        side.is_some_and(|side| std::mem::take(&mut side.fresh))
    }

    /// A scrape begins.
    pub fn begin_scrape(&mut self) {
        self.scrapes = self.scrapes.wrapping_add(1);
    }

    /// Sets a row back to nothing, started at `start_unix_nanos`.
    pub fn reset(&mut self, row: RowId, start_unix_nanos: u64) {
        let exponential = self.shape.exponential.map(|(max_size, scale)| Box::new(ExponentialHistogram::new(max_size, scale)));
        let (page, at) = place(row.0);
        let stride = self.stride;
        self.before_change(row.0);
        let Some(page) = self.pages.get_mut(page) else { return };
        if let Some(numbers) = page.numbers.get_mut(at * stride..(at + 1) * stride) {
            for (number, word) in numbers.iter_mut().enumerate() {
                // The last update stays: idleness counts from there.
                if number != 2 {
                    *word = 0;
                }
            }
        }
        if let Some(side) = page.sides.get_mut(at) {
            side.start_unix_nanos = start_unix_nanos;
            side.exponential = exponential;
        }
    }

    /// Takes a row out. Its place may be used again.
    pub fn remove(&mut self, row: RowId) {
        let (page, at) = place(row.0);
        self.before_change(row.0);
        let Some(page) = self.pages.get_mut(page) else { return };
        let (Some(front), Some(side)) = (page.fronts.get_mut(at), page.sides.get_mut(at)) else { return };
        if !side.live {
            return;
        }
        let hash = side.hash;
        *side = Side::vacant();
        *front = Front { key: StoredKey(SmallVec::new()), gate: Gate::default(), exemplars: None };
        if let Ok(found) = self.table.find_entry(hash, |slot| slot.row == row.0) {
            found.remove();
        }
        self.vacant.push(row.0);
        self.live -= 1;
    }

    /// Takes those rows out of a page for which `goes` says so, told each row's key and last update. Returns how many.
    pub fn remove_where(&mut self, page: usize, mut goes: impl FnMut(Key<'_>, u64) -> bool) -> usize {
        let mut gone = Vec::new();
        let number = page;
        if let Some(page) = self.pages.get(number) {
            let rows = page.fronts.iter().zip(&page.sides).zip(page.numbers.chunks_exact(self.stride)).enumerate();
            for (at, ((front, side), numbers)) in rows {
                let last = numbers.get(2).copied().unwrap_or(0);
                if side.live && goes(front.key.get(), last) {
                    gone.push(RowId((number * PAGE + at) as u32));
                }
            }
        }
        for row in &gone {
            self.remove(*row);
        }
        gone.len()
    }

    /// Key and extra attributes of a row that lives.
    pub fn row(&self, row: RowId) -> Option<(Key<'_>, Option<&[u8]>)> {
        let (page, at) = place(row.0);
        let page = self.pages.get(page)?;
        let side = page.sides.get(at).filter(|side| side.live)?;
        Some((page.fronts.get(at)?.key.get(), side.extra.as_deref()))
    }

    /// From now on no row counts as one that nobody has seen.
    pub fn all_were_seen(&mut self) {
        for page in 0..self.pages.len() {
            self.before_changes(page);
        }
        for side in self.pages.iter_mut().flat_map(|page| &mut page.sides) {
            side.fresh = false;
            side.born = u32::MAX;
        }
        // A row that came before the first scrape is told from these by it.
        self.scrapes = self.scrapes.max(1);
    }

    // === snapshots ===

    /// Writes what is not in pages, and begins to write the pages as they stand now: [`save_page`](Self::save_page) until it is false, then
    /// [`saved`](Self::saved). One that began before is given up.
    pub fn begin_saving(&mut self, out: &mut Writer) {
        out.number(self.scrapes);
        out.count(self.vacant.len());
        self.vacant.iter().for_each(|row| out.number(*row));
        out.count(self.pages.len());
        self.saving = Some(Box::new(Saving::of(self.pages.len() * PIECES)));
    }

    /// Writes as many rows as a page has; false: all are written.
    pub fn save_page(&mut self) -> bool {
        for number in 0..PIECES {
            let Some(piece) = self.saving.as_mut().and_then(|saving| saving.due()) else { return number > 0 };
            self.save(piece);
        }
        true
    }

    /// Ends what [`begin_saving`](Self::begin_saving) began.
    pub fn saved(&mut self) -> Option<Saving> {
        self.saving.take().map(|saving| *saving)
    }

    /// A row is about to change.
    #[inline]
    fn before_change(&mut self, row: u32) {
        if self.saving.is_some() {
            self.save(row as usize / PIECE);
        }
    }

    /// All rows of a page are.
    fn before_changes(&mut self, page: usize) {
        if self.saving.is_some() {
            (page * PIECES..(page + 1) * PIECES).for_each(|piece| self.save(piece));
        }
    }

    #[cold]
    fn save(&mut self, piece: usize) {
        if let Some(saving) = &mut self.saving
            && saving.wants(piece)
            && let Some(page) = self.pages.get(piece / PIECES)
        {
            saving.put(piece, page.save(self.stride, piece % PIECES));
        }
    }

    /// Reads what [`begin_saving`](Self::begin_saving) and the pages wrote for a store of the same shape.
    pub fn read(shape: Shape, from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut store = Self::new(shape);
        store.scrapes = from.small()?;
        let vacant = from.count(1)?;
        store.vacant = (0..vacant).map(|_| from.small()).collect::<Result<_, _>>()?;
        let pages = from.count(2)?;
        for number in 0..pages {
            let page = PageOfRows::read(from, store.stride, store.shape.exponential.map(|(max_size, _)| max_size))?;
            if page.fronts.len() != PAGE && number + 1 < pages {
                return Err(from.damaged("a page that is not full"));
            }
            store.pages.push(page);
        }
        let mut vacant = std::collections::HashSet::with_capacity(store.vacant.len());
        let places: usize = store.pages.iter().map(|page| page.sides.len()).sum();
        for row in &store.vacant {
            let (page, at) = place(*row);
            let side = store.pages.get(page).and_then(|page| page.sides.get(at));
            if side.is_none_or(|side| side.live) || !vacant.insert(*row) {
                return Err(from.damaged("a place that is not vacant"));
            }
        }
        let rows: Vec<(RowId, u64)> = store.rows().map(|(row, key, _)| (row, store.hash(&key))).collect();
        if rows.len() + vacant.len() != places {
            return Err(from.damaged("a place that is lost"));
        }
        store.live = rows.len();
        store.table.reserve(rows.len(), |_| 0);
        for (row, hash) in rows {
            if store.row(row).is_some_and(|(key, _)| store.find(hash, &key).is_some()) {
                return Err(from.damaged("a row that is there twice"));
            }
            let (page, at) = place(row.0);
            if let Some(side) = store.pages.get_mut(page).and_then(|page| page.sides.get_mut(at)) {
                side.hash = hash;
            }
            let Self { table, pages, .. } = &mut store;
            let rehash = |slot: &Slot| {
                let (page, at) = place(slot.row);
                pages.get(page).and_then(|page| page.sides.get(at)).map_or(0, |side| side.hash)
            };
            table.insert_unique(hash, Slot { tag: (hash >> 32) as u32, row: row.0 }, rehash);
        }
        Ok(store)
    }

    /// Finds a row or makes it. For callers that do not keep a budget.
    pub fn find_or_insert(&mut self, key: &Key<'_>, start_unix_nanos: u64) -> Found {
        let hash = self.hash(key);
        match self.find(hash, key) {
            Some(row) => Found { row, new: false },
            None => Found { row: self.insert(hash, key, start_unix_nanos, None), new: true },
        }
    }
}

/// What is there of a row, beside what every row has.
const LIVE: u8 = 1;
const FRESH: u8 = 2;
const EXTRA: u8 = 4;
const EXEMPLARS: u8 = 8;

impl<L> PageOfRows<L> {
    /// One piece of the page; all of them, one behind the other, are the page.
    fn save(&self, stride: usize, piece: usize) -> Vec<u8> {
        let mut out = Writer::new();
        if piece == 0 {
            out.count(self.sides.len());
        }
        let rows = self.fronts.iter().zip(&self.sides).zip(self.numbers.chunks_exact(stride));
        for ((front, side), numbers) in rows.skip(piece * PIECE).take(PIECE) {
            if !side.live {
                out.byte(0);
                continue;
            }
            let bit = |there: bool, bit: u8| if there { bit } else { 0 };
            out.byte(
                LIVE | bit(side.fresh, FRESH) | bit(side.extra.is_some(), EXTRA) | bit(front.exemplars.is_some(), EXEMPLARS),
            );
            out.bytes(&front.key.0);
            out.number(front.gate.bits());
            out.number(side.start_unix_nanos);
            out.number(side.born);
            for (at, number) in numbers.iter().enumerate() {
                // All but the time of the last update are doubles.
                out.number(if at == 2 { *number } else { number.swap_bytes() });
            }
            if let Some(extra) = &side.extra {
                out.bytes(extra);
            }
            if let Some(exemplars) = &front.exemplars {
                exemplars.save(&mut out);
            }
            if let Some(histogram) = &side.exponential {
                histogram.save(&mut out);
            }
        }
        out.into_bytes()
    }

    fn read(from: &mut Reader<'_>, stride: usize, exponential: Option<u32>) -> Result<Self, Damaged> {
        let rows = from.count(1)?;
        if rows == 0 || rows > PAGE {
            return Err(from.damaged("a page with too many rows or none"));
        }
        let mut page = Self {
            fronts: Vec::with_capacity(rows),
            numbers: Vec::with_capacity(rows * stride),
            sides: Vec::with_capacity(rows),
        };
        for _ in 0..rows {
            let there = from.byte()?;
            if there == 0 {
                page.fronts.push(Front { key: StoredKey(SmallVec::new()), gate: Gate::default(), exemplars: None });
                page.sides.push(Side::vacant());
                page.numbers.resize(page.numbers.len() + stride, 0);
                continue;
            }
            if there & LIVE == 0 || there > LIVE | FRESH | EXTRA | EXEMPLARS {
                return Err(from.damaged("a row of an unknown kind"));
            }
            let key = StoredKey(SmallVec::from_slice(from.bytes()?));
            if key.0.len() < HEAD_LEN {
                return Err(from.damaged("a key that is too short"));
            }
            let gate = Gate::from_bits(from.number()?);
            let (start_unix_nanos, born) = (from.number()?, from.small()?);
            for at in 0..stride {
                let number = from.number()?;
                page.numbers.push(if at == 2 { number } else { number.swap_bytes() });
            }
            let extra = if there & EXTRA == 0 { None } else { Some(from.bytes()?.into()) };
            let exemplars = if there & EXEMPLARS == 0 { None } else { Some(Box::new(Exemplars::read(from)?)) };
            let exponential = exponential.map(|max_size| ExponentialHistogram::read(from, max_size)).transpose()?.map(Box::new);
            page.fronts.push(Front { key, gate, exemplars });
            let fresh = there & FRESH != 0;
            page.sides.push(Side { start_unix_nanos, extra, labels: None, exponential, hash: 0, fresh, live: true, born });
        }
        Ok(page)
    }
}

impl Front {
    #[inline]
    fn first_byte(&self) -> u64 {
        // The key's first byte lies on the line that the comparison reads.
        u64::from(self.key.0.first().copied().unwrap_or(0))
    }
}

#[inline]
fn place(row: u32) -> (usize, usize) {
    (row as usize / PAGE, row as usize % PAGE)
}
