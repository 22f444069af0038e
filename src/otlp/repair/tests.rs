//! Repaired requests against what prost makes of the broken ones.

use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, metric::Data};
use proptest::prelude::*;
use prost::Message;

use super::repair;
use crate::{
    otlp::{
        ScanLimits,
        arbitrary::{Draw, Harm},
        oracle::{self, Request},
        scan,
        tests::{attribute, request, span},
        wire::{put_bytes_always, put_message},
    },
    signal::Signal,
};

const WIDE: ScanLimits = ScanLimits { value_depth_max: 32, elements_base: u64::MAX, bytes_per_element: 1 };

/// What is left when the items with bad ids are taken out, and the envelopes that they leave empty.
fn without_invalid(request: Request) -> Request {
    let id = |id: &[u8], len: usize| id.is_empty() || id.len() == len;
    let set = |id: &[u8]| id.iter().any(|byte| *byte != 0);
    match request {
        Request::Traces(mut request) => {
            request.resource_spans.retain_mut(|of_resource| {
                keep(&mut of_resource.scope_spans, |of_scope| {
                    keep(&mut of_scope.spans, |span| {
                        set(&span.trace_id)
                            && set(&span.span_id)
                            && id(&span.trace_id, 16)
                            && id(&span.span_id, 8)
                            && id(&span.parent_span_id, 8)
                            && span.links.iter().all(|link| id(&link.trace_id, 16) && id(&link.span_id, 8))
                    })
                })
            });
            Request::Traces(request)
        }
        Request::Logs(mut request) => {
            request.resource_logs.retain_mut(|of_resource| {
                keep(&mut of_resource.scope_logs, |of_scope| {
                    keep(&mut of_scope.log_records, |record| id(&record.trace_id, 16) && id(&record.span_id, 8))
                })
            });
            Request::Logs(request)
        }
        Request::Metrics(mut request) => {
            let good = |exemplars: &[Exemplar]| exemplars.iter().all(|one| id(&one.trace_id, 16) && id(&one.span_id, 8));
            let metric = |metric: &mut Metric| match &mut metric.data {
                Some(Data::Gauge(data)) => keep(&mut data.data_points, |point| good(&point.exemplars)),
                Some(Data::Sum(data)) => keep(&mut data.data_points, |point| good(&point.exemplars)),
                Some(Data::Histogram(data)) => keep(&mut data.data_points, |point| good(&point.exemplars)),
                Some(Data::ExponentialHistogram(data)) => keep(&mut data.data_points, |point| good(&point.exemplars)),
                None | Some(Data::Summary(_)) => true,
            };
            request
                .resource_metrics
                .retain_mut(|of_resource| keep(&mut of_resource.scope_metrics, |of_scope| keep(&mut of_scope.metrics, metric)));
            Request::Metrics(request)
        }
    }
}

/// Keeps what is good; says whether anything is left, or nothing was there to begin with.
fn keep<T>(list: &mut Vec<T>, good: impl FnMut(&mut T) -> bool) -> bool {
    let before = list.len();
    list.retain_mut(good);
    before == 0 || !list.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn messages_that_came_twice_are_merged_as_prost_merges_them(seed: u64, unknown: bool) {
        for signal in Signal::ALL {
            let mut draw = Draw::new(seed);
            let payload = draw.request(signal);
            let payload = draw.harm(signal, &payload, Harm { merge: true, unknown, ..Harm::default() });
            let expected = oracle::decode(signal, &payload).unwrap();
            let repaired = repair(signal, &payload);
            prop_assert_eq!(oracle::decode(signal, &repaired.payload).unwrap().encode(), expected.encode());
            prop_assert_eq!(oracle::view(signal, &repaired.payload).encode(), expected.encode());
            prop_assert_eq!((repaired.items, repaired.left_out), (expected.items().len() as u64, 0));
            prop_assert!(scan(signal, &repaired.payload, &WIDE, None).unwrap().is_regular());
        }
    }

    #[test]
    fn exactly_the_invalid_items_are_left_out(seed: u64) {
        for signal in Signal::ALL {
            let mut draw = Draw::new(seed);
            let payload = draw.request(signal);
            let payload = draw.harm(signal, &payload, Harm { ids: true, ..Harm::default() });
            let found = scan(signal, &payload, &WIDE, None).unwrap();
            let repaired = repair(signal, &payload);
            let expected = without_invalid(oracle::decode(signal, &payload).unwrap());
            prop_assert_eq!(oracle::decode(signal, &repaired.payload).unwrap().items(), expected.items());
            prop_assert_eq!(repaired.items, expected.items().len() as u64);
            prop_assert_eq!((repaired.items + repaired.left_out, repaired.left_out), (found.items, found.invalid_items));
            prop_assert!(scan(signal, &repaired.payload, &WIDE, None).unwrap().is_regular());
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters(seed: u64) {
        for signal in Signal::ALL {
            let harmed = |text: &'static [u8]| {
                let mut draw = Draw::new(seed);
                let payload = draw.request(signal);
                draw.harm(signal, &payload, Harm { text: Some(text), ..Harm::default() })
            };
            let broken = harmed(&[0xc0]);
            let repaired = repair(signal, &broken);
            let expected = oracle::decode(signal, &harmed("\u{fffd}".as_bytes())).unwrap();
            prop_assert_eq!(oracle::decode(signal, &repaired.payload).unwrap().encode(), expected.encode());
            let strings = repaired.strings.iter().map(|(_, count)| count).sum::<u64>();
            prop_assert_eq!(strings, scan(signal, &broken, &WIDE, None).unwrap().not_utf8);
        }
    }

    #[test]
    fn any_bytes_are_repaired_without_a_panic(payload: Vec<u8>) {
        for signal in Signal::ALL {
            repair(signal, &payload);
        }
    }
}

#[test]
fn envelopes_that_lose_all_items_go_and_empty_ones_stay() {
    let mut bad = span("bad");
    bad.span_id.clear();
    let mut all = request(vec![bad.clone()]);
    all.resource_spans.extend(request(vec![span("good"), bad]).resource_spans);
    all.resource_spans.extend(request(vec![]).resource_spans);
    let repaired = repair(Signal::Traces, &all.encode_to_vec());
    let mut expected = request(vec![span("good")]);
    expected.resource_spans.extend(request(vec![]).resource_spans);
    assert_eq!((&repaired.payload[..], repaired.items, repaired.left_out), (&expected.encode_to_vec()[..], 1, 2));
}

#[test]
fn repaired_strings_are_counted_by_service() {
    let mut payload = Vec::new();
    for service in 0..20 {
        put_message(&mut payload, 1, |out| {
            put_message(out, 1, |out| {
                put_bytes_always(out, 1, &attribute("service.name", &format!("s{service}")).encode_to_vec());
            });
            put_message(out, 2, |out| {
                let mut span = span("").encode_to_vec();
                put_bytes_always(&mut span, 5, b"na\xffme");
                put_bytes_always(&mut span, 3, b"\xff");
                put_bytes_always(out, 2, &span);
            });
        });
    }
    let repaired = repair(Signal::Traces, &payload);
    assert_eq!(repaired.strings.len(), 17);
    assert_eq!(repaired.strings[0], ("s0".to_owned(), 2));
    assert_eq!(repaired.strings[16], ("_other".to_owned(), 8));
}

#[test]
fn unknown_fields_are_kept() {
    let mut payload = Vec::new();
    put_message(&mut payload, 1, |out| {
        put_bytes_always(out, 900, b"new");
        put_message(out, 2, |out| put_bytes_always(out, 2, b""));
    });
    let repaired = repair(Signal::Traces, &payload);
    // The only span was invalid, and with it its resource went.
    assert_eq!((&repaired.payload[..], repaired.left_out), (&[][..], 1));
    let mut payload = Vec::new();
    put_message(&mut payload, 1, |out| {
        put_bytes_always(out, 900, b"new");
        put_bytes_always(out, 3, b"\xff");
    });
    let repaired = repair(Signal::Traces, &payload);
    assert!(repaired.payload.windows(3).any(|bytes| bytes == b"new"));
}
