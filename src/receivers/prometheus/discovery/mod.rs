//! Where a job's targets come from: written in the file, in other files, from a server, from names.
//!
//! In:   `static_configs`, `file_sd_configs`, `http_sd_configs`, `dns_sd_configs`.
//! Out:  groups of targets with labels, all of a source's anew whenever they may have changed.
//! Lost: nothing; a source that cannot be asked keeps what it said last, and that is counted and said once.

mod dns;
mod file;
mod http;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use prometheus::IntCounter;
use tokio::sync::mpsc;

pub(super) use self::{
    dns::{Dns, Record},
    file::Files,
    http::Server,
};
use super::labels::Labels;
use crate::{
    config::{Node, Value},
    door::Budget,
    runtime::Shutdown,
};

/// Targets of one source are not more than this.
const TARGETS_MAX: usize = 100_000;
/// Labels of one group.
const LABELS_MAX: usize = 256;
/// Bytes of a group's labels, and of one target.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of all targets of a source, each with the labels of its group.
const BYTES_MAX: usize = 64 << 20;

/// Targets with what is known of all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Group {
    /// `host:port`
    pub(super) targets: Vec<String>,
    pub(super) labels: Labels<'static>,
}

impl Group {
    /// Bytes of all its targets, each with its labels.
    pub(super) fn bytes(&self) -> usize {
        self.targets.iter().map(|target| target.len() + self.labels.bytes()).sum()
    }

    /// The labels of each target before relabelling.
    pub(super) fn each(&self) -> impl Iterator<Item = Labels<'static>> {
        self.targets.iter().map(|target| {
            let mut labels = self.labels.clone();
            labels.set("__address__", target.clone());
            labels
        })
    }
}

#[derive(Debug)]
pub(super) enum Source {
    Static(Vec<Group>),
    Files(Files),
    Server(Box<Server>),
    Dns(Dns),
}

/// What a source said, by its number among those of its job.
pub(super) type Said = (usize, Vec<Group>);

/// What a discovery has around it.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) receiver: Arc<str>,
    pub(super) job: Arc<str>,
    pub(super) budget: Arc<Budget>,
    pub(super) said: mpsc::Sender<Said>,
    pub(super) failures: IntCounter,
}

/// Tells a source's failures: the first of several in a row, and when it is over.
pub(super) struct Teller<'a> {
    around: &'a Surroundings,
    failing: bool,
}

impl<'a> Teller<'a> {
    pub(super) const fn new(around: &'a Surroundings) -> Self {
        Self { around, failing: false }
    }

    pub(super) fn failed(&mut self, source: &str, problem: &str) {
        self.around.failures.inc();
        let (receiver, job) = (&*self.around.receiver, &*self.around.job);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(receiver, job, source, error = problem, "targets cannot be found; those of before stay");
        }
    }

    pub(super) fn worked(&mut self, source: &str) {
        let (receiver, job) = (&*self.around.receiver, &*self.around.job);
        if std::mem::take(&mut self.failing) {
            tracing::info!(receiver, job, source, "targets are found again");
        }
    }
}

impl Source {
    /// Says what it has, and again whenever that may have changed, until `shutdown`.
    pub(super) fn run(&self, number: usize, around: Surroundings, shutdown: Shutdown) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let running = async {
                match self {
                    Self::Static(groups) => drop(around.said.send((number, groups.clone())).await),
                    Self::Files(files) => files.run(number, &around).await,
                    Self::Server(server) => server.run(number, &around).await,
                    Self::Dns(dns) => dns.run(number, &around).await,
                }
            };
            tokio::select! {
                () = running => {}
                () = shutdown.cancelled() => {}
            }
        })
    }
}

/// A list of `{targets: [host:port], labels: {name: value}}`, as files and servers give it.
pub(super) fn groups(node: &Node) -> Result<Vec<Group>, String> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null => &[],
        _ => return Err(format!("a list of `targets` and `labels` is expected, this is {}", node.kind())),
    };
    let (mut count, mut bytes) = (0, 0_usize);
    let mut groups = Vec::with_capacity(items.len());
    for item in items {
        let Value::Map(entries) = &item.value else { return Err(format!("a group is a map, this is {}", item.kind())) };
        let mut group = Group::default();
        for (key, value) in entries {
            match key.word().map(|word| &**word) {
                Some("targets") => {
                    for target in value.items() {
                        let target = text(target).ok_or("a target is a text, `host:port`")?;
                        if target.len() > TEXT_BYTES_MAX {
                            return Err(format!("a target is longer than {} KiB", TEXT_BYTES_MAX >> 10));
                        }
                        bytes += target.len();
                        count += 1;
                        within(count, bytes)?;
                        group.targets.push(target);
                    }
                }
                Some("labels") => {
                    let mut own = 0;
                    for (name, value) in value.entries() {
                        let (Some(name), Some(value)) = (text(name), text(value)) else {
                            return Err("labels are texts".to_owned());
                        };
                        own += name.len() + value.len();
                        group.labels.push(name, value);
                        if group.labels.len() > LABELS_MAX || own > TEXT_BYTES_MAX {
                            let kib = TEXT_BYTES_MAX >> 10;
                            return Err(format!("a group has more than {LABELS_MAX} labels, or more than {kib} KiB of them"));
                        }
                    }
                }
                other => return Err(format!("a group has `targets` and `labels`, not `{}`", other.unwrap_or_default())),
            }
        }
        // Each target gets them, and a group without targets keeps them.
        bytes = bytes.saturating_add(group.labels.bytes().saturating_mul(group.targets.len().max(1)));
        within(count, bytes)?;
        groups.push(group);
    }
    Ok(groups)
}

fn within(count: usize, bytes: usize) -> Result<(), String> {
    if count > TARGETS_MAX {
        return Err(format!("it lists more than {TARGETS_MAX} targets"));
    }
    if bytes > BYTES_MAX {
        return Err(format!("its targets with their labels are more than {} MiB", BYTES_MAX >> 20));
    }
    Ok(())
}

/// A scalar as it would be written.
fn text(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text) => Some(text.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null => Some(String::new()),
        Value::List(_) | Value::Map(_) => None,
    }
}
