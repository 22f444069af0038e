//! Backends that answer for each item: only what they ask for is sent again, and each item is accounted for once.

use super::*;
use crate::{
    component::{Again, Rejection, Verdicts},
    journal::Refusal,
    otlp::view::TracesView,
};

/// The numbers that `spans` gave as ids.
fn ids(payload: &[u8]) -> Vec<u64> {
    let spans = TracesView::new(payload).items();
    spans.map(|(_, _, span)| u64::from_be_bytes(span.span_id.try_into().unwrap())).collect()
}

fn again(items: Vec<u64>, cause: RetryCause) -> Again {
    Again { items, reason: "busy".to_owned(), after: None, cause }
}

/// As a bulk request is answered: of 100 items 3 are busy, 1 is wrong.
#[tokio::test(start_paused = true)]
async fn only_what_is_busy_is_sent_again_and_what_is_wrong_is_a_letter() {
    let first = Verdicts {
        again: Some(again(vec![4, 50, 99], RetryCause::Busy)),
        rejected: vec![Rejection { item: 70, reason: 0 }],
        reasons: vec!["400: no number".to_owned()],
        ..Verdicts::default()
    };
    let second = Verdicts { again: Some(again(vec![1], RetryCause::Busy)), ..Verdicts::default() };
    let answers = [Answer::Now(Outcome::Each(first)), Answer::Now(Outcome::Each(second))];
    let rig = rig(Scripted { answers: Mutex::new(answers.into()), ..Scripted::default() }, policy(), false);
    // Two records, one request.
    rig.put(0, 60);
    rig.put(0, 40);
    let (destination, exporter) = (rig.destination.clone(), rig.exporter.clone());
    let (given_up, requests, books) = rig.finish().await;
    let sent: Vec<Vec<u64>> = requests.iter().map(|request| ids(&request.payload())).collect();
    assert_eq!(sent[0].len(), 100);
    assert_eq!(sent[1..], [vec![5, 51, 40], vec![51]]);
    assert_eq!((given_up, books.delivered, books.dropped[DropReason::Rejected as usize], books.held), (0, 99, 1, 0));
    let letters = destination.dead_letters.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((ids(&letters[0].batch.payload), letters[0].batch.items), (vec![11], 1));
    assert_eq!((letters[0].note.reason, &*letters[0].note.message), (Refusal::Rejected, "400: no number"));
    assert_eq!((letters[0].note.origin.offset, letters[0].note.attempts), (1, 1));
    // What is sent again still says where it comes from: names that are made of it are the same.
    let origins = exporter.origins.lock();
    let numbers = |request: usize| -> Vec<(u64, Vec<u64>)> {
        origins[request].iter().map(|origin| (origin.position.offset, origin.items.numbers().collect())).collect()
    };
    assert_eq!(numbers(0), [(0, (0..60).collect()), (1, (0..40).collect())]);
    assert_eq!(numbers(1), [(0, vec![4, 50]), (1, vec![39])]);
    assert_eq!(numbers(2), [(0, vec![50])]);
    let attempts: Vec<u64> = destination.metrics.attempts.iter().map(prometheus::IntCounter::get).collect();
    assert_eq!(attempts, [1, 2, 0, 0, 0], "two came to something in part, and the last took the rest");
    assert!(origins.iter().flatten().all(|origin| origin.received == UnixNanos(1_000_000_000)), "{origins:?}");
}

#[tokio::test(start_paused = true)]
async fn a_split_request_keeps_the_numbers_of_its_items() {
    let judge = |request: &Request| match request.items {
        0..=3 => Outcome::DELIVERED,
        _ => Outcome::TooLarge { message: "413".to_owned(), limit: None },
    };
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy(), false);
    rig.put(0, 10);
    let exporter = rig.exporter.clone();
    let (_, requests, books) = rig.finish().await;
    assert_eq!(books.delivered, 10);
    for (request, origins) in requests.iter().zip(&*exporter.origins.lock()) {
        let numbers: Vec<u64> = origins.iter().flat_map(|origin| origin.items.numbers()).map(|number| number + 1).collect();
        assert_eq!(ids(&request.payload()), numbers);
    }
}

/// A destination that is blocked for some of the data, and takes the rest, costs nobody a dead letter however long it lasts.
#[tokio::test(start_paused = true)]
async fn what_waits_for_someone_to_act_is_never_given_up() {
    let judge = |request: &Request| {
        let bad: Vec<u64> =
            ids(&request.payload()).iter().enumerate().filter(|(_, id)| **id == 2).map(|(at, _)| at as u64).collect();
        if bad.is_empty() {
            return Outcome::DELIVERED;
        }
        Outcome::Each(Verdicts { again: Some(again(bad, RetryCause::Blocked)), ..Verdicts::default() })
    };
    let mut policy = policy();
    policy.request_items_max = 2;
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy, false);
    // More than there is room to park.
    for n in 0..600 {
        rig.put(n % 2, 2);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (destination, accounts) = (rig.destination.clone(), rig.accounts.clone());
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(destination.dead_letters.letters().len(), 0);
    let books = accounts.books();
    assert_eq!(books.dropped.iter().sum::<u64>(), 0, "{books:?}");
    rig.abort.cancel();
    let (given_up, ..) = rig.finish().await;
    assert!(given_up >= 600, "{given_up}");
}

#[tokio::test(start_paused = true)]
async fn items_that_are_busy_expire_where_a_person_wrote_when() {
    let judge = |_: &Request| Outcome::Each(Verdicts { again: Some(again(vec![0], RetryCause::Busy)), ..Verdicts::default() });
    let mut policy = policy();
    policy.retry.elapsed_max = Some(Duration::from_mins(1));
    let rig = rig(Scripted { judge: Some(judge), ..Scripted::default() }, policy, false);
    rig.put(0, 5);
    let (_, _, books) = rig.finish().await;
    assert_eq!((books.delivered, books.dropped[DropReason::Expired as usize]), (4, 1));
}

/// What a backend has no form for is dropped without a letter, and nothing else with it.
#[tokio::test(start_paused = true)]
async fn what_has_no_form_is_dropped_by_itself() {
    let first = Verdicts {
        again: Some(again(vec![1, 11], RetryCause::Busy)),
        rejected: vec![Rejection { item: 0, reason: 0 }],
        unsupported: vec![2, 3, 10],
        reasons: vec!["400".to_owned()],
    };
    let answers = [Answer::Now(Outcome::Each(first))];
    let rig = rig(Scripted { answers: Mutex::new(answers.into()), ..Scripted::default() }, policy(), false);
    rig.put(0, 10);
    rig.put(0, 10);
    let destination = rig.destination.clone();
    let (_, requests, books) = rig.finish().await;
    assert_eq!(requests.iter().map(|request| ids(&request.payload())).nth(1).unwrap(), [2, 2]);
    assert_eq!((books.delivered, books.dropped[DropReason::Unsupported as usize]), (16, 3));
    assert_eq!((books.dropped[DropReason::Rejected as usize], books.held), (1, 0));
    assert_eq!(destination.dead_letters.letters().iter().map(|letter| letter.batch.items).sum::<u64>(), 1);
}

/// Overload that lasts longer than a request keeps its place elsewhere: where the order matters it is still not overtaken.
#[tokio::test(start_paused = true)]
async fn nothing_overtakes_what_must_arrive_in_order() {
    let busy = || {
        Answer::Now(Outcome::Retry {
            reason: "HTTP 503".to_owned(),
            after: Some(Duration::from_secs(30)),
            cause: RetryCause::Passing,
        })
    };
    let settings = Settings { in_order: true, ..Settings::default() };
    let mut policy = Policy::of(&settings, None, 1 << 30);
    policy.request_items_max = 3;
    let rig = rig(Scripted { answers: Mutex::new((0..40).map(|_| busy()).collect()), ..Scripted::default() }, policy, false);
    for items in 1..=3 {
        rig.put(0, items);
    }
    let (_, requests, books) = rig.finish().await;
    let records: Vec<Vec<u64>> = requests.iter().map(|request| request.parts.iter().map(|part| part.items).collect()).collect();
    let (first, last) = (vec![1, 2], vec![3]);
    assert_eq!((records.len(), records[..41].iter().all(|records| *records == first)), (42, true), "{records:?}");
    assert_eq!((&records[41], books.delivered), (&last, 6));
}
