//! Answers of all kinds, and the order that nothing may break.

use std::collections::BTreeMap;

use super::*;

const NAME: &str = "instance=\"i\",job=\"cart\"";

fn series(metric: &str, of: &str) -> String {
    format!("{metric}{{{NAME},of=\"{of}\"}}")
}

/// Points of `count` series at a time.
fn row(count: usize, time: i64, value: f64) -> Batch {
    let names: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
    let points: Vec<(&str, i64, f64)> = names.iter().map(|name| (name.as_str(), time, value)).collect();
    metrics(&json!([gauge("g", &points)]))
}

#[expect(clippy::unnecessary_wraps, reason = "what a script gives back, beside nothing for a healthy server's answer")]
fn plain(status: u16, said: &str) -> Option<(u16, String, String)> {
    Some((status, String::new(), said.to_owned()))
}

/// What a healthy server says: nothing that stands out.
const WELL: Option<(u16, String, String)> = None;

#[tokio::test]
async fn what_is_out_of_order_is_refused_alone_and_in_the_servers_words() {
    for version in ["", TWO] {
        let fake = healthy().await;
        let exporter = exporter(&fake, version);
        assert_eq!(send(&exporter, row(50, 1000, 1.0)).await, Outcome::DELIVERED);
        // Old, another value for the same time, and 48 good ones.
        let names: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
        let points: Vec<(&str, i64, f64)> = names
            .iter()
            .enumerate()
            .map(|(n, name)| {
                (
                    name.as_str(),
                    match n {
                        7 => 500,
                        31 => 1000,
                        _ => 2000,
                    },
                    2.0,
                )
            })
            .collect();
        let verdicts = each(send(&exporter, metrics(&json!([gauge("g", &points)]))).await);
        let refused: Vec<(u64, &str)> =
            verdicts.rejected.iter().map(|it| (it.item, verdicts.reasons[it.reason].as_str())).collect();
        let reasons = [(7, "HTTP 400: out of order sample"), (31, "HTTP 400: duplicate sample for timestamp")];
        assert_eq!((refused, verdicts.again.is_none()), (reasons.to_vec(), true));
        fake.assert_well_formed();
        let state = fake.state.lock();
        for (n, of) in names.iter().enumerate() {
            let expected =
                if matches!(n, 7 | 31) { vec![(START + 1000, 1.0)] } else { vec![(START + 1000, 1.0), (START + 2000, 2.0)] };
            assert_eq!(state.floats(&series("g", of)), expected, "{of}");
        }
    }
}

/// One that takes all of a request or none says that it wrote nothing: its neighbours are good nonetheless.
#[tokio::test]
async fn a_server_that_wrote_nothing_is_asked_for_each_point() {
    let fake = Fake::start(Speaks::Both, |_, request| {
        let is_bad = request.series.iter().any(|series| series.labels.iter().any(|label| label.value == "s13"));
        let headers = "x-prometheus-remote-write-samples-written: 0\r\nx-prometheus-remote-write-histograms-written: 0\r\n";
        if is_bad { Some((400, headers.to_owned(), "no".to_owned())) } else { WELL }
    })
    .await;
    let verdicts = each(send(&exporter(&fake, TWO), row(40, 0, 1.0)).await);
    assert_eq!((verdicts.rejected.len(), verdicts.rejected[0].item, verdicts.again), (1, 13, None));
    assert_eq!(fake.state.lock().stored.len(), 39);
}

/// The same again, as after a crash: nothing is refused, and nothing is there twice.
#[tokio::test]
async fn the_same_twice_changes_nothing() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "");
    for _ in 0..2 {
        assert_eq!(send(&exporter, row(20, 1000, 1.0)).await, Outcome::DELIVERED);
    }
    assert!(fake.state.lock().stored.values().all(|kept| kept.len() == 1));
}

#[tokio::test]
async fn samples_of_one_series_lie_in_the_order_of_their_times() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "");
    let shuffled = metrics(&json!([gauge("g", &[("a", 30, 3.0), ("b", 5, 1.0), ("a", 10, 1.0), ("a", 20, 2.0)])]));
    assert_eq!(send(&exporter, shuffled).await, Outcome::DELIVERED);
    let state = fake.state.lock();
    assert_eq!(state.floats(&series("g", "a")), [(START + 10, 1.0), (START + 20, 2.0), (START + 30, 3.0)]);
}

/// A series in several requests: where the first has to wait, so do the others.
#[tokio::test]
async fn what_waits_is_not_overtaken_by_what_comes_behind_it() {
    let fake = Fake::start(Speaks::Both, |number, _| if number == 0 { plain(503, "busy") } else { WELL }).await;
    let exporter = exporter(&fake, "max_batch_size_bytes: 1024");
    let points: Vec<(&str, i64, f64)> = (0..40).map(|step| ("a", step * 10, step as f64)).collect();
    let request = metrics(&json!([gauge("g", &points)]));
    assert!(matches!(send(&exporter, request.clone()).await, Outcome::Retry { cause: RetryCause::Busy, .. }));
    assert_eq!(fake.state.lock().heads.len(), 1);
    assert_eq!(send(&exporter, request).await, Outcome::DELIVERED);
    let expected: Vec<(i64, f64)> = (0..40).map(|step| (START + step * 10, step as f64)).collect();
    let state = fake.state.lock();
    assert_eq!((state.floats(&series("g", "a")), state.heads.len() > 4), (expected, true));
}

/// Lanes, small requests, answers of all kinds: what is to be sent again is, and no server ever sees a series go back.
#[tokio::test]
async fn nothing_is_lost_and_nothing_overtakes_whatever_fails() {
    let fake = Fake::start(Speaks::Both, |number, _| match number % 7 {
        2 => plain(503, "busy"),
        4 => plain(429, "slower"),
        5 if number % 3 == 0 => plain(500, "disk"),
        _ => WELL,
    })
    .await;
    let exporter = exporter(&fake, "max_batch_size_bytes: 3000\nremote_write_queue: {num_consumers: 4}");
    for step in 0..30 {
        let mut left = row(40, step * 10, step as f64);
        loop {
            match send(&exporter, left.clone()).await {
                Outcome::Delivered { .. } => break,
                Outcome::Retry { .. } => {}
                Outcome::Each(Verdicts { again, rejected, .. }) => {
                    assert_eq!(rejected, [], "step {step}");
                    let Some(again) = again else { break };
                    left = pick_items(&left, &again.items).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    fake.assert_well_formed();
    let state = fake.state.lock();
    assert_eq!(state.stored.len(), 40);
    let expected: Vec<(i64, f64)> = (0..30).map(|step| (START + step * 10, step as f64)).collect();
    for name in state.stored.keys() {
        assert_eq!(state.floats(name), expected, "{name}");
    }
    assert!(state.sizes.iter().all(|size| *size <= 3000), "{:?}", state.sizes);
}

#[tokio::test]
async fn statuses_mean_what_the_table_says() {
    let cases = [
        (503, "retry-after: 7\r\n", "busy", RetryCause::Busy, Some(7)),
        (429, "", "slower", RetryCause::Busy, None),
        (500, "", "broken", RetryCause::Passing, None),
        (502, "", "gateway", RetryCause::Passing, None),
        (401, "", "who", RetryCause::Blocked, None),
        (404, "", "remote write receiver needs to be enabled", RetryCause::Blocked, None),
        (302, "location: http://elsewhere/\r\n", "", RetryCause::Blocked, None),
    ];
    for (status, headers, said, cause, after) in cases {
        let fake = Fake::start(Speaks::Both, move |_, _| Some((status, headers.to_owned(), said.to_owned()))).await;
        let Outcome::Retry { reason, after: hint, cause: found } = send(&exporter(&fake, ""), row(30, 0, 1.0)).await else {
            panic!("{status} is no retry")
        };
        assert_eq!((found, hint.map(|hint| hint.as_secs())), (cause, after), "{status}");
        assert!(reason.contains(&status.to_string()) && reason.contains(said), "{reason}");
    }
}

/// Some servers say 500 of what they will never take. Where they take its neighbours, it is not the server.
#[tokio::test]
async fn a_500_about_one_point_does_not_stop_the_others() {
    let fake = Fake::start(Speaks::Both, |_, request| {
        let is_bad = request.series.iter().any(|series| series.labels.iter().any(|label| label.value == "s13"));
        if is_bad { plain(500, "cannot be") } else { WELL }
    })
    .await;
    let verdicts = each(send(&exporter(&fake, ""), row(40, 0, 1.0)).await);
    assert_eq!((verdicts.rejected, verdicts.again.map(|again| again.items)), (Vec::new(), Some(vec![13])));
    assert_eq!(fake.state.lock().stored.len(), 39);
}

#[tokio::test]
async fn native_histograms_that_are_switched_off_are_refused_and_not_waited_for() {
    let fake = Fake::start(Speaks::One, |_, request| {
        let is_native = request.series.iter().any(|series| !series.histograms.is_empty());
        if is_native { plain(500, "native histograms are disabled") } else { WELL }
    })
    .await;
    let native = json!({"name": "n", "exponentialHistogram": {"aggregationTemporality": 2,
        "dataPoints": [{"timeUnixNano": at(0), "scale": 1, "count": "1", "zeroCount": "1"}]}});
    let exporter = exporter(&fake, "");
    let verdicts = each(send(&exporter, metrics(&json!([native]))).await);
    assert_eq!((verdicts.rejected.len(), &*verdicts.reasons[0]), (1, "HTTP 500: native histograms are disabled"));
    let verdicts = each(send(&exporter, metrics(&json!([gauge("g", &[("a", 0, 1.0)]), native]))).await);
    assert_eq!((verdicts.rejected.len(), verdicts.rejected[0].item), (1, 1));
    assert_eq!(fake.state.lock().stored.len(), 1);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_and_that_is_remembered() {
    let fake = Fake::start(Speaks::Both, |_, request| if request.series.len() > 10 { plain(413, "large") } else { WELL }).await;
    let exporter = exporter(&fake, "remote_write_queue: {num_consumers: 1}");
    assert_eq!(send(&exporter, row(600, 0, 1.0)).await, Outcome::DELIVERED);
    assert_eq!(fake.state.lock().stored.len(), 600);
    let single = Fake::start(Speaks::Both, |_, _| plain(413, "large")).await;
    let verdicts = each(send(&self::exporter(&single, ""), row(1, 0, 1.0)).await);
    assert!(verdicts.reasons[0].contains("a single point is larger than the server takes: HTTP 413: large"), "{verdicts:?}");
}

#[tokio::test]
async fn who_does_not_speak_version_two_gets_version_one() {
    // One that says so, and one that says yes to what it does not understand, as Prometheus 2.42.
    for refuses in [true, false] {
        let fake =
            Fake::start(Speaks::One, move |number, _| if refuses && number == 0 { plain(415, "what?") } else { WELL }).await;
        let exporter = exporter(&fake, &format!("{TWO}remote_write_queue: {{num_consumers: 1}}"));
        for time in [0, 1000] {
            assert_eq!(send(&exporter, row(3, time, 1.0)).await, Outcome::DELIVERED);
        }
        let state = fake.state.lock();
        assert_eq!(state.floats(&series("g", "s1")), [(START, 1.0), (START + 1000, 1.0)]);
        let spoken: Vec<bool> = state.heads.iter().map(|head| head.contains("-version: 2.0.0")).collect();
        assert_eq!(spoken, [true, false, false]);
    }
}

#[tokio::test]
async fn two_writers_of_one_series_cost_a_bounded_number_of_requests() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "remote_write_queue: {num_consumers: 1}");
    assert_eq!(send(&exporter, row(3000, 1000, 1.0)).await, Outcome::DELIVERED);
    let before = fake.state.lock().heads.len();
    let verdicts = each(send(&exporter, row(3000, 500, 1.0)).await);
    assert_eq!((verdicts.rejected.len(), verdicts.again), (3000, None));
    let requests = fake.state.lock().heads.len() - before;
    assert!(requests < 1500, "{requests}");
}

/// What the server was given and refused may be written later: to whoever waits nothing was said that is not so.
#[tokio::test]
async fn a_destination_that_nobody_reached_is_told_of_as_a_whole() {
    let fake = Fake::start(Speaks::Both, |_, _| plain(503, "")).await;
    let delta = json!({"name": "d", "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{"asInt": "1", "timeUnixNano": at(0)}]}});
    let outcome = send(&exporter(&fake, ""), metrics(&json!([delta, gauge("g", &[("a", 0, 1.0)])]))).await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
}

#[tokio::test]
async fn headers_go_along_and_content_is_what_it_says() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "headers: {X-Scope-OrgID: tenant-7}");
    assert_eq!(send(&exporter, row(1, 0, 1.0)).await, Outcome::DELIVERED);
    let state = fake.state.lock();
    let lines: BTreeMap<&str, &str> = state.heads[0].lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
    assert_eq!((lines["x-scope-orgid"], lines["content-encoding"]), ("tenant-7", "snappy"));
    assert!(state.heads[0].starts_with("post /api/v1/write http/1.1"), "{}", state.heads[0]);
    assert!(lines["user-agent"].starts_with("weir/"));
}
