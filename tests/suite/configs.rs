//! weir's side of `configs/`: what is recorded there as accepted loads, what is recorded as refused does not, and every refusal says where.

use std::{fs, path::Path};

use weir::{
    config::{Diagnostics, Input, Level, Node, load},
    internal_telemetry::TelemetrySettings,
    pipeline::file::File,
};

use crate::config_laws::{TABLES, Variables, hold};

const BASE: &str = "\
receivers: {otlp: {protocols: {grpc: {endpoint: \"127.0.0.1:0\"}}}}
exporters: {debug: , nop: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";

/// Everything that `weir validate` checks.
fn check(body: &str) -> Diagnostics {
    let text = |name: &str, text: &str| Input::Text { name: name.to_owned(), text: text.to_owned() };
    let inputs = match body.strip_prefix("<base>\n") {
        Some(body) => vec![text("base", BASE), text("case", body)],
        None => vec![text("case", body)],
    };
    let loaded = load(&inputs, &Variables);
    let mut found = loaded.found;
    if let Some(file) = File::check(&loaded.node, &TABLES, &mut found) {
        file.read_settings(&TABLES, true, &mut found);
        TelemetrySettings::read(file.telemetry.as_ref().unwrap_or(&Node::null()), &mut found);
    }
    for diagnostic in &found.found {
        assert!(!diagnostic.message.is_empty() && diagnostic.message.lines().count() == 1, "{body}\n{diagnostic:?}");
        assert!(loaded.sources.place(diagnostic.origin).is_some(), "{body}\n{diagnostic:?} is nowhere");
    }
    found
}

#[test]
fn judges_every_configuration_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/configs");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "cases") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for case in text.split("=== ").skip(1) {
            let (head, body) = case.split_once('\n').unwrap();
            let (name, verdict) = head.split_once(" | ").unwrap();
            count += 1;
            let accepts = match verdict {
                "accept" => true,
                "refuse" => false,
                _ if verdict.starts_with("weir accepts, ") => true,
                _ if verdict.starts_with("weir refuses, ") => false,
                _ => panic!("no such verdict: {verdict}"),
            };
            let found = check(body);
            hold(body.as_bytes());
            if found.has_errors() == accepts {
                let errors: Vec<_> = found.found.iter().filter(|one| one.level == Level::Error).map(|one| &one.message).collect();
                wrong.push(format!("{}: {name}: {verdict}: {errors:?}", path.file_stem().unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 150, "{count} cases");
}

#[test]
fn the_laws_hold_on_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        hold(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}
