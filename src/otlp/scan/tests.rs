//! The scan against prost, and what it says of bad requests.

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{Exemplar, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    trace::v1::{Status, span::Link},
};
use proptest::prelude::*;
use prost::Message;

use super::{Malformed, Scan, ScanError, ScanLimits, scan};
use crate::{
    otlp::{
        arbitrary::Draw,
        oracle,
        tests::{attribute, one_span, request, span},
        view::{SpanView, TracesView, View},
        wire::{put_bytes_always, put_message, put_tag, put_uint_always, put_varint},
    },
    signal::{Signal, SpanIndex},
};

fn check(signal: Signal, payload: &[u8]) -> Result<Scan, ScanError> {
    scan(signal, payload, &ScanLimits::default(), None)
}

fn traces(payload: &[u8]) -> Result<Scan, ScanError> {
    check(Signal::Traces, payload)
}

/// Limits that only framing can break, for the comparison with prost.
const WIDE: ScanLimits = ScanLimits { value_depth_max: 32, elements_base: u64::MAX, bytes_per_element: 1 };

/// Whether the scan and prost agree about `payload`; what they differ in on purpose is named here.
fn agrees(signal: Signal, payload: &[u8]) -> Result<(), TestCaseError> {
    let ours = scan(signal, payload, &WIDE, None);
    let theirs = oracle::decode(signal, payload);
    match (&ours, &theirs) {
        (Ok(scan), Ok(request)) => {
            prop_assert_eq!(scan.not_utf8, 0);
            if scan.repeats == 0 {
                prop_assert_eq!(scan.items, request.items().len() as u64);
                prop_assert_eq!(oracle::view(signal, payload).encode(), request.encode());
            }
        }
        (Err(error), Ok(_)) => {
            // prost skips groups in unknown fields, and nests a little deeper.
            prop_assert!(matches!(error.what, Malformed::Group | Malformed::TooDeep { .. }), "{error}");
        }
        // prost refuses the whole request for one string that is not UTF-8.
        (Ok(scan), Err(error)) => prop_assert!(scan.not_utf8 > 0, "{error}"),
        (Err(_), Err(_)) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn takes_what_prost_encodes(seed: u64) {
        for signal in Signal::ALL {
            let payload = Draw::new(seed).request(signal);
            let scan = check(signal, &payload).unwrap();
            prop_assert!(scan.is_regular(), "{scan:?}");
            prop_assert_eq!(scan.items, oracle::decode(signal, &payload).unwrap().items().len() as u64);
        }
    }

    #[test]
    fn judges_damaged_requests_as_prost_does(seed: u64, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        for signal in Signal::ALL {
            let mut payload = Draw::new(seed).request(signal);
            for (at, byte) in &damage {
                if !payload.is_empty() {
                    let at = at.index(payload.len());
                    payload[at] = *byte;
                    agrees(signal, &payload)?;
                }
            }
        }
    }

    #[test]
    fn judges_flipped_bits_as_prost_does(seed: u64, at: prop::sample::Index, bit in 0_u8..8) {
        for signal in Signal::ALL {
            let mut payload = Draw::new(seed).request(signal);
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] ^= 1 << bit;
                agrees(signal, &payload)?;
            }
        }
    }

    #[test]
    fn judges_cut_requests_as_prost_does(seed: u64, cut: prop::sample::Index) {
        for signal in Signal::ALL {
            let payload = Draw::new(seed).request(signal);
            agrees(signal, &payload[..cut.index(payload.len() + 1)])?;
        }
    }

    #[test]
    fn judges_any_bytes_as_prost_does(payload: Vec<u8>) {
        for signal in Signal::ALL {
            agrees(signal, &payload)?;
        }
    }

    #[test]
    fn judges_any_fields_as_prost_does(fields in prop::collection::vec((1_u32..18, 0_u8..6, any::<u64>(), prop::collection::vec(any::<u8>(), 0..20)), 0..12), levels in 0_usize..6) {
        let mut payload = Vec::new();
        for (number, wire, value, bytes) in fields {
            put_tag(&mut payload, number, wire);
            match wire {
                0 => put_varint(&mut payload, value),
                1 => payload.extend_from_slice(&value.to_le_bytes()),
                2 => { put_varint(&mut payload, bytes.len() as u64); payload.extend_from_slice(&bytes); }
                5 => payload.extend_from_slice(&(value as u32).to_le_bytes()),
                _ => {}
            }
        }
        for level in (0..levels).rev() {
            let inner = payload;
            payload = Vec::new();
            put_bytes_always(&mut payload, if level == 0 { 1 } else { 2 }, &inner);
        }
        for signal in Signal::ALL {
            agrees(signal, &payload)?;
        }
    }

    #[test]
    fn the_index_says_what_the_views_say(seed: u64) {
        let payload = Draw::new(seed).request(Signal::Traces);
        let mut index = SpanIndex::default();
        scan(Signal::Traces, &payload, &ScanLimits::default(), Some(&mut index)).unwrap();
        let part = |(start, len): (u32, u32)| &payload[start as usize..(start + len) as usize];
        let id = |at: u32, len: usize| if at == 0 { &[][..] } else { &payload[at as usize..][..len] };
        let mut entries = index.spans.iter();
        // A resource without spans has no entry.
        let view = TracesView::new(&payload);
        let resources = || view.resources().filter(|resource| resource.scopes().any(|scope| scope.items().next().is_some()));
        prop_assert_eq!(resources().count(), index.resources.len());
        for (resource, entry) in resources().zip(&index.resources) {
            prop_assert_eq!(resource.resource_bytes().unwrap_or_default(), part(entry.resource));
            let spans = resource.scopes().map(|scope| scope.items().count()).sum::<usize>();
            prop_assert_eq!(spans, (entry.end_span - entry.first_span) as usize);
            for scope in resource.scopes() {
                for span in scope.items() {
                    let entry = entries.next().unwrap();
                    prop_assert_eq!(span.bytes(), part(entry.span));
                    prop_assert_eq!(SpanView::from_entry(&payload, entry).bytes(), span.bytes());
                    prop_assert_eq!(span.name.as_bytes(), part(entry.name));
                    prop_assert_eq!(span.trace_state.as_bytes(), part(entry.trace_state));
                    prop_assert_eq!(span.trace_id, id(entry.trace_id, 16));
                    prop_assert_eq!(span.span_id, id(entry.span_id, 8));
                    prop_assert_eq!(span.parent_span_id, id(entry.parent_span_id, 8));
                    prop_assert_eq!(span.start_unix_nanos, entry.start_unix_nanos);
                    prop_assert_eq!(span.end_unix_nanos, entry.end_unix_nanos);
                    prop_assert_eq!(if (0..=5).contains(&span.kind) { span.kind } else { 255 }, i32::from(entry.kind));
                    prop_assert_eq!(if (0..=2).contains(&span.status.code) { span.status.code } else { 255 }, i32::from(entry.status));
                    prop_assert_eq!(scope.scope_bytes().unwrap_or_default(), part(entry.scope));
                }
            }
        }
        prop_assert!(entries.next().is_none());
    }
}

#[test]
fn an_empty_request_is_fine() {
    for signal in Signal::ALL {
        assert_eq!(check(signal, &[]), Ok(Scan::default()));
    }
}

/// 4 MiB of the smallest messages there are.
fn bomb(number: u32, levels: &[u32]) -> Vec<u8> {
    let mut inner = Vec::new();
    while inner.len() < 4 << 20 {
        put_bytes_always(&mut inner, number, &[]);
    }
    for level in levels {
        let mut outer = Vec::new();
        put_bytes_always(&mut outer, *level, &inner);
        inner = outer;
    }
    inner
}

#[test]
fn refuses_an_element_bomb_of_any_kind() {
    // Spans, attributes, events, links, resource spans, values in an array, unknown fields, scopes' attributes, keys of an entity.
    for (number, levels) in [
        (2, &[2, 1][..]),
        (9, &[2, 2, 1]),
        (11, &[2, 2, 1]),
        (13, &[2, 2, 1]),
        (1, &[]),
        (1, &[5, 2, 9, 2, 2, 1]),
        (1, &[6, 2, 9, 2, 2, 1]),
        (7, &[2, 2, 1]),
        (3, &[1, 2, 1]),
        (3, &[3, 1, 1]),
    ] {
        // Field 7 of a span is fixed, so for unknown ones a number beyond the table is needed.
        let payload = bomb(if number == 7 { 15_000 } else { number }, levels);
        let error = traces(&payload).unwrap_err();
        assert!(matches!(error.what, Malformed::TooManyElements { .. }), "{number} in {levels:?}: {error}");
    }
}

#[test]
fn the_element_budget_leaves_room_for_small_integers_in_arrays() {
    let values = (0..100_000).map(|n| AnyValue { value: Some(Value::IntValue(n % 100)) }).collect();
    let array = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) };
    let mut span = span("tokens");
    span.attributes.push(KeyValue { key: "ids".to_owned(), value: Some(array), key_strindex: 0 });
    assert!(traces(&request(vec![span]).encode_to_vec()).unwrap().is_regular());
}

fn nested(levels: usize) -> Vec<u8> {
    let mut value = Vec::new();
    put_uint_always(&mut value, 3, 1);
    for _ in 1..levels {
        let mut outer = Vec::new();
        put_message(&mut outer, 5, |out| put_bytes_always(out, 1, &value));
        value = outer;
    }
    let mut payload = Vec::new();
    put_message(&mut payload, 1, |out| {
        put_message(out, 2, |out| {
            put_message(out, 2, |out| {
                put_message(out, 9, |out| put_bytes_always(out, 2, &value));
            });
        });
    });
    payload
}

#[test]
fn takes_values_up_to_the_depth_limit_and_refuses_deeper_ones() {
    assert!(traces(&nested(32)).is_ok());
    let error = traces(&nested(33)).unwrap_err();
    assert_eq!(error.what, Malformed::TooDeep { limit: 32 });
    assert!(matches!(traces(&nested(10_000)).unwrap_err().what, Malformed::TooDeep { .. }));
}

#[test]
fn says_where_the_error_is() {
    let payload = request(vec![span("a"), span("b")]).encode_to_vec();
    // The name's length byte of the second span.
    let at = payload.windows(3).rposition(|bytes| bytes == [0x2a, 1, b'b']).unwrap();
    let mut damaged = payload;
    damaged[at + 1] = 0x7f;
    let error = traces(&damaged).unwrap_err();
    assert_eq!(error.offset, at);
    assert_eq!(
        error.to_string(),
        format!(
            "resource_spans[0].scope_spans[0].spans[1], field 5 (name): a value runs past the end of its message, at byte {at}"
        )
    );
}

#[test]
fn refuses_a_known_field_of_another_wire_type() {
    let mut payload = Vec::new();
    put_uint_always(&mut payload, 1, 5);
    let error = traces(&payload).unwrap_err();
    assert_eq!((error.what, error.offset), (Malformed::WireType, 0));
}

#[test]
fn refuses_groups() {
    let mut payload = Vec::new();
    put_tag(&mut payload, 100, 3);
    put_tag(&mut payload, 100, 4);
    assert_eq!(traces(&payload).unwrap_err().what, Malformed::Group);
}

#[test]
fn tells_spans_with_bad_ids_from_good_ones() {
    let mut spans: Vec<_> = (0..7).map(|_| span("s")).collect();
    spans[1].trace_id.pop();
    spans[2].span_id.clear();
    spans[3].trace_id = vec![0; 16];
    spans[4].parent_span_id = vec![1; 7];
    spans[5].links = vec![Link { trace_id: vec![1; 3], ..Link::default() }];
    spans[6].parent_span_id = vec![0; 8];
    let found = traces(&request(spans).encode_to_vec()).unwrap();
    assert_eq!((found.items, found.invalid_items), (7, 5));
    assert_eq!(found.first_invalid.as_deref(), Some("resource_spans[0].scope_spans[0].spans[1]: trace_id has 15 bytes, not 16"));
}

#[test]
fn log_records_need_no_ids_but_right_ones() {
    let records = vec![
        LogRecord::default(),
        LogRecord { trace_id: vec![0; 16], span_id: vec![0; 8], ..LogRecord::default() },
        LogRecord { span_id: vec![1; 9], ..LogRecord::default() },
    ];
    let scopes = vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }];
    let payload =
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs: scopes, ..ResourceLogs::default() }] };
    let found = check(Signal::Logs, &payload.encode_to_vec()).unwrap();
    assert_eq!((found.items, found.invalid_items), (3, 1));
}

#[test]
fn a_point_with_a_bad_exemplar_is_invalid() {
    let exemplars = vec![Exemplar { trace_id: vec![1; 4], ..Exemplar::default() }];
    let data_points = vec![NumberDataPoint::default(), NumberDataPoint { exemplars, ..NumberDataPoint::default() }];
    let metrics = vec![Metric { data: Some(Data::Gauge(Gauge { data_points })), ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let payload =
        ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }] };
    let found = check(Signal::Metrics, &payload.encode_to_vec()).unwrap();
    assert_eq!((found.items, found.invalid_items), (2, 1));
}

#[test]
fn counts_strings_that_are_not_utf8() {
    let mut one = span("name");
    one.attributes.push(attribute("key", "value"));
    one.status = Some(Status { message: "message".to_owned(), code: 2 });
    let mut payload = request(vec![one, span("ok")]).encode_to_vec();
    for word in ["name", "value", "message"] {
        let at = payload.windows(word.len()).rposition(|bytes| bytes == word.as_bytes()).unwrap();
        payload[at + 1] = 0xff;
    }
    let found = traces(&payload).unwrap();
    assert_eq!((found.not_utf8, found.invalid_items), (3, 0));
    assert!(!found.is_regular());
}

#[test]
fn sees_sub_messages_that_come_twice() {
    let once = one_span();
    assert_eq!(traces(&once).unwrap().repeats, 0);
    let mut twice = Vec::new();
    put_message(&mut twice, 1, |out| {
        put_message(out, 1, |_| {});
        put_message(out, 1, |_| {});
        put_message(out, 2, |out| {
            put_message(out, 1, |_| {});
            put_message(out, 1, |_| {});
        });
    });
    assert_eq!(traces(&twice).unwrap().repeats, 2);
}

#[test]
fn a_key_written_longer_than_needed_does_not_fool_the_index() {
    let mut payload = Vec::new();
    put_message(&mut payload, 1, |out| {
        put_message(out, 2, |out| {
            put_message(out, 2, |out| {
                put_bytes_always(out, 1, &[1; 16]);
                put_bytes_always(out, 2, &[2; 8]);
                // Field 5, a string: 0x2a in two bytes.
                out.extend_from_slice(&[0xaa, 0x00, 1, b'n']);
            });
        });
    });
    let mut index = SpanIndex::default();
    assert!(scan(Signal::Traces, &payload, &ScanLimits::default(), Some(&mut index)).unwrap().is_regular());
    let (start, len) = index.spans[0].name;
    assert_eq!(&payload[start as usize..(start + len) as usize], b"n");
    assert_eq!(SpanView::new(&payload[6..]).name, "n");
}
