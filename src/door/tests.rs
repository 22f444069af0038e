//! What the door shows to taps.

use std::net::SocketAddr;

use prost::Message as _;

use super::*;
use crate::{
    otlp::tests::{request, span},
    signal::{Context, UnixNanos},
    tap::{Ask, Row},
};

/// Takes what has one span and refuses the rest, now or in a moment.
struct OneSpan;

impl Append for OneSpan {
    fn append(&self, record: NewRecord) -> Step<'static, Result<Pace, Refusal>> {
        match record.batch.items {
            1 => Step::Ready(Ok(Pace::NONE)),
            2 => Step::Wait(Box::pin(async { Ok(Pace::NONE) })),
            _ => Step::Wait(Box::pin(async {
                Err(Refusal::Full { reason: "the disk is full".to_owned(), retry_after: std::time::Duration::from_secs(1) })
            })),
        }
    }
}

fn arrival(payload: Vec<u8>) -> Arrival {
    Arrival {
        signal: Signal::Traces,
        payload: payload.into(),
        context: Arc::new(Context::default()),
        transport: "grpc",
        peer: Some(SocketAddr::from(([10, 0, 0, 7], 4711))),
        ticket: None,
        strict_utf8: false,
    }
}

#[tokio::test]
async fn taps_see_what_is_taken_and_what_is_refused_and_why() {
    let settings = Settings { id: ComponentId::parse("otlp/eu").unwrap(), source: SourceId(0), limits: ScanLimits::default() };
    let behind = Behind { takes: [true; 3], needs: Arc::default(), wants_index: false, append: Arc::new(OneSpan) };
    let taps = Taps::default();
    let door = Door::new(settings, behind, Budget::new(1 << 20), Clock::new(|| UnixNanos(5)), &Telemetry::default())
        .watched(taps.clone());
    let tap = taps.open(&Ask { at: At::ALL.to_vec(), ..Ask::default() }).unwrap();
    for spans in 1..4 {
        let payload = request((0..spans).map(|n| span(&format!("{spans}.{n}"))).collect()).encode_to_vec();
        drop(door.accept(arrival(payload)).done().await);
    }
    drop(door.accept(arrival(vec![0xff])).done().await);
    door.show_refused(Signal::Logs, &Refusal::Deadline, None, "the end");
    let mut text = String::new();
    while !text.contains("the end") {
        text.push_str(&String::from_utf8(tap.lines().await.unwrap()).unwrap());
    }
    let mut rows: Vec<Row<'_>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.retain(|row| row.signal == "traces");
    let seen: Vec<_> = rows.iter().map(|row| (row.at, &*row.name, row.way.reason.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (At::Ingest, "1.0", None),
            (At::Ingest, "2.0", None),
            (At::Ingest, "2.1", None),
            (At::Refused, "", Some("full")),
            (At::Refused, "", Some("malformed")),
        ]
    );
    assert_eq!(rows[3].way.message.as_deref(), Some("the disk is full"));
    for row in &rows {
        assert_eq!((row.way.peer.as_deref(), &*row.way.component), (Some("10.0.0.7:4711"), "otlp/eu"));
    }
}
