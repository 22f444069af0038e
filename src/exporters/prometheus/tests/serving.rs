//! Over a socket.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::*;
use crate::{
    component::{BuildContext, Exporter, ExporterConfig, Extensions, Outcome, Request},
    config::{Diagnostics, Node, Origin, Value as ConfigValue},
    exporters::prometheus::Config,
    exposition::{Family, LabelBlock, Page},
    runtime::{Clock, Health, Shutdown},
    signal::{Batch, ComponentId, Context, Signal, UnixNanos},
};

fn node(value: ConfigValue) -> Node {
    Node { value, origin: Origin::default(), text: None }
}

fn settings(pairs: &[(&str, ConfigValue)]) -> Node {
    node(ConfigValue::Map(
        pairs.iter().map(|(key, value)| (node(ConfigValue::String((*key).into())), node(value.clone()))).collect(),
    ))
}

struct Running {
    exporter: Arc<dyn Exporter>,
    address: SocketAddr,
    shutdown: Shutdown,
    tasks: JoinSet<()>,
}

/// Starts an exporter on a port of its own.
async fn start(pairs: &[(&str, ConfigValue)]) -> Running {
    let mut found = Diagnostics::default();
    // A port that was free a moment ago: the exporter does not tell which one it got for port 0.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut pairs = pairs.to_vec();
    pairs.push(("endpoint", ConfigValue::String(address.to_string().into())));
    let config = Config::read(&settings(&pairs), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    let context = BuildContext {
        notes: crate::component::Notes::default(),
        claims: crate::component::Claims::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: ComponentId::parse("prometheus/test").unwrap(),
        telemetry: Telemetry::default(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: Clock::new(|| UnixNanos(START)),
    };
    let exporter = config.build(context).unwrap();
    let shutdown = Shutdown::new();
    let task = exporter.start(shutdown.clone()).await.unwrap().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { task.await.unwrap() });
    Running { exporter, address, shutdown, tasks }
}

impl Running {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (http::response::Parts, Bytes) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { connection.await.ok() });
        let mut request = http::Request::get(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, body) = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap().into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn batch(request: &Value) -> Request {
    let context = Arc::new(Context { peer: Some("192.0.2.7".parse().unwrap()), ..Context::default() });
    Request::of(Batch { signal: Signal::Metrics, payload: payload(request).into(), items: 1, context, index: None })
}

/// A connector's rows.
struct Rows;

impl PageSource for Rows {
    fn families(&self) -> Vec<Family> {
        vec![Family { name: "calls_total".into(), kind: FamilyKind::Counter, help: "Calls.".into(), unit: "".into() }]
    }

    fn render(&self, _number: usize, page: &mut Page<'_>) {
        page.number(&LabelBlock::new([("service", "cart")]), 3.0, 0, None, None);
    }
}

#[tokio::test]
async fn serves_metrics_and_rows_of_connectors_on_one_page() {
    let running = start(&[("enable_open_metrics", ConfigValue::Bool(true))]).await;
    running.exporter.show_pages(vec![Arc::new(Rows)]);
    let metrics = json!([gauge("g", json!([point(1.5, 0, 1)]))]);
    assert_eq!(running.exporter.export(batch(&request_of(&[("service.name", "a")], metrics))).await, Outcome::DELIVERED);
    let (parts, body) = running.get("/metrics", &[]).await;
    assert_eq!(parts.status, 200);
    assert_eq!(parts.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    let page = reader::read(str::from_utf8(&body).unwrap(), false);
    assert_eq!(page.value("calls_total", &[("service", "cart")]), 3.0);
    let gauge = page.lines.iter().find(|line| line.name == "g").unwrap();
    assert_eq!(gauge.labels["instance"], "192.0.2.7", "the sender's address tells replicas apart");
    let (parts, body) = running.get("/metrics", &[("accept", "application/openmetrics-text;version=1.0.0")]).await;
    assert_eq!(parts.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores");
    assert!(body.ends_with(b"# EOF\n"));
    running.stop().await;
}

#[tokio::test]
async fn a_page_that_would_go_back_is_refused() {
    let running = start(&[]).await;
    let state = running.exporter.state().unwrap();
    state.replaying(true);
    let metrics = json!([gauge("g", json!([point(1.5, 0, 1)]))]);
    running.exporter.export(batch(&request_of(&[("service.name", "a")], metrics))).await;
    let (parts, body) = running.get("/metrics", &[]).await;
    assert_eq!((parts.status.as_u16(), parts.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert!(body.starts_with(b"the metrics of before the start"));
    assert_eq!(running.get("/", &[]).await.0.status, 200);
    state.replaying(false);
    assert_eq!(running.get("/metrics", &[]).await.0.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn open_metrics_is_off_unless_asked_for() {
    let running = start(&[]).await;
    let (parts, _) = running.get("/metrics", &[("accept", "application/openmetrics-text;version=1.0.0")]).await;
    assert_eq!(parts.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    running.stop().await;
}

#[tokio::test]
async fn says_where_the_page_is() {
    let running = start(&[]).await;
    let (parts, body) = running.get("/", &[]).await;
    assert_eq!(parts.status, 200);
    assert!(str::from_utf8(&body).unwrap().contains("/metrics"));
    assert_eq!(running.get("/elsewhere", &[]).await.0.status, 404);
    running.stop().await;
}

#[test]
fn an_endpoint_is_needed_and_unknown_keys_are_refused() {
    let mut found = Diagnostics::default();
    Config::read(&Node::null(), &mut found);
    assert!(found.has_errors());
    let mut found = Diagnostics::default();
    let endpoint = ("endpoint", ConfigValue::String("localhost:0".into()));
    let config =
        Config::read(&settings(&[endpoint.clone(), ("metric_expiration", ConfigValue::String("1h".into()))]), &mut found);
    assert_eq!(found.found, []);
    assert_eq!(config.settings.metric_expiration.0.as_secs(), 3600);
    assert!(config.needs().peer);
    let mut found = Diagnostics::default();
    Config::read(&settings(&[endpoint, ("metric_expiry", ConfigValue::String("1h".into()))]), &mut found);
    assert!(found.has_errors());
}
