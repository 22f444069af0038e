//! `include` and `exclude`: lists of names, word for word or as regular expressions.

use regex::Regex;
use serde::{Deserialize, de::IgnoredAny};

use crate::config::{Diagnostics, Node, pattern};

/// A list as written. Which of the keys holds the names depends on where it stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    /// `strict` or `regexp`.
    match_type: String,
    /// A cache for expressions: they need none here.
    regexp: Option<IgnoredAny>,
    devices: Vec<String>,
    interfaces: Vec<String>,
    names: Vec<String>,
    fs_types: Vec<String>,
    mount_points: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) enum List {
    /// Nothing was written.
    #[default]
    Absent,
    Words(Vec<String>),
    Patterns(Vec<Regex>),
}

impl List {
    fn has(&self, name: &str) -> Option<bool> {
        match self {
            Self::Absent => None,
            Self::Words(words) => Some(words.iter().any(|word| word == name)),
            Self::Patterns(patterns) => Some(patterns.iter().any(|pattern| pattern.is_match(name))),
        }
    }
}

/// Two lists about one kind of name.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    include: List,
    exclude: List,
}

impl Filter {
    pub(super) fn takes(&self, name: &str) -> bool {
        self.include.has(name) != Some(false) && self.exclude.has(name) != Some(true)
    }
}

impl Written {
    /// `node` is where it stands, `key` the one that names are written under there.
    fn read(self, node: &Node, key: &str, found: &mut Diagnostics) -> List {
        let lists = [
            ("devices", self.devices),
            ("interfaces", self.interfaces),
            ("names", self.names),
            ("fs_types", self.fs_types),
            ("mount_points", self.mount_points),
        ];
        let mut names = Vec::new();
        for (written, list) in lists {
            if written == key {
                names = list;
            } else if let Some(other) = node.get(written) {
                found.error(other.origin, format!("`{written}` does not belong here"), Some(format!("names are under `{key}`")));
            }
        }
        if self.regexp.is_some() {
            let origin = node.nearest("regexp").origin;
            found.ineffective(origin, "`regexp` has no effect", "expressions are compiled once and need no cache");
        }
        if names.is_empty() {
            return List::Absent;
        }
        match self.match_type.as_str() {
            "strict" => List::Words(names),
            "regexp" => {
                let mut patterns = Vec::new();
                for (at, name) in names.iter().enumerate() {
                    match pattern::compile(name) {
                        Ok(pattern) => patterns.push(pattern),
                        Err(message) => {
                            let place = node.nearest(key);
                            found.error(place.items().get(at).unwrap_or(place).origin, message, None);
                        }
                    }
                }
                List::Patterns(patterns)
            }
            other => {
                let help = Some("`match_type: strict` or `match_type: regexp`".to_owned());
                let message = if other.is_empty() { "`match_type` is missing" } else { "no such `match_type`" };
                found.error(node.nearest("match_type").origin, message, help);
                List::Absent
            }
        }
    }
}

/// Reads the two lists at the keys `include` and `exclude` of `node`, whose names are under `key`.
pub(super) fn read(
    (include, exclude): (Written, Written),
    node: &Node,
    (include_key, exclude_key): (&str, &str),
    key: &str,
    found: &mut Diagnostics,
) -> Filter {
    Filter {
        include: include.read(node.nearest(include_key), key, found),
        exclude: exclude.read(node.nearest(exclude_key), key, found),
    }
}
