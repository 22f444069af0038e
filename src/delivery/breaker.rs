//! The state of one destination, shared by all that send to it: while it fails, one attempt at a time probes it, at growing intervals.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Lets attempts pass while the destination works; one probe at a time while it does not.
#[derive(Debug)]
pub struct Breaker {
    state: Mutex<State>,
    /// True while the destination fails.
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    timeouts: u32,
    next: Option<Instant>,
    probing: bool,
    since: Option<Instant>,
}

/// Leave to make one attempt. Dropping it without a verdict (the attempt was cancelled) lets the next one probe.
#[must_use]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    judged: bool,
}

/// What an attempt tells about the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers: also a refusal of the data is an answer.
    Works,
    Fails {
        wait: Duration,
        timed_out: bool,
    },
}

/// What changed by a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    /// It failed for the first time.
    Broke,
    /// It works again, after this long.
    Mended(Duration),
    /// The second timeout in a row: connections should be dropped.
    Silent,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: Mutex::default(), open: watch::Sender::new(false) }
    }
}

impl Breaker {
    /// Waits until an attempt may be made.
    pub async fn pass(&self) -> Pass<'_> {
        let mut changed = self.open.subscribe();
        loop {
            let wait = {
                let mut state = self.state.lock();
                match state.next {
                    None => break,
                    Some(next) if next <= Instant::now() && !state.probing => {
                        state.probing = true;
                        break;
                    }
                    Some(next) => (!state.probing).then_some(next),
                }
            };
            changed.mark_unchanged();
            match wait {
                Some(next) => {
                    tokio::select! {
                        () = sleep_until(next) => {}
                        _ = changed.changed() => {}
                    }
                }
                // The prober tells; a state that changed meanwhile is looked at again after a moment in any case.
                None => {
                    tokio::select! {
                        () = sleep_until(Instant::now() + Duration::from_millis(50)) => {}
                        _ = changed.changed() => {}
                    }
                }
            }
        }
        Pass { breaker: self, judged: false }
    }

    /// Failed attempts in a row.
    pub fn failures(&self) -> u32 {
        self.state.lock().failures
    }

    /// Follows whether the destination fails.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }
}

impl Pass<'_> {
    pub fn judge(mut self, verdict: Verdict) -> Change {
        self.judged = true;
        let mut state = self.breaker.state.lock();
        let now = Instant::now();
        state.probing = false;
        let (change, open) = match verdict {
            Verdict::Works => {
                let change = state.since.take().map_or(Change::None, |since| Change::Mended(now - since));
                *state = State::default();
                (change, false)
            }
            Verdict::Fails { wait, timed_out } => {
                state.failures = state.failures.saturating_add(1);
                state.timeouts = if timed_out { state.timeouts + 1 } else { 0 };
                let next = now.checked_add(wait).unwrap_or(now);
                state.next = Some(state.next.map_or(next, |known| known.max(next)));
                let change = if timed_out && state.timeouts == 2 {
                    Change::Silent
                } else if state.since.is_none() {
                    Change::Broke
                } else {
                    Change::None
                };
                state.since.get_or_insert(now);
                (change, true)
            }
        };
        drop(state);
        self.breaker.open.send_replace(open);
        change
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.judged {
            self.breaker.state.lock().probing = false;
        }
    }
}
