//! Help that carries no telemetry.

use crate::component::ExtensionFactory;

/// Every extension a configuration can name.
pub const EXTENSIONS: &[ExtensionFactory] = &[];
