"""The oracle of every row: spans that carry numbers, a generator that writes down what was acknowledged, a backend that counts what came.

A request is `batch` spans of one stream (a connection). Every byte of it follows from its number, so the backend sees at once whether a span
was altered, invented, lost or sent twice. What a row says it lost is looked up here, never taken from the subject.
"""

import bisect
import random
import socket
import struct
import threading
import time
from array import array
from collections import Counter
from concurrent import futures

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# What OTLP lets a client send again.
RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
NAMES = 10
SCOPE = "weir.reliability"


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


def text_attribute(key, value):
    return field(1, key.encode()) + field(2, field(1, value.encode()))


def fields(body):
    """(number, bytes) of each length-delimited field; other kinds are passed over."""
    at, end = 0, len(body)
    while at < end:
        key, at = read_varint(body, at)
        kind = key & 7
        if kind == 2:
            length, at = read_varint(body, at)
            yield key >> 3, body[at : at + length]
            at += length
        elif kind == 0:
            _, at = read_varint(body, at)
        else:
            at += 8 if kind == 1 else 4


def read_varint(body, at):
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


class Ledger:
    """Which spans were sent, acknowledged and received. Span number = request number × batch + place."""

    MAGIC = b"weirtest"

    def __init__(self, batch=100, streams=8, span_bytes=500, service="load"):
        self.batch, self.streams, self.service = batch, streams, service
        self.lock = threading.Lock()
        self.sent_at = array("d")  # by request: the first attempt, 0 for none
        self.acked_at = array("d")  # 0 for none
        self.unsure = array("B")  # attempts that ended without an answer: taken or not
        self.arrived_at = array("d")  # first span of the request
        self.received = bytearray()
        self.delivered = self.duplicates = self.corrupt = self.spurious = self.requests = 0
        self.first_arrivals = [[] for _ in range(streams)]
        self.first_wrong = None
        # A span without its ids, by its place in the request.
        self.canonical = []
        self.template = self._template(span_bytes)

    def _template(self, span_bytes):
        spans, self.offsets = bytearray(), []
        for place in range(self.batch):
            rest = field(5, f"op-{place % NAMES}".encode()) + varint(6 << 3) + varint(2)
            rest += varint(7 << 3 | 1) + struct.pack("<Q", 1_700_000_000_000_000_000)
            rest += varint(8 << 3 | 1) + struct.pack("<Q", 1_700_000_000_001_000_000 + place * 1000)
            rest += field(9, text_attribute("http.request.method", "GET"))
            rest += field(9, text_attribute("filler", "x" * max(0, span_bytes - 34 - len(rest) - 16)))
            self.canonical.append(Span.FromString(rest).SerializeToString(deterministic=True))
            body = b"\x0a\x10" + self.MAGIC + bytes(8) + b"\x12\x08" + bytes(8) + rest
            head = b"\x12" + varint(len(body))
            self.offsets.append(len(spans) + len(head))
            spans += head + body
        scope = field(1, field(1, SCOPE.encode())) + bytes(spans)
        self.resource = field(1, text_attribute("service.name", self.service))
        scope_spans = field(1, self.resource) + field(2, scope)
        request = field(1, scope_spans)
        shift = len(request) - len(spans)
        self.offsets = [offset + shift for offset in self.offsets]
        self.group_at = len(request) - len(scope_spans)
        return request

    def body(self, request):
        out = bytearray(self.template)
        pack = struct.pack_into
        number = request * self.batch + 1
        for offset in self.offsets:
            pack(">Q", out, offset + 10, request)
            pack(">Q", out, offset + 20, number)
            number += 1
        return bytes(out)

    def _room(self, request):
        while len(self.sent_at) <= request:
            more = max(1024, len(self.sent_at))
            self.sent_at.frombytes(bytes(8 * more))
            self.acked_at.frombytes(bytes(8 * more))
            self.arrived_at.frombytes(bytes(8 * more))
            self.unsure.frombytes(bytes(more))
            self.received += bytes(more * self.batch)

    def sending(self, request):
        with self.lock:
            self._room(request)
            if not self.sent_at[request]:
                self.sent_at[request] = time.monotonic()

    def unanswered(self, request):
        with self.lock:
            self.unsure[request] = min(255, self.unsure[request] + 1)

    def acked(self, request):
        with self.lock:
            self.acked_at[request] = time.monotonic()

    def again(self):
        """The same acknowledgements, nothing received: for another try from the same directory."""
        other = Ledger(self.batch, self.streams, 500, self.service)
        other.MAGIC, other.template, other.canonical, other.offsets = self.MAGIC, self.template, self.canonical, self.offsets
        other.sent_at, other.acked_at, other.unsure = self.sent_at[:], self.acked_at[:], self.unsure[:]
        other.arrived_at.frombytes(bytes(8 * len(self.arrived_at)))
        other.received = bytearray(len(self.received))
        return other

    # === what the backend got ===

    def take(self, body):
        now = time.monotonic()
        for number, group in fields(body):
            if number != 1:
                continue
            with self.lock:
                self.requests += 1
                if not self._whole(group, now):
                    self._walk(group, now)

    def _whole(self, group, now):
        """One request as it was sent, nothing split off and nothing joined within: compared as a whole."""
        if len(group) != len(self.template) - self.group_at:
            return False
        at = self.offsets[0] - self.group_at + 10
        request = int.from_bytes(group[at : at + 8], "big")
        if request >= len(self.sent_at) or not self.sent_at[request] or group != self.body(request)[self.group_at :]:
            return False
        low, high = request * self.batch, (request + 1) * self.batch
        again = self.batch - self.received.count(0, low, high)
        if again == 0:
            self.received[low:high] = b"\x01" * self.batch
        else:
            for span in range(low, high):
                self.received[span] = min(255, self.received[span] + 1)
        self._count(request, self.batch, again, now)
        return True

    def _walk(self, group, now):
        """Split, joined or encoded anew: by the official types, which do not care for the order of fields."""
        try:
            group = ResourceSpans.FromString(group)
        except DecodeError:
            self._wrong("corrupt", group)
            return
        services = [(a.key, a.value.string_value) for a in group.resource.attributes]
        if services == [("service.name", "probe")]:
            return
        if services != [("service.name", self.service)]:
            self._wrong("corrupt", group.resource)
        for scope in group.scope_spans:
            if scope.scope.name != SCOPE:
                self._wrong("corrupt", scope.scope)
            for span in scope.spans:
                self._span(span, now)

    def _span(self, span, now):
        trace, place = span.trace_id, span.span_id
        if trace[:8] != self.MAGIC or len(trace) != 16 or len(place) != 8:
            self._wrong("corrupt", span)
            return
        request, number = int.from_bytes(trace[8:], "big"), int.from_bytes(place, "big") - 1
        if request >= len(self.sent_at) or not self.sent_at[request] or number // self.batch != request:
            self._wrong("spurious", span)
            return
        span.trace_id = span.span_id = b""
        if span.HasField("status") and not span.status.ByteSize():
            span.ClearField("status")  # empty and absent are the same
        if span.SerializeToString(deterministic=True) != self.canonical[number % self.batch]:
            self._wrong("corrupt", span)
        again = 1 if self.received[number] else 0
        self.received[number] = min(255, self.received[number] + 1)
        self._count(request, 1, again, now)

    def _wrong(self, kind, what):
        setattr(self, kind, getattr(self, kind) + 1)
        self.first_wrong = self.first_wrong or str(what)[:160]

    def _count(self, request, spans, again, now):
        self.delivered += spans
        self.duplicates += again
        if not self.arrived_at[request]:
            self.arrived_at[request] = now
            self.first_arrivals[request % self.streams].append(request)

    # === the verdict ===

    def distinct(self):
        with self.lock:
            return len(self.received) - self.received.count(0)

    def sent(self):
        with self.lock:
            return self.batch * sum(1 for at in self.sent_at if at)

    def acknowledged(self):
        with self.lock:
            return self.batch * sum(1 for at in self.acked_at if at)

    def lost_requests(self):
        """[(request, spans missing)] of what was acknowledged."""
        found = []
        with self.lock:
            for request, at in enumerate(self.acked_at):
                if at:
                    low = request * self.batch
                    missing = self.received.count(0, low, low + self.batch)
                    if missing:
                        found.append((request, missing))
        return found

    def lost(self):
        return sum(missing for _, missing in self.lost_requests())

    def doubtful(self):
        """Items of attempts that nobody answered: each may have been taken, beside the attempt that was acknowledged."""
        with self.lock:
            return self.batch * sum(self.unsure)

    def by_name(self):
        """Distinct spans received, by the place of their name."""
        with self.lock:
            have = self.received
            counts = Counter()
            for name in range(NAMES):
                places = have[name::NAMES]
                counts[f"op-{name}"] = len(places) - places.count(0)
            return counts

    def inversions(self):
        """First arrivals that came after a later request of their stream."""
        return sum(1 for stream in self.first_arrivals for one, two in zip(stream, stream[1:]) if two < one)

    def lags(self, after=0.0, before=float("inf")):
        """Sorted seconds from acknowledgement (or sending, if it came first) to arrival."""
        with self.lock:
            return sorted(
                max(0.0, arrived - sent)
                for sent, acked, arrived in zip(self.sent_at, self.acked_at, self.arrived_at)
                if acked and arrived and after <= sent < before
            )

    def settle(self, seconds=60.0, quiet=None):
        """Waits until everything acknowledged is there (True), time is up, or nothing came for `quiet` seconds."""
        end = time.monotonic() + seconds
        last, since = -1, time.monotonic()
        while time.monotonic() < end:
            if self.lost() == 0:
                return True
            if self.delivered != last:
                last, since = self.delivered, time.monotonic()
            elif quiet and time.monotonic() - since > quiet:
                return False
            time.sleep(0.1)
        return self.lost() == 0


def quantile(values, q):
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


_given = set()


def port():
    """A port that nobody listens on, below those that the kernel gives to clients: one of these could take the port of who is down for a while,
    and a client that tries a dead one again and again may even end up connected to itself."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low = int(file.read().split()[0])
    while True:
        number = random.SystemRandom().randrange(10_000, max(low, 12_000))
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", number))
            except OSError:
                continue
        if number not in _given:
            _given.add(number)
            return number


# === the clients ===

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


def retry_delay(error):
    """Seconds of RetryInfo, or None."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Is(info.DESCRIPTOR):
                    detail.Unpack(info)
                    return info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return None


class Client:
    """One connection."""

    def __init__(self, port, method=EXPORT, metadata=()):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL)
        self.call = self.channel.unary_unary(method)
        self.metadata = metadata

    def send(self, body, timeout=30):
        """None, or the error."""
        try:
            self.call(body, timeout=timeout, metadata=self.metadata)
            return None
        except grpc.RpcError as error:
            return error

    def close(self):
        self.channel.close()


class Answer:
    __slots__ = ("at", "took", "code", "retry", "text")

    def __init__(self, at, took, code, retry, text):
        self.at, self.took, self.code, self.retry, self.text = at, took, code, retry, text


class Load:
    """Streams that send numbered requests at a rate, all together `rate` spans a second (None: as fast as answers come).

    `again` sends a request that was refused or never answered once more with the same ids, as an SDK does; without it, a request is tried once.
    `honour` waits as RetryInfo says before that.
    """

    def __init__(self, ledger, port, rate=20_000, again=True, honour=False, timeout=30, most=None, metadata=()):
        self.ledger, self.port, self.rate, self.again, self.honour, self.timeout = ledger, port, rate, again, honour, timeout
        self.metadata = metadata
        self.most = most  # requests in all, None without end
        self.stop_now = threading.Event()
        self.refused = []  # Answer of everything but OK
        self.taken = array("d")  # seconds of each acknowledged attempt
        self.taken_at = array("d")
        self.lock = threading.Lock()
        self.next = [stream for stream in range(ledger.streams)]
        self.threads = []

    def start(self):
        self.stop_now.clear()
        self.threads = [threading.Thread(target=self._stream, args=(stream,), daemon=True) for stream in range(self.ledger.streams)]
        for thread in self.threads:
            thread.start()
        return self

    def _stream(self, stream):
        client = Client(self.port, metadata=self.metadata)
        each = self.ledger.streams * self.ledger.batch / self.rate if self.rate else 0.0
        due = time.monotonic() + random.random() * each
        while not self.stop_now.is_set():
            request = self.next[stream]
            if self.most is not None and request >= self.most:
                break
            self.next[stream] = request + self.ledger.streams
            body = self.ledger.body(request)
            if each:
                wait = due - time.monotonic()
                if wait > 0 and self.stop_now.wait(wait):
                    break
                # What could not be sent in time is not made up for in a burst.
                due = max(due + each, time.monotonic() - 1.0)
            while True:
                self.ledger.sending(request)
                begun = time.monotonic()
                error = client.send(body, self.timeout)
                took = time.monotonic() - begun
                if error is None:
                    self.ledger.acked(request)
                    with self.lock:
                        self.taken.append(took)
                        self.taken_at.append(begun + took)
                    break
                delay = retry_delay(error)
                with self.lock:
                    self.refused.append(Answer(begun + took, took, error.code(), delay, error.details()))
                if delay is None and error.code() in RETRYABLE and "failed to connect" not in (error.details() or ""):
                    self.ledger.unanswered(request)
                sendable = error.code() in RETRYABLE or error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None
                pause = delay if self.honour and delay is not None else 0.05
                if self.stop_now.wait(pause) or not self.again or not sendable:
                    break
        client.close()

    def stop(self):
        self.stop_now.set()
        for thread in self.threads:
            thread.join(self.timeout + 5)
        return self

    def wait(self, seconds):
        """Until all of `most` is sent."""
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    def taken_between(self, low, high):
        """Acknowledged spans in a span of time."""
        with self.lock:
            return self.ledger.batch * (bisect.bisect_left(self.taken_at_sorted(), high) - bisect.bisect_left(self.taken_at_sorted(), low))

    def taken_at_sorted(self):
        return sorted(self.taken_at)

    def codes(self):
        with self.lock:
            return Counter(answer.code.name for answer in self.refused)


# === the backend ===


def numbers(body, magic):
    """The requests that a body holds spans of."""
    found, at = set(), body.find(magic)
    while at >= 0:
        found.add(int.from_bytes(body[at + 8 : at + 16], "big"))
        at = body.find(magic, at + 8)
    return found


class Sink:
    """A backend that checks every span against the ledgers, and can be down, slow, or fail on a part of the requests."""

    def __init__(self, port, ledgers, workers=16):
        self.port, self.workers = port, workers
        self.ledgers = ledgers if isinstance(ledgers, list) else [ledgers]
        self.delay = 0.0
        self.fail = 0.0  # this part of the requests is refused
        self.refuses = None  # takes the number of a request; true: refused for good with all that comes with it
        self.refused = 0
        self.seen = 0
        self.first_at = None
        self.hold = threading.Event()  # set: requests are answered
        self.hold.set()
        self.server = None
        self.chance = random.Random(7)

    def up(self):
        if self.server:
            return self
        sink = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, call):
                if call.method != EXPORT:
                    return None
                return grpc.unary_unary_rpc_method_handler(sink._take)

        self.first_at = None
        self.server = grpc.server(
            futures.ThreadPoolExecutor(self.workers),
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        self.server.add_generic_rpc_handlers((Handler(),))
        end = time.monotonic() + 10
        while True:
            try:
                if self.server.add_insecure_port(f"127.0.0.1:{self.port}"):
                    break
            except RuntimeError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)
        self.server.start()
        return self

    def _take(self, body, context):
        self.hold.wait(120)
        if self.delay:
            time.sleep(self.delay)
        if self.fail and self.chance.random() < self.fail:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the backend is not well")
        if self.refuses and any(self.refuses(number) for ledger in self.ledgers for number in numbers(body, ledger.MAGIC)):
            self.refused += 1
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the backend does not take such a number")
        self.seen += 1
        if self.first_at is None:
            self.first_at = time.monotonic()
        for ledger in self.ledgers:
            if ledger.MAGIC in body:
                ledger.take(body)
        return b""

    def down(self):
        if self.server:
            self.server.stop(0).wait(5)
            self.server = None
        return self
