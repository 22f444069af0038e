"""D08, D09, D15 and DIR: what happens to a data directory behind weir's back.

The files are opaque here: what they hold is known only from what arrives. After any damage weir starts, or refuses with a message that names the
file; it never panics, never passes on a span that was not sent, and what arrives plus what it says is lost is what was acknowledged.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time

import harness
from harness import WORK, samples, until

import oracle
from durability import Tmpfs
from exactness import calls
from rows import row


class Golden:
    """A directory with a backlog, to be copied and damaged; what was acknowledged into it."""

    def __init__(self, check, size, batch, streams=1, quota="256MiB", binary=None):
        self.check, self.quota = check, quota
        self.ledger, sink, self.subject, load = check.setup(
            batch=batch, streams=streams, rate=None, up=False, most=max(streams, size // (batch * 500)), quota=quota, red=check.kind == "weir"
        )
        own, harness.WEIR = harness.WEIR, binary or harness.WEIR
        self.subject.start()
        load.start()
        check.holds("the backlog could be made", load.wait(120) and self.ledger.acknowledged() > 0, f"{load.codes()}")
        if self.subject.red:
            # What RED has counted is saved by then.
            time.sleep(7)
        self.subject.kill()
        harness.WEIR = own
        self.directory = self.subject.directory
        self.files = [path.relative_to(self.directory) for path in self.subject.files()]
        check.holds("there are files to damage", self.files, str(self.directory))

    def used(self, name, directory=None):
        """The end of what was written: files are set aside with zeros."""
        data = ((directory or self.directory) / name).read_bytes()
        return len(data.rstrip(b"\0"))

    def segments(self):
        """The files that hold records: those with the spans' magic in them."""
        return [name for name in self.files if self.ledger.MAGIC in (self.directory / name).read_bytes()]

    def copy(self):
        directory = WORK / f"copy-{time.monotonic_ns()}"
        subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", self.directory, directory], check=True)
        return directory

    def open(self, directory, wrap=(), seconds=20):
        return Opened(self, directory, wrap, seconds)


class Opened:
    """A start on a damaged directory: `refused` with `text`, or what arrived."""

    def __init__(self, golden, directory, wrap=(), seconds=20):
        self.ledger = golden.ledger.again()
        # The pipeline is the same one: its consumers find their places by name.
        golden.subject.directory, golden.subject.wrap = directory, list(wrap)
        subject = self.subject = golden.subject
        subject.write()
        self.sink = oracle.Sink(subject.sinks["a"], self.ledger).up()
        begun = time.monotonic()
        subject.logs.clear()
        subject.start(wait=False)

        def decided():
            if not subject.alive():
                return "refused"
            import socket

            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", subject.grpc)) == 0 and "started"

        self.how = until(decided, seconds, 0.02) or "hangs"
        self.took = time.monotonic() - begun
        self.refused = self.how == "refused"
        self.said, self.counted, self.page = 0, None, None
        if self.how == "started":
            self.drain()
        if subject.alive():
            subject.kill()
        self.text = re.sub(r"\x1b\[[0-9;]*m", "", subject.process.text())
        self.panics = subject.panics()
        self.sink.down()
        self.lost = 0 if self.refused else self.ledger.lost()

    def drain(self):
        last, since, end = -1, time.monotonic(), time.monotonic() + 60
        while time.monotonic() < end and self.subject.alive():
            if self.ledger.delivered != last:
                last, since = self.ledger.delivered, time.monotonic()
            lost = self.ledger.lost()
            if lost == 0:
                break
            if time.monotonic() - since > 1.5:
                self.said = said_lost(self.subject)
                held = sum(book["held"] for book in self.subject.books().values())
                if self.said == lost or time.monotonic() - since > (4 if not held else 12):
                    break
            time.sleep(0.05)
        self.said = said_lost(self.subject)
        if self.subject.red:
            there = self.ledger.acknowledged() - self.ledger.lost()
            until(lambda: sum(calls(self.subject)[1].values()) >= there, 3, 0.1)
            self.page, counts = calls(self.subject)
            self.counted = sum(counts.values())


def complaints(text):
    """What of a log is about trouble."""
    lines = [line for line in text.splitlines() if re.search(r"\b(warn|error|WARN|ERROR)\b|rror:|panicked", line) and "today one writes" not in line and "alias is deprecated" not in line]
    return " / ".join(lines)[-600:] or "no warning and no error in the log"


def said_lost(subject):
    """Items that weir itself says are gone because of damage, on its own page."""
    said = 0
    for name, labels, value, _ in samples(subject.own_page()):
        if re.search(r"weir_journal_.*(lost|damaged|missing|quarantined).*items|weir_journal_(lost|damaged|missing|quarantined)_(spans|items)", name):
            said += int(value)
    if said:
        return said
    # As drops of the consumer, with a reason.
    return sum(book["dropped"] for who, book in subject.books().items() if any(value == "otlp/a" for _, value in who))


def checksums(directory):
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name not in ("lock", "LOCK", ".lock", "weir.lock")
    }


def judge(check, what, opened, names=(), lost_most=None, lost_exact=True):
    """What holds after any damage."""
    check.holds(f"{what}: no panic", opened.panics == 0, opened.text[-600:])
    check.holds(f"{what}: starts or refuses", opened.how != "hangs", opened.text[-400:])
    if opened.refused:
        code = opened.subject.process.child.returncode
        check.holds(f"{what}: refuses with an exit code", code and code > 0, f"{code}")
        check.holds(f"{what}: the message names the file", any(name in opened.text for name in names), f"wanted one of {list(names)[:3]}: {complaints(opened.text)}")
        return
    check.intact(opened.ledger)
    if lost_exact:
        check.holds(f"{what}: what is lost is said", opened.lost == opened.said, f"{opened.lost} lost, {opened.said} said; {complaints(opened.text)}")
    if opened.counted is not None:
        there = opened.ledger.acknowledged() - opened.lost
        told = any(name in complaints(opened.text) for name in names)
        # What was counted before the damage stays counted.
        exact = there <= opened.counted <= opened.ledger.acknowledged()
        check.holds(f"{what}: RED counts what was acknowledged, or the log names the file", exact or told, f"status {opened.page}, {opened.counted} counted, {there} arrived; {complaints(opened.text)}")
        check.holds(f"{what}: the page comes back", opened.page == 200, f"{opened.page}")
    if lost_most is not None:
        check.holds(f"{what}: only what was hit is lost", opened.lost <= lost_most, f"{opened.lost} lost, at most {lost_most} were hit; {complaints(opened.text)}")


def tally(check, outcomes, what):
    refused = sum(1 for o in outcomes if o.refused)
    lost = [o.lost for o in outcomes if not o.refused]
    slowest = max((o.took for o in outcomes), default=0)
    check.figure(f"{what}: {len(outcomes)} tries, {len(lost)} started ({sum(1 for n in lost if n)} with loss, {max(lost, default=0)} spans at most), {refused} refused, {slowest:.1f} s at most")
    return slowest


@row("D08", "one bit flips", seconds=7200, quick=240, peer=True)
def bit_flip(check):
    golden = Golden(check, check.pick(64 << 20, 4 << 20), batch=100)
    outcomes = []
    for turn in range(check.times(1000, 14)):
        directory = golden.copy()
        # Every second time any file, otherwise by size: most of the bytes are in segments.
        names = golden.files
        weights = [1 if turn % 2 else golden.used(name) or 1 for name in names]
        name = check.chance.choices(names, weights)[0]
        end = golden.used(name) or 1
        at, bit = check.chance.randrange(end), check.chance.randrange(8)
        with open(directory / name, "r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1 << bit]))
        opened = golden.open(directory)
        outcomes.append(opened)
        judge(check, f"{name} byte {at} bit {bit}", opened, [str(name), name.name], lost_most=100)
        shutil.rmtree(directory, ignore_errors=True)
        if len(check.failures) > 20:
            break
    slowest = tally(check, outcomes, "bits flipped")
    heads(check)
    check.holds("start within 3 s", slowest <= 3, f"{slowest:.1f} s")


def heads(check):
    """Random bits seldom hit the first bytes of a file, which all the rest depends on."""
    golden = Golden(check, 2 << 20, batch=100)
    outcomes = []
    for name in golden.files:
        for at in range(0, min(64, golden.used(name)), check.pick(1, 12)):
            directory = golden.copy()
            with open(directory / name, "r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([(byte + 1) % 256]))
            before = checksums(directory)
            opened = golden.open(directory)
            outcomes.append(opened)
            judge(check, f"{name} byte {at} one higher", opened, [str(name), name.name])
            if opened.refused:
                check.holds(f"{name} byte {at}: untouched", checksums(directory) == before, "files were changed by a weir that refused them")
            shutil.rmtree(directory, ignore_errors=True)
    tally(check, outcomes, "first bytes of files")


@row("D09", "truncated, overwritten, removed", seconds=7200, quick=300)
def truncated(check):
    # Records of 5 kB, one stream: what a cut removes is the end of the numbers.
    golden = Golden(check, 2 << 20, batch=10, quota="64MiB")
    segment = max(golden.segments(), key=lambda name: (golden.directory / name).stat().st_mtime_ns)
    end = golden.used(segment)
    record = 10 * 500 + 200
    acked = golden.ledger.acknowledged()

    def suffix(opened):
        missing = [request for request, _ in opened.ledger.lost_requests()]
        last = acked // 10
        return not missing or missing == list(range(last - len(missing), last))

    cuts = sorted(check.chance.sample(range(1, 8192), check.times(400, 6)))
    for what in ("truncate", "zero"):
        outcomes = []
        for cut in cuts:
            directory = golden.copy()
            with open(directory / segment, "r+b") as file:
                if what == "truncate":
                    file.truncate(end - cut)
                else:
                    file.seek(end - cut)
                    file.write(bytes(cut))
            opened = golden.open(directory)
            outcomes.append(opened)
            # How many records a torn end held cannot be known: it is the end, and no more than was cut.
            judge(check, f"{what} {cut} bytes before the end", opened, [segment.name], lost_most=10 * (cut // record + 2), lost_exact=False)
            check.holds(f"{what} {cut}: only the end is lost", opened.refused or suffix(opened), f"{opened.ledger.lost_requests()[:5]}")
            check.holds(f"{what} {cut}: starts", not opened.refused, opened.text[-300:])
            shutil.rmtree(directory, ignore_errors=True)
        tally(check, outcomes, what)

    outcomes = []
    for turn in range(check.pick(40, 4)):
        directory = golden.copy()
        garbage = check.chance.randbytes(check.chance.randrange(1024, 64 << 10))
        with open(directory / segment, "r+b") as file:
            # Behind the last record, and behind the end of the file.
            file.seek(end if turn % 2 else 0, 0 if turn % 2 else 2)
            file.write(garbage)
        opened = golden.open(directory)
        outcomes.append(opened)
        judge(check, f"{len(garbage)} bytes of garbage {'behind the last record' if turn % 2 else 'at the end of the file'}", opened, [segment.name], lost_most=10, lost_exact=False)
        shutil.rmtree(directory, ignore_errors=True)
    tally(check, outcomes, "garbage appended")

    # Cursors and whatever else is small: gone.
    outcomes = []
    others = [name for name in golden.files if name not in golden.segments()]
    for name in others:
        directory = golden.copy()
        (directory / name).unlink()
        opened = golden.open(directory)
        outcomes.append(opened)
        judge(check, f"{name} removed", opened, [name.name], lost_most=0)
        shutil.rmtree(directory, ignore_errors=True)
    tally(check, outcomes, "cursors and other files removed")

    # A whole segment: what was in it is lost, the rest arrives; `weir journal verify` names it.
    golden = Golden(check, check.pick(96 << 20, 40 << 20), batch=100, quota="128MiB")
    segments = golden.segments()
    if len(segments) < 3:
        check.figure(f"a segment removed: skipped, there are only {len(segments)}")
    else:
        outcomes = []
        for name in check.chance.sample(segments, min(len(segments), check.pick(8, 2))):
            inside = (golden.directory / name).read_bytes().count(golden.ledger.MAGIC)
            directory = golden.copy()
            (directory / name).unlink()
            opened = golden.open(directory)
            outcomes.append(opened)
            judge(check, f"{name} with {inside} spans removed", opened, [name.name], lost_most=inside, lost_exact=name != segments[-1])
            shutil.rmtree(directory, ignore_errors=True)
        tally(check, outcomes, "a segment removed")

    # fsck names what is damaged.
    directory = golden.copy()
    golden.subject.directory = directory
    sound, text = golden.subject.journal("verify")
    check.holds("`weir journal verify` finds a sound directory sound", sound == 0, f"exit code {sound}: {text[-300:]}")
    name = segments[0]
    with open(directory / name, "r+b") as file:
        file.seek(golden.used(name) // 2)
        file.write(b"\xaa" * 64)
    damaged, text = golden.subject.journal("verify")
    check.holds("`weir journal verify` names a damaged file", damaged != 0 and name.name in text, f"exit code {damaged}: {text[-300:]}")
    shutil.rmtree(directory, ignore_errors=True)


@row("D15", "other versions", seconds=120, quick=60)
def versions(check):
    golden = Golden(check, 2 << 20, batch=100)
    newer_refused(check, golden)
    previous = os.environ.get("RELIABILITY_PREVIOUS")
    if previous:
        older = Golden(check, 8 << 20, batch=100, binary=previous)
        opened = older.open(older.copy())
        judge(check, "written by the previous version", opened, [], lost_most=0)
        check.holds("the previous version's backlog is read", not opened.refused, opened.text[-300:])
        check.figure("the previous version's backlog arrives whole")
    else:
        check.figure("skipped: written by the previous version (RELIABILITY_PREVIOUS=its binary)")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def newer_refused(check, golden):
    """A format of tomorrow: the version in a segment's head, by whatever its place, must be refused."""
    name = golden.segments()[0]
    head = (golden.directory / name).read_bytes()[:64]
    version = next((at for at in range(4, 16, 2) if head[at : at + 2] == b"\x01\x00"), None)
    if version is None:
        check.figure("skipped: no version found in a segment's head")
        return
    directory = golden.copy()
    # With its checksum: a damaged number is no newer version.
    head = head[:version] + b"\x63\x00" + head[version + 2 : 60]
    with open(directory / name, "r+b") as file:
        file.write(head + crc32c(head).to_bytes(4, "little"))
    before = checksums(directory)
    opened = golden.open(directory)
    check.holds("a segment of format 99 is refused", opened.refused, opened.text[-400:])
    check.holds("by name, as newer", name.name in opened.text and re.search("newer|version|format", opened.text), opened.text[-400:])
    check.holds("and nothing is touched", checksums(directory) == before)
    shutil.rmtree(directory, ignore_errors=True)


@row("DIR", "foreign files, permissions, links, a lock", seconds=300, quick=180)
def directory_faults(check):
    golden = Golden(check, 2 << 20, batch=100)
    segment = golden.segments()[0]
    acked = golden.ledger.acknowledged()
    outcomes = {}

    def attempt(what, change, names, wrap=(), undo=None, whole=True):
        directory = golden.copy()
        change(directory)
        before = checksums(directory) if not wrap else None
        opened = golden.open(directory, wrap)
        outcomes[what] = "refused" if opened.refused else f"{acked - opened.lost} of {acked} arrive, {opened.said} said lost"
        judge(check, what, opened, names, lost_most=0 if whole else acked)
        if opened.refused:
            if before is not None:
                changed = sorted(name for name, _ in checksums(directory).items() ^ before.items())
                check.holds(f"{what}: nothing is touched", not changed, " ".join(changed))
            if undo:
                undo(directory)
                again = golden.open(directory, wrap)
                check.holds(f"{what}: all arrives once it is put right", not again.refused and again.lost == 0, f"{again.how}, {again.lost} lost; {again.text[-300:]}")
        shutil.rmtree(directory, ignore_errors=True)
        return opened

    def foreign(directory):
        (directory / "README.txt").write_text("not a journal")
        (directory / segment).with_name("notes.log").write_bytes(b"\x00\xff" * 5000)
        (directory / segment).parent.joinpath("folder").mkdir()

    opened = attempt("foreign files", foreign, ["README.txt", "notes.log"])
    check.holds("foreign files: it starts", not opened.refused, opened.text[-300:])

    # As a segment is called, and no segment.
    other = str(int(segment.stem) + 1_000_000).zfill(len(segment.stem)) if segment.stem.isdigit() else segment.stem + "1"
    twin = segment.with_name(other + segment.suffix)
    attempt("a file called as a segment", lambda directory: (directory / twin).write_bytes(check.chance.randbytes(10_000)), [twin.name])

    def empty(directory):
        os.truncate(directory / segment, 0)

    attempt("an empty segment", empty, [segment.name], whole=False)

    # As a user who is not root: permissions do not bind root.
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 and shutil.which("setpriv") else None
    if os.getuid() == 0 and not user:
        check.figure("skipped: permissions (setpriv is not there)")
    else:
        WORK.chmod(0o755)
        parents = [WORK, *WORK.parents]
        open_to_all = all(parent.stat().st_mode & 0o001 for parent in parents) and os.access(harness.WEIR, os.X_OK)
        golden.subject.config.chmod(0o644)

        def given(directory):
            if user:
                subprocess.run(["chown", "-R", "65534:65534", directory], check=True)

        def closed(directory):
            given(directory)
            (directory / segment).chmod(0)

        def opened_again(directory):
            (directory / segment).chmod(0o600)

        if not open_to_all or not reachable(user):
            check.figure("skipped: permissions (another user cannot reach the files)")
        else:
            attempt("a segment that may not be read", closed, [segment.name], user or (), opened_again)
            opened = attempt("a directory that may not be written", lambda d: (given(d), [p.chmod(0o500) for p in [d, *d.rglob("*")] if p.is_dir()]), ["copy-"], user or ())
            check.holds("a directory that may not be written: refused", opened.refused, opened.text[-300:])

    outside = WORK / "outside"

    def linked(directory):
        shutil.move(directory / segment, outside)
        (directory / segment).symlink_to(outside)

    def unlinked(directory):
        (directory / segment).unlink()
        shutil.move(outside, directory / segment)

    attempt("a segment that is a symbolic link", linked, [segment.name], undo=unlinked, whole=False)

    # The directory is a file.
    path = WORK / "afile"
    path.write_text("no directory")
    opened = golden.open(path)
    check.holds("a file for a directory: refused by name", opened.refused and "afile" in opened.text and path.read_text() == "no directory", opened.text[-300:])
    path.unlink()

    # In use by another.
    directory = golden.copy()
    golden.subject.directory, golden.subject.wrap = directory, []
    golden.subject.start()
    second = check.subject({"a": oracle.port()}, directory=directory)
    second.start(wait=False)
    code = second.process.wait(15)
    text = second.log()
    check.holds("in use by another: an error with its pid and --data-dir", code > 0 and str(golden.subject.pid) in text and "--data-dir" in text, f"exit code {code}: {text[-400:]}")
    check.holds("in use by another: the other runs on", golden.subject.alive() and golden.subject.accepts(5) is not None)
    golden.subject.kill()
    # The lock of who was killed binds nobody.
    golden.subject.start()
    golden.subject.kill()
    shutil.rmtree(directory, ignore_errors=True)

    # No more files can be made.
    disk = Tmpfs("64m", ",nr_inodes=3")
    try:
        opened = golden.open(disk.path / "data")
        check.holds("no inodes: no panic", opened.panics == 0, opened.text[-400:])
        check.holds("no inodes: a clear message, or refusals", "No space left" in opened.text or "no space" in opened.text.lower() or not opened.refused, opened.text[-400:])
        if opened.refused:
            check.holds("no inodes: the message names the place", str(disk.path) in opened.text, opened.text[-400:])
        outcomes["no inodes"] = opened.how
    finally:
        if golden.subject.alive():
            golden.subject.kill()
        disk.end()
    check.figure("; ".join(f"{what}: {how}" for what, how in outcomes.items()))


def reachable(user):
    """Whether that user can run the binary and read what lies in WORK."""
    if not user:
        return True
    test = subprocess.run([*user, harness.WEIR, "--version"], capture_output=True, cwd=WORK)
    return test.returncode == 0 and subprocess.run([*user, "ls", WORK], capture_output=True).returncode == 0
