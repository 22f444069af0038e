//! The settings blocks of clients, as the Collector spells them, and their checks.

use std::{fmt, time::Duration};

use http::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::{
    Compressor,
    endpoint::Endpoint,
    http::Keeping,
    proxy::{Proxy, ProxyRules},
};
use crate::{
    config::{Diagnostics, GoDuration, Node, Secret, Section},
    transport::tls::client::TlsClientSettings,
};

/// How a body is compressed. `snappy` on gRPC is the framed form, on HTTP the block form, as the Collector has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    None,
    Gzip,
    Zstd,
    Zlib,
    Deflate,
    Snappy,
    SnappyFramed,
}

impl Algorithm {
    /// As a gRPC client block names it.
    pub fn grpc(name: &str) -> Option<Self> {
        match name {
            "" | "none" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "snappy" => Some(Self::SnappyFramed),
            _ => None,
        }
    }

    /// As an HTTP client block names it.
    pub fn http(name: &str) -> Option<Self> {
        match name {
            "" | "none" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "zlib" => Some(Self::Zlib),
            "deflate" => Some(Self::Deflate),
            "snappy" => Some(Self::Snappy),
            "x-snappy-framed" => Some(Self::SnappyFramed),
            _ => None,
        }
    }

    /// The value of `grpc-encoding`.
    pub const fn grpc_encoding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Snappy | Self::SnappyFramed => Some("snappy"),
            Self::Zlib | Self::Deflate => Some("deflate"),
        }
    }

    /// The value of `Content-Encoding`.
    pub const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Zlib => Some("zlib"),
            Self::Deflate => Some("deflate"),
            Self::Snappy => Some("snappy"),
            Self::SnappyFramed => Some("x-snappy-framed"),
        }
    }
}

/// `headers`: a map, or a list of `{name, value}`. Values never show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Headers(pub Vec<(String, Secret)>);

impl Headers {
    /// For the wire. `Host` is left to the caller, names that the protocol itself sets are left out.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.0.len());
        for (name, value) in &self.0 {
            if let Ok((name, value)) = wire(name, value)
                && name != http::header::HOST
                && !RESERVED.contains(&name.as_str())
            {
                map.append(name, value);
            }
        }
        map
    }

    /// The value written for `Host`.
    pub fn host(&self) -> Option<&str> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.expose())
    }

    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        let node = node.nearest("headers");
        for (name, value) in &self.0 {
            let origin = node.get(name).map_or(node.origin, |node| node.origin);
            match wire(name, value) {
                Err(problem) => found.error(origin, format!("the header `{name}` cannot be sent: {problem}"), None),
                Ok((name, _)) if RESERVED.contains(&name.as_str()) => {
                    found.ineffective(origin, format!("the header `{name}` is set by the protocol"), "weir sends its own value");
                }
                Ok(_) => {}
            }
        }
    }
}

/// What the protocol itself sets.
const RESERVED: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-timeout",
    "te",
    "transfer-encoding",
];

fn wire(name: &str, value: &Secret) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::try_from(name).map_err(|_| "this is not a header name")?;
    let mut value = HeaderValue::from_str(value.expose()).map_err(|_| "the value has characters that a header cannot hold")?;
    value.set_sensitive(true);
    Ok((name, value))
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Entry {
            name: String,
            #[serde(default)]
            value: Secret,
        }
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Headers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of header names to values, or a list of `name` and `value`")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Headers, E> {
                Ok(Headers::default())
            }
            fn visit_none<E: de::Error>(self) -> Result<Headers, E> {
                Ok(Headers::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<Secret>>()? {
                    headers.push((name, value.unwrap_or_default()));
                }
                Ok(Headers(headers))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(entry) = list.next_element::<Entry>()? {
                    headers.push((entry.name, entry.value));
                }
                Ok(Headers(headers))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// `auth`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The extension that adds credentials.
    pub authenticator: String,
}

/// `middlewares`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Middleware {
    pub id: String,
}

/// HTTP/2 pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keepalive {
    /// A ping after this long.
    pub time: GoDuration,
    /// The connection is given up when a ping has no answer for this long.
    pub timeout: GoDuration,
    /// Ping idle connections too. Off: servers may count such pings as abuse.
    pub permit_without_stream: bool,
}

impl Default for Keepalive {
    /// The Collector's values where the block is written.
    fn default() -> Self {
        Self {
            time: GoDuration(Duration::from_secs(10)),
            timeout: GoDuration(Duration::from_secs(10)),
            permit_without_stream: false,
        }
    }
}

impl Keepalive {
    /// What weir does where nothing is written: a peer that is gone without a word is noticed within 40 s of a request.
    pub const UNWRITTEN: Self = Self {
        time: GoDuration(Duration::from_secs(30)),
        timeout: GoDuration(Duration::from_secs(10)),
        permit_without_stream: false,
    };
}

/// The Collector's gRPC client block (`configgrpc`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcClientSettings {
    /// `host:port`, `dns:///host:port` (round robin over all addresses), `unix:///path`, or with `http://` or `https://` in front.
    pub endpoint: String,
    /// gzip, snappy, zstd or none. Unwritten: none to this machine, otherwise gzip at level 1.
    pub compression: Option<String>,
    pub tls: TlsClientSettings,
    pub keepalive: Section<Keepalive>,
    pub read_buffer_size: Option<i64>,
    pub write_buffer_size: Option<i64>,
    /// Attempts wait for a connection until their timeout instead of failing at once.
    pub wait_for_ready: bool,
    pub headers: Headers,
    pub user_agent: String,
    /// `round_robin` goes round all addresses of a name, `pick_first` stays with one.
    pub balancer_name: String,
    /// What `:authority` says, instead of the endpoint.
    pub authority: String,
    pub auth: Section<Auth>,
    pub middlewares: Vec<Middleware>,
}

impl GrpcClientSettings {
    /// Says what cannot work; `node` is the map the block lies in.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        if let Err(problem) = Endpoint::grpc(&self.endpoint) {
            found.error(at("endpoint"), problem, None);
        }
        if let Some(name) = &self.compression
            && Algorithm::grpc(name).is_none()
        {
            let known = "use gzip, snappy, zstd or none".to_owned();
            found.error(at("compression"), format!("`{name}` is not a compression of the gRPC client"), Some(known));
        }
        self.tls.check(node.nearest("tls"), found);
        self.headers.check(node, found);
        if !matches!(self.balancer_name.as_str(), "" | "round_robin" | "pick_first") {
            let known = "use round_robin or pick_first".to_owned();
            found.error(at("balancer_name"), format!("`{}` is not a balancer weir has", self.balancer_name), Some(known));
        }
        check_auth(self.auth.get(), at("auth"), found);
        check_middlewares(&self.middlewares, at("middlewares"), found);
        for (key, written) in [("read_buffer_size", self.read_buffer_size), ("write_buffer_size", self.write_buffer_size)] {
            if written.is_some() {
                found.ineffective(
                    at(key),
                    format!("`{key}` has no effect"),
                    "bodies are written from where they lie, without a buffer",
                );
            }
        }
    }

    /// The endpoint with what `balancer_name` adds to it.
    pub fn target(&self) -> Result<Endpoint, String> {
        let mut endpoint = Endpoint::grpc(&self.endpoint)?;
        match self.balancer_name.as_str() {
            "round_robin" => endpoint.spread = true,
            "pick_first" => endpoint.spread = false,
            _ => {}
        }
        Ok(endpoint)
    }

    /// The compression to use, given where the endpoint is.
    pub fn algorithm(&self, endpoint: &Endpoint) -> Algorithm {
        match &self.compression {
            Some(name) => Algorithm::grpc(name).unwrap_or(Algorithm::None),
            None if endpoint.is_loopback() => Algorithm::None,
            None => Algorithm::Gzip,
        }
    }

    /// The pings to send; `None` where the file switches them off.
    pub fn pings(&self, node_has_keepalive: bool) -> Option<Keepalive> {
        let written = if node_has_keepalive { self.keepalive.get().copied() } else { Some(Keepalive::UNWRITTEN) };
        // gRPC reads 0 as "never".
        written.filter(|keepalive| !keepalive.time.0.is_zero())
    }
}

/// `compression_params`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressionParams {
    /// gzip, zlib, deflate: 0 to 9; zstd: 1 to 22. Unwritten: the cheapest, 1.
    pub level: Option<i32>,
}

/// `cookies`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cookies {
    pub enabled: bool,
}

/// The Collector's HTTP client block (`confighttp`), without `timeout`, which is the exporter's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpClientSettings {
    /// `http://` or `https://`, host, port, path.
    pub endpoint: String,
    /// The proxy to use instead of those of the environment.
    pub proxy_url: Secret,
    pub tls: TlsClientSettings,
    pub read_buffer_size: Option<i64>,
    pub write_buffer_size: Option<i64>,
    pub headers: Headers,
    pub auth: Section<Auth>,
    /// gzip, zstd, zlib, deflate, snappy, x-snappy-framed or none. Unwritten: none to this machine, otherwise gzip at level 1.
    pub compression: Option<String>,
    pub compression_params: CompressionParams,
    /// Most connections kept open between requests; 0 for no bound but ours (100).
    pub max_idle_conns: Option<usize>,
    pub max_idle_conns_per_host: Option<usize>,
    pub max_conns_per_host: Option<usize>,
    /// Longest time a connection is kept unused; 0 for no bound.
    pub idle_conn_timeout: GoDuration,
    /// A connection a request.
    pub disable_keep_alives: bool,
    /// A ping on an HTTP/2 connection in use after this long; 0 for none. Unwritten: 30 s.
    pub http2_read_idle_timeout: Option<GoDuration>,
    pub http2_ping_timeout: Option<GoDuration>,
    pub cookies: Section<Cookies>,
    /// Offer HTTP/2 when TLS is agreed on.
    pub force_attempt_http2: bool,
    pub middlewares: Vec<Middleware>,
}

impl Default for HttpClientSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            proxy_url: Secret::default(),
            tls: TlsClientSettings::default(),
            read_buffer_size: None,
            write_buffer_size: None,
            headers: Headers::default(),
            auth: Section::absent(),
            compression: None,
            compression_params: CompressionParams::default(),
            max_idle_conns: None,
            max_idle_conns_per_host: None,
            max_conns_per_host: None,
            idle_conn_timeout: GoDuration(Duration::from_secs(90)),
            disable_keep_alives: false,
            http2_read_idle_timeout: None,
            http2_ping_timeout: None,
            cookies: Section::absent(),
            force_attempt_http2: true,
            middlewares: Vec::new(),
        }
    }
}

impl HttpClientSettings {
    /// Says what cannot work, apart from `endpoint`, which is the exporter's to judge; `node` is the map the block lies in.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        let algorithm = self.compression.as_deref().map(Algorithm::http);
        match (algorithm, &self.compression) {
            (Some(None), Some(name)) if name == "lz4" => found.error(
                at("compression"),
                "weir cannot send lz4",
                Some("zstd at level 1 costs about as little; every backend with lz4 takes gzip too".to_owned()),
            ),
            (Some(None), Some(name)) => {
                let known = "use gzip, zstd, zlib, deflate, snappy, x-snappy-framed or none".to_owned();
                found.error(at("compression"), format!("`{name}` is not a compression of the HTTP client"), Some(known));
            }
            _ => {}
        }
        if let Some(level) = self.compression_params.level {
            let (fits, range) = match algorithm.flatten() {
                Some(Algorithm::Zstd) => ((1..=22).contains(&level), "1 to 22"),
                Some(Algorithm::Gzip | Algorithm::Zlib | Algorithm::Deflate) | None => {
                    ((-1..=9).contains(&level), "0 to 9, or -1 for the default")
                }
                Some(_) => (level == 0, "0: this compression has no levels"),
            };
            if !fits {
                let remedy = format!("the level is {range}");
                found.error(at("compression_params"), format!("{level} is not a level of this compression"), Some(remedy));
            }
        }
        if !self.proxy_url.expose().is_empty()
            && let Err(problem) = Proxy::parse(self.proxy_url.expose())
        {
            found.error(at("proxy_url"), problem, None);
        }
        self.tls.check(node.nearest("tls"), found);
        self.headers.check(node, found);
        check_auth(self.auth.get(), at("auth"), found);
        check_middlewares(&self.middlewares, at("middlewares"), found);
        if self.cookies.get().is_some_and(|cookies| cookies.enabled) {
            found.error(at("cookies"), "weir keeps no cookies", Some("set what is needed under `headers`".to_owned()));
        }
        for (key, written) in [("read_buffer_size", self.read_buffer_size), ("write_buffer_size", self.write_buffer_size)] {
            if written.is_some() {
                found.ineffective(
                    at(key),
                    format!("`{key}` has no effect"),
                    "bodies are written from where they lie, without a buffer",
                );
            }
        }
        if self.max_conns_per_host.is_some_and(|max| max > 0) {
            let instead = "there are as many connections as requests in flight, at most `sending_queue::num_consumers`";
            found.ineffective(at("max_conns_per_host"), "`max_conns_per_host` has no effect", instead);
        }
    }

    /// The compression to use, given where the endpoint is.
    pub fn compressor(&self, endpoint: &Endpoint) -> Compressor {
        let algorithm = match &self.compression {
            Some(name) => Algorithm::http(name).unwrap_or(Algorithm::None),
            None if endpoint.is_loopback() => Algorithm::None,
            None => Algorithm::Gzip,
        };
        match self.compression_params.level {
            Some(level) if level >= 0 && (level > 0 || algorithm != Algorithm::Zstd) => Compressor { algorithm, level },
            // -1 is "the library's own choice" in the Collector.
            Some(_) => Compressor { algorithm, level: if algorithm == Algorithm::Zstd { 3 } else { 6 } },
            None => Compressor::fast(algorithm),
        }
    }

    pub fn keeping(&self) -> Keeping {
        let bound = |written: Option<usize>| written.filter(|max| *max > 0).unwrap_or(IDLE_MAX);
        let ping = self.http2_read_idle_timeout.unwrap_or(Keepalive::UNWRITTEN.time);
        let keepalive = (!ping.0.is_zero()).then(|| Keepalive {
            time: ping,
            timeout: self.http2_ping_timeout.filter(|timeout| !timeout.0.is_zero()).unwrap_or(Keepalive::UNWRITTEN.timeout),
            permit_without_stream: false,
        });
        let idle_max = bound(self.max_idle_conns).min(bound(self.max_idle_conns_per_host)).min(IDLE_MAX);
        Keeping {
            idle_max: if self.disable_keep_alives { 0 } else { idle_max },
            idle_timeout: self.idle_conn_timeout.0,
            keepalive,
        }
    }

    /// The proxy rules: `proxy_url`, or the environment's.
    pub fn proxies(&self, environment: &ProxyRules) -> ProxyRules {
        match Proxy::parse(self.proxy_url.expose()) {
            Ok(proxy) if !self.proxy_url.expose().is_empty() => ProxyRules::always(proxy),
            _ => environment.clone(),
        }
    }
}

/// Connections that are kept open between requests.
const IDLE_MAX: usize = 100;

pub(super) fn check_auth(auth: Option<&Auth>, origin: crate::config::Origin, found: &mut Diagnostics) {
    if auth.is_some_and(|auth| auth.authenticator.is_empty()) {
        found.error(origin, "`auth` names no authenticator", Some("add `authenticator: <extension id>`".to_owned()));
    }
}

pub(super) fn check_middlewares(middlewares: &[Middleware], origin: crate::config::Origin, found: &mut Diagnostics) {
    if let Some(first) = middlewares.first() {
        found.error(
            origin,
            format!("weir has no client middlewares, but `{}` is named", first.id),
            Some("leave it out".to_owned()),
        );
    }
}

/// `weir/0.1.0 (linux/amd64)`
pub fn user_agent() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("weir/{} ({}/{arch})", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}
