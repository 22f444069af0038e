//! The actions, through the `attributes` processor. Expected values are what the Collector 0.155 gave for the same input.

use serde_json::{Value, json};

use super::{
    super::{
        attributes::Config,
        testing::{batch, build, error, json_of, processed, read, span_with},
    },
    compile,
};
use crate::{
    component::ProcessorConfig,
    config::Level,
    signal::{Context, Signal},
};

fn context() -> Context {
    Context {
        peer: Some("192.0.2.7".parse().unwrap()),
        metadata: vec![("x-many".into(), vec!["one".into(), "two".into()]), ("x-tenant".into(), vec!["acme".into()])],
        auth: vec![("subject".into(), "alice".into())],
    }
}

/// The attributes of a span after `actions`.
#[track_caller]
fn after(actions: &str, attributes: &Value) -> Value {
    let processor = build::<Config>(&format!("{{actions: {actions}}}"), Signal::Traces).unwrap();
    let done = json_of(&processed(&*processor, batch(Signal::Traces, &span_with(attributes), context())));
    let span = &done["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["name"], "GET /a");
    span.get("attributes").cloned().unwrap_or_else(|| json!([]))
}

fn attribute(key: &str, value: Value) -> Value {
    json!({"key": key, "value": value})
}

fn text(key: &str, value: &str) -> Value {
    attribute(key, json!({"stringValue": value}))
}

/// What one attribute `a` becomes.
#[track_caller]
fn becomes(action: &str, value: Value, expected: &Value) {
    let done = after(&format!("[{{key: a, {action}}}]"), &json!([attribute("a", value.clone())]));
    assert_eq!(done, json!([attribute("a", expected.clone())]), "{action} of {value}");
}

// === insert, update, upsert ===

#[test]
fn inserts_what_is_absent_and_updates_what_is_there() {
    let one = json!([text("a", "1")]);
    assert_eq!(after("[{key: b, action: insert, value: v}]", &one), json!([text("a", "1"), text("b", "v")]));
    assert_eq!(after("[{key: a, action: insert, value: v}]", &one), one);
    assert_eq!(after("[{key: a, action: update, value: v}]", &one), json!([text("a", "v")]));
    assert_eq!(after("[{key: b, action: update, value: v}]", &one), one);
    assert_eq!(after("[{key: a, action: UPSERT, value: v}]", &one), json!([text("a", "v")]));
    assert_eq!(after("[{key: b, action: Upsert, value: v}]", &json!([])), json!([text("b", "v")]));
}

#[test]
fn values_keep_the_type_they_are_written_with() {
    let done = after(
        "[{key: a, action: insert, value: 1}, {key: b, action: insert, value: 1.5}, {key: c, action: insert, value: true},
          {key: d, action: insert, value: ''}, {key: e, action: insert, value: [1, x, null]}, {key: f, action: insert, value: {k: {m: 2.0}}},
          {key: g, action: insert, value: '1'}, {key: h, action: insert, value: -5}]",
        &json!([]),
    );
    let list = json!({"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}, {}]}});
    let inner = json!({"kvlistValue": {"values": [attribute("m", json!({"doubleValue": 2.0}))]}});
    let expected = json!([
        attribute("a", json!({"intValue": "1"})),
        attribute("b", json!({"doubleValue": 1.5})),
        attribute("c", json!({"boolValue": true})),
        text("d", ""),
        attribute("e", list),
        attribute("f", json!({"kvlistValue": {"values": [attribute("k", inner)]}})),
        text("g", "1"),
        attribute("h", json!({"intValue": "-5"})),
    ]);
    assert_eq!(done, expected);
}

#[test]
fn copies_attributes_of_any_type_and_does_nothing_without_them() {
    for value in [
        json!({"stringValue": ""}),
        json!({"bytesValue": "+/8="}),
        json!({"arrayValue": {"values": [{}]}}),
        json!({"doubleValue": "NaN"}),
        json!({}),
    ] {
        let done = after("[{key: b, action: insert, from_attribute: a}]", &json!([attribute("a", value.clone())]));
        assert_eq!(done, json!([attribute("a", value.clone()), attribute("b", value)]));
    }
    assert_eq!(after("[{key: b, action: upsert, from_attribute: nothing}]", &json!([text("a", "1")])), json!([text("a", "1")]));
}

#[test]
fn takes_values_from_the_context() {
    let done = after(
        "[{key: a, action: insert, from_context: metadata.X-Tenant}, {key: b, action: insert, from_context: metadata.x-many},
          {key: c, action: insert, from_context: x-tenant}, {key: d, action: insert, from_context: metadata.nothing},
          {key: e, action: insert, from_context: client.address}, {key: f, action: insert, from_context: auth.subject},
          {key: g, action: insert, from_context: auth.nothing, default_value: nobody}]",
        &json!([]),
    );
    let expected = json!([
        text("a", "acme"),
        text("b", "one;two"),
        text("c", "acme"),
        text("e", "192.0.2.7"),
        text("f", "alice"),
        text("g", "nobody")
    ]);
    assert_eq!(done, expected);
}

#[test]
fn names_what_it_needs_of_the_context() {
    let (config, _) = read::<Config>(
        "{actions: [{key: a, action: insert, from_context: metadata.X-Tenant}, {key: b, action: update, from_context: Other}]}",
    );
    let needs = config.needs();
    assert_eq!(needs.metadata.iter().map(String::as_str).collect::<Vec<_>>(), ["other", "x-tenant"]);
    assert!(!needs.peer && !needs.auth);
    let (config, _) = read::<Config>("{actions: [{key: a, action: insert, from_context: client.address}]}");
    assert!(config.needs().peer);
    let (config, _) = read::<Config>("{actions: [{key: a, action: insert, from_context: auth.subject}]}");
    assert!(config.needs().auth);
}

#[test]
fn the_default_stands_in_for_a_value_that_is_not_there() {
    let one = json!([text("a", ""), attribute("n", json!({}))]);
    let default = |source: &str| format!("[{{key: b, action: insert, {source}default_value: 5}}]");
    let with = |value: Value| json!([text("a", ""), attribute("n", json!({})), attribute("b", value)]);
    assert_eq!(after(&default("from_attribute: x, "), &one), with(json!({"intValue": "5"})));
    assert_eq!(after(&default(""), &one), with(json!({"intValue": "5"})));
    // An empty value is a value.
    assert_eq!(after(&default("from_attribute: a, "), &one), with(json!({"stringValue": ""})));
    assert_eq!(after(&default("from_attribute: n, "), &one), with(json!({})));
    assert_eq!(after(&default("value: '', "), &one), with(json!({"stringValue": ""})));
}

// === delete ===

#[test]
fn deletes_by_key_and_by_pattern() {
    let three = json!([text("card.number", "1"), text("b", "2"), text("card.owner", "3")]);
    assert_eq!(after("[{key: b, action: delete}]", &three), json!([text("card.number", "1"), text("card.owner", "3")]));
    assert_eq!(after("[{pattern: '^card', action: delete}]", &three), json!([text("b", "2")]));
    assert_eq!(after("[{key: b, pattern: 'own', action: delete}]", &three), json!([text("card.number", "1")]));
    assert_eq!(after("[{pattern: '.*', action: delete}]", &three), json!([]));
    assert_eq!(after("[{key: x, action: delete}]", &three), three);
    // Both of a key that comes twice.
    assert_eq!(
        after("[{key: a, action: delete}]", &json!([text("a", "1"), text("b", "2"), text("a", "3")])),
        json!([text("b", "2")])
    );
}

// === hash ===

#[test]
fn hashes_with_sha_256_as_the_collector_does() {
    let cases = [
        (json!({"stringValue": "Alice Example"}), "5fdee136a281f707626984d6714707b9e532f88f128be9a8ed9b7f803672f0e8"),
        (json!({"stringValue": ""}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (json!({"boolValue": true}), "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"),
        (json!({"boolValue": false}), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (json!({"intValue": "-12"}), "676d10f426f479057aa82f805a5b1c49ae8f6ea7525be1a347d5a406407b769a"),
        (json!({"doubleValue": 2.5}), "5caaabe50da77f59f448b3edf650d68fbca7b858390664c251c52b3f458a881c"),
        (json!({"doubleValue": "Infinity"}), "9402bb655bc3b7331a00f1219ef647565bbe517c74aa0e41026885785867d1cd"),
        (json!({"bytesValue": "+/8="}), ""),
        (json!({"arrayValue": {}}), ""),
        (json!({"kvlistValue": {}}), ""),
        (json!({}), ""),
    ];
    for (value, hash) in cases {
        becomes("action: hash", value, &json!({"stringValue": hash}));
    }
}

#[test]
fn hashes_all_keys_that_match_a_pattern() {
    let done = after(
        "[{key: i, pattern: '^(card|i$)', action: hash}]",
        &json!([attribute("i", json!({"intValue": "-12"})), text("card.number", "4111"), text("x", "y")]),
    );
    let expected = json!([
        // By its key and by the pattern: twice.
        text("i", "8556f0ab208e86b47fb5c9087e60697b8e0022b7c6e97224c640dca4db600d44"),
        text("card.number", "1f58dbec71994620de8abe61e744f76da60667b7b277ed4bead710a4b8e31ad0"),
        text("x", "y"),
    ]);
    assert_eq!(done, expected);
}

// === extract ===

#[test]
fn extracts_named_groups() {
    let url = text("url", "https://shop.example/cart/17?x=1");
    let pattern = "^(?P<protocol>.*)://(?P<domain>[^/]*)/(?P<url>.*)\\?(?P<query>.*)(?P<maybe>never)?";
    let done = after(&format!("[{{key: url, action: extract, pattern: '{pattern}'}}]"), &json!([url, text("domain", "old")]));
    let expected = json!([
        text("url", "cart/17"),
        text("domain", "shop.example"),
        text("protocol", "https"),
        text("query", "x=1"),
        text("maybe", "")
    ]);
    assert_eq!(done, expected);
    let url = json!([url]);
    assert_eq!(after("[{key: url, action: extract, pattern: '(?<x>zzz)'}]", &url), url);
    let number = json!([attribute("i", json!({"intValue": "1"}))]);
    assert_eq!(after("[{key: i, action: extract, pattern: '(?<x>.*)'}]", &number), number);
}

// === convert ===

#[test]
fn converts_to_text_as_the_collector_does() {
    let map = json!({"kvlistValue": {"values": [text("z", "q\"\u{2028}"), attribute("a", json!({"boolValue": true}))]}});
    let list = json!({"arrayValue": {"values": [{"stringValue": "a<b"}, {"intValue": "1"}, {}, {"doubleValue": 1.0}, {"bytesValue": "AQI="}]}});
    let cases = [
        (json!({"intValue": "-12"}), "-12"),
        (json!({"boolValue": true}), "true"),
        (json!({"doubleValue": 2.5}), "2.5"),
        (json!({"doubleValue": 3.0}), "3"),
        (json!({"doubleValue": 1e21}), "1e+21"),
        (json!({"doubleValue": 1e-7}), "1e-7"),
        (json!({"doubleValue": 1.5e300}), "1.5e+300"),
        (json!({"doubleValue": "NaN"}), "NaN"),
        (json!({"doubleValue": "Infinity"}), "Infinity"),
        (json!({"bytesValue": "+/8="}), "+/8="),
        (json!({}), ""),
        (list, r#"["a<b",1,null,1,"AQI="]"#),
        (map, r#"{"a":true,"z":"q\"\u2028"}"#),
    ];
    for (value, expected) in cases {
        becomes("action: convert, converted_type: string", value, &json!({"stringValue": expected}));
    }
}

#[test]
fn converts_to_integers_what_is_one() {
    let unchanged = |value: &Value| becomes("action: convert, converted_type: int", value.clone(), value);
    for (value, expected) in [
        (json!({"stringValue": "42"}), "42"),
        (json!({"stringValue": "+7"}), "7"),
        (json!({"doubleValue": 2.5}), "2"),
        (json!({"doubleValue": -7.9}), "-7"),
        (json!({"boolValue": true}), "1"),
        (json!({"boolValue": false}), "0"),
    ] {
        becomes("action: convert, converted_type: int", value, &json!({"intValue": expected}));
    }
    for text in ["", "2.50", "0x1F", "1_000", "99999999999999999999", " 1"] {
        unchanged(&json!({"stringValue": text}));
    }
    unchanged(&json!({"arrayValue": {}}));
    unchanged(&json!({}));
}

#[test]
fn converts_to_doubles_what_is_one() {
    for (value, expected) in [
        (json!({"stringValue": "2.50"}), json!(2.5)),
        (json!({"stringValue": "+7"}), json!(7.0)),
        (json!({"stringValue": "1_000"}), json!(1000.0)),
        (json!({"stringValue": "inf"}), json!("Infinity")),
        (json!({"intValue": "-12"}), json!(-12.0)),
        (json!({"boolValue": true}), json!(1.0)),
    ] {
        becomes("action: convert, converted_type: double", value, &json!({"doubleValue": expected}));
    }
    for text in ["", "1e400", "0x1F", "_1", "1_", "1__0", "x"] {
        let value = json!({"stringValue": text});
        becomes("action: convert, converted_type: double", value.clone(), &value);
    }
}

#[test]
fn converts_to_true_and_false() {
    for (value, expected) in
        [(json!({"stringValue": "True"}), true), (json!({"intValue": "0"}), false), (json!({"doubleValue": 0.5}), true)]
    {
        becomes("action: convert, converted_type: bool", value, &json!({"boolValue": expected}));
    }
    becomes("action: convert, converted_type: bool", json!({"stringValue": "yes"}), &json!({"stringValue": "yes"}));
}

// === order ===

#[test]
fn actions_see_what_the_ones_before_them_did() {
    let done = after(
        "[{key: a, action: delete}, {key: a, action: insert, value: again}, {key: copy, action: insert, from_attribute: a}, {key: copy, action: hash}]",
        &json!([text("a", "first"), text("b", "2")]),
    );
    let expected = json!([
        text("b", "2"),
        text("a", "again"),
        text("copy", "b4c9e14061c2fd453b36700e3b0da008db2189c711ac629f0f583089164e267d")
    ]);
    assert_eq!(done, expected);
    // What was added can be deleted again, and then nothing happened.
    let one = json!([text("a", "1")]);
    assert_eq!(after("[{key: b, action: insert, value: v}, {key: b, action: delete}]", &one), one);
}

// === settings ===

#[test]
fn refuses_actions_that_cannot_work() {
    for (action, complaint) in [
        ("{key: a, action: insert}", "`insert` needs `value`, `from_attribute`, `from_context` or `default_value`"),
        ("{key: a, action: upsert, value: null}", "`upsert` needs `value`"),
        ("{key: a, action: insert, value: 1, from_attribute: b}", "only one of `value`, `from_attribute` and `from_context`"),
        ("{key: a, action: update, value: 1, pattern: x}", "`update` does not take `pattern`"),
        ("{key: a, action: upsert, value: 1, converted_type: int}", "`upsert` does not take `converted_type`"),
        ("{action: insert, value: 1}", "an action needs `key`: the attribute to act on"),
        ("{action: delete}", "an action needs `key` or `pattern`"),
        ("{key: a, action: bogus}", "`bogus` is no action"),
        ("{key: a}", "`action` is required"),
        ("{key: a, action: delete, value: 1}", "`delete` does not take `value`"),
        ("{key: a, action: hash, converted_type: int}", "`hash` does not take `converted_type`"),
        ("{action: hash, pattern: '('}", "the pattern cannot be read: unclosed group"),
        ("{action: delete, pattern: '(a{1000}){1000}'}", "the pattern needs more than 1048576 bytes"),
        ("{key: a, action: extract}", "`extract` needs `pattern`"),
        ("{key: a, action: extract, pattern: abc}", "every group of the pattern needs a name"),
        ("{key: a, action: extract, pattern: '(a)(?P<b>c)'}", "every group of the pattern needs a name"),
        ("{key: a, action: extract, pattern: '(?P<b>c)', from_context: metadata.x}", "`extract` does not take `from_context`"),
        ("{key: a, action: convert}", "`convert` needs `converted_type`"),
        ("{key: a, action: convert, converted_type: float}", "`float` is no type to convert to"),
        ("{key: a, action: convert, converted_type: int, pattern: x}", "`convert` does not take `pattern`"),
    ] {
        let found = error::<Config>(&format!("{{actions: [{{key: ok, action: delete}}, {action}]}}"));
        assert!(found.contains(complaint), "{action}: {found}");
    }
    assert!(error::<Config>("{actions: []}").contains("`actions` is required"));
    assert!(error::<Config>("{}").contains("`actions` is required"));
}

#[test]
fn problems_point_at_the_action_that_has_them() {
    let (_, found) = read::<Config>(
        "{actions: [{key: a, action: delete}, {key: b, action: bogus}, {key: c, action: convert, converted_type: float}]}",
    );
    let starts: Vec<u32> = found.found.iter().map(|one| one.origin.start).collect();
    let text =
        "p: {actions: [{key: a, action: delete}, {key: b, action: bogus}, {key: c, action: convert, converted_type: float}]}";
    let expected: Vec<u32> = ["bogus", "float"].iter().map(|word| text.find(word).unwrap() as u32).collect();
    assert_eq!(starts, expected);
}

#[test]
fn lists_keys_that_an_action_ignores() {
    let (_, found) = read::<Config>(
        "{actions: [{key: a, action: delete, from_context: metadata.x}, {key: a, action: convert, converted_type: int, default_value: 3}]}",
    );
    let levels: Vec<Level> = found.found.iter().map(|one| one.level).collect();
    assert_eq!(levels, [Level::Ineffective, Level::Ineffective]);
}

// === patterns ===

#[test]
fn patterns_mean_what_they_mean_in_go() {
    #[track_caller]
    fn check(pattern: &str, found: &[&str], not_found: &[&str]) {
        let compiled = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in found {
            assert!(compiled.is_match(text), "{pattern} in {text}");
        }
        for text in not_found {
            assert!(!compiled.is_match(text), "{pattern} in {text}");
        }
    }
    // Only ASCII.
    check(r"^\d+$", &["42"], &["٤٢"]);
    check(r"^[\w-]+$", &["a-b_9"], &["é"]);
    check(r"^\W$", &["é", "-"], &["a"]);
    check(r"^[^\d]$", &["٤"], &["4"]);
    check(r"^[\W]$", &["é"], &["a"]);
    check(r"^\s$", &[" ", "\t"], &["\u{a0}", "\u{b}"]);
    check(r"\bis\b", &["it is"], &["this"]);
    check(r"^é\b", &[], &["é "]);
    // Characters that are special to one engine only.
    check(r"^[[a]$", &["[", "a"], &["b"]);
    check(r"^[a&&b]$", &["a", "&", "b"], &["c"]);
    check(r"^[]a]$", &["]", "a"], &["b"]);
    check(r"^[^]a]$", &["b"], &["]", "a"]);
    check(r"^[[:alpha:]_]$", &["x", "_"], &["1", "["]);
    check(r"^{a}$", &["{a}"], &["a"]);
    check(r"^a{2}b{1,}c{0,1}$", &["aabbc"], &["ab"]);
    check(r"^x{,3}$", &["x{,3}"], &["xxx"]);
    check(r"\<a\>", &["<a>"], &["a"]);
    check(r"^\Qa.b(\E.$", &["a.b(!"], &["axb(!"]);
    check(r"^\/api\/v\d$", &["/api/v1"], &["/api/v"]);
    check(r"(?i)straße", &["STRAßE"], &["strasse"]);
    check(r"^a.c$", &["a\u{e9}c"], &["a\nc"]);
    check(r"a$", &["ba"], &["a\n"]);
    assert!(compile("(?P<x>").is_err());
    assert!(compile("\\").is_err());
}
