//! Everything that must be true before "OK": limits, scan, admission, append.
//!
//! In:   request bodies of one receiver, and what is known about their sender.
//! Out:  batches in the journal; what was left out of them and why.
//! Full: room in memory is asked for before a body is read ([`Budget`]), room in the journal when it is appended; both wait up to 100 ms
//!       and then refuse with a hint when to come again.
//! Lost: nothing that was answered OK. A body that was refused is its sender's to keep.

mod budget;
pub mod inflate;
mod inlet;
mod newcomers;
mod repairs;
pub mod status;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::{Instrument, Span};

pub use budget::{Budget, Ticket};
pub use inlet::{Accepted, Arrival, Inlet, Pace};
pub use status::{BudgetWish, Refusal};

use crate::{
    internal_telemetry::{DOOR_BYTES, DOOR_REFUSED, ReceiverMetrics, Telemetry, receive_span, span_failed},
    journal::{NewRecord, SourceId},
    otlp::{Scan, ScanLimits, repair::repair, scan},
    runtime::{Clock, Step, blocking},
    signal::{Batch, ComponentId, ContextNeeds, Signal, SpanIndex},
    tap::{At, Seen, Taps},
};
use newcomers::Newcomers;
use repairs::Repairs;

/// Where the door puts what it took: the ingest topics of the journal.
pub trait Append: Send + Sync {
    /// Appends to the topic of the batch's signal. Once it is done the record is where the journal's mode promises it to be.
    fn append(&self, record: NewRecord) -> Step<'static, Result<Pace, Refusal>>;
}

/// What a door has to know of its receiver.
pub struct Settings {
    /// The receiver.
    pub id: ComponentId,
    pub source: SourceId,
    pub limits: ScanLimits,
}

/// What lies behind a door: the pipelines, which may change while it is open.
#[derive(Clone)]
pub struct Behind {
    /// Which signals some pipeline takes from this receiver, by [`Signal::ordinal`].
    pub takes: [bool; 3],
    /// What the components behind it read of a request's context.
    pub needs: Arc<ContextNeeds>,
    /// Whether some consumer of traces reads [`SpanIndex`].
    pub wants_index: bool,
    pub append: Arc<dyn Append>,
}

/// The door of one receiver.
pub struct Door {
    settings: Settings,
    behind: ArcSwap<Behind>,
    budget: Arc<Budget>,
    clock: Clock,
    telemetry: Telemetry,
    counters: Vec<Arc<Counters>>,
    /// Counters of transports that were not expected.
    others: Mutex<Vec<Arc<Counters>>>,
    newcomers: Newcomers,
    repairs: Repairs,
    taps: Taps,
}

struct Counters {
    transport: &'static str,
    items: ReceiverMetrics,
    bytes: [IntCounter; 3],
    full: IntCounter,
    malformed: IntCounter,
    other: IntCounter,
}

impl Counters {
    fn new(telemetry: &Telemetry, id: &str, transport: &'static str) -> Self {
        let refused = |reason| {
            let labels = [("receiver", id), ("transport", transport), ("reason", reason)];
            telemetry.counter(DOOR_REFUSED, "Requests refused by the door.", &labels)
        };
        Self {
            transport,
            items: telemetry.receiver(id, transport),
            bytes: Signal::ALL.map(|signal| {
                let labels = [("receiver", id), ("transport", transport), ("otel_signal", signal.as_str())];
                telemetry.counter(DOOR_BYTES, "Bytes of request bodies taken in, after decompression.", &labels)
            }),
            full: refused("full"),
            malformed: refused("malformed"),
            other: refused("other"),
        }
    }

    fn refused(&self, signal: Signal, items: u64, refusal: &Refusal) {
        if let Some(counter) = self.items.refused.get(signal.ordinal()) {
            counter.inc_by(items);
        }
        match refusal.reason() {
            "full" => self.full.inc(),
            "malformed" => self.malformed.inc(),
            _ => self.other.inc(),
        }
    }
}

impl Behind {
    fn takes(&self, signal: Signal) -> bool {
        self.takes.get(signal.ordinal()).copied().unwrap_or(false)
    }
}

impl Door {
    pub fn new(settings: Settings, behind: Behind, budget: Arc<Budget>, clock: Clock, telemetry: &Telemetry) -> Self {
        let counters =
            ["grpc", "http"].map(|transport| Arc::new(Counters::new(telemetry, settings.id.as_str(), transport))).into();
        Self {
            settings,
            behind: ArcSwap::from_pointee(behind),
            budget,
            clock,
            telemetry: telemetry.clone(),
            counters,
            others: Mutex::default(),
            newcomers: Newcomers::default(),
            repairs: Repairs::default(),
            taps: Taps::default(),
        }
    }

    /// Shows what passes to these taps.
    pub fn watched(mut self, taps: Taps) -> Self {
        self.taps = taps;
        self
    }

    /// What a tap is shown of a request; nothing is made of it where nobody looks.
    fn seen(&self, at: At, batch: impl FnOnce() -> Batch, peer: Option<SocketAddr>, transport: &'static str) -> Option<Seen> {
        self.taps.wants(at).then(|| Seen {
            at,
            batch: batch(),
            time: self.clock.now(),
            component: self.settings.id.clone(),
            pipeline: None,
            peer,
            transport: Some(transport),
            reason: None,
            message: None,
        })
    }

    /// Other pipelines lie behind it from now on. Requests on their way in may still go to those of before.
    pub fn lead_to(&self, behind: Behind) {
        self.behind.store(Arc::new(behind));
    }

    /// What lies behind it now.
    pub fn behind(&self) -> Arc<Behind> {
        self.behind.load_full()
    }

    fn other_counters(&self, transport: &'static str) -> Arc<Counters> {
        let mut others = self.others.lock();
        if let Some(known) = others.iter().find(|counters| counters.transport == transport) {
            return known.clone();
        }
        let new = Arc::new(Counters::new(&self.telemetry, self.settings.id.as_str(), transport));
        others.push(new.clone());
        new
    }

    /// Everything up to the append. `None`: there is nothing to append.
    fn prepare(&self, behind: &Behind, arrival: Arrival, items_seen: &mut u64) -> Result<Prepared, Refusal> {
        let Arrival { signal, payload, context, transport, peer, ticket, strict_utf8 } = arrival;
        if !behind.takes(signal) {
            let message = format!("no pipeline takes {signal} from the receiver `{}`", self.settings.id);
            return Err(Refusal::NotTaken { message });
        }
        let mut ticket = match ticket {
            Some(ticket) => ticket,
            None => self.budget.try_take(payload.len()).ok_or_else(|| self.budget.refusal(payload.len()))?,
        };
        let mut index = (behind.wants_index && signal == Signal::Traces).then(SpanIndex::default);
        let found = heavy(payload.len(), || scan(signal, &payload, &self.settings.limits, index.as_mut()))
            .map_err(|error| Refusal::Malformed { message: error.to_string() })?;
        *items_seen = found.items;
        let (payload, found, index) = if found.is_regular() {
            (payload, Found::of(&found), index)
        } else {
            self.repair(signal, &payload, &found, index, strict_utf8)?
        };
        // The memory that the body takes is known only now; the index is memory too.
        let bytes = payload.len() + index.as_ref().map_or(0, |index| size_of_val(index.spans.as_slice()));
        if !ticket.try_grow(bytes) {
            return Err(ticket.refusal(bytes));
        }
        ticket.shrink(bytes);
        if found.items > 0 {
            self.newcomers.look(signal, &payload, &self.settings.id, peer, transport);
        }
        let batch = Batch { signal, payload: ticket.bind(payload), items: found.items, context, index: index.map(Arc::new) };
        Ok(Prepared { batch, rejected: found.rejected, message: found.message })
    }

    /// Leaves out what is invalid and makes text of what is not, or refuses.
    fn repair(
        &self,
        signal: Signal,
        payload: &[u8],
        scanned: &Scan,
        index: Option<SpanIndex>,
        strict_utf8: bool,
    ) -> Result<(Bytes, Found, Option<SpanIndex>), Refusal> {
        if strict_utf8 && scanned.not_utf8 > 0 {
            let first = scanned.first_not_utf8.as_deref().unwrap_or_default();
            return Err(Refusal::Malformed { message: format!("a string that is not UTF-8: {first}") });
        }
        let repaired = heavy(payload.len(), || repair(signal, payload));
        // The places in the index were those of the body as it came.
        let index = match index {
            Some(mut index) => {
                scan(signal, &repaired.payload, &self.settings.limits, Some(&mut index))
                    .map_err(|error| Refusal::Malformed { message: error.to_string() })?;
                Some(index)
            }
            None => None,
        };
        let mut message = String::new();
        if repaired.left_out > 0 {
            let first = scanned.first_invalid.as_deref().unwrap_or_default();
            message = format!("{} of {} {} left out, the first: {first}", repaired.left_out, scanned.items, signal.items());
        }
        if scanned.not_utf8 > 0 {
            let first = scanned.first_not_utf8.as_deref().unwrap_or_default();
            let separator = if message.is_empty() { "" } else { "; " };
            let strings = format!("{separator}{} strings were not UTF-8 and were repaired, the first: {first}", scanned.not_utf8);
            message.push_str(&strings);
            self.repairs.count(&self.telemetry, self.settings.id.as_str(), &repaired.strings);
        }
        let message = Some(message).filter(|message| !message.is_empty());
        Ok((repaired.payload, Found { items: repaired.items, rejected: repaired.left_out, message }, index))
    }

    /// Scans, admits and appends.
    fn take(&self, arrival: Arrival) -> Step<'_, Result<Accepted, Refusal>> {
        let (signal, transport, peer) = (arrival.signal, arrival.transport, arrival.peer);
        let other;
        let counters = if let Some(known) = self.counters_of(transport) {
            known
        } else {
            other = self.other_counters(transport);
            &other
        };
        let mut items_seen = 0;
        let behind = self.behind.load();
        let prepared = match self.prepare(&behind, arrival, &mut items_seen) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                counters.refused(signal, items_seen, &refusal);
                self.show_refused(signal, &refusal, peer, transport);
                return Step::Ready(Err(refusal));
            }
        };
        let Prepared { batch, rejected, message } = prepared;
        let (items, bytes) = (batch.items, batch.payload.len() as u64);
        let accepted = move |pace| Accepted { items, rejected, message, pace };
        // Envelopes without items are fine, and nobody has to read them.
        if items == 0 {
            Self::finish(counters, signal, 0, bytes, rejected);
            return Step::Ready(Ok(accepted(Pace::NONE)));
        }
        let seen = self.seen(At::Ingest, || batch.clone(), peer, transport);
        let record = NewRecord { source: self.settings.source, received: self.clock.now(), batch, derived_from: None };
        match behind.append.append(record) {
            Step::Ready(Ok(pace)) => {
                Self::finish(counters, signal, items, bytes, rejected);
                self.show(seen);
                Step::Ready(Ok(accepted(pace)))
            }
            Step::Ready(Err(refusal)) => {
                counters.refused(signal, items + rejected, &refusal);
                self.show_refused(signal, &refusal, peer, transport);
                Step::Ready(Err(refusal))
            }
            Step::Wait(appending) => {
                let counters = counters.clone();
                Step::Wait(Box::pin(async move {
                    match appending.await {
                        // Nothing is waited for between the append and this.
                        Ok(pace) => {
                            Self::finish(&counters, signal, items, bytes, rejected);
                            self.show(seen);
                            Ok(accepted(pace))
                        }
                        Err(refusal) => {
                            counters.refused(signal, items + rejected, &refusal);
                            self.show_refused(signal, &refusal, peer, transport);
                            Err(refusal)
                        }
                    }
                }))
            }
        }
    }

    fn counters_of(&self, transport: &str) -> Option<&Arc<Counters>> {
        self.counters.iter().find(|counters| counters.transport == transport)
    }

    fn show(&self, seen: Option<Seen>) {
        if let Some(seen) = seen {
            self.taps.show(seen);
        }
    }

    fn show_refused(&self, signal: Signal, refusal: &Refusal, peer: Option<SocketAddr>, transport: &'static str) {
        let nothing = || Batch { signal, payload: Bytes::new(), items: 0, context: Arc::default(), index: None };
        let seen = self.seen(At::Refused, nothing, peer, transport);
        self.show(seen.map(|seen| seen.said(Some(refusal.reason()), &refusal.to_string())));
    }

    fn finish(counters: &Counters, signal: Signal, items: u64, bytes: u64, rejected: u64) {
        let at = signal.ordinal();
        if let (Some(accepted), Some(refused), Some(all)) =
            (counters.items.accepted.get(at), counters.items.refused.get(at), counters.bytes.get(at))
        {
            accepted.inc_by(items);
            all.inc_by(bytes);
            if rejected > 0 {
                refused.inc_by(rejected);
            }
        }
    }
}

/// Says in a span of ours what became of the request.
fn tell(span: &Span, taken: &Result<Accepted, Refusal>) {
    match taken {
        Ok(accepted) => {
            span.record("accepted_items", accepted.items);
        }
        Err(refusal) => span_failed(span, &format!("{refusal:?}")),
    }
}

/// A batch that may be appended, and what is to be said about it.
struct Prepared {
    batch: Batch,
    rejected: u64,
    message: Option<String>,
}

/// What a body came to.
struct Found {
    items: u64,
    rejected: u64,
    message: Option<String>,
}

impl Found {
    const fn of(scan: &Scan) -> Self {
        Self { items: scan.items, rejected: 0, message: None }
    }
}

impl Inlet for Door {
    fn refused(&self, signal: Signal, refusal: &Refusal, peer: Option<SocketAddr>, transport: &'static str) {
        match self.counters_of(transport) {
            Some(counters) => counters.refused(signal, 0, refusal),
            None => self.other_counters(transport).refused(signal, 0, refusal),
        }
        self.show_refused(signal, refusal, peer, transport);
    }

    fn takes(&self, signal: Signal) -> bool {
        self.behind.load().takes(signal)
    }

    fn accept(&self, arrival: Arrival) -> Step<'_, Result<Accepted, Refusal>> {
        let span = receive_span(self.settings.id.as_str(), arrival.signal, arrival.transport);
        if span.is_disabled() {
            return self.take(arrival);
        }
        match span.in_scope(|| self.take(arrival)) {
            Step::Ready(taken) => {
                tell(&span, &taken);
                Step::Ready(taken)
            }
            Step::Wait(taking) => Step::Wait(Box::pin(
                async move {
                    let taken = taking.await;
                    tell(&Span::current(), &taken);
                    taken
                }
                .instrument(span),
            )),
        }
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn needs(&self) -> Arc<ContextNeeds> {
        self.behind.load().needs.clone()
    }
}

/// Bodies from this size on are worked on where they do not hold up other requests of the same thread.
const HEAVY_BYTES: usize = 1 << 20;

/// Runs work on `bytes` bytes of a body, away from the reactor if it will take long.
pub fn heavy<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes >= HEAVY_BYTES { blocking(work) } else { work() }
}
