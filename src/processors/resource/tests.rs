//! Resources are changed, items are not.

use serde_json::json;

use super::{
    super::testing::{batch, build, error, json_of, processed},
    Config,
};
use crate::signal::{Context, Signal};

const SETTINGS: &str = "{attributes: [{key: env, action: upsert, value: prod}, {key: host.name, action: hash}]}";

#[test]
fn changes_every_resource_of_all_signals_and_nothing_else() {
    for (signal, envelopes, scopes, items) in [
        (Signal::Traces, "resourceSpans", "scopeSpans", "spans"),
        (Signal::Logs, "resourceLogs", "scopeLogs", "logRecords"),
        (Signal::Metrics, "resourceMetrics", "scopeMetrics", "metrics"),
    ] {
        let inner = json!([{"scope": {"name": "lib"}, items: [{}]}]);
        let env = json!({"key": "env", "value": {"stringValue": "prod"}});
        let host = json!({"key": "host.name", "value": {"stringValue": "h1"}});
        let hashed = json!({"key": "host.name", "value": {"stringValue": "33112ee14ee469c3eb52fe90322ec81dd404a0093d565a6d71ce77cbc8124e3b"}});
        let request = json!({envelopes: [{"resource": {"attributes": [host]}, scopes: inner}, {scopes: inner}]});
        let expected = json!({envelopes: [{"resource": {"attributes": [hashed, env]}, scopes: inner}, {"resource": {"attributes": [env]}, scopes: inner}]});
        let processor = build::<Config>(SETTINGS, signal).unwrap();
        let done = processed(&*processor, batch(signal, &request, Context::default()));
        assert_eq!(json_of(&done), expected, "{signal}");
    }
}

#[test]
fn a_batch_without_anything_to_do_is_the_same_bytes() {
    let request = json!({"resourceSpans": [{"resource": {"attributes": [{"key": "a", "value": {"stringValue": "1"}}]}}, {}]});
    let before = batch(Signal::Traces, &request, Context::default());
    let processor =
        build::<Config>("{attributes: [{key: b, action: delete}, {key: a, action: upsert, value: '1'}]}", Signal::Traces)
            .unwrap();
    let one = json!({"resourceSpans": [{"resource": {"attributes": [{"key": "a", "value": {"stringValue": "1"}}]}}]});
    let same = batch(Signal::Traces, &one, Context::default());
    assert_eq!(processed(&*processor, same.clone()).payload.as_ptr(), same.payload.as_ptr());
    // The second resource has no `a` yet.
    assert_ne!(processed(&*processor, before.clone()).payload, before.payload);
}

#[test]
fn needs_at_least_one_action() {
    assert!(error::<Config>("{attributes: []}").contains("`attributes` is required"));
    assert!(error::<Config>("{actions: [{key: a, action: delete}]}").contains("actions"));
}
