//! JSON both ways, compared with prost and with the generated types' own serde.

use std::{fmt::Debug, time::Duration};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
    },
    common::v1::any_value::Value as Any,
    metrics::v1::{metric, number_data_point},
};
use proptest::prelude::*;
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::{
    otlp::{
        arbitrary::Draw,
        response::{Details, Malformed, Partial, RETRY_AFTER_MAX, Status},
        scan,
        wire::{put_bytes, put_message, put_uint},
    },
    signal::Signal,
};

fn limits() -> Limits {
    Limits { scan: ScanLimits::default(), bytes_max: 64 << 20 }
}

#[track_caller]
fn spans(json: &str) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(&*decode(Signal::Traces, json.as_bytes(), &limits()).unwrap()).unwrap()
}

/// One span with these members.
fn span_body(members: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#)
}

#[track_caller]
fn span(members: &str) -> opentelemetry_proto::tonic::trace::v1::Span {
    spans(&span_body(members)).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

#[track_caller]
fn span_error(members: &str) -> String {
    decode(Signal::Traces, span_body(members).as_bytes(), &limits()).unwrap_err().to_string()
}

/// The value of the only attribute of a span.
#[track_caller]
fn attribute(value: &str) -> Option<Any> {
    span(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#)).attributes.remove(0).value.and_then(|value| value.value)
}

#[track_caller]
fn attribute_error(value: &str) -> String {
    let error = span_error(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#));
    error.strip_prefix("resourceSpans[0].scopeSpans[0].spans[0].attributes[0].value").expect("the path of the value").to_owned()
}

fn metric(members: &str) -> Result<metric::Data, JsonError> {
    let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{{members}}}]}}]}}]}}"#);
    let bytes = decode(Signal::Metrics, body.as_bytes(), &limits())?;
    let mut request = ExportMetricsServiceRequest::decode(&*bytes).unwrap();
    Ok(request.resource_metrics.remove(0).scope_metrics.remove(0).metrics.remove(0).data.unwrap())
}

fn gauge_value(point: &str) -> Result<Option<number_data_point::Value>, JsonError> {
    match metric(&format!(r#""gauge":{{"dataPoints":[{{{point}}}]}}"#))? {
        metric::Data::Gauge(mut gauge) => Ok(gauge.data_points.remove(0).value),
        other => panic!("not a gauge: {other:?}"),
    }
}

// === ids ===

#[test]
fn reads_ids_in_hex_of_either_case() {
    let span = span(r#""traceId":"5B8EFFF798038103d269b633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"""#);
    assert_eq!(span.trace_id, [0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c]);
    assert_eq!(span.span_id, [0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74]);
    assert!(span.parent_span_id.is_empty());
}

#[test]
fn leaves_ids_of_a_wrong_length_to_the_scan() {
    let body = span_body(r#""traceId":"5b8eff","spanId":"eee19b7ec3c1b174","name":"x""#);
    let bytes = decode(Signal::Traces, body.as_bytes(), &limits()).unwrap();
    let found = scan(Signal::Traces, &bytes, &ScanLimits::default(), None).unwrap();
    assert_eq!((found.items, found.invalid_items), (1, 1));
}

#[test]
fn refuses_ids_that_are_not_hex() {
    let path = "resourceSpans[0].scopeSpans[0].spans[0].traceId: ";
    assert!(
        span_error(r#""traceId":"W47/95gDgQPSabYzgT/GDA==""#)
            .starts_with(&format!("{path}`W47/95gDgQPSabYzgT/GDA==` is not an id in hex"))
    );
    assert!(span_error(r#""traceId":"abc""#).starts_with(&format!("{path}`abc` is not an id in hex")));
    assert!(span_error(r#""traceId":12"#).starts_with(&format!("{path}`12` is not an id in hex")));
}

// === numbers ===

#[test]
fn reads_64_bit_integers_as_strings_and_numbers() {
    for (text, value) in [
        ("\"7\"", 7),
        ("7", 7),
        ("\"-9223372036854775808\"", i64::MIN),
        ("-9223372036854775808", i64::MIN),
        ("\"9223372036854775807\"", i64::MAX),
        ("9223372036854775807", i64::MAX),
        ("5.0", 5),
        ("\"5.0\"", 5),
        ("1.7e18", 1_700_000_000_000_000_000),
        ("-0", 0),
    ] {
        assert_eq!(attribute(&format!(r#"{{"intValue":{text}}}"#)), Some(Any::IntValue(value)), "{text}");
    }
    for (text, value) in [("\"18446744073709551615\"", u64::MAX), ("18446744073709551615", u64::MAX), ("0", 0), ("null", 0)] {
        assert_eq!(span(&format!(r#""startTimeUnixNano":{text}"#)).start_time_unix_nano, value, "{text}");
    }
}

#[test]
fn refuses_integers_out_of_range_and_fractions() {
    for text in [
        "9223372036854775808",
        "\"9223372036854775808\"",
        "1.5",
        "\"1.5\"",
        "1e300",
        "\"\"",
        "\" 1\"",
        "\"+1\"",
        "\"0x1\"",
        "\"inf\"",
        "true",
        "[]",
        "{}",
    ] {
        let error = attribute_error(&format!(r#"{{"intValue":{text}}}"#));
        assert!(error.contains(".intValue: ") && error.contains("is not a 64-bit integer"), "{text}: {error}");
    }
    for text in ["-1", "\"-1\"", "18446744073709551616", "\"18446744073709551616\"", "\"oops\""] {
        let error = span_error(&format!(r#""startTimeUnixNano":{text}"#));
        assert!(error.contains("startTimeUnixNano: ") && error.contains("is not an unsigned 64-bit integer"), "{text}: {error}");
    }
    assert!(span_error(r#""flags":4294967296"#).contains("`4294967296` is not an unsigned 32-bit integer"));
    assert!(span_error(r#""droppedLinksCount":-1"#).contains("`-1` is not an unsigned 32-bit integer"));
}

#[test]
fn reads_doubles_in_all_their_spellings() {
    for (text, value) in [
        ("3", 3.0),
        ("-0.0", -0.0),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
        ("\"1.5e-3\"", 0.0015),
        ("18446744073709551615", 18_446_744_073_709_551_615.0),
        // The nearest double needs all of the digits.
        ("2.2250738585072011e-308", f64::from_bits(0x000f_ffff_ffff_ffff)),
    ] {
        let read = gauge_value(&format!(r#""asDouble":{text}"#)).unwrap();
        let Some(number_data_point::Value::AsDouble(read)) = read else { panic!("{text}: {read:?}") };
        assert_eq!(read.to_bits(), f64::to_bits(value), "{text}");
    }
    assert!(matches!(gauge_value(r#""asDouble":"NaN""#), Ok(Some(number_data_point::Value::AsDouble(value))) if value.is_nan()));
    for text in ["\"nan\"", "\"inf\"", "\"\"", "\"1e999\"", "1e999", "true", "\".5\"", "\"5.\""] {
        assert!(gauge_value(&format!(r#""asDouble":{text}"#)).is_err(), "{text}");
    }
}

#[test]
fn reads_signed_and_packed_numbers_of_exponential_histograms() {
    let data = metric(
        r#""exponentialHistogram":{"dataPoints":[{"scale":-3,"positive":{"offset":"-1","bucketCounts":["1",300,0]},"zeroThreshold":1e-9}]}"#,
    );
    let Ok(metric::Data::ExponentialHistogram(histogram)) = data else { panic!("{data:?}") };
    let point = &histogram.data_points[0];
    let positive = point.positive.as_ref().unwrap();
    assert_eq!((point.scale, positive.offset, &*positive.bucket_counts), (-3, -1, &[1, 300, 0][..]));
    assert_eq!(point.zero_threshold.to_bits(), 1e-9_f64.to_bits());
}

#[test]
fn reads_histograms_with_counts_as_strings() {
    let data =
        metric(r#""histogram":{"dataPoints":[{"count":"3","sum":0,"bucketCounts":["1","2",0],"explicitBounds":[1,"2.5"]}]}"#);
    let Ok(metric::Data::Histogram(histogram)) = data else { panic!("{data:?}") };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum, point.min), (3, Some(0.0), None));
    assert_eq!((&*point.bucket_counts, &*point.explicit_bounds), (&[1, 2, 0][..], &[1.0, 2.5][..]));
}

// === enums, bytes, strings ===

#[test]
fn reads_enums_as_numbers_and_names() {
    assert_eq!(span(r#""kind":2"#).kind, 2);
    assert_eq!(span(r#""kind":"SPAN_KIND_SERVER""#).kind, 2);
    assert_eq!(span(r#""kind":77"#).kind, 77);
    assert_eq!(span(r#""kind":-1"#).kind, -1);
    assert_eq!(span(r#""status":{"code":"STATUS_CODE_ERROR"}"#).status.unwrap().code, 2);
    let sum = metric(r#""sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","isMonotonic":true}"#);
    assert!(matches!(sum, Ok(metric::Data::Sum(sum)) if sum.aggregation_temporality == 2 && sum.is_monotonic));
    let bytes = decode(
        Signal::Logs,
        br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"SEVERITY_NUMBER_FATAL4"}]}]}]}"#,
        &limits(),
    );
    let logs = ExportLogsServiceRequest::decode(&*bytes.unwrap()).unwrap();
    assert_eq!(logs.resource_logs[0].scope_logs[0].log_records[0].severity_number, 24);
    assert!(span_error(r#""kind":"SERVER""#).contains("spans[0].kind: `SERVER` is not a value of this enum"));
    assert!(span_error(r#""kind":1.5"#).contains("`1.5` is not a value of this enum"));
}

#[test]
fn reads_bytes_in_either_alphabet_with_and_without_padding() {
    for text in ["+/8=", "-_8=", "+/8", "-_8"] {
        assert_eq!(attribute(&format!(r#"{{"bytesValue":"{text}"}}"#)), Some(Any::BytesValue(vec![0xfb, 0xff])), "{text}");
    }
    assert_eq!(attribute(r#"{"bytesValue":""}"#), Some(Any::BytesValue(Vec::new())));
    assert!(attribute_error(r#"{"bytesValue":"a b"}"#).contains("`a b` is not base64"));
}

#[test]
fn reads_escapes_and_refuses_half_surrogates() {
    assert_eq!(span(r#""name":"a\u00e9\ud83d\ude00\n\u0000""#).name, "aé😀\n\0");
    assert!(span_error(r#""name":"\ud83d""#).contains("the body is not JSON"));
    assert!(span_error(r#""name":"\ude00x""#).contains("the body is not JSON"));
    assert!(span_error("\"name\":\"a\nb\"").contains("the body is not JSON"));
}

#[test]
fn refuses_a_body_that_is_not_utf8() {
    let error = decode(Signal::Traces, b"{\"resourceSpans\":\n[\"\xff\"]}", &limits()).unwrap_err();
    assert_eq!(error.to_string(), "the body is not UTF-8, line 2 column 3");
    // Also where we skip.
    assert!(decode(Signal::Traces, b"{\"unknown\":\"\xff\"}", &limits()).is_err());
}

// === shapes ===

#[test]
fn a_oneof_keeps_its_default_value() {
    assert_eq!(attribute(r#"{"stringValue":""}"#), Some(Any::StringValue(String::new())));
    assert_eq!(attribute(r#"{"intValue":"0"}"#), Some(Any::IntValue(0)));
    assert_eq!(attribute(r#"{"boolValue":false}"#), Some(Any::BoolValue(false)));
    assert_eq!(attribute("{}"), None);
    assert!(matches!(attribute(r#"{"arrayValue":{}}"#), Some(Any::ArrayValue(list)) if list.values.is_empty()));
}

#[test]
fn null_is_as_good_as_absent() {
    let span = span(r#""name":null,"name":"x","attributes":null,"status":null,"kind":null,"traceId":null"#);
    assert_eq!((&*span.name, span.status, span.kind), ("x", None, 0));
    assert_eq!(attribute("null"), None);
    assert_eq!(attribute(r#"{"stringValue":null,"intValue":1}"#), Some(Any::IntValue(1)));
    let list = attribute(r#"{"arrayValue":{"values":[null,{"intValue":1}]}}"#);
    assert!(matches!(list, Some(Any::ArrayValue(list)) if list.values.len() == 2 && list.values[0].value.is_none()));
    assert!(metric(r#""histogram":{"dataPoints":[{"bucketCounts":[null]}]}"#).is_err());
}

#[test]
fn skips_what_it_does_not_know() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let span = span(&format!(r#""colour":{{"a":[1,{{"b":null}}]}},"x":{deep},"name":"n","Name":7"#));
    assert_eq!(span.name, "n");
}

#[test]
fn reads_keys_as_the_proto_files_spell_them() {
    let body = r#"{"resource_spans":[{"scope_spans":[{"spans":[{"trace_id":"00","start_time_unix_nano":"5","dropped_events_count":1}]}]}]}"#;
    let span = &spans(body).resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((&*span.trace_id, span.start_time_unix_nano, span.dropped_events_count), (&[0_u8][..], 5, 1));
}

#[test]
fn refuses_a_key_given_twice_and_two_members_of_a_oneof() {
    let error = span_error(r#""name":"a","name":"b""#);
    assert!(error.starts_with("resourceSpans[0].scopeSpans[0].spans[0].name: the key is given twice"), "{error}");
    assert!(span_error(r#""traceId":"00","trace_id":"00""#).contains("the key is given twice"));
    let error = attribute_error(r#"{"stringValue":"a","intValue":1}"#);
    assert!(error.contains("only one of `stringValue` and `intValue` can be given"), "{error}");
}

#[test]
fn refuses_values_of_another_shape() {
    for (members, complaint) in [
        (r#""name":5"#, "name: `5` is not a string"),
        (r#""name":{}"#, "name: an object is not a string"),
        (r#""attributes":{}"#, "attributes: an object is not a list"),
        (r#""attributes":"x""#, "attributes: `x` is not a list"),
        (r#""attributes":[[]]"#, "attributes[0]: a list is not an object"),
        (r#""attributes":[{},7]"#, "attributes[1]: `7` is not an object"),
        (r#""status":[]"#, "status: a list is not an object"),
        (r#""status":true"#, "status: `true` is not an object"),
    ] {
        let error = span_error(members);
        assert!(error.contains(complaint), "{members}: {error}");
    }
    for body in ["", "null", "[]", "7", "\"x\"", "{", "{}x", "{\"resourceSpans\":[}", "{'a':1}"] {
        assert!(decode(Signal::Traces, body.as_bytes(), &limits()).is_err(), "{body}");
    }
    assert_eq!(decode(Signal::Traces, b" {} ", &limits()), Ok(Vec::new()));
}

#[test]
fn says_where_and_shows_little_of_what_it_was_sent() {
    let error = span_error(r#""startTimeUnixNano":"oops""#);
    let expected =
        "resourceSpans[0].scopeSpans[0].spans[0].startTimeUnixNano: `oops` is not an unsigned 64-bit integer, line 1 column ";
    assert!(error.starts_with(expected), "{error}");
    let error = span_error(&format!(r#""startTimeUnixNano":"\u001b[31m\n{}""#, "x".repeat(5000)));
    assert!(error.contains("`\\u{1b}[31m\\nxxx") && error.contains("…`") && error.len() < 300, "{error}");
}

// === the bugs of the generated types' serde ===

#[test]
fn a_wrong_data_point_is_an_error_and_not_a_silent_gap() {
    let error = metric(r#""gauge":{"dataPoints":[{"timeUnixNano":"oops","asInt":"1"}]}"#).unwrap_err();
    assert_eq!(error.path, "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0].timeUnixNano");
    assert_eq!(error.kind, JsonErrorKind::Malformed);
}

#[test]
fn as_int_is_read_from_strings_numbers_and_beside_unknown_keys() {
    for point in [r#""asInt":"7""#, r#""asInt":7"#, r#""asInt":"7","colour":"red""#] {
        assert_eq!(gauge_value(point), Ok(Some(number_data_point::Value::AsInt(7))), "{point}");
    }
}

// === limits ===

/// A span attribute holding arrays inside arrays.
fn nested(depth: usize) -> String {
    let value = r#"{"arrayValue":{"values":["#.repeat(depth) + &"]}}".repeat(depth);
    span_body(&format!(
        r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","attributes":[{{"key":"k","value":{value}}}]"#
    ))
}

#[test]
fn nests_as_deep_as_the_scan_allows_and_no_deeper() {
    for depth in 1..80 {
        let read = decode(Signal::Traces, nested(depth).as_bytes(), &limits());
        let mut limitless = limits();
        limitless.scan.value_depth_max = 1000;
        let bytes = decode(Signal::Traces, nested(depth).as_bytes(), &limitless).unwrap();
        let scanned = scan(Signal::Traces, &bytes, &ScanLimits::default(), None);
        assert_eq!(read.is_ok(), scanned.is_ok(), "{depth}: {read:?} {scanned:?}");
    }
    for depth in [10_000, 1_000_000] {
        let error = decode(Signal::Traces, nested(depth).as_bytes(), &limits()).unwrap_err();
        assert_eq!(error.kind, JsonErrorKind::TooDeep);
    }
}

#[test]
fn refuses_more_elements_than_the_size_of_the_body_allows() {
    let body = format!(r#"{{"resourceSpans":[{}{{}}]}}"#, "{},".repeat(100_000));
    let error = decode(Signal::Traces, body.as_bytes(), &limits()).unwrap_err();
    assert_eq!(error.kind, JsonErrorKind::TooManyElements);
}

#[test]
fn refuses_a_body_that_grows_too_large() {
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{}1]}}]}}}}]}}]}}]}}"#,
        "1,".repeat(50_000)
    );
    let tight = Limits { bytes_max: 100_000, ..limits() };
    let error = decode(Signal::Metrics, body.as_bytes(), &tight).unwrap_err();
    assert_eq!(error.kind, JsonErrorKind::TooLarge);
    assert!(decode(Signal::Metrics, body.as_bytes(), &limits()).is_ok());
}

// === writing ===

#[test]
fn writes_what_the_protocol_prescribes() {
    let body = concat!(
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"a\"\\\u0001\n","value":{"bytesValue":"+/8="}}]},"#,
        r#""scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","flags":257,"kind":2,"#,
        r#""startTimeUnixNano":"1544712660000000000","attributes":[{"key":"i","value":{"intValue":"-3"}},"#,
        r#"{"key":"d","value":{"doubleValue":"NaN"}},{"key":"e","value":{"doubleValue":2.5}},{"key":"l","value":{"arrayValue":{"values":[{},{"boolValue":false}]}}}],"#,
        r#""droppedAttributesCount":1,"status":{}}]}]}]}"#
    );
    let bytes = decode(Signal::Traces, body.as_bytes(), &limits()).unwrap();
    assert_eq!(json_of(Signal::Traces, &bytes), body);
    assert_eq!(json_of(Signal::Logs, &[]), "{}");
}

#[track_caller]
fn json_of(signal: Signal, bytes: &[u8]) -> String {
    let mut out = Vec::new();
    encode(signal, bytes, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn writes_scattered_and_repeated_fields_as_protobuf_reads_them() {
    let mut body = Vec::new();
    put_message(&mut body, 1, |out| {
        put_message(out, 2, |out| put_bytes(out, 3, b"one"));
        put_message(out, 1, |out| put_uint(out, 2, 1));
        put_message(out, 2, |out| put_bytes(out, 3, b"two"));
        put_bytes(out, 3, b"first");
        // The resource again: merged; the last of two strings counts; a number we do not know is left out.
        put_message(out, 1, |out| put_message(out, 1, |out| put_bytes(out, 1, b"k")));
        put_bytes(out, 3, b"last");
        put_bytes(out, 77, b"?");
    });
    let expected = concat!(
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"k"}],"droppedAttributesCount":1},"#,
        r#""scopeSpans":[{"schemaUrl":"one"},{"schemaUrl":"two"}],"schemaUrl":"last"}]}"#
    );
    assert_eq!(json_of(Signal::Traces, &body), expected);
}

#[test]
fn the_last_member_of_a_oneof_counts() {
    let mut value = Vec::new();
    put_message(&mut value, 5, |out| put_message(out, 1, |out| put_uint(out, 3, 1)));
    put_uint(&mut value, 3, 9);
    put_message(&mut value, 5, |out| put_message(out, 1, |out| put_uint(out, 3, 2)));
    let mut body = Vec::new();
    put_message(&mut body, 1, |out| {
        put_message(out, 2, |out| put_message(out, 2, |out| put_message(out, 5, |out| out.extend_from_slice(&value))));
    });
    let expected = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"arrayValue":{"values":[{"intValue":"2"}]}}}]}]}]}"#;
    assert_eq!(json_of(Signal::Logs, &body), expected);
}

#[test]
fn writes_unpacked_lists_of_numbers() {
    let mut point = Vec::new();
    for count in [1_u64, 2] {
        crate::otlp::wire::put_fixed64_always(&mut point, 6, count);
    }
    put_bytes(&mut point, 6, &3_u64.to_le_bytes());
    let mut body = Vec::new();
    put_message(&mut body, 1, |out| {
        put_message(out, 2, |out| put_message(out, 2, |out| put_message(out, 9, |out| put_bytes(out, 1, &point))));
    });
    assert!(json_of(Signal::Metrics, &body).contains(r#""bucketCounts":["1","2","3"]"#));
}

#[test]
fn refuses_to_write_what_is_no_protobuf() {
    for bytes in [&b"\x0a\x05\x00"[..], b"\x0b", b"\xff", b"\x0a\x01\xff"] {
        assert_eq!(encode(Signal::Traces, bytes, &mut Vec::new()), Err(Malformed), "{bytes:?}");
    }
}

// === against prost and its serde ===

/// NaNs are one NaN in JSON, so requests are compared as Debug shows them.
fn shown_by_prost<T: Message + Default + Debug>(bytes: &[u8]) -> String {
    format!("{:?}", T::decode(bytes).expect("prost reads it"))
}

fn shown(signal: Signal, bytes: &[u8]) -> String {
    match signal {
        Signal::Traces => shown_by_prost::<ExportTraceServiceRequest>(bytes),
        Signal::Metrics => shown_by_prost::<ExportMetricsServiceRequest>(bytes),
        Signal::Logs => shown_by_prost::<ExportLogsServiceRequest>(bytes),
    }
}

fn serde_of<T: Message + Default + Serialize + DeserializeOwned>(bytes: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&T::decode(bytes).unwrap()).unwrap()
}

/// The generated types' own JSON of a request.
fn serde_json_of(signal: Signal, bytes: &[u8]) -> Vec<u8> {
    match signal {
        Signal::Traces => serde_of::<ExportTraceServiceRequest>(bytes),
        Signal::Metrics => serde_of::<ExportMetricsServiceRequest>(bytes),
        Signal::Logs => serde_of::<ExportLogsServiceRequest>(bytes),
    }
}

proptest! {
    #[test]
    fn reads_what_the_generated_types_write(seed: u64, which in 0..3_usize) {
        let signal = Signal::ALL[which];
        // Their serde writes NaN and the infinities as null.
        let json = json_of(signal, &Draw::new(seed).request(signal));
        let json = json.replace("\"NaN\"", "1.5").replace("\"Infinity\"", "2.5").replace("\"-Infinity\"", "3.5");
        let payload = decode(signal, json.as_bytes(), &limits()).unwrap();
        let theirs = serde_json_of(signal, &payload);
        let bytes = decode(signal, &theirs, &limits())
            .map_err(|error| TestCaseError::fail(format!("{error}: {}", String::from_utf8_lossy(&theirs))))?;
        prop_assert_eq!(shown(signal, &bytes), shown(signal, &payload));
    }

    #[test]
    fn bytes_become_json_and_the_same_bytes_again(seed: u64, which in 0..3_usize) {
        let signal = Signal::ALL[which];
        let payload = Draw::new(seed).request(signal);
        let json = json_of(signal, &payload);
        let bytes = decode(signal, json.as_bytes(), &limits()).map_err(|error| TestCaseError::fail(format!("{error}: {json}")))?;
        prop_assert_eq!(shown(signal, &bytes), shown(signal, &payload));
        prop_assert!(scan(signal, &bytes, &ScanLimits::default(), None).is_ok());
        // Written twice, it is the same text.
        prop_assert_eq!(json_of(signal, &bytes), json);
    }

    #[test]
    fn any_json_is_read_or_refused_without_a_panic(json in "[\\[\\]{}\",:a-z0-9\\\\ ]{0,60}", which in 0..3_usize) {
        drop(decode(Signal::ALL[which], json.as_bytes(), &limits()));
    }

    #[test]
    fn json_cut_or_changed_anywhere_never_panics(seed: u64, at: prop::sample::Index, byte: u8) {
        let signal = Signal::ALL[(seed % 3) as usize];
        let mut json = json_of(signal, &Draw::new(seed).request(signal)).into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(bytes) = decode(signal, &json, &limits()) {
            shown(signal, &bytes);
        }
        prop_assert!(decode(signal, &json[..at], &limits()).is_err());
    }

    #[test]
    fn any_bytes_are_written_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), which in 0..3_usize) {
        let mut out = Vec::new();
        if encode(Signal::ALL[which], &bytes, &mut out).is_ok() {
            prop_assert!(str::from_utf8(&out).is_ok());
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok());
        }
    }
}

// === answers ===

#[test]
fn an_answer_is_an_empty_object_or_says_what_was_rejected() {
    assert_eq!(encode_success(Signal::Traces, None), b"{}");
    let spans = encode_success(Signal::Traces, Some((3, "bad \"ids\"")));
    assert_eq!(String::from_utf8_lossy(&spans), r#"{"partialSuccess":{"errorMessage":"bad \"ids\"","rejectedSpans":"3"}}"#);
    let points = encode_success(Signal::Metrics, Some((4, "")));
    assert_eq!(String::from_utf8_lossy(&points), r#"{"partialSuccess":{"rejectedDataPoints":"4"}}"#);
    let logs = encode_success(Signal::Logs, Some((0, "repaired")));
    assert_eq!(String::from_utf8_lossy(&logs), r#"{"partialSuccess":{"errorMessage":"repaired"}}"#);
    for signal in Signal::ALL {
        let partial = Partial { rejected: 5, message: "x".to_owned() };
        assert_eq!(decode_success(signal, &encode_success(signal, Some((5, "x")))), Ok(Some(partial)));
        assert_eq!(decode_success(signal, b"{}"), Ok(None));
    }
}

#[test]
fn reads_answers_as_other_servers_write_them() {
    let read = |body: &str| decode_success(Signal::Traces, body.as_bytes());
    assert_eq!(read(r#"{"partialSuccess":{}}"#), Ok(None));
    assert_eq!(read(r#"{"partialSuccess":null}"#), Ok(None));
    assert_eq!(read(r#"{"partial_success":{"rejected_spans":2},"more":[]}"#).unwrap().unwrap().rejected, 2);
    assert_eq!(read(r#"{"partialSuccess":{"rejectedSpans":"-2"}}"#), Ok(None));
    assert_eq!(read(r#"{"partialSuccess":{"errorMessage":"a\nb"}}"#).unwrap().unwrap().message, "a\nb");
    for body in ["", "[]7", "<html>", r#"{"partialSuccess":{"rejectedSpans":"two"}}"#] {
        assert_eq!(read(body), Err(Malformed), "{body}");
    }
}

#[test]
fn a_status_is_written_as_google_rpc_has_it_in_json() {
    let details = Details { retry_after: Some(Duration::from_millis(1500)), violations: &[("a[0]", "too deep")] };
    let text = String::from_utf8(encode_status(3, "no", &details)).unwrap();
    let expected = concat!(
        r#"{"code":3,"message":"no","details":["#,
        r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.500s"},"#,
        r#"{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"a[0]","description":"too deep"}]}]}"#
    );
    assert_eq!(text, expected);
    let status = Status { code: 3, message: "no".to_owned(), retry_after: Some(Duration::from_millis(1500)) };
    assert_eq!(decode_status(text.as_bytes()), status);
}

#[test]
fn delays_are_read_within_bounds() {
    for (text, delay) in [
        ("0s", Some(Duration::ZERO)),
        ("2.000000001s", Some(Duration::new(2, 1))),
        ("-5s", Some(Duration::ZERO)),
        ("99999999999s", Some(RETRY_AFTER_MAX)),
        ("5", None),
        ("s", None),
        ("1.0000000000s", None),
        ("1.-5s", None),
    ] {
        let body = format!(r#"{{"code":14,"details":[{{"@type":"x/google.rpc.RetryInfo","retryDelay":"{text}"}}]}}"#);
        assert_eq!(decode_status(body.as_bytes()).retry_after, delay, "{text}");
    }
    assert_eq!(decode_status(b"<html>"), Status::default());
    assert_eq!(decode_status(br#"{"code":7,"details":[{"@type":"other","x":[{}]},{}]}"#).code, 7);
}

proptest! {
    #[test]
    fn delays_come_back(nanos in 0..86_400_000_000_000_u64) {
        let delay = Duration::from_nanos(nanos);
        prop_assert_eq!(decode_status(&encode_status(14, "", &Details::retry_after(delay))).retry_after, Some(delay));
    }
}
