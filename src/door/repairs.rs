//! Strings that were repaired, counted by the service that sent them.

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::IntCounter;

use crate::internal_telemetry::{DOOR_REPAIRED, Telemetry};

/// Services that are counted by name; what others send is counted as `_other`.
const SERVICES_MAX: usize = 100;
const OTHER: &str = "_other";
/// Bytes of a service's name in a label.
const NAME_MAX: usize = 128;

#[derive(Default)]
pub(super) struct Repairs(Mutex<HashMap<String, IntCounter>>);

impl Repairs {
    /// `strings`: how many, by service.
    pub(super) fn count(&self, telemetry: &Telemetry, receiver: &str, strings: &[(String, u64)]) {
        let mut known = self.0.lock();
        for (service, count) in strings {
            let service = service.get(..service.floor_char_boundary(NAME_MAX)).unwrap_or(OTHER);
            let service = if known.contains_key(service) || known.len() < SERVICES_MAX { service } else { OTHER };
            if !known.contains_key(service) {
                let labels = [("receiver", receiver), ("service", service)];
                let counter = telemetry.counter(DOOR_REPAIRED, "Strings that were not UTF-8 and were repaired.", &labels);
                known.insert(service.to_owned(), counter);
                tracing::warn!(receiver, ?service, "strings that are not UTF-8 are repaired; said once a service");
            }
            if let Some(counter) = known.get(service) {
                counter.inc_by(*count);
            }
        }
    }
}
