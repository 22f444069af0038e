//! What the receiver does, by itself and before a fake target.

mod discovering;
mod hostile;
mod pages;
mod relabelling;
mod returning;
mod scraping;
mod settings;

use std::fmt::Write as _;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    metrics::v1::{Exemplar, exemplar, metric::Data, number_data_point::Value},
};
use prost::Message as _;

use super::{
    config::jobs,
    job::Job,
    labels::Labels,
    parse::{Fault, protobuf, text},
    sheet::Sheet,
    translate::Page,
};
use crate::{config::Diagnostics, transport::client::testing::node};

const NOW: u64 = 1_800_000_000_000_000_000;

/// The jobs of `config`, below `receivers::prometheus`.
#[track_caller]
fn read(yaml: &str) -> Vec<Job> {
    let mut found = Diagnostics::default();
    let jobs = jobs(&node(yaml), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    jobs
}

/// One job with these keys more.
#[track_caller]
fn job(keys: &str) -> Job {
    read(&format!("config: {{scrape_configs: [{{job_name: j{}{keys}}}]}}", if keys.is_empty() { "" } else { ", " })).remove(0)
}

fn target_labels() -> Labels<'static> {
    [("instance", "h:1"), ("job", "j")].into_iter().collect()
}

enum Format {
    Text,
    Open,
    Protobuf,
}

/// A page of this job's only target, as lines.
fn told(job: &Job, format: Format, page: &[u8]) -> Result<Vec<String>, (usize, Fault)> {
    let labels = target_labels();
    let mut out = Page::new(job, &labels, "http", NOW);
    let wanted = protobuf::Wanted { native: job.native, classic_beside: job.classic_beside };
    match format {
        Format::Text => text::read(page, false, &mut out)?,
        Format::Open => text::read(page, true, &mut out)?,
        Format::Protobuf => protobuf::read(page, wanted, &mut out)?,
    }
    let mut sheet = Sheet::default();
    let told = out.write(&mut sheet).unwrap();
    let bodies = sheet.finish();
    assert_eq!(told.len() as u64, bodies.iter().map(|body| body.points).sum::<u64>());
    Ok(bodies.iter().flat_map(|body| lines(&body.payload)).collect())
}

/// Points of plain text, without what all of them have.
#[track_caller]
fn points(keys: &str, page: &str) -> Vec<String> {
    let lines = told(&job(keys), Format::Text, page.as_bytes()).unwrap();
    lines.into_iter().filter(|line| !line.starts_with(['[', '('])).collect()
}

fn attributes(of: &[KeyValue]) -> String {
    let text = |one: &KeyValue| match one.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => format!("{}={text}", one.key),
        other => panic!("{other:?}"),
    };
    of.iter().map(text).collect::<Vec<_>>().join(",")
}

fn examples(of: &[Exemplar]) -> String {
    let mut out = String::new();
    for one in of {
        let Some(exemplar::Value::AsDouble(value)) = one.value else { panic!("{one:?}") };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let (trace, span) = (hex(&one.trace_id), hex(&one.span_id));
        write!(out, " ex({value} {} {trace}/{span} {})", one.time_unix_nano, attributes(&one.filtered_attributes)).unwrap();
    }
    out
}

/// A request in lines, by the official types: `[resource]`, `(scope)`, points.
fn lines(payload: &[u8]) -> Vec<String> {
    let request = ExportMetricsServiceRequest::decode(payload).unwrap();
    let mut out = Vec::new();
    for resource in request.resource_metrics {
        out.push(format!("[{}]", attributes(&resource.resource.unwrap().attributes)));
        for scope in resource.scope_metrics {
            let own = scope.scope.unwrap();
            let name = own.name.rsplit('/').next().unwrap_or_default();
            let version = if name == "prometheusreceiver" { "" } else { own.version.as_str() };
            out.push(format!("({name} {version} {} {})", scope.schema_url, attributes(&own.attributes)));
            for metric in scope.metrics {
                assert_eq!(metric.metadata.len(), 1);
                let unit = if metric.unit.is_empty() { String::new() } else { format!(" in {}", metric.unit) };
                let head = metric.name + &unit;
                let times = |start: u64, time: u64, flags: u32| {
                    let at = if time == NOW { String::new() } else { format!(" @{time}") };
                    let since = if start == 0 { String::new() } else { format!(" since {start}") };
                    let ended = if flags == 1 { " ended" } else { "" };
                    format!("{since}{at}{ended}")
                };
                let number = |value: Option<Value>| match value {
                    Some(Value::AsDouble(value)) => format!("{value}"),
                    None => "-".to_owned(),
                    other => panic!("{other:?}"),
                };
                match metric.data.unwrap() {
                    Data::Gauge(gauge) => out.extend(gauge.data_points.into_iter().map(|one| {
                        let end = times(one.start_time_unix_nano, one.time_unix_nano, one.flags) + &examples(&one.exemplars);
                        format!("gauge {head} {{{}}} {}{end}", attributes(&one.attributes), number(one.value))
                    })),
                    Data::Sum(sum) => {
                        assert_eq!(sum.aggregation_temporality, 2);
                        let kind = if sum.is_monotonic { "counter" } else { "level" };
                        out.extend(sum.data_points.into_iter().map(|one| {
                            let end = times(one.start_time_unix_nano, one.time_unix_nano, one.flags) + &examples(&one.exemplars);
                            format!("{kind} {head} {{{}}} {}{end}", attributes(&one.attributes), number(one.value))
                        }));
                    }
                    Data::Histogram(histogram) => {
                        assert_eq!(histogram.aggregation_temporality, 2);
                        out.extend(histogram.data_points.into_iter().map(|one| {
                            let end = times(one.start_time_unix_nano, one.time_unix_nano, one.flags) + &examples(&one.exemplars);
                            let (bounds, counts) = (&one.explicit_bounds, &one.bucket_counts);
                            let of = attributes(&one.attributes);
                            format!("histogram {head} {{{of}}} {} {:?} {bounds:?} {counts:?}{end}", one.count, one.sum)
                        }));
                    }
                    Data::ExponentialHistogram(histogram) => {
                        assert_eq!(histogram.aggregation_temporality, 2);
                        out.extend(histogram.data_points.into_iter().map(|one| {
                            let end = times(one.start_time_unix_nano, one.time_unix_nano, one.flags) + &examples(&one.exemplars);
                            let side = |side: Option<
                                opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets,
                            >| {
                                side.map_or_else(|| "-".to_owned(), |side| format!("{}{:?}", side.offset, side.bucket_counts))
                            };
                            let zero = format!("{}<={}", one.zero_count, one.zero_threshold);
                            let of = attributes(&one.attributes);
                            let (positive, negative) = (side(one.positive), side(one.negative));
                            format!(
                                "exponential {head} {{{of}}} {} {:?} {} {zero} {positive} {negative}{end}",
                                one.count, one.sum, one.scale
                            )
                        }));
                    }
                    Data::Summary(summary) => out.extend(summary.data_points.into_iter().map(|one| {
                        let end = times(one.start_time_unix_nano, one.time_unix_nano, one.flags);
                        let parts: Vec<_> = one.quantile_values.iter().map(|one| (one.quantile, one.value)).collect();
                        format!("summary {head} {{{}}} {} {} {parts:?}{end}", attributes(&one.attributes), one.count, one.sum)
                    })),
                }
            }
        }
    }
    out
}
