//! What is taken, and how it arrives.

use super::*;

#[tokio::test]
async fn takes_all_signals_in_all_ways() {
    let rig = Setup::default().start().await;
    for wire in Wire::ALL {
        let mut client = rig.client(wire).await;
        client.send(wire.good()).await.assert_ok();
        let taken = rig.taken();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].signal, taken[0].items), (Signal::Traces, 2));
        let decoded = ExportTraceServiceRequest::decode(&*taken[0].payload).unwrap();
        assert_eq!(decoded, ExportTraceServiceRequest::decode(&*spans(2)).unwrap(), "{wire:?}");
        assert_eq!(taken[0].index.as_ref().unwrap().spans.len(), 2);
        for signal in [Signal::Metrics, Signal::Logs] {
            let body = if wire == Wire::Grpc { prefixed(0, &[]) } else { Vec::new() };
            client.send(wire.request(signal, body)).await.assert_ok();
        }
        // Nothing in them: nothing for the journal.
        assert!(rig.taken().is_empty());
    }
    assert!((rig.counted("otelcol_receiver_accepted_spans") - 6.0).abs() < 0.1);
    rig.stop().await;
}

#[tokio::test]
async fn either_port_takes_either_protocol() {
    let rig = Setup::default().start().await;
    let mut on_http = Client::h2(rig.address(Wire::Json)).await;
    on_http.send(Wire::Grpc.good()).await.assert_ok();
    let mut on_grpc = Client::h1(rig.address(Wire::Grpc)).await;
    on_grpc.send(Wire::Protobuf.good()).await.assert_ok();
    on_grpc.send(Wire::Json.good()).await.assert_ok();
    assert_eq!(rig.taken().len(), 3);
    rig.stop().await;
}

#[tokio::test]
async fn takes_http1_and_http2() {
    let rig = Setup::default().start().await;
    let mut one = Client::h1(rig.address(Wire::Json)).await;
    for wire in [Wire::Protobuf, Wire::Json] {
        for _ in 0..3 {
            let reply = one.send(wire.good()).await;
            reply.assert_ok();
            assert_eq!(reply.version, Version::HTTP_11);
            assert_eq!(reply.headers["content-type"], wire.content_type());
        }
    }
    assert_eq!(rig.taken().len(), 6);
    rig.stop().await;
}

#[tokio::test]
async fn a_message_in_one_frame_is_not_copied() {
    let rig = Setup::default().start().await;
    let mut client = rig.client(Wire::Grpc).await;
    let payload = spans(500);
    client.send(Wire::Grpc.request(Signal::Traces, prefixed(0, &payload))).await.assert_ok();
    assert_eq!(rig.taken()[0].payload, payload);
    rig.stop().await;
}

#[tokio::test]
async fn puts_torn_messages_together() {
    use h2::client;
    let rig = Setup::default().start().await;
    let stream = TcpStream::connect(rig.address(Wire::Grpc)).await.unwrap();
    let (sender, connection) = client::handshake(stream).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let (payload, head) = (spans(50), Wire::Grpc.good().map(|_| ()));
    let (answer, mut body) = sender.send_request(head, false).unwrap();
    let whole = prefixed(0, &payload);
    for piece in [&whole[..1], &whole[1..3], &whole[3..5], &whole[5..6], &whole[6..100], &whole[100..]] {
        body.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        tokio::task::yield_now().await;
    }
    body.send_data(Bytes::new(), true).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    while body.data().await.is_some() {}
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    assert_eq!(rig.taken()[0].payload, payload);
    drop(sender);
    rig.stop().await;
}

#[tokio::test]
async fn reads_every_compression() {
    use std::io::Write;
    let rig = Setup::default().start().await;
    let payload = spans(300);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&payload).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&payload).unwrap();
    let forms = [
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd::bulk::compress(&payload, 3).unwrap()),
        ("deflate", zlib.finish().unwrap()),
        ("snappy", snap::raw::Encoder::new().compress_vec(&payload).unwrap()),
        ("identity", payload.clone()),
    ];
    let (mut grpc, mut http) = (rig.client(Wire::Grpc).await, rig.client(Wire::Protobuf).await);
    for (name, body) in forms {
        let flag = u8::from(name != "identity");
        let mut request = Wire::Grpc.request(Signal::Traces, prefixed(flag, &body));
        request.headers_mut().insert("grpc-encoding", name.parse().unwrap());
        grpc.send(request).await.assert_ok();
        // A message that is not compressed may come all the same.
        let mut request = Wire::Grpc.request(Signal::Traces, prefixed(0, &payload));
        request.headers_mut().insert("grpc-encoding", name.parse().unwrap());
        grpc.send(request).await.assert_ok();
        let mut request = Wire::Protobuf.request(Signal::Traces, body);
        request.headers_mut().insert("content-encoding", name.parse().unwrap());
        http.send(request).await.assert_ok();
        let taken = rig.taken();
        assert_eq!(taken.len(), 3);
        assert!(taken.iter().all(|batch| batch.payload == payload), "{name}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn keeps_of_the_context_what_is_needed_and_nothing_else() {
    let yaml = "protocols: { grpc: { endpoint: '127.0.0.1:0', include_metadata: true }, http: { endpoint: '127.0.0.1:0' } }";
    let needs = ContextNeeds { peer: true, auth: false, metadata: ["x-tenant".to_owned()].into() };
    let rig = Setup { needs, ..Setup::yaml(yaml) }.start().await;
    for wire in Wire::ALL {
        let mut request = wire.good();
        request.headers_mut().append("x-tenant", "a".parse().unwrap());
        request.headers_mut().append("x-tenant", "b".parse().unwrap());
        request.headers_mut().insert("x-other", "c".parse().unwrap());
        rig.client(wire).await.send(request).await.assert_ok();
        let context = rig.taken()[0].context.clone();
        assert_eq!(context.peer.unwrap().to_string(), "127.0.0.1");
        // Only the port that hands metadata on does so.
        let expected = if wire == Wire::Grpc { vec![("x-tenant".into(), vec!["a".into(), "b".into()])] } else { vec![] };
        assert_eq!(context.metadata, expected);
    }
    rig.stop().await;
}

#[tokio::test]
async fn repairs_text_and_says_so() {
    let rig = Setup::default().start().await;
    let mut payload = spans(2);
    let at = payload.windows(6).position(|window| window == b"span 0").unwrap();
    payload[at] = 0xff;
    for wire in [Wire::Grpc, Wire::Protobuf] {
        let reply = rig.client(wire).await.send(wire.request(Signal::Traces, wire.body(&payload))).await;
        reply.assert_ok();
        let (rejected, message) = reply.rejected.unwrap();
        assert_eq!(rejected, 0);
        assert!(message.contains("UTF-8"), "{message}");
        let taken = rig.taken();
        let decoded = ExportTraceServiceRequest::decode(&*taken[0].payload).unwrap();
        assert_eq!(decoded.resource_spans[0].scope_spans[0].spans[0].name, "\u{fffd}pan 0");
        let index = taken[0].index.as_ref().unwrap();
        let (start, len) = (index.spans[1].name.0 as usize, index.spans[1].name.1 as usize);
        assert_eq!(&taken[0].payload[start..start + len], b"span 1");
    }
    assert!((rig.counted("weir_receiver_repaired_strings") - 2.0).abs() < 0.1);
    rig.stop().await;
}

#[tokio::test]
async fn refuses_what_is_no_text_where_the_file_asks_for_it() {
    let yaml = "{ strict_utf8: true, protocols: { http: { endpoint: '127.0.0.1:0' } } }";
    let rig = Setup::yaml(yaml).start().await;
    let mut payload = spans(1);
    let at = payload.windows(6).position(|window| window == b"span 0").unwrap();
    payload[at] = 0xff;
    let reply = rig.client(Wire::Protobuf).await.send(Wire::Protobuf.request(Signal::Traces, payload)).await;
    assert_eq!(reply.http, 400);
    assert!(reply.message.contains("UTF-8"), "{}", reply.message);
    rig.stop().await;
}

#[tokio::test]
async fn answers_health_checks_and_watches() {
    use crate::runtime::State;
    let rig = Setup::default().start().await;
    let mut client = rig.client(Wire::Grpc).await;
    let ask = |path: &str, service: &str| {
        let message = if service.is_empty() { Vec::new() } else { [&[0x0a, service.len() as u8], service.as_bytes()].concat() };
        Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .body(Full::from(prefixed(0, &message)))
            .unwrap()
    };
    let check = "/grpc.health.v1.Health/Check";
    assert_eq!(client.send_raw(ask(check, "")).await, (0, vec![0, 0, 0, 0, 2, 8, 2]));
    rig.health.set_whole(State::Ok);
    assert_eq!(client.send_raw(ask(check, "")).await, (0, vec![0, 0, 0, 0, 2, 8, 1]));
    assert_eq!(client.send_raw(ask(check, "traces/x")).await, (5, vec![]));
    rig.health.report(Some("traces/x"), &ComponentId::parse("debug").unwrap(), State::Ok);
    assert_eq!(client.send_raw(ask(check, "traces/x")).await, (0, vec![0, 0, 0, 0, 2, 8, 1]));
    let mut watch = client.open(ask("/grpc.health.v1.Health/Watch", "")).await.into_body();
    let first = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(*first, [0, 0, 0, 0, 2, 8, 1]);
    rig.health.set_whole(State::Stopping);
    let second = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(*second, [0, 0, 0, 0, 2, 8, 2]);
    drop(watch);
    rig.stop().await;
}

impl Client {
    pub(super) async fn open(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        match &mut self.sender {
            Sender::One(sender) => sender.send_request(request).await.unwrap(),
            Sender::Two(sender) => sender.send_request(request).await.unwrap(),
        }
    }

    /// `grpc-status` and the body as it came.
    async fn send_raw(&mut self, request: Request<Full<Bytes>>) -> (i32, Vec<u8>) {
        let (head, body) = self.open(request).await.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status")).unwrap();
        (status.to_str().unwrap().parse().unwrap(), collected.to_bytes().to_vec())
    }
}
