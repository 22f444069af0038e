//! What the settings may say, and what is said of them.

use super::*;
use crate::{
    config::{Input, Level, Machine, load},
    receivers::prometheus::job::{BODY_BYTES_MAX, Protocol, accept},
};

/// Errors and keys without effect, with line and column.
fn problems(yaml: &str) -> Vec<String> {
    let loaded = load(&[Input::Text { name: "test.yaml".to_owned(), text: yaml.to_owned() }], &Machine);
    assert!(!loaded.found.has_errors(), "{:?}", loaded.found);
    let mut found = Diagnostics::default();
    jobs(&loaded.node, &mut found);
    let line = |one: &crate::config::Diagnostic| {
        let place = loaded.sources.place(one.origin).unwrap();
        let level = if one.level == Level::Error { "error" } else { "no effect" };
        format!("{}:{} {level}: {} ({})", place.line, place.column, one.message, one.help.as_deref().unwrap_or_default())
    };
    found.found.iter().map(line).collect()
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let yaml = "\
config:
  global:
    scrape_interval: 1x
    query_log_file: /tmp/x
  rule_files: [a]
  scrape_configs:
    - job_name: a
      scrape_timeuot: 5s
      kubernetes_sd_configs: [{role: pod}]
      static_configs: [{targets: [\"http://h:1/metrics\"]}]
    - job_name: a
      scrape_interval: 5s
      scrape_timeout: 10s
      scheme: ftp
      relabel_configs:
        - {action: kep, source_labels: [a], regex: b}
      dns_sd_configs: [{names: [x]}, {names: [y], type: A}]
      file_sd_configs: [{files: [\"*/x.txt\"]}]
      http_sd_configs: [{url: \"h:1\", refresh_intervall: 1m}]
      oauth2: {client_id: x}
      basic_auth: {username: u, password: p, password_file: /f}
      bearer_token: t
target_allocator: {endpoint: x}
api_server: {enabled: true}
";
    let found = problems(yaml).join("\n");
    for wanted in [
        "3:22 error: ",
        "4:21 no effect: `query_log_file` has no effect",
        "5:3 error: the receiver does not do `rule_files`",
        "8:7 error: ",
        "did you mean `scrape_timeout`?",
        "9:7 error: weir does not find targets by `kubernetes_sd_configs`",
        "10:35 error: `http://h:1/metrics` is not host:port",
        "11:17 error: there are two jobs `a`",
        "13:23 error: `scrape_timeout` (10s) is longer than the interval (5s)",
        "14:15 error: `ftp` is neither http nor https",
        "16:20 error: `kep` is not an action of relabelling (did you mean `keep`?)",
        "without `type` it asks for SRV records",
        "addresses need a port",
        "18:34 error: `*/x.txt` is not a path of a list of targets",
        "19:38 error: there is no key `refresh_intervall`",
        "needs a scheme",
        "20:7 error: weir does not fetch OAuth 2.0 tokens",
        "`password` and `password_file` are both set",
        "exclude one another",
        "23:1 error: weir does not ask a target allocator",
        "24:1 error: weir has no API of Prometheus",
    ] {
        assert!(found.contains(wanted), "{wanted} in\n{found}");
    }
    assert!(!found.contains("line 3: "));
}

#[test]
fn nothing_to_scrape_is_an_error() {
    assert!(problems("{}")[0].contains("nothing to scrape"));
    assert!(problems("config: {global: {scrape_interval: 5s}}")[0].contains("no `scrape_configs`"));
    assert!(problems("config: {scrape_configs: []}")[0].contains("no `scrape_configs`"));
}

#[test]
fn global_is_what_a_job_does_not_say() {
    let yaml = "
config:
  global: {scrape_interval: 2m, scrape_timeout: 1m, sample_limit: 7, label_limit: 3, body_size_limit: 1MB, external_labels: {zone: 1}}
  scrape_configs:
    - {job_name: a}
    - {job_name: b, scrape_interval: 30s, sample_limit: 9, body_size_limit: 1TB, scrape_native_histograms: true, params: {a: [1, b c]}}
";
    let jobs = read(yaml);
    let [a, b] = jobs.as_slice() else { panic!() };
    assert_eq!((a.interval.as_secs(), a.timeout.as_secs(), a.limits.samples, a.limits.labels), (120, 60, 7, 3));
    assert_eq!((b.interval.as_secs(), b.timeout.as_secs(), b.limits.samples), (30, 30, 9));
    assert_eq!((a.limits.body_bytes, b.limits.body_bytes), (1 << 20, BODY_BYTES_MAX));
    assert_eq!(a.external_labels, [("zone".to_owned(), "1".to_owned())]);
    assert_eq!((a.protocols[0], b.protocols[0]), (Protocol::OpenMetrics1, Protocol::Protobuf));
    assert_eq!(crate::receivers::prometheus::web::query(&b.params), "a=1&a=b+c");
    let usual = job("");
    assert_eq!((usual.interval.as_secs(), usual.timeout.as_secs(), usual.limits.samples), (60, 10, u64::MAX));
    assert_eq!(
        (usual.metrics_path.as_str(), usual.honor_labels, usual.honor_timestamps, usual.compression),
        ("/metrics", false, true, true)
    );
}

#[test]
fn what_is_wanted_most_is_asked_for_first() {
    let value = accept(&[Protocol::Protobuf, Protocol::Text0], "allow-utf-8");
    let expected = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.3,\
                    text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    assert_eq!(value, expected);
}

/// As the Collector reads it: `$$` is a dollar, and so is one that begins no reference.
#[test]
fn dollars_of_replacements_are_written_twice() {
    for written in ["$$1_x", "$1_x", "$${1}_x"] {
        let yaml = format!(
            "config: {{scrape_configs: [{{job_name: j, relabel_configs: [{{source_labels: [a], target_label: b, replacement: '{written}'}}]}}]}}"
        );
        let replacement = read(&yaml).remove(0).relabel.remove(0).replacement;
        assert_eq!(replacement, written.replace("$$", "$"));
    }
}

#[test]
fn texts_may_be_numbers() {
    assert_eq!(job("static_configs: [{targets: [h:1], labels: {port: 80, on: true}}]").sources.len(), 1);
}
