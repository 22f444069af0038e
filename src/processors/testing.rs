//! What tests of processors share: a processor from YAML, requests in JSON, what comes out as JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    component::{BuildContext, BuiltProcessor, Extensions, Processed, Processor, ProcessorConfig},
    config::{Diagnostics, Input, Level, Machine, load},
    internal_telemetry::Telemetry,
    otlp::{ScanLimits, json},
    runtime::{BuildError, Clock, Health},
    signal::{Batch, ComponentId, Context, Signal, UnixNanos},
};

/// Reads settings; what is wrong with them comes along.
pub(super) fn read<C: ProcessorConfig>(yaml: &str) -> (C, Diagnostics) {
    let input = Input::Text { name: "test".to_owned(), text: format!("p: {yaml}") };
    let loaded = load(&[input], &Machine);
    assert!(!loaded.found.has_errors(), "{yaml}: {:?}", loaded.found);
    let mut found = Diagnostics::default();
    let config = C::read(loaded.node.get("p").unwrap(), &mut found);
    (config, found)
}

/// The first error of settings.
#[track_caller]
pub(super) fn error<C: ProcessorConfig>(yaml: &str) -> String {
    let found = read::<C>(yaml).1.found;
    found.into_iter().find(|one| one.level == Level::Error).unwrap_or_else(|| panic!("no error in {yaml}")).message
}

pub(super) fn build<C: ProcessorConfig>(yaml: &str, signal: Signal) -> Result<Arc<dyn Processor>, BuildError> {
    let (config, found) = read::<C>(yaml);
    assert!(!found.has_errors(), "{yaml}: {found:?}");
    let context = BuildContext {
        notes: crate::component::Notes::default(),
        claims: crate::component::Claims::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: ComponentId::parse("test").unwrap(),
        telemetry: Telemetry::default(),
        health: Arc::new(Health::default()),
        extensions: Arc::new(Extensions::default()),
        clock: Clock::new(|| UnixNanos(1)),
    };
    match config.build(context, signal)? {
        BuiltProcessor::Stage(stage) => Ok(stage),
        _ => panic!("not a stage"),
    }
}

pub(super) fn batch(signal: Signal, request: &Value, context: Context) -> Batch {
    let limits = json::Limits { scan: ScanLimits::default(), bytes_max: 1 << 20 };
    let payload = json::decode(signal, request.to_string().as_bytes(), &limits).unwrap();
    Batch { signal, payload: Bytes::from(payload), items: 1, context: Arc::new(context), index: None }
}

/// What a processor makes of a batch.
pub(super) fn processed(processor: &dyn Processor, batch: Batch) -> Batch {
    match processor.process(batch, UnixNanos(1)) {
        Processed::Keep(batch) => batch,
        other => panic!("{other:?}"),
    }
}

pub(super) fn json_of(batch: &Batch) -> Value {
    let mut out = Vec::new();
    json::encode(batch.signal, &batch.payload, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// A traces request of one span with these attributes.
pub(super) fn span_with(attributes: &Value) -> Value {
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "GET /a", "kind": 2, "attributes": attributes}]}]}]})
}
