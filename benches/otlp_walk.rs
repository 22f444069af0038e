//! What does it cost a consumer to read the fields of a span that RED metrics need? From the index, through the views, and from prost's structs.
//!
//! An iteration is 64 requests of 512 spans; elements are spans. Left out: what is done with the fields.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value};
use prost::Message;
use weir::{
    otlp::{
        ScanLimits, scan,
        view::{ResourceView, TracesView, View},
    },
    signal::{Signal, SpanIndex},
};

#[path = "load/src/payload.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "a part of the load generator, which is a package of its own"
)]
mod payload;
#[path = "payloads/mod.rs"]
mod payloads;
#[path = "load/src/wire.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "a part of the load generator, which is a package of its own"
)]
mod wire;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn walks(c: &mut Criterion) {
    let payloads = payloads::traces();
    let mut group = c.benchmark_group("otlp_walk/traces/512_spans");
    group.throughput(Throughput::Elements(payloads::spans(&payloads)));
    let indexes: Vec<SpanIndex> = payloads
        .iter()
        .map(|payload| {
            let mut index = SpanIndex::default();
            scan(Signal::Traces, payload, &ScanLimits::default(), Some(&mut index)).expect("a good request");
            index
        })
        .collect();
    group.bench_function("index", |b| {
        b.iter(|| {
            let mut sum = 0_u64;
            for (payload, index) in payloads.iter().zip(&indexes) {
                for resource in &index.resources {
                    let (start, len) = resource.resource;
                    let bytes = payload.get(start as usize..(start + len) as usize).unwrap_or_default();
                    sum += ResourceView::new(bytes).service_name().map_or(0, str::len) as u64;
                }
                for span in &index.spans {
                    let (start, len) = span.name;
                    let name = payload.get(start as usize..(start + len) as usize).unwrap_or_default();
                    sum += u64::from(span.kind + span.status) + name.len() as u64;
                    sum = sum.wrapping_add(span.end_unix_nanos - span.start_unix_nanos);
                }
            }
            black_box(sum)
        });
    });
    group.bench_function("views", |b| {
        b.iter(|| {
            let mut sum = 0_u64;
            for payload in &payloads {
                for of_resource in TracesView::new(payload).resources() {
                    sum += of_resource.resource().service_name().map_or(0, str::len) as u64;
                    for of_scope in of_resource.scopes() {
                        for span in of_scope.items() {
                            sum += (span.kind + span.status.code) as u64 + (span.name.len() + span.trace_id.len()) as u64;
                            sum = sum.wrapping_add(span.end_unix_nanos - span.start_unix_nanos);
                        }
                    }
                }
            }
            black_box(sum)
        });
    });
    group.bench_function("prost_decode_and_walk", |b| {
        b.iter(|| {
            let mut sum = 0_u64;
            for payload in &payloads {
                let request = ExportTraceServiceRequest::decode(&payload[..]).expect("a good request");
                for of_resource in &request.resource_spans {
                    let attributes = of_resource.resource.iter().flat_map(|resource| &resource.attributes);
                    let service = attributes.filter(|attribute| attribute.key == "service.name").find_map(|attribute| {
                        match &attribute.value.as_ref()?.value {
                            Some(Value::StringValue(name)) => Some(name.len()),
                            _ => None,
                        }
                    });
                    sum += service.unwrap_or_default() as u64;
                    for span in of_resource.scope_spans.iter().flat_map(|of_scope| &of_scope.spans) {
                        let code = span.status.as_ref().map_or(0, |status| status.code);
                        sum += (span.kind + code) as u64 + (span.name.len() + span.trace_id.len()) as u64;
                        sum = sum.wrapping_add(span.end_time_unix_nano - span.start_time_unix_nano);
                    }
                }
            }
            black_box(sum)
        });
    });
    group.finish();
}

criterion_group!(benches, walks);
criterion_main!(benches);
