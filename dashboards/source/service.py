"""One service: what it answers by operation, how long that takes with links to traces, what it calls, where it runs."""

from . import alerts
from .grafana import JAEGER, Dashboard, column, datasource, heatmap, link, override, query, query_variable, stat, steps, table, timeseries
from .red import ANSWERED, CALLED, ONE_SERVICE, SOME_SERVICES, buckets, error_share, failures, family, namespace, quantile, rate, service
from .services import ERRORS, SECONDS, coloured

UID = "weir-service"

OPERATION = query_variable(
    "operation",
    "Operation",
    "Names of spans with which the service answers.",
    f"label_values(${{family}}_calls_total{{{ONE_SERVICE},{ANSWERED}}}, span_name)",
    multi=True,
    all_value=".*",
)
ONE = (ONE_SERVICE, SOME_SERVICES, ANSWERED, 'span_name=~"$operation"')
OUT = (ONE_SERVICE, SOME_SERVICES, CALLED)


def _traces(title, description, **search):
    """A search in Jaeger; a row is a trace, a click opens it."""
    target = {"refId": "A", "datasource": JAEGER, "queryType": "search", "service": "$service", "limit": 20, **search}
    panel = table(title, description, [target], "none", rename={}, order=[], transformations=())
    return {**panel, "transformations": []}


def dashboard():
    d = Dashboard(
        UID,
        "weir / Service",
        "One service: rate, errors and durations by operation, single traces, what it calls, and where it runs.",
        [datasource("prometheus"), datasource("jaeger"), *family(), namespace(), service(multi=False), OPERATION],
        tags=["red"],
        annotations=alerts.ANNOTATIONS,
    )
    logs = link("Its logs", "/d/weir-logs?var-service=${service}&${__url_time_range}")
    objectives = link("Its objectives", "/d/weir-slo?${service:queryparam}&${prometheus_datasource:queryparam}&${__url_time_range}")
    d.add(
        4,
        4,
        stat("Calls", "Calls that the service answered, each second.", query(rate("", *ONE), "calls"), "reqps"),
        stat("Errors", "The share of its calls that ended in an error. Click for its logs.", query(error_share("", *ONE), "errors"), "percentunit", ERRORS, links=[logs]),
        stat("p50", "Half of its calls take longer than this.", query(quantile(0.5, "", *ONE), "p50"), "s", SECONDS),
        stat("p95", "One call in twenty takes longer than this.", query(quantile(0.95, "", *ONE), "p95"), "s", SECONDS),
        stat("p99", "One call in a hundred takes longer than this.", query(quantile(0.99, "", *ONE), "p99"), "s", SECONDS),
        stat(
            "Error budget burns",
            "How many times too fast the error budget of 30 days is used up, over the last hour: 1 is just right, from 14.4 on someone is woken. By the rules of dashboards/rules.",
            query('max(service:slo_availability:burn1h{service_name=~"$service"})', "burn"),
            "none",
            steps("green", (1, "orange"), (14.4, "red")),
            links=[objectives],
        ),
    )
    by = "span_name"
    d.add(
        8,
        9,
        timeseries("Calls by operation", "Calls that the service answered, each second.", query(rate(by, *ONE), "{{span_name}}"), "reqps"),
        timeseries(
            "Errors by operation",
            "The share of calls that ended in an error. The line is at 5 %.",
            query(error_share(by, *ONE), "{{span_name}}"),
            "percentunit",
            steps("transparent", (0.05, "red")),
            lines=True,
        ),
        timeseries(
            "p95 by operation",
            "One call in twenty takes longer than this. The line is at 1 s.",
            query(quantile(0.95, by, *ONE), "{{span_name}}"),
            "s",
            steps("transparent", (1, "red")),
            lines=True,
        ),
    )
    d.add(
        12,
        10,
        heatmap(
            "How long calls take, in ${latency_unit}",
            "How many calls took how long. Dots are single traces; a click leads to the trace.",
            [query(buckets("le", *ONE), "{{le}}", heatmap=True, exemplars=True)],
            "none",
        ),
        timeseries(
            "p50, p95, p99",
            "Durations of all chosen operations together.",
            [query(quantile(share, "", *ONE), f"p{share * 100:g}", ref=ref) for share, ref in ((0.5, "A"), (0.95, "B"), (0.99, "C"))],
            "s",
        ),
    )
    values = {"Value #A": "Calls", "Value #B": "Errors", "Value #C": "Failed calls", "Value #D": "p50", "Value #E": "p95", "Value #F": "p99"}
    d.add(
        24,
        8,
        table(
            "Operations",
            "Every operation over the time that is shown.",
            [
                column("A", rate(by, *ONE, over="$__range")),
                column("B", error_share(by, *ONE, over="$__range")),
                column("C", f"{failures(by, *ONE, over='$__range')} * $__range_s"),
                column("D", quantile(0.5, by, *ONE, over="$__range")),
                column("E", quantile(0.95, by, *ONE, over="$__range")),
                column("F", quantile(0.99, by, *ONE, over="$__range")),
            ],
            "s",
            rename={"span_name": "Operation", **values},
            order=["span_name", *values],
            sort="Failed calls",
            overrides=[
                override("Operation", ("custom.minWidth", 240), ("links", [link("Only this operation", "/d/weir-service?var-operation=${__data.fields.Operation:percentencode}&${service:queryparam}&${namespace:queryparam}&${prometheus_datasource:queryparam}&${family:queryparam}&${__url_time_range}")])),
                override("Calls", ("unit", "reqps")),
                override("Failed calls", ("unit", "none"), ("decimals", 0)),
                coloured("Errors", "percentunit", ERRORS),
                coloured("p95", "s", SECONDS),
            ],
        ),
    )
    d.row("What it calls: other services, databases, queues")
    d.add(
        8,
        9,
        timeseries("Calls to others", "Spans of kind CLIENT and PRODUCER, each second, by their names.", query(rate(by, *OUT), "{{span_name}}"), "reqps"),
        timeseries(
            "Errors of others",
            "The share of these that ended in an error. Like the errors above: the trouble is below this service.",
            query(error_share(by, *OUT), "{{span_name}}"),
            "percentunit",
            steps("transparent", (0.05, "red")),
            lines=True,
        ),
        timeseries("p95 of others", "How long this service waits: one call in twenty takes longer.", query(quantile(0.95, by, *OUT), "{{span_name}}"), "s"),
    )
    d.row("Where it runs")
    d.add(
        24,
        5,
        table(
            "Processes",
            "What reports metrics under the name of this service: instances, versions and hosts, from target_info.",
            [column("A", 'target_info{job=~"(.+/)?$service"}')],
            "none",
            rename={"instance": "Instance", "service_version": "Version", "host_name": "Host", "deployment_environment_name": "Environment", "telemetry_sdk_language": "Language", "process_pid": "Process"},
            order=["instance", "service_version", "host_name", "deployment_environment_name", "telemetry_sdk_language", "process_pid"],
            hide=["Value", "__name__", "job", "telemetry_sdk_name", "telemetry_sdk_version", "process_executable_name"],
            empty="this service sends no metrics of its own",
        ),
    )
    d.row("Traces, in Jaeger", collapsed=True)
    d.add(
        12,
        10,
        _traces("Traces with errors", "The last twenty traces of the service in which something failed.", tags="error=true"),
        _traces("Slow traces", "The last twenty traces of the service that took longer than a second.", minDuration="1s"),
    )
    return d.model()
