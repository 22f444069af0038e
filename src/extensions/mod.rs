//! Help that carries no telemetry.

pub mod basic_auth;
pub mod bearer_token_auth;
pub mod file_storage;
pub mod headers_setter;
pub mod health_check;
pub mod pprof;
mod watched;
pub mod zpages;

use crate::component::ExtensionFactory;

/// Every extension a configuration can name.
pub const EXTENSIONS: &[ExtensionFactory] = &[
    ExtensionFactory::of::<basic_auth::Config>(),
    ExtensionFactory::of::<bearer_token_auth::Config>(),
    ExtensionFactory::of::<file_storage::Config>(),
    ExtensionFactory::of::<headers_setter::Config>(),
    ExtensionFactory::of::<health_check::Config>(),
    ExtensionFactory::of::<pprof::Config>(),
    ExtensionFactory::of::<zpages::Config>(),
];
