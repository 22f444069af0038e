//! OTLP bytes: scan, views, editing, and OTLP/JSON both ways. Nothing here decodes into owned trees.
#![warn(clippy::indexing_slicing)]
#![allow(clippy::inline_always, reason = "the innermost steps of the scan and the views; each was measured")]

pub mod count;
pub mod edit;
pub mod fields;
pub mod json;
pub mod repair;
pub mod response;
mod rewrite;
pub mod scan;
mod schema;
mod split;
pub mod view;
pub mod wire;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod laws;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
pub(crate) mod tests;

pub use repair::{Repaired, repair};
pub use scan::{Scan, ScanError, ScanLimits, scan};
pub use split::{join, split_by_bytes, split_by_items, split_by_resource};
