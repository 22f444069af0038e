"""The `zipkin` receiver beside the Collector's: the same bodies go to both, and what both pass on by OTLP is the same, span for span, but for what is
listed here, where the Collector's receiver loses or misreads something."""

import gzip
import json
import struct
import time
import urllib.error
import urllib.request

from harness import OTELCOL, WORK, Process, Sink, main, port, promise, until, weir

CONFIG = """
receivers:
  zipkin: {{endpoint: "127.0.0.1:{plain}"}}
  zipkin/parsed: {{endpoint: "127.0.0.1:{parsed}", parse_string_tags: true}}
exporters:
  otlp: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}, compression: none}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [zipkin, zipkin/parsed], exporters: [otlp]}}}}
"""
START = 1763758800123456
HERE = {"serviceName": "backend", "ipv4": "192.168.99.1", "port": 3306}
THERE = {"serviceName": "db", "ipv6": "2001:db8::1", "port": 5432}


def v2(number, **more):
    span = {"traceId": f"{number:032x}", "id": f"{number:016x}", "name": f"span {number}", "timestamp": START, "duration": 1431, "localEndpoint": HERE}
    return {**span, **more}


SPANS = [
    v2(1, kind="CLIENT", parentId="00000000000000aa", remoteEndpoint=THERE, tags={"http.path": "/api", "n": "3", "ok": "true", "d": "2.5"}),
    v2(2, kind="SERVER", annotations=[{"timestamp": START + 5, "value": "flushed"}, {"timestamp": START + 9, "value": "done"}], shared=True),
    v2(3, kind="PRODUCER", tags={"error": "true"}, debug=True),
    v2(4, kind="CONSUMER", localEndpoint={"serviceName": "worker"}),
    v2(5, tags={"span.kind": "internal", "otel.status_code": "STATUS_CODE_ERROR", "otel.status_description": "no luck"}),
    v2(6, traceId="00000000000000ff", remoteEndpoint={"ipv4": "10.1.2.3"}),
    v2(7, tags={"otel.library.name": "lib", "otel.library.version": "1.2", "w3c.tracestate": "a=b"}),
    v2(8, parentId=f"{8:016x}"),
    v2(9, annotations=[{"timestamp": START + 5, "value": 'retry|{"n":3,"who":"me"}|2'}]),
    v2(10, localEndpoint={"serviceName": "hosted"}, tags={"host.name": "h1", "service.version": "7", "x": "y"}),
    v2(11, tags={"otlp.link.0": f"{77:032x}|{78:016x}|s=1|{{\"k\":true}}|0"}),
    v2(12, name="ÄÖÜ \U0001f600", tags={"empty": "", "big": "9223372036854775808", "t": "t", "neg": "-7"}),
    v2(13, localEndpoint={"serviceName": "front", "ipv6": "::1"}, duration=0),
]


def version_one(number, **more):
    return {"traceId": f"{number:032x}", "id": f"{number:016x}", "name": f"span {number}", **more}


OLD = [
    version_one(
        21,
        timestamp=START,
        duration=1431,
        annotations=[{"timestamp": START, "value": "sr", "endpoint": {"serviceName": "old"}}, {"timestamp": START + 1, "value": "thought"}],
        binaryAnnotations=[{"key": "http.path", "value": "/x", "endpoint": {"serviceName": "old"}}],
    ),
    version_one(22, timestamp=START, duration=5, parentId="00000000000000aa", annotations=[{"timestamp": START, "value": "cs", "endpoint": {"serviceName": "old"}}]),
]


def field(number, kind, value):
    tag = bytes([number << 3 | kind])
    if kind == 2:
        assert len(value) < 128
        return tag + bytes([len(value)]) + value
    return tag + value


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def in_protobuf(number):
    tag = field(1, 2, b"http.path") + field(2, 2, b"/api")
    here = field(1, 2, b"backend") + field(2, 2, bytes([192, 168, 99, 1])) + field(4, 0, varint(3306))
    there = field(1, 2, b"db") + field(3, 2, bytes.fromhex("20010db8000000000000000000000001")) + field(4, 0, varint(5432))
    annotation = field(1, 1, struct.pack("<Q", START + 5)) + field(2, 2, b"flushed")
    span = (
        field(1, 2, number.to_bytes(16, "big"))
        + field(2, 2, (0xAA).to_bytes(8, "big"))
        + field(3, 2, number.to_bytes(8, "big"))
        + field(4, 0, b"\x02")
        + field(5, 2, b"in protobuf")
        + field(6, 1, struct.pack("<Q", START))
        + field(7, 0, varint(1431))
        + field(8, 2, here)
        + field(9, 2, there)
        + field(10, 2, annotation)
        + field(11, 2, tag)
    )
    return b"\x0a" + varint(len(span)) + span


def bodies():
    """(path, headers, body)"""
    as_json = {"Content-Type": "application/json"}
    yield "/api/v2/spans", as_json, json.dumps(SPANS).encode()
    yield "/api/v2/spans", {**as_json, "Content-Encoding": "gzip"}, gzip.compress(json.dumps([v2(31, kind="CLIENT")]).encode())
    yield "/api/v2/spans", {"Content-Type": "application/x-protobuf"}, in_protobuf(32)
    yield "/api/v1/spans", as_json, json.dumps(OLD).encode()
    yield "/api/v2/spans", as_json, b"[]"


def post(number, path, headers, body):
    request = urllib.request.Request(f"http://127.0.0.1:{number}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def value(of):
    kind = of.WhichOneof("value")
    return (kind, getattr(of, kind)) if kind else None


def attributes(of):
    return {attribute.key: value(attribute.value) for attribute in of}


def spans(sink):
    """What was passed on, by span id."""
    found = {}
    for group, scope, span in sink.spans():
        found[span.span_id.hex()] = {
            "resource": attributes(group.resource.attributes),
            "scope": (scope.scope.name, scope.scope.version),
            "trace": span.trace_id.hex(),
            "parent": span.parent_span_id.hex(),
            "state": span.trace_state,
            "name": span.name,
            "kind": span.kind,
            "start": span.start_time_unix_nano,
            "end": span.end_time_unix_nano,
            "attributes": attributes(span.attributes),
            "events": [(event.time_unix_nano, event.name, attributes(event.attributes), event.dropped_attributes_count) for event in span.events],
            "links": [(link.trace_id.hex(), link.span_id.hex(), link.trace_state, attributes(link.attributes)) for link in span.links],
            "status": (span.status.code, span.status.message),
        }
    return found


def run(name, program, parsed):
    """(answers, spans) of one program."""
    sink = Sink()
    ports = {"plain": port(), "parsed": port()}
    config = WORK / f"{name}-{parsed}.yaml"
    config.write_text(CONFIG.format(**ports, sink=sink.port))
    started = program(config).listens(ports["plain"])
    number = ports["parsed" if parsed else "plain"]
    started.listens(number)
    answers = [post(number, *body) for body in bodies()]
    expected = len(SPANS) + len(OLD) + 2
    until(lambda: len(spans(sink)) >= expected, 20)
    got = spans(sink)
    started.stop()
    sink.stop()
    return answers, got


def known(number, part, theirs, ours):
    """Where the Collector's receiver loses or misreads something."""
    # A whole number that has no room in 64 bits: the Collector writes another number, weir leaves the text.
    return number == 12 and part == "attributes" and {**theirs, "big": None} == {**ours, "big": None} and ours["big"][0] == "string_value"


def check():
    for parsed in (False, True):
        of = " (tags parsed)" if parsed else ""
        answers, theirs = run("otelcol", lambda config: Process("otelcol", [OTELCOL, "--config", str(config)]), parsed)
        ours_answers, ours = run("weir", lambda config: weir(["run", "--config", str(config)]), parsed)
        promise(f"each body is answered 202, as by the Collector{of}", ours_answers == answers == [202] * len(answers), (ours_answers, answers))
        promise(f"no span is missing, and none is new{of}", sorted(ours) == sorted(theirs) and ours, (sorted(ours), sorted(theirs)))
        for number, span in sorted(theirs.items()):
            mine = ours.get(number, {})
            parts = [part for part in span if mine.get(part) != span[part] and not known(int(number, 16), part, span[part], mine.get(part))]
            why = {part: {"collector": span[part], "weir": mine.get(part)} for part in parts}
            promise(f"span {int(number, 16)} is the Collector's{of}", not parts, why)
        old = ours.get(f"{21:016x}", {})
        promise(f"times of version 1 are microseconds{of}", (old.get("start"), old.get("end")) == (START * 1000, START * 1000 + 1_431_000), old)
    started_port = port()
    sink = Sink()
    config = WORK / "bad.yaml"
    config.write_text(CONFIG.format(plain=started_port, parsed=port(), sink=sink.port))
    started = weir(["run", "--config", str(config)]).listens(started_port)
    codes = [
        post(started_port, "/api/v2/spans", {}, b"nonsense"),
        post(started_port, "/api/v2/spans", {"Content-Type": "application/x-thrift"}, b"x"),
        post(started_port, "/api/v3/spans", {}, b"[]"),
    ]
    promise("what is no span is refused", codes == [400, 415, 404], codes)
    started.stop()
    sink.stop()


main(check)
