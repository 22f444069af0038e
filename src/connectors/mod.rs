//! One pipeline's end is another's start.

pub mod forward;
pub mod span_metrics;

use crate::component::ConnectorFactory;

/// Every connector a configuration can name.
pub const CONNECTORS: &[ConnectorFactory] =
    &[ConnectorFactory::of::<forward::Config>(), ConnectorFactory::of::<span_metrics::Config>()];
