"""weir itself: does it take data, does it deliver, is anything lost, is there room."""

from . import alerts
from .grafana import Dashboard, bars, column, datasource, link, override, query, query_variable, stat, steps, table, timeseries

UID = "weir-self"

OWN = 'instance=~"$instance"'
WHO = "component, pipeline, signal"
NAMES = "{{component}} · {{pipeline}}"
NONE_IS_GOOD = steps("green", (1, "red"))
ANY_IS_BAD = steps("green", (1e-9, "red"))
FULL = steps("green", (0.6, "yellow"), (0.8, "orange"), (0.95, "red"))
AGE = steps("green", (60, "orange"), (600, "red"))
# What the configuration or a person asked for is no loss.
LOST = 'reason!~"nop|processor|unsupported|removed"'
SIGNALS = [("spans", "A"), ("log_records", "B"), ("metric_points", "C")]


def rate(name, *matchers, by=None):
    inner = f"rate({name}{{{','.join([OWN, *matchers])}}}[$__rate_interval])"
    return inner if by is None else f"sum by ({by}) ({inner})"


def gauge(name, *matchers):
    return f"{name}{{{','.join([OWN, *matchers])}}}"


def _accepted():
    return " + ".join(rate(f"otelcol_receiver_accepted_{items}", 'transport!="scrape"', by="") for items, _ in SIGNALS)


def _difference():
    accepted, delivered, dropped, held = (
        f"sum by (instance, {WHO}) ({gauge(f'weir_consumer_{what}_items')})" for what in ("accepted", "delivered", "dropped", "held")
    )
    return f"{accepted} - {delivered} - ({dropped} or 0 * {accepted}) - {held}"


def _of_limit(what):
    return f"{gauge(f'weir_span_metrics_{what}')} / ({gauge(f'weir_span_metrics_{what}_max')} > 0)"


def dashboard():
    instance = query_variable("instance", "weir", "Which weir, by the address of its own page.", "label_values(otelcol_process_uptime, instance)", multi=True, all_value=".+")
    d = Dashboard(
        UID,
        "weir / weir itself",
        "Whether weir takes data, delivers it, and has room; and that its books balance. From its own page (job weir-own).",
        [datasource("prometheus"), instance],
        tags=["own"],
        annotations=[alerts.ANNOTATIONS[0], alerts.ANNOTATIONS[2]],
    )
    d.add(
        3,
        4,
        stat(
            "Takes data",
            "Whether every weir answers Prometheus and its journal takes data. `no`: senders are refused and data is being lost now.",
            # A weir that is down says nothing of its journal.
            query(f'min(up{{job=~"weir|weir-own"}}) * (1 - (max({gauge("weir_journal_refusing")}) or vector(0)))', "takes data"),
            "none",
            steps("red", (1, "green")),
            sparkline=False,
            background=True,
            mappings=[{"type": "value", "options": {"1": {"text": "yes", "index": 0}, "0": {"text": "NO", "index": 1}}}],
        ),
        stat("Taken in", "Spans, log records and metric points that came from outside and were acknowledged, each second.", query(_accepted(), "items"), "cps"),
        stat(
            "Delivered",
            "Items that exporters and connectors are done with, each second. Each consumer counts its own copy, so this is a multiple of what came in.",
            query(rate("weir_consumer_delivered_items", by=""), "items"),
            "cps",
        ),
        stat("Oldest undelivered", "The age of the oldest item that some consumer has not delivered. WeirExporterLag fires above ten minutes.", query(f"max({gauge('weir_consumer_lag_seconds')})", "age"), "s", AGE),
        stat(
            "Backend failing for",
            "For how long the exporter that is worst off has not been able to deliver. Nothing is lost while the journal has room.",
            query(f"max({gauge('weir_consumer_failing_seconds')}) or vector(0)", "failing"),
            "s",
            steps("green", (1e-9, "orange"), (300, "red")),
        ),
        stat(
            "Lost, last hour",
            "Items that will never be delivered although somebody wanted them: reasons are below. Those asked for (nop, processor, unsupported, removed) do not count.",
            query(f"sum(increase(weir_consumer_dropped_items{{{OWN},{LOST}}}[1h])) or vector(0)", "items"),
            "none",
            ANY_IS_BAD,
            defaults={"decimals": 0},
        ),
        stat("Room used", "How full the journal is that has least room: when it is full, senders are refused or the oldest data goes.", query("max(weir:journal_used:ratio)".replace("weir:journal_used:ratio", _journal_used()), "used"), "percentunit", FULL),
        stat(
            "Books differ by",
            "accepted − delivered − dropped − held of all consumers: what would be lost without a trace. Moves by what is read between two counters, and comes back to 0.",
            query(f"sum({_difference()})", "items"),
            "none",
            steps("green", (1, "orange")),
            defaults={"decimals": 0},
        ),
    )
    values = {
        "Value #A": "Delivered/s",
        "Value #B": "Held",
        "Value #C": "Held bytes",
        "Value #D": "Behind",
        "Value #E": "Failing for",
        "Value #F": "Waiting to retry",
        "Value #G": "Dropped, last hour",
    }
    d.add(
        24,
        7,
        table(
            "Exporters and connectors",
            "Every consumer of a pipeline: how far behind it is and whether its destination fails. `weir plan --live` tells the error in the backend's own words.",
            [
                column("A", rate("weir_consumer_delivered_items", by=WHO)),
                column("B", f"sum by ({WHO}) ({gauge('weir_consumer_held_items')})"),
                column("C", f"sum by ({WHO}) ({gauge('weir_consumer_held_bytes')})"),
                column("D", f"max by ({WHO}) ({gauge('weir_consumer_lag_seconds')})"),
                column("E", f"max by ({WHO}) ({gauge('weir_consumer_failing_seconds')})"),
                column("F", f"sum by ({WHO}) ({gauge('weir_consumer_parked_requests')})"),
                column("G", f"sum by ({WHO}) (increase(weir_consumer_dropped_items{{{OWN},{LOST}}}[1h]))"),
            ],
            "none",
            rename={"component": "Component", "pipeline": "Pipeline", "signal": "Signal", **values},
            order=["component", "pipeline", "signal", *values],
            sort="Behind",
            overrides=[
                override("Component", ("custom.minWidth", 160)),
                override("Delivered/s", ("unit", "cps")),
                override("Held bytes", ("unit", "bytes")),
                override("Behind", ("unit", "s"), ("thresholds", AGE), ("custom.cellOptions", {"type": "color-text"})),
                override("Failing for", ("unit", "s"), ("thresholds", steps("green", (1e-9, "orange"), (300, "red"))), ("custom.cellOptions", {"type": "color-text"})),
                override("Dropped, last hour", ("decimals", 0), ("thresholds", ANY_IS_BAD), ("custom.cellOptions", {"type": "color-text"})),
            ],
        ),
    )
    d.row("Taken in")
    d.add(
        8,
        8,
        timeseries(
            "Taken in, by signal",
            "Items that receivers acknowledged, each second; what weir reads of the machine itself is not among them.",
            [query(rate(f"otelcol_receiver_accepted_{items}", 'transport!="scrape"', by=""), items.replace("_", " "), ref=ref) for items, ref in SIGNALS],
            "cps",
            stacked=True,
        ),
        timeseries("Bytes taken in", "Bytes of requests, after decompression, by receiver and signal.", query(rate("weir_receiver_accepted_bytes", by="receiver, signal"), "{{receiver}} {{signal}}"), "Bps", stacked=True),
        timeseries(
            "Refused requests",
            "Requests that the door refused, by reason. `full`: no room; `malformed`: not OTLP. `weir tap --at refused` shows who sends them.",
            query(rate("weir_receiver_refused_requests", by="receiver, reason") + " > 0", "{{receiver}}: {{reason}}"),
            "reqps",
            stacked=True,
            empty="nothing was refused",
        ),
    )
    d.row("Delivered")
    d.add(
        8,
        8,
        timeseries("Delivered, by consumer", "Items that each exporter and connector is done with, each second.", query(rate("weir_consumer_delivered_items", by=WHO), NAMES), "cps"),
        timeseries("How far behind", "The age of the oldest item that a consumer has not delivered. The line is at ten minutes, where WeirExporterLag fires.", query(f"max by ({WHO}) ({gauge('weir_consumer_lag_seconds')})", NAMES), "s", steps("transparent", (600, "red")), lines=True),
        timeseries("Held", "Bytes that wait for a consumer. Growing: its destination fails or is slower than what comes in.", query(f"sum by ({WHO}) ({gauge('weir_consumer_held_bytes')})", NAMES), "bytes"),
    )
    d.add(
        6,
        8,
        timeseries(
            "Backends failing for",
            "For how long each exporter's backend has taken nothing; back at 0 when it does. The line is at five minutes, where WeirExporterFailing fires.",
            query(f"max by ({WHO}) ({gauge('weir_consumer_failing_seconds')})", NAMES),
            "s",
            steps("transparent", (300, "red")),
            lines=True,
            empty="no exporters",
        ),
        timeseries("Requests waiting to retry", "Requests that failed and wait beside the others. At most 256 a consumer.", query(f"sum by ({WHO}) ({gauge('weir_consumer_parked_requests')})", NAMES), "none"),
        timeseries(
            "Attempts that did not succeed",
            "Attempts a second to deliver a request, by exporter and what they came to: `failed` comes again as it was, `partly` with what is left of it, `too_large` in pieces; `refused` goes to the dead letters.",
            query(rate("weir_exporter_attempts", 'outcome!="taken"', by="exporter, outcome") + " > 0", "{{exporter}}: {{outcome}}"),
            "reqps",
            stacked=True,
            empty="every attempt succeeded",
        ),
        timeseries(
            "Documents, by outcome",
            "What Elasticsearch or OpenSearch said of each document.",
            query(rate("weir_elasticsearch_documents", by="component, outcome"), "{{component}}: {{outcome}}"),
            "cps",
            stacked=True,
            empty="no elasticsearch exporter",
        ),
    )
    d.row("The books: accepted = delivered + dropped + held")
    books = {"Value #A": "Accepted", "Value #B": "Delivered", "Value #C": "Dropped", "Value #D": "Held", "Value #E": "Difference"}
    four = [f"sum by ({WHO}) ({gauge(f'weir_consumer_{what}_items')})" for what in ("accepted", "delivered", "dropped", "held")]
    d.add(
        12,
        8,
        table(
            "Books of each consumer",
            "All items since the journal began, kept over restarts. The difference is 0, but for what moved while the page was read.",
            [*(column(ref, expr) for ref, expr in zip("ABCD", four)), column("E", f"sum by ({WHO}) ({_difference()})")],
            "locale",
            rename={"component": "Component", "pipeline": "Pipeline", "signal": "Signal", **books},
            order=["component", "pipeline", "signal", *books],
            overrides=[override("Difference", ("thresholds", steps("green", (1, "orange"))), ("custom.cellOptions", {"type": "color-text"}))],
        ),
        timeseries(
            "Dropped, by reason",
            "Items a second that a consumer will never deliver. `rejected` lies in the dead letters and can be replayed; `nop`, `processor`, `unsupported` and `removed` were asked for.",
            query(rate("weir_consumer_dropped_items", by="component, signal, reason") + " > 0", "{{component}} {{signal}}: {{reason}}"),
            "cps",
            stacked=True,
            empty="nothing was dropped",
        ),
    )
    d.row("Room")
    rooms = [("records", "records", "A"), ("dead letters", "letters", "B")]
    d.add(
        8,
        8,
        bars(
            "Room of the journal",
            "How much of its room each part of the journal uses. Records full: senders are refused. Dead letters full: the oldest go.",
            [query(f"max by (instance) ({gauge(f'weir_journal_{part}_bytes')} / ({gauge(f'weir_journal_{part}_max_bytes')} > 0))", f"{name} {{{{instance}}}}", ref=ref, instant=True) for name, part, ref in rooms],
            "percentunit",
            FULL,
            top=1,
        ),
        timeseries(
            "Bytes of the journal",
            "Files on disk, and the records and dead letters among them. Files are kept to be written over: they do not shrink at once.",
            [
                query(gauge("weir_journal_bytes"), "files {{instance}}", ref="A"),
                query(gauge("weir_journal_records_bytes"), "records {{instance}}", ref="B"),
                query(gauge("weir_journal_letters_bytes"), "dead letters {{instance}}", ref="C"),
            ],
            "bytes",
        ),
        timeseries(
            "Held for nobody",
            "Bytes that are kept for consumers that the configuration no longer has. `weir journal rm --consumer NAME` lets them go.",
            query(f"sum by (consumer) ({gauge('weir_journal_orphan_bytes')})", "{{consumer}}"),
            "bytes",
            empty="nothing is held for nobody",
        ),
    )
    d.add(
        8,
        8,
        timeseries(
            "Dead letters",
            "Items that backends refused for good and that are kept. Look with `weir journal letters`, send again with `weir journal replay`.",
            [
                query(gauge("weir_dead_letters_items"), "items {{instance}}", ref="A"),
                query(gauge("weir_dead_letters_waiting"), "about to be replayed {{instance}}", ref="B"),
            ],
            "none",
        ),
        timeseries(
            "New dead letters, by consumer",
            "Items that became dead letters, by the exporter that refused them and the reason. WeirDeadLetters fires for them.",
            query(f"sum by (component, pipeline, reason) (increase(weir_dead_letters_added_items{{{OWN}}}[$__rate_interval])) > 0", "{{component}} · {{pipeline}}: {{reason}}"),
            "none",
            stacked=True,
            empty="nothing was refused for good",
        ),
        timeseries(
            "Dead letters lost",
            "Letters that went because the room was used up or the disk failed, by reason.",
            query(f"sum by (reason) (increase(weir_dead_letters_dropped{{{OWN}}}[$__rate_interval]))", "{{reason}}"),
            "none",
            empty="none was lost",
        ),
    )
    d.row("Cardinality of RED metrics")
    d.add(
        6,
        8,
        bars(
            "Rows, of what there may be",
            "How much of its room each connector of RED metrics uses: of cardinality::rows_max, from which on labels are folded, and of resource_metrics_cache_size. Without a limit: not here.",
            [
                query(_of_limit("rows"), "rows {{connector}}", ref="A", instant=True),
                query(_of_limit("resources"), "resources {{connector}}", ref="B", instant=True),
            ],
            "percentunit",
            FULL,
            top=1,
        ),
        bars(
            "Values by label",
            "How many values each label was seen with, folded ones included; an estimate. What is far ahead of the others is what explodes.",
            query(f"max by (label) ({gauge('weir_span_metrics_label_demand')})", "{{label}}", instant=True),
            "none",
            steps("green", (1000, "orange"), (10000, "red")),
        ),
        stat(
            "Folded labels",
            "Labels that are folded for a service because its budget of rows is used up. Totals stay exact; the log line names service and label.",
            query(f"sum({gauge('weir_span_metrics_folded_labels')}) or vector(0)", "folded"),
            "none",
            NONE_IS_GOOD,
        ),
        stat("Series on the page", "Series that the exporter prometheus shows. What Prometheus has to store, at each scrape.", query(f"sum({gauge('weir_prometheus_series')})", "series"), "none"),
    )
    odd = [
        ("nameless", "without a service", "A"),
        ("backwards", "that end before they begin", "B"),
        ("folded", "folded", "C"),
        ("overflowed", "in an overflow row", "D"),
        ("other_kind", "of kinds that are not counted", "E"),
    ]
    d.add(
        8,
        8,
        timeseries("Spans counted", "Spans that became RED metrics, each second.", query(rate("weir_span_metrics_counted_spans", by="connector"), "{{connector}}"), "cps"),
        timeseries(
            "Odd spans",
            "Spans that are counted otherwise than others, or not at all, each second.",
            [query(rate(f"weir_span_metrics_{what}_spans", by=""), name, ref=ref) for what, name, ref in odd],
            "cps",
        ),
        timeseries(
            "Left out of the page",
            "Series and points that the exporter prometheus could not show, by what was wrong with them.",
            [
                query(rate("weir_prometheus_series_left_out", by="reason") + " > 0", "series: {{reason}}", ref="A"),
                query(rate("weir_prometheus_points_ignored", by="reason") + " > 0", "points: {{reason}}", ref="B"),
                query(rate("weir_prometheus_type_conflicts", by="") + " > 0", "types in conflict", ref="C"),
            ],
            "cps",
            empty="nothing was left out",
        ),
    )
    d.row("The process")
    d.add(
        6,
        7,
        timeseries("CPU", "How many CPUs weir uses.", query(rate("otelcol_process_cpu_seconds"), "{{instance}}"), "none", defaults={"decimals": 2}),
        timeseries("Memory", "Resident memory.", query(gauge("otelcol_process_memory_rss"), "{{instance}}"), "bytes"),
        timeseries(
            "How long a scrape takes",
            "Prometheus reading weir's pages. Near scrape_timeout (10 s) series begin to be missing.",
            query('scrape_duration_seconds{job=~"weir|weir-own"}', "{{job}} {{instance}}"),
            "s",
        ),
        stat(
            "Runs for",
            "Since the process began. Short: it was restarted; `journalctl -u weir` says why.",
            query(gauge("otelcol_process_uptime"), "{{instance}}"),
            "s",
            steps("orange", (600, "text")),
            sparkline=False,
        ),
    )
    d.add(
        6,
        5,
        stat(
            "Configuration",
            "Whether the file on disk is what runs. `refused`: `weir validate` names line and column; a restart would fail with it.",
            query(f"min({gauge('weir_config_last_reload_successful')})", "configuration"),
            "none",
            steps("red", (1, "green")),
            sparkline=False,
            mappings=[{"type": "value", "options": {"1": {"text": "runs", "index": 0}, "0": {"text": "refused", "index": 1}}}],
        ),
        stat("Read", "When a configuration was last read that runs.", query(f"max({gauge('weir_config_last_reload_success_timestamp_seconds')}) * 1000", "read"), "dateTimeFromNow", sparkline=False),
        stat("Host metrics not read", "Points of the machine that could not be read, each second.", query(f"{rate('otelcol_scraper_errored_metric_points', by='')}", "points"), "cps", steps("green", (1e-9, "orange"))),
        stat("Taps", "Open `weir tap`s; they cost a little CPU.", query(f"sum({gauge('weir_taps')})", "taps"), "none"),
    )
    return d.model()


def _journal_used():
    return f"{gauge('weir_journal_records_bytes')} / ({gauge('weir_journal_records_max_bytes')} > 0)"
