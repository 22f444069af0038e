//! Each over a socket, against servers on bare sockets and `h2`.

use std::net::Ipv4Addr;

use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};

use super::*;
use crate::{
    component::{Extensions, RetryCause},
    config::Secret,
    signal::UnixNanos,
    transport::client::testing::{
        Certificates, H1Sink, H2Sink, Names, Reply, Seen, TunnelProxy, answered, batch, build_context, inflated, node,
        span_names, traces,
    },
};

/// Friday, 2023-11-14 22:13:20 UTC.
const NOW: u64 = 1_700_000_000;

fn read(yaml: &str) -> Config {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(yaml), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    config
}

fn built(config: Config) -> Arc<dyn Exporter> {
    built_with(config, &ProxyRules::default(), None)
}

fn built_with(config: Config, rules: &ProxyRules, names: Option<Arc<Names>>) -> Arc<dyn Exporter> {
    let mut context = build_context(Extensions::default());
    context.clock = Clock::new(|| UnixNanos(NOW * 1_000_000_000));
    let adjust = |connector: Connector| match &names {
        Some(names) => connector.with_resolver(names.clone()),
        None => connector,
    };
    config.build_with(&context, rules, adjust).unwrap()
}

fn request(names: &[&str]) -> Request {
    Request::of(batch(traces(names), names.len() as u64))
}

async fn outcome_of(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Outcome {
    let sink = H1Sink::start(answer).await;
    built(read(&format!("endpoint: 'http://{}'", sink.address))).export(request(&["a"])).await
}

fn passing(reason: &str, after: Option<u64>) -> Outcome {
    Outcome::Retry { reason: reason.to_owned(), after: after.map(Duration::from_secs), cause: RetryCause::Passing }
}

fn blocked(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.to_owned(), after: None, cause: RetryCause::Blocked }
}

#[tokio::test]
async fn posts_the_bytes_as_they_are() {
    let sink = H1Sink::start(|_| answered(200, "", b"")).await;
    let exporter = built(read(&format!("{{endpoint: 'http://{}/base', headers: {{X-A: b, Host: other.test}}}}", sink.address)));
    assert_eq!(exporter.export(request(&["a", "b"])).await, Outcome::DELIVERED);
    let seen = sink.seen.lock()[0].clone();
    assert_eq!((seen.path.as_str(), &seen.body[..]), ("/base/v1/traces", &traces(&["a", "b"])[..]));
    assert_eq!(
        (&seen.headers["content-type"], &seen.headers["x-a"]),
        (&"application/x-protobuf".parse().unwrap(), &"b".parse().unwrap())
    );
    assert_eq!(seen.headers["host"], "other.test");
    assert!(seen.headers["user-agent"].to_str().unwrap().starts_with("weir/"));
    assert!(!seen.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn joins_parts_into_one_request_in_both_encodings() {
    let sink = H1Sink::start(|_| answered(200, "content-type: application/json\r\n", b"{}")).await;
    let mut both = request(&["a"]);
    both.parts.push(batch(traces(&["b"]), 1));
    both.bytes *= 2;
    for encoding in ["proto", "json"] {
        let exporter = built(read(&format!("{{endpoint: 'http://{}', encoding: {encoding}}}", sink.address)));
        assert_eq!(exporter.export(both.clone()).await, Outcome::DELIVERED);
    }
    let seen = sink.seen.lock().clone();
    assert_eq!(span_names(&seen[0].body), ["a", "b"]);
    assert_eq!(seen[1].headers["content-type"], "application/json");
    let json: serde_json::Value = serde_json::from_slice(&seen[1].body).unwrap();
    let name = |at: usize| &json["resourceSpans"][at]["scopeSpans"][0]["spans"][0]["name"];
    assert_eq!((name(0), name(1)), (&"a".into(), &"b".into()));
}

#[tokio::test]
async fn compresses_as_written_so_that_another_decoder_reads_it() {
    let sink = H1Sink::start(|_| answered(200, "", b"")).await;
    let many = vec!["checkout"; 20_000];
    for (written, encoding, decoder) in [
        ("gzip", "gzip", "gzip"),
        ("gzip, compression_params: {level: 9}", "gzip", "gzip"),
        ("zstd, compression_params: {level: 11}", "zstd", "zstd"),
        ("zlib", "zlib", "zlib"),
        ("deflate", "deflate", "deflate"),
        ("snappy", "snappy", "snappy"),
        ("x-snappy-framed", "x-snappy-framed", "snappy-framed"),
    ] {
        for names in [&["a"][..], &many] {
            let exporter = built(read(&format!("{{endpoint: 'http://{}', compression: {written}}}", sink.address)));
            assert_eq!(exporter.export(request(names)).await, Outcome::DELIVERED, "{written}");
            let seen = sink.seen.lock().pop().unwrap();
            assert_eq!(seen.headers["content-encoding"], encoding);
            assert_eq!(inflated(decoder, &seen.body), traces(names), "{written}");
        }
    }
}

#[tokio::test]
async fn takes_endpoints_of_signals_as_they_are() {
    let sink = H1Sink::start(|_| answered(200, "", b"")).await;
    let exporter = built(read(&format!("{{traces_endpoint: 'http://{}/custom?x=1'}}", sink.address)));
    assert_eq!(exporter.export(request(&["a"])).await, Outcome::DELIVERED);
    assert_eq!(sink.seen.lock()[0].path, "/custom?x=1");
    let mut logs = request(&["a"]);
    logs.signal = Signal::Logs;
    let Outcome::Unsupported { message } = exporter.export(logs).await else { panic!() };
    assert!(message.contains("no endpoint for logs"), "{message}");
}

#[tokio::test]
async fn every_status_means_what_the_table_says() {
    let status = |status| outcome_of(move |_| answered(status, "content-type: text/plain\r\n", b"because"));
    for code in [429, 502, 503, 504] {
        assert_eq!(status(code).await, passing(&format!("HTTP {code}: because"), None));
    }
    for code in [401, 403, 407] {
        assert_eq!(status(code).await, blocked(&format!("HTTP {code}: because")));
    }
    for code in [400, 422] {
        assert_eq!(status(code).await, Outcome::Rejected { message: format!("HTTP {code}: because") });
    }
    for code in [405, 408, 415, 500, 501] {
        assert_eq!(status(code).await, Outcome::Refused { status: code, message: format!("HTTP {code}: because") });
    }
    assert_eq!(status(413).await, Outcome::TooLarge { message: "HTTP 413: because".to_owned(), limit: None });
    let unsupported = Outcome::Unsupported { message: "this backend takes no traces (HTTP 404: because)".to_owned() };
    assert_eq!(status(404).await, unsupported);
    for code in [200, 202, 204] {
        assert_eq!(outcome_of(move |_| answered(code, "", b"")).await, Outcome::DELIVERED);
    }
}

#[tokio::test]
async fn reads_the_status_that_an_error_carries() {
    // google.rpc.Status: message "bad id", and the same in JSON.
    let proto = outcome_of(|_| answered(400, "content-type: application/x-protobuf\r\n", b"\x08\x03\x12\x06bad id")).await;
    assert_eq!(proto, Outcome::Rejected { message: "HTTP 400: bad id".to_owned() });
    let json =
        outcome_of(|_| answered(400, "content-type: application/json; charset=utf-8\r\n", b"{\"message\":\"bad\\nid\"}")).await;
    assert_eq!(json, Outcome::Rejected { message: "HTTP 400: bad id".to_owned() });
}

#[tokio::test]
async fn waits_as_long_as_the_backend_asks_but_not_for_days() {
    for (hint, expected) in [
        ("7", Some(7)),
        ("1000000000", Some(30)),
        ("99999999999999999999999999", Some(30)),
        ("Tue, 14 Nov 2023 22:13:29 GMT", Some(9)),
        ("Tue, 14 Nov 2023 22:00:00 GMT", Some(0)),
        ("soon", None),
    ] {
        let outcome = outcome_of(move |_| answered(503, &format!("retry-after: {hint}\r\n"), b"")).await;
        assert_eq!(outcome, passing("HTTP 503", expected), "{hint}");
    }
}

#[tokio::test]
async fn tells_a_partial_success_in_both_encodings() {
    let proto = outcome_of(|_| answered(200, "", b"\x0a\x07\x08\x02\x12\x03bad")).await;
    assert_eq!(proto, Outcome::Partial { rejected: 2, message: "bad".to_owned() });
    let sink = H1Sink::start(|_| answered(200, "", br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"bad"}}"#)).await;
    let exporter = built(read(&format!("{{endpoint: 'http://{}', encoding: json}}", sink.address)));
    assert_eq!(exporter.export(request(&["a"])).await, Outcome::Partial { rejected: 3, message: "bad".to_owned() });
}

#[tokio::test]
async fn does_not_follow_redirects() {
    let target = H1Sink::start(|_| answered(200, "", b"")).await;
    let to = target.address;
    for status in [301, 302, 307, 308] {
        let outcome = outcome_of(move |_| answered(status, &format!("location: http://{to}/v1/traces\r\n"), b"")).await;
        let Outcome::Retry { reason, cause: RetryCause::Blocked, .. } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains(&to.to_string()) && reason.contains("does not follow"), "{reason}");
    }
    assert_eq!(*target.connections.lock(), 0);
}

#[tokio::test]
async fn reads_no_more_of_an_answer_than_it_needs() {
    let huge = outcome_of(|_| answered(200, "", &vec![b'x'; 32 << 20])).await;
    let Outcome::Delivered { warning: Some(warning) } = huge else { panic!("{huge:?}") };
    assert!(warning.contains("too large to read"), "{warning}");
    let error = outcome_of(|_| answered(500, "content-type: text/plain\r\n", &vec![b'x'; 32 << 20])).await;
    let Outcome::Refused { message, .. } = error else { panic!("{error:?}") };
    assert!(message.len() < 1000, "{}", message.len());
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let outcome = outcome_of(|_| {
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        for at in 0..100_000 {
            head.extend(format!("x-{at}: padding\r\n").bytes());
        }
        head
    });
    let Outcome::Retry { cause: RetryCause::Passing, .. } = outcome.await else { panic!() };
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_tried_again() {
    let outcome = outcome_of(|_| b"SSH-2.0-x\r\nconnection: close".to_vec()).await;
    let Outcome::Retry { cause: RetryCause::Passing, .. } = outcome else { panic!("{outcome:?}") };
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_tried_again() {
    let outcome = outcome_of(|_| b"HTTP/1.1 200 OK\r\nconnection: close".to_vec()).await;
    let Outcome::Retry { cause: RetryCause::Passing, .. } = outcome else { panic!("{outcome:?}") };
}

#[tokio::test]
async fn a_grpc_port_is_recognised() {
    let sink = H2Sink::start(|_| Reply::ok()).await;
    let outcome = built(read(&format!("endpoint: 'http://{}'", sink.address))).export(request(&["a"])).await;
    let Outcome::Retry { reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("`otlp_grpc`"), "{reason}");
}

#[tokio::test]
async fn keeps_a_connection_and_replaces_one_that_was_closed() {
    let sink = H1Sink::start(|_| answered(200, "", b"")).await;
    let exporter = built(read(&format!("endpoint: 'http://{}'", sink.address)));
    for _ in 0..5 {
        assert_eq!(exporter.export(request(&["a"])).await, Outcome::DELIVERED);
    }
    assert_eq!(*sink.connections.lock(), 1);

    // This one says that it stays and then goes: the next request finds out, and gets through all the same.
    let liar = H1Sink::start(|_| answered(200, "x-note: connection: close\r\n", b"")).await;
    let exporter = built(read(&format!("endpoint: 'http://{}'", liar.address)));
    for _ in 0..20 {
        assert_eq!(exporter.export(request(&["a"])).await, Outcome::DELIVERED);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn opens_a_connection_a_request_where_the_file_says_so() {
    let sink = H1Sink::start(|_| answered(200, "", b"")).await;
    let exporter = built(read(&format!("{{endpoint: 'http://{}', disable_keep_alives: true}}", sink.address)));
    for _ in 0..3 {
        assert_eq!(exporter.export(request(&["a"])).await, Outcome::DELIVERED);
    }
    assert_eq!(*sink.connections.lock(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_left_behind_by_reconnecting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exporter = built(read(&format!("endpoint: 'http://{}'", listener.local_addr().unwrap())));
    let attempt = tokio::time::timeout(Duration::from_secs(30), exporter.export(request(&["a"])));
    attempt.await.unwrap_err();
    exporter.reconnect();
    let (mut silent, _) = listener.accept().await.unwrap();
    // Dropping the attempt closed its connection: the stream has an end.
    silent.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn hands_plain_requests_to_a_proxy_whole() {
    let proxy = H1Sink::start(|_| answered(200, "", b"")).await;
    let url = format!("http://user:pass@proxy.test:{}", proxy.address.port());
    let rules = ProxyRules::read(|name| (name == "HTTP_PROXY").then(|| url.clone()));
    let names = Names::of([("proxy.test", vec![proxy.address])]);
    let exporter = built_with(read("{endpoint: 'http://backend.test:4318', compression: none}"), &rules, Some(names));
    assert_eq!(exporter.export(request(&["a"])).await, Outcome::DELIVERED);
    let seen = proxy.seen.lock()[0].clone();
    assert_eq!(seen.path, "http://backend.test:4318/v1/traces");
    assert_eq!(
        (&seen.headers["host"], &seen.headers["proxy-authorization"]),
        (&"backend.test:4318".parse().unwrap(), &"Basic dXNlcjpwYXNz".parse().unwrap())
    );
}

#[tokio::test]
async fn speaks_tls_through_a_tunnel() {
    let certificates = Certificates::new();
    let sink = H1Sink::start_tls(|_| answered(200, "", b""), Some(certificates.server_config(&[b"http/1.1"], true))).await;
    let proxy = TunnelProxy::start(sink.address, "200 OK").await;
    let names = Names::of([("proxy.test", vec![proxy.address])]);
    let mut config =
        read(&format!("{{endpoint: 'https://backend.test', proxy_url: 'http://proxy.test:{}'}}", proxy.address.port()));
    config.client.tls.ca_pem = Secret::new(&certificates.ca);
    config.client.tls.cert_pem = Secret::new(&certificates.client.0);
    config.client.tls.key_pem = Secret::new(&certificates.client.1);
    let exporter = built_with(config, &ProxyRules::default(), Some(names));
    assert_eq!(exporter.export(request(&["a"])).await, Outcome::DELIVERED);
    assert!(proxy.asked.lock()[0].starts_with("CONNECT backend.test:443 HTTP/1.1\r\n"));
    let seen = sink.seen.lock()[0].clone();
    assert_eq!(
        (&seen.headers["host"], &seen.headers["content-encoding"]),
        (&"backend.test".parse().unwrap(), &"gzip".parse().unwrap())
    );
    assert_eq!(inflated("gzip", &seen.body), traces(&["a"]));
}

#[tokio::test]
async fn shares_one_http_2_connection_where_tls_agrees_on_it() {
    let certificates = Certificates::new();
    let answer = |_: &Seen| Reply::http(200, vec![], "");
    let sink = H2Sink::start_on(Ipv4Addr::LOCALHOST, answer, Some(certificates.server_config(&[b"h2"], false))).await;
    let names = Names::of([("backend.test", vec![sink.address])]);
    let mut config = read("{endpoint: 'https://backend.test:4318', compression: none}");
    config.client.tls.ca_pem = Secret::new(&certificates.ca);
    let exporter = built_with(config, &ProxyRules::default(), Some(names));
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let exporter = exporter.clone();
        calls.spawn(async move { exporter.export(request(&["a"])).await });
    }
    while let Some(outcome) = calls.join_next().await {
        assert_eq!(outcome.unwrap(), Outcome::DELIVERED);
    }
    let seen = sink.seen();
    assert_eq!((seen.len(), *sink.connections.lock()), (10, 1));
    assert_eq!((seen[0].path.as_str(), &seen[0].body[..]), ("/v1/traces", &traces(&["a"])[..]));
    assert_eq!(seen[0].headers["content-length"], seen[0].body.len().to_string());
}

#[test]
fn says_what_cannot_work() {
    for (yaml, expected) in [
        ("{}", "no endpoint is set"),
        ("endpoint: 'backend:4318'", "needs a scheme"),
        ("endpoint: 'http://u:p@backend:4318'", "credentials in an endpoint are not sent"),
        ("{endpoint: 'http://x', encoding: yaml}", "yaml"),
        ("{endpoint: 'http://x', compression: lz4}", "cannot send lz4"),
        ("{endpoint: 'http://x', compression: br}", "`br` is not a compression"),
        ("{endpoint: 'http://x', compression: zstd, compression_params: {level: 40}}", "40 is not a level"),
        ("{endpoint: 'http://x', proxy_url: 'socks5://y'}", "no `socks5` proxies"),
        ("{endpoint: 'http://x', cookies: {enabled: true}}", "keeps no cookies"),
        ("{endpoint: 'http://x', middlewares: [{id: a}]}", "no client middlewares"),
        ("{endpoint: 'http://x', endpont: y}", "endpont"),
    ] {
        let mut found = Diagnostics::default();
        Config::read(&node(yaml), &mut found);
        assert!(found.has_errors() && found.found.iter().any(|d| d.message.contains(expected)), "{yaml}: {found:?}");
    }
}
