//! Durations, sizes, lists and sections as files write them.

use std::time::Duration;

use proptest::prelude::*;

use super::{ByteSize, GoDuration, Secret, StringList};

#[test]
fn durations_are_what_go_makes_of_them() {
    for (text, nanos) in [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        ("5s", 5_000_000_000),
        ("+5s", 5_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("1h30m", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("1us", 1_000),
        ("1\u{b5}s", 1_000),
        ("1\u{3bc}s", 1_000),
        ("1.999999999s", 1_999_999_999),
        ("0.1ms", 100_000),
        ("1.9ns", 1),
        ("300ms", 300_000_000),
        ("0.33333333333333333333333s", 333_333_333),
        ("9223372036854775807ns", 9_223_372_036_854_775_807),
    ] {
        assert_eq!(GoDuration::parse(text), Some(Duration::from_nanos(nanos)), "{text}");
    }
    for text in [
        "",
        "+",
        "-",
        "5",
        "-5s",
        "s",
        ".s",
        "1d",
        "1 s",
        " 1s",
        "1s ",
        "1e3s",
        "1..5s",
        "1.5.5s",
        "5s5",
        "++5s",
        "9223372036854775808ns",
        "2562048h",
        "1h-5m",
        "\u{0661}s",
        "1S",
    ] {
        assert_eq!(GoDuration::parse(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_duration_reader_fail(text in "[0-9.hmsuµn+-]{0,24}|\\PC{0,12}") {
        let made = (GoDuration::parse(&text), ByteSize::parse(&text));
        prop_assert!(made.0.is_none_or(|duration| duration.as_nanos() <= u128::from(u64::MAX)), "{made:?}");
    }

    #[test]
    fn parts_of_a_duration_add_up(hours in 0_u64..1000, minutes in 0_u64..10_000, millis in 0_u64..100_000) {
        let expected = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_millis(millis);
        prop_assert_eq!(GoDuration::parse(&format!("{hours}h{minutes}m{millis}ms")), Some(expected));
    }
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in
        [("0", 0), ("65536", 65536), ("1KiB", 1024), ("64 MiB", 64 << 20), ("2GB", 2_000_000_000), ("1kb", 1000), ("3b", 3)]
    {
        assert_eq!(ByteSize::parse(text), Some(bytes), "{text}");
    }
    for text in ["", "MiB", "1.5MiB", "-1", "1XB", "99999999999999999999", "18446744073709551615KiB"] {
        assert_eq!(ByteSize::parse(text), None, "{text}");
    }
}

#[test]
fn lists_of_words_may_be_one_text() {
    let read = |json: &str| serde_json::from_str::<StringList>(json).unwrap().0;
    assert_eq!(read("\"a, b\""), ["a", "b"]);
    assert_eq!(read("[\"a,b\"]"), ["a,b"]);
    assert_eq!(read("\"\""), Vec::<String>::new());
}

#[test]
fn a_secret_does_not_show() {
    assert_eq!(format!("{:?}", Secret::new("hunter2")), "[REDACTED]");
    assert_eq!(Secret::new("hunter2").expose(), "hunter2");
}
