//! What every consumer of a topic is: a place in a pipeline, a cursor, and the processors in front of it; and how it ends.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{Chain, Live, Replay, journey::Journey};
use crate::{
    component::Derived,
    journal::{Cursor, Position, Record, Settled},
    runtime::Shutdown,
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
    /// Dead letters of this consumer that are to be sent once more.
    pub replays: Option<mpsc::Receiver<Replay>>,
    /// What can be seen of it.
    pub live: Arc<Live>,
}

/// The ways in which a consumer is told to end.
#[derive(Clone, Default)]
pub struct Ends {
    /// Read to the end, settle all of it, then end.
    pub drain: Shutdown,
    /// Give up what is left, and end.
    pub abort: Shutdown,
    /// Read no further, finish what is being attempted until `abort`, and hand over the rest: another takes this one's place.
    pub release: Shutdown,
}

/// What a consumer leaves when it ends.
pub struct Left {
    pub consumer: Consumer,
    /// What it had read and not settled, if it was released.
    pub carried: Carried,
    /// Items that were given up.
    pub items: u64,
}

/// What was read and is not settled, on its way from one who was released to who takes its place.
#[derive(Default)]
pub struct Carried {
    /// An exporter's requests.
    pub(super) journeys: Vec<Journey>,
    /// A connector's records, in order.
    pub(super) records: VecDeque<Record>,
    /// A record that a connector has taken, and what it made of it, of which a part is not appended yet.
    pub(super) taken: Option<Taken>,
}

pub(super) struct Taken {
    pub(super) position: Position,
    pub(super) settled: Settled,
    /// The next one last.
    pub(super) derived: Vec<Derived>,
    /// How many were appended of each signal.
    pub(super) appended: [usize; Signal::ALL.len()],
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
