//! Families of series → a Prometheus page, in every format a scraper may ask for.
//!
//! In:   [`PageSource`]s, which write their families one after another.
//! Out:  text 0.0.4 and 1.0.0, OpenMetrics 1.0, protobuf; escaped as negotiated; in chunks, so that a page of a million series takes
//!       the memory of one chunk.
//! Lost: a series that cannot be written (a reserved label, a duplicate) is left out, counted, and logged once; never the page.

mod escaping;
mod gate;
mod http;
mod labels;
mod left_out;
mod negotiate;
mod numbers;
mod page;
mod protobuf;
mod render;
mod sink;
mod text;
pub mod translation;

#[cfg(test)]
pub(crate) mod messages;
#[cfg(test)]
pub(crate) mod reader;
#[cfg(test)]
mod tests;

pub use escaping::Escaping;
pub use http::{Scrapes, plain};
pub use labels::{LabelBlock, Pairs};
pub use left_out::{LeftOut, Reason};
pub use negotiate::{Choice, Format, choose, takes_gzip};
pub(crate) use numbers::bound_text;
pub use page::{Bucket, Exemplar, Family, FamilyKind, NativeHistogram, Page, PageSource, Span};
pub use render::{Style, page_in_memory, page_in_pieces};
pub(crate) use text::for_each_label;
#[cfg(test)]
pub(crate) use {page::PageWriter, sink::Gone};
