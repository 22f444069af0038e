//! Before a fake target, through a real door, into a journal that the test holds in its hand.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};

use super::*;
use crate::{
    component::{Extensions, ReceiverConfig as _},
    door::{self, Append, Budget, Door, Pace, Refusal},
    internal_telemetry::Telemetry,
    journal::{NewRecord, SourceId},
    otlp::ScanLimits,
    runtime::{Clock, Shutdown, Step, TaskError},
    signal::Batch,
    transport::client::testing::{H1Sink, answered, build_context, until},
};

struct Journal {
    /// How many are refused before one is taken.
    refuse: Mutex<u32>,
    taken: mpsc::Sender<Batch>,
}

impl Append for Journal {
    fn append(&self, record: NewRecord) -> Step<'static, Result<Pace, Refusal>> {
        let mut refuse = self.refuse.lock();
        if *refuse > 0 {
            *refuse -= 1;
            let refusal = Refusal::Full { reason: "no room".to_owned(), retry_after: Duration::from_millis(1) };
            return Step::Wait(async move { Err(refusal) }.boxed());
        }
        let taken = self.taken.clone();
        Step::Wait(
            async move {
                drop(taken.send(record.batch).await);
                Ok(Pace::NONE)
            }
            .boxed(),
        )
    }
}

/// A receiver before a journal.
pub(super) struct Running {
    given: mpsc::Receiver<Batch>,
    pub(super) telemetry: Telemetry,
    pub(super) receiver: String,
    shutdown: Shutdown,
    tasks: JoinSet<Result<(), TaskError>>,
}

impl Running {
    pub(super) async fn start(yaml: &str, refuse: u32) -> Self {
        let mut found = Diagnostics::default();
        let config = crate::receivers::prometheus::Config::read(&node(yaml), &mut found);
        assert!(!found.has_errors(), "{found:?}");
        let telemetry = Telemetry::default();
        let mut context = build_context(Extensions::default());
        context.telemetry = telemetry.clone();
        context.clock = Clock::system();
        let settings = door::Settings { id: context.id.clone(), source: SourceId(0), limits: ScanLimits::default() };
        let (clock, id) = (context.clock.clone(), context.id.as_str().to_owned());
        let receiver = config.build(context).unwrap();
        let (taken, given) = mpsc::channel(1);
        let append = Arc::new(Journal { refuse: Mutex::new(refuse), taken });
        let behind = door::Behind { takes: [false, true, false], needs: Arc::default(), wants_index: false, append };
        let door = Arc::new(Door::new(settings, behind, Budget::new(64 << 20), clock, &telemetry));
        let (shutdown, mut tasks) = (Shutdown::new(), JoinSet::new());
        tasks.spawn(receiver.start(door, shutdown.clone()).await.unwrap());
        Self { given, telemetry, receiver: id, shutdown, tasks }
    }

    /// The points of the next scrape, without times and without what differs from scrape to scrape.
    pub(super) async fn next(&mut self) -> Vec<String> {
        // Not a measure of anything: what does not come at all is to be said.
        let next = tokio::time::timeout(Duration::from_mins(1), self.given.recv()).await;
        let batch = next.expect("something comes").unwrap();
        let all = lines(&batch.payload).into_iter().filter(|line| !line.starts_with('('));
        let untimed = |line: String| {
            let words: Vec<&str> = line.split(' ').filter(|word| !word.starts_with('@')).collect();
            words.join(" ")
        };
        all.map(untimed).filter(|line| !line.starts_with("gauge scrape_duration_seconds")).collect()
    }

    /// Without resources and series about the scrape.
    async fn points(&mut self) -> Vec<String> {
        let own = |line: &String| !line.starts_with('[') && !line.starts_with("gauge scrape_") && !line.starts_with("gauge up");
        self.next().await.into_iter().filter(own).collect()
    }

    /// The next scrape whose points fulfil this.
    pub(super) async fn until(&mut self, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
        loop {
            let points = self.next().await;
            if holds(&points) {
                return points;
            }
        }
    }

    pub(super) async fn stop(mut self) {
        self.given.close();
        self.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    fn scrapes(&self, outcome: &str) -> f64 {
        let labels = [("receiver", self.receiver.as_str()), ("job", "j"), ("outcome", outcome)];
        self.telemetry.gather().number("weir_scrapes", &labels).unwrap_or(0.0)
    }

    /// A scrape is counted a moment after its points are there.
    async fn counted(&self, outcome: &str, scrapes: f64) {
        until(async || self.scrapes(outcome) >= scrapes).await;
    }
}

pub(super) const TEXT: &str = "content-type: text/plain; version=0.0.4\r\n";

/// A target that tells one page after another, and the last again and again; a status in front of each.
async fn pages(pages: Vec<(u16, &'static str)>) -> H1Sink {
    let next = Mutex::new(0);
    H1Sink::start(move |_| {
        let mut at = next.lock();
        let (status, page) = pages[*at];
        *at = (*at + 1).min(pages.len() - 1);
        answered(status, TEXT, page.as_bytes())
    })
    .await
}

pub(super) fn scrape(sink: &H1Sink, keys: &str) -> String {
    let address = sink.address;
    format!(
        "config: {{scrape_configs: [{{job_name: j, scrape_interval: 20ms, static_configs: [{{targets: ['{address}']}}]{keys}}}]}}"
    )
}

#[tokio::test]
async fn tells_the_page_and_what_the_scrape_was() {
    let sink = pages(vec![(200, "a 1\nb{x=\"y\"} 2\n"), (200, "a 3\nc 1\n")]).await;
    let mut running = Running::start(&scrape(&sink, ", extra_scrape_metrics: true"), 0).await;
    let address = sink.address;
    let expected = [
        format!("[service.name=j,service.instance.id={address},server.port={},url.scheme=http]", address.port()),
        "gauge a {} 1".to_owned(),
        "gauge b {x=y} 2".to_owned(),
        "[resource]".to_owned(),
        "gauge up {} 1".to_owned(),
        "gauge scrape_samples_scraped {} 2".to_owned(),
        "gauge scrape_samples_post_metric_relabeling {} 2".to_owned(),
        "gauge scrape_series_added {} 2".to_owned(),
        "gauge scrape_timeout_seconds in s {} 0.02".to_owned(),
        "gauge scrape_sample_limit {} 0".to_owned(),
        "gauge scrape_body_size_bytes in By {} 15".to_owned(),
    ];
    let mut first = running.next().await;
    first[3] = "[resource]".to_owned();
    assert_eq!(first, expected);
    // What is gone is marked, what is new is counted.
    let second = running.next().await;
    assert_eq!(second[1..2], ["gauge b {x=y} - ended"]);
    assert_eq!(second[3..5], ["gauge a {} 3", "gauge c {} 1"]);
    assert!(second.contains(&"gauge scrape_series_added {} 1".to_owned()));
    let third = running.next().await;
    assert!(third.contains(&"gauge scrape_series_added {} 0".to_owned()) && !third.iter().any(|line| line.contains("ended")));
    running.counted("ok", 3.0).await;
    let seen = sink.seen.lock()[0].clone();
    assert_eq!(seen.headers["x-prometheus-scrape-timeout-seconds"], "0.02");
    assert!(
        seen.headers["accept"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5")
    );
    running.stop().await;
}

#[tokio::test]
async fn a_failed_scrape_ends_all_series_once_and_says_so() {
    let sink = pages(vec![
        (200, "# TYPE h histogram\nh_count 1\nh_bucket{le=\"1\"} 1\na 1 5000\n"),
        (500, "x"),
        (500, "x"),
        (200, "a 1\nb\n"),
        (200, "a 1\n"),
    ])
    .await;
    let mut running = Running::start(&scrape(&sink, ""), 0).await;
    assert_eq!(running.points().await, ["histogram h {} 1 None [1.0] [1, 0]", "gauge a {} 1"]);
    let down = running.next().await;
    // A sample with a time of its own has an end of its own.
    assert_eq!(down[1], "histogram h {} 0 None [] [] ended");
    assert!(down.contains(&"gauge up {} 0".to_owned()) && !down.iter().any(|line| line.starts_with("gauge a")), "{down:?}");
    assert_eq!(running.points().await, [""; 0]);
    assert_eq!(running.points().await, [""; 0], "a page with a fault is none");
    assert_eq!(running.points().await, ["gauge a {} 1"]);
    assert_eq!((running.scrapes("status"), running.scrapes("malformed")), (2.0, 1.0));
    running.stop().await;
}

#[tokio::test]
async fn what_found_no_room_comes_again_before_the_next_scrape_and_is_lost_after() {
    let sink = pages(vec![(200, "a 1\n")]).await;
    let yaml = scrape(&sink, "").replace("20ms", "300ms");
    let mut running = Running::start(&yaml, 3).await;
    assert_eq!(running.points().await, ["gauge a {} 1"]);
    assert!(running.scrapes("refused") < 1.0);
    running.stop().await;
    let mut running = Running::start(&yaml, 2000).await;
    running.until(|points| points.iter().any(|line| line == "gauge a {} 1")).await;
    assert!(running.scrapes("refused") >= 1.0);
    running.stop().await;
}

/// One scrape of a target that gives this answer; its points, and the outcome that was counted.
async fn once(keys: &str, answer: Vec<u8>) -> (Vec<String>, &'static str) {
    let sink = H1Sink::start(move |_| answer.clone()).await;
    let mut running = Running::start(&scrape(&sink, keys).replace("20ms", "200ms"), 0).await;
    let points = running.points().await;
    let outcomes =
        ["ok", "connection", "timeout", "status", "malformed", "body_size", "media_type", "limit", "credentials", "refused"];
    let outcome = loop {
        if let Some(found) = outcomes.into_iter().find(|outcome| running.scrapes(outcome) > 0.0) {
            break found;
        }
        tokio::task::yield_now().await;
    };
    running.stop().await;
    (points, outcome)
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn answers_of_all_kinds_end_as_they_should() {
    let a = || vec!["gauge a {} 1".to_owned()];
    let none = Vec::<String>::new;
    let gzip = |body: &[u8]| answered(200, &format!("{TEXT}content-encoding: gzip\r\n"), &gzipped(body));
    assert_eq!(once("", gzip(b"a 1\n")).await, (a(), "ok"));
    assert_eq!(once(", body_size_limit: 1MB", gzip(&vec![b'#'; 2 << 20])).await, (none(), "body_size"), "a bomb");
    assert_eq!(once(", body_size_limit: 3B", answered(200, TEXT, b"a 1\n")).await, (none(), "body_size"));
    assert_eq!(once("", answered(200, "", b"a 1\n")).await, (a(), "ok"), "as the Collector has it, not as Prometheus");
    assert_eq!(
        once(", fallback_scrape_protocol: OpenMetricsText1.0.0", answered(200, "", b"a 1\n")).await,
        (none(), "malformed")
    );
    assert_eq!(once("", answered(204, TEXT, b"")).await, (none(), "status"));
    assert_eq!(
        once("", b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\na 1\n".to_vec()).await,
        (none(), "timeout"),
        "the rest never comes"
    );
    assert_eq!(
        once("", b"HTTP/1.1 200 x\r\ncontent-length: 9\r\nconnection: close\r\n\r\na 1\n".to_vec()).await,
        (none(), "malformed")
    );
    assert_eq!(once("", b"SSH-2.0-x\r\n".to_vec()).await, (none(), "connection"));
    assert_eq!(
        once(", basic_auth: {username: u, password_file: /nowhere}", answered(200, TEXT, b"a 1\n")).await,
        (none(), "credentials")
    );
    assert_eq!(once("", answered(302, "location: http://127.0.0.2:1/\r\n", b"")).await, (none(), "status"), "another host");
    assert_eq!(once("", answered(302, "location: /metrics\r\n", b"")).await, (none(), "status"), "round and round");
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed_with_the_credentials() {
    let sink = H1Sink::start(|seen| match seen.path.as_str() {
        "/metrics" => answered(301, "location: /metrics/?x=1\r\n", b"moved"),
        _ => answered(200, TEXT, b"a 1\n"),
    })
    .await;
    let keys = ", basic_auth: {username: u, password: p}, http_headers: {X-Tenant: {values: [t]}}";
    let mut running = Running::start(&scrape(&sink, keys), 0).await;
    assert_eq!(running.points().await, ["gauge a {} 1"]);
    let seen = sink.seen.lock()[1].clone();
    assert_eq!((seen.path.as_str(), seen.headers["authorization"].to_str().unwrap()), ("/metrics/?x=1", "Basic dTpw"));
    assert_eq!(seen.headers["x-tenant"], "t");
    running.stop().await;
}

#[tokio::test]
async fn redirects_to_another_host_are_not_followed() {
    let sink = H1Sink::start(|seen| match seen.path.as_str() {
        "/metrics" => answered(302, "location: http://127.0.0.2:1/other\r\n", b""),
        _ => answered(200, TEXT, b"a 1\n"),
    })
    .await;
    let mut running = Running::start(&scrape(&sink, ""), 0).await;
    assert!(running.next().await.contains(&"gauge up {} 0".to_owned()));
    running.stop().await;
    assert!(sink.seen.lock().iter().all(|seen| seen.path == "/metrics"));
}

#[tokio::test]
async fn targets_with_tls_are_scraped_when_their_certificate_is_right() {
    let certificates = crate::transport::client::testing::Certificates::new();
    let sink =
        H1Sink::start_tls(|_| answered(200, TEXT, b"a 1\n"), Some(certificates.server_config(&[b"http/1.1"], false))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &certificates.ca).unwrap();
    let keys = |name: &str| format!(", scheme: https, tls_config: {{ca_file: '{}', server_name: {name}}}", file.path().display());
    // A handshake takes its time in a debug build.
    let slowly = |name: &str| scrape(&sink, &keys(name)).replace("20ms", "2s");
    let mut running = Running::start(&slowly("backend.test"), 0).await;
    let points = running.next().await;
    assert!(points[0].contains("url.scheme=https") && points.contains(&"gauge a {} 1".to_owned()), "{points:?}");
    running.stop().await;
    let mut running = Running::start(&slowly("other.test"), 0).await;
    assert!(running.next().await.contains(&"gauge up {} 0".to_owned()));
    running.stop().await;
}
