"""A05: RED counters equal what was acknowledged, over kills and overload, and no scrape ever sees one go back."""

import threading
import time

from harness import samples, until

from rows import row


def calls(subject):
    """(status, {span name: calls}) of the page."""
    status, page = subject.red_page()
    counts = {}
    if status == 200:
        for name, labels, value, _ in samples(page):
            if name in ("traces_span_metrics_calls_total", "traces_span_metrics_calls"):
                key = labels.get("span_name", "?")
                counts[key] = counts.get(key, 0) + int(value)
    return status, counts


class Scraper(threading.Thread):
    """A scrape each 10 ms; remembers each counter that was lower than before, and each status."""

    def __init__(self, subject):
        super().__init__(daemon=True)
        self.subject, self.last, self.back, self.statuses = subject, {}, [], {}
        self.gone, self.scrapes, self.longest, self.seen = [], 0, 0.0, None
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.01):
            status, counts = calls(self.subject)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status != 200:
                continue
            self.scrapes += 1
            now = time.monotonic()
            self.longest = max(self.longest, now - (self.seen or now))
            self.seen = now
            for name, before in self.last.items():
                if name not in counts:
                    # A page without a counter that was there is one that Prometheus ends as stale and begins anew.
                    self.gone.append((name, before))
                elif counts[name] < before:
                    self.back.append((name, before, counts[name]))
            self.last.update(counts)

    def stop(self):
        self.ended.set()
        self.join(10)


@row("A05", "RED counters over kill -9", seconds=420, quick=120)
def red_over_kills(check):
    kills = check.times(20, 4)
    # Tried once: a request that was recorded and not answered would otherwise rightly count twice.
    ledger, sink, subject, load = check.setup(red=True, again=False)
    subject.start()
    scraper = Scraper(subject)
    scraper.start()
    load.start()
    for _ in range(kills):
        time.sleep(check.chance.uniform(1, 6))
        subject.kill()
        subject.start()
    time.sleep(2)
    load.stop()
    check.delivered(ledger)
    expected = ledger.by_name()
    until(lambda: calls(subject)[1] == dict(expected), 20, 0.25)
    status, counts = calls(subject)
    scraper.stop()
    wrong = {name: (counts.get(name, 0), want) for name, want in expected.items() if counts.get(name, 0) != want}
    check.figure(f"{kills} kills, {sum(counts.values()):,} counted of {sum(expected.values()):,}; {scraper.scrapes:,} scrapes, statuses {scraper.statuses}, {scraper.longest:.2f} s without a page at most")
    check.holds("every counter equals what is at the backend", status == 200 and not wrong, f"status {status}, (counted, recorded): {dict(list(wrong.items())[:4])}")
    check.holds("no scrape saw a counter go back", not scraper.back, f"{len(scraper.back)}, the first: {scraper.back[:2]}")
    check.holds("no scrape missed a counter that was there", not scraper.gone, f"{len(scraper.gone)}, the first: {scraper.gone[:2]}")
    check.holds("only 200, 503 and no answer", set(scraper.statuses) <= {0, 200, 503}, f"{scraper.statuses}")
    check.balanced(subject, sum(expected.values()))
    sink.down()
    if check.failures:
        return

    # And under overload: what is refused is not counted, what is acknowledged is, once.
    ledger, sink, subject, load = check.setup(red=True, again=False, rate=None, batch=1000)
    sink.hold.clear()
    subject.quota = "64MiB"
    subject.start()
    load.start()
    until(lambda: load.refused, 30)
    time.sleep(2)
    load.stop()
    sink.hold.set()
    check.delivered(ledger, seconds=120)
    expected = ledger.by_name()
    until(lambda: calls(subject)[1] == dict(expected), 20, 0.25)
    status, counts = calls(subject)
    check.figure(f"overload: {len(load.refused)} requests refused, {sum(counts.values()):,} counted of {sum(expected.values()):,}")
    check.holds("counters under overload", counts == dict(expected), f"status {status}, {sum(counts.values()):,} of {sum(expected.values()):,}")
    check.balanced(subject, sum(expected.values()))
    sink.down()


@row("D17", "the books balance", seconds=10, quick=10)
def books(_check):
    """Struck at the end of every other row; `run` adds up."""
