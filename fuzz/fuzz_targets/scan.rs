//! The scan, the views and the repair against prost, on any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::{otlp, signal};

#[path = "../../src/otlp/laws.rs"]
mod laws;
#[path = "../../src/otlp/oracle.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    if let Some((signal, payload)) = laws::signal(data) {
        laws::scan_agrees_with_prost(signal, payload);
    }
});
