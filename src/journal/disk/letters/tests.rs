//! A letter that was written is there until it is settled or has to make room, and nothing else is.

use std::fs;

use tempfile::TempDir;

use super::{super::files::SystemDisk, *};
use crate::{
    journal::{LetterFilter, Origin, Refusal},
    signal::Context,
};

const ROOM: u64 = 2 << 20;

fn open(path: &Path) -> (LetterStore, FoundLetters) {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    LetterStore::open(&disk, path.to_owned(), false, ROOM, Nonces::from(1), UnixNanos(1)).unwrap()
}

fn letter(number: u64, bytes: usize) -> Letter {
    let note = Note {
        consumer: format!("otlp_grpc/{} in pipeline traces", number % 2).into(),
        origin: Origin { topic: "traces".into(), shard: 0, offset: number },
        refused: UnixNanos(1000 + number),
        reason: if number.is_multiple_of(3) { Refusal::Partial } else { Refusal::Rejected },
        message: format!("INVALID_ARGUMENT: {number} is not taken"),
        attempts: 1,
        is_processed: true,
    };
    let context = Context { metadata: vec![("x-tenant".into(), vec!["a".into()])], ..Context::default() };
    let payload = vec![number as u8; bytes].into();
    let batch = Batch { signal: Signal::Logs, payload, items: number, context: Arc::new(context), index: None };
    Letter { note, received: UnixNanos(number), batch }
}

fn put(store: &LetterStore, numbers: std::ops::Range<u64>) {
    for number in numbers {
        store.append(&[&letter(number, 100)], &[], UnixNanos(2)).unwrap();
    }
}

fn all(store: &LetterStore) -> Vec<(LetterRef, Letter)> {
    let (mut reading, mut letters) = (Reading::default(), Vec::new());
    while let Some(some) = store.read(&mut reading, 500, &|_, _| true).unwrap() {
        letters.extend(some);
    }
    letters
}

fn numbers(store: &LetterStore) -> Vec<u64> {
    all(store).iter().map(|(_, letter)| letter.note.origin.offset).collect()
}

fn segments(path: &Path) -> usize {
    fs::read_dir(path).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|one| one == "log")).count()
}

#[test]
fn letters_outlive_a_kill_with_all_that_is_known_of_them() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(directory.path());
    put(&store, 1..30);
    // Dropped without a word, as by a kill.
    drop(store);
    let (store, found) = open(directory.path());
    assert_eq!((found.damaged, store.held()), (0, Lag { records: 29, items: (1..30).sum(), bytes: 2900 }));
    let letters = all(&store);
    assert_eq!(letters.len(), 29);
    for ((at, found), number) in letters.iter().zip(1..) {
        let wanted = letter(number, 100);
        assert_eq!((&found.note, found.received, at.items, at.bytes), (&wanted.note, wanted.received, number, 100));
        assert_eq!((found.batch.signal, &found.batch.payload), (Signal::Logs, &wanted.batch.payload));
        assert_eq!(found.batch.context, wanted.batch.context);
    }
}

#[test]
fn what_is_settled_does_not_come_back_and_what_came_back_is_there_once() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(directory.path());
    put(&store, 0..10);
    let letters = all(&store);
    store.append(&[], &[letters[3].0, letters[5].0], UnixNanos(3)).unwrap();
    // Word of it twice, as after a kill.
    store.append(&[], &[letters[3].0], UnixNanos(3)).unwrap();
    store.append(&[&letter(40, 10)], &[letters[4].0], UnixNanos(3)).unwrap();
    let (held, left) = (store.held(), numbers(&store));
    assert_eq!(left, [0, 1, 2, 6, 7, 8, 9, 40]);
    assert_eq!(held, Lag { records: 8, items: left.iter().sum::<u64>(), bytes: 710 });
    drop(store);
    let (store, _) = open(directory.path());
    assert_eq!((store.held(), numbers(&store)), (held, left));
}

#[test]
fn segments_go_when_all_in_them_is_settled_and_offsets_go_on() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(directory.path());
    for number in 0..20 {
        store.append(&[&letter(number, 60 << 10)], &[], UnixNanos(2)).unwrap();
    }
    assert!(segments(directory.path()) > 3);
    let gone: Vec<LetterRef> = all(&store).into_iter().map(|(at, _)| at).collect();
    store.append(&[], &gone[1..], UnixNanos(3)).unwrap();
    assert_eq!(numbers(&store), [0]);
    store.append(&[], &gone[..1], UnixNanos(3)).unwrap();
    assert_eq!((segments(directory.path()), store.usage().0, store.held()), (0, 0, Lag::default()));
    put(&store, 7..8);
    assert!(all(&store)[0].0.offset >= 20);
}

#[test]
fn the_oldest_make_room_and_are_counted_and_what_fits_nowhere_moves_nobody() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(directory.path());
    let mut evicted = Lag::default();
    for number in 0..80 {
        evicted = evicted.plus(store.append(&[&letter(number, 50 << 10)], &[], UnixNanos(2)).unwrap());
    }
    let left = numbers(&store);
    assert_eq!((left.last(), evicted.records + left.len() as u64), (Some(&79), 80));
    assert!(evicted.records > 20 && left.len() > 20, "{evicted:?}, {} left", left.len());
    assert_eq!(evicted.items + left.iter().sum::<u64>(), (0..80).sum::<u64>());
    assert!(store.usage().0 <= ROOM);
    let huge = store.append(&[&letter(1, ROOM as usize)], &[], UnixNanos(2));
    assert!(matches!(huge, Err(LettersError::TooLarge)), "{huge:?}");
    assert_eq!(numbers(&store), left);
    // Word of one that had to go changes nothing.
    let held = store.held();
    store.append(&[], &[LetterRef { offset: 0, items: 5, bytes: 5 }], UnixNanos(2)).unwrap();
    assert_eq!(store.held(), held);
}

#[test]
fn many_starts_do_not_make_many_files() {
    let directory = TempDir::new().unwrap();
    for number in 0..90 {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let (store, _) =
            LetterStore::open(&disk, directory.path().to_owned(), false, 16 << 20, Nonces::from(1), UnixNanos(1)).unwrap();
        put(&store, number..number + 1);
    }
    assert!(segments(directory.path()) <= SEGMENTS_MAX + 1, "{} segments", segments(directory.path()));
    let (store, _) = open(directory.path());
    let mut left = numbers(&store);
    left.sort_unstable();
    assert_eq!(left, (0..90).collect::<Vec<_>>());
}

#[test]
fn a_filter_takes_what_it_says_and_a_replay_spares_what_was_taken_in_part() {
    let rejected = letter(1, 1).note;
    let partial = letter(3, 1).note;
    let all = LetterFilter::default();
    assert!(all.takes(&rejected) && all.takes(&partial) && all.replays(&rejected) && !all.replays(&partial));
    let partly = LetterFilter { reason: Some(Refusal::Partial), ..LetterFilter::default() };
    assert!(partly.replays(&partial) && !partly.takes(&rejected));
    let other = LetterFilter { consumer: Some("otlp_grpc/0 in pipeline traces".to_owned()), ..LetterFilter::default() };
    assert!(!other.takes(&rejected));
    let since = |since| LetterFilter { since: Some(UnixNanos(since)), ..LetterFilter::default() };
    assert!(since(1001).takes(&rejected) && !since(1002).takes(&rejected));
    let request = |to, asked| ReplayRequest { filter: LetterFilter::default(), to, asked: UnixNanos(asked) };
    assert!(
        request(5, 1001).takes(4, &rejected) && !request(5, 1001).takes(5, &rejected) && !request(5, 1000).takes(4, &rejected)
    );
}

#[test]
fn what_is_settled_and_was_never_there_settles_nothing() {
    let directory = TempDir::new().unwrap();
    {
        let (store, _) = open(directory.path());
        put(&store, 1..3);
        let far = [2, 3, 1 << 40, u64::MAX].map(|offset| LetterRef { offset, items: 7, bytes: 7 });
        let entry = Entry { source: SETTLED, received: UnixNanos(1), items: 0, meta: Vec::new(), payload: list(&far) };
        store.log.lock().append(&[entry], UnixNanos(1)).unwrap();
    }
    let (store, _) = open(directory.path());
    put(&store, 3..4);
    assert_eq!((numbers(&store), store.held().items), (vec![1, 2, 3], 6));
}

#[test]
fn a_torn_write_does_not_settle_what_it_was_to_replace() {
    let directory = TempDir::new().unwrap();
    {
        let (store, _) = open(directory.path());
        put(&store, 1..2);
        let (old, _) = all(&store).remove(0);
        store.append(&[&letter(9, 100)], &[old], UnixNanos(2)).unwrap();
        assert_eq!(numbers(&store), [9]);
    }
    let path = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|one| one == "log")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(100).position(|some| some == [9; 100]).unwrap();
    bytes[at] = 0;
    fs::write(&path, bytes).unwrap();
    assert_eq!(numbers(&open(directory.path()).0), [1]);
}
