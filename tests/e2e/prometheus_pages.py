"""Debian's Prometheus scrapes weir with the job that `weir scrape-config` prints: targets, exemplars, native histograms, and the queries
that Jaeger's Monitor tab and Grafana's service table ask."""

import json
import os
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from harness import OPEN_METRICS, WEIR, WORK, Process, get, main, port, promise, until, weir

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
# What `promtool check metrics` says about names that Jaeger and the Collector fixed long ago.
KNOWN_LINT = ("use base unit",)

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{otlp}"}}}}}}
connectors:
  span_metrics:
    families: [collector, tempo]
    exemplars: {{enabled: true}}
exporters:
  prometheus:
    endpoint: "127.0.0.1:{page}"
    enable_open_metrics: true
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [span_metrics]}}
    metrics: {{receivers: [otlp, span_metrics], exporters: [prometheus]}}
"""


def attributes(**pairs):
    return [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in pairs.items()]


def post(number, path, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{number}/v1/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status


def spans(step):
    """Ten calls of two services, one of them failed."""
    now = time.time_ns()

    def span(number, name):
        took = (5 + 40 * number) * 1_000_000
        return {
            "traceId": f"{step + 1:016x}{number + 1:016x}",
            "spanId": f"{step * 10 + number + 1:016x}",
            "name": name,
            "kind": 2,
            "startTimeUnixNano": str(now - took),
            "endTimeUnixNano": str(now),
            "status": {"code": 2} if number == 0 else {},
        }

    def service(name, numbers):
        return {
            "resource": {"attributes": attributes(service__name=name, service__instance__id=f"{name}-1")},
            "scopeSpans": [{"spans": [span(number, "GET /cart") for number in numbers]}],
        }

    return {"resourceSpans": [service("cart", range(5)), service("checkout", range(5, 10))]}


def metrics(step, start):
    """A histogram of exponential buckets, a gauge of UTF-8 name, and one counter of two replicas that do not say which they are."""
    now = str(time.time_ns())
    buckets = [str(4 * (step + 1)), "0", str(step + 1)]
    exponential = {
        "name": "payload.size",
        "unit": "By",
        "description": "Size of payloads.",
        "exponentialHistogram": {
            "aggregationTemporality": 2,
            "dataPoints": [
                {
                    "startTimeUnixNano": start,
                    "timeUnixNano": now,
                    "count": str(5 * (step + 1)),
                    "sum": 700.0 * (step + 1),
                    "scale": 1,
                    "zeroCount": "0",
                    "positive": {"offset": 10, "bucketCounts": buckets},
                }
            ],
        },
    }
    gauge = {
        "name": "queue.länge",
        "description": "Waiting.",
        "gauge": {"dataPoints": [{"timeUnixNano": now, "asDouble": 3.5, "attributes": attributes(room__name='a "b" \\ c\n')}]},
    }
    counter = {
        "name": "jobs",
        "description": "Jobs done.",
        "sum": {
            "aggregationTemporality": 2,
            "isMonotonic": True,
            "dataPoints": [{"startTimeUnixNano": start, "timeUnixNano": now, "asInt": str(10 * (step + 1))}],
        },
    }

    def of(resource, *found):
        return {"resource": {"attributes": attributes(**resource)}, "scopeMetrics": [{"scope": {"name": "e2e"}, "metrics": found}]}

    replicas = [of({"service__name": "jobs", "k8s__pod__name": f"jobs-{number}"}, counter) for number in (0, 1)]
    return {"resourceMetrics": [of({"service__name": "cart", "service__instance__id": "cart-1"}, exponential, gauge), *replicas]}


def promtool(page):
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60)
    said = [line for line in (checked.stdout + checked.stderr).splitlines() if line.strip()]
    odd = [line for line in said if not any(known in line for known in KNOWN_LINT)]
    return checked.returncode in (0, 3) and not odd, "; ".join(odd[:5]) or f"exit {checked.returncode}"


class Prometheus:
    """A Prometheus of its own, fed by the printed job."""

    def __init__(self, name, job, features):
        self.port = port()
        folder = WORK / name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "prometheus.yml"
        file.write_text(job.replace("scrape_interval: 15s", "scrape_interval: 1s\n    scrape_timeout: 1s"))
        checked = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, timeout=60)
        promise(f"promtool takes the printed job ({name})", checked.returncode == 0, checked.stdout + checked.stderr)
        self.process = Process(
            name,
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                f"--enable-feature={features}",
                "--log.level=warn",
            ],
        ).listens(self.port)

    def api(self, path, **arguments):
        status, _, text = get(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
        return json.loads(text)["data"] if status == 200 else None

    def query(self, query):
        """[(labels, value)] of an instant query."""
        found = self.api("query", query=query) or {"result": []}
        return [(row["metric"], float(row["value"][1])) for row in found["result"] if "value" in row]

    def answered(self, query, holds=lambda rows: bool(rows)):
        return until(lambda: holds(self.query(query)) and self.query(query), 30, 0.5)


def check():
    otlp, page = port(), port()
    config = WORK / "weir.yaml"
    config.write_text(CONFIG.format(otlp=otlp, page=page))
    started = weir(["run", "--config", str(config)])
    started.listens(otlp)
    started.listens(page)
    printed = subprocess.run([WEIR, "scrape-config", "--config", str(config)], capture_output=True, text=True, timeout=20)
    promise("scrape-config prints a job that keeps labels", "honor_labels: true" in printed.stdout, printed.stderr)

    start = str(time.time_ns())
    stop = threading.Event()

    def feed():
        step = 0
        while not stop.is_set():
            post(otlp, "traces", spans(step))
            post(otlp, "metrics", metrics(step, start))
            step += 1
            stop.wait(0.5)

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    url = f"http://127.0.0.1:{page}/metrics"
    until(lambda: "traces_spanmetrics_latency_bucket" in get(url)[2] and "payload_size_bytes" in get(url)[2], 30)

    for name, accept in (("text 0.0.4", "text/plain;version=0.0.4"), ("text 1.0.0", "text/plain;version=1.0.0")):
        status, headers, text = get(url, accept)
        promise(f"promtool finds nothing wrong in {name}", *promtool(text))
        said = {key.lower(): value for key, value in headers.items()}.get("content-type", "")
        promise(f"{name} says what it is", status == 200 and accept.split("=")[1] in said, said)
    _, _, text = get(url, OPEN_METRICS)
    promise("OpenMetrics ends in # EOF and has exemplars", text.endswith("# EOF\n") and " # {trace_id=" in text, text[-200:])

    om = Prometheus("open-metrics", printed.stdout, "exemplar-storage")
    native = Prometheus("native", printed.stdout, "exemplar-storage,native-histograms")
    for name, server in (("OpenMetrics", om), ("protobuf", native)):

        def up(server=server):
            targets = (server.api("targets") or {"activeTargets": []})["activeTargets"]
            return targets and all(target["health"] == "up" for target in targets) and targets

        targets = until(up, 30, 0.5)
        promise(f"the target is up ({name})", targets, server.process.text()[-500:])
        rows = server.answered("jobs_total", lambda rows: len(rows) == 2)
        instances = sorted(labels.get("instance", "") for labels, _ in rows or [])
        promise(f"replicas without an id stay apart ({name})", instances == ["jobs-0", "jobs-1"], instances)
        rows = server.answered('{__name__=~"queue_l.*nge"}')
        promise(
            f"odd names and labels arrive ({name})",
            rows and rows[0][0].get("room_name") == 'a "b" \\ c\n' and rows[0][1] == 3.5,
            rows,
        )
        rows = server.answered("target_info or payload_size_bytes_count or histogram_count(payload_size_bytes)")
        promise(f"the labels of the senders are kept ({name})", rows and all(labels.get("job") in ("cart", "checkout", "jobs") for labels, _ in rows), rows)

    rows = native.answered("histogram_count(payload_size_bytes)", lambda rows: rows and rows[0][1] >= 5 and rows[0][1] % 5 == 0)
    promise("native histograms are stored", rows, native.process.text()[-500:])
    median = native.query("histogram_quantile(0.5, payload_size_bytes)")
    promise("their quantiles are those of what was sent", median and 2**5 <= median[0][1] <= 2**5.5, median)

    def exemplars():
        found = om.api(
            "query_exemplars",
            query="traces_span_metrics_duration_milliseconds_bucket",
            start=str(time.time() - 300),
            end=str(time.time() + 5),
        )
        return [exemplar["labels"] for series in found or [] for exemplar in series["exemplars"]]

    found = until(exemplars, 30, 0.5)
    promise("exemplars are stored with their trace ids", found and all(len(labels["trace_id"]) == 32 for labels in found), found)

    # === Jaeger's Monitor tab ===
    of = 'service_name=~"cart",span_kind=~"SPAN_KIND_SERVER"'
    calls = f"sum(rate(traces_span_metrics_calls_total{{{of}}}[10m])) by (service_name)"
    failed = f'sum(rate(traces_span_metrics_calls_total{{{of},status_code="STATUS_CODE_ERROR"}}[10m])) by (service_name)'
    latency = f"histogram_quantile(0.95, sum(rate(traces_span_metrics_duration_milliseconds_bucket{{{of}}}[10m])) by (service_name,span_name,le))"
    rows = om.answered(calls, lambda rows: rows and rows[0][1] > 0)
    promise("Jaeger: calls", rows and rows[0][0] == {"service_name": "cart"}, rows)
    rows = om.answered(f"{failed} / {calls}", lambda rows: rows and 0.1 < rows[0][1] < 0.3)
    promise("Jaeger: one call in five failed", rows, om.query(f"{failed} / {calls}"))
    rows = om.answered(latency, lambda rows: rows and 100 < rows[0][1] <= 250)
    promise("Jaeger: latency", rows, om.query(latency))

    # === Grafana's service table ===
    server = 'span_kind="SPAN_KIND_SERVER"'
    rows = om.answered(
        f"topk(5, sum(rate(traces_spanmetrics_calls_total{{{server}}}[10m])) by (span_name))", lambda rows: rows and rows[0][1] > 0
    )
    promise("Grafana: the busiest span names", rows and rows[0][0] == {"span_name": "GET /cart"}, rows)
    rows = om.answered(
        f'sum(rate(traces_spanmetrics_calls_total{{{server},status_code="STATUS_CODE_ERROR"}}[10m])) by (span_name)',
        lambda rows: rows and rows[0][1] > 0,
    )
    promise("Grafana: errors", rows)
    rows = om.answered(
        'histogram_quantile(.9, sum(rate(traces_spanmetrics_latency_bucket{span_name=~"GET /cart"}[10m])) by (le))',
        lambda rows: rows and 0.1 < rows[0][1] < 0.6,
    )
    promise("Grafana: p90 in seconds", rows)
    stop.set()
    feeding.join(30)


main(check)
