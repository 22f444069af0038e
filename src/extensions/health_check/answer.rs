//! The words and numbers of the pages, as the Collector has them.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Pages;
use crate::{runtime::State, signal::UnixNanos};

impl Pages {
    /// The older form: whether all is well, and its body.
    pub(super) fn plain(&self) -> (bool, String) {
        let body = match self.up_since() {
            Some(since) => {
                let uptime = Duration::from_nanos(self.clock.now().0.saturating_sub(since.0));
                json!({ "status": "Server available", "upSince": rfc3339(since), "uptime": go_text(uptime) })
            }
            None => json!({ "status": "Server not available", "upSince": "0001-01-01T00:00:00Z", "uptime": "" }),
        };
        (self.up_since().is_some(), body.to_string())
    }

    /// The newer form for a query (`pipeline=traces/x`, `verbose`); `None` for a pipeline that is not there.
    pub(super) fn status(&self, query: &str) -> Option<(StatusCode, String)> {
        let asked = |key: &str| {
            let value = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).find(|(name, _)| *name == key);
            value.map(|(_, value)| value.replace("%2F", "/").replace("%2f", "/"))
        };
        let (pipeline, verbose) = (asked("pipeline"), asked("verbose").is_some_and(|value| value != "false"));
        let mut pipelines: BTreeMap<String, Vec<(String, State, Instant)>> = BTreeMap::new();
        for ((of, id), (state, since)) in self.health.parts() {
            let name = of.unwrap_or_else(|| "extensions".to_owned());
            pipelines.entry(name).or_default().push((id.to_string(), state, since));
        }
        let whole = match &pipeline {
            None => {
                let parts = pipelines.values().flatten().map(|(_, state, since)| (state.clone(), Some(*since)));
                worst(parts.chain([(self.health.whole(), None)]))
            }
            Some(name) => worst(pipelines.get(name)?.iter().map(|(_, state, since)| (state.clone(), Some(*since)))),
        };
        let (status, mut body) = self.event(&whole.0, whole.1);
        if pipeline.is_none() {
            body.insert("start_time".to_owned(), rfc3339(self.started).into());
        }
        if verbose {
            let members = |parts: &[(String, State, Instant)]| {
                let all = parts.iter().map(|(id, state, since)| (id.clone(), Value::Object(self.event(state, Some(*since)).1)));
                Value::Object(all.collect::<Map<_, _>>())
            };
            let components = if let Some(name) = &pipeline {
                members(pipelines.get(name)?)
            } else {
                let all = pipelines.iter().map(|(name, parts)| {
                    let worst = worst(parts.iter().map(|(_, state, since)| (state.clone(), Some(*since))));
                    let mut event = self.event(&worst.0, worst.1).1;
                    event.insert("components".to_owned(), members(parts));
                    let name = if name == "extensions" { name.clone() } else { format!("pipeline:{name}") };
                    (name, Value::Object(event))
                });
                Value::Object(all.collect::<Map<_, _>>())
            };
            body.insert("components".to_owned(), components);
        }
        Some((status, Value::Object(body).to_string()))
    }

    /// One state as a status code and an object.
    fn event(&self, state: &State, since: Option<Instant>) -> (StatusCode, Map<String, Value>) {
        let lasted = since.map(|since| since.elapsed()).unwrap_or_default();
        let (name, code, healthy, error) = match state {
            State::Starting => ("StatusStarting", StatusCode::SERVICE_UNAVAILABLE, false, None),
            State::Ok => ("StatusOK", StatusCode::OK, true, None),
            State::Recoverable(error) => {
                let counts = self.include_recoverable && lasted >= self.recovery;
                let code = if counts { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                ("StatusRecoverableError", code, !counts, Some(error))
            }
            State::Permanent(error) => {
                let code = if self.include_permanent { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                ("StatusPermanentError", code, !self.include_permanent, Some(error))
            }
            State::Fatal(error) => ("StatusFatalError", StatusCode::INTERNAL_SERVER_ERROR, false, Some(error)),
            State::Stopping => ("StatusStopping", StatusCode::SERVICE_UNAVAILABLE, false, None),
            State::Stopped => ("StatusStopped", StatusCode::SERVICE_UNAVAILABLE, false, None),
        };
        let now = self.clock.now().0;
        let at = UnixNanos(now.saturating_sub(u64::try_from(lasted.as_nanos()).unwrap_or(u64::MAX)));
        let mut body = Map::new();
        body.insert("healthy".to_owned(), healthy.into());
        body.insert("status".to_owned(), name.into());
        body.extend(error.map(|error| ("error".to_owned(), error.as_str().into())));
        body.insert("status_time".to_owned(), rfc3339(at).into());
        (code, body)
    }
}

/// The state that tells of the whole.
fn worst(states: impl Iterator<Item = (State, Option<Instant>)>) -> (State, Option<Instant>) {
    let rank = |state: &State| match state {
        State::Ok => 0,
        State::Recoverable(_) => 1,
        State::Permanent(_) => 2,
        State::Stopped => 3,
        State::Stopping => 4,
        State::Starting => 5,
        State::Fatal(_) => 6,
    };
    states.max_by_key(|(state, _)| rank(state)).unwrap_or((State::Ok, None))
}

fn rfc3339(at: UnixNanos) -> String {
    Timestamp::from_nanosecond(i128::from(at.0)).map_or_else(|_| String::new(), |at| at.to_string())
}

/// `1h2m3.5s`, as Go writes durations.
pub(super) fn go_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = (seconds % 60) as f64 + f64::from(duration.subsec_nanos()) / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}
