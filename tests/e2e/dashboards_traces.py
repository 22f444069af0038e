"""From dashboards to traces, on a real Jaeger: the searches show what their titles say, and the exemplars of a heat map lead to traces that are there."""

import json
import sys
import time
import urllib.parse

from harness import CACHE, HERE, WORK, Process, demo, get, main, moved, port, promise, samples, until, weir

DASHBOARDS = HERE.parent.parent / "dashboards"
sys.dont_write_bytecode = True
sys.path.insert(0, str(DASHBOARDS))

from source.reader import panels  # noqa: E402

JAEGER = """
extensions:
  jaeger_storage: {{backends: {{some: {{memory: {{max_traces: 10000}}}}}}}}
  jaeger_query: {{storage: {{traces: some}}, http: {{endpoint: "127.0.0.1:{http}"}}, grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{otlp}"}}}}}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: some}}}}
service:
  extensions: [jaeger_storage, jaeger_query]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}}}
"""
# What is true of each trace that a panel shows.
SAYS = {
    "Traces with errors": lambda trace: any(tag["key"] == "error" and tag["value"] for span in trace["spans"] for tag in span["tags"]),
    "Slow traces": lambda trace: max(span["duration"] for span in trace["spans"]) >= 1_000_000,
}


def search(http, target, service, start, end):
    """The traces that Jaeger answers to what Grafana makes of a query: words become JSON, times microseconds."""
    asked = {"service": target["service"].replace("$service", service), "limit": target["limit"], "start": round(start * 1e6), "end": round(end * 1e6)}
    if "tags" in target:
        asked["tags"] = json.dumps(dict(word.split("=", 1) for word in target["tags"].split()))
    if "minDuration" in target:
        asked["minDuration"] = target["minDuration"]
    status, _, text = get(f"http://127.0.0.1:{http}/api/traces?{urllib.parse.urlencode(asked)}")
    return json.loads(text)["data"] or [] if status == 200 else []


def check():
    http, grpc, otlp = port(), port(), port()
    config = WORK / "jaeger.yaml"
    config.write_text(JAEGER.format(http=http, grpc=grpc, otlp=otlp))
    Process("jaeger", [CACHE / "peers/jaeger", "--config", config]).listens(otlp).listens(http)
    sets, ports = moved()
    weir(["run", *sets, "--forward", f"127.0.0.1:{otlp}"]).listens(ports[4317]).listens(ports[8889])
    start = time.time()
    done, _ = demo("--endpoint", f"http://127.0.0.1:{ports[4317]}", "--rate", "20", "--duration", "6s", "--seed", "7", "--error-pct", "20")
    promise("the demo is accepted", done.returncode == 0, done.stdout[-800:] + done.stderr[-800:])
    model = json.loads((DASHBOARDS / "grafana/weir-service.json").read_text())
    asked = {panel["title"]: target for panel in panels(model) for target in panel["targets"] if target["datasource"]["type"] == "jaeger"}
    promise("it is known here what each search says", set(asked) == set(SAYS), list(asked))
    for title, target in asked.items():
        found = until(lambda: search(http, target, "web", start, time.time()), 30, 0.5) or []
        wrong = [trace["traceID"] for trace in found if not SAYS[title](trace)]
        promise(f"{title} are what is shown ({len(found)})", found and not wrong, wrong)
    every = search(http, {"service": "web", "limit": 1000}, "web", start, time.time())
    promise("others are not shown", any(not says(trace) for says in SAYS.values() for trace in every), len(every))

    status, _, page = get(f"http://127.0.0.1:{ports[8889]}/metrics", "application/openmetrics-text;version=1.0.0")
    ids = {exemplar["trace_id"] for *_, exemplar in samples(page) if exemplar}
    absent = [one for one in ids if get(f"http://127.0.0.1:{http}/api/traces/{one}")[0] != 200]
    promise(f"each of {len(ids)} exemplars leads to a trace", ids and not absent, absent)


main(check)
