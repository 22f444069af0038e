//! Writes what it gets where a person can read it, in the Collector's layout.
//!
//! In:   requests of any signal.
//! Out:  text: a line a request (`basic`), a line an item (`normal`), a line a field (`detailed`).
//! Full: one request is written at a time; a pipe that nobody reads holds this exporter, and no other.
//! Lost: with sampling, the text of requests beyond it; their items still count as delivered.
//!
//! ```yaml
//! exporters:
//!   debug:
//!     verbosity: detailed
//!     use_internal_logger: false   # stdout, without time and level
//! ```
//!
//! With `use_internal_logger` (the default) each request begins with a line like those of the Collector's console log, on stderr beside our own
//! log. It is text whatever our own log's encoding and level are: telemetry that was asked for by name is neither escaped nor filtered.

mod detailed;
mod normal;
#[cfg(test)]
mod tests;
mod text;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    component::delivery,
    component::{BuildContext, Exporter, ExporterConfig, Outcome, Request, RetryCause, Stability},
    config::{Diagnostics, Node, StringList, read},
    otlp::view::{DataView, LogsView, MetricsView, TracesView},
    runtime::{BuildError, Clock, Shutdown, Task},
    signal::Signal,
};

/// Sampling counts start again after this long.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verbosity {
    /// A line a request: how much of what came.
    #[default]
    #[serde(alias = "Basic", alias = "BASIC")]
    Basic,
    /// A line an item.
    #[serde(alias = "Normal", alias = "NORMAL")]
    Normal,
    /// A line a field.
    #[serde(alias = "Detailed", alias = "DETAILED")]
    Detailed,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub verbosity: Verbosity,
    /// Requests of a signal written each second before sampling begins.
    pub sampling_initial: u64,
    /// Of those after, each how-many-th is written; 0 for none.
    pub sampling_thereafter: u64,
    /// Write to stderr with time and level; otherwise to `output_paths`.
    pub use_internal_logger: bool,
    /// `stdout`, `stderr` or files, without `use_internal_logger`.
    pub output_paths: StringList,
    pub sending_queue: Option<delivery::Queue>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
            output_paths: StringList(vec!["stdout".to_owned()]),
            sending_queue: None,
        }
    }
}

impl ExporterConfig for Config {
    const TYPE: &'static str = "debug";
    const STABILITY: Stability = Stability::Alpha;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = read(node, found);
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        if config.use_internal_logger && config.output_paths != Self::default().output_paths {
            let remedy = "add `use_internal_logger: false`".to_owned();
            found.error(at("output_paths"), "`output_paths` is used only without the internal logger", Some(remedy));
        }
        if config.output_paths.0.is_empty() {
            found.error(at("output_paths"), "there is nowhere to write to", Some("name `stdout`, `stderr` or a file".to_owned()));
        }
        config
    }

    fn delivery(&self) -> delivery::Settings {
        // One at a time: text in the order in which the data came.
        let queue =
            self.sending_queue.clone().unwrap_or(delivery::Queue { num_consumers: Some(1), ..delivery::Queue::default() });
        delivery::Settings { queue: Some(queue), ..delivery::Settings::default() }
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        let id = self.use_internal_logger.then(|| context.id.to_string());
        let (outputs, counts) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Debug(Arc::new(Inner { config: self, id, clock: context.clock, outputs, counts }))))
    }
}

enum Output {
    Stdout,
    Stderr,
    File(File),
}

impl Output {
    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(text.as_bytes()),
            Self::File(file) => file.write_all(text.as_bytes()),
        }
    }
}

struct Debug(Arc<Inner>);

struct Inner {
    config: Config,
    /// Our id, where a line begins like one of the log.
    id: Option<String>,
    clock: Clock,
    outputs: Mutex<Vec<Output>>,
    /// By [`Signal::ordinal`]: since when, and how many.
    counts: Mutex<[Option<(Instant, u64)>; 3]>,
}

impl Inner {
    fn is_sampled(&self, signal: Signal) -> bool {
        let mut counts = self.counts.lock();
        let Some(slot) = counts.get_mut(signal.ordinal()) else { return true };
        let now = Instant::now();
        let running = slot.filter(|(since, _)| now.duration_since(*since) < TICK);
        let (since, count) = running.map_or((now, 1), |(since, count)| (since, count + 1));
        *slot = Some((since, count));
        let (initial, thereafter) = (self.config.sampling_initial, self.config.sampling_thereafter);
        count <= initial || (count - initial).checked_rem(thereafter) == Some(0)
    }

    /// The line that says how much came, and the text below it.
    fn text(&self, signal: Signal, payload: &[u8]) -> String {
        let (title, counts) = match signal {
            Signal::Traces => {
                let view = TracesView::new(payload);
                ("Traces", format!("\"resource spans\": {}, \"spans\": {}", view.resources().count(), view.items().count()))
            }
            Signal::Logs => {
                let view = LogsView::new(payload);
                ("Logs", format!("\"resource logs\": {}, \"log records\": {}", view.resources().count(), view.items().count()))
            }
            Signal::Metrics => {
                let view = MetricsView::new(payload);
                let points: usize = view.items().map(|(.., metric)| points(metric.data)).sum();
                let (resources, metrics) = (view.resources().count(), view.items().count());
                ("Metrics", format!("\"resource metrics\": {resources}, \"metrics\": {metrics}, \"data points\": {points}"))
            }
        };
        let body = match (self.config.verbosity, signal) {
            (Verbosity::Basic, _) => String::new(),
            (Verbosity::Normal, Signal::Traces) => normal::traces(payload),
            (Verbosity::Normal, Signal::Logs) => normal::logs(payload),
            (Verbosity::Normal, Signal::Metrics) => normal::metrics(payload),
            (Verbosity::Detailed, Signal::Traces) => detailed::traces(payload),
            (Verbosity::Detailed, Signal::Logs) => detailed::logs(payload),
            (Verbosity::Detailed, Signal::Metrics) => detailed::metrics(payload),
        };
        let (time, origin) = match &self.id {
            None => (String::new(), String::new()),
            Some(id) => (
                format!("{}\tinfo\t", now(&self.clock)),
                format!(
                    "\"otelcol.component.id\": \"{id}\", \"otelcol.component.kind\": \"exporter\", \"otelcol.signal\": \"{signal}\", "
                ),
            ),
        };
        let mut text = format!("{time}{title}\t{{{origin}{counts}}}\n");
        if self.config.verbosity != Verbosity::Basic {
            text.push_str(&time);
            text.push_str(&body);
            text.push('\n');
        }
        text
    }

    fn open(&self) -> Result<Vec<Output>, BuildError> {
        if self.config.use_internal_logger {
            return Ok(vec![Output::Stderr]);
        }
        let open = |path: &String| match path.as_str() {
            "stdout" => Ok(Output::Stdout),
            "stderr" => Ok(Output::Stderr),
            path => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                file.map(Output::File).map_err(|error| BuildError::setting("output_paths", format!("{error}: {path}")))
            }
        };
        self.config.output_paths.0.iter().map(open).collect()
    }

    fn write(&self, signal: Signal, payload: &[u8]) -> Outcome {
        let text = self.text(signal, payload);
        for output in &mut *self.outputs.lock() {
            if let Err(error) = output.write(&text) {
                return Outcome::Retry { reason: error.to_string(), after: None, cause: RetryCause::Blocked };
            }
        }
        Outcome::DELIVERED
    }
}

fn points(data: DataView<'_>) -> usize {
    match data {
        DataView::None => 0,
        DataView::Gauge { points } | DataView::Sum { points, .. } => points.iter().count(),
        DataView::Histogram { points, .. } => points.iter().count(),
        DataView::ExponentialHistogram { points, .. } => points.iter().count(),
        DataView::Summary { points } => points.iter().count(),
    }
}

fn now(clock: &Clock) -> String {
    let at = Timestamp::from_nanosecond(i128::from(clock.now().0)).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

impl Exporter for Debug {
    fn start(&self, _shutdown: Shutdown) -> BoxFuture<'_, Result<Option<Task>, BuildError>> {
        Box::pin(async {
            *self.0.outputs.lock() = self.0.open()?;
            Ok(None)
        })
    }

    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let inner = self.0.clone();
            if !inner.is_sampled(request.signal) {
                return Outcome::DELIVERED;
            }
            // A terminal or a pipe may be slow; that must not hold a thread that serves sockets.
            let written = tokio::task::spawn_blocking(move || {
                let payload: Bytes = request.payload();
                inner.write(request.signal, &payload)
            });
            written.await.unwrap_or_else(|error| Outcome::Rejected { message: format!("it cannot be shown: {error}") })
        })
    }
}
