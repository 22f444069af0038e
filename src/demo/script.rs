//! What one visit to the shop does: spans, logs and effects with times relative to its start, before any SDK is asked.

use std::borrow::Cow;

use opentelemetry::{KeyValue, Value, logs::Severity, trace::SpanKind};

use super::random::Random;

/// The services of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Service {
    Web,
    Catalogue,
    Recommendation,
    Cart,
    Checkout,
    Inventory,
    Fraud,
    Payment,
    Shipping,
    Email,
}

impl Service {
    pub(super) const ALL: [Self; 10] = [
        Self::Web,
        Self::Catalogue,
        Self::Recommendation,
        Self::Cart,
        Self::Checkout,
        Self::Inventory,
        Self::Fraud,
        Self::Payment,
        Self::Shipping,
        Self::Email,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Catalogue => "catalogue",
            Self::Recommendation => "recommendation",
            Self::Cart => "cart",
            Self::Checkout => "checkout",
            Self::Inventory => "inventory",
            Self::Fraud => "fraud",
            Self::Payment => "payment",
            Self::Shipping => "shipping",
            Self::Email => "email",
        }
    }

    pub(super) const fn version(self) -> &'static str {
        match self {
            Self::Web | Self::Email => "2.4.1",
            Self::Payment | Self::Fraud => "1.9.0",
            _ => "1.12.3",
        }
    }

    pub(super) const fn port(self) -> i64 {
        8080 + self as i64
    }
}

/// A span's place in [`Script::acts`].
pub(super) type ActId = usize;

/// One span.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Act {
    pub service: Service,
    pub kind: SpanKind,
    pub name: Cow<'static, str>,
    /// Without one it begins a trace of its own.
    pub parent: Option<ActId>,
    /// The act whose message it works on.
    pub link: Option<ActId>,
    /// Microseconds since the script began.
    pub start: u64,
    pub end: u64,
    pub attributes: Vec<KeyValue>,
    pub exception: Option<(u64, Fault)>,
    /// The status is an error, with this text.
    pub error: Option<Cow<'static, str>>,
}

impl Act {
    pub(super) fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| &attribute.value)
    }

    pub(super) const fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.start) as f64 / 1e6
    }
}

/// What went wrong, and what a caller is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// `exception.type`, `error.type`.
    pub name: &'static str,
    pub message: String,
    pub http_status: i64,
    pub grpc_status: i64,
}

/// One log record, written inside a span.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note {
    pub act: ActId,
    pub at: u64,
    pub severity: Severity,
    pub body: String,
    pub attributes: Vec<KeyValue>,
}

/// What a visit changes beside leaving spans.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    CartItems(i64),
    Order { cents: u64, currency: &'static str, items: u64 },
    Stock { product: &'static str, level: i64 },
    Queued { queue: &'static str, messages: i64 },
}

/// When something was over, and whether it worked.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub at: u64,
    pub outcome: Result<(), Fault>,
}

impl Done {
    pub(super) const fn well(at: u64) -> Self {
        Self { at, outcome: Ok(()) }
    }

    pub(super) const fn badly(at: u64, fault: Fault) -> Self {
        Self { at, outcome: Err(fault) }
    }
}

/// How one service asks another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Http { method: &'static str, route: &'static str },
    Grpc { service: &'static str, method: &'static str },
}

/// The acts of one visit, parents before children.
#[derive(Debug)]
pub(super) struct Script {
    pub acts: Vec<Act>,
    pub notes: Vec<Note>,
    pub effects: Vec<Effect>,
    pub random: Random,
}

impl Script {
    pub(super) const fn new(random: Random) -> Self {
        Self { acts: Vec::new(), notes: Vec::new(), effects: Vec::new(), random }
    }

    /// Microseconds from the first start to the last end.
    pub(super) fn length(&self) -> u64 {
        self.acts.iter().map(|act| act.end).max().unwrap_or_default()
    }

    pub(super) fn begin(
        &mut self,
        parent: Option<ActId>,
        service: Service,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        start: u64,
    ) -> ActId {
        self.acts.push(Act {
            service,
            kind,
            name: name.into(),
            parent,
            link: None,
            start,
            end: start,
            attributes: Vec::with_capacity(12),
            exception: None,
            error: None,
        });
        self.acts.len() - 1
    }

    pub(super) fn set(&mut self, act: ActId, key: &'static str, value: impl Into<Value>) {
        if let Some(act) = self.acts.get_mut(act) {
            act.attributes.push(KeyValue::new(key, value));
        }
    }

    pub(super) fn end(&mut self, act: ActId, at: u64) {
        if let Some(act) = self.acts.get_mut(act) {
            act.end = at;
        }
    }

    pub(super) fn link(&mut self, act: ActId, to: ActId) {
        if let Some(act) = self.acts.get_mut(act) {
            act.link = Some(to);
        }
    }

    fn service_of(&self, act: ActId) -> Service {
        self.acts.get(act).map_or(Service::Web, |act| act.service)
    }

    fn mark(&mut self, act: ActId, error_type: impl Into<Value>, text: impl Into<Cow<'static, str>>) {
        self.set(act, "error.type", error_type);
        if let Some(act) = self.acts.get_mut(act) {
            act.error = Some(text.into());
        }
    }

    /// The place where a fault happens: an exception event, an error status and a log record.
    pub(super) fn raise(&mut self, act: ActId, at: u64, fault: &Fault) {
        self.mark(act, fault.name, fault.message.clone());
        if let Some(act) = self.acts.get_mut(act) {
            act.exception = Some((at, fault.clone()));
        }
        let attributes =
            vec![KeyValue::new("exception.type", fault.name), KeyValue::new("exception.message", fault.message.clone())];
        self.note_with(act, at, Severity::Error, fault.message.clone(), attributes);
    }

    pub(super) fn note(&mut self, act: ActId, at: u64, severity: Severity, body: impl Into<String>) {
        self.note_with(act, at, severity, body.into(), Vec::new());
    }

    fn note_with(&mut self, act: ActId, at: u64, severity: Severity, body: String, attributes: Vec<KeyValue>) {
        self.notes.push(Note { act, at, severity, body, attributes });
    }

    /// A call from the service of `from` to another: a client span there, a server span here, and `work` between.
    pub(super) fn call(
        &mut self,
        from: ActId,
        at: u64,
        to: Service,
        ask: Ask,
        work: impl FnOnce(&mut Self, ActId, u64) -> Done,
    ) -> Done {
        let caller = self.service_of(from);
        let (client_name, server_name) = match ask {
            Ask::Http { method, route } => (Cow::Borrowed(method), Cow::Owned(format!("{method} {route}"))),
            Ask::Grpc { service, method } => {
                let name = format!("{service}/{method}");
                (Cow::Owned(name.clone()), Cow::Owned(name))
            }
        };
        let client = self.begin(Some(from), caller, SpanKind::Client, client_name, at);
        self.set(client, "server.address", to.name());
        self.set(client, "server.port", to.port());
        let arrived = at + self.random.micros(300);
        let server = self.begin(Some(client), to, SpanKind::Server, server_name, arrived);
        self.set(server, "server.address", to.name());
        self.set(server, "server.port", to.port());
        self.set(server, "client.address", caller.name());
        match ask {
            Ask::Http { method, route } => {
                self.set(client, "http.request.method", method);
                self.set(client, "url.full", format!("http://{}:{}{route}", to.name(), to.port()));
                self.set(server, "http.request.method", method);
                self.set(server, "http.route", route);
                self.set(server, "url.path", route);
                self.set(server, "url.scheme", "http");
                self.set(server, "network.protocol.version", "1.1");
            }
            Ask::Grpc { service, method } => {
                for act in [client, server] {
                    self.set(act, "rpc.system", "grpc");
                    self.set(act, "rpc.service", service);
                    self.set(act, "rpc.method", method);
                }
            }
        }
        let begun = arrived + self.random.micros(150);
        let done = work(self, server, begun);
        self.end(server, done.at);
        let back = done.at + self.random.micros(250);
        self.end(client, back);
        self.answer(server, client, ask, done.outcome.as_ref().err());
        Done { at: back, outcome: done.outcome }
    }

    fn answer(&mut self, server: ActId, client: ActId, ask: Ask, fault: Option<&Fault>) {
        match ask {
            Ask::Http { .. } => {
                let status = fault.map_or(200, |fault| fault.http_status);
                for act in [server, client] {
                    self.set(act, "http.response.status_code", status);
                }
                // By the semantic conventions a 4xx is the caller's fault: an error of its span, none of the server's.
                self.http_error(server, status, 500);
                self.http_error(client, status, 400);
            }
            Ask::Grpc { .. } => {
                let status = fault.map_or(0, |fault| fault.grpc_status);
                for act in [server, client] {
                    self.set(act, "rpc.grpc.status_code", status);
                }
                if let Some(fault) = fault {
                    for act in [server, client] {
                        self.mark_once(act, fault.name, fault.message.clone());
                    }
                }
            }
        }
    }

    /// Marks a span that answered or got `status` as failed from `limit` on.
    pub(super) fn http_error(&mut self, act: ActId, status: i64, limit: i64) {
        if status >= limit {
            self.mark_once(act, status.to_string(), String::new());
        }
    }

    fn mark_once(&mut self, act: ActId, error_type: impl Into<Value>, text: impl Into<Cow<'static, str>>) {
        if self.acts.get(act).is_some_and(|act| act.error.is_none()) {
            self.mark(act, error_type, text);
        }
    }

    /// A question to a database that has no spans of its own.
    pub(super) fn query(&mut self, from: ActId, at: u64, query: Query, typical: u64, fault: Option<Fault>) -> Done {
        let service = self.service_of(from);
        let name = match query.collection {
            Some(collection) => Cow::Owned(format!("{} {collection}", query.operation)),
            None => Cow::Borrowed(query.operation),
        };
        let act = self.begin(Some(from), service, SpanKind::Client, name, at);
        self.set(act, "db.system.name", query.system);
        self.set(act, "db.operation.name", query.operation);
        if let Some(collection) = query.collection {
            self.set(act, "db.collection.name", collection);
            self.set(act, "db.namespace", "shop");
        }
        self.set(act, "db.query.text", query.text);
        let (address, port) = if query.system == "redis" { ("redis", 6379) } else { ("postgres", 5432) };
        self.set(act, "server.address", address);
        self.set(act, "server.port", port);
        let end = at + self.random.micros(typical);
        self.end(act, end);
        match fault {
            None => Done::well(end),
            Some(fault) => {
                self.raise(act, end, &fault);
                Done::badly(end, fault)
            }
        }
    }

    /// A call to somebody who sends no spans: the other end of the graph.
    pub(super) fn outside(
        &mut self,
        from: ActId,
        at: u64,
        peer: &'static str,
        url: &'static str,
        typical: u64,
        status: i64,
    ) -> u64 {
        let service = self.service_of(from);
        let act = self.begin(Some(from), service, SpanKind::Client, "POST", at);
        let host = url.strip_prefix("https://").unwrap_or(url).split('/').next().unwrap_or_default();
        self.set(act, "http.request.method", "POST");
        self.set(act, "url.full", url);
        self.set(act, "server.address", host.to_owned());
        self.set(act, "server.port", 443);
        self.set(act, "peer.service", peer);
        self.set(act, "http.response.status_code", status);
        self.http_error(act, status, 400);
        let end = at + self.random.micros(typical);
        self.end(act, end);
        end
    }

    /// Hands a message to a queue.
    pub(super) fn send(&mut self, from: ActId, at: u64, queue: &'static str, message: u64) -> (ActId, u64) {
        let service = self.service_of(from);
        let act = self.begin(Some(from), service, SpanKind::Producer, format!("send {queue}"), at);
        self.messaging(act, queue, "send", message);
        self.effects.push(Effect::Queued { queue, messages: 1 });
        let end = at + self.random.micros(900);
        self.end(act, end);
        (act, end)
    }

    /// Takes a message from a queue: in a trace of its own that is linked to the sender's, or as the sender's child.
    pub(super) fn receive(
        &mut self,
        sent: ActId,
        own_trace: bool,
        at: u64,
        service: Service,
        queue: &'static str,
        message: u64,
        work: impl FnOnce(&mut Self, ActId, u64) -> Done,
    ) -> Done {
        let parent = if own_trace { None } else { Some(sent) };
        let act = self.begin(parent, service, SpanKind::Consumer, format!("process {queue}"), at);
        self.link(act, sent);
        self.messaging(act, queue, "process", message);
        self.set(act, "messaging.consumer.group.name", service.name());
        self.effects.push(Effect::Queued { queue, messages: -1 });
        let begun = at + self.random.micros(200);
        let done = work(self, act, begun);
        self.end(act, done.at);
        if let Err(fault) = &done.outcome {
            self.mark_once(act, fault.name, fault.message.clone());
        }
        done
    }

    fn messaging(&mut self, act: ActId, queue: &'static str, operation: &'static str, message: u64) {
        self.set(act, "messaging.system", "kafka");
        self.set(act, "messaging.destination.name", queue);
        self.set(act, "messaging.operation.name", operation);
        self.set(act, "messaging.operation.type", operation);
        self.set(act, "messaging.message.id", format!("{message:016x}"));
        self.set(act, "server.address", "kafka");
        self.set(act, "server.port", 9092);
    }
}

/// A question to a database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub system: &'static str,
    pub operation: &'static str,
    pub collection: Option<&'static str>,
    pub text: &'static str,
}

impl Query {
    pub(super) const fn sql(operation: &'static str, collection: &'static str, text: &'static str) -> Self {
        Self { system: "postgresql", operation, collection: Some(collection), text }
    }

    pub(super) const fn redis(operation: &'static str, text: &'static str) -> Self {
        Self { system: "redis", operation, collection: None, text }
    }
}
