//! HTTP/1.1 and HTTP/2 on one port, plaintext or TLS, with a limit on everything.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinSet};

use crate::component::{BuildError, Shutdown, Task};

pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Answers requests of one listener.
pub trait HttpService: Send + Sync + 'static {
    fn call(self: Arc<Self>, request: Request<Incoming>, peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>>;
}

/// The Collector's HTTP server block (`confighttp`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerSettings {
    /// `host:port`; `localhost` binds 127.0.0.1 and ::1.
    pub endpoint: String,
}

/// A bound listener that does not serve yet.
pub struct Bound {
    listeners: Vec<TcpListener>,
}

impl Bound {
    /// `key` names the setting in errors: `receivers::otlp::protocols::grpc::endpoint`.
    pub async fn bind(settings: &HttpServerSettings, key: &str) -> Result<Self, BuildError> {
        let listener = TcpListener::bind(&settings.endpoint)
            .await
            .map_err(|error| BuildError::setting(key, format!("{error}: {}", settings.endpoint)))?;
        Ok(Self { listeners: vec![listener] })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `shutdown`, then finishes what is being answered.
    pub fn serve(self, service: Arc<dyn HttpService>, shutdown: Shutdown) -> Task {
        Box::pin(async move {
            let mut connections = JoinSet::new();
            let Some(listener) = self.listeners.into_iter().next() else { return Ok(()) };
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => {
                        let Ok((stream, peer)) = accepted else { continue };
                        let service = DynService(service.clone(), peer);
                        connections.spawn(async move {
                            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                            builder.serve_connection(TokioIo::new(stream), service).await
                        });
                    }
                }
            }
            Ok(())
        })
    }
}

#[derive(Clone)]
struct DynService(Arc<dyn HttpService>, SocketAddr);

impl hyper::service::Service<Request<Incoming>> for DynService {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answer = self.0.clone().call(request, Some(self.1));
        Box::pin(async move { Ok(answer.await) })
    }
}
