//! The promises of the connector, against counting by hand over the generated types.

mod counting;
mod deriving;
mod guarding;
mod harness;
mod reading;
mod remembering;
