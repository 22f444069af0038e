//! weir: receives OpenTelemetry, measures it, passes all of it on.
//!
//! ```text
//!  SDKs ──→ receivers ──→ door ──→ journal ──→ pipeline (processors) ──→ delivery ──→ exporters ──→ backends
//!                                     └──→ connectors (span_metrics) ──→ registry ──→ exposition ──→ Prometheus
//! ```

// what travels
pub mod otlp;
pub mod signal;

// who handles it
pub mod component;
pub mod connectors;
pub mod exporters;
pub mod extensions;
pub mod processors;
pub mod receivers;

// what carries it
pub mod delivery;
pub mod door;
pub mod exposition;
pub mod journal;
pub mod registry;
pub mod transport;

// what makes it run
pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod pipeline;
pub mod runtime;
pub mod service;

// what we say about ourselves
pub mod internal_telemetry;
pub mod tap;
