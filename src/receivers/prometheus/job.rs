//! A job: what its targets have in common, once the settings are checked.

use std::{collections::BTreeMap, time::Duration};

use super::{discovery::Source, relabel::Rule, web::WebSettings};

/// A page is no larger than this, whatever `body_size_limit` says.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;

/// Where a limit is 0 there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) body_bytes: usize,
    /// `u64::MAX`: none.
    pub(super) samples: u64,
    pub(super) labels: u64,
    pub(super) label_name: u64,
    pub(super) label_value: u64,
    pub(super) targets: u64,
}

/// A format that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Protobuf,
    OpenMetrics1,
    OpenMetrics0,
    Text1,
    Text0,
}

impl Protocol {
    pub(super) const NAMES: [(&str, Self); 5] = [
        ("PrometheusProto", Self::Protobuf),
        ("OpenMetricsText1.0.0", Self::OpenMetrics1),
        ("OpenMetricsText0.0.1", Self::OpenMetrics0),
        ("PrometheusText1.0.0", Self::Text1),
        ("PrometheusText0.0.4", Self::Text0),
    ];
    /// What is asked for where nothing is written.
    pub(super) const USUAL: [Self; 4] = [Self::OpenMetrics1, Self::OpenMetrics0, Self::Text1, Self::Text0];

    const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            Self::OpenMetrics1 => "application/openmetrics-text;version=1.0.0",
            Self::OpenMetrics0 => "application/openmetrics-text;version=0.0.1",
            Self::Text1 => "text/plain;version=1.0.0",
            Self::Text0 => "text/plain;version=0.0.4",
        }
    }
}

/// The value of `Accept`: the first of `protocols` is wanted most.
pub(super) fn accept(protocols: &[Protocol], escaping: &str) -> String {
    let mut weight = protocols.len() + 1;
    let mut parts: Vec<String> = Vec::new();
    for protocol in protocols {
        let term = if *protocol == Protocol::OpenMetrics0 || *protocol == Protocol::Text0 {
            String::new()
        } else {
            format!(";escaping={escaping}")
        };
        parts.push(format!("{}{term};q=0.{weight}", protocol.media_type()));
        weight -= 1;
    }
    parts.push(format!("*/*;q=0.{weight}"));
    parts.join(",")
}

/// One of `scrape_configs`.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) metrics_path: String,
    pub(super) scheme: String,
    pub(super) params: BTreeMap<String, Vec<String>>,
    pub(super) honor_labels: bool,
    pub(super) honor_timestamps: bool,
    pub(super) track_timestamps_staleness: bool,
    pub(super) limits: Limits,
    pub(super) relabel: Vec<Rule>,
    pub(super) metric_relabel: Vec<Rule>,
    pub(super) external_labels: Vec<(String, String)>,
    pub(super) trim_metric_suffixes: bool,
    pub(super) protocols: Vec<Protocol>,
    /// What a page is that does not say it; `None`: it is refused.
    pub(super) fallback: Option<Protocol>,
    pub(super) escaping: String,
    /// Native histograms are taken, and classic ones beside them.
    pub(super) native: bool,
    pub(super) classic_beside: bool,
    pub(super) compression: bool,
    /// Three more series about each scrape.
    pub(super) extra: bool,
    pub(super) web: WebSettings,
    pub(super) sources: Vec<Source>,
    /// Tells points apart. Random, so that no page can be made for two of them to be taken for one.
    pub(super) identity: foldhash::quality::RandomState,
}
