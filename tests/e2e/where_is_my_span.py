"""What a person asks in the first week, of a weir that runs: where is my span, who is behind, and why."""

import json
import signal
import stat
import subprocess
import urllib.request

from harness import WEIR, WORK, main, port, promise, until, weir

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{http}"}}}}}}}}
exporters: {{otlp_grpc/backend: {{endpoint: "127.0.0.1:{out}", tls: {{insecure: true}}, retry_on_failure: {{max_interval: 1s}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_grpc/backend]}}}}
"""
BACKEND = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{out}"}}}}}}}}
exporters: {{nop: }}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [nop]}}}}
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
CONSUMER = "otlp_grpc/backend in pipeline traces"


def send(http, trace, name, service="cart"):
    span = {"traceId": trace, "spanId": "b7ad6b7169203331", "name": name, "kind": 2, "startTimeUnixNano": "1000", "endTimeUnixNano": "3500000", "status": {"code": 2}}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    request = urllib.request.Request(f"http://127.0.0.1:{http}/v1/traces", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status


def ask(*arguments):
    """Exit code, stdout, stderr of a command."""
    done = subprocess.run([WEIR, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


class Tap:
    """A `weir tap` that says that it is connected."""

    def __init__(self, data, *arguments):
        command = [WEIR, "tap", "--data-dir", str(data), *arguments]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.greeting = self.child.stderr.readline()

    def end(self, seconds=30):
        """Exit code and what was printed."""
        try:
            out, err = self.child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            out, err = self.child.communicate()
        return self.child.returncode, out, err


def consumer(data):
    _, page, _ = ask("plan", "--live", "--format", "json", "--data-dir", data)
    report = json.loads(page)
    return report, next(one for one in report["consumers"] if one["name"] == CONSUMER)


def check():
    http, out = port(), port()
    config, backend, data = WORK / "front.yaml", WORK / "backend.yaml", WORK / "front.data"
    config.write_text(CONFIG.format(http=http, out=out))
    backend.write_text(BACKEND.format(out=out))
    front = weir(["run", config, "--data-dir", data]).listens(http)
    socket = data / "admin.sock"
    mode = stat.S_IMODE(socket.stat().st_mode)
    promise("only its owner can open the socket", mode == 0o600, oct(mode))

    text = Tap(data, "--service", "cart", "-n", "1")
    otlp = Tap(data, "--trace-id", TRACE, "--format", "json", "-n", "1")
    delivered = Tap(data, "--at", "delivered,dropped", "--trace-id", TRACE, "-n", "1")
    promise("a tap says at once that it waits", "waiting" in text.greeting, text.greeting)
    send(http, "ff" * 16, "GET /other", "other")
    send(http, TRACE, "POST /cart")
    code, line, _ = text.end()
    promise("a tap shows the span that was asked for", code == 0 and "POST /cart" in line and TRACE in line and "error" in line and "other" not in line, line)
    code, line, _ = otlp.end()
    request = json.loads(line)
    spans = [span["name"] for group in request["resourceSpans"] for scope in group["scopeSpans"] for span in scope["spans"]]
    promise("a tap gives OTLP/JSON", code == 0 and spans == ["POST /cart"] and request["weir"]["at"] == "ingest", line)

    def failing():
        report, one = consumer(data)
        return (report, one) if not one["destination"]["up"] else None

    report, one = until(failing) or consumer(data)
    promise("plan --live tells which backend fails and why", not one["destination"]["up"] and "refused" in (one["destination"]["error"] or ""), one["destination"])
    promise("plan --live tells how far behind", one["lag"]["items"] == 2 and one["lag_seconds"] > 0, one)
    promise("the books balance", report["balanced"] and one["books"]["accepted"] == 2, one["books"])
    _, page, _ = ask("plan", "--live", "--data-dir", data)
    promise("plan --live is for people too", "FAILING" in page and "the books balance" in page, page)
    told = lambda: ask("journal", "where", TRACE, "--data-dir", data)[1]
    place = until(lambda: told() if "held" in told() and "refused" in told() else None) or told()
    promise("journal where tells the last error", f"{CONSUMER}  held: " in place and "refused" in place, place)

    behind = weir(["run", backend, "--data-dir", WORK / "backend.data"], name="backend").listens(out)
    code, line, _ = delivered.end()
    promise("a tap shows the delivery", code == 0 and "delivered" in line and CONSUMER in line, line)
    caught_up = lambda: consumer(data)[1]["lag"]["items"] == 0
    promise("the backlog is gone", until(caught_up), "still behind")
    promise("the destination is up again", consumer(data)[1]["destination"]["up"], consumer(data)[1])

    # A reader that went while nothing passes.
    piped = subprocess.Popen(f"'{WEIR}' tap --data-dir '{data}' | head -n 1 > /dev/null; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", stderr=subprocess.PIPE)
    piped.stderr.readline()
    send(http, "11" * 16, "GET /one")
    try:
        code = piped.wait(20)
    except subprocess.TimeoutExpired:
        piped.kill()
        code = "it goes on"
    promise("a closed pipe ends a tap cleanly", code == 0, code)

    left = Tap(data)
    front.signal(signal.SIGKILL)
    front.wait()
    code, _, err = left.end()
    promise("a tap says that its weir is gone", code == 1 and "gone" in err, f"{code} {err}")
    code, _, err = ask("tap", "--data-dir", data)
    promise("a socket that was left behind is told from none", code == 1 and "start it again" in err, f"{code} {err}")
    front = weir(["run", config, "--data-dir", data]).listens(http)
    promise("a socket that was left behind is replaced", until(lambda: ask("plan", "--live", "--data-dir", data)[0] == 0), front.text()[-500:])
    stopping = Tap(data)
    front.signal()
    code, _, err = stopping.end()
    promise("a tap ends in order with its weir", code == 0 and "stopping" in err, f"{code} {err}")
    promise("weir ends in order", front.wait() == 0, front.text()[-500:])
    promise("the socket is gone with it", not socket.exists(), "it is there")
    behind.stop()


main(check)
