//! The nearest word.

use super::{distance, list, nearest};

#[test]
fn the_nearest_word_is_the_one_that_was_meant() {
    let keys = ["endpoint", "timeout", "tls", "headers", "sending_queue", "retry_on_failure"];
    for (word, meant) in [
        ("endpiont", Some("endpoint")),
        ("end_point", Some("endpoint")),
        ("EndPoint", Some("endpoint")),
        ("timout", Some("timeout")),
        ("header", Some("headers")),
        ("sendingqueue", Some("sending_queue")),
        ("retry_on_failures", Some("retry_on_failure")),
        ("tsl", Some("tls")),
        ("compression", None),
        ("x", None),
        ("", None),
    ] {
        assert_eq!(nearest(word, keys), meant, "{word}");
    }
    assert_eq!(nearest(&"e".repeat(100_000), keys), None);
}

#[test]
fn distance_counts_edits_and_swaps() {
    for (one, other, far) in
        [("", "", 0), ("a", "", 1), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "abd", 1), ("kitten", "sitting", 3)]
    {
        assert_eq!(distance(one, other), far, "{one} {other}");
        assert_eq!(distance(other, one), far, "{one} {other}");
    }
}

#[test]
fn long_lists_are_cut() {
    assert_eq!(list(["a", "b"]), "`a`, `b`");
    assert!(list(["x"; 40]).ends_with("and 24 more"));
}
