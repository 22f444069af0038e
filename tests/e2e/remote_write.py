"""The `prometheus_remote_write` exporter and a real Prometheus: what was sent over OTLP is what Prometheus answers, and what the `prometheus`
exporter shows of it; also when Prometheus and weir are killed in the middle."""

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from harness import CACHE, WEIR, WORK, Process, get, main, port, promise, samples, total, until, weir

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{otlp}"}}}}}}}}
exporters:
  prometheus: {{endpoint: "127.0.0.1:{page}"}}
  prometheus_remote_write:
    endpoint: http://127.0.0.1:{prometheus}/api/v1/write
    protobuf_message: {message}
    external_labels: {{site: e2e}}
    retry_on_failure: {{max_interval: 1s}}
service:
  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {own}}}}}}}}}]}}}}
  pipelines:
    metrics: {{receivers: [otlp], exporters: [prometheus_remote_write]}}
    metrics/page: {{receivers: [otlp], exporters: [prometheus]}}
"""
SERIES = 25


def attributes(**pairs):
    return [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in pairs.items()]


def request(metrics, service="cart"):
    resource = {"attributes": attributes(service__name=service, service__instance__id="i-1", cloud__region="eu")}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": {"name": "e2e", "version": "1"}, "metrics": metrics}]}]}


def post(number, body):
    """Whether it was answered 200."""
    sent = urllib.request.Request(f"http://127.0.0.1:{number}/v1/metrics", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(sent, timeout=20) as answer:
            return answer.status == 200
    except OSError:
        return False


def kinds(now, start):
    """One metric of each kind."""
    times = {"timeUnixNano": str(now), "startTimeUnixNano": str(start)}
    exemplar = {"timeUnixNano": str(now), "asDouble": 0.3, "traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708"}
    buckets = {"count": "6", "sum": 12.5, "explicitBounds": [0.5, 1, 2500000], "bucketCounts": ["1", "2", "0", "3"], "exemplars": [exemplar]}
    exponential = {"count": "9", "sum": 100.5, "scale": 1, "zeroCount": "2", "zeroThreshold": 0.001, "positive": {"offset": 3, "bucketCounts": ["4", "0", "3"]}}
    quantiles = {"count": "5", "sum": 2.5, "quantileValues": [{"quantile": 0.5, "value": 0.4}, {"quantile": 0.99, "value": 1.5}]}
    cumulative = {"aggregationTemporality": 2}
    return [
        {"name": "room.temperature", "unit": "Cel", "gauge": {"dataPoints": [{**times, "asDouble": 21.25, "attributes": attributes(room='a "b"\\\n')}]}},
        {"name": "http.requests", "unit": "{request}", "sum": {**cumulative, "isMonotonic": True, "dataPoints": [{**times, "asInt": "7"}]}},
        {"name": "queue.length", "sum": {**cumulative, "dataPoints": [{**times, "asInt": "-3"}]}},
        {"name": "duration", "unit": "s", "histogram": {**cumulative, "dataPoints": [{**times, **buckets}]}},
        {"name": "sizes", "unit": "By", "exponentialHistogram": {**cumulative, "dataPoints": [{**times, **exponential}]}},
        {"name": "latency", "unit": "ms", "summary": {"dataPoints": [{**times, **quantiles}]}},
    ]


class Prometheus:
    """A receiver of remote write that keeps its data when it is killed."""

    def __init__(self, binary="prometheus"):
        self.binary = binary
        self.port = port()
        self.folder = WORK / f"prometheus-{self.port}"
        self.folder.mkdir()
        (self.folder / "prometheus.yml").write_text("{}")
        self.start()

    def start(self):
        command = [
            self.binary,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-remote-write-receiver",
            "--enable-feature=exemplar-storage,native-histograms",
            "--log.level=warn",
        ]
        self.process = Process("prometheus", command).listens(self.port)
        until(lambda: get(f"http://127.0.0.1:{self.port}/-/ready")[0] == 200, 30)

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def api(self, path, **arguments):
        status, _, text = get(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
        return json.loads(text)["data"] if status == 200 else None

    def rows(self, query):
        found = self.api("query", query=query) or {"result": []}
        return found["result"]


def key(labels):
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def letters(data):
    """The dead letters of a directory, as weir shows them."""
    shown = subprocess.run([WEIR, "journal", "letters", "--data-dir", str(data)], capture_output=True, text=True, timeout=30)
    return shown.stdout + shown.stderr


def compare(server, page):
    """Every series on the page, with its value, is what Prometheus answers; and nothing else is there."""
    shown = {}
    for name, labels, value, _ in samples(get(page)[2]):
        shown[key({**labels, "__name__": name, "site": "e2e"})] = value
    # Text pages have no native histograms; the sum and count they show of one are no series in Prometheus.
    native = {of for of in shown if dict(of)["__name__"].startswith("sizes_bytes")}
    stored = {key(row["metric"]): float(row["value"][1]) for row in server.rows('{__name__=~".+"}') if "value" in row}
    missing = {of: value for of, value in shown.items() if of not in native and stored.get(of) != value}
    promise("Prometheus answers what the page shows, series by series", shown and not missing, list(missing.items())[:3])
    extra = [of for of in stored if of not in shown]
    promise("and nothing else", stored and not extra, extra[:3])


def all_kinds(message, binary="prometheus", speaks=1):
    """`speaks`: the newest version of remote write that the server has."""
    server = Prometheus(binary)
    otlp, page, own = port(), port(), port()
    config = WORK / f"kinds-{message.split('.')[0]}-{speaks}.yaml"
    config.write_text(CONFIG.format(otlp=otlp, page=page, own=own, prometheus=server.port, message=message))
    data = config.with_suffix(".data")
    runs = weir(["run", "--config", str(config), "--data-dir", str(data)]).listens(otlp)
    runs.listens(page)
    now = time.time_ns()
    promise(f"metrics of every kind are taken ({message}, a server of {speaks}.0)", post(otlp, request(kinds(now, now - 10**9))))
    until(lambda: server.rows("latency_milliseconds_count"), 20)
    compare(server, f"http://127.0.0.1:{page}/metrics")
    rows = server.rows("histogram_count(sizes_bytes) + histogram_sum(sizes_bytes)")
    promise("exponential histograms are native ones", [float(row["value"][1]) for row in rows] == [109.5], rows)
    if "v2" in message:
        fell_back = "does not speak remote write 2.0" in runs.text()
        promise("2.0 is spoken where the server has it, and 1.0 where it has not", fell_back == (speaks == 1), runs.text()[-500:])
    rows = server.rows("target_info")
    promise("target_info is there, with job and instance", [row["metric"].get("cloud_region") for row in rows] == ["eu"] and rows[0]["metric"]["job"] == "cart", rows)
    found = server.api("query_exemplars", query="duration_seconds_bucket", start=str(time.time() - 300), end=str(time.time() + 60))
    ids = [exemplar["labels"].get("trace_id") for series in found or [] for exemplar in series["exemplars"]]
    promise("exemplars are there", ids == ["0102030405060708090a0b0c0d0e0f10"], found)

    # Of three points one is older than what is there; one has a form that Prometheus has not.
    later = time.time_ns()
    gauge = lambda name, time_, value: {"name": name, "gauge": {"dataPoints": [{"timeUnixNano": str(time_), "asDouble": value}]}}
    delta = {"name": "gone", "sum": {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [{"timeUnixNano": str(later), "asInt": "1"}]}}
    post(otlp, request([gauge("steady", later, 1.0)]))
    until(lambda: server.rows("steady == 1"), 20)
    post(otlp, request([gauge("before", later, 1.0), gauge("steady", later - 5 * 10**9, 9.0), gauge("behind", later, 1.0), delta]))
    good = until(lambda: server.rows("before == 1") and server.rows("behind == 1"), 20)
    promise("a sample out of order does not take its neighbours along", good and server.rows("steady == 1"), server.rows("steady"))
    until(lambda: total(get(f"http://127.0.0.1:{own}/metrics")[2], "weir_dead_letters_items") == 1, 10)
    said = letters(data)
    promise("it is a dead letter with the server's words", "out of order" in said, said[-500:])
    books = get(f"http://127.0.0.1:{own}/metrics")[2]
    dropped = {
        reason: total(books, "weir_consumer_dropped_items_total", reason=reason) or total(books, "weir_consumer_dropped_items", reason=reason)
        for reason in ("rejected", "unsupported")
    }
    promise("the books tell both apart", dropped == {"rejected": 1, "unsupported": 1}, dropped)

    # A series that says that it has ended is gone from instant answers.
    ended = {"name": "steady", "gauge": {"dataPoints": [{"timeUnixNano": str(time.time_ns()), "flags": 1}]}}
    post(otlp, request([ended]))
    promise("a series that has ended is stale at once", until(lambda: not server.rows("steady"), 20), server.rows("steady"))
    runs.stop()
    server.process.stop()


def killed():
    server = Prometheus()
    otlp, page, own = port(), port(), port()
    config = WORK / "killed.yaml"
    config.write_text(CONFIG.format(otlp=otlp, page=page, own=own, prometheus=server.port, message="prometheus.WriteRequest"))
    data = WORK / "killed-data"
    start = lambda: weir(["run", "--config", str(config), "--data-dir", str(data)]).listens(otlp)
    runs = start()
    began = time.time_ns()
    stop = threading.Event()
    sent, taken = {}, {}

    def feed():
        step = 0
        while not stop.is_set():
            now = time.time_ns() // 10**6
            points = [
                {"timeUnixNano": f"{now}000000", "startTimeUnixNano": str(began), "asInt": str(step), "attributes": attributes(of=str(n))}
                for n in range(SERIES)
            ]
            body = request([{"name": "steps", "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": points}}])
            sent[now] = step
            if post(otlp, body):
                taken[now] = step
            step += 1
            stop.wait(0.05)

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    grown = lambda: len(taken)
    until(lambda: grown() > 40, 30)
    server.kill()
    mark = grown()
    until(lambda: grown() > mark + 60, 30)
    promise("data is taken while Prometheus is dead", grown() > mark + 60, grown())
    server.start()
    mark = grown()
    until(lambda: grown() > mark + 40, 30)
    for _ in range(3):
        runs.signal(signal.SIGKILL)
        runs.wait()
        runs = start()
        mark = grown()
        until(lambda: grown() > mark + 40, 30)
    stop.set()
    feeding.join(30)

    def kept():
        rows = server.rows("steps_total[1h]")
        return {row["metric"]["of"]: {round(float(at) * 1000): int(value) for at, value in row["values"]} for row in rows}

    def whole():
        got = kept()
        return len(got) == SERIES and all(taken.items() <= found.items() for found in got.values())

    found = until(whole, 60, 0.5)
    got = kept()
    lost = {of: sorted(set(taken) - set(series))[:3] for of, series in got.items() if not taken.items() <= series.items()}
    promise(f"every one of {len(taken) * SERIES} samples that were taken is there, with its value and time", found, lost)
    foreign = {of: sorted(set(series.items()) - set(sent.items()))[:3] for of, series in got.items() if not series.items() <= sent.items()}
    promise("and none that was not sent", got and not foreign, foreign)
    said = letters(data)
    odd = [line for line in said.splitlines() if re.search(r"HTTP \d", line) and "out of order" not in line]
    promise("what came twice after a kill was refused as such, and nothing else was refused", not odd, odd[:3])
    runs.stop()
    server.process.stop()


def check():
    all_kinds("prometheus.WriteRequest")
    # Debian's Prometheus takes 1.0 only, and says yes to what it does not read: weir has to notice.
    all_kinds("io.prometheus.write.v2.Request")
    if "prometheus3" not in os.environ.get("WITHOUT", "").split():
        # One that speaks 2.0, and stores a part of what it refuses.
        for message in ("io.prometheus.write.v2.Request", "prometheus.WriteRequest"):
            all_kinds(message, str(CACHE / "peers/prometheus3"), 2)
    killed()


if __name__ == "__main__":
    main(check)
