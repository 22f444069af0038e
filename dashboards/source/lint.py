"""What a dashboard must not be: the rules of Grafana's dashboard-linter under their names, and our own.

`findings` says everything that is wrong with a set of dashboards, as (rule, where, what). Left out of the linter's rules, with the reason:
- template-job, template-instance, target-job, target-instance: series of RED metrics are by service, those of hosts by host; weir's own have `instance`.
- target-promql: a real Prometheus parses and runs every query (`tests/e2e/dashboards_live.py`).
- target-logql, target-logql-auto: there is no Loki here.
"""

import re
from collections import Counter
from urllib.parse import parse_qsl, urlsplit

from .grafana import EXPRESSION
from .reader import INTERVALS, VARIABLE, panels

KINDS = {"prometheus": "Prometheus", "elasticsearch": "Elasticsearch", "jaeger": "Jaeger"}
# Ranges that are not of what is shown, and why.
FIXED_RANGES = {
    "1h": "a loss is worth an hour of attention, however little is shown",
    "6h": "the alert WeirHostDiskFillsUp looks at six hours",
    "$period": "a budget is counted over its own period",
}
# What an override may set, of all that Grafana has: its types leave the names open.
SETTINGS = {"unit", "decimals", "min", "max", "thresholds", "mappings", "links", "color", "custom.cellOptions", "custom.width", "custom.minWidth"}
# The only functions that make sense of a counter.
COUNTED = r"(?:rate|increase)"
COUNTERS = re.compile(r"(?<![\w:$}])((?:\$\{family\}|[a-z_])\w*_total|weir_(?:consumer_(?:accepted|delivered|dropped)_items|receiver_\w+)|otelcol_(?:receiver|exporter|scraper)_\w+)\b")
# Counters whose totals are what is meant.
TOTALS = re.compile(r"weir_consumer_(accepted|delivered|dropped)_items")


def _targets(model):
    for panel in panels(model):
        for target in panel.get("targets", []):
            yield panel, target


def _expressions(model):
    for panel, target in _targets(model):
        if "expr" in target:
            yield panel["title"], target, target["expr"]


def _variables(model):
    return model["templating"]["list"]


def strings(node):
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)


def _links(node):
    if isinstance(node, dict):
        if isinstance(node.get("url"), str) and node["url"]:
            yield node["url"]
        for value in node.values():
            yield from _links(value)
    elif isinstance(node, list):
        for value in node:
            yield from _links(value)


# === rules of the linter ===


def template_datasource(model):
    kinds = [variable for variable in _variables(model) if variable["type"] == "datasource"]
    if not kinds:
        yield "variables", "no data source is a variable"
    for variable in kinds:
        kind = variable["query"]
        if variable["name"] != f"{kind}_datasource" or variable["label"] != f"{KINDS.get(kind)} data source":
            yield variable["name"], f"not called {kind}_datasource, or its label is not its kind"
        if variable.get("current"):
            yield variable["name"], "names one data source of somebody's Grafana"


def template_on_time_change_reload(model):
    for variable in _variables(model):
        if variable["type"] == "query" and variable["refresh"] != 2:
            yield variable["name"], "is not read anew when the time range changes"


def template_label_promql(model):
    for variable in _variables(model):
        if variable["type"] == "query" and variable["datasource"]["type"] == "prometheus":
            query = variable["query"]["query"]
            if not re.match(r"(label_values|query_result)\(.+\)$", query):
                yield variable["name"], f"neither label_values nor query_result: {query}"
        if variable.get("includeAll") and not variable.get("allValue"):
            yield variable["name"], "All would name every value in each query: it needs an allValue"


def panel_datasource(model):
    known = {variable["name"]: variable["query"] for variable in _variables(model) if variable["type"] == "datasource"}
    places = [(panel["title"], panel) for panel in panels(model)]
    places += [(panel["title"], target) for panel, target in _targets(model)]
    places += [(variable["name"], variable) for variable in _variables(model) if variable["type"] == "query"]
    places += [(one["name"], one) for one in model["annotations"]["list"] if not one.get("builtIn")]
    for where, thing in places:
        source = thing.get("datasource", {})
        if source == EXPRESSION:
            continue
        if known.get(source.get("uid", "")[2:-1]) != source.get("type", "?"):
            yield where, f"its data source is no variable of this dashboard: {source}"


def panel_title_description(model):
    for panel in panels(model):
        if not panel.get("title") or not re.search(r"\S.*[.)]$", panel.get("description", "")):
            yield panel.get("title") or f"panel {panel['id']}", "has no title, or no description that is a sentence"


def panel_units(model):
    for panel in panels(model):
        if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
            yield panel["title"], "has no unit"


def panel_no_targets(model):
    for panel in panels(model):
        if not panel.get("targets"):
            yield panel["title"], "asks nothing"


def target_rate_interval(model):
    for where, target, expr in _expressions(model):
        for found in re.findall(r"\[([^\]]*)\]", expr):
            if found == "$__rate_interval" or found in FIXED_RANGES or (found == "$__range" and target["instant"]):
                continue
            yield where, f"the range [{found}] fits neither the scrapes nor what is shown"
        if "irate(" in expr:
            yield where, "irate shows the last two scrapes of many"


def target_counter_agg(model):
    for where, target, expr in _expressions(model):
        bare = re.sub(rf"\b{COUNTED}\((?:[^()\[\]]|\([^()]*\))*\[[^\]]*\]", "", expr)
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', bare)
        for name in COUNTERS.findall(bare):
            if not (TOTALS.fullmatch(name) and (target["instant"] or "Books" in where)):
                yield where, f"{name} counts for ever: rate or increase makes sense of it"


def uneditable_dashboard(model):
    if model.get("editable") is not False:
        yield "dashboard", "what a person changes in the browser is lost at the next start: it must not be editable"


# === ours ===


def dashboard_identity(model):
    if not re.fullmatch(r"weir-[a-z-]{1,35}", model["uid"]) or not model["title"].startswith("weir / ") or "weir" not in model["tags"]:
        yield "dashboard", "uid, title or tags do not say that it is weir's"
    if "id" in model or "version" in model or "__inputs" in model:
        yield "dashboard", "carries what one Grafana made of it"
    if not 39 <= model["schemaVersion"] <= 42 or model["graphTooltip"] != 1 or not re.fullmatch(r"30s|1m", model["refresh"]):
        yield "dashboard", "schemaVersion, graphTooltip or refresh is not as agreed"


def variables_defined(model):
    names = {variable["name"] for variable in _variables(model)} | INTERVALS
    rest = {**model, "templating": {}}
    for text in strings([rest, [variable.get("query") for variable in _variables(model)]]):
        for match in VARIABLE.finditer(text):
            name = match.group(1) or match.group(3)
            # A capital letter is another query of the panel.
            if name not in names and not re.fullmatch("[A-Z]", name) and not name.startswith(("__data", "__field", "__series", "__url_time_range", "__value", "__all")):
                yield text[:60], f"${name} is not defined"


def variables_used(model):
    texts = "\n".join(strings([model["panels"], model["annotations"], [variable.get("query") for variable in _variables(model)]]))
    used = {match.group(1) or match.group(3) for match in VARIABLE.finditer(texts)}
    for variable in _variables(model):
        if variable["name"] not in used:
            yield variable["name"], "nobody uses it"


def panel_places(model):
    taken, ids = {}, Counter()
    inside = [one for one in model["panels"]] + [one for row in model["panels"] if row["type"] == "row" for one in row["panels"]]
    for panel in inside:
        ids[panel["id"]] += 1
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24 or place["h"] < 1:
            yield panel["title"], f"does not fit in: {place}"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken:
                    yield panel["title"], f"lies over {taken[x, y]}"
                    break
                taken[x, y] = panel["title"]
            else:
                continue
            break
    for panel_id, times in ids.items():
        if times > 1:
            yield f"panel {panel_id}", "is there more than once"


def panel_thresholds(model):
    for panel in panels(model):
        everything = [panel["fieldConfig"]["defaults"]["thresholds"]]
        everything += [one["value"] for each in panel["fieldConfig"]["overrides"] for one in each["properties"] if one["id"] == "thresholds"]
        for thresholds in everything:
            values = [step["value"] for step in thresholds["steps"]]
            if values[0] is not None or None in values[1:] or values[1:] != sorted(values[1:]):
                yield panel["title"], f"its thresholds do not rise from null: {values}"


def panel_no_value(model):
    for panel in panels(model):
        if not panel["fieldConfig"]["defaults"].get("noValue"):
            yield panel["title"], "does not say what it means that there is nothing"


def override_matches(model):
    for panel in panels(model):
        names = set()
        for step in panel.get("transformations", []):
            names |= set(step["options"].get("renameByName", {}).values())
        for one in panel["fieldConfig"]["overrides"]:
            if one["matcher"]["id"] == "byName" and panel["type"] == "table" and one["matcher"]["options"] not in names:
                yield panel["title"], f"no column is called {one['matcher']['options']}"


def ref_ids(model):
    for panel in panels(model):
        refs = [target["refId"] for target in panel.get("targets", [])]
        if len(set(refs)) != len(refs):
            yield panel["title"], f"two of its queries have one name: {refs}"


def panel_names(model):
    for title, times in Counter(panel["title"] for panel in panels(model)).items():
        if times > 1:
            yield title, "two panels have this title: a person who is told of one looks at the other"


def override_settings(model):
    for panel in panels(model):
        for each in panel["fieldConfig"]["overrides"]:
            for one in each["properties"]:
                if one["id"] not in SETTINGS:
                    yield panel["title"], f"no field has a setting {one['id']}"


def quantile_of_rate(model):
    for where, _, expr in _expressions(model):
        for inner in re.findall(r"histogram_quantile\([\d.]+, (.{0,90})", expr):
            if not re.match(r"sum by \([^)]*\ble\) \(rate\(", inner):
                yield where, "a quantile of anything but a sum of rates by le is no quantile"


def ratio_guarded(model):
    for where, _, expr in _expressions(model):
        for divisor in re.findall(r" / (\(?(?:sum|count|avg|max)\b.*)", expr):
            depth, at = 0, 0
            for at, c in enumerate(divisor):
                depth += (c == "(") - (c == ")")
                if depth == 0 and c == ")":
                    break
            if not divisor[: at + 1].endswith("> 0)"):
                yield where, "divides by what may be 0"


def links_keep_time(model):
    for url in _links(model):
        if url.startswith("/d/") and "${__url_time_range}" not in url:
            yield url, "forgets the time that a person looks at"


RULES = {
    "template-datasource": template_datasource,
    "template-on-time-change-reload": template_on_time_change_reload,
    "template-label-promql": template_label_promql,
    "panel-datasource": panel_datasource,
    "panel-title-description": panel_title_description,
    "panel-units": panel_units,
    "panel-no-targets": panel_no_targets,
    "target-rate-interval": target_rate_interval,
    "target-counter-agg": target_counter_agg,
    "uneditable-dashboard": uneditable_dashboard,
    "dashboard-identity": dashboard_identity,
    "variables-defined": variables_defined,
    "variables-used": variables_used,
    "panel-places": panel_places,
    "panel-thresholds": panel_thresholds,
    "panel-no-value": panel_no_value,
    "override-matches": override_matches,
    "ref-ids": ref_ids,
    "panel-names": panel_names,
    "override-settings": override_settings,
    "quantile-of-rate": quantile_of_rate,
    "ratio-guarded": ratio_guarded,
    "links-keep-time": links_keep_time,
}


def links_resolve(models):
    """Links lead to dashboards that there are, with variables that these have."""
    variables = {model["uid"]: {variable["name"] for variable in _variables(model)} for model in models}
    for model in models:
        for url in _links(model):
            yield from ((model["title"], url, what) for what in wrong_link(url, variables))


def wrong_link(url, variables):
    """What is wrong with one link, given {uid: names of variables}."""
    if not url.startswith("/d/"):
        return
    parts = urlsplit(url)
    uid = parts.path.split("/")[2]
    if uid not in variables:
        yield f"there is no dashboard {uid}"
        return
    named = {key.removeprefix("var-") for key, _ in parse_qsl(parts.query, keep_blank_values=True) if key.startswith("var-")}
    named |= set(re.findall(r"\$\{(\w+):queryparam\}", parts.query))
    for name in sorted(named - variables[uid]):
        yield f"{uid} has no variable {name}"


def findings(models):
    """[(rule, dashboard, what)] of all dashboards together."""
    found = [(rule, f"{model['title']}: {where}", what) for model in models for rule, check in RULES.items() for where, what in check(model)]
    for key in ("uid", "title"):
        for value, times in Counter(model[key] for model in models).items():
            if times > 1:
                found.append(("unique", value, f"two dashboards have this {key}: Grafana would load neither"))
    found += [("links-resolve", f"{where}: {url}", what) for where, url, what in links_resolve(models)]
    return found
