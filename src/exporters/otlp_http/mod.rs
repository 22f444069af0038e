//! Sends OTLP over HTTP, as protobuf or JSON: several batches as one request.
//!
//! In:   requests of any signal; protobuf parts are concatenated on the wire, for JSON they are joined and written anew.
//! Out:  one POST a request, HTTP/1.1 or, where TLS agrees on it, HTTP/2.
//! Full: `delivery` bounds what is in flight.
//! Lost: nothing here; what an answer means for the data is `transport::client::outcome`.
//!
//! ```yaml
//! exporters:
//!   otlp_http:
//!     endpoint: https://collector.example:4318   # /v1/traces and so on are added
//!     logs_endpoint: https://logs.example/otlp   # taken as it is
//!     encoding: proto
//!     compression: zstd
//! ```
//!
//! Unwritten keys differ from the Collector's in one point: `compression` is `none` to this machine and otherwise gzip at level 1 (the
//! Collector: gzip at its usual level).
//!
//! Spec: OTLP 1.x "OTLP/HTTP".

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
    config::{Diagnostics, GoDuration, Node, read2, shown_url},
    otlp,
    runtime::{BuildError, Clock, both},
    signal::Signal,
    transport::client::{
        Compressor, Connector, Endpoint, HttpClientSettings, Message, ProxyRules, http::Client, outcome, user_agent,
    },
};

/// Requests above this are rewritten as JSON on the blocking pool.
const JSON_INLINE_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Proto,
    Json,
}

/// The exporter's own keys; those of the HTTP client stand beside them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Own {
    /// Longest time of one attempt; 0 for none.
    pub timeout: GoDuration,
    pub retry_on_failure: delivery::Retry,
    pub sending_queue: Option<delivery::Queue>,
    pub encoding: Encoding,
    /// URLs taken as they are, each instead of `endpoint` with `/v1/<signal>`.
    pub traces_endpoint: String,
    pub metrics_endpoint: String,
    pub logs_endpoint: String,
    pub profiles_endpoint: String,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            timeout: GoDuration(Duration::from_secs(30)),
            retry_on_failure: delivery::Retry::default(),
            sending_queue: None,
            encoding: Encoding::Proto,
            traces_endpoint: String::new(),
            metrics_endpoint: String::new(),
            logs_endpoint: String::new(),
            profiles_endpoint: String::new(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    pub own: Own,
    pub client: HttpClientSettings,
}

impl ExporterConfig for Config {
    const TYPE: &'static str = "otlp_http";
    const ALIASES: &'static [&'static str] = &["otlphttp"];
    const STABILITY: Stability = Stability::Stable;
    const SIGNALS: &'static [Signal] = &Signal::ALL;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (own, client): (Own, HttpClientSettings) = read2(node, found);
        let config = Self { own, client };
        config.check(node, found);
        config
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
    fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        self.client.check(node, found);
        self.own.retry_on_failure.check(node, found);
        self.own.sending_queue.iter().for_each(|queue| queue.check(node, found));
        let own = [
            ("traces_endpoint", &self.own.traces_endpoint),
            ("metrics_endpoint", &self.own.metrics_endpoint),
            ("logs_endpoint", &self.own.logs_endpoint),
        ];
        if self.client.endpoint.is_empty() && own.iter().all(|(_, url)| url.is_empty()) {
            let remedy = "add `endpoint: https://<host>:4318`, or `traces_endpoint`, `metrics_endpoint`, `logs_endpoint`";
            found.error(at("endpoint"), "no endpoint is set", Some(remedy.to_owned()));
        }
        for (key, url) in own.into_iter().chain([("endpoint", &self.client.endpoint)]) {
            if !url.is_empty()
                && let Err(problem) = Endpoint::http(url)
            {
                found.error(at(key), problem, None);
            }
        }
        if self.client.endpoint.trim_end_matches('/').ends_with("/v1/traces") {
            let remedy = "leave the path out, or use `traces_endpoint`".to_owned();
            found.warning(at("endpoint"), "`/v1/<signal>` is added to `endpoint`, which has it already", Some(remedy));
        }
        if !self.own.profiles_endpoint.is_empty() {
            found.ineffective(at("profiles_endpoint"), "weir takes no profiles", "nothing is sent there");
        }
    }

    fn url(&self, signal: Signal) -> Option<String> {
        let own = match signal {
            Signal::Traces => &self.own.traces_endpoint,
            Signal::Metrics => &self.own.metrics_endpoint,
            Signal::Logs => &self.own.logs_endpoint,
        };
        if !own.is_empty() {
            return Some(own.clone());
        }
        let base = self.client.endpoint.trim();
        let slash = if base.ends_with('/') { "" } else { "/" };
        (!base.is_empty()).then(|| format!("{base}{slash}v1/{signal}"))
    }

    fn build_with(
        self,
        context: &BuildContext,
        environment: &ProxyRules,
        adjust: impl Fn(Connector) -> Connector,
    ) -> Result<Arc<dyn Exporter>, BuildError> {
        let auth = self.client.auth.get().map(|auth| context.extensions.client_auth(&auth.authenticator)).transpose();
        let (targets, auth) = both(self.targets(environment, adjust), auth)?;
        let credentials_of_context = auth.as_ref().is_some_and(|auth| auth.reads_context());
        Ok(Arc::new(OtlpHttp {
            targets,
            encoding: self.own.encoding,
            auth,
            clock: context.clock.clone(),
            reader: outcome::Reader { retry_after_max: self.own.retry_on_failure.max_interval.0, credentials_of_context },
        }))
    }

    /// By [`Signal::ordinal`]; signals that go to one host share a client.
    fn targets(
        &self,
        environment: &ProxyRules,
        adjust: impl Fn(Connector) -> Connector,
    ) -> Result<Vec<Option<Target>>, BuildError> {
        let proxies = self.client.proxies(environment);
        let mut clients: Vec<(Endpoint, Arc<Client>)> = Vec::new();
        let mut targets = Vec::with_capacity(Signal::ALL.len());
        for signal in Signal::ALL {
            let Some(url) = self.url(signal) else {
                targets.push(None);
                continue;
            };
            let wrong = |problem: String| BuildError::setting("endpoint", problem);
            let endpoint = Endpoint::http(&url).map_err(wrong)?;
            let scheme = if endpoint.tls == Some(true) { "https" } else { "http" };
            let path = if endpoint.path.starts_with('/') { endpoint.path.clone() } else { format!("/{}", endpoint.path) };
            let uri = Uri::builder().scheme(scheme).authority(endpoint.host_header()).path_and_query(path).build();
            let uri = uri.map_err(|error| wrong(format!("`{}`: {error}", shown_url(&url))))?;
            let compressor = self.client.compressor(&endpoint);
            let host = Endpoint { path: String::new(), ..endpoint };
            let known = clients.iter().find(|(known, _)| *known == host).map(|(_, client)| client.clone());
            let client = if let Some(client) = known {
                client
            } else {
                let connector = Connector::http(host.clone(), &self.client.tls, &proxies, self.client.force_attempt_http2)?;
                let client = Arc::new(Client::new(adjust(connector), self.client.keeping()));
                clients.push((host, client.clone()));
                client
            };
            targets.push(Some(Target { client, uri, headers: self.headers(compressor)?, compressor }));
        }
        Ok(targets)
    }

    fn headers(&self, compressor: Compressor) -> Result<HeaderMap, BuildError> {
        let mut headers = self.client.headers.to_map();
        let kind = match self.own.encoding {
            Encoding::Proto => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(encoding) = compressor.algorithm.content_encoding() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        if let Some(host) = self.client.headers.host() {
            let host = HeaderValue::from_str(host).map_err(|error| BuildError::setting("headers::Host", error.to_string()))?;
            headers.insert(header::HOST, host);
        }
        if !headers.contains_key(header::USER_AGENT) {
            let agent = HeaderValue::try_from(user_agent()).map_err(|error| BuildError::setting("headers", error.to_string()))?;
            headers.insert(header::USER_AGENT, agent);
        }
        Ok(headers)
    }
}

struct Target {
    client: Arc<Client>,
    uri: Uri,
    headers: HeaderMap,
    compressor: Compressor,
}

struct OtlpHttp {
    /// By [`Signal::ordinal`]; `None`: no endpoint for it.
    targets: Vec<Option<Target>>,
    encoding: Encoding,
    auth: Option<Arc<dyn ClientAuth>>,
    clock: Clock,
    reader: outcome::Reader,
}

impl OtlpHttp {
    async fn attempt(&self, request: Request) -> Outcome {
        let signal = request.signal;
        let Some(Some(target)) = self.targets.get(signal.ordinal()) else {
            return Outcome::Unsupported {
                message: format!("no endpoint for {signal} is set (`{signal}_endpoint` or `endpoint`)"),
            };
        };
        let with_auth = match &self.auth {
            None => None,
            Some(auth) => {
                let mut headers = target.headers.clone();
                if let Err(error) = auth.add_headers(&request.context(), &mut headers) {
                    return outcome::auth(&error);
                }
                Some(headers)
            }
        };
        let message = match self.encoding {
            Encoding::Proto => Message::of_parts(request.parts.iter().map(|batch| &batch.payload)),
            Encoding::Json => match json(request).await {
                Ok(message) => message,
                Err(message) => return Outcome::Rejected { message },
            },
        };
        let body = match target.compressor.compress(message).await {
            Ok(body) => body,
            Err(error) => return Outcome::Rejected { message: format!("the request cannot be compressed: {error}") },
        };
        match target.client.post(&target.uri, with_auth.as_ref().unwrap_or(&target.headers), body).await {
            Ok(answer) => self.reader.http(signal, &answer, self.encoding == Encoding::Json, self.clock.now()),
            Err(error) => self.reader.grpc(signal, Err(error)),
        }
    }
}

/// Rewrites a request as JSON; a large one off the caller's thread, which it would hold for milliseconds.
async fn json(request: Request) -> Result<Message, String> {
    let large = request.bytes > JSON_INLINE_MAX;
    let rewrite = move || {
        let mut out = Vec::with_capacity(request.bytes * 3);
        otlp::json::encode(request.signal, &request.payload(), &mut out)
            .map_err(|error| format!("it is no OTLP request: {error}"))?;
        Ok(Message::of(out.into()))
    };
    if large { tokio::task::spawn_blocking(rewrite).await.map_err(|error| error.to_string())? } else { rewrite() }
}

impl Exporter for OtlpHttp {
    fn export(&self, request: Request) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(request))
    }

    fn reconnect(&self) {
        for target in self.targets.iter().flatten() {
            target.client.reconnect();
        }
    }
}
