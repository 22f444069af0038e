//! Templates and lifecycle: what `weir elasticsearch setup` and `setup: on_start` install.
//!
//! Asking first, and writing only what is not there, or what is as weir wrote it once. What weir wrote stands in the `_meta` of each object, so that a
//! change that a person made is seen, and kept unless it is forced.

mod compare;
mod objects;

use ::http::Method;
use bytes::Bytes;
use serde_json::Value;
use tracing::{info, warn};

use self::compare::{Found, compare};
pub(super) use self::objects::{Kind, Object, objects, policies};
use super::{
    endpoints::{Asked, Endpoints},
    preflight::{self, get},
    settings::Settings,
};
use crate::{
    component::{Done, Extent, Installed, Outcome, Step},
    signal::Signal,
    transport::client::Message,
};

/// Goes through all objects, whatever becomes of each.
///
/// # Errors
/// The server cannot be asked at all.
pub(super) async fn run(
    exporter: &str,
    endpoints: &Endpoints,
    settings: &Settings,
    extent: &Extent,
) -> Result<Installed, String> {
    let ready = preflight::look(exporter, endpoints, settings).await.map_err(|outcome| words(&outcome))?;
    let tiers = tiers(endpoints).await;
    let mut steps = Vec::new();
    for object in objects(settings, ready, tiers.as_deref(), &extent.signals) {
        let done = settle(endpoints, &object, extent).await.unwrap_or_else(|outcome| Done::Refused(words(&outcome)));
        let request = format!("{} {}", Method::PUT, object.path);
        let body = serde_json::to_string_pretty(&object.body).unwrap_or_default();
        steps.push(Step { what: object.what(), done, request, body });
    }
    Ok(Installed { backend: ready.facts.to_string(), steps })
}

/// `setup: on_start`: whatever stands in its way is said, and nothing waits for it.
pub(super) async fn on_start(exporter: &str, endpoints: &Endpoints, settings: &Settings, signal: Signal) {
    let extent = Extent { signals: vec![signal], dry_run: false, force: false };
    let steps = match run(exporter, endpoints, settings, &extent).await {
        Ok(installed) => installed.steps,
        Err(reason) => {
            warn!(exporter, reason, "templates and lifecycle cannot be set up");
            return;
        }
    };
    for Step { what, done, .. } in steps {
        match done {
            Done::Same => {}
            Done::Created => info!(exporter, what, "created"),
            Done::Updated => info!(exporter, what, "updated"),
            Done::Kept(reason) => {
                warn!(exporter, what, reason, "kept as it is: `weir elasticsearch setup --force` writes over it");
            }
            Done::Absent(reason) => info!(exporter, what, reason, "not set up"),
            Done::Refused(reason) => warn!(exporter, what, reason, "not set up"),
        }
    }
}

/// The roles of the cluster's nodes, so that no tier without nodes is used; `None`: it does not say.
async fn tiers(endpoints: &Endpoints) -> Option<Vec<String>> {
    let answer = endpoints.call(get("/_nodes?filter_path=nodes.*.roles")).await.ok().filter(|answer| answer.status == 200)?;
    let nodes: Value = serde_json::from_slice(&answer.body).ok()?;
    let nodes = nodes.get("nodes")?.as_object()?;
    let roles = nodes.values().filter_map(|node| node.get("roles")?.as_array()).flatten();
    Some(roles.filter_map(|role| role.as_str().map(str::to_owned)).collect())
}

async fn settle(endpoints: &Endpoints, object: &Object, extent: &Extent) -> Result<Done, Outcome> {
    let answer = endpoints.call(get(&object.path)).await?;
    let said = || said(answer.status, &answer.body);
    let existing: Option<Value> = match answer.status {
        200 => serde_json::from_slice(&answer.body).ok(),
        404 => None,
        // No such plugin: the path is no API at all.
        400 | 405 | 500 if object.kind == Kind::IsmPolicy => {
            return Ok(Done::Absent(
                "this OpenSearch has no index state management: indices are kept until someone deletes them".to_owned(),
            ));
        }
        401 | 403 => return Ok(Done::Refused(format!("{}; it needs the privilege {}", said(), object.privilege()))),
        _ => return Ok(Done::Refused(said())),
    };
    let mut path = object.path.clone();
    let done = match existing.as_ref().map(|existing| compare(object, existing)) {
        None => Done::Created,
        Some(Found::Same) => return Ok(Done::Same),
        Some(Found::Ours) => Done::Updated,
        Some(Found::Changed(_)) if extent.force => Done::Updated,
        Some(Found::Changed(what)) => return Ok(Done::Kept(what)),
    };
    if extent.dry_run {
        return Ok(done);
    }
    if let (Kind::IsmPolicy, Some(existing)) = (object.kind, &existing) {
        let number = |key: &str| existing.get(key).and_then(Value::as_u64).unwrap_or(0);
        path = format!("{path}?if_seq_no={}&if_primary_term={}", number("_seq_no"), number("_primary_term"));
    }
    let body = Message::of(Bytes::from(object.body.to_string()));
    let asked = Asked { method: Method::PUT, path: &path, content_type: "application/json", body };
    let answer = endpoints.call(asked).await?;
    Ok(match answer.status {
        200 | 201 => done,
        400 | 404 | 405 | 500
            if object.kind == Kind::IsmPolicy && self::said(answer.status, &answer.body).contains("no handler") =>
        {
            Done::Absent("this OpenSearch has no index state management: indices are kept until someone deletes them".to_owned())
        }
        401 | 403 => {
            Done::Refused(format!("{}; it needs the privilege {}", self::said(answer.status, &answer.body), object.privilege()))
        }
        status => Done::Refused(self::said(status, &answer.body)),
    })
}

/// A refusal in one line.
fn said(status: u16, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body.get("error");
    let text = |key: &str| error.and_then(|error| error.get(key)).and_then(Value::as_str);
    let kind = text("type").or_else(|| error.and_then(Value::as_str)).unwrap_or_default();
    let reason = text("reason").unwrap_or_default();
    let line = format!("HTTP {status} {kind} {reason}");
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    line.trim_end().to_owned()
}

/// Why nobody can be asked.
fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Retry { reason, .. } => reason.clone(),
        Outcome::Rejected { message } | Outcome::Refused { message, .. } | Outcome::Unsupported { message } => message.clone(),
        _ => "no answer".to_owned(),
    }
}
