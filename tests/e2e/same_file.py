"""The same seeded load into the real Collector and into weir, with the same file: RED rows and forwarded spans are equal.

The load holds what real senders get wrong: services without a name, spans that end before they start, the same span twice,
trace state, empty and odd strings, kinds and statuses out of range.
"""

import random
from collections import Counter

from harness import HERE, OTELCOL, Process, Sender, Sink, get, main, port, promise, samples, until, weir

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SEED = 20260
FILE = HERE / "red-forward.yaml"


def text(holder, key, value):
    attribute = holder.attributes.add()
    attribute.key = key
    attribute.value.string_value = value


def load(seed, count=60):
    """Bodies of requests; the same for the same seed."""
    chance = random.Random(seed)
    names = ["GET /", "GET /cart/{id}", "SELECT orders", "", " ", 'quo"te', "new\nline", "back\\slash", "ünïcödé \U0001f600", "x" * 300]
    services = ["web", "cart", "", "odd \"name\"", "日本", None, "web", "queue"]
    bodies, before = [], None
    for _ in range(count):
        request = ExportTraceServiceRequest()
        for _ in range(chance.randint(1, 3)):
            group = request.resource_spans.add()
            service = chance.choice(services)
            if service is not None:
                text(group.resource, "service.name", service)
            if chance.random() < 0.7:
                text(group.resource, "service.instance.id", f"i{chance.randint(1, 2)}")
            for _ in range(chance.randint(1, 2)):
                scope = group.scope_spans.add()
                scope.scope.name = chance.choice(["lib", ""])
                for _ in range(chance.randint(1, 20)):
                    span = scope.spans.add()
                    span.trace_id = chance.randbytes(16)
                    span.span_id = chance.randbytes(8)
                    if chance.random() < 0.6:
                        span.parent_span_id = chance.randbytes(8)
                    span.name = chance.choice(names)
                    span.kind = chance.choice([0, 1, 2, 3, 4, 5, 2, 3])
                    span.start_time_unix_nano = 1_700_000_000_000_000_000 + chance.randint(0, 10**12)
                    # On bounds of the buckets now and then, and some that end before they start.
                    exact = [2_000_000, 4_000_000, 10_000_000, 15_000_000_000]
                    length = chance.choice([chance.randint(0, 10**7), chance.randint(0, 2 * 10**10), *exact])
                    if chance.random() < 0.05:
                        length = -length
                    span.end_time_unix_nano = span.start_time_unix_nano + length
                    if chance.random() < 0.4:
                        span.status.code = chance.choice([0, 1, 2])
                        span.status.message = chance.choice(["", "boom"])
                    if chance.random() < 0.2:
                        span.trace_state = chance.choice(["ot=th:8", "ot=th:c", "vendor=1", "ot=p:3", "ot=th:zz", "x"])
                    for _ in range(chance.randint(0, 3)):
                        text(span, chance.choice(["http.route", "", "dup", "dup"]), chance.choice(names))
                    if chance.random() < 0.1:
                        event = span.events.add()
                        event.name = "exception"
                        text(event, "exception.type", "E")
                    if before is not None and chance.random() < 0.05:
                        span.CopyFrom(before)
                    before = span
        bodies.append(request.SerializeToString())
    return bodies


def rows(page):
    """Every RED sample by name and labels; only the id of the process that counted is left out."""
    found = {}
    for name, labels, value, exemplar in samples(page):
        if name.startswith("target_info"):
            continue
        key = (name, tuple(sorted((k, v) for k, v in labels.items() if k != "collector_instance_id")))
        found[key] = found.get(key, 0.0) + value
    return found


def downstream(sink):
    """The spans as a multiset: resource, scope and span as bytes. An empty message and none at all are the same."""
    spans = Counter()
    for group, scope, span in sink.spans():
        if not span.status.ByteSize():
            span.ClearField("status")
        spans[
            group.resource.SerializeToString(deterministic=True),
            scope.scope.SerializeToString(deterministic=True),
            span.SerializeToString(deterministic=True),
        ] += 1
    return spans


# How many spans one stands for, by the threshold that its sampler left in the trace state.
WEIGHTS = {"ot=th:8": 2, "ot=th:c": 4}


def calls(body):
    """What RED should say of a request: a resource that does not name its service is passed on and not counted."""
    return sum(
        WEIGHTS.get(span.trace_state, 1)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        if any(attribute.key == "service.name" for attribute in group.resource.attributes)
        for scope in group.scope_spans
        for span in scope.spans
    )


def feed(start, bodies, wanted, counted):
    sink = Sink()
    into, page = port(), port()
    process = start({"OTLP_IN": str(into), "OTLP_OUT": str(sink.port), "PROMETHEUS": str(page)})
    process.listens(into).listens(page)
    sender = Sender(into)
    refused = [error for body in bodies if (error := sender.send("traces", body))]
    until(lambda: sum(1 for _ in sink.spans()) >= wanted, 30)

    def settled():
        # Rows appear with a zero first and get their counts at the next flush.
        _, _, now = get(f"http://127.0.0.1:{page}/metrics")
        so_far = sum(value for name, _, value, _ in samples(now) if name.endswith("calls_total"))
        return now if so_far >= counted else None

    red = until(settled, 30, 0.5) or get(f"http://127.0.0.1:{page}/metrics")[2]
    spans = downstream(sink)
    sender.close()
    code = process.stop()
    sink.stop()
    return refused, rows(red), spans, code, process.text()[-800:]


def difference(one, two):
    keys = sorted(set(one) | set(two), key=repr)
    wrong = [(key, one.get(key), two.get(key)) for key in keys if not equal(one.get(key), two.get(key))]
    return f"{len(wrong)} of {len(keys)} differ; Collector against weir: {wrong[:4]}" if wrong else ""


def equal(a, b):
    if a is None or b is None:
        return False
    # Sums of floats depend on the order of addition.
    return a == b or abs(a - b) <= 1e-9 * max(abs(a), abs(b))


def check():
    bodies = load(SEED)
    promise("one seed gives one load", bodies == load(SEED))
    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    wanted = sum(len(scope.spans) for request in requests for group in request.resource_spans for scope in group.scope_spans)
    counted = sum(calls(body) for body in bodies)
    theirs = feed(lambda env: Process("otelcol", [OTELCOL, "--config", FILE], env), bodies, wanted, counted)
    ours = feed(lambda env: weir(["run", "--config", FILE], env), bodies, wanted, counted)
    for name, (refused, red, _, _, log) in (("the Collector", theirs), ("weir", ours)):
        promise(f"{name} takes every request", not refused, f"{refused[:2]} {log}")
        rows_say = sum(value for (metric, _), value in red.items() if metric.endswith("calls_total"))
        promise(f"{name} counts each span of a named service for what it stands for ({counted})", rows_say == counted, f"{rows_say} counted")
    promise("weir ends in order", ours[3] == 0, ours[4])
    wrong = difference(theirs[1], ours[1])
    promise(f"RED counts, sums and buckets are equal for every label set ({len(theirs[1])} samples)", not wrong, wrong)
    promise(
        f"what arrives downstream is equal ({sum(theirs[2].values())} spans)",
        theirs[2] == ours[2],
        f"only from the Collector {sum((theirs[2] - ours[2]).values())}, only from weir {sum((ours[2] - theirs[2]).values())}: "
        f"{list((theirs[2] - ours[2]))[:1]} {list((ours[2] - theirs[2]))[:1]}",
    )


main(check)
