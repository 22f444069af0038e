"""Reads a dashboard as Grafana does: asks Prometheus for the values of variables, puts them into queries, and runs these.

For whoever wants to know what a dashboard shows where there is no Grafana: the check of the queries and the pictures of the README.
"""

import json
import re
import urllib.error
import urllib.parse
import urllib.request

# `$name`, `${name}`, `${name:format}`. `$1` of a label_replace is no variable.
VARIABLE = re.compile(r"\$(?:\{(\w+)(?::(\w+))?\}|([A-Za-z_]\w*))")
_REGEX = re.compile(r"[$^*{}\[\]'+?.()|]")
# What Grafana itself puts into a query.
INTERVALS = {"__rate_interval", "__interval", "__interval_ms", "__range", "__range_s", "__range_ms"}


class Unanswered(Exception):
    """Prometheus refused a query; in its words."""


def duration(seconds):
    return f"{seconds:g}s"


class Prometheus:
    """The HTTP API of a Prometheus."""

    def __init__(self, url):
        self.url = url

    def get(self, path, **parameters):
        pairs = [(key.rstrip("_"), one) for key, value in parameters.items() for one in (value if isinstance(value, list) else [value])]
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(pairs)}", timeout=60) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise Unanswered(f"{error}: {error.read().decode(errors='replace')[:1000]}") from error

    def instant(self, expr, time):
        return self.get("query", query=expr, time=time)["result"]

    def range(self, expr, start, end, step):
        return self.get("query_range", query=expr, start=start, end=end, step=step)["result"]

    def exemplars(self, expr, start, end):
        return self.get("query_exemplars", query=expr, start=start, end=end)


class Reader:
    """One dashboard over one range of time, with the values that a person chose."""

    def __init__(self, model, prometheus, start, end, *, points=120, scrape=15, chosen=()):
        self.model, self.prometheus = model, prometheus
        self.start, self.end = start, end
        self.step = max(1, round((end - start) / points))
        seconds = round(end - start)
        rate = max(self.step + scrape, 4 * scrape)
        self.values = {
            "__rate_interval": duration(rate),
            "__interval": duration(self.step),
            "__interval_ms": str(self.step * 1000),
            "__range": duration(seconds),
            "__range_s": str(seconds),
            "__range_ms": str(seconds * 1000),
        }
        self.variables = {variable["name"]: variable for variable in model["templating"]["list"]}
        self.offered = {}
        chosen = dict(chosen)
        for variable in model["templating"]["list"]:
            self.values[variable["name"]] = self._value(variable, chosen.get(variable["name"]))

    def _value(self, variable, chosen):
        kind = variable["type"]
        if kind == "datasource":
            return chosen or f"the {variable['query']}"
        if kind in ("custom", "textbox"):
            return chosen or variable["current"]["value"]
        if variable["datasource"]["type"] != "prometheus":
            return chosen or variable.get("allValue", "")
        offered = self.offered[variable["name"]] = self._offered(variable)
        if chosen:
            return chosen
        if variable["includeAll"]:
            return ["$__all"]
        return offered[0] if offered else ""

    def _offered(self, variable):
        """The values that a variable offers, by its query, its regular expression and its order."""
        text = self.fill(variable["query"]["query"])
        values = re.fullmatch(r"label_values\((?:(.+),\s*)?([A-Za-z_]\w*)\)", text)
        result = re.fullmatch(r"query_result\((.+)\)", text)
        if values:
            selector, label = values.groups()
            matching = {"match[]": selector} if selector else {}
            found = self.prometheus.get(f"label/{label}/values", start=self.start, end=self.end, **matching)
        elif result:
            found = []
            for row in self.prometheus.instant(result.group(1), self.end):
                labels = ",".join(f'{key}="{value}"' for key, value in row["metric"].items() if key != "__name__")
                found.append(f"{row['metric'].get('__name__', '')}{{{labels}}} {row['value'][1]} {row['value'][0]}")
        else:
            raise ValueError(f"no query of a variable: {text}")
        if variable["regex"]:
            expression = re.compile(variable["regex"].strip("/"))
            found = [match.group(1) for one in found if (match := expression.search(one))]
        return sorted(set(found), key=str.lower) if variable["sort"] else found

    def fill(self, text):
        """The text with the values of its variables, as they are written in PromQL."""

        def value(match):
            name = match.group(1) or match.group(3)
            if name not in self.values:
                raise KeyError(f"nobody defines ${name} in: {text}")
            return self._written(name)

        return VARIABLE.sub(value, text)

    def _written(self, name):
        value, variable = self.values[name], self.variables.get(name)
        if variable is None or not (variable.get("multi") or variable.get("includeAll")):
            return value if variable is None else value.replace("\\", "\\\\").replace('"', '\\"')
        if value == ["$__all"] or value == "$__all":
            return variable["allValue"]
        escaped = [_REGEX.sub(r"\\\\\g<0>", one) for one in ([value] if isinstance(value, str) else value)]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    def run(self, target):
        """The rows that Prometheus answers: an instant, or a range."""
        expr = self.fill(target["expr"])
        if target.get("instant"):
            return self.prometheus.instant(expr, self.end)
        return self.prometheus.range(expr, self.start, self.end, self.step)


def panels(model):
    """All panels but headings, those of collapsed rows included."""
    for panel in model["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel
