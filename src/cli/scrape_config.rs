//! `weir scrape-config`: a Prometheus job that is right for this configuration.

use std::fmt::Write as _;

use crate::{
    config::{Node, Value},
    pipeline::File,
    signal::ComponentId,
};

/// One page that Prometheus should scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) name: String,
    /// `host:port`
    pub(super) target: String,
    pub(super) tls: bool,
    /// The page carries the labels `job` and `instance` of those who sent the data.
    pub(super) honor_labels: bool,
    pub(super) open_metrics: bool,
    /// Native histograms stand beside classic ones.
    pub(super) native: bool,
}

/// What weir says about itself, served at `endpoint`.
pub(super) fn own_job(endpoint: &str) -> Job {
    let name = "weir-own".to_owned();
    Job { name, target: target(endpoint), tls: false, honor_labels: false, open_metrics: false, native: false }
}

/// The pages of the `prometheus` exporters in `file` that some pipeline uses.
pub(super) fn jobs(file: &File, used: &[ComponentId]) -> Vec<Job> {
    let native = file.connectors.iter().filter(|declared| matches!(declared.id.type_name(), "span_metrics" | "spanmetrics")).any(
        |declared| {
            declared.node.get("native_histograms").is_some()
                || declared.node.get("histogram").is_some_and(|histogram| histogram.get("exponential").is_some())
        },
    );
    let exporters =
        file.exporters.iter().filter(|declared| declared.id.type_name() == "prometheus" && used.contains(&declared.id));
    exporters
        .map(|declared| Job {
            name: declared.id.name().map_or_else(|| "weir".to_owned(), |name| format!("weir-{name}")),
            target: target(&text(&declared.node, "endpoint")),
            tls: declared.node.get("tls").is_some(),
            honor_labels: true,
            open_metrics: matches!(declared.node.get("enable_open_metrics").map(|node| &node.value), Some(Value::Bool(true))),
            native,
        })
        .collect()
}

fn text(node: &Node, key: &str) -> String {
    match node.get(key).map(|node| &node.value) {
        Some(Value::String(text)) => text.to_string(),
        _ => String::new(),
    }
}

/// Where Prometheus finds a listener of this address: an address that means "all of them" is this machine to itself.
fn target(endpoint: &str) -> String {
    match endpoint.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("localhost:{port}"),
        _ => endpoint.to_owned(),
    }
}

/// The text to paste under a Prometheus configuration.
pub(super) fn write(jobs: &[Job]) -> String {
    let mut out = String::from(
        "# For Prometheus 2.x and 3.x. Lines that begin with `# >` are for some versions only: take out the mark where they apply.\n",
    );
    out.push_str("scrape_configs:\n");
    for job in jobs {
        write_job(&mut out, job).expect("writing to a string cannot fail");
    }
    out
}

fn write_job(out: &mut String, job: &Job) -> std::fmt::Result {
    writeln!(out, "  - job_name: {}", quoted(&job.name))?;
    if job.honor_labels {
        writeln!(
            out,
            "    # The series carry `job` and `instance` of the services that sent them. Without this line Prometheus calls them"
        )?;
        writeln!(out, "    # exported_job and exported_instance, and dashboards find nothing.")?;
        writeln!(out, "    honor_labels: true")?;
    }
    writeln!(out, "    scrape_interval: 15s")?;
    if job.tls {
        writeln!(out, "    scheme: https")?;
        writeln!(out, "    # tls_config: {{ca_file: /path/to/ca.pem}}")?;
    }
    if job.native {
        writeln!(
            out,
            "    # Native histograms come with protobuf only (2.40 and later, --enable-feature=native-histograms). A Prometheus that takes"
        )?;
        writeln!(out, "    # them leaves out the buckets that Jaeger and Grafana ask for, unless it is told to take both:")?;
        writeln!(out, "    # > scrape_classic_histograms: true         # 2.45 up to 2.x")?;
        writeln!(out, "    # > always_scrape_classic_histograms: true  # 3.0 and later")?;
        writeln!(out, "    # > scrape_native_histograms: true          # 3.8 and later, instead of the feature flag")?;
        writeln!(
            out,
            "    # > scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0, PrometheusText0.0.4]  # 2.49 and later"
        )?;
    } else if job.open_metrics {
        writeln!(
            out,
            "    # Exemplars (links from a metric to a trace) come with OpenMetrics, which Prometheus asks for by itself. It keeps them if it"
        )?;
        writeln!(out, "    # is started with --enable-feature=exemplar-storage. To be explicit:")?;
        writeln!(out, "    # > scrape_protocols: [OpenMetricsText1.0.0, PrometheusText0.0.4]  # 2.49 and later")?;
    } else if job.honor_labels {
        writeln!(out, "    # Exemplars need `enable_open_metrics: true` in the exporter.")?;
    }
    writeln!(out, "    static_configs:")?;
    writeln!(out, "      - targets: [{}]", quoted(&job.target))
}

/// YAML in double quotes, which JSON's are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            name: "weir".to_owned(),
            target: "localhost:8889".to_owned(),
            tls: false,
            honor_labels: true,
            open_metrics: true,
            native: false,
        }
    }

    #[test]
    fn keeps_the_labels_of_services_apart_from_prometheus_own() {
        let text = write(&[job()]);
        assert!(text.contains("\n    honor_labels: true\n"), "{text}");
        assert!(text.contains("targets: [\"localhost:8889\"]"), "{text}");
        assert!(text.contains("exemplar-storage"), "{text}");
        assert!(!text.contains("classic_histograms"), "{text}");
    }

    #[test]
    fn says_how_to_keep_classic_buckets_where_native_ones_are_on() {
        let text = write(&[Job { native: true, ..job() }]);
        assert!(
            text.contains("always_scrape_classic_histograms: true") && text.contains("scrape_classic_histograms: true"),
            "{text}"
        );
    }

    #[test]
    fn reaches_a_listener_on_all_addresses_by_this_machines_name() {
        assert_eq!(target("0.0.0.0:8889"), "localhost:8889");
        assert_eq!(target("[::]:8889"), "localhost:8889");
        assert_eq!(target(":8889"), "localhost:8889");
        assert_eq!(target("weir.example:1"), "weir.example:1");
    }
}
