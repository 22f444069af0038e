//! The state of every component and of the whole, for health checks and our own metrics.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::signal::ComponentId;

/// A component's state: the Collector's component statuses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Starting,
    Ok,
    /// It will pass by itself (a backend away).
    Recoverable(String),
    /// Someone has to act; the rest runs.
    Permanent(String),
    Fatal(String),
    Stopping,
    Stopped,
}

/// (pipeline, component) → state and since when.
type States = BTreeMap<(Option<String>, ComponentId), (State, Instant)>;

/// One a process.
#[derive(Debug)]
pub struct Health {
    whole: Mutex<(State, Instant)>,
    parts: Mutex<States>,
    /// Why no data is taken, where that is so although all runs.
    refusing: Mutex<Option<String>>,
    changed: Notify,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            whole: Mutex::new((State::Starting, Instant::now())),
            parts: Mutex::default(),
            refusing: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Health {
    /// The process: `Starting` until listeners are up, `Ok`, then `Stopping`.
    pub fn set_whole(&self, state: State) {
        *self.whole.lock() = (state, Instant::now());
        self.changed.notify_waiters();
    }

    pub fn whole(&self) -> State {
        self.whole.lock().0.clone()
    }

    /// Says why no data is taken although all runs (a full disk), or that it is taken again. Whoever restarts what is not alive must not hear
    /// of this as that: it holds data.
    pub fn set_refusing(&self, reason: Option<String>) {
        *self.refusing.lock() = reason;
    }

    /// Whether data may be sent here, or why not.
    pub fn readiness(&self) -> Result<(), String> {
        match (&*self.refusing.lock(), self.whole()) {
            (Some(reason), _) => Err(reason.clone()),
            (None, State::Ok) => Ok(()),
            (None, state) => Err(format!("{state:?}").to_lowercase()),
        }
    }

    /// With the moment at which it became so.
    pub fn whole_since(&self) -> (State, Instant) {
        self.whole.lock().clone()
    }

    /// `pipeline` is `traces/x`, or `None` for extensions.
    pub fn report(&self, pipeline: Option<&str>, id: &ComponentId, state: State) {
        let mut parts = self.parts.lock();
        let now = Instant::now();
        let entry = parts.entry((pipeline.map(str::to_owned), id.clone())).or_insert_with(|| (State::Starting, now));
        if entry.0 != state {
            *entry = (state, now);
            self.changed.notify_waiters();
        }
    }

    /// A component is gone; nothing is said of it any more.
    pub fn forget(&self, pipeline: Option<&str>, id: &ComponentId) {
        self.parts.lock().remove(&(pipeline.map(str::to_owned), id.clone()));
        self.changed.notify_waiters();
    }

    pub fn parts(&self) -> States {
        self.parts.lock().clone()
    }

    /// Resolves at the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
