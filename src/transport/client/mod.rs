//! Clients: connections that are kept open, gRPC and HTTP on top of them, and what an answer means.
//!
//! ```text
//!  Request ──→ message (parts, compressed) ──→ grpc::Channel ──┐
//!                                              http::Client  ──┴──→ connect (resolve, proxy, TLS) ──→ backend
//!  Outcome ←── outcome (the one table) ←── status, headers, body (bounded)
//! ```
//!
//! In:   one attempt at a time, from `delivery`, through an exporter.
//! Out:  an [`crate::component::Outcome`].
//! Full: nothing waits here; `delivery` bounds what is in flight.
//! Lost: nothing. Dropping a call resets its stream; the records are still in the journal.

mod connect;
mod endpoint;
pub mod grpc;
pub mod http;
mod link;
mod message;
pub mod outcome;
mod proxy;
mod resolve;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use connect::{ConnectError, Connector};
pub use endpoint::{Endpoint, Place};
pub use message::{Compressor, Message};
pub use proxy::{Proxy, ProxyRules};
pub use resolve::{Resolve, SystemResolver};
pub use settings::{Algorithm, Auth, GrpcClientSettings, Headers, HttpClientSettings, Keepalive, user_agent};
