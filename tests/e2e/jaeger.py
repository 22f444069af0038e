"""Spans to a real Jaeger: searched and looked up span for span as they were sent, none lost when Jaeger is killed, and its Monitor tab answered by
what weir counts. Jaeger runs on the file that users get, `deploy/jaeger.yaml`, and weir without a file."""

import base64
import json
import signal
import subprocess
import time
import urllib.parse
from collections import Counter, defaultdict

from harness import CACHE, DEPLOY, WEIR, WORK, Process, Sender, Sink, demo, get, main, moved, port, promise, service_name, until, weir

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

KINDS = {Span.SPAN_KIND_INTERNAL: "internal", Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client", Span.SPAN_KIND_PRODUCER: "producer", Span.SPAN_KIND_CONSUMER: "consumer"}
MINUTES = 60 * 1000


class Jaeger:
    """A Jaeger that keeps its spans when it is killed."""

    def __init__(self, prometheus):
        self.otlp, self.ui, grpc = port(), port(), port()
        self.env = {
            "JAEGER_DATA": str(WORK / "jaeger-data"),
            "JAEGER_OTLP": f"127.0.0.1:{self.otlp}",
            "JAEGER_UI": f"127.0.0.1:{self.ui}",
            "JAEGER_QUERY_GRPC": f"127.0.0.1:{grpc}",
            "JAEGER_PROMETHEUS": f"http://127.0.0.1:{prometheus}",
            "OTEL_TRACES_SAMPLER": "always_off",
        }
        self.start()

    def start(self):
        self.process = Process("jaeger", [CACHE / "peers/jaeger", "--config", DEPLOY / "jaeger.yaml"], self.env)
        self.process.listens(self.otlp, 60).listens(self.ui, 60)

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def api(self, path, **parameters):
        """The JSON of an answer, `None` where there is none."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        status, _, text = get(f"http://127.0.0.1:{self.ui}/api/{path}" + (f"?{query}" if query else ""))
        return json.loads(text) if status == 200 else None

    def trace(self, trace_id):
        """{span id: span} as Jaeger shows it, without what it numbers by itself."""
        got = self.api(f"traces/{trace_id}")
        return {span["spanID"]: shown(span, trace["processes"]) for trace in got["data"] for span in trace["spans"]} if got else {}

    def search(self, **parameters):
        """The ids of the traces found."""
        parameters = {"limit": 100, "lookback": "1h", "start": 0, "end": int(time.time() * 1e6) + 60_000_000, **parameters}
        got = self.api("traces", **parameters)
        return {trace["traceID"] for trace in got["data"]} if got else set()


# === one span, as Jaeger shows it and as it must be by what was sent ===


def tagged(tags):
    return sorted((tag["key"], tag["type"], json.dumps(tag["value"])) for tag in tags)


def shown(span, processes):
    process = processes[span["processID"]]
    return {
        "name": span["operationName"],
        "references": sorted((r["refType"], r["traceID"], r["spanID"]) for r in span["references"]),
        "start": span["startTime"],
        "duration": span["duration"],
        "tags": tagged(span["tags"]),
        "logs": sorted((log["timestamp"], tagged(log["fields"])) for log in span["logs"]),
        "service": process["serviceName"],
        "resource": tagged(process["tags"]),
    }


def plain(value):
    """An attribute inside another, as JSON."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: plain(one.value) for one in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def tag(key, value):
    """Jaeger has five types; what else OTLP has becomes a string of JSON."""
    kind = value.WhichOneof("value")
    if kind == "bytes_value":
        return {"key": key, "type": "binary", "value": base64.b64encode(value.bytes_value).decode()}
    if kind in ("array_value", "kvlist_value"):
        return {"key": key, "type": "string", "value": json.dumps(plain(value), separators=(",", ":"), sort_keys=True)}
    types = {"string_value": "string", "bool_value": "bool", "int_value": "int64", "double_value": "float64"}
    return {"key": key, "type": types[kind], "value": getattr(value, kind)}


def tags(attributes):
    return [tag(one.key, one.value) for one in attributes]


def expected(group, scope, span):
    """What Jaeger shows of a span, by its documented translation from OTLP."""
    trace_id = span.trace_id.hex()
    references = [("FOLLOWS_FROM", link.trace_id.hex(), link.span_id.hex()) for link in span.links]
    # A parent that is linked to, too, stands there once.
    if span.parent_span_id and all((trace, parent) != (trace_id, span.parent_span_id.hex()) for _, trace, parent in references):
        references.append(("CHILD_OF", trace_id, span.parent_span_id.hex()))
    own = tags(span.attributes)

    def text(key, value):
        own.append({"key": key, "type": "string", "value": value})

    if scope.scope.name:
        text("otel.scope.name", scope.scope.name)
    if scope.scope.version:
        text("otel.scope.version", scope.scope.version)
    if span.kind in KINDS:
        text("span.kind", KINDS[span.kind])
    if span.status.code == Status.STATUS_CODE_ERROR:
        own.append({"key": "error", "type": "bool", "value": True})
    if span.status.code:
        text("otel.status_code", {1: "OK", 2: "ERROR"}[span.status.code])
    if span.status.message:
        text("otel.status_description", span.status.message)
    if span.trace_state:
        text("w3c.tracestate", span.trace_state)
    logs = []
    for event in span.events:
        fields = tags(event.attributes) + ([{"key": "event", "type": "string", "value": event.name}] if event.name else [])
        logs.append((event.time_unix_nano // 1000, tagged(fields)))
    return {
        "name": span.name,
        "references": sorted(references),
        "start": span.start_time_unix_nano // 1000,
        "duration": (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
        "tags": tagged(own),
        "logs": sorted(logs),
        "service": service_name(group.resource),
        "resource": tagged(one for one in tags(group.resource.attributes) if one["key"] != "service.name"),
    }


def differences(jaeger, sent):
    """What Jaeger shows otherwise than it was sent; `sent` is {trace id: {span id: span}}."""
    found = []
    for trace_id, spans in sent.items():
        have = jaeger.trace(trace_id)
        for span_id in sorted(set(spans) | set(have)):
            want, got = spans.get(span_id), have.get(span_id)
            if want is None or got is None:
                found.append(f"{trace_id} {span_id}: {'not there' if got is None else 'nobody sent it'}")
            else:
                found += [f"{trace_id} {span_id} {key}: {got[key]} where {want[key]} was sent" for key in want if want[key] != got[key]]
    return found


# === spans of every kind ===


def fill(attribute, value):
    """Sets an attribute by the type of a Python value."""
    if isinstance(value, bool):
        attribute.bool_value = value
    elif isinstance(value, int):
        attribute.int_value = value
    elif isinstance(value, float):
        attribute.double_value = value
    elif isinstance(value, bytes):
        attribute.bytes_value = value
    elif isinstance(value, list):
        for one in value:
            fill(attribute.array_value.values.add(), one)
    elif isinstance(value, dict):
        for key, one in value.items():
            entry = attribute.kvlist_value.values.add()
            entry.key = key
            fill(entry.value, one)
    else:
        attribute.string_value = value


ATTRIBUTES = {
    "text": "Grüße \U0001f600 \"\n",
    "empty": "",
    "yes": True,
    "no": False,
    "zero": 0,
    "less": -42,
    "safe": 2**53 - 1,
    "half": 0.5,
    "bytes": bytes(range(7)),
    "list": ["a", "b"],
    "numbers": [1, 2, 3],
    "map": {"inner": "x", "number": 7},
}


def every_kind(first):
    """A request with a span of every kind and status, and with everything that hangs on one. `first` begins the trace id."""
    now = time.time_ns()
    request = ExportTraceServiceRequest()
    for resource_number in range(2):
        group = request.resource_spans.add()
        for key, value in {"service.name": f"every-kind-{resource_number}", "host.name": "north", **ATTRIBUTES}.items():
            entry = group.resource.attributes.add()
            entry.key = key
            fill(entry.value, value)
        for scope_number in range(2):
            scope = group.scope_spans.add()
            scope.scope.name, scope.scope.version = f"library-{scope_number}", "1.2.3"
            for kind in range(6):
                for status in range(3):
                    span = scope.spans.add()
                    number = ((resource_number * 2 + scope_number) * 6 + kind) * 3 + status + 1
                    span.trace_id = bytes([first, 7, 7, 7]) + (number // 20).to_bytes(12, "big")
                    span.span_id = (0xABCD000000000000 + number).to_bytes(8, "big")
                    if number % 20:
                        span.parent_span_id = (0xABCD000000000000 + number - 1).to_bytes(8, "big")
                    span.name = f"operation {kind}"
                    span.kind = kind
                    span.start_time_unix_nano = now + number * 1_000_000
                    span.end_time_unix_nano = span.start_time_unix_nano + number * 1_000
                    span.status.code = status
                    if status == Status.STATUS_CODE_ERROR:
                        span.status.message = "it broke"
                    if number % 3 == 0:
                        span.trace_state = "vendor=1,other=2"
                    for key, value in ATTRIBUTES.items():
                        entry = span.attributes.add()
                        entry.key = key
                        fill(entry.value, value)
                    for at in range(number % 3):
                        event = span.events.add()
                        event.name, event.time_unix_nano = f"event {at}", span.start_time_unix_nano + at * 1000
                        for key, value in ATTRIBUTES.items():
                            entry = event.attributes.add()
                            entry.key = key
                            fill(entry.value, value)
                    for at in range(number % 2):
                        link = span.links.add()
                        link.trace_id, link.span_id = bytes([9] * 16), bytes([8] * 8)
    return request


def by_trace(requests):
    """{trace id: {span id: what Jaeger must show}}."""
    traces = defaultdict(dict)
    for request in requests:
        for group in request.resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    traces[span.trace_id.hex()][span.span_id.hex()] = expected(group, scope, span)
    return traces


def without_ids(trace):
    """A trace without its id, to be held against one with another id."""
    return {key: {**span, "references": [(kind, span_id) for kind, _, span_id in span["references"]]} for key, span in trace.items()}


def everything(jaeger, grpc):
    through, direct = every_kind(0x11), every_kind(0x22)
    for request, to in ((through, grpc), (direct, jaeger.otlp)):
        sender = Sender(to)
        promise("spans of every kind are taken", sender.send("traces", request.SerializeToString()) is None)
        sender.close()
    sent = by_trace([through])
    count = sum(map(len, sent.values()))
    until(lambda: not differences(jaeger, sent), 20, 0.2)
    wrong = differences(jaeger, sent)
    promise(f"{count} spans of every kind, with attributes of every type, events, links and status, are in Jaeger as they were sent", count == 72 and not wrong, "\n".join(wrong[:4]))
    for span, twin in zip(sent, by_trace([direct])):
        got, want = jaeger.trace(span), jaeger.trace(twin)
        for spans in (got, want):
            for one in spans.values():
                # They were made at two moments.
                start = one.pop("start")
                one["logs"] = [(at - start, fields) for at, fields in one["logs"]]
        if without_ids(got) != without_ids(want):
            promise("Jaeger shows the same of spans that came without weir", False, f"{got} {want}")
            return
    promise("Jaeger shows the same of spans that came without weir", True)

    services = (jaeger.api("services") or {}).get("data") or []
    promise("the services are listed", {"every-kind-0", "every-kind-1"} <= set(services), services)
    operations = jaeger.api("services/every-kind-0/operations") or {}
    promise("the operations are listed", sorted(operations.get("data") or []) == [f"operation {kind}" for kind in range(6)], operations)
    wanted = {trace for trace, spans in sent.items() if any(s["service"] == "every-kind-1" and s["name"] == "operation 5" for s in spans.values())}
    found = jaeger.search(service="every-kind-1", operation="operation 5") & set(sent)
    promise("traces are found by service and operation", found == wanted, f"{found} {wanted}")
    found = jaeger.search(service="every-kind-1", tags=json.dumps({"error": "true", "safe": str(2**53 - 1)})) & set(sent)
    wanted = {trace for trace, spans in sent.items() if any(s["service"] == "every-kind-1" and ("error", "bool", "true") in s["tags"] for s in spans.values())}
    promise("traces are found by attributes", found == wanted, f"{found} {wanted}")
    promise("a search for what is not there finds nothing", not jaeger.search(service="every-kind-1", operation="operation 9"))


# === Jaeger killed under load ===


def killed(jaeger, sink, grpc):
    """The demo, while Jaeger is killed and started again; with the spans by service that came."""
    already = len(sink.requests("traces"))
    command = [WEIR, "demo", "--endpoint", f"http://127.0.0.1:{grpc}", "--rate", "30", "--duration", "14s", "--seed", "11", "--error-pct", "20"]
    load = Process("demo", command)
    until(lambda: len(sink.requests("traces")) >= already + 3)
    jaeger.kill()
    behind = len(sink.requests("traces"))
    until(lambda: len(sink.requests("traces")) >= behind + 5)
    jaeger.start()
    code = load.wait(60)
    promise("the demo is accepted while Jaeger is away", code == 0, load.text()[-800:])
    accepted = int(load.text().rsplit("accepted: ", 1)[1].split()[0])
    count = lambda: sum(map(len, by_trace(sink.requests("traces")[already:]).values()))
    until(lambda: count() == accepted)
    sent = by_trace(sink.requests("traces")[already:])
    until(lambda: not differences(jaeger, dict(list(sent.items())[-5:])), 40, 0.5)
    until(lambda: not differences(jaeger, sent), 40, 1)
    wrong = differences(jaeger, sent)
    promise(f"Jaeger killed in the middle: all {accepted} spans of {len(sent)} traces are there as they were sent", accepted == count() and not wrong, f"{count()} reached the other backend; " + "\n".join(wrong[:4]))
    return sent


# === the Monitor tab ===


def monitor(jaeger, sink, sent):
    spans = [span for trace in sent.values() for span in trace.values()]
    server = [span for span in spans if ("span.kind", "string", '"server"') in span["tags"]]
    services = sorted({span["service"] for span in server})
    failing = {span["service"] for span in server if ("error", "bool", "true") in span["tags"]}
    asked = {"service": services, "spanKind": "server", "lookback": 10 * MINUTES, "step": 1000, "ratePer": 5 * MINUTES}

    def ask(what, **more):
        """{labels: the last value}"""
        got = jaeger.api(f"metrics/{what}", **asked, endTs=int(time.time() * 1000), **more) or {}
        last = {}
        for series in got.get("metrics") or []:
            labels = tuple(label["value"] for label in sorted(series["labels"], key=lambda label: label["name"], reverse=True))
            value = series["metricPoints"][-1]["gaugeValue"]["doubleValue"]
            last[labels if len(labels) > 1 else labels[0]] = float(value)
        return last

    until(lambda: len(ask("calls")) == len(services) and all(ask("calls").values()), 30, 0.5)
    calls = ask("calls")
    promise(f"the Monitor tab has request rates of all {len(services)} services", services and sorted(calls) == services and all(rate > 0 for rate in calls.values()), f"{calls} {jaeger.process.text()[-800:]}")
    errors = ask("errors")
    right = all((errors.get(service, 0) > 0) == (service in failing) and 0 <= errors.get(service, 0) <= 1 for service in services)
    promise(f"the Monitor tab has error rates of the {len(failing)} that fail", failing and right, f"{errors} {failing}")
    for quantile in ("0.5", "0.95"):
        latencies = ask("latencies", quantile=quantile)
        promise(f"the Monitor tab has latencies, p{quantile}", sorted(latencies) == services and all(0 < value < 60_000 for value in latencies.values()), latencies)
    operations = ask("calls", groupByOperation="true")
    wanted = {(span["service"], span["name"]) for span in server}
    promise(f"the Monitor tab has all {len(wanted)} operations", wanted and set(operations) == wanted, f"{set(operations) ^ wanted}")
    # The share of one service among all is the same in what Jaeger draws and in what was sent.
    count = Counter(span["service"] for span in server)
    if set(calls) != set(services):
        return
    off = {s: (calls[s] / sum(calls.values()), count[s] / count.total()) for s in services if abs(calls[s] / sum(calls.values()) - count[s] / count.total()) > 0.05}
    promise("the services' shares of the calls are those of the spans", not off, off)


def check():
    sets, ports = moved()
    prometheus_port, sink = port(), Sink()
    jaeger = Jaeger(prometheus_port)
    process = weir(["run", *sets, "--forward", f"grpc://127.0.0.1:{jaeger.otlp}", "--forward", f"grpc://127.0.0.1:{sink.port}"])
    for number in (4317, 8889):
        process.listens(ports[number])
    printed = subprocess.run([WEIR, "scrape-config", *sets], capture_output=True, text=True, timeout=20).stdout
    file = WORK / "prometheus.yml"
    file.write_text(printed.replace("scrape_interval: 15s", "scrape_interval: 1s\n    scrape_timeout: 1s"))
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={WORK / 'prometheus-data'}", f"--web.listen-address=127.0.0.1:{prometheus_port}"]
    Process("prometheus", ["prometheus", *arguments, "--log.level=warn"]).listens(prometheus_port)
    everything(jaeger, ports[4317])
    sent = killed(jaeger, sink, ports[4317])
    monitor(jaeger, sink, sent)
    promise("weir ends in order", process.stop() == 0, process.text()[-1500:])


main(check)
