#!/usr/bin/env python3
"""Compares weir's `attributes` and `resource` processors with the Collector's.

One configuration holds a pipeline for each case and signal. Both programs are started with it, are sent the same OTLP/JSON, and what
they pass on to a sink of ours must be equal (attributes as sets of key and value). Needs Python only; loopback, free ports.

    attributes_oracle.py --reference /path/to/otelcol --candidate target/release/weir
    attributes_oracle.py --reference /path/to/otelcol --show          # prints what the reference does
"""

import argparse
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ATTRIBUTES = [
    ("s", {"stringValue": "Alice Example"}),
    ("empty", {"stringValue": ""}),
    ("number.text", {"stringValue": "42"}),
    ("float.text", {"stringValue": "2.50"}),
    ("hex.text", {"stringValue": "0x1F"}),
    ("plus.text", {"stringValue": "+7"}),
    ("inf.text", {"stringValue": "inf"}),
    ("big.text", {"stringValue": "1e400"}),
    ("under.text", {"stringValue": "1_000"}),
    ("t", {"boolValue": True}),
    ("f", {"boolValue": False}),
    ("i", {"intValue": "-12"}),
    ("d", {"doubleValue": 2.5}),
    ("whole", {"doubleValue": 3.0}),
    ("large", {"doubleValue": 1e21}),
    ("small", {"doubleValue": 1e-7}),
    ("huge", {"doubleValue": 1.5e300}),
    ("nan", {"doubleValue": "NaN"}),
    ("pinf", {"doubleValue": "Infinity"}),
    ("neg", {"doubleValue": -7.9}),
    ("b", {"bytesValue": "+/8="}),
    ("list", {"arrayValue": {"values": [{"stringValue": "a<b"}, {"intValue": "1"}, {}, {"doubleValue": 1.0}, {"bytesValue": "AQI="}]}}),
    ("map", {"kvlistValue": {"values": [{"key": "z", "value": {"stringValue": 'q"\u2028'}}, {"key": "a", "value": {"boolValue": True}}]}}),
    ("none", {}),
    ("http.url", {"stringValue": "https://shop.example/cart/17?x=1"}),
    ("card.number", {"stringValue": "4111"}),
    ("card.owner", {"stringValue": "Bob"}),
]

# (name, kind, settings); all signals unless the name starts with one and a colon.
CASES = [
    ("insert_new", "attributes", {"actions": [{"key": "new", "action": "insert", "value": "v"}]}),
    ("insert_present", "attributes", {"actions": [{"key": "s", "action": "insert", "value": "v"}]}),
    ("upper_case", "attributes", {"actions": [{"key": "s", "action": "UPSERT", "value": "v"}]}),
    ("update_present", "attributes", {"actions": [{"key": "s", "action": "update", "value": 7}]}),
    ("update_missing", "attributes", {"actions": [{"key": "new", "action": "update", "value": 7}]}),
    ("values", "attributes", {"actions": [
        {"key": "v1", "action": "upsert", "value": 1}, {"key": "v2", "action": "upsert", "value": 1.5},
        {"key": "v3", "action": "upsert", "value": True}, {"key": "v4", "action": "upsert", "value": ""},
        {"key": "v5", "action": "upsert", "value": [1, "x", None]}, {"key": "v6", "action": "upsert", "value": {"k": [1], "n": {"m": 2.0}}},
        {"key": "v7", "action": "upsert", "value": "1"}, {"key": "v8", "action": "upsert", "value": -5}]}),
    ("from_attribute", "attributes", {"actions": [
        {"key": "copy.%s" % key, "action": "upsert", "from_attribute": key} for key, _ in ATTRIBUTES]}),
    ("from_attribute_missing", "attributes", {"actions": [
        {"key": "new", "action": "insert", "from_attribute": "nothing"}, {"key": "s", "action": "update", "from_attribute": "nothing"}]}),
    ("from_attribute_self", "attributes", {"actions": [{"key": "s", "action": "update", "from_attribute": "s"}]}),
    ("default_of_attribute", "attributes", {"actions": [
        {"key": "n1", "action": "insert", "from_attribute": "nothing", "default_value": "dflt"},
        {"key": "n2", "action": "insert", "from_attribute": "s", "default_value": "dflt"},
        {"key": "s", "action": "update", "from_attribute": "nothing", "default_value": 5},
        {"key": "n3", "action": "upsert", "from_attribute": "empty", "default_value": "dflt"},
        {"key": "n4", "action": "upsert", "from_attribute": "none", "default_value": "dflt"}]}),
    ("default_alone", "attributes", {"actions": [
        {"key": "n1", "action": "insert", "default_value": "dflt"}, {"key": "s", "action": "insert", "default_value": "dflt"},
        {"key": "i", "action": "upsert", "default_value": 9}, {"key": "n5", "action": "upsert", "default_value": [1]}]}),
    ("default_beside_value", "attributes", {"actions": [
        {"key": "n1", "action": "insert", "value": "v", "default_value": "dflt"},
        {"key": "n2", "action": "insert", "value": "", "default_value": "dflt"}]}),
    ("default_of_context", "attributes", {"actions": [
        {"key": "n1", "action": "insert", "from_context": "metadata.nothing", "default_value": "dflt"},
        {"key": "n2", "action": "insert", "from_context": "metadata.x-tenant", "default_value": "dflt"},
        {"key": "n3", "action": "insert", "from_context": "auth.subject", "default_value": "dflt"},
        {"key": "n4", "action": "insert", "from_context": "metadata.x-empty", "default_value": "dflt"}]}),
    ("default_of_others", "attributes", {"actions": [
        {"key": "no1", "action": "delete", "default_value": "x"}, {"key": "no2", "action": "hash", "default_value": "x"},
        {"key": "no3", "action": "extract", "pattern": "(?P<got>x)", "default_value": "x"},
        {"key": "no4", "action": "convert", "converted_type": "int", "default_value": 3},
        {"key": "no5", "action": "convert", "converted_type": "int", "default_value": "text"}]}),
    ("default_of_failed_convert", "attributes", {"actions": [
        {"key": "s", "action": "convert", "converted_type": "int", "default_value": 3},
        {"key": "card.owner", "action": "convert", "converted_type": "double", "default_value": "text"},
        {"key": "number.text", "action": "convert", "converted_type": "int", "default_value": 3},
        {"key": "list", "action": "convert", "converted_type": "int", "default_value": 3},
        {"key": "s", "action": "extract", "pattern": "(?P<got>zzz)", "default_value": "dflt"}]}),
    ("from_context", "attributes", {"actions": [
        {"key": "c1", "action": "insert", "from_context": "metadata.x-tenant"}, {"key": "c2", "action": "insert", "from_context": "metadata.X-Many"},
        {"key": "c3", "action": "insert", "from_context": "x-tenant"}, {"key": "c4", "action": "insert", "from_context": "metadata.nothing"},
        {"key": "c5", "action": "insert", "from_context": "client.address"}, {"key": "c6", "action": "insert", "from_context": "auth.subject"},
        {"key": "c7", "action": "insert", "from_context": "metadata.x-empty"}, {"key": "s", "action": "update", "from_context": "metadata.x-tenant"}]}),
    ("delete", "attributes", {"actions": [{"key": "s", "action": "delete"}, {"key": "nothing", "action": "delete"}]}),
    ("delete_pattern", "attributes", {"actions": [{"pattern": "^card\\.", "action": "delete"}]}),
    ("delete_both", "attributes", {"actions": [{"key": "i", "pattern": "text", "action": "delete"}]}),
    ("delete_all", "attributes", {"actions": [{"pattern": "", "key": "i", "action": "delete"}, {"pattern": ".*", "action": "delete"}]}),
    ("hash", "attributes", {"actions": [{"key": key, "action": "hash"} for key, _ in ATTRIBUTES]}),
    ("hash_pattern", "attributes", {"actions": [{"key": "i", "pattern": "^(card|i$)", "action": "hash"}]}),
    ("hash_twice", "attributes", {"actions": [{"key": "s", "action": "hash"}, {"key": "s", "action": "hash"}]}),
    ("extract", "attributes", {"actions": [
        {"key": "http.url", "action": "extract", "pattern": "^(?P<http_protocol>.*)://(?P<http_domain>[^/]*)/(?P<s>.*)\\?(?P<query>.*)(?P<maybe>never)?"}]}),
    ("extract_no_match", "attributes", {"actions": [{"key": "http.url", "action": "extract", "pattern": "(?P<x>zzz)"}]}),
    ("extract_not_a_string", "attributes", {"actions": [{"key": "i", "action": "extract", "pattern": "(?P<x>.*)"}]}),
    ("extract_names", "attributes", {"actions": [{"key": "http.url", "action": "extract", "pattern": "(?P<a1>h)(?P<a_2>t)(?:t)(?P<p>p)"}]}),
    ("to_string", "attributes", {"actions": [{"key": key, "action": "convert", "converted_type": "string"} for key, _ in ATTRIBUTES]}),
    ("to_int", "attributes", {"actions": [
        {"key": key, "action": "convert", "converted_type": "int"} for key, _ in ATTRIBUTES if key not in ("large", "huge", "nan", "pinf")]}),
    ("to_double", "attributes", {"actions": [{"key": key, "action": "convert", "converted_type": "double"} for key, _ in ATTRIBUTES]}),
    ("in_order", "attributes", {"actions": [
        {"key": "s", "action": "delete"}, {"key": "s", "action": "insert", "value": "again"},
        {"key": "copy", "action": "insert", "from_attribute": "s"}, {"key": "copy", "action": "hash"}]}),
    ("resource", "resource", {"attributes": [
        {"key": "service.name", "action": "update", "value": "renamed"}, {"key": "tenant", "action": "insert", "from_context": "metadata.x-tenant"},
        {"key": "host.name", "action": "hash"}, {"key": "count", "action": "convert", "converted_type": "string"}, {"key": "gone", "action": "delete"}]}),
    ("resource_new", "resource", {"attributes": [{"key": "env", "action": "insert", "value": "prod"}]}),
]

TOUCH = {"actions": [{"key": "touched", "action": "insert", "value": True}]}


def matching(name, include=None, exclude=None):
    settings = dict(TOUCH)
    if include is not None:
        settings["include"] = include
    if exclude is not None:
        settings["exclude"] = exclude
    return (name, "attributes", settings)


STRICT, REGEXP = {"match_type": "strict"}, {"match_type": "regexp"}
CASES += [
    matching("traces:services", {**STRICT, "services": ["shop"]}),
    matching("traces:services_regexp", {**REGEXP, "services": ["^sh", "x"]}),
    matching("traces:services_none", {**REGEXP, "services": ["nil-service"]}),
    matching("traces:span_names", {**STRICT, "span_names": ["GET /a", "other"]}),
    matching("traces:span_names_regexp", {**REGEXP, "span_names": ["a$"], "regexp": {"cacheenabled": True, "cachemaxnumentries": 5}}),
    matching("traces:kinds", {**STRICT, "span_kinds": ["SPAN_KIND_SERVER"]}),
    matching("traces:kinds_regexp", {**REGEXP, "span_kinds": ["CLIENT", "^$"]}),
    matching("traces:kinds_unspecified", {**REGEXP, "span_kinds": ["UNSPECIFIED"]}),
    matching("traces:include_exclude", {**STRICT, "services": ["shop"]}, {**STRICT, "span_names": ["GET /a"]}),
    matching("traces:exclude", None, {**STRICT, "span_names": ["GET /a"]}),
    matching("logs:bodies", {**STRICT, "log_bodies": ["hello"]}),
    matching("logs:bodies_regexp", {**REGEXP, "log_bodies": ["^hel", '"k":\\[1,'], }),
    matching("logs:bodies_number", {**STRICT, "log_bodies": ["12"]}),
    matching("logs:bodies_empty", {**REGEXP, "log_bodies": ["^$"]}),
    matching("logs:severity_texts", {**REGEXP, "log_severity_texts": ["WARN"]}),
    matching("logs:severity_number", {**STRICT, "log_severity_number": {"min": 9}}),
    matching("logs:severity_undefined", {**STRICT, "log_severity_number": {"min": 13, "match_undefined": True}}),
    matching("metrics:names", {**STRICT, "metric_names": ["requests"]}),
    matching("metrics:names_regexp", {**REGEXP, "metric_names": ["^re", "tency"]}),
    matching("metrics:exclude", None, {**STRICT, "metric_names": ["requests"]}),
    matching("metrics:resources", {**STRICT, "resources": [{"key": "host.name", "value": "h1"}]}),
    matching("metrics:exclude_resources", None, {**STRICT, "resources": [{"key": "host.name", "value": "h1"}]}),
    matching("metrics:resources_and_names", {**STRICT, "metric_names": ["requests"], "resources": [{"key": "host.name", "value": "h1"}]}),
    matching("metrics:resources_regexp", {**REGEXP, "resources": [{"key": "host.name", "value": "^h"}]}),
    matching("metrics:resources_key", {**STRICT, "resources": [{"key": "host.name"}]}),
    matching("metrics:resources_two", {**STRICT, "resources": [{"key": "host.name"}, {"key": "nothing"}]}),
]
for common in ("traces", "logs"):
    CASES += [
        matching(common + ":attributes", {**STRICT, "attributes": [{"key": "i", "value": -12}]}),
        matching(common + ":attributes_type", {**STRICT, "attributes": [{"key": "i", "value": "-12"}]}),
        matching(common + ":attributes_float", {**STRICT, "attributes": [{"key": "whole", "value": 3.0}]}),
        matching(common + ":attributes_int_float", {**STRICT, "attributes": [{"key": "whole", "value": 3}]}),
        matching(common + ":attributes_list", {**STRICT, "attributes": [{"key": "pair", "value": [1, "x"]}]}),
        matching(common + ":attributes_map", {**STRICT, "attributes": [{"key": "dict", "value": {"b": 2, "a": 1}}]}),
        matching(common + ":attributes_key", {**STRICT, "attributes": [{"key": "only.first"}]}),
        matching(common + ":attributes_regexp", {**REGEXP, "attributes": [{"key": "d", "value": "^2\\.5$"}, {"key": "t", "value": "true"}]}),
        matching(common + ":attributes_regexp_list", {**REGEXP, "attributes": [{"key": "list", "value": "a"}]}),
        matching(common + ":attributes_regexp_large", {**REGEXP, "attributes": [{"key": "large", "value": "^1000000000000000000000$"}]}),
        matching(common + ":attributes_all", {**STRICT, "attributes": [{"key": "i"}, {"key": "nothing"}]}),
        matching(common + ":resources", {**STRICT, "resources": [{"key": "host.name", "value": "h1"}]}),
        matching(common + ":libraries", {**STRICT, "libraries": [{"name": "lib"}]}),
        matching(common + ":libraries_version", {**STRICT, "libraries": [{"name": "lib", "version": "1"}]}),
        matching(common + ":libraries_no_version", {**STRICT, "libraries": [{"name": "lib", "version": ""}]}),
        matching(common + ":libraries_two", {**STRICT, "libraries": [{"name": "lib"}, {"name": "other"}]}),
        matching(common + ":match_type_case", {"match_type": "Strict", "attributes": [{"key": "i"}]}),
        matching(common + ":all", {**REGEXP, "attributes": [{"key": "s", "value": "Ali"}], "resources": [{"key": "host.name", "value": "h"}],
                                   "libraries": [{"name": "l.b"}]}, {**REGEXP, "resources": [{"key": "host.name", "value": "2"}]}),
    ]


def items(extra):
    """The attributes of the items of one scope: the whole table, a few, none."""
    yield [{"key": key, "value": value} for key, value in ATTRIBUTES] + [{"key": "only.first", "value": {"intValue": "1"}}] + extra
    yield [{"key": "s", "value": {"stringValue": "x"}}, {"key": "i", "value": {"intValue": "-12"}}]
    yield []


EXTRA = [
    {"key": "pair", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}}},
    {"key": "dict", "value": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}, {"key": "b", "value": {"intValue": "2"}}]}}},
]


def request(kind):
    envelopes = []
    resources = [
        {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}, {"key": "host.name", "value": {"stringValue": "h1"}},
                        {"key": "count", "value": {"intValue": "5"}}, {"key": "gone", "value": {"boolValue": True}}]},
        {"attributes": [{"key": "host.name", "value": {"stringValue": "h2"}}]},
        {},
    ]
    scopes = [{"name": "lib", "version": "1"}, {"name": "lib"}, {"name": "other", "version": "1"}]
    for resource in resources:
        inner = []
        for scope in scopes:
            things = []
            for at, attributes in enumerate(items(EXTRA)):
                if kind == "traces":
                    things.append({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b17%d" % at, "name": ["GET /a", "other", "GET /b"][at],
                                   "kind": [2, 3, 0][at], "startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": attributes})
                elif kind == "logs":
                    body = [{"stringValue": "hello"}, {"intValue": "12"}, {"kvlistValue": {"values": [{"key": "k", "value": {"arrayValue": {
                        "values": [{"intValue": "1"}, {"stringValue": "<&>"}]}}}]}}][at]
                    things.append({"timeUnixNano": "1", "severityNumber": [9, 13, 0][at], "severityText": ["INFO", "WARN", ""][at],
                                   "body": body, "attributes": attributes})
                else:
                    point = {"timeUnixNano": "1", "attributes": attributes}
                    things += [
                        {"name": "requests", "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [{**point, "asInt": "1"}]}},
                        {"name": "level", "gauge": {"dataPoints": [{**point, "asDouble": 1.5}]}},
                        {"name": "latency", "histogram": {"aggregationTemporality": 2, "dataPoints": [
                            {**point, "count": "1", "sum": 1.0, "bucketCounts": ["1", "0"], "explicitBounds": [5.0]}]}},
                        {"name": "exp", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
                            {**point, "count": "1", "scale": 1, "positive": {"offset": 0, "bucketCounts": ["1"]}}]}},
                        {"name": "quantiles", "summary": {"dataPoints": [{**point, "count": "1", "sum": 1.0}]}},
                    ]
            if kind == "logs":
                things.append({"timeUnixNano": "1"})
            inner.append({"scope": scope, {"traces": "spans", "logs": "logRecords", "metrics": "metrics"}[kind]: things})
        envelope = {{"traces": "scopeSpans", "logs": "scopeLogs", "metrics": "scopeMetrics"}[kind]: inner}
        if resource:
            envelope["resource"] = resource
        envelopes.append(envelope)
    return {{"traces": "resourceSpans", "logs": "resourceLogs", "metrics": "resourceMetrics"}[kind]: envelopes}


def pipelines():
    for name, kind, settings in CASES:
        only, _, rest = name.rpartition(":")
        for signal_name in [only] if only else ["traces", "logs", "metrics"]:
            yield "%s_%s" % (signal_name, rest), signal_name, kind, settings


class Refused(Exception):
    """The program did not start; the text is the end of its log."""


def free_ports(names):
    """Distinct free ports: all are held until the last one is found."""
    held = {name: socket.socket() for name in names}
    for one in held.values():
        one.bind(("127.0.0.1", 0))
    ports = {name: one.getsockname()[1] for name, one in held.items()}
    for one in held.values():
        one.close()
    return ports


class Sink(http.server.BaseHTTPRequestHandler):
    """Keeps what is exported to /NAME/v1/SIGNAL."""

    protocol_version = "HTTP/1.1"
    received, arrived = {}, threading.Condition()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with Sink.arrived:
            Sink.received.setdefault(self.path.split("/")[1], []).append(body)
            Sink.arrived.notify_all()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def normal(value, key=None):
    """Attribute lists in order of key, defaults left out: what is equal as OTLP becomes equal as Python."""
    if isinstance(value, list):
        done = [normal(one) for one in value]
        return sorted(done, key=lambda one: json.dumps(one.get("key", ""))) if key in ("attributes",) else done
    if isinstance(value, dict):
        done = {name: normal(one, name) for name, one in value.items()}
        if key == "kvlistValue":
            # A map that stands in the configuration is written in any order by Go.
            done["values"] = sorted(done.get("values", []), key=lambda one: json.dumps(one.get("key", "")))
        # JSON writers differ in what they leave out: an absent list is an empty one, an absent value an empty one.
        if "key" in done and set(done) <= {"key", "value"}:
            done.setdefault("value", {})
        return {name: one for name, one in done.items() if not (one in ([], "", 0, {}) and name not in ("stringValue", "boolValue", "intValue", "doubleValue", "value", "asDouble", "asInt", "sum"))}
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    if isinstance(value, str) and key in ("intValue", "asInt", "count", "timeUnixNano", "startTimeUnixNano", "endTimeUnixNano"):
        return int(value)
    return value


def run(binary, work):
    """What the program passes on, by pipeline. Somebody else may take a port before the program does: then again with others."""
    for attempt in range(5):
        try:
            return run_once(binary, work)
        except Refused as refused:
            if "address already in use" not in str(refused) or attempt == 4:
                sys.exit("%s does not run:\n%s" % (binary, refused))


def run_once(binary, work):
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    Sink.received = {}
    ports = free_ports([name for name, *_ in pipelines()])
    config = {"receivers": {}, "processors": {}, "exporters": {}, "service": {"telemetry": {"metrics": {"level": "none"}}, "pipelines": {}}}
    for name, signal_name, kind, settings in pipelines():
        config["receivers"]["otlp/" + name] = {"protocols": {"http": {"endpoint": "127.0.0.1:%d" % ports[name], "include_metadata": True}}}
        config["processors"]["%s/%s" % (kind, name)] = settings
        config["exporters"]["otlp_http/" + name] = {"endpoint": "http://127.0.0.1:%d/%s" % (sink.server_port, name), "encoding": "json", "compression": "none"}
        config["service"]["pipelines"]["%s/%s" % (signal_name, name)] = {
            "receivers": ["otlp/" + name], "processors": ["%s/%s" % (kind, name)], "exporters": ["otlp_http/" + name]}
    path = os.path.join(work, "config.yaml")
    with open(path, "w") as out:
        json.dump(config, out)
    log = open(os.path.join(work, os.path.basename(binary) + ".log"), "w+")
    # Some of the pipelines forward what a request carries, which weir does not write to disk.
    env = {**os.environ, "WEIR_JOURNAL": "memory"}
    process = subprocess.Popen([binary, "--config", path], stdout=log, stderr=subprocess.STDOUT, env=env)
    try:
        for name, signal_name, *_ in pipelines():
            send(process, ports[name], signal_name, log)
        deadline = time.monotonic() + 60
        with Sink.arrived:
            while len(Sink.received) < len(ports) and time.monotonic() < deadline:
                Sink.arrived.wait(1)
        missing = sorted(set(ports) - set(Sink.received))
        if missing:
            log.seek(0)
            sys.exit("%s passed nothing on for %s\n%s" % (binary, missing, log.read()[-3000:]))
        return {name: normal(merged(bodies)) for name, bodies in Sink.received.items()}
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        sink.shutdown()


def merged(bodies):
    (key,) = {key for body in bodies for key in body}
    return {key: [envelope for body in bodies for envelope in body[key]]}


def send(process, port, signal_name, log):
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.putrequest("POST", "/v1/" + signal_name)
            body = json.dumps(request(signal_name)).encode()
            for header, value in (("content-type", "application/json"), ("content-length", str(len(body))), ("X-Tenant", "acme"),
                                  ("X-Many", "one"), ("X-Many", "two"), ("X-Empty", "")):
                connection.putheader(header, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                sys.exit("%s: status %d: %s" % (signal_name, answer.status, text))
            return
        except (ConnectionError, socket.timeout):
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise Refused(log.read()[-3000:]) from None
            time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="the Collector")
    parser.add_argument("--candidate", help="weir")
    parser.add_argument("--show", action="store_true", help="print what the reference passes on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        expected = run(arguments.reference, work)
        if arguments.show:
            json.dump(expected, sys.stdout, indent=1)
            return
        found = run(arguments.candidate, work)
    wrong = [name for name in expected if expected[name] != found[name]]
    for name in wrong:
        one, other = (json.dumps(side[name], indent=1).splitlines() for side in (expected, found))
        first = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
        print("%s differs:\n  reference %s\n  candidate %s" % (name, one[max(first - 4, 0):first + 4], other[max(first - 4, 0):first + 4]))
    print("%d of %d pipelines equal" % (len(expected) - len(wrong), len(expected)))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
