//! Takes everything and does nothing with it.
//!
//! In:   batches of any signal.
//! Out:  nothing.
//! Full: never.
//! Lost: all of it, on purpose; counted as discarded.
//!
//! ```yaml
//! exporters:
//!   nop:
//! ```

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use crate::{
    component::delivery,
    component::{BuildContext, Exporter, ExporterConfig, Outcome, Request, Stability},
    config::{Diagnostics, Node, read},
    runtime::BuildError,
    signal::Signal,
};

/// There is nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

impl ExporterConfig for Config {
    const TYPE: &'static str = "nop";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        read(node, found)
    }

    fn delivery(&self) -> delivery::Settings {
        delivery::Settings::default()
    }

    fn build(self, _context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        Ok(Arc::new(Nop))
    }
}

struct Nop;

impl Exporter for Nop {
    fn export(&self, _request: Request) -> BoxFuture<'_, Outcome> {
        Box::pin(std::future::ready(Outcome::Discarded))
    }
}
