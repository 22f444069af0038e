//! Changes the attributes of resources by a list of actions.
//!
//! In:   batches of any signal.
//! Out:  the same, resources changed; the very same bytes where no action found anything to do.
//! Full: never; it holds nothing.
//! Lost: what an action deletes, hashes or overwrites.
//!
//! ```yaml
//! processors:
//!   resource:
//!     attributes:
//!       - {key: deployment.environment.name, action: upsert, value: production}
//!       - {key: host.id, action: delete}
//! ```

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;

use super::actions::{self, Actions, Resolved};
use crate::{
    component::{BuildContext, BuiltProcessor, Processed, Processor, ProcessorConfig, Stability},
    config::{Diagnostics, Node, read},
    otlp::{
        edit::{AttributesWriter, Edit, Editor, edit},
        view::ResourceView,
    },
    runtime::BuildError,
    signal::{Batch, ContextNeeds, Signal, UnixNanos},
};

/// The section as written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// The actions, done in order. At least one.
    attributes: Vec<actions::Settings>,
}

/// Checked settings.
#[derive(Debug)]
pub struct Config {
    actions: Actions,
}

impl ProcessorConfig for Config {
    const TYPE: &'static str = "resource";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let section: Section = read(node, found);
        Self { actions: Actions::read(section.attributes, node, "attributes", found) }
    }

    fn needs(&self) -> ContextNeeds {
        self.actions.needs()
    }

    fn build(self, _context: BuildContext, _signal: Signal) -> Result<BuiltProcessor, BuildError> {
        Ok(BuiltProcessor::Stage(Arc::new(Resource { actions: self.actions })))
    }
}

struct Resource {
    actions: Actions,
}

impl Processor for Resource {
    fn process(&self, batch: Batch, _received: UnixNanos) -> Processed {
        let mut resources = Resources { actions: self.actions.resolve(&batch.context) };
        let edited = edit(batch.signal, &batch.payload, &mut resources);
        Processed::Keep(super::with_payload(batch, edited.payload))
    }
}

struct Resources<'c> {
    actions: Resolved<'c>,
}

impl Editor for Resources<'_> {
    fn visits_items(&self) -> bool {
        false
    }

    fn resource(&mut self, resource: &ResourceView<'_>, out: &mut AttributesWriter) -> Edit {
        self.actions.apply(resource.attributes, out)
    }
}
