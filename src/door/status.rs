//! Why a request is refused, and what that is called on gRPC and HTTP: the one table of statuses.

use std::{hash::BuildHasher, time::Duration};

use http::StatusCode;
use tonic::Code;

use crate::otlp::{json, response, response::Details};

/// What a `memory_limiter` in the file asks of the door's byte budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BudgetWish {
    Mib {
        limit: u64,
    },
    /// Of the memory there is (the cgroup's limit, if one is set).
    Percentage {
        limit: f64,
    },
}

/// A request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No room now: memory budget, queue, disk.
    #[error("{reason}")]
    Full { reason: String, retry_after: Duration },
    #[error("weir is shutting down")]
    Stopping { retry_after: Duration },
    /// Larger than the limit, before or after decompression.
    #[error("{message}")]
    TooLarge { message: String },
    /// Bytes that cannot be parsed: what and where.
    #[error("{message}")]
    Malformed { message: String },
    /// Nothing takes this signal, or there is nothing at this path.
    #[error("{message}")]
    NotTaken { message: String },
    #[error("{message}")]
    Unauthenticated { message: String },
    #[error("{message}")]
    Denied { message: String },
    /// An HTTP method other than POST.
    #[error("{message}")]
    Method { message: String },
    /// A `Content-Type` that is none of OTLP's.
    #[error("{message}")]
    MediaType { message: String },
    /// A compression that is not read here.
    #[error("{message}")]
    Encoding { message: String },
    /// The body came slower than the minimum rate.
    #[error("{message}")]
    TooSlow { message: String, retry_after: Duration },
    /// The sender's own deadline passed.
    #[error("the request's deadline passed before it was taken")]
    Deadline,
}

/// The situations that the table knows; each is provoked over a socket in the tests of the receiver, or says when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Situation {
    Full,
    Stopping,
    TooLarge,
    Malformed,
    NotTaken,
    Unauthenticated,
    Denied,
    Method,
    MediaType,
    Encoding,
    TooSlow,
    Deadline,
    /// Part of the items is invalid: not a refusal.
    SomeInvalid,
    /// A tenant is over its quota.
    Quota,
    /// A backend refused for good while the sender waited for it.
    SinkRejected,
}

/// What a situation is called.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub situation: Situation,
    pub grpc: Code,
    pub http: StatusCode,
    /// Whether `RetryInfo` and `Retry-After` go along: without them, RESOURCE_EXHAUSTED is for good, and with them it is not.
    pub retry: bool,
    /// Whether `BadRequest` goes along.
    pub bad_request: bool,
    /// Rows of features that weir does not have yet.
    pub later: Option<&'static str>,
}

const fn row(situation: Situation, grpc: Code, http: StatusCode) -> Row {
    Row { situation, grpc, http, retry: false, bad_request: false, later: None }
}

const fn retryable(situation: Situation, grpc: Code, http: StatusCode) -> Row {
    Row { retry: true, ..row(situation, grpc, http) }
}

/// Spec: OTLP "OTLP/gRPC Response", "OTLP/HTTP Response", "Throttling". Clients retry UNAVAILABLE, DEADLINE_EXCEEDED and
/// RESOURCE_EXHAUSTED with RetryInfo; over HTTP 429, 502, 503, 504; nothing else.
pub const TABLE: &[Row] = &[
    retryable(Situation::Full, Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
    retryable(Situation::Stopping, Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
    row(Situation::TooLarge, Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE),
    Row { bad_request: true, ..row(Situation::Malformed, Code::InvalidArgument, StatusCode::BAD_REQUEST) },
    row(Situation::NotTaken, Code::Unimplemented, StatusCode::NOT_FOUND),
    row(Situation::Unauthenticated, Code::Unauthenticated, StatusCode::UNAUTHORIZED),
    row(Situation::Denied, Code::PermissionDenied, StatusCode::FORBIDDEN),
    row(Situation::Method, Code::Unimplemented, StatusCode::METHOD_NOT_ALLOWED),
    row(Situation::MediaType, Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    row(Situation::Encoding, Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    // A line too thin now may do later; 408 would make the sender drop the data.
    retryable(Situation::TooSlow, Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
    row(Situation::Deadline, Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
    row(Situation::SomeInvalid, Code::Ok, StatusCode::OK),
    Row { later: Some("tenants"), ..retryable(Situation::Quota, Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS) },
    Row { later: Some("wait_for_result"), ..row(Situation::SinkRejected, Code::InvalidArgument, StatusCode::BAD_REQUEST) },
];

impl Situation {
    /// Its row.
    pub fn row(self) -> &'static Row {
        const NONE: Row = row(Situation::Malformed, Code::Internal, StatusCode::INTERNAL_SERVER_ERROR);
        TABLE.iter().find(|row| row.situation == self).unwrap_or(&NONE)
    }
}

impl Refusal {
    pub const fn situation(&self) -> Situation {
        match self {
            Self::Full { .. } => Situation::Full,
            Self::Stopping { .. } => Situation::Stopping,
            Self::TooLarge { .. } => Situation::TooLarge,
            Self::Malformed { .. } => Situation::Malformed,
            Self::NotTaken { .. } => Situation::NotTaken,
            Self::Unauthenticated { .. } => Situation::Unauthenticated,
            Self::Denied { .. } => Situation::Denied,
            Self::Method { .. } => Situation::Method,
            Self::MediaType { .. } => Situation::MediaType,
            Self::Encoding { .. } => Situation::Encoding,
            Self::TooSlow { .. } => Situation::TooSlow,
            Self::Deadline => Situation::Deadline,
        }
    }

    /// The word that our own metrics have for it.
    pub const fn reason(&self) -> &'static str {
        match self.situation() {
            Situation::Full | Situation::Stopping => "full",
            Situation::Malformed => "malformed",
            _ => "other",
        }
    }

    /// How long the sender is asked to wait, where a retry makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full { retry_after, .. } | Self::Stopping { retry_after } | Self::TooSlow { retry_after, .. } => {
                Some(*retry_after)
            }
            _ => None,
        }
    }

    /// The `google.rpc.Status` of it, as JSON or as protobuf: the body of an HTTP answer, and `grpc-status-details-bin`.
    pub fn status_body(&self, as_json: bool) -> Vec<u8> {
        let row = self.situation().row();
        let message = self.to_string();
        let violation = [("", message.as_str())];
        let details = Details {
            retry_after: self.retry_after().filter(|_| row.retry),
            violations: if row.bad_request { &violation } else { &[] },
        };
        let encode = if as_json { json::encode_status } else { response::encode_status };
        encode(row.grpc as i32, &message, &details)
    }

    pub fn stopping() -> Self {
        Self::Stopping { retry_after: retry_hint() }
    }
}

/// 1 to 5 s, at random: senders that were refused together must not come back together.
pub fn retry_hint() -> Duration {
    let random = foldhash::fast::RandomState::default().hash_one(0_u8);
    Duration::from_millis(1000 + random % 4000)
}
