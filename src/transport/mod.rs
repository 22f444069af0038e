//! Sockets: listeners, TLS, HTTP and gRPC servers and clients, and the settings blocks they share. Nothing else opens one.

pub mod client;
pub mod local;
pub mod server;
pub mod tls;
