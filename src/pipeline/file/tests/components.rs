//! A few components that can be named and read, and never built.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    component::delivery,
    component::{
        BuildContext, BuiltConnector, BuiltProcessor, ConnectorConfig, ConnectorFactory, ConnectorUse, Exporter, ExporterConfig,
        ExporterFactory, Extension, ExtensionConfig, ExtensionFactory, ProcessorConfig, ProcessorFactory, Receiver,
        ReceiverConfig, ReceiverFactory, Stability, Tables,
    },
    config::{Diagnostics, Node, read},
    runtime::BuildError,
    signal::Signal,
};

pub(super) const TABLES: Tables = Tables {
    receivers: &[ReceiverFactory::of::<Otlp>(), ReceiverFactory::of::<Scrape>(), ReceiverFactory::of::<BothIn>()],
    processors: &[ProcessorFactory::of::<Batch>(), ProcessorFactory::of::<Tail>()],
    connectors: &[ConnectorFactory::of::<Red>(), ConnectorFactory::of::<Forward>(), ConnectorFactory::of::<Both>()],
    exporters: &[
        ExporterFactory::of::<Debug>(),
        ExporterFactory::of::<Prometheus>(),
        ExporterFactory::of::<OtlpGrpc>(),
        ExporterFactory::of::<BothOut>(),
    ],
    extensions: &[ExtensionFactory::of::<HealthCheck>()],
};

/// The settings of all of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    size: u32,
    verbosity: String,
    auth: Option<Auth>,
    sending_queue: Queue,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Auth {
    authenticator: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Queue {
    storage: Option<String>,
}

fn check(node: &Node, found: &mut Diagnostics) {
    let _: Settings = read(node, found);
}

fn never<T>() -> Result<T, BuildError> {
    Err(BuildError::setting("", "a component of a test is not built"))
}

macro_rules! receiver {
    ($name:ident, $type:literal, $signals:expr) => {
        struct $name;
        impl ReceiverConfig for $name {
            const TYPE: &'static str = $type;
            const STABILITY: Stability = Stability::Beta;
            const SIGNALS: &'static [Signal] = $signals;
            fn read(node: &Node, found: &mut Diagnostics) -> Self {
                check(node, found);
                Self
            }
            fn build(self, _context: BuildContext) -> Result<Box<dyn Receiver>, BuildError> {
                never()
            }
        }
    };
}

macro_rules! processor {
    ($name:ident, $type:literal, $signals:expr) => {
        struct $name;
        impl ProcessorConfig for $name {
            const TYPE: &'static str = $type;
            const STABILITY: Stability = Stability::Beta;
            const SIGNALS: &'static [Signal] = $signals;
            fn read(node: &Node, found: &mut Diagnostics) -> Self {
                check(node, found);
                Self
            }
            fn build(self, _context: BuildContext, _signal: Signal) -> Result<BuiltProcessor, BuildError> {
                never()
            }
        }
    };
}

macro_rules! connector {
    ($name:ident, $type:literal, $pairs:expr) => {
        struct $name;
        impl ConnectorConfig for $name {
            const TYPE: &'static str = $type;
            const STABILITY: Stability = Stability::Beta;
            const PAIRS: &'static [(Signal, Signal)] = $pairs;
            fn read(node: &Node, found: &mut Diagnostics) -> Self {
                check(node, found);
                Self
            }
            fn build(self, _context: BuildContext, _wanted: ConnectorUse) -> Result<BuiltConnector, BuildError> {
                never()
            }
        }
    };
}

macro_rules! exporter {
    ($name:ident, $type:literal, $aliases:expr, $signals:expr) => {
        struct $name;
        impl ExporterConfig for $name {
            const TYPE: &'static str = $type;
            const ALIASES: &'static [&'static str] = $aliases;
            const STABILITY: Stability = Stability::Beta;
            const SIGNALS: &'static [Signal] = $signals;
            fn read(node: &Node, found: &mut Diagnostics) -> Self {
                check(node, found);
                Self
            }
            fn delivery(&self) -> delivery::Settings {
                delivery::Settings::default()
            }
            fn build(self, _context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
                never()
            }
        }
    };
}

receiver!(Otlp, "otlp", &Signal::ALL);
receiver!(Scrape, "scrape", &[Signal::Metrics]);
receiver!(BothIn, "both", &Signal::ALL);
processor!(Batch, "batch", &Signal::ALL);
processor!(Tail, "tail", &[Signal::Traces]);
connector!(Red, "red", &[(Signal::Traces, Signal::Metrics)]);
connector!(
    Forward,
    "forward",
    &[(Signal::Traces, Signal::Traces), (Signal::Metrics, Signal::Metrics), (Signal::Logs, Signal::Logs)]
);
connector!(Both, "both", &[(Signal::Traces, Signal::Traces)]);
exporter!(Debug, "debug", &[], &Signal::ALL);
exporter!(Prometheus, "prometheus", &[], &[Signal::Metrics]);
exporter!(OtlpGrpc, "otlp_grpc", &["otlp"], &Signal::ALL);
exporter!(BothOut, "both", &[], &Signal::ALL);

struct HealthCheck;
impl ExtensionConfig for HealthCheck {
    const TYPE: &'static str = "health_check";
    const STABILITY: Stability = Stability::Beta;
    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        check(node, found);
        Self
    }
    fn build(self, _context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        never()
    }
}
