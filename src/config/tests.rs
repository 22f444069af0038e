//! Loading, against what the Collector 0.155 made of the same texts.

use std::{collections::HashMap, io};

use super::{Diagnostics, Environment, Input, Level, Loaded, Node, Value, draw, load, to_json};

/// Variables and files of a test.
#[derive(Default)]
struct World {
    variables: HashMap<&'static str, String>,
    files: HashMap<&'static str, Vec<u8>>,
}

impl Environment for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn world() -> World {
    let variables = [
        ("A", "0123"),
        ("B", "true"),
        ("C", "[1, 2]"),
        ("D", "{x: 1}"),
        ("E", ""),
        ("F", "hello world"),
        ("G", "1.50"),
        ("H", "$$x"),
        ("I", "${env:A}"),
        ("J", "\"q\""),
        ("K", "0xFF"),
        ("L", "1_000"),
        ("M", "null"),
        ("N", "a: b"),
        ("O", "#c"),
        ("P", "- x"),
        ("R", "yes"),
        ("S", "~"),
        ("X5", "5"),
        ("U", "a,b"),
        ("N2", "A"),
        ("LOOP", "x${env:LOOP}"),
        ("SELF", "${env:SELF}"),
        ("NEST", "{n: '${env:NEST}'}"),
        ("LISTED", "['${env:A}', '$$', {k: '${env:X5}y'}]"),
    ];
    let files = [
        ("inc.yaml", "a: 1\nb: [x, '${env:A}']\n".as_bytes().to_vec()),
        ("text", b"plain text\n".to_vec()),
        ("binary", vec![0xff, 0, 1]),
        ("one.yaml", b"a: {b: {c: 1, d: 2}, l: [1, 2], n: {x: 1}, e: {x: 1}}\nkeep: 1\n".to_vec()),
        ("two.yaml", b"a: {b: {c: 9}, l: [3], n: , e: {}}\n".to_vec()),
        ("utf16.yaml", "\u{feff}a: \u{e9}\n".encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ];
    let large = ("LARGE", "x".repeat(500_000));
    World {
        variables: variables.into_iter().map(|(name, value)| (name, value.to_owned())).chain([large]).collect(),
        files: files.into_iter().collect(),
    }
}

fn text(yaml: &str) -> Loaded {
    load(&[Input::Text { name: "test.yaml".to_owned(), text: yaml.to_owned() }], &world())
}

/// A tree as JSON, for comparison.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::String(text) => text.to_string().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|(key, value)| (key.word().unwrap().to_string(), json(value))).collect(),
    }
}

fn value(written: &str) -> Node {
    let loaded = text(&format!("v: {written}\n"));
    assert!(!loaded.found.has_errors(), "{written}: {:?}", loaded.found.found);
    loaded.node.get("v").unwrap().clone()
}

fn drawn(found: &Diagnostics, loaded: &Loaded) -> String {
    let mut out = Vec::new();
    draw(found, &loaded.sources, &mut out, false).unwrap();
    String::from_utf8(out).unwrap()
}

fn error_of(yaml: &str) -> String {
    let loaded = text(yaml);
    let errors: Vec<String> = loaded
        .found
        .found
        .iter()
        .filter(|diagnostic| diagnostic.level == Level::Error)
        .map(|diagnostic| {
            let place = loaded.sources.place(diagnostic.origin).unwrap();
            format!("{}:{} {}", place.line, place.column, diagnostic.message)
        })
        .collect();
    errors.join("\n")
}

#[test]
fn words_mean_what_they_mean_to_the_collector() {
    for (written, expected) in [
        ("yes", "\"yes\""),
        ("on", "\"on\""),
        ("true", "true"),
        ("True", "true"),
        ("TRUE", "true"),
        ("tRUE", "\"tRUE\""),
        ("0x1F", "31"),
        ("0777", "511"),
        ("0o17", "15"),
        ("0b11", "3"),
        ("1_000", "1000"),
        ("1e3", "1000.0"),
        (".5", "0.5"),
        ("5.", "5.0"),
        ("1.0", "1.0"),
        ("+1", "1"),
        ("-1", "-1"),
        ("~", "null"),
        ("null", "null"),
        ("Null", "null"),
        ("", "null"),
        ("!!str 1", "\"1\""),
        ("!!int \"1\"", "1"),
        ("!!float 1", "1.0"),
        ("!custom x", "\"x\""),
        ("!!binary aGk=", "\"hi\""),
        ("-9223372036854775809", "-9223372036854775808.0"),
        ("\"1\"", "\"1\""),
        ("'a'", "\"a\""),
        ("1:30", "\"1:30\""),
        ("=", "\"=\""),
        ("<<", "\"<<\""),
        ("0x", "\"0x\""),
        ("1__0", "10"),
        ("_1", "\"_1\""),
        ("0o8", "\"0o8\""),
        ("089", "89.0"),
        ("--1", "\"--1\""),
        ("1e", "\"1e\""),
        ("{a: 1, 2: 3}", "{\"a\":1,\"2\":3}"),
        ("{true: 1}", "{\"true\":1}"),
        ("{null: 1}", "{\"<nil>\":1}"),
        ("{1.5: 1}", "{\"1.5\":1}"),
        ("|\n  line\n  two", "\"line\\ntwo\\n\""),
        ("\"a\\x41\\u00e9\"", "\"aA\u{e9}\""),
    ] {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(json(&value(written)), expected, "{written}");
    }
}

#[test]
fn references_become_what_the_collector_makes_of_them() {
    for (written, expected, as_text) in [
        ("${env:A}", "83", Some("0123")),
        ("${A}", "83", Some("0123")),
        ("${env:A}x", "\"0123x\"", None),
        ("${env:B}", "true", Some("true")),
        ("${env:C}", "[1,2]", Some("[1, 2]")),
        ("${env:C}x", "\"[1, 2]x\"", None),
        ("${env:D}", "{\"x\":1}", Some("{x: 1}")),
        ("${env:E}", "null", Some("")),
        ("${env:E}x", "\"x\"", None),
        ("${env:F}", "\"hello world\"", None),
        ("${env:G}", "1.5", Some("1.50")),
        ("${env:H}", "\"$x\"", None),
        ("${env:I}", "83", Some("0123")),
        ("${env:J}", "\"\\\"q\\\"\"", None),
        ("${env:J}x", "\"\\\"q\\\"x\"", None),
        ("${env:K}", "255", Some("0xFF")),
        ("${env:K}-", "\"0xFF-\"", None),
        ("${env:L}", "1000", Some("1_000")),
        ("${env:M}", "null", Some("null")),
        ("${env:M}y", "\"nully\"", None),
        ("${env:N}", "{\"a\":\"b\"}", Some("a: b")),
        ("${env:O}", "null", Some("#c")),
        ("${env:P}", "[\"x\"]", Some("- x")),
        ("${env:R}", "\"yes\"", None),
        ("${env:S}", "null", Some("~")),
        ("${env:UNSET}", "null", Some("")),
        ("x${env:UNSET}y", "\"xy\"", None),
        ("${env:UNSET:-d}", "\"d\"", None),
        ("${env:UNSET:-}", "null", Some("")),
        ("${env:E:-d}", "null", Some("")),
        ("${env:UNSET:-1}", "1", Some("1")),
        ("${env:UNSET:-[1]}", "[1]", Some("[1]")),
        ("${env:UNSET:-${env:A}}", "83", Some("0123")),
        ("${env:UNSET:-a}b}", "\"ab}\"", None),
        ("'${env:UNSET:-{a: 1}}'", "\"{a: 1}\"", None),
        ("$$", "\"$\"", None),
        ("$${env:A}", "\"${env:A}\"", None),
        ("$$${env:A}", "\"$0123\"", None),
        ("$$$${env:A}", "\"$${env:A}\"", None),
        ("$${env:A} ${env:X5}", "\"${env:A} ${env:X5}\"", None),
        ("${env:X5} $${env:A}", "\"5 ${env:A}\"", None),
        ("a}${env:A}", "\"a}0123\"", None),
        ("$A", "\"$A\"", None),
        ("$$A", "\"$A\"", None),
        ("$", "\"$\"", None),
        ("a$$b", "\"a$b\"", None),
        ("${", "\"${\"", None),
        ("${env:A", "\"${env:A\"", None),
        ("${yaml:x}", "\"x\"", None),
        ("${yaml:[1,2]}", "[1,2]", Some("[1,2]")),
        ("\"${yaml:a: 1}\"", "{\"a\":1}", Some("a: 1")),
        ("${env:${env:N2}}", "83", Some("0123")),
        ("${env:A}${env:B}", "\"0123true\"", None),
        ("${file:inc.yaml}", "{\"a\":1,\"b\":[\"x\",83]}", Some("a: 1\nb: [x, '0123']\n")),
        ("${file:text}", "\"plain text\\n\"", None),
        ("${env:LISTED}", "[83,\"$\",{\"k\":\"5y\"}]", Some("['0123', '$', {k: '5y'}]")),
    ] {
        let node = value(written);
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(json(&node), expected, "{written}");
        assert_eq!(node.text.as_deref(), as_text, "{written}");
    }
}

#[test]
fn refuses_references_that_mean_nothing() {
    for (written, message) in [
        ("${UNSET:-d}", "`UNSET` is not a scheme of references"),
        ("${}", "`` is not a name an environment variable can have"),
        ("${env:}", "`` is not a name an environment variable can have"),
        ("${env:1A}", "`1A` is not a name"),
        ("${env:A-B}", "`A-B` is not a name"),
        ("${a b}", "`a b` is not a name"),
        ("${env:A }", "`A ` is not a name"),
        ("${1}", "`1` is not a name"),
        ("${ENV:A}", "`ENV` is not a scheme"),
        ("${e:A}", "`${e:A}` is not a reference"),
        ("${foo:bar}", "`foo` is not a scheme"),
        ("${file:nope}", "cannot read `nope`"),
        ("${file:binary}", "`binary` is not UTF-8"),
        ("${http://127.0.0.1:1/x}", "weir does not fetch configuration over the network"),
        ("${env:$A}", "has a `$` in it"),
        ("${env:LOOP}", "still not expanded after 1000 rounds"),
        ("${env:SELF}", "still not expanded after 1000 rounds"),
        ("${env:NEST}", "nested deeper than 100"),
    ] {
        let error = error_of(&format!("a: 1\nv: {written}\n"));
        assert!(error.starts_with("2:4 ") && error.contains(message) && !error.contains('\n'), "{written}: {error}");
    }
    let help = text("v: ${UNSET:-d}").found.found[0].help.clone().unwrap();
    assert_eq!(help, "a default value needs the scheme: `${env:UNSET:-d}`");
}

#[test]
fn says_which_variable_is_not_set() {
    let loaded = text("v: a${env:NOPE}\nw: 1");
    let [warning] = &loaded.found.found[..] else { panic!("{:?}", loaded.found) };
    assert_eq!(warning.level, Level::Warning);
    assert!(warning.message.contains("`NOPE` is not set"));
    assert_eq!(loaded.sources.range(warning.origin), Some(3..15));
}

#[test]
fn a_small_text_does_not_become_a_large_tree() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (one, next) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb = format!("{bomb}{next}: &{next} [{}]\n", vec![format!("*{one}"); 9].join(","));
    }
    assert!(error_of(&bomb).contains("more than 250000 values"), "{}", error_of(&bomb));
    let grown = |keys: usize| {
        let lines: Vec<String> = (0..keys).map(|n| format!("k{n}: '${{env:LARGE}}'")).collect();
        lines.join("\n")
    };
    assert!(!text(&grown(20)).found.has_errors());
    assert!(error_of(&grown(200)).contains("more text than is read"));
}

#[test]
fn refuses_what_is_not_one_map_of_yaml() {
    for (yaml, message) in [
        ("a: 1\na: 2\n", "2:1 the key `a` is written twice in one map, first in line 1"),
        ("x: {b: 1, b: 2}\n", "1:11 the key `b` is written twice"),
        ("x:\n\ty: 1\n", "2:"),
        ("- a\n", "1:1 a list is not a configuration"),
        ("abc\n", "1:1 text is not a configuration"),
        ("x: *nope\n", "1:4 this is not valid YAML"),
        ("x: &a\n  y: *a\n", "2:6 the value of an anchor contains itself"),
        ("x: {<<: 1}\n", "1:5 `<<` takes a map or a list of maps"),
        ("b: &b {x: 1}\nc:\n  <<: *b\n  <<: *b\n", "4:3 the key `<<` is written twice"),
        ("{[a]: 1}\n", "1:2 a key must be a word"),
        ("x: \"a\u{0}\"\n", "1:6 control characters are not allowed"),
        ("x: 'open\n", "this is not valid YAML"),
        ("x: [1, 2\n", "this is not valid YAML"),
    ] {
        let error = error_of(yaml);
        assert!(error.starts_with(message) || (!message.contains(':') && error.contains(message)), "{yaml:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let deep = error_of(&format!("x: {}{}", "[".repeat(150), "]".repeat(150)));
    assert!(deep.contains("nested deeper than 100"), "{deep}");
    let flow = format!("x: {}1{}", "{a: ".repeat(5000), "}".repeat(5000));
    assert!(!error_of(&flow).is_empty());
}

#[test]
fn takes_what_yaml_allows() {
    for (yaml, expected) in [
        ("\u{feff}a: 1\n", "{\"a\":1}"),
        ("a: 1\r\nb: x\r\n", "{\"a\":1,\"b\":\"x\"}"),
        ("", "{}"),
        ("# nothing\n", "{}"),
        ("---\na: 1\n...\n", "{\"a\":1}"),
        ("a: 1\n...\nfoo\n", "{\"a\":1}"),
        ("b: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3\n", "{\"b\":{\"x\":1,\"y\":2},\"c\":{\"y\":3,\"x\":1}}"),
        (
            "b: &b {x: 1}\nc: &c {x: 2, z: 2}\nd:\n  <<: [*b, *c]\n",
            "{\"b\":{\"x\":1},\"c\":{\"x\":2,\"z\":2},\"d\":{\"x\":1,\"z\":2}}",
        ),
        ("b: &b {x: 1}\nc: {\"<<\": *b}\n", "{\"b\":{\"x\":1},\"c\":{\"<<\":{\"x\":1}}}"),
        ("e: &e hi\nf: [*e]\n", "{\"e\":\"hi\",\"f\":[\"hi\"]}"),
        ("a::b: 1\na::c::d: 2\n", "{\"a\":{\"b\":1,\"c\":{\"d\":2}}}"),
        ("a: {x: 1}\na::b: 1\n", "{\"a\":{\"x\":1,\"b\":1}}"),
        ("a: [{b::c: 1}]\n", "{\"a\":[{\"b::c\":1}]}"),
        ("'${env:A}': 1\n", "{\"${env:A}\":1}"),
        ("%YAML 1.1\n---\na: 1\n", "{\"a\":1}"),
    ] {
        let loaded = text(yaml);
        assert!(!loaded.found.has_errors(), "{yaml:?}: {:?}", loaded.found.found);
        assert_eq!(json(&loaded.node), serde_json::from_str::<serde_json::Value>(expected).unwrap(), "{yaml:?}");
    }
}

#[test]
fn reads_only_the_first_document_and_says_so() {
    let loaded = text("a: 1\n---\nb: 1\n");
    assert_eq!(json(&loaded.node).to_string(), "{\"a\":1}");
    assert!(loaded.found.found[0].message.contains("only the first YAML document"));
    assert_eq!(loaded.sources.place(loaded.found.found[0].origin).unwrap().line, 2);
}

fn of(inputs: &[Input]) -> Loaded {
    load(inputs, &world())
}

fn uri(text: &str) -> Input {
    Input::Uri(text.to_owned())
}

#[test]
fn later_sources_win_key_by_key() {
    let loaded = of(&[uri("one.yaml"), uri("file:two.yaml")]);
    assert_eq!(
        json(&loaded.node).to_string(),
        "{\"a\":{\"b\":{\"c\":9,\"d\":2},\"e\":{\"x\":1},\"l\":[3],\"n\":null},\"keep\":1}"
    );
    let place = loaded.node.nearest("a::b::c").origin;
    assert_eq!(
        (loaded.sources.get(place.source).unwrap().name.as_str(), loaded.sources.place(place).unwrap().column),
        ("two.yaml", 12)
    );
}

#[test]
fn set_wins_over_every_config() {
    let set = |flag: &str| Input::Set(flag.to_owned());
    let loaded = of(&[set("a.b.c=[x, 1]"), set("keep=${env:A}"), set("a::l=a=b"), uri("one.yaml")]);
    assert!(!loaded.found.has_errors(), "{:?}", loaded.found);
    assert_eq!(json(loaded.node.nearest("a::b::c")).to_string(), "[\"x\",1]");
    assert_eq!(json(loaded.node.nearest("keep")).to_string(), "83");
    assert_eq!(json(loaded.node.nearest("a::l")).to_string(), "\"a=b\"");
    assert!(of(&[set("novalue")]).found.has_errors());
    assert!(of(&[set("=x")]).found.has_errors());
}

#[test]
fn a_source_is_a_path_a_variable_or_the_text_itself() {
    assert_eq!(json(&of(&[uri("yaml:a::b: 1")]).node).to_string(), "{\"a\":{\"b\":1}}");
    assert_eq!(json(&of(&[uri("env:D")]).node).to_string(), "{\"x\":1}");
    assert_eq!(json(&of(&[uri("utf16.yaml")]).node).to_string(), "{\"a\":\"\u{e9}\"}");
    for (wrong, message) in [
        ("nope.yaml", "cannot read `nope.yaml`"),
        ("file:nope.yaml", "cannot read `nope.yaml`"),
        ("env:NOPE", "`NOPE` is not set"),
        ("https://example.com/x.yaml", "does not fetch configuration over the network"),
        ("s3://bucket/x", "`s3` is not a scheme"),
        ("binary", "not text in UTF-8"),
    ] {
        let loaded = of(&[uri(wrong)]);
        assert!(loaded.found.found[0].message.contains(message), "{wrong}: {:?}", loaded.found);
        assert!(drawn(&loaded.found, &loaded).contains(wrong));
    }
}

#[test]
fn draws_the_line_the_place_and_the_remedy() {
    let loaded = text("receivers:\n  otlp:\n    protcols: 1\n");
    let mut found = Diagnostics::default();
    let key = match &loaded.node.nearest("receivers::otlp").value {
        Value::Map(entries) => entries[0].0.origin,
        other => panic!("{other:?}"),
    };
    found.error(key, "there is no key `protcols` here", Some("did you mean `protocols`?".to_owned()));
    found.warning(loaded.node.get("receivers").unwrap().origin, "something old", None);
    let drawn = drawn(&found, &loaded);
    for expected in [
        "error: there is no key `protcols` here\n",
        "[ test.yaml:3:5 ]",
        "3 |     protcols: 1\n",
        "|     ^^^^|^^^",
        "did you mean `protocols`?",
        "1 error, 1 warning",
    ] {
        assert!(drawn.contains(expected), "{expected:?} in\n{drawn}");
    }
    assert!(drawn.find("something old") < drawn.find("protcols"), "sorted by place");
    assert!(!drawn.contains('\u{1b}'), "no colours unless asked for");
    let list: serde_json::Value = serde_json::from_str(&to_json(&found, &loaded.sources)).unwrap();
    assert_eq!(list[1]["line"], 3);
    assert_eq!(list[1]["column"], 5);
    assert_eq!(list[1]["length"], 8);
    assert_eq!(list[1]["help"], "did you mean `protocols`?");
}

#[test]
fn draws_places_that_are_not_in_the_text() {
    let loaded = text("a: \u{e9}\u{1b}x");
    let mut found = Diagnostics::default();
    for (source, start, end) in [(0, 900, 901), (0, 4, 4), (9, 0, 1), (0, u32::MAX, 0), (0, 0, u32::MAX)] {
        found.error(super::Origin { source, start, end }, "wrong\u{1b}[31m", None);
    }
    let drawn = drawn(&found, &loaded);
    assert!(drawn.contains("5 errors") && !drawn.contains('\u{1b}'), "{drawn}");
}

#[test]
fn all_keys_that_are_written_twice_are_told_beside_what_else_is_wrong() {
    let loaded = text("a: 1\na: 2\nb: {c: 1, c: 2}\nd: ${env:UNSET_HERE}\na: 3\n");
    let lines: Vec<usize> = loaded
        .found
        .found
        .iter()
        .filter(|told| told.level == Level::Error)
        .map(|told| loaded.sources.place(told.origin).unwrap().line)
        .collect();
    assert_eq!(lines, [2, 3, 5], "{:?}", loaded.found);
}

#[test]
fn a_byte_order_mark_moves_no_place() {
    let files = [("bom.yaml", b"\xef\xbb\xbfa: 1\na: 2\n".to_vec()), ("bom2.yaml", b"\xef\xbb\xbfa: [\n".to_vec())].into();
    let world = World { files, ..World::default() };
    let loaded = load(&[uri("bom.yaml")], &world);
    let place = loaded.sources.place(loaded.found.found[0].origin).unwrap();
    assert_eq!((place.line, place.column), (2, 1), "{:?}", loaded.found);
    let loaded = load(&[uri("bom2.yaml")], &world);
    let place = loaded.sources.place(loaded.found.found[0].origin).unwrap();
    assert_eq!((place.line, place.column), (1, 4), "{:?}", loaded.found);
}

#[test]
fn a_quote_that_is_not_closed_is_pointed_at() {
    for (yaml, place) in [
        ("x: 'y\nb: 1\n", "1:4"),
        ("x: \"y\nb: 1\n", "1:4"),
        ("a: {b: \"x}\nc: 1\n", "1:8"),
        ("a: 'b'\nx:\n  y: \"z\n", "3:6"),
        ("a: \"x\n---\nb: 1", "1:4"),
    ] {
        let told = error_of(yaml);
        assert!(told.starts_with(place), "{yaml}: {told}");
    }
}
