//! What must hold for any bytes: the laws that the fuzz targets hunt for exceptions to, and that `cargo test` checks on what they found.

#![allow(dead_code, reason = "each fuzz target checks some of them")]

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    otlp::{
        ScanLimits,
        edit::{AttributesWriter, Edit, Editor, Place, edit},
        json, repair, scan,
        scan::Malformed,
        split_by_bytes, split_by_items,
        view::{LogRecordView, MetricView, PointView, ResourceView, SpanView},
    },
    signal::{Batch, Context, Signal, SpanIndex},
};

use super::oracle;

/// Limits that only framing can break, so that prost and the scan can be compared.
const WIDE: ScanLimits = ScanLimits { value_depth_max: 32, elements_base: u64::MAX, bytes_per_element: 1 };

/// The first byte says the signal, the rest is the request.
pub(crate) fn signal(data: &[u8]) -> Option<(Signal, &[u8])> {
    let (first, payload) = data.split_first()?;
    Some((Signal::ALL[usize::from(*first) % 3], payload))
}

/// The scan takes what prost takes and sees what prost sees; what it calls irregular can be repaired.
pub(crate) fn scan_agrees_with_prost(signal: Signal, payload: &[u8]) {
    let mut index = SpanIndex::default();
    let ours = scan(signal, payload, &WIDE, Some(&mut index));
    let theirs = oracle::decode(signal, payload);
    // Views must walk anything.
    let seen = oracle::view(signal, payload);
    match (&ours, &theirs) {
        (Ok(found), Ok(request)) => {
            assert_eq!(found.not_utf8, 0);
            if found.repeats == 0 {
                assert_eq!(found.items, request.items().len() as u64);
                assert_eq!(seen.encode(), request.encode());
            }
            if found.is_regular() && signal == Signal::Traces {
                assert_eq!(index.spans.len() as u64, found.items);
            }
        }
        // On purpose: groups and depth.
        (Err(error), Ok(_)) => assert!(matches!(error.what, Malformed::Group | Malformed::TooDeep { .. }), "{error}"),
        // On purpose: a string that is no text costs nobody a request.
        (Ok(found), Err(error)) => assert!(found.not_utf8 > 0, "{error}"),
        (Err(_), Err(_)) => {}
    }
    let repaired = repair(signal, payload);
    if let Ok(found) = ours {
        let again = scan(signal, &repaired.payload, &WIDE, None).expect("what is repaired is well-formed");
        assert!(again.is_regular() && again.items == repaired.items, "{again:?}");
        let after = oracle::decode(signal, &repaired.payload).expect("what is repaired decodes");
        assert_eq!(oracle::view(signal, &repaired.payload).encode(), after.encode());
        if let (Ok(before), 0) = (theirs, found.invalid_items) {
            assert_eq!(after.encode(), before.encode());
        }
    }
}

/// What JSON becomes is a request to the scan and to prost, and written as JSON and read again it is the same one.
pub(crate) fn json_comes_back(signal: Signal, body: &[u8]) {
    let limits = json::Limits { scan: WIDE, bytes_max: 1 << 24 };
    let Ok(payload) = json::decode(signal, body, &limits) else { return };
    let found = scan(signal, &payload, &WIDE, None).expect("what was read from JSON is well-formed");
    assert_eq!((found.not_utf8, found.repeats), (0, 0));
    let mut text = Vec::new();
    json::encode(signal, &payload, &mut text).expect("what the scan takes can be written");
    let again = json::decode(signal, &text, &limits).expect("what was written can be read");
    let mut text_again = Vec::new();
    json::encode(signal, &again, &mut text_again).expect("what the scan takes can be written");
    assert_eq!(text, text_again);
    // Deeper than a hundred messages prost gives up.
    if let Ok(request) = oracle::decode(signal, &payload) {
        assert_eq!(oracle::decode(signal, &again).expect("it is the same request").encode(), request.encode());
    }
}

/// What an edit and a split leave is what was meant to be left.
pub(crate) fn edits_change_nothing_else(signal: Signal, payload: &[u8], choice: u8) {
    let payload = Bytes::copy_from_slice(payload);
    let same = edit(signal, &payload, &mut Choose { at: 0, of: 0 });
    assert_eq!((same.payload.as_ptr(), same.dropped), (payload.as_ptr(), 0));
    let of = u64::from(choice % 5) + 1;
    let dropped = edit(signal, &payload, &mut Choose { at: 0, of });
    edit(signal, &payload, &mut AddOne);
    let items = crate::otlp::count::items(signal, &payload);
    let batch = Batch { signal, payload: payload.clone(), items, context: Arc::new(Context::default()), index: None };
    let mut pieces = split_by_items(&batch, of);
    pieces.extend(split_by_bytes(&batch, usize::from(choice) * 4));

    // On bytes that the door would not let through it is enough not to panic.
    if !scan(signal, &payload, &WIDE, None).is_ok_and(|found| found.is_regular()) {
        return;
    }
    let before = oracle::decode(signal, &payload).expect("the scan took it").items();
    let after = oracle::decode(signal, &dropped.payload).expect("an edited request decodes").items();
    assert_eq!(before.len() as u64, after.len() as u64 + dropped.dropped);
    assert!(after.iter().all(|item| before.binary_search(item).is_ok()));
    let mut all: Vec<_> =
        pieces.iter().flat_map(|piece| oracle::decode(signal, &piece.payload).expect("a piece decodes").items()).collect();
    let mut twice = [before.clone(), before].concat();
    all.sort();
    twice.sort();
    assert_eq!(all, twice);
    let added = edit(signal, &payload, &mut AddOne);
    assert!(scan(signal, &added.payload, &WIDE, None).is_ok_and(|found| found.is_regular() && found.items == items));
}

/// Drops every item whose number `of` divides; none for 0.
struct Choose {
    at: u64,
    of: u64,
}

impl Choose {
    fn next(&mut self) -> Edit {
        self.at += 1;
        if self.at.is_multiple_of(self.of) { Edit::Drop } else { Edit::Keep }
    }
}

impl Editor for Choose {
    fn span(&mut self, _: &Place<'_>, _: &SpanView<'_>, _: &mut AttributesWriter) -> Edit {
        self.next()
    }

    fn log_record(&mut self, _: &Place<'_>, _: &LogRecordView<'_>, _: &mut AttributesWriter) -> Edit {
        self.next()
    }

    fn data_point(&mut self, _: &Place<'_>, _: &MetricView<'_>, _: &PointView<'_>, _: &mut AttributesWriter) -> Edit {
        self.next()
    }
}

/// Adds an attribute to everything.
struct AddOne;

impl Editor for AddOne {
    fn resource(&mut self, _: &ResourceView<'_>, out: &mut AttributesWriter) -> Edit {
        out.string("added", "yes");
        Edit::Append
    }

    fn span(&mut self, _: &Place<'_>, span: &SpanView<'_>, out: &mut AttributesWriter) -> Edit {
        span.attributes.iter().for_each(|attribute| out.keep(&attribute));
        out.int("added", 1);
        Edit::Replace
    }

    fn log_record(&mut self, _: &Place<'_>, _: &LogRecordView<'_>, out: &mut AttributesWriter) -> Edit {
        out.int("added", 1);
        Edit::Append
    }

    fn data_point(&mut self, _: &Place<'_>, _: &MetricView<'_>, point: &PointView<'_>, out: &mut AttributesWriter) -> Edit {
        point.attributes().iter().for_each(|attribute| out.keep(&attribute));
        Edit::Replace
    }
}
