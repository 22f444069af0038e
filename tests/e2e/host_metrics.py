"""The machine's metrics: weir beside Debian's node exporter (numbers) and the Collector's own receiver (names, units, attributes)."""

import json
import os
import socket
import time

from harness import OTELCOL, WORK, Process, Sink, get, main, port, promise, samples, until, weir

WITHOUT = os.environ.get("WITHOUT", "").split()

# What the Collector's receiver tells of where nothing is said, and what is off there and on in a newer one.
SCRAPERS = """
      cpu: {metrics: {%s, system.cpu.logical.count: {enabled: true}, system.cpu.physical.count: {enabled: true}, system.cpu.frequency: {enabled: true}}}
      memory: {metrics: {system.memory.utilization: {enabled: true}, system.memory.limit: {enabled: true}, system.memory.page_size: {enabled: true}, system.linux.memory.available: {enabled: true}, system.linux.memory.dirty: {enabled: true}, system.memory.linux.shared: {enabled: true}, system.memory.linux.hugepages.limit: {enabled: true}, system.memory.linux.hugepages.usage: {enabled: true}, system.memory.linux.hugepages.reserved: {enabled: true}, system.memory.linux.hugepages.surplus: {enabled: true}, system.memory.linux.hugepages.page_size: {enabled: true}}}
      load:
      disk:
      filesystem: {metrics: {system.filesystem.utilization: {enabled: true}}}
      network:
      paging: {metrics: {system.paging.utilization: {enabled: true}}}
      processes:
      system:
      process:
        include: {match_type: regexp, names: ["^(bash|python|weir|otelcol)"]}
        mute_process_all_errors: true
        metrics: {process.threads: {enabled: true}, process.open_file_descriptors: {enabled: true}, process.context_switches: {enabled: true}, process.paging.faults: {enabled: true}, process.uptime: {enabled: true}, process.disk.operations: {enabled: true}, process.signals_pending: {enabled: true}, process.cpu.utilization: {enabled: true}, process.memory.utilization: {enabled: true}}
"""
BY_CPU = "system.cpu.time: {attributes: [cpu, state]}, system.cpu.utilization: {enabled: true, attributes: [cpu, state]}"
ALL_CPUS = "system.cpu.utilization: {enabled: true}"

FILE = """
receivers:
  hostmetrics:
    collection_interval: 1s
    initial_delay: 0s
    scrapers:%s
processors:
  resourcedetection: {detectors: [env, system], system: {hostname_sources: [os]}}
exporters:
  otlp: {endpoint: "127.0.0.1:%d", tls: {insecure: true}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {metrics: {receivers: [hostmetrics], processors: [resourcedetection], exporters: [otlp]}}
"""


def told(sink):
    """{name: (unit, kind, {keys of attributes})} and {(name, attributes): last value} of what arrived; keys of all resources."""
    metrics, values, resources = {}, {}, set()
    for request in sink.requests("metrics"):
        for group in request.resource_metrics:
            resources.update(one.key for one in group.resource.attributes)
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    data = metric.WhichOneof("data")
                    kind = data if data == "gauge" else f"sum, {'only grows' if metric.sum.is_monotonic else 'goes up and down'}"
                    _, _, keys = metrics.setdefault(metric.name, (metric.unit, kind, set()))
                    for point in getattr(metric, data).data_points:
                        keys.add(tuple(sorted(one.key for one in point.attributes)))
                        attributes = tuple(sorted((one.key, one.value.string_value) for one in point.attributes))
                        values[metric.name, attributes] = point.as_double or point.as_int
    return metrics, values, resources


def collected(make, name):
    """What a program tells through the file, by a sink of its own."""
    sink = Sink()
    config = WORK / f"{name}.yaml"
    # The Collector of this version tells of CPU time CPU by CPU, a newer one and weir only when asked.
    config.write_text(FILE % (SCRAPERS % (BY_CPU if name == "weir" else ALL_CPUS), sink.port))
    process = make(config)
    until(lambda: len(sink.requests("metrics")) >= 3, 30)
    found = told(sink)
    process.stop()
    sink.stop()
    return found, process


def beside_the_collector():
    (theirs, their_values, their_resources), _ = collected(lambda config: Process("otelcol", [OTELCOL, "--config", config]), "otelcol")
    (ours, our_values, our_resources), process = collected(lambda config: weir(["run", "--journal", "memory", "--config", config]), "weir")
    promise("the Collector tells of the host", len(theirs) > 40, f"{sorted(theirs)}")
    missing = sorted(set(theirs) - set(ours))
    promise(f"every metric of the Collector's {len(theirs)} is there", not missing, f"{missing} {process.text()[-800:]}")
    promise("and none that it does not have", not set(ours) - set(theirs), f"{sorted(set(ours) - set(theirs))}")
    wrong = {name: (ours.get(name), theirs[name]) for name in theirs if name in ours and ours[name] != theirs[name]}
    promise("units, kinds and attributes are the same", not wrong, json.dumps(wrong, default=list)[:2000])
    promise("resources have the same attributes", our_resources == their_resources, f"{sorted(our_resources)} {sorted(their_resources)}")
    # What hardly moves within seconds.
    still = [
        key
        for key in their_values
        if key[0]
        in (
            "system.memory.limit",
            "system.memory.page_size",
            "system.cpu.logical.count",
            "system.cpu.physical.count",
            "system.memory.linux.hugepages.limit",
            "system.filesystem.usage",
            "system.filesystem.inodes.usage",
        )
    ]
    far = {key: (our_values.get(key), their_values[key]) for key in still if not near(our_values.get(key), their_values[key], 0.02, 1 << 26)}
    promise(f"{len(still)} values that hardly move are the same", still and not far, f"{far}")


def near(ours, theirs, share, floor=0.0):
    return ours is not None and abs(ours - theirs) <= max(share * max(abs(ours), abs(theirs)), floor)


# weir's name and labels, the exporter's, and how far apart they may be where 2 % of it is less than a moment of the machine.
def rows(exporter):
    cpus = {labels["cpu"] for name, labels, _, _ in exporter if name == "node_cpu_seconds_total"}
    for mode in ("user", "nice", "system", "idle"):
        yield ("system_cpu_time_seconds_total", {"state": mode}), ("node_cpu_seconds_total", {"mode": mode}), 2.0 * len(cpus)
    for state, name in (("free", "MemFree"), ("buffered", "Buffers")):
        yield ("system_memory_usage_bytes", {"state": state}), (f"node_memory_{name}_bytes", {}), 64 << 20
    yield ("system_memory_limit_bytes", {}), ("node_memory_MemTotal_bytes", {}), 0
    yield ("system_cpu_load_average_1m", {}), ("node_load1", {}), 0.2
    yield ("system_cpu_load_average_15m", {}), ("node_load15", {}), 0.05
    yield ("system_processes_created_total", {}), ("node_forks_total", {}), 50
    for direction, word in (("in", "in"), ("out", "out")):
        operations = {"direction": f"page_{direction}", "type": "minor"}
        yield ("system_paging_operations_total", operations), (f"node_vmstat_pgpg{word}", {}), 1 << 16
    yield ("system_paging_faults_total", {"type": "major"}), ("node_vmstat_pgmajfault", {}), 500
    for name, labels, _, _ in exporter:
        if name == "node_network_receive_bytes_total":
            device = labels["device"]
            for direction in ("receive", "transmit"):
                ours = {"device": device, "direction": direction}
                yield ("system_network_io_bytes_total", ours), (f"node_network_{direction}_bytes_total", {"device": device}), 1 << 21
                yield ("system_network_packets_total", ours), (f"node_network_{direction}_packets_total", {"device": device}), 5000
                yield ("system_network_dropped_total", ours), (f"node_network_{direction}_drop_total", {"device": device}), 5
        if name == "node_disk_io_time_seconds_total":
            device = labels["device"]
            if any(n == "node_disk_writes_completed_total" and l["device"] == device and v > 0 for n, l, v, _ in exporter):
                for direction, word, bytes_word in (("read", "reads", "read"), ("write", "writes", "written")):
                    ours = {"device": device, "direction": direction}
                    yield ("system_disk_io_bytes_total", ours), (f"node_disk_{bytes_word}_bytes_total", {"device": device}), 1 << 25
                    yield ("system_disk_operations_total", ours), (f"node_disk_{word}_completed_total", {"device": device}), 500
                yield ("system_disk_io_time_seconds_total", {"device": device}), (name, {"device": device}), 2.0
        if name == "node_filesystem_size_bytes" and labels["device"].startswith("/dev/") and labels["mountpoint"] == "/":
            place = {"device": labels["device"], "mountpoint": "/"}
            yield ("system_filesystem_usage_bytes", {**place, "state": "free"}), ("node_filesystem_avail_bytes", place), 1 << 26
            yield ("system_filesystem_inodes_usage", {**place, "state": "free"}), ("node_filesystem_files_free", place), 5000


def value(page, name, labels):
    """The sum of a name's samples with these labels; `None` where there are none."""
    found = [v for n, has, v, _ in page if n == name and all(has.get(key) == want for key, want in labels.items())]
    return sum(found) if found else None


def beside_the_exporter():
    number, red, own = port(), port(), port()
    node = Process("node_exporter", ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{number}"]).listens(number)
    reader = f"[{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {own}}}}}}}}}]"
    sets = [
        f"exporters::prometheus::endpoint=127.0.0.1:{red}",
        f"receivers::otlp::protocols::grpc::endpoint=127.0.0.1:{port()}",
        f"receivers::otlp::protocols::http::endpoint=127.0.0.1:{port()}",
        f"extensions::health_check::endpoint=127.0.0.1:{port()}",
        "receivers::host_metrics::collection_interval=1s",
        "receivers::host_metrics::scrapers::process::enabled=true",
        f"service::telemetry::metrics::readers={reader}",
    ]
    process = weir(["run", *[word for one in sets for word in ("--set", one)]])
    process.listens(red)

    def page(number):
        status, _, text = get(f"http://127.0.0.1:{number}/metrics")
        # Until all of before the start is applied the page says so instead.
        return list(samples(text)) if status == 200 else []

    shown = until(lambda: value(page(red), "system_uptime_seconds", {}), 20)
    promise("the embedded default shows the host", shown is not None, process.text()[-1500:])
    host = socket.gethostname()
    named = [labels for name, labels, _, _ in page(red) if name == "system_memory_limit_bytes"]
    promise(f"series are of this host ({host})", named and all(labels.get("host_name") == host == labels.get("instance") for labels in named), f"{named}")
    # Another moment costs the busy machine a little: three looks, each as close together as can be.
    for attempt in range(3):
        time.sleep(1.2)
        exporter, ours = page(number), page(red)
        pairs = list(rows(exporter))
        far = {}
        for (name, labels), (their_name, their_labels), floor in pairs:
            mine, theirs = value(ours, name, labels), value(exporter, their_name, their_labels)
            if theirs is not None and not near(mine, theirs, 0.02, floor):
                far[f"{name}{labels}"] = (mine, theirs)
        if not far:
            break
    promise(f"{len(pairs)} numbers are within 2 % of node exporter's", len(pairs) > 25 and not far, f"{far}")
    scraped = value(page(own), "otelcol_scraper_scraped_metric_points", {"scraper": "cpu"})
    errored = value(page(own), "otelcol_scraper_errored_metric_points", {})
    promise("what was read is counted, and nothing could not be", scraped and errored == 0, f"{scraped} {errored} {process.text()[-800:]}")
    processes = [labels for name, labels, _, _ in page(red) if name == "process_memory_usage_bytes"]
    ours = [labels for labels in processes if labels["process_pid"] == str(process.pid) and labels["instance"] == f"{host}:{process.pid}"]
    promise(f"{len(processes)} processes are told apart where they are asked for, weir among them", len(ours) == 1, f"{processes[:5]}")
    shown = get(f"http://127.0.0.1:{red}/metrics")[2]
    promise("no command line is on the page", "command_line" not in shown and "collection_interval=1s" not in shown)
    promise("weir ends in order", process.stop() == 0, process.text()[-800:])
    node.stop()


def check():
    if "node_exporter" not in WITHOUT:
        beside_the_exporter()
    if "otelcol" not in WITHOUT:
        beside_the_collector()


main(check)
