"""The `prometheus` receiver beside a real Prometheus: both scrape the same targets, and weir has every series that Prometheus has, no more and no
fewer; and there and back: what came in over OTLP, went out on the `prometheus` exporter's page and was scraped, is what it was."""

import json
import math
import os
import time
import urllib.parse

from harness import WORK, Process, get, main, port, promise, until, weir

from remote_write import kinds, post, request

WITHOUT = os.environ.get("WITHOUT", "").split()
RULES = """
      metric_relabel_configs:
        - {source_labels: [__name__], regex: "go_.*|process_.*", action: drop}
        - {source_labels: [__name__, device], regex: "node_network_(.+);lo", target_label: renamed, replacement: "lo_DOLLAR1"}
        - {regex: "operstate|address", action: labeldrop}
"""
JOBS = """
    - job_name: plain
      static_configs: [{{targets: [{targets}], labels: {{zone: a}}}}]
    - job_name: ruled
      static_configs: [{{targets: [{targets}]}}]
      relabel_configs:
        - {{source_labels: [__address__], regex: ".*:(.*)", target_label: instance, replacement: "port-DOLLAR1"}}
        - {{source_labels: [instance], target_label: shard, modulus: 7, action: hashmod}}
"""
SCRAPER = """
receivers:
  prometheus:
    config:
      global: {{scrape_interval: 1s}}
      scrape_configs: {jobs}
exporters: {{file: {{path: {out}}}}}
service:
  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {own}}}}}}}}}]}}}}
  pipelines: {{metrics: {{receivers: [prometheus], exporters: [file]}}}}
"""


def indented(text, by):
    return "\n".join(" " * by + line if line else line for line in text.splitlines())


def plain(of):
    return {one["key"]: one["value"]["stringValue"] for one in of}


def number(text):
    return float(text) if isinstance(text, str) else text


def bound(value):
    return "+Inf" if math.isinf(value) else repr(float(value))


def points(path):
    """(job, instance, metric, data's key, point) of every point of a file, in order."""
    for line in open(path) if path.exists() else ():
        if not line.endswith("\n"):
            return
        for resource in json.loads(line)["resourceMetrics"]:
            own = plain(resource["resource"]["attributes"])
            for scope in resource["scopeMetrics"]:
                for metric in scope["metrics"]:
                    for data in ("gauge", "sum", "histogram", "exponentialHistogram", "summary"):
                        for point in metric.get(data, {}).get("dataPoints", []):
                            yield own, metric, data, point


def series(own, metric, data, point):
    """The series of Prometheus that a point is made of, with their values."""
    base = {"job": own["service.name"], "instance": own["service.instance.id"], **plain(point.get("attributes", []))}

    def one(name, value, **more):
        return tuple(sorted({**base, **more, "__name__": name}.items())), value

    name = metric["name"]
    if data in ("gauge", "sum"):
        yield one(name, number(point["asDouble"]))
        return
    yield one(f"{name}_count", number(point.get("count", 0)))
    # JSON leaves out a 0 that cannot be unset.
    if "sum" in point or data == "summary":
        yield one(f"{name}_sum", number(point.get("sum", 0)))
    if data == "summary":
        for part in point.get("quantileValues", []):
            yield one(name, number(part.get("value", 0)), quantile=bound(part.get("quantile", 0)))
        return
    total = 0
    for edge, count in zip([*map(number, point.get("explicitBounds", [])), math.inf], point.get("bucketCounts", [])):
        total += int(count)
        yield one(f"{name}_bucket", total, le=bound(edge))


def last_scrape(path):
    """Of each target the series of its last scrape, by job and instance."""
    found = {}
    for own, metric, data, point in points(path):
        if not int(point.get("flags", 0)):
            for labels, value in series(own, metric, data, point):
                found.setdefault((own["service.name"], own["service.instance.id"]), {}).setdefault(point["timeUnixNano"], {})[labels] = value
    return {target: scrapes[max(scrapes, key=int)] for target, scrapes in found.items()}


def stored(server):
    """The same from Prometheus."""
    query = urllib.parse.urlencode({"query": '{__name__=~".+"}'})
    status, _, text = get(f"http://127.0.0.1:{server}/api/v1/query?{query}")
    rows = json.loads(text)["data"]["result"] if status == 200 else []
    found = {}
    for row in rows:
        labels = dict(row["metric"])
        for name in ("le", "quantile"):
            # Numbers, of which formats have several spellings.
            if name in labels and (name == "quantile" or labels["__name__"].endswith("_bucket")):
                labels[name] = bound(float(labels[name]))
        found.setdefault((labels["job"], labels["instance"]), {})[tuple(sorted(labels.items()))] = float(row["value"][1])
    return found


# What differs from scrape to scrape, or from scraper to scraper, in which series there are: what a server counts of the requests it had.
CHANGING = ("prometheus_http_", "prometheus_tsdb_", "prometheus_target_", "prometheus_engine_", "promhttp_", "net_conntrack_", "scrape_")
# It is of the resource in OTLP.
RESOURCE = "target_info"
STEADY = ("node_uname_info", "node_boot_time_seconds", "node_filesystem_size_bytes", "node_memory_MemTotal_bytes", "prometheus_build_info", "up", "node_scrape_collector_success")


def beside_prometheus():
    node, server, own = port(), port(), port()
    Process("node_exporter", ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{node}"]).listens(node)
    targets = ", ".join(f'"127.0.0.1:{number}"' for number in (node, server, own))
    jobs = JOBS.format(targets=targets) + RULES
    rules = WORK / "prometheus-scraping.yml"
    rules.write_text("global: {scrape_interval: 1s}\nscrape_configs:" + jobs.replace("DOLLAR", "$"))
    config = WORK / "scraping.yaml"
    out = WORK / "scraped.json"
    config.write_text(SCRAPER.format(jobs=indented(jobs.replace("DOLLAR", "$$"), 4), out=out, own=own))
    runs = weir(["run", "--config", config, "--data-dir", WORK / "scraping.data"]).listens(own)
    command = ["prometheus", f"--config.file={rules}", f"--storage.tsdb.path={WORK / 'scraping-tsdb'}", f"--web.listen-address=127.0.0.1:{server}"]
    Process("prometheus", [*command, "--log.level=warn"]).listens(server)
    names = {(job, f"127.0.0.1:{number}" if job == "plain" else f"port-{number}") for job in ("plain", "ruled") for number in (node, server, own)}

    def all_up():
        ups = {key for key, one in last_scrape(out).items() for labels, value in one.items() if dict(labels)["__name__"] == "up" and value == 1}
        theirs = {key for key, one in stored(server).items() for labels, value in one.items() if dict(labels)["__name__"] == "up" and value == 1}
        return ups == names == theirs

    promise("weir and Prometheus scrape the same targets", until(all_up, 30), (sorted(last_scrape(out)), sorted(stored(server))))

    def differences():
        ours, theirs = last_scrape(out), stored(server)
        told = []
        for key in sorted(names):
            steady = lambda one: {labels for labels in one if not dict(labels)["__name__"].startswith((*CHANGING, RESOURCE))}
            mine, other = steady(ours.get(key, {})), steady(theirs.get(key, {}))
            told += [("only weir", dict(one)) for one in mine - other] + [("only Prometheus", dict(one)) for one in other - mine]
            for labels in mine & other:
                if dict(labels)["__name__"] in STEADY and ours[key][labels] != theirs[key][labels]:
                    told.append((dict(labels), ours[key][labels], theirs[key][labels]))
        return told

    # weir's own page and Prometheus' grow while both look at each other; it has to hold at some moment.
    same = until(lambda: not differences(), 30, 0.5)
    counted = {key: len(one) for key, one in last_scrape(out).items()}
    promise(f"the same series with the same labels, rules or not ({sum(counted.values())})", same and min(counted.values()) > 50, differences()[:4])

    def counts(name, key):
        pick = lambda one: {value for labels, value in one.get(key, {}).items() if dict(labels)["__name__"] == name}
        return pick(last_scrape(out)), pick(stored(server))

    for name in ("scrape_samples_scraped", "scrape_samples_post_metric_relabeling"):
        for key in (("plain", f"127.0.0.1:{node}"), ("ruled", f"port-{node}")):
            same = until(lambda: counts(name, key)[0] == counts(name, key)[1] != set(), 10, 0.5)
            promise(f"{name} of node_exporter, {key[0]}, is the same", same, counts(name, key))
    return runs, out, node


def ends(out, node_exporter, key):
    """A target that is gone ends all of its series once, and is down."""
    node_exporter.stop()

    def ended():
        marked, down = set(), False
        for own, metric, _, point in points(out):
            if own["service.instance.id"] == key:
                if int(point.get("flags", 0)):
                    marked.add((metric["name"], json.dumps(point.get("attributes", []))))
                down |= metric["name"] == "up" and point.get("asDouble") == 0
        return down and marked

    marked = until(ended, 20) or set()
    promise("a target that went away is down, and its series end", len(marked) > 100 and ("node_load1", '[{"key": "zone", "value": {"stringValue": "a"}}]') in marked, len(marked))


BACK = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{otlp}"}}}}}}
  prometheus:
    config:
      global: {{scrape_interval: 500ms}}
      scrape_configs:
        - job_name: back
          honor_labels: true
          scrape_protocols: [{protocol}]
          scrape_native_histograms: true
          static_configs: [{{targets: ["127.0.0.1:{page}"]}}]
exporters:
  prometheus: {{endpoint: "127.0.0.1:{page}", enable_open_metrics: true}}
  file: {{path: {out}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    metrics/out: {{receivers: [otlp], exporters: [prometheus]}}
    metrics/back: {{receivers: [prometheus], exporters: [file]}}
"""


def there_and_back(protocol):
    otlp, page = port(), port()
    out = WORK / f"back-{protocol}.json"
    config = WORK / f"back-{protocol}.yaml"
    config.write_text(BACK.format(otlp=otlp, page=page, out=out, protocol=protocol))
    runs = weir(["run", "--config", config, "--data-dir", WORK / f"back-{protocol}.data"]).listens(otlp)
    now = time.time_ns() // 10**6 * 10**6
    start = now - 10**9
    post(otlp, request(kinds(now, start)))
    names = ["room_temperature_celsius", "http_requests_total", "queue_length", "duration_seconds", "sizes_bytes", "latency_milliseconds"]

    def back():
        found = {}
        for own, metric, data, point in points(out):
            if own["service.name"] == "cart":
                found[metric["name"]] = (own, metric, data, point)
        return found if set(names) <= set(found) else None

    # Without native histograms text shows the exponential one as sum and count.
    found = until(back, 20) or {}
    if not promise(f"all kinds come back ({protocol})", found, out.read_text()[-800:] if out.exists() else ""):
        runs.stop()
        return
    own, metric, _, point = found["room_temperature_celsius"]
    promise("with resource and attributes", own["service.instance.id"] == "i-1" and own["cloud_region"] == "eu" and plain(point["attributes"]) == {"room": 'a "b"\\\n'}, (own, point))
    value = lambda name: found[name][3]["asDouble"]
    promise("with their values", (value("room_temperature_celsius"), value("http_requests_total"), value("queue_length")) == (21.25, 7, -3), found)
    _, metric, data, point = found["duration_seconds"]
    same = data == "histogram" and [point["explicitBounds"], point["bucketCounts"], point["count"], point["sum"]] == [[0.5, 1, 2500000], ["1", "2", "0", "3"], "6", 12.5]
    promise("with buckets", same, point)
    point = found["latency_milliseconds"][3]
    promise("with quantiles", (point["count"], point["sum"], point["quantileValues"]) == ("5", 2.5, [{"quantile": 0.5, "value": 0.4}, {"quantile": 0.99, "value": 1.5}]), point)
    if protocol == "PrometheusProto":
        _, _, data, point = found["sizes_bytes"]
        same = data == "exponentialHistogram" and (point["count"], point["sum"], point["scale"], point["zeroCount"], point["zeroThreshold"], point["positive"]) == (
            "9", 100.5, 1, "2", 0.001, {"offset": 3, "bucketCounts": ["4", "0", "3"]})
        promise("with exponential buckets", same, point)
        starts = [found[name][3].get("startTimeUnixNano") for name in ("http_requests_total", "duration_seconds", "sizes_bytes", "latency_milliseconds")]
        promise("with their beginnings", starts == [str(start)] * 4, (starts, start))
    if protocol != "PrometheusText0.0.4":
        example = found["duration_seconds"][3].get("exemplars", [{}])[0]
        promise("with exemplars", (example.get("traceId"), example.get("spanId"), example.get("asDouble")) == ("0102030405060708090a0b0c0d0e0f10", "0102030405060708", 0.3), example)
    runs.stop()


def check():
    for protocol in ("PrometheusText0.0.4", "OpenMetricsText1.0.0", "PrometheusProto"):
        there_and_back(protocol)
    if "prometheus" in WITHOUT or "node_exporter" in WITHOUT:
        print("      beside Prometheus: left out, it needs prometheus and node_exporter")
        return
    runs, out, node = beside_prometheus()
    from harness import _processes

    exporter = next(process for process in _processes if process.name == "node_exporter")
    ends(out, exporter, f"127.0.0.1:{node}")
    runs.stop()


if __name__ == "__main__":
    main(check)
