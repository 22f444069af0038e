"""D01–D07, D10, D13, D16: kills, stops, dead backends, failing and full disks."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from harness import WORK, Process, get, until

import oracle
from rows import Skip, row

# What the exporter may have under way when it is killed: requests in flight × items each.
IN_FLIGHT_ITEMS = 4 * 1000


@row("D01", "kill -9 under load", seconds=420, quick=120, peer=True)
def kill_under_load(check):
    kills = check.times(20, 3)
    ledger, sink, subject, load = check.setup()
    subject.start()
    load.start()
    ready = []
    for _ in range(kills):
        time.sleep(check.chance.uniform(1, 8))
        subject.kill()
        begun = time.monotonic()
        subject.start()
        took = subject.accepts()
        ready.append(float("inf") if took is None else time.monotonic() - begun)
    time.sleep(2)
    load.stop()
    check.delivered(ledger)
    check.figure(f"{kills} kills, ready in {max(ready):.2f} s at most")
    check.holds("ready within 3 s", max(ready) <= 3, f"{max(ready):.2f} s")
    allowed = max(kills * IN_FLIGHT_ITEMS, ledger.delivered // 20) + ledger.doubtful()
    check.figure(f"{ledger.doubtful():,} items unanswered and sent again")
    check.holds("duplicates within what was in flight", ledger.duplicates <= allowed, f"{ledger.duplicates:,}, allowed {allowed:,}")
    acked = ledger.acknowledged()
    check.balanced(subject, (acked, acked + ledger.doubtful()))
    sink.down()


@row("D02", "kill -9, dead backend", seconds=420, quick=120, peer=True)
def kill_dead_backend(check):
    kills = check.times(10, 3)
    # One consumer: order is a promise per stream, and several requests in flight give it away.
    ledger, sink, subject, load = check.setup(up=False, consumers=1)
    subject.start()
    load.start()
    for _ in range(kills):
        time.sleep(check.chance.uniform(1, 8))
        subject.kill()
        subject.start()
    time.sleep(1)
    load.stop()
    backlog = subject.disk()
    sink.up()
    check.delivered(ledger, seconds=180)
    check.figure(f"{kills} kills, {backlog >> 20} MiB of backlog, {ledger.inversions()} out of order")
    check.holds("order within a stream", ledger.inversions() == 0, f"{ledger.inversions()} of {ledger.requests} requests")
    acked = ledger.acknowledged()
    check.balanced(subject, (acked, acked + ledger.doubtful()))
    sink.down()


@row("D03", "SIGTERM, dead backend", seconds=3600, quick=240, peer=True)
def term_dead_backend(check):
    times, fill = check.times(20, 2), check.pick(1 << 30, 64 << 20)
    exits, codes, lost, acked, twice = [], [], 0, 0, 0
    for turn in range(times):
        requests = fill // (1000 * 500)
        ledger, sink, subject, load = check.setup(batch=1000, streams=4, rate=None, up=False, most=requests)
        subject.start()
        load.start()
        check.holds("the backlog could be filled", load.wait(300), f"{ledger.acknowledged():,} spans in 300 s")
        code, took = subject.stop(90)
        exits.append(took)
        codes.append(code)
        subject.start()
        sink.up()
        ledger.settle(300, 30)
        lost, acked, twice = lost + ledger.lost(), acked + ledger.acknowledged(), twice + ledger.duplicates
        check.intact(ledger)
        check.balanced(subject, ledger.acknowledged())
        sink.down()
        subject.clean()
    check.figure(f"{times} × {fill >> 20} MiB: {acked:,} acknowledged, {lost:,} lost, {twice:,} duplicates")
    check.figure(f"exit in {max(exits):.1f} s at most, codes {sorted(set(codes))}")
    check.holds("acknowledged spans lost", lost == 0 and acked > 0, f"{lost:,} of {acked:,}")
    check.holds("exit within 30 s", max(exits) <= 30, f"{max(exits):.1f} s")
    check.holds("exit code 0", set(codes) == {0}, f"{codes}")


@row("D04", "power cut, simulated", seconds=10, quick=10)
def power_cut(_check):
    raise Skip("the simulated disk is in `cargo test`; RED counters over kill -9 are A05")


@row("D05", "power cut, FUSE", seconds=10, quick=10)
def power_cut_fuse(_check):
    raise Skip("needs a FUSE file system that forgets unsynced data (LazyFS); none is packaged by Debian")


# === D06 ===


class Injected:
    """A running process whose syncs fail, by strace; undone by `end`. The trace keeps which file every sync was for."""

    CALLS = "fdatasync,fsync,sync_file_range"

    def __init__(self, pid, when):
        if not shutil.which("strace"):
            raise Skip("strace is not there (apt-get install strace)")
        self.log = WORK / f"strace-{time.monotonic_ns()}"
        command = ["strace", "-f", "-y", "-tt", "-p", str(pid), "-o", str(self.log), "-e", f"trace={self.CALLS},openat,close"]
        command += ["-e", f"inject=fdatasync,fsync:error=EIO:when={when}"]
        self.process = Process("strace", command)
        if not until(lambda: "ttached" in self.process.text() or self.process.child.poll() is not None, 10):
            raise Skip("strace did not attach")
        if self.process.child.poll() is not None:
            raise Skip(f"strace may not attach here: {self.process.text()[-200:]}")

    def end(self):
        self.process.signal(signal.SIGINT)
        self.process.wait(10)
        return self.failures()

    def lines(self):
        return self.log.read_text(errors="replace").splitlines()

    def failures(self):
        return [line for line in self.lines() if "(INJECTED)" in line]

    def calls(self):
        """(call, descriptor, path, whether it was made to fail) in order; calls that strace shows in two halves are one."""
        begun = {}
        for line in self.lines():
            thread, _, rest = line.partition(" ")
            found = re.search(r"\b(fdatasync|fsync|close)\((\d+)<([^>]*)>", rest)
            if found and "<unfinished" in rest:
                begun[thread] = found.groups()
                continue
            call = found.groups() if found else begun.pop(thread, None) if " resumed>" in rest else None
            if call:
                yield (*call, "(INJECTED)" in rest, line)

    def synced_again(self):
        """Descriptors that were synced once more after a sync of theirs had failed, without being closed between."""
        poisoned, again = {}, []
        for call, number, path, failed, line in self.calls():
            if call == "close":
                poisoned.pop(number, None)
            # A directory may be synced again: it holds no records.
            elif poisoned.get(number) == path and not os.path.isdir(path):
                again.append(line)
            if failed:
                poisoned[number] = path
        return again


@row("D06", "fsync fails", seconds=240, quick=120)
def fsync_fails(check):
    ledger, sink, subject, load = check.setup(again=True)
    subject.start()
    load.start()
    time.sleep(2)

    # Once.
    before = len(load.refused)
    injected = Injected(subject.pid, "20")
    until(lambda: injected.failures(), 10)
    until(lambda: len(load.refused) > before, 2)
    time.sleep(2)
    failures = injected.end()
    refused = load.refused[before:]
    # strace counts by thread: one that syncs on several threads fails once on each.
    if not check.holds("a failed sync was provoked", failures, f"none of {sum(1 for _ in injected.calls())} calls"):
        load.stop()
        return
    check.holds("the group of a failed sync is refused", len(refused) >= 1, f"{len(failures)} syncs failed, nothing was refused")
    check.holds("with UNAVAILABLE and RetryInfo", all(a.code.name == "UNAVAILABLE" and a.retry is not None for a in refused), refused and f"{refused[0].code} {refused[0].retry} {refused[0].text}")
    check.holds("the same descriptor is not synced again", not injected.synced_again(), injected.synced_again()[:2])
    if refused:
        after = [at for at in load.taken_at if at > refused[-1].at]
        gap = min(after) - refused[0].at if after else float("inf")
        check.figure(f"once: {len(refused)} refused, taken again after {gap * 1000:.0f} ms")
        check.holds("taken again within 5 s", gap <= 5, f"{gap:.1f} s")
    check.holds("no exit", subject.alive(), subject.process.text()[-500:])

    # One in a hundred.
    before = len(load.refused)
    injected = Injected(subject.pid, "50+100")
    time.sleep(check.pick(20, 5))
    failures = injected.end()
    check.holds("the same descriptor is not synced again (1 %)", not injected.synced_again(), injected.synced_again()[:2])
    check.figure(f"1 %: {len(failures)} syncs failed, {len(load.refused) - before} requests refused")
    check.holds("each failed sync refuses", len(load.refused) - before >= len(failures), f"{len(load.refused) - before}")
    check.holds("no exit (1 %)", subject.alive(), subject.process.text()[-500:])

    # For good: nothing may be acknowledged, readiness turns red, liveness stays green; then the disk is well again.
    injected = Injected(subject.pid, "1+")
    time.sleep(2)
    begun = time.monotonic()
    time.sleep(check.pick(15, 5))
    acked = load.taken_between(begun, time.monotonic())
    ready, live = readiness(subject), get(f"http://127.0.0.1:{subject.health}/")[0]
    failures = injected.end()
    healed = time.monotonic()
    again = until(lambda: any(at > healed for at in list(load.taken_at)), 10, 0.02) and min(at for at in load.taken_at if at > healed) - healed
    check.figure(f"for good: {len(failures)} syncs failed, {acked} spans acknowledged meanwhile, readiness {ready}, liveness {live}; taken again after {again or -1:.2f} s")
    check.holds("nothing is acknowledged while no sync succeeds", acked == 0, f"{acked}")
    check.holds("readiness is red", ready == 503, f"{ready}")
    check.holds("liveness is green", live == 200, f"{live}")
    check.holds("taken again within 5 s of the disk's recovery", again and again <= 5, f"{again}")
    check.holds("the same descriptor is not synced again (for good)", not injected.synced_again(), injected.synced_again()[:2])
    check.holds("no exit (for good)", subject.alive(), subject.process.text()[-500:])
    time.sleep(1)
    load.stop()
    # What is told to have failed may not survive a kill, what was acknowledged must.
    if subject.alive():
        subject.kill()
    subject.start()
    check.delivered(ledger)
    sink.down()


def readiness(subject):
    """The status of the readiness path."""
    for path in ("ready", "readyz", "readiness", "health/ready"):
        status = get(f"http://127.0.0.1:{subject.health}/{path}")[0]
        if status != 404:
            return status
    return 404


# === D07 ===


class Tmpfs:
    def __init__(self, size, options=""):
        self.path = WORK / f"tmpfs-{time.monotonic_ns()}"
        self.path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(self.path)], capture_output=True, text=True)
        if done.returncode:
            raise Skip(f"no tmpfs can be mounted: {done.stderr.strip()}")

    def end(self):
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True)


@row("D07", "disk full", seconds=300, quick=120, peer=True)
def disk_full(check):
    disk = Tmpfs("64m")
    try:
        full_disk(check, "tmpfs 64 MiB", directory=disk.path / "data")
    finally:
        for subject in check.subjects:
            if subject.alive():
                subject.kill()
        disk.end()
    if check.kind == "weir":
        full_disk(check, "quota 64 MiB", quota="64MiB")


def full_disk(check, what, **keys):
    ledger, sink, subject, load = check.setup(up=False, **keys)
    subject.start()
    load.start()
    full = until(lambda: load.refused and load.refused[0].at, 60)
    dead = check.pick(60, 15)
    time.sleep(dead - 10 if dead > 20 else 5)
    if not check.holds(f"{what}: becomes full and says so", full, f"{ledger.acknowledged():,} spans taken, none refused; {subject.disk() >> 20} MiB"):
        load.stop()
        return
    web = [http_answer(subject) for _ in range(3)]
    refused = list(load.refused)
    slowest = oracle.quantile(sorted(answer.took for answer in refused), 0.99)
    codes = load.codes()
    check.figure(f"{what}: {ledger.acknowledged() * 500 >> 20} MiB taken, {len(refused)} refused in {slowest * 1000:.0f} ms (p99), {dict(codes)}, HTTP {web[0][:2]}")
    check.holds(f"{what}: no exit", subject.alive(), subject.process.text()[-500:])
    check.holds(f"{what}: UNAVAILABLE with RetryInfo", all(a.code.name == "UNAVAILABLE" and a.retry is not None for a in refused), next((f"{a.code.name} {a.retry} {a.text}" for a in refused if a.code.name != "UNAVAILABLE" or a.retry is None), ""))
    check.holds(f"{what}: HTTP 503 with Retry-After", all(status == 503 and after for status, after, _ in web), f"{web}")
    # 100 ms of waiting for room, and what a machine shared with others adds.
    check.holds(f"{what}: refused within 100 ms", slowest <= 0.15, f"{slowest * 1000:.0f} ms")
    sink.up()
    first = until(lambda: sink.first_at, 30)
    again = until(lambda: any(at > first for at in list(load.taken_at)), 30, 0.05)
    took = min(at for at in load.taken_at if at > first) - first if again else float("inf")
    check.figure(f"taken again {took:.1f} s after the backend's first answer")
    check.holds(f"{what}: taken again within 5 s", took <= 5, f"{took:.1f} s")
    time.sleep(2)
    load.stop()
    check.delivered(ledger)
    acked = ledger.acknowledged()
    check.balanced(subject, (acked, acked + ledger.doubtful()))
    sink.down()
    subject.stop()


def http_answer(subject):
    """(status, Retry-After, seconds) of a request as large as those of the load, which the oracle does not count."""
    body = oracle.Ledger(100, 1, service="probe").body(0)
    begun = time.monotonic()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", subject.http, timeout=10)
        connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After"), time.monotonic() - begun
    except OSError as error:
        return 0, str(error), time.monotonic() - begun


# === D10, D13, D16 ===


@row("D10", "start with a large backlog", seconds=1500, quick=180)
def recovery_time(check):
    fill = check.pick(10 << 30, 512 << 20)
    ledger, sink, subject, load = check.setup(batch=1000, streams=4, rate=None, up=False, most=fill // 500_000)
    free = shutil.disk_usage(WORK).free
    if free < 2 * fill:
        raise Skip(f"{free >> 30} GiB free, {2 * fill >> 30} needed")
    subject.quota = f"{(fill >> 30) + 4}GiB"
    subject.start()
    begun = time.monotonic()
    load.start()
    check.holds("the backlog could be filled", load.wait(900), f"{ledger.acknowledged():,} spans in 900 s")
    check.figure(f"{subject.disk() >> 20} MiB filled at {ledger.acknowledged() * 500 / (time.monotonic() - begun) / 1e6:.0f} MB/s, {subject.peak_rss():.0f} MiB RSS at most meanwhile")
    check.holds("RSS while the backlog grows", subject.peak_rss() <= 256, f"{subject.peak_rss():.0f} MiB")
    subject.kill()
    subprocess.run(["sync"])
    sink.up()
    begun = time.monotonic()
    subject.start()
    accepts = subject.accepts()
    ready = time.monotonic() - begun
    until(lambda: sink.first_at, 30)
    exporting = (sink.first_at or float("inf")) - begun
    check.figure(f"accepting after {ready:.2f} s, exporting after {exporting:.2f} s")
    check.holds("accepting within 3 s", accepts is not None and ready <= 3, f"{ready:.1f} s")
    check.holds("exporting within 5 s", exporting <= 5, f"{exporting:.1f} s")
    drained = time.monotonic()
    check.delivered(ledger, seconds=900, quiet=30)
    check.figure(f"drained at {ledger.acknowledged() * 500 / (time.monotonic() - drained) / 1e6:.0f} MB/s, {subject.peak_rss():.0f} MiB RSS at most")
    check.holds("RSS while it drains", subject.peak_rss() <= 256, f"{subject.peak_rss():.0f} MiB")
    check.balanced(subject, ledger.acknowledged())
    sink.down()


@row("D13", "one dead and one failing backend of three", seconds=800, quick=120)
def isolation(check):
    seconds = check.pick(600, 20)
    ledgers = [oracle.Ledger(), oracle.Ledger(), oracle.Ledger()]
    # Every backend keeps its own account of the same spans.
    healthy, failing, dead = [oracle.Sink(oracle.port(), ledger) for ledger in ledgers]
    healthy.up()
    failing.up()
    failing.fail = 0.05
    subject = check.subject({"healthy": healthy.port, "failing": failing.port, "dead": dead.port})
    subject.start()
    load = oracle.Load(Shared(ledgers), subject.grpc).start()
    time.sleep(seconds)
    rss = subject.peak_rss()
    load.stop()
    disk = subject.disk()
    for ledger in ledgers[:2]:
        ledger.settle(30, 10)
    lag = oracle.quantile(ledgers[0].lags(), 0.99)
    lag_failing = oracle.quantile(ledgers[1].lags(), 0.99)
    check.figure(f"{seconds} s: delivery lag p99 {lag * 1000:.0f} ms (5 % failing: {lag_failing * 1000:.0f} ms), {disk >> 20} MiB on disk, {rss:.0f} MiB RSS")
    check.holds("healthy backend's p99 lag within 2 s", lag <= 2, f"{lag:.2f} s")
    check.holds("the dead backend's backlog is on disk", disk > ledgers[0].acknowledged() * 400, f"{disk >> 20} MiB of {ledgers[0].acknowledged() * 500 >> 20}")
    check.holds("and not in memory", rss <= 256, f"{rss:.0f} MiB")
    dead.up()
    for ledger in ledgers:
        check.delivered(ledger, seconds=180)
    check.balanced(subject, (ledgers[0].acknowledged(), ledgers[0].acknowledged() + ledgers[0].doubtful()))
    for sink in (healthy, failing, dead):
        sink.down()


class Shared:
    """What the generator writes down, for several ledgers at once."""

    def __init__(self, ledgers):
        self.ledgers = ledgers

    def __getattr__(self, name):
        return getattr(self.ledgers[0], name)

    def sending(self, request):
        for ledger in self.ledgers:
            ledger.sending(request)

    def unanswered(self, request):
        for ledger in self.ledgers:
            ledger.unanswered(request)

    def acked(self, request):
        for ledger in self.ledgers:
            ledger.acked(request)


@row("D16", "the clock jumps", seconds=240, quick=90)
def clock_jumps(check):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if not library:
        raise Skip("libfaketime is not there (apt-get install faketime)")
    clock = WORK / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        # The monotonic clock of a real machine does not jump.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    ledger, sink, subject, load = check.setup(env=env, red=True)
    subject.start()
    load.start()
    jumps = ["+3600", "-3600", "+0", "+7200", "+0"]
    for number, jump in enumerate(jumps):
        time.sleep(check.pick(12, 4))
        clock.write_text(jump)
        if number == 2:
            subject.kill()
            subject.start()
    time.sleep(check.pick(12, 4))
    load.stop()
    check.figure(f"jumps {' '.join(jumps)} s, one kill")
    check.delivered(ledger)
    # Counters must be there still: nothing expired before its time.
    from exactness import calls

    until(lambda: sum(calls(subject)[1].values()) >= ledger.acknowledged(), 15, 0.5)
    status, counts = calls(subject)
    acked = ledger.acknowledged()
    check.holds("no series expired", status == 200 and acked <= sum(counts.values()) <= acked + ledger.doubtful(), f"status {status}, {sum(counts.values()):,} counted of {acked:,}")
    check.balanced(subject, (acked, acked + ledger.doubtful()))
    sink.down()


@row("D18", "refused for good, kill -9, replay", seconds=420, quick=150)
def refused_for_good(check):
    ledger, sink, subject, load = check.setup(batch=20, rate=check.pick(4000, 2000))
    sink.refuses = lambda request: request % 7 == 0
    subject.start()
    load.start()
    for _ in range(check.times(5, 2)):
        time.sleep(check.chance.uniform(1, 4))
        subject.kill()
        subject.start()
    time.sleep(2)
    load.stop()

    def due():
        """Spans of requests that are acknowledged and refused by the sink."""
        return ledger.batch * sum(1 for request, at in enumerate(ledger.acked_at) if at and sink.refuses(request))

    def letters():
        code, text = subject.journal("letters", "--json")
        check.holds("`weir journal letters`", code == 0, text[-300:])
        return json.loads(text)["letters"]

    def items():
        return sum(one["items"] for one in letters())

    refused = due()
    arrived = until(lambda: ledger.lost() == refused, 60, 0.2)
    check.figure(f"{ledger.acknowledged():,} acknowledged, {refused:,} of them refused for good")
    check.holds("all but what is refused arrives", arrived and refused > 0, f"{ledger.lost():,} are missing, {refused:,} were refused")
    check.balanced(subject, dropped=None)
    kept = items()
    twice = ledger.duplicates + ledger.doubtful()
    check.holds("each refused span is in the dead letters", kept >= refused, f"{kept:,} of {refused:,}")
    check.figure(f"{kept:,} items in dead letters")
    subject.kill()
    subject.start()
    check.holds("after kill -9, too", items() == kept, f"{items():,}, before {kept:,}")
    reasons = {one["reason"] for one in letters()}
    check.holds("with the reason", reasons == {"rejected"} and all("INVALID_ARGUMENT" in one["message"] for one in letters()), f"{letters()}")
    trace = (ledger.MAGIC + bytes(8)).hex()
    code, text = subject.journal("where", trace)
    check.holds("`weir journal where` names the reason", code == 0 and "rejected: INVALID_ARGUMENT" in text, text[-300:])

    # Refused again: kept.
    before = sink.refused
    code, text = subject.journal("replay", "--limit", "5")
    check.holds("`weir journal replay`", code == 0, text[-300:])
    until(lambda: sink.refused >= before + 5, 20)
    check.holds("what is refused again is kept", until(lambda: items() == kept, 10, 0.2) and sink.refused >= before + 5, f"{items():,} of {kept:,}")

    # Mended, and killed in the middle.
    sink.refuses, sink.delay = None, 0.05
    had = ledger.distinct()
    code, text = subject.journal("replay")
    check.holds("`weir journal replay`", code == 0 and "now" in text, text[-300:])
    until(lambda: ledger.distinct() >= had + refused // 4, 60, 0.02)
    middle = ledger.distinct() - had
    subject.kill()
    sink.delay = 0
    check.figure(f"killed when {middle:,} of {refused:,} were replayed")
    check.holds("killed in the middle", 0 < middle < refused, f"{middle:,} of {refused:,}")
    subject.start()
    check.delivered(ledger)
    gone = until(lambda: not letters(), 60, 0.2)
    check.holds("no dead letter is left", gone, f"{letters()}")
    code, text = subject.journal("verify")
    check.holds("`weir journal verify`", code == 0, text[-300:])
    check.figure(f"{ledger.duplicates - twice:,} duplicates by the replay")
    # What was under way when it was killed, and records that became a letter twice.
    check.holds("duplicates within what was in flight", ledger.duplicates - twice <= kept - refused + 16 * 3 * ledger.batch, f"{ledger.duplicates - twice:,}")
    check.balanced(subject, dropped=None)
    sink.down()
