//! A disk that tears, forgets, fills, fails and crashes by a seed, and a random history of a shard on it beside what must be true.
//!
//! `WEIR_SEEDS=N` (or `A..B`) runs more seeds, `WEIR_SEED=X` one of them, each of its steps printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    LetterStore, Reading,
    cursors::{CursorFile, Opened, Saved, Standing},
    files::{Disk, DiskFile, fill, read_whole, replace, write_all},
    log::{Entry, Found, Log, Options, ReadPlace, WriteError},
    nonces::Nonces,
    quota::Quota,
};
use crate::{
    journal::{Letter, LetterRef, Note, Origin, Refusal},
    signal::{Batch, Signal, UnixNanos},
};

// === the disk ===

/// `SplitMix64`.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
    /// True in so many of a thousand.
    fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

const SECTOR: usize = 512;

/// As `resize`, which takes long in a debug build.
fn set_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.truncate(len);
    bytes.append(&mut vec![0; len - bytes.len()]);
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Default)]
struct Inode {
    /// What the process reads.
    seen: Vec<u8>,
    /// What it read when nothing was pending.
    clean: Vec<u8>,
    /// What outlasts a power cut.
    lasting: Vec<u8>,
    pending: Vec<Change>,
}

/// What of pending changes reaches the disk.
struct Fate {
    /// Of each write, in a thousand: wholly, and otherwise torn.
    whole: u64,
    torn: u64,
    /// Lengths change in order; the first so many of them.
    lengths: usize,
}

impl Inode {
    fn apply(content: &mut Vec<u8>, change: &Change) {
        match change {
            Change::SetLen(len) => set_len(content, *len),
            Change::Write { at, bytes } => {
                if content.len() < at + bytes.len() {
                    set_len(content, at + bytes.len());
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    fn change(&mut self, change: Change) {
        Self::apply(&mut self.seen, &change);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        let fate = Fate { whole: 1000, torn: 0, lengths: usize::MAX };
        self.settle(&mut Rng(0), &fate);
    }

    /// Lets some of what is pending last, by sectors as they were at some moment, and forgets the rest.
    fn settle(&mut self, rng: &mut Rng, fate: &Fate) {
        let (mut all, mut lasting, mut len) = (std::mem::take(&mut self.clean), self.lasting.clone(), self.lasting.len());
        for (number, change) in self.pending.drain(..).enumerate() {
            Self::apply(&mut all, &change);
            if let Change::Write { at, bytes } = &change {
                let is_whole = rng.chance(fate.whole);
                let is_torn = !is_whole && rng.chance(fate.torn);
                for sector in at / SECTOR..(at + bytes.len()).div_ceil(SECTOR) {
                    if is_whole || is_torn && rng.chance(500) {
                        let to = ((sector + 1) * SECTOR).min(all.len());
                        if lasting.len() < to {
                            set_len(&mut lasting, to);
                        }
                        lasting[sector * SECTOR..to].copy_from_slice(&all[sector * SECTOR..to]);
                    }
                }
            }
            if number < fate.lengths {
                len = all.len();
                if let Change::SetLen(len) = change {
                    lasting.truncate(len);
                }
            }
        }
        set_len(&mut lasting, len);
        self.lasting = lasting;
        self.clean.clone_from(&self.seen);
    }
}

enum Move {
    Create { path: PathBuf, inode: usize },
    Rename { from: PathBuf, to: PathBuf, inode: usize },
    Remove { path: PathBuf, inode: usize },
}

type Names = BTreeMap<PathBuf, usize>;

fn apply(names: &mut Names, one: &Move) {
    match one {
        Move::Create { path, inode } => {
            names.retain(|_, other| other != inode);
            names.insert(path.clone(), *inode);
        }
        Move::Rename { from, to, inode } => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.retain(|_, other| other != inode);
            names.insert(to.clone(), *inode);
        }
        Move::Remove { path, inode } => {
            if names.get(path) == Some(inode) {
                names.remove(path);
            }
        }
    }
}

struct State {
    rng: Rng,
    /// How often something fails, in a thousand.
    faults: u64,
    /// So many calls until the machine or the process stops.
    crash_in: Option<u32>,
    is_dead: bool,
    /// A name could not be changed, or a length: what the journal counts may be more than what it needs.
    is_untidy: bool,
    is_traced: bool,
    inodes: Vec<Inode>,
    seen: Names,
    lasting: Names,
    pending: Vec<Move>,
}

enum Luck {
    Good,
    Error(io::Error),
    Death,
}

fn dead() -> io::Error {
    io::Error::other("dead")
}

impl State {
    fn luck(&mut self, call: &str, path: &Path) -> Luck {
        if self.is_dead {
            return Luck::Error(dead());
        }
        let mut luck = Luck::Good;
        if let Some(left) = &mut self.crash_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.is_dead = true;
                luck = Luck::Death;
            }
        }
        if !self.is_dead && self.faults > 0 && self.rng.chance(self.faults) {
            let kind = self.rng.pick(&[io::ErrorKind::StorageFull, io::ErrorKind::Other, io::ErrorKind::Other]);
            luck = Luck::Error(kind.into());
        }
        if self.is_traced {
            let said = match &luck {
                Luck::Good => String::new(),
                Luck::Error(error) => format!(": {error}"),
                Luck::Death => ": death".to_owned(),
            };
            println!("      {call} {}{said}", path.display());
        }
        luck
    }

    fn try_move(&mut self, call: &str, path: &Path, one: impl FnOnce(&mut Self) -> io::Result<Move>) -> io::Result<()> {
        let luck = self.luck(call, path);
        if let Luck::Error(error) = luck {
            self.is_untidy = true;
            return Err(error);
        }
        if matches!(luck, Luck::Death) && self.rng.chance(500) {
            return Err(dead());
        }
        let one = one(self)?;
        apply(&mut self.seen, &one);
        self.pending.push(one);
        if matches!(luck, Luck::Death) { Err(dead()) } else { Ok(()) }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.seen.get(path).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn power_cut(&mut self) {
        let whole = self.rng.pick(&[0, 300, 800, 1000]);
        let torn = self.rng.pick(&[0, 500, 1000]);
        for inode in &mut self.inodes {
            let lengths = if self.rng.chance(500) { usize::MAX } else { self.rng.below(inode.pending.len() + 1) };
            inode.settle(&mut self.rng, &Fate { whole, torn, lengths });
            inode.seen.clone_from(&inode.lasting);
            inode.clean.clone_from(&inode.lasting);
        }
        // With a log of its own a file system keeps their order; others do not.
        let (in_order, share) = (self.rng.chance(500), self.rng.pick(&[0, 500, 900]));
        let first = self.rng.below(self.pending.len() + 1);
        for (number, one) in std::mem::take(&mut self.pending).iter().enumerate() {
            if if in_order { number < first } else { self.rng.chance(share) } {
                apply(&mut self.lasting, one);
            }
        }
        self.seen = self.lasting.clone();
    }
}

#[derive(Clone)]
struct SimDisk(Arc<Mutex<State>>);

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: usize,
}

impl SimDisk {
    fn new(seed: u64, is_traced: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng(seed),
            faults: 0,
            crash_in: None,
            is_dead: false,
            is_untidy: false,
            is_traced,
            inodes: Vec::new(),
            seen: Names::new(),
            lasting: Names::new(),
            pending: Vec::new(),
        })))
    }

    fn file(&self, path: &Path, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), inode })
    }

    /// Without faults and crashes.
    fn calm<T>(&self, what: impl FnOnce() -> T) -> T {
        let (faults, crash_in) = {
            let mut state = self.0.lock();
            (std::mem::take(&mut state.faults), state.crash_in.take())
        };
        let done = what();
        let mut state = self.0.lock();
        (state.faults, state.crash_in) = (faults, crash_in);
        done
    }

    /// Bytes of segments and spare files.
    fn segment_bytes(&self) -> u64 {
        let state = self.0.lock();
        let counts = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "log" || extension == "spare");
        let paths = state.seen.keys().filter(counts);
        paths.map(|path| state.inodes[state.seen[path]].seen.len() as u64).sum()
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let number = state.inodes.len();
        state.try_move("create", path, |state| {
            if state.seen.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.inodes.push(Inode::default());
            Ok(Move::Create { path: path.to_owned(), inode: number })
        })?;
        state.inodes[number].change(Change::SetLen(bytes as usize));
        Ok(self.file(path, number))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        match state.luck("open", path) {
            Luck::Good => Ok(self.file(path, state.inode(path)?)),
            Luck::Error(error) => {
                state.is_untidy = true;
                Err(error)
            }
            Luck::Death => Err(dead()),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        match state.luck("list", directory) {
            Luck::Good => Ok(state.seen.keys().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()),
            Luck::Error(error) => Err(error),
            Luck::Death => Err(dead()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.lock().try_move("rename", from, |state| {
            Ok(Move::Rename { from: from.to_owned(), to: to.to_owned(), inode: state.inode(from)? })
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().try_move("remove", path, |state| Ok(Move::Remove { path: path.to_owned(), inode: state.inode(path)? }))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let luck = state.luck("sync_directory", directory);
        if matches!(luck, Luck::Good) || matches!(luck, Luck::Death) && state.rng.chance(500) {
            for one in std::mem::take(&mut state.pending) {
                apply(&mut state.lasting, &one);
            }
        }
        match luck {
            Luck::Good => Ok(()),
            Luck::Error(error) => Err(error),
            Luck::Death => Err(dead()),
        }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        write_all(slices, at, |some, at| {
            let mut bytes = Vec::new();
            for slice in some {
                bytes.extend_from_slice(slice);
            }
            let luck = state.luck("write", &self.path);
            if state.is_dead && !matches!(luck, Luck::Death) {
                return Err(dead());
            }
            let is_short = !matches!(luck, Luck::Good) || state.faults > 0 && state.rng.chance(30);
            let len = if is_short { state.rng.below(bytes.len() + 1) } else { bytes.len() };
            if state.is_traced {
                println!("        {len} of {} bytes at {at}", bytes.len());
            }
            if len > 0 {
                let change = Change::Write { at: at as usize, bytes: bytes[..len].to_vec() };
                state.inodes[self.inode].change(change);
            }
            match luck {
                Luck::Good if len == 0 && !bytes.is_empty() => Err(io::ErrorKind::Interrupted.into()),
                Luck::Good => Ok(len),
                Luck::Error(error) => Err(error),
                Luck::Death => Err(dead()),
            }
        })
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        fill(buffer, at, |buffer, at| {
            match state.luck("read", &self.path) {
                Luck::Good => {}
                Luck::Error(error) => return Err(error),
                Luck::Death => return Err(dead()),
            }
            let content = &state.inodes[self.inode].seen;
            let there = content.get(at as usize..).unwrap_or_default();
            let mut len = there.len().min(buffer.len());
            buffer[..len].copy_from_slice(&there[..len]);
            if len > 1 && state.faults > 0 && state.rng.chance(30) {
                len = state.rng.below(len);
                if len == 0 {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            Ok(len)
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let luck = state.luck("sync", &self.path);
        if state.is_dead && !matches!(luck, Luck::Death) {
            return Err(dead());
        }
        let State { rng, inodes, .. } = &mut *state;
        let inode = &mut inodes[self.inode];
        match luck {
            Luck::Good => {
                inode.sync();
                Ok(())
            }
            Luck::Error(error) => {
                // What did not reach the disk is called clean all the same, and no later sync brings it there.
                let fate = Fate { whole: rng.pick(&[0, 500]), torn: 500, lengths: usize::MAX };
                inode.settle(rng, &fate);
                if rng.chance(500) {
                    // The pages are dropped: what is read now is what is on the disk.
                    inode.seen.clone_from(&inode.lasting);
                    inode.clean.clone_from(&inode.lasting);
                }
                Err(error)
            }
            Luck::Death => {
                if rng.chance(500) {
                    inode.sync();
                }
                Err(dead())
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        match state.luck("set_len", &self.path) {
            Luck::Good => {
                state.inodes[self.inode].change(Change::SetLen(bytes as usize));
                Ok(())
            }
            Luck::Error(error) => Err(error),
            Luck::Death => Err(dead()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.0.lock();
        match state.luck("len", &self.path) {
            Luck::Good => Ok(state.inodes[self.inode].seen.len() as u64),
            Luck::Error(error) => Err(error),
            Luck::Death => Err(dead()),
        }
    }
}

// === the history ===

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    source: u16,
    received: u64,
    items: u64,
    meta: Vec<u8>,
    payload: Vec<u8>,
}

impl Content {
    fn entry(&self) -> Entry {
        Entry {
            source: self.source,
            received: UnixNanos(self.received),
            items: self.items,
            meta: self.meta.clone(),
            payload: Bytes::from(self.payload.clone()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Kill,
    PowerCut,
}

struct Run {
    rng: Rng,
    disk: SimDisk,
    is_traced: bool,
    options: Options,
    quota_bytes: u64,
    quota: Arc<Quota>,
    log: Option<Log>,
    cursors: Option<CursorFile>,
    /// What must be there, by offset.
    acknowledged: BTreeMap<u64, Content>,
    /// What the running process shows: that, and refused groups that a recovery found whole.
    visible: BTreeMap<u64, Content>,
    /// All that was ever tried at an offset.
    tried: BTreeMap<u64, Vec<Content>>,
    /// Offsets below were let go.
    retired: u64,
    standing: Standing,
    /// The places that a power cut may leave, and a kill: the last that was written (and synced), and what was tried since.
    after_cut: Vec<Standing>,
    after_kill: Vec<Standing>,
    reader: (ReadPlace, u64),
    written: u64,
}

const DIRECTORY: &str = "/journal";

fn as_saved(standing: &Standing) -> (u64, BTreeMap<String, Saved>) {
    (standing.end, standing.consumers.clone())
}

impl Run {
    fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = Rng(seed);
        let disk = SimDisk::new(rng.next(), is_traced);
        let segment_bytes = rng.pick(&[4096, 8192]);
        let options = Options { signal: Signal::Logs, shard: 3, segment_bytes, sync: rng.chance(700) };
        let quota_bytes = segment_bytes * (3 + rng.below(12) as u64);
        let mut standing = Standing::default();
        for number in 0..rng.pick(&[1, 3, 30]) {
            standing.consumers.insert(format!("exporter/number {number}"), Saved::default());
        }
        let mut run = Self {
            disk,
            is_traced,
            options,
            quota_bytes,
            quota: Arc::new(Quota::new(quota_bytes)),
            log: None,
            cursors: None,
            acknowledged: BTreeMap::new(),
            visible: BTreeMap::new(),
            tried: BTreeMap::new(),
            retired: 0,
            standing,
            after_cut: Vec::new(),
            after_kill: Vec::new(),
            reader: (ReadPlace::default(), 0),
            written: 0,
            rng,
        };
        run.start();
        let faults = run.rng.pick(&[0, 0, 5, 30, 150]);
        run.disk.0.lock().faults = faults;
        run
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{}", what());
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn try_open(&mut self) -> Result<(Log, CursorFile, Option<Standing>), String> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let directory = Path::new(DIRECTORY);
        let (cursors, opened) = CursorFile::open(disk.clone(), directory).map_err(|error| error.to_string())?;
        let standing = match opened {
            Opened::Found(standing) => Some(standing),
            Opened::New => None,
            Opened::Damaged => panic!("the places are damaged"),
        };
        let end_min = standing
            .as_ref()
            .map_or(0, |standing| standing.end.max(standing.consumers.values().map(|saved| saved.committed).max().unwrap_or(0)));
        self.quota = Arc::new(Quota::new(self.quota_bytes));
        let nonces = Nonces::from(self.rng.next());
        let (log, _) = Log::open(disk, directory.to_owned(), self.options, self.quota.clone(), end_min, nonces)
            .map_err(|error| error.to_string())?;
        Ok((log, cursors, standing))
    }

    /// Opens what there is, perhaps stopped or failed on the way, and looks at all of it.
    fn start(&mut self) {
        let mut attempts = 0;
        let (log, cursors, standing) = loop {
            attempts += 1;
            let opened = if attempts > 3 {
                let disk = self.disk.clone();
                let opened = disk.calm(|| self.try_open());
                Ok(opened.unwrap_or_else(|error| panic!("on a sound disk it does not start: {error}")))
            } else {
                if self.rng.chance(300) {
                    self.disk.0.lock().crash_in = Some(1 + self.rng.below(40) as u32);
                }
                self.try_open()
            };
            self.disk.0.lock().crash_in = None;
            match opened {
                Ok(opened) if !self.disk.0.lock().is_dead => break opened,
                Ok(_) => {}
                Err(error) => self.say(|| format!("  no start: {error}")),
            }
            if self.disk.0.lock().is_dead {
                self.stop();
            }
        };
        self.say(|| format!("  started at {}, {standing:?}", log.next()));
        // The places are some that were written.
        let found = standing.unwrap_or_default();
        let allowed = self.after_kill.iter().map(as_saved).any(|one| one == as_saved(&found))
            || self.after_kill.is_empty() && found == Standing::default();
        assert!(allowed, "places that were not written last: {found:?}, but {:?}", self.after_kill);
        for (name, saved) in &mut self.standing.consumers {
            *saved = found.consumers.get(name).cloned().unwrap_or_default();
        }
        self.standing.end = found.end;
        let lowest = found.consumers.values().map(|saved| saved.committed).min().unwrap_or(0);
        assert!(lowest >= self.retired, "let go up to {}, and a consumer stands at {lowest}", self.retired);
        self.after_kill = vec![found.clone()];
        if self.after_cut.is_empty() {
            self.after_cut.push(Standing::default());
        }
        (self.log, self.cursors) = (Some(log), Some(cursors));
        self.disk.0.lock().is_untidy = false;
        self.reader = (ReadPlace::default(), self.retired);
        let shown = self.shown();
        for (offset, content) in &self.acknowledged {
            assert!(*offset < self.retired || shown.contains_key(offset), "{offset} was acknowledged and is gone");
            assert!(*offset < self.retired || shown[offset] == *content, "{offset} was acknowledged and is another");
        }
        for (offset, content) in &shown {
            let tried = self.tried.get(offset).is_some_and(|tried| tried.contains(content));
            assert!(tried, "{offset} was never appended");
        }
        let next = self.log().next();
        let last = self.acknowledged.last_key_value().map_or(0, |(offset, _)| offset + 1);
        assert!(next >= last, "{next} would be given out twice");
        assert!(shown.last_key_value().is_none_or(|(offset, _)| *offset < next), "a record at {next} or behind");
        self.visible = shown;
        self.check_quota();
        assert_eq!(self.quota.used(), self.disk.segment_bytes(), "the quota counts something else than there is");
    }

    /// All records from what was retired on, as the log shows them.
    fn shown(&mut self) -> BTreeMap<u64, Content> {
        let disk = self.disk.clone();
        let retired = self.retired;
        let segments = self.log().segments.clone();
        disk.calm(|| {
            let (mut shown, mut place, mut next) = (BTreeMap::new(), ReadPlace::default(), retired);
            loop {
                let found = segments.read(&mut place, next, 2000).unwrap();
                if found.is_empty() {
                    return shown;
                }
                for one in found {
                    next = take(one, next, &mut shown);
                }
            }
        })
    }

    fn check(&mut self) {
        let shown = self.shown();
        assert_eq!(shown.keys().collect::<Vec<_>>(), self.visible.range(self.retired..).map(|(at, _)| at).collect::<Vec<_>>());
        assert!(self.visible.range(self.retired..).eq(&shown), "a record changed");
    }

    fn check_quota(&mut self) {
        let on_disk = self.disk.segment_bytes();
        if !self.disk.0.lock().is_untidy {
            assert_eq!(self.quota.used(), on_disk, "the quota counts something else than there is");
        }
    }

    fn content(&mut self) -> Content {
        self.written += 1;
        let len = match self.rng.below(100) {
            0..80 => self.rng.below(400),
            80..98 => self.rng.below(2000),
            _ => self.rng.below(10_000),
        };
        let mut payload = self.written.to_le_bytes().to_vec();
        let fill = self.rng.next() as u8;
        payload.resize(len, fill);
        let len = if self.rng.chance(500) { 0 } else { self.rng.below(30) };
        Content {
            source: self.rng.below(3) as u16,
            received: self.written,
            items: self.rng.below(20) as u64,
            meta: vec![self.written as u8; len],
            payload,
        }
    }

    fn append(&mut self) {
        let len = if self.rng.chance(50) { 0 } else { 1 + self.rng.below(4) };
        let group: Vec<Content> = (0..len).map(|_| self.content()).collect();
        let first = self.log().next();
        for (offset, content) in (first..).zip(&group) {
            self.tried.entry(offset).or_default().push(content.clone());
        }
        let entries: Vec<Entry> = group.iter().map(Content::entry).collect();
        let is_calm = self.disk.0.lock().faults == 0;
        let done = self.log.as_mut().unwrap().append(&entries, UnixNanos(self.written));
        self.say(|| format!("  append {len} at {first}: {done:?}"));
        if self.disk.0.lock().is_dead {
            assert!(done.is_err() || !self.options.sync || len == 0 || self.log().next() > first);
        }
        match done {
            Ok(()) => {
                for (offset, content) in (first..).zip(group) {
                    let before = self.acknowledged.insert(offset, content.clone());
                    assert!(before.is_none(), "{offset} was given out twice");
                    assert!(self.visible.insert(offset, content).is_none(), "{offset} was given out twice");
                }
            }
            Err(error) => {
                assert_eq!(self.log().next(), first);
                if self.disk.0.lock().is_dead {
                    return;
                }
                if is_calm {
                    let is_full = matches!(&error, WriteError::Full(said) if said.contains("--journal-max-size"));
                    assert!(is_full, "refused by a sound disk: {error}");
                }
                self.check();
            }
        }
    }

    fn commit(&mut self, sync: bool) {
        // As the writer does: without syncs the places are not synced either.
        let sync = sync && self.options.sync;
        let next = self.log().next();
        for saved in self.standing.consumers.values_mut() {
            if self.rng.chance(600) {
                saved.committed += self.rng.below((next.max(saved.committed) - saved.committed) as usize + 1) as u64;
                saved.delivered += 1;
            }
        }
        self.standing.end = next;
        let done = self.cursors.as_mut().unwrap().write(&mut self.standing, sync);
        self.say(|| format!("  places, sync {sync}: {done:?}"));
        let one = self.standing.clone();
        if done.is_err() && sync {
            // The pages may be dropped, and what was written there without a sync with them.
            self.after_kill.extend_from_slice(&self.after_cut);
        }
        if done.is_ok() {
            self.after_kill.clear();
            if sync {
                self.after_cut.clear();
            }
        }
        self.after_kill.push(one.clone());
        self.after_cut.push(one);
        if done.is_ok() && (sync || !self.options.sync) {
            let lowest = self.standing.consumers.values().map(|saved| saved.committed).min().unwrap();
            self.say(|| format!("  retire {lowest}"));
            self.retired = self.retired.max(lowest);
            let most = if self.rng.chance(500) { usize::MAX } else { self.rng.below(3) };
            self.log().retire(lowest, most);
        }
    }

    /// As a consumer does: on from where it was, over errors.
    fn read(&mut self) {
        let (mut place, next) = self.reader;
        let next = next.max(self.retired);
        let bytes = self.rng.pick(&[1, 700, 5000]);
        let Ok(found) = self.log().segments.read(&mut place, next, bytes) else { return };
        let (mut shown, mut to) = (BTreeMap::new(), next);
        for one in found {
            to = take(one, to, &mut shown);
        }
        assert!(self.visible.range(next..to).eq(&shown), "from {next} to {to}: {:?}", shown.keys().collect::<Vec<_>>());
        self.reader = (place, to);
    }

    /// The process or the machine stops here.
    fn stop(&mut self) {
        let stop = self.rng.pick(&[Stop::Kill, Stop::PowerCut]);
        self.say(|| format!("  {stop:?}"));
        (self.log, self.cursors) = (None, None);
        let mut state = self.disk.0.lock();
        state.is_dead = false;
        state.crash_in = None;
        if stop == Stop::PowerCut {
            state.power_cut();
            drop(state);
            self.after_kill.clone_from(&self.after_cut);
            if !self.options.sync {
                // Nothing was promised.
                self.acknowledged.clear();
                self.retired = 0;
            }
        }
    }

    fn step(&mut self) {
        match self.rng.below(1000) {
            0..520 => self.append(),
            520..600 => self.commit(false),
            600..700 => self.commit(true),
            700..800 => self.read(),
            800..830 => self.log().seal(),
            830..840 => self.log().drop_spares(),
            840..890 => {
                let disk = self.disk.clone();
                disk.calm(|| self.append());
            }
            890..930 => self.disk.0.lock().is_dead = true,
            930..960 => self.disk.0.lock().crash_in = Some(1 + self.rng.below(25) as u32),
            _ => self.check(),
        }
        if self.disk.0.lock().is_dead {
            self.stop();
            self.start();
        }
        self.check_quota();
    }

    fn run(&mut self) {
        for number in 0..50 + self.rng.below(150) {
            self.say(|| format!("step {number}"));
            self.step();
        }
        // In the end the disk is sound, everything is consumed, and there is room again.
        self.disk.0.lock().faults = 0;
        self.disk.0.lock().crash_in = None;
        self.say(|| "the end".to_owned());
        self.check();
        for _ in 0..2 {
            let next = self.log().next();
            for saved in self.standing.consumers.values_mut() {
                saved.committed = next;
            }
            self.standing.end = next;
            self.cursors.as_mut().unwrap().write(&mut self.standing, true).unwrap();
            self.after_kill = vec![self.standing.clone()];
            self.after_cut = self.after_kill.clone();
            self.log().seal();
            self.retired = next;
            self.log().retire(next, usize::MAX);
            self.log().drop_spares();
            assert_eq!((self.quota.used(), self.disk.segment_bytes()), (0, 0), "something is left");
            self.stop();
            self.start();
        }
        let next = self.log().next();
        self.retired = next;
        // What was removed may be there again after a power cut.
        self.log().retire(next, usize::MAX);
        let content = Content { source: 1, received: 2, items: 3, meta: vec![4], payload: vec![5; 100] };
        self.log().append(&[content.entry()], UnixNanos(1)).unwrap();
        self.tried.entry(next).or_default().push(content.clone());
        assert_eq!(self.shown().into_iter().collect::<Vec<_>>(), [(next, content)]);
    }
}

/// Notes a record. Returns the offset behind what was found.
fn take(one: Found, next: u64, shown: &mut BTreeMap<u64, Content>) -> u64 {
    match one {
        Found::Record(stored) => {
            let header = stored.header;
            assert!(header.offset >= next, "{} comes again", header.offset);
            let content = Content {
                source: header.source,
                received: header.received.0,
                items: header.items,
                meta: stored.meta.to_vec(),
                payload: stored.payload.to_vec(),
            };
            shown.insert(header.offset, content);
            header.offset + 1
        }
        Found::Lost { to, .. } => {
            assert!(to > next, "nothing is lost up to {to}");
            to
        }
    }
}

/// Tells how to see a failure again.
struct Reproduce(u64);

impl Drop for Reproduce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {0} fails: WEIR_SEED={0} cargo test --lib journal::disk::simulation -- --nocapture", self.0);
        }
    }
}

fn run(seed: u64, is_traced: bool) {
    let _reproduce = Reproduce(seed);
    Run::new(seed, is_traced).run();
}

fn number(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn whatever_the_disk_does_what_was_acknowledged_is_there() {
    let parse = |text: &str| text.parse::<u64>().expect("a number");
    if let Some(seed) = number("WEIR_SEED") {
        return run(parse(&seed), true);
    }
    let (from, to) = match number("WEIR_SEEDS") {
        None => (0, SEEDS),
        Some(range) => match range.split_once("..") {
            Some((from, to)) => (parse(from), parse(to)),
            None => (0, parse(&range)),
        },
    };
    for seed in (from..to).chain(REGRESSIONS.iter().copied()) {
        run(seed, false);
    }
}

/// By default: some ten seconds of a debug build.
const SEEDS: u64 = 1000;

/// Seeds that found something: a segment in the way of the next; places torn by a power cut; a spare file under its new name, not counted; an
/// extent of an earlier life under a clock that went back.
const REGRESSIONS: &[u64] = &[0, 23, 22_837, 102_803, 150_614, 317_501, 461_450, 618_048, 800_898];

// === what the histories found, told shortly ===

fn small(sync: bool) -> Options {
    Options { signal: Signal::Logs, shard: 0, segment_bytes: 4096, sync }
}

fn opened(disk: &SimDisk, quota: &Arc<Quota>) -> Log {
    Log::open(Arc::new(disk.clone()), DIRECTORY.into(), small(true), quota.clone(), 0, Nonces::from(9)).unwrap().0
}

fn entries(count: usize, bytes: usize) -> Vec<Entry> {
    let entry = || Entry { source: 0, received: UnixNanos(1), items: 1, meta: Vec::new(), payload: vec![7; bytes].into() };
    std::iter::repeat_with(entry).take(count).collect()
}

#[test]
fn a_segment_whose_first_group_failed_does_not_stand_in_the_way() {
    let (disk, quota) = (SimDisk::new(1, false), Arc::new(Quota::new(1 << 20)));
    let mut log = opened(&disk, &quota);
    log.append(&[], UnixNanos(2)).unwrap();
    disk.0.lock().faults = 1000;
    assert!(log.append(&entries(1, 100), UnixNanos(2)).is_err());
    disk.0.lock().faults = 0;
    log.append(&entries(1, 100), UnixNanos(2)).unwrap();
    log.seal();
    // Nor one that is too small for its first group.
    log.append(&[], UnixNanos(2)).unwrap();
    log.append(&entries(1, 10_000), UnixNanos(2)).unwrap();
    assert_eq!((log.next(), quota.used()), (2, disk.segment_bytes()));
}

#[test]
fn what_was_let_go_does_not_come_back_with_a_power_cut() {
    let (disk, quota) = (SimDisk::new(2, false), Arc::new(Quota::new(1 << 20)));
    let mut log = opened(&disk, &quota);
    for _ in 0..6 {
        log.append(&entries(3, 1000), UnixNanos(2)).unwrap();
    }
    log.seal();
    log.retire(log.next(), usize::MAX);
    log.drop_spares();
    assert_eq!((quota.used(), disk.segment_bytes()), (0, 0));
    disk.0.lock().power_cut();
    assert!(disk.segment_bytes() <= 4096, "the spare file at most");
}

#[test]
fn a_file_that_cannot_be_removed_counts_until_it_can() {
    let (disk, quota) = (SimDisk::new(3, false), Arc::new(Quota::new(1 << 20)));
    let mut log = opened(&disk, &quota);
    for _ in 0..6 {
        log.append(&entries(3, 1000), UnixNanos(2)).unwrap();
    }
    log.seal();
    disk.0.lock().faults = 1000;
    log.retire(log.next(), usize::MAX);
    assert_eq!((quota.used(), disk.segment_bytes()), (6 * 4096, 6 * 4096));
    disk.0.lock().faults = 0;
    log.retire(log.next(), usize::MAX);
    assert_eq!((quota.used(), disk.segment_bytes()), (0, 0));
}

#[test]
fn a_segment_that_is_cut_off_under_its_reader_ends_there() {
    let (disk, quota) = (SimDisk::new(4, false), Arc::new(Quota::new(1 << 20)));
    let mut log = opened(&disk, &quota);
    log.append(&entries(3, 1000), UnixNanos(2)).unwrap();
    disk.open(&log.segments.all()[0].path).unwrap().set_len(1500).unwrap();
    let (mut place, mut next, mut shown) = (ReadPlace::default(), 0, BTreeMap::new());
    while next < 3 {
        let found = log.segments.read(&mut place, next, 1 << 20).unwrap();
        assert!(!found.is_empty());
        for one in found {
            next = take(one, next, &mut shown);
        }
    }
    assert_eq!(shown.len(), 1);
}

#[test]
fn places_written_after_the_last_sync_never_cost_the_synced_ones() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed, false);
        let (mut cursors, _) = CursorFile::open(Arc::new(disk.clone()), Path::new(DIRECTORY)).unwrap();
        let mut standing = Standing::default();
        for number in 0..30 {
            standing.consumers.insert(format!("exporter/{number}"), Saved::default());
        }
        for end in 1..6 {
            standing.end = end;
            cursors.write(&mut standing, end == 2).unwrap();
        }
        drop(cursors);
        disk.0.lock().power_cut();
        let (_, found) = CursorFile::open(Arc::new(disk), Path::new(DIRECTORY)).unwrap();
        assert!(matches!(found, Opened::Found(found) if found.end >= 2), "seed {seed}");
    }
}

#[test]
fn replacing_a_file_leaves_those_alone_that_differ_by_their_extension() {
    let disk = SimDisk::new(5, false);
    let paths = ["/journal/a.new", "/journal/a.b"].map(Path::new);
    for path in paths.iter().chain(&paths) {
        replace(&disk, path, path.to_str().unwrap().as_bytes(), true).unwrap();
    }
    for path in paths {
        assert_eq!(read_whole(&disk, path, 100).unwrap().as_deref(), path.to_str().map(str::as_bytes));
    }
}

// === dead letters ===

/// Letters by their numbers, whatever the disk does.
struct LettersRun {
    rng: Rng,
    disk: SimDisk,
    store: Option<LetterStore>,
    next: u64,
    /// Written, and not settled: these are there.
    held: BTreeSet<u64>,
    /// Of these nobody knows: a write failed, or was cut off.
    unsure: BTreeSet<u64>,
}

impl LettersRun {
    fn letter(&mut self) -> (u64, Letter) {
        let number = self.next;
        self.next += 1;
        let note = Note {
            consumer: "exporter".into(),
            origin: Origin { topic: "logs".into(), shard: 0, offset: number },
            refused: UnixNanos(1),
            reason: Refusal::Rejected,
            message: String::new(),
            attempts: 1,
            is_processed: true,
        };
        let payload = vec![number as u8; 1 + self.rng.below(9000)].into();
        let batch = Batch { signal: Signal::Logs, payload, items: number, context: Arc::default(), index: None };
        (number, Letter { note, received: UnixNanos(1), batch })
    }

    fn all(&self) -> Option<Vec<(u64, LetterRef)>> {
        let (mut reading, mut all) = (Reading::default(), Vec::new());
        while let Some(some) = self.store.as_ref()?.read(&mut reading, 4000, &|_, _| true).ok()? {
            for (at, letter) in some {
                assert!(letter.batch.payload.iter().all(|byte| *byte == letter.batch.items as u8), "a letter changed");
                all.push((letter.batch.items, at));
            }
        }
        Some(all)
    }

    /// What there is must be what was written, each once.
    fn check(&mut self) {
        let disk = self.disk.clone();
        let all = disk.calm(|| self.all()).expect("on a sound disk they can be read");
        let found: BTreeSet<u64> = all.iter().map(|(number, _)| *number).collect();
        assert_eq!(found.len(), all.len(), "a letter is there twice");
        assert!(found.is_superset(&self.held), "lost: {:?}", self.held.difference(&found).collect::<Vec<_>>());
        let known: BTreeSet<u64> = self.held.union(&self.unsure).copied().collect();
        assert!(known.is_superset(&found), "came back: {:?}", found.difference(&known).collect::<Vec<_>>());
        let held = self.store.as_ref().map(LetterStore::held).unwrap_or_default();
        assert_eq!((held.records, held.items), (found.len() as u64, found.iter().sum()));
    }

    fn start(&mut self) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let mut nonces = Rng(self.rng.next());
        let mut open = || LetterStore::open(&disk, DIRECTORY.into(), true, 4 << 20, Nonces::from(nonces.next()), UnixNanos(1));
        self.store = loop {
            if self.rng.chance(300) {
                self.disk.0.lock().crash_in = Some(1 + self.rng.below(40) as u32);
            }
            let opened = open().ok().filter(|_| !self.disk.0.lock().is_dead);
            self.disk.0.lock().crash_in = None;
            if self.disk.0.lock().is_dead {
                self.stop();
            }
            match opened {
                Some((store, _)) => break Some(store),
                None if self.rng.chance(300) => break self.disk.calm(|| open().ok().map(|(store, _)| store)),
                None => {}
            }
        };
        assert!(self.store.is_some(), "on a sound disk it does not start");
        self.check();
        // Whatever is there of those may be there without being synced, and go with a power cut or come back with one.
    }

    fn stop(&mut self) {
        self.store = None;
        let is_power_cut = self.rng.chance(500);
        let mut state = self.disk.0.lock();
        (state.is_dead, state.crash_in) = (false, None);
        if is_power_cut {
            state.power_cut();
        }
    }

    /// New letters, and some that are settled, in one write.
    fn append(&mut self) {
        let letters: Vec<(u64, Letter)> = (0..self.rng.below(4)).map(|_| self.letter()).collect();
        let disk = self.disk.clone();
        let there = disk.calm(|| self.all()).unwrap_or_default();
        let gone: Vec<(u64, LetterRef)> =
            there.into_iter().filter(|(number, _)| self.held.contains(number) && self.rng.chance(200)).collect();
        let refs: Vec<LetterRef> = gone.iter().map(|(_, at)| *at).collect();
        let new: Vec<&Letter> = letters.iter().map(|(_, letter)| letter).collect();
        let Some(store) = &self.store else { return };
        let done = store.append(&new, &refs, UnixNanos(1));
        let is_dead = self.disk.0.lock().is_dead;
        if done.is_ok() && !is_dead {
            self.held.extend(letters.iter().map(|(number, _)| *number));
            self.held.retain(|number| !gone.iter().any(|(gone, _)| gone == number));
        } else {
            // A settled letter that comes back is delivered twice, a letter that is there twice as well; neither is lost.
            self.unsure.extend(letters.iter().map(|(number, _)| *number));
            for (number, _) in gone {
                self.held.remove(&number);
                self.unsure.insert(number);
            }
        }
    }

    fn run(seed: u64) {
        let mut run = Self {
            rng: Rng(seed),
            disk: SimDisk::new(seed ^ 0x1e77, false),
            store: None,
            next: 1,
            held: BTreeSet::new(),
            unsure: BTreeSet::new(),
        };
        run.start();
        run.disk.0.lock().faults = run.rng.pick(&[0, 0, 5, 50]);
        for _ in 0..40 {
            match run.rng.below(100) {
                0..80 => run.append(),
                80..90 => run.disk.0.lock().is_dead = true,
                _ => run.disk.0.lock().crash_in = Some(1 + run.rng.below(25) as u32),
            }
            if run.disk.0.lock().is_dead {
                run.stop();
                run.start();
            }
        }
    }
}

#[test]
fn whatever_the_disk_does_letters_are_there_until_they_are_settled() {
    for seed in 0..300 {
        let done = std::panic::catch_unwind(|| LettersRun::run(seed));
        assert!(done.is_ok(), "seed {seed} fails");
    }
}
