"""Official SDKs and telemetrygen send all three signals through weir: every item that was accepted arrives downstream, once."""

import json
import os
import subprocess
import sys

from harness import CACHE, HERE, TELEMETRYGEN, WORK, Sink, main, port, promise, until, weir

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:${env:GRPC}"}
      http: {endpoint: "127.0.0.1:${env:HTTP}"}
exporters:
  otlp: {endpoint: "127.0.0.1:${env:OUT}", tls: {insecure: true}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp]}
    logs: {receivers: [otlp], exporters: [otlp]}
    metrics: {receivers: [otlp], exporters: [otlp]}
"""


def told(name, command):
    """What an SDK program says it delivered."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "NODE_MODULES": str(CACHE / "node")})
    if done.returncode != 0:
        return {}, done.stderr[-1500:]
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr[-500:]


def arrived(sink, service, wanted):
    """Whether exactly these counts are there in the end; what is there."""

    def seen():
        counts = sink.counts()
        return {signal: counts[signal, service] for signal in ("traces", "logs", "metrics")}

    until(lambda: all(seen()[signal] >= wanted.get(signal, 0) for signal in seen()), 20)
    return seen()


def check():
    sink = Sink()
    grpc, http = port(), port()
    config = WORK / "sdks.yaml"
    config.write_text(CONFIG)
    process = weir(["run", "--config", config], {"GRPC": str(grpc), "HTTP": str(http), "OUT": str(sink.port)})
    process.listens(grpc).listens(http)

    node = ["node", str(HERE / "sdk_javascript.mjs")]
    python = [sys.executable, str(HERE / "sdk_python.py")]
    without = os.environ.get("WITHOUT", "").split()
    programs = []
    if "python" not in without:
        programs += [(python, "python", "grpc"), (python, "python", "http/protobuf")]
    if "node" not in without:
        programs += [(node, "javascript", "grpc"), (node, "javascript", "http/protobuf"), (node, "javascript", "http/json")]
    for command, language, protocol in programs:
        base = f"http://127.0.0.1:{grpc if protocol == 'grpc' else http}"
        service = f"{language} {protocol}"
        said, stderr = told(service, [*command, protocol, base, service])
        complete = said.get("traces") == 800 and said.get("logs") == 400 and said.get("metrics", 0) >= 4
        refused = [key for key in said if key.endswith("failed")]
        promise(f"{service}: the SDK delivers all it made", complete and not refused, f"{said} {stderr}")
        there = arrived(sink, service, said)
        wanted = {signal: said.get(signal, 0) for signal in there}
        promise(f"{service}: nothing lost or doubled downstream", there == wanted, f"accepted {wanted}, arrived {there}")

    if "telemetrygen" not in without:
        for transport, flags, number in (("gRPC", [], grpc), ("HTTP", ["--otlp-http"], http)):
            service = f"telemetrygen {transport}"
            for signal in ("traces", "logs", "metrics"):
                command = [TELEMETRYGEN, signal, "--otlp-insecure", "--otlp-endpoint", f"127.0.0.1:{number}", *flags]
                command += [f"--{signal}", "200", "--workers", "2", "--rate", "0", "--service", service]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                promise(f"{service}: {signal} end well", done.returncode == 0, done.stderr[-500:])
            # Two workers, each with 200; a trace is two spans.
            wanted = {"traces": 800, "logs": 400, "metrics": 400}
            there = arrived(sink, service, wanted)
            promise(f"{service}: nothing lost or doubled downstream", there == wanted, f"accepted {wanted}, arrived {there}")
    promise("weir ends in order", process.stop() == 0, process.text()[-1500:])
    sink.stop()


main(check)
