//! Rows of counters and histograms, found by the labels of one span: plain data, made for many rows and one writer.
//!
//! In:   observations, each with the key of its row.
//! Out:  copies of a page of rows at a time, for a scrape or a flush.
//! Full: rows are never thrown out to make room; whoever creates them keeps a budget ([`Guard`]).
//! Lost: rows that were idle for as long as their owner allows.

mod exemplars;
mod exponential;
mod guard;
pub mod snapshot;
mod store;

#[cfg(test)]
mod tests;

pub use exemplars::{Candidate, Chosen};
pub use exponential::{ExponentialHistogram, MAX_SCALE as EXPONENTIAL_SCALE_MAX};
pub use guard::{FOLDED, Guard, GuardLimits, Scope, Verdict, explosive};
pub use store::{Found, Key, KeyHead, Observation, RowCopy, RowId, RowStore, Shape, StoredKey};
