"""What all rows share: how one is declared, judged and printed, and how its balance is struck."""

import random
import re

from harness import until

import oracle
import subjects

ROWS = {}


class Skip(Exception):
    """Cannot be done here: why."""


def row(name, title, seconds=600, quick=120, peer=False):
    """Declares a row; `peer`: it is run on the Collector as well."""

    def declare(function):
        ROWS[name] = {"title": title, "run": function, "seconds": seconds, "quick": quick, "peer": peer}
        return function

    return declare


class Check:
    """One run of one row: figures and what did not hold."""

    def __init__(self, name, subject, quick, seed, repeat=None):
        self.name, self.kind, self.quick, self.seed, self.repeat = name, subject, quick, seed, repeat
        self.figures, self.failures, self.notes = [], [], []
        self.chance = random.Random(seed)
        self.subjects = []

    def pick(self, whole, quick):
        """A row's number as written in the scorecard, and the one for each landing."""
        return quick if self.quick else whole

    def times(self, whole, quick):
        """How often, unless --times says."""
        return self.repeat or self.pick(whole, quick)

    def subject(self, sinks, **keys):
        kind = subjects.Weir if self.kind == "weir" else subjects.Collector
        made = kind(sinks, **keys)
        self.subjects.append(made)
        return made

    def setup(self, batch=100, streams=8, span_bytes=500, rate=20_000, up=True, **keys):
        """The usual four: ledger, sink, subject (not started), load (not started)."""
        load_keys = {key: keys.pop(key) for key in ("again", "honour", "most") if key in keys}
        ledger = oracle.Ledger(batch, streams, span_bytes)
        sink = oracle.Sink(oracle.port(), ledger)
        if up:
            sink.up()
        subject = self.subject({"a": sink.port}, **keys)
        load = oracle.Load(ledger, subject.grpc, rate, **load_keys)
        return ledger, sink, subject, load

    def figure(self, text):
        self.figures.append(text)
        print(f"      .. {self.name} {text}", flush=True)

    def holds(self, what, holds, why=""):
        if not holds:
            text = f"{what}: {why}" if why != "" else what
            text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
            self.failures.append(text if len(text) <= 500 else f"{text[:250]} … {text[-250:]}")
            print(f"      !! {self.name} {self.failures[-1]}", flush=True)
        return holds

    # === verdicts ===

    def delivered(self, ledger, said_lost=0, seconds=60, quiet=15):
        """Every acknowledged span is at the backend, as it was sent."""
        ledger.settle(seconds, quiet)
        lost, acked = ledger.lost(), ledger.acknowledged()
        self.figure(f"{acked:,} acknowledged, {lost:,} lost, {ledger.duplicates:,} duplicates")
        self.holds("nothing acknowledged", acked > 0)
        self.holds("acknowledged spans lost", lost == said_lost, f"{lost:,} of {acked:,}; the first: {ledger.lost_requests()[:3]}")
        self.intact(ledger)
        return lost

    def intact(self, ledger):
        self.holds("spans altered", ledger.corrupt == 0, f"{ledger.corrupt}, {ledger.first_wrong!r}")
        self.holds("spans that nobody sent", ledger.spurious == 0, f"{ledger.spurious}, {ledger.first_wrong!r}")

    def balanced(self, subject, accepted=None, drained=True, dropped=0, seconds=10):
        """D17: for every consumer accepted = delivered + dropped + held, and accepted is what the oracle knows (a number, or bounds)."""
        if subject.name != "weir":
            return

        def wrong():
            books = subject.books()
            if not books:
                return "no books on the own page"
            for who, book in books.items():
                if not any(name in value for _, value in who for name in ("otlp", "span_metrics", *subject.exporters)):
                    continue
                if book["accepted"] != book["delivered"] + book["dropped"] + book["held"]:
                    return f"{dict(who)}: {book}"
                if drained and book["held"]:
                    return f"still held by {dict(who)}: {book}"
                if dropped is not None and book["dropped"] != dropped:
                    return f"dropped by {dict(who)}: {book} {subject.dropped_by_reason()}"
                if accepted is not None:
                    low, high = accepted if isinstance(accepted, tuple) else (accepted, accepted)
                    if not low <= book["accepted"] <= high:
                        return f"{dict(who)} accepted {book['accepted']:,}, the oracle knows {low:,}" + (f" to {high:,}" if high != low else "")
            return None

        until(lambda: wrong() is None, seconds, 0.3)
        self.holds("the books (D17)", wrong() is None, wrong())
        self.notes.append("books")

    def end(self):
        for subject in self.subjects:
            panics = subject.panics()
            self.holds("panics", panics == 0, f"{panics}: {subject.log()[-600:]}")
        for subject in self.subjects:
            subject.clean()

    def line(self):
        who = self.name if self.kind == "weir" else f"{self.name} (Collector)"
        title = ROWS[self.name]["title"]
        figures = "; ".join(self.figures)
        if self.failures:
            more = f" | and {len(self.failures) - 8} more" if len(self.failures) > 8 else ""
            return f"FAIL  {who} {title}: {' | '.join(self.failures[:8])}{more} [{figures}; seed {self.seed}]"
        return f"ok    {who} {title}: {figures}"
