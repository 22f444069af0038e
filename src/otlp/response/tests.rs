//! Answers, compared with the generated types where there are any.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use proptest::prelude::*;
use prost::Message;

use super::*;

#[test]
fn says_nothing_when_all_was_taken() {
    assert_eq!(encode_success(Signal::Traces, None), Vec::<u8>::new());
    assert_eq!(decode_success(Signal::Traces, &[]), Ok(None));
    // `partial_success` set but empty.
    assert_eq!(decode_success(Signal::Logs, &[0x0a, 0x00]), Ok(None));
}

#[test]
fn partial_success_reads_as_the_generated_types_of_all_signals() {
    let spans = ExportTraceServiceResponse::decode(&*encode_success(Signal::Traces, Some((3, "bad ids")))).unwrap();
    assert_eq!(spans.partial_success.map(|p| (p.rejected_spans, p.error_message)), Some((3, "bad ids".to_owned())));
    let points = ExportMetricsServiceResponse::decode(&*encode_success(Signal::Metrics, Some((7, "x")))).unwrap();
    assert_eq!(points.partial_success.map(|p| (p.rejected_data_points, p.error_message)), Some((7, "x".to_owned())));
    let logs = ExportLogsServiceResponse::decode(&*encode_success(Signal::Logs, Some((0, "repaired")))).unwrap();
    assert_eq!(logs.partial_success.map(|p| (p.rejected_log_records, p.error_message)), Some((0, "repaired".to_owned())));
}

#[test]
fn takes_a_negative_count_as_none() {
    let mut body = Vec::new();
    put_message(&mut body, 1, |out| put_uint(out, 1, -5_i64 as u64));
    assert_eq!(decode_success(Signal::Traces, &body), Ok(None));
}

#[test]
fn refuses_an_answer_that_is_not_protobuf() {
    assert_eq!(decode_success(Signal::Traces, b"<html>"), Err(Malformed));
    assert_eq!(decode_success(Signal::Traces, &[0x0a, 0xff]), Err(Malformed));
}

#[test]
fn a_status_comes_back_with_its_retry_hint() {
    let bytes = encode_status(14, "no room", &Details::retry_after(Duration::from_millis(1500)));
    let expected = Status { code: 14, message: "no room".to_owned(), retry_after: Some(Duration::from_millis(1500)) };
    assert_eq!(decode_status(&bytes), expected);
}

/// `google.rpc.Status` as its .proto file numbers it, read by prost.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcBadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<RpcViolation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[test]
fn a_status_reads_as_google_rpc_numbers_it() {
    let details = Details { retry_after: Some(Duration::ZERO), violations: &[("resource_spans[0]", "too deep")] };
    let status = RpcStatus::decode(&*encode_status(3, "no", &details)).unwrap();
    assert_eq!((status.code, &*status.message), (3, "no"));
    assert_eq!(status.details[0].type_url, RETRY_INFO);
    assert_eq!(status.details[1].type_url, BAD_REQUEST);
    let bad = RpcBadRequest::decode(&*status.details[1].value).unwrap();
    assert_eq!(bad.field_violations[0].field, "resource_spans[0]");
    assert_eq!(bad.field_violations[0].description, "too deep");
}

#[test]
fn a_retry_hint_of_zero_is_still_a_hint() {
    let bytes = encode_status(14, "", &Details::retry_after(Duration::ZERO));
    assert_eq!(decode_status(&bytes).retry_after, Some(Duration::ZERO));
}

#[test]
fn hints_and_messages_of_a_peer_are_bounded() {
    let forever = encode_status(14, &"é".repeat(5000), &Details::retry_after(Duration::MAX));
    let status = decode_status(&forever);
    assert_eq!(status.retry_after, Some(RETRY_AFTER_MAX));
    assert_eq!(status.message.len(), MESSAGE_BYTES_MAX);
    assert_eq!(bounded_delay(-3, -1), Duration::ZERO);
    assert_eq!(bounded_delay(i64::MAX, i32::MAX), RETRY_AFTER_MAX);
    // Not UTF-8: each byte becomes three, which must not pass the bound.
    let mut raw = Vec::new();
    put_bytes(&mut raw, 2, &[0xff; 10_000]);
    assert!(decode_status(&raw).message.len() <= MESSAGE_BYTES_MAX);
}

proptest! {
    #[test]
    fn no_answer_of_a_peer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let status = decode_status(&bytes);
        prop_assert!(status.message.len() <= MESSAGE_BYTES_MAX);
        if let Ok(Some(partial)) = decode_success(Signal::Metrics, &bytes) {
            prop_assert!(partial.message.len() <= MESSAGE_BYTES_MAX);
        }
    }

    #[test]
    fn what_prost_reads_as_a_response_reads_the_same(rejected in 0..i64::MAX, message in ".{0,40}") {
        let bytes = encode_success(Signal::Traces, Some((rejected as u64, &message)));
        let read = decode_success(Signal::Traces, &bytes).unwrap().unwrap_or_default();
        prop_assert_eq!(read.rejected, rejected as u64);
        prop_assert_eq!(read.message, message);
    }
}
