//! What holds of every text that is taken for a configuration; the fuzz target `config` tries to break it, `configs.rs` replays its corpus.

use std::io;

use weir::{
    component::Tables,
    config::{DumpFormat, DumpMode, Environment, Input, Loaded, Node, draw, dump, load, load_unexpanded, to_json},
    connectors::CONNECTORS,
    exporters::EXPORTERS,
    extensions::EXTENSIONS,
    internal_telemetry::TelemetrySettings,
    pipeline::file::{File, migrate, strip},
    processors::PROCESSORS,
    receivers::RECEIVERS,
};

pub(crate) const TABLES: Tables =
    Tables { receivers: RECEIVERS, processors: PROCESSORS, connectors: CONNECTORS, exporters: EXPORTERS, extensions: EXTENSIONS };

/// Between the texts of one configuration.
const BREAK: char = '\u{c}';

/// The variables that `configs/README.md` names, and a few that are meant badly.
pub(crate) struct Variables;

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        let known = [
            ("A", "0123"),
            ("B", "true"),
            ("C", "[1, 2]"),
            ("D", "{x: 1}"),
            ("E", ""),
            ("N", "a: b"),
            ("T", "[a, b]"),
            ("U", "a,b"),
            ("R", "yes"),
            ("W", "\"5\""),
            ("X5", "5"),
            ("FIVE", "5s"),
            ("SELF", "${env:SELF}"),
            ("TWICE", "${env:TWICE}${env:TWICE}"),
            ("NEST", "{a: '${env:NEST}'}"),
            ("WIDE", "['${env:WIDE}', '${env:WIDE}']"),
            ("TEXT", "x$$y${env:A}"),
        ];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn file(&self, _path: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Loads, checks, draws, dumps and migrates: nothing panics, and what is printed can be read again.
pub(crate) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let inputs: Vec<Input> = text
        .split(BREAK)
        .map(|part| match part.strip_prefix("--set ") {
            Some(flag) => Input::Set(flag.to_owned()),
            None => Input::Text { name: "text".to_owned(), text: part.to_owned() },
        })
        .collect();
    let loaded = load(&inputs, &Variables);
    let mut found = loaded.found.clone();
    if let Some(file) = File::check(&loaded.node, &TABLES, &mut found) {
        file.read_settings(&TABLES, true, &mut found);
        TelemetrySettings::read(file.telemetry.as_ref().unwrap_or(&Node::null()), &mut found);
    }
    let mut drawn = Vec::new();
    draw(&found, &loaded.sources, &mut drawn, false).expect("a Vec takes everything");
    assert!(!drawn.contains(&0x1b), "no colours and no control characters unless asked for");
    draw(&found, &loaded.sources, &mut io::sink(), true).expect("a sink takes everything");
    assert!(serde_json::from_str::<serde_json::Value>(&to_json(&found, &loaded.sources)).is_ok());
    dump(&loaded.node, DumpMode::Redacted, DumpFormat::Yaml);
    assert!(serde_json::from_str::<serde_json::Value>(&dump(&loaded.node, DumpMode::Unredacted, DumpFormat::Json)).is_ok());

    let written = load_unexpanded(&inputs, &Variables);
    if written.found.has_errors() || loaded.found.has_errors() {
        return;
    }
    let printed = dump(&written.node, DumpMode::Unredacted, DumpFormat::Yaml);
    assert_eq!(
        dump(&again(&printed).node, DumpMode::Unredacted, DumpFormat::Yaml),
        printed,
        "a dump reads back as the same tree"
    );
    let (rest, _) = strip(&loaded.node, &TABLES, &[]);
    let (_, more) = strip(&rest, &TABLES, &[]);
    assert_eq!(more, [], "what is left out is left out at once");
    let migrated = migrate(&loaded, &written, &TABLES);
    again(&migrated.text("text"));
}

/// A text that we printed, read again.
fn again(text: &str) -> Loaded {
    let loaded = load_unexpanded(&[Input::Text { name: "again".to_owned(), text: text.to_owned() }], &Variables);
    assert!(!loaded.found.has_errors(), "{text}\n{:?}", loaded.found);
    loaded
}
