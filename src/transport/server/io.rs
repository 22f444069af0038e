//! One accepted connection's bytes: what was looked at first, then the socket, with or without TLS.
//!
//! Full: a peer that stops reading is cut off after `write_timeout`.

use std::{
    future::Future,
    io::{Error, ErrorKind, IoSlice, Result},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;

/// A socket of either family.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! on_socket {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        on_socket!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        on_socket!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        on_socket!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        on_socket!(self, inner => Pin::new(inner).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        on_socket!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

/// A socket whose first bytes were read already and are handed out again.
pub(super) struct Sniffed {
    pub(super) socket: Socket,
    pub(super) head: [u8; 24],
    pub(super) head_start: u8,
    pub(super) head_end: u8,
}

impl Sniffed {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, head: [0; 24], head_start: 0, head_end: 0 }
    }

    /// The bytes that were looked at and not handed out yet.
    pub(super) fn head(&self) -> &[u8] {
        self.head.get(usize::from(self.head_start)..usize::from(self.head_end)).unwrap_or_default()
    }

    /// Looks at one more piece of what comes. Cancel safe. Returns the number of bytes it added; 0 at the end of the stream.
    pub(super) async fn look(&mut self) -> Result<usize> {
        let end = usize::from(self.head_end);
        let room = self.head.get_mut(end..).unwrap_or_default();
        let read = tokio::io::AsyncReadExt::read(&mut self.socket, room).await?;
        self.head_end = u8::try_from(end + read).unwrap_or(24);
        Ok(read)
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.head_start < self.head_end {
            let take = self.head().len().min(buf.remaining());
            buf.put_slice(self.head().get(..take).unwrap_or_default());
            self.head_start += take as u8;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

pub(super) enum Stream {
    Plain(Sniffed),
    Tls(Box<TlsStream<Sniffed>>),
}

/// What is going on in a connection, shared by its socket, its requests and whoever watches it.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Requests that are being answered.
    pub(super) in_flight: AtomicU32,
    /// Requests begun so far.
    pub(super) requests: AtomicU64,
    /// HTTP/1 only: whether bytes came since the last answer, so that a request line or header is under way.
    head_begun: AtomicBool,
    /// HTTP/1 only: the connection, to be woken when an answer is sent, because from then on it waits for the next request.
    reader: AtomicWaker,
}

impl Pulse {
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }
}

/// Counts a request as being answered until it is dropped.
pub(super) struct InFlight(Arc<Pulse>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.head_begun.store(false, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.reader.wake();
    }
}

/// The longest an HTTP/1 peer may be silent, by what it is silent in.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadLimits {
    /// From the first byte of a request to the end of its header.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
}

/// What hyper reads from and writes to, by way of `TokioIo`.
pub(super) struct Io {
    stream: Stream,
    pulse: Arc<Pulse>,
    reads: Option<ReadLimits>,
    write_timeout: Duration,
    read_alarm: Alarm,
    write_alarm: Alarm,
    /// HTTP/2 only; see [`Gathering`].
    gathering: Option<Gathering>,
}

/// Whether what is written now was let wait for one turn of the scheduler.
///
/// Answers that are ready in the same turn leave in one write: a write is a third of the cost of a small request, and without this each answer
/// wakes its connection, which writes it at once. The turn costs a poll; where nothing else is being answered, it is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gathering {
    No,
    Done,
}

/// A timer that is made when it is first needed: most connections never wait.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What it is set for; re-armed when that changes.
    set_for: Option<Waiting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Head(u64),
    Idle(u64),
    Write,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, waiting: Waiting, after: Duration) -> Poll<()> {
        if after.is_zero() {
            return Poll::Pending;
        }
        if self.set_for != Some(waiting) {
            let deadline = Instant::now() + after;
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(deadline),
                None => self.sleep = Some(Box::pin(sleep_until(deadline))),
            }
            self.set_for = Some(waiting);
        }
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }

    fn off(&mut self) {
        self.set_for = None;
    }
}

impl Io {
    pub(super) fn new(stream: Stream, pulse: Arc<Pulse>, reads: Option<ReadLimits>, write_timeout: Duration) -> Self {
        // Whatever was looked at to tell the protocols apart belongs to the first header.
        pulse.head_begun.store(true, Ordering::Relaxed);
        let gathering = reads.is_none().then_some(Gathering::No);
        Self { stream, pulse, reads, write_timeout, read_alarm: Alarm::default(), write_alarm: Alarm::default(), gathering }
    }

    /// Pending once before the first write after a flush, while other requests are being answered.
    fn poll_gathered(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.gathering == Some(Gathering::No) && !self.pulse.is_idle() {
            self.gathering = Some(Gathering::Done);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn written(&mut self) {
        self.write_alarm.off();
        if let Some(gathering) = &mut self.gathering {
            *gathering = Gathering::No;
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.write_alarm
            .poll(cx, Waiting::Write, self.write_timeout)
            .map(|()| Error::new(ErrorKind::TimedOut, "the peer stopped reading"))
    }
}

macro_rules! on_stream {
    ($self:expr, $inner:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Plain($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let me = &mut *self;
        let polled = on_stream!(me, inner => Pin::new(inner).poll_read(cx, buf));
        let Some(limits) = me.reads else { return polled };
        if polled.is_ready() {
            if me.pulse.is_idle() {
                me.pulse.head_begun.store(true, Ordering::Relaxed);
            }
            return polled;
        }
        me.pulse.reader.register(cx.waker());
        if !me.pulse.is_idle() {
            return Poll::Pending;
        }
        // The number of the request is part of what is waited for: bytes that drip in do not extend the wait, the next request does.
        let number = me.pulse.requests.load(Ordering::Relaxed);
        if me.pulse.head_begun.load(Ordering::Relaxed) {
            ready!(me.read_alarm.poll(cx, Waiting::Head(number), limits.head));
            Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the request header did not come in time")))
        } else {
            ready!(me.read_alarm.poll(cx, Waiting::Idle(number), limits.idle));
            // To hyper an idle connection ended by its peer: it closes without a complaint.
            Poll::Ready(Ok(()))
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let me = &mut *self;
        ready!(me.poll_gathered(cx));
        match on_stream!(me, inner => Pin::new(inner).poll_write(cx, buf)) {
            Poll::Ready(done) => {
                me.write_alarm.off();
                Poll::Ready(done)
            }
            Poll::Pending => me.poll_stalled(cx).map(Err),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let me = &mut *self;
        ready!(me.poll_gathered(cx));
        match on_stream!(me, inner => Pin::new(inner).poll_write_vectored(cx, bufs)) {
            Poll::Ready(done) => {
                me.write_alarm.off();
                Poll::Ready(done)
            }
            Poll::Pending => me.poll_stalled(cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(inner) => inner.is_write_vectored(),
            Stream::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let me = &mut *self;
        match on_stream!(me, inner => Pin::new(inner).poll_flush(cx)) {
            Poll::Ready(done) => {
                me.written();
                Poll::Ready(done)
            }
            Poll::Pending => me.poll_stalled(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let me = &mut *self;
        match on_stream!(me, inner => Pin::new(inner).poll_shutdown(cx)) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => me.poll_stalled(cx).map(Err),
        }
    }
}
