//! HTTP requests over a small pool of connections: HTTP/1.1, and HTTP/2 where TLS agrees on it.
//!
//! Redirects are not followed: an answer must not choose where telemetry goes.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

pub use super::link::Take;
use ::http::{
    HeaderMap, Method, Request, Uri,
    header::{self, HeaderValue},
};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use super::{
    ConnectError, Connector, Keepalive, Message,
    connect::Opened,
    grpc::CallError,
    link::{Link, capped, spawn},
};

/// Most of an answer that is read.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Largest head of an HTTP/1.1 answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Attempts on fresh connections when a kept one turns out to be closed.
const SENDS_MAX: usize = 3;

/// An answer; `cut` when the body was longer than what was read.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub cut: bool,
}

/// An answer whose body was handed over; `whole` when all of it came and was wanted.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    pub headers: HeaderMap,
    pub whole: bool,
}

/// How connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    pub idle_max: usize,
    pub idle_timeout: Duration,
    pub keepalive: Option<Keepalive>,
}

/// Requests to one host.
pub struct Client {
    connector: Connector,
    keeping: Keeping,
    pool: Mutex<Pool>,
    /// One caller at a time opens a connection that may turn out to be HTTP/2, which the others then share.
    opening: tokio::sync::Mutex<()>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<(First, Instant)>,
    shared: Option<Arc<Link>>,
}

/// An HTTP/1.1 connection.
struct First {
    sender: http1::SendRequest<Whole>,
    /// What ended it.
    why: Arc<Mutex<Option<String>>>,
}

enum Connection {
    One(First),
    Two(Arc<Link>),
}

impl Client {
    pub fn new(connector: Connector, keeping: Keeping) -> Self {
        Self {
            connector,
            keeping,
            pool: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            tasks: Mutex::new(JoinSet::new()),
        }
    }

    pub fn name(&self) -> String {
        self.connector.endpoint.authority()
    }

    pub fn is_tls(&self) -> bool {
        self.connector.is_tls()
    }

    /// Drops all connections.
    pub fn reconnect(&self) {
        *self.pool.lock() = Pool::default();
    }

    /// A POST. `uri` is absolute; `headers` hold everything but `Content-Length`. Dropping the future closes or resets.
    pub async fn post(&self, uri: &Uri, headers: &HeaderMap, message: Message) -> Result<Answer, CallError> {
        self.call(&Method::POST, uri, headers, message, ANSWER_BYTES_MAX).await
    }

    /// The same with any method, and at most so much of the answer.
    pub async fn call(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        message: Message,
        answer_bytes_max: usize,
    ) -> Result<Answer, CallError> {
        let (mut body, mut is_whole) = (BytesMut::new(), true);
        let mut take = |_: u16, chunk: &[u8]| {
            is_whole = capped(&mut body, chunk, answer_bytes_max);
            is_whole
        };
        let head = self.exchange(method, uri, headers, message, &mut take).await?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.freeze(), cut: !is_whole })
    }

    /// The same, with the answer's body handed over as it comes, for as long as it is wanted.
    pub async fn exchange(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        message: Message,
        take: &mut Take<'_>,
    ) -> Result<Head, CallError> {
        let mut sends = 0;
        loop {
            sends += 1;
            let (again, reason) = match self.connection().await? {
                Connection::One(first) => match self.on_one(first, (method, uri), headers, &message, take).await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => failed,
                },
                Connection::Two(link) => match on_two(&link, (method, uri), headers, &message, take).await {
                    Ok(answer) => return Ok(answer),
                    Err(broken) => {
                        if broken.untouched || broken.connection {
                            self.pool.lock().shared = None;
                        }
                        (broken.untouched, broken.reason)
                    }
                },
            };
            if !again || sends >= SENDS_MAX {
                return Err(CallError::Broken { name: self.name(), reason });
            }
        }
    }

    fn kept(&self) -> Option<Connection> {
        let mut pool = self.pool.lock();
        if let Some(link) = pool.shared.take_if(|link| !link.is_open()) {
            drop(link);
        }
        if let Some(link) = &pool.shared {
            return Some(Connection::Two(link.clone()));
        }
        let timeout = self.keeping.idle_timeout;
        pool.idle.retain(|(first, since)| !first.sender.is_closed() && (timeout.is_zero() || since.elapsed() < timeout));
        // The one used last: the others get old and go.
        let ready = pool.idle.iter().rposition(|(first, _)| first.sender.is_ready())?;
        Some(Connection::One(pool.idle.swap_remove(ready).0))
    }

    async fn connection(&self) -> Result<Connection, ConnectError> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let alone = if self.connector.is_tls() { Some(self.opening.lock().await) } else { None };
        if alone.is_some()
            && let Some(kept) = self.kept()
        {
            return Ok(kept);
        }
        let addresses = self.connector.addresses().await?;
        let opened = self.connector.open(&addresses).await?;
        if opened.h2 {
            let link = Link::establish(opened, &self.name(), self.keeping.keepalive, &self.tasks).await?;
            let link = Arc::new(link);
            self.pool.lock().shared = Some(link.clone());
            return Ok(Connection::Two(link));
        }
        drop(alone);
        self.first_version(opened).await.map(Connection::One)
    }

    async fn first_version(&self, opened: Opened) -> Result<First, ConnectError> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(opened.io))
            .await
            .map_err(|error| ConnectError::Network { name: self.name(), reason: error.to_string() })?;
        let why = Arc::new(Mutex::new(None));
        let told = why.clone();
        spawn(&self.tasks, async move {
            *told.lock() = connection.await.err().map(|error| because(&error));
        });
        Ok(First { sender, why })
    }

    /// Fails with whether it can be sent again without a duplicate, and why.
    async fn on_one(
        &self,
        mut first: First,
        (method, uri): (&Method, &Uri),
        headers: &HeaderMap,
        message: &Message,
        take: &mut Take<'_>,
    ) -> Result<Head, (bool, String)> {
        let mut request = Request::new(Whole(Some(message.clone())));
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers.clone();
        if let Some(proxy) = self.connector.forwarding_proxy() {
            *request.uri_mut() = uri.clone();
            if let Some(value) = proxy.authorization.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
            }
        } else {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = Uri::try_from(path).map_err(|error| (false, error.to_string()))?;
        }
        if !headers.contains_key(header::HOST)
            && let Some(host) = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let ready = first.sender.ready().await;
        ready.map_err(|error| (true, first.why.lock().clone().unwrap_or_else(|| error.to_string())))?;
        let response = first.sender.try_send_request(request).await.map_err(|mut failed| {
            let unsent = failed.take_message().is_some();
            (unsent, because(failed.error()))
        })?;
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        let whole = read(status, body, take).await;
        // A connection with bytes left in it is of no use to the next request.
        if whole && self.keeping.idle_max > 0 && !first.sender.is_closed() {
            let mut pool = self.pool.lock();
            if pool.idle.len() >= self.keeping.idle_max {
                pool.idle.remove(0);
            }
            pool.idle.push((first, Instant::now()));
        }
        Ok(Head { status, headers: head.headers, whole })
    }
}

async fn on_two(
    link: &Link,
    (method, uri): (&Method, &Uri),
    headers: &HeaderMap,
    message: &Message,
    take: &mut Take<'_>,
) -> Result<Head, super::link::Broken> {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    *request.version_mut() = ::http::Version::HTTP_2;
    *request.headers_mut() = headers.clone();
    // What `Host` says in HTTP/1.1 is `:authority` here.
    if let Some(host) = request.headers_mut().remove(header::HOST)
        && let Some(uri) = with_authority(uri, &host)
    {
        *request.uri_mut() = uri;
    }
    request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(message.len()));
    let told = link.exchange_with(request, message.clone(), take).await?;
    Ok(Head { status: told.head.status.as_u16(), headers: told.head.headers, whole: !told.cut })
}

fn with_authority(uri: &Uri, host: &HeaderValue) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(host.to_str().ok()?.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Hands an answer's body over; whether all of it came and was wanted.
async fn read(status: u16, mut body: hyper::body::Incoming, take: &mut Take<'_>) -> bool {
    while let Some(frame) = body.frame().await {
        // A body that breaks off does not change what the status said.
        let Ok(frame) = frame else { return false };
        let Ok(data) = frame.into_data() else { continue };
        if !take(status, &data) {
            return false;
        }
    }
    true
}

/// hyper's errors with what is behind them.
fn because(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    let mut foreign = error.is_parse();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        foreign |= inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        cause = inner.source();
    }
    // A server that speaks first (HTTP/2 does) is told from others by hyper's words only.
    if foreign || text.contains("unexpected message") {
        text.push_str("; does it speak HTTP/1.1? a gRPC port (4317) needs the `otlp_grpc` exporter");
    }
    text
}

/// A message as one frame, so that its parts are written with one `writev`.
struct Whole(Option<Message>);

impl Body for Whole {
    type Data = Message;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Message>, Infallible>>> {
        Poll::Ready(self.get_mut().0.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Message::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |message| message.len() as u64))
    }
}
