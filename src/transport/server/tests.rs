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
        let bound = Bound::bind(&settings, "receivers::otlp::protocols::http::endpoint").await.unwrap();
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
    let error = Bound::bind_grpc(&settings, "receivers::otlp::protocols::grpc::endpoint").await.err().unwrap();
    assert_eq!(error.to_string(), format!("address already in use: {address} (receivers::otlp::protocols::grpc::endpoint)"));
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

#[tokio::test(start_paused = true)]
async fn cuts_off_a_header_that_drips_in() {
    let server = Running::start(local()).await;
    let mut stream = server.connect().await;
    let begun = tokio::time::Instant::now();
    stream.write_all(b"GET /slow HTTP/1.1\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if writer.write_all(b"x-drip: 1\r\n").await.is_err() {
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
    let took = begun.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&took), "{took:?}");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn keeps_an_idle_http1_connection_for_five_minutes() {
    let server = Running::start(local()).await;
    let mut stream = server.connect().await;
    let ask = b"GET /again HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(ask).await.unwrap();
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).await.unwrap();
        while !answer.ends_with(b"HTTP/1.1 /again") {
            answer.rotate_left(1);
            answer[15] = stream.read_u8().await.unwrap();
        }
        // Longer than the header may take: SDKs send metrics each minute.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    let took = begun.elapsed();
    assert!((Duration::from_secs(239)..Duration::from_secs(241)).contains(&took), "{took:?}");
    server.stop().await;
}
