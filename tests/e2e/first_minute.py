"""What a new user does: weir without a file, the demo, a look at both metric pages, and `--forward`."""

import re
from collections import Counter

from harness import OPEN_METRICS, Sink, demo, get, main, moved, promise, samples, service_name, total, until, weir

INTERNAL = 1

SERVICES = ["web", "catalogue", "recommendation", "cart", "checkout", "inventory", "fraud", "payment", "shipping", "email"]


def books(page):
    """Consumers whose books do not balance."""
    consumers = {}
    for name, labels, value, _ in samples(page):
        found = re.fullmatch(r"weir_consumer_(accepted|delivered|dropped|held)_items", name)
        if found:
            key = (labels["pipeline"], labels["component"], labels["signal"])
            consumers.setdefault(key, dict.fromkeys(("accepted", "delivered", "dropped", "held"), 0))[found.group(1)] += value
    return consumers, {k: b for k, b in consumers.items() if b["accepted"] != b["delivered"] + b["dropped"] + b["held"]}


def check():
    sets, ports = moved()
    backend = Sink()
    process = weir(["run", *sets, "--forward", f"grpc://127.0.0.1:{backend.port}"])
    grpc, http, red, health, own = (ports[number] for number in (4317, 4318, 8889, 13133, 8888))
    for number in (grpc, http, red, health, own):
        process.listens(number)
    promise("health is good", get(f"http://127.0.0.1:{health}/")[0] == 200)
    said = process.text()
    promise("it says where to send and where to look", all(str(n) in said for n in (grpc, http, red)), said[-1500:])

    second = weir(["run", *sets], name="second")
    code = second.wait(20)
    named = re.search(r"address already in use: \S+:\d+ \([a-z_]+::[a-z_:/]+\)", second.text())
    promise("a port in use ends a second weir with the port and its key", code not in (0, None) and named, f"{code} {second.text()[-800:]}")

    sent = [0, 0, 0]
    for protocol, flags in (("gRPC", ["--endpoint", f"http://127.0.0.1:{grpc}"]), ("HTTP", ["--http", "--endpoint", f"http://127.0.0.1:{http}"])):
        done, counts = demo(*flags, "--rate", "100", "--duration", "4s", "--seed", "7", "--error-pct", "10")
        promise(f"the demo is accepted over {protocol}", done.returncode == 0, done.stdout[-800:] + done.stderr[-800:])
        sent = [a + b for a, b in zip(sent, counts)]

    def page(accept=None):
        return get(f"http://127.0.0.1:{red}/metrics", accept)[2]

    def forwarded():
        counts = backend.counts()
        return [sum(items for (of, _), items in counts.items() if of == signal) for signal in ("traces", "logs", "metrics")]

    until(lambda: forwarded() == sent, 20)
    promise(f"--forward sends everything on {sent}", forwarded() == sent, f"{forwarded()}")
    # Spans inside a service are no requests: the default does not count them.
    wanted = Counter(service_name(group.resource) for group, _, span in backend.spans() if span.kind != INTERNAL)
    families = ("traces_span_metrics_calls_total", "traces_spanmetrics_calls_total")
    until(lambda: total(page(), families[0]) >= wanted.total(), 20)
    text = page()
    promise("the demo has ten services", sorted(wanted) == sorted(SERVICES), f"{wanted}")
    for family, label in zip(families, ("service_name", "service")):
        counted = {name: total(text, family, **{label: name}) for name in SERVICES}
        promise(f"{family} counts every request of every service ({wanted.total()})", counted == wanted, f"{counted} of {wanted}")
    failed = total(text, families[0], service_name="web", status_code="STATUS_CODE_ERROR")
    promise("errors are among them", failed > 0)
    promise("received metrics are beside them", any(name.startswith("shop_orders") for name, *_ in samples(text)), text[:300])

    promise("the host is beside them", total(text, "system_cpu_time_seconds_total") > 0, text[:300])

    status, headers, open_metrics = get(f"http://127.0.0.1:{red}/metrics", OPEN_METRICS)
    promise("OpenMetrics when asked for", status == 200 and "openmetrics" in headers.get("Content-Type", ""), f"{status} {headers}")
    promise("the page ends as OpenMetrics wants", open_metrics.endswith("# EOF\n"), open_metrics[-100:])
    exemplars = [exemplar for *_, exemplar in samples(open_metrics) if exemplar]
    promise(f"exemplars name traces ({len(exemplars)})", exemplars and all("trace_id" in one for one in exemplars))

    status, headers, text = get(f"http://127.0.0.1:{own}/metrics")
    names = ("otelcol_receiver_accepted_spans", "otelcol_receiver_accepted_log_records", "otelcol_receiver_accepted_metric_points")
    counted = [total(text, name, receiver="otlp") for name in names]
    promise(f"own metrics count what was accepted {sent}", counted == sent, f"{counted}")
    promise("own metrics show the process", total(text, "otelcol_process_memory_rss") > 1e6)
    consumers, wrong = books(text)
    promise(f"the books of {len(consumers)} consumers balance", consumers and not wrong, f"{wrong}")
    log = process.text()
    first = [line for line in log.splitlines() if "first data of" in line]
    unnamed = [name for name in SERVICES if not any(f'"{name}"' in line for line in first)]
    promise("the first data of each service is logged", not unnamed, f"{unnamed}: {log[-800:]}")
    promise("what weir reads by itself is not taken for a service", "unknown_service" not in log, log[:1500])
    promise("weir ends in order", process.stop() == 0, process.text()[-1500:])


main(check)
