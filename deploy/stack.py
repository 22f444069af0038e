"""`deploy/stack`: starts everything, sends, counts at every end, and ends what it started. Reads WEIR, CACHE and WORK, as the checks do."""

import argparse
import json
import re
import shutil
import signal
import socket
import sys
import time
import urllib.parse

from harness import CACHE, HERE, WEIR, WORK, Process, deployed, get, until

ROOT = HERE.parent.parent
# What listens where by default; --offset is added to all.
USUAL = {
    "otlp_grpc": 4317,
    "otlp_http": 4318,
    "own_page": 8888,
    "page": 8889,
    "health": 13133,
    "jaeger_otlp": 14317,
    "jaeger": 16686,
    "jaeger_grpc": 16685,
    "opensearch": 9200,
    "prometheus": 9090,
    "alertmanager": 9093,
}


def say(text):
    print(text, flush=True)


def arguments():
    parser = argparse.ArgumentParser(prog="deploy/stack", add_help=False)
    parser.add_argument("--for", dest="duration", default="20s")
    parser.add_argument("--rate", default="20")
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--once", action="store_true")
    return parser.parse_args()


def free(ports):
    """Refuses to begin where somebody listens already."""
    taken = []
    for name, number in ports.items():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", number))
            except OSError as error:
                taken.append(f"{name} {number} ({error.strerror})")
    if taken:
        raise RuntimeError(f"in use: {', '.join(taken)}; --offset 10000 takes others")


class Stack:
    """What runs, the last started last."""

    def __init__(self, ports):
        self.ports, self.running = ports, []

    def at(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def start(self, name, command, env=None, listens=(), seconds=60):
        say(f"starting {name}")
        process = Process(name, command, env)
        self.running.append(process)
        for port in listens:
            process.listens(self.ports[port], seconds)
        return process

    def file(self, name, text):
        path = WORK / name
        path.write_text(text)
        return path

    def start_all(self):
        opensearch = [HERE / "opensearch.sh", "run", CACHE / "opensearch", WORK / "opensearch", self.ports["opensearch"]]
        self.start("OpenSearch", opensearch)
        env = {
            "JAEGER_DATA": str(WORK / "jaeger"),
            "JAEGER_OTLP": self.at("jaeger_otlp"),
            "JAEGER_UI": self.at("jaeger"),
            "JAEGER_QUERY_GRPC": self.at("jaeger_grpc"),
            "JAEGER_PROMETHEUS": f"http://{self.at('prometheus')}",
            # Or it sends spans about itself to port 4317, which is weir, which sends them to it.
            "OTEL_TRACES_SAMPLER": "always_off",
        }
        self.start("Jaeger", [CACHE / "peers/jaeger", "--config", ROOT / "deploy/jaeger.yaml"], env, ["jaeger_otlp", "jaeger"])
        config = self.file("alertmanager.yml", deployed("alertmanager.yml", {}))
        flags = [f"--config.file={config}", f"--storage.path={WORK / 'alertmanager'}", f"--web.listen-address={self.at('alertmanager')}", "--cluster.listen-address="]
        self.start("Alertmanager", ["prometheus-alertmanager", *flags], listens=["alertmanager"])
        hosts = {"weir:8888": self.ports["own_page"], "weir:8889": self.ports["page"], "alertmanager:9093": self.ports["alertmanager"]}
        text = deployed("prometheus.yml", hosts).replace("/etc/prometheus/rules", str(ROOT / "dashboards/rules"))
        # Nobody waits a quarter of a minute for the last figures.
        config = self.file("prometheus.yml", text.replace(": 15s", ": 2s"))
        flags = [f"--config.file={config}", f"--storage.tsdb.path={WORK / 'prometheus'}", f"--web.listen-address={self.at('prometheus')}", "--enable-feature=exemplar-storage"]
        self.start("Prometheus", ["prometheus", *flags, "--log.level=warn"], listens=["prometheus"])
        if not until(lambda: self.json("opensearch", "/_cluster/health?wait_for_status=yellow&timeout=1s"), 240, 0.5):
            raise RuntimeError(f"OpenSearch does not come: {self.running[0].text()[-2000:]}")
        env = {
            "OTLP_GRPC": self.at("otlp_grpc"),
            "OTLP_HTTP": self.at("otlp_http"),
            "PROMETHEUS_PAGE": self.at("page"),
            "OWN_PAGE_HOST": "127.0.0.1",
            "OWN_PAGE_PORT": str(self.ports["own_page"]),
            "HEALTH": self.at("health"),
            "JAEGER": self.at("jaeger_otlp"),
            "ELASTICSEARCH": f"http://{self.at('opensearch')}",
            "WEIR_DATA_DIR": str(WORK / "weir"),
        }
        self.start("weir", [WEIR, "run", ROOT / "deploy/weir.yaml"], env, ["otlp_grpc", "own_page", "page"])

    def send(self, duration, rate):
        """(spans, log records, metric points) that weir took of the demo."""
        say(f"the shop sends for {duration}")
        command = [WEIR, "demo", "--endpoint", f"http://{self.at('otlp_grpc')}", "--duration", duration, "--rate", rate]
        demo = self.start("demo", command)
        code = demo.child.wait()
        found = re.findall(r"accepted: (\d+) spans, (\d+) log records, (\d+) metric points", demo.text())
        if code or not found:
            raise RuntimeError(f"the demo ended with {code}: {demo.text()[-1500:]}")
        return tuple(map(int, found[-1]))

    def stop(self):
        """Ends all of it: senders before those they send to."""
        for process in reversed(self.running):
            process.stop(20)

    # === counts ===

    def json(self, name, path):
        status, _, text = get(f"http://{self.at(name)}{path}")
        return json.loads(text) if status == 200 else None

    def prometheus(self, query):
        """The value of a query that has one, 0 where it has none."""
        answer = self.json("prometheus", f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        rows = answer["data"]["result"] if answer else []
        return round(float(rows[0]["value"][1])) if rows else 0

    def in_jaeger(self):
        """(spans, those of them that are calls)"""
        spans = {}
        for service in (self.json("jaeger", "/api/services") or {}).get("data") or []:
            query = urllib.parse.urlencode({"service": service, "limit": 1_000_000, "start": 0, "end": int(time.time() * 1e6) + 60_000_000})
            for trace in (self.json("jaeger", f"/api/traces?{query}") or {"data": []})["data"]:
                for span in trace["spans"]:
                    kinds = [tag["value"] for tag in span["tags"] if tag["key"] == "span.kind"]
                    spans[trace["traceID"], span["spanID"]] = kinds not in ([], ["internal"])
        return len(spans), sum(spans.values())

    def in_opensearch(self, pattern):
        self.json("opensearch", f"/{pattern}/_refresh")
        return (self.json("opensearch", f"/{pattern}/_count") or {}).get("count", 0)

    def received(self, what):
        return self.prometheus(f'sum(otelcol_receiver_accepted_{what}{{receiver="otlp"}})')

    def rows(self, sent):
        """(what is counted, where, how many, how many there must be)"""
        spans, logs, points = sent
        in_jaeger, calls = self.in_jaeger()
        firing = self.json("prometheus", "/api/v1/alerts")
        firing = sum(alert["state"] == "firing" for alert in firing["data"]["alerts"]) if firing else -1
        told = self.json("alertmanager", "/api/v2/alerts")
        return [
            ("spans", "weir", self.received("spans"), spans),
            ("spans", "Jaeger", in_jaeger, spans),
            ("spans", "OpenSearch", self.in_opensearch("traces-*"), spans),
            ("calls, in Jaeger's spans", "Prometheus, RED", self.prometheus("sum(traces_span_metrics_calls_total)"), calls),
            ("log records", "weir", self.received("log_records"), logs),
            ("log records", "OpenSearch", self.in_opensearch("logs-*"), logs),
            ("metric points", "weir", self.received("metric_points"), points),
            ("alerts that fire", "Alertmanager", len(told) if told is not None else -1, firing),
        ]


def is_equal(rows):
    return all(got == wanted for _, _, got, wanted in rows)


def table(rows):
    lines = [("what", "sent or seen", "at", "arrived", "")]
    lines += [(what, f"{wanted:,}", where, f"{got:,}", "ok" if got == wanted else "DIFFERS") for what, where, got, wanted in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(5)]
    for what, wanted, where, got, verdict in lines:
        say(f"  {what:<{widths[0]}}  {wanted:>{widths[1]}}  {where:<{widths[2]}}  {got:>{widths[3]}}  {verdict}".rstrip())


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    asked = arguments()
    ports = {name: number + asked.offset for name, number in USUAL.items()}
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, interrupted)
    stack, code = Stack(ports), 1
    try:
        free(ports)
        stack.start_all()
        sent = stack.send(asked.duration, asked.rate)
        until(lambda: is_equal(stack.rows(sent)), 60, 1)
        rows = stack.rows(sent)
        say("")
        table(rows)
        equal = is_equal(rows)
        code = 0 if equal else 1
        say("\nwhat was sent is at every end" if equal else "\nNOT everything is at every end")
        if not asked.once:
            for name, path in (("jaeger", "/api/services"), ("prometheus", "/graph"), ("alertmanager", ""), ("opensearch", "/_cat/indices?v"), ("page", "/metrics"), ("own_page", "/")):
                say(f"  {name:<13} http://{stack.at(name)}{path}")
            say(f"  send more     {WEIR} demo --endpoint http://{stack.at('otlp_grpc')}\nCtrl-C ends all of it.")
            signal.pause()
    except KeyboardInterrupt:
        say("\nending what was started")
    except RuntimeError as error:
        say(f"stack: {error}")
    finally:
        # Another Ctrl-C must not leave anything behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stack.stop()
        shutil.rmtree(WORK, ignore_errors=True)
    sys.exit(code)


main()
