//! What a metric is: its name and unit by the older and the newer conventions, and what tells its points apart.
//!
//! Spec: OpenTelemetry semantic conventions 1.9 (v0, what dashboards ask for) and 1.44 (v1) for `system.*` and `process.*`.

use serde::Deserialize;

/// Which conventions the metrics are called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Conventions {
    #[default]
    V0,
    V1,
    Both,
}

/// One of the two ways to say a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edition {
    V0,
    V1,
}

impl Edition {
    pub(super) const fn pick<T: Copy>(self, old: T, new: T) -> T {
        match self {
            Self::V0 => old,
            Self::V1 => new,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    /// A sum that only grows.
    Counter,
    /// A sum that goes up and down.
    Level,
}

/// What an attribute is called, by both conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) old: &'static str,
    pub(super) new: &'static str,
}

/// A key that both call the same.
pub(super) const fn same(key: &'static str) -> Key {
    Key { old: key, new: key }
}

pub(super) const fn key(old: &'static str, new: &'static str) -> Key {
    Key { old, new }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    /// What the older and the newer conventions say.
    Words(&'static str, &'static str),
    Int(i64),
    /// The older conventions say `cpu0`, the newer ones 0.
    Cpu(usize),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    /// The name in the settings, and by the older conventions.
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    /// Whether it is told of where the settings do not say.
    pub(super) on: bool,
    pub(super) attributes: &'static [Key],
    /// Name and unit by the newer conventions, where they differ.
    renamed: Option<(&'static str, &'static str)>,
    /// Only the newer conventions have it.
    is_new: bool,
    /// The newer conventions have nothing of the kind: it stays as it is.
    is_old: bool,
}

pub(super) const fn metric(name: &'static str, unit: &'static str, kind: Kind, attributes: &'static [Key]) -> Metric {
    Metric { name, unit, kind, on: true, attributes, renamed: None, is_new: false, is_old: false }
}

impl Metric {
    /// Told of only where the settings ask for it.
    pub(super) const fn off(self) -> Self {
        Self { on: false, ..self }
    }

    pub(super) const fn renamed(self, name: &'static str, unit: &'static str) -> Self {
        Self { renamed: Some((name, unit)), ..self }
    }

    pub(super) const fn new_only(self) -> Self {
        Self { is_new: true, ..self }
    }

    pub(super) const fn old_only(self) -> Self {
        Self { is_old: true, ..self }
    }

    /// Name and unit.
    pub(super) fn called(&self, edition: Edition) -> (&'static str, &'static str) {
        match (edition, self.renamed) {
            (Edition::V1, Some(called)) => called,
            _ => (self.name, self.unit),
        }
    }

    /// Whether the conventions say it differently.
    fn differs(&self) -> bool {
        self.renamed.is_some() || self.attributes.iter().any(|key| key.old != key.new)
    }

    /// How it is said by `conventions`, at most once each way.
    pub(super) fn editions(&self, conventions: Conventions) -> &'static [Edition] {
        match conventions {
            Conventions::V0 if self.is_new => &[],
            Conventions::V1 | Conventions::Both if self.is_old => &[Edition::V0],
            Conventions::V1 => &[Edition::V1],
            Conventions::Both if self.is_new => &[Edition::V1],
            Conventions::Both if self.differs() => &[Edition::V0, Edition::V1],
            Conventions::V0 | Conventions::Both => &[Edition::V0],
        }
    }
}
