//! HTTP/1.1 and HTTP/2 on one port, plaintext or TLS, with a limit on everything.
//!
//! In:   connections of a listener; which protocol one speaks is seen from its first bytes (or ALPN under TLS).
//! Out:  requests for a [`Handler`] (or the boxed [`HttpService`]), one future a request, nothing boxed on the way to a `Handler`.
//! Full: see `accept.rs`; a slow peer is cut off: 10 s for a header, 5 s for a handshake, 30 s without taking anything of an answer.
//! Lost: what a peer did not finish within 5 s of a shutdown.

mod accept;
mod connection;
mod gate;
pub mod grpc;
pub mod health;
mod io;
mod listen;
mod local;
mod notice;
mod settings;

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;

pub use gate::{Gate, Origin};
pub use local::LocalError;
pub use notice::Once;
pub use settings::{
    Auth, Cors, EnforcementPolicy, GrpcServerSettings, HttpServerSettings, Keepalive, KeepaliveParameters, Middleware,
};

use crate::{
    component::{AuthError, Extensions},
    runtime::{BuildError, Shutdown, Sockets, Task},
    transport::tls::server::ServerTls,
};
use accept::Caps;
use connection::Shared;
use listen::{Asking, Listener};
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
    listeners: Vec<Arc<Listener>>,
    shared: Shared,
    caps: Caps,
    /// `auth` as the block has it: whoever serves has to say who checks.
    wants_auth: bool,
    gate: Option<Gate>,
    http: Option<HttpServerSettings>,
}

impl Bound {
    /// Opens the sockets of an HTTP block and reads its certificates. `key` names the endpoint in errors:
    /// `receivers::otlp::protocols::http::endpoint`. Sockets that another leaves are taken over.
    pub async fn bind(settings: &HttpServerSettings, key: &str, sockets: &Sockets) -> Result<Self, BuildError> {
        let mut bound = Self::open(settings.into(), Asking { key, sockets }).await?;
        bound.wants_auth = settings.auth.get().is_some();
        bound.http = Some(settings.clone());
        Ok(bound)
    }

    /// Checks credentials of every request with the authenticator that the block names, where it names one.
    pub fn authenticate(mut self, extensions: &Extensions) -> Result<Self, BuildError> {
        if let Some(settings) = &self.http {
            self.gate = Some(Gate::of_http(settings, extensions)?);
        }
        Ok(self)
    }

    /// As [`Bound::bind`], for a gRPC block.
    pub async fn bind_grpc(settings: &GrpcServerSettings, key: &str, sockets: &Sockets) -> Result<Self, BuildError> {
        let mut bound = Self::open(settings.into(), Asking { key, sockets }).await?;
        bound.wants_auth = settings.auth.get().is_some();
        Ok(bound)
    }

    async fn open(listen: Listen, asking: Asking<'_>) -> Result<Self, BuildError> {
        let key = asking.key;
        let block = key.strip_suffix("::endpoint").unwrap_or(key);
        let tls = listen.tls.as_ref().map(|tls| ServerTls::load(tls, block)).transpose()?;
        let listeners = listen::open(&listen, asking).await?;
        let open =
            listeners.iter().filter_map(|listener| listener.address()).find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = open
            && tls.is_none()
        {
            tracing::warn!(
                %address,
                listener = key,
                "listening beyond this machine without TLS: whoever can reach the port can read and write; add `tls` under {block} or listen on localhost"
            );
        }
        let shared = Shared::new(key, listen.limits, tls);
        Ok(Self { listeners, shared, caps: Caps::default(), wants_auth: false, gate: None, http: None })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.address()).collect()
    }

    /// Serves until `shutdown`, then finishes what is being answered. What the block says about CORS, credentials and headers of answers is
    /// done here; where it asks for credentials and [`Bound::authenticate`] was not called, every request is refused.
    pub fn serve(mut self, service: Arc<dyn HttpService>, shutdown: Shutdown) -> Task {
        let gate = match (self.gate.take(), self.wants_auth, self.http.take()) {
            (Some(gate), ..) => Some(gate),
            (None, true, _) => None,
            (None, false, Some(settings)) => Gate::of_http(&settings, &Extensions::default()).ok(),
            (None, false, None) => Some(Gate::default()),
        };
        self.serve_with(Arc::new(Boxed { service, gate }), shutdown)
    }

    /// As [`Bound::serve`], with nothing boxed a request.
    pub fn serve_with<H: Handler>(self, handler: Arc<H>, shutdown: Shutdown) -> Task {
        Box::pin(async move {
            accept::run(self.listeners, Arc::new(self.shared), self.caps, handler, shutdown).await;
            Ok(())
        })
    }
}

struct Boxed {
    service: Arc<dyn HttpService>,
    /// `None`: credentials are asked for and nobody checks them.
    gate: Option<Gate>,
}

impl Handler for Boxed {
    type Body = Body;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, link: Arc<Link>) -> Response<Body> {
        let Some(gate) = &self.gate else { return short(StatusCode::UNAUTHORIZED, "nobody checks credentials here") };
        if gate.is_open() {
            return self.service.clone().call(request, link.peer).await;
        }
        let origin = gate.origin(request.headers());
        let mut answer = if Gate::is_preflight(request.method(), request.headers()) {
            match origin {
                Origin::Allowed(_) => gate.preflight(request.headers(), "GET, HEAD, POST"),
                _ => short(StatusCode::FORBIDDEN, "pages of this origin are not in `cors::allowed_origins`"),
            }
        } else {
            match gate.admit(request.headers()).await {
                Ok(_) => self.service.clone().call(request, link.peer).await,
                Err(AuthError::Unauthenticated(message)) => {
                    let mut answer = short(StatusCode::UNAUTHORIZED, &message);
                    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic, Bearer"));
                    answer
                }
                Err(AuthError::Denied(message)) => short(StatusCode::FORBIDDEN, &message),
                Err(AuthError::Unavailable(message)) => short(StatusCode::SERVICE_UNAVAILABLE, &message),
            }
        };
        gate.dress(origin, answer.headers_mut());
        answer
    }
}

/// An answer of one line of text.
fn short(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(text.to_owned())).map_err(Error::from).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests;
