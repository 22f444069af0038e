//! Who may come in, and what weir says of itself on the way out.

use futures_util::future::BoxFuture;
use http::HeaderMap;

use crate::{
    door::{Refusal, status::retry_hint},
    signal::Context,
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 401 / UNAUTHENTICATED
    #[error("{0}")]
    Unauthenticated(String),
    /// 403 / PERMISSION_DENIED
    #[error("{0}")]
    Denied(String),
    /// The credentials to send cannot be had now: retry.
    #[error("{0}")]
    Unavailable(String),
}

/// Checks the headers (or gRPC metadata) of a request that came in.
pub trait ServerAuth: Send + Sync {
    /// What may be kept about the caller (`username`, `subject`); never a credential.
    fn authenticate<'a>(&'a self, headers: &'a HeaderMap) -> BoxFuture<'a, Result<Vec<(Box<str>, Box<str>)>, AuthError>>;
}

/// Adds credentials or headers to a request that goes out.
pub trait ClientAuth: Send + Sync {
    fn add_headers(&self, context: &Context, headers: &mut HeaderMap) -> Result<(), AuthError>;
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unauthenticated(message) => Self::Unauthenticated { message },
            AuthError::Denied(message) => Self::Denied { message },
            AuthError::Unavailable(reason) => Self::Full { reason, retry_after: retry_hint() },
        }
    }
}
