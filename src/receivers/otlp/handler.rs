//! One request: whose it is, what it is, and what is answered.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderMap, Method, Request, Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN},
};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{
    answer::{Answer, Media, grpc_refusal, grpc_success, http_refusal, http_success},
    body,
    notices::Notices,
};
use crate::{
    component::AuthError,
    door::{Accepted, Arrival, Inlet, Refusal},
    door::{heavy, inflate::Encoding},
    otlp::{
        ScanLimits,
        json::{self, JsonErrorKind},
    },
    receivers::request::{Encodings, Held, Pieces, context, inflated, whole},
    runtime::{Shutdown, Step},
    signal::{Context, Signal},
    transport::server::{
        Gate, GrpcServerSettings, Handler, HttpServerSettings, Link, Origin, grpc,
        health::{CHECK, HealthService, Serving, WATCH, Watching},
    },
};

/// What a port is for, by the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Grpc,
    Http,
}

impl Speaks {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// The paths of OTLP/HTTP, by [`Signal::ordinal`].
pub(super) struct Paths([Box<str>; 3]);

impl Paths {
    pub(super) fn new(traces: &str, metrics: &str, logs: &str) -> Self {
        Self([traces.into(), metrics.into(), logs.into()])
    }

    fn signal(&self, path: &str) -> Option<Signal> {
        self.0.iter().zip(Signal::ALL).find(|(own, _)| &***own == path).map(|(_, signal)| signal)
    }
}

/// The call of a signal.
fn grpc_signal(path: &str) -> Option<Signal> {
    let path = path.strip_prefix("/opentelemetry.proto.collector.")?;
    match path {
        "trace.v1.TraceService/Export" => Some(Signal::Traces),
        "metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        "logs.v1.LogsService/Export" => Some(Signal::Logs),
        _ => None,
    }
}

/// What both ports share.
pub(super) struct Common {
    pub(super) inlet: Arc<dyn Inlet>,
    pub(super) health: HealthService,
    pub(super) paths: Arc<Paths>,
    pub(super) strict_utf8: bool,
    pub(super) stopping: Shutdown,
}

/// One port.
pub(super) struct Port {
    speaks: Speaks,
    /// The receiver's id.
    receiver: String,
    inlet: Arc<dyn Inlet>,
    health: HealthService,
    paths: Arc<Paths>,
    strict_utf8: bool,
    stopping: Shutdown,
    gate: Gate,
    /// Bytes of a body, before and after decompression.
    limit: usize,
    read_timeout: Duration,
    include_metadata: bool,
    encodings: Encodings,
    notices: Notices,
    /// The context of every request, where nothing of it is needed.
    no_context: Arc<Context>,
}

impl Port {
    pub(super) fn grpc(settings: &GrpcServerSettings, gate: Gate, block: String, common: &Common) -> Self {
        Self {
            limit: settings.request_bytes_max(),
            include_metadata: settings.include_metadata,
            ..Self::new(Speaks::Grpc, gate, block, common)
        }
    }

    pub(super) fn http(settings: &HttpServerSettings, gate: Gate, block: String, common: &Common) -> Self {
        Self {
            limit: settings.request_bytes_max(),
            include_metadata: settings.include_metadata,
            read_timeout: settings.read_timeout.0,
            encodings: Encodings::of(settings),
            ..Self::new(Speaks::Http, gate, block, common)
        }
    }

    fn new(speaks: Speaks, gate: Gate, block: String, common: &Common) -> Self {
        let receiver = block.split("::").nth(1).unwrap_or_default().to_owned();
        Self {
            speaks,
            receiver,
            inlet: common.inlet.clone(),
            health: common.health.clone(),
            paths: common.paths.clone(),
            strict_utf8: common.strict_utf8,
            stopping: common.stopping.clone(),
            gate,
            limit: 0,
            read_timeout: Duration::ZERO,
            include_metadata: false,
            encodings: Encodings::default(),
            notices: Notices::new(block),
            no_context: Arc::default(),
        }
    }

    pub(super) fn speaks(&self) -> Speaks {
        self.speaks
    }
}

impl Handler for Port {
    type Body = Answer;

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>, link: Arc<Link>) -> Response<Answer> {
        let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if grpc::is_grpc(content_type) {
            self.notices.other_port(link.peer, self.speaks, Speaks::Grpc);
            return match self.call(&mut request, &link).await {
                Ok(answer) => answer,
                Err(refusal) => {
                    self.note(&refusal, &link);
                    grpc_refusal(&refusal)
                }
            };
        }
        let media = Media::parse(content_type);
        if self.gate.is_open() && !request.headers().contains_key(ORIGIN) {
            return self.post(&mut request, &link, media).await;
        }
        let origin = self.gate.origin(request.headers());
        if origin == Origin::Refused {
            self.notices.origin(link.peer, request.headers().get(ORIGIN));
        }
        let mut answer = if Gate::is_preflight(request.method(), request.headers()) {
            if let Origin::Allowed(_) = origin {
                self.gate.preflight(request.headers(), "POST")
            } else {
                let message = "pages of this origin may not send; it is not in `cors::allowed_origins`".to_owned();
                http_refusal(&Refusal::Denied { message }, media)
            }
        } else {
            self.post(&mut request, &link, media).await
        };
        self.gate.dress(origin, answer.headers_mut());
        answer
    }
}

impl Port {
    // === gRPC ===

    async fn call(&self, request: &mut Request<Incoming>, link: &Link) -> Result<Response<Answer>, Refusal> {
        let Some(signal) = grpc_signal(request.uri().path()) else { return self.other_call(request, link).await };
        if request.headers().get(CONTENT_TYPE).is_some_and(|value| !grpc::is_protobuf(value.as_bytes())) {
            return Err(Refusal::MediaType { message: "messages of a call have to be protobuf".to_owned() });
        }
        let (context, encoding) = self.enter(request.method(), request.headers(), link, signal, "grpc-encoding").await?;
        let deadline = grpc::timeout(request.headers());
        let pieces = Pieces::of(request.body_mut(), self.read_timeout);
        let read = async {
            let (compressed, held) = body::message(pieces, self.inlet.budget(), self.limit).await?;
            match (compressed, encoding) {
                (false, _) => Ok(held),
                (true, Some(encoding)) => inflated(encoding, held, self.limit),
                (true, None) => {
                    let message = "the message is marked as compressed and grpc-encoding names nothing".to_owned();
                    Err(Refusal::Malformed { message })
                }
            }
        };
        let held = read.await.inspect_err(|refusal| self.inlet.refused(signal, refusal, link.peer, "grpc"))?;
        let deadline = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let accepted = match self.accept(signal, held, context, link, "grpc") {
            Step::Ready(done) => done?,
            Step::Wait(waiting) => match deadline {
                Some(deadline) => timeout_at(deadline, waiting).await.map_err(|_| Refusal::Deadline)??,
                None => waiting.await?,
            },
        };
        let answer = grpc_success(signal, &accepted);
        // The data is in: what the deadline cuts short is only the wait with the answer.
        match deadline {
            Some(deadline) => drop(timeout_at(deadline, accepted.pace.over()).await),
            None => accepted.pace.over().await,
        }
        Ok(answer)
    }

    /// Calls that carry no telemetry of ours.
    async fn other_call(&self, request: &mut Request<Incoming>, link: &Link) -> Result<Response<Answer>, Refusal> {
        let path = request.uri().path().to_owned();
        if path != CHECK && path != WATCH {
            if path.starts_with("/opentelemetry.proto.collector.profiles.") {
                self.notices.profiles(link.peer);
                return Err(Refusal::NotTaken { message: "profiles are not taken".to_owned() });
            }
            self.notices.path(link.peer, &path);
            let shown: String = path.chars().take(128).collect();
            return Err(Refusal::NotTaken { message: format!("there is no call {shown}") });
        }
        self.gate.admit(request.headers()).await?;
        let pieces = Pieces::of(request.body_mut(), self.read_timeout);
        let (_, held) = body::message(pieces, self.inlet.budget(), 256).await?;
        if path == CHECK {
            return Ok(self.health.check(&held.payload).map(Answer::Unary));
        }
        Ok(match self.health.watch(&held.payload) {
            Ok(watching) => {
                let mut answer = Response::new(Answer::Watch(Box::new(watching)));
                *answer.headers_mut() = Watching::headers();
                answer
            }
            Err(answer) => answer.map(Answer::Unary),
        })
    }

    // === HTTP ===

    async fn post(&self, request: &mut Request<Incoming>, link: &Link, media: Option<Media>) -> Response<Answer> {
        match self.try_post(request, link, media).await {
            Ok(answer) => answer,
            Err(refusal) => {
                self.note(&refusal, link);
                http_refusal(&refusal, media)
            }
        }
    }

    async fn try_post(
        &self,
        request: &mut Request<Incoming>,
        link: &Link,
        media: Option<Media>,
    ) -> Result<Response<Answer>, Refusal> {
        let path = request.uri().path();
        let Some(signal) = self.paths.signal(path) else {
            if path == "/v1development/profiles" {
                self.notices.profiles(link.peer);
                return Err(Refusal::NotTaken { message: "profiles are not taken".to_owned() });
            }
            self.notices.path(link.peer, path);
            let shown: String = path.chars().take(128).collect();
            let [traces, metrics, logs] = &self.paths.0;
            return Err(Refusal::NotTaken {
                message: format!("nothing is taken at {shown}; there are {traces}, {metrics} and {logs}"),
            });
        };
        self.notices.other_port(link.peer, self.speaks, Speaks::Http);
        let (context, encoding) =
            self.enter(request.method(), request.headers(), link, signal, CONTENT_ENCODING.as_str()).await?;
        let Some(media) = media else {
            let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
            self.notices.media_type(link.peer, content_type);
            return Err(Refusal::MediaType {
                message: "Content-Type has to be application/x-protobuf or application/json".to_owned(),
            });
        };
        let pieces = Pieces::of(request.body_mut(), self.read_timeout);
        let read = async {
            let mut held = whole(pieces, self.inlet.budget(), self.limit).await?;
            if let Some(encoding) = encoding {
                held = inflated(encoding, held, self.limit)?;
            }
            if media == Media::Json { self.transcoded(signal, held) } else { Ok(held) }
        };
        let held = read.await.inspect_err(|refusal| self.inlet.refused(signal, refusal, link.peer, "http"))?;
        let accepted = self.accept(signal, held, context, link, "http").done().await?;
        let answer = http_success(signal, &accepted, media);
        accepted.pace.over().await;
        Ok(answer)
    }

    /// Protobuf of a JSON body.
    fn transcoded(&self, signal: Signal, mut held: Held) -> Result<Held, Refusal> {
        // An empty body is an empty request in protobuf; let it be one here.
        if held.payload.is_empty() {
            return Ok(held);
        }
        let limits = json::Limits { scan: ScanLimits::default(), bytes_max: self.limit };
        let payload =
            heavy(held.payload.len(), || json::decode(signal, &held.payload, &limits)).map_err(|error| match error.kind {
                JsonErrorKind::TooLarge => Refusal::TooLarge { message: error.to_string() },
                _ => Refusal::Malformed { message: error.to_string() },
            })?;
        held.payload = payload.into();
        Ok(held)
    }

    // === both ===

    /// Everything that can be said before the body is read.
    async fn enter(
        &self,
        method: &Method,
        headers: &HeaderMap,
        link: &Link,
        signal: Signal,
        encoding: &str,
    ) -> Result<(Arc<Context>, Option<Encoding>), Refusal> {
        if method != Method::POST {
            self.notices.method(link.peer, method);
            return Err(Refusal::Method { message: format!("{method} is not POST") });
        }
        let auth = if self.gate.auth().is_some() {
            self.gate.admit(headers).await.inspect_err(|error| {
                if !matches!(error, AuthError::Unavailable(_)) {
                    self.notices.credentials(link.peer, error);
                }
            })?
        } else {
            Vec::new()
        };
        // Where another receiver takes the place of this one, a connection that came here is served to its end.
        if self.stopping.is_cancelled() && self.health.serving("") != Serving::Yes {
            return Err(Refusal::stopping());
        }
        if !self.inlet.takes(signal) {
            self.notices.not_taken(link.peer, signal, &self.receiver);
            return Err(Refusal::NotTaken {
                message: format!("no pipeline takes {signal} from the receiver `{}`", self.receiver),
            });
        }
        let encoding = self.encodings.read(headers, encoding).inspect_err(|_| {
            let name = headers.get(encoding).map_or(&b""[..], |name| name.as_bytes());
            self.notices.encoding(link.peer, name);
        })?;
        Ok((self.context(headers, link, auth), encoding))
    }

    /// What the components behind the inlet read of the request, and nothing else.
    fn context(&self, headers: &HeaderMap, link: &Link, auth: Vec<(Box<str>, Box<str>)>) -> Arc<Context> {
        let context = context(&*self.inlet, headers, link, auth, self.include_metadata);
        context.map_or_else(|| self.no_context.clone(), Arc::new)
    }

    fn accept(
        &self,
        signal: Signal,
        held: Held,
        context: Arc<Context>,
        link: &Link,
        transport: &'static str,
    ) -> Step<'_, Result<Accepted, Refusal>> {
        let Held { payload, ticket } = held;
        self.inlet.accept(Arrival {
            signal,
            payload,
            context,
            transport,
            peer: link.peer,
            ticket: Some(ticket),
            strict_utf8: self.strict_utf8,
        })
    }

    fn note(&self, refusal: &Refusal, link: &Link) {
        if let Refusal::Malformed { .. } = refusal {
            self.notices.malformed(link.peer, refusal);
        }
    }
}
