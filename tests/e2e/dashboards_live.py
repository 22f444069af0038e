"""Every query of the dashboards, run on a real Prometheus that scrapes weir under `weir demo`, with variables as Grafana puts them in: each has
data, or stands below with the reason why the demo lacks it."""

import json
import math
import re
import subprocess
import sys
import time
import urllib.request
from xml.etree import ElementTree

from harness import HERE, WEIR, WORK, Process, get, main, moved, port, promise, until, weir

DASHBOARDS = HERE.parent.parent / "dashboards"
sys.dont_write_bytecode = True
sys.path.insert(0, str(DASHBOARDS))

from source.drawing import draw  # noqa: E402
from source.reader import Prometheus, Reader, Unanswered, panels  # noqa: E402

# (dashboard, panel, query): why the demo lacks it. What stands here and has data is a fault, too.
LACKS = {
    ("weir-services", "Services, worst first", "F"): "nobody waits an hour for calls of an hour before",
    ("weir-self", "Documents, by outcome", "A"): "no Elasticsearch: dashboards_logs has one",
    ("weir-self", "Held for nobody", "A"): "no exporter was taken out of a configuration",
    ("weir-self", "New dead letters, by consumer", "A"): "nothing was refused for good",
    ("weir-self", "Rows, of what there may be", "B"): "rows are of services, whose number has no limit",
    ("weir-self", "Dropped, by reason", "A"): "nothing is dropped: what the dead backend does not take is held",
    ("weir-self", "Left out of the page", "A"): "everything could be shown",
    ("weir-self", "Left out of the page", "B"): "everything could be shown",
    ("weir-self", "Left out of the page", "C"): "everything could be shown",
}
# May have data or not, as the machine is.
BY_MACHINE = {
    ("weir-hosts", "File systems", "D"): "only a file system that fills up is full some day",
    ("weir-hosts", "Read and written", "A"): "only devices that do something",
    ("weir-hosts", "Busy", "A"): "not every machine shows its disks",
    ("weir-hosts", "Hosts", "E"): "not every machine shows its disks",
    ("weir-hosts", "Time an operation takes", "A"): "only devices that do something",
    ("weir-hosts", "Errors and drops", "A"): "only interfaces that drop or err",
    ("weir-hosts", "Errors and drops", "B"): "only interfaces that drop or err",
    ("weir-hosts", "CPU of the container", "A"): "only in a group of cgroup v2",
    ("weir-hosts", "CPU of the container", "B"): "only with a limit",
    ("weir-hosts", "CPU of the container", "C"): "only in a group of cgroup v2",
    ("weir-hosts", "Memory of the container", "A"): "only in a group of cgroup v2",
    ("weir-hosts", "Memory of the container", "B"): "only in a group of cgroup v2",
    ("weir-hosts", "Memory of the container", "C"): "only with a limit",
}
FAMILIES = {"Collector": "traces_span_metrics", "Tempo": "traces_spanmetrics"}


def targets(model):
    for panel in panels(model):
        for target in panel["targets"]:
            if target["datasource"]["type"] == "prometheus":
                yield panel, target


def has_data(rows):
    """Whether there is a number, or a native histogram, among the samples."""
    if any("histogram" in row or "histograms" in row for row in rows):
        return True
    values = (value for row in rows for _, value in row.get("values", [row.get("value")]))
    return any(not math.isnan(float(value)) for value in values)


def legends(target, rows, fill):
    """Names of the series, as the legend says."""
    legend = fill(target["legendFormat"])
    return [re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: row["metric"].get(match.group(1), ""), legend).strip(" ·:") for row in rows]


class World:
    """A weir under the demo, one of whose backends is dead, and a Prometheus that reads it and the rules."""

    def __init__(self, *more, features=("exemplar-storage",)):
        sets, ports = moved()
        sets += ["--set", "receivers::host_metrics::collection_interval=1s", *more]
        dead = port()
        self.weir = weir(["run", *sets, "--forward", f"127.0.0.1:{dead}"])
        for number in (4317, 4318, 8888, 8889):
            self.weir.listens(ports[number])
        printed = subprocess.run([WEIR, "scrape-config", *sets], capture_output=True, text=True, timeout=20).stdout
        rules = WORK / f"rules-{dead}"
        rules.mkdir()
        for file in (DASHBOARDS / "rules").glob("*.yaml"):
            # Nobody waits here: what would be an alert is one at once.
            text = file.read_text().replace("interval: 2m", "interval: 1s")
            (rules / file.name).write_text(re.sub(r"for: \d+m", "for: 0s", text))
        config = WORK / f"prometheus-{dead}.yml"
        job = printed.replace("scrape_interval: 15s", "scrape_interval: 1s\n    scrape_timeout: 1s")
        config.write_text(f"global: {{evaluation_interval: 1s}}\nrule_files: [{json.dumps(str(rules / '*.yaml'))}]\n{job}")
        number = port()
        self.url = f"http://127.0.0.1:{number}"
        flags = [f"--config.file={config}", f"--storage.tsdb.path={WORK / f'data-{dead}'}", f"--web.listen-address=127.0.0.1:{number}"]
        Process("prometheus", ["prometheus", *flags, f"--enable-feature={','.join(features)}", "--log.level=warn"]).listens(number)
        # It listens before it answers.
        until(lambda: get(f"{self.url}/-/ready")[0] == 200, 30)
        arguments = ["demo", "--endpoint", f"http://127.0.0.1:{ports[4317]}", "--rate", "20", "--seed", "7", "--error-pct", "20"]
        self.demo = Process("demo", [WEIR, *arguments])
        self.http = ports[4318]
        self.began = time.time()

    def send_rubbish(self):
        """A request that the door refuses."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/v1/traces", b"\xff" * 64, {"content-type": "application/x-protobuf"})
        try:
            urllib.request.urlopen(request, timeout=10)
        except OSError:
            pass

    def reader(self, model, **chosen):
        end = time.time()
        return Reader(model, Prometheus(self.url), max(self.began, end - 120), end, points=60, scrape=1, chosen=chosen)


def answers(world, models, chosen):
    """{(dashboard, panel, query): rows, or what Prometheus said}, and the readers by dashboard."""
    got, readers = {}, {}
    world.send_rubbish()
    for model in models:
        reader = readers[model["uid"]] = world.reader(model, **{name: value for name, value in chosen.items() if name in {v["name"] for v in model["templating"]["list"]}})
        for panel, target in targets(model):
            try:
                got[model["uid"], panel["title"], target["refId"]] = reader.run(target)
            except Unanswered as said:
                got[model["uid"], panel["title"], target["refId"]] = str(said)
    return got, readers


def executed(world, models, family, namespace):
    def missing():
        got, _ = answers(world, models, {"family": namespace})
        return {key: rows if isinstance(rows, str) else "no data" for key, rows in got.items() if key not in LACKS and key not in BY_MACHINE and (isinstance(rows, str) or not has_data(rows))}

    left = until(lambda: not missing(), 90, 2) or missing()
    got, readers = answers(world, models, {"family": namespace})
    promise(f"all {len(got)} queries have data, or are listed ({family} names)", left is True, left)
    refused = {key: rows for key, rows in got.items() if isinstance(rows, str)}
    promise(f"Prometheus runs all of them ({family} names)", not refused, refused)
    listed = {key: reason for key, reason in LACKS.items() if key not in got or (not isinstance(got[key], str) and has_data(got[key]))}
    promise(f"what is listed as lacking is there, and lacks ({family} names)", not listed, listed)
    strange = [key for key in BY_MACHINE if key not in got]
    promise("what depends on the machine is there", not strange, strange)
    empty = {uid: [name for name, values in reader.offered.items() if not values] for uid, reader in readers.items()}
    promise(f"every variable has values ({family} names)", not any(empty.values()), empty)
    return got, readers


def readable(models, got, readers):
    """What a person reads: names of series, columns of tables."""
    nameless, alike, columns = [], [], []
    for model in models:
        fill = readers[model["uid"]].fill
        for panel in panels(model):
            rows = {target["refId"]: got.get((model["uid"], panel["title"], target["refId"]), []) for target in panel["targets"]}
            rows = {ref: found for ref, found in rows.items() if not isinstance(found, str)}
            if panel["type"] == "table":
                fields = {label for found in rows.values() for row in found for label in row["metric"]} | {f"Value #{ref}" for ref in rows} | {"Value"}
                organize = next((step["options"] for step in panel["transformations"] if step["id"] == "organize"), {"renameByName": {}, "excludeByName": {}})
                shown = {}
                for field, name in organize["renameByName"].items():
                    shown.setdefault(name, set()).add(field)
                if any(rows.values()):
                    columns += [(model["uid"], panel["title"], name) for name, of in shown.items() if not of & fields and (model["uid"], name) not in BY_ROW]
                    odd = fields - {field for of in shown.values() for field in of} - set(organize["excludeByName"]) - {"Value", "Time", "__name__"} - {f"Value #{ref}" for ref in rows}
                    columns += [(model["uid"], panel["title"], f"{field} stands there under its own name") for field in odd if panel["title"] != "Processes"]
            elif panel["type"] != "heatmap":
                names = [name for target in panel["targets"] if rows.get(target["refId"]) for name in legends(target, rows[target["refId"]], fill)]
                nameless += [(model["uid"], panel["title"])] if not all(names) else []
                alike += [(model["uid"], panel["title"], names)] if len(set(names)) != len(names) else []
    promise("every series has a name", not nameless, nameless)
    promise("no two series of a panel have one name", not alike, alike)
    promise("every column of a table is filled, and named by us", not columns, columns)


# Columns that only some alerts or processes fill.
BY_ROW = {
    ("weir-services", name): "an alert is on a service, a component or a host" for name in ("Service", "Component", "Host", "Mount", "Reason")
} | {("weir-service", name): "as the SDK says it" for name in ("Version", "Host", "Environment", "Language", "Process", "Instance")}


def exemplars(world, models):
    found, asked = {}, 0
    for model in models:
        reader = world.reader(model)
        for panel, target in targets(model):
            if target.get("exemplar"):
                asked += 1
                expr = reader.fill(target["expr"])
                found[model["uid"], panel["title"]] = [one["labels"] for row in reader.prometheus.exemplars(expr, reader.start, reader.end) for one in row["exemplars"]]
    counts = {key: len(labels) for key, labels in found.items()}
    promise("heat maps have exemplars that name traces", asked and all(labels and all(re.fullmatch("[0-9a-f]{32}", one.get("trace_id", "")) for one in labels) for labels in found.values()), counts)


def drawn(world, models):
    """What `dashboards/preview` makes: every panel in its place, those of collapsed rows left out."""
    missing, broken = [], []
    for model in models:
        reader = world.reader(model)
        try:
            texts = [one.text for one in ElementTree.fromstring(draw(reader)).iter("{http://www.w3.org/2000/svg}text")]
            missing += [(model["uid"], panel["title"]) for panel in model["panels"] if panel["type"] != "row" and not any(reader.fill(panel["title"]).startswith(text.rstrip("…")) for text in texts if text)]
        except Exception as error:
            broken.append((model["uid"], repr(error)))
    promise("each dashboard can be drawn", not broken, broken)
    promise("every panel is in the drawing", not missing, missing)


def down(world, models):
    """What a person sees first when weir is gone."""
    panel = next(panel for model in models if model["uid"] == "weir-self" for panel in panels(model) if panel["title"] == "Takes data")
    model = next(model for model in models if model["uid"] == "weir-self")

    def says():
        reader = world.reader(model)
        rows = reader.run(panel["targets"][0])
        return float(rows[0]["values"][-1][1]) if rows else None

    promise("weir takes data, says the dashboard", until(lambda: says() == 1, 30, 0.5), says())
    world.weir.stop()
    promise("without weir it says that nobody does", until(lambda: says() == 0, 30, 0.5), says())


def native(models):
    """The same dashboards where durations are native histograms, which have a name of their own and no buckets."""
    exponential = ["--set", "connectors::span_metrics::histogram={exponential: {max_size: 160}}"]
    world = World(*exponential, features=("exemplar-storage", "native-histograms"))
    red = [model for model in models if model["uid"] in ("weir-services", "weir-service")]

    def missing():
        got, readers = answers(world, red, {})
        lacking = {key: rows if isinstance(rows, str) else "no data" for key, rows in got.items() if key not in LACKS and (isinstance(rows, str) or not has_data(rows))}
        names = {reader.values["latency"] for reader in readers.values()}
        # The objectives' rules count classic buckets.
        lacking = {key: why for key, why in lacking.items() if key[1] != "Error budget burns"}
        return lacking or (None if names == {"traces_span_metrics_duration_milliseconds"} else names)

    left = until(lambda: not missing(), 60, 2) or missing()
    promise("all queries of services have data from native histograms, too", left is True, left)


def check():
    models = [json.loads(path.read_text()) for path in sorted((DASHBOARDS / "grafana").glob("*.json"))]
    world = World()
    for family, namespace in FAMILIES.items():
        got, readers = executed(world, models, family, namespace)
        chosen = {uid: reader.values["latency"] for uid, reader in readers.items() if "latency" in reader.values}
        promise(f"durations are of the family ({family} names)", chosen and all(name.startswith(f"{namespace}_") for name in chosen.values()), chosen)
        readable(models, got, readers)
    exemplars(world, models)
    native(models)
    marks = [(model["uid"], one["name"], one["expr"]) for model in models for one in model["annotations"]["list"] if "expr" in one]
    refused = []
    for model in models:
        reader = world.reader(model)
        for one in model["annotations"]["list"]:
            if "expr" in one:
                try:
                    reader.prometheus.range(reader.fill(one["expr"]), reader.start, reader.end, reader.step)
                except Unanswered as said:
                    refused.append((model["uid"], one["name"], str(said)))
    promise(f"Prometheus runs the {len(marks)} queries of marks", marks and not refused, refused)
    drawn(world, models)
    down(world, models)


main(check)
