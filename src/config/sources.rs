//! The texts a configuration was read from, by number: what an [`Origin`] points into.

use std::sync::Arc;

use super::Origin;

/// One text: a file, a `--set` flag, the embedded default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What a person calls it: the path, `--set`, `environment variable X`.
    pub name: String,
    pub text: Arc<str>,
}

/// All texts in the order they were loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

/// A place in a text as people count: from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl Sources {
    /// Its number, for [`Origin::source`].
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> u32 {
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(Source { name: name.into(), text: text.into() });
        number
    }

    pub fn get(&self, number: u32) -> Option<&Source> {
        self.0.get(number as usize)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// Line and column where `origin` starts.
    pub fn place(&self, origin: Origin) -> Option<Place> {
        let text = &self.get(origin.source)?.text;
        let start = floor(text, origin.start as usize);
        let before = text.get(..start)?;
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = before.chars().rev().take_while(|&letter| letter != '\n').count() + 1;
        Some(Place { line, column })
    }

    /// `origin` cut to its first line and to whole characters, as a range of bytes that is inside the text.
    pub fn range(&self, origin: Origin) -> Option<std::ops::Range<usize>> {
        let text = &self.get(origin.source)?.text;
        let start = floor(text, origin.start as usize);
        let end = floor(text, origin.end as usize).max(start);
        let line = text.get(start..end)?.lines().next().unwrap_or_default().trim_end().len();
        Some(start..start + line)
    }
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while at > 0 && !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
