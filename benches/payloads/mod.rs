//! The requests that the benches read: those of the load generator in `benches/load`, 512 spans of about 476 bytes each.

use crate::{
    payload::{Compression, Shape, build},
    wire::Signal,
};

/// Requests of 512 spans, some 16 MB of them, so that they do not all stay in the second-level cache.
pub(crate) fn traces() -> Vec<Vec<u8>> {
    let shape = Shape {
        signal: Signal::Traces,
        batch: 512,
        attrs: 10,
        payloads: 64,
        services: 12,
        error_pct: 1.5,
        complete: false,
        seed: 1,
        compression: Compression::None,
    };
    build(&shape).payloads.iter().map(|payload| payload.raw().to_vec()).collect()
}

/// Spans in them.
pub(crate) fn spans(payloads: &[Vec<u8>]) -> u64 {
    payloads.len() as u64 * 512
}
