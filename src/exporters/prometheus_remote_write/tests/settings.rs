//! The keys, and what is said of those that do not fit.

use super::*;
use crate::config::Level;

fn read(yaml: &str) -> (Config, Vec<String>) {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(yaml), &mut found);
    let said = found.found.iter().map(|it| format!("{:?}: {}", it.level, it.message)).collect();
    (config, said)
}

#[test]
fn a_file_for_the_collector_loads() {
    let (config, said) = read(
        "endpoint: https://mimir:9009/api/v1/push\nnamespace: n\nexternal_labels: {a: b}\nheaders: {X-Scope-OrgID: t}\n\
         resource_to_telemetry_conversion: {enabled: true}\ntarget_info: {enabled: false}\nsend_metadata: true\n\
         max_batch_size_bytes: 1000000\nmax_batch_request_parallelism: 2\nprotobuf_message: prometheus.WriteRequest\n\
         retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}\nremote_write_queue: {enabled: true, queue_size: 500, num_consumers: 3}\n\
         tls: {server_name_override: m}\ntimeout: 10s\n",
    );
    assert_eq!(said, Vec::<String>::new());
    let delivery = config.delivery();
    assert!(delivery.in_order && delivery.timeout.is_none());
    assert_eq!(delivery.queue.unwrap().queue_size, Some(500));
    assert_eq!((config.0.lanes, config.0.bytes_max, config.0.timeout.as_secs()), (2, 1_000_000, 10));
}

#[test]
fn the_nested_client_block_is_read() {
    let (config, said) = read("http: {endpoint: 'http://p:9090/api/v1/write', headers: {a: b}}");
    assert_eq!((said, config.0.client.endpoint.as_str()), (Vec::new(), "http://p:9090/api/v1/write"));
}

#[test]
fn what_has_no_effect_is_said() {
    let (_, said) = read(
        "endpoint: http://p:9090/api/v1/write\nwal: {directory: /tmp}\nsending_queue: {enabled: true}\n\
         export_created_metric: {enabled: true}\ncompression: gzip\ntranslation_strategy: NoTranslation\nadd_metric_suffixes: false\n",
    );
    assert_eq!(said.len(), 5, "{said:#?}");
    assert!(said.iter().all(|said| said.starts_with(&format!("{:?}", Level::Ineffective))), "{said:#?}");
}

#[test]
fn what_cannot_be_is_an_error() {
    let cases = [
        ("{}", "`endpoint` says where to write"),
        ("endpoint: http://p/api/v1/write\nprotobuf_message: v3", "no message of remote write"),
        ("endpoint: http://p/api/v1/write\nremote_write_queue: {queue_size: 0}", "takes nothing"),
        ("endpoint: http://p/api/v1/write\nremote_write_queue: {num_consumers: 0}", "cannot be"),
        ("endpoint: http://p/api/v1/write\nmax_batch_size_bytes: 10", "from 1 KiB"),
        ("endpoint: http://p/api/v1/write\nexternal_label: {a: b}", "external_label"),
        ("endpoint: http://p/api/v1/write\nexternal_labels: {le: b}", "`le` is no label to choose freely"),
        ("endpoint: http://p/api/v1/write\nhttp: {endpont: x}", "endpont"),
    ];
    for (yaml, expected) in cases {
        let (_, said) = read(yaml);
        assert!(said.iter().any(|said| said.starts_with("Error") && said.contains(expected)), "{yaml}: {said:#?}");
    }
    let (_, said) = read("endpoint: http://p:9090");
    assert!(said[0].starts_with("Warning") && said[0].contains("has no path"), "{said:?}");
}
