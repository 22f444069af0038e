//! Proxies: which requests go through one, and how a tunnel is opened.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    connect::Stream,
    endpoint::{Endpoint, Place, join},
};
use crate::component::Notes;

/// Longest answer to a CONNECT that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub endpoint: Endpoint,
    /// The value of `Proxy-Authorization`, where the URL has user and password.
    pub authorization: Option<String>,
}

impl Proxy {
    /// `http://[user[:password]@]host:port`, `https://…`, or `host:port`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(format!("weir has no `{scheme}` proxies; use an http:// one"));
        }
        let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let rest = rest.get(..cut).unwrap_or(rest);
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let endpoint = Endpoint::http(&format!("{scheme}://{host}"))?;
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut plain = percent_decoded(name);
            plain.push(b':');
            plain.extend(percent_decoded(password));
            format!("Basic {}", STANDARD.encode(plain))
        });
        Ok(Self { endpoint, authorization })
    }
}

/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as Go's programs read them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyRules {
    pub http: Option<Proxy>,
    pub https: Option<Proxy>,
    /// Nothing is proxied.
    none: bool,
    /// This machine's own addresses are proxied too.
    local: bool,
    except: Vec<Exception>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    matches: Match,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Match {
    Net {
        address: IpAddr,
        bits: u32,
    },
    /// `name` in lower case without a leading dot; `itself`: the name matches, not only names below it.
    Name {
        name: String,
        itself: bool,
    },
}

impl ProxyRules {
    /// The process environment's rules; a proxy that cannot be read is noted and left out.
    pub fn from_env(notes: &Notes) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
            if let Some(text) = either(variable, name)
                && let Err(problem) = Proxy::parse(&text)
            {
                notes.add("endpoint", format!("the proxy in the variable {name} is not used: {problem}"), None);
            }
        }
        Self::read(variable)
    }

    /// One proxy for everything, as `proxy_url` says.
    pub fn always(proxy: Proxy) -> Self {
        Self { http: Some(proxy.clone()), https: Some(proxy), none: false, local: true, except: Vec::new() }
    }

    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let proxy = |name: &str| Proxy::parse(&either(&variable, name)?).ok();
        let mut rules =
            Self { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), none: false, local: false, except: Vec::new() };
        for entry in either(&variable, "NO_PROXY").unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty())
        {
            if entry == "*" {
                rules.none = true;
            } else if let Some(exception) = Exception::parse(entry) {
                rules.except.push(exception);
            }
        }
        rules
    }

    /// The proxy for a destination. `secure`: ask for `HTTPS_PROXY` (gRPC always does, as grpc-go).
    pub fn of(&self, place: &Place, secure: bool) -> Option<&Proxy> {
        let Place::Host { host, port } = place else { return None };
        let proxy = if secure { self.https.as_ref()? } else { self.http.as_ref()? };
        let address = host.parse::<IpAddr>().ok();
        let local = host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback());
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let excepted = || self.except.iter().any(|exception| exception.holds(&host, address, *port));
        (!self.none && (self.local || !local) && !excepted()).then_some(proxy)
    }
}

/// A variable in capitals or in small letters; one that is set to nothing is not set.
fn either(variable: impl Fn(&str) -> Option<String>, upper: &str) -> Option<String> {
    variable(upper).or_else(|| variable(&upper.to_ascii_lowercase())).filter(|text| !text.is_empty())
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.to_ascii_lowercase();
        if let Some((net, bits)) = entry.split_once('/') {
            let address: IpAddr = net.parse().ok()?;
            return Some(Self { matches: Match::Net { address, bits: bits.parse().ok()? }, port: None });
        }
        let whole = |address: IpAddr| Match::Net { address, bits: if address.is_ipv4() { 32 } else { 128 } };
        if let Ok(address) = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self { matches: whole(address), port: None });
        }
        if let Ok(socket) = entry.parse::<SocketAddr>() {
            return Some(Self { matches: whole(socket.ip()), port: Some(socket.port()) });
        }
        let (name, port) = entry.split_once(':').map_or((entry.as_str(), None), |(name, port)| (name, port.parse().ok()));
        let below = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        let (name, itself) = below.map_or((name, true), |name| (name, false));
        (!name.is_empty()).then(|| Self { matches: Match::Name { name: name.to_owned(), itself }, port })
    }

    fn holds(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        if self.port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        match &self.matches {
            Match::Name { name, itself } => {
                (*itself && host == name) || host.strip_suffix(name.as_str()).is_some_and(|head| head.ends_with('.'))
            }
            Match::Net { address: net, bits } => match (net, address) {
                (IpAddr::V4(net), Some(IpAddr::V4(address))) => {
                    let shift = 32u32.saturating_sub(*bits);
                    net.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
                }
                (IpAddr::V6(net), Some(IpAddr::V6(address))) => {
                    let shift = 128u32.saturating_sub(*bits);
                    net.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
                }
                _ => false,
            },
        }
    }
}

/// Asks a proxy for a tunnel to `host:port` on a fresh connection to it.
pub(super) async fn tunnel(stream: &mut dyn Stream, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let target = join(host, port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str("Proxy-Authorization: ");
        request.push_str(authorization);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    // Byte by byte, because what follows the blank line already belongs to the tunnel.
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer has no end"));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().unwrap_or_default();
    if version.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2') {
        return Ok(());
    }
    let shown: String = line.chars().filter(|c| !c.is_control()).take(120).collect();
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the proxy refused the tunnel: {shown}")))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut ahead = bytes.clone();
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            if let (Some(high), Some(low)) = (digit(ahead.next()), digit(ahead.next())) {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
                continue;
            }
        }
        out.push(byte);
    }
    out
}
