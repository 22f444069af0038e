//! What goes back: bodies and headers of answers, by protocol.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};

use crate::{
    door::{Accepted, Refusal},
    otlp::{json, response},
    receivers::request::refuse,
    signal::Signal,
    transport::server::{Error, grpc, health::Watching},
};

/// An answer's body.
pub(super) enum Answer {
    Unary(grpc::Answer),
    Watch(Box<Watching>),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Unary(grpc::Answer::default())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Unary(answer) => Pin::new(answer).poll_frame(cx),
            Self::Watch(watching) => Pin::new(watching.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Unary(answer) => answer.is_end_stream(),
            Self::Watch(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Unary(answer) => answer.size_hint(),
            Self::Watch(_) => SizeHint::new(),
        }
    }
}

/// The media type of a request over HTTP, which is its answer's, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Protobuf,
    Json,
}

impl Media {
    pub(super) fn parse(content_type: &[u8]) -> Option<Self> {
        let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"application/x-protobuf") || name.eq_ignore_ascii_case(b"application/protobuf") {
            Some(Self::Protobuf)
        } else if name.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }

    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }
}

fn partial(accepted: &Accepted) -> Option<(u64, &str)> {
    (accepted.rejected > 0 || accepted.message.is_some())
        .then(|| (accepted.rejected, accepted.message.as_deref().unwrap_or("some items are invalid")))
}

pub(super) fn grpc_success(signal: Signal, accepted: &Accepted) -> Response<Answer> {
    match partial(accepted) {
        None => grpc::ok(&[]),
        some => grpc::ok(&response::encode_success(signal, some)),
    }
    .map(Answer::Unary)
}

pub(super) fn grpc_refusal(refusal: &Refusal) -> Response<Answer> {
    let row = refusal.situation().row();
    let details = if row.retry || row.bad_request { refusal.status_body(false) } else { Vec::new() };
    grpc::error(row.grpc, &refusal.to_string(), &details).map(Answer::Unary)
}

pub(super) fn http_success(signal: Signal, accepted: &Accepted, media: Media) -> Response<Answer> {
    let body = match (partial(accepted), media) {
        (None, Media::Protobuf) => Bytes::new(),
        (None, Media::Json) => Bytes::from_static(b"{}"),
        (some, Media::Protobuf) => response::encode_success(signal, some).into(),
        (some, Media::Json) => json::encode_success(signal, some).into(),
    };
    http_answer(StatusCode::OK, body, media)
}

/// Errors of requests whose media type is none of OTLP's are said in JSON, which everybody can read.
pub(super) fn http_refusal(refusal: &Refusal, media: Option<Media>) -> Response<Answer> {
    let media = media.unwrap_or(Media::Json);
    let mut answer = http_answer(refusal.situation().row().http, refusal.status_body(media == Media::Json).into(), media);
    refuse(refusal, answer.headers_mut());
    answer
}

fn http_answer(status: StatusCode, body: Bytes, media: Media) -> Response<Answer> {
    let mut answer = Response::new(Answer::Unary(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, media.header());
    answer
}
