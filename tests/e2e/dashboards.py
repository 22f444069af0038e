"""The dashboards are what their source says and keep the rules; each rule finds what it is for; provisioning files and alerts lead where they say."""

import copy
import json
import re
import subprocess
import sys

from harness import HERE, main, promise

DASHBOARDS = HERE.parent.parent / "dashboards"
sys.dont_write_bytecode = True
sys.path.insert(0, str(DASHBOARDS))

import yaml  # noqa: E402
from source import lint  # noqa: E402
from source.reader import panels  # noqa: E402


def _first(model, kind):
    return next(panel for panel in panels(model) if panel["type"] == kind)


def _expr(model):
    return next(target for panel in panels(model) for target in panel["targets"] if "rate(" in target.get("expr", "") and not target["instant"])


def _variable(model, kind):
    return next(variable for variable in model["templating"]["list"] if variable["type"] == kind)


def _put(thing, key, value):
    thing[key] = value


# One thing that each rule is there to find, done to the dashboard of the services.
FAULTS = {
    "template-datasource": lambda m: _put(_variable(m, "datasource"), "current", {"text": "Prometheus", "value": "P1809F7CD0C75ACF3"}),
    "template-on-time-change-reload": lambda m: _put(_variable(m, "query"), "refresh", 1),
    "template-label-promql": lambda m: _put(_variable(m, "query")["query"], "query", "labels(up)"),
    "panel-datasource": lambda m: _put(_expr(m), "datasource", {"type": "prometheus", "uid": "P1809F7CD0C75ACF3"}),
    "panel-title-description": lambda m: _put(_first(m, "stat"), "description", ""),
    "panel-units": lambda m: _first(m, "stat")["fieldConfig"]["defaults"].pop("unit"),
    "panel-no-targets": lambda m: _put(_first(m, "heatmap"), "targets", []),
    "target-rate-interval": lambda m: _put(_expr(m), "expr", _expr(m)["expr"].replace("$__rate_interval", "5m")),
    "target-counter-agg": lambda m: _put(_expr(m), "expr", "sum(${family}_calls_total)"),
    "uneditable-dashboard": lambda m: _put(m, "editable", True),
    "dashboard-identity": lambda m: _put(m, "version", 7),
    "variables-defined": lambda m: _put(_expr(m), "expr", 'up{instance="$ip"}'),
    "variables-used": lambda m: m["templating"]["list"].append({**_variable(m, "custom"), "name": "unheard_of"}),
    "panel-places": lambda m: _put(_first(m, "heatmap")["gridPos"], "y", 0),
    "panel-thresholds": lambda m: _put(_first(m, "stat")["fieldConfig"]["defaults"]["thresholds"]["steps"][0], "value", 0),
    "panel-no-value": lambda m: _first(m, "stat")["fieldConfig"]["defaults"].pop("noValue"),
    "override-matches": lambda m: _put(_first(m, "table")["fieldConfig"]["overrides"][0]["matcher"], "options", "Servcie"),
    "ref-ids": lambda m: _first(m, "stat")["targets"].append(_first(m, "stat")["targets"][0]),
    "panel-names": lambda m: _put(_first(m, "stat"), "title", _first(m, "heatmap")["title"]),
    "override-settings": lambda m: _put(_first(m, "table")["fieldConfig"]["overrides"][0]["properties"][0], "id", "custom.celloptions"),
    "quantile-of-rate": lambda m: _put(_expr(m), "expr", "histogram_quantile(0.95, rate(${latency}[$__rate_interval]))"),
    "ratio-guarded": lambda m: _put(_expr(m), "expr", "sum(up) / sum(up)"),
    "links-keep-time": lambda m: _put(m["links"][0], "url", "/d/weir-service"),
    "links-resolve": lambda m: _put(m["links"][0], "url", "/d/weir-services?var-servcie=web&${__url_time_range}"),
    "unique": lambda m: _put(m, "uid", "weir-slo"),
}


def provisioning(models):
    sources = yaml.safe_load((DASHBOARDS / "provisioning/datasources/weir.yaml").read_text())["datasources"]
    uids = {source["uid"]: source["type"] for source in sources}
    promise("the data sources are Prometheus, Jaeger and Elasticsearch, once each", sorted(uids.values()) == ["elasticsearch", "jaeger", "prometheus"], uids)
    asked = {variable["query"] for model in models for variable in model["templating"]["list"] if variable["type"] == "datasource"}
    promise("every kind of data source that a dashboard asks for is there", asked <= set(uids.values()), asked)
    named = set(re.findall(r"'datasourceUid': '([^']*)'", str(sources)))
    promise("links between data sources lead to some of them", named and named <= set(uids), named - set(uids))
    prometheus = next(source for source in sources if source["type"] == "prometheus")["jsonData"]
    to = prometheus["exemplarTraceIdDestinations"][0]
    promise("exemplars lead from Prometheus to Jaeger, by the label that weir gives them", to["name"] == "trace_id" and uids[to["datasourceUid"]] == "jaeger", to)
    # Grafana expands `$` in these files: one that is meant for later is written twice.
    early = {name for text in lint.strings(sources) for name in re.findall(r"(?<!\$)\$(?!\$)\{?(\w*)", text)}
    promise("only the address of Elasticsearch is of Grafana's environment", early == {"ELASTICSEARCH"}, early)
    provider = yaml.safe_load((DASHBOARDS / "provisioning/dashboards/weir.yaml").read_text())["providers"][0]
    promise("the provider has a folder of its own and keeps to the files", provider["folder"] == "weir" and not provider["allowUiUpdates"], provider)


def alerts(models):
    """Every alert says where to look, and there is such a place."""
    variables = {model["uid"]: {variable["name"] for variable in model["templating"]["list"]} for model in models}
    wrong, count = {}, 0
    for file in sorted((DASHBOARDS / "rules").glob("*.yaml")):
        for rule in (rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"] if "alert" in rule):
            count += 1
            url = rule["annotations"].get("dashboard_url", "")
            found = list(lint.wrong_link(re.sub(r"\{\{.*?\}\}", "x", url), variables)) if url.startswith("/d/") else ["no path of a dashboard"]
            if found:
                wrong[rule["alert"]] = found
    promise(f"each of the {count} alerts leads to a dashboard, with variables that it has", count and not wrong, wrong)


def check():
    done = subprocess.run([sys.executable, DASHBOARDS / "generate", "--check"], capture_output=True, text=True, timeout=60)
    promise("the committed files are what the source says", done.returncode == 0, done.stdout + done.stderr)
    models = [json.loads(path.read_text()) for path in sorted((DASHBOARDS / "grafana").glob("*.json"))]
    count = sum(1 for model in models for _ in panels(model))
    found = lint.findings(models)
    promise(f"{len(models)} dashboards with {count} panels keep the rules", models and not found, found)
    services = next(number for number, model in enumerate(models) if model["uid"] == "weir-services")
    unseen = []
    for rule, fault in FAULTS.items():
        damaged = copy.deepcopy(models)
        fault(damaged[services])
        if rule not in {name for name, _, _ in lint.findings(damaged)}:
            unseen.append(rule)
    promise(f"each of {len(FAULTS)} rules finds what it is for", not unseen, unseen)
    promise("no rule is without such a proof", set(lint.RULES) <= set(FAULTS), set(lint.RULES) - set(FAULTS))
    provisioning(models)
    alerts(models)


main(check)
