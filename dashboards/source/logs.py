"""Logs in Elasticsearch: how many of which level, who writes them, what the errors say.

The names of fields depend on the exporter's mapping. Levels go by number, in the names of all mappings at once; the field of the service is
a variable.
"""

from .grafana import ELASTICSEARCH, EXPRESSION, Dashboard, custom, datasource, link, logs, override, stat, steps, timeseries
from .services import ERRORS

UID = "weir-logs"

# OpenTelemetry's numbers of severity: four for each level. `error` has FATAL, too.
LEVELS = [("error", 17, 24, "red"), ("warn", 13, 16, "orange"), ("info", 9, 12, "green"), ("debug", 1, 8, "blue")]
# What ecs, otel, and none and raw call the number and the trace.
NUMBERS = ("event.severity", "severity_number", "SeverityNumber")
TRACES = ("trace.id", "trace_id", "TraceId")
SERVICE = "${service_field}"


def level(low, high):
    return "(" + " OR ".join(f"{name}:[{low} TO {high}]" for name in NUMBERS) + ")"


CHOSEN = f"{SERVICE}:$service AND ($search)"
ERROR = f"{CHOSEN} AND {level(17, 24)}"
TRACED = f"{CHOSEN} AND ({' OR '.join(f'_exists_:{name}' for name in TRACES)})"


def search(query, *buckets, ref="A", hidden=False, metric="count", **settings):
    """Documents that match, counted by what `buckets` say, the last of which is time."""
    metric = {"id": "1", "type": metric, **({"settings": settings} if settings else {})}
    target = {"refId": ref, "datasource": ELASTICSEARCH, "query": query, "alias": "", "timeField": "@timestamp", "metrics": [metric], "bucketAggs": list(buckets)}
    return {**target, "hide": True} if hidden else target


TIME = {"id": "2", "type": "date_histogram", "field": "@timestamp", "settings": {"interval": "auto", "min_doc_count": "0", "trimEdges": "0"}}
BY_SERVICE = {"id": "3", "type": "terms", "field": SERVICE, "settings": {"min_doc_count": "1", "order": "desc", "orderBy": "_count", "size": "20"}}
BY_LEVEL = {"id": "3", "type": "filters", "settings": {"filters": [{"query": level(low, high), "label": name} for name, low, high, _ in LEVELS]}}


def expression(ref, kind, text, **more):
    """What Grafana's server counts from other queries: `math` or `reduce`."""
    return {"refId": ref, "datasource": EXPRESSION, "type": kind, "expression": text, **more}


def share(part):
    """The share of all lines, over the whole range."""
    return [
        search(part, TIME, ref="A", hidden=True),
        search(CHOSEN, TIME, ref="B", hidden=True),
        expression("C", "reduce", "A", reducer="sum", hide=True),
        expression("D", "reduce", "B", reducer="sum", hide=True),
        expression("E", "math", "$C / $D"),
    ]


def dashboard():
    service_field = custom(
        "service_field",
        "Mapping",
        "The mapping of the exporter elasticsearch, which says what the field of the service is called.",
        # Not `otel` in OpenSearch: its attributes are a flat_object, by whose parts OpenSearch cannot count.
        [("ecs, or otel in Elasticsearch", "service.name"), ("none or raw", "Resource.service.name")],
    )
    find = '{"find": "terms", "field": "${service_field}", "size": 500}'
    service = {
        "name": "service",
        "label": "Service",
        "description": "service.name.",
        "type": "query",
        "datasource": ELASTICSEARCH,
        "query": find,
        "regex": "",
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": "*",
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    words = {
        "name": "search",
        "label": "Search",
        "description": "In Lucene's language: words of the message, or field:value.",
        "type": "textbox",
        "query": "*",
        "hide": 0,
        "options": [{"text": "*", "value": "*", "selected": True}],
        "current": {"text": "*", "value": "*"},
    }
    d = Dashboard(
        UID,
        "weir / Logs",
        "How many log lines of which level each service writes, what share are errors, and what they say. Over Elasticsearch, as weir's exporter writes it.",
        [datasource("elasticsearch"), service_field, service, words],
        tags=["logs"],
    )
    d.add(
        6,
        4,
        stat("Lines", "Log lines of the chosen services in the time that is shown.", search(CHOSEN, TIME), "short", calc="sum"),
        stat("Errors", "Lines of the levels ERROR and FATAL.", search(ERROR, TIME), "short", steps("green", (1, "red")), calc="sum", empty="0"),
        stat("Share of errors", "The share of lines that are of the levels ERROR and FATAL.", share(ERROR), "percentunit", ERRORS, sparkline=False),
        stat(
            "Lines with a trace",
            "The share of lines that name a trace. A click on the id of such a line leads to the trace; the others tell their story alone.",
            share(TRACED),
            "percentunit",
            steps("orange", (0.5, "green")),
            sparkline=False,
        ),
    )
    colours = [override(name, ("color", {"mode": "fixed", "fixedColor": colour})) for name, _, _, colour in LEVELS]
    to_service = link("Look at ${__series.name}", "/d/weir-service?var-service=${__series.name:percentencode}&${__url_time_range}")
    d.add(
        12,
        9,
        timeseries("Lines by level", "How many lines of which level.", search(CHOSEN, BY_LEVEL, TIME), "short", stacked=True, bars=True, overrides=colours),
        timeseries("Errors by service", "Lines of the levels ERROR and FATAL, by service. A click leads to the service.", search(ERROR, BY_SERVICE, TIME), "short", stacked=True, bars=True, defaults={"links": [to_service]}, empty="no errors"),
        timeseries("Lines by service", "The twenty services that write most.", search(CHOSEN, BY_SERVICE, TIME), "short", stacked=True, bars=True),
        timeseries(
            "Share of errors by service",
            "The share of each service's lines that are of the levels ERROR and FATAL.",
            [search(ERROR, BY_SERVICE, TIME, ref="A", hidden=True), search(CHOSEN, BY_SERVICE, TIME, ref="B", hidden=True), expression("C", "math", "$A / $B")],
            "percentunit",
            empty="no errors",
        ),
    )
    d.add(24, 14, logs("Latest errors", "The last lines of the levels ERROR and FATAL. Open one for its fields; its trace is linked.", search(ERROR, metric="logs", limit="200"), empty="no errors"))
    d.row("All lines", collapsed=True)
    d.add(24, 18, logs("The last lines", "The last lines of the chosen services, of all levels.", search(CHOSEN, metric="logs", limit="500")))
    return d.model()
