//! What the receiver reads, against the files themselves and against files that no kernel writes.
#![allow(clippy::float_cmp, reason = "numbers are those of the files, and exact")]

mod delivering;
mod fake;
mod hostile;
mod live;
mod names;
mod settings;

use std::{collections::BTreeMap, path::Path};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value},
    metrics::v1::{metric::Data, number_data_point},
};
use prost::Message as _;

use super::{host::Host, round::Rounds, settings::Settings, sheet::Body};
use crate::{
    config::{Diagnostics, Input, Machine, load},
    internal_telemetry::Telemetry,
    runtime::Clock,
    signal::{ComponentId, UnixNanos},
};

const NOW: u64 = 1_800_000_000_000_000_000;

/// Settings from YAML, with what is wrong with them.
fn read(yaml: &str) -> (Settings, Vec<Box<dyn super::Scraper>>, Diagnostics) {
    let loaded = load(&[Input::Text { name: "test".to_owned(), text: yaml.to_owned() }], &Machine);
    assert!(!loaded.found.has_errors(), "{yaml}: {:?}", loaded.found);
    let mut found = Diagnostics::default();
    let (settings, scrapers) = Settings::read(&loaded.node, &mut found);
    (settings, scrapers, found)
}

/// Rounds over the host whose `/` is at `root`.
struct Rig {
    rounds: Rounds,
    telemetry: Telemetry,
}

impl Rig {
    fn new(yaml: &str, host: Host) -> Self {
        let (settings, scrapers, found) = read(yaml);
        assert!(!found.has_errors(), "{yaml}: {found:?}");
        let telemetry = Telemetry::default();
        let id = ComponentId::parse("host_metrics").unwrap();
        let clock = Clock::new(|| UnixNanos(NOW));
        let rounds = Rounds::new(host, settings.semantic_conventions, scrapers, (&telemetry, &id), clock);
        Self { rounds, telemetry }
    }

    fn live(yaml: &str) -> Self {
        Self::new(yaml, Host::new(Path::new("/")))
    }

    fn collect(&mut self) -> Told {
        Told::of(&self.rounds.collect())
    }

    /// Of our own metrics: what a scraper could not read.
    fn errored(&self, scraper: &str) -> f64 {
        let labels = [("receiver", "host_metrics"), ("scraper", scraper)];
        self.telemetry.gather().number(crate::internal_telemetry::SCRAPER_ERRORED, &labels).unwrap()
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Point {
    value: f64,
    start: u64,
    time: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    resource: String,
    name: String,
    attributes: String,
}

/// What was told, as the official types read it.
#[derive(Debug, Default)]
struct Told {
    points: BTreeMap<Series, Point>,
    /// Name and keys of the attributes → unit, gauge/counter/level.
    metrics: BTreeMap<(String, String), (String, &'static str)>,
}

fn text(attributes: &[KeyValue]) -> String {
    let mut all: Vec<String> = Vec::new();
    for one in attributes {
        let value = match one.value.as_ref().and_then(|value| value.value.as_ref()).unwrap() {
            any_value::Value::StringValue(text) => text.clone(),
            any_value::Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        all.push(format!("{}={value}", one.key));
    }
    all.join(",")
}

impl Told {
    fn of(bodies: &[Body]) -> Self {
        let mut told = Self::default();
        for body in bodies {
            let request = ExportMetricsServiceRequest::decode(body.payload.clone()).unwrap();
            let mut points = 0;
            for resource in request.resource_metrics {
                let of = text(&resource.resource.unwrap().attributes);
                for scope in resource.scope_metrics {
                    assert_eq!(scope.scope.unwrap().name, "hostmetrics");
                    for metric in scope.metrics {
                        let (kind, data) = match metric.data.unwrap() {
                            Data::Gauge(gauge) => ("gauge", gauge.data_points),
                            Data::Sum(sum) => {
                                assert_eq!(sum.aggregation_temporality, 2);
                                (if sum.is_monotonic { "counter" } else { "level" }, sum.data_points)
                            }
                            other => panic!("{other:?}"),
                        };
                        assert!(!data.is_empty(), "{} has no points", metric.name);
                        for point in data {
                            points += 1;
                            let keys: Vec<&str> = point.attributes.iter().map(|one| one.key.as_str()).collect();
                            told.metrics.insert((metric.name.clone(), keys.join(",")), (metric.unit.clone(), kind));
                            let value = match point.value.unwrap() {
                                number_data_point::Value::AsDouble(value) => value,
                                number_data_point::Value::AsInt(value) => value as f64,
                            };
                            let series =
                                Series { resource: of.clone(), name: metric.name.clone(), attributes: text(&point.attributes) };
                            let point = Point { value, start: point.start_time_unix_nano, time: point.time_unix_nano };
                            assert!(told.points.insert(series.clone(), point).is_none(), "{series:?} comes twice");
                        }
                    }
                }
            }
            assert_eq!(points, body.points);
        }
        told
    }

    fn point(&self, name: &str, attributes: &str) -> Option<&Point> {
        let mut all = self.points.iter().filter(|(series, _)| series.name == name && series.attributes == attributes);
        all.next().map(|(_, point)| point)
    }

    #[track_caller]
    fn value(&self, name: &str, attributes: &str) -> f64 {
        self.point(name, attributes).unwrap_or_else(|| panic!("no {name}{{{attributes}}} in {:#?}", self.points.keys())).value
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.points.keys().map(|series| series.name.as_str()).collect();
        names.dedup();
        names
    }
}
