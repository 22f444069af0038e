//! The Collector's server blocks, `confighttp` and `configgrpc`, and what weir does where they are silent.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::{
    config::{Diagnostics, GoDuration, Node, Secret, Section, StringList},
    runtime::BuildError,
    transport::tls::server::{self, TlsServerSettings},
};

use super::listen::Place;

/// The Collector's HTTP server block (`confighttp`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerSettings {
    /// `host:port`; `localhost` binds 127.0.0.1 and ::1, an empty host all addresses. `unix:///path` is a socket file.
    pub endpoint: String,
    /// `tcp`, `tcp4`, `tcp6` or `unix`.
    pub transport: Option<String>,
    pub tls: Section<TlsServerSettings>,
    pub cors: Section<Cors>,
    pub auth: Section<Auth>,
    /// Bytes of a request body before and after decompression. Not written: 64 MiB, as OTLP recommends.
    pub max_request_body_size: Option<u64>,
    /// Hands request headers to the components that read them.
    pub include_metadata: bool,
    /// Headers added to every answer.
    pub response_headers: BTreeMap<String, Secret>,
    /// Encodings a request body may have; `""` is none. Not written: all that weir knows.
    pub compression_algorithms: Option<Vec<String>>,
    /// Longest time for one whole request; 0 or not written: only the minimum rate holds.
    pub read_timeout: GoDuration,
    /// From a request's first byte to the end of its header. Not written: 10 s. 0: no limit.
    pub read_header_timeout: Option<GoDuration>,
    /// A peer that takes nothing of an answer for so long is cut off. Not written: 30 s. 0: no limit.
    pub write_timeout: Option<GoDuration>,
    /// Silence between two requests. Not written: 5 min, because SDKs send metrics each minute. 0: no limit.
    pub idle_timeout: Option<GoDuration>,
    /// HTTP/1.1 connections stay open after an answer.
    pub keep_alives_enabled: bool,
    pub middlewares: Vec<Middleware>,
}

impl Default for HttpServerSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            transport: None,
            tls: Section::absent(),
            cors: Section::absent(),
            auth: Section::absent(),
            max_request_body_size: None,
            include_metadata: false,
            response_headers: BTreeMap::new(),
            compression_algorithms: None,
            read_timeout: GoDuration::default(),
            read_header_timeout: None,
            write_timeout: None,
            idle_timeout: None,
            keep_alives_enabled: true,
            middlewares: Vec::new(),
        }
    }
}

/// `cors`: which web pages may send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// `https://app.example`, with `*` for any run of characters. Empty: no page may.
    pub allowed_origins: StringList,
    /// Request headers beside the usual ones; `*` for all.
    pub allowed_headers: StringList,
    /// Answer headers that a page may read.
    pub exposed_headers: StringList,
    /// Seconds that a browser may remember the answer to a preflight; 0 leaves it to the browser.
    pub max_age: u32,
}

/// `auth`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The id of an extension.
    pub authenticator: String,
    /// Query parameters that an authenticator of the Collector may read beside headers.
    pub request_params: StringList,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Middleware {
    pub id: String,
}

/// The Collector's gRPC server block (`configgrpc`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcServerSettings {
    /// As [`HttpServerSettings::endpoint`].
    pub endpoint: String,
    /// `tcp`, `tcp4`, `tcp6` or `unix`.
    pub transport: Option<String>,
    pub tls: Section<TlsServerSettings>,
    /// MiB of one message before and after decompression. Not written or 0: 64 MiB, as OTLP recommends.
    pub max_recv_msg_size_mib: Option<u64>,
    /// Requests at once on one connection. Not written or 0: 128.
    pub max_concurrent_streams: Option<u32>,
    pub read_buffer_size: Option<u64>,
    pub write_buffer_size: Option<u64>,
    pub keepalive: Section<Keepalive>,
    pub auth: Section<Auth>,
    /// Hands request metadata to the components that read it.
    pub include_metadata: bool,
    pub middlewares: Vec<Middleware>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keepalive {
    pub server_parameters: Section<KeepaliveParameters>,
    pub enforcement_policy: Section<EnforcementPolicy>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepaliveParameters {
    /// A connection without requests for so long gets a GOAWAY.
    pub max_connection_idle: Option<GoDuration>,
    /// A connection this old (± 10 %) gets a GOAWAY.
    pub max_connection_age: Option<GoDuration>,
    /// After the GOAWAY, requests have this long to finish.
    pub max_connection_age_grace: Option<GoDuration>,
    /// Silence after which a ping is sent. Not written: 30 s.
    pub time: Option<GoDuration>,
    /// Wait for the ping's answer. Not written: 10 s.
    pub timeout: Option<GoDuration>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnforcementPolicy {
    pub min_time: Option<GoDuration>,
    pub permit_without_stream: bool,
}

const MIB: u64 = 1024 * 1024;
/// What OTLP recommends as a server's limit.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

impl HttpServerSettings {
    /// Reads the certificates as a listener does, for what is wrong with them.
    pub fn try_files(&self) -> Result<(), BuildError> {
        self.tls.get().map_or(Ok(()), |tls| server::config(tls).map(drop))
    }

    /// The limit of a request body, before and after decompression.
    pub fn request_bytes_max(&self) -> usize {
        match self.max_request_body_size {
            None | Some(0) => REQUEST_BYTES_MAX,
            Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    /// Names what cannot work and what has no effect here. `node` is the block itself.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        check_transport(self.transport.as_deref(), node, found);
        check_endpoint(&self.endpoint, self.transport.as_deref(), node, found);
        check_middlewares(&self.middlewares, node, found);
        check_auth(&self.auth, node, found);
        if let Some(tls) = self.tls.get() {
            tls.check(node.nearest("tls"), found);
        }
        if let Some(cors) = self.cors.get()
            && cors.allowed_origins.0.is_empty()
            && !(cors.allowed_headers.0.is_empty() && cors.exposed_headers.0.is_empty())
        {
            let help = "name the pages' origins, for example `allowed_origins: [\"https://app.example\"]`".to_owned();
            found.warning(node.nearest("cors").origin, "`cors` names headers but no origins, so no page may send", Some(help));
        }
        for name in self.compression_algorithms.iter().flatten() {
            if matches!(name.as_str(), "lz4" | "x-snappy-framed") {
                let origin = node.nearest("compression_algorithms").origin;
                found.ineffective(
                    origin,
                    format!("request bodies in `{name}` are not read"),
                    "such a request is answered with 415; gzip, zstd, deflate, zlib and snappy are read",
                );
            } else if !matches!(name.as_str(), "" | "gzip" | "zstd" | "zlib" | "deflate" | "snappy") {
                let help = Some("gzip, zstd, zlib, deflate, snappy, or \"\" for none".to_owned());
                found.error(
                    node.nearest("compression_algorithms").origin,
                    format!("`{name}` is not a compression algorithm"),
                    help,
                );
            }
        }
        for name in self.response_headers.keys() {
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                found.error(node.nearest("response_headers").origin, format!("`{name}` is not a header name"), None);
            }
        }
    }
}

impl GrpcServerSettings {
    /// As [`HttpServerSettings::try_files`].
    pub fn try_files(&self) -> Result<(), BuildError> {
        self.tls.get().map_or(Ok(()), |tls| server::config(tls).map(drop))
    }

    /// The limit of one message, before and after decompression.
    pub fn request_bytes_max(&self) -> usize {
        match self.max_recv_msg_size_mib {
            None | Some(0) => REQUEST_BYTES_MAX,
            Some(mib) => usize::try_from(mib.saturating_mul(MIB)).unwrap_or(usize::MAX),
        }
    }

    /// Names what cannot work and what has no effect here. `node` is the block itself.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        check_transport(self.transport.as_deref(), node, found);
        check_endpoint(&self.endpoint, self.transport.as_deref(), node, found);
        check_middlewares(&self.middlewares, node, found);
        check_auth(&self.auth, node, found);
        if let Some(tls) = self.tls.get() {
            tls.check(node.nearest("tls"), found);
        }
        for (key, written) in [("read_buffer_size", self.read_buffer_size), ("write_buffer_size", self.write_buffer_size)] {
            if written.is_some() {
                found.ineffective(
                    node.nearest(key).origin,
                    format!("`{key}` has no effect"),
                    "buffers grow with what arrives, within the message limit",
                );
            }
        }
        if let Some(keepalive) = self.keepalive.get()
            && keepalive.enforcement_policy.get().is_some()
        {
            found.ineffective(
                node.nearest("keepalive::enforcement_policy").origin,
                "`enforcement_policy` has no effect",
                "pings are always answered; floods of them are bounded by the HTTP/2 layer",
            );
        }
    }
}

fn check_transport(written: Option<&str>, node: &Node, found: &mut Diagnostics) {
    if let Some(name) = written
        && !matches!(name, "tcp" | "tcp4" | "tcp6" | "unix")
    {
        found.error(
            node.nearest("transport").origin,
            format!("`{name}` is not a transport weir serves"),
            Some("tcp, tcp4, tcp6 or unix".to_owned()),
        );
    }
}

/// An endpoint that is not written is the component's to judge.
fn check_endpoint(endpoint: &str, transport: Option<&str>, node: &Node, found: &mut Diagnostics) {
    if !endpoint.is_empty()
        && let Err((message, help)) = Place::of(endpoint, transport.unwrap_or("tcp"))
    {
        found.error(node.nearest("endpoint").origin, message, Some(help));
    }
}

fn check_middlewares(written: &[Middleware], node: &Node, found: &mut Diagnostics) {
    if !written.is_empty() {
        found.ineffective(
            node.nearest("middlewares").origin,
            "`middlewares` has no effect",
            "no extension of weir is a middleware; limits are always on",
        );
    }
}

fn check_auth(written: &Section<Auth>, node: &Node, found: &mut Diagnostics) {
    let Some(auth) = written.get() else { return };
    if auth.authenticator.is_empty() {
        let help = Some("the id of an extension, for example `basic_auth`".to_owned());
        found.error(node.nearest("auth").origin, "`auth` needs an `authenticator`", help);
    }
    if !auth.request_params.0.is_empty() {
        found.ineffective(
            node.nearest("auth::request_params").origin,
            "`request_params` has no effect",
            "authenticators read headers only",
        );
    }
}

/// What a listener needs to know of its block.
#[derive(Debug, Clone)]
pub(super) struct Listen {
    pub(super) endpoint: String,
    pub(super) transport: Option<String>,
    pub(super) tls: Option<TlsServerSettings>,
    pub(super) limits: Limits,
}

/// Limits of one connection. A duration of zero is no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
    pub(super) keep_alive: bool,
    pub(super) streams: u32,
    pub(super) age: Duration,
    pub(super) age_grace: Duration,
    pub(super) ping_interval: Duration,
    pub(super) ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_mins(5),
            write: Duration::from_secs(30),
            keep_alive: true,
            streams: 128,
            age: Duration::ZERO,
            age_grace: Duration::ZERO,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

impl From<&HttpServerSettings> for Listen {
    fn from(settings: &HttpServerSettings) -> Self {
        let own = Limits::default();
        Self {
            endpoint: settings.endpoint.clone(),
            transport: settings.transport.clone(),
            tls: settings.tls.get().cloned(),
            limits: Limits {
                head: settings.read_header_timeout.map_or(own.head, |written| written.0),
                idle: settings.idle_timeout.map_or(own.idle, |written| written.0),
                write: settings.write_timeout.map_or(own.write, |written| written.0),
                keep_alive: settings.keep_alives_enabled,
                ..own
            },
        }
    }
}

impl From<&GrpcServerSettings> for Listen {
    fn from(settings: &GrpcServerSettings) -> Self {
        let own = Limits::default();
        let written =
            settings.keepalive.get().and_then(|keepalive| keepalive.server_parameters.get()).cloned().unwrap_or_default();
        let or = |written: Option<GoDuration>, own: Duration| written.map_or(own, |written| written.0);
        Self {
            endpoint: settings.endpoint.clone(),
            transport: settings.transport.clone(),
            tls: settings.tls.get().cloned(),
            limits: Limits {
                streams: settings.max_concurrent_streams.filter(|written| *written > 0).unwrap_or(own.streams),
                idle: or(written.max_connection_idle, own.idle),
                age: or(written.max_connection_age, own.age),
                age_grace: or(written.max_connection_age_grace, own.age_grace),
                ping_interval: or(written.time, own.ping_interval),
                ping_timeout: or(written.timeout, own.ping_timeout),
                ..own
            },
        }
    }
}
