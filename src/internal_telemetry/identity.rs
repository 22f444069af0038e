//! Who we are in our own telemetry: the resource.

use std::collections::BTreeMap;

use ring::rand::{SecureRandom, SystemRandom};

/// Resource attributes of our own metrics and spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub attributes: BTreeMap<String, String>,
}

impl Default for Identity {
    /// `service.name`, `service.version` and a fresh `service.instance.id`.
    fn default() -> Self {
        Self {
            attributes: BTreeMap::from([
                ("service.name".to_owned(), "weir".to_owned()),
                ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("service.instance.id".to_owned(), random_uuid()),
            ]),
        }
    }
}

impl Identity {
    /// Sets an attribute, or takes away one of the automatic ones.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => {
                self.attributes.insert(name.to_owned(), value);
            }
            None => {
                self.attributes.remove(name);
            }
        }
    }
}

/// A version 4 UUID. Without randomness it is the nil one: worse to tell apart, nothing else.
fn random_uuid() -> String {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        bytes = [0; 16];
    } else {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
    }
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    let mut out = String::with_capacity(36);
    for (at, c) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(c);
    }
    out
}
