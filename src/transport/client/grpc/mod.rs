//! gRPC calls on HTTP/2 connections that are kept open.
//!
//! Spec: gRPC over HTTP/2, "Requests" and "Responses". Unary calls only: that is all OTLP has.

mod slots;

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Uri, header::HeaderValue};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{Algorithm, ConnectError, Connector, Keepalive, Message, link::Link, message::decompressed};
use slots::Slots;

/// Largest answer that is read. OTLP recommends 4 MiB; so much of each call in flight is more than a backend may make anyone hold, and what
/// it has to say fits into what is read over HTTP, too.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Attempts on fresh connections when the peer says that it did not look at the request.
const SENDS_MAX: usize = 3;
/// How soon a call that waits for a connection tries again.
const READY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a call came to, as it stood on the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    pub http_status: u16,
    pub headers: HeaderMap,
    /// Where `grpc-status` is; the headers for an answer without a body.
    pub trailers: HeaderMap,
    /// The message, decompressed; empty where there is none, `None` where it cannot be read.
    pub body: Option<Bytes>,
}

/// A call got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stream or the connection broke; the request may have arrived.
    #[error("the connection to {name} broke: {reason}")]
    Broken { name: String, reason: String },
    /// More than [`ANSWER_BYTES_MAX`] came back.
    #[error("the answer of {name} is larger than {ANSWER_BYTES_MAX} bytes")]
    AnswerTooLarge { name: String },
    /// What answers speaks another protocol.
    #[error("{name} does not speak HTTP/2: {reason}; an OTLP/HTTP port (4318) needs the `otlp_http` exporter")]
    Foreign { name: String, reason: String },
}

/// Calls to one endpoint.
pub struct Channel {
    shared: Arc<Shared>,
    /// Connections and lookups; all end with the channel.
    tasks: Arc<Mutex<JoinSet<()>>>,
    wait_for_ready: bool,
}

struct Shared {
    connector: Connector,
    keepalive: Option<Keepalive>,
    slots: Mutex<Slots>,
}

impl Channel {
    /// Opens nothing yet. `keepalive`: `None` sends no pings.
    pub fn new(connector: Connector, keepalive: Option<Keepalive>, wait_for_ready: bool) -> Self {
        let slots = Mutex::new(Slots::new(connector.endpoint.spread));
        let shared = Arc::new(Shared { connector, keepalive, slots });
        Self { shared, tasks: Arc::new(Mutex::new(JoinSet::new())), wait_for_ready }
    }

    pub fn is_tls(&self) -> bool {
        self.shared.connector.is_tls()
    }

    /// The endpoint's name, as messages show it.
    pub fn name(&self) -> String {
        self.shared.connector.endpoint.authority()
    }

    /// One unary call. Dropping the future resets the stream.
    pub async fn call(&self, uri: &Uri, headers: &HeaderMap, message: Message) -> Result<Answer, CallError> {
        let mut sends = 0;
        loop {
            sends += 1;
            let link = self.link().await?;
            match self.call_on(&link, uri, headers, &message).await {
                Ok(answer) => return Ok(answer),
                // The peer did not look at it (it is going away, or its connection was found closed): a fresh connection, at once.
                Err(Failed { untouched: true, .. }) if sends < SENDS_MAX => self.shared.slots.lock().forget(&link),
                Err(failed) => {
                    if failed.connection {
                        self.shared.slots.lock().forget(&link);
                    }
                    return Err(failed.error);
                }
            }
        }
    }

    /// Drops all connections; the next call opens new ones.
    pub fn reconnect(&self) {
        self.shared.slots.lock().drop_all();
    }

    async fn link(&self) -> Result<Arc<Link>, ConnectError> {
        loop {
            match slots::link(&self.shared, &self.tasks).await {
                Err(ConnectError::Network { .. } | ConnectError::Lookup { .. }) if self.wait_for_ready => {
                    tokio::time::sleep(READY_AGAIN_AFTER).await;
                }
                done => return done,
            }
        }
    }

    async fn call_on(&self, link: &Link, uri: &Uri, headers: &HeaderMap, message: &Message) -> Result<Answer, Failed> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = headers.clone();
        let answered = link.exchange(request, message.clone(), ANSWER_BYTES_MAX + 5).await.map_err(|broken| Failed {
            untouched: broken.untouched,
            connection: broken.connection,
            error: if broken.foreign {
                CallError::Foreign { name: self.name(), reason: broken.reason }
            } else {
                CallError::Broken { name: self.name(), reason: broken.reason }
            },
        })?;
        let failed = |error| Failed { untouched: false, connection: false, error };
        if answered.cut {
            return Err(failed(CallError::AnswerTooLarge { name: self.name() }));
        }
        // An answer of nothing but headers has its status there.
        let trailers = answered.trailers.unwrap_or_else(|| answered.head.headers.clone());
        let encoding = answered.head.headers.get("grpc-encoding").and_then(|name| name.to_str().ok()).unwrap_or_default();
        let body = unframed(answered.body.freeze(), encoding);
        Ok(Answer { http_status: answered.head.status.as_u16(), headers: answered.head.headers, trailers, body })
    }
}

struct Failed {
    untouched: bool,
    connection: bool,
    error: CallError,
}

/// Takes the five bytes off an answer's message and decompresses it: grpc-go compresses answers as the request was, whatever was asked for.
fn unframed(mut body: Bytes, encoding: &str) -> Option<Bytes> {
    if body.is_empty() {
        return Some(body);
    }
    if body.len() < 5 {
        return None;
    }
    let compressed = body.get_u8();
    let len = body.get_u32() as usize;
    if body.len() < len {
        return None;
    }
    let message = body.split_to(len);
    if compressed == 0 { Some(message) } else { decompressed(Algorithm::grpc(encoding)?, &message, ANSWER_BYTES_MAX) }
}

/// `grpc-timeout` of an attempt: at most eight digits and a unit.
pub fn timeout_value(timeout: Duration) -> Option<HeaderValue> {
    let millis = timeout.as_millis();
    if millis == 0 {
        return None;
    }
    let text = if millis < 100_000_000 { format!("{millis}m") } else { format!("{}S", timeout.as_secs().min(99_999_999)) };
    HeaderValue::try_from(text).ok()
}
