//! What detectors found: attributes, their values encoded once for all.

use crate::otlp::wire;

/// In the order in which they were found; of two with one key the first counts.
#[derive(Debug, Default)]
pub(super) struct Detected(Vec<(String, Vec<u8>)>);

impl Detected {
    pub(super) fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.add(key, |out| wire::put_bytes_always(out, 1, value.as_bytes()));
        }
    }

    pub(super) fn int(&mut self, key: &str, value: i64) {
        self.add(key, |out| wire::put_uint_always(out, 3, value.cast_unsigned()));
    }

    /// A list of texts; none where it is empty.
    pub(super) fn texts(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            self.add(key, |out| {
                wire::put_message(out, 5, |out| {
                    for value in values {
                        wire::put_message(out, 1, |out| wire::put_bytes_always(out, 1, value.as_bytes()));
                    }
                });
            });
        }
    }

    /// `value` writes an `AnyValue`.
    fn add(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        if self.get(key).is_none() {
            let mut encoded = Vec::new();
            value(&mut encoded);
            self.0.push((key.to_owned(), encoded));
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_slice())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }
}
