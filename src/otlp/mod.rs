//! OTLP bytes: scan, views, editing, and OTLP/JSON both ways. Nothing here decodes into owned trees.
#![warn(clippy::indexing_slicing)]
#![allow(clippy::inline_always, reason = "the innermost steps of the scan and the views; each was measured")]

pub mod count;
pub mod edit;
pub mod fields;
pub mod json;
pub mod response;
mod rewrite;
pub mod scan;
mod schema;
pub mod view;
pub mod wire;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
pub(crate) mod tests;

pub use scan::{Scan, ScanError, ScanLimits, scan};
