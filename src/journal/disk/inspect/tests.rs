//! What is on disk is seen as it is, also while it is written, and nothing is changed by looking.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::{
    journal::{
        Cursor, Directory, DiskShard, LagBound, NewRecord, OnOverflow, Persistence, Record, Settled, Shard, SourceId, Sources,
        Subscriber, Topic, TopicId, disk::format::RECORD_HEADER_BYTES,
    },
    runtime::Clock,
    signal::Batch,
};

struct Rig {
    topic: Topic,
    shard: Arc<DiskShard>,
    _directory: Directory,
}

fn rig(path: &Path) -> Rig {
    let wish = Persistence {
        directory: path.to_owned(),
        sync: false,
        bytes_max: Some(16 << 20),
        letters_bytes_max: None,
        shards: 1,
        offset_reset: crate::journal::OffsetReset::Latest,
    };
    let sources = ["otlp".to_owned(), "otlp/b".to_owned()];
    let directory = Directory::open(&wish, vec!["metrics/a b".to_owned()], &sources, Clock::system()).unwrap();
    let room = Arc::new(Notify::new());
    let shard = directory.shard(TopicId(0), "metrics/a b", Signal::Traces, 0, 1 << 40, room.clone()).unwrap();
    let topic = Topic::of(TopicId(0), "metrics/a b".to_owned(), Signal::Traces, room, vec![shard.clone()]);
    Rig { topic, shard, _directory: directory }
}

fn cursor(rig: &Rig, name: &str, sources: &[u16]) -> Cursor {
    rig.topic.cursor(&Subscriber {
        name: name.into(),
        sources: Sources::of(sources.iter().map(|source| SourceId(*source))),
        bound: LagBound::NONE,
        on_overflow: OnOverflow::SkipOldest,
        is_stateful: false,
    })
}

async fn append(rig: &Rig, source: u16, items: u64, bytes: usize) {
    let context = Context { auth: vec![("user".into(), "secret".into())], ..Context::default() };
    let payload = Bytes::from(vec![items as u8; bytes]);
    let batch = Batch { signal: Signal::Traces, payload, items, context: Arc::new(context), index: None };
    let record = NewRecord { source: SourceId(source), received: UnixNanos(7), batch, derived_from: None };
    rig.topic.append(0, record).await.unwrap();
}

fn read(cursor: &mut Cursor) -> Vec<Record> {
    let mut out = Vec::new();
    while cursor.has_unread() {
        cursor.read(7, 1 << 20, &mut out);
    }
    out
}

fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

fn faults(journal: &Journal) -> (Verified, Vec<Fault>) {
    let mut faults = Vec::new();
    let verified = journal.verify(None, &mut |fault| faults.push(fault.clone())).unwrap();
    assert_eq!(verified.faults, faults.len());
    (verified, faults)
}

fn offsets(shard: &ShardView, from: u64) -> Vec<(u64, u64)> {
    let entries = shard.records(from).unwrap().map(|entry| entry.unwrap());
    entries
        .filter_map(|entry| if let Entry::Record(record) = entry { Some((record.offset, record.items)) } else { None })
        .collect()
}

#[tokio::test]
async fn beside_a_running_journal_everything_is_seen_and_nothing_changed() {
    let path = TempDir::new().unwrap();
    let rig = rig(path.path());
    let (mut all, _late) = (cursor(&rig, "all", &[0, 1]), cursor(&rig, "late", &[1]));
    for number in 0..20 {
        append(&rig, number % 2, u64::from(number) + 1, 1000).await;
    }
    for record in read(&mut all).iter().take(5) {
        all.settle(record.position, &Settled::delivered(record.batch.items));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = files(path.path());
    let journal = Journal::open(path.path()).unwrap();
    let shards = journal.shards_of(Some("metrics/a b")).unwrap();
    let shard = &shards[0];
    let stock = shard.stock(&|consumer, source| Some(consumer == "all" || source == "otlp/b")).unwrap();
    assert_eq!((stock.records.records, stock.records.items, stock.end, stock.segments), (20, 210, 20, 1));
    assert_eq!(stock.oldest, Some(UnixNanos(7)));
    let held: Vec<_> =
        stock.consumers.iter().map(|one| (one.name.as_str(), one.committed, one.delivered, one.held.items)).collect();
    assert_eq!(held, [("all", 5, 15, 195), ("late", 1, 0, 110)]);
    assert!(stock.consumers[0].is_exact);
    assert!(!shard.stock(&|_, _| None).unwrap().consumers[0].is_exact);
    assert_eq!(offsets(shard, 17), [(17, 18), (18, 19), (19, 20)]);
    let Some(Ok(Entry::Record(record))) = shard.records(3).unwrap().next() else { panic!("no record") };
    assert_eq!((record.source.as_str(), record.context.auth("user")), ("otlp/b", Some("secret")));
    let (verified, found) = faults(&journal);
    assert_eq!((found, verified.records.records), (Vec::new(), 20));
    assert!(journal.shards_of(Some("logs")).unwrap_err().to_string().contains("`metrics/a b`"));
    let locked = journal.remove(What::Consumer("late")).unwrap_err().to_string();
    assert!(locked.contains(&std::process::id().to_string()), "{locked}");
    assert!(before == files(path.path()), "looking changed something");
}

#[tokio::test]
async fn damage_is_found_at_its_place_and_counted() {
    let path = TempDir::new().unwrap();
    {
        let rig = rig(path.path());
        let _cursor = cursor(&rig, "all", &[0]);
        for number in 0..10 {
            append(&rig, 0, number + 1, 1000).await;
        }
        rig.shard.close();
    }
    let journal = Journal::open(path.path()).unwrap();
    assert_eq!(faults(&journal).1, []);
    let segment = journal.shards().unwrap()[0].path_of(0);
    let whole = fs::read(&segment).unwrap();
    let Some(Ok(Entry::Record(record))) = journal.shards().unwrap()[0].records(0).unwrap().next() else { panic!("no record") };
    let mut meta = Vec::new();
    Meta::encode(&record.context, None, &mut meta);
    let begins = SEGMENT_HEADER_BYTES + 3 * (RECORD_HEADER_BYTES + meta.len() + 1000).next_multiple_of(8);
    let mut bytes = whole.clone();
    bytes[begins + 500] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let (verified, found) = faults(&journal);
    assert_eq!((found.len(), &found[0].path, found[0].at), (1, &segment, begins as u64), "{found:?}");
    assert_eq!((verified.records_lost, verified.items_lost, verified.is_uncounted), (1, 4, false));
    let entries: Vec<_> = journal.shards().unwrap()[0].records(2).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(matches!(&entries[1], Entry::Lost(lost) if (lost.offset, lost.to, lost.items) == (3, 4, Some(4))), "{entries:?}");
    assert_eq!(entries.len(), 8);
    // The header of the segment.
    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let (verified, found) = faults(&journal);
    assert!(found.iter().any(|fault| fault.what.contains("the next start reads it") && fault.at == 0), "{found:?}");
    assert_eq!(verified.records_lost, 0);
    // And what stands beside it.
    fs::rename(segment.with_extension("extent"), segment.with_extension("away")).unwrap();
    assert!(faults(&journal).1.iter().any(|fault| fault.what.contains(".damaged") && fault.at == 0));
    fs::rename(segment.with_extension("away"), segment.with_extension("extent")).unwrap();
    // The file itself.
    fs::remove_file(&segment).unwrap();
    assert!(faults(&journal).1.iter().any(|fault| fault.what.contains("0 to 9") && fault.records == 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_and_let_go_meanwhile_is_no_fault() {
    let path = TempDir::new().unwrap();
    let rig = rig(path.path());
    let mut all = cursor(&rig, "all", &[0, 1]);
    let done = Arc::new(AtomicBool::new(false));
    let (looking, is_done) = (path.path().to_owned(), done.clone());
    let looker = std::thread::spawn(move || {
        let mut looks = 0;
        while !is_done.load(Ordering::Relaxed) || looks == 0 {
            let journal = Journal::open(&looking).unwrap();
            let (_, found) = faults(&journal);
            assert_eq!(found, []);
            for shard in journal.shards().unwrap() {
                shard.stock(&|_, _| None).unwrap();
                let lost = shard.records(0).unwrap().filter(|entry| matches!(entry, Ok(Entry::Lost(_)))).count();
                assert_eq!(lost, 0);
            }
            looks += 1;
        }
    });
    for number in 0..400_u64 {
        append(&rig, 0, number % 100, 70_000).await;
        for record in read(&mut all) {
            all.settle(record.position, &Settled::delivered(record.batch.items));
        }
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || looker.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_consumer_that_is_gone_lets_its_backlog_go() {
    let path = TempDir::new().unwrap();
    {
        let rig = rig(path.path());
        let (mut all, _old) = (cursor(&rig, "all", &[0]), cursor(&rig, "old", &[0]));
        for number in 0..30 {
            append(&rig, 0, number + 1, 100_000).await;
        }
        for record in read(&mut all) {
            all.settle(record.position, &Settled::delivered(record.batch.items));
        }
        rig.shard.close();
    }
    let journal = Journal::open(path.path()).unwrap();
    let unknown = journal.removal(What::Consumer("older")).unwrap_err().to_string();
    assert!(unknown.contains("`all`, `old`"), "{unknown}");
    let removal = journal.removal(What::Consumer("old")).unwrap();
    assert_eq!(removal[0].consumers[0].1.items, 465);
    let released = journal.remove(What::Consumer("old")).unwrap();
    assert!(released.segments >= 3 && released.bytes > 2 << 20, "{released:?}");
    let shard = &journal.shards().unwrap()[0];
    assert_eq!(offsets(shard, 0), []);
    assert_eq!(shard.stock(&|_, _| None).unwrap().consumers.len(), 1);
    assert_eq!(faults(&journal).1, []);
    {
        let rig = rig(path.path());
        assert_eq!((rig.shard.end(), rig.shard.strangers()), (30, Vec::new()));
        let _all = cursor(&rig, "all", &[0]);
        append(&rig, 0, 5, 10).await;
        rig.shard.close();
    }
    assert_eq!(offsets(&journal.shards().unwrap()[0], 0), [(30, 5)]);
    journal.remove(What::Topic("metrics/a b")).unwrap();
    assert_eq!((offsets(&journal.shards().unwrap()[0], 0), faults(&journal).1), (Vec::new(), Vec::new()));
    assert_eq!(rig(path.path()).shard.end(), 31);
}

#[test]
fn names_come_back_from_their_files() {
    for name in ["traces", "metrics/span_metrics", "a b%c", "ü", ".hidden"] {
        assert_eq!(unescaped(&super::super::escaped(name)), name);
    }
    assert_eq!(unescaped("100%"), "100%");
    assert_eq!(unescaped("%+1x"), "%+1x");
}

/// A directory of several segments, as files.
fn written() -> (BTreeMap<PathBuf, Vec<u8>>, Vec<(u64, u64)>) {
    let path = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = rig(path.path());
        let (mut all, _other) = (cursor(&rig, "all", &[0]), cursor(&rig, "other", &[1]));
        for number in 0..36 {
            append(&rig, number % 2, u64::from(number) + 1, if number % 12 == 11 { 1_000_000 } else { 500 }).await;
        }
        for record in read(&mut all).iter().take(3) {
            all.settle(record.position, &Settled::delivered(record.batch.items));
        }
        rig.shard.close();
    });
    let records = offsets(&Journal::open(path.path()).unwrap().shards().unwrap()[0], 0);
    let files = files(path.path()).into_iter().map(|(file, bytes)| (file.strip_prefix(path.path()).unwrap().to_owned(), bytes));
    (files.collect(), records)
}

#[derive(Debug, Clone)]
enum Harm {
    Overwrite(usize, Vec<u8>),
    Cut(usize),
    Grow(Vec<u8>),
    Remove,
    /// A link, a directory and a pipe stand where a file should.
    Link,
    Directory,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..80)).prop_map(|(at, bytes)| Harm::Overwrite(at, bytes)),
        // Where the small things are.
        4 => (0_usize..7000, proptest::collection::vec(any::<u8>(), 1..80)).prop_map(|(at, bytes)| Harm::Overwrite(at, bytes)),
        2 => any::<usize>().prop_map(Harm::Cut),
        1 => (0_usize..200).prop_map(Harm::Cut),
        1 => proptest::collection::vec(any::<u8>(), 1..300).prop_map(Harm::Grow),
        1 => Just(Harm::Remove),
        1 => Just(Harm::Link),
        1 => Just(Harm::Directory),
    ]
}

#[test]
fn any_harm_to_any_file_is_survived_and_no_record_is_missing_without_a_word() {
    let (files, records) = written();
    assert_eq!(records.len(), 36);
    let names: Vec<_> = files.keys().cloned().collect();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(which in any::<prop::sample::Index>(), harm in harm())| {
        let directory = TempDir::new().unwrap();
        for (name, bytes) in &files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let name = which.get(&names);
        let path = directory.path().join(name);
        let mut bytes = files[name].clone();
        match &harm {
            Harm::Overwrite(at, with) => {
                let at = at % bytes.len().max(1);
                for (place, byte) in bytes.iter_mut().skip(at).zip(with) {
                    *place = *byte;
                }
                fs::write(&path, &bytes).unwrap();
            }
            Harm::Cut(at) => {
                bytes.truncate(at % bytes.len().max(1));
                fs::write(&path, &bytes).unwrap();
            }
            Harm::Grow(with) => {
                bytes.extend_from_slice(with);
                fs::write(&path, &bytes).unwrap();
            }
            Harm::Remove => fs::remove_file(&path).unwrap(),
            Harm::Link => {
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            }
            Harm::Directory => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
        }
        if let Ok(journal) = Journal::open(directory.path()) {
            let mut whole = Vec::new();
            let mut is_refused = false;
            for shard in journal.shards().unwrap() {
                is_refused |= shard.stock(&|_, _| None).is_err();
                match shard.records(0) {
                    Ok(found) => for entry in found {
                        match entry {
                            Ok(Entry::Record(record)) => whole.push((record.offset, record.items)),
                            Ok(Entry::Lost(_)) => {}
                            Err(_) => is_refused = true,
                        }
                    },
                    Err(_) => is_refused = true,
                }
            }
            prop_assert!(whole.iter().all(|record| records.contains(record)));
            let mut found = 0;
            match journal.verify(None, &mut |_| found += 1) {
                Ok(verified) => prop_assert_eq!(verified.faults, found),
                Err(_) => is_refused = true,
            }
            prop_assert!(whole == records || found > 0 || is_refused, "{:?} of {:?}: {} of 36 records, and nothing said", harm, name, whole.len());
            for what in [What::Consumer("all"), What::Topic("metrics/a b")] {
                drop(journal.removal(what));
                drop(journal.remove(what));
            }
        }
    });
}
