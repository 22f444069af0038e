//! The same request into weir and into the Collector: the same pages, but for what is listed here.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::Strategy, Bench, Escaping, FamilyKind, Format, Read, messages, reader};

const KINDS: &str = include_str!("../testdata/kinds.json");

/// Attributes that become one label: the specification joins their values, the Collector drops the metric.
const JOINED: [&str; 2] = ["joined_total", "joined"];

fn lines(page: &Read) -> BTreeSet<(String, BTreeMap<String, String>, String)> {
    let kept = |name: &str| {
        !name.starts_with("nosum") && !JOINED.contains(&name.trim_start_matches("my_ns_").trim_start_matches("my.ns_"))
    };
    page.lines
        .iter()
        .filter(|line| kept(line.name.trim_start_matches("my_ns_").trim_start_matches("my.ns_")))
        .map(|line| (line.name.clone(), line.labels.clone(), format!("{} {:?} {:?}", line.value, line.time, line.exemplar)))
        .collect()
}

#[track_caller]
fn check(settings: &str, expected: &str, format: Format) {
    let bench = Bench::new(settings);
    bench.send(&serde_json::from_str(KINDS).unwrap());
    let ours =
        String::from_utf8(bench.page(format, if format.is_open_metrics() { Escaping::Underscores } else { Escaping::AllowUtf8 }))
            .unwrap();
    let ours = reader::read(&ours, format.is_open_metrics());
    let theirs = reader::read(expected, format.is_open_metrics());
    let (our_lines, their_lines) = (lines(&ours), lines(&theirs));
    let only_ours: Vec<_> = our_lines.difference(&their_lines).collect();
    let only_theirs: Vec<_> = their_lines.difference(&our_lines).collect();
    assert!(only_ours.is_empty() && only_theirs.is_empty(), "only ours: {only_ours:#?}\nonly theirs: {only_theirs:#?}");
    for (name, kind) in &theirs.types {
        // In OpenMetrics `target_info` is an info, which client_golang has no type for.
        if !name.ends_with("target_info") {
            assert_eq!(ours.kind(name), Some(kind.as_str()), "{name}");
        }
    }
}

#[test]
fn shows_what_the_collector_shows() {
    check("{}", include_str!("../testdata/kinds.plain.txt"), Format::Text1_0_0);
}

#[test]
fn shows_what_the_collector_shows_in_open_metrics() {
    check(r#"{"enable_open_metrics": true}"#, include_str!("../testdata/kinds.om.txt"), Format::OpenMetrics1_0_0);
}

#[test]
fn shows_what_the_collector_shows_without_suffixes() {
    let expected = include_str!("../testdata/kinds.nosuffix.txt");
    check(r#"{"translation_strategy": "UnderscoreEscapingWithoutSuffixes"}"#, expected, Format::Text1_0_0);
    check(r#"{"add_metric_suffixes": false}"#, expected, Format::Text1_0_0);
}

#[test]
fn shows_what_the_collector_shows_in_utf8() {
    check(
        r#"{"translation_strategy": "NoUTF8EscapingWithSuffixes"}"#,
        include_str!("../testdata/kinds.utf8.txt"),
        Format::Text1_0_0,
    );
    check(r#"{"translation_strategy": "NoTranslation"}"#, include_str!("../testdata/kinds.none.txt"), Format::Text1_0_0);
}

#[test]
fn shows_what_the_collector_shows_with_namespace_labels_and_times() {
    check(
        r#"{"namespace": "my.ns", "const_labels": {"region": "eu"}, "send_timestamps": true}"#,
        include_str!("../testdata/kinds.ns.txt"),
        Format::Text1_0_0,
    );
}

#[test]
fn shows_what_the_collector_shows_with_resource_labels_and_without_scopes() {
    check(
        r#"{"without_scope_info": true, "resource_to_telemetry_conversion": {"enabled": true}}"#,
        include_str!("../testdata/kinds.noscope.txt"),
        Format::Text1_0_0,
    );
}

/// A native histogram as bucket → count, however its spans are cut.
fn buckets(histogram: &messages::Histogram) -> (i32, u64, BTreeMap<i32, i64>, BTreeMap<i32, i64>) {
    let side = |spans: &[messages::BucketSpan], deltas: &[i64]| {
        let (mut at, mut count) = (0, 0);
        let mut deltas = deltas.iter();
        let mut found = BTreeMap::new();
        for span in spans {
            at += span.offset;
            for _ in 0..span.length {
                count += deltas.next().unwrap();
                if count != 0 {
                    found.insert(at, count);
                }
                at += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        found
    };
    (
        histogram.schema,
        histogram.zero_count,
        side(&histogram.positive_span, &histogram.positive_delta),
        side(&histogram.negative_span, &histogram.negative_delta),
    )
}

#[test]
fn shows_what_the_collector_shows_in_protobuf() {
    let bench = Bench::new("{}");
    bench.send(&serde_json::from_str(KINDS).unwrap());
    let ours = messages::read(&bench.page(Format::Protobuf, Escaping::Underscores));
    let theirs = messages::read(include_bytes!("../testdata/kinds.plain.pb"));
    for name in ["exp", "exp_fine"] {
        let of = |page: &[messages::MetricFamily]| {
            page.iter().find(|family| family.name == name).unwrap().metric[0].histogram.clone().unwrap()
        };
        let (ours, theirs) = (of(&ours), of(&theirs));
        assert_eq!(buckets(&ours), buckets(&theirs), "{name}");
        assert_eq!((ours.sample_count, ours.sample_sum), (theirs.sample_count, theirs.sample_sum));
        assert_eq!(ours.zero_threshold, 1e-128);
        assert_eq!(ours.exemplars.len(), theirs.exemplars.len());
        assert_eq!(ours.created_timestamp, theirs.created_timestamp);
    }
    let names = |page: &[messages::MetricFamily]| -> BTreeSet<(String, i32)> {
        page.iter()
            .map(|family| (family.name.clone(), family.kind))
            .filter(|(name, _)| !JOINED.contains(&name.as_str()))
            .collect()
    };
    assert_eq!(names(&ours), names(&theirs));
}

/// What the Collector made of gauges of unit `1`, counters of unit `s` and of `By/s`, by their names.
#[test]
fn names_metrics_as_the_collector_does() {
    let rows: [(&str, &str, &str, &str); 12] = [
        ("foo", "foo_ratio", "c_foo_seconds_total", "cb_foo_bytes_per_second_total"),
        ("foo.bar", "foo_bar_ratio", "c_foo_bar_seconds_total", "cb_foo_bar_bytes_per_second_total"),
        ("_foo", "foo_ratio", "c_foo_seconds_total", "cb_foo_bytes_per_second_total"),
        ("foo__bar", "foo_bar_ratio", "c_foo_bar_seconds_total", "cb_foo_bar_bytes_per_second_total"),
        ("foo.ratio", "foo_ratio", "c_foo_ratio_seconds_total", "cb_foo_ratio_bytes_per_second_total"),
        ("foo.total", "foo_total_ratio", "c_foo_seconds_total", "cb_foo_bytes_per_second_total"),
        ("foo.seconds.bar", "foo_seconds_bar_ratio", "c_foo_seconds_bar_total", "cb_foo_seconds_bar_bytes_per_second_total"),
        ("foo_total_bar", "foo_total_bar_ratio", "c_foo_bar_seconds_total", "cb_foo_bar_bytes_per_second_total"),
        ("a:b", "a:b_ratio", "c_a:b_seconds_total", "cb_a:b_bytes_per_second_total"),
        ("a%b", "a_b_ratio", "c_a_b_seconds_total", "cb_a_b_bytes_per_second_total"),
        ("bytes.x", "bytes_x_ratio", "c_bytes_x_seconds_total", "cb_bytes_x_per_second_total"),
        (
            "foo.bytes_per_second",
            "foo_bytes_per_second_ratio",
            "c_foo_bytes_per_second_seconds_total",
            "cb_foo_bytes_per_second_per_second_total",
        ),
    ];
    let strategy = Strategy::UnderscoreEscapingWithSuffixes;
    for (name, gauge, seconds, speed) in rows {
        assert_eq!(strategy.metric_name("", name, "1", FamilyKind::Gauge, true).0, gauge);
        assert_eq!(strategy.metric_name("", &format!("c.{name}"), "s", FamilyKind::Counter, false).0, seconds);
        assert_eq!(strategy.metric_name("", &format!("cb.{name}"), "By/s", FamilyKind::Counter, false).0, speed);
    }
    let rows: [(&str, &str, &str); 7] = [
        ("foo.total", "s", "foo_seconds_total"),
        ("seconds", "s", "seconds_total"),
        ("total", "s", "total_seconds_total"),
        ("foo.bytes_per_second", "By/s", "foo.bytes_per_second_total"),
        ("per.second", "By/s", "per.second_bytes_per_second_total"),
        ("foo_total_bar", "s", "foo_total_bar_seconds_total"),
        ("foo__bar", "s", "foo__bar_seconds_total"),
    ];
    for (name, unit, expected) in rows {
        assert_eq!(Strategy::NoUTF8EscapingWithSuffixes.metric_name("", name, unit, FamilyKind::Counter, false).0, expected);
    }
}

#[test]
fn knows_the_units() {
    let rows = [
        ("1", ""),
        ("s", "seconds"),
        ("ms", "milliseconds"),
        ("us", "microseconds"),
        ("ns", "nanoseconds"),
        ("min", "minutes"),
        ("h", "hours"),
        ("d", "days"),
        ("By", "bytes"),
        ("KiBy", "kibibytes"),
        ("MiBy", "mebibytes"),
        ("GiBy", "gibibytes"),
        ("TiBy", "tibibytes"),
        ("kBy", "kilobytes"),
        ("KBy", "kilobytes"),
        ("MBy", "megabytes"),
        ("m", "meters"),
        ("V", "volts"),
        ("A", "amperes"),
        ("J", "joules"),
        ("W", "watts"),
        ("g", "grams"),
        ("Cel", "celsius"),
        ("Hz", "hertz"),
        ("%", "percent"),
        ("{req}", ""),
        ("By/s", "bytes_per_second"),
        ("1/s", "per_second"),
        ("{x}/s", "per_second"),
        ("s/{x}", "seconds"),
        ("m/s/s", "meters_per_s_s"),
        ("/s", "per_second"),
        ("foo", "foo"),
        ("foo.bar", "foo_bar"),
        ("m^2", "m_2"),
        ("_", ""),
        ("-", ""),
        ("", ""),
        ("{a}/{b}", ""),
        ("kg", "kg"),
        ("1/min", "per_min"),
        ("By/d", "bytes_per_day"),
    ];
    for (unit, word) in rows {
        let (name, suffix) = Strategy::UnderscoreEscapingWithSuffixes.metric_name("", "u", unit, FamilyKind::Gauge, false);
        let expected = if word.is_empty() { "u".to_owned() } else { format!("u_{word}") };
        assert_eq!((name.as_str(), suffix.as_str()), (expected.as_str(), word), "{unit}");
    }
}
