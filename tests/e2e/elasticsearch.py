"""The `elasticsearch` exporter and a real OpenSearch: templates, data streams, what is refused and replayed, and nothing lost or doubled when either is killed."""

import json
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from harness import CACHE, HERE, WEIR, WORK, Process, get, main, port, promise, total, until, weir

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{otlp}"}}}}}}}}
exporters:
  elasticsearch:
    endpoint: http://127.0.0.1:{http}
    document_ids: true
    retry: {{max_interval: 2s}}
  elasticsearch/daily:
    endpoint: http://127.0.0.1:{http}
    logs_index: "{{service}}-{{signal}}-%Y.%m.%d"
    mapping: {{mode: none}}
    retry: {{max_interval: 2s}}
service:
  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {own}}}}}}}}}]}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [elasticsearch]}}
    logs/daily: {{receivers: [otlp], exporters: [elasticsearch/daily]}}
    traces: {{receivers: [otlp], exporters: [elasticsearch]}}
"""
STREAM = "logs-generic-default"
NANOS = 1763758800123456789


def ask(http, method, path, body=None):
    """(status, JSON) of a request to the server."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{http}{path}", data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or "{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or "{}")
    except OSError:
        return 0, {}


def count(http, index):
    ask(http, "POST", f"/{index}/_refresh")
    return ask(http, "GET", f"/{index}/_count")[1].get("count", 0)


def send(otlp, service, bodies, attributes=()):
    """Sends log records; the status, or 0 where nobody answers."""
    records = [
        {"timeUnixNano": str(NANOS), "body": {"stringValue": body}, "attributes": [{"key": key, "value": value} for key, value in attributes]}
        for body in bodies
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    body = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}
    request = urllib.request.Request(f"http://127.0.0.1:{otlp}/v1/logs", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except OSError:
        return 0


class OpenSearch:
    """A server that keeps its data when it is killed."""

    def __init__(self):
        self.http, self.data = port(), WORK / "opensearch"
        self.start()

    def start(self):
        command = [HERE / "opensearch.sh", "run", CACHE / "opensearch", self.data, self.http]
        self.process = Process("opensearch", command)
        if not until(lambda: ask(self.http, "GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")[0] == 200, 240, 0.5):
            raise RuntimeError(f"OpenSearch does not come: {self.process.text()[-2000:]}")

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.process.wait()


def setup(config, *arguments):
    done = subprocess.run([WEIR, "elasticsearch", "setup", str(config), *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def templates(server, config):
    code, said = setup(config, "--dry-run")
    nothing = ask(server.http, "GET", "/_index_template/weir-logs")[0] == 404
    promise("a dry run says what would be done and does nothing", code == 0 and nothing and "would be created" in said, f"{code} {said}")
    code, said = setup(config)
    _, found = ask(server.http, "GET", "/_index_template/weir-logs")
    is_stream = "data_stream" in found["index_templates"][0]["index_template"]
    promise("setup installs templates that make data streams", code == 0 and is_stream, f"{code} {said}")
    promise("what a server without the plugin cannot have is said", "no index state management" in said, said)
    code, said = setup(config)
    promise("a second setup changes nothing", code == 0 and said.count("is as it should be") == 3, said)
    template = found["index_templates"][0]["index_template"]
    template["template"]["mappings"]["properties"]["amount"] = {"type": "long"}
    template["data_stream"] = {}
    status, _ = ask(server.http, "PUT", "/_index_template/weir-logs", template)
    code, said = setup(config)
    kept = ask(server.http, "GET", "/_index_template/weir-logs")[1]["index_templates"][0]["index_template"]
    has = kept["template"]["mappings"]["properties"].get("amount")
    promise("a template that a person changed is kept, and that is said", status == 200 and has and "kept as it is" in said, said)


def first(server, otlp, own):
    for service in ("Cart", "shop/EU", "_all"):
        send(otlp, service, [f"line {n}" for n in range(1000)])
    got = until(lambda: count(server.http, STREAM) == 3000, 30, 0.3)
    promise("each log record is a document in the data stream", got, count(server.http, STREAM))
    _, streams = ask(server.http, "GET", "/_data_stream")
    names = [stream["name"] for stream in streams.get("data_streams", [])]
    promise("the data stream is one", STREAM in names, names)
    fields = [{"field": "@timestamp", "format": "strict_date_optional_time_nanos"}]
    query = {"size": 1, "query": {"match": {"message": "line"}}, "docvalue_fields": fields}
    _, hits = ask(server.http, "POST", f"/{STREAM}/_search", query)
    found = hits["hits"]["hits"][0]
    promise("a document is found by its text", found["_source"]["service"]["name"] in ("Cart", "shop/EU", "_all"), found)
    nanos = found["fields"]["@timestamp"][0]
    promise("its time keeps nanoseconds", nanos == "2025-11-21T21:00:00.123456789Z", nanos)
    wanted = {"cart-logs-2025.11.21": 1000, "shop-eu-logs-2025.11.21": 1000, "all-logs-2025.11.21": 1000}
    got = until(lambda: all(count(server.http, index) == items for index, items in wanted.items()), 30, 0.3)
    promise("an index a service and day", got, {index: count(server.http, index) for index in wanted})
    page = get(f"http://127.0.0.1:{own}/metrics")[2]
    taken = total(page, "weir_elasticsearch_documents_total", outcome="taken") or total(page, "weir_elasticsearch_documents", outcome="taken")
    promise("weir counts what the server took", taken == 6000, taken)


def refused(server, otlp, data):
    before = count(server.http, STREAM)
    # The person's template says that it is a number.
    for number in range(100):
        value = {"stringValue": "no number"} if number == 37 else {"intValue": "5"}
        send(otlp, "payments", [f"payment {number}"], [("amount", value)])

    def letters():
        done = subprocess.run([WEIR, "journal", "letters", "--data-dir", data], capture_output=True, text=True, timeout=60)
        return done.stdout

    got = until(lambda: count(server.http, STREAM) == before + 99 and "mapper_parsing_exception" in letters(), 30, 0.5)
    promise("a document that does not fit the mapping is a dead letter with the reason, its neighbours are stored", got, letters())
    # Someone makes room for it: a new backing index with another type.
    _, found = ask(server.http, "GET", "/_index_template/weir-logs")
    template = found["index_templates"][0]["index_template"]
    template["template"]["mappings"]["properties"]["amount"] = {"type": "keyword"}
    template["data_stream"] = {}
    ask(server.http, "PUT", "/_index_template/weir-logs", template)
    ask(server.http, "POST", f"/{STREAM}/_rollover")
    done = subprocess.run([WEIR, "journal", "replay", "--consumer", "elasticsearch", "--data-dir", data], capture_output=True, text=True, timeout=60)
    got = until(lambda: count(server.http, STREAM) == before + 100, 30, 0.5)
    promise("replayed, it is stored", got, f"{done.stdout}{done.stderr} {count(server.http, STREAM)}")


LINES = 100


def grows_to(server, wanted):
    """Waits for as long as documents come; how many there are."""
    got, since = count(server.http, STREAM), time.monotonic()
    while got < wanted and time.monotonic() - since < 60:
        time.sleep(1)
        now = count(server.http, STREAM)
        got, since = (now, time.monotonic()) if now != got else (got, since)
    # What is there twice comes late.
    time.sleep(3)
    return count(server.http, STREAM)


def killed(server, config, process, otlp):
    before = count(server.http, STREAM)
    stop, accepted, lock = threading.Event(), [0], threading.Lock()

    def load(worker):
        for _ in range(200):
            if stop.is_set():
                return
            if send(otlp, f"load-{worker}", ["the same line"] * LINES) == 200:
                with lock:
                    accepted[0] += LINES
            time.sleep(0.05)

    workers = [threading.Thread(target=load, args=(worker,), daemon=True) for worker in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(2):
        time.sleep(2)
        server.kill()
        time.sleep(2)
        server.start()
    for worker in workers:
        worker.join(120)
    stop.set()
    sent = accepted[0]
    stored = grows_to(server, before + sent) - before
    promise(f"the server killed twice under load: {sent} identical lines are as many documents", sent > 0 and stored == sent, stored)
    # And weir itself: what it had sent and not noted is sent again, and is not there twice.
    before += stored
    for _ in range(60):
        send(otlp, "last", ["the same line"] * LINES)
    process.signal(signal.SIGKILL)
    process.wait()
    process = weir(["run", "--config", config, "--data-dir", WORK / "front.data"]).listens(otlp)
    stored = grows_to(server, before + 60 * LINES) - before
    promise("weir killed: nothing is lost and nothing is there twice", stored == 60 * LINES, stored)
    return process


def check():
    server = OpenSearch()
    otlp, own = port(), port()
    config, data = WORK / "front.yaml", WORK / "front.data"
    config.write_text(CONFIG.format(otlp=otlp, http=server.http, own=own))
    templates(server, config)
    process = weir(["run", "--config", config, "--data-dir", data]).listens(otlp)
    first(server, otlp, own)
    refused(server, otlp, data)
    process = killed(server, config, process, otlp)
    promise("weir ends in order", process.stop() == 0, process.text()[-2000:])


main(check)
