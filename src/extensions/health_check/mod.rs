//! Tells load balancers and supervisors how the process is.
//!
//! ```yaml
//! extensions:
//!   health_check:
//!     endpoint: localhost:13133
//!     path: /
//!     response_body: { healthy: fine, unhealthy: not now }
//!   health_check/v2:                  # the newer form, chosen by `use_v2` or by either of its sections
//!     http: { endpoint: "localhost:13133", status: { path: /status } }
//!     grpc: { endpoint: "localhost:13132" }
//!     component_health: { include_permanent_errors: true, recovery_duration: 1m }
//! ```

mod answer;
#[cfg(test)]
mod tests;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, de::IgnoredAny};
use tonic::Code;

use crate::{
    component::{BuildContext, Extension, ExtensionConfig, Extensions, Stability},
    config::{self, Diagnostics, GoDuration, Node, Section},
    runtime::{BuildError, Clock, Health, Shutdown, Sockets, State, Task, both},
    signal::UnixNanos,
    transport::server::{
        Body, Bound, Error, Gate, GrpcServerSettings, HttpServerSettings, HttpService, grpc,
        health::{CHECK, HealthService, WATCH},
    },
};

/// The settings of the extension.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    plain: Option<(HttpServerSettings, Plain)>,
    http: Option<(HttpServerSettings, V2Http)>,
    grpc: Option<GrpcServerSettings>,
    component_health: ComponentHealth,
}

/// Keys beside those of the HTTP server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Plain {
    /// `/` where nothing is written.
    path: String,
    response_body: Option<ResponseBody>,
    check_collector_pipeline: CheckPipeline,
    /// Chooses the newer form.
    use_v2: bool,
    http: Section<IgnoredAny>,
    grpc: Section<GrpcServerSettings>,
    component_health: ComponentHealth,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ResponseBody {
    healthy: String,
    unhealthy: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CheckPipeline {
    enabled: bool,
    interval: Option<String>,
    exporter_failure_threshold: Option<i64>,
}

/// `http`, beside the keys of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct V2Http {
    enabled: Option<bool>,
    status: Page,
    config: Page,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Page {
    enabled: Option<bool>,
    path: String,
}

/// Which troubles of components are troubles of the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ComponentHealth {
    include_permanent_errors: bool,
    include_recoverable_errors: bool,
    /// How long a trouble may last that passes by itself. Not written: 5 min.
    recovery_duration: Option<GoDuration>,
}

impl ExtensionConfig for Config {
    const TYPE: &'static str = "health_check";
    const ALIASES: &'static [&'static str] = &["healthcheckv2", "health_check_v2"];
    const STABILITY: Stability = Stability::Beta;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (mut own, mut server): (Plain, HttpServerSettings) = config::read2(node, found);
        server.check(node, found);
        if own.check_collector_pipeline.enabled {
            found.ineffective(
                node.nearest("check_collector_pipeline").origin,
                "`check_collector_pipeline` has no effect, as in the Collector",
                "`component_health` of the newer form makes exporters count",
            );
        }
        let default = |endpoint: &mut String, to: &str| {
            if endpoint.is_empty() {
                to.clone_into(endpoint);
            }
        };
        let mut http = own.http.0.take().map(|_| {
            let node = node.nearest("http");
            let (mut page, mut server): (V2Http, HttpServerSettings) = config::read2(node, found);
            server.check(node, found);
            default(&mut server.endpoint, "localhost:13133");
            default(&mut page.status.path, "/status");
            if page.config.enabled == Some(true) {
                found.ineffective(
                    node.nearest("config").origin,
                    "the configuration is not served",
                    "`weir print-config` shows it",
                );
            }
            (server, page)
        });
        let mut grpc = own.grpc.0.take();
        if let Some(server) = &mut grpc {
            server.check(node.nearest("grpc"), found);
            if server.auth.get().is_some() {
                let help = Some("leave `auth` out".to_owned());
                found.error(node.nearest("grpc::auth").origin, "the health service of weir asks for no credentials", help);
            }
            default(&mut server.endpoint, "localhost:13132");
        }
        let component_health = std::mem::take(&mut own.component_health);
        default(&mut server.endpoint, "localhost:13133");
        if own.use_v2 && http.is_none() && grpc.is_none() {
            let status = Page { enabled: None, path: "/status".to_owned() };
            http = Some((server.clone(), V2Http { status, ..V2Http::default() }));
        }
        let is_v2 = http.is_some() || grpc.is_some();
        default(&mut own.path, "/");
        Self { plain: (!is_v2).then_some((server, own)), http, grpc, component_health }
    }

    fn build(self, context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        // Whoever is named to check credentials has to be there before a port opens.
        let ready = |server: &HttpServerSettings| both(Gate::of_http(server, &context.extensions), server.try_files()).map(drop);
        let plain = self.plain.as_ref().map_or(Ok(()), |(server, _)| ready(server));
        let http = self.http.as_ref().map_or(Ok(()), |(server, _)| ready(server).map_err(|error| error.under("http")));
        let grpc = self.grpc.as_ref().map_or(Ok(()), |server| server.try_files().map_err(|error| error.under("grpc")));
        both(both(plain, http), grpc)?;
        let pages = Pages {
            health: context.health.clone(),
            clock: context.clock.clone(),
            started: context.clock.now(),
            include_permanent: self.component_health.include_permanent_errors,
            include_recoverable: self.component_health.include_recoverable_errors,
            recovery: self.component_health.recovery_duration.map_or(Duration::from_mins(5), |written| written.0),
        };
        Ok(Arc::new(HealthCheck {
            config: self,
            id: context.id.to_string(),
            extensions: context.extensions,
            sockets: context.sockets,
            pages: Arc::new(pages),
        }))
    }
}

struct HealthCheck {
    config: Config,
    id: String,
    extensions: Arc<Extensions>,
    sockets: Arc<Sockets>,
    pages: Arc<Pages>,
}

/// What all pages say, from one state.
struct Pages {
    health: Arc<Health>,
    clock: Clock,
    started: UnixNanos,
    include_permanent: bool,
    include_recoverable: bool,
    recovery: Duration,
}

impl HealthCheck {
    async fn bind(&self, shutdown: &Shutdown) -> Result<(Vec<SocketAddr>, Vec<Task>), BuildError> {
        let key = |part: &str| format!("extensions::{}::{part}endpoint", self.id);
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        let http = async |server: Option<&HttpServerSettings>, part: &str| match server {
            Some(server) => Bound::bind(server, &key(part), &self.sockets).await?.authenticate(&self.extensions).map(Some),
            None => Ok(None),
        };
        let plain = http(self.config.plain.as_ref().map(|(server, _)| server), "").await;
        let newer = http(self.config.http.as_ref().map(|(server, _)| server), "http::").await;
        let grpc = match &self.config.grpc {
            Some(server) => Bound::bind_grpc(server, &key("grpc::"), &self.sockets).await.map(Some),
            None => Ok(None),
        };
        let ((plain, newer), grpc) = both(both(plain, newer), grpc)?;
        if let (Some((_, plain)), Some(bound)) = (&self.config.plain, plain) {
            addresses.extend(bound.addresses());
            let service =
                PlainService { pages: self.pages.clone(), path: plain.path.clone(), bodies: plain.response_body.clone() };
            tasks.push(bound.serve(Arc::new(service), shutdown.clone()));
        }
        if let (Some((_, page)), Some(bound)) = (&self.config.http, newer) {
            addresses.extend(bound.addresses());
            let path = (page.status.enabled != Some(false)).then(|| page.status.path.clone());
            tasks.push(bound.serve(Arc::new(StatusService { pages: self.pages.clone(), path }), shutdown.clone()));
        }
        if let Some(bound) = grpc {
            addresses.extend(bound.addresses());
            let service = HealthService::new(self.pages.health.clone());
            tasks.push(bound.serve(Arc::new(GrpcService(service)), shutdown.clone()));
        }
        Ok((addresses, tasks))
    }
}

impl Extension for HealthCheck {
    fn start(&self, shutdown: Shutdown) -> BoxFuture<'_, Result<Option<Task>, BuildError>> {
        async move {
            let (_, tasks) = self.bind(&shutdown).await?;
            let task: Task = try_join_all(tasks).map(|done| done.map(drop)).boxed();
            Ok(Some(task))
        }
        .boxed()
    }
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(text)).map_err(Error::from).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// What a service answers to requests that only read.
fn reading(
    request: &Request<Incoming>,
    answer: impl FnOnce() -> Response<Body> + Send,
) -> impl Future<Output = Response<Body>> + Send + 'static {
    std::future::ready(if matches!(*request.method(), Method::GET | Method::HEAD) {
        answer()
    } else {
        page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET or HEAD\n".to_owned())
    })
}

/// Whether data may be sent here: a full disk is no reason to be restarted, which is what the other page is asked for.
const READY: &str = "/ready";

/// The older form: one page, well or not.
struct PlainService {
    pages: Arc<Pages>,
    path: String,
    bodies: Option<ResponseBody>,
}

impl HttpService for PlainService {
    fn call(self: Arc<Self>, request: Request<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        reading(&request, || {
            let path = request.uri().path();
            if path == READY && self.path != READY {
                return match self.pages.health.readiness() {
                    Ok(()) => page(StatusCode::OK, "text/plain", "ready\n".to_owned()),
                    Err(reason) => page(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("not ready: {reason}\n")),
                };
            }
            if path != self.path {
                return page(StatusCode::NOT_FOUND, "text/plain", format!("the pages are {} and {READY}\n", self.path));
            }
            let (well, body) = self.pages.plain();
            let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            match &self.bodies {
                Some(written) => page(status, "text/plain", if well { &written.healthy } else { &written.unhealthy }.clone()),
                None => page(status, "application/json", body),
            }
        })
        .boxed()
    }
}

/// The newer form over HTTP.
struct StatusService {
    pages: Arc<Pages>,
    path: Option<String>,
}

impl HttpService for StatusService {
    fn call(self: Arc<Self>, request: Request<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        reading(&request, || {
            if self.path.as_deref() != Some(request.uri().path()) {
                return page(StatusCode::NOT_FOUND, "text/plain", "there is no such page\n".to_owned());
            }
            match self.pages.status(request.uri().query().unwrap_or_default()) {
                Some((status, body)) => page(status, "application/json", body),
                None => page(StatusCode::NOT_FOUND, "text/plain", "there is no such pipeline\n".to_owned()),
            }
        })
        .boxed()
    }
}

/// The newer form over gRPC.
struct GrpcService(HealthService);

impl HttpService for GrpcService {
    fn call(self: Arc<Self>, request: Request<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        async move {
            let path = request.uri().path().to_owned();
            let boxed = |answer: Response<grpc::Answer>| answer.map(BodyExt::boxed_unsync);
            if path != CHECK && path != WATCH {
                return boxed(grpc::error(Code::Unimplemented, "only grpc.health.v1.Health is here", &[]));
            }
            // A name of a service and five bytes.
            let Ok(body) = Limited::new(request.into_body(), 256).collect().await else {
                return boxed(grpc::error(Code::ResourceExhausted, "the request is too large", &[]));
            };
            let body = body.to_bytes();
            let Some((prefix, message)) = body.split_first_chunk() else {
                return boxed(grpc::error(Code::InvalidArgument, "there is no message in the call", &[]));
            };
            if grpc::prefix(*prefix) != (0, message.len()) {
                return boxed(grpc::error(Code::InvalidArgument, "the message is compressed or torn", &[]));
            }
            if path == CHECK {
                return boxed(self.0.check(message));
            }
            match self.0.watch(message) {
                Ok(watching) => {
                    let mut answer = Response::new(watching.boxed_unsync());
                    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                    answer
                }
                Err(answer) => boxed(*answer),
            }
        }
        .boxed()
    }
}

impl Pages {
    /// Since when the process is well.
    fn up_since(&self) -> Option<UnixNanos> {
        let (state, since) = self.health.whole_since();
        let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        (state == State::Ok).then(|| UnixNanos(self.clock.now().0.saturating_sub(nanos)))
    }
}
