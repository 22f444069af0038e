//! Settings from nodes: every problem with its place.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{read, read2};
use crate::config::{
    Diagnostics, GoDuration, Input, Loaded, Node, Secret, Section, Sources, StringList, environment::Environment, load,
};

/// Variables of a test; no files.
struct Variables(&'static [(&'static str, &'static str)]);

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }
    fn file(&self, _path: &str) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

const VARIABLES: &[(&str, &str)] = &[
    ("ZIP", "0123"),
    ("YES", "true"),
    ("FIVE", "5"),
    ("QUOTED", "\"true\""),
    ("LIST", "[a, b]"),
    ("COMMAS", "a,b"),
    ("EMPTY", ""),
    ("MAP", "{a: b}"),
];

fn loaded(yaml: &str) -> Loaded {
    let loaded = load(&[Input::Text { name: "test.yaml".to_owned(), text: yaml.to_owned() }], &Variables(VARIABLES));
    assert!(!loaded.found.has_errors(), "{:?}", loaded.found);
    loaded
}

fn tree(yaml: &str) -> Node {
    loaded(yaml).node
}

/// Each problem as `line:column message | help`.
fn told(found: &Diagnostics, sources: &Sources) -> Vec<String> {
    found
        .found
        .iter()
        .map(|diagnostic| {
            let place = sources.place(diagnostic.origin).unwrap();
            let help = diagnostic.help.as_ref().map(|help| format!(" | {help}")).unwrap_or_default();
            format!("{}:{} {}{help}", place.line, place.column, diagnostic.message)
        })
        .collect()
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    endpoint: String,
    #[serde(alias = "max_size")]
    size: u32,
    small: i8,
    ratio: f64,
    on: bool,
    wait: GoDuration,
    names: StringList,
    words: Vec<String>,
    token: Secret,
    headers: BTreeMap<String, String>,
    mode: Mode,
    maybe: Option<u16>,
    inner: Inner,
    queue: Section<Inner>,
    rules: Vec<Rule>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: "localhost:1".to_owned(),
            size: 7,
            small: -1,
            ratio: 0.5,
            on: true,
            wait: GoDuration(Duration::from_secs(9)),
            names: StringList::default(),
            words: vec!["default".to_owned()],
            token: Secret::default(),
            headers: BTreeMap::new(),
            mode: Mode::Fast,
            maybe: Some(3),
            inner: Inner::default(),
            queue: Section::absent(),
            rules: Vec::new(),
        }
    }
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Fast,
    VerySlow,
    Every { days: u8 },
    Named(String),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Inner {
    limit: u64,
    label: String,
}

impl Default for Inner {
    fn default() -> Self {
        Self { limit: 10, label: "x".to_owned() }
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct Rule {
    key: String,
    #[serde(default)]
    action: String,
}

fn reads(yaml: &str) -> Settings {
    let mut found = Diagnostics::default();
    let settings = read(&tree(yaml), &mut found);
    assert_eq!(found.found, [], "{yaml}");
    settings
}

fn refuses(yaml: &str) -> Vec<String> {
    let loaded = loaded(yaml);
    let mut found = Diagnostics::default();
    let _settings: Settings = read(&loaded.node, &mut found);
    told(&found, &loaded.sources)
}

#[test]
fn reads_every_kind_of_value() {
    let settings = reads(
        "endpoint: a:1\nsize: 5.0\nsmall: -3\nratio: 2\non: false\nwait: 1.5h\nnames: a,b\nwords: [x]\ntoken: s\n\
         headers: {k: v}\nmode: very_slow\nmaybe: 9\ninner: {limit: 1}\nqueue:\nrules: [{key: k, action: insert}, {key: l}]\n",
    );
    assert_eq!(settings.endpoint, "a:1");
    assert_eq!((settings.size, settings.small, settings.maybe), (5, -3, Some(9)));
    assert_eq!(settings.ratio.to_bits(), 2.0_f64.to_bits());
    assert!(!settings.on);
    assert_eq!(settings.wait.0, Duration::from_mins(90));
    assert_eq!(settings.names.0, ["a", "b"]);
    assert_eq!(settings.words, ["x"]);
    assert_eq!(settings.token.expose(), "s");
    assert_eq!(settings.headers["k"], "v");
    assert_eq!(settings.mode, Mode::VerySlow);
    assert_eq!(settings.inner, Inner { limit: 1, label: "x".to_owned() });
    assert_eq!(settings.queue, Section::present(Inner::default()));
    assert_eq!(settings.rules[1], Rule { key: "l".to_owned(), action: String::new() });
}

#[test]
fn reads_enums_with_values() {
    assert_eq!(reads("mode: {every: {days: 3}}").mode, Mode::Every { days: 3 });
    assert_eq!(reads("mode: {named: x}").mode, Mode::Named("x".to_owned()));
}

#[test]
fn takes_an_older_name_for_a_key() {
    assert_eq!(reads("max_size: 3").size, 3);
    assert_eq!(refuses("max_size: 3\nsize: 4"), ["2:1 `size` is written twice, once under an older name | keep one of the two"]);
}

#[test]
fn null_is_the_empty_value_and_a_map_without_keys_the_defaults() {
    let nothing = Settings {
        endpoint: String::new(),
        size: 0,
        small: 0,
        ratio: 0.0,
        on: false,
        wait: GoDuration(Duration::ZERO),
        words: vec![],
        maybe: None,
        ..Settings::default()
    };
    assert_eq!(
        reads("endpoint:\nsize:\nsmall:\nratio:\non:\nwait:\nnames:\nwords:\ntoken:\nheaders:\nmaybe:\ninner:\nrules:\n"),
        nothing
    );
    assert_eq!(reads("inner: {}"), Settings::default());
    let mut found = Diagnostics::default();
    assert_eq!(read::<Settings>(&Node::null(), &mut found), Settings::default());
    assert_eq!(found.found, []);
}

#[test]
fn a_section_is_off_until_it_is_written() {
    assert_eq!(reads("size: 1").queue, Section::absent());
    assert_eq!(reads("queue:").queue, Section::present(Inner::default()));
    assert_eq!(reads("queue: {}").queue, Section::present(Inner::default()));
    assert_eq!(reads("queue: {enabled: true, limit: 3}").queue.get().unwrap().limit, 3);
    assert_eq!(reads("queue: {enabled: false, limit: 3}").queue, Section::absent());
    assert_eq!(reads("queue: {enabled: '${env:YES}'}").queue, Section::present(Inner::default()));
    assert_eq!(refuses("queue: {enabled: 'true'}"), ["1:18 `enabled` is true or false, found text"]);
    assert_eq!(refuses("queue: {enabled: }"), ["1:9 `enabled` is true or false, found nothing"]);
    assert_eq!(refuses("queue: false"), ["1:8 expected a section (a map), found `false`"]);
    assert_eq!(refuses("queue: {limits: 3}"), ["1:9 there is no key `limits` here | did you mean `limit`?"]);
}

#[test]
fn names_the_nearest_key_or_all_of_them() {
    assert_eq!(refuses("endpiont: x"), ["1:1 there is no key `endpiont` here | did you mean `endpoint`?"]);
    assert_eq!(refuses("End-Point: x"), ["1:1 there is no key `End-Point` here | did you mean `endpoint`?"]);
    assert_eq!(refuses("inner:\n  zzz: 1"), ["2:3 there is no key `zzz` here | valid keys: `limit`, `label`"]);
}

#[test]
fn types_are_not_bent() {
    for (yaml, message) in [
        ("endpoint: 1", "1:11 expected text, found the number 1 | put it in quotes: \"1\""),
        ("endpoint: true", "1:11 expected text, found `true` | put it in quotes: \"true\""),
        ("endpoint: [a]", "1:1 expected text, found a list"),
        ("size: '5'", "1:7 expected a whole number, found text | remove the quotes: 5"),
        ("size: 5.5", "1:7 expected a whole number, found the number 5.5"),
        ("size: -1", "1:7 -1 is not between 0 and 4294967295"),
        ("size: 4294967296", "1:7 4294967296 is not between 0 and 4294967295"),
        ("size: true", "1:7 expected a whole number, found `true`"),
        ("ratio: '1'", "1:8 expected a number, found text | remove the quotes: 1"),
        ("on: 'true'", "1:5 expected true or false, found the text `true` | write it without quotes: true"),
        ("on: yes", "1:5 expected true or false, found the text `yes` | write it without quotes: true"),
        ("on: 1", "1:5 expected true or false, found the number 1"),
        ("wait: 5d", "1:7 expected a duration such as 300ms, 10s or 1h30m, found the text `5d`"),
        ("words: 5", "1:8 expected a list, found the number 5"),
        ("words: [a, 1]", "1:12 expected text, found the number 1 | put it in quotes: \"1\""),
        ("headers: {a: 1}", "1:14 expected text, found a number | put it in quotes"),
        ("mode: vary_slow", "1:7 `vary_slow` is not one of `fast`, `very_slow`, `every`, `named` | did you mean `very_slow`?"),
        ("inner: 5", "1:8 expected a map, found the number 5"),
        ("rules: [{action: x}]", "1:8 the key `key` is required here and missing"),
    ] {
        let got = refuses(yaml);
        assert_eq!(got.len(), 1, "{yaml}: {got:?}");
        if yaml.starts_with("rules") {
            assert!(got[0].contains("the key `key` is required here and missing"), "{got:?}");
        } else {
            assert_eq!(got, [message], "{yaml}");
        }
    }
}

#[test]
fn what_comes_out_of_a_reference_has_two_faces() {
    let settings = reads(
        "endpoint: ${env:ZIP}\nsize: ${env:ZIP}\non: '${env:YES}'\nwords: ${env:LIST}\nheaders: {a: '${env:FIVE}'}\nwait: ${env:FIVE}s",
    );
    assert_eq!((settings.endpoint.as_str(), settings.size, settings.on), ("0123", 83, true));
    assert_eq!(settings.words, ["a", "b"]);
    assert_eq!(settings.headers["a"], "5");
    assert_eq!(settings.wait.0, Duration::from_secs(5));
    assert_eq!(reads("endpoint: ${env:LIST}").endpoint, "[a, b]");
    assert_eq!(reads("words: ${env:COMMAS}").words, ["a", "b"]);
    assert_eq!(reads("headers: ${env:MAP}").headers["a"], "b");
    assert_eq!(reads("size: ${env:EMPTY}").size, 0);
    assert_eq!(refuses("on: ${env:QUOTED}"), ["1:5 expected true or false, found the text `\"true\"`"]);
    assert_eq!(refuses("on: ${env:FIVE}"), ["1:5 expected true or false, found a number out of a reference"]);
}

#[test]
fn finds_every_problem_of_a_section_and_keeps_the_rest() {
    let loaded = loaded(
        "endpoint: a:1\nsize: x\nratio: y\nbogus: 1\ninner:\n  limit: z\n  labl: q\nrules: [{key: [], action: 1}, {action: x}, {key: ok}]\n",
    );
    let mut found = Diagnostics::default();
    let settings: Settings = read(&loaded.node, &mut found);
    let told = told(&found, &loaded.sources);
    for expected in [
        "2:7 expected a whole number",
        "3:8 expected a number",
        "4:1 there is no key `bogus`",
        "6:10 expected a whole number",
        "7:3 there is no key `labl`",
        "8:10 expected text, found a list",
        "8:27 expected text, found the number 1",
        "the key `key` is required",
    ] {
        assert_eq!(told.iter().filter(|line| line.contains(expected)).count(), 1, "{expected}: {told:#?}");
    }
    assert_eq!(told.len(), 8, "{told:#?}");
    assert_eq!((settings.endpoint.as_str(), settings.size), ("a:1", 7));
    assert_eq!(settings.rules.iter().filter(|rule| rule.key == "ok").count(), 1);
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Server {
    endpoint: String,
    tls: Section<Inner>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    path: String,
}

#[test]
fn two_structs_share_a_map_and_what_neither_knows_is_told_once() {
    let loaded = loaded("endpoint: a:1\npath: /x\npaht: /y\ntls: {limit: x}");
    let mut found = Diagnostics::default();
    let (server, own): (Server, Own) = read2(&loaded.node, &mut found);
    assert_eq!((server.endpoint.as_str(), own.path.as_str()), ("a:1", "/x"));
    assert_eq!(
        told(&found, &loaded.sources),
        ["3:1 there is no key `paht` here | did you mean `path`?", "4:14 expected a whole number, found text"]
    );
}
