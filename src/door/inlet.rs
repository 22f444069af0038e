//! The door as receivers see it.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Budget, Refusal, Ticket};
use crate::{
    runtime::Step,
    signal::{Context, ContextNeeds, Signal},
};

/// Takes data for one receiver: scans, admits, appends. The door implements it; receivers only see this.
pub trait Inlet: Send + Sync {
    /// Whether some pipeline of this signal uses the receiver.
    fn takes(&self, signal: Signal) -> bool;
    /// Scans and appends one request body. Once it is done the data is where the journal's mode promises it to be.
    fn accept(&self, arrival: Arrival) -> Step<'_, Result<Accepted, Refusal>>;
    /// Counts a request of which the receiver found by itself that it cannot be taken, and shows it to who looks.
    fn refused(&self, signal: Signal, refusal: &Refusal, peer: Option<SocketAddr>, transport: &'static str);
    /// Where room for a body is asked for before it is read into memory.
    fn budget(&self) -> &Arc<Budget>;
    /// Which parts of a request's context have to be handed over.
    fn needs(&self) -> Arc<ContextNeeds>;
}

/// One request body on its way in.
pub struct Arrival {
    pub signal: Signal,
    /// The body of an `Export*ServiceRequest`, not compressed, not checked.
    pub payload: Bytes,
    /// Only what [`Inlet::needs`] names.
    pub context: Arc<Context>,
    /// For metrics and logs: `grpc`, `http`.
    pub transport: &'static str,
    /// The sender's address, for logs.
    pub peer: Option<SocketAddr>,
    /// The room that was asked for while the body was read; `None`: the inlet asks.
    pub ticket: Option<Ticket>,
    /// Refuse a body with a string that is not UTF-8 instead of repairing it.
    pub strict_utf8: bool,
}

/// How long the answer to a request is held back, whose data is in already. Dropping it changes nothing about the data.
pub struct Pace(Option<BoxFuture<'static, ()>>);

impl Pace {
    /// Answer at once.
    pub const NONE: Self = Self(None);

    pub fn until(held: BoxFuture<'static, ()>) -> Self {
        Self(Some(held))
    }

    pub async fn over(self) {
        if let Some(held) = self.0 {
            held.await;
        }
    }
}

/// A request was taken.
pub struct Accepted {
    pub items: u64,
    /// Items left out because they were invalid, and why; said in `partial_success`. A message with 0 rejected is a warning.
    pub rejected: u64,
    pub message: Option<String>,
    pub pace: Pace,
}
