//! One pipeline's end is another's start.

pub mod forward;

use crate::component::ConnectorFactory;

/// Every connector a configuration can name.
pub const CONNECTORS: &[ConnectorFactory] = &[ConnectorFactory::of::<forward::Config>()];
