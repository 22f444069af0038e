//! Batches leave here.

use crate::component::ExporterFactory;

/// Every exporter a configuration can name.
pub const EXPORTERS: &[ExporterFactory] = &[];
