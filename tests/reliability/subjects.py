"""What is tested: weir, and the Collector with `file_storage` as the peer that the same rows are run on."""

import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import harness
from harness import WORK, Process, get, samples, until

import oracle

HEAD = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: 64}}
      http: {{endpoint: "127.0.0.1:{http}"}}
"""


class Subject:
    """One instance with a data directory, started and ended many times on the same ports."""

    name = "?"

    def __init__(self, sinks, directory=None, red=False, consumers=None, mode="durable", quota=None, extra="", arguments=(), wrap=(), env=None,
                 timeout="5s", exporters=None):
        self.directory = Path(directory) if directory else WORK / f"data-{time.monotonic_ns()}"
        self.sinks, self.red, self.consumers, self.mode, self.quota, self.extra = sinks, red, consumers, mode, quota, extra
        self.exporters = dict(exporters or {})  # others than `sinks`, each with its settings as the file has them
        self.arguments, self.wrap, self.env, self.timeout = list(arguments), list(wrap), dict(env or {}), timeout
        self.grpc, self.http, self.page, self.own, self.health = oracle.port(), oracle.port(), oracle.port(), oracle.port(), oracle.port()
        self.config = WORK / f"{self.name}-{self.grpc}.yaml"
        self.process = None
        self.logs = []
        self.readies = []
        self.write()

    def write(self):
        self.config.write_text(self.file())

    def exporter(self, number, extra=""):
        keys = [f'endpoint: "127.0.0.1:{number}"', "compression: none", "tls: {insecure: true}", f"timeout: {self.timeout}"]
        keys.append("retry_on_failure: {initial_interval: 100ms, max_interval: 1s, max_elapsed_time: 0}")
        return "{" + ", ".join(keys) + extra + "}"

    # === life ===

    def start(self, seconds=60.0, wait=True):
        begun = time.monotonic()
        self.process = Process(f"{self.name}-{self.grpc}", [*self.wrap, *self.command()], self.env)
        self.logs.append(self.process.log)
        if wait:
            self.process.listens(self.grpc, seconds)
            self.readies.append(time.monotonic() - begun)
        return self

    @property
    def pid(self):
        """The program's own, where it runs under a wrapper that stays."""
        pid = self.process.pid
        if self.wrap:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                return int(children[0])
        return pid

    def kill(self):
        if self.wrap:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except OSError:
                pass
        self.process.signal(signal.SIGKILL)
        return self.process.wait(20)

    def stop(self, seconds=60.0):
        """(exit code, seconds) of SIGTERM."""
        begun = time.monotonic()
        if self.wrap:
            try:
                os.kill(self.pid, signal.SIGTERM)
            except OSError:
                pass
            code = self.process.wait(seconds)
        else:
            code = self.process.stop(seconds)
        return code, time.monotonic() - begun

    def alive(self):
        return self.process is not None and self.process.child.poll() is None

    def log(self):
        return "".join(path.read_text(errors="replace") for path in self.logs)

    def panics(self):
        return len(re.findall(r"panicked at|panic:|fatal error:|goroutine \d+ \[running\]|SIGABRT|stack overflow", self.log()))

    def clean(self):
        if self.alive():
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    # === figures ===

    def rss(self):
        return _status(self.pid, "VmRSS")

    def peak_rss(self):
        return _status(self.pid, "VmHWM")

    def anonymous_rss(self):
        """Without pages of files: those of the program itself come in as it does something for the first time."""
        return _status(self.pid, "RssAnon")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def disk(self):
        """Bytes that the directory takes."""
        return sum(path.lstat().st_blocks * 512 for path in self.directory.rglob("*") if path.is_file() or path.is_symlink())

    def files(self):
        return sorted(path for path in self.directory.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)

    def accepts(self, seconds=30.0):
        """Seconds from now until a request is taken (an empty one: nothing to count)."""
        begun = time.monotonic()

        def taken():
            client = oracle.Client(self.grpc)
            try:
                return client.send(b"", 5) is None
            finally:
                client.close()

        return time.monotonic() - begun if until(taken, seconds, 0.02) else None

    def own_page(self):
        return get(f"http://127.0.0.1:{self.own}/metrics")[2]

    def red_page(self):
        status, _, text = get(f"http://127.0.0.1:{self.page}/metrics")
        return status, text


def _status(pid, key):
    """MiB."""
    try:
        for line in open(f"/proc/{pid}/status"):
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float("nan")


class Weir(Subject):
    name = "weir"

    def file(self):
        out = HEAD.format(grpc=self.grpc, http=self.http)
        out += "exporters:\n"
        # No `sending_queue`: what a person writes there keeps the Collector's meaning, and bounds what waits.
        queue = f", sending_queue: {{num_consumers: {self.consumers}}}" if self.consumers else ""
        for name, number in self.sinks.items():
            out += f"  otlp/{name}: {self.exporter(number, queue)}\n"
        for name, settings in self.exporters.items():
            out += f"  {name}: {settings}\n"
        names = [*(f"otlp/{name}" for name in self.sinks), *self.exporters]
        metrics = ""
        if self.red:
            out += f'  prometheus: {{endpoint: "127.0.0.1:{self.page}"}}\n'
            out += "connectors:\n  span_metrics: {metrics_flush_interval: 1s}\n"
            names.append("span_metrics")
            metrics = "    metrics: {receivers: [span_metrics], exporters: [prometheus]}\n"
        out += f'extensions: {{health_check: {{endpoint: "127.0.0.1:{self.health}"}}}}\n'
        out += "service:\n  extensions: [health_check]\n"
        out += f"  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {self.own}}}}}}}}}]}}}}\n"
        out += f"  pipelines:\n    traces: {{receivers: [otlp], exporters: [{', '.join(names)}]}}\n" + metrics
        return out + self.extra

    def command(self):
        out = [harness.WEIR, "run", "--config", self.config]
        if os.environ.get("RELIABILITY_WITHOUT_JOURNAL") != "1":
            out += ["--journal", self.mode]
            if self.mode != "memory":
                out += ["--data-dir", self.directory]
            if self.quota:
                out += ["--journal-max-size", self.quota]
        return out + self.arguments

    # === the books ===

    def books(self):
        """{consumer: {accepted, delivered, dropped, held}} of the own page."""
        kinds = {
            "weir_consumer_accepted_items": "accepted",
            "weir_consumer_delivered_items": "delivered",
            "weir_consumer_dropped_items": "dropped",
            "weir_consumer_held_items": "held",
        }
        found = {}
        for name, labels, value, _ in samples(self.own_page()):
            kind = kinds.get(name.removesuffix("_total"))
            if kind:
                key = tuple(sorted((k, v) for k, v in labels.items() if k not in ("reason", "otel_scope_name", "otel_scope_version")))
                book = found.setdefault(key, {"accepted": 0, "delivered": 0, "dropped": 0, "held": 0})
                book[kind] += int(value)
        return found

    def dropped_by_reason(self):
        return {
            labels.get("reason", "?"): value
            for name, labels, value, _ in samples(self.own_page())
            if name.startswith("weir_consumer_dropped_items") and value
        }

    def journal(self, *arguments):
        """(exit code, output) of `weir journal …` on this directory."""
        process = Process("journal", [harness.WEIR, "journal", *arguments, "--data-dir", self.directory])
        code = process.wait(60)
        return code, process.text()


class Collector(Subject):
    name = "Collector"
    fsync = False

    def file(self):
        out = HEAD.format(grpc=self.grpc, http=self.http) + "exporters:\n"
        queue = f", sending_queue: {{storage: file_storage, sizer: items, queue_size: 1000000000, num_consumers: {self.consumers or 10}}}"
        for name, number in self.sinks.items():
            out += f"  otlp/{name}: {self.exporter(number, queue)}\n"
        out += f'extensions:\n  file_storage: {{directory: "{self.directory}", create_directory: true, fsync: {str(self.fsync).lower()}}}\n'
        out += "service:\n  extensions: [file_storage]\n  telemetry: {metrics: {level: none}, logs: {level: warn}}\n"
        names = ", ".join(f"otlp/{name}" for name in self.sinks)
        return out + f"  pipelines:\n    traces: {{receivers: [otlp], exporters: [{names}]}}\n"

    def command(self):
        return [harness.OTELCOL, "--config", self.config]

    def books(self):
        return {}


def free(number):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", number)) != 0
