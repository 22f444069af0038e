//! What weir says about itself: metrics by the Collector's names, logs, spans.
//!
//! Metric handles are made once, when a component is built; the hot path only adds. What is cheaper to compute when somebody looks is
//! a callback of [`Telemetry::on_scrape`].
//!
//! In:   counts from everywhere, events and spans of `tracing`, `service::telemetry`.
//! Out:  the page at `localhost:8888/metrics`, lines on stderr, and OTLP where the file asks for it.
//! Full: equal log lines are sampled; the SDK's queues are bounded and drop.
//! Lost: log lines that were sampled away are counted (`weir_log_lines_suppressed`).

mod export;
mod identity;
mod logging;
mod names;
mod otlp;
mod process;
mod render;
mod samples;
mod settings;
mod spans;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

pub use export::{OtlpProtocol, OtlpTarget, Tally, Watched};
pub use identity::Identity;
pub use logging::{Logging, ONCE};
pub use names::*;
pub use otlp::{OwnExport, start};
pub use render::{Patterns, Style, text};
pub use samples::{Books, JournalRoom, Lag, Orphan, Sample, SampleFamily, SampleKind, SampleValue, Samples};
pub use settings::{LogEncoding, LogLevel, LogSettings, PullReader, Reader, Sampling, SpanProcessor, TelemetrySettings};
pub use spans::{export_span, receive_span, span_failed};

use process::ProcessMetrics;

use crate::signal::Signal;

/// The registry of our own metrics. Cloning shares it.
#[derive(Clone, Default)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    registry: Registry,
    made: Mutex<Vec<(String, Made)>>,
    callbacks: RwLock<Vec<Callback>>,
}

type Callback = Box<dyn Fn(&mut Samples) + Send + Sync>;

#[derive(Clone)]
enum Made {
    Counter(IntCounterVec),
    IntGauge(IntGaugeVec),
    Gauge(GaugeVec),
}

impl Telemetry {
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Runs `collect` whenever our own metrics are read; what it writes stands beside what the registry holds.
    pub fn on_scrape(&self, collect: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.inner.callbacks.write().push(Box::new(collect));
    }

    /// Adds the process's uptime, CPU time and memory, counted from now.
    pub fn watch_process(&self) {
        let process = ProcessMetrics::new();
        self.on_scrape(move |out| process.collect(out));
    }

    /// All of our own metrics as they are now.
    pub fn gather(&self) -> Samples {
        let mut samples = Samples::default();
        samples.absorb(&self.inner.registry.gather());
        for collect in self.inner.callbacks.read().iter() {
            collect(&mut samples);
        }
        samples.sort();
        samples
    }

    /// The counter `name` with these labels; made on first use. All uses of a name have the same label names in the same order.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> IntCounter {
        let vec = self.made(
            name,
            |made| match made {
                Made::Counter(vec) => Some(vec.clone()),
                _ => None,
            },
            || IntCounterVec::new(Opts::new(name, help), &label_names(labels)).map(|vec| (vec.clone(), Made::Counter(vec))),
        );
        vec.and_then(|vec| vec.get_metric_with_label_values(&label_values(labels)).ok())
            .unwrap_or_else(|| IntCounter::new("detached", "unused").expect("a legal name"))
    }

    /// The gauge of whole numbers `name` with these labels.
    pub fn int_gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> IntGauge {
        let vec = self.made(
            name,
            |made| match made {
                Made::IntGauge(vec) => Some(vec.clone()),
                _ => None,
            },
            || IntGaugeVec::new(Opts::new(name, help), &label_names(labels)).map(|vec| (vec.clone(), Made::IntGauge(vec))),
        );
        vec.and_then(|vec| vec.get_metric_with_label_values(&label_values(labels)).ok())
            .unwrap_or_else(|| IntGauge::new("detached", "unused").expect("a legal name"))
    }

    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        let vec = self.made(
            name,
            |made| match made {
                Made::Gauge(vec) => Some(vec.clone()),
                _ => None,
            },
            || GaugeVec::new(Opts::new(name, help), &label_names(labels)).map(|vec| (vec.clone(), Made::Gauge(vec))),
        );
        vec.and_then(|vec| vec.get_metric_with_label_values(&label_values(labels)).ok())
            .unwrap_or_else(|| Gauge::new("detached", "unused").expect("a legal name"))
    }

    fn made<V: Collector + Clone + 'static>(
        &self,
        name: &str,
        pick: impl Fn(&Made) -> Option<V>,
        make: impl FnOnce() -> prometheus::Result<(V, Made)>,
    ) -> Option<V> {
        let mut made = self.inner.made.lock();
        if let Some((_, known)) = made.iter().find(|(known, _)| known == name) {
            let found = pick(known);
            debug_assert!(found.is_some(), "{name} is used as two kinds of metric");
            return found;
        }
        let (vec, kind) = make().inspect_err(|error| debug_assert!(false, "{name}: {error}")).ok()?;
        self.inner.registry.register(Box::new(vec.clone())).ok()?;
        made.push((name.to_owned(), kind));
        Some(vec)
    }

    /// Accepted and refused items of a receiver, by signal.
    pub fn receiver(&self, id: &str, transport: &str) -> ReceiverMetrics {
        let labels = [("receiver", id), ("transport", transport)];
        ReceiverMetrics {
            accepted: Signal::ALL.map(|signal| self.counter(receiver_accepted(signal), "Items taken in.", &labels)),
            refused: Signal::ALL.map(|signal| self.counter(receiver_refused(signal), "Items refused.", &labels)),
        }
    }

    /// What became of an exporter's items, by signal.
    pub fn exporter(&self, id: &str) -> ExporterMetrics {
        let labels = [("exporter", id)];
        ExporterMetrics {
            sent: Signal::ALL.map(|signal| self.counter(exporter_sent(signal), "Items delivered.", &labels)),
            send_failed: Signal::ALL.map(|signal| self.counter(exporter_send_failed(signal), "Items given up.", &labels)),
            enqueue_failed: Signal::ALL
                .map(|signal| self.counter(exporter_enqueue_failed(signal), "Items that found no room.", &labels)),
            attempts: Attempt::ALL.map(|attempt| {
                let labels = [("exporter", id), ("outcome", attempt.as_str())];
                self.counter(EXPORTER_ATTEMPTS, "Attempts to deliver a request, by what they came to.", &labels)
            }),
        }
    }

    /// What went into and came out of a processor, by signal.
    pub fn processor(&self, id: &str, signal: Signal) -> ProcessorMetrics {
        let labels = [("processor", id), ("otel_signal", signal.as_str())];
        ProcessorMetrics {
            incoming: self.counter(PROCESSOR_INCOMING, "Items that went into the processor.", &labels),
            outgoing: self.counter(PROCESSOR_OUTGOING, "Items that came out of the processor.", &labels),
        }
    }
}

fn label_names<'a>(labels: &[(&'a str, &str)]) -> Vec<&'a str> {
    labels.iter().map(|(name, _)| *name).collect()
}

fn label_values<'a>(labels: &[(&str, &'a str)]) -> Vec<&'a str> {
    labels.iter().map(|(_, value)| *value).collect()
}

/// Indexed by [`Signal::ordinal`].
#[derive(Clone)]
pub struct ReceiverMetrics {
    pub accepted: [IntCounter; 3],
    pub refused: [IntCounter; 3],
}

/// Indexed by [`Signal::ordinal`].
#[derive(Clone)]
pub struct ExporterMetrics {
    pub sent: [IntCounter; 3],
    pub send_failed: [IntCounter; 3],
    pub enqueue_failed: [IntCounter; 3],
    /// Indexed by [`Attempt`].
    pub attempts: [IntCounter; Attempt::ALL.len()],
}

/// What one attempt to deliver a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// All of it is done with.
    Taken,
    /// Some of its items are; the others are refused, or sent again.
    Partly,
    /// It failed, and is sent again as it is.
    Failed,
    /// It was too large, and is sent again in pieces.
    TooLarge,
    /// Refused for good.
    Refused,
}

impl Attempt {
    pub const ALL: [Self; 5] = [Self::Taken, Self::Partly, Self::Failed, Self::TooLarge, Self::Refused];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Partly => "partly",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
        }
    }
}

#[derive(Clone)]
pub struct ProcessorMetrics {
    pub incoming: IntCounter,
    pub outgoing: IntCounter,
}
