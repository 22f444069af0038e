//! A Collector YAML file → a tree of nodes that know where they were written → checked settings.
//!
//! In:   files, `--config` URIs, `--set`, the environment.
//! Out:  one merged [`Node`] tree, and [`Diagnostics`] that point at file, line and column.
//! Lost: nothing; a key that is not understood is an error, a key without effect is listed.

mod diagnostics;
mod node;
mod read;
mod values;

pub use diagnostics::{Diagnostic, Diagnostics, Level};
pub use node::{Node, Origin, Value};
pub use read::{read, read2, read3};
pub use values::{GoDuration, Secret, Section, StringList};
