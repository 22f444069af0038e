//! Writes OTLP to a file: JSON, an object a line, or length-prefixed protobuf.
//!
//! In:   requests of any signal; several batches become one object.
//! Out:  `json`: a line a request. `proto`, or anything compressed: four bytes of length (big-endian), then the message.
//! Full: a disk without room holds this exporter's cursor (slow retries), and no other's; what was half written is cut off again.
//! Lost: nothing short of a power cut: a request counts as delivered when the operating system has all of it.
//!
//! ```yaml
//! exporters:
//!   file:
//!     path: /var/lib/weir/telemetry.json
//!     rotation: {max_megabytes: 100, max_backups: 10}
//! ```
//!
//! Unlike the Collector's, nothing waits in a buffer, so `flush_interval` has no effect. Rotated files are named as there:
//! `telemetry-2026-11-21T08-30-00.000.json`, always in UTC.

mod output;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::{
    component::delivery,
    component::{BuildContext, Exporter, ExporterConfig, Outcome, Request, RetryCause, Stability},
    config::{Diagnostics, GoDuration, Node, Section, read},
    otlp,
    runtime::{BuildError, Clock, Shutdown, Task},
    signal::Signal,
};
use output::{Output, Rules};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An OTLP/JSON object a line.
    #[default]
    Json,
    /// Length-prefixed protobuf.
    Proto,
}

/// `rotation`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// A file that would grow over this is put aside. A request larger than this has a file of its own.
    pub max_megabytes: u64,
    /// Files put aside longer ago are deleted; 0 keeps them.
    pub max_days: u64,
    /// More than this many files put aside: the oldest are deleted; 0 keeps all.
    pub max_backups: usize,
    /// Accepted; names are in UTC all the same.
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_megabytes: 100, max_days: 0, max_backups: 100, localtime: false }
    }
}

/// `group_by`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupBy {
    pub enabled: bool,
    pub sub_path: String,
    pub resource_attribute: String,
    pub max_open_files: Option<u64>,
}

/// `compression_params`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressionParams {
    /// 1 to 22.
    pub level: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file. Without `append` or `rotation`, what is in it at the start is lost; a configuration that is read while weir runs empties nothing.
    pub path: String,
    pub format: Format,
    /// Put the file aside when it is full.
    pub rotation: Section<Rotation>,
    /// `zstd`, or nothing. Each request is compressed by itself and has a length prefix, in JSON too.
    pub compression: String,
    pub compression_params: CompressionParams,
    /// Write behind what the file holds.
    pub append: bool,
    pub flush_interval: Option<GoDuration>,
    /// Make the directory where it is missing, with `directory_permissions`.
    pub create_directory: bool,
    /// Octal, "0755" by default.
    pub directory_permissions: String,
    pub group_by: GroupBy,
    pub encoding: Option<String>,
    pub sending_queue: Option<delivery::Queue>,
    pub retry_on_failure: delivery::Retry,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: String::new(),
            format: Format::Json,
            rotation: Section::absent(),
            compression: String::new(),
            compression_params: CompressionParams::default(),
            append: false,
            flush_interval: None,
            create_directory: false,
            directory_permissions: "0755".to_owned(),
            group_by: GroupBy::default(),
            encoding: None,
            sending_queue: None,
            retry_on_failure: delivery::Retry::default(),
        }
    }
}

impl ExporterConfig for Config {
    const TYPE: &'static str = "file";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = read(node, found);
        config.check(node, found);
        config
    }

    fn delivery(&self) -> delivery::Settings {
        // One at a time: a file has one end.
        let queue =
            self.sending_queue.clone().unwrap_or(delivery::Queue { num_consumers: Some(1), ..delivery::Queue::default() });
        delivery::Settings { queue: Some(queue), retry: self.retry_on_failure.clone(), ..delivery::Settings::default() }
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        let level = self.compression_params.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
        let rules = Rules {
            path: PathBuf::from(&self.path),
            rotation: self.rotation.get().cloned(),
            truncate: !self.append && self.rotation.get().is_none() && !context.is_reload,
            directory: self.create_directory.then(|| permissions(&self.directory_permissions).unwrap_or(0o755)),
        };
        rules.check().map_err(|error| BuildError::setting("path", error.to_string()))?;
        let writer = Writer {
            format: self.format,
            zstd: (self.compression == "zstd").then_some(level),
            clock: context.clock,
            output: Mutex::new(Output::new(rules)),
        };
        Ok(Arc::new(FileExporter(Arc::new(writer))))
    }
}

impl Config {
    fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        self.retry_on_failure.check(node, found);
        self.sending_queue.iter().for_each(|queue| queue.check(node, found));
        if self.path.is_empty() {
            found.error(at("path"), "a path is required", Some("add `path: telemetry.json`".to_owned()));
        }
        if !matches!(self.compression.as_str(), "" | "none" | "zstd") {
            let message = format!("`{}` is not a compression of files", self.compression);
            found.error(at("compression"), message, Some("use zstd, or leave it out".to_owned()));
        }
        if self.compression_params.level.is_some_and(|level| !(1..=22).contains(&level)) {
            found.error(at("compression_params"), "zstd has the levels 1 to 22", None);
        }
        if self.append && self.rotation.get().is_some() {
            let remedy = "leave `append` out: with rotation, what is there is kept anyway".to_owned();
            found.error(at("append"), "`append` does not go with `rotation`", Some(remedy));
        }
        if self.append && self.compression == "zstd" {
            found.error(at("append"), "`append` does not go with `compression`", Some("leave one of them out".to_owned()));
        }
        if self.rotation.get().is_some_and(|rotation| rotation.max_megabytes == 0) {
            found.error(at("rotation"), "`max_megabytes` of 0 leaves no room for anything", Some("100 is usual".to_owned()));
        }
        if self.rotation.get().is_some_and(|rotation| rotation.localtime) {
            found.ineffective(at("rotation"), "`localtime` has no effect", "names of rotated files are in UTC");
        }
        if self.group_by.enabled {
            let remedy = "use an exporter a file, with a filter in front of each".to_owned();
            found.error(at("group_by"), "weir writes all of an exporter into one file", Some(remedy));
        }
        if let Some(encoding) = &self.encoding {
            let remedy = "use `format: json` or `format: proto`".to_owned();
            found.error(at("encoding"), format!("weir has no encoding extensions, but `{encoding}` is named"), Some(remedy));
        }
        if self.flush_interval.is_some() {
            found.ineffective(at("flush_interval"), "`flush_interval` has no effect", "each request is written at once");
        }
        if self.create_directory && permissions(&self.directory_permissions).is_none() {
            let message = format!("`{}` is not an octal number of permissions", self.directory_permissions);
            found.error(at("directory_permissions"), message, Some("write it as \"0755\"".to_owned()));
        }
    }
}

fn permissions(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

struct FileExporter(Arc<Writer>);

struct Writer {
    format: Format,
    /// The level.
    zstd: Option<i32>,
    clock: Clock,
    output: Mutex<Output>,
}

impl Writer {
    fn write(&self, request: &Request) -> Outcome {
        let payload = request.payload();
        let mut message = Vec::new();
        match self.format {
            Format::Proto => message.extend_from_slice(&payload),
            Format::Json => {
                message.reserve(payload.len() * 3);
                if let Err(error) = otlp::json::encode(request.signal, &payload, &mut message) {
                    return Outcome::Rejected { message: format!("it is no OTLP request: {error}") };
                }
            }
        }
        if let Some(level) = self.zstd {
            message = match zstd::bulk::compress(&message, level) {
                Ok(compressed) => compressed,
                Err(error) => return Outcome::Rejected { message: format!("it cannot be compressed: {error}") },
            };
        }
        if self.zstd.is_some() || self.format == Format::Proto {
            let Ok(len) = u32::try_from(message.len()) else {
                return Outcome::TooLarge { message: "frames end at 4 GiB".to_owned(), limit: Some(u32::MAX as usize) };
            };
            message.splice(..0, len.to_be_bytes());
        } else {
            message.push(b'\n');
        }
        match self.output.lock().write(&message, self.clock.now()) {
            Ok(()) => Outcome::DELIVERED,
            Err(error) => Outcome::Retry { reason: error.to_string(), after: None, cause: RetryCause::Blocked },
        }
    }
}

impl Exporter for FileExporter {
    fn start(&self, _shutdown: Shutdown) -> BoxFuture<'_, Result<Option<Task>, BuildError>> {
        Box::pin(async {
            let opened = self.0.output.lock().open();
            opened.map_err(|error| BuildError::setting("path", error.to_string()))?;
            Ok(None)
        })
    }

    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let writer = self.0.clone();
            let written = tokio::task::spawn_blocking(move || writer.write(&request)).await;
            written.unwrap_or_else(|error| Outcome::Rejected { message: format!("it cannot be written: {error}") })
        })
    }

    fn finish(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let writer = self.0.clone();
            let synced = tokio::task::spawn_blocking(move || writer.output.lock().sync()).await;
            if let Ok(Err(error)) = synced {
                tracing::warn!(%error, "the file could not be synced at the end");
            }
        })
    }
}
