"""D14, S13, S16: backends that answer for each item, that answer as an attacker would, and names that are written to be misread."""

import gzip
import json
import re
import socket
import threading
import time
from collections import Counter
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from harness import samples, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import oracle
from durability import Shared
from rows import row


class Server:
    """HTTP/1.1 on a port of its own; `answer(handler, body)` writes the answer."""

    def __init__(self, answer):
        server = self
        self.heads = []  # (method, path, [(header, value)])
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True  # who cannot bear the answer hangs up

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                with server.lock:
                    server.heads.append((self.command, self.path, self.headers.items()))
                answer(self, body)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

            def reply(self, status, body=b"", kind="application/json", **headers):
                self.send_response_only(status)
                for name, value in {"content-type": kind, "content-length": str(len(body)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Threads(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass

        self.port = oracle.port()
        self.http = Threads(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def down(self):
        self.http.shutdown()
        self.http.server_close()


INDEX = re.compile(r"[a-z0-9.][a-z0-9._-]{0,254}")
WELL = {"version": {"number": "8.15.0", "build_flavor": "default"}, "tagline": "You Know, for Search"}


class Elasticsearch:
    """What Elasticsearch's `_bulk` takes, and nothing else; counts each document and each attempt at it."""

    def __init__(self, judge=lambda document, attempt: None):
        self.judge = judge  # (document, attempt from 1) → (status, type, reason), or None for taken
        self.lock = threading.Lock()
        self.attempts, self.stored, self.indices = Counter(), Counter(), Counter()
        self.documents, self.ids = {}, set()
        self.foreign = []  # what no exporter of ours has a reason to ask for
        self.misuse = None  # instead of an answer to a bulk request: called with the handler
        self.server = Server(self._answer)
        self.port = self.server.port

    @staticmethod
    def key(document):
        return document.get("trace_id", ""), document.get("span_id", "")

    def _answer(self, handler, body):
        path = handler.path.partition("?")[0]
        if (handler.command, path) == ("GET", "/"):
            handler.reply(200, json.dumps(WELL).encode(), x_elastic_product="Elasticsearch")
        elif handler.command == "GET" and path == "/_index_template":
            handler.reply(404, b"{}", x_elastic_product="Elasticsearch")
        elif (handler.command, path) == ("POST", "/_bulk"):
            if self.misuse:
                self.misuse(handler)
                return
            items = self._bulk(body)
            failed = any(item["create"]["status"] >= 300 for item in items)
            handler.reply(200, json.dumps({"took": 1, "errors": failed, "items": items}).encode(), x_elastic_product="Elasticsearch")
        else:
            self.foreign.append(f"{handler.command} {handler.path}")
            handler.reply(400, b"{}")

    def _bulk(self, body):
        lines = body.split(b"\n")
        if lines.pop() or len(lines) % 2:
            self.foreign.append(f"a body that is no pairs of lines: {body[-80:]!r}")
        answers = []
        for head, source in zip(lines[::2], lines[1::2]):
            try:
                head, document = json.loads(head), json.loads(source)
                (action, meta), = head.items()
            except (ValueError, AttributeError):
                self.foreign.append(f"{head[:80]!r}")
                continue
            index = meta.get("_index", "")
            if action != "create" or not meta.keys() <= {"_index", "_id", "require_data_stream"} or not INDEX.fullmatch(index) or set(index) <= {"."}:
                self.foreign.append(f"{head}"[:160])
            answers.append({"create": self._take(index, meta.get("_id"), document)})
        return answers

    def _take(self, index, name, document):
        with self.lock:
            key = self.key(document)
            self.attempts[key] += 1
            error = self.judge(document, self.attempts[key])
            if not error and name is not None and (index, name) in self.ids:
                error = (409, "version_conflict_engine_exception", "document already exists")
            if error:
                status, kind, reason = error
                return {"_index": index, "status": status, "error": {"type": kind, "reason": reason}}
            self.ids.add((index, name))
            self.indices[index] += 1
            self.stored[key] += 1
            self.documents[key] = document
            return {"_index": index, "_id": name, "status": 201, "result": "created"}

    def down(self):
        self.server.down()


def spans_of(ledger):
    """(trace id, span id) in hexadecimal → number, of each span that was acknowledged."""
    found = {}
    for request, at in enumerate(ledger.acked_at):
        if at:
            trace = (ledger.MAGIC + request.to_bytes(8, "big")).hex()
            for number in range(request * ledger.batch, (request + 1) * ledger.batch):
                found[trace, (number + 1).to_bytes(8, "big").hex()] = number
    return found


# === D14 ===


@row("D14", "of a bulk request some items are busy and some are wrong", seconds=180, quick=60)
def partial_success(check):
    number = lambda document: int(document["span_id"], 16) - 1
    busy, wrong = lambda n: n % 100 in (3, 30, 77), lambda n: n % 100 == 50
    mended = threading.Event()

    def judge(document, attempt):
        if busy(number(document)) and attempt <= 2:
            return 429, "es_rejected_execution_exception", "rejected execution of coordinating operation"
        if wrong(number(document)) and not mended.is_set():
            return 400, "document_parsing_exception", "failed to parse field [x] of type [long]"
        return None

    backend = Elasticsearch(judge)
    ledger = oracle.Ledger(batch=50, streams=4)
    keys = "retry: {initial_interval: 100ms, max_interval: 1s}, document_ids: true"
    subject = check.subject({}, exporters={"elasticsearch": f'{{endpoint: "http://127.0.0.1:{backend.port}", {keys}}}'})
    load = oracle.Load(ledger, subject.grpc, check.pick(4000, 1500))
    subject.start()
    load.start()
    time.sleep(check.pick(60, 6))
    load.stop()

    sent = spans_of(ledger)
    good = {key for key, n in sent.items() if not wrong(n)}
    bad = set(sent) - good
    until(lambda: good <= backend.stored.keys(), 60, 0.2)
    until(lambda: all(backend.attempts[key] for key in bad), 20, 0.2)
    lost, twice = good - backend.stored.keys(), [key for key, count in backend.stored.items() if count > 1]
    again = Counter(backend.attempts[key] for key, n in sent.items() if not busy(n) and not wrong(n))
    check.figure(f"{len(sent):,} acknowledged, {len(lost):,} lost, {len(twice):,} twice; {len(bad):,} mapping errors")
    check.holds("something of each kind", len(bad) >= 20 and len(sent) >= 2000, f"{len(sent)}, {len(bad)}")
    check.holds("acknowledged spans lost", not lost, f"{len(lost):,}: {sorted(lost)[:2]}")
    check.holds("what was taken is there once", not twice, f"{len(twice):,}")
    # Nothing is killed and nothing times out: whatever is sent twice was sent for nothing.
    check.holds("what was taken is not sent again", set(again) == {1}, dict(again))
    check.holds("what is busy is sent until it is taken", {backend.attempts[key] for key, n in sent.items() if busy(n)} == {3}, "not three attempts each")
    check.holds("what is wrong is not sent again", {backend.attempts[key] for key in bad} == {1}, "more than one attempt")
    check.holds("requests that nobody makes", not backend.foreign, backend.foreign[:3])

    acked = ledger.acknowledged()
    check.balanced(subject, (acked, acked + ledger.doubtful()), dropped=len(bad))
    check.holds("dropped as rejected", subject.dropped_by_reason() == {"rejected": len(bad)}, subject.dropped_by_reason())
    counted = Counter()
    for name, labels, value, _ in samples(subject.own_page()):
        if name.startswith("weir_elasticsearch_documents"):
            counted[labels["outcome"]] += int(value)
    check.figure(f"documents by outcome: {dict(sorted(counted.items()))}")
    code, text = subject.journal("letters", "--json")
    letters = json.loads(text)["letters"] if code == 0 else []
    check.holds("each is a dead letter", sum(one["items"] for one in letters) == len(bad), text[-300:])
    check.holds("with the reason", all("document_parsing_exception" in one["message"] for one in letters), f"{letters[:1]}")

    # They are the right ones: mended, they and no others come.
    mended.set()
    before = sum(backend.attempts.values())
    code, text = subject.journal("replay", "--wait")
    check.holds("`weir journal replay`", code == 0, text[-300:])
    until(lambda: backend.stored.keys() == sent.keys(), 30, 0.2)
    check.holds("the replay brings what was missing", backend.stored.keys() == sent.keys(), f"{len(sent.keys() - backend.stored.keys()):,} are missing")
    check.holds("and nothing else", sum(backend.attempts.values()) - before == len(bad), f"{sum(backend.attempts.values()) - before:,} of {len(bad):,}")
    altered = [d for d in backend.documents.values() if d["name"] != f"op-{number(d) % oracle.NAMES}" or d["resource"]["attributes"] != {"service.name": "load"}]
    check.holds("spans altered", not altered, altered[:1])
    backend.down()


# === S13 ===


class Evil:
    """OTLP/HTTP that takes what it is sent, or does what `does` says until it says otherwise."""

    def __init__(self, ledger, trap):
        self.ledger, self.trap, self.does = ledger, trap, None
        self.abused = Counter()
        self.server = Server(self._answer)
        self.port = self.server.port

    def _answer(self, handler, body):
        if not self.does:
            self.ledger.take(body)
            handler.reply(200, b"", "application/x-protobuf")
            return
        self.abuse(handler)

    def abuse(self, handler):
        """One answer that nobody should survive by reading it to its end."""
        does = self.does
        self.abused[does] += 1
        write = handler.wfile.write
        handler.close_connection = True

        def endless(piece):
            while self.does == does:
                write(piece)

        if does == "body":
            write(b"HTTP/1.1 503 x\r\ncontent-type: application/json\r\ncontent-length: 10737418240\r\n\r\n")
            endless(b'{"took": [' * 6000)
        elif does == "headers":
            write(b"HTTP/1.1 503 x\r\n")
            endless(b"x-filler: " + b"x" * 60_000 + b"\r\n")
        elif does == "trailers":
            write(b"HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\ntrailer: x-filler\r\n\r\n2\r\n{}\r\n0\r\n")
            endless(b"x-filler: " + b"x" * 60_000 + b"\r\n")
        elif does == "hints":
            endless(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n" * 100)
        elif does == "later":
            handler.reply(503, b"{}", retry_after="1000000000")
        elif does == "redirect":
            handler.reply(307, b"", location=f"http://127.0.0.1:{self.trap}/v1/traces")
        elif does == "metadata":
            handler.reply(302, b"", location="http://169.254.169.254/latest/meta-data/iam/security-credentials/")

    def down(self):
        self.server.down()


class EvilGrpc:
    """The same for OTLP/gRPC."""

    def __init__(self, ledger):
        self.ledger, self.does, self.port = ledger, None, oracle.port()
        evil = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, call):
                return grpc.unary_unary_rpc_method_handler(evil._take) if call.method == oracle.EXPORT else None

        big = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 64 << 20)]
        self.server = grpc.server(futures.ThreadPoolExecutor(8), options=big)
        self.server.add_generic_rpc_handlers((Handler(),))
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def _take(self, body, context):
        if self.does is None:
            self.ledger.take(body)
            return b""
        if self.does == "body":
            # Taken, and said at such length that nobody can know it.
            self.ledger.take(body)
            return bytes(64 << 20)
        if self.does in ("headers", "trailers"):
            send = context.send_initial_metadata if self.does == "headers" else context.set_trailing_metadata
            send(tuple((f"x-filler-{n}", "x" * 60_000) for n in range(100)))
            context.abort(grpc.StatusCode.UNAVAILABLE, "x" * 1_000_000)
        info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1_000_000_000))
        packed = any_pb2.Any()
        packed.Pack(info)
        status = status_pb2.Status(code=14, message="later", details=[packed])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    def down(self):
        self.server.stop(0).wait(5)


@row("S13", "backends that answer as an attacker would", seconds=300, quick=100)
def evil_backend(check):
    trap = socket.create_server(("127.0.0.1", oracle.port()))
    caught = []

    def spring():
        while True:
            try:
                caught.append(trap.accept()[1])
            except OSError:
                return

    threading.Thread(target=spring, daemon=True).start()
    ledgers = [oracle.Ledger(batch=20, streams=2) for _ in range(2)]
    http, rpc, documents = Evil(ledgers[0], trap.getsockname()[1]), EvilGrpc(ledgers[1]), Elasticsearch()
    longest, limit = 1.0, 2.0
    retry = "initial_interval: 100ms, max_interval: 1s"
    subject = check.subject(
        {},
        exporters={
            "otlp_http": f'{{endpoint: "http://127.0.0.1:{http.port}", compression: none, timeout: 2s, retry_on_failure: {{{retry}, max_elapsed_time: 0}}}}',
            "otlp": f'{{endpoint: "127.0.0.1:{rpc.port}", compression: none, tls: {{insecure: true}}, timeout: 2s, retry_on_failure: {{{retry}, max_elapsed_time: 0}}}}',
            "elasticsearch": f'{{endpoint: "http://127.0.0.1:{documents.port}", timeout: 2s, retry: {{{retry}}}, document_ids: true}}',
        },
    )
    load = oracle.Load(Shared(ledgers), subject.grpc, 400)
    subject.start()
    load.start()
    arrivals = lambda: (http.ledger.delivered, rpc.ledger.delivered, sum(documents.stored.values()))
    names = ("OTLP/HTTP", "OTLP/gRPC", "Elasticsearch")
    check.holds("all three get something at first", until(lambda: min(arrivals()) > 200, 20), arrivals())
    time.sleep(check.pick(10, 3))
    first = subject.anonymous_rss()
    worst, slowest = {}, {}
    for does in ("body", "headers", "trailers", "hints", "later", "redirect", "metadata"):
        calm = subject.anonymous_rss()
        http.does = rpc.does = does
        documents.misuse = http.abuse
        abused = http.abused[does]
        until(lambda: http.abused[does] > abused + 1, 10)
        ends, worst[does] = time.monotonic() + check.pick(10, 2), 0.0
        while time.monotonic() < ends:
            worst[does] = max(worst[does], subject.anonymous_rss() - calm)
            time.sleep(0.02)
        check.holds(f"no exit: {does}", subject.alive(), subject.log()[-300:])
        before, mended = arrivals(), time.monotonic()
        http.does = rpc.does = documents.misuse = None
        took = {}
        while len(took) < 3 and time.monotonic() - mended < 20:
            for name, was, now in zip(names, before, arrivals()):
                if now > was:
                    took.setdefault(name, time.monotonic() - mended)
            time.sleep(0.02)
        slowest[does] = max(took.values()) if len(took) == 3 else float("inf")
        check.holds(f"it goes on within max_interval: {does}", slowest[does] <= longest * 1.5 + limit + 0.5, f"{took}")
    load.stop()
    most = max(worst.values())
    check.figure(f"{most:.1f} MiB more than before at most, {first:.0f} → {subject.anonymous_rss():.0f} in all; it goes on within {max(slowest.values()):.1f} s")
    # The last 4 MiB of what was taken stay in memory.
    check.holds("RSS after all of it", subject.anonymous_rss() <= first + 4 + 8, f"{first:.0f} → {subject.anonymous_rss():.0f} MiB")
    check.holds("RSS", most <= 8, {does: f"{more:.1f} MiB" for does, more in worst.items()})
    check.holds("redirects are not followed", not caught, caught[:2])
    for name, seen in (("OTLP/HTTP", http.ledger), ("OTLP/gRPC", rpc.ledger)):
        seen.settle(40, 10)
        check.holds(f"acknowledged spans lost on {name}", seen.lost() == 0, f"{seen.lost():,} of {seen.acknowledged():,}")
        check.intact(seen)
    sent = spans_of(ledgers[0])
    until(lambda: sent.keys() <= documents.stored.keys(), 40, 0.2)
    lost = sent.keys() - documents.stored.keys()
    check.figure(f"{len(sent):,} acknowledged, {http.ledger.lost():,}, {rpc.ledger.lost():,} and {len(lost):,} lost")
    check.holds("acknowledged spans lost on Elasticsearch", sent and not lost, f"{len(lost):,} of {len(sent):,}")
    check.holds("documents twice", max(documents.stored.values()) == 1, f"{documents.stored.most_common(2)}")
    acked = ledgers[0].acknowledged()
    check.balanced(subject, (acked, acked + ledgers[0].doubtful()), dropped=None, seconds=20)
    # What OTLP/gRPC answered OK at such length that it cannot be read counts as refused; it is there, and in the dead letters.
    code, text = subject.journal("letters", "--json")
    letters = json.loads(text)["letters"] if code == 0 else []
    dropped = subject.dropped_by_reason()
    check.figure(f"{sum(one['items'] for one in letters):,} in dead letters, though they were taken")
    check.holds("each dropped item is a dead letter", dropped == ({"rejected": sum(one["items"] for one in letters)} if letters else {}), f"{dropped} {text[-200:]}")
    check.holds("of the one that answered at such length", {one["consumer"] for one in letters} <= {"otlp in pipeline traces"}, f"{letters[:1]}")
    for backend in (http, rpc, documents):
        backend.down()
    trap.close()


# === S16 ===

HOSTILE = [
    'x\n{"delete":{"_index":"orders","_id":"1"}}\n',
    '"}}\r\n{"delete":{"_index":"*"}}\r\n',
    "../../_cluster/settings",
    "..",
    ".",
    "_all",
    "*",
    "-*,+*",
    "<logstash-{now/d}>",
    ".security",
    "_bulk?refresh=true#",
    "orders/_doc/1",
    "x" * 10_240,
    "ÄÖ käse 購物車 \U0001f6d2",
    "a\u0000b",
    "a\r\nX-Injected: 1\r\n\r\nGET /_shutdown HTTP/1.1\r\n",
    "%2e%2e%2f%0d%0a",
    "\u202ename\ufeff",
    " ",
    "",
]


@row("S16", "names that are written to be misread", seconds=120, quick=60)
def injection(check):
    each = check.pick(100, 10)
    named, streamed = Elasticsearch(), Elasticsearch()
    subject = check.subject(
        {},
        exporters={
            "elasticsearch/named": f'{{endpoint: "http://127.0.0.1:{named.port}", traces_index: "{{service}}-{{signal}}-%Y.%m.%d", document_ids: true}}',
            "elasticsearch/streamed": f'{{endpoint: "http://127.0.0.1:{streamed.port}", document_ids: true}}',
        },
    )
    subject.start()
    expected, taken = {}, 0
    text = lambda key, value: {"key": key, "value": {"stringValue": value}}
    keys = ("service.name", "data_stream.dataset", "data_stream.namespace", "elasticsearch.index", "elasticsearch.document_id")
    for place, name in enumerate(HOSTILE):
        # As the service's name alone, and wherever else a name of a backend's things may come from.
        for turn, attributes in enumerate([[text("service.name", name)], [text(key, name) for key in keys]]):
            spans = []
            for n in range(each):
                key = f"{place + 1:016x}{turn + 1:016x}", f"{n + 1:016x}"
                expected[key] = name
                spans.append({**SPAN, "traceId": key[0], "spanId": key[1], "name": name, "attributes": attributes[1:]})
            body = {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"scope": {"name": name}, "spans": spans}]}]}
            status, said = post(subject.http, json.dumps(body).encode())
            taken += status == 200
            check.holds(f"taken: {name[:20]!r}", status == 200, f"{status} {said[:100]}")
    for what, backend in (("indices named by service", named), ("data streams", streamed)):
        until(lambda: expected.keys() <= backend.stored.keys(), 40, 0.2)
        missing = expected.keys() - backend.stored.keys()
        check.figure(f"{what}: {len(expected):,} spans, {len(missing):,} lost, {len(backend.indices):,} names, {len(backend.foreign):,} foreign actions")
        check.holds(f"{what}: spans lost", not missing, f"{len(missing):,}: {[expected[key][:20] for key in sorted(missing)[:3]]}")
        check.holds(f"{what}: nothing that nobody sent", backend.stored.keys() == expected.keys() and max(backend.stored.values()) == 1, f"{len(backend.stored):,}")
        check.holds(f"{what}: foreign actions", not backend.foreign, backend.foreign[:3])
        altered = [key for key, document in backend.documents.items() if service(document) != expected[key] or document.get("name", "") != expected[key]]
        check.holds(f"{what}: what the data says stays what it is", not altered, [backend.documents[key] for key in altered[:1]])
        odd = {(method, path.partition("?")[0]) for method, path, _ in backend.server.heads} - {("GET", "/"), ("POST", "/_bulk"), ("GET", "/_index_template")}
        check.holds(f"{what}: foreign requests", not odd, odd)
        headers = {name.lower() for _, _, head in backend.server.heads for name, _ in head}
        check.holds(f"{what}: foreign headers", headers <= EXPECTED_HEADERS, headers - EXPECTED_HEADERS)
    check.balanced(subject, len(expected))
    for backend in (named, streamed):
        backend.down()
    into_headers(check)


SPAN = {"kind": 2, "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000001000000"}
EXPECTED_HEADERS = {"host", "accept", "accept-encoding", "content-type", "content-length", "content-encoding", "user-agent", "authorization"}


def service(document):
    return document["resource"]["attributes"].get("service.name")


def post(number, body, kind="application/json", extra=b""):
    """(status, text) of a request written by hand: headers may be what no library sends."""
    head = f"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n".encode()
    with socket.create_connection(("127.0.0.1", number), timeout=20) as s:
        s.sendall(head + extra + b"\r\n" + body)
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2].decode(errors="replace")


def into_headers(check):
    """A header of a request becomes one of weir's own: as it is, or not at all."""
    seen, lock = {}, threading.Lock()

    def take(handler, body):
        request = ExportTraceServiceRequest.FromString(body)
        with lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        seen.setdefault(span.span_id.hex(), []).append(dict((name.lower(), value) for name, value in handler.headers.items()))
        handler.reply(200, b"", "application/x-protobuf")

    backend = Server(take)
    subject = check.subject({}, mode="memory", exporters={"otlp_http": f'{{endpoint: "http://127.0.0.1:{backend.port}", compression: none, auth: {{authenticator: headers_setter}}}}'})
    here, setter = f'endpoint: "127.0.0.1:{subject.http}"', "{headers: [{action: upsert, key: X-Tenant, from_context: x-tenant}]}"
    file = subject.file().replace("extensions: [health_check]", "extensions: [health_check, headers_setter]")
    file = file.replace("extensions: {", f"extensions: {{headers_setter: {setter}, ").replace(here, f"{here}, include_metadata: true")
    subject.config.write_text(file)
    subject.start()
    values = [b"plain", b"a\tb", b"a%0d%0aX-Injected: 1", b"\xc3\xa4", b"x" * 8000, b"a\r\n X-Injected: 1", b"a\nX-Injected: 1", b"a\rX-Injected: 1", b"a\x00b", b"\x1b[31m", b'"; X-Injected: 1']
    accepted, refused = {}, []
    for place, value in enumerate(values):
        name = f"{place + 1:016x}"
        body = {"resourceSpans": [{"scopeSpans": [{"spans": [{**SPAN, "traceId": "ab" * 16, "spanId": name, "name": "a"}]}]}]}
        status, _ = post(subject.http, json.dumps(body).encode(), extra=b"x-tenant: " + value + b"\r\n")
        if status == 200:
            # A line may end with a line feed alone: what follows is another header, of a request that is not ours.
            accepted[name] = value.partition(b"\n")[0]
        else:
            refused.append((status, value))
    until(lambda: accepted.keys() <= seen.keys(), 20)
    check.figure(f"into a header: {len(accepted)} of {len(values)} requests taken, the others refused")
    check.holds("headers: harmless ones are taken", {b"plain", b"a%0d%0aX-Injected: 1"} <= set(accepted.values()), accepted)
    check.holds("headers: the others get 400", {status for status, _ in refused} <= {400}, refused[:3])
    check.holds("headers: each request arrives once", seen.keys() == accepted.keys() and all(len(heads) == 1 for heads in seen.values()), sorted(accepted.keys() ^ seen.keys()))
    forged = [heads for heads in seen.values() if any("injected" in name for name in heads[0])]
    check.holds("headers: none is forged", not forged, forged[:1])
    other = [(accepted[name], heads[0].get("x-tenant")) for name, heads in seen.items() if name in accepted and heads[0].get("x-tenant", "").encode("latin-1") not in (accepted[name], b"")]
    check.holds("headers: a value is as it was or not there", not other, other[:2])
    check.balanced(subject, len(accepted))
    backend.down()
