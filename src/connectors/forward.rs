//! Passes records on from one pipeline to another, as they are.
//!
//! In:   batches of any signal.
//! Out:  the same batches, in a topic of its own; their bytes are shared, not copied.
//! Full: it waits for room behind it, and its own topic with it.

use serde::Deserialize;

use crate::{
    component::{BuildContext, BuiltConnector, Connector, ConnectorConfig, ConnectorUse, Derived, Stability},
    config::{Diagnostics, Node, read},
    journal::Record,
    runtime::BuildError,
    signal::Signal,
};

/// It has no settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

impl ConnectorConfig for Config {
    const TYPE: &'static str = "forward";
    const STABILITY: Stability = Stability::Beta;
    const PAIRS: &'static [(Signal, Signal)] =
        &[(Signal::Traces, Signal::Traces), (Signal::Metrics, Signal::Metrics), (Signal::Logs, Signal::Logs)];

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        read(node, found)
    }

    fn build(self, _context: BuildContext, _wanted: ConnectorUse) -> Result<BuiltConnector, BuildError> {
        Ok(BuiltConnector { connector: Box::new(Forward), page: None, flush_interval: None })
    }
}

struct Forward;

impl Connector for Forward {
    fn consume(&mut self, record: &Record, out: &mut Vec<Derived>) {
        out.push(Derived { batch: record.batch.clone(), received: record.received });
    }
}
