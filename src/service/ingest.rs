//! The ingest topics of one receiver, as its door sees them.

use std::{
    hash::{BuildHasher as _, Hasher as _},
    sync::Arc,
};

use foldhash::fast::FixedState;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    door::{Append, Pace, Refusal, status::retry_hint},
    journal::{AppendError, Appended, Appending, NewRecord, ROOM_WAIT, Topic},
    otlp::fields::Fields,
    runtime::Step,
};

/// Appends what a receiver took to the topic of its signal.
pub(super) struct Ingest {
    /// Indexed by signal.
    pub(super) topics: [Option<Arc<Topic>>; 3],
}

fn refuse(error: &AppendError) -> Refusal {
    if let AppendError::TooLarge { .. } = error {
        return Refusal::TooLarge { message: error.to_string() };
    }
    Refusal::Full { reason: error.to_string(), retry_after: retry_hint() }
}

impl Append for Ingest {
    fn append(&self, record: NewRecord) -> Step<'static, Result<Pace, Refusal>> {
        let signal = record.batch.signal;
        let Some(topic) = self.topics.get(signal.ordinal()).and_then(Option::as_ref) else {
            return Step::Ready(Err(Refusal::NotTaken { message: format!("no pipeline takes {signal} from this receiver") }));
        };
        match topic.append_now(stream_of(topic, &record.batch.payload), record) {
            Ok(Appending::Done(appended)) => Step::Ready(Ok(pace(topic, appended))),
            Ok(Appending::Syncing(writing)) => {
                let topic = topic.clone();
                Step::Wait(
                    async move { writing.await.map(|appended| pace(&topic, appended)).map_err(|error| refuse(&error)) }.boxed(),
                )
            }
            Err((AppendError::Full { .. }, record)) => Step::Wait(when_there_is_room(topic.clone(), record).boxed()),
            // The disk has no room, or the pipelines are gone: that will not be otherwise within a moment.
            Err((error, _)) => Step::Ready(Err(refuse(&error))),
        }
    }
}

/// A number for what belongs together: the first resource, which is what an SDK says of its process. So the order of what a process sends is
/// kept, also when it connects anew or weir starts anew.
fn stream_of(topic: &Topic, payload: &[u8]) -> usize {
    if topic.shards() < 2 {
        return 0;
    }
    let first = |message| Fields::new(message).messages(1).next().unwrap_or_default();
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(first(first(payload)));
    hasher.finish() as usize
}

/// The record is in; its sender is told so a little later, so that it sends the next one a little later.
fn pace(topic: &Arc<Topic>, appended: Appended) -> Pace {
    if !appended.crowded {
        return Pace::NONE;
    }
    let topic = topic.clone();
    Pace::until(async move { topic.pace().await }.boxed())
}

/// Waits up to 100 ms for room. Dropped before it is done, nothing was appended.
async fn when_there_is_room(topic: Arc<Topic>, mut record: NewRecord) -> Result<Pace, Refusal> {
    let until = Instant::now() + ROOM_WAIT;
    let stream = stream_of(&topic, &record.batch.payload);
    loop {
        // A consumer that holds the door makes a topic crowded, too.
        drop(timeout_at(until, topic.pace()).await);
        match topic.append_now(stream, record) {
            Ok(Appending::Done(appended)) => return Ok(pace(&topic, appended)),
            Ok(Appending::Syncing(writing)) => {
                return writing.await.map(|appended| pace(&topic, appended)).map_err(|error| refuse(&error));
            }
            Err((error, _)) if Instant::now() >= until || !matches!(error, AppendError::Full { .. }) => {
                return Err(refuse(&error));
            }
            Err((_, back)) => record = back,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        journal::{LagBound, MemoryShard, OnOverflow, SourceId, Sources, Subscriber, TopicId},
        signal::{Batch, Signal, UnixNanos},
    };

    fn record() -> NewRecord {
        let payload = vec![0; 10].into();
        let batch = Batch { signal: Signal::Traces, payload, items: 1, context: Arc::default(), index: None };
        NewRecord { source: SourceId(0), received: UnixNanos(1), batch, derived_from: None }
    }

    /// An export request: a resource with a service's name, and as much else.
    fn request(service: &str, more: usize) -> bytes::Bytes {
        let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
        let name = [field(1, b"service.name"), field(2, &field(1, service.as_bytes()))].concat();
        let spans = field(2, &vec![0; more]);
        field(1, &[field(1, &field(1, &name)), spans].concat()).into()
    }

    #[test]
    fn what_one_process_sends_goes_to_one_shard() {
        let shards = |count: u16, taking: u16| {
            Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, count, |shard, room| {
                Arc::new(MemoryShard::new(TopicId(0), shard, 1 << 20, room))
            })
            .taking(taking)
        };
        let four = shards(4, 4);
        let of = |topic: &Topic, service: usize, more| {
            stream_of(topic, &request(&format!("service {service}"), more)) % topic.shards()
        };
        let mut seen = [0; 4];
        for service in 0..400 {
            assert_eq!(of(&four, service, 1), of(&four, service, 30));
            seen[of(&four, service, 1)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 60), "{seen:?}");
        assert_eq!(stream_of(&shards(4, 1), &request("a", 1)), 0, "only the first takes any");
        for broken in [&b""[..], b"\x0a", b"\x0a\x7f", b"\xff\xff"] {
            stream_of(&four, broken);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_a_moment_for_room_and_refuses_then() {
        let topic = Arc::new(Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, 1, |shard, room| {
            Arc::new(MemoryShard::new(TopicId(0), shard, 1 << 20, room))
        }));
        let mut cursor = topic.cursor(&Subscriber {
            name: "test".into(),
            sources: Sources::of([SourceId(0)]),
            bound: LagBound { records: 1, ..LagBound::NONE },
            on_overflow: OnOverflow::HoldDoor,
            is_stateful: false,
        });
        let ingest = Ingest { topics: [Some(topic.clone()), None, None] };
        let (first, second) = (ingest.append(record()), ingest.append(record()));
        assert!(matches!((first, second), (Step::Ready(Ok(_)), Step::Ready(Ok(_)))), "both are in");
        let started = Instant::now();
        assert!(ingest.append(record()).done().await.is_err());
        assert_eq!(started.elapsed(), Duration::from_millis(100));
        let (waited, ()) = tokio::join!(ingest.append(record()).done(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cursor.read(10, usize::MAX, &mut Vec::new());
        });
        assert!(waited.is_ok());
        assert_eq!((started.elapsed(), cursor.unread().records), (Duration::from_millis(150), 1));
    }
}
