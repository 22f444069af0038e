//! TLS by rustls with ring: settings blocks of servers and clients, certificates re-read while running.

pub mod client;
pub mod server;
