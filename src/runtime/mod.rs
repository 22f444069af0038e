//! What everything that runs has in common: tasks and how they end, the clock, states, listening sockets, and the error of a start that failed.

mod fault;
mod health;
mod sockets;
mod task;

use std::sync::Arc;

pub use fault::{BuildError, appendable, both};
pub use health::{Drain, Health, State};
pub use sockets::{AnySocket, Sockets};
pub use task::{Shutdown, Step, Task, TaskError, blocking};

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
