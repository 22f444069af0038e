//! A Collector YAML file → a tree of nodes that know where they were written → checked settings.
//!
//! In:   files, `--config` URIs, `--set`, the environment.
//! Out:  one merged [`Node`] tree, and [`Diagnostics`] that point at file, line and column.
//! Lost: nothing; a key that is not understood is an error, a key without effect is listed.

pub mod collector;
mod diagnostics;
mod draw;
mod dump;
mod environment;
mod expand;
mod legacy;
mod load;
mod merge;
mod node;
pub mod pattern;
mod read;
mod scalar;
mod secrets;
mod sources;
pub mod suggest;
mod values;
mod yaml;

pub use diagnostics::{Diagnostic, Diagnostics, Level};
pub use draw::{draw, to_json};
pub use dump::{DumpFormat, DumpMode, dump};
pub use environment::{Environment, Machine, Stamp};
pub use load::{Input, Loaded, load, load_unexpanded};
pub use node::{Node, Origin, Value};
pub use read::{read, read2, read3};
pub use secrets::{REDACTED, shown_url};
pub use sources::{Place, Source, Sources};
pub use values::{ByteSize, GoDuration, Secret, Section, StringList};

/// One YAML or JSON document of any shape, as it stands: nothing in it is expanded. For files that are no configuration.
pub fn document(text: &str) -> Result<Node, String> {
    let mut found = Diagnostics::default();
    let node = yaml::parse(text, 0, &mut found).map_err(|error| {
        let line = text.get(..error.origin.start as usize).map_or(0, |before| before.matches('\n').count()) + 1;
        format!("{} (line {line})", error.message)
    })?;
    match found.found.into_iter().find(|one| one.level == Level::Error) {
        Some(first) => Err(first.message),
        None => Ok(node),
    }
}

#[cfg(test)]
mod tests;
