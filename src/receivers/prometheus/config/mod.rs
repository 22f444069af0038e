//! The settings: a part of a Prometheus file below `config`, as the Collector's receiver has it.

mod scrape;
mod web;

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{
    duration::Span,
    job::{Job, Protocol},
};
use crate::config::{Diagnostics, Node, Origin, Value, read};

pub(super) use scrape::Bytes;
#[cfg(test)]
pub(super) use scrape::one_rule;

/// Beside `config`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Top {
    #[serde(rename = "config")]
    _config: IgnoredAny,
    trim_metric_suffixes: bool,
    use_start_time_metric: bool,
    #[serde(rename = "start_time_metric_regex")]
    _start_time_metric_regex: String,
    report_extra_scrape_metrics: bool,
    #[serde(rename = "target_allocator")]
    _target_allocator: IgnoredAny,
    #[serde(rename = "api_server")]
    _api_server: IgnoredAny,
}

/// `config`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Whole {
    global: Global,
    #[serde(rename = "scrape_configs")]
    _scrape_configs: IgnoredAny,
    #[serde(rename = "scrape_config_files")]
    _scrape_config_files: IgnoredAny,
    #[serde(rename = "rule_files")]
    _rule_files: IgnoredAny,
    #[serde(rename = "alerting")]
    _alerting: IgnoredAny,
    #[serde(rename = "remote_write")]
    _remote_write: IgnoredAny,
    #[serde(rename = "remote_read")]
    _remote_read: IgnoredAny,
    #[serde(rename = "storage")]
    _storage: IgnoredAny,
    #[serde(rename = "tracing")]
    _tracing: IgnoredAny,
    #[serde(rename = "otlp")]
    _otlp: IgnoredAny,
    #[serde(rename = "runtime")]
    _runtime: IgnoredAny,
}

/// `global`: what a job has that does not say it itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Global {
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
    #[serde(rename = "evaluation_interval")]
    _evaluation_interval: IgnoredAny,
    #[serde(rename = "rule_query_offset")]
    _rule_query_offset: IgnoredAny,
    #[serde(rename = "query_log_file")]
    _query_log_file: IgnoredAny,
    #[serde(rename = "scrape_failure_log_file")]
    _scrape_failure_log_file: IgnoredAny,
    #[serde(rename = "keep_dropped_targets")]
    _keep_dropped_targets: IgnoredAny,
    external_labels: BTreeMap<String, Word>,
    scrape_protocols: Vec<String>,
    body_size_limit: Bytes,
    sample_limit: u64,
    target_limit: u64,
    label_limit: u64,
    label_name_length_limit: u64,
    label_value_length_limit: u64,
    metric_name_validation_scheme: String,
    metric_name_escaping_scheme: String,
    scrape_native_histograms: bool,
    always_scrape_classic_histograms: bool,
    convert_classic_histograms_to_nhcb: bool,
    extra_scrape_metrics: bool,
}

/// A text, or a number or truth value that is meant as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word(pub(super) String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Word;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Word, E> {
                Ok(Word(value.to_string()))
            }
            fn visit_unit<E>(self) -> Result<Word, E> {
                Ok(Word::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What is written but has no effect here: key and what happens instead.
const INEFFECTIVE: &[(&str, &str)] = &[
    ("global::evaluation_interval", "weir has no rules"),
    ("global::rule_query_offset", "weir has no rules"),
    ("global::query_log_file", "weir has no queries"),
    ("global::scrape_failure_log_file", "failed scrapes stand in weir's own log, and are counted in `weir_scrapes`"),
    ("global::keep_dropped_targets", "dropped targets are not kept"),
    ("storage", "weir keeps what it scraped in its journal"),
    ("tracing", "weir traces itself by `service::telemetry::traces`"),
    ("otlp", "OTLP comes in by the `otlp` receiver"),
    ("runtime", "there is no Go runtime to set"),
];

/// What the Collector refuses, too, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("remote_write", "use the `prometheus_remote_write` exporter"),
    ("remote_read", "weir keeps no history to read"),
    ("rule_files", "give rules to the Prometheus that stores the metrics"),
    ("alerting", "give alerts to the Prometheus that stores the metrics"),
    ("scrape_config_files", "write its jobs below `scrape_configs`; `${file:jobs.yaml}` takes them from another file"),
];

/// What all jobs of a receiver have in common.
struct Common<'n> {
    global: Global,
    node: &'n Node,
    trim_metric_suffixes: bool,
    extra: bool,
}

/// Reads and checks everything; problems go to `found`.
pub(super) fn jobs(node: &Node, found: &mut Diagnostics) -> Vec<Job> {
    let top: Top = read(node, found);
    beside(node, &top, found);
    let Some(config) = node.get("config").filter(|config| !config.is_null()) else {
        if node.get("target_allocator").is_none() {
            let help = "add `config: {scrape_configs: [{job_name: …, static_configs: [{targets: [\"host:port\"]}]}]}`";
            found.error(node.origin, "there is nothing to scrape", Some(help.to_owned()));
        }
        return Vec::new();
    };
    let whole: Whole = read(config, found);
    for (key, instead) in INEFFECTIVE {
        if let Some(written) = written(config, key) {
            let name = key.rsplit("::").next().unwrap_or(key);
            found.ineffective(written, format!("`{name}` has no effect"), *instead);
        }
    }
    for (key, remedy) in REFUSED {
        if let Some(written) = written(config, key) {
            found.error(written, format!("the receiver does not do `{key}`"), Some((*remedy).to_owned()));
        }
    }
    let extra = top.report_extra_scrape_metrics || whole.global.extra_scrape_metrics;
    let common = Common { global: whole.global, node: config, trim_metric_suffixes: top.trim_metric_suffixes, extra };
    let Some(list) = config.get("scrape_configs").filter(|list| !list.is_null()) else {
        found.error(config.origin, "there are no `scrape_configs`", Some("each is a job: `- job_name: …`".to_owned()));
        return Vec::new();
    };
    let Value::List(items) = &list.value else {
        found.error(list.origin, format!("`scrape_configs` is a list of jobs, this is {}", list.kind()), None);
        return Vec::new();
    };
    if items.is_empty() {
        found.error(list.origin, "there are no `scrape_configs`", Some("each is a job: `- job_name: …`".to_owned()));
    }
    let mut jobs: Vec<Job> = Vec::with_capacity(items.len());
    for item in items {
        let job = scrape::job(item, &common, found);
        if jobs.iter().any(|known| known.name == job.name) {
            let origin = item.get("job_name").map_or(item.origin, |name| name.origin);
            found.error(origin, format!("there are two jobs `{}`", job.name), Some("give one of them another name".to_owned()));
        }
        jobs.push(job);
    }
    jobs
}

/// The place of a key that is written with a value.
fn written(node: &Node, path: &str) -> Option<Origin> {
    let mut node = node;
    for key in path.split("::") {
        node = node.get(key)?;
    }
    let empty = match &node.value {
        Value::Null => true,
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        _ => false,
    };
    (!empty).then_some(node.origin)
}

fn beside(node: &Node, top: &Top, found: &mut Diagnostics) {
    if top.use_start_time_metric
        && let Some(origin) = written(node, "use_start_time_metric")
    {
        let help =
            "the Collector removed it in 0.143; counters have the start that their page says (`_created`), or none".to_owned();
        found.error(origin, "weir does not take the start of counters from another metric", Some(help));
    }
    if let Some(origin) = written(node, "start_time_metric_regex") {
        found.ineffective(
            origin,
            "`start_time_metric_regex` has no effect",
            "the Collector removed it in 0.143, with `use_start_time_metric`",
        );
    }
    if let Some(origin) = written(node, "target_allocator") {
        let help = "the operator's allocator answers at `/jobs/<job>/targets`: name that URL in `http_sd_configs`".to_owned();
        found.error(origin, "weir does not ask a target allocator", Some(help));
    }
    if let Some(origin) = written(node, "api_server") {
        let off = node.nearest("api_server::enabled").value == Value::Bool(false);
        let instead =
            "weir has no such API; targets and scrapes are counted on its own page (`weir_scrape_targets`, `weir_scrapes`)";
        if off {
            found.ineffective(origin, "`api_server` has no effect", instead);
        } else {
            found.error(origin, "weir has no API of Prometheus", Some(instead.to_owned()));
        }
    }
}

/// The formats asked for, from their names.
fn protocols(names: &[String], origin: Origin, found: &mut Diagnostics) -> Vec<Protocol> {
    let known = || Protocol::NAMES.iter().map(|(name, _)| *name);
    let mut protocols = Vec::new();
    for name in names {
        match protocol(name) {
            Some(protocol) if protocols.contains(&protocol) => {
                found.error(origin, format!("`{name}` is there twice"), None);
            }
            Some(protocol) => protocols.push(protocol),
            None => {
                let help = crate::config::suggest::nearest(name, known()).map_or_else(
                    || format!("there are {}", crate::config::suggest::list(known())),
                    |near| format!("did you mean `{near}`?"),
                );
                found.error(origin, format!("`{name}` is not a format of pages"), Some(help));
            }
        }
    }
    protocols
}

fn protocol(name: &str) -> Option<Protocol> {
    Protocol::NAMES.iter().find(|(known, _)| *known == name).map(|(_, protocol)| *protocol)
}
