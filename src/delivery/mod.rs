//! What every consumer gets for free: a window on its records, processors, batching, attempts, backoff, splitting, dead letters, books.
//!
//! In:   records, from a journal cursor.
//! Out:  one attempt after another to an exporter or connector, until each item is accounted for.
//! Full: a consumer reads no further while enough is under way; the rest waits in its topic.
//! Lost: nothing without a [`crate::journal::DropReason`].

#![warn(clippy::indexing_slicing)]

mod breaker;
mod caught;
mod chain;
pub mod connector;
mod consumer;
mod dead_letters;
pub mod exporter;
mod flushing;
mod journey;
mod live;
mod passing;
mod policy;
mod remembering;
mod replay;
mod saver;
#[cfg(test)]
mod tests;
mod traffic;

pub use breaker::{Breaker, Condition};
pub use chain::{Chain, Chained, Stage};
pub use connector::SharedConnector;
pub use consumer::{Carried, Consumer, Ends, Left, consumer_name};
pub use dead_letters::DeadLetters;
pub use exporter::Destination;
pub use live::{Doing, Flights, Live, Rate, Replays, Standing};
pub use policy::{Fill, Policy, RetryPolicy};
pub use remembering::{Pressure, Readers, Remembering};
pub use replay::{Fate, Replay, Replayer, Takers};
pub use saver::Saver;
