//! A checked file → topics and consumers → a graph of built components.
//!
//! In:   the tree that `config` loaded, and the tables of components.
//! Out:  a [`Plan`] (what becomes what), and a [`Graph`] (built, connected, not started).
//! Lost: nothing; what cannot be built is an error that names the component and its key.

mod board;
mod build;
mod draw;
pub mod file;
mod plan;

pub use board::Board;
pub use build::{Built, ConnectError, Entry, Failed, Graph, OpenJournal, Read, Surroundings};
pub use draw::Form;
pub use file::File;
pub use plan::{Plan, PlannedConnector, PlannedConsumer, PlannedTopic, Role, TopicKind};
