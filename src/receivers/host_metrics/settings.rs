//! The settings: those of the Collector's receiver of the same name, and `semantic_conventions` and the scraper `cgroup` of weir's own.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

use super::{
    asking::{Asking, statvfs},
    cgroup::{self, CGroup},
    cpu::{self, Cpu},
    disk::{self, Disk},
    filesystem::{self, FileSystem},
    filter::{self, Written},
    load::{self, Load},
    memory::{self, Memory},
    metric::{Conventions, Metric},
    network::{self, Network},
    paging::{self, Paging},
    process::{self, Process},
    processes::{self, Processes},
    round::Scraper,
    sheet::Chosen,
    system::{self, System},
};
use crate::config::{self, Diagnostics, GoDuration, Node, Section, suggest};

/// How long a file system may take to say how full it is.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// From one collection to the next. Above 0.
    pub(super) collection_interval: GoDuration,
    /// Before the first collection.
    pub(super) initial_delay: GoDuration,
    /// A collection that takes longer is told of; 0: one that takes longer than the interval.
    pub(super) timeout: GoDuration,
    /// Where the host's root directory is mounted; empty: `/`.
    pub(super) root_path: PathBuf,
    /// Of the Collector's events about the host, which weir does not send.
    metadata_collection_interval: GoDuration,
    /// By which conventions metrics are called: `v0`, `v1` or `both`.
    pub(super) semantic_conventions: Conventions,
    scrapers: Scrapers,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            collection_interval: GoDuration(Duration::from_mins(1)),
            initial_delay: GoDuration(Duration::from_secs(1)),
            timeout: GoDuration::default(),
            root_path: PathBuf::new(),
            metadata_collection_interval: GoDuration(Duration::from_mins(5)),
            semantic_conventions: Conventions::default(),
            scrapers: Scrapers::default(),
        }
    }
}

/// A scraper runs if its key is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Scrapers {
    cpu: Section<Plain>,
    memory: Section<Plain>,
    load: Section<LoadSection>,
    disk: Section<Listed>,
    filesystem: Section<FileSystemSection>,
    network: Section<Listed>,
    paging: Section<Plain>,
    processes: Section<Plain>,
    process: Section<ProcessSection>,
    system: Section<Plain>,
    cgroup: Section<Plain>,
}

type Metrics = BTreeMap<String, One>;

/// `metrics::<name>`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct One {
    enabled: Option<bool>,
    /// Which attributes its points have; without it those that the Collector gives them.
    attributes: Option<Vec<String>>,
    /// How points become one that differ in attributes left out.
    aggregation_strategy: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Plain {
    metrics: Metrics,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LoadSection {
    metrics: Metrics,
    cpu_average: bool,
}

/// `disk`, `network`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Listed {
    metrics: Metrics,
    include: Written,
    exclude: Written,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileSystemSection {
    metrics: Metrics,
    include_virtual_filesystems: bool,
    include_devices: Written,
    exclude_devices: Written,
    include_fs_types: Written,
    exclude_fs_types: Written,
    include_mount_points: Written,
    exclude_mount_points: Written,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProcessSection {
    metrics: Metrics,
    resource_attributes: BTreeMap<String, One>,
    include: Written,
    exclude: Written,
    mute_process_all_errors: bool,
    mute_process_name_error: bool,
    mute_process_exe_error: bool,
    mute_process_io_error: bool,
    mute_process_user_error: bool,
    mute_process_cgroup_error: bool,
    scrape_process_delay: GoDuration,
}

/// Checks one scraper's section after the other, and makes the scrapers.
struct Reading<'a> {
    /// `scrapers`
    node: &'a Node,
    found: &'a mut Diagnostics,
    scrapers: Vec<Box<dyn Scraper>>,
}

impl Settings {
    /// Reads and checks; gives the scrapers that were asked for, in the order in which they are asked.
    pub(super) fn read(node: &Node, found: &mut Diagnostics) -> (Self, Vec<Box<dyn Scraper>>) {
        let mut settings: Self = config::read(node, found);
        if settings.collection_interval.0.is_zero() {
            let help = Some("`collection_interval: 1m` is the usual value".to_owned());
            found.error(node.nearest("collection_interval").origin, "collection_interval must be greater than zero", help);
        }
        if settings.root_path.as_os_str().is_empty() {
            settings.root_path = PathBuf::from("/");
        } else if !settings.root_path.is_absolute() {
            let help = Some("the directory where the host's `/` is mounted, `/hostfs` for example".to_owned());
            found.error(node.nearest("root_path").origin, "root_path must be an absolute path", help);
        }
        if node.get("metadata_collection_interval").is_some() {
            let origin = node.nearest("metadata_collection_interval").origin;
            found.ineffective(origin, "metadata_collection_interval has no effect", "weir sends no events about the host");
        }
        let mut reading = Reading { node: node.nearest("scrapers"), found, scrapers: Vec::new() };
        reading.read(std::mem::take(&mut settings.scrapers));
        let scrapers = reading.scrapers;
        if scrapers.is_empty() && !found.has_errors() {
            let help = "name those you want: `scrapers: {cpu: , memory: , load: , disk: , filesystem: , network: , paging: , processes: , system: }`";
            let origin = node.nearest("scrapers").origin;
            found.error(origin, "the receiver has no scraper, so it would read nothing", Some(help.to_owned()));
        }
        (settings, scrapers)
    }
}

impl Reading<'_> {
    fn read(&mut self, scrapers: Scrapers) {
        let Scrapers { cpu, memory, load, disk, filesystem, network, paging, processes, process, system, cgroup } = scrapers;
        if let Some(section) = cpu.0 {
            let time = by_cpu(&section.metrics, "system.cpu.time");
            let utilization = by_cpu(&section.metrics, "system.cpu.utilization");
            let chosen = self.chosen("cpu", &section.metrics, cpu::METRICS);
            self.add(Cpu::new(chosen, time, utilization));
        }
        if let Some(section) = memory.0 {
            let chosen = self.chosen("memory", &section.metrics, memory::METRICS);
            self.add(Memory { chosen });
        }
        if let Some(section) = load.0 {
            let chosen = self.chosen("load", &section.metrics, load::METRICS);
            self.add(Load { chosen, by_cpu: section.cpu_average });
        }
        if let Some(section) = disk.0 {
            let chosen = self.chosen("disk", &section.metrics, disk::METRICS);
            let filter = self.filter("disk", (section.include, section.exclude), ("include", "exclude"), "devices");
            self.add(Disk { chosen, filter });
        }
        if let Some(section) = filesystem.0 {
            self.filesystem(section);
        }
        if let Some(section) = network.0 {
            let chosen = self.chosen("network", &section.metrics, network::METRICS);
            let filter = self.filter("network", (section.include, section.exclude), ("include", "exclude"), "interfaces");
            self.add(Network { chosen, filter, told: false });
        }
        if let Some(section) = paging.0 {
            let chosen = self.chosen("paging", &section.metrics, paging::METRICS);
            self.add(Paging { chosen });
        }
        if let Some(section) = processes.0 {
            let chosen = self.chosen("processes", &section.metrics, processes::METRICS);
            self.add(Processes { chosen });
        }
        if let Some(section) = system.0 {
            let chosen = self.chosen("system", &section.metrics, system::METRICS);
            self.add(System { chosen });
        }
        if let Some(section) = cgroup.0 {
            let chosen = self.chosen("cgroup", &section.metrics, cgroup::METRICS);
            self.add(CGroup { chosen });
        }
        // Last: it takes longest, and what is read before is as of one moment.
        if let Some(section) = process.0 {
            self.process(section);
        }
    }

    fn add(&mut self, scraper: impl Scraper + 'static) {
        self.scrapers.push(Box::new(scraper));
    }

    fn filter(&mut self, scraper: &str, lists: (Written, Written), keys: (&str, &str), names: &str) -> filter::Filter {
        filter::read(lists, self.node.nearest(scraper), keys, names, self.found)
    }

    fn filesystem(&mut self, section: FileSystemSection) {
        const NAME: &str = "filesystem";
        let chosen = self.chosen(NAME, &section.metrics, filesystem::METRICS);
        let devices = (section.include_devices, section.exclude_devices);
        let types = (section.include_fs_types, section.exclude_fs_types);
        let points = (section.include_mount_points, section.exclude_mount_points);
        let devices = self.filter(NAME, devices, ("include_devices", "exclude_devices"), "devices");
        let types = self.filter(NAME, types, ("include_fs_types", "exclude_fs_types"), "fs_types");
        let mount_points = self.filter(NAME, points, ("include_mount_points", "exclude_mount_points"), "mount_points");
        let asking = Asking::new(statvfs, PATIENCE);
        let include_virtual = section.include_virtual_filesystems;
        self.add(FileSystem { chosen, devices, types, mount_points, include_virtual, asking });
    }

    fn process(&mut self, section: ProcessSection) {
        const NAME: &str = "process";
        // Windows only.
        let mut metrics = section.metrics;
        if metrics.remove("process.handles").is_some() {
            let origin = self.node.nearest("process::metrics::process.handles").origin;
            self.found.ineffective(origin, "`process.handles` is a metric of Windows", "it has no points here");
        }
        let chosen = self.chosen(NAME, &metrics, process::METRICS);
        let identity = process::IDENTITY;
        let known = |name: &str| identity.iter().any(|(known, _)| *known == name);
        for name in section.resource_attributes.keys().filter(|name| !known(name)) {
            let origin = self.node.nearest(&format!("process::resource_attributes::{name}")).origin;
            self.unknown("resource attribute", name, identity.iter().map(|(known, _)| *known), origin);
        }
        let asked = |name: &str| section.resource_attributes.get(name).and_then(|one| one.enabled);
        let identity = identity.iter().filter(|(name, on)| asked(name).unwrap_or(*on)).map(|(name, _)| *name).collect();
        let filter = self.filter(NAME, (section.include, section.exclude), ("include", "exclude"), "names");
        let mute = process::Mute {
            all: section.mute_process_all_errors,
            name: section.mute_process_name_error,
            exe: section.mute_process_exe_error,
            io: section.mute_process_io_error,
            user: section.mute_process_user_error,
            cgroup: section.mute_process_cgroup_error,
        };
        let delay = u64::try_from(section.scrape_process_delay.0.as_nanos()).unwrap_or(u64::MAX);
        self.add(Process { chosen, identity, filter, mute, delay, last: HashMap::new() });
    }

    fn unknown<'n>(&mut self, what: &str, name: &str, known: impl Iterator<Item = &'n str> + Clone, origin: config::Origin) {
        let near = suggest::nearest(name, known.clone()).map(|near| format!("did you mean `{near}`?"));
        let help = near.unwrap_or_else(|| format!("there are {}", suggest::list(known)));
        self.found.error(origin, format!("there is no {what} `{name}`"), Some(help));
    }

    /// Which of a scraper's metrics are told of.
    fn chosen(&mut self, scraper: &str, written: &Metrics, metrics: &'static [Metric]) -> Chosen {
        for (name, one) in written {
            let origin = self.node.nearest(&format!("{scraper}::metrics::{name}")).origin;
            let Some(metric) = metrics.iter().find(|metric| metric.name == *name) else {
                self.unknown("metric", name, metrics.iter().map(|metric| metric.name), origin);
                continue;
            };
            self.attributes(metric, one, origin);
        }
        let on = |metric: &&Metric| written.get(metric.name).and_then(|one| one.enabled).unwrap_or(metric.on);
        Chosen(metrics.iter().filter(on).map(|metric| metric.name).collect())
    }

    /// The list of attributes may leave out the CPU, and nothing else.
    fn attributes(&mut self, metric: &Metric, one: &One, origin: config::Origin) {
        let Some(attributes) = &one.attributes else { return };
        for name in attributes.iter().filter(|name| !metric.attributes.iter().any(|key| key.old == **name)) {
            self.unknown("attribute", name, metric.attributes.iter().map(|key| key.old), origin);
        }
        let frequency = metric.name == "system.cpu.frequency";
        for key in metric.attributes.iter().filter(|key| key.old != "cpu" || frequency) {
            if !attributes.iter().any(|name| name == key.old) {
                let help = "add points up where they are looked at: `sum without (…)`";
                self.found.error(origin, format!("`{}` cannot leave out `{}`", metric.name, key.old), Some(help.to_owned()));
            }
        }
        if one.aggregation_strategy.as_deref().is_some_and(|strategy| strategy != "sum") && metric.name == "system.cpu.time" {
            self.found.error(origin, "CPU time is added up, and nothing else", Some("`aggregation_strategy: sum`".to_owned()));
        }
    }
}

/// Whether a metric is told of CPU by CPU: only where it is asked for.
fn by_cpu(metrics: &Metrics, name: &str) -> bool {
    let attributes = metrics.get(name).and_then(|one| one.attributes.as_ref());
    attributes.is_some_and(|attributes| attributes.iter().any(|attribute| attribute == "cpu"))
}
