//! One attempt: the points of a request in lanes, each lane's requests one after another, and what came of each point.
//!
//! A series is in one lane, and lies in it in the order of its times; a lane that has to wait sends nothing more. So samples of one series
//! never overtake each other, however many lanes there are. A request has one point of a series: a server may store a part of what it refuses,
//! and what is sent again while the rest is searched must not be older than what it stored.
//!
//! A point that meets a 500 by itself is set aside, and the later ones of its series wait behind it. It is refused when the server took something
//! else at that time, or the last thing that it took once more, in [`TRIES`] attempts.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderMap;
use tokio::time::timeout;
use tracing::warn;

use super::{
    Shared,
    answer::{self, Said},
    encode::{Amount, Version, encode},
    series::Point,
    version_headers,
};
use crate::{
    component::{Again, Outcome, Rejection, Request, RetryCause, Verdicts},
    signal::Signal,
    transport::client::{Message, outcome},
};

/// Bodies above this are made on the blocking pool.
const INLINE_MAX: usize = 64 * 1024;
/// Refusals that are looked for point by point; behind each further so many the pieces that are given up are twice as large.
const FOUND_EXACTLY: u32 = 64;
/// 500s in a row after which the server is asked whether it works at all.
const FAILURES_MAX: u32 = 16;
/// Attempts that a series gets that fails while others are taken.
const TRIES: u32 = 5;
/// Different reasons told apart in one attempt.
const REASONS_MAX: usize = 256;

struct Waiting {
    cause: RetryCause,
    reason: String,
    after: Option<Duration>,
}

/// What came of one lane.
#[derive(Default)]
struct Sorted {
    taken: Vec<Point>,
    refused: Vec<(Point, String)>,
    waiting: Vec<Point>,
    wait: Option<Waiting>,
}

/// What failed with 500 by itself.
struct Suspect {
    points: Vec<Point>,
    reason: String,
    /// Later ones of the same series.
    behind: Vec<Point>,
}

struct Lane<'s> {
    shared: &'s Arc<Shared>,
    headers: &'s HeaderMap,
    /// The next one in front.
    pieces: VecDeque<Vec<Point>>,
    suspects: Vec<Suspect>,
    /// Places in `suspects`, by the keys of their points.
    suspected: HashMap<u64, usize>,
    /// Pieces given up so far.
    found: u32,
    /// 500s since something was taken.
    failures: u32,
    /// The server takes nothing more now.
    is_stopped: bool,
    sorted: Sorted,
}

pub(super) async fn send(shared: &Arc<Shared>, request: &Request, points: Vec<Point>, formless: Vec<u64>) -> Outcome {
    let mut headers = shared.headers.clone();
    if let Some(auth) = &shared.auth
        && let Err(error) = auth.add_headers(&request.context(), &mut headers)
    {
        return outcome::auth(&error);
    }
    let lanes = join_all(lanes(points, shared.settings.lanes).into_iter().map(|points| {
        let pieces = shared.pieces(points);
        let lane = Lane {
            shared,
            headers: &headers,
            pieces,
            suspects: Vec::new(),
            suspected: HashMap::new(),
            found: 0,
            failures: 0,
            is_stopped: false,
            sorted: Sorted::default(),
        };
        lane.run()
    }));
    sum_up(shared, request, lanes.await, formless)
}

fn lanes(points: Vec<Point>, count: usize) -> Vec<Vec<Point>> {
    let mut lanes: Vec<Vec<Point>> = (0..count.max(1)).map(|_| Vec::new()).collect();
    for point in points {
        let lane = (point.key % lanes.len() as u64) as usize;
        if let Some(lane) = lanes.get_mut(lane) {
            lane.push(point);
        }
    }
    lanes.retain(|lane| !lane.is_empty());
    lanes.into_iter().map(in_order).collect()
}

/// Where two points of a series have the same time, the one that came later stays the later one.
fn in_order(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by_key(|point| (point.key, point.time));
    points
}

impl Lane<'_> {
    async fn run(mut self) -> Sorted {
        self.send_pieces().await;
        // Those behind one that turns out well may turn out badly themselves.
        while !self.suspects.is_empty() {
            self.suspected.clear();
            for suspect in mem::take(&mut self.suspects) {
                self.judge(suspect).await;
            }
        }
        self.sorted
    }

    async fn send_pieces(&mut self) {
        while let Some(piece) = self.next_piece() {
            if self.is_stopped {
                self.sorted.waiting.extend(piece);
                continue;
            }
            let (piece, said) = self.one(piece).await;
            match said {
                Said::Fails(reason) => {
                    self.failures += 1;
                    if self.failures > FAILURES_MAX && !self.server_works().await {
                        self.stop(piece, Waiting { cause: RetryCause::Passing, reason, after: None });
                    } else if let Some(points) = self.smaller(piece) {
                        self.found += 1;
                        self.suspected.extend(points.iter().map(|point| (point.key, self.suspects.len())));
                        self.suspects.push(Suspect { points, reason, behind: Vec::new() });
                    }
                }
                said => self.note(piece, said),
            }
        }
    }

    /// Without the points that have to wait behind a suspect.
    fn next_piece(&mut self) -> Option<Vec<Point>> {
        loop {
            let piece = self.pieces.pop_front()?;
            if self.suspected.is_empty() {
                return Some(piece);
            }
            let mut free = Vec::with_capacity(piece.len());
            for point in piece {
                match self.suspected.get(&point.key).and_then(|at| self.suspects.get_mut(*at)) {
                    Some(suspect) => suspect.behind.push(point),
                    None => free.push(point),
                }
            }
            if !free.is_empty() {
                return Some(free);
            }
        }
    }

    /// What any answer but a 500 means.
    fn note(&mut self, piece: Vec<Point>, said: Said) {
        match said {
            Said::Taken(_) => {
                self.failures = 0;
                self.sorted.taken.extend(piece);
            }
            Said::TooLarge(reason) => {
                self.shared.takes_no_more_than(piece.iter().map(|point| point.bytes).sum());
                if let Some(piece) = self.halve(piece) {
                    self.refuse(piece, &format!("a single point is larger than the server takes: {reason}"));
                }
            }
            Said::Refused(reason) => {
                if let Some(piece) = self.smaller(piece) {
                    self.refuse(piece, &reason);
                }
            }
            Said::Waits { cause, reason, after } => self.stop(piece, Waiting { cause, reason, after }),
            Said::Fails(reason) => self.stop(piece, Waiting { cause: RetryCause::Passing, reason, after: None }),
            Said::NotSpoken(reason) => self.stop(piece, Waiting { cause: RetryCause::Blocked, reason, after: None }),
        }
    }

    /// Who takes others, and fails at these again and again, will not take them. One that takes nothing may be out of order altogether.
    async fn judge(&mut self, Suspect { points, reason, behind }: Suspect) {
        if self.is_stopped || !self.server_works().await {
            self.hold(points, behind, reason);
            return;
        }
        let (points, said) = self.one(points).await;
        match said {
            Said::Fails(reason) => {
                self.failures += 1;
                if self.shared.failed_once_more(&points) < TRIES {
                    self.hold(points, behind, reason);
                    return;
                }
                self.refuse(points, &reason);
            }
            said => self.note(points, said),
        }
        self.pieces.extend(self.shared.pieces(in_order(behind)));
        self.send_pieces().await;
    }

    /// Whether the server takes what is good: if not the last point before, then one that it took once already, which changes nothing there.
    async fn server_works(&mut self) -> bool {
        let last = self.sorted.taken.last();
        if self.failures == 0 && last.is_some() {
            return true;
        }
        let Some(probe) = last.cloned().or_else(|| self.shared.probe.lock().clone()) else { return false };
        match self.one(vec![probe]).await.1 {
            Said::Taken(_) => {
                self.failures = 0;
                true
            }
            Said::Waits { cause, reason, after } => {
                self.stop(Vec::new(), Waiting { cause, reason, after });
                false
            }
            Said::Fails(_) => false,
            // Somebody else writes its series, or it is too old by now: it says nothing any more.
            Said::Refused(_) | Said::TooLarge(_) | Said::NotSpoken(_) => {
                *self.shared.probe.lock() = None;
                false
            }
        }
    }

    /// Puts both halves in front; gives back what is not looked into any further.
    fn smaller(&mut self, piece: Vec<Point>) -> Option<Vec<Point>> {
        let grain = 1_usize << (self.found / FOUND_EXACTLY).min(16);
        if piece.len() <= grain { Some(piece) } else { self.halve(piece) }
    }

    fn halve(&mut self, mut piece: Vec<Point>) -> Option<Vec<Point>> {
        if piece.len() < 2 {
            return Some(piece);
        }
        let tail = piece.split_off(piece.len() / 2);
        self.pieces.push_front(tail);
        self.pieces.push_front(piece);
        None
    }

    fn refuse(&mut self, piece: Vec<Point>, reason: &str) {
        self.found += 1;
        self.sorted.refused.extend(piece.into_iter().map(|point| (point, reason.to_owned())));
    }

    /// It waits, and so does what comes behind it.
    fn stop(&mut self, piece: Vec<Point>, wait: Waiting) {
        self.is_stopped = true;
        self.sorted.waiting.extend(piece);
        self.sorted.wait.get_or_insert(wait);
    }

    /// Points wait, with the later ones of their series; others go on.
    fn hold(&mut self, points: Vec<Point>, behind: Vec<Point>, reason: String) {
        self.sorted.waiting.extend(points.into_iter().chain(behind));
        self.sorted.wait.get_or_insert(Waiting { cause: RetryCause::Passing, reason, after: None });
    }

    async fn one(&self, piece: Vec<Point>) -> (Vec<Point>, Said) {
        let shared = self.shared;
        let version = shared.version();
        let (piece, body, amount) = match body(version, piece, shared.settings.send_metadata).await {
            Ok(made) => made,
            Err((piece, reason)) => return (piece, Said::Refused(reason)),
        };
        let mut headers = self.headers.clone();
        headers.extend(version_headers(version));
        let post = shared.client.post(&shared.uri, &headers, Message::of(body));
        let limit = shared.settings.timeout;
        let answered = if limit.is_zero() { Ok(post.await) } else { timeout(limit, post).await };
        let said = match answered {
            Err(_) => Said::Waits { cause: RetryCause::Timeout, reason: format!("no answer within {limit:?}"), after: None },
            Ok(Err(error)) => match shared.reader.grpc(Signal::Metrics, Err(error)) {
                Outcome::Retry { reason, after, cause } => Said::Waits { cause, reason, after },
                other => Said::Waits { cause: RetryCause::Passing, reason: format!("{other:?}"), after: None },
            },
            Ok(Ok(answer)) => answer::read(version, &answer, shared.clock.now()),
        };
        match said {
            Said::NotSpoken(reason) if version == Version::Two => {
                shared.speak_one(&reason);
                Box::pin(self.one(piece)).await
            }
            Said::Taken(Some(written)) if written.samples < amount.samples || written.histograms < amount.histograms => {
                let Amount { samples, histograms } = amount;
                let exporter = &shared.id;
                warn!(
                    exporter,
                    samples,
                    histograms,
                    samples_written = written.samples,
                    histograms_written = written.histograms,
                    "the server says that it took a request, and that it wrote less than was in it"
                );
                (piece, Said::Taken(Some(written)))
            }
            Said::Waits { cause: RetryCause::Blocked, reason, after }
                if shared.reader.credentials_of_context && is_denied(&reason) =>
            {
                (piece, Said::Waits { cause: RetryCause::Denied, reason, after })
            }
            said => (piece, said),
        }
    }
}

fn is_denied(reason: &str) -> bool {
    reason.starts_with("HTTP 401") || reason.starts_with("HTTP 403")
}

async fn body(version: Version, piece: Vec<Point>, metadata: bool) -> Result<(Vec<Point>, Bytes, Amount), (Vec<Point>, String)> {
    let make = move |piece: Vec<Point>| {
        let (plain, amount) = encode(version, &piece, metadata);
        match snap::raw::Encoder::new().compress_vec(&plain) {
            Ok(packed) => Ok((piece, Bytes::from(packed), amount)),
            Err(error) => Err((piece, format!("the request cannot be compressed: {error}"))),
        }
    };
    if piece.iter().map(|point| point.bytes).sum::<usize>() <= INLINE_MAX {
        return make(piece);
    }
    match tokio::task::spawn_blocking(move || make(piece)).await {
        Ok(made) => made,
        // Only a panic takes the points along; the record is refused for it as any other that an exporter does not survive.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn sum_up(shared: &Arc<Shared>, request: &Request, lanes: Vec<Sorted>, unsupported: Vec<u64>) -> Outcome {
    let (mut items, mut refused, mut reached) = (Vec::new(), Vec::new(), false);
    let mut reasons: Vec<String> = Vec::new();
    let mut wait: Option<Waiting> = None;
    for sorted in lanes {
        reached |= !sorted.taken.is_empty() || !sorted.refused.is_empty();
        shared.counts.taken.inc_by(sorted.taken.len() as u64);
        shared.counts.refused.inc_by(sorted.refused.len() as u64);
        shared.counts.again.inc_by(sorted.waiting.len() as u64);
        shared.told(sorted.taken.iter().filter(|point| point.item.is_none()));
        shared.took(&sorted.taken);
        items.extend(sorted.waiting.iter().filter_map(|point| point.item));
        for (point, reason) in sorted.refused {
            let Some(item) = point.item else { continue };
            let known = reasons.iter().position(|known| *known == reason);
            let number = known.unwrap_or_else(|| {
                if reasons.len() < REASONS_MAX {
                    reasons.push(reason);
                }
                reasons.len() - 1
            });
            refused.push(Rejection { item, reason: number });
        }
        wait = match (wait, sorted.wait) {
            (Some(known), Some(more)) => Some(if severity(more.cause) > severity(known.cause) { more } else { known }),
            (known, more) => known.or(more),
        };
    }
    items.sort_unstable();
    refused.sort_by_key(|rejection| rejection.item);
    let Some(Waiting { cause, reason, after }) = wait.filter(|_| !items.is_empty()) else {
        return if refused.is_empty() && unsupported.is_empty() {
            Outcome::DELIVERED
        } else {
            Outcome::Each(Verdicts { again: None, rejected: refused, unsupported, reasons })
        };
    };
    let after = after.map(|after| after.min(shared.reader.retry_after_max));
    // Who has taken nothing is judged as a whole; what has no form is told of when something was taken.
    if !reached || items.len() as u64 == request.items {
        return Outcome::Retry { reason, after, cause };
    }
    Outcome::Each(Verdicts { again: Some(Again { items, reason, after, cause }), rejected: refused, unsupported, reasons })
}

const fn severity(cause: RetryCause) -> u8 {
    match cause {
        RetryCause::Passing => 0,
        RetryCause::Timeout => 1,
        RetryCause::Unreached => 2,
        RetryCause::Busy => 3,
        RetryCause::Denied => 4,
        RetryCause::Blocked => 5,
    }
}
