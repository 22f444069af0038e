//! Rows of the component tables: what a name in a file stands for.

use std::sync::Arc;

use super::{
    BuildContext, BuiltConnector, BuiltProcessor, ConnectorConfig, ConnectorUse, Exporter, ExporterConfig, Extension,
    ExtensionConfig, ProcessorConfig, Receiver, ReceiverConfig, Stability, delivery,
};
use crate::runtime::BuildError;
use crate::{
    config::{Diagnostics, Node},
    signal::{ContextNeeds, Signal},
};

/// Settings of a receiver that were read and checked.
pub struct ReadyReceiver {
    pub build: Box<dyn FnOnce(BuildContext) -> Result<Box<dyn Receiver>, BuildError> + Send>,
}

pub struct ReadyProcessor {
    pub needs: ContextNeeds,
    pub build: Box<dyn FnOnce(BuildContext, Signal) -> Result<BuiltProcessor, BuildError> + Send>,
}

pub struct ReadyConnector {
    pub needs: ContextNeeds,
    pub wants_index: bool,
    pub build: Box<dyn FnOnce(BuildContext, ConnectorUse) -> Result<BuiltConnector, BuildError> + Send>,
}

pub struct ReadyExporter {
    pub needs: ContextNeeds,
    pub splits_by_context: bool,
    pub delivery: delivery::Settings,
    pub build: Box<dyn FnOnce(BuildContext) -> Result<Arc<dyn Exporter>, BuildError> + Send>,
}

pub struct ReadyExtension {
    pub needs: ContextNeeds,
    pub build: Box<dyn FnOnce(BuildContext) -> Result<Arc<dyn Extension>, BuildError> + Send>,
}

/// What all rows say.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    pub type_name: &'static str,
    /// Older spellings that still load, with a warning.
    pub aliases: &'static [&'static str],
    pub stability: Stability,
}

impl Naming {
    pub fn answers_to(&self, type_name: &str) -> bool {
        self.type_name == type_name || self.aliases.contains(&type_name)
    }
}

pub struct ReceiverFactory {
    pub naming: Naming,
    pub signals: &'static [Signal],
    pub read: fn(&Node, &mut Diagnostics) -> ReadyReceiver,
}

impl ReceiverFactory {
    pub const fn of<C: ReceiverConfig>() -> Self {
        Self {
            naming: Naming { type_name: C::TYPE, aliases: C::ALIASES, stability: C::STABILITY },
            signals: C::SIGNALS,
            read: |node, found| {
                let config = C::read(node, found);
                ReadyReceiver { build: Box::new(|context| config.build(context)) }
            },
        }
    }
}

pub struct ProcessorFactory {
    pub naming: Naming,
    pub signals: &'static [Signal],
    pub read: fn(&Node, &mut Diagnostics) -> ReadyProcessor,
}

impl ProcessorFactory {
    pub const fn of<C: ProcessorConfig>() -> Self {
        Self {
            naming: Naming { type_name: C::TYPE, aliases: C::ALIASES, stability: C::STABILITY },
            signals: C::SIGNALS,
            read: |node, found| {
                let config = C::read(node, found);
                ReadyProcessor { needs: config.needs(), build: Box::new(|context, signal| config.build(context, signal)) }
            },
        }
    }
}

pub struct ConnectorFactory {
    pub naming: Naming,
    pub pairs: &'static [(Signal, Signal)],
    /// Whether a connector of these settings has rows to render directly.
    pub has_page: fn(&Node) -> bool,
    /// Whether nothing of a resource is left on them but the name of its service.
    pub rows_are_of_services: fn(&Node) -> bool,
    pub read: fn(&Node, &mut Diagnostics) -> ReadyConnector,
}

impl ConnectorFactory {
    pub const fn of<C: ConnectorConfig>() -> Self {
        Self {
            naming: Naming { type_name: C::TYPE, aliases: C::ALIASES, stability: C::STABILITY },
            pairs: C::PAIRS,
            has_page: |node| C::read(node, &mut Diagnostics::default()).has_page(),
            rows_are_of_services: |node| C::read(node, &mut Diagnostics::default()).rows_are_of_services(),
            read: |node, found| {
                let config = C::read(node, found);
                ReadyConnector {
                    needs: config.needs(),
                    wants_index: config.wants_index(),
                    build: Box::new(|context, wanted| config.build(context, wanted)),
                }
            },
        }
    }
}

pub struct ExporterFactory {
    pub naming: Naming,
    pub signals: &'static [Signal],
    /// Whether an exporter of these settings renders connectors' rows directly; the flag: rows that are of services.
    pub renders_pages: fn(&Node, bool) -> bool,
    pub read: fn(&Node, &mut Diagnostics) -> ReadyExporter,
}

impl ExporterFactory {
    pub const fn of<C: ExporterConfig>() -> Self {
        Self {
            naming: Naming { type_name: C::TYPE, aliases: C::ALIASES, stability: C::STABILITY },
            signals: C::SIGNALS,
            renders_pages: |node, of_services| C::read(node, &mut Diagnostics::default()).renders_pages(of_services),
            read: |node, found| {
                let config = C::read(node, found);
                ReadyExporter {
                    needs: config.needs(),
                    splits_by_context: config.splits_by_context(),
                    delivery: config.delivery(),
                    build: Box::new(|context| config.build(context)),
                }
            },
        }
    }
}

pub struct ExtensionFactory {
    pub naming: Naming,
    pub read: fn(&Node, &mut Diagnostics) -> ReadyExtension,
}

impl ExtensionFactory {
    pub const fn of<C: ExtensionConfig>() -> Self {
        Self {
            naming: Naming { type_name: C::TYPE, aliases: C::ALIASES, stability: C::STABILITY },
            read: |node, found| {
                let config = C::read(node, found);
                ReadyExtension { needs: config.needs(), build: Box::new(|context| config.build(context)) }
            },
        }
    }
}

/// Every component there is, for those who read a file without naming one.
#[derive(Clone, Copy)]
pub struct Tables {
    pub receivers: &'static [ReceiverFactory],
    pub processors: &'static [ProcessorFactory],
    pub connectors: &'static [ConnectorFactory],
    pub exporters: &'static [ExporterFactory],
    pub extensions: &'static [ExtensionFactory],
}
