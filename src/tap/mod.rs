//! Shows what passes to whoever asks: at the door, and where a consumer delivers or drops it.
//!
//! In:   batches, from the door and from `delivery`, while somebody wants to see them; otherwise one load of an atomic.
//! Out:  lines of JSON, one queue a tap: what its [`Ask`] lets through, read from the bytes where they lie.
//! Full: at most [`TAPS_MAX`] taps. Up to 256 batches and 4 MiB wait to be looked at, by a thread of their own; what comes while they do is not
//!       looked at. Up to 1 MiB of lines wait for each reader; what finds no room is left out. Both are counted, and told to the reader.
//! Lost: samples. Nothing that passes waits for a tap, and what waits here holds the door's room only until it was looked at.
//!
//! What stands in a record's context (metadata, what an authenticator found) is never shown.

#![warn(clippy::indexing_slicing)]

mod ask;
mod line;
mod outbox;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::signal::{Batch, UnixNanos};
use ask::Wanted;
pub use ask::{Ask, AskError, Form};
pub use line::{End, Lost, Ready, Row, Way};
use outbox::Outbox;

/// Taps open at once.
pub const TAPS_MAX: usize = 8;
/// Batches that wait to be looked at.
const WAITING_MAX: usize = 256;
/// Payload bytes of them; one batch may be larger.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// A reason in the words of a backend is cut here.
const MESSAGE_CHARS_MAX: usize = 500;

/// Where something is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// The door took it: it is where the journal's mode promises it to be.
    Ingest,
    /// The door refused it.
    Refused,
    /// A consumer is done with it: a backend took it, a connector counted it.
    Delivered,
    /// A consumer will never deliver it.
    Dropped,
}

impl At {
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Refused, Self::Delivered, Self::Dropped];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Refused => "refused",
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A batch at one place of its way.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: At,
    /// Of what was refused: nothing but its signal.
    pub batch: Batch,
    /// Now.
    pub time: UnixNanos,
    /// The receiver, or the consumer's component.
    pub component: crate::signal::ComponentId,
    /// Of a consumer.
    pub pipeline: Option<Arc<str>>,
    pub peer: Option<SocketAddr>,
    /// `grpc`, `http`; of a receiver.
    pub transport: Option<&'static str>,
    /// Why it was dropped or refused, in one word.
    pub reason: Option<&'static str>,
    /// The same in the words of whoever decided it.
    pub message: Option<Box<str>>,
}

impl Seen {
    /// `message` is cut to a bounded length.
    pub fn said(mut self, reason: Option<&'static str>, message: &str) -> Self {
        self.reason = reason;
        self.message = (!message.is_empty()).then(|| message.chars().take(MESSAGE_CHARS_MAX).collect());
        self
    }
}

/// All taps of a process. Cloning shares them.
#[derive(Clone, Default)]
pub struct Taps(Arc<Hub>);

#[derive(Default)]
struct Hub {
    /// The bits of each [`At`] that some tap wants.
    wanted: AtomicU8,
    open: Mutex<Open>,
    /// Payload bytes that wait to be looked at.
    waiting_bytes: AtomicUsize,
    /// Items that nobody looked at.
    unseen: AtomicU64,
    /// Lines that found no room.
    late: AtomicU64,
}

#[derive(Default)]
struct Open {
    taps: Vec<Arc<Outbox>>,
    /// While there are taps.
    looker: Option<SyncSender<Seen>>,
}

/// All places are taken.
#[derive(Debug, thiserror::Error)]
#[error("{TAPS_MAX} taps are open already, which is all there may be: end one of them")]
pub struct TooMany;

/// What a process has of taps, for its own metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub open: usize,
    /// Bytes that wait to be looked at.
    pub waiting_bytes: usize,
    /// Items that nobody looked at, and lines that found no room.
    pub lost: u64,
}

impl Taps {
    /// Whether somebody wants to see what passes here.
    pub fn wants(&self, at: At) -> bool {
        self.0.wanted.load(Ordering::Relaxed) & at.bit() != 0
    }

    /// Shows a batch to whoever asked. Never waits.
    pub fn show(&self, seen: Seen) {
        let (items, bytes) = (seen.batch.items.max(1), seen.batch.payload.len());
        // The looker may have gone since the caller asked.
        let Some(looker) = self.0.open.lock().looker.clone() else { return };
        let before = self.0.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= WAITING_BYTES_MAX;
        if !fits || looker.try_send(seen).is_err() {
            self.0.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.0.unseen.fetch_add(items, Ordering::Relaxed);
        }
    }

    /// Opens a tap. It is closed when it is dropped.
    pub fn open(&self, ask: &Ask) -> Result<Tap, OpenError> {
        let wanted = Wanted::of(ask)?;
        let hub = &self.0;
        let mut open = hub.open.lock();
        if open.taps.len() >= TAPS_MAX {
            return Err(TooMany.into());
        }
        if open.looker.is_none() {
            let (sender, receiver) = sync_channel(WAITING_MAX);
            let looking = hub.clone();
            // It ends by itself when the sender is gone and what waited is looked at; nobody has to wait for that.
            std::thread::Builder::new().name("tap".to_owned()).spawn(move || looking.look(&receiver))?;
            open.looker = Some(sender);
        }
        let outbox = Arc::new(Outbox::new(wanted, ask.lines_max, hub.unseen.load(Ordering::Relaxed)));
        open.taps.push(outbox.clone());
        hub.wanted.store(open.wanted(), Ordering::Relaxed);
        Ok(Tap { hub: hub.clone(), outbox })
    }

    pub fn figures(&self) -> Figures {
        Figures {
            open: self.0.open.lock().taps.len(),
            waiting_bytes: self.0.waiting_bytes.load(Ordering::Relaxed),
            lost: self.0.unseen.load(Ordering::Relaxed) + self.0.late.load(Ordering::Relaxed),
        }
    }
}

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("no thread can be started to look at what passes: {0}")]
    Thread(#[from] std::io::Error),
}

impl Open {
    fn wanted(&self) -> u8 {
        self.taps.iter().fold(0, |all, tap| all | tap.wanted.at)
    }
}

impl Hub {
    /// Looks at what is shown until the last tap is closed.
    fn look(&self, shown: &Receiver<Seen>) {
        let mut line = Vec::new();
        while let Ok(seen) = shown.recv() {
            let taps = self.open.lock().taps.clone();
            for tap in taps {
                let late = tap.look(&seen, &mut line);
                if late > 0 {
                    self.late.fetch_add(late, Ordering::Relaxed);
                }
            }
            let bytes = seen.batch.payload.len();
            drop(seen);
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn close(&self, outbox: &Arc<Outbox>) {
        let mut open = self.open.lock();
        open.taps.retain(|known| !Arc::ptr_eq(known, outbox));
        self.wanted.store(open.wanted(), Ordering::Relaxed);
        if open.taps.is_empty() {
            open.looker = None;
        }
    }
}

/// One reader's view of what passes.
pub struct Tap {
    hub: Arc<Hub>,
    outbox: Arc<Outbox>,
}

impl Tap {
    /// Resolves to the next lines, each with its line end; `None` when there will be no more. Cancelling it loses nothing.
    pub async fn lines(&self) -> Option<Vec<u8>> {
        self.outbox.lines().await
    }

    /// What was left out since the last call; `None`: nothing.
    pub fn lost(&self) -> Option<Lost> {
        self.outbox.lost(self.hub.unseen.load(Ordering::Relaxed))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.hub.close(&self.outbox);
    }
}
