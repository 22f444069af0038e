//! What every format checks before it writes a series.

use std::{borrow::Cow, collections::HashSet};

use super::{
    Escaping, FamilyKind, LabelBlock,
    escaping::NameOf,
    left_out::{LeftOut, Reason},
};

/// What a source called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    Number,
    Histogram,
    Summary,
}

/// Decides which series of the family last begun may be written.
pub(crate) struct Gate<'a> {
    escaping: Escaping,
    left_out: &'a LeftOut,
    /// The family's name as the page has it.
    name: String,
    kind: FamilyKind,
    /// Several sources write this family, so equal series may meet.
    shared: bool,
    seen: HashSet<u64>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(escaping: Escaping, left_out: &'a LeftOut) -> Self {
        Self { escaping, left_out, name: String::new(), kind: FamilyKind::Unknown, shared: false, seen: HashSet::new() }
    }

    pub(crate) fn begin(&mut self, name: &str, kind: FamilyKind, shared: bool) {
        name.clone_into(&mut self.name);
        self.kind = kind;
        self.shared = shared;
        self.seen.clear();
    }

    /// The labels as this page may show them, or `None` for a series that is left out.
    #[inline]
    pub(crate) fn admit<'b>(&mut self, labels: &'b LabelBlock, sample: Sample) -> Option<Cow<'b, LabelBlock>> {
        let fits = match self.kind {
            FamilyKind::Histogram => sample == Sample::Histogram,
            FamilyKind::Summary => sample == Sample::Summary,
            FamilyKind::Counter | FamilyKind::Gauge | FamilyKind::Info | FamilyKind::Unknown => sample == Sample::Number,
        };
        if !fits {
            return self.refuse(Reason::Kind, labels);
        }
        let reserved = match sample {
            Sample::Number => false,
            Sample::Histogram => labels.has_le(),
            Sample::Summary => labels.has_quantile(),
        };
        if reserved || labels.is_broken() {
            return self.refuse(Reason::Labels, labels);
        }
        let as_is = match self.escaping {
            Escaping::AllowUtf8 => true,
            Escaping::Underscores | Escaping::Values => labels.is_classic(),
            Escaping::Dots => labels.is_classic() && !labels.has_underscore(),
        };
        let shown = if as_is { Cow::Borrowed(labels) } else { Cow::Owned(escape(labels, self.escaping)) };
        if (self.shared || !as_is) && !self.seen.insert(shown.identity()) {
            // Two sources that say the same of one target agree.
            return if self.kind == FamilyKind::Info { None } else { self.refuse(Reason::Duplicate, labels) };
        }
        Some(shown)
    }

    #[cold]
    fn refuse<T>(&self, reason: Reason, labels: &LabelBlock) -> Option<T> {
        self.left_out.add(reason, &self.name, labels.text());
        None
    }
}

/// Two names that become one have their values joined with `;`, as translation does it.
fn escape(labels: &LabelBlock, escaping: Escaping) -> LabelBlock {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in labels.pairs() {
        let name = escaping.apply(&name, NameOf::Label);
        match pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, joined)) => {
                joined.push(';');
                joined.push_str(&value);
            }
            None => pairs.push((name.into_owned(), value.into_owned())),
        }
    }
    LabelBlock::new(pairs)
}
