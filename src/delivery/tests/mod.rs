//! What a driver owes: each item is accounted for once, whatever the destination answers.

mod each;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::Instant};

use super::{exporter::run, *};
use crate::{
    component::delivery::{BatchWish, Queue, Settings, Sizer},
    component::{Exporter, Origin, Outcome, Processed, Processor, Provenance, Request, RetryCause},
    internal_telemetry::Telemetry,
    journal::{Accounts, Appending, DropReason, MemoryShard, NewRecord, Position, SourceId, Sources, Subscriber, Topic, TopicId},
    otlp::{
        split_by_items,
        wire::{put_bytes_always, put_message},
    },
    runtime::{Clock, Health, Shutdown},
    signal::{Batch, ComponentId, Context, Signal, UnixNanos},
    tap::{Ask, At, Form, Seen, Tap, Taps},
};

/// Answers by a script, then with `Delivered`; keeps what it was given.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    /// Decides by the request, where set.
    judge: Option<fn(&Request) -> Outcome>,
    requests: Mutex<Vec<Request>>,
    /// Where the parts of each came from.
    origins: Mutex<Vec<Vec<Origin>>>,
    reconnects: AtomicU64,
    /// How long an attempt takes.
    takes: Duration,
}

enum Answer {
    Now(Outcome),
    Never,
}

impl Exporter for Scripted {
    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        let answer = self.answers.lock().pop_front();
        let judged = self.judge.map(|judge| judge(&request));
        self.requests.lock().push(request);
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            match answer {
                Some(Answer::Now(outcome)) => outcome,
                Some(Answer::Never) => std::future::pending().await,
                None => judged.unwrap_or(Outcome::DELIVERED),
            }
        })
    }

    fn export_from(&self, provenance: Provenance<'_>, request: Request) -> BoxFuture<'_, Outcome> {
        self.origins.lock().push(provenance.parts.to_vec());
        self.export(request)
    }

    fn reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }
}

struct Rig {
    topic: Arc<Topic>,
    exporter: Arc<Scripted>,
    destination: Arc<Destination>,
    accounts: Accounts,
    live: Arc<Live>,
    drain: Shutdown,
    abort: Shutdown,
    release: Shutdown,
    task: JoinHandle<Left>,
}

fn policy() -> Policy {
    Policy::of(&Settings { timeout: Some(Duration::from_secs(5)), ..Settings::default() }, None, 1 << 30)
}

/// A driver over two shards.
fn rig(exporter: Scripted, policy: Policy, splits_by_context: bool) -> Rig {
    rig_with(exporter, policy, splits_by_context, Chain::new(Vec::new(), 1))
}

#[expect(clippy::disallowed_methods, reason = "the rig owns the task and awaits it")]
fn rig_with(exporter: Scripted, policy: Policy, splits_by_context: bool, chain: Chain) -> Rig {
    let topic = Arc::new(Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, 2, |number, room| {
        Arc::new(MemoryShard::new(TopicId(0), number, 8 << 20, room))
    }));
    let cursor = topic.cursor(&Subscriber {
        name: "traces → test".into(),
        sources: Sources::of([SourceId(0)]),
        bound: policy.bound,
        on_overflow: policy.on_overflow,
        is_stateful: false,
    });
    let telemetry = Telemetry::default();
    let exporter = Arc::new(exporter);
    let destination = Arc::new(Destination {
        id: ComponentId::parse("test").unwrap(),
        exporter: exporter.clone(),
        breakers: Default::default(),
        metrics: telemetry.exporter("test"),
        dead_letters: Arc::new(DeadLetters::in_memory(Arc::default(), &telemetry)),
        journal: crate::journal::JournalId([7; 16]),
        health: Arc::new(Health::default()),
        splits_by_context,
        clock: Clock::new(|| UnixNanos(1_000_000_000)),
        taps: Taps::default(),
    });
    let accounts = cursor.accounts();
    let live = Arc::new(Live::new("traces".into(), destination.id.clone(), Signal::Traces, &cursor));
    live.leads_to(destination.clone());
    let consumer = Consumer {
        live: live.clone(),
        pipeline: "traces".into(),
        id: destination.id.clone(),
        signal: Signal::Traces,
        cursor,
        chain: Arc::new(chain),
        replays: None,
    };
    let (drain, abort, release) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
    let ends = Ends { drain: drain.clone(), abort: abort.clone(), release: release.clone() };
    let task = tokio::spawn(run(consumer, destination.clone(), policy, Carried::default(), ends));
    Rig { topic, exporter, destination, accounts, live, drain, abort, release, task }
}

/// A traces request of so many spans.
fn spans(items: u64) -> Bytes {
    let mut out = Vec::new();
    put_message(&mut out, 1, |resource_spans| {
        put_message(resource_spans, 2, |scope_spans| {
            for n in 1..=items {
                put_message(scope_spans, 2, |span| {
                    put_bytes_always(span, 1, &[1; 16]);
                    put_bytes_always(span, 2, &n.to_be_bytes());
                });
            }
        });
    });
    out.into()
}

impl Rig {
    fn put(&self, shard: usize, items: u64) {
        self.put_with(shard, items, Context::default());
    }

    fn put_with(&self, shard: usize, items: u64, context: Context) {
        let batch = Batch { signal: Signal::Traces, payload: spans(items), items, context: Arc::new(context), index: None };
        let new = NewRecord { source: SourceId(0), received: UnixNanos(1_000_000_000), batch, derived_from: None };
        assert!(matches!(self.topic.append_now(shard, new), Ok(Appending::Done { .. })));
    }

    /// Lets the driver finish; returns the items it gave up, and the requests that were made.
    async fn finish(self) -> (u64, Vec<Request>, crate::journal::Books) {
        self.drain.cancel();
        let given_up = self.task.await.unwrap().items;
        let books = self.accounts.books();
        assert!(books.balance(), "{books:?}");
        let requests = self.exporter.requests.lock().clone();
        (given_up, requests, books)
    }
}

fn retry(after: Option<u64>) -> Answer {
    Answer::Now(Outcome::Retry { reason: "busy".to_owned(), after: after.map(Duration::from_secs), cause: RetryCause::Passing })
}

#[tokio::test(start_paused = true)]
async fn delivers_what_two_shards_hold() {
    let rig = rig(Scripted::default(), policy(), false);
    for n in 0..20 {
        rig.put(n % 2, 3);
    }
    let (given_up, requests, books) = rig.finish().await;
    assert_eq!((given_up, books.delivered, books.held), (0, 60, 0));
    assert_eq!(requests.iter().map(|r| r.items).sum::<u64>(), 60);
}

#[tokio::test(start_paused = true)]
async fn small_requests_are_joined_while_one_is_under_way() {
    let rig = rig(Scripted { takes: Duration::from_millis(100), ..Scripted::default() }, policy(), false);
    for _ in 0..50 {
        rig.put(0, 1);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (_, requests, books) = rig.finish().await;
    assert_eq!(books.delivered, 50);
    assert!(requests.len() <= 4, "{} requests", requests.len());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_is_retried_until_it_works() {
    let answers = (0..20).map(|_| retry(None)).collect::<Vec<_>>();
    let rig = rig(Scripted { answers: Mutex::new(answers.into()), ..Scripted::default() }, policy(), false);
    let started = Instant::now();
    rig.put(0, 7);
    tokio::task::yield_now().await;
    let (given_up, _, books) = rig.finish().await;
    assert_eq!((given_up, books.delivered), (0, 7));
    // 1, 1.5, 2.25 … up to 30 s, each half to one and a half of it.
    assert!(started.elapsed() > Duration::from_mins(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_retry_hint_is_honoured_up_to_the_longest_interval() {
    let rig = rig(
        Scripted { answers: Mutex::new([retry(Some(20)), retry(Some(1_000_000))].into()), ..Scripted::default() },
        policy(),
        false,
    );
    let started = Instant::now();
    rig.put(0, 1);
    let (_, _, books) = rig.finish().await;
    assert_eq!(books.delivered, 1);
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(50) && took < Duration::from_secs(66), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn while_a_destination_fails_one_attempt_at_a_time_probes_it() {
    let mut policy = policy();
    policy.request_items_max = 1;
    policy.flying_max = 100;
    let down = Scripted {
        judge: Some(|_| Outcome::Retry { reason: "down".into(), after: None, cause: RetryCause::Passing }),
        ..Scripted::default()
    };
    let rig = rig(down, policy, false);
    for n in 0..50 {
        rig.put(n % 2, 1);
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    let attempts = rig.exporter.requests.lock().len();
    // 50 at first, at once; then one at each probe.
    assert!(attempts < 50 + 15, "{attempts} attempts");
    rig.abort.cancel();
    let (given_up, _, books) = rig.finish().await;
    assert_eq!((given_up, books.dropped[DropReason::Shutdown as usize]), (50, 50));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_part_is_counted_and_the_rest_is_delivered() {
    let partial = Answer::Now(Outcome::Partial { rejected: 2, message: "bad ids".to_owned() });
    let rig = rig(Scripted { answers: Mutex::new([partial].into()), ..Scripted::default() }, policy(), false);
    rig.put(0, 5);
    let (_, requests, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize], requests.len()), (3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn one_poisonous_record_does_not_take_its_neighbours_along() {
    let judge = |request: &Request| {
        if request.parts.iter().any(|part| part.items == 13) {
            Outcome::Rejected { message: "13 is not taken".to_owned() }
        } else {
            Outcome::DELIVERED
        }
    };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    for items in [1, 2, 13, 4, 5] {
        rig.put(0, items);
    }
    let letters = rig.destination.dead_letters.clone();
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize]), (12, 13));
    assert_eq!(letters.letters().iter().map(|letter| letter.batch.items).collect::<Vec<_>>(), [13]);
}

#[tokio::test(start_paused = true)]
async fn a_record_on_which_the_exporter_panics_goes_to_the_dead_letters() {
    let judge = |request: &Request| {
        assert!(request.parts.iter().all(|part| part.items != 13), "13 is not taken");
        Outcome::DELIVERED
    };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    for items in [1, 2, 13, 4, 5] {
        rig.put(0, items);
    }
    let letters = rig.destination.dead_letters.clone();
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize]), (12, 13));
    assert_eq!(
        letters.letters().iter().map(|letter| letter.note.message.clone()).collect::<Vec<_>>(),
        ["panic: 13 is not taken"]
    );
}

#[tokio::test(start_paused = true)]
async fn one_record_is_looked_for_also_where_the_status_says_little() {
    let judge = |request: &Request| {
        if request.parts.iter().any(|part| part.items == 13) {
            Outcome::Refused { status: 13, message: "INTERNAL".to_owned() }
        } else {
            Outcome::DELIVERED
        }
    };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    for items in [1, 2, 3, 4, 13, 5, 6] {
        rig.put(0, items);
    }
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize]), (21, 13));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_everything_is_not_asked_twice_for_each_record() {
    let judge = |_: &Request| Outcome::Refused { status: 13, message: "INTERNAL".to_owned() };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    for _ in 0..1024 {
        rig.put(0, 1);
    }
    let (_, requests, books) = rig.finish().await;
    assert_eq!((books.dropped[DropReason::Rejected as usize], requests.len()), (1024, 3));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_failed_is_seen_with_its_error_until_it_is_delivered() {
    let rig = rig(Scripted { answers: Mutex::new([retry(None), retry(None)].into()), ..Scripted::default() }, policy(), false);
    rig.put(0, 7);
    let position = Position { topic: TopicId(0), shard: 0, offset: 0 };
    let seen = loop {
        match rig.live.standing(position) {
            Some(Standing::Waiting { attempts: 2, error, .. }) => break error,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert_eq!(seen.as_deref(), Some("busy"));
    let flights = rig.live.flights();
    assert_eq!((flights.parked, flights.parked_bytes), (1, spans(7).len()));
    assert!(flights.next_attempt.is_some_and(|next| next > Duration::from_millis(100)), "{flights:?}");
    let doing = rig.live.destination().unwrap();
    assert_eq!((doing.condition.failures, doing.error.as_deref()), (2, Some("busy")));
    assert!(doing.condition.failing.is_some() && doing.condition.next_attempt.is_some(), "{doing:?}");
    assert_eq!(rig.live.oldest(), Some(UnixNanos(1_000_000_000)));
    let live = rig.live.clone();
    let (_, _, books) = rig.finish().await;
    assert_eq!(books.delivered, 7);
    assert_eq!((live.standing(position), live.flights(), live.oldest()), (None, Flights::default(), None));
    assert_eq!(live.destination().unwrap().condition, Condition::default());
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_its_place_is_told_from_what_is_attempted() {
    let unreached = Answer::Now(Outcome::Retry { reason: "nobody".into(), after: None, cause: RetryCause::Unreached });
    let rig = rig(Scripted { answers: Mutex::new([unreached].into()), ..Scripted::default() }, policy(), false);
    rig.put(0, 7);
    let position = Position { topic: TopicId(0), shard: 0, offset: 0 };
    let (attempts, next) = loop {
        match rig.live.standing(position) {
            Some(Standing::Waiting { attempts, next_attempt, .. }) => break (attempts, next_attempt),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert!(attempts == 1 && next.is_some(), "{attempts} {next:?}");
    let flights = rig.live.flights();
    assert_eq!((flights.under_way, flights.waiting, flights.waiting_bytes, flights.parked), (0, 1, spans(7).len(), 0));
    assert!(flights.next_try.is_some_and(|next| next > Duration::from_millis(100)), "{flights:?}");
    let (_, _, books) = rig.finish().await;
    assert_eq!(books.delivered, 7);
}

#[tokio::test(start_paused = true)]
async fn rates_are_those_of_the_last_seconds() {
    let rig = rig(Scripted::default(), policy(), false);
    assert_eq!(rig.live.rate(), None);
    for second in 0..30 {
        rig.live.count();
        if second >= 20 {
            rig.put(0, 6);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    rig.live.count();
    let rate = rig.live.rate().unwrap();
    assert_eq!((rate.came_in.round(), rate.went_out.round(), rate.over.as_secs()), (6.0, 6.0, 10));
    rig.finish().await;
}

/// The lines of a tap of OTLP, up to one that is shown last.
async fn seen_by(taps: &Taps, tap: &Tap) -> Vec<serde_json::Value> {
    let batch = Batch { signal: Signal::Traces, payload: spans(1), items: 1, context: Arc::default(), index: None };
    taps.show(Seen {
        at: At::Dropped,
        batch,
        time: UnixNanos(1),
        component: ComponentId::parse("end").unwrap(),
        pipeline: None,
        peer: None,
        transport: None,
        reason: None,
        message: None,
    });
    let mut seen = Vec::new();
    loop {
        let lines = String::from_utf8(tap.lines().await.unwrap()).unwrap();
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["weir"]["component"] == "end" {
                return seen;
            }
            seen.push(line);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn taps_see_what_is_delivered_and_what_is_dropped_and_why() {
    let judge = |request: &Request| {
        if request.parts.iter().any(|part| part.items == 13) {
            Outcome::Rejected { message: "13 is not taken".to_owned() }
        } else {
            Outcome::DELIVERED
        }
    };
    let partial = Answer::Now(Outcome::Partial { rejected: 2, message: "bad ids".to_owned() });
    let scripted = Scripted { judge: Some(judge), answers: Mutex::new([partial].into()), ..Scripted::default() };
    let rig = rig(scripted, policy(), false);
    let ask = Ask { at: vec![At::Delivered, At::Dropped], form: Form::Otlp, ..Ask::default() };
    let tap = rig.destination.taps.open(&ask).unwrap();
    rig.put(0, 5);
    while rig.accounts.books().held > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for items in [13, 4] {
        rig.put(0, items);
    }
    let taps = rig.destination.taps.clone();
    rig.finish().await;
    let mut seen = Vec::new();
    for line in seen_by(&taps, &tap).await {
        let spans = line["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len();
        let weir = |key: &str| line["weir"][key].as_str().unwrap_or_default().to_owned();
        assert_eq!((weir("component"), weir("pipeline")), ("test".to_owned(), "traces".to_owned()));
        seen.push((spans, weir("at"), weir("reason"), weir("message")));
    }
    seen.sort();
    let seen: Vec<_> = seen.iter().map(|(spans, at, reason, message)| (*spans, &**at, &**reason, &**message)).collect();
    assert_eq!(
        seen,
        [
            (4, "delivered", "", ""),
            (5, "delivered", "", "but not 2 of these 5 items: bad ids"),
            (5, "dropped", "rejected", "2 of these 5 items: bad ids"),
            (13, "dropped", "rejected", "13 is not taken"),
        ]
    );
}

/// Leaves half of what has more than one item.
struct Half;

impl Processor for Half {
    fn process(&self, batch: Batch, _: UnixNanos) -> Processed {
        let kept = batch.items / 2;
        let Some(part) = split_by_items(&batch, kept.max(1)).into_iter().next().filter(|_| kept > 0) else {
            return Processed::DropAll;
        };
        Processed::Part { dropped: batch.items - part.items, batch: part }
    }
}

#[tokio::test(start_paused = true)]
async fn taps_see_what_processors_drop() {
    let stage = Stage { processor: Arc::new(Half), metrics: Telemetry::default().processor("half", Signal::Traces) };
    let rig = rig_with(Scripted::default(), policy(), false, Chain::new(vec![stage], 1));
    let tap = rig.destination.taps.open(&Ask { at: vec![At::Dropped], form: Form::Otlp, ..Ask::default() }).unwrap();
    for items in [4, 1] {
        rig.put(0, items);
    }
    let taps = rig.destination.taps.clone();
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Processor as usize]), (2, 3));
    let seen = seen_by(&taps, &tap).await;
    let seen: Vec<_> = seen.iter().map(|line| (line["weir"]["reason"].clone(), line["weir"]["message"].clone())).collect();
    assert_eq!(
        seen,
        [("processor".into(), "2 of these 4 items, by a processor's rule".into()), ("processor".into(), serde_json::Value::Null)]
    );
}

fn tenant(name: &str) -> Context {
    Context { metadata: vec![("tenant".into(), vec![name.into()])], ..Context::default() }
}

/// Some payloads never pass, whatever is done about the destination.
fn thirteen_never_passes() -> Scripted {
    let judge = |request: &Request| {
        if request.parts.iter().any(|part| part.items == 13) {
            Outcome::Retry { reason: "HTTP 504".to_owned(), after: None, cause: RetryCause::Passing }
        } else {
            Outcome::DELIVERED
        }
    };
    Scripted { judge: Some(judge), takes: Duration::from_millis(10), ..Scripted::default() }
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_of_one_sender_concern_its_requests_alone() {
    let judge = |request: &Request| {
        if *request.context() == tenant("bad") {
            Outcome::Retry { reason: "HTTP 401".to_owned(), after: None, cause: RetryCause::Denied }
        } else {
            Outcome::DELIVERED
        }
    };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), true);
    let started = Instant::now();
    for _ in 0..20 {
        rig.put_with(0, 1, tenant("bad"));
        rig.put_with(0, 1, tenant("good"));
    }
    let [traces, ..] = &rig.destination.breakers;
    let open = traces.watch();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let good = |requests: &[Request]| requests.iter().filter(|request| *request.context() == tenant("good")).count();
    assert_eq!(good(&rig.exporter.requests.lock()), 20);
    let letters = rig.destination.dead_letters.clone();
    let (_, requests, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize]), (20, 20));
    assert_eq!((requests.len(), open.has_changed().is_ok_and(|changed| changed)), (20 + 20 * 5, false));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(letters.letters()[0].note.message, "HTTP 401 (after 5 attempts, while others are taken)");
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_for_ever_make_room_for_others() {
    let rig = rig(thirteen_never_passes(), policy(), true);
    for n in 0..8 {
        rig.put_with(0, 13, tenant(&n.to_string()));
    }
    for n in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.put_with(0, 1, tenant(&format!("good {n}")));
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let good = |requests: &[Request]| requests.iter().filter(|request| request.items == 1).count();
    assert_eq!(good(&rig.exporter.requests.lock()), 100);
    assert_eq!(rig.destination.dead_letters.letters().len(), 0);
    rig.abort.cancel();
    rig.finish().await;
}

/// What arrives, by the items of the requests, while attempts fail for the cause `times` times.
async fn arrivals(cause: RetryCause, times: usize, flying_max: usize) -> Vec<u64> {
    let failure = || Answer::Now(Outcome::Retry { reason: "down".to_owned(), after: None, cause });
    let mut policy = policy();
    (policy.flying_max, policy.request_items_max) = (flying_max, 100);
    let exporter = Scripted { answers: Mutex::new((0..times).map(|_| failure()).collect()), ..Scripted::default() };
    let rig = rig(exporter, policy, false);
    for items in 51..71 {
        rig.put(0, items);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (_, requests, books) = rig.finish().await;
    assert_eq!((books.delivered, requests.len()), ((51..71).sum(), 20 + times));
    requests.iter().skip(times).map(|request| request.items).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_what_finds_nobody_or_flies_alone() {
    let expected: Vec<u64> = (51..71).collect();
    // Longer than five minutes.
    assert_eq!(arrivals(RetryCause::Unreached, 30, 1).await, expected);
    for cause in [RetryCause::Passing, RetryCause::Timeout] {
        assert_eq!(arrivals(cause, 10, 1).await, expected, "{cause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_never_passes_keeps_the_only_place_for_five_minutes() {
    let mut policy = policy();
    (policy.flying_max, policy.request_items_max) = (1, 14);
    let rig = rig(thirteen_never_passes(), policy, false);
    rig.put(0, 13);
    for _ in 0..20 {
        rig.put(0, 12);
    }
    let taken = |rig: &Rig| rig.exporter.requests.lock().iter().filter(|request| request.items == 12).count();
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(taken(&rig), 0);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(taken(&rig), 20);
    rig.abort.cancel();
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_taken_nothing_is_given_up() {
    static DOWN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);
    let judge = |_: &Request| {
        if DOWN.load(Ordering::Relaxed) {
            Outcome::Retry { reason: "down".to_owned(), after: None, cause: RetryCause::Passing }
        } else {
            Outcome::DELIVERED
        }
    };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), true);
    for n in 0..500 {
        rig.put_with(0, 1, tenant(&n.to_string()));
    }
    tokio::time::sleep(Duration::from_hours(10)).await;
    let attempts = rig.exporter.requests.lock().len();
    assert!(attempts < 2000, "{attempts} attempts in ten hours of at least 15 s between them");
    DOWN.store(false, Ordering::Relaxed);
    let started = Instant::now();
    let (_, _, books) = rig.finish().await;
    assert_eq!(books.delivered, 500);
    assert!(started.elapsed() < Duration::from_mins(2), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_is_bounded_and_the_worst_goes_first() {
    let rig = rig(thirteen_never_passes(), policy(), true);
    for n in 0..600 {
        rig.put_with(0, 13, tenant(&format!("bad {n}")));
        for m in 0..9 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            rig.put_with(0, 1, tenant(&format!("good {n} {m}")));
        }
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let delivered = rig.exporter.requests.lock().iter().filter(|request| request.items == 1).count();
    let letters = rig.destination.dead_letters.letters().len();
    assert!(delivered == 5400 && (600 - 256 - 8..=400).contains(&letters), "{delivered} delivered, {letters} letters");
    rig.abort.cancel();
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_of_many_requests_hold_nobody_up() {
    let judge = |request: &Request| {
        if *request.context() == tenant("bad") {
            Outcome::Retry { reason: "HTTP 401".to_owned(), after: None, cause: RetryCause::Denied }
        } else {
            Outcome::DELIVERED
        }
    };
    let exporter = Scripted { judge: Some(judge), takes: Duration::from_millis(10), ..Scripted::default() };
    let rig = rig(exporter, policy(), true);
    for _ in 0..600 {
        rig.put_with(0, 1, tenant("bad"));
        rig.put_with(0, 1, tenant("good"));
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let good = rig.exporter.requests.lock().iter().filter(|request| *request.context() == tenant("good")).count();
    assert_eq!(good, 600);
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize]), (600, 600));
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_is_given_up_when_much_has_passed_it_but_not_its_neighbours() {
    let rig = rig(thirteen_never_passes(), policy(), false);
    for items in [1, 2, 13, 4, 5] {
        rig.put(0, items);
    }
    for _ in 0..700 {
        for _ in 0..100 {
            rig.put(0, 1);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_mins(5)).await;
    for _ in 0..10 {
        rig.put(0, 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let letters = rig.destination.dead_letters.clone();
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Rejected as usize]), (12 + 70_000 + 10, 13));
    assert_eq!(letters.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_split_until_it_fits() {
    let judge = |request: &Request| {
        if request.items > 10 { Outcome::TooLarge { message: "10 at most".to_owned(), limit: None } } else { Outcome::DELIVERED }
    };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    rig.put(0, 33);
    rig.put(1, 8);
    let (_, requests, books) = rig.finish().await;
    assert_eq!((books.delivered, books.held), (41, 0));
    assert_eq!(requests.iter().filter(|r| r.items <= 10).map(|r| r.items).sum::<u64>(), 41);
}

#[tokio::test(start_paused = true)]
async fn a_single_item_that_is_too_large_goes_to_the_dead_letters() {
    let judge = |_: &Request| Outcome::TooLarge { message: "no".to_owned(), limit: None };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    rig.put(0, 3);
    let letters = rig.destination.dead_letters.clone();
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.dropped[DropReason::Rejected as usize], letters.letters().len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn no_request_has_more_items_than_was_written() {
    let mut policy = policy();
    policy.request_items_max = 10;
    let rig = rig(Scripted::default(), policy, false);
    rig.put(0, 25);
    rig.put(0, 4);
    let (_, requests, books) = rig.finish().await;
    assert_eq!(books.delivered, 29);
    assert_eq!(requests.iter().map(|r| r.items).collect::<Vec<_>>(), [10, 10, 5, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_its_size_or_its_time() {
    let wish =
        BatchWish { send_batch_size: 10, send_batch_max_size: 0, timeout: Duration::from_millis(200), splits_by_context: false };
    let policy = Policy::of(&Settings::default(), Some(wish), 1 << 30);
    let rig = rig(Scripted::default(), policy, false);
    let started = Instant::now();
    rig.put(0, 4);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.exporter.requests.lock().is_empty());
    rig.put(0, 6);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.exporter.requests.lock().iter().map(|r| r.items).collect::<Vec<_>>(), [10]);
    assert!(started.elapsed() < Duration::from_millis(100));
    rig.put(0, 1);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(rig.exporter.requests.lock().len(), 2);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn only_a_written_max_elapsed_time_lets_data_expire() {
    let mut policy = policy();
    policy.retry.elapsed_max = Some(Duration::from_mins(1));
    let judge = |_: &Request| Outcome::Retry { reason: "down".to_owned(), after: None, cause: RetryCause::Passing };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy, false);
    rig.put(0, 3);
    let (given_up, _, books) = rig.finish().await;
    assert_eq!((given_up, books.dropped[DropReason::Expired as usize]), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn data_expires_also_while_it_waits_for_its_turn() {
    let mut policy = policy();
    policy.retry.elapsed_max = Some(Duration::from_secs(10));
    let rig = rig(Scripted::default(), policy, false);
    let [traces, ..] = &rig.destination.breakers;
    traces.pass().await.judge(breaker::Verdict::Fails { wait: Duration::from_hours(1), timed_out: false });
    let started = Instant::now();
    rig.put(0, 3);
    let (_, requests, books) = rig.finish().await;
    assert_eq!((requests.len(), books.dropped[DropReason::Expired as usize], started.elapsed().as_secs()), (0, 3, 10));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_many_small_records_is_not_cut() {
    let wish =
        BatchWish { send_batch_size: 2000, send_batch_max_size: 0, timeout: Duration::from_secs(1), splits_by_context: false };
    let rig = rig(Scripted::default(), Policy::of(&Settings::default(), Some(wish), 1 << 30), false);
    for _ in 0..2000 {
        rig.put(0, 1);
    }
    let (_, requests, _) = rig.finish().await;
    assert_eq!(requests.iter().map(|request| request.items).collect::<Vec<_>>(), [2000]);
}

#[tokio::test(start_paused = true)]
async fn items_and_bytes_of_a_request_are_bounded_together() {
    let mut policy = policy();
    (policy.request_items_max, policy.request_bytes_max) = (50, 400);
    let rig = rig(Scripted::default(), policy, false);
    rig.put(0, 120);
    let (_, requests, books) = rig.finish().await;
    assert_eq!(books.delivered, 120);
    assert!(requests.iter().all(|request| request.items <= 50 && request.bytes <= 400), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_the_signal_is_told_apart() {
    let judge = |_: &Request| Outcome::Unsupported { message: "unknown service".to_owned() };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    rig.put(0, 3);
    let (_, requests, books) = rig.finish().await;
    assert_eq!((books.dropped[DropReason::Unsupported as usize], requests.len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn two_timeouts_in_a_row_open_connections_afresh() {
    let rig =
        rig(Scripted { answers: Mutex::new([Answer::Never, Answer::Never].into()), ..Scripted::default() }, policy(), false);
    rig.put(0, 1);
    let exporter = rig.exporter.clone();
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, exporter.reconnects.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_fails_does_not_stop_the_others() {
    let rig = rig(Scripted::default(), policy(), false);
    let [_, _, logs] = &rig.destination.breakers;
    logs.pass().await.judge(breaker::Verdict::Fails { wait: Duration::from_hours(1), timed_out: false });
    let started = Instant::now();
    rig.put(0, 3);
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, started.elapsed().as_secs()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn contexts_are_kept_apart_where_the_exporter_asks_for_it() {
    for (apart, requests_expected) in [(true, 3), (false, 1)] {
        let rig = rig(Scripted::default(), policy(), apart);
        for name in ["a", "a", "b", "a"] {
            rig.put_with(0, 1, tenant(name));
        }
        let (_, requests, _) = rig.finish().await;
        assert_eq!(requests.len(), requests_expected, "apart: {apart}");
        if apart {
            assert!(requests.iter().all(|r| r.parts.iter().all(|part| part.context == r.context())));
        }
    }
}

#[test]
fn what_a_person_wrote_keeps_its_meaning() {
    let queue = |queue: Queue| Policy::of(&Settings { queue: Some(queue), ..Settings::default() }, None, 64);
    assert_eq!(queue(Queue { queue_size: Some(1000), ..Queue::default() }).bound.records, 1000);
    assert_eq!(queue(Queue { queue_size: Some(9), sizer: Some(Sizer::Items), ..Queue::default() }).bound.items, 9);
    assert_eq!(queue(Queue { enabled: false, ..Queue::default() }).on_overflow, crate::journal::OnOverflow::HoldDoor);
    assert_eq!(queue(Queue { block_on_overflow: true, ..Queue::default() }).on_overflow, crate::journal::OnOverflow::HoldDoor);
    assert_eq!(queue(Queue { num_consumers: Some(3), ..Queue::default() }).flying_max, 3);
    assert_eq!(queue(Queue { queue_size: Some(0), ..Queue::default() }).bound.bytes, 64);
    let none = Queue { queue_size: Some(0), sizer: Some(Sizer::Bytes), ..Queue::default() };
    assert_eq!(queue(none).bound, crate::journal::LagBound { bytes: 64, ..crate::journal::LagBound::NONE });
    assert_eq!(policy().retry.elapsed_max, None);
}

#[test]
fn there_is_always_a_pause_between_attempts() {
    let none = crate::config::GoDuration(Duration::ZERO);
    let usual = crate::component::delivery::Retry::default();
    for retry in [
        crate::component::delivery::Retry { initial_interval: none, ..usual.clone() },
        crate::component::delivery::Retry { max_interval: none, ..usual },
    ] {
        let policy = Policy::of(&Settings { retry, ..Settings::default() }, None, 64);
        assert!(policy.backoff(1, 0.5) >= Duration::from_millis(100), "{:?}", policy.retry);
    }
}

#[test]
fn backoff_grows_to_its_bound_and_jitters() {
    let policy = policy();
    assert_eq!(policy.backoff(1, 0.5), Duration::from_secs(1));
    assert_eq!(policy.backoff(3, 0.5), Duration::from_secs_f64(2.25));
    assert_eq!(policy.backoff(1000, 0.5), Duration::from_secs(30));
    assert_eq!(policy.backoff(1, 0.0), Duration::from_millis(500));
    assert_eq!(policy.backoff(1, 1.0), Duration::from_millis(1500));
}

/// Another driver in the place of one that was released.
#[expect(clippy::disallowed_methods, reason = "the rig owns the task and awaits it")]
fn take_over(rig: &Rig, left: Left, exporter: Scripted, splits_by_context: bool) -> (Arc<Scripted>, Shutdown, JoinHandle<Left>) {
    let exporter = Arc::new(exporter);
    let before = &rig.destination;
    let destination = Destination {
        id: before.id.clone(),
        exporter: exporter.clone(),
        breakers: Default::default(),
        metrics: before.metrics.clone(),
        dead_letters: before.dead_letters.clone(),
        journal: crate::journal::JournalId([7; 16]),
        health: before.health.clone(),
        splits_by_context,
        clock: before.clock.clone(),
        taps: before.taps.clone(),
    };
    let ends = Ends::default();
    let drain = ends.drain.clone();
    let task = tokio::spawn(run(left.consumer, Arc::new(destination), policy(), left.carried, ends));
    (exporter, drain, task)
}

fn counted(exporter: &Scripted) -> u64 {
    exporter.requests.lock().iter().map(|request| request.items).sum()
}

#[tokio::test(start_paused = true)]
async fn who_is_released_finishes_what_it_attempts_and_reads_no_further() {
    let mut rig = rig(Scripted { takes: Duration::from_secs(1), ..Scripted::default() }, policy(), false);
    rig.put(0, 3);
    tokio::time::sleep(Duration::from_millis(10)).await;
    rig.release.cancel();
    rig.put(0, 4);
    let left = (&mut rig.task).await.unwrap();
    assert_eq!((rig.accounts.books().delivered, rig.accounts.books().held), (3, 4));
    let (second, drain, task) = take_over(&rig, left, Scripted::default(), false);
    drain.cancel();
    task.await.unwrap();
    assert_eq!((counted(&rig.exporter), counted(&second)), (3, 4), "each once");
    assert!(rig.accounts.books().balance() && rig.accounts.books().held == 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_dead_destination_is_delivered_once_by_who_takes_its_place() {
    let dead = Scripted {
        judge: Some(|_| Outcome::Retry { reason: "dead".to_owned(), after: None, cause: RetryCause::Passing }),
        ..Scripted::default()
    };
    let mut rig = rig(dead, policy(), false);
    for items in 1..=4 {
        rig.put(0, items);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    rig.release.cancel();
    let started = Instant::now();
    let left = (&mut rig.task).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(1), "nobody waits for a destination that fails");
    assert_eq!(rig.accounts.books().held, 10);
    let (second, drain, task) = take_over(&rig, left, Scripted::default(), false);
    drain.cancel();
    task.await.unwrap();
    assert_eq!(counted(&second), 10);
    assert_eq!((rig.accounts.books().delivered, rig.accounts.books().held), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_does_not_end_is_broken_off_and_handed_over_split_by_context() {
    let silent = Scripted { answers: Mutex::new([Answer::Never].into()), ..Scripted::default() };
    let mut rig = rig(silent, Policy { timeout: None, ..policy() }, false);
    // Three tenants in one request, because this destination does not tell them apart.
    for tenant in ["a", "b", "a"] {
        let metadata = vec![("tenant".into(), vec![tenant.into()])];
        rig.put_with(0, 2, Context { metadata, ..Context::default() });
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.exporter.requests.lock().len(), 1);
    rig.release.cancel();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!rig.task.is_finished());
    rig.abort.cancel();
    let left = (&mut rig.task).await.unwrap();
    let (second, drain, task) = take_over(&rig, left, Scripted::default(), true);
    drain.cancel();
    task.await.unwrap();
    let tenants = |request: &Request| {
        let mut all: Vec<_> = request.parts.iter().map(|part| part.context.metadata[0].1[0].to_string()).collect();
        all.dedup();
        all
    };
    assert!(second.requests.lock().iter().all(|request| tenants(request).len() == 1), "tenants in one request");
    assert_eq!((counted(&second), rig.accounts.books().held), (6, 0));
}
