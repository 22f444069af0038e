//! `process`: weir itself.

use std::{fs, path::Path};

use super::{container::beginning, detected::Detected};

/// The command line may hold what others should not see.
pub(super) const ATTRIBUTES: &[(&str, bool)] = &[
    ("process.pid", true),
    ("process.executable.name", true),
    ("process.executable.path", true),
    ("process.command", false),
    ("process.command_line", false),
];

const COMMAND_BYTES_MAX: usize = 64 << 10;

pub(super) fn detect(root: &Path, wanted: &[&str], found: &mut Detected) -> Result<(), String> {
    let wants = |name: &str| wanted.contains(&name);
    if wants("process.pid") {
        found.int("process.pid", i64::from(std::process::id()));
    }
    let path = fs::read_link(root.join("proc/self/exe")).map_err(|error| format!("/proc/self/exe: {error}"))?;
    if wants("process.executable.name") {
        found.text(
            "process.executable.name",
            &path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        );
    }
    if wants("process.executable.path") {
        found.text("process.executable.path", &path.to_string_lossy());
    }
    if wants("process.command") || wants("process.command_line") {
        let text = beginning(&root.join("proc/self/cmdline"), COMMAND_BYTES_MAX)
            .map_err(|error| format!("/proc/self/cmdline: {error}"))?;
        let words: Vec<&str> = text.trim_end_matches('\0').split('\0').collect();
        if wants("process.command") {
            found.text("process.command", words.first().copied().unwrap_or_default());
        }
        if wants("process.command_line") {
            found.text("process.command_line", &words.join(" "));
        }
    }
    Ok(())
}
