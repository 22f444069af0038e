//! Sets our own telemetry in motion: the log, and spans and metrics over OTLP where `service::telemetry` asks for them.
//!
//! What is sent here is never traced itself: the SDK's exporting threads suppress it, and spans are only made of what `weir` itself marks.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SimpleSpanProcessor},
};
use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::Subscriber;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    registry::{LookupSpan, Registry},
    util::SubscriberInitExt,
};

use super::{
    Identity, Logging, Reader, SampleKind, SampleValue, Samples, SpanProcessor, Tally, Telemetry, TelemetrySettings, Watched,
    names,
};
use crate::{
    config::shown_url,
    runtime::{BuildError, Clock, Shutdown, Task, both},
};

/// The running half. Ended by [`OwnExport::finish`], after everything that is worth telling about.
#[derive(Default)]
pub struct OwnExport {
    tracers: Option<SdkTracerProvider>,
    meters: Vec<(SdkMeterProvider, Arc<Bridge>)>,
}

/// Installs the log and starts what is sent. Called once a process, inside the runtime.
pub fn start(settings: &TelemetrySettings, telemetry: &Telemetry, clock: Clock) -> Result<OwnExport, BuildError> {
    let logging = Logging::open(&settings.logs, clock)?;
    let suppressed = logging.suppressed();
    telemetry.on_scrape(move |out| {
        let lines = suppressed.load(Ordering::Relaxed);
        out.counter(names::LOG_LINES_SUPPRESSED, "Log lines that sampling kept back.", &[], lines);
    });
    let export = OwnExport::build(settings, telemetry)?;
    let filter = logging.filter();
    let subscriber = Registry::default().with(logging.with_filter(filter)).with(export.tracers.as_ref().map(span_layer));
    subscriber.try_init().map_err(|error| BuildError::Other(Box::new(error)))?;
    Ok(export)
}

impl TelemetrySettings {
    /// Makes every exporter as [`start`] does, and lets it go again, for what is wrong with it.
    pub fn try_exporters(&self) -> Result<(), BuildError> {
        let spans = self.spans.iter().map(|processor| match processor {
            SpanProcessor::Simple { target } | SpanProcessor::Batch { target, .. } => {
                target.spans().map(drop).map_err(|error| wrong("traces::processors", error))
            }
        });
        let metrics = self.readers.iter().filter_map(|reader| match reader {
            Reader::Periodic { target, .. } => Some(target.metrics().map(drop).map_err(|error| wrong("metrics::readers", error))),
            Reader::Pull(_) => None,
        });
        if self.spans.is_empty() && !self.readers.iter().any(|reader| matches!(reader, Reader::Periodic { .. })) {
            return Ok(());
        }
        // The exporters want a runtime around them, also where nothing runs yet.
        let runtime = Handle::try_current().is_err().then(|| Builder::new_current_thread().enable_all().build()).transpose();
        let runtime = runtime.map_err(|error| BuildError::Other(Box::new(error)))?;
        let _inside = runtime.as_ref().map(Runtime::enter);
        let mut told = Ok(());
        for result in spans.chain(metrics) {
            told = both(told, result).map(drop);
        }
        told
    }
}

/// Spans of ours go to the SDK; those of libraries do not.
pub(super) fn span_layer<S: Subscriber + for<'a> LookupSpan<'a>>(tracers: &SdkTracerProvider) -> impl Layer<S> + use<S> {
    let ours = Targets::new().with_target("weir", LevelFilter::DEBUG);
    tracing_opentelemetry::layer().with_tracer(tracers.tracer("weir")).with_filter(ours)
}

impl OwnExport {
    /// Makes the providers without installing anything.
    pub(super) fn build(settings: &TelemetrySettings, telemetry: &Telemetry) -> Result<Self, BuildError> {
        let resource = resource(&settings.identity);
        let runtime = Handle::current();
        let mut export = Self::default();
        if !settings.spans.is_empty() {
            let tally = watch(telemetry, "traces");
            let mut builder = SdkTracerProvider::builder().with_resource(resource.clone());
            for processor in &settings.spans {
                builder = match processor {
                    SpanProcessor::Simple { target } => {
                        let exporter = target.spans().map_err(|error| wrong("traces::processors", error))?;
                        let exporter = Watched::new(exporter, runtime.clone(), tally.clone());
                        builder.with_span_processor(SimpleSpanProcessor::new(exporter))
                    }
                    SpanProcessor::Batch { delay, queue_size_max, batch_size_max, target } => {
                        let exporter = target.spans().map_err(|error| wrong("traces::processors", error))?;
                        let exporter = Watched::new(exporter, runtime.clone(), tally.clone());
                        let config = BatchConfigBuilder::default()
                            .with_scheduled_delay(*delay)
                            .with_max_queue_size(*queue_size_max)
                            .with_max_export_batch_size(*batch_size_max)
                            .build();
                        builder.with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(config).build())
                    }
                };
            }
            export.tracers = Some(builder.build());
        }
        for reader in &settings.readers {
            let Reader::Periodic { interval, target } = reader else { continue };
            let tally = watch(telemetry, "metrics");
            let exporter = target.metrics().map_err(|error| wrong("metrics::readers", error))?;
            let exporter = Watched::new(exporter, runtime.clone(), tally);
            let reader = PeriodicReader::builder(exporter).with_interval(*interval).build();
            let meters = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader).build();
            let bridge = Arc::new(Bridge::new(telemetry.clone(), meters.meter("weir")));
            bridge.learn();
            export.meters.push((meters, bridge));
        }
        Ok(export)
    }

    #[cfg(test)]
    pub(super) const fn tracers(&self) -> Option<&SdkTracerProvider> {
        self.tracers.as_ref()
    }

    /// Makes metrics known to the SDK that appeared since; nothing to do without a periodic reader.
    pub fn task(&self, shutdown: Shutdown) -> Option<Task> {
        let bridges: Vec<_> = self.meters.iter().map(|(_, bridge)| bridge.clone()).collect();
        if bridges.is_empty() {
            return None;
        }
        Some(Box::pin(async move {
            let mut ticks = interval(Duration::from_secs(5));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    _ = ticks.tick() => bridges.iter().for_each(|bridge| bridge.learn()),
                }
            }
        }))
    }

    /// Sends what is left. Bounded by the SDK's own timeouts.
    pub async fn finish(self) {
        for (_, bridge) in &self.meters {
            bridge.learn();
        }
        // The SDK blocks the thread that asks it to stop.
        let stopped = spawn_blocking(move || {
            for (meters, _) in self.meters {
                if let Err(error) = meters.shutdown() {
                    tracing::warn!(%error, "own metrics were not sent");
                }
            }
            if let Some(tracers) = self.tracers
                && let Err(error) = tracers.shutdown()
            {
                tracing::warn!(%error, "own spans were not sent");
            }
        });
        if let Err(error) = stopped.await {
            tracing::error!(%error, "sending own telemetry failed");
        }
    }
}

fn wrong(key: &str, error: ExporterBuildError) -> BuildError {
    BuildError::setting(format!("service::telemetry::{key}"), shown_url(&error.to_string()).into_owned())
}

fn resource(identity: &Identity) -> Resource {
    let attributes = identity.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty().with_attributes(attributes).build()
}

/// Shows what became of our own exports.
fn watch(telemetry: &Telemetry, signal: &'static str) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let watched = tally.clone();
    telemetry.on_scrape(move |out| {
        let labels = [("signal", signal)];
        let help = "Exports of own telemetry that failed.";
        out.counter(names::OWN_EXPORTS_FAILED, help, &labels, watched.requests_failed());
    });
    tally
}

/// Shows our own metrics to an SDK reader: each name is an instrument that reads the registry when it is collected.
struct Bridge {
    telemetry: Telemetry,
    meter: Meter,
    known: Mutex<BTreeSet<String>>,
    /// One reading serves all instruments of one collection.
    read: Arc<Mutex<Option<(Instant, Arc<Samples>)>>>,
}

impl Bridge {
    fn new(telemetry: Telemetry, meter: Meter) -> Self {
        Self { telemetry, meter, known: Mutex::default(), read: Arc::default() }
    }

    /// Makes an instrument of each metric that has none yet.
    fn learn(&self) {
        let samples = self.telemetry.gather();
        let mut known = self.known.lock();
        for (name, family) in samples.families() {
            if !known.insert(name.to_owned()) {
                continue;
            }
            let help = family.help.clone();
            let unit = names::unit(name).map_or("", |unit| if unit == "seconds" { "s" } else { "By" });
            match family.kind {
                SampleKind::Counter => {
                    let observe = self.observer(name, Part::Value);
                    let counter = self.meter.f64_observable_counter(name.to_owned());
                    counter.with_description(help).with_unit(unit).with_callback(observe).build();
                }
                SampleKind::Gauge => {
                    let observe = self.observer(name, Part::Value);
                    let gauge = self.meter.f64_observable_gauge(name.to_owned());
                    gauge.with_description(help).with_unit(unit).with_callback(observe).build();
                }
                // An instrument that is read takes no distributions: count and sum are what is left of them.
                SampleKind::Histogram => {
                    for (suffix, part) in [("_count", Part::Count), ("_sum", Part::Sum)] {
                        let counter = self.meter.f64_observable_counter(format!("{name}{suffix}"));
                        counter.with_description(help.clone()).with_callback(self.observer(name, part)).build();
                    }
                }
            }
        }
    }

    fn observer(&self, name: &str, part: Part) -> impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + use<> {
        let (telemetry, read, name) = (self.telemetry.clone(), self.read.clone(), name.to_owned());
        move |instrument| {
            let samples = {
                let mut read = read.lock();
                let now = Instant::now();
                match &*read {
                    Some((at, samples)) if now.duration_since(*at) < Duration::from_millis(500) => samples.clone(),
                    _ => {
                        let samples = Arc::new(telemetry.gather());
                        *read = Some((now, samples.clone()));
                        samples
                    }
                }
            };
            let Some((_, family)) = samples.families().find(|(known, _)| *known == name) else { return };
            for sample in &family.samples {
                let attributes: Vec<_> =
                    sample.labels.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone())).collect();
                instrument.observe(part.of(&sample.value), &attributes);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Value,
    Count,
    Sum,
}

impl Part {
    fn of(self, value: &SampleValue) -> f64 {
        match (self, value) {
            (_, SampleValue::Number(number)) => *number,
            (Self::Sum, SampleValue::Histogram { sum, .. }) => *sum,
            (Self::Value | Self::Count, SampleValue::Histogram { count, .. }) => *count as f64,
        }
    }
}
