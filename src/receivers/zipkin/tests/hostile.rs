//! Bytes that nobody means well with: an error that says what, or spans; never a panic, never many times the memory.

use super::*;
use crate::{
    door::Refusal,
    otlp::{ScanLimits, scan},
    signal::Signal,
};

/// Whatever comes out is a request that the door takes.
fn swallow(body: &[u8]) {
    for form in 0..3 {
        let mut sheet = sheet(form == 0);
        let read = match form {
            0 => two::spans(body, |span| sheet.add(span)),
            1 => one::spans(body, |span| sheet.add(span)),
            _ => proto::spans(body, |span| sheet.add(span)),
        };
        if read.is_ok() {
            let payload = sheet.finish().unwrap().payload;
            if let Err(error) = scan(Signal::Traces, &payload, &ScanLimits::default(), None) {
                panic!("{error} from {:?}", String::from_utf8_lossy(body));
            }
        }
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn every_cut_and_every_changed_byte_is_survived() {
    let bodies = [json!([whole()]).to_string().into_bytes(), in_protobuf()];
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for body in bodies {
        for end in 0..body.len() {
            swallow(&body[..end]);
        }
        for _ in 0..20_000 {
            let mut changed = body.clone();
            for _ in 0..=random(&mut state) % 3 {
                let at = random(&mut state) as usize % changed.len();
                changed[at] = match random(&mut state) % 4 {
                    0 => random(&mut state) as u8,
                    1 => b"\"{}[],:\\"[random(&mut state) as usize % 8],
                    2 => changed[at].wrapping_add(1),
                    _ => 0xff,
                };
            }
            swallow(&changed);
        }
    }
}

#[test]
fn what_is_no_span_is_refused_with_the_place() {
    let cases = [
        (json!({"traceId": "1"}), "invalid type: map"),
        (json!([1]), "invalid type"),
        (json!([{"id": "1"}]), "missing field `traceId`"),
        (json!([{"traceId": "1", "id": "1"}, {"traceId": "zz", "id": "1"}]), "span 2: `traceId`"),
        (json!([{"traceId": "1", "id": "0000000000000000"}]), "`id` is 16 hexadecimal digits"),
        (json!([{"traceId": "1", "id": "12345678901234567"}]), "`id`"),
        (json!([{"traceId": "1", "id": "1", "parentId": "x"}]), "`parentId`"),
        (json!([{"traceId": "1", "id": "1", "tags": {"a": 1}}]), "invalid type: integer"),
        (json!([{"traceId": "1", "id": "1", "localEndpoint": {"port": 70_000}}]), "expected u16"),
    ];
    for (spans, expected) in cases {
        let said = version_two(&spans, false).unwrap_err();
        assert!(said.contains(expected), "{spans}: {said}");
    }
    for (span, expected) in [
        (json!([{"traceId": "0", "id": "1"}]), "`traceId` is 16 or 32 hexadecimal digits"),
        (json!([{"traceId": "1", "id": "1", "parentId": "00000000000000001"}]), "`parentId`"),
    ] {
        let said = version_one(&span).unwrap_err();
        assert!(said.contains("span 1") && said.contains(expected), "{span}: {said}");
    }
    assert!(version_two(&json!([]), false).unwrap().resource_spans.is_empty());
    let mut sheet = sheet(false);
    assert!(two::spans(b"[] x", |span| sheet.add(span)).unwrap_err().contains("trailing"));
    assert!(two::spans(b"", |span| sheet.add(span)).is_err());
    assert!(proto::spans(b"\x0a\x05abc", |span| sheet.add(span)).unwrap_err().contains("no protobuf"));
}

#[test]
fn what_is_deep_or_many_is_refused() {
    let deep = format!("[{{\"traceId\":\"1\",\"id\":\"1\",\"x\":{}{}}}]", "[".repeat(100_000), "]".repeat(100_000));
    swallow(deep.as_bytes());
    let annotations: Vec<Value> = (0..40_000).map(|_| json!({})).collect();
    let said = version_two(&json!([{"traceId": "1", "id": "1", "annotations": annotations}]), false).unwrap_err();
    assert!(said.contains("invalid length"), "{said}");
    let tags: serde_json::Map<String, Value> = (0..40_000).map(|n| (n.to_string(), json!(""))).collect();
    let said = version_two(&json!([{"traceId": "1", "id": "1", "tags": tags}]), false).unwrap_err();
    assert!(said.contains("invalid length"), "{said}");
    let many = zipkin::Span {
        trace_id: vec![1; 16],
        id: vec![1; 8],
        annotations: vec![zipkin::Annotation::default(); 40_000],
        ..zipkin::Span::default()
    };
    let body = zipkin::ListOfSpans { spans: vec![many] }.encode_to_vec();
    let mut sheet = sheet(false);
    assert!(proto::spans(&body, |span| sheet.add(span)).unwrap_err().contains("more than"));
}

#[test]
fn times_that_are_none_are_zero_and_large_ones_do_not_wrap() {
    let span = json!([{"traceId": "1", "id": "1", "timestamp": -5, "duration": i64::MAX}]);
    let request = version_two(&span, false).unwrap();
    assert_eq!(only(&request).start_time_unix_nano, 0);
    let span = json!([{"traceId": "1", "id": "1", "timestamp": i64::MAX, "duration": i64::MAX}]);
    let request = version_two(&span, false).unwrap();
    assert_eq!((only(&request).start_time_unix_nano, only(&request).end_time_unix_nano), (u64::MAX, u64::MAX));
}

#[test]
fn a_value_of_version_one_that_is_a_list_is_refused_before_it_is_read() {
    let of = |value: &str| {
        let body = format!(
            "[{{\"traceId\":\"1\",\"id\":\"1\",\"timestamp\":1,\"binaryAnnotations\":[{{\"key\":\"k\",\"value\":{value}}}]}}]"
        );
        let mut sheet = sheet(false);
        one::spans(body.as_bytes(), |span| sheet.add(span)).map(|()| attributes(&only(&decoded(sheet)).attributes))
    };
    // Nothing behind the bracket was looked at: what is there is no JSON.
    for (value, expected) in [("[0,nonsense]", "invalid type: sequence"), ("{nonsense}", "invalid type: map")] {
        let said = of(value).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    for (value, expected) in [("18446744073709551615", "18446744073709551615"), ("-7", "-7"), ("2.5", "2.5"), ("false", "false")]
    {
        assert_eq!(of(value).unwrap(), [format!("k=\"{expected}\"")]);
    }
    assert_eq!(of("\"a\\u0062\"").unwrap(), ["k=\"ab\""]);
    assert!(of("null").is_err());
}

#[test]
fn what_says_much_in_json_stays_the_text_it_is() {
    let of = |len: usize| {
        let many = format!("{{\"k\":\"{}\"}}", "x".repeat(len - 8));
        let span = json!([{"traceId": "1", "id": "1", "timestamp": 1,
            "annotations": [{"timestamp": 1, "value": format!("retry|{many}|0")}],
            "tags": {"otlp.link.0": format!("1|1||{many}|0")}}]);
        let request = version_two(&span, false).unwrap();
        let span = only(&request);
        (span.events[0].attributes.len(), span.events[0].name.len(), span.links.len(), span.attributes.len())
    };
    assert_eq!(of(64 * 1024), (1, 5, 1, 0));
    assert_eq!(of(64 * 1024 + 1), (0, 64 * 1024 + 1 + 8, 0, 1));
}

#[test]
fn spans_of_many_scopes_each_find_theirs() {
    let span =
        |at: usize| json!({"traceId": "1", "id": "1", "timestamp": 1, "tags": {"otel.scope.name": (at % 1000).to_string()}});
    let request = version_two(&(0..3000).map(span).collect(), false).unwrap();
    let [resource] = &request.resource_spans[..] else { panic!("{}", request.resource_spans.len()) };
    let names: Vec<String> = resource.scope_spans.iter().map(|it| it.scope.clone().unwrap().name).collect();
    assert_eq!(names, (0..1000).map(|at| at.to_string()).collect::<Vec<_>>());
    assert!(resource.scope_spans.iter().all(|it| it.spans.len() == 3));
}

#[test]
fn of_many_tags_of_the_process_the_last_of_a_name_counts() {
    let tags = (0..30_000).map(|at| format!("\"k8s.{}\":\"{at}\",", at % 10_000)).collect::<Vec<_>>().concat();
    let body = format!(
        "[{{\"traceId\":\"1\",\"id\":\"1\",\"localEndpoint\":{{\"serviceName\":\"a\"}},\"tags\":{{{tags}\"service.name\":\"b\"}}}}]"
    );
    let mut sheet = sheet(false);
    two::spans(body.as_bytes(), |span| sheet.add(span)).unwrap();
    let mut expected: Vec<String> = (0..10_000).map(|at| format!("k8s.{at}=\"{}\"", 20_000 + at)).collect();
    expected.push("service.name=\"b\"".to_owned());
    expected.sort();
    assert_eq!(resources(&decoded(sheet)), [expected]);
}

#[test]
fn groups_take_room_and_a_body_of_many_finds_none() {
    let body: Vec<Value> = (0..2000)
        .map(|at| json!({"traceId": "1", "id": "1", "timestamp": 1, "localEndpoint": {"serviceName": at.to_string()}}))
        .collect();
    let body = Value::from(body).to_string().into_bytes();
    let budget = Budget::new(body.len() + 2000 * 512);
    let mut small = Sheet::new(false, budget.try_take(body.len()).unwrap(), body.len());
    assert!(two::spans(&body, |span| small.add(span)).is_err());
    let refusal = small.full();
    assert!(matches!(refusal, Some(Refusal::TooLarge { .. })), "{refusal:?}");
    assert_eq!(budget.used(), 0);
    // With room it is taken, and keeps as much as comes out.
    let budget = Budget::new(64 << 20);
    let mut large = Sheet::new(false, budget.try_take(body.len()).unwrap(), body.len());
    two::spans(&body, |span| large.add(span)).unwrap();
    assert!(budget.used() > body.len() + 2000 * 512, "{}", budget.used());
    let held = large.finish().unwrap();
    assert_eq!(budget.used(), held.payload.len());
}
