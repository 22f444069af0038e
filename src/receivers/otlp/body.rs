//! Request bodies: read as they come, within the limit, the byte budget and the least speed.
//!
//! Full: room is asked for before bytes are kept, in steps for large bodies, so that a length that is only announced takes no room.
//! A body slower than 1 KiB/s for 5 s is given up.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    door::status::retry_hint,
    door::{Budget, Refusal, Ticket},
    transport::server::grpc,
};

const PERIOD: Duration = Duration::from_secs(5);
/// In one period.
const LEAST_BYTES: usize = 5 * 1024;
/// Room is taken at once for what is announced, up to this; beyond it as bytes come.
const STEP_BYTES: usize = 1 << 20;

/// Reads a body piece by piece.
pub(super) struct Pieces<'a> {
    body: &'a mut Incoming,
    /// The whole body has to be there by then; zero: no limit.
    timeout: Duration,
    /// Made when the first piece is not there yet; most bodies are.
    wait: Option<Wait>,
    bytes: usize,
}

struct Wait {
    alarm: Pin<Box<Sleep>>,
    end: Option<Instant>,
    bytes_before: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(body: &'a mut Incoming, timeout: Duration) -> Self {
        Self { body, timeout, wait: None, bytes: 0 }
    }

    /// Whether the last piece was handed out.
    fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Refusal>> {
        loop {
            match Pin::new(&mut *self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.bytes = self.bytes.saturating_add(data.len());
                        return Poll::Ready(Ok(Some(data)));
                    }
                    // Trailers of a request say nothing here.
                    Err(_) => {}
                },
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(Refusal::Malformed { message: format!("the body ended too early: {error}") }));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => return self.poll_slow(cx).map(Err),
            }
        }
    }

    #[cold]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let (timeout, bytes) = (self.timeout, self.bytes);
        let wait = self.wait.get_or_insert_with(|| {
            let now = Instant::now();
            let end = (!timeout.is_zero()).then(|| now + timeout);
            let first = end.map_or(now + PERIOD, |end| end.min(now + PERIOD));
            Wait { alarm: Box::pin(sleep_until(first)), end, bytes_before: bytes }
        });
        while wait.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let late = wait.end.is_some_and(|end| now >= end);
            if late || bytes - wait.bytes_before < LEAST_BYTES {
                let message = if late { "the body took longer than `read_timeout`" } else { "the body came slower than 1 KiB/s" };
                return Poll::Ready(Refusal::TooSlow { message: message.to_owned(), retry_after: retry_hint() });
            }
            wait.bytes_before = bytes;
            let next = wait.end.map_or(now + PERIOD, |end| end.min(now + PERIOD));
            wait.alarm.as_mut().reset(next);
        }
        Poll::Pending
    }
}

/// A body, and the room it takes.
pub(super) struct Held {
    pub(super) payload: Bytes,
    pub(super) ticket: Ticket,
}

/// Several pieces on their way to be one.
struct Gathering {
    bytes: Vec<u8>,
    ticket: Ticket,
}

impl Gathering {
    /// `announced`: how much is said to come.
    async fn start(ticket: Ticket, announced: usize) -> Self {
        Self { bytes: Vec::with_capacity(announced.min(STEP_BYTES)), ticket }
    }

    async fn push(&mut self, piece: &[u8], announced: usize) -> Result<(), Refusal> {
        let len = self.bytes.len() + piece.len();
        if len > self.bytes.capacity() {
            let wanted = len.max(self.bytes.capacity().saturating_mul(2)).min(announced.max(len));
            // Growing copies: for a moment both are there, the ticket counts the one that stays.
            self.ticket.grow(wanted).await?;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        } else {
            self.ticket.grow(len).await?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn done(self) -> Held {
        Held { payload: self.bytes.into(), ticket: self.ticket }
    }
}

fn too_large(len: usize, limit: usize) -> Refusal {
    Refusal::TooLarge { message: format!("the request has {len} bytes, more than the limit of {limit}") }
}

/// Reads the whole of an HTTP body. Where it comes in one piece, that piece is it.
pub(super) async fn whole(mut pieces: Pieces<'_>, budget: &Arc<Budget>, limit: usize) -> Result<Held, Refusal> {
    let announced = pieces.body.size_hint().exact().map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    if let Some(len) = announced
        && len > limit
    {
        return Err(too_large(len, limit));
    }
    let mut ticket = budget.take(announced.unwrap_or(0).min(STEP_BYTES)).await?;
    let Some(first) = pieces.next().await? else { return Ok(Held { payload: Bytes::new(), ticket }) };
    if first.len() > limit {
        return Err(too_large(first.len(), limit));
    }
    if pieces.is_end() {
        ticket.grow(first.len()).await?;
        return Ok(Held { payload: first, ticket });
    }
    let expected = announced.unwrap_or(limit);
    let mut all = Gathering::start(ticket, announced.unwrap_or(first.len())).await;
    let mut next = Some(first);
    while let Some(piece) = next {
        let len = all.bytes.len().saturating_add(piece.len());
        if len > limit {
            return Err(too_large(len, limit));
        }
        all.push(&piece, expected).await?;
        next = pieces.next().await?;
    }
    Ok(all.done())
}

/// Reads the one message of a unary call: whether it is compressed, and its bytes. Where it comes in one DATA frame, it is a slice of that.
pub(super) async fn message(mut pieces: Pieces<'_>, budget: &Arc<Budget>, limit: usize) -> Result<(bool, Held), Refusal> {
    let malformed = |what: &str| Refusal::Malformed { message: what.to_owned() };
    let mut first = pieces.next().await?.ok_or_else(|| malformed("there is no message in the call"))?;
    // Almost always the whole message is in one piece; a prefix of its own, or a torn one, is possible.
    while first.len() < grpc::PREFIX_BYTES {
        let more = pieces.next().await?.ok_or_else(|| malformed("the call ends within a message's prefix"))?;
        first = [first, more].concat().into();
    }
    let Some(prefix) = first.first_chunk() else { return Err(malformed("the call ends within a message's prefix")) };
    let (flag, len) = grpc::prefix(*prefix);
    if flag > 1 {
        return Err(malformed("the message's flag is neither 0 nor 1"));
    }
    if len > limit {
        return Err(too_large(len, limit));
    }
    let ticket = budget.take(len.min(STEP_BYTES)).await?;
    let end = grpc::PREFIX_BYTES + len;
    let mut beyond = first.len() > end;
    let held = if first.len() >= end {
        Held { payload: first.slice(grpc::PREFIX_BYTES..end), ticket }
    } else {
        let mut all = Gathering::start(ticket, len).await;
        all.push(first.get(grpc::PREFIX_BYTES..).unwrap_or_default(), len).await?;
        while all.bytes.len() < len {
            let piece = pieces.next().await?.ok_or_else(|| malformed("the call ends within its message"))?;
            let (mine, rest) = piece.split_at(piece.len().min(len - all.bytes.len()));
            beyond = !rest.is_empty();
            all.push(mine, len).await?;
        }
        all.done()
    };
    // An answer before the end of the request would reset the stream under some clients.
    while !beyond
        && !pieces.is_end()
        && let Some(more) = pieces.next().await?
    {
        beyond = !more.is_empty();
    }
    if beyond { Err(malformed("there is more than one message in a unary call")) } else { Ok((flag == 1, held)) }
}
