//! Parts of requests, and taking them apart.

use super::Items;
use crate::{delivery::Policy, otlp::split_by_items, signal::Batch};

/// What is left of one record, or a piece of it.
#[derive(Clone)]
pub(super) struct Part {
    /// Where its record stands in `finished`.
    pub(super) place: usize,
    pub(super) batch: Batch,
    /// Which items of the record these are.
    pub(super) items: Items,
}

pub(super) type Parts = Vec<Part>;

impl Part {
    pub(super) fn whole(place: usize, batch: Batch) -> Self {
        Self { place, items: Items::all(batch.items), batch }
    }

    /// Into parts of at most so many items, in order; one where it cannot be split.
    fn split(&self, items_max: u64) -> Parts {
        let mut items = self.items.clone();
        let mut part = |batch: Batch| Self { place: self.place, items: items.take_front(batch.items), batch };
        split_by_items(&self.batch, items_max).into_iter().map(&mut part).collect()
    }
}

/// Splits what is larger than the policy allows.
pub(super) fn within_bounds(piece: Parts, policy: &Policy) -> Vec<Parts> {
    let Policy { request_items_max, request_bytes_max, .. } = *policy;
    let (mut waiting, mut done) = (vec![piece], Vec::new());
    while let Some(piece) = waiting.pop() {
        let items: u64 = piece.iter().map(|part| part.batch.items).sum();
        let bytes: usize = piece.iter().map(|part| part.batch.payload.len()).sum();
        let too_many = request_items_max != 0 && items > request_items_max;
        let too_long = request_bytes_max != 0 && bytes > request_bytes_max;
        if items <= 1 || !(too_many || too_long) {
            done.push(piece);
            continue;
        }
        let smaller = match piece.as_slice() {
            // By whole requests of the largest size rather than by halves, as a Collector's batch processor does.
            [part] if too_many => part.split(request_items_max).into_iter().map(|part| vec![part]).collect(),
            _ => halves(&piece),
        };
        if smaller.len() < 2 {
            done.push(piece);
        } else {
            waiting.extend(smaller.into_iter().rev());
        }
    }
    done
}

/// Two pieces of about half the size: by records where there are several, else by items. Fewer than two: it cannot be split.
pub(super) fn halves(piece: &[Part]) -> Vec<Parts> {
    if let [part] = piece {
        let half = part.batch.items.div_ceil(2).max(1);
        return part.split(half).into_iter().map(|part| vec![part]).collect();
    }
    let (head, tail) = piece.split_at(piece.len() / 2);
    vec![head.to_vec(), tail.to_vec()]
}
