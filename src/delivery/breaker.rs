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
    /// Grows with each change. What was begun before it tells of a state that is over.
    generation: u64,
    /// Attempts that were answered, early or late.
    answered: u64,
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
    generation: u64,
    failures: u32,
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
    /// Two more timeouts in a row: connections should be dropped.
    Silent,
}

/// How a destination does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    /// For how long it has failed; `None`: it works, as far as is known.
    pub failing: Option<Duration>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// When it is tried again, where it fails.
    pub next_attempt: Option<Duration>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: Mutex::default(), open: watch::Sender::new(false) }
    }
}

impl Breaker {
    /// Waits until an attempt may be made.
    pub async fn pass(&self) -> Pass<'_> {
        self.pass_after(Duration::ZERO).await
    }

    /// The same, and so much longer where the attempt would be a probe.
    pub async fn pass_after(&self, patience: Duration) -> Pass<'_> {
        let mut changed = self.open.subscribe();
        loop {
            let wait = {
                let mut state = self.state.lock();
                // What changes from here on is noticed: it is published under this lock.
                changed.mark_unchanged();
                let next = state.next.map(|next| next.checked_add(patience).unwrap_or(next));
                let wait = match next {
                    Some(next) if next > Instant::now() => Some(next),
                    Some(_) if state.probing => None,
                    open => {
                        state.probing = open.is_some();
                        return Pass { breaker: self, generation: state.generation, failures: state.failures, judged: false };
                    }
                };
                wait.filter(|_| !state.probing)
            };
            match wait {
                Some(next) => {
                    tokio::select! {
                        () = sleep_until(next) => {}
                        _ = changed.changed() => {}
                    }
                }
                // The prober tells; one that was cancelled does not.
                None => {
                    tokio::select! {
                        () = sleep_until(Instant::now() + Duration::from_millis(50)) => {}
                        _ = changed.changed() => {}
                    }
                }
            }
        }
    }

    /// How it does now.
    pub fn condition(&self) -> Condition {
        let (state, now) = (self.state.lock(), Instant::now());
        Condition {
            failing: state.since.map(|since| now.saturating_duration_since(since)),
            failures: state.failures,
            next_attempt: state.next.map(|next| next.saturating_duration_since(now)),
        }
    }

    /// How many attempts were answered so far.
    pub fn answered(&self) -> u64 {
        self.state.lock().answered
    }

    /// Follows whether the destination fails.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }
}

impl Pass<'_> {
    /// Failed attempts in a row before this one. Those that were under way together count as one.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Only the first verdict of a generation that changes something counts: calls that one reset broke are one failure, and an answer that
    /// comes late says nothing about what was found out since.
    pub fn judge(mut self, verdict: Verdict) -> Change {
        self.judged = true;
        let mut state = self.breaker.state.lock();
        state.answered += u64::from(verdict == Verdict::Works);
        if state.generation != self.generation {
            return Change::None;
        }
        let now = Instant::now();
        state.probing = false;
        let generation = state.generation + 1;
        match verdict {
            Verdict::Works => {
                let Some(since) = state.since else { return Change::None };
                *state = State { generation, answered: state.answered, ..State::default() };
                self.breaker.open.send_replace(false);
                Change::Mended(now - since)
            }
            Verdict::Fails { wait, timed_out } => {
                state.generation = generation;
                state.failures = state.failures.saturating_add(1);
                state.timeouts = if timed_out { state.timeouts.saturating_add(1) } else { 0 };
                state.next = Some(now.checked_add(wait).unwrap_or(now));
                let change = if timed_out && state.timeouts.is_multiple_of(2) {
                    Change::Silent
                } else if state.since.is_none() {
                    Change::Broke
                } else {
                    Change::None
                };
                state.since.get_or_insert(now);
                self.breaker.open.send_replace(true);
                change
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.judged {
            let mut state = self.breaker.state.lock();
            if state.generation == self.generation {
                state.probing = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(seconds: u64, timed_out: bool) -> Verdict {
        Verdict::Fails { wait: Duration::from_secs(seconds), timed_out }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_broke_together_are_one_failure() {
        let breaker = Breaker::default();
        let mut passes = Vec::new();
        for _ in 0..8 {
            passes.push(breaker.pass().await);
        }
        let started = Instant::now();
        for (n, pass) in (1..).zip(passes) {
            pass.judge(failed(n, false));
        }
        let probe = breaker.pass().await;
        assert_eq!((probe.failures(), started.elapsed().as_secs()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_that_comes_late_neither_closes_nor_lets_a_second_probe_pass() {
        let breaker = Breaker::default();
        let (first, late, dropped) = (breaker.pass().await, breaker.pass().await, breaker.pass().await);
        first.judge(failed(1, false));
        let probe = breaker.pass().await;
        late.judge(Verdict::Works);
        drop(dropped);
        assert!(*breaker.watch().borrow());
        let second = tokio::time::timeout(Duration::from_secs(10), breaker.pass());
        assert!(second.await.is_err(), "two probes at once");
        assert_eq!(probe.judge(Verdict::Works), Change::Mended(Duration::from_secs(11)));
        assert!(!*breaker.watch().borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_cancelled_lets_the_next_one_pass() {
        let breaker = Breaker::default();
        breaker.pass().await.judge(failed(1, false));
        drop(breaker.pass().await);
        assert_eq!(breaker.pass().await.failures(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_dropped_after_each_further_two_timeouts() {
        let breaker = Breaker::default();
        let mut changes = Vec::new();
        for _ in 0..6 {
            changes.push(breaker.pass().await.judge(failed(1, true)));
        }
        let (none, silent) = (Change::None, Change::Silent);
        assert_eq!(changes, [Change::Broke, silent, none, silent, none, silent]);
    }
}
