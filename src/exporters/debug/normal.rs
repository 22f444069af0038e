//! `verbosity: normal`: an item a line.

use super::{
    detailed::exponential,
    text::{fixed, general, hex, number, plain, write},
};
use crate::otlp::view::{
    AttributesView, DataView, ExponentialHistogramPointView, HistogramPointView, LogsView, MetricsView, NumberPointView,
    ResourceView, ScopeView, SummaryPointView, TracesView,
};

pub(super) fn traces(payload: &[u8]) -> String {
    let mut out = String::new();
    for (i, resource) in TracesView::new(payload).resources().enumerate() {
        resource_line(&mut out, "ResourceTraces", i, resource.schema_url(), &resource.resource());
        for scope in resource.scopes() {
            scope_line(&mut out, "ScopeTraces", i, scope.schema_url(), &scope.scope());
            for span in scope.items() {
                out.push_str(span.name);
                out.push(' ');
                hex(&mut out, span.trace_id);
                out.push(' ');
                hex(&mut out, span.span_id);
                pairs(&mut out, span.attributes);
                out.push('\n');
            }
        }
    }
    out
}

pub(super) fn logs(payload: &[u8]) -> String {
    let mut out = String::new();
    for (i, resource) in LogsView::new(payload).resources().enumerate() {
        resource_line(&mut out, "ResourceLog", i, resource.schema_url(), &resource.resource());
        for scope in resource.scopes() {
            scope_line(&mut out, "ScopeLog", i, scope.schema_url(), &scope.scope());
            for record in scope.items() {
                plain(&mut out, record.body());
                if record.attributes.is_empty() {
                    out.push(' ');
                }
                pairs(&mut out, record.attributes);
                out.push('\n');
            }
        }
    }
    out
}

pub(super) fn metrics(payload: &[u8]) -> String {
    let mut out = String::new();
    for (i, resource) in MetricsView::new(payload).resources().enumerate() {
        resource_line(&mut out, "ResourceMetrics", i, resource.schema_url(), &resource.resource());
        for scope in resource.scopes() {
            scope_line(&mut out, "ScopeMetrics", i, scope.schema_url(), &scope.scope());
            for metric in scope.items() {
                match metric.data {
                    DataView::None => {}
                    DataView::Gauge { points } | DataView::Sum { points, .. } => {
                        points.iter().for_each(|point| number_line(&mut out, metric.name, &point));
                    }
                    DataView::Histogram { points, .. } => {
                        points.iter().for_each(|point| histogram_line(&mut out, metric.name, &point));
                    }
                    DataView::ExponentialHistogram { points, .. } => {
                        points.iter().for_each(|point| exponential_line(&mut out, metric.name, &point));
                    }
                    DataView::Summary { points } => points.iter().for_each(|point| summary_line(&mut out, metric.name, &point)),
                }
            }
        }
    }
    out
}

fn resource_line(out: &mut String, label: &str, at: usize, schema_url: &str, resource: &ResourceView<'_>) {
    write(out, format_args!("{label} #{at}"));
    schema(out, schema_url);
    pairs(out, resource.attributes);
    out.push('\n');
}

/// `at` is the number of the resource, not of the scope: so the Collector counts here.
fn scope_line(out: &mut String, label: &str, at: usize, schema_url: &str, scope: &ScopeView<'_>) {
    write(out, format_args!("{label} #{at}"));
    if !scope.name.is_empty() || !scope.version.is_empty() {
        out.push(' ');
        out.push_str(scope.name);
    }
    if !scope.version.is_empty() {
        out.push('@');
        out.push_str(scope.version);
    }
    schema(out, schema_url);
    pairs(out, scope.attributes);
    out.push('\n');
}

fn schema(out: &mut String, url: &str) {
    if !url.is_empty() {
        write(out, format_args!(" [{url}]"));
    }
}

/// ` a=1 b=2`
fn pairs(out: &mut String, attributes: AttributesView<'_>) {
    for attribute in attributes.iter() {
        write(out, format_args!(" {}=", attribute.key()));
        plain(out, attribute.value());
    }
}

/// `name{a=1,b=2} `
fn series(out: &mut String, name: &str, attributes: AttributesView<'_>) {
    out.push_str(name);
    out.push('{');
    for (at, attribute) in attributes.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(out, format_args!("{}=", attribute.key()));
        plain(out, attribute.value());
    }
    out.push_str("} ");
}

fn number_line(out: &mut String, name: &str, point: &NumberPointView<'_>) {
    series(out, name, point.attributes);
    number(out, point.value, general);
    out.push('\n');
}

fn spread(out: &mut String, sum: Option<f64>, min: Option<f64>, max: Option<f64>) {
    for (label, value) in [(" sum=", sum), (" min=", min), (" max=", max)] {
        if let Some(value) = value {
            out.push_str(label);
            general(out, value);
        }
    }
}

fn histogram_line(out: &mut String, name: &str, point: &HistogramPointView<'_>) {
    series(out, name, point.attributes);
    write(out, format_args!("count={}", point.count));
    spread(out, point.sum, point.min, point.max);
    let mut bounds = point.explicit_bounds.doubles();
    for count in point.bucket_counts.iter() {
        out.push(' ');
        // The last bucket has no bound.
        if let Some(bound) = bounds.next() {
            out.push_str("le");
            general(out, bound);
            out.push('=');
        }
        write(out, format_args!("{count}"));
    }
    out.push('\n');
}

fn exponential_line(out: &mut String, name: &str, point: &ExponentialHistogramPointView<'_>) {
    series(out, name, point.attributes);
    write(out, format_args!("count={}", point.count));
    spread(out, point.sum, point.min, point.max);
    let mut negative: Vec<_> = exponential(point.scale, point.negative.offset, point.negative.bucket_counts.iter()).collect();
    negative.reverse();
    for (lower, _, count) in negative {
        bucket(out, -lower, count);
    }
    if point.zero_count > 0 {
        write(out, format_args!(" zero={}", point.zero_count));
    }
    for (_, upper, count) in exponential(point.scale, point.positive.offset, point.positive.bucket_counts.iter()) {
        bucket(out, upper, count);
    }
    out.push('\n');
}

fn bucket(out: &mut String, bound: f64, count: u64) {
    out.push_str(" le");
    general(out, bound);
    write(out, format_args!("={count}"));
}

fn summary_line(out: &mut String, name: &str, point: &SummaryPointView<'_>) {
    series(out, name, point.attributes);
    write(out, format_args!("count={} sum=", point.count));
    fixed(out, point.sum);
    for quantile in point.quantiles() {
        out.push_str(" q");
        general(out, quantile.quantile);
        out.push('=');
        general(out, quantile.value);
    }
    out.push('\n');
}
