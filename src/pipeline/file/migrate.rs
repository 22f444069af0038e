//! `weir migrate`: a Collector file → the largest file that runs here, as text, with a table of what was left out.

use std::fmt::Write as _;

use crate::{
    component::Tables,
    config::{Diagnostics, DumpFormat, DumpMode, Level, Loaded, Node, Origin, Value, collector::Kind, dump},
};

use super::{
    File,
    unsupported::{LeftOut, key_at, nothing_left, strip},
};

/// What `weir migrate` prints: a file that runs, as text, and what was left out of it. `found` are the problems that remain.
#[derive(Debug, Clone, PartialEq)]
pub struct Migrated {
    pub yaml: String,
    pub left_out: Vec<LeftOut>,
    pub found: Diagnostics,
    /// Why nothing of the file runs; then there is no `yaml`.
    pub nothing: Option<String>,
}

impl Migrated {
    /// The file, headed by comments that say where it is from and what was left out.
    pub fn text(&self, from: &str) -> String {
        let what = if self.nothing.is_some() { "Nothing" } else { "What" };
        let mut text = format!("# {what} runs in weir {} of {}.\n", env!("CARGO_PKG_VERSION"), one_line(from));
        if self.left_out.is_empty() {
            text.push_str("# All of it: nothing was left out.\n");
        } else {
            text.push_str("# Left out, and what that changes:\n");
        }
        let width = self.left_out.iter().map(|left| left.what.chars().count()).max().unwrap_or(0).min(COLUMN_MAX);
        for left in &self.left_out {
            writeln!(text, "#   {:width$}  {}", one_line(&left.what), one_line(&left.change))
                .expect("writing to a String cannot fail");
        }
        if self.nothing.is_none() {
            text.push('\n');
            text.push_str(&self.yaml);
        }
        text
    }
}

/// A longer path (characters) pushes its own line out, not all of them.
const COLUMN_MAX: usize = 48;

/// Words of a file must not end the comment they stand in.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// How often the file is checked again after keys were taken out.
const ROUNDS_MAX: usize = 20;

/// `full` is the file with its references expanded, to check; `written` the same file unexpanded, to print.
pub fn migrate(full: &Loaded, written: &Loaded, tables: &Tables) -> Migrated {
    let everything: Vec<String> = Vec::new();
    let (mut checked, mut left_out) = strip(&full.node, tables, &everything);
    if let Some(nothing) = nothing_left(&checked, &left_out) {
        // What else could be said of the rest follows from that.
        return Migrated { yaml: String::new(), left_out, found: Diagnostics::default(), nothing: Some(nothing) };
    }
    let mut unwanted: Vec<Origin> = Vec::new();
    let mut found = Diagnostics::default();
    for _ in 0..ROUNDS_MAX {
        found = Diagnostics::default();
        if let Some(file) = File::check(&checked, tables, &mut found) {
            file.read_settings(tables, true, &mut found);
        }
        // Keys inside components that weir has and that it does not know.
        let unknown: Vec<(Origin, String)> = found
            .found
            .iter()
            .filter(|diagnostic| diagnostic.level == Level::Error)
            .filter_map(|diagnostic| {
                let path = key_at(&checked, diagnostic.origin, String::new())?;
                let inside =
                    Kind::ALL.into_iter().any(|kind| path.starts_with(kind.section())) && path.matches("::").count() >= 2;
                (inside && diagnostic.message.starts_with("there is no key")).then_some((diagnostic.origin, path))
            })
            .collect();
        if unknown.is_empty() {
            break;
        }
        for (origin, what) in unknown {
            remove_at(&mut checked, origin);
            unwanted.push(origin);
            left_out.push(LeftOut { what, origin, change: "weir does not have this setting".to_owned(), protects: None });
        }
    }
    let structured = with_structure(&written.node, &full.node);
    let (mut rest, _) = strip(&structured, tables, &everything);
    for origin in unwanted {
        remove_at(&mut rest, origin);
    }
    Migrated { yaml: dump(&rest, DumpMode::Unredacted, DumpFormat::Yaml), left_out, found, nothing: None }
}

/// Removes the entry whose key was written at `origin`.
fn remove_at(node: &mut Node, origin: Origin) {
    match &mut node.value {
        Value::Map(entries) => {
            entries.retain(|(key, _)| key.origin != origin);
            for (_, value) in entries {
                remove_at(value, origin);
            }
        }
        Value::List(items) => {
            for item in items {
                remove_at(item, origin);
            }
        }
        _ => {}
    }
}

/// `written`, with references replaced by what they stand for where they stand for a part of the file's structure.
fn with_structure(written: &Node, full: &Node) -> Node {
    /// file → section → component, or file → service → pipelines → pipeline → list → id
    const DEPTH: usize = 5;
    fn at(written: &Node, full: &Node, depth: usize, inside_service: bool) -> Node {
        let levels = if inside_service { DEPTH } else { 1 };
        if depth > levels {
            return written.clone();
        }
        match (&written.value, &full.value) {
            (Value::Map(entries), Value::Map(_)) => {
                let entries = entries.iter().map(|(key, value)| {
                    let name = key.word().map_or("", |word| word);
                    // What `telemetry` says is no structure.
                    if inside_service && depth == 1 && !matches!(name, "pipelines" | "extensions") {
                        return (key.clone(), value.clone());
                    }
                    let service = inside_service || (depth == 0 && name == "service");
                    (key.clone(), full.get(name).map_or_else(|| value.clone(), |full| at(value, full, depth + 1, service)))
                });
                Node { value: Value::Map(entries.collect()), ..written.clone() }
            }
            (Value::String(text), _) if text.contains("${") => full.clone(),
            (Value::List(items), Value::List(full)) if inside_service && items.len() == full.len() => {
                let items = items.iter().zip(full).map(|(item, full)| at(item, full, depth + 1, true));
                Node { value: Value::List(items.collect()), ..written.clone() }
            }
            _ => written.clone(),
        }
    }
    at(written, full, 0, false)
}
