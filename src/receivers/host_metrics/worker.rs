//! The thread that reads: files below `/proc` may make their reader wait, and no thread of the reactor is to wait for them.
//!
//! In:   requests for a round, one at a time.
//! Out:  what was found.
//! Full: there is never more than one round; who wants the next waits for it.

use std::{
    io,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use tokio::sync::oneshot;

use super::{round::Rounds, sheet::Body};

pub(super) struct Worker {
    requests: SyncSender<oneshot::Sender<Vec<Body>>>,
}

impl Worker {
    /// The thread ends with the worker, or, if it waits for the host then, with the process.
    pub(super) fn start(mut rounds: Rounds) -> io::Result<Self> {
        let (requests, asked) = sync_channel::<oneshot::Sender<Vec<Body>>>(1);
        thread::Builder::new().name("host-metrics".to_owned()).spawn(move || {
            while let Ok(answer) = asked.recv() {
                if answer.send(rounds.collect()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests })
    }

    /// Reads the host once. Nothing comes where the thread is gone.
    pub(super) fn collect(&self) -> oneshot::Receiver<Vec<Body>> {
        let (answer, answers) = oneshot::channel();
        // With a round under way already there is none after it; the answer that is dropped here says so.
        drop(self.requests.try_send(answer));
        answers
    }
}
