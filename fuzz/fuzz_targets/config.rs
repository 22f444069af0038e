//! Any text as a configuration: loaded, checked, drawn, dumped and migrated.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/suite/config_laws.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod config_laws;

fuzz_target!(|data: &[u8]| config_laws::hold(data));
