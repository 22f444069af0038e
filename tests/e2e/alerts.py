"""The alerts of `dashboards/rules` on their whole way: weir's pages, a real Prometheus and a real Alertmanager on the files of `deploy/`, to a receiver
that is told when one fires, by which labels and texts, and when it is over."""

import http.server
import json
import re
import signal
import threading

from harness import HERE, WORK, Process, demo, deployed, main, moved, port, promise, until, weir

RULES = HERE.parent.parent / "dashboards/rules"


class Receiver:
    """A webhook: keeps every alert it is told of."""

    def __init__(self):
        self.told = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.told += [{**alert, "receiver": message["receiver"]} for alert in message["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def alert(self, name, status, seconds=60, **labels):
        """The first alert of this name, status and labels; waits for it."""

        def found():
            return next((a for a in self.told if a["labels"]["alertname"] == name and a["status"] == status and all(a["labels"].get(k) == v for k, v in labels.items())), None)

        return until(found, seconds, 0.1)


def hurried(text):
    """Rules of minutes as rules of seconds: nobody waits for them."""
    text = re.sub(r"\bfor: \d+m\b", "for: 1s", text)
    text = re.sub(r"\[5m\]", "[8s]", text)
    return re.sub(r"\binterval: \w+", "interval: 1s", text)


def check():
    sets, ports = moved()
    receiver, prometheus_port, alertmanager_port = Receiver(), port(), port()
    hosts = {"weir:8888": ports[8888], "weir:8889": ports[8889], "alertmanager:9093": alertmanager_port}
    rules = WORK / "rules"
    rules.mkdir(exist_ok=True)
    for file in RULES.glob("*.yaml"):
        (rules / file.name).write_text(hurried(file.read_text()))
    text = deployed("prometheus.yml", hosts).replace("/etc/prometheus/rules", str(rules)).replace(": 15s", ": 1s")
    (WORK / "prometheus.yml").write_text(text)
    hook = f'webhook_configs: [{{url: "http://127.0.0.1:{receiver.port}/", send_resolved: true}}]'
    text = deployed("alertmanager.yml", {})
    for name in ("team", "on-call"):
        text = text.replace(f"  - name: {name}\n", f"  - name: {name}\n    {hook}\n")
    text = re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", text)
    (WORK / "alertmanager.yml").write_text(text)

    process = weir(["run", *sets]).listens(ports[4317]).listens(ports[8888])
    manager = [f"--config.file={WORK / 'alertmanager.yml'}", f"--storage.path={WORK / 'alertmanager'}", f"--web.listen-address=127.0.0.1:{alertmanager_port}"]
    manager = Process("alertmanager", ["prometheus-alertmanager", *manager, "--cluster.listen-address="]).listens(alertmanager_port)
    arguments = [f"--config.file={WORK / 'prometheus.yml'}", f"--storage.tsdb.path={WORK / 'data'}", f"--web.listen-address=127.0.0.1:{prometheus_port}"]
    prometheus = Process("prometheus", ["prometheus", *arguments, "--log.level=warn"]).listens(prometheus_port)

    # === a service that fails ===
    done, _ = demo("--endpoint", f"http://127.0.0.1:{ports[4317]}", "--rate", "40", "--duration", "8s", "--seed", "3", "--error-pct", "100")
    promise("the demo is accepted", done.returncode == 0, done.stdout[-800:])
    fired = receiver.alert("WeirServiceErrors", "firing", service_name="web")
    promise("a failing service is told to the receiver", fired, f"{receiver.told} {manager.text()[-800:]} {prometheus.text()[-800:]}")
    if fired:
        labels, texts = fired["labels"], fired["annotations"]
        promise("with its service and severity, to the one who is meant", labels["severity"] == "warning" and fired["receiver"] == "team" and "service_namespace" in labels, fired)
        promise("with a text that names the service and the share", re.fullmatch(r"web fails [\d.]+% of its calls", texts["summary"]), texts)
        promise("with what to do first", "weir tap --service web --errors" in texts["description"], texts)
    over = receiver.alert("WeirServiceErrors", "resolved", service_name="web")
    promise("when the failures end, that is told", over and over["endsAt"] > over["startsAt"], receiver.told[-3:])

    # === weir itself ===
    process.signal(signal.SIGKILL)
    process.wait()
    own = f"127.0.0.1:{ports[8888]}"
    down = receiver.alert("WeirDown", "firing", instance=own)
    promise("a weir that was killed is told to who is on call", down and down["labels"]["severity"] == "critical" and down["receiver"] == "on-call", receiver.told[-3:])
    if down:
        promise("with its address and the first command", own in down["annotations"]["summary"] and "systemctl status weir" in down["annotations"]["description"], down["annotations"])
    process = weir(["run", *sets], name="again").listens(ports[8888])
    up = receiver.alert("WeirDown", "resolved", instance=own)
    promise("when it is back, that is told", up and up["labels"] == (down or {}).get("labels"), receiver.told[-3:])
    promise("Alertmanager takes the file without a complaint", "level=error" not in manager.text() and "level=warn" not in manager.text(), manager.text()[-1500:])
    promise("weir ends in order", process.stop() == 0, process.text()[-1500:])


main(check)
