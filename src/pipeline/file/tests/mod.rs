//! Files against a small set of components; what is refused is what `otelcol validate` (0.155) refuses.

mod components;
mod unsupported;

use super::{File, JournalMode, PipelineEntry};
use crate::config::{Input, Level, Loaded, Machine, load};
use components::TABLES;

fn loaded(yaml: &str) -> Loaded {
    load(&[Input::Text { name: "test.yaml".to_owned(), text: yaml.to_owned() }], &Machine)
}

fn check(yaml: &str) -> (Option<File>, Vec<String>) {
    let mut loaded = loaded(yaml);
    let mut found = std::mem::take(&mut loaded.found);
    let file = File::check(&loaded.node, &TABLES, &mut found);
    let told = found
        .found
        .iter()
        .map(|diagnostic| {
            let place = loaded.sources.place(diagnostic.origin).unwrap();
            let level = match diagnostic.level {
                Level::Error => "error",
                Level::Warning => "warning",
                Level::Ineffective => "ineffective",
            };
            let help = diagnostic.help.as_ref().map(|help| format!(" | {help}")).unwrap_or_default();
            format!("{level} {}:{} {}{help}", place.line, place.column, diagnostic.message)
        })
        .collect();
    (file, told)
}

/// A file around `pipelines`, with receivers, exporters, processors and connectors to name there.
fn around(pipelines: &str) -> String {
    format!(
        "receivers: {{otlp: , otlp/2: , scrape: }}\nprocessors: {{batch: , batch/2: , tail: }}\nexporters: {{debug: , prometheus: , otlp: , otlp_grpc: }}\n\
         connectors: {{red: , red/2: , forward: , forward/2: }}\nextensions: {{health_check: }}\nservice:\n  pipelines:\n{pipelines}"
    )
}

/// What is said about `pipelines` beyond the older name of `otlp`.
fn told(pipelines: &str) -> Vec<String> {
    let (_, mut told) = check(&around(pipelines));
    told.retain(|line| !line.contains("older name"));
    told
}

#[test]
fn takes_what_the_collector_takes() {
    for pipelines in [
        "    traces: {receivers: [otlp], exporters: [debug]}",
        "    traces: {receivers: [otlp, otlp/2], processors: [batch, batch/2], exporters: [debug, otlp]}",
        "    traces: {receivers: [otlp, otlp], exporters: [debug, debug]}",
        "    traces: {receivers: ['otlp '], processors: , exporters: [debug]}",
        "    traces: {receivers: [otlp], exporters: [otlp, otlp_grpc]}",
        "    traces/a-b.c/d: {receivers: [otlp], exporters: [debug]}",
        "    traces: {receivers: [otlp], exporters: [red]}\n    metrics: {receivers: [red], exporters: [prometheus]}",
        "    traces: {receivers: [otlp], exporters: [forward]}\n    traces/2: {receivers: [forward], exporters: [debug]}",
        "    traces: {receivers: [otlp], exporters: [forward]}\n    traces/2: {receivers: [forward], exporters: [forward/2, red]}\n    \
         traces/3: {receivers: [forward/2], exporters: [debug]}\n    metrics: {receivers: [red], exporters: [debug]}",
    ] {
        assert_eq!(told(pipelines), Vec::<String>::new(), "{pipelines}");
    }
}

#[test]
fn resolves_ids_to_rows_and_keeps_their_order() {
    let (file, _) = check(&around(
        "    traces/x: {receivers: [otlp, otlp], processors: [batch/2, batch], exporters: [otlp, debug]}\n  extensions: [health_check]\n  telemetry: {logs: {level: debug}}",
    ));
    let file = file.unwrap();
    let PipelineEntry { id, receivers, processors, exporters, .. } = &file.pipelines[0];
    let names = |list: &[super::Reference]| list.iter().map(|reference| reference.id.to_string()).collect::<Vec<_>>();
    assert_eq!(
        (id.as_str(), names(receivers), names(processors), names(exporters)),
        (
            "traces/x",
            vec!["otlp".to_owned()],
            vec!["batch/2".to_owned(), "batch".to_owned()],
            vec!["otlp".to_owned(), "debug".to_owned()]
        )
    );
    let factory = |id: &str| file.exporters.iter().find(|declared| declared.id.as_str() == id).unwrap().factory;
    assert_eq!(factory("otlp"), factory("otlp_grpc"));
    assert_ne!(factory("otlp"), factory("debug"));
    assert_eq!(names(&file.service_extensions), ["health_check"]);
    assert!(file.telemetry.unwrap().get("logs").is_some());
    assert_eq!(file.journal.mode, JournalMode::Durable);
}

#[test]
fn says_what_is_wrong_with_a_pipeline() {
    for (pipelines, expected) in [
        (
            "    traces: {receivers: [otlpp], exporters: [debug]}",
            "error 8:26 the receiver `otlpp` is not declared | did you mean `otlp`?",
        ),
        (
            "    traces: {receivers: [kafka/x], exporters: [debug]}",
            "error 8:26 the receiver `kafka/x` is not declared | declare it: `receivers: {kafka/x: }`",
        ),
        (
            "    traces: {receivers: [debug], exporters: [debug]}",
            "error 8:26 the receiver `debug` is not declared | `debug` is declared in `exporters`",
        ),
        (
            "    traces: {receivers: [otlp], processors: [batsh], exporters: [debug]}",
            "error 8:46 the processor `batsh` is not declared | did you mean `batch`?",
        ),
        ("    traces: {exporters: [debug]}", "error 8:5 the pipeline `traces` needs at least one receiver"),
        ("    traces: {receivers: [otlp]}", "error 8:5 the pipeline `traces` needs at least one exporter"),
        ("    traces: {receivers: [], exporters: [debug]}", "error 8:14 the pipeline `traces` needs at least one receiver"),
        (
            "    traces: {receivers: [otlp], processors: [batch, batch], exporters: [debug]}",
            "error 8:53 the processor `batch` is twice in the pipeline `traces` | declare a second one under a name: `batch/2`",
        ),
        (
            "    traces: {receivers: otlp, exporters: [debug]}",
            "error 8:25 expected a list of component ids, found text | write a list: `[otlp]`",
        ),
        (
            "    traces: {receivers: [otlp], exporters: [debug], foo: 1}",
            "error 8:53 there is no key `foo` here | valid keys: `receivers`, `processors`, `exporters`",
        ),
        (
            "    traces: {receivers: [otlp], exporters: [debug], procesors: []}",
            "error 8:53 there is no key `procesors` here | did you mean `processors`?",
        ),
        ("    trace: {receivers: [otlp], exporters: [debug]}", "error 8:5 there is no signal `trace` | did you mean `traces`?"),
        (
            "    spans: {receivers: [otlp], exporters: [debug]}",
            "error 8:5 there is no signal `spans` | a pipeline is `traces`, `metrics` or `logs`",
        ),
        (
            "    profiles: {receivers: [otlp], exporters: [debug]}\n    traces: {receivers: [otlp], exporters: [debug]}",
            "error 8:5 weir takes traces, metrics and logs, and no profiles | leave the pipeline out; senders of profiles are answered that nobody takes them here",
        ),
        ("    traces: {receivers: [1], exporters: [debug]}", "error 8:26 expected a component id, found a number"),
        (
            "    traces: {receivers: [otlp], exporters: [prometheus]}",
            "error 8:45 the exporter `prometheus` does not handle traces | it handles `metrics`",
        ),
        (
            "    logs: {receivers: [otlp], processors: [tail], exporters: [debug]}",
            "error 8:44 the processor `tail` does not handle logs | it handles `traces`",
        ),
        ("    traces: 5", "error 8:13 a pipeline is a map, not a number"),
        (
            "    traces: {receivers: [otlp], exporters: [red]}",
            "error 8:45 the connector `red` ends the pipeline `traces` and starts none that fits | add `red` to the receivers of a pipeline of `metrics`",
        ),
        (
            "    metrics: {receivers: [red], exporters: [debug]}",
            "error 8:27 the connector `red` starts the pipeline `metrics` and ends none that fits | add `red` to the exporters of a pipeline of `traces`",
        ),
    ] {
        assert!(told(pipelines).iter().any(|line| line == expected), "{pipelines}\n{expected}\n{:#?}", told(pipelines));
        let errors = told(pipelines).len();
        assert!(
            errors == 1 || pipelines.contains(": 5") || pipelines.contains("[1]") || expected.contains("needs at least"),
            "{pipelines}\n{:#?}",
            told(pipelines)
        );
    }
    let both = told("    logs: {receivers: [otlp], exporters: [red]}\n    metrics: {receivers: [red], exporters: [debug]}");
    assert_eq!(both.len(), 2, "{both:#?}");
    assert!(both[0].contains("it leads traces to metrics"), "{both:#?}");
}

#[test]
fn tells_a_missing_component_apart_from_a_typo() {
    let file = "receivers: {otlp: , otpl: , kafka: , prometheus_simple: , filelog/x: }\nexporters: {debug: , datadog: }\nprocessors: {k8s_attributes: , redaction: , span_metrics: }\n\
                service: {pipelines: {traces: {receivers: [otlp, kafka, filelog/x], processors: [k8s_attributes, redaction], exporters: [debug]}}}";
    let (_, told) = check(file);
    for expected in [
        "error 1:21 there is no receiver `otpl` | did you mean `otlp`?",
        "error 1:29 `kafka` is a Collector receiver that weir does not have | keep a Collector for it that sends OTLP to weir's `otlp` receiver; `weir migrate` prints what runs without it",
        "warning 1:38 `prometheus_simple` is a Collector receiver that weir does not have; nothing uses `prometheus_simple`, it is left out | the `prometheus` receiver",
        "error 1:59 `filelog` is a Collector receiver that weir does not have | keep a Collector agent",
        "warning 2:22 `datadog` is a Collector exporter that weir does not have; nothing uses `datadog`",
        "error 3:14 `k8s_attributes` is a Collector processor that weir does not have | let the pods say",
        "error 3:32 `redaction` is a Collector processor that weir does not have",
        "warning 3:45 `span_metrics` is a Collector processor that weir does not have; nothing uses `span_metrics`, it is left out | use the connector `span_metrics`",
    ] {
        assert_eq!(told.iter().filter(|line| line.starts_with(expected)).count(), 1, "{expected}\n{told:#?}");
    }
    assert_eq!(told.len(), 8, "{told:#?}");
}

#[test]
fn says_where_a_component_belongs() {
    let (_, told) = check(
        "receivers: {otlp: }\nprocessors: {debug: }\nexporters: {debug: , nosuch: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
    );
    assert_eq!(told[0], "error 2:14 there is no processor `debug` | `debug` is an exporter: declare it in `exporters`");
    assert!(told[1].starts_with("error 3:22 there is no exporter `nosuch` | weir has `debug`, "), "{told:#?}");
}

#[test]
fn takes_older_names_with_one_warning_each() {
    let (_, told) = check(
        "receivers: {otlp: }\nexporters: {otlp: , otlp/b: , otlp_grpc/c: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [otlp, otlp/b, otlp_grpc/c]}}}",
    );
    assert_eq!(
        told,
        [
            "warning 2:13 `otlp` is the older name of the exporter `otlp_grpc` | it works; today one writes `otlp_grpc`, here and in the pipelines"
        ]
    );
}

#[test]
fn a_file_needs_receivers_exporters_and_pipelines() {
    for (file, expected) in [
        (
            "exporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
            "the file has no receivers",
        ),
        (
            "receivers: {otlp: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
            "the file has no exporters",
        ),
        (
            "receivers: \nexporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
            "1:1 the file has no receivers",
        ),
        ("receivers: {otlp: }\nexporters: {debug: }\n", "the file has no pipelines"),
        ("receivers: {otlp: }\nexporters: {debug: }\nservice: \n", "3:1 the file has no pipelines"),
        ("receivers: {otlp: }\nexporters: {debug: }\nservice: {pipelines: {}}\n", "3:11 the file has no pipelines"),
        ("receivers: {otlp: }\nexporters: {debug: }\nservice: {pipelines: [traces]}\n", "`pipelines` is a map, not a list"),
        ("receivers: {otlp: }\nexporters: {debug: }\nservice: []\n", "`service` is a map, not a list"),
        (
            "receivers: [otlp]\nexporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
            "`receivers` is a map of components, not a list",
        ),
        ("", "the file has no pipelines"),
    ] {
        let (_, told) = check(file);
        assert!(told.iter().any(|line| line.starts_with("error") && line.contains(expected)), "{file}\n{told:#?}");
    }
}

#[test]
fn checks_ids_keys_and_bodies() {
    let good = "\nexporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n";
    for (head, expected) in [
        ("receivers: {otlp: }\nrecievers: {}", "error 2:1 there is no section `recievers` | did you mean `receivers`?"),
        ("receivers: {otlp: }\nx-common: {}", "error 2:1 there is no section `x-common` | a file has"),
        ("receivers: {otlp: , 'otlp/a b': }", "error 1:21 `otlp/a b` is not a component id"),
        ("receivers: {otlp: , otlp/: }", "error 1:21 `otlp/` is not a component id"),
        ("receivers: {otlp: , 1: }", "error 1:21 `1` is not a component id"),
        ("receivers: {otlp: , ' otlp': }", "error 1:21 the receiver `otlp` is declared twice"),
        ("receivers: {otlp: 5}", "error 1:19 the settings of `otlp` are a map, not a number"),
        ("receivers: {otlp: []}", "error 1:13 the settings of `otlp` are a map, not a list"),
        ("receivers: {otlp: }\nprocessors: {batch: {sise: 3}}", "error 2:22 there is no key `sise` here | did you mean `size`?"),
        (
            "receivers: {otlp: }\nconnectors: {forward: }\nprocessors: {batch: }\nservice::extensions: [health_check]",
            "error 4:23 the extension `health_check` is not declared",
        ),
        ("receivers: {otlp: }\nservice::extensions: health_check", "error 2:22 expected a list of component ids"),
        (
            "receivers: {otlp: }\nservice::foo: 1",
            "error 2:1 there is no key `foo` here | valid keys: `extensions`, `pipelines`, `telemetry`",
        ),
        ("receivers: {otlp: }\nconnectors: {debug: , forward: }\n", "error 2:14 there is no connector `debug`"),
    ] {
        let (_, told) = check(&format!("{head}{good}"));
        assert_eq!(told.iter().filter(|line| line.starts_with("error")).count(), 1, "{head}\n{told:#?}");
        assert!(told.iter().any(|line| line.starts_with(expected)), "{head}\n{expected}\n{told:#?}");
    }
}

#[test]
fn refuses_a_connector_with_the_id_of_a_receiver_or_exporter() {
    let (_, told) = check(
        "receivers: {otlp: , both: }\nexporters: {debug: , both: }\nconnectors: {both: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
    );
    assert_eq!(
        told,
        [
            "error 3:14 `both` is the id of a connector and of a receiver | give one of them a name: `both/x`",
            "error 3:14 `both` is the id of a connector and of an exporter | give one of them a name: `both/x`",
        ]
    );
}

#[test]
fn refuses_circles() {
    for (pipelines, names) in [
        ("    traces: {receivers: [otlp, forward], exporters: [forward, debug]}", "traces → traces"),
        (
            "    traces/a: {receivers: [otlp, forward/2], exporters: [forward]}\n    traces/b: {receivers: [forward], exporters: [forward/2]}\n    traces/c: {receivers: [forward/2], exporters: [debug]}",
            "traces/",
        ),
    ] {
        let told = told(pipelines);
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].contains("run in a circle") && told[0].contains(names), "{told:#?}");
    }
    let two = told(
        "    traces/a: {receivers: [otlp, forward/2], exporters: [forward]}\n    traces/b: {receivers: [forward], exporters: [forward/2]}",
    );
    assert!(two[0].contains("traces/a → traces/b → traces/a") || two[0].contains("traces/b → traces/a → traces/b"), "{two:#?}");
}

#[test]
fn reads_the_journal_and_says_what_is_wrong_with_it() {
    let with =
        |journal: &str| check(&format!("{}\njournal: {journal}", around("    traces: {receivers: [otlp], exporters: [debug]}")));
    let (file, told) = with("{mode: buffered, max_size: 64MiB, max_lag: 1000}");
    let journal = file.unwrap().journal;
    assert_eq!((journal.max_size.unwrap().0, journal.max_lag.unwrap().0), (64 << 20, 1000));
    assert!(told.iter().all(|line| line.contains("older name")), "{told:#?}");
    for (journal, expected) in [
        ("{mode: disk}", "error 9:17 "),
        ("{mode: memory, directory: /x}", "ineffective 9:36 `directory` has no effect in `memory` mode"),
        ("{directory: ''}", "error 9:22 `directory` is empty"),
        ("{max_size: 0}", "error 9:21 `max_size` is less than 16MiB"),
        ("{max_lag: 0}", "error 9:20 `max_lag` must be more than nothing"),
        ("{max_size: 5 apples}", "error 9:21 expected a size such as 64MiB, found the text `5 apples`"),
        ("{max_sise: 1}", "error 9:11 there is no key `max_sise` here | did you mean `max_size`?"),
    ] {
        let (_, told) = with(journal);
        assert!(told.iter().any(|line| line.starts_with(expected)), "{journal}\n{told:#?}");
    }
}

#[test]
fn reads_older_spellings_with_a_warning() {
    let (file, told) = check(
        "receivers: {otlp: }\nexporters: {logging: {loglevel: debug}, logging/x: }\nextensions: {memory_ballast: {size_mib: 1}}\n\
         service: {extensions: [memory_ballast], telemetry: {metrics: {address: ':9999'}}, pipelines: {traces: {receivers: [otlp], exporters: [logging, logging/x]}}}",
    );
    let file = file.unwrap();
    assert_eq!(file.exporters.iter().map(|declared| declared.id.to_string()).collect::<Vec<_>>(), ["debug", "debug/x"]);
    assert_eq!(file.exporters[0].node.get("verbosity").unwrap().word().unwrap().as_ref(), "detailed");
    assert_eq!(file.pipelines[0].exporters.len(), 2);
    let telemetry = file.telemetry.unwrap();
    let prometheus =
        telemetry.get("metrics").unwrap().get("readers").unwrap().items()[0].nearest("pull::exporter::prometheus").clone();
    assert_eq!(prometheus.get("port").unwrap().value, crate::config::Value::Int(9999));
    assert_eq!(prometheus.get("host").unwrap().word().unwrap().as_ref(), "0.0.0.0");
    assert!(told.iter().all(|line| line.starts_with("warning")) && told.len() == 5, "{told:#?}");
    assert!(told[0].starts_with("warning 2:13 the exporter `logging` is today's `debug`"), "{told:#?}");
}

#[test]
fn extensions_stand_behind_those_that_they_name() {
    let order = |extensions: &str, service: &str| {
        let (file, _) = check(&format!(
            "receivers: {{otlp: }}\nexporters: {{debug: }}\nextensions: {{{extensions}}}\nservice:\n  extensions: [{service}]\n  pipelines:\n    traces: {{receivers: [otlp], exporters: [debug]}}"
        ));
        let ids = file.unwrap().service_extensions;
        ids.iter().map(|one| one.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let named = "health_check/a: {x: [{y: health_check/c}]}, health_check/b: , health_check/c: {x: health_check/b}";
    assert_eq!(order(named, "health_check/a, health_check/b, health_check/c"), "health_check/b health_check/c health_check/a");
    assert_eq!(order(named, "health_check/c, health_check/a"), "health_check/c health_check/a");
    let one_another =
        "health_check/a: {x: health_check/b}, health_check/b: {x: health_check/a}, health_check/c: {x: health_check/c}";
    assert_eq!(
        order(one_another, "health_check/a, health_check/b, health_check/c"),
        "health_check/c health_check/a health_check/b"
    );
}
