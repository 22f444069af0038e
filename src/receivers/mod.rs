//! Batches enter here.

pub mod host_metrics;
pub mod otlp;
pub mod prometheus;
mod request;
pub mod zipkin;

use crate::component::ReceiverFactory;

/// Every receiver a configuration can name.
pub const RECEIVERS: &[ReceiverFactory] = &[
    ReceiverFactory::of::<host_metrics::Config>(),
    ReceiverFactory::of::<otlp::Config>(),
    ReceiverFactory::of::<prometheus::Config>(),
    ReceiverFactory::of::<zipkin::Config>(),
];
