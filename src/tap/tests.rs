//! What a tap owes: it shows what was asked for, it is never waited for, and it says what it left out.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point},
    trace::v1::{Span, Status},
};
use prost::Message as _;

use super::*;
use crate::{
    otlp::tests::{request, span},
    signal::{ComponentId, Context, Signal},
};

fn seen(at: At, signal: Signal, payload: impl Into<Bytes>, items: u64) -> Seen {
    let context = Context { auth: vec![("token".into(), "hunter2".into())], ..Context::default() };
    let batch = Batch { signal, payload: payload.into(), items, context: Arc::new(context), index: None };
    Seen {
        at,
        batch,
        time: UnixNanos(1_700_000_000_000_000_000),
        component: ComponentId::parse("otlp").unwrap(),
        pipeline: None,
        peer: Some(([127, 0, 0, 1], 4711).into()),
        transport: Some("grpc"),
        reason: None,
        message: None,
    }
}

fn spans(spans: Vec<Span>) -> Seen {
    let items = spans.len() as u64;
    seen(At::Ingest, Signal::Traces, request(spans).encode_to_vec(), items)
}

fn failed(name: &str) -> Span {
    Span { status: Some(Status { code: 2, ..Status::default() }), trace_id: vec![7; 16], ..span(name) }
}

/// The lines that an ask has of these, in order.
async fn lines(ask: Ask, shown: Vec<Seen>) -> Vec<String> {
    let taps = Taps::default();
    let tap = taps.open(&Ask { at: At::ALL.to_vec(), ..ask }).unwrap();
    // Shown last and seen by everyone: a refusal without a filter, or else the end of the looker's work.
    let all = taps.open(&Ask { at: vec![At::Refused], ..Ask::default() }).unwrap();
    for seen in shown {
        taps.show(seen);
    }
    taps.show(seen(At::Refused, Signal::Traces, Bytes::new(), 0).said(Some("full"), "the end"));
    assert!(String::from_utf8(all.lines().await.unwrap()).unwrap().contains("the end"));
    // The taps are looked at in the order in which they were opened.
    let mut found = tap.outbox.found_for_test();
    found.retain(|line| !line.contains("the end"));
    found
}

async fn names(ask: Ask, shown: Vec<Seen>) -> Vec<String> {
    lines(ask, shown).await.iter().map(|line| serde_json::from_str::<Row<'_>>(line).unwrap().name.into_owned()).collect()
}

#[tokio::test]
async fn a_row_says_what_a_person_looks_for_and_no_credential() {
    let all = lines(Ask::default(), vec![spans(vec![failed("POST /pay")])]).await;
    let row: Row<'_> = serde_json::from_str(&all[0]).unwrap();
    assert_eq!((&*row.service, &*row.name, row.duration_nanos), ("cart", "POST /pay", Some(2_000)));
    assert_eq!((row.kind.as_deref(), row.status.as_deref()), (Some("server"), Some("error")));
    assert_eq!(row.trace_id.as_deref(), Some(&*"07".repeat(16)));
    assert_eq!(row.way.peer.as_deref(), Some("127.0.0.1:4711"));
    assert!(!all[0].contains("hunter2"), "{}", all[0]);
}

#[tokio::test]
async fn only_what_was_asked_for_is_shown() {
    let shown = || vec![spans(vec![span("GET /a"), failed("GET /b")]), spans(vec![span("GET /c")])];
    let of = |ask| names(ask, shown());
    assert_eq!(of(Ask::default()).await, ["GET /a", "GET /b", "GET /c"]);
    assert_eq!(of(Ask { errors: true, ..Ask::default() }).await, ["GET /b"]);
    assert_eq!(of(Ask { trace_id: Some("07".repeat(16)), ..Ask::default() }).await, ["GET /b"]);
    assert_eq!(of(Ask { name: Some("/c".to_owned()), ..Ask::default() }).await, ["GET /c"]);
    assert_eq!(of(Ask { service: Some("cart".to_owned()), ..Ask::default() }).await.len(), 3);
    assert_eq!(of(Ask { service: Some("car".to_owned()), ..Ask::default() }).await.len(), 0);
    assert_eq!(of(Ask { signals: vec!["logs".to_owned()], ..Ask::default() }).await.len(), 0);
    assert_eq!(of(Ask { lines_max: Some(2), ..Ask::default() }).await, ["GET /a", "GET /b"]);
}

#[tokio::test]
async fn logs_and_metrics_are_shown_with_what_they_have() {
    let text = AnyValue { value: Some(Value::StringValue("card declined".to_owned())) };
    let record = LogRecord { severity_number: 17, body: Some(text), ..LogRecord::default() };
    let logs = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
    let logs = ResourceLogs { scope_logs: vec![logs], ..ResourceLogs::default() };
    let logs = ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec();
    let logs = seen(At::Ingest, Signal::Logs, logs, 1);
    let point = NumberDataPoint { value: Some(number_data_point::Value::AsInt(42)), ..NumberDataPoint::default() };
    let data = Some(Data::Gauge(Gauge { data_points: vec![point] }));
    let metrics = ScopeMetrics {
        metrics: vec![Metric { name: "queue.length".to_owned(), data, ..Metric::default() }],
        ..Default::default()
    };
    let metrics = ResourceMetrics { scope_metrics: vec![metrics], ..ResourceMetrics::default() };
    let metrics = ExportMetricsServiceRequest { resource_metrics: vec![metrics] }.encode_to_vec();
    let metrics = seen(At::Ingest, Signal::Metrics, metrics, 1);
    let all = lines(Ask::default(), vec![logs.clone(), metrics.clone()]).await;
    let row: Row<'_> = serde_json::from_str(&all[0]).unwrap();
    assert_eq!((&*row.name, row.status.as_deref()), ("card declined", Some("ERROR")));
    let row: Row<'_> = serde_json::from_str(&all[1]).unwrap();
    assert_eq!((&*row.name, row.kind.as_deref(), row.points, row.value), ("queue.length", Some("gauge"), Some(1), Some(42.0)));
    let errors = Ask { errors: true, ..Ask::default() };
    assert_eq!(names(errors, vec![logs, metrics]).await, ["card declined"]);
}

#[tokio::test]
async fn otlp_lines_hold_only_what_was_asked_for_and_say_where_it_was_seen() {
    let ask = Ask { form: Form::Otlp, errors: true, ..Ask::default() };
    let shown =
        Seen { at: At::Dropped, ..spans(vec![span("GET /a"), failed("GET /b")]) }.said(Some("rejected"), "no such tenant");
    let all = lines(ask, vec![shown, spans(vec![span("GET /c")])]).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let line: serde_json::Value = serde_json::from_str(&all[0]).unwrap();
    let spans = line["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!((spans.len(), &spans[0]["name"]), (1, &"GET /b".into()));
    assert_eq!((&line["weir"]["at"], &line["weir"]["reason"]), (&"dropped".into(), &"rejected".into()));
    assert_eq!(line["weir"]["message"], "no such tenant");
}

#[tokio::test]
async fn what_a_slow_reader_has_no_room_for_is_left_out_and_told() {
    let shown: Vec<Seen> =
        (0..40).map(|_| spans((0..500).map(|_| span("GET /a long enough name for a line")).collect())).collect();
    let taps = Taps::default();
    let tap = taps.open(&Ask::default()).unwrap();
    // Not read until all was shown, one after the other, so that nothing is left unseen.
    for seen in shown {
        taps.show(seen);
        while taps.figures().waiting_bytes > 0 {
            tokio::task::yield_now().await;
        }
    }
    let lost = tap.lost().unwrap();
    let held = tap.lines().await.unwrap();
    let lines = String::from_utf8_lossy(&held).lines().count() as u64;
    assert!(held.len() <= 1 << 20, "{}", held.len());
    assert_eq!((lines + lost.late_lines, lost.unseen_items), (20_000, 0));
    assert!(lost.late_lines > 0);
    assert_eq!(tap.lost(), None, "told once");
    assert_eq!(taps.figures().lost, lost.late_lines);
}

#[test]
fn who_is_not_looked_at_is_counted_and_nobody_waits() {
    let taps = Taps::default();
    let tap = taps.open(&Ask::default()).unwrap();
    // In place of the looker: a queue that nobody takes from.
    let (sender, _untaken) = sync_channel(WAITING_MAX);
    taps.0.open.lock().looker = Some(sender);
    for _ in 0..WAITING_MAX + 3 {
        taps.show(spans(vec![span("a"), span("b")]));
    }
    assert_eq!(tap.lost(), Some(Lost { unseen_items: 6, late_lines: 0 }));
}

#[test]
fn a_batch_over_the_bound_of_what_waits_is_not_looked_at() {
    let taps = Taps::default();
    let tap = taps.open(&Ask::default()).unwrap();
    taps.0.waiting_bytes.store(WAITING_BYTES_MAX, Ordering::Relaxed);
    taps.show(spans(vec![span("a"), span("b")]));
    assert_eq!(tap.lost(), Some(Lost { unseen_items: 2, late_lines: 0 }));
    assert_eq!(taps.figures().waiting_bytes, WAITING_BYTES_MAX);
}

#[test]
fn nobody_is_shown_anything_when_nobody_looks() {
    let taps = Taps::default();
    assert!(!taps.wants(At::Ingest));
    let tap = taps.open(&Ask { at: vec![At::Dropped], ..Ask::default() }).unwrap();
    assert!(taps.wants(At::Dropped) && !taps.wants(At::Ingest));
    drop(tap);
    assert!(!taps.wants(At::Dropped));
    assert_eq!(taps.figures(), Figures::default());
}

#[test]
fn a_ninth_tap_is_refused_until_one_is_closed() {
    let taps = Taps::default();
    let mut open: Vec<Tap> = (0..TAPS_MAX).map(|_| taps.open(&Ask::default()).unwrap()).collect();
    assert!(matches!(taps.open(&Ask::default()), Err(OpenError::TooMany(_))));
    open.pop();
    assert!(taps.open(&Ask::default()).is_ok());
}

#[test]
fn an_ask_that_makes_no_sense_is_refused_by_name() {
    let taps = Taps::default();
    let told = |ask: Ask| taps.open(&ask).err().unwrap().to_string();
    assert!(told(Ask { signals: vec!["spans".to_owned()], ..Ask::default() }).contains("`spans`"));
    assert!(told(Ask { trace_id: Some("+".repeat(32)), ..Ask::default() }).contains("32 hexadecimal"));
    assert!(told(Ask { seconds: Some(f64::NAN), ..Ask::default() }).contains("seconds"));
}
