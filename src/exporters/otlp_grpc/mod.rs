//! Sends OTLP over gRPC: the bytes as they are, several batches as one request.
//!
//! In:   requests of any signal; their parts are concatenated on the wire, never decoded.
//! Out:  one `Export` call a request, to one endpoint or round robin over the addresses of a `dns:///` name.
//! Full: `delivery` bounds what is in flight; HTTP/2's windows slow one call down, not its neighbours.
//! Lost: nothing here; what an answer means for the data is `transport::client::outcome`.
//!
//! ```yaml
//! exporters:
//!   otlp_grpc:
//!     endpoint: collector.example:4317
//!     compression: zstd
//!     headers: {x-tenant: shop}
//!     tls: {ca_file: /etc/weir/ca.pem}
//! ```
//!
//! Unwritten keys differ from the Collector's in two points: `compression` is `none` to this machine and otherwise gzip at level 1
//! (the Collector: gzip at its usual level), and `keepalive` pings a connection in use every 30 s (the Collector: never), because a peer that
//! vanishes without a word is otherwise noticed only by timeouts.
//!
//! Spec: OTLP 1.x "OTLP/gRPC".

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::{
    HeaderMap, Uri,
    header::{self, HeaderValue},
};
use serde::Deserialize;

use crate::{
    component::delivery,
    component::{BuildContext, ClientAuth, Exporter, ExporterConfig, Outcome, Request, Stability},
    config::{Diagnostics, GoDuration, Node, read2},
    runtime::{BuildError, both},
    signal::Signal,
    transport::client::{
        Compressor, Connector, GrpcClientSettings, Keepalive, Message, ProxyRules,
        grpc::{Channel, timeout_value},
        outcome, user_agent,
    },
};

/// The exporter's own keys; those of the gRPC client stand beside them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Own {
    /// Longest time of one attempt; 0 for none.
    pub timeout: GoDuration,
    pub retry_on_failure: delivery::Retry,
    pub sending_queue: Option<delivery::Queue>,
}

impl Default for Own {
    fn default() -> Self {
        Self { timeout: GoDuration(Duration::from_secs(5)), retry_on_failure: delivery::Retry::default(), sending_queue: None }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    pub own: Own,
    pub client: GrpcClientSettings,
    /// As written or as weir has it; `None`: no pings.
    pub keepalive: Option<Keepalive>,
}

impl ExporterConfig for Config {
    const TYPE: &'static str = "otlp_grpc";
    const ALIASES: &'static [&'static str] = &["otlp"];
    const STABILITY: Stability = Stability::Stable;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (own, client): (Own, GrpcClientSettings) = read2(node, found);
        client.check(node, found);
        own.retry_on_failure.check(node, found);
        own.sending_queue.iter().for_each(|queue| queue.check(node, found));
        let keepalive = client.pings(node.get("keepalive").is_some());
        Self { own, client, keepalive }
    }

    fn delivery(&self) -> delivery::Settings {
        delivery::Settings {
            timeout: Some(self.own.timeout.0),
            retry: self.own.retry_on_failure.clone(),
            queue: self.own.sending_queue.clone(),
            request_bytes_max: 0,
            in_order: false,
        }
    }

    fn splits_by_context(&self) -> bool {
        let partitioned =
            |queue: &delivery::Queue| queue.batch.get().is_some_and(|batch| !batch.partition.metadata_keys.is_empty());
        self.client.auth.get().is_some() || self.own.sending_queue.as_ref().is_some_and(partitioned)
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
        self.build_with(&context, &ProxyRules::from_env(&context.notes), |connector| connector)
    }
}

impl Config {
    fn build_with(
        self,
        context: &BuildContext,
        proxies: &ProxyRules,
        adjust: impl FnOnce(Connector) -> Connector,
    ) -> Result<Arc<dyn Exporter>, BuildError> {
        let endpoint = self.client.target().map_err(|problem| BuildError::setting("endpoint", problem))?;
        let algorithm = self.client.algorithm(&endpoint);
        let authority = if self.client.authority.is_empty() { endpoint.authority() } else { self.client.authority.clone() };
        let auth = self.client.auth.get().map(|auth| context.extensions.client_auth(&auth.authenticator)).transpose();
        let (connector, auth) = both(Connector::grpc(endpoint, &self.client.tls, proxies), auth)?;
        let channel = Channel::new(adjust(connector), self.keepalive, self.client.wait_for_ready);
        let scheme = if channel.is_tls() { "https" } else { "http" };
        let mut uris = Vec::with_capacity(Signal::ALL.len());
        for signal in Signal::ALL {
            let uri = Uri::builder().scheme(scheme).authority(authority.as_str()).path_and_query(path_of(signal)).build();
            uris.push(uri.map_err(|error| BuildError::setting("authority", error.to_string()))?);
        }
        let credentials_of_context = auth.as_ref().is_some_and(|auth| auth.reads_context());
        let compressor = Compressor::fast(algorithm);
        Ok(Arc::new(OtlpGrpc {
            channel,
            headers: self.headers(compressor)?,
            uris,
            compressor,
            auth,
            reader: outcome::Reader { retry_after_max: self.own.retry_on_failure.max_interval.0, credentials_of_context },
        }))
    }

    fn headers(&self, compressor: Compressor) -> Result<HeaderMap, BuildError> {
        let mut headers = self.client.headers.to_map();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        if let Some(encoding) = compressor.algorithm.grpc_encoding() {
            headers.insert("grpc-encoding", HeaderValue::from_static(encoding));
        }
        if let Some(timeout) = timeout_value(self.own.timeout.0) {
            headers.insert("grpc-timeout", timeout);
        }
        if !headers.contains_key(header::USER_AGENT) {
            let agent = if self.client.user_agent.is_empty() { user_agent() } else { self.client.user_agent.clone() };
            let agent = HeaderValue::try_from(agent).map_err(|error| BuildError::setting("user_agent", error.to_string()))?;
            headers.insert(header::USER_AGENT, agent);
        }
        Ok(headers)
    }
}

const fn path_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

struct OtlpGrpc {
    channel: Channel,
    headers: HeaderMap,
    /// By [`Signal::ordinal`].
    uris: Vec<Uri>,
    compressor: Compressor,
    auth: Option<Arc<dyn ClientAuth>>,
    reader: outcome::Reader,
}

impl OtlpGrpc {
    async fn attempt(&self, request: Request) -> Outcome {
        let signal = request.signal;
        let Some(uri) = self.uris.get(signal.ordinal()) else {
            return Outcome::Rejected { message: format!("no service for {signal}") };
        };
        let with_auth = match &self.auth {
            None => None,
            Some(auth) => {
                let mut headers = self.headers.clone();
                if let Err(error) = auth.add_headers(&request.context(), &mut headers) {
                    return outcome::auth(&error);
                }
                Some(headers)
            }
        };
        let message = Message::of_parts(request.parts.iter().map(|batch| &batch.payload));
        let compressed = match self.compressor.compress(message).await {
            Ok(message) => message,
            Err(error) => return Outcome::Rejected { message: format!("the request cannot be compressed: {error}") },
        };
        let Some(framed) = compressed.framed(!self.compressor.is_none()) else {
            return Outcome::TooLarge { message: "gRPC messages end at 4 GiB".to_owned(), limit: Some(u32::MAX as usize) };
        };
        let called = self.channel.call(uri, with_auth.as_ref().unwrap_or(&self.headers), framed).await;
        self.reader.grpc(signal, called)
    }
}

impl Exporter for OtlpGrpc {
    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(request))
    }

    fn reconnect(&self) {
        self.channel.reconnect();
    }
}
