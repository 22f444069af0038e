//! The Collector's folder for what it keeps on disk: names the data directory of weir's journal. Its other keys have no effect.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    component::{BuildContext, Extension, ExtensionConfig, Stability},
    config::{self, Diagnostics, GoDuration, Node},
    runtime::BuildError,
};

/// The settings of the extension.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory.
    pub directory: Option<String>,
    pub create_directory: bool,
    /// Octal digits, such as 0750.
    pub directory_permissions: Option<String>,
    pub timeout: Option<GoDuration>,
    pub fsync: bool,
    pub recreate: bool,
    pub compaction: Compaction,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compaction {
    pub on_start: bool,
    pub on_rebound: bool,
    pub directory: Option<String>,
    pub max_transaction_size: Option<u64>,
    pub rebound_needed_threshold_mib: Option<u64>,
    pub rebound_trigger_threshold_mib: Option<u64>,
    pub check_interval: Option<GoDuration>,
    pub cleanup_on_start: bool,
}

impl ExtensionConfig for Config {
    const TYPE: &'static str = "file_storage";
    const STABILITY: Stability = Stability::Development;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = config::read(node, found);
        if let Some(digits) = &config.directory_permissions
            && u32::from_str_radix(digits, 8).is_err()
        {
            let help = Some("octal digits, such as \"0750\"".to_owned());
            found.error(node.nearest("directory_permissions").origin, format!("`{digits}` are no permissions"), help);
        }
        for (key, value) in node.entries() {
            if let Some(word) = key.word().filter(|word| &***word != "directory") {
                found.ineffective(
                    value.origin,
                    format!("`{word}` has no effect here"),
                    "weir's journal keeps what waits for a backend; `journal::mode` says whether it is synced (it is, unless said otherwise)",
                );
            }
        }
        config
    }

    fn build(self, _context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        Ok(Arc::new(Nothing))
    }
}

struct Nothing;

impl Extension for Nothing {
    fn is_storage(&self) -> bool {
        true
    }
}
