//! What a file may say, and what it is told.

use super::read;
use crate::config::Level;

#[track_caller]
fn told(yaml: &str, level: Level) -> String {
    let found = read(yaml).2.found;
    let told: Vec<String> = found
        .into_iter()
        .filter(|one| one.level == level)
        .map(|one| format!("{}; {}", one.message, one.help.unwrap_or_default()))
        .collect();
    assert_eq!(told.len(), 1, "{yaml}: {told:?}");
    told.into_iter().next().unwrap()
}

#[test]
fn defaults_are_those_of_the_collector() {
    let (settings, scrapers, found) = read("scrapers: {cpu: , load: {}, disk: {enabled: false}}");
    assert!(found.found.is_empty(), "{found:?}");
    assert_eq!(scrapers.iter().map(|scraper| scraper.name()).collect::<Vec<_>>(), ["cpu", "load"]);
    assert_eq!(settings.collection_interval.0.as_secs(), 60);
    assert_eq!(settings.initial_delay.0.as_secs(), 1);
    assert_eq!(settings.root_path.as_os_str(), "/");
}

#[test]
fn says_what_is_wrong() {
    for (yaml, begins) in [
        ("{}", "the receiver has no scraper"),
        ("scrapers:", "the receiver has no scraper"),
        ("{scrapers: {cpu: }, collection_interval: 0s}", "collection_interval must be greater"),
        ("{scrapers: {cpu: }, root_path: hostfs}", "root_path must be an absolute"),
        (
            "{scrapers: {cpu: {metrics: {system.cpu.tme: {enabled: true}}}}}",
            "there is no metric `system.cpu.tme`; did you mean `system.cpu.time`?",
        ),
        ("{scrapers: {cpu: {metrics: {system.cpu.time: {attributes: [cpu]}}}}}", "`system.cpu.time` cannot leave out `state`"),
        ("{scrapers: {cpu: {metrics: {system.cpu.time: {attributes: [core, state]}}}}}", "there is no attribute `core`"),
        ("{scrapers: {disk: {include: {devices: [sda]}}}}", "`match_type` is missing"),
        ("{scrapers: {disk: {include: {match_type: glob, devices: [sda]}}}}", "no such `match_type`"),
        ("{scrapers: {disk: {include: {match_type: regexp, devices: ['(']}}}}", "the pattern cannot be read"),
        ("{scrapers: {disk: {include: {match_type: strict, interfaces: [sda]}}}}", "`interfaces` does not belong here"),
        (
            "{scrapers: {process: {resource_attributes: {process.pd: {enabled: true}}}}}",
            "there is no resource attribute `process.pd`",
        ),
        ("{scrapers: {cpu: }, semantic_conventions: v2}", "`v2` is not one of `v0`, `v1`, `both`"),
        ("{scrapers: {cup: }}", "there is no key `cup` here; did you mean `cpu`?"),
    ] {
        let told = told(yaml, Level::Error);
        assert!(told.starts_with(begins), "{yaml}: {told}");
    }
}

#[test]
fn says_what_does_nothing() {
    for (yaml, begins) in [
        ("{scrapers: {cpu: }, metadata_collection_interval: 5m}", "metadata_collection_interval has no effect"),
        ("{scrapers: {process: {metrics: {process.handles: {enabled: true}}}}}", "`process.handles` is a metric of Windows"),
        (
            "{scrapers: {disk: {include: {match_type: regexp, regexp: {cacheenabled: true}, devices: [a]}}}}",
            "`regexp` has no effect",
        ),
    ] {
        let told = told(yaml, Level::Ineffective);
        assert!(told.starts_with(begins), "{yaml}: {told}");
    }
}
