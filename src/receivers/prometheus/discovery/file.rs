//! Targets in files: looked at every few seconds, read again when they have changed, and each `refresh_interval` in any case.
//!
//! Spec: Prometheus, `file_sd_config`. A file that is wrong keeps the targets that it had; one that is gone takes its targets along.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use regex::Regex;
use tokio::time::{Instant, sleep};

use super::{Group, Surroundings, Teller, groups};
use crate::config::document;

/// How soon a change is seen.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Files of one pattern.
const FILES_MAX: usize = 1000;
/// Largest list that is read.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// One of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Files {
    /// The last part of a path may have `*` in it.
    pub(in super::super) paths: Vec<String>,
    pub(in super::super) refresh: Duration,
}

type Stamp = (SystemTime, u64);

#[derive(Default)]
struct Known {
    stamps: BTreeMap<PathBuf, Stamp>,
    groups: BTreeMap<PathBuf, Vec<Group>>,
}

impl Files {
    pub(super) async fn run(&self, number: usize, around: &Surroundings) {
        let mut known = Known::default();
        let mut teller = Teller::new(around);
        let mut read = None;
        loop {
            let due = read.is_none_or(|read: Instant| read.elapsed() >= self.refresh);
            let files = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let changed = files.look(&mut known, due);
                (known, changed)
            });
            let Ok((back, changed)) = looked.await else { return };
            known = back;
            if due {
                read = Some(Instant::now());
            }
            match changed {
                Ok(changed) => {
                    if due {
                        teller.worked("file");
                    }
                    if changed {
                        let all = known.groups.values().flatten().cloned().collect();
                        if around.said.send((number, all)).await.is_err() {
                            return;
                        }
                    }
                }
                Err((problem, changed)) => {
                    teller.failed("file", &problem);
                    if changed {
                        let all = known.groups.values().flatten().cloned().collect();
                        if around.said.send((number, all)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            sleep(self.refresh.min(LOOK_EVERY)).await;
        }
    }

    /// Whether anything may be different now. Fails with the first fault, and with whether other files have changed.
    fn look(&self, known: &mut Known, all: bool) -> Result<bool, (String, bool)> {
        let (mut fault, mut absent) = (None, None);
        let mut changed = (known.stamps.is_empty() && known.groups.is_empty()) && all;
        let mut found = Vec::new();
        for path in &self.paths {
            match matching(path) {
                Ok(files) if files.is_empty() => absent = absent.or(Some(format!("there is no file `{path}`"))),
                Ok(files) => found.extend(files),
                Err(error) => fault = fault.or(Some(format!("{path}: {error}"))),
            }
        }
        // Where a directory cannot be read its files are not gone.
        if fault.is_none() {
            let before = known.groups.len();
            known.groups.retain(|path, _| found.contains(path));
            known.stamps.retain(|path, _| found.contains(path));
            changed |= known.groups.len() != before;
        }
        for path in found {
            let stamp = fs::metadata(&path).and_then(|meta| Ok((meta.modified()?, meta.len())));
            if !all && stamp.as_ref().is_ok_and(|stamp| known.stamps.get(&path) == Some(stamp)) {
                continue;
            }
            match targets(&path) {
                Ok(groups) => {
                    changed |= known.groups.get(&path) != Some(&groups);
                    known.groups.insert(path.clone(), groups);
                }
                Err(problem) => fault = fault.or(Some(format!("{}: {problem}", path.display()))),
            }
            if let Ok(stamp) = stamp {
                known.stamps.insert(path, stamp);
            }
        }
        fault.or(absent).map_or(Ok(changed), |fault| Err((fault, changed)))
    }
}

fn targets(path: &Path) -> Result<Vec<Group>, String> {
    let text = list(path).map_err(|error| error.to_string())?;
    if text.trim().is_empty() && path.extension().is_some_and(|extension| extension == "json") {
        // Whoever writes it in place has emptied it first.
        return Err("it is empty, which is no JSON".to_owned());
    }
    let mut groups = groups(&document(&text)?)?;
    for group in &mut groups {
        group.labels.set("__meta_filepath", path.display().to_string());
    }
    Ok(groups)
}

fn list(path: &Path) -> io::Result<String> {
    // A pipe would be waited for, a device read without end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(LIST_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIST_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", LIST_BYTES_MAX >> 20)));
    }
    Ok(text)
}

fn matching(path: &str) -> io::Result<Vec<PathBuf>> {
    let path = Path::new(path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains('*') {
        return Ok(if path.try_exists()? { vec![path.to_owned()] } else { Vec::new() });
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parts: Vec<String> = name.split('*').map(regex::escape).collect();
    let pattern = Regex::new(&format!("^(?s:{})$", parts.join(".*"))).map_err(io::Error::other)?;
    let mut found = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| pattern.is_match(name)) {
            if found.len() == FILES_MAX {
                // Which of them come first is chance: targets would end and come back.
                return Err(io::Error::other(format!("more than {FILES_MAX} files match")));
            }
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
