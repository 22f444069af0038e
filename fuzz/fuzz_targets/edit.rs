//! Edits and splits of any bytes: nothing else changes, nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::{otlp, signal};

#[path = "../../src/otlp/laws.rs"]
mod laws;
#[path = "../../src/otlp/oracle.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    if let Some((signal, payload)) = laws::signal(data) {
        laws::edits_change_nothing_else(signal, payload, data.first().map_or(0, |first| first / 3));
    }
});
