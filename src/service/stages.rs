//! Connectors in the order in which data flows through them: one may feed another, so they are drained one depth after another.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::runtime::Shutdown;

#[derive(Default)]
struct Stage {
    drain: Shutdown,
    consumers: JoinSet<()>,
    stop_flushers: Shutdown,
    flushers: JoinSet<()>,
}

/// The running connectors, by depth: 0 reads what receivers took, 1 what a connector of depth 0 made, and so on.
#[derive(Default)]
pub struct Stages(BTreeMap<usize, Stage>);

impl Stages {
    /// Runs a consumer; `run` is given the signal to read to the end.
    pub fn consumer<F: Future<Output = ()> + Send + 'static>(&mut self, depth: usize, run: impl FnOnce(Shutdown) -> F) {
        let stage = self.0.entry(depth).or_default();
        stage.consumers.spawn(run(stage.drain.clone()));
    }

    /// Runs the flushes of a connector; `run` is given the signal to flush once more and end.
    pub fn flusher<F: Future<Output = ()> + Send + 'static>(&mut self, depth: usize, run: impl FnOnce(Shutdown) -> F) {
        let stage = self.0.entry(depth).or_default();
        stage.flushers.spawn(run(stage.stop_flushers.clone()));
    }

    /// Resolves when one ended that should not have.
    pub async fn broke(&mut self) -> String {
        let mut ends: futures_util::stream::FuturesUnordered<_> = self
            .0
            .values_mut()
            .map(|stage| async move {
                tokio::select! {
                    Some(ended) = stage.consumers.join_next() => ended,
                    Some(ended) = stage.flushers.join_next() => ended,
                    else => std::future::pending().await,
                }
            })
            .collect();
        match futures_util::StreamExt::next(&mut ends).await {
            Some(Ok(())) => "a connector ended by itself".to_owned(),
            Some(Err(error)) => format!("a connector panicked: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Lets each depth read to its end and flush, before the next.
    pub async fn drain(&mut self) {
        for stage in self.0.values_mut() {
            stage.drain.cancel();
            while stage.consumers.join_next().await.is_some() {}
            stage.stop_flushers.cancel();
            while stage.flushers.join_next().await.is_some() {}
        }
    }
}
