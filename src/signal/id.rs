//! Names of components: `otlp`, `otlp/eu`.

use std::{fmt, sync::Arc};

/// `type` or `type/name`, as a configuration file writes it. Two spellings of one type are two ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId {
    text: Arc<str>,
    type_len: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("a component id must not be empty")]
    Empty,
    #[error("the type of a component id is a letter followed by at most 62 letters, digits or underscores")]
    Type,
    #[error("the name after the slash must be 1 to 1024 characters without spaces, control characters or symbols")]
    Name,
}

impl ComponentId {
    /// Collector rule: type `^[a-zA-Z][0-9a-zA-Z_]{0,62}$`; the name has no separator, control or symbol characters, at most 1024 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let text = text.trim();
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind.trim(), Some(name.trim())),
            None => (text, None),
        };
        if kind.is_empty() {
            return Err(InvalidId::Empty);
        }
        let mut letters = kind.chars();
        let head = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
        if !head || kind.len() > 63 || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(InvalidId::Type);
        }
        if let Some(name) = name {
            let symbol = |c: char| c.is_control() || c.is_whitespace() || "$+<=>^`|~".contains(c);
            if name.is_empty() || name.len() > 1024 || name.chars().any(symbol) {
                return Err(InvalidId::Name);
            }
        }
        Ok(Self { text: name.map_or_else(|| Arc::from(kind), |name| Arc::from(format!("{kind}/{name}"))), type_len: kind.len() })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn type_name(&self) -> &str {
        self.text.get(..self.type_len).unwrap_or(&self.text)
    }

    pub fn name(&self) -> Option<&str> {
        self.text.get(self.type_len + 1..)
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
