//! Takes OTLP from SDKs and collectors, over gRPC and HTTP, protobuf and JSON.
//!
//! In:   requests on two ports, either of which takes gRPC and OTLP/HTTP, because people mix them up.
//! Out:  request bodies for the [`Inlet`]; answers by the table in [`crate::door::status`].
//! Full: refused with `RetryInfo` or `Retry-After`; see the inlet.
//! Lost: nothing that was answered OK.
//!
//! ```yaml
//! receivers:
//!   otlp:
//!     protocols:
//!       grpc:
//!         endpoint: localhost:4317
//!       http:
//!         endpoint: localhost:4318
//!         cors: { allowed_origins: ["http://localhost:*"] }
//!     strict_utf8: false    # true: a string that is not UTF-8 refuses its request instead of being repaired
//! ```
//!
//! Spec: OTLP 1.9.

mod answer;
mod body;
mod handler;
mod notices;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    component::{BuildContext, Receiver, ReceiverConfig, Stability},
    config::{self, Diagnostics, Node, Section},
    door::Inlet,
    runtime::{BuildError, Shutdown, Task, both},
    signal::Signal,
    transport::server::{Bound, Gate, GrpcServerSettings, HttpServerSettings, health::HealthService},
};
use handler::{Paths, Port};

/// The settings of the receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    grpc: Option<GrpcServerSettings>,
    http: Option<(HttpServerSettings, Urls)>,
    strict_utf8: bool,
}

/// The file's keys of the receiver itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    protocols: Protocols,
    /// Refuses a request with a string that is not UTF-8 (400) instead of repairing the string.
    strict_utf8: bool,
}

/// A protocol runs if its key is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Protocols {
    grpc: Section<GrpcServerSettings>,
    /// Shares its map with [`Urls`], and is read on its own for that reason.
    http: Section<IgnoredAny>,
}

/// Where the signals are posted to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Urls {
    /// As every optional section has it; false was seen before this is read.
    enabled: bool,
    traces_url_path: String,
    metrics_url_path: String,
    logs_url_path: String,
}

impl Default for Urls {
    fn default() -> Self {
        Self {
            enabled: true,
            traces_url_path: "/v1/traces".to_owned(),
            metrics_url_path: "/v1/metrics".to_owned(),
            logs_url_path: "/v1/logs".to_owned(),
        }
    }
}

impl ReceiverConfig for Config {
    const TYPE: &'static str = "otlp";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let own: Own = config::read(node, found);
        let mut grpc = own.protocols.grpc.0;
        if let Some(settings) = &mut grpc {
            settings.check(node.nearest("protocols::grpc"), found);
            if settings.endpoint.is_empty() {
                "localhost:4317".clone_into(&mut settings.endpoint);
            }
        }
        let http = own.protocols.http.0.map(|_| {
            let node = node.nearest("protocols::http");
            let (mut settings, mut urls): (HttpServerSettings, Urls) = config::read2(node, found);
            settings.check(node, found);
            if settings.endpoint.is_empty() {
                "localhost:4318".clone_into(&mut settings.endpoint);
            }
            for path in [&mut urls.traces_url_path, &mut urls.metrics_url_path, &mut urls.logs_url_path] {
                if !path.starts_with('/') {
                    path.insert(0, '/');
                }
            }
            (settings, urls)
        });
        if grpc.is_none() && http.is_none() && !found.has_errors() {
            let help = Some("write `protocols: { grpc: {}, http: {} }` or one of them".to_owned());
            found.error(node.nearest("protocols").origin, "the receiver has no protocol, so it would take nothing", help);
        }
        Self { grpc, http, strict_utf8: own.strict_utf8 }
    }

    fn build(self, context: BuildContext) -> Result<Box<dyn Receiver>, BuildError> {
        // Whoever is named to check credentials has to be there before a port opens.
        let grpc = self.grpc.as_ref().map(|settings| both(Gate::of_grpc(settings, &context.extensions), settings.try_files()));
        let http =
            self.http.as_ref().map(|(settings, _)| both(Gate::of_http(settings, &context.extensions), settings.try_files()));
        let grpc = grpc.transpose().map_err(|error| error.under("protocols::grpc"));
        let http = http.transpose().map_err(|error| error.under("protocols::http"));
        let (grpc, http) = both(grpc, http)?;
        let gates = (grpc.map(|(gate, ())| gate), http.map(|(gate, ())| gate));
        Ok(Box::new(Otlp { config: self, gates, context }))
    }
}

struct Otlp {
    config: Config,
    gates: (Option<Gate>, Option<Gate>),
    context: BuildContext,
}

impl Otlp {
    async fn bind(self, inlet: Arc<dyn Inlet>, shutdown: Shutdown) -> Result<Vec<(Bound, Port)>, BuildError> {
        let Self { config, gates, context } = self;
        let urls = config.http.as_ref().map(|(_, urls)| urls.clone()).unwrap_or_default();
        let paths = Arc::new(Paths::new(&urls.traces_url_path, &urls.metrics_url_path, &urls.logs_url_path));
        let common = handler::Common {
            inlet,
            health: HealthService::new(context.health.clone()),
            paths,
            strict_utf8: config.strict_utf8,
            stopping: shutdown,
        };
        let block = |protocol: &str| format!("receivers::{}::protocols::{protocol}", context.id);
        let grpc = async {
            let (Some(settings), Some(gate)) = (&config.grpc, gates.0) else { return Ok(None) };
            let block = block("grpc");
            let bound = Bound::bind_grpc(settings, &format!("{block}::endpoint"), &context.sockets).await?;
            Ok(Some((bound, Port::grpc(settings, gate, block, &common))))
        };
        let http = async {
            let (Some((settings, _)), Some(gate)) = (&config.http, gates.1) else { return Ok(None) };
            let block = block("http");
            let bound = Bound::bind(settings, &format!("{block}::endpoint"), &context.sockets).await?;
            Ok(Some((bound, Port::http(settings, gate, block, &common))))
        };
        let (grpc, http) = both(grpc.await, http.await)?;
        Ok(grpc.into_iter().chain(http).collect())
    }
}

impl Receiver for Otlp {
    fn start(self: Box<Self>, inlet: Arc<dyn Inlet>, shutdown: Shutdown) -> BoxFuture<'static, Result<Task, BuildError>> {
        async move {
            let id = self.context.id.clone();
            let ports = self.bind(inlet, shutdown.clone()).await?;
            for (bound, port) in &ports {
                tracing::info!(receiver = %id, protocol = port.speaks().as_str(), addresses = ?bound.addresses(), "taking OTLP");
            }
            let serving = ports.into_iter().map(|(bound, port)| bound.serve_with(Arc::new(port), shutdown.clone()));
            Ok(try_join_all(serving).map(|done| done.map(drop)).boxed())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
