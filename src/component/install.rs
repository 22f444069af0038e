//! What some backends want to be told before the first item: templates, policies.

use crate::signal::Signal;

/// How far to go with what a backend keeps.
#[derive(Debug, Clone)]
pub struct Extent {
    /// For items of these signals.
    pub signals: Vec<Signal>,
    /// Ask, and write nothing.
    pub dry_run: bool,
    /// Write over what a person changed.
    pub force: bool,
}

/// What became of one object that a backend keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    Created,
    Updated,
    /// As it should be already.
    Same,
    /// A person changed it, or made it: the words say what differs.
    Kept(String),
    /// The backend has nothing of the kind.
    Absent(String),
    /// The backend said no.
    Refused(String),
}

/// One object, and what became (at a dry run: would become) of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `index template weir-logs`
    pub what: String,
    pub done: Done,
    /// The request that writes it.
    pub request: String,
    pub body: String,
}

/// What a backend is, and what became of each object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// `OpenSearch 2.19`
    pub backend: String,
    pub steps: Vec<Step>,
}
