//! The consumers that run: what each reads, and how it is ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    ends::{Account, Done},
    owned::Owned,
};
use crate::{
    delivery::{Chain, Ends, Policy},
    journal::{Accounts, Change, LagBound, OnOverflow, Sources, Subscriber, TopicId, Waker},
    pipeline::{PlannedConsumer, Role},
    runtime::Shutdown,
    signal::{ComponentId, Signal},
};

/// How long what is under way may take to end.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// (pipeline, component)
pub(super) type Key = (String, ComponentId);

/// A consumer as a configuration wants it.
pub(super) struct Wanted {
    pub(super) planned: PlannedConsumer,
    pub(super) depth: usize,
    pub(super) policy: Policy,
    pub(super) chain: Arc<Chain>,
    pub(super) reads: BTreeMap<TopicId, Sources>,
    /// Its place on disk is that of what it feeds.
    pub(super) is_stateful: bool,
}

/// One that runs.
pub(super) struct Reading {
    pub(super) pipeline: Arc<str>,
    pub(super) id: ComponentId,
    pub(super) signal: Signal,
    pub(super) role: Role,
    pub(super) depth: usize,
    /// Its number in each topic, and what it takes from there.
    pub(super) reads: BTreeMap<TopicId, (usize, Sources)>,
    pub(super) bound: LagBound,
    pub(super) on_overflow: OnOverflow,
    pub(super) waker: Arc<Waker>,
    pub(super) accounts: Accounts,
    pub(super) ends: Ends,
    pub(super) task: Owned<Done>,
    pub(super) done: Option<Done>,
}

impl Reading {
    pub(super) fn account(&self) -> Account {
        (self.pipeline.clone(), self.id.clone(), self.signal, self.accounts.clone())
    }

    /// Resolves when it ended although nobody told it to.
    pub(super) async fn broke(&mut self) -> String {
        match self.task.ended().await {
            Ok(done) => {
                let how = if done.panicked { "panicked" } else { "ended by itself" };
                self.done = Some(done);
                format!("the consumer {} in pipeline {} {how}", self.id, self.pipeline)
            }
            Err(error) => format!("the consumer {} in pipeline {} ended: {error}", self.id, self.pipeline),
        }
    }

    /// Waits for its end, which it was told of.
    pub(super) async fn wait(&mut self) {
        if self.done.is_none() {
            self.done = self.task.wait().await.and_then(Result::ok);
        }
    }

    /// Waits for its end; what is under way after a while is broken off.
    pub(super) async fn wait_a_while(&mut self, since: Instant, hurry: &Shutdown) {
        let ends = self.ends.clone();
        tokio::select! {
            biased;
            () = self.wait() => return,
            () = sleep_until(since + UNDER_WAY) => {}
            () = hurry.cancelled() => {}
        }
        ends.abort.cancel();
        self.wait().await;
    }
}

/// What a topic is told so that those who are wanted read it, and no others. With those who join.
pub(super) fn changes_of(
    topic: TopicId,
    running: &mut BTreeMap<Key, Reading>,
    wanted: &BTreeMap<Key, Wanted>,
    wakers: &mut BTreeMap<Key, Arc<Waker>>,
    bell: impl Fn(&PlannedConsumer) -> Arc<Waker>,
) -> (Vec<Change>, Vec<Key>) {
    let (mut changes, mut joining) = (Vec::new(), Vec::new());
    for (key, reading) in &mut *running {
        let Some((consumer, sources)) = reading.reads.get_mut(&topic) else { continue };
        let consumer = *consumer;
        match wanted.get(key).and_then(|wanted| wanted.reads.get(&topic).map(|reads| (wanted, reads))) {
            None => changes.push(Change::Close { consumer }),
            Some((wanted, reads)) => {
                let (bound, on_overflow) = (wanted.policy.bound, wanted.policy.on_overflow);
                if *sources != *reads || (reading.bound, reading.on_overflow) != (bound, on_overflow) {
                    changes.push(Change::Alter { consumer, sources: reads.clone(), bound, on_overflow });
                    sources.clone_from(reads);
                }
            }
        }
    }
    for (key, wanted) in wanted {
        let Some(sources) = wanted.reads.get(&topic) else { continue };
        let reading = running.get(key);
        if reading.is_some_and(|reading| reading.reads.contains_key(&topic)) {
            continue;
        }
        let waker = wakers
            .entry(key.clone())
            .or_insert_with(|| reading.map_or_else(|| bell(&wanted.planned), |reading| reading.waker.clone()));
        let subscriber = Subscriber {
            name: wanted.planned.subscriber_name().into(),
            sources: sources.clone(),
            bound: wanted.policy.bound,
            on_overflow: wanted.policy.on_overflow,
            is_stateful: wanted.is_stateful,
        };
        changes.push(Change::Join(subscriber, waker.clone()));
        joining.push(key.clone());
    }
    (changes, joining)
}
