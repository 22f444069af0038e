//! What a file is told before anything of it starts: all of it, each thing at its place.

use std::{ffi::OsString, net::TcpListener};

use clap::Parser;

use super::{
    Arguments,
    arguments::{Command, misplaced_names},
    migrate, start,
};
use crate::{
    config::{Diagnostics, Input, Level, Loaded, Machine, draw, load},
    service::{Running, Unstarted},
};

/// Everything that `validate`, `plan` and `run` say of a file: `line:column message`, errors without a mark.
fn told(yaml: &str) -> Vec<String> {
    let input = Input::Text { name: "x".to_owned(), text: yaml.to_owned() };
    let loaded = match start::check(load(&[input], &Machine)) {
        Ok(checked) => checked.loaded,
        Err(loaded) => *loaded,
    };
    let mut found: Vec<_> = loaded.found.found.iter().collect();
    found.sort_by_key(|told| told.origin.start);
    let line = |told: &&crate::config::Diagnostic| {
        let place = loaded.sources.place(told.origin).unwrap();
        let mark = match told.level {
            Level::Error => "",
            Level::Warning => "warning: ",
            Level::Ineffective => "ineffective: ",
        };
        let help = told.help.as_ref().map_or_else(String::new, |help| format!("; {help}"));
        format!("{}:{} {mark}{}{help}", place.line, place.column, told.message)
    };
    found.iter().map(line).collect()
}

/// The same of one exporter of traces.
fn told_of_exporter(yaml: &str) -> Vec<String> {
    told(&format!(
        "exporters: {{{yaml}}}\nreceivers: {{otlp: {{protocols: {{http: }}}}}}\nservice: {{pipelines: {{traces: {{receivers: [otlp], exporters: [{}]}}}}}}\n",
        yaml.split(':').next().unwrap()
    ))
}

#[track_caller]
fn one(told: &[String], begins: &str) {
    assert!(told.len() == 1 && told[0].contains(begins), "{begins}\n{told:#?}");
}

#[test]
fn one_typo_is_one_error() {
    let right = "\
receivers: {otlp: {protocols: {grpc: }}}
exporters:
  otlp_grpc/a: {endpoint: 'b:4317'}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_grpc/a]}
";
    assert_eq!(told(right), Vec::<String>::new());
    for (word, typo, error) in [
        ("receivers: {otlp", "recievers: {otlp", "there is no section `recievers`; did you mean `receivers`?"),
        ("exporters:\n", "exportrs:\n", "there is no section `exportrs`; did you mean `exporters`?"),
        ("service:", "servce:", "there is no section `servce`; did you mean `service`?"),
        ("pipelines:", "pipelnes:", "there is no key `pipelnes` here; did you mean `pipelines`?"),
        ("{receivers: [", "{reciever: [", "there is no key `reciever` here; did you mean `receivers`?"),
        ("  otlp_grpc/a:", "  otlp_gprc/a:", "there is no exporter `otlp_gprc`; did you mean `otlp_grpc`?"),
        ("[otlp_grpc/a]", "[otlp_gprc/a]", "the exporter `otlp_gprc/a` is not declared; did you mean `otlp_grpc/a`?"),
        ("{endpoint:", "{endpont:", "there is no key `endpont` here; did you mean `endpoint`?"),
        ("traces:", "trases:", "there is no signal `trases`; did you mean `traces`?"),
    ] {
        one(&told(&right.replacen(word, typo, 1)), error);
    }
    // Two typos are two errors, and what is missing without any is said.
    assert_eq!(told(&right.replacen("endpoint:", "endpont:", 1).replacen("exporters:\n", "exportrs:\n", 1)).len(), 2);
    one(&told(&right.replacen("endpoint: 'b:4317'", "", 1)), "an endpoint is required");
}

#[test]
fn what_migrate_prints_is_checked_as_it_is_read() {
    let right = "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {nop: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [nop]}}}\n";
    assert!(migrate::validates(right));
    assert!(!migrate::validates(&right.replace("grpc: ", "grpc: {tls: {cert_file: /nowhere, key_file: /nowhere}}")));
}

#[test]
fn what_would_fail_at_the_start_is_told_before_all_at_once_and_at_its_place() {
    let told = told(
        "\
receivers:
  otlp:
    protocols:
      grpc:
        auth: {authenticator: basic_auth}
        tls:
          cert_file: /nowhere/cert.pem
          key_file: /nowhere/key.pem
          client_ca_file: /nowhere/ca.pem
exporters:
  otlp_grpc:
    endpoint: backend:4317
    tls:
      ca_file: /nowhere/ca.pem
      cert_file: /nowhere/c.pem
      key_file: /nowhere/k.pem
    auth: {authenticator: bearer}
    sending_queue: {storage: file_storage}
  prometheus: {endpoint: \"8889\"}
  file: {path: /nowhere/telemetry.json}
extensions:
  bearer_token_auth: {filename: /nowhere/token}
service:
  extensions: [bearer_token_auth]
  telemetry: {logs: {output_paths: [/nowhere/log]}}
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_grpc, file]}
    metrics: {receivers: [otlp], exporters: [prometheus]}
",
    );
    let places: Vec<&str> =
        told.iter().filter(|line| !line.contains("ineffective")).map(|line| line.split(' ').next().unwrap()).collect();
    let expected =
        ["5:31", "7:22", "8:21", "9:27", "14:16", "15:18", "16:17", "17:27", "18:30", "19:26", "20:16", "22:33", "25:22"];
    assert_eq!(places, expected, "{told:#?}");
    let reasons = told.iter().filter(|line| line.contains("No such file or directory")).count();
    assert_eq!(reasons, 9, "{told:#?}");
    assert!(told.iter().any(|line| line.contains("`8889` is not host:port; write `localhost:8889`")), "{told:#?}");
}

#[test]
fn what_follows_from_an_error_that_was_told_is_not_told() {
    let told = told(
        "\
receivers: {otlp: {protocols: {grpc: {auth: {authenticator: oidc}}, http: {auth: {authenticator: bearer_token_auth}}}}}
exporters: {otlp_grpc: {endpoint: \"x:1\", compression: 5}, debug: }
extensions: {oidc: {issuer_url: x}, bearer_token_auth: {filename: /nowhere/token}}
service: {extensions: [oidc, bearer_token_auth], pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc, debug]}}}
",
    );
    let places: Vec<&str> = told.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["2:55", "3:14", "3:67"], "{told:#?}");
}

#[test]
fn refuses_the_endpoints_that_the_collector_refuses() {
    one(&told_of_exporter("otlp_grpc: {endpoint: foo}"), "`foo` needs a port: `foo:4317`");
    one(&told_of_exporter("otlp_http: {endpoint: \"http://\"}"), "`http://` names no host");
    one(&told_of_exporter("otlp_http: {endpoint: \"http://me:hunter2@x\"}"), "credentials in an endpoint");
}

#[test]
fn refuses_the_queues_and_retries_that_the_collector_refuses() {
    for (settings, begins) in [
        ("sending_queue: {queue_size: 0}", "a queue of size 0"),
        ("sending_queue: {num_consumers: 0}", "with 0 consumers"),
        ("sending_queue: {batch: {min_size: 5, max_size: 3}}", "`max_size` is less"),
        ("sending_queue: {batch: {sizer: requests}}", "a batch is measured"),
        ("sending_queue: {sizer: items, queue_size: 9, batch: {min_size: 10}}", "the queue is full before"),
        ("sending_queue: {storage: s, wait_for_result: true}", "`wait_for_result` does not go with `storage`"),
        ("retry_on_failure: {randomization_factor: 2}", "`randomization_factor`"),
        ("retry_on_failure: {max_elapsed_time: 10s}", "`max_elapsed_time` is less than `max_interval`"),
    ] {
        let told = told_of_exporter(&format!("otlp_grpc: {{endpoint: \"x:1\", {settings}}}"));
        assert!(told.iter().any(|line| line.contains(begins)), "{settings}\n{told:#?}");
        let quiet =
            told_of_exporter(&format!("otlp_grpc: {{endpoint: \"x:1\", {}}}", settings.replacen('{', "{enabled: false, ", 1)));
        assert!(quiet.is_empty(), "{settings}\n{quiet:#?}");
    }
}

#[test]
fn says_what_becomes_of_a_storage_and_of_waiting_for_results() {
    let told = told(
        "\
receivers: {otlp: {protocols: {http: }}}
exporters:
  otlp_grpc: {endpoint: \"x:1\", sending_queue: {storage: file_storage}}
  otlp_http: {endpoint: \"http://x:1\", sending_queue: {storage: health_check}}
  otlp_http/2: {endpoint: \"http://x:1\", sending_queue: {wait_for_result: true}}
extensions: {file_storage: , health_check: }
service:
  extensions: [file_storage, health_check]
  pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc, otlp_http, otlp_http/2]}}
",
    );
    let begins = [
        "ineffective: `storage`",
        "ineffective: `storage`",
        "the extension `health_check` is not a storage",
        "ineffective: `wait_for_result`",
    ];
    for begins in begins {
        assert!(told.iter().any(|line| line.contains(begins)), "{begins}\n{told:#?}");
    }
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].contains("journal"), "{told:#?}");
}

#[test]
fn warns_of_a_duration_without_a_unit() {
    for (written, begins) in [
        ("5", "warning: a duration without a unit counts in nanoseconds: this is 5ns; did you mean `5s`?"),
        ("5000000000", "warning: a duration without a unit counts in nanoseconds: this is 5s; write `5s`"),
        ("2.0", "warning: a duration without a unit counts in nanoseconds: this is 2ns; did you mean `2s`?"),
    ] {
        one(&told_of_exporter(&format!("otlp_grpc: {{endpoint: \"x:1\", timeout: {written}}}")), begins);
    }
    for written in ["0", "5s", "\"0\""] {
        let told = told_of_exporter(&format!("otlp_grpc: {{endpoint: \"x:1\", timeout: {written}}}"));
        assert!(told.is_empty(), "{told:?}");
    }
}

fn loaded(yaml: &str) -> Loaded {
    load(&[Input::Text { name: "x".to_owned(), text: yaml.to_owned() }], &Machine)
}

/// What a terminal would show of a file.
fn drawn(loaded: Loaded) -> String {
    let loaded = match start::check(loaded) {
        Ok(checked) => checked.loaded,
        Err(loaded) => *loaded,
    };
    let mut out = Vec::new();
    draw(&loaded.found, &loaded.sources, &mut out, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn no_secret_is_shown_beside_what_is_wrong() {
    let file = "\
receivers: {otlp: {protocols: {http: }}}
exporters:
  otlp_http: {endpoint: \"me:hunter2@b/x\", headers: {x-key: hunter2}, timeout: soon}
  otlp_http/2: {endpoint: \"b?api_key=hunter2\", headers: [{name: k, value: 42424242}]}
extensions:
  bearer_token_auth: {token: 42424242, nothing: hunter2}
  basic_auth: {client_auth: {username: me, password: [hunter2]}, passwort: hunter2}
service: {extensions: [bearer_token_auth, basic_auth], pipelines: {traces: {receivers: [otlp], exporters: [otlp_http, otlp_http/2]}}}
";
    let shown = drawn(loaded(file));
    assert!(shown.contains("8 errors"), "{shown}");
    // A key that nobody knows keeps its value only where its name does not tell what it is.
    let shown = shown.replace("nothing: hunter2", "").replace("passwort: hunter2", "");
    assert!(!shown.contains("hunter2") && !shown.contains("42424242"), "{shown}");
    let set = Input::Set("exporters::otlp_http::headers::x=[hunter2".to_owned());
    let shown = drawn(load(&[set], &Machine));
    assert!(shown.contains("--set exporters::otlp_http::headers::x") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_missing_file_is_named_without_a_place_in_it() {
    let shown = drawn(load(&[Input::Uri("nowhere.yaml".to_owned())], &Machine));
    assert!(shown.starts_with("error: cannot read `nowhere.yaml`: No such file") && !shown.contains("1:1"), "{shown}");
}

#[test]
fn the_journals_that_there_are_are_named() {
    let shown = told(
        "journal: {mode: foo}\nexporters: {debug: }\nreceivers: {otlp: {protocols: {http: }}}\nservice: {pipelines: {logs: {receivers: [otlp], exporters: [debug]}}}\n",
    );
    let named = shown.iter().filter(|line| ["durable", "buffered", "memory"].iter().all(|mode| line.contains(mode))).count();
    assert_eq!(named, 1, "{shown:#?}");
}

#[test]
fn commands_take_files_without_a_flag() {
    let file = |words: &[&str]| match Arguments::try_parse_from(words).unwrap().command.unwrap() {
        Command::Run(command) => command.file,
        Command::Plan(args) => args.file,
        Command::PrintConfig(args) => args.file,
        Command::ScrapeConfig(args) => args.file,
        Command::Validate(args) => args.file,
        other => panic!("{other:?}"),
    };
    for command in ["run", "plan", "print-config", "scrape-config", "validate"] {
        assert_eq!(file(&["weir", command, "a.yaml"]), ["a.yaml"]);
    }
    let run = Arguments::try_parse_from(["weir", "--drain-timeout", ""]).unwrap().run;
    assert_eq!(run.drain_timeout.as_secs(), 30, "a variable that is set to nothing is not set");
}

const KAFKA: &str =
    "receivers: {kafka: }\nexporters: {debug: }\nservice: {pipelines: {logs: {receivers: [kafka], exporters: [debug]}}}\n";

#[test]
fn names_to_skip_have_to_be_names_of_something() {
    let skip = |names: &[&str]| migrate::skip(loaded(KAFKA), &names.iter().map(ToString::to_string).collect::<Vec<_>>());
    let told = skip(&["kafak"]).unwrap_err();
    assert!(told.contains("`kafak`") && told.contains("did you mean `kafka`"), "{told}");
    assert!(skip(&["redaction"]).unwrap_err().contains("every pipeline needs one of `receivers::kafka`"));
}

#[test]
fn says_that_nothing_runs_here_and_nothing_else() {
    let migrated = crate::pipeline::file::migrate(&loaded(KAFKA), &loaded(KAFKA), &start::TABLES);
    assert_eq!(
        migrated.nothing.as_deref(),
        Some("nothing of this file runs here: every pipeline needs one of `receivers::kafka`")
    );
    assert!(migrated.found.found.is_empty());
    let text = migrated.text("k.yaml");
    assert!(text.starts_with("# Nothing runs in weir") && text.lines().all(|line| line.starts_with('#')), "{text}");
}

#[test]
fn names_exporters_that_send_to_this_file_itself() {
    let file = |receiver: &str, exporter: &str, signal: &str| {
        told(&format!(
            "receivers: {{otlp: {{protocols: {receiver}}}}}\nexporters: {{{exporter}, debug: }}\nservice:\n  pipelines:\n    traces: {{receivers: [otlp], exporters: [debug]}}\n    {signal}: {{receivers: [otlp], exporters: [{}]}}\n",
            exporter.split(':').next().unwrap()
        ))
    };
    for (receiver, exporter) in [
        ("{grpc: }", "otlp_grpc: {endpoint: \"localhost:4317\"}"),
        ("{grpc: {endpoint: \"0.0.0.0:5000\"}}", "otlp_grpc: {endpoint: \"127.0.0.1:5000\"}"),
        ("{http: }", "otlp_http: {endpoint: \"http://[::1]:4318/x\"}"),
        ("{http: }", "otlp_http: {endpoint: \"http://b:4318\", logs_endpoint: \"http://localhost:4318/v1/logs\"}"),
    ] {
        one(&file(receiver, exporter, "logs"), "its logs would come back to it without end; name the backend's own");
    }
    for (receiver, exporter) in [
        ("{grpc: }", "otlp_grpc: {endpoint: \"localhost:4319\"}"),
        ("{grpc: }", "otlp_grpc: {endpoint: \"backend:4317\"}"),
        ("{grpc: {endpoint: \"10.1.1.1:4317\"}}", "otlp_grpc: {endpoint: \"localhost:4317\"}"),
    ] {
        let told = file(receiver, exporter, "logs");
        assert!(told.is_empty(), "{told:?}");
    }
    let derived = told(
        "\
receivers: {otlp: {protocols: {grpc: }}}
exporters: {otlp_grpc: {endpoint: \"localhost:4317\"}, debug: }
connectors: {span_metrics: }
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [span_metrics]}
    metrics: {receivers: [span_metrics], exporters: [otlp_grpc]}
",
    );
    one(&derived, "warning: this is where `otlp` of this file listens: weir would send to itself");
}

#[tokio::test]
async fn every_port_that_is_taken_is_named_at_once() {
    let taken: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = taken.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let file = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{}\"}}, http: {{endpoint: \"127.0.0.1:{}\"}}}}}}}}\n\
         exporters: {{prometheus: {{endpoint: \"127.0.0.1:{}\"}}}}\nextensions: {{health_check: {{endpoint: \"127.0.0.1:{}\"}}}}\n\
         service: {{extensions: [health_check], pipelines: {{metrics: {{receivers: [otlp], exporters: [prometheus]}}}}}}\n",
        ports[0], ports[1], ports[2], ports[3]
    );
    let Ok(checked) = start::check(loaded(&file)) else { panic!("it is valid") };
    let start::Checked { built, around, loaded, file, .. } = *checked;
    let Err(Unstarted::Failed(failed)) = Running::start(built, &around, None).await else { panic!("the ports are taken") };
    let mut found = Diagnostics::default();
    for failed in failed {
        failed.tell(&file, &mut found);
    }
    let lines = start::lines(&found, &loaded.sources, Level::Error);
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (port, place) in ports.iter().zip(["x:1:", "x:1:", "x:2:", "x:3:"]) {
        let line = lines.iter().find(|line| line.contains(&format!("address already in use: 127.0.0.1:{port} ("))).unwrap();
        assert!(line.starts_with(place) && line.contains(&format!("`ss -ltnp 'sport = :{port}'`")), "{line}");
    }
}

#[test]
fn names_to_skip_stand_behind_an_equals_sign() {
    let misplaced = |words: &str| {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        misplaced_names(&words).map(str::to_owned)
    };
    assert_eq!(misplaced("weir --skip-unsupported redaction").as_deref(), Some("redaction"));
    assert_eq!(misplaced("weir --skip-unsupported run"), None);
    assert_eq!(misplaced("weir --skip-unsupported=redaction"), None);
    assert_eq!(misplaced("weir --skip-unsupported --config x"), None);
}

#[test]
fn what_weir_cannot_send_its_own_telemetry_to_is_told_too() {
    let told = told(
        "\
receivers: {otlp: {protocols: {grpc: }}}
exporters: {nop: }
service:
  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}
  telemetry:
    metrics: {readers: [{periodic: {exporter: {otlp: {protocol: grpc, endpoint: \"http://me:hunter2@a b\"}}}}]}
    traces: {processors: [{batch: {exporter: {otlp: {protocol: http/protobuf, endpoint: \"::bad\"}}}}]}
",
    );
    assert!(told.len() == 2 && told[0].starts_with("6:15 ") && told[1].starts_with("7:14 "), "{told:#?}");
    assert!(!told[0].contains("hunter2"), "{told:#?}");
}

/// Which connectors' rows the exporters of metrics render directly.
fn rendered(yaml: &str) -> Vec<String> {
    let input = Input::Text { name: "x".to_owned(), text: yaml.to_owned() };
    let checked = start::check(load(&[input], &Machine)).map_err(|loaded| loaded.found).unwrap();
    let consumers = checked.plan.consumers.iter();
    consumers.flat_map(|consumer| consumer.renders.iter().map(|id| format!("{} {id}", consumer.pipeline))).collect()
}

#[test]
fn labels_of_hosts_leave_rows_of_services_where_they_are_kept() {
    let default = include_str!("default.yaml");
    assert_eq!(rendered(default), ["metrics span_metrics"]);
    // The rows have attributes of resources, and some of them are labels of every series: they go the way of all metrics.
    assert!(rendered(&default.replace("series_identity: service", "series_identity: resource")).is_empty());
    assert!(rendered(&default.replace("included: [host.name,", "included: [\"service.*\",")).is_empty());
}

#[test]
fn the_default_shows_the_host_and_no_command_line() {
    let default = include_str!("default.yaml");
    assert!(default.contains("receivers: [host_metrics]"));
    assert!(default.contains("process:\n        enabled: false\n"), "{default}");
    let commands: Vec<&str> = default.lines().filter(|line| line.contains("command")).map(str::trim).collect();
    assert_eq!(commands, ["resource_attributes: {process.command_line: {enabled: false}}"]);
}
