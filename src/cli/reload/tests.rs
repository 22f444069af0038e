//! Clients that send without pause through a change of the configuration, and backends that count: each item once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener as StdListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    config::{Input, Machine, load},
    journal::Persistence,
    service::Ended,
    transport::client::testing::{H1Sink, answered},
};

/// A backend that knows how often each span came.
struct Backend(H1Sink);

impl Backend {
    async fn start() -> Self {
        Self(H1Sink::start(|_| answered(200, "content-type: application/x-protobuf\r\n", &[])).await)
    }

    fn exporter(&self) -> String {
        format!("{{endpoint: \"http://{}\", compression: none}}", self.0.address)
    }

    /// How often each span came, by its number.
    fn counts(&self) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for seen in self.0.seen.lock().iter() {
            let request = ExportTraceServiceRequest::decode(&*seen.body).unwrap();
            let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            for span in scopes.flat_map(|scope| &scope.spans) {
                *counts.entry(u64::from_be_bytes(span.span_id.as_slice().try_into().unwrap())).or_default() += 1;
            }
        }
        counts
    }
}

/// What the clients did.
#[derive(Default)]
struct Sent {
    taken: Mutex<BTreeSet<u64>>,
    count: AtomicU64,
    connects: AtomicU64,
    refused: Mutex<Vec<String>>,
    stop: AtomicBool,
}

struct Clients {
    sent: Arc<Sent>,
    tasks: JoinSet<()>,
}

fn body(number: u64) -> Vec<u8> {
    let value = AnyValue { value: Some(any_value::Value::StringValue("shop".to_owned())) };
    let attributes = vec![KeyValue { key: "service.name".to_owned(), value: Some(value), ..KeyValue::default() }];
    let span = Span {
        trace_id: vec![1; 16],
        span_id: number.to_be_bytes().to_vec(),
        name: "GET".to_owned(),
        kind: 2,
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

/// The status of the answer; `None`: the connection was closed before it was answered.
async fn exchange(stream: &mut TcpStream, head: &str, body: &[u8]) -> Option<u16> {
    let request = [format!("{head}host: x\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    stream.write_all(&request).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).map_or(0, |rest| rest.split('\r').next().unwrap().parse().unwrap());
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await.ok()?;
    Some(text.get(9..12).unwrap().parse().unwrap())
}

async fn send(port: u16, client: u64, keeps: bool, sent: Arc<Sent>) {
    let mut stream: Option<TcpStream> = None;
    // An id of nothing but zeros is none.
    let mut number = (client << 32) + 1;
    while !sent.stop.load(Ordering::Relaxed) {
        let mut to = if let Some(stream) = stream.take() {
            stream
        } else {
            sent.connects.fetch_add(1, Ordering::Relaxed);
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => stream,
                Err(error) => {
                    sent.refused.lock().push(format!("connect: {error}"));
                    return;
                }
            }
        };
        let head = "POST /v1/traces HTTP/1.1\r\ncontent-type: application/x-protobuf\r\n";
        match exchange(&mut to, head, &body(number)).await {
            Some(200) => {
                sent.taken.lock().insert(number);
                sent.count.fetch_add(1, Ordering::Relaxed);
                number += 1;
                stream = keeps.then_some(to);
            }
            Some(status) => {
                sent.refused.lock().push(format!("status {status}"));
                sleep(Duration::from_millis(1)).await;
            }
            // An idle connection may be closed at any time: it is opened again and the request sent again, as every client does.
            None => {}
        }
    }
}

impl Clients {
    fn start(port: u16) -> Self {
        let sent = Arc::new(Sent::default());
        let mut tasks = JoinSet::new();
        for client in 0..4 {
            tasks.spawn(send(port, client, client % 2 == 0, sent.clone()));
        }
        Self { sent, tasks }
    }

    /// Until so many more requests were taken.
    async fn more(&self, count: u64) {
        let from = self.sent.count.load(Ordering::Relaxed);
        until("the clients send", || {
            self.sent.count.load(Ordering::Relaxed) >= from + count || !self.sent.refused.lock().is_empty()
        })
        .await;
    }

    /// What was taken of all clients.
    async fn stop(mut self) -> Arc<Sent> {
        self.sent.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.sent
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(Duration::from_mins(1), waiting).await.is_ok(), "not in time: {what}");
}

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn loaded(yaml: &str) -> Loaded {
    load(&[Input::Text { name: "x".to_owned(), text: yaml.to_owned() }], &Machine)
}

/// A weir that runs, in memory or on disk.
struct Weir {
    running: Running,
    reload: Reload<'static>,
    _directory: Option<TempDir>,
}

impl Weir {
    async fn start(yaml: &str, on_disk: bool) -> Self {
        Self::start_in(yaml, on_disk.then(|| TempDir::new().unwrap())).await
    }

    async fn start_in(yaml: &str, directory: Option<TempDir>) -> Self {
        let around = Surroundings::new(Clock::system());
        let checked = match start::check_within(loaded(yaml), &around) {
            Ok(checked) => *checked,
            Err(loaded) => panic!("{:#?}", loaded.found.found),
        };
        let wish = |path: &Path| Persistence {
            shards: 1,
            directory: path.to_owned(),
            sync: false,
            bytes_max: Some(64 << 20),
            letters_bytes_max: None,
            offset_reset: crate::journal::OffsetReset::Latest,
        };
        let persistence = directory.as_ref().map(|directory| wish(directory.path()));
        let running = Running::start(checked.built, &around, persistence.as_ref()).await.unwrap();
        let args: &'static RunArgs = Box::leak(Box::default());
        let reload = Reload::new(args, &around, checked.file, &checked.loaded);
        Self { running, reload, _directory: directory }
    }

    async fn take(&mut self, yaml: &str) -> Outcome {
        let outcome = self.reload.apply(loaded(yaml), &mut self.running, &Shutdown::new()).await;
        self.reload.metrics.count(outcome);
        outcome
    }

    async fn stop(self) -> Ended {
        self.running.stop(Duration::from_secs(30), Shutdown::new()).await
    }

    fn number(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.reload.around.telemetry.gather().number(name, labels)
    }
}

/// A file with a receiver on `port`, these exporters, connectors and pipelines.
fn file(port: u16, receiver: &str, exporters: &str, pipelines: &str) -> String {
    format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{port}\"{receiver}}}}}}}}}\n\
         connectors: {{forward: }}\nexporters: {{{exporters}}}\nservice: {{pipelines: {{{pipelines}}}}}\n"
    )
}

#[track_caller]
fn each_once(sent: &Sent, counts: &BTreeMap<u64, u64>) {
    assert_eq!(*sent.refused.lock(), Vec::<String>::new());
    let taken = sent.taken.lock();
    let lost = taken.iter().filter(|number| !counts.contains_key(number)).count();
    let doubled = counts.values().filter(|count| **count > 1).count();
    assert_eq!((lost, doubled), (0, 0), "lost and doubled, of {}", taken.len());
    assert!(counts.keys().all(|number| taken.contains(number)), "nobody sent these");
}

fn all(backends: &[&Backend]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for (number, count) in backends.iter().flat_map(|backend| backend.counts()) {
        *counts.entry(number).or_default() += count;
    }
    counts
}

async fn changes_destinations(on_disk: bool) {
    let (a, b) = (Backend::start().await, Backend::start().await);
    let port = free_port();
    let to = |backend: &Backend| {
        file(port, "", &format!("otlp_http: {}", backend.exporter()), "traces: {receivers: [otlp], exporters: [otlp_http]}")
    };
    let mut weir = Weir::start(&to(&a), on_disk).await;
    let clients = Clients::start(port);
    for turn in 0..6 {
        clients.more(40).await;
        let next = if turn % 2 == 0 { &b } else { &a };
        assert_eq!(weir.take(&to(next)).await, Outcome::Applied);
    }
    clients.more(40).await;
    let sent = clients.stop().await;
    until("all of it is delivered", || all(&[&a, &b]).len() >= sent.taken.lock().len()).await;
    assert!(weir.stop().await.undelivered.is_empty());
    each_once(&sent, &all(&[&a, &b]));
    assert!(!a.counts().is_empty() && !b.counts().is_empty());
    assert_eq!(
        sent.connects.load(Ordering::Relaxed),
        2 + connects_of_those_that_do_not_keep(&sent),
        "the receiver did not change"
    );
}

/// Two of the clients open a connection a request, and one more before they look whether to stop.
fn connects_of_those_that_do_not_keep(sent: &Sent) -> u64 {
    sent.taken.lock().iter().filter(|number| (*number >> 32) % 2 == 1).count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_changes_under_load_gets_each_item_once_in_memory() {
    changes_destinations(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_changes_under_load_gets_each_item_once_on_disk() {
    changes_destinations(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_changes_takes_over_its_socket_and_no_connect_is_refused() {
    let a = Backend::start().await;
    let port = free_port();
    let with = |receiver: &str| {
        file(port, receiver, &format!("otlp_http: {}", a.exporter()), "traces: {receivers: [otlp], exporters: [otlp_http]}")
    };
    let mut weir = Weir::start(&with(""), false).await;
    let clients = Clients::start(port);
    for turn in 0..6 {
        clients.more(40).await;
        let bytes = 1_000_000 + turn;
        assert_eq!(weir.take(&with(&format!(", max_request_body_size: {bytes}"))).await, Outcome::Applied);
    }
    clients.more(40).await;
    let sent = clients.stop().await;
    assert!(weir.stop().await.undelivered.is_empty());
    each_once(&sent, &a.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_at_the_switch_goes_to_the_pipelines_of_before_or_to_those_of_after() {
    let (a, b) = (Backend::start().await, Backend::start().await);
    let port = free_port();
    let exporters = format!("otlp_http/a: {}, otlp_http/b: {}", a.exporter(), b.exporter());
    let first = file(port, "", &exporters, "traces/a: {receivers: [otlp], exporters: [otlp_http/a]}");
    let second = file(port, "", &exporters, "traces/b: {receivers: [otlp], exporters: [otlp_http/b]}");
    let mut weir = Weir::start(&first, false).await;
    let clients = Clients::start(port);
    for turn in 0..6 {
        clients.more(40).await;
        assert_eq!(weir.take(if turn % 2 == 0 { &second } else { &first }).await, Outcome::Applied);
    }
    clients.more(40).await;
    let sent = clients.stop().await;
    assert!(weir.stop().await.undelivered.is_empty());
    each_once(&sent, &all(&[&a, &b]));
    assert!(!a.counts().is_empty() && !b.counts().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_that_comes_and_goes_loses_nothing_of_what_it_passes_on() {
    let a = Backend::start().await;
    let port = free_port();
    let exporters = format!("otlp_http: {}", a.exporter());
    let through =
        "traces: {receivers: [otlp], exporters: [forward]}, traces/behind: {receivers: [forward], exporters: [otlp_http]}";
    let through = file(port, "", &exporters, through);
    let direct = file(port, "", &exporters, "traces/direct: {receivers: [otlp], exporters: [otlp_http]}");
    let mut weir = Weir::start(&through, false).await;
    let clients = Clients::start(port);
    for turn in 0..6 {
        clients.more(40).await;
        assert_eq!(weir.take(if turn % 2 == 0 { &direct } else { &through }).await, Outcome::Applied);
    }
    clients.more(40).await;
    let sent = clients.stop().await;
    assert!(weir.stop().await.undelivered.is_empty());
    each_once(&sent, &a.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_is_added_begins_at_the_tail_and_one_that_comes_back_goes_on_where_it_stood() {
    let (a, b) = (Backend::start().await, Backend::start().await);
    let port = free_port();
    let alone =
        file(port, "", &format!("otlp_http/a: {}", a.exporter()), "traces: {receivers: [otlp], exporters: [otlp_http/a]}");
    let both = file(
        port,
        "",
        &format!("otlp_http/a: {}, otlp_http/b: {}", a.exporter(), b.exporter()),
        "traces: {receivers: [otlp], exporters: [otlp_http/a]}, traces/b: {receivers: [otlp], exporters: [otlp_http/b]}",
    );
    let mut weir = Weir::start(&alone, true).await;
    let clients = Clients::start(port);
    clients.more(40).await;
    let before = clients.sent.taken.lock().clone();
    for turn in 0..5 {
        assert_eq!(weir.take(if turn % 2 == 0 { &both } else { &alone }).await, Outcome::Applied);
        clients.more(40).await;
    }
    let sent = clients.stop().await;
    until("all of it is delivered", || a.counts().len() >= sent.taken.lock().len()).await;
    let books = |weir: &Weir, item: &str| {
        let labels = [("component", "otlp_http/b"), ("pipeline", "traces/b"), ("signal", "traces")];
        weir.number(&format!("weir_consumer_{item}_items"), &labels).unwrap()
    };
    until("the second one is done, too", || books(&weir, "held") < 0.5).await;
    let accepted = books(&weir, "accepted");
    weir.stop().await;
    each_once(&sent, &a.counts());
    let came = b.counts();
    assert!(came.values().all(|count| *count == 1), "doubled");
    assert_eq!(came.len(), accepted as usize, "what came while it was away is its own, too");
    assert!(came.keys().all(|number| !before.contains(number)), "what was there before it was added is not");
    assert!(sent.taken.lock().len() - came.len() >= before.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_the_same_or_wrong_changes_nothing() {
    let a = Backend::start().await;
    let port = free_port();
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let exporters = format!("otlp_http: {}", a.exporter());
    let good = file(port, "", &exporters, "traces: {receivers: [otlp], exporters: [otlp_http]}");
    let mut weir = Weir::start(&good, false).await;
    let clients = Clients::start(port);
    clients.more(20).await;
    assert_eq!(weir.take(&format!("# another comment\n{good}")).await, Outcome::Unchanged);
    clients.more(20).await;
    assert_eq!(weir.take(&good.replace("exporters: [otlp_http]", "exporters: [otlp_htpt]")).await, Outcome::Refused);
    clients.more(20).await;
    // This one is found out only when it binds, after others have taken over sockets.
    let busy = format!("{exporters}, prometheus: {{endpoint: \"{}\"}}", taken.local_addr().unwrap());
    let busy = file(
        port,
        ", max_request_body_size: 1000000",
        &busy,
        "traces/2: {receivers: [otlp], exporters: [otlp_http]}, metrics: {receivers: [otlp], exporters: [prometheus]}",
    );
    assert_eq!(weir.take(&busy).await, Outcome::Refused);
    clients.more(20).await;
    assert_eq!(weir.number("weir_config_last_reload_successful", &[]), Some(0.0));
    assert_eq!(weir.take(&good).await, Outcome::Unchanged);
    assert_eq!(weir.number("weir_config_last_reload_successful", &[]), Some(1.0));
    for (result, count) in [("applied", 0.0), ("refused", 2.0), ("unchanged", 2.0)] {
        assert_eq!(weir.number("weir_config_reloads", &[("result", result)]), Some(count), "{result}");
    }
    let sent = clients.stop().await;
    assert!(weir.stop().await.undelivered.is_empty());
    each_once(&sent, &a.counts());
    assert_eq!(sent.connects.load(Ordering::Relaxed), 2 + connects_of_those_that_do_not_keep(&sent), "connections were kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_for_a_consumer_that_went_is_shown_and_let_go_while_weir_runs() {
    let a = Backend::start().await;
    let (port, nobody) = (free_port(), free_port());
    let alone =
        file(port, "", &format!("otlp_http/a: {}", a.exporter()), "traces: {receivers: [otlp], exporters: [otlp_http/a]}");
    let gone = "otlp_http/b in pipeline traces/b";
    let both = file(
        port,
        "",
        &format!("otlp_http/a: {}, otlp_http/b: {{endpoint: \"http://127.0.0.1:{nobody}\"}}", a.exporter()),
        "traces: {receivers: [otlp], exporters: [otlp_http/a]}, traces/b: {receivers: [otlp], exporters: [otlp_http/b]}",
    );
    let weir = Weir::start(&both, true).await;
    let clients = Clients::start(port);
    clients.more(20).await;
    let sent = clients.stop().await.taken.lock().len() as f64;
    let orphan =
        |weir: &Weir, what: &str| weir.number(&format!("weir_journal_orphan_{what}"), &[("consumer", gone), ("topic", "traces")]);
    let removal = |weir: &Weir, consumer: &'static str| {
        let journal = weir.reload.around.board.journal().unwrap();
        async move { journal.remove_orphan(consumer).await.map(|removed| removed.items).map_err(|error| error.to_string()) }
    };
    let refused = removal(&weir, gone).await.unwrap_err();
    assert!(refused.contains("is in the configuration that runs") && orphan(&weir, "items").is_none(), "{refused}");
    let Weir { running, _directory: directory, .. } = weir;
    running.stop(Duration::from_secs(30), Shutdown::new()).await;

    // Without its whole topic: nobody takes traces any more.
    let other = alone.replace("traces:", "logs:");
    let mut weir = Weir::start_in(&other, directory).await;
    assert_eq!(orphan(&weir, "items"), Some(sent));
    assert!(orphan(&weir, "bytes") > Some(sent) && orphan(&weir, "removed_items") == Some(0.0));
    assert_eq!(weir.take(&alone).await, Outcome::Applied);
    assert_eq!(orphan(&weir, "items"), Some(sent));
    let unknown = removal(&weir, "nobody").await.unwrap_err();
    assert!(unknown.contains(gone), "{unknown}");
    assert_eq!(removal(&weir, gone).await, Ok(sent as u64));
    assert_eq!(removal(&weir, gone).await, Ok(0), "asked again");
    assert_eq!((orphan(&weir, "items"), orphan(&weir, "removed_items")), (Some(0.0), Some(sent)));

    assert_eq!(weir.take(&both).await, Outcome::Applied);
    assert!(removal(&weir, gone).await.unwrap_err().contains("is in the configuration that runs"));
    let consumer = [("component", "otlp_http/b"), ("pipeline", "traces/b"), ("signal", "traces")];
    let books = |item: &str| weir.number(&format!("weir_consumer_{item}_items"), &consumer).unwrap();
    let dropped = weir.number("weir_consumer_dropped_items", &[consumer[0], consumer[1], consumer[2], ("reason", "removed")]);
    assert_eq!((books("accepted"), books("delivered"), dropped, books("held")), (sent, 0.0, Some(sent), 0.0));
    weir.stop().await;
}

#[test]
fn a_warning_that_was_said_is_not_said_again_at_the_next_reload() {
    let checked = |yaml: &str| {
        let around = Surroundings::new(Clock::system());
        start::check_within(loaded(yaml), &around).map_err(|loaded| loaded.found).unwrap().loaded
    };
    let old = "receivers: {otlp: {protocols: {http: }}}\nexporters: {otlphttp: {endpoint: 'http://b:1'}}\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [otlphttp]}}}\n";
    let (none, first) = (Warned::default(), checked(old));
    let said = none.new_in(&first);
    assert!(said.len() == 1 && said[0].contains("`otlphttp` is the older name"), "{said:?}");
    // A line lower.
    assert_eq!(Warned::of(&first).new_in(&checked(&format!("# a comment\n{old}"))), Vec::<String>::new());
}

/// The sum of the counters of calls on a page.
async fn calls(port: u16) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.0 200"), "{page}");
    let lines = page.lines().filter(|line| line.starts_with("traces_span_metrics_calls_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn counts_on(on_disk: bool) {
    let (a, b) = (Backend::start().await, Backend::start().await);
    let (port, page) = (free_port(), free_port());
    let with = |to: &Backend, connector: &str| {
        let exporters = format!("otlp_http: {}, prometheus: {{endpoint: \"127.0.0.1:{page}\"}}", to.exporter());
        let pipelines = "traces: {receivers: [otlp], exporters: [otlp_http, span_metrics]}, \
                         metrics: {receivers: [span_metrics], exporters: [prometheus]}";
        file(port, "", &exporters, pipelines).replace("{forward: }", &format!("{{span_metrics: {connector}}}"))
    };
    let (plain, slower) = ("{metrics_flush_interval: 60s}", "{metrics_flush_interval: 50s}");
    let mut weir = Weir::start(&with(&a, plain), on_disk).await;
    let clients = Clients::start(port);
    // The connector stays, then its settings change, then it stays again.
    for (to, connector) in [(&b, plain), (&b, slower), (&a, slower)] {
        clients.more(40).await;
        assert_eq!(weir.take(&with(to, connector)).await, Outcome::Applied);
    }
    clients.more(40).await;
    let sent = clients.stop().await;
    let taken = sent.taken.lock().len();
    until("all of it is counted and delivered", || {
        let labels = |component| [("component", component), ("pipeline", "traces"), ("signal", "traces")];
        ["otlp_http", "span_metrics"].into_iter().all(|component| {
            weir.number("weir_consumer_delivered_items", &labels(component)).is_some_and(|count| count >= taken as f64)
        })
    })
    .await;
    assert_eq!(calls(page).await as usize, taken, "counters go on over a reload");
    weir.stop().await;
    each_once(&sent, &all(&[&a, &b]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_counters_go_on_in_memory() {
    counts_on(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_counters_go_on_on_disk() {
    counts_on(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_nobody_writes_does_not_keep_weir_from_stopping() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("weir.yaml");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let a = Backend::start().await;
    let exporters = format!("otlp_http: {}", a.exporter());
    let mut weir =
        Weir::start(&file(free_port(), "", &exporters, "traces: {receivers: [otlp], exporters: [otlp_http]}"), false).await;
    let mut args = RunArgs::default();
    args.config = args.config.with(&[path.display().to_string()]);
    weir.reload.args = Box::leak(Box::new(args));
    let hurry = Shutdown::new();
    hurry.cancel();
    timeout(Duration::from_secs(30), weir.reload.reload(&mut weir.running, &hurry)).await.unwrap();
    weir.stop().await;
    // The thread that waits for a writer ends with the test.
    drop(std::fs::File::options().read(true).write(true).open(&path).unwrap());
}

#[test]
fn keys_that_need_a_restart_are_told_by_name() {
    let of = |more: &str| {
        let yaml = file(1, "", "nop: ", "traces: {receivers: [otlp], exporters: [nop]}");
        let inputs = [yaml, more.to_owned()].map(|text| Input::Text { name: "x".to_owned(), text });
        start::check(load(&inputs, &Machine)).map_err(|loaded| loaded.found).unwrap().file
    };
    let plain = of("");
    let fixed = Fixed { journal: plain.journal.clone(), directory: None, admin: plain.admin.clone(), telemetry: plain.telemetry };
    assert!(fixed.differs_in(&of("\n# nothing\n")).is_empty());
    assert_eq!(fixed.differs_in(&of("journal: {mode: buffered, max_size: 1GiB}\n")), ["journal::mode", "journal::max_size"]);
    assert_eq!(
        fixed.differs_in(&of("admin: {socket: off}\nservice: {telemetry: {logs: {level: error}}}\n")),
        ["admin", "service::telemetry"]
    );
    assert!(fixed.differs_in(&of("journal: {max_lag: 1GiB}\n")).is_empty(), "this one changes while it runs");
    let stored = "extensions: {file_storage: {directory: /tmp}}\nservice: {extensions: [file_storage]}\n";
    assert_eq!(fixed.differs_in(&of(stored)), ["file_storage::directory"]);
}
