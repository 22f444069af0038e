//! What does it cost to make sure of a request at the door? The scan, the scan that leaves an index, and what prost takes to decode the same.
//!
//! An iteration is 64 requests of 512 spans; elements are spans. Left out: whatever an irregular request costs more.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use weir::{
    otlp::{ScanLimits, scan},
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

fn scans(c: &mut Criterion) {
    let payloads = payloads::traces();
    let limits = ScanLimits::default();
    let mut group = c.benchmark_group("otlp_scan/traces/512_spans");
    group.throughput(Throughput::Elements(payloads::spans(&payloads)));
    group.bench_function("scan", |b| {
        b.iter(|| {
            for payload in &payloads {
                black_box(scan(Signal::Traces, payload, &limits, None)).expect("a good request");
            }
        });
    });
    group.bench_function("scan_and_index", |b| {
        b.iter(|| {
            for payload in &payloads {
                // A new one for each request, as the door needs it.
                let mut index = SpanIndex::default();
                black_box(scan(Signal::Traces, payload, &limits, Some(&mut index))).expect("a good request");
                black_box(index);
            }
        });
    });
    group.bench_function("prost_decode", |b| {
        b.iter(|| {
            for payload in &payloads {
                black_box(ExportTraceServiceRequest::decode(&payload[..])).expect("a good request");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, scans);
criterion_main!(benches);
