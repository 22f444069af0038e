//! Diagnostics as people read them (the line quoted, the place underlined) and as tools do (JSON).

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
};

use ariadne::{Cache, CharSet, Color, Config, IndexType, Label, Report, ReportKind, Source};

use super::{Diagnostic, Diagnostics, Level, Sources, secrets::veiled};

/// More than this many are counted, not shown.
const SHOWN_MAX: usize = 100;
/// A longer line (bytes) is not quoted.
const LINE_MAX: usize = 500;
/// A longer remedy (characters) stands in a line of its own.
const BESIDE_MAX: usize = 50;

/// Everything that was found, sorted by place, errors and warnings alike, and a line that counts them.
pub fn draw(diagnostics: &Diagnostics, sources: &Sources, out: &mut impl Write, colour: bool) -> io::Result<()> {
    let sorted = sorted(diagnostics);
    let mut texts = Texts { sources, drawn: HashMap::new() };
    for diagnostic in sorted.iter().take(SHOWN_MAX) {
        draw_one(diagnostic, &mut texts, out, colour)?;
    }
    let count = |level| sorted.iter().filter(|diagnostic| diagnostic.level == level).count();
    let counted =
        [(count(Level::Error), "error"), (count(Level::Warning), "warning"), (count(Level::Ineffective), "key without effect")];
    let counted: Vec<String> =
        counted.iter().filter(|(number, _)| *number > 0).map(|(number, what)| plural(*number, what)).collect();
    if sorted.len() > SHOWN_MAX {
        writeln!(out, "({} more are not shown)", sorted.len() - SHOWN_MAX)?;
    }
    if !counted.is_empty() {
        writeln!(out, "{}", counted.join(", "))?;
    }
    Ok(())
}

fn plural(number: usize, what: &str) -> String {
    match (number, what.strip_prefix("key ")) {
        (1, _) => format!("1 {what}"),
        (_, Some(rest)) => format!("{number} keys {rest}"),
        _ => format!("{number} {what}s"),
    }
}

/// As one JSON array: `level`, `file`, `line`, `column` (both from 1), `length` in bytes, `message`, `help`.
pub fn to_json(diagnostics: &Diagnostics, sources: &Sources) -> String {
    let list: Vec<serde_json::Value> = sorted(diagnostics)
        .into_iter()
        .map(|diagnostic| {
            let place = sources.place(diagnostic.origin);
            serde_json::json!({
                "level": word(diagnostic.level),
                "file": sources.get(diagnostic.origin.source).map(|source| source.name.as_str()),
                "line": place.map(|place| place.line),
                "column": place.map(|place| place.column),
                "length": sources.range(diagnostic.origin).map(|range| range.len()),
                "message": diagnostic.message,
                "help": diagnostic.help,
            })
        })
        .collect();
    serde_json::Value::Array(list).to_string()
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Ineffective => "ineffective",
    }
}

fn sorted(diagnostics: &Diagnostics) -> Vec<&Diagnostic> {
    let mut sorted: Vec<&Diagnostic> = diagnostics.found.iter().collect();
    sorted.sort_by_key(|diagnostic| (diagnostic.origin.source, diagnostic.origin.start));
    sorted
}

fn draw_one(diagnostic: &Diagnostic, texts: &mut Texts<'_>, out: &mut impl Write, colour: bool) -> io::Result<()> {
    let kind = match diagnostic.level {
        Level::Error => ReportKind::Custom("error", Color::Red),
        Level::Warning => ReportKind::Custom("warning", Color::Yellow),
        Level::Ineffective => ReportKind::Custom("no effect", Color::Cyan),
    };
    let message = visible(&diagnostic.message);
    let quotable = texts.sources.range(diagnostic.origin).filter(|range| texts.quotable(diagnostic.origin.source, range.start));
    let Some(range) = quotable else {
        write!(out, "{}: {message}", word(diagnostic.level))?;
        if let (Some(source), Some(place)) = (texts.sources.get(diagnostic.origin.source), texts.sources.place(diagnostic.origin))
        {
            if source.text.is_empty() {
                // There are no lines to count.
                write!(out, " ({})", visible(&source.name))?;
            } else {
                write!(out, " ({}:{}:{})", visible(&source.name), place.line, place.column)?;
            }
        }
        writeln!(out)?;
        if let Some(help) = &diagnostic.help {
            writeln!(out, "  help: {}", visible(help))?;
        }
        return writeln!(out);
    };
    let config = Config::default()
        .with_color(colour)
        .with_compact(false)
        .with_index_type(IndexType::Byte)
        .with_char_set(if colour { CharSet::Unicode } else { CharSet::Ascii });
    let span = (diagnostic.origin.source, range);
    // A short remedy stands right under the place.
    let help = diagnostic.help.as_deref().map(visible);
    let beside = help.as_deref().filter(|help| help.chars().count() <= BESIDE_MAX && !help.contains('\n'));
    let label = Label::new(span.clone()).with_message(beside.unwrap_or("here"));
    let mut report = Report::build(kind, span).with_config(config).with_message(message).with_label(label);
    if let Some(help) = help.as_deref().filter(|_| beside.is_none()) {
        report = report.with_help(help);
    }
    if colour {
        report.finish().write(&mut *texts, &mut *out)?;
    } else {
        // The library colours the kind of a report whatever it is told.
        let mut drawn = Vec::new();
        report.finish().write(&mut *texts, &mut drawn)?;
        out.write_all(uncoloured(&String::from_utf8_lossy(&drawn)).as_bytes())?;
    }
    writeln!(out)
}

/// Without `ESC [ … m`; no other control character is in what was drawn.
fn uncoloured(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

/// Words of a file must not steer the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter }).collect()
}

/// The texts as the drawing library wants them, made when first needed.
struct Texts<'s> {
    sources: &'s Sources,
    drawn: HashMap<u32, Source<String>>,
}

impl Texts<'_> {
    /// Whether the line around `at` can be shown whole.
    fn quotable(&self, source: u32, at: usize) -> bool {
        let Some(text) = self.sources.get(source).map(|source| &source.text) else { return false };
        let (Some(before), Some(after)) = (text.get(..at), text.get(at..)) else { return false };
        let line_before = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
        let line_after = after.find('\n').unwrap_or(after.len());
        !text.is_empty() && line_before + line_after > 0 && line_before + line_after <= LINE_MAX
    }
}

impl Cache<u32> for &mut Texts<'_> {
    type Storage = String;

    fn fetch(&mut self, id: &u32) -> Result<&Source<String>, impl fmt::Debug> {
        let sources = self.sources;
        let text = || sources.get(*id).map_or_else(String::new, |source| veiled(&source.text).chars().map(tame).collect());
        Ok::<_, fmt::Error>(self.drawn.entry(*id).or_insert_with(|| Source::from(text())))
    }

    fn display<'a>(&self, id: &'a u32) -> Option<impl fmt::Display + 'a> {
        self.sources.get(*id).map(|source| visible(&source.name))
    }
}

/// One character for one of the same length in bytes, so that places stay right.
const fn tame(letter: char) -> char {
    match letter {
        '\t' | '\n' | '\r' => letter,
        _ if letter.is_ascii_control() => ' ',
        '\u{80}'..='\u{9f}' => '\u{a0}',
        _ => letter,
    }
}
