//! Joins small batches into larger ones, as a wish to the readers behind it.
//!
//! In:   batches of any size.
//! Out:  the same; the consumers of the pipeline take as many records at once as this processor's settings ask for.
//! Full: nothing waits here, so nothing is lost here; the records lie in the topic until they are delivered.
//!
//! ```yaml
//! batch: {timeout: 200ms, send_batch_size: 8192, send_batch_max_size: 0}
//! ```

use std::time::Duration;

use serde::Deserialize;

use crate::{
    component::delivery::BatchWish,
    component::{BuildContext, BuiltProcessor, ProcessorConfig, Stability},
    config::{Diagnostics, GoDuration, Node, read},
    runtime::BuildError,
    signal::{ContextNeeds, Signal},
};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest wait for `send_batch_size` items; 0 sends at once.
    pub timeout: GoDuration,
    /// Items that are enough to be sent.
    pub send_batch_size: u64,
    /// Larger batches are split; 0: no bound. At least `send_batch_size`.
    pub send_batch_max_size: u64,
    /// Requests whose metadata differ in these keys are not joined.
    pub metadata_keys: Vec<String>,
    /// How many combinations of those a Collector keeps batches for. Here nothing is kept for a combination.
    pub metadata_cardinality_limit: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: GoDuration(Duration::from_millis(200)),
            send_batch_size: 8192,
            send_batch_max_size: 0,
            metadata_keys: Vec::new(),
            metadata_cardinality_limit: 1000,
        }
    }
}

impl ProcessorConfig for Config {
    const TYPE: &'static str = "batch";
    const STABILITY: Stability = Stability::Stable;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = read(node, found);
        if config.send_batch_max_size != 0 && config.send_batch_max_size < config.send_batch_size {
            found.error(
                node.nearest("send_batch_max_size").origin,
                format!(
                    "send_batch_max_size ({}) is less than send_batch_size ({})",
                    config.send_batch_max_size, config.send_batch_size
                ),
                Some("set it to 0 for no bound, or to at least send_batch_size".to_owned()),
            );
        }
        for (at, key) in config.metadata_keys.iter().enumerate() {
            if config.metadata_keys.iter().take(at).any(|earlier| earlier.eq_ignore_ascii_case(key)) {
                found.error(
                    node.nearest("metadata_keys").origin,
                    format!("`{key}` stands twice in metadata_keys (case does not count)"),
                    None,
                );
            }
        }
        if node.get("metadata_cardinality_limit").is_some() {
            found.ineffective(
                node.nearest("metadata_cardinality_limit").origin,
                "metadata_cardinality_limit has no effect",
                "records of different metadata are kept apart without a batch for each combination",
            );
        }
        config
    }

    fn needs(&self) -> ContextNeeds {
        ContextNeeds {
            metadata: self.metadata_keys.iter().map(|key| key.to_ascii_lowercase()).collect(),
            ..ContextNeeds::default()
        }
    }

    fn build(self, _context: BuildContext, _signal: Signal) -> Result<BuiltProcessor, BuildError> {
        Ok(BuiltProcessor::Batching(BatchWish {
            send_batch_size: self.send_batch_size,
            send_batch_max_size: self.send_batch_max_size,
            timeout: self.timeout.0,
            splits_by_context: !self.metadata_keys.is_empty(),
        }))
    }
}
