//! What does it cost to count a span, with few rows and with many? From the door's index, exemplars on; beside decoding by prost and a map with
//! owned strings as keys. And how long does counting stand still while the state is saved (`cargo bench --bench red_update stalls`)?
//!
//! An iteration is 200 requests of 512 spans; elements are spans. Rows are hit in a random order. Left out: the scan that makes the
//! index (`otlp_scan`), and pages.

use std::{collections::HashMap, hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use tokio::time::Instant;
use weir::{
    component::{BuildContext, BuiltConnector, Connector, ConnectorConfig, ConnectorUse, Extensions, Stateful},
    config::{Diagnostics, Input, Machine, load},
    connectors::span_metrics::Config,
    exposition::PageSource,
    internal_telemetry::Telemetry,
    journal::{Position, Record, SourceId, TopicId},
    otlp::{ScanLimits, scan},
    runtime::{Clock, Health},
    signal::{Batch, ComponentId, Context, Signal, SpanIndex, UnixNanos},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: u64 = 200;
const SPANS: u64 = 512;
const T0: u64 = 1_700_000_000_000_000_000;

/// A sequence that looks random and is the same each time.
fn shuffled(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn requests(rows: u64) -> Vec<Bytes> {
    let mut state = 1;
    let text = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    };
    let span = |state: &mut u64| {
        let row = shuffled(state) % rows;
        let id = shuffled(state).to_le_bytes();
        Span {
            trace_id: [id, id].concat(),
            span_id: id.into(),
            name: format!("GET /shop/items/{row}"),
            kind: 2,
            start_time_unix_nano: T0,
            end_time_unix_nano: T0 + shuffled(state) % 3_000_000_000,
            attributes: (0..10).map(|n| text("http.request.header.name", format!("value {n}"))).collect(),
            ..Span::default()
        }
    };
    let mut request = || {
        let attributes = (0..12).map(|n| text(&format!("resource.attribute.{n}"), format!("value {n}")));
        let named = [text("service.name", "cart".to_owned()), text("service.instance.id", "i1".to_owned())];
        let resource_spans = ResourceSpans {
            resource: Some(Resource { attributes: attributes.chain(named).collect(), ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans: (0..SPANS).map(|_| span(&mut state)).collect(), ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        };
        Bytes::from(ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec())
    };
    (0..REQUESTS).map(|_| request()).collect()
}

fn record(payload: &Bytes) -> Record {
    let mut index = SpanIndex::default();
    let scanned = scan(Signal::Traces, payload, &ScanLimits::default(), Some(&mut index)).expect("a good request");
    let batch = Batch {
        signal: Signal::Traces,
        payload: payload.clone(),
        items: scanned.items,
        context: Arc::new(Context::default()),
        index: Some(Arc::new(index)),
    };
    let position = Position { topic: TopicId(0), shard: 0, offset: 0 };
    Record { position, source: SourceId(0), received: UnixNanos(T0), batch, derived_from: None }
}

/// What weir uses without a file.
const EMBEDDED: &str = include_str!("../src/cli/default.yaml");

fn connector(yaml: &str) -> (Box<dyn Connector>, Arc<dyn PageSource>) {
    let built = built(yaml);
    (built.connector, built.page.expect("rows to render"))
}

fn connector_and_state(yaml: &str) -> (Box<dyn Connector>, Arc<dyn Stateful>) {
    let connector = built(yaml).connector;
    let state = connector.state().expect("rows to save");
    (connector, state)
}

fn built(yaml: &str) -> BuiltConnector {
    let loaded = load(&[Input::Text { name: "bench".to_owned(), text: yaml.to_owned() }], &Machine);
    let config = Config::read(loaded.node.nearest("connectors::span_metrics"), &mut Diagnostics::default());
    let context = BuildContext {
        notes: weir::component::Notes::default(),
        claims: weir::component::Claims::default(),
        id: ComponentId::parse("span_metrics").expect("a good id"),
        telemetry: Telemetry::default(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: Clock::new(|| UnixNanos(T0)),
        sockets: Arc::default(),
        is_reload: false,
    };
    config.build(context, ConnectorUse { derives: false, renders: true }).expect("good settings")
}

#[derive(Default)]
struct Naive {
    sum: f64,
    count: u64,
    buckets: [u64; 17],
}

const BOUNDS: [f64; 16] =
    [2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1000.0, 1400.0, 2000.0, 5000.0, 10_000.0, 15_000.0];

fn count_naively(rows: &mut HashMap<String, Naive>, payload: &[u8]) {
    let request = ExportTraceServiceRequest::decode(payload).expect("a good request");
    for resource_spans in &request.resource_spans {
        let attributes = resource_spans.resource.iter().flat_map(|resource| &resource.attributes);
        let service = attributes.filter(|a| a.key == "service.name").find_map(|a| match a.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.as_str()),
            _ => None,
        });
        for span in resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans) {
            let status = span.status.as_ref().map_or(0, |status| status.code);
            let row = rows.entry(format!("{}\0{}\0{}\0{status}", service.unwrap_or(""), span.name, span.kind)).or_default();
            let millis = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) as f64 / 1e6;
            row.sum += millis;
            row.count += 1;
            row.buckets[BOUNDS.partition_point(|bound| *bound < millis)] += 1;
        }
    }
}

fn updates(c: &mut Criterion) {
    let mut group = c.benchmark_group("red_update/512_spans");
    group.throughput(Throughput::Elements(REQUESTS * SPANS));
    group.sample_size(20);
    for (rows, name) in [(100, "100_rows"), (100_000, "100k_rows")] {
        let payloads = requests(rows);
        let records: Vec<Record> = payloads.iter().map(record).collect();
        for (way, yaml) in
            [("from_index", "connectors: {span_metrics: {exemplars: {enabled: true}}}"), ("both_families", EMBEDDED)]
        {
            let (mut connector, _page) = connector(yaml);
            let mut out = Vec::new();
            group.bench_function(format!("{way}/{name}"), |b| {
                b.iter(|| {
                    for record in &records {
                        connector.consume(black_box(record), &mut out);
                    }
                });
            });
        }
        let mut table = HashMap::new();
        group.bench_function(format!("prost_and_map/{name}"), |b| {
            b.iter_batched(
                || (),
                |()| {
                    for payload in &payloads {
                        count_naively(&mut table, black_box(payload));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// The longest that a request of 512 spans takes to be counted, with and without the state of 100,000 rows being saved all the time beside it.
#[allow(clippy::print_stdout, reason = "a bench says what it measured")]
fn stalls() {
    const SAVED: u32 = 20;
    let records: Vec<Record> = requests(100_000).iter().map(record).collect();
    let (mut connector, state) = connector_and_state("connectors: {span_metrics: {exemplars: {enabled: true}}}");
    let mut out = Vec::new();
    let mut round = |took: &mut Vec<Duration>| {
        for record in &records {
            let begun = Instant::now();
            connector.consume(black_box(record), &mut out);
            took.push(begun.elapsed());
        }
    };
    let (mut first, mut calm, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    (0..10).for_each(|_| round(&mut first));
    (0..10).for_each(|_| round(&mut calm));
    let saving = std::thread::spawn(move || {
        let begun = Instant::now();
        let bytes = (0..SAVED).map(|_| black_box(state.snapshot()).bytes.len()).max().unwrap_or(0);
        (begun.elapsed() / SAVED, bytes)
    });
    while !saving.is_finished() {
        round(&mut beside);
    }
    let (each, bytes) = saving.join().expect("a saved state");
    let line = |name: &str, took: &mut Vec<Duration>| {
        took.sort_unstable();
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last()).copied().unwrap_or_default();
        println!("{name}: {} requests, p50 {:?}, p99.9 {:?}, longest {:?}", took.len(), at(0.5), at(0.999), at(1.0));
    };
    println!("a state of 100,000 rows is saved in {each:?}, {} KiB", bytes >> 10);
    line("counting alone", &mut calm);
    line("counting beside it", &mut beside);
}

criterion_group!(benches, updates);

fn main() {
    if !std::env::args().any(|argument| argument == "stalls") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
    stalls();
}
