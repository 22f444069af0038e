//! Adds to each resource what weir finds out about the machine it runs on.
//!
//! In:   batches of any signal.
//! Out:  the same, with the attributes that the detectors found; the very same bytes where nothing changes.
//! Full: never; it holds nothing.
//! Lost: with `override`, the values that attributes had before.
//!
//! ```yaml
//! processors:
//!   resource_detection:
//!     detectors: [env, system, container]    # of two that find one attribute the first counts
//!     override: true                         # false: what a resource says of itself stays
//!     system:
//!       hostname_sources: [os]
//!       resource_attributes:
//!         host.id: {enabled: true}
//! ```
//!
//! | detector | attributes (those in parentheses only when asked for) |
//! |---|---|
//! | `env` | what `OTEL_RESOURCE_ATTRIBUTES` lists |
//! | `system` | `host.name`, `os.type` (`host.id`, `host.arch`, `host.ip`, `host.mac`, `host.interface`, `host.cpu.…`, `os.name`, `os.version`, `os.description`, `os.build.id`) |
//! | `host_id` | `host.id`: the machine id |
//! | `container` | `container.id`, from the cgroup or what is mounted |
//! | `process` | `process.pid`, `process.executable.name`, `process.executable.path` (`process.command`, `process.command_line`) of weir itself |
//!
//! All of it is read when the processor is built: at the start and at each reload. Detectors of clouds and of Kubernetes are not there yet,
//! which `weir validate` says; they add nothing.

mod container;
mod detected;
mod env;
mod host_id;
mod process;
mod system;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    component::{BuildContext, BuiltProcessor, Processed, Processor, ProcessorConfig, Stability},
    config::{Diagnostics, Environment, GoDuration, Machine, Node, read, suggest},
    otlp::{
        edit::{AttributesWriter, Edit, Editor, edit},
        view::ResourceView,
    },
    runtime::BuildError,
    signal::{Batch, Signal, UnixNanos},
};
use detected::Detected;

/// The section as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// Which detectors are asked, in this order.
    detectors: Vec<String>,
    /// Whether what they find wins over what a resource says.
    r#override: bool,
    system: SystemSection,
    host_id: Attributes,
    container: Attributes,
    process: Attributes,
    /// Of requests to clouds.
    timeout: GoDuration,
    refresh_interval: GoDuration,
    tls: Option<IgnoredAny>,
    headers: Option<IgnoredAny>,
    auth: Option<IgnoredAny>,
    proxy_url: Option<IgnoredAny>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            detectors: vec!["env".to_owned()],
            r#override: true,
            system: SystemSection::default(),
            host_id: Attributes::default(),
            container: Attributes::default(),
            process: Attributes::default(),
            timeout: GoDuration::default(),
            refresh_interval: GoDuration::default(),
            tls: None,
            headers: None,
            auth: None,
            proxy_url: None,
        }
    }
}

/// `system`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SystemSection {
    /// Where the host's name comes from: the first that knows it.
    hostname_sources: Option<Vec<system::NameSource>>,
    resource_attributes: BTreeMap<String, One>,
}

/// The section of another detector.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Attributes {
    resource_attributes: BTreeMap<String, One>,
}

/// `resource_attributes::<name>`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct One {
    enabled: bool,
}

/// Detectors that a Collector has and weir does not: they ask services of clouds, of Kubernetes or of Docker.
const ELSEWHERE: &[&str] = &[
    "akamai",
    "aks",
    "alibaba_ecs",
    "azure",
    "consul",
    "digitalocean",
    "docker",
    "dynatrace",
    "ec2",
    "ecs",
    "eks",
    "elastic_beanstalk",
    "elasticbeanstalk",
    "gce",
    "gcp",
    "gke",
    "heroku",
    "hetzner",
    "ibmcloud_classic",
    "ibmcloud_vpc",
    "k8s_api",
    "k8snode",
    "kubeadm",
    "lambda",
    "nova",
    "openshift",
    "oraclecloud",
    "scaleway",
    "tencent_cvm",
    "upcloud",
    "vultr",
];

/// What a detector finds: its name, and its attributes with whether they are on where nothing is written.
struct Row {
    name: &'static str,
    attributes: &'static [(&'static str, bool)],
}

const DETECTORS: &[Row] = &[
    Row { name: "env", attributes: &[] },
    Row { name: "system", attributes: system::ATTRIBUTES },
    Row { name: "host_id", attributes: host_id::ATTRIBUTES },
    Row { name: "container", attributes: container::ATTRIBUTES },
    Row { name: "process", attributes: process::ATTRIBUTES },
];

/// Checked settings.
#[derive(Debug)]
pub struct Config {
    detectors: Vec<&'static str>,
    replaces: bool,
    name_sources: Vec<system::NameSource>,
    /// The attributes that are wanted, by detector.
    wanted: BTreeMap<&'static str, Vec<&'static str>>,
}

impl ProcessorConfig for Config {
    const TYPE: &'static str = "resource_detection";
    const ALIASES: &'static [&'static str] = &["resourcedetection"];
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        const INSTEAD: &str = "it adds nothing; let the senders say who they are (`OTEL_RESOURCE_ATTRIBUTES`), or keep a Collector agent for it before weir";
        let mut own = node.clone();
        for name in ELSEWHERE {
            if let Some((key, _)) = own.remove(name) {
                found.ineffective(key.origin, format!("the detector `{name}` is not there yet"), INSTEAD);
            }
        }
        let section: Section = read(&own, found);
        for key in ["timeout", "tls", "headers", "auth", "proxy_url"] {
            if node.get(key).is_some() {
                found.ineffective(
                    node.nearest(key).origin,
                    format!("{key} has no effect"),
                    "no detector here asks over a network",
                );
            }
        }
        if !section.refresh_interval.0.is_zero() {
            let origin = node.nearest("refresh_interval").origin;
            found.ineffective(
                origin,
                "refresh_interval has no effect",
                "detection is done at the start and at each reload (SIGHUP)",
            );
        }
        let written = node.nearest("detectors");
        let mut detectors = Vec::new();
        for (at, name) in section.detectors.iter().enumerate() {
            let origin = written.items().get(at).unwrap_or(written).origin;
            if let Some(row) = DETECTORS.iter().find(|row| row.name == name) {
                detectors.push(row.name);
            } else if ELSEWHERE.contains(&name.as_str()) {
                found.ineffective(origin, format!("the detector `{name}` is not there yet"), INSTEAD);
            } else {
                let known = DETECTORS.iter().map(|row| row.name);
                let help = suggest::nearest(name, known.clone())
                    .map_or_else(|| format!("there are {}", suggest::list(known)), |near| format!("did you mean `{near}`?"));
                found.error(origin, format!("there is no detector `{name}`"), Some(help));
            }
        }
        let none = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for row in DETECTORS {
            let asked = match row.name {
                "system" => &section.system.resource_attributes,
                "host_id" => &section.host_id.resource_attributes,
                "container" => &section.container.resource_attributes,
                "process" => &section.process.resource_attributes,
                _ => &none,
            };
            let known = row.attributes.iter().map(|(known, _)| *known);
            for name in asked.keys().filter(|name| !known.clone().any(|known| known == **name)) {
                let origin = node.nearest(&format!("{}::resource_attributes::{name}", row.name)).origin;
                let help = suggest::nearest(name, known.clone()).map(|near| format!("did you mean `{near}`?"));
                let help = help.unwrap_or_else(|| format!("there are {}", suggest::list(known.clone())));
                found.error(origin, format!("`{}` has no attribute `{name}`", row.name), Some(help));
            }
            let on = |(name, on): &&(&str, bool)| asked.get(*name).map_or(*on, |one| one.enabled);
            wanted.insert(row.name, row.attributes.iter().filter(on).map(|(name, _)| *name).collect());
        }
        let sources = node.nearest("system::hostname_sources");
        for (at, source) in section.system.hostname_sources.iter().flatten().enumerate() {
            if matches!(source, system::NameSource::Cname | system::NameSource::Lookup) {
                let origin = sources.items().get(at).unwrap_or(sources).origin;
                found.ineffective(
                    origin,
                    "no name server is asked for the host's name",
                    "`dns` looks into /etc/hosts, `os` asks the kernel",
                );
            }
        }
        let name_sources =
            section.system.hostname_sources.unwrap_or_else(|| vec![system::NameSource::Dns, system::NameSource::Os]);
        Self { detectors, replaces: section.r#override, name_sources, wanted }
    }

    fn build(self, context: BuildContext, _signal: Signal) -> Result<BuiltProcessor, BuildError> {
        let (found, complaints) = self.detect(Path::new("/"), &Machine);
        for (detector, message) in complaints {
            context.notes.add("detectors", format!("the detector `{detector}` does not find everything: {message}"), None);
        }
        Ok(BuiltProcessor::Stage(Arc::new(ResourceDetection { found, replaces: self.replaces })))
    }
}

impl Config {
    /// Asks the detectors in their order, of the machine whose `/` is at `root`. What one could not find out comes along.
    fn detect(&self, root: &Path, environment: &dyn Environment) -> (Detected, Vec<(&'static str, String)>) {
        let (mut found, mut complaints) = (Detected::default(), Vec::new());
        for name in &self.detectors {
            let wanted = self.wanted.get(name).map(Vec::as_slice).unwrap_or_default();
            let done = match *name {
                "env" => env::detect(environment, &mut found),
                "system" => system::detect(root, wanted, &self.name_sources, &mut found),
                "host_id" => host_id::detect(root, wanted, &mut found),
                "container" => {
                    container::detect(root, wanted, &mut found);
                    Ok(())
                }
                _ => process::detect(root, wanted, &mut found),
            };
            complaints.extend(done.err().map(|message| (*name, message)));
        }
        (found, complaints)
    }
}

struct ResourceDetection {
    found: Detected,
    replaces: bool,
}

impl Processor for ResourceDetection {
    fn process(&self, batch: Batch, _received: UnixNanos) -> Processed {
        let edited = edit(batch.signal, &batch.payload, &mut Resources(self));
        Processed::Keep(super::with_payload(batch, edited.payload))
    }
}

struct Resources<'a>(&'a ResourceDetection);

impl Editor for Resources<'_> {
    fn visits_items(&self) -> bool {
        false
    }

    fn resource(&mut self, resource: &ResourceView<'_>, out: &mut AttributesWriter) -> Edit {
        let ResourceDetection { found, replaces } = self.0;
        let attributes = resource.attributes;
        let missing = || found.iter().filter(|(key, _)| attributes.get(key).is_none());
        let other = |(key, value): (&str, &[u8])| {
            attributes.iter().any(|attribute| attribute.key() == key && attribute.value_bytes().unwrap_or_default() != value)
        };
        if *replaces && found.iter().any(other) {
            for attribute in attributes.iter() {
                match found.get(attribute.key()) {
                    Some(value) => out.encoded(attribute.key(), value),
                    None => out.keep(&attribute),
                }
            }
            missing().for_each(|(key, value)| out.encoded(key, value));
            return Edit::Replace;
        }
        missing().for_each(|(key, value)| out.encoded(key, value));
        if out.is_empty() { Edit::Keep } else { Edit::Append }
    }
}
