//! The official SDK's OTLP exporters, made to run beside our runtime, and what became of each export.
//!
//! The SDK's processors export from threads of their own, where the clients of `tonic` and `hyper` find no runtime for their timers;
//! [`Watched`] enters ours for each poll, and counts.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::LogBatch,
    metrics::{
        Temporality,
        data::{AggregatedMetrics, MetricData, ResourceMetrics, ScopeMetrics},
        exporter::PushMetricExporter,
    },
    trace::SpanData,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tonic::metadata::{MetadataKey, MetadataMap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

/// Where telemetry made in this process goes, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpTarget {
    pub protocol: OtlpProtocol,
    /// `http://host:port` for gRPC, the whole address with its path for HTTP.
    pub endpoint: String,
    pub headers: BTreeMap<String, String>,
    pub timeout: Duration,
    /// Metrics as differences rather than totals.
    pub delta: bool,
}

impl OtlpTarget {
    pub fn spans(&self) -> Result<SpanExporter, ExporterBuildError> {
        let builder = SpanExporter::builder();
        match self.http() {
            None => self.export_config(builder.with_tonic()).with_metadata(self.metadata()).build(),
            Some(protocol) => {
                self.export_config(builder.with_http()).with_protocol(protocol).with_headers(self.header_map()).build()
            }
        }
    }

    pub fn logs(&self) -> Result<LogExporter, ExporterBuildError> {
        let builder = LogExporter::builder();
        match self.http() {
            None => self.export_config(builder.with_tonic()).with_metadata(self.metadata()).build(),
            Some(protocol) => {
                self.export_config(builder.with_http()).with_protocol(protocol).with_headers(self.header_map()).build()
            }
        }
    }

    pub fn metrics(&self) -> Result<MetricExporter, ExporterBuildError> {
        let temporality = if self.delta { Temporality::Delta } else { Temporality::Cumulative };
        let builder = MetricExporter::builder().with_temporality(temporality);
        match self.http() {
            None => self.export_config(builder.with_tonic()).with_metadata(self.metadata()).build(),
            Some(protocol) => {
                self.export_config(builder.with_http()).with_protocol(protocol).with_headers(self.header_map()).build()
            }
        }
    }

    fn http(&self) -> Option<Protocol> {
        match self.protocol {
            OtlpProtocol::Grpc => None,
            OtlpProtocol::HttpProtobuf => Some(Protocol::HttpBinary),
            OtlpProtocol::HttpJson => Some(Protocol::HttpJson),
        }
    }

    fn export_config<B: WithExportConfig>(&self, builder: B) -> B {
        builder.with_endpoint(self.endpoint.clone()).with_timeout(self.timeout)
    }

    fn header_map(&self) -> HashMap<String, String> {
        self.headers.clone().into_iter().collect()
    }

    /// Headers that HTTP/2 cannot carry are left out.
    fn metadata(&self) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()), value.parse()) {
                metadata.insert(name, value);
            }
        }
        metadata
    }
}

/// What exports of one signal came to.
#[derive(Debug, Default)]
pub struct Tally {
    delivered: AtomicU64,
    lost: AtomicU64,
    requests_failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Tally {
    /// Items in exports that succeeded.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Items in exports that failed; the SDK does not try them again.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn requests_failed(&self) -> u64 {
        self.requests_failed.load(Ordering::Relaxed)
    }

    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    fn note(&self, items: u64, result: &OTelSdkResult) {
        match result {
            Ok(()) => {
                self.delivered.fetch_add(items, Ordering::Relaxed);
            }
            Err(error) => {
                self.lost.fetch_add(items, Ordering::Relaxed);
                self.requests_failed.fetch_add(1, Ordering::Relaxed);
                *self.last_error.lock() = Some(error.to_string());
            }
        }
    }
}

/// An SDK exporter that runs beside `runtime` and whose exports are counted.
#[derive(Debug)]
pub struct Watched<E> {
    exporter: E,
    runtime: Handle,
    tally: Arc<Tally>,
}

impl<E> Watched<E> {
    pub const fn new(exporter: E, runtime: Handle, tally: Arc<Tally>) -> Self {
        Self { exporter, runtime, tally }
    }

    /// Polls `future` inside the runtime, whatever thread this is.
    async fn inside<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|context| {
            let _inside = self.runtime.enter();
            future.as_mut().poll(context)
        })
        .await
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len() as u64;
        let result = self.inside(self.exporter.export(batch)).await;
        self.tally.note(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: opentelemetry_sdk::logs::LogExporter> opentelemetry_sdk::logs::LogExporter for Watched<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count() as u64;
        let result = self.inside(self.exporter.export(batch)).await;
        self.tally.note(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let items = points(metrics);
        let result = self.inside(self.exporter.export(metrics)).await;
        self.tally.note(items, &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

fn points(metrics: &ResourceMetrics) -> u64 {
    fn of<T>(data: &MetricData<T>) -> usize {
        match data {
            MetricData::Gauge(data) => data.data_points().count(),
            MetricData::Sum(data) => data.data_points().count(),
            MetricData::Histogram(data) => data.data_points().count(),
            MetricData::ExponentialHistogram(data) => data.data_points().count(),
            // The list may grow in the SDK.
            #[allow(unreachable_patterns, reason = "the SDK marks the list as open")]
            _ => 0,
        }
    }
    let metrics = metrics.scope_metrics().flat_map(ScopeMetrics::metrics);
    let count: usize = metrics
        .map(|metric| match metric.data() {
            AggregatedMetrics::F64(data) => of(data),
            AggregatedMetrics::U64(data) => of(data),
            AggregatedMetrics::I64(data) => of(data),
            #[allow(unreachable_patterns, reason = "the SDK marks the list as open")]
            _ => 0,
        })
        .sum();
    count as u64
}
