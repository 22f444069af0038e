"""The dashboard of logs on a real OpenSearch: every search as Grafana sends it, over what weir's exporter wrote of `weir demo`, in each mapping."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

from harness import CACHE, HERE, WEIR, WORK, Process, demo, main, port, promise, until, weir

DASHBOARDS = HERE.parent.parent / "dashboards"
sys.dont_write_bytecode = True
sys.path.insert(0, str(DASHBOARDS))

from source.reader import VARIABLE, panels  # noqa: E402

# What the variable `service_field` offers, and the mapping that writes it so.
MAPPINGS = {"service.name": "ecs", "Resource.service.name": "none"}

CONFIG = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{otlp}"}}}}}}}}
exporters:
{exporters}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [{names}]}}
"""
EXPORTER = """  elasticsearch/{mode}:
    endpoint: http://127.0.0.1:{http}
    logs_index: logs-{mode}
    mapping: {{mode: {mode}}}
"""


def ask(http, path, body):
    """(status, JSON) of a search."""
    request = urllib.request.Request(f"http://127.0.0.1:{http}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def fill(text, values):
    """Variables as Grafana writes them in Lucene's language: several values are quoted and joined by OR, all are what the variable says."""

    def written(match):
        value = values[match.group(1) or match.group(3)]
        return value if isinstance(value, str) else "(" + " OR ".join(f'"{one}"' for one in value) + ")"

    return VARIABLE.sub(written, text)


def searched(text):
    return {"query_string": {"analyze_wildcard": True, "query": text}}


def body(target, values, start, end):
    """The search that Grafana makes of a query."""
    span = {"gte": round(start * 1000), "lte": round(end * 1000), "format": "epoch_millis"}
    search = {"size": 0, "query": {"bool": {"filter": [{"range": {target["timeField"]: span}}, searched(fill(target["query"], values))]}}}
    if target["metrics"][0]["type"] == "logs":
        return {**search, "size": int(target["metrics"][0]["settings"]["limit"]), "sort": [{target["timeField"]: {"order": "desc", "unmapped_type": "boolean"}}]}
    inside = search
    for bucket in target["bucketAggs"]:
        settings = bucket["settings"]
        if bucket["type"] == "terms":
            made = {"terms": {"field": fill(bucket["field"], values), "size": int(settings["size"]), "order": {settings["orderBy"]: settings["order"]}, "min_doc_count": int(settings["min_doc_count"])}}
        elif bucket["type"] == "filters":
            made = {"filters": {"filters": {one["label"]: searched(one["query"]) for one in settings["filters"]}}}
        else:
            bounds = {"min": span["gte"], "max": span["lte"]}
            made = {"date_histogram": {"field": bucket["field"], "fixed_interval": "10s", "min_doc_count": int(settings["min_doc_count"]), "extended_bounds": bounds, "format": "epoch_millis"}}
        inside["aggs"] = {bucket["id"]: made}
        inside = made
    return search


def counted(target, answer):
    """{series: documents} of an answer."""
    if target["metrics"][0]["type"] == "logs":
        return {"lines": len(answer["hits"]["hits"])}
    *outer, last = [bucket["id"] for bucket in target["bucketAggs"]]
    found = {"all": answer["aggregations"]}
    for bucket in outer:
        groups = found["all"][bucket]["buckets"]
        found = groups if isinstance(groups, dict) else {group["key"]: group for group in groups}
    return {name: sum(one["doc_count"] for one in group[last]["buckets"]) for name, group in found.items()}


def check():
    model = json.loads((DASHBOARDS / "grafana/weir-logs.json").read_text())
    variables = {variable["name"]: variable for variable in model["templating"]["list"]}
    offered = {option["value"] for option in variables["service_field"]["options"]}
    promise("every field of services that is offered is tried here", set(MAPPINGS) == offered, offered)
    http, otlp = port(), port()
    server = Process("opensearch", [HERE / "opensearch.sh", "run", CACHE / "opensearch", WORK / "opensearch", http])
    if not until(lambda: "ready" in server.text(), 240, 0.5):
        raise RuntimeError(f"OpenSearch does not come: {server.text()[-2000:]}")
    modes = list(MAPPINGS.values())
    config = WORK / "logs.yaml"
    exporters = "".join(EXPORTER.format(mode=mode, http=http) for mode in modes)
    config.write_text(CONFIG.format(otlp=otlp, exporters=exporters, names=", ".join(f"elasticsearch/{mode}" for mode in modes)))
    done = subprocess.run([WEIR, "elasticsearch", "setup", str(config)], capture_output=True, text=True, timeout=120)
    promise("setup installs the templates", done.returncode == 0, done.stdout + done.stderr)
    front = weir(["run", "--config", config]).listens(otlp)
    start = time.time()
    _, (_, lines, _) = demo("--endpoint", f"http://127.0.0.1:{otlp}", "--rate", "20", "--duration", "5s", "--seed", "7", "--error-pct", "20")
    end = time.time() + 5
    promise("the demo writes lines", lines > 0, lines)
    for field, mode in MAPPINGS.items():
        index = f"/logs-{mode}"

        def stored():
            ask(http, f"{index}/_refresh", {})
            return ask(http, f"{index}/_count", {"query": {"match_all": {}}})[1].get("count") == lines

        promise(f"all {lines} lines are stored ({mode})", until(stored, 60, 0.5), front.text()[-1500:])
        values = {"service_field": field, "service": variables["service"]["allValue"], "search": variables["search"]["current"]["value"]}
        find = json.loads(fill(variables["service"]["query"], values))
        _, answer = ask(http, f"{index}/_search", {"size": 0, "aggs": {"1": {"terms": {"field": find["field"], "size": find["size"]}}}})
        services = [one["key"] for one in answer.get("aggregations", {"1": {"buckets": []}})["1"]["buckets"]]
        promise(f"the variable offers the services ({mode})", "web" in services and len(services) > 3, answer if not services else services)
        found, refused = {}, {}
        for panel in panels(model):
            for target in panel["targets"]:
                if target["datasource"]["type"] == "elasticsearch":
                    status, answer = ask(http, f"{index}/_search", body(target, values, start, end))
                    key = panel["title"], target["refId"]
                    if status == 200:
                        found[key] = counted(target, answer)
                    else:
                        refused[key] = answer
        promise(f"OpenSearch answers all searches ({mode})", found and not refused, refused)
        empty = [key for key, series in found.items() if not sum(series.values())]
        promise(f"all {len(found)} searches have data ({mode})", not empty, empty)
        promise(f"no line is missing ({mode})", found["Lines", "A"] in ({"all": lines}, {"lines": min(lines, 500)}), found["Lines", "A"])
        levels = found["Lines by level", "A"]
        promise(f"every line is of one level ({mode})", sum(levels.values()) == lines and levels["error"] > 0, levels)
        by_service = found["Errors by service", "A"]
        promise(f"errors by service are the errors ({mode})", sum(by_service.values()) == levels["error"] == found["Errors", "A"]["all"], by_service)
        one = {**values, "service": ["web"]}
        target = next(target for panel in panels(model) if panel["title"] == "Lines by service" for target in panel["targets"])
        _, answer = ask(http, f"{index}/_search", body(target, one, start, end))
        promise(f"a service that is chosen stands alone ({mode})", list(counted(target, answer)) == ["web"], answer)
    expressions(model)


def expressions(model):
    """What Grafana counts from answers names queries that there are."""
    wrong = []
    for panel in panels(model):
        refs = [target["refId"] for target in panel["targets"]]
        for target in panel["targets"]:
            if target["datasource"]["type"] == "__expr__":
                named = [one.strip("$ ") for one in target["expression"].split("/")]
                wrong += [(panel["title"], name) for name in named if name not in refs[: refs.index(target["refId"])]]
    promise("expressions name queries that stand before them", not wrong, wrong)


main(check)
