//! Bad input: the right status, a message that says what and where, and the next good request on the same connection served.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Sends what is to be refused, then something good on the same connection.
async fn refused(rig: &Rig, wire: Wire, request: Request<Full<Bytes>>, http: u16, code: i32) -> Reply {
    let mut client = rig.client(wire).await;
    let reply = client.send(request).await;
    let expected = (if wire == Wire::Grpc { 200 } else { http }, code);
    assert_eq!((reply.http, reply.code), expected, "{wire:?}: {reply:?}");
    client.send(wire.good()).await.assert_ok();
    drop(rig.taken());
    reply
}

fn compressed(wire: Wire, encoding: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let (header, body) =
        if wire == Wire::Grpc { ("grpc-encoding", prefixed(1, body)) } else { ("content-encoding", body.to_vec()) };
    let mut request = wire.request(Signal::Traces, body);
    request.headers_mut().insert(header, encoding.parse().unwrap());
    request
}

fn gz(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bombs_are_stopped_at_the_limit() {
    let yaml = "protocols: { grpc: { endpoint: '127.0.0.1:0', max_recv_msg_size_mib: 4 }, \
                http: { endpoint: '127.0.0.1:0', max_request_body_size: 4194304 } }";
    let rig = Setup { budget: 16 << 20, ..Setup::yaml(yaml) }.start().await;
    let zeros = vec![0; 64 << 20];
    let bombs = [("gzip", gz(&zeros)), ("zstd", zstd::bulk::compress(&zeros, 3).unwrap())];
    for wire in Wire::ALL {
        for (encoding, bomb) in &bombs {
            refused(&rig, wire, compressed(wire, encoding, bomb), 413, 8).await;
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn one_layer_of_compression_is_read() {
    let rig = Setup::default().start().await;
    let twice = gz(&gz(&spans(10)));
    for wire in [Wire::Grpc, Wire::Protobuf] {
        refused(&rig, wire, compressed(wire, "gzip", &twice), 400, 3).await;
        // Wrong label, cut off, more behind the end.
        refused(&rig, wire, compressed(wire, "zstd", &gz(&spans(10))), 400, 3).await;
        let whole = gz(&spans(10));
        refused(&rig, wire, compressed(wire, "gzip", &whole[..whole.len() - 3]), 400, 3).await;
        refused(&rig, wire, compressed(wire, "gzip", &[&whole[..], b"x"].concat()), 400, 3).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_window_beyond_the_cap_is_refused() {
    use std::io::Write;
    let rig = Setup::default().start().await;
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&spans(10)).unwrap();
    let body = encoder.finish().unwrap();
    for wire in [Wire::Grpc, Wire::Protobuf] {
        refused(&rig, wire, compressed(wire, "zstd", &body), 400, 3).await;
    }
    rig.stop().await;
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn an_element_bomb_is_refused_before_it_is_anything() {
    let rig = Setup::default().start().await;
    // 4 MiB of empty spans: a few hundred bytes of zstd, half a gigabyte of structs to whoever decodes it.
    let spans = [0x12, 0x00].repeat(2 << 20);
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        crate::otlp::wire::put_varint(&mut out, inner.len() as u64);
        [out, inner.to_vec()].concat()
    };
    let bomb = zstd::bulk::compress(&wrap(0x0a, &wrap(0x12, &spans)), 19).unwrap();
    assert!(bomb.len() < 1000, "{}", bomb.len());
    let before = resident();
    for wire in [Wire::Grpc, Wire::Protobuf] {
        let reply = refused(&rig, wire, compressed(wire, "zstd", &bomb), 400, 3).await;
        assert!(reply.message.contains("elements"), "{}", reply.message);
    }
    // Other tests run beside this one and take memory of their own; a decoder would take 537 MiB.
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown}");
    rig.stop().await;
}

#[tokio::test]
async fn nesting_without_end_is_refused() {
    let rig = Setup::default().start().await;
    let mut value = Vec::new();
    for _ in 0..10_000 {
        let mut array = Vec::new();
        crate::otlp::wire::put_bytes_always(&mut array, 1, &value);
        let mut outer = Vec::new();
        crate::otlp::wire::put_bytes_always(&mut outer, 5, &array);
        value = outer;
    }
    let mut attribute = b"\x0a\x01k".to_vec();
    crate::otlp::wire::put_bytes_always(&mut attribute, 2, &value);
    let mut payload = Vec::new();
    for (field, depth) in [(1, 0), (1, 1), (1, 2)] {
        let inner = if depth == 0 { &attribute } else { &payload };
        let mut outer = Vec::new();
        crate::otlp::wire::put_bytes_always(&mut outer, field, inner);
        payload = outer;
    }
    for wire in [Wire::Grpc, Wire::Protobuf] {
        let body = if wire == Wire::Grpc { prefixed(0, &payload) } else { payload.clone() };
        let reply = refused(&rig, wire, wire.request(Signal::Traces, body), 400, 3).await;
        assert!(reply.message.contains("deep"), "{}", reply.message);
    }
    let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(10_000), "]}}".repeat(10_000));
    let json = format!(r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{open}{close}}}]}}}}]}}"#);
    refused(&rig, Wire::Json, Wire::Json.request(Signal::Traces, json.into_bytes()), 400, 3).await;
    let brackets = "[".repeat(10_000);
    refused(&rig, Wire::Json, Wire::Json.request(Signal::Traces, brackets.into_bytes()), 400, 3).await;
    rig.stop().await;
}

#[tokio::test]
async fn every_kind_of_torn_message_is_refused() {
    let rig = Setup::default().start().await;
    let good = spans(3);
    let bodies: Vec<Vec<u8>> = vec![
        good[..good.len() - 1].to_vec(),
        good[..10].to_vec(),
        // A varint of eleven bytes, a length beyond everything, a field number of zero, a group, a wire type that is none.
        [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01].to_vec(),
        [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01].to_vec(),
        [0x02, 0x00].to_vec(),
        [0x0b, 0x0c].to_vec(),
        [0x0f, 0x00].to_vec(),
    ];
    for body in bodies {
        for wire in [Wire::Grpc, Wire::Protobuf] {
            let body = if wire == Wire::Grpc { prefixed(0, &body) } else { body.clone() };
            refused(&rig, wire, wire.request(Signal::Traces, body), 400, 3).await;
        }
    }
    for body in [
        "{",
        "[]",
        "nope",
        r#"{"resourceSpans":1}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}"#,
        "{}{}",
    ] {
        refused(&rig, Wire::Json, Wire::Json.request(Signal::Traces, body.into()), 400, 3).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn every_kind_of_torn_call_is_refused() {
    let rig = Setup::default().start().await;
    let good = spans(1);
    let calls: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0, 0],
        prefixed(0, &good)[..20].to_vec(),
        [prefixed(0, &good), prefixed(0, &good)].concat(),
        [prefixed(0, &good), vec![0]].concat(),
        prefixed(7, &good),
        // Compressed, and no word of how.
        prefixed(1, &gz(&good)),
    ];
    for call in calls {
        refused(&rig, Wire::Grpc, Wire::Grpc.request(Signal::Traces, call), 400, 3).await;
    }
    // A length that is only announced takes no memory and no time.
    let mut huge = vec![0, 0xff, 0xff, 0xff, 0xff];
    huge.extend_from_slice(&good);
    refused(&rig, Wire::Grpc, Wire::Grpc.request(Signal::Traces, huge), 413, 8).await;
    rig.stop().await;
}

#[tokio::test]
async fn odd_numbers_are_no_reason_to_refuse() {
    use opentelemetry_proto::tonic::trace::v1::Status;
    let rig = Setup::default().start().await;
    let odd = |value: f64| KeyValue {
        key: "odd".to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::DoubleValue(value)) }),
        ..KeyValue::default()
    };
    let mut span = span(&[1; 16], "odd");
    span.attributes = vec![odd(f64::NAN), odd(f64::INFINITY), odd(f64::NEG_INFINITY)];
    (span.start_time_unix_nano, span.end_time_unix_nano, span.kind) = (u64::MAX, 0, 99);
    span.status = Some(Status { code: -7, message: "odd".to_owned() });
    let payload = request_of(vec![span]).encode_to_vec();
    for wire in [Wire::Grpc, Wire::Protobuf] {
        rig.client(wire).await.send(wire.request(Signal::Traces, wire.body(&payload))).await.assert_ok();
        assert_eq!(rig.taken()[0].payload, payload);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_peer_that_goes_half_way_leaves_nothing_behind() {
    let rig = Setup::default().start().await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(rig.address(Wire::Protobuf)).await.unwrap();
        let head =
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 1000\r\n\r\nabc";
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
    }
    let mut client = rig.client(Wire::Protobuf).await;
    client.send(Wire::Protobuf.good()).await.assert_ok();
    assert_eq!(rig.taken().len(), 1);
    drop(client);
    rig.stop().await;
}

#[tokio::test]
async fn requests_over_http1_that_smuggle_are_refused() {
    let rig = Setup::default().start().await;
    for head in [
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(rig.address(Wire::Protobuf)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
    }
    let long = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(64 << 10));
    let mut stream = TcpStream::connect(rig.address(Wire::Protobuf)).await.unwrap();
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server closes on bytes that it did not read; what it said may be lost with them.
    drop(stream.read_to_end(&mut answer).await);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    rig.stop().await;
}
