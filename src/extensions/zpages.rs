//! The Collector's debugging pages. The keys are read; weir serves no such pages.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    component::{BuildContext, Extension, ExtensionConfig, Stability},
    config::{self, Diagnostics, Node},
    runtime::BuildError,
    transport::server::HttpServerSettings,
};

/// The settings of the extension, beside those of an HTTP server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub expvar: Expvar,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expvar {
    pub enabled: bool,
}

impl ExtensionConfig for Config {
    const TYPE: &'static str = "zpages";
    const STABILITY: Stability = Stability::Development;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (config, _server): (Self, HttpServerSettings) = config::read2(node, found);
        found.ineffective(
            node.origin,
            "`zpages` serves nothing",
            "`weir plan` shows the pipelines, weir's own metrics show what goes on in them",
        );
        config
    }

    fn build(self, _context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        Ok(Arc::new(Nothing))
    }
}

struct Nothing;

impl Extension for Nothing {}
