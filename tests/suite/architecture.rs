//! Who may use whom: the layers of a single package, kept by a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Read it downwards: a module, and the modules it may name. An edge that is not here fails the test by name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("signal", &[]),
    ("otlp", &["signal"]),
    ("tap", &["otlp", "signal"]),
    ("config", &[]),
    ("runtime", &["signal"]),
    ("internal_telemetry", &["config", "runtime", "signal"]),
    ("journal", &["runtime", "signal"]),
    ("door", &["internal_telemetry", "journal", "otlp", "runtime", "signal", "tap"]),
    ("exposition", &["internal_telemetry", "otlp", "signal"]),
    ("component", &["config", "door", "exposition", "internal_telemetry", "journal", "runtime", "signal"]),
    ("transport", &["component", "config", "otlp", "runtime", "signal"]),
    ("registry", &["exposition", "otlp", "signal"]),
    ("delivery", &["component", "internal_telemetry", "journal", "otlp", "runtime", "signal", "tap"]),
    ("receivers", &["component", "config", "door", "exposition", "internal_telemetry", "otlp", "runtime", "signal", "transport"]),
    ("processors", &["component", "config", "door", "otlp", "runtime", "signal"]),
    (
        "connectors",
        &["component", "config", "exposition", "internal_telemetry", "journal", "otlp", "registry", "runtime", "signal"],
    ),
    (
        "exporters",
        &["component", "config", "exposition", "internal_telemetry", "otlp", "registry", "runtime", "signal", "transport"],
    ),
    ("extensions", &["component", "config", "otlp", "runtime", "signal", "transport"]),
    ("pipeline", &["component", "config", "delivery", "door", "internal_telemetry", "journal", "runtime", "signal", "tap"]),
    (
        "service",
        &[
            "component",
            "delivery",
            "door",
            "exposition",
            "internal_telemetry",
            "journal",
            "otlp",
            "pipeline",
            "runtime",
            "signal",
            "transport",
        ],
    ),
    ("admin", &["delivery", "journal", "pipeline", "runtime", "signal", "tap", "transport"]),
    ("demo", &["config", "internal_telemetry", "runtime"]),
    (
        "cli",
        &[
            "admin",
            "component",
            "config",
            "connectors",
            "demo",
            "exporters",
            "extensions",
            "internal_telemetry",
            "journal",
            "otlp",
            "pipeline",
            "processors",
            "receivers",
            "runtime",
            "service",
            "signal",
            "tap",
            "transport",
        ],
    ),
];

fn rust_files(dir: &Path, out: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Code without comments and without its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The first segment behind each `crate::`, also inside `use crate::{…}`.
fn crates_named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        let Some(group) = rest.strip_prefix('{') else {
            named.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && depth == 0 && (c.is_alphabetic() || c == '_') => {
                    named.insert(word(&group[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    named
}

fn is_test(path: &str) -> bool {
    path.contains("/tests")
        || path.ends_with("tests.rs")
        || path.ends_with("/testing.rs")
        || path.contains("/oracle")
        || path.contains("/arbitrary")
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (module, may) in MAY_USE {
        let mut files = Vec::new();
        rust_files(&src.join(module), &mut files);
        for (path, text) in files.iter().filter(|(path, _)| !is_test(path)) {
            for used in crates_named(&code(text)) {
                let known = MAY_USE.iter().any(|(name, _)| *name == used);
                if known && used != *module && !may.contains(&used.as_str()) {
                    wrong.push(format!("{module} uses {used}: {}", path.rsplit("/src/").next().unwrap()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the module graph does not have:\n{}", wrong.join("\n"));
}

#[test]
fn the_module_graph_has_no_cycle() {
    let edges: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    for (module, _) in MAY_USE {
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<&str> = edges[module].to_vec();
        while let Some(next) = waiting.pop() {
            assert!(next != *module, "{module} uses itself through others");
            if seen.insert(next) {
                waiting.extend(edges[next]);
            }
        }
    }
}

#[test]
fn a_component_never_names_another() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for kind in ["receivers", "processors", "connectors", "exporters", "extensions"] {
        let components: Vec<String> = fs::read_dir(src.join(kind))
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
            .filter(|name| name != "mod")
            .collect();
        let mut files = Vec::new();
        rust_files(&src.join(kind), &mut files);
        for (path, text) in files.iter().filter(|(path, _)| !is_test(path)) {
            let place = path.split(&format!("/src/{kind}/")).nth(1).unwrap();
            let own = place.split('/').next().unwrap().trim_end_matches(".rs");
            if own == "mod" {
                continue;
            }
            for other in components.iter().filter(|other| *other != own) {
                let shared = matches!(other.as_str(), "actions" | "request" | "watched");
                if !shared && code(text).contains(&format!("{kind}::{other}")) {
                    wrong.push(format!("{kind}::{own} names {kind}::{other}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mute: Vec<_> = files.iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(mute.is_empty(), "files without a //! line: {mute:?}");
}
