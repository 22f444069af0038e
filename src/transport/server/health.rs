//! gRPC's health service, over the state of the process and its pipelines.
//!
//! `service` is empty for the whole, or the name of a pipeline (`traces/x`), or of an OTLP service.
//!
//! Spec: `grpc.health.v1`. `Watch` sends at once and at each change; at most [`WATCHERS_MAX`] at a time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use tonic::Code;

use super::{Error, grpc};
use crate::runtime::{Health, State};

/// Streams of [`HealthService::watch`] open at once.
const WATCHERS_MAX: usize = 64;

pub const CHECK: &str = "/grpc.health.v1.Health/Check";
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// `HealthCheckResponse.ServingStatus`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    Yes = 1,
    No = 2,
    Unknown = 3,
}

#[derive(Clone)]
pub struct HealthService {
    health: Arc<Health>,
    watchers: Arc<AtomicUsize>,
}

impl HealthService {
    pub fn new(health: Arc<Health>) -> Self {
        Self { health, watchers: Arc::default() }
    }

    /// The state of one service by name.
    pub fn serving(&self, service: &str) -> Serving {
        let yes = |state: &State| matches!(state, State::Ok | State::Recoverable(_) | State::Permanent(_));
        if service.is_empty() || service.starts_with("opentelemetry.proto.collector.") {
            return if yes(&self.health.whole()) { Serving::Yes } else { Serving::No };
        }
        let parts = self.health.parts();
        let states = parts.iter().filter(|((pipeline, _), _)| pipeline.as_deref() == Some(service));
        let (all, good) = states.fold((0, 0), |(all, good), (_, (state, _))| (all + 1, good + usize::from(yes(state))));
        match all {
            0 => Serving::Unknown,
            all if all == good => Serving::Yes,
            _ => Serving::No,
        }
    }

    /// Answers `Check` for the message of a request.
    pub fn check(&self, message: &[u8]) -> Response<grpc::Answer> {
        let Some(service) = service_of(message) else {
            return grpc::error(Code::InvalidArgument, "the request is no HealthCheckRequest", &[]);
        };
        match self.serving(service) {
            Serving::Unknown => grpc::error(Code::NotFound, "no such service", &[]),
            serving => grpc::ok(&[0x08, serving as u8]),
        }
    }

    /// The stream of `Watch` for the message of a request.
    pub fn watch(&self, message: &[u8]) -> Result<Watching, Box<Response<grpc::Answer>>> {
        let service = service_of(message)
            .ok_or_else(|| Box::new(grpc::error(Code::InvalidArgument, "the request is no HealthCheckRequest", &[])))?
            .to_owned();
        if self.watchers.fetch_add(1, Ordering::Relaxed) >= WATCHERS_MAX {
            self.watchers.fetch_sub(1, Ordering::Relaxed);
            return Err(Box::new(grpc::error(Code::ResourceExhausted, "too many watchers", &[])));
        }
        Ok(Watching { of: self.clone(), service, said: None, change: None })
    }
}

/// `HealthCheckRequest.service`; `None` for bytes that are no such message.
fn service_of(message: &[u8]) -> Option<&str> {
    let mut rest = message;
    let mut service = "";
    while let Some((tag, after)) = rest.split_first() {
        let (len, after) = after.split_first()?;
        // One string field; a name of 128 bytes or more is none of ours.
        if *tag != 0x0a || *len >= 0x80 {
            return None;
        }
        let (name, after) = after.split_at_checked(usize::from(*len))?;
        (service, rest) = (std::str::from_utf8(name).ok()?, after);
    }
    Some(service)
}

/// The messages of one `Watch`.
pub struct Watching {
    of: HealthService,
    service: String,
    said: Option<Serving>,
    change: Option<BoxFuture<'static, ()>>,
}

impl Watching {
    pub fn headers() -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))])
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.of.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Body for Watching {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = &mut *self;
        loop {
            let change = me.change.get_or_insert_with(|| {
                let health = me.of.health.clone();
                Box::pin(async move { health.changed().await })
            });
            // Registered before the state is read, so that no change falls between.
            if change.as_mut().poll(cx).is_ready() {
                me.change = None;
                continue;
            }
            let serving = me.of.serving(&me.service);
            if me.said == Some(serving) {
                return Poll::Pending;
            }
            me.said = Some(serving);
            return Poll::Ready(Some(Ok(Frame::data(grpc::framed(&[0x08, serving as u8])))));
        }
    }
}
