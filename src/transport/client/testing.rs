//! Sinks that tests send to. They are written on `h2` and bare sockets, so that our own server is not its own judge.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Request, Response};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};

use super::Resolve;
use crate::{
    component::{BuildContext, Extensions},
    config::{Input, Machine, Node, load},
    internal_telemetry::Telemetry,
    runtime::Clock,
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
    /// The connection takes no more after this.
    pub(crate) goes_away: bool,
}

impl Reply {
    /// `grpc-status` in the headers, as most servers send errors.
    pub(crate) fn status(code: i32, message: &str) -> Self {
        let headers = vec![
            ("content-type", "application/grpc".to_owned()),
            ("grpc-status", code.to_string()),
            ("grpc-message", message.to_owned()),
        ];
        Self { status: 200, headers, body: Bytes::new(), trailers: None, reset: None, goes_away: false }
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
            goes_away: false,
        }
    }

    pub(crate) fn ok() -> Self {
        Self::message(&[])
    }

    pub(crate) fn http(status: u16, headers: Vec<(&'static str, String)>, body: impl Into<Bytes>) -> Self {
        Self { status, headers, body: body.into(), trailers: None, reset: None, goes_away: false }
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
    let (end, mut ended) = mpsc::channel(1);
    let mut going = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                streams.spawn(h2_stream(request, respond, all.clone(), answer.clone(), end.clone()));
            }
            _ = ended.recv(), if !going => {
                going = true;
                connection.graceful_shutdown();
            }
        }
    }
}

async fn h2_stream(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    all: Arc<Mutex<Vec<Seen>>>,
    answer: Answers,
    end: mpsc::Sender<()>,
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
    if reply.goes_away {
        // Full: it is told already.
        end.try_send(()).ok();
    }
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

/// An HTTP/1.1 server on a bare socket. The answer is raw bytes, so that it may be anything.
pub(crate) struct H1Sink {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl H1Sink {
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_tls(answer, None).await
    }

    pub(crate) async fn start_tls(
        answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let answer: Arc<dyn Fn(&Seen) -> Vec<u8> + Send + Sync> = Arc::new(answer);
        let mut tasks = JoinSet::new();
        let (all, count) = (seen.clone(), connections.clone());
        tasks.spawn(async move {
            let mut inner = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock() += 1;
                let (all, answer, tls) = (all.clone(), answer.clone(), tls.clone());
                inner.spawn(async move {
                    match tls {
                        None => h1_connection(stream, all, answer).await,
                        Some(tls) => {
                            let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await else { return };
                            h1_connection(stream, all, answer).await;
                        }
                    }
                });
            }
        });
        Self { address, seen, connections, _tasks: tasks }
    }
}

/// Ends the connection after an answer that says `Connection: close`, or when the peer goes.
async fn h1_connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    all: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<dyn Fn(&Seen) -> Vec<u8> + Send + Sync>,
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let seen = Seen { path, headers, body };
        let bytes = answer(&seen);
        all.lock().push(seen);
        if stream.write_all(&bytes).await.is_err() || find(&bytes, b"connection: close") {
            return;
        }
    }
}

fn find(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// An HTTP/1.1 answer with a length.
pub(crate) fn answered(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

/// A proxy that opens tunnels to `backend`, whatever name is asked for, and keeps what it was asked.
pub(crate) struct TunnelProxy {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl TunnelProxy {
    /// `answer`: the status line; anything but 200 ends the connection.
    pub(crate) async fn start(backend: SocketAddr, answer: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = asked.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut inner = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let all = all.clone();
                inner.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    all.lock().push(String::from_utf8(head).unwrap());
                    stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
                    if answer.starts_with("200") {
                        let mut backend = tokio::net::TcpStream::connect(backend).await.unwrap();
                        drop(tokio::io::copy_bidirectional(&mut stream, &mut backend).await);
                    }
                });
            }
        });
        Self { address, asked, _tasks: tasks }
    }
}

/// A resolver with its own idea of the world.
#[derive(Default)]
pub(crate) struct Names(pub(crate) Mutex<Vec<(&'static str, Vec<SocketAddr>)>>);

impl Names {
    pub(crate) fn of(names: impl IntoIterator<Item = (&'static str, Vec<SocketAddr>)>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(names.into_iter().collect())))
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str, _port: u16) -> BoxFuture<'a, std::io::Result<Vec<SocketAddr>>> {
        let known = self.0.lock().iter().find(|(name, _)| *name == host).map(|(_, addresses)| addresses.clone());
        Box::pin(std::future::ready(known.ok_or_else(|| std::io::Error::other("no such name"))))
    }
}

/// A certificate authority and what it signed, as PEM.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: (String, String),
    pub(crate) client: (String, String),
}

impl Certificates {
    /// The server's is for `backend.test`.
    pub(crate) fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        Self { ca: ca_pem, server: leaf("backend.test"), client: leaf("weir.test") }
    }

    /// A server with the certificate; `mutual`: clients need one as well.
    pub(crate) fn server_config(&self, alpn: &[&[u8]], mutual: bool) -> Arc<rustls::ServerConfig> {
        use rustls::{
            RootCertStore, ServerConfig,
            crypto::ring,
            pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
            server::WebPkiClientVerifier,
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_slice(self.server.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

/// Repeats until it holds; the suite's own time limit is the bound.
pub(crate) async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

/// The node of a component's settings.
pub(crate) fn node(yaml: &str) -> Node {
    let loaded = load(&[Input::Text { name: "test.yaml".to_owned(), text: yaml.to_owned() }], &Machine);
    assert!(!loaded.found.has_errors(), "{:?}", loaded.found);
    loaded.node
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
        notes: crate::component::Notes::default(),
        claims: crate::component::Claims::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: ComponentId::parse("otlp_grpc").unwrap(),
        telemetry: Telemetry::default(),
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
