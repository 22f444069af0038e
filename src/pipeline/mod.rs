//! A checked file → topics and consumers → built components, each with its definition.
//!
//! In:   the tree that `config` loaded, and the tables of components.
//! Out:  a [`Plan`] (what becomes what), and what is [`Built`] (not connected, not started); the [`Spine`] that it is connected to.
//! Lost: nothing; what cannot be built is an error that names the component and its key.

mod board;
mod build;
mod definition;
mod draw;
pub mod file;
mod open_journal;
mod plan;
mod spine;

pub use board::Board;
pub use build::{Built, BuiltChain, BuiltExporter, BuiltExtension, ConnectError, Failed, Read, Surroundings};
pub use definition::{Changes, Definition, Definitions, Part};
pub use draw::Form;
pub use file::File;
pub use open_journal::{OpenJournal, Orphaned, RemoveError, Removed, Usage, Used};
pub use plan::{Plan, PlannedConnector, PlannedConsumer, PlannedTopic, Role, TopicKind};
pub use spine::{Spine, bell};
