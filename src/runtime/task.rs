//! Tasks have owners: the service awaits each of them.

use futures_util::future::BoxFuture;
pub use tokio_util::sync::CancellationToken as Shutdown;

/// A component's running half. It ends when its `shutdown` fires, or early with the error that ended it.
pub type Task = BoxFuture<'static, Result<(), TaskError>>;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TaskError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// A result that is there already, in the common case, or will be. Spares the box of a future that has nothing to wait for.
pub enum Step<'a, T> {
    Ready(T),
    Wait(BoxFuture<'a, T>),
}

impl<T> Step<'_, T> {
    pub async fn done(self) -> T {
        match self {
            Self::Ready(value) => value,
            Self::Wait(future) => future.await,
        }
    }
}

/// Runs work that blocks or takes long, away from the reactor where there is another thread for the rest.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let is_multi = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if is_multi { tokio::task::block_in_place(work) } else { work() }
}
