//! Opens connections: resolve, TCP or a Unix socket, a proxy's tunnel, TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    endpoint::{Endpoint, Place},
    proxy::{Proxy, ProxyRules, tunnel},
    resolve::{Resolve, SystemResolver},
};
use crate::{
    runtime::BuildError,
    transport::tls::client::{TlsClient, TlsClientSettings},
};

/// Longest time from the first packet to a connection that can be used. An attempt's own timeout is usually shorter.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// The next address is tried as well when one has not answered for this long (RFC 8305 §5 says 250 ms).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

pub(super) type Io = Box<dyn Stream>;

/// A connection could not be opened. The messages are whole sentences' middles: they follow "cannot reach NAME: ".
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot look up {name}: {reason}")]
    Lookup { name: String, reason: String },
    /// Refused, unreachable, timed out, reset.
    #[error("cannot connect to {name}: {reason}")]
    Network { name: String, reason: String },
    /// Certificates, versions, a peer without TLS.
    #[error("no TLS connection to {name}: {reason}")]
    Tls { name: String, reason: String },
    /// The proxy would not let us through.
    #[error("{reason}")]
    Proxy { reason: String },
    /// Connected, but what answers does not speak the protocol.
    #[error("{reason}")]
    Protocol { reason: String },
}

impl ConnectError {
    /// Whether someone has to act before it can work.
    pub fn is_blocked(&self) -> bool {
        !matches!(self, Self::Network { .. })
    }
}

/// An open connection.
pub(super) struct Opened {
    pub io: Io,
    /// TLS agreed on HTTP/2.
    pub h2: bool,
}

/// Opens connections to one endpoint.
pub struct Connector {
    pub(super) endpoint: Endpoint,
    resolver: Arc<dyn Resolve>,
    tls: Option<Arc<TlsClient>>,
    proxy: Option<Route>,
}

/// A proxy and the TLS to it.
struct Route {
    proxy: Proxy,
    tls: Option<TlsClient>,
    /// Plain HTTP requests are sent to the proxy whole instead of through a tunnel.
    tunnel: bool,
}

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Socket(SocketAddr),
    /// Looked up by the proxy, or not looked up at all (a Unix socket).
    Named,
}

impl Connector {
    /// gRPC: TLS unless the scheme or `insecure` says otherwise; through `HTTPS_PROXY` whatever the scheme, as grpc-go does.
    pub fn grpc(endpoint: Endpoint, tls: &TlsClientSettings, proxies: &ProxyRules) -> Result<Self, BuildError> {
        let secure = endpoint.tls.unwrap_or(!tls.insecure);
        let proxy = proxies.of(&endpoint.place, true).cloned();
        let tls = secure.then(|| TlsClient::new(tls.clone(), &[b"h2"]).map(Arc::new)).transpose()?;
        Self::new(endpoint, tls, proxy, true)
    }

    /// HTTP: TLS by scheme; plain requests are handed to an HTTP proxy as they are.
    pub fn http(endpoint: Endpoint, tls: &TlsClientSettings, proxies: &ProxyRules, h2: bool) -> Result<Self, BuildError> {
        let secure = endpoint.tls.unwrap_or(true);
        let proxy = proxies.of(&endpoint.place, secure).cloned();
        let alpn: &[&[u8]] = if h2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        let tls = secure.then(|| TlsClient::new(tls.clone(), alpn).map(Arc::new)).transpose()?;
        Self::new(endpoint, tls, proxy, secure)
    }

    /// HTTP over TLS that connectors to many endpoints share, so that certificates are in memory once.
    pub fn https(endpoint: Endpoint, tls: Arc<TlsClient>, proxies: &ProxyRules) -> Result<Self, BuildError> {
        let proxy = proxies.of(&endpoint.place, true).cloned();
        Self::new(endpoint, Some(tls), proxy, true)
    }

    fn new(endpoint: Endpoint, tls: Option<Arc<TlsClient>>, proxy: Option<Proxy>, tunnel: bool) -> Result<Self, BuildError> {
        if let Some(tls) = &tls {
            tls.server_name(endpoint.server_name())?;
        }
        let route = match proxy {
            None => None,
            Some(proxy) => {
                let to_proxy = (proxy.endpoint.tls == Some(true))
                    .then(|| TlsClient::new(TlsClientSettings::default(), &[b"http/1.1"]))
                    .transpose()?;
                Some(Route { proxy, tls: to_proxy, tunnel })
            }
        };
        Ok(Self { endpoint, resolver: Arc::new(SystemResolver), tls, proxy: route })
    }

    /// Asks `resolver` for addresses instead of the system.
    pub fn with_resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The proxy that plain HTTP requests are addressed to.
    pub(super) fn forwarding_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|route| !route.tunnel).map(|route| &route.proxy)
    }

    /// The endpoint's addresses, or [`Address::Named`] where it is not ours to look them up.
    pub(super) async fn addresses(&self) -> Result<Vec<Address>, ConnectError> {
        match &self.endpoint.place {
            Place::Host { host, port } if self.proxy.is_none() => {
                Ok(self.lookup(host, *port).await?.into_iter().map(Address::Socket).collect())
            }
            _ => Ok(vec![Address::Named]),
        }
    }

    async fn lookup(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let failed = |reason: String| ConnectError::Lookup { name: host.to_owned(), reason };
        let found = self.resolver.resolve(host, port).await.map_err(|error| failed(error.to_string()))?;
        if found.is_empty() { Err(failed("the name has no addresses".to_owned())) } else { Ok(found) }
    }

    /// Opens a connection to the first of these addresses that answers.
    pub(super) async fn open(&self, addresses: &[Address]) -> Result<Opened, ConnectError> {
        let Ok(opened) = timeout(CONNECT_MAX, self.open_unbounded(addresses)).await else {
            return Err(ConnectError::Network {
                name: self.endpoint.authority(),
                reason: format!("no answer for {} s", CONNECT_MAX.as_secs()),
            });
        };
        opened
    }

    async fn open_unbounded(&self, addresses: &[Address]) -> Result<Opened, ConnectError> {
        let name = self.endpoint.authority();
        let io: Io = match (&self.endpoint.place, &self.proxy) {
            (Place::Unix(path), _) => {
                let stream = UnixStream::connect(path).await;
                Box::new(
                    stream
                        .map_err(|error| ConnectError::Network { name: path.display().to_string(), reason: error.to_string() })?,
                )
            }
            (Place::Host { host, port }, Some(route)) => self.through(route, host, *port).await?,
            (Place::Host { .. }, None) => {
                let sockets: Vec<_> = addresses
                    .iter()
                    .filter_map(|address| match address {
                        Address::Socket(socket) => Some(*socket),
                        Address::Named => None,
                    })
                    .collect();
                Box::new(connect_any(&sockets).await.map_err(|reason| ConnectError::Network { name: name.clone(), reason })?)
            }
        };
        match &self.tls {
            None => Ok(Opened { io, h2: false }),
            Some(tls) => secured(io, tls, self.endpoint.server_name(), &name).await,
        }
    }

    async fn through(&self, route: &Route, host: &str, port: u16) -> Result<Io, ConnectError> {
        let Place::Host { host: proxy_host, port: proxy_port } = &route.proxy.endpoint.place else {
            return Err(ConnectError::Proxy { reason: "a proxy has to be a host".to_owned() });
        };
        let name = format!("the proxy {}", route.proxy.endpoint.authority());
        let sockets = self.lookup(proxy_host, *proxy_port).await?;
        let stream = connect_any(&sockets).await.map_err(|reason| ConnectError::Network { name: name.clone(), reason })?;
        let mut io: Io = Box::new(stream);
        if let Some(tls) = &route.tls {
            io = secured(io, tls, proxy_host, &name).await?.io;
        }
        if route.tunnel {
            tunnel(&mut *io, &route.proxy, host, port).await.map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => ConnectError::Proxy { reason: error.to_string() },
                _ => ConnectError::Network { name, reason: error.to_string() },
            })?;
        }
        Ok(io)
    }
}

async fn secured(io: Io, tls: &TlsClient, host: &str, name: &str) -> Result<Opened, ConnectError> {
    let failed = |reason: String| ConnectError::Tls { name: name.to_owned(), reason };
    let server = tls.server_name(host).map_err(|error| failed(error.to_string()))?;
    let stream = TlsConnector::from(tls.config()).connect(server, io).await.map_err(|error| {
        // A connection that breaks during the handshake may be a restart: that passes. What rustls found does not.
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidMessage(_)) => {
                failed(format!("{error}; does it speak plaintext? then set `tls::insecure: true`"))
            }
            Some(_) => failed(error.to_string()),
            None => {
                let reason = format!("the connection broke during the TLS handshake: {error}");
                ConnectError::Network { name: name.to_owned(), reason }
            }
        }
    })?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Opened { io: Box::new(stream), h2 })
}

/// Tries addresses in order, the next one beside it when one is slow; the first that answers wins.
async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut waiting = addresses.iter().copied();
    let mut trying = FuturesUnordered::new();
    let mut failures: Vec<String> = Vec::new();
    loop {
        if trying.is_empty() {
            match waiting.next() {
                Some(address) => trying.push(connect_one(address)),
                None if failures.is_empty() => return Err("no address to connect to".to_owned()),
                None => return Err(failures.join("; ")),
            }
        }
        tokio::select! {
            Some((address, connected)) = trying.next() => match connected {
                Ok(stream) => return Ok(stream),
                // Each address once, and not a page of them.
                Err(error) if failures.len() < 4 => failures.push(format!("{address}: {error}")),
                Err(_) => {}
            },
            () = sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {
                if let Some(address) = waiting.next() {
                    trying.push(connect_one(address));
                }
            }
        }
    }
}

async fn connect_one(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    let connected = TcpStream::connect(address).await.and_then(|stream| {
        stream.set_nodelay(true)?;
        Ok(stream)
    });
    (address, connected)
}
