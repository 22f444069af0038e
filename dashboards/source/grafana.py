"""Grafana's model of a dashboard: variables, queries, panels and their places, as far as our dashboards need it.

In:   what a dashboard says, in the order in which it is read.
Out:  the JSON that Grafana loads from a file (schema version 41, Grafana 11 and later).
What no person chose is not written down: Grafana fills in the rest by itself.
"""

COLUMNS = 24

PROMETHEUS = {"type": "prometheus", "uid": "${prometheus_datasource}"}
ELASTICSEARCH = {"type": "elasticsearch", "uid": "${elasticsearch_datasource}"}
JAEGER = {"type": "jaeger", "uid": "${jaeger_datasource}"}
# Grafana's own server, which counts with the answers of other queries.
EXPRESSION = {"type": "__expr__", "uid": "__expr__"}

_KINDS = {"prometheus": "Prometheus", "elasticsearch": "Elasticsearch", "jaeger": "Jaeger"}

# === variables ===


def datasource(kind):
    """Which of the data sources of a kind; what every panel of that kind reads."""
    return {
        "name": f"{kind}_datasource",
        "label": f"{_KINDS[kind]} data source",
        "description": f"Where {_KINDS[kind]}'s data is read.",
        "type": "datasource",
        "query": kind,
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "options": [],
    }


def custom(name, label, description, choices, hide=0):
    """A choice between values that are known: `choices` are (text, value), the first is the default."""
    options = [{"text": text, "value": value, "selected": number == 0} for number, (text, value) in enumerate(choices)]
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "custom",
        "query": ", ".join(f"{text} : {value}" for text, value in choices),
        "options": options,
        "current": {"text": options[0]["text"], "value": options[0]["value"], "selected": True},
        "hide": hide,
        "multi": False,
        "includeAll": False,
        "skipUrlSync": False,
    }


def query_variable(name, label, description, query, *, multi=False, all_value=None, hide=0, regex="", sort=1):
    """Values that Prometheus knows, read anew when the time range changes. `all_value` stands for all of them, as a regular expression."""
    variable = {
        "name": name,
        "label": label,
        "description": description,
        "type": "query",
        "datasource": PROMETHEUS,
        # How Grafana's editor shows it: values of a label, or the result of a query.
        "query": {"qryType": 3 if query.startswith("query_result") else 1, "query": query, "refId": f"variable-{name}"},
        "regex": regex,
        "refresh": 2,
        "sort": sort,
        "hide": hide,
        "multi": multi,
        "includeAll": all_value is not None,
        "options": [],
    }
    if all_value is not None:
        variable |= {"allValue": all_value, "current": {"text": "All", "value": "$__all"}}
        if multi:
            variable["current"] = {"text": ["All"], "value": ["$__all"]}
    return variable


def derived(name, label, description, source, pattern, then, otherwise):
    """A hidden variable: `then` where the variable `source` matches `pattern`, else `otherwise`.

    Grafana has no such variable, so Prometheus is asked to compare: the answer is one sample whose label `value` is the result.
    """
    inner = f'label_replace(vector(1), "source", "${{{source}}}", "", "")'
    inner = f'label_replace({inner}, "value", "{otherwise}", "", "")'
    query = f'query_result(label_replace({inner}, "value", "{then}", "source", "{pattern}"))'
    return query_variable(name, label, description, query, hide=2, regex='/value="([^"]*)"/', sort=0)


# === queries ===


def query(expr, legend="__auto", *, ref="A", instant=False, table=False, heatmap=False, exemplars=False):
    """A PromQL query over the range, or, `instant`, at its end."""
    target = {
        "refId": ref,
        "datasource": PROMETHEUS,
        "expr": " ".join(expr.split()),
        "legendFormat": legend,
        "editorMode": "code",
        "range": not instant,
        "instant": instant,
        "format": "table" if table else "heatmap" if heatmap else "time_series",
    }
    if exemplars:
        target["exemplar"] = True
    return target


def column(ref, expr):
    """A query whose values become a column of a table."""
    return query(expr, ref=ref, instant=True, table=True)


# === panels ===


def steps(*values):
    """Thresholds: the first colour, then pairs of a value and the colour from there on."""
    first, *rest = values
    return {"mode": "absolute", "steps": [{"color": first, "value": None}, *({"color": color, "value": value} for value, color in rest)]}


PLAIN = steps("text")


def _panel(kind, title, description, targets, unit, thresholds, **more):
    defaults = {"unit": unit, "thresholds": thresholds or PLAIN, "mappings": more.pop("mappings", []), "noValue": more.pop("empty", "no data")}
    defaults |= more.pop("defaults", {})
    source = targets[0]["datasource"] if targets else more.pop("source", PROMETHEUS)
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": source,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        **more,
    }


def override(name, *properties, by="byName"):
    """Properties of the fields of a name (`by` may say `byRegexp` or `byFrameRefID`)."""
    return {"matcher": {"id": by, "options": name}, "properties": [{"id": key, "value": value} for key, value in properties]}


def stat(title, description, targets, unit, thresholds=None, *, sparkline=True, links=(), background=False, calc="lastNotNull", **more):
    """One number, with its way there behind it."""
    targets = targets if isinstance(targets, list) else [targets]
    options = {
        "colorMode": "background" if background else "value",
        "graphMode": "area" if sparkline else "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": [calc], "fields": "", "values": False},
    }
    more.setdefault("defaults", {})
    if links:
        more["defaults"]["links"] = list(links)
    return _panel("stat", title, description, targets, unit, thresholds, options=options, **more)


def timeseries(title, description, targets, unit, thresholds=None, *, stacked=False, bars=False, low=0, lines=False, **more):
    """Lines over time, or bars. `lines` draws the thresholds; `low` is the lowest value the axis shows at most."""
    targets = targets if isinstance(targets, list) else [targets]
    style = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 80 if bars else 40 if stacked else 8,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if lines else "off"},
    }
    defaults = {"custom": style, "color": {"mode": "palette-classic"}, **more.pop("defaults", {})}
    if low is not None:
        defaults["min"] = low
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, targets, unit, thresholds, defaults=defaults, options=options, **more)


def table(title, description, targets, unit, *, rename, order, sort=None, hide=(), overrides=(), transformations=(), **more):
    """Instant queries side by side, one row for what has the same labels.

    `rename` says what the fields are called, `order` in which order they stand; what is in neither is hidden if it is in `hide`.
    """
    organize = {
        "excludeByName": dict.fromkeys(["Time", *hide], True),
        "indexByName": {field: number for number, field in enumerate(order)},
        "renameByName": rename,
    }
    merged = [{"id": "merge", "options": {}}] if len(targets) > 1 else []
    options = {"showHeader": True, "frameIndex": 0, "cellHeight": "sm"}
    if sort:
        options["sortBy"] = [{"displayName": sort, "desc": True}]
    defaults = {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False, "inspect": False}, **more.pop("defaults", {})}
    return _panel(
        "table",
        title,
        description,
        targets,
        unit,
        None,
        defaults=defaults,
        options=options,
        overrides=list(overrides),
        transformations=[*merged, *transformations, {"id": "organize", "options": organize}],
        **more,
    )


def heatmap(title, description, targets, unit, **more):
    """Buckets over time, the colour says how many."""
    options = {
        "calculate": False,
        "calculation": {},
        "cellGap": 1,
        "cellValues": {"unit": "reqps", "decimals": 2},
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange", "reverse": False, "scale": "exponential"},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        # Empty buckets would paint the whole panel.
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    custom_defaults = {"custom": {"hideFrom": {"legend": False, "tooltip": False, "viz": False}, "scaleDistribution": {"type": "linear"}}}
    return _panel("heatmap", title, description, targets, unit, None, defaults=custom_defaults, options=options, **more)


def bars(title, description, targets, unit, thresholds=None, *, top=None, **more):
    """A bar for each series, as long as its last value."""
    targets = targets if isinstance(targets, list) else [targets]
    options = {
        "displayMode": "gradient",
        "orientation": "horizontal",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 300,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    defaults = {"min": 0, **more.pop("defaults", {})}
    if top is not None:
        defaults["max"] = top
    return _panel("bargauge", title, description, targets, unit, thresholds, defaults=defaults, options=options, **more)


def logs(title, description, target, **more):
    """The lines themselves."""
    options = {
        "showTime": True,
        "showLabels": False,
        "showCommonLabels": False,
        "showLogContextToggle": True,
        "wrapLogMessage": True,
        "prettifyLogMessage": False,
        "enableLogDetails": True,
        "dedupStrategy": "none",
        "sortOrder": "Descending",
    }
    return _panel("logs", title, description, [target], "none", None, options=options, **more)


def link(title, url):
    """A link from a value, a line or a row."""
    return {"title": title, "url": url, "targetBlank": False}


# === dashboards ===


class Dashboard:
    """Panels flow from left to right, each row as high as its highest panel."""

    def __init__(self, uid, title, description, variables, *, tags=(), annotations=(), time_from="now-1h", refresh="30s"):
        self.uid, self.title, self.description = uid, title, description
        self.variables, self.tags, self.annotations = variables, tags, annotations
        self.time_from, self.refresh = time_from, refresh
        self.panels = []
        self._ids, self._x, self._y, self._height = 0, 0, 0, 0
        self._collapsed = None

    def _place(self, panel, width, height):
        if self._x + width > COLUMNS:
            self._break()
        self._ids += 1
        placed = {"id": self._ids, "gridPos": {"x": self._x, "y": self._y, "w": width, "h": height}, **panel}
        self._x, self._height = self._x + width, max(self._height, height)
        return placed

    def _break(self):
        self._x, self._y, self._height = 0, self._y + self._height, 0

    def add(self, width, height, *panels):
        """Panels of one size, side by side."""
        for panel in panels:
            placed = self._place(panel, width, height)
            (self.panels if self._collapsed is None else self._collapsed).append(placed)

    def row(self, title, *, collapsed=False):
        """A heading. What comes after a collapsed one is asked for when a person opens it."""
        self._break()
        row = self._place({"type": "row", "title": title, "collapsed": collapsed, "panels": []}, COLUMNS, 1)
        self._break()
        self.panels.append(row)
        self._collapsed = row["panels"] if collapsed else None

    def model(self):
        """The JSON."""
        others = {
            "type": "dashboards",
            "title": "weir",
            "tags": ["weir"],
            "asDropdown": False,
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
            "icon": "external link",
            "tooltip": "The other dashboards of weir, at the same time and for the same services",
            "url": "",
        }
        own = {
            "builtIn": 1,
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
            "name": "Annotations & Alerts",
            "type": "dashboard",
        }
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["weir", *self.tags],
            "schemaVersion": 41,
            "editable": False,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": self.time_from, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "fiscalYearStartMonth": 0,
            "weekStart": "",
            "liveNow": False,
            "links": [others],
            "annotations": {"list": [own, *self.annotations]},
            "templating": {"list": self.variables},
            "panels": self.panels,
        }


def annotation(name, expr, color, title, text):
    """Marks on the time axis wherever the expression has a value."""
    return {
        "name": name,
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": " ".join(expr.split()),
        "titleFormat": title,
        "textFormat": text,
        "useValueForTime": False,
        "step": "60s",
    }
