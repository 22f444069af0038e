//! What was acknowledged is there after a crash, what is damaged is passed over and counted, and nothing panics.

use std::{fs, path::Path};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    super::{
        Accounts, AppendError, Change, Cursor, DropReason, Lag, LagBound, NewRecord, OnOverflow, Record, Settled, Shard,
        SourceId, Sources, Subscriber, Topic,
    },
    files::SystemDisk,
    format::{HeaderError, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader},
    log::{Entry, Found, Log, Options, ReadPlace},
    quota::Quota,
    *,
};
use crate::signal::{Batch, Context, UnixNanos};

const SMALL: u64 = 4096;

fn options() -> Options {
    Options { signal: Signal::Traces, shard: 0, segment_bytes: SMALL, sync: false }
}

fn open(directory: &Path) -> (Log, log::Recovered) {
    let quota = Arc::new(Quota::new(1 << 30));
    Log::open(Arc::new(SystemDisk), directory.to_owned(), options(), quota, 0, Nonces::from(1)).unwrap()
}

fn entry(items: u64, bytes: usize) -> Entry {
    Entry { source: 0, received: UnixNanos(7), items, meta: Vec::new(), payload: Bytes::from(vec![items as u8; bytes]) }
}

/// Offsets and items of what is whole, and offsets of what is lost.
fn content(log: &Log) -> (Vec<(u64, u64)>, Vec<(u64, u64)>) {
    let (mut whole, mut lost, mut place) = (Vec::new(), Vec::new(), ReadPlace::default());
    let mut next = 0;
    loop {
        let found = log.segments.read(&mut place, next, 1000).unwrap();
        if found.is_empty() {
            return (whole, lost);
        }
        for one in found {
            match one {
                Found::Record(stored) => {
                    assert!(stored.payload.iter().all(|byte| u64::from(*byte) == stored.header.items));
                    whole.push((stored.header.offset, stored.header.items));
                    next = stored.header.offset + 1;
                }
                Found::Lost { offset, to, .. } => {
                    lost.push((offset, to));
                    next = to;
                }
            }
        }
    }
}

fn fill(log: &mut Log, records: u64) {
    for number in 0..records {
        log.append(&[entry(number % 200 + 1, 300)], UnixNanos(2)).unwrap();
    }
}

#[test]
fn what_was_appended_is_there_after_a_crash_and_goes_on_from_there() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    fill(&mut log, 40);
    let before = content(&log);
    assert_eq!(before.0.len(), 40);
    // Dropped without a word, as by a kill.
    drop(log);
    let (mut log, recovered) = open(directory.path());
    assert_eq!(recovered.lost_records, 0);
    assert_eq!((log.next(), content(&log)), (40, before.clone()));
    fill(&mut log, 3);
    drop(log);
    let (log, _) = open(directory.path());
    let after = content(&log);
    assert_eq!(after.0.len(), 43);
    assert_eq!(after.0[..40], before.0);
    assert_eq!(log.segments.lag(38, u64::MAX, |_| true).unwrap().records, 5);
}

#[test]
fn a_consumed_file_is_written_over_and_nothing_of_its_earlier_life_comes_back() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    for _ in 0..6 {
        fill(&mut log, 12);
        log.retire(log.next(), usize::MAX);
    }
    let next = log.next();
    drop(log);
    let (log, recovered) = open(directory.path());
    assert_eq!(recovered.lost_records, 0);
    let (whole, lost) = content(&log);
    assert!(lost.iter().all(|(_, to)| whole.first().is_none_or(|(first, _)| to <= first)), "{lost:?}");
    assert!(whole.iter().all(|(offset, _)| *offset < next));
    assert_eq!(log.next(), next);
}

#[test]
fn a_full_quota_refuses_and_takes_again_when_there_is_room() {
    let directory = TempDir::new().unwrap();
    let quota = Arc::new(Quota::new(3 * SMALL));
    let (mut log, _) =
        Log::open(Arc::new(SystemDisk), directory.path().to_owned(), options(), quota.clone(), 0, Nonces::from(1)).unwrap();
    let mut taken = 0;
    let refused = loop {
        match log.append(&[entry(1, 500)], UnixNanos(1)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000);
    };
    assert!(matches!(refused, log::WriteError::Full(_)), "{refused}");
    assert!(taken > 10 && quota.used() <= 3 * SMALL);
    log.retire(taken, usize::MAX);
    log.append(&[entry(1, 500)], UnixNanos(1)).unwrap();
    assert_eq!(log.next(), taken + 1);
}

#[test]
fn spare_files_give_way_to_what_does_not_fit_into_them() {
    let directory = TempDir::new().unwrap();
    let quota = Arc::new(Quota::new(4 * SMALL));
    let (mut log, _) =
        Log::open(Arc::new(SystemDisk), directory.path().to_owned(), options(), quota.clone(), 0, Nonces::from(1)).unwrap();
    while log.segments.all().len() < 4 {
        fill(&mut log, 1);
    }
    log.retire(log.next(), usize::MAX);
    log.seal();
    log.retire(log.next(), usize::MAX);
    assert!(quota.used() > 0 && log.segments.all().is_empty(), "spare files only");
    log.append(&[entry(1, 3 * SMALL as usize)], UnixNanos(1)).unwrap();
    assert!(quota.used() <= 4 * SMALL);
}

#[test]
fn consumed_files_are_kept_for_what_comes_and_no_more_than_that() {
    let directory = TempDir::new().unwrap();
    let quota = Arc::new(Quota::new(64 * SMALL));
    let (mut log, _) =
        Log::open(Arc::new(SystemDisk), directory.path().to_owned(), options(), quota.clone(), 0, Nonces::from(1)).unwrap();
    let spares = || {
        let entries = fs::read_dir(directory.path()).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "spare")).count()
    };
    let segments = |log: &Log| log.segments.all().len();
    while segments(&log) < 9 {
        fill(&mut log, 1);
    }
    let used = quota.used();
    log.retire(log.next(), usize::MAX);
    assert_eq!((segments(&log), spares()), (1, 4));
    assert_eq!(quota.used(), used - 4 * SMALL, "the others are removed");
    let used = quota.used();
    while segments(&log) < 4 {
        fill(&mut log, 1);
    }
    assert_eq!((spares(), quota.used()), (1, used), "three segments were begun, and no file");
    // In each round from now on one is begun.
    for _ in 0..3 {
        log.retire(log.next(), usize::MAX);
        while segments(&log) < 2 {
            fill(&mut log, 1);
        }
    }
    assert_eq!(spares(), 1);
    log.drop_spares();
    assert_eq!((spares(), quota.used()), (0, 2 * SMALL));
    // Another shard has its share of the same room: the first is always kept.
    assert!((0..4).all(|_| quota.spare(SMALL)) && !quota.spare(SMALL));
    log.retire(log.next(), usize::MAX);
    while segments(&log) < 4 {
        fill(&mut log, 1);
    }
    log.retire(log.next(), usize::MAX);
    assert_eq!(spares(), 1);
}

#[test]
fn a_file_with_new_blocks_is_left_once_enough_wait_to_be_written_over() {
    let directory = TempDir::new().unwrap();
    let quota = Arc::new(Quota::new(64 * SMALL));
    let (mut log, _) =
        Log::open(Arc::new(SystemDisk), directory.path().to_owned(), options(), quota.clone(), 0, Nonces::from(1)).unwrap();
    while log.segments.all().len() < 3 {
        fill(&mut log, 1);
    }
    let (begun, used) = (log.active_base().unwrap(), quota.used());
    // The two before it become the files that are written over; it has room, and is left all the same.
    log.retire(begun, usize::MAX);
    fill(&mut log, 1);
    let after = log.active_base().unwrap();
    assert_eq!((after, log.next()), (begun + 1, begun + 2));
    assert_eq!(quota.used(), used, "no file more");
    // One is left: what is written now has old blocks, and is filled.
    fill(&mut log, 5);
    assert_eq!(log.active_base(), Some(after));
    assert_eq!(content(&log).0.len(), 7);
    // What was left half written is not written over.
    log.retire(after, usize::MAX);
    assert_eq!(quota.used(), used - SMALL);
}

#[test]
fn segments_go_one_by_one_where_that_is_asked_for() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    while log.segments.all().len() < 4 {
        fill(&mut log, 1);
    }
    let upto = log.active_base().unwrap();
    for left in [3, 2] {
        assert!(log.retire(upto, 1));
        assert_eq!(log.segments.all().len(), left);
    }
    assert!(!log.retire(upto, 1));
    assert_eq!(log.segments.all().len(), 1);
}

proptest! {
    #[test]
    fn any_damage_costs_what_it_touched_and_nothing_else(
        at in 0_usize..14_000, len in 1_usize..60, value in any::<u8>(), cut in any::<bool>()
    ) {
        let directory = TempDir::new().unwrap();
        let (mut log, _) = open(directory.path());
        fill(&mut log, 30);
        let before = content(&log).0;
        log.seal();
        drop(log);
        let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let segments: Vec<_> = names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
        let path = segments[at % segments.len()];
        let mut bytes = fs::read(path).unwrap();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            for byte in bytes.iter_mut().skip(at).take(len) {
                *byte = value;
            }
        }
        fs::write(path, &bytes).unwrap();
        let (log, _) = open(directory.path());
        let (whole, lost) = content(&log);
        for record in &whole {
            prop_assert!(before.contains(record), "{record:?} was never written");
        }
        // A record is 360 bytes; what was touched lies in one segment of at most twelve records.
        prop_assert!(before.len() - whole.len() <= 12, "{} of {} are left", whole.len(), before.len());
        if !cut {
            prop_assert!(at < SEGMENT_HEADER_BYTES || before.len() - whole.len() <= len / 360 + 2);
        }
        let gone: Vec<u64> = before.iter().filter(|record| !whole.contains(record)).map(|(offset, _)| *offset).collect();
        let last = whole.last().map_or(0, |(offset, _)| *offset);
        for offset in gone.iter().filter(|offset| **offset < last) {
            prop_assert!(lost.iter().any(|(from, to)| (*from..*to).contains(offset)), "{offset} is missing unsaid: {lost:?}");
        }
    }

    #[test]
    fn headers_of_any_bytes_are_refused_or_right(bytes in proptest::collection::vec(any::<u8>(), 0..80), nonce in any::<u64>()) {
        prop_assert!(RecordHeader::decode(nonce, &bytes).is_none());
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
    }
}

#[test]
fn headers_say_what_was_put_into_them() {
    let header = SegmentHeader { signal: Signal::Logs, shard: 3, base: 17, nonce: 0xdead_beef_0000_0001, created: UnixNanos(5) };
    let mut bytes = header.encode();
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    bytes[8] = 2;
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Damaged), "a flipped bit is no newer version");
    let sum = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..].copy_from_slice(&sum);
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Newer(2)));
    let record = RecordHeader {
        payload_len: 10,
        meta_len: 3,
        body_sum: 99,
        source: 4,
        offset: u64::MAX - 1,
        received: UnixNanos(8),
        items: 12,
        items_before: 1000,
    };
    let mut bytes = Vec::new();
    record.encode(77, &mut bytes);
    assert_eq!(bytes.len(), RECORD_HEADER_BYTES);
    assert_eq!(RecordHeader::decode(77, &bytes), Some(record));
    assert_eq!(RecordHeader::decode(78, &bytes), None, "of another life of the file");
}

#[test]
fn a_reader_goes_back_to_what_it_did_not_take_without_starting_anew() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    for items in 1..100 {
        log.append(&[entry(items, 100)], UnixNanos(1)).unwrap();
    }
    let mut place = ReadPlace::default();
    for next in [0, 30] {
        let found = log.segments.read(&mut place, next, 1 << 20).unwrap();
        let segment = place;
        for one in &found {
            let Found::Record(expected) = one else { panic!("{one:?}") };
            let mut again = segment.back_to(one);
            assert_eq!((again.at, again.offset), (expected.end - expected.header.bytes(), expected.header.offset));
            let found = log.segments.read(&mut again, expected.header.offset, 1).unwrap();
            let Some(Found::Record(first)) = found.first() else { panic!("{found:?}") };
            assert_eq!(
                (first.header.offset, first.header.items, first.end),
                (expected.header.offset, expected.header.items, expected.end)
            );
        }
    }
}

/// The files of its segments, in order.
fn segments_in(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

fn flip_header(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[20] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_header_that_is_damaged_costs_nothing_where_its_segment_was_sealed() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    fill(&mut log, 60);
    let before = content(&log);
    drop(log);
    let segments = segments_in(directory.path());
    flip_header(&segments[1]);
    for _ in 0..2 {
        let (log, recovered) = open(directory.path());
        assert_eq!((recovered.lost_records, recovered.lost_items), (0, 0));
        assert_eq!(content(&log), before);
    }
}

#[test]
fn a_header_that_is_damaged_costs_nothing_where_its_segment_begins_with_a_whole_record() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    fill(&mut log, 60);
    let before = content(&log);
    drop(log);
    let segments = segments_in(directory.path());
    for segment in &segments[1..] {
        flip_header(segment);
        drop(fs::remove_file(segment.with_extension("extent")));
    }
    for _ in 0..2 {
        let (log, recovered) = open(directory.path());
        assert_eq!((recovered.lost_records, recovered.lost_items), (0, 0));
        assert_eq!(content(&log), before);
    }
}

#[test]
fn a_segment_that_is_gone_is_counted_by_its_neighbours() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    fill(&mut log, 60);
    let before = content(&log).0;
    drop(log);
    let segments = segments_in(directory.path());
    // One without its header and what stands beside it, and one of no length.
    let mut bytes = fs::read(&segments[1]).unwrap();
    bytes[..SEGMENT_HEADER_BYTES + 8].fill(7);
    fs::write(&segments[1], bytes).unwrap();
    fs::remove_file(segments[1].with_extension("extent")).unwrap();
    fs::write(&segments[3], []).unwrap();
    let (log, recovered) = open(directory.path());
    let (whole, lost) = content(&log);
    let gone: Vec<_> = before.iter().filter(|record| !whole.contains(record)).collect();
    assert_eq!((recovered.lost_records, recovered.lost_items), (gone.len() as u64, gone.iter().map(|(_, items)| items).sum()));
    assert!(gone.len() > 10 && lost.len() == 2, "{lost:?}");
}

#[test]
fn records_that_were_there_at_the_end_and_are_not_are_said() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    fill(&mut log, 5);
    drop(log);
    let quota = Arc::new(Quota::new(1 << 30));
    let (_, recovered) =
        Log::open(Arc::new(SystemDisk), directory.path().to_owned(), options(), quota, 9, Nonces::from(1)).unwrap();
    assert_eq!(recovered.lost_records, 4);
}

#[test]
fn what_would_be_read_as_damage_is_not_written() {
    let directory = TempDir::new().unwrap();
    let (mut log, _) = open(directory.path());
    // Zeros that nobody touches take no memory.
    let long = Entry { payload: Bytes::from(vec![0; 1 << 31]), ..entry(1, 1) };
    assert!(matches!(log.append(&[long], UnixNanos(1)), Err(log::WriteError::Full(_))));
    fill(&mut log, 2);
    assert_eq!(content(&log).0.len(), 2);
}

// === shards ===

struct Rig {
    topic: Topic,
    shard: Arc<DiskShard>,
    _directory: Directory,
}

fn rig(path: &Path, bytes_max: u64) -> Rig {
    rig_of(path, bytes_max, OffsetReset::Latest)
}

fn rig_of(path: &Path, bytes_max: u64, offset_reset: OffsetReset) -> Rig {
    let wish = Persistence {
        directory: path.to_owned(),
        sync: true,
        bytes_max: Some(bytes_max),
        letters_bytes_max: Some(0),
        shards: 1,
        offset_reset,
    };
    let directory =
        Directory::open(&wish, vec!["traces".to_owned()], &["otlp".to_owned(), "otlp/b".to_owned()], Clock::system()).unwrap();
    let room = Arc::new(Notify::new());
    let shard = directory.shard(TopicId(0), "traces", Signal::Traces, 0, 1 << 40, room.clone()).unwrap();
    let topic = Topic::of(TopicId(0), "traces".to_owned(), Signal::Traces, room, vec![shard.clone()]);
    Rig { topic, shard, _directory: directory }
}

fn subscriber(name: &str, sources: &[u16]) -> Subscriber {
    Subscriber {
        name: name.into(),
        sources: Sources::of(sources.iter().map(|source| SourceId(*source))),
        bound: LagBound::NONE,
        on_overflow: OnOverflow::SkipOldest,
        is_stateful: false,
    }
}

fn record(source: u16, items: u64, bytes: usize) -> NewRecord {
    let context = Context { peer: Some([1, 2, 3, 4].into()), auth: vec![("user".into(), "ä".into())], ..Context::default() };
    let payload = Bytes::from(vec![items as u8; bytes]);
    let batch = Batch { signal: Signal::Traces, payload, items, context: Arc::new(context), index: None };
    NewRecord { source: SourceId(source), received: UnixNanos(7), batch, derived_from: None }
}

fn read(cursor: &mut Cursor) -> Vec<Record> {
    let mut out = Vec::new();
    while cursor.has_unread() {
        cursor.read(7, 100_000, &mut out);
    }
    out
}

fn balance(accounts: &Accounts) -> (u64, u64, u64) {
    let books = accounts.books();
    assert!(books.balance(), "{books:?}");
    (books.accepted, books.delivered, books.held)
}

#[tokio::test]
async fn what_was_acknowledged_and_not_delivered_is_there_at_the_next_start() {
    let path = TempDir::new().unwrap();
    {
        let rig = rig(path.path(), 64 << 20);
        let (mut all, mut late) = (rig.topic.cursor(&subscriber("all", &[0, 1])), rig.topic.cursor(&subscriber("late", &[1])));
        for number in 0..20 {
            rig.topic.append(0, record(number % 2, u64::from(number) + 1, 1000)).await.unwrap();
        }
        let records = read(&mut all);
        assert_eq!(records.len(), 20);
        assert_eq!(records[3].batch.context.auth("user"), Some("ä"));
        for record in records.iter().take(5) {
            all.settle(record.position, &Settled::delivered(record.batch.items));
        }
        assert_eq!(all.abandon(DropReason::Shutdown), 0, "nothing on disk is given up");
        assert_eq!(balance(&all.accounts()), (210, 15, 195));
        let _ = read(&mut late);
        rig.shard.close();
    }
    let rig = rig(path.path(), 64 << 20);
    let (mut all, mut late) = (rig.topic.cursor(&subscriber("all", &[0, 1])), rig.topic.cursor(&subscriber("late", &[1])));
    let mut newcomer = rig.topic.cursor(&subscriber("new", &[0, 1]));
    assert_eq!(balance(&all.accounts()), (210, 15, 195));
    assert!(!newcomer.has_unread(), "who is new begins with what comes");
    rig.topic.append(0, record(1, 100, 10)).await.unwrap();
    let records = read(&mut all);
    let offsets: Vec<_> = records.iter().map(|record| record.position.offset).collect();
    assert_eq!(offsets, (5..=20).collect::<Vec<_>>());
    assert_eq!(records[0].batch.context.auth("user"), Some("ä"));
    assert_eq!(records[0].batch.payload, vec![6; 1000]);
    for record in &records {
        all.settle(record.position, &Settled::delivered(record.batch.items));
    }
    assert_eq!(balance(&all.accounts()), (310, 310, 0));
    assert_eq!(read(&mut late).len(), 11);
    assert_eq!(read(&mut newcomer).len(), 1);
}

#[tokio::test]
async fn who_leaves_and_joins_again_goes_on_where_it_stood() {
    let path = TempDir::new().unwrap();
    let rig = rig(path.path(), 1 << 30);
    let (mut gone, mut stays) = (rig.topic.cursor(&subscriber("gone", &[0])), rig.topic.cursor(&subscriber("stays", &[0, 1])));
    // More than the tail in memory.
    for number in 0..20_u64 {
        rig.topic.append(0, record((number % 2) as u16, number + 1, 700_000)).await.unwrap();
        let _ = read(&mut stays);
    }
    let mut first = Vec::new();
    gone.read(2, usize::MAX, &mut first);
    gone.settle(first[0].position, &Settled::delivered(first[0].batch.items));
    gone.leave();
    for number in 20..24_u64 {
        rig.topic.append(0, record((number % 2) as u16, number + 1, 700_000)).await.unwrap();
    }
    assert_eq!(rig.shard.strangers().first().map(|(name, lag)| (name.as_str(), lag.records)), Some(("gone", 23)));
    let mut back = rig.topic.cursor(&subscriber("gone", &[0]));
    assert_eq!(balance(&back.accounts()), (144, 1, 143));
    let items: Vec<u64> = read(&mut back).iter().map(|record| record.batch.items).collect();
    assert_eq!(items, (3..24).step_by(2).collect::<Vec<_>>(), "what was under way comes again, and what came meanwhile");
    assert!(rig.shard.strangers().is_empty());
}

#[tokio::test]
async fn records_whose_sources_are_not_known_are_not_given_to_anybody() {
    for content in [None, Some(&b""[..]), Some(b"nonsense")] {
        let path = TempDir::new().unwrap();
        let rig = rig(path.path(), 1 << 30);
        drop(rig.topic.cursor(&subscriber("reader", &[0])));
        rig.topic.append(0, record(0, 1, 1000)).await.unwrap();
        rig.shard.close();
        drop(rig);
        let sources = path.path().join("sources");
        fs::remove_file(&sources).unwrap();
        if let Some(content) = content {
            fs::write(&sources, content).unwrap();
        }
        let wish = Persistence {
            directory: path.path().to_owned(),
            sync: true,
            bytes_max: None,
            letters_bytes_max: None,
            shards: 1,
            offset_reset: OffsetReset::Latest,
        };
        let opened = Directory::open(&wish, vec!["traces".to_owned()], &["otlp/b".to_owned()], Clock::system());
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("sources") && error.contains("cannot be read"), "{error}");
    }
}

#[tokio::test]
async fn who_is_new_begins_with_what_comes_or_with_the_oldest_that_is_there() {
    for (offset_reset, expected) in [(OffsetReset::Latest, vec![9]), (OffsetReset::Earliest, vec![1, 2, 3, 9])] {
        let path = TempDir::new().unwrap();
        let rig = rig_of(path.path(), 1 << 30, offset_reset);
        let held_by = rig.topic.cursor(&subscriber("waits", &[0, 1]));
        for items in 1..4 {
            rig.topic.append(0, record(0, items, 1000)).await.unwrap();
        }
        rig.topic.append(0, record(1, 77, 1000)).await.unwrap();
        let mut new = rig.topic.cursor(&subscriber("new", &[0]));
        rig.topic.append(0, record(0, 9, 1000)).await.unwrap();
        let records = read(&mut new);
        assert_eq!(records.iter().map(|record| record.batch.items).collect::<Vec<_>>(), expected);
        for record in &records {
            new.settle(record.position, &Settled::delivered(record.batch.items));
        }
        let all = expected.iter().sum();
        assert_eq!(balance(&new.accounts()), (all, all, 0), "{offset_reset:?}");
        rig.shard.close();
        drop((held_by, new));
    }
}

/// All files, as a kill leaves them at this moment.
fn copied(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copied(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_held_for_who_is_gone_is_let_go_once_and_stays_so_after_a_kill() {
    let (path, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let rig = rig(path.path(), 1 << 30);
    let (mut gone, stays) = (rig.topic.cursor(&subscriber("gone", &[0])), rig.topic.cursor(&subscriber("stays", &[0, 1])));
    for number in 0..10_u64 {
        rig.topic.append(0, record((number % 2) as u16, number + 1, 1000)).await.unwrap();
    }
    let mut first = Vec::new();
    gone.read(1, usize::MAX, &mut first);
    gone.settle(first[0].position, &Settled::delivered(1));
    assert!(matches!(rig.shard.remove_orphan("gone").unwrap(), Removing::Configured));
    assert_eq!(balance(&gone.accounts()), (25, 1, 24), "it is as it was");
    gone.leave();
    assert!(matches!(rig.shard.remove_orphan("stays").unwrap(), Removing::Configured));
    assert!(matches!(rig.shard.remove_orphan("nobody").unwrap(), Removing::Unknown));
    // Counted once from the disk, then with what comes.
    let held =
        |records, items, bytes| Orphan { consumer: "gone".to_owned(), held: Lag { records, items, bytes }, removed_items: 0 };
    assert_eq!(rig.shard.orphans(), [held(8, 52, 8000)]);
    rig.topic.append(0, record(0, 100, 500)).await.unwrap();
    assert_eq!(rig.shard.orphans(), [held(9, 152, 8500)]);

    let Removing::Removed { held, items, written } = rig.shard.remove_orphan("gone").unwrap() else {
        panic!("it holds something")
    };
    assert_eq!((held.items, items), (152, 24), "what its books had as held");
    written.await.unwrap();
    copied(path.path(), killed.path());
    let Removing::Removed { held, items, written } = rig.shard.remove_orphan("gone").unwrap() else { panic!("it stood here") };
    written.await.unwrap();
    assert_eq!((held, items), (Lag::default(), 0), "asked again, nothing happens");
    assert_eq!(rig.shard.orphans(), [Orphan { consumer: "gone".to_owned(), held: Lag::default(), removed_items: 24 }]);
    assert_eq!(balance(&stays.accounts()), (155, 0, 155), "nobody else lost anything");

    for rig in [rig, self::rig(killed.path(), 1 << 30)] {
        let mut back = rig.topic.cursor(&subscriber("gone", &[0]));
        let books = back.accounts().books();
        assert!(books.balance(), "{books:?}");
        assert_eq!((books.accepted, books.delivered, books.dropped[DropReason::Removed as usize]), (25, 1, 24));
        rig.topic.append(0, record(0, 7, 10)).await.unwrap();
        assert_eq!(read(&mut back).iter().map(|record| record.batch.items).collect::<Vec<_>>(), [7]);
    }
}

#[tokio::test]
async fn who_had_everything_and_is_gone_holds_nothing_and_begins_at_the_end() {
    let path = TempDir::new().unwrap();
    {
        let rig = rig(path.path(), 64 << 20);
        let [mut renamed, mut closed, mut stopped] =
            ["renamed", "closed", "stopped"].map(|name| rig.topic.cursor(&subscriber(name, &[0])));
        rig.topic.append(0, record(0, 5, 100)).await.unwrap();
        for cursor in [&mut renamed, &mut closed, &mut stopped] {
            for record in read(cursor) {
                cursor.settle(record.position, &Settled::delivered(record.batch.items));
            }
        }
        // While it runs.
        renamed.leave();
        let consumer = closed.seats().iter().map(|(_, consumer)| *consumer).sum();
        rig.topic.switch(&[Change::Close { consumer }]);
        rig.topic.append(0, record(0, 7, 100)).await.unwrap();
        // What came since it was told to end is for others.
        closed.leave();
        for record in read(&mut stopped) {
            stopped.settle(record.position, &Settled::delivered(record.batch.items));
        }
        assert!(rig.shard.strangers().is_empty());
        rig.shard.close();
    }
    {
        // Without either of them.
        let rig = rig(path.path(), 64 << 20);
        let mut other = rig.topic.cursor(&subscriber("other", &[0]));
        assert!(rig.shard.strangers().is_empty());
        // More than the room there is, of which nobody holds anything.
        for _ in 0..100 {
            rig.topic.append(0, record(0, 1, 900_000)).await.unwrap();
            for record in read(&mut other) {
                other.settle(record.position, &Settled::delivered(record.batch.items));
            }
        }
        assert!(rig.shard.strangers().is_empty());
        rig.shard.close();
    }
    let rig = rig(path.path(), 64 << 20);
    for (name, items) in [("renamed", 5), ("closed", 5), ("stopped", 12)] {
        let mut back = rig.topic.cursor(&subscriber(name, &[0]));
        assert_eq!(balance(&back.accounts()), (items, items, 0), "{name}");
        rig.topic.append(0, record(0, 2, 100)).await.unwrap();
        assert_eq!(read(&mut back).len(), 1, "{name}");
        back.leave();
    }
}

/// A topic of a directory that is opened for so many shards.
fn sharded(path: &Path, shards: u16) -> (Directory, Topic, Vec<Arc<DiskShard>>) {
    let wish = Persistence {
        directory: path.to_owned(),
        sync: false,
        bytes_max: Some(64 << 20),
        letters_bytes_max: Some(0),
        shards,
        offset_reset: OffsetReset::Latest,
    };
    let directory = Directory::open(&wish, vec!["traces".to_owned()], &["otlp".to_owned()], Clock::system()).unwrap();
    let (id, room) = (TopicId(0), Arc::new(Notify::new()));
    let open = |number| directory.shard(id, "traces", Signal::Traces, number, 1 << 40, room.clone()).unwrap();
    let opened: Vec<Arc<DiskShard>> = (0..directory.shards_of("traces", shards).unwrap()).map(open).collect();
    let all = opened.iter().map(|shard| shard.clone() as Arc<dyn Shard>).collect();
    let topic = Topic::of(id, "traces".to_owned(), Signal::Traces, room, all).taking(shards);
    (directory, topic, opened)
}

#[tokio::test]
async fn what_lies_in_more_shards_than_are_wanted_now_is_read_to_its_end() {
    let path = TempDir::new().unwrap();
    {
        let (_directory, topic, shards) = sharded(path.path(), 3);
        drop(topic.cursor(&subscriber("all", &[0])));
        for stream in 0..6 {
            topic.append(stream, record(0, 1 + stream as u64, 100)).await.unwrap();
        }
        for shard in shards {
            assert_eq!(shard.end(), 2);
            shard.close();
        }
    }
    // Not made by weir.
    fs::create_dir_all(path.path().join("topics/traces/60000")).unwrap();
    fs::write(path.path().join("topics/traces/7x"), "").unwrap();
    let (_directory, topic, shards) = sharded(path.path(), 1);
    let mut cursor = topic.cursor(&subscriber("all", &[0]));
    for stream in 0..3 {
        topic.append(stream, record(0, 10, 100)).await.unwrap();
    }
    let ends: Vec<u64> = shards.iter().map(|shard| shard.end()).collect();
    assert_eq!(ends, [5, 2, 2]);
    let mut found: Vec<(u16, u64)> = read(&mut cursor).iter().map(|record| (record.position.shard, record.batch.items)).collect();
    found.sort_unstable();
    assert_eq!(found, [(0, 1), (0, 4), (0, 10), (0, 10), (0, 10), (1, 2), (1, 5), (2, 3), (2, 6)]);
    assert_eq!(balance(&cursor.accounts()), (51, 0, 51));
}

#[tokio::test]
async fn who_falls_behind_reads_the_disk_and_misses_nothing() {
    let path = TempDir::new().unwrap();
    let rig = rig(path.path(), 1 << 30);
    let mut cursor = rig.topic.cursor(&subscriber("behind", &[0]));
    let _other = rig.topic.cursor(&subscriber("other", &[1]));
    // More than the tail in memory, over several segments.
    for number in 0..40_u64 {
        rig.topic.append(0, record((number % 2) as u16, number + 1, 700_000)).await.unwrap();
    }
    let mut seen = Vec::new();
    for number in 0..40_u64 {
        let mut out = Vec::new();
        cursor.read(1, usize::MAX, &mut out);
        for record in out {
            assert_eq!(record.batch.payload.first().copied(), Some(record.batch.items as u8));
            seen.push(record.position.offset);
            cursor.settle(record.position, &Settled::delivered(record.batch.items));
        }
        if number == 5 {
            rig.topic.append(0, record(0, 99, 10)).await.unwrap();
        }
        balance(&cursor.accounts());
    }
    let expected: Vec<u64> = (0..41).filter(|offset| offset % 2 == 0).collect();
    assert_eq!(seen, expected);
    assert!(!cursor.has_unread());
}

#[tokio::test]
async fn a_second_owner_and_a_newer_format_are_refused() {
    let empty = TempDir::new().unwrap();
    assert!(Directory::look_free(empty.path()).is_ok() && fs::read_dir(empty.path()).unwrap().next().is_none());
    let path = TempDir::new().unwrap();
    let first = rig(path.path(), 64 << 20);
    let wish = Persistence {
        directory: path.path().to_owned(),
        sync: false,
        bytes_max: None,
        letters_bytes_max: None,
        shards: 1,
        offset_reset: OffsetReset::Latest,
    };
    let again = Directory::open(&wish, Vec::new(), &[], Clock::system()).map(drop).unwrap_err().to_string();
    assert!(again.contains(&std::process::id().to_string()) && again.contains("--data-dir"), "{again}");
    drop(first);
    fs::write(path.path().join("FORMAT"), "weir journal 2\n").unwrap();
    let newer = Directory::open(&wish, Vec::new(), &[], Clock::system()).map(drop).unwrap_err().to_string();
    assert!(newer.contains("weir journal 2") && newer.contains("FORMAT"), "{newer}");
}

#[tokio::test]
async fn a_full_journal_refuses_and_takes_again_when_something_was_delivered() {
    let path = TempDir::new().unwrap();
    let rig = rig(path.path(), 16 << 20);
    let mut cursor = rig.topic.cursor(&subscriber("slow", &[0]));
    let mut taken = 0_u64;
    let refused = loop {
        match rig.topic.append(0, record(0, 1, 600_000)).await {
            Ok(_) => taken += 1,
            Err(error) => break error.to_string(),
        }
        assert!(taken < 100);
    };
    assert!(refused.contains("--journal-max-size"), "{refused}");
    assert!(taken > 15, "{taken}");
    for record in read(&mut cursor) {
        cursor.settle(record.position, &Settled::delivered(1));
    }
    let mut again = Err(String::new());
    for _ in 0..50 {
        again = rig.topic.append(0, record(0, 1, 600_000)).await.map_err(|error| error.to_string());
        if again.is_ok() {
            break;
        }
    }
    assert_eq!(again, Ok(taken));
    assert_eq!(balance(&cursor.accounts()), (taken + 1, taken, 1));
}

#[tokio::test]
async fn damage_in_the_middle_is_counted_and_the_rest_is_delivered() {
    let path = TempDir::new().unwrap();
    {
        let rig = rig(path.path(), 64 << 20);
        let _cursor = rig.topic.cursor(&subscriber("all", &[0]));
        for number in 0..10 {
            rig.topic.append(0, record(0, number + 1, 1000)).await.unwrap();
        }
        rig.shard.close();
    }
    let segment = path.path().join("topics/traces/0/00000000000000000000.log");
    let mut bytes = fs::read(&segment).unwrap();
    let at = SEGMENT_HEADER_BYTES + 3 * (RECORD_HEADER_BYTES + 1000).next_multiple_of(8) + 500;
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let rig = rig(path.path(), 64 << 20);
    let mut cursor = rig.topic.cursor(&subscriber("all", &[0]));
    let items: Vec<u64> = read(&mut cursor).iter().map(|record| record.batch.items).collect();
    assert_eq!(items, [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    let books = cursor.accounts().books();
    assert_eq!(books.dropped[DropReason::Damaged as usize], 4);
    assert!(books.balance(), "{books:?}");
}

#[tokio::test]
async fn appends_to_a_topic_nobody_reads_are_not_written() {
    let path = TempDir::new().unwrap();
    let rig = rig(path.path(), 64 << 20);
    assert!(matches!(rig.topic.append_now(0, record(0, 1, 10)), Err((AppendError::Unwanted, _))));
    assert_eq!(rig.shard.end(), 0);
}

#[tokio::test]
async fn a_record_that_is_too_long_is_refused_for_good() {
    let path = TempDir::new().unwrap();
    let rig = rig(path.path(), 64 << 20);
    let _cursor = rig.topic.cursor(&subscriber("one", &[0]));
    let mut long = record(0, 1, 1);
    long.batch.payload = Bytes::from(vec![0; 1 << 31]);
    let refused = rig.topic.append(0, long).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    assert_eq!(rig.shard.fault(), None);
}

/// What the books of a consumer say that reads what is left: (records, accepted, delivered, damaged).
async fn what_is_left(path: &Path, sources: &[u16]) -> (usize, u64, u64, u64) {
    let rig = rig(path, 64 << 20);
    let mut cursor = rig.topic.cursor(&subscriber("one", sources));
    let records = read(&mut cursor);
    for record in &records {
        cursor.settle(record.position, &Settled::delivered(record.batch.items));
    }
    let books = cursor.accounts().books();
    assert!(books.balance() && books.held == 0, "{} records, {books:?}", records.len());
    (records.len(), books.accepted, books.delivered, books.dropped[DropReason::Damaged as usize])
}

#[tokio::test]
async fn what_is_missing_at_the_start_is_in_the_books_of_whom_it_was_for() {
    for (damage, left) in [(0, 10), (1, 0), (2, 9)] {
        let path = TempDir::new().unwrap();
        {
            let rig = rig(path.path(), 64 << 20);
            let _cursor = rig.topic.cursor(&subscriber("one", &[0]));
            let _other = rig.topic.cursor(&subscriber("other", &[1]));
            for number in 0..20 {
                rig.topic.append(0, record(number % 2, u64::from(number) + 1, 1000)).await.unwrap();
            }
            rig.shard.close();
        }
        let segment = segments_in(&path.path().join("topics/traces/0")).remove(0);
        // As after a kill: nothing beside it.
        fs::remove_file(segment.with_extension("extent")).unwrap();
        let mut bytes = fs::read(&segment).unwrap();
        match damage {
            1 => bytes.clear(),
            2 => bytes[SEGMENT_HEADER_BYTES + 4 * (RECORD_HEADER_BYTES + 1000).next_multiple_of(8) + 500] ^= 1,
            _ => {}
        }
        fs::write(&segment, bytes).unwrap();
        let (records, accepted, delivered, damaged) = what_is_left(path.path(), &[0]).await;
        assert_eq!((records, accepted, delivered + damaged), (left, 100, 100), "damage {damage}");
        // And not once more.
        assert_eq!(what_is_left(path.path(), &[0]).await, (0, accepted, delivered, damaged));
    }
}

#[tokio::test]
async fn the_items_of_a_segment_that_is_gone_are_in_the_books() {
    let path = TempDir::new().unwrap();
    {
        let rig = rig(path.path(), 64 << 20);
        let _cursor = rig.topic.cursor(&subscriber("one", &[0]));
        for number in 0..30 {
            rig.topic.append(0, record(0, number + 1, 900_000)).await.unwrap();
        }
        rig.shard.close();
    }
    let segments = segments_in(&path.path().join("topics/traces/0"));
    assert!(segments.len() > 3);
    fs::write(&segments[1], []).unwrap();
    let (records, accepted, delivered, damaged) = what_is_left(path.path(), &[0]).await;
    assert!(records < 30 && damaged > 0);
    assert_eq!((accepted, delivered + damaged), ((1..=30).sum(), (1..=30).sum()));
}

#[test]
fn letters_of_a_newer_weir_are_left_as_they_are_and_an_older_directory_gets_its_own() {
    let path = TempDir::new().unwrap();
    let wish = Persistence {
        directory: path.path().to_owned(),
        sync: false,
        bytes_max: Some(32 << 20),
        letters_bytes_max: None,
        shards: 1,
        offset_reset: OffsetReset::Latest,
    };
    let open = || Directory::open(&wish, Vec::new(), &[], Clock::system()).unwrap();
    drop(open());
    assert!(!path.path().join("letters").exists());
    assert_eq!(open().letters().unwrap().0.held(), Lag::default());
    let format = path.path().join("letters/FORMAT");
    fs::write(&format, "weir letters 2\n").unwrap();
    let refused = Directory::open(&wish, Vec::new(), &[], Clock::system()).err().unwrap().to_string();
    assert!(refused.contains("weir letters 2"), "{refused}");
    assert!(inspect::Journal::open(path.path()).unwrap().letters(|_| Ok::<_, inspect::InspectError>(())).is_err());
    assert_eq!(fs::read_to_string(&format).unwrap(), "weir letters 2\n");
}
