//! The ingest topics of one receiver, as its door sees them.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::{
    door::{Append, Refusal, status::retry_hint},
    journal::{AppendError, Appending, NewRecord, Topic},
    runtime::Step,
};

/// Appends what a receiver took to the topic of its signal.
pub(super) struct Ingest {
    /// Indexed by signal.
    pub(super) topics: [Option<Arc<Topic>>; 3],
}

fn refuse(error: &AppendError) -> Refusal {
    Refusal::Full { reason: error.to_string(), retry_after: retry_hint() }
}

impl Append for Ingest {
    fn append(&self, record: NewRecord) -> Step<'static, Result<(), Refusal>> {
        let signal = record.batch.signal;
        let Some(topic) = self.topics.get(signal.ordinal()).and_then(Option::as_ref) else {
            return Step::Ready(Err(Refusal::NotTaken { message: format!("no pipeline takes {signal} from this receiver") }));
        };
        match topic.append_now(0, record) {
            Ok(Appending::Done { crowded: false, .. }) => Step::Ready(Ok(())),
            // The record is in; its sender is told so a little later, so that it sends the next one a little later.
            Ok(Appending::Done { crowded: true, .. }) => {
                let topic = topic.clone();
                Step::Wait(async move { topic.pace().map(Ok).await }.boxed())
            }
            Ok(Appending::Syncing(synced)) => {
                Step::Wait(async move { synced.await.map(drop).map_err(|error| refuse(&error)) }.boxed())
            }
            Err((_, record)) => {
                let topic = topic.clone();
                Step::Wait(async move { topic.append(0, record).await.map(drop).map_err(|error| refuse(&error)) }.boxed())
            }
        }
    }
}
