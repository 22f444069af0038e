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
    receiver: String,
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
