//! Relabelling: rules that rename, keep and drop targets and series by their labels.
//!
//! Spec: Prometheus, `relabel_config`. Patterns are RE2's, here of the `regex` crate: they match whole values, in time linear in them.

use std::borrow::Cow;

use md5::{Digest as _, Md5};
use regex::Regex;

use super::labels::{Labels, Text};
use crate::config::pattern::compile_within;

/// A compiled pattern may take so much memory; a list of several thousand names has room in it.
const PATTERN_BYTES_MAX: usize = 4 << 20;

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

impl Action {
    pub(super) const NAMES: [(&str, Self); 11] = [
        ("replace", Self::Replace),
        ("keep", Self::Keep),
        ("drop", Self::Drop),
        ("keepequal", Self::KeepEqual),
        ("dropequal", Self::DropEqual),
        ("hashmod", Self::HashMod),
        ("labelmap", Self::LabelMap),
        ("labeldrop", Self::LabelDrop),
        ("labelkeep", Self::LabelKeep),
        ("lowercase", Self::Lowercase),
        ("uppercase", Self::Uppercase),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, action)| *action)
    }

    pub(super) const fn needs_target(self) -> bool {
        matches!(self, Self::Replace | Self::KeepEqual | Self::DropEqual | Self::HashMod | Self::Lowercase | Self::Uppercase)
    }
}

/// One rule, checked.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) source_labels: Vec<String>,
    pub(super) separator: String,
    pub(super) pattern: Regex,
    pub(super) modulus: u64,
    pub(super) target_label: String,
    pub(super) replacement: String,
}

/// A pattern as relabelling means it: of the whole value, a dot for line breaks, too.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    compile_within(&format!("^(?s:{text})$"), PATTERN_BYTES_MAX)
}

/// Applies all rules in order. `false`: a rule drops it.
pub(super) fn apply(rules: &[Rule], labels: &mut Labels<'_>) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

impl Rule {
    fn source<'l>(&self, labels: &'l Labels<'_>) -> Cow<'l, str> {
        match self.source_labels.as_slice() {
            [one] => Cow::Borrowed(labels.get(one)),
            many => Cow::Owned(many.iter().map(|name| labels.get(name)).collect::<Vec<_>>().join(&self.separator)),
        }
    }

    fn apply(&self, labels: &mut Labels<'_>) -> bool {
        match self.action {
            Action::Keep => self.pattern.is_match(&self.source(labels)),
            Action::Drop => !self.pattern.is_match(&self.source(labels)),
            Action::KeepEqual => labels.get(&self.target_label) == &*self.source(labels),
            Action::DropEqual => labels.get(&self.target_label) != &*self.source(labels),
            Action::Replace => {
                self.replace(labels);
                true
            }
            Action::Lowercase => {
                let value = self.source(labels).to_lowercase();
                labels.set(&self.target_label, value);
                true
            }
            Action::Uppercase => {
                let value = self.source(labels).to_uppercase();
                labels.set(&self.target_label, value);
                true
            }
            Action::HashMod => {
                let value = hash(&self.source(labels)) % self.modulus.max(1);
                labels.set(&self.target_label, value.to_string());
                true
            }
            Action::LabelMap => {
                let renamed = |(name, value): (&str, &str)| -> Option<(Text<'static>, Text<'static>)> {
                    let new = self.expanded(name, &self.replacement)?;
                    Some((Cow::Owned(new), Cow::Owned(value.to_owned())))
                };
                let mapped: Vec<_> = labels.iter().filter_map(renamed).collect();
                if !mapped.is_empty() {
                    labels.set_all(mapped);
                }
                true
            }
            Action::LabelDrop => {
                labels.retain(|name| !self.pattern.is_match(name));
                true
            }
            Action::LabelKeep => {
                labels.retain(|name| self.pattern.is_match(name));
                true
            }
        }
    }

    /// `template` with the groups of the match in it; `None` where nothing matches.
    fn expanded(&self, text: &str, template: &str) -> Option<String> {
        let groups = self.pattern.captures(text)?;
        let mut out = String::new();
        groups.expand(template, &mut out);
        Some(out)
    }

    fn replace(&self, labels: &mut Labels<'_>) {
        let source = self.source(labels);
        let Some(target) = self.expanded(&source, &self.target_label) else { return };
        let Some(value) = self.expanded(&source, &self.replacement) else { return };
        if !target.is_empty() {
            drop(source);
            labels.set(&target, value);
        }
    }
}

/// The second half of the MD5 sum, as Prometheus takes it: shards that both work on agree.
fn hash(text: &str) -> u64 {
    let sum: [u8; 16] = Md5::digest(text.as_bytes()).into();
    sum.last_chunk::<8>().map_or(0, |half| u64::from_be_bytes(*half))
}
