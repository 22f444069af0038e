//! One connection: which protocol it speaks, its limits, its end.

use std::{
    convert::Infallible,
    future::{Future, pending},
    hash::BuildHasher,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    sync::Semaphore,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Error, Handler, Link,
    io::{InFlight, Io, Pulse, ReadLimits, Sniffed, Socket, Stream},
    notice::Once,
    settings::Limits,
};
use crate::{runtime::Shutdown, transport::tls::server::ServerTls};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Half-open handshakes cost memory only; the cap keeps a flood of whole ones from taking every core at once.
const HANDSHAKES_MAX: usize = 1024;
/// How long requests may take to finish after a GOAWAY where nothing else is said.
const GRACE: Duration = Duration::from_secs(5);

const FRAME_BYTES: u32 = 1 << 20;
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const HEADER_BYTES: u32 = 16 << 10;

/// What all connections of a listener share.
pub(super) struct Shared {
    pub(super) key: String,
    pub(super) limits: Limits,
    pub(super) tls: Option<ServerTls>,
    handshakes: Semaphore,
    notices: Once<(std::net::IpAddr, &'static str)>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Shared {
    pub(super) fn new(key: &str, limits: Limits, tls: Option<ServerTls>) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .keep_alive(limits.keep_alive)
            .max_header_size(HEADER_BYTES as usize);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_frame_size(FRAME_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(HEADER_BYTES)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(128)
            .auto_date_header(false);
        if !limits.ping_interval.is_zero() {
            http2.keep_alive_interval(limits.ping_interval).keep_alive_timeout(limits.ping_timeout);
        }
        Self {
            key: key.to_owned(),
            limits,
            tls,
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            notices: Once::default(),
            http1,
            http2,
        }
    }

    fn once(&self, peer: Option<SocketAddr>, what: &'static str) -> bool {
        peer.is_none_or(|peer| self.notices.first((peer.ip(), what)))
    }
}

/// Speaks with one peer until either side ends it. `shutdown` finishes what is being answered.
pub(super) async fn serve<H: Handler>(
    socket: Socket,
    peer: Option<SocketAddr>,
    pulse: Arc<Pulse>,
    shared: Arc<Shared>,
    handler: Arc<H>,
    shutdown: Shutdown,
) {
    let greeting = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        greeting = greet(socket, peer, &shared) => greeting,
    };
    let Some((stream, is_http2)) = greeting else { return };
    let link = Arc::new(Link { peer, secure: matches!(stream, Stream::Tls(_)) });
    let limits = shared.limits;
    let service = {
        let (link, pulse) = (link, pulse.clone());
        service_fn(move |request: Request<Incoming>| {
            let guard = pulse.begin();
            let answer = handler.clone().answer(request, link.clone());
            async move {
                let response = answer.await;
                Ok::<_, Infallible>(response.map(|body| Tracked { body, _guard: guard }))
            }
        })
    };
    if is_http2 {
        let io = Io::new(stream, pulse.clone(), None, limits.write);
        let connection = shared.http2.serve_connection(TokioIo::new(io), service);
        supervise(connection, http2::Connection::graceful_shutdown, &pulse, &limits, shutdown, limits.idle).await;
    } else {
        let reads = ReadLimits { head: limits.head, idle: limits.idle };
        let io = Io::new(stream, pulse.clone(), Some(reads), limits.write);
        let connection = shared.http1.serve_connection(TokioIo::new(io), service);
        // The socket itself watches for silence, exactly.
        supervise(connection, http1::Connection::graceful_shutdown, &pulse, &limits, shutdown, Duration::ZERO).await;
    }
}

/// The TLS handshake where there is one, and whether it is to be HTTP/2. `None`: the peer went, or was told what to change.
async fn greet(socket: Socket, peer: Option<SocketAddr>, shared: &Shared) -> Option<(Stream, bool)> {
    let wait = if shared.limits.head.is_zero() { Duration::from_hours(1) } else { shared.limits.head };
    let deadline = Instant::now() + wait;
    let mut sniffed = Sniffed::new(socket);
    if timeout_at(deadline, sniffed.look()).await.ok()?.ok()? == 0 {
        return None;
    }
    let speaks_tls = sniffed.head().first() == Some(&TLS_HANDSHAKE);
    let Some(tls) = &shared.tls else {
        if speaks_tls {
            tls_on_plaintext(sniffed, peer, shared).await;
            return None;
        }
        let is_http2 = timeout_at(deadline, is_http2(&mut sniffed)).await.ok()??;
        return Some((Stream::Plain(sniffed), is_http2));
    };
    if !speaks_tls {
        let is_http2 = timeout_at(deadline, is_http2(&mut sniffed)).await.ok()??;
        plaintext_on_tls(sniffed, is_http2, peer, shared).await;
        return None;
    }
    let _permit = shared.handshakes.acquire().await.ok()?;
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls.for_handshake()).accept(sniffed)).await {
        Ok(Ok(stream)) => {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Some((Stream::Tls(Box::new(stream)), is_http2))
        }
        Ok(Err(error)) => {
            if shared.once(peer, "handshake") {
                tracing::warn!(peer = peer.map(tracing::field::display), listener = shared.key, %error, "a TLS handshake failed; said once a peer");
            }
            None
        }
        Err(_) => None,
    }
}

/// Reads on until the preface of HTTP/2 is there or cannot be any more.
async fn is_http2(sniffed: &mut Sniffed) -> Option<bool> {
    loop {
        let head = sniffed.head();
        if !PREFACE.starts_with(head) {
            return Some(false);
        }
        if head.len() == PREFACE.len() {
            return Some(true);
        }
        if sniffed.look().await.ok()? == 0 {
            return None;
        }
    }
}

async fn tls_on_plaintext(mut sniffed: Sniffed, peer: Option<SocketAddr>, shared: &Shared) {
    if shared.once(peer, "tls") {
        let block = shared.key.strip_suffix("::endpoint").unwrap_or(&shared.key);
        tracing::warn!(
            peer = peer.map(tracing::field::display),
            listener = shared.key,
            "a client speaks TLS to a plaintext port: set OTEL_EXPORTER_OTLP_ENDPOINT=http://… (and OTEL_EXPORTER_OTLP_INSECURE=true) there, \
             or add `tls: {{ cert_file: …, key_file: … }}` under {block}; said once a peer"
        );
    }
    // A fatal alert (handshake_failure), which every TLS client can read and report.
    farewell(&mut sniffed, &[0x15, 3, 1, 0, 2, 2, 40]).await;
}

async fn plaintext_on_tls(mut sniffed: Sniffed, is_http2: bool, peer: Option<SocketAddr>, shared: &Shared) {
    const WHAT: &str = "this port speaks TLS: use https://";
    if shared.once(peer, "plaintext") {
        tracing::warn!(
            peer = peer.map(tracing::field::display),
            listener = shared.key,
            "a client speaks plaintext to a TLS port: set OTEL_EXPORTER_OTLP_ENDPOINT=https://… (and OTEL_EXPORTER_OTLP_INSECURE=false) there; \
             said once a peer"
        );
    }
    if is_http2 {
        // SETTINGS, as the protocol wants it first, then a GOAWAY (INADEQUATE_SECURITY) with the reason as debug data.
        let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8 + WHAT.len() as u8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12];
        frames.extend_from_slice(WHAT.as_bytes());
        farewell(&mut sniffed, &frames).await;
    } else {
        let len = WHAT.len();
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {len}\r\n\r\n{WHAT}"
        );
        farewell(&mut sniffed, answer.as_bytes()).await;
    }
}

/// Writes the last words and waits a moment for the peer to go, because closing on unread bytes would take the words back.
async fn farewell(sniffed: &mut Sniffed, words: &[u8]) {
    let say = async {
        sniffed.socket.write_all(words).await?;
        sniffed.socket.shutdown().await?;
        tokio::io::copy(&mut tokio::io::AsyncReadExt::take(&mut sniffed.socket, 64 << 10), &mut tokio::io::sink()).await
    };
    // Whether the peer listened is its own affair.
    drop(timeout(Duration::from_secs(1), say).await);
}

/// Drives a connection, and ends it at its age, at its idle time, or at the shutdown, each time letting requests finish.
async fn supervise<C: Future>(
    connection: C,
    graceful: fn(Pin<&mut C>),
    pulse: &Pulse,
    limits: &Limits,
    shutdown: Shutdown,
    idle: Duration,
) {
    let mut connection = pin!(connection);
    let opened = Instant::now();
    let age_end = (!limits.age.is_zero()).then(|| opened + jittered(limits.age));
    let mut drain_end: Option<Instant> = None;
    // Looked at four times an idle period: no clock is read for a request, and the end is late by a quarter at most.
    let idle_step = idle / 4;
    let mut idle_check = (!idle.is_zero()).then(|| opened + idle_step);
    let (mut idle_steps, mut seen) = (0, 0);
    let mut alarm = pin!(sleep_until(opened));
    loop {
        let next = drain_end.or_else(|| [age_end, idle_check].into_iter().flatten().min());
        if let Some(next) = next {
            alarm.as_mut().reset(next);
        }
        let woken = async {
            match next {
                Some(_) => alarm.as_mut().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            // How a connection ended matters to its peer only.
            _ = connection.as_mut() => return,
            () = shutdown.cancelled(), if drain_end.is_none() => {
                graceful(connection.as_mut());
                drain_end = Some(Instant::now() + GRACE);
            }
            () = woken => {
                let now = Instant::now();
                if drain_end.is_some() {
                    return;
                }
                if age_end.is_some_and(|end| now >= end) {
                    graceful(connection.as_mut());
                    // The Collector waits for ever where nothing is written; a stuck stream must not hold a connection that long.
                    drain_end = Some(now + if limits.age_grace.is_zero() { Duration::from_mins(1) } else { limits.age_grace });
                    continue;
                }
                let requests = pulse.requests.load(Ordering::Relaxed);
                idle_steps = if requests == seen && pulse.is_idle() { idle_steps + 1 } else { 0 };
                seen = requests;
                idle_check = Some(now + idle_step);
                if idle_steps >= 4 {
                    graceful(connection.as_mut());
                    drain_end = Some(now + GRACE);
                }
            }
        }
    }
}

/// ± 10 %, so that connections opened together do not all end together.
fn jittered(age: Duration) -> Duration {
    let random = foldhash::fast::RandomState::default().hash_one(0_u8) >> 11;
    age.mul_f64(0.9 + 0.2 * (random as f64 / (1_u64 << 53) as f64))
}

/// A response body; its request counts as being answered until it is sent.
struct Tracked<B> {
    body: B,
    _guard: InFlight,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
