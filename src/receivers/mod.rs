//! Batches enter here.

pub mod otlp;

use crate::component::ReceiverFactory;

/// Every receiver a configuration can name.
pub const RECEIVERS: &[ReceiverFactory] = &[ReceiverFactory::of::<otlp::Config>()];
