//! Requests → answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{Admin, VERSION, removal, report, standing, stream};
use crate::{
    runtime::{Drain, Shutdown},
    tap::{Ask, OpenError},
    transport::server::{Body, Error, HttpService},
};

/// Of a request.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Of a body that is too long, what is read all the same, so that its sender reads why.
const UNREAD_BYTES_MAX: usize = 4 << 20;
const BODY_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Answers {
    pub(super) admin: Admin,
    pub(super) started: Instant,
    pub(super) stop: Shutdown,
}

impl HttpService for Answers {
    fn call(self: Arc<Self>, request: Request<Incoming>, _: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.answer(request).await })
    }
}

impl Answers {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let wanted = match path.as_str() {
            "/v1" | "/v1/live" => Method::GET,
            "/v1/tap" | "/v1/standing" | "/v1/remove" | "/v1/drain" => Method::POST,
            _ => {
                return refuse(
                    StatusCode::NOT_FOUND,
                    "there is GET /v1, GET /v1/live, POST /v1/tap, POST /v1/standing, POST /v1/remove and POST /v1/drain; is this weir older than what asks it?",
                );
            }
        };
        if *request.method() != wanted {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} is asked by {wanted}"));
        }
        match path.as_str() {
            "/v1/live" => say(&report::of(&self.admin, self.started)),
            "/v1/tap" => match read::<Ask>(request).await {
                Ok(ask) => self.tap(&ask),
                Err(refused) => *refused,
            },
            "/v1/standing" => match read(request).await {
                Ok(records) => say(&standing::of(&self.admin.board, records)),
                Err(refused) => *refused,
            },
            "/v1/remove" => match read(request).await {
                Ok(asked) => match removal::of(&self.admin.board, asked).await {
                    Ok(removed) => say(&removed),
                    Err((status, message)) => refuse(status, &message),
                },
                Err(refused) => *refused,
            },
            "/v1/drain" => {
                self.admin.drain.cancel();
                say(&json!({ "drain": self.admin.health.drain().unwrap_or(Drain::Closing).as_str() }))
            }
            _ => say(&json!({ "version": VERSION, "weir": env!("CARGO_PKG_VERSION"), "pid": std::process::id() })),
        }
    }

    fn tap(&self, ask: &Ask) -> Response<Body> {
        match self.admin.taps.open(ask) {
            Ok(tap) => {
                let mut answer = Response::new(stream::body(tap, ask, self.stop.clone()));
                answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
                answer
            }
            Err(error) => {
                let status = match error {
                    OpenError::Ask(_) => StatusCode::BAD_REQUEST,
                    OpenError::TooMany(_) | OpenError::Thread(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                refuse(status, &error.to_string())
            }
        }
    }
}

/// The body of a request. `Err`: the answer that says what is wrong with it.
async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Box<Response<Body>>> {
    let wrong = |status, message: &str| Err(Box::new(refuse(status, message)));
    let mut incoming = request.into_body();
    let body = match timeout(BODY_WAIT, Limited::new(&mut incoming, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            // A connection that is closed with something unread in it takes the answer along.
            drop(timeout(BODY_WAIT, Limited::new(incoming, UNREAD_BYTES_MAX).collect()).await);
            return wrong(StatusCode::PAYLOAD_TOO_LARGE, "a request has at most 256 KiB");
        }
        Ok(Err(error)) => return wrong(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(_) => return wrong(StatusCode::REQUEST_TIMEOUT, "the request did not come within 5 s"),
    };
    serde_json::from_slice(&body)
        .or_else(|error| wrong(StatusCode::BAD_REQUEST, &format!("the request is not understood: {error}")))
}

fn say(answer: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(answer) {
        Ok(bytes) => with(StatusCode::OK, bytes),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    with(status, json!({ "error": message }).to_string().into_bytes())
}

fn with(status: StatusCode, mut bytes: Vec<u8>) -> Response<Body> {
    bytes.push(b'\n');
    let mut answer = Response::new(Full::new(Bytes::from(bytes)).map_err(Error::from).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
