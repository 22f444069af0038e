//! gRPC calls on HTTP/2 connections that are kept open.
//!
//! Spec: gRPC over HTTP/2, "Requests" and "Responses". Unary calls only: that is all OTLP has.

mod link;
mod slots;

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Uri, header::HeaderValue};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{ConnectError, Connector, Keepalive, Message};
use link::Link;
use slots::Slots;

/// Largest answer that is read (OTLP recommends 4 MiB).
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
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
    /// The message without its five bytes; empty where there is none.
    pub body: Bytes,
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
    /// A compressed or cut answer.
    #[error("the answer of {name} cannot be read: {reason}")]
    Answer { name: String, reason: String },
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
        let name = || self.name();
        let _counted = link.begin();
        let untouched = |error: h2::Error| Failed {
            untouched: true,
            connection: true,
            error: CallError::Broken { name: name(), reason: link.why(&error) },
        };
        let mut sender = link.sender().ready().await.map_err(untouched)?;
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = headers.clone();
        let (response, mut stream) = sender.send_request(request, false).map_err(untouched)?;
        let broken = |error: h2::Error| Failed {
            untouched: is_untouched(&error),
            connection: !error.is_reset(),
            error: CallError::Broken { name: name(), reason: link.why(&error) },
        };
        // All of it is handed over: h2 sends as the peer's windows allow, and what it holds is shared, not copied.
        let sent = stream.send_data(message.clone(), true);
        let response = match response.await {
            Ok(response) => response,
            Err(error) => return Err(broken(error)),
        };
        // A peer may answer before it has read everything; that the rest was not sent is then no error of ours.
        drop(sent);
        let (head, mut body) = response.into_parts();
        let mut read = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // The answer was complete before the stream was reset.
                Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => return Err(broken(error)),
            };
            // Refused only when the stream is over, and then there is nothing left to release.
            drop(body.flow_control().release_capacity(chunk.len()));
            if read.len() + chunk.len() > ANSWER_BYTES_MAX + 5 {
                return Err(Failed { untouched: false, connection: false, error: CallError::AnswerTooLarge { name: name() } });
            }
            read.extend_from_slice(&chunk);
        }
        let trailers = match body.trailers().await {
            Ok(trailers) => trailers,
            Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => None,
            Err(error) => return Err(broken(error)),
        };
        let trailers = trailers.unwrap_or_else(|| head.headers.clone());
        let grpc_ok = head.status == 200 && trailers.get("grpc-status").is_some_and(|status| status == "0");
        let body = if grpc_ok { unframed(read.freeze()) } else { Ok(Bytes::new()) };
        let body = body.map_err(|reason| Failed {
            untouched: false,
            connection: false,
            error: CallError::Answer { name: name(), reason: reason.to_owned() },
        })?;
        Ok(Answer { http_status: head.status.as_u16(), headers: head.headers, trailers, body })
    }
}

struct Failed {
    /// The peer has not looked at the request: sending it again cannot duplicate it.
    untouched: bool,
    /// The connection is of no more use.
    connection: bool,
    error: CallError,
}

fn is_untouched(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset() && error.is_remote(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        _ => false,
    }
}

/// Takes the five bytes off an answer's message.
fn unframed(mut body: Bytes) -> Result<Bytes, &'static str> {
    if body.is_empty() {
        return Ok(body);
    }
    if body.len() < 5 {
        return Err("it ends within its length");
    }
    let compressed = body.get_u8();
    let len = body.get_u32() as usize;
    if compressed != 0 {
        return Err("it is compressed, which was not asked for");
    }
    if body.len() < len {
        return Err("it ends early");
    }
    Ok(body.split_to(len))
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
