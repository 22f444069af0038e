//! The Collector's profiler of itself. The keys are read; weir has no such endpoint.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    component::{BuildContext, Extension, ExtensionConfig, Stability},
    config::{self, Diagnostics, Node},
    runtime::BuildError,
};

/// The settings of the extension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub endpoint: String,
    pub dialer: Dialer,
    pub block_profile_fraction: i64,
    pub mutex_profile_fraction: i64,
    pub save_to_file: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dialer {
    pub timeout: Option<config::GoDuration>,
}

impl ExtensionConfig for Config {
    const TYPE: &'static str = "pprof";
    const STABILITY: Stability = Stability::Development;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config = config::read(node, found);
        found.ineffective(
            node.origin,
            "`pprof` serves nothing",
            "profile the process from outside, for example with `perf record -p`",
        );
        config
    }

    fn build(self, _context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        Ok(Arc::new(Nothing))
    }
}

struct Nothing;

impl Extension for Nothing {}
