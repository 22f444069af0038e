//! OTLP bytes: scan, views, editing, and OTLP/JSON both ways. Nothing here decodes into owned trees.
//!
//! In:   request bodies: of anybody at the door ([`scan`](mod@scan), [`mod@repair`]), and behind it of those that passed.
//! Out:  what is in them ([`view`]), parts of them ([`split_by_items`] and its like), changed ones ([`mod@edit`]), the same as JSON ([`json`]).
//! Full: the scan refuses what has more elements or depth than its size allows; everything else needs room for one copy at most.
//! Lost: only what a caller drops, and items without proper ids, which are counted.
//!
//! The messages themselves are written down in `proto/`; `schema` is the same as tables, and a test holds the two together.
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
pub use split::{join, pick_items, split_by_bytes, split_by_items, split_by_resource};
