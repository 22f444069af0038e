//! Bounds memory, as a wish to the door: requests are admitted by a budget of bytes before they are read, not by a look at the heap.
//!
//! In:   batches.
//! Out:  the same.
//! Full: the door refuses with UNAVAILABLE / 503 and a hint when to come again.
//!
//! ```yaml
//! memory_limiter: {check_interval: 1s, limit_mib: 512}
//! ```

use serde::Deserialize;

use crate::{
    component::{BuildContext, BuiltProcessor, ProcessorConfig, Stability},
    config::{Diagnostics, GoDuration, Node, read},
    door::BudgetWish,
    runtime::BuildError,
    signal::Signal,
};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often a Collector looks at its heap; must be above 0 there. The door looks at each request.
    pub check_interval: GoDuration,
    /// Bytes that the door holds at most, in MiB; wins over the percentage.
    pub limit_mib: u64,
    /// A part of the limit that a Collector keeps free. The door's limit is `limit - spike`.
    pub spike_limit_mib: u64,
    /// The same, of the memory there is (of the cgroup, if it has a limit).
    pub limit_percentage: u64,
    pub spike_limit_percentage: u64,
    pub min_gc_interval_when_soft_limited: GoDuration,
    pub min_gc_interval_when_hard_limited: GoDuration,
    pub max_gc_interval_when_soft_limited: GoDuration,
    pub max_gc_interval_when_hard_limited: GoDuration,
}

/// Keys about a garbage collector that is not there.
const GC_KEYS: [&str; 4] = [
    "min_gc_interval_when_soft_limited",
    "min_gc_interval_when_hard_limited",
    "max_gc_interval_when_soft_limited",
    "max_gc_interval_when_hard_limited",
];

impl ProcessorConfig for Config {
    const TYPE: &'static str = "memory_limiter";
    const STABILITY: Stability = Stability::Stable;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = read(node, found);
        let origin = node.origin;
        if config.check_interval.0.is_zero() {
            found.error(
                node.nearest("check_interval").origin,
                "check_interval must be greater than zero",
                Some("`check_interval: 1s` is the usual value".to_owned()),
            );
        }
        if config.limit_mib == 0 && config.limit_percentage == 0 {
            found.error(
                origin,
                "limit_mib or limit_percentage must be set",
                Some("`limit_percentage: 75`, for example".to_owned()),
            );
        }
        if config.limit_mib != 0 && config.spike_limit_mib >= config.limit_mib {
            found.error(node.nearest("spike_limit_mib").origin, "spike_limit_mib must be smaller than limit_mib", None);
        }
        if config.limit_percentage > 100 || config.spike_limit_percentage > 100 {
            found.error(node.nearest("limit_percentage").origin, "a percentage is at most 100", None);
        } else if config.limit_percentage != 0 && config.spike_limit_percentage >= config.limit_percentage {
            found.error(
                node.nearest("spike_limit_percentage").origin,
                "spike_limit_percentage must be smaller than limit_percentage",
                None,
            );
        }
        if node.get("check_interval").is_some() && !config.check_interval.0.is_zero() {
            found.ineffective(
                node.nearest("check_interval").origin,
                "check_interval has no effect",
                "the limit is a budget of bytes at the door, which each request is measured against when it comes",
            );
        }
        for key in GC_KEYS.into_iter().filter(|key| node.get(key).is_some()) {
            found.ineffective(node.nearest(key).origin, format!("{key} has no effect"), "there is no garbage collector to run");
        }
        config
    }

    fn build(self, _context: BuildContext, _signal: Signal) -> Result<BuiltProcessor, BuildError> {
        // The Collector refuses data above the soft limit: a fifth below the limit unless written.
        Ok(BuiltProcessor::Budget(if self.limit_mib != 0 {
            let spike = if self.spike_limit_mib == 0 { self.limit_mib / 5 } else { self.spike_limit_mib };
            BudgetWish::Mib { limit: self.limit_mib.saturating_sub(spike).max(1) }
        } else {
            let spike = if self.spike_limit_percentage == 0 {
                self.limit_percentage as f64 / 5.0
            } else {
                self.spike_limit_percentage as f64
            };
            BudgetWish::Percentage { limit: (self.limit_percentage as f64 - spike).max(1.0) }
        }))
    }
}
