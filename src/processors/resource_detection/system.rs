//! `system`: the host and its operating system, as `sysinfo` reads them; processors from `/proc/cpuinfo`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use procfs_core::{CpuInfo, FromRead as _};
use serde::Deserialize;
use sysinfo::{Networks, System};

use super::{container::beginning, detected::Detected, host_id};

pub(super) const ATTRIBUTES: &[(&str, bool)] = &[
    ("host.name", true),
    ("os.type", true),
    ("host.id", false),
    ("host.arch", false),
    ("host.ip", false),
    ("host.mac", false),
    ("host.interface", false),
    ("host.cpu.vendor.id", false),
    ("host.cpu.family", false),
    ("host.cpu.model.id", false),
    ("host.cpu.model.name", false),
    ("host.cpu.stepping", false),
    ("host.cpu.cache.l2.size", false),
    ("os.name", false),
    ("os.version", false),
    ("os.description", false),
    ("os.build.id", false),
];

/// Where the host's name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NameSource {
    /// The whole name, with its domain, where `/etc/hosts` has it.
    Dns,
    /// What the kernel has.
    Os,
    /// Of a name server: not asked here.
    Cname,
    Lookup,
}

const FILE_BYTES_MAX: usize = 1 << 20;

pub(super) fn detect(root: &Path, wanted: &[&str], sources: &[NameSource], found: &mut Detected) -> Result<(), String> {
    let wants = |name: &str| wanted.contains(&name);
    let mut missing = None;
    if wants("host.name") {
        match System::host_name() {
            Ok(name) => {
                let whole = sources.contains(&NameSource::Dns).then(|| whole_name(root, &name)).flatten();
                found.text("host.name", &whole.unwrap_or(name));
            }
            Err(error) => missing = Some(format!("the host has no name: {error}")),
        }
    }
    if wants("os.type") {
        found.text("os.type", std::env::consts::OS);
    }
    if wants("host.id") {
        match host_id::machine_id(root) {
            Ok(id) => found.text("host.id", &id),
            Err(message) => missing = Some(message),
        }
    }
    if wants("host.arch") {
        found.text("host.arch", arch(std::env::consts::ARCH));
    }
    if ["host.ip", "host.mac", "host.interface"].iter().any(|name| wants(name)) {
        match Networks::new_with_refreshed_list() {
            Ok(networks) => interfaces(&networks, wanted, found),
            Err(error) => missing = Some(format!("the interfaces cannot be listed: {error}")),
        }
    }
    if wanted.iter().any(|name| name.starts_with("host.cpu.")) {
        cpu(root, wanted, found);
    }
    for (name, told) in [
        ("os.name", System::name as fn() -> Result<String, sysinfo::Error>),
        ("os.version", System::os_version),
        ("os.description", System::long_os_version),
        ("os.build.id", System::kernel_version),
    ] {
        if wants(name) {
            match told() {
                Ok(text) => found.text(name, &text),
                Err(error) => missing = Some(format!("{name}: {error}")),
            }
        }
    }
    missing.map_or(Ok(()), Err)
}

/// The host's name with its domain: what stands first in the line of `/etc/hosts` that has it, as the resolver takes it.
fn whole_name(root: &Path, name: &str) -> Option<String> {
    let hosts = beginning(&root.join("etc/hosts"), FILE_BYTES_MAX).ok()?;
    let of_line = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let names: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
        let first = names.first().filter(|first| first.contains('.') && first.starts_with(name))?;
        names.contains(&name).then(|| (*first).to_owned())
    };
    hosts.lines().find_map(of_line)
}

/// As the conventions call it, which is as Go does.
fn arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "x86",
        "arm" => "arm32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Those that lead somewhere.
fn interfaces(networks: &Networks, wanted: &[&str], found: &mut Detected) {
    let mut all: Vec<_> = networks.iter().collect();
    all.sort_by_key(|(name, _)| name.as_os_str());
    let (mut addresses, mut macs, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (name, interface) in all {
        let ips: Vec<_> = interface.ip_networks().iter().map(|network| network.addr).filter(|ip| !ip.is_loopback()).collect();
        if ips.is_empty() {
            continue;
        }
        addresses.extend(ips.iter().map(ToString::to_string));
        let mac = interface.mac_address();
        if !mac.is_unspecified() {
            macs.push(mac.to_string().replace(':', "-").to_ascii_uppercase());
        }
        names.push(name.to_string_lossy().into_owned());
    }
    for (key, values) in [("host.ip", addresses), ("host.mac", macs), ("host.interface", names)] {
        if wanted.contains(&key) {
            found.texts(key, &values);
        }
    }
}

/// What all processors have in common is in the fields of the first.
fn cpu(root: &Path, wanted: &[&str], found: &mut Detected) {
    let Ok(text) = beginning(&root.join("proc/cpuinfo"), FILE_BYTES_MAX) else { return };
    // The parser asserts what it expects of a kernel.
    let Ok(Ok(info)) = catch_unwind(AssertUnwindSafe(|| CpuInfo::from_read(text.as_bytes()))) else { return };
    let field = |name: &str| info.fields.get(name).or_else(|| info.cpus.first().and_then(|cpu| cpu.get(name)));
    for (key, name) in [
        ("host.cpu.vendor.id", "vendor_id"),
        ("host.cpu.family", "cpu family"),
        ("host.cpu.model.id", "model"),
        ("host.cpu.model.name", "model name"),
        ("host.cpu.stepping", "stepping"),
    ] {
        if wanted.contains(&key)
            && let Some(value) = field(name)
        {
            found.text(key, value);
        }
    }
    let cache = field("cache size").and_then(|size| size.split(' ').next()?.parse().ok());
    if let (true, Some(kib)) = (wanted.contains(&"host.cpu.cache.l2.size"), cache) {
        found.int("host.cpu.cache.l2.size", kib);
    }
}
