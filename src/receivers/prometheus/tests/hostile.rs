//! Pages that nobody should send.

use std::fmt::Write as _;

use super::*;
use crate::receivers::prometheus::translate::SAMPLES_MAX;

#[track_caller]
fn fails(keys: &str, page: &[u8], line: usize, words: &str) {
    let (at, fault) = told(&job(keys), Format::Text, page).unwrap_err();
    let (Fault::Malformed(text) | Fault::Limit(text)) = fault;
    assert!(at == line && text.contains(words), "line {at}: {text}");
}

#[test]
fn a_fault_fails_the_page_and_names_the_line() {
    for (page, words) in [
        ("a 1\nb", "not a number"),
        ("a 1\nb x\n", "not a number"),
        ("a 1\nb 1 2 3\n", "follows"),
        ("a 1\nb 1 1.5\n", "milliseconds"),
        ("a 1\n1b 1\n", "name of a metric"),
        ("a 1\n{x=\"y\"} 1\n", "without the name"),
        ("a 1\nb{x=y} 1\n", "quote"),
        ("a 1\nb{x=\"y} 1\n", "not closed"),
        ("a 1\nb{x=\"y\\", "not closed"),
        ("a 1\nb{x=\"y\" z=\"1\"} 1\n", "comma"),
        ("a 1\nb{x=\"y\",x=\"z\"} 1\n", "twice"),
        ("a 1\nb{0=\"y\"} 1\n", "name of a label"),
        ("a 1\nb{x:y=\"y\"} 1\n", "name of a label"),
        ("a 1\n# TYPE b what\n", "not a type"),
        ("a 1\nb 1 # {} 1\n", "follows"),
        ("a 1\nb 0x10\n", "not a number"),
    ] {
        fails("", page.as_bytes(), 2, words);
    }
    fails("", b"a 1\nb{x=\"\xff\"} 1\n", 2, "UTF-8");
}

#[test]
fn limits_fail_the_page_and_name_their_key() {
    let page = b"a{x=\"12345\",longer=\"1\"} 1\nb 1\nc 1\n";
    fails("sample_limit: 2", page, 3, "sample_limit");
    fails("label_limit: 4", page, 1, "label_limit");
    fails(
        "label_name_length_limit: 8, metric_relabel_configs: [{regex: longer, action: labeldrop}]",
        b"a 1\nb{ninechars=\"\",xxxxxxxxx=\"1\"} 1\n",
        2,
        "label_name_length_limit",
    );
    fails("label_value_length_limit: 4", page, 1, "label_value_length_limit");
    // Instance, job and name are labels as well, as in Prometheus.
    assert_eq!(
        points("sample_limit: 3, label_limit: 5, label_value_length_limit: 5", "a{x=\"12345\",longer=\"1\"} 1\nb 1\nc 1\n").len(),
        3
    );
}

#[test]
fn a_page_has_bounds_that_nobody_wrote() {
    let (job, labels) = (job(""), target_labels());
    let mut out = Page::new(&job, &labels, "http", NOW);
    out.kept = SAMPLES_MAX - 1;
    let (line, fault) = text::read(b"a 1\nb 1\n", false, &mut out).unwrap_err();
    assert!(line == 2 && matches!(&fault, Fault::Limit(text) if text.contains("1000000")), "{fault:?}");
    let labels: String = (0..2000).map(|number| format!("l{number}=\"1\"")).collect::<Vec<_>>().join(",");
    fails("", format!("a{{{labels}}} 1\n").as_bytes(), 1, "1024");
}

#[test]
fn a_megabyte_of_a_label_is_a_label() {
    let value = "x".repeat(1 << 20);
    assert_eq!(points("", &format!("a{{x=\"{value}\"}} 1\n")), [format!("gauge a {{x={value}}} 1")]);
}

#[test]
fn protobuf_that_is_none_is_told_of_by_family() {
    let whole = [b"\x05\x0a\x01a\x18\x01".as_slice(), b"\x0e\x0a\x01b\x18\x01\x22\x07\x12\x05\x09\0\0\0\0".as_slice()].concat();
    for page in [whole.as_slice(), b"\x05\x0a\x01a\x18\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
        let (at, fault) = told(&job(""), Format::Protobuf, page).unwrap_err();
        assert!(at == 2 && matches!(fault, Fault::Malformed(_)), "{at} {fault:?}");
    }
}

#[test]
fn a_long_description_of_many_scopes_is_not_written_for_each_of_them_without_end() {
    let mut page = format!("# HELP a {}\n", "x".repeat(1 << 20));
    for scope in 0..1000 {
        writeln!(page, "a{{otel_scope_name=\"{scope}\"}} 1").unwrap();
    }
    let (job, labels) = (job(""), target_labels());
    let mut out = Page::new(&job, &labels, "http", NOW);
    text::read(page.as_bytes(), false, &mut out).unwrap();
    assert!(matches!(out.write(&mut Sheet::default()), Err(Fault::Limit(text)) if text.contains("256 MiB")));
}

#[test]
fn labels_of_many_buckets_are_not_copied_without_end() {
    // On a page of protobuf they stand once, and each bucket of two bytes has them.
    let label = [b"\x0a\x01x\x12\x80\x80\x40".as_slice(), "x".repeat(1 << 20).as_bytes()].concat();
    let buckets = b"\x1a\x00".repeat(2000);
    let histogram = [message(7, &buckets), Vec::new()].concat();
    let metric = [message(1, &label), histogram].concat();
    let family = [b"\x0a\x01a\x18\x04".as_slice(), &message(4, &metric)].concat();
    let mut page = Vec::new();
    crate::otlp::wire::put_varint(&mut page, family.len() as u64);
    page.extend_from_slice(&family);
    let (_, fault) = told(&job(""), Format::Protobuf, &page).unwrap_err();
    assert!(matches!(&fault, Fault::Limit(text) if text.contains("1 GiB")), "{fault:?}");
}

#[test]
fn a_resource_has_as_many_attributes_as_one_series_may_have_labels() {
    let mut page = String::new();
    for number in 0..3000 {
        writeln!(page, "target_info{{l{number}=\"1\"}} 1").unwrap();
    }
    let (job, labels) = (job(""), target_labels());
    let mut out = Page::new(&job, &labels, "http", NOW);
    text::read(page.as_bytes(), false, &mut out).unwrap();
    assert!(out.lost.contains(&(3000 - 1024)), "{:?}", out.lost);
}

fn message(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    crate::otlp::wire::put_varint(&mut out, content.len() as u64);
    out.extend_from_slice(content);
    out
}
