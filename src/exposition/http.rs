//! One scrape over HTTP: negotiated, rendered on a thread of its own, sent in pieces.
//!
//! In:   a request, the sources.
//! Out:  a streamed answer; at most [`PIECES`] pieces wait for the client.
//! Full: a slow client holds its own rendering back, nobody else; more than [`RENDERINGS`] pages at once get 503.
//! Lost: a page whose client went away, or whose scrape timeout passed, ends there; the connection is closed, so it cannot be taken for whole.

use std::{
    convert::Infallible,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::Sleep,
};

use super::{LeftOut, PageSource, Style, choose, render::render, sink::Gone, takes_gzip};

/// Pieces that may wait for a slow client.
const PIECES: usize = 4;
/// Pages rendered at once.
const RENDERINGS: usize = 16;
/// What a scrape may take when it does not say: Prometheus always says.
const PATIENCE: Duration = Duration::from_mins(1);
const PATIENCE_MAX: Duration = Duration::from_mins(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Serves pages.
pub struct Scrapes {
    open_metrics: bool,
    created: bool,
    left_out: Arc<LeftOut>,
    renderings: Arc<Semaphore>,
}

enum Piece {
    Bytes(Bytes),
    End,
}

impl Scrapes {
    /// `open_metrics`: whether a scraper that asks for it gets it. `created`: see [`Style::created`].
    pub fn new(open_metrics: bool, created: bool, left_out: Arc<LeftOut>) -> Self {
        Self { open_metrics, created, left_out, renderings: Arc::new(Semaphore::new(RENDERINGS)) }
    }

    /// The answer to a `GET` or `HEAD`.
    pub fn answer(&self, method: &Method, headers: &HeaderMap, sources: Vec<Arc<dyn PageSource>>) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "a page is fetched with GET\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        if let Some(reason) = sources.iter().find_map(|source| source.unready()) {
            let mut refused = plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
            refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return refused;
        }
        let style = Style { choice: choose(headers, self.open_metrics), gzip: takes_gzip(headers), created: self.created };
        let mut response = Response::new(empty());
        if method == Method::GET {
            let Ok(permit) = self.renderings.clone().try_acquire_owned() else {
                let mut refused = plain(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n");
                refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
                return refused;
            };
            *response.body_mut() = self.stream(sources, style, patience(headers), permit);
        }
        let content_type = style.choice.format.content_type(style.choice.escaping);
        let fields = response.headers_mut();
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::try_from(content_type).expect("content types are made of words from a table"),
        );
        fields.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if style.gzip {
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    fn stream(&self, sources: Vec<Arc<dyn PageSource>>, style: Style, patience: Duration, permit: OwnedSemaphorePermit) -> Body {
        let (pieces, receiver) = mpsc::channel(PIECES);
        let left_out = self.left_out.clone();
        let rendering = tokio::task::spawn_blocking(move || {
            let mut outlet = |piece: Bytes| pieces.blocking_send(Piece::Bytes(piece)).map_err(|_| Gone);
            let whole = render(&sources, style, &left_out, &mut outlet).is_ok();
            if whole {
                // Without this word the page is not whole; a client that left does not need it.
                pieces.blocking_send(Piece::End).ok();
            }
            drop(permit);
        });
        Pages { receiver, ended: false, deadline: Box::pin(tokio::time::sleep(patience)), _rendering: rendering }.boxed_unsync()
    }
}

/// The body of a page that is being rendered. Dropping it ends the rendering at its next piece.
struct Pages {
    receiver: mpsc::Receiver<Piece>,
    ended: bool,
    deadline: Pin<Box<Sleep>>,
    _rendering: JoinHandle<()>,
}

impl HttpBody for Pages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.receiver.poll_recv(context) {
            Poll::Ready(Some(Piece::Bytes(piece))) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Poll::Ready(Some(Piece::End)) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(Some(Err("rendering ended early".into())))
            }
            Poll::Pending => {
                std::task::ready!(self.deadline.as_mut().poll(context));
                self.ended = true;
                self.receiver.close();
                Poll::Ready(Some(Err("the scrape's timeout passed".into())))
            }
        }
    }
}

/// `X-Prometheus-Scrape-Timeout-Seconds`: nobody reads the page after that.
fn patience(headers: &HeaderMap) -> Duration {
    headers
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or(PATIENCE, |patience| patience.min(PATIENCE_MAX))
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A short text.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
