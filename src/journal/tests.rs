//! Topics hand out every record once, cursors move as far as work is done, and the books balance at every step.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::signal::{Batch, Signal, UnixNanos};

const PACE: u64 = 1 << 20;

fn topic(shards: u16) -> Topic {
    Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, shards, |number, room| {
        Arc::new(MemoryShard::new(TopicId(0), number, PACE, room))
    })
}

fn subscriber(sources: &[u16], bound: LagBound, on_overflow: OnOverflow) -> Subscriber {
    Subscriber {
        name: "traces → test".into(),
        sources: Sources::of(sources.iter().map(|s| SourceId(*s))),
        bound,
        on_overflow,
        is_stateful: false,
    }
}

fn unbounded() -> Subscriber {
    subscriber(&[0], LagBound::NONE, OnOverflow::SkipOldest)
}

fn record(source: u16, items: u64, bytes: usize) -> NewRecord {
    NewRecord {
        source: SourceId(source),
        received: UnixNanos(7),
        batch: Batch {
            signal: Signal::Traces,
            payload: Bytes::from(vec![0; bytes]),
            items,
            context: Arc::default(),
            index: None,
        },
        derived_from: None,
    }
}

fn put(topic: &Topic, shard: usize, new: NewRecord) -> bool {
    match topic.append_now(shard, new) {
        Ok(Appending::Done(_)) => true,
        Ok(Appending::Syncing(_)) => panic!("memory mode has nothing to sync"),
        Err(_) => false,
    }
}

fn read_all(cursor: &mut Cursor) -> Vec<Record> {
    let mut out = Vec::new();
    while cursor.has_unread() {
        cursor.read(100, usize::MAX, &mut out);
    }
    out
}

#[test]
fn every_consumer_sees_every_record_of_its_sources_in_order() {
    let topic = topic(2);
    let mut both = topic.cursor(&subscriber(&[0, 1], LagBound::NONE, OnOverflow::SkipOldest));
    let mut one = topic.cursor(&subscriber(&[1], LagBound::NONE, OnOverflow::SkipOldest));
    for n in 0..10_u16 {
        assert!(put(&topic, usize::from(n / 2 % 2), record(n % 2, u64::from(n), 10)));
    }
    let seen = read_all(&mut both);
    assert_eq!(seen.len(), 10);
    for shard in 0..2 {
        let offsets: Vec<_> = seen.iter().filter(|r| r.position.shard == shard).map(|r| r.position.offset).collect();
        assert!(offsets.is_sorted(), "{offsets:?}");
    }
    assert!(read_all(&mut one).iter().all(|r| r.source == SourceId(1)));
}

#[test]
fn a_consumer_that_is_moved_over_records_tells_which() {
    let topic = topic(1);
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let telling = told.clone();
    let waker = Arc::new(Waker::telling(move |record| telling.lock().push(record.position.offset)));
    let bound = LagBound { bytes: 10, ..LagBound::NONE };
    let places = topic.subscribe(&subscriber(&[0], bound, OnOverflow::SkipOldest), &waker);
    let cursor = Cursor::new(places, waker);
    let _other = topic.cursor(&subscriber(&[1], LagBound::NONE, OnOverflow::SkipOldest));
    // The second one is for somebody else, and the last one leaves no room for those before it.
    for (source, bytes) in [(0, 1), (1, 1), (0, 1), (0, 10)] {
        put(&topic, 0, record(source, 1, bytes));
    }
    assert_eq!((cursor.accounts().books().dropped[DropReason::Lag as usize], &*told.lock()), (2, &vec![0, 2]));
}

#[test]
fn the_oldest_is_what_is_not_settled_read_or_not() {
    let topic = topic(2);
    let mut cursor = topic.cursor(&unbounded());
    let oldest = cursor.oldest();
    assert_eq!(oldest.get(), None);
    let at = |nanos| NewRecord { received: UnixNanos(nanos), ..record(0, 1, 1) };
    for (shard, nanos) in [(0, 30), (0, 40), (1, 20)] {
        put(&topic, shard, at(nanos));
    }
    assert_eq!(oldest.get(), Some(UnixNanos(20)));
    let records = read_all(&mut cursor);
    assert_eq!(oldest.get(), Some(UnixNanos(20)));
    for (settled, left) in [(40, Some(20)), (20, Some(30)), (30, None)] {
        let record = records.iter().find(|record| record.received.0 == settled).unwrap();
        cursor.settle(record.position, &Settled::delivered(1));
        assert_eq!(oldest.get().map(|at| at.0), left, "{settled}");
    }
}

#[test]
fn the_cursor_waits_for_the_slowest_record() {
    let topic = topic(1);
    let mut cursor = topic.cursor(&unbounded());
    let accounts = cursor.accounts();
    for items in [1, 2, 4] {
        put(&topic, 0, record(0, items, 1));
    }
    let records = read_all(&mut cursor);
    cursor.settle(records[2].position, &Settled::delivered(4));
    cursor.settle(records[1].position, &Settled::dropped(DropReason::Rejected, 2));
    assert_eq!((accounts.books().delivered, accounts.books().held), (0, 7), "the first is still under way");
    cursor.settle(records[0].position, &Settled::delivered(1));
    let books = accounts.books();
    assert_eq!((books.delivered, books.dropped_total(), books.held), (5, 2, 0));
    assert!(books.balance());
}

#[test]
fn a_batch_lost_on_purpose_breaks_the_law() {
    let topic = topic(1);
    let mut cursor = topic.cursor(&unbounded());
    put(&topic, 0, record(0, 3, 1));
    put(&topic, 0, record(0, 5, 1));
    let records = read_all(&mut cursor);
    cursor.settle(records[0].position, &Settled::delivered(3));
    let shard_view = cursor.accounts();
    // The shard is told that everything is settled, but of the second record's items nobody says what became of them.
    topic.settle_for_test(0, u64::MAX, &Settled::default());
    assert!(!shard_view.books().balance(), "{:?}", shard_view.books());
}

#[test]
fn a_laggard_is_moved_over_its_oldest_and_it_is_counted() {
    let topic = topic(1);
    let mut slow = topic.cursor(&subscriber(&[0], LagBound { records: 2, ..LagBound::NONE }, OnOverflow::SkipOldest));
    let mut other = topic.cursor(&unbounded());
    for items in 1..=5 {
        assert!(put(&topic, 0, record(0, items, 1)));
    }
    let books = slow.accounts().books();
    assert_eq!((books.dropped[DropReason::Lag as usize], books.held), (1 + 2 + 3, 4 + 5));
    assert!(books.balance());
    assert_eq!(read_all(&mut slow).iter().map(|r| r.batch.items).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(read_all(&mut other).len(), 5, "the others see all of it");
}

#[test]
fn what_is_under_way_is_not_dropped_for_lag() {
    let topic = topic(1);
    let mut cursor = topic.cursor(&subscriber(&[0], LagBound { records: 1, ..LagBound::NONE }, OnOverflow::SkipOldest));
    put(&topic, 0, record(0, 1, 1));
    let flying = read_all(&mut cursor);
    for items in [10, 100] {
        put(&topic, 0, record(0, items, 1));
    }
    let accounts = cursor.accounts();
    assert_eq!((accounts.books().held, accounts.books().dropped[DropReason::Lag as usize]), (101, 10));
    cursor.settle(flying[0].position, &Settled::delivered(1));
    let last = read_all(&mut cursor);
    cursor.settle(last[0].position, &Settled::delivered(100));
    let books = accounts.books();
    assert_eq!((books.delivered, books.held, books.balance()), (101, 0, true));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_may_not_skip_holds_the_door() {
    let topic = Arc::new(topic(1));
    let mut strict = topic.cursor(&subscriber(&[0], LagBound { records: 1, ..LagBound::NONE }, OnOverflow::HoldDoor));
    assert_eq!(topic.append(0, record(0, 1, 1)).await, Ok(0));
    assert_eq!(topic.append(0, record(0, 1, 1)).await, Ok(1));
    let before = tokio::time::Instant::now();
    let refused = topic.append(0, record(0, 1, 1)).await;
    assert_eq!(refused, Err(AppendError::Full { consumer: "traces → test".into() }));
    assert!(before.elapsed() >= ROOM_WAIT, "it waited for room first");
    // Room while it waits lets it in.
    let waiting = topic.append(0, record(0, 1, 1));
    let (admitted, ()) = tokio::join!(waiting, async {
        tokio::task::yield_now().await;
        read_all(&mut strict);
    });
    assert_eq!(admitted, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_held_back_while_moving_consumers_are_behind_the_pace() {
    let topic = topic(1);
    let cursor = topic.cursor(&unbounded());
    let before = tokio::time::Instant::now();
    topic.append(0, record(0, 1, 1000)).await.unwrap();
    assert_eq!(before.elapsed(), std::time::Duration::ZERO);
    topic.append(0, record(0, 1, 2 << 20)).await.unwrap();
    assert_eq!(before.elapsed(), ROOM_WAIT, "but no longer than that, and it is in");
    cursor.set_stalled(true);
    let before = tokio::time::Instant::now();
    topic.append(0, record(0, 1, 1)).await.unwrap();
    assert_eq!(before.elapsed(), std::time::Duration::ZERO, "a consumer in backoff slows nobody down");
}

#[test]
fn payloads_are_let_go_when_all_have_read_them() {
    let topic = topic(1);
    let (mut a, mut b) = (topic.cursor(&unbounded()), topic.cursor(&unbounded()));
    let mut foreign = topic.cursor(&subscriber(&[9], LagBound::NONE, OnOverflow::SkipOldest));
    let new = record(0, 1, 64);
    let payload = new.batch.payload.clone();
    put(&topic, 0, new);
    assert!(!payload.is_unique());
    drop(read_all(&mut a));
    assert!(!payload.is_unique(), "one has still to read it");
    drop(read_all(&mut b));
    assert!(payload.is_unique(), "a consumer of other sources holds nothing");
    assert!(read_all(&mut foreign).is_empty());
}

#[test]
fn what_another_consumer_left_behind_is_not_kept_for_one_who_does_not_take_it() {
    let topic = topic(1);
    let mut cursor = topic.cursor(&subscriber(&[1], LagBound::NONE, OnOverflow::SkipOldest));
    let mut other = topic.cursor(&subscriber(&[0], LagBound::NONE, OnOverflow::SkipOldest));
    put(&topic, 0, record(1, 1, 8));
    let new = record(0, 1, 64);
    let payload = new.batch.payload.clone();
    put(&topic, 0, new);
    // Its read stops at the bound, with a foreign record behind.
    let mut out = Vec::new();
    cursor.read(1, 1, &mut out);
    drop(read_all(&mut other));
    assert!(payload.is_unique());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_waits_for_a_full_batch_is_not_behind() {
    let topic = topic(1);
    let cursor = topic.cursor(&unbounded());
    let before = tokio::time::Instant::now();
    let append = async {
        tokio::task::yield_now().await;
        topic.append(0, record(0, 1, 2 << 20)).await.unwrap();
    };
    tokio::select! {
        biased;
        () = cursor.ready_at(1000, u64::MAX) => panic!("there is one item"),
        () = append => {}
    }
    assert_eq!(before.elapsed(), std::time::Duration::ZERO);
}

#[test]
fn giving_up_is_counted() {
    let topic = topic(2);
    let mut cursor = topic.cursor(&unbounded());
    put(&topic, 0, record(0, 2, 1));
    put(&topic, 1, record(0, 3, 1));
    let mut out = Vec::new();
    cursor.read(1, 1, &mut out);
    assert_eq!(cursor.abandon(DropReason::Shutdown), 5);
    let books = cursor.accounts().books();
    assert_eq!((books.dropped[DropReason::Shutdown as usize], books.held, books.balance()), (5, 0, true));
}

#[tokio::test]
async fn a_sleeping_consumer_is_woken_by_what_it_waits_for() {
    let topic = Arc::new(topic(2));
    let cursor = topic.cursor(&subscriber(&[1], LagBound::NONE, OnOverflow::SkipOldest));
    let waker = async {
        tokio::task::yield_now().await;
        put(&topic, 0, record(0, 1, 1));
        tokio::task::yield_now().await;
        put(&topic, 1, record(1, 1, 1));
    };
    tokio::join!(cursor.ready(), waker);
    let more = async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
            put(&topic, 1, record(1, 1, 1));
        }
    };
    tokio::join!(cursor.ready_at(4, u64::MAX), more);
    assert_eq!(cursor.unread().items, 4);
}

#[derive(Debug, Clone)]
enum Step {
    Append { shard: usize, source: u16, items: u64 },
    Read { consumer: usize, records: usize },
    Settle { consumer: usize, pick: usize, dropped: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, 0..3_u16, 0..20_u64).prop_map(|(shard, source, items)| Step::Append { shard, source, items }),
        2 => (0..3_usize, 1..5_usize).prop_map(|(consumer, records)| Step::Read { consumer, records }),
        3 => (0..3_usize, any::<usize>(), 0..20_u64).prop_map(|(consumer, pick, dropped)| Step::Settle { consumer, pick, dropped }),
    ]
}

proptest! {
    #[test]
    fn the_books_balance_after_every_step(steps in proptest::collection::vec(step(), 1..200)) {
        let topic = topic(2);
        let subscribers = [
            subscriber(&[0, 1], LagBound::NONE, OnOverflow::SkipOldest),
            subscriber(&[1, 2], LagBound { records: 3, ..LagBound::NONE }, OnOverflow::SkipOldest),
            subscriber(&[0, 2], LagBound { items: 30, ..LagBound::NONE }, OnOverflow::SkipOldest),
        ];
        let takes = [[true, true, false], [false, true, true], [true, false, true]];
        let mut cursors: Vec<_> = subscribers.iter().map(|s| topic.cursor(s)).collect();
        let mut flying: Vec<Vec<Record>> = vec![Vec::new(); 3];
        let mut seen: Vec<Vec<Position>> = vec![Vec::new(); 3];
        let mut accepted = [0; 3];
        for step in steps {
            match step {
                Step::Append { shard, source, items } => {
                    put(&topic, shard, record(source, items, 8));
                    for (sum, takes) in accepted.iter_mut().zip(takes) {
                        *sum += if takes[usize::from(source)] { items } else { 0 };
                    }
                }
                Step::Read { consumer, records } => {
                    let mut out = Vec::new();
                    cursors[consumer].read(records, usize::MAX, &mut out);
                    seen[consumer].extend(out.iter().map(|r| r.position));
                    flying[consumer].extend(out);
                }
                Step::Settle { consumer, pick, dropped } if !flying[consumer].is_empty() => {
                    let at = pick % flying[consumer].len();
                    let record = flying[consumer].swap_remove(at);
                    let dropped = dropped.min(record.batch.items);
                    let mut settled = Settled::delivered(record.batch.items - dropped);
                    settled.add_dropped(DropReason::Rejected, dropped);
                    cursors[consumer].settle(record.position, &settled);
                }
                Step::Settle { .. } => {}
            }
            for (cursor, accepted) in cursors.iter().zip(accepted) {
                let books = cursor.accounts().books();
                prop_assert_eq!(books.accepted, accepted);
                prop_assert!(books.balance(), "{:?}", books);
            }
        }
        for positions in &mut seen {
            let count = positions.len();
            positions.sort();
            positions.dedup();
            prop_assert_eq!(positions.len(), count, "a record was handed out twice");
        }
    }
}

/// The records that each cursor reads, by their items.
fn items(cursor: &mut Cursor) -> Vec<u64> {
    read_all(cursor).iter().map(|record| record.batch.items).collect()
}

#[test]
fn a_switch_leaves_each_record_to_those_of_before_or_to_those_of_after() {
    let topic = topic(2);
    let mut old = topic.cursor(&unbounded());
    let mut kept = topic.cursor(&unbounded());
    for shard in 0..2 {
        assert!(put(&topic, shard, record(0, 1, 10)));
    }
    let waker = Arc::new(Waker::default());
    let number = |cursor: &Cursor| cursor.seats()[0].1;
    let changes = [
        Change::Close { consumer: number(&old) },
        Change::Join(unbounded(), waker.clone()),
        Change::Alter {
            consumer: number(&kept),
            sources: Sources::of([SourceId(1)]),
            bound: LagBound::NONE,
            on_overflow: OnOverflow::SkipOldest,
        },
    ];
    let places = topic.switch(&changes).pop().unwrap();
    let mut new = Cursor::new(places, waker);
    for shard in 0..2 {
        assert!(put(&topic, shard, record(0, 2, 10)));
        assert!(put(&topic, shard, record(1, 3, 10)));
    }
    assert_eq!(items(&mut old), [1, 1], "what came before the switch, and nothing behind it");
    assert_eq!(items(&mut new), [2, 2]);
    let mut of_kept = items(&mut kept);
    of_kept.sort_unstable();
    assert_eq!(of_kept, [1, 1, 3, 3], "what it was promised, and then what it takes now");
    for cursor in [&old, &new, &kept] {
        assert!(cursor.accounts().books().balance());
    }
}

#[test]
fn what_nobody_takes_any_more_is_refused_and_a_place_that_was_left_is_taken_again() {
    let topic = topic(1);
    let mut first = topic.cursor(&unbounded());
    assert!(put(&topic, 0, record(0, 1, 10)));
    assert_eq!(items(&mut first), [1]);
    let seats = first.seats();
    first.leave();
    assert!(matches!(topic.append_now(0, record(0, 2, 10)), Err((AppendError::Unwanted, _))));
    let mut second = topic.cursor(&unbounded());
    assert_eq!(second.seats(), seats);
    assert!(put(&topic, 0, record(0, 3, 10)));
    assert_eq!(items(&mut second), [3]);
}
