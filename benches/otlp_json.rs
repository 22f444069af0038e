//! What does OTLP/JSON cost? To bytes and back, beside the generated types with serde and prost, which go through a tree.
//!
//! An iteration is 64 requests of 512 spans; elements are spans. Left out: the scan that follows reading.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use weir::{
    otlp::{ScanLimits, json},
    signal::Signal,
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

fn both_ways(c: &mut Criterion) {
    let payloads = payloads::traces();
    let limits = json::Limits { scan: ScanLimits::default(), bytes_max: 64 << 20 };
    let texts: Vec<Vec<u8>> = payloads
        .iter()
        .map(|payload| {
            let mut out = Vec::new();
            json::encode(Signal::Traces, payload, &mut out).expect("a good request");
            out
        })
        .collect();
    let mut group = c.benchmark_group("otlp_json/traces/512_spans");
    group.throughput(Throughput::Elements(payloads::spans(&payloads)));
    group.sample_size(20);
    group.bench_function("decode", |b| {
        b.iter(|| {
            for text in &texts {
                black_box(json::decode(Signal::Traces, text, &limits)).expect("a good request");
            }
        });
    });
    group.bench_function("decode_with_serde_and_prost", |b| {
        b.iter(|| {
            for text in &texts {
                let request: ExportTraceServiceRequest = serde_json::from_slice(text).expect("a good request");
                black_box(request.encode_to_vec());
            }
        });
    });
    group.bench_function("encode", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            for payload in &payloads {
                out.clear();
                json::encode(Signal::Traces, payload, &mut out).expect("a good request");
                black_box(&out);
            }
        });
    });
    group.bench_function("encode_with_prost_and_serde", |b| {
        b.iter(|| {
            for payload in &payloads {
                let request = ExportTraceServiceRequest::decode(&**payload).expect("a good request");
                black_box(serde_json::to_vec(&request).expect("it can be written"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, both_ways);
criterion_main!(benches);
