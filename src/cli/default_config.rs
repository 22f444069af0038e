//! The file that is run where nobody names one: the first that is there of those that a package or an image looks for.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The first file of `patterns`, which are separated by `:`; of those that one pattern means, the first by name.
///
/// # Errors
/// A folder with a pattern in it is there and cannot be read: whether a file is meant cannot be told.
pub(super) fn first(patterns: &str) -> Result<Option<PathBuf>, String> {
    for pattern in patterns.split(':').filter(|pattern| !pattern.is_empty()) {
        let mut found = matching(Path::new(pattern)).map_err(|error| format!("--default-config: {pattern}: {error}"))?;
        found.sort();
        if let Some(file) = found.into_iter().find(|path| path.is_file()) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = vec![PathBuf::new()];
    for part in pattern.components() {
        let Some((begin, end)) = part_with_star(part) else {
            for path in &mut paths {
                path.push(part);
            }
            continue;
        };
        let mut longer = Vec::new();
        for path in paths {
            let folder = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            let entries = match fs::read_dir(folder) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                entries => entries?,
            };
            for entry in entries {
                let name = entry?.file_name();
                // What is no text is nobody's configuration.
                let Some(text) = name.to_str() else { continue };
                if text.len() >= begin.len() + end.len() && text.starts_with(begin) && text.ends_with(end) {
                    longer.push(path.join(&name));
                }
            }
        }
        paths = longer;
    }
    Ok(paths)
}

/// What stands before and behind the `*`.
fn part_with_star(part: Component<'_>) -> Option<(&str, &str)> {
    match part {
        Component::Normal(name) => name.to_str()?.split_once('*'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_first_file_that_is_there_is_meant() {
        let root = TempDir::new().unwrap();
        let at = |path: &str| root.path().join(path);
        let make = |path: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "").unwrap();
        };
        let patterns = format!("{}:{}", at("weir/config.yaml").display(), at("otelcol*/config.yaml").display());
        assert_eq!(first(&patterns), Ok(None));
        assert_eq!(first(""), Ok(None));
        // A folder of that name is no file, and neither is one beside the pattern.
        fs::create_dir_all(at("otelcol/config.yaml")).unwrap();
        make("otel/config.yaml");
        make("otelcol-k8s/other.yaml");
        assert_eq!(first(&patterns), Ok(None));
        make("otelcol-k8s/config.yaml");
        make("otelcol-contrib/config.yaml");
        assert_eq!(first(&patterns), Ok(Some(at("otelcol-contrib/config.yaml"))));
        make("weir/config.yaml");
        assert_eq!(first(&patterns), Ok(Some(at("weir/config.yaml"))));
        assert_eq!(first(&at("*/config.yaml").display().to_string()), Ok(Some(at("otel/config.yaml"))));
        assert_eq!(first(&at("nowhere/*/config.yaml").display().to_string()), Ok(None));
    }

    #[test]
    fn a_star_stands_for_what_is_left_of_a_name() {
        let root = TempDir::new().unwrap();
        fs::write(root.path().join("aba"), "").unwrap();
        let is_found = |pattern: &str| first(&root.path().join(pattern).display().to_string()).unwrap().is_some();
        assert!(is_found("a*a") && is_found("aba*") && is_found("*"));
        assert!(!is_found("ab*ba"), "nothing counts twice");
    }
}
