//! The emulated services: each with an OpenTelemetry SDK of its own, as it would be in a process of its own.
//!
//! In:   scripts, and the time they began.
//! Out:  spans, log records and measurements, by way of the SDK's batch processors.
//! Full: [`Staff::behind`] says how much waits in the SDKs' queues; the player waits before they drop.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity},
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, UpDownCounter},
    propagation::TextMapPropagator,
    trace::{Event, Link, Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{self, BatchLogProcessor, SdkLogger, SdkLoggerProvider},
    metrics::{Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream},
    propagation::TraceContextPropagator,
    resource::TelemetryResourceDetector,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use tokio::runtime::Handle;

use super::{
    random::Ids,
    script::{Act, Effect, Fault, Note, Script, Service},
};
use crate::internal_telemetry::{OtlpTarget, Tally, Watched};

/// The SDKs' queues, in items of one service and signal.
const QUEUE_MAX: usize = 16_384;

/// How long an SDK may take to send what it holds.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Where each signal goes.
pub(super) struct Targets {
    pub traces: OtlpTarget,
    pub logs: OtlpTarget,
    pub metrics: OtlpTarget,
}

/// What was handed to an SDK, and what its exporter made of it.
#[derive(Debug, Default)]
pub(super) struct Account {
    handed: AtomicU64,
    tally: Arc<Tally>,
}

impl Account {
    fn hand(&self) {
        self.handed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    fn waiting(&self) -> u64 {
        self.handed().saturating_sub(self.tally.delivered() + self.tally.lost())
    }
}

/// One emulated service.
pub(super) struct Worker {
    service: Service,
    tracers: SdkTracerProvider,
    loggers: SdkLoggerProvider,
    meters: SdkMeterProvider,
    tracer: SdkTracer,
    logger: SdkLogger,
    instruments: Instruments,
    pub(super) spans: Account,
    pub(super) logs: Account,
    pub(super) points: Account,
}

/// All of them.
pub(super) struct Staff {
    pub(super) workers: Vec<Worker>,
    propagator: TraceContextPropagator,
}

impl Staff {
    /// Must be called inside the runtime: the exporters connect from it.
    pub(super) fn hire(targets: &Targets, seed: u64, metric_interval: Duration) -> Result<Self, ExporterBuildError> {
        let ids = Ids::new(seed);
        let hire = |service| Worker::hire(service, targets, &ids, metric_interval);
        let workers = Service::ALL.into_iter().map(hire).collect::<Result<_, _>>()?;
        Ok(Self { workers, propagator: TraceContextPropagator::new() })
    }

    /// Items that wait in the fullest queue.
    pub(super) fn behind(&self) -> u64 {
        self.workers.iter().map(|worker| worker.spans.waiting().max(worker.logs.waiting())).max().unwrap_or_default()
    }

    /// Half of what a queue holds: from here on the player waits.
    pub(super) const fn behind_max() -> u64 {
        QUEUE_MAX as u64 / 2
    }

    /// Tells the SDKs about everything in the script, as if it had begun at `began`.
    pub(super) fn play(&self, script: &Script, began: SystemTime) {
        let time = |micros: u64| began + Duration::from_micros(micros);
        let mut contexts: Vec<SpanContext> = Vec::with_capacity(script.acts.len());
        for act in &script.acts {
            let of = |act: Option<usize>| act.and_then(|act| Some((script.acts.get(act)?.service, contexts.get(act)?)));
            let parent = of(act.parent).map(|(service, context)| self.parent(context, service == act.service));
            let link = of(act.link).map(|(_, context)| context.clone());
            let context = self.worker(act.service).map(|worker| worker.act(act, parent.unwrap_or_default(), link, &time));
            contexts.push(context.unwrap_or(SpanContext::NONE));
        }
        for note in &script.notes {
            let (Some(act), Some(context)) = (script.acts.get(note.act), contexts.get(note.act)) else { continue };
            if let Some(worker) = self.worker(act.service) {
                worker.note(note, context, time(note.at));
            }
        }
        for effect in &script.effects {
            self.effect(effect);
        }
    }

    /// Flushes and stops all SDKs side by side; blocks.
    pub(super) fn dismiss(self) -> Vec<Worker> {
        thread::scope(|scope| {
            for worker in &self.workers {
                scope.spawn(|| worker.stop(worker.tracers.shutdown_with_timeout(STOP_MAX)));
                scope.spawn(|| worker.stop(worker.loggers.shutdown_with_timeout(STOP_MAX)));
                scope.spawn(|| worker.stop(worker.meters.shutdown_with_timeout(STOP_MAX)));
            }
        });
        self.workers
    }

    fn worker(&self, service: Service) -> Option<&Worker> {
        self.workers.get(service as usize)
    }

    /// The parent as the callee sees it: within a service as it is, between services through the headers of a request.
    fn parent(&self, context: &SpanContext, same_service: bool) -> Context {
        let local = Context::new().with_remote_span_context(context.clone());
        if same_service {
            let here = SpanContext::new(
                context.trace_id(),
                context.span_id(),
                context.trace_flags(),
                false,
                context.trace_state().clone(),
            );
            return Context::new().with_remote_span_context(here);
        }
        let mut headers: HashMap<String, String> = HashMap::new();
        self.propagator.inject_context(&local, &mut headers);
        self.propagator.extract_with_context(&Context::new(), &headers)
    }

    fn effect(&self, effect: &Effect) {
        match effect {
            Effect::CartItems(items) => {
                if let Some(worker) = self.worker(Service::Cart) {
                    worker.instruments.cart_items.add(*items, &[]);
                }
            }
            Effect::Order { cents, currency, items } => {
                if let Some(worker) = self.worker(Service::Checkout) {
                    let currency = [KeyValue::new("shop.currency", *currency)];
                    worker.instruments.orders.add(1, &currency);
                    worker.instruments.revenue.add(*cents as f64 / 100.0, &currency);
                    worker.instruments.order_items.record(*items, &[]);
                }
            }
            Effect::Stock { product, level } => {
                if let Some(worker) = self.worker(Service::Inventory) {
                    worker.instruments.stock.record(*level, &[KeyValue::new("shop.product", *product)]);
                }
            }
            Effect::Queued { queue, messages } => {
                let service = if *queue == "orders" { Service::Shipping } else { Service::Email };
                if let Some(worker) = self.worker(service) {
                    worker.instruments.queued.fetch_add(*messages, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Worker {
    /// What could not be sent is in the tallies; this is for who looks deeper.
    fn stop(&self, stopped: OTelSdkResult) {
        if let Err(error) = stopped {
            tracing::debug!(%error, service = self.service.name(), "an SDK did not stop cleanly");
        }
    }

    fn hire(service: Service, targets: &Targets, ids: &Ids, metric_interval: Duration) -> Result<Self, ExporterBuildError> {
        let runtime = Handle::current();
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", service.name()),
                KeyValue::new("service.namespace", "shop"),
                KeyValue::new("service.version", service.version()),
                KeyValue::new("service.instance.id", format!("{}-1", service.name())),
                KeyValue::new("deployment.environment.name", "demo"),
            ])
            .with_detector(Box::new(TelemetryResourceDetector))
            .build();
        let (spans, logs, points) = (Account::default(), Account::default(), Account::default());

        let exporter = Watched::new(targets.traces.spans()?, runtime.clone(), spans.tally.clone());
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(512)
            .with_scheduled_delay(Duration::from_secs(1))
            .build();
        let tracers = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            // Said here, because the environment could say otherwise and a run would not repeat.
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(ids.clone())
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(config).build())
            .build();

        let exporter = Watched::new(targets.logs.logs()?, runtime.clone(), logs.tally.clone());
        let config = logs::BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(512)
            .with_scheduled_delay(Duration::from_secs(1))
            .build();
        let loggers = SdkLoggerProvider::builder()
            .with_resource(resource.clone())
            .with_log_processor(BatchLogProcessor::builder(exporter).with_batch_config(config).build())
            .build();

        let exporter = Watched::new(targets.metrics.metrics()?, runtime, points.tally.clone());
        let meters = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(PeriodicReader::builder(exporter).with_interval(metric_interval).build())
            .with_view(|instrument: &Instrument| {
                let exponential = Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 20, record_min_max: true };
                let stream = || Stream::builder().with_aggregation(exponential).build().ok();
                (instrument.name() == DATABASE_DURATION).then(stream).flatten()
            })
            .build();
        let instruments = Instruments::new(service, &meters.meter("shop"));
        let (tracer, logger) = (tracers.tracer("shop"), loggers.logger("shop"));
        Ok(Self { service, tracers, loggers, meters, tracer, logger, instruments, spans, logs, points })
    }

    fn act(&self, act: &Act, parent: Context, link: Option<SpanContext>, time: &impl Fn(u64) -> SystemTime) -> SpanContext {
        let mut builder = SpanBuilder::from_name(act.name.clone())
            .with_kind(act.kind.clone())
            .with_start_time(time(act.start))
            .with_attributes(act.attributes.clone());
        if let Some(link) = link {
            let attributes = vec![KeyValue::new("messaging.operation.type", "process")];
            builder = builder.with_links(vec![Link::new(link, attributes, 0)]);
        }
        if let Some((at, fault)) = &act.exception {
            builder = builder.with_events(vec![exception(time(*at), fault, self.service)]);
        }
        let mut span = self.tracer.build_with_context(builder, &parent);
        if let Some(text) = &act.error {
            span.set_status(Status::error(text.clone()));
        }
        let context = span.span_context().clone();
        self.spans.hand();
        span.end_with_timestamp(time(act.end));
        self.instruments.measure(act);
        context
    }

    fn note(&self, note: &Note, context: &SpanContext, time: SystemTime) {
        let mut record = self.logger.create_log_record();
        record.set_timestamp(time);
        record.set_severity_number(note.severity);
        record.set_severity_text(match note.severity {
            Severity::Error => "ERROR",
            Severity::Warn => "WARN",
            Severity::Debug => "DEBUG",
            _ => "INFO",
        });
        record.set_body(AnyValue::from(note.body.clone()));
        for attribute in &note.attributes {
            record.add_attribute(attribute.key.clone(), attribute.value.as_str().into_owned());
        }
        record.set_trace_context(context.trace_id(), context.span_id(), Some(context.trace_flags()));
        self.logs.hand();
        self.logger.emit(record);
    }
}

fn exception(at: SystemTime, fault: &Fault, service: Service) -> Event {
    let name = service.name();
    let stack = format!(
        "{}: {}\n   at {name}::handle (src/handle.rs:88)\n   at {name}::serve (src/serve.rs:41)\n   at main (src/main.rs:12)",
        fault.name, fault.message
    );
    let attributes = vec![
        KeyValue::new("exception.type", fault.name),
        KeyValue::new("exception.message", fault.message.clone()),
        KeyValue::new("exception.stacktrace", stack),
    ];
    Event::new("exception", at, attributes, 0)
}

/// Shown as an exponential histogram.
const DATABASE_DURATION: &str = "db.client.operation.duration";

/// One instrument of each kind at least; the business ones stay empty in services that do not use them.
struct Instruments {
    server_duration: Histogram<f64>,
    rpc_duration: Histogram<f64>,
    database_duration: Histogram<f64>,
    process_duration: Histogram<f64>,
    messages_sent: Counter<u64>,
    orders: Counter<u64>,
    revenue: Counter<f64>,
    order_items: Histogram<u64>,
    cart_items: UpDownCounter<i64>,
    stock: Gauge<i64>,
    queued: Arc<AtomicI64>,
    /// CPU time that the service pretends to use: a share of how long its spans took.
    busy_micros: Arc<AtomicU64>,
}

impl Instruments {
    fn new(service: Service, meter: &Meter) -> Self {
        let seconds = vec![0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
        let duration = |name: &'static str, description: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(seconds.clone()).build()
        };
        let busy_micros = Arc::new(AtomicU64::new(0));
        let busy = busy_micros.clone();
        meter
            .f64_observable_counter("process.cpu.time")
            .with_unit("s")
            .with_description("CPU time of the process")
            .with_callback(move |instrument| {
                let seconds = busy.load(Ordering::Relaxed) as f64 / 1e6;
                for (mode, share) in [("user", 0.8), ("system", 0.2)] {
                    instrument.observe(seconds * share, &[KeyValue::new("cpu.mode", mode)]);
                }
            })
            .build();
        let busy = busy_micros.clone();
        meter
            .i64_observable_up_down_counter("process.memory.usage")
            .with_unit("By")
            .with_description("Physical memory in use")
            .with_callback(move |instrument| {
                // A saw tooth of 8 MiB over a base that differs by service.
                let tooth = i64::try_from(busy.load(Ordering::Relaxed) * 16 % (8 << 20)).unwrap_or_default();
                instrument.observe((i64::from(service as u8) + 4) * (6 << 20) + tooth, &[]);
            })
            .build();
        let queued = Arc::new(AtomicI64::new(0));
        if matches!(service, Service::Shipping | Service::Email) {
            let depth = queued.clone();
            meter
                .i64_observable_gauge("shop.queue.depth")
                .with_unit("{message}")
                .with_description("Messages that wait")
                .with_callback(move |instrument| instrument.observe(depth.load(Ordering::Relaxed), &[]))
                .build();
        }
        Self {
            server_duration: duration("http.server.request.duration", "Duration of HTTP server requests"),
            rpc_duration: duration("rpc.server.call.duration", "Duration of inbound RPCs"),
            database_duration: duration(DATABASE_DURATION, "Duration of database operations"),
            process_duration: duration("messaging.process.duration", "Duration of working on messages"),
            messages_sent: meter.u64_counter("messaging.client.sent.messages").with_unit("{message}").build(),
            orders: meter.u64_counter("shop.orders").with_unit("{order}").with_description("Orders placed").build(),
            revenue: meter.f64_counter("shop.revenue").with_description("Sum of all orders, by currency").build(),
            order_items: meter
                .u64_histogram("shop.order.items")
                .with_unit("{item}")
                .with_description("Items of an order")
                .build(),
            cart_items: meter
                .i64_up_down_counter("shop.cart.items")
                .with_unit("{item}")
                .with_description("Items in all carts")
                .build(),
            stock: meter.i64_gauge("shop.stock.level").with_unit("{item}").with_description("Items on the shelf").build(),
            queued,
            busy_micros,
        }
    }

    /// Measures what an instrumentation library would measure of this span.
    fn measure(&self, act: &Act) {
        let seconds = act.seconds();
        let picked = |keys: &[&'static str]| -> Vec<KeyValue> {
            keys.iter().filter_map(|key| Some(KeyValue::new(*key, act.attribute(key)?.clone()))).collect()
        };
        match act.kind {
            SpanKind::Server if act.attribute("rpc.system").is_some() => {
                self.rpc_duration.record(seconds, &picked(&["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"]));
            }
            SpanKind::Server => {
                let keys = ["http.request.method", "http.route", "http.response.status_code", "url.scheme", "error.type"];
                self.server_duration.record(seconds, &picked(&keys));
            }
            SpanKind::Client if act.attribute("db.system.name").is_some() => {
                let keys = ["db.system.name", "db.operation.name", "db.collection.name", "error.type"];
                self.database_duration.record(seconds, &picked(&keys));
            }
            SpanKind::Producer => self.messages_sent.add(1, &picked(&["messaging.system", "messaging.destination.name"])),
            SpanKind::Consumer => {
                self.process_duration.record(seconds, &picked(&["messaging.system", "messaging.destination.name", "error.type"]));
            }
            SpanKind::Client | SpanKind::Internal => {}
        }
        self.busy_micros.fetch_add(act.end.saturating_sub(act.start) / 20, Ordering::Relaxed);
    }
}
