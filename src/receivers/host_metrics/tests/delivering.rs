//! Through a real door, into a journal that the test holds in its hand.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};

use super::super::Config;
use crate::{
    component::{BuildContext, Extensions, Notes, ReceiverConfig as _},
    config::{Diagnostics, Input, Machine, load},
    door::{self, Append, Budget, Door, Pace, Refusal},
    internal_telemetry::Telemetry,
    journal::{NewRecord, SourceId},
    otlp::ScanLimits,
    runtime::{Clock, Health, Shutdown, Step, TaskError},
    signal::{Batch, ComponentId, Signal, UnixNanos},
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

/// A receiver of these settings before a journal that refuses so many requests first.
struct Running {
    given: mpsc::Receiver<Batch>,
    telemetry: Telemetry,
    shutdown: Shutdown,
    tasks: JoinSet<Result<(), TaskError>>,
}

impl Running {
    async fn start(text: &str, refuse: u32) -> Self {
        let loaded = load(&[Input::Text { name: "test".to_owned(), text: text.to_owned() }], &Machine);
        let config = Config::read(&loaded.node, &mut Diagnostics::default());
        let (telemetry, clock) = (Telemetry::default(), Clock::new(|| UnixNanos(5)));
        let context = context(&telemetry, &clock);
        let settings = door::Settings { id: context.id.clone(), source: SourceId(0), limits: ScanLimits::default() };
        let receiver = config.build(context).unwrap();
        let (taken, given) = mpsc::channel(1);
        let append = Arc::new(Journal { refuse: Mutex::new(refuse), taken });
        let behind = door::Behind { takes: [false, true, false], needs: Arc::default(), wants_index: false, append };
        let door = Arc::new(Door::new(settings, behind, Budget::new(1 << 20), clock, &telemetry));
        let (shutdown, mut tasks) = (Shutdown::new(), JoinSet::new());
        tasks.spawn(receiver.start(door, shutdown.clone()).await.unwrap());
        Self { given, telemetry, shutdown, tasks }
    }

    async fn next(&mut self) -> Batch {
        // Not a measure of anything: what does not come at all is to be said.
        let next = tokio::time::timeout(Duration::from_mins(1), self.given.recv()).await;
        next.expect("something comes").unwrap()
    }

    async fn stop(mut self) {
        self.given.close();
        self.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn context(telemetry: &Telemetry, clock: &Clock) -> BuildContext {
    BuildContext {
        notes: Notes::default(),
        claims: crate::component::Claims::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: ComponentId::parse("host_metrics").unwrap(),
        telemetry: telemetry.clone(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: clock.clone(),
    }
}

#[tokio::test]
async fn collects_once_an_interval() {
    let text = "{collection_interval: 10ms, initial_delay: 0s, scrapers: {system: , memory: }}";
    let mut running = Running::start(text, 0).await;
    let (first, second) = (running.next().await, running.next().await);
    assert_eq!((first.signal, first.items), (Signal::Metrics, second.items));
    assert_eq!(first.items, 7);
    running.stop().await;
}

#[tokio::test]
async fn what_found_no_room_comes_again_before_the_next_collection() {
    let mut running = Running::start("{collection_interval: 1h, initial_delay: 0s, scrapers: {system: }}", 3).await;
    assert_eq!(running.next().await.items, 1);
    let labels = [("receiver", "host_metrics"), ("transport", "scrape")];
    let gathered = running.telemetry.gather();
    assert_eq!(gathered.number("otelcol_receiver_refused_metric_points", &labels), Some(3.0));
    running.stop().await;
}

#[test]
fn a_root_that_is_not_there_is_told_of_with_its_key() {
    let input = Input::Text { name: "test".to_owned(), text: "{root_path: /nowhere, scrapers: {cpu: }}".to_owned() };
    let loaded = load(&[input], &Machine);
    let mut found = Diagnostics::default();
    let config = Config::read(&loaded.node, &mut found);
    assert!(!found.has_errors());
    let Err(error) = config.build(context(&Telemetry::default(), &Clock::system())) else { panic!("it builds") };
    assert_eq!(error.to_string(), "root_path: there is no directory `/nowhere`");
}
