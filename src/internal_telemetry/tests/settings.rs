//! What `service::telemetry` comes to.

use std::time::Duration;

use crate::{
    config::{Diagnostics, Input, Level, Machine, load},
    internal_telemetry::{
        LogEncoding, LogLevel, OtlpProtocol, PullReader, Reader, SpanProcessor, TelemetrySettings, settings::INEFFECTIVE,
    },
};

fn reads(text: &str) -> (TelemetrySettings, Diagnostics) {
    let mut loaded = load(&[Input::Text { name: "test".to_owned(), text: text.to_owned() }], &Machine);
    let settings = TelemetrySettings::read(&loaded.node, &mut loaded.found);
    (settings, loaded.found)
}

#[track_caller]
fn reads_well(text: &str) -> TelemetrySettings {
    let (settings, found) = reads(text);
    assert!(found.found.is_empty(), "{found:?}");
    settings
}

fn endpoints(settings: &TelemetrySettings) -> Vec<&str> {
    settings
        .readers
        .iter()
        .map(|reader| match reader {
            Reader::Pull(pull) => pull.endpoint.as_str(),
            Reader::Periodic { target, .. } => target.endpoint.as_str(),
        })
        .collect()
}

#[test]
fn without_a_word_there_is_a_page_and_a_console() {
    for text in ["{}", "metrics:", "logs: {}\nmetrics: {level: normal}", "traces: {processors: []}"] {
        let settings = reads_well(text);
        assert_eq!(settings.readers, [Reader::Pull(PullReader::default())], "{text}");
        assert_eq!(settings.page().unwrap().endpoint, "localhost:8888");
        assert_eq!((settings.logs.level, settings.logs.encoding), (LogLevel::Info, LogEncoding::Console), "{text}");
        assert_eq!(settings.logs.output_paths, ["stderr"]);
        assert_eq!(settings.logs.sampling.unwrap().initial, 10);
        assert!(settings.spans.is_empty());
    }
}

#[test]
fn logs_are_as_written() {
    let settings = reads_well(
        "logs:
  level: WARN
  encoding: json
  output_paths: [stdout, /tmp/weir.log]
  initial_fields: {site: lab, rack: 7}
  sampling: {initial: 3, tick: 1m}",
    );
    let logs = settings.logs;
    assert_eq!((logs.level, logs.encoding), (LogLevel::Warn, LogEncoding::Json));
    assert_eq!(logs.output_paths, ["stdout", "/tmp/weir.log"]);
    assert_eq!(logs.initial_fields["rack"], "7");
    let sampling = logs.sampling.unwrap();
    assert_eq!((sampling.initial, sampling.thereafter, sampling.tick.0), (3, 100, Duration::from_mins(1)));
    assert!(reads_well("logs: {sampling: {enabled: false}}").logs.sampling.is_none());
}

#[test]
fn readers_replace_the_page() {
    let settings = reads_well(
        "metrics:
  readers:
    - pull: {exporter: {prometheus: {host: '::1', port: 9999, without_type_suffix: false,
        with_resource_constant_labels: {included: [service.name]}}}}
    - periodic: {interval: 5000, exporter: {otlp: {protocol: http/protobuf, endpoint: 'http://backend:4318',
        headers: [{name: x-token, value: abc}], temporality_preference: delta}}}",
    );
    assert_eq!(endpoints(&settings), ["[::1]:9999", "http://backend:4318/v1/metrics"]);
    let Reader::Pull(pull) = &settings.readers[0] else { unreachable!() };
    assert!(!pull.style.without_type_suffix && pull.style.without_units);
    assert_eq!(pull.style.constant_labels.included, ["service.name"]);
    let Reader::Periodic { interval, target } = &settings.readers[1] else { unreachable!() };
    assert_eq!(*interval, Duration::from_secs(5));
    assert_eq!((target.protocol, target.headers["x-token"].as_str(), target.delta), (OtlpProtocol::HttpProtobuf, "abc", true));
}

#[test]
fn level_none_shows_nothing() {
    assert!(reads_well("metrics: {level: none}").readers.is_empty());
    let one = "processors: [{simple: {exporter: {otlp_grpc: {}}}}]";
    assert!(reads_well(&format!("traces: {{level: none, {one}}}")).spans.is_empty());
}

#[test]
fn the_old_address_loads_with_a_warning() {
    let (settings, found) = reads("metrics: {address: '0.0.0.0:7777'}");
    assert_eq!(endpoints(&settings), ["0.0.0.0:7777"]);
    assert_eq!(found.found.iter().map(|one| one.level).collect::<Vec<_>>(), [Level::Warning]);
}

#[test]
fn spans_go_where_the_file_says() {
    let settings = reads_well(
        "traces:
  processors:
    - batch: {schedule_delay: 100, max_queue_size: 10, exporter: {otlp: {protocol: grpc, endpoint: 'localhost:4317', headers_list: 'a=b, c=d'}}}
    - simple: {exporter: {otlp_http: {encoding: json, endpoint: 'http://x/custom'}}}",
    );
    let [SpanProcessor::Batch { delay, batch_size_max, target, .. }, SpanProcessor::Simple { target: simple }] =
        &settings.spans[..]
    else {
        unreachable!()
    };
    // A batch larger than the queue can never fill.
    assert_eq!((*delay, *batch_size_max), (Duration::from_millis(100), 10));
    assert_eq!((target.endpoint.as_str(), target.headers["c"].as_str()), ("http://localhost:4317", "d"));
    assert_eq!((simple.protocol, simple.endpoint.as_str()), (OtlpProtocol::HttpJson, "http://x/custom"));
}

#[test]
fn the_resource_is_read_in_both_spellings() {
    for text in [
        "resource: {service.name: edge, service.instance.id: null, rack: 7}",
        "resource: {attributes: [{name: service.name, value: edge}, {name: service.instance.id}, {name: rack, value: 7}]}",
    ] {
        let attributes = reads_well(text).identity.attributes;
        assert_eq!(attributes["service.name"], "edge", "{text}");
        assert_eq!(attributes["rack"], "7");
        assert!(!attributes.contains_key("service.instance.id"));
        assert!(attributes.contains_key("service.version"));
    }
}

#[test]
fn each_key_without_effect_is_named() {
    for (path, instead) in INEFFECTIVE {
        let (section, key) = path.split_once("::").unwrap();
        let (_, found) = reads(&format!("{section}: {{{key}: []}}"));
        let [one] = &found.found[..] else { panic!("{path}: {found:?}") };
        assert_eq!(one.level, Level::Ineffective);
        assert!(one.message.contains(path) && one.help.as_deref() == Some(instead), "{one:?}");
    }
    let (_, found) = reads("metrics: {level: detailed}");
    assert_eq!(found.found.len(), 1);
}

#[test]
fn what_cannot_work_is_an_error() {
    for text in [
        "metrics: {readers: []}",
        "metrics: {readers: [{}]}",
        "metrics: {reader: []}",
        "logs: {level: loud}",
        "traces: {processors: [{}]}",
        "metrics: {readers: [{periodic: {exporter: {otlp: {endpoint: 'https://x'}}}}]}",
        "metrics: {readers: [{periodic: {exporter: {otlp: {protocol: carrier-pigeon}}}}]}",
    ] {
        let (_, found) = reads(text);
        assert!(found.has_errors(), "{text}: {found:?}");
    }
    // An exporter that the schema knows and we do not have does not stop the file.
    let (settings, found) = reads("metrics: {readers: [{periodic: {exporter: {console: {}}}}]}");
    assert!(settings.readers.is_empty() && !found.has_errors() && found.found.len() == 1, "{found:?}");
}
