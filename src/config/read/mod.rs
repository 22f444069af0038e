//! Nodes → settings structs, by serde; every problem of a section is found, not the first only.
//!
//! A value that cannot be read is recorded with its place, left out, and the section is read again without it, so that its default stands
//! in and the next problem shows. Keys that a struct does not have are recorded on the way.

mod error;
mod node_deserializer;
mod probe;

use std::cell::RefCell;

use serde::de::DeserializeOwned;

use super::{Diagnostics, Node, Value, secrets::secret_at};
use error::{Details, Kind};
use node_deserializer::{NodeDeserializer, Reading};

/// Reads one settings struct from a map node (null: its defaults). Unknown keys and wrong values go to `found`, and the default stands in for them.
pub fn read<T: DeserializeOwned + Default>(node: &Node, found: &mut Diagnostics) -> T {
    read_part(node, &[], true, found)
}

/// Reads two structs that share one map (a component's own keys beside a server block): each takes its own keys, what neither knows is unknown.
pub fn read2<A, B>(node: &Node, found: &mut Diagnostics) -> (A, B)
where
    A: DeserializeOwned + Default,
    B: DeserializeOwned + Default,
{
    let (a, b) = (probe::fields::<A>(), probe::fields::<B>());
    (read_part(node, b, true, found), read_part(node, a, false, found))
}

/// As [`read2`], for three.
pub fn read3<A, B, C>(node: &Node, found: &mut Diagnostics) -> (A, B, C)
where
    A: DeserializeOwned + Default,
    B: DeserializeOwned + Default,
    C: DeserializeOwned + Default,
{
    let (a, b, c) = (probe::fields::<A>(), probe::fields::<B>(), probe::fields::<C>());
    (
        read_part(node, &[b, c].concat(), true, found),
        read_part(node, &[a, c].concat(), false, found),
        read_part(node, &[a, b].concat(), false, found),
    )
}

/// Problems of one section are told up to this many.
const PROBLEMS_MAX: usize = 100;

/// `others`: keys of the same map that belong to someone else. `tell`: whether keys that nobody knows are this reader's to report.
fn read_part<T: DeserializeOwned + Default>(node: &Node, others: &[&'static str], tell: bool, found: &mut Diagnostics) -> T {
    match &node.value {
        Value::Null => return T::default(),
        Value::Map(_) => {}
        _ => {
            found.error(node.origin, format!("expected a map of settings, found {}", node.kind()), None);
            return T::default();
        }
    }
    let reading = RefCell::new(Reading::new(others, tell));
    for _ in 0..PROBLEMS_MAX {
        let result = T::deserialize(NodeDeserializer::root(node, &reading));
        let mut state = reading.borrow_mut();
        for diagnostic in state.told.drain(..) {
            if !found.found.contains(&diagnostic) {
                found.found.push(diagnostic);
            }
        }
        match result {
            Ok(value) => return value,
            Err(error) => {
                let Details { mut message, mut help, place, kind } = error.into_details();
                let (path, origin) = place.unwrap_or((Vec::new(), node.origin));
                if let Some(secret) = secret_at(node, &path) {
                    (message, help) = without(secret, message, help);
                }
                // A required key that was written, but wrongly, has been told of already.
                let told_already = kind == Kind::Missing && state.has_skipped_in(&path);
                if !told_already {
                    found.error(origin, message, help);
                }
                if path.is_empty() {
                    return T::default();
                }
                state.skip(path);
            }
        }
    }
    T::default()
}

/// A message about a secret value, without the value.
fn without(secret: &Node, message: String, help: Option<String>) -> (String, Option<String>) {
    let shown = match &secret.value {
        Value::String(text) => text.chars().take(20).collect(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => return (message, help),
    };
    let shows = |text: &str| !shown.is_empty() && text.contains(&shown);
    let help = help.filter(|help| !shows(help)).or_else(|| secret.word().is_none().then(|| "put it in quotes".to_owned()));
    let message = match message.split_once(", found ") {
        Some((expected, _)) if shows(&message) => format!("{expected}, found {}", secret.kind()),
        _ if shows(&message) => "this is not a value that can stand here".to_owned(),
        _ => message,
    };
    (message, help)
}

#[cfg(test)]
mod tests;
