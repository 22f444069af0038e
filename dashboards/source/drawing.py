"""A dashboard as one SVG. Colours and sizes are near Grafana's dark theme; a line is a `polyline`, a letter is text, nothing else is needed to see it."""

import math
import re
import time
from html import escape

from .units import written

COLUMN, ROW, GAP, EDGE = 56, 40, 8, 16
BACKGROUND, PANEL, BORDER, TEXT, FAINT, GRID = "#111217", "#181b1f", "#2c3036", "#d0d2dc", "#8e909a", "#2a2d33"
SERIES = ["#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#37872D", "#FADE2A", "#C4162A", "#3274D9", "#8F3BB8"]
NAMED = {
    "green": "#73BF69",
    "yellow": "#F2CC0C",
    "orange": "#FF9830",
    "red": "#F2495C",
    "blue": "#5794F2",
    "purple": "#B877D9",
    "text": TEXT,
    "transparent": "none",
}
FONT = "font-family=\"Inter,'Helvetica Neue',Arial,sans-serif\""


def _width(text, size):
    """About how wide a text is."""
    return sum(0.3 if c in "il.,:;|'! /" else 0.78 if c in "mwMW%" else 0.56 for c in text) * size


def _cut(text, size, room):
    if _width(text, size) <= room:
        return text
    while text and _width(text + "…", size) > room:
        text = text[:-1]
    return text + "…"


class Canvas:
    def __init__(self):
        self.parts = []

    def rect(self, x, y, w, h, fill, stroke="none", radius=0, opacity=1):
        more = (f' rx="{radius}"' if radius else "") + (f' fill-opacity="{opacity:.3g}"' if opacity != 1 else "")
        more += f' stroke="{stroke}"' if stroke != "none" else ""
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{max(h, 0):.1f}" fill="{fill}"{more}/>')

    def text(self, x, y, text, size=12, fill=TEXT, anchor="start", weight=None):
        more = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (f' font-weight="{weight}"' if weight else "")
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"{more}>{escape(text)}</text>')

    def line(self, points, stroke, width=1.0, dash=None):
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{_points(points)}" fill="none" stroke="{stroke}" stroke-width="{width}"{more}/>')

    def area(self, points, fill, opacity):
        self.parts.append(f'<polygon points="{_points(points)}" fill="{fill}" fill-opacity="{opacity}"/>')


def _points(points):
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _number(text):
    value = float(text)
    return None if math.isnan(value) or math.isinf(value) else value


def _colour(value, thresholds):
    colour = thresholds["steps"][0]["color"]
    for step in thresholds["steps"][1:]:
        if value is not None and value >= step["value"]:
            colour = step["color"]
    return NAMED.get(colour, colour)


def _name(target, labels, fill):
    legend = fill(target["legendFormat"])
    if legend == "__auto":
        return ", ".join(labels.values()) or target["refId"]
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match.group(1), ""), legend)


def _mapped(value, mappings):
    """(text, colour) that a panel gives to a value, or nothing."""
    for mapping in mappings:
        found = mapping["options"].get(value) if mapping["type"] == "value" else None
        if found:
            return found.get("text", value), found.get("color")
    return None


class Panel:
    """A panel in its place; draws what its queries answer."""

    def __init__(self, canvas, reader, panel, box):
        self.canvas, self.reader, self.panel = canvas, reader, panel
        self.x, self.y, self.w, self.h = box
        self.defaults = panel["fieldConfig"]["defaults"]
        self.unit, self.decimals = self.defaults["unit"], self.defaults.get("decimals")

    def text(self, value):
        mapped = _mapped(f"{value:g}" if value is not None else "", self.defaults["mappings"])
        return mapped[0] if mapped else self.written(value, self.unit, self.decimals)

    def written(self, value, unit, decimals=None):
        if unit == "dateTimeFromNow" and value is not None:
            return f"{written(self.reader.end - value / 1000, 's', 0)} ago"
        return written(value, unit, decimals)

    def empty(self, why=None):
        self.canvas.text(self.x + self.w / 2, self.y + self.h / 2 + 8, why or self.defaults["noValue"], 14, FAINT, "middle")

    def answers(self):
        """(name, labels, [(time, value)]) of each series of all queries."""
        for target in self.panel["targets"]:
            for row in self.reader.run(target):
                points = row.get("values") or [row["value"]]
                yield _name(target, row["metric"], self.reader.fill), row["metric"], [(at, _number(value)) for at, value in points]

    def draw(self):
        self.canvas.rect(self.x, self.y, self.w, self.h, PANEL, BORDER, 3)
        title = self.reader.fill(self.panel["title"])
        self.canvas.text(self.x + 10, self.y + 20, _cut(title, 13, self.w - 20), 13, TEXT, weight=500)
        if all(target["datasource"]["type"] == "prometheus" for target in self.panel["targets"]):
            getattr(self, self.panel["type"])()
        else:
            self.empty("not from Prometheus")

    # === kinds of panels ===

    def stat(self):
        series = [one for one in self.answers() if any(value is not None for _, value in one[2])]
        if not series:
            return self.empty()
        slot = (self.w - 8) / len(series)
        for number, (name, _, points) in enumerate(series):
            values = [value for _, value in points if value is not None]
            colour = _colour(values[-1], self.defaults["thresholds"])
            x = self.x + 4 + number * slot
            if self.panel["options"]["colorMode"] == "background":
                self.canvas.rect(x, self.y + 30, slot, self.h - 34, colour, radius=2)
            elif self.panel["options"]["graphMode"] == "area" and len(values) > 2:
                top = max(values) or 1
                low, high = self.y + self.h - 4, self.h * 0.32
                steps = [(x + slot * n / (len(values) - 1), low - high * max(value, 0) / top) for n, value in enumerate(values)]
                self.canvas.area([(x, low), *steps, (x + slot, low)], colour, 0.18)
                self.canvas.line(steps, colour, 1.2)
            text = self.text(values[-1])
            size = min(34, self.h * 0.26, 1.6 * slot / max(4, len(text)))
            fill = "#ffffff" if self.panel["options"]["colorMode"] == "background" else colour
            self.canvas.text(x + slot / 2, self.y + self.h * 0.56 + size * 0.2, text, round(size, 1), fill, "middle", 600)
            if len(series) > 1:
                self.canvas.text(x + slot / 2, self.y + 42, _cut(name, 11, slot - 6), 11, FAINT, "middle")

    def bargauge(self):
        series = sorted(((name, points[-1][1]) for name, _, points in self.answers() if points[-1][1] is not None), key=lambda one: -one[1])
        if not series:
            return self.empty()
        top = self.defaults.get("max") or max(value for _, value in series) or 1
        height = min(34, (self.h - 38) / len(series))
        label = min(0.45 * self.w, max(_width(name, 12) for name, _ in series) + 12)
        for number, (name, value) in enumerate(series):
            y = self.y + 34 + number * height
            room = self.w - label - 90
            self.canvas.text(self.x + 10, y + height / 2 + 4, _cut(name, 12, label - 8), 12)
            self.canvas.rect(self.x + 10 + label, y + 3, room, height - 6, "#22252b", radius=2)
            colour = _colour(value, self.defaults["thresholds"])
            self.canvas.rect(self.x + 10 + label, y + 3, room * min(1, value / top), height - 6, colour, radius=2, opacity=0.75)
            self.canvas.text(self.x + self.w - 10, y + height / 2 + 4, self.text(value), 12, colour, "end", 600)

    def _axis(self, low, high, label):
        """The frame of a plot: (place of a time, place of a value, bottom)."""
        left, right = self.x + label + 14, self.x + self.w - 12
        top, bottom = self.y + 34, self.y + self.h - 24
        start, end = self.reader.start, self.reader.end

        def x_of(at):
            return left + (right - left) * (at - start) / (end - start)

        def y_of(value):
            return bottom - (bottom - top) * (value - low) / ((high - low) or 1)

        minutes = (end - start) / 60
        every = next(step for step in (1, 2, 5, 10, 15, 30, 60, 180, 720) if minutes / step <= max(3, (right - left) / 75)) * 60
        at = math.ceil(start / every) * every
        while at <= end:
            self.canvas.line([(x_of(at), top), (x_of(at), bottom)], GRID)
            self.canvas.text(x_of(at), bottom + 15, time.strftime("%H:%M", time.localtime(at)), 10.5, FAINT, "middle")
            at += every
        return x_of, y_of, left, right, top, bottom

    def timeseries(self):
        series = [one for one in self.answers() if any(value is not None for _, value in one[2])]
        if not series:
            return self.empty()
        stacked = self.defaults["custom"]["stacking"]["mode"] == "normal"
        if stacked:
            total, layers = {}, []
            for name, labels, points in series:
                base = [(at, total.get(at, 0)) for at, _ in points]
                points = [(at, total.get(at, 0) + (value or 0)) for at, value in points]
                total.update(points)
                layers.append((name, points, base))
        else:
            layers = [(name, points, None) for name, _, points in series]
        values = [value for _, points, _ in layers for _, value in points if value is not None]
        low, high = min([self.defaults.get("min", min(values)), *values]), max(values)
        drawn = self.defaults["custom"]["thresholdsStyle"]["mode"] != "off"
        lines = [step for step in self.defaults["thresholds"]["steps"][1:] if drawn and (step["value"] <= high * 2.5 or high * 8 > step["value"])]
        high = max([high, *(step["value"] * 1.08 for step in lines)]) or 1
        high = min(high, self.defaults.get("max", high))
        ticks = [tick for tick in _ticks(low, high, _whole(self.unit, high - low)) if tick <= self.defaults.get("max", tick)]
        low, high = min(low, ticks[0]), max(high, ticks[-1])
        texts = [self.text(tick) for tick in ticks]
        legend = 20
        self.h -= legend
        x_of, y_of, left, right, top, bottom = self._axis(low, high, max(_width(text, 10.5) for text in texts))
        for tick, text in zip(ticks, texts):
            self.canvas.line([(left, y_of(tick)), (right, y_of(tick))], GRID)
            self.canvas.text(left - 6, y_of(tick) + 3.5, text, 10.5, FAINT, "end")
        for step in lines:
            self.canvas.line([(left, y_of(step["value"])), (right, y_of(step["value"]))], NAMED.get(step["color"], step["color"]), 1, "5 4")
        fixed = {
            one["matcher"]["options"]: prop["value"]["fixedColor"]
            for one in self.panel["fieldConfig"]["overrides"]
            for prop in one["properties"]
            if prop["id"] == "color" and "fixedColor" in prop["value"]
        }
        colours = [NAMED.get(fixed.get(name), SERIES[number % len(SERIES)]) for number, (name, _, _) in enumerate(layers)]
        for (name, points, base), colour in reversed(list(zip(layers, colours))):
            for run in _runs(points, self.reader.step):
                steps = [(x_of(at), y_of(value)) for at, value in run]
                if stacked:
                    under = dict(base)
                    self.canvas.area(steps + [(x_of(at), y_of(under[at])) for at, _ in reversed(run)], colour, 0.4)
                elif len(layers) <= 3:
                    self.canvas.area([(steps[0][0], bottom), *steps, (steps[-1][0], bottom)], colour, 0.08)
                self.canvas.line(steps, colour, 1.4)
        x = left
        for number, ((name, _, _), colour) in enumerate(zip(layers, colours)):
            text = _cut(name, 11, 190)
            if x + _width(text, 11) + 20 > right and number:
                self.canvas.text(x, bottom + 34, "…", 11, FAINT)
                break
            self.canvas.rect(x, bottom + 28, 11, 3, colour)
            self.canvas.text(x + 16, bottom + 34, text, 11)
            x += _width(text, 11) + 30

    def heatmap(self):
        target = self.panel["targets"][0]
        rows = sorted((float(row["metric"].get("le", "inf")), {at: float(value) for at, value in row["values"]}) for row in self.reader.run(target))
        if not rows:
            return self.empty()
        cells, before = [], {}
        for bound, values in rows:
            cells.append((bound, {at: value - before.get(at, 0) for at, value in values.items()}))
            before = values
        while len(cells) > 2 and not any(value > 1e-9 for value in cells[-1][1].values()):
            cells.pop()
        top_value = max(value for _, row in cells for value in row.values()) or 1
        x_of, y_of, left, right, _, _ = self._axis(0, len(cells), 44)
        width = (right - left) * self.reader.step / (self.reader.end - self.reader.start)
        for number, (bound, row) in enumerate(cells):
            height = y_of(number) - y_of(number + 1)
            label = "+Inf" if math.isinf(bound) else f"{bound:g}"
            self.canvas.text(left - 6, y_of(number + 1) + 4, label, 10.5, FAINT, "end")
            for at, value in row.items():
                if value > 1e-9:
                    share = (value / top_value) ** 0.5
                    low, high = (60, 38, 22), (255, 160, 60)
                    colour = "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high))
                    x = max(left, x_of(at) - width)
                    self.canvas.rect(x, y_of(number + 1) + 0.5, x_of(at) - x - 0.5, height - 1, colour)
        bounds = [bound for bound, _ in cells]
        if not target.get("exemplar"):
            return
        found = [
            (float(one["timestamp"]), float(one["value"]))
            for series in self.reader.prometheus.exemplars(self.reader.fill(target["expr"]), self.reader.start, self.reader.end)
            for one in series["exemplars"]
        ]
        # As Grafana thins them out: some for each part of the range.
        shown = {}
        for at, value in sorted(found, key=lambda one: -one[1]):
            place = shown.setdefault(int((at - self.reader.start) / (4 * self.reader.step)), [])
            if len(place) < 3 and at >= self.reader.start:
                place.append((at, value))
        for at, value in (one for place in shown.values() for one in place):
            number = next((n for n, bound in enumerate(bounds) if value <= bound), len(bounds) - 1)
            below = bounds[number - 1] if number else 0
            part = 0.5 if math.isinf(bounds[number]) else (value - below) / (bounds[number] - below)
            x, y = x_of(at), y_of(number + min(1, max(0, part)))
            self.canvas.area([(x, y - 4), (x + 4, y), (x, y + 4), (x - 4, y)], "#e06bff", 0.9)

    def table(self):
        """Rows of the same labels side by side, as the transformations `merge` and `organize` put them."""
        organize = next(step["options"] for step in self.panel["transformations"] if step["id"] == "organize")
        rows, many = {}, len(self.panel["targets"]) > 1
        for target in self.panel["targets"]:
            for row in self.reader.run(target):
                labels = {key: value for key, value in row["metric"].items() if not organize["excludeByName"].get(key)}
                field = f"Value #{target['refId']}" if many else "Value"
                rows.setdefault(tuple(sorted(labels.items())), dict(labels))[field] = _number(row["value"][1])
        # As a person sees it: a column that no row fills is not there.
        fields = [field for field in organize["indexByName"] if any(field in row for row in rows.values()) and not organize["excludeByName"].get(field)]
        fields += sorted({field for row in rows.values() for field in row} - {*fields, *organize["excludeByName"]})
        if not rows:
            return self.empty()
        names = {field: organize["renameByName"].get(field, field) for field in fields}
        sort = self.panel["options"].get("sortBy", [{}])[0].get("displayName")
        by = next((field for field in fields if names[field] == sort), fields[0])

        def order(row):
            value = row.get(by)
            return (value is not None, value) if isinstance(value, (int, float)) or value is None else (True, str(value))

        ordered = sorted(rows.values(), key=order, reverse=bool(sort) and by.startswith("Value")) if all(not isinstance(r.get(by), str) for r in rows.values()) else sorted(rows.values(), key=lambda r: str(r.get(by)))
        styles = {
            one["matcher"]["options"]: {prop["id"]: prop["value"] for prop in one["properties"]} for one in self.panel["fieldConfig"]["overrides"]
        }
        weights = {field: self._weight(field, names[field], ordered, styles.get(names[field], {})) for field in fields}
        scale = (self.w - 20) / sum(weights.values())
        lines = int((self.h - 58) / 24)
        x = self.x + 10
        for field in fields:
            style, width = styles.get(names[field], {}), weights[field] * scale
            number = field.startswith("Value")
            gauge = style.get("custom.cellOptions", {}).get("type") == "gauge"
            anchor = "end" if number and not gauge else "start"
            self.canvas.text(x + (width - 12 if anchor == "end" else 2), self.y + 46, _cut(names[field], 11.5, width - 8), 11.5, "#6e9fff", anchor, 500)
            top = max([row[field] for row in ordered if number and row.get(field) is not None], default=1) or 1
            for n, row in enumerate(ordered[:lines]):
                self._cell(row.get(field), style, x, self.y + 54 + 24 * n, width, anchor, top)
            x += width
        for n in range(min(lines, len(ordered)) + 1):
            y = self.y + 54 + 24 * n
            self.canvas.line([(self.x + 8, y), (self.x + self.w - 8, y)], GRID, 0.7)

    def _weight(self, field, name, rows, style):
        if style.get("custom.cellOptions", {}).get("type") == "gauge":
            return 190
        longest = max((_width(str(row[field]), 12) for row in rows if isinstance(row.get(field), str)), default=60)
        return min(300, max(longest, _width(name, 12), 60)) + 24

    def _cell(self, value, style, x, y, width, anchor, top):
        if value is None:
            return
        if isinstance(value, str):
            mapped = _mapped(value, style.get("mappings", []))
            colour = NAMED.get(mapped[1], TEXT) if mapped else "#6e9fff" if "links" in style else TEXT
            self.canvas.text(x + 2, y + 16, _cut(value, 12, width - 8), 12, colour)
            return
        text = self.written(value, style.get("unit", self.unit), style.get("decimals", self.decimals))
        kind = style.get("custom.cellOptions", {}).get("type", "auto")
        colour = _colour(value, style["thresholds"]) if "thresholds" in style else NAMED.get(style.get("color", {}).get("fixedColor"), "#FF9830")
        fill = TEXT
        if kind == "color-background":
            self.canvas.rect(x + 1, y + 1, width - 4, 22, colour, opacity=0.85, radius=1)
            fill = "#101114"
        elif kind == "color-text":
            fill = colour
        elif kind == "gauge":
            room = width - 84
            self.canvas.rect(x + 2, y + 5, room, 14, "#22252b", radius=2)
            self.canvas.rect(x + 2, y + 5, room * min(1, max(0, value) / style.get("max", top)), 14, colour, radius=2, opacity=0.8)
            self.canvas.text(x + width - 10, y + 16, text, 12, colour, "end")
            return
        self.canvas.text(x + (width - 12 if anchor == "end" else 2), y + 16, text, 12, fill, anchor)


def _whole(unit, span):
    """What is one of something: a KiB, a MiB, a minute, an hour; else 1."""
    if unit in ("bytes", "Bps"):
        return 1024 ** max(0, math.floor(math.log(span or 1, 1024)))
    return 3600 if unit == "s" and span > 7200 else 60 if unit == "s" and span > 120 else 1


def _ticks(low, high, whole):
    """About five round numbers of what is whole."""
    span = (high - low) or 1
    size = whole * 10 ** math.floor(math.log10(span / whole))
    step = next(one for one in (size * f for f in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10)) if span / one <= 5)
    first = math.floor(low / step)
    return [round(n * step, 12) for n in range(first, math.ceil(high / step) + 1)]


def _runs(points, step):
    """Parts of a line without a gap."""
    run = []
    for at, value in points:
        if value is None or (run and at - run[-1][0] > 2.5 * step):
            if len(run) > 1:
                yield run
            run = []
        if value is not None:
            run.append((at, value))
    if len(run) > 1:
        yield run


def draw(reader, count=None):
    """The picture of a dashboard; of its first `count` panels, if it says so."""
    canvas, shown, drawn = Canvas(), [], 0
    for panel in reader.model["panels"]:
        if panel["type"] == "row" and panel["collapsed"]:
            continue
        if panel["type"] != "row":
            if count is not None and drawn >= count:
                break
            drawn += 1
        shown.append(panel)
    while shown and shown[-1]["type"] == "row":
        shown.pop()
    width, head = 24 * COLUMN + 2 * EDGE, 62
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown)
    height = head + bottom * ROW + EDGE
    canvas.rect(0, 0, width, height, BACKGROUND)
    canvas.text(EDGE + 4, 34, reader.model["title"], 19, TEXT, weight=600)
    choices = [
        f"{variable['label']}: {'All' if reader.values[name] == ['$__all'] else _text(variable, reader.values[name])}"
        for name, variable in reader.variables.items()
        if not variable["hide"] and variable["type"] != "datasource"
    ]
    canvas.text(width - EDGE - 4, 34, "    ".join(choices), 12.5, FAINT, "end")
    for panel in shown:
        place = panel["gridPos"]
        box = (EDGE + place["x"] * COLUMN + GAP / 2, head - 8 + place["y"] * ROW, place["w"] * COLUMN - GAP, place["h"] * ROW - GAP)
        if panel["type"] == "row":
            canvas.text(box[0] + 4, box[1] + 22, f"⌄  {panel['title']}", 14, TEXT, weight=500)
        else:
            Panel(canvas, reader, panel, box).draw()
    body = "\n".join(canvas.parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {FONT}>\n{body}\n</svg>'


def _text(variable, value):
    for option in variable.get("options", []):
        if option["value"] == value:
            return option["text"]
    return value
