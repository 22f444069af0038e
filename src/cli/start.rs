//! Arguments → a checked configuration: the embedded default or the files named, with what `--forward` adds.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
};

use super::{arguments::ConfigArgs, default_config, loops};
use crate::{
    component::Tables,
    config::{Diagnostics, Input, Level, Loaded, Machine, Node, Sources, Value, draw, load, shown_url},
    connectors::CONNECTORS,
    exporters::EXPORTERS,
    extensions::EXTENSIONS,
    internal_telemetry::TelemetrySettings,
    pipeline::{Built, File, Plan, Read, Surroundings, file},
    processors::PROCESSORS,
    receivers::RECEIVERS,
    runtime::{BuildError, Clock, both},
};

/// Every component there is.
pub(super) const TABLES: Tables =
    Tables { receivers: RECEIVERS, processors: PROCESSORS, connectors: CONNECTORS, exporters: EXPORTERS, extensions: EXTENSIONS };

/// A configuration that was loaded and checked.
pub(super) struct Checked {
    pub(super) loaded: Loaded,
    pub(super) file: File,
    pub(super) plan: Plan,
    /// Every component, built and not started, with what it was built with.
    pub(super) built: Built,
    pub(super) around: Surroundings,
    pub(super) telemetry: TelemetrySettings,
}

/// What a person gave on the command line was wrong; the text says what, and what would be right.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("--forward: {0}")]
    Forward(String),
    #[error(
        "--forward adds to the embedded default; with a configuration of your own, add an exporter to it (or unset WEIR_FORWARD)"
    )]
    ForwardWithFile,
    #[error("--listen: `{0}` is not a host or an address, such as 0.0.0.0, [::] or localhost; ports are moved by --set")]
    Listen(String),
    /// Says which.
    #[error("{0}")]
    DefaultConfig(String),
    #[error(
        "--forward: {0} is where weir itself listens: what it takes would come back to it without end; name the backend's own address or port"
    )]
    ForwardToItself(String),
}

/// One `--forward`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    grpc: bool,
    insecure: bool,
    endpoint: String,
}

impl Target {
    /// `host:4317`, `grpc://host:4317`, `grpcs://host:4317`, `http://host:4318`, `https://host`. Port 4317 is gRPC by convention.
    fn parse(url: &str) -> Result<Self, StartError> {
        let wrong = || {
            StartError::Forward(format!(
                "`{}` is not host:port, grpc://host:port, http://host:port or https://host",
                shown_url(url)
            ))
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("grpc", url));
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            let message = "credentials in the address are not sent: give them as --forward-header 'Authorization=Basic …'";
            return Err(StartError::Forward(message.to_owned()));
        }
        if authority.is_empty() || rest.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let bracketed = authority.starts_with('[');
        let port = match authority.rsplit_once(':') {
            // A second colon outside brackets: an IPv6 address that does not say where it ends.
            Some((host, _)) if !bracketed && host.contains(':') => return Err(wrong()),
            Some((_, port)) if !port.ends_with(']') => Some(port.parse::<u16>().map_err(|_| wrong())?),
            _ => None,
        };
        match scheme {
            "grpc" | "grpcs" => {
                let endpoint = if port.is_some() { authority.to_owned() } else { format!("{authority}:4317") };
                Ok(Self { grpc: true, insecure: scheme == "grpc", endpoint })
            }
            "http" | "https" if port == Some(4317) && rest.trim_end_matches('/') == authority => {
                Ok(Self { grpc: true, insecure: scheme == "http", endpoint: authority.to_owned() })
            }
            "http" | "https" => {
                Ok(Self { grpc: false, insecure: scheme == "http", endpoint: url.trim_end_matches('/').to_owned() })
            }
            _ => Err(wrong()),
        }
    }
}

impl Target {
    /// Whether the embedded default takes OTLP there.
    fn is_default_listener(&self) -> bool {
        matches!(loops::port_here(&self.endpoint), Some(4317 | 4318))
    }
}

/// What runs without a file.
pub(super) const DEFAULT: &str = include_str!("default.yaml");

/// What `--forward` adds to the default, as a configuration of its own that is merged over it.
fn forwarding(args: &ConfigArgs) -> Result<String, StartError> {
    let targets =
        args.forward.iter().filter(|url| !url.is_empty()).map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        return Ok(String::new());
    }
    // With `--set` the listeners may be somewhere else.
    if let Some(itself) = targets.iter().find(|target| args.set.is_empty() && target.is_default_listener()) {
        return Err(StartError::ForwardToItself(itself.endpoint.clone()));
    }
    let mut headers = String::new();
    for header in &args.forward_header {
        let Some((name, value)) = header.split_once('=') else {
            // It may be nothing but the secret.
            return Err(StartError::Forward("a --forward-header is not NAME=VALUE: there is no `=` in it".to_owned()));
        };
        let separator = if headers.is_empty() { "" } else { ", " };
        write!(headers, "{separator}{}: {}", quoted(name.trim()), quoted(value.trim()))
            .expect("writing to a string does not fail");
    }
    let mut exporters = String::new();
    let mut ids = Vec::new();
    for (target, number) in targets.iter().zip(1..) {
        let kind = if target.grpc { "otlp_grpc" } else { "otlp_http" };
        let id = if number == 1 { format!("{kind}/forward") } else { format!("{kind}/forward{number}") };
        let tls = if target.insecure { ", tls: {insecure: true}" } else { "" };
        writeln!(exporters, "  {id}: {{endpoint: {}{tls}, headers: {{{headers}}}}}", quoted(&target.endpoint))
            .expect("writing to a string does not fail");
        ids.push(id);
    }
    let ids = ids.join(", ");
    Ok(format!(
        "exporters:\n{exporters}service:\n  pipelines:\n    traces: {{receivers: [otlp], exporters: [span_metrics, {ids}]}}\n    \
         metrics/forward: {{receivers: [otlp], exporters: [{ids}]}}\n    logs: {{receivers: [otlp], exporters: [{ids}]}}\n"
    ))
}

/// The addresses of the default on another host.
fn listening(host: &str) -> Result<String, StartError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = bare.parse::<std::net::Ipv6Addr>().is_ok();
    if bare.is_empty() || !is_address && bare.contains([':', '/', '[', ']', '*', ' ']) {
        return Err(StartError::Listen(host.to_owned()));
    }
    let at = |port: u16| quoted(&if is_address { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") });
    Ok(format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: {}}}, http: {{endpoint: {}}}}}}}}}\nexporters: {{prometheus: {{endpoint: {}}}}}\n\
         extensions: {{health_check: {{endpoint: {}}}}}\n\
         service: {{telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: {}, port: 8888}}}}}}}}]}}}}}}\n",
        at(4317),
        at(4318),
        at(8889),
        at(13133),
        quoted(bare)
    ))
}

/// A YAML string; `$` is doubled so that nothing is expanded.
fn quoted(text: &str) -> String {
    let text = text.replace('$', "$$");
    serde_json::Value::String(text).to_string()
}

/// What is to be loaded.
pub(super) fn inputs(args: &ConfigArgs) -> Result<Vec<Input>, StartError> {
    let mut inputs = Vec::new();
    // A variable that is set to nothing, as compose files do, is one that is not set.
    let mut config: Vec<String> = args.config.iter().filter(|uri| !uri.is_empty()).cloned().collect();
    if config.is_empty()
        && let Some(patterns) = &args.default_config
    {
        let found = default_config::first(patterns).map_err(StartError::DefaultConfig)?;
        config.extend(found.map(|path| path.display().to_string()));
    }
    if config.is_empty() {
        inputs.push(Input::Text { name: "the embedded default".to_owned(), text: DEFAULT.to_owned() });
        if let Some(host) = args.listen.as_ref().filter(|host| !host.is_empty()) {
            inputs.push(Input::Text { name: "--listen".to_owned(), text: listening(host)? });
        }
        let forward = forwarding(args)?;
        if !forward.is_empty() {
            inputs.push(Input::Text { name: "--forward".to_owned(), text: forward });
        }
    } else {
        if args.forward.iter().any(|url| !url.is_empty()) {
            return Err(StartError::ForwardWithFile);
        }
        inputs.extend(config.into_iter().map(Input::Uri));
    }
    inputs.extend(args.set.iter().cloned().map(Input::Set));
    let journal = [
        ("--journal", "mode", &args.journal),
        ("--data-dir", "directory", &args.data_dir),
        ("--journal-max-size", "max_size", &args.journal_max_size),
        ("--journal-max-letters", "max_letters", &args.journal_max_letters),
    ];
    for (name, key, value) in journal {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            inputs.push(Input::Text { name: name.to_owned(), text: format!("journal: {{{key}: {}}}", quoted(value)) });
        }
    }
    if let Some(socket) = args.admin_socket.as_ref().filter(|socket| !socket.is_empty()) {
        inputs.push(Input::Text { name: "--admin-socket".to_owned(), text: format!("admin: {{socket: {}}}", quoted(socket)) });
    }
    Ok(inputs)
}

/// As [`check_within`], where nothing runs.
pub(super) fn check(loaded: Loaded) -> Result<Box<Checked>, Box<Loaded>> {
    check_within(loaded, &Surroundings::new(Clock::system()))
}

/// Checks all of it, and builds it. Whatever is found stands in `loaded.found`; `Err` when it cannot run.
pub(super) fn check_within(mut loaded: Loaded, around: &Surroundings) -> Result<Box<Checked>, Box<Loaded>> {
    let mut found = std::mem::take(&mut loaded.found);
    let unread = matches!(&loaded.node.value, Value::Map(entries) if entries.is_empty());
    if unread && found.has_errors() {
        // Nothing could be read: that the file has no pipelines would be said beside the reason, and is not true.
        loaded.found = found;
        return Err(Box::new(loaded));
    }
    let file = File::check(&loaded.node, &TABLES, &mut found);
    let checked = file.and_then(|file| {
        loops::check(&file, &mut found);
        let plan = Plan::of(&file, &TABLES);
        let read = Read::of(&file, &plan, &TABLES, &mut found);
        let nothing = Node::null();
        let written = file.telemetry.as_ref().unwrap_or(&nothing);
        let telemetry = TelemetrySettings::read(written, &mut found);
        for fault in both(telemetry.logs.try_outputs(), telemetry.try_exporters()).err().into_iter().flat_map(BuildError::faults)
        {
            let key = fault.key().trim_start_matches("service::telemetry::");
            found.error(written.nearest(key).origin, fault.message(), fault.help());
        }
        let built = read.build(&file, &plan, around, &mut found)?;
        Some((file, plan, built, telemetry))
    });
    file::drop_echoes(&loaded.node, &mut found);
    let wrong = found.has_errors();
    loaded.found = found;
    match checked {
        Some((file, plan, built, telemetry)) if !wrong => {
            Ok(Box::new(Checked { loaded, file, plan, built, around: around.clone(), telemetry }))
        }
        _ => Err(Box::new(loaded)),
    }
}

/// Loads what the arguments name.
pub(super) fn load_inputs(args: &ConfigArgs) -> Result<Loaded, StartError> {
    Ok(load(&inputs(args)?, &Machine))
}

/// Warnings in one line each, without the lines of the file, which may hold secrets and go to a log here.
pub(super) fn warnings(loaded: &Loaded) -> Vec<String> {
    lines(&loaded.found, &loaded.sources, Level::Warning)
}

/// As [`warnings`], without those whose message `is_known`.
pub(super) fn warnings_beside(loaded: &Loaded, is_known: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = loaded.found.clone();
    found.found.retain(|found| !is_known(&found.message));
    lines(&found, &loaded.sources, Level::Warning)
}

/// As [`warnings`], of any level.
pub(super) fn lines(found: &Diagnostics, sources: &Sources, level: Level) -> Vec<String> {
    let told = found.found.iter().filter(|found| found.level == level);
    told.map(|found| {
        let name = sources.get(found.origin.source).map_or("", |source| source.name.as_str());
        let place = sources.place(found.origin).map(|place| format!("{name}:{}:{}: ", place.line, place.column));
        let help = found.help.as_ref().map(|help| format!("; {help}"));
        format!("{}{}{}", place.unwrap_or_default(), found.message, help.unwrap_or_default())
    })
    .collect()
}

/// Draws diagnostics to stderr.
pub(super) fn show(found: &Diagnostics, loaded: &Loaded) {
    let mut err = io::stderr().lock();
    let colour = err.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Nobody is left to be told when stderr is closed.
    drop(draw(found, &loaded.sources, &mut err, colour));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_url_says_protocol_and_security() {
        let parse = |url| Target::parse(url).map(|t| (t.grpc, t.insecure, t.endpoint)).ok();
        let grpc = |insecure, endpoint: &str| Some((true, insecure, endpoint.to_owned()));
        let http = |insecure, endpoint: &str| Some((false, insecure, endpoint.to_owned()));
        assert_eq!(parse("backend:4317"), grpc(true, "backend:4317"));
        assert_eq!(parse("grpc://backend"), grpc(true, "backend:4317"));
        assert_eq!(parse("grpcs://backend:443"), grpc(false, "backend:443"));
        assert_eq!(parse("http://localhost:4317"), grpc(true, "localhost:4317"));
        assert_eq!(parse("http://localhost:4318/"), http(true, "http://localhost:4318"));
        assert_eq!(parse("https://otlp.example/api"), http(false, "https://otlp.example/api"));
        for wrong in ["ftp://x", "host:99999", "::1:4317", "host:port", "http://"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(parse("[::1]:4317"), grpc(true, "[::1]:4317"));
        assert_eq!(parse("[::1]"), grpc(true, "[::1]:4317"));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_default_and_what_forward_adds_are_valid() {
        for forward in [vec![], vec!["a:4317"], vec!["a:4317", "http://b:4318"]] {
            let args = ConfigArgs {
                forward: forward.iter().map(ToString::to_string).collect(),
                forward_header: vec!["Authorization=Bearer $x\": {".to_owned()],
                ..ConfigArgs::default()
            };
            let checked = check(load_inputs(&args).unwrap()).map_err(|loaded| loaded.found).unwrap();
            assert!(checked.loaded.found.found.is_empty(), "{:?}", checked.loaded.found);
            assert_eq!(checked.plan.exporters.len(), if forward.is_empty() { 2 } else { 1 + forward.len() });
        }
    }

    #[test]
    fn listen_moves_every_address_of_the_default_and_none_of_a_file() {
        let listening = |host: &str| ConfigArgs { listen: Some(host.to_owned()), ..ConfigArgs::default() };
        for (host, at) in [("0.0.0.0", "0.0.0.0"), ("::", "[::]"), ("[::1]", "[::1]"), ("otel", "otel")] {
            let args = ConfigArgs { forward: vec!["a:1".to_owned()], ..listening(host) };
            let checked = check(load_inputs(&args).unwrap()).map_err(|loaded| loaded.found).unwrap();
            assert!(checked.loaded.found.found.is_empty(), "{:?}", checked.loaded.found);
            let shown = format!("{:?}", checked.loaded.node);
            for port in [4317, 4318, 8889, 13133] {
                assert!(shown.contains(&format!("\"{at}:{port}\"")), "{at}:{port} {shown}");
                assert!(!shown.contains(&format!("\"localhost:{port}")), "{shown}");
            }
            assert_eq!(checked.telemetry.page().map(|page| page.endpoint.clone()), Some(format!("{at}:8888")));
        }
        for wrong in ["0.0.0.0:4317", "http://x", "*", "[]", "a b"] {
            assert!(matches!(inputs(&listening(wrong)), Err(StartError::Listen(_))), "{wrong}");
        }
        assert_eq!(inputs(&listening("")).unwrap().len(), 1, "a variable that is set to nothing is not set");
        let file = ConfigArgs { config: vec!["x.yaml".to_owned()], ..listening("0.0.0.0") };
        assert_eq!(inputs(&file).unwrap().len(), 1);
    }

    #[test]
    fn a_default_file_gives_way_to_one_that_is_named() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("config.yaml");
        let looking = ConfigArgs { default_config: Some(path.display().to_string()), ..ConfigArgs::default() };
        let named = |args: &ConfigArgs| match inputs(args).unwrap().first() {
            Some(Input::Uri(uri)) => uri.clone(),
            _ => "the embedded default".to_owned(),
        };
        assert_eq!(named(&looking), "the embedded default");
        std::fs::write(&path, "").unwrap();
        assert_eq!(named(&looking), path.display().to_string());
        assert_eq!(named(&ConfigArgs { config: vec!["other.yaml".to_owned()], ..looking.clone() }), "other.yaml");
        let forwarding = ConfigArgs { forward: vec!["a:1".to_owned()], ..looking };
        assert!(matches!(inputs(&forwarding), Err(StartError::ForwardWithFile)));
    }

    #[test]
    fn what_is_forwarded_must_not_come_back() {
        for url in ["localhost:4317", "http://127.0.0.1:4318", "http://localhost:4317"] {
            let args = ConfigArgs { forward: vec![url.to_owned()], ..ConfigArgs::default() };
            assert!(matches!(inputs(&args), Err(StartError::ForwardToItself(_))), "{url}");
        }
        let secret = ConfigArgs { forward: vec!["me:hunter2@backend:4317".to_owned()], ..ConfigArgs::default() };
        let told = inputs(&secret).unwrap_err().to_string();
        assert!(told.contains("--forward-header") && !told.contains("hunter2"), "{told}");
        let elsewhere = ConfigArgs { forward: vec!["localhost:4319".to_owned()], ..ConfigArgs::default() };
        assert!(inputs(&elsewhere).is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_the_only_error() {
        let args = ConfigArgs { config: vec!["yaml:a: [".to_owned()], ..ConfigArgs::default() };
        let Err(loaded) = check(load_inputs(&args).unwrap()) else { panic!("it loads") };
        assert_eq!(loaded.found.found.len(), 1, "{:?}", loaded.found);
    }

    #[test]
    fn forward_does_not_mix_with_a_file() {
        let args = ConfigArgs { config: vec!["x.yaml".to_owned()], forward: vec!["a:1".to_owned()], ..ConfigArgs::default() };
        assert!(matches!(inputs(&args), Err(StartError::ForwardWithFile)));
    }
}
