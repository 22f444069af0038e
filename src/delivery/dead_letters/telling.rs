//! What the log says of refusals: the first one of a consumer in full, then a line each minute with how many there were.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::journal::{Letter, Note, Refusal};

/// Between two lines of one consumer.
pub(super) const EVERY: Duration = Duration::from_mins(1);

/// By consumer; a configuration has so many.
#[derive(Default)]
pub(super) struct Telling(Mutex<BTreeMap<Arc<str>, Since>>);

/// What came since the last line.
struct Since {
    last: Instant,
    sum: Sum,
}

/// Letters of a consumer that were not said one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) letters: u64,
    pub(super) items: u64,
    /// Of the newest.
    pub(super) reason: Option<Refusal>,
    pub(super) message: String,
}

impl Telling {
    /// Notes a letter. Whether it is to be said in full: it is the first of its consumer for a while.
    pub(super) fn is_first(&self, letter: &Letter, now: Instant) -> bool {
        let Letter { note: Note { consumer, reason, message, .. }, batch, .. } = letter;
        let mut all = self.0.lock();
        let Some(Since { sum, .. }) = all.get_mut(consumer) else {
            all.insert(consumer.clone(), Since { last: now, sum: Sum::default() });
            return true;
        };
        sum.letters += 1;
        sum.items += batch.items;
        (sum.reason, sum.message) = (Some(*reason), message.clone());
        false
    }

    /// What is to be said now, by consumer; `is_last`: whenever something was said last. Who was quiet for so long begins anew.
    pub(super) fn due(&self, now: Instant, is_last: bool) -> Vec<(Arc<str>, Sum)> {
        let mut due = Vec::new();
        self.0.lock().retain(|consumer, since| {
            if !is_last && now.saturating_duration_since(since.last) < EVERY {
                return true;
            }
            since.last = now;
            let sum = std::mem::take(&mut since.sum);
            let is_quiet = sum.letters == 0;
            if !is_quiet {
                due.push((consumer.clone(), sum));
            }
            !is_quiet
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::letter, *};

    #[tokio::test(start_paused = true)]
    async fn the_first_is_said_and_then_how_many_there_were_each_minute() {
        let (telling, start) = (Telling::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut other = letter("x".into());
        other.note.consumer = "other".into();
        assert!(telling.is_first(&letter("a".into()), at(0)) && telling.is_first(&other, at(1)));
        assert!((0..500).all(|_| !telling.is_first(&letter("b".into()), at(2))));
        assert_eq!(telling.due(at(59), false), []);
        let sum = Sum { letters: 500, items: 500, reason: Some(Refusal::Rejected), message: "no".to_owned() };
        assert_eq!(telling.due(at(60), false), [("test in pipeline traces".into(), sum)]);
        assert!(!telling.is_first(&letter("c".into()), at(61)), "it goes on");
        assert_eq!(telling.due(at(62), true).len(), 1, "at the end what is left is said at once");
        assert_eq!(telling.due(at(180), false), []);
        assert!(telling.is_first(&letter("d".into()), at(181)), "after a quiet minute it is said in full again");
    }
}
