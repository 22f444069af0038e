//! Sinks that tests send to. They are written on `h2` and bare sockets, so that our own server is not its own judge.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};

use crate::{
    component::{BuildContext, Clock, Extensions},
    signal::{Batch, ComponentId, Signal},
};

/// One request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What a sink answers.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// `None`: trailers-only, the headers are all there is.
    pub(crate) trailers: Option<Vec<(&'static str, String)>>,
    /// The stream is reset instead of answered.
    pub(crate) reset: Option<h2::Reason>,
}

impl Reply {
    /// `grpc-status` in the headers, as most servers send errors.
    pub(crate) fn status(code: i32, message: &str) -> Self {
        let headers = vec![
            ("content-type", "application/grpc".to_owned()),
            ("grpc-status", code.to_string()),
            ("grpc-message", message.to_owned()),
        ];
        Self { status: 200, headers, body: Bytes::new(), trailers: None, reset: None }
    }

    /// Status 0 in trailers, after a message.
    pub(crate) fn message(message: &[u8]) -> Self {
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        Self {
            status: 200,
            headers: vec![("content-type", "application/grpc".to_owned())],
            body: body.into(),
            trailers: Some(vec![("grpc-status", "0".to_owned())]),
            reset: None,
        }
    }

    pub(crate) fn ok() -> Self {
        Self::message(&[])
    }

    pub(crate) fn http(status: u16, headers: Vec<(&'static str, String)>, body: impl Into<Bytes>) -> Self {
        Self { status, headers, body: body.into(), trailers: None, reset: None }
    }
}

pub(crate) type Answers = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// An HTTP/2 server that keeps what it was sent.
pub(crate) struct H2Sink {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl H2Sink {
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, answer, None).await
    }

    pub(crate) async fn start_on(
        host: Ipv4Addr,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        Self::serve(listener, answer, tls)
    }

    pub(crate) fn serve(
        listener: TcpListener,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let answer: Answers = Arc::new(answer);
        let mut tasks = JoinSet::new();
        let (all, count) = (seen.clone(), connections.clone());
        tasks.spawn(async move {
            let mut inner = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock() += 1;
                let (all, answer, tls) = (all.clone(), answer.clone(), tls.clone());
                inner.spawn(async move {
                    match tls {
                        None => h2_connection(stream, all, answer).await,
                        Some(tls) => {
                            let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await else { return };
                            h2_connection(stream, all, answer).await;
                        }
                    }
                });
            }
        });
        Self { address, seen, connections, _tasks: tasks }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn h2_connection(stream: impl AsyncRead + AsyncWrite + Unpin, all: Arc<Mutex<Vec<Seen>>>, answer: Answers) {
    let Ok(mut connection) = h2::server::Builder::new()
        .max_frame_size(1 << 20)
        .initial_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake::<_, Bytes>(stream)
        .await
    else {
        return;
    };
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        streams.spawn(h2_stream(request, respond, all.clone(), answer.clone()));
    }
}

async fn h2_stream(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    all: Arc<Mutex<Vec<Seen>>>,
    answer: Answers,
) {
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = incoming.data().await {
        drop(incoming.flow_control().release_capacity(chunk.len()));
        body.extend_from_slice(&chunk);
    }
    let seen = Seen { path: head.uri.path().to_owned(), headers: head.headers, body };
    let reply = answer(&seen);
    all.lock().push(seen);
    if let Some(reason) = reply.reset {
        respond.send_reset(reason);
        return;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let ends = reply.trailers.is_none() && reply.body.is_empty();
    let Ok(mut stream) = respond.send_response(response.body(()).unwrap(), ends) else { return };
    if ends {
        return;
    }
    drop(stream.send_data(reply.body, reply.trailers.is_none()));
    if let Some(trailers) = reply.trailers {
        let mut map = HeaderMap::new();
        for (name, value) in trailers {
            map.append(name, value.parse().unwrap());
        }
        drop(stream.send_trailers(map));
    }
}

/// Takes gRPC's five bytes off a request; the flag and the message.
pub(crate) fn unframed(body: &[u8]) -> (u8, &[u8]) {
    let len = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!(body.len(), len + 5, "one message and nothing after it");
    (body[0], &body[5..])
}

/// Undoes a compression with the library's own decoder.
pub(crate) fn inflated(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap(),
        "zlib" | "deflate" => flate2::read::ZlibDecoder::new(body).read_to_end(&mut out).unwrap(),
        "zstd" => zstd::Decoder::new(body).unwrap().read_to_end(&mut out).unwrap(),
        "snappy-framed" => snap::read::FrameDecoder::new(body).read_to_end(&mut out).unwrap(),
        "snappy" => {
            out = snap::raw::Decoder::new().decompress_vec(body).unwrap();
            out.len()
        }
        other => panic!("no decoder for {other}"),
    };
    out
}

pub(crate) fn build_context(extensions: Extensions) -> BuildContext {
    BuildContext {
        id: ComponentId::parse("otlp_grpc").unwrap(),
        telemetry: Default::default(),
        health: Arc::default(),
        extensions: Arc::new(extensions),
        clock: Clock::system(),
    }
}

/// A request body with one span a name, made by prost.
pub(crate) fn traces(names: &[&str]) -> Bytes {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    let spans =
        names.iter().map(|name| Span { name: (*name).to_owned(), trace_id: vec![7; 16], span_id: vec![8; 8], ..Span::default() });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    };
    prost::Message::encode_to_vec(&request).into()
}

/// The span names of a request body, read by prost.
pub(crate) fn span_names(body: &[u8]) -> Vec<String> {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    let request: ExportTraceServiceRequest = prost::Message::decode(body).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
}

pub(crate) fn batch(payload: Bytes, items: u64) -> Batch {
    Batch { signal: Signal::Traces, payload, items, context: Arc::default(), index: None }
}
