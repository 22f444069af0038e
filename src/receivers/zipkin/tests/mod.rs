//! Spans in all they can be written in, good and bad, over the port and by themselves.

mod hostile;
mod port;

use std::fmt::Write as _;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::Span as Otlp,
};
use prost::Message;
use serde_json::{Value, json};

use super::{json as two, json_v1 as one, proto, sheet::Sheet};
use crate::door::Budget;

/// With room for what the tests write.
fn sheet(parse: bool) -> Sheet {
    Sheet::new(parse, Budget::new(64 << 20).try_take(0).unwrap(), 0)
}

/// As the door reads it.
fn decoded(sheet: Sheet) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(sheet.finish().unwrap().payload).unwrap()
}

fn version_two(spans: &Value, parse: bool) -> Result<ExportTraceServiceRequest, String> {
    let mut sheet = sheet(parse);
    two::spans(spans.to_string().as_bytes(), |span| sheet.add(span))?;
    Ok(decoded(sheet))
}

fn version_one(spans: &Value) -> Result<ExportTraceServiceRequest, String> {
    let mut sheet = sheet(false);
    one::spans(spans.to_string().as_bytes(), |span| sheet.add(span))?;
    Ok(decoded(sheet))
}

/// `name=value`, sorted; values in Rust's words for their type.
fn attributes(of: &[KeyValue]) -> Vec<String> {
    let mut shown: Vec<String> = of
        .iter()
        .map(|it| {
            let value = match it.value.as_ref().and_then(|value| value.value.clone()) {
                Some(Any::StringValue(text)) => format!("{text:?}"),
                Some(Any::IntValue(value)) => value.to_string(),
                Some(Any::DoubleValue(value)) => format!("{value:?}"),
                Some(Any::BoolValue(value)) => value.to_string(),
                other => panic!("{other:?}"),
            };
            format!("{}={value}", it.key)
        })
        .collect();
    shown.sort();
    shown
}

fn only(request: &ExportTraceServiceRequest) -> &Otlp {
    let spans: Vec<&Otlp> = request.resource_spans.iter().flat_map(|it| &it.scope_spans).flat_map(|it| &it.spans).collect();
    assert_eq!(spans.len(), 1, "{request:#?}");
    spans[0]
}

fn resources(request: &ExportTraceServiceRequest) -> Vec<Vec<String>> {
    request.resource_spans.iter().map(|it| attributes(&it.resource.as_ref().unwrap().attributes)).collect()
}

fn whole() -> Value {
    json!({
        "traceId": "5af7183fb1d4cf5f5af7183fb1d4cf5f", "parentId": "6b221d5bc9e6496c", "id": "352bff9a74ca9ad2",
        "kind": "CLIENT", "name": "get /api", "timestamp": 1_556_604_172_355_737_u64, "duration": 1431,
        "localEndpoint": {"serviceName": "backend", "ipv4": "192.168.99.1", "port": 3306},
        "remoteEndpoint": {"serviceName": "db", "ipv6": "2001:db8::1", "port": 5432},
        "annotations": [{"timestamp": 1_556_604_172_355_800_u64, "value": "flushed"}],
        "tags": {"http.path": "/api", "n": "3", "ok": "true", "error": "true"},
        "debug": true, "shared": false, "unknown": [{"deep": {}}],
    })
}

#[test]
fn a_whole_span_becomes_what_it_is() {
    let request = version_two(&json!([whole()]), false).unwrap();
    assert_eq!(resources(&request), [["service.name=\"backend\""]]);
    let span = only(&request);
    assert_eq!(
        (hex(&span.trace_id), hex(&span.span_id)),
        ("5af7183fb1d4cf5f5af7183fb1d4cf5f".to_owned(), "352bff9a74ca9ad2".to_owned())
    );
    assert_eq!((hex(&span.parent_span_id), span.name.as_str(), span.kind), ("6b221d5bc9e6496c".to_owned(), "get /api", 3));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_556_604_172_355_737_000, 1_556_604_172_357_168_000));
    assert_eq!(
        attributes(&span.attributes),
        [
            "http.path=\"/api\"",
            "n=\"3\"",
            "net.host.port=3306",
            "net.peer.port=5432",
            "network.local.address=\"192.168.99.1\"",
            "network.peer.address=\"2001:db8::1\"",
            "ok=\"true\"",
            "service.peer.name=\"db\"",
        ]
    );
    assert_eq!(span.status.as_ref().map(|status| (status.code, status.message.as_str())), Some((2, "")));
    let [event] = &span.events[..] else { panic!("{:?}", span.events) };
    assert_eq!((event.name.as_str(), event.time_unix_nano), ("flushed", 1_556_604_172_355_800_000));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn tags_are_parsed_where_that_is_asked_for() {
    let tags = json!([{"traceId": "1", "id": "2", "timestamp": 1,
        "tags": {"i": "-7", "d": "2.5", "b": "true", "f": "false", "t": "t", "s": "7up", "e": "", "l": "9223372036854775808", "n": "nan"}}]);
    let parsed = version_two(&tags, true).unwrap();
    assert_eq!(
        attributes(&only(&parsed).attributes),
        ["b=true", "d=2.5", "e=\"\"", "f=false", "i=-7", "l=\"9223372036854775808\"", "n=\"nan\"", "s=\"7up\"", "t=\"t\""]
    );
}

#[test]
fn kinds_are_those_of_zipkin_and_the_tag_of_the_fifth() {
    let of = |kind: Value, tags: Value| {
        let request =
            version_two(&json!([{"traceId": "1", "id": "2", "timestamp": 1, "kind": kind, "tags": tags}]), false).unwrap();
        (only(&request).kind, attributes(&only(&request).attributes).len())
    };
    for (kind, number) in [("SERVER", 2), ("CLIENT", 3), ("PRODUCER", 4), ("CONSUMER", 5), ("ODD", 0)] {
        assert_eq!(of(json!(kind), json!({})), (number, 0));
    }
    assert_eq!(of(Value::Null, json!({"span.kind": "internal"})), (1, 0));
}

#[test]
fn a_name_stands_once_among_the_attributes_and_the_endpoints_say_it() {
    let tags = (0..100).map(|at| format!("\"t{at}\":\"\",")).collect::<Vec<_>>().concat();
    let body = format!(
        r#"[{{"traceId":"1","id":"1","localEndpoint":{{"port":80}},"remoteEndpoint":{{"serviceName":"db","port":81}},
            "tags":{{"x":"1",{tags}"x":"2","net.host.port":"1","net.peer.port":"2","service.peer.name":"q","network.peer.address":"tag",
            "otel.zipkin.absentField.startTime":"t"}}}}]"#
    );
    let mut sheet = sheet(false);
    two::spans(body.as_bytes(), |span| sheet.add(span)).unwrap();
    let request = decoded(sheet);
    let mut said = attributes(&only(&request).attributes);
    said.retain(|it| !it.starts_with('t'));
    let expected = [
        "net.host.port=80",
        "net.peer.port=81",
        "network.peer.address=\"tag\"",
        "otel.zipkin.absentField.startTime=true",
        "service.peer.name=\"db\"",
        "x=\"2\"",
    ];
    assert_eq!(said, expected);
}

#[test]
fn what_went_wrong_is_the_status() {
    let of = |tags: Value| {
        let request = version_two(&json!([{"traceId": "1", "id": "2", "timestamp": 1, "tags": tags}]), false).unwrap();
        let span = only(&request);
        (span.status.clone().map(|status| (status.code, status.message)), attributes(&span.attributes))
    };
    let status = |code: i32, message: &str| Some((code, message.to_owned()));
    assert_eq!(of(json!({})), (None, vec![]));
    assert_eq!(of(json!({"error": ""})), (status(2, ""), vec![]));
    assert_eq!(of(json!({"error": "false"})), (None, vec!["error=\"false\"".to_owned()]));
    assert_eq!(of(json!({"error": "timed out"})), (status(2, "timed out"), vec!["error=\"timed out\"".to_owned()]));
    let made = json!({"otel.status_code": "STATUS_CODE_ERROR", "otel.status_description": "no", "error": "no"});
    assert_eq!(of(made), (status(2, "no"), vec!["error=\"no\"".to_owned()]));
    assert_eq!(of(json!({"otel.status_code": "STATUS_CODE_OK"})), (status(1, ""), vec![]));
}

#[test]
fn what_exporters_hid_in_tags_is_found_again() {
    let span = json!({"traceId": "1", "id": "2", "timestamp": 1,
        "localEndpoint": {"serviceName": "cart"},
        "annotations": [{"timestamp": 5, "value": "retry|{\"n\":3,\"who\":\"me\"}|2"}, {"timestamp": 6, "value": "a|b"}, {"timestamp": 7, "value": "x|{broken|1"}],
        "tags": {"otel.library.name": "lib", "otel.library.version": "1.2", "w3c.tracestate": "a=b",
            "otlp.link.0": "000102030405060708090a0b0c0d0e0f|0001020304050607|s=1|{\"k\":true}|4", "otlp.link.1": "no link",
            "host.name": "h1", "k8s.pod.name": "p", "x": "y"}});
    let request = version_two(&json!([span]), false).unwrap();
    assert_eq!(resources(&request), [["host.name=\"h1\"", "k8s.pod.name=\"p\"", "service.name=\"cart\""]]);
    let scope = request.resource_spans[0].scope_spans[0].scope.clone().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("lib", "1.2"));
    let span = only(&request);
    assert_eq!(
        (span.trace_state.as_str(), attributes(&span.attributes)),
        ("a=b", vec!["otlp.link.1=\"no link\"".to_owned(), "x=\"y\"".to_owned()])
    );
    let [link] = &span.links[..] else { panic!("{:?}", span.links) };
    assert_eq!((hex(&link.trace_id), link.trace_state.as_str()), ("000102030405060708090a0b0c0d0e0f".to_owned(), "s=1"));
    assert_eq!((attributes(&link.attributes), link.dropped_attributes_count), (vec!["k=true".to_owned()], 4));
    let names: Vec<&str> = span.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["retry", "a|b", "x|{broken|1"]);
    assert_eq!(
        (attributes(&span.events[0].attributes), span.events[0].dropped_attributes_count),
        (vec!["n=3".to_owned(), "who=\"me\"".to_owned()], 2)
    );
}

#[test]
fn spans_of_one_service_share_a_resource_and_keep_their_own_process() {
    let span = |id: u32, service: &str, host: Option<&str>| {
        json!({"traceId": "1", "id": format!("{id:x}"), "timestamp": 1, "localEndpoint": {"serviceName": service},
            "tags": host.map_or(json!({}), |host| json!({"host.name": host}))})
    };
    let spans = json!([span(1, "a", None), span(2, "b", None), span(3, "a", None), span(4, "a", Some("h")), span(5, "", None)]);
    let request = version_two(&spans, false).unwrap();
    let counts: Vec<usize> =
        request.resource_spans.iter().map(|it| it.scope_spans.iter().map(|it| it.spans.len()).sum()).collect();
    assert_eq!(counts, [2, 1, 1, 1]);
    let none: Vec<String> = vec![];
    assert_eq!(resources(&request)[2..], [vec!["host.name=\"h\"".to_owned(), "service.name=\"a\"".to_owned()], none]);
}

#[test]
fn ids_are_filled_up_and_a_span_is_not_its_own_parent() {
    let request = version_two(&json!([{"traceId": "abc", "id": "f", "parentId": "f", "timestamp": 1}]), false).unwrap();
    let span = only(&request);
    assert_eq!(
        (hex(&span.trace_id), hex(&span.span_id)),
        ("00000000000000000000000000000abc".to_owned(), "000000000000000f".to_owned())
    );
    assert!(span.parent_span_id.is_empty());
    let request = version_two(&json!([{"traceId": "abc", "id": "f", "parentId": "0000000000000000"}]), false).unwrap();
    assert!(only(&request).parent_span_id.is_empty());
    assert_eq!(attributes(&only(&request).attributes), ["otel.zipkin.absentField.startTime=true"]);
}

#[test]
fn version_one_says_in_annotations_what_version_two_has_fields_for() {
    let endpoint = json!({"serviceName": "front", "ipv4": "10.0.0.1", "port": 80});
    let other = json!({"serviceName": "back", "ipv4": "10.0.0.2", "port": 81});
    let span = json!({"traceId": "0ed2e63cbe71f5a8", "id": "0ed2e63cbe71f5a9", "parentId": "0ed2e63cbe71f5a8", "name": "get",
        "annotations": [
            {"timestamp": 1_500_000, "value": "cs", "endpoint": endpoint}, {"timestamp": 1_500_100, "value": "wrote", "endpoint": endpoint},
            {"timestamp": 1_502_000, "value": "cr", "endpoint": endpoint}],
        "binaryAnnotations": [
            {"key": "sa", "value": true, "endpoint": other}, {"key": "http.path", "value": "/", "endpoint": endpoint},
            {"key": "lc", "value": "okhttp", "endpoint": endpoint}, {"key": "retries", "value": 2}]});
    let request = version_one(&json!([span])).unwrap();
    assert_eq!(resources(&request), [["service.name=\"front\""]]);
    let span = only(&request);
    assert_eq!((span.kind, span.start_time_unix_nano, span.end_time_unix_nano), (3, 1_500_000_000, 1_502_000_000));
    assert_eq!(
        attributes(&span.attributes),
        [
            "component=\"okhttp\"",
            "http.path=\"/\"",
            "net.host.port=80",
            "net.peer.port=81",
            "network.local.address=\"10.0.0.1\"",
            "network.peer.address=\"10.0.0.2\"",
            "retries=\"2\"",
            "service.peer.name=\"back\"",
        ]
    );
    assert_eq!(span.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["wrote"]);
    let local = json!([{"traceId": "1", "id": "2", "timestamp": 5, "duration": 6, "binaryAnnotations": [{"key": "lc", "value": "worker"}]}]);
    let request = version_one(&local).unwrap();
    assert_eq!((resources(&request), only(&request).kind), (vec![vec!["service.name=\"worker\"".to_owned()]], 0));
    assert_eq!((only(&request).start_time_unix_nano, only(&request).end_time_unix_nano), (5000, 11_000));
}

/// `zipkin.proto3`, declared for prost: what senders write with.
mod zipkin {
    use std::collections::BTreeMap;

    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Endpoint {
        #[prost(string, tag = "1")]
        pub(super) service_name: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) ipv4: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) ipv6: Vec<u8>,
        #[prost(int32, tag = "4")]
        pub(super) port: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Annotation {
        #[prost(fixed64, tag = "1")]
        pub(super) timestamp: u64,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) parent_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) id: Vec<u8>,
        #[prost(int32, tag = "4")]
        pub(super) kind: i32,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(fixed64, tag = "6")]
        pub(super) timestamp: u64,
        #[prost(uint64, tag = "7")]
        pub(super) duration: u64,
        #[prost(message, optional, tag = "8")]
        pub(super) local_endpoint: Option<Endpoint>,
        #[prost(message, optional, tag = "9")]
        pub(super) remote_endpoint: Option<Endpoint>,
        #[prost(message, repeated, tag = "10")]
        pub(super) annotations: Vec<Annotation>,
        #[prost(btree_map = "string, string", tag = "11")]
        pub(super) tags: BTreeMap<String, String>,
        #[prost(bool, tag = "12")]
        pub(super) debug: bool,
        #[prost(bool, tag = "13")]
        pub(super) shared: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ListOfSpans {
        #[prost(message, repeated, tag = "1")]
        pub(super) spans: Vec<Span>,
    }
}

fn in_protobuf() -> Vec<u8> {
    let bytes = |text: &str| -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let tags = [("http.path", "/api"), ("n", "3"), ("ok", "true"), ("error", "true")];
    let span = zipkin::Span {
        trace_id: bytes("5af7183fb1d4cf5f5af7183fb1d4cf5f"),
        parent_id: bytes("6b221d5bc9e6496c"),
        id: bytes("352bff9a74ca9ad2"),
        kind: 1,
        name: "get /api".to_owned(),
        timestamp: 1_556_604_172_355_737,
        duration: 1431,
        local_endpoint: Some(zipkin::Endpoint {
            service_name: "backend".to_owned(),
            ipv4: vec![192, 168, 99, 1],
            ipv6: vec![],
            port: 3306,
        }),
        remote_endpoint: Some(zipkin::Endpoint {
            service_name: "db".to_owned(),
            ipv4: vec![],
            ipv6: bytes("20010db8000000000000000000000001"),
            port: 5432,
        }),
        annotations: vec![zipkin::Annotation { timestamp: 1_556_604_172_355_800, value: "flushed".to_owned() }],
        tags: tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        debug: true,
        shared: false,
    };
    zipkin::ListOfSpans { spans: vec![span] }.encode_to_vec()
}

#[test]
fn protobuf_says_what_json_says() {
    let mut sheet = sheet(false);
    proto::spans(&in_protobuf(), |span| sheet.add(span)).unwrap();
    let (mut from_protobuf, mut from_json) = (decoded(sheet), version_two(&json!([whole()]), false).unwrap());
    for request in [&mut from_protobuf, &mut from_json] {
        let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
        span.attributes.sort_by(|a, b| a.key.cmp(&b.key));
    }
    assert_eq!(from_protobuf, from_json);
}
