//! OTLP/JSON ⇄ OTLP bytes, without a tree between.
//!
//! In:   the JSON body of an export request; or the checked bytes of one.
//! Out:  the same request as bytes, which the scan still has to check; or as JSON that the protocol prescribes.
//! Full: output, elements and nesting are bounded by [`Limits`]; a body beyond them is refused.
//! Lost: keys the protocol does not know, as it asks of readers; fields the tables do not know, when writing.
//!
//! Spec: OTLP "JSON Protobuf Encoding", protobuf "ProtoJSON Format".

mod decode;
mod encode;
mod error;
mod response;
pub mod scalar;
mod schema;

#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::encode;
pub use error::{JsonError, JsonErrorKind};
pub use response::{decode_status, decode_success, encode_status, encode_success};

use super::ScanLimits;

/// The bounds of a JSON request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// As for protobuf bodies. What passes here is scanned again in its protobuf form; that is where the budget is exact.
    pub scan: ScanLimits,
    /// Bytes of protobuf that a body may become: a list of small numbers grows to four times its size.
    pub bytes_max: usize,
}
