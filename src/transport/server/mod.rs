//! HTTP/1.1 and HTTP/2 on one port, plaintext or TLS, with a limit on everything.
//!
//! In:   connections of a listener; which protocol one speaks is seen from its first bytes (or ALPN under TLS).
//! Out:  requests for a [`Handler`] (or the boxed [`HttpService`]), one future a request, nothing boxed on the way to a `Handler`.
//! Full: see `accept.rs`; a slow peer is cut off: 10 s for a header, 5 s for a handshake, 30 s without taking anything of an answer.
//! Lost: what a peer did not finish within 5 s of a shutdown.

mod accept;
mod connection;
mod io;
mod listen;
mod notice;
mod settings;

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

pub use notice::Once;
pub use settings::{
    Auth, Cors, EnforcementPolicy, GrpcServerSettings, HttpServerSettings, Keepalive, KeepaliveParameters, Middleware,
};

use crate::{
    component::{BuildError, Shutdown, Task},
    transport::tls::server::ServerTls,
};
use accept::Caps;
use connection::Shared;
use listen::Listener;
use settings::Listen;

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, Error>;

/// Answers requests of one listener, where a boxed future and body a request do not matter.
pub trait HttpService: Send + Sync + 'static {
    fn call(self: Arc<Self>, request: Request<Incoming>, peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>>;
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Link {
    /// `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Whether TLS is spoken.
    pub secure: bool,
}

/// Answers requests of one listener.
pub trait Handler: Send + Sync + 'static {
    type Body: http_body::Body<Data = Bytes, Error = Error> + Send + Unpin + 'static;
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        link: Arc<Link>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

/// A bound listener that does not serve yet.
pub struct Bound {
    listeners: Vec<Listener>,
    shared: Shared,
    caps: Caps,
}

impl Bound {
    /// Opens the sockets of an HTTP block and reads its certificates. `key` names the endpoint in errors:
    /// `receivers::otlp::protocols::http::endpoint`.
    pub async fn bind(settings: &HttpServerSettings, key: &str) -> Result<Self, BuildError> {
        Self::open(settings.into(), key).await
    }

    /// As [`Bound::bind`], for a gRPC block.
    pub async fn bind_grpc(settings: &GrpcServerSettings, key: &str) -> Result<Self, BuildError> {
        Self::open(settings.into(), key).await
    }

    async fn open(listen: Listen, key: &str) -> Result<Self, BuildError> {
        let block = key.strip_suffix("::endpoint").unwrap_or(key);
        let tls = listen.tls.as_ref().map(|tls| ServerTls::load(tls, block)).transpose()?;
        let listeners = listen::open(&listen, key).await?;
        let open = listeners.iter().filter_map(Listener::address).find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = open
            && tls.is_none()
        {
            tracing::warn!(
                %address,
                listener = key,
                "listening beyond this machine without TLS: whoever can reach the port can read and write; add `tls` under {block} or listen on localhost"
            );
        }
        Ok(Self { listeners, shared: Shared::new(key, listen.limits, tls), caps: Caps::default() })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Serves until `shutdown`, then finishes what is being answered.
    pub fn serve(self, service: Arc<dyn HttpService>, shutdown: Shutdown) -> Task {
        self.serve_with(Arc::new(Boxed(service)), shutdown)
    }

    /// As [`Bound::serve`], with nothing boxed a request.
    pub fn serve_with<H: Handler>(self, handler: Arc<H>, shutdown: Shutdown) -> Task {
        Box::pin(async move {
            accept::run(self.listeners, Arc::new(self.shared), self.caps, handler, shutdown).await;
            Ok(())
        })
    }
}

struct Boxed(Arc<dyn HttpService>);

impl Handler for Boxed {
    type Body = Body;

    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        link: Arc<Link>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        self.0.clone().call(request, link.peer)
    }
}

#[cfg(test)]
mod tests;
