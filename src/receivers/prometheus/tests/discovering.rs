//! Targets from files, servers and names, and what relabelling makes of them.

use std::fs;

use parking_lot::Mutex;

use super::{
    scraping::{Running, TEXT},
    *,
};
use crate::{
    receivers::prometheus::target::{Target, target},
    transport::client::testing::{H1Sink, answered},
};

async fn page() -> H1Sink {
    H1Sink::start(|_| answered(200, TEXT, b"a 1\n")).await
}

fn job_of(discovery: &str) -> String {
    format!("config: {{scrape_configs: [{{job_name: j, scrape_interval: 20ms, {discovery}}}]}}")
}

fn has(line: &'static str) -> impl Fn(&[String]) -> bool {
    move |points| points.iter().any(|point| point.starts_with(line))
}

#[tokio::test]
async fn files_are_followed() {
    let sink = page().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.json");
    let list = |labels: &str| format!("[{{\"targets\": [\"{}\"], \"labels\": {{{labels}}}}}]", sink.address);
    fs::write(&path, list("\"zone\": \"eu\"")).unwrap();
    let pattern = folder.path().join("*.json");
    let keys = format!(
        "file_sd_configs: [{{files: ['{}'], refresh_interval: 10ms}}], \
         relabel_configs: [{{source_labels: [__meta_filepath], regex: '.*/(.*)\\.json', target_label: file, replacement: $$1}}]",
        pattern.display()
    );
    let mut running = Running::start(&job_of(&keys), 0).await;
    running.until(has("gauge a {file=one,zone=eu} 1")).await;
    // Another label makes another target; the series of the one before end, those about its scrapes as well.
    fs::write(&path, list("\"zone\": \"us\"")).unwrap();
    let ended = running.until(has("gauge a {file=one,zone=eu} - ended")).await;
    assert!(has("gauge up {file=one,zone=eu} - ended")(&ended), "{ended:?}");
    running.until(has("gauge a {file=one,zone=us} 1")).await;
    // What cannot be read keeps what it had.
    fs::write(&path, "[{\"targets\": 1, \"labells\": {}}]").unwrap();
    let labels = [("receiver", running.receiver.as_str()), ("job", "j")];
    let failed = || running.telemetry.gather().number("weir_scrape_discoveries_failed", &labels).unwrap_or(0.0) >= 1.0;
    crate::transport::client::testing::until(async || failed()).await;
    running.until(has("gauge a {file=one,zone=us} 1")).await;
    fs::remove_file(&path).unwrap();
    running.until(has("gauge a {file=one,zone=us} - ended")).await;
    running.stop().await;
}

#[tokio::test]
async fn servers_are_asked() {
    let sink = page().await;
    let address = sink.address;
    let asked = Mutex::new(0);
    let server = H1Sink::start(move |_| {
        let mut asked = asked.lock();
        *asked += 1;
        let json = "content-type: application/json; charset=utf-8\r\n";
        match *asked {
            1 => answered(200, json, format!("[{{\"targets\": [\"{address}\"], \"labels\": {{\"n\": \"1\"}}}}]").as_bytes()),
            2 => answered(500, json, b"[]"),
            3 => answered(200, TEXT, b"[]"),
            4 => answered(200, json, b"- targets: []"),
            _ => answered(200, json, b"[]"),
        }
    })
    .await;
    let keys =
        format!("http_sd_configs: [{{url: 'http://{}/list', refresh_interval: 100ms, bearer_token: t0ken}}]", server.address);
    let mut running = Running::start(&job_of(&keys), 0).await;
    running.until(has("gauge a {n=1} 1")).await;
    running.until(has("gauge a {n=1} - ended")).await;
    let seen = server.seen.lock().clone();
    assert!(seen.len() >= 5, "three wrong answers changed nothing");
    assert_eq!((seen[0].headers["authorization"].to_str().unwrap(), seen[0].path.as_str()), ("Bearer t0ken", "/list"));
    running.stop().await;
}

#[tokio::test]
async fn names_are_looked_up() {
    let sink = page().await;
    let keys = format!("dns_sd_configs: [{{names: [localhost], type: A, port: {}}}]", sink.address.port());
    let mut running = Running::start(&job_of(&keys), 0).await;
    running.until(has("gauge a {} 1")).await;
    running.stop().await;
}

#[tokio::test]
async fn more_targets_than_the_limit_are_not_scraped_at_all() {
    let (one, other) = (page().await, page().await);
    let keys = format!("target_limit: 1, static_configs: [{{targets: ['{}', '{}']}}]", one.address, other.address);
    let mut running = Running::start(&job_of(&keys), 0).await;
    let points = running.next().await;
    assert!(has("gauge up {} 0")(&points) && !has("gauge a")(&points), "{points:?}");
    assert!(one.seen.lock().is_empty() && other.seen.lock().is_empty());
    running.stop().await;
}

#[track_caller]
fn made(keys: &str, labels: &[(&'static str, &'static str)]) -> Result<Option<Target>, String> {
    target(&job(keys), &labels.iter().copied().collect())
}

#[test]
fn relabelling_decides_what_is_scraped_and_how() {
    let keys = "params: {module: [a, b]}, metrics_path: /probe, scrape_interval: 30s, relabel_configs: [\
                {source_labels: [__address__], target_label: __param_target}, \
                {source_labels: [__param_target], target_label: instance}, \
                {target_label: __address__, replacement: 'exporter:9115'}, \
                {target_label: __scheme__, replacement: https}, \
                {target_label: __scrape_interval__, replacement: 1m}, \
                {source_labels: [__meta_x], target_label: x}, \
                {source_labels: [instance], regex: gone, action: drop}]";
    let target = made(keys, &[("__address__", "https://shop/?a=b&c"), ("__meta_x", "y")]).unwrap().unwrap();
    assert_eq!(target.url.to_string(), "https://exporter:9115/probe?module=a&module=b&target=https%3A%2F%2Fshop%2F%3Fa%3Db%26c");
    assert_eq!((target.interval.as_secs(), target.timeout.as_secs()), (60, 10));
    let labels: Vec<_> = target.labels.iter().collect();
    assert_eq!(labels, [("instance", "https://shop/?a=b&c"), ("job", "j"), ("x", "y")]);
    assert_eq!(made(keys, &[("__address__", "gone")]), Ok(None));
    for (labels, words) in [
        (vec![], "no address"),
        (vec![("__address__", "h:1/x")], "not host:port"),
        (vec![("__address__", "h:1"), ("__scheme__", "ftp")], "neither"),
        (vec![("__address__", "h:1"), ("__scrape_timeout__", "2m")], "longer"),
        (vec![("__address__", "h:1"), ("__scrape_interval__", "x")], "not a duration"),
    ] {
        let problem = made("", &labels).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
}

#[test]
fn targets_are_spread_over_their_interval_and_stay_where_they_are() {
    use crate::receivers::prometheus::target::delay;
    let hosts: Vec<String> = (0..200).map(|number| format!("host-{number}:9100")).collect();
    let job = job("");
    let mut quarters = [0; 4];
    for host in &hosts {
        let labels: Labels<'_> = [("__address__", host.as_str())].into_iter().collect();
        let target = target(&job, &labels).unwrap().unwrap();
        let first = delay(&target, NOW);
        assert!(first < target.interval);
        // Whenever weir starts, it is the same moment of the minute.
        assert_eq!(delay(&target, NOW + first.as_nanos() as u64), std::time::Duration::ZERO);
        quarters[first.as_secs() as usize / 15] += 1;
    }
    assert!(quarters.iter().all(|quarter| *quarter > 20), "{quarters:?}");
}
