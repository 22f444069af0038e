//! One of `scrape_configs`, and what finds its targets.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, de, de::IgnoredAny};

use super::{Common, Word, protocol, protocols, web::WebKeys, written};
use crate::{
    config::{Diagnostics, Node, Origin, read2, shown_url, suggest},
    receivers::prometheus::{
        discovery::{Dns, Files, Group, Record, Server, Source},
        duration::{self, Span},
        job::{BODY_BYTES_MAX, Job, Limits, Protocol},
        labels::Labels,
        pool::TARGETS_MAX,
        relabel::{Action, Rule, pattern},
        translate::SAMPLES_MAX,
    },
};

const INTERVAL: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(10);

/// A size as Prometheus writes it: `10MB` are 10 × 1024 × 1024 bytes. 0: none is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Bytes(pub(in super::super) u64);

impl Bytes {
    pub(in super::super) fn parse(text: &str) -> Option<u64> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let power = match unit.to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "KB" | "KIB" => 1,
            "MB" | "MIB" => 2,
            "GB" | "GIB" => 3,
            "TB" | "TIB" => 4,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as 10MB")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                Bytes::parse(text).map(Bytes).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_u64<E>(self, bytes: u64) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Bytes, E> {
                u64::try_from(bytes).map(Bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
            }
            fn visit_unit<E>(self) -> Result<Bytes, E> {
                Ok(Bytes::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    job_name: String,
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
    scrape_protocols: Vec<String>,
    fallback_scrape_protocol: String,
    metrics_path: String,
    scheme: String,
    params: BTreeMap<String, Vec<Word>>,
    honor_labels: bool,
    honor_timestamps: bool,
    track_timestamps_staleness: bool,
    body_size_limit: Option<Bytes>,
    sample_limit: Option<u64>,
    target_limit: Option<u64>,
    label_limit: Option<u64>,
    label_name_length_limit: Option<u64>,
    label_value_length_limit: Option<u64>,
    native_histogram_bucket_limit: u64,
    native_histogram_min_bucket_factor: f64,
    scrape_native_histograms: Option<bool>,
    /// The name of `always_scrape_classic_histograms` before Prometheus 3.
    scrape_classic_histograms: Option<bool>,
    always_scrape_classic_histograms: Option<bool>,
    convert_classic_histograms_to_nhcb: Option<bool>,
    extra_scrape_metrics: Option<bool>,
    metric_name_validation_scheme: String,
    metric_name_escaping_scheme: String,
    enable_compression: bool,
    #[serde(rename = "scrape_failure_log_file")]
    _scrape_failure_log_file: IgnoredAny,
    #[serde(rename = "keep_dropped_targets")]
    _keep_dropped_targets: IgnoredAny,
    static_configs: Vec<Static>,
    file_sd_configs: Vec<FileKeys>,
    #[serde(rename = "http_sd_configs")]
    _http_sd_configs: IgnoredAny,
    dns_sd_configs: Vec<DnsKeys>,
    relabel_configs: Vec<Relabel>,
    metric_relabel_configs: Vec<Relabel>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            job_name: String::new(),
            scrape_interval: None,
            scrape_timeout: None,
            scrape_protocols: Vec::new(),
            fallback_scrape_protocol: String::new(),
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: BTreeMap::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            body_size_limit: None,
            sample_limit: None,
            target_limit: None,
            label_limit: None,
            label_name_length_limit: None,
            label_value_length_limit: None,
            native_histogram_bucket_limit: 0,
            native_histogram_min_bucket_factor: 0.0,
            scrape_native_histograms: None,
            scrape_classic_histograms: None,
            always_scrape_classic_histograms: None,
            convert_classic_histograms_to_nhcb: None,
            extra_scrape_metrics: None,
            metric_name_validation_scheme: String::new(),
            metric_name_escaping_scheme: String::new(),
            enable_compression: true,
            _scrape_failure_log_file: IgnoredAny,
            _keep_dropped_targets: IgnoredAny,
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
            _http_sd_configs: IgnoredAny,
            dns_sd_configs: Vec::new(),
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Static {
    targets: Vec<Word>,
    labels: BTreeMap<String, Word>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileKeys {
    files: Vec<String>,
    refresh_interval: Span,
}

impl Default for FileKeys {
    fn default() -> Self {
        Self { files: Vec::new(), refresh_interval: Span(Duration::from_mins(5)) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServerKeys {
    url: String,
    refresh_interval: Span,
}

impl Default for ServerKeys {
    fn default() -> Self {
        Self { url: String::new(), refresh_interval: Span(Duration::from_mins(1)) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DnsKeys {
    names: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
    port: u16,
    refresh_interval: Span,
}

impl Default for DnsKeys {
    fn default() -> Self {
        Self { names: Vec::new(), kind: "SRV".to_owned(), port: 0, refresh_interval: Span(Duration::from_secs(30)) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Relabel {
    source_labels: Vec<String>,
    separator: String,
    target_label: String,
    regex: Word,
    modulus: u64,
    replacement: Word,
    action: String,
}

impl Default for Relabel {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            target_label: String::new(),
            regex: Word("(.*)".to_owned()),
            modulus: 0,
            replacement: Word("$1".to_owned()),
            action: "replace".to_owned(),
        }
    }
}

/// Discoveries that Prometheus has and weir has not.
const ELSEWHERE: &[&str] = &[
    "aws",
    "azure",
    "consul",
    "digitalocean",
    "docker",
    "dockerswarm",
    "ec2",
    "ecs",
    "eureka",
    "gce",
    "hetzner",
    "ionos",
    "kubernetes",
    "kuma",
    "lightsail",
    "linode",
    "marathon",
    "nerve",
    "nomad",
    "openstack",
    "outscale",
    "ovhcloud",
    "puppetdb",
    "scaleway",
    "serverset",
    "stackit",
    "triton",
    "uyuni",
    "vultr",
];

pub(super) fn job(node: &Node, common: &Common<'_>, found: &mut Diagnostics) -> Job {
    let mut node = node.clone();
    for kind in ELSEWHERE {
        let key = format!("{kind}_sd_configs");
        if let Some((name, _)) = node.remove(&key) {
            let help = "weir finds targets by static_configs, file_sd_configs, http_sd_configs and dns_sd_configs; something else can write a \
                        file for `file_sd_configs` or answer `http_sd_configs`";
            found.error(name.origin, format!("weir does not find targets by `{key}`"), Some(help.to_owned()));
        }
    }
    let (keys, web): (Keys, WebKeys) = read2(&node, found);
    let mut reading = Reading { node: &node, common, found };
    reading.job(keys, web)
}

struct Reading<'a> {
    node: &'a Node,
    common: &'a Common<'a>,
    found: &'a mut Diagnostics,
}

impl Reading<'_> {
    fn at(&self, key: &str) -> Origin {
        self.node.get(key).map_or(self.node.origin, |node| node.origin)
    }

    /// The place of a key, here or in `global`.
    fn either(&self, key: &str) -> Origin {
        let global = || self.common.node.get("global").and_then(|global| global.get(key));
        self.node.get(key).or_else(global).map_or(self.node.origin, |node| node.origin)
    }

    fn job(&mut self, keys: Keys, web: WebKeys) -> Job {
        let global = &self.common.global;
        if keys.job_name.is_empty() {
            self.found.error(self.node.origin, "the job has no name", Some("add `job_name: …`".to_owned()));
        }
        self.without_effect(&keys);
        let interval = self.interval(&keys);
        let timeout = self.timeout(&keys, interval);
        if !matches!(keys.scheme.as_str(), "http" | "https") {
            let message = format!("`{}` is neither http nor https", keys.scheme);
            self.found.error(self.at("scheme"), message, None);
        }
        let native = keys.scrape_native_histograms.unwrap_or(global.scrape_native_histograms);
        let protocols = self.protocols(&keys, native);
        let fallback = match keys.fallback_scrape_protocol.as_str() {
            // As the Collector has it, where Prometheus refuses such a page.
            "" => Some(Protocol::Text0),
            name => {
                let known = protocol(name);
                if known.is_none() {
                    let names = suggest::list(Protocol::NAMES.iter().map(|(name, _)| *name));
                    let message = format!("`{name}` is not a format of pages");
                    self.found.error(self.at("fallback_scrape_protocol"), message, Some(format!("there are {names}")));
                }
                known
            }
        };
        let limits = self.limits(&keys);
        let always = keys.always_scrape_classic_histograms.or(keys.scrape_classic_histograms);
        let sources = self.sources(&keys);
        let escaping = self.escaping(&keys);
        Job {
            relabel: self.rules("relabel_configs", &keys.relabel_configs),
            metric_relabel: self.rules("metric_relabel_configs", &keys.metric_relabel_configs),
            name: keys.job_name,
            interval,
            timeout,
            metrics_path: keys.metrics_path,
            scheme: keys.scheme,
            params: keys
                .params
                .into_iter()
                .map(|(name, values)| (name, values.into_iter().map(|value| value.0).collect()))
                .collect(),
            honor_labels: keys.honor_labels,
            honor_timestamps: keys.honor_timestamps,
            track_timestamps_staleness: keys.track_timestamps_staleness,
            limits,
            external_labels: global.external_labels.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
            trim_metric_suffixes: self.common.trim_metric_suffixes,
            protocols,
            fallback,
            escaping,
            native,
            classic_beside: always.unwrap_or(global.always_scrape_classic_histograms),
            compression: keys.enable_compression,
            extra: keys.extra_scrape_metrics.unwrap_or(self.common.extra),
            web: web.settle(self.node, self.found),
            sources,
            identity: foldhash::quality::RandomState::default(),
        }
    }

    fn without_effect(&mut self, keys: &Keys) {
        for (key, instead) in [
            ("scrape_failure_log_file", "failed scrapes stand in weir's own log, and are counted in `weir_scrapes`"),
            ("keep_dropped_targets", "dropped targets are not kept"),
        ] {
            if let Some(origin) = written(self.node, key) {
                self.found.ineffective(origin, format!("`{key}` has no effect"), instead);
            }
        }
        let coarser = "native histograms are passed on as fine as they come";
        if keys.native_histogram_bucket_limit > 0 {
            let origin = self.at("native_histogram_bucket_limit");
            self.found.ineffective(origin, "`native_histogram_bucket_limit` has no effect", coarser);
        }
        if keys.native_histogram_min_bucket_factor > 0.0 {
            let origin = self.at("native_histogram_min_bucket_factor");
            self.found.ineffective(origin, "`native_histogram_min_bucket_factor` has no effect", coarser);
        }
        if keys.convert_classic_histograms_to_nhcb.unwrap_or(self.common.global.convert_classic_histograms_to_nhcb) {
            let origin = self.either("convert_classic_histograms_to_nhcb");
            let instead = "a classic histogram is a histogram with explicit bounds in OTLP, as such a native one would be";
            self.found.ineffective(origin, "`convert_classic_histograms_to_nhcb` has no effect", instead);
        }
    }

    /// 0 is what is not written, here as in `global`.
    fn limits(&mut self, keys: &Keys) -> Limits {
        let global = &self.common.global;
        let own = |own: Option<u64>, global: u64| own.filter(|own| *own > 0).unwrap_or(global);
        let body_bytes = own(keys.body_size_limit.map(|bytes| bytes.0), global.body_size_limit.0);
        let samples = own(keys.sample_limit, global.sample_limit);
        let targets = own(keys.target_limit, global.target_limit);
        let limits = Limits {
            body_bytes: match usize::try_from(body_bytes).unwrap_or(usize::MAX) {
                0 => BODY_BYTES_MAX,
                bytes => bytes.min(BODY_BYTES_MAX),
            },
            samples: if samples == 0 { u64::MAX } else { samples },
            labels: own(keys.label_limit, global.label_limit),
            label_name: own(keys.label_name_length_limit, global.label_name_length_limit),
            label_value: own(keys.label_value_length_limit, global.label_value_length_limit),
            targets,
        };
        for (key, written, most, what) in [
            ("body_size_limit", body_bytes, BODY_BYTES_MAX as u64, "bytes of a page"),
            ("sample_limit", samples, SAMPLES_MAX, "samples of a page"),
            ("target_limit", targets, TARGETS_MAX as u64, "targets of a job"),
        ] {
            if written > most {
                let message = format!("`{key}` ({written}) is above what weir takes");
                self.found.ineffective(self.either(key), message, format!("the limit is {most} {what}"));
            }
        }
        limits
    }

    fn interval(&self, keys: &Keys) -> Duration {
        let written = |span: Option<Span>| span.filter(|span| !span.0.is_zero());
        written(keys.scrape_interval).or(written(self.common.global.scrape_interval)).map_or(INTERVAL, |span| span.0)
    }

    fn timeout(&mut self, keys: &Keys, interval: Duration) -> Duration {
        let written = |span: Option<Span>| span.map(|span| span.0).filter(|span| !span.is_zero());
        match written(keys.scrape_timeout) {
            Some(own) if own > interval => {
                let (own, most) = (duration::text(own), duration::text(interval));
                let message = format!("`scrape_timeout` ({own}) is longer than the interval ({most})");
                self.found.error(self.at("scrape_timeout"), message, None);
                interval
            }
            Some(own) => own,
            None => written(self.common.global.scrape_timeout).unwrap_or(TIMEOUT).min(interval),
        }
    }

    fn protocols(&mut self, keys: &Keys, native: bool) -> Vec<Protocol> {
        let global = &self.common.global.scrape_protocols;
        let names = if keys.scrape_protocols.is_empty() { global } else { &keys.scrape_protocols };
        let written = protocols(names, self.either("scrape_protocols"), self.found);
        if !written.is_empty() {
            return written;
        }
        let first = native.then_some(Protocol::Protobuf);
        first.into_iter().chain(Protocol::USUAL).collect()
    }

    fn escaping(&mut self, keys: &Keys) -> String {
        let global = &self.common.global;
        let pick = |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
        let validation = pick(&keys.metric_name_validation_scheme, &global.metric_name_validation_scheme);
        let escaping = pick(&keys.metric_name_escaping_scheme, &global.metric_name_escaping_scheme);
        if !matches!(validation.as_str(), "" | "utf8" | "legacy") {
            let origin = self.either("metric_name_validation_scheme");
            self.found.error(origin, format!("`{validation}` is not a scheme of names"), Some("use utf8 or legacy".to_owned()));
        }
        match escaping.as_str() {
            "" if validation == "legacy" => "underscores".to_owned(),
            "" => "allow-utf-8".to_owned(),
            "allow-utf-8" | "underscores" | "dots" | "values" => escaping,
            other => {
                let help = "use allow-utf-8, underscores, dots or values".to_owned();
                self.found.error(
                    self.either("metric_name_escaping_scheme"),
                    format!("`{other}` is not a way to escape names"),
                    Some(help),
                );
                "allow-utf-8".to_owned()
            }
        }
    }

    fn sources(&mut self, keys: &Keys) -> Vec<Source> {
        let mut sources = Vec::new();
        if !keys.static_configs.is_empty() {
            let node = self.node.nearest("static_configs");
            for (one, node) in keys.static_configs.iter().zip(node.items()) {
                // Where there are rules an address may be anything: what is asked on behalf of it is in another label then.
                let plain = keys.relabel_configs.is_empty();
                for (target, at) in one.targets.iter().zip(node.nearest("targets").items()) {
                    if plain && target.0.contains('/') {
                        let message = format!("`{}` is not host:port", shown_url(&target.0));
                        let help = "scheme and path have keys of their own: `scheme`, `metrics_path`".to_owned();
                        self.found.error(at.origin, message, Some(help));
                    }
                }
            }
            let group = |one: &Static| Group {
                targets: one.targets.iter().map(|target| target.0.clone()).collect(),
                labels: one
                    .labels
                    .iter()
                    .map(|(name, value)| (name.clone(), value.0.clone()))
                    .collect::<Labels<'_>>()
                    .into_owned(),
            };
            sources.push(Source::Static(keys.static_configs.iter().map(group).collect()));
        }
        self.files(keys, &mut sources);
        self.servers(&mut sources);
        self.dns(keys, &mut sources);
        sources
    }

    fn refresh(&mut self, span: Span, node: &Node) -> Duration {
        if span.0.is_zero() {
            self.found.error(node.nearest("refresh_interval").origin, "`refresh_interval` has to be above 0", None);
            return Duration::from_mins(1);
        }
        span.0
    }

    fn files(&mut self, keys: &Keys, sources: &mut Vec<Source>) {
        let nodes = self.node.nearest("file_sd_configs").items();
        for (one, node) in keys.file_sd_configs.iter().zip(nodes) {
            if one.files.is_empty() {
                self.found.error(
                    node.origin,
                    "`file_sd_configs` names no files",
                    Some("add `files: [targets/*.json]`".to_owned()),
                );
            }
            for (path, at) in one.files.iter().zip(node.nearest("files").items()) {
                let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
                let is_list = [".json", ".yml", ".yaml"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
                if directory.contains('*') || !is_list {
                    let help = "it ends in .json, .yml or .yaml; `*` stands in the last part of the path only".to_owned();
                    self.found.error(at.origin, format!("`{path}` is not a path of a list of targets"), Some(help));
                }
            }
            let refresh = self.refresh(one.refresh_interval, node);
            sources.push(Source::Files(Files { paths: one.files.clone(), refresh }));
        }
    }

    fn servers(&mut self, sources: &mut Vec<Source>) {
        for node in self.node.nearest("http_sd_configs").items() {
            let (keys, web): (ServerKeys, WebKeys) = read2(node, self.found);
            let refresh = self.refresh(keys.refresh_interval, node);
            let web = web.settle(node, self.found);
            let url = crate::transport::client::Endpoint::http(&keys.url)
                .and_then(|_| keys.url.parse().map_err(|_| "this is not a URL".to_owned()));
            match url {
                Ok(url) => sources.push(Source::Server(Box::new(Server { url, refresh, web }))),
                Err(problem) => self.found.error(node.nearest("url").origin, problem, None),
            }
        }
    }

    fn dns(&mut self, keys: &Keys, sources: &mut Vec<Source>) {
        let nodes = self.node.nearest("dns_sd_configs").items();
        for (one, node) in keys.dns_sd_configs.iter().zip(nodes) {
            if one.names.is_empty() {
                self.found.error(
                    node.origin,
                    "`dns_sd_configs` has no names",
                    Some("add `names: [exporters.example.org]`".to_owned()),
                );
            }
            let record = match one.kind.to_ascii_uppercase().as_str() {
                "A" => Record::A,
                "AAAA" => Record::Aaaa,
                other => {
                    let help = "weir looks up addresses by the system's resolver: set `type: A` (or AAAA) and `port`".to_owned();
                    let message = match other {
                        "SRV" if node.get("type").is_none() => {
                            "without `type` it asks for SRV records, which weir does not look up".to_owned()
                        }
                        other => format!("weir does not look up `{other}` records"),
                    };
                    self.found.error(node.nearest("type").origin, message, Some(help));
                    continue;
                }
            };
            if one.port == 0 {
                self.found.error(node.nearest("port").origin, "addresses need a port", Some("add `port: 9100`".to_owned()));
            }
            let refresh = self.refresh(one.refresh_interval, node);
            sources.push(Source::Dns(Dns { names: one.names.clone(), record, port: one.port, refresh }));
        }
    }

    fn rules(&mut self, key: &str, written: &[Relabel]) -> Vec<Rule> {
        let nodes = self.node.nearest(key).items();
        written.iter().zip(nodes).filter_map(|(one, node)| rule(one, node, self.found)).collect()
    }
}

fn rule(one: &Relabel, node: &Node, found: &mut Diagnostics) -> Option<Rule> {
    let at = |key: &str| node.nearest(key).origin;
    let names = || Action::NAMES.iter().map(|(name, _)| *name);
    let Some(action) = Action::parse(&one.action) else {
        let help = suggest::nearest(&one.action, names())
            .map_or_else(|| format!("there are {}", suggest::list(names())), |near| format!("did you mean `{near}`?"));
        found.error(at("action"), format!("`{}` is not an action of relabelling", one.action), Some(help));
        return None;
    };
    if action.needs_target() && one.target_label.is_empty() {
        found.error(node.origin, format!("`{}` needs a `target_label`", one.action), None);
    }
    if action == Action::HashMod && one.modulus == 0 {
        found.error(node.origin, "`hashmod` needs a `modulus` above 0", None);
    }
    let only_names = matches!(action, Action::LabelDrop | Action::LabelKeep);
    if only_names && (!one.source_labels.is_empty() || !one.target_label.is_empty() || one.modulus != 0) {
        found.error(node.origin, format!("`{}` looks at the names of labels, and has only `regex`", one.action), None);
    }
    match pattern(&one.regex.0) {
        Ok(pattern) => Some(Rule {
            action,
            source_labels: one.source_labels.clone(),
            separator: one.separator.clone(),
            pattern,
            modulus: one.modulus,
            target_label: one.target_label.clone(),
            replacement: one.replacement.0.clone(),
        }),
        Err(problem) => {
            found.error(at("regex"), format!("`{}` is not a pattern: {problem}", one.regex.0), None);
            None
        }
    }
}

/// For tests of other files.
#[cfg(test)]
pub(in super::super) fn one_rule(text: &str) -> (Option<Rule>, Diagnostics) {
    let mut found = Diagnostics::default();
    let node = crate::config::document(text).expect("YAML");
    let written: Relabel = crate::config::read(&node, &mut found);
    (rule(&written, &node, &mut found), found)
}
