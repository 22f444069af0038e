//! Where the journal lies: what a person said, else the first of the usual places that can be written to.

use std::{path::PathBuf, thread::available_parallelism};

use tracing::warn;

use crate::{
    config::{Environment, Machine, Value},
    journal::{Persistence, choose_directory},
    pipeline::{File, file::JournalMode},
    signal::ComponentId,
};

/// Where nobody says how many: each takes a segment's room and a thread that sleeps.
const SHARDS_MAX: usize = 4;

/// The journal on disk that a configuration asks for; `None`: memory.
///
/// # Errors
/// The directory that was asked for cannot be written to.
pub(super) fn persistence(file: &File) -> Result<Option<Persistence>, String> {
    let sync = match file.journal.mode {
        JournalMode::Memory => return Ok(None),
        JournalMode::Buffered => false,
        JournalMode::Durable => true,
    };
    let bytes_max = file.journal.max_size.map(|size| size.0);
    let letters_bytes_max = file.journal.max_letters.map(|size| size.0);
    // Without syncing there is nothing to wait for in several places at once.
    let cores = || if sync { available_parallelism().map_or(1, usize::from).min(SHARDS_MAX) } else { 1 };
    let shards = file.journal.shards.unwrap_or_else(|| u16::try_from(cores()).unwrap_or(1));
    let of = |directory| Persistence {
        directory,
        sync,
        bytes_max,
        letters_bytes_max,
        shards,
        offset_reset: file.journal.offset_reset,
    };
    if let Some((directory, key)) = asked_for(file) {
        return match choose_directory(std::slice::from_ref(&directory)) {
            Ok(directory) => Ok(Some(of(directory))),
            Err(failed) => {
                let reason = failed.first().map(|(_, error)| error.to_string()).unwrap_or_default();
                Err(format!(
                    "the data directory {} ({key}) cannot be written to: {reason}; name another one with --data-dir, or run with --journal memory",
                    directory.display()
                ))
            }
        };
    }
    match choose_directory(&usual(&Machine)) {
        Ok(directory) => Ok(Some(of(directory))),
        Err(failed) => {
            let tried: Vec<String> = failed.iter().map(|(path, error)| format!("{}: {error}", path.display())).collect();
            warn!(
                tried = tried.join("; "),
                "no data directory can be written to: accepted data is held in memory and is lost with the process; name one with --data-dir"
            );
            Ok(None)
        }
    }
}

/// The directory in which the journal of a configuration lies, for those who only look: nothing is made there.
///
/// # Errors
/// The configuration keeps none, or none is found in the usual places.
pub(super) fn directory(file: &File) -> Result<PathBuf, String> {
    if file.journal.mode == JournalMode::Memory {
        return Err("this configuration keeps its journal in memory (`journal::mode`): there is nothing on disk; `weir tap` shows what passes, `weir plan --live` what is held".to_owned());
    }
    if let Some((directory, _)) = asked_for(file) {
        return Ok(directory);
    }
    let mut places = usual(&Machine);
    if let Some(at) = places.iter().position(|place| place.join("FORMAT").exists()) {
        return Ok(places.swap_remove(at));
    }
    let tried: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    Err(format!(
        "no journal that this user may read was found in {}; name its directory with --data-dir, or the file that weir runs with --config",
        tried.join(", ")
    ))
}

/// `--data-dir`, `WEIR_DATA_DIR` and `journal::directory` are one by now; then the directory of a `file_storage` that runs.
pub(super) fn asked_for(file: &File) -> Option<(PathBuf, &'static str)> {
    if let Some(directory) = &file.journal.directory {
        return Some((directory.into(), "--data-dir, WEIR_DATA_DIR or journal::directory"));
    }
    let runs = |id: &ComponentId| file.service_extensions.iter().any(|reference| reference.id == *id);
    file.extensions.iter().filter(|declared| declared.id.type_name() == "file_storage" && runs(&declared.id)).find_map(
        |declared| match &declared.node.get("directory")?.value {
            Value::String(directory) if !directory.is_empty() => Some((directory.as_ref().into(), "file_storage::directory")),
            _ => None,
        },
    )
}

/// The places that are tried where nobody said.
pub(super) fn usual(environment: &impl Environment) -> Vec<PathBuf> {
    let variable = |name: &str| environment.variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut places = Vec::new();
    // systemd names several, separated by colons.
    if let Some(directory) = environment.variable("STATE_DIRECTORY").and_then(|all| all.split(':').next().map(str::to_owned)) {
        places.extend((!directory.is_empty()).then(|| PathBuf::from(directory)));
    }
    places.extend(variable("XDG_STATE_HOME").map(|state| state.join("weir")));
    places.extend(variable("HOME").map(|home| home.join(".local/state/weir")));
    places.push("/var/lib/weir".into());
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Variables(&'static [(&'static str, &'static str)]);

    impl Environment for Variables {
        fn variable(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }
        fn file(&self, _: &str) -> std::io::Result<Vec<u8>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    #[test]
    fn the_usual_places_come_in_order() {
        let all = Variables(&[("STATE_DIRECTORY", "/s/one:/s/two"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")]);
        let places = ["/s/one", "/x/weir", "/h/.local/state/weir", "/var/lib/weir"].map(PathBuf::from);
        assert_eq!(usual(&all), places);
        assert_eq!(usual(&Variables(&[("HOME", "")])), [PathBuf::from("/var/lib/weir")]);
    }
}
