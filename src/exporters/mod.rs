//! Batches leave here.

pub mod nop;
pub mod otlp_grpc;

use crate::component::ExporterFactory;

/// Every exporter a configuration can name.
pub const EXPORTERS: &[ExporterFactory] = &[ExporterFactory::of::<nop::Config>(), ExporterFactory::of::<otlp_grpc::Config>()];
