//! `env`: what `OTEL_RESOURCE_ATTRIBUTES` lists, `key=value` with commas between, values percent-encoded.
//!
//! Spec: OpenTelemetry "Resource SDK", "Specifying resource information via an environment variable".

use super::detected::Detected;
use crate::config::Environment;

/// The second is older than the specification.
const VARIABLES: [&str; 2] = ["OTEL_RESOURCE_ATTRIBUTES", "OTEL_RESOURCE"];

/// One that is wrong anywhere counts for nothing: half of an identity is another's.
pub(super) fn detect(environment: &dyn Environment, found: &mut Detected) -> Result<(), String> {
    let set = |name: &&str| environment.variable(name).is_some_and(|text| !text.trim().is_empty());
    let Some(name) = VARIABLES.iter().find(|name| set(name)) else { return Ok(()) };
    let text = environment.variable(name).unwrap_or_default();
    let mut attributes = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{name} has a part without `=`: `{part}`"))?;
        let value = decoded(value.trim())
            .ok_or_else(|| format!("{name} has a value that is not percent-encoded text, of `{}`", key.trim()))?;
        if key.trim().is_empty() {
            return Err(format!("{name} has a value without a key"));
        }
        attributes.push((key.trim(), value));
    }
    for (key, value) in attributes {
        found.text(key, &value);
    }
    Ok(())
}

/// `%41` is `A`. `None`: broken, or not UTF-8 after all.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'%' {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            // A sign would be taken for a digit.
            bytes.push(digits.chars().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())??);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}
