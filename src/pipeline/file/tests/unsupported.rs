//! What is left out of a file, and what may not be.

use super::{TABLES, loaded};
use crate::{
    config::{Diagnostics, DumpFormat, DumpMode, Input, Machine, dump, load_unexpanded},
    pipeline::file::{File, LeftOut, migrate, strip},
};

const FILE: &str = "\
receivers:
  otlp: {size: 1}
  otlp/private: {auth: {authenticator: oidc}}
  kafka: {brokers: ['${env:BROKER:-b:9092}']}
processors:
  batch: {size: 2, sise: 3}
  k8s_attributes:
  redaction: {allow_all_keys: true}
  filter/unused:
exporters:
  debug: {verbosity: '${env:VERBOSITY:-detailed}'}
  otlp: {sending_queue: {storage: redis_storage}}
  datadog: {api: {key: '${env:DD_KEY:-x}'}}
connectors:
  red:
  routing: {table: []}
extensions:
  health_check:
  oidc: {issuer_url: https://x}
  redis_storage: {endpoint: r:1}
service:
  extensions: [health_check, oidc, redis_storage]
  telemetry: {logs: {level: '${env:LEVEL:-info}'}}
  pipelines:
    traces: {receivers: [otlp, kafka], processors: [k8s_attributes, redaction, batch], exporters: [debug, red]}
    traces/private: {receivers: [otlp/private], exporters: [otlp]}
    metrics: {receivers: [red], exporters: [datadog]}
    logs: {receivers: [kafka], exporters: [otlp]}
    logs/routed: {receivers: [routing], exporters: [debug]}
    profiles: {receivers: [otlp], exporters: [debug]}
";

fn what(left_out: &[LeftOut]) -> Vec<&str> {
    left_out.iter().map(|left| left.what.as_str()).collect()
}

#[test]
fn leaves_out_what_weir_lacks_and_what_cannot_work_without_it() {
    let (rest, left_out) = strip(&loaded(FILE).node, &TABLES, &[]);
    assert_eq!(
        what(&left_out),
        [
            "receivers::kafka",
            "processors::k8s_attributes",
            "processors::redaction",
            "processors::filter/unused",
            "connectors::routing",
            "exporters::datadog",
            "extensions::oidc",
            "extensions::redis_storage",
            "service::pipelines::profiles",
            "exporters::otlp::sending_queue::storage",
            "receivers::otlp/private",
            "service::pipelines::traces/private",
            "service::pipelines::metrics",
            "service::pipelines::logs",
            "service::pipelines::logs/routed",
            "service::pipelines::traces::exporters::red",
        ]
    );
    let mut found = Diagnostics::default();
    let file = File::check(&rest, &TABLES, &mut found).unwrap();
    assert!(!found.has_errors(), "{found:#?}");
    let [traces] = &file.pipelines[..] else { panic!("{:?}", file.pipelines) };
    assert_eq!(traces.receivers.len() + traces.processors.len() + traces.exporters.len(), 3);
    assert_eq!(file.service_extensions.len(), 1);
    let change = |what: &str| left_out.iter().find(|left| left.what == what).unwrap().change.clone();
    assert!(change("processors::redaction").starts_with("data that it removed, masked or sampled away passes now"));
    assert!(change("receivers::otlp/private").contains("requests that `oidc` does not check"));
    assert_eq!(change("processors::filter/unused"), "nothing: no pipeline uses it");
    assert!(change("service::pipelines::metrics").contains("no exporter left"));
}

#[test]
fn what_protects_data_goes_only_when_it_is_named() {
    let node = loaded(FILE).node;
    let protects = |allow: &[&str]| {
        let allow: Vec<String> = allow.iter().map(|&name| name.to_owned()).collect();
        let (_, left_out) = strip(&node, &TABLES, &allow);
        left_out.into_iter().filter_map(|left| left.protects).collect::<Vec<_>>()
    };
    assert_eq!(protects(&[]), ["redaction"]);
    assert_eq!(protects(&["redaction"]), Vec::<String>::new());
    assert_eq!(protects(&["redaction/x"]), ["redaction"]);
}

#[test]
fn a_file_that_needs_nothing_left_out_stays_as_it_is() {
    let node = loaded("receivers: {otlp: }\nexporters: {debug: }\nprocessors: {}\nservice: {pipelines: {traces: {receivers: [otlp], exporters: []}}}").node;
    assert_eq!(strip(&node, &TABLES, &[]), (node, Vec::new()));
}

#[test]
fn migrates_to_a_file_that_runs_and_keeps_its_references() {
    let written = load_unexpanded(&[Input::Text { name: "test.yaml".to_owned(), text: FILE.to_owned() }], &Machine);
    let migrated = migrate(&loaded(FILE), &written, &TABLES);
    assert!(!migrated.found.has_errors(), "{:#?}", migrated.found);
    assert!(what(&migrated.left_out).contains(&"processors::batch::sise"));
    assert_eq!(
        migrated.yaml,
        "receivers:\n  otlp:\n    size: 1\nprocessors:\n  batch:\n    size: 2\nexporters:\n  debug:\n    verbosity: ${env:VERBOSITY:-detailed}\n  otlp:\n    sending_queue: {}\nconnectors:\n  red:\nextensions:\n  health_check:\nservice:\n  extensions:\n    - health_check\n  telemetry:\n    logs:\n      level: ${env:LEVEL:-info}\n  pipelines:\n    traces:\n      receivers:\n        - otlp\n      processors:\n        - batch\n      exporters:\n        - debug\n"
    );
    let text = migrated.text("a\nb.yaml");
    assert!(
        text.starts_with("# What runs in weir ")
            && text.contains(" of a b.yaml.\n# Left out, and what that changes:\n#   receivers::kafka ")
    );
    assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), 2 + migrated.left_out.len());
    let again = loaded(&text);
    assert_eq!(strip(&again.node, &TABLES, &[]).1, []);
    let mut found = Diagnostics::default();
    File::check(&again.node, &TABLES, &mut found).unwrap();
    assert!(!found.has_errors(), "{found:#?}");
    assert!(dump(&again.node, DumpMode::Unredacted, DumpFormat::Yaml).contains("verbosity: detailed"));
}
