//! Tasks and what one needs to end them.

use std::sync::Arc;

use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::{
    delivery::Saver,
    runtime::{Shutdown, Task},
    signal::ComponentId,
};

/// One task with its result, or none. Dropped, it ends.
pub(super) struct Owned<T>(JoinSet<T>);

impl<T> Default for Owned<T> {
    fn default() -> Self {
        Self(JoinSet::new())
    }
}

impl<T: Send + 'static> Owned<T> {
    pub(super) fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        let mut set = JoinSet::new();
        set.spawn(future);
        Self(set)
    }

    /// Its result; `None` where there is no task, or no more.
    pub(super) async fn wait(&mut self) -> Option<Result<T, JoinError>> {
        self.0.join_next().await
    }

    /// Its result, once; where there is no task it never resolves.
    pub(super) async fn ended(&mut self) -> Result<T, JoinError> {
        match self.0.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Waits for it, at most until then; afterwards it is gone.
    pub(super) async fn end_by(&mut self, until: Instant) -> bool {
        let in_time = tokio::time::timeout_at(until, self.wait()).await.is_ok();
        self.0.shutdown().await;
        in_time
    }
}

/// What an extension, exporter or receiver runs beside its work: a listener, as a rule.
#[derive(Default)]
pub(super) struct Server {
    pub(super) stop: Shutdown,
    pub(super) task: Owned<Result<(), String>>,
}

impl Server {
    pub(super) fn run(kind: &'static str, id: &ComponentId, stop: Shutdown, task: Option<Task>) -> Self {
        let named = |task: Task| {
            let id = id.clone();
            async move { task.await.map_err(|error| format!("{kind}::{id}: {error}")) }
        };
        Self { stop, task: task.map(|task| Owned::spawn(named(task))).unwrap_or_default() }
    }

    /// Resolves when it ended although nobody told it to.
    pub(super) async fn broke(&mut self) -> String {
        match self.task.ended().await {
            Ok(Ok(())) => "a server ended by itself".to_owned(),
            Ok(Err(message)) => message,
            Err(error) => format!("a server panicked: {error}"),
        }
    }
}

/// Saves what a component remembers.
pub(super) struct Keeper {
    pub(super) stop: Shutdown,
    pub(super) task: Owned<()>,
    pub(super) saver: Arc<Saver>,
}

impl Keeper {
    /// Saves once more. Nothing may be read into the component any more.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        drop(self.task.wait().await);
    }
}
