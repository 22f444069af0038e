//! The receiver over real sockets: a real door behind it, a journal that the test holds in its hand.

mod hostile;
mod pages;
mod table;
mod taking;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{net::TcpStream, task::JoinSet};

use super::*;
use crate::{
    component::{Extension, Extensions, ServerAuth},
    config::{Input, Machine, load},
    door::{self, Append, Budget, Door, Pace, Refusal},
    internal_telemetry::Telemetry,
    journal::{NewRecord, SourceId},
    otlp::{ScanLimits, json, response},
    runtime::{Clock, Health, Step, TaskError},
    signal::{Batch, ComponentId, ContextNeeds, UnixNanos},
};

/// What the journal does with the next append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Take,
    Full,
    /// Never says that it is done.
    Hang,
    /// Takes it, and holds the answer back for ever.
    Paced,
}

pub(super) struct Journal {
    pub(super) mode: Mutex<Mode>,
    pub(super) taken: Mutex<Vec<Batch>>,
}

impl Append for Journal {
    fn append(&self, record: NewRecord) -> Step<'static, Result<Pace, Refusal>> {
        match *self.mode.lock() {
            Mode::Take => {
                self.taken.lock().push(record.batch);
                Step::Ready(Ok(Pace::NONE))
            }
            Mode::Paced => {
                self.taken.lock().push(record.batch);
                Step::Ready(Ok(Pace::until(std::future::pending().boxed())))
            }
            Mode::Full => {
                let refusal = Refusal::Full { reason: "no room".to_owned(), retry_after: Duration::from_millis(1500) };
                Step::Wait(async move { Err(refusal) }.boxed())
            }
            Mode::Hang => Step::Wait(std::future::pending().boxed()),
        }
    }
}

/// How a receiver is set up for a test.
pub(super) struct Setup {
    pub(super) yaml: String,
    pub(super) extensions: Extensions,
    pub(super) takes: [bool; 3],
    pub(super) needs: ContextNeeds,
    pub(super) budget: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self::yaml("protocols: { grpc: { endpoint: '127.0.0.1:0' }, http: { endpoint: '127.0.0.1:0' } }")
    }
}

impl Setup {
    pub(super) fn yaml(text: &str) -> Self {
        Self {
            yaml: text.to_owned(),
            extensions: Extensions::default(),
            takes: [true; 3],
            needs: ContextNeeds::default(),
            budget: 256 << 20,
        }
    }

    pub(super) async fn start(self) -> Rig {
        let loaded = load(&[Input::Text { name: "test".to_owned(), text: self.yaml }], &Machine);
        let mut found = loaded.found;
        let config = Config::read(&loaded.node, &mut found);
        assert!(!found.has_errors(), "{found:?}");
        let telemetry = Telemetry::default();
        let health = Arc::new(Health::default());
        let context = BuildContext {
            notes: crate::component::Notes::default(),
            claims: crate::component::Claims::default(),
            sockets: Arc::default(),
            is_reload: false,
            id: ComponentId::parse("otlp").unwrap(),
            telemetry: telemetry.clone(),
            health: health.clone(),
            extensions: Arc::new(self.extensions),
            clock: Clock::new(|| UnixNanos(1)),
        };
        let gates = (
            config.grpc.as_ref().map(|settings| Gate::of_grpc(settings, &context.extensions).unwrap()),
            config.http.as_ref().map(|(settings, _)| Gate::of_http(settings, &context.extensions).unwrap()),
        );
        let journal = Arc::new(Journal { mode: Mutex::new(Mode::Take), taken: Mutex::default() });
        let budget = Budget::new(self.budget);
        let settings = door::Settings { id: context.id.clone(), source: SourceId(0), limits: ScanLimits::default() };
        let behind = door::Behind { takes: self.takes, needs: Arc::new(self.needs), wants_index: true, append: journal.clone() };
        let door = Arc::new(Door::new(settings, behind, budget.clone(), context.clock.clone(), &telemetry));
        let shutdown = Shutdown::new();
        let ports = Otlp { config, gates, context }.bind(door, shutdown.clone()).await.unwrap();
        let (mut addresses, mut tasks) = (Vec::new(), JoinSet::new());
        for (bound, port) in ports {
            addresses.push(bound.addresses()[0]);
            tasks.spawn(bound.serve_with(Arc::new(port), shutdown.clone()));
        }
        Rig { addresses, journal, budget, health, telemetry, shutdown, tasks }
    }
}

/// A receiver that runs.
pub(super) struct Rig {
    /// Of gRPC, then of HTTP.
    addresses: Vec<SocketAddr>,
    pub(super) journal: Arc<Journal>,
    pub(super) budget: Arc<Budget>,
    pub(super) health: Arc<Health>,
    pub(super) telemetry: Telemetry,
    pub(super) shutdown: Shutdown,
    tasks: JoinSet<Result<(), TaskError>>,
}

impl Rig {
    pub(super) fn address(&self, wire: Wire) -> SocketAddr {
        match wire {
            Wire::Grpc => self.addresses[0],
            _ => *self.addresses.last().unwrap(),
        }
    }

    pub(super) async fn client(&self, wire: Wire) -> Client {
        Client::h2(self.address(wire)).await
    }

    pub(super) fn taken(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.journal.taken.lock())
    }

    /// The value of a counter of our own, all label sets added.
    pub(super) fn counted(&self, name: &str) -> f64 {
        let families = self.telemetry.registry().gather();
        families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .map(|m| m.get_counter().get_value())
            .sum()
    }

    pub(super) async fn stop(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        // What the connections held is given back with them.
        drop(self.taken());
        assert_eq!(self.budget.used(), 0, "bytes of the budget were not given back");
    }
}

/// The three ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Grpc,
    Protobuf,
    Json,
}

impl Wire {
    pub(super) const ALL: [Self; 3] = [Self::Grpc, Self::Protobuf, Self::Json];

    pub(super) fn path(self, signal: Signal) -> &'static str {
        match (self, signal) {
            (Self::Grpc, Signal::Traces) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            (Self::Grpc, Signal::Metrics) => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            (Self::Grpc, Signal::Logs) => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            (_, Signal::Traces) => "/v1/traces",
            (_, Signal::Metrics) => "/v1/metrics",
            (_, Signal::Logs) => "/v1/logs",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// A protobuf request as this way wants it.
    pub(super) fn body(self, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Grpc => prefixed(0, payload),
            Self::Protobuf => payload.to_vec(),
            Self::Json => {
                let mut out = Vec::new();
                json::encode(Signal::Traces, payload, &mut out).unwrap();
                out
            }
        }
    }

    /// A request of this way, ready to be changed.
    pub(super) fn request(self, signal: Signal, body: Vec<u8>) -> Request<Full<Bytes>> {
        Request::post(format!("http://localhost{}", self.path(signal)))
            .header("content-type", self.content_type())
            .body(Full::from(body))
            .unwrap()
    }

    /// A request that is fine.
    pub(super) fn good(self) -> Request<Full<Bytes>> {
        self.request(Signal::Traces, self.body(&spans(2)))
    }
}

pub(super) fn prefixed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub(super) fn span(trace_id: &[u8], name: &str) -> Span {
    Span { trace_id: trace_id.to_vec(), span_id: vec![2; 8], name: name.to_owned(), ..Span::default() }
}

pub(super) fn request_of(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let service = AnyValue { value: Some(any_value::Value::StringValue("cart".to_owned())) };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![KeyValue { key: "service.name".to_owned(), value: Some(service), ..KeyValue::default() }],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

/// A good request of `count` spans.
pub(super) fn spans(count: usize) -> Vec<u8> {
    request_of((0..count).map(|number| span(&[1; 16], &format!("span {number}"))).collect()).encode_to_vec()
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// One connection.
pub(super) struct Client {
    sender: Sender,
    _tasks: JoinSet<hyper::Result<()>>,
}

impl Client {
    pub(super) async fn h2(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Self { sender: Sender::Two(sender), _tasks: tasks }
    }

    pub(super) async fn h1(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Self { sender: Sender::One(sender), _tasks: tasks }
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Reply {
        let answer = match &mut self.sender {
            Sender::One(sender) => {
                let (mut head, body) = request.into_parts();
                head.headers.insert("host", "localhost".parse().unwrap());
                head.uri = head.uri.path().parse().unwrap();
                sender.send_request(Request::from_parts(head, body)).await.unwrap()
            }
            Sender::Two(sender) => sender.send_request(request).await.unwrap(),
        };
        Reply::read(answer).await
    }
}

/// What came back, read by independent decoders.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) http: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) version: Version,
    /// `grpc-status`, or the code of the `google.rpc.Status` in the body; 0 for a success.
    pub(super) code: i32,
    pub(super) message: String,
    /// In `RetryInfo`.
    pub(super) retry_info: Option<Duration>,
    /// Whether details hold a `BadRequest`.
    pub(super) bad_request: bool,
    /// `partial_success`, decoded by prost.
    pub(super) rejected: Option<(i64, String)>,
}

impl Reply {
    pub(super) async fn read(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        let media = head.headers["content-type"].to_str().unwrap().to_owned();
        let mut reply = Self {
            http: head.status.as_u16(),
            headers: head.headers,
            body,
            version: head.version,
            code: 0,
            message: String::new(),
            retry_info: None,
            bad_request: false,
            rejected: None,
        };
        let status_in = |details: &[u8]| (response::decode_status(details), contains(details, b"google.rpc.BadRequest"));
        let success = |message: &[u8]| {
            use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
            let answer = ExportTraceServiceResponse::decode(message).unwrap();
            answer.partial_success.map(|partial| (partial.rejected_spans, partial.error_message))
        };
        match media.as_str() {
            "application/grpc" => {
                let status = if trailers.contains_key("grpc-status") { &trailers } else { &reply.headers };
                reply.code = status["grpc-status"].to_str().unwrap().parse().unwrap();
                reply.message = status.get("grpc-message").map(|text| text.to_str().unwrap().to_owned()).unwrap_or_default();
                if let Some(details) = status.get("grpc-status-details-bin") {
                    let details = STANDARD_NO_PAD.decode(details.as_bytes()).unwrap();
                    let (status, bad_request) = status_in(&details);
                    assert_eq!(status.code, reply.code);
                    (reply.retry_info, reply.bad_request) = (status.retry_after, bad_request);
                }
                if reply.code == 0 {
                    let message = &reply.body[5..];
                    assert_eq!(reply.body[..5], prefixed(0, message)[..5]);
                    reply.rejected = success(message);
                }
            }
            "application/x-protobuf" if reply.http == 200 => reply.rejected = success(&reply.body),
            "application/x-protobuf" => {
                let (status, bad_request) = status_in(&reply.body);
                (reply.code, reply.message, reply.retry_info, reply.bad_request) =
                    (status.code, status.message, status.retry_after, bad_request);
            }
            "application/json" => {
                let value: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
                if reply.http == 200 {
                    let partial = &value["partialSuccess"];
                    let count = &partial["rejectedSpans"];
                    let count = count.as_i64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0);
                    let message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
                    reply.rejected = partial.is_object().then_some((count, message));
                } else {
                    let status = json::decode_status(&reply.body);
                    (reply.code, reply.message, reply.retry_info) = (status.code, status.message, status.retry_after);
                    reply.bad_request = contains(&reply.body, b"google.rpc.BadRequest");
                }
            }
            other => panic!("an answer of the type {other}"),
        }
        reply
    }

    #[track_caller]
    pub(super) fn assert_ok(&self) {
        assert_eq!((self.http, self.code), (200, 0), "{self:?}");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
