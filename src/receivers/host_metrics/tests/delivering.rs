//! Through a real door, into a journal that the test holds in its hand.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::Config;
use crate::{
    component::{BuildContext, Extensions, Notes, ReceiverConfig as _},
    config::{Diagnostics, Input, Machine, load},
    door::{self, Append, Budget, Door, Pace, Refusal},
    internal_telemetry::Telemetry,
    journal::{NewRecord, SourceId},
    otlp::ScanLimits,
    runtime::{Clock, Health, Shutdown, Step},
    signal::{Batch, ComponentId, UnixNanos},
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
                taken.send(record.batch).await.unwrap();
                Ok(Pace::NONE)
            }
            .boxed(),
        )
    }
}

#[tokio::test]
async fn collects_once_an_interval_and_comes_again_when_there_was_no_room() {
    let text = "{collection_interval: 100ms, initial_delay: 0s, scrapers: {system: , memory: }}";
    let loaded = load(&[Input::Text { name: "test".to_owned(), text: text.to_owned() }], &Machine);
    let config = Config::read(&loaded.node, &mut Diagnostics::default());
    let telemetry = Telemetry::default();
    let id = ComponentId::parse("host_metrics").unwrap();
    let clock = Clock::new(|| UnixNanos(5));
    let context = BuildContext {
        notes: Notes::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: id.clone(),
        telemetry: telemetry.clone(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: clock.clone(),
    };
    let receiver = config.build(context).unwrap();
    let (taken, mut given) = mpsc::channel(1);
    let settings = door::Settings { id, source: SourceId(0), limits: ScanLimits::default() };
    let append = Arc::new(Journal { refuse: Mutex::new(3), taken });
    let behind = door::Behind { takes: [false, true, false], needs: Arc::default(), wants_index: false, append };
    let door = Arc::new(Door::new(settings, behind, Budget::new(1 << 20), clock, &telemetry));
    let shutdown = Shutdown::new();
    let task = receiver.start(door, shutdown.clone()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(task);
    let (first, second) = (given.recv().await.unwrap(), given.recv().await.unwrap());
    assert_eq!(first.items, second.items);
    assert!(first.items >= 5);
    given.close();
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    let labels = [("receiver", "host_metrics"), ("transport", "scrape")];
    let gathered = telemetry.gather();
    assert!(gathered.number("otelcol_receiver_accepted_metric_points", &labels).unwrap() >= first.items as f64);
    assert_eq!(gathered.number("otelcol_receiver_refused_metric_points", &labels).unwrap(), 3.0 * first.items as f64);
}

#[test]
fn a_root_that_is_not_there_is_told_of_with_its_key() {
    let input = Input::Text { name: "test".to_owned(), text: "{root_path: /nowhere, scrapers: {cpu: }}".to_owned() };
    let loaded = load(&[input], &Machine);
    let mut found = Diagnostics::default();
    let config = Config::read(&loaded.node, &mut found);
    assert!(!found.has_errors());
    let context = BuildContext {
        notes: Notes::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: ComponentId::parse("host_metrics").unwrap(),
        telemetry: Telemetry::default(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: Clock::system(),
    };
    let Err(error) = config.build(context) else { panic!("it builds") };
    assert_eq!(error.to_string(), "root_path: there is no directory `/nowhere`");
}
