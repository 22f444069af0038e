//! Pieces of requests: the same items, in order, each where it belongs.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use super::{join, pick_items, split_by_bytes, split_by_items, split_by_resource};
use crate::{
    otlp::{
        ScanLimits,
        arbitrary::Draw,
        count, oracle, scan,
        tests::{request, span},
    },
    signal::{Batch, Context, Signal},
};

fn batch(signal: Signal, payload: Vec<u8>) -> Batch {
    let items = count::items(signal, &payload);
    Batch { signal, payload: payload.into(), items, context: Arc::new(Context::default()), index: None }
}

/// The items of all pieces, and that each piece says how many it has.
fn items(signal: Signal, pieces: &[Batch]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for piece in pieces {
        let items = oracle::decode(signal, &piece.payload).unwrap().items();
        assert_eq!(items.len() as u64, piece.items);
        assert!(scan(signal, &piece.payload, &ScanLimits::default(), None).unwrap().is_regular());
        all.extend(items);
    }
    all.sort();
    all
}

/// Each item where it stands, in wire order: what splitting into single ones gives.
fn singles(batch: &Batch) -> Vec<Batch> {
    split_by_items(batch, 1)
}

proptest! {
    #[test]
    fn picking_takes_the_items_of_these_numbers_and_no_others(seed: u64, chosen: u64) {
        for signal in Signal::ALL {
            let whole = batch(signal, Draw::new(seed).request(signal));
            let numbers: Vec<u64> = (0..whole.items).filter(|number| chosen >> (number % 64) & 1 == 1).collect();
            let picked = pick_items(&whole, &numbers);
            let each = singles(&whole);
            let wanted: Vec<Batch> = numbers.iter().map(|number| each[*number as usize].clone()).collect();
            prop_assert_eq!(picked.as_ref().map_or(0, |picked| picked.items), numbers.len() as u64);
            prop_assert_eq!(items(signal, picked.as_slice()), items(signal, &wanted));
            // Also in their order.
            let again: Vec<_> = picked.iter().flat_map(singles).flat_map(|one| items(signal, &[one])).collect();
            prop_assert_eq!(again, wanted.into_iter().flat_map(|one| items(signal, &[one])).collect::<Vec<_>>());
        }
    }

    #[test]
    fn splitting_by_items_keeps_all_of_them(seed: u64, max in 1_u64..9) {
        for signal in Signal::ALL {
            let whole = batch(signal, Draw::new(seed).request(signal));
            let pieces = split_by_items(&whole, max);
            prop_assert_eq!(items(signal, &pieces), oracle::decode(signal, &whole.payload).unwrap().items());
            if whole.items > max {
                prop_assert!(pieces.iter().all(|piece| piece.items > 0 && piece.items <= max));
                prop_assert_eq!(pieces.len() as u64, whole.items.div_ceil(max));
            }
        }
    }

    #[test]
    fn splitting_by_bytes_keeps_all_items(seed: u64, max in 0_usize..5_000) {
        for signal in Signal::ALL {
            let whole = batch(signal, Draw::new(seed).request(signal));
            let pieces = split_by_bytes(&whole, max);
            prop_assert_eq!(items(signal, &pieces), oracle::decode(signal, &whole.payload).unwrap().items());
            prop_assert!(pieces.iter().all(|piece| piece.payload.len() <= max || piece.items <= 1));
        }
    }

    #[test]
    fn splitting_by_resource_and_joining_gives_the_request_back(seed: u64) {
        for signal in Signal::ALL {
            let whole = batch(signal, Draw::new(seed).request(signal));
            let pieces = split_by_resource(&whole);
            let payloads: Vec<Bytes> = pieces.iter().map(|piece| piece.payload.clone()).collect();
            prop_assert_eq!(join(&payloads), whole.payload);
            prop_assert_eq!(pieces.iter().map(|piece| piece.items).sum::<u64>(), whole.items);
        }
    }

    #[test]
    fn damaged_requests_are_split_without_a_panic(seed: u64, at: prop::sample::Index, byte: u8, max in 1_u64..4) {
        for signal in Signal::ALL {
            let mut payload = Draw::new(seed).request(signal);
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            let whole = batch(signal, payload);
            split_by_items(&whole, max);
            split_by_bytes(&whole, max as usize * 100);
            split_by_resource(&whole);
        }
    }
}

#[test]
fn pieces_keep_the_order_of_their_items() {
    let spans = (0..100).map(|n| span(&n.to_string())).collect();
    let pieces = split_by_items(&batch(Signal::Traces, request(spans).encode_to_vec()), 30);
    assert_eq!(pieces.iter().map(|piece| piece.items).collect::<Vec<_>>(), [30, 30, 30, 10]);
    let mut names = Vec::new();
    for piece in &pieces {
        let piece = ExportTraceServiceRequest::decode(&piece.payload[..]).unwrap();
        names.extend(piece.resource_spans[0].scope_spans[0].spans.iter().map(|span| span.name.clone()));
    }
    assert_eq!(names, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_fits_is_not_copied() {
    let whole = batch(Signal::Traces, request(vec![span("a"), span("b")]).encode_to_vec());
    for pieces in [split_by_items(&whole, 2), split_by_bytes(&whole, whole.payload.len()), split_by_resource(&whole)] {
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].payload.as_ptr(), whole.payload.as_ptr());
    }
    assert_eq!(join(std::slice::from_ref(&whole.payload)).as_ptr(), whole.payload.as_ptr());
}
