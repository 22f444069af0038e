//! OTLP/JSON of any kind: read or refused; what is read comes back when it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::{otlp, signal};

#[path = "../../src/otlp/laws.rs"]
mod laws;
#[path = "../../src/otlp/oracle.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    if let Some((signal, body)) = laws::signal(data) {
        laws::json_comes_back(signal, body);
    }
});
