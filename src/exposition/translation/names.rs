//! A metric's name in Prometheus: OpenTelemetry's name, unit and kind by the chosen strategy.
//!
//! Spec: OpenTelemetry "Prometheus and OpenMetrics compatibility". Where the Collector's translator departs from it (it moves `total` and
//! `ratio` to the end, and compares `per_second` as one word), this follows the Collector, so that names stay what they were; `kBy` is
//! read as kilobytes, as the specification has it, beside the Collector's `KBy`.

use std::borrow::Cow;

use serde::Deserialize;

use crate::exposition::FamilyKind;

/// `translation_strategy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Strategy {
    /// `foo_bar_bytes_total`
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// `foo_bar`
    UnderscoreEscapingWithoutSuffixes,
    /// `foo.bar_bytes_total`
    NoUTF8EscapingWithSuffixes,
    /// `foo.bar`
    NoTranslation,
}

impl Strategy {
    pub(crate) const fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    pub(crate) const fn adds_suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUTF8EscapingWithSuffixes)
    }

    /// The family's name and the unit word it ends with. An empty name is none at all.
    pub(crate) fn metric_name(
        self,
        namespace: &str,
        name: &str,
        unit: &str,
        kind: FamilyKind,
        is_gauge: bool,
    ) -> (String, String) {
        let name: Cow<'_, str> = if namespace.is_empty() { name.into() } else { format!("{namespace}_{name}").into() };
        let suffixes = if self.adds_suffixes() { Suffixes::of(unit, kind, is_gauge) } else { Suffixes::default() };
        match self {
            Self::UnderscoreEscapingWithSuffixes => (by_tokens(&name, &suffixes), suffixes.escaped_unit()),
            Self::UnderscoreEscapingWithoutSuffixes => (escaped(&name), String::new()),
            Self::NoUTF8EscapingWithSuffixes => (by_endings(name.into_owned(), &suffixes), suffixes.unit()),
            Self::NoTranslation => (name.into_owned(), String::new()),
        }
    }

    /// A label's name.
    pub(crate) fn label_name(self, name: &str) -> Cow<'_, str> {
        if !self.escapes() || is_plain_label(name) {
            return Cow::Borrowed(name);
        }
        let mut escaped: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
        if escaped.starts_with(|c: char| c.is_ascii_digit()) {
            escaped.insert_str(0, "key_");
        }
        Cow::Owned(escaped)
    }
}

fn is_plain_label(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[derive(Debug, Default)]
struct Suffixes<'a> {
    main: Cow<'a, str>,
    /// `per_second`
    per: Cow<'a, str>,
    /// `total` or `ratio`
    last: &'static str,
}

impl<'a> Suffixes<'a> {
    fn of(unit: &'a str, kind: FamilyKind, is_gauge: bool) -> Self {
        let last = match kind {
            FamilyKind::Counter => "total",
            _ if is_gauge && unit == "1" => "ratio",
            _ => "",
        };
        let (main, per) = unit.split_once('/').map_or((unit, None), |(main, per)| (main, Some(per)));
        let per = per.map(str::trim).filter(|per| !per.is_empty() && !per.contains(['{', '}']));
        Self {
            main: main_unit(main.trim()),
            per: per.map_or(Cow::Borrowed(""), |per| format!("per_{}", per_unit(per)).into()),
            last,
        }
    }

    fn unit(&self) -> String {
        let words: Vec<&str> = [&*self.main, &*self.per].into_iter().filter(|word| !word.is_empty()).collect();
        words.join("_")
    }

    fn escaped_unit(&self) -> String {
        tokens(&self.unit()).collect::<Vec<_>>().join("_")
    }
}

/// UCUM codes and the words for them.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("kBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// The word for a UCUM code; what stands in braces is a note and no unit.
fn main_unit(unit: &str) -> Cow<'_, str> {
    if unit.contains(['{', '}']) {
        return Cow::Borrowed("");
    }
    if unit == "1" {
        return Cow::Borrowed("");
    }
    Cow::Borrowed(UNITS.iter().find(|(code, _)| *code == unit).map_or(unit, |(_, word)| word))
}

/// The UCUM code of a unit as it stands in a metric's name; a word that is none stays.
pub(crate) fn unit_code(word: &str) -> Cow<'_, str> {
    let (main, per) = match word.strip_prefix("per_") {
        Some(per) => ("", per),
        None => word.split_once("_per_").unwrap_or((word, "")),
    };
    let code = match main {
        "ratio" => "1",
        "kilobytes" => "kBy",
        main => UNITS.iter().find(|(_, known)| *known == main).map_or(main, |(code, _)| code),
    };
    if per.is_empty() {
        return Cow::Borrowed(code);
    }
    let per = ["s", "m", "h", "d", "w", "mo", "y"].into_iter().find(|code| per_unit(code) == per).unwrap_or(per);
    Cow::Owned(format!("{code}/{per}"))
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':')).filter(|token| !token.is_empty())
}

/// With suffixes, in the classic alphabet: words joined by underscores.
fn by_tokens(name: &str, suffixes: &Suffixes<'_>) -> String {
    let mut words: Vec<Cow<'_, str>> = tokens(name).map(Cow::Borrowed).collect();
    if words.is_empty() {
        return String::new();
    }
    for suffix in [&suffixes.main, &suffixes.per] {
        let word = tokens(suffix).collect::<Vec<_>>().join("_");
        if !word.is_empty() && !words.contains(&Cow::Borrowed(word.as_str())) {
            words.push(Cow::Owned(word));
        }
    }
    if !suffixes.last.is_empty() {
        words.retain(|word| word != suffixes.last);
        words.push(Cow::Borrowed(suffixes.last));
    }
    let mut joined = words.join("_");
    if joined.starts_with(|c: char| c.is_ascii_digit()) {
        joined.insert(0, '_');
    }
    joined
}

/// In the classic alphabet, nothing added: a run of other characters is one underscore.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len() + 1);
    let mut replaced = false;
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_alphanumeric() || letter == '_' || letter == ':' {
            if at == 0 && letter.is_ascii_digit() {
                escaped.push('_');
            }
            escaped.push(letter);
            replaced = false;
        } else if !replaced {
            escaped.push('_');
            replaced = true;
        }
    }
    escaped
}

/// With suffixes, all characters kept.
fn by_endings(mut name: String, suffixes: &Suffixes<'_>) -> String {
    if name.is_empty() {
        return name;
    }
    for ending in [suffixes.last, &suffixes.per] {
        // The ending and the delimiter before it, whatever that is; never the whole name.
        if !ending.is_empty() && name.ends_with(ending) && name.len() > ending.len() + 1 {
            name.truncate(name.len() - ending.len());
            name.pop();
        }
    }
    if !suffixes.main.is_empty() && !name.ends_with(&*suffixes.main) {
        name.push('_');
        name.push_str(&suffixes.main);
    }
    for ending in [&suffixes.per, suffixes.last] {
        if !ending.is_empty() {
            name.push('_');
            name.push_str(ending);
        }
    }
    name
}
