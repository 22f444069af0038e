//! `journal:`, weir's own section: where accepted data lies until it is delivered.

use serde::Deserialize;

use crate::{
    config::{ByteSize, Diagnostics, Node, Origin, read},
    journal::OffsetReset,
};

/// Where accepted data lies until it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalMode {
    /// In this process, bounded; gone with it.
    Memory,
    /// In files that the system writes in its own time.
    Buffered,
    /// In files, synced before the answer.
    #[default]
    Durable,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    pub mode: JournalMode,
    pub directory: Option<String>,
    /// Bytes that may lie in the journal.
    pub max_size: Option<ByteSize>,
    /// Bytes of them that may be dead letters: a tenth where not written.
    pub max_letters: Option<ByteSize>,
    /// How many writers a topic has, each with files of its own: one a core, at most four, where not written.
    pub shards: Option<u16>,
    /// Bytes a consumer may be behind before its oldest are dropped, counted.
    pub max_lag: Option<ByteSize>,
    /// Where an exporter or connector begins that is new in the configuration.
    pub offset_reset: OffsetReset,
}

/// The least that a journal on disk works with.
const SIZE_MIN: u64 = 16 << 20;
const LETTERS_MIN: u64 = 1 << 20;
/// More would only make small groups.
const SHARDS_MAX: u16 = 64;

impl Journal {
    pub(super) fn read(node: Option<&Node>, found: &mut Diagnostics) -> Self {
        let Some(node) = node else { return Self::default() };
        let journal: Self = read(node, found);
        let at = |key: &str| node.get(key).map_or(Origin::default(), |value| value.origin);
        if journal.mode == JournalMode::Memory {
            for key in ["directory", "max_size", "max_letters", "shards", "offset_reset"] {
                if node.get(key).is_some() {
                    found.ineffective(at(key), format!("`{key}` has no effect in `memory` mode"), "nothing is written to disk");
                }
            }
        }
        if journal.shards.is_some_and(|shards| !(1..=SHARDS_MAX).contains(&shards)) {
            found.error(at("shards"), format!("`shards` must be from 1 to {SHARDS_MAX}"), None);
        }
        if journal.max_lag.is_some_and(|size| size.0 == 0) {
            found.error(at("max_lag"), "`max_lag` must be more than nothing", None);
        }
        if journal.max_size.is_some_and(|size| size.0 < SIZE_MIN) {
            found.error(at("max_size"), "`max_size` is less than 16MiB, the least that a journal works with", None);
        }
        if journal.max_letters.is_some_and(|size| size.0 < LETTERS_MIN) {
            found.error(at("max_letters"), "`max_letters` is less than 1MiB, the least that dead letters are kept in", None);
        }
        if let (Some(letters), Some(all)) = (journal.max_letters, journal.max_size)
            && letters.0 > all.0 / 2
        {
            found.error(at("max_letters"), "`max_letters` is more than half of `max_size`, of which it is a part", None);
        }
        if journal.directory.as_ref().is_some_and(String::is_empty) {
            found.error(at("directory"), "`directory` is empty", Some("leave it out for the default".to_owned()));
        }
        journal
    }
}
