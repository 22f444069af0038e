//! Who may come in, and what weir says of itself on the way out.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::Extension;
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
    /// Whether what it adds comes from the request that the data came with: then a refusal of it concerns that data, not the destination.
    fn reads_context(&self) -> bool {
        false
    }
}

/// Stands where an extension could not be built: whoever names it is told nothing wrong, and it lets nobody in.
pub struct Unbuilt;

impl Unbuilt {
    fn refusal() -> AuthError {
        AuthError::Unavailable("the extension could not be built".to_owned())
    }
}

impl Extension for Unbuilt {
    fn is_storage(&self) -> bool {
        true
    }
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        Some(Arc::new(Self))
    }
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        Some(Arc::new(Self))
    }
}

impl ServerAuth for Unbuilt {
    fn authenticate<'a>(&'a self, _headers: &'a HeaderMap) -> BoxFuture<'a, Result<Vec<(Box<str>, Box<str>)>, AuthError>> {
        Box::pin(std::future::ready(Err(Self::refusal())))
    }
}

impl ClientAuth for Unbuilt {
    fn add_headers(&self, _context: &Context, _headers: &mut HeaderMap) -> Result<(), AuthError> {
        Err(Self::refusal())
    }
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
