//! Several trees → one, and `a::b: value` → nested maps.

use std::{collections::HashMap, sync::Arc};

use super::{Node, Value, yaml::DEPTH_MAX};

/// The separator of a path of keys.
pub(super) const SEPARATOR: &str = "::";

/// Maps with fewer keys are searched from start to end.
const INDEX_MIN: usize = 32;

/// `later` over `base`: maps are joined key by key, everything else (lists and null as well) is replaced.
pub(super) fn merge(base: &mut Node, later: Node) {
    let Value::Map(more) = later.value else {
        *base = later;
        return;
    };
    let Value::Map(entries) = &mut base.value else {
        *base = Node { value: Value::Map(more), ..later };
        return;
    };
    let mut index: Option<HashMap<Arc<str>, usize>> = (entries.len().max(more.len()) >= INDEX_MIN)
        .then(|| entries.iter().enumerate().filter_map(|(at, (key, _))| Some((key.word()?.clone(), at))).collect());
    for (key, value) in more {
        let known = match &index {
            Some(index) => key.word().and_then(|word| index.get(word)).copied(),
            None => entries.iter().position(|(known, _)| known.value == key.value),
        };
        if let Some((known, old)) = known.and_then(|at| entries.get_mut(at)) {
            if !(matches!(old.value, Value::Map(_)) && matches!(value.value, Value::Map(_))) {
                *known = key;
            }
            merge(old, value);
        } else {
            if let (Some(index), Some(word)) = (&mut index, key.word()) {
                index.insert(word.clone(), entries.len());
            }
            entries.push((key, value));
        }
    }
}

/// Turns keys with `::` in them into maps, at every level that is reached through maps.
pub(super) fn split_paths(node: Node) -> Node {
    split_at(node, 0)
}

fn split_at(node: Node, depth: usize) -> Node {
    let Value::Map(entries) = node.value else { return node };
    let mut plain = Vec::with_capacity(entries.len());
    let mut paths = Vec::new();
    for (key, value) in entries {
        match path_of(&key, depth) {
            Some(parts) => paths.push((nest(&key, &parts, split_at(value, depth + parts.len())), key.origin)),
            None => plain.push((key, split_at(value, depth + 1))),
        }
    }
    let mut whole = Node { value: Value::Map(plain), origin: node.origin, text: node.text };
    for (entry, origin) in paths {
        merge(&mut whole, Node { value: Value::Map(vec![entry]), origin, text: None });
    }
    whole
}

/// The parts of a key that is a path; a path that would lead too deep stays one unknown key.
fn path_of(key: &Node, depth: usize) -> Option<Vec<Arc<str>>> {
    let word = key.word()?;
    let parts: Vec<Arc<str>> = word.contains(SEPARATOR).then(|| word.split(SEPARATOR).map(Arc::from).collect())?;
    (depth + parts.len() <= DEPTH_MAX && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

fn nest(key: &Node, parts: &[Arc<str>], value: Node) -> (Node, Node) {
    let named = |part: &Arc<str>| Node { value: Value::String(part.clone()), origin: key.origin, text: None };
    let mut value = value;
    for part in parts.iter().skip(1).rev() {
        value = Node { value: Value::Map(vec![(named(part), value)]), origin: key.origin, text: None };
    }
    (parts.first().map_or_else(|| key.clone(), named), value)
}
