//! Whether what is there is what weir would write, what weir wrote once, or what a person made of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::objects::{DESCRIPTION, Kind, MARK, Object};

pub(super) enum Found {
    /// As it should be.
    Same,
    /// As an earlier weir, or one with other settings, wrote it.
    Ours,
    /// In words what is not weir's.
    Changed(String),
}

/// What servers add on their own.
const ADDED: &[&str] = &[
    "min_age",
    "delete_searchable_snapshot",
    "hidden",
    "allow_custom_routing",
    "timestamp_field",
    "retry.count",
    "retry.backoff",
    "retry.delay",
    "copy_alias",
    "last_updated_time",
    "schema_version",
    "policy_id",
    "error_notification",
    "user",
    "composed_of",
];

pub(super) fn compare(object: &Object, answer: &Value) -> Found {
    let Some(existing) = inner(object, answer) else {
        return Found::Changed("the server's answer about it cannot be read".to_owned());
    };
    let (mut existing, mut wanted) = (existing.clone(), part(object.kind, &object.body).clone());
    let written = take_written(object.kind, &mut existing);
    take_written(object.kind, &mut wanted);
    let (existing, wanted) = (leaves(&existing), leaves(&wanted));
    let written: Option<BTreeMap<String, String>> =
        written.and_then(|text| serde_json::from_str::<Value>(&text).ok()).map(|value| leaves(part(object.kind, &value)));
    let Some(written) = written else {
        return Found::Changed("it was not made by weir".to_owned());
    };
    match difference(&existing, &written) {
        Some(what) => Found::Changed(what),
        None if difference(&wanted, &written).is_none() && difference(&written, &wanted).is_none() => Found::Same,
        None => Found::Ours,
    }
}

/// The object in an answer.
fn inner<'a>(object: &Object, answer: &'a Value) -> Option<&'a Value> {
    match object.kind {
        Kind::IlmPolicy => answer.get(&object.name)?.get("policy"),
        Kind::IsmPolicy => answer.get("policy"),
        Kind::IndexTemplate => answer.get("index_templates")?.get(0)?.get("index_template"),
        Kind::ComponentTemplate => answer.get("component_templates")?.get(0)?.get("component_template"),
    }
}

/// The same of what is written.
fn part(kind: Kind, body: &Value) -> &Value {
    match kind {
        Kind::IlmPolicy | Kind::IsmPolicy => body.get("policy").unwrap_or(body),
        Kind::IndexTemplate | Kind::ComponentTemplate => body,
    }
}

/// Takes out what weir once wrote.
fn take_written(kind: Kind, object: &mut Value) -> Option<String> {
    let object = object.as_object_mut()?;
    if kind == Kind::IsmPolicy {
        let description = object.remove("description")?;
        return description.as_str()?.strip_prefix(DESCRIPTION).map(str::to_owned);
    }
    let meta = object.remove("_meta")?;
    meta.get(MARK)?.as_str().map(str::to_owned)
}

/// The first thing in which `found` differs from `written`.
fn difference(found: &BTreeMap<String, String>, written: &BTreeMap<String, String>) -> Option<String> {
    for (path, value) in written {
        match found.get(path) {
            Some(other) if other == value => {}
            Some(other) => return Some(format!("{path} is {other}, and weir wrote {value}")),
            None => return Some(format!("{path} is gone, and weir wrote {value}")),
        }
    }
    let is_added = |path: &str| {
        ADDED.iter().any(|added| path == *added || path.ends_with(&format!(".{added}")) || path.contains(&format!(".{added}.")))
    };
    found
        .iter()
        .find(|(path, _)| !written.contains_key(*path) && !is_added(path))
        .map(|(path, value)| format!("{path} is {value}, which weir did not write"))
}

/// Every value by its path. Servers write numbers as texts, and leave empty objects out or put them in.
fn leaves(value: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    collect(value, &mut String::new(), &mut out);
    out
}

fn collect(value: &Value, path: &mut String, out: &mut BTreeMap<String, String>) {
    let mut below = |name: &str, value: &Value, path: &mut String| {
        let len = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        collect(value, path, out);
        path.truncate(len);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| below(name, value, path)),
        Value::Array(values) => values.iter().enumerate().for_each(|(at, value)| below(&at.to_string(), value, path)),
        Value::Null => {}
        Value::String(text) => drop(out.insert(path.clone(), text.clone())),
        value => drop(out.insert(path.clone(), value.to_string())),
    }
}
