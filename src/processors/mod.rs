//! Batches change here.

pub mod batch;
pub mod memory_limiter;

use crate::component::ProcessorFactory;

/// Every processor a configuration can name.
pub const PROCESSORS: &[ProcessorFactory] =
    &[ProcessorFactory::of::<batch::Config>(), ProcessorFactory::of::<memory_limiter::Config>()];
