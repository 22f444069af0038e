//! What is only in memory about single records: under way, or parked with the last error.

use serde::{Deserialize, Serialize};

use crate::{delivery::Standing, journal::Position, pipeline::Board};

/// The body of `/v1/standing`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// At most 1,000; what is more is not answered for.
    pub records: Vec<RecordPlace>,
}

/// Where a record stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordPlace {
    pub topic: String,
    pub shard: u16,
    pub offset: u64,
}

/// The answer: only what there is to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standings {
    pub standings: Vec<StandingOf>,
}

/// How one consumer stands to one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StandingOf {
    pub record: RecordPlace,
    /// The consumer, as `weir journal ls` names it.
    pub consumer: String,
    /// It waits to be tried; otherwise it is being sent.
    pub parked: bool,
    /// Failed so far.
    pub attempts: u32,
    pub error: Option<String>,
    pub next_attempt_seconds: Option<f64>,
}

pub const RECORDS_MAX: usize = 1000;

pub(super) fn of(board: &Board, asked: Records) -> Standings {
    let (topics, consumers) = (board.topics(), board.consumers());
    let mut standings = Vec::new();
    for record in asked.records.into_iter().take(RECORDS_MAX) {
        let Some(topic) = topics.iter().find(|topic| topic.name == record.topic) else { continue };
        let position = Position { topic: topic.id, shard: record.shard, offset: record.offset };
        for live in &consumers {
            let Some(standing) = live.standing(position) else { continue };
            let (parked, attempts, error, next) = match standing {
                Standing::UnderWay { attempts, error } => (false, attempts, error, None),
                Standing::Waiting { attempts, error, next_attempt } => {
                    (true, attempts, error, next_attempt.map(|next| next.as_secs_f64()))
                }
            };
            standings.push(StandingOf {
                record: record.clone(),
                consumer: live.name(),
                parked,
                attempts,
                error: error.map(Into::into),
                next_attempt_seconds: next,
            });
        }
    }
    Standings { standings }
}
