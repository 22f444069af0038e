//! What everything that runs has in common: tasks and how they end, the clock, states, and the error of a start that failed.

mod health;
mod task;

use std::sync::Arc;

pub use health::{Health, State};
pub use task::{Shutdown, Step, Task, TaskError};

use crate::signal::UnixNanos;

/// Reads the wall clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixNanos + Send + Sync>);

impl Clock {
    pub fn new(read: impl Fn() -> UnixNanos + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(|| {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            UnixNanos(since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
        })
    }

    pub fn now(&self) -> UnixNanos {
        (self.0)()
    }
}

/// A component could not be built or started. The message names the configuration key where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A key has a value that cannot work; `path` is inside the component (`protocols::grpc::endpoint`).
    #[error("{path}: {message}")]
    Setting { path: String, message: String },
    #[error("{0}")]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl BuildError {
    pub fn setting(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Setting { path: path.into(), message: message.into() }
    }
}
