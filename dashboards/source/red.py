"""Rates, errors and durations as queries, in whichever family of names Prometheus has them.

The family is a variable. What follows from it (the label of the service, the metric of durations and its unit) are variables, too, so that
a panel reads the same whether the names are the Collector's or Tempo's, in milliseconds or seconds, in classic buckets or native histograms.
"""

from . import grafana

ANSWERED = 'span_kind=~"SPAN_KIND_(SERVER|CONSUMER)"'
CALLED = 'span_kind=~"SPAN_KIND_(CLIENT|PRODUCER)"'
FAILED = 'status_code="STATUS_CODE_ERROR"'
ONE_SERVICE = '${label}=~"$service"'
SOME_SERVICES = 'service_namespace=~"$namespace"'


def family():
    return [
        grafana.custom(
            "family",
            "Names",
            "Which of weir's two families of names is read: the Collector's (Jaeger reads the same) or Tempo's. A namespace of your own can be typed in.",
            [("Collector", "traces_span_metrics"), ("Tempo", "traces_spanmetrics")],
        ),
        grafana.derived("label", "Service label", "What the family calls a service.", "family", "traces_spanmetrics", "service", "service_name"),
        grafana.query_variable(
            "latency",
            "Durations",
            "The metric of durations: in milliseconds or seconds, in classic buckets (…_bucket) or as a native histogram.",
            'label_values({__name__=~"${family}_(duration_milliseconds|duration_seconds|latency)(_bucket)?"}, __name__)',
        ),
        grafana.derived("divisor", "Per second", "What makes seconds of that metric.", "latency", ".*_milliseconds.*", "1000", "1"),
        grafana.derived("latency_unit", "Unit", "The unit of that metric.", "latency", ".*_milliseconds.*", "milliseconds", "seconds"),
    ]


def namespace():
    return grafana.query_variable(
        "namespace",
        "Namespace",
        "service.namespace of the services; All has those without one, too.",
        "label_values(${family}_calls_total, service_namespace)",
        multi=True,
        all_value=".*",
    )


def service(multi):
    return grafana.query_variable(
        "service",
        "Service",
        "service.name.",
        'label_values(${family}_calls_total{service_namespace=~"$namespace"}, ${label})',
        multi=multi,
        all_value=".+" if multi else None,
    )


def calls(*matchers, over="$__rate_interval", offset=""):
    """Calls a second of each row."""
    return f"rate(${{family}}_calls_total{{{','.join(matchers)}}}[{over}]{offset})"


def rate(by, *matchers, over="$__rate_interval", offset=""):
    return f"sum by ({by}) ({calls(*matchers, over=over, offset=offset)})"


def failures(by, *matchers, over="$__rate_interval"):
    """Failed calls a second. Who has no failures has no series of them: 0."""
    return f"({rate(by, *matchers, FAILED, over=over)} or 0 * {rate(by, *matchers, over=over)})"


def error_share(by, *matchers, over="$__rate_interval"):
    return f"{failures(by, *matchers, over=over)} / ({rate(by, *matchers, over=over)} > 0)"


def quantile(share, by, *matchers, over="$__rate_interval"):
    """In seconds. Native histograms have no `le`, and need none."""
    return f"histogram_quantile({share}, {buckets(f'{by}, le' if by else 'le', *matchers, over=over)}) / $divisor"


def buckets(by, *matchers, over="$__rate_interval"):
    return f"sum by ({by}) (rate(${{latency}}{{{','.join(matchers)}}}[{over}]))"
