//! Servers that fail at some points, or store a part of what they refuse: a good sample is never given up for it.

use super::{fake::Speaks, messages::WriteRequest, *};

fn series(of: &str) -> String {
    format!("g{{instance=\"i\",job=\"cart\",of=\"{of}\"}}")
}

/// One point of each of `count` series at each time, the value being the time.
fn rows(count: usize, times: &[i64]) -> Batch {
    let names: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
    let points: Vec<(&str, i64, f64)> =
        times.iter().flat_map(|time| names.iter().map(|name| (name.as_str(), *time, *time as f64))).collect();
    metrics(&json!([gauge("g", &points)]))
}

fn has(request: &WriteRequest, of: &str) -> bool {
    request.series.iter().any(|series| series.labels.iter().any(|label| label.value == of))
}

fn broken() -> (u16, String, String) {
    (500, String::new(), "broken".to_owned())
}

fn all(times: &[i64]) -> Vec<(i64, f64)> {
    times.iter().map(|time| (START + time, *time as f64)).collect()
}

/// The first requests with a certain series fail, whatever else is taken: its later samples do not overtake it.
#[tokio::test]
async fn a_short_failure_costs_no_sample() {
    for version in ["", TWO] {
        let failed = Arc::new(parking_lot::Mutex::new(0));
        let fake = Fake::start(Speaks::Both, move |_, request| {
            let mut failed = failed.lock();
            (has(request, "s13") && *failed < 9).then(|| {
                *failed += 1;
                broken()
            })
        })
        .await;
        let exporter = exporter(&fake, &format!("{version}max_batch_size_bytes: 2000"));
        let mut left = rows(40, &[0, 10, 20]);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match send(&exporter, left.clone()).await {
                Outcome::Each(Verdicts { again: Some(Again { items, cause, .. }), rejected, .. }) => {
                    assert_eq!((rejected, cause), (Vec::new(), RetryCause::Passing));
                    // All of the series waits, and nothing else.
                    assert_eq!((attempts, &items[..]), (1, &[13, 53, 93][..]));
                    left = pick_items(&left, &items).unwrap();
                }
                Outcome::Retry { cause: RetryCause::Passing, .. } => {}
                outcome => {
                    assert_eq!(outcome, Outcome::DELIVERED);
                    break;
                }
            }
        }
        assert!(attempts > 1);
        fake.assert_well_formed();
        let state = fake.state.lock();
        for n in 0..40 {
            assert_eq!(state.floats(&series(&format!("s{n}"))), all(&[0, 10, 20]), "s{n}");
        }
    }
}

/// What a server will never take, and says so with 500, does not hold what lies behind it: not where others are in the same request, and not
/// where it is alone.
#[tokio::test]
async fn what_fails_in_five_attempts_while_others_are_taken_is_refused() {
    let fake = Fake::start(Speaks::Both, |_, request| has(request, "s13").then(broken)).await;
    let exporter = exporter(&fake, "");
    let mut left = rows(20, &[0]);
    for attempt in 1..5 {
        let again = match send(&exporter, left.clone()).await {
            Outcome::Each(Verdicts { again: Some(Again { items, cause: RetryCause::Passing, .. }), rejected, .. })
                if attempt == 1 =>
            {
                assert_eq!(rejected, []);
                items
            }
            // Alone now, and the server is shown to work by what it took before.
            Outcome::Retry { cause: RetryCause::Passing, .. } if attempt > 1 => vec![0],
            other => panic!("attempt {attempt}: {other:?}"),
        };
        left = pick_items(&left, &again).unwrap();
        assert_eq!(left.items, 1);
    }
    let verdicts = each(send(&exporter, left).await);
    assert_eq!((verdicts.rejected.len(), verdicts.again, &*verdicts.reasons[0]), (1, None, "HTTP 500: broken"));
    // It is known for that now, and others are not.
    let verdicts = each(send(&exporter, rows(20, &[10])).await);
    assert_eq!((verdicts.rejected.len(), verdicts.rejected[0].item, verdicts.again), (1, 13, None));
    assert_eq!(fake.state.lock().floats(&series("s12")), all(&[0, 10]));
}

#[tokio::test]
async fn a_server_that_takes_nothing_any_more_costs_no_sample() {
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = fails.clone();
    let fake = Fake::start(Speaks::Both, move |_, _| now.load(std::sync::atomic::Ordering::Relaxed).then(broken)).await;
    let exporter = exporter(&fake, "");
    assert_eq!(send(&exporter, rows(20, &[0])).await, Outcome::DELIVERED);
    fails.store(true, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..20 {
        for count in [1, 20] {
            assert!(matches!(send(&exporter, rows(count, &[10])).await, Outcome::Retry { cause: RetryCause::Passing, .. }));
        }
    }
    fails.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(send(&exporter, rows(20, &[10])).await, Outcome::DELIVERED);
}

/// Of a request with a bad sample the good ones are stored, and the search for the bad one sends them again: they are still the newest of their
/// series.
#[tokio::test]
async fn what_was_stored_of_a_refused_request_is_not_refused_when_it_comes_again() {
    for (speaks, version) in [(Speaks::Partly, ""), (Speaks::Both, TWO), (Speaks::One, "")] {
        let fake = Fake::start(speaks, |_, _| None).await;
        let exporter = exporter(&fake, version);
        assert_eq!(send(&exporter, metrics(&json!([gauge("g", &[("s7", 15, 15.0)])]))).await, Outcome::DELIVERED);
        let verdicts = each(send(&exporter, rows(40, &[0, 10, 20])).await);
        let refused: Vec<u64> = verdicts.rejected.iter().map(|it| it.item).collect();
        assert_eq!((refused, verdicts.again), (vec![7, 47], None), "{:?}", verdicts.reasons);
        fake.assert_well_formed();
        let state = fake.state.lock();
        for n in 0..40 {
            let expected = if n == 7 { all(&[15, 20]) } else { all(&[0, 10, 20]) };
            assert_eq!(state.floats(&series(&format!("s{n}"))), expected, "s{n}");
        }
    }
}

/// Thousands of points of one series in one request.
#[tokio::test]
async fn a_long_series_costs_a_bounded_number_of_requests_and_keeps_its_order() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "");
    let times: Vec<i64> = (0..5000).collect();
    assert_eq!(send(&exporter, rows(1, &times)).await, Outcome::DELIVERED);
    fake.assert_well_formed();
    let state = fake.state.lock();
    assert_eq!(state.floats(&series("s0")), all(&times));
    assert!(state.heads.len() < 500, "{}", state.heads.len());
}

#[test]
fn later_points_of_a_series_are_in_no_earlier_request() {
    let rounds: Vec<usize> = (0..200_000).map(super::super::round).collect();
    assert!(rounds.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
    assert_eq!(rounds[..65], (0..65).collect::<Vec<_>>());
    assert!(rounds.last().is_some_and(|last| *last < 1000), "{:?}", rounds.last());
}
