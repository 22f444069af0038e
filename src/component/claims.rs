//! What components keep outside of weir under names that another one may use as well.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::signal::ComponentId;

/// Those of one configuration, as its components say them while they are built.
#[derive(Clone, Default)]
pub struct Claims(Arc<Mutex<BTreeMap<String, Claim>>>);

/// Who keeps something, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub by: ComponentId,
    pub as_is: String,
}

impl Claims {
    /// Says that `by` keeps `what` as it is described. Returns who keeps it otherwise.
    pub fn claim(&self, what: String, by: &ComponentId, as_is: &str) -> Option<Claim> {
        let mut claims = self.0.lock();
        let first = claims.entry(what).or_insert_with(|| Claim { by: by.clone(), as_is: as_is.to_owned() });
        (first.as_is != as_is).then(|| first.clone())
    }
}
