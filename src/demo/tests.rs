//! Scripts by themselves, and whole runs against a backend of a few lines that decodes with the official types.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use opentelemetry::trace::SpanKind;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::metric::Data,
    resource::v1::Resource,
    trace::v1::Span,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::task::JoinSet;

use super::*;
use crate::{
    runtime::Shutdown,
    transport::server::{Body, Bound, HttpServerSettings, HttpService},
};
use script::Script;

fn visits(error_pct: f64) -> Vec<Script> {
    (0..400).map(|number| shop::visit(7, number, error_pct)).collect()
}

#[test]
fn only_errors_of_connecting_say_that_nobody_is_there() {
    let totals = |error: &str, spans| Totals { spans, last_error: Some(error.to_owned()), ..Totals::default() };
    for error in [
        "TonicLogsClient export failed with gRPC code: Unavailable: transport error: tcp connect error: Connection refused (os error 111)",
        "HTTP export failed: network error",
    ] {
        assert_eq!(totals(error, 0).nobody_there(), Some(error));
        assert_eq!(totals(error, 1).nobody_there(), None, "somebody was there before");
    }
    let refused = totals("HTTP export failed with status 401", 0);
    assert_eq!(refused.nobody_there(), None);
    let mut out = Vec::new();
    summary(&mut out, "http://x", &refused).unwrap();
    assert!(!String::from_utf8(out).unwrap().contains("is something listening"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_early_where_nobody_listens() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let args = DemoArgs {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        http: false,
        rate: 5.0,
        duration: Some(Duration::from_mins(5)),
        error_pct: 0.0,
        seed: Some(1),
    };
    let ended = tokio::time::timeout(Duration::from_mins(1), run(args, &mut Vec::new())).await.unwrap();
    assert!(matches!(ended, Err(DemoError::Nobody { .. })), "{ended:?}");
}

#[test]
fn one_seed_gives_one_script() {
    for number in 0..200 {
        let (one, two) = (shop::visit(7, number, 5.0), shop::visit(7, number, 5.0));
        assert_eq!((one.acts, one.notes, one.effects), (two.acts, two.notes, two.effects));
    }
    assert_ne!(shop::visit(7, 1, 5.0).acts, shop::visit(8, 1, 5.0).acts);
}

#[test]
fn parents_and_senders_come_before_those_who_name_them() {
    for script in visits(20.0) {
        for (number, act) in script.acts.iter().enumerate() {
            assert!(act.start <= act.end, "{act:?}");
            for earlier in [act.parent, act.link].into_iter().flatten() {
                assert!(earlier < number && script.acts[earlier].start <= act.start, "{act:?}");
            }
        }
    }
}

#[test]
fn nothing_fails_at_0_percent_and_every_visit_at_100() {
    let failed = |script: &Script| script.acts.iter().any(|act| act.error.is_some());
    assert!(!visits(0.0).iter().any(failed));
    assert!(visits(100.0).iter().all(failed));
    let some = visits(10.0).iter().filter(|script| failed(script)).count();
    assert!((20..120).contains(&some), "{some} of 400");
}

#[test]
fn every_part_of_a_shop_is_there() {
    let scripts = visits(10.0);
    let acts: Vec<_> = scripts.iter().flat_map(|script| &script.acts).collect();
    let services: BTreeSet<_> = acts.iter().map(|act| act.service).collect();
    assert_eq!(services.len(), Service::ALL.len());
    assert!(acts.iter().any(|act| act.attribute("shop.retry").is_some()), "no retry");
    assert!(acts.iter().any(|act| act.attribute("db.system.name").is_some()), "no database");
    assert!(acts.iter().any(|act| act.attribute("peer.service").is_some()), "nobody outside");
    assert!(acts.iter().any(|act| act.parent.is_none() && act.kind == SpanKind::Internal), "no internal root");
    assert!(acts.iter().any(|act| act.parent.is_none() && act.link.is_some()), "no consumer in a trace of its own");
    assert!(acts.iter().any(|act| act.parent.is_some() && act.link.is_some()), "no consumer in its sender's trace");
    // Fan-out: some act has several children that overlap.
    let overlap = scripts.iter().any(|script| {
        let children: Vec<_> = script.acts.iter().filter(|act| act.parent.is_some()).collect();
        children.iter().enumerate().any(|(number, one)| {
            children.iter().skip(number + 1).any(|two| one.parent == two.parent && one.start < two.end && two.start < one.end)
        })
    });
    assert!(overlap, "no fan-out");
}

// === whole runs ===

#[derive(Default)]
struct Backend {
    bodies: Mutex<Vec<(String, Bytes)>>,
}

impl HttpService for Backend {
    fn call(self: Arc<Self>, request: Request<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            self.bodies.lock().push((path, body));
            Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync())
        })
    }
}

struct Ran {
    totals: Totals,
    said: String,
    traces: Vec<ExportTraceServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
}

impl Ran {
    fn spans(&self) -> impl Iterator<Item = (&Resource, &Span)> {
        let groups = self.traces.iter().flat_map(|request| &request.resource_spans);
        groups.flat_map(|group| {
            let resource = group.resource.as_ref().unwrap();
            group.scope_spans.iter().flat_map(move |scope| scope.spans.iter().map(move |span| (resource, span)))
        })
    }
}

fn args(endpoint: String) -> DemoArgs {
    DemoArgs {
        endpoint: Some(endpoint),
        http: true,
        rate: 5000.0,
        duration: Some(Duration::from_millis(40)),
        error_pct: 10.0,
        seed: Some(11),
    }
}

async fn ran() -> Ran {
    let backend = Arc::new(Backend::default());
    let settings = HttpServerSettings { endpoint: "127.0.0.1:0".to_owned(), ..HttpServerSettings::default() };
    let bound = Bound::bind(&settings, "test", &crate::runtime::Sockets::default()).await.unwrap();
    let endpoint = bound.addresses()[0].to_string();
    let shutdown = Shutdown::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(bound.serve(backend.clone(), shutdown.clone()));
    let mut said = Vec::new();
    let totals = run(args(endpoint), &mut said).await.unwrap();
    shutdown.cancel();
    let bodies = std::mem::take(&mut *backend.bodies.lock());
    let of = |path: &str| bodies.iter().filter(|(at, _)| at == path).map(|(_, body)| body.clone()).collect::<Vec<_>>();
    Ran {
        totals,
        said: String::from_utf8(said).unwrap(),
        traces: of("/v1/traces").into_iter().map(|body| ExportTraceServiceRequest::decode(body).unwrap()).collect(),
        logs: of("/v1/logs").into_iter().map(|body| ExportLogsServiceRequest::decode(body).unwrap()).collect(),
        metrics: of("/v1/metrics").into_iter().map(|body| ExportMetricsServiceRequest::decode(body).unwrap()).collect(),
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_it_counts_arrives() {
    let ran = ran().await;
    assert!(ran.totals.complete(), "{}", ran.said);
    assert_eq!(ran.totals.visits, 200);
    assert_eq!(ran.spans().count() as u64, ran.totals.spans);
    let services: BTreeSet<_> = ran.spans().filter_map(|(resource, _)| text(&resource.attributes, "service.name")).collect();
    assert_eq!(services.len(), 10);
    assert!(ran.spans().all(|(resource, _)| text(&resource.attributes, "telemetry.sdk.language") == Some("rust")));

    let by_id: BTreeMap<_, _> = ran.spans().map(|(_, span)| (span.span_id.clone(), span)).collect();
    assert_eq!(by_id.len() as u64, ran.totals.spans, "span ids repeat");
    for (_, span) in ran.spans().filter(|(_, span)| !span.parent_span_id.is_empty()) {
        assert_eq!(by_id[&span.parent_span_id].trace_id, span.trace_id, "{}", span.name);
    }
    let links: Vec<_> = ran.spans().flat_map(|(_, span)| span.links.iter().map(move |link| (span, link))).collect();
    assert!(links.iter().all(|(_, link)| by_id[&link.span_id].trace_id == link.trace_id));
    assert!(links.iter().any(|(span, link)| span.trace_id != link.trace_id), "no link leads to another trace");
    let exceptions = ran.spans().flat_map(|(_, span)| &span.events).filter(|event| event.name == "exception");
    let exceptions: Vec<_> = exceptions.collect();
    assert!(!exceptions.is_empty());
    assert!(exceptions.iter().all(|event| text(&event.attributes, "exception.stacktrace").is_some()));

    let groups = ran.logs.iter().flat_map(|request| &request.resource_logs);
    let records: Vec<_> = groups.flat_map(|group| &group.scope_logs).flat_map(|scope| &scope.log_records).collect();
    assert_eq!(records.len() as u64, ran.totals.logs);
    assert!(records.iter().all(|record| by_id[&record.span_id].trace_id == record.trace_id));

    let groups = ran.metrics.iter().flat_map(|request| &request.resource_metrics);
    let metrics: Vec<_> = groups.flat_map(|group| &group.scope_metrics).flat_map(|scope| &scope.metrics).collect();
    let kinds: BTreeSet<_> = metrics
        .iter()
        .map(|metric| match metric.data.as_ref().unwrap() {
            Data::Gauge(_) => "gauge",
            Data::Sum(sum) if sum.is_monotonic => "counter",
            Data::Sum(_) => "up-down counter",
            Data::Histogram(_) => "histogram",
            Data::ExponentialHistogram(_) => "exponential histogram",
            Data::Summary(_) => "summary",
        })
        .collect();
    assert_eq!(kinds, BTreeSet::from(["gauge", "counter", "up-down counter", "histogram", "exponential histogram"]));
    assert!(ran.said.contains("seed 11") && ran.said.contains("exports failed: 0"), "{}", ran.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_sends_one_set_of_spans() {
    let (one, two) = (ran().await, ran().await);
    let set = |ran: &Ran| -> BTreeSet<_> {
        ran.spans()
            .map(|(_, span)| {
                let duration = span.end_time_unix_nano - span.start_time_unix_nano;
                (span.trace_id.clone(), span.span_id.clone(), span.parent_span_id.clone(), span.name.clone(), duration)
            })
            .collect()
    };
    assert_eq!(set(&one), set(&two));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_what_was_lost_where_nobody_listens() {
    let settings = HttpServerSettings { endpoint: "127.0.0.1:0".to_owned(), ..HttpServerSettings::default() };
    let bound = Bound::bind(&settings, "test", &crate::runtime::Sockets::default()).await.unwrap();
    let endpoint = bound.addresses()[0].to_string();
    drop(bound);
    let mut said = Vec::new();
    let mut args = args(endpoint);
    args.duration = Some(Duration::from_millis(4));
    let totals = run(args, &mut said).await.unwrap();
    assert!(!totals.complete() && totals.exports_failed > 0 && totals.lost > 20, "{totals:?}");
    assert_eq!(totals.spans, 0);
    assert!(String::from_utf8(said).unwrap().contains("is something listening on"));
}

#[test]
fn refuses_an_endpoint_it_cannot_speak_to() {
    let error = targets(&args("https://example.org".to_owned())).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("https://example.org"));
}
