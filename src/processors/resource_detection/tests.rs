//! What is found, what becomes of resources, and what a file is told.

use std::{collections::HashMap, fs, io, path::Path};

use serde_json::{Value, json};

use super::{
    super::testing::{batch, build, error, json_of, processed, read},
    Config,
};
use crate::{
    config::{Environment, Level},
    otlp::{
        view::{AnyValueView, ResourceView, View},
        wire,
    },
    signal::{Context, Signal},
};

/// An environment of these variables, without files.
struct Variables(HashMap<&'static str, &'static str>);

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }

    fn file(&self, _path: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What detectors find, as text, and what they complain about.
fn detect(yaml: &str, root: &Path, variables: &[(&'static str, &'static str)]) -> (Vec<(String, String)>, Vec<String>) {
    let (config, found) = read::<Config>(yaml);
    assert!(!found.has_errors(), "{yaml}: {found:?}");
    let (found, complaints) = config.detect(root, &Variables(variables.iter().copied().collect()));
    let mut attributes = Vec::new();
    for (key, value) in found.iter() {
        // A resource with one attribute is the shortest thing that has a value to read.
        let mut one = Vec::new();
        wire::put_message(&mut one, 1, |out| wire::put_bytes_always(out, 2, value));
        let text = ResourceView::new(&one).attributes.iter().map(|attribute| shown(attribute.value())).next().unwrap();
        attributes.push((key.to_owned(), text));
    }
    (attributes, complaints.into_iter().map(|(detector, message)| format!("{detector}: {message}")).collect())
}

fn shown(value: AnyValueView<'_>) -> String {
    match value {
        AnyValueView::String(text) => text.to_owned(),
        AnyValueView::Int(number) => number.to_string(),
        AnyValueView::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => panic!("{other:?}"),
    }
}

fn pairs(found: &[(String, String)]) -> Vec<(&str, &str)> {
    found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

const ID: &str = "3f1a0c2b4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8";

#[test]
fn env_is_what_the_variable_lists() {
    let root = tempfile::tempdir().unwrap();
    let of = |value| detect("{}", root.path(), &[("OTEL_RESOURCE_ATTRIBUTES", value)]);
    let (found, complaints) = of(" service.name = shop%20one , team=a=b,empty=,");
    assert_eq!(pairs(&found), [("service.name", "shop one"), ("team", "a=b")]);
    assert!(complaints.is_empty());
    assert_eq!(detect("{}", root.path(), &[("OTEL_RESOURCE", "a=1")]).0.len(), 1);
    for (wrong, says) in [
        ("a=1,b", "without `=`"),
        ("a=%zz", "percent"),
        ("a=%", "percent"),
        ("a=%+1", "percent"),
        ("a=%ff", "percent"),
        ("=1", "without a key"),
    ] {
        let (found, complaints) = of(wrong);
        assert!(found.is_empty() && complaints.len() == 1 && complaints[0].contains(says), "{wrong}: {complaints:?}");
    }
}

#[test]
fn the_id_of_a_container_is_found_where_each_runtime_leaves_it() {
    let root = tempfile::tempdir().unwrap();
    let found = || detect("{detectors: [container]}", root.path(), &[]);
    assert_eq!(found(), (vec![], vec![]), "outside of a container there is none");
    for group in [
        format!("12:memory:/docker/{ID}\n0::/\n"),
        format!("0::/system.slice/docker-{ID}.scope\n"),
        format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n"),
        format!("0::/../cri-containerd-{ID}.scope\n"),
        format!("1:name=systemd:/kubepods/burstable/pod1/{ID}\n"),
    ] {
        write(root.path(), "proc/self/cgroup", &group);
        assert_eq!(pairs(&found().0), [("container.id", ID)], "{group}");
    }
    write(root.path(), "proc/self/cgroup", "0::/\n");
    for (mounts, expected) in [
        (format!("36 35 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda rw\n"), Some(ID)),
        (
            format!("36 35 0:40 /containers/overlay-containers/{ID}/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw\n"),
            Some(ID),
        ),
        (
            format!(
                "36 35 8:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{ID}/hostname /etc/hostname rw - ext4 /dev/sda rw\n"
            ),
            None,
        ),
        (format!("36 35 8:1 /{ID} /data rw - ext4 /dev/sda rw\n36 35\n"), None),
    ] {
        write(root.path(), "proc/self/mountinfo", &mounts);
        assert_eq!(found().0.first().map(|(_, id)| id.as_str()), expected, "{mounts}");
    }
}

#[test]
fn the_host_is_known_by_name_and_by_id() {
    let root = tempfile::tempdir().unwrap();
    let (found, complaints) = detect("{detectors: [system, host_id]}", root.path(), &[]);
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    assert_eq!(pairs(&found), [("host.name", name.as_str()), ("os.type", "linux")]);
    assert_eq!(complaints, ["host_id: there is no /etc/machine-id"]);
    write(root.path(), "etc/machine-id", "\n");
    assert_eq!(detect("{detectors: [host_id]}", root.path(), &[]).1, ["host_id: the machine id is empty or cannot be read"]);
    write(root.path(), "var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n");
    write(root.path(), "etc/hosts", &format!("127.0.0.1 localhost\n10.0.0.7 {name}.example.com {name} # here\n"));
    let (found, complaints) = detect("{detectors: [system, host_id]}", root.path(), &[]);
    let whole = format!("{name}.example.com");
    let id = ("host.id", "0123456789abcdef0123456789abcdef");
    assert_eq!(pairs(&found), [("host.name", whole.as_str()), ("os.type", "linux"), id]);
    assert!(complaints.is_empty());
    let (found, _) = detect("{detectors: [system], system: {hostname_sources: [os]}}", root.path(), &[]);
    assert_eq!(pairs(&found)[0], ("host.name", name.as_str()));
}

#[test]
fn everything_about_the_machine_that_is_asked_for() {
    let asked =
        ["host.arch", "host.ip", "host.mac", "host.interface", "host.cpu.model.name", "os.name", "os.version", "os.description"]
            .map(|name| format!("{name}: {{enabled: true}}"))
            .join(", ");
    let yaml = format!("{{detectors: [system], system: {{resource_attributes: {{{asked}, host.name: {{enabled: false}}}}}}}}");
    let (found, _) = detect(&yaml, Path::new("/"), &[]);
    let value = |name: &str| found.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(value("host.name"), None);
    let machine = std::process::Command::new("uname").arg("-m").output().unwrap();
    let machine = String::from_utf8(machine.stdout).unwrap();
    let expected = machine.trim().replace("x86_64", "amd64").replace("aarch64", "arm64");
    assert_eq!(value("host.arch"), Some(expected.as_str()));
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let id = release.lines().find_map(|line| line.strip_prefix("VERSION_ID=")).map(|id| id.trim_matches('"').to_owned());
    assert_eq!(value("os.version"), id.as_deref());
    assert!(value("host.ip").is_none_or(|ips| !ips.split(' ').any(|ip| ip == "127.0.0.1" || ip == "::1")), "{found:?}");
}

#[test]
fn the_process_is_this_one_and_its_command_line_only_when_asked_for() {
    let (found, _) = detect("{detectors: [process]}", Path::new("/"), &[]);
    let exe = fs::read_link("/proc/self/exe").unwrap();
    let (pid, path) = (std::process::id().to_string(), exe.display().to_string());
    let name = exe.file_name().unwrap().to_str().unwrap();
    let expected = [("process.pid", pid.as_str()), ("process.executable.name", name), ("process.executable.path", path.as_str())];
    assert_eq!(pairs(&found), expected);
    let yaml = "{detectors: [process], process: {resource_attributes: {process.command_line: {enabled: true}}}}";
    let (found, _) = detect(yaml, Path::new("/"), &[]);
    assert!(found.iter().any(|(key, _)| key == "process.command_line"));
}

#[test]
fn the_first_detector_that_finds_an_attribute_counts() {
    let (found, _) =
        detect("{detectors: [env, system]}", Path::new("/"), &[("OTEL_RESOURCE_ATTRIBUTES", "host.name=mine,os.type=")]);
    assert_eq!(pairs(&found), [("host.name", "mine"), ("os.type", "linux")]);
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

#[test]
fn resources_get_what_was_found_or_keep_what_they_say() {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    for (signal, envelopes, scopes, items) in [
        (Signal::Traces, "resourceSpans", "scopeSpans", "spans"),
        (Signal::Logs, "resourceLogs", "scopeLogs", "logRecords"),
        (Signal::Metrics, "resourceMetrics", "scopeMetrics", "metrics"),
    ] {
        let inner = json!([{"scope": {"name": "lib"}, items: [{}]}]);
        let said = [attribute("host.name", "theirs"), attribute("a", "1")];
        let request = json!({envelopes: [{"resource": {"attributes": said}, scopes: inner}, {scopes: inner}]});
        for (replaces, first) in [("true", name.as_str()), ("false", "theirs")] {
            let yaml = format!("{{detectors: [system], override: {replaces}, system: {{hostname_sources: [os]}}}}");
            let processor = build::<Config>(&yaml, signal).unwrap();
            let done = json_of(&processed(&*processor, batch(signal, &request, Context::default())));
            let found = json!([attribute("host.name", first), attribute("a", "1"), attribute("os.type", "linux")]);
            assert_eq!(done[envelopes][0]["resource"]["attributes"], found, "{signal} {replaces}");
            let new = json!([attribute("host.name", &name), attribute("os.type", "linux")]);
            assert_eq!(done[envelopes][1]["resource"]["attributes"], new, "{signal} {replaces}");
            assert_eq!(done[envelopes][1][scopes], inner);
        }
    }
}

#[test]
fn a_resource_that_says_it_already_stays_the_same_bytes() {
    let processor = build::<Config>("{detectors: [system], system: {hostname_sources: [os]}}", Signal::Traces).unwrap();
    let once = processed(&*processor, batch(Signal::Traces, &json!({"resourceSpans": [{}]}), Context::default()));
    let twice = processed(&*processor, once.clone());
    assert_eq!(twice.payload.as_ptr(), once.payload.as_ptr());
}

#[test]
fn says_what_is_not_there() {
    assert!(error::<Config>("{detectors: [sytem]}").contains("there is no detector `sytem`"));
    assert!(
        error::<Config>("{system: {resource_attributes: {host.nme: {enabled: true}}}}")
            .contains("`system` has no attribute `host.nme`")
    );
    let found = read::<Config>("{detectors: [env, ec2, k8s_api, gcp], ec2: {tags: [a]}, timeout: 2s, refresh_interval: 1m}").1;
    let told: Vec<&str> =
        found.found.iter().filter(|one| one.level == Level::Ineffective).map(|one| one.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "the detector `ec2` is not there yet",
            "timeout has no effect",
            "refresh_interval has no effect",
            "the detector `ec2` is not there yet",
            "the detector `k8s_api` is not there yet",
            "the detector `gcp` is not there yet",
        ]
    );
    assert!(!found.has_errors());
}
