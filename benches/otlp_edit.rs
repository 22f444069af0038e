//! What does it cost to add one attribute to every span, and to rewrite every span's attributes? Beside decoding, changing and encoding with prost.
//!
//! An iteration is 64 requests of 512 spans; elements are spans.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use prost::Message;
use weir::{
    otlp::{
        edit::{AttributesWriter, Edit, Editor, Place, edit},
        view::SpanView,
    },
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

/// Adds `team` behind the attributes that are there.
struct Insert;

impl Editor for Insert {
    fn span(&mut self, _: &Place<'_>, _: &SpanView<'_>, out: &mut AttributesWriter) -> Edit {
        out.string("team", "shop");
        Edit::Append
    }
}

/// Takes `url.scheme` away and adds `team`.
struct Rewrite;

impl Editor for Rewrite {
    fn span(&mut self, _: &Place<'_>, span: &SpanView<'_>, out: &mut AttributesWriter) -> Edit {
        for attribute in span.attributes.iter().filter(|attribute| attribute.key() != "url.scheme") {
            out.keep(&attribute);
        }
        out.string("team", "shop");
        Edit::Replace
    }
}

fn edits(c: &mut Criterion) {
    let payloads = payloads::traces();
    let mut group = c.benchmark_group("otlp_edit/traces/512_spans");
    group.throughput(Throughput::Elements(payloads::spans(&payloads)));
    let bytes: Vec<Bytes> = payloads.iter().map(|payload| Bytes::copy_from_slice(payload)).collect();
    group.bench_function("insert", |b| {
        b.iter(|| {
            for payload in &bytes {
                black_box(edit(Signal::Traces, payload, &mut Insert));
            }
        });
    });
    group.bench_function("rewrite", |b| {
        b.iter(|| {
            for payload in &bytes {
                black_box(edit(Signal::Traces, payload, &mut Rewrite));
            }
        });
    });
    group.bench_function("prost_insert", |b| {
        b.iter(|| {
            for payload in &payloads {
                let mut request = ExportTraceServiceRequest::decode(&payload[..]).expect("a good request");
                for of_scope in request.resource_spans.iter_mut().flat_map(|of_resource| &mut of_resource.scope_spans) {
                    for span in &mut of_scope.spans {
                        let value = Some(AnyValue { value: Some(Value::StringValue("shop".to_owned())) });
                        span.attributes.push(KeyValue { key: "team".to_owned(), value, key_strindex: 0 });
                    }
                }
                black_box(request.encode_to_vec());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, edits);
criterion_main!(benches);
