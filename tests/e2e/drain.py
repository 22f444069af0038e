"""SIGTERM under load with a slow backend: what was accepted is downstream, or the log says exactly what is not. And `weir drain`, before a machine
goes for good: nothing more is taken, and all that was taken, with what was counted of it, is downstream before anything ends."""

import json
import re
import subprocess
import threading
import time

from harness import WEIR, WORK, Sender, Sink, main, port, promise, until, weir

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:${env:GRPC}"}}}}
exporters:
  otlp_grpc: {endpoint: "127.0.0.1:${env:OUT}", tls: {insecure: true}, sending_queue: {num_consumers: 2}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}
"""
COUNTING = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:${env:GRPC}"}}}}
connectors: {span_metrics: {aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, metrics_flush_interval: 1h}}
exporters:
  otlp_grpc: {endpoint: "127.0.0.1:${env:OUT}", tls: {insecure: true}, sending_queue: {num_consumers: 2}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_grpc, span_metrics]}
    metrics: {receivers: [span_metrics], exporters: [otlp_grpc]}
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


class Load:
    """Senders that do not stop when they are refused."""

    def __init__(self, grpc):
        self.accepted, self.refused, self.lock, self.stop = 0, 0, threading.Lock(), threading.Event()
        self.workers = [threading.Thread(target=self.send, args=(grpc, worker + 1), daemon=True) for worker in range(4)]
        for worker in self.workers:
            worker.start()

    def send(self, grpc, number):
        sender = Sender(grpc)
        while not self.stop.is_set():
            number += 4
            refusal = sender.send("traces", body(number))
            with self.lock:
                self.accepted += 0 if refusal else SPANS
                self.refused += 1 if refusal else 0
            if refusal:
                time.sleep(0.02)
        sender.close()

    def end(self):
        self.stop.set()
        for worker in self.workers:
            worker.join(10)


def ask(*words):
    done = subprocess.run([WEIR, *map(str, words)], capture_output=True, text=True, timeout=90)
    return done.returncode, done.stdout + done.stderr


def counted(sink):
    """The calls that arrived as deltas."""
    metrics = [metric for request in sink.requests("metrics") for group in request.resource_metrics for scope in group.scope_metrics for metric in scope.metrics]
    return sum(point.as_int for metric in metrics if metric.name.endswith("calls") for point in metric.sum.data_points)


def before_it_goes():
    sink, grpc, data = Sink(delay=0.1, workers=2), port(), WORK / "drained"
    config = WORK / "counting.yaml"
    config.write_text(COUNTING)
    env = {"GRPC": str(grpc), "OUT": str(sink.port), "WEIR_DATA_DIR": str(data)}
    process = weir(["run", "--config", config], env).listens(grpc)
    promise("weir health: a weir that takes data is well and ready", ask("health", "--ready", "--data-dir", data)[0] == 0)
    load = Load(grpc)
    until(lambda: sink.bodies["traces"], 10)
    time.sleep(1.0)
    code, said = ask("drain", "--data-dir", data, "--timeout", "60s")
    arrived, calls = len({span.span_id for _, _, span in sink.spans()}), counted(sink)
    promise("weir drain: it says when all is delivered", code == 0 and "drained" in said, f"{code} {said} {log_end(process)}")
    before = load.refused
    promise("weir drain: nothing more is taken", until(lambda: load.refused > before + 4, 10), f"{load.refused} refused")
    load.end()
    promise(f"weir drain: all {load.accepted} accepted spans had arrived by then", load.accepted > 20 * SPANS and arrived == load.accepted, f"{arrived}")
    promise("weir drain: and what was counted of them, though its hour was not over", calls == load.accepted, f"{calls} of {load.accepted}")
    well, ready = ask("health", "--data-dir", data), ask("health", "--ready", "--data-dir", data)
    promise("weir health: drained, it is well and not ready, and says why", well[0] == 0 and ready[0] == 1 and "drained" in ready[1], f"{well} {ready}")
    process.signal(1)  # SIGHUP
    promise("weir drain: a reload does not open it again", until(lambda: "being drained" in process.text(), 10) and load_refused(grpc), log_end(process))
    promise("weir drain: a signal ends it in order", process.stop() == 0, log_end(process))
    promise("weir drain: and nothing comes twice by that", (len(list(sink.spans())), counted(sink)) == (load.accepted, load.accepted), "")
    sink.stop()
    code, said = ask("health", "--data-dir", data)
    promise("weir health: what does not run is not well", code == 1 and "weir" in said, f"{code} {said}")

    # Nobody takes it: it says for whom it waits, and goes on.
    grpc = port()
    env = {"GRPC": str(grpc), "OUT": str(port()), "WEIR_DATA_DIR": str(WORK / "held")}
    process = weir(["run", "--config", config], env).listens(grpc)
    sender = Sender(grpc)
    sender.send("traces", body(1))
    sender.close()
    code, said = ask("drain", "--data-dir", WORK / "held", "--timeout", "2s")
    promise("weir drain: who does not take it is named in time", code == 3 and f"{SPANS} items for otlp_grpc in pipeline traces" in said, f"{code} {said}")
    promise("weir drain: and it goes on", process.child.poll() is None and ask("health", "--data-dir", WORK / "held")[0] == 0)
    process.stop()


def load_refused(grpc):
    sender = Sender(grpc)
    refusal = sender.send("traces", body(1), timeout=5)
    sender.close()
    return refusal is not None


def log_end(process):
    return process.text()[-1500:]


def check():
    under_load("a journal on disk", 0.3, "60s", True, "durable")
    under_load("a slow backend", 0.05, "60s", True)
    under_load("a backend slower than the patience", 2.0, "1s", False)
    before_it_goes()


main(check)
