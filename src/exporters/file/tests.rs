//! Against a real directory; bodies are read back with prost and serde.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::{
    component::Extensions,
    signal::UnixNanos,
    transport::client::testing::{batch, build_context, node, span_names, traces},
};

/// 2023-11-14 22:13:20.123 UTC
const NOW: u64 = 1_700_000_000_123_456_789;

fn read(yaml: &str) -> (Config, Diagnostics) {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(yaml), &mut found);
    (config, found)
}

async fn started(yaml: &str) -> Arc<dyn Exporter> {
    let (config, found) = read(yaml);
    assert!(!found.has_errors(), "{found:?}");
    let mut context = build_context(Extensions::default());
    context.clock = Clock::new(|| UnixNanos(NOW));
    let exporter = config.build(context).unwrap();
    exporter.start(Shutdown::new()).await.unwrap();
    exporter
}

async fn export(exporter: &Arc<dyn Exporter>, names: &[&str]) {
    assert_eq!(exporter.export(Request::of(batch(traces(names), names.len() as u64))).await, Outcome::DELIVERED);
}

fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        found.push(frame.to_vec());
        bytes = rest;
    }
    found
}

fn span_name(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"].as_str().unwrap().to_owned()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn writes_an_object_a_line() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out.json");
    fs::write(&path, "old\n").unwrap();
    let exporter = started(&format!("path: {}", path.display())).await;
    export(&exporter, &["a"]).await;
    // On disk before the exporter says so.
    assert_eq!(span_name(&fs::read_to_string(&path).unwrap()), "a");
    export(&exporter, &["b\nc"]).await;
    exporter.finish().await;
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().map(span_name).collect::<Vec<_>>(), ["a", "b\nc"]);
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn several_batches_are_one_object() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out.json");
    let exporter = started(&format!("path: {}", path.display())).await;
    let mut request = Request::of(batch(traces(&["a"]), 1));
    request.parts.push(batch(traces(&["b"]), 1));
    assert_eq!(exporter.export(request).await, Outcome::DELIVERED);
    let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(value["resourceSpans"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn writes_protobuf_behind_its_length() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out.bin");
    let exporter = started(&format!("{{path: {}, format: proto}}", path.display())).await;
    export(&exporter, &["a"]).await;
    export(&exporter, &["b"]).await;
    assert_eq!(frames(&fs::read(&path).unwrap()), [traces(&["a"]), traces(&["b"])]);
}

#[tokio::test]
async fn compresses_each_request_by_itself() {
    let directory = TempDir::new().unwrap();
    for format in ["json", "proto"] {
        let path = directory.path().join(format);
        let exporter = started(&format!("{{path: {}, format: {format}, compression: zstd}}", path.display())).await;
        export(&exporter, &["a"]).await;
        export(&exporter, &["b"]).await;
        let found: Vec<_> = frames(&fs::read(&path).unwrap())
            .iter()
            .map(|frame| zstd::decode_all(&frame[..]).unwrap())
            .map(
                |body| {
                    if format == "json" { span_name(std::str::from_utf8(&body).unwrap()) } else { span_names(&body).join(",") }
                },
            )
            .collect();
        assert_eq!(found, ["a", "b"]);
    }
}

#[tokio::test]
async fn appends_where_the_file_says_so() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out.json");
    for name in ["a", "b"] {
        let exporter = started(&format!("{{path: {}, append: true}}", path.display())).await;
        export(&exporter, &[name]).await;
    }
    assert_eq!(fs::read_to_string(&path).unwrap().lines().map(span_name).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn puts_full_files_aside_and_deletes_the_oldest() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out.json");
    let exporter = started(&format!("{{path: {}, rotation: {{max_megabytes: 1, max_backups: 2}}}}", path.display())).await;
    fs::write(directory.path().join("out-notes.json"), "kept").unwrap();
    let long = "x".repeat(600 * 1024);
    for at in 0..5 {
        export(&exporter, &[&format!("{at}{long}")]).await;
    }
    // All within one millisecond of the clock: the names are told apart.
    let expected = ["out-2023-11-14T22-13-20.125.json", "out-2023-11-14T22-13-20.126.json", "out-notes.json", "out.json"];
    assert_eq!(names(directory.path()), expected);
    assert!(span_name(&fs::read_to_string(&path).unwrap()).starts_with('4'));
    assert!(span_name(&fs::read_to_string(directory.path().join(expected[1])).unwrap()).starts_with('3'));
}

#[tokio::test]
async fn deletes_rotated_files_by_age() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out.json");
    for stamp in ["2023-11-12T22-13-20.000", "2023-11-14T00-00-00.000"] {
        fs::write(directory.path().join(format!("out-{stamp}.json")), "").unwrap();
    }
    let exporter = started(&format!("{{path: {}, rotation: {{max_megabytes: 1, max_days: 1}}}}", path.display())).await;
    let long = "x".repeat(600 * 1024);
    export(&exporter, &[&long]).await;
    export(&exporter, &[&long]).await;
    assert_eq!(names(directory.path()), ["out-2023-11-14T00-00-00.000.json", "out-2023-11-14T22-13-20.123.json", "out.json"]);
}

#[tokio::test]
async fn makes_the_directory_only_where_told_to() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a/b/out.json");
    let (config, _) = read(&format!("path: {}", path.display()));
    let error = config.build(build_context(Extensions::default())).err().unwrap().to_string();
    assert!(error.contains("cannot open") && error.contains("out.json"), "{error}");
    let exporter = started(&format!("{{path: {}, create_directory: true}}", path.display())).await;
    export(&exporter, &["a"]).await;
    assert!(path.exists());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_retried_and_nothing_is_lost() {
    // Linux's disk without room.
    let exporter = started("{path: /dev/full, append: true}").await;
    let outcome = exporter.export(Request::of(batch(traces(&["a"]), 1))).await;
    let Outcome::Retry { reason, cause: RetryCause::Blocked, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("cannot write to /dev/full"), "{reason}");
}

#[test]
fn a_message_that_fits_only_half_leaves_no_trace() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out.json");
    let rules = Rules { path: path.clone(), rotation: None, truncate: true, directory: None };
    let mut output = Output::new(rules);
    output.write(b"first\n", UnixNanos(NOW)).unwrap();
    output.fail_next_after(3);
    output.write(b"second\n", UnixNanos(NOW)).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"first\n");
    output.write(b"second\n", UnixNanos(NOW)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first\nsecond\n");
}

#[test]
fn says_what_cannot_work() {
    for (yaml, expected) in [
        ("{}", "a path is required"),
        ("{path: x, format: xml}", "xml"),
        ("{path: x, compression: gzip}", "`gzip` is not a compression"),
        ("{path: x, append: true, rotation: {}}", "does not go with `rotation`"),
        ("{path: x, append: true, compression: zstd}", "does not go with `compression`"),
        ("{path: x, group_by: {enabled: true}}", "into one file"),
        ("{path: x, encoding: text}", "no encoding extensions"),
        ("{path: x, create_directory: true, directory_permissions: '999'}", "not an octal number"),
        ("{path: x, rotation: {max_megabytes: 0}}", "leaves no room"),
    ] {
        let (_, found) = read(yaml);
        assert!(found.has_errors() && found.found.iter().any(|d| d.message.contains(expected)), "{yaml}: {found:?}");
    }
    let (_, found) = read("{path: x, flush_interval: 1s}");
    assert!(!found.has_errors() && found.found[0].message.contains("flush_interval"), "{found:?}");
}
