//! Listeners over real sockets: limits, TLS, shutdown.

use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::*;
use crate::{
    config::{GoDuration, Section},
    transport::tls::server::TlsServerSettings,
};

/// Answers with the version of HTTP and the path.
struct Echo;

impl HttpService for Echo {
    fn call(self: Arc<Self>, request: Request<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        async move {
            let text = format!("{:?} {}", request.version(), request.uri().path());
            Response::new(Full::new(Bytes::from(text)).map_err(Error::from).boxed_unsync())
        }
        .boxed()
    }
}

struct Running {
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<Result<(), crate::runtime::TaskError>>,
    shutdown: Shutdown,
}

impl Running {
    async fn start(settings: HttpServerSettings) -> Self {
        let bound = Bound::bind(&settings, "receivers::otlp::protocols::http::endpoint", &Sockets::default()).await.unwrap();
        Self::serve(bound)
    }

    fn serve(bound: Bound) -> Self {
        let (addresses, shutdown, mut tasks) = (bound.addresses(), Shutdown::new(), JoinSet::new());
        tasks.spawn(bound.serve(Arc::new(Echo), shutdown.clone()));
        Self { addresses, tasks, shutdown }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn local() -> HttpServerSettings {
    HttpServerSettings { endpoint: "127.0.0.1:0".to_owned(), ..HttpServerSettings::default() }
}

async fn get_h1(stream: TcpStream, path: &str) -> String {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let answer = sender.send_request(Request::get(path).body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn get_h2(stream: TcpStream, path: &str) -> String {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get(format!("http://localhost{path}")).body(Full::<Bytes>::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What comes until the peer closes.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn speaks_both_versions_of_http_on_one_port() {
    let server = Running::start(local()).await;
    assert_eq!(get_h1(server.connect().await, "/a").await, "HTTP/1.1 /a");
    assert_eq!(get_h2(server.connect().await, "/b").await, "HTTP/2.0 /b");
    server.stop().await;
}

#[tokio::test]
async fn localhost_is_both_families_on_one_port() {
    let server = Running::start(HttpServerSettings { endpoint: "localhost:0".to_owned(), ..local() }).await;
    let [v4, rest @ ..] = server.addresses.as_slice() else { panic!("no address") };
    assert!(v4.is_ipv4());
    for v6 in rest {
        assert!(v6.is_ipv6());
        assert_eq!(v4.port(), v6.port());
        assert_eq!(get_h1(TcpStream::connect(v6).await.unwrap(), "/six").await, "HTTP/1.1 /six");
    }
    server.stop().await;
}

#[tokio::test]
async fn names_the_address_and_the_key_when_a_port_is_taken() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let settings = GrpcServerSettings { endpoint: format!("localhost:{}", address.port()), ..GrpcServerSettings::default() };
    let error =
        Bound::bind_grpc(&settings, "receivers::otlp::protocols::grpc::endpoint", &Sockets::default()).await.err().unwrap();
    assert_eq!(error.message(), format!("address already in use: {address} (receivers::otlp::protocols::grpc::endpoint)"));
}

#[tokio::test]
async fn serves_a_socket_file_and_takes_over_a_stale_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let endpoint = format!("unix://{}", path.display());
    let server = Running::start(HttpServerSettings { endpoint, ..local() }).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /file HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("HTTP/1.1 /file"), "{answer}");
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn answers_tls_on_a_plaintext_port_with_an_alert() {
    let server = Running::start(local()).await;
    let mut stream = server.connect().await;
    stream.write_all(&[0x16, 3, 1, 0, 1, 1]).await.unwrap();
    assert_eq!(rest(stream).await, [0x15, 3, 1, 0, 2, 2, 40]);
    server.stop().await;
}

fn written(text: &str) -> Option<GoDuration> {
    GoDuration::parse(text).map(GoDuration)
}

#[tokio::test]
async fn cuts_off_a_header_that_drips_in() {
    let server = Running::start(HttpServerSettings { read_header_timeout: written("300ms"), ..local() }).await;
    let mut stream = server.connect().await;
    let begun = tokio::time::Instant::now();
    stream.write_all(b"GET /slow HTTP/1.1\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if writer.write_all(b"x: 1\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut all = Vec::new();
    tokio::select! {
        () = drip => {}
        // A reset is an end, too.
        end = reader.read_to_end(&mut all) => drop(end),
    }
    assert!(begun.elapsed() >= Duration::from_millis(250));
    server.stop().await;
}

#[tokio::test]
async fn an_idle_http1_connection_is_kept_longer_than_a_header_may_take() {
    let settings = HttpServerSettings { read_header_timeout: written("100ms"), idle_timeout: written("2s"), ..local() };
    let server = Running::start(settings).await;
    let mut stream = server.connect().await;
    let mut gaps = tokio::time::interval(Duration::from_millis(300));
    for _ in 0..3 {
        gaps.tick().await;
        stream.write_all(b"GET /again HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"HTTP/1.1 /again") {
            answer.push(stream.read_u8().await.unwrap());
        }
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn an_idle_http2_connection_gets_a_goaway() {
    let server = Running::start(HttpServerSettings { idle_timeout: written("200ms"), ..local() }).await;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(server.connect().await)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get("http://localhost/").body(Full::<Bytes>::default()).unwrap();
    sender.send_request(request).await.unwrap();
    // The client's side ends without an error: the server said that it goes.
    tasks.join_next().await.unwrap().unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_old_connection_gets_a_goaway_and_may_finish() {
    let parameters = KeepaliveParameters { max_connection_age: written("200ms"), ..KeepaliveParameters::default() };
    let keepalive = Keepalive { server_parameters: Section::present(parameters), ..Keepalive::default() };
    let settings = GrpcServerSettings {
        endpoint: "127.0.0.1:0".to_owned(),
        keepalive: Section::present(keepalive),
        ..GrpcServerSettings::default()
    };
    let server = Running::serve(Bound::bind_grpc(&settings, "k", &Sockets::default()).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(server.connect().await)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut answered = 0;
    loop {
        let request = Request::get("http://localhost/").body(Full::<Bytes>::default()).unwrap();
        match sender.send_request(request).await {
            Ok(answer) => {
                assert_eq!(answer.status(), 200);
                answered += 1;
            }
            // Refused because the connection goes, not broken half-way.
            Err(error) => break assert!(error.is_canceled() || error.is_closed() || !error.is_incomplete_message(), "{error:?}"),
        }
    }
    assert!(answered > 0);
    tasks.join_next().await.unwrap().unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_connection_over_the_cap_takes_the_place_of_an_idle_one() {
    let mut bound = Bound::bind(&local(), "k", &Sockets::default()).await.unwrap();
    bound.caps = Caps { connections: 2, per_ip: 256 };
    let server = Running::serve(bound);
    let (first, second) = (server.connect().await, server.connect().await);
    assert_eq!(get_h1(server.connect().await, "/third").await, "HTTP/1.1 /third");
    assert_eq!(rest(first).await, b"");
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn without_an_authenticator_every_request_is_refused_where_one_is_asked_for() {
    let auth = Auth { authenticator: "nobody".to_owned(), ..Auth::default() };
    let server = Running::start(HttpServerSettings { auth: Section::present(auth), ..local() }).await;
    assert_eq!(get_h1(server.connect().await, "/").await, "nobody checks credentials here");
    server.stop().await;
}

#[tokio::test]
async fn finishes_requests_when_it_stops_and_takes_no_new_connections() {
    let server = Running::start(local()).await;
    let address = server.addresses[0];
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(server.connect().await)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get("http://localhost/").body(Full::<Bytes>::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    server.stop().await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0 /");
    assert!(TcpStream::connect(address).await.is_err());
}

// === TLS ===

struct Pki {
    folder: tempfile::TempDir,
    authority: rcgen::Issuer<'static, rcgen::KeyPair>,
    root: rustls::pki_types::CertificateDer<'static>,
}

impl Pki {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, root: certificate.der().clone(), authority: rcgen::Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a certificate for `name` and its key, and gives them back for a client.
    fn issue(&self, name: &str) -> (Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        (vec![certificate.der().clone()], rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn settings(&self) -> TlsServerSettings {
        TlsServerSettings {
            cert_file: self.path("cert.pem"),
            key_file: self.path("key.pem"),
            reload_interval: written("1ns"),
            ..TlsServerSettings::default()
        }
    }

    async fn serve(&self, tls: TlsServerSettings) -> Running {
        Running::start(HttpServerSettings { tls: Section::present(tls), ..local() }).await
    }

    /// A handshake as `name`, with a certificate of ours where one is given, and a request over it.
    async fn get(
        &self,
        server: &Running,
        name: &'static str,
        identity: Option<(Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>)>,
    ) -> std::io::Result<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = rustls::pki_types::ServerName::try_from(name).unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await?;
        let handshaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshaken.map_err(std::io::Error::other)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let request = Request::get("https://localhost/tls").body(Full::<Bytes>::default()).unwrap();
        let answer = sender.send_request(request).await.map_err(std::io::Error::other)?;
        Ok(String::from_utf8(answer.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec()).unwrap())
    }
}

#[tokio::test]
async fn certificates_are_read_again_when_their_files_change() {
    let pki = Pki::new();
    pki.issue("old.example");
    let server = pki.serve(pki.settings()).await;
    assert_eq!(pki.get(&server, "old.example", None).await.unwrap(), "HTTP/2.0 /tls");
    assert!(pki.get(&server, "new.example", None).await.is_err());
    pki.issue("new.example");
    assert_eq!(pki.get(&server, "new.example", None).await.unwrap(), "HTTP/2.0 /tls");
    // Half of a pair is no reason to stop: what fits together stays in use.
    std::fs::write(pki.path("key.pem"), "").unwrap();
    assert_eq!(pki.get(&server, "new.example", None).await.unwrap(), "HTTP/2.0 /tls");
    server.stop().await;
}

#[tokio::test]
async fn certificates_stay_where_the_file_says_never() {
    let pki = Pki::new();
    pki.issue("old.example");
    let server = pki.serve(TlsServerSettings { reload_interval: written("0"), ..pki.settings() }).await;
    pki.issue("new.example");
    assert_eq!(pki.get(&server, "old.example", None).await.unwrap(), "HTTP/2.0 /tls");
    server.stop().await;
}

#[tokio::test]
async fn asks_for_a_certificate_of_its_own_authority() {
    let (pki, other) = (Pki::new(), Pki::new());
    let good = pki.issue("client.example");
    let stranger = other.issue("client.example");
    pki.issue("server.example");
    let server = pki.serve(TlsServerSettings { client_ca_file: pki.path("ca.pem"), ..pki.settings() }).await;
    assert_eq!(pki.get(&server, "server.example", Some(good)).await.unwrap(), "HTTP/2.0 /tls");
    assert!(pki.get(&server, "server.example", None).await.is_err());
    assert!(pki.get(&server, "server.example", Some(stranger)).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn plaintext_on_a_tls_port_is_told_so() {
    let pki = Pki::new();
    pki.issue("server.example");
    let server = pki.serve(pki.settings()).await;
    let mut one = server.connect().await;
    one.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(rest(one).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("https://"), "{answer}");
    let (sender, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let error = connection.await.unwrap_err();
    assert!(error.is_go_away() && error.is_remote(), "{error:?}");
    assert_eq!(error.reason(), Some(h2::Reason::INADEQUATE_SECURITY));
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_stops_half_way_holds_nobody_up() {
    let pki = Pki::new();
    pki.issue("server.example");
    let server = pki.serve(pki.settings()).await;
    let mut halves = Vec::new();
    for _ in 0..50 {
        let mut half = server.connect().await;
        half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        halves.push(half);
    }
    assert_eq!(pki.get(&server, "server.example", None).await.unwrap(), "HTTP/2.0 /tls");
    drop(halves);
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_there_stops_the_start() {
    let pki = Pki::new();
    let settings = HttpServerSettings { tls: Section::present(pki.settings()), ..local() };
    let error = Bound::bind(&settings, "exporters::prometheus::endpoint", &Sockets::default()).await.err().unwrap().to_string();
    assert!(error.starts_with("exporters::prometheus::tls::cert_file: cannot read"), "{error}");
}
