//! The components of the OpenTelemetry Collector (core and contrib), so that a component weir does not have is not taken for a typo, and
//! its absence can be answered with advice.
//!
//! Names are compared without underscores: components are being renamed (`filelog` → `file_log`), and both spellings are meant.

/// The sections of a file that hold components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Receiver,
    Processor,
    Connector,
    Exporter,
    Extension,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Receiver, Self::Processor, Self::Connector, Self::Exporter, Self::Extension];

    /// `receiver`
    pub const fn word(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Processor => "processor",
            Self::Connector => "connector",
            Self::Exporter => "exporter",
            Self::Extension => "extension",
        }
    }

    /// `a receiver`, `an exporter`
    pub const fn one(self) -> &'static str {
        match self {
            Self::Receiver => "a receiver",
            Self::Processor => "a processor",
            Self::Connector => "a connector",
            Self::Exporter => "an exporter",
            Self::Extension => "an extension",
        }
    }

    /// `receivers`: the key of the section.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Receiver => "receivers",
            Self::Processor => "processors",
            Self::Connector => "connectors",
            Self::Exporter => "exporters",
            Self::Extension => "extensions",
        }
    }
}

/// A component of the Collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub name: &'static str,
    /// What weir offers instead, or what else one can do.
    pub advice: &'static str,
    /// Without it data leaves that would have been removed, masked or sampled away.
    pub protects: bool,
}

/// The Collector component of this kind and type, by its older or newer name.
pub fn known(kind: Kind, type_name: &str) -> Option<Known> {
    let same = |name: &str| folded(name).eq(folded(type_name));
    let (special, plain, advice) = table(kind);
    let row = special.iter().find(|(name, ..)| same(name));
    if let Some(&(name, protects, advice)) = row {
        return Some(Known { name, advice, protects });
    }
    plain.split_ascii_whitespace().find(|name| same(name)).map(|name| Known { name, advice, protects: false })
}

fn folded(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|&letter| letter != '_')
}

type Row = (&'static str, bool, &'static str);

/// Components with advice of their own, the others, and the advice for those.
const fn table(kind: Kind) -> (&'static [Row], &'static str, &'static str) {
    match kind {
        Kind::Receiver => (RECEIVERS, OTHER_RECEIVERS, "keep a Collector for it that sends OTLP to weir's `otlp` receiver"),
        Kind::Processor => (PROCESSORS, OTHER_PROCESSORS, "keep a Collector with it before or behind weir; both speak OTLP"),
        Kind::Connector => (CONNECTORS, OTHER_CONNECTORS, "keep a Collector with it behind weir's `otlp_grpc` exporter"),
        Kind::Exporter => (
            EXPORTERS,
            OTHER_EXPORTERS,
            "send OTLP with `otlp_grpc` or `otlp_http` where the backend takes it, or to a Collector that has this exporter",
        ),
        Kind::Extension => (EXTENSIONS, OTHER_EXTENSIONS, "weir runs without it; leave it out of `service::extensions`"),
    }
}

const SDKS_SPEAK_OTLP: &str = "let the senders speak OTLP to the `otlp` receiver; today's SDKs do so by default";
const AGENT: &str = "keep a Collector agent on the machine for it that sends OTLP to weir's `otlp` receiver";

const RECEIVERS: &[Row] = &[
    ("jaeger", false, SDKS_SPEAK_OTLP),
    ("opencensus", false, SDKS_SPEAK_OTLP),
    ("skywalking", false, SDKS_SPEAK_OTLP),
    (
        "prometheus_simple",
        false,
        "the `prometheus` receiver scrapes the same target: `config: {scrape_configs: [{job_name: …}]}`",
    ),
    ("prometheus_remote_write", false, "let the senders write to Prometheus itself"),
    ("filelog", false, AGENT),
    ("journald", false, AGENT),
    ("kubeletstats", false, AGENT),
    ("docker_stats", false, AGENT),
    ("otelarrow", false, "its senders can send plain OTLP to the `otlp` receiver"),
    ("nop", false, "leave it out: a pipeline without data needs no receiver"),
];

const OTHER_RECEIVERS: &str = "otlp hostmetrics active_directory_ds aerospike apache apachespark awscloudwatch awscontainerinsight awscontainerinsightreceiver \
    awsecscontainermetrics awsfirehose awslambda awss3 awsxray azureblob azureeventhub azuremonitor azure_functions bigip carbon chrony \
    ciscoos cloudflare cloudfoundry collectd couchdb datadog docker_observer elasticsearch envoyals expvar faro filestats flinkmetrics \
    fluentforward foundationdb github gitlab gitprovider googlecloudmonitoring googlecloudpubsub googlecloudpubsub_push googlecloudspanner \
    haproxy hetzner httpcheck iis icmpcheck influxdb jmx k8s_cluster k8s_events k8sobjects kafka kafkametrics libhoney loki macos_unified_logging \
    memcached mongodb mongodbatlas mysql namedpipe netflow nfs nginx nsxt ntp oracledb osquery otlpjsonfile podman_stats podman postgresql \
    pprof pressurestallinformation profiling promtail pulsar purefa purefb rabbitmq receiver_creator redfish redis riak sapm saphana signalfx \
    simpleprometheus snmp snowflake solace splunk_hec splunkenterprise sqlquery sqlserver sshcheck statsd stef systemd syslog tcpcheck \
    tcplog tlscheck udplog vcenter vcr wavefront webhookevent windowseventlog windowsperfcounters windowsservice yanggrpc zipkin zookeeper";

const PROCESSORS: &[Row] = &[
    ("redaction", true, "weir does not mask data in this version: keep a Collector with `redaction` before it"),
    (
        "filter",
        true,
        "weir does not filter in this version: drop the data in the SDK, or keep a Collector with `filter` before it",
    ),
    (
        "transform",
        true,
        "`attributes` and `resource` insert, update, delete, hash and extract; what needs expressions stays with a Collector before weir",
    ),
    ("tail_sampling", true, "weir keeps every trace in this version; sample in the SDK, or in a Collector behind weir"),
    (
        "probabilistic_sampler",
        true,
        "weir keeps every trace; sample in the SDK (`OTEL_TRACES_SAMPLER`), its rates are counted rightly here",
    ),
    ("logdedup", true, "every log record is passed on"),
    ("interval", true, "every data point is passed on"),
    ("metricstransform", true, "keep a Collector with it before weir"),
    ("sumologic", true, "keep a Collector with it before weir"),
    ("unroll", false, "keep a Collector with it before weir"),
    ("span", false, "`attributes` sets attributes from others; names of spans pass as they are"),
    (
        "k8sattributes",
        false,
        "let the pods say who they are (`OTEL_RESOURCE_ATTRIBUTES` from the downward API), or keep a Collector agent with it before weir",
    ),
    ("groupbytrace", false, "spans are passed on as they come; what reads whole traces joins them itself"),
    ("spanmetrics", false, "use the connector `span_metrics`: this processor is gone from the Collector too"),
    ("servicegraph", false, "this processor is gone from the Collector too"),
    ("routing", false, "give each destination a pipeline of its own; this processor is gone from the Collector too"),
    ("queuebatch", false, "use `sending_queue::batch` of the exporter, or the `batch` processor"),
    ("cumulativetodelta", false, "cumulative points pass as they are"),
    ("deltatocumulative", false, "the `prometheus` exporter makes delta points cumulative itself"),
];

const OTHER_PROCESSORS: &str = "batch memory_limiter attributes resource resourcedetection coralogix datadogsemantics deltatorate dnslookup geoip groupbyattrs isolationforest k8s_tagger lookup \
    metricsgeneration metricstarttime experimental_metricsgeneration remotetap schema experimental_metricstransform rate_limiter ratelimit \
    elasticapm elastictrace elasticinframetrics lsminterval logs_transform";

const CONNECTORS: &[Row] = &[
    ("routing", false, "give each destination a pipeline of its own"),
    (
        "failover",
        false,
        "an exporter holds what its backend does not take now and retries; name the second backend in a pipeline of its own",
    ),
    ("roundrobin", false, "give the exporter an endpoint with several addresses (`dns:///host:port`)"),
    ("datadog", false, "use `span_metrics` for request rates, errors and durations"),
];

const OTHER_CONNECTORS: &str = "spanmetrics forward count exceptions grafanacloud metricsaslogs otlpjson servicegraph signaltometrics slowsql sum exception_metrics \
    profiletometrics spanpruning";

const EXPORTERS: &[Row] = &[
    ("jaeger", false, "Jaeger takes OTLP: use `otlp_grpc` with Jaeger's port 4317; this exporter is gone from the Collector too"),
    (
        "jaeger_thrift",
        false,
        "Jaeger takes OTLP: use `otlp_http` with Jaeger's port 4318; this exporter is gone from the Collector too",
    ),
    ("loki", false, "Loki takes OTLP: use `otlp_http` with `endpoint: http://loki:3100/otlp`"),
    ("opencensus", false, "send OTLP with `otlp_grpc`"),
    ("otelarrow", false, "send plain OTLP with `otlp_grpc`; the same backend takes it"),
    (
        "loadbalancing",
        false,
        "give `otlp_grpc` an endpoint with several addresses (`dns:///host:port`); traces are not pinned to one of them",
    ),
    ("logicmonitor", false, "send OTLP with `otlp_http`"),
    ("sapm", false, "send OTLP with `otlp_http`"),
    ("coralogix", false, "Coralogix takes OTLP: use `otlp_grpc` with its header `Authorization`"),
    ("honeycombmarker", false, "Honeycomb takes data by OTLP: use `otlp_grpc`"),
];

const OTHER_EXPORTERS: &str = "otlp otlp_grpc otlp_http debug nop file prometheus alertmanager alibabacloud_logservice awscloudwatchlogs awscloudwatchmetrics awsemf awskinesis awss3 awsxray azureblob \
    azuredataexplorer azuremonitor bmchelix carbon cassandra clickhouse datadog dataset doris dynatrace elasticsearch faro googlecloud \
    googlecloudpubsub googlecloudstorage googlemanagedprometheus humio influxdb instana kafka kinetica logzio mezmo opensearch prometheusremotewrite pulsar \
    rabbitmq sentry signalfx skywalking splunk_hec stef sumologic syslog tanzuobservability tencentcloud_logservice tinybird youtubeanalytics \
    zipkin f5 parquet";

const EXTENSIONS: &[Row] = &[
    ("memory_ballast", false, "weir has no garbage collector and needs no ballast: leave it out"),
    ("cgroupruntime", false, "weir reads the limits of its cgroup by itself: leave it out"),
    ("db_storage", false, "data waits in weir's journal: leave it out"),
    ("redis_storage", false, "data waits in weir's journal: leave it out"),
    ("oidc", false, "use `bearer_token_auth` or `basic_auth`, mutual TLS, or check tokens in a proxy before weir"),
    ("oauth2client", false, "use `bearer_token_auth` with a file that something refreshes, or `headers_setter`"),
    ("healthcheckv2", false, "use `health_check`"),
];

const OTHER_EXTENSIONS: &str = "health_check bearertokenauth basicauth headers_setter file_storage zpages pprof ack asapclient awscloudwatchmetricstreams_encoding awslogs_encoding avro_log_encoding awsproxy azure_auth azure_encoding \
    cfgarden_observer datadog docker_observer ecs_observer ecs_task_observer googlecloudlogentry_encoding googleclientauth \
    host_observer http_forwarder jaeger_encoding jaegerremotesampling json_log_encoding k8s_leader_elector k8s_observer kafkatopics_observer \
    opamp otlp_encoding remotetap sigv4auth skywalking_encoding solarwindsapmsettings sumologic text_encoding tpm xk6 zipkin_encoding \
    encoding observer oidcauth oauth2clientauth apikeyauth s3_encoding authz pebble_storage";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Kind, folded, known, table};

    #[test]
    fn knows_components_by_both_names() {
        for (kind, old, new) in [
            (Kind::Receiver, "filelog", "file_log"),
            (Kind::Receiver, "hostmetrics", "host_metrics"),
            (Kind::Processor, "k8sattributes", "k8s_attributes"),
            (Kind::Processor, "resourcedetection", "resource_detection"),
            (Kind::Exporter, "prometheusremotewrite", "prometheus_remote_write"),
            (Kind::Connector, "servicegraph", "service_graph"),
            (Kind::Extension, "basicauth", "basic_auth"),
        ] {
            assert!(known(kind, old).is_some() && known(kind, old) == known(kind, new), "{old}");
        }
        assert_eq!(known(Kind::Receiver, "otpl"), None);
        assert_eq!(known(Kind::Exporter, "filelog"), None);
    }

    #[test]
    fn what_removes_masks_or_samples_is_marked() {
        for name in ["redaction", "filter", "transform", "tail_sampling", "probabilistic_sampler", "logdedup"] {
            assert!(known(Kind::Processor, name).unwrap().protects, "{name}");
        }
        assert!(!known(Kind::Processor, "k8sattributes").unwrap().protects);
    }

    #[test]
    fn every_name_stands_once_in_its_table() {
        for kind in Kind::ALL {
            let (special, plain, _) = table(kind);
            let mut seen = HashSet::new();
            for name in special.iter().map(|(name, ..)| *name).chain(plain.split_ascii_whitespace()) {
                assert!(seen.insert(folded(name).collect::<String>()), "{kind:?} {name}");
            }
        }
    }
}
