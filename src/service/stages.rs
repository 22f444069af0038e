//! Connectors in the order in which data flows through them: one may feed another, so they are drained one depth after another.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::ends::Done;
use crate::runtime::Shutdown;

#[derive(Default)]
struct Stage {
    drain: Shutdown,
    consumers: JoinSet<Done>,
    stop_flushers: Shutdown,
    flushers: JoinSet<()>,
}

/// The running connectors, by depth: 0 reads what receivers took, 1 what a connector of depth 0 made, and so on.
#[derive(Default)]
pub(super) struct Stages {
    by_depth: BTreeMap<usize, Stage>,
    pub(super) done: Vec<Done>,
}

impl Stages {
    /// Runs a consumer; `run` is given the signal to read to the end.
    pub(super) fn consumer<F: Future<Output = Done> + Send + 'static>(&mut self, depth: usize, run: impl FnOnce(Shutdown) -> F) {
        let stage = self.by_depth.entry(depth).or_default();
        stage.consumers.spawn(run(stage.drain.clone()));
    }

    /// Runs the flushes of a connector; `run` is given the signal to flush once more and end.
    pub(super) fn flusher<F: Future<Output = ()> + Send + 'static>(&mut self, depth: usize, run: impl FnOnce(Shutdown) -> F) {
        let stage = self.by_depth.entry(depth).or_default();
        stage.flushers.spawn(run(stage.stop_flushers.clone()));
    }

    /// Resolves when one ended that should not have.
    pub(super) async fn broke(&mut self) -> String {
        let mut ends: futures_util::stream::FuturesUnordered<_> = self
            .by_depth
            .values_mut()
            .map(|stage| async move {
                tokio::select! {
                    Some(ended) = stage.consumers.join_next() => ended.map(Some),
                    Some(ended) = stage.flushers.join_next() => ended.map(|()| None),
                    else => std::future::pending().await,
                }
            })
            .collect();
        let ended = futures_util::StreamExt::next(&mut ends).await;
        drop(ends);
        match ended {
            Some(Ok(Some(done))) => {
                let how = if done.panicked { "panicked" } else { "ended by itself" };
                let broken = format!("the consumer {} in pipeline {} {how}", done.left.component, done.left.pipeline);
                self.done.push(done);
                broken
            }
            Some(Ok(None)) => "a connector ended by itself".to_owned(),
            Some(Err(error)) => format!("a connector panicked: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Lets each depth read to its end and flush, before the next.
    pub(super) async fn drain(&mut self) {
        for stage in self.by_depth.values_mut() {
            stage.drain.cancel();
            while let Some(ended) = stage.consumers.join_next().await {
                // A consumer's panic is caught; what else ends a task is that it was aborted.
                self.done.extend(ended);
            }
            stage.stop_flushers.cancel();
            while stage.flushers.join_next().await.is_some() {}
        }
    }
}
