//! What every consumer of a topic is: a place in a pipeline, a cursor, and the processors in front of it.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{Chain, Live, Replay};
use crate::{
    journal::Cursor,
    signal::{ComponentId, Signal},
};

/// One (pipeline, component).
pub struct Consumer {
    /// `traces/x`
    pub pipeline: Arc<str>,
    pub id: ComponentId,
    pub signal: Signal,
    pub cursor: Cursor,
    pub chain: Arc<Chain>,
    /// How many connectors lie before it: 0 reads what receivers took.
    pub depth: usize,
    /// Dead letters of this consumer that are to be sent once more.
    pub replays: Option<mpsc::Receiver<Replay>>,
    /// What can be seen of it.
    pub live: Arc<Live>,
}

/// The name of a consumer's place in the journal.
pub fn consumer_name(component: &ComponentId, pipeline: &str) -> String {
    format!("{component} in pipeline {pipeline}")
}

/// Records taken from a topic at once at most.
pub(super) const RECORDS_MAX: usize = 1024;

/// After little was found, wait this long before looking again: at a high rate of small requests one wake-up then serves many.
pub(super) const LINGER: Duration = Duration::from_millis(1);

/// What counts as little, in bytes.
pub(super) const LITTLE: usize = 128 << 10;
