//! Batches change here.

use crate::component::ProcessorFactory;

/// Every processor a configuration can name.
pub const PROCESSORS: &[ProcessorFactory] = &[];
