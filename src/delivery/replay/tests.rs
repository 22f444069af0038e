//! A letter is delivered to whom refused it, once it is taken it is gone, and nothing is lost on the way.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    component::{Exporter, Outcome, Processed, Processor, Request, delivery::Settings},
    delivery::{Carried, Chain, Consumer, DeadLetters, Destination, Ends, Live, Policy, Stage, consumer_name, exporter::run},
    internal_telemetry::{DEAD_LETTERS_REPLAYED, DEAD_LETTERS_WAITING, Telemetry},
    journal::{
        Accounts, Appending, Books, Directory, LetterFilter, MemoryShard, NewRecord, Note, Persistence, Refusal, SourceId,
        Sources, Subscriber, Topic, TopicId, TopicNames, inspect::Journal,
    },
    runtime::{Clock, Health},
    signal::{Batch, ComponentId, Signal, UnixNanos},
    tap::Taps,
};

/// Does not take a request with 13 items in one of its parts, until it is mended.
#[derive(Default)]
struct Picky {
    is_mended: AtomicBool,
    taken: parking_lot::Mutex<Vec<u64>>,
}

impl Exporter for Picky {
    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        let refuses = !self.is_mended.load(Ordering::Relaxed) && request.parts.iter().any(|part| part.items == 13);
        let outcome = if refuses {
            Outcome::Rejected { message: "INVALID_ARGUMENT: 13 is not taken".to_owned() }
        } else {
            self.taken.lock().extend(request.parts.iter().map(|part| part.items));
            Outcome::DELIVERED
        };
        Box::pin(async { outcome })
    }
}

/// Panics at 13 items until it is mended; makes one item fewer of each batch.
struct Fussy(Arc<AtomicBool>);

impl Processor for Fussy {
    fn process(&self, batch: Batch, _: UnixNanos) -> Processed {
        assert!(batch.items != 13 || self.0.load(Ordering::Relaxed), "13 is not processed");
        let items = batch.items - 1;
        Processed::Part { batch: Batch { items, ..batch }, dropped: 1 }
    }
}

struct Rig {
    exporter: Arc<Picky>,
    topic: Arc<Topic>,
    accounts: Accounts,
    letters: Arc<DeadLetters>,
    telemetry: Telemetry,
    drain: Shutdown,
    stop: Shutdown,
    consumer: JoinHandle<u64>,
    replayer: JoinHandle<()>,
}

/// A consumer with its letters in a directory; what starts over after a kill.
#[expect(clippy::disallowed_methods, reason = "the rig owns the tasks and awaits them")]
fn rig(path: &Path, id: &str, processors: Vec<Arc<dyn Processor>>) -> Rig {
    let wish = Persistence {
        directory: path.to_owned(),
        sync: false,
        bytes_max: Some(32 << 20),
        letters_bytes_max: None,
        shards: 1,
        offset_reset: crate::journal::OffsetReset::Latest,
    };
    let names = TopicNames::new(vec!["traces".to_owned()]);
    let (store, found) = Directory::open(&wish, names.all(), &[], Clock::system()).unwrap().letters().unwrap();
    let telemetry = Telemetry::default();
    let letters = Arc::new(DeadLetters::on_disk(names, store, found, Clock::system(), &telemetry).unwrap());
    let topic = Arc::new(Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, 1, |number, room| {
        Arc::new(MemoryShard::new(TopicId(0), number, 8 << 20, room))
    }));
    let policy = Policy::of(&Settings::default(), None, 1 << 30);
    let cursor = topic.cursor(&Subscriber {
        name: "test".into(),
        sources: Sources::of([SourceId(0)]),
        bound: policy.bound,
        on_overflow: policy.on_overflow,
        is_stateful: false,
    });
    let exporter = Arc::new(Picky::default());
    let id = ComponentId::parse(id).unwrap();
    let destination = Arc::new(Destination {
        id: id.clone(),
        exporter: exporter.clone(),
        breakers: Default::default(),
        metrics: telemetry.exporter(id.as_str()),
        dead_letters: letters.clone(),
        journal: crate::journal::JournalId([7; 16]),
        health: Arc::new(Health::default()),
        splits_by_context: false,
        clock: Clock::system(),
        taps: Taps::default(),
    });
    let accounts = cursor.accounts();
    let replayer = Replayer::new(letters.store().unwrap().clone());
    let replays = replayer.takers().taker(consumer_name(&id, "traces").into());
    let stage = |processor| Stage { processor, metrics: telemetry.processor("fussy", Signal::Traces) };
    let chain = Arc::new(Chain::new(processors.into_iter().map(stage).collect(), 1));
    let live = Arc::new(Live::new("traces".into(), id.clone(), Signal::Traces, &cursor));
    let (signal, replays) = (Signal::Traces, Some(replays));
    let consumer = Consumer { pipeline: "traces".into(), id, signal, cursor, chain, replays, live };
    let (drain, stop) = (Shutdown::new(), Shutdown::new());
    let ends = Ends { drain: drain.clone(), abort: stop.clone(), ..Ends::default() };
    let consumer = tokio::spawn(async { run(consumer, destination, policy, Carried::default(), ends).await.items });
    let replayer = tokio::spawn(replayer.run(stop.clone()));
    Rig { exporter, topic, accounts, letters, telemetry, drain, stop, consumer, replayer }
}

impl Rig {
    fn put(&self, items: u64) {
        let batch = Batch { signal: Signal::Traces, payload: vec![1; 20].into(), items, context: Arc::default(), index: None };
        let record = NewRecord { source: SourceId(0), received: UnixNanos(7), batch, derived_from: None };
        assert!(matches!(self.topic.append_now(0, record), Ok(Appending::Done(_))));
    }

    /// Lets the consumer come to its end, and ends the rest.
    async fn end(self) -> (Books, Vec<u64>) {
        self.drain.cancel();
        self.consumer.await.unwrap();
        self.stop.cancel();
        self.replayer.await.unwrap();
        let books = self.accounts.books();
        assert!(books.balance(), "{books:?}");
        let taken = self.exporter.taken.lock().clone();
        (books, taken)
    }
}

fn ask(path: &Path, to: u64) -> RequestFile {
    let request = ReplayRequest { filter: LetterFilter::default(), to, asked: Clock::system().now() };
    Journal::open(path).unwrap().ask_for_replay(&request).unwrap()
}

/// Until a request was gone through.
async fn replayed(file: &RequestFile) {
    let is_there = || file.path().exists() || file.path().with_extension("taken").exists();
    let gone = async {
        while is_there() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
}

fn notes(path: &Path) -> Vec<Note> {
    let mut notes = Vec::new();
    let told = Journal::open(path).unwrap().letters(|letter| {
        notes.push(letter.unwrap().note);
        Ok::<_, crate::journal::inspect::InspectError>(())
    });
    told.unwrap();
    notes
}

#[tokio::test]
async fn a_letter_is_kept_over_a_kill_comes_back_while_it_is_refused_and_is_gone_once_it_is_taken() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let first = rig(path, "test", Vec::new());
    for items in [1, 13, 2] {
        first.put(items);
    }
    let (books, taken) = first.end().await;
    assert_eq!((books.delivered, books.dropped_total(), taken), (3, 13, vec![1, 2]));

    let again = rig(path, "test", Vec::new());
    replayed(&ask(path, u64::MAX)).await;
    let kept = notes(path);
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].attempts, kept[0].reason, &*kept[0].consumer), (2, Refusal::Rejected, "test in pipeline traces"));
    assert_eq!((kept[0].origin.offset, kept[0].message.as_str()), (1, "INVALID_ARGUMENT: 13 is not taken"));
    // One that is asked for beyond its offset is left alone.
    replayed(&ask(path, 0)).await;
    again.exporter.is_mended.store(true, Ordering::Relaxed);
    assert_eq!(notes(path).len(), 1);
    replayed(&ask(path, u64::MAX)).await;
    assert_eq!(notes(path), []);
    let count = |result| again.telemetry.gather().number(DEAD_LETTERS_REPLAYED, &[("result", result)]);
    assert_eq!((count("refused"), count("delivered")), (Some(1.0), Some(1.0)));
    let (books, taken) = again.end().await;
    // It was in the books when it came in.
    assert_eq!((books.accepted, books.delivered, taken), (0, 0, vec![13]));
}

#[tokio::test]
async fn a_record_is_held_until_its_letter_is_written() {
    let directory = TempDir::new().unwrap();
    let (there, away) = (directory.path().join("letters"), directory.path().join("away"));
    let rig = rig(directory.path(), "test", Vec::new());
    std::fs::rename(&there, &away).unwrap();
    rig.put(13);
    let waiting = async {
        while rig.telemetry.gather().number(DEAD_LETTERS_WAITING, &[]) != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    assert_eq!((rig.accounts.books().held, rig.accounts.books().dropped_total()), (13, 0));
    std::fs::rename(&away, &there).unwrap();
    assert_eq!(rig.end().await.0.dropped_total(), 13);
    assert_eq!(notes(directory.path()).len(), 1);
}

#[tokio::test]
async fn a_letter_of_a_consumer_that_is_gone_is_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let first = rig(path, "test", Vec::new());
    first.put(13);
    first.end().await;
    let other = rig(path, "test/other", Vec::new());
    replayed(&ask(path, u64::MAX)).await;
    assert_eq!(notes(path).len(), 1);
    other.end().await;
}

#[tokio::test]
async fn a_request_that_is_cut_off_waits_for_the_next_start() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let first = rig(path, "test", Vec::new());
    first.put(13);
    first.end().await;

    let cut = rig(path, "test", Vec::new());
    cut.drain.cancel();
    let Rig { consumer, stop, replayer, letters, .. } = cut;
    consumer.await.unwrap();
    let file = ask(path, u64::MAX);
    // It is looked at, finds nobody to take the letter, and stays.
    let seen = async {
        while file.waits() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
    stop.cancel();
    replayer.await.unwrap();
    drop(letters);
    assert!(file.path().with_extension("taken").exists());
    assert_eq!(notes(path).len(), 1);

    let again = rig(path, "test", Vec::new());
    again.exporter.is_mended.store(true, Ordering::Relaxed);
    replayed(&file).await;
    assert_eq!(notes(path), []);
    assert_eq!(again.end().await.1, [13]);
}

#[tokio::test]
async fn what_processors_did_not_survive_goes_through_them_again_and_the_rest_does_not() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let is_mended = Arc::new(AtomicBool::new(false));
    let fussy = || vec![Arc::new(Fussy(is_mended.clone())) as Arc<dyn Processor>];
    let first = rig(path, "test", fussy());
    // One on which the processor panics, and one that becomes 13 behind it.
    first.put(13);
    first.put(14);
    first.end().await;
    let kept = notes(path);
    assert_eq!(
        kept.iter().map(|note| (note.reason, note.is_processed)).collect::<Vec<_>>(),
        [(Refusal::Panic, false), (Refusal::Rejected, true)]
    );

    let again = rig(path, "test", fussy());
    replayed(&ask(path, u64::MAX)).await;
    assert_eq!(notes(path).iter().map(|note| note.attempts).collect::<Vec<_>>(), [2, 2]);
    is_mended.store(true, Ordering::Relaxed);
    again.exporter.is_mended.store(true, Ordering::Relaxed);
    replayed(&ask(path, u64::MAX)).await;
    assert_eq!(notes(path), []);
    let mut taken = again.end().await.1;
    taken.sort_unstable();
    assert_eq!(taken, [12, 13]);
}
