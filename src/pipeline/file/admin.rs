//! `admin:`, weir's own section: the socket through which its owner looks at it.

use serde::Deserialize;

use crate::config::{Diagnostics, Node, Origin, read};

/// The admin socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Its path; `off` for none. Not written: `admin.sock` in the data directory.
    pub socket: Option<String>,
}

impl Admin {
    pub(super) fn read(node: Option<&Node>, found: &mut Diagnostics) -> Self {
        let Some(node) = node else { return Self::default() };
        let admin: Self = read(node, found);
        if admin.socket.as_ref().is_some_and(String::is_empty) {
            let origin = node.get("socket").map_or(Origin::default(), |value| value.origin);
            found.error(origin, "`socket` is empty", Some("a path, or `off`; leave it out for the default".to_owned()));
        }
        admin
    }

    /// Whether nothing listens.
    pub fn is_off(&self) -> bool {
        matches!(self.socket.as_deref(), Some("off" | "false"))
    }
}
