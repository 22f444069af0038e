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

/// How far it is with a drain, for which someone asks before this process goes for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Receivers answer what they are receiving, and connectors tell what they know.
    Closing,
    /// Nothing comes in any more; what is held is delivered.
    Closed,
}

impl Drain {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
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
    drain: Mutex<Option<Drain>>,
    changed: Notify,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            whole: Mutex::new((State::Starting, Instant::now())),
            parts: Mutex::default(),
            refusing: Mutex::default(),
            drain: Mutex::default(),
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

    /// Says that no data is taken any more, so that this process can go when all is delivered. As with [`Health::set_refusing`], it is alive.
    pub fn set_drain(&self, drain: Drain) {
        *self.drain.lock() = Some(drain);
        self.changed.notify_waiters();
    }

    pub fn drain(&self) -> Option<Drain> {
        *self.drain.lock()
    }

    /// Whether data may be sent here, or why not.
    pub fn readiness(&self) -> Result<(), String> {
        if self.drain().is_some() {
            return Err("it is being drained: no new data is taken, what is held is delivered".to_owned());
        }
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
