//! Each over a socket, against a server written on `h2`.

use std::{
    io::Write,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    component::{AuthError, Extension, Extensions, RetryCause},
    config::Secret,
    signal::{ComponentId, Context},
    transport::{
        client::{
            Algorithm,
            testing::{
                Certificates, H2Sink, Names, Reply, Seen, TunnelProxy, batch, build_context, inflated, node, span_names, traces,
                unframed, until,
            },
        },
        tls::client::TlsClientSettings,
    },
};

fn config(endpoint: &str) -> Config {
    let mut config = Config::default();
    config.client.endpoint = endpoint.to_owned();
    config.client.tls.insecure = true;
    config
}

fn built(config: Config) -> Arc<dyn Exporter> {
    config.build_with(&build_context(Extensions::default()), &ProxyRules::default(), |connector| connector).unwrap()
}

fn built_with(config: Config, rules: &ProxyRules, names: Arc<Names>) -> Arc<dyn Exporter> {
    config.build_with(&build_context(Extensions::default()), rules, |connector| connector.with_resolver(names)).unwrap()
}

fn request(parts: impl IntoIterator<Item = Bytes>) -> Request {
    let mut request = Request::of(batch(Bytes::new(), 0));
    request.parts.clear();
    for part in parts {
        request.items += span_names(&part).len() as u64;
        request.bytes += part.len();
        request.parts.push(batch(part, 1));
    }
    request
}

/// What a backend that answers like this makes of one small request.
async fn outcome_of(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Outcome {
    let sink = H2Sink::start(answer).await;
    built(config(&sink.address.to_string())).export(request([traces(&["a"])])).await
}

#[tokio::test]
async fn delivers_the_bytes_as_they_are() {
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let payload = traces(&["a", "b"]);
    let outcome = built(config(&sink.address.to_string())).export(request([payload.clone()])).await;
    assert_eq!(outcome, Outcome::DELIVERED);
    let seen = sink.seen();
    assert_eq!(unframed(&seen[0].body), (0, &payload[..]));
    assert_eq!(seen[0].path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let header = |name: &str| seen[0].headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("content-type").as_deref(), Some("application/grpc"));
    assert_eq!(header("te").as_deref(), Some("trailers"));
    assert_eq!(header("grpc-timeout").as_deref(), Some("5000m"));
    assert_eq!(header("grpc-encoding"), None);
    assert!(header("user-agent").unwrap().starts_with("weir/"));
}

#[tokio::test]
async fn joins_small_and_large_parts_into_one_request() {
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let long = "x".repeat(900_000);
    let mut parts = Vec::new();
    let mut expected = Vec::new();
    for at in 0..40 {
        let name = if at % 13 == 5 { format!("{at}{long}") } else { format!("{at}") };
        parts.push(traces(&[&name]));
        expected.push(name);
    }
    let outcome = built(config(&sink.address.to_string())).export(request(parts)).await;
    assert_eq!(outcome, Outcome::DELIVERED);
    let seen = sink.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(span_names(unframed(&seen[0].body).1), expected);
}

#[tokio::test]
async fn compresses_as_written_so_that_another_decoder_reads_it() {
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let names = vec!["checkout"; 20_000];
    for (written, encoding, decoder) in
        [("gzip", "gzip", "gzip"), ("zstd", "zstd", "zstd"), ("snappy", "snappy", "snappy-framed")]
    {
        for payload in [traces(&["a"]), traces(&names)] {
            let mut config = config(&sink.address.to_string());
            config.client.compression = Some(written.to_owned());
            assert_eq!(built(config).export(request([payload.clone(), payload.clone()])).await, Outcome::DELIVERED);
            let seen = sink.seen.lock().pop().unwrap();
            assert_eq!(seen.headers["grpc-encoding"], encoding);
            let (flag, body) = unframed(&seen.body);
            assert_eq!(flag, 1);
            assert_eq!(inflated(decoder, body), [&payload[..], &payload[..]].concat());
        }
    }
}

#[tokio::test]
async fn keeps_one_connection_for_many_requests() {
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let exporter = built(config(&sink.address.to_string()));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let exporter = exporter.clone();
        calls.spawn(async move { exporter.export(request([traces(&["a"])])).await });
    }
    while let Some(outcome) = calls.join_next().await {
        assert_eq!(outcome.unwrap(), Outcome::DELIVERED);
    }
    assert_eq!((sink.seen().len(), *sink.connections.lock()), (30, 1));
}

fn passing(reason: &str, after: Option<u64>) -> Outcome {
    Outcome::Retry { reason: reason.to_owned(), after: after.map(Duration::from_secs), cause: RetryCause::Passing }
}

fn blocked(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.to_owned(), after: None, cause: RetryCause::Blocked }
}

fn rejected(message: &str) -> Outcome {
    Outcome::Rejected { message: message.to_owned() }
}

/// `grpc-status-details-bin` with a `RetryInfo`, written by hand from the message's fields.
fn with_retry_info(mut reply: Reply, seconds: u8) -> Reply {
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![0x0a, url.len() as u8];
    any.extend_from_slice(url);
    any.extend_from_slice(&[0x12, 4, 0x0a, 2, 0x08, seconds]);
    let mut status = vec![0x08, 14, 0x1a, any.len() as u8];
    status.extend(any);
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    reply.headers.push(("grpc-status-details-bin", base64::Engine::encode(&engine, status)));
    reply
}

#[tokio::test]
async fn every_status_means_what_the_table_says() {
    for code in [1, 4, 10, 11, 14, 15] {
        let Outcome::Retry { after: None, cause: RetryCause::Passing, .. } = outcome_of(move |_| Reply::status(code, "x")).await
        else {
            panic!("{code} passes");
        };
    }
    for code in [2, 5, 6, 9, 13, 17, -1] {
        let Outcome::Refused { .. } = outcome_of(move |_| Reply::status(code, "x")).await else {
            panic!("{code} may be about the data")
        };
    }
    assert_eq!(outcome_of(|_| Reply::status(3, "bad%20id%0a")).await, rejected("INVALID_ARGUMENT: bad id"));
    assert_eq!(outcome_of(|_| Reply::status(14, "")).await, passing("UNAVAILABLE", None));
    assert_eq!(outcome_of(|_| Reply::status(16, "who")).await, blocked("UNAUTHENTICATED: who"));
    assert_eq!(outcome_of(|_| Reply::status(7, "not you")).await, blocked("PERMISSION_DENIED: not you"));
    let unknown = outcome_of(|_| Reply::status(12, "unknown service")).await;
    assert_eq!(
        unknown,
        Outcome::Unsupported { message: "this backend takes no traces (UNIMPLEMENTED: unknown service)".to_owned() }
    );
}

#[tokio::test]
async fn waits_as_long_as_the_backend_asks_but_not_for_days() {
    assert_eq!(outcome_of(|_| with_retry_info(Reply::status(14, "x"), 7)).await, passing("UNAVAILABLE: x", Some(7)));
    assert_eq!(outcome_of(|_| with_retry_info(Reply::status(8, "x"), 7)).await, passing("RESOURCE_EXHAUSTED: x", Some(7)));
    assert_eq!(outcome_of(|_| with_retry_info(Reply::status(14, "x"), 120)).await, passing("UNAVAILABLE: x", Some(30)));
}

#[tokio::test]
async fn learns_the_limit_of_a_backend_that_finds_it_too_large() {
    for (code, text, expected) in [
        (8, "grpc: received message larger than max (5242880 vs. 4194304)", Some(4_194_304)),
        (8, "grpc: message after decompression larger than max 4194304", Some(4_194_304)),
        (11, "Error, decoded message length too large: found 5242880 bytes, the limit is: 4194304 bytes", Some(4_194_304)),
        (8, "no", None),
    ] {
        let Outcome::TooLarge { limit, .. } = outcome_of(move |_| Reply::status(code, text)).await else { panic!("{text}") };
        assert_eq!(limit, expected, "{text}");
    }
}

#[tokio::test]
async fn tells_a_partial_success_from_a_warning() {
    let partial = |rejected: u8, text: &'static [u8]| {
        let mut inner = vec![0x08, rejected, 0x12, text.len() as u8];
        inner.extend_from_slice(text);
        let mut body = vec![0x0a, inner.len() as u8];
        body.extend(inner);
        move |_: &Seen| Reply::message(&body)
    };
    assert_eq!(
        outcome_of(partial(2, b"two were bad")).await,
        Outcome::Partial { rejected: 2, message: "two were bad".to_owned() }
    );
    let warned = Outcome::Delivered { warning: Some("slow down".to_owned()) };
    assert_eq!(outcome_of(partial(0, b"slow down")).await, warned);
    let Outcome::Delivered { warning: Some(_) } = outcome_of(|_| Reply::message(&[0xff; 9])).await else { panic!("it said OK") };
}

#[tokio::test]
async fn an_answer_that_is_not_grpc_is_judged_by_its_http_status() {
    let html = |status| move |_: &Seen| Reply::http(status, vec![("content-type", "text/html".to_owned())], "<html>");
    let Outcome::Retry { cause: RetryCause::Passing, reason, .. } = outcome_of(html(503)).await else { panic!() };
    assert!(reason.contains("HTTP 503 without a gRPC status (text/html)"), "{reason}");
    let Outcome::Retry { cause: RetryCause::Blocked, .. } = outcome_of(html(401)).await else { panic!() };
    let Outcome::Unsupported { .. } = outcome_of(html(404)).await else { panic!() };
    let Outcome::Refused { .. } = outcome_of(html(200)).await else { panic!() };
}

#[tokio::test]
async fn a_reset_stream_is_tried_again() {
    let outcome = outcome_of(|_| Reply { reset: Some(h2::Reason::INTERNAL_ERROR), ..Reply::ok() }).await;
    let Outcome::Retry { cause: RetryCause::Passing, .. } = outcome else { panic!("{outcome:?}") };
}

#[tokio::test]
async fn a_stream_the_peer_refused_is_sent_again_at_once() {
    let first = AtomicBool::new(true);
    let outcome = outcome_of(move |_| {
        let refused = first.swap(false, Ordering::SeqCst);
        Reply { reset: refused.then_some(h2::Reason::REFUSED_STREAM), ..Reply::ok() }
    });
    assert_eq!(outcome.await, Outcome::DELIVERED);
}

#[tokio::test]
async fn reads_an_answer_that_is_compressed_unasked() {
    // grpc-go answers in the request's compression. The message: rejected 2, "bad".
    let message = b"\x0a\x07\x08\x02\x12\x03bad";
    for (encoding, body) in [
        ("gzip", deflated(message)),
        ("zstd", zstd::encode_all(&message[..], 1).unwrap()),
        ("snappy", {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(message).unwrap();
            encoder.into_inner().unwrap()
        }),
    ] {
        let outcome = outcome_of(move |_| compressed(encoding, &body)).await;
        assert_eq!(outcome, Outcome::Partial { rejected: 2, message: "bad".to_owned() }, "{encoding}");
    }
    // What cannot be read, or would be too large, takes nothing back from the OK.
    for (encoding, body) in [("gzip", vec![1, 2, 3]), ("br", vec![1, 2, 3]), ("gzip", deflated(&vec![0; 4 << 20]))] {
        let Outcome::Delivered { warning: Some(_) } = outcome_of(move |_| compressed(encoding, &body)).await else {
            panic!("{encoding}")
        };
    }
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn compressed(encoding: &str, body: &[u8]) -> Reply {
    let mut reply = Reply::message(body);
    reply.headers.push(("grpc-encoding", encoding.to_owned()));
    let mut framed = reply.body.to_vec();
    framed[0] = 1;
    Reply { body: framed.into(), ..reply }
}

#[tokio::test]
async fn a_server_that_ends_connections_by_age_loses_nothing() {
    let sink = H2Sink::start(|_| Reply { goes_away: true, ..Reply::ok() }).await;
    let exporter = built(config(&sink.address.to_string()));
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..60 {
        let exporter = exporter.clone();
        calls.spawn(async move { exporter.export(request([traces(&[&at.to_string()])])).await });
        if at % 3 == 0 {
            calls.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(outcome) = calls.join_next().await {
        assert_eq!(outcome.unwrap(), Outcome::DELIVERED);
    }
    let names: std::collections::BTreeSet<_> = sink.seen().iter().map(|seen| span_names(unframed(&seen.body).1)).collect();
    assert_eq!((names.len(), sink.seen().len()), (60, 60), "each once");
    assert!(*sink.connections.lock() > 1);
}

#[tokio::test]
async fn an_answer_without_end_is_left_unread() {
    let outcome = outcome_of(|_| Reply { body: vec![0; 64 << 20].into(), ..Reply::ok() }).await;
    let Outcome::Rejected { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.contains("larger than 65536 bytes"), "{message}");
}

#[tokio::test]
async fn huge_trailers_are_refused() {
    let mut reply = Reply::ok();
    reply.trailers = Some((0..40).map(|_| ("x-padding", "x".repeat(8000))).chain([("grpc-status", "0".to_owned())]).collect());
    let outcome = outcome_of(move |_| reply.clone()).await;
    let Outcome::Retry { cause: RetryCause::Passing, .. } = outcome else { panic!("{outcome:?}") };
}

#[tokio::test]
async fn a_refused_connection_passes_and_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let outcome = built(config(&address)).export(request([traces(&["a"])])).await;
    let Outcome::Retry { reason, cause: RetryCause::Unreached, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(&address) && reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_needs_someone_to_act() {
    let names = Names::of([]);
    let exporter = built_with(config("backend.test:4317"), &ProxyRules::default(), names);
    let Outcome::Retry { reason, cause: RetryCause::Blocked, .. } = exporter.export(request([traces(&["a"])])).await else {
        panic!()
    };
    assert_eq!(reason, "cannot look up backend.test: no such name");
}

#[tokio::test]
async fn an_http_1_port_is_recognised() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 24];
        stream.read_exact(&mut seen).await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
    });
    let outcome = built(config(&address.to_string())).export(request([traces(&["a"])])).await;
    let Outcome::Retry { reason, cause: RetryCause::Blocked, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("`otlp_http`"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_fell_silent_is_noticed_by_a_ping() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut config = config(&address);
    config.keepalive = Some(Keepalive::UNWRITTEN);
    let exporter = built(config);
    let start = tokio::time::Instant::now();
    let outcome = exporter.export(request([traces(&["a"])])).await;
    let Outcome::Retry { reason, cause: RetryCause::Passing, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("no answer to a ping for 10 s"), "{reason}");
    assert_eq!(start.elapsed().as_secs(), 40);
}

#[tokio::test]
async fn reconnecting_leaves_a_silent_connection_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let exporter = built(config(&address.to_string()));
    let stuck = exporter.clone();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { stuck.export(request([traces(&["a"])])).await });
    let (mut silent, _) = listener.accept().await.unwrap();
    // The request is on it.
    silent.read_exact(&mut [0; 100]).await.unwrap();
    let sink = H2Sink::serve(listener, |_| Reply::ok(), None);
    exporter.reconnect();
    assert_eq!(exporter.export(request([traces(&["b"])])).await, Outcome::DELIVERED);
    assert_eq!(*sink.connections.lock(), 1);
    // The old connection is closed as soon as its last call is given up.
    tasks.abort_all();
    silent.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn goes_round_all_addresses_of_a_dns_target() {
    let (one, two) = (H2Sink::start(|_| Reply::ok()).await, H2Sink::start(|_| Reply::ok()).await);
    let names = Names::of([("backend.test", vec![one.address, two.address])]);
    let exporter = built_with(config("dns:///backend.test:4317"), &ProxyRules::default(), names);
    until(|| async {
        assert_eq!(exporter.export(request([traces(&["a"])])).await, Outcome::DELIVERED);
        one.seen().len() > 3 && two.seen().len() > 3
    })
    .await;
    assert_eq!((*one.connections.lock(), *two.connections.lock()), (1, 1));
}

#[tokio::test]
async fn looks_a_name_up_again_when_its_address_is_gone() {
    let names = Names::of([]);
    for endpoint in ["dns:///backend.test:4317", "backend.test:4317"] {
        let old = H2Sink::start(|_| Reply::ok()).await;
        *names.0.lock() = vec![("backend.test", vec![old.address])];
        let exporter = built_with(config(endpoint), &ProxyRules::default(), names.clone());
        assert_eq!(exporter.export(request([traces(&["a"])])).await, Outcome::DELIVERED);
        let new = H2Sink::start(|_| Reply::ok()).await;
        *names.0.lock() = vec![("backend.test", vec![new.address])];
        drop(old);
        until(|| async { exporter.export(request([traces(&["b"])])).await == Outcome::DELIVERED }).await;
        assert_eq!(new.seen().len(), 1, "{endpoint}");
    }
}

#[tokio::test]
async fn tries_the_next_address_of_a_plain_name() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = closed.local_addr().unwrap();
    drop(closed);
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let names = Names::of([("backend.test", vec![gone, sink.address])]);
    for endpoint in ["backend.test:4317", "dns:///backend.test:4317"] {
        let exporter = built_with(config(endpoint), &ProxyRules::default(), names.clone());
        assert_eq!(exporter.export(request([traces(&["a"])])).await, Outcome::DELIVERED, "{endpoint}");
    }
}

#[tokio::test]
async fn goes_through_a_proxy_with_its_password() {
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let proxy = TunnelProxy::start(sink.address, "200 OK").await;
    let url = format!("http://us%40er:pass@proxy.test:{}", proxy.address.port());
    let rules = ProxyRules::read(|name| (name == "HTTPS_PROXY").then(|| url.clone()));
    let names = Names::of([("proxy.test", vec![proxy.address])]);
    let exporter = built_with(config("backend.test:4317"), &rules, names);
    assert_eq!(exporter.export(request([traces(&["a"])])).await, Outcome::DELIVERED);
    let asked = proxy.asked.lock()[0].clone();
    assert!(asked.starts_with("CONNECT backend.test:4317 HTTP/1.1\r\nHost: backend.test:4317\r\n"), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic dXNAZXI6cGFzcw==\r\n"), "{asked}");
}

#[tokio::test]
async fn a_proxy_that_refuses_needs_someone_to_act() {
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let proxy = TunnelProxy::start(sink.address, "407 Proxy Authentication Required").await;
    let url = format!("proxy.test:{}", proxy.address.port());
    let rules = ProxyRules::read(|name| (name == "https_proxy").then(|| url.clone()));
    let names = Names::of([("proxy.test", vec![proxy.address])]);
    let outcome = built_with(config("backend.test:4317"), &rules, names).export(request([traces(&["a"])])).await;
    assert_eq!(outcome, blocked("the proxy refused the tunnel: HTTP/1.1 407 Proxy Authentication Required"));
}

fn tls_config(certificates: &Certificates) -> Config {
    let mut config = config("backend.test:4317");
    config.client.tls = TlsClientSettings { ca_pem: Secret::new(&certificates.ca), ..TlsClientSettings::default() };
    config
}

#[tokio::test]
async fn speaks_tls_to_whom_the_certificate_names() {
    let certificates = Certificates::new();
    let sink = H2Sink::start_on(Ipv4Addr::LOCALHOST, |_| Reply::ok(), Some(certificates.server_config(&[b"h2"], false))).await;
    let names = Names::of([("backend.test", vec![sink.address]), ("other.test", vec![sink.address])]);
    let export =
        async |config: Config| built_with(config, &ProxyRules::default(), names.clone()).export(request([traces(&["a"])])).await;
    assert_eq!(export(tls_config(&certificates)).await, Outcome::DELIVERED);

    let mut other = tls_config(&certificates);
    other.client.endpoint = "other.test:4317".to_owned();
    let Outcome::Retry { cause: RetryCause::Blocked, .. } = export(other.clone()).await else { panic!("the name is another") };
    other.client.tls.server_name_override = "backend.test".to_owned();
    assert_eq!(export(other.clone()).await, Outcome::DELIVERED);

    other.client.tls = TlsClientSettings { ca_pem: Secret::new(Certificates::new().ca), ..TlsClientSettings::default() };
    let Outcome::Retry { cause: RetryCause::Blocked, .. } = export(other.clone()).await else { panic!("signed by someone else") };
    other.client.tls.insecure_skip_verify = true;
    assert_eq!(export(other.clone()).await, Outcome::DELIVERED);

    // `https://` counts for more than `insecure`.
    let mut prefixed = tls_config(&certificates);
    prefixed.client.endpoint = "https://backend.test:4317".to_owned();
    prefixed.client.tls.insecure = true;
    assert_eq!(export(prefixed).await, Outcome::DELIVERED);
}

#[tokio::test]
async fn shows_its_own_certificate_when_asked() {
    let certificates = Certificates::new();
    let sink = H2Sink::start_on(Ipv4Addr::LOCALHOST, |_| Reply::ok(), Some(certificates.server_config(&[b"h2"], true))).await;
    let names = Names::of([("backend.test", vec![sink.address])]);
    let mut config = tls_config(&certificates);
    let nobody = built_with(config.clone(), &ProxyRules::default(), names.clone()).export(request([traces(&["a"])])).await;
    let Outcome::Retry { .. } = nobody else { panic!("{nobody:?}") };
    config.client.tls.cert_pem = Secret::new(&certificates.client.0);
    config.client.tls.key_pem = Secret::new(&certificates.client.1);
    let outcome = built_with(config, &ProxyRules::default(), names).export(request([traces(&["a"])])).await;
    assert_eq!(outcome, Outcome::DELIVERED);
}

#[tokio::test]
async fn tls_to_a_plaintext_port_needs_someone_to_act() {
    let certificates = Certificates::new();
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let names = Names::of([("backend.test", vec![sink.address])]);
    let outcome = built_with(tls_config(&certificates), &ProxyRules::default(), names).export(request([traces(&["a"])])).await;
    let Outcome::Retry { reason, cause: RetryCause::Blocked, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("tls::insecure: true"), "{reason}");
}

#[tokio::test]
async fn sends_headers_and_credentials_but_not_the_protocols_own() {
    struct Token;
    impl ClientAuth for Token {
        fn add_headers(&self, context: &Context, headers: &mut HeaderMap) -> Result<(), AuthError> {
            let tenant = context.metadata("x-tenant").first().ok_or(AuthError::Unauthenticated("no tenant".to_owned()))?;
            headers.insert("authorization", tenant.parse().unwrap());
            Ok(())
        }
    }
    struct Holder;
    impl Extension for Holder {
        fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
            Some(Arc::new(Token))
        }
    }
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let yaml = format!(
        "{{endpoint: '{}', tls: {{insecure: true}}, headers: {{X-One: a, te: b}}, user_agent: me, auth: {{authenticator: token}}}}",
        sink.address
    );
    let mut found = Diagnostics::default();
    let config = Config::read(&node(&yaml), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    assert!(config.splits_by_context());
    let extensions = Extensions(vec![(ComponentId::parse("token").unwrap(), Arc::new(Holder))]);
    let exporter = config.build_with(&build_context(extensions), &ProxyRules::default(), |connector| connector).unwrap();
    assert_eq!(exporter.export(request([traces(&["a"])])).await, blocked("no tenant"));
    let mut with_tenant = request([traces(&["a"])]);
    let metadata = vec![("x-tenant".into(), vec!["shop".into()])];
    with_tenant.parts[0].context = Arc::new(Context { metadata, ..Context::default() });
    assert_eq!(exporter.export(with_tenant).await, Outcome::DELIVERED);
    let headers = sink.seen()[0].headers.clone();
    assert_eq!(
        (&headers["x-one"], &headers["authorization"], &headers["user-agent"]),
        (&"a".parse().unwrap(), &"shop".parse().unwrap(), &"me".parse().unwrap())
    );
    assert_eq!(headers["te"], "trailers");
}

#[test]
fn reads_what_a_collector_file_says() {
    let yaml = "
endpoint: backend:4317
compression: zstd
timeout: 12s
keepalive: {time: 20s}
headers: [{name: a, value: b}]
sending_queue: {queue_size: 7, num_consumers: 3}
retry_on_failure: {max_elapsed_time: 1m}
balancer_name: round_robin
";
    let mut found = Diagnostics::default();
    let config = Config::read(&node(yaml), &mut found);
    assert_eq!(found, Diagnostics::default());
    assert_eq!(config.keepalive.unwrap().time.0, Duration::from_secs(20));
    let delivery = config.delivery();
    assert_eq!(delivery.timeout, Some(Duration::from_secs(12)));
    assert_eq!(delivery.queue.unwrap().queue_size, Some(7));
    assert_eq!(delivery.retry.max_elapsed_time, Some(GoDuration(Duration::from_mins(1))));
    assert!(config.client.target().unwrap().spread);
    assert!(!format!("{:?}", config.client.headers).contains("\"b\""));
}

#[test]
fn says_what_cannot_work() {
    for (yaml, expected) in [
        ("{}", "an endpoint is required"),
        ("endpoint: 'x:99999'", "`99999` is not a port number"),
        ("endpoint: 'x:1/v1/traces'", "a gRPC endpoint has no path"),
        ("endpoint: 'ftp://x:1'", "`ftp://` is not a scheme"),
        ("{endpoint: 'x:1', compression: lz4}", "`lz4` is not a compression"),
        ("{endpoint: 'x:1', tls: {ca_file: a, ca_pem: b}}", "`ca_file` and `ca_pem` are both set"),
        ("{endpoint: 'x:1', tls: {cert_file: a}}", "a certificate is set without its key"),
        ("{endpoint: 'x:1', tls: {min_version: '2'}}", "`2` is not a TLS version"),
        ("{endpoint: 'x:1', headers: {'a b': c}}", "the header `a b` cannot be sent"),
        ("{endpoint: 'x:1', auth: {}}", "`auth` names no authenticator"),
        ("{endpoint: 'x:1', endpont: y}", "endpont"),
    ] {
        let mut found = Diagnostics::default();
        Config::read(&node(yaml), &mut found);
        assert!(found.has_errors() && found.found.iter().any(|d| d.message.contains(expected)), "{yaml}: {found:?}");
    }
}

#[test]
fn nothing_written_is_uncompressed_on_this_machine_only() {
    for (endpoint, expected) in [
        ("localhost:4317", Algorithm::None),
        ("[::1]:4317", Algorithm::None),
        ("unix:///run/x.sock", Algorithm::None),
        ("10.0.0.1:4317", Algorithm::Gzip),
        ("backend:4317", Algorithm::Gzip),
    ] {
        let config = config(endpoint);
        assert_eq!(config.client.algorithm(&config.client.target().unwrap()), expected, "{endpoint}");
    }
}
