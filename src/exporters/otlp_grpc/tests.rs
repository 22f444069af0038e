//! Each over a socket, against a server written on `h2`.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{
    component::{Extensions, RetryCause},
    transport::client::testing::{H2Sink, Reply, Seen, batch, build_context, inflated, span_names, traces, unframed},
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

#[tokio::test]
async fn a_full_backend_is_tried_again() {
    let outcome = outcome_of(|_| Reply::status(14, "no%20room")).await;
    assert_eq!(outcome, Outcome::Retry { reason: "UNAVAILABLE: no room".to_owned(), after: None, cause: RetryCause::Passing });
}
