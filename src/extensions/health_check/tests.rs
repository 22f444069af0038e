//! Health over HTTP, in both forms, and over gRPC.

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};

use super::*;
use crate::{
    config::{Input, Machine, load},
    internal_telemetry::Telemetry,
    signal::ComponentId,
};

struct Running {
    addresses: Vec<SocketAddr>,
    health: Arc<Health>,
    _tasks: JoinSet<Result<(), crate::runtime::TaskError>>,
}

async fn start(yaml: &str) -> Running {
    let loaded = load(&[Input::Text { name: "test".to_owned(), text: yaml.to_owned() }], &Machine);
    let mut found = loaded.found;
    let mut config = Config::read(&loaded.node, &mut found);
    assert!(!found.has_errors(), "{found:?}");
    for settings in [config.plain.as_mut().map(|(s, _)| s), config.http.as_mut().map(|(s, _)| s)].into_iter().flatten() {
        settings.endpoint = "127.0.0.1:0".to_owned();
    }
    if let Some(settings) = &mut config.grpc {
        settings.endpoint = "127.0.0.1:0".to_owned();
    }
    let health = Arc::new(Health::default());
    let pages = Pages {
        health: health.clone(),
        clock: Clock::new(|| UnixNanos(1_700_000_000_000_000_000)),
        started: UnixNanos(0),
        include_permanent: config.component_health.include_permanent_errors,
        include_recoverable: config.component_health.include_recoverable_errors,
        recovery: config.component_health.recovery_duration.map_or(Duration::from_mins(5), |written| written.0),
    };
    let extension = HealthCheck {
        config,
        id: "health_check".to_owned(),
        extensions: Arc::default(),
        sockets: Arc::default(),
        pages: Arc::new(pages),
    };
    let (addresses, started) = extension.bind(&Shutdown::new()).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in started {
        tasks.spawn(task);
    }
    Running { addresses, health, _tasks: tasks }
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let answer = sender.send_request(Request::get(path).body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn is_unavailable_until_all_runs_and_again_when_it_stops() {
    let running = start("{}").await;
    let (status, body) = get(running.addresses[0], "/").await;
    assert_eq!((status, &json(&body)["status"]), (503, &"Server not available".into()));
    running.health.set_whole(State::Ok);
    let (status, body) = get(running.addresses[0], "/").await;
    assert_eq!((status, &json(&body)["status"]), (200, &"Server available".into()));
    // The clock stands still at :20; the process is well since a little before this question, not since it.
    let since = json(&body)["upSince"].as_str().unwrap().to_owned();
    assert!(since.as_str() > "2023-11-14T22:12" && since.as_str() < "2023-11-14T22:13:20Z", "{since}");
    running.health.set_whole(State::Stopping);
    assert_eq!(get(running.addresses[0], "/").await.0, 503);
    assert_eq!(get(running.addresses[0], "/other").await.0, 404);
    assert_eq!(get(running.addresses[0], "/ready").await.0, 503);
}

#[tokio::test]
async fn says_what_the_file_wants_said() {
    let running = start("{ path: /up, response_body: { healthy: fine, unhealthy: not now } }").await;
    assert_eq!(get(running.addresses[0], "/up").await, (503, "not now".to_owned()));
    running.health.set_whole(State::Ok);
    assert_eq!(get(running.addresses[0], "/up").await, (200, "fine".to_owned()));
}

#[tokio::test]
async fn the_newer_form_tells_pipelines_and_components_apart() {
    let running = start("{ http: {}, component_health: { include_recoverable_errors: true, recovery_duration: 1m } }").await;
    let (health, at) = (&running.health, running.addresses[0]);
    let id = |text| ComponentId::parse(text).unwrap();
    health.set_whole(State::Ok);
    health.report(Some("traces/x"), &id("otlp"), State::Ok);
    assert_eq!(get(at, "/status").await.0, 200);
    health.report(Some("traces/x"), &id("otlp/backend"), State::Recoverable("away".to_owned()));
    let (status, body) = get(at, "/status").await;
    assert_eq!((status, &json(&body)["status"], &json(&body)["error"]), (200, &"StatusRecoverableError".into(), &"away".into()));
    // Time stands still only while nothing is on its way over a socket.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(get(at, "/status").await.0, 500);
    assert_eq!(get(at, "/status?pipeline=traces/x").await.0, 500);
    assert_eq!(get(at, "/status?pipeline=logs").await.0, 404);
    let (_, body) = get(at, "/status?verbose").await;
    let part = json(&body)["components"]["pipeline:traces/x"]["components"]["otlp/backend"].clone();
    assert_eq!((&part["healthy"], &part["status"]), (&false.into(), &"StatusRecoverableError".into()));
    health.report(Some("traces/x"), &id("otlp/backend"), State::Permanent("refused".to_owned()));
    assert_eq!(get(at, "/status").await.0, 200);
    health.report(Some("traces/x"), &id("otlp/backend"), State::Fatal("gone".to_owned()));
    assert_eq!(get(at, "/status").await.0, 500);
}

#[tokio::test]
async fn answers_checks_over_grpc() {
    let running = start("{ grpc: {} }").await;
    running.health.set_whole(State::Ok);
    let stream = TcpStream::connect(running.addresses[0]).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::post(format!("http://localhost{CHECK}"))
        .header("content-type", "application/grpc")
        .body(Full::<Bytes>::from(&[0; 5][..]))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(*answer.to_bytes(), [0, 0, 0, 0, 2, 8, 1]);
}

#[test]
fn writes_durations_as_go_does() {
    for (duration, text) in [(500, "0.5s"), (62_000, "1m2s"), (3_723_500, "1h2m3.5s")] {
        assert_eq!(answer::go_text(Duration::from_millis(duration)), text);
    }
}

#[test]
fn the_file_is_read_by_the_row_of_the_table() {
    let row = crate::extensions::EXTENSIONS.iter().find(|row| row.naming.answers_to("healthcheckv2")).unwrap();
    let loaded = load(
        &[Input::Text { name: "test".to_owned(), text: "{ use_v2: true, http: { endpoint: x, nonsense: 1 } }".to_owned() }],
        &Machine,
    );
    let mut found = loaded.found;
    let ready = (row.read)(&loaded.node, &mut found);
    assert!(found.has_errors());
    let context = BuildContext {
        notes: crate::component::Notes::default(),
        claims: crate::component::Claims::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: ComponentId::parse("health_check").unwrap(),
        telemetry: Telemetry::default(),
        health: Arc::default(),
        extensions: Arc::default(),
        clock: Clock::system(),
    };
    assert!((ready.build)(context).is_ok());
}
