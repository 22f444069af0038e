//! Batches enter here.

use crate::component::ReceiverFactory;

/// Every receiver a configuration can name.
pub const RECEIVERS: &[ReceiverFactory] = &[];
