//! What is known about a request beside its body.

use std::{collections::BTreeSet, net::IpAddr};

/// Who sent a batch and with which metadata; only what some component of the configuration reads is kept, never a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Context {
    /// The sender's address.
    pub peer: Option<IpAddr>,
    /// Request headers or gRPC metadata; names in lower case, sorted by name, each with its values in order.
    pub metadata: Vec<(Box<str>, Vec<Box<str>>)>,
    /// What the authenticator found out (`auth.username` is stored as `username`); no passwords, no tokens.
    pub auth: Vec<(Box<str>, Box<str>)>,
}

impl Context {
    /// The values of one metadata key; `name` in any case.
    pub fn metadata(&self, name: &str) -> &[Box<str>] {
        self.metadata.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or(&[], |(_, values)| values)
    }

    pub fn auth(&self, name: &str) -> Option<&str> {
        self.auth.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
    }
}

/// The parts of a [`Context`] that a component reads. What nobody needs is not kept, so that batches of different senders can be joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextNeeds {
    pub peer: bool,
    pub auth: bool,
    /// Metadata keys, in lower case.
    pub metadata: BTreeSet<String>,
}

impl ContextNeeds {
    pub fn is_empty(&self) -> bool {
        !self.peer && !self.auth && self.metadata.is_empty()
    }

    /// Adds what `other` needs.
    pub fn merge(&mut self, other: &Self) {
        self.peer |= other.peer;
        self.auth |= other.auth;
        self.metadata.extend(other.metadata.iter().cloned());
    }
}
