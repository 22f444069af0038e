//! Dumps keep secrets in and load again.

use proptest::prelude::*;

use super::{DumpFormat, DumpMode, dump};
use crate::config::{Input, Machine, Node, Origin, Value, load, yaml::parse_value};

fn tree(yaml: &str) -> Node {
    let loaded = load(&[Input::Text { name: "x".to_owned(), text: yaml.to_owned() }], &Machine);
    assert!(!loaded.found.has_errors(), "{:?}", loaded.found);
    loaded.node
}

#[test]
fn secrets_are_left_out_of_a_dump() {
    let dumped = dump(
        &tree(
            "exporters:\n  otlp_http:\n    endpoint: https://me:hunter2@example.com/x?y=1\n    headers: {X-Key: hunter2, other: 5}\n    tls: {key_pem: hunter2, key_file: /k.pem}\n\
             \x20 other: {API-Key: hunter2, password: hunter2, sasl: {Password: hunter2}, list: [{secret: hunter2}], name: open}\n\
             extensions:\n  bearer_token_auth: {token: hunter2, tokens: [hunter2, {a: hunter2}], filename: /f}\n\
             \x20 basic_auth: {htpasswd: {inline: hunter2, file: /p}}\n\
             \x20 headers_setter: {headers: [{key: X-Scope, value: hunter2, action: insert}, {key: Y, from_context: tenant}]}\n\
             \x20 named: {headers: [{name: nm, value: hunter2}]}\n  null_one: {password: }\n",
        ),
        DumpMode::Redacted,
        DumpFormat::Yaml,
    );
    assert!(!dumped.contains("hunter2"), "{dumped}");
    for kept in [
        "https://me:[REDACTED]@example.com/x?y=1",
        "key_file: /k.pem",
        "name: open",
        "filename: /f",
        "file: /p",
        "key: X-Scope",
        "from_context: tenant",
        "name: nm",
        "action: insert",
        "X-Key: \"[REDACTED]\"",
        "password:\n",
    ] {
        assert!(dumped.contains(kept), "{kept}\n{dumped}");
    }
}

#[test]
fn an_unredacted_dump_keeps_everything() {
    let node = tree("a: {password: hunter2}");
    assert_eq!(dump(&node, DumpMode::Unredacted, DumpFormat::Yaml), "a:\n  password: hunter2\n");
    assert_eq!(dump(&node, DumpMode::Unredacted, DumpFormat::Json), "{\n  \"a\": {\n    \"password\": \"hunter2\"\n  }\n}\n");
}

#[test]
fn dumps_readable_yaml() {
    let dumped = dump(
        &tree(
            "a: {b: 1, c: [x, {d: 1, e: [2]}, [3, q]], f: {}, g: [], h: , i: 'yes', j: '1', k: 'a: b', l: \"x\\ny\", m: 1.0, p: 127.0.0.1:4317}",
        ),
        DumpMode::Unredacted,
        DumpFormat::Yaml,
    );
    assert_eq!(
        dumped,
        "a:\n  b: 1\n  c:\n    - x\n    - d: 1\n      e:\n        - 2\n    - [3, \"q\"]\n  f: {}\n  g: []\n  h:\n  i: \"yes\"\n  j: \"1\"\n  k: \"a: b\"\n  l: \"x\\ny\"\n  m: 1.0\n  p: 127.0.0.1:4317\n"
    );
}

fn any_tree() -> impl Strategy<Value = Node> {
    let made = |value| Node { value, origin: Origin::default(), text: None };
    let text = prop_oneof![
        "\\PC{0,12}",
        "[-?:,\\[\\]{}#&*!|>'\"%@` \t\r\na1.~=$<]{0,6}",
        "(true|no|null|1_0|0x1|---|2001-01-01|~|<<|\u{85}|\u{feff}x|\u{2028})"
    ];
    let key = text.clone();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Float),
        text.prop_map(|text: String| Value::String(text.into())),
    ]
    .prop_map(made);
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(move |items| made(Value::List(items))),
            prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(move |map| {
                let entries = map.into_iter().map(|(key, value)| (made(Value::String(key.into())), value));
                made(Value::Map(entries.collect()))
            }),
        ]
    })
}

/// The same tree, whatever was written where.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k.value == l.value && same(a, b))
        }
        (a, b) => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_dump_reads_back_as_the_same_tree(node in any_tree()) {
        let yaml = dump(&node, DumpMode::Unredacted, DumpFormat::Yaml);
        let again = parse_value(&yaml);
        prop_assert!(again.as_ref().is_some_and(|again| same(&node, again)), "{yaml}\n{again:?}");
    }

    #[test]
    fn a_json_dump_is_json(node in any_tree()) {
        let json = dump(&node, DumpMode::Redacted, DumpFormat::Json);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
    }
}
