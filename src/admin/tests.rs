//! The socket itself, hostile clients included.

use std::{
    io::{BufRead as _, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
};

use futures_util::future::BoxFuture;
use prost::Message as _;
use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;
use crate::{
    component::{Exporter, Outcome, Request, RetryCause, delivery::Settings},
    delivery::{self, Chain, DeadLetters, Live, Policy},
    internal_telemetry::Telemetry,
    journal::{LagBound, MemoryShard, NewRecord, OnOverflow, Settled, SourceId, Sources, Subscriber, Topic, TopicId},
    otlp::tests::{request, span},
    runtime::{Drain, State, TaskError},
    signal::{Batch, ComponentId, Signal, UnixNanos},
    tap::{At, Seen},
    transport::local::{self, Answer},
};

const NOW: UnixNanos = UnixNanos(1_700_000_000_000_000_000);

struct Rig {
    socket: PathBuf,
    admin: Admin,
    stop: Shutdown,
    serving: JoinHandle<Result<(), TaskError>>,
    _directory: TempDir,
}

#[expect(clippy::disallowed_methods, reason = "the rig owns the task and awaits it")]
fn rig() -> Rig {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join(SOCKET);
    let health = Arc::new(Health::default());
    health.set_whole(State::Ok);
    let admin =
        Admin { board: Board::default(), taps: Taps::default(), health, clock: Clock::new(|| NOW), drain: Shutdown::new() };
    let stop = Shutdown::new();
    let serving = tokio::spawn(admin.clone().serve(&socket, stop.clone()).unwrap());
    Rig { socket, admin, stop, serving, _directory: directory }
}

fn seen(spans: u64) -> Seen {
    let payload = request((0..spans).map(|n| span(&format!("GET /{n}"))).collect()).encode_to_vec();
    let batch = Batch { signal: Signal::Traces, payload: payload.into(), items: spans, context: Arc::default(), index: None };
    Seen {
        at: At::Ingest,
        batch,
        time: NOW,
        component: ComponentId::parse("otlp").unwrap(),
        pipeline: None,
        peer: None,
        transport: Some("grpc"),
        reason: None,
        message: None,
    }
}

impl Rig {
    async fn ask(&self, path: &'static str, body: Option<&str>) -> (u16, Answer) {
        let (socket, body) = (self.socket.clone(), body.map(str::to_owned));
        let answer = spawn_blocking(move || local::ask(&socket, path, body.as_deref().map(str::as_bytes)));
        let answer = answer.await.unwrap().unwrap();
        (answer.status, answer)
    }

    async fn whole(&self, path: &'static str, body: Option<&str>) -> (u16, String) {
        let (status, answer) = self.ask(path, body).await;
        let bytes = spawn_blocking(move || answer.whole(1 << 20)).await.unwrap().unwrap();
        (status, String::from_utf8(bytes).unwrap())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

/// The next line of a tap.
async fn line(mut answer: Answer) -> (String, Answer) {
    spawn_blocking(move || {
        let mut line = String::new();
        answer.body.read_line(&mut line).unwrap();
        (line, answer)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_its_owners_alone_and_goes_with_its_weir() {
    let rig = rig();
    let socket = rig.socket.clone();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, told) = rig.whole("/v1", None).await;
    assert!(status == 200 && told.contains("\"version\":1"), "{told}");
    // A second one does not take it away.
    let second = rig.admin.clone().serve(&socket, Shutdown::new());
    assert!(matches!(second.err(), Some(LocalError::InUse { .. })));
    rig.stop().await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_asked_for_and_reported() {
    let rig = rig();
    let (_, before) = rig.whole("/v1/live", None).await;
    assert!(before.contains("\"drain\":null") && before.contains("\"refusing\":null"), "{before}");
    assert_eq!(rig.whole("/v1/drain", None).await.0, 405);
    assert!(!rig.admin.drain.is_cancelled());
    let (status, told) = rig.whole("/v1/drain", Some("{}")).await;
    assert!(status == 200 && told.contains("closing") && rig.admin.drain.is_cancelled(), "{told}");
    rig.admin.health.set_drain(Drain::Closed);
    let (_, told) = rig.whole("/v1/drain", Some("{}")).await;
    assert!(told.contains("closed"), "{told}");
    let (_, after) = rig.whole("/v1/live", None).await;
    assert!(after.contains("\"drain\":\"closed\"") && after.contains("drained"), "{after}");
    // Alive all the same: who restarts it loses time.
    assert!(after.contains("\"state\":\"ok\""), "{after}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_weir_left_is_replaced_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let stale = directory.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    assert!(Bound::bind_local(&stale, 1).is_ok());
    let file = directory.path().join("file");
    std::fs::write(&file, "dear diary").unwrap();
    assert!(matches!(Bound::bind_local(&file, 1).err(), Some(LocalError::NoSocket { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "dear diary");
    let long = directory.path().join("x".repeat(120));
    assert!(matches!(Bound::bind_local(&long, 1).err(), Some(LocalError::TooLong { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_says_that_it_is_ready_shows_what_passes_and_says_how_it_ends() {
    let rig = rig();
    let (status, answer) = rig.ask("/v1/tap", Some("{\"name\": \"/1\"}")).await;
    let (ready, answer) = line(answer).await;
    assert!(status == 200 && ready.starts_with("{\"ready\":"), "{ready}");
    rig.admin.taps.show(seen(2));
    let (row, answer) = line(answer).await;
    assert!(row.contains("\"name\":\"GET /1\"") && row.contains("\"service\":\"cart\""), "{row}");
    rig.stop.cancel();
    let (end, _) = line(answer).await;
    assert_eq!(end, "{\"end\":{\"reason\":\"stopping\"}}\n");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_ends_after_so_many_lines_or_so_long_and_with_its_client() {
    let rig = rig();
    let (_, answer) = rig.ask("/v1/tap", Some("{\"lines_max\": 1}")).await;
    rig.admin.taps.show(seen(5));
    let told = spawn_blocking(move || answer.whole(1 << 20)).await.unwrap().unwrap();
    let told = String::from_utf8(told).unwrap();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.ends_with("{\"end\":{\"reason\":\"lines\"}}\n"), "{told}");
    let (_, told) = rig.whole("/v1/tap", Some("{\"seconds\": 0.01}")).await;
    assert!(told.ends_with("{\"end\":{\"reason\":\"seconds\"}}\n"), "{told}");
    // Whoever goes without a word leaves nothing behind.
    let (_, answer) = rig.ask("/v1/tap", Some("{}")).await;
    drop(line(answer).await);
    while rig.admin.taps.figures().open > 0 {
        tokio::task::yield_now().await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_refused_with_words() {
    let rig = rig();
    for (path, body, status, words) in [
        ("/v1/taps", None, 404, "POST /v1/tap"),
        ("/v1/tap", None, 405, "POST"),
        ("/v1/tap", Some("{"), 400, "not understood"),
        ("/v1/tap", Some("{\"servce\": \"cart\"}"), 400, "servce"),
        ("/v1/tap", Some("{\"trace_id\": \"abc\"}"), 400, "32 hexadecimal"),
        ("/v1/standing", Some("{\"records\": 1}"), 400, "not understood"),
    ] {
        let (found, told) = rig.whole(path, body).await;
        assert!(found == status && told.contains(words), "{path} {body:?}: {found} {told}");
    }
    let long = format!("{{\"service\": \"{}\"}}", "x".repeat(1 << 20));
    let (status, told) = rig.whole("/v1/tap", Some(&long)).await;
    assert!(status == 413 && told.contains("256 KiB"), "{status} {told}");
    let mut taps = Vec::new();
    for _ in 0..crate::tap::TAPS_MAX {
        taps.push(rig.ask("/v1/tap", Some("{}")).await);
    }
    let (status, told) = rig.whole("/v1/tap", Some("{}")).await;
    assert!(status == 503 && told.contains("8 taps are open already"), "{status} {told}");
    assert_eq!(rig.whole("/v1/live", None).await.0, 200, "single questions are answered all the same");
    drop(taps);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_half_a_request_or_a_line_without_end_keeps_nobody_out() {
    let rig = rig();
    let connect = || UnixStream::connect(&rig.socket).unwrap();
    let mut half = connect();
    half.write_all(b"POST /v1/tap HTTP/1.1\r\nhost: weir\r\ncontent-le").unwrap();
    let mut no_body = connect();
    no_body.write_all(b"POST /v1/tap HTTP/1.1\r\nhost: weir\r\ncontent-length: 10\r\n\r\n{").unwrap();
    let mut nonsense = connect();
    nonsense.write_all(b"\x16\x03\x01 hello\r\n\r\n").unwrap();
    let mut endless = connect();
    let told = spawn_blocking(move || {
        // It may be cut off before all of it is written.
        let written = endless.write_all(&vec![b'x'; 1 << 20]);
        let mut told = Vec::new();
        let read = endless.read_to_end(&mut told);
        (written.is_ok() && read.is_ok(), told)
    });
    let (_, told) = told.await.unwrap();
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&told));
    // A hundred that say nothing.
    let silent: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
    assert_eq!(rig.whole("/v1/live", None).await.0, 200);
    drop((half, no_body, nonsense, silent));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_reads_holds_up_nothing_and_no_memory() {
    let rig = rig();
    let (_, never_read) = rig.ask("/v1/tap", Some("{\"form\": \"otlp\"}")).await;
    let one = seen(1000);
    let bytes = one.batch.payload.len();
    // 100 MiB, from here on: nothing of it is waited for.
    let mut waiting_max = 0;
    for _ in 0..(100 << 20) / bytes {
        rig.admin.taps.show(one.clone());
        waiting_max = waiting_max.max(rig.admin.taps.figures().waiting_bytes);
    }
    assert!(waiting_max <= 4 << 20, "{waiting_max}");
    while rig.admin.taps.figures().waiting_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert!(rig.admin.taps.figures().lost > 0);
    // Others see what passes.
    let (_, answer) = rig.ask("/v1/tap", Some("{}")).await;
    let (_, answer) = line(answer).await;
    rig.admin.taps.show(seen(1));
    let (row, _) = line(answer).await;
    assert!(row.contains("GET /0"), "{row}");
    // The one that was slow is told, when it reads at last.
    rig.stop.cancel();
    let told = spawn_blocking(move || answer_text(never_read)).await.unwrap();
    assert!(told.len() < 8 << 20, "{}", told.len());
    assert!(told.contains("\"late_lines\":") && told.contains("\"unseen_items\":"), "what was left out is told");
    rig.stop().await;
}

fn answer_text(answer: Answer) -> String {
    String::from_utf8(answer.whole(64 << 20).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_tells_who_is_behind_and_whether_the_books_balance() {
    let rig = rig();
    let topic = Arc::new(Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, 1, |shard, room| {
        Arc::new(MemoryShard::new(TopicId(0), shard, 1 << 20, room))
    }));
    let mut cursor = topic.cursor(&Subscriber {
        name: "otlp_grpc/x in pipeline traces".into(),
        sources: Sources::of([SourceId(0)]),
        bound: LagBound::NONE,
        on_overflow: OnOverflow::SkipOldest,
        is_stateful: false,
    });
    let live = Arc::new(Live::new("traces".into(), ComponentId::parse("otlp_grpc/x").unwrap(), Signal::Traces, &cursor));
    rig.admin.board.topic(&topic);
    rig.admin.board.consumer(&live);
    for (items, seconds) in [(3, 60), (4, 30), (5, 10)] {
        let received = UnixNanos(NOW.0 - seconds * 1_000_000_000);
        let record = NewRecord { source: SourceId(0), received, batch: seen(items).batch, derived_from: None };
        assert!(topic.append_now(0, record).is_ok());
    }
    let report = async || serde_json::from_str::<Report>(&rig.whole("/v1/live", None).await.1).unwrap();
    let before = report().await;
    let consumer = &before.consumers[0];
    assert_eq!(consumer.name, "otlp_grpc/x in pipeline traces");
    assert_eq!((consumer.lag.items, consumer.lag.records), (12, 3));
    assert!((consumer.lag_seconds - 60.0).abs() < 1e-6, "{}", consumer.lag_seconds);
    assert_eq!((before.topics[0].accepted.items, before.topics[0].held.items), (12, 12));
    // The first is under way, the second is settled.
    let mut records = Vec::new();
    cursor.read(2, usize::MAX, &mut records);
    cursor.settle(records[1].position, &Settled::delivered(4));
    assert!((report().await.consumers[0].lag_seconds - 60.0).abs() < 1e-6, "the first one is held all the same");
    cursor.settle(records[0].position, &Settled::delivered(3));
    let after = report().await;
    let consumer = &after.consumers[0];
    assert!((consumer.lag_seconds - 10.0).abs() < 1e-6, "{}", consumer.lag_seconds);
    assert_eq!((consumer.books.delivered, consumer.books.held, consumer.books.balanced), (7, 5, true));
    assert!(after.balanced && after.state == "ok" && after.refusing.is_none());
    // Books that do not balance are not said to.
    topic.settle_for_test(0, u64::MAX, &Settled::delivered(1));
    let wrong = report().await;
    assert!(!wrong.balanced && !wrong.consumers[0].books.balanced);
    // A consumer that is gone is no longer in it.
    drop((live, cursor));
    assert!(report().await.consumers.is_empty());
    rig.stop().await;
}

/// Takes nothing.
struct Busy;

impl Exporter for Busy {
    fn export(&self, _: Request) -> BoxFuture<'_, Outcome> {
        let busy = Outcome::Retry { reason: "busy".to_owned(), after: None, cause: RetryCause::Passing };
        Box::pin(async move { busy })
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the test owns the task and awaits it")]
async fn what_is_only_in_memory_about_a_record_is_told_with_the_last_error() {
    let rig = rig();
    let topic = Arc::new(Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, 1, |shard, room| {
        Arc::new(MemoryShard::new(TopicId(0), shard, 1 << 20, room))
    }));
    let policy = Policy::of(&Settings::default(), None, 1 << 30);
    let cursor = topic.cursor(&Subscriber {
        name: "otlp_grpc/x in pipeline traces".into(),
        sources: Sources::of([SourceId(0)]),
        bound: policy.bound,
        on_overflow: policy.on_overflow,
        is_stateful: false,
    });
    let (telemetry, id) = (Telemetry::default(), ComponentId::parse("otlp_grpc/x").unwrap());
    let destination = Arc::new(delivery::Destination {
        id: id.clone(),
        exporter: Arc::new(Busy),
        breakers: Default::default(),
        metrics: telemetry.exporter("otlp_grpc/x"),
        dead_letters: Arc::new(DeadLetters::in_memory(Arc::default(), &telemetry)),
        journal: crate::journal::JournalId([7; 16]),
        health: rig.admin.health.clone(),
        splits_by_context: false,
        clock: rig.admin.clock.clone(),
        taps: rig.admin.taps.clone(),
    });
    let live = Arc::new(Live::new("traces".into(), id.clone(), Signal::Traces, &cursor));
    live.leads_to(destination.clone());
    rig.admin.board.topic(&topic);
    rig.admin.board.consumer(&live);
    let (signal, chain) = (Signal::Traces, Arc::new(Chain::new(Vec::new(), 1)));
    let consumer = delivery::Consumer { pipeline: "traces".into(), id, signal, cursor, chain, replays: None, live };
    let ends = delivery::Ends::default();
    let abort = ends.abort.clone();
    let task = tokio::spawn(delivery::exporter::run(consumer, destination, policy, delivery::Carried::default(), ends));
    let record = NewRecord { source: SourceId(0), received: NOW, batch: seen(3).batch, derived_from: None };
    assert!(topic.append_now(0, record).is_ok());
    let asked = "{\"records\": [{\"topic\": \"traces\", \"shard\": 0, \"offset\": 0}, {\"topic\": \"traces\", \"shard\": 0, \"offset\": 1}, {\"topic\": \"x\", \"shard\": 0, \"offset\": 0}]}";
    let told = loop {
        let (status, told) = rig.whole("/v1/standing", Some(asked)).await;
        assert_eq!(status, 200, "{told}");
        let told: Standings = serde_json::from_str(&told).unwrap();
        if told.standings.iter().any(|standing| standing.parked) {
            break told.standings;
        }
    };
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].record.offset, &*told[0].consumer), (0, "otlp_grpc/x in pipeline traces"));
    assert!(told[0].attempts > 0 && told[0].next_attempt_seconds.is_some(), "{told:?}");
    assert_eq!(told[0].error.as_deref(), Some("busy"));
    let report: Report = serde_json::from_str(&rig.whole("/v1/live", None).await.1).unwrap();
    let doing = report.consumers[0].destination.clone().unwrap();
    assert!(!doing.up && doing.failures > 0 && doing.failing_seconds.is_some(), "{doing:?}");
    assert_eq!((doing.error.as_deref(), report.consumers[0].requests.parked), (Some("busy"), 1));
    abort.cancel();
    assert_eq!(task.await.unwrap().items, 3);
    rig.stop().await;
}
