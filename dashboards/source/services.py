"""All services: who fails, who is slow, who is gone. Where a person who was woken looks first."""

from . import alerts
from .grafana import Dashboard, column, datasource, heatmap, link, override, query, stat, steps, table, timeseries
from .red import ANSWERED, SOME_SERVICES, buckets, error_share, failures, family, namespace, quantile, rate

UID = "weir-services"

ALL = (SOME_SERVICES, ANSWERED)
EACH = "${label}, service_namespace"
# The recording rules and the alert on errors begin to look at 5 %; the budget of 99.9 % is hurt from 0.1 % on.
ERRORS = steps("green", (0.01, "orange"), (0.05, "red"))
SECONDS = steps("green", (0.5, "orange"), (1, "red"))

TO_SERVICE = link(
    "Look at ${__data.fields.Service}",
    "/d/weir-service?var-service=${__data.fields.Service:percentencode}&${prometheus_datasource:queryparam}&${family:queryparam}&${latency:queryparam}&${__url_time_range}",
)
TO_SERVICE_OF_LINE = link(
    "Look at ${__series.name}",
    "/d/weir-service?var-service=${__series.name:percentencode}&${prometheus_datasource:queryparam}&${family:queryparam}&${latency:queryparam}&${__url_time_range}",
)
SERVICE_FIELDS = {"service_name": "Service", "service": "Service", "service_namespace": "Namespace"}


def coloured(name, unit, thresholds):
    return override(name, ("unit", unit), ("thresholds", thresholds), ("custom.cellOptions", {"type": "color-background", "mode": "basic"}))


def dashboard():
    d = Dashboard(
        UID,
        "weir / Services",
        "Rate, errors and durations of every service that weir sees. What stands first fails most.",
        [datasource("prometheus"), *family(), namespace()],
        tags=["red"],
        annotations=alerts.ANNOTATIONS,
    )
    d.add(
        4,
        4,
        stat(
            "Failing services",
            "Services of which more than 5 % of the calls ended in an error.",
            query(f"count({error_share(EACH, *ALL)} > 0.05) or vector(0)", "services"),
            "none",
            steps("green", (1, "red")),
        ),
        stat("Errors", "The share of the calls that services answered that ended in an error.", query(error_share("", *ALL), "errors"), "percentunit", ERRORS),
        stat("Slow calls", "One call in twenty takes longer than this (p95 over all services).", query(quantile(0.95, "", *ALL), "p95"), "s", SECONDS),
        stat("Calls", "Calls that services answered, each second: spans of kind SERVER and CONSUMER.", query(rate("", *ALL), "calls"), "reqps"),
        stat(
            "Services",
            "Services that answered at least one call. Fewer than usual: one is down, or does not reach weir (the alert WeirServiceVanished names it).",
            query(f"count({rate(EACH, *ALL)} > 0) or vector(0)", "services"),
            "none",
        ),
        stat(
            "Oldest undelivered",
            "How old the oldest data is that weir has taken and not yet delivered. What backends show is as old. Above ten minutes WeirExporterLag fires.",
            query("max(weir_consumer_lag_seconds)", "age"),
            "s",
            steps("green", (60, "orange"), (600, "red")),
            links=[link("weir itself", "/d/weir-self?${prometheus_datasource:queryparam}&${__url_time_range}")],
        ),
    )
    d.add(24, 5, alerts.firing())
    worst = [
        column("A", rate(EACH, *ALL, over="$__range")),
        column("B", error_share(EACH, *ALL, over="$__range")),
        column("C", quantile(0.5, EACH, *ALL, over="$__range")),
        column("D", quantile(0.95, EACH, *ALL, over="$__range")),
        column("E", quantile(0.99, EACH, *ALL, over="$__range")),
        column("F", f"{rate(EACH, *ALL)} / ({rate(EACH, *ALL, offset=' offset 1h')} > 0) - 1"),
    ]
    values = {"Value #A": "Calls", "Value #B": "Errors", "Value #C": "p50", "Value #D": "p95", "Value #E": "p99", "Value #F": "Against 1 h before"}
    d.add(
        24,
        10,
        table(
            "Services, worst first",
            "Each service over the time that is shown; the last column holds its calls of now against those of an hour before. A click on a name leads to the service.",
            worst,
            "s",
            rename={**SERVICE_FIELDS, **values},
            order=["service_name", "service", "service_namespace", *values],
            sort="Errors",
            overrides=[
                override("Service", ("links", [TO_SERVICE]), ("custom.minWidth", 180)),
                override("Calls", ("unit", "reqps")),
                coloured("Errors", "percentunit", ERRORS),
                coloured("p95", "s", SECONDS),
                override("Against 1 h before", ("unit", "percentunit"), ("decimals", 0)),
            ],
        ),
    )
    clickable = {"links": [TO_SERVICE_OF_LINE]}
    d.add(
        8,
        9,
        timeseries("Calls by service", "Calls that each service answered, each second.", query(rate("${label}", *ALL), "{{service_name}}{{service}}"), "reqps", defaults=clickable),
        timeseries(
            "Errors by service",
            "The share of each service's calls that ended in an error. The line is at 5 %, where WeirServiceErrors fires.",
            query(error_share("${label}", *ALL), "{{service_name}}{{service}}"),
            "percentunit",
            steps("transparent", (0.05, "red")),
            lines=True,
            defaults=clickable,
        ),
        timeseries(
            "p95 by service",
            "One call in twenty of each service takes longer than this. The line is at 1 s, where WeirServiceSlow fires.",
            query(quantile(0.95, "${label}", *ALL), "{{service_name}}{{service}}"),
            "s",
            steps("transparent", (1, "red")),
            lines=True,
            defaults=clickable,
        ),
    )
    d.row("Which calls")
    operation = "${label}, span_name"
    fields = {"service_name": "Service", "service": "Service", "span_name": "Operation"}
    d.add(
        12,
        9,
        table(
            "Operations that fail most",
            "The fifteen operations with the most failed calls in the time that is shown.",
            [column("A", f"topk(15, sum by ({operation}) (increase(${{family}}_calls_total{{{SOME_SERVICES},{ANSWERED},status_code=\"STATUS_CODE_ERROR\"}}[$__range])) > 0)")],
            "none",
            rename={**fields, "Value": "Failed calls"},
            order=["service_name", "service", "span_name", "Value"],
            sort="Failed calls",
            overrides=[
                override("Service", ("links", [TO_SERVICE])),
                override("Failed calls", ("decimals", 0), ("custom.cellOptions", {"type": "gauge", "mode": "gradient"}), ("color", {"mode": "fixed", "fixedColor": "red"})),
            ],
            empty="no call failed",
        ),
        table(
            "Operations that are slowest",
            "The fifteen operations with the highest p95 in the time that is shown.",
            [column("A", f"topk(15, {quantile(0.95, operation, *ALL, over='$__range')} > 0)")],
            "s",
            rename={**fields, "Value": "p95"},
            order=["service_name", "service", "span_name", "Value"],
            sort="p95",
            overrides=[
                override("Service", ("links", [TO_SERVICE])),
                override("p95", ("custom.cellOptions", {"type": "gauge", "mode": "gradient"}), ("color", {"mode": "continuous-GrYlRd"})),
            ],
        ),
    )
    d.add(
        24,
        10,
        heatmap(
            "How long calls take, in ${latency_unit}",
            "How many calls of all services took how long. Dots are single traces; a click leads to the trace.",
            [query(buckets("le", *ALL), "{{le}}", heatmap=True, exemplars=True)],
            "none",
        ),
    )
    d.row("What services call")
    d.add(
        12,
        9,
        timeseries(
            "Failed calls by service",
            "Failed calls, each second, where they were answered: how much the error share weighs.",
            query(failures("${label}", *ALL), "{{service_name}}{{service}}"),
            "reqps",
            stacked=True,
        ),
        timeseries(
            "Calls to others that failed, by caller",
            "Spans of kind CLIENT and PRODUCER that ended in an error, each second: who notices that another fails, databases and queues included.",
            query(failures("${label}", SOME_SERVICES, 'span_kind=~"SPAN_KIND_(CLIENT|PRODUCER)"'), "{{service_name}}{{service}}"),
            "reqps",
            stacked=True,
        ),
    )
    return d.model()
