//! What receivers of HTTP requests share: bodies, read as they come, within the limit, the byte budget and the least speed; what is kept of a
//! request beside its body; and the headers of a refusal.
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
use http::{
    HeaderMap, HeaderValue,
    header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE},
};
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    door::status::{Situation, retry_hint},
    door::{
        Budget, Inlet, Refusal, Ticket, heavy,
        inflate::{Encoding, inflate},
    },
    signal::Context as Sender,
    transport::server::{HttpServerSettings, Link},
};

const PERIOD: Duration = Duration::from_secs(5);
/// In one period.
const LEAST_BYTES: usize = 5 * 1024;
/// Room is taken at once for what is announced, up to this; beyond it as bytes come.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// Reads a body piece by piece.
pub(crate) struct Pieces<'a> {
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
    pub(crate) fn of(body: &'a mut Incoming, timeout: Duration) -> Self {
        Self { body, timeout, wait: None, bytes: 0 }
    }

    /// Whether the last piece was handed out.
    pub(crate) fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
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
pub(crate) struct Held {
    pub(crate) payload: Bytes,
    pub(crate) ticket: Ticket,
}

/// Several pieces on their way to be one.
pub(crate) struct Gathering {
    pub(crate) bytes: Vec<u8>,
    ticket: Ticket,
}

impl Gathering {
    /// `announced`: how much is said to come.
    pub(crate) async fn start(ticket: Ticket, announced: usize) -> Self {
        Self { bytes: Vec::with_capacity(announced.min(STEP_BYTES)), ticket }
    }

    pub(crate) async fn push(&mut self, piece: &[u8], announced: usize) -> Result<(), Refusal> {
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

    pub(crate) fn done(self) -> Held {
        Held { payload: self.bytes.into(), ticket: self.ticket }
    }
}

pub(crate) fn too_large(len: usize, limit: usize) -> Refusal {
    Refusal::TooLarge { message: format!("the request has {len} bytes, more than the limit of {limit}") }
}

/// Reads the whole of an HTTP body. Where it comes in one piece, that piece is it.
pub(crate) async fn whole(mut pieces: Pieces<'_>, budget: &Arc<Budget>, limit: usize) -> Result<Held, Refusal> {
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

/// Undoes a compression; the room that is taken follows what comes out, at most `limit` bytes.
pub(crate) fn inflated(encoding: Encoding, held: Held, limit: usize) -> Result<Held, Refusal> {
    let Held { payload, mut ticket } = held;
    // Work is in proportion to what comes out, which is not known; eight times is usual.
    let inflated = heavy(payload.len().saturating_mul(8), || inflate(encoding, &payload, limit, &mut ticket))?;
    drop(payload);
    ticket.shrink(inflated.len());
    Ok(Held { payload: Bytes::from(inflated), ticket })
}

/// Compressions that a port reads; all by default.
#[derive(Default)]
pub(crate) struct Encodings(Option<Vec<Option<Encoding>>>);

impl Encodings {
    pub(crate) fn of(settings: &HttpServerSettings) -> Self {
        let named = settings.compression_algorithms.as_ref().filter(|names| !names.is_empty());
        Self(named.map(|names| names.iter().filter_map(|name| Encoding::parse(name.as_bytes())).collect()))
    }

    /// What the header called `header` names. One layer only: neither a list nor a second header.
    pub(crate) fn read(&self, headers: &HeaderMap, header: &str) -> Result<Option<Encoding>, Refusal> {
        let Some(name) = headers.get(header) else { return Ok(None) };
        let is_one = headers.get_all(header).iter().nth(1).is_none();
        let known = Encoding::parse(name.as_bytes()).filter(|_| is_one);
        known.filter(|known| self.0.as_ref().is_none_or(|allowed| allowed.contains(known))).ok_or_else(|| {
            let shown: String = String::from_utf8_lossy(name.as_bytes()).chars().take(64).collect();
            let message = format!("bodies in the encoding `{shown}` are not read; gzip, zstd, deflate, snappy or none are");
            Refusal::Encoding { message }
        })
    }
}

/// Says in an HTTP answer's headers when to come again, and what would be let in.
pub(crate) fn refuse(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Some(after) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000) as u64));
    }
    match refusal.situation() {
        Situation::Unauthenticated => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"weir\", Bearer"));
        }
        Situation::Method => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
}

/// What the components behind the inlet read of a request beside its body, and nothing else; `None` where that is nothing.
pub(crate) fn context(
    inlet: &dyn Inlet,
    headers: &HeaderMap,
    link: &Link,
    auth: Vec<(Box<str>, Box<str>)>,
    include_metadata: bool,
) -> Option<Sender> {
    let needs = inlet.needs();
    if needs.is_empty() {
        return None;
    }
    let mut context = Sender::default();
    if needs.peer {
        context.peer = link.peer.map(|peer| peer.ip().to_canonical());
    }
    if needs.auth {
        context.auth = auth;
    }
    if include_metadata {
        for name in &needs.metadata {
            let values: Vec<Box<str>> =
                headers.get_all(name.as_str()).iter().filter_map(|value| value.to_str().ok().map(Into::into)).collect();
            if !values.is_empty() {
                context.metadata.push((name.as_str().into(), values));
            }
        }
    }
    Some(context)
}
