//! Black-box scenarios, promises of all components, the module graph.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, too")]

mod architecture;
mod config_laws;
mod configs;
