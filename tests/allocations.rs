//! What data costs on its way through is counted in requests, not in spans. A binary of its own: the allocator counts for the whole process.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use weir::{
    component::{BuildContext, Claims, Connector, ConnectorConfig, ConnectorUse, Extensions, Notes},
    config::{Diagnostics, Input, Machine, load},
    connectors::span_metrics::Config,
    internal_telemetry::Telemetry,
    journal::{
        LagBound, MemoryShard, NewRecord, OnOverflow, Position, Record, Settled, SourceId, Sources, Subscriber, Topic, TopicId,
    },
    otlp::{ScanLimits, scan, split_by_items},
    runtime::{Clock, Health},
    signal::{Batch, ComponentId, Context, Signal, SpanIndex, UnixNanos},
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const T0: u64 = 1_700_000_000_000_000_000;

fn text(key: String, value: &str) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }), ..KeyValue::default() }
}

/// A request of one service with so many spans of eight names.
fn request(spans: u64) -> Bytes {
    let span = |n: u64| Span {
        trace_id: vec![7; 16],
        span_id: (n + 1).to_be_bytes().to_vec(),
        name: format!("GET /items/{}", n % 8),
        kind: 2,
        start_time_unix_nano: T0,
        end_time_unix_nano: T0 + n * 1_000_000,
        attributes: (0..10).map(|at| text(format!("attribute.{at}"), "value")).collect(),
        ..Span::default()
    };
    let resource = Resource { attributes: vec![text("service.name".to_owned(), "cart")], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec())
}

fn batch(payload: &Bytes) -> Batch {
    let mut index = SpanIndex::default();
    let scanned = scan(Signal::Traces, payload, &ScanLimits::default(), Some(&mut index)).expect("a good request");
    Batch {
        signal: Signal::Traces,
        payload: payload.clone(),
        items: scanned.items,
        context: Arc::new(Context::default()),
        index: Some(Arc::new(index)),
    }
}

/// Blocks that `work` takes from the heap.
fn blocks<T>(work: impl FnOnce() -> T) -> u64 {
    let before = dhat::HeapStats::get().total_blocks;
    let kept = work();
    let after = dhat::HeapStats::get().total_blocks;
    drop(kept);
    after - before
}

/// For the small request and for one of ten times as many spans.
fn both(mut work: impl FnMut(&Bytes) -> u64) -> (u64, u64) {
    (work(&request(512)), work(&request(5120)))
}

fn connector() -> Box<dyn Connector> {
    let yaml = "connectors: {span_metrics: {exemplars: {enabled: true}}}";
    let loaded = load(&[Input::Text { name: "test".to_owned(), text: yaml.to_owned() }], &Machine);
    let config = Config::read(loaded.node.nearest("connectors::span_metrics"), &mut Diagnostics::default());
    let context = BuildContext {
        notes: Notes::default(),
        claims: Claims::default(),
        id: ComponentId::parse("span_metrics").expect("a good id"),
        telemetry: Telemetry::default(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: Clock::new(|| UnixNanos(T0)),
        sockets: Arc::default(),
        is_reload: false,
    };
    config.build(context, ConnectorUse { derives: false, renders: true }).expect("good settings").connector
}

/// One test, since the counts are the process's.
#[test]
fn nothing_is_allocated_for_each_span() {
    let _counting = dhat::Profiler::builder().testing().build();

    let scanned = both(|payload| blocks(|| scan(Signal::Traces, payload, &ScanLimits::default(), None)));
    assert_eq!(scanned, (0, 0), "the scan");

    // The index is one list that grows by doubling.
    let (small, large) = both(|payload| blocks(|| batch(payload)));
    assert!(small <= 16 && large <= small + 8, "the index: {small}, {large}");

    // Rows and their exemplars are there after the first time.
    let mut connector = connector();
    let counted = both(|payload| {
        let position = Position { topic: TopicId(0), shard: 0, offset: 0 };
        let record = Record { position, source: SourceId(0), received: UnixNanos(T0), batch: batch(payload), derived_from: None };
        let mut out = Vec::new();
        connector.consume(&record, &mut out);
        blocks(|| connector.consume(&record, &mut out))
    });
    assert!(counted.0 <= 4 && counted.1 <= counted.0, "RED counts: {counted:?}");

    let moved = both(|payload| {
        let topic = Topic::new(TopicId(0), "traces".to_owned(), Signal::Traces, 1, |number, room| {
            Arc::new(MemoryShard::new(TopicId(0), number, 8 << 20, room))
        });
        let mut cursor = topic.cursor(&Subscriber {
            name: "traces → test".into(),
            sources: Sources::of([SourceId(0)]),
            bound: LagBound::NONE,
            on_overflow: OnOverflow::SkipOldest,
            is_stateful: false,
        });
        let batch = batch(payload);
        let mut out = Vec::with_capacity(1);
        blocks(|| {
            let record = NewRecord { source: SourceId(0), received: UnixNanos(T0), batch, derived_from: None };
            let _appending = topic.append_now(0, record);
            cursor.read(1, usize::MAX, &mut out);
            for record in &out {
                cursor.settle(record.position, &Settled::delivered(record.batch.items));
            }
        })
    });
    assert!(moved.0 <= 8 && moved.1 == moved.0, "through the topic: {moved:?}");

    // Each half is a list of ranges, not of spans.
    let (small, large) = both(|payload| {
        let batch = batch(payload);
        blocks(|| split_by_items(&batch, batch.items / 2))
    });
    assert!(small <= 32 && large <= small + 8, "halving: {small}, {large}");
}
