//! Says something about a peer once, not at each of its requests.

use std::{collections::HashSet, hash::Hash};

use parking_lot::Mutex;

/// What was said already; forgets nothing, and says nothing more once `NOTICES_MAX` were said.
#[derive(Debug)]
pub struct Once<K>(Mutex<HashSet<K>>);

/// A scan of the network must not fill the log or the memory.
const NOTICES_MAX: usize = 1024;

impl<K> Default for Once<K> {
    fn default() -> Self {
        Self(Mutex::new(HashSet::new()))
    }
}

impl<K: Hash + Eq> Once<K> {
    /// Whether `what` is to be said now.
    pub fn first(&self, what: K) -> bool {
        let mut said = self.0.lock();
        said.len() < NOTICES_MAX && said.insert(what)
    }
}
