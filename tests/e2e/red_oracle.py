"""Every option of span_metrics in the real Collector and in weir: one file with many span_metrics, one load, one page of series.

`same_file` compares what most files say; this compares what the other keys of the connector do: dimensions with defaults and globs,
dimensions of one metric only, excluded ones, units and bounds, overflow rows, events, scopes, the sampling method, delta temporality, resource keys.
`red_oracle.py OTLP PAGE OTLP PAGE` compares two receivers that already run, by the ports of both.
"""

import random
import sys

from harness import OTELCOL, WORK, Process, Sender, get, main, port, promise, samples, until, weir

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SEED = 4711

# What each span_metrics has beside a namespace of its own.
VARIANTS = {
    "plain": "{}",
    "dimensions": "dimensions: [{name: http.method, default: GET}, {name: zone}, {name: number}, {name: list}, {name: host.name}]",
    "globs": "dimensions: [{glob: 'http.*'}, {glob: 'db.**'}]",
    "calls": "calls_dimensions: [{name: http.method}]",
    "durations": "histogram: {dimensions: [{name: zone, default: none}]}",
    "less": "exclude_dimensions: [span.name, status.code, collector.instance.id]",
    "seconds": "histogram: {unit: s, explicit: {buckets: [1ms, 10ms, 100ms, 1s, 10s]}}",
    "countonly": "histogram: {disable: true}",
    "events": "events: {enabled: true, dimensions: [{name: exception.type}, {name: zone}]}",
    "scopes": "include_instrumentation_scope: [lib]",
    "limit": "aggregation_cardinality_limit: 20",
    "sampled": "enable_metrics_sampling_method: true",
    "delta": "aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA",
    "keys": "resource_metrics_key_attributes: [service.name, service.instance.id]",
}

FILE = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:${{env:OTLP_IN}}"}}}}}}}}
connectors:
{connectors}
processors: {{batch: {{timeout: 100ms}}}}
exporters: {{prometheus: {{endpoint: "127.0.0.1:${{env:PROMETHEUS}}"}}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [{names}]}}
    metrics: {{receivers: [{names}], processors: [{processors}], exporters: [prometheus]}}
"""


def file(way, processors):
    connectors = []
    for name, keys in VARIANTS.items():
        body = "" if keys == "{}" else f", {keys}"
        connectors.append(f"  span_metrics/{name}: {{namespace: {name}, metrics_flush_interval: 1s{body}}}")
    names = ", ".join(f"span_metrics/{name}" for name in VARIANTS)
    path = WORK / f"red_oracle_{way}.yaml"
    path.write_text(FILE.format(connectors="\n".join(connectors), names=names, processors=processors))
    return path


def put(holder, key, value):
    attribute = holder.attributes.add()
    attribute.key = key
    if isinstance(value, str):
        attribute.value.string_value = value
    elif isinstance(value, bool):
        attribute.value.bool_value = value
    elif isinstance(value, int):
        attribute.value.int_value = value
    elif isinstance(value, float):
        attribute.value.double_value = value
    elif isinstance(value, bytes):
        attribute.value.bytes_value = value
    elif isinstance(value, list):
        for item in value:
            attribute.value.array_value.values.add().string_value = item


def load(count=40):
    """Bodies of requests. Resources that share job and instance are equal: where they are not, the Collector shows one at random."""
    chance = random.Random(SEED)
    resources = [
        {"service.name": "web", "service.instance.id": "1", "zone": "eu", "host.name": "h1"},
        {"service.name": "web", "service.instance.id": "2", "zone": "us", "http.zone": "z"},
        {"service.name": "cart", "service.namespace": "shop", "service.instance.id": "1", "number": 1},
        {"service.name": "", "service.instance.id": "3"},
        {"service.name": 5, "service.instance.id": "4"},
        {"host.name": "nameless"},
    ]
    values = ["GET", "POST", "", 'quo"te\n', 7, -1, True, 0.5, 1e21, 1e-7, 100.0, b"\x01\x02", ["a", "<b>"], []]
    bodies = []
    for _ in range(count):
        request = ExportTraceServiceRequest()
        for _ in range(chance.randint(1, 3)):
            group = request.resource_spans.add()
            for key, value in chance.choice(resources).items():
                put(group.resource, key, value)
            # One scope a resource: with several, which of them labels a row is the Collector's chance.
            scope = group.scope_spans.add()
            scope.scope.name = "lib"
            scope.scope.version = "1.2"
            for _ in range(chance.randint(1, 30)):
                span = scope.spans.add()
                span.trace_id = chance.randbytes(16)
                span.span_id = chance.randbytes(8)
                span.name = chance.choice(["GET /", "", "a.b", "é"])
                span.kind = chance.choice([0, 1, 2, 3, 4, 5, 9])
                span.status.code = chance.choice([0, 1, 2, 7])
                span.start_time_unix_nano = 1_700_000_000_000_000_000
                length = chance.choice([0, 1, 1_000_000, 10_000_000, -5, chance.randint(0, 2 * 10**10)])
                span.end_time_unix_nano = span.start_time_unix_nano + length
                if chance.random() < 0.3:
                    span.trace_state = chance.choice(
                        ["ot=th:8", "ot=th:c", "ot=th:0", "ot=th:", "a=b,ot=rv:00000000000000;th:e", "ot=th:8,", "ot=th:8;x", "OT=th:8"]
                    )
                for key in chance.sample(["http.method", "http.request.size", "db.system", "db.query.text", "zone", "number", "list"], 3):
                    put(span, key, chance.choice(values))
                for _ in range(chance.randint(0, 2)):
                    event = span.events.add()
                    event.name = "exception"
                    put(event, "exception.type", chance.choice(["io", "parse", 3]))
        bodies.append(request.SerializeToString())
    return bodies


def rows(page):
    found = {}
    for name, labels, value, _ in samples(page):
        if name == "target_info":
            continue
        # A label that is empty is a label that is not there.
        key = (name, tuple(sorted((k, v) for k, v in labels.items() if v and k != "collector_instance_id")))
        found[key] = found.get(key, 0.0) + value
    return found


def page_of(number):
    return rows(get(f"http://127.0.0.1:{number}/metrics")[2])


def feed(otlp, page, bodies):
    sender = Sender(otlp)
    refused = [error for body in bodies if (error := sender.send("traces", body))]
    sender.close()
    before = [None]

    def settled():
        # A row shows 0 first, its value at the next flush: two pages a second and more apart are alike and not empty.
        now = page_of(page)
        same, before[0] = now == before[0] and now, now
        return same

    return refused, until(settled, 30, 2.5) or page_of(page)


def difference(theirs, ours):
    equal = lambda a, b: a is not None and b is not None and abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    keys = sorted(set(theirs) | set(ours), key=repr)
    return [(key, theirs.get(key), ours.get(key)) for key in keys if not equal(theirs.get(key), ours.get(key))]


def check():
    bodies = load()
    promise("one seed gives one load", bodies == load())
    if len(sys.argv) == 5:
        ports = [int(number) for number in sys.argv[1:]]
        compare("", [""], feed(*ports[:2], bodies), feed(*ports[2:], bodies))
        return
    # weir renders rows directly for a bare prometheus exporter; behind any processor it derives metrics, as the Collector always does.
    for way, processors in (("rendered", ""), ("derived", "batch")):
        path = file(way, processors)
        pages = []
        # One shard: which rows come first decides where there is a limit, and a request here holds several resources.
        ours = ["run", "--config", path, "--set", "journal::shards=1"]
        for start in (lambda env: Process("otelcol", [OTELCOL, "--config", path], env), lambda env: weir(ours, env)):
            into, page = port(), port()
            process = start({"OTLP_IN": str(into), "PROMETHEUS": str(page)})
            process.listens(into).listens(page)
            pages.append(feed(into, page, bodies))
            process.stop()
        compare(f"{way}: ", VARIANTS, *pages)


def compare(way, names, one, other):
    (refused_there, theirs), (refused_here, ours) = one, other
    promise(f"{way}every request is taken by both", not refused_there and not refused_here, f"{refused_there[:2]} {refused_here[:2]}")
    for name in names:
        mine = lambda rows: {key: value for key, value in rows.items() if key[0].startswith(name)}
        wrong = difference(mine(theirs), mine(ours))
        promise(
            f"{way}{name or 'RED'}: every series is equal ({len(mine(theirs))} samples)",
            mine(theirs) and not wrong,
            f"{len(wrong)} differ; Collector against weir: {wrong[:4]}",
        )


main(check)
