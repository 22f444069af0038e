//! Rules, each action by itself, with the answers that Prometheus' documentation gives.

use super::*;
use crate::receivers::prometheus::{config::one_rule, relabel::apply};

#[track_caller]
fn check(rule: &str, before: &[(&'static str, &'static str)], after: Option<&[(&str, &str)]>) {
    let (read, found) = one_rule(rule);
    assert!(!found.has_errors(), "{rule}: {found:?}");
    let mut labels: Labels<'_> = before.iter().copied().collect();
    let kept = apply(&[read.unwrap()], &mut labels);
    labels.finish().unwrap();
    assert_eq!(kept.then(|| labels.iter().collect::<Vec<_>>()), after.map(<[_]>::to_vec), "{rule}");
}

#[test]
fn replaces_with_groups() {
    let rule =
        "{source_labels: [a, b], separator: '-', regex: '(\\w+)-(?P<second>.+)', target_label: c, replacement: '${second}_$1'}";
    check(rule, &[("a", "x"), ("b", "y")], Some(&[("a", "x"), ("b", "y"), ("c", "y_x")]));
    check(rule, &[("a", "x")], Some(&[("a", "x")]));
    check("{source_labels: [a], regex: 'x', target_label: a, replacement: ''}", &[("a", "x")], Some(&[]));
    // Patterns match whole values, and a dot a line break.
    check("{source_labels: [a], regex: 'x', target_label: b, replacement: z}", &[("a", "xx")], Some(&[("a", "xx")]));
    check(
        "{source_labels: [a], regex: 'x.y', target_label: b, replacement: z}",
        &[("a", "x\ny")],
        Some(&[("a", "x\ny"), ("b", "z")]),
    );
    check("{source_labels: [a], regex: '(.*)', target_label: 'to_$1'}", &[("a", "x")], Some(&[("a", "x"), ("to_x", "x")]));
}

#[test]
fn keeps_and_drops() {
    check("{source_labels: [a], regex: 'x|y', action: keep}", &[("a", "y")], Some(&[("a", "y")]));
    check("{source_labels: [a], regex: 'x|y', action: keep}", &[("a", "z")], None);
    check("{source_labels: [a], regex: 'x|y', action: Drop}", &[("a", "x")], None);
    check("{source_labels: [nothing], regex: '', action: drop}", &[("a", "x")], None);
    check("{source_labels: [a], target_label: b, action: keepequal}", &[("a", "x"), ("b", "x")], Some(&[("a", "x"), ("b", "x")]));
    check("{source_labels: [a], target_label: b, action: keepequal}", &[("a", "x"), ("b", "y")], None);
    check("{source_labels: [a], target_label: b, action: dropequal}", &[("a", "x"), ("b", "x")], None);
}

#[test]
fn maps_names() {
    let rule = "{regex: 'meta_(.+)', action: labelmap}";
    check(rule, &[("meta_a", "1"), ("a", "0"), ("c", "2")], Some(&[("a", "1"), ("c", "2"), ("meta_a", "1")]));
    check("{regex: 'a|b', action: labeldrop}", &[("a", "1"), ("ab", "2")], Some(&[("ab", "2")]));
    check("{regex: 'a|b', action: labelkeep}", &[("a", "1"), ("ab", "2")], Some(&[("a", "1")]));
    check("{source_labels: [a], target_label: b, action: uppercase}", &[("a", "xY")], Some(&[("a", "xY"), ("b", "XY")]));
    check("{source_labels: [a], target_label: a, action: lowercase}", &[("a", "xY")], Some(&[("a", "xy")]));
}

/// The numbers are those that Python's hashlib gives for the last eight bytes of the sum.
#[test]
fn shards_as_prometheus_does() {
    let rule = "{source_labels: [a], target_label: shard, modulus: 1000, action: hashmod}";
    check(rule, &[("a", "foo")], Some(&[("a", "foo"), ("shard", "696")]));
    check(rule, &[("a", "host-17:9100")], Some(&[("a", "host-17:9100"), ("shard", "310")]));
}

#[test]
fn rules_that_cannot_work_are_told_of() {
    for (rule, words) in [
        ("{action: hashmod, target_label: x}", "modulus"),
        ("{action: replace, source_labels: [a]}", "target_label"),
        ("{action: labeldropp, regex: a}", "not an action"),
        ("{regex: '(', target_label: a}", "not a pattern"),
        ("{regex: '(a{1000}){1000}', target_label: a}", "bytes"),
        ("{action: labelkeep, regex: a, source_labels: [b]}", "names of labels"),
    ] {
        let (_, found) = one_rule(rule);
        assert!(found.found.iter().any(|one| one.message.contains(words)), "{rule}: {found:?}");
    }
}

#[test]
fn series_are_relabelled_after_they_have_their_targets_labels() {
    let keys = "metric_relabel_configs: [{source_labels: [__name__, instance], regex: 'a;h:1', target_label: __name__, replacement: b}, \
                {source_labels: [__name__], regex: 'd.*', action: drop}, {regex: x, action: labeldrop}]";
    assert_eq!(points(keys, "a{x=\"1\"} 1\ndrop 2\nc 3\n"), ["gauge b {} 1", "gauge c {} 3"]);
}
