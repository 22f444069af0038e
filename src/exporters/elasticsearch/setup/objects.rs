//! What is installed: a lifecycle, and a template for each signal.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    exporters::elasticsearch::{
        documents::Mode,
        facts::{Facts, Product},
        preflight::Ready,
        settings::{Lifecycle, Settings},
    },
    signal::Signal,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exporters::elasticsearch) enum Kind {
    IlmPolicy,
    IsmPolicy,
    IndexTemplate,
    ComponentTemplate,
}

/// Something that a server keeps by name.
#[derive(Debug, Clone)]
pub(in crate::exporters::elasticsearch) struct Object {
    pub(in crate::exporters::elasticsearch) kind: Kind,
    pub(in crate::exporters::elasticsearch) name: String,
    /// Where it is read and written.
    pub(in crate::exporters::elasticsearch) path: String,
    /// As it is written, with what weir wrote in its `_meta`.
    pub(in crate::exporters::elasticsearch) body: Value,
}

/// Where the text of what weir wrote stands.
pub(super) const MARK: &str = "weir";
/// How a policy that has no `_meta` begins its description with the same.
pub(super) const DESCRIPTION: &str = "Installed by weir. As it was written: ";

impl Object {
    fn new(kind: Kind, name: String, mut body: Value) -> Self {
        let written = body.to_string();
        let path = match kind {
            Kind::IlmPolicy => format!("/_ilm/policy/{name}"),
            Kind::IsmPolicy => format!("/_plugins/_ism/policies/{name}"),
            Kind::IndexTemplate => format!("/_index_template/{name}"),
            Kind::ComponentTemplate => format!("/_component_template/{name}"),
        };
        let meta = json!({ "managed_by": "weir", MARK: written });
        match kind {
            Kind::IlmPolicy => body["policy"]["_meta"] = meta,
            Kind::IsmPolicy => body["policy"]["description"] = json!(format!("{DESCRIPTION}{written}")),
            Kind::IndexTemplate | Kind::ComponentTemplate => body["_meta"] = meta,
        }
        Self { kind, name, path, body }
    }

    pub(super) fn what(&self) -> String {
        let kind = match self.kind {
            Kind::IlmPolicy => "lifecycle policy",
            Kind::IsmPolicy => "index state policy",
            Kind::IndexTemplate => "index template",
            Kind::ComponentTemplate => "component template",
        };
        format!("{kind} {}", self.name)
    }

    /// What a user or an API key needs to write it.
    pub(super) const fn privilege(&self) -> &'static str {
        match self.kind {
            Kind::IlmPolicy => "manage_ilm (cluster)",
            Kind::IsmPolicy => "cluster:admin/opendistro/ism/policy/write (cluster)",
            Kind::IndexTemplate | Kind::ComponentTemplate => "manage_index_templates (cluster)",
        }
    }
}

const POLICY: &str = "weir";
/// The same without a rollover, for indices that have a date in their names.
const DATED_POLICY: &str = "weir-dated";

/// What documents of these signals need on this server.
pub(in crate::exporters::elasticsearch) fn objects(
    settings: &Settings,
    ready: Ready,
    roles: Option<&[String]>,
    signals: &[Signal],
) -> Vec<Object> {
    let facts = ready.facts;
    let taken = signals.iter().filter(|signal| takes(settings, ready.mode, **signal));
    let targets: Vec<Template> = taken.map(|signal| template(settings, ready.mode, *signal)).collect();
    let mut objects: Vec<Object> = Vec::new();
    for target in &targets {
        let policy = match facts.product {
            Product::OpenSearch if target.is_stream => {
                // The same for every exporter, whatever it sends.
                let patterns = Signal::ALL.map(|signal| format!("{}{signal}-*", settings.stream_prefix));
                Object::new(Kind::IsmPolicy, POLICY.to_owned(), ism(settings.lifecycle, &patterns, 100, true))
            }
            Product::OpenSearch => {
                let patterns = [target.pattern.clone()];
                let priority = 90 + target.signal.ordinal();
                Object::new(Kind::IsmPolicy, target.name.clone(), ism(settings.lifecycle, &patterns, priority, false))
            }
            _ if facts.serverless => continue,
            _ => {
                let name = if target.is_stream { POLICY } else { DATED_POLICY };
                Object::new(Kind::IlmPolicy, name.to_owned(), ilm(settings.lifecycle, facts, roles, target.is_stream))
            }
        };
        if objects.iter().all(|known| known.path != policy.path) {
            objects.push(policy);
        }
    }
    objects.extend(targets.iter().map(|target| target.object(ready)));
    objects
}

/// Names of the policies that documents of any signal need on this server.
pub(in crate::exporters::elasticsearch) fn policies(settings: &Settings, ready: Ready) -> BTreeSet<String> {
    let is_policy = |object: &Object| matches!(object.kind, Kind::IlmPolicy | Kind::IsmPolicy);
    objects(settings, ready, None, &Signal::ALL).into_iter().filter(is_policy).map(|object| object.name).collect()
}

fn takes(settings: &Settings, mode: Mode, signal: Signal) -> bool {
    mode.takes(signal) || settings.allowed.iter().any(|mode| mode.takes(signal) && *mode == Mode::Otel)
}

struct Template {
    signal: Signal,
    pattern: String,
    is_stream: bool,
    /// They are told apart where one cluster has indices of several exporters.
    name: String,
}

fn template(settings: &Settings, mode: Mode, signal: Signal) -> Template {
    let suffix = if settings.suffix.is_some() { "*" } else { "" };
    if let Some(pattern) = settings.indices.get(signal.ordinal()).and_then(Option::as_ref) {
        let glob = format!("{}{suffix}", pattern.glob(signal)).replace("**", "*");
        // A name of its own: another exporter may name its indices otherwise.
        let of: String = glob.chars().filter(|c| *c != '*').collect();
        let name = format!("weir-index-{}", of.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
        return Template { signal, pattern: glob, is_stream: false, name };
    }
    let prefix = settings.stream_prefix;
    let pattern = format!("{prefix}{signal}-*{}-*{suffix}", mode.dataset_suffix()).replace("**", "*");
    // The `otel` mapping has data streams of its own, beside those of the others.
    let name = format!("weir-{prefix}{signal}{}", mode.dataset_suffix().replace('.', "-"));
    Template { signal, pattern, is_stream: settings.suffix.is_none(), name }
}

impl Template {
    fn object(&self, ready: Ready) -> Object {
        let Ready { facts, mode } = ready;
        let policy = if self.is_stream { POLICY } else { DATED_POLICY };
        let lifecycle = facts.product != Product::OpenSearch && !facts.serverless;
        let mut index = Map::new();
        if lifecycle {
            index.insert("lifecycle".to_owned(), json!({ "name": policy }));
        }
        if mode == Mode::Otel && self.is_stream && facts.has_otel() {
            // The server's own template takes this in: mappings stay its own, across upgrades.
            let body = json!({ "template": { "settings": { "index": index } } });
            return Object::new(Kind::ComponentTemplate, format!("{}-otel@custom", self.signal), body);
        }
        index.insert("mapping".to_owned(), json!({ "total_fields": { "limit": "2000" } }));
        let mut body = json!({
            "index_patterns": [self.pattern],
            "priority": self.priority(mode),
            "template": { "settings": { "index": index }, "mappings": mappings(mode, facts) },
        });
        if self.is_stream {
            body["data_stream"] = json!({});
        }
        Object::new(Kind::IndexTemplate, self.name.clone(), body)
    }
}

impl Template {
    /// Above what servers ship for all (100 to 120), below what integrations bring for theirs (200); and no two alike, whose patterns meet.
    fn priority(&self, mode: Mode) -> usize {
        let base = match (self.is_stream, mode) {
            (false, _) => 140,
            (true, Mode::Otel) => 160,
            (true, _) => 150,
        };
        base + self.signal.ordinal()
    }
}

fn mappings(mode: Mode, facts: Facts) -> Value {
    let keyword = json!({ "type": "keyword", "ignore_above": 1024 });
    // Attributes are whatever the data says: as one field they neither conflict nor use up the fields that an index may have.
    let any = match facts.product {
        Product::OpenSearch => json!({ "type": "flat_object" }),
        _ => json!({ "type": "flattened", "ignore_above": 1024 }),
    };
    let mut properties = json!({ "@timestamp": { "type": "date_nanos" } });
    let mut add = |fields: Value| {
        if let (Some(properties), Value::Object(fields)) = (properties.as_object_mut(), fields) {
            properties.extend(fields);
        }
    };
    match mode {
        Mode::Otel => add(json!({
            "observed_timestamp": { "type": "date_nanos" },
            "start_timestamp": { "type": "date_nanos" },
            "attributes": any.clone(),
            "resource": { "properties": { "attributes": any.clone() } },
            "scope": { "properties": { "attributes": any.clone() } },
            "links": { "properties": { "attributes": any.clone() } },
            "body": { "properties": { "text": { "type": "text" }, "structured": any } },
            "duration": { "type": "long" },
        })),
        Mode::Ss4o => add(json!({
            "observedTimestamp": { "type": "date_nanos" },
            "startTime": { "type": "date_nanos" },
            "endTime": { "type": "date_nanos" },
            "attributes": any.clone(),
            "resource": any.clone(),
            "instrumentationScope": { "properties": { "attributes": any.clone() } },
            "events": { "properties": { "@timestamp": { "type": "date_nanos" }, "attributes": any.clone() } },
            "links": { "properties": { "attributes": any } },
            "body": { "type": "text" },
        })),
        Mode::Ecs => add(json!({ "message": { "type": "text" }, "span": { "properties": { "events": any } } })),
        Mode::None | Mode::Raw => add(json!({ "EndTimestamp": { "type": "date_nanos" } })),
        Mode::Bodymap => {}
    }
    json!({
        "date_detection": false,
        "dynamic_templates": [{ "texts_as_keywords": { "match_mapping_type": "string", "mapping": keyword } }],
        "properties": properties,
    })
}

/// Days after which an index that is written to is closed and the next begun, so that the oldest can go one at a time.
const ROLLOVER_DAYS_MAX: u32 = 7;

fn ilm(lifecycle: Lifecycle, facts: Facts, roles: Option<&[String]>, rolls_over: bool) -> Value {
    let Lifecycle { hot, warm, cold } = lifecycle;
    // `data` without a tier is all of them, as it was before there were tiers.
    let has = |tier: &str| roles.is_none_or(|roles| roles.iter().any(|role| role == tier));
    let mut writing = json!({ "set_priority": { "priority": 100 } });
    if rolls_over {
        let size = if facts.is_elasticsearch(7, 13) { "max_primary_shard_size" } else { "max_size" };
        writing["rollover"] = json!({ "max_age": format!("{}d", hot.min(ROLLOVER_DAYS_MAX)), size: "50gb" });
    }
    let mut phases = json!({ "hot": { "min_age": "0ms", "actions": writing } });
    if warm > 0 && has("data_warm") {
        let actions = json!({ "set_priority": { "priority": 50 }, "readonly": {}, "forcemerge": { "max_num_segments": 1 } });
        phases["warm"] = json!({ "min_age": format!("{hot}d"), "actions": actions });
    }
    if cold > 0 && has("data_cold") {
        let actions = json!({ "set_priority": { "priority": 0 }, "readonly": {} });
        phases["cold"] = json!({ "min_age": format!("{}d", hot + warm), "actions": actions });
    }
    if cold > 0 {
        phases["delete"] = json!({ "min_age": format!("{}d", hot + warm + cold), "actions": { "delete": {} } });
    }
    json!({ "policy": { "phases": phases } })
}

fn ism(lifecycle: Lifecycle, patterns: &[String], priority: usize, rolls_over: bool) -> Value {
    let Lifecycle { hot, warm, cold } = lifecycle;
    let mut writing = Vec::new();
    if rolls_over {
        let rollover = json!({ "min_index_age": format!("{}d", hot.min(ROLLOVER_DAYS_MAX)), "min_primary_shard_size": "50gb" });
        writing.push(json!({ "rollover": rollover }));
    }
    let to = |state: &str, days: u32| json!([{ "state_name": state, "conditions": { "min_index_age": format!("{days}d") } }]);
    let mut states = vec![json!({ "name": "hot", "actions": writing, "transitions": to("warm", hot) })];
    let closed = json!([{ "force_merge": { "max_num_segments": 1 } }, { "read_only": {} }]);
    let mut last = json!({ "name": "warm", "actions": closed, "transitions": [] });
    if cold > 0 {
        last["transitions"] = to("cold", hot + warm);
        states.push(last);
        let days = hot + warm + cold;
        states.push(json!({ "name": "cold", "actions": [], "transitions": to("delete", days) }));
        last = json!({ "name": "delete", "actions": [{ "delete": {} }], "transitions": [] });
    }
    states.push(last);
    json!({ "policy": {
        "default_state": "hot",
        "states": states,
        "ism_template": [{ "index_patterns": patterns, "priority": priority }],
    } })
}
