//! Sends the documents of one attempt, and sums up what the server said of them.

use std::{sync::atomic::Ordering, time::Duration};

use ::http::{Method, header::RETRY_AFTER};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    Shared,
    answer::{Answer, Said},
    bulk::{Bulk, Encoded},
    endpoints::Asked,
    preflight::Ready,
    standing::{self, Reasons, Standing, Wait},
};
use crate::{
    component::{Again, Outcome, Rejection, Request, RetryCause, Verdicts},
    transport::client::{Message, outcome},
};

/// What is read of an answer: positions stay, because each document has a status.
const FILTER: &str = "filter_path=items.*.status,items.*.failure_store,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason,error,status";
/// No server's limit is below this; what is larger is halved, and smaller ones are made from then on.
const BYTES_MIN: usize = 64 << 10;
/// Requests that one attempt may become while the document is looked for that a server refuses a whole request for.
const SEARCH_MAX: usize = 64;

/// What came of one bulk request.
enum Sent {
    /// It spoke of documents; so many of the first ones.
    Answered(usize),
    TooLarge(String),
    /// The whole request is refused.
    Refused(String),
    /// Nothing is known of any.
    Waits(Wait, String, Option<Duration>),
}

/// One attempt.
struct Attempt<'s> {
    shared: &'s Shared,
    path: String,
    /// By item.
    standings: Vec<Standing>,
    members: Vec<u64>,
    reasons: Reasons,
    after: Option<Duration>,
    in_failure_store: u64,
}

pub(super) async fn send(shared: &Shared, ready: Ready, request: &Request, encoded: Encoded) -> Outcome {
    let Encoded { bulks, members, refused } = encoded;
    let mut attempt = Attempt {
        shared,
        path: path(shared, ready),
        standings: vec![Standing::Taken; usize::try_from(request.items).unwrap_or(0)],
        members,
        reasons: Reasons::default(),
        after: None,
        in_failure_store: 0,
    };
    for (item, reason) in refused {
        let number = attempt.reasons.number_of(reason);
        attempt.stand(item, Standing::Refused(number));
    }
    attempt.all(request, bulks).await;
    attempt.sum_up(request)
}

fn path(shared: &Shared, ready: Ready) -> String {
    let mut path = vec![format!("/_bulk?{FILTER}")];
    if !shared.settings.pipeline.is_empty() {
        let quoted = shared.settings.pipeline.bytes().map(|byte| match byte {
            b'-' | b'_' | b'.' | b'~' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        });
        path.push(format!("pipeline={}", quoted.collect::<String>()));
    }
    if let Some(include) = shared.settings.include_source_on_error.filter(|_| ready.facts.is_elasticsearch(8, 18)) {
        path.push(format!("include_source_on_error={include}"));
    }
    path.join("&")
}

impl Attempt<'_> {
    async fn all(&mut self, request: &Request, bulks: Vec<Bulk>) {
        let mut waiting: Vec<Bulk> = bulks.into_iter().rev().collect();
        let mut searches = 0;
        while let Some(bulk) = waiting.pop() {
            match self.one(request, &bulk).await {
                Sent::Answered(known) => {
                    if known < bulk.documents.len() {
                        let reason = format!("the answer speaks of {known} of {} documents", bulk.documents.len());
                        self.wait(&bulk, known, Wait::Passing, &reason);
                    }
                }
                Sent::TooLarge(message) => match bulk.halves() {
                    Some((head, tail)) => {
                        let smaller = (bulk.body.len() / 2).max(BYTES_MIN);
                        if self.shared.bulk_bytes_max.fetch_min(smaller, Ordering::Relaxed) > smaller {
                            let exporter = &self.shared.id;
                            info!(
                                exporter,
                                bytes = smaller,
                                "the server takes no request as large as that: smaller ones are made from now on"
                            );
                        }
                        waiting.extend([tail, head]);
                    }
                    None => self.refuse(&bulk, &format!("a single document is larger than the server takes: {message}")),
                },
                Sent::Refused(message) => {
                    searches += 1;
                    match bulk.halves().filter(|_| searches < SEARCH_MAX) {
                        Some((head, tail)) => waiting.extend([tail, head]),
                        None => self.refuse(&bulk, &message),
                    }
                }
                Sent::Waits(wait, reason, after) => {
                    self.after = self.after.max(after);
                    self.wait(&bulk, 0, wait, &reason);
                    // What the server, or the way to it, is in no state for is not tried with the rest.
                    for bulk in waiting.drain(..) {
                        self.wait(&bulk, 0, wait, &reason);
                    }
                }
            }
        }
    }

    async fn one(&mut self, request: &Request, bulk: &Bulk) -> Sent {
        let Self { shared, path, standings, members, reasons, in_failure_store, .. } = self;
        let settings = &shared.settings;
        let mut answer = Answer::new(bulk.documents.len());
        let mut each = |at: usize, said: &Said| {
            let stands = standing::of(said, &settings.retry_statuses, reasons);
            *in_failure_store += u64::from(said.failure_store == "used");
            shared.counts.count(stands, 1);
            let Some(document) = bulk.documents.get(at) else { return };
            for item in members.get(document.members.clone()).unwrap_or_default() {
                if let Some(standing) = usize::try_from(*item).ok().and_then(|item| standings.get_mut(item)) {
                    *standing = (*standing).max(stands);
                }
            }
        };
        let mut take = |status: u16, chunk: &[u8]| match status {
            200..=299 => answer.take(chunk, &mut each),
            _ => answer.take(chunk, &mut |_, _| {}),
        };
        let asked =
            Asked { method: Method::POST, path, content_type: "application/x-ndjson", body: Message::of(bulk.body.clone()) };
        let asking = shared.endpoints.ask(asked, Some(request), &mut take);
        let asked = if settings.timeout.is_zero() { Ok(asking.await) } else { timeout(settings.timeout, asking).await };
        let head = match asked {
            // What it said until then stands.
            Err(_) if answer.count > 0 => return Sent::Answered(answer.count.min(bulk.documents.len())),
            Err(_) => return Sent::Waits(Wait::TimedOut, format!("no answer within {:?}", settings.timeout), None),
            Ok(Err(outcome)) => return unanswered(outcome),
            Ok(Ok(head)) => head,
        };
        let known = answer.count.min(bulk.documents.len());
        if (200..300).contains(&head.status) {
            if !answer.is_json() && known == 0 {
                let reason = "the answer is not what Elasticsearch or OpenSearch would say: is it one?".to_owned();
                return Sent::Waits(Wait::Passing, reason, None);
            }
            return Sent::Answered(known);
        }
        let said = Said { status: head.status, ..answer.whole().clone() };
        let text =
            if said.kind.is_empty() && said.reason.is_empty() { format!("HTTP {}", head.status) } else { standing::text(&said) };
        let hint = head.headers.get(RETRY_AFTER).and_then(|value| outcome::retry_after(value.to_str().ok()?, shared.clock.now()));
        match head.status {
            413 => Sent::TooLarge(text),
            // A block of the whole cluster is a 429 as well.
            _ if standing::is_blocked(&said) => Sent::Waits(Wait::Blocked, text, None),
            // Overload says nothing about the data, however often it is said.
            429 | 503 => Sent::Waits(Wait::Busy, text, hint),
            408 | 500..=599 => Sent::Waits(Wait::Passing, text, hint),
            status if settings.retry_statuses.contains(&status) => Sent::Waits(Wait::Passing, text, hint),
            300..=399 => Sent::Waits(Wait::Blocked, format!("{text}: it redirects, and weir does not follow"), None),
            405 | 407 => Sent::Waits(Wait::Blocked, text, None),
            _ => Sent::Refused(text),
        }
    }

    fn stand(&mut self, item: u64, stands: Standing) {
        if let Some(standing) = usize::try_from(item).ok().and_then(|item| self.standings.get_mut(item)) {
            *standing = (*standing).max(stands);
        }
    }

    /// All documents from `first` on.
    fn all_stand(&mut self, bulk: &Bulk, first: usize, stands: Standing) {
        for document in bulk.documents.iter().skip(first) {
            for at in document.members.clone() {
                if let Some(item) = self.members.get(at).copied() {
                    self.stand(item, stands);
                }
            }
        }
        self.shared.counts.count(stands, bulk.documents.len().saturating_sub(first) as u64);
    }

    fn wait(&mut self, bulk: &Bulk, first: usize, wait: Wait, reason: &str) {
        self.reasons.waits_for(wait, reason);
        self.all_stand(bulk, first, Standing::Again(wait));
    }

    fn refuse(&mut self, bulk: &Bulk, reason: &str) {
        let number = self.reasons.number_of(reason.to_owned());
        self.all_stand(bulk, 0, Standing::Refused(number));
    }

    fn sum_up(self, request: &Request) -> Outcome {
        let Self { shared, standings, reasons, after, in_failure_store, .. } = self;
        if in_failure_store > 0 {
            shared.counts.failure_store.inc_by(in_failure_store);
            warn!(
                exporter = shared.id,
                documents = in_failure_store,
                "documents went to the failure store: they are not in the data stream they were sent to, and `GET <stream>::failures` shows why"
            );
        }
        let (mut items, mut rejected) = (Vec::new(), Vec::new());
        for (item, standing) in standings.iter().enumerate() {
            match standing {
                Standing::Taken | Standing::Duplicate => {}
                Standing::Again(_) => items.push(item as u64),
                Standing::Refused(reason) => rejected.push(Rejection { item: item as u64, reason: *reason }),
            }
        }
        let (wait, reason) = reasons.worst().cloned().unwrap_or((Wait::Passing, String::new()));
        let after = after.map(|after| after.min(shared.settings.delivery.retry.max_interval.0));
        if items.is_empty() && rejected.is_empty() {
            return Outcome::DELIVERED;
        }
        if items.len() as u64 == request.items {
            return Outcome::Retry { reason, after, cause: wait.cause() };
        }
        let again = (!items.is_empty()).then(|| Again { items, reason, after, cause: wait.cause() });
        Outcome::Each(Verdicts { again, rejected, reasons: reasons.texts, ..Verdicts::default() })
    }
}

/// Nobody answered.
fn unanswered(outcome: Outcome) -> Sent {
    match outcome {
        Outcome::Retry { reason, after, cause } => {
            let wait = match cause {
                RetryCause::Unreached => Wait::Unreached,
                RetryCause::Blocked | RetryCause::Denied => Wait::Blocked,
                RetryCause::Timeout => Wait::TimedOut,
                RetryCause::Busy | RetryCause::Passing => Wait::Passing,
            };
            Sent::Waits(wait, reason, after)
        }
        Outcome::Rejected { message } | Outcome::Refused { message, .. } | Outcome::TooLarge { message, .. } => {
            Sent::Refused(message)
        }
        _ => Sent::Waits(Wait::Passing, "no answer".to_owned(), None),
    }
}

impl super::Counts {
    fn count(&self, standing: Standing, documents: u64) {
        match standing {
            Standing::Taken => &self.taken,
            Standing::Duplicate => &self.duplicate,
            Standing::Again(_) => &self.again,
            Standing::Refused(_) => &self.refused,
        }
        .inc_by(documents);
    }
}
