//! Answers that speak of each item: what was taken is delivered, what was refused goes to the dead letters, the rest is sent again.

use std::{collections::BTreeMap, iter::Peekable};

use super::{Journey, Part, Parts, Route};
use crate::{
    component::{Again, Rejection, Verdicts},
    journal::{DropReason, Refusal},
    otlp::pick_items,
    signal::Batch,
};

impl Journey {
    /// Accounts for all items of `piece` that the backend took or refused for good, and leaves the others in it.
    pub(super) fn sort_out(&mut self, piece: &mut Parts, verdicts: Verdicts, route: Route<'_>) -> Option<Again> {
        let Verdicts { again, rejected, unsupported, reasons } = verdicts;
        let mut again_items = again.iter().flat_map(|again| again.items.iter().copied()).peekable();
        let mut rejected = rejected.into_iter().peekable();
        let mut unsupported = unsupported.into_iter().peekable();
        let (tries, mut base) = (self.tries + 1, 0);
        let mut left = Parts::new();
        for part in std::mem::take(piece) {
            let end = base + part.batch.items;
            let (mut refused, by_reason) = of_part(&mut rejected, base, end);
            let formless = below(&mut unsupported, base, end, &refused);
            let left_out = picked(&part, &formless);
            refused.extend(formless);
            refused.sort_unstable();
            let waits = below(&mut again_items, base, end, &refused);
            base = end;
            let mut accounted = part.batch.items - waits.len() as u64;
            for (reason, numbers) in &by_reason {
                let message = reasons.get(*reason).map_or("refused without a word", String::as_str);
                let Some(picked) = picked(&part, numbers) else { continue };
                let items = picked.batch.items;
                accounted -= items;
                let picked = [picked];
                self.bury(&picked, Refusal::Rejected, message, tries, route);
                route.settle(&picked, Some(DropReason::Rejected), items, message, &mut self.finished);
            }
            if let Some(left_out) = left_out {
                let items = left_out.batch.items;
                accounted -= items;
                let message = "this backend has no form for them";
                route.settle(&[left_out], Some(DropReason::Unsupported), items, message, &mut self.finished);
            }
            if accounted > 0 {
                self.deliver(&part, accounted, &refused, &waits, route);
            }
            if waits.len() as u64 == part.batch.items {
                left.push(part);
            } else if let Some(part) = picked(&part, &waits) {
                left.push(part);
            }
        }
        *piece = left;
        again.filter(|_| !piece.is_empty())
    }

    /// Books so many items of a part as delivered: those that neither were refused nor wait.
    fn deliver(&mut self, part: &Part, items: u64, refused: &[u64], waits: &[u64], route: Route<'_>) {
        let destination = route.destination;
        if let Some(sent) = destination.metrics.sent.get(part.batch.signal.ordinal()) {
            sent.inc_by(items);
        }
        if let Some((_, settled)) = self.finished.get_mut(part.place) {
            settled.delivered += items;
        }
        if !destination.shows_delivered() {
            return;
        }
        if items == part.batch.items {
            destination.show(&route.live.pipeline, &part.batch, None, "");
            return;
        }
        let taken: Vec<u64> = (0..part.batch.items)
            .filter(|number| waits.binary_search(number).is_err() && refused.binary_search(number).is_err())
            .collect();
        if let Some(taken) = pick_items(&part.batch, &taken) {
            destination.show(&route.live.pipeline, &taken, None, "");
        }
    }
}

/// Takes the items before `end`, as their numbers in the part that begins at `base`; without those that `but` has.
fn below(items: &mut Peekable<impl Iterator<Item = u64>>, base: u64, end: u64, but: &[u64]) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(item) = items.next_if(|item| *item < end) {
        let number = item.saturating_sub(base);
        if but.binary_search(&number).is_err() && numbers.last() != Some(&number) {
            numbers.push(number);
        }
    }
    numbers
}

/// Takes the refusals of the items `base..end`: their numbers in the part, all and by reason.
fn of_part(
    rejected: &mut Peekable<impl Iterator<Item = Rejection>>,
    base: u64,
    end: u64,
) -> (Vec<u64>, BTreeMap<usize, Vec<u64>>) {
    let mut all = Vec::new();
    let mut by_reason: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    while let Some(rejection) = rejected.next_if(|rejection| rejection.item < end) {
        let number = rejection.item.saturating_sub(base);
        if all.last() != Some(&number) {
            all.push(number);
            by_reason.entry(rejection.reason).or_default().push(number);
        }
    }
    (all, by_reason)
}

fn picked(part: &Part, numbers: &[u64]) -> Option<Part> {
    let batch: Batch = pick_items(&part.batch, numbers)?;
    Some(Part { place: part.place, items: part.items.pick(numbers), batch })
}
