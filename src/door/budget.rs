//! How many bytes of requests may be in memory at once: a semaphore of bytes, asked before a body is read.
//!
//! In:   requests for room, as bodies arrive and grow.
//! Out:  [`Ticket`]s, which live as long as the bytes they stand for, through every consumer that holds them.
//! Full: a request waits up to 100 ms for room, then is refused with a hint when to come again.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, time::timeout};

use super::{BudgetWish, Refusal, status::retry_hint};

/// The longest a request waits for room.
const ROOM_WAIT: Duration = Duration::from_millis(100);
/// The share of the memory there is that request bodies may take where no `memory_limiter` says otherwise.
const SHARE: f64 = 0.25;
const MIB: u64 = 1024 * 1024;

/// One a process.
#[derive(Debug)]
pub struct Budget {
    room: Semaphore,
    bytes: AtomicUsize,
    /// What was given away before the budget became smaller, and is not to be given away again.
    owed: AtomicUsize,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Self> {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Arc::new(Self { room: Semaphore::new(bytes), bytes: AtomicUsize::new(bytes), owed: AtomicUsize::new(0) })
    }

    /// Makes it larger or smaller from now on. One caller at a time.
    pub fn resize(&self, bytes: usize) {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        if let Some(more) = bytes.checked_sub(before) {
            self.give_back(more);
        } else {
            let less = before - bytes;
            let gone = self.room.forget_permits(less);
            self.owed.fetch_add(less - gone, Ordering::Relaxed);
        }
    }

    fn give_back(&self, bytes: usize) {
        let owed = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| Some(owed.saturating_sub(bytes)));
        let left = bytes - owed.unwrap_or(0).min(bytes);
        if left > 0 {
            self.room.add_permits(left);
        }
    }

    /// What the file's `memory_limiter`s wish for (the smallest counts), or a quarter of the memory there is.
    pub fn of_wishes(wishes: &[BudgetWish]) -> Arc<Self> {
        Self::new(Self::wished(wishes))
    }

    /// The bytes that [`Budget::of_wishes`] gives.
    pub fn wished(wishes: &[BudgetWish]) -> usize {
        let memory = memory_bytes();
        let wished = wishes.iter().map(|wish| match wish {
            BudgetWish::Mib { limit } => limit.saturating_mul(MIB),
            BudgetWish::Percentage { limit } => (memory as f64 * limit.clamp(0.0, 100.0) / 100.0) as u64,
        });
        let bytes = wished.min().unwrap_or((memory as f64 * SHARE) as u64);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// All the bytes there are to give.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes given away now.
    pub fn used(&self) -> usize {
        (self.bytes() + self.owed.load(Ordering::Relaxed)).saturating_sub(self.room.available_permits())
    }

    /// Room for `bytes`, if there is some now.
    pub fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Ticket> {
        let mut ticket = Ticket { budget: self.clone(), bytes: 0 };
        ticket.try_grow(bytes).then_some(ticket)
    }

    /// Room for `bytes`, waiting a moment for it.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> Result<Ticket, Refusal> {
        let mut ticket = Ticket { budget: self.clone(), bytes: 0 };
        ticket.grow(bytes).await?;
        Ok(ticket)
    }

    pub(super) fn refusal(&self, bytes: usize) -> Refusal {
        if bytes > self.bytes() {
            return Refusal::TooLarge {
                message: format!("{bytes} bytes are more than the memory set aside for requests, {}", self.bytes()),
            };
        }
        Refusal::Full { reason: "no memory for more requests now".to_owned(), retry_after: retry_hint() }
    }
}

/// A share of the budget; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Ticket {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it at least `bytes` in all, if there is room now.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Ok(more32) = u32::try_from(more) else { return false };
        if more == 0 {
            return true;
        }
        let Ok(permit) = self.budget.room.try_acquire_many(more32) else { return false };
        permit.forget();
        self.bytes += more;
        true
    }

    /// Makes it at least `bytes` in all, waiting a moment for room.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.try_grow(bytes) {
            return Ok(());
        }
        let more = bytes.saturating_sub(self.bytes);
        let too_much = || self.budget.refusal(bytes);
        let more32 = u32::try_from(more).map_err(|_| too_much())?;
        if bytes > self.budget.bytes() {
            return Err(too_much());
        }
        match timeout(ROOM_WAIT, self.budget.room.acquire_many(more32)).await {
            Ok(Ok(permit)) => permit.forget(),
            _ => return Err(too_much()),
        }
        self.bytes += more;
        Ok(())
    }

    /// Gives back what goes beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.budget.give_back(less);
            self.bytes -= less;
        }
    }

    /// The refusal of a body that grew to `bytes` and found no room.
    pub fn refusal(&self, bytes: usize) -> Refusal {
        self.budget.refusal(bytes)
    }

    /// Ties the ticket to the bytes: it is given back when the last slice of them is gone.
    pub fn bind(self, payload: Bytes) -> Bytes {
        Bytes::from_owner(Held { payload, _ticket: self })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

struct Held {
    payload: Bytes,
    _ticket: Ticket,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

/// The memory this process may use: the cgroup's limit where there is one, the machine's otherwise.
fn memory_bytes() -> u64 {
    let machine = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    // Where nothing is known, a small machine.
    let machine = if machine == 0 { 2 << 30 } else { machine };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limit(Path::new("/sys/fs/cgroup"), &groups).map_or(machine, |limit| limit.min(machine))
}

/// The smallest limit on the way from our group to the root, of cgroup v2 or of v1's memory controller.
fn cgroup_limit(root: &Path, groups: &str) -> Option<u64> {
    let mut smallest: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (base, file) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        // Inside a container the group's path is the host's, and what is mounted is the group itself: then only the base is there.
        let mut folder = base.join(group.trim_start_matches('/'));
        loop {
            let limit = fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            if let Some(limit) = limit {
                smallest = Some(smallest.map_or(limit, |known| known.min(limit)));
            }
            if folder == base || !folder.pop() {
                break;
            }
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_with_the_last_slice() {
        let budget = Budget::new(100);
        let payload = budget.try_take(60).unwrap().bind(Bytes::from_static(b"abc"));
        assert!(budget.try_take(50).is_none());
        let slice = payload.slice(1..2);
        drop(payload);
        assert_eq!(budget.used(), 60);
        drop(slice);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_a_moment_then_refuses_with_a_hint() {
        let budget = Budget::new(100);
        let held = budget.try_take(60).unwrap();
        assert!(matches!(budget.take(50).await, Err(Refusal::Full { .. })));
        assert_eq!(budget.used(), 60);
        let (waited, ()) = tokio::join!(budget.take(50), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(held);
        });
        assert_eq!(waited.unwrap().bytes(), 50);
    }

    #[tokio::test]
    async fn says_that_a_body_can_never_fit() {
        assert!(matches!(Budget::new(100).take(101).await, Err(Refusal::TooLarge { .. })));
    }

    #[test]
    fn grows_and_shrinks_by_the_difference() {
        let budget = Budget::new(100);
        let mut ticket = budget.try_take(10).unwrap();
        assert!(ticket.try_grow(90));
        assert!(!ticket.try_grow(101));
        ticket.shrink(20);
        assert_eq!(budget.used(), 20);
    }

    #[test]
    fn takes_the_smallest_limit_of_the_groups_it_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("system.slice/weir.service");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(folder.path().join("system.slice/memory.max"), "1000000\n").unwrap();
        assert_eq!(cgroup_limit(folder.path(), "0::/system.slice/weir.service\n"), Some(1_000_000));
        let v1 = folder.path().join("memory/docker");
        fs::create_dir_all(&v1).unwrap();
        fs::write(v1.join("memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(cgroup_limit(folder.path(), "5:cpu:/x\n4:memory:/docker\n"), Some(4096));
        assert_eq!(cgroup_limit(folder.path(), ""), None);
    }

    #[test]
    fn the_smallest_memory_limiter_counts() {
        let budget = Budget::of_wishes(&[BudgetWish::Mib { limit: 64 }, BudgetWish::Mib { limit: 32 }]);
        assert_eq!(budget.bytes(), 32 * 1024 * 1024);
        assert!(Budget::of_wishes(&[]).bytes() > 0);
    }
}
