//! What a target told last: by it, series that it tells no longer are marked as ended.
//!
//! In:   the points of each scrape, by identity, and the bodies that they went into.
//! Out:  points with `NO_RECORDED_VALUE` for what is gone.
//! Full: as many series as a scrape may have; eight bytes each, and the bodies compressed, which are written anew only when other series
//!       are told than before.

use crate::otlp::{
    fields::{Field, Fields, Value},
    wire,
};

use super::sheet::{Body, MetricHead, Sheet, data};

/// `DataPointFlags`
pub(super) const NO_RECORDED_VALUE: u64 = 1;

/// One point of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// By resource, scope, metric and attributes; 0: not followed, for it has a time of its own.
    pub(super) id: u64,
    /// Lines of a page that it was made of.
    pub(super) samples: u32,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// In the order of the points in `payload`.
    ids: Vec<u64>,
    /// Their bodies, compressed with zstd.
    payload: Vec<u8>,
    raw: usize,
    /// All of it was marked as ended since.
    ended: bool,
}

impl Memory {
    /// Adds markers at `time` for what was told before and is not in `told`. Gives how many samples are new.
    pub(super) fn compare(&self, told: &[Told], time: u64, sheet: &mut Sheet) -> u64 {
        let same = self.ids.len() == told.len() && self.ids.iter().zip(told).all(|(id, told)| *id == told.id);
        if same {
            return 0;
        }
        let mut now: Vec<u64> = told.iter().map(|told| told.id).collect();
        now.sort_unstable();
        if !self.ended {
            let gone: Vec<bool> = self.ids.iter().map(|id| *id != 0 && now.binary_search(id).is_err()).collect();
            self.mark(&gone, time, sheet);
        }
        let mut before = self.ids.clone();
        before.sort_unstable();
        told.iter().filter(|told| before.binary_search(&told.id).is_err()).map(|told| u64::from(told.samples)).sum()
    }

    /// Adds markers for all that was told and not marked yet.
    pub(super) fn end(&self, time: u64, sheet: &mut Sheet) {
        if !self.ended {
            let gone: Vec<bool> = self.ids.iter().map(|id| *id != 0).collect();
            self.mark(&gone, time, sheet);
        }
    }

    /// The markers of [`Self::end`] are in.
    pub(super) fn ended(&mut self) {
        self.ended = true;
    }

    /// These were told, in these bodies, in this order.
    pub(super) fn told(&mut self, told: &[Told], bodies: &[Body]) {
        let same = self.ids.len() == told.len() && self.ids.iter().zip(told).all(|(id, told)| *id == told.id);
        self.ended = false;
        if same {
            return;
        }
        self.ids = told.iter().map(|told| told.id).collect();
        let mut raw = Vec::with_capacity(bodies.iter().map(|body| body.payload.len()).sum());
        for body in bodies {
            raw.extend_from_slice(&body.payload);
        }
        self.raw = raw.len();
        // Compressing into memory does not fail; without it nothing could be marked, so the ids go, too.
        match zstd::bulk::compress(&raw, 1) {
            Ok(payload) => self.payload = payload,
            Err(_) => *self = Self::default(),
        }
    }

    fn mark(&self, gone: &[bool], time: u64, sheet: &mut Sheet) {
        if !gone.contains(&true) {
            return;
        }
        let Ok(raw) = zstd::bulk::decompress(&self.payload, self.raw) else { return };
        let mut gone = gone.iter().copied();
        for resource in Fields::new(&raw).messages(1) {
            mark_resource(resource, &mut gone, time, sheet);
        }
    }
}

fn mark_resource(resource: &[u8], gone: &mut impl Iterator<Item = bool>, time: u64, sheet: &mut Sheet) {
    sheet.resource(without(resource, 2));
    for scope in Fields::new(resource).messages(2) {
        sheet.scope(without(scope, 2));
        for metric in Fields::new(scope).messages(2) {
            mark_metric(metric, gone, time, sheet);
        }
    }
}

fn mark_metric(metric: &[u8], gone: &mut impl Iterator<Item = bool>, time: u64, sheet: &mut Sheet) {
    for field in Fields::new(metric) {
        let (Value::Bytes(points), number @ (5 | 7 | 9..=11)) = (field.value, field.number) else { continue };
        sheet.metric(MetricHead { fields: without(metric, number), data: number, data_fields: without(points, 1) });
        let (attributes, flags) = match number {
            data::HISTOGRAM => (9, 10),
            data::EXPONENTIAL => (1, 10),
            _ => (7, 8),
        };
        for point in Fields::new(points).messages(1) {
            if gone.next() == Some(true) {
                sheet.point(|out| {
                    for attribute in Fields::new(point).messages(attributes) {
                        wire::put_bytes_always(out, attributes, attribute);
                    }
                    wire::put_fixed64(out, 3, time);
                    wire::put_uint(out, flags, NO_RECORDED_VALUE);
                });
            }
        }
    }
}

/// The fields of a message but for one.
fn without(message: &[u8], number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number: one, value } in Fields::new(message).filter(|field| field.number != number) {
        match value {
            Value::Varint(value) => wire::put_uint_always(&mut out, one, value),
            Value::Fixed64(value) => wire::put_fixed64_always(&mut out, one, value),
            Value::Bytes(bytes) => wire::put_bytes_always(&mut out, one, bytes),
            Value::Fixed32(_) => {}
        }
    }
    out
}
