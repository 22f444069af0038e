//! The exporter against a server that is strict, and misbehaves on purpose.

mod documents;
mod fake;
mod setup;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;

use self::fake::{Does, Fake};
use super::Config;
use crate::{
    component::{Exporter, ExporterConfig as _, Extensions, Items, Origin, Outcome, Provenance, Request, RetryCause, Verdicts},
    config::Diagnostics,
    journal::{JournalId, Position, TopicId, TopicNames},
    otlp::{
        json::{self, Limits},
        scan::ScanLimits,
    },
    signal::{Batch, Signal, UnixNanos},
    transport::client::testing::{build_context, node},
};

pub(super) fn config(yaml: &str) -> Config {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(yaml), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    config
}

fn exporter(fake: &Fake, more: &str) -> Arc<dyn Exporter> {
    config(&format!("endpoint: {}\n{more}", fake.url())).build(build_context(Extensions::default())).unwrap()
}

/// A batch from OTLP/JSON.
pub(super) fn batch(signal: Signal, otlp: &str) -> Batch {
    let limits = Limits { scan: ScanLimits::default(), bytes_max: 64 << 20 };
    let payload: Bytes = json::decode(signal, otlp.as_bytes(), &limits).unwrap().into();
    let items = crate::otlp::count::items(signal, &payload);
    Batch { signal, payload, items, context: Arc::default(), index: None }
}

/// Log records with these bodies, of one service.
fn logs(service: &str, bodies: impl IntoIterator<Item = String>) -> Batch {
    let records: Vec<_> =
        bodies.into_iter().map(|body| json!({"timeUnixNano": "1763758800123456789", "body": {"stringValue": body}})).collect();
    let otlp = json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
        "scopeLogs": [{"logRecords": records}],
    }]});
    batch(Signal::Logs, &otlp.to_string())
}

fn lines(count: usize) -> Batch {
    logs("shop", (0..count).map(|n| format!("line {n}")))
}

/// One attempt with a record at an offset.
async fn send(exporter: &Arc<dyn Exporter>, journal: u8, offset: u64, batch: Batch) -> Outcome {
    let topics = TopicNames::new(vec!["logs".to_owned()]);
    let position = Position { topic: TopicId(0), shard: 3, offset };
    let parts = [Origin { position, received: UnixNanos(1), items: Items::all(batch.items) }];
    let reader = "logs".into();
    let provenance = Provenance { reader: &reader, journal: JournalId([journal; 16]), topics: &topics, parts: &parts };
    exporter.export_from(provenance, Request::of(batch)).await
}

const STREAM: &str = "logs-generic.otel-default";

#[tokio::test]
async fn logs_go_to_a_data_stream_and_the_answer_is_read() {
    let fake = Fake::start("8.15.0", |_, _| Does::well()).await;
    let exporter = exporter(&fake, "");
    assert_eq!(exporter.export(Request::of(lines(1000))).await, Outcome::DELIVERED);
    fake.assert_well_formed();
    let documents = fake.documents(STREAM);
    assert_eq!(documents.len(), 1000);
    assert_eq!(documents[7]["body"]["text"], "line 7");
    assert_eq!(documents[7]["@timestamp"], "2025-11-21T21:00:00.123456789Z");
}

/// D14: of a bulk request some items are busy and some are wrong.
#[tokio::test]
async fn each_item_is_answered_for_by_itself() {
    let fake = Fake::start("8.15.0", |_, _| {
        Does::Items(Box::new(|at, _| match at % 100 {
            0..=2 => Some((429, "es_rejected_execution_exception", "rejected execution of coordinating operation")),
            50 => Some((400, "document_parsing_exception", "failed to parse field [x] of type [long]")),
            _ => None,
        }))
    })
    .await;
    let exporter = exporter(&fake, "");
    let Outcome::Each(Verdicts { again, rejected, reasons, .. }) = send(&exporter, 1, 0, lines(200)).await else { panic!() };
    let again = again.unwrap();
    assert_eq!((again.items, again.cause), (vec![0, 1, 2, 100, 101, 102], RetryCause::Busy));
    assert_eq!(rejected.iter().map(|rejection| rejection.item).collect::<Vec<_>>(), [50, 150]);
    assert_eq!(reasons, ["400 document_parsing_exception: failed to parse field [x] of type [long]"]);
    assert_eq!(fake.count(), 192);
}

/// Whatever an answer says of the cluster's state, the data waits and is not refused.
#[tokio::test]
async fn blocks_shard_limits_and_missing_indices_hold_the_data() {
    let rows: [(u16, &str, &str); 6] = [
        (403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)];"),
        (
            429,
            "cluster_block_exception",
            "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]",
        ),
        (
            400,
            "validation_exception",
            "this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;",
        ),
        (404, "index_not_found_exception", "no such index [logs-generic.otel-default]"),
        (403, "security_exception", "action [indices:data/write/bulk[s]] is unauthorized for API key"),
        (400, "illegal_argument_exception", "no matching index template found for data stream [logs-x-y]"),
    ];
    for (status, kind, reason) in rows {
        // Of some documents, of all, and of the request as a whole.
        for (ways, way) in ["some", "all", "whole"].into_iter().enumerate() {
            let fake = Fake::start("8.15.0", move |_, _| match ways {
                2 => Does::status(status, &json!({"error": {"type": kind, "reason": reason}, "status": status})),
                _ => Does::Items(Box::new(move |at, _| (ways == 1 || at == 1).then_some((status, kind, reason)))),
            })
            .await;
            let exporter = exporter(&fake, "");
            match send(&exporter, 1, 0, lines(3)).await {
                Outcome::Retry { cause: RetryCause::Blocked, .. } if ways > 0 => {}
                Outcome::Each(verdicts) if ways == 0 => {
                    assert_eq!(verdicts.rejected, []);
                    let again = verdicts.again.unwrap();
                    assert_eq!((again.items, again.cause), (vec![1], RetryCause::Blocked));
                }
                other => panic!("{kind} for {way}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn what_is_there_already_is_delivered_and_is_not_there_twice() {
    let fake = Fake::start("8.15.0", |_, _| Does::well()).await;
    let exporter = exporter(&fake, "document_ids: true");
    let same = || logs("shop", (0..1000).map(|_| "the same line".to_owned()));
    for _ in 0..3 {
        assert_eq!(send(&exporter, 1, 7, same()).await, Outcome::DELIVERED);
    }
    assert_eq!(fake.count(), 1000, "a thousand identical lines are a thousand documents, however often they are sent");
    assert_eq!(send(&exporter, 1, 8, same()).await, Outcome::DELIVERED);
    // The data directory was deleted: offsets begin anew.
    assert_eq!(send(&exporter, 2, 7, same()).await, Outcome::DELIVERED);
    assert_eq!(fake.count(), 3000);
    fake.assert_well_formed();
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_and_smaller_ones_are_made_from_then_on() {
    let fake = Fake::with("8.15.0", |_, _| Does::well(), Arc::new(|_, _, _| None), 70_000).await;
    let exporter = exporter(&fake, "bulk_max_size: 256KiB");
    assert_eq!(send(&exporter, 1, 0, lines(3000)).await, Outcome::DELIVERED);
    assert_eq!(fake.count(), 3000);
    let sizes = std::mem::take(&mut fake.state.lock().sizes);
    assert!(sizes[0] > 200_000 && sizes.len() > 8, "{sizes:?}");
    assert_eq!(send(&exporter, 1, 1, lines(3000)).await, Outcome::DELIVERED);
    assert!(fake.state.lock().sizes.iter().all(|size| *size <= 70_000), "{:?}", fake.state.lock().sizes);
    // One document that is too large by itself is refused alone.
    let large = logs("shop", ["x".repeat(80_000), "small".to_owned()]);
    let Outcome::Each(verdicts) = send(&exporter, 1, 2, large).await else { panic!() };
    assert_eq!(verdicts.rejected.iter().map(|rejection| rejection.item).collect::<Vec<_>>(), [0]);
    assert!(verdicts.again.is_none());
}

#[tokio::test]
async fn servers_that_fail_are_tried_again() {
    type Row = (fn() -> Does, RetryCause);
    let rows: [Row; 7] = [
        (|| Does::status(503, &json!({"error": {"type": "x", "reason": "y"}, "status": 503})), RetryCause::Busy),
        (|| Does::status(429, &json!({"error": {"type": "es_rejected_execution_exception", "reason": "y"}})), RetryCause::Busy),
        (|| Does::Raw(fake::answered(502, "<html>bad gateway</html>")), RetryCause::Passing),
        (|| Does::Raw(fake::answered(200, "<html>hello</html>")), RetryCause::Passing),
        (|| Does::Raw(fake::answered(200, "{\"items\":[]}")), RetryCause::Passing),
        (|| Does::Reset, RetryCause::Passing),
        (|| Does::Never, RetryCause::Timeout),
    ];
    for (does, wanted) in rows {
        let fake = Fake::start("8.15.0", move |_, _| does()).await;
        let exporter = exporter(&fake, "timeout: 300ms");
        let outcome = send(&exporter, 1, 0, lines(2)).await;
        assert!(matches!(&outcome, Outcome::Retry { cause, .. } if *cause == wanted), "{wanted:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_speaks_for_what_it_spoke_of() {
    let fake = Fake::start("8.15.0", |number, _| match number {
        0 => Does::Raw(
            b"HTTP/1.1 200 x\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"items\":[{\"create\":{\"status\":201}},{\"create\":{\"sta"
                .to_vec(),
        ),
        _ => Does::well(),
    })
    .await;
    let exporter = exporter(&fake, "timeout: 300ms");
    let Outcome::Each(verdicts) = send(&exporter, 1, 0, lines(3)).await else { panic!() };
    assert_eq!(verdicts.again.unwrap().items, [1, 2]);
}

/// S13: ten GiB of answer, as items without end or as one text without end.
#[tokio::test]
async fn an_endless_answer_is_not_kept() {
    for piece in
        ["{\"items\":[{\"create\":{\"status\":201}},", "{\"items\":[{\"create\":{\"status\":201,\"error\":{\"reason\":\"x"]
    {
        let fake = Fake::start("8.15.0", move |_, _| Does::Endless(piece)).await;
        let exporter = exporter(&fake, "timeout: 500ms");
        let outcome = tokio::time::timeout(Duration::from_mins(1), send(&exporter, 1, 0, lines(2))).await.unwrap();
        assert!(!matches!(outcome, Outcome::Rejected { .. } | Outcome::Refused { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_refused_whole_is_searched_for_the_document_that_is_at_fault() {
    let fake = Fake::start("8.15.0", |_, lines| {
        if lines.iter().any(|line| line.source["body"]["text"] == "line 37") {
            return Does::status(400, &json!({"error": {"type": "illegal_argument_exception", "reason": "no"}, "status": 400}));
        }
        Does::well()
    })
    .await;
    let exporter = exporter(&fake, "");
    let Outcome::Each(verdicts) = send(&exporter, 1, 0, lines(100)).await else { panic!() };
    assert_eq!(verdicts.rejected.iter().map(|rejection| rejection.item).collect::<Vec<_>>(), [37]);
    assert_eq!(fake.count(), 99);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_passed_over() {
    let fake = Fake::start("8.15.0", |_, _| Does::well()).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let yaml = format!("endpoints: [\"http://{address}\", \"{}\"]", fake.url());
    let exporter = config(&yaml).build(build_context(Extensions::default())).unwrap();
    for offset in 0..6 {
        assert_eq!(send(&exporter, 1, offset, lines(1)).await, Outcome::DELIVERED);
    }
    assert_eq!(fake.count(), 6);
}

/// S16: whatever a service calls itself, it writes to no index but its own and adds no action.
#[tokio::test]
async fn names_in_the_data_reach_no_other_index_and_no_other_line() {
    let fake = Fake::start("opensearch 2.19.1", |_, _| Does::well()).await;
    let exporter = exporter(&fake, "logs_index: \"app-{service}-%Y.%m.%d\"");
    let names = [
        "a\n{\"delete\":{\"_index\":\"x\"}}\n",
        "../../etc",
        "_all",
        "*",
        ".security",
        "CRLF\r\n",
        "ünïcode",
        "",
        "a,b",
        "<n-{now/d}>",
    ];
    for (offset, name) in names.iter().enumerate() {
        let long = name.repeat(1000);
        for service in [*name, &long] {
            assert_eq!(
                send(&exporter, 1, offset as u64, logs(service, ["x\n{\"delete\":{}}".to_owned()])).await,
                Outcome::DELIVERED
            );
        }
    }
    fake.assert_well_formed();
    let stored = fake.state.lock().stored.clone();
    assert!(stored.keys().all(|index| index.starts_with("app-")), "{:?}", stored.keys());
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 2 * names.len());
}

#[tokio::test]
async fn credentials_are_sent_and_a_refusal_holds_the_data() {
    let asks: fake::Asks = Arc::new(|_, path, _| (path == "/").then(|| (401, json!({"error": {"type": "security_exception"}}))));
    let fake = Fake::with("8.15.0", |_, _| Does::well(), asks, usize::MAX).await;
    let exporter = exporter(&fake, "api_key: c2VjcmV0");
    let outcome = send(&exporter, 1, 0, lines(1)).await;
    assert!(matches!(&outcome, Outcome::Retry { cause: RetryCause::Blocked, .. }), "{outcome:?}");
    // Who may not ask what the server is may still write.
    let asks: fake::Asks = Arc::new(|_, path, _| (path == "/").then(|| (403, json!({"error": {"type": "security_exception"}}))));
    let fake = Fake::with("8.15.0", |_, _| Does::well(), asks, usize::MAX).await;
    let exporter = self::exporter(&fake, "");
    assert_eq!(send(&exporter, 1, 0, lines(1)).await, Outcome::DELIVERED);
    assert_eq!(fake.documents(STREAM).len(), 1);
}

#[tokio::test]
async fn a_mapping_that_works_with_the_server_is_picked() {
    for (version, index) in
        [("8.15.0", STREAM), ("9.0.1", STREAM), ("8.11.0", "logs-generic-default"), ("opensearch 2.19.1", "logs-generic-default")]
    {
        let fake = Fake::start(version, |_, _| Does::well()).await;
        let exporter = exporter(&fake, "");
        assert_eq!(send(&exporter, 1, 0, lines(1)).await, Outcome::DELIVERED);
        fake.assert_well_formed();
        assert_eq!(fake.documents(index).len(), 1, "{version}: {:?}", fake.state.lock().stored.keys());
    }
    let fake = Fake::start("6.8.0", |_, _| Does::well()).await;
    let outcome = send(&exporter(&fake, ""), 1, 0, lines(1)).await;
    assert!(
        matches!(&outcome, Outcome::Retry { cause: RetryCause::Blocked, reason, .. } if reason.contains("7.10")),
        "{outcome:?}"
    );
}
