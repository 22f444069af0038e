//! The port: paths, answers, compression, and what a sender is told.

use std::{io::Write as _, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{net::TcpStream, task::JoinSet};

use super::*;
use crate::{
    component::{Extensions, ReceiverConfig as _},
    config::Diagnostics,
    door::{Accepted, Arrival, Budget, Inlet, Pace, Refusal},
    receivers::zipkin::Config,
    runtime::{Shutdown, Step},
    signal::{ContextNeeds, Signal},
    transport::client::testing::{build_context, node},
};

/// A door that keeps what comes.
struct Kept {
    taken: Mutex<Vec<(Bytes, &'static str)>>,
    refused: Mutex<Vec<String>>,
    budget: Arc<Budget>,
    is_full: bool,
}

impl Inlet for Kept {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Traces
    }
    fn accept(&self, arrival: Arrival) -> Step<'_, Result<Accepted, Refusal>> {
        if self.is_full {
            return Step::Ready(Err(Refusal::Full {
                reason: "no room".to_owned(),
                retry_after: std::time::Duration::from_secs(2),
            }));
        }
        self.taken.lock().push((arrival.payload, arrival.transport));
        Step::Ready(Ok(Accepted { items: 1, rejected: 0, message: None, pace: Pace::NONE }))
    }
    fn refused(&self, _signal: Signal, refusal: &Refusal, _peer: Option<SocketAddr>, _transport: &'static str) {
        self.refused.lock().push(refusal.to_string());
    }
    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
    fn needs(&self) -> Arc<ContextNeeds> {
        Arc::default()
    }
}

struct Rig {
    address: SocketAddr,
    kept: Arc<Kept>,
    _tasks: JoinSet<()>,
}

async fn rig(more: &str, is_full: bool) -> Rig {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(&format!("endpoint: 127.0.0.1:0\n{more}")), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    let context = build_context(Extensions::default());
    let gate = crate::transport::server::Gate::of_http(&config.server, &context.extensions).unwrap();
    let bound =
        crate::transport::server::Bound::bind(&config.server, "receivers::zipkin::endpoint", &context.sockets).await.unwrap();
    let kept = Arc::new(Kept { taken: Mutex::default(), refused: Mutex::default(), budget: Budget::new(64 << 20), is_full });
    let address = bound.addresses()[0];
    let port = super::super::handler::Port::new(&config.server, gate, config.own.parse_string_tags, "zipkin", kept.clone());
    let mut tasks = JoinSet::new();
    let serving = bound.serve_with(Arc::new(port), Shutdown::new());
    tasks.spawn(async move { serving.await.unwrap() });
    Rig { address, kept, _tasks: tasks }
}

impl Rig {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String, Response<()>) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            connection.await.unwrap();
        });
        let mut request = Request::builder().method(method).uri(path).header("host", "weir");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer: Response<Incoming> = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (head.status.as_u16(), text, Response::from_parts(head, ()))
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn spans_are_taken_in_every_form_and_answered_202() {
    let rig = rig("", false).await;
    let json = json!([whole()]).to_string().into_bytes();
    let old = json!([{"traceId": "1", "id": "2", "timestamp": 1}]).to_string().into_bytes();
    let cases: [(&str, &[(&str, &str)], Vec<u8>); 6] = [
        ("/api/v2/spans", &[("content-type", "application/json")], json.clone()),
        ("/api/v2/spans", &[], json.clone()),
        (
            "/zipkin/api/v2/spans",
            &[("content-type", "application/json; charset=utf-8"), ("content-encoding", "gzip")],
            gzip(&json),
        ),
        ("/api/v2/spans", &[("content-type", "application/x-protobuf")], in_protobuf()),
        ("/api/v1/spans", &[("content-type", "application/json")], old),
        ("/api/v2/spans", &[], b"[]".to_vec()),
    ];
    for (path, headers, body) in cases {
        let (status, said, _) = rig.ask("POST", path, headers, body).await;
        assert_eq!((status, said.as_str()), (202, ""), "{path} {headers:?}");
    }
    let taken = rig.kept.taken.lock();
    let transports: Vec<&str> = taken.iter().map(|(_, transport)| *transport).collect();
    assert_eq!(transports, ["http_v2_json", "http_v2_json", "http_v2_json", "http_v2_proto", "http_v1_json", "http_v2_json"]);
    assert_eq!(taken[0].0, taken[2].0);
    assert!(ExportTraceServiceRequest::decode(taken[3].0.clone()).is_ok_and(|it| only(&it).name == "get /api"));
}

#[tokio::test]
async fn what_cannot_be_taken_says_why() {
    let rig = rig("max_request_body_size: 2000", false).await;
    let big = json!([{"traceId": "1", "id": "2", "name": "x".repeat(3000)}]).to_string().into_bytes();
    let cases: [(&str, &str, &[(&str, &str)], Vec<u8>, u16, &str); 8] = [
        ("POST", "/api/v3/spans", &[], b"[]".to_vec(), 404, "/api/v2/spans"),
        ("GET", "/api/v2/spans", &[], Vec::new(), 405, "not POST"),
        ("POST", "/api/v2/spans", &[], b"nonsense".to_vec(), 400, "expected"),
        ("POST", "/api/v2/spans", &[("content-type", "application/x-thrift")], b"x".to_vec(), 415, "Thrift"),
        ("POST", "/api/v1/spans", &[("content-type", "application/x-protobuf")], b"x".to_vec(), 415, "version 1"),
        ("POST", "/api/v2/spans", &[("content-encoding", "br")], b"[]".to_vec(), 415, "br"),
        ("POST", "/api/v2/spans", &[], big.clone(), 413, "more than the limit"),
        ("POST", "/api/v2/spans", &[("content-encoding", "gzip")], gzip(&big), 413, ""),
    ];
    for (method, path, headers, body, expected, words) in cases {
        let (status, said, _) = rig.ask(method, path, headers, body).await;
        assert!(status == expected && said.contains(words), "{method} {path} {headers:?}: {status} {said}");
    }
    assert!(rig.kept.taken.lock().is_empty());
    assert_eq!(rig.kept.refused.lock().len(), 3, "{:?}", rig.kept.refused.lock());
}

#[tokio::test]
async fn a_full_journal_is_a_503_with_a_hint() {
    let rig = rig("", true).await;
    let (status, said, answer) = rig.ask("POST", "/api/v2/spans", &[], json!([whole()]).to_string().into_bytes()).await;
    assert_eq!((status, answer.headers()["retry-after"].to_str().unwrap()), (503, "2"), "{said}");
}

#[test]
fn a_file_for_the_collector_loads() {
    let mut found = Diagnostics::default();
    let config =
        Config::read(&node("endpoint: localhost:9411\nparse_string_tags: true\ncors: {allowed_origins: ['*']}"), &mut found);
    assert!(found.found.is_empty() && config.own.parse_string_tags, "{found:?}");
    let mut found = Diagnostics::default();
    assert_eq!(Config::read(&node("{}"), &mut found).server.endpoint, "localhost:9411");
    let mut found = Diagnostics::default();
    Config::read(&node("parse_string_tag: true"), &mut found);
    assert!(found.has_errors());
}
