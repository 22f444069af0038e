//! What is wrong with a configuration, where, and what to do about it.

use super::Origin;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The file does not load.
    Error,
    /// It loads, but something in it is old or risky.
    Warning,
    /// It loads; this key does nothing here, and the message says what happens instead.
    Ineffective,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    pub level: Level,
    pub origin: Origin,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// The remedy: the nearest valid key, what weir offers instead.
    pub help: Option<String>,
}

/// Everything found wrong, in the order found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diagnostics {
    pub found: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn error(&mut self, origin: Origin, message: impl Into<String>, help: Option<String>) {
        self.found.push(Diagnostic { level: Level::Error, origin, message: message.into(), help });
    }

    pub fn warning(&mut self, origin: Origin, message: impl Into<String>, help: Option<String>) {
        self.found.push(Diagnostic { level: Level::Warning, origin, message: message.into(), help });
    }

    /// A key that parses and has no effect; `instead` says what happens.
    pub fn ineffective(&mut self, origin: Origin, message: impl Into<String>, instead: impl Into<String>) {
        self.found.push(Diagnostic { level: Level::Ineffective, origin, message: message.into(), help: Some(instead.into()) });
    }

    pub fn has_errors(&self) -> bool {
        self.found.iter().any(|d| d.level == Level::Error)
    }
}
