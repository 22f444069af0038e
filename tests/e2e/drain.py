"""SIGTERM under load with a slow backend: what was accepted is downstream, or the log says exactly what is not."""

import json
import re
import threading
import time

from harness import WORK, Sender, Sink, main, port, promise, until, weir

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:${env:GRPC}"}}}}
exporters:
  otlp_grpc: {endpoint: "127.0.0.1:${env:OUT}", tls: {insecure: true}, sending_queue: {num_consumers: 2}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}
"""
SPANS = 50


def body(number):
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    attribute = group.resource.attributes.add()
    attribute.key, attribute.value.string_value = "service.name", "load"
    scope = group.scope_spans.add()
    for at in range(SPANS):
        span = scope.spans.add()
        span.trace_id = number.to_bytes(16, "big")
        span.span_id = (number * SPANS + at + 1).to_bytes(8, "big")
        span.name = "work"
        span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
        text = span.attributes.add()
        # Large enough that what waits is many requests to the backend.
        text.key, text.value.string_value = "filler", "x" * 2000
    return request.SerializeToString()


def spans_of(body):
    groups = ExportTraceServiceRequest.FromString(body).resource_spans
    return sum(len(scope.spans) for group in groups for scope in group.scope_spans)


def under_load(name, delay, drain_timeout, lossless, journal="memory"):
    sink = Sink(delay=delay, workers=2)
    grpc = port()
    config = WORK / "drain.yaml"
    config.write_text(CONFIG)
    arguments = ["run", "--config", config, "--drain-timeout", drain_timeout, "--journal", journal]
    env = {"GRPC": str(grpc), "OUT": str(sink.port), "WEIR_DATA_DIR": str(WORK / f"drain-{journal}-{grpc}")}
    process = weir(arguments, env).listens(grpc)
    stop, accepted, lock = threading.Event(), [0], threading.Lock()

    def load(worker):
        sender, number = Sender(grpc), worker
        while not stop.is_set():
            number += 4
            if sender.send("traces", body(number)) is None:
                with lock:
                    accepted[0] += SPANS
            else:
                time.sleep(0.02)
        sender.close()

    workers = [threading.Thread(target=load, args=(worker + 1,), daemon=True) for worker in range(4)]
    for worker in workers:
        worker.start()
    until(lambda: sink.bodies["traces"], 10)
    time.sleep(1.5)
    process.signal()
    stopping = time.monotonic()
    # The senders go on: what comes now is refused, or taken and then drained.
    code = process.wait(90)
    ended = time.monotonic()
    stop.set()
    for worker in workers:
        worker.join(10)
    if journal != "memory":
        promise(f"{name}: a stop does not wait for the backend", ended - stopping < 10, f"{ended - stopping:.1f} s; {log_end(process)}")
        promise(f"{name}: weir ends in order", code == 0, f"exit code {code}; {log_end(process)}")
        again = weir(arguments, {**env, "GRPC": str(port())})
        arrived = lambda: len({span.span_id for _, _, span in sink.spans()})
        until(lambda: arrived() == accepted[0], 60)
        promise(f"{name}: after the next start all {accepted[0]} accepted spans arrived", arrived() == accepted[0], f"{arrived()}; {log_end(again)}")
        again.signal()
        again.wait(30)
        sink.stop()
        return
    # What the backend took and could not say any more: there, and said to be not delivered.
    until(lambda: time.monotonic() > ended + 2 * delay, 3 * delay + 1)
    late = sum(spans_of(body) for at, body in sink.answered if at > ended - 0.3)
    spans = [span.span_id for _, _, span in sink.spans()]
    there = len(set(spans))
    log = process.text()
    lost = sum(json.loads(fields)["items"] for fields in re.findall(r"\tnot delivered [^\t]*\t({.*})", log))
    promise(f"{name}: the load was taken", accepted[0] > 20 * SPANS, f"{accepted[0]} accepted")
    if lossless:
        promise(f"{name}: all {accepted[0]} accepted spans arrived", there == accepted[0], f"{there} arrived; {log[-1500:]}")
        promise(f"{name}: none arrived twice", len(spans) == there, f"{len(spans) - there} doubles")
        promise(f"{name}: weir ends in order", code == 0, f"exit code {code}; {log[-800:]}")
    else:
        promise(f"{name}: the log says that something was not delivered", lost > 0, log[-1500:])
        promise(
            f"{name}: accepted {accepted[0]} = arrived {there} + said {lost}, but for {late} cut off in the middle",
            accepted[0] <= there + lost <= accepted[0] + late,
            log[-1500:],
        )
        promise(f"{name}: the exit code tells", code == 3, f"exit code {code}")
    sink.stop()


def log_end(process):
    return process.text()[-1500:]


def check():
    under_load("a journal on disk", 0.3, "60s", True, "durable")
    under_load("a slow backend", 0.05, "60s", True)
    under_load("a backend slower than the patience", 2.0, "1s", False)


main(check)
