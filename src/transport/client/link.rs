//! One HTTP/2 connection: its handshake, its driver, its pings, and requests on it. gRPC and HTTP both stand on it.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use h2::{
    Ping,
    client::{Connection, SendRequest},
};
use http::{HeaderMap, Request, response};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    ConnectError, Keepalive, Message,
    connect::{Io, Opened},
};

/// Answers are small: what a peer may send unasked stays small too.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Largest headers or trailers that are taken, and the largest header table.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;

/// An open connection that calls share.
pub(super) struct Link {
    sender: SendRequest<Message>,
    pulse: Arc<Pulse>,
    /// Ends the driver, and with it the connection, when the last user of this link is gone.
    _stop: DropGuard,
}

/// What the driver and the calls tell each other.
#[derive(Default)]
struct Pulse {
    streams: AtomicUsize,
    begun: Notify,
    closed: AtomicBool,
    /// Why the driver gave up, where h2 could not know.
    reason: Mutex<Option<(bool, String)>>,
}

/// An answer.
pub(super) struct Exchange {
    pub(super) head: response::Parts,
    pub(super) body: BytesMut,
    /// The body was longer than was read; then the trailers are unknown.
    pub(super) cut: bool,
    pub(super) trailers: Option<HeaderMap>,
}

/// An answer whose body was handed over.
pub(super) struct Told {
    pub(super) head: response::Parts,
    /// The body was not wanted to its end.
    pub(super) cut: bool,
    pub(super) trailers: Option<HeaderMap>,
}

/// Takes a body's bytes, with the answer's status, and says whether it wants more of them.
pub type Take<'a> = dyn FnMut(u16, &[u8]) -> bool + Send + 'a;

/// Keeps what fits; whether all of it did.
pub(super) fn capped(body: &mut BytesMut, chunk: &[u8], bytes_max: usize) -> bool {
    let room = bytes_max.saturating_sub(body.len());
    body.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
    chunk.len() <= room
}

/// No answer.
pub(super) struct Broken {
    /// The peer has not looked at the request: sending it again cannot duplicate it.
    pub(super) untouched: bool,
    /// The connection is of no more use.
    pub(super) connection: bool,
    /// What came back is not HTTP/2.
    pub(super) foreign: bool,
    pub(super) reason: String,
}

/// Counts one call for as long as it lives.
struct Counted<'a>(&'a Pulse);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Spawns beside what runs already. Finished tasks are collected here, so that the set stays as small as what runs.
pub(super) fn spawn(tasks: &Mutex<JoinSet<()>>, task: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = tasks.lock();
    while tasks.try_join_next().is_some() {}
    tasks.spawn(task);
}

impl Link {
    /// Speaks HTTP/2 on a fresh connection and spawns its driver.
    pub(super) async fn establish(
        opened: Opened,
        name: &str,
        keepalive: Option<Keepalive>,
        tasks: &Mutex<JoinSet<()>>,
    ) -> Result<Self, ConnectError> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .enable_push(false)
            .handshake::<_, Message>(opened.io)
            .await
            .map_err(|error| ConnectError::Network { name: name.to_owned(), reason: error.to_string() })?;
        let pulse = Arc::new(Pulse::default());
        let stop = CancellationToken::new();
        let driver = drive(connection, keepalive, pulse.clone(), stop.clone());
        spawn(tasks, driver);
        Ok(Self { sender, pulse, _stop: stop.drop_guard() })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.pulse.closed.load(Ordering::Acquire)
    }

    /// Sends a request and reads its answer, at most `answer_bytes_max` of the body.
    pub(super) async fn exchange(
        &self,
        request: Request<()>,
        message: Message,
        answer_bytes_max: usize,
    ) -> Result<Exchange, Broken> {
        let mut body = BytesMut::new();
        let mut take = |_: u16, chunk: &[u8]| capped(&mut body, chunk, answer_bytes_max);
        let told = self.exchange_with(request, message, &mut take).await?;
        Ok(Exchange { head: told.head, body, cut: told.cut, trailers: told.trailers })
    }

    /// Sends a request and hands over its answer's body as it comes, for as long as it is wanted.
    pub(super) async fn exchange_with(
        &self,
        request: Request<()>,
        message: Message,
        take: &mut Take<'_>,
    ) -> Result<Told, Broken> {
        let _counted = self.begin();
        let untouched = |error: h2::Error| {
            let (foreign, reason) = self.why(&error);
            Broken { untouched: !foreign, connection: true, foreign, reason }
        };
        let broken = |error: h2::Error| {
            let (foreign, reason) = self.why(&error);
            Broken { untouched: is_untouched(&error), connection: !error.is_reset(), foreign, reason }
        };
        let mut sender = self.sender.clone().ready().await.map_err(untouched)?;
        let (response, mut stream) = sender.send_request(request, false).map_err(untouched)?;
        // All of it is handed over: h2 sends as the peer's windows allow, and what it holds is shared, not copied. An error here comes back as
        // the answer's; and a peer may answer before it has read everything.
        drop(stream.send_data(message, true));
        let (head, mut incoming) = response.await.map_err(broken)?.into_parts();
        while let Some(chunk) = incoming.data().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // The answer was complete before the peer stopped reading.
                Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => return Err(broken(error)),
            };
            // Refused only when the stream is over, and then there is nothing left to release.
            drop(incoming.flow_control().release_capacity(chunk.len()));
            if !take(head.status.as_u16(), &chunk) {
                return Ok(Told { head, cut: true, trailers: None });
            }
        }
        let trailers = match incoming.trailers().await {
            Ok(trailers) => trailers,
            Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => None,
            Err(error) => return Err(broken(error)),
        };
        Ok(Told { head, cut: false, trailers })
    }

    fn begin(&self) -> Counted<'_> {
        self.pulse.streams.fetch_add(1, Ordering::Relaxed);
        self.pulse.begun.notify_one();
        Counted(&self.pulse)
    }

    /// What broke: whether the peer speaks something else, and the words.
    fn why(&self, error: &h2::Error) -> (bool, String) {
        let known = self.pulse.reason.lock().clone();
        known.unwrap_or_else(|| reason_of(error))
    }
}

fn is_untouched(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset() && error.is_remote(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        _ => false,
    }
}

async fn drive(
    mut connection: Connection<Io, Message>,
    keepalive: Option<Keepalive>,
    pulse: Arc<Pulse>,
    stop: CancellationToken,
) {
    let pings = connection.ping_pong();
    let beat = async {
        let (Some(mut pings), Some(keepalive)) = (pings, keepalive) else { return std::future::pending().await };
        loop {
            sleep(keepalive.time.0).await;
            // Idle connections are not pinged, because servers may call that abuse; the first call after it is accompanied by a ping.
            while !keepalive.permit_without_stream && pulse.streams.load(Ordering::Relaxed) == 0 {
                pulse.begun.notified().await;
            }
            match timeout(keepalive.timeout.0, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no answer to a ping for {} s", keepalive.timeout.0.as_secs_f64()),
            }
        }
    };
    let ended = tokio::select! {
        ended = &mut connection => ended.err().map(|error| reason_of(&error)),
        reason = pin!(beat) => Some((false, reason)),
        () = stop.cancelled() => Some((false, "weir dropped the connection".to_owned())),
    };
    *pulse.reason.lock() = ended;
    pulse.closed.store(true, Ordering::Release);
    // Dropping it wakes the calls in flight with an error.
    drop(connection);
}

fn reason_of(error: &h2::Error) -> (bool, String) {
    if error.get_io().is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
        return (false, "closed by the peer".to_owned());
    }
    // The words of another protocol, read as a frame's head, give a length that is far over the limit.
    let foreign = error.reason() == Some(h2::Reason::FRAME_SIZE_ERROR) && error.is_library();
    (foreign, error.to_string())
}
