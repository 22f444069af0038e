//! Where a client connects to, from the spellings that configuration files use.

use std::path::PathBuf;

use crate::config::shown_url;

/// The thing to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A name or an address (IPv6 without brackets), and a port.
    Host {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// A parsed `endpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub place: Place,
    /// `Some(true)` for `https://`, `Some(false)` for `http://`, `None` where the scheme does not say.
    pub tls: Option<bool>,
    /// `dns:///`: requests go round all addresses of the name.
    pub spread: bool,
    /// Path and query of an HTTP endpoint, as written; empty for gRPC.
    pub path: String,
}

impl Endpoint {
    /// A gRPC target: `host:port` (the Collector wants the port too), with `http://`, `https://`, `dns:///`, `passthrough:///` or `unix:` in front.
    pub fn grpc(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("an endpoint is required, such as `backend:4317`".to_owned());
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self { place: unix(path)?, tls: None, spread: false, path: String::new() });
        }
        let (tls, spread, rest) = if let Some(rest) = text.strip_prefix("http://") {
            (Some(false), false, rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (Some(true), false, rest)
        } else if let Some(rest) = text.strip_prefix("dns:") {
            (None, true, after_resolver_authority(rest))
        } else if let Some(rest) = text.strip_prefix("passthrough:") {
            (None, false, after_resolver_authority(rest))
        } else if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "`{scheme}://` is not a scheme weir connects to; use host:port, http://, https://, dns:/// or unix://"
            ));
        } else {
            (None, false, text)
        };
        let (rest, tail) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains('@') {
            return Err(CREDENTIALS.to_owned());
        }
        if !tail.is_empty() {
            return Err(format!(
                "a gRPC endpoint has no path, but `/{tail}` follows the port; for OTLP/HTTP use the `otlp_http` exporter"
            ));
        }
        Ok(Self { place: host_port(rest, None)?, tls, spread, path: String::new() })
    }

    /// An HTTP URL: `http://` or `https://`, host, optional port and path.
    pub fn http(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("an endpoint is required, such as `http://backend:4318`".to_owned());
        }
        let (tls, rest) = if let Some(rest) = strip_scheme(text, "http://") {
            (false, rest)
        } else if let Some(rest) = strip_scheme(text, "https://") {
            (true, rest)
        } else if text.contains('@') {
            return Err(CREDENTIALS.to_owned());
        } else {
            let text = shown_url(text);
            return Err(format!("`{text}` needs a scheme: `http://{text}` or `https://{text}`"));
        };
        let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(cut).unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(CREDENTIALS.to_owned());
        }
        if authority.is_empty() {
            return Err(format!("`{text}` names no host; write `http://backend:4318`"));
        }
        let path = path.split('#').next().unwrap_or_default();
        let place = host_port(authority, Some(if tls { 443 } else { 80 }))?;
        Ok(Self { place, tls: Some(tls), spread: false, path: path.to_owned() })
    }

    /// Whether the peer is on this machine, as far as the text says.
    pub fn is_loopback(&self) -> bool {
        match &self.place {
            Place::Unix(_) => true,
            Place::Host { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }

    /// What the request says it is for: `host:port`, as `:authority` and in messages.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Unix(_) => "localhost".to_owned(),
            Place::Host { host, port } => join(host, *port),
        }
    }

    /// As [`Self::authority`], without the port where it is the scheme's own.
    pub fn host_header(&self) -> String {
        match (&self.place, self.tls) {
            (Place::Host { host, port: 80 }, Some(false)) | (Place::Host { host, port: 443 }, Some(true)) => bracketed(host),
            _ => self.authority(),
        }
    }

    /// The name that a certificate has to be for.
    pub fn server_name(&self) -> &str {
        match &self.place {
            Place::Unix(_) => "localhost",
            Place::Host { host, .. } => host,
        }
    }
}

/// What is written there may be a password: it is not quoted.
const CREDENTIALS: &str = "credentials in an endpoint are not sent; use the `basic_auth` extension or `headers`";

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `//resolver/host:port` → `host:port`; a resolver of its own is not asked, the system's is.
fn after_resolver_authority(rest: &str) -> &str {
    match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/').map_or(rest, |(_, target)| target),
        None => rest,
    }
}

fn unix(path: &str) -> Result<Place, String> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err("`unix:` needs the path of a socket".to_owned());
    }
    Ok(Place::Unix(PathBuf::from(path)))
}

fn host_port(text: &str, default: Option<u16>) -> Result<Place, String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or_else(|| format!("`{text}` opens a bracket and does not close it"))?;
        (host, tail.strip_prefix(':'))
    } else if text.matches(':').count() > 1 {
        // An IPv6 address without brackets can carry no port.
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let port = match (port, default) {
        (Some(port), _) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{port}` is not a port number, in `{text}`"))?
        }
        (None, Some(port)) => port,
        (None, None) if host.contains(':') => return Err(format!("`{text}` needs a port: `[{text}]:4317`")),
        (None, None) => return Err(format!("`{text}` needs a port: `{text}:4317`")),
    };
    // An empty host is this machine, as `:4317` means in Go.
    let host = if host.is_empty() { "localhost" } else { host };
    if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/\\@?#".contains(c)) {
        return Err(format!("`{host}` is not a host name"));
    }
    Ok(Place::Host { host: host.to_owned(), port })
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

pub(super) fn join(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}
