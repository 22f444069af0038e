//! Why a value could not be read: the message a person sees, and where.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use crate::config::{Origin, suggest};

/// What is known of a problem.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// Steps from the root to the value (the number of the entry at each level), and where it was written.
    pub(super) place: Option<(Vec<u32>, Origin)>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Wrong,
    /// A required key is not there.
    Missing,
    /// One key under two names.
    Twice,
}

/// What serde carries; boxed, for it travels through many small functions.
#[derive(Debug)]
pub(super) struct ReadError(Box<Details>);

impl ReadError {
    pub(super) fn new(message: impl Into<String>, help: Option<String>) -> Self {
        Self(Box::new(Details { message: message.into(), help, place: None, kind: Kind::Wrong }))
    }

    /// Names the place, unless something further inside did.
    pub(super) fn at(mut self, origin: Origin, path: &[u32]) -> Self {
        if self.0.place.is_none() {
            self.0.place = Some((path.to_vec(), origin));
        }
        self
    }

    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    pub(super) fn into_details(self) -> Details {
        *self.0
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ReadError {}

impl Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", describe(found)), None)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", describe(found)), None)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = suggest::nearest(variant, expected.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        Self::new(format!("`{variant}` is not one of {}", suggest::list(expected.iter().copied())), help)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("there is no key `{field}` here"), Some(other_keys(field, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new(format!("the key `{field}` is required here and missing"), None);
        error.0.kind = Kind::Missing;
        error
    }

    fn duplicate_field(field: &'static str) -> Self {
        let mut error =
            Self::new(format!("`{field}` is written twice, once under an older name"), Some("keep one of the two".to_owned()));
        error.0.kind = Kind::Twice;
        error
    }
}

/// The remedy for an unknown key: the nearest valid one, or all of them.
pub(super) fn other_keys(field: &str, valid: &[&str]) -> String {
    match suggest::nearest(field, valid.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if valid.is_empty() => "this section takes no keys".to_owned(),
        None => format!("valid keys: {}", suggest::list(valid.iter().copied())),
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => format!("the text `{}`", text.chars().take(80).collect::<String>()),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map | Unexpected::StructVariant | Unexpected::NewtypeStruct => "a map".to_owned(),
        other => other.to_string(),
    }
}
