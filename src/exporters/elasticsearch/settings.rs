//! What an exporter of this kind is told, whichever of its two names it goes by.

use std::{fmt, time::Duration};

use super::{
    documents::Mode,
    facts::Facts,
    names::{DatePiece, Pattern},
};
use crate::{component::delivery, config::Secret, signal::Signal, transport::client::HttpClientSettings};

/// How long indices stay where they are, in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifecycle {
    /// Days after which an index is no longer written to.
    pub(super) hot: u32,
    /// Days of the warm tier after that.
    pub(super) warm: u32,
    /// Days of the cold tier after that; then it is deleted. 0: never.
    pub(super) cold: u32,
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} days hot, {} warm, {} cold", self.hot, self.warm, self.cold)
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { hot: 30, warm: 90, cold: 365 }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// URLs, each with a scheme.
    pub(super) endpoints: Vec<String>,
    pub(super) client: HttpClientSettings,
    /// The value of `Authorization`.
    pub(super) authorization: Option<Secret>,
    pub(super) timeout: Duration,
    pub(super) delivery: delivery::Settings,
    /// `None`: one that works with the server.
    pub(super) mode: Option<Mode>,
    pub(super) allowed: Vec<Mode>,
    /// By [`Signal::ordinal`].
    pub(super) indices: [Option<Pattern>; Signal::ALL.len()],
    pub(super) fallbacks: [String; Signal::ALL.len()],
    pub(super) suffix: Option<(String, Vec<DatePiece>)>,
    pub(super) dataset: String,
    pub(super) namespace: String,
    pub(super) stream_prefix: &'static str,
    /// The action: `create` or `index`.
    pub(super) action: &'static str,
    pub(super) pipeline: String,
    /// Ids made of where an item stands in the journal.
    pub(super) document_ids: bool,
    pub(super) dynamic_id: bool,
    pub(super) dynamic_pipeline: bool,
    /// Bytes of a bulk request before compression.
    pub(super) bulk_bytes_max: usize,
    /// Statuses of requests and items that are tried again beside those that are anyway.
    pub(super) retry_statuses: Vec<u16>,
    pub(super) include_source_on_error: Option<bool>,
    /// What the server is, where a person said so.
    pub(super) server: Option<Facts>,
    pub(super) setup_on_start: bool,
    pub(super) lifecycle: Lifecycle,
    /// Look for other nodes at the start.
    pub(super) discover: bool,
    /// And again after so long.
    pub(super) discover_interval: Option<Duration>,
}
