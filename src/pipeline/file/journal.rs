//! `journal:`, weir's own section: where accepted data lies until it is delivered.

use serde::{Deserialize, Deserializer, de};

use crate::config::{ByteSize, Diagnostics, Node, Origin, read, suggest};

/// Where accepted data lies until it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JournalMode {
    /// In this process, bounded; gone with it.
    #[default]
    Memory,
    /// In files that the system writes in its own time.
    Buffered,
    /// In files, synced before the answer.
    Durable,
}

impl JournalMode {
    /// What this version has, for whoever writes something else.
    const HAD: &'static [&'static str] = &["memory"];
}

impl<'de> Deserialize<'de> for JournalMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "memory" => Ok(Self::Memory),
            "buffered" => Ok(Self::Buffered),
            "durable" => Ok(Self::Durable),
            other => {
                let had = suggest::list(Self::HAD.iter().copied());
                Err(de::Error::custom(format!("`{other}` is not a journal that this version has: it has {had}")))
            }
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    pub mode: JournalMode,
    pub directory: Option<String>,
    /// Bytes that may lie in the journal.
    pub max_size: Option<ByteSize>,
    /// Bytes a consumer may be behind before its oldest are dropped, counted.
    pub max_lag: Option<ByteSize>,
}

impl Journal {
    pub(super) fn read(node: Option<&Node>, found: &mut Diagnostics) -> Self {
        let Some(node) = node else { return Self::default() };
        let journal: Self = read(node, found);
        let at = |key: &str| node.get(key).map_or(Origin::default(), |value| value.origin);
        if journal.mode != JournalMode::Memory {
            let help =
                format!("this version has {}: write it, or leave `journal` out", suggest::list(JournalMode::HAD.iter().copied()));
            found.error(
                at("mode"),
                "the journal on disk is not in this version: data is held in memory until it is delivered",
                Some(help),
            );
        } else if journal.directory.is_some() {
            found.ineffective(at("directory"), "`directory` has no effect in `memory` mode", "nothing is written to disk");
        }
        for (key, size) in [("max_size", journal.max_size), ("max_lag", journal.max_lag)] {
            if size.is_some_and(|size| size.0 == 0) {
                found.error(at(key), format!("`{key}` must be more than nothing"), None);
            }
        }
        journal
    }
}
