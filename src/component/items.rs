//! Items of a request, where they matter one by one: which of a record's they are, and what a backend says of each.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::RetryCause;
use crate::{
    journal::{JournalId, Position, TopicNames},
    signal::UnixNanos,
};

/// Which of a record's items a part of a request has: their numbers in the record, as its pipeline's processors left it, in order.
///
/// Kept as runs: a whole record is one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Items(SmallVec<[Run; 1]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    count: u64,
}

impl Items {
    /// The first `count`.
    pub fn all(count: u64) -> Self {
        let mut items = Self::default();
        items.push(Run { first: 0, count });
        items
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.count).sum()
    }

    /// Their numbers, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + Clone {
        self.0.iter().flat_map(|run| run.first..run.first + run.count)
    }

    /// Those at these places among them; places ascend.
    pub fn pick(&self, places: &[u64]) -> Self {
        let mut picked = Self::default();
        let mut places = places.iter().peekable();
        let mut before = 0;
        for run in &self.0 {
            while let Some(place) = places.next_if(|place| **place < before + run.count) {
                picked.push(Run { first: run.first + (place - before), count: 1 });
            }
            before += run.count;
        }
        picked
    }

    /// Takes the first `count` off.
    pub fn take_front(&mut self, count: u64) -> Self {
        let (mut taken, mut left, mut wanted) = (Self::default(), Self::default(), count);
        for run in self.0.drain(..) {
            let mine = run.count.min(wanted);
            wanted -= mine;
            taken.push(Run { first: run.first, count: mine });
            left.push(Run { first: run.first + mine, count: run.count - mine });
        }
        *self = left;
        taken
    }

    fn push(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.first + last.count == run.first => last.count += run.count,
            _ => self.0.push(run),
        }
    }
}

/// The topic of a position that is in none: its offset is that of the dead letter that is sent once more.
pub const LETTERS: crate::journal::TopicId = crate::journal::TopicId(u16::MAX);

/// Where one part of a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub position: Position,
    /// When its record came in.
    pub received: UnixNanos,
    pub items: Items,
}

/// Where the parts of a request come from. It is the same when they are sent again: alone or in pieces, by another attempt, after a restart.
#[derive(Clone, Copy)]
pub struct Provenance<'a> {
    /// The pipeline.
    pub reader: &'a Arc<str>,
    pub journal: JournalId,
    pub topics: &'a TopicNames,
    /// One a part.
    pub parts: &'a [Origin],
}

/// What a backend said of the items of a request, where it answers for each. Those that are not named were taken.
///
/// Items are numbered over all parts of the request, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// To be sent again, and no others; ascending.
    pub again: Option<Again>,
    /// Refused for good; ascending by item.
    pub rejected: Vec<Rejection>,
    /// The destination has no form for these: dropped, and no letters; ascending.
    pub unsupported: Vec<u64>,
    /// What refusals are about, in the backend's words.
    pub reasons: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    pub items: Vec<u64>,
    pub reason: String,
    pub after: Option<Duration>,
    pub cause: RetryCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    pub item: u64,
    /// In [`Verdicts::reasons`].
    pub reason: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(items: &Items) -> Vec<u64> {
        items.numbers().collect()
    }

    #[test]
    fn items_keep_their_numbers_however_a_record_is_taken_apart() {
        let mut all = Items::all(10);
        let head = all.take_front(4);
        assert_eq!((numbers(&head), numbers(&all)), (vec![0, 1, 2, 3], vec![4, 5, 6, 7, 8, 9]));
        let mut picked = all.pick(&[0, 2, 3, 5]);
        assert_eq!(numbers(&picked), [4, 6, 7, 9]);
        assert_eq!(picked.count(), 4);
        assert_eq!(numbers(&picked.pick(&[1, 3])), [6, 9]);
        assert_eq!(numbers(&picked.take_front(2)), [4, 6]);
        assert_eq!(numbers(&picked), [7, 9]);
        assert_eq!(picked.take_front(9).count() + picked.count(), 2);
    }
}
