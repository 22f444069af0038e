//! The contract: what a receiver, processor, connector, exporter or extension is, and what it is given.
//!
//! A component is one folder: its `Config` reads and checks its settings and builds the running half. It is added by one row in the
//! table of the `mod.rs` beside it. Components never name one another; what they share is in the modules above them.

mod auth;
mod claims;
pub mod delivery;
mod factory;
mod install;
mod items;
mod state;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use smallvec::SmallVec;

pub use crate::journal::Position;
pub use auth::{AuthError, ClientAuth, ServerAuth, Unbuilt};
pub use claims::{Claim, Claims};
pub use factory::{
    ConnectorFactory, ExporterFactory, ExtensionFactory, Naming, ProcessorFactory, ReadyConnector, ReadyExporter, ReadyExtension,
    ReadyProcessor, ReadyReceiver, ReceiverFactory, Tables,
};
pub use install::{Done, Extent, Installed, Step};
pub use items::{Again, Items, LETTERS, Origin, Provenance, Rejection, Verdicts};
pub use state::{Applied, AppliedTo, Snapshot, SnapshotError, Stateful};

use crate::{
    config::{Diagnostics, Node, suggest},
    door::{BudgetWish, Inlet},
    exposition::PageSource,
    internal_telemetry::Telemetry,
    journal::Record,
    runtime::{BuildError, Clock, Health, Shutdown, Sockets, Task},
    signal::{Batch, ComponentId, Context, ContextNeeds, Signal, UnixNanos},
};

/// How sure one can be of a component: the Collector's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    Development,
    Alpha,
    Beta,
    Stable,
}

/// What every component is handed when it is built.
#[derive(Clone)]
pub struct BuildContext {
    pub id: ComponentId,
    pub telemetry: Telemetry,
    pub health: Arc<Health>,
    /// The extensions of the file that are built already, for authenticators.
    pub extensions: Arc<Extensions>,
    /// The wall clock; tests set it.
    pub clock: Clock,
    pub notes: Notes,
    pub claims: Claims,
    /// Where listeners find the sockets of those whose place they take.
    pub sockets: Arc<Sockets>,
    /// Whether weir runs already, and takes another configuration: what was written by then is not to be emptied.
    pub is_reload: bool,
}

/// What is risky about settings, where that is seen only when they are built: each becomes a warning of the configuration.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<Note>>>);

/// A warning about the key at `path` inside the component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub path: String,
    pub message: String,
    pub help: Option<String>,
}

impl Notes {
    pub fn add(&self, path: impl Into<String>, message: impl Into<String>, help: Option<String>) {
        self.0.lock().push(Note { path: path.into(), message: message.into(), help });
    }

    pub fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.0.lock())
    }
}

// === receivers ===

pub trait Receiver: Send {
    /// Binds what it listens on; an address in use is an error that names it and its key. The task serves until `shutdown`.
    fn start(self: Box<Self>, inlet: Arc<dyn Inlet>, shutdown: Shutdown) -> BoxFuture<'static, Result<Task, BuildError>>;
}

pub trait ReceiverConfig: Sized + Send + 'static {
    const TYPE: &'static str;
    const ALIASES: &'static [&'static str] = &[];
    const STABILITY: Stability;
    const SIGNALS: &'static [Signal];
    /// Reads and checks; problems go to `found`.
    fn read(node: &Node, found: &mut Diagnostics) -> Self;
    fn build(self, context: BuildContext) -> Result<Box<dyn Receiver>, BuildError>;
}

// === processors ===

/// What a stateless processor made of a batch.
#[derive(Debug, Clone)]
pub enum Processed {
    Keep(Batch),
    /// `dropped` items left by this processor's rule, the rest is in the batch.
    Part {
        batch: Batch,
        dropped: u64,
    },
    DropAll,
}

/// A pure function of record, receive time and configuration: no task, no clock, no socket. Recomputing gives the same bytes.
pub trait Processor: Send + Sync {
    fn process(&self, batch: Batch, received: UnixNanos) -> Processed;
}

/// What building a processor gives: some are not a stage at all but a wish about their neighbours.
pub enum BuiltProcessor {
    Stage(Arc<dyn Processor>),
    /// `batch`: how much the readers behind it take at once.
    Batching(delivery::BatchWish),
    /// `memory_limiter`: the door's byte budget.
    Budget(BudgetWish),
}

pub trait ProcessorConfig: Sized + Send + 'static {
    const TYPE: &'static str;
    const ALIASES: &'static [&'static str] = &[];
    const STABILITY: Stability;
    const SIGNALS: &'static [Signal];
    fn read(node: &Node, found: &mut Diagnostics) -> Self;
    fn needs(&self) -> ContextNeeds {
        ContextNeeds::default()
    }
    fn build(self, context: BuildContext, signal: Signal) -> Result<BuiltProcessor, BuildError>;
}

// === connectors ===

/// A batch that a connector made.
#[derive(Debug, Clone)]
pub struct Derived {
    pub batch: Batch,
    /// When what it tells of came in (or, at a flush, the time of the flush).
    pub received: UnixNanos,
}

/// The end of one pipeline that is the start of another. A state machine: it is told the time, it opens nothing.
pub trait Connector: Send {
    /// Takes one record as the pipeline's processors left it.
    fn consume(&mut self, record: &Record, out: &mut Vec<Derived>);
    /// The same for one that is [`Stateful`]: notes that `reader` (the pipeline) had this record; one that it had before changes nothing.
    fn consume_from(&mut self, _reader: &Arc<str>, record: &Record, out: &mut Vec<Derived>) {
        self.consume(record, out);
    }
    /// Called each `flush_interval` of its configuration with the present time.
    fn flush(&mut self, _now: UnixNanos, _out: &mut Vec<Derived>) {}
    /// The last flush: what it leaves untold is never told.
    fn finish(&mut self, now: UnixNanos, out: &mut Vec<Derived>) {
        self.flush(now, out);
    }
    /// Items counted but not acted on so far because of its own rules (for the books), since the last call, by reason.
    fn take_dropped(&mut self) -> Option<(&'static str, u64)> {
        None
    }
    /// What it remembers, if anything.
    fn state(&self) -> Option<Arc<dyn Stateful>> {
        None
    }
}

pub struct BuiltConnector {
    pub connector: Box<dyn Connector>,
    /// Rows that a bare `prometheus` exporter may render directly.
    pub page: Option<Arc<dyn PageSource>>,
    pub flush_interval: Option<std::time::Duration>,
}

/// How the file uses a connector.
#[derive(Debug, Clone, Copy)]
pub struct ConnectorUse {
    /// Some pipeline behind it wants derived records (anything but a bare `prometheus` exporter).
    pub derives: bool,
    /// Some bare `prometheus` exporter renders its rows.
    pub renders: bool,
}

pub trait ConnectorConfig: Sized + Send + 'static {
    const TYPE: &'static str;
    const ALIASES: &'static [&'static str] = &[];
    const STABILITY: Stability;
    /// Which signal it takes and which it gives.
    const PAIRS: &'static [(Signal, Signal)];
    fn read(node: &Node, found: &mut Diagnostics) -> Self;
    fn needs(&self) -> ContextNeeds {
        ContextNeeds::default()
    }
    /// Whether it has rows that a `prometheus` exporter can render directly.
    fn has_page(&self) -> bool {
        false
    }
    /// Whether nothing of a resource is left on these rows but the name of its service.
    fn rows_are_of_services(&self) -> bool {
        false
    }
    /// Whether it reads [`crate::signal::SpanIndex`].
    fn wants_index(&self) -> bool {
        false
    }
    fn build(self, context: BuildContext, wanted: ConnectorUse) -> Result<BuiltConnector, BuildError>;
}

// === exporters ===

/// What one attempt of delivery takes: batches of one signal and, where the exporter asked for context, of one context.
#[derive(Debug, Clone)]
pub struct Request {
    pub signal: Signal,
    /// Concatenating the payloads gives a valid request.
    pub parts: SmallVec<[Batch; 4]>,
    pub items: u64,
    pub bytes: usize,
}

impl Request {
    pub fn of(batch: Batch) -> Self {
        Self { signal: batch.signal, items: batch.items, bytes: batch.payload.len(), parts: SmallVec::from_iter([batch]) }
    }

    /// All parts as one body; a single part is shared, several are copied.
    pub fn payload(&self) -> Bytes {
        match self.parts.as_slice() {
            [one] => one.payload.clone(),
            many => {
                let mut joined = BytesMut::with_capacity(self.bytes);
                for part in many {
                    joined.extend_from_slice(&part.payload);
                }
                joined.freeze()
            }
        }
    }

    /// The context of the first part.
    pub fn context(&self) -> Arc<Context> {
        self.parts.first().map(|batch| batch.context.clone()).unwrap_or_default()
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is there. A warning of the backend may come along.
    Delivered { warning: Option<String> },
    /// Thrown away on purpose, by an exporter that exists for it.
    Discarded,
    /// The backend took all but `rejected` items, and will not take those.
    Partial { rejected: u64, message: String },
    /// The backend answered for each item.
    Each(Verdicts),
    /// May pass: try the same again, not before `after`.
    Retry { reason: String, after: Option<std::time::Duration>, cause: RetryCause },
    /// Larger than the backend takes: split and try again. `limit` in bytes where the backend says it.
    TooLarge { message: String, limit: Option<usize> },
    /// An error about the data itself: it goes to the dead letters.
    Rejected { message: String },
    /// Refused for good with a status (of gRPC or HTTP) that need not be about the data (`INTERNAL`, 500). One record is looked for as with
    /// `Rejected`, but no longer once two halves of a request are refused with the same status.
    Refused { status: u16, message: String },
    /// The backend does not take this signal (`UNIMPLEMENTED`, 404).
    Unsupported { message: String },
}

impl Outcome {
    pub const DELIVERED: Self = Self::Delivered { warning: None };
}

/// What kind of obstacle a retry waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCause {
    /// Overload, restart, a broken connection.
    Passing,
    /// No connection, so nobody has seen the request: it says nothing about the data.
    Unreached,
    /// The backend has no room for single items now (429 of an item): nothing is wrong with the data, however often it is said. It waits.
    Busy,
    /// 401, 403 for weir's own credentials, TLS, DNS, an index that is not there or takes nothing: someone has to act; the destination's state
    /// turns red. The data waits for as long as that takes.
    Blocked,
    /// 401, 403 for credentials that came with the data (`headers_setter` with `from_context`): a matter of this request alone. It is tried
    /// five times, then it goes to the dead letters; the destination is not judged by it.
    Denied,
    /// The attempt took longer than its timeout: the data may have arrived.
    Timeout,
}

/// Sends data somewhere. Shared by all pipelines that name it; queue, retry, split and books are `delivery`'s.
pub trait Exporter: Send + Sync {
    /// Called once before the first export: bind or connect. A returned task runs until `shutdown`.
    fn start(&self, _shutdown: Shutdown) -> BoxFuture<'_, Result<Option<Task>, BuildError>> {
        Box::pin(async { Ok(None) })
    }
    /// One attempt. The caller enforces the timeout by dropping the future.
    fn export(&self, request: Request) -> BoxFuture<'_, Outcome>;
    /// The same for one to whom it matters where the parts come from. One that is [`Stateful`] notes that the reader had these records; parts
    /// that it had before change nothing.
    fn export_from(&self, _provenance: Provenance<'_>, request: Request) -> BoxFuture<'_, Outcome> {
        self.export(request)
    }
    /// What it remembers, if anything.
    fn state(&self) -> Option<Arc<dyn Stateful>> {
        None
    }
    /// Told when two attempts in a row timed out: drop connections, the next attempt starts afresh.
    fn reconnect(&self) {}
    /// Installs what its backend is to keep (templates, policies), and says what became of each; `None`: its backend keeps nothing of the kind.
    fn install(&self, _extent: Extent) -> Option<BoxFuture<'_, Result<Installed, String>>> {
        None
    }
    /// Called after the last export.
    fn finish(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    /// A `prometheus` exporter renders these connectors' rows on its page, and no others; other exporters have no page.
    fn show_pages(&self, _pages: Vec<Arc<dyn PageSource>>) {}
}

pub trait ExporterConfig: Sized + Send + 'static {
    const TYPE: &'static str;
    const ALIASES: &'static [&'static str] = &[];
    const STABILITY: Stability;
    const SIGNALS: &'static [Signal];
    /// Whether rows of a connector can be rendered by it directly.
    const RENDERS_PAGES: bool = false;
    fn read(node: &Node, found: &mut Diagnostics) -> Self;
    /// Whether these settings leave direct rendering possible. `of_services`: of rows on which nothing of a resource is left but the name
    /// of its service.
    fn renders_pages(&self, _of_services: bool) -> bool {
        Self::RENDERS_PAGES
    }
    /// Timeout, retry and queue as written.
    fn delivery(&self) -> delivery::Settings;
    fn needs(&self) -> ContextNeeds {
        ContextNeeds::default()
    }
    /// Whether batches of different contexts must not be joined into one request.
    fn splits_by_context(&self) -> bool {
        false
    }
    fn build(self, context: BuildContext) -> Result<Arc<dyn Exporter>, BuildError>;
}

// === extensions ===

/// Help that carries no telemetry.
pub trait Extension: Send + Sync {
    fn start(&self, _shutdown: Shutdown) -> BoxFuture<'_, Result<Option<Task>, BuildError>> {
        Box::pin(async { Ok(None) })
    }
    /// Whether a Collector keeps queues in it.
    fn is_storage(&self) -> bool {
        false
    }
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        None
    }
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        None
    }
}

pub trait ExtensionConfig: Sized + Send + 'static {
    const TYPE: &'static str;
    const ALIASES: &'static [&'static str] = &[];
    const STABILITY: Stability;
    fn read(node: &Node, found: &mut Diagnostics) -> Self;
    fn needs(&self) -> ContextNeeds {
        ContextNeeds::default()
    }
    fn build(self, context: BuildContext) -> Result<Arc<dyn Extension>, BuildError>;
}

/// The extensions of a configuration, by id.
#[derive(Default)]
pub struct Extensions(pub Vec<(ComponentId, Arc<dyn Extension>)>);

impl Extensions {
    /// Whether a queue can be kept in the extension that `sending_queue::storage` names.
    pub fn storage(&self, id: &str) -> Result<(), BuildError> {
        let wrong = |message: String| BuildError::setting("sending_queue::storage", message);
        match self.get(id) {
            Some(extension) if extension.is_storage() => Ok(()),
            Some(_) => {
                Err(wrong(format!("the extension `{id}` is not a storage"))
                    .helped("name a `file_storage`, or leave `storage` out"))
            }
            None => {
                let near = suggest::nearest(id, self.0.iter().map(|(known, _)| known.as_str()));
                let help = near.map_or_else(
                    || format!("declare it: `extensions: {{{id}: }}`, and name it: `service: {{extensions: [{id}]}}`; or leave `storage` out"),
                    |near| format!("did you mean `{near}`?"),
                );
                Err(wrong(format!("the storage `{id}` is not in `service::extensions`")).helped(help))
            }
        }
    }

    pub fn get(&self, id: &str) -> Option<&Arc<dyn Extension>> {
        self.0.iter().find(|(known, _)| known.as_str() == id).map(|(_, extension)| extension)
    }

    fn named(&self, id: &str) -> Result<&Arc<dyn Extension>, BuildError> {
        self.get(id).ok_or_else(|| {
            let help = match suggest::nearest(id, self.0.iter().map(|(known, _)| known.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it: `extensions: {{{id}: }}`, and name it: `service: {{extensions: [{id}]}}`"),
            };
            BuildError::setting("auth::authenticator", format!("the authenticator `{id}` is not in `service::extensions`"))
                .helped(help)
        })
    }

    /// The authenticator that a server block names.
    pub fn server_auth(&self, id: &str) -> Result<Arc<dyn ServerAuth>, BuildError> {
        let extension = self.named(id)?;
        extension
            .server_auth()
            .ok_or_else(|| BuildError::setting("auth::authenticator", format!("`{id}` cannot authenticate requests")))
    }

    /// The authenticator that a client block names.
    pub fn client_auth(&self, id: &str) -> Result<Arc<dyn ClientAuth>, BuildError> {
        let extension = self.named(id)?;
        extension
            .client_auth()
            .ok_or_else(|| BuildError::setting("auth::authenticator", format!("`{id}` cannot authenticate outgoing requests")))
    }
}
