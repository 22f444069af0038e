//! The lines that wait for one reader.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Form, Seen, ask::Wanted, line, line::Lost};

/// Bytes of lines that wait for a reader; no line is longer.
const LINES_BYTES_MAX: usize = 1 << 20;

/// What one tap wants, and what was found for it.
pub(super) struct Outbox {
    pub(super) wanted: Wanted,
    found: Mutex<Found>,
    notify: Notify,
}

struct Found {
    lines: Vec<u8>,
    /// Lines that may still come; `None`: any number.
    left: Option<u64>,
    /// Lines that found no room, all in all, and those of them that were told.
    late: u64,
    late_told: u64,
    /// What the hub had not looked at when it was told last.
    unseen_told: u64,
}

impl Outbox {
    pub(super) fn new(wanted: Wanted, lines_max: Option<u64>, unseen: u64) -> Self {
        let found = Found { lines: Vec::new(), left: lines_max, late: 0, late_told: 0, unseen_told: unseen };
        Self { wanted, found: Mutex::new(found), notify: Notify::new() }
    }

    /// Puts what is wanted of a batch into lines. Returns how many found no room.
    pub(super) fn look(&self, seen: &Seen, line: &mut Vec<u8>) -> u64 {
        if !self.wanted.is_of(seen.at, seen.batch.signal) || self.is_over() {
            return 0;
        }
        let mut late = 0;
        let mut put = |line: &[u8]| {
            let put = self.put(line);
            late += u64::from(put == Put::Late);
            put != Put::Over
        };
        match self.wanted.form {
            Form::Rows => line::rows(&self.wanted, seen, line, &mut put),
            Form::Otlp => line::otlp(&self.wanted, seen, line, &mut put),
        }
        late
    }

    fn put(&self, line: &[u8]) -> Put {
        let mut found = self.found.lock();
        if found.left == Some(0) {
            return Put::Over;
        }
        if found.lines.len() + line.len() > LINES_BYTES_MAX {
            found.late += 1;
            return Put::Late;
        }
        found.lines.extend_from_slice(line);
        found.left = found.left.map(|left| left - 1);
        drop(found);
        self.notify.notify_one();
        Put::In
    }

    /// The lines that are there now, each without its end.
    #[cfg(test)]
    pub(super) fn found_for_test(&self) -> Vec<String> {
        let lines = std::mem::take(&mut self.found.lock().lines);
        String::from_utf8(lines).expect("lines are text").lines().map(str::to_owned).collect()
    }

    fn is_over(&self) -> bool {
        self.found.lock().left == Some(0)
    }

    pub(super) async fn lines(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut found = self.found.lock();
                if !found.lines.is_empty() {
                    return Some(std::mem::take(&mut found.lines));
                }
                if found.left == Some(0) {
                    return None;
                }
            }
            self.notify.notified().await;
        }
    }

    pub(super) fn lost(&self, unseen: u64) -> Option<Lost> {
        let mut found = self.found.lock();
        let lost = Lost { unseen_items: unseen - found.unseen_told, late_lines: found.late - found.late_told };
        (found.unseen_told, found.late_told) = (unseen, found.late);
        (lost.unseen_items + lost.late_lines > 0).then_some(lost)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    In,
    Late,
    /// No more is wanted.
    Over,
}
