//! From what a discovery says to what is scraped: relabelling, the URL, the labels that stay.

use std::{collections::BTreeMap, hash::BuildHasher as _, time::Duration};

use http::Uri;

use super::{
    duration,
    job::Job,
    labels::{INSTANCE, JOB, Labels},
    relabel, web,
};
use crate::config::shown_url;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM: &str = "__param_";
/// Letters of what is wrong that a message quotes.
const SHOWN_MAX: usize = 200;

/// The same for the same target in each life of weir: it decides when in the interval it is scraped.
const PLACE: foldhash::fast::FixedState = foldhash::fast::FixedState::with_seed(0x5c4a_9e0f);

/// Something to scrape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// Those of its series: `job`, `instance` and whatever else was left.
    pub(super) labels: Labels<'static>,
    pub(super) url: Uri,
    pub(super) scheme: String,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// By all of the above.
    pub(super) id: u64,
}

impl Target {
    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.labels.bytes() + self.url.path().len() + self.url.query().map_or(0, str::len)
    }
}

/// `None` where a rule drops it. Fails where it cannot be scraped.
pub(super) fn target(job: &Job, found: &Labels<'_>) -> Result<Option<Target>, String> {
    let mut labels: Labels<'static> = Labels::default();
    labels.push(JOB, job.name.clone());
    labels.push(SCHEME, job.scheme.clone());
    labels.push(METRICS_PATH, job.metrics_path.clone());
    labels.push(INTERVAL, duration::text(job.interval));
    labels.push(TIMEOUT, duration::text(job.timeout));
    for (name, values) in &job.params {
        if let Some(first) = values.first() {
            labels.push(format!("{PARAM}{name}"), first.clone());
        }
    }
    // What is empty is not there, as in Prometheus: the job's own stays.
    let found = found.iter().filter(|(_, value)| !value.is_empty());
    labels.set_all(found.map(|(name, value)| (name.to_owned().into(), value.to_owned().into())));
    if !relabel::apply(&job.relabel, &mut labels) {
        return Ok(None);
    }
    let address = labels.get(ADDRESS).to_owned();
    if address.is_empty() {
        return Err("it has no address".to_owned());
    }
    if address.contains('@') {
        return Err("its address has an `@`; user and password are in `basic_auth`".to_owned());
    }
    if address.contains(['/', '?', '#']) {
        let shown = shown(&address);
        return Err(format!("`{shown}` is not host:port; scheme and path have keys of their own (`scheme`, `metrics_path`)"));
    }
    let scheme = labels.get(SCHEME).to_owned();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(format!("`{}` is neither http nor https", shown(&scheme)));
    }
    let span = |name: &str| {
        let text = labels.get(name);
        duration::parse(text)
            .filter(|span| !span.is_zero())
            .ok_or_else(|| format!("`{}` of `{name}` is not a duration above 0", shown(text)))
    };
    let (interval, timeout) = (span(INTERVAL)?, span(TIMEOUT)?);
    if timeout > interval {
        return Err(format!("`{TIMEOUT}` ({timeout:?}) is longer than `{INTERVAL}` ({interval:?})"));
    }
    let url = url(job, &labels, &scheme, &address)?;
    if labels.get(INSTANCE).is_empty() {
        labels.set(INSTANCE, address);
    }
    labels.retain(|name| !name.starts_with("__"));
    labels.finish().map_err(|name| format!("the label `{}` is there twice", shown(&name)))?;
    let id = PLACE.hash_one((labels.iter().collect::<Vec<_>>(), url.to_string(), interval, timeout));
    Ok(Some(Target { labels, url, scheme, interval, timeout, id }))
}

fn url(job: &Job, labels: &Labels<'_>, scheme: &str, address: &str) -> Result<Uri, String> {
    let mut params: BTreeMap<String, Vec<String>> = job.params.clone();
    for (name, value) in labels.iter() {
        let Some(param) = name.strip_prefix(PARAM) else { continue };
        let values = params.entry(param.to_owned()).or_default();
        match values.first_mut() {
            Some(first) => value.clone_into(first),
            None => values.push(value.to_owned()),
        }
    }
    let path = labels.get(METRICS_PATH);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let query = web::query(&params);
    let mark = if query.is_empty() { "" } else { "?" };
    let text = format!("{scheme}://{address}{slash}{path}{mark}{query}");
    // Parameters may be secrets.
    text.parse::<Uri>()
        .map_err(|error| format!("`{}` is not a URL: {error}", shown(&format!("{scheme}://{address}{slash}{path}"))))
}

/// A text of somebody else's as a message has it: not too long, without passwords.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_MAX).collect();
    shown_url(&short).escape_debug().to_string()
}

/// How long after now it is scraped first: targets are spread over their interval, each at its own place in it.
pub(super) fn delay(target: &Target, now_nanos: u64) -> Duration {
    let interval = u64::try_from(target.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let (place, now) = (target.id % interval, now_nanos % interval);
    Duration::from_nanos(if place >= now { place - now } else { interval - now + place })
}
