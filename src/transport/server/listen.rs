//! Endpoints → listening sockets.

use std::{
    io::{self, Error, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{fs::MetadataExt as _, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::{TcpListener, UnixListener, lookup_host};

use super::{io::Socket, settings::Listen};
use crate::runtime::{AnySocket, BuildError, Sockets};

/// A listening socket, shared by those who take over from one another. A socket file is removed when it goes.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when it is dropped")] SocketFile),
}

/// The file of a listening socket; removed with it, unless another process has put its own there meanwhile.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // Gone already is as good.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are small and finished when written; waiting to fill a segment only delays them.
                stream.set_nodelay(true)?;
                Ok((Socket::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| (Socket::Unix(stream), None)),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Who asks for sockets, and whose may be taken over.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// Names the setting in errors.
    pub(super) key: &'a str,
    pub(super) sockets: &'a Sockets,
}

impl Asking<'_> {
    /// The socket of one whose place is taken.
    fn inherited(self, address: &str, any_port: bool) -> Option<Arc<Listener>> {
        self.sockets.take(self.key, address, any_port)?.downcast().ok()
    }

    fn opened(self, address: &str, listener: Listener) -> Arc<Listener> {
        let listener = Arc::new(listener);
        self.sockets.opened(self.key, address, &(listener.clone() as AnySocket));
        listener
    }

    async fn tcp(self, address: SocketAddr) -> io::Result<Arc<Listener>> {
        if let Some(inherited) = self.inherited(&address.to_string(), address.port() == 0) {
            return Ok(inherited);
        }
        TcpListener::bind(address).await.map(|listener| self.opened(&address.to_string(), Listener::Tcp(listener)))
    }
}

/// Opens every socket that the endpoint stands for, or takes it over.
pub(super) async fn open(listen: &Listen, asking: Asking<'_>) -> Result<Vec<Arc<Listener>>, BuildError> {
    let key = asking.key;
    let endpoint = listen.endpoint.as_str();
    let transport = listen.transport.as_deref().unwrap_or("tcp");
    let (host, port) = match Place::of(endpoint, transport) {
        Ok(Place::Unix(path)) => {
            if let Some(inherited) = asking.inherited(&path.to_string_lossy(), false) {
                return Ok(vec![inherited]);
            }
            let opened = unix(path).map_err(|error| failed(&error, endpoint, key))?;
            return Ok(vec![asking.opened(&path.to_string_lossy(), opened)]);
        }
        Ok(Place::Tcp(host, port)) => (host, port),
        Err((message, help)) => return Err(BuildError::setting(key, message).helped(help)),
    };
    let addresses: Vec<SocketAddr> = match (host, transport) {
        ("localhost", "tcp4") => vec![(Ipv4Addr::LOCALHOST, port).into()],
        ("localhost", "tcp6") => vec![(Ipv6Addr::LOCALHOST, port).into()],
        ("localhost", _) => return localhost(port, asking).await,
        ("", "tcp4") => vec![(Ipv4Addr::UNSPECIFIED, port).into()],
        // One socket takes both families; where IPv6 is switched off there is the other one.
        ("", _) => {
            let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            match asking.tcp(all).await {
                Ok(listener) => return Ok(vec![listener]),
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(failed(&error, &all.to_string(), key)),
                Err(_) => vec![(Ipv4Addr::UNSPECIFIED, port).into()],
            }
        }
        (host, _) => match host.parse::<IpAddr>() {
            Ok(ip) => vec![(ip, port).into()],
            Err(_) => lookup_host((host, port))
                .await
                .map_err(|error| BuildError::setting(key, format!("cannot resolve `{host}`: {error}")))?
                .filter(|address| !(transport == "tcp4" && address.is_ipv6() || transport == "tcp6" && address.is_ipv4()))
                .take(1)
                .collect(),
        },
    };
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        listeners.push(asking.tcp(address).await.map_err(|error| failed(&error, &address.to_string(), key))?);
    }
    if listeners.is_empty() {
        return Err(BuildError::setting(key, format!("`{host}` has no address to listen on")));
    }
    Ok(listeners)
}

/// 127.0.0.1, and ::1 where there is one: SDKs resolve `localhost` to either.
async fn localhost(port: u16, asking: Asking<'_>) -> Result<Vec<Arc<Listener>>, BuildError> {
    let key = asking.key;
    let (v4, v6) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let mut last = None;
    // With port 0 the kernel picks a port for the first socket, and it may be taken for the second one.
    for _ in 0..8 {
        let first = asking.tcp(v4).await.map_err(|error| failed(&error, &v4.to_string(), key))?;
        if let Some(second) = asking.inherited(&v6.to_string(), port == 0) {
            return Ok(vec![first, second]);
        }
        let picked = SocketAddr::new(v6.ip(), first.address().map_or(port, |address| address.port()));
        match TcpListener::bind(picked).await {
            Ok(second) => return Ok(vec![first, asking.opened(&v6.to_string(), Listener::Tcp(second))]),
            Err(error) if error.kind() == ErrorKind::AddrInUse && port == 0 => {
                last = Some(failed(&error, &picked.to_string(), key));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(failed(&error, &picked.to_string(), key)),
            Err(_) => return Ok(vec![first]),
        }
    }
    Err(last.unwrap_or_else(|| BuildError::setting(key, "no free port")))
}

fn unix(path: &Path) -> io::Result<Listener> {
    match UnixListener::bind(path) {
        // A file that nobody listens on was left behind by a process that is gone.
        Err(error) if error.kind() == ErrorKind::AddrInUse => match StdUnixStream::connect(path) {
            Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            _ => Err(error),
        },
        bound => bound,
    }
    .map(|listener| Listener::Unix(listener, SocketFile::of(path)))
}

/// What an endpoint stands for.
pub(super) enum Place<'e> {
    Unix(&'e Path),
    /// The host is a name, an address, or nothing for all addresses.
    Tcp(&'e str, u16),
}

impl<'e> Place<'e> {
    /// `Err` says what is wrong, and what would be right.
    pub(super) fn of(endpoint: &'e str, transport: &str) -> Result<Self, (String, String)> {
        let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:"));
        if let Some(path) = path.or((transport == "unix").then_some(endpoint)) {
            return Ok(Self::Unix(Path::new(path)));
        }
        split(endpoint).map(|(host, port)| Self::Tcp(host, port)).ok_or_else(|| {
            let help = match endpoint.split_once("://") {
                Some((_, rest)) => format!("leave the scheme out: `{}`", rest.trim_end_matches('/')),
                None if endpoint.parse::<u16>().is_ok() => {
                    format!("write `localhost:{endpoint}`, or `0.0.0.0:{endpoint}` for all addresses")
                }
                None => "write `localhost:PORT`, with a port from 0 to 65535".to_owned(),
            };
            (format!("`{endpoint}` is not host:port"), help)
        })
    }
}

/// `host:port`, `[v6]:port`, `:port`.
fn split(endpoint: &str) -> Option<(&str, u16)> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.contains(['/', ' ']) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

fn failed(error: &Error, address: &str, key: &str) -> BuildError {
    let what = match error.kind() {
        ErrorKind::AddrInUse => "address already in use".to_owned(),
        ErrorKind::AddrNotAvailable => "not an address of this machine".to_owned(),
        ErrorKind::PermissionDenied => "not permitted to listen on".to_owned(),
        _ => error.to_string(),
    };
    let fault = BuildError::setting(key, format!("{what}: {address} ({key})"));
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let elsewhere =
        if key.ends_with("::endpoint") { format!("; to listen elsewhere: --set {key}=HOST:PORT") } else { String::new() };
    match (error.kind(), port) {
        (ErrorKind::AddrInUse, Some(port)) => {
            fault.helped(format!("`ss -ltnp 'sport = :{port}'` says who listens there{elsewhere}"))
        }
        (ErrorKind::PermissionDenied, Some(1..1024)) => {
            fault.helped(format!("ports below 1024 need the capability CAP_NET_BIND_SERVICE{elsewhere}"))
        }
        _ => fault,
    }
}
