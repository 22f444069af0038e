//! Batches leave here.

pub mod debug;
pub mod elasticsearch;
pub mod file;
pub mod nop;
pub mod otlp_grpc;
pub mod otlp_http;
pub mod prometheus;
pub mod prometheus_remote_write;

use crate::component::ExporterFactory;

/// Every exporter a configuration can name.
pub const EXPORTERS: &[ExporterFactory] = &[
    ExporterFactory::of::<debug::Config>(),
    ExporterFactory::of::<elasticsearch::Config>(),
    ExporterFactory::of::<file::Config>(),
    ExporterFactory::of::<nop::Config>(),
    ExporterFactory::of::<elasticsearch::opensearch::Config>(),
    ExporterFactory::of::<otlp_grpc::Config>(),
    ExporterFactory::of::<otlp_http::Config>(),
    ExporterFactory::of::<prometheus::Config>(),
    ExporterFactory::of::<prometheus_remote_write::Config>(),
];
