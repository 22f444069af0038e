//! What is put is kept, within bounds, and whoever puts it is not held up for ever.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{
    door::Budget,
    journal::{
        Directory, Note, Persistence, Reading,
        inspect::{InspectError, Journal},
    },
    signal::{Batch, Signal, UnixNanos},
};

pub(super) fn letter(payload: Bytes) -> Letter {
    let note = Note {
        consumer: "test in pipeline traces".into(),
        origin: Origin { topic: "traces".into(), shard: 0, offset: 0 },
        refused: UnixNanos(1),
        reason: Refusal::Rejected,
        message: "no".to_owned(),
        attempts: 1,
        is_processed: true,
    };
    let batch = Batch { signal: Signal::Traces, payload, items: 1, context: Arc::default(), index: None };
    Letter { note, received: UnixNanos(1), batch }
}

#[tokio::test]
async fn letters_do_not_hold_the_doors_room() {
    let (budget, letters) = (Budget::new(100), DeadLetters::in_memory(Arc::default(), &Telemetry::default()));
    letters.put(vec![letter(budget.try_take(60).unwrap().bind(Bytes::from_static(b"abc")))]).await;
    assert_eq!(budget.used(), 0);
    assert_eq!(letters.letters()[0].batch.payload, "abc");
}

#[tokio::test]
async fn letters_are_counted_by_whose_they_are() {
    let telemetry = Telemetry::default();
    let letters = DeadLetters::in_memory(Arc::default(), &telemetry);
    let of = |consumer: &str, reason: Refusal, items: u64| {
        let mut letter = letter(Bytes::from_static(b"abc"));
        (letter.note.consumer, letter.note.reason, letter.batch.items) = (consumer.into(), reason, items);
        letter
    };
    letters
        .put(vec![of("otlp/a in pipeline traces", Refusal::Rejected, 3), of("otlp/b in pipeline traces", Refusal::GivenUp, 4)])
        .await;
    letters.put(vec![of("otlp/a in pipeline traces", Refusal::Rejected, 5)]).await;
    let counted = |component, reason| {
        let labels = [("component", component), ("pipeline", "traces"), ("reason", reason)];
        telemetry.gather().number(DEAD_LETTERS_ADDED, &labels)
    };
    assert_eq!((counted("otlp/a", "rejected"), counted("otlp/b", "given_up")), (Some(8.0), Some(4.0)));
}

#[tokio::test]
async fn a_letter_larger_than_all_the_room_does_not_push_the_others_out() {
    let telemetry = Telemetry::default();
    let letters = DeadLetters::in_memory(Arc::default(), &telemetry);
    letters.put(vec![letter(Bytes::from_static(b"abc"))]).await;
    letters.put(vec![letter(vec![0; memory::BYTES_MAX as usize + 1].into())]).await;
    assert_eq!(letters.letters().len(), 1);
    assert_eq!(telemetry.gather().number(DEAD_LETTERS_DROPPED, &[("reason", "too_large")]), Some(1.0));
    assert_eq!(telemetry.gather().number(DEAD_LETTERS_BYTES, &[]), Some(3.0));
}

fn store(path: &Path) -> LetterStore {
    let wish = Persistence {
        directory: path.to_owned(),
        sync: true,
        bytes_max: Some(32 << 20),
        letters_bytes_max: None,
        shards: 1,
        offset_reset: crate::journal::OffsetReset::Latest,
    };
    Directory::open(&wish, Vec::new(), &[], Clock::system()).unwrap().letters().unwrap().0
}

fn on_disk(store: &LetterStore) -> Vec<(LetterRef, Letter)> {
    let (mut reading, mut all) = (Reading::default(), Vec::new());
    while let Some(some) = store.read(&mut reading, 1 << 20, &|_, _| true).unwrap() {
        all.extend(some);
    }
    all
}

/// As somebody else sees it, or the next start after a kill.
fn looked_at(path: &Path) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    let told = Journal::open(path).unwrap().letters(|letter| {
        payloads.push(letter.unwrap().payload);
        Ok::<_, InspectError>(())
    });
    told.unwrap();
    payloads
}

#[tokio::test]
async fn what_was_put_is_on_disk_when_that_is_done() {
    let directory = TempDir::new().unwrap();
    let telemetry = Telemetry::default();
    let letters =
        DeadLetters::on_disk(Arc::default(), store(directory.path()), FoundLetters::default(), Clock::system(), &telemetry)
            .unwrap();
    letters.put(vec![letter(Bytes::from_static(b"abc")), letter(Bytes::from_static(b"de"))]).await;
    let found = on_disk(letters.store().unwrap());
    assert_eq!(looked_at(directory.path()), ["abc", "de"]);
    letters.settle(found[0].0, Vec::new()).await;
    letters.settle(found[1].0, vec![letter(Bytes::from_static(b"e"))]).await;
    assert_eq!(looked_at(directory.path()), ["e"]);
    assert_eq!(telemetry.gather().number(DEAD_LETTERS_BYTES, &[]), Some(1.0));
}

#[tokio::test]
async fn a_failing_disk_costs_letters_and_not_the_delivery_of_the_rest() {
    let directory = TempDir::new().unwrap();
    let telemetry = Telemetry::default();
    let store = Arc::new(store(directory.path()));
    let writer = Writer::start(store.clone(), Clock::system(), Metrics::new(&telemetry), Duration::ZERO).unwrap();
    let (there, away) = (directory.path().join("letters"), directory.path().join("away"));
    fs::rename(&there, &away).unwrap();
    writer.write(vec![letter(Bytes::from_static(b"abc"))], None).await;
    let dropped = || telemetry.gather().number(DEAD_LETTERS_DROPPED, &[("reason", "disk")]);
    assert_eq!((dropped(), on_disk(&store).len()), (Some(1.0), 0));
    // What cannot be crossed out is not lost.
    writer.write(vec![letter(Bytes::from_static(b"b"))], Some(LetterRef { offset: 0, items: 1, bytes: 1 })).await;
    assert_eq!(dropped(), Some(1.0));
    fs::rename(&away, &there).unwrap();
    writer.write(vec![letter(Bytes::from_static(b"abc"))], None).await;
    assert_eq!((dropped(), on_disk(&store).len()), (Some(1.0), 1));
    writer.close();
    writer.write(vec![letter(Bytes::from_static(b"late"))], None).await;
    assert_eq!((dropped(), on_disk(&store).len()), (Some(2.0), 1));
}
