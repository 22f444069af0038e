"""What the checks share: processes ended by pid, ephemeral loopback ports, pages, and a backend that counts.

A check is a script. It prints one line a promise, `ok …` or `FAIL …: why`, and exits 1 if one failed.
It is given by the environment: WEIR (the binary), CACHE (what `run` installed), WORK (a folder of its own).
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from concurrent import futures
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEPLOY = HERE.parent.parent / "deploy"
WEIR = os.environ.get("WEIR", str(HERE.parent.parent / "target/release/weir"))
CACHE = Path(os.environ.get("CACHE", os.path.expanduser("~/.cache/weir-e2e")))
WORK = Path(os.environ.get("WORK", "/tmp"))
OTELCOL = str(CACHE / "peers/otelcol")
TELEMETRYGEN = str(CACHE / "peers/telemetrygen")

# A check must not depend on what the shell around it says about OpenTelemetry, nor go through its proxy.
for name in list(os.environ):
    if name.startswith(("OTEL_", "WEIR_")) and name != "WEIR_E2E_CACHE" or name.lower() in ("http_proxy", "https_proxy", "grpc_proxy"):
        del os.environ[name]

_failed = 0
_processes = []


def promise(name, holds, why=""):
    """One line of the report."""
    global _failed
    if holds:
        print(f"ok    {name}", flush=True)
    else:
        _failed += 1
        print(f"FAIL  {name}: {why}", flush=True)
    return holds


def finish():
    """Ends what still runs and the check with it."""
    for process in list(_processes):
        process.stop()
    sys.stdout.flush()
    # Threads of gRPC would keep the interpreter for seconds.
    os._exit(1 if _failed else 0)


def main(check):
    try:
        check()
    except Exception as error:  # a check that breaks is a promise not kept
        import traceback

        traceback.print_exc()
        promise(Path(sys.argv[0]).stem, False, f"broke off: {error!r}")
    finish()


_given = set()


def port():
    """A loopback port that nobody listens on."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            number = s.getsockname()[1]
        if number not in _given:
            _given.add(number)
            return number


def until(condition, seconds=20.0, every=0.05):
    """Waits for a condition; what it last said."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got or time.monotonic() > end:
            return got
        time.sleep(every)


class Process:
    """A child whose output goes to a file in WORK."""

    def __init__(self, name, command, env=None):
        self.name = name
        self.log = WORK / f"{name}-{len(_given)}-{time.monotonic_ns()}.log"
        self.file = open(self.log, "wb")
        # A journal of its own: nobody's is touched, and nothing is left from the process before.
        own = {"WEIR_DATA_DIR": str(self.log.with_suffix(".data"))}
        self.child = subprocess.Popen(
            [str(part) for part in command], stdout=self.file, stderr=subprocess.STDOUT, env={**os.environ, **own, **(env or {})}, cwd=WORK
        )
        _processes.append(self)

    @property
    def pid(self):
        return self.child.pid

    def text(self):
        return self.log.read_text(errors="replace")

    def listens(self, number, seconds=20.0):
        """Waits for a port to answer; the log's end says why it does not."""

        def answers():
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.child.returncode}: {self.text()[-2000:]}")
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", number)) == 0

        if not until(answers, seconds):
            raise RuntimeError(f"{self.name} does not listen on {number}: {self.text()[-2000:]}")
        return self

    def signal(self, what=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(what)

    def stop(self, seconds=40.0):
        """SIGTERM, then as `wait`."""
        self.signal()
        return self.wait(seconds)

    def wait(self, seconds=40.0):
        """The exit code; SIGKILL for who takes longer."""
        try:
            code = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait()
        if self in _processes:
            _processes.remove(self)
            self.file.close()
        return code


def get(url, accept=None, encoding=None):
    """(status, headers, text) of a page."""
    request = urllib.request.Request(url)
    if accept:
        request.add_header("Accept", accept)
    if encoding:
        request.add_header("Accept-Encoding", encoding)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, {}, ""


OPEN_METRICS = "application/openmetrics-text;version=1.0.0"

_SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*|\{)(.*)$')
_LABEL = re.compile(r'\s*,?\s*("(?:[^"\\]|\\.)*"|[a-zA-Z_][a-zA-Z0-9_]*)(?:="((?:[^"\\]|\\.)*)")?')


def _labels(text, at):
    """Labels from the `{` at `at`; ({name: value}, the quoted name or None, the place behind `}`)."""
    labels, name, at = {}, None, at + 1
    while text[at] != "}":
        found = _LABEL.match(text, at)
        if not found:
            raise ValueError(f"no label at {at}: {text!r}")
        key, value = found.groups()
        if key.startswith('"'):
            key = json.loads(key)
        if value is None:
            name = key
        else:
            labels[key] = re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), value)
        at = found.end()
        while text[at] in ", ":
            at += 1
    return labels, name, at + 1


def samples(page):
    """(name, labels, value, exemplar labels or None) of each line of a text page."""
    for line in page.splitlines():
        if not line or line.startswith("#"):
            continue
        brace = line.find("{")
        space = line.find(" ")
        labels, exemplar = {}, None
        if 0 <= brace < space:
            labels, quoted, at = _labels(line, brace)
            name = quoted if quoted is not None else line[:brace]
        else:
            name, at = line[:space], space
        rest = line[at:]
        if " # {" in rest:
            mark = line.index(" # {", at)
            exemplar, _, _ = _labels(line, mark + 3)
            rest = line[at:mark]
        yield name, labels, float(rest.split()[0]), exemplar


def total(page, name, **labels):
    """Sum of all samples of a name that carry these labels."""
    return sum(
        value for found, has, value, _ in samples(page) if found == name and all(has.get(key) == want for key, want in labels.items())
    )


def weir(arguments, env=None, name="weir"):
    return Process(name, [WEIR, *arguments], env)


# === weir without a file ===


def endpoints(node, path=()):
    """Every address of the embedded default, by its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "endpoint" and isinstance(value, str):
                yield (*path, key), value
            else:
                yield from endpoints(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from endpoints(value, (*path, str(number)))


def moved():
    """The embedded default on ephemeral ports: `--set` for each address, and the new port of each old one."""
    shown = subprocess.run([WEIR, "print-config", "--format", "json"], capture_output=True, text=True, timeout=20)
    config = json.loads(shown.stdout)
    sets, ports = [], {}
    for path, address in endpoints(config):
        host, old = address.rsplit(":", 1)
        ports[int(old)] = new = port()
        sets += ["--set", f"{'::'.join(path)}={host}:{new}"]
    ports[8888] = port()
    reader = f"[{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {ports[8888]}}}}}}}}}]"
    return [*sets, "--set", f"service::telemetry::metrics::readers={reader}"], ports


def demo(*arguments):
    """`weir demo` to its end; with what it says was accepted: [spans, log records, metric points]."""
    done = subprocess.run([WEIR, "demo", *arguments], capture_output=True, text=True, timeout=120)
    return done, [int(number) for number in re.findall(r"accepted: (\d+) spans, (\d+) log records, (\d+) metric points", done.stdout)[-1]]


def deployed(name, ports):
    """The text of a file in `deploy/`, whose hosts are the services of docker-compose.yml; `ports` is {"host:port": loopback port}."""
    text = (DEPLOY / name).read_text()
    for address, number in ports.items():
        text = text.replace(address, f"127.0.0.1:{number}")
    return text


# === OTLP ===

_SERVICES = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
}


def _requests():
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    return {"traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest}


def service_name(resource):
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return attribute.value.string_value
    return ""


def _points(metric):
    data = metric.WhichOneof("data")
    return len(getattr(metric, data).data_points) if data else 0


class Sink:
    """A backend over OTLP/gRPC, in this process: keeps every request, counts items by service."""

    def __init__(self, delay=0.0, workers=8):
        import grpc

        self.delay = delay
        self.bodies = {"traces": [], "logs": [], "metrics": []}
        # (when, body) of each request of spans that was answered.
        self.answered = []
        self.lock = threading.Lock()
        sink = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, call):
                signal_name = _SERVICES.get(call.method)
                if signal_name is None:
                    return None

                def take(body, _context):
                    if sink.delay:
                        time.sleep(sink.delay)
                    with sink.lock:
                        sink.bodies[signal_name].append(body)
                        if signal_name == "traces":
                            sink.answered.append((time.monotonic(), body))
                    return b""

                return grpc.unary_unary_rpc_method_handler(take)

        big = [("grpc.max_receive_message_length", 256 << 20)]
        self.server = grpc.server(futures.ThreadPoolExecutor(workers), options=big)
        self.server.add_generic_rpc_handlers((Handler(),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def requests(self, signal_name):
        """Everything that came, decoded by the official types."""
        kind = _requests()[signal_name]
        with self.lock:
            bodies = list(self.bodies[signal_name])
        return [kind.FromString(body) for body in bodies]

    def spans(self):
        for request in self.requests("traces"):
            for group in request.resource_spans:
                for scope in group.scope_spans:
                    for span in scope.spans:
                        yield group, scope, span

    def counts(self):
        """{(signal, service): items}."""
        counts = Counter()
        for group, _, _ in self.spans():
            counts["traces", service_name(group.resource)] += 1
        for request in self.requests("logs"):
            for group in request.resource_logs:
                counts["logs", service_name(group.resource)] += sum(len(scope.log_records) for scope in group.scope_logs)
        for request in self.requests("metrics"):
            for group in request.resource_metrics:
                counts["metrics", service_name(group.resource)] += sum(
                    _points(metric) for scope in group.scope_metrics for metric in scope.metrics
                )
        return counts

    def stop(self):
        self.server.stop(0)


class Sender:
    """Sends ready bodies over OTLP/gRPC."""

    def __init__(self, number):
        import grpc

        self.grpc = grpc
        self.channel = grpc.insecure_channel(f"127.0.0.1:{number}", options=[("grpc.max_send_message_length", 256 << 20)])
        self.calls = {name: self.channel.unary_unary(method) for method, name in _SERVICES.items()}

    def send(self, signal_name, body, timeout=30):
        """`None`, or the status that refused it."""
        try:
            self.calls[signal_name](body, timeout=timeout)
            return None
        except self.grpc.RpcError as error:
            return error

    def close(self):
        self.channel.close()
