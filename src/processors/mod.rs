//! Batches change here.

mod actions;
pub mod attributes;
pub mod batch;
pub mod memory_limiter;
pub mod resource;
pub mod resource_detection;
#[cfg(test)]
mod testing;

use bytes::Bytes;

use crate::{component::ProcessorFactory, signal::Batch};

/// Every processor a configuration can name.
pub const PROCESSORS: &[ProcessorFactory] = &[
    ProcessorFactory::of::<attributes::Config>(),
    ProcessorFactory::of::<batch::Config>(),
    ProcessorFactory::of::<memory_limiter::Config>(),
    ProcessorFactory::of::<resource::Config>(),
    ProcessorFactory::of::<resource_detection::Config>(),
];

/// A batch whose payload was edited; the index of its spans holds only for the bytes it was made from.
fn with_payload(batch: Batch, payload: Bytes) -> Batch {
    let same = batch.payload.as_ptr() == payload.as_ptr() && batch.payload.len() == payload.len();
    Batch { index: if same { batch.index } else { None }, payload, ..batch }
}
