//! The page, the log, and own telemetry sent to a backend of a few lines.

#![allow(clippy::float_cmp, reason = "whole numbers")]

mod settings;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::{metric::Data, number_data_point::Value as PointValue},
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tracing_subscriber::{Layer, layer::SubscriberExt, registry::Registry};

use super::*;
use crate::{
    runtime::{Clock, Shutdown},
    signal::UnixNanos,
    transport::server::{Body, Bound, HttpServerSettings, HttpService},
};

// === the page ===

fn filled() -> Telemetry {
    let telemetry = Telemetry::default();
    telemetry.receiver("otlp/eu", "grpc").accepted[0].inc_by(7);
    telemetry.on_scrape(|out| out.float_counter(PROCESS_UPTIME, "Uptime of the process.", &[], 1.5));
    telemetry.on_scrape(|out| out.gauge(PROCESS_MEMORY_RSS, "Memory.", &[], 4096.0));
    telemetry
}

fn identity() -> Identity {
    Identity { attributes: BTreeMap::from([("service.name".to_owned(), "weir \"x\"".to_owned())]) }
}

#[test]
fn names_are_bare_by_default() {
    let page = text(&filled().gather(), &identity(), &Style::default());
    assert!(page.contains("# TYPE otelcol_receiver_accepted_spans counter\n"), "{page}");
    assert!(page.contains("otelcol_receiver_accepted_spans{receiver=\"otlp/eu\",transport=\"grpc\"} 7\n"), "{page}");
    assert!(page.contains("\notelcol_process_uptime 1.5\n"), "{page}");
    assert!(page.contains("\notelcol_process_memory_rss 4096\n"), "{page}");
    assert!(page.contains("\ntarget_info{service_name=\"weir \\\"x\\\"\"} 1\n"), "{page}");
}

#[test]
fn names_carry_unit_type_and_scope_where_asked() {
    let style = Style {
        without_type_suffix: false,
        without_units: false,
        without_scope_info: false,
        without_target_info: true,
        constant_labels: Patterns { included: vec!["service.*".to_owned()], excluded: vec!["service.instance.id".to_owned()] },
    };
    let page = text(&filled().gather(), &identity(), &style);
    let scope = format!("otel_scope_name=\"weir\",otel_scope_version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let own = format!("service_name=\"weir \\\"x\\\"\",{scope}");
    assert!(page.contains(&format!("\notelcol_process_uptime_seconds_total{{{own}}} 1.5\n")), "{page}");
    assert!(page.contains(&format!("\notelcol_process_memory_rss_bytes{{{own}}} 4096\n")), "{page}");
    assert!(page.contains("otelcol_receiver_accepted_spans_total{"), "{page}");
    assert!(!page.contains("target_info"), "{page}");
}

#[test]
fn a_histogram_is_written_with_all_its_lines() {
    let telemetry = Telemetry::default();
    let histogram =
        prometheus::Histogram::with_opts(prometheus::HistogramOpts::new("size", "Sizes.").buckets(vec![1.0, 10.0])).unwrap();
    telemetry.registry().register(Box::new(histogram.clone())).unwrap();
    histogram.observe(5.0);
    histogram.observe(50.0);
    let page = text(&telemetry.gather(), &identity(), &Style::default());
    let lines = "size_bucket{le=\"1\"} 0\nsize_bucket{le=\"10\"} 1\nsize_bucket{le=\"+Inf\"} 2\nsize_sum 55\nsize_count 2\n";
    assert!(page.contains(lines), "{page}");
}

#[test]
fn two_kinds_of_one_name_leave_the_page_readable() {
    let telemetry = Telemetry::default();
    telemetry.on_scrape(|out| out.counter("x", "First.", &[], 1));
    telemetry.on_scrape(|out| out.gauge("x", "Second.", &[], 2.0));
    let page = text(&telemetry.gather(), &identity(), &Style { without_target_info: true, ..Style::default() });
    assert_eq!(page, "# HELP x First.\n# TYPE x counter\nx 1\n");
}

#[test]
fn books_are_shown_term_by_term() {
    let telemetry = Telemetry::default();
    telemetry.on_scrape(|out| {
        out.books(&Books {
            pipeline: "traces",
            component: "otlp/a",
            signal: "traces",
            accepted: 10,
            delivered: 5,
            dropped: &[("rejected", 2), ("lag", 1)],
            held_items: 2,
            held_bytes: 300,
        });
    });
    let samples = telemetry.gather();
    let labels = [("pipeline", "traces"), ("component", "otlp/a"), ("signal", "traces")];
    let with = |reason| [labels[0], labels[1], labels[2], ("reason", reason)];
    let number = |name, labels: &[(&str, &str)]| samples.number(name, labels).unwrap();
    assert_eq!(number(CONSUMER_ACCEPTED, &labels), 10.0);
    let sum = number(CONSUMER_DELIVERED, &labels)
        + number(CONSUMER_DROPPED, &with("rejected"))
        + number(CONSUMER_DROPPED, &with("lag"))
        + number(CONSUMER_HELD_ITEMS, &labels);
    assert_eq!(sum, 10.0);
    assert_eq!(number(CONSUMER_HELD_BYTES, &labels), 300.0);
}

#[tokio::test]
async fn the_process_is_measured_when_somebody_looks() {
    let telemetry = Telemetry::default();
    telemetry.watch_process();
    let samples = telemetry.gather();
    assert!(samples.number(PROCESS_MEMORY_RSS, &[]).unwrap() > 1e6);
    assert!(samples.number(PROCESS_UPTIME, &[]).unwrap() >= 0.0);
    let before = samples.number(PROCESS_CPU_SECONDS, &[]).unwrap();
    // CPU time counts in ticks of 10 ms.
    let mut spin = 0u64;
    while telemetry.gather().number(PROCESS_CPU_SECONDS, &[]).unwrap() <= before {
        spin += 1;
        assert!(spin < 1_000_000, "CPU time stands still");
    }
}

async fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn serves_the_page_and_nothing_else() {
    let reader = PullReader { endpoint: "127.0.0.1:0".to_owned(), style: Style::default() };
    let shutdown = Shutdown::new();
    let (addresses, task) =
        crate::service::serve_page(&reader, "service::telemetry", filled(), identity(), shutdown.clone()).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    let ask = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let page = get(addresses[0], &ask("GET /metrics")).await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("otelcol_receiver_accepted_spans{"), "{page}");
    assert!(get(addresses[0], &ask("GET /other")).await.starts_with("HTTP/1.1 404"));
    assert!(get(addresses[0], &ask("POST /metrics")).await.starts_with("HTTP/1.1 405"));
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

// === the log ===

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `act` logs under `settings`, with a clock that stands at `now`.
fn logged(settings: &LogSettings, now: &Arc<AtomicU64>, act: impl FnOnce()) -> (String, u64) {
    let written = Written::default();
    let clock = now.clone();
    let clock = Clock::new(move || UnixNanos(clock.load(Ordering::Relaxed)));
    let logging = Logging::to(settings, clock, vec![Box::new(written.clone())]);
    let suppressed = logging.suppressed();
    let filter = logging.filter();
    tracing::subscriber::with_default(Registry::default().with(logging.with_filter(filter)), act);
    let text = String::from_utf8(written.0.lock().clone()).unwrap();
    (text, suppressed.load(Ordering::Relaxed))
}

fn at(seconds: u64) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(seconds * 1_000_000_000))
}

#[test]
fn a_console_line_has_time_level_message_and_fields() {
    let (text, _) = logged(&LogSettings::default(), &at(1_700_000_000), || {
        tracing::warn!(attempt = 3, endpoint = "127.0.0.1:4317", "export failed, will retry");
        tracing::info!("ready");
        tracing::debug!("not shown");
    });
    assert_eq!(
        text,
        "2023-11-14T22:13:20.000Z\twarn\texport failed, will retry\t{\"attempt\":3,\"endpoint\":\"127.0.0.1:4317\"}\n\
         2023-11-14T22:13:20.000Z\tinfo\tready\n"
    );
}

#[test]
fn a_json_line_is_one_object() {
    let settings = LogSettings {
        encoding: LogEncoding::Json,
        initial_fields: BTreeMap::from([("site".to_owned(), "lab".to_owned())]),
        ..LogSettings::default()
    };
    let (text, _) = logged(&settings, &at(0), || tracing::error!(share = 0.5, ok = false, "bad"));
    let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    let expected = serde_json::json!({
        "level": "error", "ts": "1970-01-01T00:00:00.000Z", "msg": "bad", "site": "lab", "share": 0.5, "ok": false
    });
    assert_eq!(value, expected);
}

#[test]
fn nothing_a_peer_says_moves_the_cursor_or_fills_the_screen() {
    let nasty = format!("\u{1b}[2J\r\n\u{202e}{}", "x".repeat(100_000));
    for encoding in [LogEncoding::Console, LogEncoding::Json] {
        let settings = LogSettings { encoding, ..LogSettings::default() };
        let (text, _) = logged(&settings, &at(0), || {
            tracing::info!(service = nasty.as_str(), debug = ?nasty, display = %nasty, "first data of {nasty}");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_end().chars().all(|c| c == '\t' || !c.is_control()), "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
        assert!(text.len() < 1024 + 4 * 256 + 256, "{} bytes", text.len());
    }
}

#[test]
fn equal_lines_are_sampled_within_a_tick_and_counted() {
    let settings =
        LogSettings { sampling: Some(Sampling { initial: 2, thereafter: 10, ..Sampling::default() }), ..LogSettings::default() };
    let now = at(100);
    let (text, suppressed) = logged(&settings, &now, || {
        for _ in 0..22 {
            tracing::info!("again");
        }
        tracing::info!("another");
        now.fetch_add(10_000_000_000, Ordering::Relaxed);
        tracing::info!("again");
    });
    // Two at once, the 10th and 20th of the rest, and one of the next tick.
    assert_eq!(text.matches("again").count(), 5, "{text}");
    assert_eq!(text.matches("another").count(), 1);
    assert_eq!(suppressed, 18);
}

#[test]
fn without_sampling_every_line_is_written() {
    let settings = LogSettings { sampling: None, ..LogSettings::default() };
    let (text, suppressed) = logged(&settings, &at(100), || (0..500).for_each(|_| tracing::info!("again")));
    assert_eq!((text.lines().count(), suppressed), (500, 0));
}

#[test]
fn what_is_said_once_of_each_is_never_sampled() {
    let (text, suppressed) = logged(&LogSettings::default(), &at(100), || {
        (0..50).for_each(|number| tracing::info!(target: ONCE, service = number, "first data of a service"));
    });
    assert_eq!((text.lines().count(), suppressed), (50, 0));
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let settings = LogSettings { output_paths: vec!["/nowhere/at/all.log".to_owned()], ..LogSettings::default() };
    let error = Logging::open(&settings, Clock::system()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all.log") && error.contains("output_paths"), "{error}");
}

// === own telemetry over OTLP ===

/// Keeps the bodies that were posted, by path.
#[derive(Default)]
struct Backend {
    bodies: Mutex<Vec<(String, Option<String>, Bytes)>>,
}

impl HttpService for Backend {
    fn call(self: Arc<Self>, request: Request<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let token = request.headers().get("x-token").and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = request.into_body().collect().await.unwrap().to_bytes();
            self.bodies.lock().push((path, token, body));
            Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_own_metrics_and_spans_where_asked() {
    let backend = Arc::new(Backend::default());
    let bound = Bound::bind(
        &HttpServerSettings { endpoint: "127.0.0.1:0".to_owned(), ..Default::default() },
        "test",
        &crate::runtime::Sockets::default(),
    )
    .await
    .unwrap();
    let base = format!("http://{}", bound.addresses()[0]);
    let shutdown = Shutdown::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(bound.serve(backend.clone(), shutdown.clone()));

    let target = |path: &str| OtlpTarget {
        protocol: OtlpProtocol::HttpProtobuf,
        endpoint: format!("{base}{path}"),
        headers: BTreeMap::from([("x-token".to_owned(), "t".to_owned())]),
        timeout: Duration::from_secs(10),
        delta: false,
    };
    let settings = TelemetrySettings {
        readers: vec![Reader::Periodic { interval: Duration::from_hours(1), target: target("/v1/metrics") }],
        spans: vec![SpanProcessor::Batch {
            delay: Duration::from_hours(1),
            queue_size_max: 10,
            batch_size_max: 10,
            target: target("/v1/traces"),
        }],
        identity: identity(),
        ..TelemetrySettings::default()
    };
    let telemetry = filled();
    let export = OwnExport::build(&settings, &telemetry).unwrap();
    // Appears after the reader was made: learned at the latest when it ends.
    telemetry.exporter("nop").sent[1].inc_by(3);
    let layer = otlp::span_layer(export.tracers().unwrap());
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        tracing::info_span!("drain").in_scope(|| ());
        tracing::info_span!(target: "h2", "not ours").in_scope(|| ());
    });
    export.finish().await;
    shutdown.cancel();

    let bodies = backend.bodies.lock().clone();
    assert!(bodies.iter().all(|(_, token, _)| token.as_deref() == Some("t")));
    let of = |path: &str| bodies.iter().filter(|(at, _, _)| at == path).map(|(_, _, body)| body.clone()).collect::<Vec<_>>();
    let [traces] = <[Bytes; 1]>::try_from(of("/v1/traces")).unwrap();
    let traces = ExportTraceServiceRequest::decode(traces).unwrap();
    let names: Vec<_> = traces.resource_spans[0].scope_spans[0].spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["drain"]);
    let metrics = of("/v1/metrics").into_iter().next_back().unwrap();
    let metrics = ExportMetricsServiceRequest::decode(metrics).unwrap();
    let resource = metrics.resource_metrics[0].resource.as_ref().unwrap();
    assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.name"));
    let sums: BTreeMap<_, _> = metrics.resource_metrics[0].scope_metrics[0]
        .metrics
        .iter()
        .filter_map(|metric| match &metric.data {
            Some(Data::Sum(sum)) => match sum.data_points[0].value {
                Some(PointValue::AsDouble(value)) => Some((metric.name.as_str(), value)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(sums.get("otelcol_receiver_accepted_spans"), Some(&7.0));
    assert_eq!(sums.get("otelcol_exporter_sent_metric_points"), Some(&3.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_exports_that_failed() {
    // Bound and closed again: nobody listens there.
    let bound = Bound::bind(
        &HttpServerSettings { endpoint: "127.0.0.1:0".to_owned(), ..Default::default() },
        "test",
        &crate::runtime::Sockets::default(),
    )
    .await
    .unwrap();
    let endpoint = format!("http://{}/v1/metrics", bound.addresses()[0]);
    drop(bound);
    let target = OtlpTarget {
        protocol: OtlpProtocol::HttpProtobuf,
        endpoint,
        headers: BTreeMap::new(),
        timeout: Duration::from_millis(500),
        delta: false,
    };
    let settings = TelemetrySettings {
        readers: vec![Reader::Periodic { interval: Duration::from_hours(1), target }],
        ..TelemetrySettings::default()
    };
    let telemetry = filled();
    OwnExport::build(&settings, &telemetry).unwrap().finish().await;
    assert_eq!(telemetry.gather().number(OWN_EXPORTS_FAILED, &[("signal", "metrics")]), Some(1.0));
}
