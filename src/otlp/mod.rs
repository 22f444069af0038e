//! OTLP bytes: scan, views, editing, and OTLP/JSON both ways. Nothing here decodes into owned trees.

pub mod response;
pub mod wire;
