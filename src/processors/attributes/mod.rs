//! Changes the attributes of spans, log records and data points by a list of actions.
//!
//! In:   batches of any signal.
//! Out:  the same, attributes changed; the very same bytes where nothing matched or no action found anything to do.
//! Full: never; it holds nothing.
//! Lost: what an action deletes, hashes or overwrites.
//!
//! ```yaml
//! processors:
//!   attributes:
//!     include:
//!       match_type: regexp
//!       services: ["^shop-"]
//!     actions:
//!       - {key: user.email, action: hash}
//!       - {pattern: "^card\\.", action: delete}
//!       - {key: tenant, action: upsert, from_context: metadata.x-tenant}
//! ```
//!
//! As in the Collector: `include` is asked before `exclude`; what is left out passes unchanged; of a metric, only `metric_names` are matched.

mod matching;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;

use self::matching::{Item, Properties};
use super::actions::{self, Actions, Resolved};
use crate::{
    component::{BuildContext, BuiltProcessor, Processed, Processor, ProcessorConfig, Stability},
    config::{Diagnostics, Node, read},
    otlp::{
        edit::{AttributesWriter, Edit, Editor, Place, edit},
        view::{AttributesView, LogRecordView, MetricView, PointView, SpanView},
    },
    runtime::BuildError,
    signal::{Batch, ContextNeeds, Signal, UnixNanos},
};

/// The section as written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// The actions, done in order. At least one.
    actions: Vec<actions::Settings>,
    /// Only what has all of these properties is changed.
    include: Option<matching::Settings>,
    /// What has all of these properties is not changed, although it is included.
    exclude: Option<matching::Settings>,
}

/// Checked settings.
#[derive(Debug)]
pub struct Config {
    actions: Actions,
    include: Option<Properties>,
    exclude: Option<Properties>,
}

impl ProcessorConfig for Config {
    const TYPE: &'static str = "attributes";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let section: Section = read(node, found);
        let mut properties = |written: Option<matching::Settings>, key| {
            written.map(|written| Properties::read(&written, node.nearest(key), found))
        };
        let (include, exclude) = (properties(section.include, "include"), properties(section.exclude, "exclude"));
        Self { actions: Actions::read(section.actions, node, "actions", found), include, exclude }
    }

    fn needs(&self) -> ContextNeeds {
        self.actions.needs()
    }

    fn build(self, context: BuildContext, signal: Signal) -> Result<BuiltProcessor, BuildError> {
        for (key, properties) in [("include", &self.include), ("exclude", &self.exclude)] {
            let Some(properties) = properties else { continue };
            properties.check(signal).map_err(|message| BuildError::setting(key, message))?;
            if signal == Signal::Metrics && properties.has_resources() {
                let message = format!("`{key}::resources` is not matched against metrics, as in the Collector");
                context.notes.add(format!("{key}::resources"), message, Some("`metric_names` alone decides".to_owned()));
            }
        }
        Ok(BuiltProcessor::Stage(Arc::new(Attributes { config: self })))
    }
}

struct Attributes {
    config: Config,
}

impl Processor for Attributes {
    fn process(&self, batch: Batch, _received: UnixNanos) -> Processed {
        let mut items = Items { config: &self.config, actions: self.config.actions.resolve(&batch.context) };
        let edited = edit(batch.signal, &batch.payload, &mut items);
        Processed::Keep(super::with_payload(batch, edited.payload))
    }
}

struct Items<'c> {
    config: &'c Config,
    actions: Resolved<'c>,
}

impl Items<'_> {
    fn item(&self, place: &Place<'_>, item: Item<'_>, attributes: AttributesView<'_>, out: &mut AttributesWriter) -> Edit {
        let matches = |properties: &Option<Properties>, otherwise| {
            let decisive = properties.as_ref().filter(|properties| properties.look_at(item));
            decisive.map_or(otherwise, |properties| properties.matches(place, item, attributes))
        };
        if !matches(&self.config.include, true) || matches(&self.config.exclude, false) {
            return Edit::Keep;
        }
        self.actions.apply(attributes, out)
    }
}

impl Editor for Items<'_> {
    fn span(&mut self, place: &Place<'_>, span: &SpanView<'_>, out: &mut AttributesWriter) -> Edit {
        self.item(place, Item::Span(span), span.attributes, out)
    }

    fn log_record(&mut self, place: &Place<'_>, record: &LogRecordView<'_>, out: &mut AttributesWriter) -> Edit {
        self.item(place, Item::LogRecord(record), record.attributes, out)
    }

    fn data_point(
        &mut self,
        place: &Place<'_>,
        metric: &MetricView<'_>,
        point: &PointView<'_>,
        out: &mut AttributesWriter,
    ) -> Edit {
        self.item(place, Item::Metric(metric), point.attributes(), out)
    }
}
