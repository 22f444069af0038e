//! The admin socket: what a running weir tells its owner, over a socket file that nobody else can open.
//!
//! In:   HTTP/1.1 requests of `weir tap`, `weir plan --live`, `weir journal where`, `weir journal rm`, `weir drain`, and of whoever has curl.
//! Out:  JSON; of a tap one line after another.
//! Full: 16 connections and [`TAPS_MAX`](crate::tap::TAPS_MAX) taps; bodies of requests 256 KiB, read within 5 s. See `tap` for slow readers.
//! Lost: samples of a tap, counted.
//!
//! ```text
//! GET  /v1           {"version": 1, "weir": "0.1.0", "pid": 4711}
//! GET  /v1/live      a Report
//! POST /v1/tap       an Ask → lines: {"ready": …} first; Rows, or OTLP/JSON with a key `weir`; {"lost": …} now and then; {"end": …} last
//! POST /v1/standing  Records → Standings: what is only in memory about them
//! POST /v1/remove    a Removal → Removed: what was held for a consumer that the configuration does not have is let go, and that is on disk.
//!                    404: it never stood there; 409: it is in the configuration; 503: ask again
//! POST /v1/drain     {"drain": "closing"}: no more data is taken; `/v1/live` says when it is `closed`, and what is held then
//! ```
//!
//! ```sh
//! curl --unix-socket ~/.local/state/weir/admin.sock http://weir/v1/tap -d '{"service": "cart", "errors": true}'
//! ```
//!
//! A change that a reader of version 1 does not understand gets another path. Errors are `{"error": "…"}` with a status that fits.

mod answers;
mod removal;
mod report;
mod standing;
mod stream;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    pipeline::Board,
    runtime::{Clock, Health, Shutdown, Task},
    tap::Taps,
    transport::server::{Bound, LocalError},
};
use answers::Answers;
pub use removal::{Removal, Removed};
pub use report::{Amount, Books, Consumer, Destination, Flights, JournalRoom, Orphan, Rate, Replayed, Report, Room, TopicReport};
pub use standing::{RECORDS_MAX, RecordPlace, Records, StandingOf, Standings};

/// Of the protocol.
pub const VERSION: u32 = 1;
/// The socket's name in its directory.
pub const SOCKET: &str = "admin.sock";
/// Taps, and some more for single questions.
const CONNECTIONS_MAX: usize = 16;
/// How often consumers are counted, for their rates.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What can be asked about.
#[derive(Clone)]
pub struct Admin {
    pub board: Board,
    pub taps: Taps,
    pub health: Arc<Health>,
    pub clock: Clock,
    /// Fires when someone asks for a drain.
    pub drain: Shutdown,
}

impl Admin {
    /// Listens on a socket file; the task answers until `shutdown`.
    ///
    /// # Errors
    /// Another process listens there, or the file cannot be made.
    pub fn serve(self, socket: &Path, shutdown: Shutdown) -> Result<Task, LocalError> {
        let bound = Bound::bind_local(socket, CONNECTIONS_MAX)?;
        let board = self.board.clone();
        let answers = Answers { admin: self, started: Instant::now(), stop: shutdown.clone() };
        let serving = bound.serve(Arc::new(answers), shutdown);
        Ok(async move {
            let counting = async {
                let mut ticks = interval(COUNT_EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    board.count();
                }
            };
            tokio::select! {
                ended = serving => ended,
                () = counting => Ok(()),
            }
        }
        .boxed())
    }
}
