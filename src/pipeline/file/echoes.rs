//! One typo, one error: what only follows from a misspelled word is not said beside it.

use super::KEYS;
use crate::config::{Diagnostics, Level, Node, Origin, Value, collector::Kind, suggest};

/// The file as it would read with the right words for the sections and lists that hold everything else, where it is clear which were meant. The
/// misspelled ones are told elsewhere; this is for what is checked behind them.
pub(super) fn mended(node: &Node, service_keys: &[&str], pipeline_keys: &[&str]) -> Node {
    let mut whole = node.clone();
    rename(&mut whole, KEYS);
    if let Some(service) = whole.get_mut("service") {
        rename(service, service_keys);
        let pipelines = service.get_mut("pipelines").map(|pipelines| &mut pipelines.value);
        if let Some(Value::Map(pipelines)) = pipelines {
            for (_, body) in pipelines {
                rename(body, pipeline_keys);
            }
        }
    }
    whole
}

/// Gives misspelled keys of a map the names that they are near to, unless these are there.
fn rename(map: &mut Node, keys: &[&str]) {
    let Value::Map(entries) = &mut map.value else { return };
    let written: Vec<String> = entries.iter().filter_map(|(key, _)| key.word().map(ToString::to_string)).collect();
    for (key, _) in entries {
        let Some(word) = key.word().filter(|word| !keys.contains(&&***word)) else { continue };
        if let Some(meant) = suggest::nearest(word, keys.iter().copied()).filter(|meant| !written.iter().any(|key| key == meant))
        {
            key.value = Value::String(meant.into());
            key.text = None;
        }
    }
}

/// Takes out that a key is missing where it is there under a misspelled name, which is told.
pub fn drop_echoes(node: &Node, found: &mut Diagnostics) {
    let mut node = node.clone();
    rename(&mut node, KEYS);
    let meant: Vec<(Vec<Origin>, String)> = found
        .found
        .iter()
        .filter(|error| error.level == Level::Error && error.message.starts_with("there is no key `"))
        .filter_map(|error| {
            let near = error.help.as_deref()?.strip_prefix("did you mean `")?.strip_suffix("`?")?;
            Kind::ALL.into_iter().find_map(|kind| {
                let components = node.get(kind.section())?.entries();
                let (key, settings) = components.iter().find(|(_, settings)| is_within(settings, error.origin))?;
                Some((vec![key.origin, settings.origin], near.to_owned()))
            })
        })
        .collect();
    let names = |message: &str, key: &str| {
        message.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == key)
    };
    let is_echo = |origin: Origin, message: &str| {
        message.contains("required") && meant.iter().any(|(places, key)| places.contains(&origin) && names(message, key))
    };
    found.found.retain(|error| error.level != Level::Error || !is_echo(error.origin, &error.message));
}

/// Whether a key somewhere in the settings was written there.
fn is_within(settings: &Node, origin: Origin) -> bool {
    settings.entries().iter().any(|(key, value)| key.origin == origin || is_within(value, origin))
}
