//! Every row of the table of statuses, provoked over sockets in all three ways.

use std::collections::HashSet;

use futures_util::future::{BoxFuture, ready};
use h2::client;

use super::*;
use crate::{
    component::AuthError,
    door::status::{Situation, TABLE},
};

/// Refuses, or lets in whoever says `yes`.
pub(super) struct Guard(pub(super) AuthError);

impl ServerAuth for Guard {
    fn authenticate<'a>(&'a self, headers: &'a HeaderMap) -> BoxFuture<'a, Result<Vec<(Box<str>, Box<str>)>, AuthError>> {
        let known = headers.get("authorization").is_some_and(|value| value == "yes");
        Box::pin(ready(if known { Ok(vec![("username".into(), "ada".into())]) } else { Err(self.0.clone()) }))
    }
}

struct GuardExtension(AuthError);

impl Extension for GuardExtension {
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        Some(Arc::new(Guard(self.0.clone())))
    }
}

pub(super) fn guarded(error: AuthError, more: &str) -> Setup {
    let yaml = format!(
        "protocols: {{ grpc: {{ endpoint: '127.0.0.1:0', auth: {{ authenticator: guard }} }}, \
         http: {{ endpoint: '127.0.0.1:0', auth: {{ authenticator: guard }} {more} }} }}"
    );
    let extensions = Extensions(vec![(ComponentId::parse("guard").unwrap(), Arc::new(GuardExtension(error)))]);
    Setup { extensions, ..Setup::yaml(&yaml) }
}

#[track_caller]
fn check(situation: Situation, wire: Wire, reply: &Reply) {
    let row = situation.row();
    assert_eq!(reply.code, row.grpc as i32, "{situation:?} {wire:?}: {reply:?}");
    assert_eq!(reply.http, if wire == Wire::Grpc { 200 } else { row.http.as_u16() }, "{situation:?} {wire:?}: {reply:?}");
    assert_eq!(reply.retry_info.is_some(), row.retry, "{situation:?} {wire:?}: {reply:?}");
    assert_eq!(reply.bad_request, row.bad_request, "{situation:?} {wire:?}: {reply:?}");
    if wire != Wire::Grpc {
        assert_eq!(reply.headers.contains_key("retry-after"), row.retry, "{situation:?} {wire:?}: {reply:?}");
        assert_eq!(reply.headers["content-type"], wire.content_type(), "an error is said in the request's encoding");
    }
    if reply.code != 0 {
        assert!(!reply.message.is_empty());
    }
}

/// Sends `request`, checks the row, and that the next good request on the same connection is served.
async fn provoke(rig: &Rig, wire: Wire, situation: Situation, request: Request<Full<Bytes>>) -> Reply {
    let mut client = rig.client(wire).await;
    let reply = client.send(request).await;
    check(situation, wire, &reply);
    *rig.journal.mode.lock() = Mode::Take;
    let mut good = wire.good();
    good.headers_mut().insert("authorization", "yes".parse().unwrap());
    client.send(good).await.assert_ok();
    reply
}

/// Which situations [`every_row_is_what_the_table_says`] and the tests below it provoke.
const PROVOKED: [Situation; 13] = [
    Situation::Full,
    Situation::Stopping,
    Situation::TooLarge,
    Situation::Malformed,
    Situation::NotTaken,
    Situation::Unauthenticated,
    Situation::Denied,
    Situation::Method,
    Situation::MediaType,
    Situation::Encoding,
    Situation::TooSlow,
    Situation::Deadline,
    Situation::SomeInvalid,
];

#[test]
fn no_row_is_forgotten() {
    let provoked: HashSet<_> = PROVOKED.into_iter().collect();
    for row in TABLE {
        assert_eq!(provoked.contains(&row.situation), row.later.is_none(), "{:?}", row.situation);
    }
}

#[tokio::test]
async fn no_room_in_the_journal() {
    let rig = Setup::default().start().await;
    for wire in Wire::ALL {
        *rig.journal.mode.lock() = Mode::Full;
        let reply = provoke(&rig, wire, Situation::Full, wire.good()).await;
        assert_eq!(reply.retry_info, Some(Duration::from_millis(1500)));
        if wire != Wire::Grpc {
            assert_eq!(reply.headers["retry-after"], "2", "whole seconds, not fewer");
        }
    }
    assert!((rig.counted("otelcol_receiver_refused_spans") - 6.0).abs() < 0.1);
    rig.stop().await;
}

#[tokio::test]
async fn no_room_in_memory() {
    let rig = Setup { budget: 100_000, ..Setup::default() }.start().await;
    for wire in Wire::ALL {
        let held = rig.budget.try_take(99_900).unwrap();
        let mut client = rig.client(wire).await;
        check(Situation::Full, wire, &client.send(wire.good()).await);
        drop(held);
        client.send(wire.good()).await.assert_ok();
        drop(rig.taken());
    }
    rig.stop().await;
}

#[tokio::test]
async fn too_large_before_and_after_decompression() {
    let yaml = "protocols: { grpc: { endpoint: '127.0.0.1:0', max_recv_msg_size_mib: 1 }, \
                http: { endpoint: '127.0.0.1:0', max_request_body_size: 1048576 } }";
    let rig = Setup::yaml(yaml).start().await;
    let large = vec![0; (1 << 20) + 1];
    let bomb = zstd::bulk::compress(&large, 3).unwrap();
    for wire in Wire::ALL {
        let body = if wire == Wire::Grpc { prefixed(0, &large) } else { large.clone() };
        provoke(&rig, wire, Situation::TooLarge, wire.request(Signal::Traces, body)).await;
        let (header, body) =
            if wire == Wire::Grpc { ("grpc-encoding", prefixed(1, &bomb)) } else { ("content-encoding", bomb.clone()) };
        let mut request = wire.request(Signal::Traces, body);
        request.headers_mut().insert(header, "zstd".parse().unwrap());
        provoke(&rig, wire, Situation::TooLarge, request).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn bytes_that_cannot_be_parsed() {
    let rig = Setup::default().start().await;
    for wire in Wire::ALL {
        let body = if wire == Wire::Grpc { prefixed(0, b"\x0a\xffgarbage") } else { b"\x0a\xffgarbage".to_vec() };
        let reply = provoke(&rig, wire, Situation::Malformed, wire.request(Signal::Traces, body)).await;
        let where_ = if wire == Wire::Json { "line" } else { "byte" };
        assert!(reply.message.contains(where_), "{wire:?}: {}", reply.message);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_signal_or_a_path_that_nobody_takes() {
    let rig = Setup { takes: [true, false, true], ..Setup::default() }.start().await;
    for wire in Wire::ALL {
        let reply = provoke(&rig, wire, Situation::NotTaken, wire.request(Signal::Metrics, Vec::new())).await;
        assert!(reply.message.contains("metrics"), "{}", reply.message);
        for path in ["/", "/v1/traces/v1/traces", "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"]
        {
            let mut request = wire.good();
            *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
            provoke(&rig, wire, Situation::NotTaken, request).await;
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn no_credentials_and_not_enough_of_them() {
    for (error, situation) in [
        (AuthError::Unauthenticated("who are you".to_owned()), Situation::Unauthenticated),
        (AuthError::Denied("not you".to_owned()), Situation::Denied),
        (AuthError::Unavailable("ask later".to_owned()), Situation::Full),
    ] {
        let rig = guarded(error, "").start().await;
        for wire in Wire::ALL {
            let reply = provoke(&rig, wire, situation, wire.good()).await;
            if wire != Wire::Grpc {
                assert_eq!(reply.headers.contains_key("www-authenticate"), situation == Situation::Unauthenticated);
            }
            // Behind the same check: what is not there, and what is not allowed.
            let mut request = wire.good();
            *request.method_mut() = Method::PUT;
            assert_ne!(rig.client(wire).await.send(request).await.code, 0);
        }
        assert_eq!(rig.taken().len(), 3);
        rig.stop().await;
    }
}

#[tokio::test]
async fn not_a_post() {
    let rig = Setup::default().start().await;
    for wire in Wire::ALL {
        let mut request = wire.good();
        *request.method_mut() = Method::PUT;
        let reply = provoke(&rig, wire, Situation::Method, request).await;
        if wire != Wire::Grpc {
            assert_eq!(reply.headers["allow"], "POST");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn another_media_type() {
    let rig = Setup::default().start().await;
    for (wire, written) in [(Wire::Grpc, "application/grpc+json"), (Wire::Json, "text/plain"), (Wire::Json, "")] {
        let mut request = wire.good();
        request.headers_mut().insert("content-type", written.parse().unwrap());
        provoke(&rig, wire, Situation::MediaType, request).await;
    }
    for written in ["application/json; charset=utf-8", "Application/JSON"] {
        let mut request = Wire::Json.good();
        request.headers_mut().insert("content-type", written.parse().unwrap());
        rig.client(Wire::Json).await.send(request).await.assert_ok();
    }
    rig.stop().await;
}

#[tokio::test]
async fn another_encoding() {
    let rig = Setup::default().start().await;
    for wire in Wire::ALL {
        let header = if wire == Wire::Grpc { "grpc-encoding" } else { "content-encoding" };
        for written in ["br", "gzip, zstd", "gzip,gzip"] {
            let mut request = wire.good();
            request.headers_mut().insert(header, written.parse().unwrap());
            let reply = provoke(&rig, wire, Situation::Encoding, request).await;
            if wire == Wire::Grpc {
                assert!(reply.headers["grpc-accept-encoding"].to_str().unwrap().contains("gzip"));
            }
        }
        let mut request = wire.good();
        request.headers_mut().append(header, "gzip".parse().unwrap());
        request.headers_mut().append(header, "gzip".parse().unwrap());
        provoke(&rig, wire, Situation::Encoding, request).await;
    }
    rig.stop().await;
}

/// Sends the head of a request and `piece` of its body, then nothing.
async fn half(
    rig: &Rig,
    wire: Wire,
    piece: &[u8],
) -> (client::ResponseFuture, h2::SendStream<Bytes>, JoinSet<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(rig.address(wire)).await.unwrap();
    let (sender, connection) = client::handshake(stream).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    // The connection is known to the server before anything is waited for.
    let (answer, mut body) = sender.send_request(wire.good().map(|_| ()), false).unwrap();
    body.send_data(wire.body(&spans(2)).into(), true).unwrap();
    read_h2(answer.await.unwrap()).await;
    let mut sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(wire.good().map(|_| ()), false).unwrap();
    body.send_data(Bytes::copy_from_slice(piece), false).unwrap();
    (answer, body, tasks)
}

async fn read_h2(answer: Response<h2::RecvStream>) -> (HeaderMap, u16) {
    let (head, mut body) = answer.into_parts();
    while body.data().await.is_some() {}
    (head.headers, head.status.as_u16())
}

#[tokio::test]
async fn a_body_that_stops_coming() {
    let rig = Setup::default().start().await;
    for wire in Wire::ALL {
        let (answer, body, tasks) = half(&rig, wire, &[0, 0, 0, 1, 0, 7]).await;
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        let (headers, status) = read_h2(answer.await.unwrap()).await;
        tokio::time::resume();
        let row = Situation::TooSlow.row();
        if wire == Wire::Grpc {
            assert_eq!((status, &headers["grpc-status"]), (200, &(row.grpc as i32).into()));
        } else {
            assert_eq!(status, row.http.as_u16());
            assert!(headers.contains_key("retry-after"));
        }
        // Paused time may jump to the next ping (30 s) while the piece is still on its way.
        assert!(begun.elapsed() <= Duration::from_secs(45), "{:?}", begun.elapsed());
        drop((body, tasks));
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_comes_while_weir_stops() {
    for wire in Wire::ALL {
        let rig = Setup::default().start().await;
        let stream = TcpStream::connect(rig.address(wire)).await.unwrap();
        let (sender, connection) = client::handshake(stream).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        // The connection is known to the server before it stops.
        let (answer, mut body) = sender.send_request(wire.good().map(|_| ()), false).unwrap();
        body.send_data(wire.body(&spans(2)).into(), true).unwrap();
        read_h2(answer.await.unwrap()).await;
        let mut sender = sender.ready().await.unwrap();
        rig.shutdown.cancel();
        let (answer, mut body) = sender.send_request(wire.good().map(|_| ()), false).unwrap();
        body.send_data(wire.body(&spans(2)).into(), true).unwrap();
        let (headers, status) = read_h2(answer.await.unwrap()).await;
        let row = Situation::Stopping.row();
        if wire == Wire::Grpc {
            assert_eq!((status, &headers["grpc-status"]), (200, &(row.grpc as i32).into()));
            assert!(headers.contains_key("grpc-status-details-bin"));
        } else {
            assert_eq!(status, row.http.as_u16());
            assert!(headers.contains_key("retry-after"));
        }
        drop((sender, body));
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_deadline_of_a_call() {
    let rig = Setup::default().start().await;
    *rig.journal.mode.lock() = Mode::Hang;
    let mut request = Wire::Grpc.good();
    request.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    provoke(&rig, Wire::Grpc, Situation::Deadline, request).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_is_in_is_answered_ok_although_the_pace_outlasts_the_call() {
    let rig = Setup::default().start().await;
    *rig.journal.mode.lock() = Mode::Paced;
    let mut request = Wire::Grpc.good();
    request.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    rig.client(Wire::Grpc).await.send(request).await.assert_ok();
    // Who goes away while the answer is held back was counted all the same.
    let mut client = rig.client(Wire::Protobuf).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), client.send(Wire::Protobuf.good())).await.is_err());
    drop(client);
    assert_eq!(rig.taken().len(), 2);
    assert!((rig.counted("otelcol_receiver_accepted_spans") - 4.0).abs() < 0.1);
    rig.stop().await;
}

#[tokio::test]
async fn invalid_items_are_left_out_and_counted() {
    let rig = Setup::default().start().await;
    let payload = request_of(vec![span(&[1; 16], "good"), span(&[1; 3], "bad"), span(&[], "none")]).encode_to_vec();
    for wire in Wire::ALL {
        let reply = provoke(&rig, wire, Situation::SomeInvalid, wire.request(Signal::Traces, wire.body(&payload))).await;
        let (rejected, message) = reply.rejected.unwrap();
        assert_eq!(rejected, 2);
        assert!(message.contains("trace_id has 3 bytes"), "{message}");
        let taken = rig.taken();
        assert_eq!(taken[0].items, 1);
        let decoded = ExportTraceServiceRequest::decode(&*taken[0].payload).unwrap();
        assert_eq!(decoded.resource_spans[0].scope_spans[0].spans[0].name, "good");
    }
    assert!((rig.counted("otelcol_receiver_refused_spans") - 6.0).abs() < 0.1);
    rig.stop().await;
}
