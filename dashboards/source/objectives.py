"""Objectives: how fast each service burns its error budget and what is left of it, by the recording rules of `dashboards/rules`."""

from . import alerts
from .grafana import Dashboard, column, custom, datasource, link, override, query, query_variable, stat, steps, table, timeseries

UID = "weir-slo"

# A page at 14.4 (2 % of the budget in an hour), another at 6; a ticket at 3 and at 1.
BURN = steps("green", (1, "yellow"), (6, "orange"), (14.4, "red"))
LEFT = steps("red", (0, "orange"), (0.25, "yellow"), (0.5, "green"))
SOME = 'service_name=~"$service"'
EACH = "service_name, service_namespace"


def left(bad, objective):
    """What is left of the budget: failed or slow calls of the whole period against those that it allows."""
    used = f"sum by ({EACH}) (sum_over_time({bad}{{{SOME}}}[$period])) / (sum by ({EACH}) (sum_over_time(service:calls:rate5m{{{SOME}}}[$period])) > 0)"
    return f"1 - {used} / (1 - scalar({objective}))"


AVAILABILITY_LEFT = left("service:calls_failed:rate5m", "slo:availability:objective")
LATENCY_LEFT = left("service:calls_slow:rate5m", "slo:latency:objective")


def _burn(slo, window):
    return f"service:slo_{slo}:burn{window}{{{SOME}}}"


def _table(title, description, slo, budget):
    values = {"Value #A": "Budget left", "Value #B": "5 min", "Value #C": "1 h", "Value #D": "6 h", "Value #E": "1 d", "Value #F": "3 d"}
    windows = ["5m", "1h", "6h", "1d", "3d"]
    to_service = link(
        "Look at ${__data.fields.Service}", "/d/weir-service?var-service=${__data.fields.Service:percentencode}&${prometheus_datasource:queryparam}&${__url_time_range}"
    )
    burns = [override(name, ("thresholds", BURN), ("decimals", 2), ("custom.cellOptions", {"type": "color-text"})) for name in list(values.values())[1:]]
    return table(
        title,
        description,
        [column("A", budget), *(column(ref, f"max by ({EACH}) ({_burn(slo, window)})") for ref, window in zip("BCDEF", windows))],
        "none",
        rename={"service_name": "Service", "service_namespace": "Namespace", **values},
        order=["service_name", "service_namespace", *values],
        sort="1 h",
        overrides=[
            override("Service", ("links", [to_service]), ("custom.minWidth", 160)),
            override(
                "Budget left",
                ("unit", "percentunit"),
                ("min", 0),
                ("max", 1),
                ("thresholds", LEFT),
                ("custom.minWidth", 200),
                ("custom.cellOptions", {"type": "gauge", "mode": "basic"}),
            ),
            *burns,
        ],
        empty="no rules: load dashboards/rules/slo.yaml and red.yaml",
    )


def dashboard():
    period = custom(
        "period",
        "Period",
        "Over which the budget is counted.",
        [("30 days", "30d"), ("7 days", "7d"), ("1 day", "1d")],
    )
    service = query_variable("service", "Service", "service.name, where rules recorded calls.", "label_values(service:calls:rate5m, service_name)", multi=True, all_value=".+")
    d = Dashboard(
        UID,
        "weir / Objectives",
        "How fast services use up their error budgets (1 is just right) and what is left. Objectives and windows are those of dashboards/rules/slo.yaml.",
        [datasource("prometheus"), period, service],
        tags=["slo"],
        annotations=alerts.ANNOTATIONS[:2],
        time_from="now-6h",
        refresh="1m",
    )
    d.add(
        4,
        4,
        stat("Fastest burn: errors", "The highest burn rate of failed calls over an hour. From 14.4 on a budget of 30 days is gone in two.", query(f"max({_burn('availability', '1h')})", "burn"), "none", BURN),
        stat("Fastest burn: slow calls", "The highest burn rate of slow calls over an hour.", query(f"max({_burn('latency', '1h')})", "burn"), "none", BURN),
        stat("Least budget left: errors", "Of the service that has the least left for failed calls. Below 0 the objective is missed.", query(f"min({AVAILABILITY_LEFT})", "left", instant=True), "percentunit", LEFT, sparkline=False),
        stat("Least budget left: slow calls", "Of the service that has the least left for slow calls.", query(f"min({LATENCY_LEFT})", "left", instant=True), "percentunit", LEFT, sparkline=False),
        stat("Objective: without error", "The share of calls that must not end in an error: slo:availability:objective.", query("slo:availability:objective", "objective", instant=True), "percentunit", sparkline=False, defaults={"decimals": 2}),
        stat("Objective: within 1 s", "The share of calls that must not take longer than a second: slo:latency:objective.", query("slo:latency:objective", "objective", instant=True), "percentunit", sparkline=False, defaults={"decimals": 2}),
    )
    d.add(
        24,
        10,
        _table("Calls without error", "What is left of each budget for failed calls, and how fast it goes in windows of different length. Wake up: 1 h and 5 min above 14.4, or 6 h above 6. This week: 1 d above 3 or 3 d above 1.", "availability", AVAILABILITY_LEFT),
    )
    d.add(
        24,
        10,
        _table("Calls within 1 s", "What is left of each budget for slow calls, and how fast it goes. The bounds are those of failed calls.", "latency", LATENCY_LEFT),
    )
    lines = steps("transparent", (1, "yellow"), (6, "orange"), (14.4, "red"))
    d.row("Burn rates over time")
    for slo, what in (("availability", "failed"), ("latency", "slow")):
        d.add(
            12,
            9,
            timeseries(f"Burn of {what} calls, 1 h", "The lines are at 1 (just right), 6 and 14.4, where someone is woken.", query(_burn(slo, "1h"), "{{service_name}}"), "none", lines, lines=True),
            timeseries(f"Burn of {what} calls, 6 h", "The slower window: a burn of 6 over 6 h is 5 % of the budget of 30 days.", query(_burn(slo, "6h"), "{{service_name}}"), "none", lines, lines=True),
        )
    d.row("What the budget is counted from")
    d.add(
        12,
        9,
        timeseries("Failed calls", "Failed calls, each second, by service.", query(f"service:calls_failed:rate5m{{{SOME}}}", "{{service_name}}"), "reqps", stacked=True),
        timeseries("Slow calls", "Calls that took longer than a second, each second, by service.", query(f"service:calls_slow:rate5m{{{SOME}}}", "{{service_name}}"), "reqps", stacked=True),
    )
    return d.model()
