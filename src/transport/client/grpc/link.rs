//! One HTTP/2 connection: its handshake, its driver, its pings.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use h2::{
    Ping,
    client::{Connection, SendRequest},
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::transport::client::{
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
    reason: Mutex<Option<String>>,
}

/// Counts one call for as long as it lives.
pub(super) struct Counted<'a>(&'a Pulse);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// Speaks HTTP/2 on a fresh connection and spawns its driver.
    pub(super) async fn establish(
        opened: Opened,
        tls: bool,
        name: &str,
        keepalive: Option<Keepalive>,
        tasks: &Mutex<JoinSet<()>>,
    ) -> Result<Self, ConnectError> {
        if tls && !opened.h2 {
            return Err(ConnectError::Protocol {
                reason: format!(
                    "{name} does not offer HTTP/2 over TLS, which gRPC needs; for OTLP/HTTP use the `otlp_http` exporter"
                ),
            });
        }
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
        let mut tasks = tasks.lock();
        // Finished drivers are collected here, so that the set stays as small as what runs.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(driver);
        Ok(Self { sender, pulse, _stop: stop.drop_guard() })
    }

    pub(super) fn sender(&self) -> SendRequest<Message> {
        self.sender.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.pulse.closed.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) -> Counted<'_> {
        self.pulse.streams.fetch_add(1, Ordering::Relaxed);
        self.pulse.begun.notify_one();
        Counted(&self.pulse)
    }

    /// What broke, in words.
    pub(super) fn why(&self, error: &h2::Error) -> String {
        let known = self.pulse.reason.lock().clone();
        known.unwrap_or_else(|| {
            if error.reason() == Some(h2::Reason::FRAME_SIZE_ERROR) && error.is_library() {
                format!("{error}; does it speak HTTP/2? an OTLP/HTTP port (4318) needs the `otlp_http` exporter")
            } else {
                error.to_string()
            }
        })
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
        reason = pin!(beat) => Some(reason),
        () = stop.cancelled() => Some("weir dropped the connection".to_owned()),
    };
    *pulse.reason.lock() = ended;
    pulse.closed.store(true, Ordering::Release);
    // Dropping it wakes the calls in flight with an error.
    drop(connection);
}

fn reason_of(error: &h2::Error) -> String {
    match error.get_io() {
        Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => "closed by the peer".to_owned(),
        _ if error.is_library() && error.is_go_away() => {
            format!("{error}; does it speak HTTP/2? an OTLP/HTTP port (4318) needs the `otlp_http` exporter")
        }
        _ => error.to_string(),
    }
}
