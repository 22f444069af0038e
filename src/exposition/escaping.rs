//! Names outside the classic alphabet, for scrapers that do not take them.
//!
//! Spec: Prometheus "Escaping schemes".

use std::{borrow::Cow, fmt::Write as _};

/// What becomes of a character that Prometheus' classic alphabet does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escaping {
    /// `_` in its place.
    #[default]
    Underscores,
    /// `_dot_` for a dot, `__` for an underscore and for anything else.
    Dots,
    /// `U__` in front and the code point in hexadecimal between underscores.
    Values,
    /// Nothing: such a name stands in quotes.
    AllowUtf8,
}

/// What a name names: the colon is a letter in metric names only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameOf {
    Metric,
    Label,
}

impl Escaping {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
            Self::AllowUtf8 => "allow-utf-8",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Underscores, Self::Dots, Self::Values, Self::AllowUtf8].into_iter().find(|scheme| scheme.as_str() == text)
    }

    pub(crate) fn apply(self, name: &str, of: NameOf) -> Cow<'_, str> {
        let untouched = match self {
            Self::AllowUtf8 => true,
            Self::Dots => is_classic(name, of) && !name.contains('_'),
            Self::Underscores | Self::Values => is_classic(name, of),
        };
        if untouched || name.is_empty() {
            return Cow::Borrowed(name);
        }
        let mut escaped = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            escaped.push_str("U__");
        }
        for (at, letter) in name.char_indices() {
            let legal = is_letter(letter, of) || (at > 0 && letter.is_ascii_digit());
            match self {
                Self::Dots | Self::Values if letter == '_' => escaped.push_str("__"),
                Self::Dots if letter == '.' => escaped.push_str("_dot_"),
                _ if legal => escaped.push(letter),
                Self::Dots => escaped.push_str("__"),
                Self::Values => write!(escaped, "_{:x}_", u32::from(letter)).expect("writing to a string cannot fail"),
                Self::Underscores | Self::AllowUtf8 => escaped.push('_'),
            }
        }
        Cow::Owned(escaped)
    }
}

/// Legal in Prometheus' classic alphabet.
pub(crate) fn is_classic(name: &str, of: NameOf) -> bool {
    !name.is_empty() && name.char_indices().all(|(at, letter)| is_letter(letter, of) || (at > 0 && letter.is_ascii_digit()))
}

fn is_letter(letter: char, of: NameOf) -> bool {
    letter.is_ascii_alphabetic() || letter == '_' || (letter == ':' && of == NameOf::Metric)
}
