//! How consumers end, and what they leave behind.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;

use crate::{
    delivery::{Carried, Consumer, Left},
    journal::Accounts,
    signal::{ComponentId, Signal},
};

/// Items that one consumer still held at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    pub pipeline: String,
    pub component: ComponentId,
    pub signal: Signal,
    pub items: u64,
}

/// A consumer that ended.
pub(super) struct Done {
    pub(super) left: Undelivered,
    pub(super) panicked: bool,
    /// For whoever takes its place; nothing of one that panicked.
    pub(super) rest: Option<(Consumer, Carried)>,
}

/// A consumer's name with its accounts.
pub(super) type Account = (Arc<str>, ComponentId, Signal, Accounts);

/// Runs a consumer to its end. One that panics leaves what its accounts say that it held.
pub(super) async fn to_its_end(account: Account, run: impl Future<Output = Left>) -> Done {
    let (pipeline, component, signal, accounts) = account;
    let ended = AssertUnwindSafe(run).catch_unwind().await;
    let undelivered = |items| Undelivered { pipeline: pipeline.to_string(), component, signal, items };
    match ended {
        Ok(Left { consumer, carried, items }) => {
            Done { left: undelivered(items), panicked: false, rest: Some((consumer, carried)) }
        }
        Err(_) => Done { left: undelivered(accounts.books().held), panicked: true, rest: None },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        journal::{LagBound, MemoryShard, NewRecord, OnOverflow, SourceId, Sources, Subscriber, Topic, TopicId},
        signal::{Batch, UnixNanos},
    };

    #[tokio::test]
    async fn what_a_consumer_that_panicked_held_is_told() {
        let topic = Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, 1, |shard, room| {
            Arc::new(MemoryShard::new(TopicId(0), shard, 1 << 20, room))
        });
        let subscriber = Subscriber {
            name: "test".into(),
            sources: Sources::of([SourceId(0)]),
            bound: LagBound::NONE,
            on_overflow: OnOverflow::SkipOldest,
            is_stateful: false,
        };
        let mut cursor = topic.cursor(&subscriber);
        for items in [3, 4] {
            let payload = vec![0; 10].into();
            let batch = Batch { signal: Signal::Traces, payload, items, context: Arc::default(), index: None };
            let new = NewRecord { source: SourceId(0), received: UnixNanos(1), batch, derived_from: None };
            assert!(topic.append_now(0, new).is_ok());
        }
        let account = ("traces".into(), ComponentId::parse("test").unwrap(), Signal::Traces, cursor.accounts());
        let run = async move {
            cursor.read(1, usize::MAX, &mut Vec::new());
            assert!(cursor.is_settled(), "a record is under way");
            unreachable!("it panics before")
        };
        let done = to_its_end(account, run).await;
        assert_eq!((done.panicked, done.left.items), (true, 7));
    }
}
