//! What a consumer shows to taps.

use std::sync::Arc;

use crate::{
    journal::DropReason,
    runtime::Clock,
    signal::{Batch, ComponentId},
    tap::{At, Seen, Taps},
};

/// Who shows something.
#[derive(Clone, Copy)]
pub(super) struct Passing<'a> {
    pub(super) taps: &'a Taps,
    pub(super) clock: &'a Clock,
    pub(super) pipeline: &'a Arc<str>,
    pub(super) component: &'a ComponentId,
}

impl Passing<'_> {
    /// So many items of a record were dropped by processors; which of them, only a comparison would tell.
    pub(super) fn part(self, record: &Batch, dropped: u64) {
        if dropped > 0 && self.taps.wants(At::Dropped) {
            let message = format!("{dropped} of these {} items, by a processor's rule", record.items);
            self.show(record, Some(DropReason::Processor), &message);
        }
    }

    /// `dropped`: why it will not be delivered; `None`: it is. A message stands beside either.
    pub(super) fn show(self, batch: &Batch, dropped: Option<DropReason>, message: &str) {
        let at = if dropped.is_some() { At::Dropped } else { At::Delivered };
        if !self.taps.wants(at) {
            return;
        }
        let seen = Seen {
            at,
            batch: batch.clone(),
            time: self.clock.now(),
            component: self.component.clone(),
            pipeline: Some(self.pipeline.clone()),
            peer: None,
            transport: None,
            reason: None,
            message: None,
        };
        self.taps.show(seen.said(dropped.map(DropReason::as_str), message));
    }
}
