//! One pipeline's end is another's start.

use crate::component::ConnectorFactory;

/// Every connector a configuration can name.
pub const CONNECTORS: &[ConnectorFactory] = &[];
